//! Two stores beside each other: whose log is longer, where they part, and what both hold.
//!
//! A store directory holds several instances, each with a log of its own, so its state is a *vector*: of each instance how many
//! records there are, and the chain value after the last. Two vectors that are equal mean equal stores. Chains are compared only
//! between copies of one log; what stores of different logs hold is compared by what is visible ([`content_root`]).
//!
//! Invariants
//! - A log is compared as the handle shows it: what is appended meanwhile is not looked at.
//! - Two copies of a log that differ are told apart by the chain at the end of the shorter one; where they part is found by
//!   reading both again, with a bounded number of chain values in memory.
//!
//! Nothing is written; a crash leaves nothing.

mod missing;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::error::{Error, Result};
use crate::format;
use crate::id::{Digest, Key, LogPosition, StoreId};
use crate::log::{LogEnd, LogFiles, LogPlace};
use crate::segment::IndexRecord;
use crate::state::State;
use crate::store::StoreHandle;
use crate::vfs::Vfs;

pub use missing::missing_blocks;

/// Chain values that are held at once while it is looked for where two logs part.
const SAMPLES_MAX: u64 = 4096;
/// Entries that go from one thread to the other at once.
const BATCH: usize = 1024;

/// How far the log of one instance goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The instance.
    pub store: StoreId,
    /// Its records.
    pub position: LogPosition,
    /// Chain value after the last of them.
    pub chain: Digest,
}

impl Head {
    pub(crate) fn new(store: StoreId, place: &LogPlace) -> Self {
        Self {
            store,
            position: place.position,
            chain: place.chain,
        }
    }
}

/// Of each instance how far its log goes, by their ids. Equal vectors mean equal stores.
pub type Vector = Vec<Head>;

/// The vector of a store: all its instances.
pub fn vector(store: &StoreHandle) -> Vector {
    let heads = store.instances().into_iter();
    let mut heads: Vector = heads.map(|one| one.with_state(head)).collect();
    heads.sort_by_key(|head| head.store);
    heads
}

fn head(state: &State) -> Head {
    Head::new(state.store_id(), &state.place())
}

/// How one instance stands to the same one elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same records.
    Equal,
    /// The same, and more of them here.
    Ahead {
        /// Records more.
        by: u64,
    },
    /// The same, and more of them there.
    Behind {
        /// Records more.
        by: u64,
    },
    /// There is no such instance there.
    OnlyHere,
    /// There is no such instance here.
    OnlyThere,
    /// Two logs under one name: written to in two places from one state.
    Forked {
        /// Records that are the same.
        at: LogPosition,
    },
}

/// One instance of two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceComparison {
    /// The instance.
    pub store: StoreId,
    /// How far its log goes here.
    pub ours: Option<Head>,
    /// How far it goes there.
    pub theirs: Option<Head>,
    /// How these stand to each other.
    pub relation: Relation,
}

/// How one store as a whole stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Equal vectors.
    Equal,
    /// Everything of the other one is here.
    Ahead,
    /// Everything of this one is there.
    Behind,
    /// Each has what the other lacks.
    Diverged,
    /// An instance has two histories.
    Forked,
}

/// Two stores, instance by instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Each instance that either has, by id.
    pub instances: Vec<InstanceComparison>,
    /// What that comes to.
    pub verdict: Verdict,
}

impl Comparison {
    /// Whether the two have an instance in common, so that their logs can be compared at all.
    pub fn is_related(&self) -> bool {
        let mut instances = self.instances.iter();
        instances.any(|of| of.ours.is_some() && of.theirs.is_some())
    }
}

