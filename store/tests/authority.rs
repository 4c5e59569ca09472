//! Records of authority: named artifacts, in order, durable together, repeated in blocks, never passed over.

mod common;
mod forge;

use std::sync::Arc;

use asl_store::format::{self, authority_payload as ap, log_header as lh, record_head as rh};
use asl_store::vfs::fault::{CrashPolicy, FaultVfs};
use asl_store::{
    Authority, AuthorityRecord, Error, Key, LogPosition, RepairOptions, StoreHandle, StoreWriter,
    VerifyOptions, repair, verify,
};
use common::*;
use forge::{Forge, Rec};

const LOG: &str = "log/log-0000000000000000.asl";

fn records(handle: &StoreHandle) -> Vec<(u64, AuthorityRecord)> {
    let mut found = Vec::new();
    let each = &mut |record: &asl_store::log::Record, _: &[u8]| {
        found.extend(AuthorityRecord::of_record(record).map(|of| (record.position.0, of)));
        Ok(())
    };
    handle.records(LogPosition(0), each).unwrap();
    found
}

/// Puts `count` artifacts that follow from `n` and names them in one record.
fn authorise(
    w: &mut StoreWriter,
    kind: Authority,
    n: u64,
    count: u64,
) -> asl_store::Result<(LogPosition, Vec<Key>)> {
    let mut keys = Vec::new();
    for i in 0..count {
        let bytes = noise(1000 * n + i, 150);
        w.put(frame(&bytes))?;
        keys.push(Key::of(&bytes));
    }
    Ok((w.authority(kind, &keys)?, keys))
}

fn assert_whole(vfs: &FaultVfs) {
    let report = verify(Arc::new(vfs.clone()), &VerifyOptions::default(), &()).unwrap();
    assert_eq!(report.damage, []);
}

/// A store with one record of each kind.
fn example() -> (FaultVfs, Vec<(u64, AuthorityRecord)>) {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let mut expected = Vec::new();
    for (n, kind) in Authority::ALL.into_iter().enumerate() {
        let (position, keys) = authorise(&mut w, kind, n as u64, 1 + n as u64).unwrap();
        expected.push((position.0, AuthorityRecord { kind, keys }));
    }
    w.finish().unwrap();
    (vfs, expected)
}

#[test]
fn records_come_back_in_order_with_their_artifacts() {
    let (vfs, expected) = example();
    let handle = reader(&vfs).unwrap();
    assert_eq!(records(&handle), expected);
    for (_, record) in &expected {
        for key in &record.keys {
            assert_eq!(Key::of(&handle.get(key).unwrap()), *key);
        }
    }
    // From any position on.
    let from = expected[3].0;
    let mut seen = Vec::new();
    let each = &mut |record: &asl_store::log::Record, _: &[u8]| {
        seen.push(record.position.0);
        Ok(())
    };
    handle.records(LogPosition(from), each).unwrap();
    let end = handle.with_state(|state| state.position().0);
    assert_eq!(seen, (from..end).collect::<Vec<_>>());
    assert_whole(&vfs);
}

/// Another tool makes leaves of these bytes: they are the file's, all of it behind the header.
#[test]
fn records_are_given_with_their_stored_bytes() {
    let (vfs, _) = example();
    let mut bytes = Vec::new();
    let each = &mut |record: &asl_store::log::Record, raw: &[u8]| {
        assert_eq!(rh::POSITION.get(raw), record.position.0);
        bytes.extend_from_slice(raw);
        Ok(())
    };
    reader(&vfs).unwrap().records(LogPosition(0), each).unwrap();
    assert_eq!(bytes, vfs.read_file(LOG).unwrap()[lh::LEN..]);

    // A view sees its own prefix, whatever was appended since.
    let before = reader(&vfs).unwrap();
    let count = records(&before).len();
    let mut w = writer(&vfs, 3).unwrap();
    authorise(&mut w, Authority::Dam, 50, 1).unwrap();
    assert_eq!(records(&before).len(), count);
    assert_eq!(records(w.handle()).len(), count + 1);
}

