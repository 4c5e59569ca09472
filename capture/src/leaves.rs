//! The manifest's leaves while a capture goes on.
//!
//! A fold over journal entries. A leaf whose chunks are all whole or zero is
//! complete and leaves this table for good; the others stay, because a failing
//! disk comes back to them. Memory is bounded: the least recently touched ones
//! are spilled into notes and read back when they are touched again.

use std::collections::BTreeMap;

use asl_store::{BlockId, Key};

use crate::imagehash::{self, ChainingValue};
use crate::journal::Entry;
use crate::manifest::{ChildFlags, FAN_OUT, Slot, leaf_span};
use crate::worker::Chunking;

/// A part of a chunk; `None` is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Bytes from the start of the chunk.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
    /// Its artifact.
    pub key: Option<Key>,
}

impl Piece {
    /// The note of a piece that lies at `offset` of the image, without how long it took
    /// to read.
    pub fn entry(&self, offset: u64) -> Entry {
        let (len, latency_us) = (self.len, 0);
        match self.key {
            Some(key) => Entry::Piece {
                offset,
                len,
                latency_us,
                key,
            },
            None => Entry::ZeroPiece {
                offset,
                len,
                latency_us,
            },
        }
    }
}

/// What is known of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Held {
    /// Nothing.
    #[default]
    Empty,
    /// It is zero.
    Zero(Option<ChainingValue>),
    /// It is stored whole.
    Whole(Key, ChainingValue),
    /// Parts of it are, ascending and apart.
    Pieces(Vec<Piece>),
}

/// A leaf that is not complete.
#[derive(Debug, Clone, Default)]
pub struct OpenLeaf {
    /// Its chunks.
    pub slots: Vec<Held>,
    unsettled: usize,
    touched: u64,
}

/// A stored leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoneLeaf {
    /// Its artifact.
    pub key: Key,
    /// What it contains.
    pub flags: ChildFlags,
    /// Its subtree of the image's digest.
    pub cv: ChainingValue,
}

/// All leaves of one capture.
pub struct LeafTable {
    chunking: Chunking,
    open: BTreeMap<u64, OpenLeaf>,
    spilled: BTreeMap<u64, (BlockId, u32)>,
    done: BTreeMap<u64, DoneLeaf>,
    clock: u64,
}

impl LeafTable {
    /// A table in which nothing is known.
    pub fn new(chunking: Chunking) -> Self {
        Self {
            chunking,
            open: BTreeMap::new(),
            spilled: BTreeMap::new(),
            done: BTreeMap::new(),
            clock: 0,
        }
    }

    /// How many leaves the image has; at least one, even if it is empty.
    pub fn count(&self) -> u64 {
        self.chunking
            .size
            .div_ceil(leaf_span(self.chunking.chunk_bytes))
            .max(1)
    }

    /// Image bytes of a leaf.
    pub fn span(&self, leaf: u64) -> std::ops::Range<u64> {
        let span = leaf_span(self.chunking.chunk_bytes);
        leaf * span..((leaf + 1) * span).min(self.chunking.size)
    }

    /// The leaf that an entry is about, if it is about one.
    pub fn leaf_of(&self, entry: &Entry) -> Option<u64> {
        let chunk_bytes = u64::from(self.chunking.chunk_bytes);
        match entry {
            Entry::Chunk { index, .. } => Some(index / FAN_OUT),
            Entry::ZeroChunks { first, .. } => Some(first / FAN_OUT),
            Entry::Piece { offset, .. } | Entry::ZeroPiece { offset, .. } => {
                Some(offset / chunk_bytes / FAN_OUT)
            }
            _ => None,
        }
    }

    /// Whether an entry is about bytes of the image, within one leaf.
    pub fn fits(&self, entry: &Entry) -> bool {
        let chunk_bytes = u64::from(self.chunking.chunk_bytes);
        let chunks = self.chunking.size.div_ceil(chunk_bytes);
        match *entry {
            Entry::Chunk { index, .. } => index < chunks,
            Entry::ZeroChunks { first, count, .. } => {
                first < chunks
                    && count > 0
                    && u64::from(count) <= (chunks - first).min(FAN_OUT - first % FAN_OUT)
            }
            Entry::Piece { offset, len, .. } | Entry::ZeroPiece { offset, len, .. } => {
                offset < self.chunking.size
                    && len > 0
                    && u64::from(len)
                        <= (self.chunking.size - offset).min(chunk_bytes - offset % chunk_bytes)
            }
            Entry::Failure { offset, len, .. } => {
                offset < self.chunking.size && len <= self.chunking.size - offset
            }
            Entry::LeafDone { index, .. } => index < self.count(),
            Entry::Counters(_) | Entry::Fingerprint { .. } => true,
        }
    }

