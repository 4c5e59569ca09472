//! Destinations that take no more: full at any byte, read-only, with a ceiling on
//! the length of files.
//!
//! `ASL_TEST_ALL=1` tries more capacities.

mod common;
mod sweep;

use asl_store::format::FILE_LEN_MAX;
use asl_store::vfs::Vfs;
use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs};
use asl_store::{BALLAST_PATH, Error, Params};
use common::*;
use sweep::*;

const EROFS: i32 = 30;

fn used(vfs: &FaultVfs) -> u64 {
    vfs.files().iter().map(|(_, len)| len).sum()
}

/// Covers S5 in part. Whatever the capacity, the script ends cleanly, and what was put until
/// then can still be committed: the ballast makes room for it.
#[test]
fn a_destination_that_fills_up_keeps_what_was_put() {
    let (base, script) = (fresh(), script());
    let whole = base.fork();
    Ledger::default().run(&whole, &script).unwrap();
    let (least, most) = (used(&base), used(&whole));
    let steps = if all() { 4000 } else { 90 };
    let mut stopped = 0;
    for at in 0..=steps {
        let vfs = base.fork();
        vfs.set_seed(at);
        vfs.set_capacity(least + (most + 1000 - least) * at / steps);
        let mut client = Ledger::default();
        let result = client.run_and_stop_gently(&vfs, &script);
        if let Err(error) = result {
            assert!(error.is_full(), "{error}");
            stopped += 1;
        }
        client.check_reader(&vfs);
        check_whole(&vfs);
        // Opening it again on the full disk mends nothing and loses nothing.
        for found in [vfs.fork(), vfs.power_cut(CrashPolicy::LoseUnsynced)] {
            let mut again = client.clone();
            if let Err(error) = again.run(&found, &script) {
                assert!(error.is_full(), "{error}");
            }
            again.check_reader(&found);
            found.set_capacity(1 << 40);
            again.survive(&found, &script);
        }
    }
    assert!(stopped > steps / 2, "the test wants full disks");
}

/// The same for a client that is simply cut off: what it synced is there.
#[test]
fn a_destination_that_fills_up_keeps_what_was_synced() {
    let (base, script) = (fresh(), script());
    let whole = base.fork();
    Ledger::default().run(&whole, &script).unwrap();
    let (least, most) = (used(&base), used(&whole));
    let steps = if all() { 4000 } else { 60 };
    for at in 0..=steps {
        let vfs = base.fork();
        vfs.set_seed(at);
        vfs.set_capacity(least + (most - least) * at / steps);
        let mut client = Ledger::default();
        let _ = client.run(&vfs, &script);
        for policy in [
            CrashPolicy::KeepAll,
            CrashPolicy::LoseUnsynced,
            CrashPolicy::Torn { seed: at },
        ] {
            let found = vfs.power_cut(policy);
            client.check_reader(&found);
            let mut again = client.clone();
            if let Err(error) = again.run(&found, &script) {
                assert!(error.is_full(), "{error}");
            }
            found.set_capacity(1 << 40);
            again.survive(&found, &script);
        }
    }
}

/// Without a ballast, too, nothing acknowledged is lost.
#[test]
fn a_full_destination_without_ballast_keeps_what_was_acknowledged() {
    let base = fresh();
    base.remove_file(BALLAST_PATH).unwrap();
    let script = script();
    let steps = if all() { 4000 } else { 40 };
    for at in 0..=steps {
        let vfs = base.fork();
        vfs.set_seed(at);
        // Never so much that opening makes a ballast.
        vfs.set_capacity(used(&base) + 60_000 * at / steps);
        let mut client = Ledger::default();
        let error = client.run(&vfs, &script).expect_err("far too little room");
        assert!(error.is_full(), "{error}");
        vfs.set_capacity(1 << 40);
        client.survive(&vfs, &script);
    }
}

#[test]
fn the_ballast_comes_back_where_there_is_room_again() {
    let vfs = fresh();
    vfs.set_capacity(used(&vfs) + 5_000);
    let mut w = writer(&vfs, 2).unwrap();
    let put = (0..).map(|n| w.put(frame(&noise(n, 900))));
    let full = put.map(|result| result.err()).find_map(|error| error);
    assert!(full.unwrap().is_full());
    w.finish().unwrap();
    assert!(vfs.metadata(BALLAST_PATH).is_err(), "it was needed");
    vfs.set_capacity(1 << 40);
    writer(&vfs, 3).unwrap().finish().unwrap();
    assert_eq!(
        vfs.metadata(BALLAST_PATH).unwrap().len,
        options().ballast_bytes
    );
}

/// Covers I6 in part: reading writes nothing.
#[test]
fn a_read_only_destination_is_read_and_says_so() {
    let (vfs, script) = (fresh(), script());
    let mut client = Ledger::default();
    client.run(&vfs, &script).unwrap();
    vfs.set_read_only(true);
    client.check_reader(&vfs);
    check_whole(&vfs);
    let Err(Error::Io { source, .. }) = writer(&vfs, 9) else {
        panic!("a writer on a read-only file system")
    };
    assert_eq!(source.raw_os_error(), Some(EROFS));
}

/// The kernel makes a failing file system read-only under the writer's feet.
#[test]
fn a_destination_that_becomes_read_only_keeps_what_was_acknowledged() {
    let (base, script) = (fresh(), script());
    let ops = {
        let vfs = base.fork();
        Ledger::default().run(&vfs, &script).unwrap();
        vfs.ops()
    };
    for n in (0..ops).step_by(if all() { 1 } else { 7 }) {
        let vfs = base.fork();
        vfs.set_seed(n);
        vfs.fail_op(n, EROFS, FailMode::Sticky);
        let mut client = Ledger::default();
        let error = client.run(&vfs, &script).expect_err("nothing is written");
        assert!(!error.is_full(), "{error}");
        vfs.clear_faults();
        client.survive(&vfs, &script);
    }
}

/// Where files may not grow, a store says so; when they may again, all is there.
#[test]
fn a_ceiling_on_the_length_of_files_is_an_error_that_loses_nothing() {
    let (base, script) = (fresh(), script());
    let most = small_params().block_size + 4096;
    let mut met = 0;
    for max in (300..most).step_by(if all() { 101 } else { 1777 }) {
        let vfs = base.fork();
        vfs.set_seed(max);
        vfs.set_max_file_len(max);
        let mut client = Ledger::default();
        if let Err(error) = client.run(&vfs, &script) {
            assert!(!error.is_full(), "{error}");
            met += 1;
        }
        client.check_reader(&vfs);
        vfs.set_max_file_len(1 << 32);
        client.survive(&vfs, &script);
    }
    assert!(met > 10, "the test wants ceilings that are met");
}

/// No file comes near the 4 GiB that FAT allows: not even with the largest parameters.
#[test]
fn no_parameters_allow_files_beyond_two_gib() {
    let params = Params {
        block_size: 1 << 30,
        large_size: 1 << 30,
        small_threshold: 256 << 20,
        packed_max: 1 << 20,
        shards: 1,
    };
    params.validate().unwrap();
    for beyond in [
        Params {
            block_size: params.block_size + 1,
            ..params
        },
        Params {
            large_size: params.large_size + 1,
            ..params
        },
    ] {
        beyond.validate().unwrap_err();
    }
    // A packed block ends before the frame that would exceed its size, and a seal adds
    // 88 bytes for each frame.
    let longest = params.block_size + u64::from(params.packed_max) * 88 + 352;
    assert!(longest < FILE_LEN_MAX);
    const { assert!(FILE_LEN_MAX < 4 << 30) };
}
