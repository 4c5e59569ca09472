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

mod sessions;

use std::collections::HashMap;
use std::sync::Arc;

use crate::authority::Authority;
use crate::block::{self, BlockHeader, BlockWriter, Owner, Sealed};
use crate::current::{Current, Hint};
use crate::epoch;
use crate::error::{Error, Result};
use crate::format;
use crate::frame::Frame;
use crate::home::{self, Home, Quarters};
use crate::id::{BlockId, Key, Location, LogPosition, SessionId, WriterId};
use crate::index::records_of;
use crate::init::{BALLAST_PATH, draw, ensure_ballast, random_of, take_lock};
use crate::instances::Instance;
use crate::log::{self, LogEnd, LogFiles, LogWriter, NewRecord};
use crate::params::Params;
use crate::recover::Recovery;
use crate::state::{self, Level0, State};
use crate::store::{StoreHandle, View};
use crate::union;
use crate::vfs::{Vfs, VfsLock};

/// Block ids leased at a time.
const LEASE: u64 = 64;

/// What the outside world gives a writer: libraries know no clock and no chance.
#[derive(Clone)]
pub struct Context {
    /// Who writes.
    pub owner: Owner,
    /// Text for people who find the store locked: `process 123 on host box`.
    pub holder: String,
    /// Random; store ids, nonces and salts derive from it.
    pub seed: [u8; 32],
    /// Where the store is, if that has a name that another place has not.
    pub home: Option<Home>,
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
    /// Length of a log file, in bytes, from which on records go to a new one.
    pub log_file_len: u64,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            ballast_bytes: 8 << 20,
            flush_entries: 262_144,
            flush_blocks: 256,
            log_file_len: log::FILE_LEN_USUAL,
        }
    }
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
    pub(crate) handle: StoreHandle,
    pub(crate) vfs: Arc<dyn Vfs>,
    log: LogWriter,
    context: Context,
    random: blake3::OutputReader,
    options: WriteOptions,
    writer_id: WriterId,
    lease: std::ops::Range<u64>,
    session: SessionId,
    packed: Option<BlockWriter>,
    packed_artifacts: u32,
    /// Artifacts of the open block: which of its frames each one is.
    pending: HashMap<Key, u32>,
    /// Blocks whose frames went to another one: places that were given out stay good.
    moved: HashMap<BlockId, BlockId>,
    /// The first segment number that this writer has not used, should a record that
    /// names one have failed.
    pub(crate) next_segment: u32,
    ballast: bool,
    /// The ballast had to be given up: what room there is belongs to seals and records.
    full: bool,
    pub(crate) recovery: Recovery,
    /// Position of the last record of authority that this writer appended.
    pub(crate) authority_at: Option<LogPosition>,
    /// While an epoch begins: records from here on tell again what was lost.
    pub(crate) lost_from: Option<LogPosition>,
    poisoned: bool,
    _lock: Box<dyn VfsLock>,
}

impl StoreWriter {
    /// Opens a store for writing and recovers what a crash left. Of several instances it is the one at home, or a new one if
    /// none is ([`Recovery::born`]).
    pub fn open(vfs: Arc<dyn Vfs>, context: Context, options: WriteOptions) -> Result<Self> {
        Self::open_with(vfs, context, options, false)
    }

