//! One view over all instances of a store.
//!
//! Above the block layer nobody knows of instances: a block's id carries in its high bits which instance's block it is, and
//! reading by place goes there. The own instance, which a writer appends to, has number 0, so its ids are what its log says.
//!
//! Invariants
//! - What an instance shows is visible, unless another one says that it removed just that. A tombstone hides in its own
//!   instance only.
//! - Of the same artifact in several instances the own one's entry counts, else that of the lowest number. It is a root if any
//!   of them says so.
//! - Parts of something visible are found wherever they lie, hidden or not.
//! - A view of the past (`Index(S, P)`) is one of the own instance. The others only lend it parts.
//! - Locks of several instances are taken in the order of their numbers. Only the own instance ever changes.
//!
//! Nothing is written here.

use std::collections::HashMap;
use std::sync::{Arc, RwLockReadGuard};

use crate::block;
use crate::error::Result;
use crate::format;
use crate::id::{BlockId, Key, SessionId, StoreId};
use crate::index::{Problem, block_path};
use crate::instances::Instance;
use crate::removal::Removal;
use crate::segment::IndexRecord;
use crate::state::{BlockInfo, SessionInfo};
use crate::store::{Scope, StoreHandle, View};

/// Block ids are below this power of two within their instance.
pub const INSTANCE_SHIFT: u32 = 48;
/// An id that belongs to no instance.
const NOBODY: BlockId = BlockId(u64::MAX);

/// The id of an instance's block as it is seen from above.
fn seen(number: usize, id: BlockId) -> BlockId {
    match number {
        0 => id,
        // A log that says so is damaged, and must not lead into another instance.
        _ if id.0 >> INSTANCE_SHIFT != 0 => NOBODY,
        _ => BlockId((number as u64) << INSTANCE_SHIFT | id.0),
    }
}

/// The instance's number, and the block's id in it.
pub(crate) fn split(id: BlockId) -> (usize, BlockId) {
    let number = (id.0 >> INSTANCE_SHIFT) as usize;
    (number, BlockId(id.0 & ((1 << INSTANCE_SHIFT) - 1)))
}

fn seen_record(number: usize, record: IndexRecord) -> IndexRecord {
    let block = match record.has_place() {
        true => seen(number, record.block),
        false => record.block,
    };
    IndexRecord { block, ..record }
}

/// The views of all instances that show something, own first.
struct Views<'a>(Vec<(&'a Instance, RwLockReadGuard<'a, View>)>);

impl Views<'_> {
    /// Whether an entry of an instance's index is visible.
    fn shows(&self, number: usize, record: &IndexRecord) -> Result<bool> {
        if record.is_tombstone() {
            return Ok(false);
        }
        let (instance, view) = &self.0[number];
        let id = view.state.store_id();
        let removed = self
            .0
            .iter()
            .filter_map(|(_, other)| other.state.removed(id, &record.key));
        let Some(removed) = removed.max() else {
            return Ok(true);
        };
        // It was said by the record of the block that it leads to, or once more by a later one.
        let said = view.state.block(record.block).map(|info| info.position);
        if said.is_some_and(|said| said >= removed) {
            return Ok(true);
        }
        let again = instance.shown_again(&view.state, &record.key, || self.removed_of(id))?;
        Ok(again.is_some_and(|again| again >= removed))
    }

    /// What any instance has removed of another, with the highest position of each key.
    fn removed_of(&self, id: StoreId) -> HashMap<Key, u64> {
        let mut all = HashMap::new();
        for (_, view) in &self.0 {
            for (key, position) in view.state.removals_of(id) {
                let highest = all.entry(key).or_insert(0);
                *highest = position.0.max(*highest);
            }
        }
        all
    }

    /// The visible entry of a key in one instance.
    fn visible(&self, number: usize, key: &Key) -> Result<Option<IndexRecord>> {
        let (_, view) = &self.0[number];
        match view.index.newest(key)? {
            Some(record) if self.shows(number, &record)? => Ok(Some(seen_record(number, record))),
            _ => Ok(None),
        }
    }

    fn numbers(&self) -> std::ops::Range<usize> {
        0..self.0.len()
    }
}

/// Adds to a visible entry what another instance's entry of the same key says.
fn join(found: &mut Option<IndexRecord>, other: IndexRecord) {
    match found {
        Some(found) => found.flags |= other.flags & (format::FLAG_ROOT | format::FLAG_NODE),
        None => *found = Some(other),
    }
}

