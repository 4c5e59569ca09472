//! A [`Vfs`] in memory that fails, fills up and loses power on demand.
//!
//! Invariants
//! - Deterministic: the same calls with the same seeds give the same results,
//!   the same files and the same survivors.
//! - Without faults it behaves like the real one (a test compares them), apart
//!   from holes, which take room here, and directories, which take none.
//! - What the medium holds is kept apart from what a process sees, and only
//!   `sync` and `sync_dir` move anything from the one to the other. A file's
//!   name is durable when its directory was synced after it appeared, and that
//!   directory's own name likewise up to the root.
//! - A rename is one change: at any cut the file has its old name or its new
//!   one. Only a sync of the new name's directory settles it.
//! - After a failed `sync` what it should have written stays unsynced for ever,
//!   although it still reads back and later syncs succeed; names after a failed
//!   `sync_dir` likewise.
//!
//! Crash: [`FaultVfs::power_cut`] makes the file system that the next process
//! finds. The old one goes on for whoever still holds it.
//!
//! This is a test double. It is part of the library because the crates above
//! sweep their own crashes with it.

mod cut;
mod disk;
mod op;
mod rng;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::{Access, DirEntry, FsStat, Metadata, Vfs, VfsFile, VfsLock};
pub use cut::CrashPolicy;
use disk::{Disk, InodeId, Node, Settings};
pub use op::{FailMode, Op, OpKind};
use rng::Rng;

/// Looks at each operation before it happens; an errno makes it fail.
type Hook = Arc<dyn Fn(&Op) -> Option<i32> + Send + Sync>;

/// The file system; clones are the same one.
#[derive(Clone)]
pub struct FaultVfs {
    state: Arc<Mutex<State>>,
}

struct State {
    disk: Disk,
    /// Holder of the lock on each locked file.
    locks: BTreeMap<InodeId, u64>,
    next_lock: u64,
    trace: Vec<Op>,
    count_reads: bool,
    failures: Vec<(u64, i32, FailMode)>,
    hook: Option<Hook>,
    crash_at: Option<u64>,
    crashed: bool,
}

/// What the plan says about an operation.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Go,
    Fail(Errno),
    /// The process dies in the middle of it.
    Crash,
}

impl State {
    fn new(disk: Disk) -> State {
        State {
            disk,
            locks: BTreeMap::new(),
            next_lock: 0,
            trace: Vec::new(),
            count_reads: false,
            failures: Vec::new(),
            hook: None,
            crash_at: None,
            crashed: false,
        }
    }

    fn require_alive(&self) -> io::Result<()> {
        if self.crashed {
            Err(Errno::IO.into())
        } else {
            Ok(())
        }
    }

    fn verdict(&self, number: u64) -> Verdict {
        if self.crash_at.is_some_and(|at| number >= at) {
            return Verdict::Crash;
        }
        let hit = self.failures.iter().find(|(at, _, mode)| match mode {
            FailMode::Once => number == *at,
            FailMode::Sticky => number >= *at,
        });
        match hit {
            Some((_, errno, _)) => Verdict::Fail(Errno::from_raw_os_error(*errno)),
            None => Verdict::Go,
        }
    }

    /// Choices about one operation.
    fn rng(&self, number: u64) -> Rng {
        Rng::new(self.disk.settings.seed, number)
    }
}

impl Default for FaultVfs {
    fn default() -> FaultVfs {
        FaultVfs::new()
    }
}

impl fmt::Debug for FaultVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultVfs")
            .field("files", &self.files())
            .field("ops", &self.ops())
            .finish()
    }
}

/// Making one, and what it is like.
impl FaultVfs {
    /// An empty file system of 1 TiB that calls itself ext4 and takes files of
    /// up to 4 GiB (they are held in memory).
    pub fn new() -> FaultVfs {
        FaultVfs::of(Disk::new(Settings {
            capacity: 1 << 40,
            max_file_len: 1 << 32,
            read_only: false,
            fs_type: 0xef53,
            seed: 0,
        }))
    }

