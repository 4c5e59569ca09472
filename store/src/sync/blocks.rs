//! The blocks that a log names. Brought, checked, and only then given their names.
//!
//! With [`SyncOptions::verify`] those that are here are read first, to the last byte, and brought again where they are not what the log
//! says.
//!
//! Order of writes, of each block
//! 1. `tmp/ingest/…new`, sharing the bytes of the other store's file or holding a copy of them; synced
//! 2. that file is read back and checked to the last byte; one that is to replace a damaged file, from the medium
//! 3. its name, durable: by one rename, over the damaged file where there is one
//!
//! Crash: up to step 3 a file that the next sync removes, and what was damaged here is as it was; from then on one that our log names
//! already, or none yet, and that the next sync finds. At no moment is there neither: a damaged file still has frames that can be
//! read, so it goes only when a whole one takes its place, and stays where the other store's is damaged as well. Where its name
//! cannot be taken, that is told, and the other files are healed all the same.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::survey::Source;
use super::{Plan, Side, SyncObserver, SyncOptions, SyncProgress};
use crate::block::{self, Sealed};
use crate::current;
use crate::error::{Error, Result};
use crate::format;
use crate::id::{BlockId, Digest};
use crate::import::{bring, check_alone, check_lists};
use crate::init::ensure_dirs;
use crate::state::BlockInfo;
use crate::store::StoreHandle;
use crate::vfs::{Access, Vfs, VfsFile};

/// Most blocks that are brought at once. Each has one stream of reads and one of writes.
const WORKERS_MAX: usize = 4;
/// Where files are until they are checked.
pub(super) const INGEST_DIR: &str = "tmp/ingest";

/// A file that is not what its log says, and that no whole one came for.
#[derive(Debug)]
pub struct DamagedFile {
    /// The file, relative to the instance.
    pub path: String,
    /// Why none came: theirs is damaged, or theirs is whole and cannot take the place of ours.
    pub side: Side,
    /// What is wrong there.
    pub error: Error,
    /// What is wrong with ours, where our log names the file already. It is left as it is.
    pub here: Option<Error>,
}

/// A file of ours that was not what our log says, and is whole again.
#[derive(Debug)]
pub struct HealedFile {
    /// The file, relative to the instance.
    pub path: String,
    /// What was wrong.
    pub was: Error,
}

/// What was brought of one instance.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    pub(super) shared_bytes: u64,
    /// Blocks that our log named already and whose file was lost or damaged.
    pub(super) healed: u64,
    /// Those, and the other files of which that is true.
    pub(super) healed_files: Vec<HealedFile>,
    /// Blocks of ours that were read to the last byte, or to where they are damaged.
    pub(super) verified: u64,
    pub(super) verified_bytes: u64,
    /// Digests of blocks that are whole here: they were read, or brought.
    pub(super) whole: HashSet<[u8; 32]>,
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
        self.healed_files.extend(more.healed_files);
        self.verified += more.verified;
        self.verified_bytes += more.verified_bytes;
        self.whole.extend(more.whole);
        self.damaged.extend(more.damaged);
        self.with_lists.extend(more.with_lists);
    }

    pub(super) fn add(&mut self, len: u64, shared: bool) {
        self.bytes += len;
        if shared {
            self.shared_bytes += len;
        }
    }

    fn see(&mut self, one: &Wanted, done: Done) {
        let digest = one.info.digest;
        if one.read {
            self.verified += 1;
            self.verified_bytes += one.info.file_len;
        }
        match done {
            Done::Whole { has_lists } => {
                self.whole.insert(digest);
                if !one.heals && has_lists {
                    self.with_lists.push(one.id);
                }
            }
            Done::Brought {
                has_lists,
                shared,
                was,
            } => {
                self.whole.insert(digest);
                self.add(one.info.file_len, shared);
                self.blocks += 1;
                if let Some(was) = was.filter(|_| one.heals) {
                    self.healed += 1;
                    let path = block::sealed_path(&Digest(digest));
                    self.healed_files.push(HealedFile { path, was });
                }
                if !one.heals && has_lists {
                    self.with_lists.push(one.id);
                }
            }
            Done::Damaged { side, error, was } => self.damaged.push(DamagedFile {
                path: block::sealed_path(&Digest(digest)),
                side,
                error,
                here: was.filter(|_| one.heals),
            }),
        }
    }
}

