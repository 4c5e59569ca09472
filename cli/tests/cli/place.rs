//! Where a store can be made and where not: real file systems, mounted for the test.
//! Without root these tests say that they did nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::programs::{asl, is_root, program, shown};

/// A mounted file system that is gone with the test.
pub struct Mount {
    /// The mountpoint.
    pub at: PathBuf,
    _room: tempfile::TempDir,
}

impl Mount {
    /// Mounts what `mount(8)` is told.
    pub fn of(arguments: &[&str]) -> Self {
        let room = tempfile::tempdir().unwrap();
        let at = room.path().join("mnt");
        fs::create_dir(&at).unwrap();
        let status = Command::new("mount").args(arguments).arg(&at).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "mount {arguments:?}"
        );
        Self { at, _room: room }
    }

    pub fn path(&self, name: &str) -> String {
        self.at.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// Whether the test cannot run here; says why.
pub fn skipped() -> bool {
    if !is_root() {
        eprintln!("skipped: needs root to mount");
    }
    !is_root()
}

pub fn json(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", shown(output)))
}

/// Covers K3: memory is refused, unless it is wanted.
#[test]
fn memory_is_refused_unless_wanted() {
    if skipped() {
        return;
    }
    let mount = Mount::of(&["-t", "tmpfs", "-o", "size=96m", "none"]);
    let store = mount.path("store");
    let refused = asl(&["store", "init", &store, "--json"]);
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    let error = json(&refused);
    assert!(
        error["hint"].as_str().unwrap().contains("--ephemeral"),
        "{error}"
    );
    assert!(!Path::new(&store).exists());
    let made = asl(&["store", "init", &store, "--ephemeral", "--json"]);
    assert!(made.status.success(), "{}", shown(&made));
    let made = json(&made);
    assert_eq!(made["fs_type"], "tmpfs");
    assert_eq!(made["survives_power_loss"], "no");
    assert_eq!(
        made["warnings"][0].as_str().unwrap().split(' ').next(),
        Some("only")
    );
}

#[test]
fn overlay_is_refused_unless_wanted() {
    if skipped() {
        return;
    }
    let room = Mount::of(&["-t", "tmpfs", "-o", "size=96m", "none"]);
    for dir in ["lower", "upper", "work"] {
        fs::create_dir(room.at.join(dir)).unwrap();
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        room.path("lower"),
        room.path("upper"),
        room.path("work")
    );
    let mount = Mount::of(&["-t", "overlay", "-o", &options, "none"]);
    let refused = asl(&["store", "init", &mount.path("store"), "--json"]);
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    assert!(
        json(&refused)["causes"][0]
            .as_str()
            .unwrap()
            .contains("overlay")
    );
}

#[test]
fn a_read_only_file_system_is_refused_and_read() {
    if skipped() {
        return;
    }
    let mount = Mount::of(&["-t", "tmpfs", "-o", "size=96m", "none"]);
    let store = mount.path("store");
    assert!(
        asl(&["store", "init", &store, "--ephemeral"])
            .status
            .success()
    );
    let remount = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&mount.at)
        .status();
    assert!(remount.unwrap().success());
    let refused = asl(&[
        "store",
        "init",
        &mount.path("other"),
        "--ephemeral",
        "--json",
    ]);
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    assert!(
        json(&refused)["causes"][0]
            .as_str()
            .unwrap()
            .contains("read-only")
    );
    let info = asl(&["store", "info", "--store", &store, "--json"]);
    assert!(info.status.success(), "{}", shown(&info));
    assert_eq!(json(&info)["read_only"], true);
    let put = asl(&["put", "/etc/hostname", "--store", &store, "--json"]);
    assert_eq!(put.status.code(), Some(1));
    assert!(
        json(&put)["hint"].as_str().unwrap().contains("remount,rw"),
        "{}",
        shown(&put)
    );
}

#[test]
fn a_place_without_room_is_refused() {
    if skipped() {
        return;
    }
    let mount = Mount::of(&["-t", "tmpfs", "-o", "size=16m", "none"]);
    let refused = asl(&[
        "store",
        "init",
        &mount.path("store"),
        "--ephemeral",
        "--json",
    ]);
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    assert!(
        json(&refused)["causes"][0]
            .as_str()
            .unwrap()
            .contains("64.0 MiB")
    );
}

