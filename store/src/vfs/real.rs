//! The [`Vfs`] of the operating system.
//!
//! Invariants
//! - Every path is resolved beneath one open directory, through directories
//!   only: no symbolic link is followed, no mount point below the root is
//!   entered (`openat2(2)`, `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
//!   RESOLVE_NO_XDEV`). A kernel without that call walks one component at a
//!   time with `O_NOFOLLOW` and compares device numbers.
//! - Only regular files are opened. The kind is looked at before, because
//!   merely opening a device may act on it, and again on the open file, because
//!   the name may have changed in between.
//! - No call blocks on a FIFO, and none is given up because of a signal.
//! - Files are created with mode 0666 and directories with 0777, less the
//!   process's umask: a store is often read under another user id later. Private
//!   files are created with mode 0600.
//!
//! Crash: this file keeps no state of its own. What survives is what
//! [`Vfs`] promises: synced bytes under synced names.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::path::{check_dir, invalid, split};
use super::{Access, DirEntry, FsStat, Metadata, Vfs, VfsFile, VfsLock};

/// How `openat2` resolves every path below the root.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// One directory tree of the operating system, held by its open root.
///
/// The tree stays the same one even where its path is renamed, unmounted
/// lazily, or mounted over.
#[derive(Debug)]
pub struct RealVfs {
    root: OwnedFd,
    /// Device of the root, for the walk without `openat2`.
    device: u64,
    /// Whether the kernel offers `openat2(2)` (Linux 5.6; a seccomp filter may
    /// hide it).
    has_openat2: bool,
}

/// A directory that is either the root itself or was opened for one call.
enum Directory<'a> {
    Root(BorrowedFd<'a>),
    Below(OwnedFd),
}

impl AsFd for Directory<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Directory::Root(fd) => *fd,
            Directory::Below(fd) => fd.as_fd(),
        }
    }
}

