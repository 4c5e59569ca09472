//! `meta/`: what the log says of the domain, as plain files for people and for other tools.
//!
//! ```text
//! meta/dam/dam-current.art         the manifest in force, as it is stored
//! meta/policy/policy-current.art   the policy that it names
//! meta/keys/pub/<key id>.pub       each key that it lists: `ed25519 <64 hexadecimal digits>`
//! meta/host/host-id                id of the key that signs this host's receipts
//! ```
//!
//! Invariants
//! - Nothing here is ever an input: who wants to know reads the log. Private keys beside it (`meta/keys/priv`) are no part of
//!   this; nothing here touches them.
//! - A file that differs is told and made again. One that an earlier manifest explains is outdated, any other is foreign.
//!
//! Crash: each file is old or new, whole; the next materialising makes the rest.

use std::collections::BTreeMap;

use asl_store::id::hex;
use asl_store::vfs::Vfs;
use asl_store::{Key, StoreHandle};

use crate::chain::Node;
use crate::dam::{DAM_LEN_MAX, Dam};
use crate::domain::Domain;
use crate::error::Result;
use crate::files::{self, Readers};
use crate::id::KeyId;
use crate::key::PublicKey;

/// The manifest in force.
pub const DAM_PATH: &str = "meta/dam/dam-current.art";
/// Its policy.
pub const POLICY_PATH: &str = "meta/policy/policy-current.art";
/// Directory of public keys.
pub const PUBLIC_DIR: &str = "meta/keys/pub";
/// Which produce key is this host's.
pub const HOST_PATH: &str = "meta/host/host-id";

/// How a file was found that is not as the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Not there.
    Missing,
    /// As an earlier manifest of the domain says.
    Outdated,
    /// As nothing in the log says: damaged, or somebody's invention. To be shown.
    Foreign,
}

/// A file that was not as the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The file, below the store's root.
    pub path: String,
    /// How it was found.
    pub found: Found,
    /// What belongs there; nothing where the manifest in force lists no such key.
    expected: Option<Vec<u8>>,
}

impl Difference {
    /// Whether the file has no business to be there.
    pub fn is_surplus(&self) -> bool {
        self.expected.is_none()
    }
}

/// Where the file of a public key lies, below the store's root.
pub fn public_key_path(key: &KeyId) -> String {
    format!("{PUBLIC_DIR}/{key}.pub")
}

/// Compares the files with the log, and changes nothing. `host` is this host's produce key; where it is not known, that file is left
/// out.
///
/// # Errors
/// [`FileError`](crate::FileError) where a file cannot be looked at; [`asl_store::Error`] where the manifest cannot be read.
pub fn compare(
    vfs: &dyn Vfs,
    store: &StoreHandle,
    domain: &Domain,
    host: Option<KeyId>,
) -> Result<Vec<Difference>> {
    let head = domain.chain.head();
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    files.insert(DAM_PATH.into(), store.get_part(&head.key)?);
    files.insert(POLICY_PATH.into(), head.policy.encode());
    for key in keys_of(&head.dam) {
        files.insert(public_key_path(&key.id()), public_text(&key));
    }
    if let Some(host) = host {
        files.insert(HOST_PATH.into(), format!("{host}\n").into_bytes());
    }
    let mut differences = Vec::new();
    for name in files::names(vfs, PUBLIC_DIR)? {
        let path = format!("{PUBLIC_DIR}/{name}");
        let id = name.strip_suffix(".new").unwrap_or(&name);
        let Some(id) = id.strip_suffix(".pub").and_then(|id| id.parse().ok()) else {
            // Not a name of ours: not ours to remove.
            continue;
        };
        if !files.contains_key(&path) {
            let found = match was_listed(domain, &id) || name.ends_with(".new") {
                true => Found::Outdated,
                false => Found::Foreign,
            };
            differences.push(Difference {
                path,
                found,
                expected: None,
            });
        }
    }
    for (path, expected) in files {
        let found = match files::read(vfs, &path, DAM_LEN_MAX)? {
            Some(bytes) if bytes == expected => continue,
            Some(bytes) if was_current(domain, &path, &bytes) => Found::Outdated,
            Some(_) => Found::Foreign,
            None => Found::Missing,
        };
        differences.push(Difference {
            path,
            found,
            expected: Some(expected),
        });
    }
    Ok(differences)
}

/// Makes the files as the log says, and tells which were not. The caller holds the store's writer lock.
///
/// # Errors
/// As [`compare`], and where the filesystem refuses to write.
pub fn materialise(
    vfs: &dyn Vfs,
    store: &StoreHandle,
    domain: &Domain,
    host: Option<KeyId>,
) -> Result<Vec<Difference>> {
    let differences = compare(vfs, store, domain, host)?;
    for Difference { path, expected, .. } in &differences {
        match expected {
            Some(bytes) => files::replace(vfs, path, Readers::All, bytes)?,
            None => {
                files::remove(vfs, path)?;
                files::sync_dir(vfs, PUBLIC_DIR)?;
            }
        }
    }
    Ok(differences)
}

fn public_text(key: &PublicKey) -> Vec<u8> {
    format!("ed25519 {}\n", hex(key.bytes())).into_bytes()
}

/// Every key that a manifest lists.
fn keys_of(dam: &Dam) -> impl Iterator<Item = PublicKey> + '_ {
    let principals = dam.principals.iter().map(|principal| principal.key);
    let witnesses = dam.witness.members.iter().map(|member| member.key);
    dam.roots.iter().copied().chain(principals).chain(witnesses)
}

/// The valid manifests of the domain, voided and refused ones included.
fn manifests(domain: &Domain) -> impl Iterator<Item = &Node> {
    domain
        .manifests
        .keys()
        .filter_map(|key| domain.chain.node(key))
}

fn was_listed(domain: &Domain, id: &KeyId) -> bool {
    manifests(domain).any(|node| keys_of(&node.dam).any(|key| key.id() == *id))
}

/// Whether some manifest of the domain would have these bytes in this file.
fn was_current(domain: &Domain, path: &str, bytes: &[u8]) -> bool {
    match path {
        DAM_PATH => domain.manifests.contains_key(&Key::of(bytes)),
        POLICY_PATH => manifests(domain).any(|node| node.policy.encode() == bytes),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
