//! From the log to a state: CURRENT, and `Index(S, P)`.
//!
//! A state file lets reading start at a snapshot instead of position 0. It is
//! believed only if the log record at the place it names pins its digest; else
//! the whole log is read. `log/current` says which snapshot to try first and
//! remembers how long the log was at the last orderly close, so that a log that
//! lost records at its end is told from one that a crash tore.

use crate::error::{Error, Result};
use crate::format::{self, current_hint as ch, snapshot_payload as pp};
use crate::id::{Digest, LogPosition};
use crate::index::{read_file, replace_file};
use crate::log::{LogEnd, LogFiles, LogName, LogPlace, Record};
use crate::state::{SnapshotInfo, State, Tail};
use crate::vfs::Vfs;

/// Path of the hint.
pub const HINT_PATH: &str = "log/current";
/// "To the end of the log."
pub const END: LogPosition = LogPosition(u64::MAX);

/// What `log/current` remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// End of the log at the last orderly close.
    pub place: LogPlace,
    /// Ordinal of the newest snapshot then; 0 for none.
    pub snapshot: u64,
}

impl Hint {
    /// Writes the hint.
    pub fn write(&self, vfs: &dyn Vfs) -> Result<()> {
        let mut buf = [0; ch::LEN];
        ch::MAGIC.put(&mut buf, &format::CURRENT_MAGIC);
        ch::VERSION.set(&mut buf, format::FORMAT_VERSION);
        ch::GENERATION.set(&mut buf, self.place.name.generation);
        ch::FIRST_POSITION.set(&mut buf, self.place.name.first);
        ch::POSITION.set(&mut buf, self.place.position.0);
        ch::VALID_LEN.set(&mut buf, self.place.offset);
        ch::CHAIN.put(&mut buf, &self.place.chain.0);
        ch::SNAPSHOT.set(&mut buf, self.snapshot);
        let crc = crc32c::crc32c(&buf[..ch::CRC.offset]);
        ch::CRC.set(&mut buf, crc);
        replace_file(vfs, HINT_PATH, &buf)
    }

    /// Reads the hint; `None` where there is no valid one.
    pub fn read(vfs: &dyn Vfs) -> Option<Self> {
        Self::decode(&read_file(vfs, HINT_PATH).ok()?)
    }

    /// The hint that a file's bytes are, if they are one.
    pub(crate) fn decode(buf: &[u8]) -> Option<Self> {
        if buf.len() != ch::LEN
            || ch::MAGIC.of(buf) != format::CURRENT_MAGIC
            || ch::VERSION.u16(buf) > format::FORMAT_VERSION
            || ch::CRC.u32(buf) != crc32c::crc32c(&buf[..ch::CRC.offset])
        {
            return None;
        }
        let name = LogName {
            first: ch::FIRST_POSITION.get(buf),
            generation: ch::GENERATION.u32(buf),
        };
        let place = LogPlace {
            name,
            offset: ch::VALID_LEN.get(buf),
            position: LogPosition(ch::POSITION.get(buf)),
            chain: Digest(ch::CHAIN.array(buf)),
        };
        Some(Self {
            place,
            snapshot: ch::SNAPSHOT.get(buf),
        })
    }
}

/// Directory of a snapshot.
pub fn snapshot_dir(ordinal: u64) -> String {
    format!("snapshots/snapshot-{ordinal:08}")
}

/// Path of a snapshot's state file.
pub fn state_path(ordinal: u64) -> String {
    format!("{}/state.bin", snapshot_dir(ordinal))
}

/// The bytes of a state file.
pub fn encode_state(state: &State) -> Vec<u8> {
    let mut bytes = format::STATE_MAGIC.to_vec();
    bytes.extend_from_slice(&format::FORMAT_VERSION.to_le_bytes());
    let known = "a state has no type that postcard cannot write";
    let bytes = postcard::to_extend(state, bytes).expect(known);
    match state.tail == Tail::default() {
        true => bytes,
        false => postcard::to_extend(&state.tail, bytes).expect(known),
    }
}

/// Digest of a state file, as snapshot records pin it.
pub fn state_digest(bytes: &[u8]) -> Digest {
    Digest(blake3::derive_key(format::CONTEXT_STATE, bytes))
}

pub(crate) fn decode_state(bytes: &[u8]) -> Option<State> {
    let body = bytes
        .strip_prefix(&format::STATE_MAGIC)?
        .strip_prefix(&format::FORMAT_VERSION.to_le_bytes())?;
    let (mut state, rest) = postcard::take_from_bytes::<State>(body).ok()?;
    if !rest.is_empty() {
        match postcard::take_from_bytes(rest) {
            Ok((tail, [])) => state.tail = tail,
            _ => return None,
        }
    }
    Some(state)
}

/// The store's log read to its end.
pub struct Current {
    /// The log's files.
    pub files: LogFiles,
    /// What the log defines.
    pub state: State,
    /// How the log ends.
    pub end: LogEnd,
}

