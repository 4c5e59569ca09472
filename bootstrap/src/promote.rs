//! Promotion: what a store of another domain holds becomes part of this one, proven, and as often as it is told.
//!
//! The source is anybody's store until it is proven, and is only read. [`examine`] proves it and finds out what is to be done, writing
//! nothing and needing no key; [`Plan::execute`] does it.
//!
//! Order, each step durable before the next:
//! 0. the source is opened beneath its root; its log ends with a whole record
//! 1. the log's chain, the manifests from the first (whose digest is the id that the user named), every signature, checkpoint and
//!    receipt: [`verify`](crate::verify)
//! 2. what the workstation remembers, and what was taken over before: the log goes on from there
//! 3. the target's policy
//! 4. which blocks are here, which come over whole, which piece by piece, which are damaged; what the source shows
//! 5. the keys, which the caller hands in only now
//! 6. files of blocks, to where they wait; each is checked, byte by byte, in the target's own copy before anything names it
//! 7. the record that begins the promotion's session, whose id names what is promoted
//! 8. the blocks' records, in the order of the source's log; then the source's log as artifacts, its chain checked once more
//! 9. everything that the source shows, and everything that the captures refer to, is here or counted as missing
//! 10. one append: the lineage and its signatures, its record, the records of the captures, the end of the session
//! 11. a snapshot, receipts, a checkpoint, `meta/`
//!
//! What the workstation remembers is moved by the caller after that.
//!
//! Crash: up to step 7 the target has more files and nothing else is changed, up to step 10 more blocks; the same promotion goes on with what is not here. After it,
//! the same promotion makes up for what step 11 lacks. Once all is done it writes nothing at all.
//!
//! Invariants
//! - No capture of the source is one of the target before the lineage says so.
//! - What the source removed does not become visible, and nothing that the target shows is hidden.
//! - A refusal leaves the target as it was: up to step 6 there is nothing in it but files that wait, and they are removed where they
//!   are not to be taken.

use asl_store::{Key, SessionId, StoreHandle, StoreWriter};

use crate::domain::Domain;
use crate::error::Result;
use crate::id::DomainId;
use crate::keyfile::KeyFile;
use crate::lineage::{Checks, Contents, Level, Lineage};
use crate::mint::Done;
use crate::trust::LogSeen;

mod bring;
mod closure;
mod commit;
mod error;
mod history;
mod logs;
mod plan;
mod retire;
mod sessions;
mod source;

pub use bring::Moved;
pub use error::{DamagedBlock, PromoteError};
pub use plan::{Action, Plan, Progress, Tally, examine};
pub use retire::{Retired, retire, status};
pub use sessions::Takeover;
pub use source::Source;

use bring::Mover;
use closure::Closure;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The source's domain, from paper or by word of mouth: never from the source.
    pub expect: DomainId,
    /// How far it is let in.
    pub level: Level,
    /// Another history than the one that is known is taken over apart from that.
    pub fork: bool,
    /// A log that lost records and was made again is taken for what it was.
    pub accept_rebuilt: bool,
    /// What is damaged is left out instead of refused.
    pub accept_damaged: bool,
    /// The source's finished captures, as the library that made them knows them.
    pub finished: &'a [Done],
    /// Only these of them; all where none are named.
    pub captures: Option<&'a [SessionId]>,
    /// The program, for the lineage: at most [`TOOL_MAX`](crate::lineage::TOOL_MAX) bytes.
    pub tool: &'a str,
}

/// Makes another description of a capture, as the library that made it would.
pub type Relabel<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

/// What a promotion is carried out with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The target's keys: its roots, its host's and one for checkpoints.
    pub keys: &'a KeyFile,
    /// The source's keys, if they are at hand: then it is handed over, not only adopted.
    pub child_keys: Option<&'a KeyFile>,
    /// Changes the description of a capture that gets another id, so that people can tell it from the other.
    pub relabel: Option<Relabel<'a>>,
    /// Blocks that are brought and checked at once; at least one and at most 4 are.
    pub threads: usize,
    /// Told how it gets on.
    pub observer: &'a dyn PromoteObserver,
}

/// Where a promotion stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Blocks come over.
    Blocks,
    /// The source's log is kept.
    Log,
    /// It is looked whether everything is here.
    Check,
    /// The lineage is signed, with what comes after it.
    Commit,
}

