//! Minting a domain by questions, on a terminal of 80 columns and 24 rows, and what it leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use asl_bootstrap::dam::Witness;
use asl_bootstrap::mint::{Plan, Request};
use asl_bootstrap::{Kind, Phrase, Policy, Signer};
use asl_cli::face::context;
use asl_store::vfs::real::RealVfs;
use asl_store::{StoreWriter, WriteOptions};

use super::minting::{DOWN, PASSPHRASE, QUESTIONS, Room, Wizard, answer_first};
use super::place::{Mount, json, skipped};
use super::programs::{asl, shown};

/// What a domain is, apart from its keys and the time.
fn nature(room: &Room) -> String {
    let domain = room.domain();
    assert!(domain.findings.is_empty(), "{:?}", domain.findings);
    let head = domain.chain.head();
    let dam = &head.dam;
    let mut roles: Vec<String> = dam.principals.iter().map(|p| p.roles.to_string()).collect();
    roles.sort();
    let log = json(&room.asl(&["store", "log", "--json"]));
    let kinds: Vec<String> = log["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["type"].to_string())
        .collect();
    let mut files: Vec<String> = room
        .tree()
        .into_keys()
        .map(|path| {
            let path = path.strip_prefix(&room.store).unwrap();
            let name = path.to_string_lossy().into_owned();
            // Names that are ids or digests.
            let kept = name.split(['/', '.']).map(|part| match part.len() {
                62.. => "ID",
                2 if name.starts_with("blocks/sealed/") => "xx",
                _ => part,
            });
            kept.collect::<Vec<_>>().join("/")
        })
        .collect();
    files.sort();
    let (kind, version, rotation, label) = (dam.kind, dam.version, dam.rotation, &dam.label);
    format!(
        "{kind} {version} {rotation} {label} {:?} {:?} roots {} of {} next {} of {} {roles:?} {:?} \
         {:?} {} {kinds:?} {files:?}",
        head.policy,
        dam.witness,
        dam.root_threshold,
        dam.roots.len(),
        dam.next_threshold,
        dam.next.len(),
        dam.revoked,
        dam.anchor,
        domain.covered(),
    )
}

/// Covers K5: the whole wizard on a small screen founds the same domain as flags do, but for keys and time; its passphrase opens the
/// keys, and its words are those that recover it.
#[test]
fn the_wizard_founds_what_flags_found() {
    let asked = Room::new();
    let mut command = asked.command(&["domain", "mint", "--ephemeral"]);
    command.env("LC_ALL", "C.UTF-8");
    let mut wizard = Wizard::start(&command, "linux");
    answer_first(&mut wizard, QUESTIONS.len());
    wizard.ends(0);
    let summary = wizard.terminal.shown();
    let domain = asked.domain().id();
    assert!(summary.contains(&format!("--expect {domain}")), "{summary}");
    for group in domain.grouped().split(' ') {
        assert!(summary.contains(group), "{summary}");
    }
    assert!(summary.contains('\u{2588}'), "a code: {summary}");

    let told = Room::new();
    let phrase = told.dir.path().join("phrase");
    let minted = told.mint(&[
        "--name",
        "attic",
        "--recovery-out",
        phrase.to_str().unwrap(),
    ]);
    assert!(minted.status.success(), "{}", shown(&minted));
    assert_eq!(nature(&asked), nature(&told));

    let founded = asked.domain();
    let dam = &founded.chain.head().dam;
    let phrase = Phrase::parse(&wizard.phrase.join(" ")).expect("a phrase");
    let next = Signer::new(&phrase.secret()).public().next_digest();
    assert_eq!(dam.next, [next]);
    let pass = asked.file("pass", &format!("{}\n", wizard.passphrase));
    let attested = asked.asl(&["domain", "attest", "--passphrase-file", &pass]);
    assert!(attested.status.success(), "{}", shown(&attested));
    let verified = asked.asl(&["domain", "verify"]);
    assert!(verified.status.success(), "{}", shown(&verified));
}

/// Covers K5: whoever leaves, at whatever question, leaves nothing behind, neither in the store nor on the terminal.
#[test]
fn leaving_at_any_question_leaves_nothing() {
    let room = Room::new();
    let before = room.tree();
    for (count, (question, _)) in QUESTIONS.iter().enumerate() {
        let key = if count % 2 == 0 { "\x03" } else { "\x1b" };
        let mut wizard = Wizard::mint(&room, &[]);
        answer_first(&mut wizard, count);
        wizard.terminal.typed(key);
        wizard.ends(1);
        let shown = wizard.terminal.shown();
        assert!(shown.contains("stopped; nothing was written"), "{shown}");
        assert!(room.tree() == before, "{question}: the store differs");
    }
    // Not only the keys: also the signals that a shell or a dying connection sends.
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
        let mut wizard = Wizard::mint(&room, &[]);
        answer_first(&mut wizard, 9);
        let pid = rustix::process::Pid::from_child(&wizard.terminal.child);
        rustix::process::kill_process(pid, signal).unwrap();
        wizard.ends(1);
        assert!(room.tree() == before, "{signal:?}: the store differs");
    }
}

