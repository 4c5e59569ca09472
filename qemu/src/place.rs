//! Destinations: file systems made on the host, mounted in the guest, read on the host
//! afterwards.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    host::{have_program, host},
};

/// Where the partition of a disk begins.
const PARTITION_BYTES: u64 = 1 << 20;

/// What a rescue disk is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// Linux's own.
    Ext4,
    /// Sticks and cards.
    Exfat,
    /// Windows; on the medium and on the host through ntfs-3g.
    Ntfs,
    /// With subvolumes and snapshots.
    Btrfs,
}

impl FileSystem {
    /// Makes an image of so many MiB with this file system in it.
    pub fn image(self, image: &Path, mib: u64) -> Result<()> {
        sparse(image, mib << 20)?;
        self.make(image)
    }

    /// Makes the image of a whole disk, with this file system of so many MiB in its first partition, as shops sell them.
    pub fn disk_image(self, image: &Path, mib: u64) -> Result<()> {
        sparse(image, PARTITION_BYTES + (mib << 20))?;
        // One MBR entry from sector 2048 on: type 7 is exFAT's and NTFS's, 0x83 Linux's.
        let mut table = [0; 512];
        table[446..454].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 0, 0]);
        if matches!(self, Self::Exfat | Self::Ntfs) {
            table[450] = 7;
        }
        let sectors = u32::try_from(mib << 11).unwrap_or(u32::MAX);
        table[454..458].copy_from_slice(&2048u32.to_le_bytes());
        table[458..462].copy_from_slice(&sectors.to_le_bytes());
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        File::options()
            .write(true)
            .open(image)
            .and_then(|file| file.write_all_at(&table, 0))
            .map_err(Error::host("cannot write", image))?;
        let device = attach(image, "rw", PARTITION_BYTES)?;
        self.make(Path::new(&device.0))
    }

    fn make(self, place: &Path) -> Result<()> {
        let (program, options): (&str, &[&str]) = match self {
            Self::Ext4 => ("mke2fs", &["-q", "-t", "ext4", "-L", "rescue"]),
            Self::Exfat => ("mkfs.exfat", &["-L", "rescue"]),
            Self::Ntfs => ("mkntfs", &["-q", "-F", "-Q", "-L", "rescue"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q", "-L", "rescue"]),
        };
        if !have_program(program) {
            return Err(Error::Missing(format!("there is no {program}")));
        }
        host(Command::new(program).args(options).arg(place), &[0])?;
        Ok(())
    }

    /// Mounts an image on the host, for reading only.
    pub fn mount(self, image: &Path) -> Result<Mounted> {
        self.mount_with(image, "ro", 0)
    }

    /// Mounts an image on the host, for writing too.
    pub fn mount_writable(self, image: &Path) -> Result<Mounted> {
        self.mount_with(image, "rw", 0)
    }

    /// Mounts the first partition of a whole disk's image on the host, for reading only.
    pub fn mount_partition(self, image: &Path) -> Result<Mounted> {
        self.mount_with(image, "ro", PARTITION_BYTES)
    }

    fn mount_with(self, image: &Path, mode: &str, offset: u64) -> Result<Mounted> {
        let at = image.with_extension("mounted");
        fs::create_dir_all(&at).map_err(Error::host("cannot make", &at))?;
        // The host's kernel need not know what sticks are formatted with.
        let program = match self {
            Self::Ext4 | Self::Btrfs => "mount",
            Self::Exfat => "mount.exfat-fuse",
            Self::Ntfs => "ntfs-3g",
        };
        if !have_program(program) {
            return Err(Error::Missing(format!("there is no {program}")));
        }
        // A device of its own, because not all of them take a file.
        let mounted = Mounted {
            at,
            device: attach(image, mode, offset)?,
        };
        let mut command = Command::new(program);
        command.args(["-o", mode, &mounted.device.0]);
        host(command.arg(&mounted.at), &[0])?;
        Ok(mounted)
    }
}

fn sparse(image: &Path, bytes: u64) -> Result<()> {
    File::create(image)
        .and_then(|file| file.set_len(bytes))
        .map_err(Error::host("cannot make", image))
}

/// A loop device over a file. Dropping it detaches it.
#[derive(Debug)]
struct Loop(String);

fn attach(image: &Path, mode: &str, offset: u64) -> Result<Loop> {
    let device = host(
        Command::new("losetup")
            .args(["--find", "--show", "--offset", &offset.to_string()])
            .args((mode == "ro").then_some("--read-only"))
            .arg(image),
        &[0],
    )?;
    Ok(Loop(String::from_utf8_lossy(&device).trim().to_owned()))
}

impl Drop for Loop {
    fn drop(&mut self) {
        // A driver in user space lets go of the device a moment after it was unmounted. A story that failed has nobody
        // left to tell.
        for _ in 0..50 {
            if host(Command::new("losetup").args(["--detach", &self.0]), &[0]).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A file system that the host has mounted. Dropping it unmounts it.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
    /// Detached after this was unmounted.
    device: Loop,
}

impl Mounted {
    /// Where.
    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A story that failed has nobody left to tell.
        let _ = host(Command::new("umount").arg(&self.at), &[0]);
        let _ = fs::remove_dir(&self.at);
    }
}
