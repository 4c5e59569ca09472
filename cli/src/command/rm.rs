//! `asl rm`: artifacts are hidden from here on.
//!
//! Only names are hidden. What is also a part of something else, of a capture
//! above all, stays readable through that; snapshots from before still list it.

use std::collections::BTreeSet;
use std::io::{self, Write};

use asl_store::{Key, WriteOptions};
use serde::Serialize;

use super::find_key;
use crate::args::{KeyPrefix, Rm};
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::Outcome;
use crate::{root, text, writable};

/// What was removed.
#[derive(Debug, Serialize)]
struct Removed {
    removed: Vec<String>,
}

impl Outcome for Removed {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        for key in &self.removed {
            writeln!(out, "removed {key}")?;
        }
        Ok(())
    }
}

/// Hides the artifacts: all, or none if one of them is not there.
pub fn run(face: &Face, args: &Rm) -> Result {
    let (path, mut writer) = face.writer(WriteOptions::default())?;
    writable::require("remove", path, writer.handle())?;
    let store = writer.handle().clone();
    let mut keys = BTreeSet::new();
    for key in &args.keys {
        let record = match find_key(&store, path, key) {
            Err(error) => return Err(foreign(face, key)?.unwrap_or(error)),
            Ok(record) => record,
        };
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
        keys.insert(record.key);
    }
    let keys: Vec<Key> = keys.into_iter().collect();
    writer
        .tombstone(&keys)
        .map_err(|error| CliError::of_store("remove", path, &error))?;
    face.finish(path, writer)?;
    face.report.result(&Removed {
        removed: keys.iter().map(ToString::to_string).collect(),
    })?;
    Ok(Exit::Complete)
}

/// Why a key that the own domain of a root does not have cannot be removed, if another one has it.
fn foreign(face: &Face, wanted: &KeyPrefix) -> Result<Option<CliError>> {
    for member in face.foreign()? {
        let store = root::open(&member)?;
        if find_key(&store, &member.path, wanted).is_ok() {
            return Ok(Some(
                CliError::new(format!(
                    "{} is in another domain, which is only read here",
                    wanted.0
                ))
                .exit(Exit::Policy)
                .hint(format!(
                    "where its keys are, name its store: --store {}",
                    text::shell_path(&member.path)
                )),
            ));
        }
    }
    Ok(None)
}
