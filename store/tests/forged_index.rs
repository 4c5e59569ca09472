//! An index whose checksums are right and whose entries are not.

mod common;
mod forge;

use asl_store::format::{self, index_record as ir, page_foot as pf, segment_header as sh};
use asl_store::{Key, filter, segment};
use common::*;
use forge::*;

/// The first record of a segment.
fn record(raw: &mut [u8], nth: usize) -> &mut [u8] {
    let at = sh::PAGES_OFFSET.get(raw) as usize + nth * ir::LEN;
    &mut raw[at..at + ir::LEN]
}

type ChangeSegment = fn(&mut Vec<u8>);
type ChangeEntry = Box<dyn Fn(&mut Vec<u8>)>;

#[test]
fn segments() {
    let vfs = small_store();
    let cases: &[(ChangeSegment, &str)] = &[
        (|s| s[sh::PAD.offset] = 1, "a header with padding"),
        (|s| s[sh::RESERVED.offset] = 1, "a header with reserved"),
        (|s| sh::SHARDS.set(s, 2u32), "disagrees with the log"),
        (|s| sh::COVERS.set(s, 1u64), "disagrees with the log"),
        (
            |s| sh::PAGES_OFFSET.set(s, 4104u64),
            "disagrees with the log",
        ),
        (|s| sh::PAGES_OFFSET.set(s, 0u64), "disagrees with the log"),
        (
            |s| s.resize(s.len() + 4096, 0),
            "a length that its header does not give",
        ),
        (|s| s[3000] = 1, "padding that is not zero"),
        (
            |s| foot(s)[pf::RESERVED.offset] = 1,
            "unused bytes of a page",
        ),
        (|s| pf::PAGE.set(foot(s), 1u32), "another number or count"),
        (|s| pf::COUNT.set(foot(s), 5u32), "another number or count"),
        (|s| record(s, 40)[0] = 1, "unused bytes of a page"),
        (
            |s| record(s, 2)[ir::PAD.offset] = 1,
            "a record with padding",
        ),
        (
            |s| record(s, 2)[ir::RESERVED.offset] = 1,
            "a record with reserved",
        ),
        (|s| swap(s, 1, 2), "keys that do not rise"),
        (|s| copy(s, 1, 0), "do not rise"),
        (|s| two_buckets(s), "does not count its records"),
    ];
    for (change, what) in cases {
        let mut forge = Forge::of(&vfs);
        let path = forge.segment(change);
        assert_found(&forge.done(), &path, what);
    }
    // Entries that are not what log and blocks say.
    let key = |n| Key::of(&noise(n, 100));
    let find = move |raw: &mut Vec<u8>, key: Key| {
        (0..63).find(|nth| ir::KEY.array(record(raw, *nth)) == key.0)
    };
    let entry = "an entry that no block and no record gives";
    let cases: Vec<(ChangeEntry, &str)> = vec![
        (
            Box::new(move |s| {
                let nth = find(s, key(0)).unwrap();
                ir::OFFSET.set(record(s, nth), 264u32);
            }),
            entry,
        ),
        (
            Box::new(move |s| {
                let nth = find(s, key(0)).unwrap();
                ir::BLOCK_ID.set(record(s, nth), 2u64);
            }),
            entry,
        ),
        (
            Box::new(move |s| {
                let nth = find(s, key(0)).unwrap();
                ir::FLAGS.set(record(s, nth), 0u16);
            }),
            entry,
        ),
        (
            Box::new(move |s| {
                let nth = find(s, key(0)).unwrap();
                record(s, nth)[31] ^= 1;
            }),
            entry,
        ),
        (
            Box::new(move |s| {
                let nth = find(s, key(0)).unwrap();
                remove(s, nth);
            }),
            "no visible entry of key",
        ),
        (
            Box::new(move |s| {
                let nth = find(s, key(1)).unwrap();
                let raw = record(s, nth);
                let flags = ir::FLAGS.u16(raw) & !format::FLAG_TOMBSTONE;
                ir::FLAGS.set(raw, flags);
            }),
            "a visible entry of the hidden key",
        ),
        (
            Box::new(move |s| {
                let nth = find(s, key(1)).unwrap();
                ir::BLOCK_ID.set(record(s, nth), 0u64);
            }),
            "not the place of the hidden key",
        ),
        (
            Box::new(move |s| {
                let nth = find(s, key(0)).unwrap();
                ir::FLAGS.set(record(s, nth), format::FLAG_TOMBSTONE | 1);
            }),
            "no visible entry of key",
        ),
    ];
    for (change, what) in cases {
        let mut forge = Forge::of(&vfs);
        forge.segment(change);
        assert_found(&forge.done(), "index/shard-000", what);
    }
}

