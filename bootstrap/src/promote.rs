//! Promotion: what a store of another domain holds becomes part of this one, proven, and as often as it is told.
//!
//! The source is anybody's store until it is proven, and is only read. [`examine`] proves it and finds out what is to be done, writing
//! nothing and needing no key; [`Plan::execute`] does it. [`examine_new`] finds out the same for a domain that is not founded yet.
//!
//! A source's directory may hold several instances of the store. Each has a log, and so a history, a pin and a lineage of its own; they are
//! proven, planned and brought together, and every step is done for all of them before the next.
//!
//! Order, each step durable before the next:
//! 0. the source is opened beneath its root; its logs end with a whole record
//! 1. each log's chain, the manifests from the first (whose digest is the id that the user named), every signature, checkpoint and
//!    receipt: [`verify`](crate::verify)
//! 2. what the workstation remembers, and what was taken over before: each log goes on from there
//! 3. the target's policy
//! 4. which blocks are here, which come over whole, which piece by piece, which are damaged; what the source shows
//! 5. the keys, which the caller hands in only now
//! 6. files of blocks, to where they wait; each is checked, byte by byte, in the target's own copy before anything names it
//! 7. the record that begins the session of an instance's promotion, whose id names what is promoted
//! 8. the blocks' records, in the order of the instance's log; then the log as artifacts, its chain checked once more
//! 9. everything that the source shows, and everything that the captures refer to, is here or counted as missing
//! 10. for each instance one append: the lineage and its signatures, its record, the records of the captures, the end of the session
//! 11. a snapshot, receipts, a checkpoint, `meta/`
//!
//! What the workstation remembers is moved by the caller after that.
//!
//! Crash: up to step 7 the target has more files and nothing else is changed, up to step 10 more blocks; the same promotion goes on with what is not here. Within step
//! 10 some instances are promoted and the others go on as before it. After it, the same promotion makes up for what step 11 lacks. Once all is done it writes nothing
//! at all.
//!
//! Invariants
//! - No capture of the source is one of the target before the lineage says so.
//! - What the source removed does not become visible, whichever of its instances removed it, and nothing that the target shows is hidden.
//! - A refusal leaves the target as it was: up to step 6 there is nothing in it but files that wait, and they are removed where they
//!   are not to be taken.

use asl_store::{Key, SessionId, StoreHandle, StoreWriter};

use crate::domain::Domain;
use crate::error::Result;
use crate::id::DomainId;
use crate::keyfile::KeyFile;
use crate::lineage::{Checks, Contents, Level, Lineage};
use crate::mint::Done;

mod blocks;
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

pub use blocks::{Action, Tally};
pub use bring::Moved;
pub use error::{DamagedBlock, PromoteError};
pub use plan::{InstancePlan, Plan, Progress, examine, examine_new};
pub use retire::{Retired, retire, status};
pub use sessions::Takeover;
pub use source::{Instance, Source};

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
    /// The finished captures of each of the source's instances, in their order, as the library that made them knows them.
    pub finished: &'a [Vec<Done>],
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
    /// What was taken over of each instance, in the source's order, those without anything left out.
    pub links: Vec<Link>,
    /// What came over now.
    pub moved: Moved,
    /// Captures that lack something, and how many artifacts each.
    pub incomplete: Vec<(SessionId, u64)>,
    /// The target's domain afterwards.
    pub domain: Domain,
}

