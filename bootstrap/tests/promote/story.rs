//! What a promotion does, on stores in order.

use asl_bootstrap::lineage::{Checks, Level, Op};
use asl_bootstrap::promote::{Action, Progress, PromoteError, Retired, retire, status};
use asl_bootstrap::trust::{LogPin, Trusted};
use asl_bootstrap::{Domain, Error};
use asl_store::{Key, SessionId, format};

use crate::world::*;

fn session(n: u8) -> SessionId {
    SessionId([n; 16])
}

/// Covers K6.
#[test]
fn a_rescue_store_becomes_part_of_a_domain() {
    let (child, home) = (rescue(), founded(HOME));
    let mut w = writer(&home, 150);
    put(&mut w, b"ours", format::FLAG_ROOT);
    w.finish().unwrap();
    let (before, ours) = (files(&child), contents(&home));
    let first = plan(&child, &home, &PLAIN).unwrap();
    assert_eq!(first.instances[0].progress, Progress::Due);
    assert_eq!(first.instances[0].sessions.len(), 2);
    assert!(first.instances[0].blocks[&Action::Bring].blocks > 3);
    assert_eq!(first.contents.artifacts(), contents(&child).len() as u64);

    let promoted = promote(&child, &home, &PLAIN).unwrap();
    assert_eq!(files(&child), before, "the source is only read");
    let link = &promoted.links[0].lineage;
    assert_eq!((link.op, link.level), (Op::Adopt, Level::Semantics));
    assert_eq!(
        (link.parent, link.child),
        (fixed_id(HOME), fixed_id(RESCUE))
    );
    assert_eq!((link.missing, link.prev), (0, None));
    let all = Checks(Checks::ALL.0 & !Checks::CONTINUES.0);
    assert_eq!(link.checks, all, "nothing was known to go on from");
    assert_eq!(link.sessions, [session(61), session(62)]);
    assert!(!promoted.links[0].handed_over);

    verified(&home);
    let (there, here) = (contents(&child), contents(&home));
    for (key, bytes) in ours.iter().chain(&there) {
        assert_eq!(here.get(key), Some(bytes));
    }
    let removed = Key::of(b"removed again");
    assert!(!there.contains_key(&removed) && !here.contains_key(&removed));
    assert_eq!(captures(&home), captures(&child));
    // The source's log is there, up to where it was read.
    let head = source(&child).unwrap().instances()[0].head();
    let log: Vec<u8> = link.log.iter().flat_map(|key| here[key].clone()).collect();
    let mut logs = before.iter().filter(|(name, _)| name.ends_with(".asl"));
    assert_eq!(&log, logs.next().unwrap().1);
    assert_eq!((head.position, head.chain), (link.position, link.chain));
    let domain = Domain::read(&reader(&home)).unwrap().unwrap();
    assert_eq!(status(&domain).len(), 1);
    for done in finished(&reader(&home)) {
        let receipt = domain.receipt(done.session, done.root).unwrap();
        assert!(!receipt.signers.is_empty());
        assert_eq!(receipt.receipt.kind, asl_bootstrap::ReceiptKind::Promotion);
    }
}

#[test]
fn the_second_time_nothing_is_written() {
    let (child, home) = (rescue(), founded(HOME));
    let first = promote(&child, &home, &PLAIN).unwrap();
    let (there, here) = (child.fork(), home.fork());
    let again = plan(&there, &here, &PLAIN).unwrap();
    let lineage = first.links[0].key;
    assert_eq!(again.instances[0].progress, Progress::Promoted { lineage });
    assert_eq!((there.ops(), here.ops()), (0, 0), "{:?}", here.trace());
}

#[test]
fn whoever_has_both_keys_hands_over() {
    let (child, home) = (rescue(), founded(HOME));
    let promoted = promote(
        &child,
        &home,
        &How {
            both: true,
            ..PLAIN
        },
    )
    .unwrap();
    assert!(promoted.links[0].handed_over);
    assert_eq!(promoted.domain.lineage[0].child_signers.len(), 1);
    verified(&home);
}

#[test]
fn a_store_that_went_on_comes_over_by_what_is_new() {
    let (child, home) = (rescue(), founded(HOME));
    let first = promote(&child, &home, &PLAIN).unwrap();
    advance(&child, 63);
    let again = plan(&child, &home, &PLAIN).unwrap();
    assert_eq!(again.instances[0].sessions.len(), 1);
    assert_eq!(again.instances[0].blocks[&Action::Have].blocks, {
        let all = plan(&child, &founded(HOME), &PLAIN).unwrap();
        all.instances[0].blocks[&Action::Bring].blocks
            - again.instances[0].blocks[&Action::Bring].blocks
    });
    let second = promote(&child, &home, &PLAIN).unwrap();
    assert_eq!(second.links[0].lineage.prev, Some(first.links[0].key));
    assert_eq!(second.links[0].lineage.sessions, [session(63)]);
    assert!(second.links[0].lineage.checks.contains(Checks::CONTINUES));
    verified(&home);
    assert_eq!(captures(&home), captures(&child));
    assert_eq!(status(&second.domain).len(), 2);
}

