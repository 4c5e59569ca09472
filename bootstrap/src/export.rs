//! The public part of a domain in one file: every valid manifest with its policy and signatures, and the newest checkpoint of the
//! log that it was taken from. Who has it, and the domain's id from elsewhere, needs no store to know who speaks for the domain.
//!
//! ```text
//! "ASLEXP1\n"
//! store       16 bytes     the instance whose log this was
//! manifests   4 bytes      how many; in the order of their records, each:
//!     length      4 bytes      of the DAM
//!     signatures  1 byte       how many
//!     policy      14 bytes
//!     DAM
//!     signatures  138 bytes each
//! length      4 bytes      of the checkpoint; 0 for none
//! checkpoint               a signed note
//! ```
//!
//! Numbers have their lowest byte first. Nothing follows.
//!
//! Invariants
//! - A file has one reading, and reading it takes no more memory than the file and what counts in it.
//! - No secret is in it: it is made from artifacts of the log alone.
//! - What opens was judged by the rules of every reader. Evidence of forks is kept in it and found again.
//! - The checkpoint counts by a key that the manifest in force lists. Where in a log it was is not known here, so one by a key that
//!   was replaced since is left out: another is made with every change.
//!
//! Nothing here touches a file; a crash leaves nothing.

use std::collections::{BTreeMap, BTreeSet};

use asl_store::{AuthorityRecord, Key, LogPosition, StoreHandle, StoreId};

use crate::chain::{Candidate, Chain, ChainError, Fork, SIGNATURES_MAX};
use crate::checkpoint::{Checkpoint, CheckpointError, Origin, SignedCheckpoint};
use crate::dam::{DAM_LEN_MAX, Roles};
use crate::domain::Domain;
use crate::error::Result;
use crate::id::{DomainId, KeyId};
use crate::key::PublicKey;
use crate::note::NOTE_LEN_MAX;
use crate::policy::{POLICY_LEN, Policy};
use crate::sign::Signature;
use crate::witness::Quorum;

/// Longest file, in bytes.
pub const EXPORT_LEN_MAX: usize = 64 << 20;

/// A file that is no export, or one that nobody with the authority made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The first bytes are others.
    #[error("this is no export of a domain: it does not begin with ASLEXP1")]
    Magic,
    /// More bytes than an export has.
    #[error("an export has at most {EXPORT_LEN_MAX} bytes, this has {len}")]
    TooLong {
        /// Bytes found.
        len: usize,
    },
    /// It ends too early.
    #[error("the export is cut off")]
    Cut,
    /// Whole, with more behind it.
    #[error("the export has {bytes} bytes too many at its end")]
    Trailing {
        /// Bytes left over.
        bytes: usize,
    },
    /// No manifest at all.
    #[error("the export has no manifest")]
    Empty,
    /// A manifest that breaks a rule.
    #[error("manifest number {index} of the export is refused")]
    Manifest {
        /// Which, from 0.
        index: usize,
        /// Why.
        source: ChainError,
    },
    /// A checkpoint that no listed key signed, or of another log.
    #[error("the checkpoint of the export is refused")]
    Checkpoint(#[from] CheckpointError),
    /// Another domain.
    #[error("the export is of domain {found}, not of {expected}")]
    OtherDomain {
        /// The one that was asked for.
        expected: DomainId,
        /// Whose it is.
        found: DomainId,
    },
}

/// First bytes of an export.
pub const EXPORT_MAGIC: &[u8; 8] = b"ASLEXP1\n";

/// What a file says of a domain, judged.
#[derive(Debug)]
pub struct Export {
    /// Its manifests.
    pub chain: Chain,
    /// The instance whose log this was.
    pub store: StoreId,
    /// The newest checkpoint, if there is one.
    pub checkpoint: Option<ExportedCheckpoint>,
}

/// A checkpoint in an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedCheckpoint {
    /// What it states.
    pub checkpoint: Checkpoint,
    /// The domain's keys that signed it, ascending.
    pub signers: Vec<KeyId>,
    /// Listed witnesses that cosigned it, ascending.
    pub cosigners: Vec<KeyId>,
}

