//! Exports onto disks: loop devices that were given a serial number in a mount namespace of their own.
//! Without root these tests say that they did nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::devices::Loop;
use super::place::{json, skipped};
use super::programs::{asl, program, shown};

const SERIAL: &str = "SPARE-20261121-4F2A";
const MIB: usize = 1 << 20;

/// A store with a capture of a disk image, and a loop device that is a spare disk.
struct Room {
    dir: tempfile::TempDir,
    image: Vec<u8>,
    spare: Loop,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut image = vec![0; 4 * MIB];
        let mut noise = blake3::Hasher::new().update(b"onto").finalize_xof();
        noise.fill(&mut image[MIB..2 * MIB]);
        fs::write(at("patient.img"), &image).unwrap();
        // What it held before must not show where the image is zero.
        fs::write(at("spare.img"), vec![0xEE; 6 * MIB]).unwrap();
        let store = at("store");
        let made = asl(&["store", "init", store.to_str().unwrap()]);
        assert!(made.status.success(), "{}", shown(&made));
        let spare = Loop::over(&at("spare.img"));
        let room = Self { dir, image, spare };
        let captured = program("asl-capture")
            .arg("disk")
            .arg(room.at("patient.img"))
            .args(["--label", "patient", "--quiet", "--store"])
            .arg(&store)
            .output()
            .unwrap();
        assert!(captured.status.success(), "{}", shown(&captured));
        room
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn name(&self) -> &str {
        let name = self.spare.path().file_name().unwrap();
        name.to_str().unwrap()
    }

    fn words(&self, more: &[&str]) -> Vec<String> {
        let store = self.at("store");
        let words = ["export", "patient", self.spare.path().to_str().unwrap()];
        let words = [&words[..], more, &["--store", store.to_str().unwrap()]].concat();
        words.into_iter().map(str::to_owned).collect()
    }

    fn export(&self, more: &[&str]) -> Output {
        program("asl").args(self.words(more)).output().unwrap()
    }

    /// The same where sysfs gives the spare disk a serial number.
    fn export_with_serial(&self, more: &[&str]) -> Output {
        let real = PathBuf::from("/sys/devices/virtual/block").join(self.name());
        let fake = self.at("sysfs");
        for (file, content) in [
            ("holders/x", None),
            ("slaves/x", None),
            ("serial", Some(SERIAL.to_owned())),
            ("dev", fs::read_to_string(real.join("dev")).ok()),
            (
                "loop/backing_file",
                fs::read_to_string(real.join("loop/backing_file")).ok(),
            ),
            ("size", fs::read_to_string(real.join("size")).ok()),
        ] {
            let file = fake.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            if let Some(content) = content {
                fs::write(file, content).unwrap();
            }
        }
        let script = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]);
        command
            .arg(&fake)
            .arg(&real)
            .arg(program("asl").get_program());
        let output = command.args(self.words(more)).env_clear();
        let path = std::env::var_os("PATH").unwrap_or_default();
        output.env("PATH", path).output().unwrap()
    }

    fn spare(&self) -> Vec<u8> {
        fs::read(self.at("spare.img")).unwrap()
    }
}

fn untouched(room: &Room) {
    assert!(room.spare().iter().all(|byte| *byte == 0xEE));
}

fn refused(output: &Output, exit: i32, words: &str) {
    assert_eq!(output.status.code(), Some(exit), "{}", shown(output));
    let error = json(output);
    let message = error["error"].as_str().unwrap();
    assert!(message.contains(words), "{error}");
}

#[test]
fn a_disk_gets_the_image_if_its_serial_is_known_and_nothing_uses_it() {
    if skipped() {
        return;
    }
    let room = Room::new();
    let anonymous = room.export(&["--to-serial", "4F2A", "--json"]);
    refused(&anonymous, 1, "has no serial number");
    let unasked = room.export_with_serial(&["--json"]);
    refused(&unasked, 2, "would be lost");
    for tail in ["F2A", "", "4F2B", "SPARE"] {
        let wrong = room.export_with_serial(&["--to-serial", tail, "--json"]);
        let exit = if tail.len() < 4 { 2 } else { 1 };
        assert_eq!(wrong.status.code(), Some(exit), "{}", shown(&wrong));
    }
    untouched(&room);

    let output = room.export_with_serial(&["--to-serial", "4F2A", "--sparse"]);
    assert!(output.status.success(), "{}", shown(&output));
    let spare = room.spare();
    assert!(
        spare[..room.image.len()] == room.image,
        "the image, zeros and all"
    );
    assert!(spare[room.image.len()..].iter().all(|byte| *byte == 0xEE));
    let told = String::from_utf8(output.stderr).unwrap();
    for words in [
        "same filesystem UUIDs",
        "vgimportclone",
        "tune2fs -U random",
        "COPY",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    for line in told.lines().filter(|line| !line.starts_with("warning")) {
        assert!(line.len() <= 80, "{line}");
    }
    let again = room.export_with_serial(&["--to-serial", SERIAL, "--json"]);
    assert!(again.status.success(), "{}", shown(&again));
    assert_eq!(json(&again)["duplicates_ids"], true);
}

#[test]
fn a_disk_that_is_used_or_was_captured_keeps_what_it_has() {
    if skipped() {
        return;
    }
    let room = Room::new();
    // Somebody has it open for themselves alone, as a mount has.
    let made = Command::new("mkswap").arg(room.spare.path()).output();
    if made.is_ok_and(|made| made.status.success()) {
        let path = room.spare.path();
        let on = Command::new("swapon").arg(path).output();
        if on.is_ok_and(|on| on.status.success()) {
            let used = room.export_with_serial(&["--to-serial", "4F2A", "--json"]);
            let _ = Command::new("swapoff").arg(path).output();
            refused(&used, 1, "is in use");
            assert!(json(&used)["hint"].as_str().unwrap().contains("swapoff"));
        }
    }
    let before = room.spare();
    let captured = program("asl-capture")
        .arg("disk")
        .arg(room.at("spare.img"))
        .args(["--label", "other", "--quiet", "--store"])
        .arg(room.at("store"))
        .output()
        .unwrap();
    assert!(captured.status.success(), "{}", shown(&captured));
    let error = room.export_with_serial(&["--to-serial", "4F2A", "--json"]);
    refused(&error, 1, "was captured into this store");
    assert!(room.spare() == before);
}

#[test]
fn a_disk_that_is_not_there_does_not_become_a_file() {
    let room = tempfile::tempdir().unwrap();
    let store = room.path().join("store");
    let store = store.to_str().unwrap();
    let made = asl(&["store", "init", store, "--ephemeral"]);
    assert!(made.status.success(), "{}", shown(&made));
    fs::write(room.path().join("disk"), vec![1; 4096]).unwrap();
    let captured = program("asl-capture")
        .arg("disk")
        .arg(room.path().join("disk"))
        .args(["--label", "x", "--quiet", "--store", store])
        .output()
        .unwrap();
    assert!(captured.status.success(), "{}", shown(&captured));
    let error = asl(&["export", "x", "/dev/sdzz", "--store", store, "--json"]);
    refused(&error, 2, "there is no disk");
    assert!(!Path::new("/dev/sdzz").exists());
}
