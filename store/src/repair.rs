//! Making again what can be made again.
//!
//! Opening a store for writing recovers what a crash left, without being asked. Repair
//! is for what a crash does not do: damaged caches, a damaged index, a log that has lost
//! records at its end.
//!
//! Invariants
//! - The log is only appended to, but for one that is damaged or has lost records, and only if that is accepted: then a new
//!   history begins where it can be read no further, and says so (`epoch`). No block is touched.
//! - Of instances that lie here and are written elsewhere only caches are touched.
//! - A cache is written only if it is missing or wrong, `state.bin` only if it then has
//!   the digest that its snapshot pins.
//!
//! Damaged blocks are not mended here: putting an artifact again heals it, as does
//! another copy of the store. A log that is damaged before its end is left as it is unless
//! that is accepted: readers go up to there.
//!
//! Crash: as for any writer; a cache is replaced whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::block;
use crate::current::{self, END, HINT_PATH, Hint};
use crate::error::{Error, Result};
use crate::filter::{self, filter_path};
use crate::format::{self, snapshot_payload as pp};
use crate::id::Digest;
use crate::index::{ShardHealth, read_file, replace_file};
use crate::instances::Instance;
use crate::log::{LogEnd, LogFiles, LogPlace, Record};
use crate::recover::Recovery;
pub use crate::reindex::Reindexed;
use crate::segment::{Segment, SegmentRef, segment_path};
use crate::snapshot;
use crate::state::State;
use crate::vfs::Vfs;
use crate::writer::{Context, StoreWriter, WriteOptions};

/// What a repair may do.
#[derive(Debug, Clone, Copy)]
pub struct RepairOptions {
    /// Rebuilds the index from log and blocks even if nothing is wrong with it that
    /// can be seen without reading all blocks.
    pub rebuild_index: bool,
    /// Goes on although the log is damaged or lacks records that it once had; all of it may be gone. Blocks that only those
    /// named are logged again; deletions, sessions and records of authority are told from the blocks' notes. What is lost for
    /// good: snapshots, and index entries that only those records held. Without this such a log is an error,
    /// [`Error::LogBroken`] or [`Error::LogTailLost`].
    pub accept_lost_tail: bool,
    /// Bytes of memory for rebuilding the index.
    pub index_memory_bytes: u64,
    /// As for any writer.
    pub write: WriteOptions,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self {
            rebuild_index: false,
            accept_lost_tail: false,
            index_memory_bytes: 128 << 20,
            write: WriteOptions::default(),
        }
    }
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What opening for writing found and mended.
    pub recovery: Recovery,
    /// Caches that were missing or wrong and are right now.
    pub rebuilt: Vec<String>,
    /// Files that belonged to nothing and are gone.
    pub removed: Vec<String>,
    /// The new index, if one was made.
    pub index: Option<Reindexed>,
    /// What could not be made again, and why.
    pub notes: Vec<String>,
    /// What is wrong with the log before its end, where a snapshot's state leads around it. Whoever reads it from its beginning, as
    /// those do who ask who vouches for the store, comes no further. Repair mends that only where a loss is accepted.
    pub log_damage: Option<String>,
}

/// Repairs what can be repaired without losing anything; see the module's page.
/// [`Error::LogBroken`] where the log is damaged before its end,
/// [`Error::LogTailLost`] where it has lost records, and that is not accepted.
pub fn repair(
    vfs: Arc<dyn Vfs>,
    context: Context,
    options: &RepairOptions,
) -> Result<RepairReport> {
    let before = invalid_caches(&*vfs);
    let accept = options.accept_lost_tail;
    let mut writer = match StoreWriter::open_with(vfs.clone(), context, options.write, accept) {
        Ok(writer) => writer,
        Err(Error::LogDamaged { what }) => return Err(unrepairable(&*vfs, what)),
        Err(error) => return Err(error),
    };
    let mut report = RepairReport {
        recovery: writer.recovery().clone(),
        ..RepairReport::default()
    };
    if options.rebuild_index || !index_is_whole(&writer) {
        let made = writer.reindex(options.index_memory_bytes)?;
        for (id, why) in &made.unreadable {
            let note = format!("block {id} is damaged; what is whole of it was indexed: {why}");
            report.notes.push(note);
        }
        report.index = Some(made);
    }
    let (own, others) = writer.handle().parts();
    mend_filters(own, &mut report)?;
    report.log_damage = mend_snapshots(own, &mut report)?;
    for other in others {
        mend_other(other, &mut report)?;
    }
    for problem in writer.handle().unopened() {
        let note = format!("{}: {}", problem.path, problem.what);
        report.notes.push(note);
    }
    writer.finish()?;
    let after = invalid_caches(&*vfs);
    let mended = before.into_iter().filter(|path| !after.contains(path));
    report.rebuilt.extend(mended);
    report.rebuilt.sort();
    report.rebuilt.dedup();
    Ok(report)
}

