//! `asl store verify`: is every byte still what was written?

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::Path;

use asl_capture::damage::{Hit, hits};
use asl_store::{Damage, StoreHandle, VerifyCounts, VerifyOptions, VerifyReport, verify};
use serde::Serialize;

use super::captures::failed;
use crate::args::StoreVerify;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::progress::Display;
use crate::report::Outcome;
use crate::text;

/// Ranges of one damage that are printed for people; all of them are in JSON.
const RANGES_SHOWN: usize = 8;

/// What verifying found.
#[derive(Debug, Serialize)]
struct Verified {
    ok: bool,
    damage: Vec<DamageObject>,
    warnings: Vec<String>,
    notes: Vec<String>,
    checked_bytes: u64,
    blocks: u64,
    frames: u64,
    artifacts: u64,
    records: u64,
    segments: u64,
    snapshots: u64,
    quick: bool,
}

/// One thing that is not as it must be.
#[derive(Debug, Serialize)]
pub(super) struct DamageObject {
    file: String,
    what: String,
    offset: Option<u64>,
    /// Nothing is lost with a cache.
    pub(super) cache: bool,
    /// Ids of the captures that miss something by it.
    captures: Vec<String>,
    /// Capture, start, length.
    ranges: Vec<(String, u64, u64)>,
    /// Keys of the artifacts that cannot be read.
    artifacts: Vec<String>,
}

impl From<Damage> for DamageObject {
    fn from(damage: Damage) -> Self {
        Self {
            file: damage.file,
            what: damage.what,
            offset: damage.offset,
            cache: damage.cache,
            captures: Vec::new(),
            ranges: Vec::new(),
            artifacts: damage.keys.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Outcome for Verified {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "checked {}: {}, {}, {}, {}, {}",
            text::size(self.checked_bytes),
            text::count(self.blocks, "block"),
            text::count(self.artifacts, "artifact"),
            text::count(self.records, "record"),
            text::count(self.segments, "segment"),
            text::count(self.snapshots, "snapshot"),
        )?;
        for damage in &self.damage {
            damage.show(out)?;
        }
        let sum = text::count(self.damage.len() as u64, "damage");
        match (self.ok, self.quick) {
            (true, false) => writeln!(out, "every byte is as it was written"),
            (true, true) => writeln!(out, "no damage; the data itself was not read (--quick)"),
            (false, _) => writeln!(out, "{sum} found"),
        }
    }
}

impl Outcome for DamageObject {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let place = match self.offset {
            Some(offset) => format!(" at byte {offset}"),
            None => String::new(),
        };
        let cache = if self.cache { " (only a cache)" } else { "" };
        writeln!(out, "DAMAGED {}{place}{cache}", text::visible(&self.file))?;
        writeln!(out, "  {}", text::visible(&self.what))?;
        if !self.artifacts.is_empty() {
            let artifacts = text::count(self.artifacts.len() as u64, "artifact");
            writeln!(out, "  {artifacts} cannot be read")?;
        }
        for (capture, start, len) in self.ranges.iter().take(RANGES_SHOWN) {
            let (id, size) = (&capture[..capture.len().min(8)], text::size(*len));
            writeln!(out, "  capture {id} misses {size} at byte {start}")?;
        }
        if self.ranges.len() > RANGES_SHOWN {
            let more = self.ranges.len() - RANGES_SHOWN;
            writeln!(out, "  and {more} more ranges (all of them: --json)")?;
        }
        Ok(())
    }
}

