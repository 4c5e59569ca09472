//! `asl put`: bytes in, their key out.
//!
//! Crash: before the key is printed nothing was promised; after it the bytes are
//! durable and visible.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use asl_store::{Compression, Hint, WriteOptions, put_reader};
use serde::Serialize;

use crate::args::{Put, PutHint};
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::Outcome;
use crate::text;
use crate::writable;

/// What was put.
#[derive(Debug, Serialize)]
struct Stored {
    key: String,
    size_bytes: u64,
    stored_bytes: u64,
    new: bool,
}

impl Outcome for Stored {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.key)
    }
}

/// Stores one file.
pub fn run(face: &Face, args: &Put) -> Result {
    let (mut input, len) = Input::open(face, &args.file)?;
    let hint = match args.hint {
        Some(PutHint::Small) => Hint::Small,
        Some(PutHint::Large) => Hint::Large,
        Some(PutHint::Stream) => Hint::Stream,
        // Of what comes through a pipe neither length nor kind is known.
        None if len.is_none() => Hint::Stream,
        None => Hint::Small,
    };
    let (path, mut writer) = face.writer(WriteOptions::default())?;
    let action = format!("store {}", text::path(&args.file));
    writable::require(&action, path, writer.handle())?;
    writable::warn_if_retired(face, path, writer.handle());
    let put = put_reader(&mut writer, &mut input, hint, len, Compression::Auto);
    let stored = match (put, input.failure) {
        (Ok(stored), _) => stored,
        (Err(_), Some(error)) => return Err(CliError::of_io("read", &args.file, &error)),
        (Err(error), None) => {
            return Err(CliError::of_store(&action, path, &error));
        }
    };
    face.finish(path, writer)?;
    face.report.result(&Stored {
        key: stored.key.to_string(),
        size_bytes: stored.len,
        stored_bytes: stored.stored_bytes,
        new: stored.stored_bytes > 0,
    })?;
    Ok(Exit::Complete)
}

/// The bytes to store. Remembers why reading failed, so that it is not taken for a
/// failure of the store.
struct Input {
    source: Box<dyn Read>,
    failure: Option<io::Error>,
}

impl Input {
    /// Opens a file, or standard input for `-`; its length, where it is known.
    fn open(face: &Face, path: &Path) -> Result<(Self, Option<u64>)> {
        let of = |source| Self {
            source,
            failure: None,
        };
        if path == Path::new("-") {
            return Ok((of(Box::new(io::stdin().lock())), None));
        }
        let failed = |error| CliError::of_io("read", path, &error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            let packed = text::shell_path(path);
            let store = text::shell_path(face.store_path()?);
            return Err(
                CliError::usage(format!("{} is a directory", text::path(path))).hint(format!(
                    "pack it: tar c {packed} | asl put - --store {store}"
                )),
            );
        }
        let len = metadata.is_file().then_some(metadata.len());
        Ok((of(Box::new(file)), len))
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buf);
        if let Err(error) = &read
            && error.kind() != io::ErrorKind::Interrupted
        {
            let kept = error.raw_os_error().map(io::Error::from_raw_os_error);
            self.failure = Some(kept.unwrap_or_else(|| error.kind().into()));
        }
        read
    }
}