/// Says what of a store with a damaged log can still be reached.
fn unrepairable(vfs: &dyn Vfs, what: String) -> Error {
    let state = current::load(vfs).ok().map(|current| current.state);
    let named: BTreeSet<String> = state
        .iter()
        .flat_map(|state| state.blocks.values())
        .map(|info| block::sealed_path(&Digest(info.digest)))
        .collect();
    let (mut unnamed_blocks, mut unnamed_bytes) = (0, 0);
    for dir in vfs.list(block::SEALED_DIR).unwrap_or_default() {
        let dir = format!("{}/{}", block::SEALED_DIR, dir.name);
        for entry in vfs.list(&dir).unwrap_or_default() {
            if !named.contains(&format!("{dir}/{}", entry.name)) {
                unnamed_blocks += 1;
                unnamed_bytes += entry.metadata.len;
            }
        }
    }
    Error::LogBroken {
        what,
        readable: state.map(|state| state.position()).unwrap_or_default(),
        unnamed_blocks,
        unnamed_bytes,
    }
}

/// The hint and the filters that no reader would use, or that are missing.
fn invalid_caches(vfs: &dyn Vfs) -> Vec<String> {
    let mut invalid = Vec::new();
    if Hint::read(vfs).is_none() {
        invalid.push(HINT_PATH.to_owned());
    }
    for dir in vfs.list("index").unwrap_or_default() {
        let shard = dir.name.strip_prefix("shard-");
        let Some(shard) = shard.and_then(|hex| u32::from_str_radix(hex, 16).ok()) else {
            continue;
        };
        let path = filter_path(shard);
        let bytes = read_file(vfs, &path).unwrap_or_default();
        if filter::decode(shard, &bytes).is_none() {
            invalid.push(path);
        }
    }
    invalid
}

/// Whether every segment in force is as it must be.
fn index_is_whole(writer: &StoreWriter) -> bool {
    let view = writer.handle().view();
    let shards = view.state.params().shards;
    let known = (0..shards).all(|shard| view.index.health(shard) == ShardHealth::Whole);
    let segments = view.state.segments();
    known
        && segments
            .iter()
            .all(|segment| is_whole(&*writer.vfs, &view.state, segment))
}

/// Makes the caches of an instance that others write again. Its log is theirs, so nothing is appended to it, not even what
/// would name a new index.
fn mend_other(other: &Instance, report: &mut RepairReport) -> Result<()> {
    let path = |path: &str| format!("{}{path}", other.prefix);
    if Hint::read(&*other.vfs).is_none() && matches!(other.end, LogEnd::Clean) {
        let view = other.view();
        let snapshot = view.state.snapshots.last().map_or(0, |last| last.ordinal);
        let place = view.state.place();
        Hint { place, snapshot }
            .write(&*other.vfs)
            .map_err(|error| error.below(&other.prefix))?;
        report.rebuilt.push(path(HINT_PATH));
    }
    let whole = {
        let view = other.view();
        let mut segments = view.state.segments().into_iter();
        segments.all(|segment| is_whole(&*other.vfs, &view.state, &segment))
    };
    if !whole {
        report.notes.push(format!(
            "{}: its index is damaged and is read from its blocks instead; only where it is written can it be made again",
            other.prefix.trim_end_matches('/')
        ));
    }
    if let LogEnd::Damaged { what } = &other.end {
        report.notes.push(path(what));
    }
    mend_filters(other, report)?;
    mend_snapshots(other, report).map(drop)
}

/// Makes the filters answer for exactly the segments in force.
fn mend_filters(of: &Instance, report: &mut RepairReport) -> Result<()> {
    let vfs = &*of.vfs;
    let mut view = of.view_mut();
    let view = &mut *view;
    let shards = view.state.params().shards;
    for shard in 0..shards {
        let path = filter_path(shard);
        let told = format!("{}{path}", of.prefix);
        view.index.drop_false_filters(shard);
        if view.index.refresh_filters(vfs, shard)? {
            report.rebuilt.push(told);
        } else if view.state.segments_of(shard).is_empty() && vfs.metadata(&path).is_ok() {
            vfs.remove(&path).map_err(Error::io("remove", &told))?;
            report.removed.push(told);
        }
    }
    Ok(())
}

