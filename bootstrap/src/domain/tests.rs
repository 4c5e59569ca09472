//! A domain as it is read from a store: what counts, and what becomes of the rest.

use asl_store::vfs::fault::FaultVfs;
use asl_store::{Authority, StoreWriter};

use super::*;
use crate::author::Draft;
use crate::chain::ChainError;
use crate::checkpoint::CheckpointError;
use crate::dam::{Reason, Revocation};
use crate::error::Error;
use crate::fixture::*;
use crate::policy::{AfterRevocation, Refusal};
use crate::sign::SignError;

fn read(vfs: &FaultVfs) -> Domain {
    Domain::read(&reader(vfs)).unwrap().unwrap()
}

fn problems(domain: &Domain) -> Vec<&Problem> {
    let findings = domain.findings.iter();
    findings.map(|finding| &finding.problem).collect()
}

/// A domain with a capture, a signed receipt of it and a checkpoint over both.
fn example() -> (FaultVfs, SessionId, Key) {
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    let (session, root) = capture(&mut w, 50);
    publish(&mut w, &genesis());
    let receipt = domain(&w)
        .receipt_of(ReceiptKind::Capture, session, root)
        .unwrap();
    attest(&mut w, &receipt, HOST);
    checkpoint(&mut w, CHECKPOINT);
    w.finish().unwrap();
    (vfs, session, root)
}

#[test]
fn a_store_without_manifests_has_no_domain() {
    assert!(Domain::read(&reader(&fresh())).unwrap().is_none());
}

#[test]
fn everything_in_order_counts() {
    let (vfs, session, root) = example();
    let domain = read(&vfs);
    assert!(problems(&domain).is_empty(), "{:?}", domain.findings);
    assert_eq!(domain.id(), genesis().domain());
    let state = domain.receipt(session, root).unwrap();
    assert_eq!(
        state.signers.keys().collect::<Vec<_>>(),
        [&signer(HOST).id()]
    );
    let [checkpoint] = &domain.checkpoints[..] else {
        panic!("{:?}", domain.checkpoints);
    };
    assert_eq!(checkpoint.signers, [signer(CHECKPOINT).id()]);
    assert!(checkpoint.size > state.record.0 && checkpoint.size <= checkpoint.record.0);
    assert_eq!(domain.covered(), checkpoint.size);
    // The tree is that of the stored bytes, and the position the store's.
    let mut leaves = Vec::new();
    let each = &mut |_: &asl_store::log::Record, raw: &[u8]| {
        leaves.push(crate::tlog::leaf_hash(raw));
        Ok(())
    };
    reader(&vfs).records(LogPosition(0), each).unwrap();
    assert_eq!(domain.tree.root(), crate::tlog::root(&leaves));
    let first = &leaves[..checkpoint.size as usize];
    assert_eq!(checkpoint.root, crate::tlog::root(first));
    let head = reader(&vfs).with_state(|state| state.place().chain);
    assert_eq!(domain.head, head);
}

#[test]
fn nothing_below_meta_is_read() {
    use asl_store::vfs::Vfs as _;
    let (vfs, ..) = example();
    vfs.create_dir("meta").unwrap();
    vfs.create_dir("meta/dam").unwrap();
    vfs.write_file("meta/dam/dam-current.art", b"a lie")
        .unwrap();
    let vfs = vfs.fork();
    vfs.set_count_reads(true);
    assert_eq!(read(&vfs).id(), genesis().domain());
    let meta = |op: &asl_store::vfs::fault::Op| format!("{op:?}").contains("meta/");
    assert!(!vfs.trace().iter().any(meta));
}

