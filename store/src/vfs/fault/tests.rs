//! Tests of faults, crashes and limits.

use std::collections::BTreeSet;

use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn put(vfs: &FaultVfs, path: &str, bytes: &[u8]) -> Box<dyn VfsFile> {
    let file = vfs.create_exclusive(path).unwrap();
    file.write_at(0, &[bytes]).unwrap();
    file
}

/// A file that survives everything.
fn put_durably(vfs: &FaultVfs, path: &str, bytes: &[u8]) -> Box<dyn VfsFile> {
    let file = put(vfs, path, bytes);
    file.sync().unwrap();
    let (dir, _) = path.rsplit_once('/').unwrap_or(("", path));
    vfs.sync_dir(dir).unwrap();
    file
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    match result {
        Ok(_) => panic!("succeeded"),
        Err(e) => e.raw_os_error(),
    }
}

fn paths(vfs: &FaultVfs) -> Vec<String> {
    vfs.files().into_iter().map(|(path, _)| path).collect()
}

/// All cuts with a hundred seeds each.
fn every_cut() -> impl Iterator<Item = CrashPolicy> {
    let torn = (0..100).map(|seed| CrashPolicy::Torn { seed });
    let reorder = (0..100).map(|seed| CrashPolicy::Reorder { seed });
    let plain = [CrashPolicy::KeepAll, CrashPolicy::LoseUnsynced];
    plain.into_iter().chain(torn).chain(reorder)
}

#[test]
fn every_change_is_counted_and_traced() {
    let vfs = FaultVfs::new();
    vfs.create_dir("d").unwrap();
    let file = vfs.create_exclusive("d/a").unwrap();
    file.write_at(3, &[b"ab", b"c"]).unwrap();
    file.truncate(2).unwrap();
    file.sync().unwrap();
    vfs.rename("d/a", "b").unwrap();
    file.write_at(0, &[b"x"]).unwrap();
    vfs.sync_dir("").unwrap();
    vfs.remove("b").unwrap();
    vfs.lock("lock").unwrap();
    let lines: Vec<String> = vfs.trace().iter().map(Op::to_string).collect();
    assert_eq!(
        lines,
        [
            "0 CreateDir \"d\"",
            "1 Create \"d/a\"",
            "2 Write \"d/a\" 3+3",
            "3 Truncate \"d/a\" 2",
            "4 Sync \"d/a\"",
            "5 Rename \"d/a\" -> \"b\"",
            "6 Write \"b\" 0+1",
            "7 SyncDir \"\"",
            "8 Remove \"b\"",
            "9 Create \"lock\"",
        ]
    );
    assert_eq!(vfs.ops(), 10);
}

#[test]
fn what_changes_nothing_is_not_counted() {
    let vfs = FaultVfs::new();
    vfs.create_dir("d").unwrap();
    let file = put(&vfs, "d/a", b"abc");
    let counted = vfs.ops();
    vfs.create_dir("d").unwrap();
    file.write_at(9, &[b"", b""]).unwrap();
    vfs.rename("d/a", "d/a").unwrap();
    let again = vfs.open("d/a", Access::Write).unwrap();
    assert_eq!(again.read_at(0, &mut [0; 9]).unwrap(), 3);
    vfs.list("d").unwrap();
    vfs.metadata("d/a").unwrap();
    drop(vfs.lock("d/a").unwrap().unwrap());
    assert!(vfs.create_exclusive("d/a").is_err());
    assert!(vfs.remove("d/b").is_err());
    assert_eq!(vfs.ops(), counted);

    vfs.set_count_reads(true);
    again.read_at(1, &mut [0; 2]).unwrap();
    vfs.open("d/a", Access::Read).unwrap();
    vfs.list("d").unwrap();
    vfs.metadata("d/a").unwrap();
    drop(vfs.lock("d/a").unwrap().unwrap());
    let kinds: Vec<_> = vfs.trace()[counted as usize..]
        .iter()
        .map(|op| op.kind)
        .collect();
    use OpKind::*;
    assert_eq!(kinds, [Read, Open, List, Metadata, Lock]);
    assert_eq!(
        vfs.trace()[counted as usize].to_string(),
        "3 Read \"d/a\" 1+2"
    );
}

