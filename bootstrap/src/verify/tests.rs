//! What a report says: of stores in order, and of each thing that is wrong.

use std::collections::BTreeSet;

use asl_store::vfs::Vfs as _;
use asl_store::vfs::fault::FaultVfs;
use asl_store::{Authority, StoreWriter};

use super::*;
use crate::attest::{Received, can_sign, receive};
use crate::author::Draft;
use crate::dam::{Dam, Reason, Revocation, Roles};
use crate::domain::Problem;
use crate::error::Error;
use crate::fixture::*;
use crate::keyfile::{KeyFile, Role};
use crate::note::SignatureLine;
use crate::policy::{Checkpoints, Policy, UnsignedCaptures, Witnessed};
use crate::sign::{Context, Signature};
use crate::witness::{self, ExchangeError, Home};

const CHECKPOINT_2: u8 = 14;
const W1: u8 = 21;
const W2: u8 = 22;
const W3: u8 = 23;

fn done((session, root): (SessionId, Key)) -> Done {
    Done {
        kind: ReceiptKind::Capture,
        session,
        root,
    }
}

fn report(writer: &StoreWriter, finished: &[Done]) -> Report {
    verify(writer.handle(), finished, None).unwrap()
}

/// A store with this domain, opened.
fn founded(edit: impl FnOnce(&mut Dam, &mut Policy)) -> (FaultVfs, StoreWriter) {
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    publish(&mut w, &genesis_with(edit));
    (vfs, w)
}

fn attested(writer: &mut StoreWriter, n: u8) -> Done {
    let done = done(capture(writer, n));
    let receipt = domain(writer).receipt_of(done.kind, done.session, done.root);
    attest(writer, &receipt.unwrap(), HOST);
    done
}

/// The only finding.
fn only(report: &Report) -> &Found {
    let [found] = &report.found[..] else {
        panic!("{:?}", report.found);
    };
    found
}

fn cosignature(writer: &StoreWriter, key: u8, time: u64) -> Vec<u8> {
    let domain = domain(writer);
    let newest = domain.newest_checkpoint().unwrap();
    let note = writer.handle().get_part(&newest.note).unwrap();
    let note = crate::note::Note::parse(&note).unwrap();
    let name = format!("w{key}");
    let line = SignatureLine::cosign(note.text(), &name, &signer(key), time).unwrap();
    line.to_string().into_bytes()
}

fn witnessed(writer: &mut StoreWriter, key: u8) -> witness::Recorded {
    let answer = cosignature(writer, key, 77);
    let domain = domain(writer);
    witness::record(writer, &domain, &answer).unwrap()
}

