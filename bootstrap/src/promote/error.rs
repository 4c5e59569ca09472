//! Why a promotion does not begin, or does not end.

use asl_store::log::LogEnd;
use asl_store::{Epoch, LogPosition, SessionId, StoreId};

use crate::domain::Class;
use crate::id::DomainId;
use crate::pin::{Compared, Pin};
use crate::trust::Evidence;
use crate::verify::Found;
use crate::words::{are, count, were};

/// A promotion that is refused.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// The source's log does not end with a whole record. Whoever owns the source can say what is to become of that.
    #[error("the log of the source {}", of_end(.0))]
    SourceLog(LogEnd),
    /// An instance of the source cannot be opened.
    #[error("{path} in the source: {what}")]
    SourceInstance {
        /// Its directory.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The source has no domain, so that nobody vouches for anything in it.
    #[error("the source has no domain: nobody vouches for what is in it")]
    NoDomain,
    /// Something in the source's log is not as it should be.
    #[error("{} in the source's log not as {} should be", are(.found.len() as u64, "thing"), if .found.len() == 1 { "it" } else { "they" })]
    Source {
        /// The instance whose log it is.
        store: StoreId,
        /// The worst of it.
        class: Class,
        /// All of it, in the order of the log.
        found: Vec<Found>,
    },
    /// The target has no domain that could take anything over.
    #[error("the target has no domain yet")]
    TargetNoDomain,
    /// What the target's log says of its domain cannot be read, or is forked.
    #[error("the target's own domain is not in order")]
    Target {
        /// What is wrong with it.
        class: Class,
    },
    /// A domain takes nothing over from itself.
    #[error("both stores are of domain {0}")]
    SameDomain(DomainId),
    /// The source's manifests are not a continuation of those that were seen before.
    #[error("the source's manifests end before, or go another way than, the ones seen before")]
    Manifest {
        /// What was seen.
        pinned: Box<Pin>,
        /// How the source compares.
        found: Compared,
    },
    /// The source's log is shorter than it was.
    #[error(
        "the log of store {store} has {}, but {known} of it {} taken over or seen before",
        count(.found.0, "record"), were(.known.0)
    )]
    RolledBack {
        /// The store instance.
        store: StoreId,
        /// Records that it has.
        found: LogPosition,
        /// Records that it had.
        known: LogPosition,
    },
    /// The source's log has other records than it had.
    #[error("the log of store {} goes another way than it did before", .evidence.store())]
    Forked {
        /// Both histories, to be kept.
        evidence: Box<Evidence>,
    },
    /// The source's log lost records and was made again, and nobody said that this is known.
    #[error(
        "the log of store {store} lost records and was made again: {} of {} are as they were",
        .epoch.from, .epoch.remembered
    )]
    Rebuilt {
        /// The store instance.
        store: StoreId,
        /// What its log says of it.
        epoch: Epoch,
    },
    /// Blocks of the source are damaged.
    #[error("{} damaged in the source", are(.blocks.len() as u64, "block"))]
    Damaged {
        /// Which, and what they cost.
        blocks: Vec<DamagedBlock>,
    },
    /// The source's index is not what its log says.
    #[error("the source's index is damaged")]
    Index(#[source] asl_store::Error),
    /// The source shows, or refers to, what is nowhere in it.
    #[error(
        "{} of the source nowhere in it, and {} incomplete",
        are(*.artifacts, "artifact"), are(.sessions.len() as u64, "capture")
    )]
    Incomplete {
        /// How many of those that it shows.
        artifacts: u64,
        /// Which captures, and how many artifacts each lacks.
        sessions: Vec<(SessionId, u64)>,
    },
    /// The source's log is not what it was when the promotion began.
    #[error("the source was changed while it was read")]
    Changed(#[source] asl_store::Error),
    /// The target was promoted into since the plan was made.
    #[error("the target was changed since the plan was made")]
    TargetChanged,
    /// More captures than one lineage names.
    #[error("{count} captures are too many to be taken over at once")]
    TooManySessions {
        /// How many.
        count: usize,
    },
    /// A capture that was asked for is not a finished one of the source.
    #[error("the source has no finished capture {0}")]
    NoSession(SessionId),
    /// The keys at hand are not enough of the domain's roots.
    #[error("{have} of the {need} roots needed are at hand")]
    Roots {
        /// Distinct roots.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// The keys of the source do not speak for its domain.
    #[error("the source's keys are {have} of the {need} roots that speak for it")]
    ChildRoots {
        /// Distinct roots.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// The caller asked to stop. The same promotion goes on from here.
    #[error("stopped")]
    Stopped,
}

/// What is the matter with a log that ends so.
pub(super) fn of_end(end: &LogEnd) -> String {
    match end {
        LogEnd::Clean => "is whole".into(),
        LogEnd::Torn { ignored_bytes } => {
            format!(
                "ends in {} that a crash tore",
                count(*ignored_bytes, "byte")
            )
        }
        LogEnd::Damaged { what } => format!("is damaged: {what}"),
        LogEnd::Lost { remembered } => {
            format!("once had {} and lacks some", count(remembered.0, "record"))
        }
    }
}

/// A block of the source that is not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedBlock {
    /// Its file, below the source.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
    /// Finished captures that lack something without it.
    pub captures: Vec<SessionId>,
}

impl PromoteError {
    /// What it says of the source or the target; `None` where it says nothing of them.
    pub fn class(&self) -> Option<Class> {
        Some(match self {
            Self::SourceLog(_)
            | Self::SourceInstance { .. }
            | Self::Damaged { .. }
            | Self::Index(_)
            | Self::Incomplete { .. }
            | Self::Changed(_) => Class::Integrity,
            Self::Source { class, .. } | Self::Target { class } => *class,
            Self::NoDomain
            | Self::TargetNoDomain
            | Self::SameDomain(_)
            | Self::Roots { .. }
            | Self::ChildRoots { .. } => Class::Authority,
            Self::Manifest { found, .. } => match found {
                Compared::OtherDomain => Class::Authority,
                _ => Class::Fork,
            },
            Self::RolledBack { .. } | Self::Forked { .. } | Self::Rebuilt { .. } => Class::Fork,
            Self::TargetChanged
            | Self::TooManySessions { .. }
            | Self::NoSession(_)
            | Self::Stopped => return None,
        })
    }
}

/// What is wrong, without the file.
pub(super) fn what(error: &asl_store::Error) -> String {
    match error {
        asl_store::Error::Damaged { what, .. } => what.clone(),
        asl_store::Error::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}
