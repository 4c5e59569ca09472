//! The only unsafe code of the crate: block device ioctls that rustix has no
//! safe form of, and memory aligned as direct I/O wants it.
//!
//! Everything is exposed as safe functions and types. Nothing here is kept on
//! disk, so a crash leaves nothing.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use rustix::io::{Errno, Result};
use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};

/// Alignment of [`AlignedBytes`]: the largest that Linux asks of direct I/O on
/// any device with a page of 4 KiB (open(2), `O_DIRECT`).
pub const BUFFER_ALIGN: usize = 4096;

/// `_IOR(0x12, 114, size_t)` of `linux/fs.h`; the kernel writes a `u64` whatever `size_t` is.
const BLKGETSIZE64: Opcode = opcode::read::<usize>(0x12, 114);
/// `_IOR(0x15, 0, struct fsuuid2)` of `linux/fs.h`, since Linux 6.9.
const FS_IOC_GETFSUUID: Opcode = opcode::read::<FsUuid>(0x15, 0);
/// `_IOR('f', 44, struct fsuuid)` of `fs/ext4/ext4.h`, since Linux 6.0. The structure ends with as many bytes as its first field
/// says, which its size does not count.
const EXT4_IOC_GETFSUUID: Opcode = opcode::read::<[u32; 2]>(b'f', 44);
/// `_IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)` of `linux/btrfs.h`.
const BTRFS_IOC_FS_INFO: Opcode = opcode::read::<BtrfsInfo>(0x94, 31);
/// `_IOR('X', 100, struct xfs_fsop_geom_v1)` of `fs/xfs/libxfs/xfs_fs.h`.
const XFS_IOC_FSGEOMETRY_V1: Opcode = opcode::read::<XfsGeometry>(b'X', 100);
/// `_IO(0x12, 94)` of `linux/fs.h`; the kernel writes an `int`.
const BLKROGET: Opcode = opcode::none(0x12, 94);

/// `struct fsuuid2` of `linux/fs.h`.
#[repr(C)]
struct FsUuid {
    len: u8,
    uuid: [u8; 16],
}

/// `struct fsuuid` of `fs/ext4/ext4.h` with room for a UUID.
#[repr(C)]
struct Ext4Uuid {
    len: u32,
    flags: u32,
    uuid: [u8; 16],
}

/// `struct btrfs_ioctl_fs_info_args` of `linux/btrfs.h`.
#[repr(C)]
struct BtrfsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u64; 124],
}

/// `struct xfs_fsop_geom_v1` of `fs/xfs/libxfs/xfs_fs.h`.
#[repr(C)]
struct XfsGeometry {
    sizes: [u32; 8],
    blocks: [u64; 4],
    uuid: [u8; 16],
    rest: [u64; 4],
}

/// UUID of the filesystem that an open file lies on, which no device has to be asked for. Errors: `ENOTTY` where the filesystem has
/// no UUID of 16 bytes, or the kernel is older than 6.9 and it is neither ext4, btrfs nor XFS.
pub fn filesystem_uuid(file: impl AsFd) -> Result<[u8; 16]> {
    let file = file.as_fd();
    any_uuid(file)
        .or_else(|_| ext4_uuid(file))
        .or_else(|_| btrfs_uuid(file))
        .or_else(|_| xfs_uuid(file))
}

/// What a kernel since 6.9 says of any filesystem.
fn any_uuid(file: BorrowedFd<'_>) -> Result<[u8; 16]> {
    #[expect(unsafe_code, reason = "rustix has no FS_IOC_GETFSUUID")]
    // SAFETY: the kernel writes one `struct fsuuid2` (fs/ioctl.c, `ioctl_getfsuuid`), which is the type that the getter provides
    // room for; every bit pattern is one of its values.
    let found = unsafe { ioctl(file, Getter::<FS_IOC_GETFSUUID, FsUuid>::new()) }?;
    match usize::from(found.len) == found.uuid.len() {
        true => Ok(found.uuid),
        false => Err(Errno::NOTTY),
    }
}

