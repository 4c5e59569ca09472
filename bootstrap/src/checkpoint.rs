//! Checkpoints (C2SP tlog-checkpoint): a signed statement of a log's size and root.
//!
//! The text is three lines: the origin, `<domain id>/<store id>`; the number of
//! records; the root of the [tree](crate::tlog) over them in base64. It is a
//! [note](crate::note) signed by a checkpoint key of the domain under the domain
//! id as name, and it may carry the cosignatures of witnesses.
//!
//! Invariants
//! - A text has one reading and a checkpoint one text: no leading zeros, no
//!   extension lines, ids in their canonical form.
//! - A checkpoint of size 0 has the root of the empty tree.
//! - A [`SignedCheckpoint`] was signed by a key that its opener trusts for exactly
//!   that origin.
//!
//! Nothing here touches a file; a crash leaves nothing.

use std::fmt;
use std::str::FromStr;

use asl_store::StoreId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::id::DomainId;
use crate::key::{PublicKey, Signer};
use crate::note::{Kind, Note, NoteError, NoteKey};
use crate::tlog::{SIZE_MAX, TreeHash, empty_root};

#[cfg(test)]
mod tests;

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is no note, or not signed as it must be.
    #[error("the checkpoint is not a note that counts")]
    Note(#[from] NoteError),
    /// Not three lines.
    #[error("a checkpoint has three lines, this one has {found}")]
    Lines {
        /// Lines found.
        found: usize,
    },
    /// The origin is not `<domain id>/<store id>` in canonical form.
    #[error("the origin of the checkpoint is not a domain id, a slash and a store id")]
    Origin,
    /// The size is not a number up to [`SIZE_MAX`] in its shortest form.
    #[error("the size of the checkpoint is not a number of records")]
    Size,
    /// The root is not 32 bytes in base64.
    #[error("the root of the checkpoint is not 32 bytes in base64")]
    Root,
    /// Size 0 with another root than the empty tree has.
    #[error("the checkpoint is of an empty log but has the root of another")]
    EmptyRoot,
    /// A checkpoint of another log.
    #[error("the checkpoint is of the log {found}, not of {expected}")]
    ForeignOrigin {
        /// The log asked for.
        expected: Box<Origin>,
        /// The log that it is of.
        found: Box<Origin>,
    },
}

/// Which log a checkpoint is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The domain whose key signs it.
    pub domain: DomainId,
    /// The store whose log it is.
    pub store: StoreId,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.store)
    }
}

impl FromStr for Origin {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let (domain, store) = text.split_once('/').ok_or(CheckpointError::Origin)?;
        let domain = domain.parse().map_err(|_| CheckpointError::Origin)?;
        let store = store.parse().map_err(|_| CheckpointError::Origin)?;
        let origin = Self { domain, store };
        // People may write ids in several ways; here that would be several texts for one log.
        if origin.to_string() != text {
            return Err(CheckpointError::Origin);
        }
        Ok(origin)
    }
}

/// What a checkpoint states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub origin: Origin,
    /// Number of its records.
    pub size: u64,
    /// Root of the tree over them.
    pub root: TreeHash,
}

impl Checkpoint {
    /// Reads the text of a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`], all but the variants about signatures.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let lines: Vec<&str> = text.split('\n').take(5).collect();
        let [origin, size, root, ""] = lines[..] else {
            let found = text.lines().count();
            return Err(CheckpointError::Lines { found });
        };
        let origin = origin.parse()?;
        let size = parse_size(size).ok_or(CheckpointError::Size)?;
        let root = parse_hash(root).ok_or(CheckpointError::Root)?;
        if size == 0 && root != empty_root() {
            return Err(CheckpointError::EmptyRoot);
        }
        Ok(Self { origin, size, root })
    }

    /// Signs it with a checkpoint key of the domain.
    ///
    /// The caller answers for never signing two checkpoints of one log of which
    /// one does not continue the other.
    ///
    /// # Errors
    /// [`CheckpointError`] for a checkpoint that could not be read back: a size
    /// above [`SIZE_MAX`], or 0 with the wrong root.
    pub fn sign(&self, signer: &Signer) -> Result<SignedCheckpoint, CheckpointError> {
        let text = self.to_string();
        Self::parse(&text)?;
        let note = Note::sign(&text, &self.origin.domain.to_string(), signer)?;
        let checkpoint = *self;
        let signers = vec![signer.public()];
        Ok(SignedCheckpoint {
            checkpoint,
            note,
            signers,
        })
    }
}

impl fmt::Display for Checkpoint {
    /// The text that is signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = BASE64.encode(self.root.0);
        write!(f, "{}\n{}\n{root}\n", self.origin, self.size)
    }
}

/// A checkpoint that the domain has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
    signers: Vec<PublicKey>,
}

impl SignedCheckpoint {
    /// Reads a checkpoint of the log `origin` and verifies that one of `keys`, the
    /// domain's checkpoint keys, has signed it.
    ///
    /// # Errors
    /// [`CheckpointError`]. A wrong signature by one of `keys` refuses even if
    /// another is right.
    pub fn open(
        bytes: &[u8],
        origin: &Origin,
        keys: &[PublicKey],
    ) -> Result<Self, CheckpointError> {
        Self::of_note(Note::parse(bytes)?, origin, keys)
    }

    /// As [`open`](Self::open), of a note that is parsed already.
    ///
    /// # Errors
    /// As `open`.
    pub fn of_note(
        note: Note,
        origin: &Origin,
        keys: &[PublicKey],
    ) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin != *origin {
            return Err(CheckpointError::ForeignOrigin {
                expected: Box::new(*origin),
                found: Box::new(checkpoint.origin),
            });
        }
        let keys: Vec<NoteKey> = keys
            .iter()
            .map(|key| log_key(&origin.domain, *key))
            .collect();
        let signed = note.verify(&keys)?;
        let mut signers: Vec<PublicKey> = signed.iter().map(|signed| signed.key.key()).collect();
        signers.sort();
        signers.dedup();
        Ok(Self {
            checkpoint,
            note,
            signers,
        })
    }

    /// What it states.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note with all its signature lines, also those that nobody verified.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// The trusted keys that have signed it, sorted, each once.
    pub fn signers(&self) -> &[PublicKey] {
        &self.signers
    }

    /// The bytes of the note.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.note.to_string().into_bytes()
    }

    /// The same checkpoint in a note with other signature lines besides.
    pub(crate) fn with_note(mut self, note: Note) -> Self {
        debug_assert_eq!(note.text(), self.note.text());
        self.note = note;
        self
    }
}

/// The name under which a domain's checkpoint key signs: the domain id.
pub fn log_key(domain: &DomainId, key: PublicKey) -> NoteKey {
    NoteKey::new(&domain.to_string(), Kind::Plain, key)
        .expect("a domain id has neither blanks nor plus signs")
}

/// Reads a size: decimal, no leading zero, at most [`SIZE_MAX`].
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let size = text.parse::<u64>().ok()?;
    (size <= SIZE_MAX && size.to_string() == text).then_some(size)
}

/// Reads a hash in canonical base64.
pub(crate) fn parse_hash(text: &str) -> Option<TreeHash> {
    let bytes = BASE64.decode(text).ok()?;
    bytes.try_into().ok().map(TreeHash)
}
