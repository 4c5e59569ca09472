//! Against real loop devices, which only root can make; elsewhere every test
//! says that it was skipped.

mod failing;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use super::*;
use crate::buffer::{Buffer, BufferPool};
use crate::device::{OpenOptions, open_source};
use crate::inventory::{UsageKind, source_contains_path};

/// A loop device over a file in a directory of its own; both go with it.
struct Loop {
    path: PathBuf,
    image: PathBuf,
    mounted: Vec<PathBuf>,
    directory: tempfile::TempDir,
}

impl Loop {
    /// `None`, with the reason printed, where loop devices cannot be made.
    fn over(bytes: &[u8], options: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root makes loop devices");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("disk.img");
        fs::write(&image, bytes).unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .args(options)
            .arg(&image)
            .output();
        let output = match output {
            Ok(output) if output.status.success() => output,
            other => {
                println!("skipped: no loop device to be had: {other:?}");
                return None;
            }
        };
        Some(Self {
            path: PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()),
            image,
            mounted: Vec::new(),
            directory,
        })
    }

    fn with_ext4() -> Option<Self> {
        let loop_device = Self::over(&vec![0; 4 << 20], &[])?;
        let made = Command::new("mkfs.ext4")
            .arg("-q")
            .arg(&loop_device.path)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            println!("skipped: no mkfs.ext4");
            return None;
        }
        Some(loop_device)
    }

    fn mount(&mut self, options: &str) -> Option<PathBuf> {
        let place = self.directory.path().join("mounted");
        fs::create_dir_all(&place).unwrap();
        let status = Command::new("mount")
            .args(["-o", options])
            .arg(&self.path)
            .arg(&place)
            .status();
        if !status.is_ok_and(|status| status.success()) {
            println!("skipped: cannot mount here");
            return None;
        }
        self.mounted.push(place.clone());
        Some(place)
    }

    fn unmount(&mut self) {
        for place in self.mounted.drain(..) {
            let _ = Command::new("umount").arg(place).status();
        }
    }

    fn detach(&self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.path)
            .status();
    }

    fn open(&self) -> (BlockDevice, Vec<Warning>) {
        BlockDevice::open(&self.path, &OpenOptions::default()).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.unmount();
        self.detach();
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 512 * 7 + i) as u8).collect()
}

fn buffer(len: usize) -> Buffer {
    BufferPool::new(len, 1).get()
}

#[test]
fn a_loop_device_reads_as_its_file() {
    let bytes = pattern(1 << 20);
    let Some(disk) = Loop::over(&bytes, &[]) else {
        return;
    };
    let (device, warnings) = disk.open();
    assert_eq!(warnings, []);
    assert_eq!(device.geometry().size_bytes, 1 << 20);
    assert_eq!(device.geometry().logical_sector_bytes, 512);
    assert_eq!(device.identity().transport.as_deref(), Some("loop"));
    let image = fs::canonicalize(&disk.image).unwrap();
    assert_eq!(device.identity().backing_file.as_deref(), image.to_str());
    let mut buf = buffer(1 << 20);
    device.read_at(0, &mut buf).unwrap();
    assert!(buf[..] == bytes[..]);
    let mut buf = buffer(512);
    device.read_at((1 << 20) - 512, &mut buf).unwrap();
    assert_eq!(buf[..], bytes[(1 << 20) - 512..]);
    assert_eq!(device.read_at(1 << 20, &mut buf), Err(MISUSE));
    assert_eq!(
        device.read_at(1, &mut buf),
        Err(ReadFailure::Fatal { errno: 22 })
    );
    assert!(device.alive());
    assert!(!device.write_protected());
}

#[test]
fn it_is_held_exclusively_while_open() {
    let Some(disk) = Loop::over(&pattern(1 << 20), &[]) else {
        return;
    };
    let (first, _) = disk.open();
    let (_second, warnings) = disk.open();
    let path = disk.path.to_str().unwrap().to_owned();
    assert_eq!(warnings, [Warning::HeldBySomething { path }]);
    drop(first);
    assert_eq!(disk.open().1, []);
}