    /// Where a spilled leaf lies that must be read back before it is touched.
    pub fn spilled_at(&self, leaf: u64) -> Option<(BlockId, u32)> {
        self.spilled.get(&leaf).copied()
    }

    /// Takes a spilled leaf back: its entries are applied again by the caller.
    pub fn unspill(&mut self, leaf: u64) {
        self.spilled.remove(&leaf);
    }

    /// Folds one entry. Entries about chunks must lie within one leaf, which must
    /// not be spilled.
    pub fn apply(&mut self, entry: &Entry) {
        match *entry {
            Entry::Chunk { index, key, cv, .. } => self.hold(index, Held::Whole(key, cv)),
            Entry::ZeroChunks { first, count, .. } => {
                (first..first + u64::from(count))
                    .for_each(|index| self.hold(index, Held::Zero(None)));
            }
            Entry::Piece {
                offset, len, key, ..
            } => self.hold_piece(offset, len, Some(key)),
            Entry::ZeroPiece { offset, len, .. } => self.hold_piece(offset, len, None),
            Entry::LeafDone {
                index,
                flags,
                key,
                cv,
            } => {
                self.open.remove(&index);
                self.spilled.remove(&index);
                self.done.insert(
                    index,
                    DoneLeaf {
                        key,
                        flags: ChildFlags(flags),
                        cv,
                    },
                );
            }
            Entry::Failure { .. } | Entry::Counters(_) | Entry::Fingerprint { .. } => {}
        }
    }

    /// Gives a zero chunk the part of the image's digest that it is.
    pub fn set_zero_cv(&mut self, index: u64, cv: ChainingValue) {
        if let Some(held @ Held::Zero(_)) = self.slot(index) {
            *held = Held::Zero(Some(cv));
        }
    }

    fn slot(&mut self, index: u64) -> Option<&mut Held> {
        let leaf = index / FAN_OUT;
        if self.done.contains_key(&leaf) {
            return None;
        }
        debug_assert!(
            !self.spilled.contains_key(&leaf),
            "a spilled leaf is read back first"
        );
        let chunks = {
            let span = self.span(leaf);
            (span.end - span.start).div_ceil(self.chunking.chunk_bytes.into()) as usize
        };
        self.clock += 1;
        let clock = self.clock;
        let open = self.open.entry(leaf).or_insert_with(|| OpenLeaf {
            slots: vec![Held::Empty; chunks],
            unsettled: chunks,
            touched: 0,
        });
        open.touched = clock;
        open.slots.get_mut((index % FAN_OUT) as usize)
    }

    fn hold(&mut self, index: u64, held: Held) {
        let Some(slot) = self.slot(index) else { return };
        let settled = matches!(slot, Held::Zero(_) | Held::Whole(..));
        if !matches!((&slot, &held), (Held::Zero(_), Held::Zero(None))) {
            *slot = held;
        }
        if !settled && let Some(open) = self.open.get_mut(&(index / FAN_OUT)) {
            open.unsettled -= 1;
        }
    }

    fn hold_piece(&mut self, offset: u64, len: u32, key: Option<Key>) {
        let chunk_bytes = u64::from(self.chunking.chunk_bytes);
        let Some(slot) = self.slot(offset / chunk_bytes) else {
            return;
        };
        let piece = Piece {
            offset: (offset % chunk_bytes) as u32,
            len,
            key,
        };
        let end = piece.offset + len;
        let pieces = match slot {
            Held::Zero(_) | Held::Whole(..) => return,
            Held::Empty => {
                *slot = Held::Pieces(vec![piece]);
                return;
            }
            Held::Pieces(pieces) => pieces,
        };
        // A piece folded twice, or one that joins others, replaces what it covers.
        if pieces
            .iter()
            .any(|old| old.offset <= piece.offset && old.offset + old.len >= end && *old != piece)
        {
            return;
        }
        pieces.retain(|old| old.offset < piece.offset || old.offset + old.len > end);
        let at = pieces.partition_point(|old| old.offset < piece.offset);
        pieces.insert(at, piece);
    }

