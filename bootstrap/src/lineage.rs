//! Lineage: a signed statement that one domain took over what a store of another holds, or that a domain was given up for another.
//!
//! One document for both sides. [`Op::Adopt`] and [`Op::Fork`] stand in the log of the domain that took over (the *parent*) and are
//! signed by its roots; if the child's root was at hand it signed the same bytes, for the child's domain, and then the child *was handed
//! over*. [`Op::Retire`] stands in the child's own log, signed by the child's roots.
//!
//! Invariants
//! - A lineage names the child's log up to a position and its chain value there, so it is of no other log, even one that shows
//!   the same artifacts.
//! - There is no time in it: the same promotion, done again, is the same document.
//! - Lists are bounded and have one order.
//!
//! Nothing here touches a file; a crash leaves nothing.

use std::fmt;

use asl_store::id::Digest;
use asl_store::{Key, LogPosition, SessionId, StoreId};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, Document};
use crate::dam::is_plain;
use crate::id::DomainId;
use crate::key::Signer;
use crate::sign::{Context, Signature};
use crate::tlog::{Frontier, TreeHash};

/// Most log files that a lineage names.
pub const LOGS_MAX: usize = 1024;
/// Most sessions that a lineage takes over.
pub const SESSIONS_MAX: usize = 4096;
/// Longest name of a program, in bytes.
pub const TOOL_MAX: usize = 64;

/// What BLAKE3's `derive_key` is given for the id of a promotion.
const CONTEXT_PROMOTE_ID: &str = "asl 2026 promote id";

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// The parent took the child's store over.
    Adopt,
    /// The parent took over a second history of a store whose first it knows, apart from that.
    Fork,
    /// The child is given up: what comes after is the parent's.
    Retire,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adopt => "adopt",
            Self::Fork => "fork",
            Self::Retire => "retire",
        })
    }
}

/// How far the child was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Its artifacts are stored and found by key; its captures mean nothing here.
    Bytes,
    /// Its finished captures are captures here.
    Semantics,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Semantics => "semantics",
        })
    }
}

/// What was checked before the parent signed; a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checks(pub u32);

impl Checks {
    /// The child's log is whole and chained from its first record.
    pub const LOG: Self = Self(1);
    /// Its manifests lead to its id, which the user named.
    pub const DOMAIN: Self = Self(2);
    /// It continues what was remembered, or taken over before.
    pub const CONTINUES: Self = Self(4);
    /// A checkpoint by a listed key covers every session that was taken over.
    pub const CHECKPOINT: Self = Self(8);
    /// Every byte that came was hashed as it came.
    pub const BYTES: Self = Self(16);
    /// All that the sessions refer to is stored.
    pub const CLOSURE: Self = Self(32);
    /// All of them.
    pub const ALL: Self = Self(63);

    /// Whether all of `checks` were made.
    pub fn contains(self, checks: Self) -> bool {
        self.0 & checks.0 == checks.0
    }

    /// Both sets.
    #[must_use]
    pub fn and(self, checks: Self) -> Self {
        Self(self.0 | checks.0)
    }
}

/// A lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// What was done.
    pub op: Op,
    /// How far it was let in.
    pub level: Level,
    /// The domain that took over.
    pub parent: DomainId,
    /// Its manifest in force then.
    pub parent_head: Key,
    /// The domain that was taken over.
    pub child: DomainId,
    /// The child's first manifest.
    pub child_genesis: Key,
    /// The child's manifest in force then.
    pub child_head: Key,
    /// The child's store instance.
    pub store: StoreId,
    /// Records of its log that were read.
    pub position: LogPosition,
    /// The chain value after the last of them.
    pub chain: Digest,
    /// The tree over what the child showed; see [`Contents`].
    pub manifest_root: TreeHash,
    /// Artifacts that the child showed.
    pub artifacts: u64,
    /// Their lengths together, in bytes.
    pub bytes: u64,
    /// How many of them could not be taken, because the child has no whole copy.
    pub missing: u64,
    /// What was checked.
    pub checks: Checks,
    /// The child's log files up to `position` as artifacts, in their order; none for [`Op::Retire`].
    pub log: Vec<Key>,
    /// Sessions taken over, by their ids at the parent, ascending; none for [`Op::Retire`] and [`Level::Bytes`].
    pub sessions: Vec<SessionId>,
    /// The parent's lineage of the same history of the same store before this one. For [`Op::Retire`] the one
    /// that made the parent the successor.
    pub prev: Option<Key>,
    /// The program that did it.
    pub tool: String,
}