    fn of(disk: Disk) -> FaultVfs {
        FaultVfs {
            state: Arc::new(Mutex::new(State::new(disk))),
        }
    }

    /// A panic in a test must not hide behind a poisoned lock in the next call.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that all files together may have. What does not fit is refused
    /// with `ENOSPC` after the prefix that does.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().disk.settings.capacity = bytes;
    }

    /// Bytes that one file may have; beyond it is `EFBIG`, after the prefix
    /// that fits.
    pub fn set_max_file_len(&self, bytes: u64) {
        self.state().disk.settings.max_file_len = bytes;
    }

    /// Every change is refused with `EROFS`, also through open files.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().disk.settings.read_only = read_only;
    }

    /// The magic number that `statfs` reports.
    pub fn set_fs_type(&self, fs_type: u64) {
        self.state().disk.settings.fs_type = fs_type;
    }

    /// Decides how far failing and dying operations get.
    pub fn set_seed(&self, seed: u64) {
        self.state().disk.settings.seed = seed;
    }
}

/// Counting and failing operations.
impl FaultVfs {
    /// Operations counted so far; the next one has this number.
    pub fn ops(&self) -> u64 {
        self.state().trace.len() as u64
    }

    /// Every counted operation, in order.
    pub fn trace(&self) -> Vec<Op> {
        self.state().trace.clone()
    }

    /// Counts reads, listings, look-ups and locks as well from now on, so that
    /// they can fail too.
    pub fn set_count_reads(&self, count: bool) {
        self.state().count_reads = count;
    }

    /// Makes operation `n` (from 0) fail. A failing write may write any
    /// prefix; everything else that fails does nothing.
    pub fn fail_op(&self, n: u64, errno: i32, mode: FailMode) {
        self.state().failures.push((n, errno, mode));
    }

    /// Shows every counted operation to `hook` before it happens; an errno
    /// makes it fail. No lock is held meanwhile: the hook may call anything
    /// here, such as [`power_cut`](Self::power_cut). A hook that owns a clone
    /// keeps the file system alive until [`clear_faults`](Self::clear_faults).
    pub fn set_hook(&self, hook: impl Fn(&Op) -> Option<i32> + Send + Sync + 'static) {
        let old = self.state().hook.replace(Arc::new(hook));
        // Outside the lock: the old one may own an open file, whose end locks.
        drop(old);
    }

    /// The process dies in operation `n` (from 0): that one may happen in part,
    /// and it and everything after it fails with `EIO`, reads included.
    pub fn crash_at(&self, n: u64) {
        self.state().crash_at = Some(n);
    }

    /// Whether [`crash_at`](Self::crash_at) has struck.
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// Forgets all planned failures, the hook, and the crash. What a failed
    /// sync lost stays lost.
    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.failures.clear();
        state.crash_at = None;
        state.crashed = false;
        let hook = state.hook.take();
        drop(state);
        // Outside the lock, as in `set_hook`.
        drop(hook);
    }

    /// The file system that the next process finds: same size and kind, no
    /// faults, no locks, nothing open, no operation counted.
    pub fn power_cut(&self, policy: CrashPolicy) -> FaultVfs {
        FaultVfs::of(cut::survivors(&self.state().disk, policy))
    }

    /// A copy that goes its own way, as after
    /// [`CrashPolicy::KeepAll`].
    pub fn fork(&self) -> FaultVfs {
        self.power_cut(CrashPolicy::KeepAll)
    }

    /// Releases every lock, as the death of their holder does.
    pub fn release_locks(&self) {
        self.state().locks.clear();
    }

    /// Forgets clean pages, as memory pressure does: what a failed sync lost
    /// can no longer be read.
    pub fn drop_caches(&self) {
        self.state().disk.drop_caches();
    }
}