#[test]
fn a_sector_size_can_be_asked_for() {
    let Some(disk) = Loop::over(&pattern((1 << 20) + 512), &[]) else {
        return;
    };
    let with = |bytes| OpenOptions {
        sector_bytes: Some(bytes),
        ..OpenOptions::default()
    };
    let (device, warnings) = BlockDevice::open(&disk.path, &with(4096)).unwrap();
    assert_eq!(device.geometry().logical_sector_bytes, 4096);
    assert_eq!(
        warnings,
        [Warning::PartialSector {
            size_bytes: (1 << 20) + 512,
            sector_bytes: 4096,
            tail_bytes: 512
        }]
    );
    let mut tail = buffer(512);
    device.read_at(1 << 20, &mut tail).unwrap();
    assert_eq!(tail[..], pattern((1 << 20) + 512)[1 << 20..]);
    let error = BlockDevice::open(&disk.path, &with(1000)).unwrap_err();
    assert!(matches!(error, OpenError::SectorSize { .. }), "{error}");
}

#[test]
fn a_size_of_no_whole_sectors_loses_the_rest_alone() {
    let bytes = pattern(4096 * 10 + 512);
    let Some(disk) = Loop::over(&bytes, &["--sector-size", "4096"]) else {
        return;
    };
    let (device, warnings) = disk.open();
    assert_eq!(device.geometry().logical_sector_bytes, 4096);
    assert_eq!(warnings.len(), 1);
    let mut whole = buffer(4096 * 10);
    device.read_at(0, &mut whole).unwrap();
    assert!(whole[..] == bytes[..4096 * 10]);
    // Kernels differ in whether they can address it; it is read or unreadable,
    // never fatal, never gone.
    let mut tail = buffer(512);
    match device.read_at(4096 * 10, &mut tail) {
        Ok(()) => assert_eq!(tail[..], bytes[4096 * 10..]),
        Err(failure) => assert!(
            matches!(failure, ReadFailure::Unreadable { .. }),
            "{failure:?}"
        ),
    }
}

#[test]
fn without_direct_io_it_reads_and_warns() {
    let bytes = pattern(1 << 20);
    let Some(disk) = Loop::over(&bytes, &[]) else {
        return;
    };
    let (device, warnings) =
        BlockDevice::open_with(&disk.path, &OpenOptions::default(), OFlags::empty()).unwrap();
    let path = disk.path.to_str().unwrap().to_owned();
    assert_eq!(warnings, [Warning::Buffered { path }]);
    assert_eq!(device.geometry().physical_sector_bytes, 4096);
    let mut buf = buffer(1 << 20);
    device.read_at(0, &mut buf).unwrap();
    assert!(buf[..] == bytes[..]);
}

