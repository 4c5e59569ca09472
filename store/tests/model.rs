//! Any sequence of calls, crashes among them, against a map in memory.
//!
//! The map knows what is visible, what only a sync has settled, and what is
//! merely put. It also remembers what was visible at every log position that a call
//! ended at, so that every snapshot can be asked for any later position.
//!
//! `ASL_TEST_ALL=1` tries more and longer sequences.

mod common;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};

use asl_store::vfs::fault::{CrashPolicy, FaultVfs};
use asl_store::{
    BlockId, Compression, Encoder, Key, LogPosition, Put, SnapshotId, StoreHandle, StoreWriter,
    format,
};
use common::*;
use proptest::prelude::*;
use sweep::all;

/// One call. Artifacts are numbers; each has a length of its own.
#[derive(Debug, Clone)]
enum Call {
    Put(u64, bool),
    PutAnew(u64, bool),
    Rm(Vec<u64>),
    Show(u64),
    Note(usize),
    Sync,
    Commit,
    Flush,
    Snapshot,
    Reopen,
    Cut(CrashPolicy),
    DropCaches,
    DropIndex,
}

fn call() -> impl Strategy<Value = Call> {
    let n = || 0u64..40;
    prop_oneof![
        12 => (n(), any::<bool>()).prop_map(|(n, root)| Call::Put(n, root)),
        2 => (n(), any::<bool>()).prop_map(|(n, root)| Call::PutAnew(n, root)),
        3 => prop::collection::vec(n(), 1..4).prop_map(Call::Rm),
        1 => n().prop_map(Call::Show),
        1 => (0usize..30_000).prop_map(Call::Note),
        2 => Just(Call::Sync),
        4 => Just(Call::Commit),
        4 => Just(Call::Flush),
        2 => Just(Call::Snapshot),
        1 => Just(Call::Reopen),
        2 => policy().prop_map(Call::Cut),
        1 => Just(Call::DropCaches),
        1 => Just(Call::DropIndex),
    ]
}

fn policy() -> impl Strategy<Value = CrashPolicy> {
    prop_oneof![
        Just(CrashPolicy::KeepAll),
        Just(CrashPolicy::LoseUnsynced),
        any::<u64>().prop_map(|seed| CrashPolicy::Torn { seed }),
        any::<u64>().prop_map(|seed| CrashPolicy::Reorder { seed }),
    ]
}

fn artifact(n: u64) -> Vec<u8> {
    // One in ten is large, some compress, some are tiny.
    match n % 10 {
        0 => noise(n, 17_000 + n as usize),
        1..=3 => noise(n, 30).into_iter().cycle().take(9_000).collect(),
        _ => noise(n, 20 + 150 * n as usize),
    }
}

fn note(len: usize) -> Vec<u8> {
    noise(len as u64, len)
}

/// Keys with their flags.
type Entries = BTreeMap<Key, u16>;

fn join(into: &mut Entries, from: Entries) {
    for (key, flags) in from {
        *into.entry(key).or_default() |= flags;
    }
}

fn entries_of(handle: &StoreHandle) -> Entries {
    let mut entries = Entries::new();
    handle
        .for_each(&mut |record| {
            entries.insert(record.key, record.flags);
            Ok(())
        })
        .unwrap();
    entries
}

struct Model {
    vfs: FaultVfs,
    writer: Option<StoreWriter>,
    writers: u8,
    bytes: BTreeMap<Key, Vec<u8>>,
    visible: Entries,
    /// Not visible yet, but durable.
    synced: Entries,
    /// Neither.
    open: Entries,
    /// What was visible at the log positions that calls ended at.
    history: BTreeMap<u64, Entries>,
    snapshots: Vec<(SnapshotId, u64, Entries)>,
    /// Lengths of notes that are durable, and of those that are not yet.
    notes: BTreeSet<usize>,
    notes_open: BTreeSet<usize>,
    /// Every key, shown or hidden, with the flags that it had last.
    known: Entries,
    /// Segments were removed; it shows until they are all merged away.
    index_dropped: bool,
}

impl Model {
    fn new() -> Model {
        let bytes = (0..40).map(|n| (Key::of(&artifact(n)), artifact(n)));
        let mut model = Model {
            vfs: fresh(),
            writer: None,
            writers: 1,
            bytes: bytes.collect(),
            visible: Entries::new(),
            synced: Entries::new(),
            open: Entries::new(),
            history: BTreeMap::new(),
            snapshots: Vec::new(),
            notes: BTreeSet::new(),
            notes_open: BTreeSet::new(),
            known: Entries::new(),
            index_dropped: false,
        };
        model.open();
        model
    }

    fn open(&mut self) {
        self.writers = self.writers.wrapping_add(1);
        self.writer = Some(writer(&self.vfs, self.writers).unwrap());
    }

