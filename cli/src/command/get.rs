//! `asl get`: an artifact's bytes, each checked before it is written.

use std::io::{self, IsTerminal, Write};

use asl_store::StoreHandle;
use asl_store::segment::IndexRecord;
use serde::Serialize;

use super::{find_among, in_one};
use crate::args::Get;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::output::Output;
use crate::report::Outcome;
use crate::text;

/// Longest text that is looked at before it goes to a terminal.
const TEXT_MAX_BYTES: u64 = 1 << 20;

/// What was got.
#[derive(Debug, Serialize)]
struct Got {
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    key: String,
    size_bytes: u64,
    file: String,
}

impl Outcome for Got {
    /// The bytes are the result; there is nothing to add.
    fn show(&self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

/// Gets one artifact.
pub fn run(face: &Face, args: &Get) -> Result {
    let to_stdout = args
        .output
        .as_ref()
        .is_none_or(|path| path.as_os_str() == "-");
    if to_stdout && !face.report.is_human() {
        return Err(CliError::usage(
            "with --json, standard output is for the result, not for the bytes",
        )
        .hint("add -o FILE"));
    }
    let readers = in_one(face, args.at.as_ref())?;
    let (reader, record) = find_among(&readers, &args.key)?;
    let store = &reader.store;
    let failed = |error| CliError::of_store(&format!("get {}", record.key), &reader.path, &error);
    if args.output.is_none() && io::stdout().is_terminal() && !is_text(store, &record) {
        return Err(
            CliError::usage("these bytes are not text; they would upset the terminal")
                .hint("add -o FILE, or -o - if you mean it"),
        );
    }
    let mut output = match &args.output {
        Some(file) => Output::create(file)?,
        None => Output::stdout(),
    };
    match store.copy_to(&record.key, &mut output) {
        Ok(_) => output.finish()?,
        Err(error) => return Err(output.abandon().unwrap_or_else(|| failed(error))),
    }
    if let Some(file) = &args.output
        && !to_stdout
    {
        face.report.result(&Got {
            domain: reader.domain_text(),
            key: record.key.to_string(),
            size_bytes: record.raw_len,
            file: file.to_string_lossy().into_owned(),
        })?;
        let size = text::size(record.raw_len);
        face.report
            .detail(&format!("wrote {size} to {}", text::path(file)));
    }
    Ok(Exit::Complete)
}

/// Whether a terminal can take it. What cannot be read will fail by itself.
fn is_text(store: &StoreHandle, record: &IndexRecord) -> bool {
    let printable = |c: char| {
        c == '\n' || c == '\t' || c == '\r' || text::is_printable(c.encode_utf8(&mut [0; 4]))
    };
    record.raw_len <= TEXT_MAX_BYTES
        && store.get(&record.key).is_ok_and(|bytes| {
            std::str::from_utf8(&bytes).is_ok_and(|text| text.chars().all(printable))
        })
}