#[test]
fn a_first_manifest_that_does_not_found_is_an_error() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    let mut unsigned = genesis();
    unsigned.signatures.truncate(1);
    let at = publish(&mut w, &unsigned);
    // A good one after it must not take its place.
    publish(&mut w, &genesis());
    match Domain::read(w.handle()) {
        Err(Error::Domain(DomainError::Genesis {
            position, source, ..
        })) => {
            assert_eq!(position, at);
            let refusal = ChainError::PrincipalPossession {
                key: signer(HOST).id(),
            };
            let found = format!("{source:?}");
            assert!(
                found.contains("PrincipalPossession"),
                "{found} is not {refusal}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn updates_are_followed_and_refused_ones_reported() {
    let (vfs, ..) = example();
    let mut w = writer(&vfs, 3);
    let head = update(&mut w, 1, |dam, _| dam.label = "another".into());
    let chain = domain(&w).chain;
    // Signed by nobody.
    let bare = Draft::update(&chain, [2; 32], 7, |_, _| ()).unwrap();
    let at = publish(&mut w, &bare);
    let after = domain(&w);
    assert_eq!(after.chain.head_key(), head);
    let [finding] = &after.findings[..] else {
        panic!("{:?}", after.findings);
    };
    assert_eq!((finding.position, finding.about), (at, Authority::Dam));
    assert!(matches!(
        finding.problem,
        Problem::Manifest(ChainError::RootThreshold(_))
    ));
    assert_eq!(finding.problem.class(), Class::Authority);
    assert!(!after.is_blind());
    // The missing signature comes later, in a record of its own: nothing is left to report.
    publish(&mut w, &bare.clone().signed(&[signer(ROOT)]));
    let after = domain(&w);
    assert_eq!(after.chain.head_key(), Key::of(&bare.dam));
    assert!(problems(&after).is_empty());
    // The same again.
    publish(&mut w, &bare.signed(&[signer(ROOT)]));
    assert!(problems(&domain(&w)).is_empty());
}

#[test]
fn two_updates_of_one_manifest_are_a_fork() {
    let (vfs, ..) = example();
    let mut w = writer(&vfs, 3);
    let chain = domain(&w).chain;
    let draft = |n| Draft::update(&chain, [n; 32], 7, |_, _| ()).unwrap();
    publish(&mut w, &draft(1).signed(&[signer(ROOT)]));
    publish(&mut w, &draft(2).signed(&[signer(ROOT)]));
    let after = domain(&w);
    assert_eq!(after.chain.head_key(), Key::of(&draft(1).dam));
    assert_eq!(after.findings.len(), 1);
    assert_eq!(after.findings[0].problem.class(), Class::Fork);
}

#[test]
fn a_lost_update_blinds() {
    let (vfs, ..) = example();
    let mut w = writer(&vfs, 3);
    let chain = domain(&w).chain;
    let draft = Draft::update(&chain, [1; 32], 7, |_, _| ()).unwrap();
    let draft = draft.signed(&[signer(ROOT)]);
    // A manifest whose policy nobody stored: the store cannot know that it is named.
    let policy = crate::policy::Policy {
        after_revocation: AfterRevocation::KeepOnlyCheckpointed,
        ..chain.head().policy
    };
    let other = Draft::update(&chain, [3; 32], 7, |_, p| *p = policy).unwrap();
    let other = other.signed(&[signer(ROOT)]);
    let mut keys = vec![put(&mut w, &other.dam)];
    keys.extend(other.signatures.iter().map(|bytes| put(&mut w, bytes)));
    w.authority(Authority::Dam, &keys).unwrap();
    let after = domain(&w);
    assert!(matches!(problems(&after)[..], [Problem::Missing]));
    assert_eq!(after.findings[0].problem.class(), Class::Integrity);
    assert!(after.is_blind());
    // It does not stop what comes after it.
    publish(&mut w, &draft);
    assert_eq!(domain(&w).chain.head_key(), Key::of(&draft.dam));
}

#[test]
fn a_checkpoint_of_another_log_is_evidence() {
    let (vfs, ..) = example();
    let mut w = writer(&vfs, 3);
    let before = domain(&w);
    let put_signed = |w: &mut StoreWriter, checkpoint: Checkpoint, key: u8| {
        let bytes = checkpoint.sign(&signer(key)).unwrap().to_bytes();
        let key = put(w, &bytes);
        w.authority(Authority::Checkpoint, &[key]).unwrap();
    };
    let mut other = before.head_checkpoint();
    other.root = TreeHash([7; 32]);
    put_signed(&mut w, other, CHECKPOINT);
    let mut future = before.head_checkpoint();
    future.size += 1000;
    put_signed(&mut w, future, CHECKPOINT);
    let mut foreign = before.head_checkpoint();
    foreign.origin.store = StoreId([1; 16]);
    put_signed(&mut w, foreign, CHECKPOINT);
    put_signed(&mut w, before.head_checkpoint(), HOST);
    let after = domain(&w);
    assert_eq!(after.checkpoints.len(), 1, "the example's");
    match problems(&after)[..] {
        [
            Problem::CheckpointRoot { .. },
            Problem::CheckpointSize { .. },
            Problem::Checkpoint(CheckpointError::ForeignOrigin { .. }),
            Problem::Checkpoint(CheckpointError::Note(_)),
        ] => {}
        _ => panic!("{:?}", after.findings),
    }
    assert_eq!(after.findings[0].problem.class(), Class::Fork);
}

#[test]
fn a_receipt_says_what_the_log_says() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    let (session, root) = capture(&mut w, 50);
    let (other_session, other_root) = capture(&mut w, 51);
    publish(&mut w, &genesis());
    let of = |w: &StoreWriter| {
        domain(w)
            .receipt_of(ReceiptKind::Capture, session, root)
            .unwrap()
    };
    let good = of(&w);
    let bad = [
        Receipt {
            store: StoreId([1; 16]),
            ..good
        },
        Receipt {
            position: LogPosition(good.position.0 + 1),
            ..good
        },
        Receipt {
            session: other_session,
            ..good
        },
        Receipt {
            subject: other_root,
            ..good
        },
        Receipt {
            chain: Digest([1; 32]),
            ..good
        },
    ];
    for receipt in &bad {
        attest(&mut w, receipt, HOST);
    }
    let after = domain(&w);
    assert!(after.receipts.is_empty());
    match problems(&after)[..] {
        [
            Problem::ReceiptStore { .. },
            Problem::ReceiptPosition { .. },
            Problem::ReceiptSubject { .. },
            Problem::ReceiptSubject { .. },
            Problem::ReceiptChain { .. },
        ] => {}
        _ => panic!("{:?}", after.findings),
    }
}

#[test]
fn a_receipt_counts_for_listed_keys_only() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    let (session, root) = capture(&mut w, 50);
    publish(&mut w, &genesis());
    let receipt = domain(&w)
        .receipt_of(ReceiptKind::Capture, session, root)
        .unwrap();
    // By a key that may only sign checkpoints, and by nobody's.
    attest(&mut w, &receipt, CHECKPOINT);
    attest(&mut w, &receipt, 99);
    // A signature of something else.
    let other = Receipt {
        position: LogPosition(1),
        ..receipt
    };
    let id = domain(&w).id();
    let wrong = put(&mut w, &other.sign(&signer(HOST), &id).encode());
    let body = Key::of(&receipt.encode());
    w.authority(Authority::Receipt, &[body, wrong]).unwrap();
    let after = domain(&w);
    match problems(&after)[..] {
        [
            Problem::Unlisted { .. },
            Problem::Unlisted { .. },
            Problem::Signature(SignError::Body { .. }),
        ] => {}
        _ => panic!("{:?}", after.findings),
    }
    let state = after.receipt(session, root).unwrap();
    assert!(state.signers.is_empty(), "there, but nobody vouches for it");
    attest(&mut w, &receipt, HOST);
    let after = domain(&w);
    let state = after.receipt(session, root).unwrap();
    assert_eq!(after.receipts.len(), 1);
    assert!(state.signers.contains_key(&signer(HOST).id()));
}

