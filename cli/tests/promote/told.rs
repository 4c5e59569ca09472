//! What a promotion says: 80 columns wide whatever things are called, and what is remembered, retired or asked for in words that can be
//! acted upon.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::domains::mint;
use super::{PASSPHRASE, asl_at, copy, does, init, json, program};

/// As long as a domain's name may be.
const NAME: &str = "the stick that lay in the drawer of the kitchen for eleven years";

struct Room {
    dir: tempfile::TempDir,
    id: String,
}

impl Room {
    /// A store `usb` with a capture of each of these labels, and a domain of a long name.
    fn new(labels: &[&str]) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::write(dir.path().join("pass"), PASSPHRASE).unwrap();
        init(&dir.path().join("usb"), &["--block-size", "1M"]);
        let mut room = Self {
            dir,
            id: String::new(),
        };
        for label in labels {
            room.capture(label);
        }
        room.id = mint(asl_at(&room.at("usb")), NAME, &room.at("pass"), None);
        room
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn capture(&self, label: &str) {
        let mut disk = vec![0; 2 << 20];
        let mut noise = blake3::Hasher::new();
        noise
            .update(label.as_bytes())
            .finalize_xof()
            .fill(&mut disk);
        fs::write(self.at("disk"), disk).unwrap();
        let words = [
            "disk", "disk", "--new", "--label", label, "--store", "usb", "--quiet",
        ];
        let done = self.run("asl-capture", &words);
        assert!(done.status.success(), "{done:?}");
    }

    fn command(&self, name: &str, words: &[&str]) -> Command {
        let mut command = program(name);
        command.args(words).current_dir(self.dir.path());
        command.env("ASL_STATE", self.at("state"));
        command
    }

    fn run(&self, name: &str, words: &[&str]) -> Output {
        self.command(name, words).output().unwrap()
    }

    fn promotion(&self, from: &str, more: &[&str]) -> Command {
        let words = [from, "--into", "home", "--expect", &self.id, "--yes"];
        let mut command = self.command("asl-promote", &words);
        command.args(["--passphrase-file", "pass"]).args(more);
        command
    }

    /// What a command prints, which must end with `exit` and be 80 columns wide.
    fn says(&self, mut command: Command, exit: i32) -> String {
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            output.status.code(),
            Some(exit),
            "{command:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        for line in said.lines() {
            assert!(line.chars().count() <= 80, "{command:?}: {line}\n{said}");
        }
        said
    }
}

const AS_NEW: [&str; 5] = ["--as-new", "--name", NAME, "--no-recovery", "--ephemeral"];

fn in_one_line(said: &str) -> String {
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn whatever_things_are_called_80_columns_are_enough() {
    let long = "a label that is as long as somebody who is tired may well make it, or longer";
    let room = Room::new(&[long]);
    let cut = [
        "disk", "disk", "--new", "--range", "0:4K", "--store", "usb", "--quiet",
    ];
    assert_eq!(room.run("asl-capture", &cut).status.code(), Some(1));
    let asl_promote = |words: &[&str]| room.command("asl-promote", words);
    let new = |more: &[&str]| room.promotion("usb", &[&AS_NEW[..], more].concat());
    let offered = room.says(new(&["--dry-run"]), 0);
    for part in [
        NAME.get(..30).unwrap(),
        "captures that come: 1",
        "stays behind",
    ] {
        assert!(offered.contains(part), "{offered}");
    }
    let status = |of: &'static str| asl_promote(&["status", of]);
    room.says(new(&[]), 0);
    assert!(room.says(status("home"), 0).contains("adopted from"));
    room.says(new(&[]), 0);
    room.says(room.promotion("usb", &["--dry-run"]), 0);

    // Another history, and a damaged one.
    copy(&room.at("usb"), &room.at("other"));
    for store in ["usb", "other"] {
        for words in ["one", "two", store] {
            fs::write(room.at("file"), format!("{words} {store}")).unwrap();
            does(asl_at(&room.at(store)).arg("put").arg(room.at("file")));
        }
    }
    room.says(room.promotion("usb", &[]), 0);
    room.says(room.promotion("other", &["--fork", "--dry-run"]), 0);
    room.says(room.promotion("other", &["--fork"]), 0);
    room.says(status("home"), 0);
    let taken = large_blocks(&room.at("usb"));
    room.capture("and one more");
    let fresh: Vec<_> = large_blocks(&room.at("usb"))
        .difference(&taken)
        .cloned()
        .collect();
    assert!(!fresh.is_empty());
    fresh.iter().for_each(|block| flip_end(block));
    let accepted = ["--accept-damaged"];
    let damaged = room.says(
        room.promotion("usb", &[&accepted[..], &["--dry-run"]].concat()),
        3,
    );
    assert!(damaged.contains("DAMAGED: "), "{damaged}");
    room.says(room.promotion("usb", &accepted), 3);

    // Given up.
    let retire = ["--retire-source", "--rescue-passphrase-file", "pass"];
    let retired = room.says(room.promotion("usb", &[&accepted[..], &retire].concat()), 3);
    assert!(
        retired.contains("MISSING") || retired.contains("before"),
        "{retired}"
    );
    room.says(status("usb"), 0);
}

/// The blocks of a store that are worth being brought as they are.
fn large_blocks(store: &Path) -> BTreeSet<PathBuf> {
    let entries = walkdir::WalkDir::new(store.join("blocks/sealed")).into_iter();
    let entries = entries.map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_type().is_file() && entry.metadata().unwrap().len() > 600 << 10)
        .map(walkdir::DirEntry::into_path)
        .collect()
}

