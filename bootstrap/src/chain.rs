//! The chain of manifests of one domain: which DAM is in force, and what was refused on the way.
//!
//! Invariants
//! - Every manifest in a chain is valid relative to its own `prev`: shape, what may change, and who signed
//!   ([`judge`](self) has those rules, each with its own [`ChainError`]).
//! - The *path* leads from genesis to the head by `prev`. It grows by updates of the head, and by a rotation of any valid
//!   manifest of the current *epoch* (a rotation, or genesis, and the updates since): that voids the updates off its path.
//!   No rotation voids another one: of two from one epoch, the first seen stays and the second is kept as evidence.
//! - A chain that refused something is as it was before, but for the evidence.
//!
//! What a chain cannot know is what it was not shown. Whoever has the current root of a domain that was rotated before has,
//! with it, the key that the epoch before committed to, and can sign another rotation of *that* epoch; to somebody who never saw the
//! honest one it looks right. A [`Pin`](crate::pin::Pin) kept elsewhere, and witnesses, are what finds it.
//!
//! Nothing is read or written: the caller passes in the stored bytes.

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use asl_store::{Key, LogPosition, StoreId};

use crate::dam::{Dam, DamError, Kind};
use crate::id::{DomainId, KeyId};
use crate::policy::{Policy, PolicyError, Refusal};
use crate::sign::{Context, SignError};

/// Most ordinary updates that a chain keeps between two rotations, voided and refused ones included. A rotation is never
/// refused for number.
pub const UPDATES_MAX: usize = 1024;
/// Most rotations that are kept as evidence of a fork.
pub const RIVALS_MAX: usize = 64;
/// Most signatures that are looked at for one manifest: what fits a log record beside its body.
pub const SIGNATURES_MAX: usize = 255;

/// A manifest as it was stored, with what belongs to it.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// The DAM artifact.
    pub dam: &'a [u8],
    /// The policy artifact that it names.
    pub policy: &'a [u8],
    /// Signature artifacts, in any order. Those that do not count are listed, not believed.
    pub signatures: Vec<&'a [u8]>,
}

/// A manifest that is valid relative to the one before it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name of the artifact.
    pub key: Key,
    /// What it says.
    pub dam: Dam,
    /// The policy that it names.
    pub policy: Policy,
    /// Whose signatures over it were verified, needed or not.
    pub signers: BTreeSet<KeyId>,
    /// The rotation, or genesis, that began its epoch; itself if it is one.
    pub epoch: Key,
}

/// Why a signature was not counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Uncounted {
    /// It is no signature artifact.
    #[error("signature {index} is malformed")]
    Malformed {
        /// Which of the candidate's, from 0.
        index: usize,
        /// Why.
        source: SignError,
    },
    /// It is over something else.
    #[error("signature {index} is over the artifact {body}")]
    OtherBody {
        /// Which of the candidate's, from 0.
        index: usize,
        /// Over what.
        body: Key,
    },
    /// It serves another purpose.
    #[error("signature {index} is for {}", context.text())]
    OtherContext {
        /// Which of the candidate's, from 0.
        index: usize,
        /// For what.
        context: Context,
    },
    /// Neither the manifest nor the one before it lists the key.
    #[error("signature {index} is by the unlisted key {signer}")]
    Unlisted {
        /// Which of the candidate's, from 0.
        index: usize,
        /// By whom, as it says.
        signer: KeyId,
    },
    /// It does not verify.
    #[error("signature {index} is not by {signer} over this manifest in this domain")]
    Invalid {
        /// Which of the candidate's, from 0.
        index: usize,
        /// By whom, as it says.
        signer: KeyId,
        /// Why.
        source: SignError,
    },
    /// The key has signed already.
    #[error("signature {index} repeats {signer}")]
    Repeated {
        /// Which of the candidate's, from 0.
        index: usize,
        /// By whom.
        signer: KeyId,
    },
}

/// Too few signatures, and what was wrong with the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Distinct keys that count.
    pub have: usize,
    /// Keys that are needed.
    pub need: usize,
    /// Signatures that were not counted at all.
    pub uncounted: Vec<Uncounted>,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} needed", self.have, self.need)?;
        if let Some(first) = self.uncounted.first() {
            write!(f, "; {first}")?;
        }
        Ok(())
    }
}

