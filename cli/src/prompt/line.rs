//! One line that is typed: keys out of bytes, and what to write so that the terminal shows the line.
//!
//! Only carriage return, backspace and blanks are written, so that it works on whatever is at the other end of a serial line.
//! A line that is longer than the terminal is wide shows its end.
//!
//! Invariants
//! - The text never moves while it grows, so that no copy of a secret stays behind; it is wiped when dropped.
//! - Of a hidden line, only asterisks are written, unless its writer asked to see it; when it ends, only asterisks stay, and always
//!   the same number of them.

use std::io;
use std::time::Duration;

use dialoguer::console::measure_text_width;
use zeroize::Zeroizing;

use crate::text;

/// Longest line in bytes: paths are longer than names.
const LINE_LEN_MAX: usize = 4096;
/// How long after an Esc the rest of a key's sequence may come, over a line on which each byte travels alone.
const ESCAPE_PATIENCE: Duration = Duration::from_millis(150);
/// What is left of a hidden line.
const HIDDEN: &str = "********";

/// A key, as far as lines know keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Something to read.
    Char(char),
    /// The end of the line.
    Enter,
    /// Takes the last character back.
    Backspace,
    /// Ctrl-U: takes everything back.
    EraseLine,
    /// Ctrl-W: takes the last word back.
    EraseWord,
    /// Shows or hides a hidden line.
    Tab,
    /// Ctrl-C, Ctrl-D or Esc.
    Stop,
    /// Arrows, function keys, bytes that are no text.
    Other,
}

impl Key {
    /// Reads one key. `byte` gives the next byte, and `None` where none came in the time given.
    pub fn read(
        byte: &mut dyn FnMut(Option<Duration>) -> io::Result<Option<u8>>,
    ) -> io::Result<Self> {
        let first = loop {
            if let Some(first) = byte(None)? {
                break first;
            }
        };
        let key = match first {
            b'\r' | b'\n' => Self::Enter,
            0x7f | 0x08 => Self::Backspace,
            0x15 => Self::EraseLine,
            0x17 => Self::EraseWord,
            b'\t' => Self::Tab,
            0x03 | 0x04 => Self::Stop,
            0x1b => Self::escape(byte)?,
            0x00..=0x1f => Self::Other,
            0x20..=0x7e => Self::Char(char::from(first)),
            _ => Self::utf8(first, byte)?,
        };
        Ok(key)
    }

    /// What began with an Esc: the key itself only if nothing follows.
    fn escape(
        byte: &mut dyn FnMut(Option<Duration>) -> io::Result<Option<u8>>,
    ) -> io::Result<Self> {
        let patience = Some(ESCAPE_PATIENCE);
        match byte(patience)? {
            None => return Ok(Self::Stop),
            // ECMA-48, 5.4: parameters and intermediates, then one final byte.
            Some(b'[') => {
                while let Some(next) = byte(patience)? {
                    if (0x40..=0x7e).contains(&next) {
                        break;
                    }
                }
            }
            Some(b'O') => {
                byte(patience)?;
            }
            Some(_) => {}
        }
        Ok(Self::Other)
    }

    fn utf8(
        first: u8,
        byte: &mut dyn FnMut(Option<Duration>) -> io::Result<Option<u8>>,
    ) -> io::Result<Self> {
        let more = match first {
            0xc2..=0xdf => 1,
            0xe0..=0xef => 2,
            0xf0..=0xf4 => 3,
            _ => return Ok(Self::Other),
        };
        let mut bytes = Zeroizing::new([first, 0, 0, 0]);
        for place in &mut bytes[1..=more] {
            match byte(Some(ESCAPE_PATIENCE))? {
                Some(next) => *place = next,
                None => return Ok(Self::Other),
            }
        }
        let read = std::str::from_utf8(&bytes[..=more]);
        let read = read.ok().and_then(|text| text.chars().next());
        Ok(read.map_or(Self::Other, Self::Char))
    }
}

/// What a key did.
#[derive(Debug)]
pub enum Pressed {
    /// The line goes on; this is to be written.
    Goes(Zeroizing<String>),
    /// The line is complete; this is to be written.
    Ends(Zeroizing<String>),
    /// Whoever types wants no more of it.
    Stops,
}

/// A line while it is typed.
pub struct Line {
    prefix: String,
    columns: usize,
    text: Zeroizing<String>,
    /// Whether asterisks stand for the text.
    hides: bool,
    may_reveal: bool,
    revealed: bool,
    /// Columns behind the prefix that are in use.
    shown: usize,
}

impl Line {
    /// A line behind `prefix`, on a terminal of this many columns.
    pub fn visible(prefix: &str, columns: usize) -> Self {
        Self {
            prefix: prefix.to_owned(),
            columns,
            text: Zeroizing::new(String::with_capacity(LINE_LEN_MAX)),
            hides: false,
            may_reveal: false,
            revealed: false,
            shown: 0,
        }
    }

