//! A scripted client of a store, and what it may count on at any moment.
//!
//! Two oracles. *Durable*: what a `commit` (or a tombstone, a session record, a
//! snapshot) acknowledged; every reader finds it, whatever happened since.
//! *Pending*: what only a `sync` acknowledged; the next opening for writing
//! finds it. What was in flight when things went wrong may be there or not, but
//! nothing is ever there with other bytes.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use asl_store::current::END;
use asl_store::log::{LogEnd, LogFiles};
use asl_store::vfs::fault::FaultVfs;
use asl_store::{
    Compression, Encoder, Error, Key, Result, SessionId, SnapshotId, StoreHandle, StoreWriter,
    VerifyOptions, WriteOptions, format, verify,
};

use crate::common::{context, noise, options};

/// Whether the long sweeps were asked for.
pub fn all() -> bool {
    std::env::var_os("ASL_TEST_ALL").is_some()
}

/// One call of a client. Artifacts are numbers: [`noise`] of the number, of this length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Put(u64, usize),
    /// Bytes that compress.
    PutSoft(u64, usize),
    Note(u64, usize),
    Sync,
    Commit,
    Rm(Vec<u64>),
    Begin(u8),
    End(u8, u8),
    Flush,
    Snapshot(&'static str),
    /// Finishes this writer and opens the next.
    Reopen,
}

fn bytes_of(step: &Step) -> Option<(u64, Vec<u8>)> {
    match step {
        Step::Put(n, len) => Some((*n, noise(*n, *len))),
        Step::PutSoft(n, len) => {
            let line = noise(*n, 40);
            Some((*n, line.iter().copied().cycle().take(*len).collect()))
        }
        _ => None,
    }
}

fn note_payload(n: u64, len: usize) -> Vec<u8> {
    noise(n ^ 0xffff_0000, len)
}

const NOTE: u32 = format::NOTE_MAP;

/// What the client knows.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Everything that was ever handed to the store.
    ever: BTreeMap<Key, Vec<u8>>,
    keys: BTreeMap<u64, Key>,
    committed: BTreeSet<Key>,
    hidden: BTreeSet<Key>,
    synced: BTreeSet<Key>,
    open: BTreeSet<Key>,
    /// What the call that failed may have done or not.
    doubtful: BTreeSet<Key>,
    notes: BTreeSet<Vec<u8>>,
    notes_open: BTreeSet<Vec<u8>>,
    sessions: BTreeMap<SessionId, u8>,
    session_doubtful: bool,
    session: Option<SessionId>,
    snapshots: Vec<(SnapshotId, BTreeSet<Key>)>,
    /// Acknowledged log prefixes: position and chain.
    prefixes: Vec<(u64, [u8; 32])>,
    /// Blocks that the log named: their digests never change.
    blocks: BTreeMap<u64, [u8; 32]>,
    /// The first step whose effect was not acknowledged.
    resume: usize,
    writers: u8,
    /// Of the writers, where not the usual one.
    log_file_len: Option<u64>,
    /// How far the script got, should a step have failed.
    at: usize,
}

impl Ledger {
    /// A client whose log files are short.
    pub fn with_log_files_of(bytes: u64) -> Ledger {
        Ledger {
            log_file_len: Some(bytes),
            ..Ledger::default()
        }
    }

    /// What the client would see after the whole of `script`.
    fn expected(script: &[Step]) -> BTreeMap<Key, Vec<u8>> {
        let (mut keys, mut visible) = (BTreeMap::new(), BTreeMap::new());
        for step in script {
            if let Some((n, bytes)) = bytes_of(step) {
                let key = Key::of(&bytes);
                keys.insert(n, key);
                visible.insert(key, bytes);
            }
            if let Step::Rm(numbers) = step {
                for n in numbers {
                    visible.remove(&keys[n]);
                }
            }
        }
        visible
    }

    fn settle(&mut self, w: &StoreWriter, next: usize) {
        self.acknowledge(next);
        self.remember(w);
    }

    /// Everything that was put is committed, up to the step `next`.
    fn acknowledge(&mut self, next: usize) {
        self.committed.append(&mut self.synced);
        self.committed.append(&mut self.open);
        self.hidden.retain(|key| !self.committed.contains(key));
        self.notes.append(&mut self.notes_open);
        self.doubtful.clear();
        self.resume = next;
    }

