//! Going on after a log has lost records: an epoch.
//!
//! A log whose end is missing, or that is damaged before its end, cannot be gone on with as it was. What its lost records named is
//! still in the blocks, which repeat deletions, sessions and records of authority in their notes. So a new history begins where the
//! old one can be read no further, and a record says so: whoever remembers the log as it was finds another one now.
//!
//! Invariants
//! - Nobody's log is cut unless they accept it: this is asked for, never done by opening a store.
//! - Nothing is thrown away: log files that are no longer led to lie under `evidence/`.
//! - Until all of it is done, readers and writers find a log that is damaged or lacks records, as before.
//!
//! Order of writes
//! 1. `log/current` remembers more records than there will be at first, if it does not already
//! 2. a log file that goes on at the last record that can be read; where none can, one with the store's creation
//! 3. the files that lie behind that place move away, the last one first
//! 4. one append: what is told from the notes of the last block that is still logged, and behind it the epoch's record
//! 5. every block that is found, in the order of their ids, each with what its notes tell; then blocks of other stores
//! 6. `log/current`
//!
//! Crash: before 3 is done the log is damaged as it was; from then on it lacks records. The same repair begins anew and finds the
//! file of step 2, or the record of step 4, where it left them.

use std::collections::{BTreeMap, HashSet};

use crate::authority::{Authority, AuthorityRecord};
use crate::block::{self, BlockHeader};
use crate::current::{self, END, Hint};
use crate::error::{Error, Result};
use crate::format::{self, epoch_payload as ep, session_note as sn, session_payload as np};
use crate::frame;
use crate::id::{BlockId, Digest, Key, LogPosition, SessionId, StoreId};
use crate::import::check_there;
use crate::index::read_file;
use crate::init;
use crate::log::{LOG_DIR, LogEnd, LogFiles, LogName, LogPlace, LogWriter, NewRecord};
use crate::params::Params;
use crate::state::{self, State};
use crate::sync::EVIDENCE_DIR;
use crate::vfs::{Access, Vfs, read_exact_at};
use crate::writer::{Context, StoreWriter};

/// What the record of an epoch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// Records before it that are as they were; where it is one, that may have been made again as well. Those behind tell
    /// again what is known of what was lost.
    pub from: LogPosition,
    /// Records that the log once had, as far as it is known.
    pub remembered: LogPosition,
}

impl Epoch {
    /// Reads the payload of a record; `None` where it is malformed.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        (payload.len() == ep::LEN).then(|| Self {
            from: LogPosition(ep::FROM.get(payload)),
            remembered: LogPosition(ep::REMEMBERED.get(payload)),
        })
    }

    pub(crate) fn record(&self) -> NewRecord {
        let mut payload = vec![0; ep::LEN];
        ep::FROM.set(&mut payload, self.from.0);
        ep::REMEMBERED.set(&mut payload, self.remembered.0);
        NewRecord {
            record_type: format::RECORD_EPOCH,
            critical: false,
            payload,
        }
    }
}

/// The note that repeats a session's record, written when the log had `position` records.
pub(crate) fn session_note(position: LogPosition, record: &NewRecord) -> Vec<u8> {
    let mut note = vec![0; sn::LEN];
    sn::POSITION.set(&mut note, position.0);
    note.extend_from_slice(&record.payload);
    note
}

// ---- cutting the log ----

/// Where a log can be read no further, and what lies behind.
struct Cut {
    /// The end of what can be read; `None` where that is nothing.
    at: Option<LogPlace>,
    /// Files that are no longer led to.
    behind: Vec<LogName>,
}