    /// A line for a secret. With `may_reveal`, the Tab key shows and hides it.
    pub fn hidden(prefix: &str, columns: usize, may_reveal: bool) -> Self {
        Self {
            hides: true,
            may_reveal,
            ..Self::visible(prefix, columns)
        }
    }

    /// What was typed.
    pub fn into_text(self) -> Zeroizing<String> {
        self.text
    }

    /// What to write before the first key.
    pub fn begin(&self) -> &str {
        &self.prefix
    }

    /// Takes a key.
    pub fn press(&mut self, key: Key) -> Pressed {
        match key {
            Key::Stop => return Pressed::Stops,
            Key::Enter => return Pressed::Ends(self.end()),
            Key::Char(c) if self.takes(c) => {
                self.text.push(c);
                return Pressed::Goes(self.grow(c));
            }
            Key::Backspace if !self.text.is_empty() => {
                self.text.pop();
            }
            Key::EraseLine => self.text.clear(),
            Key::EraseWord => {
                let kept = self.text.trim_end().rfind(' ').map_or(0, |at| at + 1);
                self.text.truncate(kept);
            }
            Key::Tab if self.may_reveal => self.revealed = !self.revealed,
            _ => return Pressed::Goes(Zeroizing::new("\x07".to_owned())),
        }
        Pressed::Goes(self.redraw())
    }

    fn takes(&self, c: char) -> bool {
        let printable = text::is_printable(c.encode_utf8(&mut [0; 4]));
        printable && self.text.len() + c.len_utf8() <= LINE_LEN_MAX
    }

    fn room(&self) -> usize {
        // Never the last column: some terminals break the line there, others one character later.
        self.columns
            .saturating_sub(measure_text_width(&self.prefix) + 1)
            .max(1)
    }

    /// What the line looks like, cut from its end where it is too long.
    fn looks(&self) -> Zeroizing<String> {
        let room = self.room();
        if self.hides && !self.revealed {
            let count = self.text.chars().count().min(room);
            return Zeroizing::new("*".repeat(count));
        }
        let mut from = self.text.len();
        for (at, _) in self.text.char_indices().rev() {
            if measure_text_width(&self.text[at..]) > room {
                break;
            }
            from = at;
        }
        Zeroizing::new(self.text[from..].to_owned())
    }

    /// What to write when one character came.
    fn grow(&mut self, c: char) -> Zeroizing<String> {
        let looks = if self.hides && !self.revealed { '*' } else { c };
        let mut one = [0; 4];
        let one = looks.encode_utf8(&mut one);
        let width = measure_text_width(one);
        if self.shown + width > self.room() {
            return self.redraw();
        }
        self.shown += width;
        Zeroizing::new(one.to_owned())
    }

    /// What to write when the line changed otherwise.
    fn redraw(&mut self) -> Zeroizing<String> {
        let looks = self.looks();
        let width = measure_text_width(&looks);
        let stale = self.shown.saturating_sub(width);
        self.shown = width;
        let room = self.prefix.len() + looks.len() + 2 * stale + 1;
        let mut out = Zeroizing::new(String::with_capacity(room));
        out.push('\r');
        out.push_str(&self.prefix);
        out.push_str(&looks);
        for stroke in [' ', '\u{8}'] {
            out.extend(std::iter::repeat_n(stroke, stale));
        }
        out
    }

