//! Mapfiles: what ddrescue writes, what anybody might hand us, and back.

use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = "\
# Mapfile. Created by GNU ddrescue version 1.27
# Command line: ddrescue -d /dev/sdc image mapfile
# current_pos  current_status  current_pass
0x00120000     ?               1
#      pos        size  status
0x00000000  0x00117000  +
0x00117000  0x00000200  -
0x00117200  0x00001000  /
0x00118200  0x00007E00  *
0x00120000  0x00048000  ?
";

fn blocks(map: &RescueMap) -> Vec<(u64, u64, StateKind)> {
    map.runs()
        .map(|run| (run.start, run.len, run.state.kind()))
        .collect()
}

#[test]
fn the_manuals_example_is_read_and_written() {
    let mapfile = Mapfile::parse(EXAMPLE.as_bytes()).expect("a mapfile");
    assert_eq!(
        mapfile.status,
        Status {
            position: 0x12_0000,
            activity: Activity::Copying,
            pass: 1
        }
    );
    assert_eq!(
        blocks(&mapfile.map),
        [
            (0, 0x11_7000, StateKind::Copied),
            (0x11_7000, 0x200, StateKind::Unreadable),
            (0x11_7200, 0x1000, StateKind::Unscraped),
            (0x11_8200, 0x7e00, StateKind::Untrimmed),
            (0x12_0000, 0x4_8000, StateKind::Untried),
        ]
    );
    let comments = [
        "Mapfile. Created by GNU ddrescue version 1.27",
        "Command line: ddrescue -d /dev/sdc image mapfile",
    ];
    assert_eq!(mapfile.render(&comments), EXAMPLE);
}

#[test]
fn numbers_comments_and_spaces_are_as_in_the_manual() {
    let text = b"# \xff\xfe any bytes\n\n  \t\n0 +  # no pass before 1.20\r\n0 010 + # octal\n8\t8   -\n0x10 0X20 *#\n";
    let error = Mapfile::parse(text).expect_err("a # needs white space before it");
    assert_eq!(
        error,
        MapfileError::Symbol {
            line: 7,
            found: "*#".to_owned()
        }
    );
    let text = &text[..text.len() - 2];
    let mapfile = Mapfile::parse(text).expect("a mapfile");
    assert_eq!(mapfile.status.activity, Activity::Finished);
    assert_eq!(mapfile.status.pass, 1);
    assert_eq!(
        blocks(&mapfile.map),
        [
            (0, 8, StateKind::Copied),
            (8, 8, StateKind::Unreadable),
            (16, 32, StateKind::Untrimmed),
        ]
    );
}

#[test]
fn the_map_fits_the_source() {
    let parse = |text: &str| Mapfile::parse(text.as_bytes()).expect("a mapfile");
    // Nothing tried yet, and blocks that begin and end inside the source.
    let map = parse("0 ? 1\n").into_map(100).expect("fits");
    assert_eq!(blocks(&map), [(0, 100, StateKind::Untried)]);
    let map = parse("0 ? 1\n10 20 +\n").into_map(100).expect("fits");
    assert_eq!(
        blocks(&map),
        [
            (0, 10, StateKind::Untried),
            (10, 20, StateKind::Copied),
            (30, 70, StateKind::Untried),
        ]
    );
    // Of unknown size: ddrescue writes all the bytes there could be.
    let map = parse("0 ? 1\n0 50 +\n50 0x7FFFFFFFFFFFFFCD ?\n");
    let map = map.into_map(100).expect("fits");
    assert_eq!(
        blocks(&map),
        [(0, 50, StateKind::Copied), (50, 50, StateKind::Untried)]
    );
    // Of another disk.
    let too_long = parse("0 ? 1\n0 101 +\n");
    assert_eq!(
        too_long.into_map(100),
        Err(MapfileError::BeyondSource { size: 100 })
    );
}

#[test]
fn hostile_mapfiles_are_refused_by_line() {
    let line = 3;
    let number = |field, found: &str| MapfileError::Number {
        line,
        field,
        found: found.to_owned(),
    };
    let symbol = |found: &str| MapfileError::Symbol {
        line,
        found: found.to_owned(),
    };
    for (block, error) in [
        ("", None),
        ("16 16 +", None),
        (
            "16",
            Some(MapfileError::Missing {
                line,
                field: "size",
            }),
        ),
        (
            "16 16",
            Some(MapfileError::Missing {
                line,
                field: "status",
            }),
        ),
        (
            "16 16 + 1",
            Some(MapfileError::Trailing {
                line,
                found: "1".to_owned(),
            }),
        ),
        ("16 0 +", Some(MapfileError::EmptyBlock { line })),
        (
            "17 16 +",
            Some(MapfileError::Gap {
                line,
                expected: 16,
                found: 17,
            }),
        ),
        (
            "15 16 +",
            Some(MapfileError::Overlap {
                line,
                expected: 16,
                found: 15,
            }),
        ),
        (
            "0 16 +",
            Some(MapfileError::Overlap {
                line,
                expected: 16,
                found: 0,
            }),
        ),
        ("16 16 F", Some(symbol("F"))),
        ("16 16 ++", Some(symbol("++"))),
        ("16 16 \u{ff0b}", Some(symbol("\u{ff0b}"))),
        ("-16 16 +", Some(number("position", "-16"))),
        ("+16 16 +", Some(number("position", "+16"))),
        ("16 -1 +", Some(number("size", "-1"))),
        ("16 1e3 +", Some(number("size", "1e3"))),
        ("16 09 +", Some(number("size", "09"))),
        ("16 0x +", Some(number("size", "0x"))),
        ("16 0x-1 +", Some(number("size", "0x-1"))),
        (
            "16 0x8000000000000000 +",
            Some(number("size", "0x8000000000000000")),
        ),
        (
            "16 99999999999999999999999999999999 +",
            Some(number("size", "999999999999999999999999")),
        ),
        (
            "16 0x7FFFFFFFFFFFFFF0 +",
            Some(MapfileError::TooLarge { line }),
        ),
        ("16 0x7FFFFFFFFFFFFFEF +", None),
    ] {
        let text = format!("0 ? 1\n0 16 +\n{block}\n");
        assert_eq!(Mapfile::parse(text.as_bytes()).err(), error, "{block:?}");
    }
    for (text, error) in [
        ("", MapfileError::NoStatusLine),
        ("# only a comment\n", MapfileError::NoStatusLine),
        (
            "0x0\n",
            MapfileError::Missing {
                line: 1,
                field: "status",
            },
        ),
        (
            "0 ? 1 1",
            MapfileError::Trailing {
                line: 1,
                found: "1".to_owned(),
            },
        ),
        (
            "0 x 1",
            MapfileError::Symbol {
                line: 1,
                found: "x".to_owned(),
            },
        ),
        (
            "0 ? one",
            MapfileError::Number {
                line: 1,
                field: "pass",
                found: "one".to_owned(),
            },
        ),
    ] {
        assert_eq!(Mapfile::parse(text.as_bytes()), Err(error), "{text:?}");
    }
}

