//! Private keys and recovery phrases: that they are in no file, no output, no core dump.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use asl_bootstrap::keyfile::{KeyFile, key_file_path};
use asl_bootstrap::{Phrase, Role};
use asl_store::vfs::real::RealVfs;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rustix::process::{Pid, Signal, kill_process};

use super::minting::{ALTERNATE, QUESTIONS, Room, Wizard, answer_first, files_below};
use super::place::skipped;
use super::programs::{program, shown};

/// Writings of a secret of 32 bytes.
fn writings(seed: &[u8; 32]) -> Vec<Vec<u8>> {
    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut writings = vec![
        seed.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
    ];
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        // Wherever it begins in a longer text: three alignments, without the characters that neighbours change.
        for before in 0..3 {
            let bytes = [&vec![0; before][..], seed].concat();
            let text = engine.encode(bytes).into_bytes();
            writings.push(text[if before == 0 { 0 } else { before + 1 }..text.len() - 1].to_vec());
        }
    }
    writings
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

/// Whether three words of a phrase follow each other, whatever stands between them, in either case.
fn has_words(text: &[u8], phrase: &[String]) -> bool {
    let text = String::from_utf8_lossy(text).to_lowercase();
    let words: Vec<&str> = text
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| !word.is_empty())
        .collect();
    let mut runs = phrase.windows(3);
    runs.any(|run| words.windows(3).any(|found| found == run))
}

