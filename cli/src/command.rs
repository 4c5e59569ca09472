//! One module per verb. Each opens what was named, calls a library, reports.

pub mod capture_disk;
pub mod captures;
pub mod completions;
pub mod disks;
pub mod domain;
mod domain_beside;
pub mod domain_draft;
pub mod domain_draft_make;
pub mod domain_export;
mod domain_govern;
pub mod domain_host;
pub mod domain_hosts;
pub mod domain_mint;
mod domain_phrase;
pub mod domain_policy;
pub mod domain_recover;
pub mod domain_revoke;
pub mod domain_rotate;
pub mod domain_verify;
pub mod domain_witness;
pub mod export;
pub mod get;
pub mod guide;
pub mod ls;
pub mod man;
pub mod promote;
mod promote_found;
mod promote_outcome;
mod promote_plan;
mod promote_refusal;
pub mod promote_status;
mod promote_target;
pub mod put;
pub mod rm;
pub mod sign_off;
pub mod stat;
pub mod store_diff;
pub mod store_info;
pub mod store_init;
pub mod store_log;
mod store_other;
pub mod store_repair;
pub mod store_snapshot;
pub mod store_sync;
pub mod store_verify;
pub mod trust;
mod wizard;

use std::path::Path;

use asl_store::segment::IndexRecord;
use asl_store::{Error as StoreError, Key, StoreHandle};

use crate::args::{At, KeyPrefix};
use crate::error::{CliError, Result};
use crate::face::{Face, Reader};
use crate::text;

/// How many keys that fit a prefix are named in an error.
const CANDIDATES: usize = 4;

/// The store as it was at a place in time.
fn at(store: StoreHandle, path: &Path, at: Option<&At>) -> Result<StoreHandle> {
    let Some(at) = at else { return Ok(store) };
    let action = match at.position {
        Some(position) => format!("read the store as of {}:{position}", at.snapshot),
        None => format!("read the store as of {}", at.snapshot),
    };
    store
        .at(&at.snapshot, at.position)
        .map_err(|error| CliError::of_store(&action, path, &error))
}

/// The stores to be searched, as they were at a place in time: snapshots are one store's, so then there must be one.
fn in_one(face: &Face, place: Option<&At>) -> Result<Vec<Reader>> {
    if place.is_some() && face.root_path().is_some() {
        return Err(CliError::usage("a snapshot is of one store, not of a root")
            .hint("name the store: --store ROOT/domains/DOMAIN_ID"));
    }
    let readers = face.readers()?.into_iter();
    readers
        .map(|reader| {
            Ok(Reader {
                store: at(reader.store, &reader.path, place)?,
                ..reader
            })
        })
        .collect()
}

/// The visible artifact of a key or of the beginning of one, and the first store that has it.
fn find_among<'r>(readers: &'r [Reader], wanted: &KeyPrefix) -> Result<(&'r Reader, IndexRecord)> {
    let mut found: Vec<(&Reader, IndexRecord)> = Vec::new();
    for reader in readers {
        let records = keys_like(&reader.store, &reader.path, wanted)?;
        for record in records {
            if found.iter().all(|(_, known)| known.key != record.key) {
                found.push((reader, record));
            }
        }
    }
    let place = readers.first().map(|reader| &*reader.path);
    match found[..] {
        [only] => Ok(only),
        _ => {
            let records: Vec<IndexRecord> = found.iter().map(|(_, record)| *record).collect();
            Err(not_one(
                &records,
                wanted,
                place.unwrap_or(Path::new("PATH")),
            ))
        }
    }
}

/// The visible artifact of a key or of the beginning of one.
fn find_key(store: &StoreHandle, path: &Path, wanted: &KeyPrefix) -> Result<IndexRecord> {
    let found = keys_like(store, path, wanted)?;
    match found[..] {
        [only] => Ok(only),
        _ => Err(not_one(&found, wanted, path)),
    }
}

/// The visible artifacts whose keys begin so.
fn keys_like(store: &StoreHandle, path: &Path, wanted: &KeyPrefix) -> Result<Vec<IndexRecord>> {
    let failed =
        |error: &StoreError| CliError::of_store(&format!("find {}", wanted.0), path, error);
    if let Ok(key) = wanted.0.parse::<Key>() {
        let found = store.lookup(&key).map_err(|error| failed(&error))?;
        return Ok(found.into_iter().collect());
    }
    let mut found = Vec::new();
    store
        .for_each(&mut |record| {
            if record.key.to_string().starts_with(&wanted.0) {
                found.push(record);
            }
            Ok(())
        })
        .map_err(|error| failed(&error))?;
    Ok(found)
}

/// Why a key, or the beginning of one, does not name one artifact.
fn not_one(found: &[IndexRecord], wanted: &KeyPrefix, path: &Path) -> CliError {
    if let (Ok(key), true) = (wanted.0.parse::<Key>(), found.is_empty()) {
        let error = StoreError::NotFound(key);
        return CliError::of_store(&format!("find {}", wanted.0), path, &error);
    }
    if found.is_empty() {
        return CliError::new(format!("no artifact begins with {}", wanted.0)).hint(format!(
            "list what there is: asl ls --store {}",
            text::shell_path(path)
        ));
    }
    let some: Vec<String> = found
        .iter()
        .take(CANDIDATES)
        .map(|record| record.key.to_string()[..(wanted.0.len() + 8).min(64)].to_owned())
        .collect();
    CliError::new(format!("{} artifacts begin with {}", found.len(), wanted.0))
        .hint(format!("give more digits: {}", some.join(", ")))
}
