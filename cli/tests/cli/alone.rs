//! The programs alone: nothing of the system that they run on is needed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::place::skipped;
use super::programs::{dir, shown};

const PROGRAMS: [&str; 3] = ["asl", "asl-capture", "asl-promote"];

/// Whether the programs under test are the static ones that people boot.
fn are_static() -> bool {
    std::env::var_os("ASL_TEST_BIN_DIR").is_some()
}

fn readelf(what: &str, program: &Path) -> String {
    let output = Command::new("readelf")
        .args(["--wide", what])
        .arg(program)
        .output()
        .expect("readelf starts");
    assert!(output.status.success(), "{}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What a program wants from the system before its first instruction: a loader, libraries.
fn wants(program: &Path) -> Vec<String> {
    let segments = readelf("--program-headers", program);
    assert!(segments.contains("LOAD"), "{segments}");
    let dynamic = readelf("--dynamic", program);
    let lines = segments.lines().chain(dynamic.lines());
    let wanting = lines.filter(|line| line.contains("INTERP") || line.contains("(NEEDED)"));
    wanting.map(str::to_owned).collect()
}

/// Covers K1: the programs ask for no loader and no library.
#[test]
fn the_programs_are_static() {
    for name in PROGRAMS {
        let wants = wants(&dir().join(name));
        if are_static() {
            assert!(wants.is_empty(), "{name} wants {wants:?}");
        } else if cfg!(target_env = "gnu") {
            // What cargo builds from day to day does ask, so the question can be answered.
            assert!(wants.len() > 1, "{name} wants {wants:?}");
        }
    }
}

/// A directory with the programs in it and nothing else, as root directory.
struct Cell(tempfile::TempDir);

impl Cell {
    fn new() -> Self {
        // On a disk, as a store should be.
        let cell = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for name in PROGRAMS {
            fs::copy(dir().join(name), cell.path().join(name)).unwrap();
        }
        Self(cell)
    }

    fn run(&self, words: &[&str], exit: i32) -> Output {
        let output = Command::new("chroot")
            .arg(self.0.path())
            .args(words)
            .env_remove("ASL_STORE")
            .output()
            .expect("chroot starts");
        assert_eq!(
            output.status.code(),
            Some(exit),
            "{words:?}: {}",
            shown(&output)
        );
        output
    }
}

/// Covers K1: where there is nothing else, not even `/proc` and `/dev`, the two programs
/// make a store, read an image into it, check it and get it back.
#[test]
fn the_programs_run_where_there_is_nothing_else() {
    if !are_static() {
        eprintln!("skipped: ASL_TEST_BIN_DIR names no static programs");
        return;
    }
    if skipped() {
        return;
    }
    let cell = Cell::new();
    for name in PROGRAMS {
        let version = cell.run(&[&format!("/{name}"), "--version"], 0);
        let version = String::from_utf8(version.stdout).unwrap();
        assert_eq!(version, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
    let mut image = vec![0; 5 << 20];
    let mut noise = blake3::Hasher::new().update(b"alone").finalize_xof();
    noise.fill(&mut image[1 << 20..3 << 20]);
    fs::write(cell.0.path().join("disk.img"), &image).unwrap();
    let with = ["--store", "/store"];
    cell.run(&["/asl", "store", "init", "/store"], 0);
    let disk = ["/asl-capture", "disk", "/disk.img", "--label", "alone"];
    cell.run(&[&disk[..], &with].concat(), 0);
    cell.run(&[&["/asl", "captures"][..], &with].concat(), 0);
    cell.run(&[&["/asl", "store", "verify"][..], &with].concat(), 0);
    cell.run(
        &[
            &["/asl", "export", "alone", "/out.img", "--sparse"][..],
            &with,
        ]
        .concat(),
        0,
    );
    let out = fs::read(cell.0.path().join("out.img")).unwrap();
    assert!(out == image, "the exported image equals the source");
}
