//! `asl put`: bytes in, their key out.
//!
//! Crash: before the key is printed nothing was promised; after it the bytes are
//! durable and visible.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use asl_store::format::FLAG_ROOT;
use asl_store::{Compression, Encoder, Error as StoreError, Key, WriteOptions};
use serde::Serialize;

use crate::args::Put;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::Outcome;
use crate::text;

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
    let mut input = open(&args.file)?;
    let (path, mut writer) = face.writer(WriteOptions::default())?;
    let longest = writer.params().large_size;
    let mut bytes = Vec::new();
    input
        .by_ref()
        .take(longest + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::of_io("read", &args.file, &error))?;
    let failed = |error: &StoreError| {
        let action = format!("store {}", text::path(&args.file));
        CliError::of_store(&action, path, error)
    };
    if bytes.len() as u64 > longest {
        return Err(failed(&StoreError::TooLong {
            what: "the file",
            len: bytes.len() as u64,
            max: longest,
        }));
    }
    let (key, size_bytes) = (Key::of(&bytes), bytes.len() as u64);
    let frame = Encoder::new(Compression::Auto).encode(key, bytes.into(), FLAG_ROOT);
    let put = writer.put(frame).map_err(|error| failed(&error))?;
    face.finish(path, writer)?;
    let (stored_bytes, new) = match put {
        asl_store::Put::Stored(bytes) => (bytes, true),
        asl_store::Put::Duplicate => (0, false),
    };
    face.report.result(&Stored {
        key: key.to_string(),
        size_bytes,
        stored_bytes,
        new,
    })?;
    Ok(Exit::Complete)
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let failed = |error| CliError::of_io("read", path, &error);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        let packed = text::shell_path(path);
        return Err(
            CliError::usage(format!("{} is a directory", text::path(path)))
                .hint(format!("pack it: tar c {packed} | asl put -")),
        );
    }
    Ok(Box::new(file))
}
