//! Minting with a crash or an error at every operation.

use std::sync::Arc;

use asl_store::vfs::fault::{CrashPolicy, FaultVfs};

use super::*;
use crate::domain::Problem;
use crate::error::Error;
use crate::fixture::{capture, context, fresh, options, reader, writer};
use crate::keyfile::tests::Cheap;
use crate::policy::Policy;

const PASSPHRASE: &str = "able-baker-charlie";

/// A stream of bytes that is another one for each seed.
fn random(seed: u8) -> impl Random {
    let mut reader = blake3::Hasher::new().update(&[seed]).finalize_xof();
    move |bytes: &mut [u8]| {
        reader.fill(bytes);
        Ok(())
    }
}

fn request() -> Request {
    Request {
        label: "attic".into(),
        policy: Policy::default_of(Kind::Personal),
        witness: Witness::NONE,
        created_hint: 5,
    }
}

/// What the command does, the phrase apart; `seed` is another one for each run of it.
fn mint(vfs: &FaultVfs, seed: u8) -> Result<DomainId> {
    let _cheap = Cheap::new();
    let mut writer = StoreWriter::open(Arc::new(vfs.clone()), context(seed), options())?;
    let plan = match begun(&writer)? {
        Begun::Unfinished(domain) => Plan::resume(&writer, &domain, PASSPHRASE)?,
        Begun::Nothing => {
            let plan = Plan::draw(&mut random(seed), &request())?;
            plan.prepare(&writer)?;
            plan.keep_keys(&writer, PASSPHRASE)?;
            plan
        }
    };
    let minted = plan.found(&mut writer)?;
    assert_eq!(minted.domain.id(), plan.domain());
    writer.finish()?;
    Ok(plan.domain())
}

fn keys(vfs: &FaultVfs, domain: &DomainId) -> KeyFile {
    KeyFile::load(vfs, &key_file_path(domain), PASSPHRASE).unwrap()
}

fn assert_minted(vfs: &FaultVfs, id: &DomainId) {
    let store = reader(vfs);
    let domain = Domain::read(&store).unwrap().unwrap();
    assert_eq!(domain.id(), *id);
    assert!(domain.findings.is_empty(), "{:?}", domain.findings);
    assert!(!domain.checkpoints.is_empty());
    let keys = keys(vfs, id);
    assert!(listed(&domain, &keys, Role::Host, Roles::PRODUCE).is_ok());
    let host = keys.signers(Role::Host).next().map(Signer::id);
    assert_eq!(meta::compare(vfs, &store, &domain, host).unwrap(), []);
    assert_eq!(pending(vfs).unwrap(), []);
}

