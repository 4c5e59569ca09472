//! A rescue store that went on in several places: each of its logs is proven and taken over, all of them or none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use asl_bootstrap::carry::carry;
use asl_bootstrap::dam::{Reason, Revocation};
use asl_bootstrap::domain::Class;
use asl_bootstrap::lineage::{Checks, Op};
use asl_bootstrap::promote::{Progress, PromoteError, Retired, retire, status};
use asl_bootstrap::trust::Trusted;
use asl_bootstrap::verify::VerifyError;
use asl_bootstrap::{Domain, Draft, Error};
use asl_store::sync::{SyncOptions, sync};
use asl_store::vfs::Vfs;
use asl_store::vfs::fault::{CrashPolicy, FaultVfs};
use asl_store::{Home, Key, LogPosition, SessionId, StoreId, StoreWriter, format};

use crate::fixture::{context, options, publish, signer};
use crate::world::*;

const NOTE: &[u8] = b"a note to myself";
const KEPT: &[u8] = b"removed there, put again here";

/// A writer of a store at a place.
pub fn at(vfs: &FaultVfs, seed: u8, place: &str) -> StoreWriter {
    let context = asl_store::Context {
        home: Home::new(place),
        ..context(seed)
    };
    StoreWriter::open(Arc::new(vfs.clone()), context, options()).unwrap()
}

/// Brings what `from` has into `into`.
pub fn meet(into: &FaultVfs, from: &FaultVfs, place: &str) {
    let context = asl_store::Context {
        home: Home::new(place),
        ..context(99)
    };
    let vfs = |vfs: &FaultVfs| -> Arc<dyn Vfs> { Arc::new(vfs.clone()) };
    let options = SyncOptions::default();
    sync(&vfs(into), &vfs(from), &context, &options, &()).unwrap();
}

/// A store on a stick.
fn stick() -> FaultVfs {
    let stick = rescue();
    let mut w = at(&stick, 130, "stick");
    put(&mut w, KEPT, format::FLAG_ROOT);
    put(&mut w, b"removed where it was put", format::FLAG_ROOT);
    w.finish().unwrap();
    stick
}

/// A copy of it on a disk, where it went on: a capture that has most of its chunks from the stick, one that is new, something removed.
fn disk(stick: &FaultVfs) -> FaultVfs {
    let disk = stick.fork();
    let mut w = at(&disk, 140, "disk");
    assert!(w.recovery().born.is_some());
    assert_eq!(carry(&mut w).unwrap().manifests, 1);
    let parts = [chunks(1, 20), chunks(71, 2)].concat();
    capture(&mut w, 71, &parts);
    put(&mut w, b"put on the disk", format::FLAG_ROOT);
    w.commit().unwrap();
    w.tombstone(&[Key::of(NOTE), Key::of(KEPT)]).unwrap();
    put(&mut w, &noise(72, 30_000), format::FLAG_ROOT);
    attest(&mut w, RESCUE);
    w.finish().unwrap();
    disk
}

/// Both, met in one directory whose top is the stick's. On the stick something was put that the disk had not seen when it removed it.
fn met() -> FaultVfs {
    let stick = stick();
    let disk = disk(&stick);
    let mut w = at(&stick, 141, "stick");
    w.tombstone(&[Key::of(KEPT), Key::of(b"removed where it was put")])
        .unwrap();
    put(&mut w, KEPT, format::FLAG_ROOT);
    capture(&mut w, 63, &chunks(63, 5));
    attest(&mut w, RESCUE);
    w.finish().unwrap();
    meet(&stick, &disk, "stick");
    stick
}

fn all_captures(vfs: &FaultVfs) -> BTreeMap<SessionId, Key> {
    let source = source(vfs).unwrap();
    let all = finished_of_each(&source).into_iter().flatten();
    all.map(|done| (done.session, done.root)).collect()
}

fn stores(vfs: &FaultVfs) -> Vec<StoreId> {
    let source = source(vfs).unwrap();
    let instances = source.instances().iter();
    instances.map(|one| one.head().store).collect()
}