/// Verifies the store.
pub fn run(face: &Face, args: &StoreVerify) -> Result {
    let (path, vfs) = face.store_files()?;
    let options = VerifyOptions {
        quick: args.quick,
        threads: std::thread::available_parallelism().map_or(2, usize::from),
        ..VerifyOptions::default()
    };
    let display = Display::new(&face.report);
    let verified = verify(vfs.clone(), &options, &display);
    display.clear();
    let action = format!("verify the store {}", text::path(path));
    let report = verified.map_err(|error| CliError::of_store(&action, path, &error))?;
    // Whatever is left of the store says what the damage hits.
    let store = StoreHandle::open(vfs).ok();
    let opens = store.is_some();
    let hits = store.map_or(Ok(Vec::new()), |store| {
        hits(&store, &numbered(&report.damage), unnamed(&report.damage))
    });
    let hits = hits.map_err(|error| failed(&action, path, &error))?;
    let lost = match &report {
        report if report.only_caches() => Lost::Caches,
        report if report.damage.iter().any(of_block) => Lost::Blocks,
        _ => Lost::Other,
    };
    let verified = result(report, hits, args.quick);
    for warning in &verified.warnings {
        face.report.warn(warning);
    }
    for note in &verified.notes {
        face.report.detail(note);
    }
    face.report.result(&verified)?;
    if verified.ok {
        return Ok(Exit::Complete);
    }
    if face.report.is_human() {
        face.report.note(&advice(path, lost, opens));
    }
    Ok(Exit::Integrity)
}

/// The worst that is damaged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// What can be made anew.
    Caches,
    /// Blocks: another copy has them.
    Blocks,
    /// Something else.
    Other,
}

fn advice(path: &Path, lost: Lost, opens: bool) -> String {
    let place = text::shell_path(path);
    if !opens {
        format!(
            "hint: the log says what is in the blocks, and nothing can be read without it. Delete \
             nothing, and copy the directory log back from wherever there is a copy of {place}. \
             If there is none, make it again from the blocks: asl store repair \
             --accept-lost-records --store {place}"
        )
    } else if lost == Lost::Caches {
        format!("hint: nothing is lost; to make the caches anew: asl store repair --store {place}")
    } else {
        let again = match lost {
            Lost::Blocks => format!(
                "From another copy of the store the rest comes whole again: asl store sync OTHER \
                 --verify --store {place}; without one, capture the disk again into the same store \
                 while it still reads, and"
            ),
            _ => "While the disk still reads, capture it again into the same store, and".to_owned(),
        };
        format!(
            "hint: what is not listed is whole. {again} what is damaged is stored anew: \
             asl-capture disk SOURCE --new --store {place}"
        )
    }
}

/// Artifacts that cannot be read, with the number of the damage that is to blame.
pub(super) fn numbered(damage: &[Damage]) -> HashMap<asl_store::Key, usize> {
    let damage = damage.iter().enumerate();
    damage
        .flat_map(|(number, damage)| damage.keys.iter().map(move |key| (*key, number)))
        .collect()
}

/// A block of which nobody can say any more what was in it.
pub(super) fn unnamed(damage: &[Damage]) -> Option<usize> {
    let mut damage = damage.iter();
    damage.position(|damage| of_block(damage) && damage.keys.is_empty())
}

fn of_block(damage: &Damage) -> bool {
    damage.file.starts_with("blocks/") || damage.file.contains("/blocks/")
}

/// What damage hits.
pub(super) fn objects(damage: Vec<Damage>, hits: Vec<Hit>) -> Vec<DamageObject> {
    let mut damage: Vec<DamageObject> = damage.into_iter().map(Into::into).collect();
    let mut captures: Vec<BTreeSet<String>> = vec![BTreeSet::new(); damage.len()];
    for hit in hits {
        let capture = hit.capture.to_string();
        captures[hit.damage].insert(capture.clone());
        damage[hit.damage]
            .ranges
            .push((capture, hit.start, hit.len));
    }
    for (damage, captures) in damage.iter_mut().zip(captures) {
        damage.captures = captures.into_iter().collect();
    }
    damage
}

fn result(report: VerifyReport, hits: Vec<Hit>, quick: bool) -> Verified {
    let ok = report.ok();
    let VerifyCounts {
        bytes,
        blocks,
        frames,
        artifacts,
        records,
        segments,
        snapshots,
        ..
    } = report.counts;
    let damage = objects(report.damage, hits);
    Verified {
        ok,
        damage,
        warnings: report.warnings,
        notes: report.notes,
        checked_bytes: bytes,
        blocks,
        frames,
        artifacts,
        records,
        segments,
        snapshots,
        quick,
    }
}
