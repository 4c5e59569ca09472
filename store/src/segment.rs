//! Index segments: sorted, immutable maps from key to where its frame lies.
//!
//! A segment holds the keys of one shard in fixed-width records, 63 to a page of
//! 4096 bytes, each page with its checksum. A fan-out table over the bits after
//! the shard's says which records can hold a key, so a lookup is one bounded
//! read. Nothing is mapped into memory: a removable medium that vanishes gives
//! an error, not SIGBUS.
//!
//! Crash: a segment is written under its final name and synced before the log
//! names it; one that the log does not name is garbage and is overwritten.

use crate::error::{Error, Result};
use crate::format::{
    self, PAGE_LEN, PAGE_RECORDS, index_record as ir, page_foot as pf, segment_header as sh,
};
use crate::id::{BlockId, Digest, Key, Location, StoreId};
use crate::vfs::{Access, Vfs, VfsFile, read_exact_at};

/// Where one key leads: an index record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRecord {
    /// The artifact.
    pub key: Key,
    /// The block that holds its frame; 0 in a tombstone that does not know it.
    pub block: BlockId,
    /// Bytes from the start of the block file to the frame's header.
    pub offset: u32,
    /// Bytes stored.
    pub stored_len: u32,
    /// Bytes of the artifact.
    pub raw_len: u64,
    /// `format::FLAG_*`.
    pub flags: u16,
    /// `format::ENCODING_*`.
    pub encoding: u8,
}

impl IndexRecord {
    /// A record that hides `key`.
    pub fn tombstone(key: Key) -> Self {
        let flags = format::FLAG_TOMBSTONE;
        Self {
            key,
            block: BlockId(0),
            offset: 0,
            stored_len: 0,
            raw_len: 0,
            flags,
            encoding: 0,
        }
    }
    /// Whether it hides its key.
    pub fn is_tombstone(&self) -> bool {
        self.flags & format::FLAG_TOMBSTONE != 0
    }
    /// Whether it says where the artifact is: always, but for some tombstones.
    pub fn has_place(&self) -> bool {
        self.block.0 != 0
    }
    /// The tombstone that remembers this place: what is hidden may still be part
    /// of something that is not.
    pub fn hidden(self) -> Self {
        let flags = self.flags | format::FLAG_TOMBSTONE;
        Self { flags, ..self }
    }
    /// The entry that a tombstone remembers.
    pub fn revealed(self) -> Self {
        let flags = self.flags & !format::FLAG_TOMBSTONE;
        Self { flags, ..self }
    }
    /// Whether somebody put or captured it.
    pub fn is_root(&self) -> bool {
        self.flags & format::FLAG_ROOT != 0
    }
    /// `(block, offset, length)`.
    pub fn location(&self) -> Location {
        Location {
            block: self.block,
            offset: self.offset,
            len: self.raw_len,
        }
    }
    /// The record as it stands on disk.
    pub fn encode(&self, buf: &mut [u8]) {
        ir::KEY.put(buf, &self.key.0);
        ir::BLOCK_ID.set(buf, self.block.0);
        ir::OFFSET.set(buf, self.offset);
        ir::STORED_LEN.set(buf, self.stored_len);
        ir::RAW_LEN.set(buf, self.raw_len);
        ir::FLAGS.set(buf, self.flags);
        ir::ENCODING.set(buf, self.encoding);
    }
    /// Reads a record.
    pub fn decode(buf: &[u8]) -> Self {
        Self {
            key: Key(ir::KEY.array(buf)),
            block: BlockId(ir::BLOCK_ID.get(buf)),
            offset: ir::OFFSET.u32(buf),
            stored_len: ir::STORED_LEN.u32(buf),
            raw_len: ir::RAW_LEN.get(buf),
            flags: ir::FLAGS.u16(buf),
            encoding: ir::ENCODING.u8(buf),
        }
    }
}

/// A segment as the log names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentRef {
    /// The shard it indexes.
    pub shard: u32,
    /// Its number within the shard; higher is newer.
    pub number: u32,
    /// Records in it.
    pub entries: u64,
    /// Digest of the whole file.
    pub digest: Digest,
}

/// Directory of a shard.
pub fn shard_dir(shard: u32) -> String {
    format!("index/shard-{shard:03x}")
}

/// Path of a segment.
pub fn segment_path(shard: u32, number: u32) -> String {
    format!("{}/segment-{number:04}.idx", shard_dir(shard))
}

/// Which bucket of a fan-out table with `bits` bits a key falls into.
pub(crate) fn bucket(key: &Key, shards: u32, bits: u32) -> usize {
    let head = u64::from_be_bytes(key.0[..8].try_into().expect("eight bytes"));
    let head = head << shards.trailing_zeros();
    head.checked_shr(64 - bits).unwrap_or(0) as usize
}

