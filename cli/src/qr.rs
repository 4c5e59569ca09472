//! QR codes on a terminal, to get a domain's id from a rescue system's screen into another machine's camera.
//!
//! Light modules are written, dark ones are blanks: terminals are light on dark. With UTF-8 one character shows two modules one
//! above the other (37 columns and 19 rows for a domain id); in ASCII two characters make one module (74 columns, 37 rows), for a
//! letter is twice as high as it is wide.

use asl_bootstrap::DomainId;
use qrcode::{Color, EcLevel, QrCode};

use crate::error::CliError;

/// Modules of margin around the code: a reader needs them (ISO/IEC 18004, 5.3.8).
const QUIET: usize = 4;

/// How modules are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    /// Half blocks.
    Blocks,
    /// Only ASCII.
    Ascii,
}

impl Drawing {
    /// What the locale allows, by the first of these variables that is set (locale(7)).
    pub fn of_locale() -> Self {
        let set = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| {
            let value = std::env::var(name).ok()?;
            (!value.is_empty()).then_some(value)
        });
        match set {
            Some(locale) if is_utf8(&locale) => Self::Blocks,
            _ => Self::Ascii,
        }
    }
}

fn is_utf8(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The code of a domain's id, in capitals; whoever reads it takes those as well.
///
/// # Errors
/// None that can happen: the id is short enough.
pub fn of_domain(domain: &DomainId, drawing: Drawing) -> Result<Vec<String>, CliError> {
    draw(&domain.to_string().to_uppercase(), drawing)
}

/// The code of a text, as lines of equal width. Capitals and digits make a smaller code than small letters.
///
/// # Errors
/// A text that is longer than any code.
pub fn draw(text: &str, drawing: Drawing) -> Result<Vec<String>, CliError> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .map_err(|error| CliError::new("cannot draw a QR code").caused_by(&error))?;
    let width = code.width();
    let light = |row: usize, column: usize| {
        let inside = |at: usize| at.checked_sub(QUIET).filter(|at| *at < width);
        match (inside(row), inside(column)) {
            (Some(row), Some(column)) => code[(column, row)] == Color::Light,
            _ => true,
        }
    };
    let size = width + 2 * QUIET;
    let lines = match drawing {
        Drawing::Ascii => (0..size)
            .map(|row| {
                let modules = (0..size).map(|column| if light(row, column) { "##" } else { "  " });
                modules.collect()
            })
            .collect(),
        Drawing::Blocks => (0..size)
            .step_by(2)
            .map(|row| {
                let modules = (0..size).map(|column| {
                    // The number of rows is odd: the last has nothing below it.
                    let below = row + 1 < size && light(row + 1, column);
                    match (light(row, column), below) {
                        (true, true) => '\u{2588}',
                        (true, false) => '\u{2580}',
                        (false, true) => '\u{2584}',
                        (false, false) => ' ',
                    }
                });
                modules.collect()
            })
            .collect(),
    };
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "ASL1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SXF8S5R";

    /// The modules of a drawing; true is dark.
    fn modules(lines: &[String], drawing: Drawing) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in lines {
            match drawing {
                Drawing::Ascii => {
                    let chars: Vec<char> = line.chars().collect();
                    assert!(chars.chunks(2).all(|pair| pair[0] == pair[1]), "{line}");
                    rows.push(chars.chunks(2).map(|pair| pair[0] == ' ').collect());
                }
                Drawing::Blocks => {
                    let dark = |upper: &str| line.chars().map(|c| !upper.contains(c)).collect();
                    rows.push(dark("\u{2588}\u{2580}"));
                    rows.push(dark("\u{2588}\u{2584}"));
                }
            }
        }
        rows
    }

    /// What somebody else's reader makes of it.
    fn read(lines: &[String], drawing: Drawing) -> String {
        const PIXELS: usize = 4;
        let modules = modules(lines, drawing);
        let (height, width) = (modules.len() * PIXELS, modules[0].len() * PIXELS);
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
            match modules[y / PIXELS][x / PIXELS] {
                true => 0,
                false => 255,
            }
        });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1, "{}", lines.join("\n"));
        grids[0].decode().expect("it can be read").1
    }

    #[test]
    fn a_reader_gets_the_text_back() {
        for drawing in [Drawing::Blocks, Drawing::Ascii] {
            for text in [ID, "asl1 in small letters", "A"] {
                assert_eq!(read(&draw(text, drawing).unwrap(), drawing), text);
            }
        }
        assert!(draw(&"x".repeat(4000), Drawing::Ascii).is_err());
    }

    #[test]
    fn the_code_of_a_domain_fits_the_screen() {
        let blocks = draw(ID, Drawing::Blocks).unwrap();
        assert_eq!(blocks.len(), 19);
        assert!(blocks.iter().all(|line| line.chars().count() == 37));
        let ascii = draw(ID, Drawing::Ascii).unwrap();
        assert_eq!(ascii.len(), 37);
        assert!(ascii.iter().all(|line| line.len() == 74 && line.is_ascii()));
    }

    #[test]
    fn locales_say_whether_they_are_utf8() {
        for (locale, utf8) in [
            ("en_GB.UTF-8", true),
            ("C.utf8", true),
            ("de_DE.UTF-8@euro", true),
            ("C", false),
            ("POSIX", false),
            ("de_DE.ISO-8859-1", false),
        ] {
            assert_eq!(is_utf8(locale), utf8, "{locale}");
        }
    }
}
