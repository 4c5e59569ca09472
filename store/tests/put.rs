//! Putting streams: whatever their length and however they are packaged, the key is the
//! hash of the bytes and the bytes come back.

mod common;

use std::io::{self, Read};

use asl_store::vfs::fault::FaultVfs;
use asl_store::{
    Compression, Error, Hint, Key, Params, StoreHandle, StoreWriter, Stored, VerifyOptions, format,
    put, put_reader, verify,
};
use common::*;
use proptest::prelude::*;

const HINTS: [Hint; 3] = [Hint::Small, Hint::Large, Hint::Stream];

fn put_bytes(w: &mut StoreWriter, bytes: &[u8], hint: Hint) -> Stored {
    let len = Some(bytes.len() as u64);
    put_reader(w, &mut &bytes[..], hint, len, Compression::Auto).unwrap()
}

fn copy(handle: &StoreHandle, key: &Key) -> Vec<u8> {
    let mut out = Vec::new();
    let len = handle.copy_to(key, &mut out).unwrap();
    assert_eq!(len, out.len() as u64);
    out
}

fn check_whole(vfs: &FaultVfs) {
    let vfs = std::sync::Arc::new(vfs.clone());
    let report = verify(vfs, &VerifyOptions::default(), &()).unwrap();
    assert!(report.ok(), "{:?}", report.damage);
    assert_eq!(report.notes, Vec::<String>::new());
}

/// The chunk list of an artifact.
fn list(handle: &StoreHandle, key: &Key) -> Vec<(Key, u64)> {
    let record = handle.lookup_part(key).unwrap().unwrap();
    handle.chunks(&record).unwrap().expect("a chunk list")
}

/// Gives few bytes at a time, and is interrupted now and then.
struct Dripping<'a> {
    rest: &'a [u8],
    calls: usize,
}

impl Read for Dripping<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls % 5 == 2 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buf
            .len()
            .min(1 + self.calls * 37 % 9000)
            .min(self.rest.len());
        let (now, rest) = self.rest.split_at(len);
        buf[..len].copy_from_slice(now);
        self.rest = rest;
        Ok(len)
    }
}

/// Covers B3, C2, S1, S3, S7: lengths around every threshold, with every hint.
#[test]
fn every_length_comes_back_under_every_hint() {
    let Params {
        small_threshold,
        large_size,
        ..
    } = small_params();
    let around = |at: u64| [at - 1, at, at + 1];
    let max_chunk = small_threshold - 2;
    let mut lengths = vec![0, 1, 2, 1023, 4096, 3 * large_size + 17];
    for at in [max_chunk, small_threshold, 2 * small_threshold, large_size] {
        lengths.extend(around(at));
    }
    lengths.sort_unstable();
    lengths.dedup();
    for hint in HINTS {
        let vfs = fresh();
        let mut w = writer(&vfs, 2).unwrap();
        let mut stored = Vec::new();
        for len in &lengths {
            let bytes = noise(*len, *len as usize);
            let done = put_bytes(&mut w, &bytes, hint);
            assert_eq!((done.key, done.len), (Key::of(&bytes), *len));
            assert!(done.stored_bytes >= *len);
            stored.push((done.key, bytes));
        }
        w.finish().unwrap();
        let handle = reader(&vfs).unwrap();
        for (key, bytes) in &stored {
            assert_eq!(&handle.get(key).unwrap(), bytes);
            assert_eq!(&copy(&handle, key), bytes);
            let location = handle.locate(key).unwrap();
            assert_eq!(location.len, bytes.len() as u64);
            assert_eq!(&handle.read(&location).unwrap(), bytes);
            let record = handle.lookup(key).unwrap().unwrap();
            assert!(record.is_root());
            let len = bytes.len() as u64;
            let chunked = match hint {
                Hint::Stream => len > max_chunk,
                Hint::Small | Hint::Large => len > large_size,
            };
            assert_eq!(
                record.encoding == format::ENCODING_CHUNKED,
                chunked,
                "{len}"
            );
            let block = handle.with_state(|state| *state.block(record.block).unwrap());
            if len >= small_threshold && !chunked {
                assert_eq!(
                    (block.class, block.artifact_count),
                    (format::CLASS_LARGE, 1)
                );
            } else {
                assert_eq!(block.class, format::CLASS_PACKED);
            }
            if chunked {
                for (part, len) in list(&handle, key) {
                    assert!(!handle.lookup(&part).unwrap().unwrap().is_root());
                    assert!(len < small_threshold);
                }
            }
        }
        check_whole(&vfs);
    }
}