impl StoreHandle {
    fn views(&self) -> Views<'_> {
        Views(
            self.showing()
                .map(|instance| (&**instance, instance.view()))
                .collect(),
        )
    }

    /// The instances whose entries are visible.
    fn showing(&self) -> impl Iterator<Item = &Arc<Instance>> {
        let (own, others) = self.parts();
        let others = match self.scope() {
            Scope::All => others,
            Scope::Own => &[],
        };
        std::iter::once(own).chain(others)
    }

    /// All instances, by number.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Instance>> {
        let (own, others) = self.parts();
        std::iter::once(own).chain(others)
    }

    /// The instance that a block is in, and its id there.
    pub(crate) fn instance_of(&self, id: BlockId) -> Option<(&Arc<Instance>, BlockId)> {
        let (number, id) = split(id);
        Some((self.all().nth(number)?, id))
    }

    /// The visible index entry of a key.
    pub fn lookup(&self, key: &Key) -> Result<Option<IndexRecord>> {
        let views = self.views();
        let mut found = None;
        let mut failed = None;
        for number in views.numbers() {
            match views.visible(number, key) {
                Ok(Some(record)) => join(&mut found, record),
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
            if found.is_some_and(|found| found.is_root()) {
                break;
            }
        }
        // Where one index is damaged, another may know.
        match (found, failed) {
            (None, Some(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }

    /// The visible index entry of a key in the instance that a writer appends to.
    pub fn lookup_own(&self, key: &Key) -> Result<Option<IndexRecord>> {
        self.views().visible(0, key)
    }

    /// The newest entry of a key that says where it is, hidden or not: for who follows
    /// a visible artifact to its parts.
    pub fn lookup_part(&self, key: &Key) -> Result<Option<IndexRecord>> {
        let mut failed = None;
        for (number, instance) in self.all().enumerate() {
            match instance.view().index.stored(key) {
                Ok(Some(record)) => return Ok(Some(seen_record(number, record))),
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Whether a key was removed. One that is neither visible nor removed was never stored, or
    /// its block is damaged so that it is not known any more what was in it.
    pub fn is_removed(&self, key: &Key) -> Result<bool> {
        let views = self.views();
        let mut known = false;
        for number in views.numbers() {
            let Some(record) = views.0[number].1.index.newest(key)? else {
                continue;
            };
            if views.shows(number, &record)? {
                return Ok(false);
            }
            known = true;
        }
        Ok(known)
    }

    /// What other instances than the own one show of these keys, as removals that would hide it.
    pub(crate) fn shown_elsewhere(&self, keys: &[Key]) -> Result<Vec<Removal>> {
        let views = self.views();
        let mut removals = Vec::new();
        for number in views.numbers().skip(1) {
            let state = &views.0[number].1.state;
            let mut shown = Vec::new();
            for key in keys {
                if views.visible(number, key)?.is_some() {
                    shown.push(*key);
                }
            }
            if !shown.is_empty() {
                removals.push(Removal {
                    store: state.store_id(),
                    position: state.position(),
                    keys: shown,
                });
            }
        }
        Ok(removals)
    }

    /// Whether `key` is stored so that it need not be written again as a part of something: visible, and
    /// its block exists with the length that the log gives it. A hit that cannot
    /// be confirmed is none: writing twice loses nothing.
    pub fn dedup_hit(&self, key: &Key) -> Option<IndexRecord> {
        self.dedup(key, 0)
    }

    /// The same for an artifact with these flags. What somebody put is said by the log of the instance that it was put into, so
    /// for a root only the own instance counts.
    pub fn dedup(&self, key: &Key, flags: u16) -> Option<IndexRecord> {
        match flags & format::FLAG_ROOT {
            0 => self.dedup_among(key, flags, usize::MAX),
            _ => self.dedup_own(key, flags),
        }
    }

    /// The same in the own instance only.
    pub(crate) fn dedup_own(&self, key: &Key, flags: u16) -> Option<IndexRecord> {
        self.dedup_among(key, flags, 1)
    }

    fn dedup_among(&self, key: &Key, flags: u16, count: usize) -> Option<IndexRecord> {
        let found: Vec<IndexRecord> = {
            let views = self.views();
            let numbers = views.numbers().take(count);
            let found = numbers.filter_map(|number| views.visible(number, key).ok().flatten());
            found
                .filter(|record| record.flags & flags == flags)
                .collect()
        };
        found
            .into_iter()
            .find(|record| self.open_file(record.block).is_ok())
    }

    /// Calls `each` for every visible entry in key order.
    pub fn for_each(&self, each: &mut dyn FnMut(IndexRecord) -> Result<()>) -> Result<()> {
        let views = self.views();
        let mut sources: Vec<_> = views
            .0
            .iter()
            .map(|(_, view)| view.index.iter().peekable())
            .collect();
        loop {
            let mut least: Option<Key> = None;
            for source in &mut sources {
                match source.peek() {
                    Some(Ok(record)) => {
                        least = Some(least.map_or(record.key, |key| key.min(record.key)));
                    }
                    Some(Err(_)) => {
                        return source.next().map_or(Ok(()), |error| error.map(drop));
                    }
                    None => {}
                }
            }
            let Some(key) = least else {
                return Ok(());
            };
            let mut found = None;
            for (number, source) in sources.iter_mut().enumerate() {
                let same = |record: &Result<IndexRecord>| {
                    record.as_ref().is_ok_and(|record| record.key == key)
                };
                if let Some(Ok(record)) = source.next_if(same)
                    && views.shows(number, &record)?
                {
                    join(&mut found, seen_record(number, record));
                }
            }
            if let Some(found) = found {
                each(found)?;
            }
        }
    }

    /// The sessions of all instances, each once. Where several know one, it is as that says in which it ended, else as the own
    /// instance or the lowest number says.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let mut sessions: Vec<SessionInfo> = Vec::new();
        let mut places = HashMap::new();
        for instance in self.showing() {
            for session in &instance.view().state.sessions {
                let ended = |session: &SessionInfo| {
                    matches!(
                        session.kind,
                        format::SESSION_FINISHED | format::SESSION_ABANDONED
                    )
                };
                match places.get(&session.id) {
                    None => {
                        places.insert(session.id, sessions.len());
                        sessions.push(session.clone());
                    }
                    Some(at) if ended(session) && !ended(&sessions[*at]) => {
                        sessions[*at] = session.clone();
                    }
                    Some(_) => {}
                }
            }
        }
        sessions
    }

    /// The session of an id; see [`sessions`](Self::sessions).
    pub fn session(&self, id: SessionId) -> Option<SessionInfo> {
        let mut all = self.sessions().into_iter();
        all.find(|session| session.id == id.0)
    }

    /// Calls `each` for every sealed block of every instance: instance by instance, ids ascending.
    pub fn for_each_block(&self, each: &mut dyn FnMut(BlockId, &BlockInfo)) {
        for (number, instance) in self.all().enumerate() {
            for (id, info) in &instance.view().state.blocks {
                each(seen(number, BlockId(*id)), info);
            }
        }
    }

    /// A sealed block, by its id as index entries have it.
    pub fn block(&self, id: BlockId) -> Option<BlockInfo> {
        let (instance, id) = self.instance_of(id)?;
        instance.view().state.block(id).copied()
    }

    /// The instance that a block is in, and its id there.
    pub fn birthplace(&self, id: BlockId) -> Option<(StoreId, BlockId)> {
        let (instance, id) = self.instance_of(id)?;
        Some((instance.view().state.store_id(), id))
    }

    /// Where a block's file ought to be, seen from the top of the directory.
    pub fn path_of(&self, id: BlockId) -> String {
        match self.instance_of(id) {
            Some((instance, id)) => {
                let path = block_path(&instance.view().state, id);
                format!("{}{path}", instance.prefix)
            }
            None => block::open_path(id),
        }
    }

    /// Parts of the index that could not be read, and what is no instance but lies where one should.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for instance in self.all() {
            let view = instance.view();
            problems.extend(view.index.problems.iter().map(|problem| Problem {
                path: format!("{}{}", instance.prefix, problem.path),
                what: problem.what.clone(),
            }));
        }
        problems.extend(self.unopened().iter().cloned());
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_instance() {
        let last = BlockId((1 << INSTANCE_SHIFT) - 1);
        for number in [0, 1, 4096] {
            for id in [BlockId(1), last] {
                assert_eq!(split(seen(number, id)), (number, id));
            }
        }
        let (number, _) = split(seen(1, BlockId(last.0 + 1)));
        assert!(number > crate::instances::INSTANCES_MAX);
    }
}
