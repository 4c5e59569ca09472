//! A block of another store, taken over whole.
//!
//! Whoever moves much moves files: nothing is compressed again, and where the filesystem can share bytes between files, nothing is
//! even copied. The other store may be anybody's, so what it says counts for nothing: what is checked is our own copy, and it
//! is checked before anything names it.
//!
//! Order of writes
//! 1. the file, checked, where it [waits](stage)
//! 2. the name under `blocks/sealed` that the digest gives it, durable
//! 3. the seal record with an id of ours
//!
//! Crash: up to step 3 a file that nothing names, which the next import of it checks again and takes.
//!
//! Notes in an imported block (deletions, maps, records of authority) speak of the log of the store that it was born in; they are kept
//! and never obeyed here.

mod piecewise;
mod staged;

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::block::{self, Entry, Sealed};
use crate::error::{Error, Result};
use crate::format::{self, block_header as bh, block_trailer as bt, frame_header as fh};
use crate::frame::{FrameSalt, parse_chunk_list};
use crate::frame_check::{Buffers, NOT_PADDING, Reader, WINDOW, check_frame, check_padding};
use crate::id::{BlockId, Digest, Key};
use crate::index::records_of;
use crate::log::NewRecord;
use crate::rebuild::read_pinned;
use crate::recover::TOMBSTONES_MAX;
use crate::state;
use crate::store::StoreHandle;
use crate::verify::not_zero;
use crate::vfs::{Vfs, VfsFile, read_exact_at};
use crate::writer::StoreWriter;

pub use piecewise::{Hidden, read_frame, whole_frames};
pub use staged::{check_there, stage, unstage};

/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;
/// Most threads that check one block.
const THREADS_MAX: usize = 16;
/// Bytes of a block that one thread checks before it takes others.
const RUN_BYTES: u64 = WINDOW as u64;

/// What became of a block that was to be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// It is ours now.
    Taken {
        /// Its id here.
        id: BlockId,
        /// Length of the file in bytes.
        file_len: u64,
        /// Whether the filesystem shares its bytes with the other store's file.
        shared: bool,
    },
    /// It was here already, or was lost and is whole again.
    Known {
        /// Its id here.
        id: BlockId,
        /// Whether its file was missing or damaged in header or contents, and was brought again.
        healed: bool,
    },
}

impl Imported {
    /// The block's id here.
    pub fn id(&self) -> BlockId {
        match self {
            Self::Taken { id, .. } | Self::Known { id, .. } => *id,
        }
    }
}

impl StoreWriter {
    /// Takes over the sealed block `digest`, whose file is `path` in `from`. What its frames refer to (the parts of artifacts that
    /// are lists of parts) must be in it or in this store, so that blocks come in the order of their log.
    ///
    /// # Errors
    /// Those of [`stage`] and [`import_staged`](Self::import_staged). Then this store is as it was.
    pub fn import(
        &mut self,
        from: &dyn Vfs,
        path: &str,
        digest: Digest,
        threads: usize,
    ) -> Result<Imported> {
        self.commit()?;
        let mut shared = false;
        if self.known(&digest).is_none_or(|(_, whole)| !whole) {
            let parts = self.handle.clone();
            shared = stage(&*self.vfs, from, path, digest, &parts, threads)?;
        }
        self.import_staged(digest, shared, &Hidden::default())
    }

    /// The id of a block with this digest, and whether its file is there with the contents that it should have.
    fn known(&self, digest: &Digest) -> Option<(BlockId, bool)> {
        self.handle.with_state(|state| {
            let mut blocks = state.blocks.iter();
            let id =
                blocks.find_map(|(id, info)| (info.digest == digest.0).then_some(BlockId(*id)))?;
            Some((id, read_pinned(&*self.vfs, state, id).is_ok()))
        })
    }