impl Export {
    /// The domain.
    pub fn id(&self) -> DomainId {
        self.chain.domain()
    }

    /// Forks that are not settled.
    pub fn forks(&self) -> Vec<Fork> {
        self.chain.forks()
    }

    /// Judges a file. `expect` is the domain that it must be of, from elsewhere: without it, the file says only what it
    /// says.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn open(bytes: &[u8], expect: Option<&DomainId>) -> Result<Self, ExportError> {
        if bytes.len() > EXPORT_LEN_MAX {
            return Err(ExportError::TooLong { len: bytes.len() });
        }
        let rest = bytes.strip_prefix(EXPORT_MAGIC).ok_or(ExportError::Magic)?;
        let mut rest = Rest(rest);
        let store = StoreId(rest.array()?);
        let chain = replay(&mut rest)?.ok_or(ExportError::Empty)?;
        let len = rest.length()?;
        let note = rest.bytes(len)?;
        rest.end()?;
        if let Some(expected) = expect
            && *expected != chain.domain()
        {
            return Err(ExportError::OtherDomain {
                expected: *expected,
                found: chain.domain(),
            });
        }
        let checkpoint = match note {
            [] => None,
            note => Some(checkpoint(&chain, store, note)?),
        };
        Ok(Self {
            chain,
            store,
            checkpoint,
        })
    }
}

/// What is left of a file.
pub(crate) struct Rest<'a>(pub(crate) &'a [u8]);

impl<'a> Rest<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], ExportError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(ExportError::Cut)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ExportError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(ExportError::Cut)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(crate) fn length(&mut self) -> Result<usize, ExportError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    pub(crate) fn end(&self) -> Result<(), ExportError> {
        match self.0.len() {
            0 => Ok(()),
            bytes => Err(ExportError::Trailing { bytes }),
        }
    }

    pub(crate) fn manifest(&mut self) -> Result<Candidate<'a>, ExportError> {
        let len = self.length()?;
        let [signatures] = self.array()?;
        let policy = self.bytes(POLICY_LEN)?;
        let dam = self.bytes(len)?;
        let signatures = (0..signatures).map(|_| self.bytes(Signature::LEN));
        Ok(Candidate {
            dam,
            policy,
            signatures: signatures.collect::<Result<_, _>>()?,
        })
    }
}

/// Appends a manifest as [`Rest::manifest`] reads it. At most [`SIGNATURES_MAX`] signatures, each a signature artifact.
pub(crate) fn push_manifest(
    file: &mut Vec<u8>,
    dam: &[u8],
    policy: &Policy,
    signatures: &[Vec<u8>],
) {
    let mut signatures: Vec<&Vec<u8>> = signatures.iter().collect();
    signatures.retain(|signature| signature.len() == Signature::LEN);
    signatures.truncate(SIGNATURES_MAX);
    file.extend_from_slice(&(dam.len() as u32).to_le_bytes());
    file.push(signatures.len() as u8);
    file.extend_from_slice(&policy.encode());
    file.extend_from_slice(dam);
    file.extend(signatures.into_iter().flatten());
}

/// The chain of manifests in the order of their records; `None` where there are none.
pub(crate) fn replay(rest: &mut Rest<'_>) -> Result<Option<Chain>, ExportError> {
    let mut chain: Option<Chain> = None;
    for index in 0..rest.length()? {
        let candidate = rest.manifest()?;
        let refused = |source| ExportError::Manifest { index, source };
        match &mut chain {
            None => chain = Some(Chain::genesis(&candidate).map_err(refused)?),
            Some(chain) => match chain.extend(&candidate) {
                // Evidence, as in the log.
                Ok(_)
                | Err(
                    ChainError::UpdateFork { .. }
                    | ChainError::RotationFork { .. }
                    | ChainError::Void { .. },
                ) => {}
                Err(source) => return Err(refused(source)),
            },
        }
    }
    Ok(chain)
}

