//! Upkeep of a store by its writer: segments, snapshots, the hint.
//!
//! Invariants
//! - A segment is durable under its name before the log names it, and the name is never
//!   used for other content after that was attempted.
//! - A retired segment is removed after its retirement is durable, unless a
//!   snapshot pins it.
//! - Renderings, filters and the hint are caches: that one cannot be written for want of
//!   room fails nothing.
//!
//! Crash: segments that the log does not name are garbage, removed at the next opening for
//! writing; a snapshot's directory without its record means nothing.

use std::collections::{BTreeSet, HashSet};

use crate::current;
use crate::error::{Error, Result};
use crate::format;
use crate::id::{LogPosition, SnapshotId};
use crate::index::{ShardHealth, replace_file};
use crate::segment::{SegmentRef, segment_path, shard_dir, write_segment};
use crate::snapshot;
use crate::state;
use crate::writer::StoreWriter;

/// Level 0 is flushed at a snapshot only from this many entries on: sixteen
/// files for a handful of keys would cost more syncs than they save reads.
const SNAPSHOT_FLUSH_MIN: usize = 4096;
/// Segments of a shard that are merged into one.
const MERGE_AT: usize = 8;

impl StoreWriter {
    /// Writes level 0 into segments and logs them; merges where a shard has many.
    pub fn flush(&mut self) -> Result<()> {
        let vfs = self.vfs.clone();
        let mut added: Vec<SegmentRef> = Vec::new();
        let mut removed: Vec<(u32, u32)> = Vec::new();
        let covers;
        {
            let view = self.handle.view();
            let (state, index) = (&view.state, &view.index);
            covers = state.position();
            let params = *state.params();
            let level0 = index.level0_sorted();
            let by_shard =
                level0.chunk_by(|a, b| a.key.shard(params.shards) == b.key.shard(params.shards));
            let first = state.next_segment.max(self.next_segment);
            for (number, newest) in (first..).zip(by_shard) {
                self.next_segment = number + 1;
                let shard = newest[0].key.shard(params.shards);
                let dir = shard_dir(shard);
                vfs.create_dir(&dir).map_err(Error::io("create", &dir))?;
                let old = state.segments_of(shard);
                let whole = match index.health(shard) {
                    ShardHealth::Whole => old.len() + 1 >= MERGE_AT,
                    ShardHealth::Rebuilt => true,
                    // Retiring what cannot be read would lose it.
                    ShardHealth::Incomplete => false,
                };
                let count_max = newest.len() as u64
                    + if whole {
                        old.iter().map(|s| s.entries).sum()
                    } else {
                        0
                    };
                let place = (params.shards, shard, number);
                let counts = (count_max, covers.0);
                let made = if whole {
                    // A tombstone over everything there is hides nothing more, unless it
                    // alone remembers where a part of something else is.
                    let mut records = index
                        .merged(shard, newest.iter().map(|record| **record).collect())
                        .filter(|record| {
                            let record = record.as_ref();
                            !record.is_ok_and(|record| record.is_tombstone() && !record.has_place())
                        });
                    removed.extend(old.iter().map(|segment| (segment.shard, segment.number)));
                    write_segment(&*vfs, state.store_id(), place, counts, &mut records)?
                } else {
                    write_segment(
                        &*vfs,
                        state.store_id(),
                        place,
                        counts,
                        &mut newest.iter().map(|record| Ok(**record)),
                    )?
                };
                vfs.sync_dir(&dir).map_err(Error::io("sync", &dir))?;
                added.push(made);
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        self.install_segments(covers, &added, removed)
    }

    /// Logs segments that are durable in their directories, with the retirement of
    /// others: from here on they answer for level 0.
    pub(crate) fn install_segments(
        &mut self,
        covers: LogPosition,
        added: &[SegmentRef],
        removed: Vec<(u32, u32)>,
    ) -> Result<()> {
        let vfs = self.vfs.clone();
        vfs.sync_dir("index").map_err(Error::io("sync", "index"))?;
        self.append(state::segments_record(covers, added, &removed))?;
        let mut view = self.handle.view_mut();
        let view = &mut *view;
        view.index.clear_level0();
        let changed = added.iter().map(|segment| segment.shard);
        let changed: BTreeSet<u32> = changed.chain(removed.iter().map(|(s, _)| *s)).collect();
        for shard in changed {
            view.index.load_shard(&*vfs, &view.state, shard)?;
            let _ = view.index.refresh_filters(&*vfs, shard);
        }
        let pinned: HashSet<_> = view
            .state
            .snapshots
            .iter()
            .flat_map(|s| s.segments.iter().copied())
            .collect();
        for (shard, number) in removed
            .into_iter()
            .filter(|retired| !pinned.contains(retired))
        {
            let _ = vfs.remove(&segment_path(shard, number));
        }
        Ok(())
    }

    /// Pins the log up to here: `Index(S, P)` starts from it, and so does opening.
    pub fn snapshot(&mut self, label: &str) -> Result<SnapshotId> {
        if label.len() > format::LABEL_MAX as usize {
            let (len, max) = (label.len() as u64, format::LABEL_MAX.into());
            return Err(Error::TooLong {
                what: "a snapshot's label",
                len,
                max,
            });
        }
        self.commit()?;
        if self.handle.view().index.level0_len() >= SNAPSHOT_FLUSH_MIN {
            self.flush()?;
        }
        let (ordinal, bytes) = self.handle.with_state(|state| {
            (
                state.snapshots.last().map_or(1, |last| last.ordinal + 1),
                current::encode_state(state),
            )
        });
        let dir = current::snapshot_dir(ordinal);
        self.vfs
            .create_dir(&dir)
            .map_err(Error::io("create", &dir))?;
        self.vfs
            .sync_dir("snapshots")
            .map_err(Error::io("sync", "snapshots"))?;
        replace_file(&*self.vfs, &current::state_path(ordinal), &bytes)?;
        let digest = current::state_digest(&bytes);
        self.append(state::snapshot_record(ordinal, &digest, label))?;
        let (info, renderings) = self
            .handle
            .with_state(|state| {
                let info = state.snapshots.last().cloned();
                info.map(|info| (info.clone(), snapshot::render(state, &info)))
            })
            .ok_or(Error::Poisoned)?;
        for (name, text) in renderings {
            match replace_file(&*self.vfs, &format!("{dir}/{name}"), text.as_bytes()) {
                Err(error) if !error.is_full() => return Err(error),
                _ => {}
            }
        }
        self.write_hint()?;
        Ok(info.id())
    }
}
