//! What a promotion would do, found out without writing anything: steps 0 to 4.
//!
//! Nothing is written; a crash leaves nothing.

use std::collections::{BTreeMap, HashSet};

use asl_store::block;
use asl_store::frame::parse_tombstones;
use asl_store::id::Digest;
use asl_store::import::whole_frames;
use asl_store::segment::IndexRecord;
use asl_store::vfs::Access;
use asl_store::{BlockId, Key, LogPosition, SessionId, StoreHandle, format};

use super::Request;
use super::blocks::{Action, Step, Tally, blocks, captures_of, digests, is_takable, sizes};
use super::commit::Tail;
use super::error::{DamagedBlock, PromoteError};
use super::history::{self, Standing};
use super::sessions::{self, Coming, Takeover};
use super::source::{Instance, Source};
use crate::domain::{Class, Domain};
use crate::error::Result;
use crate::id::DomainId;
use crate::lineage::{Checks, Contents, Lineage, Op};
use crate::mint::{Done, MintError};
use crate::pin::{Compared, Pin};
use crate::policy::{Foreign, Policy};
use crate::trust::{LogPin, LogSeen, Trusted};
use crate::verify::Report;

/// Whether there is anything to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// There is.
    Due,
    /// What comes after the lineage was interrupted: receipts, snapshot, checkpoint.
    Unfinished {
        /// The lineage.
        lineage: Key,
    },
    /// Nothing: this lineage says it all.
    Promoted {
        /// The lineage.
        lineage: Key,
    },
    /// Nothing: an instance beside others that was begun and never came to hold anything.
    Empty,
}

impl Progress {
    /// Whether nothing is to be done.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Promoted { .. } | Self::Empty)
    }
}

/// A promotion that may be carried out.
#[derive(Debug)]
pub struct Plan {
    /// The target's domain; none where it is still to be founded. Such a plan is only looked at.
    pub parent: Option<DomainId>,
    /// The source's instances, in its order: each is taken over by itself.
    pub instances: Vec<InstancePlan>,
    /// How the child's manifests compare with what was remembered; `None` where nothing was.
    pub manifest: Option<Compared>,
    /// What the source shows, over all its instances.
    pub contents: Contents,
    /// Bytes that the target's filesystem still takes, where it says.
    pub available_bytes: Option<u64>,
    /// Keys that the source does not show, though its blocks have them.
    pub(super) hidden: HashSet<Key>,
    pub(super) accept_damaged: bool,
}

/// What is to be done with one instance.
#[derive(Debug)]
pub struct InstancePlan {
    /// Whether there is anything to do.
    pub progress: Progress,
    /// What its log proves.
    pub child: Report,
    /// What it will be to the target.
    pub op: Op,
    /// How far its log was read.
    pub head: LogPin,
    /// What its own log shows.
    pub contents: Contents,
    /// The blocks, by what becomes of them.
    pub blocks: BTreeMap<Action, Tally>,
    /// The damaged ones. Only with the request's consent is there a plan.
    pub damaged: Vec<DamagedBlock>,
    /// Captures that become captures of the target.
    pub sessions: Vec<Takeover>,
    /// Sessions that did not end, here or in another instance: they stay behind.
    pub unfinished: Vec<SessionId>,
    /// The lineage without what is known only at the end.
    pub(super) lineage: Lineage,
    prev: Option<Lineage>,
    pub(super) steps: Vec<Step>,
    pub(super) finished: Vec<Done>,
    /// Lineages of the same store that the target had.
    pub(super) links: usize,
}

impl Plan {
    /// Whether nothing is to be done.
    pub fn is_done(&self) -> bool {
        self.instances.iter().all(|plan| plan.progress.is_done())
    }

    /// Blocks and bytes that are to be moved.
    pub fn to_move(&self) -> Tally {
        [Action::Bring, Action::Repack, Action::Salvage]
            .map(|action| self.blocks(action))
            .into_iter()
            .fold(Tally::default(), Tally::and)
    }

