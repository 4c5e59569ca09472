//! Which passes to make: what `--passes LIST` says.

use std::fmt;
use std::str::FromStr;

use super::Stage;
use super::copy::LAST_PASS;

/// A set of passes.
///
/// Its text is a list of names divided by commas: `copy`, `copy1` to `copy5`,
/// `trim`, `scrape`, `retry`, and, as ddrescue writes copying passes, `1` to `5`
/// and ranges such as `1-3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PassSelection {
    /// Bit n: copying pass n + 1.
    copy: u8,
    trim: bool,
    scrape: bool,
    retry: bool,
}

/// Why a list of passes was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassListError {
    /// There is no pass of this name.
    #[error("there is no pass called {name:?} (passes are 1 to 5, copy, trim, scrape, retry)")]
    Unknown {
        /// The name as it was given.
        name: String,
    },
    /// The list names no pass.
    #[error("the list of passes is empty")]
    Empty,
}

impl PassSelection {
    /// Every pass.
    pub const ALL: Self = Self {
        copy: (1 << LAST_PASS) - 1,
        trim: true,
        scrape: true,
        retry: true,
    };

    const NONE: Self = Self {
        copy: 0,
        trim: false,
        scrape: false,
        retry: false,
    };

    /// Whether this stage is one of them. [`Stage::Done`] always is.
    pub fn selects(self, stage: Stage) -> bool {
        match stage {
            Stage::Copy { pass } => self.copy & copy_bit(pass) != 0,
            Stage::Trim => self.trim,
            Stage::Scrape => self.scrape,
            Stage::Retry { .. } => self.retry,
            Stage::Done => true,
        }
    }
}

impl Default for PassSelection {
    fn default() -> Self {
        Self::ALL
    }
}

fn copy_bit(pass: u8) -> u8 {
    match pass {
        1..=LAST_PASS => 1 << (pass - 1),
        _ => 0,
    }
}

fn copy_pass(text: &str) -> Option<u8> {
    let pass = text.parse().ok()?;
    (1..=LAST_PASS).contains(&pass).then_some(pass)
}

fn copy_passes(text: &str) -> Option<u8> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (copy_pass(first)?, copy_pass(last)?),
        None => (copy_pass(text)?, copy_pass(text)?),
    };
    (first <= last).then(|| (first..=last).fold(0, |bits, pass| bits | copy_bit(pass)))
}

impl FromStr for PassSelection {
    type Err = PassListError;

    fn from_str(list: &str) -> Result<Self, PassListError> {
        if list.trim().is_empty() {
            return Err(PassListError::Empty);
        }
        let mut selection = Self::NONE;
        for name in list.split(',').map(str::trim) {
            match name {
                "trim" => selection.trim = true,
                "scrape" => selection.scrape = true,
                "retry" => selection.retry = true,
                "copy" => selection.copy = Self::ALL.copy,
                _ => {
                    let passes = name.strip_prefix("copy").unwrap_or(name);
                    let passes = copy_passes(passes).ok_or_else(|| PassListError::Unknown {
                        name: name.to_owned(),
                    })?;
                    selection.copy |= passes;
                }
            }
        }
        Ok(selection)
    }
}

impl fmt::Display for PassSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Vec::new();
        for pass in (1..=LAST_PASS).filter(|&pass| self.copy & copy_bit(pass) != 0) {
            names.push(pass.to_string());
        }
        for (selected, name) in [
            (self.trim, "trim"),
            (self.scrape, "scrape"),
            (self.retry, "retry"),
        ] {
            if selected {
                names.push(name.to_owned());
            }
        }
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_understood() {
        for (list, shown) in [
            ("copy,trim,scrape,retry", "1,2,3,4,5,trim,scrape,retry"),
            ("1-3, 5", "1,2,3,5"),
            ("copy2,trim", "2,trim"),
            ("copy1-2", "1,2"),
            ("retry", "retry"),
        ] {
            let selection: PassSelection = list.parse().expect(list);
            assert_eq!(selection.to_string(), shown, "{list}");
            assert_eq!(shown.parse(), Ok(selection));
        }
        assert_eq!(
            PassSelection::ALL.to_string(),
            "1,2,3,4,5,trim,scrape,retry"
        );
    }

    #[test]
    fn other_lists_are_refused() {
        assert_eq!(" ".parse::<PassSelection>(), Err(PassListError::Empty));
        for list in [
            "6",
            "0",
            "3-1",
            "1-9",
            "trim,,scrape",
            "split",
            "-",
            "300",
            "1-",
        ] {
            let result = list.parse::<PassSelection>();
            assert!(
                matches!(result, Err(PassListError::Unknown { .. })),
                "{list}"
            );
        }
    }
}
