//! Stores that are newer than the program, or not what they were.

use std::fs;
use std::path::PathBuf;

use asl_store::format::log_header;

use super::programs::{asl, dir, program, shown};

/// A store with a few artifacts.
struct Harmed {
    room: tempfile::TempDir,
    keys: Vec<String>,
}

impl Harmed {
    fn new() -> Self {
        let room = tempfile::tempdir().unwrap();
        let mut harmed = Self {
            room,
            keys: Vec::new(),
        };
        let made = harmed.asl(&[
            "store",
            "init",
            harmed.store().to_str().unwrap(),
            "--ephemeral",
        ]);
        assert!(made.status.success(), "{}", shown(&made));
        for n in 0..4 {
            let file = harmed.room.path().join("file");
            fs::write(&file, format!("artifact {n}")).unwrap();
            let put = harmed.asl(&["put", file.to_str().unwrap()]);
            assert!(put.status.success(), "{}", shown(&put));
            harmed
                .keys
                .push(String::from_utf8(put.stdout).unwrap().trim().to_owned());
        }
        harmed
    }

    fn store(&self) -> PathBuf {
        self.room.path().join("store")
    }

    fn log(&self) -> PathBuf {
        self.store().join("log/log-0000000000000000.asl")
    }

    fn asl(&self, arguments: &[&str]) -> std::process::Output {
        let store = self.store();
        let mut all = arguments.to_vec();
        all.extend(["--store", store.to_str().unwrap()]);
        asl(&all)
    }
}

fn object(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", shown(output)))
}

#[test]
fn a_newer_store_is_left_alone() {
    let harmed = Harmed::new();
    let mut log = fs::read(harmed.log()).unwrap();
    log_header::VERSION.set(&mut log, 2u16);
    let crc = crc32c::crc32c(&log[..log_header::CRC.offset]);
    log_header::CRC.set(&mut log, crc);
    fs::write(harmed.log(), &log).unwrap();
    for arguments in [&["ls", "--json"][..], &["put", "/dev/null", "--json"]] {
        let refused = harmed.asl(arguments);
        assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
        let hint = object(&refused)["hint"].as_str().unwrap().to_owned();
        assert!(hint.contains("a newer asl than"), "{hint}");
    }
    assert_eq!(fs::read(harmed.log()).unwrap(), log);
}

#[test]
fn a_damaged_log_is_read_up_to_there_and_not_written() {
    let harmed = Harmed::new();
    let mut log = fs::read(harmed.log()).unwrap();
    let at = log.len() * 2 / 3;
    log[at] ^= 1;
    fs::write(harmed.log(), &log).unwrap();

    let listed = harmed.asl(&["ls", "--json"]);
    assert!(listed.status.success(), "{}", shown(&listed));
    let count = object(&listed)["count"].as_u64().unwrap();
    assert!((1..4).contains(&count), "{count}");
    assert!(String::from_utf8_lossy(&listed.stderr).contains("the log is damaged"));
    let got = harmed.asl(&["get", &harmed.keys[0]]);
    assert_eq!(got.stdout, b"artifact 0", "{}", shown(&got));

    let put = harmed.asl(&["put", "/dev/null", "--json"]);
    assert_eq!(put.status.code(), Some(10), "{}", shown(&put));
    assert!(
        object(&put)["hint"]
            .as_str()
            .unwrap()
            .contains("asl store repair")
    );

    // One object, the records before the damage and the error in it.
    let records = harmed.asl(&["store", "log", "--json"]);
    assert_eq!(records.status.code(), Some(10), "{}", shown(&records));
    let records = object(&records);
    assert!(!records["records"].as_array().unwrap().is_empty());
    assert_eq!(records["exit"], 10);
}

fn largest_block(store: &std::path::Path) -> PathBuf {
    let shards = fs::read_dir(store.join("blocks/sealed")).unwrap();
    let files = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
    files
        .map(|file| file.unwrap().path())
        .max_by_key(|file| fs::metadata(file).unwrap().len())
        .unwrap()
}

/// The command in a hint that begins with these words, up to where the sentence goes on.
fn hinted(output: &std::process::Output, words: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let from = said
        .find(words)
        .unwrap_or_else(|| panic!("{}", shown(output)));
    let rest = &said[from..];
    let end = rest.find([';', '\n']).unwrap_or(rest.len());
    rest[..end].to_owned()
}

/// What somebody copies from the screen.
fn typed(command: &str) -> std::process::Output {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(dir()).chain(std::env::split_paths(&path));
    std::process::Command::new("sh")
        .args(["-c", command])
        .env("PATH", std::env::join_paths(dirs).unwrap())
        .output()
        .unwrap()
}