fn ext4_uuid(file: BorrowedFd<'_>) -> Result<[u8; 16]> {
    let mut found = Ext4Uuid {
        len: 16,
        flags: 0,
        uuid: [0; 16],
    };
    #[expect(unsafe_code, reason = "rustix has no EXT4_IOC_GETFSUUID")]
    // SAFETY: the kernel reads both lengths and, as `len` says, writes 16 bytes behind them and `len` itself (fs/ext4/ioctl.c,
    // `ext4_ioctl_getuuid`): all of it within `found`, of which every bit pattern is a value.
    unsafe { ioctl(file, Updater::<EXT4_IOC_GETFSUUID, _>::new(&mut found)) }?;
    match (found.len, found.flags) {
        (16, 0) => Ok(found.uuid),
        _ => Err(Errno::NOTTY),
    }
}

fn btrfs_uuid(file: BorrowedFd<'_>) -> Result<[u8; 16]> {
    let mut found = BtrfsInfo {
        max_id: 0,
        num_devices: 0,
        fsid: [0; 16],
        rest: [0; 124],
    };
    #[expect(unsafe_code, reason = "rustix has no BTRFS_IOC_FS_INFO")]
    // SAFETY: the kernel reads and writes one `struct btrfs_ioctl_fs_info_args` (fs/btrfs/ioctl.c, `btrfs_ioctl_fs_info`), of
    // which every bit pattern is a value.
    unsafe { ioctl(file, Updater::<BTRFS_IOC_FS_INFO, _>::new(&mut found)) }?;
    match found.num_devices {
        0 => Err(Errno::NOTTY),
        _ => Ok(found.fsid),
    }
}

fn xfs_uuid(file: BorrowedFd<'_>) -> Result<[u8; 16]> {
    #[expect(unsafe_code, reason = "rustix has no XFS_IOC_FSGEOMETRY_V1")]
    // SAFETY: the kernel writes one `struct xfs_fsop_geom_v1` (fs/xfs/xfs_ioctl.c, `xfs_ioc_fsgeometry`), which is the type that
    // the getter provides room for; every bit pattern is one of its values.
    let found = unsafe { ioctl(file, Getter::<XFS_IOC_FSGEOMETRY_V1, XfsGeometry>::new()) }?;
    Ok(found.uuid)
}

/// Size of a block device in bytes; 0 when there is no medium or the device is
/// gone. Errors: `ENOTTY` when `device` is no block device.
pub fn device_size_bytes(device: impl AsFd) -> Result<u64> {
    #[expect(unsafe_code, reason = "rustix has no safe BLKGETSIZE64")]
    // SAFETY: the kernel's BLKGETSIZE64 writes exactly one u64 (block/ioctl.c,
    // `put_u64`), which is the type that the getter provides room for.
    unsafe {
        ioctl(device, Getter::<BLKGETSIZE64, u64>::new())
    }
}

/// Whether the kernel refuses writes to a block device. Errors: `ENOTTY` when
/// `device` is no block device.
pub fn device_is_read_only(device: impl AsFd) -> Result<bool> {
    #[expect(unsafe_code, reason = "rustix has no safe BLKROGET")]
    // SAFETY: the kernel's BLKROGET writes exactly one int (block/ioctl.c,
    // `put_int`), which is the type that the getter provides room for.
    let read_only = unsafe { ioctl(device, Getter::<BLKROGET, i32>::new()) }?;
    Ok(read_only != 0)
}

/// Logical sector size of a block device in bytes (`BLKSSZGET`).
pub fn device_logical_sector_bytes(device: impl AsFd) -> Result<u32> {
    rustix::fs::ioctl_blksszget(device)
}

/// Physical sector size of a block device in bytes, as the device claims it (`BLKPBSZGET`).
pub fn device_physical_sector_bytes(device: impl AsFd) -> Result<u32> {
    rustix::fs::ioctl_blkpbszget(device)
}

/// Bytes at an address that is a multiple of [`BUFFER_ALIGN`]: zeroed, and so
/// faulted in, once when allocated.
pub struct AlignedBytes {
    start: NonNull<u8>,
    layout: Layout,
}