/// No byte of a private key and no words of the phrase are anywhere but in memory, encrypted, and once on a screen
/// that is gone.
#[test]
fn keys_and_phrase_are_found_nowhere() {
    let room = Room::new();
    let temporary = room.dir.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = room.command(&["domain", "mint", "--ephemeral", "-v"]);
    command.env("TMPDIR", &temporary).env("HOME", &temporary);
    command.current_dir(&temporary);
    let mut wizard = Wizard::start(&command, "vt220");
    answer_first(&mut wizard, QUESTIONS.len());
    wizard.ends(0);
    let mut said = Vec::new();
    let image = room.dir.path().join("disk");
    fs::write(&image, vec![7; 300_000]).unwrap();
    let mut capture = program("asl-capture");
    capture
        .arg("disk")
        .arg(&image)
        .arg("--store")
        .arg(&room.store);
    let captured = capture.output().unwrap();
    assert!(captured.status.success(), "{}", shown(&captured));
    let file = |name: &str, content: &str| {
        let path = room.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let pass = file("pass", &format!("{}\n", wizard.passphrase));
    let paper = file("paper", &wizard.phrase.join(" "));
    let second_paper = room.dir.path().join("second-paper");
    let seeds_of_now = || -> Vec<[u8; 32]> {
        let vfs = RealVfs::open(&room.store).unwrap();
        let path = key_file_path(&room.domain().id());
        let keys = KeyFile::load(&vfs, &path, &wizard.passphrase).unwrap();
        assert_eq!(keys.signers(Role::Root).count(), 1);
        let seeds = keys
            .keys()
            .iter()
            .map(|entry| *entry.signer().secret().seed());
        seeds.collect()
    };
    let mut seeds = seeds_of_now();
    assert_eq!(seeds.len(), 3);
    let words_of = |path: &Path| path.to_str().unwrap().to_owned();
    let (pass_word, paper_word) = (words_of(&pass), words_of(&paper));
    let second_word = words_of(&second_paper);
    let unlock = ["--passphrase-file", &pass_word, "-v"];
    let turn = [
        "--phrase-file",
        &paper_word,
        "--recovery-out",
        &second_word,
        "--yes",
    ];
    for words in [
        &[&["domain", "attest"][..], &unlock].concat()[..],
        &[&["domain", "rotate"][..], &unlock, &turn].concat(),
        &[&["domain", "attest"][..], &unlock].concat(),
        &["domain", "show", "--json"],
        &["domain", "verify", "-v"],
        &["store", "snapshot"],
        &["store", "log", "--json"],
        &["store", "verify"],
    ] {
        let mut command = room.command(words);
        let output = command.env("TMPDIR", &temporary).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", shown(&output));
        said.push(output.stdout);
        said.push(output.stderr);
    }
    let written = fs::read_to_string(&second_paper).unwrap();
    let second = Phrase::parse(written.split_once('\n').unwrap().1).expect("a phrase");
    for path in [&pass, &paper, &second_paper, &image] {
        fs::remove_file(path).unwrap();
    }
    let first = Phrase::parse(&wizard.phrase.join(" ")).expect("a phrase");
    let after = seeds_of_now();
    assert!(
        after.contains(first.secret().seed()),
        "the phrase became the root"
    );
    seeds.extend(after);
    seeds.push(*second.secret().seed());
    let second: Vec<String> = second.words().map(str::to_owned).collect();

    let (transcript, behind_curtain) = wizard.transcript();
    said.push(transcript.into_bytes());
    let mut places: Vec<(String, Vec<u8>)> = said
        .into_iter()
        .enumerate()
        .map(|(nth, bytes)| (format!("output {nth}"), bytes))
        .collect();
    for file in files_below(room.dir.path()) {
        places.push((file.display().to_string(), fs::read(&file).unwrap()));
    }
    assert!(places.len() > 20, "{}", places.len());
    for (place, bytes) in &places {
        for seed in &seeds {
            for writing in writings(seed) {
                assert!(!contains(bytes, &writing), "a private key in {place}");
            }
        }
        for phrase in [&wizard.phrase, &second] {
            assert!(!has_words(bytes, phrase), "a phrase in {place}");
        }
        let passphrase = wizard.passphrase.as_bytes();
        assert!(!contains(bytes, passphrase), "the passphrase in {place}");
    }
    // The search finds what is there.
    let numberless: String = behind_curtain
        .chars()
        .filter(|c| !c.is_ascii_digit())
        .collect();
    assert!(has_words(numberless.as_bytes(), &wizard.phrase));
    assert!(contains(
        behind_curtain.as_bytes(),
        wizard.passphrase.as_bytes()
    ));
    for (before, after) in [(0, 1), (1, 0), (2, 5)] {
        let text = [&vec![1; before][..], &seeds[0], &vec![2; after]].concat();
        let text = STANDARD_NO_PAD.encode(text).into_bytes();
        let found = writings(&seeds[0]);
        assert!(
            found.iter().any(|writing| contains(&text, writing)),
            "{before} {after}"
        );
    }
}

/// What stood on the screen before a secret was shown stands there again after it.
#[test]
fn the_screen_is_as_it_was_before_the_phrase() {
    let room = Room::new();
    let mut wizard = Wizard::mint(&room, &[]);
    answer_first(&mut wizard, 10);
    wizard.terminal.typed("\x03");
    wizard.ends(1);
    let text = wizard.terminal.text();
    let size = |n| std::num::NonZeroU16::new(n).unwrap();
    let screen = |end: usize| {
        let mut screen = vt100::Parser::new(size(24), size(80), 0);
        screen.process(&text.as_bytes()[..end]);
        screen.screen().contents()
    };
    let begins: Vec<usize> = text.match_indices(ALTERNATE.0).map(|(at, _)| at).collect();
    let ends: Vec<usize> = text.match_indices(ALTERNATE.1).map(|(at, _)| at).collect();
    assert_eq!((begins.len(), ends.len()), (2, 2), "passphrase and phrase");
    for (begin, end) in begins.into_iter().zip(ends) {
        let after = end + ALTERNATE.1.len();
        assert_eq!(screen(begin), screen(after));
        let behind = screen(end - "\x1b[2J\x1b[H".len());
        assert_ne!(behind, screen(begin));
    }
    assert!(
        !wizard
            .terminal
            .shown()
            .contains(&wizard.phrase[..2].join(" "))
    );
}

/// Whether a process with this limit leaves a core file here.
fn cores_are_left() -> bool {
    let room = tempfile::tempdir().unwrap();
    let died = Command::new("sh")
        .args(["-c", "ulimit -c unlimited; kill -ABRT $$"])
        .current_dir(room.path())
        .status();
    died.is_ok_and(|status| status.core_dumped())
}

/// A program that dies while it has keys leaves no core file, and its memory is locked where that is allowed.
#[test]
fn a_program_that_dies_leaves_no_core() {
    let room = Room::new();
    let cores = room.dir.path().join("cores");
    fs::create_dir(&cores).unwrap();
    let mint = room.command(&["domain", "mint", "--ephemeral"]);
    let mut command = program("/bin/sh");
    command.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]);
    command.arg(mint.get_program()).args(mint.get_args());
    command.current_dir(&cores);
    let mut wizard = Wizard::start(&command, "vt220");
    answer_first(&mut wizard, 9);
    let pid = wizard.terminal.child.id();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.unwrap().split_ascii_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_ascii_whitespace().next().unwrap()
    };
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let capabilities = u64::from_str_radix(field("CapEff:"), 16).unwrap();
    if capabilities & CAP_IPC_LOCK != 0 {
        let locked: u64 = field("VmLck:").parse().unwrap();
        assert!(locked > 0, "{status}");
    } else {
        eprintln!("not seen: memory cannot be locked here");
    }
    kill_process(Pid::from_child(&wizard.terminal.child), Signal::ABORT).unwrap();
    wizard.terminal.until(|_| false);
    let died = wizard.terminal.child.wait().unwrap();
    assert!(!died.core_dumped(), "{died:?}");
    assert_eq!(fs::read_dir(&cores).unwrap().count(), 0);
    if !cores_are_left() {
        eprintln!("not seen: this system leaves no core files at all");
    }
}

/// The kernel gives what belongs to a process that may not be dumped to root: no other program of the same user reads its memory.
#[test]
fn nobody_of_the_same_user_looks_into_the_memory() {
    const NOBODY: u32 = 65534;
    if skipped() {
        return;
    }
    let room = Room::new();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(room.dir.path(), open).unwrap();
    // Where cargo builds, not everybody may look.
    let copy = room.dir.path().join("asl");
    fs::copy(program("asl").get_program(), &copy).unwrap();
    let mut command = program("/usr/bin/setpriv");
    let nobody = NOBODY.to_string();
    command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
    command.arg(&copy);
    command
        .args(["domain", "mint", "--ephemeral", "--store"])
        .arg(&room.store);
    let mut wizard = Wizard::start(&command, "vt220");
    answer_first(&mut wizard, 2);
    let pid = wizard.terminal.child.id();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uid = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap();
    assert!(uid.contains(&nobody), "{status}");
    let owner = fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid();
    assert_eq!(owner, 0, "its memory is its user's to read");
    wizard.terminal.typed("\x03");
    wizard.ends(1);
}
