//! Writes what was read, in order: artifacts, then the note that maps them, then
//! one sync for both.
//!
//! Write order: part after part goes to the open block; every `sync_bytes` or
//! `sync_interval` a map note follows and the block is synced. Only then do the
//! parts count as durable. At the end come the leaves that are not complete,
//! inner nodes, the capture's root, the session's record.
//!
//! Crash: what was not synced is read again; nothing that was is. A capture cut
//! off here resumes from its notes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use asl_store::{Compression, Encoder, Frame, Key, Put, SessionId, StoreWriter, format};

use crate::error::Result;
use crate::imagehash::ChainingValue;
use crate::journal::{self, Counters, Entry, NoteBuilder};
use crate::leaves::{Held, LeafTable, OpenLeaf, Piece};
use crate::manifest::{
    ChildFlags, Content, FAN_OUT, Fragment, Slot, encode_inner, encode_leaf, leaf_flags, leaf_span,
};
use crate::map::{RangeState, RescueMap, StateKind};
use crate::reader::{Clock, Message};
use crate::session;
use crate::worker::{Chunking, Part, PartContent, Worked, is_zero};

/// Length in bytes from which on a map note is not held back until the next sync.
const NOTE_LEN: usize = 1 << 20;

/// When to sync.
#[derive(Debug, Clone, Copy)]
pub struct SyncPolicy {
    /// Bytes of frames not yet durable.
    pub bytes: u64,
    /// Time since the last sync.
    pub interval: Duration,
}

/// The writing side of a capture.
pub struct Committer {
    writer: StoreWriter,
    chunking: Chunking,
    sector_bytes: u32,
    clock: Arc<dyn Clock>,
    policy: SyncPolicy,
    open_leaves: usize,
    syncs: u64,
    map: RescueMap,
    leaves: LeafTable,
    note: NoteBuilder,
    unwritten: VecDeque<Vec<u8>>,
    node_encoder: Encoder,
    counters: Counters,
    slow_before: u64,
    started: Duration,
    elapsed_before: u64,
    zero_bytes: u64,
    last_sync: Duration,
    durable_bytes: u64,
    fingerprint: Option<Entry>,
    dirty: bool,
}

/// The manifest that a capture's root points to.
#[derive(Debug, Clone, Copy)]
pub struct Top {
    /// Its top node.
    pub key: Key,
    /// The image's digest, unless something is untried.
    pub image_blake3: Option<[u8; 32]>,
}

impl Committer {
    /// A committer for a session that `writer` has begun, which keeps up to `open_leaves`
    /// unfinished leaves in memory. What an earlier run left is given by
    /// [`Committer::fold`] before anything else.
    pub fn new(
        writer: StoreWriter,
        session: SessionId,
        chunking: Chunking,
        sector_bytes: u32,
        clock: Arc<dyn Clock>,
        policy: SyncPolicy,
        open_leaves: usize,
    ) -> Self {
        let started = clock.monotonic();
        Self {
            writer,
            chunking,
            sector_bytes,
            policy,
            open_leaves: open_leaves.max(1),
            syncs: 0,
            map: RescueMap::new(chunking.size),
            leaves: LeafTable::new(chunking),
            note: NoteBuilder::new(session, 0),
            unwritten: VecDeque::new(),
            node_encoder: Encoder::new(Compression::Auto),
            counters: Counters::default(),
            slow_before: 0,
            started,
            elapsed_before: 0,
            zero_bytes: 0,
            last_sync: started,
            durable_bytes: 0,
            fingerprint: None,
            dirty: false,
            clock,
        }
    }

    /// Folds an entry of an earlier run.
    pub fn fold(&mut self, entry: &Entry) -> Result<()> {
        if !self.leaves.fits(entry) {
            return Err(self.bad_notes("an entry beyond the image"));
        }
        if let Entry::LeafDone { index, .. } = entry {
            // Its chunks were noted before it. Where one of those notes, or what it named,
            // did not survive, the leaf is put together again.
            self.load_leaf(*index)?;
            if !self.leaves.is_complete(*index) {
                return Ok(());
            }
        }
        self.map_entry(entry);
        match entry {
            Entry::Counters(counters) => {
                self.counters = *counters;
                self.elapsed_before = counters.elapsed_ns;
                self.slow_before = counters.slow_reads;
            }
            Entry::Fingerprint { .. } => self.fingerprint = Some(*entry),
            _ => {}
        }
        self.leaf_entry(entry)?;
        self.durable_bytes = self.map.copied_bytes();
        Ok(())
    }

