//! Unmounted filesystems that could take a store, as far as that is known without looking at them.
//!
//! Where udev does not probe, as on our medium, nobody has looked at what is on a disk, and a dying one is better not looked at
//! by chance. What nobody looked at is listed all the same: it is the likely case of a disk that was brought for the purpose.
//! Somebody looks when the user has chosen it ([`crate::guide::look`]).

use asl_capture::inventory::{Contents, Disk, Holder};
use serde::Serialize;

use crate::health::Verdict;
use crate::machine::DESTINATION_MIN_BYTES;

/// Filesystems that can be mounted and written to.
const MOUNTABLE: [&str; 9] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "ntfs",
];

/// A filesystem that could be mounted to take a store, or what may be one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mountable {
    /// The device.
    pub path: String,
    /// Its size; how much of it is free is known when it is mounted.
    pub size_bytes: u64,
    /// Type of the filesystem; none where nobody has looked.
    pub fs_type: Option<String>,
    /// The filesystem's label.
    pub label: Option<String>,
    /// The filesystem's UUID.
    pub uuid: Option<String>,
}

impl Mountable {
    /// Whether the filesystem is on that disk, too: spread over both, or a clone. Mounting the one would write to the other, or
    /// stand beside it under the same name.
    pub fn is_also_on(&self, disk: &Disk) -> bool {
        let Some(uuid) = self.uuid.as_deref() else {
            return false;
        };
        let parts = disk.partitions.iter().map(|part| &part.contents);
        let mut contents = std::iter::once(&disk.contents).chain(parts);
        contents.any(|contents| has_uuid(contents, uuid))
    }
}

fn has_uuid(contents: &Contents, uuid: &str) -> bool {
    let of_holder = |holder: &Holder| {
        let mut parts = holder.partitions.iter();
        has_uuid(&holder.contents, uuid) || parts.any(|part| has_uuid(&part.contents, uuid))
    };
    contents.uuid.as_deref() == Some(uuid) || contents.holders.iter().any(of_holder)
}

/// Whether a filesystem of this type can be mounted and written to.
pub fn is_mountable(fs_type: &str) -> bool {
    MOUNTABLE.contains(&fs_type)
}

/// What could be mounted of a disk that has shown no weakness.
pub fn mountable(disk: &Disk, verdict: Verdict) -> Vec<Mountable> {
    let optical = disk.name.starts_with("sr");
    if disk.read_only || optical || verdict != Verdict::Unknown {
        return Vec::new();
    }
    let parts = disk.partitions.iter();
    let parts = parts.map(|part| (&part.path, part.size_bytes, &part.contents));
    // What nobody looked at and has partitions has a partition table at its beginning, not a filesystem.
    let whole = (disk.contents.probed || disk.partitions.is_empty()).then_some((
        &disk.path,
        disk.size_bytes,
        &disk.contents,
    ));
    let all = whole.into_iter().chain(parts);
    all.filter(|(_, size_bytes, contents)| is_free(*size_bytes, contents))
        .map(|(path, size_bytes, contents)| Mountable {
            path: path.clone(),
            size_bytes,
            fs_type: contents.fs_type.clone(),
            label: contents.label.clone(),
            uuid: contents.uuid.clone(),
        })
        .collect()
}

fn is_free(size_bytes: u64, contents: &Contents) -> bool {
    let fits = match &contents.fs_type {
        Some(kind) => is_mountable(kind),
        None => !contents.probed,
    };
    fits && !contents.in_use() && contents.holders.is_empty() && size_bytes >= DESTINATION_MIN_BYTES
}

#[cfg(test)]
mod tests {
    use asl_capture::inventory::{Mounted, Partition};

    use super::*;

    fn contents(probed: bool, fs_type: Option<&str>) -> Contents {
        Contents {
            probed,
            fs_type: fs_type.map(str::to_owned),
            ..Contents::default()
        }
    }

    fn disk(name: &str, whole: Contents, parts: Vec<Contents>) -> Disk {
        let parts = parts.into_iter().zip(1..).map(|(contents, number)| {
            let name = format!("{name}{number}");
            Partition {
                path: format!("/dev/{name}"),
                name,
                number,
                start_bytes: 0,
                size_bytes: 4 << 30,
                contents,
            }
        });
        Disk {
            name: name.to_owned(),
            path: format!("/dev/{name}"),
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
            contents: whole,
            partitions: parts.collect(),
        }
    }

