//! Questions on a terminal: choices, lines, secrets, and what may be seen only once.
//!
//! Lists that are walked with the arrow keys are dialoguer's. Lines are read here ([`line`]): dialoguer's have no way out but
//! Ctrl-C, leave the terminal without echo when that comes in the middle of a password, and cannot show what is typed. Where the
//! terminal cannot move its cursor, a list is numbered.
//!
//! Invariants
//! - Nothing is asked unless a person can see the question and answer it ([`Prompt::open`]).
//! - From the first to the last key of an answer the terminal echoes nothing by itself, so nothing of a secret that is pasted or
//!   typed ahead is seen; and Ctrl-C is a key.
//! - However a question ends, the terminal is as it was: line by line, its cursor shown, its ordinary screen.
//! - Ctrl-C, Esc, the end of input, SIGTERM and SIGHUP all end a question with [`PromptError::Stopped`].
//!
//! Crash: killed outright, the terminal stays as it was at that moment; `reset` mends it.

mod line;

use std::cell::Cell;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dialoguer::Select;
use dialoguer::console::{Term, measure_text_width};
use dialoguer::theme::Theme;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use self::line::{Key, Line, Pressed};
use crate::error::CliError;
use crate::face::Face;
use crate::report::talk;
use crate::wrap::size_of;
use crate::{secret, signal, text};

/// What begins a line whose question stands above it.
const MARK: &str = "> ";
/// Columns that an answer gets at least beside its question.
const ANSWER_COLUMNS: usize = 24;
/// How often a question looks whether a signal came between its look and its wait.
const GLANCE: Duration = Duration::from_secs(1);
/// How long the rest of an arrow key may take to come.
const REST_OF_KEY: Duration = Duration::from_millis(150);
/// What `TERM` says of terminals that cannot move their cursor.
const STILL: [&str; 4] = ["", "dumb", "unknown", "network"];

/// A question that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The person, or a signal, wants the program to end, before it wrote anything.
    #[error("stopped")]
    Stopped,
    /// The same, after [`Prompt::writes_begin`].
    #[error("stopped")]
    StoppedLater,
    /// The terminal failed.
    #[error("the terminal cannot be used")]
    Terminal(#[source] io::Error),
}

impl From<io::Error> for PromptError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::UnexpectedEof => Self::Stopped,
            // What a terminal says that was closed.
            _ if Errno::from_io_error(&error) == Some(Errno::IO) => Self::Stopped,
            _ => Self::Terminal(error),
        }
    }
}

impl From<Errno> for PromptError {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl From<PromptError> for CliError {
    fn from(error: PromptError) -> Self {
        match error {
            PromptError::Stopped => Self::new("stopped; nothing was written"),
            PromptError::StoppedLater => Self::new("stopped; what was written before stays"),
            PromptError::Terminal(error) => Self::new("cannot ask on this terminal")
                .caused_by(&error)
                .hint("say everything with flags; see --help"),
        }
    }
}

/// Result of a question.
pub type Result<T, E = PromptError> = std::result::Result<T, E>;

/// One line of a list to choose from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    text: String,
    why_not: Option<String>,
}

impl Choice {
    /// Something that can be chosen.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            why_not: None,
        }
    }

    /// Something that is shown, but not to be had, and why.
    pub fn disabled(text: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            why_not: Some(why.into()),
        }
    }

    fn line(&self) -> String {
        match &self.why_not {
            None => self.text.clone(),
            Some(why) => format!("{} (no: {why})", self.text),
        }
    }
}

/// Somebody at a terminal.
pub struct Prompt {
    term: Term,
    /// Whether the terminal moves its cursor where it is told to, as far as is known.
    moves: Cell<bool>,
    /// Whether the Tab key was explained.
    told_reveal: Cell<bool>,
    /// Whether something was written since the first question.
    wrote: Cell<bool>,
    /// Set by Ctrl-C and others while nothing is asked.
    stops: Arc<AtomicBool>,
}

impl Prompt {
    /// Somebody to ask, if there is anybody: standard input and standard error are terminals, and neither `--no-input`, `--json`,
    /// `--events` nor the environment (`CI`) says that this is a script. From here on Ctrl-C between two questions ends the next one;
    /// a second one kills.
    pub fn open(face: &Face) -> Option<Self> {
        let person = io::stdin().is_terminal() && io::stderr().is_terminal();
        let wanted = face.may_ask && face.report.is_human() && !is_set("CI");
        let term = std::env::var("TERM").unwrap_or_default();
        (person && wanted).then(|| Self {
            term: Term::stderr(),
            moves: Cell::new(!STILL.contains(&term.as_str())),
            told_reveal: Cell::new(false),
            wrote: Cell::new(false),
            stops: signal::stops(),
        })
    }

