//! What can go wrong in a capture or an export. Bad sectors are results, not errors.

use crate::device::OpenError;

/// Result of a capture operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the capture library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] asl_store::Error),
    /// The source could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Reading failed for a reason that is not the medium's.
    #[error("cannot read the source at byte {offset}")]
    Source {
        /// Where.
        offset: u64,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A manifest is not what it must be.
    #[error("the capture's manifest is damaged: {0}")]
    Manifest(&'static str),
    /// A session's notes are not what they must be.
    #[error("the notes of capture {session} are damaged: {what}")]
    Notes {
        /// The session.
        session: String,
        /// What was found.
        what: &'static str,
    },
    /// No capture of this name, or more than one.
    #[error("no capture {0}")]
    NoCapture(String),
    /// More than one capture fits the name.
    #[error("{name} fits {count} captures")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// How many fit.
        count: usize,
    },
    /// The capture was cut off before it had a manifest.
    #[error("capture {0} was cut off before there was an image of it")]
    Unfinished(String),
    /// The session to go on with is of another source.
    #[error("this is not the source of capture {session}: {why}")]
    OtherSource {
        /// The session.
        session: String,
        /// What differs.
        why: String,
    },
    /// The destination of an export failed.
    #[error("cannot {action} the destination")]
    Destination {
        /// The verb.
        action: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A thread ended by a panic: a bug of ours.
    #[error("a worker thread died")]
    WorkerDied,
    /// A range that is not within the image.
    #[error("bytes {start} to {end} are not within the image of {size} bytes")]
    Range {
        /// First byte.
        start: u64,
        /// One past the last.
        end: u64,
        /// Size of the image.
        size: u64,
    },
}
