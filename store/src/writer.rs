//! A store opened for writing: recovery first, then frames, seals, records.
//!
//! Order of writes, always: frames, sync; at a seal the table of contents and
//! trailer, sync, rename, directory sync; then the log record, sync. Only the log
//! record makes anything visible, and only after it is an operation acknowledged.
//!
//! Crash: whatever was written before it is found at the next opening. Open
//! blocks are salvaged, sealed blocks without a record get one, a torn log
//! tail is left behind. Nothing of this needs to be asked for.
//!
//! Full disk: a ballast file is given up so that what is durable can still be
//! sealed and logged; then [`Error::Full`] says that nothing more fits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::block::{self, BlockHeader, BlockWriter, Owner, Salvage, Sealed};
use crate::current::{self, Current, Hint};
use crate::error::{Error, Result};
use crate::format;
use crate::frame::{Frame, FrameInfo};
use crate::id::{BlockId, Key, Location, LogPosition, SessionId, SnapshotId, StoreId, WriterId};
use crate::index::{self, records_of, replace_file};
use crate::log::{LogEnd, LogFiles, LogWriter, NewRecord};
use crate::params::Params;
use crate::segment::{SegmentRef, segment_path, shard_dir, write_segment};
use crate::snapshot;
use crate::state::{self, Level0, State};
use crate::store::{StoreHandle, View};
use crate::vfs::{Access, Vfs, VfsLock};

/// Path of the lock file.
pub const LOCK_PATH: &str = "lock";
/// Path of the ballast.
pub const BALLAST_PATH: &str = "ballast";
/// Block ids leased at a time.
const LEASE: u64 = 64;
/// Level 0 is flushed at a snapshot only from this many entries on: sixteen
/// files for a handful of keys would cost more syncs than they save reads.
const SNAPSHOT_FLUSH_MIN: usize = 4096;
/// Segments of a shard that are merged into one.
const MERGE_AT: usize = 8;
/// Directories of a store, parents first.
const DIRS: [&str; 10] = [
    "blocks",
    block::OPEN_DIR,
    block::SEALED_DIR,
    "index",
    "log",
    "snapshots",
    "tmp",
    "tmp/ingest",
    "tmp/scratch",
    "tmp/pty",
];
/// What a fresh filesystem may already hold beside a store.
const FOREIGN_NAMES: [&str; 7] = [
    "lost+found",
    "System Volume Information",
    "$RECYCLE.BIN",
    ".Trashes",
    ".fseventsd",
    ".Spotlight-V100",
    ".Trash-0",
];

/// What the outside world gives a writer: libraries know no clock and no chance.
#[derive(Clone)]
pub struct Context {
    /// Who writes.
    pub owner: Owner,
    /// Text for people who find the store locked: `process 123 on host box`.
    pub holder: String,
    /// Random; store ids, nonces and salts derive from it.
    pub seed: [u8; 32],
    /// Unix time in nanoseconds.
    pub now: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// Bounds of a writer.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// Size of the ballast file in bytes; 0 for none.
    pub ballast_bytes: u64,
    /// Entries of level 0 at which it is flushed to segments.
    pub flush_entries: usize,
    /// Blocks in level 0 at which it is flushed: an opening reads that many tables.
    pub flush_blocks: usize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            ballast_bytes: 8 << 20,
            flush_entries: 262_144,
            flush_blocks: 256,
        }
    }
}

/// What opening for writing found and mended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Blocks that a dead writer left open; every whole frame is kept.
    pub salvaged_blocks: u64,
    /// Their artifacts.
    pub salvaged_artifacts: u64,
    /// Sealed blocks whose log record was missing.
    pub relogged_blocks: u64,
    /// Bytes of a torn log record that were left behind.
    pub torn_log_bytes: u64,
    /// Files that are not this store's, left where they are, and why.
    pub foreign: Vec<String>,
}

/// What became of an artifact that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Written: as many bytes of file.
    Stored(u64),
    /// It was there already.
    Duplicate,
}

/// A store opened for writing. One at a time; see [`Error::Locked`].
pub struct StoreWriter {
    handle: StoreHandle,
    vfs: Arc<dyn Vfs>,
    log: LogWriter,
    context: Context,
    random: blake3::OutputReader,
    options: WriteOptions,
    writer_id: WriterId,
    lease: std::ops::Range<u64>,
    session: SessionId,
    packed: Option<BlockWriter>,
    packed_artifacts: u32,
    pending: HashMap<Key, FrameInfo>,
    ballast: bool,
    recovery: Recovery,
    poisoned: bool,
    _lock: Box<dyn VfsLock>,
}

