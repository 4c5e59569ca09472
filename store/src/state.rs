//! The state that a log prefix defines: a fold over records.
//!
//! `State` holds what is small: blocks, segments, sessions, snapshots, and which
//! records are not in segments yet (level 0). It is the same whether folded from
//! position 0 or from a snapshot's state file, which is only a copy of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::authority::{Authority, AuthorityRecord};
use crate::block::{Owner, Sealed};
use crate::error::{Error, Result};
use crate::format::{
    self, index_add_payload as ap, index_record as ir, lease_payload as lp, seal_payload as bp,
    segment_added as sa, segment_removed as sr, segments_payload as gp, session_payload as np,
    snapshot_payload as pp, tombstone_payload as tp,
};
use crate::home::Home;
use crate::id::{BlockId, Digest, Key, LogPosition, SessionId, SnapshotId, StoreId, WriterId};
use crate::log::{LogName, LogPlace, NewRecord, Record};
use crate::params::Params;
use crate::removal::Removal;
use crate::segment::{IndexRecord, SegmentRef};
use crate::union::INSTANCE_SHIFT;

/// A sealed block as its log record gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// Digest: names the file.
    pub digest: [u8; 32],
    /// Length of the file in bytes.
    pub file_len: u64,
    /// Frames in it.
    pub frame_count: u32,
    /// Artifacts in it.
    pub artifact_count: u32,
    /// `format::CLASS_*`.
    pub class: u8,
    /// `format::ORIGIN_*`.
    pub origin: u8,
    /// The client's session, or zero.
    pub session: [u8; 16],
    /// Bytes of the artifacts in it.
    pub artifact_bytes: u64,
    /// Position of its record.
    pub position: u64,
}

/// A client's session: all its records folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its id.
    pub id: [u8; 16],
    /// `format::SESSION_*` of the last record.
    pub kind: u8,
    /// Root artifact of the last record that had one; zero before.
    pub root: [u8; 32],
    /// Body of the first record.
    pub begun: Vec<u8>,
    /// Body of the last record.
    pub body: Vec<u8>,
    /// Position of the last record.
    pub position: u64,
}

impl SessionInfo {
    /// Its id.
    pub fn session(&self) -> SessionId {
        SessionId(self.id)
    }
    /// Its root artifact, once there is one.
    pub fn root_key(&self) -> Option<Key> {
        (self.root != [0; 32]).then_some(Key(self.root))
    }
}

/// A snapshot: pins the log prefix before its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Counts from 1.
    pub ordinal: u64,
    /// Digest part of its id.
    pub digest: [u8; 32],
    /// Digest of its state file.
    pub state_digest: [u8; 32],
    /// Position of its record: the length of the prefix that it pins.
    pub position: u64,
    /// The user's words for it; may be empty.
    pub label: String,
    /// Unix time in nanoseconds; untrusted.
    pub time_unix_ns: i64,
    /// The segments that it pins: shard and number.
    pub segments: Vec<(u32, u32)>,
}

impl SnapshotInfo {
    /// Its id.
    pub fn id(&self) -> SnapshotId {
        SnapshotId {
            ordinal: self.ordinal,
            digest: Digest(self.digest),
        }
    }
}

/// Index entries that are not in segments yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level0 {
    /// Every artifact of a block's table of contents.
    Block(u64),
    /// Index records given in the log, in their form on disk.
    Adds(Vec<u8>),
    /// Keys that are hidden from here on, 32 bytes each.
    Tombstones(Vec<u8>),
}

impl Level0 {
    /// What a record says about keys that it names itself.
    pub(crate) fn of_record(record: &Record) -> Option<Self> {
        match record.record_type {
            format::RECORD_INDEX_ADD => {
                counted(&record.payload, ap::LEN, ir::LEN).map(|raw| Self::Adds(raw.to_vec()))
            }
            format::RECORD_TOMBSTONE => {
                counted(&record.payload, tp::LEN, 32).map(|raw| Self::Tombstones(raw.to_vec()))
            }
            _ => None,
        }
    }

    /// The keys that it names itself; none for a block.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let (raw, stride): (&[u8], _) = match self {
            Self::Block(_) => (&[], 32),
            Self::Adds(raw) => (raw, ir::LEN),
            Self::Tombstones(raw) => (raw, 32),
        };
        raw.chunks_exact(stride)
            .map(|item| Key(item[..32].try_into().expect("items begin with their key")))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Segment {
    shard: u32,
    number: u32,
    entries: u64,
    digest: [u8; 32],
}