    /// Whether every chunk of the leaf is whole or zero.
    pub fn is_complete(&self, leaf: u64) -> bool {
        let settled = |open: &OpenLeaf| open.unsettled == 0;
        self.done.contains_key(&leaf) || self.open.get(&leaf).is_some_and(settled)
    }

    /// The open leaf touched longest ago, if there are more than `max`.
    pub fn to_spill(&self, max: usize) -> Option<u64> {
        if self.open.len() <= max {
            return None;
        }
        self.open
            .iter()
            .min_by_key(|(_, open)| open.touched)
            .map(|(leaf, _)| *leaf)
    }

    /// The entries that make an open leaf what it is.
    pub fn entries_of(&self, leaf: u64) -> Vec<Entry> {
        let Some(open) = self.open.get(&leaf) else {
            return Vec::new();
        };
        let chunk_bytes = u64::from(self.chunking.chunk_bytes);
        let mut entries = Vec::new();
        for (at, held) in open.slots.iter().enumerate() {
            let index = leaf * FAN_OUT + at as u64;
            match held {
                Held::Empty => {}
                Held::Zero(_) => entries.push(Entry::ZeroChunks {
                    first: index,
                    count: 1,
                    latency_us: 0,
                }),
                Held::Whole(key, cv) => entries.push(Entry::Chunk {
                    index,
                    latency_us: 0,
                    key: *key,
                    cv: *cv,
                }),
                Held::Pieces(pieces) => entries.extend(
                    pieces
                        .iter()
                        .map(|piece| piece.entry(index * chunk_bytes + u64::from(piece.offset))),
                ),
            }
        }
        entries
    }

    /// Drops a leaf that was spilled to this place.
    pub fn spilled(&mut self, leaf: u64, place: (BlockId, u32)) {
        self.open.remove(&leaf);
        self.spilled.insert(leaf, place);
    }

    /// Takes an open leaf out.
    pub fn take(&mut self, leaf: u64) -> Option<OpenLeaf> {
        self.open.remove(&leaf)
    }

    /// A stored leaf.
    pub fn done_leaf(&self, leaf: u64) -> Option<&DoneLeaf> {
        self.done.get(&leaf)
    }

    /// The chunks of an open leaf as the manifest has them, and the leaf's part of the
    /// image's digest, once every chunk is whole or zero.
    pub fn settled(&self, leaf: u64) -> Option<(Vec<Slot>, ChainingValue)> {
        let open = self.open.get(&leaf).filter(|open| open.unsettled == 0)?;
        let first = leaf * FAN_OUT;
        let chunk_bytes = u64::from(self.chunking.chunk_bytes);
        let mut slots = Vec::with_capacity(open.slots.len());
        let mut cvs = Vec::with_capacity(open.slots.len());
        for (at, held) in open.slots.iter().enumerate() {
            match held {
                Held::Whole(key, cv) => {
                    slots.push(Slot::Whole(*key));
                    cvs.push(*cv);
                }
                Held::Zero(cv) => {
                    slots.push(Slot::Zero);
                    cvs.push(cv.unwrap_or_else(|| {
                        self.chunking.zero_cv((first + at as u64) * chunk_bytes)
                    }));
                }
                Held::Empty | Held::Pieces(_) => return None,
            }
        }
        let cv = self.leaf_cv(leaf, &cvs);
        Some((slots, cv))
    }

    /// A leaf's part of the image's digest from its chunks'; the digest itself if
    /// the image is one leaf.
    pub fn leaf_cv(&self, leaf: u64, cvs: &[ChainingValue]) -> ChainingValue {
        let span = self.span(leaf);
        let len = span.end - span.start;
        if self.count() == 1 && cvs.len() > 1 {
            return *imagehash::root(cvs, self.chunking.chunk_bytes.into(), len).as_bytes();
        }
        imagehash::merge(cvs, self.chunking.chunk_bytes.into(), len)
    }

    /// The image's digest from all leaves'.
    pub fn image_digest(&self, cvs: &[ChainingValue]) -> [u8; 32] {
        match cvs {
            [] => *blake3::hash(&[]).as_bytes(),
            [only] => *only,
            _ => *imagehash::root(
                cvs,
                leaf_span(self.chunking.chunk_bytes),
                self.chunking.size,
            )
            .as_bytes(),
        }
    }
}
