//! `asl-capture disk` as users meet it: signals, bad sources, full destinations.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::place::{Mount, skipped};
use super::programs::{program, shown};

/// A zstd level that leaves time to do something meanwhile.
pub const SLOW: &str = "12";
/// An image of this many MiB is larger than what may wait in memory between reading
/// and writing, so that a slow capture of it is still reading a while after it began.
pub const LONG_MIB: usize = 96;

/// A directory with a store and an image.
pub struct Room {
    pub dir: tempfile::TempDir,
    pub image: Vec<u8>,
}

impl Room {
    /// An image of which half of each page compresses, so that a high level is slow.
    pub fn new(mib: usize) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut image = vec![0; mib << 20];
        let mut noise = blake3::Hasher::new().finalize_xof();
        for page in image.chunks_mut(4096) {
            noise.fill(&mut page[..2048]);
        }
        let room = Self { dir, image };
        fs::write(room.disk(), &room.image).unwrap();
        let made = program("asl")
            .args(["store", "init", "--ephemeral"])
            .arg(room.store())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", shown(&made));
        room
    }

    pub fn disk(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn capture(&self, more: &[&str]) -> Command {
        capture(&self.disk(), &self.store(), more)
    }

    /// Exports the capture and compares it with the image.
    pub fn assert_exported(&self, id: &str) {
        let out = self.dir.path().join("out.img");
        let output = program("asl")
            .args(["export", id])
            .arg(&out)
            .args(["--force", "--sparse", "--json", "--store"])
            .arg(self.store())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", shown(&output));
        assert!(
            fs::read(&out).unwrap() == self.image,
            "the export differs from the source"
        );
    }
}

pub fn capture(source: &Path, store: &Path, more: &[&str]) -> Command {
    let mut command = program("asl-capture");
    command
        .arg("disk")
        .arg(source)
        .arg("--store")
        .arg(store)
        .args(more);
    command
}

pub fn object(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", shown(output)))
}

/// Runs a command that must be refused; its error object.
pub fn refused(command: &mut Command, exit: i32) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(exit), "{}", shown(&output));
    let error = object(&output);
    assert_eq!(error["exit"], exit, "{error}");
    assert!(error["hint"].is_string(), "{error}");
    error
}

/// A slow capture that has begun to read, and its events.
pub struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    pub fn start(room: &Room) -> Self {
        Self::of(&room.disk(), &room.store())
    }

    pub fn of(source: &Path, store: &Path) -> Self {
        let mut child = capture(source, store, &["--events", "--compression", SLOW])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The first event comes with the first reads.
        let first = lines.next().and_then(Result::ok);
        let running = Self { child, lines };
        let event: Value = serde_json::from_str(&first.expect("an event comes")).unwrap();
        assert_eq!(event["event"], "progress", "{event}");
        running
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// The last line and the exit code.
    pub fn end(mut self) -> (Option<Value>, Option<i32>) {
        let last = self.lines.by_ref().map(|line| line.unwrap()).last();
        let status = self.child.wait().unwrap();
        (
            last.map(|line| serde_json::from_str(&line).unwrap()),
            status.code(),
        )
    }
}

