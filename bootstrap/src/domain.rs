//! What a store's log says of its domain: the manifests, checkpoints and receipts, each judged.
//!
//! Invariants
//! - Only the log and the artifacts that it names are read; nothing under `meta/` is.
//! - The first manifest in the log founds the domain, and if that one cannot be read there is an error, not another domain:
//!   whoever damaged it could otherwise append a first manifest of their own.
//! - Whatever does not count is a [`Finding`] with its reason. One unreadable manifest may hide a revocation: see
//!   [`Domain::is_blind`].
//! - A signature counts by the manifest that was in force where its record stands, if that manifest still leads to the head,
//!   and by the revocations of the head.
//! - Memory grows with what is counted (manifests, checkpoints, receipts, ends of sessions), not with the log.
//!
//! Nothing is written; a crash leaves nothing.

mod finding;
mod walk;

use std::collections::BTreeMap;

use asl_store::format;
use asl_store::id::Digest;
use asl_store::{Key, LogPosition, SessionId, StoreHandle, StoreId};

use crate::chain::{Chain, ChainError};
use crate::checkpoint::{Checkpoint, Origin};
use crate::error::Result;
use crate::id::{DomainId, KeyId};
use crate::lineage::{Lineage, Op};
use crate::manifests::Manifests;
use crate::receipt::{Receipt, ReceiptKind};
use crate::tlog::{Frontier, TreeHash};

pub use finding::{Class, Finding, Problem};

/// Most checkpoints and most receipts that are judged. A store that has more was made to have more.
pub const CLAIMS_MAX: usize = 1 << 18;

/// A store whose first manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// It cannot be read, or breaks a rule.
    #[error("record {position} should found the domain, and its manifest {dam} does not")]
    Genesis {
        /// The record.
        position: LogPosition,
        /// The manifest that it names.
        dam: Key,
        /// Why.
        source: Box<Problem>,
    },
}

/// A checkpoint that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointState {
    /// The record that brought it.
    pub record: LogPosition,
    /// The artifact.
    pub key: Key,
    /// Records that it covers.
    pub size: u64,
    /// Root of the tree over them, as in the log.
    pub root: TreeHash,
    /// The domain's keys whose signatures count, ascending.
    pub signers: Vec<KeyId>,
    /// Listed witnesses that cosigned.
    pub cosigners: BTreeMap<KeyId, Cosigned>,
    /// The artifact that brought the last cosignatures; `key` where there were none.
    pub note: Key,
    /// The manifest in force at the record: it says who may sign, and who watches.
    pub in_force: Key,
}

/// A cosignature that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cosigned {
    /// The first record that brought it.
    pub record: LogPosition,
    /// When the witness says that it cosigned, in seconds since 1970. The latest of several.
    pub time: u64,
}

/// A receipt that agrees with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptState {
    /// The artifact.
    pub key: Key,
    /// What it says.
    pub receipt: Receipt,
    /// Keys whose signatures count. None: nobody vouches for it.
    pub signers: BTreeMap<KeyId, Signed>,
    /// The first record that names it.
    pub record: LogPosition,
}

/// A signature that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// The first record that brought it.
    pub record: LogPosition,
    /// The manifest in force there, which lists the key.
    pub in_force: Key,
}

/// A link to another domain that enough roots signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineageState {
    /// The record.
    pub record: LogPosition,
    /// When the record was written, Unix time in nanoseconds; untrusted.
    pub time_unix_ns: i64,
    /// The artifact.
    pub key: Key,
    /// The roots, ascending.
    pub signers: Vec<KeyId>,
    /// The manifest in force there, which lists them.
    pub in_force: Key,
    /// What it says; `None` if this program cannot read it, and then the domain is [blind](Domain::is_blind).
    pub lineage: Option<Lineage>,
    /// Roots of the child that signed it too, ascending; as far as its manifest is here.
    pub child_signers: Vec<KeyId>,
    /// Whether these are as many as the child's manifest asks for. If not, the child was adopted one-sidedly.
    pub handed_over: bool,
}

/// A record of the log that ended or interrupted a session with a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEnd {
    /// The session.
    pub session: SessionId,
    /// The root that the record states.
    pub root: Key,
    /// Whether it was the end.
    pub finished: bool,
    /// The log's chain value after the record.
    pub chain: Digest,
}

/// The domain of a store.
#[derive(Debug)]
pub struct Domain {
    /// The store instance.
    pub store: StoreId,
    /// Its manifests.
    pub chain: Chain,
    /// The record that brought each valid manifest; none for one that only another instance's log has.
    pub manifests: BTreeMap<Key, LogPosition>,
    /// The tree over the whole log.
    pub tree: Frontier,
    /// The log's chain value after its last record.
    pub head: Digest,
    /// Checkpoints that count, by the records that brought them.
    pub checkpoints: Vec<CheckpointState>,
    /// Checkpoints that would count, had as many witnesses cosigned as the policy wants; by their records.
    pub unwitnessed: Vec<CheckpointState>,
    /// Receipts that agree with the log, signed or not, by the records that first name them.
    pub receipts: Vec<ReceiptState>,
    /// Ends and interruptions of sessions, by their records.
    pub ends: BTreeMap<LogPosition, SessionEnd>,
    /// Links to other domains that the roots signed.
    pub lineage: Vec<LineageState>,
    /// What does not count, in the order of the log.
    pub findings: Vec<Finding>,
    /// The first record that may hide a revocation, or that the domain was given up: its manifest, or link to another domain,
    /// is not known.
    pub blind: Option<LogPosition>,
}