/// What the log's prefix up to `place` defines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    store_id: [u8; 16],
    params: Params,
    place: (u64, u32, u64, u64, [u8; 32]),
    /// The first block id that was never leased.
    pub next_block: u64,
    /// The first segment number never used.
    pub next_segment: u32,
    /// Every sealed block.
    pub blocks: BTreeMap<u64, BlockInfo>,
    segments: BTreeMap<u32, Vec<Segment>>,
    /// What is not in segments yet, oldest first, each with its record's position.
    pub level0: Vec<(u64, Level0)>,
    /// Sessions in the order of their first records.
    pub sessions: Vec<SessionInfo>,
    /// Snapshots, oldest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// Not among the fields that every state file has: [`Tail`].
    #[serde(skip)]
    pub(crate) tail: Tail,
}

/// What a state file has at its end, and only if there is any of it: old programs wrote, and know, files without.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tail {
    home: Option<Home>,
    /// By instance and key: up to which position of that instance's log what it said counts no more.
    removals: BTreeMap<[u8; 16], BTreeMap<[u8; 32], u64>>,
}

impl State {
    /// The state after the first record of a store.
    pub fn first(store_id: StoreId, place: LogPlace, record: &Record) -> Result<Self> {
        if record.record_type != format::RECORD_CREATED || record.position.0 != 0 {
            return Err(Error::LogDamaged {
                what: "the log does not begin with a store's creation".into(),
            });
        }
        let mut state = Self {
            store_id: store_id.0,
            params: Params::decode(&record.payload, &store_id)?,
            place: (0, 0, 0, 0, [0; 32]),
            next_block: 1,
            next_segment: 1,
            blocks: BTreeMap::new(),
            segments: BTreeMap::new(),
            level0: Vec::new(),
            sessions: Vec::new(),
            snapshots: Vec::new(),
            tail: Tail::default(),
        };
        state.set_place(place);
        Ok(state)
    }