    /// Goes on numbering notes after an earlier run's.
    pub fn continue_notes(&mut self, session: SessionId, sequence: u64) {
        self.note = NoteBuilder::new(session, sequence);
    }

    fn map_entry(&mut self, entry: &Entry) {
        let chunk_bytes = u64::from(self.chunking.chunk_bytes);
        session::fold_entry(
            &mut self.map,
            entry,
            self.chunking.chunk_bytes,
            self.sector_bytes,
        );
        match *entry {
            Entry::ZeroChunks { first, count, .. } => {
                let end = (first + u64::from(count)) * chunk_bytes;
                self.zero_bytes += end.min(self.chunking.size) - first * chunk_bytes;
            }
            Entry::ZeroPiece { len, .. } => self.zero_bytes += u64::from(len),
            _ => {}
        }
    }

    fn leaf_entry(&mut self, entry: &Entry) -> Result<()> {
        if let Some(leaf) = self.leaves.leaf_of(entry) {
            self.load_leaf(leaf)?;
        }
        self.leaves.apply(entry);
        while let Some(leaf) = self.leaves.to_spill(self.open_leaves) {
            let mut note = NoteBuilder::new(SessionId::ZERO, leaf);
            self.leaves
                .entries_of(leaf)
                .iter()
                .for_each(|entry| note.push(entry));
            let place = self.writer.note(format::NOTE_LEAF, note.take())?;
            self.leaves.spilled(leaf, place);
        }
        Ok(())
    }

    fn load_leaf(&mut self, leaf: u64) -> Result<()> {
        let Some((block, offset)) = self.leaves.spilled_at(leaf) else {
            return Ok(());
        };
        let note = self.writer.note_at(block, offset)?;
        let (_, _, entries) =
            journal::parse(&note).ok_or_else(|| self.bad_notes("a spilled leaf does not parse"))?;
        self.leaves.unspill(leaf);
        entries.iter().for_each(|entry| self.leaves.apply(entry));
        Ok(())
    }

    fn bad_notes(&self, what: &'static str) -> crate::Error {
        crate::Error::Notes {
            session: String::new(),
            what,
        }
    }

    // ---- reading goes on ----

    /// Writes one message's parts. After [`asl_store::Error::Full`] what was not
    /// written stays untried.
    pub fn accept(&mut self, worked: Worked) -> Result<()> {
        match worked.message {
            Message::Data { reads, latency, .. } => {
                self.counters.reads += reads;
                self.accept_parts(worked.parts, micros(latency))?;
            }
            Message::Hole { .. } => self.accept_parts(worked.parts, 0)?,
            Message::Failure {
                offset,
                len,
                errno,
                latency,
            } => {
                self.counters.reads += 1;
                self.counters.read_errors += 1;
                self.record(Entry::Failure {
                    offset,
                    len,
                    errno,
                    latency_us: micros(latency),
                })?;
            }
            Message::First { offset, bytes } => self.set_fingerprint(offset, &bytes),
            Message::End { slow_reads, .. } => {
                self.counters.slow_reads = self.slow_before + slow_reads
            }
        }
        if self.note.len() >= NOTE_LEN {
            self.write_notes()?;
        }
        if self.writer.pending_bytes() >= self.policy.bytes {
            self.sync()?;
        }
        Ok(())
    }

    fn accept_parts(&mut self, parts: Vec<Part>, latency_us: u32) -> Result<()> {
        let chunk_bytes = u64::from(self.chunking.chunk_bytes);
        let mut zeros: Option<(u64, u32)> = None;
        for part in parts {
            let index = part.offset / chunk_bytes;
            if let (Some(cv), PartContent::Zero) = (part.cv, &part.content) {
                let joins = zeros.is_some_and(|(first, count)| {
                    first + u64::from(count) == index && !index.is_multiple_of(FAN_OUT)
                });
                if !joins {
                    self.record_zeros(&mut zeros, latency_us)?;
                }
                zeros = Some(zeros.map_or((index, 1), |(first, count)| (first, count + 1)));
                self.load_leaf(index / FAN_OUT)?;
                self.leaves.apply(&Entry::ZeroChunks {
                    first: index,
                    count: 1,
                    latency_us,
                });
                self.leaves.set_zero_cv(index, cv);
                continue;
            }
            self.record_zeros(&mut zeros, latency_us)?;
            let key = match part.content {
                PartContent::Zero => None,
                PartContent::Known(key) => Some(key),
                PartContent::New(frame) => Some(self.put(frame)?),
            };
            let len = part.len as u32;
            self.record(match (part.cv, key) {
                (Some(cv), Some(key)) => Entry::Chunk {
                    index,
                    latency_us,
                    key,
                    cv,
                },
                (_, Some(key)) => Entry::Piece {
                    offset: part.offset,
                    len,
                    latency_us,
                    key,
                },
                (_, None) => Entry::ZeroPiece {
                    offset: part.offset,
                    len,
                    latency_us,
                },
            })?;
        }
        self.record_zeros(&mut zeros, latency_us)
    }

