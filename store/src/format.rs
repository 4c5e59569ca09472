//! Every magic, version, tag, offset and ceiling of the on-disk format.
//!
//! `docs/FORMAT.md` explains them; a test compares its tables with this file.
//! All integers are little-endian. Offsets derive from the field before, sizes
//! are pinned by the total that each layout states. A length read from disk is
//! checked against its ceiling here before anything is allocated for it.

/// Version written into every header. A reader refuses a newer one.
pub const FORMAT_VERSION: u16 = 1;

/// Magic of a block file's header.
pub const BLOCK_MAGIC: [u8; 8] = *b"ASLBLOCK";
/// Magic of a block file's trailer.
pub const TRAILER_MAGIC: [u8; 8] = *b"ASLBLEND";
/// Magic of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"FRM1";
/// Magic of a log file's header.
pub const LOG_MAGIC: [u8; 8] = *b"ASLLOGv1";
/// Magic of a log record.
pub const RECORD_MAGIC: [u8; 4] = *b"REC1";
/// Magic of an index segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"ASLINDEX";
/// Magic of a shard's filter file.
pub const FILTER_MAGIC: [u8; 8] = *b"ASLFILTR";
/// Magic of a snapshot's state file.
pub const STATE_MAGIC: [u8; 8] = *b"ASLSTATE";
/// Magic of the log hint `log/current`.
pub const CURRENT_MAGIC: [u8; 8] = *b"ASLCURNT";
/// First bytes of a tree node artifact.
pub const NODE_MAGIC: [u8; 8] = *b"ASLNODE1";

/// Context of the block digest (BLAKE3 `derive_key`).
pub const CONTEXT_BLOCK: &str = "asl v1 block digest";
/// Context of the salt of a block's frames.
pub const CONTEXT_FRAME_SALT: &str = "asl v1 frame salt";
/// Context of the log's hash chain.
pub const CONTEXT_CHAIN: &str = "asl v1 log chain";
/// Context of the chain's first value.
pub const CONTEXT_GENESIS: &str = "asl v1 log genesis";
/// Context of an index segment's digest.
pub const CONTEXT_SEGMENT: &str = "asl v1 segment digest";
/// Context of a snapshot's id.
pub const CONTEXT_SNAPSHOT: &str = "asl v1 snapshot id";
/// Context of the digest of a snapshot's state file.
pub const CONTEXT_STATE: &str = "asl v1 state digest";
/// Derives the content root from what is visible.
pub const CONTEXT_CONTENT: &str = "asl v1 content root";

/// Artifact keys are plain BLAKE3-256 of the artifact's bytes.
pub const KEY_ALGORITHM_BLAKE3: u8 = 1;

/// A block of artifacts below the small threshold, with notes.
pub const CLASS_PACKED: u8 = 1;
/// A block of exactly one artifact at or above the small threshold.
pub const CLASS_LARGE: u8 = 2;

/// Trailer flag: sealed by salvage, not by the block's writer.
pub const TRAILER_SALVAGED: u32 = 1;

/// A frame that holds an artifact.
pub const FRAME_ARTIFACT: u8 = 1;
/// A frame that holds a note: opaque to the store, typed by who writes it.
pub const FRAME_NOTE: u8 = 2;

/// The stored bytes are the artifact's bytes.
pub const ENCODING_RAW: u8 = 0;
/// The stored bytes are one zstd frame (RFC 8878) of the artifact's bytes.
pub const ENCODING_ZSTD: u8 = 1;
/// The stored bytes list the artifacts whose concatenation is the artifact.
pub const ENCODING_CHUNKED: u8 = 2;

/// Frame and index flag: put or captured by somebody, not merely referred to.
pub const FLAG_ROOT: u16 = 1;
/// Frame and index flag: a tree node (`ASLNODE1`), whose children are reachable through it.
pub const FLAG_NODE: u16 = 2;
/// Index flag: the key is hidden from here on.
pub const FLAG_TOMBSTONE: u16 = 0x8000;

