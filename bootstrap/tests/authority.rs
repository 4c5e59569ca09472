//! A domain from its author's side: drafts, signatures in turn, recovery, pins, and each rule of the policy.

use asl_bootstrap::author::{AuthorError, Draft};
use asl_bootstrap::chain::{Chain, ChainError, Standing, Step, UPDATES_MAX};
use asl_bootstrap::dam::{
    Dam, DamError, Kind, Member, Principal, Reason, Revocation, Roles, Witness, WitnessMode,
};
use asl_bootstrap::pin::{Compared, Pin};
use asl_bootstrap::policy::{
    AfterRevocation, Checkpoints, Event, Foreign, Policy, Recovery, Refusal, Unsigned,
    UnsignedCaptures, Witnessed, may_write,
};
use asl_bootstrap::{PublicKey, Secret, Signer};
use asl_store::{Key, LogPosition, StoreId};
use zeroize::Zeroizing;

fn signer(n: u8) -> Signer {
    Signer::new(&Secret::from_seed(Zeroizing::new([n; 32])))
}

fn public(n: u8) -> PublicKey {
    signer(n).public()
}

const ROOT: u8 = 1;
const HOST: u8 = 2;
const PHRASE: u8 = 10;

fn body(kind: Kind) -> Dam {
    Dam {
        kind,
        version: 0,
        rotation: 0,
        prev: None,
        domain: None,
        nonce: [0; 32],
        roots: vec![public(ROOT)],
        root_threshold: 1,
        next: vec![public(PHRASE).next_digest()],
        next_threshold: 1,
        principals: vec![Principal {
            key: public(HOST),
            roles: Roles::PRODUCE,
        }],
        witness: Witness::NONE,
        policy: Key([0; 32]),
        revoked: vec![],
        anchor: None,
        label: "attic".into(),
        created_hint: 0,
    }
}

fn found(dam: Dam, policy: &Policy) -> Chain {
    let draft = Draft::genesis(dam, policy).unwrap();
    draft
        .signed([&signer(ROOT), &signer(HOST)])
        .found()
        .unwrap()
}

fn personal() -> Chain {
    found(body(Kind::Personal), &Policy::default_of(Kind::Personal))
}

fn update(chain: &mut Chain, nonce: u8) -> Result<Step, AuthorError> {
    let root = signer(root_of(chain));
    Draft::update(chain, [nonce; 32], 0, |_, _| {})?
        .signed([&root])
        .continue_chain(chain)
}

/// Which of the test's keys is the root.
fn root_of(chain: &Chain) -> u8 {
    let roots = &chain.head().dam.roots;
    (ROOT..=20).find(|n| roots.contains(&public(*n))).unwrap()
}

/// Rotates from `from` to the key `to`, committing to `next`.
fn rotate(chain: &mut Chain, from: Key, to: u8, next: u8) -> Result<Step, AuthorError> {
    Draft::rotation(chain, from, [to; 32], 0, |dam, _| {
        dam.roots = vec![public(to)];
        dam.next = vec![public(next).next_digest()];
    })?
    .signed([&signer(to)])
    .continue_chain(chain)
}

#[test]
fn several_people_sign_one_draft_in_turn() {
    let mut dam = body(Kind::Group);
    dam.roots = vec![public(1), public(3), public(4)];
    dam.root_threshold = 2;
    let all = [&signer(1), &signer(3), &signer(4), &signer(HOST)];
    let draft = Draft::genesis(dam, &Policy::default_of(Kind::Group)).unwrap();
    let mut chain = draft.signed(all).found().unwrap();

    let draft = Draft::update(&chain, [1; 32], 5, |dam, _| dam.label = "club".into()).unwrap();
    let bytes = draft.dam.clone();
    let draft = draft.signed([&signer(3)]);
    let error = draft.continue_chain(&mut chain).unwrap_err();
    assert_eq!(error.to_string(), "too few roots signed: 1 of 2 needed");
    let draft = draft.signed([&signer(4)]);
    assert_eq!(draft.dam, bytes);
    assert_eq!(draft.continue_chain(&mut chain), Ok(Step::Updated));
    assert_eq!(chain.head().dam.label, "club");
    assert_eq!(chain.head().signers.len(), 2);
}

#[test]
fn equal_inputs_make_equal_drafts() {
    let chain = personal();
    let draft = || Draft::update(&chain, [1; 32], 5, |_, _| {}).unwrap();
    let signed = || draft().signed([&signer(ROOT)]);
    assert_eq!(signed(), signed());
    assert_eq!(personal().domain(), chain.domain());
}

