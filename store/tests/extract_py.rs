//! `docs/extract.py`, written from `docs/FORMAT.md` alone, sees what we see.
//!
//! Needs a Python with its two packages, which `scripts/setup` provides.

mod common;
#[path = "common/python.rs"]
mod python;

use std::collections::BTreeMap;
use std::path::Path;

use asl_store::format::{FLAG_ROOT, SESSION_FINISHED};
use asl_store::vfs::fault::{CrashPolicy, FaultVfs};
use asl_store::{Authority, Encoder, Key, SessionId, StoreWriter};
use common::*;
use python::extract;

/// Writes the files of a store to a real directory.
fn dump(vfs: &FaultVfs) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, _) in vfs.files() {
        let to = dir.path().join(&path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, vfs.read_file(&path).unwrap()).unwrap();
    }
    dir
}

/// Keys and lengths of the visible roots, as we see them.
fn roots(vfs: &FaultVfs) -> BTreeMap<String, u64> {
    let mut roots = BTreeMap::new();
    let each = &mut |record: asl_store::segment::IndexRecord| {
        if record.is_root() {
            roots.insert(record.key.to_string(), record.raw_len);
        }
        Ok(())
    };
    reader(vfs).unwrap().for_each(each).unwrap();
    roots
}

/// The same, as the Python reader sees them. It must find no damage.
fn roots_by_extract(store: &Path) -> BTreeMap<String, u64> {
    let output = extract(store, &["artifacts"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let pairs = lines.lines().map(|line| line.split_once(' ').unwrap());
    pairs
        .map(|(key, len)| (key.to_owned(), len.parse().unwrap()))
        .collect()
}

/// Compressible and other bytes of every packaging, sessions, hidden keys.
fn fill(w: &mut StoreWriter, from: u64) -> asl_store::Result<()> {
    w.begin_session(SessionId([from as u8; 16]), b"{}")?;
    for n in from..from + 40 {
        let bytes = match n % 4 {
            0 => noise(n, 700),
            1 => format!("line {n}\n").repeat(200).into_bytes(),
            2 => noise(n, 20 << 10),
            _ => Vec::new(),
        };
        w.put(frame(&bytes))?;
        w.note(17, noise(n, 30))?;
        if n % 16 == 5 {
            w.commit()?;
        }
    }
    let parts: Vec<Vec<u8>> = (0..3).map(|n| noise(from + n, 900)).collect();
    for part in &parts {
        w.put(Encoder::new(asl_store::Compression::None).encode(
            Key::of(part),
            part.clone().into(),
            0,
        ))?;
    }
    let list: Vec<_> = parts
        .iter()
        .map(|part| (Key::of(part), part.len() as u64))
        .collect();
    w.put(Encoder::chunked(Key::of(&parts.concat()), &list, FLAG_ROOT))?;
    // They say nothing of what is in the store, and one of them names what is hidden next.
    w.authority(
        Authority::Dam,
        &[Key::of(&noise(from, 700)), Key::of(&parts[0])],
    )?;
    w.authority(Authority::Checkpoint, &[Key::of(&parts[1])])?;
    w.tombstone(&[Key::of(&noise(from, 700))])?;
    w.end_session(SESSION_FINISHED, None, b"{}")
}

#[test]
fn every_artifact_of_a_store_can_be_extracted() {
    let vfs = fresh();
    for (seed, from) in [(2, 0), (3, 100), (4, 200)] {
        let mut w = writer(&vfs, seed).unwrap();
        fill(&mut w, from).unwrap();
        w.flush().unwrap();
        w.snapshot("label").unwrap();
        w.finish().unwrap();
    }
    let dir = dump(&vfs);
    let ours = roots(&vfs);
    assert!(ours.len() > 60, "{}", ours.len());
    assert_eq!(roots_by_extract(dir.path()), ours);
    let verified = extract(dir.path(), &["verify"]);
    let said = String::from_utf8(verified.stdout).unwrap();
    assert!(said.starts_with("ok: "), "{said}{:?}", verified.stderr);
    let handle = reader(&vfs).unwrap();
    for key in ours.keys().step_by(7).chain(
        ours.iter()
            .filter(|(_, len)| **len == 2700)
            .map(|(key, _)| key),
    ) {
        let got = extract(dir.path(), &["get", key]);
        assert_eq!(got.stdout, handle.get(&key.parse().unwrap()).unwrap());
    }
    let hidden = Key::of(&noise(100, 700)).to_string();
    assert!(!extract(dir.path(), &["get", &hidden]).status.success());
}

/// Whatever a power cut leaves, both readers see the same and neither calls it damage;
/// likewise after the next writer has mended it.
#[test]
fn both_readers_agree_after_power_cuts() {
    let whole = fresh();
    let mut w = writer(&whole, 2).unwrap();
    fill(&mut w, 0).unwrap();
    w.finish().unwrap();
    let total = whole.ops();
    for cut in 0..24 {
        let vfs = fresh();
        let start = vfs.ops();
        vfs.crash_at(start + 7 + (total - start) * cut / 24);
        let _ = writer(&vfs, 2).and_then(|mut w| {
            fill(&mut w, 0)?;
            w.finish()
        });
        let after = vfs.power_cut(CrashPolicy::Torn { seed: cut });
        assert_eq!(
            roots_by_extract(dump(&after).path()),
            roots(&after),
            "cut {cut}"
        );
        writer(&after, 3).unwrap().finish().unwrap();
        let dir = dump(&after);
        assert_eq!(
            roots_by_extract(dir.path()),
            roots(&after),
            "cut {cut}, mended"
        );
        let verified = extract(dir.path(), &["verify"]);
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success(), "cut {cut}: {said}");
    }
}