/// What the target shows of what the source ever had is what the source shows.
fn shows_what_is_shown(child: &FaultVfs, home: &FaultVfs) {
    let (there, here) = (contents(child), contents(home));
    for (key, bytes) in &there {
        assert_eq!(here.get(key), Some(bytes));
    }
    for gone in [NOTE, b"removed again", b"removed where it was put"] {
        assert!(!there.contains_key(&Key::of(gone)));
        assert!(!here.contains_key(&Key::of(gone)), "{gone:?} came back");
    }
    assert!(here.contains_key(&Key::of(KEPT)), "what was put anew stays");
    assert_eq!(captures(home), all_captures(child));
}

fn refused(child: &FaultVfs, home: &FaultVfs, how: &How<'_>) -> Error {
    let (there, here) = (files(child), files(home));
    let error = match plan(child, home, how) {
        Err(error) => error,
        Ok(_) => promote(child, home, how).unwrap_err(),
    };
    assert_eq!(files(child), there);
    let here_now = files(home).into_iter();
    let staged = |name: &str| name.starts_with("tmp/") || name == "lock";
    let now: BTreeMap<_, _> = here_now.filter(|(name, _)| !staged(name)).collect();
    let here: BTreeMap<_, _> = (here.into_iter())
        .filter(|(name, _)| !staged(name))
        .collect();
    assert_eq!(now, here, "{error:?}");
    error
}

fn promote_error(error: Error) -> PromoteError {
    match error {
        Error::Promote(error) => error,
        error => panic!("{error:?}"),
    }
}

/// Covers K6.
#[test]
fn a_store_that_went_on_in_two_places_comes_over_as_its_view_shows_it() {
    let (child, home) = (met(), founded(HOME));
    let before = files(&child);
    let first = plan(&child, &home, &PLAIN).unwrap();
    assert_eq!(first.instances.len(), 2);
    assert_eq!(first.contents.artifacts(), contents(&child).len() as u64);
    let promoted = promote(&child, &home, &PLAIN).unwrap();
    assert_eq!(files(&child), before, "the source is only read");
    let taken: Vec<StoreId> = promoted
        .links
        .iter()
        .map(|link| link.lineage.store)
        .collect();
    assert_eq!(taken, stores(&child));
    for link in &promoted.links {
        assert_eq!((link.lineage.op, link.lineage.missing), (Op::Adopt, 0));
        assert!(link.lineage.checks.contains(Checks::CLOSURE));
        assert!(link.lineage.checks.contains(Checks::CHECKPOINT));
    }
    assert_eq!(promoted.links[1].lineage.sessions, [SessionId([71; 16])]);
    shows_what_is_shown(&child, &home);
    verified(&home);
    let domain = Domain::read(&reader(&home)).unwrap().unwrap();
    assert_eq!(status(&domain).len(), 2);
    for done in finished(&reader(&home)) {
        let receipt = domain.receipt(done.session, done.root).unwrap();
        assert!(!receipt.signers.is_empty());
    }

    let (there, here) = (child.fork(), home.fork());
    assert!(plan(&there, &here, &PLAIN).unwrap().is_done());
    assert_eq!((there.ops(), here.ops()), (0, 0), "{:?}", here.trace());
}

/// Whichever of the two is at the top of the directory.
#[test]
fn the_other_directory_says_the_same() {
    let (stick, home) = (stick(), founded(HOME));
    let disk = disk(&stick);
    promote(&disk, &home, &PLAIN).unwrap();
    assert_eq!(captures(&home), all_captures(&disk));
    assert!(!contents(&home).contains_key(&Key::of(NOTE)));
    // The stick alone shows what the disk removed. What was removed stays so.
    assert!(plan(&stick, &home, &PLAIN).unwrap().is_done());
    promote(&stick, &home, &PLAIN).unwrap();
    assert!(!contents(&home).contains_key(&Key::of(NOTE)));
    verified(&home);
}