/// Why bytes are no lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineageError {
    /// Not the one encoding of one.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// More log files than a lineage names, or none where there must be some, or some where there must be none.
    #[error("{count} log files are not a number that such a link names")]
    Logs {
        /// How many.
        count: usize,
    },
    /// More sessions than a lineage takes over, or some where there must be none.
    #[error("{count} sessions are not a number that such a link takes over")]
    Sessions {
        /// How many.
        count: usize,
    },
    /// Sessions that do not ascend.
    #[error("the sessions of the link are not in ascending order, or repeat")]
    Order,
    /// A domain taken over by itself.
    #[error("the link is from a domain to itself")]
    SameDomain,
    /// Checks that this program does not know.
    #[error("the link states checks that are not known: {0:#x}")]
    Checks(u32),
    /// More is missing than there was.
    #[error("the link misses more artifacts than it counts")]
    Missing,
    /// The program's name is too long or has control characters.
    #[error("the name of the program is not plain text of at most {TOOL_MAX} bytes")]
    Tool,
    /// A retirement that does not say for what.
    #[error("a retirement has to name the link that took the domain over")]
    NoSuccessor,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    op: Op,
    level: Level,
    parent: [u8; 32],
    parent_head: [u8; 32],
    child: [u8; 32],
    child_genesis: [u8; 32],
    child_head: [u8; 32],
    store: [u8; 16],
    position: u64,
    chain: [u8; 32],
    manifest_root: [u8; 32],
    artifacts: u64,
    bytes: u64,
    missing: u64,
    checks: u32,
    log: Vec<[u8; 32]>,
    sessions: Vec<[u8; 16]>,
    prev: Option<[u8; 32]>,
    tool: String,
}

impl Document for Wire {
    const TAG: [u8; codec::TAG_LEN] = *b"ASLLIN1\n";
    const WHAT: &'static str = "a link between domains";
    const LEN_MAX: usize = Lineage::LEN_MAX;
}

impl Lineage {
    /// First bytes of a lineage artifact.
    pub const TAG: [u8; codec::TAG_LEN] = Wire::TAG;
    /// The longest lineage artifact in bytes: both lists at their longest, and numbers of ten bytes.
    pub const LEN_MAX: usize = codec::TAG_LEN
        + 2
        + 7 * 32
        + 16
        + 4 * 10
        + 5
        + (2 + LOGS_MAX * 32)
        + (2 + SESSIONS_MAX * 16)
        + 33
        + (1 + TOOL_MAX);

    /// The artifact.
    ///
    /// # Errors
    /// What [`decode`](Self::decode) would refuse.
    pub fn encode(&self) -> Result<Vec<u8>, LineageError> {
        self.check()?;
        let wire = Wire {
            op: self.op,
            level: self.level,
            parent: self.parent.0,
            parent_head: self.parent_head.0,
            child: self.child.0,
            child_genesis: self.child_genesis.0,
            child_head: self.child_head.0,
            store: self.store.0,
            position: self.position.0,
            chain: self.chain.0,
            manifest_root: self.manifest_root.0,
            artifacts: self.artifacts,
            bytes: self.bytes,
            missing: self.missing,
            checks: self.checks.0,
            log: self.log.iter().map(|key| key.0).collect(),
            sessions: self.sessions.iter().map(|session| session.0).collect(),
            prev: self.prev.map(|key| key.0),
            tool: self.tool.clone(),
        };
        Ok(codec::encode(&wire)?)
    }

