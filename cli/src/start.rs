//! How a program starts and ends: the command line is read, one command runs, its
//! error is printed once, its exit code returned.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::Global;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::{Report, Style, talk};
use crate::signal;

/// Reads the command line, runs `run`, reports its error.
pub fn start<P: Parser>(
    global: fn(&P) -> &Global,
    run: impl FnOnce(&Face, P) -> Result,
) -> ExitCode {
    signal::survive_file_size_limit();
    let words: Vec<OsString> = std::env::args_os().collect();
    let parsed = match P::try_parse_from(&words) {
        Ok(parsed) => parsed,
        Err(error) => return ExitCode::from(usage_error(&words, &error).code()),
    };
    let face = Face::new(global(&parsed));
    let exit = run(&face, parsed).unwrap_or_else(|error| {
        face.report.error(&error);
        error.exit_code()
    });
    ExitCode::from(exit.code())
}

/// A command line without a command: the help, as an error.
pub fn without_command<P: Parser>(face: &Face) -> Result {
    if face.report.is_human() {
        talk(P::command().render_help().to_string().trim_end());
        return Ok(Exit::Usage);
    }
    let name = P::command().get_name().to_owned();
    Err(CliError::usage("no command was given").hint(format!("see: {name} --help")))
}

/// Whether the command line, which could not be read, asks for JSON.
fn asks_for_json(words: &[OsString]) -> bool {
    words
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--json" || word == "--events")
}

fn usage_error(words: &[OsString], error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let mut out = std::io::stdout();
            // A reader that had enough of it is no failure.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            Exit::Complete
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !asks_for_json(words) => {
            talk(text.trim_end());
            Exit::Usage
        }
        _ if asks_for_json(words) => {
            Report::new(Style::Json, false, 0).error(&in_one_sentence(&text));
            Exit::Usage
        }
        _ => {
            talk(text.trim_end());
            Exit::Usage
        }
    }
}

/// Clap's message without its layout: the first paragraph, then how to go on.
fn in_one_sentence(text: &str) -> CliError {
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
    let message = lines.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let tip = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("tip: "));
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    let hint = match (tip, usage) {
        (Some(tip), _) => tip.to_owned(),
        (None, Some(usage)) => format!("usage: {usage}"),
        (None, None) => "see --help".to_owned(),
    };
    if message.is_empty() {
        return CliError::usage("no command was given").hint(hint);
    }
    CliError::usage(message).hint(hint)
}