    fn remember(&mut self, w: &StoreWriter) {
        w.handle().with_state(|state| {
            let place = state.place();
            self.prefixes.push((place.position.0, place.chain.0));
            let blocks = state.blocks.iter().map(|(id, info)| (*id, info.digest));
            self.blocks.extend(blocks);
        });
    }

    fn open_writer(&mut self, vfs: &FaultVfs) -> Result<StoreWriter> {
        self.writers += 1;
        let w = StoreWriter::open(
            Arc::new(vfs.clone()),
            context(self.writers.wrapping_add(10)),
            WriteOptions {
                log_file_len: self.log_file_len.unwrap_or(options().log_file_len),
                ..options()
            },
        )?;
        if vfs.crashed() {
            // It died over a cache, and was none the wiser.
            return Err(Error::Poisoned);
        }
        self.check_recovered(&w);
        Ok(w)
    }

    /// Runs the script from the first step that was not acknowledged.
    pub fn run(&mut self, vfs: &FaultVfs, script: &[Step]) -> Result<()> {
        let w = self.open_writer(vfs)?;
        self.run_with(w, vfs, script).map_err(|(error, _)| error)
    }

    /// The same, but where a step fails for want of room, what was put before is committed.
    pub fn run_and_stop_gently(&mut self, vfs: &FaultVfs, script: &[Step]) -> Result<()> {
        let w = self.open_writer(vfs)?;
        match self.run_with(w, vfs, script) {
            Err((error, Some(mut w))) if error.is_full() => {
                w.commit().expect("a commit on a full disk");
                self.settle(&w, self.at);
                w.finish().expect("the end on a full disk");
                Err(error)
            }
            other => other.map_err(|(error, _)| error),
        }
    }

    /// Runs the script; gives the writer back where a step failed.
    fn run_with(
        &mut self,
        mut w: StoreWriter,
        vfs: &FaultVfs,
        script: &[Step],
    ) -> Result<(), (Error, Option<Box<StoreWriter>>)> {
        for (at, step) in script.iter().enumerate().skip(self.resume) {
            self.at = at;
            self.doubtful.clear();
            self.session_doubtful = false;
            if *step == Step::Reopen {
                self.finish(w, at + 1).map_err(|error| (error, None))?;
                w = self.open_writer(vfs).map_err(|error| (error, None))?;
            } else if let Err(error) = self.step(&mut w, at, step) {
                return Err((error, Some(Box::new(w))));
            }
        }
        self.at = script.len();
        self.finish(w, script.len()).map_err(|error| (error, None))
    }

    fn finish(&mut self, w: StoreWriter, next: usize) -> Result<()> {
        w.finish()?;
        self.session = None;
        self.acknowledge(next);
        Ok(())
    }

    fn step(&mut self, w: &mut StoreWriter, at: usize, step: &Step) -> Result<()> {
        let mut encoder = Encoder::new(Compression::Auto);
        match step {
            Step::Put(n, _) | Step::PutSoft(n, _) => {
                let (_, bytes) = bytes_of(step).unwrap();
                let key = Key::of(&bytes);
                self.ever.insert(key, bytes.clone());
                self.keys.insert(*n, key);
                if !self.committed.contains(&key) {
                    self.doubtful.insert(key);
                }
                let large = bytes.len() as u64 >= w.params().small_threshold;
                w.put(encoder.encode(key, bytes.into(), format::FLAG_ROOT))?;
                if large {
                    self.hidden.remove(&key);
                    self.committed.insert(key);
                } else if !self.committed.contains(&key) {
                    self.open.insert(key);
                }
            }
            Step::Note(n, len) => {
                let payload = note_payload(*n, *len);
                w.note(NOTE, payload.clone())?;
                self.notes_open.insert(payload);
            }
            Step::Sync => {
                w.sync()?;
                let open: Vec<_> = self.open.iter().copied().collect();
                self.synced.extend(open);
                self.open.clear();
                self.notes.append(&mut self.notes_open);
            }
            Step::Commit => {
                w.commit()?;
                self.settle(w, at + 1);
            }
            Step::Rm(numbers) => {
                let keys: Vec<_> = numbers.iter().map(|n| self.keys[n]).collect();
                self.doubtful.extend(keys.iter().copied());
                w.tombstone(&keys)?;
                self.settle(w, at + 1);
                for key in keys {
                    self.committed.remove(&key);
                    self.hidden.insert(key);
                }
            }
            Step::Begin(n) => {
                self.session_doubtful = true;
                let id = SessionId([*n; 16]);
                w.begin_session(id, b"begun")?;
                self.session = Some(id);
                self.sessions.insert(id, format::SESSION_BEGUN);
                self.settle(w, at + 1);
            }
            Step::End(n, kind) => {
                self.session_doubtful = true;
                let id = SessionId([*n; 16]);
                if self.session != Some(id) {
                    w.begin_session(id, b"resumed")?;
                    self.sessions.insert(id, format::SESSION_BEGUN);
                }
                w.end_session(*kind, None, b"ended")?;
                self.session = None;
                self.sessions.insert(id, *kind);
                self.settle(w, at + 1);
            }
            Step::Flush => w.flush()?,
            Step::Snapshot(label) => {
                let id = w.snapshot(label)?;
                self.settle(w, at + 1);
                self.snapshots.push((id, self.committed.clone()));
            }
            Step::Reopen => unreachable!("needs the writer itself"),
        }
        Ok(())
    }

