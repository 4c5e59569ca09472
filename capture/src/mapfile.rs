//! GNU ddrescue's mapfile: read and written, so that a rescue can move between
//! tools.
//!
//! The format is the chapter "Mapfile structure" of ddrescue's manual (1.27):
//! comments from a `#` at the beginning of a line or after white space; a status
//! line `position status pass` (versions before 1.20 leave the pass out); then
//! blocks `position size status`, each beginning where the last one ended.
//! Numbers are as in C++: decimal, `0x` hexadecimal or `0` octal.
//!
//! Invariants
//! - Whatever the bytes, reading them ends with a map or a typed error that names
//!   the line; memory is proportional to the text.
//! - What is written can be read back, by ddrescue too. Only errnos and
//!   the number of attempts get lost: the format has no place for them.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use crate::map::{RangeState, RescueMap, StateKind};
use crate::pass::Stage;

/// The largest position in a mapfile: ddrescue counts in signed 64-bit numbers.
const POSITION_MAX: u64 = i64::MAX as u64;

/// The errno given to sectors that another tool found bad: EIO, "input/output
/// error", which is all that is known about them.
const ERRNO_UNKNOWN: i32 = 5;

/// What was being done when the mapfile was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    /// `?`: copying non-tried blocks.
    Copying,
    /// `*`: trimming non-trimmed blocks.
    Trimming,
    /// `/`: scraping non-scraped blocks.
    Scraping,
    /// `-`: retrying bad sectors.
    Retrying,
    /// `F`: filling blocks with a pattern.
    Filling,
    /// `G`: guessing a map from an image.
    Generating,
    /// `+`: finished.
    Finished,
}

impl Activity {
    const ALL: [Self; 7] = [
        Self::Copying,
        Self::Trimming,
        Self::Scraping,
        Self::Retrying,
        Self::Filling,
        Self::Generating,
        Self::Finished,
    ];

    /// The character that stands for it.
    pub fn symbol(self) -> char {
        match self {
            Self::Copying => '?',
            Self::Trimming => '*',
            Self::Scraping => '/',
            Self::Retrying => '-',
            Self::Filling => 'F',
            Self::Generating => 'G',
            Self::Finished => '+',
        }
    }
}

/// The status line of a mapfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status {
    /// Where reading was; in a backward pass, the end of what was being read.
    pub position: u64,
    /// What was being done.
    pub activity: Activity,
    /// The number of the pass, from 1.
    pub pass: u32,
}

impl Status {
    /// The status line for a stage of our own.
    pub fn of(stage: Stage, position: u64) -> Self {
        let (activity, pass) = match stage {
            Stage::Copy { pass } => (Activity::Copying, u32::from(pass)),
            Stage::Trim => (Activity::Trimming, 1),
            Stage::Scrape => (Activity::Scraping, 1),
            Stage::Retry { pass } => (Activity::Retrying, pass),
            Stage::Done => (Activity::Finished, 1),
        };
        Self {
            position,
            activity,
            pass,
        }
    }
}

/// A mapfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapfile {
    /// The status line.
    pub status: Status,
    /// The blocks. It ends where the last block ends; what precedes the first
    /// block is untried.
    pub map: RescueMap,
}

/// Why a mapfile was not understood. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapfileError {
    /// There is nothing but comments.
    #[error("the mapfile has no status line")]
    NoStatusLine,
    /// A line ends before its fields do.
    #[error("line {line} of the mapfile lacks its {field}")]
    Missing {
        /// The line.
        line: usize,
        /// The field that is not there.
        field: &'static str,
    },
    /// A field is no number from 0 to 2^63 - 1.
    #[error(
        "line {line} of the mapfile has {found:?} for its {field}, which is no number that ddrescue writes"
    )]
    Number {
        /// The line.
        line: usize,
        /// The field.
        field: &'static str,
        /// The beginning of what is there.
        found: String,
    },
    /// A field is no status that belongs there.
    #[error("line {line} of the mapfile has {found:?} for its status")]
    Symbol {
        /// The line.
        line: usize,
        /// The beginning of what is there.
        found: String,
    },
    /// A line goes on after its fields.
    #[error("line {line} of the mapfile goes on with {found:?}")]
    Trailing {
        /// The line.
        line: usize,
        /// The beginning of what is there.
        found: String,
    },
    /// A block is empty.
    #[error("line {line} of the mapfile describes a block of no bytes")]
    EmptyBlock {
        /// The line.
        line: usize,
    },
    /// A block ends beyond 2^63 - 1.
    #[error("line {line} of the mapfile describes a block that ends beyond any disk")]
    TooLarge {
        /// The line.
        line: usize,
    },
    /// A block begins after the end of the one before.
    #[error("line {line} of the mapfile begins at {found}, which leaves a gap after {expected}")]
    Gap {
        /// The line.
        line: usize,
        /// Where the block before ended.
        expected: u64,
        /// Where this one begins.
        found: u64,
    },
    /// A block begins before the end of the one before.
    #[error(
        "line {line} of the mapfile begins at {found}, before the end of the block before at {expected}"
    )]
    Overlap {
        /// The line.
        line: usize,
        /// Where the block before ended.
        expected: u64,
        /// Where this one begins.
        found: u64,
    },
    /// The blocks say something about bytes that the source does not have.
    #[error("the mapfile describes bytes beyond the end of the source, which has {size} bytes")]
    BeyondSource {
        /// Size of the source.
        size: u64,
    },
}

