//! Opening a source by its path: the options, what can be wrong with a path,
//! and what is worth saying about one that was opened nevertheless.
//!
//! A source is opened for reading only. Nothing is created, so a crash leaves
//! nothing.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::Source;
use super::block::BlockDevice;
use super::image::ImageFile;
use crate::inventory::{SystemPaths, Usage};

/// How to open a source.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Logical sector size to use instead of the device's own (512 for an image
    /// file), in bytes: a power of two, and for a device a multiple of its own.
    pub sector_bytes: Option<u32>,
    /// Where the kernel's and udev's descriptions of devices are.
    pub system: SystemPaths,
}

/// A source and what the user should know about it.
pub struct Opened {
    /// The source, open for reading.
    pub source: Box<dyn Source>,
    /// In no particular order.
    pub warnings: Vec<Warning>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("identity", self.source.identity())
            .field("geometry", &self.source.geometry())
            .field("warnings", &self.warnings)
            .finish()
    }
}

/// Something about an opened source that may affect what is read from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The size is no multiple of the sector size, so that the last, shorter
    /// sector is read on its own.
    PartialSector {
        /// Size of the source.
        size_bytes: u64,
        /// Logical sector size in use.
        sector_bytes: u32,
        /// Length of what follows the last whole sector.
        tail_bytes: u32,
    },
    /// Something uses the device, but nothing that is known to write to it.
    InUse(Usage),
    /// The kernel says that something holds the device and not what: a mount in
    /// another namespace, another program that reads it exclusively.
    HeldBySomething {
        /// The device.
        path: String,
    },
    /// Direct I/O is refused, so reads go through the page cache: errors are as
    /// wide as a page of it, and may repeat without the medium being asked again.
    Buffered {
        /// The device.
        path: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PartialSector {
                size_bytes,
                sector_bytes,
                tail_bytes,
            } => write!(
                f,
                "the size of {size_bytes} bytes is not a multiple of the {sector_bytes}-byte \
                 sector: the last {tail_bytes} bytes are read on their own"
            ),
            Self::InUse(usage) => write!(f, "{usage}"),
            Self::HeldBySomething { path } => {
                write!(f, "{path} is held by something that may change it")
            }
            Self::Buffered { path } => write!(
                f,
                "{path} refuses direct I/O: reading through the page cache, which blurs errors"
            ),
        }
    }
}

/// A file type that is no source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotASource {
    /// A directory: its files can be captured one by one, not as an image.
    Directory,
    /// A character device, a terminal for example.
    CharacterDevice,
    /// A named pipe: it has no size and cannot be read twice.
    Fifo,
    /// A socket.
    Socket,
    /// Anything else.
    Unknown,
}

impl NotASource {
    pub(crate) fn from_type(kind: FileType) -> Self {
        match kind {
            FileType::Directory => Self::Directory,
            FileType::CharacterDevice => Self::CharacterDevice,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for NotASource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "a directory",
            Self::CharacterDevice => "a character device",
            Self::Fifo => "a named pipe",
            Self::Socket => "a socket",
            Self::Unknown => "of an unknown type",
        })
    }
}

/// Why a source was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing has this path.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// This user may not read it.
    #[error("no permission to read {}", path.display())]
    Denied {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Neither a block device nor a regular file.
    #[error("{} is {kind}, neither a block device nor an image file", path.display())]
    NotASource {
        /// The path as given.
        path: PathBuf,
        /// What it is instead.
        kind: NotASource,
    },
    /// Something may write to it while it is read. [`OpenError::remedies`] says
    /// what to do.
    #[error("{} is in use: {}", path.display(), list(by))]
    InUse {
        /// The path as given.
        path: PathBuf,
        /// Every use that may write; never empty.
        by: Vec<Usage>,
    },
    /// It has no bytes: an empty file, or a drive without a medium.
    #[error("{} is empty: its size is 0", path.display())]
    Empty {
        /// The path as given.
        path: PathBuf,
    },
    /// The device node exists, the device does not, or no longer.
    #[error("no device answers at {}", path.display())]
    NoDevice {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The sector size asked for cannot be used.
    #[error(
        "a sector size of {requested_bytes} bytes does not fit {}: \
         it must be a power of two from {least_bytes} to {SECTOR_BYTES_MAX}",
        path.display()
    )]
    SectorSize {
        /// The path as given.
        path: PathBuf,
        /// What was asked for.
        requested_bytes: u32,
        /// The smallest that would do.
        least_bytes: u32,
    },
    /// Anything else that the kernel said.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The path as given.
        path: PathBuf,
        /// What was being done: "open", "get the size of".
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenError {
    /// Commands that would clear the way; none where a command cannot.
    pub fn remedies(&self) -> Vec<String> {
        match self {
            Self::InUse { by, .. } => by.iter().map(Usage::remedy).collect(),
            _ => Vec::new(),
        }
    }
}

