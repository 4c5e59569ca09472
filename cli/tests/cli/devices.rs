//! Real block devices as sources: partitions, disks that vanish and come back.
//! Without root these tests say that they did nothing.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::capture::{LONG_MIB, Room, Running, capture, object, refused};
use super::place::{Mount, skipped};
use super::programs::{asl, shown};

/// A loop device that is gone with the test.
pub struct Loop(PathBuf);

impl Loop {
    pub fn over(image: &Path) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show", "--partscan"])
            .arg(image)
            .output()
            .expect("losetup starts");
        assert!(output.status.success(), "{}", shown(&output));
        Self(PathBuf::from(
            String::from_utf8(output.stdout).unwrap().trim(),
        ))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a partition known to the kernel, in MiB, and returns its path.
    fn partition(&self, number: u32, start: u64, len: u64) -> Option<PathBuf> {
        let sectors = |mib: u64| (mib << 11).to_string();
        let status = Command::new("addpart")
            .arg(&self.0)
            .args([number.to_string(), sectors(start), sectors(len)])
            .status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("skipped: this kernel has no partitions on loop devices");
            return None;
        }
        Some(PathBuf::from(format!("{}p{number}", self.0.display())))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}

/// A store on a partition is on its disk, and on no other partition of it.
#[test]
fn a_store_on_a_partition_of_the_source_is_refused() {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = dir.path().join("disk.img");
    fs::File::create(&image)
        .unwrap()
        .set_len(256 << 20)
        .unwrap();
    let disk = Loop::over(&image);
    let Some(first) = disk.partition(1, 1, 200) else {
        return;
    };
    let second = disk.partition(2, 210, 4).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&first).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no mkfs.ext4");
        return;
    }
    let mount = Mount::of(&[first.to_str().unwrap()]);
    let store = mount.at.join("store");
    let made = asl(&["store", "init", store.to_str().unwrap()]);
    assert!(made.status.success(), "{}", shown(&made));
    for source in [&disk.0, &first, &image] {
        let error = refused(&mut capture(source, &store, &[]), 1);
        let message = error["error"].as_str().unwrap();
        assert!(
            message.contains("lies on the disk that is to be read"),
            "{error}"
        );
        assert!(message.contains(first.to_str().unwrap()), "{error}");
    }
    let output = capture(&second, &store, &["--json"]).output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(object(&output)["rescued_bytes"], 4 << 20);
    // Nor can it be named as the place for a store.
    let error = asl(&["store", "init", second.to_str().unwrap(), "--json"]);
    assert_eq!(error.status.code(), Some(1), "{}", shown(&error));
    let error = object(&error);
    assert!(
        error["causes"][0].as_str().unwrap().contains("is a disk"),
        "{error}"
    );
    assert!(
        error["hint"].as_str().unwrap().starts_with("mount"),
        "{error}"
    );
}

/// Covers K4: a device whose size becomes 0 while it is read has no bad sectors for it, and
/// under another name the same command goes on.
#[test]
fn a_disk_that_vanishes_goes_on_under_another_name() {
    if skipped() {
        return;
    }
    let room = Room::new(LONG_MIB);
    let before = Loop::over(&room.disk());
    let running = Running::of(&before.0, &room.store());
    let file = fs::File::options().write(true).open(room.disk()).unwrap();
    file.set_len(0).unwrap();
    let shrunk = Command::new("losetup")
        .arg("--set-capacity")
        .arg(&before.0)
        .status();
    assert!(shrunk.unwrap().success());
    let (result, code) = running.end();
    let result = result.unwrap();
    assert_eq!(code, Some(1), "{result}");
    assert_eq!(result["stopped"], "device-gone", "{result}");
    assert_eq!(result["unreadable_bytes"], 0, "{result}");
    assert_eq!(result["unreadable"], serde_json::json!([]));
    let hint = result["hint"].as_str().unwrap();
    assert!(
        hint.contains("nothing was marked bad") && hint.contains("its name may change"),
        "{hint}"
    );

    // The empty one is no source.
    let error = refused(&mut capture(&before.0, &room.store(), &[]), 1);
    assert!(
        error["causes"][0].as_str().unwrap().contains("empty"),
        "{error}"
    );
    fs::write(room.disk(), &room.image).unwrap();
    let after = Loop::over(&room.disk());
    assert_ne!(after.0, before.0);
    let output = capture(&after.0, &room.store(), &["--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let again = object(&output);
    assert_eq!(again["capture"], result["capture"]);
    assert_eq!(again["complete"], true);
    room.assert_exported(again["capture"].as_str().unwrap());
}

/// A device that answers every read with EIO as soon as it is told to die.
struct Mortal {
    script: Child,
    answers: BufReader<ChildStdout>,
    path: PathBuf,
}

const CONTROL: &str = r#"
set -euo pipefail
source "$1/common.sh"
source "$1/failing-disk"
failing_disk_start "$2" -
echo "$FAILING_DISK"
while read -r _; do
  failing_disk_die
  echo dead
done
"#;

impl Mortal {
    fn over(image: &Path) -> Option<Self> {
        let qemu = Command::new("qemu-storage-daemon")
            .arg("--version")
            .output();
        if qemu.is_err() {
            eprintln!("skipped: no qemu-storage-daemon");
            return None;
        }
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib");
        let mut script = Command::new("bash")
            .args(["-c", CONTROL, "mortal-disk-of-a-test"])
            .args([&scripts, image])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(script.stdout.take().unwrap());
        let mut disk = Self {
            script,
            answers,
            path: PathBuf::new(),
        };
        disk.path = PathBuf::from(disk.answer());
        assert!(disk.path.is_absolute(), "no failing device to be had");
        Some(disk)
    }

    fn die(&mut self) {
        writeln!(self.script.stdin.as_mut().unwrap(), "die").unwrap();
        assert_eq!(self.answer(), "dead");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // The end of its input ends the script, which takes the device away.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// Covers K4: a device that stays, with its size, and answers nothing but EIO because
/// what is behind it died, is gone and not bad from end to end.
#[test]
fn a_disk_that_dies_behind_its_device_is_gone_and_not_bad() {
    if skipped() {
        return;
    }
    let room = Room::new(LONG_MIB);
    let Some(mut disk) = Mortal::over(&room.disk()) else {
        return;
    };
    let running = Running::of(&disk.path, &room.store());
    disk.die();
    let (result, code) = running.end();
    let result = result.unwrap();
    assert_eq!(code, Some(1), "{result}");
    assert_eq!(result["stopped"], "device-gone", "{result}");
    assert_eq!(result["unreadable_bytes"], 0, "{result}");
    assert!(result["untried_bytes"].as_u64().unwrap() > 0, "{result}");
}