/// The rule by which a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A rule on the manifest alone.
    #[error(transparent)]
    Dam(#[from] DamError),
    /// The policy artifact is none.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Another policy than the manifest names.
    #[error("the DAM names the policy {named}, this is {found}")]
    OtherPolicy {
        /// What the manifest names.
        named: Key,
        /// What was passed.
        found: Key,
    },
    /// A policy that wants witnesses in a domain without.
    #[error(transparent)]
    Unsatisfiable(Refusal),
    /// More signatures than a record holds.
    #[error("{found} signatures are more than {SIGNATURES_MAX}")]
    TooManySignatures {
        /// How many.
        found: usize,
    },

    /// A first manifest that does not say version 0.
    #[error("a domain begins with version 0, not {version}")]
    GenesisVersion {
        /// What it says.
        version: u64,
    },
    /// A first manifest that does not say rotation 0.
    #[error("a domain begins with rotation 0, not {rotation}")]
    GenesisRotation {
        /// What it says.
        rotation: u64,
    },
    /// A first manifest that names one before it.
    #[error("a domain begins without a manifest before the first")]
    GenesisPrev,
    /// A first manifest that names a domain: that would be in its own digest.
    #[error("a domain's first manifest cannot name the domain")]
    GenesisDomain,
    /// A first manifest that revokes.
    #[error("a domain's first manifest revokes nothing")]
    GenesisRevokes,
    /// A root that did not show that it holds its key.
    #[error("root {key} did not sign the manifest that first lists it")]
    RootPossession {
        /// The root.
        key: KeyId,
    },
    /// A principal that did not show that it holds its key.
    #[error("principal {key} did not sign the manifest that first lists it")]
    PrincipalPossession {
        /// The principal.
        key: KeyId,
    },

    /// Accepted, or kept as evidence, before. Harmless where records are read twice.
    #[error("version {version} of the DAM was there before")]
    Replayed {
        /// Its version.
        version: u64,
    },
    /// The first manifest of some domain after the first of this one.
    #[error("a domain has one first manifest, and this is another")]
    SecondGenesis,
    /// No manifest before it is named.
    #[error("the DAM does not name the one before it")]
    NoPrev,
    /// A manifest of another domain, or of none.
    #[error("the DAM is of {}, not of this domain", .found.map_or("no domain".to_owned(), |id| format!("domain {id}")))]
    OtherDomain {
        /// What it says.
        found: Option<DomainId>,
    },
    /// The manifest before it was not seen, or was refused.
    #[error("the DAM follows {prev}, which is no valid manifest of this domain")]
    UnknownPrev {
        /// What it names.
        prev: Key,
    },
    /// A version that does not follow.
    #[error("the DAM has version {found} where {expected} follows")]
    VersionStep {
        /// What follows.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// A rotation count that does not follow.
    #[error("the DAM has rotation {found} after {before}")]
    RotationStep {
        /// That of the manifest before.
        before: u64,
        /// What it says.
        found: u64,
    },
    /// Another kind.
    #[error("the kind of a domain never changes: {before} became {found}")]
    KindChanged {
        /// That of the manifest before.
        before: Kind,
        /// What it says.
        found: Kind,
    },
    /// Other roots without a rotation.
    #[error("only a rotation changes the roots")]
    RootsChanged,
    /// Another root threshold without a rotation.
    #[error("only a rotation changes the root threshold")]
    RootThresholdChanged,
    /// Other next keys without a rotation.
    #[error("only a rotation changes the next keys")]
    NextChanged,
    /// Another next threshold without a rotation.
    #[error("only a rotation changes the next threshold")]
    NextThresholdChanged,
    /// Other witnesses without a rotation.
    #[error("only a rotation changes the witnesses")]
    WitnessChanged,
    /// A revocation taken back.
    #[error("the revocation of {key} in store {store} was taken back")]
    RevocationDropped {
        /// The key.
        key: KeyId,
        /// The store.
        store: StoreId,
    },
    /// A revocation moved to a later position.
    #[error("the revocation of {key} in store {store} was moved to a later position, {position}")]
    RevocationLater {
        /// The key.
        key: KeyId,
        /// The store.
        store: StoreId,
        /// The position it was moved to.
        position: LogPosition,
    },
    /// A revoked key that is made root or principal again.
    #[error("the revoked key {key} cannot be listed again")]
    RevokedListed {
        /// The key.
        key: KeyId,
    },

    /// Too few current roots signed an update.
    #[error("too few roots signed: {0}")]
    RootThreshold(Shortfall),
    /// Enough would have signed, but a revoked root was among them.
    #[error("root {key} is revoked, and without it too few signed")]
    RevokedRoot {
        /// The root.
        key: KeyId,
    },
    /// A common domain's policy changed without its witnesses.
    #[error("too few witnesses cosigned the change of policy: {0}")]
    PolicyCosign(Shortfall),
    /// Too few keys that the manifest before committed to were revealed and signed.
    #[error("too few of the committed next keys were revealed and signed: {0}")]
    Unrevealed(Shortfall),
    /// Too few new roots signed a rotation.
    #[error("too few of the new roots signed: {0}")]
    NewRootThreshold(Shortfall),
    /// The policy wants the current roots to sign a rotation.
    #[error("the policy's rule recovery wants the current roots to sign a rotation: {0}")]
    RecoveryNeedsRoots(Shortfall),
    /// A next key that was committed to, or was a root, before.
    #[error("a next key of the rotation was used before; every one is for a single use")]
    NextReused,

    /// A second update of one manifest: kept as evidence. A rotation settles it.
    #[error("the update {theirs} forks from the chain whose head is {ours}")]
    UpdateFork {
        /// The head, which stays.
        ours: Key,
        /// What was refused.
        theirs: Key,
    },
    /// A second rotation of one epoch: kept as evidence. Nothing settles it.
    #[error("the rotation {theirs} forks from the rotation {ours}")]
    RotationFork {
        /// The rotation seen first, which stays.
        ours: Key,
        /// What was refused.
        theirs: Key,
    },
    /// An update of an epoch that a rotation has ended.
    #[error("the update is void: rotation {by} ended what it follows")]
    Void {
        /// The rotation.
        by: Key,
    },
    /// It follows a rotation that was refused as a fork.
    #[error("the DAM follows the refused rotation {rival}")]
    OnRival {
        /// The rotation.
        rival: Key,
    },
    /// More updates without a rotation than are kept.
    #[error("more than {UPDATES_MAX} updates without a rotation")]
    TooManyUpdates,
}

/// Two manifests of which only one can be meant: evidence that somebody signed both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fork {
    /// The one on the path.
    pub ours: Key,
    /// The one refused.
    pub theirs: Key,
}

