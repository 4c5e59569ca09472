//! `asl ls`: what was put into the store.

use std::io::{self, Write};

use asl_store::format::{ENCODING_CHUNKED, ENCODING_ZSTD, FLAG_NODE};
use asl_store::segment::IndexRecord;
use serde::Serialize;

use super::at;
use crate::args::Ls;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::Outcome;
use crate::text;

/// An artifact in a list.
#[derive(Debug, Serialize)]
struct Item {
    key: String,
    size_bytes: u64,
    root: bool,
    node: bool,
}

impl Outcome for Item {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let kind = match (self.root, self.node) {
            (true, true) => "tree",
            (false, true) => "node",
            (false, false) => "part",
            (true, false) => "",
        };
        let line = format!("{} {:>10} {kind}", self.key, text::size(self.size_bytes));
        writeln!(out, "{}", line.trim_end())
    }
}

/// How the bytes are stored, in a word.
pub(super) fn encoding(record: &IndexRecord) -> &'static str {
    match record.encoding {
        ENCODING_ZSTD => "zstd",
        ENCODING_CHUNKED => "chunked",
        _ => "raw",
    }
}

/// Lists artifacts in the order of their keys.
pub fn run(face: &Face, args: &Ls) -> Result {
    let (path, store) = face.reader()?;
    let store = at(store, path, args.at.as_ref())?;
    let mut list = face.report.list("artifacts", "artifact")?;
    let mut printed = Ok(());
    let walked = store.for_each(&mut |record| {
        if args.all || record.is_root() {
            printed = list.item(&Item {
                key: record.key.to_string(),
                size_bytes: record.raw_len,
                root: record.is_root(),
                node: record.flags & FLAG_NODE != 0,
            });
        }
        // An error ends the walk; what counts is in `printed`.
        let stop = printed.as_ref().map_err(|_| asl_store::Error::Poisoned);
        stop.copied()
    });
    printed?;
    if let Err(error) = walked {
        return Err(list.fail(CliError::of_store("list the artifacts", path, &error)));
    }
    list.finish()?;
    Ok(Exit::Complete)
}
