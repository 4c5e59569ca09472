//! What a place can promise a store: looked up first, then really tried out.
//!
//! A rescue that ends on a RAM disk, on a mountpoint without its disk or on a
//! file system that forgets what it was told to sync is no rescue, so `init`
//! asks before it is too late. Every operation that the store relies on is done
//! once, in scratch files that are removed again.
//!
//! Crash: the scratch files are under `tmp/scratch`, where a later `init` or
//! opening for writing tolerates and removes them.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use asl_capture::inventory::{SystemPaths, describe_mount, unmounted_mountpoint};
use asl_store::vfs::{Access, Vfs, read_exact_at};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::error::CliError;
use crate::text;

/// Free space below which a store makes no sense: ballast, log and one open block.
const ROOM_MIN_BYTES: u64 = 64 << 20;
/// Free space below which the user should know that it is little.
const ROOM_LITTLE_BYTES: u64 = 4 << 30;
/// Largest file that the store makes.
const FILE_MAX_BYTES: u64 = asl_store::format::FILE_LEN_MAX;
/// Where scratch files are made: a directory of every store.
const SCRATCH: &str = "tmp/scratch";

/// Whether what was synced is there after the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Survival {
    /// The file system has a journal or never overwrites.
    Yes,
    /// File contents survive; directories may need the file system's checker.
    Limited,
    /// It is up to a server or a driver that cannot be asked.
    Unknown,
    /// Memory.
    No,
}

impl Survival {
    /// What a file system of this type can promise.
    pub fn of(fs_type: &str) -> Self {
        match fs_type {
            "ext3" | "ext4" | "xfs" | "btrfs" | "f2fs" | "zfs" | "bcachefs" | "jfs" | "nilfs2"
            | "reiserfs" | "ubifs" => Self::Yes,
            "vfat" | "msdos" | "exfat" | "ntfs" | "ntfs3" | "fuseblk" | "ext2" | "hfsplus"
            | "hfs" | "udf" => Self::Limited,
            "tmpfs" | "ramfs" | "overlay" | "aufs" | "devtmpfs" | "rootfs" | "squashfs" => Self::No,
            _ => Self::Unknown,
        }
    }

    fn words(self, fs_type: &str) -> String {
        match self {
            Self::Yes => "survived: what is reported as saved stays saved".to_owned(),
            Self::Limited => {
                format!("as far as {fs_type} can: after a power cut, check the file system first")
            }
            Self::Unknown => format!("unknown: {fs_type} cannot be asked"),
            Self::No => "NOT survived: everything here is gone at power-off".to_owned(),
        }
    }
}

/// A place and what it can promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// The file system's type: `ext4`, `vfat`, `fuse.sshfs`.
    pub fs_type: String,
    /// What is mounted there: a device, a server's path.
    pub device: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// Size of the file system.
    pub total_bytes: u64,
    /// What may still be written.
    pub available_bytes: u64,
    /// Whether what was synced survives a power cut.
    pub survives_power_loss: Survival,
    /// Whether files have owners and permissions.
    pub permissions: bool,
    /// Whether `a` and `A` are two names.
    pub case_sensitive: bool,
    /// Whether locks keep a second writer out.
    pub locks: bool,
    /// Largest file possible, where something limits it.
    pub file_size_limit_bytes: Option<u64>,
}

