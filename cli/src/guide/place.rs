//! Where the contents of a disk can go: mounted filesystems, and partitions that could be mounted.
//!
//! A server that does not answer is found out by asking it for its free space in a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use asl_capture::inventory::{
    MountInfo, SystemPaths, backing_disks_of, mounts, source_contains_path,
};

use crate::health::Verdict;
use crate::machine::{DESTINATION_MIN_BYTES, SurveyedDisk, available_bytes, is_system_mount};
use crate::mountable::Mountable;
use crate::probe::Survival;
use crate::text;

/// Directory below which partitions are mounted for the user.
pub const MOUNT_DIR: &str = "/mnt/asl/local";
/// Directory of a new store, on whatever filesystem.
pub const STORE_NAME: &str = "asl-rescue";
/// Filesystems that other machines have.
const NETWORK: [&str; 9] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "fuse.sshfs",
    "fuse.rclone",
    "9p",
    "virtiofs",
];
/// How long a filesystem may take to say how much room it has.
const PATIENCE: Duration = Duration::from_secs(2);
/// Entries of a filesystem's top directory that are looked at for stores.
const ENTRIES_MAX: usize = 1024;

/// How a place can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It is mounted.
    Mounted,
    /// It has to be mounted first.
    ToMount {
        /// The device.
        device: String,
        /// Whether it is known to hold a filesystem; else somebody must look first.
        is_known: bool,
    },
}

/// A filesystem that may take a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is or will be mounted.
    pub mount_point: PathBuf,
    /// How to get there.
    pub reach: Reach,
    /// One line for a list.
    pub title: String,
    /// Free space in bytes, or the size of what is not mounted; `None` where nobody knows.
    pub room_bytes: Option<u64>,
    /// Why it cannot be used.
    pub unfit: Option<String>,
    /// What should be known before it is chosen.
    pub notes: Vec<String>,
    /// Stores that are there already.
    pub stores: Vec<PathBuf>,
}

impl Candidate {
    /// The command that mounts it, where it has to be mounted.
    pub fn mount_command(&self) -> Option<Vec<String>> {
        let Reach::ToMount { device, .. } = &self.reach else {
            return None;
        };
        let at = self.mount_point.to_string_lossy().into_owned();
        Some(["mount", device, &at].map(str::to_owned).to_vec())
    }

    /// Where a store goes if the user has no wish of their own: the one that is there, or a new one.
    pub fn store(&self) -> PathBuf {
        match &self.stores[..] {
            [only] => only.clone(),
            _ => self.mount_point.join(STORE_NAME),
        }
    }
}

/// Every place for what is on `patient`, the best first, those that cannot be used last.
pub fn candidates(
    system: &SystemPaths,
    disks: &[SurveyedDisk],
    patient: &SurveyedDisk,
) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    for mount in mounts(system).into_iter().rev() {
        // A later mount hides an earlier one on the same directory.
        if seen.contains(&mount.mount_point) {
            continue;
        }
        seen.push(mount.mount_point.clone());
        found.extend(mounted(system, disks, patient, &mount));
    }
    for surveyed in disks
        .iter()
        .filter(|surveyed| surveyed.disk.path != patient.disk.path)
    {
        let mountable = surveyed.mountable.iter();
        found.extend(mountable.map(|mountable| to_mount(surveyed, mountable, patient)));
    }
    for candidate in &mut found {
        if let Some(room) = candidate.room_bytes
            && room < patient.disk.size_bytes
        {
            candidate.notes.push(
                "It is smaller than the disk. It may do: empty areas take no room. When it is full, reading stops cleanly."
                    .to_owned(),
            );
        }
    }
    let rank = |candidate: &Candidate| {
        let to_mount = match candidate.reach {
            Reach::Mounted => 0,
            Reach::ToMount { is_known: true, .. } => 1,
            Reach::ToMount { .. } => 2,
        };
        let room = std::cmp::Reverse(candidate.room_bytes.unwrap_or(0));
        (
            candidate.unfit.is_some(),
            candidate.stores.is_empty(),
            to_mount,
            room,
        )
    };
    found.sort_by_key(rank);
    found
}