#[test]
fn a_record_names_what_is_there() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let (_, keys) = authorise(&mut w, Authority::Dam, 1, 2).unwrap();
    let absent = Key::of(b"never put");
    let error = w.authority(Authority::Dam, &[keys[0], absent]).unwrap_err();
    assert!(
        matches!(error, Error::NotFound(key) if key == absent),
        "{error}"
    );
    for count in [0, format::AUTHORITY_KEYS_MAX as usize + 1] {
        let error = w
            .authority(Authority::Dam, &vec![keys[0]; count])
            .unwrap_err();
        assert!(matches!(error, Error::Parameter { .. }), "{error}");
    }
    w.tombstone(&keys[..1]).unwrap();
    let error = w.authority(Authority::Dam, &keys).unwrap_err();
    assert!(
        matches!(error, Error::NotFound(key) if key == keys[0]),
        "{error}"
    );
    assert_eq!(records(w.handle()).len(), 1);
    // What a record names can be read even after it was hidden.
    assert_eq!(Key::of(&w.handle().get_part(&keys[0]).unwrap()), keys[0]);
}

/// Power is cut at every operation, in every way: what was acknowledged is there once, in its order; of the rest each
/// record is there with all it names or not at all. Covers L4.
#[test]
fn a_power_cut_leaves_whole_records_in_order() {
    let begun = fresh();
    let kinds = [Authority::Dam, Authority::Witness, Authority::Checkpoint];
    let mut n = 0;
    loop {
        let vfs = begun.fork();
        vfs.crash_at(vfs.ops() + n);
        let mut acknowledged = Vec::new();
        let mut attempt = || {
            let mut w = writer(&vfs, 2)?;
            for (at, kind) in kinds.into_iter().enumerate() {
                let (_, keys) = authorise(&mut w, kind, at as u64, 2)?;
                acknowledged.push(AuthorityRecord { kind, keys });
            }
            w.finish()
        };
        let done = attempt().is_ok();
        for policy in [
            CrashPolicy::KeepAll,
            CrashPolicy::LoseUnsynced,
            CrashPolicy::Torn { seed: n },
            CrashPolicy::Reorder { seed: n },
        ] {
            let after = vfs.power_cut(policy);
            after.release_locks();
            let w = writer(&after, 3).unwrap();
            let found: Vec<_> = records(w.handle()).into_iter().map(|(_, of)| of).collect();
            let prefix = found.get(..acknowledged.len());
            assert_eq!(prefix, Some(&acknowledged[..]), "operation {n}");
            assert!(
                found.len() <= acknowledged.len() + 1,
                "operation {n}: {found:?}"
            );
            for record in &found {
                for key in &record.keys {
                    assert!(w.handle().get(key).is_ok(), "operation {n}");
                }
            }
            w.finish().unwrap();
            assert_whole(&after);
            // Nothing is logged twice.
            let again = writer(&after, 4).unwrap();
            assert_eq!(records(again.handle()).len(), found.len(), "operation {n}");
        }
        if done {
            break;
        }
        n += 1;
    }
    assert!(n > 20, "only {n} operations");
}

/// The last log record of a store is cut off, with or without the seal before it.
fn without_last(vfs: &FaultVfs, count: usize) -> FaultVfs {
    let mut forge = Forge::of(vfs);
    let hint = vfs.read_file("log/current").unwrap();
    forge.records.truncate(forge.records.len() - count);
    let cut = forge.done();
    cut.write_file("log/current", &hint).unwrap();
    cut
}

#[test]
fn a_record_whose_block_is_there_is_logged_again() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let (_, first) = authorise(&mut w, Authority::Dam, 1, 2).unwrap();
    let (_, second) = authorise(&mut w, Authority::Witness, 2, 2).unwrap();
    w.finish().unwrap();
    let expected: Vec<_> = records(&reader(&vfs).unwrap())
        .into_iter()
        .map(|(_, of)| of)
        .collect();
    assert_eq!(expected[0].keys, first);
    assert_eq!(expected[1].keys, second);
    // The record alone, or the record that seals its block, too.
    for count in [1, 2] {
        let cut = without_last(&vfs, count);
        assert!(matches!(writer(&cut, 3), Err(Error::LogTailLost { .. })));
        let accept = RepairOptions {
            accept_lost_tail: true,
            write: options(),
            ..RepairOptions::default()
        };
        repair(Arc::new(cut.clone()), context(3), &accept).unwrap();
        let found = records(&reader(&cut).unwrap()).into_iter();
        assert_eq!(
            found.map(|(_, of)| of).collect::<Vec<_>>(),
            expected,
            "without {count}"
        );
        assert_whole(&cut);
    }
}

