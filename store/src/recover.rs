//! What opening for writing mends before anything else is written.
//!
//! Invariants
//! - Every whole frame that no logged block holds gets into one that is.
//! - A block found late never overrules what the log has said since it was
//!   begun: no deletion is undone, no newer entry replaced.
//! - Files that are not this store's are reported and left alone.
//!
//! Crash: each found block is logged by one record; the next opening goes on with the rest.

use std::collections::HashSet;

use crate::authority::AuthorityRecord;
use crate::block::{self, BlockHeader, Sealed};
use crate::current::{END, HINT_PATH};
use crate::epoch::still_holds;
use crate::error::{Error, Result};
use crate::format;
use crate::frame;
use crate::id::{BlockId, Digest, Key, LogPosition, StoreId};
use crate::log::{LogFiles, NewRecord};
use crate::removal::Removal;
use crate::salvage::{Salvage, copy_frames, salvage};
use crate::segment::{segment_path, shard_dir};
use crate::state::{self, Level0, State};
use crate::vfs::{Access, VfsFile};
use crate::writer::StoreWriter;

/// Keys in one tombstone record.
pub(crate) const TOMBSTONES_MAX: usize = 65_536;

/// What opening for writing found and mended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Blocks that a dead writer left open; every whole frame is kept.
    pub salvaged_blocks: u64,
    /// Their artifacts.
    pub salvaged_artifacts: u64,
    /// Complete blocks whose log record was missing.
    pub relogged_blocks: u64,
    /// Bytes of a torn log record that were left behind.
    pub torn_log_bytes: u64,
    /// Log records that were there once and have been given up, as far as it is known; see
    /// [`RepairOptions::accept_lost_tail`](crate::RepairOptions::accept_lost_tail).
    pub lost_records: u64,
    /// Sessions' records that are told again from blocks.
    pub told_sessions: u64,
    /// Blocks of other stores, imported once, that are so again.
    pub adopted_blocks: u64,
    /// Where the files lie that the log no longer leads to.
    pub evidence: Option<String>,
    /// Records of authority that found blocks repeat and that cannot be logged, as artifacts which they
    /// name are missing.
    pub lost_authority: u64,
    /// The instance at the top is written elsewhere, and so are all others here: a new one was begun, beside this one.
    pub born: Option<StoreId>,
    /// Files that are not this store's, left where they are, and why.
    pub foreign: Vec<String>,
}

impl StoreWriter {
    pub(crate) fn recover(&mut self) -> Result<()> {
        self.remove_garbage();
        // In this order: what is salvaged moves to the other directory.
        let mut found = self.unlogged_blocks()?;
        found.extend(self.open_blocks()?);
        // In the order in which they were begun: of two entries the later one counts.
        found.sort_by_key(|sealed| sealed.header.id);
        for sealed in found {
            let id = sealed.header.id;
            if self.handle.with_state(|state| state.block(id).is_some()) {
                let what = format!("block {id}: its id belongs to another block");
                self.recovery.foreign.push(what);
            } else {
                self.log_found(sealed)?;
            }
        }
        self.refresh_filters();
        Ok(())
    }

    /// Removes what nothing refers to. It is in the way of nothing if it stays.
    fn remove_garbage(&self) {
        let files = |dir: &str| {
            let entries = self.vfs.list(dir).unwrap_or_default().into_iter();
            let files = entries.filter(|entry| !entry.metadata.is_dir);
            files
                .map(|entry| format!("{dir}/{}", entry.name))
                .collect::<Vec<_>>()
        };
        let mut garbage = files("tmp/scratch");
        garbage.extend(files("tmp/ingest"));
        garbage.push(format!("{HINT_PATH}.new"));
        let (shards, wanted) = self.handle.with_state(|state| {
            let in_force = state.segments().into_iter().map(|s| (s.shard, s.number));
            let pinned = state.snapshots.iter().flat_map(|s| s.segments.clone());
            let wanted: HashSet<_> = in_force
                .chain(pinned)
                .map(|(shard, number)| segment_path(shard, number))
                .collect();
            (state.params().shards, wanted)
        });
        for shard in 0..shards {
            let of_shard = files(&shard_dir(shard)).into_iter().filter(|path| {
                path.ends_with(".new") || path.ends_with(".idx") && !wanted.contains(path)
            });
            garbage.extend(of_shard);
        }
        for path in garbage {
            if self.vfs.metadata(&path).is_ok() {
                let _ = self.vfs.remove(&path);
            }
        }
    }

