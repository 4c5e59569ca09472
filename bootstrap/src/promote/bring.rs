//! Moving blocks, and what is left of them: step 7.
//!
//! Order: blocks as in the source's log, so that parts of artifacts come before the artifacts; of one block taken piece by piece what
//! has bytes of its own first, lists after it.
//!
//! Crash: blocks that were logged are here for the next time; of the others nothing is visible.

use std::collections::HashSet;

use asl_store::block::{self, Entry};
use asl_store::import::{Hidden, read_frame, whole_frames};
use asl_store::put::PENDING_MAX;
use asl_store::vfs::{Access, VfsFile};
use asl_store::{Imported, Key, StoreWriter, format};

use super::error::{DamagedBlock, PromoteError, what};
use super::plan::{Action, Plan, Step, Tally, action_now, digests};
use super::source::Source;
use super::{Means, Stage};
use crate::error::Result;

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

/// Moves what the plan says.
pub(super) struct Mover<'a> {
    pub(super) plan: &'a Plan,
    pub(super) source: &'a Source,
    pub(super) writer: &'a mut StoreWriter,
    pub(super) means: &'a Means<'a>,
    pub(super) moved: Moved,
}

impl Mover<'_> {
    pub(super) fn run(&mut self) -> Result<()> {
        let total = self.plan.to_move();
        let mut done = Tally::default();
        let hidden = self.writer.hide_imported(self.plan.hidden.clone())?;
        let here = digests(self.writer.handle());
        for step in &self.plan.steps {
            let step = &Step {
                action: action_now(self.source, self.writer.handle(), &here, step)?,
                ..*step
            };
            if step.action == Action::Have {
                continue;
            }
            if self.means.observer.is_stopped() {
                return Err(PromoteError::Stopped.into());
            }
            self.step(step, &hidden)?;
            done.blocks += 1;
            done.bytes += step.file_len;
            self.means.observer.progress(Stage::Blocks, done, total);
        }
        Ok(())
    }

    fn step(&mut self, step: &Step, hidden: &Hidden) -> Result<()> {
        let sealed = block::sealed_path(&step.digest);
        let from = &**self.source.store().vfs();
        // Where a power cut undid the block's rename.
        let path = match from.metadata(&sealed) {
            Ok(_) => sealed,
            Err(_) => block::open_path(step.id),
        };
        let refused = match step.action {
            Action::Have => return Ok(()),
            Action::Bring => {
                let threads = self.means.threads;
                let taken = self
                    .writer
                    .import_hiding(from, &path, step.digest, threads, hidden);
                match taken {
                    Ok(imported) => {
                        self.moved.brought.blocks += 1;
                        self.moved.brought.bytes += step.file_len;
                        if let Imported::Taken { shared: true, .. } = imported {
                            self.moved.shared_bytes += step.file_len;
                        }
                        return Ok(());
                    }
                    Err(error) => error,
                }
            }
            Action::Repack => match self.repack(step, &path) {
                Ok(()) => return Ok(()),
                Err(crate::Error::Store(error)) => error,
                Err(error) => return Err(error),
            },
            Action::Salvage => return self.salvage(step, &path),
        };
        if !is_of(&refused, &path) {
            return Err(refused.into());
        }
        if !self.plan.accept_damaged {
            let blocks = vec![DamagedBlock {
                what: what(&refused),
                path,
                captures: Vec::new(),
            }];
            return Err(PromoteError::Damaged { blocks }.into());
        }
        self.salvage(step, &path)
    }

    /// Takes what the target lacks of a block that is whole.
    fn repack(&mut self, step: &Step, path: &str) -> Result<()> {
        let from = &**self.source.store().vfs();
        let file = from
            .open(path, Access::Read)
            .map_err(asl_store::Error::io("open", path))?;
        let sealed = block::read_sealed(&*file, path)?;
        if sealed.digest != step.digest {
            let what = "another block than its name says";
            return Err(asl_store::Error::damaged(path, 0, what).into());
        }
        match self.take(&*file, path, &sealed.entries)? {
            0 => Ok(()),
            _ => Err(asl_store::Error::damaged(path, 0, "frames that are not whole").into()),
        }
    }

    /// Takes what is whole of a block that is not.
    fn salvage(&mut self, step: &Step, path: &str) -> Result<()> {
        let from = &**self.source.store().vfs();
        let (Ok(entries), Ok(file)) = (whole_frames(from, path), from.open(path, Access::Read))
        else {
            self.moved.lost += step.artifacts;
            return Ok(());
        };
        let whole = entries.iter().filter(|entry| entry.info.is_artifact());
        let lost = step.artifacts.saturating_sub(whole.count() as u64);
        self.moved.lost += lost + self.take(&*file, path, &entries)?;
        Ok(())
    }

    /// Takes artifacts one by one; how many could not be.
    fn take(&mut self, file: &dyn VfsFile, path: &str, entries: &[Entry]) -> Result<u64> {
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
        let mut shown: HashSet<Key> = HashSet::new();
        for entry in entries.iter().filter(is_list) {
            if self.plan.hidden.contains(&entry.info.key) {
                shown.insert(entry.info.key);
            }
        }
        self.hide(&mut shown)?;
        self.writer.commit()?;
        Ok(lost + lists.len() as u64)
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

/// Whether an error is about a file of the source.
fn is_of(error: &asl_store::Error, file: &str) -> bool {
    match error {
        asl_store::Error::Damaged { path, .. } => path == file,
        asl_store::Error::Io { path, .. } => path == file,
        _ => false,
    }
}
