//! Sessions: `tests/cli/*.md` hold what a user types and what must come back.
//!
//! In a block fenced with ```` ```console ````, a line `$ COMMAND` is run by bash, lines
//! `> …` continue it, what follows is what it prints on both outputs, and `? N` is
//! its exit code where that is not 0. In expected lines, `[..]` stands for any text,
//! and a line `...` for any lines. All commands of a file share one shell
//! in a fresh directory that holds nothing. `ASL_TEST_UPDATE=1` writes what came.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::programs;

/// One command and what is expected of it.
#[derive(Debug, Default)]
struct Step {
    /// Lines as they stand in the file, `$ ` and `> ` included.
    typed: Vec<String>,
    expected: Vec<String>,
    exit: i32,
}

/// A file in order: text that is left alone, and steps.
enum Part {
    Text(String),
    Step(Step),
}

fn parse(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut step: Option<Step> = None;
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            parts.extend(step.take().map(Part::Step));
            inside = line == "```console";
            parts.push(Part::Text(line.to_owned()));
        } else if !inside {
            parts.push(Part::Text(line.to_owned()));
        } else if line.starts_with("$ ") {
            parts.extend(step.take().map(Part::Step));
            step = Some(Step {
                typed: vec![line.to_owned()],
                ..Step::default()
            });
        } else if let Some(step) = &mut step {
            if line.starts_with("> ") && step.expected.is_empty() {
                step.typed.push(line.to_owned());
            } else if let Some(exit) = line.strip_prefix("? ") {
                step.exit = exit.parse().expect("`? ` is followed by an exit code");
            } else {
                step.expected.push(line.to_owned());
            }
        } else {
            parts.push(Part::Text(line.to_owned()));
        }
    }
    parts.extend(step.map(Part::Step));
    parts
}

/// Runs all steps in one shell; gives what each printed and returned.
fn run(steps: &[&Step], room: &Path) -> Vec<(String, i32)> {
    let (home, logs) = (room.join("home"), room.join("logs"));
    for dir in [&home, &logs] {
        fs::create_dir_all(dir).unwrap();
    }
    let mut script = String::from("shopt -s expand_aliases\n");
    for (number, step) in steps.iter().enumerate() {
        let typed: Vec<&str> = step.typed.iter().map(|line| &line[2..]).collect();
        writeln!(
            script,
            "{{ {}\n}} >{logs}/{number}.out 2>&1 </dev/null\necho $? >{logs}/{number}.exit",
            typed.join("\n"),
            logs = logs.display()
        )
        .unwrap();
    }
    let path = format!(
        "{}:{}",
        programs::dir().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let status = Command::new("bash")
        .args(["--norc", "-c", &script])
        .env_clear()
        .env("PATH", path)
        .env("HOME", &home)
        .env("TERM", "dumb")
        .env("LC_ALL", "C")
        .current_dir(&home)
        .stdin(Stdio::null())
        .status()
        .expect("bash starts");
    assert!(status.success(), "the session's shell ended with {status}");
    let read = |name: String| fs::read_to_string(logs.join(name)).unwrap_or_default();
    (0..steps.len())
        .map(|number| {
            let exit = read(format!("{number}.exit")).trim().parse().unwrap_or(-1);
            (read(format!("{number}.out")), exit)
        })
        .collect()
}

/// Whether a line is what a pattern with `[..]` describes.
fn line_fits(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split("[..]");
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for piece in pieces {
        if let Some(middle) = last.replace(piece) {
            let Some(at) = rest.find(middle) else {
                return false;
            };
            rest = &rest[at + middle.len()..];
        }
    }
    match last {
        Some(end) => rest.ends_with(end),
        None => rest.is_empty(),
    }
}

fn lines_fit(patterns: &[String], lines: &[&str]) -> bool {
    match patterns {
        [] => lines.is_empty(),
        [any, rest @ ..] if any == "..." => {
            (0..=lines.len()).any(|skip| lines_fit(rest, &lines[skip..]))
        }
        [first, rest @ ..] => {
            lines.first().is_some_and(|line| line_fits(first, line)) && lines_fit(rest, &lines[1..])
        }
    }
}

/// The file as it would be if what came were right.
fn updated(parts: &[Part], came: &[(String, i32)]) -> String {
    let mut text = String::new();
    let mut came = came.iter();
    for part in parts {
        match part {
            Part::Text(line) => writeln!(text, "{line}").unwrap(),
            Part::Step(step) => {
                let (output, exit) = came.next().unwrap();
                let lines: Vec<&str> = output.lines().collect();
                for line in &step.typed {
                    writeln!(text, "{line}").unwrap();
                }
                if lines_fit(&step.expected, &lines) {
                    step.expected
                        .iter()
                        .for_each(|line| writeln!(text, "{line}").unwrap());
                } else {
                    lines
                        .iter()
                        .for_each(|line| writeln!(text, "{line}").unwrap());
                }
                if *exit != 0 {
                    writeln!(text, "? {exit}").unwrap();
                }
            }
        }
    }
    text
}

/// Runs a session file; what is wrong with it, if anything.
fn check(file: &Path) -> Result<(), String> {
    let parts = parse(&fs::read_to_string(file).unwrap());
    let steps: Vec<&Step> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Step(step) => Some(step),
            Part::Text(_) => None,
        })
        .collect();
    assert!(!steps.is_empty(), "{} has no commands", file.display());
    let room = tempfile::tempdir().unwrap();
    let came = run(&steps, room.path());
    if std::env::var_os("ASL_TEST_UPDATE").is_some() {
        fs::write(file, updated(&parts, &came)).unwrap();
        return Ok(());
    }
    let mut wrong = String::new();
    for (step, (output, exit)) in steps.iter().zip(&came) {
        let lines: Vec<&str> = output.lines().collect();
        if *exit != step.exit || !lines_fit(&step.expected, &lines) {
            writeln!(
                wrong,
                "{}: {}\n--- expected (exit {})\n{}\n--- came (exit {exit})\n{output}",
                file.file_name().unwrap_or_default().to_string_lossy(),
                step.typed.join("\n"),
                step.exit,
                step.expected.join("\n"),
            )
            .unwrap();
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cli");
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    files.sort();
    files
}

/// Covers L1, L8, L9: `domains/<domain id>/` under a root holds what a bare store holds, whatever kind the domain is, and all of
/// them are read as one.
#[test]
fn every_kind_of_domain_lies_alike_under_a_root() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cli");
    check(&dir.join("root.md")).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// Covers C4, C6, K3: what is typed gives what is written down, errors included.
#[test]
fn sessions_go_as_they_are_written_down() {
    let files = files();
    assert!(files.len() >= 5, "{files:?}");
    // This one has a test of its own.
    let others = files.iter().filter(|file| !file.ends_with("root.md"));
    let wrong: Vec<String> = others.filter_map(|file| check(file).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn patterns_fit_what_they_describe_and_nothing_else() {
    for (pattern, line, fits) in [
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("a[..]c", "abbc", true),
        ("a[..]c", "abbd", false),
        ("a[..]b[..]c", "axbxc", true),
        ("a[..]b[..]c", "axcxb", false),
        ("[..]", "", true),
        ("a[..]a", "a", false),
    ] {
        assert_eq!(line_fits(pattern, line), fits, "{pattern} {line}");
    }
    let patterns = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    assert!(lines_fit(
        &patterns(&["a", "...", "c"]),
        &["a", "b", "b", "c"]
    ));
    assert!(!lines_fit(&patterns(&["a", "...", "c"]), &["a", "b"]));
    assert!(!lines_fit(&patterns(&["a"]), &["a", "b"]));
}