/// Covers C2: how the bytes arrive, and what was said of their length, changes nothing.
#[test]
fn a_dripping_input_and_a_wrong_length_make_the_same_store() {
    let bytes = noise(7, 300_000);
    let mut stores = Vec::new();
    for (drips, len_hint) in [(false, None), (true, Some(5)), (true, Some(1 << 40))] {
        let vfs = fresh();
        let mut w = writer(&vfs, 2).unwrap();
        let mut drip = Dripping {
            rest: &bytes,
            calls: 0,
        };
        let input: &mut dyn Read = if drips { &mut drip } else { &mut &bytes[..] };
        let done = put_reader(&mut w, input, Hint::Small, len_hint, Compression::Auto).unwrap();
        assert_eq!(done.key, Key::of(&bytes));
        w.finish().unwrap();
        stores.push((list(&reader(&vfs).unwrap(), &done.key), vfs.files()));
    }
    assert_eq!(stores[0], stores[1]);
    assert_eq!(stores[0], stores[2]);
}

#[test]
fn an_input_that_fails_leaves_nothing_visible() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::from_raw_os_error(5));
            }
            let len = buf.len().min(self.0);
            buf[..len].fill(3);
            self.0 -= len;
            Ok(len)
        }
    }
    for len in [0, 10, 50_000, 200_000] {
        let vfs = fresh();
        let mut w = writer(&vfs, 2).unwrap();
        let result = put_reader(
            &mut w,
            &mut Failing(len),
            Hint::Small,
            None,
            Compression::Auto,
        );
        let Err(Error::Io { path, source, .. }) = result else {
            panic!("{result:?}")
        };
        assert_eq!(
            (path.as_str(), source.raw_os_error()),
            ("the input", Some(5))
        );
        // The writer serves on.
        let next = put_bytes(&mut w, b"next", Hint::Small);
        w.finish().unwrap();
        let handle = reader(&vfs).unwrap();
        let mut roots = Vec::new();
        let mut each = |record: asl_store::segment::IndexRecord| {
            roots.extend(record.is_root().then_some(record.key));
            Ok(())
        };
        handle.for_each(&mut each).unwrap();
        assert_eq!(roots, [next.key]);
    }
}

/// The cut points decide what is found again in stores that exist: they never change.
#[test]
fn cut_points_are_frozen() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let bytes = noise(0, 1 << 20);
    let done = put_bytes(&mut w, &bytes, Hint::Stream);
    let zeros = put_bytes(&mut w, &[0; 100_000], Hint::Stream);
    w.commit().unwrap();
    let lengths = |key| list(w.handle(), key).into_iter().map(|(_, len)| len);
    let of_noise: Vec<_> = lengths(&done.key).collect();
    assert_eq!(of_noise.iter().sum::<u64>(), 1 << 20);
    assert_eq!(
        of_noise[..8],
        [3648, 7958, 4122, 1864, 5271, 3160, 5895, 5316]
    );
    let mut all = blake3::Hasher::new();
    for len in &of_noise {
        all.update(&len.to_le_bytes());
    }
    assert_eq!(
        all.finalize().to_hex().as_str(),
        "22cf16c770ff534c993859610566492e9975b30104df0f768223de305d01d6e7"
    );
    assert_eq!(
        lengths(&zeros.key).collect::<Vec<_>>(),
        [16_382, 16_382, 16_382, 16_382, 16_382, 16_382, 1_708]
    );
}

/// What is inserted, deleted or appended changes the chunks around it only.
#[test]
fn another_version_of_a_stream_shares_its_chunks() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let first = noise(1, 600_000);
    let mut second = first.clone();
    second.splice(300_000..300_010, *b"some other, longer bytes");
    second.drain(100_000..100_077);
    second.extend(noise(2, 5_000));
    let whole = put_bytes(&mut w, &first, Hint::Stream);
    let again = put_bytes(&mut w, &second, Hint::Stream);
    assert!(again.stored_bytes * 5 < whole.stored_bytes, "{again:?}");
    let nothing = put_bytes(&mut w, &second, Hint::Stream);
    assert_eq!(
        nothing,
        Stored {
            stored_bytes: 0,
            ..again
        }
    );
    w.finish().unwrap();
    let handle = reader(&vfs).unwrap();
    assert_eq!(copy(&handle, &whole.key), first);
    assert_eq!(copy(&handle, &again.key), second);
    check_whole(&vfs);
}

