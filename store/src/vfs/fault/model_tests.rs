//! Random operations: against the real file system, and against an
//! independent account of what a power cut may not take.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::super::real::RealVfs;
use super::*;

/// Paths that are files, directories, either or neither.
const PATHS: [&str; 9] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "a/b", "../a"];

#[derive(Debug, Clone)]
enum Call {
    Open(&'static str, Access),
    Create(&'static str),
    CreateDir(&'static str),
    Rename(&'static str, &'static str),
    Remove(&'static str),
    List(&'static str),
    Metadata(&'static str),
    SyncDir(&'static str),
    Lock(&'static str),
    Unlock,
    Close(usize),
    Read(usize, u64, usize),
    Write(usize, u64, Vec<u8>, usize),
    Truncate(usize, u64),
    Len(usize),
    Sync(usize),
}

fn call() -> impl Strategy<Value = Call> {
    let path = || prop::sample::select(&PATHS[..]);
    let dir = || prop::sample::select(&["", "d", "d/e", "a", "none"][..]);
    let slot = || 0..4usize;
    let access = prop::sample::select(&[Access::Read, Access::Write][..]);
    let bytes = prop::collection::vec(any::<u8>(), 0..3000);
    prop_oneof![
        3 => (path(), access).prop_map(|(p, a)| Call::Open(p, a)),
        4 => path().prop_map(Call::Create),
        2 => path().prop_map(Call::CreateDir),
        3 => (path(), path()).prop_map(|(p, q)| Call::Rename(p, q)),
        2 => path().prop_map(Call::Remove),
        1 => dir().prop_map(Call::List),
        1 => path().prop_map(Call::Metadata),
        1 => dir().prop_map(Call::SyncDir),
        1 => path().prop_map(Call::Lock),
        1 => Just(Call::Unlock),
        1 => slot().prop_map(Call::Close),
        3 => (slot(), 0..6000u64, 0..4000usize).prop_map(|(s, o, l)| Call::Read(s, o, l)),
        5 => (slot(), 0..5000u64, bytes, 1..900usize)
            .prop_map(|(s, o, b, n)| Call::Write(s, o, b, n)),
        2 => (slot(), 0..6000u64).prop_map(|(s, l)| Call::Truncate(s, l)),
        1 => slot().prop_map(Call::Len),
        1 => slot().prop_map(Call::Sync),
    ]
}

/// Everything that a caller could see of a result.
#[derive(Debug, PartialEq)]
enum Seen {
    Nothing,
    Taken(bool),
    Number(u64),
    Bytes(Vec<u8>),
    Entries(Vec<DirEntry>),
    Metadata(Metadata),
    Failed(io::ErrorKind),
}

/// A file system with a process on it.
struct Side<'a> {
    vfs: &'a dyn Vfs,
    files: Vec<Box<dyn VfsFile>>,
    locks: Vec<Box<dyn VfsLock>>,
}

impl<'a> Side<'a> {
    fn new(vfs: &'a dyn Vfs) -> Side<'a> {
        Side {
            vfs,
            files: Vec::new(),
            locks: Vec::new(),
        }
    }

    fn file(&self, slot: usize) -> Option<&dyn VfsFile> {
        let slot = slot % self.files.len().max(1);
        self.files.get(slot).map(|file| file.as_ref())
    }

    fn run(&mut self, call: &Call) -> io::Result<Seen> {
        let nothing = |()| Seen::Nothing;
        let on = |slot: &usize| self.file(*slot);
        match call {
            Call::Open(path, access) => self.files.push(self.vfs.open(path, *access)?),
            Call::Create(path) => self.files.push(self.vfs.create_exclusive(path)?),
            Call::CreateDir(path) => self.vfs.create_dir(path)?,
            Call::Rename(from, to) => self.vfs.rename(from, to)?,
            Call::Remove(path) => self.vfs.remove(path)?,
            Call::List(dir) => return self.vfs.list(dir).map(Seen::Entries),
            Call::Metadata(path) => return self.vfs.metadata(path).map(Seen::Metadata),
            Call::SyncDir(dir) => self.vfs.sync_dir(dir)?,
            Call::Lock(path) => {
                let lock = self.vfs.lock(path)?;
                let taken = lock.is_some();
                self.locks.extend(lock);
                return Ok(Seen::Taken(taken));
            }
            Call::Unlock => drop(self.locks.pop()),
            Call::Close(slot) => {
                if !self.files.is_empty() {
                    let slot = slot % self.files.len();
                    self.files.remove(slot);
                }
            }
            Call::Read(slot, offset, len) => {
                if let Some(file) = on(slot) {
                    let mut buf = vec![0; *len];
                    let n = file.read_at(*offset, &mut buf)?;
                    buf.truncate(n);
                    return Ok(Seen::Bytes(buf));
                }
            }
            Call::Write(slot, offset, bytes, part) => {
                if let Some(file) = on(slot) {
                    let parts: Vec<&[u8]> = bytes.chunks(*part).collect();
                    return file.write_at(*offset, &parts).map(nothing);
                }
            }
            Call::Truncate(slot, len) => {
                if let Some(file) = on(slot) {
                    return file.truncate(*len).map(nothing);
                }
            }
            Call::Len(slot) => {
                if let Some(file) = on(slot) {
                    return file.len().map(Seen::Number);
                }
            }
            Call::Sync(slot) => {
                if let Some(file) = on(slot) {
                    return file.sync().map(nothing);
                }
            }
        }
        Ok(Seen::Nothing)
    }
}

/// All files of a real directory.
fn real_files(dir: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            real_files(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn without_faults_it_is_like_the_real_one(calls in prop::collection::vec(call(), 1..60)) {
        // Syncs cost nothing in memory.
        let shm = Path::new("/dev/shm");
        let dir = tempfile::tempdir_in(shm).or_else(|_| tempfile::tempdir()).unwrap();
        let root = dir.path().join("root");
        let real = RealVfs::create(&root).unwrap();
        let fault = FaultVfs::new();
        let (mut a, mut b) = (Side::new(&real), Side::new(&fault));
        for call in &calls {
            let failed = |e: io::Error| Seen::Failed(e.kind());
            let seen = a.run(call).unwrap_or_else(failed);
            prop_assert_eq!(&seen, &b.run(call).unwrap_or_else(failed), "{:?}", call);
        }
        let mut files = BTreeMap::new();
        real_files(&root, "", &mut files);
        let held = fault.files().into_iter().map(|(path, _)| {
            let bytes = fault.read_file(&path).unwrap();
            (path, bytes)
        });
        prop_assert_eq!(files, held.collect::<BTreeMap<_, _>>());
    }
}

/// What a process does to `DIRS` and the files in them, where it can.
#[derive(Debug, Clone)]
enum Step {
    Create(Key),
    CreateDir(&'static str),
    Write(Key, usize, usize, u8),
    Truncate(Key, usize),
    Rename(Key, Key),
    Remove(Key),
    Sync(Key),
    FailSync(Key),
    SyncDir(&'static str),
}

/// A directory and a name in it.
type Key = (&'static str, &'static str);

const DIRS: [&str; 3] = ["", "d", "e"];

fn step() -> impl Strategy<Value = Step> {
    let dir = || prop::sample::select(&DIRS[..]);
    let key = || (dir(), prop::sample::select(&["x", "y"][..]));
    prop_oneof![
        4 => key().prop_map(Step::Create),
        2 => prop::sample::select(&["d", "e"][..]).prop_map(Step::CreateDir),
        6 => (key(), 0..3000usize, 1..2000usize, 1..255u8)
            .prop_map(|(k, o, l, b)| Step::Write(k, o, l, b)),
        1 => (key(), 0..4000usize).prop_map(|(k, l)| Step::Truncate(k, l)),
        2 => (key(), key()).prop_map(|(k, l)| Step::Rename(k, l)),
        1 => key().prop_map(Step::Remove),
        4 => key().prop_map(Step::Sync),
        1 => key().prop_map(Step::FailSync),
        4 => dir().prop_map(Step::SyncDir),
    ]
}

/// How sure a byte is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sure {
    Synced,
    NotYet,
    Never,
}

/// The account's file: what was said about each byte.
#[derive(Debug, Clone, Default)]
struct Told {
    bytes: Vec<(u8, Sure)>,
    /// Content at the last good sync; `None` after a failed one, when it takes
    /// more than this account to know.
    synced: Option<Vec<u8>>,
    failed: bool,
}

impl Told {
    fn resize(&mut self, len: usize) {
        // Zeros that stand where a lost write should have cut or extended are
        // not the caller's.
        let sure = if self.failed {
            Sure::Never
        } else {
            Sure::NotYet
        };
        self.bytes.resize(len, (0, sure));
    }

    fn sync(&mut self, becomes: Sure) {
        for (_, sure) in &mut self.bytes {
            if *sure == Sure::NotYet {
                *sure = becomes;
            }
        }
        self.failed |= becomes == Sure::Never;
        self.synced = (!self.failed).then(|| self.bytes.iter().map(|(b, _)| *b).collect());
    }
}

/// What was promised so far. Kept apart from the implementation's notions on
/// purpose: it knows only which syncs returned and what they covered.
#[derive(Default)]
struct Account {
    files: Vec<Told>,
    live: BTreeMap<Key, usize>,
    durable: BTreeMap<Key, usize>,
    /// Names changed since their directory was synced.
    touched: BTreeSet<Key>,
    /// Names whose state hangs on a rename between directories, with those that
    /// must be synced before their own for it to be settled.
    unsettled: BTreeMap<Key, BTreeSet<&'static str>>,
    dirs: BTreeSet<&'static str>,
    durable_dirs: BTreeSet<&'static str>,
}

impl Account {
    fn touch(&mut self, keys: &[Key]) {
        self.touched.extend(keys);
        let crosses = keys.iter().any(|k| k.0 != keys[0].0);
        if !crosses && !keys.iter().any(|k| self.unsettled.contains_key(k)) {
            return;
        }
        // One settled name may now settle any other of these directories'.
        let mut dirs: BTreeSet<&'static str> = keys.iter().map(|k| k.0).collect();
        for key in keys {
            dirs.extend(self.unsettled.get(key).into_iter().flatten());
        }
        let touched = self.touched.iter().filter(|k| dirs.contains(k.0));
        let all: Vec<Key> = touched.chain(keys).copied().collect();
        for key in all {
            self.unsettled.entry(key).or_default().extend(&dirs);
        }
    }

    fn sync_dir(&mut self, dir: &'static str) {
        if dir.is_empty() {
            self.durable_dirs = self.dirs.clone();
        }
        for others in self.unsettled.values_mut() {
            others.remove(dir);
        }
        let keys: BTreeSet<Key> = self
            .live
            .keys()
            .chain(self.durable.keys())
            .copied()
            .collect();
        for key in keys.into_iter().chain(self.touched.clone()) {
            if key.0 != dir {
                continue;
            }
            if self
                .unsettled
                .get(&key)
                .is_some_and(|others| !others.is_empty())
            {
                continue;
            }
            self.unsettled.remove(&key);
            self.touched.remove(&key);
            match self.live.get(&key) {
                Some(file) => self.durable.insert(key, *file),
                None => self.durable.remove(&key),
            };
        }
    }

    fn run(&mut self, step: &Step, vfs: &FaultVfs) {
        let at = |key: &Key| match key.0 {
            "" => key.1.to_owned(),
            dir => format!("{dir}/{}", key.1),
        };
        let open = |key: &Key| vfs.open(&at(key), Access::Write);
        match step {
            Step::Create(key) => {
                if vfs.create_exclusive(&at(key)).is_ok() {
                    self.live.insert(*key, self.files.len());
                    let synced = Some(Vec::new());
                    self.files.push(Told {
                        synced,
                        ..Told::default()
                    });
                    self.touch(&[*key]);
                }
            }
            Step::CreateDir(dir) => {
                vfs.create_dir(dir).unwrap();
                self.dirs.insert(dir);
            }
            Step::Write(key, offset, len, byte) => {
                let Ok(file) = open(key) else { return };
                file.write_at(*offset as u64, &[&vec![*byte; *len]])
                    .unwrap();
                let told = &mut self.files[self.live[key]];
                if told.bytes.len() < offset + len {
                    told.resize(offset + len);
                }
                told.bytes[*offset..offset + len].fill((*byte, Sure::NotYet));
            }
            Step::Truncate(key, len) => {
                let Ok(file) = open(key) else { return };
                file.truncate(*len as u64).unwrap();
                self.files[self.live[key]].resize(*len);
            }
            Step::Rename(from, to) => {
                if from != to && vfs.rename(&at(from), &at(to)).is_ok() {
                    let file = self.live.remove(from).unwrap();
                    self.live.insert(*to, file);
                    self.touch(&[*from, *to]);
                }
            }
            Step::Remove(key) => {
                if vfs.remove(&at(key)).is_ok() {
                    self.live.remove(key).unwrap();
                    self.touch(&[*key]);
                }
            }
            Step::Sync(key) => {
                let Ok(file) = open(key) else { return };
                file.sync().unwrap();
                self.files[self.live[key]].sync(Sure::Synced);
            }
            Step::FailSync(key) => {
                let Ok(file) = open(key) else { return };
                vfs.fail_op(vfs.ops(), 5, FailMode::Once);
                file.sync().unwrap_err();
                self.files[self.live[key]].sync(Sure::Never);
            }
            Step::SyncDir(dir) => {
                if vfs.sync_dir(dir).is_ok() {
                    self.sync_dir(dir);
                }
            }
        }
    }

    fn dir_is_durable(&self, dir: &str) -> bool {
        dir.is_empty() || self.durable_dirs.contains(dir)
    }

    /// Names that were synced and left alone since, with synced bytes left
    /// alone since.
    fn check_promises(&self, cut: &FaultVfs) -> Result<(), TestCaseError> {
        for (key, file) in &self.durable {
            if self.touched.contains(key) || !self.dir_is_durable(key.0) {
                continue;
            }
            let path = format!("{}/{}", key.0, key.1);
            let found = cut.read_file(path.trim_start_matches('/'));
            let Ok(found) = found else {
                return Err(TestCaseError::fail(format!("{path} is gone")));
            };
            for (at, (byte, sure)) in self.files[*file].bytes.iter().enumerate() {
                if *sure == Sure::Synced {
                    prop_assert_eq!(found.get(at), Some(byte), "{} at {}", path, at);
                }
            }
        }
        Ok(())
    }

    /// Exactly what was synced, and nothing else.
    fn check_nothing_more(&self, cut: &FaultVfs) -> Result<(), TestCaseError> {
        for dir in DIRS {
            for name in ["x", "y"] {
                let key = (dir, name);
                if self.unsettled.contains_key(&key) {
                    continue;
                }
                let path = format!("{dir}/{name}");
                let found = cut.read_file(path.trim_start_matches('/')).ok();
                let file = self.durable.get(&key).filter(|_| self.dir_is_durable(dir));
                prop_assert_eq!(found.is_some(), file.is_some(), "{}", path);
                if let Some(synced) = file.and_then(|file| self.files[*file].synced.as_ref()) {
                    prop_assert_eq!(found.as_ref(), Some(synced), "{}", path);
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_cut_takes_what_was_synced(
        steps in prop::collection::vec(step(), 1..60),
        seeds in prop::collection::vec(any::<u64>(), 4),
    ) {
        let vfs = FaultVfs::new();
        let mut account = Account::default();
        for step in &steps {
            account.run(step, &vfs);
        }
        let cut = vfs.power_cut(CrashPolicy::LoseUnsynced);
        account.check_promises(&cut)?;
        account.check_nothing_more(&cut)?;
        for seed in seeds {
            for policy in [CrashPolicy::Torn { seed }, CrashPolicy::Reorder { seed }] {
                let cut = vfs.power_cut(policy);
                account.check_promises(&cut)?;
                prop_assert_eq!(cut.files(), vfs.power_cut(policy).files());
                // What is found is on the medium: a second cut changes nothing.
                let again = cut.power_cut(CrashPolicy::LoseUnsynced);
                prop_assert_eq!(cut.files(), again.files());
            }
        }
        let killed = vfs.power_cut(CrashPolicy::KeepAll);
        prop_assert_eq!(killed.files(), vfs.files());
        for (path, _) in vfs.files() {
            prop_assert_eq!(killed.read_file(&path).unwrap(), vfs.read_file(&path).unwrap());
        }
        account.check_promises(&killed)?;
        account.check_nothing_more(&killed.power_cut(CrashPolicy::LoseUnsynced))?;
        let used: u64 = killed.files().iter().map(|(_, len)| len).sum();
        prop_assert_eq!(killed.statfs().unwrap().available_bytes, (1 << 40) - used);
    }
}