/// From a file that cannot be read over two hints to a store that is whole again.
#[test]
fn one_hint_after_the_other_heals_what_rotted() {
    let harmed = Harmed::new();
    let (store, mirror) = (harmed.store(), harmed.room.path().join("a mirror"));
    let mirrored = asl(&[
        "store",
        "sync",
        store.to_str().unwrap(),
        "--store",
        mirror.to_str().unwrap(),
        "--expect",
        "none",
        "--ephemeral",
    ]);
    assert!(mirrored.status.success(), "{}", shown(&mirrored));
    for place in [300, 70] {
        let file = largest_block(&store);
        let whole = fs::read(&file).unwrap();
        let mut rotted = whole.clone();
        rotted[place] ^= 1;
        fs::write(&file, &rotted).unwrap();
        let got = harmed.keys.iter().map(|key| harmed.asl(&["get", key]));
        let failed = got.into_iter().find(|got| !got.status.success());
        let verify = hinted(&failed.expect("it cannot be read"), "asl store verify");
        let found = typed(&verify);
        assert_eq!(found.status.code(), Some(10), "{}", shown(&found));
        // Without a flag only lengths are compared, and nobody says more than that.
        let path = mirror.to_str().unwrap();
        let compared = harmed.asl(&["store", "sync", path]);
        assert!(compared.status.success(), "{}", shown(&compared));
        assert!(
            compared
                .stdout
                .ends_with(b"both have the same records now\n")
        );
        assert_eq!(fs::read(&file).unwrap(), rotted);
        let heal = hinted(&found, "asl store sync OTHER");
        let healed = typed(&heal.replace("OTHER", &format!("'{path}'")));
        assert!(healed.status.success(), "{}", shown(&healed));
        assert_eq!(fs::read(&file).unwrap(), whole);
        let clean = typed(&verify);
        assert!(clean.status.success(), "{}", shown(&clean));
        for key in &harmed.keys {
            let got = harmed.asl(&["get", key]);
            assert!(got.status.success(), "{}", shown(&got));
        }
    }
}

/// What only this store has is not read by a sync, and it does not say so.
#[test]
fn a_sync_says_of_no_block_that_it_was_read_that_was_not() {
    let harmed = Harmed::new();
    let mirror = harmed.room.path().join("mirror");
    let (store, path) = (harmed.store(), mirror.to_str().unwrap());
    let mut make = vec!["store", "sync", store.to_str().unwrap(), "--store", path];
    make.extend(["--expect", "none", "--ephemeral"]);
    let mirrored = asl(&make);
    assert!(mirrored.status.success(), "{}", shown(&mirrored));
    let sync = ["store", "sync", path, "--verify", "--json"];
    let equal = object(&harmed.asl(&sync));
    assert_eq!(equal["verified"], true, "{equal}");
    let file = harmed.room.path().join("more");
    fs::write(&file, "one more").unwrap();
    let put = harmed.asl(&["put", file.to_str().unwrap()]);
    assert!(put.status.success(), "{}", shown(&put));
    let ahead = object(&harmed.asl(&sync));
    assert_eq!(ahead["instances"][0]["outcome"], "ahead", "{ahead}");
    assert_eq!(ahead["verified"], false, "{ahead}");
}

/// A mirror that did not come to be has no log: the hint names again what it is to be of, and works as it stands.
#[test]
fn the_hint_for_a_mirror_of_a_damaged_store_works_as_it_stands() {
    let harmed = Harmed::new();
    let mirror = harmed.room.path().join("a mirror");
    let store = harmed.store();
    let file = largest_block(&store);
    let mut rotted = fs::read(&file).unwrap();
    rotted[300] ^= 1;
    fs::write(&file, &rotted).unwrap();
    let mut make = vec!["store", "sync", store.to_str().unwrap(), "--store"];
    make.extend([mirror.to_str().unwrap(), "--expect", "none", "--ephemeral"]);
    let refused = asl(&make);
    assert_eq!(refused.status.code(), Some(10), "{}", shown(&refused));
    let seen = typed(&hinted(&refused, "asl store verify"));
    assert_eq!(seen.status.code(), Some(10), "{}", shown(&seen));
    let taken = typed(&hinted(&refused, "asl store sync"));
    assert_eq!(taken.status.code(), Some(3), "{}", shown(&taken));
    assert!(mirror.join("log/log-0000000000000000.asl").exists());
}