/// Damages what a block says at its end of its contents.
fn flip_end(block: &Path) {
    let mut bytes = fs::read(block).unwrap();
    let at = bytes.len() - 400;
    bytes[at] ^= 1;
    fs::write(block, bytes).unwrap();
}

/// A store that was given up says so wherever its domain is shown, and for whom.
#[test]
fn a_store_that_was_given_up_says_for_whom() {
    let room = Room::new(&["x"]);
    let show = |verb: &str| room.command("asl", &["domain", verb, "--store", "usb"]);
    for verb in ["show", "verify"] {
        let shown = json(&mut show(verb)).1;
        assert_eq!(shown["retired"], Value::Null);
    }
    let retire = ["--retire-source", "--rescue-passphrase-file", "pass"];
    let (code, promoted) = json(&mut room.promotion("usb", &[&AS_NEW[..], &retire].concat()));
    assert_eq!(
        (code, &promoted["retired"]),
        (0, &true.into()),
        "{promoted}"
    );
    let parent = promoted["parent_domain"].as_str().unwrap();
    for verb in ["show", "verify"] {
        let (code, shown) = json(&mut show(verb));
        let exit = if verb == "show" { 0 } else { code };
        assert_eq!(shown["retired"]["domain_id"], parent, "{shown}");
        assert!(
            shown["retired"]["log_position"].as_u64() > Some(0),
            "{shown}"
        );
        let said = room.says(show(verb), exit);
        let line = said.lines().position(|line| line.starts_with("RETIRED"));
        let line = line.unwrap_or_else(|| panic!("{said}"));
        let next = said.lines().nth(line + 1).unwrap();
        assert_eq!(next.trim(), parent, "{said}");
    }
    // The one that it became a part of was not given up.
    let mut home = room.command("asl", &["domain", "show", "--root", "home"]);
    assert_eq!(json(&mut home).1["retired"], Value::Null);
}

/// A label may have commas in it: the whole of what was given is looked for first.
#[test]
fn a_label_with_commas_is_a_label() {
    let room = Room::new(&["big, old", "big", "small", "c,d"]);
    let labels = |more: &[&str]| -> (i32, Vec<String>) {
        let more = [&AS_NEW[..], &["--dry-run"], more].concat();
        let (code, offer) = json(&mut room.promotion("usb", &more));
        let captures = offer["captures"].as_array().into_iter().flatten();
        let mut labels: Vec<String> = captures
            .map(|capture| capture["label"].as_str().unwrap().to_owned())
            .collect();
        labels.sort();
        (code, labels)
    };
    let are = |labels: &[&str]| (0, labels.iter().map(|label| (*label).to_owned()).collect());
    assert_eq!(labels(&["--captures", "big, old"]), are(&["big, old"]));
    assert_eq!(labels(&["--captures", "big,small"]), are(&["big", "small"]));
    let repeated = [
        "--captures",
        "c,d",
        "--captures",
        "small",
        "--captures",
        "big, old",
    ];
    assert_eq!(labels(&repeated), are(&["big, old", "c,d", "small"]));
    assert_eq!(labels(&["--captures", "big,none"]), (1, Vec::new()));
}

/// What is not remembered, where, what is lost by that, and what to do: nobody looks for it until it is too late.
#[test]
fn who_cannot_remember_is_told_what_that_costs() {
    let room = Room::new(&["x"]);
    let promote = |state: &Path| {
        let mut command = room.promotion("usb", &AS_NEW);
        let output = command.env("ASL_STATE", state).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        in_one_line(&String::from_utf8(output.stderr).unwrap())
    };
    // Nothing can be made there, not even by root.
    let told = promote(Path::new("/proc/asl-state"));
    for part in [
        "warning: how far this domain was seen is not remembered in /proc/asl-state: cannot make",
        "an older copy of it, or one that was changed, is not noticed",
        "export ASL_STATE=DIR",
        "repeat the command",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // What it says helps.
    let told = promote(&room.at("state"));
    assert!(!told.contains("not remembered"), "{told}");
    let list = json(&mut room.command("asl", &["trust", "list"])).1;
    assert_eq!(list["domains"][0]["domain_id"], room.id, "{list}");
    // `asl domain verify` moves what is remembered, too.
    fs::write(room.at("file"), "more").unwrap();
    does(asl_at(&room.at("usb")).arg("put").arg(room.at("file")));
    let in_the_way = room
        .at("state/trust")
        .join(format!("{}.trust.new", room.id));
    fs::create_dir(&in_the_way).unwrap();
    fs::write(in_the_way.join("file"), "").unwrap();
    let verify = ["domain", "verify", "--store", "usb"];
    let output = room.run("asl", &verify);
    let told = in_one_line(&String::from_utf8(output.stderr).unwrap());
    let place = format!("is not remembered in {}", room.at("state").display());
    assert!(told.contains(&place), "{told}");
}
