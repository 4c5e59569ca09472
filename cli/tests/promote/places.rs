//! A rescue store that was copied to another filesystem and went on in both places: what is written goes to an instance of each place, the
//! domain goes along, and a promotion takes all of it over. With real filesystems behind loop devices.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::killed::kill;
use super::{Rescue, asl_at, does, export, init, json, program, rescue_at, succeeds, tree};

/// A mounted filesystem of its own, gone with the test.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// None, said aloud, where this process may not mount.
    fn new(room: &Path, name: &str) -> Option<Self> {
        let (image, at) = (room.join(format!("{name}.fs")), room.join(name));
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(512 << 20).unwrap();
        std::fs::create_dir(&at).unwrap();
        let done = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        let mounted = is_root()
            && done(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))
            && done(
                Command::new("mount")
                    .args(["-o", "loop"])
                    .arg(&image)
                    .arg(&at),
            );
        if !mounted {
            eprintln!("skipped: needs root, mkfs.ext4 and loop devices");
            return None;
        }
        Some(Self { at })
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// A stick with a rescue store, and a disk with a copy of it where it went on.
struct Places {
    // Before the directory that they are mounted in.
    _disks: (Disk, Disk),
    /// The store on the disk.
    rescue: Rescue,
    /// The one on the stick.
    stick: PathBuf,
    /// A capture of the disk's and its image.
    second: (String, PathBuf),
    /// Put on the stick before it was copied, and removed on the disk.
    removed: String,
    /// What the disk's first capture there said.
    birth: String,
}

fn put(store: &Path, room: &Path, text: &str) -> String {
    let file = room.join("file");
    std::fs::write(&file, text).unwrap();
    let put = does(asl_at(store).arg("put").arg(&file));
    put["key"].as_str().unwrap().to_owned()
}

fn has(target: &Path, key: &str) -> bool {
    let mut get = program("asl");
    get.args(["get", key, "--store"]).arg(target);
    get.stdout(Stdio::null()).stderr(Stdio::null());
    get.status().unwrap().success()
}

fn capture(store: &Path, image: &Path, seed: &str, len: usize) -> (String, String) {
    let mut bytes = vec![0; len];
    let noise = blake3::Hasher::new().update(seed.as_bytes()).finalize();
    let mut noise = blake3::Hasher::new()
        .update(noise.as_bytes())
        .finalize_xof();
    for block in bytes.chunks_mut(4096) {
        noise.fill(&mut block[..2048]);
    }
    std::fs::write(image, bytes).unwrap();
    let output = program("asl-capture")
        .arg("disk")
        .arg(image)
        .arg("--json")
        .arg("--store")
        .arg(store)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let captured: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (captured["capture"].as_str().unwrap().to_owned(), told)
}

fn places(len: usize) -> Option<Places> {
    let room = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disks = (
        Disk::new(room.path(), "stick")?,
        Disk::new(room.path(), "disk")?,
    );
    let stick = disks.0.at.join("usb");
    let mut rescue = rescue_at(room, stick.clone(), len);
    let removed = put(&stick, rescue.room.path(), "removed on the disk");
    succeeds(Command::new("cp").arg("-a").arg(&stick).arg(&disks.1.at));
    rescue.store = disks.1.at.join("usb");
    let image = rescue.path("second.img");
    let (second, birth) = capture(&rescue.store, &image, "second", len);
    does(asl_at(&rescue.store).args(["rm", &removed]));
    Some(Places {
        second: (second, image),
        removed,
        birth,
        stick,
        rescue,
        _disks: disks,
    })
}

/// Into a domain that is made for it.
const AS_NEW: [&str; 5] = ["--as-new", "--name", "home", "--no-recovery", "--ephemeral"];

fn as_new(rescue: &Rescue) -> Command {
    rescue.promote(&AS_NEW)
}

fn target_of(rescue: &Rescue, promoted: &serde_json::Value) -> PathBuf {
    let domain = promoted["parent_domain"].as_str().unwrap();
    rescue.path("root").join("domains").join(domain)
}