/// An instance that was taken over.
#[derive(Debug)]
pub struct Link {
    /// The lineage artifact.
    pub key: Key,
    /// What it says.
    pub lineage: Lineage,
    /// Whether both sides signed it.
    pub handed_over: bool,
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
        let same =
            self.parent == Some(parent.id()) && source.instances().len() == self.instances.len();
        if !same {
            return Err(PromoteError::TargetChanged.into());
        }
        let mut links = Vec::new();
        for (plan, instance) in self.instances.iter().zip(source.instances()) {
            links.push(plan.linked(instance, &parent)?);
        }
        let due: Vec<usize> = (0..links.len())
            .filter(|nth| links[*nth].is_none())
            .filter(|nth| self.instances[*nth].progress == Progress::Due)
            .collect();
        let (mut moved, mut incomplete) = (Moved::default(), Vec::new());
        if !due.is_empty() {
            let taken;
            (taken, moved, incomplete) = self.take_over(&parent, source, writer, means, &due)?;
            for (nth, key) in due.into_iter().zip(taken) {
                links[nth] = Some(key);
            }
        }
        let to_move = self.to_move();
        means.observer.progress(Stage::Commit, to_move, to_move);
        let domain = match self.is_done() {
            true => parent,
            false => commit::finish(self, source, writer, means, &links)?,
        };
        let mut told = Vec::new();
        for key in links.into_iter().flatten() {
            let found = domain.links().find(|(state, _)| state.key == key);
            let (state, lineage) = found.ok_or(PromoteError::TargetChanged)?;
            told.push(Link {
                key,
                lineage: lineage.clone(),
                handed_over: state.handed_over,
            });
        }
        Ok(Promoted {
            links: told,
            moved,
            incomplete,
            domain,
        })
    }

    /// Steps 6 to 10 for the instances that are due; their lineages.
    #[expect(clippy::type_complexity, reason = "what comes of the steps, once")]
    fn take_over(
        &self,
        parent: &Domain,
        source: &Source,
        writer: &mut StoreWriter,
        means: &Means<'_>,
        due: &[usize],
    ) -> Result<(Vec<Key>, Moved, Vec<(SessionId, u64)>)> {
        let done = self.to_move();
        let mut mover = Mover {
            plan: self,
            source,
            writer,
            means,
            moved: Moved::default(),
            left: Vec::new(),
        };
        let todo = mover.stage(due)?;
        let mut links = Vec::new();
        for nth in due.iter().copied() {
            let mut link = self.instances[nth].lineage.clone();
            link.parent_head = parent.chain.head_key();
            let description = sessions::description(&link);
            mover.writer.begin_session(link.session(), &description)?;
            mover.run(nth, &todo)?;
            means.observer.progress(Stage::Log, done, done);
            link.log = logs::keep(&source.instances()[nth], mover.writer)?;
            mover.writer.commit()?;
            links.push(link);
        }
        mover.settle()?;
        let moved = mover.moved;
        means.observer.progress(Stage::Check, done, done);
        let mut incomplete = Vec::new();
        let mut artifacts = 0;
        for (nth, link) in due.iter().copied().zip(&mut links) {
            let (plan, instance) = (&self.instances[nth], &source.instances()[nth]);
            let missing = plan.missing(instance, writer.handle())?;
            plan.complete(link, &missing);
            artifacts += missing.artifacts;
            incomplete.extend(missing.sessions);
        }
        if !self.accept_damaged && (artifacts > 0 || !incomplete.is_empty()) {
            return Err(PromoteError::Incomplete {
                artifacts,
                sessions: incomplete,
            }
            .into());
        }
        writer.leave_session();
        let mut keys = Vec::new();
        for (nth, link) in due.iter().copied().zip(&links) {
            if means.observer.is_stopped() {
                return Err(PromoteError::Stopped.into());
            }
            let (plan, instance) = (&self.instances[nth], &source.instances()[nth]);
            keys.push(commit::commit(plan, instance, writer, means, link)?);
        }
        Ok((keys, moved, incomplete))
    }
}

impl InstancePlan {
    /// The lineage that says that the instance was taken over, if there is one already.
    fn linked(&self, source: &Instance, parent: &Domain) -> Result<Option<Key>, PromoteError> {
        // Opening the target for writing may have brought the record back that a crash kept from the log.
        let session = self.lineage.session();
        let is_due = self.progress == Progress::Due;
        let found = parent
            .links()
            .find(|(_, link)| is_due && link.session() == session)
            .map(|(state, _)| state.key);
        let links = plan::links(parent, &self.head) - usize::from(found.is_some());
        if links != self.links || source.head() != self.head {
            return Err(PromoteError::TargetChanged);
        }
        Ok(match &self.progress {
            Progress::Promoted { lineage } | Progress::Unfinished { lineage } => Some(*lineage),
            Progress::Due => found,
            Progress::Empty => None,
        })
    }

    /// Says in a lineage what is known at the end.
    fn complete(&self, link: &mut Lineage, missing: &Missing) {
        link.missing = missing.artifacts;
        link.sessions = self.sessions.iter().map(|takeover| takeover.here).collect();
        link.checks = link.checks.and(Checks::BYTES);
        if missing.sessions.is_empty() {
            link.checks = link.checks.and(Checks::CLOSURE);
        }
        let covered = self.child.domain.covered();
        let mut ends = self.sessions.iter().map(|takeover| takeover.end.0);
        if ends.all(|end| end < covered) {
            link.checks = link.checks.and(Checks::CHECKPOINT);
        }
    }

    /// Step 9.
    fn missing(&self, source: &Instance, target: &StoreHandle) -> Result<Missing> {
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
