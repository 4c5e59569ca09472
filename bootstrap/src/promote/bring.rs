//! Moving blocks, and what is left of them: steps 6 and 8.
//!
//! All files come first and wait, checked, where nobody sees them, so that a source with damage is refused before anything is
//! changed. Then, in this order: instance by instance, blocks as in its log, so that parts of artifacts come before the artifacts; of one block taken piece by
//! piece what has bytes of its own first, lists after it. A list whose parts come with a later instance waits for that.
//!
//! Crash: blocks that were logged or wait are here for the next time; of the others nothing is left.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use asl_store::block::{self, Entry};
use asl_store::id::Digest;
use asl_store::import::{check_there, read_frame, stage, unstage, whole_frames};
use asl_store::put::PENDING_MAX;
use asl_store::vfs::{Access, VfsFile};
use asl_store::{Key, StoreHandle, StoreWriter, format};

use super::blocks::{Action, Step, Tally, action_now, captures_of, digests};
use super::error::{DamagedBlock, PromoteError, what};
use super::plan::Plan;
use super::source::{Instance, Source};
use super::{Means, Stage};
use crate::error::Result;
use crate::mint::Done;

/// What came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Blocks that came over whole, now or by being found whole here.
    pub brought: Tally,
    /// Bytes of them that the filesystem shares with the source's files.
    pub shared_bytes: u64,
    /// Artifacts that came over one by one.
    pub repacked: u64,
    /// Artifacts in damaged blocks that could not be read there. Some of them may be elsewhere.
    pub lost: u64,
}

/// Whether the bytes of a block that waits are shared with the source's file.
type Staged = asl_store::Result<bool>;

/// Most blocks that are brought at once. Each has one stream of reads and one of writes.
const WORKERS_MAX: usize = 4;
/// How often it is looked how far that is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Moves what the plan says.
pub(super) struct Mover<'a> {
    pub(super) plan: &'a Plan,
    pub(super) source: &'a Source,
    pub(super) writer: &'a mut StoreWriter,
    pub(super) means: &'a Means<'a>,
    pub(super) moved: Moved,
    pub(super) left: Vec<Left>,
}

/// A list of parts that are not all here.
pub(super) struct Left {
    /// The instance that it is of.
    nth: usize,
    path: String,
    entry: Entry,
    /// Whether it may be lost, because its block is damaged.
    salvaged: bool,
}

/// A block of an instance, with what is to be done.
#[derive(Clone, Copy)]
struct Task {
    nth: usize,
    step: Step,
}

/// What is to be done, now that every file was looked at.
#[derive(Default)]
pub(super) struct Todo {
    tasks: Vec<Task>,
    /// Blocks that wait whose bytes are shared.
    shared: HashSet<Digest>,
}