/// Refuses a directory that holds a store already, or anything else but what a
/// fresh filesystem may hold. Writes nothing.
pub fn check_vacant(vfs: &dyn Vfs) -> Result<()> {
    let present = vfs.list("").map_err(Error::io("list", "the directory"))?;
    match current::load(vfs) {
        Ok(_) | Err(Error::LogDamaged { .. }) => return Err(Error::AlreadyAStore),
        Err(Error::NotAStore) => {}
        Err(error) => return Err(error),
    }
    for entry in &present {
        let name = entry.name.as_str();
        let ours = DIRS.contains(&name) || [LOCK_PATH, BALLAST_PATH].contains(&name);
        if !ours && !FOREIGN_NAMES.contains(&name) && !name.starts_with(".Trash-") {
            return Err(Error::NotEmpty {
                found: entry.name.clone(),
            });
        }
    }
    for dir in [block::OPEN_DIR, block::SEALED_DIR] {
        match vfs.list(dir) {
            Ok(entries) => {
                if let Some(entry) = entries.first() {
                    return Err(Error::NotEmpty {
                        found: format!("{dir}/{}", entry.name),
                    });
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("list", dir)(error)),
        }
    }
    Ok(())
}

/// Creates a store in an empty or absent directory tree.
pub fn create(
    vfs: &dyn Vfs,
    params: &Params,
    context: &Context,
    options: &WriteOptions,
) -> Result<StoreId> {
    params.validate()?;
    check_vacant(vfs)?;
    for dir in DIRS {
        vfs.create_dir(dir).map_err(Error::io("create", dir))?;
    }
    for dir in ["", "blocks", "tmp"] {
        vfs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    }
    let _lock = take_lock(vfs, context)?;
    // An earlier creation that never got its first record leaves a log file without one.
    for entry in vfs.list("log").map_err(Error::io("list", "log"))? {
        let path = format!("log/{}", entry.name);
        vfs.remove(&path).map_err(Error::io("remove", path))?;
    }
    let mut random = random_of(&context.seed);
    let store_id = StoreId(draw(&mut random));
    ensure_ballast(vfs, options.ballast_bytes)?;
    let now = (context.now)();
    let mut log = LogWriter::create(vfs, store_id, draw(&mut random), now)?;
    let record = state::created_record(params, &store_id);
    log.append(vfs, vec![record], &mut || draw(&mut random), now)?;
    Hint {
        place: log.place(),
        snapshot: 0,
    }
    .write(vfs)?;
    Ok(store_id)
}

fn random_of(seed: &[u8; 32]) -> blake3::OutputReader {
    blake3::Hasher::new_keyed(seed)
        .update(b"asl writer")
        .finalize_xof()
}

fn draw(random: &mut blake3::OutputReader) -> [u8; 16] {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    bytes
}

fn take_lock(vfs: &dyn Vfs, context: &Context) -> Result<Box<dyn VfsLock>> {
    let lock = vfs.lock(LOCK_PATH).map_err(Error::io("lock", LOCK_PATH))?;
    let Some(lock) = lock else {
        let text = index::read_file(vfs, LOCK_PATH).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        let holder = if text.is_empty() {
            text
        } else {
            format!(": {text}")
        };
        return Err(Error::Locked { holder });
    };
    // For people only, so a full disk must not keep anybody out.
    if let Ok(file) = vfs.open(LOCK_PATH, Access::Write) {
        let _ = file
            .truncate(0)
            .and_then(|()| file.write_at(0, &[context.holder.as_bytes(), b"\n"]));
    }
    Ok(lock)
}

/// Makes the ballast where it is missing or short and plenty of room is left.
fn ensure_ballast(vfs: &dyn Vfs, bytes: u64) -> Result<bool> {
    let present = vfs
        .metadata(BALLAST_PATH)
        .map(|metadata| metadata.len)
        .unwrap_or(0);
    if present >= bytes {
        return Ok(bytes > 0);
    }
    let stat = vfs.statfs().map_err(Error::io("query", "the filesystem"))?;
    if stat.available_bytes < bytes.saturating_mul(4) {
        return Ok(present > 0);
    }
    if vfs.metadata(BALLAST_PATH).is_ok() {
        vfs.remove(BALLAST_PATH)
            .map_err(Error::io("remove", BALLAST_PATH))?;
    }
    let file = vfs
        .create_exclusive(BALLAST_PATH)
        .map_err(Error::io("create", BALLAST_PATH))?;
    // Noise, so that a compressing filesystem keeps the room as well.
    let mut noise = blake3::Hasher::new().update(b"asl ballast").finalize_xof();
    let mut chunk = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        noise.fill(&mut chunk);
        let len = (bytes - at).min(chunk.len() as u64) as usize;
        file.write_at(at, &[&chunk[..len]])
            .map_err(Error::io("write", BALLAST_PATH))?;
        at += len as u64;
    }
    file.sync().map_err(Error::io("sync", BALLAST_PATH))?;
    vfs.sync_dir("")
        .map_err(Error::io("sync", "the directory"))?;
    Ok(true)
}

