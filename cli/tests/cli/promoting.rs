//! Promoting by questions, on a terminal; being stopped, and what is left then.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::minting::{Wizard, files_below};
use super::programs::{program, shown};

const RESCUE: &str = "able baker charlie";
const MINE: &str = "correct horse battery";

/// A rescue store, and a root with a domain of one's own.
struct Room {
    dir: tempfile::TempDir,
    id: String,
}

impl Room {
    fn new(bytes: usize) -> Self {
        let mut room = Self {
            dir: tempfile::tempdir().unwrap(),
            id: String::new(),
        };
        fs::write(room.at("rescue.pass"), format!("{RESCUE}\n")).unwrap();
        fs::write(room.at("mine.pass"), format!("{MINE}\n")).unwrap();
        let mut disk = vec![0; bytes];
        blake3::Hasher::new()
            .update(b"promoting")
            .finalize_xof()
            .fill(&mut disk);
        fs::write(room.at("disk"), &disk).unwrap();
        room.run(
            "asl",
            &["store", "init", "usb", "--ephemeral", "--block-size", "1M"],
        );
        room.run(
            "asl-capture",
            &["disk", "disk", "--label", "x", "--quiet", "--store", "usb"],
        );
        room.id = room.mint("usb", "rescue");
        room.run("asl", &["store", "init", "mine", "--ephemeral"]);
        let mine = room.mint("mine", "mine");
        fs::create_dir_all(room.at("home/domains")).unwrap();
        fs::rename(room.at("mine"), room.at("home/domains").join(mine)).unwrap();
        room
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, name: &str, words: &[&str]) -> Command {
        let mut command = program(name);
        command
            .args(words)
            .current_dir(self.dir.path())
            .env("ASL_STATE", self.at("state"));
        command
    }