/// Makes a log that is damaged one that lacks records; does nothing to one that is not. Returns where the files lie that it no
/// longer has, if there are any. The lock must be held.
///
/// # Errors
/// [`Error::NotAStore`] where there is neither a log nor a block; [`Error::Io`], [`Error::Full`]; those about formats newer than this
/// program.
pub(crate) fn cut(
    vfs: &dyn Vfs,
    context: &Context,
    random: &mut blake3::OutputReader,
) -> Result<Option<String>> {
    let Some(Cut { at, behind }) = find(vfs)? else {
        return Ok(None);
    };
    let store_id = store_id(vfs)?;
    init::ensure_dirs(vfs)?;
    let now = (context.now)();
    let place = at.unwrap_or(LogPlace {
        name: LogName {
            first: 0,
            generation: 0,
        },
        offset: 0,
        position: LogPosition(0),
        chain: Digest([0; 32]),
    });
    if Hint::read(vfs).is_none_or(|hint| hint.place.position <= place.position) {
        let named = behind.iter().map(|name| name.first).max().unwrap_or(0);
        let remembered = LogPosition(named.max(place.position.0 + 1) + 1);
        let hint = Hint {
            place: LogPlace {
                position: remembered,
                chain: Digest([0; 32]),
                ..place
            },
            snapshot: 0,
        };
        hint.write(vfs)?;
    }
    match at {
        Some(place) => {
            LogWriter::branch(vfs, store_id, place, init::draw(random), now)?;
        }
        None => {
            let params = params(vfs, store_id);
            let mut log = LogWriter::create(vfs, store_id, init::draw(random), now)?;
            let created = vec![state::created_record(&params, &store_id)];
            log.append(vfs, created, &mut || init::draw(random), now)?;
        }
    }
    move_away(vfs, store_id, &place.chain, &behind)
}

/// Whether there is anything that a log could be made again from.
pub(crate) fn has_traces(vfs: &dyn Vfs) -> bool {
    !matches!(LogFiles::list(vfs), Err(Error::NotAStore)) || !block_files(vfs).is_empty()
}

fn find(vfs: &dyn Vfs) -> Result<Option<Cut>> {
    let mut all = match vfs.list(LOG_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::io("list", LOG_DIR)(error)),
    }
    .iter()
    .filter(|entry| !entry.metadata.is_dir)
    .filter_map(|entry| LogName::parse(&entry.name))
    .collect::<Vec<_>>();
    all.sort();
    let mut left = all.clone();
    loop {
        let files = match LogFiles::list_among(vfs, &|name| left.contains(name)) {
            Ok(files) => files,
            Err(Error::LogDamaged { .. } | Error::NotAStore) => break,
            Err(error) => return Err(error),
        };
        let before = left.len();
        if !files.begins_at_zero() {
            left.pop();
        } else if let Some((path, _)) = files.damage() {
            // It is beside the files that lead to the last one.
            left.retain(|name| name.path() != *path);
        } else {
            let (place, end) = files.read(vfs, files.start(), END, &mut |_| Ok(()))?;
            if place.name == files.last_name() {
                if place.position.0 == 0 {
                    break;
                }
                let mut behind = all;
                behind.retain(|name| !left.contains(name));
                let whole = behind.is_empty() && !matches!(end, LogEnd::Damaged { .. });
                let at = Some(place);
                return Ok((!whole).then_some(Cut { at, behind }));
            }
            left.retain(|name| *name <= place.name);
        }
        if left.len() == before {
            left.pop();
        }
    }
    match all.is_empty() && block_files(vfs).is_empty() {
        true => Err(Error::NotAStore),
        false => Ok(Some(Cut {
            at: None,
            behind: all,
        })),
    }
}

/// The store that most files name: those of the log, or else the blocks.
fn store_id(vfs: &dyn Vfs) -> Result<StoreId> {
    let mut named: BTreeMap<StoreId, usize> = BTreeMap::new();
    for entry in vfs.list(LOG_DIR).unwrap_or_default() {
        let path = format!("{LOG_DIR}/{}", entry.name);
        let mut header = [0; format::log_header::LEN];
        let file = vfs.open(&path, Access::Read);
        if LogName::parse(&entry.name).is_some()
            && file.is_ok_and(|file| read_exact_at(&*file, 0, &mut header).is_ok())
            && let Ok(header) = crate::log::LogHeader::decode(&header, &path)
        {
            *named.entry(header.store_id).or_default() += 1;
        }
    }
    if named.is_empty() {
        for (_, header) in headers(vfs) {
            *named.entry(header.store_id).or_default() += 1;
        }
    }
    let most = named.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(id, _)| id).ok_or(Error::NotAStore)
}