impl StoreWriter {
    /// Opens a store for writing and recovers what a crash left.
    pub fn open(vfs: Arc<dyn Vfs>, context: Context, options: WriteOptions) -> Result<Self> {
        // Before the lock file is made: a path without a store stays untouched.
        LogFiles::list(&*vfs)?;
        let lock = take_lock(&*vfs, &context)?;
        let Current { files, state, end } = current::load(&*vfs)?;
        let log = LogWriter::resume(&*vfs, &files, state.place(), &end)?;
        let mut random = random_of(&context.seed);
        let torn_log_bytes = match end {
            LogEnd::Torn { ignored_bytes } => ignored_bytes,
            _ => 0,
        };
        let handle = StoreHandle::of_state(vfs.clone(), state, end)?;
        let writer_id = WriterId(draw(&mut random));
        let mut writer = Self {
            handle,
            vfs,
            log,
            context,
            random,
            options,
            writer_id,
            lease: 0..0,
            session: SessionId::ZERO,
            packed: None,
            packed_artifacts: 0,
            pending: HashMap::new(),
            ballast: false,
            recovery: Recovery {
                torn_log_bytes,
                ..Recovery::default()
            },
            poisoned: false,
            _lock: lock,
        };
        writer.ballast = ensure_ballast(&*writer.vfs, options.ballast_bytes).unwrap_or(false);
        writer.clean_scratch();
        writer.salvage_open_blocks()?;
        writer.relog_sealed_blocks()?;
        writer.refresh_filters();
        Ok(writer)
    }

    /// The view that this writer changes; may be shared with other threads.
    pub fn handle(&self) -> &StoreHandle {
        &self.handle
    }
    /// What opening found and mended.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }
    /// The store's parameters.
    pub fn params(&self) -> Params {
        self.handle.with_state(|state| *state.params())
    }
    /// Fresh random bytes.
    pub fn random16(&mut self) -> [u8; 16] {
        draw(&mut self.random)
    }
    /// Bytes of frames that are not durable yet.
    pub fn pending_bytes(&self) -> u64 {
        self.packed.as_ref().map_or(0, BlockWriter::pending_bytes)
    }

    fn clean_scratch(&self) {
        for dir in ["tmp/scratch", "tmp/ingest"] {
            for entry in self.vfs.list(dir).unwrap_or_default() {
                if !entry.metadata.is_dir {
                    // Untrusted and unneeded; in the way of nothing if it stays.
                    let _ = self.vfs.remove(&format!("{dir}/{}", entry.name));
                }
            }
        }
    }

