//! Frames: what a block is made of. A frame is a checked header and the stored
//! bytes of one artifact or one note.
//!
//! Invariants
//! - `check` is the BLAKE3 of the stored bytes; for a raw artifact it is the key.
//! - A salt binds a frame to its file, so that neither the stale frame of a deleted
//!   file, which a crash may bring to light on FAT, nor bytes of a captured disk that
//!   look like a frame are taken for one of ours.
//! - Nothing is allocated for a length that was not checked against its ceiling.

use bytes::Bytes;
use zstd::zstd_safe::{CParameter, ParamSwitch};

use crate::format::{self, block_header as bh, frame_header as fh, toc_entry as te};
use crate::id::{Key, LogPosition};
use crate::slab::Slabs;

/// What the frames of one block have in common with no others: nobody who does not
/// know the block's header, with its random numbers, can guess it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSalt([u8; fh::SALT.len]);

impl FrameSalt {
    /// The salt of the frames of the block with this header.
    pub fn of_block(header: &[u8; bh::LEN]) -> Self {
        let derived = blake3::derive_key(format::CONTEXT_FRAME_SALT, header);
        Self(std::array::from_fn(|at| derived[at]))
    }

    /// The salt that a frame's header claims: all that is left where the block's header
    /// is damaged.
    pub(crate) fn of_frame(header: &[u8; fh::LEN]) -> Self {
        Self(fh::SALT.array(header))
    }
}

/// Everything a frame's header says but for what binds it to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// [`format::FRAME_ARTIFACT`] or [`format::FRAME_NOTE`].
    pub kind: u8,
    /// How the stored bytes encode the artifact.
    pub encoding: u8,
    /// [`format::FLAG_ROOT`], [`format::FLAG_NODE`].
    pub flags: u16,
    /// Who wrote a note and what it is; 0 for artifacts.
    pub note_type: u32,
    /// Bytes stored.
    pub stored_len: u32,
    /// Bytes of the artifact.
    pub raw_len: u64,
    /// The artifact's key; zero for notes.
    pub key: Key,
    /// BLAKE3 of the stored bytes.
    pub check: [u8; 32],
}

impl FrameInfo {
    /// Bytes that the frame takes in its block: header, stored bytes, padding.
    pub fn space(&self) -> u64 {
        fh::LEN as u64 + format::padded(u64::from(self.stored_len))
    }

    /// Whether this is an artifact (else a note).
    pub fn is_artifact(&self) -> bool {
        self.kind == format::FRAME_ARTIFACT
    }

    /// The header as it stands before the stored bytes.
    pub fn header(&self, salt: &FrameSalt) -> [u8; fh::LEN] {
        let mut buf = [0; fh::LEN];
        buf[..te::LEN].copy_from_slice(&self.toc_entry(0));
        fh::MAGIC.put(&mut buf, &format::FRAME_MAGIC);
        fh::SALT.put(&mut buf, &salt.0);
        let crc = crc32c::crc32c(&buf[..fh::CRC.offset]);
        fh::CRC.set(&mut buf, crc);
        buf
    }

    /// The entry in the table of contents of a block that has the frame at `offset`.
    pub fn toc_entry(&self, offset: u32) -> [u8; te::LEN] {
        let mut buf = [0; te::LEN];
        te::OFFSET.set(&mut buf, offset);
        te::KIND.set(&mut buf, self.kind);
        te::ENCODING.set(&mut buf, self.encoding);
        te::FLAGS.set(&mut buf, self.flags);
        te::NOTE_TYPE.set(&mut buf, self.note_type);
        te::STORED_LEN.set(&mut buf, self.stored_len);
        te::RAW_LEN.set(&mut buf, self.raw_len);
        te::KEY.put(&mut buf, &self.key.0);
        te::CHECK.put(&mut buf, &self.check);
        buf
    }