    fn w(&mut self) -> &mut StoreWriter {
        self.writer.as_mut().expect("open between calls")
    }

    fn blocks(&mut self) -> usize {
        self.w().handle().with_state(|state| state.blocks.len())
    }

    fn committed(&mut self) {
        let synced = std::mem::take(&mut self.synced);
        join(&mut self.visible, synced);
        let open = std::mem::take(&mut self.open);
        join(&mut self.visible, open);
        self.notes.append(&mut self.notes_open);
        self.known.extend(&self.visible);
    }

    fn put(&mut self, n: u64, root: bool, anew: bool) {
        let bytes = artifact(n);
        let key = Key::of(&bytes);
        let flags = if root { format::FLAG_ROOT } else { 0 };
        let frame = Encoder::new(Compression::Auto).encode(key, bytes.into(), flags);
        let large = frame.info.raw_len >= small_params().small_threshold;
        let has = |entries: &Entries| entries.get(&key).is_some_and(|had| had & flags == flags);
        let pending: Entries = [&self.synced, &self.open].into_iter().flatten().fold(
            Entries::new(),
            |mut all, (key, flags)| {
                *all.entry(*key).or_default() |= flags;
                all
            },
        );
        let there = has(&self.visible) || has(&pending);
        let blocks = self.blocks();
        let put = if anew {
            self.w().put_anew(frame).unwrap()
        } else {
            self.w().put(frame).unwrap()
        };
        assert_eq!(put == Put::Duplicate, there && !anew);
        if put == Put::Duplicate {
            return;
        }
        // Flags that it has already stay.
        let had = self.visible.get(&key).copied().unwrap_or(0);
        let had = had | pending.get(&key).copied().unwrap_or(0);
        let entry = Entries::from([(key, flags | had)]);
        if large {
            join(&mut self.visible, entry);
            return;
        }
        if self.blocks() > blocks {
            // The block was full: what was put before is committed.
            self.committed();
        }
        join(&mut self.open, entry);
    }

    fn call(&mut self, call: &Call) {
        match call {
            Call::Put(n, root) => self.put(*n, *root, false),
            Call::PutAnew(n, root) => self.put(*n, *root, true),
            Call::Rm(numbers) => {
                let keys: Vec<_> = numbers.iter().map(|n| Key::of(&artifact(*n))).collect();
                self.w().tombstone(&keys).unwrap();
                self.committed();
                for key in keys {
                    self.visible.remove(&key);
                }
            }
            Call::Show(n) => {
                // A hidden artifact becomes visible again without its bytes.
                let key = Key::of(&artifact(*n));
                let pending = self.open.contains_key(&key) || self.synced.contains_key(&key);
                if self.visible.contains_key(&key) || pending {
                    return;
                }
                let hidden = self.w().handle().lookup_part(&key).unwrap();
                assert_eq!(hidden.is_some(), self.known.contains_key(&key));
                if let Some(record) = hidden {
                    self.w().index_add(&[record]).unwrap();
                    self.committed();
                    self.visible.insert(key, record.flags);
                }
            }
            Call::Note(len) => {
                let blocks = self.blocks();
                self.w().note(format::NOTE_MAP, note(*len)).unwrap();
                if self.blocks() > blocks {
                    self.committed();
                }
                self.notes_open.insert(*len);
            }
            Call::Sync => {
                self.w().sync().unwrap();
                let open = std::mem::take(&mut self.open);
                join(&mut self.synced, open);
                self.notes.append(&mut self.notes_open);
            }
            Call::Commit => {
                self.w().commit().unwrap();
                self.committed();
            }
            Call::Flush => self.w().flush().unwrap(),
            Call::Snapshot => {
                let id = self.w().snapshot("").unwrap();
                self.committed();
                let position = self.w().handle().with_state(|state| {
                    let last = state.snapshots.last().unwrap();
                    assert_eq!(last.id(), id);
                    last.position
                });
                self.snapshots.push((id, position, self.visible.clone()));
                self.history.insert(position, self.visible.clone());
            }
            Call::Reopen => {
                self.writer.take().unwrap().finish().unwrap();
                self.committed();
                self.open();
                assert_eq!(self.w().recovery(), &Default::default());
            }
            Call::Cut(policy) => {
                self.writer = None;
                self.vfs = self.vfs.power_cut(*policy);
                self.open();
                self.cut(*policy);
            }
            Call::DropCaches | Call::DropIndex => {
                let index = matches!(call, Call::DropIndex);
                self.index_dropped |= index;
                self.writer.take().unwrap().finish().unwrap();
                self.committed();
                for (path, _) in self.vfs.files() {
                    let cache = path.ends_with("bloom.bin")
                        || path.starts_with("snapshots/")
                        || path == "log/current"
                        || path == "lock"
                        || index && path.starts_with("index/");
                    if cache {
                        self.vfs.remove_file(&path).unwrap();
                    }
                }
                self.open();
                assert_eq!(self.w().recovery(), &Default::default());
            }
        }
        self.known.extend(&self.visible);
        self.remember();
    }

