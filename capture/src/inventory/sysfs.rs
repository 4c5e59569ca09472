//! Block devices as sysfs shows them: one directory each, found by number, by
//! name or by device node, with links to what is stacked above and below.
//!
//! Only attributes are read; no device is opened. Everything may vanish between
//! two reads, so an attribute that cannot be read is absent, not an error.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::FileType;

use super::SystemPaths;

/// A device's number, as `stat` and the kernel name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevNumber {
    /// Which driver.
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
}

impl DevNumber {
    /// From `st_dev` or `st_rdev`.
    pub fn from_raw(raw: u64) -> Self {
        Self {
            major: rustix::fs::major(raw),
            minor: rustix::fs::minor(raw),
        }
    }
}

impl fmt::Display for DevNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Not of the form `8:1`.
#[derive(Debug, thiserror::Error)]
#[error("not a device number")]
pub struct NotADevNumber;

impl FromStr for DevNumber {
    type Err = NotADevNumber;

    fn from_str(text: &str) -> Result<Self, NotADevNumber> {
        let (major, minor) = text.trim().split_once(':').ok_or(NotADevNumber)?;
        Ok(Self {
            major: major.parse().map_err(|_| NotADevNumber)?,
            minor: minor.parse().map_err(|_| NotADevNumber)?,
        })
    }
}

/// A block device: a disk, a partition, or one made of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockNode {
    /// Its number.
    pub number: DevNumber,
    /// The kernel's name: `sda1`, `dm-0`.
    pub name: String,
    /// Its directory in sysfs, without symbolic links.
    directory: PathBuf,
}

impl BlockNode {
    /// The device with this number.
    pub fn find(system: &SystemPaths, number: DevNumber) -> Option<Self> {
        Self::at(&system.sys.join("dev/block").join(number.to_string()))
    }

    /// The device that the kernel calls `name`.
    pub fn by_name(system: &SystemPaths, name: &str) -> Option<Self> {
        if name.is_empty() || name.contains('/') {
            return None;
        }
        Self::at(&system.sys.join("class/block").join(name))
    }

