//! The domain's side of witnessing: the question about the newest checkpoint, and the record that keeps the answer.
//!
//! Order of [`record`]: the note with all cosignatures as an artifact, then in the same append the record that names it. Crash: no
//! record, and the same answer can be added again.

use asl_store::{Authority, Key, LogPosition, StoreHandle, StoreWriter};

use super::{Request, add_response};
use crate::checkpoint::SignedCheckpoint;
use crate::dam::{Dam, Roles};
use crate::domain::{CheckpointState, Domain};
use crate::error::Result;
use crate::id::KeyId;
use crate::key::PublicKey;
use crate::mint::put;
use crate::note::{Kind, Note, NoteError, NoteKey, SignatureLine};
use crate::tlog::{Prover, leaf_hash};
use crate::words::count;

/// Why nothing can be asked or added.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Nothing was signed that could be shown.
    #[error("the log has no signed checkpoint to show to a witness")]
    NoCheckpoint,
    /// The domain has none.
    #[error("the domain has no witnesses")]
    NoWitnesses,
    /// The answer is malformed.
    #[error("the answer is malformed")]
    Answer(#[source] NoteError),
    /// The answer is by none of the witnesses.
    #[error("the answer is by none of the domain's witnesses")]
    Stranger,
    /// The answer is by a witness, and over no checkpoint that this log has.
    #[error("the answer of witness {name} is about no checkpoint of this log")]
    OtherCheckpoint {
        /// The witness.
        name: String,
    },
    /// The witness remembers a longer log than there is.
    #[error("the witness has cosigned {}, and the newest checkpoint here is of {size}", count(*.old, "record"))]
    RolledBack {
        /// What the witness cosigned.
        old: u64,
        /// The newest checkpoint.
        size: u64,
    },
}

/// The size that a witness cosigned last, as far as this log knows; 0 for none.
pub fn last_cosigned(domain: &Domain, witness: &KeyId) -> u64 {
    let all = domain.checkpoints.iter().chain(&domain.unwitnessed);
    let cosigned = all.filter(|state| state.cosigners.contains_key(witness));
    cosigned.map(|state| state.size).max().unwrap_or(0)
}

/// Asks for a cosignature of the newest checkpoint by a witness that cosigned `old` records last.
///
/// # Errors
/// [`ExchangeError::NoCheckpoint`], [`ExchangeError::RolledBack`]; [`asl_store::Error`] where log or artifact cannot be read.
pub fn request(store: &StoreHandle, domain: &Domain, old: u64) -> Result<Request> {
    let newest = domain
        .newest_checkpoint()
        .ok_or(ExchangeError::NoCheckpoint)?;
    let size = newest.size;
    if old > size {
        return Err(ExchangeError::RolledBack { old, size }.into());
    }
    let note = Note::parse(&store.get_part(&newest.note)?)?;
    let mut prover = Prover::consistency(old, size)?;
    store.records(LogPosition(0), &mut |record, raw| {
        if record.position.0 < size {
            prover.push(leaf_hash(raw));
        }
        Ok(())
    })?;
    let proof = prover.finish()?;
    Ok(Request { old, proof, note })
}

/// What an answer brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The note with all cosignatures so far.
    pub note: Key,
    /// Its record; none where every cosignature was there before.
    pub record: Option<LogPosition>,
    /// Records that the checkpoint covers.
    pub size: u64,
    /// Names of the witnesses that answered.
    pub names: Vec<String>,
}

/// Keeps a witness's answer about one of the log's checkpoints, the newest that it fits.
///
/// # Errors
/// [`ExchangeError`]; whatever the store refuses.
pub fn record(writer: &mut StoreWriter, domain: &Domain, answer: &[u8]) -> Result<Recorded> {
    let lines = SignatureLine::parse_all(answer).map_err(ExchangeError::Answer)?;
    let mut states: Vec<&CheckpointState> = (domain.checkpoints.iter())
        .chain(&domain.unwitnessed)
        .collect();
    states.sort_by_key(|state| std::cmp::Reverse((state.size, state.record)));
    if states.is_empty() {
        return Err(ExchangeError::NoCheckpoint.into());
    }
    let mut named = None;
    let mut watched = false;
    for state in states {
        // Whoever was listed when the checkpoint was signed is asked about it.
        let Some(node) = domain.chain.node(&state.in_force) else {
            continue;
        };
        let members = members_of(&node.dam);
        watched |= !members.is_empty();
        let by_member = |key: &&NoteKey| lines.iter().any(|line| line.key == *key.id());
        let answering: Vec<&NoteKey> = members.iter().filter(by_member).collect();
        let Some(first) = answering.first() else {
            continue;
        };
        named.get_or_insert_with(|| first.id().name.clone());
        let note = Note::parse(&writer.handle().get_part(&state.note)?)?;
        let keys = checkpoint_keys(&node.dam);
        let signed = SignedCheckpoint::of_note(note, &domain.origin(), &keys)?;
        let Ok(cosigned) = add_response(signed, answer, &members) else {
            continue;
        };
        let mut recorded = Recorded {
            note: state.note,
            record: None,
            size: state.size,
            names: answering.iter().map(|key| key.id().name.clone()).collect(),
        };
        let known = |key: &&NoteKey| state.cosigners.contains_key(&key.key().id());
        if !answering.iter().all(known) {
            recorded.note = put(writer, &cosigned.to_bytes())?;
            recorded.record = Some(writer.authority(Authority::Witness, &[recorded.note])?);
        }
        return Ok(recorded);
    }
    Err(match (named, watched) {
        (Some(name), _) => ExchangeError::OtherCheckpoint { name },
        (None, true) => ExchangeError::Stranger,
        (None, false) => ExchangeError::NoWitnesses,
    }
    .into())
}

/// The witnesses of a manifest, as note keys.
pub fn members_of(dam: &Dam) -> Vec<NoteKey> {
    let members = dam.witness.members.iter();
    let key =
        |member: &crate::dam::Member| NoteKey::new(&member.name, Kind::Cosignature, member.key);
    // A manifest's own rules allow only names that a note can carry.
    members.filter_map(|member| key(member).ok()).collect()
}

/// The keys that sign a manifest's checkpoints.
pub fn checkpoint_keys(dam: &Dam) -> Vec<PublicKey> {
    let principals = dam.principals.iter();
    let signing = principals.filter(|principal| principal.roles.contains(Roles::CHECKPOINT));
    signing.map(|principal| principal.key).collect()
}