impl Domain {
    /// Reads the domain of the store as `store` shows it; `None` where none was minted.
    ///
    /// The log is read from its beginning, and a second time if there are checkpoints: where in the log they are of is
    /// known only once they were read.
    ///
    /// # Errors
    /// [`DomainError::Genesis`]; [`asl_store::Error`] where the log itself cannot be read.
    pub fn read(store: &StoreHandle) -> Result<Option<Self>> {
        walk::read(store, None)
    }

    /// The same for an instance that does not lie alone: judged by what the logs of all of them say of the domain. Where this log
    /// says nothing of it, `manifests` do; where it does, they say what came to pass elsewhere. What this log's own records of
    /// authority need is still in the manifest that it has in force at their place.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_among(store: &StoreHandle, manifests: &Manifests) -> Result<Option<Self>> {
        walk::read(store, Some(manifests))
    }

    /// Its name.
    pub fn id(&self) -> DomainId {
        self.chain.domain()
    }

    /// The log that checkpoints are of.
    pub fn origin(&self) -> Origin {
        Origin {
            domain: self.id(),
            store: self.store,
        }
    }

    /// The checkpoint of the log as it is.
    pub fn head_checkpoint(&self) -> Checkpoint {
        Checkpoint {
            origin: self.origin(),
            size: self.tree.size(),
            root: self.tree.root(),
        }
    }

    /// How many records, from the first on, the largest counting checkpoint covers.
    pub fn covered(&self) -> u64 {
        let sizes = self.checkpoints.iter().map(|checkpoint| checkpoint.size);
        sizes.max().unwrap_or(0)
    }

    /// The largest checkpoint that was signed rightly, cosigned or not: what is shown to witnesses.
    pub fn newest_checkpoint(&self) -> Option<&CheckpointState> {
        let all = self.checkpoints.iter().chain(&self.unwitnessed);
        all.max_by_key(|state| (state.size, state.record))
    }

    /// Whether something critical is not known, so that a revocation may be hidden. Nobody but the reader of a report should go on
    /// then.
    pub fn is_blind(&self) -> bool {
        self.blind.is_some()
    }

    /// The links that this program can read, with what they say, in the order of the log.
    pub fn links(&self) -> impl Iterator<Item = (&LineageState, &Lineage)> {
        let states = self.lineage.iter();
        states.filter_map(|state| Some((state, state.lineage.as_ref()?)))
    }

    /// The domain that this one was given up for, and the record that says so: the newest.
    pub fn retired_to(&self) -> Option<(DomainId, LogPosition)> {
        let newest = self.retirement();
        newest.map(|(state, link)| (link.parent, state.record))
    }

    /// The newest link by which this domain was given up for another one, which is the link's parent.
    pub fn retirement(&self) -> Option<(&LineageState, &Lineage)> {
        let retired = self.links().filter(|(_, link)| link.op == Op::Retire);
        retired.max_by_key(|(state, _)| state.record)
    }

    /// How bad a finding is, all things considered: a fork that a rotation settled is history.
    pub fn class_of(&self, finding: &Finding) -> Class {
        match &finding.problem {
            Problem::Manifest(ChainError::UpdateFork { theirs, .. })
                if self.chain.forks().iter().all(|fork| fork.theirs != *theirs) =>
            {
                Class::Note
            }
            problem => problem.class(),
        }
    }

    /// The receipt that the log supports for a session: of the last record that ended it with this root.
    pub fn receipt_of(&self, kind: ReceiptKind, session: SessionId, root: Key) -> Option<Receipt> {
        let mut ends = self.ends.iter().rev();
        let (position, end) =
            ends.find(|(_, end)| end.finished && end.session == session && end.root == root)?;
        Some(Receipt {
            kind,
            store: self.store,
            subject: root,
            session,
            position: *position,
            chain: end.chain,
        })
    }

    /// The receipt of a session with this root that counts, signed ones first.
    pub fn receipt(&self, session: SessionId, root: Key) -> Option<&ReceiptState> {
        let of = |state: &&ReceiptState| {
            state.receipt.session == session && state.receipt.subject == root
        };
        let found = self.receipts.iter().filter(of);
        found.max_by_key(|state| !state.signers.is_empty())
    }
}

/// Reads what a record says of a session; `None` where it states no root.
fn session_end(record: &asl_store::log::Record) -> Option<SessionEnd> {
    use format::session_payload as np;
    if record.record_type != format::RECORD_SESSION || record.payload.len() < np::LEN {
        return None;
    }
    let root = Key(np::ROOT.array(&record.payload));
    (root != Key::ZERO).then(|| SessionEnd {
        session: SessionId(np::SESSION.array(&record.payload)),
        root,
        finished: np::KIND.u8(&record.payload) == format::SESSION_FINISHED,
        chain: record.chain,
    })
}

#[cfg(test)]
mod tests;