/// A block torn in its middle: the note survives, what it names does not. Then there is nothing to stand behind.
#[test]
fn a_record_whose_artifact_is_lost_is_not_logged_again() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    authorise(&mut w, Authority::Dam, 1, 1).unwrap();
    w.finish().unwrap();
    let handle = reader(&vfs).unwrap();
    let (id, sealed) = handle.with_state(|state| {
        let (id, info) = state.blocks.last_key_value().unwrap();
        (
            *id,
            asl_store::block::sealed_path(&asl_store::id::Digest(info.digest)),
        )
    });
    let mut forge = Forge::of(&vfs);
    let seal = forge.nth(format::RECORD_SEAL, 0);
    forge.records.truncate(seal);
    let cut = forge.done();
    let mut bytes = cut.read_file(&sealed).unwrap();
    bytes[format::block_header::LEN + format::frame_header::LEN + 5] ^= 1;
    // Without its end it is an open block that a dead writer left.
    bytes.truncate(bytes.len() - 8);
    cut.remove_file(&sealed).unwrap();
    cut.write_file(&format!("blocks/open/blk_{id:016x}.tmp"), &bytes)
        .unwrap();
    let w = writer(&cut, 3).unwrap();
    assert_eq!(records(w.handle()), []);
    assert_eq!(w.recovery().lost_authority, 1);
    assert_eq!(w.recovery().salvaged_blocks, 1);
}

/// A reader that knew nothing of a critical type would go on as if it had not been said. So none does, in whatever way
/// it opens the store; of what is not critical it does not even take notice.
#[test]
fn unknown_critical_records_stop_every_reader() {
    let (vfs, _) = example();
    for record_type in [9, 18, 31, 32, 400] {
        let unknown = |flags| {
            let mut forge = Forge::of(&vfs);
            forge.records.push(Rec {
                record_type,
                flags,
                time: 0,
                payload: vec![1; 40],
            });
            forge.done()
        };
        let cut = unknown(0);
        assert_eq!(records(&reader(&cut).unwrap()).len(), 6);
        writer(&cut, 3).unwrap();
        let cut = unknown(format::RECORD_CRITICAL);
        for error in [reader(&cut).err(), writer(&cut, 3).err()] {
            let stopped = matches!(
                error,
                Some(Error::UnknownCritical { record_type: found, .. }) if found == record_type
            );
            assert!(stopped, "{record_type}: {error:?}");
        }
    }
}

#[test]
fn malformed_records_stop_readers_and_are_found() {
    let (vfs, _) = example();
    type Change = fn(&mut Vec<u8>);
    let cases: [Change; 6] = [
        |p| p.clear(),
        |p| p.truncate(ap::LEN - 1),
        |p| {
            p.truncate(ap::LEN);
            ap::COUNT.set(p, 0u16);
        },
        |p| ap::COUNT.set(p, 2u16),
        |p| p.push(0),
        |p| {
            *p = vec![0; ap::LEN + 257 * 32];
            ap::COUNT.set(p, 257u16);
        },
    ];
    for (at, change) in cases.into_iter().enumerate() {
        for kind in [format::RECORD_DAM, format::RECORD_CHECKPOINT] {
            let mut forge = Forge::of(&vfs);
            forge.payload(kind, 0, change);
            let bad = forge.done();
            assert!(reader(&bad).is_err(), "case {at} of type {kind}");
            let report = verify(Arc::new(bad), &VerifyOptions::default(), &()).unwrap();
            assert!(!report.damage.is_empty(), "case {at} of type {kind}");
        }
    }
    // Odd, but clear in what it says.
    let mut forge = Forge::of(&vfs);
    forge.payload(format::RECORD_DAM, 0, |p| p[ap::PAD.offset] = 1);
    let report = verify(Arc::new(forge.done()), &VerifyOptions::default(), &()).unwrap();
    assert_eq!(report.damage.len(), 1);
    let mut forge = Forge::of(&vfs);
    let at = forge.nth(format::RECORD_DAM, 0);
    forge.records[at].flags &= !format::RECORD_CRITICAL;
    let report = verify(Arc::new(forge.done()), &VerifyOptions::default(), &()).unwrap();
    assert_eq!(report.damage.len(), 1);
    assert!(
        report.damage[0].what.contains("critical"),
        "{:?}",
        report.damage
    );
}
