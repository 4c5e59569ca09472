//! A new index from log and blocks.
//!
//! Invariants
//! - Nothing that segments say is used, but for blocks whose table of contents cannot be
//!   read: what only segments know of those is carried over, so that who asks for it
//!   hears of damage.
//! - Memory is bounded: keys are taken in as many parts as that needs.
//!
//! Crash: segments that the log does not name are garbage; the old ones count until the
//! one record is durable that retires them all.

use std::collections::BTreeSet;

use crate::current::{self, END};
use crate::error::{Error, Result};
use crate::id::{BlockId, LogPosition};
use crate::log::LogFiles;
use crate::rebuild::{self, KeyRange};
use crate::segment::{IndexRecord, SegmentRef, shard_dir, write_segment};
use crate::state::State;
use crate::writer::StoreWriter;

/// What a rebuilt index consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reindexed {
    /// New segments.
    pub segments: u64,
    /// Index records in them.
    pub entries: u64,
    /// Segments that were retired.
    pub retired: u64,
    /// Blocks whose table of contents cannot be read, and why. What of them is still whole
    /// was indexed.
    pub unreadable: Vec<(BlockId, String)>,
}

impl StoreWriter {
    /// Writes the whole index anew, taking about `memory_bytes` for it, and retires
    /// every old segment.
    pub(crate) fn reindex(&mut self, memory_bytes: u64) -> Result<Reindexed> {
        self.commit()?;
        let vfs = self.vfs.clone();
        let files = LogFiles::list(&*vfs)?;
        let (whole, _) = current::fold(&*vfs, &files, END, true, &mut |_| {})?;
        let covers = self.handle.with_state(State::position);
        if whole.position() != covers {
            return Err(Error::LogDamaged {
                what: format!("it can be read up to record {} only", whole.position()),
            });
        }
        let mut made = Reindexed::default();
        let mut added = Vec::new();
        let parts = KeyRange::parts(rebuild::count(&whole, &whole.level0), memory_bytes);
        for (at, range) in KeyRange::split(parts).enumerate() {
            let mut lost = BTreeSet::new();
            let entries =
                rebuild::gather(&*vfs, &whole, &whole.level0, range, &mut |id, error| {
                    lost.insert(id);
                    if at == 0 {
                        made.unreadable.push((id, error.to_string()));
                    }
                })?;
            let newest = entries
                .chunk_by(|(a, _), (b, _)| a.key == b.key)
                .filter_map(|of_key| {
                    of_key
                        .iter()
                        .map(|(entry, _)| *entry)
                        .reduce(rebuild::newer)
                });
            // What was never stored needs no tombstone.
            let mut records: Vec<IndexRecord> = newest
                .filter(|r| !r.is_tombstone() || r.has_place())
                .collect();
            drop(entries);
            self.carry_over(range, &lost, &mut records);
            self.write_segments(&records, covers, &mut added)?;
        }
        let removed: Vec<(u32, u32)> = self.handle.with_state(|state| {
            let old = state.segments().into_iter();
            old.map(|segment| (segment.shard, segment.number)).collect()
        });
        made.segments = added.len() as u64;
        made.entries = added.iter().map(|segment| segment.entries).sum();
        made.retired = removed.len() as u64;
        if !added.is_empty() || !removed.is_empty() {
            self.install_segments(covers, &added, removed)?;
        }
        Ok(made)
    }

    /// Adds to `records`, which ascend, what only the old index knows of `lost` blocks.
    fn carry_over(
        &self,
        range: KeyRange,
        lost: &BTreeSet<BlockId>,
        records: &mut Vec<IndexRecord>,
    ) {
        if lost.is_empty() {
            return;
        }
        let view = self.handle.view();
        let shards = view.state.params().shards;
        let level0 = view.index.level0_sorted();
        let mut found = Vec::new();
        for shard in range.shards(shards) {
            let level0 = level0
                .iter()
                .filter(|entry| entry.key.shard(shards) == shard);
            let old = view
                .index
                .merged(shard, level0.map(|record| **record).collect());
            found.extend(old.filter_map(Result::ok).filter(|entry| {
                range.contains(&entry.key)
                    && lost.contains(&entry.block)
                    && records.binary_search_by_key(&entry.key, |r| r.key).is_err()
            }));
        }
        records.append(&mut found);
        records.sort_unstable_by_key(|record| record.key);
    }

    /// Writes a segment for each shard that `records` have keys of.
    fn write_segments(
        &mut self,
        records: &[IndexRecord],
        covers: LogPosition,
        added: &mut Vec<SegmentRef>,
    ) -> Result<()> {
        let vfs = self.vfs.clone();
        let (store_id, shards, next) = self
            .handle
            .with_state(|state| (state.store_id(), state.params().shards, state.next_segment));
        for of_shard in records.chunk_by(|a, b| a.key.shard(shards) == b.key.shard(shards)) {
            let number = next.max(self.next_segment);
            self.next_segment = number + 1;
            let shard = of_shard[0].key.shard(shards);
            let dir = shard_dir(shard);
            vfs.create_dir(&dir).map_err(Error::io("create", &dir))?;
            let segment = write_segment(
                &*vfs,
                store_id,
                (shards, shard, number),
                (of_shard.len() as u64, covers.0),
                &mut of_shard.iter().copied().map(Ok),
            )?;
            vfs.sync_dir(&dir).map_err(Error::io("sync", &dir))?;
            added.push(segment);
        }
        Ok(())
    }
}
