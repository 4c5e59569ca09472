//! Where a directory is: the UUID of its filesystem, a name of the place that stays when a disk is mounted elsewhere, and, where
//! inode numbers last, the directory's, which a copy within the filesystem does not have.
//!
//! Nobody asks the disk: udev's database knows the UUID, so do the links that udev keeps in `/dev/disk/by-uuid`, and so does the
//! kernel on a system without udev too: of any filesystem since Linux 6.9, before that of ext4, btrfs and XFS. A filesystem
//! without a device of its own (a network filesystem, tmpfs, overlay) has none that says where its files are.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::above::devices_of;
use super::{BlockNode, MountInfo, SystemPaths, UdevRecord, describe_mount};
use crate::sys;

/// Filesystems whose inode numbers are on the disk, so that a file keeps its own as long as it is there.
const LASTING_INODES: [&str; 6] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"];

/// The UUID of the filesystem that `path` lies on, or will once it is created. `None` where it has none, or nobody knows it.
pub fn filesystem_uuid(system: &SystemPaths, path: &Path) -> Option<String> {
    uuid_of(system, &describe_mount(system, path)?, path)
}

/// A name of the directory `path` that no other place has: the UUID of its filesystem and, after a slash, its inode number there.
/// Where inode numbers mean nothing, or the directory is not there yet, the UUID alone; `None` where nobody knows that.
pub fn place(system: &SystemPaths, path: &Path) -> Option<String> {
    let mount = describe_mount(system, path)?;
    let uuid = uuid_of(system, &mount, path)?;
    let lasting = LASTING_INODES.contains(&mount.fs_type.as_str());
    let inode = lasting.then(|| fs::metadata(path).ok()).flatten();
    Some(match inode {
        Some(found) => format!("{uuid}/{}", found.ino()),
        None => uuid,
    })
}

fn uuid_of(system: &SystemPaths, mount: &MountInfo, path: &Path) -> Option<String> {
    let nodes = devices_of(system, mount);
    let known = nodes.iter().find_map(|node| {
        let udev = UdevRecord::read(system, node.number);
        udev.get("ID_FS_UUID").or_else(|| link_to(system, node))
    });
    let is_on_disk = !nodes.is_empty();
    known.or_else(|| is_on_disk.then(|| asked(path)).flatten())
}

/// What the kernel says, as udev would write it.
fn asked(path: &Path) -> Option<String> {
    let file = path.ancestors().find_map(|path| File::open(path).ok())?;
    let uuid = sys::filesystem_uuid(&file).ok()?;
    let is_known = uuid != [0; 16];
    is_known.then(|| written(&uuid))
}

/// A UUID in its usual form (RFC 9562).
fn written(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (nth, byte) in uuid.iter().enumerate() {
        if [4, 6, 8, 10].contains(&nth) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The name of the link in `/dev/disk/by-uuid` that leads to the device; the first of several.
fn link_to(system: &SystemPaths, device: &BlockNode) -> Option<String> {
    let links = fs::read_dir(system.dev.join("disk/by-uuid")).ok()?;
    let mut names: Vec<String> = links
        .filter_map(|link| link.ok()?.file_name().into_string().ok())
        .filter(|name| {
            let path = Path::new("/dev/disk/by-uuid").join(name);
            let node = BlockNode::by_path(system, &path);
            node.is_some_and(|node| node.number == device.number)
        })
        .collect();
    names.sort();
    names.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_one_form() {
        let uuid = std::array::from_fn(|nth| (nth * 17) as u8);
        assert_eq!(written(&uuid), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
