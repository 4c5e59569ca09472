//! All file input and output of the store, small enough to fake whole.
//!
//! A [`Vfs`] is one directory tree. Paths are relative, `/`-separated, made of
//! the store's own fixed lower-case names; the real implementation resolves
//! them beneath an open directory, so a mount that vanishes and reappears under
//! the same path is never mistaken for the store.
//!
//! What a caller may rely on
//! - Bytes are durable only after [`VfsFile::sync`] returned `Ok`.
//! - A name (created, renamed, removed) is durable only after
//!   [`Vfs::sync_dir`] of its directory returned `Ok`.
//! - After a failed `sync` nothing written since the last good one may be
//!   believed, and asking again proves nothing: the kernel may have marked the
//!   pages clean (Rebello et al., USENIX ATC 2020). The file is abandoned. A
//!   failed `sync_dir` leaves the names it should have settled in the same doubt.
//! - Hard links, chmod, `O_TMPFILE`, `fallocate` and mmap are never used: FAT,
//!   NTFS-3G and SSHFS lack one or another.

use std::io;
use std::os::fd::BorrowedFd;

pub mod fault;
mod path;
pub mod real;
pub mod sub;

/// How an existing file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading only; works on a read-only mount.
    Read,
    /// For reading and writing.
    Write,
}

/// What [`Vfs::metadata`] and [`Vfs::list`] tell of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Whether the name is a directory. Anything that is neither a directory
    /// nor a regular file (symbolic link, device, FIFO) is reported as an error
    /// by `open` and left out by `list`.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The last component only.
    pub name: String,
    /// Kind and length.
    pub metadata: Metadata,
}

/// What the filesystem below says of itself (`statfs(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsStat {
    /// The filesystem's magic number (`f_type`).
    pub fs_type: u64,
    /// Size of the filesystem in bytes.
    pub total_bytes: u64,
    /// Bytes that this process may still write.
    pub available_bytes: u64,
    /// Mounted read-only.
    pub read_only: bool,
}

/// Held until dropped or until the process ends in whatever way.
pub trait VfsLock: Send + Sync {}

/// One directory tree.
pub trait Vfs: Send + Sync {
    /// Opens an existing regular file.
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn VfsFile>>;
    /// Creates a file for reading and writing; fails with `AlreadyExists` where
    /// the name exists. The parent directory must exist.
    fn create_exclusive(&self, path: &str) -> io::Result<Box<dyn VfsFile>>;
    /// Like [`create_exclusive`](Self::create_exclusive), but nobody but the owner may read
    /// the file, where the filesystem knows owners and modes; FAT and its like do not.
    fn create_private(&self, path: &str) -> io::Result<Box<dyn VfsFile>>;
    /// Creates one directory; succeeds where it exists already.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Renames a file, replacing the target.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Lists a directory (`""` is the root), sorted by name.
    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>>;
    /// Kind and length of a name; `NotFound` where it does not exist.
    fn metadata(&self, path: &str) -> io::Result<Metadata>;
    /// Makes the names in a directory durable (`""` is the root).
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Takes an exclusive lock on a file, creating it where it is missing;
    /// `None` where another holder has it. The lock dies with its holder.
    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn VfsLock>>>;
    /// What the filesystem says of itself.
    fn statfs(&self) -> io::Result<FsStat>;
}

/// An open file. Offsets and lengths are in bytes.
pub trait VfsFile: Send + Sync {
    /// The current length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `parts`, one after the other, or fails. After a failure
    /// any prefix may have been written.
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;
    /// Cuts or extends the file.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable (`fdatasync(2)`).
    fn sync(&self) -> io::Result<()>;
    /// Like [`sync`](Self::sync), and then forgets what the page cache holds, so that
    /// the next reads tell what the medium has. For files that another process left: one of its syncs
    /// may have failed, and what it could not write then still reads back,
    /// clean, until a power cut (`posix_fadvise(2)`, `POSIX_FADV_DONTNEED`).
    fn settle(&self) -> io::Result<()>;
    /// Makes this file, which is empty, share all bytes of another (`ioctl_ficlone(2)`). From then on both change apart.
    ///
    /// # Errors
    /// `Unsupported`, or what the filesystem says: most cannot. Then the file is still empty.
    fn share(&self, of: &dyn VfsFile) -> io::Result<()> {
        let _ = of;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// The descriptor of a file that has one.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Reads exactly `buf.len()` bytes or fails with `UnexpectedEof`.
pub fn read_exact_at(file: &dyn VfsFile, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    if file.read_at(offset, buf)? == buf.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
