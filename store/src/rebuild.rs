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
use crate::salvage::salt_of_frames;
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

/// The whole frames of a block file, even if its header is damaged: then the first
/// frame tells the salt. Only good for naming what is lost, as no reader opens it.
pub(crate) fn scan_hard(file: &dyn VfsFile, path: &str) -> Result<Vec<block::Entry>> {
    let frames = scan(file, path);
    if frames.is_ok() {
        return frames;
    }
    let len = file.len().map_err(Error::io("read", path))?;
    let len = len.min(format::FILE_LEN_MAX);
    match salt_of_frames(file, path, len)? {
        Some(salt) => Ok(block::whole_frames(file, path, len, &salt)?.0),
        None => Ok(Vec::new()),
    }
}

/// The whole frames of a file with a valid block header.
fn scan(file: &dyn VfsFile, path: &str) -> Result<Vec<block::Entry>> {
    let mut header = [0; bh::LEN];
    read_exact_at(file, 0, &mut header).map_err(Error::io("read", path))?;
    block::BlockHeader::decode(&header, path)?;
    let len = file.len().map_err(Error::io("read", path))?;
    let salt = FrameSalt::of_block(&header);
    let (frames, _) = block::whole_frames(file, path, len.min(format::FILE_LEN_MAX), &salt)?;
    Ok(frames)
}

/// Keys by their leading 32 bits: one of several equal parts of all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRange {
    first: u32,
    last: u32,
}

impl KeyRange {
    /// All keys in `parts` parts, a power of two up to 2^16, in ascending order.
    pub(crate) fn split(parts: u32) -> impl Iterator<Item = Self> {
        let width = (1u64 << 32) / u64::from(parts);
        (0..u64::from(parts)).map(move |part| Self {
            first: (part * width) as u32,
            last: ((part + 1) * width - 1) as u32,
        })
    }

    /// In how many parts keys must be taken for `entries` entries to fit in `bytes`.
    pub(crate) fn parts(entries: u64, bytes: u64) -> u32 {
        // Sorting takes half as much again.
        let each = size_of::<Ordered>() as u64 * 3 / 2;
        let needed = entries.saturating_mul(each).div_ceil(bytes.max(each));
        needed.clamp(1, 1 << 16).next_power_of_two() as u32
    }

    pub(crate) fn contains(self, key: &Key) -> bool {
        let head = u32::from_be_bytes([key.0[0], key.0[1], key.0[2], key.0[3]]);
        (self.first..=self.last).contains(&head)
    }

    /// The shards that have keys of this range, of `shards`.
    pub(crate) fn shards(self, shards: u32) -> std::ops::RangeInclusive<u32> {
        let shard = |head: u32| head.checked_shr(32 - shards.trailing_zeros()).unwrap_or(0);
        shard(self.first)..=shard(self.last)
    }
}

/// An entry, and which of the history's items it comes from.
pub(crate) type Ordered = (IndexRecord, u32);

/// How many entries a history has.
pub(crate) fn count(state: &State, history: &[(u64, Level0)]) -> u64 {
    let of = |entries: &Level0| match entries {
        Level0::Block(id) => state
            .block(BlockId(*id))
            .map_or(0, |info| info.artifact_count.into()),
        entries => logged(entries).count() as u64,
    };
    history.iter().map(|(_, entries)| of(entries)).sum()
}

/// All entries of the keys in `range`, by key and then in log order. `unreadable` is
/// told of blocks whose table of contents cannot be read.
pub(crate) fn gather(
    vfs: &dyn Vfs,
    state: &State,
    history: &[(u64, Level0)],
    range: KeyRange,
    unreadable: &mut dyn FnMut(BlockId, Error),
) -> Result<Vec<Ordered>> {
    let mut found: Vec<Ordered> = Vec::new();
    for (item, (_, entries)) in history.iter().enumerate() {
        let mut add = |record: IndexRecord| {
            if range.contains(&record.key) {
                found.push((record, item as u32));
            }
        };
        match entries {
            Level0::Block(id) => {
                let (records, error) = block_records(vfs, state, BlockId(*id))?;
                records.into_iter().for_each(&mut add);
                if let Some(error) = error {
                    unreadable(BlockId(*id), error);
                }
            }
            entries => logged(entries).for_each(add),
        }
    }
    // Stable: a key that a block has twice stays in the order of its table.
    found.sort_by_key(|(record, _)| record.key);
    Ok(found)
}