/// Writes one segment from records in strictly ascending key order, of which there
/// are at most `count_max`; syncs it. The directory is synced by the caller.
pub fn write_segment(
    vfs: &dyn Vfs,
    store_id: StoreId,
    (shards, shard, number): (u32, u32, u32),
    (count_max, covers): (u64, u64),
    records: &mut dyn Iterator<Item = Result<IndexRecord>>,
) -> Result<SegmentRef> {
    let path = segment_path(shard, number);
    if vfs.metadata(&path).is_ok() {
        vfs.remove(&path).map_err(Error::io("remove", &path))?;
    }
    let file = vfs
        .create_exclusive(&path)
        .map_err(Error::io("create", &path))?;
    let write = |offset: u64, bytes: &[u8]| {
        file.write_at(offset, &[bytes])
            .map_err(Error::io("write", &path))
    };

    let bits = (count_max / 32 + 1)
        .next_power_of_two()
        .trailing_zeros()
        .min(format::FANOUT_BITS_MAX);
    let table_len = ((1usize << bits) + 1) * 4;
    let pages_offset = (sh::LEN + table_len).next_multiple_of(PAGE_LEN);
    let mut counts = vec![0u32; (1 << bits) + 1];
    let mut pages = Vec::with_capacity(64 * PAGE_LEN);
    let mut written = 0u64;
    let mut page = Page::default();
    let mut last: Option<Key> = None;
    for record in records {
        let record = record?;
        assert!(last < Some(record.key), "records of a segment ascend");
        last = Some(record.key);
        counts[bucket(&record.key, shards, bits) + 1] += 1;
        page.push(&record);
        if page.count == PAGE_RECORDS {
            page.flush(&mut pages);
            if pages.len() == 64 * PAGE_LEN {
                write(pages_offset as u64 + written, &pages)?;
                written += pages.len() as u64;
                pages.clear();
            }
        }
    }
    let entries = page.total + page.count as u64;
    if page.count > 0 {
        page.flush(&mut pages);
    }
    write(pages_offset as u64 + written, &pages)?;
    for at in 1..counts.len() {
        counts[at] += counts[at - 1];
    }
    let mut head = vec![0; pages_offset];
    let table: Vec<u8> = counts
        .iter()
        .flat_map(|count| count.to_le_bytes())
        .collect();
    head[sh::LEN..sh::LEN + table_len].copy_from_slice(&table);
    sh::MAGIC.put(&mut head, &format::SEGMENT_MAGIC);
    sh::VERSION.set(&mut head, format::FORMAT_VERSION);
    sh::SHARD.set(&mut head, shard);
    sh::SHARDS.set(&mut head, shards);
    sh::NUMBER.set(&mut head, number);
    sh::STORE_ID.put(&mut head, &store_id.0);
    sh::ENTRIES.set(&mut head, entries);
    sh::COVERS.set(&mut head, covers);
    sh::FANOUT_BITS.set(&mut head, bits);
    sh::FANOUT_CRC.set(&mut head, crc32c::crc32c(&table));
    sh::PAGES_OFFSET.set(&mut head, pages_offset as u64);
    let crc = crc32c::crc32c(&head[..sh::CRC.offset]);
    sh::CRC.set(&mut head, crc);
    write(0, &head)?;
    file.sync().map_err(Error::io("sync", &path))?;
    let digest = segment_digest(&*file, &path)?;
    Ok(SegmentRef {
        shard,
        number,
        entries,
        digest,
    })
}

#[derive(Default)]
struct Page {
    buf: Vec<u8>,
    count: usize,
    index: u32,
    total: u64,
}

impl Page {
    fn push(&mut self, record: &IndexRecord) {
        self.buf.resize(PAGE_LEN, 0);
        record.encode(&mut self.buf[self.count * ir::LEN..][..ir::LEN]);
        self.count += 1;
    }
    fn flush(&mut self, out: &mut Vec<u8>) {
        let foot = PAGE_RECORDS * ir::LEN;
        pf::PAGE.set(&mut self.buf[foot..], self.index);
        pf::COUNT.set(&mut self.buf[foot..], self.count as u32);
        let crc = crc32c::crc32c(&self.buf[..foot + pf::CRC.offset]);
        pf::CRC.set(&mut self.buf[foot..], crc);
        out.append(&mut self.buf);
        self.total += self.count as u64;
        self.index += 1;
        self.count = 0;
    }
}

/// Digest of a segment file, read whole.
pub fn segment_digest(file: &dyn VfsFile, path: &str) -> Result<Digest> {
    let mut hasher = blake3::Hasher::new_derive_key(format::CONTEXT_SEGMENT);
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let got = file
            .read_at(at, &mut buf)
            .map_err(Error::io("read", path))?;
        if got == 0 {
            return Ok(Digest(*hasher.finalize().as_bytes()));
        }
        hasher.update(&buf[..got]);
        at += got as u64;
    }
}

