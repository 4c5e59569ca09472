//! Reading every byte of a store and telling what is not as it must be.
//!
//! Invariants
//! - Nothing is written, no lock is taken: it works on a read-only mount and while
//!   somebody writes. What is written meanwhile is not looked at.
//! - It stops at nothing. Damage is a result; an error is only what leaves nothing to
//!   look at: no store, or one of a newer format.
//! - Nothing that segments, filters, hints or snapshots say is trusted: the log is
//!   read from position 0, and what is derived from it is compared with it.
//! - Memory does not grow with the store, but for the damage found in it.
//! - Every instance is looked at by itself; only parts of artifacts may lie with another one.
//!
//! Not looked at, because their bytes mean nothing: `lock`, `ballast`, `tmp/`, blocks
//! that are still open, what lies behind the valid part of a log file.

mod blocks;
mod frames;
mod index;
mod log;
mod names;
mod segments;
mod snapshots;
mod tree;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::format::Field;
use crate::id::Key;
use crate::instances::{self, Instance, is_beyond};
use crate::log::LogEnd;
use crate::store::StoreHandle;
use crate::vfs::Vfs;

/// Each holds a table of contents, up to 12 MiB with what it was read from, and its window.
const THREADS_MAX: usize = 8;

/// How thoroughly to look, and with what.
#[derive(Debug, Clone, Copy)]
pub struct VerifyOptions {
    /// Leaves out the frames: of each block only header, table of contents and
    /// trailer are read, and no tree is walked.
    pub quick: bool,
    /// Threads that read blocks; at least one and at most 8 are used.
    pub threads: usize,
    /// Bytes of memory for the comparison of the index with the blocks. With less,
    /// the tables of contents are read more often.
    pub index_memory_bytes: u64,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            quick: false,
            threads: 2,
            index_memory_bytes: 128 << 20,
        }
    }
}

/// Something in a store that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, relative to the store.
    pub file: String,
    /// Bytes from its start, where that says anything.
    pub offset: Option<u64>,
    /// What is wrong, as a clause.
    pub what: String,
    /// Whether the file is a cache: nothing is lost, `repair` makes it again.
    pub cache: bool,
    /// Artifacts that cannot be read because of it, as far as they are known by name.
    pub keys: Vec<Key>,
}

/// What `verify` found. Without damage the store is whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Everything that is not as it must be, by file and offset.
    pub damage: Vec<Damage>,
    /// What is as it should not be, though nothing is lost by it: blocks that mix small and
    /// large artifacts.
    pub warnings: Vec<String>,
    /// What is worth knowing but harmless: leftovers, missing caches.
    pub notes: Vec<String>,
    /// How much was looked at.
    pub counts: VerifyCounts,
}

impl VerifyReport {
    /// Whether everything is as it must be.
    pub fn ok(&self) -> bool {
        self.damage.is_empty()
    }

    /// Whether all damage is to caches, so that no data and no truth is affected.
    pub fn only_caches(&self) -> bool {
        self.damage.iter().all(|damage| damage.cache)
    }
}

/// How much `verify` looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyCounts {
    /// Bytes read.
    pub bytes: u64,
    /// Files of the log.
    pub log_files: u64,
    /// Records of the log.
    pub records: u64,
    /// Sealed blocks.
    pub blocks: u64,
    /// Frames whose bytes were checked; 0 if `quick`.
    pub frames: u64,
    /// Artifacts in the blocks, older copies included.
    pub artifacts: u64,
    /// Index segments.
    pub segments: u64,
    /// Index records compared with the blocks.
    pub index_records: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Tree nodes and chunk lists followed to their parts; 0 if `quick`.
    pub trees: u64,
}

/// Told how `verify` gets on; from several threads at once.
pub trait VerifyObserver: Sync {
    /// `done` of `total` bytes have been looked at. The total may grow.
    fn progress(&self, done_bytes: u64, total_bytes: u64) {
        let _ = (done_bytes, total_bytes);
    }
    /// Damage was found.
    fn damaged(&self, damage: &Damage) {
        let _ = damage;
    }
}

/// Hears nothing.
impl VerifyObserver for () {}