    /// The store.
    pub fn store_id(&self) -> StoreId {
        StoreId(self.store_id)
    }
    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }
    /// The end of the prefix.
    pub fn place(&self) -> LogPlace {
        let (first, generation, offset, position, chain) = self.place;
        LogPlace {
            name: LogName { first, generation },
            offset,
            position: LogPosition(position),
            chain: Digest(chain),
        }
    }
    /// Moves the end of the prefix.
    pub fn set_place(&mut self, place: LogPlace) {
        self.place = (
            place.name.first,
            place.name.generation,
            place.offset,
            place.position.0,
            place.chain.0,
        );
    }
    /// Number of records in the prefix.
    pub fn position(&self) -> LogPosition {
        LogPosition(self.place.3)
    }
    /// Segments of a shard, oldest first.
    pub fn segments_of(&self, shard: u32) -> Vec<SegmentRef> {
        let of = self.segments.get(&shard).map_or(&[][..], Vec::as_slice);
        of.iter()
            .map(|s| SegmentRef {
                shard: s.shard,
                number: s.number,
                entries: s.entries,
                digest: Digest(s.digest),
            })
            .collect()
    }
    /// All segments.
    pub fn segments(&self) -> Vec<SegmentRef> {
        self.segments
            .keys()
            .flat_map(|shard| self.segments_of(*shard))
            .collect()
    }
    /// The block of an id.
    pub fn block(&self, id: BlockId) -> Option<&BlockInfo> {
        self.blocks.get(&id.0)
    }
    /// The block logged last of those that were not imported: only their notes speak of this log.
    pub(crate) fn last_own_block(&self) -> Option<(BlockId, &BlockInfo)> {
        let own = (self.blocks.iter()).filter(|(_, info)| info.origin != format::ORIGIN_IMPORTED);
        own.max_by_key(|(_, info)| info.position)
            .map(|(id, info)| (BlockId(*id), info))
    }
    /// Where the instance is written, if its log says so.
    pub fn home(&self) -> Option<&Home> {
        self.tail.home.as_ref()
    }
    /// Up to which position of another instance's log what that one said about a key was removed.
    pub fn removed(&self, store: StoreId, key: &Key) -> Option<u64> {
        self.tail.removals.get(&store.0)?.get(&key.0).copied()
    }
    /// All that was removed of another instance, in key order, with the positions.
    pub fn removals_of(&self, store: StoreId) -> impl Iterator<Item = (Key, LogPosition)> + '_ {
        let of = self.tail.removals.get(&store.0);
        let keys = of.into_iter().flatten();
        keys.map(|(key, position)| (Key(*key), LogPosition(*position)))
    }
    /// The session of an id.
    pub fn session(&self, id: SessionId) -> Option<&SessionInfo> {
        self.sessions.iter().find(|session| session.id == id.0)
    }
    /// Forgets segments and takes every block and log entry as level 0 again: the
    /// caller replays from position 0 and ignores segment records.
    pub fn apply_without_segments(&mut self, record: &Record) -> Result<()> {
        if record.record_type == format::RECORD_SEGMENTS {
            let (_, added, _) = decode_segments(&record.payload).ok_or_else(|| bad(record))?;
            let highest = added
                .iter()
                .map(|segment| segment.number + 1)
                .max()
                .unwrap_or(0);
            self.next_segment = self.next_segment.max(highest);
            return Ok(());
        }
        self.apply(record)
    }

    /// Folds one record. A critical record of an unknown type is an error.
    pub fn apply(&mut self, record: &Record) -> Result<()> {
        let known = match record.record_type {
            format::RECORD_LEASE => self.apply_lease(&record.payload),
            format::RECORD_SEAL => self.apply_seal(record),
            format::RECORD_INDEX_ADD | format::RECORD_TOMBSTONE => {
                Level0::of_record(record).map(|entries| self.push_level0(record, entries))
            }
            format::RECORD_SEGMENTS => self.apply_segments(record),
            format::RECORD_SNAPSHOT => self.apply_snapshot(record),
            format::RECORD_SESSION => self.apply_session(record),
            format::RECORD_HOME => Home::parse(&record.payload).map(|home| {
                self.tail.home = Some(home);
            }),
            format::RECORD_REMOVED => self.apply_removed(record),
            kind if Authority::of_type(kind).is_some() => {
                // What it says is not the store's business; that it can be read is.
                AuthorityRecord::of_record(record).map(drop)
            }
            _ if record.critical => {
                return Err(Error::UnknownCritical {
                    position: record.position,
                    record_type: record.record_type,
                });
            }
            _ => Some(()),
        };
        known.ok_or_else(|| bad(record))
    }

    fn push_level0(&mut self, record: &Record, entries: Level0) {
        self.level0.push((record.position.0, entries));
    }

    fn apply_lease(&mut self, payload: &[u8]) -> Option<()> {
        if payload.len() != lp::LEN {
            return None;
        }
        let end = lp::FIRST_ID
            .get(payload)
            .checked_add(lp::COUNT.get(payload))?;
        self.next_block = self.next_block.max(end);
        Some(())
    }

    fn apply_seal(&mut self, record: &Record) -> Option<()> {
        let payload = &record.payload;
        if payload.len() != bp::LEN {
            return None;
        }
        let id = bp::BLOCK_ID.get(payload);
        if id >> INSTANCE_SHIFT != 0 {
            // Above, these bits tell instances apart.
            return None;
        }
        let info = BlockInfo {
            digest: bp::DIGEST.array(payload),
            file_len: bp::FILE_LEN.get(payload),
            frame_count: bp::FRAME_COUNT.u32(payload),
            artifact_count: bp::ARTIFACT_COUNT.u32(payload),
            class: bp::CLASS.u8(payload),
            origin: bp::ORIGIN.u8(payload),
            session: bp::SESSION.array(payload),
            artifact_bytes: bp::ARTIFACT_BYTES.get(payload),
            position: record.position.0,
        };
        if self.blocks.insert(id, info).is_some() {
            return None;
        }
        self.next_block = self.next_block.max(id.checked_add(1)?);
        self.push_level0(record, Level0::Block(id));
        Some(())
    }

    fn apply_segments(&mut self, record: &Record) -> Option<()> {
        let (covers, added, removed) = decode_segments(&record.payload)?;
        if covers > record.position.0 {
            return None;
        }
        for (shard, number) in removed {
            self.segments
                .get_mut(&shard)?
                .retain(|segment| segment.number != number);
        }
        for segment in added {
            if segment.shard >= self.params.shards {
                return None;
            }
            self.next_segment = self.next_segment.max(segment.number.checked_add(1)?);
            let of = self.segments.entry(segment.shard).or_default();
            of.push(segment);
            of.sort_by_key(|segment| segment.number);
        }
        self.level0.retain(|(position, _)| *position >= covers);
        Some(())
    }

    fn apply_snapshot(&mut self, record: &Record) -> Option<()> {
        let payload = &record.payload;
        let label = payload.get(pp::LEN..)?;
        if label.len() != pp::LABEL_LEN.u32(payload) as usize {
            return None;
        }
        self.snapshots.push(SnapshotInfo {
            ordinal: pp::ORDINAL.get(payload),
            digest: snapshot_digest(&record.chain).0,
            state_digest: pp::STATE_DIGEST.array(payload),
            position: record.position.0,
            label: String::from_utf8(label.to_vec()).ok()?,
            time_unix_ns: record.time_unix_ns,
            segments: self
                .segments
                .values()
                .flatten()
                .map(|s| (s.shard, s.number))
                .collect(),
        });
        Some(())
    }

    fn apply_removed(&mut self, record: &Record) -> Option<()> {
        let removal = Removal::of_record(record).filter(|it| it.store.0 != self.store_id)?;
        let of = self.tail.removals.entry(removal.store.0).or_default();
        for key in removal.keys {
            let position = of.entry(key.0).or_default();
            *position = removal.position.0.max(*position);
        }
        Some(())
    }

    fn apply_session(&mut self, record: &Record) -> Option<()> {
        let payload = &record.payload;
        let body = payload.get(np::LEN..)?.to_vec();
        if body.len() != np::BODY_LEN.u32(payload) as usize {
            return None;
        }
        let id: [u8; 16] = np::SESSION.array(payload);
        let root: [u8; 32] = np::ROOT.array(payload);
        let at = self.sessions.iter().position(|session| session.id == id);
        let session = match at {
            Some(at) => &mut self.sessions[at],
            None => {
                self.sessions.push(SessionInfo {
                    id,
                    kind: 0,
                    root: [0; 32],
                    begun: body.clone(),
                    body: Vec::new(),
                    position: 0,
                });
                self.sessions.last_mut()?
            }
        };
        session.kind = np::KIND.u8(payload);
        if root != [0; 32] {
            session.root = root;
        }
        session.body = body;
        session.position = record.position.0;
        Some(())
    }
}