#[test]
fn nothing_is_drafted_that_breaks_a_rule_by_itself() {
    let chain = personal();
    let draft = Draft::update(&chain, [1; 32], 0, |dam, _| dam.label = "\x1b[2J".into());
    let character = '\x1b';
    assert_eq!(draft, Err(DamError::LabelText { character }.into()));
    let draft = Draft::rotation(&chain, Key([9; 32]), [1; 32], 0, |_, _| {});
    assert_eq!(draft, Err(AuthorError::NotRotatable(Key([9; 32]))));
}

/// The thief of the root writes, revokes and forks; the phrase takes the domain back from where it was good.
#[test]
fn the_phrase_voids_what_a_stolen_root_did() {
    let mut chain = personal();
    update(&mut chain, 1).unwrap();
    let good = chain.head_key();
    let thief = Draft::update(&chain, [2; 32], 0, |dam, _| {
        dam.revoke(Revocation {
            key: public(HOST).id(),
            store: StoreId([0; 16]),
            position: LogPosition(0),
            reason: Reason::Lost,
        });
    });
    let thief = thief.unwrap().signed([&signer(ROOT)]);
    thief.continue_chain(&mut chain).unwrap();
    let bad = chain.head_key();
    assert!(chain.head().dam.principals.is_empty());

    let step = rotate(&mut chain, good, PHRASE, 11);
    assert_eq!(step, Ok(Step::Rotated { voided: vec![bad] }));
    assert_eq!(chain.standing(&bad), Some(Standing::Voided));
    assert_eq!(chain.standing(&good), Some(Standing::OnPath));
    assert_eq!(chain.head().dam.version, 2);
    assert!(
        chain
            .head()
            .dam
            .has_role(&public(HOST).id(), Roles::PRODUCE)
    );
    assert_eq!(chain.forks(), []);
    update(&mut chain, 3).unwrap();
    assert_eq!(chain.path().count(), 4);
}

/// What forks stays as evidence, until a rotation settles it; what follows a refused rotation is refused.
#[test]
fn forks_are_kept_as_evidence() {
    let genesis = personal();
    let (mut ours, mut theirs) = (genesis.clone(), genesis.clone());
    update(&mut ours, 1).unwrap();
    let draft = Draft::update(&theirs, [2; 32], 0, |_, _| {}).unwrap();
    let draft = draft.signed([&signer(ROOT)]);
    draft.continue_chain(&mut theirs).unwrap();
    let refused = draft.continue_chain(&mut ours);
    assert!(matches!(
        refused,
        Err(AuthorError::Chain(ChainError::UpdateFork { .. }))
    ));
    assert_eq!(ours.forks().len(), 1);
    assert_eq!(
        ours.standing(&theirs.head_key()),
        Some(Standing::ForkedUpdate)
    );
    assert_eq!(ours.rotatable().len(), 3);

    // The owner had gone on from the refused side: that is where the rotation starts, and it holds.
    rotate(&mut ours, theirs.head_key(), PHRASE, 11).unwrap();
    assert_eq!(ours.forks(), []);
    assert_eq!(ours.standing(&theirs.head_key()), Some(Standing::OnPath));

    // A second rotation of the ended epoch, and an update of it.
    let mut rival = genesis.clone();
    let draft = Draft::rotation(&genesis, genesis.head_key(), [9; 32], 0, |dam, _| {
        dam.roots = vec![public(PHRASE)];
        dam.next = vec![public(12).next_digest()];
    });
    let draft = draft.unwrap().signed([&signer(PHRASE)]);
    draft.continue_chain(&mut rival).unwrap();
    let refused = draft.continue_chain(&mut ours);
    assert!(matches!(
        refused,
        Err(AuthorError::Chain(ChainError::RotationFork { .. }))
    ));
    let follows = Draft::update(&rival, [1; 32], 0, |_, _| {}).unwrap();
    let follows = follows.signed([&signer(PHRASE)]).continue_chain(&mut ours);
    let on_rival = ChainError::OnRival {
        rival: rival.head_key(),
    };
    assert_eq!(follows, Err(on_rival.into()));
    assert_eq!(ours.forks().len(), 1);
    assert_eq!(
        ours.standing(&rival.head_key()),
        Some(Standing::RivalRotation)
    );
}

#[test]
fn a_flood_of_updates_ends_and_a_rotation_goes_through() {
    let mut chain = personal();
    let start = chain.head_key();
    for n in 0..UPDATES_MAX {
        update(&mut chain, n as u8).unwrap();
    }
    assert_eq!(
        update(&mut chain, 0),
        Err(ChainError::TooManyUpdates.into())
    );
    rotate(&mut chain, start, PHRASE, 11).unwrap();
    update(&mut chain, 0).unwrap();
}