/// More chunks than one list may have: lists of lists, each the artifact that it spans.
#[test]
fn long_lists_nest() {
    let vfs = FaultVfs::new();
    let params = Params {
        small_threshold: 4 << 10,
        large_size: 4 << 10,
        block_size: 4 << 20,
        packed_max: 65_536,
        ..small_params()
    };
    asl_store::create(&vfs, &params, &context(1), &options()).unwrap();
    let mut w = writer(&vfs, 2).unwrap();
    let bytes = noise(3, 24 << 20);
    let stored = put_bytes(&mut w, &bytes, Hint::Stream);
    assert_eq!(stored.key, Key::of(&bytes));
    w.finish().unwrap();
    let handle = reader(&vfs).unwrap();
    let top = list(&handle, &stored.key);
    assert_eq!(top.len(), 2);
    let first = list(&handle, &top[0].0);
    assert_eq!(first.len(), put::LIST_MAX);
    let len = top[0].1 as usize;
    assert_eq!(top[0].0, Key::of(&bytes[..len]));
    assert_eq!(copy(&handle, &top[1].0), bytes[len..]);
    assert_eq!(copy(&handle, &stored.key), bytes);
    check_whole(&vfs);
}

/// Flips a byte in the middle of the frame of an artifact.
fn damage(vfs: &FaultVfs, key: &Key) {
    let handle = reader(vfs).unwrap();
    let record = handle.lookup(key).unwrap().unwrap();
    let path = handle.with_state(|state| asl_store::index::block_path(state, record.block));
    let at = u64::from(record.offset) + 104 + u64::from(record.stored_len) / 2;
    vfs.flip_byte(&path, at).unwrap();
    handle.get(key).unwrap_err();
}

/// A put of bytes whose copy is damaged or lost heals it, in every packaging.
#[test]
fn a_put_heals_what_is_damaged_or_lost() {
    for (len, hint) in [
        (700, Hint::Small),
        (30_000, Hint::Large),
        (30_000, Hint::Stream),
        (200_000, Hint::Small),
    ] {
        let vfs = fresh();
        let mut w = writer(&vfs, 2).unwrap();
        let bytes = noise(9, len);
        let stored = put_bytes(&mut w, &bytes, hint);
        put_bytes(&mut w, b"a neighbour", hint);
        w.finish().unwrap();
        let again = |vfs: &FaultVfs| {
            let mut w = writer(vfs, 3).unwrap();
            let again = put_bytes(&mut w, &bytes, hint);
            w.finish().unwrap();
            assert_eq!(reader(vfs).unwrap().get(&stored.key).unwrap(), bytes);
            again.stored_bytes
        };
        assert_eq!(again(&vfs.fork()), 0, "nothing is damaged");

        // The artifact's own frame: its bytes, or its list.
        let damaged = vfs.fork();
        damage(&damaged, &stored.key);
        let healed = again(&damaged);
        assert!(healed > 0);
        // One chunk, and no other is written again.
        let handle = reader(&vfs).unwrap();
        let chunks = match handle.lookup(&stored.key).unwrap().unwrap().encoding {
            format::ENCODING_CHUNKED => list(&handle, &stored.key),
            _ => Vec::new(),
        };
        if let Some((chunk, len)) = chunks.last() {
            assert!(healed < len + 1000, "only the list");
            let damaged = vfs.fork();
            damage(&damaged, chunk);
            let healed = again(&damaged);
            assert!((*len..len + 200).contains(&healed), "{healed}");
        }
        // The whole block.
        let record = handle.lookup(&stored.key).unwrap().unwrap();
        let path = handle.with_state(|state| asl_store::index::block_path(state, record.block));
        let lost = vfs.fork();
        lost.remove_file(&path).unwrap();
        assert!(again(&lost) > 0);
    }
}

