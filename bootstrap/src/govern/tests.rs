//! What each change does, what refuses it, and a crash or an error at every operation.

use std::sync::Arc;

use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs};
use asl_store::{SessionId, StoreId};

use super::*;
use crate::chain::ChainError;
use crate::dam::{Reason, Revocation};
use crate::domain::Problem;
use crate::fixture::{capture, context, fresh, options, publish, reader, signer, writer};
use crate::keyfile::tests::Cheap;
use crate::mint::{Done, Request, attest};
use crate::policy::{Checkpoints, Policy};
use crate::receipt::ReceiptKind;
use crate::{AuthorError, Random};

const PASSPHRASE: &str = "able-baker-charlie";
/// A key file that was cut short.
const DAMAGED: &[u8] = b"age-encryption.org/v1\n";

fn random(seed: u8) -> impl Random {
    let mut reader = blake3::Hasher::new().update(&[seed]).finalize_xof();
    move |bytes: &mut [u8]| {
        reader.fill(bytes);
        Ok(())
    }
}

/// A store with a domain, one signed capture, and the phrase.
pub(super) fn minted() -> (FaultVfs, DomainId, Phrase) {
    let _cheap = Cheap::new();
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    let request = Request {
        label: "attic".into(),
        policy: Policy::default_of(Kind::Personal),
        witness: crate::dam::Witness::NONE,
        created_hint: 5,
    };
    let plan = mint::Plan::draw(&mut random(2), &request).unwrap();
    plan.prepare(&w).unwrap();
    let phrase = plan.phrase().unwrap();
    plan.keep_keys(&w, PASSPHRASE).unwrap();
    plan.found(&mut w).unwrap();
    let (session, root) = capture(&mut w, 50);
    attest(&mut w, plan.keys(), &[done(session, root)]).unwrap();
    mint::checkpoint(&mut w, plan.keys()).unwrap();
    w.finish().unwrap();
    (vfs, plan.domain(), phrase)
}

thread_local! {
    static MINTED: (FaultVfs, DomainId, Phrase) = minted();
}

/// As [`minted`], but made only once: for many short histories.
pub(super) fn minted_once() -> (FaultVfs, DomainId, Phrase) {
    MINTED.with(|(vfs, id, phrase)| (vfs.fork(), *id, copy(phrase)))
}

fn done(session: SessionId, root: Key) -> Done {
    Done {
        kind: ReceiptKind::Capture,
        session,
        root,
    }
}

fn open(vfs: &FaultVfs, seed: u8) -> Result<StoreWriter> {
    let writer = StoreWriter::open(Arc::new(vfs.clone()), context(seed), options())?;
    Ok(writer)
}

pub(super) fn domain_of(vfs: &FaultVfs) -> Domain {
    Domain::read(&reader(vfs)).unwrap().unwrap()
}

pub(super) fn keys_of(vfs: &FaultVfs, domain: &DomainId) -> KeyFile {
    match Held::look(vfs, domain, PASSPHRASE) {
        Held::Open(keys) => keys,
        other => panic!("{other:?}"),
    }
}

/// A phrase, copied: paper is.
pub(super) fn copy(phrase: &Phrase) -> Phrase {
    Phrase::from_secret(&phrase.secret())
}

/// What `asl domain rotate` does. `paper` is the file for the new phrase.
pub(super) fn rotate(
    vfs: &FaultVfs,
    seed: u8,
    phrase: Option<&Phrase>,
    paper: &mut Option<Phrase>,
    how: &Rotation,
) -> Result<Governed> {
    let _cheap = Cheap::new();
    let mut w = open(vfs, seed)?;
    let domain = read(&mut w)?;
    let held = Held::look(vfs, &domain.id(), PASSPHRASE);
    let closed = matches!(held, Held::Closed(_));
    let keys = match held {
        Held::Open(keys) => keys,
        Held::Missing | Held::Closed(_) if how.hosts != Hosts::Keep => {
            KeyFile::new(Some(domain.id()))
        }
        Held::Missing => panic!("the key file is gone"),
        Held::Closed(error) => return Err(error.into()),
    };
    let plan = match Plan::resume(&w, &domain, keys)? {
        Resumed::Change(plan) => *plan,
        Resumed::Nothing(keys) => {
            let none = GovernError::Phrase { spent: false };
            let phrase = phrase.ok_or(none)?;
            let drawn = match paper {
                Some(paper) if was_drawn(vfs, &domain, phrase, paper)? => Some(paper.secret()),
                _ => None,
            };
            let plan = Plan::rotate(&domain, keys, phrase, drawn, &mut random(seed), how)?;
            plan.prepare(&w)?;
            *paper = plan.phrase();
            match closed {
                false => plan.keep_keys(&w, PASSPHRASE)?,
                true => drop(plan.keep_keys_beside(&w, PASSPHRASE)?),
            }
            plan
        }
    };
    let governed = plan.commit(&mut w, PASSPHRASE)?;
    w.finish()?;
    Ok(governed)
}

