//! The manifest of a capture: a tree of nodes from image offsets to artifacts.
//!
//! A leaf covers up to 1024 chunks, an inner node up to 1024 nodes, so no size of
//! disk needs more than a few nodes in memory. A chunk is whole, zero, or
//! fragments, of which some may be unreadable (with the errno) or untried. Unread
//! is never zero. Leaves do not say where they stand, so equal stretches of
//! disk share them.

use std::ops::Range;

pub use asl_store::format::CAPTURE_FORMAT;
use asl_store::format::{
    self, CHUNK_FRAGMENTS, CHUNK_WHOLE, CHUNK_ZERO, FRAGMENT_DATA, FRAGMENT_UNREADABLE,
    FRAGMENT_UNTRIED, FRAGMENT_ZERO, NODE_CAPTURE, NODE_INNER, NODE_LEAF,
};
use asl_store::frame::{build_node, parse_node};
use asl_store::{Key, StoreHandle};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::fields::Fields;

/// Chunks in a leaf, and nodes in an inner node.
pub const FAN_OUT: u64 = format::TREE_FAN_OUT;

/// What a node contains; kept beside its key in the node above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChildFlags(pub u8);

impl ChildFlags {
    /// Something in it is unreadable.
    pub const UNREADABLE: u8 = format::CHILD_UNREADABLE;
    /// Something in it was never read.
    pub const UNTRIED: u8 = format::CHILD_UNTRIED;
    /// All of it is zero.
    pub const ALL_ZERO: u8 = format::CHILD_ALL_ZERO;
    /// Whether a flag is set.
    pub fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
    /// The flags of a node that contains these.
    pub fn join(children: impl IntoIterator<Item = ChildFlags>) -> Self {
        let mut any = 0;
        let mut all = Self::ALL_ZERO;
        for child in children {
            any |= child.0 & (Self::UNREADABLE | Self::UNTRIED);
            all &= child.0;
        }
        Self(any | all)
    }
}

/// A part of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Bytes from the start of the chunk.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
    /// What is there.
    pub content: Content,
}

/// What a range of the image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Zeros, as read.
    Zero,
    /// The bytes of an artifact.
    Data(Key),
    /// The medium refused it, with this errno.
    Unreadable(i32),
    /// It was never read.
    Untried,
}

/// A chunk in a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// All of it is zero.
    Zero,
    /// All of it is this artifact.
    Whole(Key),
    /// Parts that cover it in order.
    Fragments(Vec<Fragment>),
}

impl Slot {
    fn flags(&self) -> ChildFlags {
        match self {
            Slot::Zero => ChildFlags(ChildFlags::ALL_ZERO),
            Slot::Whole(_) => ChildFlags(0),
            Slot::Fragments(fragments) => {
                ChildFlags(fragments.iter().fold(0, |flags, fragment| {
                    flags
                        | match fragment.content {
                            Content::Unreadable(_) => ChildFlags::UNREADABLE,
                            Content::Untried => ChildFlags::UNTRIED,
                            _ => 0,
                        }
                }))
            }
        }
    }
}

/// The flags of a leaf of these slots.
pub fn leaf_flags(slots: &[Slot]) -> ChildFlags {
    ChildFlags::join(slots.iter().map(Slot::flags))
}

