//! A second machine gets keys of its own, signs with them, loses them again; and a crash or an error wherever it is granted.

use std::sync::Arc;

use asl_store::sync::{SyncOptions, sync};
use asl_store::vfs::Vfs;
use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs};
use asl_store::{Home, LogPosition, StoreWriter};

use super::super::tests::{domain_of, keys_of, minted_once};
use super::super::{Held, Resumed, Update, read};
use super::*;
use crate::beside::{self, History, beside};
use crate::dam::{Reason, Revocation, Roles};
use crate::error::Error;
use crate::fixture::{capture, context, options};
use crate::host::{listed, this_host};
use crate::id::DomainId;
use crate::keyfile::tests::Cheap;
use crate::keyfile::{PRIVATE_DIR, Role, key_file_path};
use crate::mint::{Attested, Done, MintError, attest, checkpoint};
use crate::receipt::ReceiptKind;
use crate::{GovernError, Signer, carry, meta};

const PASSPHRASE: &str = "able-baker-charlie";

fn random(seed: u8) -> impl Random {
    let mut reader = blake3::Hasher::new().update(&[seed]).finalize_xof();
    move |bytes: &mut [u8]| {
        reader.fill(bytes);
        Ok(())
    }
}

/// A writer at a place, with what other instances say of the domain taken over.
fn at(vfs: &FaultVfs, seed: u8, place: &str) -> StoreWriter {
    open_at(vfs, seed, place).unwrap()
}

fn open_at(vfs: &FaultVfs, seed: u8, place: &str) -> Result<StoreWriter> {
    let context = asl_store::Context {
        home: Home::new(place),
        ..context(seed)
    };
    let mut writer = StoreWriter::open(Arc::new(vfs.clone()), context, options())?;
    carry::carry(&mut writer)?;
    Ok(writer)
}

/// The machine with the root, and a copy without its keys, on another filesystem.
fn machines() -> (FaultVfs, FaultVfs, DomainId) {
    let (first, id, _) = minted_once();
    at(&first, 30, "attic").finish().unwrap();
    let second = first.fork();
    second.remove(&key_file_path(&id)).unwrap();
    second.sync_dir(PRIVATE_DIR).unwrap();
    (first, second, id)
}

/// Brings what `from` has to `into`, which is at a place.
fn meet(into: &FaultVfs, place: &str, from: &FaultVfs, seed: u8) {
    let vfs = |vfs: &FaultVfs| -> Arc<dyn Vfs> { Arc::new(vfs.clone()) };
    let context = asl_store::Context {
        home: Home::new(place),
        ..context(seed)
    };
    sync(
        &vfs(into),
        &vfs(from),
        &context,
        &SyncOptions::default(),
        &(),
    )
    .unwrap();
}

fn own(w: &StoreWriter) -> Domain {
    Domain::read(w.handle()).unwrap().unwrap()
}

/// What `asl domain host request` does.
fn requested(vfs: &FaultVfs, seed: u8, name: &str) -> Result<Request> {
    let _cheap = Cheap::new();
    let mut w = open_at(vfs, seed, "cellar")?;
    let domain = read(&mut w)?;
    let id = domain.id();
    let mut keys = match Held::look(vfs, &id, PASSPHRASE) {
        Held::Open(keys) => keys,
        Held::Missing => KeyFile::new(Some(id)),
        Held::Closed(error) => return Err(error.into()),
    };
    let asked = ask(&domain, &mut keys, &mut random(seed), name)?;
    if asked.drew {
        keys.replace(vfs, &key_file_path(&id), PASSPHRASE)?;
    }
    let host = keys.signers(Role::Host).last().map(Signer::id);
    meta::materialise(vfs, w.handle(), &domain, host)?;
    w.finish()?;
    Ok(asked.request)
}

/// What `asl domain host add` does.
fn granted(vfs: &FaultVfs, seed: u8, request: &Request) -> Result<Domain> {
    let _cheap = Cheap::new();
    let mut w = StoreWriter::open(Arc::new(vfs.clone()), context(seed), options())?;
    let mut domain = read(&mut w)?;
    let id = domain.id();
    let Held::Open(mut keys) = Held::look(vfs, &id, PASSPHRASE) else {
        panic!("the key file cannot be opened");
    };
    match Plan::resume(&w, &domain, keys)? {
        Resumed::Change(plan) => {
            domain = plan.commit(&mut w, PASSPHRASE)?.domain;
            keys = keys_of(vfs, &id);
        }
        Resumed::Nothing(again) => keys = again,
    }
    if request.asked.granted(&domain.chain).is_none() {
        let plan = Plan::grant(&domain, keys, request, false)?;
        plan.prepare(&w)?;
        plan.keep_keys(&w, PASSPHRASE)?;
        domain = plan.commit(&mut w, PASSPHRASE)?.domain;
    }
    w.finish()?;
    Ok(domain)
}