/// Note type: a batch of tombstones, and how long the log was then.
pub const NOTE_TOMBSTONES: u32 = 1;
/// Note type: a record of authority, and how long the log was then.
pub const NOTE_AUTHORITY: u32 = 2;
/// Note type: keys that another instance shows and that were removed; as in a record of that.
pub const NOTE_REMOVED: u32 = 3;
/// Note type: a session's record, and how long the log was then.
pub const NOTE_SESSION_RECORD: u32 = 4;
/// Note type: what a capture session is (JSON).
pub const NOTE_SESSION: u32 = 16;
/// Note type: outcomes of reads and the chunks they became.
pub const NOTE_MAP: u32 = 17;
/// Note type: the state of an unfinished manifest leaf.
pub const NOTE_LEAF: u32 = 18;

/// Tree node: describes chunks of an image. Kinds below 16 belong to captures.
pub const NODE_LEAF: u32 = 1;
/// Tree node: children are leaves or inner nodes.
pub const NODE_INNER: u32 = 2;
/// Tree node: the root of a capture.
pub const NODE_CAPTURE: u32 = 3;
/// `format` member of a capture's description.
pub const CAPTURE_FORMAT: &str = "asl-capture-1";
/// Chunks in a leaf and children of an inner node; the last of each may have fewer.
pub const TREE_FAN_OUT: u64 = 1024;

/// Chunk in a leaf: read, all zeros.
pub const CHUNK_ZERO: u8 = 0;
/// Chunk in a leaf: one artifact.
pub const CHUNK_WHOLE: u8 = 1;
/// Chunk in a leaf: fragments.
pub const CHUNK_FRAGMENTS: u8 = 2;

/// Fragment of a chunk: read, all zeros.
pub const FRAGMENT_ZERO: u8 = 0;
/// Fragment of a chunk: an artifact.
pub const FRAGMENT_DATA: u8 = 1;
/// Fragment of a chunk: the device failed to deliver it.
pub const FRAGMENT_UNREADABLE: u8 = 2;
/// Fragment of a chunk: never read.
pub const FRAGMENT_UNTRIED: u8 = 3;

/// Flag of a node's child: something below is unreadable.
pub const CHILD_UNREADABLE: u8 = 1;
/// Flag of a node's child: something below was never read.
pub const CHILD_UNTRIED: u8 = 2;
/// Flag of a node's child: everything below is zero.
pub const CHILD_ALL_ZERO: u8 = 4;

/// Entry of a map note: a chunk was read.
pub const MAP_CHUNK: u8 = 1;
/// Entry of a map note: chunks were read and are zero.
pub const MAP_ZERO_CHUNKS: u8 = 2;
/// Entry of a map note: a piece of a chunk was read.
pub const MAP_PIECE: u8 = 3;
/// Entry of a map note: a piece of a chunk was read and is zero.
pub const MAP_ZERO_PIECE: u8 = 4;
/// Entry of a map note: a read failed.
pub const MAP_FAILURE: u8 = 5;
/// Entry of a map note: a manifest leaf is done.
pub const MAP_LEAF_DONE: u8 = 6;
/// Entry of a map note: counters of the session.
pub const MAP_COUNTERS: u8 = 7;
/// Entry of a map note: the first bytes of the source.
pub const MAP_FINGERPRINT: u8 = 8;

/// Record type: first record of a store, its parameters.
pub const RECORD_CREATED: u16 = 1;
/// Record type: a lease of block ids to a writer.
pub const RECORD_LEASE: u16 = 2;
/// Record type: a sealed block, which its table of contents makes visible.
pub const RECORD_SEAL: u16 = 3;
/// Record type: index entries given in the log itself.
pub const RECORD_INDEX_ADD: u16 = 4;
/// Record type: keys hidden from here on.
pub const RECORD_TOMBSTONE: u16 = 5;
/// Record type: index segments sealed and retired.
pub const RECORD_SEGMENTS: u16 = 6;
/// Record type: a snapshot.
pub const RECORD_SNAPSHOT: u16 = 7;
/// Record type: a client's session began, paused, finished.
pub const RECORD_SESSION: u16 = 8;
/// Record type: an authority manifest of a domain.
pub const RECORD_DAM: u16 = 10;
/// Record type: a policy of a domain.
pub const RECORD_POLICY: u16 = 11;
/// Record type: what a witness agreed to.
pub const RECORD_WITNESS: u16 = 12;
/// Record type: a signed head of the log.
pub const RECORD_CHECKPOINT: u16 = 13;
/// Record type: a receipt.
pub const RECORD_RECEIPT: u16 = 14;
/// Record type: a link between two domains.
pub const RECORD_LINEAGE: u16 = 15;
/// Record type: where this instance is written.
pub const RECORD_HOME: u16 = 16;
/// Record type: what another instance said about keys counts no more.
pub const RECORD_REMOVED: u16 = 17;
/// Record type: the log had lost records, and what follows was told from blocks.
pub const RECORD_EPOCH: u16 = 18;
/// Record types 9 and 19 to 31 are reserved: unpin; condemn, delete, damage.
pub const RECORD_RESERVED_LAST: u16 = 31;