fn checkpoint(
    chain: &Chain,
    store: StoreId,
    bytes: &[u8],
) -> Result<ExportedCheckpoint, CheckpointError> {
    let dam = &chain.head().dam;
    let origin = Origin {
        domain: chain.domain(),
        store,
    };
    let listed = dam.principals.iter();
    let listed = listed.filter(|principal| principal.roles.contains(Roles::CHECKPOINT));
    let keys: Vec<PublicKey> = listed.map(|principal| principal.key).collect();
    let signed = SignedCheckpoint::open(bytes, &origin, &keys)?;
    let members = dam.witness.members.iter();
    let members = members.map(|member| (member.name.as_str(), member.key));
    let mut cosigners = BTreeSet::new();
    if let Ok(quorum) = Quorum::new(members, usize::from(dam.witness.threshold)) {
        let tally = quorum.tally(&signed)?;
        cosigners.extend(tally.cosigners.iter().map(|cosigner| cosigner.key.id()));
    }
    let signers: BTreeSet<KeyId> = signed.signers().iter().map(PublicKey::id).collect();
    Ok(ExportedCheckpoint {
        checkpoint: *signed.checkpoint(),
        signers: signers.into_iter().collect(),
        cosigners: cosigners.into_iter().collect(),
    })
}

/// Appends the manifests of a store's domain, in the order of their records.
///
/// # Errors
/// [`asl_store::Error`] where the log or an artifact cannot be read.
pub(crate) fn push_manifests(
    file: &mut Vec<u8>,
    store: &StoreHandle,
    domain: &Domain,
) -> Result<()> {
    let by_record: BTreeMap<LogPosition, Key> = domain
        .manifests
        .iter()
        .map(|(key, position)| (*position, *key))
        .collect();
    let first = by_record.keys().next().copied();
    let mut named: Vec<(Key, Vec<Key>)> = Vec::new();
    store.records(first.unwrap_or(LogPosition(0)), &mut |record, _| {
        if let Some(key) = by_record.get(&record.position)
            && let Some(AuthorityRecord { keys, .. }) = AuthorityRecord::of_record(record)
        {
            named.push((*key, keys));
        }
        Ok(())
    })?;
    file.extend_from_slice(&(named.len() as u32).to_le_bytes());
    for (key, keys) in named {
        let node = domain.chain.node(&key).ok_or(ExportError::Empty)?;
        let mut signatures = Vec::new();
        for artifact in &keys[1..] {
            // What was not counted is no loss.
            if let Ok(bytes) = store.get_part(artifact)
                && Signature::decode(&bytes).is_ok_and(|of| node.signers.contains(&of.signer))
            {
                signatures.push(bytes);
            }
        }
        push_manifest(file, &store.get_part(&key)?, &node.policy, &signatures);
    }
    Ok(())
}

/// Makes the file of a store's domain.
///
/// # Errors
/// [`ExportError::TooLong`]; [`asl_store::Error`] where the log or an artifact cannot be read.
pub fn export(store: &StoreHandle, domain: &Domain) -> Result<Vec<u8>> {
    let mut counting: Vec<_> = domain.checkpoints.iter().collect();
    counting.sort_by_key(|state| (state.size, state.cosigners.len(), state.record));
    let mut newest = Vec::new();
    for state in counting.into_iter().rev() {
        let bytes = store.get_part(&state.note)?;
        if checkpoint(&domain.chain, domain.store, &bytes).is_ok() {
            newest = bytes;
            break;
        }
    }
    let mut file = EXPORT_MAGIC.to_vec();
    file.extend_from_slice(&domain.store.0);
    push_manifests(&mut file, store, domain)?;
    file.extend_from_slice(&(newest.len() as u32).to_le_bytes());
    file.extend_from_slice(&newest);
    if file.len() > EXPORT_LEN_MAX {
        return Err(ExportError::TooLong { len: file.len() }.into());
    }
    Ok(file)
}

const _: () = assert!(DAM_LEN_MAX + POLICY_LEN + NOTE_LEN_MAX < EXPORT_LEN_MAX);
const _: () = assert!(SIGNATURES_MAX <= u8::MAX as usize);

#[cfg(test)]
mod tests;