#[test]
fn the_nth_operation_fails_once_or_for_good() {
    let vfs = FaultVfs::new();
    vfs.fail_op(1, ENOSPC, FailMode::Once);
    vfs.fail_op(3, EIO, FailMode::Sticky);
    vfs.create_exclusive("a").unwrap();
    assert_eq!(errno(vfs.create_exclusive("b")), Some(ENOSPC));
    let file = vfs.create_exclusive("b").unwrap();
    assert_eq!(errno(vfs.remove("b")), Some(EIO));
    assert_eq!(errno(vfs.rename("a", "c")), Some(EIO));
    assert_eq!(errno(file.truncate(5)), Some(EIO));
    assert_eq!(errno(vfs.create_dir("d")), Some(EIO));
    assert_eq!(paths(&vfs), ["a", "b"]);
    assert_eq!(file.len().unwrap(), 0);
    let failed: Vec<_> = vfs.trace().iter().map(|op| op.errno).collect();
    let sticky = [Some(EIO); 4];
    assert_eq!(failed[..3], [None, Some(ENOSPC), None]);
    assert_eq!(failed[3..], sticky);
    vfs.clear_faults();
    vfs.remove("b").unwrap();
}

#[test]
fn a_failing_write_leaves_a_prefix_that_the_seed_chooses() {
    let data = vec![1u8; 1000];
    let left = |seed: u64| {
        let vfs = FaultVfs::new();
        vfs.set_seed(seed);
        vfs.fail_op(1, EIO, FailMode::Once);
        let file = vfs.create_exclusive("a").unwrap();
        assert_eq!(errno(file.write_at(0, &[&data])), Some(EIO));
        let left = vfs.read_file("a").unwrap();
        assert!(left.iter().all(|b| *b == 1));
        left.len()
    };
    let lens: BTreeSet<usize> = (0..50).map(left).collect();
    assert!(
        lens.contains(&0) && lens.contains(&1000) && lens.len() > 10,
        "{lens:?}"
    );
    assert!((0..50).all(|seed| left(seed) == left(seed)));
}

#[test]
fn a_hook_picks_what_fails_and_may_look_around() {
    let vfs = FaultVfs::new();
    vfs.create_dir("blocks").unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (inside, log) = (vfs.clone(), Arc::clone(&seen));
    vfs.set_hook(move |op| {
        log.lock()
            .unwrap()
            .push(paths(&inside.power_cut(CrashPolicy::KeepAll)));
        (op.kind == OpKind::Sync && op.path.starts_with("blocks/")).then_some(EIO)
    });
    let block = vfs.create_exclusive("blocks/1").unwrap();
    let other = vfs.create_exclusive("log").unwrap();
    assert_eq!(errno(block.sync()), Some(EIO));
    other.sync().unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0], Vec::<String>::new());
    assert_eq!(seen[1], ["blocks/1"]);
    assert_eq!(seen.len(), 4);
    vfs.clear_faults();
    block.sync().unwrap();
}

#[test]
fn a_failed_sync_loses_data_that_later_syncs_call_clean() {
    let vfs = FaultVfs::new();
    let file = put_durably(&vfs, "a", b"first");
    file.write_at(5, &[b"second"]).unwrap();
    vfs.fail_op(vfs.ops(), EIO, FailMode::Once);
    assert_eq!(errno(file.sync()), Some(EIO));
    file.sync().unwrap();
    assert_eq!(vfs.read_file("a").unwrap(), b"firstsecond");
    let cut = vfs.power_cut(CrashPolicy::LoseUnsynced);
    assert_eq!(cut.read_file("a").unwrap(), b"first");
    // What comes later is safe where it stands, whatever became of the rest.
    file.write_at(11, &[b"third"]).unwrap();
    file.sync().unwrap();
    let cut = vfs.power_cut(CrashPolicy::LoseUnsynced);
    assert_eq!(cut.read_file("a").unwrap(), b"first\0\0\0\0\0\0third");
    for policy in every_cut() {
        let bytes = vfs.power_cut(policy).read_file("a").unwrap();
        assert_eq!((&bytes[..5], &bytes[11..]), (&b"first"[..], &b"third"[..]));
    }
    let killed = vfs.power_cut(CrashPolicy::KeepAll);
    assert_eq!(killed.read_file("a").unwrap(), b"firstsecondthird");
    let settled = killed.fork();
    let file = settled.open("a", Access::Read).unwrap();
    file.settle().unwrap();
    assert_eq!(settled.read_file("a").unwrap(), b"first\0\0\0\0\0\0third");
    killed.drop_caches();
    assert_eq!(killed.read_file("a").unwrap(), b"first\0\0\0\0\0\0third");
}