/// A capture on the second machine, attested with the keys that are there.
fn signs(vfs: &FaultVfs, seed: u8, n: u8) -> Result<Vec<Attested>> {
    let _cheap = Cheap::new();
    let mut w = at(vfs, seed, "cellar");
    let id = own(&w).id();
    let (session, root) = capture(&mut w, n);
    let keys = keys_of(vfs, &id);
    let done = Done {
        kind: ReceiptKind::Capture,
        session,
        root,
    };
    let attested = attest(&mut w, &keys, &[done]);
    let signed = attested.and_then(|attested| checkpoint(&mut w, &keys).map(|_| attested));
    w.finish()?;
    signed
}

#[test]
fn asking_again_asks_for_the_same() {
    let (_, second, id) = machines();
    let request = requested(&second, 31, "cellar").unwrap();
    let file = second.read_file(&key_file_path(&id)).unwrap();
    // Other random numbers: no others are drawn.
    assert_eq!(requested(&second, 32, "cellar").unwrap(), request);
    assert_eq!(second.read_file(&key_file_path(&id)).unwrap(), file);
    assert_eq!(request.asked.keys.len(), 2);
    let other = requested(&second, 33, "the cellar").unwrap();
    assert_eq!(other.asked.keys, request.asked.keys);
    assert_ne!(other.asked.fingerprint(), request.asked.fingerprint());
    let named = requested(&second, 34, " ");
    assert!(matches!(named, Err(Error::Host(HostError::Name))));
    // Nothing of it is in the log.
    assert_eq!(domain_of(&second).chain.path().len(), 1);
    let keys = keys_of(&second, &id);
    assert!(keys.signers(Role::Root).next().is_none());
}

/// Its keys are nowhere else, and what it signs is proven on the other machine.
#[test]
fn a_second_machine_signs_with_its_own_keys_once_they_are_listed() {
    let (first, second, id) = machines();
    let request = requested(&second, 31, "cellar").unwrap();
    let early = signs(&second, 32, 60);
    assert!(
        matches!(&early, Err(Error::Mint(MintError::NotListedYet { role })) if *role == Roles::PRODUCE),
        "{early:?}"
    );
    let domain = granted(&first, 33, &request).unwrap();
    assert_eq!(domain.chain.head().dam.version, 1);
    assert!(domain.findings.is_empty());
    // It counts as well there as if it had been made twice.
    assert_eq!(
        granted(&first, 34, &request).unwrap().chain.head_key(),
        domain.chain.head_key()
    );

    meet(&second, "cellar", &first, 35);
    let attested = signs(&second, 36, 61).unwrap();
    let host = keys_of(&second, &id)
        .signers(Role::Host)
        .next()
        .unwrap()
        .id();
    assert!(matches!(attested[..], [Attested::Signed { signer, .. }] if signer == host));
    assert!(
        keys_of(&first, &id).signer(&host).is_none(),
        "keys stay where they were drawn"
    );
    let nothing = requested(&second, 37, "cellar");
    assert!(matches!(nothing, Err(Error::Host(HostError::Nothing))));

    meet(&first, "attic", &second, 38);
    let w = at(&first, 39, "attic");
    let ours = own(&w);
    let others = beside(w.handle(), &ours);
    assert_eq!(others.len(), 1);
    let cellar = &others[0];
    assert_eq!((cellar.history, cellar.class), (History::Same, None));
    assert_eq!(cellar.receipts.get(&host), Some(&1));
    assert!(cellar.signed > 0 && cellar.signed < cellar.records && cellar.refused.is_empty());
    let checks = keys_of(&second, &id)
        .signers(Role::Checkpoint)
        .next()
        .unwrap()
        .id();
    assert_eq!(cellar.checkpoint_by, [checks]);
    w.finish().unwrap();

    // Who is who, on both machines.
    for (vfs, this) in [(&first, false), (&second, true)] {
        let place = if this { "cellar" } else { "attic" };
        let w = at(vfs, 40, place);
        let all = listed(w.handle(), &own(&w)).unwrap();
        let names: Vec<_> = all
            .iter()
            .map(|key| (key.name.as_deref(), key.version))
            .collect();
        let cellar = Some("cellar");
        assert_eq!(names, [(None, 0), (None, 0), (cellar, 1), (cellar, 1)]);
        assert!(all.iter().all(|key| key.in_force && !key.revoked));
        assert_eq!(this_host(vfs, &id).unwrap() == Some(host), this);
        w.finish().unwrap();
    }
}