/// An open segment.
pub struct Segment {
    file: Box<dyn VfsFile>,
    path: String,
    shards: u32,
    bits: u32,
    counts: Vec<u32>,
    pages_offset: u64,
    entries: u64,
}

impl Segment {
    /// Opens a segment and reads its fan-out table; pages are checked as they are read.
    pub fn open(vfs: &dyn Vfs, store_id: StoreId, wanted: &SegmentRef) -> Result<Self> {
        let path = segment_path(wanted.shard, wanted.number);
        let file = vfs
            .open(&path, Access::Read)
            .map_err(Error::io("open", &path))?;
        let mut head = [0; sh::LEN];
        let damaged = |what: &str| Error::damaged(&path, 0, what);
        read_exact_at(&*file, 0, &mut head).map_err(|_| damaged("shorter than its header"))?;
        if sh::MAGIC.of(&head) != format::SEGMENT_MAGIC
            || sh::CRC.u32(&head) != crc32c::crc32c(&head[..sh::CRC.offset])
        {
            return Err(damaged("not a valid segment header"));
        }
        let version = sh::VERSION.u16(&head);
        if version > format::FORMAT_VERSION {
            return Err(Error::NewerFormat { path, version });
        }
        let bits = sh::FANOUT_BITS.u32(&head);
        let entries = sh::ENTRIES.get(&head);
        let shards = sh::SHARDS.u32(&head);
        if bits > format::FANOUT_BITS_MAX
            || !shards.is_power_of_two()
            || sh::STORE_ID.of(&head) != store_id.0
            || (sh::SHARD.u32(&head), sh::NUMBER.u32(&head)) != (wanted.shard, wanted.number)
            || entries != wanted.entries
        {
            return Err(damaged("not the segment that the log names"));
        }
        let mut table = vec![0; ((1usize << bits) + 1) * 4];
        read_exact_at(&*file, sh::LEN as u64, &mut table)
            .map_err(|_| damaged("shorter than its table"))?;
        if sh::FANOUT_CRC.u32(&head) != crc32c::crc32c(&table) {
            return Err(damaged("the fan-out table's checksum does not match"));
        }
        let counts: Vec<u32> = table
            .chunks_exact(4)
            .map(|count| u32::from_le_bytes(count.try_into().expect("four bytes")))
            .collect();
        if !counts.is_sorted() || counts.last().copied().map(u64::from) != Some(entries) {
            return Err(damaged("a fan-out table that does not count its records"));
        }
        let pages_offset = sh::PAGES_OFFSET.get(&head);
        if pages_offset > format::FILE_LEN_MAX {
            return Err(damaged("pages beyond the end of any file"));
        }
        Ok(Self {
            file,
            path,
            shards,
            bits,
            counts,
            pages_offset,
            entries,
        })
    }

    /// The fan-out table.
    pub(crate) fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Digest of the whole file, to be compared with the log's.
    pub fn digest(&self) -> Result<Digest> {
        segment_digest(&*self.file, &self.path)
    }

    /// The record of `key`, if this segment has one (a tombstone is one).
    pub fn lookup(&self, key: &Key) -> Result<Option<IndexRecord>> {
        let bucket = bucket(key, self.shards, self.bits);
        let (from, to) = (
            self.counts[bucket] as usize,
            self.counts[bucket + 1] as usize,
        );
        if from == to {
            return Ok(None);
        }
        let (mut low, mut high) = (from / PAGE_RECORDS, (to - 1) / PAGE_RECORDS);
        // Keys are hashes, so a bucket spans a page or two; hostile keys may span more.
        while high - low > 3 {
            let middle = low + (high - low) / 2;
            let page = self.pages(middle, 1)?;
            if page.first().is_none_or(|first| first.key > *key) {
                high = middle;
            } else {
                low = middle;
            }
        }
        let records = self.pages(low, high - low + 1)?;
        let at = records.binary_search_by_key(key, |record| record.key);
        Ok(at.ok().map(|at| records[at]))
    }