/// Why a place was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Something that is no directory has this path.
    #[error("{} is a file, not a directory", text::path(.0))]
    NotADirectory(PathBuf),
    /// A disk, where a directory on it is meant.
    #[error("{} is a disk, not a directory on one", text::path(.0))]
    Disk(PathBuf),
    /// Another store is around it.
    #[error("{} lies in another store: {}", text::path(path), text::path(store))]
    InStore {
        /// The path as given.
        path: PathBuf,
        /// The store that it is in.
        store: PathBuf,
    },
    /// A mountpoint without its disk.
    #[error("nothing is mounted on {}", text::path(.0))]
    Unmounted(PathBuf),
    /// Memory.
    #[error(
        "{} is in memory ({fs_type}): everything there is gone at power-off",
        text::path(path)
    )]
    InMemory {
        /// The path as given.
        path: PathBuf,
        /// The file system's type.
        fs_type: String,
    },
    /// Mounted read-only.
    #[error("{} is on a file system that is mounted read-only", text::path(path))]
    ReadOnly {
        /// The path as given.
        path: PathBuf,
        /// Where it is mounted.
        mount_point: PathBuf,
    },
    /// Too little space.
    #[error(
        "only {} are free at {}; a store needs at least {}",
        text::size(*available_bytes), text::path(path), text::size(ROOM_MIN_BYTES)
    )]
    NoRoom {
        /// The path as given.
        path: PathBuf,
        /// What may still be written.
        available_bytes: u64,
    },
    /// An operation that the store relies on failed.
    #[error("the file system cannot {operation}")]
    Operation {
        /// The verb and its object.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An operation said that it was done, and was not.
    #[error("the file system does not keep its word: {0}")]
    Untrue(&'static str),
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotADirectory(path) => format!(
                "name a directory beside it: asl store init {}",
                text::shell_path(&path.with_file_name("rescue"))
            ),
            Self::Disk(path) => format!(
                "mount its file system, then make the store there: mount {} /mnt && asl store \
                 init /mnt/rescue",
                text::shell_path(path)
            ),
            Self::InStore { store, .. } => format!(
                "use that one (asl store info --store {}), or name a directory outside of it",
                text::shell_path(store)
            ),
            Self::Unmounted(place) => format!(
                "mount the disk there first: mount /dev/DISK {} (asl disks lists them); if you \
                 really mean the directory itself, add --unmounted-ok",
                text::shell_path(place)
            ),
            Self::InMemory { .. } => "mount a disk and name a path on it (asl disks lists them); \
                                      if losing it is fine, add --ephemeral"
                .to_owned(),
            Self::ReadOnly { mount_point, .. } => format!(
                "if that disk is healthy: mount -o remount,rw {}",
                text::shell_path(mount_point)
            ),
            Self::NoRoom { path, .. } => {
                let existing = existing_ancestor(path);
                format!(
                    "make room there or use another disk; see: df -h {}",
                    text::shell_path(&existing)
                )
            }
            Self::Operation { .. } | Self::Untrue(_) => {
                "use a disk with another file system; ext4 and exFAT are fine".to_owned()
            }
        };
        Some(hint)
    }
}

impl From<Refusal> for CliError {
    fn from(refusal: Refusal) -> Self {
        let error = CliError::new("no store can be made there").caused_by(&refusal);
        match refusal.hint() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// What the user allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// A place that is gone at power-off.
    pub ephemeral: bool,
    /// A mountpoint on which nothing is mounted.
    pub unmounted: bool,
}

/// Looks a place up without writing anything: `path` may not exist yet. What only
/// trying can tell is assumed for the best.
pub fn survey(system: &SystemPaths, path: &Path, allowed: Allowed) -> Result<Destination, Refusal> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_block_device() => {
            return Err(Refusal::Disk(path.to_owned()));
        }
        Ok(metadata) if !metadata.is_dir() => {
            return Err(Refusal::NotADirectory(path.to_owned()));
        }
        _ => {}
    }
    if let Some(store) = store_around(path) {
        let path = path.to_owned();
        return Err(Refusal::InStore { path, store });
    }
    if !allowed.unmounted
        && let Some(place) = unmounted_mountpoint(system, path)
    {
        return Err(Refusal::Unmounted(place));
    }
    let existing = existing_ancestor(path);
    let stat = statvfs(&existing).map_err(|errno| Refusal::Operation {
        operation: "say how much space it has",
        source: errno.into(),
    })?;
    let mount = describe_mount(system, path);
    let fs_type = match &mount {
        Some(mount) => mount.fs_type.clone(),
        None => "an unknown file system".to_owned(),
    };
    let mount_point = mount
        .as_ref()
        .map_or_else(|| existing.clone(), |mount| mount.mount_point.clone());
    let survives_power_loss = Survival::of(&fs_type);
    if survives_power_loss == Survival::No && !allowed.ephemeral {
        return Err(Refusal::InMemory {
            path: path.to_owned(),
            fs_type,
        });
    }
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(Refusal::ReadOnly {
            path: path.to_owned(),
            mount_point,
        });
    }
    let available_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if available_bytes < ROOM_MIN_BYTES {
        return Err(Refusal::NoRoom {
            path: path.to_owned(),
            available_bytes,
        });
    }
    let type_limit = matches!(fs_type.as_str(), "vfat" | "msdos").then_some((4 << 30) - 1);
    let own_limit = getrlimit(Resource::Fsize).current;
    Ok(Destination {
        device: mount.map(|mount| mount.source).unwrap_or_default(),
        mount_point: mount_point.to_string_lossy().into_owned(),
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes,
        survives_power_loss,
        permissions: true,
        case_sensitive: true,
        locks: true,
        file_size_limit_bytes: [type_limit, own_limit].into_iter().flatten().min(),
        fs_type,
    })
}

/// The store that a directory lies in, other than itself.
fn store_around(path: &Path) -> Option<PathBuf> {
    let around = stores_around(path).into_iter().next();
    around.map(|(store, _)| store)
}

