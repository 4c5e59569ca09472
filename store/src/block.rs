//! Block files: one writer, one reader.
//!
//! A block is written front to back: header, frames, and at its seal a table of
//! contents and a trailer. It lies under `blocks/open` until it is sealed, then
//! under `blocks/sealed` by its digest.
//!
//! Invariants
//! - Frames are contiguous; each has been written whole before the next begins.
//! - Nothing is believed durable before [`BlockWriter::sync`] returned `Ok`; the
//!   frames since the last one are kept in memory until then.
//! - After a failed sync the file takes no more writes; what was not durable is
//!   handed back for another file.
//! - A sealed block is never written again.
//! - Its move to `blocks/sealed` is tidiness: readers find it under `blocks/open`
//!   as well, so a move that fails loses nothing.
//!
//! Crash: an open block is valid up to its last whole frame; [`salvage`](crate::salvage)
//! keeps every whole frame and seals the block.

use std::io;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::format::{self, block_header as bh, block_trailer as bt, toc_entry as te};
use crate::frame::{Frame, FrameInfo, FrameSalt};
use crate::id::{BlockId, Digest, SessionId, StoreId, WriterId};
use crate::vfs::{Vfs, VfsFile, read_exact_at};

/// Directory of blocks that are being written.
pub const OPEN_DIR: &str = "blocks/open";
/// Directory of sealed blocks.
pub const SEALED_DIR: &str = "blocks/sealed";

/// Path of an open block.
pub fn open_path(id: BlockId) -> String {
    format!("{OPEN_DIR}/blk_{id}.tmp")
}

/// Path of a sealed block.
pub fn sealed_path(digest: &Digest) -> String {
    let hex = digest.to_string();
    format!("{SEALED_DIR}/{}/{hex}.blk", &hex[..2])
}

/// Who writes: enough to tell whether that process still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// `/proc/sys/kernel/random/boot_id`, as bytes.
    pub boot_id: [u8; 16],
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
}

/// What a block's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// The store it was born in.
    pub store_id: StoreId,
    /// Its id in that store.
    pub id: BlockId,
    /// [`format::CLASS_PACKED`] or [`format::CLASS_LARGE`].
    pub class: u8,
    /// The client's session that it belongs to; zero for none.
    pub session: SessionId,
    /// The opening for writing that made it.
    pub writer: WriterId,
    /// Log position when it was opened.
    pub base_position: u64,
    /// Unix time in nanoseconds; untrusted.
    pub created_unix_ns: i64,
    /// The small threshold in force, in bytes.
    pub small_threshold: u64,
    /// Who wrote it.
    pub owner: Owner,
}

impl BlockHeader {
    fn encode(&self) -> [u8; bh::LEN] {
        let mut buf = [0; bh::LEN];
        bh::MAGIC.put(&mut buf, &format::BLOCK_MAGIC);
        bh::VERSION.set(&mut buf, format::FORMAT_VERSION);
        bh::CLASS.set(&mut buf, self.class);
        bh::KEY_ALGORITHM.set(&mut buf, format::KEY_ALGORITHM_BLAKE3);
        bh::STORE_ID.put(&mut buf, &self.store_id.0);
        bh::BLOCK_ID.set(&mut buf, self.id.0);
        bh::SESSION.put(&mut buf, &self.session.0);
        bh::WRITER.put(&mut buf, &self.writer.0);
        bh::BASE_POSITION.set(&mut buf, self.base_position);
        bh::CREATED.put(&mut buf, &self.created_unix_ns.to_le_bytes());
        bh::SMALL_THRESHOLD.set(&mut buf, self.small_threshold);
        bh::BOOT_ID.put(&mut buf, &self.owner.boot_id);
        bh::PID.set(&mut buf, self.owner.pid);
        bh::START_TIME.set(&mut buf, self.owner.start_time);
        let crc = crc32c::crc32c(&buf[..bh::CRC.offset]);
        bh::CRC.set(&mut buf, crc);
        buf
    }

