//! What a promotion would do, found out without writing anything: steps 0 to 4.
//!
//! Nothing is written; a crash leaves nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use asl_store::block::{self, Entry};
use asl_store::frame::{decode, parse_tombstones};
use asl_store::id::Digest;
use asl_store::import::{read_frame, whole_frames};
use asl_store::index::open_block;
use asl_store::segment::IndexRecord;
use asl_store::state::BlockInfo;
use asl_store::vfs::{Access, VfsFile};
use asl_store::{BlockId, Key, SessionId, StoreHandle, format};

use super::Request;
use super::closure::Closure;
use super::commit::Tail;
use super::error::{DamagedBlock, PromoteError, what};
use super::history::{self, Standing};
use super::sessions::{self, Takeover};
use super::source::Source;
use crate::domain::{Class, Domain};
use crate::error::Result;
use crate::id::DomainId;
use crate::lineage::{Checks, Contents, Lineage, Op};
use crate::mint::{Done, MintError};
use crate::pin::{Compared, Pin};
use crate::policy::Foreign;
use crate::trust::{LogPin, LogSeen, Trusted};
use crate::verify::Report;

/// What becomes of a block of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It is in the target already.
    Have,
    /// It comes over whole.
    Bring,
    /// The target has most of it: the rest comes over piece by piece.
    Repack,
    /// It is damaged: what is whole in it comes over piece by piece.
    Salvage,
}

/// Blocks of one fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many.
    pub blocks: u64,
    /// Lengths of their files together, in bytes.
    pub bytes: u64,
}

/// A block of the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) id: BlockId,
    pub(super) digest: Digest,
    pub(super) file_len: u64,
    pub(super) artifacts: u64,
    pub(super) action: Action,
}

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
}

/// A promotion that may be carried out.
#[derive(Debug)]
pub struct Plan {
    /// The target's domain.
    pub parent: DomainId,
    /// Whether there is anything to do.
    pub progress: Progress,
    /// What the source's log proves.
    pub child: Report,
    /// How the child's manifests compare with what was remembered; `None` where nothing was.
    pub manifest: Option<Compared>,
    /// What it will be to the target.
    pub op: Op,
    /// How far the source's log was read.
    pub head: LogPin,
    /// What the source shows.
    pub contents: Contents,
    /// The blocks, by what becomes of them.
    pub blocks: BTreeMap<Action, Tally>,
    /// The damaged ones. Only with the request's consent is there a plan.
    pub damaged: Vec<DamagedBlock>,
    /// Captures that become captures of the target.
    pub sessions: Vec<Takeover>,
    /// Sessions of the source that did not end: they stay behind.
    pub unfinished: Vec<SessionId>,
    /// Bytes that the target's filesystem still takes, where it says.
    pub available_bytes: Option<u64>,
    /// The lineage without what is known only at the end.
    pub(super) lineage: Lineage,
    prev: Option<Lineage>,
    pub(super) steps: Vec<Step>,
    /// Keys that the source does not show, though its blocks have them.
    pub(super) hidden: HashSet<Key>,
    pub(super) finished: Vec<Done>,
    pub(super) accept_damaged: bool,
    /// Lineages of the same store that the target had.
    pub(super) links: usize,
}

impl Plan {
    /// Blocks and bytes that are to be moved.
    pub fn to_move(&self) -> Tally {
        let moved = [Action::Bring, Action::Repack, Action::Salvage];
        let mut sum = Tally::default();
        for tally in moved.iter().filter_map(|action| self.blocks.get(action)) {
            sum.blocks += tally.blocks;
            sum.bytes += tally.bytes;
        }
        sum
    }

    /// The child's domain.
    pub fn child_domain(&self) -> DomainId {
        self.child.domain.id()
    }

    /// The source's log as it was read, for [`Trust::pin`](crate::trust::Trust::pin). A fork moves no pin.
    pub fn seen(&self) -> Option<LogSeen> {
        (self.op != Op::Fork).then_some(LogSeen {
            head: self.head,
            at: Some((self.head.position, self.head.chain)),
        })
    }
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
    source.check_index()?;
    let child = source.judge(request.finished, &request.expect)?;
    let parent = open_target(target)?;
    if parent.id() == child.domain.id() {
        return Err(PromoteError::SameDomain(parent.id()).into());
    }
    let manifest = match remembered.and_then(|trusted| trusted.manifest.as_ref()) {
        Some(pin) => Some(check_manifest(pin, &child.domain, request.fork)?),
        None => None,
    };
    let head = source.head();
    let pin = remembered.and_then(|trusted| trusted.log(&head.store));
    let Standing {
        op,
        prev,
        continues,
        scan,
    } = history::standing(
        source,
        &child.domain,
        &parent,
        pin,
        (request.fork, request.accept_rebuilt),
    )?;
    let asked = match request.level {
        crate::lineage::Level::Bytes => Foreign::Bytes,
        crate::lineage::Level::Semantics => Foreign::Semantics,
    };
    parent.chain.head().policy.admit_foreign(asked)?;