    /// What to write when the line is complete: how long a secret is stays no longer on the screen than needed.
    fn end(&mut self) -> Zeroizing<String> {
        if !self.hides {
            return Zeroizing::new("\n".to_owned());
        }
        let stale = self.shown.saturating_sub(HIDDEN.len());
        let mut out = Zeroizing::new(format!("\r{}{HIDDEN}", self.prefix));
        out.extend(std::iter::repeat_n(' ', stale));
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads keys from bytes; a zero-length part is a pause.
    fn keys(parts: &[&[u8]]) -> Vec<Key> {
        let mut bytes: Vec<Option<u8>> = Vec::new();
        for part in parts {
            match part.is_empty() {
                true => bytes.push(None),
                false => bytes.extend(part.iter().map(|byte| Some(*byte))),
            }
        }
        let mut bytes = bytes.into_iter();
        let mut keys = Vec::new();
        loop {
            let mut ended = false;
            let key = Key::read(&mut |_| match bytes.next() {
                Some(byte) => Ok(byte),
                None => {
                    ended = true;
                    Err(io::ErrorKind::UnexpectedEof.into())
                }
            });
            match key {
                Ok(key) => keys.push(key),
                Err(_) => return keys,
            }
            if ended {
                return keys;
            }
        }
    }

    #[test]
    fn an_arrow_is_no_escape_however_slowly_it_comes() {
        use Key::{Char, Other, Stop};
        assert_eq!(
            keys(&[b"a\x1b[A\x1bOPz"]),
            [Char('a'), Other, Other, Char('z')]
        );
        assert_eq!(keys(&[b"\x1b[1;5Cz", b""]), [Other, Char('z')]);
        assert_eq!(keys(&[b"\x1b", b"", b"z"]), [Stop, Char('z')]);
        assert_eq!(keys(&[b"\x1bbz"]), [Other, Char('z')], "Alt-b");
        assert_eq!(keys(&[b"\x03", b"\x04"]), [Stop, Stop]);
    }

    #[test]
    fn letters_of_any_script_are_read_and_broken_ones_are_not() {
        use Key::{Char, Enter, Other};
        assert_eq!(
            keys(&["aß€😀\r".as_bytes()]),
            [Char('a'), Char('ß'), Char('€'), Char('😀'), Enter]
        );
        assert_eq!(keys(&[b"\xdfz"]), [Other], "Latin-1");
        assert_eq!(
            keys(&[b"\xff\x80\n"]),
            [Other, Other, Enter],
            "no text at all"
        );
        assert_eq!(keys(&[b"\xc3", b"", b"a"]), [Other, Char('a')]);
    }

    /// What a screen of 40 columns shows after these keys.
    fn screen(line: &mut Line, keys: &str) -> String {
        let size = |n| std::num::NonZeroU16::new(n).unwrap();
        let mut screen = vt100::Parser::new(size(4), size(40), 0);
        screen.process(line.begin().as_bytes());
        for c in keys.chars() {
            let key = match c {
                '<' => Key::Backspace,
                '|' => Key::Enter,
                '^' => Key::EraseLine,
                '%' => Key::EraseWord,
                '\t' => Key::Tab,
                c => Key::Char(c),
            };
            match line.press(key) {
                Pressed::Goes(out) => screen.process(out.as_bytes()),
                Pressed::Ends(out) => screen.process(out.replace('\n', "\r\n").as_bytes()),
                Pressed::Stops => panic!("{keys}"),
            }
        }
        screen.screen().contents().trim_end().to_owned()
    }

    #[test]
    fn what_was_typed_can_be_taken_back() {
        for (typed, shown, text) in [
            ("attic|", "name: attic\n", "attic"),
            ("atx<tic", "name: attic", "attic"),
            ("<<a", "name: a", "a"),
            ("one two%", "name: one", "one "),
            ("one %x", "name: x", "x"),
            ("gone^new", "name: new", "new"),
            ("日本<", "name: 日", "日"),
        ] {
            let mut line = Line::visible("name: ", 40);
            let screen = screen(&mut line, typed);
            assert_eq!(screen, shown.trim_end(), "{typed:?}");
            assert_eq!(*line.into_text(), text, "{typed:?}");
        }
    }

    #[test]
    fn a_long_line_shows_its_end_and_stays_one_line() {
        let long: String = ('a'..='z').chain('a'..='z').collect();
        let mut line = Line::visible("name: ", 40);
        let shown = screen(&mut line, &long);
        assert_eq!(shown, format!("name: {}", &long[52 - 33..]));
        let mut line = Line::visible("name: ", 40);
        let back = format!("{long}{}", "<".repeat(20));
        assert_eq!(screen(&mut line, &back), format!("name: {}", &long[..32]));
    }

    #[test]
    fn a_secret_is_seen_only_while_it_is_revealed() {
        let shown = |keys: &str| screen(&mut Line::hidden("pass: ", 40, true), keys);
        assert_eq!(shown("secret"), "pass: ******");
        assert_eq!(shown("secret\t"), "pass: secret");
        assert_eq!(shown("sec\tret<"), "pass: secre");
        assert_eq!(shown("secret\t\t"), "pass: ******");
        for secret in ["x|", "secret\t|", "a secret longer than eight\t|"] {
            assert_eq!(shown(secret), "pass: ********", "{secret}");
        }
        let mut recorded = Line::hidden("pass: ", 40, false);
        assert_eq!(screen(&mut recorded, "secret\t"), "pass: ******");
    }

    #[test]
    fn a_line_holds_no_control_characters_and_never_moves() {
        let mut line = Line::visible("", 40);
        let at = line.text.as_ptr();
        for c in ['\u{1b}', '\u{9b}', '\u{202e}', '\0'] {
            line.press(Key::Char(c));
        }
        assert!(line.text.is_empty());
        for _ in 0..2 * LINE_LEN_MAX {
            line.press(Key::Char('ä'));
        }
        assert_eq!(line.text.len(), LINE_LEN_MAX);
        assert_eq!(line.text.as_ptr(), at);
    }
}