fn mounted(
    system: &SystemPaths,
    disks: &[SurveyedDisk],
    patient: &SurveyedDisk,
    mount: &MountInfo,
) -> Option<Candidate> {
    let at = &mount.mount_point;
    let network = NETWORK.contains(&mount.fs_type.as_str());
    let local =
        mount.source.starts_with("/dev/") || ["zfs", "btrfs"].contains(&mount.fs_type.as_str());
    if !(network || local) || Survival::of(&mount.fs_type) == Survival::No || is_system_mount(at) {
        return None;
    }
    let beneath = backing_disks_of(system, at);
    let is_beneath =
        |surveyed: &&SurveyedDisk| beneath.iter().any(|node| node.name == surveyed.disk.name);
    let boot_medium = disks
        .iter()
        .filter(is_beneath)
        .any(|surveyed| surveyed.boot_medium);
    if boot_medium && mount.read_only {
        return None;
    }
    let failing = disks
        .iter()
        .filter(is_beneath)
        .find(|surveyed| surveyed.health.verdict != Verdict::Unknown);
    let on_patient = source_contains_path(system, Path::new(&patient.disk.path), at).is_some();
    let room_bytes = if on_patient || mount.read_only {
        None
    } else {
        ask_room(at.clone())
    };
    let unfit = if on_patient {
        Some("on the disk that is to be read".to_owned())
    } else if mount.read_only {
        let remount = format!("mount -o remount,rw {}", text::shell_path(at));
        Some(format!("mounted read-only; to change that: {remount}"))
    } else if let Some(words) = failing.and_then(|surveyed| surveyed.health.words()) {
        Some(format!("its disk {words}"))
    } else {
        match room_bytes {
            None => Some("does not answer".to_owned()),
            Some(room) if room < DESTINATION_MIN_BYTES => {
                Some(format!("only {} free", text::size(room)))
            }
            Some(_) => None,
        }
    };
    let mut notes = Vec::new();
    if boot_medium {
        notes.push(
            "This is the stick that the system was started from. Another disk is safer.".to_owned(),
        );
    }
    if network {
        notes.push(
            "It is on another machine: the rescue is as fast and as safe as the network."
                .to_owned(),
        );
    }
    if Survival::of(&mount.fs_type) == Survival::Limited {
        notes.push(format!(
            "{} has no journal of its own: after a power cut, let its checker look at it first.",
            mount.fs_type
        ));
    }
    let free = room_bytes.map_or_else(|| "?".to_owned(), text::size);
    let title = match &unfit {
        None => format!(
            "{:<28} {free:>10} free  {:<8} {}",
            text::path(at),
            mount.fs_type,
            mount.source
        ),
        // The reason needs the room.
        Some(_) => format!("{:<28} {}", text::path(at), mount.fs_type),
    };
    Some(Candidate {
        stores: if unfit.is_none() {
            stores_in(at)
        } else {
            Vec::new()
        },
        mount_point: at.clone(),
        reach: Reach::Mounted,
        title: text::visible(&title).into_owned(),
        room_bytes,
        unfit,
        notes,
    })
}

fn to_mount(surveyed: &SurveyedDisk, mountable: &Mountable, patient: &SurveyedDisk) -> Candidate {
    let Mountable {
        path,
        size_bytes,
        fs_type,
        label,
        ..
    } = mountable;
    // Where nobody looked at what is on it, it is known by the name of its disk.
    let (kind, name) = match fs_type {
        Some(kind) => {
            let label = label.as_deref();
            (kind.as_str(), label.map(|label| format!("\"{label}\"")))
        }
        None => ("", surveyed.disk.model.clone()),
    };
    let name = name.unwrap_or_default();
    let is_patients = mountable.is_also_on(&patient.disk);
    let unfit = is_patients.then(|| "the disk to be read has the same file system".to_owned());
    let title = format!(
        "{path:<17} {:>10}  {kind:<6} {}",
        text::size(*size_bytes),
        text::fit(&text::visible(&name), 16)
    );
    // The reason needs the room.
    let title = match unfit {
        None => title + " (not mounted)",
        Some(_) => format!("{path:<17} {kind}"),
    };
    let mut notes = Vec::new();
    if surveyed.boot_medium {
        notes.push(
            "This is the stick that the system was started from. Another disk is safer.".to_owned(),
        );
    }
    Candidate {
        mount_point: Path::new(MOUNT_DIR).join(path.trim_start_matches("/dev/").replace('/', "-")),
        reach: Reach::ToMount {
            device: path.clone(),
            is_known: fs_type.is_some(),
        },
        title: text::visible(&title).into_owned(),
        room_bytes: Some(*size_bytes),
        unfit,
        notes,
        stores: Vec::new(),
    }
}