/// Covers I4 in part, S6 in part: a chunk that is also put by itself is a root of its own;
/// hiding it takes nothing from the stream, and it can be put again.
#[test]
fn a_chunk_may_be_a_root_as_well() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let bytes = noise(4, 100_000);
    let whole = put_bytes(&mut w, &bytes, Hint::Stream);
    w.commit().unwrap();
    let (chunk, len) = list(w.handle(), &whole.key)[2];
    let part = w.handle().get(&chunk).unwrap();
    let is_root = |w: &StoreWriter| {
        let record = w.handle().lookup(&chunk).unwrap();
        record.map(|record| record.is_root())
    };
    assert_eq!(is_root(&w), Some(false));
    let root = put_bytes(&mut w, &part, Hint::Small);
    assert_eq!((root.key, root.len), (chunk, len));
    w.commit().unwrap();
    assert_eq!(is_root(&w), Some(true));
    // Putting the stream again does not make it a mere part again.
    put_bytes(&mut w, &bytes, Hint::Stream);
    w.commit().unwrap();
    assert_eq!(is_root(&w), Some(true));
    w.tombstone(&[chunk]).unwrap();
    assert_eq!(is_root(&w), None);
    assert_eq!(copy(w.handle(), &whole.key), bytes);
    put_bytes(&mut w, &part, Hint::Small);
    w.commit().unwrap();
    assert_eq!(is_root(&w), Some(true));
    w.finish().unwrap();
    check_whole(&vfs);
}

/// A destination that fills up while a stream is put: a clear error; what is there
/// already counts when there is room again.
#[test]
fn a_stream_onto_a_full_destination_can_be_put_again() {
    let vfs = fresh();
    let used: u64 = vfs.files().iter().map(|(_, len)| len).sum();
    vfs.set_capacity(used + 250_000);
    let bytes = noise(5, 600_000);
    let mut w = writer(&vfs, 2).unwrap();
    let error = put_reader(
        &mut w,
        &mut &bytes[..],
        Hint::Stream,
        None,
        Compression::None,
    )
    .expect_err("there is no room");
    assert!(error.is_full(), "{error}");
    w.finish().unwrap();
    vfs.set_capacity(1 << 40);
    let mut w = writer(&vfs, 3).unwrap();
    let stored = put_bytes(&mut w, &bytes, Hint::Stream);
    assert!(stored.stored_bytes < 450_000, "{stored:?}");
    w.finish().unwrap();
    assert_eq!(copy(&reader(&vfs).unwrap(), &stored.key), bytes);
    check_whole(&vfs);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Covers C2, S1, S7: any parameters, any lengths, any hints: the same keys, the same bytes.
    #[test]
    fn parameters_and_hints_change_no_key_and_no_byte(
        threshold in 4096u64..40_000,
        large in 0u64..60_000,
        block in 65_536u64..200_000,
        packed_max in 1u32..40,
        puts in prop::collection::vec((0usize..130_000, 0u64..4, 0usize..3, any::<bool>()), 1..7),
    ) {
        let vfs = FaultVfs::new();
        let params = Params {
            shards: 4,
            block_size: block,
            large_size: threshold + large,
            small_threshold: threshold,
            packed_max,
        };
        asl_store::create(&vfs, &params, &context(1), &options()).unwrap();
        let mut w = writer(&vfs, 2).unwrap();
        let mut stored = Vec::new();
        for (len, kind, hint, commit) in puts {
            // Noise, what compresses, and repetitions, so that chunks are found again.
            let bytes: Vec<u8> = match kind {
                0 => noise(len as u64, len),
                1 => noise(1, 50).into_iter().cycle().take(len).collect(),
                2 => noise(2, 60_000).into_iter().cycle().take(len).collect(),
                _ => vec![0; len],
            };
            let done = put_bytes(&mut w, &bytes, HINTS[hint]);
            prop_assert_eq!(done.key, Key::of(&bytes));
            stored.push((done.key, bytes));
            if commit {
                w.commit().unwrap();
            }
        }
        w.finish().unwrap();
        let handle = reader(&vfs).unwrap();
        for (key, bytes) in &stored {
            prop_assert_eq!(&copy(&handle, key), bytes);
        }
        handle.with_state(|state| {
            for block in state.blocks.values() {
                assert!(block.artifact_count <= packed_max);
                assert!(block.class == format::CLASS_PACKED || block.artifact_count == 1);
            }
        });
        check_whole(&vfs);
    }
}