    /// Columns and rows of the terminal.
    pub fn size(&self) -> (usize, usize) {
        let (columns, rows) = size_of(io::stderr());
        (columns.into(), rows.into())
    }

    /// Whether the terminal moves its cursor, and so can show something that does not stay.
    pub fn moves(&self) -> bool {
        self.moves.get()
    }

    /// Says something, filled into lines. Not silenced by `--quiet`: it belongs to a question.
    pub fn say(&self, words: &str) {
        let columns = self.size().0;
        let lines = words
            .split('\n')
            .map(|line| filled(&text::visible(line), columns));
        let lines: Vec<String> = lines.collect();
        talk(&lines.join("\n"));
    }

    /// Whoever stops from here on is no longer told that nothing was written.
    pub fn writes_begin(&self) {
        self.wrote.set(true);
    }

    fn told(&self, error: PromptError) -> PromptError {
        match error {
            PromptError::Stopped if self.wrote.get() => PromptError::StoppedLater,
            error => error,
        }
    }

    /// Forgets that Ctrl-C was pressed while nothing was asked, for whoever dealt with it.
    pub fn forget_stop(&self) {
        self.stops.store(false, Ordering::Relaxed);
    }

    /// Fails if Ctrl-C was pressed, or a signal came, since the last question.
    pub fn check_stop(&self) -> Result<()> {
        match self.stops.swap(false, Ordering::Relaxed) {
            true => Err(self.told(PromptError::Stopped)),
            false => Ok(()),
        }
    }

    /// Which of `choices`, by its place. The cursor begins at the first that can be chosen, and that is what Enter alone means.
    ///
    /// # Panics
    /// Where none can be chosen: there is nothing to ask then.
    pub fn select(&self, question: &str, choices: &[Choice]) -> Result<usize> {
        let first = choices.iter().position(|choice| choice.why_not.is_none());
        let first = first.expect("somebody who asks has a choice to offer");
        loop {
            let chosen = self.pick(question, choices, first)?;
            match &choices[chosen].why_not {
                None => return Ok(chosen),
                Some(why) => self.say(&format!("That cannot be chosen: {why}")),
            }
        }
    }

    fn pick(&self, question: &str, choices: &[Choice], first: usize) -> Result<usize> {
        self.check_stop()?;
        let columns = self.size().0;
        // dialoguer counts the lines that it goes up again, not those that the terminal makes of them.
        let items = choices
            .iter()
            .map(|choice| clip(&choice.line(), columns.saturating_sub(6)));
        let items: Vec<String> = items.collect();
        if self.moves.get()
            && let Some(chosen) = self
                .walk(&text::visible(question), &items, first)
                .map_err(|error| self.told(error))?
        {
            return Ok(chosen);
        }
        self.say(question);
        for (nth, item) in items.iter().enumerate() {
            self.say(&format!("{:>3}) {item}", nth + 1));
        }
        let number = |answer: &str| {
            let number = answer.parse().ok().and_then(|n: usize| n.checked_sub(1));
            number.filter(|nth| *nth < items.len())
        };
        loop {
            let answer = self.input("number", &(first + 1).to_string())?;
            match number(&answer) {
                Some(chosen) => return Ok(chosen),
                None => self.say(&format!("a number from 1 to {}, please", items.len())),
            }
        }
    }

    /// A list with a cursor; `None` where the arrow keys do not arrive whole.
    fn walk(&self, question: &str, items: &[String], default: usize) -> Result<Option<usize>> {
        let raw = Raw::enter(OptionalActions::Drain)?;
        let chosen = loop {
            let select = Select::with_theme(&Plain)
                .with_prompt(question)
                .items(items)
                .default(default.min(items.len().saturating_sub(1)));
            match select.interact_on_opt(&self.term).map_err(io::Error::from) {
                // A signal that is nothing to us, such as that of a window that changed its size.
                Err(error)
                    if error.kind() == io::ErrorKind::Interrupted
                        && !self.stops.load(Ordering::Relaxed) => {}
                other => break other,
            }
        };
        if chosen.is_err() {
            self.term.show_cursor()?;
        }
        if let Some(chosen) = chosen.inspect_err(|_| self.forget_stop())? {
            return Ok(Some(chosen));
        }
        // dialoguer takes the first byte of an arrow key for Esc if the others are late.
        if self.byte(Some(REST_OF_KEY))?.is_none() {
            return Err(PromptError::Stopped);
        }
        while self.byte(Some(REST_OF_KEY))?.is_some() {}
        drop(raw);
        self.moves.set(false);
        self.say("The arrow keys do not arrive whole over this line. Type numbers instead.");
        Ok(None)
    }