fn foot(raw: &mut [u8]) -> &mut [u8] {
    let at = raw.len() - pf::LEN;
    &mut raw[at..]
}

fn copy(raw: &mut [u8], from: usize, to: usize) {
    let bytes = record(raw, from).to_vec();
    record(raw, to).copy_from_slice(&bytes);
}

fn swap(raw: &mut [u8], a: usize, b: usize) {
    let of_a = record(raw, a).to_vec();
    let of_b = record(raw, b).to_vec();
    record(raw, a).copy_from_slice(&of_b);
    record(raw, b).copy_from_slice(&of_a);
}

/// A fan-out table of two buckets, the first of which is said to be empty.
fn two_buckets(raw: &mut [u8]) {
    sh::FANOUT_BITS.set(raw, 1u32);
    let entries = sh::ENTRIES.get(raw) as u32;
    for (at, count) in [0, 0, entries].into_iter().enumerate() {
        let from = sh::LEN + 4 * at;
        raw[from..from + 4].copy_from_slice(&count.to_le_bytes());
    }
}

/// Takes a record out.
fn remove(raw: &mut [u8], nth: usize) {
    let count = sh::ENTRIES.get(raw) as usize;
    for at in nth..count - 1 {
        swap(raw, at, at + 1);
    }
    record(raw, count - 1).fill(0);
    sh::ENTRIES.set(raw, count as u64 - 1);
    pf::COUNT.set(foot(raw), count as u32 - 1);
    let last = sh::LEN + 4;
    raw[last..last + 4].copy_from_slice(&(count as u32 - 1).to_le_bytes());
}

/// A newer entry that hides behind an older one.
#[test]
fn the_newest_entry_must_be_the_indexs() {
    let vfs = small_store();
    let mut w = writer(&vfs, 3).unwrap();
    w.put_anew(frame(&noise(0, 100))).unwrap();
    w.commit().unwrap();
    w.flush().unwrap();
    w.finish().unwrap();
    assert_eq!(verified(&vfs).damage, []);
    let old = reader(&small_store()).unwrap();
    let old = old.lookup(&Key::of(&noise(0, 100))).unwrap().unwrap();
    // The second segment says what the first one said.
    let mut forge = Forge::of(&vfs);
    let at = forge.nth(format::RECORD_SEGMENTS, 1);
    let first = forge.nth(format::RECORD_SEGMENTS, 0);
    let other = forge.records[first].clone();
    forge.records[first] = forge.records[at].clone();
    forge.segment(|s| {
        let nth = (0..63).find(|nth| ir::KEY.array(record(s, *nth)) == old.key.0);
        old.encode(record(s, nth.unwrap()));
    });
    forge.records[at] = forge.records[first].clone();
    forge.records[first] = other;
    assert_found(&forge.done(), "segment-0002", "not the newest entry of key");
}

#[test]
fn filters() {
    let vfs = small_store();
    let of = reader(&vfs)
        .unwrap()
        .with_state(|state| state.segments_of(0));
    let path = filter::filter_path(0);
    let empty = filter::Filter::new(of[0].entries);
    vfs.write_file(&path, &filter::encode(0, &[(of[0], &empty)]))
        .unwrap();
    assert_found(&vfs, &path, "denies a key");
    let other = segment::SegmentRef { number: 9, ..of[0] };
    vfs.write_file(&path, &filter::encode(0, &[(other, &empty)]))
        .unwrap();
    let report = verified(&vfs);
    assert_eq!(report.damage, []);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("has no filter for segment 1"))
    );
}
