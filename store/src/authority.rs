//! Records of authority: which artifacts, in which order, say who vouches for the store.
//!
//! The store knows nothing of what they say: a record is a type and a list of keys, first what it is about, then its
//! signatures. Who folds them reads the log ([`StoreHandle::records`]); the state and its files have nothing of it.
//!
//! Invariants
//! - The artifacts that a record names are visible when it is appended.
//! - Each record is repeated by a note in a block sealed before it, so that it can be logged again
//!   from block files alone.
//!
//! Crash: note and artifacts that became durable without the record are found by the next opening, which
//! appends the record, unless the log got it in another way or an artifact is missing.

use std::collections::HashSet;

use crate::epoch::session_note;
use crate::error::{Error, Result};
use crate::format::{self, authority_note as an, authority_payload as ap};
use crate::id::{Key, LogPosition, SessionId};
use crate::log::{LogEnd, LogFiles, LogName, NewRecord, Record};
use crate::state::{self, State};
use crate::store::StoreHandle;
use crate::writer::StoreWriter;

/// What a record of authority is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Authority {
    /// A domain authority manifest.
    Dam,
    /// A policy.
    Policy,
    /// What a witness agreed to.
    Witness,
    /// A signed head of the log.
    Checkpoint,
    /// A receipt.
    Receipt,
    /// A link between two domains.
    Lineage,
}

impl Authority {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Dam,
        Self::Policy,
        Self::Witness,
        Self::Checkpoint,
        Self::Receipt,
        Self::Lineage,
    ];

    /// Its `format::RECORD_*`.
    pub fn record_type(self) -> u16 {
        match self {
            Self::Dam => format::RECORD_DAM,
            Self::Policy => format::RECORD_POLICY,
            Self::Witness => format::RECORD_WITNESS,
            Self::Checkpoint => format::RECORD_CHECKPOINT,
            Self::Receipt => format::RECORD_RECEIPT,
            Self::Lineage => format::RECORD_LINEAGE,
        }
    }

    /// The kind of a record type; `None` for other records.
    pub fn of_type(record_type: u16) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.record_type() == record_type)
    }

    /// Whether a reader that does not know it must stop: one that passed over a revocation would
    /// believe what it must not. Checkpoints and receipts only add evidence.
    pub fn is_critical(self) -> bool {
        !matches!(self, Self::Checkpoint | Self::Receipt)
    }
}

/// A record of authority.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthorityRecord {
    /// What it is about.
    pub kind: Authority,
    /// The artifacts that it names, the body first.
    pub keys: Vec<Key>,
}

impl AuthorityRecord {
    /// Reads a record; `None` for one of another type, or whose payload is malformed.
    pub fn of_record(record: &Record) -> Option<Self> {
        let kind = Authority::of_type(record.record_type)?;
        let keys = record.payload.get(ap::LEN..)?;
        let counted = keys.len() == usize::from(ap::COUNT.u16(&record.payload)) * 32;
        let keys = parse_keys(keys).filter(|_| counted)?;
        Some(Self { kind, keys })
    }

    fn record(&self) -> NewRecord {
        let mut payload = vec![0; ap::LEN];
        ap::COUNT.set(&mut payload, self.keys.len() as u16);
        payload.extend(self.keys.iter().flat_map(|key| key.0));
        NewRecord {
            record_type: self.kind.record_type(),
            critical: self.kind.is_critical(),
            payload,
        }
    }

    /// The note that repeats it, written when the log had `position` records.
    fn note(&self, position: LogPosition) -> Vec<u8> {
        let mut note = vec![0; an::LEN];
        an::POSITION.set(&mut note, position.0);
        an::TYPE.set(&mut note, self.kind.record_type());
        note.extend(self.keys.iter().flat_map(|key| key.0));
        note
    }

    /// Reads a note; `None` where it does not parse or is of a type that this program does not know.
    pub(crate) fn parse_note(note: &[u8]) -> Option<(LogPosition, Self)> {
        let keys = parse_keys(note.get(an::LEN..)?)?;
        let kind = Authority::of_type(an::TYPE.u16(note))?;
        let position = LogPosition(an::POSITION.get(note));
        Some((position, Self { kind, keys }))
    }
}

fn parse_keys(raw: &[u8]) -> Option<Vec<Key>> {
    let count = raw.len() / 32;
    if !raw.len().is_multiple_of(32) || !is_count(count) {
        return None;
    }
    let keys = raw.chunks_exact(32);
    Some(
        keys.map(|key| Key(key.try_into().expect("chunks of 32 bytes")))
            .collect(),
    )
}

/// Whether a record may name so many artifacts.
fn is_count(count: usize) -> bool {
    (1..=format::AUTHORITY_KEYS_MAX as usize).contains(&count)
}

/// A record of a session that happened elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The session.
    pub session: SessionId,
    /// `format::SESSION_*`.
    pub kind: u8,
    /// The artifact that everything of it is reachable from.
    pub root: Option<Key>,
    /// Opaque; at most [`format::SESSION_BODY_MAX`] bytes.
    pub body: Vec<u8>,
}

impl SessionRecord {
    fn record(&self) -> Result<NewRecord> {
        let (len, max) = (self.body.len() as u64, format::SESSION_BODY_MAX.into());
        if len > max {
            let what = "a session's description";
            return Err(Error::TooLong { what, len, max });
        }
        Ok(state::session_record(
            self.session,
            self.kind,
            self.root,
            &self.body,
        ))
    }
}