/// A directory where a block was: told of, with what to do, and the next sync after that heals.
#[test]
fn what_is_in_the_way_of_a_whole_block_is_told_and_moved_away() {
    let harmed = Harmed::new();
    let mirror = harmed.room.path().join("mirror");
    let (store, path) = (harmed.store(), mirror.to_str().unwrap());
    let mut make = vec!["store", "sync", store.to_str().unwrap(), "--store", path];
    make.extend(["--expect", "none", "--ephemeral"]);
    let mirrored = asl(&make);
    assert!(mirrored.status.success(), "{}", shown(&mirrored));
    let file = largest_block(&store);
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let told = harmed.asl(&["store", "sync", path, "--verify"]);
    assert_eq!(told.status.code(), Some(10), "{}", shown(&told));
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(said.contains("the other copy is whole"), "{said}");
    let found = object(&harmed.asl(&["store", "sync", path, "--verify", "--json"]));
    let damaged = &found["instances"][0]["damaged"][0];
    assert!(
        damaged["kept"].as_str().unwrap().contains("rename"),
        "{found}"
    );
    fs::remove_dir(&file).unwrap();
    let healed = typed(&hinted(&told, "asl store sync"));
    assert!(healed.status.success(), "{}", shown(&healed));
    assert_eq!(fs::read(&file).unwrap(), whole);
}

/// One wrong byte is found, and what it hits is named.
#[test]
fn verify_names_the_captures_and_ranges_that_damage_hits() {
    let harmed = Harmed::new();
    let mut image = vec![0; 3 << 20];
    getrandom::fill(&mut image).unwrap();
    let source = harmed.room.path().join("disk.img");
    fs::write(&source, &image).unwrap();
    let capture = |label: &str| {
        let output = program("asl-capture")
            .args([
                "disk",
                source.to_str().unwrap(),
                "--new",
                "--json",
                "--label",
                label,
            ])
            .args([
                "--compression",
                "none",
                "--store",
                harmed.store().to_str().unwrap(),
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", shown(&output));
        object(&output)["capture"].as_str().unwrap().to_owned()
    };
    let (first, second) = (capture("first"), capture("second"));
    let whole = harmed.asl(&["store", "verify", "--json"]);
    assert!(whole.status.success(), "{}", shown(&whole));
    assert_eq!(object(&whole)["ok"], true);

    // Byte 1234567 of the image, wherever it is stored.
    let block = largest_block(&harmed.store());
    let mut bytes = fs::read(&block).unwrap();
    let needle = &image[1_234_567..1_234_567 + 64];
    let at = bytes
        .windows(64)
        .position(|window| window == needle)
        .unwrap();
    bytes[at] ^= 0x40;
    fs::write(&block, &bytes).unwrap();

    let found = harmed.asl(&["store", "verify", "--json"]);
    assert_eq!(found.status.code(), Some(10), "{}", shown(&found));
    let found = object(&found);
    assert_eq!(found["ok"], false);
    let damage = &found["damage"][0];
    assert!(
        block.ends_with(damage["file"].as_str().unwrap()),
        "{damage}"
    );
    let mut ids = [first, second];
    ids.sort();
    assert_eq!(damage["captures"], serde_json::json!(ids));
    for range in damage["ranges"].as_array().unwrap() {
        let (start, len) = (range[1].as_u64().unwrap(), range[2].as_u64().unwrap());
        assert!((start..start + len).contains(&1_234_567), "{range}");
        assert!(len <= 1 << 20, "{range}");
    }
    assert_eq!(damage["ranges"].as_array().unwrap().len(), 2);

    let exported = harmed.room.path().join("out.img");
    let export = harmed.asl(&["export", "first", exported.to_str().unwrap(), "--json"]);
    assert_eq!(export.status.code(), Some(3), "{}", shown(&export));
    let out = fs::read(&exported).unwrap();
    let wrong = out
        .iter()
        .zip(&image)
        .filter(|(came, was)| came != was && **came != 0);
    assert_eq!(
        wrong.count(),
        0,
        "a byte that is neither right nor the fill"
    );
}

/// A store whose log is gone: every command that cannot go on names the one that can, and that one brings everything back.
#[test]
fn a_store_without_its_log_says_how_it_gets_one_again() {
    for whole in [true, false] {
        let harmed = Harmed::new();
        if whole {
            fs::remove_dir_all(harmed.store().join("log")).unwrap();
        } else {
            fs::write(harmed.log(), "").unwrap();
        }
        for command in [
            &["captures"][..],
            &["store", "repair"],
            &["store", "verify"],
        ] {
            let output = harmed.asl(command);
            assert_eq!(output.status.code(), Some(10), "{}", shown(&output));
            let told = String::from_utf8(output.stderr).unwrap();
            let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
            let again = format!(
                "asl store repair --accept-lost-records --store {}",
                harmed.store().display()
            );
            assert!(told.contains(&again), "{command:?}: {told}");
        }
        let repaired = harmed.asl(&["store", "repair", "--accept-lost-records"]);
        assert!(repaired.status.success(), "{}", shown(&repaired));
        for key in &harmed.keys {
            let got = harmed.asl(&["get", key]);
            assert!(got.status.success(), "{}", shown(&got));
        }
    }
}
