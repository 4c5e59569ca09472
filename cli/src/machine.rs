//! This machine's disks and the part that each plays: what the system was started from, what it runs from, what could take a
//! rescue.
//!
//! Only what the kernel and udev know already is asked for. Space is asked of filesystems that are mounted and writable, since one
//! that is will answer from memory.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use asl_capture::inventory::{
    BlockNode, Contents, Disk, MountInfo, Mounted, SystemPaths, describe_mount, list_disks, mounts,
};
use rustix::fs::statvfs;
use serde::Serialize;

use crate::health::{Health, KernelLog, Verdict};
use crate::mountable::{Mountable, mountable};
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
/// Where live systems keep the images that they consist of, on the medium or copied into memory.
const LIVE_DIRECTORIES: [&str; 6] = [
    "/run/archiso",
    "/run/live",
    "/lib/live",
    "/run/initramfs",
    "/cdrom",
    "/isodevice",
];
/// Our own medium notes here what it was started from, before it lets go of that: the device and, after a space, its
/// `diskseq`, which no later disk of that name has.
const STARTED_FROM: &str = "run/archiso/config/started-from";
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
    /// What of it could be mounted to take a store.
    pub mountable: Vec<Mountable>,
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
        Self::with(system, disk, &KernelLog::read(system))
    }

    fn with(system: &SystemPaths, disk: Disk, log: &KernelLog) -> Self {
        let mut mounted = Vec::new();
        mounts_of(&disk.contents, &mut mounted);
        for partition in &disk.partitions {
            mounts_of(&partition.contents, &mut mounted);
        }
        let is_among = |places: &[&str]| {
            let mut mounted = mounted.iter();
            mounted.any(|mount| places.contains(&mount.mount_point.as_str()))
        };
        let boot_medium = is_among(&BOOT_MOUNTS) || was_started_from(system, &disk);
        let unknown = Health {
            verdict: Verdict::Unknown,
            failed_requests: None,
        };
        let health =
            BlockNode::by_name(system, &disk.name).map_or(unknown, |node| Health::of(&node, log));
        let destinations = if boot_medium || health.verdict != Verdict::Unknown {
            Vec::new()
        } else {
            mounted.iter().filter_map(destination).collect()
        };
        Self {
            boot_medium,
            mountable: mountable(&disk, health.verdict),
            system: is_among(&SYSTEM_MOUNTS),
            in_use: disk.in_use(),
            health,
            destinations,
            disk,
        }
    }
}

/// Every disk of the machine. The images that a live system consists of are no disks of it: what they came from is.
pub fn survey(system: &SystemPaths) -> Vec<SurveyedDisk> {
    let log = KernelLog::read(system);
    let disks = list_disks(system).into_iter();
    disks
        .filter(|disk| !is_live_image(disk))
        .map(|disk| SurveyedDisk::with(system, disk, &log))
        .collect()
}

fn is_live_image(disk: &Disk) -> bool {
    let file = disk.backing_file.as_deref().map(Path::new);
    file.is_some_and(|file| {
        let mut live = LIVE_DIRECTORIES.iter();
        live.any(|directory| file.starts_with(directory))
    })
}