#[test]
fn a_pin_tells_every_way_a_chain_can_differ() {
    let genesis = personal();
    let mut chain = genesis.clone();
    update(&mut chain, 1).unwrap();
    let one = chain.clone();
    let pin = Pin::of(&one);
    assert_eq!(pin.check(&one), Compared::Same);
    assert_eq!(pin.check(&genesis), Compared::Rollback { version: 0 });
    update(&mut chain, 2).unwrap();
    assert_eq!(pin.check(&chain), Compared::Ahead { versions: 1 });

    let mut other = genesis.clone();
    update(&mut other, 9).unwrap();
    let theirs = other.head_key();
    assert_eq!(pin.check(&other), Compared::Fork { theirs });

    let mut rotated = genesis.clone();
    rotate(&mut rotated, genesis.head_key(), PHRASE, 11).unwrap();
    let by = rotated.head_key();
    assert_eq!(pin.check(&rotated), Compared::Superseded { by });
    assert_eq!(
        Pin::of(&rotated).check(&one),
        Compared::Rollback { version: 1 }
    );

    let mut dam = body(Kind::Personal);
    dam.nonce = [1; 32];
    let foreign = found(dam, &Policy::default_of(Kind::Personal));
    assert_eq!(pin.check(&foreign), Compared::OtherDomain);
}

/// The root of a rotated domain was the next key of the epoch before: its thief can rotate that epoch another way, twice, until the
/// count is higher than the honest one's. The pin is not fooled.
#[test]
fn a_higher_rotation_count_alone_supersedes_nothing() {
    let genesis = personal();
    let mut honest = genesis.clone();
    rotate(&mut honest, genesis.head_key(), PHRASE, 11).unwrap();
    let pin = Pin::of(&honest);

    let mut stolen = genesis.clone();
    let draft = Draft::rotation(&genesis, genesis.head_key(), [66; 32], 0, |dam, _| {
        dam.roots = vec![public(PHRASE)];
        dam.next = vec![public(16).next_digest()];
    });
    let draft = draft.unwrap().signed([&signer(PHRASE)]);
    draft.continue_chain(&mut stolen).unwrap();
    let theirs = stolen.head_key();
    rotate(&mut stolen, theirs, 16, 17).unwrap();
    assert!(stolen.head().dam.rotation > pin.rotation);
    assert_eq!(pin.check(&stolen), Compared::Fork { theirs });
}

fn lax() -> Policy {
    Policy {
        foreign: Foreign::Quarantine,
        unsigned_captures: UnsignedCaptures::Allow,
        checkpoints: Checkpoints::Optional,
        witnessed: Witnessed::Optional,
        recovery: Recovery::WithoutRoots,
        after_revocation: AfterRevocation::KeepBeforePosition,
    }
}

/// Covers C5.
#[test]
fn foreign_material_comes_in_as_far_as_the_policy_says() {
    for (level, allowed) in Foreign::ALL.iter().enumerate() {
        let policy = Policy {
            foreign: *allowed,
            ..lax()
        };
        for (asked_level, asked) in Foreign::ALL.iter().enumerate() {
            let admitted = policy.admit_foreign(*asked);
            assert_eq!(
                admitted.is_ok(),
                asked_level <= level,
                "{asked} of {allowed}"
            );
        }
    }
}

#[test]
fn unsigned_captures_are_fine_reported_or_refused() {
    let verdicts = UnsignedCaptures::ALL.iter().map(|rule| {
        let unsigned_captures = *rule;
        let policy = Policy {
            unsigned_captures,
            ..lax()
        };
        policy.unsigned_capture()
    });
    let expected = [
        Ok(Unsigned::Fine),
        Ok(Unsigned::Report),
        Err(Refusal::UnsignedCapture),
    ];
    assert_eq!(verdicts.collect::<Vec<_>>(), expected);
}

#[test]
fn checkpoints_are_due_when_the_policy_says() {
    let due = |checkpoints, event| {
        let policy = Policy {
            checkpoints,
            ..lax()
        };
        assert_eq!(policy.require_checkpoint(event, true), Ok(()));
        let missing = policy.require_checkpoint(event, false);
        assert_eq!(missing.is_err(), policy.checkpoint_due(event));
        policy.checkpoint_due(event)
    };
    assert!(!due(Checkpoints::Optional, Event::Snapshot));
    assert!(!due(Checkpoints::Optional, Event::CaptureEnd));
    assert!(due(Checkpoints::AtSnapshot, Event::Snapshot));
    assert!(!due(Checkpoints::AtSnapshot, Event::CaptureEnd));
    assert!(due(Checkpoints::AtCapture, Event::Snapshot));
    assert!(due(Checkpoints::AtCapture, Event::CaptureEnd));
}

fn witnesses(names: &[u8], threshold: u8) -> Witness {
    let member = |n: &u8| Member {
        key: public(*n),
        name: format!("w{n}"),
    };
    Witness {
        mode: WitnessMode::Quorum,
        members: names.iter().map(member).collect(),
        threshold,
    }
}