    /// Takes over a block that was [staged](stage) since this process began. Of its artifacts those that are `hidden` do not become visible
    /// unless they are already: the same append that makes the others visible hides them. `shared` is what `stage` said.
    ///
    /// An artifact that was removed here and is in the block is visible again, as whatever is put anew; one that is a root here stays one.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Full`], [`Error::Damaged`] where somebody changed the file meanwhile.
    pub fn import_staged(
        &mut self,
        digest: Digest,
        shared: bool,
        hidden: &Hidden,
    ) -> Result<Imported> {
        self.commit()?;
        let vfs = self.vfs.clone();
        if let Some((id, whole)) = self.known(&digest) {
            if !whole {
                staged::publish(&*vfs, &digest)?;
            }
            return Ok(Imported::Known { id, healed: !whole });
        }
        let mut sealed = staged::publish(&*vfs, &digest)?;
        // In the file it keeps the id of its birth; what counts here is the record.
        sealed.header.id = self.next_id()?;
        let mut more = self.flags_kept(&sealed)?;
        more.extend(self.hidden_in(&sealed, hidden)?);
        self.log_sealed(&sealed, format::ORIGIN_IMPORTED, more)?;
        self.flush_if_due()?;
        Ok(Imported::Taken {
            id: sealed.header.id,
            file_len: sealed.file_len,
            shared,
        })
    }

    /// The records that let artifacts keep the flags that they have here: what is a root here may be a part there.
    fn flags_kept(&self, sealed: &Sealed) -> Result<Vec<NewRecord>> {
        let mut kept = Vec::new();
        for mut record in records_of(sealed.header.id, sealed) {
            if let Some(known) = self.handle.lookup_own(&record.key)? {
                let flags = record.flags | known.flags;
                if flags != record.flags {
                    record.flags = flags;
                    kept.push(record);
                }
            }
        }
        let kept = kept.chunks(TOMBSTONES_MAX);
        Ok(kept.map(state::index_add_record).collect())
    }

    /// The records that hide what a block must not make visible.
    fn hidden_in(&self, sealed: &Sealed, hidden: &Hidden) -> Result<Vec<NewRecord>> {
        let artifacts = sealed.entries.iter();
        let Some((block, mut keys)) = hidden.of(artifacts.filter(|entry| entry.info.is_artifact()))
        else {
            return Ok(Vec::new());
        };
        let mut failed = Ok(());
        keys.retain(|key| match self.handle.lookup_own(key) {
            Ok(found) => found.is_none(),
            Err(error) => {
                failed = Err(error);
                true
            }
        });
        failed?;
        let keys = keys.chunks(TOMBSTONES_MAX);
        Ok(keys
            .map(|keys| state::tombstone_record(keys, block))
            .collect())
    }
}

/// Makes `file` hold what `source` holds; whether the filesystem shares the bytes.
pub(crate) fn bring(
    source: &dyn VfsFile,
    path: &str,
    file: &dyn VfsFile,
    ingest: &str,
) -> Result<bool> {
    let len = source.len().map_err(Error::io("read", path))?;
    if len > format::FILE_LEN_MAX {
        return Err(Error::damaged(path, len, "a length that no block has"));
    }
    if file.share(source).is_ok() {
        return Ok(true);
    }
    let mut buf = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).map_or(COPY_BYTES, |rest| rest.min(COPY_BYTES));
        let got = source
            .read_at(at, &mut buf[..want])
            .map_err(Error::io("read", path))?;
        if got == 0 {
            return Err(Error::damaged(
                path,
                at,
                "the file became shorter while it was read",
            ));
        }
        let written = file.write_at(at, &[&buf[..got]]);
        written.map_err(|error| match Error::io("write", ingest)(error) {
            Error::Full { path, source, .. } => Error::Full {
                path,
                needed_bytes: len - at,
                source,
            },
            other => other,
        })?;
        at += got as u64;
    }
    Ok(false)
}

/// Reads a whole block and checks all of it; `path` is named where something is wrong.
fn check(
    file: &dyn VfsFile,
    path: &str,
    digest: Digest,
    store: &StoreHandle,
    threads: usize,
) -> Result<Sealed> {
    let sealed = check_alone(file, path, digest, threads, &|_| {})?;
    check_lists(file, path, &sealed, store, false)?;
    Ok(sealed)
}