#[test]
fn only_what_went_on_comes_over_anew() {
    let (child, home) = (met(), founded(HOME));
    let first = promote(&child, &home, &PLAIN).unwrap();
    let disk = stores(&child)[1];
    // The disk goes on where it is, and the stick gets what it has.
    let elsewhere = child.fork();
    for name in elsewhere.files().into_iter().map(|(name, _)| name) {
        if name.ends_with("/copied") {
            elsewhere.remove_file(&name).unwrap();
        }
    }
    let mut w = at(&elsewhere, 145, "disk");
    assert_eq!(w.handle().with_state(|state| state.store_id()), disk);
    capture(&mut w, 73, &chunks(73, 4));
    attest(&mut w, RESCUE);
    w.finish().unwrap();
    meet(&child, &elsewhere, "stick");
    let again = plan(&child, &home, &PLAIN).unwrap();
    let progress: Vec<bool> = again
        .instances
        .iter()
        .map(|one| one.progress.is_done())
        .collect();
    assert_eq!(progress, [true, false]);
    let second = promote(&child, &home, &PLAIN).unwrap();
    assert_eq!(second.links[0].key, first.links[0].key);
    assert_eq!(second.links[1].lineage.prev, Some(first.links[1].key));
    assert_eq!(second.links[1].lineage.sessions, [SessionId([73; 16])]);
    shows_what_is_shown(&child, &home);
    verified(&home);
    assert!(plan(&child, &home, &PLAIN).unwrap().is_done());
}

/// A birth whose domain was never said again in its own log is of the domain that the directory proves.
#[test]
fn an_instance_that_says_nothing_of_its_domain_is_judged_by_the_others() {
    let (stick, home) = (stick(), founded(HOME));
    let disk = stick.fork();
    let mut w = at(&disk, 140, "disk");
    capture(&mut w, 71, &chunks(71, 4));
    put(&mut w, b"put on the disk", format::FLAG_ROOT);
    w.finish().unwrap();
    let first = plan(&disk, &home, &PLAIN).unwrap();
    assert_eq!(first.instances[1].child.domain.id(), fixed_id(RESCUE));
    assert_eq!(first.instances[1].child.domain.covered(), 0);
    let promoted = promote(&disk, &home, &PLAIN).unwrap();
    // Nobody vouches for its captures, and that is said.
    let checks = promoted.links[1].lineage.checks;
    assert!(!checks.contains(Checks::CHECKPOINT));
    assert_eq!(captures(&home), all_captures(&disk));
    verified(&home);
    assert!(plan(&disk, &home, &PLAIN).unwrap().is_done());
    // Nor is the domain of one lent to the other where the user named another one.
    let other = How {
        expect: Some(fixed_id(40)),
        ..PLAIN
    };
    let fresh = founded(HOME);
    let error = refused(&disk, &fresh, &other);
    assert!(matches!(error, Error::Verify(_)), "{error:?}");
}

/// An instance that was begun and holds nothing is nothing to promote.
#[test]
fn a_birth_alone_is_no_news() {
    let (stick, home) = (stick(), founded(HOME));
    promote(&stick, &home, &PLAIN).unwrap();
    let disk = stick.fork();
    let mut w = at(&disk, 140, "disk");
    carry(&mut w).unwrap();
    w.finish().unwrap();
    let again = plan(&disk, &home, &PLAIN).unwrap();
    assert_eq!(again.instances[1].progress, Progress::Empty);
    assert!(again.is_done());
    let before = home.fork();
    let promoted = promote(&disk, &home, &PLAIN).unwrap();
    assert_eq!(promoted.links.len(), 1);
    assert_eq!(contents(&home), contents(&before));
}

/// What a manifest in one log says counts for the others.
#[test]
fn a_key_that_was_revoked_elsewhere_is_revoked_here() {
    let home = founded(HOME);
    let revoking = |positions: &[LogPosition]| {
        let child = met();
        let entries: Vec<_> = stores(&child)
            .into_iter()
            .zip(positions.iter().copied())
            .collect();
        let mut w = at(&child, 150, "stick");
        let domain = Domain::read(w.handle()).unwrap().unwrap();
        let host = signer(RESCUE + 2);
        let draft = Draft::update(&domain.chain, [1; 32], 7, |dam, _| {
            dam.principals.retain(|one| one.key != host.public());
            for (store, position) in entries {
                dam.revoke(Revocation {
                    key: host.id(),
                    store,
                    position,
                    reason: Reason::Compromised,
                });
            }
        });
        publish(&mut w, &draft.unwrap().signed(&[signer(RESCUE)]));
        w.finish().unwrap();
        child
    };
    let last = LogPosition(1 << 40);
    // In a store that is not named nothing by the key counts; nor does it from the position on that is named.
    for positions in [&[last][..], &[last, LogPosition(0)]] {
        let error = promote_error(refused(&revoking(positions), &home, &PLAIN));
        assert_eq!(error.class(), Some(Class::Authority), "{error:?}");
    }
    let later = revoking(&[last, last]);
    let planned = plan(&later, &home, &PLAIN).unwrap();
    let heads: BTreeSet<Key> = (planned.instances.iter())
        .map(|one| one.child.domain.chain.head_key())
        .collect();
    assert_eq!(heads.len(), 1, "one manifest is in force for all");
}

