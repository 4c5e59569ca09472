//! A store opened for reading: CURRENT, or `Index(S, P)`. What is visible in it, over all instances, is in `union`.
//!
//! A handle is a fixed view: it takes no lock, writes nothing and works on a
//! read-only mount. Artifacts are checked against their keys whenever they are
//! read, so wrong bytes are never returned. The writer shares its handle with
//! threads that look keys up while it adds to it.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, RwLockReadGuard, RwLockWriteGuard};

use crate::block::{self, BlockHeader};
use crate::current;
use crate::error::{Error, Result};
use crate::format;
use crate::frame::{self, FrameInfo, FrameSalt};
use crate::home::{self, Home};
use crate::id::{BlockId, Digest, Key, Location, LogPosition, SnapshotId};
use crate::index::{Index, Problem, open_block, record_of};
use crate::instances::{self, Instance};
use crate::log::LogEnd;
use crate::segment::IndexRecord;
use crate::state::{SnapshotInfo, State};
use crate::vfs::{Vfs, VfsFile, read_exact_at};

/// Block files kept open at once.
const OPEN_FILES_MAX: usize = 48;

pub(crate) struct OpenFile {
    file: Box<dyn VfsFile>,
    path: String,
    salt: FrameSalt,
}

#[derive(Default)]
struct FileCache {
    files: HashMap<BlockId, Arc<OpenFile>>,
    order: VecDeque<BlockId>,
}

/// State and index, changed only by a writer.
pub(crate) struct View {
    pub(crate) state: State,
    pub(crate) index: Index,
}

/// Which instances show what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of them.
    All,
    /// The own one; the others lend parts.
    Own,
}

struct Shared {
    /// The instance that a writer appends to.
    own: Arc<Instance>,
    /// The others, by their ids.
    others: Vec<Arc<Instance>>,
    /// What lies beside them and could not be opened.
    unopened: Vec<Problem>,
    scope: Scope,
    files: Mutex<FileCache>,
}

/// Buffers of a thread that reads many artifacts; see [`StoreHandle::read_entry`].
#[derive(Default)]
pub struct Scratch {
    frame: Vec<u8>,
    raw: Vec<u8>,
    decoder: frame::Decoder,
}

/// An open store. Cloning is cheap and shares the view.
#[derive(Clone)]
pub struct StoreHandle(Arc<Shared>);

impl StoreHandle {
    /// Opens a store at CURRENT, for reading: the instance at the top of the directory, and all others in it.
    pub fn open(vfs: Arc<dyn Vfs>) -> Result<Self> {
        Self::open_at_home(vfs, None)
    }

    /// The same for who is at `home`: the own instance is the one that a writer there would go on with, if there is one yet, so
    /// that what is told of the own log is told of that.
    pub fn open_at_home(vfs: Arc<dyn Vfs>, home: Option<&Home>) -> Result<Self> {
        let primary = Instance::open(vfs.clone(), String::new());
        let (mut others, mut unopened) = instances::open_others(&vfs)?;
        let here = match &primary {
            Ok(primary) => home::is_written(&*vfs, primary.view().state.home(), home),
            Err(error) if instances::is_beyond(error) => return primary.map(Self::one),
            Err(_) => false,
        };
        let known = home.and_then(|home| home::find(&others, Some(home)));
        let own = match (known, primary) {
            (Some(at), primary) if !here => {
                let own = others.remove(at);
                match primary {
                    Ok(primary) => others.push(Arc::new(primary)),
                    Err(error) => unopened.push(Problem {
                        path: crate::log::LOG_DIR.to_owned(),
                        what: error.to_string(),
                    }),
                }
                others.sort_by_key(|other| other.view().state.store_id());
                own
            }
            (_, primary) => Arc::new(primary?),
        };
        Ok(Self::union(own, others, unopened))
    }

    /// Opens only the instance at the top of these files.
    pub fn open_one(vfs: Arc<dyn Vfs>) -> Result<Self> {
        Ok(Self::one(Instance::open(vfs, String::new())?))
    }

    fn one(own: Instance) -> Self {
        Self::union(Arc::new(own), Vec::new(), Vec::new())
    }

    /// The view over `own` and `others`, which are in the order of their ids.
    pub(crate) fn union(
        own: Arc<Instance>,
        others: Vec<Arc<Instance>>,
        unopened: Vec<Problem>,
    ) -> Self {
        Self(Arc::new(Shared {
            own,
            others,
            unopened,
            scope: Scope::All,
            files: Mutex::default(),
        }))
    }

    pub(crate) fn parts(&self) -> (&Arc<Instance>, &[Arc<Instance>]) {
        (&self.0.own, &self.0.others)
    }