/// Whether a live system that has let go of its medium came from this disk.
fn was_started_from(system: &SystemPaths, disk: &Disk) -> bool {
    if let Ok(noted) = fs::read_to_string(system.root.join(STARTED_FROM)) {
        let mut words = noted.split_ascii_whitespace();
        let node = words.next().map(Path::new);
        let node = node.and_then(|path| BlockNode::by_path(system, path));
        let mut same = |node: &BlockNode| match words.next() {
            Some(sequence) => node.attribute("diskseq").as_deref() == Some(sequence),
            None => true,
        };
        let node = node.map(|node| node.disk());
        return node.is_some_and(|node| node.name == disk.name && same(&node));
    }
    // An installed system's root has a label too.
    BootMedium::of(system) == BootMedium::InMemory && has_label(disk, &boot_labels(system))
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
        // With copytoram, what is mounted there is the copy.
        let from_medium = |mount: &MountInfo| {
            boot(&mount.mount_point) && Survival::of(&mount.fs_type) != Survival::No
        };
        if mounts(system).iter().any(from_medium) {
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

/// Labels and UUIDs of the filesystems by which a live system found what it was started from, which may be unmounted by now, as
/// its kernel was told (mkinitcpio-archiso, dracut's dmsquash-live, Debian's live-boot).
pub fn boot_labels(system: &SystemPaths) -> BTreeSet<String> {
    let cmdline = fs::read_to_string(system.proc.join("cmdline")).unwrap_or_default();
    let mut labels = BTreeSet::new();
    for word in cmdline.split_ascii_whitespace() {
        let Some((name, value)) = word.split_once('=') else {
            continue;
        };
        if !matches!(
            name,
            "archisolabel"
                | "archisosearchuuid"
                | "archisodevice"
                | "img_dev"
                | "root"
                | "bootfrom"
                | "live-media"
        ) {
            continue;
        }
        let value = value.strip_prefix("live:").unwrap_or(value);
        let value = match value.split_once('=') {
            Some(("LABEL" | "UUID" | "CDLABEL", value)) => value,
            Some(_) => continue,
            None => value.rsplit('/').next().unwrap_or(value),
        };
        if !value.is_empty() {
            labels.insert(value.to_owned());
        }
    }
    labels
}

/// Whether a filesystem on the disk has one of these labels or UUIDs.
pub fn has_label(disk: &Disk, labels: &BTreeSet<String>) -> bool {
    let parts = disk.partitions.iter().map(|part| &part.contents);
    let mut contents = parts.chain([&disk.contents]);
    contents.any(|contents| {
        let mut names = [&contents.label, &contents.uuid].into_iter().flatten();
        names.any(|name| labels.contains(name))
    })
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
        let copied = "2 1 0:21 / /run/archiso/bootmnt ro - tmpfs copytoram rw\n";
        for (mountinfo, expected) in [
            (overlay.to_owned(), BootMedium::InMemory),
            (format!("{overlay}{medium}"), BootMedium::InUse),
            (format!("{overlay}{copied}"), BootMedium::InMemory),
            (disk.to_owned(), BootMedium::Installed),
            (String::new(), BootMedium::Installed),
        ] {
            let (_root, system) = system_with(&mountinfo);
            assert_eq!(BootMedium::of(&system), expected, "{mountinfo}");
        }
    }

    /// A disk of a made-up machine, in its sysfs and in `/dev`.
    fn add_disk(root: &Path, name: &str, number: &str, attributes: &[(&str, &str)]) {
        let directory = root.join("sys/devices").join(name);
        for (attribute, value) in [("dev", number), ("size", "4096"), ("uevent", "")]
            .iter()
            .chain(attributes)
        {
            let file = directory.join(attribute);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, value).unwrap();
        }
        for place in ["block", "class/block", "dev/block"] {
            let link = root.join("sys").join(place);
            fs::create_dir_all(&link).unwrap();
            let entry = if place == "dev/block" { number } else { name };
            std::os::unix::fs::symlink(&directory, link.join(entry)).unwrap();
        }
        fs::create_dir_all(root.join("dev")).unwrap();
        fs::write(root.join("dev").join(name), "").unwrap();
    }

    #[test]
    fn the_medium_is_listed_once_however_it_was_let_go() {
        let overlay = "1 0 0:20 / / rw - overlay airootfs rw\n";
        let (root, system) = system_with(overlay);
        let root = root.path();
        add_disk(root, "sda", "8:0", &[("diskseq", "3")]);
        add_disk(root, "sdb", "8:16", &[("diskseq", "7")]);
        let image = "/run/archiso/copytoram/airootfs.sfs\n";
        add_disk(root, "loop0", "7:0", &[("loop/backing_file", image)]);
        let other = "/mnt/image\n";
        add_disk(root, "loop1", "7:1", &[("loop/backing_file", other)]);
        let listed = || -> Vec<(String, bool)> {
            let disks = survey(&system).into_iter();
            disks
                .map(|listed| (listed.disk.name, listed.boot_medium))
                .collect()
        };
        let expect = |medium: Option<&str>| {
            let names = ["loop1", "sda", "sdb"];
            let expected = names.map(|name| (name.to_owned(), Some(name) == medium));
            assert_eq!(listed(), expected, "{medium:?}");
        };
        expect(None);
        // SystemRescue: the kernel was told the label, and udev has seen it.
        fs::write(root.join("proc/cmdline"), "archisolabel=RESCUE1200").unwrap();
        let udev = root.join("run/udev/data");
        fs::create_dir_all(&udev).unwrap();
        fs::write(udev.join("b8:16"), "E:ID_FS_LABEL=RESCUE1200\n").unwrap();
        expect(Some("sdb"));
        // Ours: noted at the start, and no longer true once another disk has that name.
        let noted = root.join(STARTED_FROM);
        fs::create_dir_all(noted.parent().unwrap()).unwrap();
        fs::write(&noted, "/dev/sda 3\n").unwrap();
        expect(Some("sda"));
        fs::write(&noted, "/dev/sda 2\n").unwrap();
        expect(None);
        fs::write(&noted, "/dev/sda\n").unwrap();
        expect(Some("sda"));
    }
}
