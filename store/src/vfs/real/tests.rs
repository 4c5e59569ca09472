//! Tests of the real file system; those that mount something run as root only.

use std::ffi::CStr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountFlags, UnmountFlags};

use super::*;

/// The tree with and without `openat2`, both on `root`.
fn both_ways(root: &Path) -> [RealVfs; 2] {
    let with = RealVfs::open(root).unwrap();
    let mut without = RealVfs::open(root).unwrap();
    without.has_openat2 = false;
    [with, without]
}

fn content(vfs: &RealVfs, path: &str) -> Vec<u8> {
    let file = vfs.open(path, Access::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    super::super::read_exact_at(file.as_ref(), 0, &mut bytes).unwrap();
    bytes
}

fn fails<T>(result: io::Result<T>) -> io::Error {
    match result {
        Ok(_) => panic!("succeeded"),
        Err(e) => e,
    }
}

/// A mount that ends with the test.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` with a printed reason where this process may not mount.
    fn new(source: &Path, at: &Path, fs: &str, flags: MountFlags, data: &CStr) -> Option<Mounted> {
        match rustix::mount::mount(source, at, fs, flags, data) {
            Ok(()) => Some(Mounted(at.to_path_buf())),
            Err(e) if e == Errno::PERM || e == Errno::ACCESS => {
                eprintln!("skipped: mounting {fs} is not permitted ({e})");
                None
            }
            Err(e) => panic!("mount {fs}: {e}"),
        }
    }

    fn tmpfs(at: &Path, data: &CStr) -> Option<Mounted> {
        Mounted::new(Path::new("tmpfs"), at, "tmpfs", MountFlags::empty(), data)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn writes_read_back() {
    let dir = tempfile::tempdir().unwrap();
    for (n, vfs) in both_ways(dir.path()).into_iter().enumerate() {
        let sub = format!("d{n}");
        vfs.create_dir(&sub).unwrap();
        vfs.create_dir(&sub).unwrap();
        vfs.create_dir(&format!("{sub}/e")).unwrap();
        let path = format!("{sub}/e/f");
        let file = vfs.create_exclusive(&path).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_at(0, &[b"ab", b"", b"cde"]).unwrap();
        file.write_at(7, &[b"z"]).unwrap();
        file.sync().unwrap();
        vfs.sync_dir(&format!("{sub}/e")).unwrap();
        vfs.sync_dir("").unwrap();
        assert_eq!(content(&vfs, &path), b"abcde\0\0z");
        let mut buf = [0; 16];
        assert_eq!(file.read_at(6, &mut buf).unwrap(), 2);
        assert_eq!(file.read_at(100, &mut buf).unwrap(), 0);
        file.truncate(3).unwrap();
        file.truncate(4).unwrap();
        assert_eq!(content(&vfs, &path), b"abc\0");

        let again = fails(vfs.create_exclusive(&path));
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        vfs.rename(&path, &format!("{sub}/g")).unwrap();
        file.write_at(0, &[b"X"]).unwrap();
        assert_eq!(content(&vfs, &format!("{sub}/g")), b"Xbc\0");
        assert_eq!(fails(vfs.metadata(&path)).kind(), io::ErrorKind::NotFound);
        vfs.remove(&format!("{sub}/g")).unwrap();
        assert_eq!(
            fails(vfs.open(&format!("{sub}/g"), Access::Read)).kind(),
            io::ErrorKind::NotFound
        );
    }
}

#[test]
fn one_write_takes_more_parts_than_the_kernel_does() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = RealVfs::open(dir.path()).unwrap();
    let bytes: Vec<u8> = (0..3 * 1024 + 7).map(|i| i as u8).collect();
    let parts: Vec<&[u8]> = bytes.chunks(1).collect();
    vfs.create_exclusive("f")
        .unwrap()
        .write_at(0, &parts)
        .unwrap();
    assert_eq!(content(&vfs, "f"), bytes);
}

#[test]
fn a_file_opened_for_reading_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = RealVfs::open(dir.path()).unwrap();
    vfs.create_exclusive("f").unwrap();
    let file = vfs.open("f", Access::Read).unwrap();
    assert!(file.write_at(0, &[b"x"]).is_err());
    assert!(file.truncate(4).is_err());
    assert_eq!(content(&vfs, "f"), b"");
}

