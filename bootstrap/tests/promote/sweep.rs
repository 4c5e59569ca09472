//! Cut off at any operation, the same promotion goes on and ends as if nothing had been.

use asl_bootstrap::Domain;
use asl_bootstrap::promote::Progress;
use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs};
use asl_store::{Key, StoreHandle};
use std::sync::Arc;

use crate::world::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn all() -> bool {
    std::env::var_os("ASL_TEST_ALL").is_some()
}

/// The operations to try: all, or some of them, others for each salt.
fn places(ops: u64, everyday: u64, salt: u64) -> impl Iterator<Item = u64> {
    let step = if all() { 1 } else { (ops / everyday).max(1) };
    (salt % step..ops).step_by(step as usize)
}

/// A source and a target between two promotions: blocks to have, to bring and to repack, keys to hide, captures old and new.
fn between() -> (FaultVfs, FaultVfs) {
    let (child, home) = (rescue(), founded(HOME));
    let mut w = writer(&home, 150);
    for chunk in chunks(2, 9) {
        put(&mut w, &chunk, 0);
    }
    w.finish().unwrap();
    (child, home)
}

struct End {
    link: Key,
    ops: u64,
}

fn clean(child: &FaultVfs, home: &FaultVfs) -> End {
    let home = home.fork();
    let promoted = promote(child, &home, &PLAIN).unwrap();
    End {
        link: promoted.links[0].key,
        ops: home.ops(),
    }
}

/// No capture of the source is there unless the lineage is.
fn nothing_half(vfs: &FaultVfs, link: &Key) {
    let Ok(store) = StoreHandle::open(Arc::new(vfs.clone())) else {
        return;
    };
    let domain = Domain::read(&store).unwrap().unwrap();
    let promoted = domain.links().any(|(state, _)| state.key == *link);
    assert!(promoted || finished(&store).is_empty());
}

/// The same promotion again: whole, and then nothing is left to do.
fn goes_on(child: &FaultVfs, home: &FaultVfs, end: &End, what: &str) {
    nothing_half(home, &end.link);
    let plan_before = plan(child, home, &PLAIN).unwrap();
    if !matches!(plan_before.instances[0].progress, Progress::Promoted { .. }) {
        let promoted = promote(child, home, &PLAIN);
        let promoted = promoted.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(promoted.links[0].key, end.link, "{what}");
    }
    verified(home);
    assert_eq!(captures(home), captures(child), "{what}");
    let (there, here) = (contents(child), contents(home));
    // Of one append a power cut may keep the beginning, which makes it visible until now.
    assert!(!here.contains_key(&Key::of(b"removed again")), "{what}");
    let same = there
        .iter()
        .all(|(key, bytes)| here.get(key) == Some(bytes));
    assert!(same, "{what}");
    let again = home.fork();
    let done = plan(child, &again, &PLAIN).unwrap();
    assert_eq!(
        done.instances[0].progress,
        Progress::Promoted { lineage: end.link },
        "{what}"
    );
    assert_eq!(again.ops(), 0, "{what}");
}

#[test]
fn a_power_cut_anywhere_is_gone_on_from() {
    let (child, home) = between();
    let before = files(&child);
    let end = clean(&child, &home);
    for at in places(end.ops, 50, 3) {
        let policies = [
            CrashPolicy::LoseUnsynced,
            CrashPolicy::KeepAll,
            CrashPolicy::Torn { seed: at },
            CrashPolicy::Reorder { seed: at },
        ];
        let tried = match all() {
            true => &policies[..],
            false => std::slice::from_ref(&policies[(at % 4) as usize]),
        };
        for policy in tried {
            let cut = home.fork();
            cut.set_seed(at);
            cut.crash_at(at);
            assert!(promote(&child, &cut, &PLAIN).is_err(), "operation {at}");
            let next = cut.power_cut(*policy);
            goes_on(&child, &next, &end, &format!("operation {at}, {policy:?}"));
        }
    }
    assert_eq!(files(&child), before);
}

#[test]
fn an_error_anywhere_is_gone_on_from() {
    let (child, home) = between();
    let end = clean(&child, &home);
    for (salt, errno, mode) in [
        (1, EIO, FailMode::Once),
        (2, EIO, FailMode::Sticky),
        (5, ENOSPC, FailMode::Once),
    ] {
        for at in places(end.ops, 15, salt) {
            let cut = home.fork();
            cut.fail_op(at, errno, mode);
            // What is only a cache may fail, and what is written twice.
            let _ = promote(&child, &cut, &PLAIN);
            cut.clear_faults();
            cut.release_locks();
            goes_on(
                &child,
                &cut,
                &end,
                &format!("operation {at}, errno {errno}"),
            );
        }
    }
}

/// Cut off twice, and three times.
#[test]
fn one_cut_after_the_other_is_gone_on_from() {
    let (child, home) = between();
    let end = clean(&child, &home);
    let mut now = home.fork();
    let mut seed = 7u64;
    for round in 0..50 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        now.set_seed(seed);
        now.crash_at((seed >> 33) % 60);
        if promote(&child, &now, &PLAIN).is_ok() {
            break;
        }
        now = now.power_cut(CrashPolicy::Torn { seed });
        nothing_half(&now, &end.link);
        assert!(round < 49 || finished(&reader(&now)).is_empty());
    }
    let rest = now.power_cut(CrashPolicy::KeepAll);
    goes_on(&child, &rest, &end, "after many cuts");
}

/// What came before stays whole whatever becomes of what comes now.
#[test]
fn a_second_promotion_that_is_cut_off_is_gone_on_from() {
    let (child, home) = between();
    promote(&child, &home, &PLAIN).unwrap();
    let first = captures(&home);
    advance(&child, 63);
    let mut w = writer(&child, 151);
    w.tombstone(&[Key::of(b"a note to myself")]).unwrap();
    w.finish().unwrap();
    let end = clean(&child, &home);
    for at in places(end.ops, 20, 1) {
        let cut = home.fork();
        cut.crash_at(at);
        assert!(promote(&child, &cut, &PLAIN).is_err());
        let next = cut.power_cut(CrashPolicy::Reorder { seed: at });
        let now = captures(&next);
        assert!(first.iter().all(|(id, root)| now.get(id) == Some(root)));
        promote_or_done(&child, &next);
        assert_eq!(captures(&next), captures(&child));
        verified(&next);
    }
}

fn promote_or_done(child: &FaultVfs, home: &FaultVfs) {
    if !plan(child, home, &PLAIN).unwrap().is_done() {
        promote(child, home, &PLAIN).unwrap();
    }
}