    /// Blocks and bytes of one fate.
    pub fn blocks(&self, action: Action) -> Tally {
        let of = |plan: &InstancePlan| plan.blocks.get(&action).copied().unwrap_or_default();
        let tallies = self.instances.iter().map(of);
        tallies.fold(Tally::default(), Tally::and)
    }

    /// The child's domain.
    pub fn child_domain(&self) -> DomainId {
        self.child().id()
    }

    /// The child's domain as the first instance's log has it. Its manifests are those of all instances.
    pub fn child(&self) -> &Domain {
        &self.instances[0].child.domain
    }

    /// The source's logs as they were read, for [`Trust::pin`](crate::trust::Trust::pin). A fork moves no pin.
    pub fn seen(&self) -> Vec<LogSeen> {
        self.instances
            .iter()
            .filter_map(InstancePlan::seen)
            .collect()
    }
}

impl InstancePlan {
    /// The log as it was read; see [`Plan::seen`].
    pub fn seen(&self) -> Option<LogSeen> {
        (self.op != Op::Fork).then_some(LogSeen {
            head: self.head,
            at: Some((self.head.position, self.head.chain)),
        })
    }
}

/// What a plan is made for: a store, and the domain in it.
#[derive(Clone, Copy)]
pub(super) struct Onto<'t> {
    pub(super) target: &'t StoreHandle,
    pub(super) parent: &'t Domain,
}

/// Reads the source and the target, and compares. Nothing is written, and nothing needs a key.
///
/// # Errors
/// [`PromoteError`]; [`Refusal`](crate::Refusal) by the target's policy; [`VerifyError`](crate::verify::VerifyError) where the source is
/// of another domain than the request says; [`asl_store::Error`].
pub fn examine(
    source: &Source,
    target: &StoreHandle,
    remembered: Option<&Trusted>,
    request: &Request<'_>,
) -> Result<Plan> {
    let reports = prove(source, request)?;
    let parent = open_target(target)?;
    if parent.id() == request.expect {
        return Err(PromoteError::SameDomain(parent.id()).into());
    }
    let onto = Onto {
        target,
        parent: &parent,
    };
    let policy = &parent.chain.head().policy;
    look(source, reports, Some(onto), policy, remembered, request)
}

/// What [`examine`] would find in a domain that is still to be founded, with this policy and nothing in it: all that can be refused
/// before there is one. The plan cannot be carried out; another one is made once the domain is there.
///
/// # Errors
/// As [`examine`].
pub fn examine_new(
    source: &Source,
    policy: &Policy,
    remembered: Option<&Trusted>,
    request: &Request<'_>,
) -> Result<Plan> {
    let reports = prove(source, request)?;
    look(source, reports, None, policy, remembered, request)
}

/// Steps 0 and 1.
fn prove(source: &Source, request: &Request<'_>) -> Result<Vec<Report>> {
    for instance in source.instances() {
        instance.check_index()?;
    }
    source.judge(request.finished, &request.expect)
}

