//! Manifests that are fine and manifests that break one rule each, kept under `tests/fixtures/dams/` so that another
//! implementation can be held against them.
//!
//! They are generated: `cargo test -p asl-bootstrap --test dams -- --ignored` writes them anew. The tests here prove that
//! what is kept is what is generated, that each comes out as its case says, and that no rule is without a case.

mod cases;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use asl_bootstrap::chain::{Candidate, Chain, ChainError};
use asl_bootstrap::dam::Dam;
use asl_store::id::hex;
use cases::Case;

fn directory() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/dams"
    ))
}

fn candidate(case: &Case) -> Candidate<'_> {
    Candidate {
        dam: &case.dam,
        policy: &case.policy,
        signatures: case.signatures.iter().map(Vec::as_slice).collect(),
    }
}

/// Offers a case to the chain that it follows. A valid one is left in place.
fn offer(case: &Case, chains: &BTreeMap<String, Chain>) -> Result<Chain, ChainError> {
    match case.after {
        None => Chain::genesis(&candidate(case)),
        Some(after) => {
            let mut chain = chains[after].clone();
            chain.extend(&candidate(case)).map(|_| chain)
        }
    }
}

/// The names of the variants in an error, outermost first.
fn variants(error: &ChainError) -> String {
    let text = format!("{error:?}");
    let names = text.split(|c: char| !c.is_ascii_alphanumeric());
    let mut path: Vec<&str> = names
        .filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
        .filter(|name| {
            ![
                "KeyId",
                "DomainId",
                "StoreId",
                "LogPosition",
                "Shortfall",
                "DAM",
                "Some",
            ]
            .contains(name)
        })
        .collect();
    // `Key` is a name of an artifact, and a variant with a key of the manifest.
    path = path
        .iter()
        .enumerate()
        .filter(|(i, name)| **name != "Key" || path.first() == Some(&"Dam") && *i == 1)
        .map(|(_, name)| *name)
        .collect();
    if path.last() == Some(&"None") && path[0] != "Dam" {
        path.pop();
    }
    let mut seen = BTreeSet::new();
    path.retain(|name| seen.insert(*name));
    path.join("/")
}

fn render(case: &Case) -> String {
    let mut text = format!("# {}\n", case.what);
    if let Some(after) = case.after {
        writeln!(text, "after {after}").unwrap();
    }
    writeln!(text, "expect {}", case.expect).unwrap();
    writeln!(text, "dam {}", hex(&case.dam)).unwrap();
    writeln!(text, "policy {}", hex(&case.policy)).unwrap();
    // 256 copies of one say no more than one and a number.
    let repeated = case.signatures.windows(2).all(|pair| pair[0] == pair[1]);
    if repeated && case.signatures.len() > 9 {
        writeln!(text, "times {}", case.signatures.len()).unwrap();
        writeln!(text, "signature {}", hex(&case.signatures[0])).unwrap();
        return text;
    }
    for signature in &case.signatures {
        writeln!(text, "signature {}", hex(signature)).unwrap();
    }
    text
}

fn index(cases: &[Case]) -> String {
    let mut text = String::from(
        "# Manifests, good and bad\n\n\
         Generated from fixed seeds by `bootstrap/tests/dams`; `cargo test -p asl-bootstrap --test dams -- --ignored` writes\n\
         them anew. A file holds, in hexadecimal, one DAM artifact, the policy artifact offered with it and the signature\n\
         artifacts; `times N` stands for N copies of the one signature. It is offered to the chain that the case `after`\n\
         leads to, or begins one. `expect` is `ok` or the error, from the general to the particular.\n\n\
         | case | after | expect | what it is |\n|---|---|---|---|\n",
    );
    for case in cases {
        let after = case.after.unwrap_or("");
        let Case {
            name, expect, what, ..
        } = case;
        writeln!(text, "| {name} | {after} | {expect} | {what} |").unwrap();
    }
    text
}

fn files() -> BTreeMap<String, String> {
    let cases = cases::all().0;
    let mut files = BTreeMap::from([("INDEX.md".to_owned(), index(&cases))]);
    for case in &cases {
        let before = files.insert(format!("{}.case", case.name), render(case));
        assert!(before.is_none(), "two cases are called {}", case.name);
    }
    files
}

#[test]
#[ignore = "writes the fixtures"]
fn write() {
    let directory = directory();
    if directory.exists() {
        std::fs::remove_dir_all(&directory).unwrap();
    }
    std::fs::create_dir_all(&directory).unwrap();
    for (name, text) in files() {
        std::fs::write(directory.join(name), text).unwrap();
    }
}

#[test]
fn what_is_kept_is_what_is_generated() {
    let kept: BTreeMap<String, String> = std::fs::read_dir(directory())
        .expect("the fixtures are there")
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    let generated = files();
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&kept), names(&generated));
    for (name, text) in &generated {
        assert_eq!(&kept[name], text, "{name}");
    }
}

