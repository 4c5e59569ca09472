//! The spellings that scripts, the medium and the guide rely on, and help that fits
//! the screen.

use asl_cli::args::Program;
use asl_cli::command::completions::command_of;
use clap::{Command, ValueEnum};

use super::programs::{asl, program, shown};

/// Programs, commands, arguments: none may disappear or change its spelling.
const SPELLINGS: &[&str] = &[
    "asl store init PATH --shards --block-size --small-threshold --max-packed --ephemeral --unmounted-ok",
    "asl store info",
    "asl store state",
    "asl store verify --quick",
    "asl store repair --rebuild-index",
    "asl store snapshot --label --passphrase-file",
    "asl store snapshots",
    "asl store log --from --limit",
    "asl store diff OTHER --verify",
    "asl store sync OTHER --both --dry-run --expect --accept-damaged --ephemeral --unmounted-ok",
    "asl put FILE --hint",
    "asl get KEY -o --at",
    "asl ls --at",
    "asl stat KEY",
    "asl rm KEY",
    "asl captures",
    "asl show CAPTURE",
    "asl export CAPTURE DEST --fill --sparse --range --force --to-serial",
    "asl domain mint --name --kind --passphrase-file --recovery-out --no-recovery --witness --witness-threshold --time --ephemeral --yes",
    "asl domain show --qr",
    "asl domain verify --expect",
    "asl domain attest --passphrase-file",
    "asl domain host request --out --name --passphrase-file --ephemeral",
    "asl domain host add REQUEST --expect --draft --passphrase-file --yes",
    "asl domain host list",
    "asl domain host remove HOST --reason --passphrase-file --yes",
    "asl domain witness init DIR --name --passphrase-file --ephemeral",
    "asl domain witness request -o --log-out --witness --old",
    "asl domain witness sign DIR QUESTION --log --passphrase-file -o",
    "asl domain witness add ANSWER",
    "asl trust add DOMAIN_ID --name",
    "asl trust remove DOMAIN_ID",
    "asl trust list",
    "asl disks",
    "asl completions SHELL",
    "asl man DIR",
    "asl-capture disk SOURCE --label --sector-size --retries --passes --min-read-rate --timeout --read-timeout --max-bad-reads --range --resume --new --image-out --map-out --domain --sha256 --md5 --compression --passphrase-file",
    "asl-promote RESCUE --into --expect --as-new --dry-run --yes --passphrase-file --rescue-passphrase-file --recovery-out --no-recovery --accept-rebuilt --accept-damaged --retire-source --fork --level --captures --domain --name",
    "asl-promote status INTO",
];

/// Options that every command takes.
const EVERYWHERE: &[&str] = &[
    "--store",
    "--root",
    "--json",
    "--events",
    "--no-input",
    "--quiet",
    "-v",
];

fn has(command: &Command, word: &str) -> bool {
    let name = word.trim_start_matches('-');
    command.get_arguments().any(|argument| {
        if word.starts_with("--") {
            argument.get_long() == Some(name)
        } else if word.starts_with('-') {
            argument
                .get_short()
                .is_some_and(|short| name == short.to_string())
        } else {
            argument.is_positional() && argument.get_id().as_str().eq_ignore_ascii_case(word)
                || argument.get_value_names().is_some_and(|names| {
                    argument.is_positional() && names.iter().any(|n| n == word)
                })
        }
    })
}

#[test]
fn every_spelling_of_the_contract_is_understood() {
    for spelling in SPELLINGS {
        let mut words = spelling.split(' ').peekable();
        let name = words.next().unwrap();
        let programs = Program::value_variants().iter();
        let mut command = programs
            .map(|program| command_of(*program))
            .find(|command| command.get_name() == name)
            .unwrap_or_else(|| panic!("no program {name}"));
        command.build();
        while let Some(word) = words.peek() {
            let Some(below) = command.find_subcommand(word) else {
                break;
            };
            command = below.clone();
            words.next();
        }
        assert!(
            !command.has_subcommands() || command.is_subcommand_negates_reqs_set(),
            "{spelling}: {}",
            command.get_name()
        );
        for word in words.chain(EVERYWHERE.iter().copied()) {
            assert!(has(&command, word), "{spelling}: {word}");
        }
    }
}