#[test]
fn what_was_asked_for_comes_first_and_the_rest_when_it_is_asked_for() {
    let (child, home) = (rescue(), founded(HOME));
    let one = [session(62)];
    let some = How {
        captures: Some(&one),
        ..PLAIN
    };
    promote(&child, &home, &some).unwrap();
    assert_eq!(captures(&home).len(), 1);
    let again = plan(&child, &home, &some).unwrap();
    assert!(matches!(
        again.instances[0].progress,
        Progress::Promoted { .. }
    ));
    promote(&child, &home, &PLAIN).unwrap();
    assert_eq!(captures(&home), captures(&child));
    let none = [session(99)];
    let unknown = plan(
        &child,
        &home,
        &How {
            captures: Some(&none),
            ..PLAIN
        },
    );
    assert!(matches!(
        unknown.unwrap_err(),
        Error::Promote(PromoteError::NoSession(_))
    ));
    verified(&home);
}

/// Covers C5.
#[test]
fn bytes_alone_are_no_captures() {
    let (child, home) = (rescue(), founded(HOME));
    let bytes = How {
        level: Level::Bytes,
        ..PLAIN
    };
    let first = promote(&child, &home, &bytes).unwrap();
    assert_eq!(first.links[0].lineage.level, Level::Bytes);
    let (there, here) = (contents(&child), contents(&home));
    assert!(
        there
            .iter()
            .all(|(key, bytes)| here.get(key) == Some(bytes))
    );
    assert!(captures(&home).is_empty());
    verified(&home);
    let again = plan(&child, &home, &bytes).unwrap();
    assert!(matches!(
        again.instances[0].progress,
        Progress::Promoted { .. }
    ));
    // More than bytes is more; less than that is nothing new.
    promote(&child, &home, &PLAIN).unwrap();
    assert_eq!(captures(&home), captures(&child));
    let less = plan(&child, &home, &bytes).unwrap();
    assert!(matches!(
        less.instances[0].progress,
        Progress::Promoted { .. }
    ));
    verified(&home);
}

#[test]
fn of_a_block_that_is_mostly_here_only_the_rest_comes() {
    let child = rescue();
    let home = founded(HOME);
    let mut w = writer(&home, 150);
    // All but one chunk of each capture.
    for chunk in chunks(1, 19).iter().chain(&chunks(2, 9)) {
        put(&mut w, chunk, 0);
    }
    w.finish().unwrap();
    let planned = plan(&child, &home, &PLAIN).unwrap();
    assert!(
        planned.instances[0].blocks[&Action::Repack].blocks > 0,
        "{:?}",
        planned.instances[0].blocks
    );
    let promoted = promote(&child, &home, &PLAIN).unwrap();
    assert!(promoted.moved.repacked > 0);
    assert_eq!(promoted.links[0].lineage.missing, 0);
    verified(&home);
    let (there, here) = (contents(&child), contents(&home));
    assert!(
        there
            .iter()
            .all(|(key, bytes)| here.get(key) == Some(bytes))
    );
    assert_eq!(captures(&home), captures(&child));
    let again = plan(&child, &home, &PLAIN).unwrap();
    assert!(matches!(
        again.instances[0].progress,
        Progress::Promoted { .. }
    ));
}

#[test]
fn a_source_is_given_up_in_its_own_log_only_when_that_is_asked_for() {
    let (child, home) = (rescue(), founded(HOME));
    let promoted = promote(
        &child,
        &home,
        &How {
            both: true,
            ..PLAIN
        },
    )
    .unwrap();
    let give_up = || {
        let mut w = writer(&child, 160);
        let keys = key_file(RESCUE, w.handle());
        let retired = retire(&mut w, &keys, &promoted.links).unwrap();
        w.finish().unwrap();
        retired
    };
    assert!(matches!(give_up(), Retired::Now { .. }));
    let domain = Domain::read(&reader(&child)).unwrap().unwrap();
    let (to, _) = domain.retired_to().unwrap();
    assert_eq!(to, fixed_id(HOME));
    verified(&child);
    let files = files(&child);
    assert_eq!(give_up(), Retired::Already);
    let blocks = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
        let blocks = files
            .keys()
            .filter(|name| name.starts_with("blocks/sealed"));
        blocks.count()
    };
    assert_eq!(blocks(&crate::world::files(&child)), blocks(&files));
    // That it was given up is nothing to promote.
    let again = plan(&child, &home, &PLAIN).unwrap();
    assert!(matches!(
        again.instances[0].progress,
        Progress::Promoted { .. }
    ));
    // What comes afterwards is.
    advance(&child, 63);
    let more = plan(&child, &home, &PLAIN).unwrap();
    assert_eq!(more.instances[0].progress, Progress::Due);
    promote(&child, &home, &PLAIN).unwrap();
    assert_eq!(captures(&home), captures(&child));
    verified(&home);
}