    /// The device behind a path such as `/dev/sda` or `/dev/mapper/root`. The
    /// path is seen from the system's root.
    pub fn by_path(system: &SystemPaths, path: &Path) -> Option<Self> {
        let path = system.real(path);
        let stat = rustix::fs::stat(&path).ok()?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
            return Self::find(system, DevNumber::from_raw(stat.st_rdev));
        }
        // A tree of a test has plain files for device nodes.
        let resolved = fs::canonicalize(&path).ok()?;
        let dev = fs::canonicalize(&system.dev).ok()?;
        let name = resolved.strip_prefix(dev).ok()?.to_str()?;
        (!system.is_live())
            .then(|| Self::by_name(system, &name.replace('/', "!")))
            .flatten()
    }

    /// All devices that are not partitions, by name.
    pub fn whole(system: &SystemPaths) -> Vec<Self> {
        Self::within(&system.sys.join("block"))
    }

    /// All devices, partitions too, by name.
    pub fn all(system: &SystemPaths) -> Vec<Self> {
        Self::within(&system.sys.join("class/block"))
    }

    fn at(directory: &Path) -> Option<Self> {
        let directory = fs::canonicalize(directory).ok()?;
        let number = fs::read_to_string(directory.join("dev")).ok()?;
        Some(Self {
            number: number.parse().ok()?,
            name: directory.file_name()?.to_str()?.to_owned(),
            directory,
        })
    }

    fn within(directory: &Path) -> Vec<Self> {
        let mut nodes: Vec<Self> = children(directory).filter_map(|d| Self::at(&d)).collect();
        nodes.sort_by(|a, b| natural(&a.name).cmp(&natural(&b.name)));
        nodes
    }

    /// The directory in sysfs, without symbolic links.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A text attribute below the directory, trimmed; empty is `None`.
    pub fn attribute(&self, name: &str) -> Option<String> {
        text(&self.directory.join(name))
    }

    /// A binary attribute below the directory.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.directory.join(name)).ok()
    }

    /// A number below the directory.
    pub fn number_at(&self, name: &str) -> Option<u64> {
        self.attribute(name)?.parse().ok()
    }

    /// Whether a flag below the directory is set.
    pub fn flag(&self, name: &str) -> bool {
        self.number_at(name).is_some_and(|flag| flag != 0)
    }

    /// A variable of the device's `uevent`.
    pub fn uevent(&self, key: &str) -> Option<String> {
        let uevent = fs::read_to_string(self.directory.join("uevent")).ok()?;
        let mut lines = uevent.lines().filter_map(|line| line.split_once('='));
        let (_, value) = lines.find(|(name, _)| *name == key)?;
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// Size in bytes; sysfs counts units of 512 whatever the sector size is.
    pub fn size_bytes(&self) -> u64 {
        self.number_at("size").unwrap_or(0).saturating_mul(512)
    }

    /// The partition's number, if it is one.
    pub fn partition(&self) -> Option<u64> {
        self.number_at("partition")
    }

    /// The disk that a partition is part of.
    pub fn parent(&self) -> Option<Self> {
        self.partition()?;
        Self::at(self.directory.parent()?)
    }

    /// The disk that this is or is part of.
    pub fn disk(&self) -> Self {
        self.parent().unwrap_or_else(|| self.clone())
    }

    /// The partitions, in the order of their numbers.
    pub fn partitions(&self) -> Vec<Self> {
        let mut found: Vec<Self> = children(&self.directory)
            .filter(|directory| directory.join("partition").exists())
            .filter_map(|directory| Self::at(&directory))
            .collect();
        found.sort_by_key(|node| node.partition());
        found
    }

    /// The devices made of this one: device mapper, md, bcache.
    pub fn holders(&self) -> Vec<Self> {
        Self::within(&self.directory.join("holders"))
    }

    /// The devices that this one is made of.
    pub fn slaves(&self) -> Vec<Self> {
        Self::within(&self.directory.join("slaves"))
    }

    /// The file behind a loop device, as the kernel names it.
    pub fn loop_file(&self) -> Option<PathBuf> {
        let mut path = fs::read(self.directory.join("loop/backing_file")).ok()?;
        if path.last() == Some(&b'\n') {
            path.pop();
        }
        (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(&path)))
    }

    /// What a device mapper device is called, `vg-home`.
    pub fn mapper_name(&self) -> Option<String> {
        self.attribute("dm/name")
    }

    /// The path that a user knows it by.
    pub fn path(&self) -> String {
        match self.mapper_name() {
            Some(name) => format!("/dev/mapper/{name}"),
            None => match self.uevent("DEVNAME") {
                Some(name) => format!("/dev/{name}"),
                None => format!("/dev/{}", self.name.replace('!', "/")),
            },
        }
    }
}

/// A text file's contents, trimmed; empty is `None`.
pub(super) fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// Paths in a directory; none if it cannot be read.
pub(super) fn children(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

/// Orders `sdb` before `sdaa` and `loop2` before `loop10`.
fn natural(name: &str) -> (&str, usize, &str, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = name[stem.len()..].parse().unwrap_or(0);
    let lettered = ["sd", "vd", "hd", "xvd"];
    let series = match lettered.iter().find(|series| stem.starts_with(**series)) {
        Some(series) => series,
        None => {
            let end = stem.find(|c: char| !c.is_ascii_lowercase());
            &stem[..end.unwrap_or(stem.len())]
        }
    };
    (series, stem.len(), stem, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_count() {
        let mut names = [
            "loop10", "sdaa", "sdb", "loop2", "nvme10n1", "nvme2n1", "sda", "sda10", "sda2",
        ];
        names.sort_by(|a, b| natural(a).cmp(&natural(b)));
        assert_eq!(
            names,
            [
                "loop2", "loop10", "nvme2n1", "nvme10n1", "sda", "sda2", "sda10", "sdb", "sdaa"
            ]
        );
    }

    #[test]
    fn numbers_are_parsed_and_printed() {
        let number: DevNumber = "259:7\n".parse().unwrap();
        assert_eq!((number.major, number.minor), (259, 7));
        assert_eq!(number.to_string(), "259:7");
        assert!("259".parse::<DevNumber>().is_err());
        assert!("a:1".parse::<DevNumber>().is_err());
        let raw = rustix::fs::makedev(259, 700);
        assert_eq!(
            DevNumber::from_raw(raw),
            DevNumber {
                major: 259,
                minor: 700
            }
        );
    }
}