/// The stick that the system was started from and has let go of, with the bytes behind its partitions that could be one more.
pub fn rest_of_stick(disks: &[SurveyedDisk]) -> Option<(&str, u64)> {
    // An MBR holds no more.
    const PARTITIONS_MAX: usize = 4;
    let free = |surveyed: &SurveyedDisk| {
        let disk = &surveyed.disk;
        let ends = disk.partitions.iter();
        let end = ends.map(|part| part.start_bytes.saturating_add(part.size_bytes));
        disk.size_bytes
            .saturating_sub(end.max().unwrap_or(disk.size_bytes))
    };
    let fits = |surveyed: &&SurveyedDisk| {
        let disk = &surveyed.disk;
        surveyed.boot_medium
            && !surveyed.in_use
            && !disk.read_only
            && surveyed.health.verdict == Verdict::Unknown
            && disk.partitions.len() < PARTITIONS_MAX
            && free(surveyed) >= DESTINATION_MIN_BYTES
    };
    let stick = disks.iter().find(fits)?;
    Some((&stick.disk.path, free(stick)))
}

/// Free space of a filesystem, unless it takes too long to say.
fn ask_room(at: PathBuf) -> Option<u64> {
    let (answer, answers) = channel();
    std::thread::spawn(move || {
        // Nobody may be waiting any more.
        let _ = answer.send(available_bytes(&at));
    });
    answers.recv_timeout(PATIENCE).ok().flatten()
}

/// Whether there is a store in this directory, by its looks.
pub fn is_store(path: &Path) -> bool {
    path.join("log").is_dir() && path.join("blocks").is_dir()
}

/// Stores in the top directory of a filesystem.
fn stores_in(mount_point: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(mount_point) else {
        return Vec::new();
    };
    let entries = entries.take(ENTRIES_MAX).filter_map(Result::ok);
    let paths = entries.map(|entry| entry.path());
    let mut stores: Vec<PathBuf> = paths.filter(|path| is_store(path)).collect();
    stores.sort();
    stores
}

#[cfg(test)]
mod tests {
    use std::fs;

    use asl_capture::inventory::{Contents, Disk, Partition};

    use super::*;
    use crate::health::Health;
    use crate::mountable::mountable;

    fn surveyed(name: &str, fs_type: &str) -> SurveyedDisk {
        let path = format!("/dev/{name}");
        let contents = Contents {
            probed: true,
            fs_type: Some(fs_type.to_owned()),
            label: Some("x\u{1b}y".to_owned()),
            ..Contents::default()
        };
        let disk = Disk {
            by_id: Vec::new(),
            model: None,
            serial: None,
            wwn: None,
            firmware: None,
            transport: None,
            backing_file: None,
            size_bytes: 8 << 30,
            logical_sector_bytes: 512,
            physical_sector_bytes: 512,
            rotational: false,
            removable: false,
            read_only: false,
            contents: Contents::default(),
            partitions: vec![Partition {
                name: format!("{name}1"),
                path: format!("{path}1"),
                number: 1,
                start_bytes: 0,
                size_bytes: 4 << 30,
                contents,
            }],
            name: name.to_owned(),
            path,
        };
        SurveyedDisk {
            mountable: mountable(&disk, Verdict::Unknown),
            disk,
            health: Health {
                verdict: Verdict::Unknown,
                failed_requests: None,
            },
            boot_medium: false,
            system: false,
            in_use: false,
            destinations: Vec::new(),
        }
    }