/// Record flag: a reader that does not know the type must stop.
pub const RECORD_CRITICAL: u16 = 1;
/// Record flag: part of the same append (one write, one sync) as the record before.
pub const RECORD_CONTINUES: u16 = 2;

/// Why keys were hidden: a user asked for it.
pub const REASON_USER: u32 = 0;
/// Why keys were hidden: they belong to a capture that was forgotten.
pub const REASON_FORGET: u32 = 1;

/// Session kinds in a session record.
pub const SESSION_BEGUN: u8 = 1;
/// Stopped early; what was read is reachable from the root; may be resumed.
pub const SESSION_PAUSED: u8 = 2;
/// Everything that can be done was done.
pub const SESSION_FINISHED: u8 = 3;
/// Given up by the user.
pub const SESSION_ABANDONED: u8 = 4;

/// How a block came to be sealed: by its writer.
pub const ORIGIN_WRITTEN: u8 = 0;
/// From an open block that a dead writer left.
pub const ORIGIN_SALVAGED: u8 = 1;
/// Sealed before a crash, its record written after it.
pub const ORIGIN_RELOGGED: u8 = 2;
/// Copied from another store.
pub const ORIGIN_IMPORTED: u8 = 3;

/// Filter kind: a split block Bloom filter.
pub const FILTER_SPLIT_BLOCK: u16 = 1;

/// Frames, records and tables start at multiples of this many bytes.
pub const ALIGNMENT: usize = 8;
/// No file of a store is longer (FAT32 ends just below 4 GiB; ext2 at small block sizes earlier).
pub const FILE_LEN_MAX: u64 = 2 << 30;
/// Longest stored payload of one frame.
pub const FRAME_STORED_MAX: u32 = 1 << 30;
/// Longest payload of a log record.
pub const RECORD_PAYLOAD_MAX: u32 = 16 << 20;
/// Most frames in one block.
pub const BLOCK_FRAMES_MAX: u32 = 4 << 20;
/// Most children of one tree node or chunk list.
pub const NODE_CHILDREN_MAX: u32 = 1 << 20;
/// Deepest nesting of chunk lists and tree nodes.
pub const TREE_DEPTH_MAX: usize = 16;
/// Longest tree node artifact.
pub const NODE_LEN_MAX: u64 = 128 << 20;
/// Longest artifact that is a chunk list.
pub const CHUNKED_LEN_MAX: u64 = 1 << 56;
/// Fewest bytes of a chunk of an image.
pub const CHUNK_BYTES_MIN: u32 = 1024;
/// Most bytes of a chunk of an image.
pub const CHUNK_BYTES_MAX: u32 = 64 << 20;
/// Bytes of one page of an index segment.
pub const PAGE_LEN: usize = 4096;
/// Index records in one page.
pub const PAGE_RECORDS: usize = 63;
/// Most bits of a segment's fan-out table.
pub const FANOUT_BITS_MAX: u32 = 24;
/// Fewest and most shards of an index.
pub const SHARDS_MAX: u32 = 4096;
/// Longest body of a session record.
pub const SESSION_BODY_MAX: u32 = 64 << 10;
/// Most artifacts that a record of authority names.
pub const AUTHORITY_KEYS_MAX: u32 = 256;
/// Longest name of a home, in bytes of UTF-8.
pub const HOME_MAX: u32 = 128;
/// Longest label of a snapshot, in bytes of UTF-8.
pub const LABEL_MAX: u32 = 256;

