//! A block device as a source: direct, exclusive, read-only.
//!
//! Direct I/O asks the medium itself, so that an error is about the range that
//! was read and nothing else; through the page cache one bad sector would take
//! its neighbours along. `O_EXCL` keeps others from mounting the device while it
//! is read. Where something holds it already, who that is decides: anything that
//! may write is refused, anything else is a warning.
//!
//! After every failed read the device is asked whether it is still there
//! ([`BlockDevice::alive`]), because drivers tend to answer `EIO` for hardware
//! that has left, and a vanished disk must never be mapped as bad.
//!
//! Limit: a device without hardware of its own (loop, nbd, device mapper) answers
//! `EIO` for everything once what is behind it has died, and keeps its size. The disks
//! beneath it and the file behind a loop device are watched instead; what neither
//! shows (a dead server behind nbd, a file in another mount namespace) looks like bad sectors.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::failure::{MISUSE, classify};
use super::open::{
    NotASource, OpenError, OpenOptions, Warning, judge_uses, open_failure, partial_sector,
    sector_bytes,
};
use super::{Geometry, Identity, ReadFailure, Source, len_now};
use crate::inventory::{BlockNode, DevNumber, SystemPaths, devices_beneath, identify, usage_of};
use crate::sys;

/// Page of the page cache: what a buffered read error is as wide as.
const PAGE_BYTES: u32 = 4096;
/// No medium has larger physical sectors; a bridge that claims so is wrong.
const PHYSICAL_BYTES_MAX: u32 = 65536;

/// An open block device.
#[derive(Debug)]
pub struct BlockDevice {
    device: OwnedFd,
    /// For what follows the last whole sector, which direct I/O cannot address.
    tail: Option<OwnedFd>,
    direct: bool,
    /// The device's own logical sector size; the geometry's may be larger.
    own_sector_bytes: u32,
    geometry: Geometry,
    identity: Identity,
    presence: Presence,
}

impl BlockDevice {
    /// Opens the block device at `path` for reading.
    ///
    /// Errors: [`OpenError::InUse`] when it, a partition of it or anything stacked
    /// on it is mounted read-write or is swap; [`OpenError::Empty`] without a medium;
    /// [`OpenError::SectorSize`]; [`OpenError::NotASource`] for anything but a
    /// block device; [`OpenError::Denied`].
    pub fn open(path: &Path, options: &OpenOptions) -> Result<(Self, Vec<Warning>), OpenError> {
        Self::open_with(path, options, OFlags::DIRECT)
    }

    /// `direct` is empty in tests of the road without direct I/O.
    fn open_with(
        path: &Path,
        options: &OpenOptions,
        direct: OFlags,
    ) -> Result<(Self, Vec<Warning>), OpenError> {
        let before = rustix::fs::stat(path).map_err(|errno| open_failure(path, errno))?;
        let number = block_device(path, &before)?;
        let system = &options.system;
        let node = BlockNode::find(system, number);
        let judge = || {
            let uses = node.as_ref().map(|node| usage_of(system, node));
            judge_uses(path, uses.unwrap_or_default())
        };
        // First, since that a disk is in use says more than that it cannot be opened.
        let mut warnings = judge()?;
        let handle = Handle::open(path, direct)?;
        if !handle.exclusive {
            // Something may have come to use it in between.
            warnings = judge()?;
        }
        let examine = |errno| failed(path, "examine", errno);
        let after = rustix::fs::fstat(&handle.device).map_err(examine)?;
        if block_device(path, &after)? != number {
            return Err(examine(Errno::NXIO));
        }

        let shown = path.to_string_lossy();
        if !handle.exclusive && warnings.is_empty() {
            let path = shown.to_string();
            warnings.push(Warning::HeldBySomething { path });
        }
        if !handle.direct {
            let path = shown.to_string();
            warnings.push(Warning::Buffered { path });
            // Reading ahead would touch sectors that nobody asked for. Advice
            // only: reading works without it.
            let _ = rustix::fs::fadvise(&handle.device, 0, None, Advice::Random);
        }

        let size_of = |errno| failed(path, "get the size of", errno);
        let size_bytes = sys::device_size_bytes(&handle.device).map_err(size_of)?;
        if size_bytes == 0 {
            let path = path.to_owned();
            return Err(OpenError::Empty { path });
        }
        let own = sys::device_logical_sector_bytes(&handle.device).map_err(size_of)?;
        let logical = sector_bytes(path, options.sector_bytes, own)?;
        let claimed = sys::device_physical_sector_bytes(&handle.device).unwrap_or(logical);
        let physical = physical_sector_bytes(logical, claimed, handle.direct);
        warnings.extend(partial_sector(size_bytes, logical));
        let tail = if handle.direct && !size_bytes.is_multiple_of(u64::from(own)) {
            Some(reopen_buffered(path).map_err(|errno| open_failure(path, errno))?)
        } else {
            None
        };

        let identity = match &node {
            Some(node) => identify(system, node, &shown),
            None => Identity {
                path: shown.into_owned(),
                ..Identity::default()
            },
        };
        let device = Self {
            device: handle.device,
            tail,
            direct: handle.direct,
            own_sector_bytes: own,
            geometry: Geometry {
                size_bytes,
                logical_sector_bytes: logical,
                physical_sector_bytes: physical,
            },
            identity,
            presence: Presence::note(system, node.as_ref()),
        };
        Ok((device, warnings))
    }