/// Reads a whole block and checks all of it that can be checked without other blocks: not the keys of lists, for those see
/// [`check_lists`]. `advance` is told how many bytes of frames were read.
pub(crate) fn check_alone(
    file: &dyn VfsFile,
    path: &str,
    digest: Digest,
    threads: usize,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Sealed> {
    let sealed = block::read_sealed(file, path)?;
    if sealed.digest != digest {
        return Err(Error::damaged(path, 0, "another block than its name says"));
    }
    let mut header = [0; bh::LEN];
    read_exact_at(file, 0, &mut header).map_err(Error::io("read", path))?;
    let mut trailer = [0; bt::LEN];
    let trailer_at = sealed.file_len - bt::LEN as u64;
    read_exact_at(file, trailer_at, &mut trailer).map_err(Error::io("read", path))?;
    // No digest vouches for these, and our own verification would find them.
    let unused = not_zero(bh::FIELDS, &header).or(not_zero(bt::FIELDS, &trailer));
    if let Some(what) = unused {
        return Err(Error::damaged(path, 0, what));
    }
    let salt = FrameSalt::of_block(&header);
    let class = sealed.header.class;
    if class != format::CLASS_PACKED && class != format::CLASS_LARGE {
        return Err(Error::damaged(path, 0, "a header with an unknown class"));
    }
    check_frames((file, path), &salt, &sealed, threads, advance)?;
    Ok(sealed)
}

/// Every frame: header, hash, padding and, of an artifact with bytes of its own, the key.
fn check_frames(
    (file, path): (&dyn VfsFile, &str),
    salt: &FrameSalt,
    sealed: &Sealed,
    threads: usize,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    // Neighbours are read at once, so a thread takes as many as one read gives.
    let runs: Vec<&[Entry]> = sealed
        .entries
        .chunk_by(|a, b| u64::from(a.offset) / RUN_BYTES == u64::from(b.offset) / RUN_BYTES)
        .collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let work = || {
        let mut buffers = Buffers::default();
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let end = run
                .last()
                .map(|last| u64::from(last.offset) + last.info.space());
            let mut reader = Reader::new(file, end.unwrap_or_default(), advance, &mut buffers);
            let wrong = run.iter().find_map(|entry| {
                let at = u64::from(entry.offset);
                if let Some(what) = entry.impossible() {
                    return Some((at, what.to_owned()));
                }
                if let Err(what) = check_frame(&mut reader, salt, &mut buffers, entry) {
                    return Some((at, what));
                }
                let padding = check_padding(&mut reader, entry);
                padding.err().map(|at| (at, NOT_PADDING.to_owned()))
            });
            reader.done(&mut buffers);
            if let Some((at, what)) = wrong {
                next.store(runs.len(), Ordering::Relaxed);
                let mut failed = failed
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                failed.get_or_insert(Error::damaged(path, at, what));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, THREADS_MAX).min(runs.len()) {
            scope.spawn(work);
        }
        work();
    });
    let failed = failed
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    failed.map_or(Ok(()), Err)
}

/// The keys of artifacts that are lists of parts: the parts are in the block, or in the store. With `some_missing` a list
/// passes that has a part which is nowhere or cannot be read: nobody can tell then whether it names its bytes.
pub(crate) fn check_lists(
    file: &dyn VfsFile,
    path: &str,
    sealed: &Sealed,
    store: &StoreHandle,
    some_missing: bool,
) -> Result<()> {
    let artifacts = sealed
        .entries
        .iter()
        .filter(|entry| entry.info.is_artifact());
    let is_list = |entry: &&Entry| entry.info.encoding == format::ENCODING_CHUNKED;
    let lists: Vec<&Entry> = artifacts.clone().filter(is_list).collect();
    if lists.is_empty() {
        return Ok(());
    }
    let here = artifacts.map(|entry| (entry.info.key, entry)).collect();
    let parts = Parts {
        file,
        path,
        here,
        store,
        missing: Cell::new(false),
    };
    for list in lists {
        let mut hashing = Hashing::up_to(list.info.raw_len);
        match parts.copy(list, &mut hashing, 0) {
            Err(_) if some_missing && parts.missing.take() => continue,
            copied => copied?,
        }
        if !hashing.is(&list.info.key) {
            return Err(parts.damaged(list, "bytes that do not match their key"));
        }
    }
    Ok(())
}

