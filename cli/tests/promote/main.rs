//! The whole road of a rescue with the real programs: a store is filled, gets a domain, and is promoted on "another machine" (another
//! root, another state directory).

#[path = "../support/domains.rs"]
mod domains;
mod hostile;
mod killed;
#[path = "../support/killing.rs"]
mod killing;
mod places;
#[path = "../support/mod.rs"]
mod support;
mod told;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use domains::{does, init, mint};
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

    /// Promotes the store into `root`.
    fn promote(&self, more: &[&str]) -> Command {
        let mut command = self.promotion(&self.store, &self.path("root"), &self.domain);
        command.args(more);
        command
    }

    /// Promotes a store that is expected to be of a domain.
    fn promotion(&self, from: &Path, into: &Path, domain: &str) -> Command {
        let mut command = program("asl-promote");
        command.env("ASL_STATE", self.path("state"));
        command.arg(from).arg("--into").arg(into);
        command.args(["--expect", domain, "--yes", "--no-input"]);
        command.arg("--passphrase-file").arg(self.path("pass"));
        command
    }

    /// An empty personal domain at `target`.
    fn home(&self, target: &Path) {
        init(target, &[]);
        mint(asl_at(target), "home", &self.path("pass"), None);
    }
}

/// `asl`, to be told what to do with a store.
fn asl_at(store: &Path) -> Command {
    let mut command = program("asl");
    command.env("ASL_STORE", store);
    command
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
    init(&store, &["--block-size", "4M"]);
    let mut capture = program("asl-capture");
    let captured = does(capture.arg("disk").arg(&disk).arg("--store").arg(&store));
    Rescue {
        capture: captured["capture"].as_str().unwrap().to_owned(),
        domain: mint(asl_at(&store), "usb", &room.path().join("pass"), None),
        store,
        image,
        room,
    }
}

fn ends_whole(rescue: &Rescue, target: &Path) {
    let verified = does(asl_at(target).args(["store", "verify"]));
    assert_eq!(verified["ok"], true, "{verified}");
    does(asl_at(target).args(["domain", "verify"]));
    assert!(
        export(rescue.room.path(), target, &rescue.capture) == rescue.image,
        "the exported image equals the source"
    );
}

fn copy(from: &Path, to: &Path) {
    succeeds(Command::new("cp").arg("--archive").arg(from).arg(to));
}

/// The image of a capture.
fn export(room: &Path, target: &Path, capture: &str) -> Vec<u8> {
    let out = room.join("out.img");
    let _ = std::fs::remove_file(&out);
    does(asl_at(target).args(["export", capture]).arg(&out));
    std::fs::read(out).unwrap()
}
