//! What a path lies on: from its filesystem down through loop files, logical
//! volumes, LUKS, RAID and partitions to physical disks.
//!
//! It answers one question above all: would writing to this path change the
//! source that is being rescued?
//!
//! Network filesystems and memory have nothing beneath them. A filesystem whose
//! devices nobody names (ZFS without udev) has nothing beneath it either: the
//! check can miss, it does not accuse wrongly.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::above::{devices_of, same_file};
use super::mounts::describe_mount;
use super::{BlockNode, DevNumber, SystemPaths};

/// That a path lies on a source, and by which way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containment {
    /// From the path down to the source: `/mnt/store`, `/dev/mapper/vg-data`,
    /// `/dev/sda3`, `/dev/sda`.
    pub chain: Vec<String>,
}

impl fmt::Display for Containment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain.join(" on "))
    }
}

/// The physical disks beneath the filesystem that holds `path`, or will hold it
/// once it is created. Empty for a network filesystem and for memory.
pub fn backing_disks_of(system: &SystemPaths, path: &Path) -> Vec<BlockNode> {
    let mut disks: Vec<BlockNode> = Vec::new();
    let mut walk = Walk::new(system, |_, ground| {
        if let Ground::Device(node) = ground
            && node.partition().is_none()
            && node.slaves().is_empty()
            && node.loop_file().is_none()
            && disks.iter().all(|disk| disk.number != node.number)
        {
            disks.push((*node).clone());
        }
        ControlFlow::<Infallible>::Continue(())
    });
    let ControlFlow::Continue(()) = walk.path(path);
    disks
}

/// `node` and every device beneath it.
pub fn devices_beneath(system: &SystemPaths, node: &BlockNode) -> Vec<BlockNode> {
    let mut devices: Vec<BlockNode> = Vec::new();
    let mut walk = Walk::new(system, |_, ground| {
        if let Ground::Device(node) = ground {
            devices.push((*node).clone());
        }
        ControlFlow::<Infallible>::Continue(())
    });
    let ControlFlow::Continue(()) = walk.device(node);
    devices
}

/// Whether `path` lies on `source`, a block device or an image file: then a
/// store at `path` would write onto what it is to rescue. Two loop devices over
/// one file are one source; two partitions of a disk are not.
pub fn source_contains_path(
    system: &SystemPaths,
    source: &Path,
    path: &Path,
) -> Option<Containment> {
    let source = system.settle(source);
    let device = BlockNode::by_path(system, &source);
    let file = match &device {
        Some(node) => node.disk().loop_file(),
        None => Some(source),
    };
    let parent = device.as_ref().and_then(BlockNode::parent);
    // Reached its disk and not itself: the path is on another partition. Then
    // the file behind a loop device, which both share, says nothing more.
    let mut beside = false;
    let mut walk = Walk::new(system, |chain, ground| {
        let found = match ground {
            Ground::Device(node) => {
                beside |= parent
                    .as_ref()
                    .is_some_and(|disk| disk.number == node.number);
                device
                    .as_ref()
                    .is_some_and(|device| device.number == node.number)
            }
            Ground::File(beneath) => {
                !beside
                    && file
                        .as_deref()
                        .is_some_and(|file| same_file(system, file, beneath))
            }
        };
        if found {
            ControlFlow::Break(Containment {
                chain: chain.to_vec(),
            })
        } else {
            ControlFlow::Continue(())
        }
    });
    walk.path(path).break_value()
}

/// Something that lies beneath a path.
enum Ground<'a> {
    Device(&'a BlockNode),
    /// A file that is itself a device: behind a loop device, or mounted by FUSE.
    File(&'a Path),
}

struct Walk<'a, F> {
    system: &'a SystemPaths,
    visit: F,
    chain: Vec<String>,
    devices: HashSet<DevNumber>,
    paths: HashSet<PathBuf>,
}

impl<'a, F, B> Walk<'a, F>
where
    F: FnMut(&[String], &Ground<'_>) -> ControlFlow<B>,
{
    fn new(system: &'a SystemPaths, visit: F) -> Self {
        Self {
            system,
            visit,
            chain: Vec::new(),
            devices: HashSet::new(),
            paths: HashSet::new(),
        }
    }

    fn path(&mut self, path: &Path) -> ControlFlow<B> {
        let path = self.system.settle(path);
        if !self.paths.insert(path.clone()) {
            return ControlFlow::Continue(());
        }
        self.chain.push(path.to_string_lossy().into_owned());
        for node in self.nodes_of(&path) {
            self.device(&node)?;
        }
        if let Some(mount) = describe_mount(self.system, &path) {
            if mount.fs_type == "overlay"
                && let Some(upper) = mount.option("upperdir")
            {
                self.path(Path::new(upper))?;
            }
            let source = Path::new(&mount.source);
            if source.is_absolute() && self.system.real(source).is_file() {
                self.file(source)?;
            }
        }
        self.chain.pop();
        ControlFlow::Continue(())
    }

    /// By the device number of the path itself where that is a block device's:
    /// it is right even if the table of mounts is not to be had.
    fn nodes_of(&self, path: &Path) -> Vec<BlockNode> {
        let by_number = || {
            if !self.system.is_live() {
                return None;
            }
            let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
            let stat = rustix::fs::stat(existing).ok()?;
            BlockNode::find(self.system, DevNumber::from_raw(stat.st_dev))
        };
        match by_number() {
            Some(node) => vec![node],
            None => describe_mount(self.system, path)
                .map_or_else(Vec::new, |mount| devices_of(self.system, &mount)),
        }
    }

    fn device(&mut self, node: &BlockNode) -> ControlFlow<B> {
        if !self.devices.insert(node.number) {
            return ControlFlow::Continue(());
        }
        self.chain.push(node.path());
        (self.visit)(&self.chain, &Ground::Device(node))?;
        for slave in node.slaves() {
            self.device(&slave)?;
        }
        if let Some(parent) = node.parent() {
            self.device(&parent)?;
        }
        if let Some(file) = node.loop_file() {
            self.file(&file)?;
        }
        self.chain.pop();
        ControlFlow::Continue(())
    }

    fn file(&mut self, file: &Path) -> ControlFlow<B> {
        // A loop device may lie over a block device as well.
        if let Some(node) = BlockNode::by_path(self.system, file) {
            return self.device(&node);
        }
        self.chain.push(file.to_string_lossy().into_owned());
        (self.visit)(&self.chain, &Ground::File(file))?;
        self.chain.pop();
        if fs::symlink_metadata(self.system.real(file)).is_ok() {
            self.path(file)?;
        }
        ControlFlow::Continue(())
    }
}