    fn run(&self, name: &str, words: &[&str]) -> Output {
        let output = self.command(name, words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", shown(&output));
        output
    }

    fn mint(&self, store: &str, name: &str) -> String {
        let pass = format!("{name}.pass");
        let words = [
            "domain",
            "mint",
            "--name",
            name,
            "--passphrase-file",
            &pass,
            "--no-recovery",
            "--yes",
            "--ephemeral",
            "--json",
            "--store",
            store,
        ];
        let minted = self.run("asl", &words).stdout;
        let minted: serde_json::Value = serde_json::from_slice(&minted).unwrap();
        minted["domain_id"].as_str().unwrap().to_owned()
    }

    fn ask(&self, more: &[&str]) -> Wizard {
        let words = [&["usb", "--into", "home"][..], more].concat();
        Wizard::start(&self.command("asl-promote", &words), "vt220")
    }

    /// Every file below a directory with its content.
    fn tree(&self, below: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = files_below(&self.at(below))
            .into_iter()
            .map(|file| (file.clone(), fs::read(file).unwrap()))
            .collect();
        files.sort();
        files
    }
}

/// The questions of a promotion: what is waited for, and what is typed.
fn questions(room: &Room) -> Vec<(&'static str, String)> {
    vec![
        ("id: ", format!("{}\r", room.id)),
        ("Promote it? [Y/n]", "\r".to_owned()),
        ("passphrase of your domain: ", format!("{MINE}\r")),
        ("rescue domain, or Enter: ", "\r".to_owned()),
    ]
}

/// Covers K6: typed from paper, never shown before; seen, agreed to, unlocked, done.
#[test]
fn a_person_promotes_by_answering() {
    let room = Room::new(2 << 20);
    let usb = room.tree("usb");
    let mut wizard = room.ask(&[]);
    wizard.see("id: ");
    let shown = wizard.terminal.text();
    assert!(
        !shown.contains(&room.id[..12]),
        "shown before it is typed: {shown}"
    );
    let mut wrong = room.id.clone().into_bytes();
    wrong[20] = if wrong[20] == b'q' { b'p' } else { b'q' };
    let wrong = String::from_utf8(wrong).unwrap();
    wizard.terminal.typed(&format!("{wrong}\r"));
    wizard.answer("mistyped", "");
    wizard.answer("id: ", &format!("{}\r", room.id.to_uppercase()));
    wizard.see("proven to be the domain that you named");
    wizard.answer("Promote it? [Y/n]", "\r");
    wizard.answer("passphrase of your domain: ", "not this\r");
    wizard.answer("The passphrase is wrong", "");
    wizard.answer("passphrase of your domain: ", &format!("{MINE}\r"));
    wizard.answer("rescue domain, or Enter: ", "wrong as well\r");
    wizard.answer("or Enter to do without", "");
    wizard.answer("rescue domain, or Enter: ", &format!("{RESCUE}\r"));
    wizard.see("Promoted, with 1 capture.");
    wizard.see("by both domains");
    wizard.see("may be kept as it is");
    wizard.ends(0);
    let text = wizard.terminal.text();
    assert!(!text.contains(MINE) && !text.contains(RESCUE), "{text}");
    assert!(room.tree("usb") == usb, "the rescue store was only read");
    let home = room.tree("home");
    let mut again = room.ask(&[]);
    again.answer("id: ", &format!("{}\r", room.id));
    again.see("Nothing was written.");
    again.ends(0);
    assert!(room.tree("home") == home);
}

/// A domain of one's own that is founded on the way: the plan says where it will be, and calls it after who founds it.
#[test]
fn a_domain_that_is_founded_on_the_way_is_shown_in_its_place() {
    let room = Room::new(1 << 20);
    for (user, proposed) in [("anna", "anna"), ("root", "personal")] {
        let words = [
            "usb",
            "--into",
            user,
            "--as-new",
            "--ephemeral",
            "--expect",
            &room.id,
            "--passphrase-file",
            "mine.pass",
            "--no-recovery",
        ];
        let mut command = room.command("asl-promote", &words);
        command.env_remove("SUDO_USER").env("USER", user);
        // Whoever leaves at any question leaves nothing behind.
        let mut wizard = Wizard::start(&command, "vt220");
        wizard.see(&format!("a new domain below {user}"));
        wizard.answer("Promote it? [Y/n]", "n\r");
        wizard.see("Nothing was promoted.");
        wizard.ends(1);
        assert!(!room.at(user).exists());
        let mut wizard = Wizard::start(&command, "vt220");
        wizard.answer("Promote it? [Y/n]", "\r");
        wizard.answer("rescue domain, or Enter: ", "\r");
        wizard.see(&format!("gets its place below {user}/domains"));
        wizard.answer(&format!("name [{proposed}]"), "\r");
        wizard.see(&format!("store     {user}/domains/asl1"));
        wizard.answer("Write this? [Y/n]", "n\r");
        wizard.ends(1);
        let text = wizard.terminal.text();
        assert!(!text.contains(".minting"), "{text}");
        assert!(!room.at(user).exists());
    }
    // The keys of the rescue domain are asked for before that of one's own is founded.
    let words = [
        "usb",
        "--into",
        "bert",
        "--as-new",
        "--name",
        "bert",
        "--ephemeral",
        "--expect",
        &room.id,
        "--passphrase-file",
        "mine.pass",
        "--no-recovery",
    ];
    let mut wizard = Wizard::start(&room.command("asl-promote", &words), "vt220");
    wizard.answer("Promote it? [Y/n]", "\r");
    wizard.answer("rescue domain, or Enter: ", &format!("{RESCUE}\r"));
    wizard.answer("Write this? [Y/n]", "\r");
    wizard.see("Promoted, with 1 capture.");
    wizard.see("by both domains");
    wizard.ends(0);
}

#[test]
fn three_wrong_passphrases_end_it() {
    let room = Room::new(1 << 20);
    let home = room.tree("home");
    let mut wizard = room.ask(&["--expect", &room.id, "--yes"]);
    for _ in 0..3 {
        wizard.answer("passphrase of your domain: ", "not this\r");
        wizard.see("passphrase is wrong");
    }
    wizard.ends(11);
    assert!(room.tree("home") == home, "nothing was written");
}

#[test]
fn leaving_at_any_question_leaves_everything_as_it_was() {
    let room = Room::new(1 << 20);
    let (usb, home) = (room.tree("usb"), room.tree("home"));
    for (count, (question, _)) in questions(&room).iter().enumerate() {
        let mut wizard = room.ask(&[]);
        for (question, keys) in &questions(&room)[..count] {
            wizard.answer(question, keys);
        }
        wizard.answer(question, if count % 2 == 0 { "\x03" } else { "\x1b" });
        wizard.ends(1);
        assert!(room.tree("home") == home, "{question}");
    }
    let mut wizard = room.ask(&["--expect", &room.id]);
    wizard.answer("Promote it? [Y/n]", "n\r");
    wizard.see("Nothing was promoted.");
    wizard.ends(1);
    assert!(room.tree("home") == home && room.tree("usb") == usb);
}

/// SIGTERM in the middle of the copying: exit 1, nothing half, and the same command goes on.
#[test]
fn a_stop_is_clean_and_the_same_command_goes_on() {
    let mut stopped = 0;
    for round in 0..8 {
        let room = Room::new(48 << 20);
        let words = [
            "usb",
            "--into",
            "home",
            "--expect",
            &room.id,
            "--passphrase-file",
            "mine.pass",
            "--yes",
            "--json",
        ];
        let child = room
            .command("asl-promote", &words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let brought = || {
            let files = files_below(&room.at("home")).into_iter();
            files
                .filter(|file| file.extension().is_some_and(|end| end == "blk"))
                .count()
        };
        let before = brought();
        while brought() < before + 3 + round && begun.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let output = child.wait_with_output().unwrap();
        let object: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", shown(&output)));
        match output.status.code() {
            Some(0) => assert_eq!(object["promoted"], true, "{object}"),
            Some(1) => {
                stopped += 1;
                assert_eq!(object["stopped"], "interrupted", "{object}");
                let captures = room
                    .run("asl", &["captures", "--root", "home", "--json"])
                    .stdout;
                let captures: serde_json::Value = serde_json::from_slice(&captures).unwrap();
                assert_eq!(captures["count"], 0, "{captures}");
            }
            _ => panic!("{}", shown(&output)),
        }
        let again = room.run("asl-promote", &words).stdout;
        let again: serde_json::Value = serde_json::from_slice(&again).unwrap();
        assert_eq!(again["promoted"], true, "{again}");
        let quick = room.run("asl", &["export", "x", "out", "--root", "home", "--json"]);
        assert!(quick.status.success());
        assert!(fs::read(room.at("out")).unwrap() == fs::read(room.at("disk")).unwrap());
        if stopped > 0 {
            return;
        }
    }
    panic!("it was always done before it could be stopped");
}
