//! One frame of a block file, checked to its last byte while little of it is held: header, stored bytes, decoded bytes, padding.
//!
//! Each byte is read once, in large reads. A frame says itself how long it is and how long what it decodes to is, and may say what it
//! likes: no more than a window of it and as much of what it decodes to is in memory at any time.

use std::io::{self, Write};

use crate::block::Entry;
use crate::format::{
    self, authority_note, chunk_entry, frame_header as fh, node_head as nh, removed_payload,
    session_note, session_payload, tombstones_note,
};
use crate::frame::{self, FrameInfo, FrameSalt};
use crate::id::Key;
use crate::vfs::VfsFile;

/// Bytes that are read at once, and the longest frame that is checked in one piece.
pub(crate) const WINDOW: usize = 4 << 20;
/// Pieces of longer frames.
const PIECE: usize = 1 << 20;
/// Decoded bytes that are held at once.
const DECODED_MAX: u64 = 8 << 20;
/// Stored bytes of the longest chunk list.
const LIST_MAX: u32 = 8 + format::NODE_CHILDREN_MAX * chunk_entry::LEN as u32;

const NOT_DECODED: &str = "compressed bytes that do not decode to the artifact's length";
const NOT_ITS_KEY: &str = "an artifact that does not match its key";

/// What one thread needs to check frames; kept from block to block.
#[derive(Default)]
pub(crate) struct Buffers {
    window: Vec<u8>,
    raw: Vec<u8>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

/// Reads a file front to back through a window.
pub(crate) struct Reader<'a> {
    file: &'a dyn VfsFile,
    /// Where the frames end.
    end: u64,
    /// Is told how many bytes were read.
    advance: &'a dyn Fn(u64),
    window: Vec<u8>,
    start: u64,
    filled: usize,
}

impl<'a> Reader<'a> {
    /// Reads frames of `file`, which end at `end`, through the window of `buffers`.
    pub(crate) fn new(
        file: &'a dyn VfsFile,
        end: u64,
        advance: &'a dyn Fn(u64),
        buffers: &mut Buffers,
    ) -> Self {
        let mut window = std::mem::take(&mut buffers.window);
        window.resize(WINDOW, 0);
        Self {
            file,
            end,
            advance,
            window,
            start: 0,
            filled: 0,
        }
    }

    /// Gives the window back, for the next file.
    pub(crate) fn done(self, buffers: &mut Buffers) {
        buffers.window = self.window;
    }

    /// `len` bytes at `at`; `len` is at most that of the window.
    fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8], String> {
        let held = self.start..self.start + self.filled as u64;
        if at < held.start || at + len as u64 > held.end {
            let keep = match held.contains(&at) {
                true => (held.end - at) as usize,
                false => 0,
            };
            self.window.copy_within(self.filled - keep..self.filled, 0);
            self.start = at;
            self.filled = keep;
            self.fill(len).map_err(|error| {
                self.filled = 0;
                format!("cannot be read: {error}")
            })?;
        }
        let from = (at - self.start) as usize;
        Ok(&self.window[from..from + len])
    }

    /// Reads on from what is held: as much as fits, or where the medium does not
    /// give that, what is needed.
    fn fill(&mut self, needed: usize) -> io::Result<()> {
        let at = self.start + self.filled as u64;
        let left = self.end.saturating_sub(at).min(WINDOW as u64) as usize;
        let most = (self.window.len() - self.filled).min(left);
        let file = self.file;
        let read = file.read_at(at, &mut self.window[self.filled..self.filled + most]);
        let got = match read {
            Ok(got) => got,
            Err(_) if needed - self.filled < most => {
                file.read_at(at, &mut self.window[self.filled..needed])?
            }
            Err(error) => return Err(error),
        };
        self.filled += got;
        (self.advance)(got as u64);
        if self.filled < needed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// What is wrong with a frame's header or bytes; `salt` is that of its block.
pub(crate) fn check_frame(
    reader: &mut Reader,
    salt: &FrameSalt,
    buffers: &mut Buffers,
    entry: &Entry,
) -> Result<(), String> {
    let info = &entry.info;
    let at = u64::from(entry.offset);
    let expected = info.header(salt);
    let header = reader.bytes(at, fh::LEN)?;
    let header_whole = *header == expected;
    let stored_at = at + fh::LEN as u64;
    let stored_len = info.stored_len as usize;
    let small = stored_len <= WINDOW
        && (info.encoding != format::ENCODING_ZSTD || info.raw_len <= DECODED_MAX);
    if small {
        check_bytes(info, reader.bytes(stored_at, stored_len)?, buffers)?;
    } else {
        check_pieces(reader, info, stored_at)?;
    }
    if !header_whole {
        return Err("a frame header that is not as the table of contents says".to_owned());
    }
    Ok(())
}

/// What is wrong with bytes between frames.
pub(crate) const NOT_PADDING: &str = "padding that is not zero";

/// Whether the bytes between a frame's end and the next are zero; where they begin, if not.
pub(crate) fn check_padding(reader: &mut Reader, entry: &Entry) -> Result<(), u64> {
    let stored = u64::from(entry.info.stored_len);
    let end = u64::from(entry.offset) + entry.info.space();
    let padding = (format::padded(stored) - stored) as usize;
    let bytes = reader.bytes(end - padding as u64, padding);
    match bytes.is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0)) {
        true => Ok(()),
        false => Err(end - padding as u64),
    }
}