impl StoreWriter {
    /// Appends a record of authority about `keys`, the body first. The artifacts must have been put; what is not committed yet
    /// is committed with the record, in one append. Returns the record's position. Durable when this returns.
    pub fn authority(&mut self, kind: Authority, keys: &[Key]) -> Result<LogPosition> {
        self.authority_with(kind, keys, &[])
    }

    /// Like [`authority`](Self::authority), with records of `sessions` after it in the same append. A power cut may keep the record
    /// and lose some of those that follow; who appends them looks which are there.
    pub fn authority_with(
        &mut self,
        kind: Authority,
        keys: &[Key],
        sessions: &[SessionRecord],
    ) -> Result<LogPosition> {
        if !is_count(keys.len()) {
            return Err(Error::Parameter {
                parameter: "the number of artifacts in a record of authority",
                expected: "1 to 256",
            });
        }
        // Those of another instance are not enough: the log must be understood by itself.
        if let Some(missing) = keys.iter().find(|key| !self.has_own(key)) {
            return Err(Error::NotFound(*missing));
        }
        let record = AuthorityRecord {
            kind,
            keys: keys.to_vec(),
        };
        let sessions: Vec<NewRecord> = sessions
            .iter()
            .map(SessionRecord::record)
            .collect::<Result<_>>()?;
        let position = self.handle.with_state(State::position);
        self.repeat_sessions(&sessions)?;
        self.note(format::NOTE_AUTHORITY, record.note(position))?;
        self.commit_with(|_| [record.record()].into_iter().chain(sessions))?;
        self.authority_at.ok_or(Error::Poisoned)
    }

    /// Commits, and appends records of sessions that happened elsewhere. Durable when this returns.
    pub fn sessions(&mut self, sessions: &[SessionRecord]) -> Result<()> {
        let records: Vec<NewRecord> = sessions
            .iter()
            .map(SessionRecord::record)
            .collect::<Result<_>>()?;
        self.repeat_sessions(&records)?;
        self.commit_with(|_| records)
    }

    fn repeat_sessions(&mut self, records: &[NewRecord]) -> Result<()> {
        let position = self.handle.with_state(State::position);
        for record in records {
            self.note(format::NOTE_SESSION_RECORD, session_note(position, record))?;
        }
        Ok(())
    }

    /// Of the records that notes repeat, each with the length of the log then: those that the log lacks and that can be
    /// relied on, because all their artifacts are stored or among `found`.
    pub(crate) fn unlogged_authority(
        &mut self,
        notes: Vec<(LogPosition, AuthorityRecord)>,
        found: &HashSet<Key>,
    ) -> Result<Vec<NewRecord>> {
        let Some(since) = notes.iter().map(|(position, _)| *position).min() else {
            return Ok(Vec::new());
        };
        let mut logged = HashSet::new();
        self.handle.records(since, &mut |record, _| {
            logged.extend(AuthorityRecord::of_record(record));
            Ok(())
        })?;
        let mut missing = Vec::new();
        for (_, record) in notes {
            if logged.contains(&record) {
                continue;
            }
            let stored = |key: &Key| {
                found.contains(key) || matches!(self.handle.lookup_part(key), Ok(Some(_)))
            };
            if record.keys.iter().all(stored) {
                missing.push(record.record());
                logged.insert(record);
            } else {
                self.recovery.lost_authority += 1;
            }
        }
        Ok(missing)
    }
}

impl StoreHandle {
    /// Calls `each` for the log's files in their order, each piece by piece: first its header, then each record of this view, all
    /// as they are stored. What lies behind the last record is left out. The chain is checked from the beginning of the log.
    pub fn log_bytes(&self, each: &mut dyn FnMut(&LogName, &[u8]) -> Result<()>) -> Result<()> {
        let files = LogFiles::list(&**self.vfs())?;
        let mut now: Option<LogName> = None;
        self.records(LogPosition(0), &mut |record, raw| {
            let (name, _) = record.place;
            if now != Some(name) {
                each(&name, &files.raw_header(&**self.vfs(), &name)?)?;
                now = Some(name);
            }
            each(&name, raw)
        })
    }

    /// Calls `each` for every record of this view from position `from` on, with its bytes as they are stored: head,
    /// payload, padding and tail. The chain is checked from the beginning of the log.
    pub fn records(
        &self,
        from: LogPosition,
        each: &mut dyn FnMut(&Record, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let until = self.with_state(State::place);
        let files = LogFiles::list(&**self.vfs())?;
        if !files.begins_at_zero() {
            return Err(Error::LogDamaged {
                what: "its beginning is missing".into(),
            });
        }
        let (place, end) = files.read_raw(
            &**self.vfs(),
            files.start(),
            until.position,
            &mut |record, raw| {
                if record.position < from {
                    return Ok(());
                }
                each(&record, raw)
            },
        )?;
        match end {
            _ if place.position == until.position && place.chain == until.chain => Ok(()),
            LogEnd::Damaged { what } => Err(Error::LogDamaged { what }),
            _ => Err(Error::LogDamaged {
                what: format!(
                    "records before {} are not those that were there when the store was opened",
                    until.position
                ),
            }),
        }
    }
}