/// What `asl domain revoke` and `policy` do.
pub(super) fn update(vfs: &FaultVfs, seed: u8, how: &Update) -> Result<Governed> {
    let _cheap = Cheap::new();
    let mut w = open(vfs, seed)?;
    let domain = read(&mut w)?;
    let keys = match Held::look(vfs, &domain.id(), PASSPHRASE) {
        Held::Open(keys) => keys,
        other => panic!("{other:?}"),
    };
    let (domain, keys) = match Plan::resume(&w, &domain, keys)? {
        Resumed::Change(plan) => {
            let governed = plan.commit(&mut w, PASSPHRASE)?;
            let keys = keys_of(vfs, &domain.id());
            (governed.domain, keys)
        }
        Resumed::Nothing(keys) => (domain, keys),
    };
    let plan = Plan::update(&domain, keys, &mut random(seed), how)?;
    plan.prepare(&w)?;
    plan.keep_keys(&w, PASSPHRASE)?;
    let governed = plan.commit(&mut w, PASSPHRASE)?;
    w.finish()?;
    Ok(governed)
}

fn revocation(key: KeyId, store: StoreId, position: u64) -> Revocation {
    Revocation {
        key,
        store,
        position: LogPosition(position),
        reason: Reason::Compromised,
    }
}

/// A domain with nothing left to do: what a change is to end with, crash or not.
fn assert_settled(vfs: &FaultVfs, what: &str) -> Domain {
    let domain = domain_of(vfs);
    assert!(domain.findings.is_empty(), "{what}: {:?}", domain.findings);
    let dam = &domain.chain.head().dam;
    let keys = keys_of(vfs, &domain.id());
    for entry in keys.keys() {
        let id = entry.signer().id();
        let listed = dam.is_root(&id) || dam.principal(&id).is_some();
        assert!(listed, "{what}: {:?} stayed", entry.role);
    }
    assert!(keys.signers(Role::Root).count() == 1, "{what}");
    let checkpoint = domain.checkpoints.last().unwrap();
    let head = domain.manifests[&domain.chain.head_key()];
    assert!(checkpoint.size > head.0, "{what}: the head is not covered");
    let listed = |id: &KeyId| dam.has_role(id, Roles::CHECKPOINT);
    assert!(checkpoint.signers.iter().any(listed), "{what}");
    let host = host_of(&domain, &keys);
    assert!(host.is_some(), "{what}");
    let store = reader(vfs);
    let differences = meta::compare(vfs, &store, &domain, host).unwrap();
    assert_eq!(differences, [], "{what}");
    let pending = vfs.read_file(&pending::path(&domain.id()));
    assert!(pending.is_err(), "{what}: the pending manifest stayed");
    domain
}