    /// Yes or no; Enter alone means `default`.
    pub fn confirm(&self, question: &str, default: bool) -> Result<bool> {
        let choice = if default { "Y/n" } else { "y/N" };
        loop {
            let typed = self.line(&format!("{question} [{choice}]"), Echo::Plain)?;
            match typed.trim().to_ascii_lowercase().as_str() {
                "" => return Ok(default),
                "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ => self.say("y or n, please"),
            }
        }
    }

    /// A line of text, without blanks around it; Enter alone means `default`, which may be empty.
    pub fn input(&self, question: &str, default: &str) -> Result<String> {
        let typed = if default.is_empty() {
            self.line(question, Echo::Plain)?
        } else {
            self.line(&format!("{question} [{default}]"), Echo::Plain)?
        };
        Ok(match typed.trim() {
            "" => default.to_owned(),
            typed => typed.to_owned(),
        })
    }

    /// Like [`Prompt::input`], again and again until `check` finds nothing wrong with it.
    pub fn input_that<T>(
        &self,
        question: &str,
        default: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T> {
        loop {
            match check(&self.input(question, default)?) {
                Ok(answer) => return Ok(answer),
                Err(why) => self.say(&why),
            }
        }
    }

    /// Like [`Prompt::input`] without a default, for what may be seen but must not stay in memory: words of a phrase.
    pub fn seen_secret(&self, question: &str) -> Result<Zeroizing<String>> {
        self.line(question, Echo::Plain)
    }

    /// A secret, never empty and exactly as typed. The Tab key shows it, unless the terminal is recorded.
    pub fn secret(&self, question: &str) -> Result<Zeroizing<String>> {
        if !secret::is_recorded() && !self.told_reveal.replace(true) {
            self.say("(What you type is hidden; the Tab key shows it.)");
        }
        loop {
            let typed = self.line(question, Echo::Hidden)?;
            if !typed.is_empty() {
                return Ok(typed);
            }
            self.say("nothing was typed");
        }
    }

    /// A secret that there may not be: Enter alone means none.
    pub fn secret_if_any(&self, question: &str) -> Result<Option<Zeroizing<String>>> {
        let typed = self.line(question, Echo::Hidden)?;
        Ok((!typed.is_empty()).then_some(typed))
    }

    /// A secret that is typed twice.
    pub fn new_secret(&self, question: &str, again: &str) -> Result<Zeroizing<String>> {
        loop {
            let first = self.secret(question)?;
            let second = self.secret(again)?;
            if *first == *second {
                return Ok(first);
            }
            self.say("These two are not the same. Once more, both of them.");
        }
    }

    /// Waits for Enter.
    pub fn pause(&self, question: &str) -> Result<()> {
        self.line(question, Echo::Nothing)?;
        Ok(())
    }

    /// A fresh screen for what must not stay on this one; until it is dropped. Where the terminal has no second screen, everything on
    /// the first goes; where it cannot even do that, what was shown is pushed out of sight.
    pub fn curtain(&self) -> Curtain<'_> {
        if self.moves.get() {
            self.write("\x1b[?1049h\x1b[2J\x1b[H");
        }
        Curtain { prompt: self }
    }

    fn line(&self, question: &str, echo: Echo) -> Result<Zeroizing<String>> {
        self.check_stop()?;
        self.typed(question, echo).map_err(|error| self.told(error))
    }

    fn typed(&self, question: &str, echo: Echo) -> Result<Zeroizing<String>> {
        let columns = self.size().0;
        let question = text::visible(question);
        // Before anything is shown: what was typed blindly is not the answer to a question about a secret.
        let raw = Raw::enter(match echo {
            Echo::Hidden => OptionalActions::Flush,
            Echo::Plain | Echo::Nothing => OptionalActions::Drain,
        })?;
        let prefix = if measure_text_width(&question) + ANSWER_COLUMNS <= columns {
            format!("{question}: ")
        } else {
            self.say(&question);
            MARK.to_owned()
        };
        let mut line = match echo {
            Echo::Plain => Line::visible(&prefix, columns),
            Echo::Hidden => Line::hidden(&prefix, columns, !secret::is_recorded()),
            Echo::Nothing => Line::visible(&prefix, measure_text_width(&prefix)),
        };
        self.write(line.begin());
        let ended = loop {
            match Key::read(&mut |patience| self.byte(patience)) {
                Ok(key) if echo == Echo::Nothing && !matches!(key, Key::Enter | Key::Stop) => {}
                Ok(key) => match line.press(key) {
                    Pressed::Goes(out) => self.write(&out),
                    Pressed::Ends(out) => {
                        self.write(&out);
                        break Ok(());
                    }
                    Pressed::Stops => break Err(PromptError::Stopped),
                },
                Err(error) => break Err(error.into()),
            }
        };
        if ended.is_err() {
            self.write("\n");
        }
        drop(raw);
        ended.map(|()| line.into_text())
    }