/// Passphrases that differ, words that are not on the paper, and second thoughts.
#[test]
fn mistakes_are_found_and_can_be_mended() {
    let room = Room::new();
    let mut wizard = Wizard::mint(&room, &[]);
    wizard.answer("see what comes", "yz-/@\r");
    wizard.answer("The keyboard (arrow", &format!("{DOWN}\r"));
    wizard.answer("see what comes", "z y - / @\r");
    wizard.answer("name [rescue]", &format!("{}\r", "x".repeat(65)));
    wizard.answer("65 bytes long", "attic\r");
    // What several people found is shown, and said how.
    wizard.answer("Who speaks for it (arrow", &format!("{DOWN}\r"));
    wizard.see("That cannot be chosen: see: asl domain draft --help");
    wizard.answer("Who speaks for it (arrow", "\r");
    wizard.answer("Protect them with (arrow", &format!("{DOWN}\r"));
    wizard.answer("passphrase: ", "short\r");
    wizard.answer("the same again: ", "shotr\r");
    wizard.see("not the same");
    wizard.answer("passphrase: ", "shor\tt");
    // Shown while it is typed, and no longer.
    wizard.see("short");
    assert!(wizard.terminal.shown().ends_with("passphrase: short"));
    wizard.terminal.typed("\r");
    wizard.answer("the same again: ", "short\r");
    assert!(!wizard.terminal.shown().contains("passphrase: short"));
    wizard.answer("5 characters: short", "");
    wizard.answer("Take it all the same? [y/N]", "\r");
    wizard.answer("Protect them with (arrow", &format!("{DOWN}\r"));
    wizard.answer("passphrase: ", &format!("{PASSPHRASE}\r"));
    wizard.answer("the same again: ", &format!("{PASSPHRASE}\r"));
    wizard.see("21 characters: long");
    wizard.answer("The recovery phrase (arrow", &format!("{DOWN}{DOWN}\r"));
    wizard.answer("Really without?", "\r");
    wizard.answer("The recovery phrase (arrow", "\r");
    wizard.answer("Write this? [Y/n]", "y\r");
    wizard.read_phrase();
    let first = wizard.phrase.clone();
    wizard.terminal.typed("\r");
    for word in ["wrong", "words", "here"] {
        wizard.asked_word();
        wizard.terminal.typed(&format!("{word}\r"));
    }
    wizard.answer("is not in the phrase (arrow", "\r");
    wizard.read_phrase();
    assert_eq!(wizard.phrase, first, "the same words again");
    wizard.terminal.typed("\r");
    wizard.answer_words();
    wizard.ends(0);
    let (outside, _) = wizard.transcript();
    assert!(!outside.contains(&first[..2].join(" ")));
    assert_eq!(room.domain().chain.head().dam.label, "attic");
}

