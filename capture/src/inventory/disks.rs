//! The list of disks, for somebody who has to pick the dying one and a healthy
//! one: everything that the system knows already, so that no disk is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Serialize;

use super::above::devices_of;
use super::identity::identify;
use super::mounts::{MountInfo, mounts, swaps};
use super::sysfs::children;
use super::{BlockNode, DevNumber, SystemPaths, UdevRecord};

/// A disk: nothing that is made of other devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The kernel's name, `sda`.
    pub name: String,
    /// The device node, `/dev/sda`.
    pub path: String,
    /// Names that stay the same after a reboot, `/dev/disk/by-id/…`.
    pub by_id: Vec<String>,
    /// Model name.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Firmware revision.
    pub firmware: Option<String>,
    /// How it is attached: `ata`, `nvme`, `usb`, `scsi`, `virtio`, `mmc`, `loop`.
    pub transport: Option<String>,
    /// The file behind a loop device.
    pub backing_file: Option<String>,
    /// Size; 0 for a drive without a medium.
    pub size_bytes: u64,
    /// Smallest addressable unit.
    pub logical_sector_bytes: u64,
    /// Smallest unit that the medium reads.
    pub physical_sector_bytes: u64,
    /// Whether it turns.
    pub rotational: bool,
    /// Whether the medium can be taken out.
    pub removable: bool,
    /// Whether the kernel refuses writes.
    pub read_only: bool,
    /// What is on it and how it is used, if it has no partitions.
    #[serde(flatten)]
    pub contents: Contents,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// The kernel's name, `sda1`.
    pub name: String,
    /// The device node.
    pub path: String,
    /// Its number.
    pub number: u64,
    /// Where on the disk it starts.
    pub start_bytes: u64,
    /// Size.
    pub size_bytes: u64,
    /// What is on it and how it is used.
    #[serde(flatten)]
    pub contents: Contents,
}

/// A device made of others: a LUKS container that is open, a logical volume, a RAID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The kernel's name, `dm-0`.
    pub name: String,
    /// The device node, `/dev/mapper/vg-home`.
    pub path: String,
    /// What it is: `crypt`, `lvm`, `mpath`, `raid1`, `loop`, as far as known.
    pub kind: Option<String>,
    /// Size.
    pub size_bytes: u64,
    /// What is on it and how it is used.
    #[serde(flatten)]
    pub contents: Contents,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

/// What is on a device, as blkid found when it appeared, and how it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Whether anybody looked. If not, that there is no type says nothing.
    pub probed: bool,
    /// Type of the filesystem or of the container: `ext4`, `crypto_LUKS`,
    /// `LVM2_member`, `linux_raid_member`.
    pub fs_type: Option<String>,
    /// The filesystem's label.
    pub label: Option<String>,
    /// The filesystem's UUID.
    pub uuid: Option<String>,
    /// Where it is mounted.
    pub mounts: Vec<Mounted>,
    /// Whether it is in use as swap.
    pub swap: bool,
    /// The devices made of it.
    pub holders: Vec<Holder>,
}

/// A mount of a device's filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mounted {
    /// Where.
    pub mount_point: String,
    /// Type of the filesystem as mounted.
    pub fs_type: String,
    /// Whether nothing can be written through this mount.
    pub read_only: bool,
}

impl Contents {
    /// Whether something is mounted or swapped to here or on anything made of this.
    pub fn in_use(&self) -> bool {
        let holder_in_use = |holder: &Holder| {
            let mut partitions = holder.partitions.iter();
            holder.contents.in_use() || partitions.any(|partition| partition.contents.in_use())
        };
        self.swap || !self.mounts.is_empty() || self.holders.iter().any(holder_in_use)
    }
}

impl Disk {
    /// Whether anything on the disk is mounted or swapped to.
    pub fn in_use(&self) -> bool {
        let mut partitions = self.partitions.iter();
        self.contents.in_use() || partitions.any(|partition| partition.contents.in_use())
    }
}

/// Every disk of the system. Left out: what is memory only, loop devices without
/// a file, hidden paths of a multipath NVMe disk, and devices made of others,
/// which are listed as holders of their disks.
pub fn list_disks(system: &SystemPaths) -> Vec<Disk> {
    let lister = Lister::new(system);
    BlockNode::whole(system)
        .into_iter()
        .filter(|node| {
            let memory = node.name.starts_with("ram") || node.name.starts_with("zram");
            let unused = node.name.starts_with("loop") && node.loop_file().is_none();
            let over_a_device = node
                .loop_file()
                .is_some_and(|file| BlockNode::by_path(system, &file).is_some());
            let composed = !node.slaves().is_empty() || over_a_device;
            let nothing = node.size_bytes() == 0 && !node.flag("removable");
            !(memory || unused || composed || nothing || node.flag("hidden"))
        })
        .map(|node| lister.disk(&node))
        .collect()
}

struct Lister<'a> {
    system: &'a SystemPaths,
    by_id: BTreeMap<String, Vec<String>>,
    mounts: Vec<(MountInfo, Vec<DevNumber>)>,
    swaps: BTreeSet<DevNumber>,
    loops: Vec<(BlockNode, DevNumber)>,
}