    /// Opens for reading: what was acknowledged as durable is there.
    pub fn check_reader(&self, vfs: &FaultVfs) {
        let handle = StoreHandle::open(Arc::new(vfs.clone())).expect("a store opens for reading");
        assert!(
            matches!(handle.log_end(), LogEnd::Clean | LogEnd::Torn { .. }),
            "{:?}",
            handle.log_end()
        );
        assert_eq!(handle.problems(), [], "no part of the index is missing");
        self.check_visible(&handle);
        handle.with_state(|state| {
            for (id, digest) in &self.blocks {
                let found = state.blocks.get(id).map(|info| info.digest);
                assert_eq!(found, Some(*digest), "block {id}");
            }
            for (id, kind) in &self.sessions {
                let found = state.session(*id).map(|session| session.kind);
                assert!(
                    self.session_doubtful || found == Some(*kind),
                    "session {id}: {found:?}, not {kind}"
                );
            }
        });
        if all() {
            check_whole(vfs);
        }
        for (id, visible) in &self.snapshots {
            let at = handle.at(&id.to_string(), None).expect("a snapshot opens");
            assert_eq!(&keys_of(&at), visible, "snapshot {id}");
        }
        self.check_prefixes(vfs);
    }

    /// An acknowledged prefix of the log never changes.
    fn check_prefixes(&self, vfs: &FaultVfs) {
        let files = LogFiles::list(vfs).unwrap();
        let mut chains = vec![];
        files
            .read(vfs, files.start(), END, &mut |record| {
                assert_eq!(record.position.0 as usize, chains.len());
                chains.push(record.chain.0);
                Ok(())
            })
            .unwrap();
        for (position, chain) in &self.prefixes {
            let found = chains.get(*position as usize - 1);
            assert_eq!(found, Some(chain), "the log up to {position}");
        }
    }

    fn check_visible(&self, handle: &StoreHandle) -> BTreeSet<Key> {
        let visible = keys_of(handle);
        for key in &visible {
            let bytes = handle.get(key).expect("what is visible can be read");
            assert_eq!(Some(&bytes), self.ever.get(key), "bytes nobody put");
        }
        for key in self.committed.difference(&self.doubtful) {
            assert!(visible.contains(key), "{} is lost", self.name(key));
        }
        for key in self.hidden.difference(&self.doubtful) {
            let again = self.open.contains(key) || self.synced.contains(key);
            assert!(
                again || !visible.contains(key),
                "{} is back",
                self.name(key)
            );
        }
        visible
    }

    fn name(&self, key: &Key) -> String {
        let of = self.keys.iter().find(|(_, known)| *known == key);
        format!("artifact {:?}", of.map(|(n, _)| n))
    }

    /// Opened for writing: what was synced is there as well. From here on, what is
    /// there counts as durable.
    fn check_recovered(&mut self, w: &StoreWriter) {
        let visible = self.check_visible(w.handle());
        for key in self.synced.difference(&self.doubtful) {
            assert!(visible.contains(key), "{} was synced", self.name(key));
        }
        let mut found = BTreeSet::new();
        let blocks: Vec<_> = w
            .handle()
            .with_state(|state| state.blocks.keys().copied().collect());
        for id in blocks {
            let mut each = |note_type, payload| {
                if note_type == NOTE {
                    found.insert(payload);
                }
                Ok(())
            };
            let id = asl_store::BlockId(id);
            w.handle().notes::<Error>(id, &mut each).unwrap();
        }
        for note in &self.notes {
            assert!(found.contains(note), "a note is lost");
        }
        let was: BTreeSet<_> = self.committed.union(&self.hidden).copied().collect();
        self.hidden = was.difference(&visible).copied().collect();
        self.committed = visible;
        self.open.clear();
        self.synced.clear();
        self.notes_open.clear();
        self.doubtful.clear();
        self.session = None;
        if self.session_doubtful {
            self.session_doubtful = false;
            w.handle().with_state(|state| {
                for session in &state.sessions {
                    self.sessions.insert(session.session(), session.kind);
                }
            });
        }
        self.remember(w);
    }

