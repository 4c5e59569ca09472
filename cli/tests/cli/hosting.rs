//! A second machine's keys, on a terminal: what is typed twice, what is shown, and what is asked before anything is granted.

use std::path::Path;
use std::process::Command;

use super::minting::{PASSPHRASE, Room, Wizard};
use super::programs::{program, shown};

/// `asl` with these words about a store.
fn at(store: &str, words: &[&str]) -> Command {
    let mut command = program("asl");
    command.args(words).args(["--store", store]);
    command
}

/// What stands after `fingerprint: ` on the screen.
fn fingerprint(wizard: &Wizard) -> String {
    let screen = wizard.terminal.shown();
    let line = screen
        .lines()
        .find_map(|line| line.trim().strip_prefix("fingerprint: "));
    line.unwrap_or_else(|| panic!("no fingerprint: {screen}"))
        .trim()
        .to_owned()
}

/// Both screens show one fingerprint, nobody grants by pressing Enter alone, and who grants is asked for the passphrase last.
#[test]
fn the_screens_are_compared_before_anything_is_granted() {
    let room = Room::new();
    let minted = room.mint(&["--name", "attic", "--no-recovery"]);
    assert!(minted.status.success(), "{}", shown(&minted));
    let copy = room.dir.path().join("copy");
    let copy = copy.to_str().unwrap();
    let id = room.domain().id().to_string();
    let store = room.store.to_str().unwrap();
    let sync = ["store", "sync", store, "--expect", &id, "--ephemeral"];
    let synced = at(copy, &sync).output().unwrap();
    assert!(synced.status.success(), "{}", shown(&synced));

    let request = room.dir.path().join("cellar.host");
    let request = request.to_str().unwrap();
    let ask = [
        "domain",
        "host",
        "request",
        "--out",
        request,
        "--name",
        "cellar",
        "--ephemeral",
    ];
    let mut there = Wizard::start(&at(copy, &ask), "vt220");
    there.answer("passphrase for this machine's keys: ", "another one\r");
    there.answer("the same again: ", "another one\r");
    there.see("After that, here:");
    there.see("asl store sync OTHER --store ");
    there.ends(0);
    let theirs = fingerprint(&there);
    assert!(
        !there.terminal.text().contains("another one"),
        "typed unseen"
    );
    // Once there are keys, they are unlocked.
    let mut again = Wizard::start(&at(copy, &ask), "vt220");
    again.answer("passphrase of this machine's keys: ", "another one\r");
    again.see("asked for again");
    again.ends(0);
    assert_eq!(fingerprint(&again), theirs);

    let before = room.tree();
    let add = ["domain", "host", "add", request];
    for no in ["\r", "n\r"] {
        let mut here = Wizard::start(&room.command(&add), "vt220");
        here.see("it may sign receipts of what it captures");
        here.answer("Does the other machine show this fingerprint? [y/N]", no);
        here.ends(11);
        assert_eq!(fingerprint(&here), theirs);
        assert!(room.tree() == before, "nothing was written");
    }
    // `--yes` says nothing about what was seen.
    let mut here = Wizard::start(&room.command(&[&add[..], &["--yes"]].concat()), "vt220");
    here.see("--expect FINGERPRINT");
    here.ends(14);
    let mut here = Wizard::start(&room.command(&add), "vt220");
    here.answer("Does the other machine show this fingerprint? [y/N]", "y\r");
    here.answer("passphrase of the keys: ", &format!("{PASSPHRASE}\r"));
    here.see("there: asl store sync OTHER");
    here.ends(0);
    assert_eq!(room.domain().chain.head().dam.principals.len(), 4);
    assert!(Path::new(request).exists());
}
