//! The files that a log names: blocks, index segments, state files. Brought, checked, and only then given their names.
//!
//! Order of writes, of each file
//! 1. `tmp/ingest/…new`, sharing the bytes of the other store's file or holding a copy of them; synced
//! 2. that file is read back and checked: a block to the last byte, others by the digest that the log pins
//! 3. its name, durable
//!
//! Crash: up to step 3 a file that the next sync removes; from then on one that no log of ours names yet and that the next sync
//! finds.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::survey::Source;
use super::{Plan, SyncObserver, SyncProgress};
use crate::block::{self, Sealed};
use crate::current;
use crate::error::{Error, Result};
use crate::format;
use crate::id::{BlockId, Digest};
use crate::import::{bring, check_alone, check_lists};
use crate::index::replace_file;
use crate::instances::Instance;
use crate::segment::{Segment, SegmentRef, segment_path, shard_dir};
use crate::snapshot;
use crate::state::BlockInfo;
use crate::store::StoreHandle;
use crate::vfs::{Access, Vfs, VfsFile};

/// Most blocks that are brought at once. Each has one stream of reads and one of writes.
const WORKERS_MAX: usize = 4;
/// Where files are until they are checked.
const INGEST_DIR: &str = "tmp/ingest";
/// Bytes that are hashed at once.
const HASH_BYTES: usize = 1 << 20;

/// A file of the other store that is not what its log says, so that it is not taken.
#[derive(Debug)]
pub struct DamagedFile {
    /// The file there, relative to the instance.
    pub path: String,
    /// What is wrong.
    pub error: Error,
}

/// What was brought of one instance.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    pub(super) shared_bytes: u64,
    /// Blocks that our log named already and whose file was lost or short.
    pub(super) healed: u64,
    pub(super) damaged: Vec<DamagedFile>,
    /// Blocks with lists of parts, to be checked when all parts are here.
    pub(super) with_lists: Vec<BlockId>,
}

impl Brought {
    pub(super) fn join(&mut self, more: Brought) {
        self.blocks += more.blocks;
        self.bytes += more.bytes;
        self.shared_bytes += more.shared_bytes;
        self.healed += more.healed;
        self.damaged.extend(more.damaged);
        self.with_lists.extend(more.with_lists);
    }

    fn add(&mut self, len: u64, shared: bool) {
        self.bytes += len;
        if shared {
            self.shared_bytes += len;
        }
    }
}

/// Whose fault it is that a file could not be brought.
enum Failed {
    /// The other store's file is damaged, or cannot be read.
    Theirs(Error),
    /// Ours cannot be written, or not be read back.
    Ours(Error),
}

/// A block that is wanted.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) id: BlockId,
    pub(super) info: BlockInfo,
    /// Our log names it already.
    heals: bool,
}

/// Removes what an earlier sync left half done.
pub(super) fn clear_ingest(into: &dyn Vfs) {
    let _ = into.remove(&format!("{}.new", current::HINT_PATH));
    for entry in into.list(INGEST_DIR).unwrap_or_default() {
        // What stays is overwritten when its name comes up.
        let _ = into.remove(&format!("{INGEST_DIR}/{}", entry.name));
    }
}

/// The blocks that their log names and that are not here, or not whole, in the order of the log; and those that an earlier
/// sync brought and that have lists of parts.
pub(super) fn wanted(plan: &Plan, source: &Source) -> (Vec<Wanted>, Vec<BlockId>) {
    let into = &*plan.into;
    let known = plan.before.map_or(0, |head| head.position.0);
    let len_of = |path: &str| into.metadata(path).ok().map(|metadata| metadata.len);
    let mut blocks: Vec<_> = source.state.blocks.iter().collect();
    blocks.sort_by_key(|(_, info)| info.position);
    let mut seen = HashSet::new();
    let (mut wanted, mut with_lists) = (Vec::new(), Vec::new());
    for (id, info) in blocks {
        let id = BlockId(*id);
        let path = block::sealed_path(&Digest(info.digest));
        let heals = info.position < known;
        // It got this name after it was checked; until our log names it, see that it is still there.
        let whole = match heals {
            true => {
                len_of(&path) == Some(info.file_len)
                    || len_of(&block::open_path(id)) == Some(info.file_len)
            }
            false => {
                let sealed = into
                    .open(&path, Access::Read)
                    .map_err(Error::io("open", &path))
                    .and_then(|file| block::read_sealed(&*file, &path))
                    .ok()
                    .filter(|sealed| is_logged_so(sealed, info));
                // It was brought, and its lists may not have come to be checked.
                if sealed.as_ref().is_some_and(has_lists) {
                    with_lists.push(id);
                }
                sealed.is_some()
            }
        };
        if !whole && seen.insert(info.digest) {
            wanted.push(Wanted {
                id,
                info: *info,
                heals,
            });
        }
    }
    (wanted, with_lists)
}