/// Doing without a phrase is possible even then, and never by haste.
#[test]
fn a_phrase_can_be_given_up_only_on_purpose() {
    let room = Room::new();
    let pass = room.file("pass", PASSPHRASE);
    let mut wizard = Wizard::mint(&room, &["--passphrase-file", &pass, "--name", "x", "--yes"]);
    wizard.answer("The recovery phrase (arrow", "\r");
    wizard.read_phrase();
    wizard.terminal.typed("\r");
    for _ in 0..3 {
        wizard.asked_word();
        wizard.terminal.typed("wrong\r");
    }
    wizard.answer("is not in the phrase (arrow", &format!("{DOWN}\r"));
    wizard.answer("Really without?", "y\r");
    wizard.ends(0);
    let shown = wizard.terminal.shown();
    assert!(
        shown.contains("none: lost keys are lost for good"),
        "{shown}"
    );
    // What flags said was not asked.
    for question in ["see what comes", "name [", "passphrase:", "Write this?"] {
        assert!(!wizard.terminal.text().contains(question), "{question}");
    }
}

/// A terminal that moves nothing: lists are numbered, nothing but text is written, and showing the phrase is a choice.
#[test]
fn a_dumb_terminal_is_enough() {
    let room = Room::new();
    let mut command = room.command(&["domain", "mint", "--ephemeral"]);
    command.env("NO_COLOR", "1");
    let mut wizard = Wizard::start(&command, "dumb");
    wizard.answer("see what comes", "zy-/@\r");
    wizard.answer("name [rescue]", "\r");
    wizard.answer("number [1]", "1\r");
    wizard.answer("number [1]", "7\r");
    wizard.answer("a number from 1 to 2", "2\r");
    wizard.answer("passphrase: ", &format!("{PASSPHRASE}\r"));
    wizard.answer("the same again: ", &format!("{PASSPHRASE}\r"));
    wizard.answer("number [1]", "\r");
    wizard.answer("Write this? [Y/n]", "\r");
    wizard.answer("Show it here? [y/N]", "y\r");
    wizard.read_phrase();
    wizard.terminal.typed("\r");
    wizard.answer_words();
    wizard.ends(0);
    assert!(wizard.terminal.controls().is_empty());
    assert!(wizard.terminal.text().is_ascii());
    let shown = wizard.terminal.shown();
    // Some of the words are words that the summary has as well.
    let words: Vec<&str> = shown.split(|c: char| !c.is_ascii_alphabetic()).collect();
    let seen = (wizard.phrase.iter()).filter(|word| words.contains(&word.as_str()));
    assert!(seen.count() < 6, "out of sight: {shown}");
    // No room for a code in ASCII: the whole summary is on the screen all the same.
    let first = shown.find("The domain is founded").expect("a summary");
    let id = room.domain().id();
    for part in [
        &id.grouped()[..39],
        "name  rescue",
        "asl domain show --qr",
        "on your paper",
    ] {
        assert!(shown[first..].contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("####"), "{shown}");
    assert_eq!(room.domain().chain.head().dam.label, "rescue");
}

/// A line on which the bytes of an arrow key come one by one.
#[test]
fn a_slow_line_gets_numbers_and_is_not_left() {
    let room = Room::new();
    let mut wizard = Wizard::mint(&room, &["--name", "x"]);
    wizard.answer("see what comes", "\r");
    wizard.see("The keyboard (arrow");
    for byte in ["\x1b", "[", "B"] {
        wizard.terminal.typed(byte);
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    wizard.see("do not arrive whole");
    wizard.answer("number [1]", "1\r");
    wizard.answer("number [1]", "\x03");
    wizard.ends(1);
}

/// What nobody can answer is not asked, whatever the terminal.
#[test]
fn scripts_are_never_asked() {
    let room = Room::new();
    let before = room.tree();
    let refused = |more: &[&str], variables: &[(&str, &str)], exit: i32| {
        let mut command = room.command(&["domain", "mint", "--ephemeral"]);
        command.args(more).envs(variables.iter().copied());
        let mut wizard = Wizard::start(&command, "vt220");
        wizard.ends(exit);
        let text = wizard.terminal.text();
        assert!(text.contains("flags are missing"), "{text}");
    };
    refused(&["--no-input"], &[], 14);
    refused(&["--json"], &[], 14);
    refused(&["--events"], &[], 14);
    refused(&[], &[("CI", "true")], 14);
    let pass = room.file("pass", PASSPHRASE);
    let all_but_a_name = ["--passphrase-file", &pass, "--no-recovery", "--yes"];
    refused(&[&all_but_a_name[..], &["--no-input"]].concat(), &[], 2);
    // --yes says yes to the plan, not to a passphrase.
    refused(
        &["--name", "x", "--no-recovery", "--yes", "--no-input"],
        &[],
        14,
    );
    assert!(room.tree() == before);
}

/// A recording keeps what the terminal shows, so nothing is shown to it that must not be kept.
#[test]
fn a_recorded_session_shows_no_secret() {
    let room = Room::new();
    let mut command = room.command(&["domain", "mint", "--ephemeral"]);
    command.env("ASL_RECORDING", "1");
    let mut wizard = Wizard::start(&command, "vt220");
    wizard.answer("see what comes", "zy-/@\r");
    wizard.answer("name [rescue]", "\r");
    wizard.answer("Who speaks for it (arrow", "\r");
    wizard.see("This session is recorded");
    wizard.answer("Protect them with (arrow", "\r");
    wizard.answer("passphrase: ", &format!("{PASSPHRASE}\t\r"));
    wizard.answer("the same again: ", &format!("{PASSPHRASE}\r"));
    wizard.answer("The recovery phrase (arrow", "\x1b[A\r");
    wizard.see("That cannot be chosen");
    let file = room.dir.path().join("phrase");
    wizard.answer("The recovery phrase (arrow", "\r");
    wizard.answer(
        "new file",
        &format!("{}\r", room.store.join("meta/no").display()),
    );
    wizard.see("among the files of the store");
    wizard.answer("The recovery phrase (arrow", "\r");
    wizard.answer(
        "new file",
        &format!("{}\r", room.store.join("no").display()),
    );
    wizard.answer("Write them there all the same? [y/N]", "\r");
    wizard.answer("The recovery phrase (arrow", "\r");
    wizard.answer("new file", &format!("{}\r", file.display()));
    wizard.answer("Write this? [Y/n]", "\r");
    wizard.ends(0);
    let text = wizard.terminal.text();
    assert!(!text.contains(PASSPHRASE), "{text}");
    let written = fs::read_to_string(&file).unwrap();
    let phrase = Phrase::parse(written.split_once('\n').unwrap().1).expect("a phrase");
    let words: Vec<&str> = phrase.words().collect();
    assert!(!text.contains(&words[..2].join(" ")), "{text}");
}

/// A mint that was cut off when its keys were kept, or before.
fn interrupted(room: &Room, keeps_keys: bool) -> Plan {
    let vfs = RealVfs::open(&room.store).unwrap();
    let options = WriteOptions::default();
    let writer = StoreWriter::open(Arc::new(vfs), context().unwrap(), options).unwrap();
    let request = Request {
        label: "attic".to_owned(),
        policy: Policy::default_of(Kind::Personal),
        witness: Witness::NONE,
        created_hint: 1,
    };
    let mut random = |bytes: &mut [u8]| getrandom::fill(bytes).map_err(Into::into);
    let plan = Plan::draw(&mut random, &request).unwrap();
    plan.prepare(&writer).unwrap();
    if keeps_keys {
        plan.keep_keys(&writer, PASSPHRASE).unwrap();
    }
    writer.finish().unwrap();
    plan
}

/// Covers K5: after a power cut the wizard goes on with the same domain, and asks for its passphrase only.
#[test]
fn an_interrupted_mint_asks_for_its_passphrase_and_goes_on() {
    let room = Room::new();
    let plan = interrupted(&room, true);
    let before = room.tree();
    let mut wizard = Wizard::mint(&room, &[]);
    wizard.see("was interrupted");
    wizard.answer("passphrase: ", "wrong\r");
    wizard.answer("The passphrase is wrong", "");
    wizard.answer("passphrase: ", "\x03");
    wizard.ends(1);
    assert!(room.tree() == before);
    let mut wizard = Wizard::mint(&room, &[]);
    wizard.answer("passphrase: ", &format!("{PASSPHRASE}\r"));
    wizard.ends(0);
    assert_eq!(room.domain().id(), plan.domain());
    let mut wizard = Wizard::mint(&room, &[]);
    wizard.ends(1);
    assert!(wizard.terminal.text().contains("has a domain already"));
}

/// Words of a mint that never kept its keys are worth nothing, and whoever has them on paper is told.
#[test]
fn words_of_a_mint_that_came_to_nothing_are_to_be_crossed_out() {
    let room = Room::new();
    interrupted(&room, false);
    let before = room.tree();
    let mut wizard = Wizard::mint(&room, &[]);
    wizard.see("cross it out");
    wizard.answer("see what comes", "\x1b");
    wizard.ends(1);
    assert!(room.tree() == before);
    // A file in the way is told before anything is asked.
    let room = Room::new();
    let file = room.file("phrase", "mine");
    let mut wizard = Wizard::mint(&room, &["--recovery-out", &file]);
    wizard.ends(1);
    let text = wizard.terminal.text();
    assert!(
        text.contains("exists already") && !text.contains("Step"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

/// Nobody copies words for a domain that cannot be founded any more.
#[test]
fn a_store_that_changed_is_noticed_before_the_phrase_is_shown() {
    let room = Room::new();
    let mut wizard = Wizard::mint(&room, &[]);
    wizard.reach_plan();
    let minted = room.mint(&["--name", "quicker", "--no-recovery"]);
    assert!(minted.status.success(), "{}", shown(&minted));
    wizard.terminal.typed("\r");
    wizard.ends(1);
    let text = wizard.terminal.text();
    assert!(text.contains("has a domain already"), "{text}");
    assert!(!text.contains("on paper: "), "{text}");

    let room = Room::new();
    let mut wizard = Wizard::mint(&room, &[]);
    wizard.reach_plan();
    let vfs = RealVfs::open(&room.store).unwrap();
    let options = WriteOptions::default();
    let writer = StoreWriter::open(Arc::new(vfs), context().unwrap(), options).unwrap();
    wizard.terminal.typed("\r");
    wizard.ends(1);
    drop(writer);
    let text = wizard.terminal.text();
    assert!(text.contains("hint: wait until it is done"), "{text}");
    assert!(!text.contains("on paper: "), "{text}");
}

/// Two programs mint into one store: one founds its domain, the other says why not.
#[test]
fn two_programs_found_one_domain() {
    let room = Room::new();
    let pass = room.file("pass", PASSPHRASE);
    let start = |name: &str| {
        let words = ["domain", "mint", "--ephemeral", "--yes", "--no-recovery"];
        let mut command = room.command(&words);
        command.args(["--passphrase-file", &pass, "--name", name, "--json"]);
        command
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let both = [start("one"), start("two")];
    let ended = both.map(|child| child.wait_with_output().unwrap());
    let founded = ended.iter().filter(|ended| ended.status.success()).count();
    assert_eq!(founded, 1, "{}{}", shown(&ended[0]), shown(&ended[1]));
    for ended in ended.iter().filter(|ended| !ended.status.success()) {
        let error = json(ended)["causes"].to_string();
        let known = error.contains("has a domain") || error.contains("another process");
        assert!(known, "{error}");
    }
    assert!(room.asl(&["domain", "verify"]).status.success());
}

/// A disk that fills up in the middle of minting. What was begun goes on when there is room.
#[test]
fn a_full_disk_in_the_middle_of_minting_costs_nothing() {
    if skipped() {
        return;
    }
    for left in [0, 4 << 10, 12 << 10, 24 << 10] {
        let mount = Mount::of(&["-t", "tmpfs", "-o", "size=100m", "none"]);
        let room = Room {
            store: mount.at.join("store"),
            dir: tempfile::tempdir().unwrap(),
        };
        let made = asl(&["store", "init", room.store.to_str().unwrap(), "--ephemeral"]);
        assert!(made.status.success(), "{}", shown(&made));
        let filler = mount.at.join("filler");
        let stat = rustix::fs::statvfs(&mount.at).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        fs::write(&filler, vec![0; (free - left) as usize]).unwrap();
        let phrase = room.dir.path().join("phrase");
        let more = ["--name", "x", "--recovery-out", phrase.to_str().unwrap()];
        let minted = room.mint(&more);
        if !minted.status.success() {
            assert_eq!(minted.status.code(), Some(1), "{}", shown(&minted));
            let said = String::from_utf8_lossy(&minted.stderr).into_owned();
            assert!(said.contains("No space left"), "{left}: {said}");
        }
        fs::remove_file(&filler).unwrap();
        if !minted.status.success() {
            let minted = room.mint(&more);
            assert!(minted.status.success(), "{left}: {}", shown(&minted));
        }
        assert!(room.asl(&["domain", "verify"]).status.success(), "{left}");
        let written = fs::read_to_string(&phrase).unwrap();
        let phrase = Phrase::parse(written.split_once('\n').unwrap().1).expect("a phrase");
        let next = Signer::new(&phrase.secret()).public().next_digest();
        assert_eq!(room.domain().chain.head().dam.next, [next], "{left}");
        let keys = fs::read_dir(room.store.join("meta/keys/priv")).unwrap();
        assert_eq!(keys.count(), 1, "{left}");
    }
}

/// Memory is refused for keys as for a store, unless it is wanted; and a disk that turns read-only is noticed in time.
#[test]
fn places_that_forget_or_refuse_are_told() {
    if skipped() {
        return;
    }
    let mount = Mount::of(&["-t", "tmpfs", "-o", "size=96m", "none"]);
    let room = Room {
        store: mount.at.join("store"),
        dir: tempfile::tempdir().unwrap(),
    };
    let made = asl(&["store", "init", room.store.to_str().unwrap(), "--ephemeral"]);
    assert!(made.status.success(), "{}", shown(&made));
    let pass = room.file("pass", PASSPHRASE);
    let before = room.tree();
    let words = [
        "domain",
        "mint",
        "--name",
        "x",
        "--no-recovery",
        "--yes",
        "--json",
    ];
    let refused = room.asl(&[&words[..], &["--passphrase-file", &pass]].concat());
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    let error = json(&refused);
    assert!(
        error["hint"].as_str().unwrap().contains("--ephemeral"),
        "{error}"
    );
    assert_eq!(error["error"], "no domain can be minted there");
    let mut wizard = Wizard::start(&room.command(&["domain", "mint"]), "vt220");
    wizard.ends(1);
    assert!(wizard.terminal.text().contains("is in memory"));

    let mut wizard = Wizard::mint(&room, &[]);
    wizard.reach_plan();
    let remounted = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&mount.at)
        .status();
    assert!(remounted.unwrap().success());
    wizard.terminal.typed("\r");
    wizard.ends(1);
    let text = wizard.terminal.text();
    assert!(
        text.contains("read-only") && !text.contains("on paper: "),
        "{text}"
    );
    assert!(room.tree() == before);
}

/// A name reaches no terminal with anything in it that a terminal obeys.
#[test]
fn names_with_escapes_are_refused_and_shown_harmless() {
    let room = Room::new();
    let before = room.tree();
    for name in ["\u{1b}]0;x\u{7}", "a\u{9b}2J", "a\u{202e}b"] {
        for more in [&["--no-recovery"][..], &["--no-recovery", "--json"]] {
            let minted = room.mint(&[&["--name", name], more].concat());
            assert_eq!(minted.status.code(), Some(2), "{}", shown(&minted));
            let printed = [&minted.stdout[..], &minted.stderr].concat();
            let printed = String::from_utf8(printed).unwrap();
            let obeyed = printed.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{7}']);
            assert!(!obeyed, "{printed:?}");
        }
    }
    let mut wizard = Wizard::mint(&room, &["--name", "\u{1b}[2J"]);
    wizard.answer("see what comes", "zy-/@\r");
    wizard.ends(2);
    assert!(room.tree() == before);
}

/// The id as a code, where anybody asks for it.
#[test]
fn the_id_is_shown_as_a_code() {
    let room = Room::new();
    let minted = room.mint(&[
        "--name",
        "x",
        "--no-recovery",
        "--time",
        "2026-11-21T14:30:00Z",
    ]);
    assert!(minted.status.success(), "{}", shown(&minted));
    let text = String::from_utf8(minted.stdout).unwrap();
    let store = room.store.display();
    let promote = format!(
        "asl-promote {store} --into ROOT --expect {}",
        room.domain().id()
    );
    assert!(text.contains(&promote), "{text}");
    assert_eq!(
        room.domain().chain.head().dam.created_hint,
        1_795_271_400_000_000_000
    );
    let ascii = room.asl(&["domain", "show", "--qr"]);
    let ascii = String::from_utf8(ascii.stdout).unwrap();
    let rows = ascii.lines().filter(|line| line.contains("####")).count();
    assert_eq!(rows, 37, "{ascii}");
    let mut command = room.command(&["domain", "show", "--qr"]);
    let blocks = command.env("LC_ALL", "C.UTF-8").output().unwrap();
    let blocks = String::from_utf8(blocks.stdout).unwrap();
    let is_row =
        |line: &&str| line.contains("\u{2588}\u{2588}") || line.contains("\u{2580}\u{2580}");
    let rows = blocks.lines().filter(is_row).count();
    assert_eq!(rows, 19, "{blocks}");
    assert!(blocks.lines().all(|line| line.chars().count() <= 80));
}

/// Signing asks for the passphrase where somebody can type it.
#[test]
fn attest_asks_for_the_passphrase() {
    let room = Room::new();
    let minted = room.mint(&["--name", "x", "--no-recovery"]);
    assert!(minted.status.success(), "{}", shown(&minted));
    let mut wizard = Wizard::start(&room.command(&["domain", "attest"]), "vt220");
    wizard.answer("passphrase of the keys: ", &format!("{PASSPHRASE}\r"));
    wizard.ends(0);
    assert!(!wizard.terminal.text().contains(PASSPHRASE));
}

/// Covers K5: the layout is shown and can be changed before any passphrase is typed.
#[test]
fn the_keyboard_can_be_changed_before_a_passphrase_is_typed() {
    let room = Room::new();
    let programs = room.dir.path().join("bin");
    fs::create_dir(&programs).unwrap();
    let state = room.file("layout", "us");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = -query ]; then echo \"layout: $(cat {state})\"\n\
         elif [ \"$1\" = xx ]; then exit 1\nelse printf %s \"$1\" >{state}; fi\n"
    );
    let setxkbmap = programs.join("setxkbmap");
    fs::write(&setxkbmap, script).unwrap();
    fs::set_permissions(&setxkbmap, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = room.command(&["domain", "mint", "--ephemeral"]);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", programs.display()));
    command.env("DISPLAY", ":0");
    let mut wizard = Wizard::start(&command, "xterm");
    wizard.see("The layout is \"us\" (says setxkbmap -query).");
    wizard.answer("see what comes", "yz\r");
    wizard.answer("The keyboard (arrow", &format!("{DOWN}{DOWN}\r"));
    wizard.answer("Which layout (arrow", "\x1b[A\r");
    wizard.answer("its name", "../xx\r");
    wizard.answer("its name", "xx\r");
    wizard.see("this failed: setxkbmap xx");
    wizard.answer("see what comes", "\r");
    wizard.answer("The keyboard (arrow", &format!("{DOWN}{DOWN}\r"));
    wizard.answer("Which layout (arrow", &format!("{DOWN}{DOWN}\r"));
    wizard.see("done with: setxkbmap de");
    wizard.see("The layout is \"de\"");
    wizard.answer("see what comes", "zy-/@\r");
    wizard.answer("name [rescue]", "\x03");
    wizard.ends(1);
    assert!(!wizard.terminal.text().contains("passphrase: "));

    let mut command = room.command(&["domain", "mint", "--ephemeral"]);
    command.env("SSH_CONNECTION", "192.0.2.1 1 192.0.2.2 22");
    let mut wizard = Wizard::start(&command, "xterm");
    wizard.see("the layout is that of the far end");
    wizard.answer("see what comes", "\x03");
    wizard.ends(1);
}
