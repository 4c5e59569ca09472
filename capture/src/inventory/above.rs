//! Who uses a device: what is mounted from it, swapped to it or stacked on it,
//! at any height.
//!
//! Looked at upwards: its partitions, the devices made of those (LUKS, LVM, md,
//! multipath, bcache), loop devices over any of them, and the filesystems on
//! all of these, btrfs and ZFS with several devices included.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::mounts::{MountInfo, mounts_anywhere, swaps};
use super::sysfs::children;
use super::{BlockNode, DevNumber, SystemPaths, UdevRecord};

/// One use of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Paths from the device that is used down to the one that was asked about,
    /// for example `/dev/mapper/home`, `/dev/sda2`, `/dev/sda`. Never empty.
    pub stack: Vec<String>,
    /// How it is used.
    pub kind: UsageKind,
}

/// How a device is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageKind {
    /// A filesystem on it is mounted.
    Mounted {
        /// Where.
        mount_point: PathBuf,
        /// Type of the filesystem.
        fs_type: String,
        /// Whether the filesystem promises to write nothing. A read-only mount of a
        /// filesystem that is writable elsewhere does not count.
        read_only: bool,
    },
    /// It is swap space.
    Swap,
    /// It belongs to an imported ZFS pool.
    ZfsPool {
        /// The pool.
        pool: String,
    },
    /// Another device is made of it; no use of that one is known.
    Held {
        /// Path of that device.
        holder: String,
    },
}

impl Usage {
    /// Whether the bytes of the device may change under a reader.
    pub fn may_write(&self) -> bool {
        match &self.kind {
            UsageKind::Mounted { read_only, .. } => !read_only,
            UsageKind::Swap | UsageKind::ZfsPool { .. } => true,
            UsageKind::Held { .. } => false,
        }
    }

    /// The device that is used.
    pub fn device(&self) -> &str {
        &self.stack[0]
    }

    /// A command that ends this use.
    pub fn remedy(&self) -> String {
        match &self.kind {
            UsageKind::Mounted { mount_point, .. } => {
                format!("umount {}", quoted(&mount_point.to_string_lossy()))
            }
            UsageKind::Swap => format!("swapoff {}", quoted(self.device())),
            UsageKind::ZfsPool { pool } => format!("zpool export {}", quoted(pool)),
            UsageKind::Held { holder } => match holder.strip_prefix("/dev/") {
                Some(name) if name.starts_with("md") => format!("mdadm --stop {holder}"),
                Some(name) if name.starts_with("loop") => format!("losetup --detach {holder}"),
                _ => format!("dmsetup remove {}", quoted(holder)),
            },
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.device())?;
        if self.stack.len() > 2 {
            write!(f, " (on {})", self.stack[1..].join(" on "))?;
        }
        match &self.kind {
            UsageKind::Mounted {
                mount_point,
                fs_type,
                read_only,
            } => write!(
                f,
                " is mounted {} on {} ({fs_type})",
                if *read_only {
                    "read-only"
                } else {
                    "read-write"
                },
                mount_point.display()
            ),
            UsageKind::Swap => f.write_str(" is in use as swap"),
            UsageKind::ZfsPool { pool } => write!(f, " belongs to the imported ZFS pool {pool}"),
            UsageKind::Held { holder } => write!(f, " is part of {holder}"),
        }
    }
}

/// Single quotes where a shell would not take the word as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Every use of `node` and of what is stacked on it; for a disk, of its
/// partitions too; for a partition, of the disk as a whole (multipath, RAID on
/// whole disks), but not of its other partitions.
pub fn usage_of(system: &SystemPaths, node: &BlockNode) -> Vec<Usage> {
    let mut survey = Survey::new(system);
    survey.climb(node, &[]);
    if let Some(disk) = node.parent() {
        survey.seen.insert(disk.number);
        survey.climb_itself(&disk, &[disk.path()]);
    }
    survey.found
}

/// Every use of the loop devices over an image file.
pub fn usage_of_file(system: &SystemPaths, file: &Path) -> Vec<Usage> {
    let mut survey = Survey::new(system);
    let below = [file.to_string_lossy().into_owned()];
    for node in survey.loops_over(&|backing| same_file(system, backing, file)) {
        survey.climb(&node, &below);
    }
    survey.found
}

/// Whether two paths, seen from the system's root, are one file.
pub(super) fn same_file(system: &SystemPaths, one: &Path, other: &Path) -> bool {
    if one == other {
        return true;
    }
    let inode = |path| fs::metadata(system.real(path)).map(|meta| (meta.dev(), meta.ino()));
    matches!((inode(one), inode(other)), (Ok(one), Ok(other)) if one == other)
}

/// The devices that a mounted filesystem lies on.
pub(super) fn devices_of(system: &SystemPaths, mount: &MountInfo) -> Vec<BlockNode> {
    let named = |source: &str| BlockNode::by_path(system, Path::new(source));
    match mount.fs_type.as_str() {
        "btrfs" => named(&mount.source).map_or_else(Vec::new, |node| {
            let members = btrfs_members(system, &node.name);
            if members.is_empty() {
                vec![node]
            } else {
                members
            }
        }),
        // bcachefs names all of its devices.
        "bcachefs" => mount.source.split(':').filter_map(named).collect(),
        "zfs" => {
            let pool = mount.source.split('/').next().unwrap_or_default();
            zfs_members(system, pool)
        }
        _ => BlockNode::find(system, mount.number)
            .or_else(|| {
                let device = mount.source.starts_with('/') && mount.number.major == 0;
                device.then(|| named(&mount.source)).flatten()
            })
            .into_iter()
            .collect(),
    }
}