    /// Reads an entry of a table of contents: the offset and the frame.
    /// `Err` says what is impossible about it.
    pub fn from_toc_entry(buf: &[u8]) -> Result<(u32, Self), &'static str> {
        let info = Self {
            kind: te::KIND.u8(buf),
            encoding: te::ENCODING.u8(buf),
            flags: te::FLAGS.u16(buf),
            note_type: te::NOTE_TYPE.u32(buf),
            stored_len: te::STORED_LEN.u32(buf),
            raw_len: te::RAW_LEN.get(buf),
            key: Key(te::KEY.array(buf)),
            check: te::CHECK.array(buf),
        };
        info.validate()?;
        Ok((te::OFFSET.u32(buf), info))
    }

    /// Reads a frame header; `None` where there is no whole, valid one of this file.
    pub fn from_header(buf: &[u8], salt: &FrameSalt) -> Option<Self> {
        if buf.len() < fh::LEN
            || fh::MAGIC.of(buf) != format::FRAME_MAGIC
            || fh::SALT.of(buf) != salt.0
            || fh::CRC.u32(buf) != crc32c::crc32c(&buf[..fh::CRC.offset])
        {
            return None;
        }
        Self::from_toc_entry(&buf[..te::LEN])
            .ok()
            .map(|(_, info)| info)
    }

    fn validate(&self) -> Result<(), &'static str> {
        if self.stored_len > format::FRAME_STORED_MAX {
            return Err("a stored length above the ceiling");
        }
        match (self.kind, self.encoding) {
            (format::FRAME_ARTIFACT, format::ENCODING_RAW) => {
                if u64::from(self.stored_len) != self.raw_len || self.check != self.key.0 {
                    return Err("a raw frame whose lengths or hashes disagree");
                }
            }
            (format::FRAME_ARTIFACT, format::ENCODING_ZSTD) => {
                if self.raw_len > u64::from(format::FRAME_STORED_MAX) {
                    return Err("a decoded length above the ceiling");
                }
            }
            (format::FRAME_ARTIFACT, format::ENCODING_CHUNKED) => {
                if self.raw_len > format::CHUNKED_LEN_MAX {
                    return Err("an artifact's length above the ceiling");
                }
            }
            (format::FRAME_NOTE, format::ENCODING_RAW) => {
                if u64::from(self.stored_len) != self.raw_len || !self.key.is_zero() {
                    return Err("a note whose lengths disagree or that has a key");
                }
            }
            _ => return Err("an unknown kind or encoding"),
        }
        Ok(())
    }
}

/// A frame ready to be appended.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What its header says.
    pub info: FrameInfo,
    /// The stored bytes; shared, not copied, until they are durable.
    pub stored: Bytes,
}

impl Frame {
    /// A note. `stored` must be no longer than [`format::FRAME_STORED_MAX`].
    pub fn note(note_type: u32, stored: Vec<u8>) -> Self {
        let info = FrameInfo {
            kind: format::FRAME_NOTE,
            encoding: format::ENCODING_RAW,
            flags: 0,
            note_type,
            stored_len: u32::try_from(stored.len()).expect("notes are far below 4 GiB"),
            raw_len: stored.len() as u64,
            key: Key::ZERO,
            check: *blake3::hash(&stored).as_bytes(),
        };
        Self {
            info,
            stored: stored.into(),
        }
    }
}

/// How artifacts are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// zstd level 1 with the match length that it has for long inputs and a step of 3
    /// instead of 2 while nothing matches (on the chunks of a disk, each 6 % less time
    /// for 2 to 3 % more bytes), raw where it does not pay.
    Auto,
    /// zstd at this level, raw where it does not pay.
    Level(i32),
}

/// Turns artifacts into frames. Keeps its compression context; one per thread.
pub struct Encoder {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    scratch: Vec<u8>,
    slabs: Slabs,
}