/// Steps 2 to 4.
fn look(
    source: &Source,
    reports: Vec<Report>,
    onto: Option<Onto<'_>>,
    policy: &Policy,
    remembered: Option<&Trusted>,
    request: &Request<'_>,
) -> Result<Plan> {
    let parent = onto.map(|onto| onto.parent);
    let mut manifest = None;
    if let Some(pin) = remembered.and_then(|trusted| trusted.manifest.as_ref()) {
        for report in reports.iter().rev() {
            manifest = Some(check_manifest(pin, &report.domain, request.fork)?);
        }
    }
    let mut standings = Vec::new();
    let mut removed = HashSet::new();
    for (instance, report) in source.instances().iter().zip(&reports) {
        let pin = remembered.and_then(|trusted| trusted.log(&instance.store_id()));
        let how = (request.fork, request.accept_rebuilt);
        let mut standing = history::standing(instance, &report.domain, parent, pin, how)?;
        removed.extend(std::mem::take(&mut standing.scan.removed));
        standings.push(standing);
    }
    let asked = match request.level {
        crate::lineage::Level::Bytes => Foreign::Bytes,
        crate::lineage::Level::Semantics => Foreign::Semantics,
    };
    policy.admit_foreign(asked)?;

    let finished = sessions::finished(source, request)?;
    let unfinished = sessions::unfinished(source);
    let mut coming = Coming::new();
    let mut instances = Vec::new();
    let of_each = standings
        .into_iter()
        .zip(reports)
        .zip(finished)
        .zip(unfinished);
    for (nth, (((standing, child), finished), unfinished)) in of_each.enumerate() {
        let instance = &source.instances()[nth];
        let looked = Looked {
            standing,
            child,
            finished,
            unfinished,
        };
        let mut plan = looked.plan(instance, onto, request, &mut coming)?;
        if let Some(Onto { target, parent }) = onto {
            plan.look_whether_done(instance, target, parent)?;
        }
        if nth > 0 {
            plan.look_whether_empty(instance)?;
        }
        instances.push(plan);
    }
    let contents = match &instances[..] {
        [only] => only.contents.clone(),
        _ => contents(source.store())?,
    };
    let mut plan = Plan {
        parent: parent.map(Domain::id),
        instances,
        manifest,
        contents,
        available_bytes: onto
            .and_then(|onto| onto.target.vfs().statfs().ok())
            .map(|stat| stat.available_bytes),
        hidden: match onto {
            Some(onto) => hidden(source, &request.expect, onto.target, removed)?,
            None => HashSet::new(),
        },
        accept_damaged: request.accept_damaged,
    };
    plan.look_for_damage(source)?;
    Ok(plan)
}

/// What is known of an instance when its blocks are looked at.
struct Looked {
    standing: Standing,
    child: Report,
    finished: Vec<Done>,
    unfinished: Vec<SessionId>,
}

impl Looked {
    fn plan(
        self,
        instance: &Instance,
        onto: Option<Onto<'_>>,
        request: &Request<'_>,
        coming: &mut Coming,
    ) -> Result<InstancePlan> {
        let Self {
            standing,
            child,
            finished,
            unfinished,
        } = self;
        let head = instance.head();
        let op = standing.op;
        let how = (op, request.level);
        let domain = &child.domain;
        let sessions = sessions::new(&head, onto, domain, how, &finished, coming)?;
        let contents = contents(instance.store())?;
        let (steps, damaged) = blocks(instance, onto.map(|onto| onto.target))?;
        let parent = onto.map(|onto| onto.parent);
        let prev = standing.prev.as_ref().map(|(_, link)| link.clone());
        let lineage = lineage(parent, domain, &head, &contents, request, standing);
        Ok(InstancePlan {
            progress: Progress::Due,
            op,
            head,
            contents,
            blocks: sizes(&steps),
            damaged,
            sessions,
            unfinished,
            lineage,
            prev,
            steps,
            finished,
            links: parent.map_or(0, |parent| links(parent, &head)),
            child,
        })
    }
}

/// What a store shows.
fn contents(store: &StoreHandle) -> Result<Contents> {
    let mut contents = Contents::default();
    store.for_each(&mut |record| {
        contents.push(&record.key, record.raw_len);
        Ok(())
    })?;
    Ok(contents)
}