/// The artifact of a leaf.
pub fn encode_leaf(chunk_bytes: u32, slots: &[Slot]) -> Vec<u8> {
    let mut children: Vec<Key> = Vec::new();
    let mut known = std::collections::HashMap::new();
    let mut child = |key: &Key| {
        *known.entry(*key).or_insert_with(|| {
            children.push(*key);
            children.len() as u32 - 1
        })
    };
    let mut body = Vec::new();
    body.extend_from_slice(&chunk_bytes.to_le_bytes());
    body.extend_from_slice(&(slots.len() as u32).to_le_bytes());
    for slot in slots {
        match slot {
            Slot::Zero => body.push(CHUNK_ZERO),
            Slot::Whole(key) => {
                body.push(CHUNK_WHOLE);
                body.extend_from_slice(&child(key).to_le_bytes());
            }
            Slot::Fragments(fragments) => {
                body.push(CHUNK_FRAGMENTS);
                body.extend_from_slice(&(fragments.len() as u32).to_le_bytes());
                for fragment in fragments {
                    let (tag, value) = match fragment.content {
                        Content::Zero => (FRAGMENT_ZERO, 0),
                        Content::Data(key) => (FRAGMENT_DATA, child(&key)),
                        Content::Unreadable(errno) => (FRAGMENT_UNREADABLE, errno as u32),
                        Content::Untried => (FRAGMENT_UNTRIED, 0),
                    };
                    body.extend_from_slice(&fragment.offset.to_le_bytes());
                    body.extend_from_slice(&fragment.len.to_le_bytes());
                    body.push(tag);
                    body.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
    }
    build_node(NODE_LEAF, &children, &body)
}

/// Reads a leaf that covers `span` bytes of image in chunks of `chunk_bytes`.
pub fn decode_leaf(raw: &[u8], chunk_bytes: u32, span: u64) -> Result<Vec<Slot>> {
    let (kind, children, body) = parse_node(raw).map_err(Error::Manifest)?;
    let mut reader = Fields { rest: body };
    let bad = || Error::Manifest("a leaf that does not parse");
    if kind != NODE_LEAF || reader.u32() != Some(chunk_bytes) {
        return Err(Error::Manifest("not a leaf of this capture"));
    }
    let count = reader.u32().ok_or_else(bad)?;
    if u64::from(count) != span.div_ceil(chunk_bytes.into()) || u64::from(count) > FAN_OUT {
        return Err(Error::Manifest("a leaf of another length than its place"));
    }
    let child = |at: u32| {
        children
            .get(at as usize)
            .copied()
            .ok_or(Error::Manifest("a leaf without that child"))
    };
    let mut slots = Vec::with_capacity(count as usize);
    for index in 0..count {
        let chunk_len =
            (span - u64::from(index) * u64::from(chunk_bytes)).min(chunk_bytes.into()) as u32;
        slots.push(match reader.u8().ok_or_else(bad)? {
            CHUNK_ZERO => Slot::Zero,
            CHUNK_WHOLE => Slot::Whole(child(reader.u32().ok_or_else(bad)?)?),
            CHUNK_FRAGMENTS => {
                let mut fragments = Vec::new();
                let mut end = 0u32;
                for _ in 0..reader.u32().ok_or_else(bad)? {
                    let (offset, len) =
                        (reader.u32().ok_or_else(bad)?, reader.u32().ok_or_else(bad)?);
                    let (tag, value) =
                        (reader.u8().ok_or_else(bad)?, reader.u32().ok_or_else(bad)?);
                    let content = match tag {
                        FRAGMENT_ZERO => Content::Zero,
                        FRAGMENT_DATA => Content::Data(child(value)?),
                        FRAGMENT_UNREADABLE => Content::Unreadable(value as i32),
                        FRAGMENT_UNTRIED => Content::Untried,
                        _ => return Err(bad()),
                    };
                    if offset != end || len == 0 || len > chunk_len - end {
                        return Err(Error::Manifest("fragments that do not cover their chunk"));
                    }
                    end += len;
                    fragments.push(Fragment {
                        offset,
                        len,
                        content,
                    });
                }
                if end != chunk_len {
                    return Err(Error::Manifest("fragments that do not cover their chunk"));
                }
                Slot::Fragments(fragments)
            }
            _ => return Err(bad()),
        });
    }
    if reader.rest.is_empty() {
        Ok(slots)
    } else {
        Err(bad())
    }
}

/// The artifact of an inner node. `level` is 1 above leaves; each child covers
/// `span_bytes` of image, the last maybe less.
pub fn encode_inner(level: u32, span_bytes: u64, children: &[(Key, ChildFlags)]) -> Vec<u8> {
    let keys: Vec<Key> = children.iter().map(|(key, _)| *key).collect();
    let mut body = Vec::with_capacity(16 + children.len());
    body.extend_from_slice(&level.to_le_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&span_bytes.to_le_bytes());
    body.extend(children.iter().map(|(_, flags)| flags.0));
    build_node(NODE_INNER, &keys, &body)
}

pub(crate) fn decode_inner(
    raw: &[u8],
    level: u32,
    span_bytes: u64,
    len: u64,
) -> Result<Vec<(Key, ChildFlags)>> {
    let (kind, keys, body) = parse_node(raw).map_err(Error::Manifest)?;
    let mut reader = Fields { rest: body };
    let same = kind == NODE_INNER
        && reader.u32() == Some(level)
        && reader.u32() == Some(0)
        && reader.u64() == Some(span_bytes)
        && reader.rest.len() == keys.len()
        && keys.len() as u64 == len.div_ceil(span_bytes);
    if !same {
        return Err(Error::Manifest("an inner node of another place"));
    }
    Ok(keys
        .into_iter()
        .zip(reader.rest.iter().map(|flags| ChildFlags(*flags)))
        .collect())
}

/// The source as a capture remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceDoc {
    /// Path at the time.
    pub path: String,
    /// Model name.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    #[serde(default)]
    pub wwn: Option<String>,
    /// Firmware revision.
    #[serde(default)]
    pub firmware: Option<String>,
    /// Transport.
    #[serde(default)]
    pub transport: Option<String>,
    /// File behind a loop device or an image.
    #[serde(default)]
    pub backing_file: Option<String>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical sector size in bytes.
    pub logical_sector_bytes: u32,
    /// Physical sector size in bytes.
    pub physical_sector_bytes: u32,
}

/// Body of a capture's root node: what was captured, when, how it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptureDoc {
    /// `asl-capture-1`.
    pub format: String,
    /// Session id: the capture's name.
    pub session: String,
    /// The user's words.
    pub label: Option<String>,
    /// The source.
    pub source: SourceDoc,
    /// Unix time in nanoseconds when the session began; untrusted.
    pub started_unix_ns: i64,
    /// Unix time in nanoseconds when this manifest was written; untrusted.
    pub finished_unix_ns: i64,
    /// Program and version.
    pub tool: String,
    /// Chunk size in bytes; a power of two.
    pub chunk_bytes: u32,
    /// Chunks of a whole leaf.
    pub leaf_chunks: u32,
    /// Levels of inner nodes; 0 if the image fits in one leaf.
    pub levels: u32,
    /// Bytes read.
    pub rescued_bytes: u64,
    /// Bytes that the medium refused.
    pub unreadable_bytes: u64,
    /// Bytes never read.
    pub untried_bytes: u64,
    /// Of the bytes read, zeros that needed no storing.
    pub zero_bytes: u64,
    /// Bytes of artifacts and notes that were not in the store before.
    pub new_bytes: u64,
    /// Bytes that these take in block files.
    pub stored_bytes: u64,
    /// Reads of the source.
    pub reads: u64,
    /// Of these, failed.
    pub read_errors: u64,
    /// Of these, too slow.
    pub slow_reads: u64,
    /// Time spent reading, over all runs.
    pub elapsed_seconds: f64,
    /// Whether every byte was read.
    pub complete: bool,
    /// Why it ended early, if it did.
    pub stopped: Option<String>,
    /// BLAKE3 of the image with unreadable bytes as zero; none while any is untried.
    pub image_blake3: Option<String>,
    /// SHA-256 of the same, if asked for.
    pub sha256: Option<String>,
    /// MD5 of the same, if asked for.
    pub md5: Option<String>,
}

impl CaptureDoc {
    /// The artifact of the capture's root: one child, the top of the manifest.
    pub fn encode(&self, top: Key) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a document of numbers and texts");
        build_node(NODE_CAPTURE, &[top], &json)
    }

    /// Reads a capture's root: the document and the top of the manifest.
    pub fn decode(raw: &[u8]) -> Result<(Self, Key)> {
        let (kind, children, body) = parse_node(raw).map_err(Error::Manifest)?;
        let &[top] = &children[..] else {
            return Err(Error::Manifest("a capture without its manifest"));
        };
        if kind != NODE_CAPTURE {
            return Err(Error::Manifest("not a capture"));
        }
        let doc: Self = serde_json::from_slice(body)
            .map_err(|_| Error::Manifest("a capture whose description does not parse"))?;
        if doc.format != CAPTURE_FORMAT {
            return Err(Error::Manifest("a capture of a newer kind"));
        }
        let sound = doc.chunk_bytes.is_power_of_two()
            && (format::CHUNK_BYTES_MIN..=format::CHUNK_BYTES_MAX).contains(&doc.chunk_bytes)
            && u64::from(doc.leaf_chunks) == FAN_OUT
            && doc.levels == levels_for(doc.source.size_bytes, doc.chunk_bytes);
        if sound {
            Ok((doc, top))
        } else {
            Err(Error::Manifest("a capture with impossible measures"))
        }
    }
}

