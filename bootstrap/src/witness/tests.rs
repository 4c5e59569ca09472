//! What a witness answers, and what counts as a quorum.

use asl_store::StoreId;
use asl_store::vfs::Vfs as _;
use asl_store::vfs::fault::FaultVfs;
use zeroize::Zeroizing;

use super::*;
use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::id::DomainId;
use crate::key::{PublicKey, Secret, Signer};
use crate::note::{Kind, NOTE_LEN_MAX, Note, NoteKey, SignatureLine};
use crate::tlog::{TreeHash, consistency_proof, leaf_hash, root};

pub(super) const LOG: u8 = 1;
pub(super) const WITNESS: u8 = 9;

pub(super) fn signer(seed: u8) -> Signer {
    Signer::new(&Secret::from_seed(Zeroizing::new([seed; 32])))
}

pub(super) fn origin() -> Origin {
    Origin {
        domain: DomainId::of_genesis(b"genesis"),
        store: StoreId([2; 16]),
    }
}

/// Leaves of a log that forks from the others at record `fork_at`, as `branch`.
pub(super) fn leaves(size: u64, fork_at: u64, branch: u8) -> Vec<TreeHash> {
    let leaf = |i: u64| leaf_hash(&[i as u8, if i < fork_at { 0 } else { branch }]);
    (0..size).map(leaf).collect()
}

pub(super) fn checkpoint(leaves: &[TreeHash]) -> SignedCheckpoint {
    let checkpoint = Checkpoint {
        origin: origin(),
        size: leaves.len() as u64,
        root: root(leaves),
    };
    checkpoint.sign(&signer(LOG)).unwrap()
}

pub(super) fn request(old: u64, leaves: &[TreeHash]) -> Request {
    let old_in_tree = old.min(leaves.len() as u64);
    Request {
        old,
        proof: consistency_proof(leaves, old_in_tree).unwrap(),
        note: checkpoint(leaves).note().clone(),
    }
}

pub(super) fn key() -> PublicKey {
    signer(WITNESS).public()
}

pub(super) fn keys_of(of: &Origin) -> Vec<PublicKey> {
    let known = *of == origin();
    known.then(|| signer(LOG).public()).into_iter().collect()
}

pub(super) fn ask(witness: &mut Witness, request: &Request) -> Result<SignatureLine, WitnessError> {
    let request = request.to_string();
    witness.cosign(request.as_bytes(), &mut keys_of, &signer(WITNESS), 77)
}

fn quorum(threshold: usize) -> Quorum {
    let members = [("w1", key()), ("w2", signer(10).public())];
    Quorum::new(members, threshold).unwrap()
}

fn line(name: &str, seed: u8, of: &SignedCheckpoint) -> SignatureLine {
    SignatureLine::cosign(of.note().text(), name, &signer(seed), 5).unwrap()
}

fn add(checkpoint: SignedCheckpoint, lines: &[SignatureLine]) -> SignedCheckpoint {
    let response: String = lines.iter().map(ToString::to_string).collect();
    add_response(checkpoint, response.as_bytes(), quorum(1).members()).unwrap()
}

#[test]
fn cosigns_what_continues_and_remembers_it() {
    let vfs = FaultVfs::new();
    let mut witness = Witness::create(&vfs, "w", "w1", key()).unwrap();
    let all = leaves(20, 20, 0);
    let mut old = 0;
    for size in [0, 1, 3, 3, 8, 13, 20] {
        let line = ask(&mut witness, &request(old, &all[..size])).unwrap();
        let signed = checkpoint(&all[..size]);
        let tally = quorum(1).tally(&add(signed, &[line])).unwrap();
        assert!(tally.is_met());
        assert_eq!(tally.cosigners[0].time, 77);
        assert_eq!(tally.cosigners[0].name, "w1");
        old = size as u64;
        drop(witness);
        witness = Witness::open(&vfs, "w", "w1", key()).unwrap();
        let latest: Vec<_> = witness.latest().copied().collect();
        assert_eq!(latest, [*checkpoint(&all[..size]).checkpoint()]);
    }
}

