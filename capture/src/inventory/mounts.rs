//! What is mounted where, from `/proc/*/mountinfo` (proc(5)), and what is used
//! as swap.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::{DevNumber, SystemPaths};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// The mount's id, unique while it lasts.
    pub id: u64,
    /// Device number of the filesystem; the major is 0 where it has no single
    /// device (btrfs, overlay, tmpfs, network filesystems).
    pub number: DevNumber,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Type of the filesystem: `ext4`, `fuse.sshfs`.
    pub fs_type: String,
    /// What is mounted: a device node, `host:/path`, a pool's dataset.
    pub source: String,
    /// Whether nothing can be written through this mount.
    pub read_only: bool,
    /// Whether the filesystem itself writes to no device, through whichever mount.
    pub filesystem_read_only: bool,
    /// The filesystem's own options.
    pub options: String,
}

impl MountInfo {
    /// The value of an option of the filesystem's, `upperdir` for example.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options
            .split(',')
            .filter_map(|option| option.split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// Every mount that this process sees, in the order they were made.
pub fn mounts(system: &SystemPaths) -> Vec<MountInfo> {
    parse(&fs::read(system.proc.join("self/mountinfo")).unwrap_or_default())
}

/// Every mount that this process or the first one sees: in a chroot or a
/// container of its own, a process does not see what the system has mounted.
pub fn mounts_anywhere(system: &SystemPaths) -> Vec<MountInfo> {
    let mut all = mounts(system);
    let first = parse(&fs::read(system.proc.join("1/mountinfo")).unwrap_or_default());
    all.extend(first);
    all.sort_by_key(|mount| mount.id);
    all.dedup_by_key(|mount| mount.id);
    all
}

/// The mount that holds `path`, or will once `path` is created: the one whose
/// mount point is the longest prefix of it, the last of several. `None` where
/// `/proc` is not mounted.
pub fn describe_mount(system: &SystemPaths, path: &Path) -> Option<MountInfo> {
    let path = system.settle(path);
    let mounts = mounts(system);
    if let Some(id) = mount_id(system, &path)
        && let Some(mount) = mounts.iter().find(|mount| mount.id == id)
    {
        return Some(mount.clone());
    }
    mounts
        .into_iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        // `max_by_key` gives the last of equals, which is the one on top.
        .max_by_key(|mount| mount.mount_point.components().count())
}

/// The kernel's own answer, since Linux 5.8: right even where a later mount
/// further up hides an earlier one.
fn mount_id(system: &SystemPaths, path: &Path) -> Option<u64> {
    if !system.is_live() {
        return None;
    }
    let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
    let statx = rustix::fs::statx(CWD, existing, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    let known = StatxFlags::from_bits_retain(statx.stx_mask).contains(StatxFlags::MNT_ID);
    known.then_some(statx.stx_mnt_id)
}

/// Files and devices in use as swap.
pub fn swaps(system: &SystemPaths) -> Vec<PathBuf> {
    let table = fs::read(system.proc.join("swaps")).unwrap_or_default();
    table
        .split(|&byte| byte == b'\n')
        .skip(1)
        .filter_map(|line| line.split(|byte| byte.is_ascii_whitespace()).next())
        .filter(|name| !name.is_empty())
        .map(path_of)
        .collect()
}

fn parse(table: &[u8]) -> Vec<MountInfo> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    // The optional fields between are of any number and end with a dash.
    let dash = 6 + fields.get(6..)?.iter().position(|field| *field == b"-")?;
    let options = std::str::from_utf8(fields[5]).ok()?;
    let own = String::from_utf8(unescape(fields.get(dash + 3).copied().unwrap_or(b""))).ok()?;
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(MountInfo {
        id: std::str::from_utf8(fields[0]).ok()?.parse().ok()?,
        number: std::str::from_utf8(fields[2]).ok()?.parse().ok()?,
        mount_point: path_of(fields[4]),
        fs_type: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
        source: String::from_utf8_lossy(&unescape(fields.get(dash + 2)?)).into_owned(),
        read_only: read_only(options) || read_only(&own),
        filesystem_read_only: read_only(&own),
        options: own,
    })
}

pub(super) fn path_of(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// The kernel writes space, tab, newline and backslash as a backslash and three
/// octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(decoded) => {
                plain.push(decoded);
                rest = &after[3..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}
