//! Carrying a domain over to an instance that was begun beside others.
//!
//! Who vouches for a store is read from the log of one instance. A new one has nothing of it, and another one may have got what
//! ours lacks: manifests, and links to other domains. What counts by our own chain is said again in our own log. Receipts and
//! checkpoints are of the log that they stand in and stay there.
//!
//! Invariants
//! - A manifest is carried only if our chain takes it as its continuation, and nothing of another domain. What forks is carried only
//!   together with a rotation that goes on from it, which settles the fork.
//! - Where our log has no domain, one is taken only if all instances that have one agree on which it is.
//! - A link is carried only if it would count in our log: enough roots of the manifest in force signed it.
//! - What was carried is not carried again: records are alike if they name the same artifacts in the same order.
//!
//! Order of writes: the artifacts of one record, then the record, in one append each. Crash: what was carried before it
//! stays, the next run goes on. Nothing is signed.

use std::collections::HashSet;

use asl_store::{Authority, AuthorityRecord, LogPosition, StoreHandle, StoreWriter};

use crate::chain::{Chain, ChainError};
use crate::dam::DAM_LEN_MAX;
use crate::domain::Domain;
use crate::error::Result;
use crate::id::DomainId;
use crate::lineage::Lineage;
use crate::manifests::{Stored, fetch, signatures};
use crate::mint;
use crate::sign::{Context, Signature, signers};

/// What was said again in our own log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Manifests.
    pub manifests: u64,
    /// Links to other domains.
    pub links: u64,
    /// Whether instances have different domains and ours has none: nothing was carried then.
    pub disagree: bool,
}

impl Carried {
    /// Whether anything was written.
    pub fn any(&self) -> bool {
        self.manifests + self.links > 0
    }
}

/// Appends to the writer's log what other instances' logs have of its domain and it lacks.
///
/// # Errors
/// [`DomainError`](crate::DomainError) where our own first manifest cannot be used; [`asl_store::Error`].
pub fn carry(writer: &mut StoreWriter) -> Result<Carried> {
    let mut carried = Carried::default();
    let handle = writer.handle().clone();
    let mut instances = handle.instances();
    let ours = instances.remove(0);
    if instances.is_empty() {
        return Ok(carried);
    }
    let known: HashSet<AuthorityRecord> = records(&ours)?.into_iter().collect();
    let mut missing = Vec::new();
    for instance in instances {
        // One whose log cannot be read says nothing that could be relied on.
        let of = records(&instance).unwrap_or_default();
        let of: Vec<_> = of.into_iter().filter(|one| !known.contains(one)).collect();
        if !of.is_empty() {
            missing.push((instance, of));
        }
    }
    if missing.is_empty() {
        return Ok(carried);
    }
    let own = Domain::read(&handle)?;
    if own.as_ref().is_some_and(Domain::is_blind) {
        return Ok(carried);
    }
    let mut chain = own.map(|domain| domain.chain);
    let domain = match &chain {
        Some(chain) => chain.domain(),
        None => {
            let founded = missing.iter().filter_map(|(_, of)| founded(&handle, of));
            let domains: HashSet<DomainId> = founded.collect();
            match domains.iter().next() {
                Some(domain) if domains.len() == 1 => *domain,
                found => {
                    carried.disagree = found.is_some();
                    return Ok(carried);
                }
            }
        }
    };
    // One instance's manifests may continue what another one has; each round takes at least one.
    let mut rest: Vec<AuthorityRecord> = missing.into_iter().flat_map(|(_, of)| of).collect();
    loop {
        let before = rest.len();
        let mut left = Vec::new();
        for record in rest {
            match record.kind {
                Authority::Dam if take(writer, &domain, &mut chain, &record)? => {
                    carried.manifests += 1;
                }
                _ => left.push(record),
            }
        }
        rest = left;
        if rest.len() == before {
            break;
        }
    }
    carried.manifests += settle(writer, &mut chain, &rest)?;
    let mut done = HashSet::new();
    for record in rest {
        let link = record.kind == Authority::Lineage && counts(&handle, chain.as_ref(), &record);
        if link && done.insert(record.clone()) {
            say(writer, &record)?;
            carried.links += 1;
        }
    }
    Ok(carried)
}

/// The manifests and links that a log names, in its order.
fn records(of: &StoreHandle) -> Result<Vec<AuthorityRecord>> {
    let mut found = Vec::new();
    of.records(LogPosition(0), &mut |record, _| {
        let record = AuthorityRecord::of_record(record);
        found.extend(record.filter(|it| matches!(it.kind, Authority::Dam | Authority::Lineage)));
        Ok(())
    })?;
    Ok(found)
}

