//! `asl rm`: artifacts are hidden from here on.
//!
//! An artifact can be put by itself and be a part of others, of a capture above
//! all. Then it only stops being listed; hiding its name would take it from
//! those others too.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use asl_store::format::{ENCODING_CHUNKED, FLAG_NODE, FLAG_ROOT};
use asl_store::segment::IndexRecord;
use asl_store::{Error as StoreError, Key, StoreHandle, WriteOptions};
use serde::Serialize;

use super::find_key;
use crate::args::Rm;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::Outcome;
use crate::text;

/// What was removed.
#[derive(Debug, Serialize)]
struct Removed {
    removed: Vec<String>,
    kept_as_parts: Vec<String>,
}

impl Outcome for Removed {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        for key in &self.removed {
            writeln!(out, "removed {key}")?;
        }
        for key in &self.kept_as_parts {
            writeln!(out, "removed {key}, kept as a part of others")?;
        }
        Ok(())
    }
}

/// Hides the artifacts.
pub fn run(face: &Face, args: &Rm) -> Result {
    let (path, mut writer) = face.writer(WriteOptions::default())?;
    let store = writer.handle().clone();
    let mut wanted = HashMap::new();
    for key in &args.keys {
        let record = find_key(&store, path, key)?;
        if !record.is_root() {
            return Err(
                CliError::new(format!("{} is only a part of other artifacts", record.key)).hint(
                    format!(
                        "remove what it is a part of; see: asl ls --store {}",
                        text::shell_path(path)
                    ),
                ),
            );
        }
        wanted.insert(record.key, record);
    }
    let failed = |error: StoreError| CliError::of_store("remove", path, &error);
    let parts = parts_of_others(&store, &wanted).map_err(failed)?;
    let (shared, own): (Vec<IndexRecord>, Vec<IndexRecord>) = wanted
        .into_values()
        .partition(|record| parts.contains(&record.key));
    let unlisted: Vec<IndexRecord> = shared
        .into_iter()
        .map(|record| IndexRecord {
            flags: record.flags & !FLAG_ROOT,
            ..record
        })
        .collect();
    let own: Vec<Key> = own.iter().map(|record| record.key).collect();
    if !unlisted.is_empty() {
        writer.index_add(&unlisted).map_err(failed)?;
    }
    if !own.is_empty() {
        writer.tombstone(&own).map_err(failed)?;
    }
    face.finish(path, writer)?;
    let names = |keys: &mut dyn Iterator<Item = Key>| {
        let mut names: Vec<String> = keys.map(|key| key.to_string()).collect();
        names.sort();
        names
    };
    face.report.result(&Removed {
        removed: names(&mut own.iter().copied()),
        kept_as_parts: names(&mut unlisted.iter().map(|record| record.key)),
    })?;
    Ok(Exit::Complete)
}

/// Which of `wanted` other visible artifacts are made of. Reads every chunk list
/// and every tree node, but no data.
fn parts_of_others(
    store: &StoreHandle,
    wanted: &HashMap<Key, IndexRecord>,
) -> asl_store::Result<HashSet<Key>> {
    let mut parts = HashSet::new();
    let mut holders = Vec::new();
    store.for_each(&mut |record| {
        if record.encoding == ENCODING_CHUNKED || record.flags & FLAG_NODE != 0 {
            holders.push(record);
        }
        Ok(())
    })?;
    for record in holders {
        // What goes away with the same command holds nothing.
        if wanted.contains_key(&record.key) {
            continue;
        }
        for child in store.children(&record)? {
            if wanted.contains_key(&child) {
                parts.insert(child);
            }
        }
    }
    Ok(parts)
}