#[test]
fn comments_stay_comments() {
    let map = RescueMap::new(512);
    let status = Status::of(Stage::Done, 0);
    let text = render(&map, status, &["a label\n0x0 0x200 +", "\r\u{1b}[2J"]);
    let read = Mapfile::parse(text.as_bytes()).expect("a mapfile");
    assert_eq!(read.map, map);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
}

fn map() -> impl Strategy<Value = RescueMap> {
    let state = prop::sample::select(StateKind::ALL.to_vec());
    prop::collection::vec((1u64..1 << 40, state), 1..40).prop_map(|blocks| {
        let size = blocks.iter().map(|(len, _)| len).sum();
        let mut map = RescueMap::new(size);
        let mut start = 0;
        for (len, kind) in blocks {
            map.set(start..start + len, block_state(kind));
            start += len;
        }
        map
    })
}

fn status() -> impl Strategy<Value = Status> {
    (
        0..POSITION_MAX,
        prop::sample::select(Activity::ALL.to_vec()),
        1..u32::MAX,
    )
        .prop_map(|(position, activity, pass)| Status {
            position,
            activity,
            pass,
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(map in map(), status in status()) {
        let mapfile = Mapfile { status, map };
        let text = mapfile.render(&["a comment"]);
        prop_assert_eq!(Mapfile::parse(text.as_bytes()), Ok(mapfile));
    }

    #[test]
    fn details_get_lost_but_nothing_else(map in map(), errno in 1i32..200, attempts in 1u32..9) {
        let mut detailed = map.clone();
        for run in map.runs_of(StateKind::Unreadable) {
            let middle = run.start + run.len / 2;
            detailed.set(middle..run.end(), RangeState::Unreadable { errno, attempts });
        }
        let text = render(&detailed, Status::of(Stage::Trim, 0), &[]);
        prop_assert_eq!(Mapfile::parse(text.as_bytes()).expect("a mapfile").map, map);
    }

    #[test]
    fn any_bytes_give_a_map_or_an_error(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Mapfile::parse(&text);
    }

    /// Near misses: a good mapfile with a few bytes changed.
    #[test]
    fn damaged_mapfiles_give_a_sound_map_or_an_error(
        map in map(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut text = render(&map, Status::of(Stage::Scrape, 0), &[]).into_bytes();
        for (at, byte) in damage {
            let at = at.index(text.len());
            text[at] = byte;
        }
        if let Ok(read) = Mapfile::parse(&text) {
            let total: u64 = StateKind::ALL.iter().map(|kind| read.map.bytes_of(*kind)).sum();
            prop_assert_eq!(total, read.map.size());
            prop_assert!(read.map.size() <= POSITION_MAX);
        }
    }
}

/// GNU ddrescue's own tool reads what we write, and counts the same.
#[test]
fn ddrescuelog_understands_us() {
    let installed = Command::new("ddrescuelog")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !installed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: ddrescuelog (Debian package gddrescue) is not installed");
        return;
    }
    let mut map = RescueMap::new(10_000_000_001);
    let unreadable = |errno| RangeState::Unreadable { errno, attempts: 3 };
    map.set(0..1 << 30, RangeState::Copied);
    map.set(1 << 20..(1 << 20) + 512, unreadable(61));
    map.set((1 << 20) + 512..(1 << 20) + 1024, unreadable(5));
    map.set(1 << 25..1 << 26, RangeState::Untrimmed);
    map.set(1 << 27..1 << 28, RangeState::Unscraped);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("mapfile");
    let status = Status::of(Stage::Retry { pass: 2 }, 1 << 20);
    std::fs::write(&path, render(&map, status, &["Mapfile of a test"])).expect("written");

    let run = |args: &[&str]| {
        let output = Command::new("ddrescuelog")
            .args(args)
            .arg(&path)
            .output()
            .expect("ddrescuelog runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    // The two halves of the bad area are one block to it.
    let shown = run(&["--show-status"]);
    assert!(shown.contains("current status: retrying"), "{shown}");
    assert!(shown.contains("bad-sector:     1024 B"), "{shown}");
    // Block numbers of 512 bytes.
    assert_eq!(run(&["--list-blocks=-"]), "2048\n2049\n");
    let listed = |kind| run(&[&format!("--list-blocks={kind}")]).lines().count() as u64;
    assert_eq!(listed('*') * 512, map.untrimmed_bytes());
    assert_eq!(listed('/') * 512, map.unscraped_bytes());
}
