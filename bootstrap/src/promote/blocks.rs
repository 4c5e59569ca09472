//! What becomes of the blocks of an instance.
//!
//! Nothing is written; a crash leaves nothing.

use std::collections::{BTreeMap, HashSet};

use asl_store::block::{self, Entry};
use asl_store::frame::decode;
use asl_store::id::Digest;
use asl_store::import::read_frame;
use asl_store::index::open_block;
use asl_store::segment::IndexRecord;
use asl_store::state::BlockInfo;
use asl_store::vfs::VfsFile;
use asl_store::{BlockId, Key, SessionId, StoreHandle, format};

use super::closure::Closure;
use super::error::{DamagedBlock, what};
use super::source::Instance;
use crate::error::Result;
use crate::mint::Done;

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

impl Tally {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            blocks: self.blocks + other.blocks,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// What becomes of each block, in the order of the source's log; `target` is none where the domain is still to be founded.
pub(super) fn blocks(
    source: &Instance,
    target: Option<&StoreHandle>,
) -> Result<(Vec<Step>, Vec<DamagedBlock>)> {
    let mut infos: Vec<(BlockId, BlockInfo)> = source.store().with_state(|state| {
        let blocks = state.blocks.iter();
        blocks.map(|(id, info)| (BlockId(*id), *info)).collect()
    });
    infos.sort_by_key(|(_, info)| info.position);
    let here: HashSet<Digest> = target.map(digests).unwrap_or_default();
    let is_here = |info: &BlockInfo| {
        let path = block::sealed_path(&Digest(info.digest));
        here.contains(&Digest(info.digest))
            && target
                .and_then(|target| target.vfs().metadata(&path).ok())
                .is_some_and(|found| found.len == info.file_len)
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
    source: &Instance,
    target: &StoreHandle,
    here: &HashSet<Digest>,
    step: &Step,
) -> Result<Action> {
    match step.action {
        Action::Have if !here.contains(&step.digest) => {
            fate(source, Some(target), step.id, &step.digest)
        }
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
fn fate(
    source: &Instance,
    target: Option<&StoreHandle>,
    id: BlockId,
    digest: &Digest,
) -> Result<Action> {
    let store = source.store();
    let (file, path) = store.with_state(|state| open_block(&**store.vfs(), state, id))?;
    let sealed = block::read_sealed(&*file, &path)?;
    if sealed.digest != *digest {
        let what = "another block than the log names";
        return Err(asl_store::Error::damaged(&path, 0, what).into());
    }
    let Some(target) = target else {
        return Ok(Action::Bring);
    };
    // It was given its place, and the power went before its record: with a record it belongs to something.
    let placed = target.vfs().metadata(&block::sealed_path(digest));
    if placed.is_ok() {
        return Ok(Action::Bring);
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

pub(super) fn sizes(steps: &[Step]) -> BTreeMap<Action, Tally> {
    let mut sizes: BTreeMap<Action, Tally> = BTreeMap::new();
    for step in steps {
        let tally = sizes.entry(step.action).or_default();
        tally.blocks += 1;
        tally.bytes += step.file_len;
    }
    sizes
}

/// For each of some blocks of an instance, the captures that refer to something in it.
pub(super) fn captures_of(
    source: &Instance,
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

/// Whether a frame is the artifact that it says; of a list of parts that cannot be told from it alone.
pub(super) fn is_takable(file: &dyn VfsFile, path: &str, entry: &Entry) -> bool {
    let Ok(frame) = read_frame(file, path, entry) else {
        return false;
    };
    frame.info.encoding == format::ENCODING_CHUNKED
        || decode(&frame.info, frame.stored.to_vec()).is_ok()
}