/// Covers K6.
#[test]
fn what_two_places_hold_comes_over_and_only_once() {
    let Some(places) = places(8 << 20) else {
        return;
    };
    let (rescue, stick) = (&places.rescue, &places.stick);
    let room = rescue.room.path();
    // The first writing on the disk begins an instance there, says so, and takes the domain along.
    assert!(
        places.birth.contains("is a copy: the store"),
        "{}",
        places.birth
    );
    let meet = format!("asl store sync OTHER --store {}", rescue.store.display());
    assert!(places.birth.contains(&meet), "{}", places.birth);
    let info = |store: &Path| does(asl_at(store).args(["store", "info"]));
    assert_eq!(info(&rescue.store)["instances"], 2);
    assert_eq!(info(stick)["instances"], 1);
    let shown = does(asl_at(&rescue.store).args(["domain", "show"]));
    assert_eq!(shown["domain_id"], rescue.domain);
    assert_ne!(info(&rescue.store)["store_id"], info(stick)["store_id"]);
    // No second one is begun the next time.
    let on_disk = put(&rescue.store, room, "put on the disk");
    assert_eq!(info(&rescue.store)["instances"], 2);
    // The stick goes on as if nothing had been, and is brought along.
    let on_stick = put(stick, room, "put on the stick");
    let (third, _) = capture(stick, &rescue.path("third.img"), "third", 4 << 20);
    does(asl_at(&rescue.store).args(["store", "sync"]).arg(stick));
    let before = tree(&rescue.store);

    let (code, offer) = json(as_new(rescue).arg("--dry-run"));
    assert_eq!(code, 0, "{offer}");
    assert_eq!(offer["instances"].as_array().unwrap().len(), 2, "{offer}");
    let promoted = does(&mut as_new(rescue));
    assert!(
        tree(&rescue.store) == before,
        "the rescue store was only read"
    );
    let target = target_of(rescue, &promoted);
    let instances = promoted["instances"].as_array().unwrap();
    assert!(
        instances.iter().all(|one| one["lineage"].is_string()),
        "{promoted}"
    );
    assert_eq!(
        promoted["captures"].as_array().unwrap().len(),
        3,
        "{promoted}"
    );
    assert!(export(room, &target, &rescue.capture) == rescue.image);
    let (second, image) = &places.second;
    assert!(export(room, &target, second) == std::fs::read(image).unwrap());
    let third_image = std::fs::read(rescue.path("third.img")).unwrap();
    assert!(export(room, &target, &third) == third_image);
    assert!(has(&target, &on_disk) && has(&target, &on_stick));
    assert!(!has(&target, &places.removed), "what was removed came back");
    does(asl_at(&target).args(["domain", "verify"]));

    let (files, state) = (tree(&target), tree(&rescue.path("state")));
    let (code, again) = json(&mut as_new(rescue));
    assert_eq!((code, &again["already"]), (0, &true.into()), "{again}");
    assert!(
        tree(&target) == files,
        "a second promotion changed the target"
    );
    assert!(
        tree(&rescue.path("state")) == state,
        "a second promotion changed the pins"
    );
    let status = || {
        let status = does(
            program("asl-promote")
                .arg("status")
                .arg(rescue.path("root")),
        );
        status["lineage"].as_array().unwrap().clone()
    };
    assert_eq!(status().len(), 2);

    // Only the disk goes on.
    let later = put(&rescue.store, room, "put on the disk later");
    let promoted = does(&mut as_new(rescue));
    let done: Vec<bool> = (promoted["instances"].as_array().unwrap().iter())
        .map(|one| one["already"].as_bool().unwrap())
        .collect();
    assert_eq!(done, [true, false], "{promoted}");
    assert!(has(&target, &later));
    assert_eq!(status().len(), 3);

    // The stick as it was before it was copied is no older copy of anything: its log was taken over, and has nothing new.
    // A copy of the disk's store that was put back is.
    let old = room.join("old");
    succeeds(Command::new("cp").arg("-a").arg(&rescue.store).arg(&old));
    let after = put(&rescue.store, room, "put on the disk last");
    let (code, _) = json(&mut as_new(rescue));
    assert_eq!(code, 0);
    assert!(has(&target, &after));
    let files = tree(&target);
    let mut older = rescue.promotion(&old, &rescue.path("root"), &rescue.domain);
    let (code, refused) = json(older.args(AS_NEW));
    assert_eq!(code, 12, "{refused}");
    assert!(
        refused["hint"].as_str().unwrap().contains("asl store sync"),
        "{refused}"
    );
    assert!(tree(&target) == files);
}

