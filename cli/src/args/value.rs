//! Values on the command line: sizes, labels, keys, places in time.

use std::str::FromStr;

use asl_store::LogPosition;
use asl_store::format::LABEL_MAX;

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
}