    fn named(disk: &Disk) -> Vec<String> {
        let found = mountable(disk, Verdict::Unknown).into_iter();
        found.map(|mountable| mountable.path).collect()
    }

    #[test]
    fn what_udev_looked_at_must_be_a_filesystem_that_takes_writes() {
        let table = contents(true, None);
        let parts = ["ext4", "swap", "crypto_LUKS", "exfat"];
        let parts = parts.map(|kind| contents(true, Some(kind))).to_vec();
        assert_eq!(
            named(&disk("sda", table.clone(), parts)),
            ["/dev/sda1", "/dev/sda4"]
        );
        // Blank: it was looked at.
        assert!(named(&disk("sda", table, vec![contents(true, None)])).is_empty());
        let whole = contents(true, Some("ntfs"));
        assert_eq!(named(&disk("sda", whole, vec![])), ["/dev/sda"]);
    }

    #[test]
    fn what_nobody_looked_at_may_be_one() {
        let unknown = || contents(false, None);
        let parted = disk("sda", unknown(), vec![unknown(), unknown()]);
        assert_eq!(named(&parted), ["/dev/sda1", "/dev/sda2"]);
        let plain = disk("sda", unknown(), vec![]);
        assert_eq!(named(&plain), ["/dev/sda"]);
        assert!(named(&disk("sr0", unknown(), vec![])).is_empty());
        let read_only = Disk {
            read_only: true,
            ..plain.clone()
        };
        assert!(named(&read_only).is_empty());
        let small = Disk {
            size_bytes: DESTINATION_MIN_BYTES - 1,
            ..plain.clone()
        };
        assert!(named(&small).is_empty());
        for verdict in [Verdict::Failing, Verdict::Offline, Verdict::Worn] {
            assert!(mountable(&plain, verdict).is_empty());
        }
    }

    #[test]
    fn a_filesystem_over_two_disks_is_on_both() {
        let part = |uuid: Option<&str>| Contents {
            uuid: uuid.map(str::to_owned),
            ..contents(true, Some("btrfs"))
        };
        let one = disk("sda", contents(true, None), vec![part(Some("u"))]);
        let place = &mountable(&one, Verdict::Unknown)[0];
        let of = |parts| disk("sdb", contents(true, None), parts);
        assert!(place.is_also_on(&of(vec![part(None), part(Some("u"))])));
        assert!(!place.is_also_on(&of(vec![part(None), part(Some("v"))])));
        // In a container that is open.
        let mut locked = contents(true, Some("crypto_LUKS"));
        locked.holders.push(Holder {
            name: "dm-0".to_owned(),
            path: "/dev/dm-0".to_owned(),
            kind: None,
            size_bytes: 1,
            contents: part(Some("u")),
            partitions: Vec::new(),
        });
        assert!(place.is_also_on(&of(vec![locked])));
        let nameless = disk("sda", contents(true, None), vec![part(None)]);
        let place = &mountable(&nameless, Verdict::Unknown)[0];
        assert!(!place.is_also_on(&of(vec![part(None)])));
    }

    #[test]
    fn what_is_in_use_is_not_free() {
        let of = |change: fn(&mut Contents)| {
            let mut whole = contents(false, None);
            change(&mut whole);
            named(&disk("sda", whole, vec![]))
        };
        assert_eq!(of(|_| {}), ["/dev/sda"]);
        let unused = of(|contents| contents.swap = true);
        assert!(unused.is_empty());
        let mounted = of(|contents| {
            contents.mounts.push(Mounted {
                mount_point: "/mnt".to_owned(),
                fs_type: "ext4".to_owned(),
                read_only: true,
            });
        });
        assert!(mounted.is_empty());
        let held = of(|contents| {
            contents.holders.push(Holder {
                name: "dm-0".to_owned(),
                path: "/dev/dm-0".to_owned(),
                kind: None,
                size_bytes: 1,
                contents: Contents::default(),
                partitions: Vec::new(),
            });
        });
        assert!(held.is_empty());
    }
}