    let sessions = sessions::new(source, target, &parent, &child.domain, op, request)?;
    let contents = source.contents()?;
    let (steps, damaged) = blocks(source, target)?;
    let sizes = sizes(&steps);
    let prev_link = prev.as_ref().map(|(_, link)| link.clone());
    let lineage = lineage(
        &parent,
        &child.domain,
        &head,
        &contents,
        request,
        op,
        prev,
        continues,
    );
    let hidden = hidden(source, target, scan.removed, lineage.session())?;
    let mut plan = Plan {
        parent: parent.id(),
        progress: Progress::Due,
        manifest,
        op,
        head,
        contents,
        blocks: sizes,
        damaged,
        sessions,
        unfinished: sessions::unfinished(source),
        available_bytes: target.vfs().statfs().ok().map(|stat| stat.available_bytes),
        lineage,
        prev: prev_link,
        steps,
        hidden,
        finished: request.finished.to_vec(),
        accept_damaged: request.accept_damaged,
        links: links(&parent, &head),
        child,
    };
    plan.look_whether_done(source, target, &parent)?;
    if plan.progress == Progress::Due && !plan.damaged.is_empty() {
        plan.name_captures(source)?;
        if !request.accept_damaged {
            let blocks = std::mem::take(&mut plan.damaged);
            return Err(PromoteError::Damaged { blocks }.into());
        }
    }
    Ok(plan)
}

