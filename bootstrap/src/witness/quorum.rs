//! Counting cosignatures, and adding them to a checkpoint.
//!
//! Invariants
//! - A quorum names each key once: no key counts under two names.
//! - A threshold is at least 1 and can be met.
//! - Only checkpoints that their own log has signed are counted for.

use crate::checkpoint::SignedCheckpoint;
use crate::key::PublicKey;
use crate::note::{Kind, NoteError, NoteKey, SignatureLine};

/// Why there is no such quorum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// A threshold of 0, or above the number of members.
    #[error("{threshold} of {members} witnesses are no quorum")]
    Threshold {
        /// The threshold.
        threshold: usize,
        /// The number of members.
        members: usize,
    },
    /// One key under several names.
    #[error("the witnesses {first} and {second} have the same key")]
    SameKey {
        /// A name.
        first: String,
        /// The other.
        second: String,
    },
    /// A name that no note can carry.
    #[error("a witness cannot be called {name:?}")]
    Name {
        /// The name.
        name: String,
    },
}

/// Witnesses, and how many of them must have cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    members: Vec<NoteKey>,
    threshold: usize,
}

/// A witness that has cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigner {
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: PublicKey,
    /// When it says that it did, in seconds since 1970. The latest of several.
    pub time: u64,
}

/// Who of a quorum has cosigned a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Those who have, in the order of the members, each once.
    pub cosigners: Vec<Cosigner>,
    /// How many are needed.
    pub threshold: usize,
}

impl Tally {
    /// Whether they are enough.
    pub fn is_met(&self) -> bool {
        self.cosigners.len() >= self.threshold
    }
}

impl Quorum {
    /// A quorum of `threshold` of these members.
    ///
    /// # Errors
    /// [`QuorumError`].
    pub fn new<'n>(
        members: impl IntoIterator<Item = (&'n str, PublicKey)>,
        threshold: usize,
    ) -> Result<Self, QuorumError> {
        let mut named: Vec<NoteKey> = Vec::new();
        for (name, key) in members {
            if let Some(first) = named.iter().find(|known| known.key() == key) {
                return Err(QuorumError::SameKey {
                    first: first.id().name.clone(),
                    second: name.to_owned(),
                });
            }
            let member = NoteKey::new(name, Kind::Cosignature, key);
            let name = name.to_owned();
            named.push(member.map_err(|_| QuorumError::Name { name })?);
        }
        let members = named.len();
        if threshold == 0 || threshold > members {
            return Err(QuorumError::Threshold { threshold, members });
        }
        Ok(Self {
            members: named,
            threshold,
        })
    }

    /// The members as note keys.
    pub fn members(&self) -> &[NoteKey] {
        &self.members
    }

    /// How many must have cosigned.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Who has cosigned this checkpoint. Too few are a result, not an error.
    ///
    /// # Errors
    /// [`NoteError::Signature`] where a line names a member and is wrong.
    pub fn tally(&self, checkpoint: &SignedCheckpoint) -> Result<Tally, NoteError> {
        let signed = match checkpoint.note().verify(&self.members) {
            Ok(signed) => signed,
            Err(NoteError::NoKnownSignature { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        let cosigner = |signed: &crate::note::Signed<'_>| {
            Some(Cosigner {
                name: signed.key.id().name.clone(),
                key: signed.key.key(),
                time: signed.time?,
            })
        };
        Ok(Tally {
            cosigners: signed.iter().filter_map(cosigner).collect(),
            threshold: self.threshold,
        })
    }
}

/// Adds the cosignatures of a witness's answer to the checkpoint that it was asked
/// about. Lines by keys that are not among `members` are left out; a line by a
/// member takes the place of an older one.
///
/// # Errors
/// [`NoteError`]: the answer is malformed, a member's line is wrong (an answer for
/// another checkpoint is), or no line is by a member.
pub fn add_response(
    checkpoint: SignedCheckpoint,
    response: &[u8],
    members: &[NoteKey],
) -> Result<SignedCheckpoint, NoteError> {
    let lines = SignatureLine::parse_all(response)?;
    let by_member = |line: &SignatureLine| members.iter().any(|member| *member.id() == line.key);
    let mut lines = lines.into_iter().filter(by_member);
    let mut note = checkpoint.note().clone();
    let first = lines.next().ok_or(NoteError::NoKnownSignature {
        known: members.len(),
    })?;
    for line in std::iter::once(first).chain(lines) {
        note = note.with(line)?;
        // One by one: a wrong line must not hide behind a later one by the same key.
        note.verify(members)?;
    }
    Ok(checkpoint.with_note(note))
}