/// The domain that the first manifest of a log founds.
fn founded(store: &StoreHandle, records: &[AuthorityRecord]) -> Option<DomainId> {
    let mut all = records.iter();
    let first = all.find(|record| record.kind == Authority::Dam)?;
    let said = Stored::read(store, first)?;
    let chain = Chain::genesis(&said.candidate());
    chain.ok().map(|chain| chain.domain())
}

/// Says a manifest in our log if our chain takes it. What it does not take now it may take after another one.
fn take(
    writer: &mut StoreWriter,
    domain: &DomainId,
    chain: &mut Option<Chain>,
    record: &AuthorityRecord,
) -> Result<bool> {
    let is_known = |chain: &Chain| chain.node(&record.keys[0]).is_some();
    if chain.as_ref().is_some_and(is_known) {
        return Ok(false);
    }
    let Some(said) = Stored::read(writer.handle(), record) else {
        return Ok(false);
    };
    let next = match chain {
        // On a copy: one that is refused may leave its trace in the chain.
        Some(chain) => {
            let mut next = chain.clone();
            next.extend(&said.candidate()).map(|_| next)
        }
        None => Chain::genesis(&said.candidate()),
    };
    let Ok(next) = next else {
        return Ok(false);
    };
    if next.domain() != *domain {
        return Ok(false);
    }
    mint::put(writer, &said.policy)?;
    say(writer, record)?;
    *chain = Some(next);
    Ok(true)
}

/// Says the updates that fork from ours, and what follows them, if a rotation is among the latter: alone it would follow something
/// unknown, and they would be evidence of a fork that nothing settles here. How many manifests were said.
fn settle(
    writer: &mut StoreWriter,
    chain: &mut Option<Chain>,
    rest: &[AuthorityRecord],
) -> Result<u64> {
    let Some(ours) = chain else {
        return Ok(0);
    };
    let (mut settled, mut taken) = (ours.clone(), Vec::new());
    loop {
        let before = taken.len();
        for record in rest.iter().filter(|record| record.kind == Authority::Dam) {
            if settled.node(&record.keys[0]).is_some() {
                continue;
            }
            let Some(said) = Stored::read(writer.handle(), record) else {
                continue;
            };
            let mut next = settled.clone();
            match next.extend(&said.candidate()) {
                Ok(_) | Err(ChainError::UpdateFork { .. } | ChainError::Void { .. }) => {
                    settled = next;
                    taken.push((record, said));
                }
                Err(_) => {}
            }
        }
        if taken.len() == before {
            break;
        }
    }
    if settled.epoch_key() == ours.epoch_key() {
        return Ok(0);
    }
    for (record, said) in &taken {
        mint::put(writer, &said.policy)?;
        say(writer, record)?;
    }
    *chain = Some(settled);
    Ok(taken.len() as u64)
}

/// Whether a link would count in our log.
fn counts(store: &StoreHandle, chain: Option<&Chain>, record: &AuthorityRecord) -> bool {
    let Some(chain) = chain else {
        return false;
    };
    let Some(body) = fetch(store, &record.keys[0], Lineage::LEN_MAX) else {
        return false;
    };
    let domain = chain.domain();
    if !Lineage::decode(&body).is_ok_and(|lineage| lineage.home() == domain) {
        return false;
    }
    let dam = &chain.head().dam;
    let signatures = signatures(store, record);
    if signatures.len() + 1 < record.keys.len() {
        // Said without the one that is lost it would be another record, and be carried again and again.
        return false;
    }
    let signatures: Vec<Signature> = signatures
        .iter()
        .filter_map(|bytes| Signature::decode(bytes).ok())
        .collect();
    let signed = signers(
        Context::Lineage,
        &domain,
        &body,
        &signatures,
        dam.roots.iter(),
    );
    signed.len() >= usize::from(dam.root_threshold)
}

/// Puts the artifacts of a record into our instance, and the record into our log.
fn say(writer: &mut StoreWriter, record: &AuthorityRecord) -> Result<()> {
    let handle = writer.handle().clone();
    let mut keys = Vec::with_capacity(record.keys.len());
    for key in &record.keys {
        // What is lost was of no use; a record names only what is there.
        if let Some(bytes) = fetch(&handle, key, DAM_LEN_MAX.max(Lineage::LEN_MAX)) {
            keys.push(mint::put(writer, &bytes)?);
        }
    }
    writer.authority(record.kind, &keys)?;
    Ok(())
}

#[cfg(test)]
mod tests;
