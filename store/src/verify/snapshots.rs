//! Snapshots: what their directories hold, compared with the log. All of it is cache.

use super::{Run, describe};
use crate::current;
use crate::error::Error;
use crate::format::{self, snapshot_payload as pp};
use crate::id::Digest;
use crate::index::read_file;
use crate::log::{LogPlace, Record};
use crate::snapshot;
use crate::state::{SnapshotInfo, State};

/// A cache's bytes; `None` where it is missing or unreadable, which has been told of.
fn read(run: &Run, path: &str) -> Option<Vec<u8>> {
    match read_file(run.vfs, path) {
        Ok(bytes) => {
            run.expect(bytes.len() as u64);
            run.advance(bytes.len() as u64);
            Some(bytes)
        }
        Err(Error::Io { source, .. })
            if matches!(
                source.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            run.note(format!("{path} is missing; repair makes it again"));
            None
        }
        Err(error) => {
            run.stale(path, None, describe(&error).1);
            None
        }
    }
}

/// Compares `state.bin` with the digest that the snapshot's `record` pins and with
/// the state before that record, whose end the writer may have seen at any of
/// `places`. `state` comes back as it was.
pub(super) fn check_state(run: &Run, state: &mut State, places: &[LogPlace], record: &Record) {
    if record.payload.len() < pp::LEN {
        return;
    }
    run.count(|counts| counts.snapshots += 1);
    let path = current::state_path(pp::ORDINAL.get(&record.payload));
    let Some(bytes) = read(run, &path) else {
        return;
    };
    let pinned = Digest(pp::STATE_DIGEST.array(&record.payload));
    if current::state_digest(&bytes) != pinned {
        run.stale(&path, None, "not the state that the snapshot's record pins");
        return;
    }
    let version = bytes
        .get(format::STATE_MAGIC.len()..)
        .and_then(|rest| rest.get(..2));
    if version.is_some_and(|version| version != format::FORMAT_VERSION.to_le_bytes()) {
        run.note(format!(
            "{path} is of another version; the log is read instead"
        ));
        return;
    }
    let same = current::decode_state(&bytes).is_some_and(|told| {
        let place = state.place();
        let same = places.iter().any(|place| {
            state.set_place(*place);
            *state == told
        });
        state.set_place(place);
        same
    });
    if !same {
        // Readers believe it, because the record pins it.
        run.damaged(
            &path,
            None,
            "the state that it pins is not what the log says",
        );
    }
}

/// Renders a snapshot again and compares. `state` is that right after its record.
pub(super) fn check_renderings(run: &Run, state: &State, snapshot: &SnapshotInfo) {
    let dir = current::snapshot_dir(snapshot.ordinal);
    for (name, text) in snapshot::render(state, snapshot) {
        let path = format!("{dir}/{name}");
        let Some(bytes) = read(run, &path) else {
            continue;
        };
        if bytes != text.as_bytes() {
            let pairs = bytes.iter().zip(text.as_bytes());
            let at = pairs.take_while(|(a, b)| a == b).count() as u64;
            run.stale(&path, at, "not what the snapshot looks like");
        }
    }
}
