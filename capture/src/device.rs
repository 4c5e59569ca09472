//! Where bytes are rescued from: one trait, a block device, an image file and,
//! for tests, a simulated failing disk.
//!
//! A read either fills the whole buffer or says why not. There are three kinds
//! of "not", and mixing them up is how data is lost:
//! - [`ReadFailure::Unreadable`]: the medium refused this range. Worth mapping,
//!   splitting and trying again.
//! - [`ReadFailure::Gone`]: the device is no longer there (end of file before
//!   the known size, size 0, ENODEV, ENXIO, ENOMEDIUM). Nothing is ever marked
//!   bad for it.
//! - [`ReadFailure::Fatal`]: this process cannot read here at all (EBADF,
//!   EACCES, EINVAL from misalignment, ENOMEM). The capture stops.

mod block;
mod failure;
pub mod fault;
mod image;
mod open;

pub use self::block::BlockDevice;
pub use self::failure::classify;
pub use self::fault::{FaultDevice, FaultDeviceBuilder, VirtualClock};
pub use self::image::ImageFile;
pub use self::open::{
    NotASource, OpenError, OpenOptions, Opened, SECTOR_BYTES_MAX, SECTOR_BYTES_MIN, Warning,
    open_source,
};

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

/// Size and sector sizes of a source, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the source. Not necessarily a multiple of the sector sizes for
    /// an image file.
    pub size_bytes: u64,
    /// Smallest addressable unit; direct reads are aligned to it.
    pub logical_sector_bytes: u32,
    /// Smallest unit that the medium reads; errors are split down to it.
    pub physical_sector_bytes: u32,
}

/// What tells this source apart from another one, whatever name it has today.
/// Every field is as the kernel or udev gives it, trimmed; empty is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The path as the user gave it. Never used to decide sameness.
    pub path: String,
    /// Model name.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name (`wwid`, NAA or EUI-64).
    pub wwn: Option<String>,
    /// Firmware revision.
    pub firmware: Option<String>,
    /// Transport: `ata`, `nvme`, `usb`, `scsi`, `virtio`, `mmc`, `loop`, `file`.
    pub transport: Option<String>,
    /// For a loop device or an image file: the file's absolute path.
    pub backing_file: Option<String>,
}

/// Why a read did not fill its buffer. Errno values are Linux's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFailure {
    /// The medium refused this range.
    Unreadable {
        /// `ENODATA` (61) for a medium error, `EIO` (5) where it is unclear, others as reported.
        errno: i32,
    },
    /// The device is no longer there.
    Gone {
        /// The errno, or 0 for an end of file before the known size.
        errno: i32,
    },
    /// This process cannot read here at all.
    Fatal {
        /// The errno.
        errno: i32,
    },
}

/// A source of bytes: opened for reading only, never written.
pub trait Source: Send + Sync {
    /// Size and sector sizes, as they were when the source was opened.
    fn geometry(&self) -> Geometry;
    /// What tells this source apart.
    fn identity(&self) -> &Identity;
    /// Fills `buf` from `offset`. `offset` and the buffer's length are multiples of
    /// the logical sector size, except at the very end of an image file whose
    /// size is none; the buffer is aligned to 4096 bytes in memory.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadFailure>;
    /// The next range at or after `offset` that may hold anything but zeros,
    /// where the source knows (a sparse image file); by default all of the rest.
    /// `None`: only a hole follows.
    fn next_data(&self, offset: u64) -> Option<std::ops::Range<u64>> {
        let size = self.geometry().size_bytes;
        (offset < size).then_some(offset..size)
    }
}

/// Length in bytes of the file at `path` below `at`, or of `at` itself if the path is
/// empty, as whoever serves it says now. FUSE and network filesystems are asked:
/// what the kernel remembers of a file outlives their server by a second and more
/// (statx(2), `AT_STATX_FORCE_SYNC`).
fn len_now(at: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    match rustix::fs::statx(at, path, flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(stat.stx_size),
        // A kernel before 4.11 or a sandbox from before the call: what is remembered.
        Err(Errno::NOSYS | Errno::PERM) => {
            let stat = rustix::fs::statat(at, path, AtFlags::EMPTY_PATH)?;
            Ok(u64::try_from(stat.st_size).unwrap_or(0))
        }
        Err(errno) => Err(errno),
    }
}