/// One field of a fixed layout: `len` bytes at `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name, as `docs/FORMAT.md` spells it (there in lower case).
    pub name: &'static str,
    /// Bytes from the start of the structure.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Field {
    /// The field's bytes within its structure.
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.offset..self.offset + self.len]
    }
    /// The field as an array.
    pub fn array<const N: usize>(self, buf: &[u8]) -> [u8; N] {
        self.of(buf).try_into().expect("layouts pin the length")
    }
    /// The field as an unsigned number.
    pub fn get(self, buf: &[u8]) -> u64 {
        debug_assert!(self.len <= 8);
        let mut wide = [0; 8];
        wide[..self.len].copy_from_slice(self.of(buf));
        u64::from_le_bytes(wide)
    }
    /// The field as a `u32`; only for fields of at most four bytes.
    pub fn u32(self, buf: &[u8]) -> u32 {
        debug_assert!(self.len <= 4);
        self.get(buf) as u32
    }
    /// The field as a `u16`; only for fields of at most two bytes.
    pub fn u16(self, buf: &[u8]) -> u16 {
        debug_assert!(self.len <= 2);
        self.get(buf) as u16
    }
    /// The field as a `u8`; only for fields of one byte.
    pub fn u8(self, buf: &[u8]) -> u8 {
        buf[self.offset]
    }
    /// Writes bytes of exactly the field's length.
    pub fn put(self, buf: &mut [u8], bytes: &[u8]) {
        buf[self.offset..self.offset + self.len].copy_from_slice(bytes);
    }
    /// Writes a number.
    pub fn set(self, buf: &mut [u8], value: impl Into<u64>) {
        let value = value.into();
        debug_assert!(self.len >= 8 || value < 1 << (8 * self.len));
        self.put(buf, &value.to_le_bytes()[..self.len]);
    }
}