/// Checks stored bytes that are held whole.
fn check_bytes(info: &FrameInfo, stored: &[u8], buffers: &mut Buffers) -> Result<(), &'static str> {
    if *blake3::hash(stored).as_bytes() != info.check {
        return Err("a frame's bytes do not match their hash");
    }
    match info.encoding {
        format::ENCODING_CHUNKED => check_chunk_list(info, stored),
        format::ENCODING_ZSTD => {
            let raw_len = info.raw_len as usize;
            if buffers.raw.len() < raw_len {
                buffers.raw.resize(raw_len, 0);
            }
            let raw = &mut buffers.raw[..raw_len];
            if buffers.decompressor.is_none() {
                let made = zstd::bulk::Decompressor::new();
                buffers.decompressor = Some(made.map_err(|_| "no memory to decompress")?);
            }
            let decompressor = buffers.decompressor.as_mut();
            let got = decompressor.map(|d| d.decompress_to_buffer(stored, raw));
            if !matches!(got, Some(Ok(got)) if got == raw_len) {
                return Err(NOT_DECODED);
            }
            if Key::of(raw) != info.key {
                return Err(NOT_ITS_KEY);
            }
            check_node(info, raw)
        }
        // A raw artifact's key is the hash of its stored bytes, or its entry would not parse.
        _ => check_node(info, stored),
    }
}

/// What becomes of the stored bytes of a frame that is too long to be held.
enum Sink {
    /// They are the artifact; its first bytes are kept.
    Raw(Vec<u8>),
    List(Vec<u8>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Decoded>>),
}