    fn salvage_open_blocks(&mut self) -> Result<()> {
        let vfs = self.vfs.clone();
        let store_id = self.handle.with_state(State::store_id);
        for entry in vfs
            .list(block::OPEN_DIR)
            .map_err(Error::io("list", block::OPEN_DIR))?
        {
            let path = format!("{}/{}", block::OPEN_DIR, entry.name);
            if entry.metadata.is_dir || !entry.name.ends_with(".tmp") {
                self.recovery.foreign.push(format!("{path}: not a block"));
                continue;
            }
            match block::salvage(&*vfs, &path, store_id, &mut || self.next_id())? {
                Salvage::Empty => {}
                Salvage::Foreign(why) => self.recovery.foreign.push(why.to_string()),
                Salvage::Sealed(sealed) => {
                    let known = self
                        .handle
                        .with_state(|state| state.block(sealed.header.id).map(|info| info.digest));
                    match known {
                        // Its rename was lost, not its record.
                        Some(digest) if digest == sealed.digest.0 => {}
                        Some(_) => self
                            .recovery
                            .foreign
                            .push(format!("{path}: its id belongs to another block")),
                        None => {
                            self.recovery.salvaged_blocks += 1;
                            let artifacts = sealed
                                .entries
                                .iter()
                                .filter(|entry| entry.info.is_artifact());
                            self.recovery.salvaged_artifacts += artifacts.count() as u64;
                            self.log_found(sealed, format::ORIGIN_SALVAGED)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn relog_sealed_blocks(&mut self) -> Result<()> {
        let vfs = self.vfs.clone();
        let (store_id, known) = self.handle.with_state(|state| {
            let known: HashSet<_> = state.blocks.values().map(|info| info.digest).collect();
            (state.store_id(), known)
        });
        let list = |dir: &str| vfs.list(dir).map_err(Error::io("list", dir));
        let mut found = Vec::new();
        for shard in list(block::SEALED_DIR)?
            .iter()
            .filter(|entry| entry.metadata.is_dir)
        {
            let dir = format!("{}/{}", block::SEALED_DIR, shard.name);
            for entry in list(&dir)? {
                let digest = entry
                    .name
                    .strip_suffix(".blk")
                    .and_then(|hex| hex.parse::<crate::id::Digest>().ok());
                if digest.is_some_and(|digest| known.contains(&digest.0)) {
                    continue;
                }
                let path = format!("{dir}/{}", entry.name);
                let sealed = vfs
                    .open(&path, Access::Read)
                    .map_err(Error::io("open", &path))
                    .and_then(|file| block::read_sealed(&*file, &path));
                match sealed {
                    Ok(sealed)
                        if Some(sealed.digest) == digest && sealed.header.store_id == store_id =>
                    {
                        found.push(sealed)
                    }
                    Ok(_) => self
                        .recovery
                        .foreign
                        .push(format!("{path}: not a block of this store")),
                    Err(error) => self.recovery.foreign.push(error.to_string()),
                }
            }
        }
        found.sort_by_key(|sealed| sealed.header.id);
        for sealed in found {
            let taken = self
                .handle
                .with_state(|state| state.block(sealed.header.id).is_some());
            if taken {
                self.recovery.foreign.push(format!(
                    "block {}: its id belongs to another block",
                    sealed.header.id
                ));
            } else {
                self.recovery.relogged_blocks += 1;
                self.log_found(sealed, format::ORIGIN_RELOGGED)?;
            }
        }
        Ok(())
    }

    /// Logs a block that was found without a record, with the tombstones in it.
    fn log_found(&mut self, sealed: Sealed, origin: u8) -> Result<()> {
        let id = sealed.header.id;
        let has_notes = sealed
            .entries
            .iter()
            .any(|entry| entry.info.note_type == format::NOTE_TOMBSTONES);
        self.log_sealed(sealed, origin, Vec::new())?;
        if !has_notes {
            return Ok(());
        }
        let mut keys = Vec::new();
        self.handle.clone().notes(id, &mut |note_type, payload| {
            if note_type == format::NOTE_TOMBSTONES {
                keys.extend(
                    payload
                        .chunks_exact(32)
                        .map(|key| Key(key.try_into().expect("32 bytes"))),
                );
            }
            Ok(())
        })?;
        self.append(vec![state::tombstone_record(&keys, id)])
    }

    fn refresh_filters(&mut self) {
        let shards = self.params().shards;
        let mut view = self.handle.view_mut();
        for shard in 0..shards {
            // A filter saves reads and nothing else: without one lookups still work.
            let _ = view.index.refresh_filters(&*self.vfs, shard);
        }
    }

    // ---- the log ----

    fn append(&mut self, records: Vec<NewRecord>) -> Result<()> {
        self.append_sealed(records, None)
    }

    fn append_sealed(&mut self, records: Vec<NewRecord>, sealed: Option<&Sealed>) -> Result<()> {
        let vfs = self.vfs.clone();
        let now = (self.context.now)();
        let mut result = {
            let random = &mut self.random;
            self.log
                .append(&*vfs, records.clone(), &mut || draw(random), now)
        };
        if result.as_ref().is_err_and(Error::is_full) && self.release_ballast() {
            let random = &mut self.random;
            result = self.log.append(&*vfs, records, &mut || draw(random), now);
        }
        let done = result?;
        // State and index follow record by record: a block's artifacts come before
        // the tombstones that are logged after it.
        let mut view = self.handle.view_mut();
        let View { state, index } = &mut *view;
        for record in &done {
            let before = state.level0.len();
            state.apply(record)?;
            match state.level0.get(before) {
                Some((_, Level0::Block(id))) => {
                    let sealed = sealed
                        .filter(|sealed| sealed.header.id.0 == *id)
                        .ok_or(Error::Poisoned)?;
                    records_of(BlockId(*id), sealed).for_each(|record| index.insert(record));
                }
                Some((_, entries)) => index.insert_logged(entries),
                None => {}
            }
        }
        state.set_place(self.log.place());
        Ok(())
    }

    /// Gives the ballast up, so that what must be written at the end still fits.
    /// Returns whether there was any.
    pub fn release_ballast(&mut self) -> bool {
        if !self.ballast {
            return false;
        }
        self.ballast = false;
        self.vfs
            .remove(BALLAST_PATH)
            .and_then(|()| self.vfs.sync_dir(""))
            .is_ok()
    }

    fn next_id(&mut self) -> Result<BlockId> {
        if self.lease.is_empty() {
            let first = self.handle.with_state(|state| state.next_block);
            let record = state::lease_record(first, LEASE, self.writer_id, &self.context.owner);
            self.append(vec![record])?;
            self.lease = first..first + LEASE;
        }
        Ok(BlockId(
            self.lease.next().expect("leased above where it was empty"),
        ))
    }

    // ---- frames ----

    fn create_block(&mut self, class: u8) -> Result<BlockWriter> {
        let id = self.next_id()?;
        let (store_id, position, small_threshold) = self.handle.with_state(|state| {
            (
                state.store_id(),
                state.position(),
                state.params().small_threshold,
            )
        });
        BlockWriter::create(
            &*self.vfs,
            BlockHeader {
                store_id,
                id,
                class,
                session: self.session,
                writer: self.writer_id,
                base_position: position.0,
                created_unix_ns: (self.context.now)(),
                small_threshold,
                owner: self.context.owner,
            },
        )
    }

    fn check(&self) -> Result<()> {
        if self.poisoned {
            Err(Error::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Whether an artifact with these flags is stored already, in sealed blocks or
    /// in the open one.
    pub fn has(&self, key: &Key, flags: u16) -> bool {
        let covered = |of: u16| of & flags == flags;
        self.pending
            .get(key)
            .is_some_and(|info| covered(info.flags))
            || self
                .handle
                .dedup_hit(key)
                .is_some_and(|record| covered(record.flags))
    }

    /// Stores one artifact unless it is there already. Small ones are packed; one at
    /// or above the small threshold gets a block of its own and is committed at
    /// once. The caller's order of calls is the order on disk.
    pub fn put(&mut self, frame: Frame) -> Result<Put> {
        if self.has(&frame.info.key, frame.info.flags) {
            return Ok(Put::Duplicate);
        }
        self.put_anew(frame)
    }

    /// Stores one artifact whether it is there or not: heals a damaged copy.
    pub fn put_anew(&mut self, frame: Frame) -> Result<Put> {
        self.check()?;
        let space = frame.info.space();
        let params = self.params();
        let large = frame.info.encoding != format::ENCODING_CHUNKED
            && frame.info.raw_len >= params.small_threshold;
        if large {
            self.put_large(frame)?;
            return Ok(Put::Stored(space));
        }
        let full = self.packed.as_ref().is_some_and(|block| {
            !block.is_empty()
                && (block.len() + space > params.block_size
                    || self.packed_artifacts >= params.packed_max)
        });
        if full {
            self.commit()?;
        }
        let info = frame.info;
        self.append_packed(frame)?;
        self.packed_artifacts += 1;
        self.pending.insert(info.key, info);
        Ok(Put::Stored(space))
    }

    fn put_large(&mut self, frame: Frame) -> Result<()> {
        let mut block = self.create_block(format::CLASS_LARGE)?;
        let path = block.path().to_owned();
        let sealed = block
            .append(frame)
            .and_then(|_| block.seal(&*self.vfs, false));
        match sealed {
            Ok(sealed) => self.log_sealed(sealed, format::ORIGIN_WRITTEN, Vec::new()),
            Err(error) => {
                // Nothing of it was acknowledged, so nothing is lost with it.
                let _ = self.vfs.remove(&path);
                Err(error)
            }
        }
    }

    /// Appends a note to the open block; durable after [`StoreWriter::sync`].
    /// Returns its place: block and offset.
    pub fn note(&mut self, note_type: u32, payload: Vec<u8>) -> Result<(BlockId, u32)> {
        self.check()?;
        let frame = Frame::note(note_type, payload);
        let full = self.packed.as_ref().is_some_and(|block| {
            !block.is_empty() && block.len() + frame.info.space() > 2 * self.params().block_size
        });
        if full {
            self.commit()?;
        }
        self.append_packed(frame)
    }

    fn append_packed(&mut self, frame: Frame) -> Result<(BlockId, u32)> {
        if self.packed.is_none() {
            self.packed = Some(self.create_block(format::CLASS_PACKED)?);
        }
        let block = self
            .packed
            .as_mut()
            .expect("created above where it was missing");
        match block.append(frame.clone()) {
            Ok(offset) => Ok((block.header().id, offset)),
            Err(error @ (Error::Full { .. } | Error::TooLong { .. })) => Err(error),
            // The file does not take writes any more; what it holds moves to another.
            Err(_) => {
                self.evacuate()?;
                let block = self.packed.as_mut().ok_or(Error::Poisoned)?;
                Ok((block.header().id, block.append(frame)?))
            }
        }
    }

    /// Makes every frame durable. If the file fails to sync, its frames go to a
    /// new file, which is synced instead.
    pub fn sync(&mut self) -> Result<()> {
        self.check()?;
        let Some(block) = &mut self.packed else {
            return Ok(());
        };
        match block.sync(&*self.vfs) {
            Ok(()) => Ok(()),
            Err(error) => {
                if error.is_full() {
                    self.release_ballast();
                }
                self.evacuate()
            }
        }
    }

    fn evacuate(&mut self) -> Result<()> {
        let Some(old) = self.packed.take() else {
            return Ok(());
        };
        let path = old.path().to_owned();
        let moved = old.into_rescued().and_then(|frames| {
            let mut block = self.create_block(format::CLASS_PACKED)?;
            for frame in frames {
                block.append(frame)?;
            }
            block.sync(&*self.vfs)?;
            Ok(block)
        });
        match moved {
            Ok(block) => {
                self.packed = Some(block);
                // If it stays, the next opening salvages it too: the same artifacts twice.
                let _ = self
                    .vfs
                    .remove(&path)
                    .and_then(|()| self.vfs.sync_dir(block::OPEN_DIR));
                Ok(())
            }
            Err(error) => {
                // What was durable is still under open/ for the next opening.
                self.poisoned = true;
                Err(error)
            }
        }
    }

    // ---- commits ----

    /// Seals the open block and logs it: everything put so far is visible and
    /// durable when this returns.
    pub fn commit(&mut self) -> Result<()> {
        self.commit_with(Vec::new())
    }

    fn commit_with(&mut self, more: Vec<NewRecord>) -> Result<()> {
        self.check()?;
        let Some(block) = &self.packed else {
            return if more.is_empty() {
                Ok(())
            } else {
                self.append(more)
            };
        };
        if block.is_empty() {
            let path = block.path().to_owned();
            self.packed = None;
            let _ = self.vfs.remove(&path);
            return if more.is_empty() {
                Ok(())
            } else {
                self.append(more)
            };
        }
        let sealed = self.seal_packed()?;
        self.packed = None;
        self.packed_artifacts = 0;
        self.log_sealed(sealed, format::ORIGIN_WRITTEN, more)?;
        self.pending.clear();
        let (entries, blocks) = {
            let view = self.handle.view();
            (view.index.level0_len(), view.state.level0.len())
        };
        if entries >= self.options.flush_entries || blocks >= self.options.flush_blocks {
            self.flush()?;
        }
        Ok(())
    }

    fn seal_packed(&mut self) -> Result<Sealed> {
        let vfs = self.vfs.clone();
        let block = self.packed.as_mut().ok_or(Error::Poisoned)?;
        let Err(error) = (match block.seal(&*vfs, false) {
            Ok(sealed) => return Ok(sealed),
            Err(error) => Err::<(), _>(error),
        }) else {
            return Err(Error::Poisoned);
        };
        let suspect = block.is_suspect();
        if error.is_full() {
            self.release_ballast();
        }
        if suspect {
            self.evacuate()?;
        } else if !error.is_full() {
            self.poisoned = true;
            return Err(error);
        }
        let block = self.packed.as_mut().ok_or(Error::Poisoned)?;
        block
            .seal(&*vfs, false)
            .inspect_err(|_| self.poisoned = true)
    }

    fn log_sealed(&mut self, sealed: Sealed, origin: u8, more: Vec<NewRecord>) -> Result<()> {
        let mut records = vec![state::seal_record(&sealed, origin)];
        records.extend(more);
        // The block is found again at the next opening if its record cannot be written.
        self.append_sealed(records, Some(&sealed))
            .inspect_err(|_| self.poisoned = true)
    }

    /// Hides keys from here on. Durable and visible when this returns.
    pub fn tombstone(&mut self, keys: &[Key]) -> Result<()> {
        for keys in keys.chunks(65_536) {
            let payload: Vec<u8> = keys.iter().flat_map(|key| key.0).collect();
            let (block, _) = self.note(format::NOTE_TOMBSTONES, payload)?;
            self.commit_with(vec![state::tombstone_record(keys, block)])?;
        }
        Ok(())
    }

    /// Adds index entries for frames that are in sealed blocks: makes a hidden
    /// artifact visible again without writing its bytes.
    pub fn index_add(&mut self, records: &[crate::segment::IndexRecord]) -> Result<()> {
        self.append(vec![state::index_add_record(records)])
    }

    // ---- sessions ----

    /// Begins or resumes a session: blocks from here on carry its id. `body` is
    /// opaque, at most [`format::SESSION_BODY_MAX`] bytes.
    pub fn begin_session(&mut self, session: SessionId, body: &[u8]) -> Result<()> {
        self.session_record(session, format::SESSION_BEGUN, None, body)?;
        self.session = session;
        Ok(())
    }

    /// Ends a session, for now or for good; `root` is the artifact that everything
    /// of it is reachable from. Commits first.
    pub fn end_session(&mut self, kind: u8, root: Option<Key>, body: &[u8]) -> Result<()> {
        let session = self.session;
        self.session_record(session, kind, root, body)?;
        self.session = SessionId::ZERO;
        Ok(())
    }

    fn session_record(
        &mut self,
        session: SessionId,
        kind: u8,
        root: Option<Key>,
        body: &[u8],
    ) -> Result<()> {
        if body.len() > format::SESSION_BODY_MAX as usize {
            let (len, max) = (body.len() as u64, format::SESSION_BODY_MAX.into());
            return Err(Error::TooLong {
                what: "a session's description",
                len,
                max,
            });
        }
        self.commit_with(vec![state::session_record(session, kind, root, body)])
    }

    // ---- the index ----

    /// Writes level 0 into segments and logs them; merges where a shard has many.
    pub fn flush(&mut self) -> Result<()> {
        let vfs = self.vfs.clone();
        let mut added: Vec<SegmentRef> = Vec::new();
        let mut removed: Vec<(u32, u32)> = Vec::new();
        let covers;
        {
            let view = self.handle.view();
            let (state, index) = (&view.state, &view.index);
            covers = state.position();
            let params = *state.params();
            let level0 = index.level0_sorted();
            let by_shard =
                level0.chunk_by(|a, b| a.key.shard(params.shards) == b.key.shard(params.shards));
            for (number, newest) in (state.next_segment..).zip(by_shard) {
                let shard = newest[0].key.shard(params.shards);
                let dir = shard_dir(shard);
                vfs.create_dir(&dir).map_err(Error::io("create", &dir))?;
                let old = state.segments_of(shard);
                let whole = old.len() + 1 >= MERGE_AT;
                let count_max = newest.len() as u64
                    + if whole {
                        old.iter().map(|s| s.entries).sum()
                    } else {
                        0
                    };
                let place = (params.shards, shard, number);
                let counts = (count_max, covers.0);
                let made = if whole {
                    // A tombstone over everything there is hides nothing more.
                    let mut records = index
                        .merged(shard, newest.to_vec())
                        .filter(|r| !r.as_ref().is_ok_and(|r| r.is_tombstone()));
                    removed.extend(old.iter().map(|segment| (segment.shard, segment.number)));
                    write_segment(&*vfs, state.store_id(), place, counts, &mut records)?
                } else {
                    write_segment(
                        &*vfs,
                        state.store_id(),
                        place,
                        counts,
                        &mut newest.iter().copied().map(Ok),
                    )?
                };
                vfs.sync_dir(&dir).map_err(Error::io("sync", &dir))?;
                added.push(made);
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        vfs.sync_dir("index").map_err(Error::io("sync", "index"))?;
        self.append(vec![state::segments_record(covers, &added, &removed)])?;
        let mut view = self.handle.view_mut();
        let view = &mut *view;
        view.index.clear_level0();
        for segment in &added {
            view.index.load_shard(&*vfs, &view.state, segment.shard)?;
            let _ = view.index.refresh_filters(&*vfs, segment.shard);
        }
        let pinned: HashSet<_> = view
            .state
            .snapshots
            .iter()
            .flat_map(|s| s.segments.iter().copied())
            .collect();
        for (shard, number) in removed
            .into_iter()
            .filter(|retired| !pinned.contains(retired))
        {
            let _ = vfs.remove(&segment_path(shard, number));
        }
        Ok(())
    }

    /// Pins the log up to here: `Index(S, P)` starts from it, and so does opening.
    pub fn snapshot(&mut self, label: &str) -> Result<SnapshotId> {
        if label.len() > format::LABEL_MAX as usize {
            let (len, max) = (label.len() as u64, format::LABEL_MAX.into());
            return Err(Error::TooLong {
                what: "a snapshot's label",
                len,
                max,
            });
        }
        self.commit()?;
        if self.handle.view().index.level0_len() >= SNAPSHOT_FLUSH_MIN {
            self.flush()?;
        }
        let (ordinal, bytes) = self.handle.with_state(|state| {
            (
                state.snapshots.last().map_or(1, |last| last.ordinal + 1),
                current::encode_state(state),
            )
        });
        let dir = current::snapshot_dir(ordinal);
        self.vfs
            .create_dir(&dir)
            .map_err(Error::io("create", &dir))?;
        self.vfs
            .sync_dir("snapshots")
            .map_err(Error::io("sync", "snapshots"))?;
        replace_file(&*self.vfs, &current::state_path(ordinal), &bytes)?;
        let digest = current::state_digest(&bytes);
        self.append(vec![state::snapshot_record(ordinal, &digest, label)])?;
        let (info, renderings) = self
            .handle
            .with_state(|state| {
                let info = state.snapshots.last().cloned();
                info.map(|info| (info.clone(), snapshot::render(state, &info)))
            })
            .ok_or(Error::Poisoned)?;
        for (name, text) in renderings {
            replace_file(&*self.vfs, &format!("{dir}/{name}"), text.as_bytes())?;
        }
        self.write_hint()?;
        Ok(info.id())
    }

    fn write_hint(&self) -> Result<()> {
        let (place, snapshot) = self.handle.with_state(|state| {
            (
                state.place(),
                state.snapshots.last().map_or(0, |last| last.ordinal),
            )
        });
        Hint { place, snapshot }.write(&*self.vfs)
    }

    /// Records since the last snapshot.
    pub fn records_since_snapshot(&self) -> u64 {
        self.handle.with_state(|state| {
            state.position().0 - state.snapshots.last().map_or(0, |last| last.position)
        })
    }

    /// Commits, remembers the log's length, gives the lock back. What is not
    /// finished is salvaged at the next opening.
    pub fn finish(mut self) -> Result<LogPosition> {
        self.commit()?;
        match self.write_hint() {
            // A hint is worth nothing on a disk that is full.
            Err(error) if !error.is_full() => return Err(error),
            _ => {}
        }
        Ok(self.handle.with_state(State::position))
    }

    /// Reads back an artifact that may still be in the open block.
    pub fn get(&self, key: &Key) -> Result<Vec<u8>> {
        if let (Some(info), Some(block)) = (self.pending.get(key), &self.packed)
            && let Some(entry) = block
                .entries()
                .iter()
                .rev()
                .find(|entry| entry.info.key == *key)
        {
            let stored = block.read_back(entry.offset)?;
            return crate::frame::decode(info, stored)
                .map_err(|what| Error::damaged(block.path(), entry.offset.into(), what));
        }
        self.handle.get(key)
    }

    /// Reads back a note by its place, in the open block or a sealed one.
    pub fn note_at(&self, block: BlockId, offset: u32) -> Result<Vec<u8>> {
        match &self.packed {
            Some(open) if open.header().id == block => open.read_back(offset),
            _ => self.handle.note_at(block, offset),
        }
    }

    /// Where an artifact lies, once it is committed.
    pub fn locate(&self, key: &Key) -> Result<Location> {
        self.handle.locate(key)
    }
}