fn each_command(
    command: &Command,
    path: &mut Vec<String>,
    see: &mut dyn FnMut(&[String], &Command),
) {
    see(path, command);
    for below in command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
    {
        path.push(below.get_name().to_owned());
        each_command(below, path, see);
        path.pop();
    }
}

#[test]
fn help_fits_80_columns_and_ends_with_an_example() {
    for of in Program::value_variants() {
        let mut command = command_of(*of);
        command.build();
        let name = command.get_name().to_owned();
        each_command(&command, &mut Vec::new(), &mut |path, command| {
            for flag in ["-h", "--help"] {
                let output = program(&name).args(path).arg(flag).output().unwrap();
                assert!(output.status.success(), "{path:?}: {}", shown(&output));
                let help = String::from_utf8(output.stdout).unwrap();
                for line in help.lines() {
                    assert!(line.chars().count() <= 80, "{name} {path:?} {flag}: {line}");
                }
                if !command.has_subcommands() || path.is_empty() {
                    let examples = help
                        .rsplit("\n\n")
                        .take(3)
                        .any(|part| part.contains("  asl"));
                    assert!(
                        examples || help.contains("source <(asl"),
                        "{name} {path:?}: {help}"
                    );
                }
            }
        });
    }
}

/// What every command takes may stand before the command as well as after it.
#[test]
fn options_of_every_command_may_stand_anywhere() {
    let room = tempfile::tempdir().unwrap();
    let store = room.path().join("usb");
    let store = store.to_str().unwrap();
    let made = asl(&["store", "init", store, "--ephemeral"]);
    assert!(made.status.success(), "{}", shown(&made));
    let cases: [(&str, &[&str], &[&str]); 3] = [
        ("asl", &["store", "state"], &["--store", store]),
        ("asl-capture", &["finish", "none"], &["--store", store]),
        ("asl-promote", &["status", store], &[]),
    ];
    for (name, command, place) in cases {
        for option in EVERYWHERE
            .iter()
            .filter(|option| !matches!(**option, "--store" | "--root"))
        {
            let run = |words: &[&[&str]]| {
                let output = program(name).args(words.concat()).output().unwrap();
                assert_ne!(output.status.code(), Some(2), "{}", shown(&output));
                shown(&output)
            };
            let behind = run(&[command, place, &[option]]);
            assert_eq!(run(&[place, &[option], command]), behind, "{name} {option}");
            assert_eq!(run(&[&[option], command, place]), behind, "{name} {option}");
        }
    }
    // What is only a promotion's is not taken for anything else.
    for words in [
        &["--dry-run", "status", store][..],
        &["usb", "status", store],
        &["--json", "--into", "x", "status", store],
    ] {
        let output = program("asl-promote").args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
        let hint = format!("type: asl-promote status {store}");
        assert!(shown(&output).contains(&hint), "{}", shown(&output));
    }
}

#[test]
fn every_page_of_the_manual_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("man1");
    let output = asl(&["man", into.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", shown(&output));
    let mut expected = Vec::new();
    for of in Program::value_variants() {
        let mut command = command_of(*of);
        command.build();
        let name = command.get_name().to_owned();
        each_command(&command, &mut vec![name], &mut |path, _| {
            expected.push(format!("{}.1", path.join("-")));
        });
    }
    for page in &expected {
        let text = std::fs::read_to_string(into.join(page)).unwrap();
        assert!(
            text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"),
            "{page}"
        );
    }
    assert_eq!(std::fs::read_dir(&into).unwrap().count(), expected.len());
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = asl(&["completions", shell]);
        assert!(output.status.success(), "{}", shown(&output));
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("small-threshold"), "{shell}");
    }
}
