//! What the system says about its disks without touching any of them.

use std::path::PathBuf;

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
}

impl Default for SystemPaths {
    /// The running system.
    fn default() -> Self {
        Self::below("/")
    }
}
