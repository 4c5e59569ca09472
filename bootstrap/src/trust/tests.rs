//! The memory of what is trusted: one form, only forward, whole after every crash.

use std::sync::Arc;

use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs};
use asl_store::{Key, StoreWriter};

use super::*;
use crate::author::Draft;
use crate::domain::Domain;
use crate::error::Error;
use crate::fixture::*;
use crate::note::Note;

/// A store with a domain.
fn founded() -> (FaultVfs, StoreWriter) {
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    publish(&mut w, &genesis());
    (vfs, w)
}

fn chain(vfs: &FaultVfs) -> Chain {
    Domain::read(&reader(vfs)).unwrap().unwrap().chain
}

fn seen(vfs: &FaultVfs, trust: &Trust, domain: &DomainId) -> LogSeen {
    let store = reader(vfs);
    let id = store.with_state(asl_store::state::State::store_id);
    let trusted = trust.get(domain).unwrap();
    let pinned = trusted.as_ref().and_then(|trusted| trusted.log(&id));
    LogSeen::read(&store, pinned).unwrap()
}

/// Reads the store as it is and moves the pins.
fn pin(trust: &Trust, vfs: &FaultVfs) -> Result<Moved> {
    let chain = chain(vfs);
    let log = seen(vfs, trust, &chain.domain());
    trust.pin(&chain, &[log])
}

fn id() -> DomainId {
    genesis().domain()
}

/// The memory of a domain with a name, a manifest and logs.
fn full(logs: u8) -> Trusted {
    let pin = Pin {
        domain: id(),
        rotation: 3,
        version: 70,
        head: Key([7; 32]),
        epoch: Key([8; 32]),
    };
    let log = |n| LogPin {
        store: StoreId([n; 16]),
        position: LogPosition(u64::from(n) * 1000),
        chain: Digest([n; 32]),
    };
    Trusted {
        domain: id(),
        name: Some("Anna's sticks".into()),
        manifest: Some(pin),
        logs: (1..=logs).map(log).collect(),
    }
}