fn list(uses: &[Usage]) -> String {
    let uses: Vec<String> = uses.iter().map(Usage::to_string).collect();
    uses.join("; ")
}

/// What uses a source: an error if any of it may write, else a warning each.
pub(crate) fn judge_uses(path: &Path, uses: Vec<Usage>) -> Result<Vec<Warning>, OpenError> {
    let (writing, reading): (Vec<_>, Vec<_>) = uses.into_iter().partition(Usage::may_write);
    if writing.is_empty() {
        Ok(reading.into_iter().map(Warning::InUse).collect())
    } else {
        Err(OpenError::InUse {
            path: path.to_owned(),
            by: writing,
        })
    }
}

/// Smallest logical sector of any source, in bytes.
pub const SECTOR_BYTES_MIN: u32 = 512;
/// Largest logical sector that can be asked for, in bytes.
pub const SECTOR_BYTES_MAX: u32 = 65536;

/// The logical sector size to use: the one asked for, if it fits the source's own.
pub(crate) fn sector_bytes(
    path: &Path,
    requested: Option<u32>,
    own_bytes: u32,
) -> Result<u32, OpenError> {
    let Some(requested_bytes) = requested else {
        return Ok(own_bytes);
    };
    // Powers of two: each is a multiple of every smaller one.
    let fits = requested_bytes.is_power_of_two()
        && (own_bytes..=SECTOR_BYTES_MAX.max(own_bytes)).contains(&requested_bytes);
    if fits {
        Ok(requested_bytes)
    } else {
        Err(OpenError::SectorSize {
            path: path.to_owned(),
            requested_bytes,
            least_bytes: own_bytes,
        })
    }
}

/// The warning that a size which is no multiple of the sector size deserves.
pub(crate) fn partial_sector(size_bytes: u64, sector_bytes: u32) -> Option<Warning> {
    let tail_bytes = (size_bytes % u64::from(sector_bytes)) as u32;
    (tail_bytes != 0).then_some(Warning::PartialSector {
        size_bytes,
        sector_bytes,
        tail_bytes,
    })
}

/// An errno of opening `path` as a typed error.
pub(crate) fn open_failure(path: &Path, errno: rustix::io::Errno) -> OpenError {
    use rustix::io::Errno;
    let path = path.to_owned();
    let source = io::Error::from(errno);
    match errno {
        Errno::NOENT | Errno::NOTDIR => OpenError::NotFound { path },
        Errno::ACCESS | Errno::PERM => OpenError::Denied { path, source },
        Errno::NOMEDIUM => OpenError::Empty { path },
        Errno::NXIO | Errno::NODEV => OpenError::NoDevice { path, source },
        _ => OpenError::Io {
            path,
            action: "open",
            source,
        },
    }
}

/// Opens the source at `path` by what it is: a block device or an image file.
///
/// Errors: see [`OpenError`]; anything but those two is `NotASource`.
pub fn open_source(path: &Path, options: &OpenOptions) -> Result<Opened, OpenError> {
    fn opened(source: impl Source + 'static, warnings: Vec<Warning>) -> Opened {
        Opened {
            source: Box::new(source),
            warnings,
        }
    }
    let stat = rustix::fs::stat(path).map_err(|errno| open_failure(path, errno))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
        BlockDevice::open(path, options).map(|(device, warnings)| opened(device, warnings))
    } else {
        ImageFile::open(path, options).map(|(image, warnings)| opened(image, warnings))
    }
}
