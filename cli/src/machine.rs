//! This machine's disks and the part that each plays: what the system was started from, what it runs from, what could take a
//! rescue.
//!
//! Only what the kernel and udev know already is asked for. Space is asked of filesystems that are mounted and writable, since one
//! that is will answer from memory.

use std::path::Path;

use asl_capture::inventory::{
    BlockNode, Contents, Disk, Mounted, SystemPaths, describe_mount, list_disks, mounts,
};
use rustix::fs::statvfs;
use serde::Serialize;

use crate::health::{Health, Verdict};
use crate::probe::Survival;

/// Where live systems mount what they were started from.
const BOOT_MOUNTS: [&str; 7] = [
    "/run/archiso/bootmnt",
    "/run/live/medium",
    "/lib/live/mount/medium",
    "/run/initramfs/live",
    "/run/initramfs/memory",
    "/cdrom",
    "/isodevice",
];
/// Directories of a running system: not where a rescue goes.
const SYSTEM_MOUNTS: [&str; 9] = [
    "/",
    "/boot",
    "/boot/efi",
    "/efi",
    "/usr",
    "/var",
    "/home",
    "/nix",
    "/etc",
];
/// Free space that makes a mounted filesystem a likely destination, in bytes.
pub const DESTINATION_MIN_BYTES: u64 = 1 << 30;

/// One disk with what is made of what is known.
#[derive(Debug, Clone, Serialize)]
pub struct SurveyedDisk {
    /// The disk as the kernel and udev tell of it.
    #[serde(flatten)]
    pub disk: Disk,
    /// How it seems to be.
    pub health: Health,
    /// What the running system was started from.
    pub boot_medium: bool,
    /// Holds the running system.
    pub system: bool,
    /// Something on it is mounted or swapped to.
    pub in_use: bool,
    /// Its mounted filesystems that could take a store.
    pub destinations: Vec<Place>,
}

/// A mounted filesystem that could take a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Where it is mounted.
    pub mount_point: String,
    /// What may still be written there.
    pub available_bytes: u64,
}

impl SurveyedDisk {
    /// Looks up what part `disk` plays.
    pub fn of(system: &SystemPaths, disk: Disk) -> Self {
        let mut mounted = Vec::new();
        mounts_of(&disk.contents, &mut mounted);
        for partition in &disk.partitions {
            mounts_of(&partition.contents, &mut mounted);
        }
        let is_among = |places: &[&str]| {
            let mut mounted = mounted.iter();
            mounted.any(|mount| places.contains(&mount.mount_point.as_str()))
        };
        let boot_medium = is_among(&BOOT_MOUNTS);
        let unknown = Health {
            verdict: Verdict::Unknown,
            failed_requests: None,
        };
        let health =
            BlockNode::by_name(system, &disk.name).map_or(unknown, |node| Health::of(&node));
        let destinations = if boot_medium || health.verdict != Verdict::Unknown {
            Vec::new()
        } else {
            mounted.iter().filter_map(destination).collect()
        };
        Self {
            boot_medium,
            system: is_among(&SYSTEM_MOUNTS),
            in_use: disk.in_use(),
            health,
            destinations,
            disk,
        }
    }
}

/// Every disk of the machine.
pub fn survey(system: &SystemPaths) -> Vec<SurveyedDisk> {
    let disks = list_disks(system).into_iter();
    disks.map(|disk| SurveyedDisk::of(system, disk)).collect()
}

fn mounts_of(contents: &Contents, mounts: &mut Vec<Mounted>) {
    mounts.extend(contents.mounts.iter().cloned());
    for holder in &contents.holders {
        mounts_of(&holder.contents, mounts);
        for partition in &holder.partitions {
            mounts_of(&partition.contents, mounts);
        }
    }
}

fn destination(mount: &Mounted) -> Option<Place> {
    let unfit = mount.read_only
        || Survival::of(&mount.fs_type) == Survival::No
        || is_system_mount(Path::new(&mount.mount_point));
    if unfit {
        return None;
    }
    let available_bytes = available_bytes(Path::new(&mount.mount_point))?;
    (available_bytes >= DESTINATION_MIN_BYTES).then(|| Place {
        mount_point: mount.mount_point.clone(),
        available_bytes,
    })
}

/// What may still be written to the filesystem mounted at `mount_point`.
pub fn available_bytes(mount_point: &Path) -> Option<u64> {
    let stat = statvfs(mount_point).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether a running system keeps its own files there.
pub fn is_system_mount(mount_point: &Path) -> bool {
    SYSTEM_MOUNTS.iter().any(|at| Path::new(at) == mount_point)
}

/// What the running system was started from, as far as it matters to somebody who wants to pull it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMedium {
    /// A system installed on a disk.
    Installed,
    /// A live system that reads from the medium.
    InUse,
    /// A live system that runs from memory alone.
    InMemory,
}

impl BootMedium {
    /// Looks at what is mounted.
    pub fn of(system: &SystemPaths) -> Self {
        let boot = |at: &Path| BOOT_MOUNTS.iter().any(|known| Path::new(known) == at);
        if mounts(system).iter().any(|mount| boot(&mount.mount_point)) {
            return Self::InUse;
        }
        match describe_mount(system, Path::new("/")) {
            Some(root) if Survival::of(&root.fs_type) == Survival::No => Self::InMemory,
            _ => Self::Installed,
        }
    }

    /// In words, where there is something to say.
    pub fn words(self) -> Option<&'static str> {
        match self {
            Self::Installed => None,
            Self::InUse => Some("leave the stick or disc that this system was started from in"),
            Self::InMemory => Some(
                "this system runs from memory: the stick it was started from may be pulled out",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn system_with(mountinfo: &str) -> (tempfile::TempDir, SystemPaths) {
        let root = tempfile::tempdir().unwrap();
        let system = SystemPaths::below(root.path());
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), mountinfo).unwrap();
        (root, system)
    }

    #[test]
    fn a_stick_that_is_read_from_must_stay() {
        let overlay = "1 0 0:20 / / rw - overlay airootfs rw\n";
        let medium = "2 1 8:17 / /run/archiso/bootmnt ro - iso9660 /dev/sdb1 ro\n";
        let disk = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n";
        for (mountinfo, expected) in [
            (overlay.to_owned(), BootMedium::InMemory),
            (format!("{overlay}{medium}"), BootMedium::InUse),
            (disk.to_owned(), BootMedium::Installed),
            (String::new(), BootMedium::Installed),
        ] {
            let (_root, system) = system_with(&mountinfo);
            assert_eq!(BootMedium::of(&system), expected, "{mountinfo}");
        }
    }
}