fn damaged_line(trust: &Trust) -> Option<usize> {
    match trust.get(&id()) {
        Err(Error::Trust(TrustError::Damaged { line, .. })) => Some(line),
        Ok(_) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_read_again() {
    for trusted in [
        full(0),
        full(3),
        Trusted {
            name: None,
            ..full(255)
        },
        Trusted {
            name: None,
            manifest: None,
            ..full(0)
        },
    ] {
        let bytes = text::encode(&trusted);
        assert_eq!(text::decode(&bytes), Ok(trusted));
        assert!(bytes.len() <= FILE_LEN_MAX);
    }
}

/// Every byte of a file changed, removed and doubled: refused, with a line that there is.
#[test]
fn a_file_with_one_byte_changed_is_refused() {
    let whole = text::encode(&full(2));
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    for at in 0..whole.len() {
        let mut changed = vec![whole.clone(); 4];
        changed[0][at] ^= 1;
        changed[1][at] ^= 0x20;
        changed[2].remove(at);
        changed[3].insert(at, whole[at]);
        for bytes in changed {
            let line = text::decode(&bytes).unwrap_err();
            assert!((1..=lines + 1).contains(&line), "byte {at}: line {line}");
        }
        assert!(text::decode(&whole[..at]).is_err(), "cut at {at}");
    }
    assert!(text::decode(b"").is_err());
}

/// Whoever can compute the sum still has only one way to write a thing.
#[test]
fn there_is_one_form_only() {
    let whole = String::from_utf8(text::encode(&full(2))).unwrap();
    let body = &whole[..whole.find("sum ").unwrap()];
    let log = body.lines().last().unwrap();
    let upper = id().to_string().to_uppercase();
    for (from, to) in [
        ("manifest 3 70", "manifest 03 70"),
        ("manifest 3 70", "manifest +3 70"),
        ("manifest 3 70", "manifest  3 70"),
        (" 1000 ", " 01000 "),
        (&*id().to_string(), &*upper),
        ("name Anna's sticks", "name  Anna's sticks"),
        ("name Anna's sticks", "name Anna's sticks "),
        ("name Anna's sticks", "name "),
        ("name Anna's sticks\n", "name Anna\u{202e}\n"),
        ("name Anna's sticks\n", "name Anna\nname Anna\n"),
        ("asl trust 1\n", "asl trust 1\r\n"),
        ("asl trust 1\n", "asl trust 2\n"),
        ("asl trust 1\n", "asl trust 1\n\n"),
        (&"07".repeat(32), &"7".repeat(64)),
        (log, &format!("{log}\n{log}")),
        (log, &format!("{log}\nmore")),
        (log, ""),
    ] {
        let body = body.replacen(from, to, 1);
        let sum = asl_store::id::hex(&crate::id::sha256(&[body.as_bytes()]));
        let text = format!("{body}sum {sum}\n");
        let decoded = text::decode(text.as_bytes());
        // What was changed to something that is allowed says something else, in its own one form.
        if let Ok(decoded) = &decoded {
            assert_eq!(text::encode(decoded), text.as_bytes());
            assert_ne!(*decoded, full(2), "{to:?}");
        }
        let allowed = from == "07".repeat(32);
        assert_eq!(decoded.is_ok(), allowed, "{from:?} -> {to:?}");
    }
    let swapped: Vec<&str> = body.lines().collect();
    let mut swapped = swapped.clone();
    swapped.swap(4, 5);
    let body = swapped.join("\n") + "\n";
    let sum = asl_store::id::hex(&crate::id::sha256(&[body.as_bytes()]));
    assert_eq!(
        text::decode(format!("{body}sum {sum}\n").as_bytes()),
        Err(6)
    );
}

#[test]
fn a_domain_is_trusted_when_it_was_added_and_until_it_is_removed() {
    let vfs = FaultVfs::new();
    let trust = Trust::new(&vfs);
    assert!(trust.list().unwrap().is_empty());
    assert_eq!(trust.get(&id()).unwrap(), None);
    assert!(!trust.remove(&id()).unwrap());
    assert!(trust.add(&id(), None).unwrap());
    assert!(!trust.add(&id(), Some("mine")).unwrap());
    let ops = vfs.ops();
    let locked = 1;
    assert!(!trust.add(&id(), None).unwrap());
    assert!(vfs.ops() <= ops + locked, "nothing to write, and written");
    let name = trust.get(&id()).unwrap().unwrap().name;
    assert_eq!(name.as_deref(), Some("mine"));
    assert_eq!(trust.list().unwrap().len(), 1);
    for name in ["", " x", "x ", "a\nb", "\u{202e}", &"x".repeat(65)] {
        let refused = trust.add(&id(), Some(name));
        assert!(
            matches!(refused, Err(Error::Trust(TrustError::Name))),
            "{name:?}"
        );
    }
    assert!(trust.remove(&id()).unwrap());
    assert!(trust.list().unwrap().is_empty());
}

#[test]
fn a_damaged_file_is_no_empty_memory() {
    let vfs = FaultVfs::new();
    let trust = Trust::new(&vfs);
    trust.add(&id(), Some("mine")).unwrap();
    vfs.flip_byte(&path_of(&id()), 30).unwrap();
    assert_eq!(damaged_line(&trust), Some(2));
    assert!(trust.add(&id(), None).is_err(), "it would be empty then");
    let list = trust.list().unwrap();
    assert!(matches!(
        &list[..],
        [Entry {
            trusted: Err(_),
            ..
        }]
    ));
    let other = DomainId([5; 32]);
    trust.add(&other, None).unwrap();
    assert_eq!(trust.list().unwrap().len(), 2);
    // A whole file of another domain is none of this one.
    let bytes = vfs.read_file(&path_of(&other)).unwrap();
    vfs.write_file(&path_of(&id()), &bytes).unwrap();
    assert_eq!(damaged_line(&trust), Some(2));
    assert!(trust.remove(&id()).unwrap(), "to begin again");
    assert!(trust.add(&id(), None).unwrap());
    // Neither is one that never ends.
    vfs.write_file(&path_of(&id()), &vec![b'x'; FILE_LEN_MAX + 1])
        .unwrap();
    assert_eq!(damaged_line(&trust), Some(1));
}

#[test]
fn nothing_is_pinned_of_a_domain_that_nobody_added() {
    let (store, w) = founded();
    w.finish().unwrap();
    let vfs = FaultVfs::new();
    let trust = Trust::new(&vfs);
    let refused = pin(&trust, &store).unwrap_err();
    assert!(matches!(
        refused,
        Error::Trust(TrustError::NotTrusted { .. })
    ));
    assert!(trust.list().unwrap().is_empty());
}

/// The store goes on, is put back, goes on another way; the pin only ever follows it forward.
#[test]
fn a_pin_moves_forward_and_never_back() {
    let (store, mut w) = founded();
    let vfs = FaultVfs::new();
    let trust = Trust::new(&vfs);
    trust.add(&id(), None).unwrap();
    assert_eq!(pin(&trust, &store).unwrap().manifest, None);
    let again = pin(&trust, &store).unwrap();
    assert_eq!(again.manifest, Some(Compared::Same));
    assert!(!again.written);

    let early = store.fork();
    update(&mut w, 1, |_, _| ());
    capture(&mut w, 50);
    w.finish().unwrap();
    let moved = pin(&trust, &store).unwrap();
    assert_eq!(moved.manifest, Some(Compared::Ahead { versions: 1 }));
    assert!(moved.written && moved.logs == 1);
    let remembered = trust.get(&id()).unwrap().unwrap();

    // The stick was put back to what it was.
    early.release_locks();
    let refused = pin(&trust, &early).unwrap_err();
    assert!(matches!(
        refused,
        Error::Trust(TrustError::Manifest {
            found: Compared::Rollback { version: 0 },
            ..
        })
    ));
    // The same manifests, in a log that is shorter.
    let chain = chain(&store);
    let log = seen(&early, &trust, &id());
    assert!(matches!(
        trust.pin(&chain, &[log]),
        Err(Error::Trust(TrustError::Log {
            found: LogCompared::Rollback { .. },
            ..
        }))
    ));
    // And gone on another way, until it is longer.
    let mut w = writer(&early, 9);
    update(&mut w, 1, |_, _| ());
    while domain(&w).tree.size() < remembered.logs[0].position.0 + 5 {
        capture(&mut w, 51);
    }
    w.finish().unwrap();
    let log = seen(&early, &trust, &id());
    assert!(matches!(
        trust.pin(&chain, &[log]),
        Err(Error::Trust(TrustError::Log {
            found: LogCompared::Fork { .. },
            ..
        }))
    ));
    assert_eq!(trust.get(&id()).unwrap().unwrap(), remembered);
    assert_eq!(
        log.check(Some(&LogPin {
            store: StoreId([1; 16]),
            ..log.head
        })),
        None,
        "the pin of another log"
    );
}

/// Another update of the same version: a fork, which a rotation that voids it settles.
#[test]
fn manifests_that_go_another_way_do_not_move_the_pin_but_a_rotation_does() {
    let (store, mut w) = founded();
    let before = domain(&w).chain;
    let ours = update(&mut w, 1, |_, _| ());
    w.finish().unwrap();
    let vfs = FaultVfs::new();
    let trust = Trust::new(&vfs);
    trust.add(&id(), None).unwrap();
    pin(&trust, &store).unwrap();

    let (other, mut w) = founded();
    let theirs = update(&mut w, 2, |_, _| ());
    assert_ne!(ours, theirs);
    assert!(matches!(
        trust.pin(&domain(&w).chain, &[]),
        Err(Error::Trust(TrustError::Manifest {
            found: Compared::Fork { .. },
            ..
        }))
    ));
    let rotation = Draft::rotation(&before, before.head_key(), [3; 32], 7, |dam, _| {
        dam.roots = vec![signer(NEXT).public()];
        dam.next = vec![signer(77).public().next_digest()];
    });
    publish(&mut w, &rotation.unwrap().signed(&[signer(NEXT)]));
    w.finish().unwrap();
    let moved = trust.pin(&chain(&other), &[]).unwrap();
    assert!(matches!(moved.manifest, Some(Compared::Superseded { .. })));
    let remembered = trust.get(&id()).unwrap().unwrap();
    assert_eq!(remembered.manifest.unwrap().rotation, 1);
}

#[test]
fn a_log_that_was_read_for_an_older_pin_has_to_be_read_again() {
    let (store, mut w) = founded();
    let vfs = FaultVfs::new();
    let trust = Trust::new(&vfs);
    trust.add(&id(), None).unwrap();
    pin(&trust, &store).unwrap();
    let early = seen(&store, &trust, &id());
    capture(&mut w, 50);
    let middle = seen(&store, &trust, &id());
    capture(&mut w, 51);
    w.finish().unwrap();
    trust.pin(&chain(&store), &[middle]).unwrap();
    let stale = trust.pin(
        &chain(&store),
        &[LogSeen {
            head: seen(&store, &trust, &id()).head,
            ..early
        }],
    );
    assert!(matches!(stale, Err(Error::Trust(TrustError::Busy))));
    let held = vfs.lock(LOCK).unwrap();
    assert!(matches!(
        pin(&trust, &store),
        Err(Error::Trust(TrustError::Busy))
    ));
    drop(held);
    pin(&trust, &store).unwrap();
}

#[test]
fn more_logs_than_can_be_remembered_are_refused() {
    let (store, w) = founded();
    w.finish().unwrap();
    let vfs = FaultVfs::new();
    let trust = Trust::new(&vfs);
    trust.add(&id(), None).unwrap();
    let head = seen(&store, &trust, &id()).head;
    let log = |n: u16| LogSeen {
        head: LogPin {
            store: StoreId(
                [[n as u8; 8], [(n >> 8) as u8; 8]]
                    .concat()
                    .try_into()
                    .unwrap(),
            ),
            ..head
        },
        at: None,
    };
    let logs: Vec<LogSeen> = (0..LOGS_MAX as u16).map(log).collect();
    trust.pin(&chain(&store), &logs).unwrap();
    assert!(matches!(
        trust.pin(&chain(&store), &[log(256)]),
        Err(Error::Trust(TrustError::TooManyLogs))
    ));
    let kept = trust.get(&id()).unwrap().unwrap().logs;
    assert!(kept.len() == LOGS_MAX && kept.is_sorted());
}

/// Power is cut, or an operation fails, at every position while a domain is added, pinned, pinned again and removed.
#[test]
fn a_file_is_old_or_new_after_every_crash() {
    let (store, mut w) = founded();
    let early = store.fork();
    capture(&mut w, 50);
    w.finish().unwrap();
    let (first, second) = (chain(&early), chain(&store));
    let logs = [&early, &store].map(|vfs| {
        let handle = reader(vfs);
        LogSeen::read(&handle, None).unwrap().head
    });
    let ahead = LogSeen::read(&reader(&store), Some(&logs[0])).unwrap();
    let live = |vfs: &FaultVfs| -> Result<()> {
        let trust = Trust::new(vfs);
        trust.add(&id(), Some("mine"))?;
        let seen = LogSeen {
            head: logs[0],
            at: None,
        };
        trust.pin(&first, &[seen])?;
        trust.pin(&second, &[ahead])?;
        trust.remove(&id())?;
        Ok(())
    };
    let steps = {
        let vfs = FaultVfs::new();
        live(&vfs).unwrap();
        vfs.ops()
    };
    assert!(steps > 15, "{steps}");
    let mut states = std::collections::BTreeSet::new();
    for at in 0..steps {
        for fails in [false, true] {
            let vfs = FaultVfs::new();
            match fails {
                true => vfs.fail_op(at, 5, FailMode::Sticky),
                false => vfs.crash_at(at),
            }
            assert!(live(&vfs).is_err(), "{at}");
            let torn = [0, 1, 2].map(|seed| CrashPolicy::Torn { seed });
            for policy in [
                &[CrashPolicy::KeepAll, CrashPolicy::LoseUnsynced][..],
                &torn,
            ]
            .concat()
            {
                let vfs = vfs.power_cut(policy);
                let trust = Trust::new(&vfs);
                let found = trust.get(&id());
                let found =
                    found.unwrap_or_else(|error| panic!("{error} after {policy:?} at {at}"));
                states.insert(found.map(|trusted| trusted.logs.first().map(|log| log.position)));
                trust.remove(&id()).unwrap();
                live(&vfs).unwrap_or_else(|error| panic!("{error} after {policy:?} at {at}"));
                assert!(trust.list().unwrap().is_empty());
            }
        }
    }
    assert_eq!(states.len(), 4, "absent, added, pinned, moved: {states:?}");
}

#[test]
fn evidence_is_kept_once_and_never_overwritten() {
    let (store, mut w) = founded();
    let note = {
        let signed = domain(&w)
            .head_checkpoint()
            .sign(&signer(CHECKPOINT))
            .unwrap();
        Note::parse(&signed.to_bytes()).unwrap()
    };
    capture(&mut w, 50);
    w.finish().unwrap();
    let log = LogSeen::read(&reader(&store), None).unwrap().head;
    let head = |n: u8, notes: usize| Head {
        log: LogPin {
            chain: Digest([n; 32]),
            ..log
        },
        notes: vec![note.clone(); notes],
    };
    let evidence = |n| Evidence {
        domain: id(),
        seen: head(n, 0),
        found: head(99, NOTES_MAX + 1),
    };
    let vfs = FaultVfs::new();
    let trust = Trust::new(&vfs);
    let path = trust.keep(&evidence(1)).unwrap().unwrap();
    assert!(path.starts_with(&format!("evidence/fork-{}-", log.store)));
    let text = String::from_utf8(vfs.read_file(&path).unwrap()).unwrap();
    assert_eq!(text.lines().count(), 5 + NOTES_MAX, "{text}");
    assert_eq!(text.matches("found note ").count(), NOTES_MAX);
    vfs.write_file(&path, b"somebody's").unwrap();
    assert_eq!(trust.keep(&evidence(1)).unwrap(), Some(path.clone()));
    assert_eq!(vfs.read_file(&path).unwrap(), b"somebody's");
    let other = trust.keep(&evidence(2)).unwrap().unwrap();
    assert_ne!(other, path);
    for n in 2..EVIDENCE_MAX {
        vfs.write_file(&format!("evidence/fork-{n}.txt"), b"x")
            .unwrap();
    }
    assert_eq!(trust.keep(&evidence(3)).unwrap(), None);
    assert_eq!(trust.keep(&evidence(2)).unwrap(), Some(other));
}

/// On a real file system nobody else reads what is trusted.
#[test]
fn files_of_trust_are_their_owners() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(asl_store::vfs::real::RealVfs::open(dir.path()).unwrap());
    let trust = Trust::new(&*vfs);
    trust.add(&id(), None).unwrap();
    let file = dir.path().join(path_of(&id()));
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
