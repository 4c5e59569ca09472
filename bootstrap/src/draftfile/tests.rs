//! Groups and common domains through files: who must sign, what nobody should sign, and what a store admits.

use asl_store::vfs::Vfs as _;
use asl_store::vfs::fault::{CrashPolicy, FaultVfs};

use super::*;
use crate::dam::{Member, Reason, Revocation, WitnessMode};
use crate::fixture::{fresh, reader, signer, writer};
use crate::policy::{Checkpoints, Recovery, Witnessed};
use asl_store::{LogPosition, StoreId};

fn random(seed: u8) -> impl Random {
    let mut reader = blake3::Hasher::new().update(&[seed]).finalize_xof();
    move |bytes: &mut [u8]| {
        reader.fill(bytes);
        Ok(())
    }
}

/// The root of member `n` in an epoch; that of the next one is behind a phrase.
fn root(n: u8, epoch: u8) -> Signer {
    signer(20 + 10 * epoch + n)
}

fn cards(epoch: u8) -> Vec<Card> {
    (0..3)
        .map(|n| card(&root(n, epoch), &root(n, epoch + 1)))
        .collect()
}

/// The key file of a member.
fn held(signers: &[Signer]) -> KeyFile {
    let mut keys = KeyFile::new(None);
    for signer in signers {
        keys.add(Role::Root, &signer.secret());
    }
    keys
}

fn witnesses() -> Witness {
    let members = (0..3u8).map(|n| Member {
        key: signer(80 + n).public(),
        name: format!("w{n}"),
    });
    Witness {
        mode: WitnessMode::Quorum,
        members: members.collect(),
        threshold: 2,
    }
}

fn founding(kind: Kind) -> Founding {
    Founding {
        label: "club".into(),
        kind,
        policy: Policy::default_of(kind),
        root_threshold: 2,
        next_threshold: 2,
        witness: match kind {
            Kind::Common => witnesses(),
            _ => Witness::NONE,
        },
        created_hint: 5,
    }
}

/// A store whose domain three people founded, and the keys of its host.
fn founded(kind: Kind) -> (FaultVfs, KeyFile) {
    let (mut file, host) = found(&cards(0), &founding(kind), &mut random(1)).unwrap();
    for n in 0..3 {
        file = DraftFile::open(&file.to_bytes()).unwrap();
        file.sign(&held(&[root(n, 0)])).unwrap();
    }
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    let admitted = admit(&mut w, &file, Some(&host)).unwrap();
    assert!(!admitted.already && admitted.checkpoint.is_some());
    w.finish().unwrap();
    (vfs, host)
}

fn domain_of(vfs: &FaultVfs) -> Domain {
    Domain::read(&reader(vfs)).unwrap().unwrap()
}