/// Whoever gives a store up may still write there, and is told.
#[test]
fn a_store_that_was_given_up_says_so_and_takes_what_comes() {
    let Some(places) = places(4 << 20) else {
        return;
    };
    let rescue = &places.rescue;
    let pass = rescue.path("pass");
    let retire = || {
        let mut command = as_new(rescue);
        command
            .arg("--retire-source")
            .arg("--rescue-passphrase-file");
        command.arg(&pass);
        json(&mut command)
    };
    let (code, promoted) = retire();
    assert_eq!(
        (code, &promoted["retired"]),
        (0, &true.into()),
        "{promoted}"
    );
    assert_eq!(promoted["handed_over"], true, "{promoted}");
    let target = target_of(rescue, &promoted);
    let (code, again) = json(&mut as_new(rescue));
    assert_eq!(
        (code, &again["already"]),
        (0, &true.into()),
        "that it was given up is no news: {again}"
    );
    let shown = does(program("asl-promote").arg("status").arg(&rescue.store));
    assert_eq!(shown["lineage"][0]["operation"], "retire", "{shown}");

    let file = rescue.path("file");
    std::fs::write(&file, "too late").unwrap();
    let output = program("asl")
        .arg("put")
        .arg(&file)
        .arg("--store")
        .arg(&rescue.store)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("was given up for the domain"), "{told}");
    let domain = promoted["parent_domain"].as_str().unwrap();
    let one_line = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        one_line.contains(domain) && one_line.contains("asl-promote"),
        "{told}"
    );
    let (late, told) = capture(&rescue.store, &rescue.path("late.img"), "late", 2 << 20);
    assert!(told.contains("was given up for the domain"), "{told}");
    does(&mut as_new(rescue));
    let image = std::fs::read(rescue.path("late.img")).unwrap();
    assert!(export(rescue.room.path(), &target, &late) == image);
}

/// Killed anywhere, between the instances too, the same command goes on. Everyday 3 kills, with `ASL_TEST_ALL` 30.
#[test]
fn a_promotion_of_two_places_that_is_killed_goes_on_and_ends_whole() {
    let all = std::env::var_os("ASL_TEST_ALL").is_some();
    let Some(places) = places(if all { 128 << 20 } else { 48 << 20 }) else {
        return;
    };
    let rescue = &places.rescue;
    let began = Instant::now();
    let (code, first) = json(&mut as_new(rescue));
    assert_eq!(code, 0, "{first}");
    let whole = began.elapsed();
    // The same target without what was promoted.
    let target = rescue.path("root/personal");
    std::fs::remove_dir_all(rescue.path("root")).unwrap();
    std::fs::remove_dir_all(rescue.path("state")).unwrap();
    rescue.home(&target);
    let promote = || rescue.promotion(&rescue.store, &target, &rescue.domain);
    let kills = if all { 30 } else { 3 };
    let moments =
        (0..kills).map(|nth| whole.mul_f64(f64::from(2 * nth + 1) / f64::from(2 * kills)));
    kill(promote, &target, moments);
    let (code, last) = json(&mut promote());
    assert_eq!(code, 0, "{last}");
    super::ends_whole(rescue, &target);
    let (second, image) = &places.second;
    let room = rescue.room.path();
    assert!(export(room, &target, second) == std::fs::read(image).unwrap());
    assert!(!has(&target, &places.removed), "what was removed came back");
    let files = tree(&target);
    let (code, again) = json(&mut promote());
    assert_eq!((code, &again["already"]), (0, &true.into()), "{again}");
    assert!(tree(&target) == files);
}

/// A copy within one filesystem is another place. Where a store was written before, it is at home whatever its log calls that.
#[test]
fn a_copy_within_one_filesystem_is_another_place() {
    let room = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some(disk) = Disk::new(room.path(), "disk") else {
        return;
    };
    let (first, second) = (disk.at.join("first"), disk.at.join("second"));
    init(&first, &[]);
    put(&first, room.path(), "first");
    succeeds(Command::new("cp").arg("-a").arg(&first).arg(&second));
    let info = |store: &Path| does(asl_at(store).args(["store", "info"]));
    put(&second, room.path(), "second");
    put(&first, room.path(), "first again");
    assert_eq!(info(&second)["instances"], 2);
    assert_eq!(info(&first)["instances"], 1);
    // Under another name it is the same place.
    let moved = disk.at.join("moved");
    std::fs::rename(&first, &moved).unwrap();
    put(&moved, room.path(), "moved");
    assert_eq!(info(&moved)["instances"], 1);
}