/// Two updates of one manifest, made apart: nobody can say which one was meant.
#[test]
fn manifests_that_fork_over_two_logs_are_refused() {
    let (stick, home) = (stick(), founded(HOME));
    let disk = disk(&stick);
    for (vfs, place, nonce) in [(&stick, "stick", 1), (&disk, "disk", 2)] {
        let mut w = at(vfs, 150 + nonce, place);
        let domain = Domain::read(w.handle()).unwrap().unwrap();
        let draft = Draft::update(&domain.chain, [nonce; 32], 7, |dam, _| {
            dam.label = format!("{nonce}");
        });
        publish(&mut w, &draft.unwrap().signed(&[signer(RESCUE)]));
        w.finish().unwrap();
    }
    promote(&stick, &founded(HOME), &PLAIN).unwrap();
    meet(&stick, &disk, "stick");
    let error = promote_error(refused(&stick, &home, &PLAIN));
    assert_eq!(error.class(), Some(Class::Fork), "{error:?}");
}

/// Puts a store among the instances of another, by a name.
fn beside(child: &FaultVfs, other: &FaultVfs, name: &str) {
    for (path, bytes) in files(other) {
        if !path.starts_with("meta/") && path != "lock" {
            child
                .write_file(&format!("instances/{name}/{path}"), &bytes)
                .unwrap();
        }
    }
}

#[test]
fn what_lies_among_the_instances_and_does_not_belong_there_is_refused() {
    let home = founded(HOME);
    // An instance of another domain, with a capture that claims to be ours.
    let stranger = founded(40);
    let mut w = writer(&stranger, 150);
    capture(&mut w, 80, &chunks(80, 3));
    w.finish().unwrap();
    let id = stores(&stranger)[0];
    let child = met();
    beside(&child, &stranger, &id.to_string());
    let error = refused(&child, &home, &PLAIN);
    let Error::Verify(VerifyError::OtherDomain { expected, found }) = error else {
        panic!("{error:?}");
    };
    assert_eq!((expected, found), (fixed_id(RESCUE), Some(fixed_id(40))));
    // Nor does ours get in beside the stranger's.
    let top = stranger.fork();
    let mine = stick();
    beside(&top, &mine, &stores(&mine)[0].to_string());
    let error = refused(&top, &home, &PLAIN);
    assert!(matches!(error, Error::Verify(_)), "{error:?}");

    // Under a name that is not its own.
    let forged = stick();
    beside(&forged, &disk(&stick()), &"ab".repeat(16));
    let error = promote_error(refused(&forged, &home, &PLAIN));
    assert!(
        matches!(&error, PromoteError::SourceInstance { what, .. } if what.contains("log is that of")),
        "{error:?}"
    );
    let junk = stick();
    junk.write_file("instances/junk", b"junk").unwrap();
    let error = promote_error(refused(&junk, &home, &PLAIN));
    assert_eq!(error.class(), Some(Class::Integrity));
}

