//! The index in memory: level 0 as a map, segments with their filters.
//!
//! Lookup: the newest entry wins. Level 0 is newer than every segment, and of a
//! shard's segments the higher number is newer. A tombstone hides its key, but not
//! from those that the artifact is a part of: it keeps the place of what it hides.
//!
//! Segments are rebuilt from log and blocks: where one is missing or damaged, the
//! entries of its shard are read from there into level 0, at the cost of time and memory.
//!
//! Memory is bounded by the flush threshold, the fan-out tables and the filters
//! (about two bytes a key), not by what is stored.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use crate::block;
use crate::current;
use crate::error::{Error, Result};
use crate::filter::{self, Filter};
use crate::format;
use crate::id::{BlockId, Key};
use crate::log::LogFiles;
use crate::rebuild;
use crate::segment::{IndexRecord, Segment, SegmentRef};
use crate::state::{Level0, State};
use crate::vfs::{Access, Vfs};

/// A part of the index that could not be read; lookups go on without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, relative to the store.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

/// How completely the index knows a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardHealth {
    /// All its segments are usable.
    Whole,
    /// A segment is not, so level 0 has all entries of the shard.
    Rebuilt,
    /// A segment is not, and neither is the log: entries are missing.
    Incomplete,
}

struct Loaded {
    segment: Segment,
    of: SegmentRef,
    filter: Option<Filter>,
}

impl Loaded {
    fn may_contain(&self, key: &Key) -> bool {
        let filter = self.filter.as_ref();
        filter.is_none_or(|filter| filter.may_contain(key))
    }
}

/// An entry of level 0 as one of a set, found by its key. A map would hold every key twice,
/// and there are hundreds of thousands of them.
struct ByKey(IndexRecord);

impl Borrow<Key> for ByKey {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

/// The index of one state.
pub struct Index {
    shards: u32,
    level0: HashSet<ByKey>,
    /// By shard, newest first.
    segments: Vec<Vec<Loaded>>,
    /// By shard.
    health: Vec<ShardHealth>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

impl Index {
    /// Loads the index of `state`: tables of contents of level 0, segment tables,
    /// filters where they are intact. Damage becomes a [`Problem`], never an error.
    pub fn load(vfs: &dyn Vfs, state: &State) -> Result<Self> {
        let shards = state.params().shards;
        let mut index = Self {
            shards,
            level0: HashSet::new(),
            segments: (0..shards).map(|_| Vec::new()).collect(),
            health: vec![ShardHealth::Whole; shards as usize],
            problems: Vec::new(),
        };
        for (_, entries) in &state.level0 {
            index.add_level0(vfs, state, entries)?;
        }
        for shard in 0..shards {
            index.load_shard(vfs, state, shard)?;
        }
        if index.health.contains(&ShardHealth::Incomplete)
            && let Err(error) = index.rebuild(vfs, state)
        {
            index.problem("log".into(), &error);
        }
        Ok(index)
    }

    /// Reads the entries of incomplete shards from the log's beginning on.
    fn rebuild(&mut self, vfs: &dyn Vfs, state: &State) -> Result<()> {
        let files = LogFiles::list(vfs)?;
        let (whole, _) = current::fold(vfs, &files, state.position(), true, &mut |_| {})?;
        if whole.position() != state.position() {
            return Err(Error::LogDamaged {
                what: format!("it can be read up to record {} only", whole.position()),
            });
        }
        for (_, entries) in &whole.level0 {
            let records = match entries {
                // What a block has lost is told when it is read.
                Level0::Block(id) => rebuild::block_records(vfs, state, BlockId(*id))?.0,
                entries => rebuild::logged(entries).collect(),
            };
            for record in records {
                if self.health(record.key.shard(self.shards)) == ShardHealth::Incomplete {
                    self.insert(record);
                }
            }
        }
        for health in &mut self.health {
            if *health == ShardHealth::Incomplete {
                *health = ShardHealth::Rebuilt;
            }
        }
        Ok(())
    }

    /// How completely a shard is known.
    pub fn health(&self, shard: u32) -> ShardHealth {
        self.health[shard as usize]
    }

    fn add_level0(&mut self, vfs: &dyn Vfs, state: &State, entries: &Level0) -> Result<()> {
        let Level0::Block(id) = entries else {
            self.insert_logged(entries);
            return Ok(());
        };
        let (records, error) = rebuild::block_records(vfs, state, BlockId(*id))?;
        records.into_iter().for_each(|record| self.insert(record));
        if let Some(error) = error {
            self.problem(block_path(state, BlockId(*id)), &error);
        }
        Ok(())
    }

    /// Adds the entries that a log record holds itself; a block's are in the block.
    pub fn insert_logged(&mut self, entries: &Level0) {
        rebuild::logged(entries).for_each(|record| self.insert(record));
    }

