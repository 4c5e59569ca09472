//! The UUID of a filesystem: a name of the place that stays when a disk is mounted elsewhere.
//!
//! Nobody asks the disk: udev's database knows it, and so do the links that udev keeps in `/dev/disk/by-uuid`. A filesystem
//! without a device of its own (a network filesystem, tmpfs, overlay) has none that says where its files are.

use std::fs;
use std::path::Path;

use super::above::devices_of;
use super::{BlockNode, SystemPaths, UdevRecord, describe_mount};

/// The UUID of the filesystem that `path` lies on, or will once it is created. `None` where it has none, or nobody knows it.
pub fn filesystem_uuid(system: &SystemPaths, path: &Path) -> Option<String> {
    let mount = describe_mount(system, path)?;
    let nodes = devices_of(system, &mount);
    nodes.iter().find_map(|node| {
        let udev = UdevRecord::read(system, node.number);
        udev.get("ID_FS_UUID").or_else(|| link_to(system, node))
    })
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
