//! Index entries from log and blocks alone: what segments are rebuilt from, and
//! what they are compared with.
//!
//! Invariants
//! - Entries come in log order, those of a block in the order of its table of contents.
//! - A block whose table of contents is damaged gives the entries of all its whole
//!   frames: each is vouched for by its own hash.
//! - Memory is bounded by the range of keys that is asked for, not by the store.

use crate::block::{self, Sealed};
use crate::error::{Error, Result};
use crate::format::{self, block_header as bh, index_record as ir};
use crate::frame::FrameSalt;
use crate::id::{BlockId, Key};
use crate::index::{open_block, record_of, records_of};
use crate::segment::IndexRecord;
use crate::state::{Level0, State};
use crate::vfs::{Vfs, VfsFile, read_exact_at};

/// The entry that decides when `newer` comes after `older`, both of one key: the newer
/// one, but a tombstone that does not know what it hides learns it from the older.
pub(crate) fn newer(older: IndexRecord, newer: IndexRecord) -> IndexRecord {
    if newer.is_tombstone() && !newer.has_place() {
        older.hidden()
    } else {
        newer
    }
}

/// The entries that a log record holds itself; a block's are in the block.
pub(crate) fn logged(entries: &Level0) -> impl Iterator<Item = IndexRecord> + '_ {
    let (adds, keys): (&[u8], &[u8]) = match entries {
        Level0::Adds(raw) => (raw, &[]),
        Level0::Tombstones(keys) => (&[], keys),
        Level0::Block(_) => (&[], &[]),
    };
    let adds = adds.chunks_exact(ir::LEN).map(IndexRecord::decode);
    let keys = keys.chunks_exact(32);
    adds.chain(
        keys.map(|key| IndexRecord::tombstone(Key(key.try_into().expect("chunks of 32 bytes")))),
    )
}

/// Opens a block that the log names and reads its table of contents, which must be
/// the one that the log pins.
pub(crate) fn read_pinned(vfs: &dyn Vfs, state: &State, id: BlockId) -> Result<Sealed> {
    let (file, path) = open_block(vfs, state, id)?;
    let sealed = block::read_sealed(&*file, &path)?;
    let pinned = state.block(id).map(|info| info.digest);
    if pinned != Some(sealed.digest.0) {
        return Err(Error::damaged(&path, 0, "another block than the log names"));
    }
    Ok(sealed)
}

/// The entries of a block. If its table of contents cannot be read: those of its whole
/// frames, and the error. `Err` only for a block of a newer format.
pub(crate) fn block_records(
    vfs: &dyn Vfs,
    state: &State,
    id: BlockId,
) -> Result<(Vec<IndexRecord>, Option<Error>)> {
    match read_pinned(vfs, state, id) {
        Ok(sealed) => Ok((records_of(id, &sealed).collect(), None)),
        Err(error @ (Error::NewerFormat { .. } | Error::UnknownFlags { .. })) => Err(error),
        Err(error) => {
            let records = scan_block(vfs, state, id).unwrap_or_default();
            Ok((records, Some(error)))
        }
    }
}

/// The entries of the whole frames of a block whose length is right and whose header
/// is: without those no reader takes anything from it.
fn scan_block(vfs: &dyn Vfs, state: &State, id: BlockId) -> Result<Vec<IndexRecord>> {
    let (file, path) = open_block(vfs, state, id)?;
    let frames = scan(&*file, &path)?;
    Ok(frames.iter().filter_map(|e| record_of(id, e)).collect())
}

/// The whole frames of a file with a valid block header.
pub(crate) fn scan(file: &dyn VfsFile, path: &str) -> Result<Vec<block::Entry>> {
    let mut header = [0; bh::LEN];
    read_exact_at(file, 0, &mut header).map_err(Error::io("read", path))?;
    block::BlockHeader::decode(&header, path)?;
    let len = file.len().map_err(Error::io("read", path))?;
    let salt = FrameSalt::of_block(&header);
    let (frames, _) = block::whole_frames(file, path, len.min(format::FILE_LEN_MAX), &salt)?;
    Ok(frames)
}