    /// All records in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<IndexRecord>> + '_ {
        const BATCH: usize = 16;
        let pages = (self.entries as usize).div_ceil(PAGE_RECORDS);
        (0..pages).step_by(BATCH).flat_map(move |first| {
            match self.pages(first, BATCH.min(pages - first)) {
                Ok(records) => records.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            }
        })
    }

    /// Reads and checks `count` pages.
    fn pages(&self, first: usize, count: usize) -> Result<Vec<IndexRecord>> {
        let at = self.pages_offset + (first * PAGE_LEN) as u64;
        let damaged = |what| Error::damaged(&self.path, at, what);
        let mut buf = vec![0; count * PAGE_LEN];
        match read_exact_at(&*self.file, at, &mut buf) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(damaged("the file ends within a page"));
            }
            Err(error) => return Err(Error::io("read", &self.path)(error)),
        }
        let mut records = Vec::with_capacity(count * PAGE_RECORDS);
        for (index, page) in buf.chunks_exact(PAGE_LEN).enumerate() {
            let (body, foot) = page.split_at(PAGE_RECORDS * ir::LEN);
            let held = pf::COUNT.u32(foot) as usize;
            if pf::CRC.u32(foot) != crc32c::crc32c(&page[..body.len() + pf::CRC.offset])
                || pf::PAGE.u32(foot) as usize != first + index
                || held > PAGE_RECORDS
            {
                return Err(damaged("a page's checksum does not match"));
            }
            records.extend(
                body.chunks_exact(ir::LEN)
                    .take(held)
                    .map(IndexRecord::decode),
            );
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::fault::FaultVfs;

    fn record(n: u64) -> IndexRecord {
        let key = Key::of(&n.to_le_bytes());
        IndexRecord {
            key,
            block: BlockId(n),
            offset: 256,
            stored_len: 9,
            raw_len: n,
            flags: 1,
            encoding: 0,
        }
    }

    fn build(vfs: &FaultVfs, count: u64, slack: u64) -> (SegmentRef, Vec<IndexRecord>) {
        let mut records: Vec<_> = (0..)
            .map(record)
            .filter(|r| r.key.shard(4) == 2)
            .take(count as usize)
            .collect();
        records.sort_by_key(|record| record.key);
        for dir in ["index", "index/shard-002"] {
            vfs.create_dir(dir).unwrap();
        }
        let mut items = records.iter().copied().map(Ok);
        let made = write_segment(
            vfs,
            StoreId([1; 16]),
            (4, 2, 7),
            (count + slack, 5),
            &mut items,
        )
        .unwrap();
        (made, records)
    }

    /// Covers I4 in part: every key of a segment is found, no other is.
    #[test]
    fn every_key_is_found_and_no_other() {
        for (count, slack) in [
            (0, 0),
            (1, 0),
            (62, 0),
            (63, 5000),
            (64, 0),
            (5000, 0),
            (5000, 90_000),
        ] {
            let vfs = FaultVfs::new();
            let (made, records) = build(&vfs, count, slack);
            let segment = Segment::open(&vfs, StoreId([1; 16]), &made).unwrap();
            assert_eq!(segment.digest().unwrap(), made.digest);
            for record in &records {
                assert_eq!(segment.lookup(&record.key).unwrap().as_ref(), Some(record));
            }
            for n in 1_000_000..1_000_300 {
                assert_eq!(segment.lookup(&record(n).key).unwrap(), None);
            }
            let all: Vec<_> = segment.iter().map(Result::unwrap).collect();
            assert_eq!(all, records);
        }
    }

    #[test]
    fn a_flipped_byte_never_gives_a_wrong_record() {
        let vfs = FaultVfs::new();
        let (made, records) = build(&vfs, 200, 0);
        let path = segment_path(2, 7);
        for offset in 0..vfs.read_file(&path).unwrap().len() as u64 {
            let damaged = vfs.fork();
            damaged.flip_byte(&path, offset).unwrap();
            let Ok(segment) = Segment::open(&damaged, StoreId([1; 16]), &made) else {
                continue;
            };
            assert_ne!(segment.digest().unwrap(), made.digest);
            for record in records.iter().step_by(17) {
                if let Ok(found) = segment.lookup(&record.key) {
                    assert_eq!(found.as_ref(), Some(record), "byte {offset}");
                }
            }
        }
    }

    #[test]
    fn keys_of_one_bucket_may_fill_many_pages() {
        let vfs = FaultVfs::new();
        vfs.create_dir("index").unwrap();
        vfs.create_dir("index/shard-000").unwrap();
        let made = |n: u32| {
            let mut key = Key([0; 32]);
            key.0[28..].copy_from_slice(&n.to_be_bytes());
            IndexRecord {
                key,
                ..record(u64::from(n))
            }
        };
        let mut items = (0..3000).map(|n| Ok(made(n * 2)));
        let segment =
            write_segment(&vfs, StoreId([1; 16]), (1, 0, 0), (3000, 0), &mut items).unwrap();
        let segment = Segment::open(&vfs, StoreId([1; 16]), &segment).unwrap();
        for n in 0..6000 {
            assert_eq!(
                segment.lookup(&made(n).key).unwrap().is_some(),
                n % 2 == 0,
                "{n}"
            );
        }
    }
}
