//! `asl completions`: completion scripts for shells.

use std::io::{self, Write};

use clap::CommandFactory;
use serde::Serialize;

use crate::args::{Asl, AslCapture, AslPromote, Completions, Program};
use crate::error::{Exit, Result};
use crate::face::Face;
use crate::report::Outcome;

/// A completion script.
#[derive(Debug, Serialize)]
struct Script {
    shell: String,
    program: String,
    script: String,
}

impl Outcome for Script {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self.script.as_bytes())
    }
}

/// The command line of a program.
pub fn command_of(program: Program) -> clap::Command {
    match program {
        Program::Asl => Asl::command(),
        Program::AslCapture => AslCapture::command(),
        Program::AslPromote => AslPromote::command(),
    }
}

/// Prints the script.
pub fn run(face: &Face, args: &Completions) -> Result {
    let mut command = command_of(args.program);
    let program = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, &program, &mut script);
    face.report.result(&Script {
        shell: args.shell.to_string(),
        program,
        script: String::from_utf8_lossy(&script).into_owned(),
    })?;
    Ok(Exit::Complete)
}