/// Makes what is missing or wrong in the snapshots' directories again, and removes
/// damaged segments that only snapshots pin: log and blocks say the same. Returns what is wrong with the log before its end.
fn mend_snapshots(of: &Instance, report: &mut RepairReport) -> Result<Option<String>> {
    let vfs = &*of.vfs;
    let files = LogFiles::list(vfs)?;
    let mut state: Option<State> = None;
    let mut end = files.start();
    let mut segments: BTreeMap<(u32, u32), SegmentRef> = BTreeMap::new();
    let (_, log_end) = files.read(vfs, files.start(), END, &mut |record| {
        let places = [
            end,
            LogPlace {
                name: record.place.0,
                offset: record.place.1,
                ..end
            },
        ];
        end = record.end();
        let Some(state) = &mut state else {
            state = Some(State::first(files.store_id(), end, &record)?);
            return Ok(());
        };
        let snapshot = record.record_type == format::RECORD_SNAPSHOT;
        if snapshot {
            mend_state(of, state, places, &record, report)?;
        }
        state.apply(&record)?;
        state.set_place(end);
        if record.record_type == format::RECORD_SEGMENTS {
            let named = state.segments().into_iter();
            segments.extend(named.map(|segment| ((segment.shard, segment.number), segment)));
        }
        if snapshot && let Some(info) = state.snapshots.last() {
            let dir = current::snapshot_dir(info.ordinal);
            for (name, text) in snapshot::render(state, info) {
                mend(of, &format!("{dir}/{name}"), text.as_bytes(), report)?;
            }
        }
        Ok(())
    })?;
    let view = of.view();
    for segment in view.state.segments() {
        segments.remove(&(segment.shard, segment.number));
    }
    for segment in segments.values() {
        let path = segment_path(segment.shard, segment.number);
        if vfs.metadata(&path).is_ok() && !is_whole(vfs, &view.state, segment) {
            vfs.remove(&path).map_err(Error::io("remove", &path))?;
            report.removed.push(format!("{}{path}", of.prefix));
        }
    }
    Ok(match log_end {
        LogEnd::Damaged { what } => Some(what),
        _ => None,
    })
}

/// Whether a segment is the one that the log names, byte by byte.
fn is_whole(vfs: &dyn Vfs, state: &State, segment: &SegmentRef) -> bool {
    let opened = Segment::open(vfs, state.store_id(), segment);
    let digest = opened.and_then(|opened| opened.digest());
    digest.is_ok_and(|digest| digest == segment.digest)
}

/// Writes the state before a snapshot's `record`, if that is the one that it pins.
/// The writer saw the end of the log at one of `places`.
fn mend_state(
    of: &Instance,
    state: &mut State,
    places: [LogPlace; 2],
    record: &Record,
    report: &mut RepairReport,
) -> Result<()> {
    if record.payload.len() < pp::LEN {
        return Ok(());
    }
    let vfs = &*of.vfs;
    let ordinal = pp::ORDINAL.get(&record.payload);
    let pinned = Digest(pp::STATE_DIGEST.array(&record.payload));
    let path = current::state_path(ordinal);
    let held = read_file(vfs, &path);
    if held.is_ok_and(|held| current::state_digest(&held) == pinned) {
        return Ok(());
    }
    let place = state.place();
    let made = places.into_iter().map(|place| {
        state.set_place(place);
        current::encode_state(state)
    });
    let made = made
        .collect::<Vec<_>>()
        .into_iter()
        .find(|bytes| current::state_digest(bytes) == pinned);
    state.set_place(place);
    let Some(made) = made else {
        report.notes.push(format!(
            "{}{path} cannot be made again: another version wrote it; the log is read instead",
            of.prefix
        ));
        return Ok(());
    };
    let dir = current::snapshot_dir(ordinal);
    vfs.create_dir(&dir).map_err(Error::io("create", &dir))?;
    mend(of, &path, &made, report)
}

/// Makes a cache file hold these bytes.
fn mend(of: &Instance, path: &str, bytes: &[u8], report: &mut RepairReport) -> Result<()> {
    if read_file(&*of.vfs, path).is_ok_and(|held| held == bytes) {
        return Ok(());
    }
    replace_file(&*of.vfs, path, bytes)?;
    report.rebuilt.push(format!("{}{path}", of.prefix));
    Ok(())
}