#[test]
fn a_rotation_takes_the_phrase_and_gives_another() {
    let (vfs, id, phrase) = minted();
    let root = keys_of(&vfs, &id).signers(Role::Root).next().unwrap().id();
    let mut paper = None;
    let plain = Rotation::plain(7);
    let governed = rotate(&vfs, 3, Some(&phrase), &mut paper, &plain).unwrap();
    assert_eq!(governed.left, [root]);
    let domain = assert_settled(&vfs, "rotated");
    let dam = &domain.chain.head().dam;
    assert_eq!((dam.version, dam.rotation, dam.created_hint), (1, 1, 7));
    assert_eq!(dam.principals.len(), 2);
    assert!(dam.is_root(&Signer::new(&phrase.secret()).id()));
    let anchor = dam.anchor.unwrap();
    assert_eq!(anchor.store, domain.store);
    assert!(anchor.position < domain.manifests[&domain.chain.head_key()]);
    assert!(anchor.position > domain.receipts[0].record);
    assert!(domain.receipts[0].signers.len() == 1, "it counts as before");
    // The phrase is used up; the new one is good.
    let error = rotate(&vfs, 4, Some(&phrase), &mut None, &plain).unwrap_err();
    let spent = matches!(error, Error::Govern(GovernError::Phrase { spent: true }));
    assert!(spent, "{error:?}");
    let other = Phrase::from_secret(&signer(77).secret());
    let error = rotate(&vfs, 4, Some(&other), &mut None, &plain).unwrap_err();
    let spent = matches!(error, Error::Govern(GovernError::Phrase { spent: false }));
    assert!(spent, "{error:?}");
    let second = copy(paper.as_ref().unwrap());
    rotate(&vfs, 5, Some(&second), &mut paper, &plain).unwrap();
    let domain = assert_settled(&vfs, "rotated again");
    assert_eq!(domain.chain.head().dam.rotation, 2);
}

#[test]
fn a_rotation_can_void_what_a_thief_signed() {
    let (vfs, id, phrase) = minted();
    let stolen = keys_of(&vfs, &id);
    let host = stolen.signers(Role::Host).next().unwrap().id();
    let mut theft = Update::none(6);
    theft.label = Some("mine now".into());
    theft.unlist.push(host);
    update(&vfs, 3, &theft).unwrap();
    let before = domain_of(&vfs);
    let genesis = before.chain.path().next().unwrap().key;
    let how = Rotation {
        from: Some(genesis),
        ..Rotation::plain(7)
    };
    let mut w = open(&vfs, 4).unwrap();
    let domain = read(&mut w).unwrap();
    let plan = Plan::rotate(&domain, stolen, &phrase, None, &mut random(4), &how).unwrap();
    assert_eq!(plan.voids(), [before.chain.head_key()]);
    drop(w);
    rotate(&vfs, 4, Some(&phrase), &mut None, &how).unwrap();
    let dam = domain_of(&vfs).chain.head().dam.clone();
    assert_eq!((dam.label.as_str(), dam.version), ("attic", 1));
    assert!(dam.has_role(&host, Roles::PRODUCE));
}

/// With the key file gone, cut short or locked, the phrase is enough, and the file that was there is kept.
#[test]
fn the_phrase_alone_recovers() {
    for (what, shape) in ["missing", "cut", "locked"].into_iter().zip(0..) {
        let (vfs, id, phrase) = minted();
        let path = key_file_path(&id);
        let old = keys_of(&vfs, &id);
        let old_ids: Vec<KeyId> = old.keys().iter().map(|key| key.signer().id()).collect();
        let mut found = vfs.read_file(&path).unwrap();
        match shape {
            0 => vfs.remove_file(&path).unwrap(),
            1 => found.truncate(90),
            _ => {
                let _cheap = Cheap::new();
                found = old.seal("nobody knows this one").unwrap();
            }
        }
        if shape > 0 {
            vfs.write_file(&path, &found).unwrap();
        }
        let before = domain_of(&vfs);
        let from = before.receipts[0].record.0;
        let how = Rotation {
            revoke: vec![revocation(old_ids[1], before.store, from)],
            ..Rotation::recovery(8)
        };
        let mut paper = None;
        rotate(&vfs, 3, Some(&phrase), &mut paper, &how).unwrap();
        let domain = domain_of(&vfs);
        let dam = &domain.chain.head().dam;
        assert_eq!(dam.principals.len(), 2, "{what}");
        for id in &old_ids {
            assert!(!dam.is_root(id) && dam.principal(id).is_none(), "{what}");
        }
        assert!(dam.revokes(&old_ids[1]));
        assert!(
            domain.receipts[0].signers.is_empty(),
            "{what}: revoked from there on"
        );
        assert_eq!(
            domain.checkpoints.len(),
            3,
            "{what}: the old checkpoints count"
        );
        let keys = keys_of(&vfs, &id);
        assert_eq!(keys.keys().len(), 3, "{what}");
        let kept = format!("{PRIVATE_DIR}/{id}.unopened-1.age");
        match shape {
            0 => assert!(vfs.read_file(&kept).is_err()),
            _ => assert_eq!(vfs.read_file(&kept).unwrap(), found, "{what}"),
        }
        // A second loss gets another name.
        if shape > 0 {
            vfs.write_file(&path, b"").unwrap();
            let second = copy(paper.as_ref().unwrap());
            let how = Rotation::recovery(9);
            rotate(&vfs, 4, Some(&second), &mut paper, &how).unwrap();
            assert_eq!(vfs.read_file(&kept).unwrap(), found, "{what}");
            let kept = format!("{PRIVATE_DIR}/{id}.unopened-2.age");
            assert_eq!(vfs.read_file(&kept).unwrap(), b"", "{what}");
        }
    }
}

