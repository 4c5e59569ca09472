//! Map notes: what each read gave, beside the data in the same block.
//!
//! One sync makes data and map durable together. The map, the manifest's
//! unfinished leaves and the counters are folds over these entries in the order
//! they were written; nothing else needs to be kept for a resume.
//!
//! A note is the session's id, a sequence number, then entries. Folding an entry
//! twice changes nothing, so a note that an evacuated block holds a second time
//! does no harm.

use asl_store::{Key, SessionId, format};

use crate::fields::Fields;
use crate::imagehash::ChainingValue;

/// One entry. Offsets and lengths are bytes of the source, latencies microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A whole chunk was read and is stored.
    Chunk {
        /// Its number: offset divided by the chunk size.
        index: u64,
        /// How long the read took.
        latency_us: u32,
        /// Its artifact.
        key: Key,
        /// Its subtree of the image's digest.
        cv: ChainingValue,
    },
    /// Whole chunks were read and hold only zeros.
    ZeroChunks {
        /// The first one's number.
        first: u64,
        /// How many.
        count: u32,
        /// How long the read took.
        latency_us: u32,
    },
    /// Part of one chunk was read and is stored.
    Piece {
        /// Where.
        offset: u64,
        /// How much.
        len: u32,
        /// How long the read took.
        latency_us: u32,
        /// Its artifact.
        key: Key,
    },
    /// Part of one chunk was read and holds only zeros.
    ZeroPiece {
        /// Where.
        offset: u64,
        /// How much.
        len: u32,
        /// How long the read took.
        latency_us: u32,
    },
    /// The medium refused a read.
    Failure {
        /// Where.
        offset: u64,
        /// How much was asked for.
        len: u64,
        /// What it said.
        errno: i32,
        /// How long the read took.
        latency_us: u32,
    },
    /// A manifest leaf is complete and stored.
    LeafDone {
        /// Its number.
        index: u64,
        /// What it contains; see `manifest::ChildFlags`.
        flags: u8,
        /// Its artifact.
        key: Key,
        /// Its subtree of the image's digest.
        cv: ChainingValue,
    },
    /// Totals of the session so far.
    Counters(Counters),
    /// The first bytes that could be read: tells the source apart where it has no serial.
    Fingerprint {
        /// Where.
        offset: u64,
        /// How much.
        len: u32,
        /// BLAKE3 of it.
        digest: [u8; 32],
    },
}

/// Totals of a session over all its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Reads of the source.
    pub reads: u64,
    /// Of these, failed.
    pub read_errors: u64,
    /// Of these, too slow.
    pub slow_reads: u64,
    /// Time spent, in nanoseconds.
    pub elapsed_ns: u64,
    /// Bytes of artifacts and notes that were not in the store before.
    pub new_bytes: u64,
    /// Bytes that these take in block files.
    pub stored_bytes: u64,
}

/// A note being filled.
pub struct NoteBuilder {
    session: SessionId,
    sequence: u64,
    body: Vec<u8>,
}

const HEAD: usize = 24;

