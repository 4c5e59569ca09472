//! Artifacts of another store, taken over one by one: from a block of which little is needed, or which is damaged.
//!
//! The bytes stay as they are stored there, so nothing is compressed again; what they say is checked here, as for whole blocks.

use std::collections::HashSet;

use super::Hashing;
use crate::block::{self, Entry};
use crate::error::{Error, Result};
use crate::format;
use crate::frame::{self, Decoder, Frame, parse_chunk_list};
use crate::id::{BlockId, Key};
use crate::rebuild;
use crate::recover::TOMBSTONES_MAX;
use crate::vfs::{Access, Vfs, VfsFile};
use crate::writer::{Put, StoreWriter};

/// Every whole frame of a block file, even if its header or contents are damaged.
///
/// # Errors
/// [`Error::Io`] where the file cannot be read at all.
pub fn whole_frames(from: &dyn Vfs, path: &str) -> Result<Vec<Entry>> {
    let file = from
        .open(path, Access::Read)
        .map_err(Error::io("open", path))?;
    rebuild::scan_hard(&*file, path)
}

/// One frame of a block file, its stored bytes hashed.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Io`].
pub fn read_frame(file: &dyn VfsFile, path: &str, entry: &Entry) -> Result<Frame> {
    if let Some(what) = entry.impossible() {
        return Err(Error::damaged(path, entry.offset.into(), what));
    }
    Ok(Frame {
        info: entry.info,
        stored: block::read_stored(file, path, entry)?.into(),
    })
}

/// Keys that imports must not make visible.
#[derive(Debug, Clone, Default)]
pub struct Hidden {
    keys: HashSet<Key>,
    /// The block that repeats them.
    block: Option<BlockId>,
}

impl Hidden {
    /// Whether none is among them.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The block that repeats the keys, and those of `entries` that are among them.
    pub(super) fn of<'e>(
        &self,
        entries: impl Iterator<Item = &'e Entry>,
    ) -> Option<(BlockId, Vec<Key>)> {
        let keys = entries.map(|entry| entry.info.key);
        let keys: Vec<Key> = keys.filter(|key| self.keys.contains(key)).collect();
        Some((self.block?, keys)).filter(|(_, keys)| !keys.is_empty())
    }
}

impl StoreWriter {
    /// Writes down which keys imports must not make visible, for [`import_staged`](Self::import_staged). Durable when this
    /// returns; by itself it hides nothing.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit).
    pub fn hide_imported(&mut self, keys: HashSet<Key>) -> Result<Hidden> {
        if keys.is_empty() {
            return Ok(Hidden::default());
        }
        // A note of those that are visible here would be taken for their deletion, should it lose its record.
        let mut sorted = Vec::new();
        for key in &keys {
            if self.handle.lookup_own(key)?.is_none() {
                sorted.push(*key);
            }
        }
        sorted.sort();
        let mut at = None;
        for keys in sorted.chunks(TOMBSTONES_MAX) {
            let position = self.handle.with_state(crate::state::State::position);
            let note = frame::build_tombstones(position, keys);
            self.note(format::NOTE_TOMBSTONES, note)?;
        }
        self.commit_with(|block| {
            at = block;
            None
        })?;
        Ok(Hidden { keys, block: at })
    }

    /// Stores one artifact as another store has it, unless it is here already. What its bytes say is checked first; the parts of an
    /// artifact that is a list of parts must be here.
    ///
    /// # Errors
    /// [`Error::Damaged`] with `path` where the bytes are not what the key names, or a part is missing; those of
    /// [`put`](Self::put).
    pub fn take(&mut self, mut frame: Frame, path: &str) -> Result<Put> {
        let damaged = |what: &str| Error::damaged(path, 0, what);
        let info = &mut frame.info;
        if !info.is_artifact() || info.note_type != 0 {
            return Err(damaged("a frame that is no artifact"));
        }
        info.flags &= format::FLAG_ROOT | format::FLAG_NODE;
        let (key, flags, raw_len) = (info.key, info.flags, info.raw_len);
        if self.has(&key, flags) {
            return Ok(Put::Duplicate);
        }
        if info.encoding == format::ENCODING_CHUNKED {
            let parts = parse_chunk_list(&frame.stored).map_err(damaged)?;
            if parts.iter().any(|(part, _)| self.is_pending(part)) {
                self.commit()?;
            }
            self.check_parts(&key, raw_len, &parts, path)?;
        } else {
            let mut out = Vec::new();
            Decoder::default()
                .decode(&frame.info, &frame.stored, &mut out)
                .map_err(damaged)?;
        }
        self.put_anew(frame)
    }

    /// Whether parts that are here are the artifact of a key.
    fn check_parts(&self, key: &Key, raw_len: u64, parts: &[(Key, u64)], path: &str) -> Result<()> {
        let damaged = |what: &str| Error::damaged(path, 0, what);
        let mut hashing = Hashing::up_to(raw_len);
        for (part, len) in parts {
            let before = hashing.left();
            let Some(record) = self.handle.lookup_part(part)? else {
                return Err(damaged("a list with a part that is nowhere"));
            };
            let copied = self.handle.copy_record(&record, &mut hashing, 1);
            if copied.is_err() || before.checked_sub(hashing.left()) != Some(*len) {
                return Err(damaged("a list whose parts are not as long as it says"));
            }
        }
        match hashing.is(key) {
            true => Ok(()),
            false => Err(damaged("bytes that do not match their key")),
        }
    }
}