#[test]
fn a_log_that_was_put_back_or_went_another_way_refuses_all() {
    let (stick, home) = (stick(), founded(HOME));
    let old = disk(&stick);
    let new = old.fork();
    let mut w = at(&new, 150, "disk");
    capture(&mut w, 74, &chunks(74, 4));
    attest(&mut w, RESCUE);
    w.finish().unwrap();
    promote(&new, &home, &PLAIN).unwrap();
    let seen = plan(&new, &home, &PLAIN).unwrap().seen();
    assert_eq!(seen.len(), 2);
    let remembered = Trusted {
        domain: fixed_id(RESCUE),
        name: None,
        manifest: None,
        logs: seen.iter().map(|seen| seen.head).collect(),
    };
    let memory = How {
        remembered: Some(&remembered),
        ..PLAIN
    };
    let fresh = founded(HOME);
    // Something new on the stick does not come either.
    let mut w = at(&old, 151, "stick");
    capture(&mut w, 75, &chunks(75, 4));
    w.finish().unwrap();
    for (into, how) in [(&home, &PLAIN), (&fresh, &memory)] {
        let error = promote_error(refused(&old, into, how));
        let PromoteError::RolledBack { store, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(store, stores(&old)[1]);
    }
    let mut w = at(&old, 152, "disk");
    for n in 0..20 {
        put(&mut w, &noise(600 + n, 300), format::FLAG_ROOT);
        w.commit().unwrap();
    }
    attest(&mut w, RESCUE);
    w.finish().unwrap();
    for (into, how) in [(&home, &PLAIN), (&fresh, &memory)] {
        let error = promote_error(refused(&old, into, how));
        assert!(matches!(error, PromoteError::Forked { .. }), "{error:?}");
    }
    // Apart it may come, and the stick's log goes on as ever.
    let fork = How {
        fork: true,
        ..PLAIN
    };
    let promoted = promote(&old, &home, &fork).unwrap();
    let ops: Vec<Op> = promoted.links.iter().map(|link| link.lineage.op).collect();
    assert_eq!(ops, [Op::Adopt, Op::Fork]);
    assert!(captures(&home).contains_key(&SessionId([75; 16])));
    verified(&home);
    let again = plan(&old, &home, &PLAIN).unwrap();
    assert!(again.is_done());
    assert_eq!(again.seen().len(), 1, "no pin is moved by a second history");
}

#[test]
fn damage_in_one_refuses_all() {
    let (child, home) = (met(), founded(HOME));
    let of_disk = |name: &str| name.starts_with("instances/");
    let blocks = child.files().into_iter();
    let (block, len) = blocks
        .filter(|(name, _)| of_disk(name) && name.contains("/blocks/sealed"))
        .max_by_key(|(_, len)| *len)
        .unwrap();
    // In its contents, seen at once; in a frame, seen when it is read; not there at all.
    for harm in [Some(len - 400), Some(2000), None] {
        let harmed = child.fork();
        match harm {
            Some(offset) => harmed.flip_byte(&block, offset).unwrap(),
            None => harmed.remove_file(&block).unwrap(),
        }
        let error = promote_error(refused(&harmed, &home, &PLAIN));
        let PromoteError::Damaged { blocks } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(blocks.len(), 1);
        assert_eq!(error.class(), Some(Class::Integrity));
    }
    let log = child.files().into_iter().map(|(name, _)| name);
    let log = log
        .into_iter()
        .find(|name| of_disk(name) && name.ends_with(".asl"))
        .unwrap();
    let whole = child.read_file(&log).unwrap();
    let torn = child.fork();
    torn.write_file(&log, &[&whole[..], b"torn"].concat())
        .unwrap();
    let damaged = child.fork();
    damaged.flip_byte(&log, whole.len() as u64 / 2).unwrap();
    for harmed in [torn, damaged] {
        let error = promote_error(refused(&harmed, &home, &PLAIN));
        assert!(
            matches!(error, PromoteError::SourceInstance { .. }),
            "{error:?}"
        );
    }
    promote(&child, &home, &PLAIN).unwrap();
    shows_what_is_shown(&child, &home);
}

/// A capture that was under way when the stick was copied, and ended twice.
#[test]
fn a_capture_that_ended_in_two_places_is_two() {
    let (stick, home) = (stick(), founded(HOME));
    let disk = disk(&stick);
    for (vfs, place, seed) in [(&stick, "stick", 81), (&disk, "disk", 82)] {
        let mut w = at(vfs, seed + 70, place);
        capture(&mut w, 80, &chunks(seed.into(), 3));
        attest(&mut w, RESCUE);
        w.finish().unwrap();
    }
    meet(&stick, &disk, "stick");
    let before = captures(&home).len();
    promote(&stick, &home, &PLAIN).unwrap();
    let all = finished_of_each(&source(&stick).unwrap());
    let count: usize = all.iter().map(Vec::len).sum();
    let here = captures(&home);
    assert_eq!(here.len(), before + count);
    let roots: BTreeSet<Key> = here.values().copied().collect();
    assert!(all.iter().flatten().all(|done| roots.contains(&done.root)));
    assert!(plan(&stick, &home, &PLAIN).unwrap().is_done());
    verified(&home);
    // Of several only what was asked for.
    let one = [SessionId([71; 16])];
    let some = How {
        captures: Some(&one),
        ..PLAIN
    };
    let home = founded(HOME);
    promote(&stick, &home, &some).unwrap();
    assert_eq!(captures(&home).keys().copied().collect::<Vec<_>>(), one);
}

#[test]
fn a_store_in_several_places_is_given_up_where_it_is_written() {
    for (place, instances) in [("stick", 2), ("disk", 2), ("a third place", 3)] {
        let (child, home) = (met(), founded(HOME));
        for (name, _) in child.files() {
            if name.ends_with("/copied") {
                child.remove_file(&name).unwrap();
            }
        }
        let promoted = promote(&child, &home, &PLAIN).unwrap();
        let give_up = |seed| {
            let mut w = at(&child, seed, place);
            carry(&mut w).unwrap();
            let keys = key_file(RESCUE, w.handle());
            let retired = retire(&mut w, &keys, &promoted.links).unwrap();
            let domain = Domain::read(w.handle()).unwrap().unwrap();
            assert_eq!(domain.retired_to().unwrap().0, fixed_id(HOME));
            w.finish().unwrap();
            retired
        };
        assert!(matches!(give_up(160), Retired::Now { .. }));
        assert_eq!(give_up(161), Retired::Already);
        assert_eq!(stores(&child).len(), instances);
        // That is nothing to promote; what comes afterwards is.
        assert!(plan(&child, &home, &PLAIN).unwrap().is_done(), "{place}");
        let mut w = at(&child, 162, "stick");
        carry(&mut w).unwrap();
        let domain = Domain::read(w.handle()).unwrap().unwrap();
        assert!(domain.retired_to().is_some(), "the others are told");
        w.finish().unwrap();
        assert!(plan(&child, &home, &PLAIN).unwrap().is_done(), "{place}");
        let mut w = at(&child, 163, "stick");
        capture(&mut w, 90, &chunks(90, 3));
        w.finish().unwrap();
        promote(&child, &home, &PLAIN).unwrap();
        assert_eq!(captures(&home), all_captures(&child));
        verified(&home);
    }
}

/// Cut off at any operation, between the instances too, the same promotion goes on.
#[test]
fn a_power_cut_anywhere_is_gone_on_from() {
    let (child, home) = (met(), founded(HOME));
    let mut w = writer(&home, 150);
    for chunk in chunks(2, 9).iter().chain(&chunks(71, 2)) {
        put(&mut w, chunk, 0);
    }
    w.finish().unwrap();
    let clean = home.fork();
    promote(&child, &clean, &PLAIN).unwrap();
    let all = std::env::var_os("ASL_TEST_ALL").is_some();
    let step = if all { 1 } else { (clean.ops() / 40).max(1) };
    for cut in (2..clean.ops()).step_by(step as usize) {
        let vfs = home.fork();
        vfs.set_seed(cut);
        vfs.crash_at(cut);
        assert!(promote(&child, &vfs, &PLAIN).is_err(), "operation {cut}");
        let policy = match cut / step % 4 {
            0 => CrashPolicy::LoseUnsynced,
            1 => CrashPolicy::KeepAll,
            2 => CrashPolicy::Torn { seed: cut },
            _ => CrashPolicy::Reorder { seed: cut },
        };
        let next = vfs.power_cut(policy);
        if !plan(&child, &next, &PLAIN).unwrap().is_done() {
            let promoted = promote(&child, &next, &PLAIN);
            let promoted = promoted.unwrap_or_else(|error| panic!("{cut}, {policy:?}: {error:?}"));
            assert_eq!(promoted.links.len(), 2);
        }
        shows_what_is_shown(&child, &next);
        verified(&next);
        let again = next.fork();
        assert!(plan(&child, &again, &PLAIN).unwrap().is_done(), "{cut}");
        assert_eq!(again.ops(), 0);
    }
}