#[test]
fn a_revoked_key_of_this_host_is_replaced_at_once() {
    for (role, bit) in [
        (Role::Host, Roles::PRODUCE),
        (Role::Checkpoint, Roles::CHECKPOINT),
    ] {
        let (vfs, id, _) = minted();
        let old = keys_of(&vfs, &id).signers(role).next().unwrap().id();
        let before = domain_of(&vfs);
        let mut how = Update::none(6);
        how.revoke = vec![revocation(old, before.store, before.tree.size())];
        let governed = update(&vfs, 3, &how).unwrap();
        assert_eq!(governed.left, [old]);
        let domain = assert_settled(&vfs, "revoked");
        let dam = &domain.chain.head().dam;
        let keys = keys_of(&vfs, &id);
        let new = keys.signers(role).next().unwrap().id();
        assert_ne!(new, old);
        assert!(dam.has_role(&new, bit) && dam.revokes(&old));
        assert_eq!(domain.receipts[0].signers.len(), 1, "it was before");
        assert_eq!(domain.checkpoints.len(), 3, "so were they");
        // Again, it is said already; earlier is more.
        let error = update(&vfs, 4, &how).unwrap_err();
        assert!(
            matches!(error, Error::Govern(GovernError::Nothing)),
            "{error:?}"
        );
        how.revoke[0].position = LogPosition(0);
        update(&vfs, 5, &how).unwrap();
        let counted = domain_of(&vfs).receipts[0].signers.len();
        assert_eq!(counted, usize::from(role != Role::Host));
    }
}

#[test]
fn updates_change_what_they_may() {
    let (vfs, id, _) = minted();
    let keys = keys_of(&vfs, &id);
    let (root, host) = (
        keys.signers(Role::Root).next().unwrap().id(),
        keys.signers(Role::Host).next().unwrap().id(),
    );
    let mut how = Update::none(6);
    let error = update(&vfs, 3, &how).unwrap_err();
    assert!(matches!(error, Error::Govern(GovernError::Nothing)));
    how.revoke = vec![revocation(root, StoreId([1; 16]), 0)];
    let error = update(&vfs, 3, &how).unwrap_err();
    assert!(matches!(error, Error::Govern(GovernError::Root { key }) if key == root));
    how.revoke.clear();
    how.unlist = vec![root];
    let error = update(&vfs, 3, &how).unwrap_err();
    assert!(matches!(error, Error::Govern(GovernError::NotListed { key }) if key == root));
    how.unlist = vec![host];
    how.label = Some("cellar".into());
    let policy = Policy {
        checkpoints: Checkpoints::AtCapture,
        ..Policy::default_of(Kind::Personal)
    };
    how.policy = Some(policy);
    how.draw = vec![(Role::Host, Roles::PRODUCE | Roles::AUDIT)];
    update(&vfs, 3, &how).unwrap();
    let domain = assert_settled(&vfs, "updated");
    let head = domain.chain.head();
    assert_eq!(head.dam.label, "cellar");
    assert_eq!(head.policy, policy);
    assert_eq!(head.dam.rotation, 0);
    let audits = head
        .dam
        .principals
        .iter()
        .filter(|p| p.roles.contains(Roles::AUDIT));
    assert_eq!(audits.count(), 1);
    // Somebody else's key has to sign itself.
    let mut how = Update::none(7);
    how.list = vec![crate::dam::Principal {
        key: signer(60).public(),
        roles: Roles::PRODUCE,
    }];
    let error = update(&vfs, 4, &how).unwrap_err();
    let refused = matches!(
        &error,
        Error::Author(AuthorError::Chain(ChainError::PrincipalPossession { key }))
            if *key == signer(60).id()
    );
    assert!(refused, "{error:?}");
}

