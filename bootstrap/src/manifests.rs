//! The manifests that the logs of one directory name, and what they say together.
//!
//! Who vouches for a store is read from the log of one instance. Another instance may know more: a later manifest, which may have
//! revoked a key that signed here; or, where an instance was begun and its domain never said again in it, all of them.
//!
//! Invariants
//! - Only manifests of one domain, which the caller names, are told; its first is known by its digest.
//! - A chain takes what it is told by its own rules, signatures included: who lends a manifest lends no trust.
//! - What continues nothing that is known is left out. The log that names it is judged for it by itself.
//!
//! Nothing is written; a crash leaves nothing.

use std::collections::HashSet;

use asl_store::{Authority, AuthorityRecord, Key, LogPosition, StoreHandle};

use crate::chain::{Candidate, Chain};
use crate::dam::{DAM_LEN_MAX, Dam};
use crate::error::Result;
use crate::id::DomainId;
use crate::policy::POLICY_LEN;

/// No signature artifact is longer.
const SIGNATURE_LEN_MAX: usize = 256;
/// Most artifacts that records of manifests may name in all. A store that has more was made to have more.
const NAMED_MAX: usize = 1 << 20;
/// Most times that all manifests are gone through, because one log continues what another one says.
const ROUNDS_MAX: usize = 64;

/// An artifact of any instance, hidden or not, of at most `max` bytes.
pub(crate) fn fetch(store: &StoreHandle, key: &Key, max: usize) -> Option<Vec<u8>> {
    let found = store.lookup_part(key).ok()??;
    (found.raw_len <= max as u64)
        .then(|| store.get_part(key).ok())
        .flatten()
}

/// The signatures that a record of authority names, as far as they are there.
pub(crate) fn signatures(store: &StoreHandle, record: &AuthorityRecord) -> Vec<Vec<u8>> {
    let keys = record.keys[1..].iter();
    keys.filter_map(|key| fetch(store, key, SIGNATURE_LEN_MAX))
        .collect()
}

/// The bytes that a record of a manifest names.
pub(crate) struct Stored {
    /// The manifest.
    pub(crate) dam: Vec<u8>,
    /// The policy that it names.
    pub(crate) policy: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

impl Stored {
    /// `None` where the manifest or its policy cannot be read.
    pub(crate) fn read(store: &StoreHandle, record: &AuthorityRecord) -> Option<Self> {
        let dam = fetch(store, &record.keys[0], DAM_LEN_MAX)?;
        let policy = fetch(store, &Dam::decode(&dam).ok()?.policy, POLICY_LEN)?;
        let signatures = signatures(store, record);
        Some(Self {
            dam,
            policy,
            signatures,
        })
    }

    pub(crate) fn candidate(&self) -> Candidate<'_> {
        Candidate {
            dam: &self.dam,
            policy: &self.policy,
            signatures: self.signatures.iter().map(Vec::as_slice).collect(),
        }
    }
}

/// The manifests that several logs name.
pub struct Manifests {
    domain: DomainId,
    store: StoreHandle,
    /// In the order of the instances, and of their logs; each once.
    records: Vec<AuthorityRecord>,
}

impl Manifests {
    /// Reads the logs of all instances of a store for what they say of `domain`.
    ///
    /// # Errors
    /// [`asl_store::Error`] where a log cannot be read.
    pub fn read(store: &StoreHandle, domain: DomainId) -> Result<Self> {
        let (mut records, mut named) = (Vec::new(), 0);
        let mut known: HashSet<AuthorityRecord> = HashSet::new();
        for instance in store.instances() {
            instance.records(LogPosition(0), &mut |record, _| {
                let record = AuthorityRecord::of_record(record);
                let dam = record.filter(|record| record.kind == Authority::Dam);
                if let Some(record) = dam
                    && named < NAMED_MAX
                    && !known.contains(&record)
                {
                    named += record.keys.len();
                    known.insert(record.clone());
                    records.push(record);
                }
                Ok(())
            })?;
        }
        Ok(Self {
            domain,
            store: store.clone(),
            records,
        })
    }

    /// The chain of the domain, from its first manifest on; `None` where no log has that.
    pub fn chain(&self) -> Option<Chain> {
        let mut chain = self.records.iter().find_map(|record| {
            let stored = Stored::read(&self.store, record)?;
            let is_first = DomainId::of_genesis(&stored.dam) == self.domain;
            is_first
                .then(|| Chain::genesis(&stored.candidate()).ok())
                .flatten()
        })?;
        self.tell(&mut chain);
        Some(chain)
    }

    /// Tells a chain of the domain everything that it does not know and that continues it, forks included.
    pub(crate) fn tell(&self, chain: &mut Chain) {
        if chain.domain() != self.domain {
            return;
        }
        for _ in 0..ROUNDS_MAX {
            let mut taken = false;
            for record in &self.records {
                if chain.node(&record.keys[0]).is_some() {
                    continue;
                }
                if let Some(stored) = Stored::read(&self.store, record) {
                    // One that is refused as a fork is kept as evidence of that.
                    let _ = chain.extend(&stored.candidate());
                    taken |= chain.node(&record.keys[0]).is_some();
                }
            }
            if !taken {
                break;
            }
        }
    }
}