    /// Opens a store for writing; with `accept_lost_tail` even one whose log lacks records
    /// that it once had. Those are gone then.
    pub(crate) fn open_with(
        vfs: Arc<dyn Vfs>,
        context: Context,
        options: WriteOptions,
        accept_lost_tail: bool,
    ) -> Result<Self> {
        // Before the lock file is made: a path without a store stays untouched.
        if !accept_lost_tail || !epoch::has_traces(&*vfs) {
            LogFiles::list(&*vfs)?;
        }
        let lock = take_lock(&*vfs, &context)?;
        let mut random = random_of(&context.seed);
        let evidence = match accept_lost_tail {
            true => home::cut(&vfs, &context, &mut random)?,
            false => None,
        };
        let Quarters {
            vfs,
            prefix,
            current,
            others,
            unopened,
            born,
        } = home::quarters(&vfs, &context, &mut random)?;
        let Current {
            files,
            mut state,
            mut end,
        } = current;
        let lost = match end {
            LogEnd::Lost { remembered } if accept_lost_tail => {
                // The next record begins a new file, as after a torn append.
                end = LogEnd::Torn { ignored_bytes: 0 };
                Some(remembered)
            }
            _ => None,
        };
        let log = LogWriter::resume(&*vfs, &files, state.place(), &end, options.log_file_len)?;
        state.set_place(log.place());
        let torn_log_bytes = match end {
            LogEnd::Torn { ignored_bytes } => ignored_bytes,
            _ => 0,
        };
        let own = Instance::of_state(vfs.clone(), prefix, state, end)?;
        let handle = StoreHandle::union(Arc::new(own), others, unopened);
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
            moved: HashMap::new(),
            next_segment: 0,
            ballast: false,
            full: false,
            recovery: Recovery {
                torn_log_bytes,
                born,
                evidence,
                ..Recovery::default()
            },
            authority_at: None,
            lost_from: None,
            poisoned: false,
            _lock: lock,
        };
        writer.ballast = ensure_ballast(&*writer.vfs, options.ballast_bytes);
        if let Some(remembered) = lost {
            writer.begin_epoch(remembered)?;
        }
        if writer.log.is_undecided() {
            // What follows removes and overwrites files that the log does not name. It must
            // never come to name them after all. Any record will do.
            writer.lease = writer.take_ids(LEASE)?;
        }
        writer.recover()?;
        if lost.is_some() {
            writer.settle_epoch()?;
        }
        let unknown = |state: &State| state.home().is_none();
        if let Some(home) = writer.context.home.clone()
            && writer.handle.with_state(unknown)
        {
            writer.append(home.record())?;
        }
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

    // ---- the log ----

    pub(crate) fn append(&mut self, record: NewRecord) -> Result<()> {
        self.append_sealed(vec![record], None)
    }

    /// Appends records, durable when this returns; on an error once more, which goes to a
    /// new log file.
    pub(crate) fn append_sealed(
        &mut self,
        records: Vec<NewRecord>,
        sealed: Option<&Sealed>,
    ) -> Result<()> {
        let vfs = self.vfs.clone();
        let now = (self.context.now)();
        let random = &mut self.random;
        let first = self
            .log
            .append(&*vfs, records.clone(), &mut || draw(random), now);
        let done = match first {
            Ok(done) => done,
            Err(error @ Error::TooLong { .. }) => return Err(error),
            Err(error) => {
                self.make_room(&error);
                let random = &mut self.random;
                self.log.append(&*vfs, records, &mut || draw(random), now)?
            }
        };
        // State and index follow record by record: a block's artifacts come before
        // the tombstones that are logged after it.
        let mut view = self.handle.view_mut();
        let View { state, index } = &mut *view;
        for record in &done {
            let before = state.level0.len();
            state.apply(record)?;
            if Authority::of_type(record.record_type).is_some() {
                self.authority_at = Some(record.position);
            }
            match state.level0.get(before) {
                Some((_, Level0::Block(id))) => {
                    let sealed = sealed
                        .filter(|sealed| sealed.header.id.0 == *id)
                        .ok_or(Error::Poisoned)?;
                    records_of(BlockId(*id), sealed).for_each(|record| index.insert(record));
                }
                Some((position, entries)) => {
                    index.insert_logged(entries);
                    self.handle.parts().0.note_again(entries, *position);
                }
                None => {}
            }
        }
        state.set_place(self.log.place());
        Ok(())
    }

    /// Gives the ballast up, so that what must be written at the end still fits.
    /// Returns whether there was any.
    pub fn release_ballast(&mut self) -> bool {
        if !self.ballast || self.vfs.remove(BALLAST_PATH).is_err() {
            return false;
        }
        self.ballast = false;
        // Some filesystems free the room only then.
        let _ = self.vfs.sync_dir("");
        true
    }

    /// After a failure for want of room: frees the ballast for seals and records, and
    /// takes no more artifacts. Returns whether trying again may help.
    pub(crate) fn make_room(&mut self, error: &Error) -> bool {
        let freed = error.is_full() && self.release_ballast();
        self.full |= freed;
        freed
    }

    /// Takes the next block ids for this writer.
    pub(crate) fn take_ids(&mut self, count: u64) -> Result<std::ops::Range<u64>> {
        let first = self.handle.with_state(|state| state.next_block);
        self.append(self.lease(first, count))?;
        Ok(first..first + count)
    }

    /// The record that gives this writer block ids.
    pub(crate) fn lease(&self, first: u64, count: u64) -> NewRecord {
        state::lease_record(first, count, self.writer_id, &self.context.owner)
    }

