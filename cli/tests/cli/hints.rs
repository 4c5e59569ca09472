//! Commands that are proposed work as they stand, wherever the shell is: each is taken from what was said, and run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::programs::{dir, program, shown};

struct Room {
    room: tempfile::TempDir,
    elsewhere: tempfile::TempDir,
}

impl Room {
    fn at(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.at(name).into_os_string().into_string().unwrap()
    }

    /// What a program says, on both outputs.
    fn says(&self, name: &str, words: &[&str]) -> String {
        let mut command = program(name);
        command.args(words).current_dir(self.elsewhere.path());
        let output = command.env("HOME", self.room.path()).output().unwrap();
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8(both).unwrap()
    }

    /// The command that follows `intro` in what was said, up to what does not belong to it.
    fn proposed(said: &str, intro: &str) -> String {
        let (_, rest) = said
            .split_once(intro)
            .unwrap_or_else(|| panic!("{intro:?} is not said: {said}"));
        let end = rest.find([';', '\n', ')']).unwrap_or(rest.len());
        rest[..end].trim().to_owned()
    }

    /// Runs a command as it was proposed, words in capitals replaced, in a directory that has nothing to do with it.
    fn runs(&self, proposed: &str, words: &[(&str, &str)], exits: &[i32]) -> String {
        let mut line = proposed.to_owned();
        for (capitals, instead) in words {
            line = line.replace(capitals, instead);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).current_dir(self.elsewhere.path());
        shell.env_clear().env("HOME", self.room.path());
        shell.env("PATH", format!("{}:{path}", dir().display()));
        let output = shell.output().unwrap();
        let code = output.status.code().unwrap();
        assert!(exits.contains(&code), "{line}: {}", shown(&output));
        shown(&output)
    }
}

#[test]
fn what_is_proposed_works_as_it_stands_from_anywhere() {
    let room = Room {
        room: tempfile::tempdir().unwrap(),
        elsewhere: tempfile::tempdir().unwrap(),
    };
    let (store, pass) = (room.path("usb"), room.path("pass"));
    fs::write(&pass, "correct horse battery staple\n").unwrap();
    fs::write(room.at("disk"), [7; 4096]).unwrap();
    let here = ["--store", &store];
    let says = |name, words: &[&str]| room.says(name, &[words, &here].concat());
    room.says("asl", &["store", "init", &store, "--ephemeral"]);

    // An empty store: what to do first.
    let proposed = Room::proposed(&says("asl", &["store", "snapshots"]), "make one: ");
    room.runs(&proposed, &[], &[0]);
    let proposed = Room::proposed(&says("asl", &["captures"]), "make one: ");
    let disk = room.path("disk");
    room.runs(&proposed, &[("/dev/DISK", &disk)], &[0]);
    let proposed = Room::proposed(&says("asl", &["domain", "show"]), "found one: ");
    let told = room.runs(&proposed, &[], &[14]);
    assert!(
        told.contains("flags are missing to mint a domain"),
        "{told}"
    );

    let mint = [
        "domain",
        "mint",
        "--name",
        "attic",
        "--passphrase-file",
        &pass,
        "--no-recovery",
        "--yes",
        "--ephemeral",
    ];
    let minted = says("asl", &mint);
    assert!(minted.contains("private keys"), "{minted}");
    // What nobody signed.
    let verified = says("asl", &["domain", "verify"]);
    let proposed = Room::proposed(&verified, "to sign: ");
    room.runs(&proposed, &[("FILE", &pass)], &[0]);
    let again = says("asl", &["domain", "verify"]);
    assert!(
        again.contains("everything that was signed counts"),
        "{again}"
    );
    let captured = says("asl-capture", &["disk", &disk, "--new", "--label", "again"]);
    let proposed = Room::proposed(&captured, "to sign its receipt: ");
    room.runs(&proposed, &[("FILE", &pass)], &[0]);
    let again = says("asl", &["domain", "verify"]);
    assert!(
        again.contains("everything that was signed counts"),
        "{again}"
    );

    // Errors.
    for (words, intro, exits) in [
        (
            &[
                "domain",
                "mint",
                "--name",
                "x",
                "--passphrase-file",
                &pass,
                "--no-recovery",
                "--yes",
                "--ephemeral",
            ][..],
            "see it: ",
            &[0][..],
        ),
        (&["show", "none"], "list what there is: ", &[0]),
        (&["store", "init", &store], "use it as it is: ", &[0]),
        (
            &["export", "again", "out", "--range", "1G:1"],
            "see its size: ",
            &[0],
        ),
    ] {
        let said = match words[0] {
            "store" => room.says("asl", words),
            _ => says("asl", words),
        };
        room.runs(
            &Room::proposed(&said, intro),
            &[("CAPTURE", "again")],
            exits,
        );
    }
}