/// Compares the logs of all instances of two stores.
///
/// # Errors
/// [`Error::Io`] and [`Error::LogDamaged`] where a log cannot be read again as it was when it was opened.
pub fn compare(ours: &StoreHandle, theirs: &StoreHandle) -> Result<Comparison> {
    let mut pairs: BTreeMap<StoreId, (Option<StoreHandle>, Option<StoreHandle>)> = BTreeMap::new();
    for one in ours.instances() {
        let id = one.with_state(State::store_id);
        pairs.entry(id).or_default().0 = Some(one);
    }
    for one in theirs.instances() {
        let id = one.with_state(State::store_id);
        pairs.entry(id).or_default().1 = Some(one);
    }
    let mut instances = Vec::with_capacity(pairs.len());
    for (store, (ours, theirs)) in pairs {
        let relation = match (&ours, &theirs) {
            (Some(ours), Some(theirs)) => relation(&LogView::of(ours)?, &LogView::of(theirs)?)?,
            (Some(_), None) => Relation::OnlyHere,
            _ => Relation::OnlyThere,
        };
        instances.push(InstanceComparison {
            store,
            ours: ours.map(|one| one.with_state(head)),
            theirs: theirs.map(|one| one.with_state(head)),
            relation,
        });
    }
    let verdict = verdict(instances.iter().map(|of| of.relation));
    Ok(Comparison { instances, verdict })
}

/// What the relations of all instances come to.
fn verdict(relations: impl Iterator<Item = Relation>) -> Verdict {
    let (mut more_here, mut more_there) = (false, false);
    for relation in relations {
        match relation {
            Relation::Forked { .. } => return Verdict::Forked,
            Relation::Equal => {}
            Relation::Ahead { .. } | Relation::OnlyHere => more_here = true,
            Relation::Behind { .. } | Relation::OnlyThere => more_there = true,
        }
    }
    match (more_here, more_there) {
        (false, false) => Verdict::Equal,
        (true, false) => Verdict::Ahead,
        (false, true) => Verdict::Behind,
        (true, true) => Verdict::Diverged,
    }
}

/// One instance's log up to where it was read once.
pub(crate) struct LogView<'a> {
    pub(crate) vfs: &'a dyn Vfs,
    pub(crate) files: &'a LogFiles,
    pub(crate) end: LogPlace,
}

/// A log listed anew, for a view of it.
struct Listed {
    store: StoreHandle,
    files: LogFiles,
}

impl Listed {
    fn view(&self) -> LogView<'_> {
        LogView {
            vfs: &**self.store.vfs(),
            files: &self.files,
            end: self.store.with_state(State::place),
        }
    }
}

impl LogView<'_> {
    fn of(store: &StoreHandle) -> Result<Listed> {
        let files = LogFiles::list(&**store.vfs())?;
        let store = store.clone();
        Ok(Listed { store, files })
    }

    /// The chain value before record `position`, which lies within this view.
    pub(crate) fn chain_at(&self, position: LogPosition) -> Result<Digest> {
        if position == self.end.position {
            return Ok(self.end.chain);
        }
        self.read(position, &mut |_, _| ())
    }

    /// Gives each record's number and the chain value after it, up to `until`; returns the one there.
    fn read(&self, until: LogPosition, each: &mut dyn FnMut(u64, Digest)) -> Result<Digest> {
        if !self.files.begins_at_zero() {
            return Err(Error::LogDamaged {
                what: "its beginning is missing".into(),
            });
        }
        let start = self.files.start();
        let (place, end) = self.files.read(self.vfs, start, until, &mut |record| {
            each(record.position.0, record.chain);
            Ok(())
        })?;
        match end {
            _ if place.position == until => Ok(place.chain),
            LogEnd::Damaged { what } => Err(Error::LogDamaged { what }),
            _ => Err(Error::LogDamaged {
                what: format!("it ends before record {until}, which was there a moment ago"),
            }),
        }
    }

    /// Chain values after every `step` records behind record `from`, up to `until`.
    fn samples(&self, from: u64, step: u64, until: LogPosition) -> Result<Vec<Digest>> {
        let mut samples = Vec::new();
        self.read(until, &mut |number, chain| {
            if number >= from && (number + 1 - from).is_multiple_of(step) {
                samples.push(chain);
            }
        })?;
        Ok(samples)
    }
}

