//! What in a log does not count, and why.

use asl_store::{Authority, Key, LogPosition, StoreId};

use super::CLAIMS_MAX;
use crate::chain::ChainError;
use crate::checkpoint::CheckpointError;
use crate::codec::CodecError;
use crate::id::KeyId;
use crate::lineage::LineageError;
use crate::note::NoteError;
use crate::policy::{PolicyError, Refusal};
use crate::sign::SignError;
use crate::tlog::TreeHash;
use crate::words::count;

/// Something in the log that does not count.
#[derive(Debug, thiserror::Error)]
#[error("artifact {artifact}, which record {position} names, does not count")]
pub struct Finding {
    /// The record.
    pub position: LogPosition,
    /// What the record is about.
    pub about: Authority,
    /// The artifact that does not count.
    pub artifact: Key,
    /// Why.
    #[source]
    pub problem: Problem,
}

/// How bad it is, ascending: what somebody who verifies should make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Worth saying: nothing counts that should not, and nothing is missing.
    Note,
    /// The policy refuses it.
    Policy,
    /// Nobody with the authority said it.
    Authority,
    /// Two histories were signed, or one was taken back.
    Fork,
    /// Bytes are missing or are others.
    Integrity,
}

/// Why something does not count.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The store does not have the artifact.
    #[error("it is not in the store")]
    Missing,
    /// The store cannot give the artifact.
    #[error("it cannot be read")]
    Unreadable(#[source] asl_store::Error),
    /// More bytes than such an artifact has.
    #[error("{len} bytes are too many for it: at most {max}")]
    TooLong {
        /// Bytes found.
        len: u64,
        /// The ceiling.
        max: u64,
    },
    /// A manifest that breaks a rule.
    #[error("the manifest is refused")]
    Manifest(#[source] ChainError),
    /// A record before the domain was founded.
    #[error("there is no domain yet at this place of the log")]
    BeforeDomain,
    /// The manifest in force then was voided by a rotation.
    #[error("the manifest {dam}, in force at this place of the log, no longer counts")]
    VoidManifest {
        /// The manifest.
        dam: Key,
    },
    /// A checkpoint that is malformed, of another log, or not by a listed key.
    #[error("the checkpoint is refused")]
    Checkpoint(#[source] CheckpointError),
    /// A cosignature that is wrong under the name of a listed witness.
    #[error("a cosignature is wrong")]
    Cosignature(#[source] NoteError),
    /// A checkpoint of records that were not there yet.
    #[error("the checkpoint is of {}, more than were before it", count(*.size, "record"))]
    CheckpointSize {
        /// What it says.
        size: u64,
    },
    /// A signed root that is not the log's: another log was signed, or this one was changed.
    #[error("the checkpoint of {} has the root {found}; this log has {expected}", count(*.size, "record"))]
    CheckpointRoot {
        /// What it says.
        size: u64,
        /// The root of the log at this size.
        expected: TreeHash,
        /// What it says.
        found: TreeHash,
    },
    /// Not a receipt.
    #[error("the receipt is refused")]
    Receipt(#[source] CodecError),
    /// A receipt of another instance's log.
    #[error("the receipt is of the log of store {found}")]
    ReceiptStore {
        /// The instance.
        found: StoreId,
    },
    /// No session ended at the place that a receipt names.
    #[error("the receipt names record {position}, which ends no session")]
    ReceiptPosition {
        /// What it names.
        position: LogPosition,
    },
    /// Another session, or another root, than that record states.
    #[error("the receipt is of another session or root than record {position}")]
    ReceiptSubject {
        /// What it names.
        position: LogPosition,
    },
    /// Another log up to that record.
    #[error("the receipt has another chain value than the log at record {position}")]
    ReceiptChain {
        /// What it names.
        position: LogPosition,
    },
    /// A signature that does not verify.
    #[error("the signature does not count")]
    Signature(#[source] SignError),
    /// A signature by a key that the manifest in force did not list for this.
    #[error("key {key} was not listed for this at this place of the log")]
    Unlisted {
        /// The key that the signature names.
        key: KeyId,
    },
    /// The policy, or a revocation, refuses it.
    #[error("it is refused")]
    Refused(#[source] Refusal),
    /// More than anybody needs.
    #[error("there are more than {CLAIMS_MAX} of them; this and later ones are not judged")]
    TooMany,
    /// Not a policy.
    #[error("the policy is refused")]
    Policy(#[source] PolicyError),
    /// A policy by itself rules nothing: manifests name theirs.
    #[error("no manifest names this policy")]
    PolicyUnnamed,
    /// A link to another domain that too few roots signed: nobody with the authority made it.
    #[error("the link to another domain is signed by {have} of {need} roots needed")]
    LineageSigners {
        /// Distinct roots.
        have: usize,
        /// The root threshold.
        need: usize,
    },
    /// A link to another domain that the roots did sign. It may say that this domain was given up, so nobody may go on without
    /// knowing.
    #[error("the roots signed a link to another domain, which this program cannot read")]
    LineageUnknown(#[source] LineageError),
    /// A link between other domains, or one for the log of its other side.
    #[error("the link to another domain does not belong into this log")]
    LineageHome,
}

impl Problem {
    /// Whether it is unknown what the artifact says.
    pub fn is_unread(&self) -> bool {
        matches!(
            self,
            Self::Missing | Self::Unreadable(_) | Self::TooLong { .. } | Self::LineageUnknown(_)
        )
    }

    /// How bad it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Missing | Self::Unreadable(_) => Class::Integrity,
            // A listed key signed records that this log does not have: another log was signed, or this one was taken back.
            Self::CheckpointRoot { .. }
            | Self::CheckpointSize { .. }
            | Self::ReceiptChain { .. } => Class::Fork,
            Self::Manifest(refusal) => match refusal {
                ChainError::UpdateFork { .. }
                | ChainError::RotationFork { .. }
                | ChainError::OnRival { .. } => Class::Fork,
                ChainError::Void { .. } => Class::Note,
                _ => Class::Authority,
            },
            Self::Refused(Refusal::Revoked { .. } | Refusal::RevokedUncovered { .. }) => {
                Class::Authority
            }
            Self::Refused(_) => Class::Policy,
            // A rotation is there to do just this.
            Self::VoidManifest { .. } | Self::PolicyUnnamed => Class::Note,
            Self::TooLong { .. }
            | Self::BeforeDomain
            | Self::Checkpoint(_)
            | Self::Cosignature(_)
            | Self::Policy(_)
            | Self::LineageSigners { .. }
            | Self::LineageUnknown(_)
            | Self::LineageHome
            | Self::Receipt(_)
            | Self::ReceiptStore { .. }
            | Self::ReceiptPosition { .. }
            | Self::ReceiptSubject { .. }
            | Self::Signature(_)
            | Self::Unlisted { .. }
            | Self::TooMany => Class::Authority,
        }
    }
}