#[test]
fn requests_have_the_specified_form() {
    let all = leaves(7, 7, 0);
    let request = request(3, &all);
    let text = request.to_string();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("old 3"));
    for _ in &request.proof {
        assert_eq!(lines.next().map(str::len), Some(44));
    }
    assert_eq!(lines.next(), Some(""));
    assert_eq!(lines.next(), Some(&origin().to_string()[..]));
    assert_eq!(Request::parse(text.as_bytes()), Ok(request.clone()));

    let parse = |text: &str| Request::parse(text.as_bytes()).unwrap_err();
    assert_eq!(parse(""), RequestError::NoSeparator);
    assert_eq!(parse("old 3\n"), RequestError::NoSeparator);
    for bad in [
        "old 03",
        "old",
        "old -1",
        "Old 3",
        "old 3 ",
        "old 18446744073709551615",
        "",
    ] {
        let error = parse(&text.replacen("old 3", bad, 1));
        assert_eq!(error, RequestError::OldSize, "{bad}");
    }
    let hash = text.lines().nth(1).unwrap();
    for bad in ["AAAA", " ", &hash[1..], &format!("{hash} ")] {
        let error = parse(&text.replacen(hash, bad, 1));
        assert_eq!(error, RequestError::Hash { number: 2 }, "{bad:?}");
    }
    let many = format!("{hash}\n").repeat(HASHES_MAX);
    let most = text.replacen(&format!("{hash}\n"), &many, 1);
    assert_eq!(parse(&most), RequestError::TooManyHashes);
    let long = "x".repeat(REQUEST_LEN_MAX + 1);
    let len = long.len();
    assert_eq!(parse(&long), RequestError::TooLong { len });
    assert!(matches!(parse("old 3\n\nno note\n"), RequestError::Note(_)));
}

#[test]
fn every_flipped_or_missing_byte_of_a_request_is_refused_or_harmless() {
    let vfs = FaultVfs::new();
    let mut witness = Witness::create(&vfs, "", "w1", key()).unwrap();
    let all = leaves(7, 7, 0);
    ask(&mut witness, &request(0, &all[..3])).unwrap();
    let good = request(3, &all).to_string().into_bytes();
    let before = vfs.read_file("state").unwrap();
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        let mut shorter = good.clone();
        shorter.remove(at);
        for bytes in [flipped, shorter, good[..at].to_vec()] {
            let found = witness.cosign(&bytes, &mut keys_of, &signer(WITNESS), 77);
            assert!(found.is_err(), "byte {at}");
            assert_eq!(vfs.read_file("state").unwrap(), before);
        }
    }
    witness
        .cosign(&good, &mut keys_of, &signer(WITNESS), 77)
        .unwrap();
}

#[test]
fn refuses_what_does_not_continue_and_keeps_the_evidence() {
    let vfs = FaultVfs::new();
    let mut witness = Witness::create(&vfs, "w", "w1", key()).unwrap();
    let all = leaves(20, 20, 0);
    let fork = leaves(20, 5, 1);
    ask(&mut witness, &request(0, &all[..8])).unwrap();

    // Smaller, with or without pretending to start there; from a place it was not at.
    let smaller = ask(&mut witness, &request(5, &all[..5]));
    assert!(matches!(
        smaller,
        Err(WitnessError::Stale {
            size: 5,
            old: 5,
            cosigned: 8
        })
    ));
    let smaller = ask(&mut witness, &request(8, &all[..5]));
    assert!(matches!(
        smaller,
        Err(WitnessError::Inconsistent { evidence: None, .. })
    ));
    let afresh = ask(&mut witness, &request(0, &fork[..20]));
    assert!(matches!(
        afresh,
        Err(WitnessError::Stale {
            size: 20,
            old: 0,
            cosigned: 8
        })
    ));
    assert!(vfs.metadata("w/evidence").is_err());

    // The same size, another root: proof.
    for old in [0, 8] {
        match ask(&mut witness, &request(old, &fork[..8])) {
            Err(WitnessError::Forked {
                size: 8,
                evidence: Some(path),
            }) => {
                let fork = Fork::parse(&vfs.read_file(&path).unwrap()).unwrap();
                assert_eq!(fork.is_proof(&origin(), &[signer(LOG).public()]), Ok(true));
                assert!(fork.is_proof(&origin(), &[signer(3).public()]).is_err());
                let again = Fork::parse(&fork.to_bytes());
                assert_eq!(again, Some(fork));
            }
            other => panic!("{other:?}"),
        }
    }
    // Larger on the fork: a doubt.
    match ask(&mut witness, &request(8, &fork[..12])) {
        Err(WitnessError::Inconsistent {
            size: 12,
            cosigned: 8,
            evidence: Some(path),
            source,
        }) => {
            assert_eq!(source, TreeError::Root);
            let doubt = Fork::parse(&vfs.read_file(&path).unwrap()).unwrap();
            assert_eq!(
                doubt.is_proof(&origin(), &[signer(LOG).public()]),
                Ok(false)
            );
        }
        other => panic!("{other:?}"),
    }
    let mut wrong_length = request(8, &all[..12]);
    wrong_length.proof.pop();
    let found = ask(&mut witness, &wrong_length);
    assert!(matches!(
        found,
        Err(WitnessError::Inconsistent {
            source: TreeError::ProofLength { .. },
            ..
        })
    ));
    assert_eq!(vfs.list("w/evidence").unwrap().len(), 3, "each once");
    // And none of it counts.
    ask(&mut witness, &request(8, &all[..12])).unwrap();
}