fn relation(ours: &Listed, theirs: &Listed) -> Result<Relation> {
    let (ours, theirs) = (ours.view(), theirs.view());
    let common = ours.end.position.min(theirs.end.position);
    if ours.chain_at(common)? != theirs.chain_at(common)? {
        let at = parting(&ours, &theirs, common)?;
        return Ok(Relation::Forked { at });
    }
    let (here, there) = (ours.end.position.0, theirs.end.position.0);
    Ok(match here.cmp(&there) {
        Ordering::Equal => Relation::Equal,
        Ordering::Greater => Relation::Ahead { by: here - there },
        Ordering::Less => Relation::Behind { by: there - here },
    })
}

/// How many records two logs of one name have in common, which differ before record `until`.
pub(crate) fn parting(a: &LogView, b: &LogView, until: LogPosition) -> Result<LogPosition> {
    // The same before record `low`, not the same before record `high`.
    let (mut low, mut high) = (0, until.0);
    while high - low > 1 {
        let step = (high - low).div_ceil(SAMPLES_MAX);
        let of_a = a.samples(low, step, LogPosition(high))?;
        let of_b = b.samples(low, step, LogPosition(high))?;
        let same = of_a.iter().zip(&of_b).take_while(|(a, b)| a == b).count() as u64;
        let next = low + step * (same + 1);
        low += step * same;
        high = high.min(next);
    }
    Ok(LogPosition(low))
}

/// What is visible in a store, whichever instances it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The same for all stores that show the same: BLAKE3 over key, length and root flag of everything visible, in key order.
    pub root: Digest,
    /// Visible artifacts.
    pub artifacts: u64,
    /// Bytes of them, before any encoding.
    pub bytes: u64,
}

/// The content of a store.
///
/// # Errors
/// What reading the index says.
pub fn content_root(store: &StoreHandle) -> Result<Content> {
    let mut summing = Summing::default();
    store.for_each(&mut |record| {
        summing.add(&record);
        Ok(())
    })?;
    Ok(summing.done())
}

struct Summing {
    hasher: blake3::Hasher,
    counted: Counted,
}

impl Default for Summing {
    fn default() -> Self {
        Self {
            hasher: blake3::Hasher::new_derive_key(format::CONTEXT_CONTENT),
            counted: Counted::default(),
        }
    }
}

impl Summing {
    fn add(&mut self, record: &IndexRecord) {
        self.hasher
            .update(&record.key.0)
            .update(&record.raw_len.to_le_bytes())
            .update(&[u8::from(record.is_root())]);
        self.counted.add(record);
    }

    fn done(self) -> Content {
        Content {
            root: Digest(*self.hasher.finalize().as_bytes()),
            artifacts: self.counted.artifacts,
            bytes: self.counted.bytes,
        }
    }
}

/// Artifacts and the bytes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// How many.
    pub artifacts: u64,
    /// Bytes of them, before any encoding.
    pub bytes: u64,
}

impl Counted {
    fn add(&mut self, record: &IndexRecord) {
        self.artifacts += 1;
        self.bytes = self.bytes.saturating_add(record.raw_len);
    }
}

/// What two stores show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// All of this one.
    pub ours: Content,
    /// All of the other one.
    pub theirs: Content,
    /// What both show.
    pub both: Counted,
    /// What only this one shows.
    pub only_here: Counted,
    /// What only the other one shows.
    pub only_there: Counted,
}