/// The parameters that a snapshot's state remembers, or else the usual ones: no reader depends on them.
fn params(vfs: &dyn Vfs, store_id: StoreId) -> Params {
    let mut known = vfs
        .list("snapshots")
        .unwrap_or_default()
        .into_iter()
        .filter_map(|entry| {
            let path = format!("snapshots/{}/state.bin", entry.name);
            let state = current::decode_state(&read_file(vfs, &path).ok()?)?;
            let params = *state.params();
            (state.store_id() == store_id && params.validate().is_ok()).then_some(params)
        });
    known.next().unwrap_or_default()
}

/// Moves log files to where no reader looks, the last one first.
fn move_away(
    vfs: &dyn Vfs,
    store_id: StoreId,
    chain: &Digest,
    behind: &[LogName],
) -> Result<Option<String>> {
    if behind.is_empty() {
        return Ok(None);
    }
    let name = |name: &LogName| name.path()[LOG_DIR.len() + 1..].to_owned();
    let stem = format!(
        "{EVIDENCE_DIR}/lost-{store_id}-{}",
        &chain.to_string()[..16]
    );
    let holds = |dir: &String| {
        let mut names = behind.iter().map(name);
        names.any(|name| vfs.metadata(&format!("{dir}/{name}")).is_ok())
    };
    let numbered = (2u64..).map(|number| format!("{stem}-{number}"));
    let mut dirs = std::iter::once(stem.clone()).chain(numbered);
    let dir = dirs
        .find(|dir| !holds(dir))
        .expect("there is no end of numbers");
    for (dir, parent) in [(EVIDENCE_DIR, ""), (&dir, EVIDENCE_DIR)] {
        vfs.create_dir(dir).map_err(Error::io("create", dir))?;
        vfs.sync_dir(parent).map_err(Error::io("sync", parent))?;
    }
    for log in behind.iter().rev() {
        let path = log.path();
        vfs.rename(&path, &format!("{dir}/{}", name(log)))
            .map_err(Error::io("rename", &path))?;
        for dir in [&dir, LOG_DIR] {
            vfs.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
    }
    Ok(Some(dir))
}

/// The paths of all block files.
fn block_files(vfs: &dyn Vfs) -> Vec<String> {
    let mut dirs = vec![block::OPEN_DIR.to_owned()];
    for shard in vfs.list(block::SEALED_DIR).unwrap_or_default() {
        dirs.push(format!("{}/{}", block::SEALED_DIR, shard.name));
    }
    let files = dirs.into_iter().flat_map(|dir| {
        let entries = vfs.list(&dir).unwrap_or_default().into_iter();
        entries.map(move |entry| format!("{dir}/{}", entry.name))
    });
    files.collect()
}

/// All block files with a valid header.
fn headers(vfs: &dyn Vfs) -> impl Iterator<Item = (String, BlockHeader)> {
    block_files(vfs).into_iter().filter_map(|path| {
        let mut header = [0; format::block_header::LEN];
        let file = vfs.open(&path, Access::Read).ok()?;
        read_exact_at(&*file, 0, &mut header).ok()?;
        let header = BlockHeader::decode(&header, &path).ok()?;
        Some((path, header))
    })
}

// ---- telling what was lost ----

impl StoreWriter {
    /// The log lacks records that it once had, up to `remembered`, and whoever opens the store accepts that: says so, and makes
    /// sure that nothing is mistaken because of it. Recovery follows, then [`settle_epoch`](Self::settle_epoch).
    pub(crate) fn begin_epoch(&mut self, remembered: LogPosition) -> Result<()> {
        let found = self.handle.with_state(State::position);
        let mut begun = None;
        self.handle.records(LogPosition(0), &mut |record, _| {
            if record.record_type == format::RECORD_EPOCH {
                begun = Epoch::parse(&record.payload);
            }
            Ok(())
        })?;
        // One that was not settled: the hint remembers what it remembered then.
        let begun = begun.filter(|epoch| epoch.remembered == remembered);
        let epoch = begun.unwrap_or(Epoch {
            from: found,
            remembered,
        });
        self.recovery.lost_records = remembered.0.saturating_sub(epoch.from.0);
        let hidden = self.unlogged_tombstones();
        let mut records: Vec<_> = hidden
            .iter()
            .map(|(keys, block)| state::tombstone_record(keys, *block))
            .collect();
        self.lost_from = begun.map(|epoch| epoch.from);
        records.extend(self.lost_notes(epoch.from)?);
        // Ids whose lease is lost are in use all the same, and must not be given out again.
        let next = self.handle.with_state(|state| state.next_block);
        let highest = self.highest_block_id();
        if highest >= next {
            records.push(self.lease(next, highest + 1 - next));
        }
        // Last: with it all the others are there, however much of the append a power cut keeps.
        if begun.is_none() {
            records.push(epoch.record());
        }
        if !records.is_empty() {
            self.append_sealed(records, None)?;
        }
        self.lost_from = Some(epoch.from);
        Ok(())
    }

    /// Everything that was found is logged: takes over what had been imported, and remembers the log as it is now. Until then the
    /// next opening finds the loss again.
    pub(crate) fn settle_epoch(&mut self) -> Result<()> {
        self.adopt()?;
        self.lost_from = None;
        self.write_hint()
    }

    /// Deletions whose record is lost, while the block that repeats them is still
    /// logged: a commit writes both records at once, so it is the last one.
    fn unlogged_tombstones(&mut self) -> Vec<(Vec<Key>, BlockId)> {
        let last = self.handle.with_state(|state| {
            let (id, info) = state.last_own_block()?;
            let after = state.level0.iter().rev();
            let after = after.take_while(|(position, _)| *position > info.position);
            let tombstones = after.filter(|(_, e)| matches!(e, state::Level0::Tombstones(_)));
            let end = info.position + 1 + tombstones.count() as u64;
            (end == state.position().0).then_some(id)
        });
        let mut hidden = Vec::new();
        if let Some(id) = last {
            let read = self
                .handle
                .clone()
                .notes::<Error>(id, &mut |note_type, note| {
                    if note_type == format::NOTE_TOMBSTONES {
                        let (_, keys) = frame::parse_tombstones(&note).unwrap_or_default();
                        hidden.push((keys, id));
                    }
                    Ok(())
                });
            if let Err(error) = read {
                self.recovery.foreign.push(error.to_string());
            }
        }
        hidden
    }

    /// Removals, sessions and records of authority that are lost while the block that repeats them is still logged: like
    /// tombstones, written at once with the last block.
    fn lost_notes(&mut self, from: LogPosition) -> Result<Vec<NewRecord>> {
        let last = self.handle.with_state(|state| {
            let (id, info) = state.last_own_block()?;
            Some((id, SessionId(info.session)))
        });
        let Some((id, session)) = last else {
            return Ok(Vec::new());
        };
        let mut told = Vec::new();
        let mut repeated = Vec::new();
        let read = self.handle.clone().notes::<Error>(id, &mut |kind, note| {
            match kind {
                format::NOTE_REMOVED => told.extend(self.unsaid(&note)),
                format::NOTE_AUTHORITY => repeated.extend(AuthorityRecord::parse_note(&note)),
                _ => told.extend(self.untold(kind, &note, session, &HashSet::new())),
            }
            Ok(())
        });
        if let Err(error) = read {
            self.recovery.foreign.push(error.to_string());
        }
        repeated.retain(|(position, record)| still_holds(record, *position, from));
        told.extend(self.unlogged_authority(repeated, &HashSet::new())?);
        Ok(told)
    }

    /// What a note in a block of `session` tells of a session that the log does not say any more. Only where the log lost
    /// records: an end that was never logged was never acknowledged. `found` is stored, but not logged yet.
    pub(crate) fn untold(
        &self,
        kind: u32,
        note: &[u8],
        session: SessionId,
        found: &HashSet<Key>,
    ) -> Option<NewRecord> {
        if kind == format::NOTE_SESSION {
            let known = |state: &State| state.session(session).is_some();
            let begins = session != SessionId::ZERO && !self.handle.with_state(known);
            return begins
                .then(|| state::session_record(session, format::SESSION_BEGUN, None, note));
        }
        let payload = note.get(sn::LEN..).filter(|rest| rest.len() >= np::LEN)?;
        let body = &payload[np::LEN..];
        let complete = body.len() == np::BODY_LEN.u32(payload) as usize;
        if kind != format::NOTE_SESSION_RECORD || !complete {
            return None;
        }
        let id = SessionId(np::SESSION.array(payload));
        let told = self.handle.with_state(|state| {
            let before = self.lost_from.unwrap_or(END);
            let at = sn::POSITION.get(note)..before.0;
            let session = state.session(id);
            session.is_some_and(|of| at.contains(&of.position))
        });
        let root = Some(Key(np::ROOT.array(payload))).filter(|root| *root != Key::ZERO);
        // Without its root it can be gone on with, and finished again.
        let whole = root.is_none_or(|root| {
            found.contains(&root) || matches!(self.handle.lookup_own(&root), Ok(Some(_)))
        });
        (!told && whole).then(|| state::session_record(id, np::KIND.u8(payload), root, body))
    }

    /// Takes over blocks of other stores that lie here without a record: they had been imported. What they say was removed here
    /// stays removed.
    fn adopt(&mut self) -> Result<()> {
        let vfs = self.vfs.clone();
        let (ours, known) = self.handle.with_state(|state| {
            let known: HashSet<_> = state.blocks.values().map(|info| info.digest).collect();
            (state.store_id(), known)
        });
        let mut waiting = Vec::new();
        for (path, header) in headers(&*vfs) {
            let digest = path
                .strip_suffix(".blk")
                .and_then(|path| path.rsplit('/').next())
                .and_then(|hex| hex.parse::<Digest>().ok());
            if let Some(digest) = digest
                && header.store_id != ours
                && !known.contains(&digest.0)
            {
                waiting.push((path, digest));
            }
        }
        let mut removed = HashSet::new();
        for (path, _) in &waiting {
            let file = vfs
                .open(path, Access::Read)
                .map_err(Error::io("open", path))?;
            for entry in block::read_sealed(&*file, path).map_or(Vec::new(), |it| it.entries) {
                if entry.info.is_artifact() && self.handle.is_removed(&entry.info.key)? {
                    removed.insert(entry.info.key);
                }
            }
        }
        let hidden = self.hide_imported(removed)?;
        // Those whose parts lie in others come after them.
        loop {
            let before = waiting.len();
            let mut rest = Vec::new();
            for (path, digest) in waiting {
                match check_there(&*vfs, &path, digest, &self.handle) {
                    Ok(()) => {
                        self.import_staged(digest, false, &hidden)?;
                        self.recovery.adopted_blocks += 1;
                        self.recovery.foreign.retain(|of| !of.starts_with(&path));
                    }
                    Err(_) => rest.push((path, digest)),
                }
            }
            if rest.is_empty() || rest.len() == before {
                return Ok(());
            }
            waiting = rest;
        }
    }

    /// The highest id that a block file of this store has, logged or not.
    fn highest_block_id(&self) -> u64 {
        let store_id = self.handle.with_state(State::store_id);
        let ids = headers(&*self.vfs).filter(|(_, header)| header.store_id == store_id);
        ids.map(|(_, header)| header.id.0).max().unwrap_or(0)
    }
}

/// Whether a record of authority that a note repeats is still about this log: a signed head of one that is lost since is not, nor is
/// a receipt that names a position in it.
pub(crate) fn still_holds(
    record: &AuthorityRecord,
    position: LogPosition,
    from: LogPosition,
) -> bool {
    let of_positions = matches!(record.kind, Authority::Checkpoint | Authority::Receipt);
    !of_positions || position <= from
}
