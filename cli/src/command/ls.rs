//! `asl ls`: what was put into the store.

use std::io::{self, Write};

use asl_store::format::{ENCODING_CHUNKED, ENCODING_ZSTD, FLAG_NODE};
use asl_store::segment::IndexRecord;
use serde::Serialize;

use super::in_one;
use crate::args::Ls;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::Outcome;
use crate::text;

/// An artifact in a list.
#[derive(Debug, Serialize)]
struct Item {
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    key: String,
    size_bytes: u64,
    root: bool,
    node: bool,
    /// The first of its domain.
    #[serde(skip)]
    first: bool,
}

impl Outcome for Item {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if let (Some(domain), true) = (&self.domain, self.first) {
            writeln!(out, "domain {domain}")?;
        }
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

/// Lists artifacts in the order of their keys. Of a root, domain after domain; what several have is listed once.
pub fn run(face: &Face, args: &Ls) -> Result {
    let readers = in_one(face, args.at.as_ref())?;
    let mut list = face.report.list("artifacts", "artifact")?;
    let is_listed = |record: &IndexRecord| args.all || record.is_root();
    for (nth, reader) in readers.iter().enumerate() {
        let mut printed = Ok(());
        let mut first = true;
        let walked = reader.store.for_each(&mut |record| {
            if !is_listed(&record) {
                return Ok(());
            }
            for before in &readers[..nth] {
                if before
                    .store
                    .lookup(&record.key)?
                    .is_some_and(|it| is_listed(&it))
                {
                    return Ok(());
                }
            }
            printed = list.item(&Item {
                domain: reader.domain_text(),
                key: record.key.to_string(),
                size_bytes: record.raw_len,
                root: record.is_root(),
                node: record.flags & FLAG_NODE != 0,
                first: std::mem::take(&mut first),
            });
            // An error ends the walk; what counts is in `printed`.
            let stop = printed.as_ref().map_err(|_| asl_store::Error::Poisoned);
            stop.copied()
        });
        printed?;
        if let Err(error) = walked {
            let failed = CliError::of_store("list the artifacts", &reader.path, &error);
            return Err(list.fail(failed));
        }
    }
    list.finish()?;
    Ok(Exit::Complete)
}