    /// Salvages what lies under `blocks/open`.
    fn open_blocks(&mut self) -> Result<Vec<Sealed>> {
        let vfs = self.vfs.clone();
        let store_id = self.handle.with_state(State::store_id);
        let mut found = Vec::new();
        for entry in vfs
            .list(block::OPEN_DIR)
            .map_err(Error::io("list", block::OPEN_DIR))?
        {
            let path = format!("{}/{}", block::OPEN_DIR, entry.name);
            let id = entry
                .name
                .strip_prefix("blk_")
                .and_then(|name| name.strip_suffix(".tmp"))
                .and_then(|id| u64::from_str_radix(id, 16).ok());
            let Some(id) = id.filter(|_| !entry.metadata.is_dir) else {
                self.recovery.foreign.push(format!("{path}: not a block"));
                continue;
            };
            let known = self
                .handle
                .with_state(|state| state.block(BlockId(id)).map(|info| info.digest));
            if let Some(digest) = known {
                self.move_logged(&path, Digest(digest));
                continue;
            }
            let mut salvaged = salvage(&*vfs, &path, store_id, &mut || self.new_header());
            if salvaged.as_ref().is_err_and(|error| self.make_room(error)) {
                salvaged = salvage(&*vfs, &path, store_id, &mut || self.new_header());
            }
            match salvaged? {
                Salvage::Empty => {}
                Salvage::Foreign(why) => self.recovery.foreign.push(why.to_string()),
                Salvage::Sealed(sealed) => found.push(sealed),
            }
        }
        Ok(found)
    }

    /// Moves a block that the log names to where it belongs; readers find it here, too.
    fn move_logged(&mut self, path: &str, digest: Digest) {
        let sealed = self
            .vfs
            .open(path, Access::Read)
            .map_err(Error::io("open", path))
            .and_then(|file| block::read_sealed(&*file, path));
        if sealed.is_ok_and(|sealed| sealed.digest == digest) {
            let _ = block::publish(&*self.vfs, path, &digest);
        } else {
            let what = format!("{path}: its id belongs to another block");
            self.recovery.foreign.push(what);
        }
    }

    /// Blocks under `blocks/sealed` that the log does not name.
    fn unlogged_blocks(&mut self) -> Result<Vec<Sealed>> {
        let vfs = self.vfs.clone();
        let (store_id, known) = self.handle.with_state(|state| {
            let known: HashSet<_> = state.blocks.values().map(|info| info.digest).collect();
            (state.store_id(), known)
        });
        let list = |dir: &str| vfs.list(dir).map_err(Error::io("list", dir));
        let mut found = Vec::new();
        for shard in list(block::SEALED_DIR)?
            .iter()
            .filter(|entry| entry.metadata.is_dir)
        {
            let dir = format!("{}/{}", block::SEALED_DIR, shard.name);
            for entry in list(&dir)? {
                let digest = entry
                    .name
                    .strip_suffix(".blk")
                    .and_then(|hex| hex.parse::<Digest>().ok());
                if digest.is_some_and(|digest| known.contains(&digest.0)) {
                    continue;
                }
                let path = format!("{dir}/{}", entry.name);
                let file = vfs
                    .open(&path, Access::Read)
                    .map_err(Error::io("open", &path))?;
                file.settle().map_err(Error::io("sync", &path))?;
                match block::read_sealed(&*file, &path) {
                    Ok(sealed)
                        if Some(sealed.digest) == digest && sealed.header.store_id == store_id =>
                    {
                        // Its move may not have been durable when its writer died.
                        vfs.sync_dir(block::SEALED_DIR)
                            .map_err(Error::io("sync", block::SEALED_DIR))?;
                        vfs.sync_dir(&dir).map_err(Error::io("sync", &dir))?;
                        found.push(sealed)
                    }
                    Ok(_) => {
                        let what = format!("{path}: not a block of this store");
                        self.recovery.foreign.push(what)
                    }
                    Err(error) => self.recovery.foreign.push(error.to_string()),
                }
            }
        }
        Ok(found)
    }