    fn offered(disks: &[SurveyedDisk], mountinfo: &str) -> Vec<Candidate> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), mountinfo).unwrap();
        candidates(&SystemPaths::below(root.path()), disks, &disks[0])
    }

    #[test]
    fn partitions_of_other_disks_can_be_mounted() {
        let unknown = Contents::default();
        let mut unprobed = surveyed("sdc", "");
        unprobed.disk.model = Some("Elements\u{1b}".to_owned());
        unprobed.disk.partitions[0].contents = unknown;
        unprobed.mountable = mountable(&unprobed.disk, Verdict::Unknown);
        let disks = [
            surveyed("sda", "ext4"),
            unprobed,
            surveyed("sdb", "exfat"),
            surveyed("sde", "crypto_LUKS"),
        ];
        let found = offered(&disks, "");
        let [only, unknown] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(unknown.title.contains("/dev/sdc1 ") && unknown.title.contains("Elements"));
        let is_known = |candidate: &Candidate| match candidate.reach {
            Reach::ToMount { is_known, .. } => is_known,
            Reach::Mounted => panic!("{candidate:?}"),
        };
        assert!(is_known(only) && !is_known(unknown));
        assert!(
            found.iter().all(|place| place.title.len() <= 70),
            "{found:?}"
        );
        assert_eq!(
            only.mount_command().unwrap(),
            ["mount", "/dev/sdb1", "/mnt/asl/local/sdb1"]
        );
        assert_eq!(only.store(), Path::new("/mnt/asl/local/sdb1/asl-rescue"));
        assert!(!only.title.contains('\u{1b}'));
        assert!(
            only.notes[0].contains("smaller than the disk"),
            "{:?}",
            only.notes
        );
    }

    #[test]
    fn the_patients_own_filesystem_is_not_mounted_by_its_other_half() {
        let mut disks = [surveyed("sda", "btrfs"), surveyed("sdb", "btrfs")];
        for listed in &mut disks {
            listed.disk.partitions[0].contents.uuid = Some("u".to_owned());
            listed.mountable = mountable(&listed.disk, Verdict::Unknown);
        }
        let found = offered(&disks, "");
        assert_eq!(found.len(), 1, "{found:?}");
        let why = found[0].unfit.as_deref().unwrap();
        assert!(why.contains("same file system"), "{why}");
    }

    #[test]
    fn the_rest_of_the_stick_is_known() {
        let of = |change: fn(&mut SurveyedDisk)| {
            let mut stick = surveyed("sdb", "iso9660");
            stick.boot_medium = true;
            change(&mut stick);
            let disks = [surveyed("sda", "ext4"), stick];
            rest_of_stick(&disks).map(|(path, bytes)| (path.to_owned(), bytes))
        };
        assert_eq!(of(|_| ()), Some(("/dev/sdb".to_owned(), 4 << 30)));
        for change in [
            (|stick| stick.boot_medium = false) as fn(&mut SurveyedDisk),
            |stick| stick.in_use = true,
            |stick| stick.disk.read_only = true,
            |stick| stick.health.verdict = Verdict::Failing,
            |stick| stick.disk.partitions[0].size_bytes = 8 << 30,
            |stick| stick.disk.partitions[0].start_bytes = u64::MAX,
            // What has no partitions is full, as far as one can tell.
            |stick| stick.disk.partitions.clear(),
            |stick| stick.disk.partitions = vec![stick.disk.partitions[0].clone(); 4],
        ] {
            assert_eq!(of(change), None);
        }
    }

    #[test]
    fn what_is_mounted_is_judged() {
        let target = tempfile::tempdir().unwrap();
        let at = target.path().display();
        fs::create_dir_all(target.path().join("old/log")).unwrap();
        fs::create_dir_all(target.path().join("old/blocks")).unwrap();
        let lines = format!(
            "1 0 8:1 / / rw - ext4 /dev/sdz1 rw\n\
             2 1 8:17 / {at} rw - ext4 /dev/sdy1 rw\n\
             3 1 8:18 / /mnt/ro ro - ext4 /dev/sdy2 ro\n\
             4 1 0:30 / /tmp rw - tmpfs tmpfs rw\n\
             5 1 0:31 / /nonexistent/share rw - nfs4 host:/share rw\n\
             6 1 0:5 / /proc rw - proc proc rw\n"
        );
        let found = offered(&[surveyed("sda", "ext4")], &lines);
        let named: Vec<_> = found
            .iter()
            .map(|place| {
                (
                    place.mount_point.display().to_string(),
                    place.unfit.as_deref(),
                )
            })
            .collect();
        assert_eq!(named[0], (at.to_string(), None), "{named:?}");
        assert_eq!(found[0].store(), target.path().join("old"));
        assert_eq!(named.len(), 3, "{named:?}");
        assert!(
            named[1..].contains(&("/nonexistent/share".into(), Some("does not answer"))),
            "{named:?}"
        );
        let read_only = named
            .iter()
            .find(|(at, _)| at == "/mnt/ro")
            .unwrap()
            .1
            .unwrap();
        assert!(read_only.contains("remount,rw /mnt/ro"), "{read_only}");
    }
}