impl Mapfile {
    /// Reads a mapfile. Comments may hold any bytes.
    pub fn parse(text: &[u8]) -> Result<Self, MapfileError> {
        let mut lines = (1..)
            .zip(text.split(|&byte| byte == b'\n'))
            .map(|(number, line)| Line::new(number, line))
            .filter(|line| !line.is_blank());
        let mut line = lines.next().ok_or(MapfileError::NoStatusLine)?;
        let status = Status {
            position: line.number("position")?,
            activity: line.symbol(&Activity::ALL, |activity| activity.symbol())?,
            pass: match line.optional_number("pass")? {
                Some(pass) => u32::try_from(pass).unwrap_or(u32::MAX),
                None => 1,
            },
        };
        line.end()?;

        // The map can only be made once its size is known, and the blocks are
        // as many as the lines.
        let mut blocks: Vec<(u64, RangeState)> = Vec::new();
        let mut end: Option<u64> = None;
        for mut line in lines {
            let start = line.number("position")?;
            let size = line.number("size")?;
            let kind = line.symbol(&StateKind::ALL, |kind| block_symbol(*kind))?;
            let at = line.number;
            line.end()?;
            if size == 0 {
                return Err(MapfileError::EmptyBlock { line: at });
            }
            match end {
                Some(expected) if start > expected => {
                    return Err(MapfileError::Gap {
                        line: at,
                        expected,
                        found: start,
                    });
                }
                Some(expected) if start < expected => {
                    return Err(MapfileError::Overlap {
                        line: at,
                        expected,
                        found: start,
                    });
                }
                Some(_) => {}
                None if start > 0 => blocks.push((start, RangeState::Untried)),
                None => {}
            }
            let block_end = start.checked_add(size).filter(|&end| end <= POSITION_MAX);
            let block_end = block_end.ok_or(MapfileError::TooLarge { line: at })?;
            blocks.push((block_end, block_state(kind)));
            end = Some(block_end);
        }

        let mut map = RescueMap::new(end.unwrap_or(0));
        let mut start = 0;
        for (end, state) in blocks {
            map.set(start..end, state);
            start = end;
        }
        Ok(Self { status, map })
    }

    /// The map for a source of `size` bytes. A mapfile may end earlier, or, where
    /// ddrescue did not know the size, beyond the end with untried bytes.
    pub fn into_map(self, size: u64) -> Result<RescueMap, MapfileError> {
        let resized = self.map.resized(size);
        resized.ok_or(MapfileError::BeyondSource { size })
    }

    /// Writes a mapfile. `comments` come first, one line each.
    pub fn render(&self, comments: &[&str]) -> String {
        render(&self.map, self.status, comments)
    }
}

/// Writes a map as a mapfile. `comments` come first; each is one line, whatever
/// control characters it has.
pub fn render(map: &RescueMap, status: Status, comments: &[&str]) -> String {
    let mut text = String::new();
    for comment in comments {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        text.push_str("# ");
        text.extend(comment.chars().map(printable));
        text.push('\n');
    }
    text.push_str("# current_pos  current_status  current_pass\n");
    push_line(
        &mut text,
        format_args!(
            "0x{:08X}     {}               {}",
            status.position.min(POSITION_MAX),
            status.activity.symbol(),
            status.pass.max(1),
        ),
    );
    text.push_str("#      pos        size  status\n");
    // Unreadable neighbours that differ in errno or attempts are one block.
    let mut runs = map.runs().peekable();
    while let Some(mut run) = runs.next() {
        let kind = run.state.kind();
        while let Some(next) = runs.next_if(|next| next.state.kind() == kind) {
            run.len += next.len;
        }
        push_line(
            &mut text,
            format_args!(
                "0x{:08X}  0x{:08X}  {}",
                run.start,
                run.len,
                block_symbol(kind)
            ),
        );
    }
    text
}

fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a string takes any text");
    text.push('\n');
}

fn block_symbol(kind: StateKind) -> char {
    match kind {
        StateKind::Untried => '?',
        StateKind::Untrimmed => '*',
        StateKind::Unscraped => '/',
        StateKind::Unreadable => '-',
        StateKind::Copied => '+',
    }
}

fn block_state(kind: StateKind) -> RangeState {
    match kind {
        StateKind::Untried => RangeState::Untried,
        StateKind::Untrimmed => RangeState::Untrimmed,
        StateKind::Unscraped => RangeState::Unscraped,
        StateKind::Unreadable => RangeState::Unreadable {
            errno: ERRNO_UNKNOWN,
            attempts: 1,
        },
        StateKind::Copied => RangeState::Copied,
    }
}

/// A line without its comment, field by field.
struct Line<'a> {
    number: usize,
    rest: &'a [u8],
}

impl<'a> Line<'a> {
    fn new(number: usize, line: &'a [u8]) -> Self {
        let comment =
            (0..line.len()).find(|&at| line[at] == b'#' && (at == 0 || is_space(line[at - 1])));
        Self {
            number,
            rest: &line[..comment.unwrap_or(line.len())],
        }
    }

    fn is_blank(&self) -> bool {
        self.rest.iter().all(|&byte| is_space(byte))
    }

    fn next_field(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|&byte| !is_space(byte))?;
        let field = &self.rest[start..];
        let len = field.iter().position(|&byte| is_space(byte));
        let (field, rest) = field.split_at(len.unwrap_or(field.len()));
        self.rest = rest;
        Some(field)
    }

    fn field(&mut self, field: &'static str) -> Result<&'a [u8], MapfileError> {
        let line = self.number;
        self.next_field()
            .ok_or(MapfileError::Missing { line, field })
    }

    fn number(&mut self, field: &'static str) -> Result<u64, MapfileError> {
        let found = self.field(field)?;
        parse_number(found).ok_or_else(|| MapfileError::Number {
            line: self.number,
            field,
            found: excerpt(found),
        })
    }

    fn optional_number(&mut self, field: &'static str) -> Result<Option<u64>, MapfileError> {
        if self.is_blank() {
            return Ok(None);
        }
        self.number(field).map(Some)
    }

    fn symbol<T: Copy>(
        &mut self,
        known: &[T],
        symbol: impl Fn(&T) -> char,
    ) -> Result<T, MapfileError> {
        let found = self.field("status")?;
        let mut known = known.iter();
        let is_found = |item: &&T| {
            let mut bytes = [0; 4];
            symbol(item).encode_utf8(&mut bytes).as_bytes() == found
        };
        known
            .find(is_found)
            .copied()
            .ok_or_else(|| MapfileError::Symbol {
                line: self.number,
                found: excerpt(found),
            })
    }

    fn end(mut self) -> Result<(), MapfileError> {
        match self.next_field() {
            None => Ok(()),
            Some(found) => Err(MapfileError::Trailing {
                line: self.number,
                found: excerpt(found),
            }),
        }
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// A number as C++ writes integer constants, up to [`POSITION_MAX`].
fn parse_number(field: &[u8]) -> Option<u64> {
    let (digits, radix) = match field {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', digits @ ..] if !digits.is_empty() => (digits, 8),
        digits => (digits, 10),
    };
    // `from_str_radix` would take a sign.
    if !digits.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let digits = std::str::from_utf8(digits).ok()?;
    let number = u64::from_str_radix(digits, radix).ok()?;
    (number <= POSITION_MAX).then_some(number)
}

/// The beginning of a field, for a message.
fn excerpt(found: &[u8]) -> String {
    const LEN_MAX: usize = 24;
    String::from_utf8_lossy(&found[..found.len().min(LEN_MAX)]).into_owned()
}