/// Covers L8.
#[test]
fn every_case_comes_out_as_it_says() {
    let mut chains = BTreeMap::new();
    let mut wrong = String::new();
    for case in cases::all().0 {
        let found = match offer(&case, &chains) {
            Ok(chain) => {
                assert_eq!(
                    chain.head_key(),
                    asl_store::Key::of(&case.dam),
                    "{}",
                    case.name
                );
                chains.insert(case.name.clone(), chain);
                "ok".to_owned()
            }
            Err(error) => variants(&error),
        };
        if found != case.expect {
            writeln!(wrong, "{}: {found}, not {}", case.name, case.expect).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// The encoders agree: the crate's, and the one of the tests written from the format's description.
#[test]
fn valid_ones_encode_to_themselves() {
    for case in cases::all().0.iter().filter(|case| case.expect == "ok") {
        let dam = Dam::decode(&case.dam).unwrap();
        assert_eq!(dam.encode().unwrap(), case.dam, "{}", case.name);
    }
}

/// The variants of the error enum `name` in a source file.
fn variants_of(source: &str, name: &str) -> BTreeSet<String> {
    let start = source
        .find(&format!("pub enum {name} {{"))
        .expect("the enum is there");
    let body = &source[start..];
    let body = &body[..body.find("\n}\n").expect("it ends")];
    body.lines()
        .skip(1)
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| {
            line.split(|c: char| !c.is_alphanumeric())
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn no_rule_is_without_a_case() {
    let seen: BTreeSet<&str> = cases::all()
        .0
        .iter()
        .flat_map(|case| case.expect.split('/'))
        .collect();
    let sources = [
        (include_str!("../../src/dam/error.rs"), "DamError"),
        (include_str!("../../src/chain.rs"), "ChainError"),
        (include_str!("../../src/chain.rs"), "Uncounted"),
        (include_str!("../../src/policy.rs"), "PolicyError"),
    ];
    // Needs a thousand updates: has its test beside the rule.
    let elsewhere = ["TooManyUpdates", "OnRival"];
    for (source, name) in sources {
        let variants = variants_of(source, name);
        assert!(variants.len() > 2, "{name}");
        for variant in variants {
            assert!(
                seen.contains(variant.as_str()) || elsewhere.contains(&variant.as_str()),
                "no case for {name}::{variant}"
            );
        }
    }
}

/// Each byte changed in turn, and each length cut to: never a panic, never accepted.
#[test]
fn no_other_bytes_are_accepted() {
    let cases = cases::all().0;
    let mut chains = BTreeMap::new();
    for case in cases.iter().filter(|case| case.expect == "ok") {
        chains.insert(case.name.clone(), offer(case, &chains).unwrap());
    }
    for case in cases.iter().filter(|case| case.expect == "ok") {
        let try_with =
            |what: &str, at: usize, dam: &[u8], policy: &[u8], signatures: Vec<&[u8]>| {
                let candidate = Candidate {
                    dam,
                    policy,
                    signatures,
                };
                let accepted = match case.after {
                    None => Chain::genesis(&candidate).is_ok(),
                    Some(after) => chains[after].clone().extend(&candidate).is_ok(),
                };
                assert!(!accepted, "{}: {what} changed at {at}", case.name);
            };
        let signatures: Vec<&[u8]> = case.signatures.iter().map(Vec::as_slice).collect();
        for at in 0..case.dam.len() {
            for flip in [0x01, 0x80] {
                let mut dam = case.dam.clone();
                dam[at] ^= flip;
                try_with("manifest", at, &dam, &case.policy, signatures.clone());
            }
            try_with(
                "manifest cut",
                at,
                &case.dam[..at],
                &case.policy,
                signatures.clone(),
            );
        }
        for at in 0..case.policy.len() {
            let mut policy = case.policy.clone();
            policy[at] ^= 1;
            try_with("policy", at, &case.dam, &policy, signatures.clone());
            try_with(
                "policy cut",
                at,
                &case.dam,
                &case.policy[..at],
                signatures.clone(),
            );
        }
    }
    // One case in which every signature is needed.
    let case = cases
        .iter()
        .find(|case| case.name == "group-rotation")
        .unwrap();
    for which in 0..case.signatures.len() {
        let good = &case.signatures[which];
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            for bad in [flipped.as_slice(), &good[..at]] {
                let mut signatures: Vec<&[u8]> =
                    case.signatures.iter().map(Vec::as_slice).collect();
                signatures[which] = bad;
                let candidate = Candidate {
                    signatures,
                    ..candidate(case)
                };
                let result = chains["group-genesis"].clone().extend(&candidate);
                assert!(result.is_err(), "signature {which} changed at {at}");
            }
        }
    }
}