impl Encoder {
    /// An encoder. Levels outside zstd's range are clamped by zstd.
    pub fn new(compression: Compression) -> Self {
        let level = match compression {
            Compression::None => None,
            Compression::Auto => Some(1),
            Compression::Level(level) => Some(level),
        };
        let mut compressor = level.and_then(|level| zstd::bulk::Compressor::new(level).ok());
        if let (Compression::Auto, Some(compressor)) = (compression, &mut compressor) {
            // For the strategy of level 1 the target length is the step less 1; unless it is
            // told to, zstd would take it for a wish to leave literals as they are.
            let fast = [
                CParameter::MinMatch(7),
                CParameter::TargetLength(2),
                CParameter::LiteralCompressionMode(ParamSwitch::Enable),
            ];
            for parameter in fast {
                // Refused by no version there is; if it were, only the speed would differ.
                let _ = compressor.set_parameter(parameter);
            }
        }
        Self {
            compressor,
            scratch: Vec::new(),
            slabs: Slabs::default(),
        }
    }

    /// Encodes one artifact whose key the caller computed. The compressed form is
    /// kept only where it saves at least 1/32 of the bytes.
    ///
    /// # Panics
    /// If `raw` is longer than [`format::FRAME_STORED_MAX`].
    pub fn encode(&mut self, key: Key, raw: Bytes, flags: u16) -> Frame {
        assert!(
            raw.len() <= format::FRAME_STORED_MAX as usize,
            "longer artifacts are chunked"
        );
        let mut info = FrameInfo {
            kind: format::FRAME_ARTIFACT,
            encoding: format::ENCODING_RAW,
            flags,
            note_type: 0,
            stored_len: raw.len() as u32,
            raw_len: raw.len() as u64,
            key,
            check: key.0,
        };
        if let Some(compressor) = &mut self.compressor {
            let limit = raw.len() - raw.len() / 32;
            if self.scratch.len() < limit.max(64) {
                self.scratch.resize(limit.max(64), 0);
            }
            if let Ok(len) = compressor.compress_to_buffer(&raw, &mut self.scratch[..])
                && len < limit
            {
                let stored = self.slabs.copy(&self.scratch[..len]);
                info.encoding = format::ENCODING_ZSTD;
                info.stored_len = len as u32;
                info.check = *blake3::hash(&stored).as_bytes();
                return Frame { info, stored };
            }
        }
        Frame { info, stored: raw }
    }

    /// An artifact given as the list of its parts, each with its length in bytes; none
    /// is empty.
    pub fn chunked(key: Key, parts: &[(Key, u64)], flags: u16) -> Frame {
        use format::chunk_entry as ce;
        let mut stored = vec![0; 8 + parts.len() * ce::LEN];
        stored[..4].copy_from_slice(&(parts.len() as u32).to_le_bytes());
        for (entry, (key, len)) in stored[8..].chunks_exact_mut(ce::LEN).zip(parts) {
            ce::KEY.put(entry, &key.0);
            ce::BYTES.set(entry, *len);
        }
        let info = FrameInfo {
            kind: format::FRAME_ARTIFACT,
            encoding: format::ENCODING_CHUNKED,
            flags,
            note_type: 0,
            stored_len: stored.len() as u32,
            raw_len: parts.iter().map(|(_, len)| len).sum(),
            key,
            check: *blake3::hash(&stored).as_bytes(),
        };
        Frame {
            info,
            stored: stored.into(),
        }
    }
}

/// Reads a chunk list (the stored bytes of [`format::ENCODING_CHUNKED`]).
pub fn parse_chunk_list(stored: &[u8]) -> Result<Vec<(Key, u64)>, &'static str> {
    use format::chunk_entry as ce;
    let count = stored.get(..4).ok_or("a chunk list without a head")?;
    let count = u32::from_le_bytes(count.try_into().expect("four bytes"));
    if count > format::NODE_CHILDREN_MAX
        || stored.len() != 8 + count as usize * ce::LEN
        || stored[4..8] != [0; 4]
    {
        return Err("a chunk list whose length and count disagree");
    }
    let parts: Vec<_> = stored[8..]
        .chunks_exact(ce::LEN)
        .map(|entry| (Key(ce::KEY.array(entry)), ce::BYTES.get(entry)))
        .collect();
    // Lists of nothing but empty parts could be followed for ever.
    if parts.iter().any(|(_, len)| *len == 0) {
        return Err("a chunk list with an empty part");
    }
    Ok(parts)
}

