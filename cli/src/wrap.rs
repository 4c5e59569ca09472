//! Long lines for a terminal: broken between words, with commands in one piece.
//!
//! Only what goes to a terminal is broken; a log or a script gets each message in one
//! line. A command that a user is to type or to copy is never broken by a line
//! feed of ours, for what is pasted would run as two.

use std::io::{self, IsTerminal, Write};

use rustix::fd::AsFd;
use rustix::termios::tcgetwinsize;

/// Columns and rows of a terminal that does not say how large it is.
const UNKNOWN_SIZE: (u16, u16) = (80, 24);

/// Programs that our messages tell people to run.
const PROGRAMS: &[&str] = &[
    "asl",
    "asl-capture",
    "asl-promote",
    "df",
    "dmesg",
    "dmsetup",
    "export",
    "findmnt",
    "losetup",
    "mdadm",
    "mkdir",
    "mount",
    "smartctl",
    "swapoff",
    "tar",
    "ulimit",
    "umount",
    "zpool",
];

/// Columns and rows of the terminal, as they are now.
pub fn size_of(terminal: impl AsFd) -> (u16, u16) {
    match tcgetwinsize(terminal) {
        Ok(size) if size.ws_col > 1 && size.ws_row > 1 => (size.ws_col, size.ws_row),
        _ => UNKNOWN_SIZE,
    }
}

/// `text` with every line that is wider than `columns` broken. What continues a
/// line stands four columns further in.
pub fn wrap(text: &str, columns: usize) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| broken(line, columns)).collect();
    lines.join("\n")
}

fn broken(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let words = line.trim_start_matches(' ');
    let indent = line.len() - words.len();
    let mut out = " ".repeat(indent);
    let mut column = indent;
    for (nth, piece) in pieces(words).iter().enumerate() {
        if nth > 0 && column + 1 + width(piece) > columns {
            out.push('\n');
            out.push_str(&" ".repeat(indent + 4));
            column = indent + 4;
        } else if nth > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(piece);
        column += width(piece);
    }
    out
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Words, and commands as one.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let mut introduced = false;
    let mut inside = false;
    for word in text.split(' ') {
        inside &= !word.starts_with('(');
        match pieces.last_mut() {
            Some(command) if inside => {
                command.push(' ');
                command.push_str(word);
            }
            _ => {
                inside = introduced && PROGRAMS.contains(&word);
                pieces.push(word.to_owned());
            }
        }
        introduced = word.ends_with(':') || word == "&&";
        inside &= !word.ends_with([';', ',', ')', '.']);
    }
    pieces
}

/// Standard output for people: what it is given is broken if it is a terminal.
#[derive(Debug)]
pub struct Lines {
    out: io::Stdout,
    columns: Option<usize>,
    /// The beginning of a line whose end is still to come.
    begun: Vec<u8>,
}

impl Lines {
    /// Standard output; with `exact`, whatever it is, it is given what is written.
    pub fn stdout(exact: bool) -> Self {
        let out = io::stdout();
        let breaks = !exact && out.is_terminal();
        let columns = breaks.then(|| usize::from(size_of(&out).0));
        Self {
            out,
            columns,
            begun: Vec::new(),
        }
    }
}

impl Write for Lines {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(columns) = self.columns else {
            return self.out.write(buf);
        };
        self.begun.extend_from_slice(buf);
        if let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.begun.split_off(end + 1);
            let lines = std::mem::replace(&mut self.begun, rest);
            let lines = wrap(&String::from_utf8_lossy(&lines), columns);
            self.out.write_all(lines.as_bytes())?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let begun = std::mem::take(&mut self.begun);
        self.out.write_all(&begun)?;
        self.out.flush()
    }
}

/// `text` as it is to stand on standard error.
pub fn for_stderr(text: &str) -> String {
    let err = io::stderr();
    if err.is_terminal() {
        wrap(text, usize::from(size_of(&err).0))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lines_stay_and_long_ones_break_between_words() {
        assert_eq!(wrap("a short one", 80), "a short one");
        assert_eq!(wrap("one two three", 8), "one two\n    three");
        assert_eq!(wrap("  one two three", 10), "  one two\n      three");
        let path = "x".repeat(30);
        assert_eq!(
            wrap(&format!("at {path} 7"), 20),
            format!("at\n    {path}\n    7")
        );
        assert_eq!(wrap("one\n\none two", 5), "one\n\none\n    two");
        assert_eq!(wrap("äöü äöü", 7), "äöü äöü", "characters count");
    }

    #[test]
    fn commands_stay_in_one_piece() {
        for (text, kept) in [
            (
                "stopped: 38.0 MiB are safe, 154.0 MiB are left; to go on: asl-capture disk big --store /mnt/usb/rescue",
                "\n    asl-capture disk big --store /mnt/usb/rescue",
            ),
            (
                "hint: to try the bad sectors again: asl-capture disk /dev/sdb --resume --retries 3; to get it back: asl export 0123 FILE",
                "\n    asl-capture disk /dev/sdb --resume --retries 3; to get",
            ),
            (
                "hint: mount the disk there first, and then try the same again: mount /dev/DISK /mnt/usb (asl disks lists them)",
                "\n    mount /dev/DISK /mnt/usb (asl disks",
            ),
            (
                "hint: what is not listed is whole and can be read (all of it is listed by: asl captures --store x), and then it goes on",
                "\n    asl captures --store x), and",
            ),
            (
                "a sentence that only mentions asl in passing is broken where it happens to be full, and",
                "\n    full, and",
            ),
        ] {
            let wrapped = wrap(text, 80);
            assert!(wrapped.contains(kept), "{wrapped}");
            assert!(wrapped.lines().all(|line| width(line) <= 80), "{wrapped}");
            let words = |text: &str| {
                text.split_ascii_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(words(&wrapped), words(text));
        }
    }
}