#[test]
fn a_mount_that_may_write_refuses_the_device() {
    let Some(mut disk) = Loop::with_ext4() else {
        return;
    };
    let Some(place) = disk.mount("rw") else {
        return;
    };
    let error = BlockDevice::open(&disk.path, &OpenOptions::default()).unwrap_err();
    let OpenError::InUse { by, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(
        by[0].kind,
        UsageKind::Mounted {
            mount_point: place.clone(),
            fs_type: "ext4".to_owned(),
            read_only: false
        }
    );
    assert_eq!(error.remedies(), [format!("umount {}", place.display())]);
    // The file behind it is as much in use.
    let error = open_source(&disk.image, &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");

    let found = |source: &Path| {
        let system = SystemPaths::default();
        source_contains_path(&system, source, &place.join("store"))
    };
    assert_eq!(found(&disk.path).unwrap().chain.len(), 2);
    assert_eq!(found(&disk.image).unwrap().chain.len(), 3);

    disk.unmount();
    assert_eq!(disk.open().1, []);
}

#[test]
fn a_mount_that_only_reads_is_a_warning() {
    let Some(mut disk) = Loop::with_ext4() else {
        return;
    };
    let Some(place) = disk.mount("ro") else {
        return;
    };
    let (device, warnings) = disk.open();
    let [Warning::InUse(usage)] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert_eq!(
        usage.kind,
        UsageKind::Mounted {
            mount_point: place,
            fs_type: "ext4".to_owned(),
            read_only: true
        }
    );
    assert!(device.read_at(0, &mut buffer(4096)).is_ok());
}

#[test]
fn a_device_without_a_medium_is_empty() {
    let Some(disk) = Loop::over(&[], &[]) else {
        return;
    };
    let error = BlockDevice::open(&disk.path, &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Empty { .. }), "{error}");
}

#[test]
fn a_shrunken_device_is_gone_and_nothing_is_bad() {
    let Some(disk) = Loop::over(&pattern(1 << 20), &[]) else {
        return;
    };
    let (device, _) = disk.open();
    let mut buf = buffer(4096);
    assert_eq!(device.read_at(1 << 19, &mut buf), Ok(()));
    let image = File::options().write(true).open(&disk.image).unwrap();
    image.set_len(0).unwrap();
    let status = Command::new("losetup")
        .arg("--set-capacity")
        .arg(&disk.path)
        .status();
    assert!(status.unwrap().success());
    assert!(!device.alive());
    let outcome = device.read_at(1 << 19, &mut buf);
    assert_eq!(outcome, Err(ReadFailure::Gone { errno: 0 }));
}

/// The device stays, with its size, and what is behind it shrinks: the kernel
/// answers EIO, and only the file betrays it.
#[test]
fn a_loop_device_whose_file_is_cut_off_is_gone() {
    let Some(disk) = Loop::over(&pattern(1 << 20), &["--direct-io=on"]) else {
        return;
    };
    let (device, _) = disk.open();
    let image = File::options().write(true).open(&disk.image).unwrap();
    image.set_len(4096).unwrap();
    assert!(!device.alive());
    match device.read_at(1 << 19, &mut buffer(4096)) {
        Err(failure) => assert!(matches!(failure, ReadFailure::Gone { .. }), "{failure:?}"),
        Ok(()) => println!("this kernel reads zeros behind the end of the file"),
    }
}

#[test]
fn a_device_that_became_another_is_not_alive() {
    let Some(disk) = Loop::over(&pattern(1 << 20), &[]) else {
        return;
    };
    let (device, _) = disk.open();
    let mut other = Presence::note(
        &SystemPaths::default(),
        BlockNode::by_path(&SystemPaths::default(), &disk.path).as_ref(),
    );
    assert!(other.lasts() && device.alive());
    other.devices[0].1 = Some("0".to_owned());
    assert!(!other.lasts(), "another sequence number is another disk");
}

#[test]
fn types_are_told_apart_by_open_source() {
    let options = OpenOptions::default();
    let error = open_source(Path::new("/nowhere/at/all"), &options).unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/at/all does not exist");
    let error = open_source(Path::new("/dev/null"), &options).unwrap_err();
    assert!(matches!(
        error,
        OpenError::NotASource {
            kind: NotASource::CharacterDevice,
            ..
        }
    ));
    let error = BlockDevice::open(Path::new("/dev/null"), &options).unwrap_err();
    assert!(matches!(error, OpenError::NotASource { .. }));
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all_at(b"image", 0).unwrap();
    let opened = open_source(file.path(), &options).unwrap();
    assert_eq!(opened.source.geometry().size_bytes, 5);
    let Some(disk) = Loop::over(&pattern(8192), &[]) else {
        return;
    };
    let opened = open_source(&disk.path, &options).unwrap();
    assert_eq!(opened.source.geometry().size_bytes, 8192);
}

#[test]
fn a_scsi_disk_that_was_given_up_does_not_work() {
    let root = tempfile::tempdir().unwrap();
    let device = root.path().join("sys/devices/host0/block/sdz");
    fs::create_dir_all(device.join("device")).unwrap();
    fs::write(device.join("dev"), "8:400\n").unwrap();
    let class = root.path().join("sys/class/block");
    fs::create_dir_all(&class).unwrap();
    std::os::unix::fs::symlink(&device, class.join("sdz")).unwrap();
    let node = BlockNode::by_name(&SystemPaths::below(root.path()), "sdz").unwrap();
    for (state, expected) in [
        ("running", true),
        ("blocked", true),
        ("offline", false),
        ("dead", false),
    ] {
        fs::write(device.join("device/state"), format!("{state}\n")).unwrap();
        assert_eq!(works(&node), expected, "{state}");
    }
    fs::remove_dir_all(&device).unwrap();
    assert!(works(&node), "no state to be had is no verdict");
    assert_eq!(node.attribute("dev"), None);
}

#[test]
fn a_nonsensical_physical_size_is_not_believed() {
    assert_eq!(physical_sector_bytes(512, 4096, true), 4096);
    assert_eq!(physical_sector_bytes(4096, 512, true), 4096);
    assert_eq!(physical_sector_bytes(512, 1 << 24, true), 512);
    assert_eq!(physical_sector_bytes(512, 0, true), 512);
    assert_eq!(physical_sector_bytes(512, 520, true), 512);
    assert_eq!(physical_sector_bytes(512, 512, false), 4096);
}