#[test]
fn another_history_of_a_store_is_evidence_and_comes_in_apart_if_at_all() {
    let (child, home) = (rescue(), founded(HOME));
    promote(&child, &home, &PLAIN).unwrap();
    let clone = child.fork();
    advance(&child, 63);
    let mut w = writer(&clone, 170);
    capture(&mut w, 63, &chunks(99, 5));
    capture(&mut w, 64, &chunks(98, 5));
    attest(&mut w, RESCUE);
    w.finish().unwrap();
    promote(&child, &home, &PLAIN).unwrap();

    let before = files(&home);
    let error = plan(&clone, &home, &PLAIN).unwrap_err();
    let Error::Promote(PromoteError::Forked { evidence }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(evidence.domain, fixed_id(RESCUE));
    assert_ne!(evidence.seen.log.chain, evidence.found.log.chain);
    assert!(!evidence.found.notes.is_empty());
    assert_eq!(files(&home), before);

    let fork = How {
        fork: true,
        ..PLAIN
    };
    let forked = promote(&clone, &home, &fork).unwrap();
    assert_eq!(
        (forked.links[0].lineage.op, forked.links[0].lineage.prev),
        (Op::Fork, None)
    );
    // Those of both histories are here once, the others by a name of their own.
    assert_eq!(forked.links[0].lineage.sessions.len(), 2);
    assert!(!forked.links[0].lineage.sessions.contains(&session(63)));
    assert_eq!(captures(&home).len(), 3 + 2);
    let begun = reader(&home).with_state(|state| {
        let found = state.session(forked.links[0].lineage.sessions[0]).unwrap();
        String::from_utf8(found.begun.clone()).unwrap()
    });
    assert!(begun.ends_with("(other history)"), "{begun}");
    let seen = plan(&clone, &home, &PLAIN).unwrap().seen();
    assert!(seen.is_empty(), "no pin is moved by it");
    verified(&home);

    // From here on both are known, and each goes on.
    for _ in 0..2 {
        let again = plan(&clone, &home, &PLAIN).unwrap();
        assert_eq!(again.instances[0].op, Op::Fork);
        assert!(matches!(
            again.instances[0].progress,
            Progress::Promoted { .. }
        ));
    }
    let again = plan(&child, &home, &PLAIN).unwrap();
    assert!(matches!(
        again.instances[0].progress,
        Progress::Promoted { .. }
    ));
    advance(&clone, 65);
    let more = promote(&clone, &home, &PLAIN).unwrap();
    assert_eq!(more.links[0].lineage.prev, Some(forked.links[0].key));
    advance(&child, 66);
    let more = promote(&child, &home, &PLAIN).unwrap();
    assert_eq!(more.links[0].lineage.op, Op::Adopt);
    assert_eq!(captures(&home).len(), 7);
    verified(&home);
}

#[test]
fn a_store_that_was_put_back_is_refused() {
    let (child, home) = (rescue(), founded(HOME));
    let old = child.fork();
    advance(&child, 63);
    promote(&child, &home, &PLAIN).unwrap();
    let seen = plan(&child, &home, &PLAIN).unwrap().seen();
    let before = files(&home);
    let refused = |remembered: Option<&Trusted>, into| {
        let how = How {
            remembered,
            ..PLAIN
        };
        match plan(&old, into, &how).unwrap_err() {
            Error::Promote(error) => error,
            error => panic!("{error:?}"),
        }
    };
    let of_target = refused(None, &home);
    assert!(matches!(of_target, PromoteError::RolledBack { .. }));
    assert_eq!(of_target.class(), Some(asl_bootstrap::domain::Class::Fork));
    assert_eq!(files(&home), before);
    // The workstation's memory alone does as well.
    let remembered = Trusted {
        domain: fixed_id(RESCUE),
        name: None,
        manifest: None,
        logs: vec![seen[0].head],
    };
    let fresh = founded(HOME);
    assert!(matches!(
        refused(Some(&remembered), &fresh),
        PromoteError::RolledBack { .. }
    ));
    let elsewhere = Trusted {
        logs: vec![LogPin {
            chain: asl_store::id::Digest([1; 32]),
            position: asl_store::LogPosition(3),
            ..remembered.logs[0]
        }],
        ..remembered
    };
    let forked = refused(Some(&elsewhere), &fresh);
    assert!(matches!(forked, PromoteError::Forked { .. }));
}

/// What can be refused before there is a domain is, and what is found is what a domain with nothing in it would get.
#[test]
fn what_would_come_into_a_domain_that_is_not_founded_is_known() {
    let child = rescue();
    let empty = plan(&child, &founded(HOME), &PLAIN).unwrap();
    let new = plan_new(&child, &PLAIN).unwrap();
    assert_eq!((empty.parent, new.parent), (Some(fixed_id(HOME)), None));
    assert!(!new.is_done());
    assert!(new.to_move().blocks > 3);
    assert_eq!(new.to_move(), empty.to_move());
    assert_eq!(new.contents.root(), empty.contents.root());
    assert_eq!(new.instances[0].sessions, empty.instances[0].sessions);
    let only = [session(62)];
    let some = How {
        captures: Some(&only),
        ..PLAIN
    };
    let new_some = plan_new(&child, &some).unwrap();
    assert_eq!(new_some.instances[0].sessions.len(), 1);

    // It is never carried out.
    let source = source(&child).unwrap();
    let home = founded(HOME);
    let before = contents(&home);
    let mut w = writer(&home, 150);
    let keys = key_file(HOME, w.handle());
    let means = asl_bootstrap::promote::Means {
        keys: &keys,
        child_keys: None,
        relabel: None,
        threads: 1,
        observer: &(),
    };
    let refused = new.execute(&source, &mut w, &means).unwrap_err();
    assert!(matches!(
        refused,
        Error::Promote(PromoteError::TargetChanged)
    ));
    w.finish().unwrap();
    assert_eq!(contents(&home), before);

    // Refused: what is damaged, what was put back, another domain.
    let seen = new.seen();
    let old = child.fork();
    advance(&child, 63);
    let remembered = Trusted {
        domain: fixed_id(RESCUE),
        name: None,
        manifest: None,
        logs: vec![plan_new(&child, &PLAIN).unwrap().seen()[0].head],
    };
    assert!(remembered.logs[0].position > seen[0].head.position);
    let put_back = How {
        remembered: Some(&remembered),
        ..PLAIN
    };
    let refused = plan_new(&old, &put_back).unwrap_err();
    assert!(matches!(
        refused,
        Error::Promote(PromoteError::RolledBack { .. })
    ));
    let other = How {
        expect: Some(fixed_id(HOME)),
        ..PLAIN
    };
    assert!(matches!(
        plan_new(&child, &other).unwrap_err(),
        Error::Verify(_)
    ));
    let sealed = child.files().into_iter();
    let sealed = sealed.filter(|(name, _)| name.starts_with("blocks/sealed"));
    let (largest, len) = sealed.max_by_key(|(_, len)| *len).unwrap();
    child.flip_byte(&largest, len - 400).unwrap();
    let refused = plan_new(&child, &PLAIN).unwrap_err();
    assert!(matches!(
        refused,
        Error::Promote(PromoteError::Damaged { .. })
    ));
    let accepted = How {
        accept_damaged: true,
        ..PLAIN
    };
    let accepted = plan_new(&child, &accepted).unwrap();
    assert_eq!(accepted.instances[0].damaged.len(), 1);
}

/// A capture of the target is nobody's to replace.
#[test]
fn an_id_that_is_taken_is_not_taken_over() {
    let (child, home) = (rescue(), founded(HOME));
    let mut w = writer(&home, 150);
    let (ours, root) = capture(&mut w, 61, &chunks(50, 3));
    attest(&mut w, HOME);
    w.finish().unwrap();
    let promoted = promote(&child, &home, &PLAIN).unwrap();
    let here = captures(&home);
    assert_eq!(here.len(), 3);
    assert_eq!(here[&ours], root);
    assert!(!promoted.links[0].lineage.sessions.contains(&ours));
    verified(&home);
    let again = plan(&child, &home, &PLAIN).unwrap();
    assert!(matches!(
        again.instances[0].progress,
        Progress::Promoted { .. }
    ));
}

/// A capture that was finished once more has a new root under its old name.
#[test]
fn a_capture_that_went_on_replaces_itself() {
    let (child, home) = (rescue(), founded(HOME));
    promote(&child, &home, &PLAIN).unwrap();
    let mut w = writer(&child, 150);
    capture(&mut w, 61, &chunks(50, 3));
    attest(&mut w, RESCUE);
    w.finish().unwrap();
    promote(&child, &home, &PLAIN).unwrap();
    assert_eq!(captures(&home), captures(&child));
    verified(&home);
}