    /// Whether the device is still there, as it was: the size is the same, sysfs
    /// still lists it and what it is made of, under the same sequence numbers and
    /// in a working state. Reads nothing from the medium.
    pub fn alive(&self) -> bool {
        sys::device_size_bytes(&self.device) == Ok(self.geometry.size_bytes)
            && self.presence.lasts()
    }

    /// Whether the kernel refuses writes to the device: by its switch, or since
    /// the user set it so. This reader never writes, whatever the answer is.
    pub fn write_protected(&self) -> bool {
        sys::device_is_read_only(&self.device).unwrap_or(false)
    }

    /// After a read that ended early goes on at a multiple of `step`, which is where
    /// the descriptor can read from.
    fn fill(
        &self,
        from: &OwnedFd,
        step: usize,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), ReadFailure> {
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pread(from, &mut buf[done..], offset + done as u64) {
                Ok(n) if n == buf.len() - done => break,
                Ok(n) if n >= step => done += n / step * step,
                Ok(_) if self.alive() => {
                    let errno = Errno::IO.raw_os_error();
                    return Err(ReadFailure::Unreadable { errno });
                }
                Ok(_) => return Err(ReadFailure::Gone { errno: 0 }),
                Err(Errno::INTR) => {}
                Err(errno) if self.alive() => return Err(classify(errno)),
                Err(errno) => {
                    let errno = errno.raw_os_error();
                    return Err(ReadFailure::Gone { errno });
                }
            }
        }
        Ok(())
    }

    /// What follows the last whole sector. The kernel may be unable to address it
    /// at all, which is a property of that place and no fault of this process.
    fn fill_tail(&self, tail: &OwnedFd, offset: u64, buf: &mut [u8]) -> Result<(), ReadFailure> {
        self.fill(tail, 1, offset, buf)
            .map_err(|failure| match failure {
                ReadFailure::Fatal { errno } if errno == Errno::INVAL.raw_os_error() => {
                    ReadFailure::Unreadable { errno }
                }
                other => other,
            })
    }
}

impl Source for BlockDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadFailure> {
        let size = self.geometry.size_bytes;
        if offset > size || buf.len() as u64 > size - offset {
            return Err(MISUSE);
        }
        let step = if self.direct {
            self.own_sector_bytes as usize
        } else {
            1
        };
        let outcome = match &self.tail {
            None => self.fill(&self.device, step, offset, buf),
            Some(tail) => {
                let whole_end = size - size % u64::from(self.own_sector_bytes);
                let whole = whole_end.saturating_sub(offset).min(buf.len() as u64) as usize;
                let (head, rest) = buf.split_at_mut(whole);
                self.fill(&self.device, step, offset, head)
                    .and_then(|()| self.fill_tail(tail, offset + whole as u64, rest))
            }
        };
        if outcome.is_err() && !self.direct {
            // The next try is to ask the medium, not the cache. Advice only.
            let len = std::num::NonZeroU64::new(buf.len() as u64);
            let _ = rustix::fs::fadvise(&self.device, offset, len, Advice::DontNeed);
        }
        outcome
    }
}

