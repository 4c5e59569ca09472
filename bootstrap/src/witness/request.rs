//! The question to a witness: the body of C2SP tlog-witness `add-checkpoint`.
//!
//! `old <size>`, the consistency proof with one base64 hash per line, a blank
//! line, the checkpoint. The answer is signature lines.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::checkpoint::{parse_hash, parse_size};
use crate::note::{NOTE_LEN_MAX, Note, NoteError};
use crate::tlog::TreeHash;

/// Hashes that a request may have, by the specification: enough for 2^62 records.
pub const HASHES_MAX: usize = 63;
/// Bytes that a request may have.
pub const REQUEST_LEN_MAX: usize = NOTE_LEN_MAX + (HASHES_MAX + 1) * 64;

/// Why bytes are no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than [`REQUEST_LEN_MAX`].
    #[error("the request has {len} bytes, more than {REQUEST_LEN_MAX}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// The lines before the checkpoint are not text, or no blank line ends them.
    #[error("the request has no blank line before the checkpoint")]
    NoSeparator,
    /// The first line is not `old <size>`.
    #[error("the request does not begin with the old size")]
    OldSize,
    /// A line is not 32 bytes in base64.
    #[error("line {number} of the request is not a hash")]
    Hash {
        /// Ordinal of the line, from 1.
        number: usize,
    },
    /// More hashes than any proof has.
    #[error("the request has more than {HASHES_MAX} hashes")]
    TooManyHashes,
    /// What follows is no note.
    #[error("the checkpoint of the request is no note")]
    Note(#[from] NoteError),
}

/// A checkpoint to be cosigned, and proof that it continues an older one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Size that the witness cosigned last, 0 for none.
    pub old: u64,
    /// Consistency proof from `old` to the checkpoint; empty where `old` is 0.
    pub proof: Vec<TreeHash>,
    /// The checkpoint, signed by its log.
    pub note: Note,
}

impl Request {
    /// Reads a request. Nothing in it is verified.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        let len = bytes.len();
        if len > REQUEST_LEN_MAX {
            return Err(RequestError::TooLong { len });
        }
        let split = bytes.windows(2).position(|pair| pair == b"\n\n");
        let split = split.ok_or(RequestError::NoSeparator)?;
        let head = std::str::from_utf8(&bytes[..split]).map_err(|_| RequestError::NoSeparator)?;
        let mut lines = head.split('\n').zip(1..);
        let old = lines
            .next()
            .and_then(|(line, _)| line.strip_prefix("old "))
            .and_then(parse_size)
            .ok_or(RequestError::OldSize)?;
        let mut proof = Vec::new();
        for (line, number) in lines {
            if proof.len() == HASHES_MAX {
                return Err(RequestError::TooManyHashes);
            }
            proof.push(parse_hash(line).ok_or(RequestError::Hash { number })?);
        }
        let note = Note::parse(&bytes[split + 2..])?;
        Ok(Self { old, proof, note })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{}", BASE64.encode(hash.0))?;
        }
        write!(f, "\n{}", self.note)
    }
}