/// The stores that a file or directory, which may not exist yet, lies in, other than itself; the innermost first, each with what the path
/// is called in it.
pub fn stores_around(path: &Path) -> Vec<(PathBuf, PathBuf)> {
    let Some(absolute) = real_path(path) else {
        return Vec::new();
    };
    let above = absolute.ancestors().skip(1);
    above
        .filter(|dir| dir.join("blocks/sealed").is_dir())
        .filter_map(|dir| Some((dir.to_owned(), absolute.strip_prefix(dir).ok()?.to_owned())))
        .collect()
}

/// The path with every link in it followed as far as it exists: a link may lead into a store.
fn real_path(path: &Path) -> Option<PathBuf> {
    let existing = existing_ancestor(path);
    let absolute = std::path::absolute(path).ok()?;
    let missing = absolute.strip_prefix(&existing).ok()?.to_owned();
    let existing = fs::canonicalize(&existing).ok()?;
    // Joining nothing would end in a slash.
    Some(match missing.as_os_str().is_empty() {
        true => existing,
        false => existing.join(missing),
    })
}

fn existing_ancestor(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing = absolute.ancestors().find(|ancestor| ancestor.exists());
    existing.unwrap_or(Path::new("/")).to_owned()
}

/// Tries out, in the directory `path` that `vfs` has open, what the store relies on.
pub fn try_out(
    vfs: &dyn Vfs,
    path: &Path,
    mut destination: Destination,
) -> Result<Destination, Refusal> {
    destination.locks = try_files(vfs)?;
    let name = format!("{SCRATCH}/{}", SECOND.1);
    let file = path.join(&name);
    destination.case_sensitive = !path.join(SCRATCH).join("PROBE-B").exists();
    destination.permissions = has_permissions(&file);
    remove_scratch(vfs);
    Ok(destination)
}

/// Names of the scratch files, short and with their paths.
const FIRST: (&str, &str) = ("tmp/scratch/probe-a", "probe-a");
const SECOND: (&str, &str) = ("tmp/scratch/probe-b", "probe-b");
const LOCK: &str = "tmp/scratch/probe-lock";

/// Removes what trying left behind, as far as it can be removed.
pub fn remove_scratch(vfs: &dyn Vfs) {
    for name in [FIRST.0, SECOND.0, LOCK] {
        let _ = vfs.remove(name);
    }
}

/// Returns whether locks keep a second writer out.
fn try_files(vfs: &dyn Vfs) -> Result<bool, Refusal> {
    let cannot = |operation| move |source| Refusal::Operation { operation, source };
    for dir in ["tmp", SCRATCH] {
        vfs.create_dir(dir).map_err(cannot("make a directory"))?;
    }
    remove_scratch(vfs);
    let pattern: Vec<u8> = (0..16384u32).map(|n| ((n * n) >> 7) as u8).collect();
    let file = vfs
        .create_exclusive(FIRST.0)
        .map_err(cannot("make a file"))?;
    if vfs.create_exclusive(FIRST.0).is_ok() {
        return Err(Refusal::Untrue("it made a file that existed already"));
    }
    file.write_at(0, &[&pattern])
        .and_then(|()| file.write_at(pattern.len() as u64, &[&pattern]))
        .map_err(cannot("write a file"))?;
    file.truncate(pattern.len() as u64)
        .map_err(cannot("cut a file"))?;
    file.sync().map_err(cannot("sync a file"))?;
    drop(file);
    vfs.create_exclusive(SECOND.0)
        .map_err(cannot("make a file"))?;
    vfs.rename(FIRST.0, SECOND.0)
        .map_err(cannot("rename a file"))?;
    vfs.sync_dir(SCRATCH).map_err(cannot("sync a directory"))?;
    let file = vfs
        .open(SECOND.0, Access::Read)
        .map_err(cannot("open a file"))?;
    let mut back = vec![0; pattern.len()];
    read_exact_at(&*file, 0, &mut back).map_err(cannot("read a file back"))?;
    if back != pattern || file.len().ok() != Some(pattern.len() as u64) {
        return Err(Refusal::Untrue("a file does not hold what was written"));
    }
    let held = vfs.lock(LOCK).map_err(cannot("lock a file"))?;
    let second = vfs.lock(LOCK).map_err(cannot("lock a file"))?;
    Ok(held.is_some() && second.is_none())
}

/// Whether permissions stay as they are set: FAT and NTFS pretend.
fn has_permissions(file: &Path) -> bool {
    [0o600, 0o640].into_iter().all(|mode| {
        let set = fs::set_permissions(file, fs::Permissions::from_mode(mode));
        let kept = fs::metadata(file).map(|metadata| metadata.permissions().mode() & 0o777);
        set.is_ok() && kept.is_ok_and(|kept| kept == mode)
    })
}