/// Image bytes that a leaf covers.
pub fn leaf_span(chunk_bytes: u32) -> u64 {
    u64::from(chunk_bytes) * FAN_OUT
}

/// Levels of inner nodes that an image needs.
pub fn levels_for(size_bytes: u64, chunk_bytes: u32) -> u32 {
    let mut nodes = size_bytes.div_ceil(leaf_span(chunk_bytes)).max(1);
    let mut levels = 0;
    while nodes > 1 {
        nodes = nodes.div_ceil(FAN_OUT);
        levels += 1;
    }
    levels
}

/// A range of the image and what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What is there; an artifact has exactly `len` bytes.
    pub content: Content,
}

/// A range of the image of which a damaged store no longer tells what is there.
#[derive(Debug)]
pub struct Lost {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Why the manifest's node for it cannot be read.
    pub error: Error,
}

/// What a capture names and the store has not is damage, not a name that somebody mistyped.
fn missing(what: &'static str) -> impl Fn(asl_store::Error) -> Error {
    move |error| match error {
        asl_store::Error::NotFound(_) => Error::Manifest(what),
        error => error.into(),
    }
}

/// A capture that can be walked.
pub struct Manifest {
    /// What the root says.
    pub doc: CaptureDoc,
    top: Key,
}

impl Manifest {
    /// Opens the capture whose root artifact is `root`.
    pub fn open(store: &StoreHandle, root: &Key) -> Result<Self> {
        let raw = store.get(root).map_err(missing("its root is missing"))?;
        let (doc, top) = CaptureDoc::decode(&raw)?;
        Ok(Self { doc, top })
    }

