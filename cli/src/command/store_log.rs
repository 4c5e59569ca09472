//! `asl store log`: what happened to the store, one record a line.

use std::io::{self, Write};

use asl_store::format::{self, seal_payload, session_payload, snapshot_payload, tombstone_payload};
use asl_store::log::{LogEnd, LogFiles, Record};
use asl_store::{Epoch, Error as StoreError, LogPosition, SessionId};
use serde::Serialize;

use crate::args::StoreLog;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::Outcome;
use crate::text;

/// A record, for reading.
#[derive(Debug, Serialize)]
struct Line {
    position: u64,
    #[serde(rename = "type")]
    kind: String,
    critical: bool,
    time_unix_ns: i64,
    payload_bytes: usize,
    chain_hash: String,
    detail: String,
}

impl Outcome for Line {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let line = format!(
            "{:>8}  {}  {:<9}  {}",
            self.position,
            text::time(self.time_unix_ns),
            self.kind,
            text::fit(&text::visible(&self.detail), 37)
        );
        writeln!(out, "{}", line.trim_end())
    }
}

impl From<&Record> for Line {
    fn from(record: &Record) -> Self {
        let (kind, detail) = describe(record);
        Self {
            position: record.position.0,
            kind: kind.map_or_else(|| format!("type {}", record.record_type), str::to_owned),
            critical: record.critical,
            time_unix_ns: record.time_unix_ns,
            payload_bytes: record.payload.len(),
            chain_hash: record.chain.to_string(),
            detail,
        }
    }
}

/// The record's name and a few words; only the length for a payload that cannot be
/// what its type says.
fn describe(record: &Record) -> (Option<&'static str>, String) {
    let payload = &record.payload[..];
    let has = |len: usize| payload.len() >= len;
    match record.record_type {
        format::RECORD_CREATED => (Some("created"), String::new()),
        format::RECORD_LEASE => (Some("lease"), "block ids for a writer".to_owned()),
        format::RECORD_SEAL if has(seal_payload::LEN) => (
            Some("seal"),
            format!(
                "block {}, {}",
                seal_payload::BLOCK_ID.get(payload),
                text::count(seal_payload::ARTIFACT_COUNT.u32(payload).into(), "artifact"),
            ),
        ),
        format::RECORD_INDEX_ADD => (Some("index"), "entries for stored artifacts".to_owned()),
        format::RECORD_TOMBSTONE if has(tombstone_payload::LEN) => (
            Some("tombstone"),
            text::count(tombstone_payload::COUNT.u32(payload).into(), "artifact") + " hidden",
        ),
        format::RECORD_SEGMENTS => (Some("segments"), "index written".to_owned()),
        format::RECORD_SNAPSHOT if has(snapshot_payload::LEN) => {
            let label = String::from_utf8_lossy(&payload[snapshot_payload::LEN..]);
            let detail = format!("{} {label}", snapshot_payload::ORDINAL.get(payload));
            (Some("snapshot"), detail.trim_end().to_owned())
        }
        format::RECORD_HOME => (Some("home"), "where this instance is written".to_owned()),
        format::RECORD_REMOVED => (
            Some("removed"),
            "artifacts of another instance hidden".to_owned(),
        ),
        format::RECORD_EPOCH => match Epoch::parse(payload) {
            Some(epoch) => (
                Some("epoch"),
                format!("made again from {} on, of {}", epoch.from, epoch.remembered),
            ),
            None => (Some("epoch"), String::new()),
        },
        format::RECORD_DAM => (Some("dam"), "authority manifest of a domain".to_owned()),
        format::RECORD_POLICY => (Some("policy"), String::new()),
        format::RECORD_WITNESS => (Some("witness"), String::new()),
        format::RECORD_CHECKPOINT => (Some("checkpoint"), String::new()),
        format::RECORD_RECEIPT => (Some("receipt"), String::new()),
        format::RECORD_LINEAGE => (Some("lineage"), String::new()),
        format::RECORD_SESSION if has(session_payload::LEN) => {
            let session = SessionId(session_payload::SESSION.array(payload)).to_string();
            let state = match session_payload::KIND.u8(payload) {
                format::SESSION_BEGUN => "begun",
                format::SESSION_PAUSED => "paused",
                format::SESSION_FINISHED => "finished",
                format::SESSION_ABANDONED => "abandoned",
                _ => "in an unknown state",
            };
            (Some("session"), format!("{} {state}", &session[..16]))
        }
        _ => (None, text::count(payload.len() as u64, "byte")),
    }
}

/// Lists records.
pub fn run(face: &Face, args: &StoreLog) -> Result {
    let (path, vfs) = face.store_files()?;
    let failed = |error: &StoreError| CliError::of_store("read the log", path, error);
    let files = LogFiles::list(&*vfs).map_err(|error| failed(&error))?;
    let until = match args.limit {
        Some(limit) => LogPosition(args.from.saturating_add(limit)),
        None => LogPosition(u64::MAX),
    };
    let mut list = face.report.list("records", "record")?;
    let mut printed = Ok(());
    let read = files.read(&*vfs, files.start(), until, &mut |record| {
        if record.position.0 >= args.from && record.position < until {
            printed = list.item(&Line::from(&record));
        }
        // An error ends the reading; what counts is in `printed`.
        printed.as_ref().map_err(|_| StoreError::Poisoned).copied()
    });
    printed?;
    match read {
        Ok((_, LogEnd::Damaged { what })) => {
            Err(list.fail(failed(&StoreError::LogDamaged { what })))
        }
        Ok((_, end)) => {
            list.finish()?;
            if let LogEnd::Torn { ignored_bytes } = end {
                face.report.detail(&format!(
                    "after it: {} of a record that a crash tore; it never counted",
                    text::count(ignored_bytes, "byte")
                ));
            }
            Ok(Exit::Complete)
        }
        Err(error) => Err(list.fail(failed(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use asl_store::id::Digest;
    use asl_store::log::LogName;

    #[test]
    fn a_record_of_any_length_and_type_is_described() {
        for record_type in 0..40 {
            for len in 0..100 {
                let record = Record {
                    position: LogPosition(1),
                    record_type,
                    critical: false,
                    time_unix_ns: i64::MAX,
                    payload: vec![0xff; len],
                    chain: Digest([0; 32]),
                    place: (
                        LogName {
                            first: 0,
                            generation: 0,
                        },
                        0,
                    ),
                };
                let mut shown = Vec::new();
                Line::from(&record).show(&mut shown).unwrap();
                let shown = String::from_utf8(shown).unwrap();
                assert!(shown.trim_end().chars().count() <= 80, "{shown}");
            }
        }
    }
}