    /// Logs a block that was found without a record, with the tombstones and the records of
    /// authority in it.
    fn log_found(&mut self, mut sealed: Sealed) -> Result<()> {
        let vfs = self.vfs.clone();
        let mut path = block::sealed_path(&sealed.digest);
        if vfs.metadata(&path).is_err() {
            path = block::open_path(sealed.header.id);
        }
        let file = vfs
            .open(&path, Access::Read)
            .map_err(Error::io("open", &path))?;
        let mut hidden = Vec::new();
        let mut removed = Vec::new();
        let mut sessions = Vec::new();
        let mut authority = Vec::new();
        for note in &sealed.entries {
            if note.info.note_type == format::NOTE_AUTHORITY {
                let note = block::read_stored(&*file, &path, note)?;
                let from = self.lost_from.unwrap_or(END);
                let holds = |(position, record): &(LogPosition, AuthorityRecord)| {
                    still_holds(record, *position, from)
                };
                authority.extend(AuthorityRecord::parse_note(&note).filter(holds));
            }
            if note.info.note_type == format::NOTE_REMOVED {
                let note = block::read_stored(&*file, &path, note)?;
                removed.extend(self.unsaid(&note));
            }
            let of_session = [format::NOTE_SESSION, format::NOTE_SESSION_RECORD];
            if self.lost_from.is_some() && of_session.contains(&note.info.note_type) {
                let text = block::read_stored(&*file, &path, note)?;
                sessions.push((note.info.note_type, text));
            }
            if note.info.note_type == format::NOTE_TOMBSTONES {
                let note = block::read_stored(&*file, &path, note)?;
                // What a newer writer may have put there is not for this one to obey.
                let (position, mut keys) = frame::parse_tombstones(&note).unwrap_or_default();
                let decided = self.decided_since(sealed.header.id, position.0, &keys)?;
                keys.retain(|key| !decided.contains(key));
                hidden.append(&mut keys);
            }
        }
        let artifacts = sealed.entries.iter().map(|entry| &entry.info);
        let artifacts: Vec<_> = artifacts
            .filter(|info| info.is_artifact())
            .map(|info| info.key)
            .collect();
        let BlockHeader {
            id, base_position, ..
        } = sealed.header;
        let decided = self.decided_since(id, base_position, &artifacts)?;
        let artifacts = artifacts.into_iter().collect();
        let sessions = sessions.iter().filter_map(|(kind, note): &(u32, Vec<u8>)| {
            self.untold(*kind, note, sealed.header.session, &artifacts)
        });
        let sessions: Vec<_> = sessions.collect();
        self.recovery.told_sessions += sessions.len() as u64;
        let authority = self.unlogged_authority(authority, &artifacts)?;
        let stale = sealed
            .entries
            .iter()
            .any(|entry| entry.info.is_artifact() && decided.contains(&entry.info.key));
        if stale {
            let rest = self.without(&*file, &path, &sealed, &decided)?;
            let Some(rest) = rest else {
                let _ = vfs.remove(&path);
                return Ok(());
            };
            sealed = rest;
        }
        let origin = if sealed.salvaged {
            let artifacts = sealed
                .entries
                .iter()
                .filter(|entry| entry.info.is_artifact());
            self.recovery.salvaged_blocks += 1;
            self.recovery.salvaged_artifacts += artifacts.count() as u64;
            format::ORIGIN_SALVAGED
        } else {
            self.recovery.relogged_blocks += 1;
            format::ORIGIN_RELOGGED
        };
        let hidden = hidden
            .chunks(TOMBSTONES_MAX)
            .map(|keys| state::tombstone_record(keys, sealed.header.id));
        self.log_sealed(
            &sealed,
            origin,
            hidden.chain(removed).chain(sessions).chain(authority),
        )?;
        if stale {
            // Should it stay, it is found again, with nothing left in it that counts.
            let _ = vfs.remove(&path);
        }
        Ok(())
    }