#[test]
fn a_failed_sync_dir_loses_names_that_later_syncs_call_clean() {
    let vfs = FaultVfs::new();
    put(&vfs, "a", b"1").sync().unwrap();
    vfs.fail_op(vfs.ops(), EIO, FailMode::Once);
    assert_eq!(errno(vfs.sync_dir("")), Some(EIO));
    put(&vfs, "b", b"2").sync().unwrap();
    vfs.sync_dir("").unwrap();
    assert_eq!(paths(&vfs.power_cut(CrashPolicy::LoseUnsynced)), ["b"]);
    // A later change of that very name brings it along.
    vfs.rename("a", "c").unwrap();
    vfs.sync_dir("").unwrap();
    assert_eq!(paths(&vfs.power_cut(CrashPolicy::LoseUnsynced)), ["b", "c"]);
}

#[test]
fn nothing_works_after_a_crash() {
    let vfs = FaultVfs::new();
    let file = put_durably(&vfs, "a", b"abc");
    let lock = vfs.lock("a").unwrap();
    vfs.crash_at(vfs.ops() + 1);
    file.write_at(3, &[b"d"]).unwrap();
    assert!(!vfs.crashed());
    assert_eq!(errno(file.sync()), Some(EIO));
    assert!(vfs.crashed());
    let errors = [
        errno(file.read_at(0, &mut [0; 1])),
        errno(file.len()),
        errno(file.write_at(0, &[b"x"])),
        errno(vfs.open("a", Access::Read)),
        errno(vfs.list("")),
        errno(vfs.metadata("a")),
        errno(vfs.lock("b")),
        errno(vfs.statfs()),
        errno(vfs.sync_dir("")),
    ];
    assert_eq!(errors, [Some(EIO); 9]);
    assert_eq!(vfs.ops(), 6, "the dead do nothing that counts");

    let next = vfs.power_cut(CrashPolicy::KeepAll);
    assert_eq!(next.read_file("a").unwrap(), b"abcd");
    assert!(next.lock("a").unwrap().is_some());
    assert_eq!((next.ops(), next.crashed()), (0, false));
    let cut = vfs.power_cut(CrashPolicy::LoseUnsynced);
    assert_eq!(cut.read_file("a").unwrap(), b"abc");
    drop(lock);
}

#[test]
fn the_dying_operation_may_take_effect() {
    let outcome = |seed: u64| {
        let vfs = FaultVfs::new();
        vfs.set_seed(seed);
        put_durably(&vfs, "a", b"abc");
        vfs.crash_at(vfs.ops());
        assert_eq!(errno(vfs.rename("a", "b")), Some(EIO));
        paths(&vfs)
    };
    let outcomes: BTreeSet<_> = (0..20).map(outcome).collect();
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
}

#[test]
fn names_need_their_directory_synced_up_to_the_root() {
    let vfs = FaultVfs::new();
    vfs.create_dir("d").unwrap();
    vfs.create_dir("d/e").unwrap();
    put(&vfs, "d/e/a", b"1").sync().unwrap();
    let lost = || paths(&vfs.power_cut(CrashPolicy::LoseUnsynced)).is_empty();
    for dir in ["d/e", "d"] {
        assert!(lost());
        vfs.sync_dir(dir).unwrap();
    }
    assert!(lost());
    vfs.sync_dir("").unwrap();
    for policy in every_cut() {
        let cut = vfs.power_cut(policy);
        assert_eq!(cut.read_file("d/e/a").unwrap(), b"1", "{policy:?}");
        assert_eq!(cut.list("d").unwrap().len(), 1);
    }
}