/// A second update is settled by a rotation, a second rotation by nothing.
#[test]
fn nothing_is_added_to_one_of_two_histories_unasked() {
    let (vfs, id, phrase) = minted();
    let stolen = keys_of(&vfs, &id);
    let before = domain_of(&vfs);
    let mut how = Update::none(6);
    how.label = Some("cellar".into());
    update(&vfs, 3, &how).unwrap();
    let thief = Draft::update(&before.chain, [3; 32], 6, |dam, _| dam.label = "x".into());
    let mut w = writer(&vfs, 4);
    publish(&mut w, &thief.unwrap().signed(stolen.signers(Role::Root)));
    w.finish().unwrap();
    how.label = Some("shed".into());
    let error = update(&vfs, 5, &how).unwrap_err();
    let settles = matches!(
        error,
        Error::Govern(GovernError::Forked { settles: true, .. })
    );
    assert!(settles, "{error:?}");
    let mut paper = None;
    rotate(&vfs, 5, Some(&phrase), &mut paper, &Rotation::plain(7)).unwrap();
    update(&vfs, 6, &how).unwrap();

    // The thief of the new root has what genesis committed to.
    let stolen = keys_of(&vfs, &id);
    let genesis = before.chain.head_key();
    let rival = Draft::rotation(&before.chain, genesis, [4; 32], 7, |dam, _| {
        dam.roots = vec![
            signer(80).public(),
            stolen.signers(Role::Root).next().unwrap().public(),
        ];
        dam.next = vec![signer(81).public().next_digest()];
    });
    let mut w = writer(&vfs, 7);
    let rival = rival.unwrap().signed([&signer(80)]);
    publish(&mut w, &rival.signed(stolen.signers(Role::Root)));
    w.finish().unwrap();
    how.label = Some("attic".into());
    let error = update(&vfs, 8, &how).unwrap_err();
    let settles = matches!(
        error,
        Error::Govern(GovernError::Forked { settles: false, .. })
    );
    assert!(settles, "{error:?}");
    let second = copy(paper.as_ref().unwrap());
    let plain = Rotation::plain(8);
    let error = rotate(&vfs, 8, Some(&second), &mut paper, &plain).unwrap_err();
    assert!(matches!(error, Error::Govern(GovernError::Forked { .. })));
    let despite = Rotation {
        despite_rivals: true,
        ..plain
    };
    rotate(&vfs, 8, Some(&second), &mut paper, &despite).unwrap();
    how.despite_rivals = true;
    update(&vfs, 9, &how).unwrap();
    assert_eq!(domain_of(&vfs).chain.head().dam.label, "attic");
}

#[test]
fn nothing_is_signed_while_a_manifest_cannot_be_read() {
    let (vfs, _, phrase) = minted();
    let mut w = writer(&vfs, 4);
    let lost = mint::put(&mut w, &b"ASLDAM1\n".repeat(10_000)).unwrap();
    w.authority(Authority::Dam, &[lost]).unwrap();
    w.finish().unwrap();
    assert!(matches!(
        domain_of(&vfs).findings[0].problem,
        Problem::TooLong { .. }
    ));
    let error = rotate(&vfs, 5, Some(&phrase), &mut None, &Rotation::plain(7)).unwrap_err();
    assert!(matches!(error, Error::Mint(MintError::Blind)));
}

