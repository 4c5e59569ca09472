//! What only a real filesystem has in place of a file: FIFOs, links, directories. None of it is followed or waited for.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use asl_store::sync::{Outcome, SyncOptions, SyncReport, sync};
use asl_store::vfs::Vfs;
use asl_store::vfs::real::RealVfs;
use asl_store::{Error, Result, StoreHandle, StoreWriter, VerifyOptions, create, verify};
use common::*;

fn files(path: &Path) -> Arc<dyn Vfs> {
    Arc::new(RealVfs::open(path).unwrap())
}

fn synced(into: &Path, from: &Path) -> Result<SyncReport> {
    let options = SyncOptions {
        threads: 2,
        ..SyncOptions::default()
    };
    sync(&files(into), &files(from), &context(7), &options, &())
}

/// A directory with a store in it.
fn store(room: &Path, name: &str, seed: u8) -> PathBuf {
    let path = room.join(name);
    let vfs = RealVfs::create(&path).unwrap();
    create(&vfs, &small_params(), &context(seed), &options()).unwrap();
    let mut w = StoreWriter::open(files(&path), context(seed + 100), options()).unwrap();
    for n in 0..40 {
        w.put(frame(&noise(u64::from(seed) * 100 + n, 3000)))
            .unwrap();
    }
    w.flush().unwrap();
    w.snapshot("").unwrap();
    w.finish().unwrap();
    path
}

fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

/// The last file below a directory, by name: of a shard of the index a segment.
fn file_below(dir: &Path) -> PathBuf {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    let last = names.pop().unwrap();
    match last.is_dir() {
        true => file_below(&last),
        false => last,
    }
}

fn is_whole(path: &Path) -> bool {
    let report = verify(files(path), &VerifyOptions::default(), &()).unwrap();
    report.ok()
}

/// Covers L7 in part: whatever lies where a block or a segment should, it is not taken, and nothing is waited for.
#[test]
fn what_is_no_file_is_never_opened() {
    let room = tempfile::tempdir().unwrap();
    let there = store(room.path(), "there", 1);
    for of in ["blocks/sealed", "index/shard-000"] {
        let path = file_below(&there.join(of));
        let path = path.strip_prefix(&there).unwrap();
        for kind in [
            "fifo",
            "link",
            "dangling",
            "outside",
            "directory",
            "linked directory",
        ] {
            let hostile = room.path().join("hostile");
            copy_all(&there, &hostile);
            let place = hostile.join(path);
            fs::remove_file(&place).unwrap();
            match kind {
                "fifo" => {
                    let made = Command::new("mkfifo").arg(&place).status();
                    assert!(made.unwrap().success());
                }
                // Even where it leads to the right bytes.
                "link" => symlink(there.join(path), &place).unwrap(),
                "dangling" => symlink("nowhere", &place).unwrap(),
                "outside" => symlink("/dev/zero", &place).unwrap(),
                "directory" => fs::create_dir(&place).unwrap(),
                _ => {
                    let dir = place.parent().unwrap();
                    fs::remove_dir_all(dir).unwrap();
                    symlink(there.join(path).parent().unwrap(), dir).unwrap();
                }
            }
            let ours = store(room.path(), "ours", 2);
            let report = synced(&ours, &hostile).unwrap();
            let one = &report.instances[0];
            assert!(
                matches!(one.outcome, Outcome::Damaged),
                "{kind} for {of}: {:?}",
                one.outcome
            );
            assert!(one.damaged.iter().any(|file| Path::new(&file.path) == path));
            assert!(is_whole(&ours));
            let shown = StoreHandle::open(files(&ours)).unwrap();
            assert_eq!(shown.instances().len(), 1);
            // From where it is a file it comes.
            assert!(matches!(
                synced(&ours, &there).unwrap().instances[0].outcome,
                Outcome::Taken
            ));
            assert!(is_whole(&ours));
            fs::remove_dir_all(&hostile).unwrap();
            fs::remove_dir_all(&ours).unwrap();
        }
    }
}

#[test]
fn a_log_that_is_a_link_is_none() {
    let room = tempfile::tempdir().unwrap();
    let there = store(room.path(), "there", 1);
    let hostile = room.path().join("hostile");
    copy_all(&there, &hostile);
    let log = hostile.join("log/log-0000000000000000.asl");
    fs::remove_file(&log).unwrap();
    symlink(there.join("log/log-0000000000000000.asl"), &log).unwrap();
    let ours = store(room.path(), "ours", 2);
    assert!(matches!(synced(&ours, &hostile), Err(Error::NotAStore)));
    // The whole directory of instances may be a link as well.
    fs::remove_dir_all(&hostile).unwrap();
    copy_all(&there, &hostile);
    symlink(&there, hostile.join("instances")).unwrap();
    assert!(synced(&ours, &hostile).is_err());
    assert!(is_whole(&ours));
}

/// An inode of which somebody else has another name stays theirs.
#[test]
fn a_hard_link_is_copied_and_never_linked() {
    let room = tempfile::tempdir().unwrap();
    let there = store(room.path(), "there", 1);
    let block = file_below(&there.join("blocks/sealed"));
    fs::hard_link(&block, room.path().join("another name")).unwrap();
    let ours = store(room.path(), "ours", 2);
    let report = synced(&ours, &there).unwrap();
    assert!(matches!(report.instances[0].outcome, Outcome::Taken));
    let copies = ours.join("instances");
    let id = report.instances[0].store.to_string();
    let copy = copies.join(id).join(block.strip_prefix(&there).unwrap());
    assert_eq!(fs::metadata(&copy).unwrap().nlink(), 1);
    // They change it later through the name that they kept.
    fs::write(room.path().join("another name"), b"changed").unwrap();
    assert!(is_whole(&ours));
}

/// A state file of any length is read no further than one can be.
#[test]
fn a_file_that_is_too_long_is_not_read() {
    let room = tempfile::tempdir().unwrap();
    let there = store(room.path(), "there", 2);
    let here = room.path().join("here");
    copy_all(&there, &here);
    for path in [&here, &there] {
        let state = file_below(&path.join("snapshots")).with_file_name("state.bin");
        let file = fs::File::options().write(true).open(state).unwrap();
        file.set_len(1 << 42).unwrap();
    }
    for dry_run in [true, false] {
        let options = SyncOptions {
            verify: true,
            dry_run,
            ..SyncOptions::default()
        };
        let report = sync(&files(&here), &files(&there), &context(7), &options, &()).unwrap();
        let damaged = &report.instances[0].damaged;
        assert_eq!(damaged.len(), 1, "{damaged:?}");
        assert!(damaged[0].path.ends_with("state.bin"), "{damaged:?}");
    }
}