/// Compares what two stores show, by keys alone: of any domain, of any instances.
///
/// # Errors
/// What reading either index says.
pub fn compare_contents(ours: &StoreHandle, theirs: &StoreHandle) -> Result<Contents> {
    let (send_ours, ours_received) = sync_channel(4);
    let (send_theirs, theirs_received) = sync_channel(4);
    std::thread::scope(|scope| {
        let ours = scope.spawn(move || stream(ours, &send_ours));
        let theirs = scope.spawn(move || stream(theirs, &send_theirs));
        let [both, only_here, only_there] = merge(Stream::of(ours_received), theirs_received);
        let done = |thread: std::thread::ScopedJoinHandle<'_, Result<Content>>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        Ok(Contents {
            ours: done(ours)?,
            theirs: done(theirs)?,
            both,
            only_here,
            only_there,
        })
    })
}

type Item = (Key, u64);

/// Sends all that is visible, in key order; ends early where nobody listens.
fn stream(store: &StoreHandle, to: &SyncSender<Vec<Item>>) -> Result<Content> {
    let mut summing = Summing::default();
    let mut batch = Vec::with_capacity(BATCH);
    store.for_each(&mut |record| {
        summing.add(&record);
        batch.push((record.key, record.raw_len));
        if batch.len() == BATCH {
            // The other end reads to the end, whatever it finds.
            let _ = to.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)));
        }
        Ok(())
    })?;
    let _ = to.send(batch);
    Ok(summing.done())
}

struct Stream {
    from: Receiver<Vec<Item>>,
    batch: std::vec::IntoIter<Item>,
}

impl Stream {
    fn of(from: Receiver<Vec<Item>>) -> Self {
        let batch = Vec::new().into_iter();
        Self { from, batch }
    }
}

impl Iterator for Stream {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.batch.next() {
                return Some(item);
            }
            self.batch = self.from.recv().ok()?.into_iter();
        }
    }
}

/// Counts what both have, what only the first, and what only the second.
fn merge(ours: Stream, theirs: Receiver<Vec<Item>>) -> [Counted; 3] {
    let (mut ours, mut theirs) = (ours.peekable(), Stream::of(theirs).peekable());
    let mut counted = [Counted::default(); 3];
    loop {
        let order = match (ours.peek(), theirs.peek()) {
            (None, None) => return counted,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((here, _)), Some((there, _))) => here.cmp(there),
        };
        let here = (order != Ordering::Greater).then(|| ours.next()).flatten();
        let there = (order != Ordering::Less).then(|| theirs.next()).flatten();
        let of = match order {
            Ordering::Equal => 0,
            Ordering::Less => 1,
            Ordering::Greater => 2,
        };
        if let Some((_, len)) = here.or(there) {
            counted[of].artifacts += 1;
            counted[of].bytes = counted[of].bytes.saturating_add(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_come_to_a_verdict() {
        use Relation::*;
        let at = LogPosition(1);
        for (relations, expected) in [
            (&[][..], Verdict::Equal),
            (&[Equal, Equal], Verdict::Equal),
            (&[Equal, Ahead { by: 1 }], Verdict::Ahead),
            (&[OnlyHere, Equal], Verdict::Ahead),
            (&[Behind { by: 3 }, OnlyThere], Verdict::Behind),
            (&[Behind { by: 3 }, OnlyHere], Verdict::Diverged),
            (&[Ahead { by: 3 }, Forked { at }], Verdict::Forked),
        ] {
            assert_eq!(
                verdict(relations.iter().copied()),
                expected,
                "{relations:?}"
            );
        }
    }

    #[test]
    fn streams_are_merged_by_key() {
        let channel = |keys: &[u8]| {
            let (send, receive) = sync_channel(4);
            for batch in keys.chunks(2) {
                let batch = batch.iter().map(|n| (Key([*n; 32]), u64::from(*n)));
                send.send(batch.collect()).unwrap();
            }
            receive
        };
        let counted = merge(Stream::of(channel(&[1, 3, 5])), channel(&[2, 3, 4, 9]));
        let of = |artifacts, bytes| Counted { artifacts, bytes };
        assert_eq!(counted, [of(1, 3), of(2, 6), of(3, 15)]);
    }
}