impl AlignedBytes {
    /// Allocates `len` bytes. Aborts the process when memory is exhausted, as
    /// `Vec` does.
    ///
    /// # Panics
    /// When `len` is 0 or beyond `isize::MAX`.
    pub fn new(len: usize) -> Self {
        assert!(len > 0, "an aligned buffer has at least one byte");
        let layout = Layout::from_size_align(len, BUFFER_ALIGN)
            .expect("a buffer is smaller than isize::MAX");
        #[expect(unsafe_code, reason = "std has no safe aligned allocation")]
        // SAFETY: the layout's size is not 0, as asserted above.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Self { start, layout },
            None => handle_alloc_error(layout),
        }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        #[expect(unsafe_code, reason = "a slice over an aligned allocation")]
        // SAFETY: `start` points to `layout.size()` bytes that were initialised
        // by `alloc_zeroed`, are owned by `self` alone, and live as long as it.
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size())
        }
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        #[expect(unsafe_code, reason = "a slice over an aligned allocation")]
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size())
        }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "frees what `new` allocated")]
        // SAFETY: `start` came from `alloc_zeroed` with this very layout and is
        // freed once, here.
        unsafe {
            dealloc(self.start.as_ptr(), self.layout);
        }
    }
}

#[expect(unsafe_code, reason = "a raw pointer is not Send by itself")]
// SAFETY: the allocation is owned by this value alone and tied to no thread.
unsafe impl Send for AlignedBytes {}

#[expect(unsafe_code, reason = "a raw pointer is not Sync by itself")]
// SAFETY: through a shared reference the bytes can only be read.
unsafe impl Sync for AlignedBytes {}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn aligned_zeroed_and_writable() {
        for len in [1, 512, 4096, 1 << 20] {
            let mut bytes = AlignedBytes::new(len);
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes.as_ptr() as usize % BUFFER_ALIGN, 0);
            assert!(bytes.iter().all(|&b| b == 0));
            bytes.fill(0xa5);
            assert!(bytes.iter().all(|&b| b == 0xa5));
        }
    }

    type Asks = fn(BorrowedFd<'_>) -> Result<[u8; 16]>;

    /// A filesystem in a file, mounted as long as this is there.
    struct Mounted(tempfile::TempDir);

    impl Mounted {
        /// None where this process may not mount, or there is no such program.
        fn new(program: &str, arguments: &[&str]) -> Option<Self> {
            let room = tempfile::tempdir().unwrap();
            let (image, at) = (room.path().join("image"), room.path().join("at"));
            let file = std::fs::File::create(&image).unwrap();
            file.set_len(320 << 20).unwrap();
            std::fs::create_dir(&at).unwrap();
            let done =
                |command: &mut Command| command.status().is_ok_and(|status| status.success());
            let is_there = rustix::process::geteuid().is_root()
                && done(Command::new(program).args(arguments).arg(&image))
                && done(
                    Command::new("mount")
                        .args(["-o", "loop"])
                        .arg(&image)
                        .arg(&at),
                );
            is_there.then_some(Self(room))
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount")
                .arg(self.0.path().join("at"))
                .status();
        }
    }

    /// Each filesystem's own interface says what it was made with, and so do all of them together; the others' keep silent.
    #[test]
    fn filesystems_tell_their_uuids() {
        let uuid: [u8; 16] = std::array::from_fn(|nth| 0xa0 | nth as u8);
        let text = "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf";
        let of_xfs = format!("uuid={text}");
        let kinds: [(&str, [&str; 3], Asks); 3] = [
            ("mkfs.ext4", ["-q", "-U", text], ext4_uuid),
            ("mkfs.btrfs", ["-q", "-U", text], btrfs_uuid),
            ("mkfs.xfs", ["-q", "-m", &of_xfs], xfs_uuid),
        ];
        for (program, arguments, own) in &kinds {
            let Some(mounted) = Mounted::new(program, arguments) else {
                println!("skipped: needs root, loop devices and {program}");
                continue;
            };
            let file = std::fs::File::open(mounted.0.path().join("at")).unwrap();
            assert_eq!(own(file.as_fd()), Ok(uuid), "{program}");
            assert_eq!(filesystem_uuid(&file), Ok(uuid), "{program}");
            for (other, _, asks) in &kinds {
                assert_eq!(
                    asks(file.as_fd()).is_ok(),
                    other == program,
                    "{other} on {program}"
                );
            }
        }
    }

    #[test]
    fn a_regular_file_has_no_device_size() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(device_size_bytes(&file), Err(rustix::io::Errno::NOTTY));
        assert_eq!(device_is_read_only(&file), Err(rustix::io::Errno::NOTTY));
    }
}
