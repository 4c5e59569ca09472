//! Taking over another store's instances: their logs, and the files that those name, whole and checked.
//!
//! Each instance of the other store gets a copy in ours, beside our own instance, under its own store id. Nothing is bound to our
//! log, so nothing is appended to it, and one sync each way makes the vectors of two stores equal.
//!
//! The other store is anybody's until it is checked. Its log is read once, each record against the chain; each file that is named
//! is copied (or shared) to `tmp/ingest`, and what is checked is our copy. What its segments leave out is not found here: that they
//! hold what the blocks hold is for [`verify`](crate::verify()). Its directory may be written to meanwhile; what counts is its log
//! as it was when it was read.
//!
//! Invariants
//! - The other store is not written to, not even locked.
//! - An instance is only ever extended, and only by records that continue its chain. Where the chains part nothing is taken, and
//!   theirs is kept as evidence.
//! - Of each instance that was brought it is remembered here that it was ([`COPIED_PATH`]), before any of it is visible.
//! - The instance that is written here is never extended: were there more of it elsewhere, this store was put back to an
//!   older state.
//! - A log comes to name only what is here whole, but for what the caller accepted as damaged.
//! - A file of ours that is damaged goes only when a whole one, checked and durable, takes its name; never else.
//! - It is decided by instance: what is wrong with one keeps none of the others from being taken.
//!
//! Order of writes
//! 1. blocks of all instances, for a part may lie in one and what it is a part of in another
//! 2. segments, state files and other caches, of all instances
//! 3. logs, one instance after the other
//!
//! Files that our log names already and that are lost or, with [`SyncOptions::verify`], damaged come again in steps 1 and 2.
//!
//! Crash: files that no log names yet, or that were healed. The next sync finds and keeps those that are whole.

mod blocks;
mod caches;
mod fork;
mod log;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;

use crate::block;
use crate::compare::Head;
use crate::error::{Error, Result};
use crate::home::is_written;
use crate::id::{LogPosition, StoreId};
use crate::index::Problem;
use crate::init::{ensure_dirs, is_usual, take_lock};
use crate::instances::{
    COPIED_PATH, INSTANCES_DIR, INSTANCES_MAX, Instance, files_of, instance_dir, is_copied, list,
};
use crate::log::{LogEnd, LogFiles};
use crate::store::StoreHandle;
use crate::vfs::Vfs;
use crate::writer::Context;
use blocks::{Brought, Progress, Wanted};
use survey::{Source, Standing, Target};

pub use blocks::{DamagedFile, HealedFile};
pub use fork::{BYTES_MAX as EVIDENCE_BYTES_MAX, EVIDENCE_DIR, HEADS_MAX, evidence_dir};

/// How often an instance is looked at again whose writer retired files while they were read.
const TRIES: usize = 3;

/// How a sync goes about it.
#[derive(Debug, Clone, Default)]
pub struct SyncOptions {
    /// Blocks that are brought at once; at least one and at most 4 are.
    pub threads: usize,
    /// Only says what would be done.
    pub dry_run: bool,
    /// Reads to its last byte every file of ours that both logs name: blocks, segments, state files. What is damaged or cannot be read comes
    /// again. Without this a file that is there, and as long as it must be, is taken for whole.
    pub verify: bool,
    /// Takes an instance although files that it names are damaged there; they are missing here then.
    pub accept_damaged: bool,
    /// The instances that may be taken; all where this is not given.
    pub only: Option<BTreeSet<StoreId>>,
}

/// How far a sync is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncProgress {
    /// Blocks that are to be brought.
    pub blocks: u64,
    /// Of these, those that were.
    pub blocks_done: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Of these, those that were brought.
    pub bytes_done: u64,
    /// Bytes of our own blocks that are to be read.
    pub verify_bytes: u64,
    /// Of these, those that were.
    pub verified_bytes: u64,
}

/// Watches a sync, from any thread.
pub trait SyncObserver: Sync {
    /// A block was brought, or some of ours was read.
    fn progress(&self, progress: &SyncProgress) {
        let _ = progress;
    }
    /// Whether to stop after the file that is being brought or read.
    fn is_stopped(&self) -> bool {
        false
    }
}

impl SyncObserver for () {}

/// Which store something is wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Ours.
    Here,
    /// The other one.
    There,
}

