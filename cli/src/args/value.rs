//! Values on the command line: sizes, labels, keys, places in time.

use std::str::FromStr;

use asl_capture::export::Fill;
use asl_store::format::LABEL_MAX;
use asl_store::{Compression, LogPosition};

use crate::text;

/// A number of bytes: `65536`, `64K`, `64KiB`, `1.5G`. Binary units only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let power = match unit.trim() {
            "" | "B" => 0,
            "K" | "k" | "KiB" => 1,
            "M" | "MiB" => 2,
            "G" | "GiB" => 3,
            "T" | "TiB" => 4,
            "kB" | "KB" | "MB" | "GB" | "TB" => {
                return Err(format!(
                    "{unit} means different things to different programs: write {}iB (powers of 1024)",
                    &unit[..1].to_uppercase()
                ));
            }
            _ => return Err("a size is a number with B, K, M, G or T (powers of 1024)".to_owned()),
        };
        let unit_bytes = 1u64 << (10 * power);
        let too_large = || "larger than any disk".to_owned();
        if let Ok(whole) = number.parse::<u64>() {
            return whole
                .checked_mul(unit_bytes)
                .map(Self)
                .ok_or_else(too_large);
        }
        // Tenths and the like: `1.5G`.
        let number: f64 = match number.parse() {
            Ok(number) if power > 0 && number >= 0.0 => number,
            _ => return Err("not a number of bytes".to_owned()),
        };
        let bytes = number * unit_bytes as f64;
        if bytes > 9e18 {
            return Err(too_large());
        }
        Ok(Self(bytes as u64))
    }
}

/// The user's words for a capture or a snapshot: short and printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(pub String);

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a label is not empty".to_owned());
        }
        if text.len() > LABEL_MAX as usize {
            return Err(format!("a label is at most {LABEL_MAX} bytes long"));
        }
        if !text::is_printable(text) {
            return Err("a label has no control characters".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// A key or the beginning of one: 4 to 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPrefix(pub String);

impl FromStr for KeyPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hex = text.chars().all(|c| c.is_ascii_hexdigit());
        if !hex || !(4..=64).contains(&text.len()) {
            return Err("a key is 64 hexadecimal digits, or at least its first 4".to_owned());
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// `SNAPSHOT[:POSITION]`: a snapshot and how far the log is replayed onto it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// Ordinal, id, unique beginning of its digest, or label.
    pub snapshot: String,
    /// Log position; without one, the snapshot itself.
    pub position: Option<LogPosition>,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (snapshot, position) = match text.rsplit_once(':') {
            Some((snapshot, position)) => {
                let position = position
                    .parse()
                    .map_err(|_| format!("`{position}` is not a log position (a number)"))?;
                (snapshot, Some(LogPosition(position)))
            }
            None => (text, None),
        };
        if snapshot.is_empty() {
            return Err("no snapshot is named".to_owned());
        }
        Ok(Self {
            snapshot: snapshot.to_owned(),
            position,
        })
    }
}

/// `START:LEN`, each with an optional unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeArg {
    /// First byte.
    pub start: u64,
    /// Bytes, at least 1.
    pub len: u64,
}

impl FromStr for RangeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (start, len) = text
            .split_once(':')
            .ok_or("a range is START:LEN, for example 1G:64K")?;
        let (Size(start), Size(len)) = (start.parse()?, len.parse()?);
        if len == 0 || start.checked_add(len).is_none() {
            return Err("a range has at least one byte and ends before 16 EiB".to_owned());
        }
        Ok(Self { start, len })
    }
}

/// `none`, `auto`, or a zstd level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionArg(pub Compression);

impl FromStr for CompressionArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(Compression::None)),
            "auto" => Ok(Self(Compression::Auto)),
            _ => match text.parse::<i32>() {
                Ok(level @ 1..=19) => Ok(Self(Compression::Level(level))),
                _ => Err("none, auto, or a zstd level from 1 to 19".to_owned()),
            },
        }
    }
}

/// `zero` or `pattern:HEX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FillArg(pub Fill);

impl FromStr for FillArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "zero, or pattern: and 1 to 512 bytes in hex, for example pattern:EE".to_owned();
        if text == "zero" {
            return Ok(Self(Fill::Zero));
        }
        let digits = text.strip_prefix("pattern:").ok_or_else(wrong)?;
        if digits.is_empty()
            || !digits.len().is_multiple_of(2)
            || digits.len() > 1024
            || !digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        {
            return Err(wrong());
        }
        let pattern: Result<Vec<u8>, _> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16))
            .collect();
        Ok(Self(Fill::Pattern(pattern.map_err(|_| wrong())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("64K", 65536),
            ("64 KiB", 65536),
            ("1.5G", 3 << 29),
            ("16TiB", 16 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in [
            "",
            "K",
            "-1",
            "1.5",
            "1MB",
            "1e3",
            "99999999999T",
            "1.5X",
            "1..5K",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn labels_are_short_and_printable() {
        assert!("Anna's laptop, left disk".parse::<Label>().is_ok());
        for text in ["", "a\nb", "\u{1b}[2J", "\u{202e}x", &"x".repeat(257)] {
            assert!(text.parse::<Label>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn places_in_time_parse() {
        let at: At = "3:17".parse().unwrap();
        assert_eq!(
            (at.snapshot.as_str(), at.position),
            ("3", Some(LogPosition(17)))
        );
        let at: At = "before the move".parse().unwrap();
        assert_eq!(
            (at.snapshot.as_str(), at.position),
            ("before the move", None)
        );
        assert!(":3".parse::<At>().is_err());
        assert!("3:x".parse::<At>().is_err());
    }

    #[test]
    fn ranges_fills_and_compressions_parse() {
        assert_eq!(
            "1G:64K".parse(),
            Ok(RangeArg {
                start: 1 << 30,
                len: 64 << 10
            })
        );
        for text in ["5", "5:0", ":", "-1:5", "16EiB:1"] {
            assert!(text.parse::<RangeArg>().is_err(), "{text}");
        }
        assert_eq!(
            "pattern:EE0f".parse(),
            Ok(FillArg(Fill::Pattern(vec![0xEE, 0x0F])))
        );
        for text in [
            "one",
            "pattern:",
            "pattern:E",
            "pattern:GG",
            "pattern:+1",
            "EE",
        ] {
            let parsed = text.parse::<FillArg>();
            assert!(parsed.is_err(), "{text}");
        }
        assert_eq!("7".parse(), Ok(CompressionArg(Compression::Level(7))));
        assert!("99".parse::<CompressionArg>().is_err());
    }
}
