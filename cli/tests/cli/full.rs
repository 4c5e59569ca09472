//! Destinations that are full before a capture, at any write of it, or cannot be written
//! at all; and file systems that take no long files. Without root these tests say that
//! they did nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::capture::{capture, object, refused};
use super::place::{Mount, json, skipped};
use super::programs::{asl, shown};

/// A store on a file system of which the test decides how much is free.
struct Tight {
    mount: Mount,
    images: tempfile::TempDir,
}

impl Tight {
    fn new() -> Self {
        let tight = Self {
            mount: Mount::of(&["-t", "tmpfs", "-o", "size=100m", "none"]),
            images: tempfile::tempdir().unwrap(),
        };
        let made = asl(&["store", "init", &tight.mount.path("store"), "--ephemeral"]);
        assert!(made.status.success(), "{}", shown(&made));
        tight
    }

    fn store(&self) -> PathBuf {
        self.mount.at.join("store")
    }

    /// Leaves exactly so much free.
    fn leave(&self, bytes: u64) {
        let filler = self.mount.at.join("filler");
        let _ = fs::remove_file(&filler);
        let stat = rustix::fs::statvfs(&self.mount.at).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        fs::write(&filler, vec![0; (free - bytes) as usize]).unwrap();
        let stat = rustix::fs::statvfs(&self.mount.at).unwrap();
        assert!(stat.f_bavail * stat.f_frsize <= bytes);
    }

    fn make_room(&self) {
        fs::remove_file(self.mount.at.join("filler")).unwrap();
    }

    /// An image that nothing in the store can stand for.
    fn image(&self, name: &str, len: usize) -> PathBuf {
        let path = self.images.path().join(name);
        let mut bytes = vec![0; len];
        let mut noise = blake3::Hasher::new().update(name.as_bytes()).finalize_xof();
        noise.fill(&mut bytes);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn assert_whole(&self) {
        let verify = asl(&["store", "verify", "--store", self.store().to_str().unwrap()]);
        assert!(verify.status.success(), "{}", shown(&verify));
    }
}

/// Covers K4, B10: a destination without any room, and then one with a little more each
/// time, until everything fits: up to the very last write, nothing is lost and the
/// same command goes on.
#[test]
fn a_capture_survives_a_lack_of_room_at_any_write() {
    if skipped() {
        return;
    }
    const IMAGE: usize = 512 << 10;
    let tight = Tight::new();
    let (mut failed, mut complete) = (0, 0);
    let step = if std::env::var_os("ASL_TEST_ALL").is_some() {
        4 << 10
    } else {
        36 << 10
    };
    for room in (0..).step_by(step) {
        let image = tight.image(&format!("{room}"), IMAGE);
        let run = || {
            let mut command = capture(&image, &tight.store(), &["--json"]);
            command.args(["--compression", "none"]).output().unwrap()
        };
        tight.leave(room);
        let output = run();
        let result = object(&output);
        match output.status.code() {
            Some(0) => complete += 1,
            Some(1) => {
                failed += 1;
                let hint = result["hint"].as_str().unwrap();
                assert!(hint.contains("room"), "{result}");
                let full = result["stopped"] == "destination-full"
                    || result["causes"][0].as_str().unwrap().contains("full");
                assert!(full, "{result}");
            }
            _ => panic!("with {room} bytes free: {}", shown(&output)),
        }
        tight.assert_whole();
        tight.make_room();
        if output.status.code() == Some(1) {
            let output = run();
            assert!(output.status.success(), "{}", shown(&output));
            let again = object(&output);
            assert_eq!(again["complete"], true);
            if let Some(id) = result["capture"].as_str() {
                assert_eq!(again["capture"], id);
            }
        }
        if complete == 3 {
            break;
        }
    }
    assert!(failed > 3, "{failed}");
    let store = tight.store();
    let list = asl(&["captures", "--json", "--store", store.to_str().unwrap()]);
    for capture in json(&list)["captures"].as_array().unwrap() {
        assert_eq!(capture["complete"], true, "{capture}");
    }
    tight.assert_whole();
}

#[test]
fn a_capture_into_a_read_only_store_is_refused() {
    if skipped() {
        return;
    }
    let tight = Tight::new();
    let image = tight.image("image", 1 << 20);
    let done = capture(&image, &tight.store(), &["--json"])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", shown(&done));
    let id = object(&done)["capture"].as_str().unwrap().to_owned();
    let remount = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&tight.mount.at)
        .status();
    assert!(remount.unwrap().success());
    let error = refused(&mut capture(&image, &tight.store(), &["--new"]), 1);
    assert!(
        error["hint"].as_str().unwrap().contains("remount,rw"),
        "{error}"
    );
    // Nor is anything else written there, but everything can be read.
    let store = tight.store();
    let store = store.to_str().unwrap();
    let exported = asl(&[
        "export",
        &id,
        &tight.mount.path("out"),
        "--json",
        "--store",
        store,
    ]);
    assert_eq!(exported.status.code(), Some(1), "{}", shown(&exported));
    assert!(
        json(&exported)["hint"]
            .as_str()
            .unwrap()
            .contains("remount,rw")
    );
    let out = tight.images.path().join("out");
    let exported = asl(&["export", &id, out.to_str().unwrap(), "--store", store]);
    assert!(exported.status.success(), "{}", shown(&exported));
    assert!(fs::read(out).unwrap() == fs::read(image).unwrap());
}

/// An image longer than any file on the file system that it is exported to.
#[test]
fn an_export_to_a_file_system_without_long_files_says_so() {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let small = dir.path().join("small.img");
    fs::File::create(&small).unwrap().set_len(64 << 20).unwrap();
    // With blocks of 1 KiB, ext2 takes files up to 16 GiB.
    let made = Command::new("mkfs.ext2")
        .args(["-q", "-b", "1024"])
        .arg(&small)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no mkfs.ext2");
        return;
    }
    let mount = Mount::of(&["-o", "loop", small.to_str().unwrap()]);
    let store = dir.path().join("store");
    let made = asl(&["store", "init", store.to_str().unwrap(), "--ephemeral"]);
    assert!(made.status.success(), "{}", shown(&made));
    let source = dir.path().join("source.img");
    fs::File::create(&source)
        .unwrap()
        .set_len(20 << 30)
        .unwrap();
    let part = capture(&source, &store, &["--range", "0:1M", "--json"])
        .output()
        .unwrap();
    assert_eq!(part.status.code(), Some(1), "{}", shown(&part));
    let id = object(&part)["capture"].as_str().unwrap().to_owned();
    let out = mount.path("out.img");
    let refused = asl(&[
        "export",
        &id,
        &out,
        "--json",
        "--store",
        store.to_str().unwrap(),
    ]);
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    assert!(
        json(&refused)["hint"].as_str().unwrap().contains("exFAT"),
        "{}",
        shown(&refused)
    );
    let left: Vec<_> = fs::read_dir(&mount.at)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "lost+found")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!Path::new(&out).exists());
}