#[test]
fn evidence_is_bounded_and_doubts_do_not_keep_out_proofs() {
    let vfs = FaultVfs::new();
    let mut witness = Witness::create(&vfs, "", "w1", key()).unwrap();
    let all = leaves(200, 200, 0);
    ask(&mut witness, &request(0, &all[..8])).unwrap();
    let mut kept = 0;
    for size in 9..90 {
        let fork = leaves(size, 5, 1);
        match ask(&mut witness, &request(8, &fork)) {
            Err(WitnessError::Inconsistent { evidence, .. }) => {
                kept += usize::from(evidence.is_some())
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(kept, 64);
    let fork = ask(&mut witness, &request(8, &leaves(8, 5, 1)));
    assert!(matches!(
        fork,
        Err(WitnessError::Forked {
            evidence: Some(_),
            ..
        })
    ));
}

#[test]
fn refuses_strangers() {
    let vfs = FaultVfs::new();
    let mut witness = Witness::create(&vfs, "", "w1", key()).unwrap();
    let all = leaves(4, 4, 0);
    let other_domain = Checkpoint {
        origin: Origin {
            domain: DomainId::of_genesis(b"another"),
            ..origin()
        },
        size: 4,
        root: root(&all),
    };
    let mut request = request(0, &all);
    request.note = other_domain.sign(&signer(LOG)).unwrap().note().clone();
    assert!(matches!(
        ask(&mut witness, &request),
        Err(WitnessError::UnknownLog { .. })
    ));
    // Our origin, signed under our name by a key that is not ours, and by ours under another name.
    let text = checkpoint(&all).note().text().to_owned();
    for (name, seed) in [(origin().domain.to_string(), 3), ("w1".into(), LOG)] {
        request.note = Note::sign(&text, &name, &signer(seed)).unwrap();
        assert!(matches!(
            ask(&mut witness, &request),
            Err(WitnessError::Checkpoint(_))
        ));
    }
    let good = super::tests::request(0, &all).to_string();
    let by_other = witness.cosign(good.as_bytes(), &mut keys_of, &signer(3), 77);
    assert!(matches!(by_other, Err(WitnessError::WrongKey)));
    let late = witness.cosign(good.as_bytes(), &mut keys_of, &signer(WITNESS), u64::MAX);
    assert!(matches!(late, Err(WitnessError::Note(_))));
    assert_eq!(witness.latest().count(), 0);
}

#[test]
fn never_begins_anew() {
    let vfs = FaultVfs::new();
    let missing = Witness::open(&vfs, "", "w1", key());
    assert!(matches!(missing, Err(WitnessError::NoState { .. })));
    assert!(vfs.files().is_empty());
    let mut witness = Witness::create(&vfs, "", "w1", key()).unwrap();
    ask(&mut witness, &request(0, &leaves(8, 8, 0))).unwrap();
    let busy = Witness::open(&vfs, "", "w1", key());
    assert!(matches!(busy, Err(WitnessError::Busy)));
    drop(witness);
    let again = Witness::create(&vfs, "", "w1", key());
    assert!(matches!(again, Err(WitnessError::Exists { .. })));
    for (name, seed) in [("w2", WITNESS), ("w1", 3)] {
        let other = Witness::open(&vfs, "", name, signer(seed).public());
        assert!(matches!(other, Err(WitnessError::OtherWitness { .. })));
    }
    let good = vfs.read_file("state").unwrap();
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        let mut shorter = good.clone();
        shorter.remove(at);
        for bytes in [flipped, shorter, good[..at].to_vec()] {
            vfs.write_file("state", &bytes).unwrap();
            let found = Witness::open(&vfs, "", "w1", key());
            assert!(
                matches!(found, Err(WitnessError::Damaged { .. })),
                "byte {at}"
            );
        }
    }
    vfs.remove_file("state").unwrap();
    let lost = Witness::open(&vfs, "", "w1", key());
    assert!(matches!(lost, Err(WitnessError::NoState { .. })));
}

#[test]
fn a_quorum_counts_distinct_members_only() {
    let signed = checkpoint(&leaves(4, 4, 0));
    let one = add(signed.clone(), &[line("w1", WITNESS, &signed)]);
    assert!(quorum(1).tally(&one).unwrap().is_met());
    let tally = quorum(2).tally(&one).unwrap();
    assert!(!tally.is_met());
    assert_eq!(tally.cosigners.len(), 1);

    // The same witness again: as further lines, by hand.
    let again = SignatureLine::cosign(signed.note().text(), "w1", &signer(WITNESS), 6).unwrap();
    let stuffed = format!("{}{again}{again}", one.note());
    let open = |text: &str| {
        SignedCheckpoint::open(text.as_bytes(), &origin(), &[signer(LOG).public()]).unwrap()
    };
    let tally = quorum(2).tally(&open(&stuffed)).unwrap();
    assert!(!tally.is_met());
    assert_eq!(tally.cosigners[0].time, 6);
    // Under another member's name, or as a stranger.
    for line in [line("w2", WITNESS, &signed), line("w3", 3, &signed)] {
        let text = format!("{}{line}", one.note());
        assert_eq!(quorum(2).tally(&open(&text)).unwrap().cosigners.len(), 1);
    }
    // The log's own signature is no cosignature, even if its key were a member.
    let log_too = Quorum::new([("w1", key()), ("log", signer(LOG).public())], 2).unwrap();
    assert!(!log_too.tally(&one).unwrap().is_met());

    let two = add(one, &[line("w2", 10, &signed), line("w3", 3, &signed)]);
    assert!(quorum(2).tally(&two).unwrap().is_met());
    assert_eq!(
        two.note().signatures().len(),
        3,
        "a stranger's line is left out"
    );
    assert_eq!(open(&two.note().to_string()), two);
}

#[test]
fn a_flipped_byte_costs_the_quorum() {
    let signed = checkpoint(&leaves(4, 4, 0));
    let both = add(
        signed.clone(),
        &[line("w1", WITNESS, &signed), line("w2", 10, &signed)],
    );
    let good = both.to_bytes();
    let met = |bytes: &[u8]| {
        SignedCheckpoint::open(bytes, &origin(), &[signer(LOG).public()])
            .is_ok_and(|opened| quorum(2).tally(&opened).is_ok_and(|tally| tally.is_met()))
    };
    assert!(met(&good));
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(!met(&bytes), "bit {bit} of byte {at}");
        }
        let mut bytes = good.clone();
        bytes.remove(at);
        assert!(!met(&bytes), "without byte {at}");
    }
}