/// Turns stored bytes back into artifacts. Keeps its decompression context; one per
/// thread.
#[derive(Default)]
pub struct Decoder {
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decoder {
    /// Decodes stored bytes (raw or zstd) and checks them against the key. Bytes
    /// that need decoding go through `out`. `Err` says what is wrong; wrong bytes
    /// are never returned.
    pub fn decode<'a>(
        &mut self,
        info: &FrameInfo,
        stored: &'a [u8],
        out: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], &'static str> {
        let raw = match info.encoding {
            format::ENCODING_RAW => stored,
            format::ENCODING_ZSTD => {
                let undecodable = "compressed bytes that do not decode";
                if info.raw_len > u64::from(format::FRAME_STORED_MAX) {
                    return Err("a decoded length above the ceiling");
                }
                if self.decompressor.is_none() {
                    self.decompressor = zstd::bulk::Decompressor::new().ok();
                }
                let decompressor = self
                    .decompressor
                    .as_mut()
                    .ok_or("no memory to decompress")?;
                let len = info.raw_len as usize;
                if out.len() < len {
                    out.resize(len, 0);
                }
                let decoded = decompressor.decompress_to_buffer(stored, &mut out[..len]);
                &out[..decoded.map_err(|_| undecodable)?]
            }
            _ => return Err("an encoding that has no bytes of its own"),
        };
        if raw.len() as u64 != info.raw_len || Key::of(raw) != info.key {
            return Err("bytes that do not match their key");
        }
        Ok(raw)
    }
}

/// Decodes one frame; see [`Decoder::decode`].
pub fn decode(info: &FrameInfo, stored: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::new();
    let raw = Decoder::default().decode(info, &stored, &mut out)?.len();
    if info.encoding == format::ENCODING_RAW {
        return Ok(stored);
    }
    out.truncate(raw);
    Ok(out)
}

/// The bytes of a note that repeats a deletion: `position` is the length of the log
/// when it is written, so that from blocks alone it can be told what is older.
pub fn build_tombstones(position: LogPosition, keys: &[Key]) -> Vec<u8> {
    use format::tombstones_note as tn;
    let mut note = vec![0; tn::LEN];
    tn::POSITION.set(&mut note, position.0);
    note.extend(keys.iter().flat_map(|key| key.0));
    note
}

/// Reads a note of tombstones; `None` where it does not parse.
pub fn parse_tombstones(note: &[u8]) -> Option<(LogPosition, Vec<Key>)> {
    use format::tombstones_note as tn;
    let keys = note.get(tn::LEN..)?.chunks_exact(32);
    if !keys.remainder().is_empty() {
        return None;
    }
    let keys = keys.map(|key| Key(key.try_into().expect("chunks of 32 bytes")));
    Some((LogPosition(tn::POSITION.get(note)), keys.collect()))
}

/// The children's keys of a tree node artifact, its kind and its body.
pub fn parse_node(raw: &[u8]) -> Result<(u32, Vec<Key>, &[u8]), &'static str> {
    use format::node_head as nh;
    if raw.len() < nh::LEN || nh::MAGIC.of(raw) != format::NODE_MAGIC {
        return Err("not a tree node");
    }
    let children = nh::CHILDREN.u32(raw);
    let end = nh::LEN + children as usize * 32;
    if children > format::NODE_CHILDREN_MAX || raw.len() < end {
        return Err("a tree node shorter than its children");
    }
    let keys = raw[nh::LEN..end].chunks_exact(32);
    let keys = keys
        .map(|key| Key(key.try_into().expect("32 bytes")))
        .collect();
    Ok((nh::KIND.u32(raw), keys, &raw[end..]))
}

