//! `asl store repair`: what can be made again is made again, and nothing else is
//! touched.

use std::io::{self, Write};

use asl_store::{RepairOptions, RepairReport, StoreHandle, WriteOptions, repair};
use serde::Serialize;

use crate::args::StoreRepair;
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, birth, context_at};
use crate::report::Outcome;
use crate::text;

/// What was repaired.
#[derive(Debug, Serialize)]
struct Repaired {
    salvaged_blocks: u64,
    salvaged_artifacts: u64,
    relogged_blocks: u64,
    torn_log_bytes: u64,
    /// Records that the log once had; told again from the blocks, as far as they can be.
    lost_records: u64,
    told_sessions: u64,
    adopted_blocks: u64,
    /// Where the log files lie that are not led to any more.
    evidence: Option<String>,
    rebuilt: Vec<String>,
    removed: Vec<String>,
    index: Option<IndexObject>,
    /// What is wrong with the log before its end.
    log_damage: Option<String>,
    /// What could not be made again.
    damage: Vec<String>,
    /// Files that are not this store's; left alone.
    foreign: Vec<String>,
}

/// A new index.
#[derive(Debug, Serialize)]
struct IndexObject {
    segments: u64,
    entries: u64,
    retired: u64,
}

impl From<RepairReport> for Repaired {
    fn from(report: RepairReport) -> Self {
        Self {
            salvaged_blocks: report.recovery.salvaged_blocks,
            salvaged_artifacts: report.recovery.salvaged_artifacts,
            relogged_blocks: report.recovery.relogged_blocks,
            torn_log_bytes: report.recovery.torn_log_bytes,
            lost_records: report.recovery.lost_records,
            told_sessions: report.recovery.told_sessions,
            adopted_blocks: report.recovery.adopted_blocks,
            evidence: report.recovery.evidence,
            rebuilt: report.rebuilt,
            removed: report.removed,
            index: report.index.map(|index| IndexObject {
                segments: index.segments,
                entries: index.entries,
                retired: index.retired,
            }),
            log_damage: report.log_damage,
            damage: report.notes,
            foreign: report.recovery.foreign,
        }
    }
}

impl Outcome for Repaired {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.salvaged_blocks > 0 {
            writeln!(
                out,
                "recovered what an interrupted program had left: {} with {}",
                text::count(self.salvaged_blocks, "block"),
                text::count(self.salvaged_artifacts, "artifact")
            )?;
        }
        if self.lost_records > 0 {
            let records = text::count(self.lost_records, "record");
            writeln!(
                out,
                "the log lost {records} or more; from here on it is another one"
            )?;
        }
        let again = [
            (self.relogged_blocks, "block"),
            (self.adopted_blocks, "imported block"),
            (self.told_sessions, "session"),
        ];
        for (count, what) in again {
            if count > 0 {
                writeln!(out, "put into the log again: {}", text::count(count, what))?;
            }
        }
        if let Some(evidence) = &self.evidence {
            let evidence = text::visible(evidence);
            writeln!(
                out,
                "kept, but no longer part of the log: files in {evidence}"
            )?;
        }
        for path in &self.rebuilt {
            writeln!(out, "made again: {}", text::visible(path))?;
        }
        for path in &self.removed {
            writeln!(
                out,
                "removed, it belonged to nothing: {}",
                text::visible(path)
            )?;
        }
        if let Some(index) = &self.index {
            writeln!(
                out,
                "made the index again: {} in {}",
                text::count(index.entries, "artifact"),
                text::count(index.segments, "segment")
            )?;
        }
        for damage in self.log_damage.iter().chain(&self.damage) {
            writeln!(out, "DAMAGED {}", text::visible(damage))?;
        }
        for foreign in &self.foreign {
            writeln!(out, "left alone: {}", text::visible(foreign))?;
        }
        let idle = self.salvaged_blocks + self.relogged_blocks + self.lost_records == 0
            && self.rebuilt.is_empty()
            && self.removed.is_empty()
            && self.index.is_none()
            && self.log_damage.is_none()
            && self.damage.is_empty();
        if idle {
            writeln!(out, "nothing needed repair")?;
        }
        Ok(())
    }
}

/// Repairs the store.
pub fn run(face: &Face, args: &StoreRepair) -> Result {
    let (path, vfs) = face.store_files()?;
    let options = RepairOptions {
        rebuild_index: args.rebuild_index,
        accept_lost_tail: args.accept_lost_records,
        ..RepairOptions::default()
    };
    let action = format!("repair the store {}", text::path(path));
    let failed = |error: &asl_store::Error| CliError::of_store(&action, path, error);
    let report =
        repair(vfs.clone(), context_at(path)?, &options).map_err(|error| failed(&error))?;
    if let Some(of) = report.recovery.born {
        face.report.note(&birth(path, &of));
    }
    let mut repaired = Repaired::from(report);
    // What a reader misses now could not be made again.
    let problems = StoreHandle::open(vfs)
        .map_err(|error| failed(&error))?
        .problems();
    repaired.damage.extend(
        problems
            .iter()
            .map(|problem| format!("{}: {}", problem.path, problem.what)),
    );
    face.report.result(&repaired)?;
    if repaired.damage.is_empty() && repaired.log_damage.is_none() {
        // What meta/ says of the domain is made again like every cache.
        if let Ok((path, writer)) = face.writer(WriteOptions::default()) {
            face.finish(path, writer)?;
        }
        return Ok(Exit::Complete);
    }
    if face.report.is_human() {
        let place = text::shell_path(path);
        face.report.note(&match repaired.log_damage {
            Some(_) => format!(
                "hint: what it holds can be read; if no better copy of the store exists, make the log again from the blocks: asl \
                 store repair --accept-lost-records --store {place}"
            ),
            None => format!("hint: see what that damage hits: asl store verify --store {place}"),
        });
    }
    Ok(Exit::Integrity)
}