/// What its owner revokes no longer counts, though its own log does not know that yet; and then it gets others.
#[test]
fn a_host_that_was_removed_signs_nothing_that_counts() {
    let (first, second, id) = machines();
    let request = requested(&second, 31, "cellar").unwrap();
    granted(&first, 33, &request).unwrap();
    meet(&second, "cellar", &first, 35);
    signs(&second, 36, 61).unwrap();
    meet(&first, "attic", &second, 38);
    let host = keys_of(&second, &id)
        .signers(Role::Host)
        .next()
        .unwrap()
        .id();
    {
        let _cheap = Cheap::new();
        let mut w = at(&first, 39, "attic");
        let domain = own(&w);
        let others = beside(w.handle(), &domain);
        let mut how = Update::none(6);
        how.revoke = (request.asked.keys.iter())
            .map(|principal| Revocation {
                key: principal.key.id(),
                store: others[0].store,
                position: LogPosition(others[0].records),
                reason: Reason::Lost,
            })
            .collect();
        let plan = Plan::update(&domain, keys_of(&first, &id), &mut random(40), &how).unwrap();
        plan.commit(&mut w, PASSPHRASE).unwrap();
        w.finish().unwrap();
    }
    // The machine that was removed has not heard of it.
    signs(&second, 41, 62).unwrap();
    meet(&first, "attic", &second, 42);
    let w = at(&first, 43, "attic");
    let ours = own(&w);
    let others = beside(w.handle(), &ours);
    assert_eq!(others[0].history, History::Behind);
    assert_eq!(
        others[0].receipts.get(&host),
        Some(&1),
        "what it signed before counts"
    );
    assert!(others[0].refused.contains(&host));
    let all = listed(w.handle(), &ours).unwrap();
    assert!(
        all.iter()
            .filter(|key| key.name.is_some())
            .all(|key| key.revoked && !key.in_force)
    );
    w.finish().unwrap();

    meet(&second, "cellar", &first, 44);
    let refused = signs(&second, 45, 63);
    assert!(
        matches!(refused, Err(Error::Mint(MintError::NoKey { .. }))),
        "{refused:?}"
    );
    let again = requested(&second, 46, "cellar").unwrap();
    assert!(
        again
            .asked
            .keys
            .iter()
            .all(|principal| principal.key.id() != host)
    );
    granted(&first, 47, &again).unwrap();
    meet(&second, "cellar", &first, 48);
    assert!(signs(&second, 49, 64).is_ok());
}

/// Two machines with the root grant at the same time: each sees the other's manifest as a second history, and nothing is added.
#[test]
fn two_that_grant_at_once_have_two_histories() {
    let (first, second, id) = machines();
    let twin = first.fork();
    let request = requested(&second, 31, "cellar").unwrap();
    granted(&first, 33, &request).unwrap();
    {
        let _cheap = Cheap::new();
        let mut w = at(&twin, 50, "loft");
        let mut other = request.asked.clone();
        other.name = "the cellar".into();
        let keys = keys_of(&second, &id);
        let other = other.signed(&own(&w).chain, |id| keys.signer(id)).unwrap();
        let domain = own(&w);
        let plan = Plan::grant(&domain, keys_of(&twin, &id), &other, false).unwrap();
        plan.commit(&mut w, PASSPHRASE).unwrap();
        w.finish().unwrap();
    }
    meet(&first, "attic", &twin, 51);
    let w = at(&first, 52, "attic");
    let ours = own(&w);
    let (here, there) = beside::fork(w.handle(), &ours).unwrap();
    assert_eq!(here, ours.chain.head_key());
    assert_ne!(here, there);
    // The host that was asked for in both is told that its request is for another history.
    let late = requested(&second, 53, "cellar").unwrap();
    assert!(matches!(
        late.draft(&ours.chain),
        Err(Error::Host(HostError::Listed { .. }))
    ));
    w.finish().unwrap();
}