/// What became of one instance.
#[derive(Debug)]
pub enum Outcome {
    /// It is the same in both.
    Equal,
    /// Ours has more.
    Ahead,
    /// Ours was extended, or made; with [`SyncOptions::dry_run`], would be.
    Taken,
    /// It was not begun: the sync was stopped.
    Stopped,
    /// The two have different records in one place. Nothing was taken.
    Forked {
        /// Records that are the same.
        at: LogPosition,
        /// Where their log is kept from there on, if it is.
        evidence: Option<String>,
    },
    /// It is written here, and there is more of it there: this store was put back to an older state. Nothing was taken.
    RolledBack,
    /// Files that it names, and our log does not yet, are damaged there. Its log was not taken.
    Damaged,
    /// It cannot be read, or is not to be taken.
    Refused {
        /// Where.
        side: Side,
        /// Why.
        error: Error,
    },
    /// It is not among [`SyncOptions::only`].
    PassedOver,
}

/// One instance of the other store.
#[derive(Debug)]
pub struct SyncedInstance {
    /// Which.
    pub store: StoreId,
    /// How far our log of it went.
    pub before: Option<Head>,
    /// How far it goes now.
    pub after: Option<Head>,
    /// How far theirs goes.
    pub theirs: Option<Head>,
    /// Blocks that were brought; with [`SyncOptions::dry_run`], would be.
    pub blocks: u64,
    /// Bytes of all files that were brought.
    pub bytes: u64,
    /// Of these, bytes that the filesystem shares with the other store's files.
    pub shared_bytes: u64,
    /// Of the blocks, those that our log named already and whose file was lost or damaged.
    pub healed: u64,
    /// What was wrong with these, and with segments and state files of ours that came again; with [`SyncOptions::dry_run`], is and would.
    pub healed_files: Vec<HealedFile>,
    /// Blocks of ours that were read to the last byte, or to where they are damaged.
    pub verified: u64,
    /// Bytes of these.
    pub verified_bytes: u64,
    /// Files that are not what their log says, and that no whole one came for. Those that our log names already keep nothing from being taken.
    pub damaged: Vec<DamagedFile>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a sync did.
#[derive(Debug)]
pub struct SyncReport {
    /// The instances of the other store, the one at its top first.
    pub instances: Vec<SyncedInstance>,
    /// What lies among the other store's instances and is none.
    pub problems: Vec<Problem>,
    /// Whether the vectors of both are equal now; with [`SyncOptions::dry_run`], would be.
    pub equal: bool,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

/// One instance in both stores.
pub(crate) struct Plan {
    pub(crate) id: StoreId,
    pub(crate) from: Arc<dyn Vfs>,
    pub(crate) into: Arc<dyn Vfs>,
    /// How far our log of it goes.
    pub(crate) before: Option<Head>,
    /// Whether its files lie at the top of our store.
    at_top: bool,
}

/// An instance on its way.
struct Work {
    plan: Plan,
    source: Option<Source>,
    wanted: Vec<Wanted>,
    brought: Brought,
    outcome: Outcome,
}

impl Work {
    /// Whether our log of it is to be extended.
    fn is_taken(&self) -> bool {
        matches!(self.outcome, Outcome::Taken)
    }

    /// Whether its blocks may be brought: to be named, or to heal what is named.
    fn is_sound(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Taken | Outcome::Equal | Outcome::Ahead
        )
    }

    fn theirs(&self) -> Option<Head> {
        self.source.as_ref().map(Source::head)
    }