#[test]
fn an_unsynced_name_survives_some_cuts() {
    let vfs = FaultVfs::new();
    put(&vfs, "a", b"1").sync().unwrap();
    put(&vfs, "b", b"2").sync().unwrap();
    for reorder in [false, true] {
        let found: BTreeSet<_> = (0..100)
            .map(|seed| match reorder {
                true => CrashPolicy::Reorder { seed },
                false => CrashPolicy::Torn { seed },
            })
            .map(|policy| paths(&vfs.power_cut(policy)))
            .collect();
        let mut expected = BTreeSet::from([vec![], vec!["a".into()], vec!["a".into(), "b".into()]]);
        if reorder {
            expected.insert(vec!["b".into()]);
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn an_unsynced_rename_leaves_the_old_or_the_new_name() {
    for (from, to) in [("open/a", "open/b"), ("open/a", "sealed/a")] {
        let vfs = FaultVfs::new();
        vfs.create_dir("open").unwrap();
        vfs.create_dir("sealed").unwrap();
        vfs.sync_dir("").unwrap();
        let file = put_durably(&vfs, from, b"abc");
        vfs.rename(from, to).unwrap();
        // Not even the directory that lost the name settles it.
        if from.starts_with("open") && to.starts_with("sealed") {
            vfs.sync_dir("open").unwrap();
        }
        let mut found = BTreeSet::new();
        for policy in every_cut() {
            let cut = vfs.power_cut(policy);
            let names = paths(&cut);
            assert_eq!(names.len(), 1, "{policy:?}: {names:?}");
            assert_eq!(cut.read_file(&names[0]).unwrap(), b"abc");
            found.insert(names[0].clone());
        }
        assert_eq!(found, BTreeSet::from([from.to_owned(), to.to_owned()]));
        let cut = vfs.power_cut(CrashPolicy::LoseUnsynced);
        assert_eq!(paths(&cut), [from]);

        file.write_at(3, &[b"d"]).unwrap();
        file.sync().unwrap();
        vfs.sync_dir(to.rsplit_once('/').unwrap().0).unwrap();
        for policy in every_cut() {
            let cut = vfs.power_cut(policy);
            assert_eq!(paths(&cut), [to], "{policy:?}");
            assert_eq!(cut.read_file(to).unwrap(), b"abcd");
        }
    }
}

#[test]
fn a_name_that_is_used_again_costs_no_renamed_file() {
    let vfs = FaultVfs::new();
    put_durably(&vfs, "a", b"old");
    vfs.rename("a", "b").unwrap();
    put(&vfs, "a", b"new").sync().unwrap();
    let mut found = BTreeSet::new();
    for policy in every_cut() {
        let cut = vfs.power_cut(policy);
        let old = |path| cut.read_file(path).is_ok_and(|bytes| bytes == b"old");
        assert_ne!(old("a"), old("b"), "{policy:?}");
        found.insert(paths(&cut));
    }
    let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let expected = [names(&["a"]), names(&["a", "b"]), names(&["b"])];
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn what_a_failed_sync_wrote_may_be_there_all_the_same() {
    let vfs = FaultVfs::new();
    let file = put_durably(&vfs, "a", b"");
    file.write_at(0, &[b"frame"]).unwrap();
    vfs.fail_op(vfs.ops(), EIO, FailMode::Once);
    file.sync().unwrap_err();
    let torn = |seed| vfs.power_cut(CrashPolicy::Torn { seed });
    let found: BTreeSet<_> = (0..50).map(|s| torn(s).read_file("a").unwrap()).collect();
    assert!(found.contains(b"frame".as_slice()) && found.contains(b"".as_slice()));
}

#[test]
fn a_rename_over_a_file_leaves_one_of_the_two() {
    let vfs = FaultVfs::new();
    put_durably(&vfs, "current", b"old");
    put(&vfs, "tmp", b"new").sync().unwrap();
    vfs.rename("tmp", "current").unwrap();
    assert_eq!(vfs.read_file("current").unwrap(), b"new");
    let mut found = BTreeSet::new();
    for policy in every_cut() {
        found.insert(vfs.power_cut(policy).read_file("current").unwrap());
    }
    assert_eq!(found, BTreeSet::from([b"new".to_vec(), b"old".to_vec()]));
}

#[test]
fn an_unsynced_removal_may_come_back() {
    let vfs = FaultVfs::new();
    drop(put_durably(&vfs, "a", b"abc"));
    vfs.remove("a").unwrap();
    put_durably(&vfs, "d", b"");
    assert!(
        vfs.power_cut(CrashPolicy::LoseUnsynced)
            .read_file("a")
            .is_err()
    );
    drop(put_durably(&vfs, "b", b"xyz"));
    vfs.remove("b").unwrap();
    let cut = vfs.power_cut(CrashPolicy::LoseUnsynced);
    assert_eq!(cut.read_file("b").unwrap(), b"xyz");
    vfs.sync_dir("").unwrap();
    for policy in every_cut() {
        assert_eq!(paths(&vfs.power_cut(policy)), ["d"]);
    }
}

#[test]
fn torn_writes_come_in_every_shape() {
    let vfs = FaultVfs::new();
    let file = put_durably(&vfs, "a", &[1; 1000]);
    for i in 0..4 {
        file.write_at(1000 + i * 2000, &[&[2 + i as u8; 2000]])
            .unwrap();
    }
    let whole = vfs.read_file("a").unwrap();
    let (mut none, mut all, mut cut_short, mut zeroed, mut noisy, mut hole) = <_>::default();
    for seed in 0..300 {
        let bytes = vfs
            .power_cut(CrashPolicy::Torn { seed })
            .read_file("a")
            .unwrap();
        assert_eq!(bytes[..1000], whole[..1000]);
        let len = bytes.len();
        assert!(
            len == 1000
                || len == 9000
                || len.is_multiple_of(512)
                || (len - 1000).is_multiple_of(2000)
        );
        none |= len == 1000;
        all |= bytes == whole;
        cut_short |= len.is_multiple_of(512) && bytes == whole[..len];
        zeroed |= len > 1000 && bytes[1000..].iter().all(|b| *b == 0);
        noisy |= bytes.iter().any(|b| *b > 5);
        hole |= len == 9000 && bytes[8000] == 5 && bytes[1000] == 0;
        let again = vfs.power_cut(CrashPolicy::Torn { seed });
        assert_eq!(again.read_file("a").unwrap(), bytes);
    }
    assert!(none && all && cut_short && zeroed && noisy && hole);
}

#[test]
fn reordered_writes_arrive_whole_in_any_combination() {
    let vfs = FaultVfs::new();
    let file = put_durably(&vfs, "a", &[]);
    for i in 0..3 {
        file.write_at(i * 700, &[&[1 + i as u8; 700]]).unwrap();
    }
    let mut found = BTreeSet::new();
    for seed in 0..300 {
        let bytes = vfs
            .power_cut(CrashPolicy::Reorder { seed })
            .read_file("a")
            .unwrap();
        let mut there = Vec::new();
        for (part, expected) in bytes.chunks(700).zip(1..) {
            assert!(part.iter().all(|b| *b == expected) || part.iter().all(|b| *b == 0));
            there.push(part[0] != 0);
        }
        assert_ne!(there.last(), Some(&false), "length without a write");
        found.insert(there);
    }
    assert_eq!(found.len(), 8, "{found:?}");
}

#[test]
fn a_killed_process_leaves_the_cache_to_the_next_cut() {
    let vfs = FaultVfs::new();
    let file = put_durably(&vfs, "a", b"abc");
    file.write_at(3, &[b"def"]).unwrap();
    put(&vfs, "b", b"");
    let killed = vfs.power_cut(CrashPolicy::KeepAll);
    assert_eq!(killed.read_file("a").unwrap(), b"abcdef");
    assert_eq!(paths(&killed), ["a", "b"]);
    let cut = killed.power_cut(CrashPolicy::LoseUnsynced);
    assert_eq!(
        (paths(&cut), cut.read_file("a").unwrap()),
        (vec!["a".into()], b"abc".to_vec())
    );
    // A new process that syncs has it all.
    killed.open("a", Access::Write).unwrap().sync().unwrap();
    killed.sync_dir("").unwrap();
    let cut = killed.power_cut(CrashPolicy::LoseUnsynced);
    assert_eq!(
        (paths(&cut).len(), cut.read_file("a").unwrap()),
        (2, b"abcdef".to_vec())
    );
    // And the old one is not touched by any of it.
    let old = vfs.power_cut(CrashPolicy::LoseUnsynced);
    assert_eq!(old.read_file("a").unwrap(), b"abc");
}

#[test]
fn a_full_disk_takes_what_fits() {
    let vfs = FaultVfs::new();
    vfs.set_capacity(100);
    vfs.set_fs_type(0x4d44);
    let a = put(&vfs, "a", &[1; 60]);
    let b = vfs.create_exclusive("b").unwrap();
    let error = b.write_at(0, &[&[2; 30], &[3; 30]]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(
        vfs.read_file("b").unwrap(),
        [[2; 30].as_slice(), &[3; 10]].concat()
    );
    let stat = vfs.statfs().unwrap();
    assert_eq!(
        (stat.total_bytes, stat.available_bytes, stat.fs_type),
        (100, 0, 0x4d44)
    );
    a.write_at(0, &[&[9; 60]]).unwrap();
    assert_eq!(errno(b.write_at(50, &[b"x"])), Some(ENOSPC));
    assert_eq!(
        (b.len().unwrap(), errno(b.truncate(41))),
        (40, Some(ENOSPC))
    );
    b.truncate(10).unwrap();
    assert_eq!(vfs.statfs().unwrap().available_bytes, 30);
    // A removed file takes room until it is closed.
    vfs.remove("a").unwrap();
    assert_eq!(vfs.statfs().unwrap().available_bytes, 30);
    assert_eq!(vfs.fork().statfs().unwrap().available_bytes, 90);
    drop(a);
    assert_eq!(vfs.statfs().unwrap().available_bytes, 90);
    put(&vfs, "c", &[1; 50]);
    vfs.rename("c", "b").unwrap();
    drop(b);
    assert_eq!(vfs.statfs().unwrap().available_bytes, 50);
    vfs.set_capacity(20);
    assert_eq!(vfs.statfs().unwrap().available_bytes, 0);
    let cut = vfs.power_cut(CrashPolicy::LoseUnsynced);
    assert_eq!(cut.statfs().unwrap().available_bytes, 20);
}

#[test]
fn files_have_a_greatest_length() {
    let vfs = FaultVfs::new();
    vfs.set_max_file_len(10);
    let file = put(&vfs, "a", b"12345");
    let error = file.write_at(5, &[b"abcdefg"]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(vfs.read_file("a").unwrap(), b"12345abcde");
    assert_eq!(
        file.truncate(11).unwrap_err().kind(),
        io::ErrorKind::FileTooLarge
    );
    assert!(file.write_at(u64::MAX, &[b"ab"]).is_err());
}

#[test]
fn a_read_only_disk_is_readable() {
    let vfs = FaultVfs::new();
    let file = put_durably(&vfs, "a", b"abc");
    vfs.set_read_only(true);
    let kind = |error: io::Error| error.kind();
    let errors = [
        vfs.open("a", Access::Write).map(drop).map_err(kind),
        vfs.create_exclusive("b").map(drop).map_err(kind),
        vfs.create_dir("d").map_err(kind),
        vfs.rename("a", "b").map_err(kind),
        vfs.remove("a").map_err(kind),
        vfs.lock("a").map(drop).map_err(kind),
        file.write_at(0, &[b"x"]).map_err(kind),
        file.truncate(0).map_err(kind),
    ];
    assert_eq!(errors, [Err(io::ErrorKind::ReadOnlyFilesystem); 8]);
    assert!(vfs.statfs().unwrap().read_only);
    let file = vfs.open("a", Access::Read).unwrap();
    assert_eq!(file.read_at(0, &mut [0; 9]).unwrap(), 3);
    assert!(
        vfs.power_cut(CrashPolicy::LoseUnsynced)
            .statfs()
            .unwrap()
            .read_only
    );
}

#[test]
fn a_lock_has_one_holder() {
    let vfs = FaultVfs::new();
    let held = vfs.lock("lock").unwrap().unwrap();
    assert!(vfs.clone().lock("lock").unwrap().is_none());
    assert!(vfs.lock("other").unwrap().is_some());
    assert!(vfs.fork().lock("lock").unwrap().is_some());
    vfs.release_locks();
    let next = vfs.lock("lock").unwrap();
    assert!(next.is_some());
    drop(held);
    assert!(
        vfs.lock("lock").unwrap().is_none(),
        "the dead released it twice"
    );
    drop(next);
    assert!(vfs.lock("lock").unwrap().is_some());
}

#[test]
fn files_can_be_planted_damaged_and_taken_away() {
    let vfs = FaultVfs::new();
    vfs.write_file("d/e/a", b"abc").unwrap();
    vfs.write_file("b", b"").unwrap();
    assert_eq!(vfs.files(), [("b".to_owned(), 0), ("d/e/a".to_owned(), 3)]);
    let copy = vfs.fork();
    vfs.flip_byte("d/e/a", 1).unwrap();
    assert_eq!(vfs.read_file("d/e/a").unwrap(), [b'a', !b'b', b'c']);
    assert!(vfs.flip_byte("d/e/a", 3).is_err());
    assert!(vfs.flip_byte("none", 0).is_err());
    assert!(vfs.write_file("b/a", b"").is_err());
    vfs.remove_file("b").unwrap();
    let cut = vfs.power_cut(CrashPolicy::LoseUnsynced);
    assert_eq!(paths(&cut), ["d/e/a"]);
    assert_eq!(cut.read_file("d/e/a").unwrap()[1], !b'b');
    assert_eq!(
        (vfs.ops(), vfs.statfs().unwrap().available_bytes),
        (0, (1 << 40) - 3)
    );
    assert_eq!(copy.read_file("d/e/a").unwrap(), b"abc");
    assert_eq!(paths(&copy).len(), 2);
}

#[test]
fn an_open_file_is_not_its_name() {
    let vfs = FaultVfs::new();
    let file = put(&vfs, "a", b"abc");
    let reader = vfs.open("a", Access::Read).unwrap();
    vfs.rename("a", "b").unwrap();
    put(&vfs, "a", b"other");
    file.write_at(0, &[b"X"]).unwrap();
    let mut buf = [0; 3];
    reader.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"Xbc");
    vfs.remove("b").unwrap();
    vfs.sync_dir("").unwrap();
    file.write_at(0, &[b"Y"]).unwrap();
    file.sync().unwrap();
    reader.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"Ybc");
    assert_eq!(vfs.read_file("a").unwrap(), b"other");
}

#[test]
fn threads_may_share_it() {
    let vfs = FaultVfs::new();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let vfs = vfs.clone();
            scope.spawn(move || {
                let own = put(&vfs, &format!("f{thread}"), b"");
                for i in 0..50u64 {
                    own.write_at(i, &[&[thread]]).unwrap();
                    let _ = vfs.create_exclusive(&format!("shared{i}"));
                }
                own.sync().unwrap();
            });
        }
    });
    let trace = vfs.trace();
    assert!(trace.iter().zip(0..).all(|(op, n)| op.number == n));
    let made = trace
        .iter()
        .filter(|op| op.kind == OpKind::Create && op.errno.is_none());
    assert_eq!((made.count(), vfs.files().len()), (54, 54));
    assert_eq!(vfs.read_file("f2").unwrap(), [2; 50]);
}