    fn record_zeros(&mut self, zeros: &mut Option<(u64, u32)>, latency_us: u32) -> Result<()> {
        match zeros.take() {
            Some((first, count)) => self.record(Entry::ZeroChunks {
                first,
                count,
                latency_us,
            }),
            None => Ok(()),
        }
    }

    fn set_fingerprint(&mut self, offset: u64, bytes: &[u8]) {
        if self.fingerprint.is_none() {
            let entry = Entry::Fingerprint {
                offset,
                len: bytes.len() as u32,
                digest: *blake3::hash(bytes).as_bytes(),
            };
            self.note.push(&entry);
            self.dirty = true;
            self.fingerprint = Some(entry);
        }
    }

    fn record(&mut self, entry: Entry) -> Result<()> {
        self.note.push(&entry);
        self.dirty = true;
        self.map_entry(&entry);
        self.leaf_entry(&entry)?;
        if let Some(leaf) = self.leaves.leaf_of(&entry) {
            self.close_leaf(leaf)?;
        }
        Ok(())
    }

    fn close_leaf(&mut self, leaf: u64) -> Result<()> {
        // It stays open until it is stored: a full disk must not lose it.
        let Some((slots, cv)) = self.leaves.settled(leaf) else {
            return Ok(());
        };
        let (key, flags) = self.put_leaf(&slots)?;
        let done = Entry::LeafDone {
            index: leaf,
            flags: flags.0,
            key,
            cv,
        };
        self.note.push(&done);
        self.leaves.apply(&done);
        Ok(())
    }

    fn put(&mut self, frame: Frame) -> Result<Key> {
        let (key, raw_len) = (frame.info.key, frame.info.raw_len);
        if let Put::Stored(bytes) = self.writer.put(frame)? {
            self.counters.new_bytes += raw_len;
            self.counters.stored_bytes += bytes;
        }
        Ok(key)
    }

    fn put_node(&mut self, raw: Vec<u8>, flags: u16) -> Result<Key> {
        let key = Key::of(&raw);
        let frame = self
            .node_encoder
            .encode(key, raw.into(), format::FLAG_NODE | flags);
        self.put(frame)
    }

    fn put_leaf(&mut self, slots: &[Slot]) -> Result<(Key, ChildFlags)> {
        let key = self.put_node(encode_leaf(self.chunking.chunk_bytes, slots), 0)?;
        Ok((key, leaf_flags(slots)))
    }

    /// Syncs if the last sync is longer ago than the interval.
    pub fn tick(&mut self) -> Result<()> {
        let due = self.clock.monotonic().saturating_sub(self.last_sync) >= self.policy.interval;
        if due && (self.dirty || self.writer.pending_bytes() > 0) {
            self.sync()
        } else {
            Ok(())
        }
    }

    /// Writes the map note and makes everything so far durable.
    pub fn sync(&mut self) -> Result<()> {
        self.write_notes()?;
        self.writer.sync()?;
        self.syncs += 1;
        self.last_sync = self.clock.monotonic();
        self.durable_bytes = self.map.copied_bytes();
        Ok(())
    }

    /// Writes the map note behind the artifacts that it is about.
    fn write_notes(&mut self) -> Result<()> {
        self.counters.elapsed_ns = self.elapsed().as_nanos() as u64;
        if self.dirty {
            self.note.push(&Entry::Counters(self.counters));
            self.unwritten.push_back(self.note.take());
            self.dirty = false;
        }
        // A note that did not fit is written once there is room: it is kept until then.
        while let Some(note) = self.unwritten.front() {
            let bytes = note.len() as u64;
            self.writer.note(format::NOTE_MAP, note.clone())?;
            self.unwritten.pop_front();
            self.counters.new_bytes += bytes;
            self.counters.stored_bytes += bytes;
        }
        Ok(())
    }