#[test]
fn nothing_leads_out_of_the_root() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("outside"), "x").unwrap();
    std::fs::create_dir(dir.path().join("root")).unwrap();
    for vfs in both_ways(&dir.path().join("root")) {
        let absolute = dir.path().join("outside");
        for path in [
            "../outside",
            "a/../../outside",
            absolute.to_str().unwrap(),
            "",
        ] {
            let errors = [
                fails(vfs.open(path, Access::Read)),
                fails(vfs.create_exclusive(path)),
                fails(vfs.create_dir(path)),
                fails(vfs.remove(path)),
                fails(vfs.rename(path, "b")),
                fails(vfs.lock(path)),
            ];
            for error in errors {
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}: {error}");
            }
        }
        assert!(vfs.list("..").is_err() && vfs.metadata("../outside").is_err());
    }
}

#[test]
fn symbolic_links_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("root/real/sub")).unwrap();
    let root = dir.path().join("root");
    std::fs::write(dir.path().join("outside"), "x").unwrap();
    std::fs::write(root.join("real/f"), "x").unwrap();
    std::fs::write(root.join("real/sub/f"), "x").unwrap();
    symlink("../outside", root.join("out")).unwrap();
    symlink("real/f", root.join("in")).unwrap();
    symlink("real", root.join("dir")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    for vfs in both_ways(&root) {
        for path in ["out", "in", "dangling", "dir", "dir/f", "dir/sub/f"] {
            for access in [Access::Read, Access::Write] {
                let error = fails(vfs.open(path, access));
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}: {error}");
                assert!(error.to_string().contains("symbolic link"), "{error}");
            }
            assert!(vfs.metadata(path).is_err(), "{path}");
            assert!(vfs.lock(path).is_err(), "{path}");
        }
        assert!(vfs.create_exclusive("dangling").is_err());
        assert!(vfs.create_exclusive("dir/new").is_err());
        assert!(vfs.create_dir("dir").is_err());
        assert!(vfs.list("dir").is_err());
        assert!(vfs.sync_dir("dir").is_err());
        let names: Vec<_> = vfs.list("").unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["real"]);
    }
    assert!(!root.join("nowhere").exists());
    assert!(!root.join("real/new").exists());
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_hanging() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    let started = Instant::now();
    for vfs in both_ways(dir.path()) {
        for (path, kind) in [("fifo", "FIFO"), ("socket", "socket"), ("d", "directory")] {
            let errors = [
                fails(vfs.open(path, Access::Read)),
                fails(vfs.open(path, Access::Write)),
                fails(vfs.lock(path)),
                fails(vfs.rename(path, "elsewhere")),
            ];
            for error in errors {
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
                assert!(error.to_string().contains(kind), "{error}");
            }
            assert!(vfs.create_exclusive(path).is_err());
        }
        assert!(vfs.metadata("fifo").is_err());
        let names: Vec<_> = vfs.list("").unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["d"]);
        assert!(vfs.create_dir("fifo").is_err());
        assert!(vfs.remove("d").is_err());
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn lists_are_sorted_and_tell_lengths() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = RealVfs::open(dir.path()).unwrap();
    vfs.create_dir("m").unwrap();
    for (name, bytes) in [("z", "123"), ("a", ""), ("m/inner", "1")] {
        let file = vfs.create_exclusive(name).unwrap();
        file.write_at(0, &[bytes.as_bytes()]).unwrap();
    }
    let found: Vec<_> = vfs.list("").unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|e| (e.name.as_str(), e.metadata.is_dir, e.metadata.len))
        .collect();
    assert_eq!(found, [("a", false, 0), ("m", true, 0), ("z", false, 3)]);
    assert_eq!(vfs.list("m").unwrap().len(), 1);
    assert_eq!(fails(vfs.list("no")).kind(), io::ErrorKind::NotFound);
    assert_eq!(fails(vfs.list("z")).kind(), io::ErrorKind::NotADirectory);
    let root = vfs.metadata("").unwrap();
    assert!(root.is_dir && root.len == 0);
    assert_eq!(vfs.metadata("z").unwrap().len, 3);
    assert!(vfs.metadata("m").unwrap().is_dir);
}

