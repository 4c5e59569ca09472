//! Putting a stream of bytes: the store decides how they are packaged.
//!
//! - Shorter than the small threshold: one frame in a packed block.
//! - From there to the large size: one frame in a block of its own.
//! - Longer, or a [`Hint::Stream`] of more than one chunk: chunks cut by content (FastCDC:
//!   Xia et al., USENIX ATC 2016 and TPDS 2020), each small, and a list of them. Where an
//!   insertion or deletion changes a stream, the chunks around it change and the others are
//!   found again.
//!
//! None of this shows: the key is the hash of the bytes, and whoever asks for the key
//! gets the bytes.
//!
//! Invariants
//! - Bytes that are there already are believed only after they have been read back; a copy
//!   that is damaged or lost is written anew.
//! - Only the artifact itself is a root. Its chunks and inner lists are parts of it.
//! - No list has more than [`LIST_MAX`] entries; a longer one is a list of lists, each of them an
//!   artifact keyed by the bytes that it spans.
//! - No block is ever mixed (S4): chunks are shorter than the small threshold, chunk lists do not
//!   count as large, and a large artifact gets its own block. Of a mixed block that came from
//!   elsewhere `verify` warns.
//! - Memory: one buffer of the large size, one chunk, and what the writer keeps until its
//!   next sync, which comes after [`PENDING_MAX`] bytes.
//!
//! Crash: before the commit that follows, the artifact is not there; chunks in blocks that were
//! sealed on the way are found again when the same bytes are put once more.

use std::io::Read;

use fastcdc::v2020::{Normalization, cut, select_masks};

use crate::error::{Error, Result};
use crate::format;
use crate::frame::{Compression, Encoder, Frame};
use crate::id::Key;
use crate::params::Params;
use crate::writer::{Put, StoreWriter};

/// Most entries of a chunk list that this writer makes.
pub const LIST_MAX: usize = 16_384;
/// Bytes put between two syncs.
pub const PENDING_MAX: u64 = 32 << 20;
/// Longest average chunk, in bytes: beyond it duplicates are hardly found.
const AVERAGE_MAX: u64 = 4 << 20;

/// What the caller knows of the bytes. It never changes what is read, only how it is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hint {
    /// Short and one of many: to be packed with others. What is not short is
    /// packaged by its length all the same.
    #[default]
    Small,
    /// Long and unlike anything else: in one piece as far as the large size goes.
    Large,
    /// A stream that may share parts with others, such as an archive or another
    /// version of the same file: cut by content as soon as it is longer than one chunk.
    Stream,
}

/// What became of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Their name.
    pub key: Key,
    /// How many they are.
    pub len: u64,
    /// Bytes of file that they took; 0 if all of them were there already.
    pub stored_bytes: u64,
}

/// Where chunks may end, in bytes; all even, which the algorithm wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ChunkSizes {
    min: usize,
    average: usize,
    max: usize,
}

impl ChunkSizes {
    fn of(params: &Params) -> Self {
        let even = |bytes: u64| (bytes & !1) as usize;
        let average = (params.small_threshold / 4).min(AVERAGE_MAX);
        Self {
            min: even(average / 4),
            average: even(average),
            // Shorter than the threshold, so that chunks are packed.
            max: even((average * 4).min(params.small_threshold - 1)),
        }
    }

    /// Length of the chunk at the start of `bytes`, which are at least `max` or all there is.
    fn first(&self, bytes: &[u8]) -> usize {
        let (strict, loose) = select_masks(self.average, Normalization::Level1);
        let (min, average, max) = (self.min, self.average, self.max);
        cut(
            bytes,
            min,
            average,
            max,
            strict,
            loose,
            strict << 1,
            loose << 1,
        )
        .1
    }
}