/// Keys and a manifest as artifacts, in order. Covers K5 in part: the wizard is the command's.
#[test]
fn a_domain_is_minted_once() {
    let vfs = fresh();
    let id = mint(&vfs, 2).unwrap();
    assert_minted(&vfs, &id);
    let head = Domain::read(&reader(&vfs)).unwrap().unwrap().chain;
    assert_eq!(head.head().dam.label, "attic");
    match mint(&vfs, 3) {
        Err(Error::Mint(MintError::Exists { domain })) => assert_eq!(domain, id),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_phrase_is_of_the_next_key_and_of_no_other() {
    let plan = Plan::draw(&mut random(2), &request()).unwrap();
    let phrase = plan.phrase().unwrap();
    assert!(plan.is_recovered_by(&phrase));
    let other = Plan::draw(&mut random(3), &request()).unwrap();
    assert!(!other.is_recovered_by(&phrase));
    let next = Signer::new(&phrase.secret()).id();
    assert!(plan.keys().signer(&next).is_none(), "not in the key file");
    // Neither phrase nor seeds reach the store in the clear.
    let vfs = fresh();
    let id = mint(&vfs, 2).unwrap();
    assert_eq!(id, plan.domain());
    let mut secrets = vec![*phrase.secret().seed()];
    let held = plan.keys().keys().iter();
    secrets.extend(held.map(|key| *key.signer().secret().seed()));
    for (name, _) in vfs.files() {
        let bytes = vfs.read_file(&name).unwrap();
        for seed in &secrets {
            let text = asl_store::id::hex(seed);
            for needle in [seed.as_slice(), text.as_bytes()] {
                let found = bytes.windows(needle.len()).any(|window| window == needle);
                assert!(!found, "a secret in {name}");
            }
        }
    }
}

#[test]
fn an_interrupted_mint_wants_its_passphrase() {
    let vfs = fresh();
    let w = writer(&vfs, 2);
    let plan = Plan::draw(&mut random(2), &request()).unwrap();
    plan.prepare(&w).unwrap();
    assert_eq!(begun(&w).unwrap(), Begun::Nothing, "no key can sign yet");
    plan.keep_keys(&w, PASSPHRASE).unwrap();
    assert_eq!(begun(&w).unwrap(), Begun::Unfinished(plan.domain()));
    let error = Plan::resume(&w, &plan.domain(), "another").unwrap_err();
    assert!(matches!(
        error,
        Error::KeyFile(KeyFileError::WrongPassphrase)
    ));
    let other = Plan::draw(&mut random(3), &request()).unwrap();
    let error = other.prepare(&w).unwrap_err();
    assert!(matches!(error, Error::Mint(MintError::Unfinished { .. })));
    let path = pending_path(&plan.domain());
    let bytes = vfs.read_file(&path).unwrap();
    vfs.write_file(&path, &bytes[..40]).unwrap();
    let error = Plan::resume(&w, &plan.domain(), PASSPHRASE).unwrap_err();
    assert!(matches!(error, Error::Mint(MintError::Pending { .. })));
}

/// Power is cut at every operation: afterwards either nothing is visible, or the same command completes the same domain.
/// Covers K5 in part.
#[test]
fn a_power_cut_leaves_nothing_or_the_same_domain() {
    let begin = fresh();
    let whole = begin.fork();
    let id = mint(&whole, 2).unwrap();
    let (mut fresh_ones, mut resumed) = (0, 0);
    for n in 0..whole.ops() {
        let policy = match n % 4 {
            0 => CrashPolicy::KeepAll,
            1 => CrashPolicy::LoseUnsynced,
            2 => CrashPolicy::Torn { seed: n },
            _ => CrashPolicy::Reorder { seed: n },
        };
        let vfs = begin.fork();
        vfs.crash_at(n);
        let done = mint(&vfs, 2);
        let vfs = vfs.power_cut(policy);
        let visible = Domain::read(&reader(&vfs)).unwrap();
        let after = match mint(&vfs, 3) {
            // The cut came after the last thing that mattered.
            Err(Error::Mint(MintError::Exists { domain })) => domain,
            other => other.unwrap_or_else(|error| panic!("{error:?} after {policy:?} at {n}")),
        };
        if let Some(visible) = visible {
            assert_eq!(visible.id(), id, "after {policy:?} at {n}");
            assert_eq!(after, id, "after {policy:?} at {n}");
        }
        if after == id {
            resumed += 1;
        } else {
            fresh_ones += 1;
            assert!(done.is_err());
        }
        assert_minted(&vfs, &after);
    }
    assert!(fresh_ones > 5 && resumed > 5, "{fresh_ones}, {resumed}");
}

#[test]
fn captures_without_a_signed_receipt_get_one() {
    let vfs = fresh();
    let mut w = writer(&vfs, 9);
    let (session, root) = capture(&mut w, 50);
    w.finish().unwrap();
    let id = mint(&vfs, 2).unwrap();
    let keys = keys(&vfs, &id);
    let mut w = writer(&vfs, 3);
    let (later, later_root) = capture(&mut w, 51);
    let kind = ReceiptKind::Capture;
    let done = |session, root| Done {
        kind,
        session,
        root,
    };
    let sessions = [done(session, root), done(later, later_root)];
    let first = attest(&mut w, &keys, &sessions[..1]).unwrap();
    assert!(matches!(first[..], [Attested::Signed { .. }]));
    let unknown = done(SessionId([99; 16]), root);
    let all = [sessions[0], sessions[1], unknown];
    match attest(&mut w, &keys, &all).unwrap()[..] {
        [
            Attested::Already { .. },
            Attested::Signed { .. },
            Attested::NotInLog,
        ] => {}
        ref other => panic!("{other:?}"),
    }
    let made = checkpoint(&mut w, &keys).unwrap();
    assert!(matches!(made, Checkpointed::Made { .. }));
    let again = checkpoint(&mut w, &keys).unwrap();
    assert!(matches!(again, Checkpointed::Current(_)));
    let domain = Domain::read(w.handle()).unwrap().unwrap();
    assert!(domain.findings.is_empty(), "{:?}", domain.findings);
    for done in sessions {
        let state = domain.receipt(done.session, done.root).unwrap();
        assert_eq!(state.signers.len(), 1);
        assert!(state.record.0 < domain.covered());
    }
}

#[test]
fn only_listed_keys_of_this_domain_sign() {
    let vfs = fresh();
    let id = mint(&vfs, 2).unwrap();
    let keys = keys(&vfs, &id);
    let other = Plan::draw(&mut random(3), &request()).unwrap();
    let mut w = writer(&vfs, 4);
    let error = checkpoint(&mut w, other.keys()).unwrap_err();
    assert!(matches!(
        error,
        Error::KeyFile(KeyFileError::OtherDomain { .. })
    ));
    let mut unlisted = KeyFile::new(Some(id));
    unlisted.add(
        Role::Host,
        &Signer::generate(&mut random(7)).unwrap().secret(),
    );
    let error = attest(&mut w, &unlisted, &[]).unwrap_err();
    assert!(matches!(error, Error::Mint(MintError::NotListedYet { .. })));
    let none = KeyFile::new(Some(id));
    let error = attest(&mut w, &none, &[]).unwrap_err();
    assert!(matches!(error, Error::Mint(MintError::NoKey { .. })));
    // A manifest that nobody can read may revoke any key.
    let lost = put(&mut w, &b"ASLDAM1\n".repeat(10_000)).unwrap();
    w.authority(Authority::Dam, &[lost]).unwrap();
    let domain = Domain::read(w.handle()).unwrap().unwrap();
    assert!(matches!(
        domain.findings[0].problem,
        Problem::TooLong { .. }
    ));
    let error = checkpoint(&mut w, &keys).unwrap_err();
    assert!(matches!(error, Error::Mint(MintError::Blind)));
    let empty = fresh();
    let mut w = writer(&empty, 4);
    let error = checkpoint(&mut w, &keys).unwrap_err();
    assert!(matches!(error, Error::Mint(MintError::NoDomain)));
}
