//! The tree is what its readers expect: what lies at its top, what it is built on, how
//! files open, and pages that name only what is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("a crate lies in the workspace")
        .to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Everything that is committed, or would be.
fn files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    let listed = String::from_utf8(output.stdout).unwrap();
    let listed = listed.lines().map(str::to_owned);
    listed.filter(|file| root().join(file).exists()).collect()
}

/// What must lie at the top.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "capture",
    "cli",
    "scripts",
    "store",
    "tests",
];
/// What lies there once it is begun: never as an empty shell.
const TOP_LATER: &[&str] = &["bootstrap", "iso-overlay", "qemu"];
/// What convention puts there.
const TOP_BY_CONVENTION: &[&str] = &[
    ".ci",
    ".config",
    ".gitattributes",
    ".gitignore",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "docs",
];

/// Covers K9.
#[test]
fn the_top_level_holds_what_it_should_and_nothing_else() {
    let files = files();
    let top: BTreeSet<&str> = files
        .iter()
        .map(|file| file.split('/').next().unwrap_or_default())
        .collect();
    for name in TOP {
        assert!(top.contains(name), "{name} is missing");
    }
    let known = [TOP, TOP_LATER, TOP_BY_CONVENTION].concat();
    let strangers: Vec<&&str> = top.iter().filter(|name| !known.contains(name)).collect();
    assert!(strangers.is_empty(), "not at the top level: {strangers:?}");

    // A directory with a Cargo.toml is a member of the workspace, and has code.
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find(|line| line.starts_with("members = "));
    let members = members.expect("the workspace has members");
    for name in &top {
        let is_crate = files.contains(&format!("{name}/Cargo.toml"));
        assert_eq!(members.contains(&format!("\"{name}\"")), is_crate, "{name}");
        assert!(
            !is_crate || files.contains(&format!("{name}/src/lib.rs")),
            "{name}"
        );
    }
}

/// The crates that this is built on, which of ours uses each, and what of ours must
/// be there before it is missed.
const BUILT_ON: &[(&str, &[&str], &str)] = &[
    ("blake3", &["store", "capture"], "store"),
    ("rustix", &["store", "capture", "cli"], "store"),
    ("clap", &["cli"], "cli"),
    ("serde", &["store", "capture", "cli"], "store"),
    ("postcard", &["store"], "store"),
    ("indicatif", &["cli"], "cli"),
    ("walkdir", &["capture"], "capture/src/tree.rs"),
    ("dialoguer", &["cli"], "cli/src/command/wizard.rs"),
    ("ed25519-dalek", &["bootstrap"], "bootstrap"),
    ("zeroize", &["bootstrap"], "bootstrap"),
];

/// Covers K8, the last four crates from the day on which what needs them exists.
#[test]
fn it_is_built_on_the_crates_that_were_chosen() {
    for (dependency, users, needed_by) in BUILT_ON {
        if !root().join(needed_by).exists() {
            continue;
        }
        for user in *users {
            let manifest = read(&format!("{user}/Cargo.toml"));
            let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
            let dependencies = dependencies.split("\n[").next().unwrap_or_default();
            let declared = dependencies.lines().any(|line| {
                let rest = line.strip_prefix(dependency);
                rest.is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
            });
            assert!(declared, "{user} does not depend on {dependency}");
            let path = format!("{}::", dependency.replace('-', "_"));
            let sources = files()
                .into_iter()
                .filter(|file| file.starts_with(&format!("{user}/src/")) && file.ends_with(".rs"));
            let used = sources
                .map(|file| read(&file))
                .any(|text| text.contains(&path));
            assert!(used, "{user} does not use {dependency}");
        }
    }
}

/// Each file of code says first what it is.
#[test]
fn every_source_file_opens_with_what_it_is() {
    let files = files();
    let sources = files.iter().filter(|file| file.ends_with(".rs"));
    for file in sources.clone() {
        assert!(read(file).starts_with("//! "), "{file}");
    }
    assert!(sources.count() > 100);
}

/// Where a page of Markdown says that something is to be found: the targets of links.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

#[test]
fn pages_link_only_to_what_is_there() {
    let files = files();
    let mut count = 0;
    for page in files.iter().filter(|file| file.ends_with(".md")) {
        let text = read(page);
        let here = root().join(page);
        let here = here.parent().expect("a page lies in a directory");
        for target in links(&text) {
            assert!(here.join(target).exists(), "{page} links to {target}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

/// FAT, exFAT and many network file systems have no hard links. A store is as good
/// there as anywhere, since none is ever asked for.
#[test]
fn nothing_asks_for_hard_links() {
    let verbs = ["hard_link", "::linkat(", "fs::link(", "symlink("];
    let of_programs = |file: &&String| {
        let source = file.contains("/src/") && file.ends_with(".rs");
        source && !file.contains("/tests")
    };
    let files = files();
    let mut count = 0;
    for file in files.iter().filter(of_programs) {
        let text = read(file);
        // What follows a file's own tests is of them.
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        for verb in verbs {
            assert!(!code.contains(verb), "{file}: {verb}");
        }
        count += 1;
    }
    assert!(count > 50, "{count}");
}