/// Stores everything that `input` gives as one artifact, a root. It is visible and
/// durable after the next [`StoreWriter::commit`]. `len_hint` is how long it may
/// be, in bytes, and only spares the buffer from growing.
///
/// # Errors
/// Those of the writer; [`Error::Io`] with the path `the input` where reading fails.
pub fn put_reader(
    writer: &mut StoreWriter,
    input: &mut dyn Read,
    hint: Hint,
    len_hint: Option<u64>,
    compression: Compression,
) -> Result<Stored> {
    let params = writer.params();
    let sizes = ChunkSizes::of(&params);
    let whole_max = match hint {
        Hint::Small | Hint::Large => params.large_size,
        Hint::Stream => sizes.max as u64,
    };
    let mut putter = Putter {
        writer,
        encoder: Encoder::new(compression),
        stored_bytes: 0,
    };
    let room = len_hint.unwrap_or(0).min(whole_max) as usize + 1;
    let mut buffer = Vec::with_capacity(room);
    fill(input, &mut buffer, whole_max as usize + 1)?;
    let (key, len) = if buffer.len() as u64 <= whole_max {
        let (key, len) = (Key::of(&buffer), buffer.len() as u64);
        putter.put(key, buffer, format::FLAG_ROOT)?;
        (key, len)
    } else {
        putter.put_chunks(input, buffer, sizes, LIST_MAX)?
    };
    Ok(Stored {
        key,
        len,
        stored_bytes: putter.stored_bytes,
    })
}

/// Reads until `buffer` has `len` bytes or the input ends.
fn fill(input: &mut dyn Read, buffer: &mut Vec<u8>, len: usize) -> Result<()> {
    let missing = len.saturating_sub(buffer.len()) as u64;
    match (&mut *input).take(missing).read_to_end(buffer) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Io {
            action: "read",
            path: "the input".to_owned(),
            source,
        }),
    }
}

/// A list of parts in the making, and the hash of what they span.
#[derive(Default)]
struct Level {
    parts: Vec<(Key, u64)>,
    hasher: blake3::Hasher,
}

struct Putter<'a> {
    writer: &'a mut StoreWriter,
    encoder: Encoder,
    stored_bytes: u64,
}