    /// Loads the segments of one shard again.
    pub fn load_shard(&mut self, vfs: &dyn Vfs, state: &State, shard: u32) -> Result<()> {
        let wanted = state.segments_of(shard);
        if wanted.is_empty() {
            self.segments[shard as usize].clear();
            self.health[shard as usize] = ShardHealth::Whole;
            return Ok(());
        }
        let mut filters = read_filters(vfs, shard).unwrap_or_default();
        let mut loaded = Vec::with_capacity(wanted.len());
        self.health[shard as usize] = ShardHealth::Whole;
        for of in wanted.into_iter().rev() {
            match Segment::open(vfs, state.store_id(), &of) {
                Ok(segment) => {
                    let at = filters.iter().position(|(number, digest, _)| {
                        (*number, *digest) == (of.number, of.digest)
                    });
                    let filter = at.map(|at| filters.swap_remove(at).2);
                    loaded.push(Loaded {
                        segment,
                        of,
                        filter,
                    });
                }
                Err(error @ Error::NewerFormat { .. }) => return Err(error),
                Err(error) => {
                    self.health[shard as usize] = ShardHealth::Incomplete;
                    self.problem(crate::segment::segment_path(of.shard, of.number), &error)
                }
            }
        }
        self.segments[shard as usize] = loaded;
        Ok(())
    }