fn bad(record: &Record) -> Error {
    let what = format!(
        "record {} (type {}) does not parse",
        record.position, record.record_type
    );
    Error::LogDamaged { what }
}

/// The items of a payload that begins with their count.
fn counted(payload: &[u8], head: usize, item: usize) -> Option<&[u8]> {
    let count = u32::from_le_bytes(payload.get(..4)?.try_into().ok()?) as usize;
    let items = payload.get(head..)?;
    (items.len() == count.checked_mul(item)?).then_some(items)
}

type SegmentsPayload = (u64, Vec<Segment>, Vec<(u32, u32)>);

fn decode_segments(payload: &[u8]) -> Option<SegmentsPayload> {
    let body = payload.get(gp::LEN..)?;
    let added = gp::ADDED.u32(payload) as usize;
    let removed = gp::REMOVED.u32(payload) as usize;
    let split = added.checked_mul(sa::LEN)?;
    if body.len() != split.checked_add(removed.checked_mul(sr::LEN)?)? {
        return None;
    }
    let (added, removed) = body.split_at(split);
    let added = added.chunks_exact(sa::LEN).map(|raw| Segment {
        shard: sa::SHARD.u32(raw),
        number: sa::NUMBER.u32(raw),
        entries: sa::ENTRIES.get(raw),
        digest: sa::DIGEST.array(raw),
    });
    let removed = removed
        .chunks_exact(sr::LEN)
        .map(|raw| (sr::SHARD.u32(raw), sr::NUMBER.u32(raw)));
    Some((gp::COVERS.get(payload), added.collect(), removed.collect()))
}

/// Digest part of a snapshot's id.
fn snapshot_digest(chain: &Digest) -> Digest {
    Digest(blake3::derive_key(format::CONTEXT_SNAPSHOT, &chain.0))
}

fn critical(record_type: u16, payload: Vec<u8>) -> NewRecord {
    NewRecord {
        record_type,
        critical: true,
        payload,
    }
}

/// The record that creates a store.
pub fn created_record(params: &Params, store_id: &StoreId) -> NewRecord {
    critical(format::RECORD_CREATED, params.encode(store_id))
}

/// The record that leases block ids to a writer.
pub fn lease_record(first: u64, count: u64, writer: WriterId, owner: &Owner) -> NewRecord {
    let mut payload = vec![0; lp::LEN];
    lp::FIRST_ID.set(&mut payload, first);
    lp::COUNT.set(&mut payload, count);
    lp::WRITER.put(&mut payload, &writer.0);
    lp::BOOT_ID.put(&mut payload, &owner.boot_id);
    lp::PID.set(&mut payload, owner.pid);
    lp::START_TIME.set(&mut payload, owner.start_time);
    critical(format::RECORD_LEASE, payload)
}