    pub(crate) fn unopened(&self) -> &[Problem] {
        &self.0.unopened
    }

    pub(crate) fn scope(&self) -> Scope {
        self.0.scope
    }

    /// Each instance by itself, the own one first, the others in the order of their ids.
    pub fn instances(&self) -> Vec<Self> {
        let all = std::iter::once(&self.0.own).chain(&self.0.others);
        all.map(|one| Self::union(one.clone(), Vec::new(), Vec::new()))
            .collect()
    }

    /// Each instance as its own log has it, in the same order: the others show nothing, and lend it parts.
    pub fn members(&self) -> Vec<Self> {
        let all: Vec<Arc<Instance>> = self.all().cloned().collect();
        (0..all.len())
            .map(|own| {
                let mut others = all.clone();
                let own = others.remove(own);
                others.sort_by_key(|other| other.view().state.store_id());
                Self(Arc::new(Shared {
                    own,
                    others,
                    unopened: Vec::new(),
                    scope: Scope::Own,
                    files: Mutex::default(),
                }))
            })
            .collect()
    }

    /// Opens `Index(S, P)` of the own instance; without a position, the snapshot itself.
    pub fn at(&self, snapshot: &str, position: Option<LogPosition>) -> Result<Self> {
        let (info, end) = {
            let view = self.view();
            (find_snapshot(&view.state, snapshot)?, view.state.position())
        };
        let position = position.unwrap_or(LogPosition(info.position));
        let state = current::at(&*self.0.own.vfs, &info, position, end)?;
        let vfs = self.0.own.vfs.clone();
        let prefix = self.0.own.prefix.clone();
        let own = Instance::of_state(vfs, prefix, state, LogEnd::Clean)?;
        Ok(Self(Arc::new(Shared {
            own: Arc::new(own),
            others: self.0.others.clone(),
            unopened: Vec::new(),
            scope: Scope::Own,
            files: Mutex::default(),
        })))
    }