    pub(crate) fn decode(buf: &[u8], path: &str) -> Result<Self> {
        if bh::MAGIC.of(buf) != format::BLOCK_MAGIC {
            return Err(Error::damaged(path, 0, "not a block header"));
        }
        if bh::CRC.u32(buf) != crc32c::crc32c(&buf[..bh::CRC.offset]) {
            return Err(Error::damaged(
                path,
                0,
                "the header's checksum does not match",
            ));
        }
        let version = bh::VERSION.u16(buf);
        if version > format::FORMAT_VERSION {
            return Err(Error::NewerFormat {
                path: path.to_owned(),
                version,
            });
        }
        let flags = bh::FLAGS.u32(buf);
        if flags != 0 {
            return Err(Error::unknown_flags(path, flags));
        }
        if bh::KEY_ALGORITHM.u8(buf) != format::KEY_ALGORITHM_BLAKE3
            || bh::ENCRYPTION.of(buf).iter().any(|byte| *byte != 0)
        {
            return Err(Error::damaged(
                path,
                0,
                "an encryption or key algorithm that is not known",
            ));
        }
        Ok(Self {
            store_id: StoreId(bh::STORE_ID.array(buf)),
            id: BlockId(bh::BLOCK_ID.get(buf)),
            class: bh::CLASS.u8(buf),
            session: SessionId(bh::SESSION.array(buf)),
            writer: WriterId(bh::WRITER.array(buf)),
            base_position: bh::BASE_POSITION.get(buf),
            created_unix_ns: bh::CREATED.get(buf) as i64,
            small_threshold: bh::SMALL_THRESHOLD.get(buf),
            owner: Owner {
                boot_id: bh::BOOT_ID.array(buf),
                pid: bh::PID.u32(buf),
                start_time: bh::START_TIME.get(buf),
            },
        })
    }
}

/// A frame and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Bytes from the start of the file to the frame's header.
    pub offset: u32,
    /// What the header says.
    pub info: FrameInfo,
}

impl Entry {
    /// What a table of contents must not say of a frame, though it can be read.
    pub(crate) fn impossible(&self) -> Option<&'static str> {
        match self.info.is_artifact() {
            true if self.info.note_type != 0 => Some("an artifact with the type of a note"),
            false if self.info.flags != 0 => Some("a note with the flags of an artifact"),
            _ => None,
        }
    }
}

/// A sealed block, as its writer or reader knows it.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// What the header says.
    pub header: BlockHeader,
    /// Its digest, which names the file.
    pub digest: Digest,
    /// Length of the file in bytes.
    pub file_len: u64,
    /// Whether a dead writer left it.
    pub salvaged: bool,
    /// Its table of contents.
    pub entries: Vec<Entry>,
}

impl Sealed {
    /// Bytes of all artifacts in it.
    pub fn artifact_bytes(&self) -> u64 {
        let artifacts = self.entries.iter().filter(|entry| entry.info.is_artifact());
        artifacts.map(|entry| entry.info.raw_len).sum()
    }
}

/// A block being written.
pub struct BlockWriter {
    file: Box<dyn VfsFile>,
    path: String,
    header: BlockHeader,
    header_bytes: [u8; bh::LEN],
    salt: FrameSalt,
    entries: Vec<Entry>,
    end: u64,
    /// Frames from this index on are not known to be durable; their stored bytes follow.
    durable_entries: usize,
    pending: Vec<Bytes>,
    pending_bytes: u64,
    name_durable: bool,
    /// A sync failed, of the file or of its name: what the medium holds beyond the
    /// durable frames is anybody's guess.
    suspect: bool,
}