impl<'a> Lister<'a> {
    fn new(system: &'a SystemPaths) -> Self {
        let mounts = mounts(system).into_iter().map(|mount| {
            let devices = devices_of(system, &mount);
            let numbers = devices.into_iter().map(|node| node.number).collect();
            (mount, numbers)
        });
        Self {
            system,
            by_id: by_id(system),
            mounts: mounts.collect(),
            swaps: swaps(system)
                .iter()
                .filter_map(|path| BlockNode::by_path(system, path))
                .map(|node| node.number)
                .collect(),
            loops: BlockNode::whole(system)
                .into_iter()
                .filter_map(|node| {
                    let over = BlockNode::by_path(system, &node.loop_file()?)?;
                    Some((node, over.number))
                })
                .collect(),
        }
    }

    fn disk(&self, node: &BlockNode) -> Disk {
        let path = node.path();
        let identity = identify(self.system, node, &path);
        let queue = |name: &str| node.number_at(&format!("queue/{name}")).unwrap_or(512);
        Disk {
            name: node.name.clone(),
            by_id: self.by_id.get(&node.name).cloned().unwrap_or_default(),
            model: identity.model,
            serial: identity.serial,
            wwn: identity.wwn,
            firmware: identity.firmware,
            transport: identity.transport,
            backing_file: identity.backing_file,
            size_bytes: node.size_bytes(),
            logical_sector_bytes: queue("logical_block_size"),
            physical_sector_bytes: queue("physical_block_size"),
            rotational: node.flag("queue/rotational"),
            removable: node.flag("removable"),
            read_only: node.flag("ro"),
            contents: self.contents(node, &mut Vec::new()),
            partitions: self.partitions(node, &mut Vec::new()),
            path,
        }
    }

    fn partitions(&self, node: &BlockNode, above: &mut Vec<DevNumber>) -> Vec<Partition> {
        node.partitions()
            .iter()
            .map(|partition| Partition {
                name: partition.name.clone(),
                path: partition.path(),
                number: partition.partition().unwrap_or(0),
                start_bytes: partition
                    .number_at("start")
                    .unwrap_or(0)
                    .saturating_mul(512),
                size_bytes: partition.size_bytes(),
                contents: self.contents(partition, above),
            })
            .collect()
    }

    /// `above` is the way here, against devices that hold each other in a ring.
    fn contents(&self, node: &BlockNode, above: &mut Vec<DevNumber>) -> Contents {
        let udev = UdevRecord::read(self.system, node.number);
        above.push(node.number);
        let over = self.loops.iter().filter(|(_, over)| *over == node.number);
        let loops = over.map(|(node, _)| node.clone());
        let holders = node
            .holders()
            .into_iter()
            .chain(loops)
            .filter(|holder| !above.contains(&holder.number))
            .collect::<Vec<_>>();
        let holders = holders
            .iter()
            .map(|holder| self.holder(holder, above))
            .collect();
        above.pop();
        Contents {
            probed: udev.was_probed(),
            fs_type: udev.get("ID_FS_TYPE"),
            label: udev.text("ID_FS_LABEL"),
            uuid: udev.get("ID_FS_UUID"),
            mounts: self
                .mounts
                .iter()
                .filter(|(_, numbers)| numbers.contains(&node.number))
                .map(|(mount, _)| Mounted {
                    mount_point: mount.mount_point.to_string_lossy().into_owned(),
                    fs_type: mount.fs_type.clone(),
                    read_only: mount.read_only,
                })
                .collect(),
            swap: self.swaps.contains(&node.number),
            holders,
        }
    }

    fn holder(&self, node: &BlockNode, above: &mut Vec<DevNumber>) -> Holder {
        Holder {
            name: node.name.clone(),
            path: node.path(),
            kind: kind(node),
            size_bytes: node.size_bytes(),
            contents: self.contents(node, above),
            partitions: self.partitions(node, above),
        }
    }
}

/// Device mapper names the subsystem first in a device's UUID.
fn kind(node: &BlockNode) -> Option<String> {
    if node.loop_file().is_some() {
        return Some("loop".to_owned());
    }
    let mapper = node.attribute("dm/uuid");
    let subsystem = mapper.as_deref().and_then(|uuid| uuid.split('-').next());
    subsystem
        .map(str::to_lowercase)
        .or_else(|| node.attribute("md/level"))
}

/// The links in `/dev/disk/by-id`, by the kernel's name of the device.
fn by_id(system: &SystemPaths) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for link in children(&system.dev.join("disk/by-id")) {
        let target = fs::read_link(&link).ok();
        let target = target.as_deref().and_then(|target| target.file_name());
        if let (Some(target), Some(name)) = (target, link.file_name()) {
            let target = target.to_string_lossy().into_owned();
            let name = name.to_string_lossy();
            let links = names.entry(target).or_default();
            links.push(format!("/dev/disk/by-id/{name}"));
        }
    }
    names.values_mut().for_each(|links| links.sort());
    names
}