impl Destination {
    /// The facts for people, one line each.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let device = match self.device.as_str() {
            "" | "none" => String::new(),
            device => format!(" on {}", text::fit(&text::visible(device), 40)),
        };
        let mut facts = vec![
            ("file system", format!("{}{device}", self.fs_type)),
            (
                "space",
                format!(
                    "{} free of {}",
                    text::size(self.available_bytes),
                    text::size(self.total_bytes)
                ),
            ),
            ("power loss", self.survives_power_loss.words(&self.fs_type)),
        ];
        if !self.permissions {
            let words = "none here: whoever has the disk can read the store";
            facts.push(("permissions", words.to_owned()));
        }
        facts
    }

    /// What may cost the user data or time if it is not known.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.available_bytes < ROOM_LITTLE_BYTES {
            warnings.push(format!(
                "only {} are free here",
                text::size(self.available_bytes)
            ));
        }
        if let Some(limit) = self.file_size_limit_bytes
            && limit < FILE_MAX_BYTES
        {
            warnings.push(format!(
                "this shell limits files to {}; lift that with: ulimit -f unlimited",
                text::size(limit)
            ));
        }
        if !self.locks {
            warnings.push(
                "locks do not work here: never write to this store from two programs at once"
                    .to_owned(),
            );
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use asl_store::vfs::fault::{FailMode, FaultVfs, OpKind};
    use asl_store::vfs::real::RealVfs;

    fn made_up() -> Destination {
        Destination {
            fs_type: "vfat".into(),
            device: "/dev/sdb1\u{1b}[2J".into(),
            mount_point: "/mnt".into(),
            total_bytes: 8 << 30,
            available_bytes: 1 << 30,
            survives_power_loss: Survival::of("vfat"),
            permissions: false,
            case_sensitive: true,
            locks: true,
            file_size_limit_bytes: Some(1 << 20),
        }
    }

    /// Covers K3.
    #[test]
    fn each_kind_of_file_system_promises_what_it_can() {
        for (fs_type, survival) in [
            ("ext4", Survival::Yes),
            ("btrfs", Survival::Yes),
            ("vfat", Survival::Limited),
            ("fuseblk", Survival::Limited),
            ("nfs4", Survival::Unknown),
            ("fuse.sshfs", Survival::Unknown),
            ("tmpfs", Survival::No),
            ("overlay", Survival::No),
        ] {
            assert_eq!(Survival::of(fs_type), survival, "{fs_type}");
        }
    }

    #[test]
    fn trying_out_leaves_nothing_behind_and_finds_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let vfs = RealVfs::open(dir.path()).unwrap();
        let found = try_out(&vfs, dir.path(), made_up()).unwrap();
        assert!(found.permissions && found.case_sensitive && found.locks);
        assert_eq!(fs::read_dir(dir.path().join(SCRATCH)).unwrap().count(), 0);
        asl_store::check_vacant(&vfs).unwrap();
    }

    #[test]
    fn scratch_files_of_a_crash_are_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let vfs = RealVfs::open(dir.path()).unwrap();
        fs::create_dir_all(dir.path().join(SCRATCH)).unwrap();
        fs::write(dir.path().join(FIRST.0), "left over").unwrap();
        asl_store::check_vacant(&vfs).unwrap();
        try_out(&vfs, dir.path(), made_up()).unwrap();
    }

    #[test]
    fn every_operation_that_fails_refuses_the_place() {
        let vfs = FaultVfs::new();
        vfs.set_count_reads(true);
        assert!(try_files(&vfs).unwrap());
        let mut refused = 0;
        for op in vfs.trace() {
            let vfs = FaultVfs::new();
            vfs.set_count_reads(true);
            vfs.fail_op(op.number, 5, FailMode::Once);
            match try_files(&vfs) {
                Err(_) => refused += 1,
                // Left-overs of earlier tries need not be there to be removed.
                Ok(_) => assert_eq!(op.kind, OpKind::Remove, "{op:?}"),
            }
        }
        assert!(refused >= 12, "{refused}");
    }

    #[test]
    fn what_is_said_is_harmless_and_complete() {
        let place = made_up();
        let facts = place.facts();
        assert!(facts.iter().all(|(_, words)| !words.contains('\u{1b}')));
        assert!(facts.iter().any(|(name, _)| *name == "permissions"));
        assert_eq!(place.warnings().len(), 2);
    }

    #[test]
    fn files_and_unmounted_mountpoints_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let system = SystemPaths::below(root);
        fs::create_dir_all(root.join("mnt/usb")).unwrap();
        fs::create_dir_all(root.join("proc/self")).unwrap();
        let file = root.join("file");
        fs::write(&file, "").unwrap();
        let refused = survey(&system, &file, Allowed::default());
        assert!(matches!(refused, Err(Refusal::NotADirectory(_))));
        let refused = survey(&system, Path::new("/mnt/usb/store"), Allowed::default());
        assert!(
            matches!(refused, Err(Refusal::Unmounted(place)) if place == Path::new("/mnt/usb"))
        );
    }
}