fn unsigned(file: &DraftFile) -> ChainError {
    match file.verdict() {
        Verdict::Unsigned(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn cards_have_one_form() {
    let card = cards(0)[0];
    let text = card.text();
    assert_eq!(Card::parse(&text), Ok(card));
    for (changed, line) in [
        (text.replace("member 1", "member 2"), 1),
        (text.replace("root ed25519 ", "root "), 2),
        (text.replace("next ", "next  "), 3),
        (format!("{text}\n"), 4),
        (text.trim_end().to_owned(), 4),
        (text.replacen('\n', "\r\n", 1), 4),
    ] {
        assert_eq!(
            Card::parse(&changed),
            Err(CardError::Line { line }),
            "{changed}"
        );
    }
    let weak = format!("asl member 1\nroot ed25519 {:064}\nnext {:064}\n", 0, 0);
    assert_eq!(Card::parse(&weak), Err(CardError::Key(KeyError::Weak)));
}

/// Every founder signs; one who does not, or a principal that did not, leaves it a draft.
#[test]
fn a_group_is_founded_by_all_its_members() {
    let (mut file, host) = found(&cards(0), &founding(Kind::Group), &mut random(1)).unwrap();
    assert_eq!(host.domain(), Some(file.domain()));
    assert_eq!(file.before().map(|node| node.key), None);
    for n in 0..3 {
        assert!(matches!(unsigned(&file), ChainError::RootPossession { .. }));
        let mut w = writer(&fresh(), 2);
        let error = admit(&mut w, &file, None).unwrap_err();
        assert!(matches!(error, Error::Draft(DraftError::Incomplete(_))));
        assert_eq!(file.sign(&held(&[root(n, 0)])).unwrap(), [root(n, 0).id()]);
        assert_eq!(
            file.sign(&held(&[root(n, 0)])).unwrap(),
            [],
            "once is enough"
        );
    }
    assert_eq!(file.verdict(), Verdict::Complete);
    let stranger = file.clone().sign(&held(&[signer(99)])).unwrap_err();
    assert!(matches!(stranger, DraftError::NotAsked));
    // One that its host did not sign.
    let mut bytes = file.clone();
    let host_id = host.signers(Role::Host).next().unwrap().id();
    bytes
        .draft
        .signatures
        .retain(|signature| crate::Signature::decode(signature).unwrap().signer != host_id);
    assert!(matches!(unsigned(&bytes), ChainError::PrincipalPossession { key } if key == host_id));

    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    admit(&mut w, &file, None).unwrap();
    assert!(admit(&mut w, &file, None).unwrap().already);
    w.finish().unwrap();
    let domain = domain_of(&vfs);
    assert_eq!(domain.id(), file.domain());
    assert!(domain.findings.is_empty());
}

#[test]
fn an_update_of_a_group_needs_its_threshold() {
    let (vfs, host) = founded(Kind::Group);
    let domain = domain_of(&vfs);
    let store = reader(&vfs);
    let mut how = Update::none(6);
    how.policy = Some(Policy {
        checkpoints: Checkpoints::AtCapture,
        ..Policy::default_of(Kind::Group)
    });
    let old = host.signers(Role::Host).next().unwrap().id();
    how.revoke = vec![Revocation {
        key: old,
        store: domain.store,
        position: LogPosition(domain.tree.size()),
        reason: Reason::Replaced,
    }];
    let (first, host) = change(&store, &domain, host, &mut random(3), &how).unwrap();
    assert_eq!(host.keys().len(), 3, "a key was drawn for the host");
    let first = DraftFile::open(&first.to_bytes()).unwrap();
    assert_eq!(first.before().unwrap().dam.version, 0);
    assert!(matches!(unsigned(&first), ChainError::RootThreshold(_)));
    // Signed apart, and put together.
    let (mut one, mut two) = (first.clone(), first.clone());
    one.sign(&held(&[root(0, 0)])).unwrap();
    two.sign(&held(&[root(1, 0)])).unwrap();
    assert!(matches!(unsigned(&one), ChainError::RootThreshold(_)));
    one.merge(&two).unwrap();
    one.merge(&two).unwrap();
    assert_eq!(one.verdict(), Verdict::Complete);
    assert_eq!(one.signed_by().len(), 3);
    // Twice the same member is one.
    let mut stuffed = first.clone();
    for _ in 0..2 {
        stuffed.draft = stuffed.draft.signed(&[root(0, 0)]);
    }
    assert!(matches!(unsigned(&stuffed), ChainError::RootThreshold(_)));
    assert!(one.before.len() > 1000 && one.to_bytes().len() > one.before.len());
    let other = DraftFile::founding(
        found(&cards(0), &founding(Kind::Group), &mut random(9))
            .unwrap()
            .0
            .draft,
    );
    assert!(matches!(
        one.merge(&other.unwrap()),
        Err(DraftError::Different)
    ));

    let mut w = writer(&vfs, 4);
    let admitted = admit(&mut w, &one, Some(&host)).unwrap();
    let dam = &admitted.domain.chain.head().dam;
    assert_eq!(dam.version, 1);
    assert!(dam.revokes(&old));
    assert!(admitted.domain.findings.is_empty());
    // Another one made at the same time comes too late.
    let mut late = Update::none(7);
    late.label = Some("late".into());
    let (mut late, _) = change(&store, &domain, held(&[]), &mut random(4), &late).unwrap();
    late.sign(&held(&[root(0, 0), root(2, 0)])).unwrap();
    let error = admit(&mut w, &late, None).unwrap_err();
    assert!(
        matches!(error, Error::Govern(GovernError::Overtaken)),
        "{error:?}"
    );
    let error = admit(&mut writer(&fresh(), 5), &late, None).unwrap_err();
    assert!(matches!(
        error,
        Error::Draft(DraftError::OtherDomain { store: None, .. })
    ));
}

/// Two phrases of three, and, as the policy of a group says, two roots.
#[test]
fn a_rotation_of_a_group_needs_its_phrases() {
    let (vfs, _) = founded(Kind::Group);
    let domain = domain_of(&vfs);
    assert_eq!(domain.chain.head().policy.recovery, Recovery::NeedsRoots);
    let store = reader(&vfs);
    let turn = Turn {
        root_threshold: Some(2),
        next_threshold: None,
        witness: None,
        despite_rivals: false,
        created_hint: 8,
    };
    // The third lost everything and joins anew.
    let mut joined = cards(1);
    joined[2] = card(&signer(90), &signer(91));
    let mut file = rotate(&store, &domain, &joined, &mut random(5), &turn).unwrap();
    assert!(matches!(unsigned(&file), ChainError::Unrevealed(_)));
    file.sign(&held(&[root(0, 1), signer(90)])).unwrap();
    assert!(matches!(unsigned(&file), ChainError::Unrevealed(_)));
    file.sign(&held(&[root(1, 1)])).unwrap();
    assert!(matches!(unsigned(&file), ChainError::RecoveryNeedsRoots(_)));
    file.sign(&held(&[root(0, 0), root(1, 0)])).unwrap();
    let mut w = writer(&vfs, 6);
    let admitted = admit(&mut w, &file, None).unwrap();
    assert_eq!(admitted.domain.chain.head().dam.rotation, 1);
    assert!(admitted.domain.chain.head().dam.is_root(&signer(90).id()));
    // With cards that reveal nothing there is no draft worth signing.
    let domain = admitted.domain;
    let again = rotate(w.handle(), &domain, &cards(1), &mut random(6), &turn);
    let again = again.unwrap();
    assert!(matches!(
        again.verdict(),
        Verdict::Unsigned(ChainError::Unrevealed(_))
    ));
}

/// The witnesses of a common domain have a say in its policy, and nobody drops them by an update.
#[test]
fn the_policy_of_a_common_domain_is_cosigned() {
    let (vfs, host) = founded(Kind::Common);
    let (domain, store) = (domain_of(&vfs), reader(&vfs));
    let mut how = Update::none(6);
    how.policy = Some(Policy {
        witnessed: Witnessed::Optional,
        ..domain.chain.head().policy
    });
    let (mut file, _) = change(&store, &domain, host, &mut random(3), &how).unwrap();
    file.sign(&held(&[root(0, 0), root(1, 0)])).unwrap();
    assert!(matches!(unsigned(&file), ChainError::PolicyCosign(_)));
    let mut watch = KeyFile::new(None);
    watch.add(Role::Witness, &signer(80).secret());
    assert_eq!(file.sign(&watch).unwrap(), [signer(80).id()]);
    assert!(matches!(unsigned(&file), ChainError::PolicyCosign(_)));
    let mut watch = KeyFile::new(None);
    watch.add(Role::Witness, &signer(81).secret());
    file.sign(&watch).unwrap();
    assert_eq!(file.verdict(), Verdict::Complete);

    // Without a change of policy they are not asked.
    let mut how = Update::none(6);
    how.label = Some("other".into());
    let (mut file, _) = change(&store, &domain, held(&[]), &mut random(3), &how).unwrap();
    assert!(matches!(file.sign(&watch), Err(DraftError::NotAsked)));
    let draft = Draft::update(&domain.chain, [1; 32], 6, |dam, _| {
        dam.witness.threshold = 1
    });
    let mut file = DraftFile::following(&store, &domain, draft.unwrap()).unwrap();
    let error = file.sign(&held(&[root(0, 0)])).unwrap_err();
    assert!(
        matches!(error, DraftError::Refused(ChainError::WitnessChanged)),
        "{error:?}"
    );
}

#[test]
fn a_draft_of_nonsense_is_not_signed() {
    let (vfs, _) = founded(Kind::Group);
    let (domain, store) = (domain_of(&vfs), reader(&vfs));
    let draft = Draft::update(&domain.chain, [1; 32], 6, |dam, _| {
        dam.next = vec![
            signer(95).public().next_digest(),
            signer(96).public().next_digest(),
        ];
    });
    let mut file = DraftFile::following(&store, &domain, draft.unwrap()).unwrap();
    let error = file.sign(&held(&[root(0, 0)])).unwrap_err();
    assert!(matches!(
        error,
        DraftError::Refused(ChainError::NextChanged)
    ));

    let mut how = Update::none(6);
    how.label = Some("other".into());
    let (file, _) = change(&store, &domain, held(&[root(0, 0)]), &mut random(3), &how).unwrap();
    let bytes = file.to_bytes();
    assert_eq!(DraftFile::open(&bytes).unwrap().to_bytes(), bytes);
    for cut in 0..bytes.len() {
        assert!(DraftFile::open(&bytes[..cut]).is_err(), "cut to {cut}");
    }
    let more = [bytes.as_slice(), b"x"].concat();
    let error = DraftFile::open(&more).unwrap_err();
    assert!(matches!(
        error,
        DraftError::Parts(ExportError::Trailing { bytes: 1 })
    ));
    let error = DraftFile::open(b"ASLEXP1\n").unwrap_err();
    assert!(matches!(error, DraftError::Magic));
    // A revocation in a store that nobody has: fine, and said.
    assert!(
        file.dam()
            .revoked
            .iter()
            .all(|of| of.store != StoreId([9; 16]))
    );
}

/// Power is cut at every operation of putting a draft into force: it is, or the same command does it.
#[test]
fn a_draft_is_admitted_or_not() {
    let (begin, host) = founded(Kind::Group);
    let (domain, store) = (domain_of(&begin), reader(&begin));
    let mut how = Update::none(6);
    how.label = Some("other".into());
    let (mut file, _) = change(&store, &domain, held(&[]), &mut random(3), &how).unwrap();
    file.sign(&held(&[root(0, 0), root(1, 0)])).unwrap();
    let run = |vfs: &FaultVfs, seed| -> Result<()> {
        let context = crate::fixture::context(seed);
        let vfs = std::sync::Arc::new(vfs.clone());
        let mut w = StoreWriter::open(vfs, context, crate::fixture::options())?;
        admit(&mut w, &file, Some(&host))?;
        w.finish()?;
        Ok(())
    };
    let whole = begin.fork();
    run(&whole, 5).unwrap();
    assert!(whole.ops() > 20);
    for n in (0..whole.ops()).step_by(3) {
        let vfs = begin.fork();
        vfs.crash_at(n);
        let done = run(&vfs, 5);
        let vfs = vfs.power_cut(match n % 2 {
            0 => CrashPolicy::LoseUnsynced,
            _ => CrashPolicy::Torn { seed: n },
        });
        assert!(
            done.is_err() || domain_of(&vfs).chain.head().dam.version == 1,
            "{n}"
        );
        run(&vfs, 6).unwrap_or_else(|error| panic!("{n}: {error:?}"));
        let domain = domain_of(&vfs);
        assert_eq!(domain.chain.head().dam.label, "other", "{n}");
        assert_eq!(domain.manifests.len(), 2, "{n}");
        let host = govern::host_of(&domain, &host);
        let differences = meta::compare(&vfs, &reader(&vfs), &domain, host).unwrap();
        assert_eq!(differences, [], "{n}");
    }
}

/// A common domain is read-only where no listed key is at hand; the others are not.
#[test]
fn a_common_domain_is_read_only_for_strangers() {
    use crate::keyfile::{PRIVATE_DIR, key_file_path};
    use crate::readonly::require_writable;
    let refused = |vfs: &FaultVfs| match require_writable(&reader(vfs)) {
        Ok(()) => false,
        Err(Error::Refused(crate::Refusal::ReadOnly)) => true,
        Err(error) => panic!("{error:?}"),
    };
    assert!(!refused(&fresh()));
    let (vfs, _) = founded(Kind::Group);
    assert!(!refused(&vfs));
    let (vfs, host) = founded(Kind::Common);
    // Admitted with the host's keys, which wrote who it is; the key file is not there.
    assert!(refused(&vfs));
    vfs.create_dir("meta/keys").ok();
    vfs.create_dir(PRIVATE_DIR).ok();
    let path = key_file_path(&domain_of(&vfs).id());
    vfs.write_file(&path, b"sealed").unwrap();
    assert!(!refused(&vfs));
    // Somebody else's host.
    let id = format!("{}\n", signer(99).id());
    vfs.write_file(meta::HOST_PATH, id.as_bytes()).unwrap();
    assert!(refused(&vfs));
    let checkpoint = host.signers(Role::Checkpoint).next().unwrap().id();
    vfs.write_file(meta::HOST_PATH, format!("{checkpoint}\n").as_bytes())
        .unwrap();
    assert!(refused(&vfs), "a checkpoint key writes nothing");
    vfs.write_file(meta::HOST_PATH, b"x").unwrap();
    assert!(refused(&vfs));
}

/// A store of each kind has the same sorts of files; what the manifests and policies in them say makes the difference. Covers L8.
#[test]
fn kinds_of_domains_look_alike_on_the_medium() {
    use crate::keyfile::key_file_path;
    use crate::keyfile::tests::Cheap;
    use std::collections::BTreeSet;
    let _cheap = Cheap::new();
    let shapes = |vfs: &FaultVfs| -> BTreeSet<String> {
        let names = vfs.files().into_iter().map(|(name, _)| name);
        let shape = |name: String| {
            let id = |part: &str| part.len() > 20 && part.chars().all(|c| c.is_alphanumeric());
            let parts = name.split_inclusive(['/', '.']).map(|part| {
                let bare = part.trim_end_matches(['/', '.']);
                if id(bare) {
                    part.replace(bare, "*")
                } else {
                    part.to_owned()
                }
            });
            let shape: String = parts.collect();
            // The first two digits of a block's digest name its directory.
            match shape.strip_prefix("blocks/sealed/") {
                Some(_) => "blocks/sealed/*".to_owned(),
                None => shape,
            }
        };
        names.map(shape).collect()
    };
    let several = |kind| {
        let (vfs, host) = founded(kind);
        let path = key_file_path(&domain_of(&vfs).id());
        host.create(&vfs, &path, "able").unwrap();
        vfs
    };
    let personal = fresh();
    let mut w = writer(&personal, 2);
    let request = mint::Request {
        label: "club".into(),
        policy: Policy::default_of(Kind::Personal),
        witness: crate::dam::Witness::NONE,
        created_hint: 5,
    };
    let plan = mint::Plan::draw(&mut random(2), &request).unwrap();
    plan.prepare(&w).unwrap();
    plan.keep_keys(&w, "able").unwrap();
    plan.found(&mut w).unwrap();
    w.finish().unwrap();
    let expected = shapes(&personal);
    assert!(expected.contains("meta/keys/priv/*.age"), "{expected:?}");
    assert_eq!(shapes(&several(Kind::Group)), expected);
    assert_eq!(shapes(&several(Kind::Common)), expected);
    let kind = |vfs: &FaultVfs| domain_of(vfs).chain.head().dam.kind;
    assert_eq!(kind(&personal), Kind::Personal);
}