/// Declares a fixed layout: a module with one [`Field`] each, `LEN` and `FIELDS`.
macro_rules! layout {
    (@fields $end:expr;) => {
        /// Length of the structure in bytes.
        pub const LEN: usize = $end;
    };
    (@fields $start:expr; $field:ident $len:literal, $($rest:tt)*) => {
        #[allow(missing_docs)]
        pub const $field: Field = Field { name: stringify!($field), offset: $start, len: $len };
        layout!(@fields $field.offset + $field.len; $($rest)*);
    };
    ($(#[$doc:meta])* $module:ident $total:literal { $($field:ident $len:literal,)* }) => {
        $(#[$doc])*
        pub mod $module {
            use super::Field;
            layout!(@fields 0; $($field $len,)*);
            /// All fields, in order.
            pub const FIELDS: &[Field] = &[$($field),*];
            const _: () = assert!(LEN == $total);
        }
    };
}

layout! {
    /// Header of a block file.
    block_header 256 {
        MAGIC 8, VERSION 2, CLASS 1, KEY_ALGORITHM 1, FLAGS 4,
        STORE_ID 16, BLOCK_ID 8, SESSION 16, WRITER 16, BASE_POSITION 8, CREATED 8,
        SMALL_THRESHOLD 8, BOOT_ID 16, PID 4, PAD 4, START_TIME 8,
        ENCRYPTION 96, RESERVED 28, CRC 4,
    }
}

layout! {
    /// Header of a frame.
    frame_header 104 {
        MAGIC 4, KIND 1, ENCODING 1, FLAGS 2, NOTE_TYPE 4, STORED_LEN 4,
        RAW_LEN 8, KEY 32, CHECK 32, SALT 12, CRC 4,
    }
}

layout! {
    /// Entry of a block's table of contents: a frame header whose magic became the offset.
    toc_entry 88 {
        OFFSET 4, KIND 1, ENCODING 1, FLAGS 2, NOTE_TYPE 4, STORED_LEN 4,
        RAW_LEN 8, KEY 32, CHECK 32,
    }
}

layout! {
    /// Trailer of a sealed block file: its last bytes.
    block_trailer 96 {
        MAGIC 8, FRAME_COUNT 4, FLAGS 4, TOC_OFFSET 8, FILE_LEN 8,
        ARTIFACT_BYTES 8, DIGEST 32, RESERVED 20, CRC 4,
    }
}

layout! {
    /// Header of a log file.
    log_header 128 {
        MAGIC 8, VERSION 2, PAD 2, FLAGS 4, STORE_ID 16, FIRST_POSITION 8, PREV_CHAIN 32,
        PREV_FIRST_POSITION 8, PREV_GENERATION 4, GENERATION 4, PREV_VALID_LEN 8,
        NONCE 16, CREATED 8, RESERVED 4, CRC 4,
    }
}

layout! {
    /// Head of a log record; the padded payload and the tail follow.
    record_head 32 {
        MAGIC 4, TYPE 2, FLAGS 2, POSITION 8, PAYLOAD_LEN 4, SALT 4, TIME 8,
    }
}

layout! {
    /// Tail of a log record.
    record_tail 40 {
        CHAIN 32, CRC 4, PAD 4,
    }
}

layout! {
    /// Payload of the first record of a store.
    created_payload 72 {
        VERSION 2, KEY_ALGORITHM 1, PAD 1, SHARDS 4, BLOCK_SIZE 8, LARGE_SIZE 8,
        SMALL_THRESHOLD 8, PACKED_MAX 4, FLAGS 4, STORE_ID 16, RESERVED 16,
    }
}

layout! {
    /// Payload of a lease record.
    lease_payload 64 {
        FIRST_ID 8, COUNT 8, WRITER 16, BOOT_ID 16, PID 4, PAD 4, START_TIME 8,
    }
}

layout! {
    /// Payload of a seal record.
    seal_payload 96 {
        BLOCK_ID 8, DIGEST 32, FILE_LEN 8, FRAME_COUNT 4, ARTIFACT_COUNT 4, CLASS 1, ORIGIN 1,
        PAD 6, SESSION 16, ARTIFACT_BYTES 8, RESERVED 8,
    }
}

layout! {
    /// Head of an index-add payload; the index records follow.
    index_add_payload 8 { COUNT 4, PAD 4, }
}

layout! {
    /// Head of a tombstone payload; the keys follow.
    tombstone_payload 16 { COUNT 4, REASON 4, BLOCK_ID 8, }
}

layout! {
    /// Head of a segments payload; the added, then the removed ones follow.
    segments_payload 16 { COVERS 8, ADDED 4, REMOVED 4, }
}

layout! {
    /// A segment that a segments record adds.
    segment_added 48 { SHARD 4, NUMBER 4, ENTRIES 8, DIGEST 32, }
}

layout! {
    /// A segment that a segments record retires.
    segment_removed 8 { SHARD 4, NUMBER 4, }
}

layout! {
    /// Head of a snapshot payload; the label follows.
    snapshot_payload 48 { ORDINAL 8, STATE_DIGEST 32, LABEL_LEN 4, PAD 4, }
}

layout! {
    /// Head of a session payload; the body follows.
    session_payload 64 { SESSION 16, KIND 1, PAD 7, ROOT 32, BODY_LEN 4, RESERVED 4, }
}

layout! {
    /// Head of the payload of a record of authority; the artifacts' keys follow.
    authority_payload 8 { COUNT 2, PAD 6, }
}

layout! {
    /// Head of the payload of a home record; the name follows.
    home_payload 8 { BYTES 4, PAD 4, }
}

layout! {
    /// Head of the payload of a removal, and of a note of one (`NOTE_REMOVED`); the keys follow.
    removed_payload 32 { STORE 16, POSITION 8, COUNT 4, PAD 4, }
}

layout! {
    /// Payload of an epoch record.
    epoch_payload 32 { FROM 8, REMEMBERED 8, RESERVED 16, }
}

layout! {
    /// Header of an index segment; the fan-out table and the pages follow.
    segment_header 128 {
        MAGIC 8, VERSION 2, PAD 2, SHARD 4, SHARDS 4, NUMBER 4, STORE_ID 16, ENTRIES 8,
        COVERS 8, FANOUT_BITS 4, FANOUT_CRC 4, PAGES_OFFSET 8, RESERVED 52, CRC 4,
    }
}

layout! {
    /// One index record.
    index_record 64 {
        KEY 32, BLOCK_ID 8, OFFSET 4, STORED_LEN 4, RAW_LEN 8, FLAGS 2, ENCODING 1, PAD 1, RESERVED 4,
    }
}

layout! {
    /// Foot of a page of an index segment.
    page_foot 64 { PAGE 4, COUNT 4, RESERVED 52, CRC 4, }
}

layout! {
    /// Header of a shard's filter file (a cache).
    filter_header 32 { MAGIC 8, VERSION 2, KIND 2, SHARD 4, COUNT 4, RESERVED 4, BODY_CRC 4, CRC 4, }
}

layout! {
    /// One segment's filter in a filter file; the filters' bits follow the last of these.
    filter_entry 40 { NUMBER 4, BLOCKS 4, DIGEST 32, }
}

layout! {
    /// The log hint `log/current` (a cache).
    current_hint 96 {
        MAGIC 8, VERSION 2, PAD 2, GENERATION 4, FIRST_POSITION 8, POSITION 8, VALID_LEN 8,
        CHAIN 32, SNAPSHOT 8, RESERVED 12, CRC 4,
    }
}

layout! {
    /// Head of a tree node artifact; the children's keys and the body follow.
    node_head 16 { MAGIC 8, KIND 4, CHILDREN 4, }
}

layout! {
    /// Head of a note of tombstones (`NOTE_TOMBSTONES`); the keys follow.
    tombstones_note 8 { POSITION 8, }
}

layout! {
    /// Head of a note of authority (`NOTE_AUTHORITY`); the keys follow.
    authority_note 16 { POSITION 8, TYPE 2, PAD 6, }
}

layout! {
    /// Head of a note of a session's record (`NOTE_SESSION_RECORD`); the record's payload follows.
    session_note 8 { POSITION 8, }
}

layout! {
    /// One entry of a chunk list (`ENCODING_CHUNKED`).
    chunk_entry 40 { KEY 32, BYTES 8, }
}

const _: () = assert!(PAGE_RECORDS * index_record::LEN + page_foot::LEN == PAGE_LEN);
const _: () = assert!(
    frame_header::LEN.is_multiple_of(ALIGNMENT) && record_head::LEN.is_multiple_of(ALIGNMENT)
);

/// Every layout by the name that `docs/FORMAT.md` gives it.
pub const LAYOUTS: &[(&str, &[Field])] = &[
    ("block_header", block_header::FIELDS),
    ("frame_header", frame_header::FIELDS),
    ("toc_entry", toc_entry::FIELDS),
    ("block_trailer", block_trailer::FIELDS),
    ("log_header", log_header::FIELDS),
    ("record_head", record_head::FIELDS),
    ("record_tail", record_tail::FIELDS),
    ("created_payload", created_payload::FIELDS),
    ("lease_payload", lease_payload::FIELDS),
    ("seal_payload", seal_payload::FIELDS),
    ("index_add_payload", index_add_payload::FIELDS),
    ("tombstone_payload", tombstone_payload::FIELDS),
    ("segments_payload", segments_payload::FIELDS),
    ("segment_added", segment_added::FIELDS),
    ("segment_removed", segment_removed::FIELDS),
    ("snapshot_payload", snapshot_payload::FIELDS),
    ("session_payload", session_payload::FIELDS),
    ("authority_payload", authority_payload::FIELDS),
    ("home_payload", home_payload::FIELDS),
    ("removed_payload", removed_payload::FIELDS),
    ("epoch_payload", epoch_payload::FIELDS),
    ("segment_header", segment_header::FIELDS),
    ("index_record", index_record::FIELDS),
    ("page_foot", page_foot::FIELDS),
    ("filter_header", filter_header::FIELDS),
    ("filter_entry", filter_entry::FIELDS),
    ("current_hint", current_hint::FIELDS),
    ("node_head", node_head::FIELDS),
    ("tombstones_note", tombstones_note::FIELDS),
    ("authority_note", authority_note::FIELDS),
    ("session_note", session_note::FIELDS),
    ("chunk_entry", chunk_entry::FIELDS),
];

/// Rounds up to a multiple of [`ALIGNMENT`].
pub const fn padded(len: u64) -> u64 {
    len.next_multiple_of(ALIGNMENT as u64)
}
