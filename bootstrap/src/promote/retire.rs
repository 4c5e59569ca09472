//! Giving a source up in its own log, where its owner asks for it: the only thing that is ever written to one.
//!
//! Order: the link and its signatures, and in the same append the record; a checkpoint, if the key for it is at hand; `meta/`.
//!
//! Crash: no record, or no checkpoint; the same call makes up for it.

use asl_store::{Authority, Key, StoreWriter};

use super::Link;
use super::commit::roots;
use super::error::PromoteError;
use super::plan::open_target;
use crate::dam::Roles;
use crate::domain::{Domain, LineageState};
use crate::error::Result;
use crate::keyfile::{KeyFile, Role};
use crate::lineage::{self, Lineage, Op};
use crate::mint::{self, MintError};

/// Whether something was to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// It is given up from now on.
    Now {
        /// The link.
        link: Key,
    },
    /// It was already.
    Already,
}

/// Says in the child's own log that it was given up for the domain that took it over by `taken`, each of an instance in the child's
/// directory. It is said in the log that is written here, and is of the domain: the
/// logs of other instances are told by [`carry`](crate::carry) when they are written to again.
///
/// # Errors
/// [`PromoteError::ChildRoots`], [`PromoteError::TargetChanged`] where the store is not the one that was taken over;
/// [`MintError`]; whatever the store refuses.
pub fn retire(writer: &mut StoreWriter, keys: &KeyFile, taken: &[Link]) -> Result<Retired> {
    writer.commit()?;
    let child = open_target(writer.handle())?;
    // Where nobody wrote before, an instance was just begun that nobody took over: any other one stands for it.
    let Link {
        key: artifact,
        lineage: taken,
        ..
    } = (writer.handle().instances().iter())
        .find_map(|instance| {
            let store = instance.with_state(asl_store::state::State::store_id);
            taken.iter().find(|link| link.lineage.store == store)
        })
        .filter(|link| link.lineage.child == child.id())
        .ok_or(PromoteError::TargetChanged)?;
    keys.require_domain(&child.id())?;
    let known = child
        .links()
        .any(|(_, link)| link.op == Op::Retire && link.parent == taken.parent);
    let mut now = Retired::Already;
    if !known {
        let head = child.chain.head();
        let signers = roots(&head.dam, &child.id(), keys)
            .map_err(|(have, need)| PromoteError::ChildRoots { have, need })?;
        let link = Lineage {
            op: Op::Retire,
            child_head: head.key,
            log: Vec::new(),
            sessions: Vec::new(),
            prev: Some(*artifact),
            ..taken.clone()
        };
        let body = link.encode()?;
        let mut named = vec![mint::put(writer, &body)?];
        for signer in signers {
            let signature = lineage::sign(signer, &child.id(), &body).encode();
            named.push(mint::put(writer, &signature)?);
        }
        writer.authority(Authority::Lineage, &named)?;
        now = Retired::Now { link: named[0] };
    }
    match mint::checkpoint(writer, keys) {
        // A rescue system may have no key for that.
        Err(crate::Error::Mint(MintError::NoKey {
            role: Roles::CHECKPOINT,
        })) => {}
        other => drop(other?),
    }
    let host = keys.signers(Role::Host).next().map(|signer| signer.id());
    let child = Domain::read(writer.handle())?.ok_or(MintError::NoDomain)?;
    let handle = writer.handle();
    crate::meta::materialise(&**handle.vfs(), handle, &child, host)?;
    Ok(now)
}

/// What a domain took over, and what it was given up for: each link with where it stands in the log, oldest first.
pub fn status(domain: &Domain) -> Vec<(&LineageState, &Lineage)> {
    domain.links().collect()
}
