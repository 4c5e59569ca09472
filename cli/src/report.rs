//! What a command says: data on standard output, talk on standard error.
//!
//! Standard output carries the result and nothing else: text for people, one
//! object with `--json`, one object a line with `--events`. Talk (notes,
//! warnings, progress) goes to standard error and may be lost without harm: a
//! terminal that was closed does not stop a capture.

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{CliError, Result};
use crate::text;
use crate::wrap::{Lines, for_stderr, wrap};

/// How standard output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text for people.
    Human,
    /// Exactly one object.
    Json,
    /// One object a line, the result last.
    Events,
}

/// A command's result, for people and for scripts.
pub trait Outcome: Serialize {
    /// Writes it for people, 80 columns wide, without control characters.
    fn show(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Where a command's output goes.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    style: Style,
    quiet: bool,
    verbose: u8,
}

impl Report {
    /// A report in this style. `quiet` silences notes and progress, not warnings.
    pub fn new(style: Style, quiet: bool, verbose: u8) -> Self {
        Self {
            style,
            quiet,
            verbose,
        }
    }

    /// How standard output is written.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Whether standard output is for people.
    pub fn is_human(&self) -> bool {
        self.style == Style::Human
    }

    fn stdout(&self) -> BufWriter<Lines> {
        BufWriter::new(Lines::stdout(!self.is_human()))
    }

    /// Whether progress is to be shown.
    pub fn shows_progress(&self) -> bool {
        !self.quiet
    }

    /// Says something worth knowing.
    pub fn note(&self, words: &str) {
        if !self.quiet {
            talk(&text::visible(words));
        }
    }

    /// Says something that only somebody who asked (`-v`) wants to know.
    pub fn detail(&self, words: &str) {
        if self.verbose > 0 && !self.quiet {
            talk(&text::visible(words));
        }
    }

    /// Says something that may cost the user data or time if it is not known.
    pub fn warn(&self, words: &str) {
        talk(&format!("warning: {}", text::visible(words)));
    }

    /// Prints the result.
    pub fn result(&self, outcome: &impl Outcome) -> Result<()> {
        let mut out = self.stdout();
        let written = match self.style {
            Style::Human => outcome.show(&mut out),
            Style::Json | Style::Events => to_line(&mut out, outcome),
        };
        written
            .and_then(|()| out.flush())
            .map_err(|error| CliError::of_stdout(&error))
    }

    /// Prints one event, with `--events` only.
    pub fn event(&self, name: &str, event: &impl Serialize) -> Result<()> {
        if self.style != Style::Events {
            return Ok(());
        }
        let mut out = BufWriter::new(io::stdout());
        to_line(&mut out, &named(name, event))
            .and_then(|()| out.flush())
            .map_err(|error| CliError::of_stdout(&error))
    }

    /// Begins a result that is a list too long for memory.
    pub fn list(&self, name: &'static str, item: &'static str) -> Result<List> {
        let mut list = List {
            out: self.stdout(),
            style: self.style,
            item,
            count: 0,
        };
        if self.style == Style::Json {
            list.put(|out| write!(out, "{{\"{name}\":["))?;
        }
        Ok(list)
    }

    /// Prints an error where the user looks for it.
    pub fn error(&self, error: &CliError) {
        if error.silent {
            return;
        }
        if self.is_human() {
            talk(error.render().trim_end());
        } else {
            let mut out = io::stdout();
            // Nobody is left to tell.
            let _ = to_line(&mut out, &error.object());
        }
    }
}

/// A result that is printed item by item: `{"name": [item, …], "count": n}`, or one
/// line each.
pub struct List {
    out: BufWriter<Lines>,
    style: Style,
    item: &'static str,
    count: u64,
}

impl List {
    /// Prints one item.
    pub fn item(&mut self, outcome: &impl Outcome) -> Result<()> {
        let (style, name, first) = (self.style, self.item, self.count == 0);
        self.count += 1;
        self.put(|out| match style {
            Style::Human => outcome.show(out),
            Style::Events => to_line(out, &named(name, outcome)),
            Style::Json => {
                if !first {
                    out.write_all(b",")?;
                }
                serde_json::to_writer(out, outcome).map_err(io::Error::from)
            }
        })
    }

    /// Items so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Ends the list.
    pub fn finish(mut self) -> Result<()> {
        let (style, count) = (self.style, self.count);
        self.put(|out| match style {
            Style::Human => out.flush(),
            Style::Events => to_line(out, &json!({ "count": count })),
            Style::Json => writeln!(out, "],\"count\":{count}}}"),
        })?;
        self.put(|out| out.flush())
    }

    /// Ends the list early: with `--json` the error becomes part of its object.
    pub fn fail(mut self, mut error: CliError) -> CliError {
        let closed = match (self.style, serde_json::to_string(&error.object())) {
            (Style::Json, Ok(object)) => {
                error.silent = true;
                writeln!(self.out, "],{}", &object[1..])
            }
            _ => Ok(()),
        };
        // Nobody is left to tell.
        let _ = closed.and_then(|()| self.out.flush());
        error
    }

    fn put(&mut self, write: impl FnOnce(&mut BufWriter<Lines>) -> io::Result<()>) -> Result<()> {
        write(&mut self.out).map_err(|error| CliError::of_stdout(&error))
    }
}

/// Writes lines to standard error; nobody may be there to read them.
pub fn talk(lines: &str) {
    let _ = writeln!(io::stderr(), "{}", for_stderr(lines));
}

fn to_line(out: &mut dyn Write, object: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    out.write_all(b"\n")
}

/// An object with its kind as first field.
fn named(name: &str, object: &impl Serialize) -> Value {
    let mut value = json!({ "event": name });
    if let (Some(fields), Ok(Value::Object(more))) =
        (value.as_object_mut(), serde_json::to_value(object))
    {
        fields.extend(more);
    }
    value
}

/// Columns that a result for people has.
const COLUMNS: usize = 80;

/// Lines of `name  value`, 80 columns wide: what does not fit goes on below the beginning of its value. Only a word, or a command, that is
/// longer than that stays in one piece.
pub fn filled(out: &mut dyn Write, facts: &[(&str, String)]) -> io::Result<()> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in facts {
        let mut name = *name;
        for line in wrap(value, COLUMNS.saturating_sub(width + 2)).lines() {
            writeln!(out, "{name:width$}  {}", line.trim_start())?;
            name = "";
        }
    }
    Ok(())
}

/// A sentence, 80 columns wide.
pub fn sentence(out: &mut dyn Write, words: &str) -> io::Result<()> {
    writeln!(out, "{}", wrap(words, COLUMNS))
}

/// Lines of `name  value` with the values aligned.
pub fn facts(out: &mut dyn Write, facts: &[(&str, String)]) -> io::Result<()> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in facts {
        writeln!(out, "{name:width$}  {value}")?;
    }
    Ok(())
}