impl BlockWriter {
    /// Creates the file and writes its header. Nothing is durable yet.
    pub fn create(vfs: &dyn Vfs, header: BlockHeader) -> Result<Self> {
        let path = open_path(header.id);
        let file = vfs
            .create_exclusive(&path)
            .map_err(Error::io("create", &path))?;
        let header_bytes = header.encode();
        let salt = FrameSalt::of_block(&header_bytes);
        if let Err(error) = file.write_at(0, &[&header_bytes]) {
            // Best effort: an empty open block is removed at the next opening anyway.
            let _ = vfs.remove(&path);
            return Err(Error::io("write", &path)(error));
        }
        Ok(Self {
            file,
            path,
            header,
            header_bytes,
            salt,
            entries: Vec::new(),
            end: bh::LEN as u64,
            durable_entries: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            name_durable: false,
            suspect: false,
        })
    }

    /// Takes over a file that ends, or is to be cut, after `entries`, all of them durable.
    pub(crate) fn resume(
        file: Box<dyn VfsFile>,
        path: &str,
        (header, header_bytes): (BlockHeader, [u8; bh::LEN]),
        entries: Vec<Entry>,
    ) -> Self {
        let end = entries.last().map_or(bh::LEN as u64, |last| {
            u64::from(last.offset) + last.info.space()
        });
        Self {
            file,
            path: path.to_owned(),
            header,
            header_bytes,
            salt: FrameSalt::of_block(&header_bytes),
            durable_entries: entries.len(),
            entries,
            end,
            pending: Vec::new(),
            pending_bytes: 0,
            name_durable: false,
            suspect: false,
        }
    }

