//! The whole road of a rescue with the real programs: a store is filled, gets a domain, and is promoted on "another machine" (another
//! root, another state directory).

mod hostile;
mod killed;
mod places;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use support::{json, program};

const PASSPHRASE: &str = "correct horse battery staple";

struct Rescue {
    room: tempfile::TempDir,
    store: PathBuf,
    capture: String,
    domain: String,
    image: Vec<u8>,
}

impl Rescue {
    fn path(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    fn promote(&self, more: &[&str]) -> Command {
        let mut command = program("asl-promote");
        command
            .env("ASL_STATE", self.path("state"))
            .arg(&self.store)
            .arg("--into")
            .arg(self.path("root"))
            .args([
                "--expect",
                &self.domain,
                "--yes",
                "--no-input",
                "--passphrase-file",
            ])
            .arg(self.path("pass"))
            .args(more);
        command
    }
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

/// Every file below `dir`, if there is such a directory, with the digest of its bytes and the time of its last change.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (blake3::Hash, SystemTime)> {
    let mut found = BTreeMap::new();
    if !dir.exists() {
        return found;
    }
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            let changed = entry.metadata().unwrap().modified().unwrap();
            found.insert(entry.into_path(), (blake3::hash(&bytes), changed));
        }
    }
    found
}

/// A store with a capture of `len` bytes, its domain, and an empty personal domain elsewhere.
fn rescue(len: usize) -> Rescue {
    let room = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = room.path().join("usb");
    rescue_at(room, store, len)
}

/// The same at a place of its own.
fn rescue_at(room: tempfile::TempDir, store: PathBuf, len: usize) -> Rescue {
    std::fs::write(room.path().join("pass"), PASSPHRASE).unwrap();
    let mut image = vec![0; len];
    let mut noise = blake3::Hasher::new().finalize_xof();
    for block in image.chunks_mut(4096) {
        noise.fill(&mut block[..2048]);
    }
    let disk = room.path().join("disk.img");
    std::fs::write(&disk, &image).unwrap();
    succeeds(
        program("asl")
            .args(["store", "init", "--quiet", "--block-size", "4M"])
            .arg(&store),
    );
    let in_store = |name: &str| {
        let mut command = program(name);
        command.env("ASL_STORE", &store);
        command
    };
    let (code, captured) = json(in_store("asl-capture").arg("disk").arg(&disk));
    assert_eq!(code, 0, "{captured}");
    let (code, minted) = json(
        in_store("asl")
            .args(["domain", "mint", "--name", "usb", "--no-recovery", "--yes"])
            .args(["--ephemeral", "--passphrase-file"])
            .arg(room.path().join("pass")),
    );
    assert_eq!(code, 0, "{minted}");
    Rescue {
        capture: captured["capture"].as_str().unwrap().to_owned(),
        domain: minted["domain_id"].as_str().unwrap().to_owned(),
        store,
        image,
        room,
    }
}

fn ends_whole(rescue: &Rescue, target: &Path) {
    let (code, verified) = json(
        program("asl")
            .args(["store", "verify", "--store"])
            .arg(target),
    );
    assert_eq!(
        (code, &verified["ok"]),
        (0, &serde_json::Value::Bool(true)),
        "{verified}"
    );
    let (code, verified) = json(
        program("asl")
            .args(["domain", "verify", "--store"])
            .arg(target),
    );
    assert_eq!(code, 0, "{verified}");
    let out = rescue.path("out.img");
    let _ = std::fs::remove_file(&out);
    let (code, exported) = json(
        program("asl")
            .args(["export", &rescue.capture])
            .arg(&out)
            .arg("--store")
            .arg(target),
    );
    assert_eq!(code, 0, "{exported}");
    assert!(
        std::fs::read(&out).unwrap() == rescue.image,
        "the exported image equals the source"
    );
}