/// A directory in /mnt is where a disk should be mounted.
#[test]
fn an_empty_mountpoint_is_refused_unless_wanted() {
    if skipped() {
        return;
    }
    let place = Path::new("/mnt").join(format!("asl-test-{}", std::process::id()));
    if fs::create_dir_all(&place).is_err() {
        eprintln!("skipped: /mnt cannot be written");
        return;
    }
    let store = place.join("store");
    let store = store.to_str().unwrap();
    let refused = asl(&["store", "init", store, "--ephemeral", "--json"]);
    let unmounted_ok = asl(&[
        "store",
        "init",
        store,
        "--ephemeral",
        "--unmounted-ok",
        "--json",
    ]);
    let missing = asl(&[
        "store",
        "info",
        "--json",
        "--store",
        &format!("{store}/none"),
    ]);
    fs::remove_dir_all(&place).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    assert!(
        json(&refused)["causes"][0]
            .as_str()
            .unwrap()
            .starts_with("nothing is mounted on")
    );
    assert!(
        json(&missing)["hint"]
            .as_str()
            .unwrap()
            .contains("mount /dev/"),
        "{}",
        shown(&missing)
    );
    assert!(unmounted_ok.status.success(), "{}", shown(&unmounted_ok));
}

/// Covers B10: a disk that fills up costs nothing that was stored.
#[test]
fn a_full_disk_keeps_what_was_stored() {
    if skipped() {
        return;
    }
    let mount = Mount::of(&["-t", "tmpfs", "-o", "size=80m", "none"]);
    let store = mount.path("store");
    assert!(
        asl(&["store", "init", &store, "--ephemeral"])
            .status
            .success()
    );
    let mut keys = Vec::new();
    let failed = loop {
        let mut noise = vec![0; 4 << 20];
        getrandom::fill(&mut noise).unwrap();
        let file = std::env::temp_dir().join(format!("asl-noise-{}", std::process::id()));
        fs::write(&file, &noise).unwrap();
        let put = asl(&["put", file.to_str().unwrap(), "--store", &store, "--json"]);
        fs::remove_file(&file).unwrap();
        if !put.status.success() {
            break put;
        }
        keys.push((json(&put)["key"].as_str().unwrap().to_owned(), noise));
        assert!(keys.len() < 40, "a disk of 80 MiB never fills");
    };
    assert_eq!(failed.status.code(), Some(1), "{}", shown(&failed));
    let error = json(&failed);
    assert!(error["hint"].as_str().unwrap().contains("df -h"), "{error}");
    assert!(keys.len() > 10);
    for (key, noise) in &keys {
        let got = asl(&["get", key, "--store", &store]);
        assert!(got.stdout == *noise, "{key}: {:?}", got.status);
    }
}

/// Covers K3: an ordinary disk, with everything that is promised about it.
#[test]
fn an_ordinary_disk_is_described() {
    if skipped() {
        return;
    }
    let room = tempfile::tempdir().unwrap();
    let image = room.path().join("disk.img");
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
    // A fresh ext4 file system has lost+found, and is free for a store all the same.
    let made = asl(&["store", "init", mount.at.to_str().unwrap(), "--json"]);
    assert!(made.status.success(), "{}", shown(&made));
    let made = json(&made);
    assert_eq!(made["fs_type"], "ext4");
    assert_eq!(made["survives_power_loss"], "yes");
    assert_eq!(made["permissions"], true);
    assert_eq!(made["case_sensitive"], true);
    assert_eq!(made["locks"], true);
    let disks = asl(&["disks", "--json"]);
    assert!(disks.status.success(), "{}", shown(&disks));
    let mount_point = fs::canonicalize(&mount.at).unwrap();
    let text = String::from_utf8(disks.stdout).unwrap();
    assert!(text.contains(mount_point.to_str().unwrap()), "{text}");
}

#[test]
fn a_file_size_limit_is_an_error_and_not_the_end() {
    let room = tempfile::tempdir().unwrap();
    let store = room.path().join("store");
    let store = store.to_str().unwrap();
    assert!(
        asl(&["store", "init", store, "--ephemeral"])
            .status
            .success()
    );
    let file = room.path().join("noise");
    let mut noise = vec![0; 4 << 20];
    getrandom::fill(&mut noise).unwrap();
    fs::write(&file, &noise).unwrap();
    let asl_path = program("asl").get_program().to_string_lossy().into_owned();
    let output = Command::new("bash")
        .args([
            "-c",
            "ulimit -f 1024; \"$0\" put \"$1\" --store \"$2\" --json",
        ])
        .arg(&asl_path)
        .arg(&file)
        .arg(store)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(
        json(&output)["hint"]
            .as_str()
            .unwrap()
            .contains("ulimit -f"),
        "{}",
        shown(&output)
    );
    let put = asl(&["put", file.to_str().unwrap(), "--store", store]);
    assert!(put.status.success(), "{}", shown(&put));
}
