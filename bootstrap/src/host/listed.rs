//! Who the hosts of a domain are, as its manifests and the requests that they grant say.

use std::collections::BTreeMap;

use asl_store::vfs::Vfs;
use asl_store::{Key, StoreHandle};

use super::{Asked, REQUEST_LEN_MAX};
use crate::chain::Node;
use crate::dam::{Principal, Roles};
use crate::domain::Domain;
use crate::error::Result;
use crate::id::{DomainId, KeyId};
use crate::readonly;

/// A key that acts, or acted, for the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: KeyId,
    /// What it may do, or might when it was listed last.
    pub roles: Roles,
    /// What people call its host, if the request is here that asked for it.
    pub name: Option<String>,
    /// The manifest that first listed it. Keys that came with one manifest are of one host.
    pub manifest: Key,
    /// Version of that manifest.
    pub version: u64,
    /// Whether the manifest in force lists it.
    pub in_force: bool,
    /// Whether the manifest in force revokes it.
    pub revoked: bool,
}

/// Every key that ever was a principal on the way to the head, in the order in which they came.
///
/// # Errors
/// [`asl_store::Error`] where the store cannot be read. A request that is not here, or is damaged, leaves its host without a name.
pub fn listed(store: &StoreHandle, domain: &Domain) -> Result<Vec<Listed>> {
    let head = &domain.chain.head().dam;
    let mut known: BTreeMap<KeyId, usize> = BTreeMap::new();
    let mut all: Vec<Listed> = Vec::new();
    for node in domain.chain.path() {
        let mut asked = None;
        for Principal { key, roles } in &node.dam.principals {
            let id = key.id();
            if let Some(at) = known.get(&id) {
                all[*at].roles = *roles;
                continue;
            }
            let asked = asked.get_or_insert_with(|| granted_by(store, &domain.id(), node));
            let named = asked.as_ref().filter(|asked| {
                let mut keys = asked.keys.iter();
                keys.any(|asked| asked.key == *key)
            });
            known.insert(id, all.len());
            all.push(Listed {
                key: id,
                roles: *roles,
                name: named.map(|asked| asked.name.clone()),
                manifest: node.key,
                version: node.dam.version,
                in_force: head.principal(&id).is_some(),
                revoked: head.revokes(&id),
            });
        }
    }
    Ok(all)
}

/// The request that a manifest grants: its nonce is the request's name.
fn granted_by(store: &StoreHandle, domain: &DomainId, node: &Node) -> Option<Asked> {
    let name = Key(node.dam.nonce);
    let found = store.lookup_part(&name).ok()??;
    if found.raw_len > REQUEST_LEN_MAX as u64 {
        return None;
    }
    let asked = Asked::open(&store.get_part(&name).ok()?).ok()?;
    let fits = asked.domain == *domain && Some(asked.manifest) == node.dam.prev;
    fits.then_some(asked)
}

/// The key by which this host says that it signs receipts, listed or not. For showing only: whoever has the medium can write
/// that file.
///
/// # Errors
/// [`FileError`](crate::FileError).
pub fn this_host(vfs: &dyn Vfs, domain: &DomainId) -> Result<Option<KeyId>> {
    readonly::host(vfs, domain)
}