impl Plan {
    /// Sets [`progress`](Self::progress).
    fn look_whether_done(
        &mut self,
        source: &Source,
        target: &StoreHandle,
        parent: &Domain,
    ) -> Result<()> {
        let (Some(key), Some(link)) = (self.lineage.prev, &self.prev) else {
            return Ok(());
        };
        let same = (link.position, link.chain) == (self.head.position, self.head.chain);
        if link.op != self.op
            || link.level < self.lineage.level
            || !same && !self.is_only_retired(source, &key, link)?
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

    /// Whether all that came since a lineage is that the child was given up because of it.
    fn is_only_retired(&self, source: &Source, key: &Key, link: &Lineage) -> Result<bool> {
        let child = &self.child.domain;
        let because = |(_, retired): (_, &Lineage)| {
            retired.op == Op::Retire && retired.parent == self.parent && retired.prev == Some(*key)
        };
        Ok(child.links().any(because) && source.says_only_authority_since(link.position)?)
    }

    /// Whether something can be taken now that could not be before.
    fn gains(&self, source: &Source, target: &StoreHandle) -> Result<bool> {
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

    /// Names the captures that lack something without the damaged blocks.
    fn name_captures(&mut self, source: &Source) -> Result<()> {
        let salvaged = self
            .steps
            .iter()
            .filter(|step| step.action == Action::Salvage);
        let ids: Vec<BlockId> = salvaged.map(|step| step.id).collect();
        let captures = captures_of(source, &self.finished, &ids)?;
        for (block, captures) in self.damaged.iter_mut().zip(captures) {
            block.captures = captures;
        }
        Ok(())
    }
}

/// For each of some blocks of the source, the captures that refer to something in it.
pub(super) fn captures_of(
    source: &Source,
    finished: &[Done],
    ids: &[BlockId],
) -> Result<Vec<Vec<SessionId>>> {
    let mut captures = vec![Vec::new(); ids.len()];
    for done in finished {
        let mut hit = vec![false; ids.len()];
        let mut each = |_: &Key, record: Option<&IndexRecord>| match record {
            Some(record) => {
                if let Some(at) = ids.iter().position(|id| *id == record.block) {
                    hit[at] = true;
                }
            }
            // Whichever block it was in, it is not known any more.
            None => hit.fill(true),
        };
        Closure::default().walk(source.store(), done.root, &mut each)?;
        for (of_block, hit) in captures.iter_mut().zip(hit) {
            if hit {
                of_block.push(done.session);
            }
        }
    }
    Ok(captures)
}

/// What the source removed and the target does not show. Where a run of the same promotion was cut off, what that run wrote down counts:
/// of the append that makes a block visible and hides some of it a power cut may have kept the beginning.
fn hidden(
    source: &Source,
    target: &StoreHandle,
    removed: HashSet<Key>,
    session: SessionId,
) -> Result<HashSet<Key>> {
    let begun: Vec<BlockId> = target.with_state(|state| {
        let blocks = state.blocks.iter();
        let of_session = blocks.filter(|(_, info)| info.session == session.0);
        of_session.map(|(id, _)| BlockId(*id)).collect()
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
    let is_imported = |record: &IndexRecord| {
        let block = target.with_state(|state| state.block(record.block).copied());
        block.is_some_and(|block| block.origin == format::ORIGIN_IMPORTED)
    };
    let mut hidden = HashSet::new();
    for key in removed {
        if source.store().lookup(&key)?.is_some() {
            continue;
        }
        let hides = match target.lookup(&key)? {
            None => true,
            Some(shown) => written.contains(&key) && is_imported(&shown),
        };
        if hides {
            hidden.insert(key);
        }
    }
    Ok(hidden)
}

/// Whether a frame is the artifact that it says; of a list of parts that cannot be told from it alone.
fn is_takable(file: &dyn VfsFile, path: &str, entry: &Entry) -> bool {
    let Ok(frame) = read_frame(file, path, entry) else {
        return false;
    };
    frame.info.encoding == format::ENCODING_CHUNKED
        || decode(&frame.info, frame.stored.to_vec()).is_ok()
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

#[expect(clippy::too_many_arguments, reason = "all that a lineage is made of")]
fn lineage(
    parent: &Domain,
    child: &Domain,
    head: &LogPin,
    contents: &Contents,
    request: &Request<'_>,
    op: Op,
    prev: Option<(Key, Lineage)>,
    continues: bool,
) -> Lineage {
    let genesis = child.chain.path().next();
    let mut checks = Checks::LOG.and(Checks::DOMAIN);
    if continues {
        checks = checks.and(Checks::CONTINUES);
    }
    Lineage {
        op,
        level: request.level,
        parent: parent.id(),
        parent_head: parent.chain.head_key(),
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

/// What becomes of each block, in the order of the source's log.
fn blocks(source: &Source, target: &StoreHandle) -> Result<(Vec<Step>, Vec<DamagedBlock>)> {
    let mut infos: Vec<(BlockId, BlockInfo)> = source.store().with_state(|state| {
        let blocks = state.blocks.iter();
        blocks.map(|(id, info)| (BlockId(*id), *info)).collect()
    });
    infos.sort_by_key(|(_, info)| info.position);
    let here: HashMap<[u8; 32], u64> = target.with_state(|state| {
        let blocks = state.blocks.values();
        blocks.map(|info| (info.digest, info.file_len)).collect()
    });
    let is_here = |info: &BlockInfo| {
        let path = block::sealed_path(&Digest(info.digest));
        let found = target.vfs().metadata(&path);
        here.contains_key(&info.digest) && found.is_ok_and(|found| found.len == info.file_len)
    };
    let (mut steps, mut damaged) = (Vec::with_capacity(infos.len()), Vec::new());
    for (id, info) in infos {
        let digest = Digest(info.digest);
        let action = match is_here(&info) {
            true => Action::Have,
            false => match fate(source, target, id, &digest) {
                Ok(action) => action,
                Err(crate::Error::Store(error)) => {
                    damaged.push(DamagedBlock {
                        path: block::sealed_path(&digest),
                        what: what(&error),
                        captures: Vec::new(),
                    });
                    Action::Salvage
                }
                Err(error) => return Err(error),
            },
        };
        steps.push(Step {
            id,
            digest,
            file_len: info.file_len,
            artifacts: info.artifact_count.into(),
            action,
        });
    }
    Ok((steps, damaged))
}

/// What is to be done with a step now: a crash may have taken back what the target showed when the plan was made.
pub(super) fn action_now(
    source: &Source,
    target: &StoreHandle,
    here: &HashSet<Digest>,
    step: &Step,
) -> Result<Action> {
    match step.action {
        Action::Have if !here.contains(&step.digest) => fate(source, target, step.id, &step.digest),
        action => Ok(action),
    }
}

/// The blocks that a store's log names.
pub(super) fn digests(store: &StoreHandle) -> HashSet<Digest> {
    store.with_state(|state| {
        let blocks = state.blocks.values();
        blocks.map(|info| Digest(info.digest)).collect()
    })
}

/// Whether a block that is not here is worth a file: not if three quarters of its artifacts' bytes are here.
fn fate(source: &Source, target: &StoreHandle, id: BlockId, digest: &Digest) -> Result<Action> {
    let store = source.store();
    let (file, path) = store.with_state(|state| open_block(&**store.vfs(), state, id))?;
    let sealed = block::read_sealed(&*file, &path)?;
    if sealed.digest != *digest {
        let what = "another block than the log names";
        return Err(asl_store::Error::damaged(&path, 0, what).into());
    }
    let (mut all, mut have) = (0u64, 0u64);
    for entry in sealed
        .entries
        .iter()
        .filter(|entry| entry.info.is_artifact())
    {
        let info = &entry.info;
        all = all.saturating_add(u64::from(info.stored_len));
        let found = target.lookup(&info.key)?;
        let flags = info.flags & (format::FLAG_ROOT | format::FLAG_NODE);
        if found.is_some_and(|found| found.flags & flags == flags) {
            have = have.saturating_add(u64::from(info.stored_len));
        }
    }
    Ok(match all {
        // Nothing but notes: they speak of captures that may come.
        0 => Action::Bring,
        _ if have == all => Action::Have,
        _ if have >= all - all / 4 => Action::Repack,
        _ => Action::Bring,
    })
}

fn sizes(steps: &[Step]) -> BTreeMap<Action, Tally> {
    let mut sizes: BTreeMap<Action, Tally> = BTreeMap::new();
    for step in steps {
        let tally = sizes.entry(step.action).or_default();
        tally.blocks += 1;
        tally.bytes += step.file_len;
    }
    sizes
}