#[test]
fn a_request_for_what_was_is_made_again() {
    let (first, second, id) = machines();
    let request = requested(&second, 31, "cellar").unwrap();
    {
        let _cheap = Cheap::new();
        let mut w = at(&first, 32, "attic");
        let mut how = Update::none(6);
        how.label = Some("home".into());
        let domain = own(&w);
        let plan = Plan::update(&domain, keys_of(&first, &id), &mut random(40), &how).unwrap();
        plan.commit(&mut w, PASSPHRASE).unwrap();
        w.finish().unwrap();
    }
    let late = granted(&first, 33, &request);
    assert!(
        matches!(
            late,
            Err(Error::Host(HostError::Overtaken {
                version: 0,
                head: 1
            }))
        ),
        "{late:?}"
    );
    meet(&second, "cellar", &first, 34);
    let again = requested(&second, 35, "cellar").unwrap();
    assert_eq!(again.asked.keys, request.asked.keys);
    assert_eq!(
        granted(&first, 36, &again)
            .unwrap()
            .chain
            .head()
            .dam
            .version,
        2
    );
    // Without the root nobody grants anything.
    let root = granted(&second, 37, &again);
    assert!(
        matches!(
            root,
            Err(Error::Host(_) | Error::Mint(MintError::NoKey { .. }))
        ),
        "{root:?}"
    );
    let settled = settled(&domain_of(&first).chain, false, false);
    assert!(!matches!(
        settled,
        Err(Error::Govern(GovernError::Forked { .. }))
    ));
}

/// Everyday every seventh operation, with `ASL_TEST_ALL` all of them.
#[test]
fn an_interrupted_grant_goes_on() {
    let (first, second, id) = machines();
    let request = requested(&second, 31, "cellar").unwrap();
    let whole = first.fork();
    granted(&whole, 33, &request).unwrap();
    let head = domain_of(&whole).chain.head_key();
    let step = match std::env::var_os("ASL_TEST_ALL") {
        Some(_) => 1,
        None => 7,
    };
    for n in (0..whole.ops()).step_by(step) {
        for fails in [false, true] {
            let mut vfs = first.fork();
            match fails {
                true => vfs.fail_op(n, 28, FailMode::Once),
                false => vfs.crash_at(n),
            }
            let done = granted(&vfs, 33, &request);
            if !fails {
                vfs = vfs.power_cut(match n % 3 {
                    0 => CrashPolicy::KeepAll,
                    1 => CrashPolicy::LoseUnsynced,
                    _ => CrashPolicy::Torn { seed: n },
                });
            }
            let what = format!("at {n}, {fails}: {:?}", done.err());
            let domain = granted(&vfs, 34, &request).unwrap_or_else(|e| panic!("{what}: {e:?}"));
            // The same manifest, and no other beside it.
            assert_eq!(domain.chain.head_key(), head, "{what}");
            let domain = domain_of(&vfs);
            assert!(
                domain.findings.is_empty() && domain.manifests.len() == 2,
                "{what}"
            );
            assert!(domain.covered() > domain.manifests[&head].0, "{what}");
            assert_eq!(keys_of(&vfs, &id).keys().len(), 3, "{what}");
            let all = listed(&crate::fixture::reader(&vfs), &domain).unwrap();
            assert_eq!(all[3].name.as_deref(), Some("cellar"), "{what}");
        }
    }
}

/// A machine that dies while it asks has nothing, or keys that it asks for again.
#[test]
fn an_interrupted_request_is_made_again() {
    let (first, second, id) = machines();
    at(&second, 30, "cellar").finish().unwrap();
    let whole = second.fork();
    requested(&whole, 31, "cellar").unwrap();
    let (mut anew, mut same) = (0, 0);
    for n in 0..whole.ops() {
        let vfs = second.fork();
        vfs.crash_at(n);
        let _ = requested(&vfs, 31, "cellar");
        let vfs = vfs.power_cut(CrashPolicy::LoseUnsynced);
        let kept = match Held::look(&vfs, &id, PASSPHRASE) {
            Held::Open(keys) => Some(keys.keys()[0].signer().id()),
            Held::Missing => None,
            Held::Closed(error) => panic!("at {n}: {error:?}"),
        };
        let request = requested(&vfs, 32, "cellar").unwrap();
        match kept {
            None => anew += 1,
            Some(kept) => {
                same += 1;
                let mut keys = request.asked.keys.iter();
                assert!(keys.any(|principal| principal.key.id() == kept), "at {n}");
            }
        }
        if n % 5 == 0 {
            assert!(granted(&first.fork(), 33, &request).is_ok(), "at {n}");
        }
    }
    assert!(anew > 2 && same > 2, "{anew} {same}");
}