/// Reaching around the operations: nothing here is counted or can fail by plan,
/// and every change is durable at once.
impl FaultVfs {
    /// All files with their lengths, sorted by path.
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.state();
        let mut files = Vec::new();
        for (dir, names) in &state.disk.dirs {
            for (name, node) in &names.live {
                if let Node::File(inode) = node {
                    let slash = if dir.is_empty() { "" } else { "/" };
                    let len = state.disk.inodes[inode].live.len() as u64;
                    files.push((format!("{dir}{slash}{name}"), len));
                }
            }
        }
        files.sort();
        files
    }

    /// A file's bytes as a process sees them.
    pub fn read_file(&self, path: &str) -> io::Result<Vec<u8>> {
        let state = self.state();
        let inode = state.disk.require_file(path)?;
        Ok(state.disk.inode(inode)?.live.as_ref().clone())
    }

    /// Makes `path` a file of these bytes, with the directories that it needs,
    /// whatever the capacity.
    pub fn write_file(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.state().disk.plant(path, bytes.to_vec())
    }

    /// Inverts all bits of one byte. `InvalidInput` beyond the end.
    pub fn flip_byte(&self, path: &str, offset: u64) -> io::Result<()> {
        let mut bytes = self.read_file(path)?;
        let index = usize::try_from(offset).ok();
        let byte = index.and_then(|index| bytes.get_mut(index));
        *byte.ok_or(io::ErrorKind::InvalidInput)? ^= 0xff;
        self.write_file(path, &bytes)
    }

    /// Removes a file.
    pub fn remove_file(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        state.disk.uproot(path)
    }
}

impl FaultVfs {
    /// Runs one operation: `check` says whether it would be refused anyway and
    /// describes it (`None` where there is nothing to do), the plan judges it,
    /// `act` does it.
    ///
    /// The lock is not held between the three, so `act` checks again.
    fn run<T>(
        &self,
        check: impl FnOnce(&Disk) -> io::Result<Option<Op>>,
        act: impl FnOnce(&mut State, Verdict, Rng) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state();
        state.require_alive()?;
        let op = match check(&state.disk)? {
            Some(op) if op.kind.mutates() || state.count_reads => op,
            _ => {
                let rng = state.rng(0);
                return act(&mut state, Verdict::Go, rng);
            }
        };
        let number = state.trace.len() as u64;
        let op = Op { number, ..op };
        state.trace.push(op.clone());
        let mut verdict = state.verdict(number);
        if let (Verdict::Go, Some(hook)) = (verdict, state.hook.clone()) {
            drop(state);
            if let Some(errno) = hook(&op) {
                verdict = Verdict::Fail(Errno::from_raw_os_error(errno));
            }
            drop(hook);
            state = self.state();
        }
        if let Verdict::Crash = verdict {
            state.crashed = true;
        }
        let rng = state.rng(number);
        let done = act(&mut state, verdict, rng);
        let done = match verdict {
            Verdict::Go => done,
            Verdict::Fail(errno) => Err(errno.into()),
            Verdict::Crash => Err(Errno::IO.into()),
        };
        if let Err(error) = &done {
            state.trace[number as usize].errno = error.raw_os_error();
        }
        done
    }

    /// An operation that happens whole or not at all.
    fn run_whole<T: Default>(
        &self,
        check: impl FnOnce(&Disk) -> io::Result<Option<Op>>,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        self.run(check, |state, verdict, mut rng| match verdict {
            Verdict::Go => act(state),
            // Whether a dying process's last call took effect, nobody knows.
            Verdict::Crash if rng.chance(4) => act(state),
            Verdict::Crash | Verdict::Fail(_) => Ok(T::default()),
        })
    }

    fn opened(&self, inode: InodeId, writable: bool) -> Box<dyn VfsFile> {
        Box::new(FaultFile {
            vfs: self.clone(),
            inode,
            writable,
        })
    }
}

impl Vfs for FaultVfs {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn VfsFile>> {
        let writable = access == Access::Write;
        let check = |disk: &Disk| {
            disk.require_file(path)?;
            if writable {
                disk.require_writable()?;
            }
            Ok(Some(Op::new(OpKind::Open, path)))
        };
        let inode = self.run_whole(check, |state| {
            let inode = state.disk.require_file(path)?;
            state.disk.opened(inode)?;
            Ok(inode)
        })?;
        Ok(self.opened(inode, writable))
    }

