//! Witnesses: others who vouch that a log only ever grew (C2SP tlog-cosignature
//! and tlog-witness), reached through files.
//!
//! The domain writes a [`Request`], the witness answers with signature lines, the
//! domain adds them to its checkpoint with [`add_response`], and whoever verifies
//! counts them with a [`Quorum`], all without a network.
//!
//! What a cosignature of ours promises is kept by [`Witness`]: it remembers, per
//! origin, the newest checkpoint that it cosigned, and cosigns only what continues
//! that. The new memory is durable before the cosignature exists.

mod exchange;
mod home;
mod quorum;
mod request;
mod state;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;

use std::io;

use crate::checkpoint::{CheckpointError, Origin};
use crate::note::NoteError;
use crate::tlog::TreeError;

pub use exchange::{
    ExchangeError, Recorded, checkpoint_keys, last_cosigned, members_of, record, request,
};
pub use home::{Home, KEY_PATH, LOG_KEYS_MAX, LOGS_PATH, PUBLIC_PATH, origin_of};
pub use quorum::{Cosigner, Quorum, QuorumError, Tally, add_response};
pub use request::{HASHES_MAX, REQUEST_LEN_MAX, Request, RequestError};
pub use state::{Fork, LOGS_MAX, Witness};

/// Why a witness gives no cosignature.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// A file of the witness could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// The verb: `open`, `write`, `sync`, …
        action: &'static str,
        /// The file, relative to what the caller gave.
        path: String,
        /// The errno.
        source: io::Error,
    },
    /// There is a witness in this place already.
    #[error("there is a witness here already: {path}")]
    Exists {
        /// Its state file.
        path: String,
    },
    /// The state file is missing. A witness that began anew could cosign a fork of what it cosigned before.
    #[error("the witness has lost its memory: there is no {path}")]
    NoState {
        /// The state file.
        path: String,
    },
    /// The state file is damaged.
    #[error("the memory of the witness is damaged: {path}, line {line}")]
    Damaged {
        /// The state file.
        path: String,
        /// The first line that is wrong, from 1.
        line: usize,
    },
    /// The state is of another witness.
    #[error("this is the memory of the witness {found}, not of {expected}")]
    OtherWitness {
        /// The note key asked for.
        expected: String,
        /// The note key of the state.
        found: String,
    },
    /// Another process has the witness open.
    #[error("another process is using this witness")]
    Busy,
    /// The key given to sign with is not the witness's.
    #[error("the key given is not the key of this witness")]
    WrongKey,
    /// The name cannot be one of a witness, or the time none of a cosignature.
    #[error("the witness cannot sign so")]
    Note(#[from] NoteError),
    /// The request is malformed.
    #[error("the request is malformed")]
    Request(#[from] RequestError),
    /// The checkpoint in the request is malformed or not signed by its log.
    #[error("the checkpoint of the request does not count")]
    Checkpoint(#[from] CheckpointError),
    /// No key is known for the checkpoint's log.
    #[error("this witness knows no log {origin}")]
    UnknownLog {
        /// The log.
        origin: Box<Origin>,
    },
    /// A key under which no domain signs checkpoints.
    #[error("{key} is not the public line of a domain's log")]
    NotALog {
        /// The note key.
        key: String,
    },
    /// It remembers [`LOGS_MAX`] logs and takes no other.
    #[error("this witness remembers {LOGS_MAX} logs already")]
    TooManyLogs,
    /// The request starts from another checkpoint than the one cosigned last.
    #[error("the request starts at size {old}, but this witness has last cosigned size {cosigned}")]
    Stale {
        /// Size of the checkpoint.
        size: u64,
        /// Where the request starts.
        old: u64,
        /// Where it would have to start.
        cosigned: u64,
    },
    /// The proof does not show that the checkpoint continues the one cosigned last.
    /// The log or whoever made the request is at fault.
    #[error("the checkpoint of size {size} is not shown to continue that of size {cosigned}")]
    Inconsistent {
        /// Size of the checkpoint.
        size: u64,
        /// Size cosigned last.
        cosigned: u64,
        /// Where both checkpoints are kept; `None` where there was no room.
        evidence: Option<String>,
        /// What is wrong.
        source: TreeError,
    },
    /// The log signed two different trees of one size: proof that it forked.
    #[error("the log has signed two different trees of size {size}")]
    Forked {
        /// The size.
        size: u64,
        /// Where both checkpoints are kept; `None` where there was no room.
        evidence: Option<String>,
    },
}

impl WitnessError {
    fn io(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
