//! One append of several records is one write: a power cut may keep a later sector
//! of it and lose an earlier one. That is a torn tail, not damage.

mod common;

use asl_store::format::{SESSION_FINISHED, record_head as rh, record_tail as rt};
use asl_store::log::LogEnd;
use asl_store::vfs::fault::{CrashPolicy, FaultVfs};
use asl_store::{Result, SessionId};
use common::*;

/// A session that ends with a seal record and its own in one append.
fn session(vfs: &FaultVfs, body: usize) -> Result<()> {
    let mut w = writer(vfs, 2)?;
    w.begin_session(SessionId([5; 16]), &vec![b' '; body])?;
    for n in 0..4 {
        w.put(frame(&noise(n, 700)))?;
    }
    w.end_session(SESSION_FINISHED, None, b"{}")?;
    w.finish().map(drop)
}

/// Covers B10 in part: the cut that was once taken for damage.
#[test]
fn a_later_sector_of_a_torn_append_is_no_damage() {
    let vfs = fresh();
    vfs.crash_at(52);
    assert!(session(&vfs, 320).is_err());
    let after = vfs.power_cut(CrashPolicy::Torn { seed: 82 });
    reader(&after).unwrap();
    session(&after, 320).unwrap();
}

/// The same at every write of the session and for many ways to tear it. Bodies of
/// different lengths move the records over the borders of sectors.
#[test]
fn no_torn_append_is_taken_for_damage() {
    let mut torn = 0;
    for body in [200, 320, 440] {
        let whole = fresh();
        let start = whole.ops();
        session(&whole, body).unwrap();
        for cut in start..whole.ops() {
            let vfs = fresh();
            vfs.crash_at(cut);
            assert!(session(&vfs, body).is_err(), "operation {cut}");
            for seed in 0..400 {
                let after = vfs.power_cut(CrashPolicy::Torn { seed });
                let handle = reader(&after).unwrap();
                let end = handle.log_end().clone();
                assert!(
                    !matches!(end, LogEnd::Damaged { .. }),
                    "body {body}, operation {cut}, seed {seed}: {end:?}"
                );
                torn += u32::from(matches!(end, LogEnd::Torn { .. }));
                if seed % 16 == 0 {
                    writer(&after, 3).unwrap().finish().unwrap();
                }
            }
        }
    }
    assert!(torn > 1000, "only {torn} torn tails: the test wants more");
}

/// Offset and length of each record of a log file.
fn records(raw: &[u8]) -> Vec<(usize, usize)> {
    let mut at = asl_store::format::log_header::LEN;
    let mut found = Vec::new();
    while at < raw.len() {
        let payload = rh::PAYLOAD_LEN.u32(&raw[at..]).next_multiple_of(8) as usize;
        let len = rh::LEN + payload + rt::LEN;
        found.push((at, len));
        at += len;
    }
    found
}

/// Damage to a record that an append follows is damage still, wherever it lies.
#[test]
fn a_bad_record_before_another_append_is_damage() {
    let vfs = fresh();
    session(&vfs, 320).unwrap();
    let path = "log/log-0000000000000000.asl";
    let records = records(&vfs.read_file(path).unwrap());
    // Created, lease, session; then the append of seal and session.
    let (_, appends) = records.split_last().unwrap();
    assert_eq!(records.len(), 5);
    vfs.remove_file("log/current").unwrap();
    for (number, (offset, len)) in appends.iter().enumerate() {
        let damaged = vfs.fork();
        damaged.flip_byte(path, (offset + len / 2) as u64).unwrap();
        let end = reader(&damaged).map(|handle| handle.log_end().clone());
        let is_damage = match &end {
            Ok(end) => matches!(end, LogEnd::Damaged { .. }),
            Err(_) => true,
        };
        // Of the last append nothing is known to have been acknowledged.
        assert_eq!(is_damage, number < 3, "record {number}: {end:?}");
    }
}