/// Checks a frame that is too long to be held.
fn check_pieces(reader: &mut Reader, info: &FrameInfo, at: u64) -> Result<(), String> {
    let mut sink = match info.encoding {
        format::ENCODING_ZSTD => {
            let decoder = zstd::stream::write::Decoder::new(Decoded::of(info));
            Sink::Zstd(Box::new(
                decoder.map_err(|_| "no memory to decompress".to_owned())?,
            ))
        }
        format::ENCODING_CHUNKED if info.stored_len > LIST_MAX => {
            return Err("a chunk list above the ceiling".to_owned());
        }
        format::ENCODING_CHUNKED => Sink::List(Vec::new()),
        _ => Sink::Raw(Vec::new()),
    };
    let end = at + u64::from(info.stored_len);
    let mut check = blake3::Hasher::new();
    let mut decodes = true;
    let mut next = at;
    while next < end {
        let piece = reader.bytes(next, PIECE.min((end - next) as usize))?;
        next += piece.len() as u64;
        check.update(piece);
        match &mut sink {
            Sink::Raw(head) => keep_head(head, piece),
            Sink::List(list) => list.extend_from_slice(piece),
            Sink::Zstd(decoder) => decodes = decodes && decoder.write_all(piece).is_ok(),
        }
    }
    if *check.finalize().as_bytes() != info.check {
        return Err("a frame's bytes do not match their hash".to_owned());
    }
    match sink {
        Sink::Raw(head) => check_node(info, &head)?,
        Sink::List(list) => check_chunk_list(info, &list)?,
        Sink::Zstd(mut decoder) => {
            decodes = decodes && decoder.flush().is_ok();
            let decoded = decoder.into_inner();
            if !decodes || decoded.len != info.raw_len {
                return Err(NOT_DECODED.to_owned());
            }
            if decoded.hasher.finalize().as_bytes() != &info.key.0 {
                return Err(NOT_ITS_KEY.to_owned());
            }
            check_node(info, &decoded.head)?;
        }
    }
    Ok(())
}

/// Keeps as much of an artifact's beginning as the head of a tree node takes.
fn keep_head(head: &mut Vec<u8>, bytes: &[u8]) {
    let wanted = nh::LEN.saturating_sub(head.len()).min(bytes.len());
    head.extend_from_slice(&bytes[..wanted]);
}

/// Takes an artifact's bytes as they are decoded.
struct Decoded {
    hasher: blake3::Hasher,
    len: u64,
    len_max: u64,
    head: Vec<u8>,
}

impl Decoded {
    fn of(info: &FrameInfo) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            len: 0,
            len_max: info.raw_len,
            head: Vec::new(),
        }
    }
}

impl Write for Decoded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What decodes to more than it says is not decoded to its end.
        if self.len + bytes.len() as u64 > self.len_max {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        keep_head(&mut self.head, bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a chunk list parses and its parts add up to the artifact's length.
fn check_chunk_list(info: &FrameInfo, stored: &[u8]) -> Result<(), &'static str> {
    let parts = frame::parse_chunk_list(stored)?;
    let mut lengths = parts.iter().map(|(_, len)| *len);
    let sum = lengths.try_fold(0u64, u64::checked_add);
    if sum != Some(info.raw_len) {
        return Err("a chunk list that does not add up to the artifact's length");
    }
    Ok(())
}

/// Whether what is marked as a tree node begins like one and has room for its children.
fn check_node(info: &FrameInfo, raw: &[u8]) -> Result<(), &'static str> {
    if !info.is_artifact() {
        let lists_keys = |head: usize| {
            let keys = info.raw_len.checked_sub(head as u64);
            keys.is_some_and(|keys| keys.is_multiple_of(32))
        };
        return match info.note_type {
            format::NOTE_TOMBSTONES if !lists_keys(tombstones_note::LEN) => {
                Err("a note of tombstones that is no list of keys")
            }
            format::NOTE_REMOVED if !lists_keys(removed_payload::LEN) => {
                Err("a note of removals that is no list of keys")
            }
            format::NOTE_AUTHORITY if !lists_keys(authority_note::LEN) => {
                Err("a note of authority that is no list of keys")
            }
            format::NOTE_SESSION_RECORD
                if info.raw_len < (session_note::LEN + session_payload::LEN) as u64 =>
            {
                Err("a note of a session that is too short")
            }
            _ => Ok(()),
        };
    }
    if info.flags & format::FLAG_NODE == 0 {
        return Ok(());
    }
    if raw.len() < nh::LEN || nh::MAGIC.of(raw) != format::NODE_MAGIC {
        return Err("a tree node without its head");
    }
    let children = nh::CHILDREN.u32(raw);
    let room = (info.raw_len - nh::LEN as u64) / 32;
    if children > format::NODE_CHILDREN_MAX || u64::from(children) > room {
        return Err("a tree node shorter than its children");
    }
    Ok(())
}
