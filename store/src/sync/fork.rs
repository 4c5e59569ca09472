//! Evidence of a fork: the other store's log from the file on in which it parts from ours.
//!
//! Nothing of a second history is taken into the log that it contradicts; but which of the two is right is for people to say,
//! and by then the other store may be gone. So its log is kept, as it was read, where no reader of the store looks.
//!
//! Invariants
//! - What is kept is never overwritten: its directory is named by the end of the log that it holds.
//! - No more than [`BYTES_MAX`] of one log, and of one instance no more than [`HEADS_MAX`].
//!
//! Crash: files named `.new`, or a directory that lacks the later ones. The same fork found again completes it.

use super::Plan;
use super::log::read_piece;
use super::survey::Source;
use crate::compare::Head;
use crate::error::{Error, Result};
use crate::format::log_header as lh;
use crate::id::LogPosition;
use crate::vfs::Vfs;

/// Directory of evidence in a store.
pub const EVIDENCE_DIR: &str = "evidence";
/// Bytes of one log that are kept.
pub const BYTES_MAX: u64 = 256 << 20;
/// Heads of one instance that are kept.
pub const HEADS_MAX: usize = 64;

/// Where the evidence about a head lies.
pub fn evidence_dir(head: &Head) -> String {
    let chain = head.chain.to_string();
    format!("{EVIDENCE_DIR}/fork-{}-{}", head.store, &chain[..16])
}

/// Keeps their log from the file on that has record `at`; says where, or `None` where there is no room for more.
pub(super) fn keep(
    top: &dyn Vfs,
    plan: &Plan,
    source: &Source,
    at: LogPosition,
) -> Result<Option<String>> {
    let dir = evidence_dir(&source.head());
    let of_instance = format!("fork-{}-", source.state.store_id());
    let kept = top.list(EVIDENCE_DIR).unwrap_or_default();
    let kept = kept
        .iter()
        .filter(|entry| entry.name.starts_with(&of_instance));
    if top.metadata(&dir).is_err() && kept.count() >= HEADS_MAX {
        return Ok(None);
    }
    let mut parent = "";
    for dir in [EVIDENCE_DIR, &dir] {
        top.create_dir(dir).map_err(Error::io("create", dir))?;
        top.sync_dir(parent).map_err(Error::io("sync", parent))?;
        parent = dir;
    }
    let mut left = BYTES_MAX;
    let is_later = |file: &&super::survey::SourceFile| {
        let end = file.pieces.last().unwrap_or(&file.start);
        end.position > at
    };
    for file in source.written.iter().filter(is_later) {
        let log = file.name.path();
        let name = log.rsplit('/').next().unwrap_or(&log);
        let (path, scratch) = (format!("{dir}/{name}"), format!("{dir}/{name}.new"));
        if top.metadata(&path).is_ok() {
            continue;
        }
        let _ = top.remove(&scratch);
        let written = top
            .create_exclusive(&scratch)
            .map_err(Error::io("create", &scratch))?;
        let write = |offset: u64, bytes: &[u8]| {
            written
                .write_at(offset, &[bytes])
                .map_err(Error::io("write", &scratch))
        };
        write(0, &file.header)?;
        left = left.saturating_sub(lh::LEN as u64);
        let mut from = file.start;
        let mut bytes = Vec::new();
        for piece in &file.pieces {
            read_piece(plan, source, (from, *piece), &mut bytes)?;
            if bytes.len() as u64 > left {
                left = 0;
                break;
            }
            left -= bytes.len() as u64;
            write(from.offset, &bytes)?;
            from = *piece;
        }
        written.sync().map_err(Error::io("sync", &scratch))?;
        drop(written);
        top.rename(&scratch, &path)
            .map_err(Error::io("rename", &scratch))?;
        top.sync_dir(&dir).map_err(Error::io("sync", &dir))?;
        if left == 0 {
            break;
        }
    }
    Ok(Some(dir))
}