    fn done(self) -> SyncedInstance {
        let theirs = self.theirs();
        let after = match self.outcome {
            Outcome::Taken => theirs,
            _ => self.plan.before,
        };
        SyncedInstance {
            store: self.plan.id,
            before: self.plan.before,
            after,
            theirs,
            blocks: self.brought.blocks,
            bytes: self.brought.bytes,
            shared_bytes: self.brought.shared_bytes,
            healed: self.brought.healed,
            healed_files: self.brought.healed_files,
            verified: self.brought.verified,
            verified_bytes: self.brought.verified_bytes,
            damaged: self.brought.damaged,
            outcome: self.outcome,
        }
    }
}

/// Takes the instances of the store `from` over into the store `into`, which is locked meanwhile. Both are directories of stores.
///
/// Where `into` holds no store yet, the instance at the top of `from` gets to its top: a mirror.
///
/// # Errors
/// [`Error::Locked`]; [`Error::NotAStore`] for `from`, and [`Error::NotEmpty`] for an `into` that holds something else; [`Error::Io`] and
/// [`Error::Full`] where our store cannot be written or the other one vanished: then what was brought stays for the next sync, and
/// no log was extended but in part. What is wrong with one instance is its [`Outcome`].
pub fn sync(
    into: &Arc<dyn Vfs>,
    from: &Arc<dyn Vfs>,
    context: &Context,
    options: &SyncOptions,
    observer: &dyn SyncObserver,
) -> Result<SyncReport> {
    let (theirs, problems) = instances_of(from)?;
    let our_top = match LogFiles::list(&**into) {
        Ok(files) => Some(files.store_id()),
        Err(Error::NotAStore) => {
            check_vacant(&**into)?;
            None
        }
        Err(error) => return Err(error),
    };
    let top = our_top.unwrap_or(theirs[0]);
    let _lock = match options.dry_run {
        true => None,
        false => {
            ensure_dirs(&**into)?;
            Some(take_lock(&**into, context)?)
        }
    };
    let mut work = Vec::with_capacity(theirs.len());
    for (nth, id) in theirs.iter().enumerate() {
        let from = match nth {
            0 => from.clone(),
            _ => files_of(from, id)?,
        };
        let at_top = *id == top;
        let files = match at_top {
            true => into.clone(),
            false => files_of(into, id)?,
        };
        let plan = Plan {
            id: *id,
            from,
            into: files,
            before: None,
            at_top,
        };
        work.push(look_at(&**into, plan, context, options)?);
    }
    let stopped = if options.dry_run {
        plan_only(&mut work, options, observer)?
    } else {
        take(into, &mut work, options, observer)?
    };
    let instances: Vec<_> = work.into_iter().map(Work::done).collect();
    let equal = is_equal(into, our_top, &instances)?;
    Ok(SyncReport {
        instances,
        problems,
        equal,
        stopped,
    })
}

/// The instances of a store directory, that at its top first.
fn instances_of(from: &Arc<dyn Vfs>) -> Result<(Vec<StoreId>, Vec<Problem>)> {
    let top = LogFiles::list(&**from)?.store_id();
    let listed = list(from)?;
    let mut ids = vec![top];
    ids.extend(listed.ids.into_iter().filter(|id| *id != top));
    Ok((ids, listed.problems))
}

/// Refuses a directory that holds anything but a mirror that was begun.
fn check_vacant(into: &dyn Vfs) -> Result<()> {
    let present = into.list("").map_err(Error::io("list", "the directory"))?;
    let ours = [COPIED_PATH, INSTANCES_DIR, fork::EVIDENCE_DIR];
    for name in present.into_iter().map(|entry| entry.name) {
        if !is_usual(&name) && !ours.contains(&&*name) {
            return Err(Error::NotEmpty { found: name });
        }
    }
    let blocks = into.list(block::SEALED_DIR).unwrap_or_default();
    if !blocks.is_empty() && !is_copied(into) {
        let found = format!("{}/{}", block::SEALED_DIR, blocks[0].name);
        return Err(Error::NotEmpty { found });
    }
    Ok(())
}

/// Reads both logs of an instance and decides what is to become of it.
fn look_at(
    top: &dyn Vfs,
    mut plan: Plan,
    context: &Context,
    options: &SyncOptions,
) -> Result<Work> {
    let refused = |side, error| Outcome::Refused { side, error };
    let (mut source, outcome) = match Target::read(&*plan.into, plan.id) {
        Err(error) => (None, refused(Side::Here, error)),
        Ok(target) => {
            plan.before = target.as_ref().map(|target| target.head(plan.id));
            let is_own = target.as_ref().is_some_and(|target| {
                is_written(&*plan.into, target.home.as_ref(), context.home.as_ref())
            });
            let ours = target.as_ref().map(|target| (&*plan.into, target));
            if options
                .only
                .as_ref()
                .is_some_and(|of| !of.contains(&plan.id))
            {
                (None, Outcome::PassedOver)
            } else {
                match Source::read(&*plan.from, plan.id, ours) {
                    Ok(source) => {
                        let outcome = match source.standing {
                            Standing::New => Outcome::Taken,
                            Standing::Behind if is_own => Outcome::RolledBack,
                            Standing::Behind => Outcome::Taken,
                            Standing::Equal => Outcome::Equal,
                            Standing::Ahead => Outcome::Ahead,
                            Standing::Forked { at } => Outcome::Forked { at, evidence: None },
                        };
                        (Some(source), outcome)
                    }
                    Err(error @ Error::Io { .. }) if plan.from.list("log").is_err() => {
                        return Err(error);
                    }
                    Err(error) => (None, refused(Side::There, error)),
                }
            }
        }
    };
    let mut work = Work {
        wanted: Vec::new(),
        brought: Brought::default(),
        source: source.take(),
        plan,
        outcome,
    };
    if let (Outcome::Forked { evidence, at }, Some(source), false) =
        (&mut work.outcome, &work.source, options.dry_run)
    {
        *evidence = match fork::keep(top, &work.plan, source, *at) {
            // What cannot be kept is still told of.
            Err(Error::Full { .. }) => None,
            kept => kept?,
        };
    }
    work.want(options);
    Ok(work)
}

impl Work {
    fn want(&mut self, options: &SyncOptions) {
        if let Some(source) = self.source.as_ref().filter(|_| self.is_sound()) {
            (self.wanted, self.brought.with_lists) =
                blocks::wanted(&self.plan, source, options.verify, &self.brought.whole);
        }
    }
}

/// Counts what would be brought; whether somebody stopped it.
fn plan_only(
    work: &mut [Work],
    options: &SyncOptions,
    observer: &dyn SyncObserver,
) -> Result<bool> {
    let all = work.iter().flat_map(|one| &one.wanted);
    let progress = Progress::of(observer, all, true);
    for one in work.iter_mut().filter(|one| one.is_sound()) {
        let brought = blocks::bring_blocks(&one.plan, &one.wanted, options, &progress)?;
        one.brought.join(brought);
        if let Some(source) = one.source.as_ref().filter(|_| options.verify)
            && !progress.is_stopped()
        {
            let taken = one.outcome.is_taken();
            let brought = &mut one.brought;
            caches::bring_caches(&one.plan, source, taken, options, &progress, brought)?;
        }
    }
    Ok(progress.is_stopped())
}

/// Steps 1 to 3; whether somebody stopped it.
fn take(
    into: &Arc<dyn Vfs>,
    work: &mut [Work],
    options: &SyncOptions,
    observer: &dyn SyncObserver,
) -> Result<bool> {
    let progress = Progress::of(observer, work.iter().flat_map(|one| &one.wanted), false);
    for one in work.iter_mut().filter(|one| one.is_sound()) {
        if one.is_taken() || one.wanted.iter().any(|wanted| !wanted.read) {
            make_room(into, &one.plan)?;
        }
        if one.is_taken() {
            mark_copied(&*one.plan.into)?;
        }
        blocks::clear_ingest(&*one.plan.into);
        bring(one, options, &progress)?;
    }
    if observer.is_stopped() {
        for one in work.iter_mut().filter(|one| one.is_taken()) {
            one.outcome = Outcome::Stopped;
        }
        return Ok(true);
    }
    let opened = as_they_will_be(work)?;
    let around = around(into, work, &opened);
    for one in work.iter_mut() {
        let (Some(source), Some(own)) = (&one.source, opened.get(&one.plan.id)) else {
            continue;
        };
        if !one.brought.with_lists.is_empty() {
            let others = around.iter().filter(|(id, _)| **id != one.plan.id);
            let others = others.map(|(_, other)| other.clone()).collect();
            let store = StoreHandle::union(own.clone(), others, Vec::new());
            blocks::check_all_lists(&one.plan, source, &mut one.brought, &store)?;
        }
        // What our log names already is none the worse for it.
        let is_new = |damaged: &DamagedFile| damaged.here.is_none();
        if one.brought.damaged.iter().any(is_new) && !options.accept_damaged {
            one.outcome = Outcome::Damaged;
        }
    }
    for one in work.iter().filter(|one| one.is_taken()) {
        if let Some(instance) = opened.get(&one.plan.id) {
            match caches::make_caches(&one.plan, instance) {
                // Readers do without.
                Err(error) if error.is_full() => {}
                made => made?,
            }
        }
    }
    for one in work.iter_mut().filter(|one| one.is_taken()) {
        if let Some(source) = &one.source {
            log::extend(&one.plan, source)?;
        }
    }
    Ok(false)
}

/// The instances that are taken, as they will be once their logs are here.
fn as_they_will_be(work: &[Work]) -> Result<BTreeMap<StoreId, Arc<Instance>>> {
    let mut opened = BTreeMap::new();
    for one in work.iter().filter(|one| one.is_taken()) {
        if let Some(source) = &one.source {
            let files = one.plan.into.clone();
            let prefix = match one.plan.at_top {
                true => String::new(),
                false => format!("{}/", instance_dir(&one.plan.id)),
            };
            let state = source.state.clone();
            let instance = Instance::of_state(files, prefix, state, LogEnd::Clean)?;
            opened.insert(one.plan.id, Arc::new(instance));
        }
    }
    Ok(opened)
}

/// All instances that will be here, if there are lists whose parts may lie anywhere.
fn around(
    into: &Arc<dyn Vfs>,
    work: &[Work],
    opened: &BTreeMap<StoreId, Arc<Instance>>,
) -> BTreeMap<StoreId, Arc<Instance>> {
    let mut around = BTreeMap::new();
    if work.iter().all(|one| one.brought.with_lists.is_empty()) {
        return around;
    }
    // A place that is to become a mirror has none yet.
    if let Ok(store) = StoreHandle::open(into.clone()) {
        let (own, others) = store.parts();
        for one in std::iter::once(own).chain(others) {
            let id = one.view.read().map(|view| view.state.store_id());
            around.extend(id.ok().map(|id| (id, one.clone())));
        }
    }
    around.extend(opened.iter().map(|(id, one)| (*id, one.clone())));
    around
}

impl Outcome {
    fn is_taken(&self) -> bool {
        matches!(self, Outcome::Taken)
    }
}

/// Makes the directories of an instance that is new here.
fn make_room(into: &Arc<dyn Vfs>, plan: &Plan) -> Result<()> {
    if !plan.at_top {
        let dir = instance_dir(&plan.id);
        if into.metadata(&dir).is_err() && list(into)?.ids.len() >= INSTANCES_MAX {
            return Err(Error::TooLong {
                what: "the list of instances",
                len: INSTANCES_MAX as u64 + 1,
                max: INSTANCES_MAX as u64,
            });
        }
        let mut parent = "";
        for dir in [INSTANCES_DIR, &dir] {
            into.create_dir(dir).map_err(Error::io("create", dir))?;
            into.sync_dir(parent).map_err(Error::io("sync", parent))?;
            parent = dir;
        }
    }
    ensure_dirs(&*plan.into)
}

/// Says of an instance that a sync brought it, before any of it is here.
fn mark_copied(into: &dyn Vfs) -> Result<()> {
    let failed = |action| Error::io(action, COPIED_PATH);
    match into.create_exclusive(COPIED_PATH) {
        Ok(file) => {
            // For people; that there is such a file is all that counts.
            let words =
                b"This came by asl store sync. Nothing here is written to but by the next sync.\n";
            file.write_at(0, &[words]).map_err(failed("write"))?;
            file.sync().map_err(failed("sync"))?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("create")(error)),
    }
    // Whoever made it may have died before its name was durable.
    into.sync_dir("").map_err(Error::io("sync", ""))
}

/// Brings the files of one instance. Whoever writes it may retire some meanwhile: then its log, which is longer by then, is read
/// again.
fn bring(one: &mut Work, options: &SyncOptions, progress: &Progress) -> Result<()> {
    for _ in 0..TRIES {
        let Some(source) = &one.source else {
            return Ok(());
        };
        let mut brought = blocks::bring_blocks(&one.plan, &one.wanted, options, progress)?;
        let taken = one.outcome.is_taken();
        if (taken || options.verify) && !progress.is_stopped() {
            caches::bring_caches(&one.plan, source, taken, options, progress, &mut brought)?;
        }
        one.brought.join(brought);
        if one.brought.damaged.is_empty() || progress.is_stopped() || !one.outcome.is_taken() {
            return Ok(());
        }
        let before = source.head();
        let target = Target::read(&*one.plan.into, one.plan.id)?;
        let ours = target.as_ref().map(|target| (&*one.plan.into, target));
        let Ok(again) = Source::read(&*one.plan.from, one.plan.id, ours) else {
            return Ok(());
        };
        let grown = again.head().position > before.position
            && matches!(again.standing, Standing::New | Standing::Behind);
        if !grown {
            return Ok(());
        }
        one.source = Some(again);
        one.brought.damaged.clear();
        one.want(options);
    }
    Ok(())
}

/// Whether the vectors are equal.
fn is_equal(
    into: &Arc<dyn Vfs>,
    our_top: Option<StoreId>,
    instances: &[SyncedInstance],
) -> Result<bool> {
    let same = |of: &SyncedInstance| of.after.is_some() && of.after == of.theirs;
    let ours = list(into)?.ids.into_iter().chain(our_top);
    let known: BTreeSet<_> = instances.iter().map(|of| of.store).collect();
    Ok(instances.iter().all(same) && ours.into_iter().all(|id| known.contains(&id)))
}