    fn problem(&mut self, path: String, error: &Error) {
        let what = match error {
            Error::Damaged { what, .. } => what.clone(),
            Error::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        self.problems.push(Problem { path, what });
    }

    /// Adds an entry of level 0; it hides older ones.
    pub fn insert(&mut self, record: IndexRecord) {
        let older = self.level0.get(&record.key);
        let newest = older.map_or(record, |older| rebuild::newer(older.0, record));
        self.level0.replace(ByKey(newest));
    }

    /// Entries in level 0.
    pub fn level0_len(&self) -> usize {
        self.level0.len()
    }

    /// Level 0's entries in key order.
    pub fn level0_sorted(&self) -> Vec<&IndexRecord> {
        let mut records: Vec<_> = self.level0.iter().map(|entry| &entry.0).collect();
        records.sort_unstable_by_key(|record| record.key);
        records
    }

    /// Forgets level 0: a flush made it segments.
    pub fn clear_level0(&mut self) {
        self.level0 = HashSet::new();
    }

    /// The newest entry of `key`, tombstones included.
    pub fn newest(&self, key: &Key) -> Result<Option<IndexRecord>> {
        if let Some(entry) = self.level0.get(key) {
            return Ok(Some(entry.0));
        }
        for loaded in &self.segments[key.shard(self.shards) as usize] {
            if loaded.may_contain(key)
                && let Some(record) = loaded.segment.lookup(key)?
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Where the artifact of `key` is, hidden or not: for those that it is a part of.
    pub fn stored(&self, key: &Key) -> Result<Option<IndexRecord>> {
        let placed = |record: &IndexRecord| record.has_place().then(|| record.revealed());
        if let Some(found) = self.level0.get(key).and_then(|entry| placed(&entry.0)) {
            return Ok(Some(found));
        }
        for loaded in &self.segments[key.shard(self.shards) as usize] {
            if loaded.may_contain(key)
                && let Some(found) = loaded.segment.lookup(key)?.as_ref().and_then(placed)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The newest entry of every key, in key order, tombstones included.
    pub fn iter(&self) -> impl Iterator<Item = Result<IndexRecord>> + '_ {
        let level0 = self.level0_sorted();
        let mut from = 0;
        (0..self.shards).flat_map(move |shard| {
            let of_shard =
                level0[from..].partition_point(|record| record.key.shard(self.shards) == shard);
            let newest = level0[from..from + of_shard].iter();
            let newest = newest.map(|record| **record).collect();
            from += of_shard;
            self.merged(shard, newest)
        })
    }

    /// All entries of a shard in key order, the newest of each key, tombstones
    /// included: `newest` (sorted) over its segments.
    pub fn merged(
        &self,
        shard: u32,
        newest: Vec<IndexRecord>,
    ) -> impl Iterator<Item = Result<IndexRecord>> + '_ {
        let mut sources: Vec<
            std::iter::Peekable<Box<dyn Iterator<Item = Result<IndexRecord>> + '_>>,
        > = Vec::new();
        sources
            .push((Box::new(newest.into_iter().map(Ok)) as Box<dyn Iterator<Item = _>>).peekable());
        for loaded in &self.segments[shard as usize] {
            sources
                .push((Box::new(loaded.segment.iter()) as Box<dyn Iterator<Item = _>>).peekable());
        }
        std::iter::from_fn(move || {
            let mut least: Option<(usize, Key)> = None;
            for (at, source) in sources.iter_mut().enumerate() {
                match source.peek() {
                    Some(Ok(record)) if least.is_none_or(|(_, key)| record.key < key) => {
                        least = Some((at, record.key))
                    }
                    Some(Err(_)) => return source.next(),
                    _ => {}
                }
            }
            let (at, key) = least?;
            let mut newest = sources[at].next()?.ok()?;
            for source in &mut sources[at + 1..] {
                while let Some(Ok(older)) =
                    source.next_if(|other| other.as_ref().is_ok_and(|other| other.key == key))
                {
                    newest = rebuild::newer(older, newest);
                }
            }
            Some(Ok(newest))
        })
    }

    /// Forgets the filters of a shard that deny what their segment holds.
    pub(crate) fn drop_false_filters(&mut self, shard: u32) {
        for loaded in &mut self.segments[shard as usize] {
            let Some(filter) = &loaded.filter else {
                continue;
            };
            let mut records = loaded.segment.iter();
            if records.any(|record| record.is_ok_and(|record| !filter.may_contain(&record.key))) {
                loaded.filter = None;
            }
        }
    }

    /// Builds the filters that are missing in a shard and writes its filter file
    /// anew. Returns whether it wrote.
    pub fn refresh_filters(&mut self, vfs: &dyn Vfs, shard: u32) -> Result<bool> {
        let loaded = &mut self.segments[shard as usize];
        if loaded.iter().all(|loaded| loaded.filter.is_some()) {
            return Ok(false);
        }
        for loaded in loaded.iter_mut().filter(|loaded| loaded.filter.is_none()) {
            let mut filter = Filter::new(loaded.of.entries);
            for record in loaded.segment.iter() {
                filter.insert(&record?.key);
            }
            loaded.filter = Some(filter);
        }
        let filters: Vec<_> = loaded
            .iter()
            .filter_map(|l| Some((l.of, l.filter.as_ref()?)))
            .collect();
        let bytes = filter::encode(shard, &filters);
        replace_file(vfs, &filter::filter_path(shard), &bytes)?;
        Ok(true)
    }
}

/// The index records of a block's artifacts.
pub fn records_of(id: BlockId, sealed: &block::Sealed) -> impl Iterator<Item = IndexRecord> + '_ {
    let entries = sealed.entries.iter();
    entries.filter_map(move |entry| record_of(id, entry))
}

/// The index record of one frame, if it is an artifact.
pub fn record_of(id: BlockId, entry: &block::Entry) -> Option<IndexRecord> {
    let info = &entry.info;
    info.is_artifact().then_some(IndexRecord {
        key: info.key,
        block: id,
        offset: entry.offset,
        stored_len: info.stored_len,
        raw_len: info.raw_len,
        flags: info.flags & (format::FLAG_ROOT | format::FLAG_NODE),
        encoding: info.encoding,
    })
}

/// Where the block's file ought to be.
pub fn block_path(state: &State, id: BlockId) -> String {
    match state.block(id) {
        Some(info) => block::sealed_path(&crate::id::Digest(info.digest)),
        None => block::open_path(id),
    }
}

/// Opens a block that the log names: at its sealed name, or under `open/` where a
/// rename did not survive a power cut.
pub fn open_block(
    vfs: &dyn Vfs,
    state: &State,
    id: BlockId,
) -> Result<(Box<dyn crate::vfs::VfsFile>, String)> {
    let path = block_path(state, id);
    let Some(info) = state.block(id) else {
        return Err(Error::damaged(&path, 0, "a block that no log record names"));
    };
    let (file, path) = match vfs.open(&path, Access::Read) {
        Ok(file) => (file, path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let open = block::open_path(id);
            match vfs.open(&open, Access::Read) {
                Ok(file) => (file, open),
                Err(_) => return Err(Error::damaged(&path, 0, "the file is missing")),
            }
        }
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let len = file.len().map_err(Error::io("read", &path))?;
    if len != info.file_len {
        let what = format!("{len} bytes long, the log says {}", info.file_len);
        return Err(Error::damaged(&path, len, what));
    }
    Ok((file, path))
}

fn read_filters(vfs: &dyn Vfs, shard: u32) -> Option<Vec<(u32, crate::id::Digest, Filter)>> {
    filter::decode(shard, &read_file(vfs, &filter::filter_path(shard)).ok()?)
}

/// Reads a whole file of at most [`format::FILE_LEN_MAX`] bytes.
pub fn read_file(vfs: &dyn Vfs, path: &str) -> Result<Vec<u8>> {
    let file = vfs
        .open(path, Access::Read)
        .map_err(Error::io("open", path))?;
    let len = file.len().map_err(Error::io("read", path))?;
    if len > format::FILE_LEN_MAX {
        return Err(Error::damaged(path, len, "longer than any file of a store"));
    }
    let mut bytes = vec![0; len as usize];
    crate::vfs::read_exact_at(&*file, 0, &mut bytes).map_err(Error::io("read", path))?;
    Ok(bytes)
}

/// Replaces a small file: written beside it, synced, renamed. For caches and
/// hints only; nothing that matters depends on the rename.
pub fn replace_file(vfs: &dyn Vfs, path: &str, bytes: &[u8]) -> Result<()> {
    let scratch = format!("{path}.new");
    if vfs.metadata(&scratch).is_ok() {
        vfs.remove(&scratch)
            .map_err(Error::io("remove", &scratch))?;
    }
    let file = vfs
        .create_exclusive(&scratch)
        .map_err(Error::io("create", &scratch))?;
    file.write_at(0, &[bytes])
        .map_err(Error::io("write", &scratch))?;
    file.sync().map_err(Error::io("sync", &scratch))?;
    drop(file);
    vfs.rename(&scratch, path)
        .map_err(Error::io("rename", &scratch))?;
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    vfs.sync_dir(dir).map_err(Error::io("sync", dir))
}