impl Mover<'_> {
    fn instance(&self, nth: usize) -> &Instance {
        &self.source.instances()[nth]
    }

    fn path_of(&self, task: &Task) -> String {
        path_of(self.instance(task.nth).store(), &task.step)
    }

    /// Brings every block of these instances that comes over whole to where it waits, and looks at those that come piece by piece.
    /// Nothing of the target is changed that anybody sees. What is not whole is to be salvaged, if the plan puts up with that.
    pub(super) fn stage(&mut self, due: &[usize]) -> Result<Todo> {
        let here = digests(self.writer.handle());
        let mut todo = Todo::default();
        for nth in due.iter().copied() {
            for step in &self.plan.instances[nth].steps {
                // What was here when the plan was made may have been taken back since, and the other way round.
                let target = self.writer.handle();
                let action = action_now(self.instance(nth), target, &here, step)?;
                let step = Step { action, ..*step };
                todo.tasks.push(Task { nth, step });
            }
        }
        // Two instances may have taken over one and the same block.
        let mut met = HashSet::new();
        let to_check: Vec<Task> = (todo.tasks.iter().copied())
            .filter(|task| matches!(task.step.action, Action::Bring | Action::Repack))
            .filter(|task| met.insert((task.step.digest, task.step.action)))
            .collect();
        let mut torn = Vec::new();
        let mut failed = None;
        let staged = self.stage_all(&to_check);
        for (task, staged) in to_check.iter().zip(staged) {
            match staged {
                Some(Ok(true)) => {
                    todo.shared.insert(task.step.digest);
                }
                Some(Ok(false)) => {}
                Some(Err(error)) if is_of(&error, &self.path_of(task)) => {
                    torn.push((*task, error));
                }
                Some(Err(error)) => {
                    failed.get_or_insert(error);
                }
                // Another failed first, or somebody wants to stop.
                None => {}
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        if self.means.observer.is_stopped() {
            return Err(PromoteError::Stopped.into());
        }
        if !torn.is_empty() && !self.plan.accept_damaged {
            unstage(&**self.writer.handle().vfs())?;
            let blocks = self.described(&torn)?;
            return Err(PromoteError::Damaged { blocks }.into());
        }
        let torn: HashSet<Digest> = torn.iter().map(|(task, _)| task.step.digest).collect();
        for Task { step, .. } in &mut todo.tasks {
            if torn.contains(&step.digest) && step.action != Action::Have {
                step.action = Action::Salvage;
            }
        }
        Ok(todo)
    }

    /// Stages blocks, several at once: one is copied while another is hashed.
    fn stage_all(&self, tasks: &[Task]) -> Vec<Option<Staged>> {
        let total = self.plan.to_move();
        let instances = self.source.instances();
        let into = self.writer.handle().vfs().clone();
        let next = AtomicUsize::new(0);
        let (blocks, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let stop = AtomicBool::new(false);
        let results: Vec<Mutex<Option<Staged>>> = tasks.iter().map(|_| Mutex::new(None)).collect();
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(task) = tasks.get(at).filter(|_| !stop.load(Ordering::Relaxed)) else {
                    return;
                };
                let (step, from) = (&task.step, instances[task.nth].store());
                let path = path_of(from, step);
                let vfs = &**from.vfs();
                let staged = match step.action {
                    Action::Bring => stage(&*into, vfs, &path, step.digest, from, 1),
                    _ => check_there(vfs, &path, step.digest, from).map(|()| false),
                };
                if staged.as_ref().is_err_and(|error| !is_of(error, &path)) {
                    stop.store(true, Ordering::Relaxed);
                }
                let mut result = results[at]
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                *result = Some(staged);
                blocks.fetch_add(1, Ordering::Relaxed);
                bytes.fetch_add(step.file_len, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            let workers = self.means.threads.clamp(1, WORKERS_MAX).min(tasks.len());
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            loop {
                let done = Tally {
                    blocks: blocks.load(Ordering::Relaxed),
                    bytes: bytes.load(Ordering::Relaxed),
                };
                self.means.observer.progress(Stage::Blocks, done, total);
                if self.means.observer.is_stopped() {
                    stop.store(true, Ordering::Relaxed);
                }
                if workers.iter().all(|worker| worker.is_finished()) {
                    return;
                }
                std::thread::park_timeout(LOOK_EVERY);
            }
        });
        let results = results.into_iter().map(|result| {
            result
                .into_inner()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
        });
        results.collect()
    }

    /// What is told of blocks that are not whole.
    fn described(&self, torn: &[(Task, asl_store::Error)]) -> Result<Vec<DamagedBlock>> {
        let instances = self.plan.instances.iter();
        let finished: Vec<Done> = instances
            .flat_map(|plan| plan.finished.iter().copied())
            .collect();
        let mut described = Vec::new();
        for (task, error) in torn {
            let captures = captures_of(self.instance(task.nth), &finished, &[task.step.id])?;
            described.push(DamagedBlock {
                path: self.path_of(task),
                what: what(error),
                captures: captures.into_iter().flatten().collect(),
            });
        }
        Ok(described)
    }

    /// Moves what is to be done with one instance.
    pub(super) fn run(&mut self, nth: usize, todo: &Todo) -> Result<()> {
        let hidden = self.writer.hide_imported(self.plan.hidden.clone())?;
        for task in todo.tasks.iter().filter(|task| task.nth == nth) {
            if self.means.observer.is_stopped() {
                return Err(PromoteError::Stopped.into());
            }
            let (step, path) = (&task.step, self.path_of(task));
            match step.action {
                Action::Have => {}
                Action::Bring => {
                    let shared = todo.shared.contains(&step.digest);
                    self.writer.import_staged(step.digest, shared, &hidden)?;
                    self.moved.brought.blocks += 1;
                    self.moved.brought.bytes += step.file_len;
                    if shared {
                        self.moved.shared_bytes += step.file_len;
                    }
                }
                Action::Repack => self.repack(task, &path)?,
                Action::Salvage => self.salvage(task, &path)?,
            }
        }
        self.writer.commit()?;
        Ok(())
    }

    /// What can be done only when every instance's blocks are here.
    pub(super) fn settle(&mut self) -> Result<()> {
        // A list may be a part of another.
        loop {
            let before = self.left.len();
            for left in std::mem::take(&mut self.left) {
                let instance = self.instance(left.nth);
                let file = instance.store().vfs().open(&left.path, Access::Read);
                let file = file.map_err(asl_store::Error::io("open", &left.path))?;
                if !self.take_one(&*file, &left.path, &left.entry)? {
                    self.left.push(left);
                } else if self.plan.hidden.contains(&left.entry.info.key) {
                    self.hide(&mut HashSet::from([left.entry.info.key]))?;
                }
            }
            if self.left.len() == before {
                break;
            }
        }
        self.writer.commit()?;
        for left in std::mem::take(&mut self.left) {
            if !left.salvaged {
                let what = "a list with a part that is nowhere";
                return Err(asl_store::Error::damaged(&left.path, 0, what).into());
            }
            self.moved.lost += 1;
        }
        // What an append showed that a power cut shortened.
        let mut shown = HashSet::new();
        for key in &self.plan.hidden {
            if self.writer.handle().lookup(key)?.is_some() {
                shown.insert(*key);
            }
        }
        self.hide(&mut shown)?;
        // What an earlier run staged that came another way since; what stays takes room and nothing else.
        let _ = unstage(&**self.writer.handle().vfs());
        Ok(())
    }

    /// Takes what the target lacks of a block that is whole.
    fn repack(&mut self, task: &Task, path: &str) -> Result<()> {
        let from = self.instance(task.nth).store().vfs().clone();
        let file = from
            .open(path, Access::Read)
            .map_err(asl_store::Error::io("open", path))?;
        let sealed = block::read_sealed(&*file, path)?;
        if sealed.digest != task.step.digest {
            let what = "another block than its name says";
            return Err(asl_store::Error::damaged(path, 0, what).into());
        }
        match self.take(task, &*file, path, &sealed.entries)? {
            0 => Ok(()),
            _ => Err(asl_store::Error::damaged(path, 0, "frames that are not whole").into()),
        }
    }

    /// Takes what is whole of a block that is not.
    fn salvage(&mut self, task: &Task, path: &str) -> Result<()> {
        let from = self.instance(task.nth).store().vfs().clone();
        let (Ok(entries), Ok(file)) = (whole_frames(&*from, path), from.open(path, Access::Read))
        else {
            self.moved.lost += task.step.artifacts;
            return Ok(());
        };
        let whole = entries.iter().filter(|entry| entry.info.is_artifact());
        let lost = task.step.artifacts.saturating_sub(whole.count() as u64);
        self.moved.lost += lost + self.take(task, &*file, path, &entries)?;
        Ok(())
    }

    /// Takes artifacts one by one; how many of those with bytes of their own could not be.
    fn take(
        &mut self,
        task: &Task,
        file: &dyn VfsFile,
        path: &str,
        entries: &[Entry],
    ) -> Result<u64> {
        let artifacts = entries.iter().filter(|entry| entry.info.is_artifact());
        let is_list = |entry: &&Entry| entry.info.encoding == format::ENCODING_CHUNKED;
        let (mut lists, plain): (Vec<&Entry>, Vec<&Entry>) = artifacts.partition(is_list);
        let hides = |entry: &&Entry| self.plan.hidden.contains(&entry.info.key);
        let (secret, plain): (Vec<&Entry>, Vec<&Entry>) = plain.into_iter().partition(hides);
        let mut lost = 0;
        for entry in &plain {
            lost += u64::from(!self.take_one(file, path, entry)?);
        }
        self.writer.commit()?;
        // What is removed there, but may be a part of something: stored and hidden at once.
        let mut shown = HashSet::new();
        for entry in secret {
            if self.writer.has(&entry.info.key, 0) {
                continue;
            }
            match self.take_one(file, path, entry)? {
                true => {
                    shown.insert(entry.info.key);
                }
                false => lost += 1,
            }
            if self.writer.pending_bytes() >= PENDING_MAX / 4 {
                self.hide(&mut shown)?;
            }
        }
        self.hide(&mut shown)?;
        // A list may be a part of another.
        loop {
            let before = lists.len();
            let mut left = Vec::new();
            for entry in lists {
                if !self.take_one(file, path, entry)? {
                    left.push(entry);
                }
            }
            lists = left;
            if lists.is_empty() || lists.len() == before {
                break;
            }
        }
        self.left.extend(lists.into_iter().map(|entry| Left {
            nth: task.nth,
            path: path.to_owned(),
            entry: *entry,
            salvaged: task.step.action == Action::Salvage,
        }));
        let mut shown: HashSet<Key> = HashSet::new();
        for entry in entries.iter().filter(is_list) {
            if self.plan.hidden.contains(&entry.info.key) {
                shown.insert(entry.info.key);
            }
        }
        self.hide(&mut shown)?;
        self.writer.commit()?;
        Ok(lost)
    }

    fn hide(&mut self, keys: &mut HashSet<Key>) -> Result<()> {
        let mut hide: Vec<Key> = std::mem::take(keys).into_iter().collect();
        hide.retain(|key| self.writer.has(key, 0));
        hide.sort();
        Ok(self.writer.tombstone(&hide)?)
    }

    /// Whether an artifact is here afterwards.
    fn take_one(&mut self, file: &dyn VfsFile, path: &str, entry: &Entry) -> Result<bool> {
        let flags = entry.info.flags & (format::FLAG_ROOT | format::FLAG_NODE);
        if self.writer.has(&entry.info.key, flags) {
            return Ok(true);
        }
        let taken = read_frame(file, path, entry).and_then(|frame| self.writer.take(frame, path));
        match taken {
            Ok(_) => self.moved.repacked += 1,
            Err(error) if is_of(&error, path) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        if self.writer.pending_bytes() >= PENDING_MAX {
            self.writer.sync()?;
        }
        Ok(true)
    }
}

/// Where a block lies in the source: a power cut may have undone its rename.
fn path_of(source: &StoreHandle, step: &Step) -> String {
    let sealed = block::sealed_path(&step.digest);
    let open = block::open_path(step.id);
    match (source.vfs().metadata(&sealed), source.vfs().metadata(&open)) {
        (Err(_), Ok(_)) => open,
        _ => sealed,
    }
}

/// Whether an error is about a file of the source.
fn is_of(error: &asl_store::Error, file: &str) -> bool {
    match error {
        asl_store::Error::Damaged { path, .. } => path == file,
        asl_store::Error::Io { path, .. } => path == file,
        _ => false,
    }
}