/// Who says what, since when. Covers L4, L6 in part: all of it is read from the log.
#[test]
fn what_is_proven_names_keys_roles_manifests_and_records() {
    let (_vfs, mut w) = founded(|dam, _| dam.witness = witnesses(&[W1], 1));
    let manifest = LogPosition(domain(&w).tree.size() - 1);
    let done = attested(&mut w, 50);
    let receipt = LogPosition(domain(&w).tree.size() - 1);
    checkpoint(&mut w, CHECKPOINT);
    let size = domain(&w).newest_checkpoint().unwrap().size;
    let checkpoint = domain(&w).newest_checkpoint().unwrap().record;
    let cosigned = witnessed(&mut w, W1).record.unwrap();

    let report = report(&w, &[done]);
    assert!(
        report.is_ok() && report.found.is_empty(),
        "{:?}",
        report.found
    );
    let [first, records, session] = &report.proven[..] else {
        panic!("{:?}", report.proven);
    };
    assert_eq!(first.since, manifest);
    assert!(matches!(
        first.claim,
        Claim::Manifest {
            version: 0,
            rotates: false,
            ..
        }
    ));
    let of = |signing: Signing| {
        let vouchers = first.vouchers.iter();
        vouchers
            .filter(|by| by.signing == signing)
            .map(|by| by.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(Signing::Root), [signer(ROOT).id()]);
    let mut principals = [signer(HOST).id(), signer(CHECKPOINT).id()];
    principals.sort();
    assert_eq!(of(Signing::Principal), principals);

    assert_eq!(records.since, checkpoint);
    let expected = Claim::Records {
        size,
        witnesses_needed: 1,
    };
    assert_eq!(records.claim, expected);
    let witness = Signing::Witness {
        name: "w21".into(),
        time: 77,
    };
    let voucher = |key: u8, signing, record| Voucher {
        key: signer(key).id(),
        signing,
        version: 0,
        record,
    };
    let expected = [
        voucher(CHECKPOINT, Signing::Checkpoint, checkpoint),
        voucher(W1, witness, cosigned),
    ];
    assert_eq!(records.vouchers, expected);

    assert_eq!(session.since, receipt);
    assert_eq!(session.vouchers, [voucher(HOST, Signing::Host, receipt)]);
    match &session.claim {
        Claim::Session {
            session,
            root,
            under: Some(under),
            ..
        } => {
            assert_eq!((*session, *root), (done.session, done.root));
            assert_eq!((under.size, under.record), (size, checkpoint));
            assert_eq!(under.witnesses, ["w21"]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_domain_or_none_is_refused_where_one_is_expected() {
    let (_vfs, w) = founded(|_, _| ());
    let id = domain(&w).id();
    assert!(verify(w.handle(), &[], Some(&id)).is_ok());
    let other = DomainId([1; 32]);
    let refused = |found| {
        let expected = other;
        VerifyError::OtherDomain { expected, found }
    };
    match verify(w.handle(), &[], Some(&other)) {
        Err(Error::Verify(error)) => assert_eq!(error, refused(Some(id))),
        other => panic!("{other:?}"),
    }
    let vfs = fresh();
    match verify(&reader(&vfs), &[], Some(&other)) {
        Err(Error::Verify(error)) => assert_eq!(error, refused(None)),
        other => panic!("{other:?}"),
    }
    let none = verify(&reader(&vfs), &[], None);
    assert!(matches!(none, Err(Error::Mint(MintError::NoDomain))));
}

/// The rule `unsigned-captures`, each value.
#[test]
fn captures_that_nobody_signed_are_what_the_policy_says() {
    for (rule, class) in [
        (UnsignedCaptures::Allow, None),
        (UnsignedCaptures::Report, Some(Class::Note)),
        (UnsignedCaptures::Refuse, Some(Class::Policy)),
    ] {
        let (_vfs, mut w) = founded(|_, policy| policy.unsigned_captures = rule);
        let signed = attested(&mut w, 50);
        let unsigned = done(capture(&mut w, 51));
        let end = LogPosition(domain(&w).tree.size() - 1);
        // An unsigned receipt is none.
        let made = receive(&mut w, &[signed, unsigned]).unwrap();
        assert!(matches!(
            made[..],
            [Received::Already { .. }, Received::Made { .. }]
        ));
        let again = receive(&mut w, &[unsigned]).unwrap();
        assert!(matches!(again[..], [Received::Already { .. }]));
        let found = report(&w, &[signed, unsigned]);
        assert_eq!(found.class(), class, "{rule}");
        assert_eq!(found.is_ok(), class != Some(Class::Policy));
        if class.is_some() {
            let found = only(&found);
            assert_eq!(found.position, end);
            assert!(
                matches!(found.wrong, Wrong::Unsigned { session, .. } if session == unsigned.session)
            );
        }
        // The receipt of before is the one that is signed.
        let before = domain(&w)
            .receipt(unsigned.session, unsigned.root)
            .unwrap()
            .key;
        let receipt = domain(&w).receipt_of(unsigned.kind, unsigned.session, unsigned.root);
        let keys = attest(&mut w, &receipt.unwrap(), HOST);
        assert_eq!(keys[0], before);
        assert!(report(&w, &[signed, unsigned]).found.is_empty());
    }
}

/// The rule `checkpoints`, each value, at each event.
#[test]
fn snapshots_and_captures_want_checkpoints_as_the_policy_says() {
    for (rule, at_snapshot, at_capture) in [
        (Checkpoints::Optional, false, false),
        (Checkpoints::AtSnapshot, true, false),
        (Checkpoints::AtCapture, true, true),
    ] {
        let (_vfs, mut w) = founded(|_, policy| policy.checkpoints = rule);
        checkpoint(&mut w, CHECKPOINT);
        let captured = attested(&mut w, 50);
        let after_capture = report(&w, &[captured]);
        assert_eq!(
            after_capture.class(),
            at_capture.then_some(Class::Policy),
            "{rule}"
        );
        if at_capture {
            let Wrong::NoCheckpoint {
                session,
                snapshot,
                count,
                ..
            } = &only(&after_capture).wrong
            else {
                panic!("{after_capture:?}");
            };
            assert_eq!(
                (*session, *snapshot, *count),
                (Some(captured.session), None, 1)
            );
        }
        checkpoint(&mut w, CHECKPOINT);
        assert!(report(&w, &[captured]).found.is_empty(), "{rule}");
        w.snapshot("one").unwrap();
        let id = w.snapshot("two").unwrap();
        let after_snapshot = report(&w, &[captured]);
        assert_eq!(
            after_snapshot.class(),
            at_snapshot.then_some(Class::Policy),
            "{rule}"
        );
        if at_snapshot {
            let Wrong::NoCheckpoint {
                session,
                snapshot,
                count,
                ..
            } = &only(&after_snapshot).wrong
            else {
                panic!("{after_snapshot:?}");
            };
            assert_eq!((*session, *snapshot, *count), (None, Some(id), 2));
        }
        checkpoint(&mut w, CHECKPOINT);
        assert!(report(&w, &[captured]).found.is_empty(), "{rule}");
    }
}

/// The rule `witnessed`: cosignatures come later, in records of their own, and count when there are enough.
/// Covers L4: witness records.
#[test]
fn a_checkpoint_counts_with_its_quorum_if_the_policy_wants_one() {
    let (_vfs, mut w) = founded(|dam, policy| {
        dam.witness = witnesses(&[W1, W2, W3], 2);
        policy.witnessed = Witnessed::Required;
        policy.checkpoints = Checkpoints::AtSnapshot;
    });
    w.snapshot("").unwrap();
    checkpoint(&mut w, CHECKPOINT);
    let wanting = |w: &StoreWriter, have: usize| {
        let report = report(w, &[]);
        assert_eq!(report.class(), Some(Class::Policy));
        assert_eq!(report.domain.covered(), 0);
        let refusals: Vec<_> = report
            .found
            .iter()
            .map(|found| match &found.wrong {
                Wrong::Record(Finding {
                    problem: Problem::Refused(refusal),
                    ..
                }) => refusal.to_string(),
                Wrong::NoCheckpoint { refusal, .. } => refusal.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = Refusal::NotWitnessed { have, need: 2 }.to_string();
        assert!(refusals.contains(&expected), "{refusals:?}");
        assert_eq!(
            refusals.len(),
            2,
            "and the snapshot has no checkpoint: {refusals:?}"
        );
    };
    wanting(&w, 0);
    let first = witnessed(&mut w, W1);
    assert!(first.record.is_some());
    wanting(&w, 1);
    // The same again adds nothing, and no record.
    let size = domain(&w).tree.size();
    assert_eq!(witnessed(&mut w, W1).record, None);
    assert_eq!(domain(&w).tree.size(), size);
    let second = witnessed(&mut w, W3);
    let after = report(&w, &[]);
    assert!(after.found.is_empty(), "{:?}", after.found);
    let [state] = &after.domain.checkpoints[..] else {
        panic!("{:?}", after.domain.checkpoints);
    };
    assert_eq!(state.cosigners.len(), 2);
    assert_eq!(state.note, second.note);
    assert_eq!(
        state.cosigners[&signer(W1).id()].record,
        first.record.unwrap()
    );
    assert_eq!(
        state.cosigners[&signer(W3).id()].record,
        second.record.unwrap()
    );
    // One note has them all, for programs of others.
    let note = w.handle().get_part(&second.note).unwrap();
    assert_eq!(
        crate::note::Note::parse(&note).unwrap().signatures().len(),
        3
    );
    // A later one without witnesses is told; the old one still counts.
    checkpoint(&mut w, CHECKPOINT);
    let after = report(&w, &[]);
    assert_eq!(after.domain.covered(), state.size);
    assert!(matches!(&only(&after).wrong, Wrong::Record(_)));
    assert_eq!(after.class(), Some(Class::Policy));
}

/// A cosignature belongs to the manifest under which its checkpoint was signed: keys that were replaced since do no harm.
#[test]
fn a_cosignature_that_comes_after_the_checkpoint_key_was_replaced_counts() {
    let (_vfs, mut w) = founded(|dam, _| dam.witness = witnesses(&[W1], 1));
    checkpoint(&mut w, CHECKPOINT);
    let answer = cosignature(&w, W1, 5);
    let chain = domain(&w).chain;
    let draft = Draft::update(&chain, [1; 32], 6, |dam, _| {
        dam.principals
            .retain(|principal| principal.roles != Roles::CHECKPOINT);
        dam.principals.push(crate::dam::Principal {
            key: signer(CHECKPOINT_2).public(),
            roles: Roles::CHECKPOINT,
        });
    });
    publish(
        &mut w,
        &draft.unwrap().signed(&[signer(ROOT), signer(CHECKPOINT_2)]),
    );
    let before = domain(&w);
    let recorded = witness::record(&mut w, &before, &answer).unwrap();
    let after = report(&w, &[]);
    assert!(after.found.is_empty(), "{:?}", after.found);
    let state = &after.domain.checkpoints[0];
    assert_eq!(
        state.cosigners[&signer(W1).id()].record,
        recorded.record.unwrap()
    );
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let (_vfs, mut w) = founded(|dam, _| dam.witness = witnesses(&[W1], 1));
    let none = witness::request(w.handle(), &domain(&w), 0).unwrap_err();
    assert!(matches!(none, Error::Exchange(ExchangeError::NoCheckpoint)));
    checkpoint(&mut w, CHECKPOINT);
    let before = domain(&w);
    let mut record = |answer: &[u8]| match witness::record(&mut w, &before, answer) {
        Err(Error::Exchange(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(record(b"nonsense\n"), ExchangeError::Answer(_)));
    let line = |n: u8, name: &str, text: &str| {
        let line = SignatureLine::cosign(text, name, &signer(n), 5).unwrap();
        line.to_string().into_bytes()
    };
    let text = before.newest_checkpoint().unwrap();
    let text = crate::checkpoint::Checkpoint {
        origin: before.origin(),
        size: text.size,
        root: text.root,
    };
    let text = text.to_string();
    assert!(matches!(
        record(&line(W2, "w22", &text)),
        ExchangeError::Stranger
    ));
    assert!(matches!(
        record(&line(W1, "w99", &text)),
        ExchangeError::Stranger
    ));
    assert!(matches!(
        record(&line(W1, "w21", "another\n")),
        ExchangeError::OtherCheckpoint { name } if name == "w21"
    ));
    let unsettled = domain(&w);
    assert_eq!(
        unsettled.tree.size(),
        before.tree.size(),
        "nothing was appended"
    );
    let old = before.tree.size() + 5;
    let error = witness::request(w.handle(), &unsettled, old).unwrap_err();
    assert!(matches!(
        error,
        Error::Exchange(ExchangeError::RolledBack { .. })
    ));
    let (_vfs, mut w) = founded(|_, _| ());
    checkpoint(&mut w, CHECKPOINT);
    let before = domain(&w);
    let error = witness::record(&mut w, &before, &line(W1, "w21", "another\n")).unwrap_err();
    assert!(matches!(error, Error::Exchange(ExchangeError::NoWitnesses)));
}

/// Question and answer through a witness's directory, over a log that grows.
#[test]
fn a_witness_follows_a_log_and_notices_one_that_was_rolled_back() {
    let home_vfs = FaultVfs::new();
    let mut seed = 7_u8;
    let random = &mut |bytes: &mut [u8]| {
        seed += 1;
        bytes.fill(seed);
        Ok(())
    };
    let key = Home::create(&home_vfs, "anna", random, "words").unwrap();
    let twice = Home::create(&home_vfs, "anna", random, "words").unwrap_err();
    assert!(matches!(
        twice,
        Error::KeyFile(crate::keyfile::KeyFileError::Exists { .. })
    ));
    let member = crate::dam::Member {
        key: key.key(),
        name: "anna".into(),
    };
    let (vfs, mut w) = founded(|dam, _| {
        dam.witness = witnesses(&[W1], 1);
        dam.witness.members = vec![member];
    });
    let mut home = Home::open(&home_vfs, "words").unwrap();
    assert_eq!(home.key(), &key);
    let id = domain(&w).id();
    let ask = |w: &StoreWriter| {
        let domain = domain(w);
        let old = witness::last_cosigned(&domain, &key.key().id());
        let request = witness::request(w.handle(), &domain, old).unwrap();
        request.to_string().into_bytes()
    };
    checkpoint(&mut w, CHECKPOINT);
    // Whose log it is must be said by the witness's owner.
    let stranger = home.cosign(&ask(&w), 1).unwrap_err();
    assert!(matches!(stranger, witness::WitnessError::UnknownLog { .. }));
    assert!(home.trust(&key).is_err(), "a witness is no log");
    let log = crate::checkpoint::log_key(&id, signer(CHECKPOINT).public());
    home.trust(&log).unwrap();
    drop(home);
    let mut home = Home::open(&home_vfs, "words").unwrap();
    assert_eq!(home.logs(), [log]);
    let old_copy = vfs.fork();
    for n in 0..3_u8 {
        capture(&mut w, 100 + n);
        checkpoint(&mut w, CHECKPOINT);
        let answer = home.cosign(&ask(&w), 1).unwrap().to_string();
        let before = domain(&w);
        witness::record(&mut w, &before, answer.as_bytes()).unwrap();
        let size = before.newest_checkpoint().unwrap().size;
        assert_eq!(witness::last_cosigned(&domain(&w), &key.key().id()), size);
    }
    assert!(report(&w, &[]).found.is_empty());
    let cosigned = witness::last_cosigned(&domain(&w), &key.key().id());
    w.finish().unwrap();

    // An old copy goes on: shorter first, then as long, but another.
    let mut w = writer(&old_copy, 9);
    let error = home.cosign(&ask(&w), 1).unwrap_err();
    assert!(matches!(error, witness::WitnessError::Stale { size, .. } if size < cosigned));
    let mut n = 150;
    while domain(&w).tree.size() <= cosigned {
        capture(&mut w, n);
        n += 1;
    }
    checkpoint(&mut w, CHECKPOINT);
    let request = witness::request(w.handle(), &domain(&w), cosigned).unwrap();
    let error = home.cosign(request.to_string().as_bytes(), 1).unwrap_err();
    match error {
        witness::WitnessError::Inconsistent {
            evidence: Some(path),
            ..
        } => {
            assert!(home_vfs.metadata(&path).is_ok(), "{path}");
        }
        other => panic!("{other:?}"),
    }
}

/// Power is cut at every operation while a witness is made: there is a whole one, or the same command makes it.
#[test]
fn a_witness_is_made_whole_or_made_again() {
    use asl_store::vfs::fault::CrashPolicy;
    let create = |vfs: &FaultVfs, seed: u8| {
        let random = &mut |bytes: &mut [u8]| {
            bytes.fill(seed);
            Ok(())
        };
        Home::create(vfs, "anna", random, "words").map(drop)
    };
    let whole = FaultVfs::new();
    create(&whole, 1).unwrap();
    for n in 0..whole.ops() {
        let vfs = FaultVfs::new();
        vfs.crash_at(n);
        let _ = create(&vfs, 1);
        let policy = match n % 3 {
            0 => CrashPolicy::KeepAll,
            1 => CrashPolicy::LoseUnsynced,
            _ => CrashPolicy::Torn { seed: n },
        };
        let vfs = vfs.power_cut(policy);
        if vfs.metadata(witness::KEY_PATH).is_err() {
            create(&vfs, 2).unwrap_or_else(|error| panic!("{error:?} after {policy:?} at {n}"));
        }
        let home = Home::open(&vfs, "words");
        home.unwrap_or_else(|error| panic!("{error:?} after {policy:?} at {n}"));
    }
}

#[test]
fn forks_are_worst_until_a_rotation_settles_them() {
    let (_vfs, mut w) = founded(|_, _| ());
    let genesis = domain(&w).chain.head_key();
    let chain = domain(&w).chain;
    for n in [1, 2] {
        let draft = Draft::update(&chain, [n; 32], 7, |_, _| ()).unwrap();
        publish(&mut w, &draft.signed(&[signer(ROOT)]));
    }
    let forked = report(&w, &[]);
    assert_eq!(forked.class(), Some(Class::Fork));
    assert_eq!(forked.domain.chain.forks().len(), 1);
    only(&forked);
    let chain = domain(&w).chain;
    let rotation = Draft::rotation(&chain, genesis, [3; 32], 7, |dam, _| {
        dam.roots = vec![signer(NEXT).public()];
        dam.next = vec![signer(77).public().next_digest()];
    });
    publish(&mut w, &rotation.unwrap().signed(&[signer(NEXT)]));
    let settled = report(&w, &[]);
    assert!(settled.is_ok(), "{:?}", settled.found);
    assert_eq!(only(&settled).class, Class::Note);
    let rotates =
        |statement: &&Statement| matches!(statement.claim, Claim::Manifest { rotates: true, .. });
    assert_eq!(settled.proven.iter().filter(rotates).count(), 1);
}

/// The checkpoint of a longer log, in a log that was taken back.
#[test]
fn a_log_that_was_taken_back_is_told_by_what_was_signed() {
    let (vfs, mut w) = founded(|_, _| ());
    let begin = vfs.fork();
    for n in 50..54 {
        capture(&mut w, n);
    }
    checkpoint(&mut w, CHECKPOINT);
    let domain = domain(&w);
    let note = domain.newest_checkpoint().unwrap().key;
    let note = w.handle().get_part(&note).unwrap();
    // Whatever brings the signed note back: a block that the log no longer names does, at the next opening.
    let mut w = writer(&begin, 5);
    let key = put(&mut w, &note);
    w.authority(Authority::Checkpoint, &[key]).unwrap();
    let report = report(&w, &[]);
    let found = only(&report);
    assert_eq!(found.class, Class::Fork);
    assert!(matches!(
        &found.wrong,
        Wrong::Record(finding) if matches!(finding.problem, Problem::CheckpointSize { .. })
    ));
}

#[test]
fn policy_records_are_judged() {
    let (_vfs, mut w) = founded(|_, _| ());
    let named = domain(&w).chain.head().policy.encode();
    let other = Policy {
        unsigned_captures: UnsignedCaptures::Refuse,
        ..Policy::default_of(crate::dam::Kind::Personal)
    };
    for (bytes, class) in [
        (named, None),
        (other.encode(), Some(Class::Note)),
        (b"ASLPOL1\n\x09\0\0\0\0\0".to_vec(), Some(Class::Authority)),
        (vec![7; 99], Some(Class::Authority)),
    ] {
        let key = put(&mut w, &bytes);
        w.authority(Authority::Policy, &[key]).unwrap();
        let report = report(&w, &[]);
        let of = |found: &&Found| matches!(&found.wrong, Wrong::Record(finding) if finding.artifact == key);
        let found = report.found.iter().find(of).map(|found| found.class);
        assert_eq!(found, class, "{bytes:?}");
        assert!(
            !report.domain.is_blind(),
            "a policy by itself rules nothing"
        );
    }
}

/// Links to other domains are for a later program. That the roots signed one is proven, and nobody goes on without knowing
/// what it says; one that they did not sign stops nobody.
#[test]
fn lineage_records_stop_who_cannot_read_them_if_the_roots_signed() {
    let (_vfs, mut w) = founded(|_, _| ());
    let id = domain(&w).id();
    let body = b"whatever a later program says".to_vec();
    let key = put(&mut w, &body);
    let wrong = Signature::new(&signer(ROOT), Context::Receipt, &id, &body);
    let stranger = Signature::new(&signer(HOST), Context::Lineage, &id, &body);
    let keys = [
        key,
        put(&mut w, &wrong.encode()),
        put(&mut w, &stranger.encode()),
    ];
    w.authority(Authority::Lineage, &keys).unwrap();
    let unsigned = report(&w, &[]);
    assert_eq!(only(&unsigned).class, Class::Authority);
    assert!(!unsigned.domain.is_blind());
    let signed = Signature::new(&signer(ROOT), Context::Lineage, &id, &body);
    let keys = [key, put(&mut w, &signed.encode())];
    let record = w.authority(Authority::Lineage, &keys).unwrap();
    let after = report(&w, &[]);
    assert_eq!(after.domain.blind, Some(record));
    assert_eq!(after.class(), Some(Class::Authority));
    let statement = after.proven.last().unwrap();
    let unread = Claim::Lineage {
        artifact: key,
        lineage: None,
        child_signers: vec![],
        handed_over: false,
    };
    assert_eq!(statement.claim, unread);
    assert_eq!(statement.vouchers[0].key, signer(ROOT).id());
    let blind = |found: &&Found| matches!(found.wrong, Wrong::Blind);
    assert_eq!(after.found.iter().filter(blind).count(), 1);
}

/// The files of sealed blocks.
fn sealed(vfs: &FaultVfs) -> BTreeSet<String> {
    let files = vfs.files().into_iter().map(|(name, _)| name);
    files
        .filter(|name| name.starts_with("blocks/sealed/"))
        .collect()
}

/// What is lost is told; only what may hide a revocation blinds.
#[test]
fn a_lost_signature_blinds_only_if_its_manifest_is_lost_with_it() {
    let publish = |with_root: bool| {
        let (vfs, mut w) = founded(|_, _| ());
        let chain = domain(&w).chain;
        let store = domain(&w).store;
        let draft = Draft::update(&chain, [1; 32], 7, |dam, _| {
            dam.principals
                .retain(|principal| principal.roles != Roles::PRODUCE);
            dam.revoke(Revocation {
                key: signer(HOST).id(),
                store,
                position: LogPosition(0),
                reason: Reason::Lost,
            });
        });
        let draft = draft.unwrap().signed(&[signer(ROOT)]);
        let extra = Signature::new(&signer(99), Context::Dam, &domain(&w).id(), &draft.dam);
        let lost = match with_root {
            true => extra.encode(),
            false => draft.signatures[0].clone(),
        };
        w.commit().unwrap();
        let before = sealed(&vfs);
        put(&mut w, &lost);
        w.commit().unwrap();
        let after = sealed(&vfs);
        put(&mut w, &draft.policy);
        let mut keys = vec![put(&mut w, &draft.dam)];
        keys.push(Key::of(&lost));
        if with_root {
            keys.push(put(&mut w, &draft.signatures[0]));
        }
        w.authority(Authority::Dam, &keys).unwrap();
        for name in after.difference(&before) {
            vfs.remove(name).unwrap();
        }
        // This writer still has the block open.
        w.finish().unwrap();
        verify(&reader(&vfs), &[], None).unwrap()
    };
    let hidden = publish(false);
    assert!(hidden.domain.is_blind());
    assert_eq!(hidden.class(), Some(Class::Integrity));
    assert!(!hidden.domain.chain.head().dam.revokes(&signer(HOST).id()));
    let known = publish(true);
    assert!(!known.domain.is_blind(), "{:?}", known.found);
    assert_eq!(only(&known).class, Class::Integrity);
    assert!(known.domain.chain.head().dam.revokes(&signer(HOST).id()));
}

#[test]
fn keys_that_cannot_sign_are_told_before_anything_is_begun() {
    let (_vfs, mut w) = founded(|_, _| ());
    let id = domain(&w).id();
    let file = |of: Option<DomainId>, keys: &[(Role, u8)]| {
        let mut file = KeyFile::new(of);
        for (role, n) in keys {
            file.add(*role, &signer(*n).secret());
        }
        file
    };
    let both = [(Role::Host, HOST), (Role::Checkpoint, CHECKPOINT)];
    let state = domain(&w);
    can_sign(&state, &file(Some(id), &both)).unwrap();
    let other = can_sign(&state, &file(Some(DomainId([1; 32])), &both)).unwrap_err();
    assert!(matches!(other, Error::KeyFile(_)));
    for one in both {
        let error = can_sign(&state, &file(Some(id), &[one])).unwrap_err();
        assert!(
            matches!(error, Error::Mint(MintError::NoKey { .. })),
            "{one:?}"
        );
    }
    let body = put(&mut w, b"a link");
    let signature = Signature::new(&signer(ROOT), Context::Lineage, &id, b"a link");
    let keys = [body, put(&mut w, &signature.encode())];
    w.authority(Authority::Lineage, &keys).unwrap();
    let blind = can_sign(&domain(&w), &file(Some(id), &both)).unwrap_err();
    assert!(matches!(blind, Error::Mint(MintError::Blind)));
}