/// The devices of the btrfs filesystem that has a device of this name.
fn btrfs_members(system: &SystemPaths, name: &str) -> Vec<BlockNode> {
    let mut members: Vec<BlockNode> = children(&system.sys.join("fs/btrfs"))
        .map(|filesystem| filesystem.join("devices"))
        .find(|devices| devices.join(name).symlink_metadata().is_ok())
        .into_iter()
        .flat_map(|devices| children(&devices).collect::<Vec<_>>())
        .filter_map(|device| BlockNode::by_name(system, device.file_name()?.to_str()?))
        .collect();
    members.sort_by_key(|node| node.number);
    members
}

/// The devices that blkid found to be members of this pool; the kernel does not say.
fn zfs_members(system: &SystemPaths, pool: &str) -> Vec<BlockNode> {
    BlockNode::all(system)
        .into_iter()
        .filter(|node| zfs_pool(system, node.number).as_deref() == Some(pool))
        .collect()
}

fn zfs_pool(system: &SystemPaths, number: DevNumber) -> Option<String> {
    let udev = UdevRecord::read(system, number);
    (udev.get("ID_FS_TYPE")? == "zfs_member")
        .then(|| udev.text("ID_FS_LABEL"))
        .flatten()
}

struct Survey<'a> {
    system: &'a SystemPaths,
    mounts: Vec<(MountInfo, Vec<DevNumber>)>,
    swaps: Vec<DevNumber>,
    loops: Vec<(BlockNode, PathBuf)>,
    seen: BTreeSet<DevNumber>,
    found: Vec<Usage>,
}

impl<'a> Survey<'a> {
    fn new(system: &'a SystemPaths) -> Self {
        let numbers = |mount: &MountInfo| -> Vec<DevNumber> {
            let devices = devices_of(system, mount);
            devices.into_iter().map(|node| node.number).collect()
        };
        let mounts = mounts_anywhere(system);
        let swaps = swaps(system);
        Self {
            system,
            mounts: mounts
                .into_iter()
                .map(|mount| {
                    let numbers = numbers(&mount);
                    (mount, numbers)
                })
                .collect(),
            swaps: swaps
                .iter()
                .filter_map(|path| BlockNode::by_path(system, path))
                .map(|node| node.number)
                .collect(),
            loops: BlockNode::whole(system)
                .into_iter()
                .filter_map(|node| {
                    let file = node.loop_file()?;
                    Some((node, file))
                })
                .collect(),
            seen: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    fn loops_over(&self, backed_by: &dyn Fn(&Path) -> bool) -> Vec<BlockNode> {
        let over = |(node, file): &(BlockNode, PathBuf)| backed_by(file).then(|| node.clone());
        self.loops.iter().filter_map(over).collect()
    }

    /// Notes the uses of `node`, which lies on `below`, and whether there were any.
    fn climb(&mut self, node: &BlockNode, below: &[String]) -> bool {
        if !self.seen.insert(node.number) {
            // Met before by another way up; its uses are noted.
            return true;
        }
        let mut stack = vec![node.path()];
        stack.extend_from_slice(below);
        let before = self.found.len();
        for partition in node.partitions() {
            self.climb(&partition, &stack);
        }
        self.climb_itself(node, &stack);
        self.found.len() > before
    }

    /// As [`climb`](Self::climb), without the partitions. `stack` begins with `node`.
    fn climb_itself(&mut self, node: &BlockNode, stack: &[String]) {
        self.note_own(node, stack);
        let loops = self.loops_over(&|file| {
            BlockNode::by_path(self.system, file).is_some_and(|over| over.number == node.number)
        });
        for holder in node.holders().into_iter().chain(loops) {
            if !self.climb(&holder, stack) {
                self.found.push(Usage {
                    stack: stack.to_vec(),
                    kind: UsageKind::Held {
                        holder: holder.path(),
                    },
                });
            }
        }
    }

    fn note_own(&mut self, node: &BlockNode, stack: &[String]) {
        let mut kinds: Vec<UsageKind> = self
            .mounts
            .iter()
            .filter(|(_, devices)| devices.contains(&node.number))
            .map(|(mount, _)| UsageKind::Mounted {
                mount_point: mount.mount_point.clone(),
                fs_type: mount.fs_type.clone(),
                read_only: mount.filesystem_read_only,
            })
            .collect();
        if self.swaps.contains(&node.number) {
            kinds.push(UsageKind::Swap);
        }
        if kinds.is_empty()
            && let Some(pool) = zfs_pool(self.system, node.number)
            && self.system.proc.join("spl/kstat/zfs").join(&pool).is_dir()
        {
            kinds.push(UsageKind::ZfsPool { pool });
        }
        self.found.extend(kinds.into_iter().map(|kind| Usage {
            stack: stack.to_vec(),
            kind,
        }));
    }
}
