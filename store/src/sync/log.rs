//! Our copy of another instance's log: what makes the files that were brought visible.
//!
//! Invariants
//! - Every byte that is written was verified when it was read for this: a mebibyte at a time, up to a chain value that is
//!   known from the first reading.
//! - A log file of a copy is replaced whole. Records of several appends written at once are no append: were they added in place,
//!   a power cut could keep a later one and lose an earlier, which looks like damage ever after.
//! - Copied are the valid parts of the files up to the last record. A file that was begun without a record may vanish there yet.
//!
//! Order of writes
//! 1. each file that is new or longer: `tmp/ingest/log-….asl.new`, synced
//! 2. in the order of the log, each gets its name, durable
//! 3. `log/current`
//!
//! Crash: up to step 2 files that the next sync removes; during it the log is a shorter one of the same history; before
//! step 3 the hint remembers less than there is.

use super::Plan;
use super::survey::{Source, SourceFile, changed};
use crate::current::Hint;
use crate::error::{Error, Result};
use crate::format::log_header as lh;
use crate::log::{LOG_DIR, LogPlace};

/// Writes what their log has and ours lacks.
pub(super) fn extend(plan: &Plan, source: &Source) -> Result<()> {
    let into = &*plan.into;
    let known = plan.before.map_or(0, |head| head.position.0);
    let is_wanted = |file: &&SourceFile| match file.pieces.last() {
        Some(end) => end.position.0 > known,
        None => file.start.position.0 >= known,
    };
    let mut ready = Vec::new();
    for file in source.written.iter().filter(is_wanted) {
        let scratch = scratch_path(file);
        write_file(plan, source, file, &scratch).inspect_err(|_| {
            let _ = into.remove(&scratch);
        })?;
        ready.push((scratch, file.name.path()));
    }
    for (scratch, path) in ready {
        into.rename(&scratch, &path)
            .map_err(Error::io("rename", &scratch))?;
        into.sync_dir(LOG_DIR).map_err(Error::io("sync", LOG_DIR))?;
    }
    let newest = source.state.snapshots.last();
    let hint = Hint {
        place: source.state.place(),
        snapshot: newest.map_or(0, |state| state.ordinal),
    };
    match hint.write(into) {
        // A hint is worth nothing on a disk that is full.
        Err(error) if error.is_full() => Ok(()),
        other => other,
    }
}

fn scratch_path(file: &SourceFile) -> String {
    let path = file.name.path();
    let name = path.rsplit('/').next().unwrap_or(&path);
    format!("tmp/ingest/{name}.new")
}

/// Step 1 for one file.
fn write_file(plan: &Plan, source: &Source, file: &SourceFile, scratch: &str) -> Result<()> {
    let into = &*plan.into;
    let _ = into.remove(scratch);
    let written = into
        .create_exclusive(scratch)
        .map_err(Error::io("create", scratch))?;
    let write = |offset: u64, bytes: &[u8]| {
        written
            .write_at(offset, &[bytes])
            .map_err(Error::io("write", scratch))
    };
    write(0, &file.header)?;
    let mut at = file.start;
    let mut bytes = Vec::new();
    for piece in &file.pieces {
        read_piece(plan, source, (at, *piece), &mut bytes)?;
        write(at.offset, &bytes)?;
        at = *piece;
    }
    debug_assert!(at.offset >= lh::LEN as u64);
    written.sync().map_err(Error::io("sync", scratch))
}

/// Reads the records between two places again, which must be those that were there.
pub(super) fn read_piece(
    plan: &Plan,
    source: &Source,
    (from, to): (LogPlace, LogPlace),
    bytes: &mut Vec<u8>,
) -> Result<()> {
    bytes.clear();
    let read = source
        .files
        .read_raw(&*plan.from, from, to.position, &mut |record, raw| {
            // The end of the file that was there then.
            if record.place.0 != from.name {
                return Err(changed());
            }
            bytes.extend_from_slice(raw);
            Ok(())
        });
    match read {
        Ok((end, _)) if end == to => Ok(()),
        Err(error @ Error::Io { .. }) => Err(error),
        _ => Err(changed()),
    }
}