/// Where the parts of a block's artifacts are.
struct Parts<'a> {
    file: &'a dyn VfsFile,
    path: &'a str,
    here: HashMap<Key, &'a Entry>,
    store: &'a StoreHandle,
    /// Whether a part was nowhere, or could not be read.
    missing: Cell<bool>,
}

impl Parts<'_> {
    fn damaged(&self, entry: &Entry, what: &str) -> Error {
        Error::damaged(self.path, entry.offset.into(), what)
    }

    /// Gives out the bytes of an artifact of the block, `depth` lists deep.
    fn copy(&self, entry: &Entry, out: &mut Hashing, depth: usize) -> Result<()> {
        let damaged = |what: &str| self.damaged(entry, what);
        if entry.info.encoding != format::ENCODING_CHUNKED {
            return decode_checked(self.file, entry, out)
                .map(drop)
                .map_err(|_| damaged("bytes that are not as many as a list says"));
        }
        if depth == format::TREE_DEPTH_MAX {
            return Err(damaged("lists nested too deeply"));
        }
        let stored = block::read_stored(self.file, self.path, entry)?;
        for (key, len) in parse_chunk_list(&stored).map_err(damaged)? {
            let before = out.left;
            let put = match self.here.get(&key) {
                Some(part) => self.copy(part, out, depth + 1).is_ok(),
                None => match self.store.lookup_part(&key)? {
                    Some(record) => {
                        let copied = self.store.copy_record(&record, out, depth + 1).is_ok();
                        self.missing.set(!copied && record.raw_len == len);
                        copied
                    }
                    None => {
                        self.missing.set(true);
                        return Err(damaged("a list with a part that is nowhere"));
                    }
                },
            };
            if !put || before.checked_sub(out.left) != Some(len) {
                return Err(damaged("a list whose parts are not as long as it says"));
            }
        }
        Ok(())
    }
}

/// Gives out what a frame holds whose bytes were checked, piece by piece: it may be as long as it likes.
fn decode_checked(file: &dyn VfsFile, entry: &Entry, out: &mut Hashing) -> io::Result<u64> {
    let at = u64::from(entry.offset) + fh::LEN as u64;
    let mut stored = Stored {
        file,
        at,
        end: at + u64::from(entry.info.stored_len),
    };
    match entry.info.encoding {
        format::ENCODING_ZSTD => {
            let decoder = zstd::stream::read::Decoder::new(stored)?;
            io::copy(&mut decoder.single_frame(), out)
        }
        _ => io::copy(&mut stored, out),
    }
}

/// A frame's stored bytes as a stream.
struct Stored<'a> {
    file: &'a dyn VfsFile,
    at: u64,
    end: u64,
}

impl Read for Stored<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = want.min(buf.len());
        let got = self.file.read_at(self.at, &mut buf[..want])?;
        self.at += got as u64;
        Ok(got)
    }
}

/// Takes bytes in, up to as many as were announced.
struct Hashing {
    hasher: blake3::Hasher,
    left: u64,
}

impl Hashing {
    fn up_to(len: u64) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            left: len,
        }
    }

    /// Bytes that may still come.
    fn left(&self) -> u64 {
        self.left
    }

    /// Whether all came, and they are those of a key.
    fn is(&self, key: &Key) -> bool {
        self.left == 0 && *self.hasher.finalize().as_bytes() == key.0
    }
}

impl Write for Hashing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(buf.len() as u64);
        self.left = left.ok_or(io::ErrorKind::FileTooLarge)?;
        self.hasher.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