/// The bytes of a tree node artifact.
pub fn build_node(kind: u32, children: &[Key], body: &[u8]) -> Vec<u8> {
    use format::node_head as nh;
    let mut raw = vec![0; nh::LEN];
    nh::MAGIC.put(&mut raw, &format::NODE_MAGIC);
    nh::KIND.set(&mut raw, kind);
    nh::CHILDREN.set(&mut raw, children.len() as u32);
    for key in children {
        raw.extend_from_slice(&key.0);
    }
    raw.extend_from_slice(body);
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(bytes: &[u8], compression: Compression) -> Frame {
        Encoder::new(compression).encode(Key::of(bytes), bytes.to_vec().into(), 0)
    }

    fn salt(n: u8) -> FrameSalt {
        FrameSalt::of_block(&[n; bh::LEN])
    }

    #[test]
    fn frames_round_trip() {
        for compression in [Compression::None, Compression::Auto, Compression::Level(6)] {
            for bytes in [&b""[..], b"abc", &[7; 100_000]] {
                let frame = encode(bytes, compression);
                let header = frame.info.header(&salt(42));
                assert_eq!(FrameInfo::from_header(&header, &salt(42)), Some(frame.info));
                assert_eq!(FrameInfo::from_header(&header, &salt(43)), None);
                assert_eq!(decode(&frame.info, frame.stored.to_vec()).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn every_flipped_header_byte_is_noticed() {
        let header = encode(b"some bytes", Compression::None)
            .info
            .header(&salt(1));
        for at in 0..header.len() {
            let mut flipped = header;
            flipped[at] ^= 1;
            assert_eq!(
                FrameInfo::from_header(&flipped, &salt(1)),
                None,
                "byte {at}"
            );
        }
    }

    #[test]
    fn compression_is_kept_only_where_it_pays() {
        assert_eq!(
            encode(&[0; 4096], Compression::Auto).info.encoding,
            format::ENCODING_ZSTD
        );
        let mut noise = vec![0; 4096];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(
            encode(&noise, Compression::Auto).info.encoding,
            format::ENCODING_RAW
        );
        assert_eq!(
            encode(&[0; 4096], Compression::None).info.encoding,
            format::ENCODING_RAW
        );
    }

    #[test]
    fn wrong_bytes_are_never_decoded() {
        let frame = encode(&[5; 10_000], Compression::Auto);
        for at in 0..frame.stored.len() {
            let mut stored = frame.stored.to_vec();
            stored[at] ^= 0x10;
            if let Ok(raw) = decode(&frame.info, stored) {
                assert_eq!(raw, [5; 10_000], "byte {at}");
            }
        }
    }

    #[test]
    fn hostile_lists_are_refused() {
        assert!(parse_chunk_list(&[]).is_err());
        assert!(parse_chunk_list(&[255; 8]).is_err());
        let empty = Encoder::chunked(Key::ZERO, &[(Key::ZERO, 0)], 0);
        assert!(parse_chunk_list(&empty.stored).is_err());
        assert!(parse_node(b"ASLNODE1\x03\0\0\0\xff\xff\xff\xff").is_err());
        let part = |len| Encoder::chunked(Key::ZERO, &[(Key::ZERO, len)], 0).info;
        let longest = part(format::CHUNKED_LEN_MAX);
        assert!(FrameInfo::from_toc_entry(&longest.toc_entry(256)).is_ok());
        let longer = part(format::CHUNKED_LEN_MAX + 1);
        assert!(FrameInfo::from_toc_entry(&longer.toc_entry(256)).is_err());
        let node = build_node(3, &[Key([1; 32])], b"body");
        assert_eq!(
            parse_node(&node).unwrap(),
            (3, vec![Key([1; 32])], &b"body"[..])
        );
    }
}