    pub(crate) fn next_id(&mut self) -> Result<BlockId> {
        if self.lease.is_empty() {
            self.lease = self.take_ids(LEASE)?;
        }
        Ok(BlockId(
            self.lease.next().expect("leased above where it was empty"),
        ))
    }

    // ---- frames ----

    fn create_block(&mut self, class: u8) -> Result<BlockWriter> {
        let header = BlockHeader {
            class,
            ..self.new_header()?
        };
        BlockWriter::create(&*self.vfs, header)
    }

    /// The header of a packed block begun now.
    pub(crate) fn new_header(&mut self) -> Result<BlockHeader> {
        let id = self.next_id()?;
        let created_unix_ns = (self.context.now)();
        Ok(self.handle.with_state(|state| BlockHeader {
            store_id: state.store_id(),
            id,
            class: format::CLASS_PACKED,
            session: self.session,
            writer: self.writer_id,
            base_position: state.position().0,
            created_unix_ns,
            small_threshold: state.params().small_threshold,
            owner: self.context.owner,
        }))
    }

    fn check(&self) -> Result<()> {
        if self.poisoned {
            Err(Error::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Refuses what is not needed to bring the present work to its end.
    fn check_room(&self, needed_bytes: u64) -> Result<()> {
        self.check()?;
        if self.full {
            return Err(Error::Full {
                path: block::OPEN_DIR.to_owned(),
                needed_bytes,
                source: std::io::ErrorKind::StorageFull.into(),
            });
        }
        Ok(())
    }

    /// Whether an artifact with these flags is stored already, in sealed blocks or
    /// in the open one.
    pub fn has(&self, key: &Key, flags: u16) -> bool {
        let pending = self.pending_entry(key);
        pending.is_some_and(|entry| entry.info.flags & flags == flags)
            || self.handle.dedup(key, flags).is_some()
    }

    /// Whether the open block has the artifact of `key`.
    pub(crate) fn is_pending(&self, key: &Key) -> bool {
        self.pending_entry(key).is_some()
    }

    /// Whether an artifact is stored in this instance.
    pub(crate) fn has_own(&self, key: &Key) -> bool {
        self.pending_entry(key).is_some() || self.handle.dedup_own(key, 0).is_some()
    }

    /// The newest frame of the open block that is the artifact of `key`.
    fn pending_entry(&self, key: &Key) -> Option<&block::Entry> {
        let at = *self.pending.get(key)?;
        self.packed.as_ref()?.entries().get(at as usize)
    }

    /// Whether an artifact that [`has`](Self::has) knows can be read; one that is
    /// not committed yet can.
    pub(crate) fn is_intact(&self, key: &Key) -> bool {
        self.pending_entry(key).is_some() || self.handle.copy_to(key, &mut std::io::sink()).is_ok()
    }

    /// Stores one artifact unless it is there already. Small ones are packed; one at
    /// or above the small threshold gets a block of its own and is committed at
    /// once. The caller's order of calls is the order on disk.
    pub fn put(&mut self, frame: Frame) -> Result<Put> {
        self.check()?;
        if self.has(&frame.info.key, frame.info.flags) {
            return Ok(Put::Duplicate);
        }
        self.put_anew(frame)
    }

    /// Stores one artifact whether it is there or not: heals a damaged copy. Flags that
    /// the artifact has already stay with it.
    pub fn put_anew(&mut self, mut frame: Frame) -> Result<Put> {
        let space = frame.info.space();
        self.check_room(space)?;
        let key = frame.info.key;
        let stored = self.handle.lookup_own(&key).ok().flatten();
        frame.info.flags |= stored.map_or(0, |record| record.flags)
            | self.pending_entry(&key).map_or(0, |entry| entry.info.flags);
        let params = self.params();
        let large = frame.info.encoding != format::ENCODING_CHUNKED
            && frame.info.raw_len >= params.small_threshold;
        if large {
            self.put_large(frame)?;
            return Ok(Put::Stored(space));
        }
        let full = self.packed.as_ref().is_some_and(|block| {
            !block.is_empty()
                && (!block.fits(space)
                    || block.len() + space > params.block_size
                    || self.packed_artifacts >= params.packed_max)
        });
        if full {
            self.commit()?;
        }
        self.append_packed(frame)?;
        self.packed_artifacts += 1;
        let frames = self.packed.as_ref().map_or(0, BlockWriter::frames);
        // A block has fewer frames than 32 bits count.
        self.pending.insert(key, frames as u32 - 1);
        Ok(Put::Stored(space))
    }

    fn put_large(&mut self, frame: Frame) -> Result<()> {
        let mut block = self.create_block(format::CLASS_LARGE)?;
        let path = block.path().to_owned();
        let sealed = block.append(frame).and_then(|_| self.seal(block));
        match sealed {
            Ok(sealed) => self.log_sealed(&sealed, format::ORIGIN_WRITTEN, None)?,
            Err(error) => {
                // Nothing of it was acknowledged, so nothing is lost with it.
                let _ = self.vfs.remove(&path);
                return Err(error);
            }
        }
        self.flush_if_due()
    }

    /// Appends a note to the open block; durable after [`StoreWriter::sync`].
    /// Returns its place: block and offset. On a full disk notes take of the ballast: what
    /// they tell of artifacts that did fit must not be lost.
    pub fn note(&mut self, note_type: u32, payload: Vec<u8>) -> Result<(BlockId, u32)> {
        self.check()?;
        let frame = Frame::note(note_type, payload);
        self.room_for_notes(frame.info.space())?;
        self.append_packed(frame)
    }

    /// Appends several notes to the open block, all to the same one.
    pub(crate) fn notes_together(&mut self, notes: Vec<(u32, Vec<u8>)>) -> Result<()> {
        self.check()?;
        let frames: Vec<Frame> = notes
            .into_iter()
            .map(|(note_type, payload)| Frame::note(note_type, payload))
            .collect();
        self.room_for_notes(frames.iter().map(|frame| frame.info.space()).sum())?;
        frames
            .into_iter()
            .try_for_each(|frame| self.append_packed(frame).map(drop))
    }

    /// Commits an open block that has no room for notes of this length.
    fn room_for_notes(&mut self, space: u64) -> Result<()> {
        let full = self.packed.as_ref().is_some_and(|block| {
            !block.is_empty()
                && (!block.fits(space) || block.len() + space > 2 * self.params().block_size)
        });
        match full {
            true => self.commit(),
            false => Ok(()),
        }
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
            Err(error) if is_limit(&error) => Err(error),
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
                self.make_room(&error);
                self.evacuate()
            }
        }
    }

    fn evacuate(&mut self) -> Result<()> {
        let old = self.packed.take().ok_or(Error::Poisoned)?;
        // What was durable is still under open/ for the next opening.
        let moved = self
            .move_frames(old)
            .inspect_err(|_| self.poisoned = true)?;
        self.packed = Some(moved);
        Ok(())
    }

    /// Moves all frames of a block whose file is not to be trusted to a new file.
    fn move_frames(&mut self, old: BlockWriter) -> Result<BlockWriter> {
        let (path, class) = (old.path().to_owned(), old.header().class);
        let from = old.header().id;
        let frames = old.into_rescued()?;
        let mut block = self.create_block(class)?;
        let mut moved = frames
            .into_iter()
            .try_for_each(|frame| block.append(frame).map(drop));
        moved = moved.and_then(|()| block.sync(&*self.vfs));
        // The copy that does not count goes. If it stays, the next opening salvages it:
        // the same artifacts twice.
        let gone = match moved {
            Ok(()) => path,
            Err(_) => block.path().to_owned(),
        };
        let _ = self
            .vfs
            .remove(&gone)
            .and_then(|()| self.vfs.sync_dir(block::OPEN_DIR));
        moved?;
        // In the same order behind a header of the same length: every offset stays.
        self.moved.insert(from, block.header().id);
        Ok(block)
    }

    // ---- commits ----

    /// Seals the open block and logs it: everything put so far is visible and
    /// durable when this returns.
    pub fn commit(&mut self) -> Result<()> {
        self.commit_with(|_| None::<NewRecord>)
    }

    /// Commits, and in the same append adds what `records` makes of the block that was sealed, if any was.
    pub(crate) fn commit_with<R: IntoIterator<Item = NewRecord>>(
        &mut self,
        records: impl FnOnce(Option<BlockId>) -> R,
    ) -> Result<()> {
        self.check()?;
        if let Some(block) = self.packed.take() {
            self.packed_artifacts = 0;
            if block.is_empty() {
                let _ = self.vfs.remove(block.path());
            } else {
                let sealed = self.seal(block).inspect_err(|_| self.poisoned = true)?;
                // Its frames may have moved to another block than they were put into.
                let records = records(Some(sealed.header.id));
                self.log_sealed(&sealed, format::ORIGIN_WRITTEN, records)?;
                self.pending.clear();
                return self.flush_if_due();
            }
        }
        let records: Vec<NewRecord> = records(None).into_iter().collect();
        match records.is_empty() {
            true => Ok(()),
            false => self.append_sealed(records, None),
        }
    }

    /// Seals a block. Where its file cannot be synced, its frames go to another.
    fn seal(&mut self, mut block: BlockWriter) -> Result<Sealed> {
        let vfs = self.vfs.clone();
        let error = match block.seal(&*vfs, false) {
            Ok(sealed) => return Ok(sealed),
            Err(error) => error,
        };
        let room = self.make_room(&error);
        if block.is_suspect() {
            block = self.move_frames(block)?;
        } else if !room && is_limit(&error) {
            return Err(error);
        }
        block.seal(&*vfs, false)
    }

    pub(crate) fn log_sealed(
        &mut self,
        sealed: &Sealed,
        origin: u8,
        more: impl IntoIterator<Item = NewRecord>,
    ) -> Result<()> {
        let mut records = vec![state::seal_record(sealed, origin)];
        records.extend(more);
        // The block is found again at the next opening if its record cannot be written.
        self.append_sealed(records, Some(sealed))
            .inspect_err(|_| self.poisoned = true)
    }

    pub(crate) fn flush_if_due(&mut self) -> Result<()> {
        let (entries, blocks) = {
            let view = self.handle.view();
            (view.index.level0_len(), view.state.level0.len())
        };
        if entries < self.options.flush_entries && blocks < self.options.flush_blocks {
            return Ok(());
        }
        match self.flush() {
            // Level 0 serves as well as segments do; it only takes memory.
            Err(error) if error.is_full() => Ok(()),
            other => other,
        }
    }

    /// Adds index entries for frames that are in sealed blocks: makes a hidden
    /// artifact visible again without writing its bytes. Commits first: what an open block
    /// gets later under one of these keys would yield to the record, should a crash leave the
    /// block without its own.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an entry of another instance's block: this log does not speak of it.
    pub fn index_add(&mut self, records: &[crate::segment::IndexRecord]) -> Result<()> {
        let foreign = |record: &&crate::segment::IndexRecord| union::split(record.block).0 != 0;
        if let Some(record) = records.iter().find(foreign) {
            return Err(Error::NotFound(record.key));
        }
        self.commit_with(|_| vec![state::index_add_record(records)])
    }

    // ---- the end ----

    pub(crate) fn write_hint(&self) -> Result<()> {
        let (place, snapshot) = self.handle.with_state(|state| {
            (
                state.place(),
                state.snapshots.last().map_or(0, |last| last.ordinal),
            )
        });
        match (Hint { place, snapshot }).write(&*self.vfs) {
            // A hint is worth nothing on a disk that is full.
            Err(error) if error.is_full() => Ok(()),
            other => other,
        }
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
        self.write_hint()?;
        Ok(self.handle.with_state(State::position))
    }

    /// Reads back an artifact that may still be in the open block, even if it was
    /// hidden since it was stored.
    pub fn get(&self, key: &Key) -> Result<Vec<u8>> {
        if let (Some(entry), Some(block)) = (self.pending_entry(key), &self.packed) {
            let stored = block.read_back(entry.offset)?;
            return crate::frame::decode(&entry.info, stored)
                .map_err(|what| Error::damaged(block.path(), entry.offset.into(), what));
        }
        self.handle.get_part(key)
    }

    /// Reads back a note by its place, in the open block or a sealed one.
    pub fn note_at(&self, mut block: BlockId, offset: u32) -> Result<Vec<u8>> {
        while let Some(other) = self.moved.get(&block) {
            block = *other;
        }
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

/// Whether the filesystem refuses for a reason that another file would meet as well.
fn is_limit(error: &Error) -> bool {
    match error {
        Error::Full { .. } | Error::TooLong { .. } => true,
        Error::Io { source, .. } => matches!(
            source.kind(),
            std::io::ErrorKind::FileTooLarge | std::io::ErrorKind::ReadOnlyFilesystem
        ),
        _ => false,
    }
}