    /// What a cut left is between what was durable and what was put.
    fn cut(&mut self, policy: CrashPolicy) {
        let found = entries_of(self.w().handle());
        let mut least = self.visible.clone();
        join(&mut least, std::mem::take(&mut self.synced));
        let mut most = least.clone();
        join(&mut most, std::mem::take(&mut self.open));
        match policy {
            CrashPolicy::KeepAll => assert_eq!(found, most),
            CrashPolicy::LoseUnsynced => assert_eq!(found, least),
            _ => {
                for (key, flags) in &least {
                    let found = found.get(key).expect("durable");
                    assert_eq!(found & flags, *flags);
                }
                for (key, flags) in &found {
                    let most = most.get(key).expect("put once");
                    assert_eq!(flags & !most, 0);
                }
            }
        }
        self.visible = found;
        if matches!(policy, CrashPolicy::KeepAll) {
            self.notes.append(&mut self.notes_open);
        }
        self.notes_open.clear();
        self.check_notes();
    }

    /// No note that was durable is lost.
    fn check_notes(&mut self) {
        let handle = self.w().handle().clone();
        let mut found = BTreeSet::new();
        for id in handle.with_state(|state| state.blocks.keys().copied().collect::<Vec<_>>()) {
            let mut each = |note_type, payload: Vec<u8>| {
                if note_type == format::NOTE_MAP {
                    assert_eq!(payload, note(payload.len()));
                    found.insert(payload.len());
                }
                Ok(())
            };
            handle
                .notes::<asl_store::Error>(BlockId(id), &mut each)
                .unwrap();
        }
        let lost: Vec<_> = self.notes.difference(&found).collect();
        assert!(lost.is_empty(), "notes of {lost:?} bytes");
    }

    fn remember(&mut self) {
        let position = self.w().handle().with_state(|state| state.position().0);
        let visible = self.visible.clone();
        let had = self.history.insert(position, visible.clone());
        assert!(had.is_none_or(|had| had == visible), "position {position}");
    }

    /// Lookups and listing agree with the map.
    fn check(&mut self) {
        let handle = self.w().handle().clone();
        assert_eq!(entries_of(&handle), self.visible);
        for key in self.bytes.keys() {
            let found = handle.lookup(key).unwrap();
            assert_eq!(
                found.map(|record| record.flags),
                self.visible.get(key).copied()
            );
            // What was ever visible is still there for what it may be a part of.
            assert_eq!(
                handle.lookup_part(key).unwrap().is_some(),
                self.known.contains_key(key)
            );
        }
    }

    /// So does a reader, with the bytes, for now and for every snapshot and `picked`
    /// later positions.
    fn check_all(&mut self, picked: &[prop::sample::Index]) {
        self.check();
        let handle = reader(&self.vfs).unwrap();
        assert!(self.index_dropped || handle.problems().is_empty());
        assert_eq!(entries_of(&handle), self.visible);
        for (key, bytes) in &self.bytes {
            match self.visible.contains_key(key) {
                true => assert_eq!(&handle.get(key).unwrap(), bytes),
                false => assert!(handle.get(key).is_err()),
            }
        }
        for (id, from, visible) in &self.snapshots {
            let at = handle.at(&id.to_string(), None).unwrap();
            assert_eq!(&entries_of(&at), visible, "snapshot {id}");
            let later: Vec<_> = self.history.range(from..).collect();
            for index in picked {
                let (position, visible) = index.get(&later);
                let at = handle
                    .at(&id.to_string(), Some(LogPosition(**position)))
                    .unwrap();
                assert_eq!(&&entries_of(&at), visible, "{id} at {position}");
                for key in visible.keys().take(3) {
                    assert_eq!(at.get(key).unwrap(), self.bytes[key]);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if all() { 2500 } else { 400 },
        failure_persistence: None,
        max_shrink_iters: 5000,
        ..ProptestConfig::default()
    })]

    /// Covers B9, B10, I2, I3, I4, I5, I6, S4, S5.
    #[test]
    fn any_calls_and_crashes_agree_with_a_map(
        calls in prop::collection::vec(call(), 1..if all() { 200 } else { 90 }),
        picked in prop::collection::vec(any::<prop::sample::Index>(), 3),
    ) {
        let mut model = Model::new();
        for (at, call) in calls.iter().enumerate() {
            model.call(call);
            model.check();
            if at % 40 == 39 {
                model.check_all(&picked);
            }
        }
        model.check_all(&picked);
        if !model.index_dropped {
            sweep::check_whole(&model.vfs);
        }
    }
}
