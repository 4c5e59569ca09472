//! Stores that are newer than the program, or not what they were.

use std::fs;
use std::path::PathBuf;

use asl_store::format::log_header;

use super::programs::{asl, shown};

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