/// Covers K4: a stop is clean, says how to go on, and the same command does.
#[test]
fn signals_stop_cleanly_and_the_same_command_goes_on() {
    let room = Room::new(2 * LONG_MIB);
    for signal in [Signal::INT, Signal::TERM] {
        let running = Running::start(&room);
        running.signal(signal);
        let (result, code) = running.end();
        let result = result.unwrap();
        assert_eq!(code, Some(1), "{result}");
        assert_eq!(result["stopped"], "interrupted", "{result}");
        assert_eq!(result["complete"], false);
        assert!(result["untried_bytes"].as_u64().unwrap() > 0, "{result}");
        assert_eq!(result["unreadable"], serde_json::json!([]));
        let hint = result["hint"].as_str().unwrap();
        assert!(hint.contains("asl-capture disk"), "{hint}");
    }
    let captures = program("asl")
        .args(["captures", "--json", "--store"])
        .arg(room.store())
        .output()
        .unwrap();
    assert_eq!(object(&captures)["count"], 1, "both runs are one capture");
    let output = room
        .capture(&["--json", "--compression", "none"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let result = object(&output);
    assert_eq!(result["complete"], true);
    room.assert_exported(result["capture"].as_str().unwrap());
}

#[test]
fn a_closed_terminal_stops_nothing() {
    let room = Room::new(12);
    let running = Running::start(&room);
    running.signal(Signal::HUP);
    let (result, code) = running.end();
    assert_eq!(code, Some(0), "{result:?}");
    assert_eq!(result.unwrap()["complete"], true);
}

#[test]
fn a_second_interrupt_kills_and_costs_nothing_that_was_safe() {
    let room = Room::new(LONG_MIB);
    let running = Running::start(&room);
    running.signal(Signal::INT);
    running.signal(Signal::INT);
    let (_, code) = running.end();
    // Both may arrive as one, where nobody was scheduled in between.
    assert!(matches!(code, Some(130 | 1)), "{code:?}");
    let output = room.capture(&["--json"]).output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    room.assert_exported(object(&output)["capture"].as_str().unwrap());
}

#[test]
fn a_second_capture_into_the_same_store_is_refused() {
    let room = Room::new(16);
    let running = Running::start(&room);
    let error = refused(&mut room.capture(&["--new"]), 1);
    assert!(
        error["causes"][0]
            .as_str()
            .unwrap()
            .contains("another process"),
        "{error}"
    );
    // Reading is possible meanwhile.
    let listed = program("asl")
        .args(["captures", "--store"])
        .arg(room.store())
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", shown(&listed));
    let (result, code) = running.end();
    assert_eq!(code, Some(0), "{result:?}");
}

/// An image that gets shorter while it is read: gone, not bad; and whole again later.
#[test]
fn a_source_that_shrinks_is_gone_and_not_bad() {
    let room = Room::new(LONG_MIB);
    let running = Running::start(&room);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(room.disk())
        .unwrap();
    file.set_len(0).unwrap();
    let (result, code) = running.end();
    let result = result.unwrap();
    assert_eq!(code, Some(1), "{result}");
    assert_eq!(result["stopped"], "device-gone", "{result}");
    assert_eq!(result["unreadable_bytes"], 0, "{result}");
    // Back again, under another name.
    let elsewhere = room.dir.path().join("again.img");
    fs::write(room.disk(), &room.image).unwrap();
    std::os::unix::fs::symlink(room.disk(), &elsewhere).unwrap();
    let output = capture(&elsewhere, &room.store(), &["--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let again = object(&output);
    assert_eq!(again["capture"], result["capture"]);
    room.assert_exported(again["capture"].as_str().unwrap());
}

#[test]
fn what_is_no_source_is_refused() {
    let room = Room::new(1);
    let dir = room.dir.path();
    let empty = dir.join("empty");
    fs::write(&empty, "").unwrap();
    let fifo = dir.join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for (source, words) in [
        (dir.join("missing"), "does not exist"),
        (dir.to_owned(), "a directory"),
        (fifo, "a named pipe"),
        (PathBuf::from("/dev/null"), "a character device"),
        (empty, "is empty"),
    ] {
        let error = refused(&mut capture(&source, &room.store(), &[]), 1);
        assert!(
            error["causes"][0].as_str().unwrap().contains(words),
            "{error}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_read() {
    let room = Room::new(1);
    let map = room.dir.path().join("map");
    fs::write(&map, "no map at all").unwrap();
    let map = map.to_str().unwrap();
    for (more, exit) in [
        (&["--label", "a\u{1b}[2J"][..], 2),
        (&["--resume"], 1),
        (&["--resume", "--new"], 2),
        (&["--range", "1G:1"], 2),
        (&["--range", "0"], 2),
        (&["--passes", "7"], 2),
        (&["--compression", "20"], 2),
        (&["--timeout", "soon"], 2),
        (&["--domain", map], 2),
        (&["--sector-size", "1000"], 2),
        (&["--max-bad-reads", "0"], 2),
    ] {
        let output = room.capture(more).arg("--json").output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(exit),
            "{more:?}: {}",
            shown(&output)
        );
        assert_eq!(object(&output)["exit"], exit, "{more:?}");
    }
    let mut without_store = program("asl-capture");
    let error = refused(without_store.arg("disk").arg(room.disk()), 2);
    assert!(
        error["hint"].as_str().unwrap().contains("ASL_STORE"),
        "{error}"
    );
    let captures = program("asl")
        .args(["captures", "--json", "--store"])
        .arg(room.store())
        .output()
        .unwrap();
    assert_eq!(object(&captures)["count"], 0);
}

/// A part of a source is read now, the rest later.
#[test]
fn a_range_is_read_and_the_rest_later() {
    let room = Room::new(4);
    let map = room.dir.path().join("out.map");
    let output = room
        .capture(&[
            "--range",
            "1M:1M",
            "--json",
            "--map-out",
            map.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    let part = object(&output);
    // Not every byte was read, so it is not 0; nothing is unreadable, so it is not 3.
    assert_eq!(output.status.code(), Some(1), "{part}");
    assert_eq!(part["rescued_bytes"], 1 << 20, "{part}");
    assert_eq!(part["unreadable_bytes"], 0);
    let map = fs::read_to_string(map).unwrap();
    assert!(map.contains("0x00100000  0x00100000  +"), "{map}");
    let output = room
        .capture(&["--json", "--sha256", "--md5"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let whole = object(&output);
    assert_eq!(whole["capture"], part["capture"]);
    assert_eq!(whole["image_blake3"], blake3::hash(&room.image).to_string());
    let sum = Command::new("sha256sum").arg(room.disk()).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(whole["sha256"], sum.split(' ').next().unwrap());
    room.assert_exported(whole["capture"].as_str().unwrap());
}

/// Covers K4: the destination fills up, nothing that was safe is lost, and when there is
/// room the same command goes on.
#[test]
fn a_full_destination_stops_cleanly_and_goes_on_with_room() {
    if skipped() {
        return;
    }
    let mount = Mount::of(&["-t", "tmpfs", "-o", "size=100m", "none"]);
    let store = mount.at.join("store");
    let room = Room::new(200);
    let made = program("asl")
        .args(["store", "init", "--ephemeral"])
        .arg(&store)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", shown(&made));
    let output = capture(&room.disk(), &store, &["--json", "--compression", "none"])
        .output()
        .unwrap();
    let result = object(&output);
    assert_eq!(output.status.code(), Some(1), "{result}");
    assert_eq!(result["stopped"], "destination-full", "{result}");
    let rescued = result["rescued_bytes"].as_u64().unwrap();
    assert!(rescued > 50 << 20, "{rescued}");
    assert!(
        result["hint"].as_str().unwrap().contains("Free room"),
        "{result}"
    );
    let verify = program("asl")
        .args(["store", "verify", "--store"])
        .arg(&store)
        .output()
        .unwrap();
    assert!(verify.status.success(), "{}", shown(&verify));

    let remount = Command::new("mount")
        .args(["-o", "remount,size=400m"])
        .arg(&mount.at)
        .status();
    assert!(remount.unwrap().success());
    let output = capture(&room.disk(), &store, &["--json", "--compression", "none"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let again = object(&output);
    assert_eq!(again["capture"], result["capture"]);
    assert_eq!(again["image_blake3"], blake3::hash(&room.image).to_string());
}

/// Nothing is ever written onto what is to be rescued.
#[test]
fn a_store_on_its_own_source_is_refused() {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = dir.path().join("disk.img");
    fs::File::create(&image)
        .unwrap()
        .set_len(256 << 20)
        .unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no mkfs.ext4");
        return;
    }
    let mount = Mount::of(&["-o", "loop", image.to_str().unwrap()]);
    let store = mount.at.join("store");
    let made = program("asl")
        .args(["store", "init"])
        .arg(&store)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", shown(&made));
    let device = Command::new("findmnt")
        .args(["-no", "SOURCE"])
        .arg(&mount.at)
        .output()
        .unwrap();
    let device = String::from_utf8(device.stdout).unwrap();
    for source in [Path::new(device.trim()), &image] {
        let error = refused(&mut capture(source, &store, &[]), 1);
        let message = error["error"].as_str().unwrap();
        assert!(
            message.contains("lies on the disk that is to be read"),
            "{error}"
        );
    }
    // A store elsewhere does not make a disk that is mounted for writing a good source.
    let room = Room::new(1);
    for source in [Path::new(device.trim()), &image] {
        let error = refused(&mut capture(source, &room.store(), &[]), 1);
        assert!(
            error["causes"][0]
                .as_str()
                .unwrap()
                .contains("mounted read-write"),
            "{error}"
        );
        assert!(
            error["hint"].as_str().unwrap().contains("umount"),
            "{error}"
        );
    }
    // Nor is a mapfile or an image written there.
    let map = mount.at.join("map");
    let error = refused(
        &mut capture(&image, &room.store(), &["--map-out", map.to_str().unwrap()]),
        1,
    );
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains("lies on the disk"),
        "{error}"
    );
}