    fn create_exclusive(&self, path: &str) -> io::Result<Box<dyn VfsFile>> {
        let check = |disk: &Disk| {
            disk.check_create(path)?;
            Ok(Some(Op::new(OpKind::Create, path)))
        };
        let inode = self.run_whole(check, |state| {
            let inode = state.disk.create(path)?;
            state.disk.opened(inode)?;
            Ok(inode)
        })?;
        Ok(self.opened(inode, true))
    }

    /// This filesystem is like FAT: it knows no modes.
    fn create_private(&self, path: &str) -> io::Result<Box<dyn VfsFile>> {
        self.create_exclusive(path)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let exists = |disk: &Disk| !path.is_empty() && matches!(disk.lookup(path), Ok(Node::Dir));
        let check = |disk: &Disk| {
            if exists(disk) {
                return Ok(None);
            }
            disk.check_create(path)?;
            Ok(Some(Op::new(OpKind::CreateDir, path)))
        };
        self.run_whole(check, |state| {
            if exists(&state.disk) {
                Ok(())
            } else {
                state.disk.create_dir(path)
            }
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let check = |disk: &Disk| {
            disk.check_rename(from, to)?;
            Ok((from != to).then(|| Op::new(OpKind::Rename, from).to(to)))
        };
        self.run_whole(check, |state| state.disk.rename(from, to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let check = |disk: &Disk| {
            disk.check_remove(path)?;
            Ok(Some(Op::new(OpKind::Remove, path)))
        };
        self.run_whole(check, |state| state.disk.remove(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        let check = |disk: &Disk| {
            disk.require_dir(dir)?;
            Ok(Some(Op::new(OpKind::List, dir)))
        };
        self.run_whole(check, |state| state.disk.list(dir))
    }

    fn metadata(&self, path: &str) -> io::Result<Metadata> {
        let check = |disk: &Disk| {
            disk.metadata(path)?;
            Ok(Some(Op::new(OpKind::Metadata, path)))
        };
        let found = self.run_whole(check, |state| state.disk.metadata(path).map(Some))?;
        Ok(found.ok_or(Errno::IO)?)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let check = |disk: &Disk| {
            disk.require_dir(dir)?;
            Ok(Some(Op::new(OpKind::SyncDir, dir)))
        };
        self.run(check, |state, verdict, _| {
            match verdict {
                Verdict::Go => state.disk.sync_dir(dir),
                Verdict::Fail(_) => state.disk.sync_dir_failed(dir),
                Verdict::Crash => {}
            }
            Ok(())
        })
    }

    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn VfsLock>>> {
        let missing = |disk: &Disk| {
            let found = disk.require_file(path);
            found.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        };
        let create = |disk: &Disk| {
            if !missing(disk) {
                return Ok(None);
            }
            disk.check_create(path)?;
            Ok(Some(Op::new(OpKind::Create, path)))
        };
        self.run_whole(create, |state| {
            if missing(&state.disk) {
                state.disk.create(path)?;
            }
            Ok(())
        })?;
        let check = |disk: &Disk| {
            disk.require_file(path)?;
            disk.require_writable()?;
            Ok(Some(Op::new(OpKind::Lock, path)))
        };
        let lock = self.run_whole(check, |state| {
            let inode = state.disk.require_file(path)?;
            if state.locks.contains_key(&inode) {
                return Ok(None);
            }
            state.disk.opened(inode)?;
            let holder = state.next_lock;
            state.next_lock += 1;
            state.locks.insert(inode, holder);
            Ok(Some((inode, holder)))
        })?;
        Ok(lock.map(|(inode, holder)| {
            let vfs = self.clone();
            Box::new(FaultLock { vfs, inode, holder }) as Box<dyn VfsLock>
        }))
    }

    fn statfs(&self) -> io::Result<FsStat> {
        let state = self.state();
        state.require_alive()?;
        let settings = state.disk.settings;
        Ok(FsStat {
            fs_type: settings.fs_type,
            total_bytes: settings.capacity,
            available_bytes: state.disk.available(),
            read_only: settings.read_only,
        })
    }
}

/// An open file. It is the file, not the name: a rename or a removal leaves it
/// usable.
struct FaultFile {
    vfs: FaultVfs,
    inode: InodeId,
    writable: bool,
}

impl FaultFile {
    fn path(&self, disk: &Disk) -> io::Result<String> {
        Ok(disk.inode(self.inode)?.path.clone())
    }

    /// The kernel names a call on a wrongly opened file differently for each.
    fn require_writable(&self, disk: &Disk, errno: Errno) -> io::Result<()> {
        if self.writable {
            disk.require_writable()
        } else {
            Err(errno.into())
        }
    }
}

impl VfsFile for FaultFile {
    fn len(&self) -> io::Result<u64> {
        let check = |disk: &Disk| Ok(Some(Op::new(OpKind::Metadata, self.path(disk)?)));
        self.vfs.run_whole(check, |state| {
            Ok(state.disk.inode(self.inode)?.live.len() as u64)
        })
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len() as u64;
        let check = |disk: &Disk| {
            let end = offset.checked_add(len);
            if end.is_none_or(|end| end > i64::MAX as u64) {
                return Err(Errno::INVAL.into());
            }
            let op = Op::new(OpKind::Read, self.path(disk)?);
            Ok(Some(op.span(offset, len)))
        };
        self.vfs.run_whole(check, |state| {
            let bytes = &state.disk.inode(self.inode)?.live;
            let start = bytes.len().min(offset as usize);
            let n = buf.len().min(bytes.len() - start);
            buf[..n].copy_from_slice(&bytes[start..start + n]);
            Ok(n)
        })
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let data = parts.concat();
        let len = data.len() as u64;
        let check = |disk: &Disk| {
            if len == 0 {
                return Ok(None);
            }
            self.require_writable(disk, Errno::BADF)?;
            disk.write_limit(self.inode, offset, len)?;
            let op = Op::new(OpKind::Write, self.path(disk)?);
            Ok(Some(op.span(offset, len)))
        };
        self.vfs.run(check, |state, verdict, mut rng| {
            let arrives = match verdict {
                Verdict::Go => len,
                // Nothing and everything are what recovery gets wrong most.
                Verdict::Fail(_) | Verdict::Crash => match rng.below(4) {
                    0 => 0,
                    1 => len,
                    _ => rng.below(len + 1),
                },
            };
            state
                .disk
                .write(self.inode, offset, &data[..arrives as usize])
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let check = |disk: &Disk| {
            self.require_writable(disk, Errno::INVAL)?;
            if len > i64::MAX as u64 {
                return Err(Errno::INVAL.into());
            }
            let op = Op::new(OpKind::Truncate, self.path(disk)?);
            Ok(Some(op.span(0, len)))
        };
        self.vfs
            .run_whole(check, |state| state.disk.truncate(self.inode, len))
    }

    fn sync(&self) -> io::Result<()> {
        let check = |disk: &Disk| Ok(Some(Op::new(OpKind::Sync, self.path(disk)?)));
        self.vfs.run(check, |state, verdict, _| match verdict {
            Verdict::Go => state.disk.sync(self.inode),
            Verdict::Fail(_) => state.disk.sync_failed(self.inode),
            Verdict::Crash => Ok(()),
        })
    }

    fn settle(&self) -> io::Result<()> {
        self.sync()?;
        self.vfs.state().disk.forget_clean(self.inode)
    }
}

impl Drop for FaultFile {
    fn drop(&mut self) {
        self.vfs.state().disk.closed(self.inode);
    }
}

/// A held lock.
struct FaultLock {
    vfs: FaultVfs,
    inode: InodeId,
    holder: u64,
}

impl VfsLock for FaultLock {}

impl Drop for FaultLock {
    fn drop(&mut self) {
        let mut state = self.vfs.state();
        // Somebody else may have it since `release_locks`.
        if state.locks.get(&self.inode) == Some(&self.holder) {
            state.locks.remove(&self.inode);
        }
        state.disk.closed(self.inode);
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
