//! What the system says about its disks without touching any of them: sysfs,
//! the tables of mounts and swap, udev's database.
//!
//! Every question is answered from what is there now; nothing is cached, nothing
//! is written. All files are found through [`SystemPaths`], so that a test can
//! ask about a system of its own making.

mod above;
mod beneath;
mod disks;
mod identity;
mod mountpoint;
mod mounts;
mod sysfs;
mod udev;
mod uuid;

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

pub use self::above::{Usage, UsageKind, usage_of, usage_of_file};
pub use self::beneath::{Containment, backing_disks_of, devices_beneath, source_contains_path};
pub use self::disks::{Contents, Disk, Holder, Mounted, Partition, list_disks};
pub use self::identity::identify;
pub use self::mountpoint::unmounted_mountpoint;
pub use self::mounts::{MountInfo, describe_mount, mounts, swaps};
pub use self::sysfs::{BlockNode, DevNumber, NotADevNumber};
pub use self::udev::UdevRecord;
pub use self::uuid::{filesystem_uuid, place};

/// Where the kernel's and udev's descriptions are. Tests point these at a tree
/// of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemPaths {
    /// The root that every other path is seen from; `/`.
    pub root: PathBuf,
    /// sysfs, `/sys`.
    pub sys: PathBuf,
    /// procfs, `/proc`.
    pub proc: PathBuf,
    /// Device nodes, `/dev`.
    pub dev: PathBuf,
    /// The udev database is in `udev/data` below it; `/run`.
    pub run: PathBuf,
}

impl SystemPaths {
    /// The usual names below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            sys: root.join("sys"),
            proc: root.join("proc"),
            dev: root.join("dev"),
            run: root.join("run"),
            root,
        }
    }

    /// Whether this is the running system, whose files have the device numbers
    /// that its tables speak of.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where `path`, as seen from the system's root, really is.
    fn real(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// `path` as seen from the system's root: absolute, without symbolic links as
    /// far as it exists, and as it will be beyond that.
    fn settle(&self, path: &Path) -> PathBuf {
        let absolute = if self.is_live() {
            std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
        } else {
            path.to_owned()
        };
        let mut missing = Vec::new();
        let mut existing = absolute.as_path();
        let mut settled = loop {
            match fs::canonicalize(self.real(existing)) {
                Ok(real) => break self.seen(&real),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => break existing.to_owned(),
            }
            match (existing.parent(), existing.components().next_back()) {
                (Some(parent), Some(last)) => {
                    missing.push(last);
                    existing = parent;
                }
                _ => break existing.to_owned(),
            }
        };
        for component in missing.into_iter().rev() {
            match component {
                Component::ParentDir => {
                    settled.pop();
                }
                component => settled.push(component),
            }
        }
        settled
    }

    fn seen(&self, real: &Path) -> PathBuf {
        let root = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        match real.strip_prefix(root) {
            Ok(below) => Path::new("/").join(below),
            Err(_) => real.to_owned(),
        }
    }
}

impl Default for SystemPaths {
    /// The running system.
    fn default() -> Self {
        Self::below("/")
    }
}

#[cfg(test)]
mod tests;