    /// Its header.
    pub fn header(&self) -> &BlockHeader {
        &self.header
    }
    /// Its path under the store.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.entries.len()
    }
    /// The frames so far, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
    /// Length of the file so far, in bytes.
    pub fn len(&self) -> u64 {
        self.end
    }
    /// Whether it has no frame yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Bytes of frames that are not durable yet; as many are held in memory.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }
    /// Bytes that a seal would add.
    pub fn seal_space(&self) -> u64 {
        (self.entries.len() * te::LEN + bt::LEN) as u64
    }

    /// Whether a sync failed, so that the file must be given up.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Whether one more frame of this space keeps the block within the format's ceilings.
    pub fn fits(&self, space: u64) -> bool {
        self.len_with(space) <= format::FILE_LEN_MAX
            && self.entries.len() < format::BLOCK_FRAMES_MAX as usize
    }

    /// Length of the sealed file with one more frame of this space.
    fn len_with(&self, space: u64) -> u64 {
        self.end + space + self.seal_space() + te::LEN as u64
    }

    /// Appends a frame. After an error the block is as it was before.
    pub fn append(&mut self, frame: Frame) -> Result<u32> {
        let space = frame.info.space();
        if !self.fits(space) {
            return Err(Error::TooLong {
                what: "a block",
                len: self.len_with(space),
                max: format::FILE_LEN_MAX,
            });
        }
        let header = frame.info.header(&self.salt);
        let padding = [0; format::ALIGNMENT];
        let padding = &padding[..(space as usize - header.len() - frame.stored.len())];
        let written = self
            .file
            .write_at(self.end, &[&header, &frame.stored, padding]);
        if let Err(error) = written {
            // Gives back the room of what did get written; the seal insists on it.
            let _ = self.file.truncate(self.end);
            return Err(match Error::io("write", &self.path)(error) {
                Error::Full { path, source, .. } => Error::Full {
                    path,
                    needed_bytes: space,
                    source,
                },
                other => other,
            });
        }
        let offset = self.end as u32;
        self.entries.push(Entry {
            offset,
            info: frame.info,
        });
        self.end += space;
        self.pending_bytes += space;
        self.pending.push(frame.stored);
        Ok(offset)
    }

    /// Makes every frame durable. After an error the file must be given up; see
    /// [`BlockWriter::into_rescued`].
    pub fn sync(&mut self, vfs: &dyn Vfs) -> Result<()> {
        if self.pending.is_empty() && self.name_durable {
            return Ok(());
        }
        self.sync_file(vfs)
    }

    fn sync_file(&mut self, vfs: &dyn Vfs) -> Result<()> {
        self.suspect = true;
        self.file.sync().map_err(Error::io("sync", &self.path))?;
        if !self.name_durable {
            vfs.sync_dir(OPEN_DIR)
                .map_err(Error::io("sync", OPEN_DIR))?;
            self.name_durable = true;
        }
        self.suspect = false;
        self.durable_entries = self.entries.len();
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }

    /// Gives the file up after a failed sync: every frame again, the durable ones
    /// read back and checked, the others from memory. The file stays where it is.
    pub fn into_rescued(self) -> Result<Vec<Frame>> {
        let mut frames = Vec::with_capacity(self.entries.len());
        for entry in &self.entries[..self.durable_entries] {
            let stored = read_stored(&*self.file, &self.path, entry)?;
            frames.push(Frame {
                info: entry.info,
                stored: stored.into(),
            });
        }
        let pending = self.entries[self.durable_entries..].iter();
        frames.extend(pending.zip(self.pending).map(|(entry, stored)| Frame {
            info: entry.info,
            stored,
        }));
        Ok(frames)
    }

    /// Reads a frame back from the open file, for its own writer.
    pub fn read_back(&self, offset: u32) -> Result<Vec<u8>> {
        let at = self
            .entries
            .binary_search_by_key(&offset, |entry| entry.offset);
        let at =
            at.map_err(|_| Error::damaged(&self.path, offset.into(), "no frame starts here"))?;
        if at >= self.durable_entries {
            return Ok(self.pending[at - self.durable_entries].to_vec());
        }
        read_stored(&*self.file, &self.path, &self.entries[at])
    }

    /// Writes table of contents and trailer, syncs, and tries to move the file to its
    /// sealed name. On an error nothing was acknowledged: unless the block is
    /// suspect, sealing may be tried again; else [`BlockWriter::into_rescued`].
    pub fn seal(&mut self, vfs: &dyn Vfs, salvaged: bool) -> Result<Sealed> {
        // A block ends with its trailer; an append or a seal that failed may have left more.
        let len = self.file.len().map_err(Error::io("read", &self.path))?;
        if len > self.end {
            self.file
                .truncate(self.end)
                .map_err(Error::io("cut", &self.path))?;
        }
        let mut tail = Vec::with_capacity(self.seal_space() as usize);
        for entry in &self.entries {
            tail.extend_from_slice(&entry.info.toc_entry(entry.offset));
        }
        let artifacts = self.entries.iter().filter(|entry| entry.info.is_artifact());
        let file_len = self.end + self.seal_space();
        let mut trailer = [0; bt::LEN];
        bt::MAGIC.put(&mut trailer, &format::TRAILER_MAGIC);
        bt::FRAME_COUNT.set(&mut trailer, self.entries.len() as u32);
        bt::FLAGS.set(
            &mut trailer,
            if salvaged {
                format::TRAILER_SALVAGED
            } else {
                0
            },
        );
        bt::TOC_OFFSET.set(&mut trailer, self.end);
        bt::FILE_LEN.set(&mut trailer, file_len);
        bt::ARTIFACT_BYTES.set(
            &mut trailer,
            artifacts.map(|entry| entry.info.raw_len).sum::<u64>(),
        );
        let digest = block_digest(&self.header_bytes, &tail, &trailer);
        bt::DIGEST.put(&mut trailer, &digest.0);
        let crc = crc32c::crc32c(&trailer[..bt::CRC.offset]);
        bt::CRC.set(&mut trailer, crc);

        self.file
            .write_at(self.end, &[&tail, &trailer])
            .map_err(Error::io("write", &self.path))?;
        self.sync_file(vfs)?;
        let _ = publish(vfs, &self.path, &digest);
        Ok(Sealed {
            header: self.header,
            digest,
            file_len,
            salvaged,
            entries: std::mem::take(&mut self.entries),
        })
    }
}