    /// The next byte that is typed; `None` where none came within `patience`. A signal that stops is an interruption.
    fn byte(&self, patience: Option<Duration>) -> io::Result<Option<u8>> {
        let stdin = io::stdin();
        let wait = patience.unwrap_or(GLANCE);
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        loop {
            if self.stops.swap(false, Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&wait)) {
                Ok(0) if patience.is_some() => return Ok(None),
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut one = [0];
            match rustix::io::read(&stdin, &mut one) {
                Ok(1) => return Ok(Some(one[0])),
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Nobody is told if the terminal is gone: the next key says so.
    fn write(&self, out: &str) {
        let _ = io::stderr().write_all(out.as_bytes());
    }
}

/// A screen that leaves nothing behind.
pub struct Curtain<'p> {
    prompt: &'p Prompt,
}

impl Curtain<'_> {
    /// Writes behind the curtain, as it is.
    pub fn show(&self, words: &str) {
        self.prompt.write(words);
    }

    /// Empties the screen.
    pub fn clear(&self) {
        if self.prompt.moves.get() {
            self.prompt.write("\x1b[2J\x1b[H");
        } else {
            let rows = self.prompt.size().1;
            self.prompt.write(&"\n".repeat(rows));
        }
    }
}

impl Drop for Curtain<'_> {
    fn drop(&mut self) {
        self.clear();
        if !self.prompt.moves.get() {
            return;
        }
        // The kernel's own terminal has no second screen, but keeps what scrolled off the one it has (console_codes(4)).
        if std::env::var("TERM").is_ok_and(|term| term.starts_with("linux")) {
            self.prompt.write("\x1b[3J");
        }
        self.prompt.write("\x1b[?1049l");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Echo {
    Plain,
    Hidden,
    Nothing,
}

/// A terminal that gives every key at once and shows none, until this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter(when: OptionalActions) -> Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes = before.output_modes;
        tcsetattr(&stdin, when, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// dialoguer's texts in ASCII, and how to choose.
struct Plain;

impl Theme for Plain {
    fn format_select_prompt(&self, f: &mut dyn fmt::Write, prompt: &str) -> fmt::Result {
        write!(f, "{prompt} (arrow keys, then Enter)")
    }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// A line broken between words where the terminal ends; what continues it begins where it began.
fn filled(line: &str, columns: usize) -> String {
    let words = line.trim_start_matches(' ');
    let indent = " ".repeat(line.len() - words.len());
    let mut out = String::new();
    let mut width = 0;
    for word in words.split(' ') {
        let wide = measure_text_width(word);
        if width > 0 && width + 1 + wide > columns {
            out.push('\n');
            width = 0;
        }
        let before = if width == 0 { indent.as_str() } else { " " };
        out.push_str(before);
        out.push_str(word);
        width += before.len() + wide;
    }
    out
}

/// As much of `item` as fits, without control characters.
fn clip(item: &str, columns: usize) -> String {
    let item = text::visible(item);
    if measure_text_width(&item) <= columns {
        return item.into_owned();
    }
    let mut kept = String::new();
    for c in item.chars() {
        kept.push(c);
        if measure_text_width(&kept) + 2 > columns {
            kept.pop();
            break;
        }
    }
    kept + ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_items_are_cut_and_harmless() {
        assert_eq!(clip("short", 10), "short");
        assert_eq!(clip("exactly ten", 10), "exactly ..");
        assert_eq!(clip("\u{1b}[2J", 20), "\\u{1b}[2J");
        for columns in 3..20 {
            let clipped = clip("日本語のとても長い文字列", columns);
            assert!(measure_text_width(&clipped) <= columns, "{clipped}");
        }
    }

    #[test]
    fn sentences_fill_lines_and_columns_stay() {
        assert_eq!(filled("", 10), "");
        assert_eq!(filled("one two three", 8), "one two\nthree");
        assert_eq!(filled("  one two three", 9), "  one two\n  three");
        assert_eq!(filled("  a    b", 20), "  a    b");
        assert_eq!(filled("a-long-word b", 4), "a-long-word\nb");
    }

    #[test]
    fn a_terminal_that_is_gone_is_a_stop_and_another_error_is_not() {
        for errno in [Errno::IO, Errno::INTR] {
            assert!(matches!(PromptError::from(errno), PromptError::Stopped));
        }
        let failed = PromptError::from(Errno::NOTTY);
        assert!(matches!(failed, PromptError::Terminal(_)));
        let failed = CliError::from(failed);
        assert_eq!(failed.object().causes.len(), 1);
        let stopped = CliError::from(PromptError::Stopped);
        assert_eq!(stopped.object().error, "stopped; nothing was written");
    }
}