impl NoteBuilder {
    /// An empty note.
    pub fn new(session: SessionId, sequence: u64) -> Self {
        Self {
            session,
            sequence,
            body: Vec::new(),
        }
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Its length so far in bytes.
    pub fn len(&self) -> usize {
        HEAD + self.body.len()
    }

    /// Takes the note's bytes and begins the next one.
    pub fn take(&mut self) -> Vec<u8> {
        let mut note = Vec::with_capacity(self.len());
        note.extend_from_slice(&self.session.0);
        note.extend_from_slice(&self.sequence.to_le_bytes());
        note.append(&mut self.body);
        self.sequence += 1;
        note
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: &Entry) {
        let out = &mut self.body;
        let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
        match entry {
            Entry::Chunk {
                index,
                latency_us,
                key,
                cv,
            } => {
                put(&[format::MAP_CHUNK]);
                put(&index.to_le_bytes());
                put(&latency_us.to_le_bytes());
                put(&key.0);
                put(cv);
            }
            Entry::ZeroChunks {
                first,
                count,
                latency_us,
            } => {
                put(&[format::MAP_ZERO_CHUNKS]);
                put(&first.to_le_bytes());
                put(&count.to_le_bytes());
                put(&latency_us.to_le_bytes());
            }
            Entry::Piece {
                offset,
                len,
                latency_us,
                key,
            } => {
                put(&[format::MAP_PIECE]);
                put(&offset.to_le_bytes());
                put(&len.to_le_bytes());
                put(&latency_us.to_le_bytes());
                put(&key.0);
            }
            Entry::ZeroPiece {
                offset,
                len,
                latency_us,
            } => {
                put(&[format::MAP_ZERO_PIECE]);
                put(&offset.to_le_bytes());
                put(&len.to_le_bytes());
                put(&latency_us.to_le_bytes());
            }
            Entry::Failure {
                offset,
                len,
                errno,
                latency_us,
            } => {
                put(&[format::MAP_FAILURE]);
                put(&offset.to_le_bytes());
                put(&len.to_le_bytes());
                put(&errno.to_le_bytes());
                put(&latency_us.to_le_bytes());
            }
            Entry::LeafDone {
                index,
                flags,
                key,
                cv,
            } => {
                put(&[format::MAP_LEAF_DONE, *flags]);
                put(&index.to_le_bytes());
                put(&key.0);
                put(cv);
            }
            Entry::Counters(c) => {
                put(&[format::MAP_COUNTERS]);
                for value in [
                    c.reads,
                    c.read_errors,
                    c.slow_reads,
                    c.elapsed_ns,
                    c.new_bytes,
                    c.stored_bytes,
                ] {
                    put(&value.to_le_bytes());
                }
            }
            Entry::Fingerprint {
                offset,
                len,
                digest,
            } => {
                put(&[format::MAP_FINGERPRINT]);
                put(&offset.to_le_bytes());
                put(&len.to_le_bytes());
                put(digest);
            }
        }
    }
}

/// A note's session and sequence number, and its entries; `None` where it does not
/// parse to its end.
pub fn parse(note: &[u8]) -> Option<(SessionId, u64, Vec<Entry>)> {
    let mut reader = Fields { rest: note };
    let session = SessionId(reader.array()?);
    let sequence = reader.u64()?;
    let mut entries = Vec::new();
    while !reader.rest.is_empty() {
        entries.push(reader.entry()?);
    }
    Some((session, sequence, entries))
}

impl Fields<'_> {
    fn entry(&mut self) -> Option<Entry> {
        Some(match self.u8()? {
            format::MAP_CHUNK => Entry::Chunk {
                index: self.u64()?,
                latency_us: self.u32()?,
                key: self.key()?,
                cv: self.array()?,
            },
            format::MAP_ZERO_CHUNKS => Entry::ZeroChunks {
                first: self.u64()?,
                count: self.u32()?,
                latency_us: self.u32()?,
            },
            format::MAP_PIECE => Entry::Piece {
                offset: self.u64()?,
                len: self.u32()?,
                latency_us: self.u32()?,
                key: self.key()?,
            },
            format::MAP_ZERO_PIECE => Entry::ZeroPiece {
                offset: self.u64()?,
                len: self.u32()?,
                latency_us: self.u32()?,
            },
            format::MAP_FAILURE => Entry::Failure {
                offset: self.u64()?,
                len: self.u64()?,
                errno: self.u32()? as i32,
                latency_us: self.u32()?,
            },
            format::MAP_LEAF_DONE => Entry::LeafDone {
                flags: self.u8()?,
                index: self.u64()?,
                key: self.key()?,
                cv: self.array()?,
            },
            format::MAP_COUNTERS => Entry::Counters(Counters {
                reads: self.u64()?,
                read_errors: self.u64()?,
                slow_reads: self.u64()?,
                elapsed_ns: self.u64()?,
                new_bytes: self.u64()?,
                stored_bytes: self.u64()?,
            }),
            format::MAP_FINGERPRINT => Entry::Fingerprint {
                offset: self.u64()?,
                len: self.u32()?,
                digest: self.array()?,
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_round_trip_and_torn_ones_do_not_parse() {
        let entries = [
            Entry::Chunk {
                index: 9,
                latency_us: 8,
                key: Key([7; 32]),
                cv: [6; 32],
            },
            Entry::ZeroChunks {
                first: 1,
                count: 2,
                latency_us: 3,
            },
            Entry::Piece {
                offset: 1,
                len: 2,
                latency_us: 3,
                key: Key([4; 32]),
            },
            Entry::ZeroPiece {
                offset: 1,
                len: 2,
                latency_us: 3,
            },
            Entry::Failure {
                offset: 5,
                len: 6,
                errno: 61,
                latency_us: 7,
            },
            Entry::LeafDone {
                index: 4,
                flags: 3,
                key: Key([2; 32]),
                cv: [1; 32],
            },
            Entry::Counters(Counters {
                reads: 1,
                read_errors: 2,
                slow_reads: 3,
                elapsed_ns: 4,
                new_bytes: 5,
                stored_bytes: 6,
            }),
            Entry::Fingerprint {
                offset: 0,
                len: 512,
                digest: [9; 32],
            },
        ];
        let mut builder = NoteBuilder::new(SessionId([3; 16]), 41);
        let mut ends = vec![builder.len()];
        for entry in &entries {
            builder.push(entry);
            ends.push(builder.len());
        }
        let note = builder.take();
        assert_eq!(
            parse(&note),
            Some((SessionId([3; 16]), 41, entries.to_vec()))
        );
        for len in 0..note.len() {
            assert_eq!(
                parse(&note[..len]).is_some(),
                ends.contains(&len),
                "{len} bytes"
            );
        }
        assert_eq!(
            parse(&builder.take()).map(|(_, sequence, _)| sequence),
            Some(42)
        );
    }
}