    /// A manifest whose root is not written yet.
    pub fn of(doc: CaptureDoc, top: Key) -> Self {
        Self { doc, top }
    }

    /// Calls `each` for every extent that overlaps `range`, ascending, whole;
    /// adjacent zeros of skipped nodes come as one.
    pub fn walk(
        &self,
        store: &StoreHandle,
        range: Range<u64>,
        each: &mut dyn FnMut(Extent) -> Result<()>,
    ) -> Result<()> {
        self.walk_where(store, range, &|_| true, each)
    }

    /// Like [`Manifest::walk`], but reads only nodes whose flags `wanted` accepts.
    pub fn walk_where(
        &self,
        store: &StoreHandle,
        range: Range<u64>,
        wanted: &dyn Fn(ChildFlags) -> bool,
        each: &mut dyn FnMut(Extent) -> Result<()>,
    ) -> Result<()> {
        self.go(store, range, wanted, &mut |found| {
            each(found.map_err(|lost| lost.error)?)
        })
    }

    /// Like [`Manifest::walk`], but goes on after nodes that cannot be read.
    pub fn walk_around(
        &self,
        store: &StoreHandle,
        range: Range<u64>,
        each: &mut dyn FnMut(Result<Extent, Lost>) -> Result<()>,
    ) -> Result<()> {
        self.go(store, range, &|_| true, each)
    }

    fn go(
        &self,
        store: &StoreHandle,
        range: Range<u64>,
        wanted: &dyn Fn(ChildFlags) -> bool,
        each: &mut dyn FnMut(Result<Extent, Lost>) -> Result<()>,
    ) -> Result<()> {
        let image = 0..self.doc.source.size_bytes;
        let mut walk = Walk {
            store,
            chunk_bytes: self.doc.chunk_bytes,
            range,
            wanted,
            each,
        };
        if image.is_empty() || walk.range.is_empty() {
            Ok(())
        } else {
            walk.node(&self.top, self.doc.levels, image)
        }
    }
}

struct Walk<'a> {
    store: &'a StoreHandle,
    chunk_bytes: u32,
    range: Range<u64>,
    wanted: &'a dyn Fn(ChildFlags) -> bool,
    each: &'a mut dyn FnMut(Result<Extent, Lost>) -> Result<()>,
}

/// What a node says.
enum Node {
    Inner(u64, Vec<(Key, ChildFlags)>),
    Leaf(Vec<Slot>),
}