impl RealVfs {
    /// Opens the tree at an existing directory. Symbolic links in `root` itself
    /// are followed: the user chose that path.
    ///
    /// # Errors
    /// What `open(2)` says; `NotADirectory` where `root` is something else.
    pub fn open(root: &Path) -> io::Result<RealVfs> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = retry_on_intr(|| rustix::fs::open(root, flags, Mode::empty()))?;
        let device = rustix::fs::fstat(&root)?.st_dev;
        // Nothing but a missing call can make this fail on a directory that is
        // already open; old container runtimes answer EPERM for ENOSYS.
        let probe = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let probed =
            retry_on_intr(|| rustix::fs::openat2(&root, c".", probe, Mode::empty(), RESOLVE));
        Ok(RealVfs {
            root,
            device,
            has_openat2: probed.is_ok(),
        })
    }

    /// Creates the directory and its missing parents, makes their names
    /// durable, and opens the tree. A directory that exists already is opened
    /// as it is.
    ///
    /// # Errors
    /// What `mkdir(2)`, `fsync(2)` or `open(2)` say.
    pub fn create(root: &Path) -> io::Result<RealVfs> {
        // A relative path of one component would have the parent "".
        let root = Path::new(".").join(root);
        let mut missing: Vec<PathBuf> = Vec::new();
        for path in root.ancestors() {
            if path.as_os_str().is_empty() || path.try_exists()? {
                break;
            }
            missing.push(path.to_path_buf());
        }
        let existed = missing.is_empty();
        for path in missing.iter().rev() {
            match std::fs::create_dir(path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                other => other?,
            }
            sync_parent(path)?;
        }
        if existed {
            // A run that was killed after its mkdir left a name that nobody
            // synced. Where the parent may not be opened, it is not ours.
            let _ = sync_parent(&root);
        }
        RealVfs::open(&root)
    }

    /// Opens a directory of the tree (`""` is the root).
    fn directory(&self, dir: &str, flags: OFlags) -> io::Result<Directory<'_>> {
        check_dir(dir)?;
        if dir.is_empty() {
            return Ok(Directory::Root(self.root.as_fd()));
        }
        let flags = flags | OFlags::DIRECTORY;
        if self.has_openat2 {
            let fd = self.open_in(self.root.as_fd(), dir, flags)?;
            return Ok(Directory::Below(fd));
        }
        let mut at = Directory::Root(self.root.as_fd());
        for name in dir.split('/') {
            let next = self.open_in(at.as_fd(), name, flags)?;
            if rustix::fs::fstat(&next)?.st_dev != self.device {
                return Err(Errno::XDEV.into());
            }
            at = Directory::Below(next);
        }
        Ok(at)
    }

    /// The directory that holds `path`, and the last component.
    fn parent<'p>(&self, path: &'p str) -> io::Result<(Directory<'_>, &'p str)> {
        let (dir, name) = split(path)?;
        Ok((self.directory(dir, OFlags::PATH)?, name))
    }

    /// Opens `path` from `at`, refusing links and foreign mounts. Without
    /// `openat2`, `path` must be one component.
    fn open_in(&self, at: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        // openat2 refuses a mode where nothing can be created.
        let mode = if flags.contains(OFlags::CREATE) {
            0o666
        } else {
            0
        };
        self.open_mode(at, path, flags, Mode::from_raw_mode(mode))
    }

    /// Creates a file for reading and writing that must not exist.
    fn create_mode(&self, path: &str, mode: u32) -> io::Result<Box<dyn VfsFile>> {
        let (dir, name) = self.parent(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = self.open_mode(dir.as_fd(), name, flags, Mode::from_raw_mode(mode))?;
        Ok(Box::new(RealFile(File::from(fd))))
    }

    fn open_mode(
        &self,
        at: BorrowedFd<'_>,
        path: &str,
        flags: OFlags,
        mode: Mode,
    ) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = retry_on_intr(|| {
            if self.has_openat2 {
                rustix::fs::openat2(at, path, flags, mode, RESOLVE)
            } else {
                rustix::fs::openat(at, path, flags, mode)
            }
        });
        match opened {
            Ok(fd) => Ok(fd),
            Err(Errno::LOOP) => Err(invalid(format!("{path} leads through a symbolic link"))),
            // O_DIRECTORY | O_NOFOLLOW says ENOTDIR for a link as well.
            Err(Errno::NOTDIR) if stat_at(at, path).is_ok_and(|s| is(&s, FileType::Symlink)) => {
                Err(invalid(format!("{path} is a symbolic link")))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Opens a regular file; anything else is refused unopened.
    fn open_regular(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let (dir, name) = self.parent(path)?;
        match stat_at(dir.as_fd(), name) {
            Ok(stat) => require_regular(&stat, path)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound && flags.contains(OFlags::CREATE) => {}
            Err(e) => return Err(e),
        }
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_in(dir.as_fd(), name, flags)?;
        require_regular(&rustix::fs::fstat(&fd)?, path)?;
        Ok(File::from(fd))
    }
}

impl Vfs for RealVfs {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn VfsFile>> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        Ok(Box::new(RealFile(self.open_regular(path, flags)?)))
    }

    fn create_exclusive(&self, path: &str) -> io::Result<Box<dyn VfsFile>> {
        self.create_mode(path, 0o666)
    }

    fn create_private(&self, path: &str) -> io::Result<Box<dyn VfsFile>> {
        self.create_mode(path, 0o600)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let mode = Mode::from_raw_mode(0o777);
        match retry_on_intr(|| rustix::fs::mkdirat(&dir, name, mode)) {
            Err(Errno::EXIST) if is(&stat_at(dir.as_fd(), name)?, FileType::Directory) => Ok(()),
            other => Ok(other?),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        require_regular(&stat_at(from_dir.as_fd(), from_name)?, from)?;
        Ok(retry_on_intr(|| {
            rustix::fs::renameat(&from_dir, from_name, &to_dir, to_name)
        })?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        Ok(retry_on_intr(|| {
            rustix::fs::unlinkat(&dir, name, AtFlags::empty())
        })?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        let fd = self.directory(dir, OFlags::RDONLY)?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&fd)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match stat_at(fd.as_fd(), entry.file_name()) {
                // Removed by somebody since the directory was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            // A name that is not UTF-8 is not one of the store's.
            let (Ok(name), Some(metadata)) = (entry.file_name().to_str(), metadata_of(&stat))
            else {
                continue;
            };
            entries.push(DirEntry {
                name: name.to_owned(),
                metadata,
            });
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn metadata(&self, path: &str) -> io::Result<Metadata> {
        let stat = if path.is_empty() {
            rustix::fs::fstat(&self.root)?
        } else {
            let (dir, name) = self.parent(path)?;
            stat_at(dir.as_fd(), name)?
        };
        metadata_of(&stat).ok_or_else(|| not_regular(&stat, path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        sync_directory(self.directory(dir, OFlags::RDONLY)?)
    }

    /// The lock is a `flock(2)` on the open file. Nobody may remove the file
    /// while it may be locked: a new file under the same name is another lock.
    ///
    /// # Errors
    /// `ENOLCK`, `EOPNOTSUPP` or `ENOSYS` where the filesystem has no locks.
    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn VfsLock>>> {
        let file = self.open_regular(path, OFlags::RDWR | OFlags::CREATE)?;
        match retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(Some(Box::new(RealLock { _file: file }))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// `available_bytes` leaves out what is reserved for the superuser, even
    /// where this process is the superuser.
    fn statfs(&self) -> io::Result<FsStat> {
        let stat = retry_on_intr(|| rustix::fs::fstatvfs(&self.root))?;
        let magic = retry_on_intr(|| rustix::fs::fstatfs(&self.root))?.f_type;
        Ok(FsStat {
            // Magics have 32 bits; the field is signed and as wide as a word.
            fs_type: (magic as u64) & 0xffff_ffff,
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            read_only: stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    }
}

/// An open regular file of the operating system.
#[derive(Debug)]
struct RealFile(File);

impl VfsFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let at = advance(offset, done)?;
            match retry_on_intr(|| rustix::io::pread(&self.0, &mut buf[done..], at))? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| IoSlice::new(part))
            .collect();
        let mut rest = slices.as_mut_slice();
        let mut at = offset;
        while !rest.is_empty() {
            // This comes back short for more slices than the kernel takes, and
            // where space runs out half way, which it admits only when asked
            // for the remainder.
            let n = retry_on_intr(|| rustix::io::pwritev(&self.0, rest, at))?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, n);
            at = advance(at, n)?;
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::ftruncate(&self.0, len))?)
    }

    fn share(&self, of: &dyn VfsFile) -> io::Result<()> {
        let of = of.descriptor().ok_or(io::ErrorKind::Unsupported)?;
        Ok(retry_on_intr(|| rustix::fs::ioctl_ficlone(&self.0, of))?)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn sync(&self) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::fdatasync(&self.0)) {
            Err(Errno::INVAL | Errno::NOSYS) => Ok(retry_on_intr(|| rustix::fs::fsync(&self.0))?),
            other => Ok(other?),
        }
    }

    fn settle(&self) -> io::Result<()> {
        self.sync()?;
        // Advice only: a filesystem without a page cache of its own has nothing to forget.
        let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed);
        Ok(())
    }
}

/// A held `flock(2)`; closing the file releases it.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl VfsLock for RealLock {}

/// `offset + len`, or `InvalidInput` where no file reaches that far.
fn advance(offset: u64, len: usize) -> io::Result<u64> {
    offset
        .checked_add(len as u64)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The kind and length of a name itself, not of what it may link to.
fn stat_at(dir: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> io::Result<Stat> {
    Ok(retry_on_intr(|| {
        rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
    })?)
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// `None` for what is neither a directory nor a regular file.
fn metadata_of(stat: &Stat) -> Option<Metadata> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Some(Metadata {
            is_dir: true,
            len: 0,
        }),
        FileType::RegularFile => Some(Metadata {
            is_dir: false,
            len: u64::try_from(stat.st_size).ok()?,
        }),
        _ => None,
    }
}

fn require_regular(stat: &Stat, path: &str) -> io::Result<()> {
    if is(stat, FileType::RegularFile) {
        Ok(())
    } else {
        Err(not_regular(stat, path))
    }
}

fn not_regular(stat: &Stat, path: &str) -> io::Error {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "of an unknown kind",
    };
    invalid(format!("{path} is {kind}, not a regular file"))
}

/// Makes the names in a directory durable, as far as its filesystem knows how:
/// some network and FUSE filesystems refuse to sync a directory at all, and
/// then nothing more can be done.
fn sync_directory(dir: impl AsFd) -> io::Result<()> {
    match retry_on_intr(|| rustix::fs::fsync(&dir)) {
        Err(Errno::INVAL | Errno::NOTSUP | Errno::BADF | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

/// Makes the name of `path` durable in the directory that holds it.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => sync_directory(File::open(parent)?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