    // ---- the end of a run ----

    /// Writes the manifest of what is known: at the end of a capture (`coalesce`:
    /// the pieces of a chunk are joined) or at an interruption. Nothing is read
    /// from the source.
    pub fn write_manifest(&mut self, coalesce: bool) -> Result<Top> {
        self.sync()?;
        let mut nodes = Vec::new();
        let mut cvs = Vec::new();
        let mut level = 0;
        for leaf in 0..self.leaves.count() {
            if let Some(done) = self.leaves.done_leaf(leaf) {
                nodes.push((done.key, done.flags));
                cvs.push(Some(done.cv));
                continue;
            }
            self.load_leaf(leaf)?;
            let open = self.leaves.take(leaf).unwrap_or_default();
            let (slots, cv) = self.settle_leaf(leaf, &open, coalesce)?;
            nodes.push(self.put_leaf(&slots)?);
            cvs.push(cv);
            if self.writer.pending_bytes() >= self.policy.bytes {
                self.sync()?;
            }
        }
        let mut span = leaf_span(self.chunking.chunk_bytes);
        while nodes.len() > 1 {
            level += 1;
            let mut above = Vec::with_capacity(nodes.len().div_ceil(FAN_OUT as usize));
            for children in nodes.chunks(FAN_OUT as usize) {
                let flags = ChildFlags::join(children.iter().map(|(_, flags)| *flags));
                above.push((
                    self.put_node(encode_inner(level, span, children), 0)?,
                    flags,
                ));
            }
            nodes = above;
            span *= FAN_OUT;
        }
        let cvs: Option<Vec<ChainingValue>> = cvs.into_iter().collect();
        let image_blake3 = cvs.map(|cvs| self.leaves.image_digest(&cvs));
        Ok(Top {
            key: nodes[0].0,
            image_blake3,
        })
    }

    fn settle_leaf(
        &mut self,
        leaf: u64,
        open: &OpenLeaf,
        coalesce: bool,
    ) -> Result<(Vec<Slot>, Option<ChainingValue>)> {
        let span = self.leaves.span(leaf);
        let chunk_bytes = u64::from(self.chunking.chunk_bytes);
        let mut slots = Vec::new();
        let mut cvs = Vec::new();
        for (at, start) in (span.start..span.end)
            .step_by(chunk_bytes as usize)
            .enumerate()
        {
            let held = open.slots.get(at).cloned().unwrap_or_default();
            let (slot, cv) = match held {
                Held::Zero(cv) => (
                    Slot::Zero,
                    Some(cv.unwrap_or_else(|| self.chunking.zero_cv(start))),
                ),
                Held::Whole(key, cv) => (Slot::Whole(key), Some(cv)),
                Held::Empty => self.settle_chunk(start, Vec::new(), coalesce)?,
                Held::Pieces(pieces) => self.settle_chunk(start, pieces, coalesce)?,
            };
            slots.push(slot);
            cvs.push(cv);
        }
        let cvs: Option<Vec<_>> = cvs.into_iter().collect();
        Ok((slots, cvs.map(|cvs| self.leaves.leaf_cv(leaf, &cvs))))
    }

    /// A chunk of which parts were read: what they are and what lies between.
    fn settle_chunk(
        &mut self,
        start: u64,
        pieces: Vec<Piece>,
        coalesce: bool,
    ) -> Result<(Slot, Option<ChainingValue>)> {
        let len = self.chunking.chunk_len(start);
        let untried = self
            .map
            .runs_in(start..start + len)
            .any(|run| !matches!(run.state.kind(), StateKind::Copied | StateKind::Unreadable));
        let mut bytes = Vec::new();
        // The bytes are needed to join pieces, and for the digest of a chunk with holes.
        let pieces = if coalesce && !pieces.is_empty() {
            bytes = vec![0; len as usize];
            for piece in &pieces {
                if let Some(key) = piece.key {
                    let data = self.writer.get(&key)?;
                    bytes[piece.offset as usize..][..data.len()].copy_from_slice(&data);
                }
            }
            self.join(start, &pieces, &bytes)?
        } else {
            pieces
        };
        let cv = (coalesce && !untried).then(|| match bytes.is_empty() {
            true => self.chunking.zero_cv(start),
            false => self.chunking.cv(start, &bytes),
        });
        if let ([piece], Some(cv)) = (&pieces[..], cv)
            && u64::from(piece.len) == len
        {
            let slot = piece.key.map_or(Slot::Zero, Slot::Whole);
            return Ok((slot, Some(cv)));
        }
        Ok((Slot::Fragments(self.fragments(start, len, &pieces)), cv))
    }