/// How a valid manifest stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It leads to the head, or is the head.
    OnPath,
    /// An update that a rotation left aside.
    Voided,
    /// A second update, and what follows it, in the current epoch.
    ForkedUpdate,
    /// A second rotation of one epoch.
    RivalRotation,
}

/// What an accepted manifest did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The head has a successor.
    Updated,
    /// A new epoch began.
    Rotated {
        /// Updates that no longer count, oldest first.
        voided: Vec<Key>,
    },
}

/// The manifests of one domain.
#[derive(Debug, Clone)]
pub struct Chain {
    domain: DomainId,
    nodes: BTreeMap<Key, Node>,
    /// Genesis to head; the version of a manifest is its index.
    path: Vec<Key>,
    /// Genesis and the rotations on the path; the rotation count is the index.
    epochs: Vec<Key>,
    /// Refused rotations.
    rivals: Vec<Fork>,
}

impl Chain {
    /// Begins a chain with the first manifest of a domain.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn genesis(candidate: &Candidate<'_>) -> Result<Self, ChainError> {
        let (domain, node) = judge::genesis(candidate)?;
        Ok(Self {
            domain,
            path: vec![node.key],
            epochs: vec![node.key],
            nodes: BTreeMap::from([(node.key, node)]),
            rivals: Vec::new(),
        })
    }

    /// Takes one more manifest.
    ///
    /// # Errors
    /// The rule by which it is refused. The chain is then as it was, except that a valid manifest that forks, or
    /// that a rotation voided, is kept: see [`Chain::forks`] and [`Chain::standing`].
    pub fn extend(&mut self, candidate: &Candidate<'_>) -> Result<Step, ChainError> {
        let node = judge::successor(self, candidate)?;
        let (parent, key) = (node.dam.prev.expect("a successor names it"), node.key);
        let parent = &self.nodes[&parent];
        let (parent_key, parent_epoch) = (parent.key, parent.epoch);
        let rotation = node.epoch == key;

        let Some(era) = self.epochs.iter().position(|epoch| *epoch == parent_epoch) else {
            return Err(ChainError::OnRival {
                rival: parent_epoch,
            });
        };
        let current = era + 1 == self.epochs.len();
        if rotation {
            if !current {
                let ours = self.epochs[era + 1];
                if self.rivals.len() < RIVALS_MAX {
                    self.nodes.insert(key, node);
                    self.rivals.push(Fork { ours, theirs: key });
                }
                return Err(ChainError::RotationFork { ours, theirs: key });
            }
            return Ok(self.rotate(node));
        }

        let updates = |n: &&Node| n.epoch == parent_epoch && n.key != parent_epoch;
        if self.nodes.values().filter(updates).count() >= UPDATES_MAX {
            return Err(ChainError::TooManyUpdates);
        }
        self.nodes.insert(key, node);
        if !current {
            return Err(ChainError::Void {
                by: self.epochs[era + 1],
            });
        }
        if parent_key != self.head_key() {
            return Err(ChainError::UpdateFork {
                ours: self.head_key(),
                theirs: key,
            });
        }
        self.path.push(key);
        Ok(Step::Updated)
    }

    /// Makes a rotation of any manifest of the current epoch the head.
    fn rotate(&mut self, node: Node) -> Step {
        let (key, ended) = (node.key, self.epoch_key());
        self.nodes.insert(key, node);
        let mut path = Vec::new();
        let mut at = Some(key);
        while let Some(step) = at {
            path.push(step);
            at = self.nodes[&step].dam.prev;
        }
        path.reverse();
        self.path = path;
        self.epochs.push(key);
        let mut voided: Vec<&Node> = (self.nodes.values())
            .filter(|n| n.epoch == ended && self.standing(&n.key) == Some(Standing::Voided))
            .collect();
        voided.sort_by_key(|n| n.dam.version);
        Step::Rotated {
            voided: voided.into_iter().map(|n| n.key).collect(),
        }
    }

    /// The domain.
    pub fn domain(&self) -> DomainId {
        self.domain
    }

    /// The manifest in force.
    pub fn head(&self) -> &Node {
        &self.nodes[&self.head_key()]
    }

    /// Name of the manifest in force.
    pub fn head_key(&self) -> Key {
        *self.path.last().expect("a chain has a genesis")
    }

    /// The rotation, or genesis, that began the current epoch.
    pub fn epoch_key(&self) -> Key {
        *self.epochs.last().expect("a chain has a genesis")
    }

    /// The rotation on the path with this count (0: genesis).
    pub fn epoch(&self, rotation: u64) -> Option<Key> {
        self.epochs.get(usize::try_from(rotation).ok()?).copied()
    }

    /// A manifest that was accepted or kept as evidence.
    pub fn node(&self, key: &Key) -> Option<&Node> {
        self.nodes.get(key)
    }

    /// From genesis to the head; each manifest's version is its index.
    pub fn path(&self) -> impl ExactSizeIterator<Item = &Node> + DoubleEndedIterator {
        self.path.iter().map(|key| &self.nodes[key])
    }

    /// How a manifest stands; `None` if it was refused or never seen.
    pub fn standing(&self, key: &Key) -> Option<Standing> {
        let node = self.nodes.get(key)?;
        let version = usize::try_from(node.dam.version).ok()?;
        Some(if self.path.get(version) == Some(key) {
            Standing::OnPath
        } else if !self.epochs.contains(&node.epoch) {
            Standing::RivalRotation
        } else if node.epoch == self.epoch_key() {
            Standing::ForkedUpdate
        } else {
            Standing::Voided
        })
    }

    /// Forks that are not settled: refused rotations, and updates beside the path since the last rotation.
    pub fn forks(&self) -> Vec<Fork> {
        let mut forks = self.rivals.clone();
        for node in self.nodes.values() {
            if self.standing(&node.key) == Some(Standing::ForkedUpdate)
                && let Some(ours) = self.path.get(node.dam.version as usize)
            {
                forks.push(Fork {
                    ours: *ours,
                    theirs: node.key,
                });
            }
        }
        forks
    }

    /// The current epoch's manifests from which a rotation may go on, oldest first, those beside the path included.
    pub fn rotatable(&self) -> Vec<&Node> {
        let mut nodes: Vec<&Node> = (self.nodes.values())
            .filter(|n| n.epoch == self.epoch_key())
            .collect();
        nodes.sort_by_key(|n| (n.dam.version, n.key));
        nodes
    }

    /// Whether a signature by `key` on the record at `position` of `store` counts, as the manifest in force revokes and its policy's
    /// rule `after-revocation` says. `covered`: a counting checkpoint covers the record.
    ///
    /// # Errors
    /// [`Refusal::Revoked`], [`Refusal::RevokedUncovered`].
    pub fn signature_counts(
        &self,
        key: &KeyId,
        store: StoreId,
        position: LogPosition,
        covered: bool,
    ) -> Result<(), Refusal> {
        let head = self.head();
        head.policy
            .signature_counts(&head.dam, key, store, position, covered)
    }

    /// The manifest before `node`, and so on to genesis.
    fn ancestors<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a Node> {
        std::iter::successors(Some(node), |n| {
            n.dam.prev.and_then(|key| self.nodes.get(&key))
        })
    }
}
