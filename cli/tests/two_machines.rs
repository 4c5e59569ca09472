//! Two machines' worth of one personal domain: each captures, puts and removes in a store of its own; they meet in a directory that
//! both can reach, by a program that is killed again and again; in the end they are equal and nothing is lost.

#[path = "support/domains.rs"]
mod domains;
#[path = "support/killing.rs"]
mod killing;
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use domains::{does, init, mint};
use killing::killed_after;
use support::{json, program};

const PASSPHRASE: &str = "correct horse battery staple";

struct Machine {
    store: PathBuf,
    state: PathBuf,
}

impl Machine {
    fn new(room: &Path, name: &str) -> Self {
        Self {
            store: room.join(name),
            state: room.join(format!("{name}.state")),
        }
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = program(name);
        command
            .env("ASL_STORE", &self.store)
            .env("ASL_STATE", &self.state)
            .args(arguments);
        command
    }

    fn put(&self, room: &Path, bytes: &[u8]) -> String {
        let file = room.join("file");
        std::fs::write(&file, bytes).unwrap();
        let put = does(self.run("asl", &["put"]).arg(&file));
        put["key"].as_str().unwrap().to_owned()
    }

    fn remove(&self, key: &str) {
        does(&mut self.run("asl", &["rm", key]));
    }

    fn capture(&self, room: &Path, image: &[u8]) -> String {
        let disk = room.join(format!("{}.img", blake3::hash(image).to_hex()));
        std::fs::write(&disk, image).unwrap();
        let captured = does(self.run("asl-capture", &["disk"]).arg(&disk));
        captured["capture"].as_str().unwrap().to_owned()
    }

    /// What `asl ls` shows.
    fn keys(&self) -> BTreeSet<String> {
        let listed = does(&mut self.run("asl", &["ls"]));
        let listed = listed["artifacts"].as_array().unwrap().iter();
        listed
            .map(|line| line["key"].as_str().unwrap().to_owned())
            .collect()
    }

    fn captures(&self) -> BTreeSet<String> {
        let listed = does(&mut self.run("asl", &["captures"]));
        let listed = listed["captures"].as_array().unwrap().iter();
        listed
            .map(|line| line["capture"].as_str().unwrap().to_owned())
            .collect()
    }

    fn exports(&self, room: &Path, capture: &str, image: &[u8]) {
        let out = room.join("out.img");
        let _ = std::fs::remove_file(&out);
        does(self.run("asl", &["export", capture]).arg(&out));
        assert!(
            std::fs::read(&out).unwrap() == image,
            "the exported image equals the source"
        );
    }
}

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(seed.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Covers I7, L8, L9. Everyday 6 kills, with `ASL_TEST_ALL` 40.
#[test]
fn two_machines_of_one_domain_meet_and_are_equal() {
    let kills = if std::env::var_os("ASL_TEST_ALL").is_some() {
        40
    } else {
        6
    };
    let room = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let room = room.path();
    let pass = room.join("pass");
    std::fs::write(&pass, PASSPHRASE).unwrap();
    let (attic, cellar) = (Machine::new(room, "attic"), Machine::new(room, "cellar"));

    init(&attic.store, &["--block-size", "4M"]);
    let domain = mint(attic.run("asl", &[]), "home", &pass, None);
    let shared = attic.put(room, b"both had this before they parted");
    does(
        cellar
            .run("asl", &["store", "sync", "--expect", &domain])
            .arg(&attic.store),
    );

    // Each goes its way.
    let (disk_a, disk_b) = (noise("a", 24 << 20), noise("b", 24 << 20));
    let capture_a = attic.capture(room, &disk_a);
    let capture_b = cellar.capture(room, &disk_b);
    let only_a = attic.put(room, b"put in the attic");
    let both = b"put on either side, removed on one";
    let contested = attic.put(room, both);
    assert_eq!(cellar.put(room, both), contested);
    // The cellar removes what it has seen of the attic, and its own put of the contested bytes.
    cellar.remove(&shared);
    cellar.remove(&contested);

    // They meet, and are interrupted.
    let sync = |from: &Machine, into: &Machine| {
        let mut command = into.run("asl", &["store", "sync"]);
        command.arg(&from.store);
        command
    };
    let mut random = blake3::Hasher::new().update(b"kills").finalize_xof();
    for kill in 0..kills {
        let mut byte = [0];
        random.fill(&mut byte);
        let mut command = if kill % 2 == 0 {
            sync(&attic, &cellar)
        } else {
            sync(&cellar, &attic)
        };
        killed_after(&mut command, Duration::from_millis(byte[0].into()));
        for machine in [&attic, &cellar] {
            let verified = does(&mut machine.run("asl", &["store", "verify"]));
            assert_eq!(verified["ok"], true, "{verified}");
        }
    }
    does(&mut sync(&attic, &cellar));
    does(&mut sync(&cellar, &attic));
    let different = does(attic.run("asl", &["store", "diff"]).arg(&cellar.store));
    assert_eq!(different["equal"], true, "{different}");

    // The attic's put of the contested bytes was not seen by who removed them: it stays. What was seen is gone.
    for machine in [&attic, &cellar] {
        let keys = machine.keys();
        assert!(
            keys.contains(&only_a) && keys.contains(&contested),
            "{keys:?}"
        );
        assert!(!keys.contains(&shared), "{keys:?}");
        assert_eq!(
            machine.captures(),
            BTreeSet::from([capture_a.clone(), capture_b.clone()])
        );
        machine.exports(room, &capture_a, &disk_a);
        machine.exports(room, &capture_b, &disk_b);
        let (code, proven) =
            json(&mut machine.run("asl", &["domain", "verify", "--expect", &domain]));
        assert!(code == 0 || code == 13, "{proven}");
    }
    assert_eq!(attic.keys(), cellar.keys());

    // A sync with nothing to bring changes nothing.
    does(&mut sync(&attic, &cellar));
    let different = does(cellar.run("asl", &["store", "diff"]).arg(&attic.store));
    assert_eq!(different["equal"], true, "{different}");
}