    /// Of `keys`, which a found block of this id names: those about which the log has said
    /// something from position `since` on, when the block was begun or the note in it
    /// written. A copy that was given up, or one whose removal did not last, would
    /// otherwise come back as news.
    fn decided_since(&self, id: BlockId, since: u64, keys: &[Key]) -> Result<HashSet<Key>> {
        // What is told again is told in the order of the blocks.
        let before = self.lost_from.unwrap_or(END).0;
        let mut decided = HashSet::new();
        let mut unsure = HashSet::new();
        {
            let view = self.handle.view();
            if since >= before.min(view.state.position().0) {
                return Ok(decided);
            }
            let merged = !view.state.segments().is_empty();
            for key in keys {
                let Some(entry) = view.index.newest(key)? else {
                    // A tombstone over nothing does not outlast a merge.
                    if merged {
                        unsure.insert(*key);
                    }
                    continue;
                };
                let block = view
                    .state
                    .block(entry.block)
                    .filter(|_| !entry.is_tombstone());
                // One that was itself found comes after its own time.
                let found_before = |origin| {
                    matches!(origin, format::ORIGIN_SALVAGED | format::ORIGIN_RELOGGED)
                        && entry.block < id
                };
                let at = since..before;
                if block.is_some_and(|of| at.contains(&of.position) && !found_before(of.origin)) {
                    decided.insert(*key);
                } else {
                    unsure.insert(*key);
                }
            }
        }
        if !unsure.is_empty() {
            let files = LogFiles::list(&*self.vfs)?;
            files.read(&*self.vfs, files.start(), END, &mut |record| {
                if (since..before).contains(&record.position.0)
                    && let Some(entries) = Level0::of_record(&record)
                {
                    decided.extend(entries.keys().filter(|key| unsure.contains(key)));
                }
                Ok(())
            })?;
        }
        Ok(decided)
    }

    /// A copy of a found block without the artifacts that are decided; `None` if
    /// nothing is left.
    fn without(
        &mut self,
        file: &dyn VfsFile,
        path: &str,
        sealed: &Sealed,
        decided: &HashSet<Key>,
    ) -> Result<Option<Sealed>> {
        let keep: Vec<_> = sealed
            .entries
            .iter()
            .filter(|entry| !entry.info.is_artifact() || !decided.contains(&entry.info.key))
            .copied()
            .collect();
        if keep.is_empty() {
            return Ok(None);
        }
        let header = BlockHeader {
            id: self.new_header()?.id,
            ..sealed.header
        };
        copy_frames(&*self.vfs, (file, path), header, &keep).map(Some)
    }

    /// What a note repeats of a removal and the log has not said.
    pub(crate) fn unsaid(&self, note: &[u8]) -> Option<NewRecord> {
        let removal = Removal::parse(note)?;
        let unsaid = self.handle.with_state(|state| removal.unsaid(state));
        unsaid.map(|removal| removal.record())
    }

    fn refresh_filters(&mut self) {
        for instance in self.handle.all() {
            let mut view = instance.view_mut();
            for shard in 0..view.state.params().shards {
                // A filter saves reads and nothing else: without one lookups still work.
                let _ = view.index.refresh_filters(&*instance.vfs, shard);
            }
        }
    }
}