/// Moves a complete, durable block file to the name that its digest gives it. At any
/// moment, and after any failure, the file has its old name or its new one.
pub fn publish(vfs: &dyn Vfs, from: &str, digest: &Digest) -> Result<()> {
    let path = sealed_path(digest);
    let dir = &path[..SEALED_DIR.len() + 3];
    vfs.create_dir(dir).map_err(Error::io("create", dir))?;
    // Always: whoever made the directory may have died before it was durable, and
    // would take everything in it along.
    vfs.sync_dir(SEALED_DIR)
        .map_err(Error::io("sync", SEALED_DIR))?;
    vfs.rename(from, &path).map_err(Error::io("rename", from))?;
    vfs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    vfs.sync_dir(OPEN_DIR).map_err(Error::io("sync", OPEN_DIR))
}

fn block_digest(header: &[u8], toc: &[u8], trailer: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(format::CONTEXT_BLOCK);
    hasher
        .update(header)
        .update(toc)
        .update(&trailer[..bt::DIGEST.offset]);
    Digest(*hasher.finalize().as_bytes())
}

/// Reads the stored bytes of one frame and checks header place and hash.
pub fn read_stored(file: &dyn VfsFile, path: &str, entry: &Entry) -> Result<Vec<u8>> {
    let stored = read_stored_unchecked(file, path, entry.offset, entry.info.stored_len)?;
    if *blake3::hash(&stored).as_bytes() != entry.info.check {
        return Err(Error::damaged(
            path,
            entry.offset.into(),
            "a frame's bytes do not match their hash",
        ));
    }
    Ok(stored)
}