impl Plan {
    /// Refuses damage that nobody accepted, all of it at once, with the captures that it hits.
    fn look_for_damage(&mut self, source: &Source) -> Result<()> {
        let finished: Vec<Done> = (self.instances.iter())
            .flat_map(|plan| plan.finished.iter().copied())
            .collect();
        let mut refused = Vec::new();
        for (plan, instance) in self.instances.iter_mut().zip(source.instances()) {
            if plan.progress != Progress::Due || plan.damaged.is_empty() {
                continue;
            }
            let salvaged = plan.steps.iter();
            let salvaged = salvaged.filter(|step| step.action == Action::Salvage);
            let ids: Vec<BlockId> = salvaged.map(|step| step.id).collect();
            let captures = captures_of(instance, &finished, &ids)?;
            for (block, captures) in plan.damaged.iter_mut().zip(captures) {
                block.captures = captures;
            }
            if !self.accept_damaged {
                refused.append(&mut plan.damaged);
            }
        }
        match refused.is_empty() {
            true => Ok(()),
            false => Err(PromoteError::Damaged { blocks: refused }.into()),
        }
    }
}

impl InstancePlan {
    /// Sets [`progress`](Self::progress) where a lineage says it all.
    fn look_whether_done(
        &mut self,
        source: &Instance,
        target: &StoreHandle,
        parent: &Domain,
    ) -> Result<()> {
        let (Some(key), Some(link)) = (self.lineage.prev, &self.prev) else {
            return Ok(());
        };
        let same = (link.position, link.chain) == (self.head.position, self.head.chain);
        if link.op != self.op
            || link.level < self.lineage.level
            || !same && !self.is_only_retired(source, parent, link)?
        {
            return Ok(());
        }
        let listed = |takeover: &Takeover| link.sessions.contains(&takeover.here);
        if !self.sessions.iter().all(listed) || link.missing > 0 && self.gains(source, target)? {
            return Ok(());
        }
        let state = parent.lineage.iter().find(|state| state.key == key);
        let Some(state) = state else {
            return Ok(());
        };
        let tail = Tail::of(
            target,
            parent,
            &self.child.domain,
            &self.finished,
            state,
            link,
        );
        self.progress = match tail.is_empty() {
            true => Progress::Promoted { lineage: key },
            false => Progress::Unfinished { lineage: key },
        };
        Ok(())
    }

    /// Sets [`progress`](Self::progress) where there is nothing but what speaks of authority, as after a birth.
    fn look_whether_empty(&mut self, source: &Instance) -> Result<()> {
        if self.op == Op::Adopt
            && self.prev.is_none()
            && source.says_only_authority_since(LogPosition(0), &self.child.domain)?
        {
            self.progress = Progress::Empty;
            self.steps.clear();
            self.blocks.clear();
            self.damaged.clear();
        }
        Ok(())
    }

    /// Whether all that came since a lineage is that the child was given up for this target.
    fn is_only_retired(&self, source: &Instance, parent: &Domain, link: &Lineage) -> Result<bool> {
        let child = &self.child.domain;
        let is_ours = |key: &Key| parent.links().any(|(state, _)| state.key == *key);
        let because = |(_, retired): (_, &Lineage)| {
            retired.op == Op::Retire
                && retired.parent == parent.id()
                && retired.prev.as_ref().is_some_and(is_ours)
        };
        Ok(child.links().any(because) && source.says_only_authority_since(link.position, child)?)
    }

