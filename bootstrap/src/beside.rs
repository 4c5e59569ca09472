//! The other instances of a store, judged by the manifests of ours.
//!
//! Each host of a domain writes a log of its own and signs that. What its log says of the domain is as old as its last sync: a
//! key that we revoked may still be good there. So its signatures are held against our manifests as well.
//!
//! Invariants
//! - A signature counts here only if it counts by the other log's manifests and by ours.
//! - Of a log that goes another way than ours nothing counts.
//!
//! Nothing is written; a crash leaves nothing.

use std::collections::{BTreeMap, BTreeSet};

use asl_store::{Key, LogPosition, SessionId, StoreHandle, StoreId};

use crate::chain::Standing;
use crate::domain::{Class, Domain};
use crate::id::{DomainId, KeyId};

/// How the manifests of another instance stand to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// The same one is in force.
    Same,
    /// It lacks our newest.
    Behind,
    /// It has newer ones that continue ours; the next command that writes here takes them over.
    Ahead,
    /// Both went on from one manifest, each another way.
    Forked {
        /// The one in force here.
        ours: Key,
        /// The one in force there.
        theirs: Key,
    },
    /// Its log is of another domain.
    Other(DomainId),
    /// Its log says nothing of a domain.
    None,
    /// Its log, or a manifest in it, cannot be read.
    Unknown,
}

/// What another instance's log proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// The instance.
    pub store: StoreId,
    /// Its manifests.
    pub history: History,
    /// Records in its log, as far as it was read.
    pub records: u64,
    /// How many of them are under a checkpoint that counts.
    pub signed: u64,
    /// Who signed that checkpoint.
    pub checkpoint_by: Vec<KeyId>,
    /// Receipts that count, by the keys that signed them.
    pub receipts: BTreeMap<KeyId, usize>,
    /// Sessions whose receipts these are, with their roots.
    pub vouched: BTreeSet<(SessionId, Key)>,
    /// Keys of which signatures do not count by our manifests: they were revoked here, or ours are older.
    pub refused: BTreeSet<KeyId>,
    /// The worst that its own log shows; `None` where nothing is wrong.
    pub class: Option<Class>,
}

impl Beside {
    fn unread(store: StoreId, history: History) -> Self {
        Self {
            store,
            history,
            records: 0,
            signed: 0,
            checkpoint_by: Vec::new(),
            receipts: BTreeMap::new(),
            vouched: BTreeSet::new(),
            refused: BTreeSet::new(),
            class: None,
        }
    }
}

/// The other instances that `store` shows, each judged by `ours`.
pub fn beside(store: &StoreHandle, ours: &Domain) -> Vec<Beside> {
    // The own one comes first.
    let others = store.instances().into_iter().skip(1);
    others.map(|instance| judge(&instance, ours)).collect()
}

/// The first instance whose manifests go another way than ours: both heads, ours first.
pub fn fork(store: &StoreHandle, ours: &Domain) -> Option<(Key, Key)> {
    let mut others = beside(store, ours).into_iter();
    others.find_map(|other| match other.history {
        History::Forked { ours, theirs } => Some((ours, theirs)),
        _ => None,
    })
}

fn judge(instance: &StoreHandle, ours: &Domain) -> Beside {
    let store = instance.with_state(|state| state.store_id());
    let theirs = match Domain::read(instance) {
        Ok(Some(theirs)) => theirs,
        Ok(None) => return Beside::unread(store, History::None),
        Err(_) => return Beside::unread(store, History::Unknown),
    };
    if theirs.id() != ours.id() {
        return Beside::unread(store, History::Other(theirs.id()));
    }
    let mut judged = Beside {
        records: theirs.tree.size(),
        class: (theirs.findings.iter())
            .map(|finding| theirs.class_of(finding))
            .filter(|class| *class != Class::Note)
            .max(),
        ..Beside::unread(store, history(ours, &theirs))
    };
    if matches!(judged.history, History::Forked { .. } | History::Unknown) {
        return judged;
    }
    let mut counts = |key: &KeyId, in_force: &Key, at: LogPosition, covered: bool| {
        let chain = &ours.chain;
        let counts = chain.standing(in_force) == Some(Standing::OnPath)
            && chain.signature_counts(key, store, at, covered).is_ok();
        if !counts {
            judged.refused.insert(*key);
        }
        counts
    };
    let mut best: Option<(u64, Vec<KeyId>)> = None;
    for state in &theirs.checkpoints {
        let mut signers = state.signers.clone();
        // A checkpoint is what covers.
        signers.retain(|key| counts(key, &state.in_force, state.record, true));
        if !signers.is_empty() && best.as_ref().is_none_or(|(size, _)| *size < state.size) {
            best = Some((state.size, signers));
        }
    }
    let (signed, checkpoint_by) = best.unwrap_or_default();
    let (mut receipts, mut vouched) = (BTreeMap::new(), BTreeSet::new());
    for state in &theirs.receipts {
        for (key, at) in &state.signers {
            if counts(key, &at.in_force, at.record, at.record.0 < signed) {
                *receipts.entry(*key).or_default() += 1;
                vouched.insert((state.receipt.session, state.receipt.subject));
            }
        }
    }
    judged.receipts = receipts;
    judged.vouched = vouched;
    judged.signed = signed;
    judged.checkpoint_by = checkpoint_by;
    judged
}

fn history(ours: &Domain, theirs: &Domain) -> History {
    let (here, there) = (ours.chain.head_key(), theirs.chain.head_key());
    if theirs.is_blind() {
        History::Unknown
    } else if here == there {
        History::Same
    } else if ours.chain.standing(&there) == Some(Standing::OnPath) {
        History::Behind
    } else if theirs.chain.standing(&here) == Some(Standing::OnPath) {
        History::Ahead
    } else {
        History::Forked {
            ours: here,
            theirs: there,
        }
    }
}