/// A revocation names a position: what the key signed on records before it goes on counting, what came later does not.
#[test]
fn revocations_count_from_their_position_on() {
    let (vfs, session, root) = example();
    let mut w = writer(&vfs, 3);
    let from = domain(&w).tree.size();
    let (later_session, later_root) = capture(&mut w, 60);
    let receipt = domain(&w)
        .receipt_of(ReceiptKind::Capture, later_session, later_root)
        .unwrap();
    attest(&mut w, &receipt, HOST);
    checkpoint(&mut w, CHECKPOINT);
    assert!(problems(&domain(&w)).is_empty());
    let store = domain(&w).store;
    update(&mut w, 1, |dam, _| {
        for key in [HOST, CHECKPOINT] {
            let key = signer(key).id();
            dam.principals.retain(|principal| principal.key.id() != key);
            dam.revoke(Revocation {
                key,
                store,
                position: LogPosition(from),
                reason: Reason::Compromised,
            });
        }
    });
    let after = domain(&w);
    assert!(
        !after.receipt(session, root).unwrap().signers.is_empty(),
        "{:?}",
        after.findings
    );
    let later = after.receipt(later_session, later_root).unwrap();
    assert!(later.signers.is_empty());
    assert_eq!(after.checkpoints.len(), 1);
    assert!(
        after
            .findings
            .iter()
            .all(|finding| matches!(finding.problem, Problem::Refused(Refusal::Revoked { .. })))
    );
    assert_eq!(after.findings.len(), 2);
    // The stricter rule: only what a counting checkpoint covers. The checkpoint key itself is revoked, and nothing covers it.
    update(&mut w, 2, |_, policy| {
        policy.after_revocation = AfterRevocation::KeepOnlyCheckpointed;
    });
    let strict = domain(&w);
    assert!(strict.checkpoints.is_empty());
    assert!(strict.receipt(session, root).unwrap().signers.is_empty());
    assert!(
        problems(&strict)
            .iter()
            .any(|problem| matches!(problem, Problem::Refused(Refusal::RevokedUncovered { .. })))
    );
}

/// What was signed under an update that a rotation voided does not count.
#[test]
fn a_rotation_voids_what_was_signed_under_voided_updates() {
    let (vfs, session, root) = example();
    let mut w = writer(&vfs, 3);
    let genesis = domain(&w).chain.head_key();
    // A thief with the root lists a key of their own.
    let thief = signer(66);
    let chain = domain(&w).chain;
    let draft = Draft::update(&chain, [1; 32], 6, |dam, _| {
        dam.principals.push(crate::dam::Principal {
            key: thief.public(),
            roles: crate::dam::Roles::CHECKPOINT,
        });
    });
    publish(&mut w, &draft.unwrap().signed(&[signer(ROOT), signer(66)]));
    checkpoint(&mut w, 66);
    assert_eq!(domain(&w).checkpoints.len(), 2);
    let chain = domain(&w).chain;
    let rotation = Draft::rotation(&chain, genesis, [2; 32], 7, |dam, _| {
        dam.roots = vec![signer(NEXT).public()];
        dam.next = vec![signer(77).public().next_digest()];
    });
    publish(&mut w, &rotation.unwrap().signed(&[signer(NEXT)]));
    let after = domain(&w);
    assert_eq!(after.chain.head().dam.rotation, 1);
    assert_eq!(after.checkpoints.len(), 1);
    assert!(matches!(
        problems(&after)[..],
        [Problem::VoidManifest { .. }]
    ));
    assert!(!after.receipt(session, root).unwrap().signers.is_empty());
}
