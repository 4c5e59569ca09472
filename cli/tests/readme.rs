//! The session that README.md shows, run as it stands there, with an image file for
//! the disk and a directory for the mounted stick.

use std::path::Path;
use std::process::Command;

/// The commands of the README's first console block.
fn session() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let block = readme.split("```console\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let commands = block.lines().filter_map(|line| line.strip_prefix("$ "));
    commands.map(str::to_owned).collect()
}

/// Directory of the programs under test: the static ones if the caller says so.
fn programs() -> String {
    std::env::var("ASL_TEST_BIN_DIR").unwrap_or_else(|_| {
        let path = Path::new(env!("CARGO_BIN_EXE_asl"));
        path.parent().unwrap().to_str().unwrap().to_owned()
    })
}

/// Covers K3, K4: init, capture, look, verify, export, by the commands that people copy.
#[test]
fn the_session_in_the_readme_works() {
    let commands = session();
    assert_eq!(commands.len(), 10, "ten lines: {commands:#?}");
    // Not in memory: a store there is refused, and rightly so.
    let room = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk = room.path().join("disk.img");
    let mut image = vec![0; 3 << 20];
    let mut noise = blake3::Hasher::new().update(b"readme").finalize_xof();
    noise.fill(&mut image[1 << 20..2 << 20]);
    std::fs::write(&disk, &image).unwrap();
    let mut script = String::new();
    for command in &commands {
        let command = command
            .replace("/dev/sdb", disk.to_str().unwrap())
            .replace("/mnt/usb", room.path().to_str().unwrap());
        // Nothing of this image is unreadable, so there is nothing to try again.
        let expected = i32::from(command.contains("--retries"));
        let quoted = command.replace('"', "'");
        script.push_str(&format!(
            "{command}\ncode=$?\n[ $code = {expected} ] || {{ echo \"exit $code: {quoted}\" >&2; exit 99; }}\n"
        ));
    }
    let path = format!("{}:{}", programs(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(room.path())
        .env("PATH", path)
        .env_remove("ASL_STORE")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}\n{out}");
    assert_eq!(
        std::fs::read(room.path().join("laptop.img")).unwrap(),
        image
    );
    let digest = blake3::hash(&image).to_string();
    assert!(out.contains(&digest), "the digest of the image is shown");
}