/// What became of a block.
enum Done {
    /// Ours is whole.
    Whole { has_lists: bool },
    /// It came, or would.
    Brought {
        has_lists: bool,
        shared: bool,
        /// What was wrong with ours.
        was: Option<Error>,
    },
    /// Theirs is damaged, or cannot take the place of ours.
    Damaged {
        side: Side,
        error: Error,
        /// What is wrong with ours.
        was: Option<Error>,
    },
}

/// Whose fault it is that a file could not be brought.
pub(super) enum Failed {
    /// The other store's file is damaged, or cannot be read.
    Theirs(Error),
    /// Ours cannot be written, or not be read back.
    Ours(Error),
    /// A whole one is here and cannot get its name: another thing has it, or its directory is damaged.
    Name(Error),
}

impl Failed {
    /// For a failure to give a whole file its name.
    pub(super) fn name(error: Error) -> Self {
        match error.is_full() {
            true => Self::Ours(error),
            false => Self::Name(error),
        }
    }
}

/// A block that is wanted, or that is to be read.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) id: BlockId,
    pub(super) info: BlockInfo,
    /// Our log names it already.
    heals: bool,
    /// A file of it is here that seems whole: it is wanted only if reading it says otherwise.
    pub(super) read: bool,
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
/// sync brought and that have lists of parts. With `verify` all that are here are to be read, but for those that are known to be `whole`.
pub(super) fn wanted(
    plan: &Plan,
    source: &Source,
    verify: bool,
    whole: &HashSet<[u8; 32]>,
) -> (Vec<Wanted>, Vec<BlockId>) {
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
        let read = verify && !whole.contains(&info.digest);
        // It got this name after it was checked; until our log names it, see that it is still there.
        let seems_whole = match heals {
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
                if !read && sealed.as_ref().is_some_and(has_lists) {
                    with_lists.push(id);
                }
                sealed.is_some()
            }
        };
        if (read || !seems_whole) && seen.insert(info.digest) {
            wanted.push(Wanted {
                id,
                info: *info,
                heals,
                read: seems_whole,
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

/// Brings blocks, and reads those that are to be read first. Those that are damaged there are told of, and the others are brought
/// all the same; so is what comes before a stop that was asked for. With [`SyncOptions::dry_run`] it is only looked what would come: of
/// theirs only what is to replace a file of ours is read, and that only if ours were to be read, too.
pub(super) fn bring_blocks(
    plan: &Plan,
    wanted: &[Wanted],
    options: &SyncOptions,
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
            match see_to(plan, one, options, progress) {
                Ok(done) => lock(&brought).see(one, done),
                Err(error) => {
                    next.store(wanted.len(), Ordering::Relaxed);
                    lock(&failed).get_or_insert(error);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options
            .threads
            .clamp(1, WORKERS_MAX)
            .min(wanted.len().max(1))
        {
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

/// Reads ours, if it is to be read, and brings theirs, if it is wanted then.
fn see_to(plan: &Plan, one: &Wanted, options: &SyncOptions, progress: &Progress) -> Result<Done> {
    let mut was = None;
    if one.heals || one.read {
        match check_ours(plan, one, progress) {
            Ok(sealed) => {
                let has_lists = has_lists(&sealed);
                return Ok(Done::Whole { has_lists });
            }
            Err(error) if has_vanished(&*plan.into, &error) => return Err(error),
            Err(error) => was = Some(error),
        }
    }
    let brought = match options.dry_run {
        false => {
            progress.want(one);
            let brought = bring_block(plan, one, was.is_some());
            progress.add(one.info.file_len);
            brought.map(|(sealed, shared)| (has_lists(&sealed), shared))
        }
        true if options.verify && was.is_some() => match check_theirs(plan, one) {
            Ok(()) => Ok((false, false)),
            Err(error) => Err(Failed::Theirs(error)),
        },
        true => Ok((false, false)),
    };
    match brought {
        Ok((has_lists, shared)) => Ok(Done::Brought {
            has_lists,
            shared,
            was,
        }),
        Err(Failed::Theirs(error)) if still_there(&*plan.from) => {
            let side = Side::There;
            Ok(Done::Damaged { side, error, was })
        }
        Err(Failed::Name(error)) if one.heals && !has_vanished(&*plan.into, &error) => {
            let side = Side::Here;
            Ok(Done::Damaged { side, error, was })
        }
        Err(Failed::Theirs(error) | Failed::Ours(error) | Failed::Name(error)) => Err(error),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Whether the other store is there at all: a disk that was pulled out damages nothing.
pub(super) fn still_there(from: &dyn Vfs) -> bool {
    from.list(crate::log::LOG_DIR).is_ok()
}

/// Whether an error is that our own store is not there any more.
pub(super) fn has_vanished(into: &dyn Vfs, error: &Error) -> bool {
    matches!(error, Error::Io { .. }) && into.list(block::SEALED_DIR).is_err()
}

/// How far the bringing is.
pub(super) struct Progress<'a> {
    observer: &'a dyn SyncObserver,
    done: Mutex<SyncProgress>,
}

impl<'a> Progress<'a> {
    /// Of bringing and reading blocks of which `wanted` are known to be wanted, or to be read.
    pub(super) fn of<'w>(
        observer: &'a dyn SyncObserver,
        wanted: impl Iterator<Item = &'w Wanted>,
        dry_run: bool,
    ) -> Self {
        let mut done = SyncProgress::default();
        for one in wanted {
            // A log may say anything of them.
            if one.read {
                done.verify_bytes = done.verify_bytes.saturating_add(one.info.file_len);
            } else if !dry_run {
                done.blocks += 1;
                done.bytes = done.bytes.saturating_add(one.info.file_len);
            }
        }
        if done != SyncProgress::default() {
            observer.progress(&done);
        }
        Self {
            observer,
            done: Mutex::new(done),
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.observer.is_stopped()
    }

    fn tell(&self, change: impl FnOnce(&mut SyncProgress)) {
        let mut done = lock(&self.done);
        change(&mut done);
        self.observer.progress(&done);
    }

    /// One that was read and is wanted.
    fn want(&self, one: &Wanted) {
        if one.read {
            self.tell(|done| {
                done.blocks += 1;
                done.bytes = done.bytes.saturating_add(one.info.file_len);
            });
        }
    }

    fn add(&self, bytes: u64) {
        self.tell(|done| {
            done.blocks_done += 1;
            done.bytes_done = done.bytes_done.saturating_add(bytes);
        });
    }

    fn read(&self, bytes: u64) {
        if bytes > 0 {
            self.tell(|done| done.verified_bytes = done.verified_bytes.saturating_add(bytes));
        }
    }
}

/// Reads our file of a block to its last byte.
fn check_ours(plan: &Plan, one: &Wanted, progress: &Progress) -> Result<Sealed> {
    let left = AtomicU64::new(if one.read { one.info.file_len } else { 0 });
    let advance = |bytes: u64| {
        let less = |left: u64| Some(left.saturating_sub(bytes));
        let (ok, read) = (Ordering::Relaxed, Ordering::Relaxed);
        let before = left.fetch_update(ok, read, less).unwrap_or_default();
        progress.read(before.min(bytes));
    };
    let checked = check_there(&*plan.into, one, &advance);
    // What comes behind damage is not read.
    progress.read(left.into_inner());
    checked
}

/// Reads their file of a block to its last byte.
fn check_theirs(plan: &Plan, one: &Wanted) -> Result<()> {
    check_there(&*plan.from, one, &|_| {}).map(drop)
}

fn check_there(vfs: &dyn Vfs, one: &Wanted, advance: &(dyn Fn(u64) + Sync)) -> Result<Sealed> {
    let (file, path) = open(vfs, one)?;
    check_file(&*file, &path, one, advance)
}

/// Whether a file is the block to its last byte, and as its record says.
fn check_file(
    file: &dyn VfsFile,
    path: &str,
    one: &Wanted,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Sealed> {
    let sealed = check_alone(file, path, Digest(one.info.digest), 1, advance)?;
    match is_logged_so(&sealed, &one.info) {
        true => Ok(sealed),
        false => Err(Error::damaged(path, 0, "not as its record says")),
    }
}

/// Steps 1 to 3 for a block, which `replaces` a damaged file of ours, or comes anew.
fn bring_block(plan: &Plan, wanted: &Wanted, replaces: bool) -> Result<(Sealed, bool), Failed> {
    let digest = Digest(wanted.info.digest);
    let ingest = format!("{INGEST_DIR}/{digest}.new");
    let done = (|| {
        let (source, path) = open(&*plan.from, wanted).map_err(Failed::Theirs)?;
        if replaces {
            ensure_dirs(&*plan.into).map_err(Failed::Ours)?;
        }
        let (file, shared) = copy(&*source, &path, &*plan.into, &ingest)?;
        if replaces {
            // A medium that lets files rot is asked for what it has, not the page cache.
            file.settle()
                .map_err(|error| Failed::Ours(Error::io("sync", &ingest)(error)))?;
        }
        let sealed = check_file(&*file, &path, wanted, &|_| {}).map_err(|error| match error {
            Error::Damaged { .. } | Error::NewerFormat { .. } | Error::UnknownFlags { .. } => {
                match check_file(&*source, &path, wanted, &|_| {}) {
                    // It is whole there: our medium does not keep what it is given.
                    Ok(_) => Failed::Ours(Error::Io {
                        action: "read back what was written to",
                        path: ingest.clone(),
                        source: io::Error::other(error.to_string()),
                    }),
                    Err(_) => Failed::Theirs(error),
                }
            }
            error => Failed::Ours(error),
        })?;
        let open = block::open_path(wanted.id);
        let into = &*plan.into;
        if replaces && into.metadata(&open).is_ok() && !has_sealed_name(into, &digest) {
            // A rename did not survive a power cut, and the next writer does it again: what it moves is to be whole.
            into.rename(&ingest, &open)
                .map_err(|error| Failed::Ours(Error::io("rename", &ingest)(error)))?;
            into.sync_dir(block::OPEN_DIR)
                .map_err(|error| Failed::Ours(Error::io("sync", block::OPEN_DIR)(error)))?;
        } else {
            block::publish(into, &ingest, &digest).map_err(Failed::name)?;
        }
        Ok((sealed, shared))
    })();
    if done.is_err() {
        let _ = plan.into.remove(&ingest);
    }
    done
}

fn has_sealed_name(into: &dyn Vfs, digest: &Digest) -> bool {
    into.metadata(&block::sealed_path(digest)).is_ok()
}

/// The file of a block in either store: at its sealed name, or where a rename did not survive a power cut.
fn open(vfs: &dyn Vfs, wanted: &Wanted) -> Result<(Box<dyn VfsFile>, String)> {
    let path = block::sealed_path(&Digest(wanted.info.digest));
    let (file, path) = match vfs.open(&path, Access::Read) {
        Ok(file) => (file, path),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let open = block::open_path(wanted.id);
            match vfs.open(&open, Access::Read) {
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
pub(super) fn copy(
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

/// Checks the keys of lists in the blocks that were brought, now that all parts are here. A block with one that does not name
/// its bytes is removed again, unless our log named it before: a log that names one block twice takes nothing from us. Where other files
/// are missing, so may parts be, which is not the list's fault.
pub(super) fn check_all_lists(
    plan: &Plan,
    source: &Source,
    brought: &mut Brought,
    store: &StoreHandle,
) -> Result<()> {
    let some_missing = !brought.damaged.is_empty();
    let before = plan.before.map_or(0, |head| head.position.0);
    let is_ours = |digest: &[u8; 32]| {
        let mut named = source.state.blocks.values();
        named.any(|info| info.digest == *digest && info.position < before)
    };
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
                if !is_ours(&info.digest) {
                    plan.into
                        .remove(&path)
                        .map_err(Error::io("remove", &path))?;
                }
                brought.damaged.push(DamagedFile {
                    path,
                    side: Side::There,
                    error,
                    here: None,
                });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