/// Reads the stored bytes of a frame; the caller checks them against a key or a hash.
pub fn read_stored_unchecked(
    file: &dyn VfsFile,
    path: &str,
    offset: u32,
    stored_len: u32,
) -> Result<Vec<u8>> {
    if stored_len > format::FRAME_STORED_MAX {
        return Err(Error::damaged(
            path,
            offset.into(),
            "a length above the ceiling",
        ));
    }
    let mut stored = vec![0; stored_len as usize];
    let at = u64::from(offset) + format::frame_header::LEN as u64;
    match read_exact_at(file, at, &mut stored) {
        Ok(()) => Ok(stored),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::damaged(
            path,
            offset.into(),
            "the file ends within a frame",
        )),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Opens a block file and reads header, trailer and table of contents, all
/// checked against the digest. Frames are not read.
pub fn read_sealed(file: &dyn VfsFile, path: &str) -> Result<Sealed> {
    let len = file.len().map_err(Error::io("read", path))?;
    let shortest = (bh::LEN + bt::LEN) as u64;
    if len < shortest || len > format::FILE_LEN_MAX {
        return Err(Error::damaged(path, len, "a length that no block has"));
    }
    let read = |offset: u64, buf: &mut [u8]| {
        read_exact_at(file, offset, buf).map_err(Error::io("read", path))
    };
    let mut header_bytes = [0; bh::LEN];
    read(0, &mut header_bytes)?;
    let header = BlockHeader::decode(&header_bytes, path)?;
    let mut trailer = [0; bt::LEN];
    let trailer_at = len - bt::LEN as u64;
    read(trailer_at, &mut trailer)?;
    if bt::MAGIC.of(&trailer) != format::TRAILER_MAGIC
        || bt::CRC.u32(&trailer) != crc32c::crc32c(&trailer[..bt::CRC.offset])
    {
        return Err(Error::damaged(path, trailer_at, "no valid trailer"));
    }
    let flags = bt::FLAGS.u32(&trailer);
    if flags & !format::TRAILER_SALVAGED != 0 {
        return Err(Error::unknown_flags(path, flags));
    }
    let count = bt::FRAME_COUNT.u32(&trailer);
    let toc_offset = bt::TOC_OFFSET.get(&trailer);
    let toc_len = u64::from(count) * te::LEN as u64;
    if count > format::BLOCK_FRAMES_MAX
        || bt::FILE_LEN.get(&trailer) != len
        || toc_offset.checked_add(toc_len) != Some(trailer_at)
    {
        return Err(Error::damaged(
            path,
            trailer_at,
            "a trailer whose lengths disagree with the file",
        ));
    }
    let mut toc = vec![0; toc_len as usize];
    read(toc_offset, &mut toc)?;
    let digest = Digest(bt::DIGEST.array(&trailer));
    if block_digest(&header_bytes, &toc, &trailer) != digest {
        return Err(Error::damaged(
            path,
            toc_offset,
            "header and contents do not match the digest",
        ));
    }
    let mut entries = Vec::with_capacity(count as usize);
    let mut end = bh::LEN as u64;
    for raw in toc.chunks_exact(te::LEN) {
        let (offset, info) = FrameInfo::from_toc_entry(raw)
            .map_err(|what| Error::damaged(path, toc_offset, what))?;
        if u64::from(offset) != end {
            return Err(Error::damaged(
                path,
                toc_offset,
                "frames that are not contiguous",
            ));
        }
        end += info.space();
        entries.push(Entry { offset, info });
    }
    if end != toc_offset {
        return Err(Error::damaged(
            path,
            toc_offset,
            "frames that do not end at the contents",
        ));
    }
    let mut artifacts = entries.iter().filter(|entry| entry.info.is_artifact());
    let sum = artifacts.try_fold(0u64, |sum, entry| sum.checked_add(entry.info.raw_len));
    if sum != Some(bt::ARTIFACT_BYTES.get(&trailer)) {
        return Err(Error::damaged(
            path,
            trailer_at,
            "a trailer that does not sum up its artifacts",
        ));
    }
    let salvaged = flags & format::TRAILER_SALVAGED != 0;
    Ok(Sealed {
        header,
        digest,
        file_len: len,
        salvaged,
        entries,
    })
}

/// Every whole, valid frame of a file, wherever damage lies between them; and
/// whether each one's padding is as it was written.
pub(crate) fn whole_frames(
    file: &dyn VfsFile,
    path: &str,
    len: u64,
    salt: &FrameSalt,
) -> Result<(Vec<Entry>, bool)> {
    let mut found = Vec::new();
    let mut clean = true;
    let mut at = bh::LEN as u64;
    let mut header = [0; format::frame_header::LEN];
    while at + header.len() as u64 <= len {
        read_exact_at(file, at, &mut header).map_err(Error::io("read", path))?;
        let next = FrameInfo::from_header(&header, salt)
            .map(|info| Entry {
                offset: at as u32,
                info,
            })
            .filter(|entry| read_stored(file, path, entry).is_ok());
        match next {
            Some(entry) => {
                at += entry.info.space();
                let stored = u64::from(entry.info.stored_len);
                let mut padding = [0; format::ALIGNMENT];
                let padding = &mut padding[..(format::padded(stored) - stored) as usize];
                let intact = read_exact_at(file, at - padding.len() as u64, padding).is_ok();
                clean &= intact && padding.iter().all(|byte| *byte == 0);
                found.push(entry);
            }
            None => match next_magic(file, path, at + format::ALIGNMENT as u64, len)? {
                Some(offset) => at = offset,
                None => break,
            },
        }
    }
    Ok((found, clean))
}

/// The next aligned offset at or after `at` where a frame's magic stands.
pub(crate) fn next_magic(
    file: &dyn VfsFile,
    path: &str,
    mut at: u64,
    len: u64,
) -> Result<Option<u64>> {
    let mut window = vec![0; 1 << 20];
    while at < len {
        let got = file
            .read_at(at, &mut window)
            .map_err(Error::io("read", path))?;
        let mut slots = window[..got].chunks_exact(format::ALIGNMENT);
        if let Some(slot) = slots.position(|slot| slot[..4] == format::FRAME_MAGIC) {
            return Ok(Some(at + (slot * format::ALIGNMENT) as u64));
        }
        if got < window.len() {
            break;
        }
        at += got as u64;
    }
    Ok(None)
}