    /// After whatever went wrong: the store opens, has what it must, takes the rest of
    /// the script, and is then whole. Returns what is known then.
    pub fn survive(mut self, vfs: &FaultVfs, script: &[Step]) -> Ledger {
        self.check_reader(vfs);
        self.run(vfs, script).expect("the rest of the script runs");
        let expected = Ledger::expected(script);
        assert_eq!(
            self.committed,
            expected.keys().copied().collect::<BTreeSet<_>>()
        );
        self.check_reader(vfs);
        check_whole(vfs);
        // Opening again finds nothing to mend and changes nothing that counts.
        let again = vfs.fork();
        let w = self.clone().open_writer(&again).unwrap();
        let recovery = asl_store::Recovery {
            // A torn tail stays the end of its file until there is something to append.
            torn_log_bytes: w.recovery().torn_log_bytes,
            ..Default::default()
        };
        assert_eq!(w.recovery(), &recovery);
        drop(w);
        self.check_reader(&again);
        self
    }
}

/// The visible keys.
pub fn keys_of(handle: &StoreHandle) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    handle
        .for_each(&mut |record| {
            keys.insert(record.key);
            Ok(())
        })
        .unwrap();
    keys
}

/// Nothing is damaged, and no block mixes small and large artifacts. What a crash left of a cache does not count; it is made again.
pub fn check_whole(vfs: &FaultVfs) {
    let options = VerifyOptions {
        threads: 1,
        ..VerifyOptions::default()
    };
    let report = verify(Arc::new(vfs.clone()), &options, &()).unwrap();
    assert!(report.only_caches(), "{:?}", report.damage);
    assert_eq!(report.warnings, [] as [&str; 0]);
}

/// The main script: small and large artifacts, notes, syncs, commits, tombstones
/// and their reversal, sessions, a flush, snapshots, three writers.
pub fn script() -> Vec<Step> {
    use Step::*;
    let mut steps = vec![
        Begin(1),
        Put(1, 700),
        Put(2, 300),
        PutSoft(3, 5000),
        Note(1, 100),
        Sync,
        Put(4, 20 << 10),
        Put(5, 900),
        Note(2, 60),
        Sync,
        Note(3, 333),
        Put(6, 64),
        Commit,
        Rm(vec![1, 4]),
        Put(7, 1200),
        Put(1, 700),
        Sync,
        Commit,
        Snapshot("first"),
        Rm(vec![5]),
        Flush,
        Put(5, 900),
        Note(4, 50),
        Sync,
        Flush,
    ];
    // More than one block's worth: sealed on the way.
    steps.extend((10..17).map(|n| Put(n, 11_000)));
    steps.extend([
        Sync,
        End(1, format::SESSION_PAUSED),
        Reopen,
        Put(20, 100),
        Begin(1),
        Put(21, 17_000),
        Rm(vec![20, 10]),
        Put(20, 100),
        Put(22, 0),
        End(1, format::SESSION_FINISHED),
        Snapshot(""),
        Put(23, 10),
        Reopen,
        Put(24, 10),
        Sync,
    ]);
    steps
}

/// Flush after flush, until shards are merged and old segments removed.
pub fn merging_script() -> Vec<Step> {
    use Step::*;
    let mut steps = Vec::new();
    for round in 0..11 {
        steps.extend((0..6).map(|n| Put(100 + 10 * round + n, 40)));
        steps.push(Commit);
        if round % 3 == 2 {
            steps.push(Rm(vec![100 + 10 * round, 100 + 10 * (round - 1)]));
        }
        steps.push(Flush);
        if round == 3 {
            steps.push(Snapshot("before the merge"));
            steps.push(Put(100 + 10 * (round - 1), 40));
        }
    }
    steps
}