impl Putter<'_> {
    /// Stores bytes under their key unless they are there, whole.
    fn put(&mut self, key: Key, bytes: Vec<u8>, flags: u16) -> Result<()> {
        if self.writer.has(&key, flags) && self.writer.is_intact(&key) {
            return Ok(());
        }
        let frame = self.encoder.encode(key, bytes.into(), flags);
        self.write(frame)
    }

    /// Stores a chunk list unless it is there. Its parts are known to be.
    fn put_list(&mut self, key: Key, parts: &[(Key, u64)], flags: u16) -> Result<()> {
        debug_assert!(parts.len() > 1, "a list of one would be a part of itself");
        let same = |writer: &StoreWriter| {
            let record = writer.handle().lookup(&key).ok().flatten();
            let list = record.and_then(|record| writer.handle().chunks(&record).ok().flatten());
            list.is_some_and(|list| list == parts)
        };
        // The same bytes may be there in one piece, or cut otherwise.
        if self.writer.has(&key, flags) && (same(self.writer) || self.writer.is_intact(&key)) {
            return Ok(());
        }
        self.write(Encoder::chunked(key, parts, flags))
    }

    fn write(&mut self, frame: Frame) -> Result<()> {
        if let Put::Stored(bytes) = self.writer.put_anew(frame)? {
            self.stored_bytes += bytes;
        }
        if self.writer.pending_bytes() >= PENDING_MAX {
            self.writer.sync()?;
        }
        Ok(())
    }

    /// Stores `buffer` and the rest of `input`, more than one chunk, as chunks. Returns key and length of the whole.
    fn put_chunks(
        &mut self,
        input: &mut dyn Read,
        mut buffer: Vec<u8>,
        sizes: ChunkSizes,
        list_max: usize,
    ) -> Result<(Key, u64)> {
        let mut levels = vec![Level::default()];
        let mut start = 0;
        loop {
            if buffer.len() - start < sizes.max {
                buffer.drain(..start);
                start = 0;
                // Several chunks at a time, so that bytes are not moved for each.
                fill(input, &mut buffer, 4 * sizes.max)?;
                // What is left over from a large buffer is not needed any more.
                buffer.shrink_to(4 * sizes.max);
            }
            let rest = &buffer[start..];
            if rest.is_empty() {
                break;
            }
            let chunk = &rest[..sizes.first(rest)];
            start += chunk.len();
            self.make_room(&mut levels, 0, list_max)?;
            for level in &mut levels {
                level.hasher.update(chunk);
            }
            let key = Key::of(chunk);
            levels[0].parts.push((key, chunk.len() as u64));
            self.put(key, chunk.to_vec(), 0)?;
        }
        self.close(levels)
    }

    /// Before another chunk is added: makes every level that is full a part of the next.
    fn make_room(&mut self, levels: &mut Vec<Level>, at: usize, list_max: usize) -> Result<()> {
        if levels[at].parts.len() < list_max {
            return Ok(());
        }
        if at + 1 == levels.len() {
            // It spans what this one does, so far.
            let hasher = levels[at].hasher.clone();
            levels.push(Level {
                parts: Vec::new(),
                hasher,
            });
        }
        let full = std::mem::take(&mut levels[at]);
        let list = self.list_of(full)?;
        levels[at + 1].parts.push(list);
        self.make_room(levels, at + 1, list_max)
    }

    /// Stores a level as a part of another: as a list, or as its only part.
    fn list_of(&mut self, level: Level) -> Result<(Key, u64)> {
        if let [only] = level.parts[..] {
            return Ok(only);
        }
        let key = Key(*level.hasher.finalize().as_bytes());
        self.put_list(key, &level.parts, 0)?;
        Ok((key, level.parts.iter().map(|(_, len)| len).sum()))
    }

    /// Stores what the levels hold as parts of the last one, and that as the artifact.
    fn close(&mut self, levels: Vec<Level>) -> Result<(Key, u64)> {
        let mut below: Option<(Key, u64)> = None;
        let last = levels.len() - 1;
        for (at, mut level) in levels.into_iter().enumerate() {
            level.parts.extend(below.take());
            if at == last {
                let key = Key(*level.hasher.finalize().as_bytes());
                self.put_list(key, &level.parts, format::FLAG_ROOT)?;
                return Ok((key, level.parts.iter().map(|(_, len)| len).sum()));
            }
            below = Some(self.list_of(level)?);
        }
        unreachable!("there is always a first level")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::vfs::fault::FaultVfs;
    use crate::{Context, Owner, WriteOptions};

    #[test]
    fn chunk_sizes_fit_every_threshold() {
        let mut threshold = 4 << 10;
        while threshold <= 256 << 20 {
            for small_threshold in [threshold, threshold + 1, threshold + 4095] {
                let params = Params {
                    small_threshold,
                    ..Params::default()
                };
                let ChunkSizes { min, average, max } = ChunkSizes::of(&params);
                assert!(64 <= min && min < average && average < max);
                assert!((max as u64) < small_threshold);
                assert!([min, average, max].iter().all(|size| size % 2 == 0));
            }
            threshold *= 2;
        }
    }

    /// Lists of few entries nest deeply; every list is the artifact that it spans.
    #[test]
    fn lists_nest_to_any_depth() {
        let vfs = FaultVfs::new();
        let context = Context {
            owner: Owner::default(),
            holder: String::new(),
            seed: [5; 32],
            home: None,
            now: Arc::new(|| 0),
        };
        let params = Params {
            small_threshold: 4 << 10,
            ..Params::default()
        };
        crate::create(&vfs, &params, &context, &WriteOptions::default()).unwrap();
        let mut writer =
            StoreWriter::open(Arc::new(vfs), context, WriteOptions::default()).unwrap();
        let sizes = ChunkSizes::of(&params);
        let mut bytes = vec![0; 200_000];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        let mut chunks = 0;
        let mut at = 0;
        // Ends after every number of chunks up to all of them.
        while at < bytes.len() {
            at += sizes.first(&bytes[at..]);
            chunks += 1;
            // What is one chunk is never given to be cut.
            if chunks == 1 {
                continue;
            }
            for list_max in [2, 3, 5] {
                let mut putter = Putter {
                    writer: &mut writer,
                    encoder: Encoder::new(Compression::None),
                    stored_bytes: 0,
                };
                let (key, len) = putter
                    .put_chunks(&mut &bytes[..at], Vec::new(), sizes, list_max)
                    .unwrap();
                assert_eq!((key, len), (Key::of(&bytes[..at]), at as u64));
                writer.commit().unwrap();
                let mut out = Vec::new();
                writer.handle().copy_to(&key, &mut out).unwrap();
                assert!(out == bytes[..at], "{chunks} chunks, lists of {list_max}");
            }
        }
        assert!(chunks > 100);
        let mut lists = 0;
        let mut each = |record: crate::segment::IndexRecord| {
            if let Some(list) = writer.handle().chunks(&record)? {
                lists += 1;
                assert!((2..=5).contains(&list.len()));
                assert_eq!(Key::of(&writer.handle().get(&record.key)?), record.key);
            }
            Ok(())
        };
        writer.handle().for_each(&mut each).unwrap();
        assert!(lists > chunks);
    }
}