#[test]
fn a_checkpoint_counts_with_enough_distinct_listed_witnesses() {
    let policy = Policy {
        witnessed: Witnessed::Required,
        ..lax()
    };
    let witness = witnesses(&[7, 8, 9], 2);
    let ids = |names: &[u8]| names.iter().map(|n| public(*n).id()).collect::<Vec<_>>();
    let short = |have| Err(Refusal::NotWitnessed { have, need: 2 });
    assert_eq!(policy.accept_checkpoint(&witness, &ids(&[7, 9])), Ok(()));
    assert_eq!(
        policy.accept_checkpoint(&witness, &ids(&[7, 7, 7])),
        short(1)
    );
    assert_eq!(policy.accept_checkpoint(&witness, &ids(&[5, 6])), short(0));
    assert_eq!(
        policy.accept_checkpoint(&Witness::NONE, &ids(&[7, 8])),
        Err(Refusal::NoWitnesses)
    );
    assert_eq!(lax().accept_checkpoint(&witness, &ids(&[])), Ok(()));
}

#[test]
fn a_personal_domain_recovers_by_phrase_alone_whatever_its_policy() {
    let policy = Policy {
        recovery: Recovery::NeedsRoots,
        ..lax()
    };
    let mut chain = found(body(Kind::Personal), &policy);
    let from = chain.head_key();
    rotate(&mut chain, from, PHRASE, 11).unwrap();
    let mut chain = found(body(Kind::Group), &policy);
    let from = chain.head_key();
    let refused = rotate(&mut chain, from, PHRASE, 11);
    assert!(matches!(
        refused,
        Err(AuthorError::Chain(ChainError::RecoveryNeedsRoots(_)))
    ));
}

#[test]
fn what_a_revoked_key_signed_counts_before_its_position_only() {
    let (store, elsewhere) = (StoreId([1; 16]), StoreId([2; 16]));
    let key = public(HOST).id();
    for after_revocation in AfterRevocation::ALL {
        let policy = Policy {
            after_revocation: *after_revocation,
            ..lax()
        };
        let mut chain = found(body(Kind::Personal), &policy);
        let counts = |chain: &Chain, store, at, covered| {
            chain.signature_counts(&key, store, LogPosition(at), covered)
        };
        assert_eq!(counts(&chain, store, 1000, false), Ok(()));
        let revoke = |position| Revocation {
            key,
            store,
            position: LogPosition(position),
            reason: Reason::Compromised,
        };
        let draft = Draft::update(&chain, [1; 32], 0, |dam, _| {
            dam.revoke(revoke(10));
            dam.revoke(revoke(20));
        });
        let draft = draft.unwrap().signed([&signer(ROOT)]);
        draft.continue_chain(&mut chain).unwrap();
        let revoked = Err(Refusal::Revoked { key });
        for covered in [false, true] {
            assert_eq!(counts(&chain, store, 10, covered), revoked);
            assert_eq!(counts(&chain, elsewhere, 0, covered), revoked);
        }
        assert_eq!(counts(&chain, store, 9, true), Ok(()));
        let uncovered = match after_revocation {
            AfterRevocation::KeepBeforePosition => Ok(()),
            AfterRevocation::KeepOnlyCheckpointed => Err(Refusal::RevokedUncovered { key }),
        };
        assert_eq!(counts(&chain, store, 9, false), uncovered);
    }
}

/// Covers L8: the same documents on disk, another right to write.
#[test]
fn a_common_domain_is_read_only_but_for_its_writers() {
    let host = public(HOST).id();
    let stranger = public(5).id();
    for kind in [Kind::Personal, Kind::Group] {
        assert_eq!(may_write(&body(kind), None), Ok(()));
    }
    let common = Dam {
        witness: witnesses(&[7, 8, 9], 2),
        ..body(Kind::Common)
    };
    assert_eq!(may_write(&common, Some(&host)), Ok(()));
    assert_eq!(may_write(&common, Some(&stranger)), Err(Refusal::ReadOnly));
    assert_eq!(may_write(&common, None), Err(Refusal::ReadOnly));
    let root = public(ROOT).id();
    assert_eq!(may_write(&common, Some(&root)), Err(Refusal::ReadOnly));
}

#[test]
fn policies_come_back_and_their_words_too() {
    for kind in [Kind::Personal, Kind::Group, Kind::Common] {
        let policy = Policy::default_of(kind);
        assert_eq!(Policy::decode(&policy.encode()), Ok(policy));
    }
    for value in Checkpoints::ALL {
        assert_eq!(value.to_string().parse(), Ok(*value));
    }
    let error = "always".parse::<Checkpoints>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the rule checkpoints is one of optional, at-snapshot, at-capture"
    );
}