    /// The files of the own instance.
    pub fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.0.own.vfs
    }

    /// How the own instance's log ended when the store was opened.
    pub fn log_end(&self) -> &LogEnd {
        &self.0.own.end
    }

    /// A copy of the own instance's state: blocks, sessions, snapshots, position.
    pub fn state(&self) -> State {
        self.view().state.clone()
    }

    /// Runs `read` on the own instance's state without copying it.
    pub fn with_state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.view().state)
    }

    pub(crate) fn view(&self) -> RwLockReadGuard<'_, View> {
        self.0.own.view()
    }

    pub(crate) fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.0.own.view_mut()
    }

    fn files(&self) -> MutexGuard<'_, FileCache> {
        self.0
            .files
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Where an artifact lies: `(block, offset, length)`.
    pub fn locate(&self, key: &Key) -> Result<Location> {
        self.lookup(key)?
            .map(|record| record.location())
            .ok_or(Error::NotFound(*key))
    }

    /// Reads the artifact at a location: the contract between names and blocks.
    /// Chunk lists are followed; their artifact must fit in memory.
    pub fn read(&self, location: &Location) -> Result<Vec<u8>> {
        let open = self.open_file(location.block)?;
        let info = read_header(&open, location.offset)?;
        if info.raw_len != location.len || !info.is_artifact() {
            return Err(Error::damaged(
                &open.path,
                location.offset.into(),
                "not the artifact of this location",
            ));
        }
        let entry = block::Entry {
            offset: location.offset,
            info,
        };
        record_of(location.block, &entry).map_or(Err(Error::NotFound(info.key)), |record| {
            self.get_record(&record)
        })
    }

    /// An artifact's bytes, checked against the key. For what fits in memory;
    /// see [`StoreHandle::copy_to`].
    pub fn get(&self, key: &Key) -> Result<Vec<u8>> {
        let record = self.lookup(key)?.ok_or(Error::NotFound(*key))?;
        self.get_record(&record)
    }

    /// The bytes of a part of something visible, even if it is itself hidden.
    pub fn get_part(&self, key: &Key) -> Result<Vec<u8>> {
        let record = self.lookup_part(key)?.ok_or(Error::NotFound(*key))?;
        self.get_record(&record)
    }

    /// The bytes of a tree node below something visible. None is longer than
    /// [`format::NODE_LEN_MAX`], whatever a hostile store says.
    pub fn get_node(&self, key: &Key) -> Result<Vec<u8>> {
        let record = self.lookup_part(key)?.ok_or(Error::NotFound(*key))?;
        if record.raw_len > format::NODE_LEN_MAX {
            let path = self.path_of(record.block);
            return Err(Error::damaged(
                &path,
                record.offset.into(),
                "a tree node above the ceiling",
            ));
        }
        self.get_record(&record)
    }

    fn get_record(&self, record: &IndexRecord) -> Result<Vec<u8>> {
        if record.encoding == format::ENCODING_CHUNKED {
            let mut out = Vec::new();
            self.copy_record(record, &mut out, 0)?;
            return Ok(out);
        }
        let (open, info, stored) = self.read_frame(record)?;
        frame::decode(&info, stored)
            .map_err(|what| Error::damaged(&open.path, record.offset.into(), what))
    }

    /// Writes an artifact to `out` piece by piece, each checked before it is
    /// written; fails at the end if the whole is not what the key names.
    pub fn copy_to(&self, key: &Key, out: &mut dyn Write) -> Result<u64> {
        let record = self.lookup(key)?.ok_or(Error::NotFound(*key))?;
        self.copy_record(&record, out, 0)
    }

    pub(crate) fn copy_record(
        &self,
        record: &IndexRecord,
        out: &mut dyn Write,
        depth: usize,
    ) -> Result<u64> {
        let (open, info, stored) = self.read_frame(record)?;
        let damaged = |what: &str| Error::damaged(&open.path, record.offset.into(), what);
        let sink = |source| Error::Io {
            action: "write",
            path: "the output".into(),
            source,
        };
        if info.encoding != format::ENCODING_CHUNKED {
            let raw = frame::decode(&info, stored).map_err(damaged)?;
            out.write_all(&raw).map_err(sink)?;
            return Ok(raw.len() as u64);
        }
        if *blake3::hash(&stored).as_bytes() != info.check {
            return Err(damaged("a frame's bytes do not match their hash"));
        }
        if depth == format::TREE_DEPTH_MAX {
            return Err(damaged("chunk lists nested too deeply"));
        }
        let mut hashing = Hashing {
            out,
            hasher: blake3::Hasher::new(),
        };
        let parts = frame::parse_chunk_list(&stored).map_err(damaged)?;
        // Before any part is read, so that what comes out is never longer than announced.
        let sum = parts
            .iter()
            .try_fold(0u64, |sum, (_, len)| sum.checked_add(*len));
        if sum != Some(info.raw_len) {
            return Err(damaged("a chunk list whose lengths do not add up"));
        }
        for (key, len) in parts {
            let child = self.lookup_part(&key)?.ok_or(Error::NotFound(key))?;
            if child.raw_len != len {
                return Err(damaged("a chunk of another length than its list says"));
            }
            self.copy_record(&child, &mut hashing, depth + 1)?;
        }
        if hashing.hasher.finalize().as_bytes() != &record.key.0 {
            return Err(damaged("chunks whose whole does not match the key"));
        }
        Ok(info.raw_len)
    }

    /// The chunk list of an artifact, as it is stored: keys and lengths in bytes.
    /// `None` for one that is stored in one piece.
    pub fn chunks(&self, record: &IndexRecord) -> Result<Option<Vec<(Key, u64)>>> {
        if record.encoding != format::ENCODING_CHUNKED {
            return Ok(None);
        }
        let (open, info, stored) = self.read_frame(record)?;
        let damaged = |what: &str| Error::damaged(&open.path, record.offset.into(), what);
        if *blake3::hash(&stored).as_bytes() != info.check {
            return Err(damaged("a frame's bytes do not match their hash"));
        }
        frame::parse_chunk_list(&stored).map(Some).map_err(damaged)
    }

    /// An artifact's bytes in buffers that are used again: for reading many that fit
    /// in memory.
    pub fn read_entry<'a>(
        &self,
        record: &IndexRecord,
        scratch: &'a mut Scratch,
    ) -> Result<&'a [u8]> {
        if record.encoding == format::ENCODING_CHUNKED {
            scratch.raw = self.get_record(record)?;
            return Ok(&scratch.raw);
        }
        let (open, info, stored) = self.read_frame_into(record, &mut scratch.frame)?;
        scratch
            .decoder
            .decode(&info, stored, &mut scratch.raw)
            .map_err(|what| Error::damaged(&open.path, record.offset.into(), what))
    }

    /// Reads the frame that an index entry points to.
    fn read_frame(&self, record: &IndexRecord) -> Result<(Arc<OpenFile>, FrameInfo, Vec<u8>)> {
        let mut bytes = Vec::new();
        let (open, info, _) = self.read_frame_into(record, &mut bytes)?;
        bytes.drain(..format::frame_header::LEN);
        Ok((open, info, bytes))
    }

    /// Reads header and stored bytes of a frame into `bytes`, which grows and never shrinks:
    /// growing costs the clearing of what is then read over. Gives the stored bytes.
    fn read_frame_into<'a>(
        &self,
        record: &IndexRecord,
        bytes: &'a mut Vec<u8>,
    ) -> Result<(Arc<OpenFile>, FrameInfo, &'a [u8])> {
        let open = self.open_file(record.block)?;
        let len =
            format::frame_header::LEN + record.stored_len.min(format::FRAME_STORED_MAX) as usize;
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        let bytes = &mut bytes[..len];
        let damaged = |what: &str| Error::damaged(&open.path, record.offset.into(), what);
        match read_exact_at(&*open.file, record.offset.into(), bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(damaged("the file ends within a frame"));
            }
            Err(error) => return Err(Error::io("read", &open.path)(error)),
        }
        let info = FrameInfo::from_header(bytes, &open.salt)
            .ok_or_else(|| damaged("no valid frame header"))?;
        let found = (info.key, info.stored_len, info.raw_len, info.encoding);
        let expected = (
            record.key,
            record.stored_len,
            record.raw_len,
            record.encoding,
        );
        if found != expected || !info.is_artifact() {
            return Err(damaged("not the artifact that the index expects"));
        }
        Ok((open, info, &bytes[format::frame_header::LEN..]))
    }

    /// The notes of a block in the order they were written, checked, one at a time: all of
    /// them may be too many for memory.
    pub fn notes<E: From<Error>>(
        &self,
        id: BlockId,
        each: &mut dyn FnMut(u32, Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let open = self.open_file(id)?;
        let sealed = block::read_sealed(&*open.file, &open.path)?;
        for entry in sealed
            .entries
            .iter()
            .filter(|entry| !entry.info.is_artifact())
        {
            each(
                entry.info.note_type,
                block::read_stored(&*open.file, &open.path, entry)?,
            )?;
        }
        Ok(())
    }

    /// Reads one note by its place, checked.
    pub fn note_at(&self, id: BlockId, offset: u32) -> Result<Vec<u8>> {
        let open = self.open_file(id)?;
        let info = read_header(&open, offset)?;
        block::read_stored(&*open.file, &open.path, &block::Entry { offset, info })
    }

    pub(crate) fn open_file(&self, id: BlockId) -> Result<Arc<OpenFile>> {
        if let Some(open) = self.files().files.get(&id) {
            return Ok(open.clone());
        }
        let Some((instance, local)) = self.instance_of(id) else {
            return Err(Error::damaged(
                "index",
                0,
                format!("an entry that points into block {id}, which no instance has"),
            ));
        };
        let opened = open_block(&*instance.vfs, &instance.view().state, local);
        let (file, path) = opened.map_err(|error| error.below(&instance.prefix))?;
        let path = format!("{}{path}", instance.prefix);
        let mut header = [0; format::block_header::LEN];
        read_exact_at(&*file, 0, &mut header).map_err(Error::io("read", &path))?;
        BlockHeader::decode(&header, &path)?;
        let open = Arc::new(OpenFile {
            file,
            path,
            salt: FrameSalt::of_block(&header),
        });
        let mut cache = self.files();
        if cache.files.insert(id, open.clone()).is_none() {
            cache.order.push_back(id);
            if cache.order.len() > OPEN_FILES_MAX
                && let Some(oldest) = cache.order.pop_front()
            {
                cache.files.remove(&oldest);
            }
        }
        Ok(open)
    }
}

fn read_header(open: &OpenFile, offset: u32) -> Result<FrameInfo> {
    let damaged = || Error::damaged(&open.path, offset.into(), "no valid frame header");
    let mut header = [0; format::frame_header::LEN];
    read_exact_at(&*open.file, offset.into(), &mut header).map_err(|_| damaged())?;
    FrameInfo::from_header(&header, &open.salt).ok_or_else(damaged)
}

struct Hashing<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(buf)?;
        self.hasher.update(&buf[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// A snapshot by its id, its ordinal, a unique prefix of its digest, or its label.
fn find_snapshot(state: &State, wanted: &str) -> Result<SnapshotInfo> {
    let matches = |info: &&SnapshotInfo| {
        wanted.parse::<SnapshotId>() == Ok(info.id())
            || wanted.parse() == Ok(info.ordinal)
            || (!info.label.is_empty() && info.label == wanted)
            || (wanted.len() >= 8 && Digest(info.digest).to_string().starts_with(wanted))
    };
    let mut found = state.snapshots.iter().filter(matches);
    match (found.next(), found.next()) {
        (Some(info), None) => Ok(info.clone()),
        _ => Err(Error::NoSnapshot(wanted.to_owned())),
    }
}