impl Walk<'_> {
    fn read(&self, key: &Key, level: u32, len: u64) -> Result<Node> {
        let raw = self.store.get_node(key);
        let raw = raw.map_err(missing("a node is missing"))?;
        if level == 0 {
            return decode_leaf(&raw, self.chunk_bytes, len).map(Node::Leaf);
        }
        let span = leaf_span(self.chunk_bytes) * FAN_OUT.pow(level - 1);
        decode_inner(&raw, level, span, len).map(|children| Node::Inner(span, children))
    }

    fn node(&mut self, key: &Key, level: u32, image: Range<u64>) -> Result<()> {
        let (span, children) = match self.read(key, level, image.end - image.start) {
            Ok(Node::Inner(span, children)) => (span, children),
            Ok(Node::Leaf(slots)) => return self.leaf(&slots, image),
            Err(error) => {
                let (from, to) = (
                    image.start.max(self.range.start),
                    image.end.min(self.range.end),
                );
                return (self.each)(Err(Lost {
                    offset: from,
                    len: to - from,
                    error,
                }));
            }
        };
        for (at, (key, flags)) in children.into_iter().enumerate() {
            let start = image.start + at as u64 * span;
            let child = start..(start + span).min(image.end);
            if child.end <= self.range.start
                || child.start >= self.range.end
                || !(self.wanted)(flags)
            {
                continue;
            }
            if flags.has(ChildFlags::ALL_ZERO) {
                self.extent(child.start, child.end - child.start, Content::Zero)?;
            } else {
                self.node(&key, level - 1, child)?;
            }
        }
        Ok(())
    }

    fn extent(&mut self, offset: u64, len: u64, content: Content) -> Result<()> {
        if offset + len <= self.range.start || offset >= self.range.end {
            return Ok(());
        }
        (self.each)(Ok(Extent {
            offset,
            len,
            content,
        }))
    }

    fn leaf(&mut self, slots: &[Slot], image: Range<u64>) -> Result<()> {
        let chunk_bytes = u64::from(self.chunk_bytes);
        for (at, slot) in slots.iter().enumerate() {
            let start = image.start + at as u64 * chunk_bytes;
            let len = (image.end - start).min(chunk_bytes);
            match slot {
                Slot::Zero => self.extent(start, len, Content::Zero)?,
                Slot::Whole(key) => self.extent(start, len, Content::Data(*key))?,
                Slot::Fragments(fragments) => {
                    for fragment in fragments {
                        let offset = start + u64::from(fragment.offset);
                        self.extent(offset, fragment.len.into(), fragment.content)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_round_trip_and_hostile_ones_are_refused() {
        let key = |n| Key([n; 32]);
        let fragment = |offset, len, content| Fragment {
            offset,
            len,
            content,
        };
        let slots = vec![
            Slot::Zero,
            Slot::Whole(key(1)),
            Slot::Whole(key(1)),
            Slot::Fragments(vec![
                fragment(0, 512, Content::Data(key(2))),
                fragment(512, 512, Content::Unreadable(61)),
                fragment(1024, 1024, Content::Untried),
                fragment(2048, 952, Content::Zero),
            ]),
        ];
        let raw = encode_leaf(4096, &slots);
        let span = 3 * 4096 + 3000;
        assert_eq!(decode_leaf(&raw, 4096, span).unwrap(), slots);
        let flags = leaf_flags(&slots);
        assert!(
            flags.has(ChildFlags::UNREADABLE)
                && flags.has(ChildFlags::UNTRIED)
                && !flags.has(ChildFlags::ALL_ZERO)
        );
        assert!(decode_leaf(&raw, 4096, span + 1).is_err());
        assert!(decode_leaf(&raw, 4096, span + 4096).is_err());
        for len in 0..raw.len() {
            assert!(decode_leaf(&raw[..len], 4096, span).is_err());
        }
        // Gaps, overlaps, bytes beyond the chunk.
        for (offset, len) in [(0, 4095), (1, 4095), (0, 4097), (0, 0), (0, u32::MAX)] {
            let raw = encode_leaf(
                4096,
                &[Slot::Fragments(vec![fragment(offset, len, Content::Zero)])],
            );
            assert!(decode_leaf(&raw, 4096, 4096).is_err(), "{offset} {len}");
        }
    }

    #[test]
    fn levels_grow_with_the_image() {
        assert_eq!(levels_for(0, 4096), 0);
        assert_eq!(levels_for(leaf_span(4096), 4096), 0);
        assert_eq!(levels_for(leaf_span(4096) + 1, 4096), 1);
        assert_eq!(levels_for(leaf_span(4096) * FAN_OUT + 1, 4096), 2);
    }
}