fn has_lists(sealed: &Sealed) -> bool {
    sealed
        .entries
        .iter()
        .any(|entry| entry.info.is_artifact() && entry.info.encoding == format::ENCODING_CHUNKED)
}

/// Whether a block is as its record says.
fn is_logged_so(sealed: &Sealed, info: &BlockInfo) -> bool {
    let artifacts = sealed
        .entries
        .iter()
        .filter(|entry| entry.info.is_artifact());
    sealed.digest.0 == info.digest
        && sealed.file_len == info.file_len
        && sealed.entries.len() == info.frame_count as usize
        && artifacts.count() == info.artifact_count as usize
        && sealed.header.class == info.class
        && sealed.artifact_bytes() == info.artifact_bytes
}

/// Brings blocks. Those that are damaged there are told of, and the others are brought all the same; so is what comes before a
/// stop that was asked for.
pub(super) fn bring_blocks(
    plan: &Plan,
    wanted: &[Wanted],
    threads: usize,
    progress: &Progress,
) -> Result<Brought> {
    let next = AtomicUsize::new(0);
    let brought = Mutex::new(Brought::default());
    let failed = Mutex::new(None);
    let work = || {
        while let Some(one) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            if progress.observer.is_stopped() {
                return;
            }
            let done = bring_block(plan, one);
            let mut brought = lock(&brought);
            match done {
                Ok((sealed, shared)) => {
                    brought.add(sealed.file_len, shared);
                    brought.blocks += 1;
                    brought.healed += u64::from(one.heals);
                    if !one.heals && has_lists(&sealed) {
                        brought.with_lists.push(one.id);
                    }
                }
                Err(Failed::Theirs(error)) if still_there(&*plan.from) => {
                    let path = block::sealed_path(&Digest(one.info.digest));
                    brought.damaged.push(DamagedFile { path, error });
                }
                Err(Failed::Theirs(error) | Failed::Ours(error)) => {
                    next.store(wanted.len(), Ordering::Relaxed);
                    lock(&failed).get_or_insert(error);
                    return;
                }
            }
            progress.add(one.info.file_len);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, WORKERS_MAX).min(wanted.len().max(1)) {
            scope.spawn(work);
        }
        work();
    });
    let take = |failed: Mutex<Option<Error>>| {
        failed
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    };
    match take(failed) {
        Some(error) => Err(error),
        None => Ok(brought
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Whether the other store is there at all: a disk that was pulled out damages nothing.
fn still_there(from: &dyn Vfs) -> bool {
    from.list(crate::log::LOG_DIR).is_ok()
}

/// How far the bringing is.
pub(super) struct Progress<'a> {
    observer: &'a dyn SyncObserver,
    done: Mutex<SyncProgress>,
}

impl<'a> Progress<'a> {
    pub(super) fn of(observer: &'a dyn SyncObserver, blocks: u64, bytes: u64) -> Self {
        let done = SyncProgress {
            blocks,
            bytes,
            ..SyncProgress::default()
        };
        observer.progress(&done);
        Self {
            observer,
            done: Mutex::new(done),
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.observer.is_stopped()
    }

    fn add(&self, bytes: u64) {
        let mut done = lock(&self.done);
        done.blocks_done += 1;
        done.bytes_done = done.bytes_done.saturating_add(bytes);
        self.observer.progress(&done);
    }
}

/// Steps 1 to 3 for a block.
fn bring_block(plan: &Plan, wanted: &Wanted) -> Result<(Sealed, bool), Failed> {
    let digest = Digest(wanted.info.digest);
    let ingest = format!("{INGEST_DIR}/{digest}.new");
    let done = (|| {
        let (source, path) = open_theirs(&*plan.from, wanted).map_err(Failed::Theirs)?;
        let (file, shared) = copy(&*source, &path, &*plan.into, &ingest)?;
        let sealed = check_alone(&*file, &path, digest, 1).map_err(|error| match error {
            Error::Damaged { .. } | Error::NewerFormat { .. } | Error::UnknownFlags { .. } => {
                Failed::Theirs(error)
            }
            error => Failed::Ours(error),
        })?;
        if !is_logged_so(&sealed, &wanted.info) {
            let what = "not as its record says";
            return Err(Failed::Theirs(Error::damaged(&path, 0, what)));
        }
        block::publish(&*plan.into, &ingest, &digest).map_err(Failed::Ours)?;
        Ok((sealed, shared))
    })();
    if done.is_err() {
        let _ = plan.into.remove(&ingest);
    }
    done
}

/// The other store's file of a block: at its sealed name, or where a rename did not survive a power cut.
fn open_theirs(from: &dyn Vfs, wanted: &Wanted) -> Result<(Box<dyn VfsFile>, String)> {
    let path = block::sealed_path(&Digest(wanted.info.digest));
    let (file, path) = match from.open(&path, Access::Read) {
        Ok(file) => (file, path),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let open = block::open_path(wanted.id);
            match from.open(&open, Access::Read) {
                Ok(file) => (file, open),
                Err(_) => return Err(Error::damaged(&path, 0, "the file is missing")),
            }
        }
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let len = file.len().map_err(Error::io("read", &path))?;
    if len != wanted.info.file_len {
        // Before it is copied: it may be of any length.
        let what = format!("{len} bytes long, the log says {}", wanted.info.file_len);
        return Err(Error::damaged(&path, len, what));
    }
    Ok((file, path))
}

/// Step 1: the copy, durable, and whether it shares the bytes.
fn copy(
    source: &dyn VfsFile,
    path: &str,
    into: &dyn Vfs,
    ingest: &str,
) -> Result<(Box<dyn VfsFile>, bool), Failed> {
    let _ = into.remove(ingest);
    let file = into
        .create_exclusive(ingest)
        .map_err(|error| Failed::Ours(Error::io("create", ingest)(error)))?;
    let shared = bring(source, path, &*file, ingest).map_err(|error| match &error {
        Error::Io { action: "read", .. } | Error::Damaged { .. } => Failed::Theirs(error),
        _ => Failed::Ours(error),
    })?;
    file.sync()
        .map_err(|error| Failed::Ours(Error::io("sync", ingest)(error)))?;
    Ok((file, shared))
}

/// Brings the index segments that their log names now and the state files of its snapshots, where they are not here.
pub(super) fn bring_caches(plan: &Plan, source: &Source, brought: &mut Brought) -> Result<()> {
    for segment in source.state.segments() {
        if is_here(plan, source, &segment) {
            continue;
        }
        let (path, dir) = (
            segment_path(segment.shard, segment.number),
            shard_dir(segment.shard),
        );
        let pinned = (format::CONTEXT_SEGMENT, segment.digest);
        match bring_pinned(plan, &path, &["index", &dir], pinned) {
            Ok((len, shared)) => brought.add(len, shared),
            Err(Failed::Theirs(error)) if still_there(&*plan.from) => {
                brought.damaged.push(DamagedFile { path, error });
            }
            Err(Failed::Theirs(error) | Failed::Ours(error)) => return Err(error),
        }
    }
    let known = plan.before.map_or(0, |head| head.position.0);
    for state in &source.vouched_states {
        let path = current::state_path(state.ordinal);
        let dir = current::snapshot_dir(state.ordinal);
        if state.position < known && plan.into.metadata(&path).is_ok() {
            continue;
        }
        let pinned = (format::CONTEXT_STATE, state.digest);
        match bring_pinned(plan, &path, &["snapshots", &dir], pinned) {
            Ok((len, shared)) => brought.add(len, shared),
            // Without it the log is read from its beginning.
            Err(Failed::Theirs(_)) if still_there(&*plan.from) => {}
            Err(Failed::Theirs(error) | Failed::Ours(error)) => return Err(error),
        }
    }
    Ok(())
}

/// What snapshots look like to people, and the filters of the index: made here, as nobody could tell whether theirs are right.
pub(super) fn make_caches(plan: &Plan, instance: &Instance) -> Result<()> {
    let known = plan.before.map_or(0, |head| head.position.0);
    let into = &*plan.into;
    let mut view = instance
        .view
        .write()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let view = &mut *view;
    for info in &view.state.snapshots {
        if info.position < known {
            continue;
        }
        let dir = current::snapshot_dir(info.ordinal);
        into.create_dir(&dir).map_err(Error::io("create", &dir))?;
        for (name, text) in snapshot::render(&view.state, info) {
            replace_file(into, &format!("{dir}/{name}"), text.as_bytes())?;
        }
    }
    into.sync_dir("snapshots")
        .map_err(Error::io("sync", "snapshots"))?;
    for shard in 0..view.state.params().shards {
        view.index.refresh_filters(into, shard)?;
    }
    Ok(())
}

/// Whether a segment is here already: named by our log before, or left whole by an earlier sync.
fn is_here(plan: &Plan, source: &Source, segment: &SegmentRef) -> bool {
    let opened = Segment::open(&*plan.into, source.state.store_id(), segment);
    let known = source
        .known_segments
        .contains(&(segment.shard, segment.number));
    opened.is_ok_and(|opened| known || opened.digest().is_ok_and(|digest| digest == segment.digest))
}

/// Steps 1 to 3 for a file that the log pins by its digest. `dirs` are those that it lies in, parents first.
fn bring_pinned(
    plan: &Plan,
    path: &str,
    dirs: &[&str],
    (context, digest): (&str, Digest),
) -> Result<(u64, bool), Failed> {
    let into = &*plan.into;
    let ours = |action, path: &str| {
        let path = path.to_owned();
        move |error| Failed::Ours(Error::io(action, path)(error))
    };
    let ingest = format!("{INGEST_DIR}/{digest}.new");
    let done = (|| {
        let source = plan
            .from
            .open(path, Access::Read)
            .map_err(|error| Failed::Theirs(Error::io("open", path)(error)))?;
        let (file, shared) = copy(&*source, path, into, &ingest)?;
        let (found, len) = digest_of(&*file, &ingest, context).map_err(Failed::Ours)?;
        if found != digest {
            let what = "not the file that the log pins";
            return Err(Failed::Theirs(Error::damaged(path, 0, what)));
        }
        let mut parent = "";
        for dir in dirs {
            into.create_dir(dir).map_err(ours("create", dir))?;
            into.sync_dir(parent).map_err(ours("sync", parent))?;
            parent = dir;
        }
        into.rename(&ingest, path)
            .map_err(ours("rename", &ingest))?;
        into.sync_dir(parent).map_err(ours("sync", parent))?;
        Ok((len, shared))
    })();
    if done.is_err() {
        let _ = into.remove(&ingest);
    }
    done
}

fn digest_of(file: &dyn VfsFile, path: &str, context: &str) -> Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    let mut buf = vec![0; HASH_BYTES];
    let mut at = 0;
    loop {
        let got = file
            .read_at(at, &mut buf)
            .map_err(Error::io("read", path))?;
        if got == 0 {
            return Ok((Digest(*hasher.finalize().as_bytes()), at));
        }
        hasher.update(&buf[..got]);
        at += got as u64;
    }
}

/// Checks the keys of lists in the blocks that were brought, now that all parts are here. A block with one that does not name
/// its bytes is removed again. Where other files are missing, so may parts be, which is not the list's fault.
pub(super) fn check_all_lists(
    plan: &Plan,
    source: &Source,
    brought: &mut Brought,
    store: &StoreHandle,
) -> Result<()> {
    let some_missing = !brought.damaged.is_empty();
    for id in std::mem::take(&mut brought.with_lists) {
        let Some(info) = source.state.block(id) else {
            continue;
        };
        let path = block::sealed_path(&Digest(info.digest));
        let file = plan
            .into
            .open(&path, Access::Read)
            .map_err(Error::io("open", &path))?;
        let sealed = block::read_sealed(&*file, &path)?;
        match check_lists(&*file, &path, &sealed, store, some_missing) {
            Ok(()) => {}
            Err(error @ Error::Damaged { .. }) => {
                plan.into
                    .remove(&path)
                    .map_err(Error::io("remove", &path))?;
                brought.damaged.push(DamagedFile { path, error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