    /// Reads an artifact.
    ///
    /// # Errors
    /// [`LineageError`]; an operation or level that this program does not know is [`CodecError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, LineageError> {
        let wire: Wire = codec::decode(bytes)?;
        let lineage = Self {
            op: wire.op,
            level: wire.level,
            parent: DomainId(wire.parent),
            parent_head: Key(wire.parent_head),
            child: DomainId(wire.child),
            child_genesis: Key(wire.child_genesis),
            child_head: Key(wire.child_head),
            store: StoreId(wire.store),
            position: LogPosition(wire.position),
            chain: Digest(wire.chain),
            manifest_root: TreeHash(wire.manifest_root),
            artifacts: wire.artifacts,
            bytes: wire.bytes,
            missing: wire.missing,
            checks: Checks(wire.checks),
            log: wire.log.into_iter().map(Key).collect(),
            sessions: wire.sessions.into_iter().map(SessionId).collect(),
            prev: wire.prev.map(Key),
            tool: wire.tool,
        };
        lineage.check()?;
        Ok(lineage)
    }

    fn check(&self) -> Result<(), LineageError> {
        let retires = self.op == Op::Retire;
        if self.parent == self.child {
            return Err(LineageError::SameDomain);
        }
        if self.log.len() > LOGS_MAX || self.log.is_empty() != retires {
            let count = self.log.len();
            return Err(LineageError::Logs { count });
        }
        let none = retires || self.level == Level::Bytes;
        if self.sessions.len() > SESSIONS_MAX || none && !self.sessions.is_empty() {
            let count = self.sessions.len();
            return Err(LineageError::Sessions { count });
        }
        if !self.sessions.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(LineageError::Order);
        }
        if self.checks.0 & !Checks::ALL.0 != 0 {
            return Err(LineageError::Checks(self.checks.0));
        }
        if self.missing > self.artifacts {
            return Err(LineageError::Missing);
        }
        if self.tool.len() > TOOL_MAX || !self.tool.chars().all(is_plain) {
            return Err(LineageError::Tool);
        }
        if retires && self.prev.is_none() {
            return Err(LineageError::NoSuccessor);
        }
        Ok(())
    }

    /// The domain in whose log this stands, and whose roots sign it.
    pub fn home(&self) -> DomainId {
        match self.op {
            Op::Adopt | Op::Fork => self.parent,
            Op::Retire => self.child,
        }
    }

    /// The log that was read, up to where.
    pub fn head(&self) -> (StoreId, LogPosition, Digest) {
        (self.store, self.position, self.chain)
    }

    /// Names what is done, before it is known how it ends: of the same child log, let in as far after the same lineage,
    /// it is the same.
    pub fn promote_id(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_PROMOTE_ID);
        hasher
            .update(&self.parent.0)
            .update(&self.child.0)
            .update(&self.store.0)
            .update(&self.position.0.to_le_bytes())
            .update(&self.chain.0)
            .update(&self.manifest_root.0)
            .update(&[self.op as u8, self.level as u8])
            .update(&self.prev.map_or([0; 32], |key| key.0));
        *hasher.finalize().as_bytes()
    }

    /// The session in which it is done.
    pub fn session(&self) -> SessionId {
        let id = self.promote_id();
        SessionId(id[..16].try_into().expect("half of 32 bytes"))
    }
}

/// A signature of a lineage, an artifact as stored, for one of its two domains.
pub fn sign(signer: &Signer, domain: &DomainId, body: &[u8]) -> Signature {
    Signature::new(signer, Context::Lineage, domain, body)
}

/// What a store shows, folded: the tree of RFC 6962 over its visible artifacts in the order of their keys, each leaf 32
/// bytes key and 8 bytes length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    tree: Frontier,
    bytes: u64,
}

impl Contents {
    /// Adds the next artifact.
    pub fn push(&mut self, key: &Key, len: u64) {
        let mut leaf = [0; 40];
        leaf[..32].copy_from_slice(&key.0);
        leaf[32..].copy_from_slice(&len.to_le_bytes());
        self.tree.push_record(&leaf);
        self.bytes = self.bytes.saturating_add(len);
    }

    /// How many.
    pub fn artifacts(&self) -> u64 {
        self.tree.size()
    }

    /// Their lengths together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The root of the tree.
    pub fn root(&self) -> TreeHash {
        self.tree.root()
    }
}

#[cfg(test)]
mod tests;