    /// Whether something can be taken now that could not be before.
    fn gains(&self, source: &Instance, target: &StoreHandle) -> Result<bool> {
        let vfs = &**source.store().vfs();
        let due = self.steps.iter().filter(|step| step.action != Action::Have);
        for step in due {
            let path = block::sealed_path(&step.digest);
            let Ok(file) = vfs.open(&path, Access::Read) else {
                continue;
            };
            let frames = whole_frames(vfs, &path).unwrap_or_default();
            for entry in frames.iter().filter(|entry| entry.info.is_artifact()) {
                let missing = target.lookup_part(&entry.info.key)?.is_none();
                if missing && is_takable(&*file, &path, entry) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// What the source removed and the target does not show. Where a promotion of it was cut off, what that wrote down counts: of the append
/// that makes a block visible and hides some of it a power cut may have kept the beginning.
fn hidden(
    source: &Source,
    child: &DomainId,
    target: &StoreHandle,
    removed: HashSet<Key>,
) -> Result<HashSet<Key>> {
    let cut_off = sessions::cut_off_promotions(source, child, target);
    let begun: Vec<BlockId> = target.with_state(|state| {
        let blocks = state.blocks.iter();
        let of_these = blocks.filter(|(_, info)| cut_off.contains(&info.session));
        of_these.map(|(id, _)| BlockId(*id)).collect()
    });
    let mut written = HashSet::new();
    for id in begun {
        target.notes::<asl_store::Error>(id, &mut |note_type, note| {
            if note_type == format::NOTE_TOMBSTONES {
                let (_, keys) = parse_tombstones(&note).unwrap_or_default();
                written.extend(keys);
            }
            Ok(())
        })?;
    }
    let theirs: HashSet<Digest> = match written.is_empty() {
        true => HashSet::new(),
        false => (source.instances().iter())
            .flat_map(|instance| digests(instance.store()))
            .collect(),
    };
    let came = |record: &IndexRecord| {
        let block = target.with_state(|state| state.block(record.block).copied());
        block.is_some_and(|block| match block.origin {
            format::ORIGIN_IMPORTED => theirs.contains(&Digest(block.digest)),
            _ => cut_off.contains(&block.session),
        })
    };
    let mut hidden = HashSet::new();
    for key in removed {
        if source.store().lookup(&key)?.is_some() {
            continue;
        }
        let hides = match target.lookup(&key)? {
            None => true,
            Some(shown) => written.contains(&key) && came(&shown),
        };
        if hides {
            hidden.insert(key);
        }
    }
    Ok(hidden)
}

/// Lineages of a store.
pub(super) fn links(parent: &Domain, head: &LogPin) -> usize {
    let links = parent.links();
    links.filter(|(_, link)| link.store == head.store).count()
}

/// The target's domain, if it can take anything over.
pub(super) fn open_target(target: &StoreHandle) -> Result<Domain> {
    let parent = Domain::read(target)?.ok_or(PromoteError::TargetNoDomain)?;
    if parent.is_blind() {
        return Err(MintError::Blind.into());
    }
    if !parent.chain.forks().is_empty() {
        let class = Class::Fork;
        return Err(PromoteError::Target { class }.into());
    }
    Ok(parent)
}

fn check_manifest(pin: &Pin, child: &Domain, fork: bool) -> Result<Compared, PromoteError> {
    let found = pin.check(&child.chain);
    match found {
        Compared::Same | Compared::Ahead { .. } | Compared::Superseded { .. } => Ok(found),
        // Another history may well have other manifests.
        Compared::Rollback { .. } | Compared::Fork { .. } if fork => Ok(found),
        _ => Err(PromoteError::Manifest {
            pinned: Box::new(*pin),
            found,
        }),
    }
}

/// Without a parent, the lineage that it would be, but for that.
fn lineage(
    parent: Option<&Domain>,
    child: &Domain,
    head: &LogPin,
    contents: &Contents,
    request: &Request<'_>,
    standing: Standing,
) -> Lineage {
    let Standing {
        op,
        prev,
        continues,
        ..
    } = standing;
    let genesis = child.chain.path().next();
    let mut checks = Checks::LOG.and(Checks::DOMAIN);
    if continues {
        checks = checks.and(Checks::CONTINUES);
    }
    Lineage {
        op,
        level: request.level,
        parent: parent.map_or(DomainId([0; 32]), Domain::id),
        parent_head: parent.map_or(Key::ZERO, |parent| parent.chain.head_key()),
        child: child.id(),
        child_genesis: genesis.expect("a chain has a genesis").key,
        child_head: child.chain.head_key(),
        store: head.store,
        position: head.position,
        chain: head.chain,
        manifest_root: contents.root(),
        artifacts: contents.artifacts(),
        bytes: contents.bytes(),
        missing: 0,
        checks,
        log: Vec::new(),
        sessions: Vec::new(),
        prev: prev.map(|(key, _)| key),
        tool: request.tool.to_owned(),
    }
}
