//! Deletions: what hides a key here, and what another instance has said about it.
//!
//! A tombstone hides a key in the log that it stands in. What another instance shows is hidden by a *removal*: "what that one
//! said about these keys in its records before this position counts no more". So a removal hides only what its writer had
//! seen, and what is put there later, or was put there unknown to it, stays (an observed-remove set; Shapiro et al., "A
//! comprehensive study of Convergent and Commutative Replicated Data Types", INRIA RR-7506, 2011).
//!
//! Invariants
//! - Removals only accumulate: of several for one key and instance the highest position counts, in whatever order they are met.
//! - No log removes what it says itself; that is what tombstones are for.
//! - Each is repeated by a note in a block sealed before it, all notes of one call in one block, so that deletions
//!   survive being told from block files alone.
//!
//! Order of writes: the notes, in the open block; its seal; seal record, tombstones and removals in one append.
//! Crash: notes that became durable without their records are found by the next opening, which appends the records.

use crate::error::Result;
use crate::format::{self, removed_payload as rp};
use crate::frame;
use crate::id::{Key, LogPosition, StoreId};
use crate::log::{NewRecord, Record};
use crate::recover::TOMBSTONES_MAX;
use crate::state::{self, State};
use crate::writer::StoreWriter;

/// What an instance's log said about some keys up to a position counts no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The instance.
    pub store: StoreId,
    /// Its records before this one are meant.
    pub position: LogPosition,
    /// The keys.
    pub keys: Vec<Key>,
}

impl Removal {
    /// Reads a record; `None` for one of another type, or whose payload is malformed.
    pub fn of_record(record: &Record) -> Option<Self> {
        match record.record_type {
            format::RECORD_REMOVED => Self::parse(&record.payload),
            _ => None,
        }
    }

    /// Reads a record's payload or a note, which are alike.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let keys = payload.get(rp::LEN..)?;
        let count = rp::COUNT.u32(payload) as usize;
        if count == 0 || keys.len() != count.checked_mul(32)? {
            return None;
        }
        let keys = keys.chunks_exact(32);
        Some(Self {
            store: StoreId(rp::STORE.array(payload)),
            position: LogPosition(rp::POSITION.get(payload)),
            keys: keys
                .map(|key| Key(key.try_into().expect("chunks of 32 bytes")))
                .collect(),
        })
    }

    /// The payload of its record and its note.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = vec![0; rp::LEN];
        rp::STORE.put(&mut payload, &self.store.0);
        rp::POSITION.set(&mut payload, self.position.0);
        rp::COUNT.set(&mut payload, self.keys.len() as u32);
        payload.extend(self.keys.iter().flat_map(|key| key.0));
        payload
    }

    pub(crate) fn record(&self) -> NewRecord {
        NewRecord {
            record_type: format::RECORD_REMOVED,
            critical: true,
            payload: self.encode(),
        }
    }

    /// What of it a log with this state has not said yet.
    pub(crate) fn unsaid(mut self, state: &State) -> Option<Self> {
        let (store, position) = (self.store, self.position.0);
        if store == state.store_id() {
            return None;
        }
        self.keys
            .retain(|key| state.removed(store, key).is_none_or(|said| said < position));
        (!self.keys.is_empty()).then_some(self)
    }
}

impl StoreWriter {
    /// Hides keys from here on: what is shown of them here, and what other instances show as far as they are known
    /// here. Durable and visible when this returns.
    pub fn tombstone(&mut self, keys: &[Key]) -> Result<()> {
        let instances = self.handle.all().count();
        // All notes of a call fit into one block, however many instances show the keys.
        for keys in keys.chunks((TOMBSTONES_MAX / instances).max(1)) {
            let removals = self.handle.shown_elsewhere(keys)?;
            let position = self.handle.with_state(State::position);
            let mut notes = vec![(
                format::NOTE_TOMBSTONES,
                frame::build_tombstones(position, keys),
            )];
            let removed = removals.iter();
            notes.extend(removed.map(|removal| (format::NOTE_REMOVED, removal.encode())));
            self.notes_together(notes)?;
            self.commit_with(|block| {
                let hidden = block.map(|block| state::tombstone_record(keys, block));
                let removed = removals.iter().map(Removal::record);
                hidden.into_iter().chain(removed).collect::<Vec<_>>()
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_has_one_form() {
        let removal = Removal {
            store: StoreId([7; 16]),
            position: LogPosition(1 << 40),
            keys: vec![Key([1; 32]), Key([2; 32])],
        };
        let payload = removal.encode();
        assert_eq!(Removal::parse(&payload).as_ref(), Some(&removal));
        for short in 0..payload.len() {
            assert_eq!(Removal::parse(&payload[..short]), None, "{short} bytes");
        }
        let mut longer = payload;
        longer.extend([0; 32]);
        assert_eq!(Removal::parse(&longer), None);
        let none = Removal {
            keys: Vec::new(),
            ..removal
        };
        assert_eq!(Removal::parse(&none.encode()), None, "about nothing");
    }
}