/// Reads every byte of a store and reports everything that is wrong with it.
/// [`Error::NotAStore`] where there is none; [`Error::NewerFormat`],
/// [`Error::UnknownFlags`], [`Error::UnknownCritical`] for one that this program
/// cannot judge.
pub fn verify(
    vfs: Arc<dyn Vfs>,
    options: &VerifyOptions,
    observer: &dyn VerifyObserver,
) -> Result<VerifyReport> {
    let found = Found::default();
    let top = Run {
        vfs: &*vfs,
        prefix: "",
        options,
        observer,
        found: &found,
    };
    let listed = instances::list(&vfs)?;
    for problem in &listed.problems {
        top.damaged(&problem.path, None, &problem.what);
    }
    for id in &listed.unfinished {
        top.note(format!(
            "{} holds no log: its creation, or a sync, was cut short",
            instances::instance_dir(id)
        ));
    }
    // What cannot be opened is told of by its own run.
    let mut opened = match listed.ids.is_empty() {
        true => Vec::new(),
        false => instances::open_others(&vfs)?.0,
    };
    if !opened.is_empty()
        && let Ok(primary) = Instance::open(vfs.clone(), String::new())
    {
        opened.push(Arc::new(primary));
    }
    opened.sort_by_key(|instance| instance.view().state.store_id());
    verify_one(&top, vfs.clone(), &opened)?;
    for id in &listed.ids {
        let files = instances::files_of(&vfs, id)?;
        let prefix = format!("{}/", instances::instance_dir(id));
        let run = Run {
            vfs: &*files,
            prefix: &prefix,
            ..top
        };
        match verify_one(&run, files.clone(), &opened) {
            Err(Error::NotAStore) => run.note("its creation was cut short; it holds nothing"),
            verified => verified?,
        }
    }
    Ok(found.into_report())
}

/// Verifies one instance. Parts of what is in it may lie with the `others`, itself among them.
fn verify_one(run: &Run, vfs: Arc<dyn Vfs>, others: &[Arc<Instance>]) -> Result<()> {
    let log = log::check(run)?;
    let jobs = blocks::find(run, log.state.as_ref());
    let mut index = index::Findings::default();
    if let Some(state) = &log.state {
        let whole = segments::check(run, &log, state);
        index = index::check(run, &log, state, &whole)?;
    }
    let handle = match log.state {
        Some(state) => {
            let id = state.store_id();
            match Instance::of_state(vfs, run.prefix.to_owned(), state, LogEnd::Clean) {
                Err(error) if is_beyond(&error) => return Err(error),
                Ok(own) => {
                    let others = others.iter();
                    let others = others.filter(|other| other.view().state.store_id() != id);
                    let others = others.cloned().collect();
                    Some(StoreHandle::union(Arc::new(own), others, Vec::new()))
                }
                // It knows the log already, and what it misses of the index it notes.
                Err(_) => None,
            }
        }
        None => None,
    };
    blocks::check(run, &jobs, &index, handle.as_ref());
    if let Some(handle) = handle.filter(|_| !run.options.quick) {
        tree::check(run, &handle, index.roots);
    }
    names::check(run);
    Ok(())
}

/// What was found so far, in all instances.
#[derive(Default)]
struct Found {
    damage: Mutex<Vec<Damage>>,
    warnings: Mutex<Vec<String>>,
    notes: Mutex<Vec<String>>,
    counts: Mutex<VerifyCounts>,
    done: AtomicU64,
    total: AtomicU64,
}

/// One run over one instance.
#[derive(Clone, Copy)]
struct Run<'a> {
    vfs: &'a dyn Vfs,
    /// What leads from the top of the directory to its files: empty, or a path with a slash at its end.
    prefix: &'a str,
    options: &'a VerifyOptions,
    observer: &'a dyn VerifyObserver,
    found: &'a Found,
}

