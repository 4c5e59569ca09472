//! A log that is damaged, or gone, made again from what is left of it and from the blocks.

mod common;
mod specimen;

use std::collections::BTreeMap;
use std::sync::Arc;

use asl_store::log::{LogEnd, LogFiles};
use asl_store::vfs::fault::{CrashPolicy, FaultVfs, OpKind};
use asl_store::{
    Epoch, Error, Key, RepairOptions, RepairReport, SessionId, StoreWriter, create, format,
};
use common::*;
use proptest::prelude::*;
use specimen::*;

const EIO: i32 = 5;

fn accept() -> RepairOptions {
    RepairOptions {
        accept_lost_tail: true,
        ..RepairOptions::default()
    }
}

/// The log's files, oldest first.
fn logs(vfs: &FaultVfs) -> Vec<(String, u64)> {
    let files = vfs.files().into_iter();
    files
        .filter(|(path, _)| path.starts_with("log/log-"))
        .collect()
}

/// Without what leads around damage.
fn without_states(vfs: &FaultVfs) {
    for (path, _) in vfs.files() {
        if Kind::of(&path) == Kind::State {
            vfs.remove_file(&path).unwrap();
        }
    }
}

fn epochs(vfs: &FaultVfs) -> Vec<Epoch> {
    let files = LogFiles::list(vfs).unwrap();
    let mut found = Vec::new();
    let (_, end) = files
        .read(vfs, files.start(), asl_store::current::END, &mut |record| {
            if record.record_type == format::RECORD_EPOCH {
                found.push(Epoch::parse(&record.payload).unwrap());
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(end, LogEnd::Clean);
    found
}

/// Repaired, everything is there; what was in the way is kept; nothing more is to be done; the store is written on.
fn mended(full: &Specimen, vfs: &FaultVfs, what: &str) -> RepairReport {
    let before = logs(vfs);
    let report = repaired(vfs, accept()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let after = verified(vfs);
    assert_eq!(after.damage, [], "{what}");
    let handle = reader(vfs).unwrap();
    assert_intact(full, &handle);
    for key in full.hidden.keys() {
        assert!(handle.get_part(key).is_ok(), "{what}: still part of a tree");
    }
    let sessions = handle.sessions();
    assert_eq!(sessions.len(), 1, "{what}");
    assert_eq!(sessions[0].kind, format::SESSION_FINISHED, "{what}");
    assert_eq!(sessions[0].body, b"{\"done\":1}", "{what}");
    assert!(full.visible.contains_key(&sessions[0].root_key().unwrap()));
    let kept = vfs.files().into_iter();
    let kept = kept.filter(|(path, _)| path.starts_with("evidence/lost-"));
    assert!(
        logs(vfs).len() + kept.count() >= before.len(),
        "{what}: a log file is gone: {before:?} {:?}",
        vfs.files()
    );
    let again = repaired(vfs, accept()).unwrap();
    assert_eq!(again.recovery.lost_records, 0, "{what}");
    assert_eq!(again.recovery.evidence, None, "{what}");
    let mut w = writer(vfs, 6).unwrap();
    w.put(frame(b"new")).unwrap();
    w.finish().unwrap();
    assert_eq!(verified(vfs).damage, [], "{what}");
    report
}

/// Covers I6: whatever becomes of the log, everything comes back: what is hidden stays hidden, sessions are what they were.
#[test]
fn a_log_is_made_again_from_the_blocks() {
    let full = specimen();
    without_states(&full.vfs);
    let files = logs(&full.vfs);
    assert!(files.len() > 2);
    for (path, len) in &files {
        let raw = full.vfs.read_file(path).unwrap();
        let flipped = |at: usize| {
            let mut raw = raw.clone();
            raw[at] ^= 0x40;
            raw
        };
        let len = *len as usize;
        let mut variants = vec![
            None,
            Some(vec![0; len]),
            Some(flipped(0)),
            Some(flipped(60)),
        ];
        variants.extend((128..len).step_by(150).map(|at| Some(flipped(at))));
        variants.extend((0..len).step_by(400).map(|at| Some(raw[..at].to_vec())));
        for (number, bytes) in variants.into_iter().enumerate() {
            let vfs = full.vfs.fork();
            vfs.remove_file(path).unwrap();
            if let Some(bytes) = bytes {
                vfs.write_file(path, &bytes).unwrap();
            }
            let what = format!("{path}, variant {number}");
            let damaged = matches!(
                repaired(&vfs.fork(), RepairOptions::default()),
                Err(Error::LogBroken { .. } | Error::LogTailLost { .. } | Error::NotAStore)
            );
            mended(&full, &vfs, &what);
            assert_eq!(epochs(&vfs).len(), usize::from(damaged), "{what}");
        }
    }
}

/// Covers I6: blocks alone are enough.
#[test]
fn a_log_is_made_again_from_nothing_but_blocks() {
    let full = specimen();
    let bare = FaultVfs::new();
    for (path, _) in full.vfs.files() {
        if path.starts_with("blocks/") {
            let bytes = full.vfs.read_file(&path).unwrap();
            bare.write_file(&path, &bytes).unwrap();
        }
    }
    assert!(matches!(
        repaired(&bare, RepairOptions::default()),
        Err(Error::NotAStore)
    ));
    let store_id = reader(&full.vfs)
        .unwrap()
        .with_state(|state| state.store_id());
    let report = mended(&full, &bare, "blocks alone");
    assert!(report.recovery.relogged_blocks > 3);
    assert_eq!(epochs(&bare)[0].from.0, 1);
    assert_eq!(
        reader(&bare).unwrap().with_state(|s| s.store_id()),
        store_id
    );
    // A directory in which there is nothing of a store stays untouched.
    let empty = FaultVfs::new();
    empty.write_file("letter", b"dear").unwrap();
    assert!(matches!(repaired(&empty, accept()), Err(Error::NotAStore)));
    assert_eq!(empty.files().len(), 1);
}

/// Where no block and no log file says whose it was there is nothing to make a log from, and nothing is touched. Who is told to try so
/// is not told so again.
#[test]
fn a_log_without_blocks_or_a_name_is_no_store() {
    let vfs = fresh();
    let (path, _) = logs(&vfs).remove(0);
    let mut raw = vfs.read_file(&path).unwrap();
    raw[20] ^= 1;
    vfs.write_file(&path, &raw).unwrap();
    let told = repaired(&vfs, RepairOptions::default()).unwrap_err();
    assert!(
        matches!(told, Error::LogBroken { .. } | Error::LogDamaged { .. }),
        "{told:?}"
    );
    let before = logs(&vfs);
    let told = repaired(&vfs, accept()).unwrap_err();
    assert!(matches!(told, Error::NotAStore), "{told:?}");
    assert_eq!(logs(&vfs), before);
    assert_eq!(vfs.read_file(&path).unwrap(), raw);

    // With its header whole it is known whose it was.
    raw[20] ^= 1;
    raw[140] ^= 1;
    vfs.write_file(&path, &raw).unwrap();
    let report = repaired(&vfs, accept()).unwrap();
    assert!(report.recovery.evidence.is_some());
    assert_eq!(verified(&vfs).damage, []);
}

/// A medium that does not give a part of the log back is damage like any other.
#[test]
fn a_log_that_cannot_be_read_is_made_again() {
    let full = specimen();
    without_states(&full.vfs);
    let mut unreadable = 0;
    for (path, len) in logs(&full.vfs) {
        for bad in (0..len).step_by(300) {
            let vfs = full.vfs.fork();
            let of = path.clone();
            vfs.set_count_reads(true);
            vfs.set_hook(move |op| {
                let at = op.offset..op.offset + op.len;
                (op.kind == OpKind::Read && op.path == of && at.contains(&bad)).then_some(EIO)
            });
            let what = format!("{path}, byte {bad}");
            let read = reader(&vfs);
            if read.as_ref().is_ok_and(|it| *it.log_end() == LogEnd::Clean) {
                // Left behind by a torn append: nobody reads it.
                continue;
            }
            unreadable += 1;
            assert!(
                read.as_ref()
                    .is_ok_and(|it| matches!(it.log_end(), LogEnd::Damaged { .. }))
                    || matches!(read, Err(Error::LogDamaged { .. })),
                "{what}: {:?}",
                read.err()
            );
            assert!(matches!(
                repaired(&vfs, RepairOptions::default()),
                Err(Error::LogBroken { .. } | Error::LogDamaged { .. })
            ));
            mended(&full, &vfs, &what);
        }
    }
    assert!(unreadable > 5);
}

/// Cut off anywhere, with whatever a power cut keeps: the same repair comes to the same end.
#[test]
fn a_repair_that_is_cut_off_is_repeated() {
    let full = specimen();
    without_states(&full.vfs);
    let files = logs(&full.vfs);
    let all = std::env::var_os("ASL_TEST_ALL").is_some();
    let harms: [&dyn Fn(&FaultVfs); 4] = [
        &|vfs| vfs.flip_byte(&files[0].0, 700).unwrap(),
        &|vfs| vfs.remove_file(&files[1].0).unwrap(),
        &|vfs| vfs.remove_file(&files[0].0).unwrap(),
        &|vfs| {
            for (path, _) in vfs.files() {
                if path.starts_with("log/") {
                    vfs.remove_file(&path).unwrap();
                }
            }
        },
    ];
    for (harm, damage) in harms.iter().enumerate() {
        let base = full.vfs.fork();
        damage(&base);
        let whole = base.fork();
        repaired(&whole, accept()).unwrap();
        let operations = whole.ops();
        let step = if all { 1 } else { 1 + operations as usize / 12 };
        for at in (0..operations).step_by(step) {
            let vfs = base.fork();
            vfs.set_seed(at);
            vfs.crash_at(at);
            let _ = repaired(&vfs, accept());
            for policy in [
                CrashPolicy::KeepAll,
                CrashPolicy::LoseUnsynced,
                CrashPolicy::Torn { seed: at },
                CrashPolicy::Reorder { seed: at },
            ] {
                let found = vfs.power_cut(policy);
                // Nobody who does not accept the loss goes on with half of it.
                if let Ok(report) = repaired(&found.fork(), RepairOptions::default()) {
                    let what = format!("harm {harm}, operation {at}, {policy:?}: {report:?}");
                    assert_intact(&full, &reader(&found).expect(&what));
                }
                mended(
                    &full,
                    &found,
                    &format!("harm {harm}, operation {at}, {policy:?}"),
                );
            }
        }
    }
}

/// What was imported is so again; what was removed of it stays removed.
#[test]
fn imported_blocks_come_back() {
    let from = FaultVfs::new();
    create(&from, &small_params(), &context(9), &options()).unwrap();
    let mut w = writer(&from, 10).unwrap();
    for n in 0..6 {
        w.put(frame(&noise(n, 500))).unwrap();
    }
    w.commit().unwrap();
    w.put(frame(&noise(10, 20 << 10))).unwrap();
    w.finish().unwrap();
    let vfs = fresh();
    let mut w = writer(&vfs, 3).unwrap();
    w.put(frame(&noise(2, 500))).unwrap();
    w.commit().unwrap();
    let hidden = w
        .hide_imported([2, 3].map(|n| Key::of(&noise(n, 500))).into())
        .unwrap();
    for digest in reader(&from).unwrap().with_state(|state| {
        let blocks = state.blocks.values();
        blocks
            .map(|info| asl_store::id::Digest(info.digest))
            .collect::<Vec<_>>()
    }) {
        let path = asl_store::block::sealed_path(&digest);
        let parts = w.handle().clone();
        asl_store::import::stage(&vfs, &from, &path, digest, &parts, 1).unwrap();
        w.import_staged(digest, false, &hidden).unwrap();
    }
    w.tombstone(&[Key::of(&noise(4, 500))]).unwrap();
    w.finish().unwrap();
    let shown = |vfs: &FaultVfs| {
        let handle = reader(vfs).unwrap();
        (0..11)
            .filter(|n| {
                let len = if *n == 10 { 20 << 10 } else { 500 };
                handle.get(&Key::of(&noise(*n, len))).is_ok()
            })
            .collect::<Vec<_>>()
    };
    let expected = [0, 1, 2, 5, 10];
    assert_eq!(shown(&vfs), expected);
    for gone in ["log/", "log/log-", "index/"] {
        let damaged = vfs.fork();
        for (path, _) in damaged.files() {
            if path.starts_with(gone) {
                damaged.remove_file(&path).unwrap();
            }
        }
        let report = repaired(&damaged, accept()).unwrap();
        let adopted = if gone == "index/" { 0 } else { 2 };
        assert_eq!(report.recovery.adopted_blocks, adopted, "{gone}");
        assert_eq!(report.recovery.foreign, Vec::<String>::new(), "{gone}");
        assert_eq!(shown(&damaged), expected, "{gone}");
        assert_eq!(verified(&damaged).damage, [], "{gone}");
    }
}

/// What may happen to a store.
#[derive(Debug, Clone)]
enum Step {
    Put(u64, bool),
    Remove(u64),
    Commit,
    Sync,
    Flush,
    Snapshot,
    Reopen,
    Session(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..8u64, any::<bool>()).prop_map(|(n, large)| Step::Put(n, large)),
        3 => (0..8u64).prop_map(Step::Remove),
        3 => Just(Step::Commit),
        1 => Just(Step::Sync),
        1 => Just(Step::Flush),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Reopen),
        1 => any::<bool>().prop_map(Step::Session),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was put and removed, in whatever order, and wherever the log breaks off: what is shown afterwards is what was.
    #[test]
    fn what_was_shown_is_shown_again(script in steps(), harm in any::<prop::sample::Index>(), flip in any::<bool>()) {
        let vfs = FaultVfs::new();
        create(&vfs, &small_params(), &context(1), &short_logs()).unwrap();
        let mut seed = 2;
        let open = |seed: u8| {
            StoreWriter::open(Arc::new(vfs.clone()), context(seed), short_logs()).unwrap()
        };
        let mut w = open(seed);
        let bytes = |n: u64, large: bool| noise(n, if large { 17 << 10 } else { 200 + n as usize });
        let mut shown: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
        let mut ever: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
        let mut sessions: BTreeMap<SessionId, u8> = BTreeMap::new();
        for step in script {
            match step {
                Step::Put(n, large) => {
                    let bytes = bytes(n, large);
                    w.put(frame(&bytes)).unwrap();
                    ever.insert(Key::of(&bytes), bytes.clone());
                    shown.insert(Key::of(&bytes), bytes);
                }
                Step::Remove(n) => {
                    let known = [false, true].map(|large| Key::of(&bytes(n, large)));
                    let known: Vec<_> = known.into_iter().filter(|key| shown.contains_key(key)).collect();
                    if !known.is_empty() {
                        w.commit().unwrap();
                        w.tombstone(&known).unwrap();
                        known.iter().for_each(|key| drop(shown.remove(key)));
                    }
                }
                Step::Commit => w.commit().unwrap(),
                Step::Sync => w.sync().unwrap(),
                Step::Flush => w.flush().unwrap(),
                Step::Snapshot => drop(w.snapshot("then").unwrap()),
                Step::Reopen => {
                    w.finish().unwrap();
                    seed += 1;
                    w = open(seed);
                }
                Step::Session(ends) => {
                    let id = SessionId([sessions.len() as u8 + 1; 16]);
                    w.begin_session(id, b"begun").unwrap();
                    w.note(format::NOTE_SESSION, b"begun".to_vec()).unwrap();
                    sessions.insert(id, format::SESSION_BEGUN);
                    if ends {
                        w.end_session(format::SESSION_FINISHED, None, b"ended").unwrap();
                        sessions.insert(id, format::SESSION_FINISHED);
                    }
                }
            }
        }
        w.finish().unwrap();
        without_states(&vfs);
        let files = logs(&vfs);
        let lens: u64 = files.iter().map(|(_, len)| len - 128).sum();
        let mut at = harm.index(lens as usize) as u64;
        for (path, len) in &files {
            if at >= len - 128 {
                at -= len - 128;
                continue;
            }
            match flip {
                true => vfs.flip_byte(path, 128 + at).unwrap(),
                false => vfs.remove_file(path).unwrap(),
            }
            break;
        }
        let blocks = vfs.files().iter().any(|(path, _)| path.starts_with("blocks/"));
        let report = match repaired(&vfs, accept()) {
            // Nothing was ever stored, and the log was one file.
            Err(Error::NotAStore) if !blocks && logs(&vfs).is_empty() => return Ok(()),
            report => report.unwrap(),
        };
        prop_assert_eq!(verified(&vfs).damage, []);
        let handle = reader(&vfs).unwrap();
        let mut found = BTreeMap::new();
        handle.for_each(&mut |record| { found.insert(record.key, ()); Ok(()) }).unwrap();
        for key in shown.keys() {
            prop_assert!(found.contains_key(key), "{key} is lost: {report:?}");
            prop_assert_eq!(&handle.get(key).unwrap(), &ever[key]);
        }
        for key in found.keys() {
            prop_assert!(shown.contains_key(key), "{key} is back: {report:?}");
        }
        for (id, kind) in sessions {
            let found = handle.sessions().into_iter().find(|session| session.session() == id);
            prop_assert_eq!(found.map(|session| session.kind), Some(kind));
        }
    }
}

fn cases() -> u32 {
    match std::env::var_os("ASL_TEST_ALL") {
        Some(_) => 2000,
        None => 60,
    }
}