/// Who has the medium, but no key, writes the manifest of step 1 as he likes: the root signs nothing of it.
#[test]
fn a_planted_manifest_is_not_signed() {
    let (vfs, id, phrase) = minted();
    let domain = domain_of(&vfs);
    let planted = Draft::update(&domain.chain, [1; 32], 6, |dam, _| dam.label = "x".into());
    let planted = planted.unwrap();
    pending::keep(&vfs, &planted, &signer(90)).unwrap();
    let w = writer(&vfs, 3);
    let resumed = Plan::resume(&w, &domain, keys_of(&vfs, &id)).unwrap();
    assert!(matches!(resumed, Resumed::Nothing(_)));
    drop(w);
    // The true one with one byte changed.
    let keys = keys_of(&vfs, &id);
    pending::keep(&vfs, &planted, keys.signers(Role::Root).next().unwrap()).unwrap();
    let path = pending::path(&id);
    let whole = vfs.read_file(&path).unwrap();
    let w = writer(&vfs, 4);
    let resumed = Plan::resume(&w, &domain, keys_of(&vfs, &id)).unwrap();
    assert!(
        matches!(resumed, Resumed::Change(_)),
        "the root made this one"
    );
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        vfs.write_file(&path, &bytes).unwrap();
        let found = pending::find(&vfs, &id, &keys).unwrap();
        assert!(found.is_none(), "byte {at}");
        vfs.write_file(&path, &whole[..at]).unwrap();
        assert!(
            pending::find(&vfs, &id, &keys).unwrap().is_none(),
            "cut to {at}"
        );
    }
    // Neither is a phrase of somebody else's taken for the one that was drawn.
    let next = Phrase::from_secret(&signer(91).secret());
    assert!(!was_drawn(&vfs, &domain, &phrase, &next).unwrap());
}

/// Secrets are in the key file only, and there encrypted.
#[test]
fn no_secret_reaches_the_medium_in_the_clear() {
    let (vfs, id, phrase) = minted();
    let mut paper = None;
    let how = Rotation {
        hosts: Hosts::Fresh,
        ..Rotation::plain(7)
    };
    rotate(&vfs, 3, Some(&phrase), &mut paper, &how).unwrap();
    let mut secrets = vec![phrase.secret(), paper.unwrap().secret()];
    let keys = keys_of(&vfs, &id);
    secrets.extend(keys.keys().iter().map(|key| key.signer().secret()));
    assert_eq!(secrets.len(), 5);
    for (name, _) in vfs.files() {
        let bytes = vfs.read_file(&name).unwrap();
        for secret in &secrets {
            let text = asl_store::id::hex(secret.seed());
            for needle in [secret.seed().as_slice(), text.as_bytes()] {
                let found = bytes.windows(needle.len()).any(|window| window == needle);
                assert!(!found, "a secret in {name}");
            }
        }
    }
}

/// Every so many operations; all of them where time does not matter.
fn stride() -> usize {
    match std::env::var_os("ASL_TEST_ALL") {
        Some(_) => 1,
        None => 5,
    }
}

fn power(n: u64) -> CrashPolicy {
    match n / 5 % 4 {
        0 => CrashPolicy::KeepAll,
        1 => CrashPolicy::LoseUnsynced,
        2 => CrashPolicy::Torn { seed: n },
        _ => CrashPolicy::Reorder { seed: n },
    }
}

/// Operations of `change` on `vfs`, at each of which something may happen.
fn moments(vfs: &FaultVfs, change: impl FnOnce(&FaultVfs)) -> impl Iterator<Item = u64> {
    let whole = vfs.fork();
    change(&whole);
    assert!(whole.ops() > 40);
    (0..whole.ops()).step_by(stride())
}

/// Whether some phrase at hand is one that the manifest in force commits to.
fn recoverable(vfs: &FaultVfs, phrases: &[Option<&Phrase>]) -> bool {
    let domain = domain_of(vfs);
    let next = &domain.chain.head().dam.next;
    let committed = |phrase: &&Phrase| {
        let digest = Signer::new(&phrase.secret()).public().next_digest();
        next.contains(&digest)
    };
    phrases.iter().flatten().any(committed)
}

