//! What lies under meta/: made from the log, never believed, whole after any power cut.

use asl_store::vfs::Vfs as _;
use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs};

use super::*;
use crate::author::Draft;
use crate::fixture::*;

fn minted() -> FaultVfs {
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    publish(&mut w, &genesis());
    w.finish().unwrap();
    vfs
}

/// Another label, and no checkpoint key any more.
fn updated() -> FaultVfs {
    let vfs = minted();
    make(&vfs).unwrap();
    let mut w = writer(&vfs, 3);
    let chain = Domain::read(w.handle()).unwrap().unwrap().chain;
    let draft = Draft::update(&chain, [1; 32], 6, |dam, policy| {
        dam.label = "another".into();
        dam.principals.truncate(1);
        policy.checkpoints = crate::policy::Checkpoints::AtCapture;
    });
    publish(&mut w, &draft.unwrap().signed(&[signer(ROOT)]));
    w.finish().unwrap();
    vfs
}

fn make(vfs: &FaultVfs) -> Result<Vec<Difference>> {
    let store = StoreHandle::open(std::sync::Arc::new(vfs.clone()))?;
    let domain = Domain::read(&store)?.expect("it was minted");
    materialise(vfs, &store, &domain, Some(signer(HOST).id()))
}

fn found(differences: &[Difference]) -> Vec<(&str, Found)> {
    let pairs = differences.iter();
    pairs.map(|d| (d.path.as_str(), d.found)).collect()
}

fn meta_files(vfs: &FaultVfs) -> BTreeMap<String, Vec<u8>> {
    let names = vfs.files().into_iter().map(|(name, _)| name);
    names
        .filter(|name| name.starts_with("meta/"))
        .map(|name| (name.clone(), vfs.read_file(&name).unwrap()))
        .collect()
}

/// The files and their exact bytes. Covers L6 in part: private keys are `keyfile`'s.
#[test]
fn the_files_say_what_the_log_says() {
    let vfs = minted();
    let made = make(&vfs).unwrap();
    assert!(made.iter().all(|d| d.found == Found::Missing));
    let mut expected = BTreeMap::from([
        (DAM_PATH.to_owned(), genesis().dam),
        (POLICY_PATH.to_owned(), genesis().policy),
        (
            "meta/host/host-id".to_owned(),
            format!("{}\n", signer(HOST).id()).into_bytes(),
        ),
    ]);
    for n in [ROOT, HOST, CHECKPOINT] {
        let public = signer(n).public();
        let text = format!("ed25519 {}\n", hex(public.bytes()));
        let name = format!("meta/keys/pub/{}.pub", public.id());
        expected.insert(name, text.into_bytes());
    }
    assert_eq!(meta_files(&vfs), expected);
    assert_eq!(make(&vfs).unwrap(), [], "nothing is left to do");
}

#[test]
fn what_differs_is_told_and_made_again() {
    let vfs = minted();
    make(&vfs).unwrap();
    let good = meta_files(&vfs);
    for (path, bytes) in &good {
        let longer = [bytes.as_slice(), b"x"].concat();
        for lie in [&bytes[..bytes.len() - 1], &longer, &vec![b'x'; 200_000]] {
            vfs.write_file(path, lie).unwrap();
            assert_eq!(
                found(&make(&vfs).unwrap()),
                [(path.as_str(), Found::Foreign)]
            );
            assert_eq!(meta_files(&vfs), good);
        }
        vfs.remove_file(path).unwrap();
        assert_eq!(
            found(&make(&vfs).unwrap()),
            [(path.as_str(), Found::Missing)]
        );
        assert_eq!(meta_files(&vfs), good);
    }
    // A key that nobody listed, beside a file that is not ours.
    let invented = public_key_path(&signer(99).id());
    vfs.write_file(&invented, b"ed25519 00\n").unwrap();
    vfs.write_file("meta/keys/pub/README", b"mine").unwrap();
    let made = make(&vfs).unwrap();
    assert_eq!(found(&made), [(invented.as_str(), Found::Foreign)]);
    assert!(made[0].is_surplus());
    assert!(vfs.metadata(&invented).is_err());
    vfs.metadata("meta/keys/pub/README").unwrap();
}

#[test]
fn an_older_manifest_is_outdated_not_foreign() {
    let vfs = updated();
    let gone = public_key_path(&genesis_principal_left_out(&vfs));
    let made = make(&vfs).unwrap();
    assert_eq!(
        found(&made),
        [
            (gone.as_str(), Found::Outdated),
            (DAM_PATH, Found::Outdated),
            (POLICY_PATH, Found::Outdated),
        ]
    );
    assert!(vfs.metadata(&gone).is_err());
    assert_eq!(make(&vfs).unwrap(), []);
}

fn genesis_principal_left_out(vfs: &FaultVfs) -> KeyId {
    let head = Domain::read(&reader(vfs)).unwrap().unwrap().chain;
    let kept = head.head().dam.principals[0].key.id();
    let mut ids = [HOST, CHECKPOINT].map(|n| signer(n).id()).into_iter();
    ids.find(|id| *id != kept).unwrap()
}

#[test]
fn comparing_changes_nothing() {
    let vfs = updated();
    let before = meta_files(&vfs);
    let store = reader(&vfs);
    let domain = Domain::read(&store).unwrap().unwrap();
    let differences = compare(&vfs, &store, &domain, None).unwrap();
    assert_eq!(differences.len(), 3);
    assert_eq!(meta_files(&vfs), before);
}

/// Power is cut at every operation, in every way: each file is old, new or not there, and the next run makes the rest. Covers
/// L6 in part.
#[test]
fn a_power_cut_leaves_whole_files() {
    for begin in [minted(), updated()] {
        let old = meta_files(&begin);
        let whole = begin.fork();
        make(&whole).unwrap();
        let (new, ops) = (meta_files(&whole), whole.ops());
        assert!(ops > 10);
        for n in 0..ops {
            for policy in [
                CrashPolicy::KeepAll,
                CrashPolicy::LoseUnsynced,
                CrashPolicy::Torn { seed: n },
                CrashPolicy::Reorder { seed: n },
            ] {
                let vfs = begin.fork();
                vfs.crash_at(n);
                make(&vfs).unwrap_err();
                let vfs = vfs.power_cut(policy);
                for (path, bytes) in meta_files(&vfs) {
                    if path.ends_with(".new") {
                        continue;
                    }
                    let known = [old.get(&path), new.get(&path)];
                    assert!(
                        known.contains(&Some(&bytes)),
                        "{path} after {policy:?} at {n}"
                    );
                }
                make(&vfs).unwrap();
                assert_eq!(meta_files(&vfs), new, "after {policy:?} at {n}");
            }
        }
    }
}

#[test]
fn a_disk_that_refuses_is_told() {
    let begin = minted();
    let whole = begin.fork();
    make(&whole).unwrap();
    for n in 0..whole.ops() {
        let vfs = begin.fork();
        vfs.fail_op(n, 28, FailMode::Once);
        let error = make(&vfs).unwrap_err();
        assert!(matches!(error, crate::Error::File(_)), "{error:?}");
        make(&vfs).unwrap();
        assert_eq!(meta_files(&vfs), meta_files(&whole));
    }
}