/// The record that commits a sealed block.
pub fn seal_record(sealed: &Sealed, origin: u8) -> NewRecord {
    let artifacts = sealed
        .entries
        .iter()
        .filter(|entry| entry.info.is_artifact())
        .count();
    let mut payload = vec![0; bp::LEN];
    bp::BLOCK_ID.set(&mut payload, sealed.header.id.0);
    bp::DIGEST.put(&mut payload, &sealed.digest.0);
    bp::FILE_LEN.set(&mut payload, sealed.file_len);
    bp::FRAME_COUNT.set(&mut payload, sealed.entries.len() as u32);
    bp::ARTIFACT_COUNT.set(&mut payload, artifacts as u32);
    bp::CLASS.set(&mut payload, sealed.header.class);
    bp::ORIGIN.set(&mut payload, origin);
    bp::SESSION.put(&mut payload, &sealed.header.session.0);
    bp::ARTIFACT_BYTES.set(&mut payload, sealed.artifact_bytes());
    critical(format::RECORD_SEAL, payload)
}

/// The record that gives index entries in the log itself.
pub fn index_add_record(records: &[IndexRecord]) -> NewRecord {
    let mut payload = vec![0; ap::LEN + records.len() * ir::LEN];
    ap::COUNT.set(&mut payload, records.len() as u32);
    for (slot, record) in payload[ap::LEN..].chunks_exact_mut(ir::LEN).zip(records) {
        record.encode(slot);
    }
    critical(format::RECORD_INDEX_ADD, payload)
}

/// The record that hides keys; `block` holds the tombstone note.
pub fn tombstone_record(keys: &[Key], block: BlockId) -> NewRecord {
    let mut payload = vec![0; tp::LEN];
    tp::COUNT.set(&mut payload, keys.len() as u32);
    tp::REASON.set(&mut payload, format::REASON_USER);
    tp::BLOCK_ID.set(&mut payload, block.0);
    payload.extend(keys.iter().flat_map(|key| key.0));
    critical(format::RECORD_TOMBSTONE, payload)
}

/// The record that names new segments and retires old ones.
pub fn segments_record(
    covers: LogPosition,
    added: &[SegmentRef],
    removed: &[(u32, u32)],
) -> NewRecord {
    let mut payload = vec![0; gp::LEN];
    gp::COVERS.set(&mut payload, covers.0);
    gp::ADDED.set(&mut payload, added.len() as u32);
    gp::REMOVED.set(&mut payload, removed.len() as u32);
    for segment in added {
        let mut raw = [0; sa::LEN];
        sa::SHARD.set(&mut raw, segment.shard);
        sa::NUMBER.set(&mut raw, segment.number);
        sa::ENTRIES.set(&mut raw, segment.entries);
        sa::DIGEST.put(&mut raw, &segment.digest.0);
        payload.extend_from_slice(&raw);
    }
    for (shard, number) in removed {
        let mut raw = [0; sr::LEN];
        sr::SHARD.set(&mut raw, *shard);
        sr::NUMBER.set(&mut raw, *number);
        payload.extend_from_slice(&raw);
    }
    critical(format::RECORD_SEGMENTS, payload)
}

/// The record that is a snapshot.
pub fn snapshot_record(ordinal: u64, state_digest: &Digest, label: &str) -> NewRecord {
    let mut payload = vec![0; pp::LEN];
    pp::ORDINAL.set(&mut payload, ordinal);
    pp::STATE_DIGEST.put(&mut payload, &state_digest.0);
    pp::LABEL_LEN.set(&mut payload, label.len() as u32);
    payload.extend_from_slice(label.as_bytes());
    critical(format::RECORD_SNAPSHOT, payload)
}

/// The record of a client's session.
pub fn session_record(session: SessionId, kind: u8, root: Option<Key>, body: &[u8]) -> NewRecord {
    let mut payload = vec![0; np::LEN];
    np::SESSION.put(&mut payload, &session.0);
    np::KIND.set(&mut payload, kind);
    np::ROOT.put(&mut payload, &root.unwrap_or(Key::ZERO).0);
    np::BODY_LEN.set(&mut payload, body.len() as u32);
    payload.extend_from_slice(body);
    NewRecord {
        record_type: format::RECORD_SESSION,
        critical: false,
        payload,
    }
}
