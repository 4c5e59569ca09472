//! `asl man`: a manual page for each program and each command.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, ValueEnum};
use serde::Serialize;

use super::completions::command_of;
use crate::args::{Man, Program};
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::Outcome;
use crate::text;

/// The pages that were written.
#[derive(Debug, Serialize)]
struct Pages {
    dir: String,
    pages: Vec<String>,
}

impl Outcome for Pages {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let count = text::count(self.pages.len() as u64, "page");
        writeln!(out, "wrote {count} to {}", text::visible(&self.dir))
    }
}

/// Writes the pages, replacing older ones.
pub fn run(face: &Face, args: &Man) -> Result {
    fs::create_dir_all(&args.dir)
        .map_err(|error| CliError::of_io("make the directory", &args.dir, &error))?;
    let mut pages = Vec::new();
    for program in Program::value_variants() {
        let mut command = command_of(*program);
        command.build();
        write_pages(&args.dir, &command, None, &mut pages)?;
    }
    pages.sort();
    face.report.result(&Pages {
        dir: args.dir.to_string_lossy().into_owned(),
        pages,
    })?;
    Ok(Exit::Complete)
}

fn write_pages(
    dir: &Path,
    command: &Command,
    above: Option<&str>,
    pages: &mut Vec<String>,
) -> Result<()> {
    let name = match above {
        Some(above) => format!("{above}-{}", command.get_name()),
        None => command.get_name().to_owned(),
    };
    let page = format!("{name}.1");
    let mut text = Vec::new();
    let path = dir.join(&page);
    clap_mangen::Man::new(command.clone())
        .title(name.clone())
        .render(&mut text)
        .and_then(|()| fs::write(&path, text))
        .map_err(|error| CliError::of_io("write", &path, &error))?;
    pages.push(page);
    for below in command.get_subcommands() {
        if below.get_name() != "help" {
            write_pages(dir, below, Some(&name), pages)?;
        }
    }
    Ok(())
}