/// Reads CURRENT, from the newest usable snapshot on.
pub fn load(vfs: &dyn Vfs) -> Result<Current> {
    let files = LogFiles::list(vfs)?;
    let hint = Hint::read(vfs);
    let mut candidates: Vec<u64> = hint
        .iter()
        .map(|hint| hint.snapshot)
        .filter(|ordinal| *ordinal > 0)
        .collect();
    if candidates.is_empty() {
        candidates.extend(newest_snapshot_dir(vfs));
    }
    let mut check = HintCheck {
        hint,
        disagrees: false,
    };
    let mut folded = None;
    for ordinal in candidates {
        folded = from_state_file(vfs, &files, ordinal, END, &mut |record| check.see(record));
        if folded.is_some() {
            break;
        }
    }
    let (state, mut end) = match folded {
        Some(folded) => folded?,
        None => fold(vfs, &files, END, false, &mut |record| check.see(record))?,
    };
    if let Some(hint) = hint
        && !matches!(end, LogEnd::Damaged { .. })
        && (hint.place.position > state.position() || check.disagrees)
    {
        end = LogEnd::Lost {
            remembered: hint.place.position,
        };
    }
    Ok(Current { files, state, end })
}

struct HintCheck {
    hint: Option<Hint>,
    disagrees: bool,
}

impl HintCheck {
    fn see(&mut self, record: &Record) {
        if let Some(hint) = &self.hint
            && record.position.0 + 1 == hint.place.position.0
        {
            self.disagrees = record.chain != hint.place.chain;
        }
    }
}

fn newest_snapshot_dir(vfs: &dyn Vfs) -> Option<u64> {
    let names = vfs.list("snapshots").ok()?;
    names
        .iter()
        .filter_map(|entry| entry.name.strip_prefix("snapshot-")?.parse().ok())
        .max()
}

/// Folds the log from position 0 to `until`; `rebuild` ignores segments, so that
/// level 0 holds everything.
pub fn fold(
    vfs: &dyn Vfs,
    files: &LogFiles,
    until: LogPosition,
    rebuild: bool,
    see: &mut dyn FnMut(&Record),
) -> Result<(State, LogEnd)> {
    if !files.begins_at_zero() {
        return Err(Error::LogDamaged {
            what: "its beginning is missing".into(),
        });
    }
    let mut state: Option<State> = None;
    let (place, end) = files.read(vfs, files.start(), until, &mut |record| {
        see(&record);
        match &mut state {
            Some(state) if rebuild => state.apply_without_segments(&record),
            Some(state) => state.apply(&record),
            None => {
                state = Some(State::first(files.store_id(), files.start(), &record)?);
                Ok(())
            }
        }
    })?;
    let Some(mut state) = state else {
        return match end {
            LogEnd::Damaged { what } => Err(Error::LogDamaged { what }),
            // A creation that a power cut ended: nothing was ever stored here.
            _ => Err(Error::NotAStore),
        };
    };
    state.set_place(place);
    Ok((state, end))
}

/// Reads a snapshot's state file and the log from there. `None` where the file is
/// missing or not the one that the log pins: the caller reads the whole log.
fn from_state_file(
    vfs: &dyn Vfs,
    files: &LogFiles,
    ordinal: u64,
    until: LogPosition,
    see: &mut dyn FnMut(&Record),
) -> Option<Result<(State, LogEnd)>> {
    let bytes = read_file(vfs, &state_path(ordinal)).ok()?;
    let mut state = decode_state(&bytes)?;
    if state.store_id() != files.store_id() {
        return None;
    }
    let digest = state_digest(&bytes);
    let place = state.place();
    // Even a state wanted exactly at the snapshot needs the record that pins it.
    let read_until = LogPosition(until.0.max(place.position.0 + 1));
    let mut pinned = None;
    let read = files.read(vfs, place, read_until, &mut |record| {
        if pinned.is_none() {
            pinned = Some(
                record.record_type == format::RECORD_SNAPSHOT
                    && record.payload.len() >= pp::LEN
                    && pp::STATE_DIGEST.of(&record.payload) == digest.0,
            );
        }
        if pinned == Some(false) || record.position >= until {
            return Ok(());
        }
        see(&record);
        state.apply(&record)
    });
    match (read, pinned) {
        (Ok((end_place, end)), Some(true)) => {
            if until > place.position {
                state.set_place(end_place);
            }
            Some(Ok((state, end)))
        }
        (
            Err(
                error @ (Error::UnknownCritical { .. }
                | Error::NewerFormat { .. }
                | Error::UnknownFlags { .. }),
            ),
            Some(true),
        ) => Some(Err(error)),
        _ => None,
    }
}

/// `Index(S, P)`: the state of snapshot `S` with the log replayed up to `P`.
/// Reproducible for every retained `S` and every `P` from its position on.
pub fn at(
    vfs: &dyn Vfs,
    snapshot: &SnapshotInfo,
    position: LogPosition,
    end: LogPosition,
) -> Result<State> {
    let from = LogPosition(snapshot.position);
    if position < from || position > end {
        return Err(Error::NoPosition {
            position,
            from,
            to: end,
        });
    }
    let files = LogFiles::list(vfs)?;
    if let Some(state) = from_state_file(vfs, &files, snapshot.ordinal, position, &mut |_| {}) {
        let (state, _) = state?;
        if state.segments().iter().all(|s| {
            vfs.metadata(&crate::segment::segment_path(s.shard, s.number))
                .is_ok()
        }) {
            return Ok(state);
        }
    }
    // Segments may have been merged away; the log and the blocks say the same.
    fold(vfs, &files, position, true, &mut |_| {}).map(|(state, _)| state)
}