/// A panic in one thread must not hide what the others found.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run<'_> {
    fn report(&self, mut damage: Damage) {
        damage.file.insert_str(0, self.prefix);
        self.report_at(damage);
    }

    /// Reports damage of a file that is named from the top of the directory.
    fn report_at(&self, damage: Damage) {
        self.observer.damaged(&damage);
        lock(&self.found.damage).push(damage);
    }

    fn damaged(&self, file: &str, offset: impl Into<Option<u64>>, what: impl Into<String>) {
        self.hit(file, offset, what, Vec::new());
    }

    /// Damage that keeps artifacts from being read.
    fn hit(
        &self,
        file: &str,
        offset: impl Into<Option<u64>>,
        what: impl Into<String>,
        keys: Vec<Key>,
    ) {
        self.report(Damage {
            file: file.to_owned(),
            offset: offset.into(),
            what: what.into(),
            cache: false,
            keys,
        });
    }

    /// Whether damage of the file has been found already.
    fn is_damaged(&self, file: &str) -> bool {
        let is = |damage: &Damage| damage.file.strip_prefix(self.prefix) == Some(file);
        lock(&self.found.damage).iter().any(is)
    }

    /// Damage of a cache.
    fn stale(&self, file: &str, offset: impl Into<Option<u64>>, what: impl Into<String>) {
        self.report(Damage {
            file: file.to_owned(),
            offset: offset.into(),
            what: what.into(),
            cache: true,
            keys: Vec::new(),
        });
    }

    fn warn(&self, warning: impl Into<String>) {
        lock(&self.found.warnings).push(self.place(warning.into()));
    }

    fn note(&self, note: impl Into<String>) {
        lock(&self.found.notes).push(self.place(note.into()));
    }

    /// Says of which instance the words are.
    fn place(&self, words: String) -> String {
        match self.prefix.strip_suffix('/') {
            Some(instance) => format!("{instance}: {words}"),
            None => words,
        }
    }

    fn count(&self, count: impl FnOnce(&mut VerifyCounts)) {
        count(&mut lock(&self.found.counts));
    }

    /// More bytes will be read.
    fn expect(&self, bytes: u64) {
        self.found.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// As many of the expected bytes cannot be read.
    fn skip(&self, bytes: u64) {
        let less = |total: u64| Some(total.saturating_sub(bytes));
        let (ok, read) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.found.total.fetch_update(ok, read, less);
    }

    /// Bytes have been read.
    fn advance(&self, bytes: u64) {
        let done = self.found.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = self.found.total.load(Ordering::Relaxed).max(done);
        self.observer.progress(done, total);
    }

    /// Runs `work` on every item, on as many threads as were asked for. The items are
    /// taken in order.
    fn spread<T: Sync>(&self, items: &[T], work: impl Fn(&mut frames::Buffers, &T) + Sync) {
        let next = AtomicU64::new(0);
        let worker = || {
            let mut buffers = frames::Buffers::default();
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                work(&mut buffers, item);
            }
        };
        let threads = self.options.threads.min(THREADS_MAX);
        let threads = threads.clamp(1, items.len().max(1));
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(worker);
            }
            worker();
        });
    }
}

impl Found {
    fn into_report(self) -> VerifyReport {
        let mut damage = self.damage.into_inner().unwrap_or_default();
        damage.sort_by(|a, b| (&a.file, a.offset, &a.what).cmp(&(&b.file, b.offset, &b.what)));
        let mut warnings = self.warnings.into_inner().unwrap_or_default();
        warnings.sort();
        let mut counts = self.counts.into_inner().unwrap_or_default();
        counts.bytes = self.done.into_inner();
        VerifyReport {
            damage,
            warnings,
            notes: self.notes.into_inner().unwrap_or_default(),
            counts,
        }
    }
}

/// What an error says about the file it met: the offset, and a clause.
fn describe(error: &Error) -> (Option<u64>, String) {
    match error {
        Error::Damaged { offset, what, .. } => (Some(*offset), what.clone()),
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            (None, "the file is missing".to_owned())
        }
        Error::Io { source, .. } => (None, format!("cannot be read: {source}")),
        other => (None, other.to_string()),
    }
}

/// The first field of a structure that ought to be zero and is not.
pub(crate) fn not_zero(fields: &[Field], structure: &[u8]) -> Option<&'static str> {
    let must = |field: &&Field| matches!(field.name, "PAD" | "RESERVED");
    let mut fields = fields.iter().filter(must);
    let found = fields.find(|field| field.of(structure).iter().any(|byte| *byte != 0));
    found.map(|field| match field.name {
        "PAD" => "padding that is not zero",
        _ => "reserved bytes that are not zero",
    })
}