/// What was got by trying the strictest way of opening first.
struct Handle {
    device: OwnedFd,
    exclusive: bool,
    direct: bool,
}

impl Handle {
    fn open(path: &Path, direct: OFlags) -> Result<Self, OpenError> {
        let mut extra = direct | OFlags::EXCL;
        loop {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | extra;
            match rustix::fs::open(path, flags, Mode::empty()) {
                Ok(device) => {
                    return Ok(Self {
                        device,
                        exclusive: extra.contains(OFlags::EXCL),
                        direct: extra.contains(OFlags::DIRECT),
                    });
                }
                Err(Errno::INTR) => {}
                Err(Errno::BUSY) if extra.contains(OFlags::EXCL) => extra.remove(OFlags::EXCL),
                Err(Errno::INVAL) if extra.contains(OFlags::DIRECT) => {
                    extra.remove(OFlags::DIRECT);
                }
                Err(errno) => return Err(open_failure(path, errno)),
            }
        }
    }
}

fn reopen_buffered(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn block_device(path: &Path, stat: &rustix::fs::Stat) -> Result<DevNumber, OpenError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => Ok(DevNumber::from_raw(stat.st_rdev)),
        kind => Err(OpenError::NotASource {
            path: path.to_owned(),
            kind: NotASource::from_type(kind),
        }),
    }
}

fn failed(path: &Path, action: &'static str, errno: Errno) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        action,
        source: io::Error::from(errno),
    }
}

/// What errors are split down to.
fn physical_sector_bytes(logical: u32, claimed: u32, direct: bool) -> u32 {
    let sane = claimed.is_power_of_two() && (logical..=PHYSICAL_BYTES_MAX).contains(&claimed);
    let physical = if sane { claimed } else { logical };
    if direct {
        physical
    } else {
        physical.max(PAGE_BYTES)
    }
}

/// What sysfs said about a device and those beneath it when it was opened.
#[derive(Debug)]
struct Presence {
    devices: Vec<(BlockNode, Option<String>)>,
    /// The file behind a loop device, if it was reachable, with its size.
    file: Option<(PathBuf, u64)>,
}

impl Presence {
    fn note(system: &SystemPaths, node: Option<&BlockNode>) -> Self {
        let mut beneath = node.map_or_else(Vec::new, |node| devices_beneath(system, node));
        if beneath.iter().any(|device| device.name.starts_with("md")) {
            // A RAID lives on without one of its disks.
            beneath.truncate(1);
        }
        let file = node.and_then(|node| node.disk().loop_file());
        Self {
            devices: beneath
                .into_iter()
                .map(|device| {
                    let sequence = device.attribute("diskseq");
                    (device, sequence)
                })
                .collect(),
            file: file.and_then(|path| {
                let size = fs::metadata(&path).ok()?.len();
                Some((path, size))
            }),
        }
    }

    fn lasts(&self) -> bool {
        let devices = self.devices.iter().all(|(device, sequence)| {
            device.attribute("dev") == Some(device.number.to_string())
                && device.attribute("diskseq") == *sequence
                && works(device)
        });
        let file = self
            .file
            .as_ref()
            .is_none_or(|(path, size)| len_now(CWD, path).is_ok_and(|len| len >= *size));
        devices && file
    }
}

/// Whether the driver has not given the device up. SCSI's states are in
/// drivers/scsi/scsi_sysfs.c (`sdev_states`), NVMe's in drivers/nvme/host/sysfs.c; kernels
/// before 5.18 or so answer reads of an offline SCSI disk with `EIO`.
fn works(device: &BlockNode) -> bool {
    let given_up = [
        "offline",
        "transport-offline",
        "deleted",
        "cancel",
        "dead",
        "deleting",
        "deleting (no IO)",
    ];
    device
        .attribute("device/state")
        .is_none_or(|state| !given_up.contains(&state.as_str()))
}

#[cfg(test)]
mod tests;