/// Told how a promotion gets on.
pub trait PromoteObserver {
    /// A stage began or got on; `done` of `total` blocks are moved.
    fn progress(&self, stage: Stage, done: Tally, total: Tally) {
        let _ = (stage, done, total);
    }
    /// Asked between blocks: whether to stop. The same promotion goes on from there.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// Hears nothing and never stops.
impl PromoteObserver for () {}

/// A promotion that was carried out.
#[derive(Debug)]
pub struct Promoted {
    /// The lineage artifact.
    pub link: Key,
    /// What it says.
    pub lineage: Lineage,
    /// Whether both sides signed it.
    pub handed_over: bool,
    /// What came over now.
    pub moved: Moved,
    /// Captures that lack something, and how many artifacts each.
    pub incomplete: Vec<(SessionId, u64)>,
    /// The target's domain afterwards.
    pub domain: Domain,
    /// The source's log as it was read, for [`Trust::pin`](crate::trust::Trust::pin), or
    /// [`pin_rebuilt`](crate::trust::Trust::pin_rebuilt) where one was accepted, with [`Plan::child`]'s chain. A fork moves no
    /// pin.
    pub seen: Option<LogSeen>,
}

/// What is not here of what should be.
#[derive(Default)]
struct Missing {
    artifacts: u64,
    sessions: Vec<(SessionId, u64)>,
}

impl Plan {
    /// Steps 6 to 11, as far as there is anything to do. `writer` is the target that the plan was made for, `source` the same source.
    ///
    /// # Errors
    /// [`PromoteError`]; [`MintError`](crate::MintError) and [`KeyFileError`](crate::KeyFileError) for keys that cannot sign, before anything is
    /// written; [`asl_store::Error`], above all [`Full`](asl_store::Error::Full). The same promotion goes on afterwards.
    pub fn execute(
        &self,
        source: &Source,
        writer: &mut StoreWriter,
        means: &Means<'_>,
    ) -> Result<Promoted> {
        let parent = plan::open_target(writer.handle())?;
        commit::check_keys(self, &parent, means)?;
        // Opening the target for writing may have brought the record back that a crash kept from the log.
        let session = self.lineage.session();
        let is_due = self.progress == Progress::Due;
        let found = parent
            .links()
            .find(|(_, link)| is_due && link.session() == session)
            .map(|(state, _)| state.key);
        let done = match &self.progress {
            Progress::Promoted { lineage } | Progress::Unfinished { lineage } => Some(*lineage),
            Progress::Due => found,
        };
        let links = plan::links(&parent, &self.head) - usize::from(found.is_some());
        let same = parent.id() == self.parent && links == self.links;
        if !same || source.head() != self.head {
            return Err(PromoteError::TargetChanged.into());
        }
        let (link, moved, missing) = match done {
            Some(lineage) => (lineage, Moved::default(), Missing::default()),
            None => self.take_over(&parent, source, writer, means)?,
        };
        let to_move = self.to_move();
        means.observer.progress(Stage::Commit, to_move, to_move);
        let domain = match &self.progress {
            Progress::Promoted { .. } => parent,
            _ => commit::finish(self, source, writer, means, &link)?,
        };
        let found = domain.links().find(|(state, _)| state.key == link);
        let (state, lineage) = found.ok_or(PromoteError::TargetChanged)?;
        Ok(Promoted {
            link,
            lineage: lineage.clone(),
            handed_over: state.handed_over,
            moved,
            incomplete: missing.sessions,
            seen: self.seen(),
            domain,
        })
    }

    /// Steps 6 to 10.
    fn take_over(
        &self,
        parent: &Domain,
        source: &Source,
        writer: &mut StoreWriter,
        means: &Means<'_>,
    ) -> Result<(Key, Moved, Missing)> {
        let mut link = self.lineage.clone();
        link.parent_head = parent.chain.head_key();
        let done = self.to_move();
        let mut mover = Mover {
            plan: self,
            source,
            writer,
            means,
            moved: Moved::default(),
        };
        let todo = mover.stage()?;
        let description = sessions::description(&link);
        mover.writer.begin_session(link.session(), &description)?;
        mover.run(&todo)?;
        let moved = mover.moved;
        means.observer.progress(Stage::Log, done, done);
        link.log = logs::keep(source, writer)?;
        writer.commit()?;
        means.observer.progress(Stage::Check, done, done);
        let missing = self.missing(source, writer.handle())?;
        if !self.accept_damaged && (missing.artifacts > 0 || !missing.sessions.is_empty()) {
            return Err(PromoteError::Incomplete {
                artifacts: missing.artifacts,
                sessions: missing.sessions,
            }
            .into());
        }
        link.missing = missing.artifacts;
        link.sessions = self.sessions.iter().map(|takeover| takeover.here).collect();
        link.checks = link.checks.and(Checks::BYTES);
        if missing.sessions.is_empty() {
            link.checks = link.checks.and(Checks::CLOSURE);
        }
        let covered = self.child.domain.covered();
        if self
            .sessions
            .iter()
            .all(|takeover| takeover.end.0 < covered)
        {
            link.checks = link.checks.and(Checks::CHECKPOINT);
        }
        if means.observer.is_stopped() {
            return Err(PromoteError::Stopped.into());
        }
        let key = commit::commit(self, source, writer, means, &link)?;
        Ok((key, moved, missing))
    }

    /// Step 9.
    fn missing(&self, source: &Source, target: &StoreHandle) -> Result<Missing> {
        let mut missing = Missing::default();
        let mut contents = Contents::default();
        source.store().for_each(&mut |record| {
            contents.push(&record.key, record.raw_len);
            let here = target.lookup_part(&record.key)?;
            if here.is_none_or(|here| here.raw_len != record.raw_len) {
                missing.artifacts += 1;
            }
            Ok(())
        })?;
        if contents.root() != self.lineage.manifest_root {
            let what = "the index shows other artifacts than before".to_owned();
            let changed = asl_store::Error::LogDamaged { what };
            return Err(PromoteError::Changed(changed).into());
        }
        for takeover in &self.sessions {
            let mut lost = 0;
            let mut each = |_: &Key, record: Option<&asl_store::segment::IndexRecord>| {
                lost += u64::from(record.is_none());
            };
            Closure::default().walk(target, takeover.root, &mut each)?;
            if lost > 0 {
                missing.sessions.push((takeover.session, lost));
            }
        }
        Ok(missing)
    }
}