    /// Joins pieces that touch into one artifact each.
    fn join(&mut self, start: u64, pieces: &[Piece], bytes: &[u8]) -> Result<Vec<Piece>> {
        let mut joined = Vec::new();
        let mut rest = pieces;
        while let Some(first) = rest.first() {
            let mut end = first.offset + first.len;
            let mut count = 1;
            while let Some(next) = rest.get(count).filter(|next| next.offset <= end) {
                end = end.max(next.offset + next.len);
                count += 1;
            }
            rest = &rest[count..];
            let part = &bytes[first.offset as usize..end as usize];
            let piece = match (count, is_zero(part)) {
                (1, _) => *first,
                (_, true) => Piece {
                    offset: first.offset,
                    len: end - first.offset,
                    key: None,
                },
                _ => {
                    let key = Key::of(part);
                    let frame = self.node_encoder.encode(key, part.to_vec().into(), 0);
                    self.put(frame)?;
                    Piece {
                        offset: first.offset,
                        len: end - first.offset,
                        key: Some(key),
                    }
                }
            };
            if count > 1 {
                let offset = start + u64::from(piece.offset);
                // Noted, so that a later run of this session starts from the joined piece.
                self.note.push(&piece.entry(offset));
                self.dirty = true;
            }
            joined.push(piece);
        }
        Ok(joined)
    }

    fn fragments(&self, start: u64, len: u64, pieces: &[Piece]) -> Vec<Fragment> {
        let mut fragments = Vec::new();
        let mut at = start;
        let hole = |from: u64, to: u64, fragments: &mut Vec<Fragment>| {
            for run in self.map.runs_in(from..to) {
                let (first, last) = (run.start.max(from), run.end().min(to));
                let content = match run.state {
                    RangeState::Unreadable { errno, .. } => Content::Unreadable(errno),
                    _ => Content::Untried,
                };
                let (offset, len) = ((first - start) as u32, (last - first) as u32);
                match fragments.last_mut() {
                    Some(Fragment {
                        content: before,
                        len: so_far,
                        ..
                    }) if *before == content => *so_far += len,
                    _ => fragments.push(Fragment {
                        offset,
                        len,
                        content,
                    }),
                }
            }
        };
        for piece in pieces {
            let from = start + u64::from(piece.offset);
            if from < at {
                // Overlaps what came before: only possible where a sector was read twice.
                continue;
            }
            if from > at {
                hole(at, from, &mut fragments);
            }
            let content = piece.key.map_or(Content::Zero, Content::Data);
            fragments.push(Fragment {
                offset: piece.offset,
                len: piece.len,
                content,
            });
            at = from + u64::from(piece.len);
        }
        if at < start + len {
            hole(at, start + len, &mut fragments);
        }
        fragments
    }

    /// Stores the capture's root node.
    pub fn put_root(&mut self, raw: Vec<u8>) -> Result<Key> {
        self.put_node(raw, format::FLAG_ROOT)
    }

    // ---- views ----

    /// The map so far.
    pub fn map(&self) -> &RescueMap {
        &self.map
    }
    /// Totals over all runs.
    pub fn counters(&self) -> Counters {
        self.counters
    }
    /// Time spent over all runs.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_before)
            + self.clock.monotonic().saturating_sub(self.started)
    }
    /// Zeros among the bytes read.
    pub fn zero_bytes(&self) -> u64 {
        self.zero_bytes
    }
    /// How often everything so far was made durable.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }
    /// Bytes read that no power cut can take any more.
    pub fn durable_bytes(&self) -> u64 {
        self.durable_bytes
    }
    /// What the first bytes were.
    pub fn fingerprint(&self) -> Option<&Entry> {
        self.fingerprint.as_ref()
    }
    /// The writer beneath.
    pub fn writer(&mut self) -> &mut StoreWriter {
        &mut self.writer
    }
    /// Gives the writer back.
    pub fn into_writer(self) -> StoreWriter {
        self.writer
    }
    /// Bytes of frames that are not durable yet.
    pub fn pending_bytes(&self) -> u64 {
        self.writer.pending_bytes()
    }
}

fn micros(latency: Duration) -> u32 {
    latency.as_micros().min(u32::MAX.into()) as u32
}
