//! A pin: what somebody remembers of a domain, outside its stores, so that an older or other chain is not taken for it.
//!
//! A validly revealed rotation supersedes what was pinned, but only one that goes on from the pinned epoch. To compare counts
//! would not do: whoever has the current root has the key that the epoch before committed to, can rotate *that* epoch another
//! way, and then rotate again until the count is higher. So a pin names the rotation that began its epoch, and a chain must
//! contain it.

use asl_store::Key;

use crate::chain::Chain;
use crate::id::DomainId;

/// The state of a chain at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The domain.
    pub domain: DomainId,
    /// Rotations up to the head.
    pub rotation: u64,
    /// Version of the head.
    pub version: u64,
    /// Name of the head.
    pub head: Key,
    /// Name of the rotation, or genesis, that began the head's epoch.
    pub epoch: Key,
}

/// A chain compared with a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// The head is the pinned one.
    Same,
    /// The pinned head leads to the chain's.
    Ahead {
        /// Manifests since.
        versions: u64,
    },
    /// A rotation of the pinned epoch voided the pinned head. Always to be shown.
    Superseded {
        /// The rotation.
        by: Key,
    },
    /// The chain ends before the pinned head.
    Rollback {
        /// The version that the chain ends with.
        version: u64,
    },
    /// The chain goes another way than the pinned one.
    Fork {
        /// What the chain has in place of what was pinned.
        theirs: Key,
    },
    /// The chain is of another domain.
    OtherDomain,
}

impl Pin {
    /// Remembers a chain.
    pub fn of(chain: &Chain) -> Self {
        let head = chain.head();
        Self {
            domain: chain.domain(),
            rotation: head.dam.rotation,
            version: head.dam.version,
            head: head.key,
            epoch: head.epoch,
        }
    }

    /// Compares a chain with what is remembered. Only [`Compared::Same`], [`Compared::Ahead`] and [`Compared::Superseded`] may
    /// move the pin.
    pub fn check(&self, chain: &Chain) -> Compared {
        if chain.domain() != self.domain {
            return Compared::OtherDomain;
        }
        let head = chain.head();
        let Some(epoch) = chain.epoch(self.rotation) else {
            return Compared::Rollback {
                version: head.dam.version,
            };
        };
        if epoch != self.epoch {
            return Compared::Fork { theirs: epoch };
        }
        if head.key == self.head {
            return Compared::Same;
        }
        if chain.path().any(|node| node.key == self.head) {
            return Compared::Ahead {
                versions: head.dam.version.saturating_sub(self.version),
            };
        }
        if let Some(by) = chain.epoch(self.rotation.saturating_add(1)) {
            return Compared::Superseded { by };
        }
        if head.dam.version < self.version {
            return Compared::Rollback {
                version: head.dam.version,
            };
        }
        Compared::Fork { theirs: head.key }
    }
}