#[test]
fn refuses_answers_that_are_not_for_this_checkpoint() {
    let signed = checkpoint(&leaves(4, 4, 0));
    let other = checkpoint(&leaves(5, 5, 0));
    let quorum = quorum(1);
    let add = |response: &str| {
        add_response(signed.clone(), response.as_bytes(), quorum.members()).unwrap_err()
    };
    let wrong = line("w1", WITNESS, &other).to_string();
    let right = line("w1", WITNESS, &signed).to_string();
    assert!(matches!(add(&wrong), NoteError::Signature { .. }));
    assert!(matches!(
        add(&format!("{wrong}{right}")),
        NoteError::Signature { .. }
    ));
    let stranger = line("w3", 3, &signed).to_string();
    assert_eq!(add(&stranger), NoteError::NoKnownSignature { known: 2 });
    assert_eq!(add(""), NoteError::Unsigned);
    assert_eq!(add(right.trim_end()), NoteError::Unfinished);
    assert_eq!(add("409\n"), NoteError::Line { number: 1 });
    let long = "x".repeat(NOTE_LEN_MAX + 1);
    assert!(matches!(add(&long), NoteError::TooLong { .. }));
}

#[test]
fn there_are_no_impossible_quorums() {
    let one = || [("w1", key())];
    for threshold in [0, 2, usize::MAX] {
        let found = Quorum::new(one(), threshold);
        assert_eq!(
            found,
            Err(QuorumError::Threshold {
                threshold,
                members: 1
            })
        );
    }
    assert!(Quorum::new([], 0).is_err());
    let twice = Quorum::new([("w1", key()), ("w2", key())], 2);
    assert!(matches!(twice, Err(QuorumError::SameKey { .. })));
    let name = String::from("w 1");
    let bad = Quorum::new([(&name[..], key())], 1);
    assert_eq!(bad, Err(QuorumError::Name { name: name.clone() }));
    let member = NoteKey::new("w1", Kind::Cosignature, key()).unwrap();
    assert_eq!(Quorum::new(one(), 1).unwrap().members(), [member]);
}

#[test]
fn a_checkpoint_with_many_signatures_is_remembered_without_them() {
    let vfs = FaultVfs::new();
    let mut witness = Witness::create(&vfs, "", "w1", key()).unwrap();
    let mut request = request(0, &leaves(4, 4, 0));
    ask(&mut witness, &request).unwrap();
    let len = vfs.read_file("state").unwrap().len();
    let log_line = request.note.signatures()[0].to_string();
    let text = format!("{}{}", request.note, log_line.repeat(70));
    request.note = Note::parse(text.as_bytes()).unwrap();
    request.old = 4;
    ask(&mut witness, &request).unwrap();
    let found = vfs.read_file("state").unwrap().len();
    assert!(found < len + 8 * 250, "{len} to {found}");
    drop(witness);
    Witness::open(&vfs, "", "w1", key()).unwrap();
}