/// The power goes, or one operation fails, at every moment of a rotation and of a recovery: a phrase at hand always recovers what
/// is in force, and the same command ends as if nothing had happened; without the phrase, once the keys are kept.
#[test]
fn an_interrupted_rotation_goes_on() {
    let (begin, _, phrase) = minted();
    let damaged = begin.fork();
    let path = key_file_path(&domain_of(&begin).id());
    damaged.write_file(&path, DAMAGED).unwrap();
    let plain = Rotation {
        hosts: Hosts::Fresh,
        ..Rotation::plain(7)
    };
    let recovery = Rotation::recovery(7);
    for (begin, how) in [(&begin, &plain), (&damaged, &recovery)] {
        let whole = moments(begin, |vfs| {
            rotate(vfs, 3, Some(&phrase), &mut None, how).unwrap();
        });
        let (mut without, mut anew, mut complete) = (0, 0, 0);
        for (n, fails) in whole.flat_map(|n| [(n, false), (n, true)]) {
            let mut paper = None;
            let mut vfs = begin.fork();
            match fails {
                true => vfs.fail_op(n, 28, FailMode::Once),
                false => vfs.crash_at(n),
            }
            let done = rotate(&vfs, 3, Some(&phrase), &mut paper, how);
            vfs = match fails {
                true => vfs,
                false => vfs.power_cut(power(n)),
            };
            let what = format!("{how:?} at {n}, {fails}: {:?}", done.as_ref().err());
            assert!(
                recoverable(&vfs, &[Some(&phrase), paper.as_ref()]),
                "{what}"
            );
            let rotated = domain_of(&vfs).chain.head().dam.rotation == 1;
            if rotated {
                let paper = [paper.as_ref()];
                assert!(recoverable(&vfs, &paper), "{what}: the new phrase is lost");
            }
            if how.hosts == Hosts::Only {
                let names = vfs.files().into_iter().map(|(name, _)| name);
                let kept = names.filter(|name| name.starts_with(PRIVATE_DIR));
                let mut kept = kept.map(|name| vfs.read_file(&name).unwrap());
                assert!(
                    kept.any(|bytes| bytes == DAMAGED),
                    "{what}: the old key file"
                );
            }
            match rotate(&vfs, 4, None, &mut paper, how) {
                Ok(_) => without += 1,
                Err(_) => match rotate(&vfs, 5, Some(&phrase), &mut paper, how) {
                    Ok(_) => anew += 1,
                    Err(Error::Govern(GovernError::Phrase { spent: true })) => complete += 1,
                    Err(error) => panic!("{what}: {error:?}"),
                },
            }
            let domain = assert_settled(&vfs, &what);
            assert_eq!(domain.chain.head().dam.rotation, 1, "{what}");
            assert!(recoverable(&vfs, &[paper.as_ref()]), "{what}");
        }
        let seen = format!("{without} without the phrase, {anew} anew, {complete} complete");
        assert!(without > 3 && anew > 3 && complete > 0, "{how:?}: {seen}");
    }
}

/// The same of an update that replaces a key: no key that is listed is ever missing.
#[test]
fn an_interrupted_revocation_goes_on() {
    let (begin, id, _) = minted();
    let before = domain_of(&begin);
    let old = keys_of(&begin, &id)
        .signers(Role::Host)
        .next()
        .unwrap()
        .id();
    let mut how = Update::none(6);
    how.revoke = vec![revocation(old, before.store, before.tree.size())];
    let whole = moments(&begin, |vfs| {
        update(vfs, 3, &how).unwrap();
    });
    for (n, fails) in whole.flat_map(|n| [(n, false), (n, true)]) {
        let mut vfs = begin.fork();
        match fails {
            true => vfs.fail_op(n, 5, FailMode::Once),
            false => vfs.crash_at(n),
        }
        let done = update(&vfs, 3, &how);
        vfs = match fails {
            true => vfs,
            false => vfs.power_cut(power(n)),
        };
        let what = format!("at {n}, {fails}: {:?}", done.err());
        let keys = keys_of(&vfs, &id);
        let domain = domain_of(&vfs);
        let head = &domain.chain.head().dam;
        for principal in &head.principals {
            let held = keys.signer(&principal.key.id());
            assert!(held.is_some(), "{what}: a listed key is nowhere");
        }
        match update(&vfs, 4, &how) {
            Ok(_) | Err(Error::Govern(GovernError::Nothing)) => {}
            Err(error) => panic!("{what}: {error:?}"),
        }
        let domain = assert_settled(&vfs, &what);
        assert_eq!(domain.chain.head().dam.version, 1, "{what}");
        assert_eq!(keys_of(&vfs, &id).keys().len(), 3, "{what}");
    }
}