#[test]
fn a_lock_has_one_holder_and_dies_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = RealVfs::open(dir.path()).unwrap();
    let other = RealVfs::open(dir.path()).unwrap();
    let held = vfs.lock("lock").unwrap();
    assert!(held.is_some());
    assert!(vfs.lock("lock").unwrap().is_none());
    assert!(other.lock("lock").unwrap().is_none());
    assert!(other.lock("another").unwrap().is_some());
    // Another process cannot have it either, and does not inherit it.
    let taken = |wanted: &str| {
        let status = Command::new("flock")
            .args(["--nonblock", "--conflict-exit-code", "9"])
            .arg(dir.path().join("lock"))
            .args(["true"])
            .status()
            .unwrap();
        assert_eq!(status.code().unwrap() == 9, wanted == "taken");
    };
    taken("taken");
    drop(held);
    taken("free");
    assert!(other.lock("lock").unwrap().is_some());
}

#[test]
fn create_makes_missing_parents() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b/c");
    RealVfs::create(&root)
        .unwrap()
        .create_exclusive("f")
        .unwrap();
    assert!(root.join("f").is_file());
    RealVfs::create(&root)
        .unwrap()
        .open("f", Access::Read)
        .unwrap();
    let file = fails(RealVfs::create(&root.join("f")));
    assert_eq!(file.kind(), io::ErrorKind::NotADirectory);
    assert!(RealVfs::create(&root.join("f/g")).is_err());
    let missing = fails(RealVfs::open(&dir.path().join("none")));
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_root_stays_itself_when_its_path_moves() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let vfs = RealVfs::create(&root).unwrap();
    std::fs::rename(&root, dir.path().join("moved")).unwrap();
    std::fs::create_dir(&root).unwrap();
    vfs.create_exclusive("f").unwrap();
    assert!(dir.path().join("moved/f").exists() && !root.join("f").exists());
}

#[test]
fn a_full_filesystem_says_so_after_a_short_write() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::tmpfs(dir.path(), c"size=64k") else {
        return;
    };
    let vfs = RealVfs::open(dir.path()).unwrap();
    let before = vfs.statfs().unwrap();
    assert_eq!(
        (before.fs_type, before.total_bytes),
        (0x0102_1994, 64 << 10)
    );
    assert_eq!(before.available_bytes, 64 << 10);
    assert!(!before.read_only);
    let file = vfs.create_exclusive("f").unwrap();
    let half = vec![7u8; 40 << 10];
    let error = fails(file.write_at(0, &[&half, &half]));
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert_eq!(
        file.len().unwrap(),
        64 << 10,
        "the write was not a short one"
    );
    assert_eq!(vfs.statfs().unwrap().available_bytes, 0);
}

#[test]
fn a_read_only_mount_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let (rw, ro) = (dir.path().join("rw"), dir.path().join("ro"));
    RealVfs::create(&ro).unwrap();
    let vfs = RealVfs::create(&rw).unwrap();
    vfs.create_exclusive("f")
        .unwrap()
        .write_at(0, &[b"abc"])
        .unwrap();
    let Some(_mounted) = Mounted::new(&rw, &ro, "", MountFlags::BIND, c"") else {
        return;
    };
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(&ro, flags, c"").unwrap();
    for vfs in both_ways(&ro) {
        assert_eq!(content(&vfs, "f"), b"abc");
        assert!(vfs.statfs().unwrap().read_only);
        let errors = [
            fails(vfs.open("f", Access::Write)),
            fails(vfs.create_exclusive("g")),
            fails(vfs.create_dir("d")),
            fails(vfs.remove("f")),
            fails(vfs.rename("f", "g")),
            fails(vfs.lock("lock")),
        ];
        for error in errors {
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem, "{error}");
        }
    }
}

#[test]
fn a_mount_below_the_root_is_not_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = RealVfs::open(dir.path()).unwrap();
    vfs.create_dir("d").unwrap();
    let Some(_mounted) = Mounted::tmpfs(&dir.path().join("d"), c"size=64k") else {
        return;
    };
    for vfs in both_ways(dir.path()) {
        let errors = [fails(vfs.create_exclusive("d/f")), fails(vfs.list("d"))];
        for error in errors {
            assert_eq!(error.kind(), io::ErrorKind::CrossesDevices, "{error}");
        }
    }
}
