//! Deleting a file never breaks a capture that consists of the same bytes.

mod common;

use asl_capture::device::fault::FaultDevice;
use asl_capture::digests::{self, ExtraDigests};
use asl_capture::export::{ExportObserver, ExportOptions, Fill, export_to_stream};
use asl_capture::manifest::Manifest;
use asl_store::format::FLAG_ROOT;
use asl_store::{Compression, Encoder, Error, Frame, Key, StoreHandle};
use common::*;

struct Quiet;

impl ExportObserver for Quiet {
    fn progress(&self, _: u64, _: u64) {}
}

fn file(bytes: &[u8]) -> Frame {
    Encoder::new(Compression::None).encode(Key::of(bytes), bytes.to_vec().into(), FLAG_ROOT)
}

/// The image, its SHA-256, and what an export counts as damaged.
fn exported(store: &StoreHandle, root: &Key) -> (Vec<u8>, Option<String>, usize) {
    let manifest = Manifest::open(store, root).unwrap();
    let options = ExportOptions {
        fill: Fill::Zero,
        sparse: false,
        range: 0..manifest.doc.source.size_bytes,
        threads: 1,
    };
    let mut bytes = Vec::new();
    let report = export_to_stream(store, &manifest, &mut bytes, &options, &Quiet).unwrap();
    let top = store.get_node(root).unwrap();
    let (_, children, _) = asl_store::frame::parse_node(&top).unwrap();
    let which = ExtraDigests {
        sha256: true,
        md5: false,
    };
    let (sha256, _) = digests::of_image(store, &manifest.doc, children[0], which).unwrap();
    (bytes, sha256, report.damaged.len())
}

#[test]
fn a_capture_outlives_the_files_that_share_its_chunks() {
    let disk = FaultDevice::builder(6 << 20).seed(4).build();
    let content = content(&disk);
    let chunks: Vec<&[u8]> = content.chunks(4096).collect();
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    // A chunk that is a file before; one that is a file in two parts; one part of that.
    w.put(file(chunks[3])).unwrap();
    let halves: Vec<_> = chunks[5].chunks(2048).collect();
    for half in &halves {
        w.put(file(half)).unwrap();
    }
    let list: Vec<_> = halves.iter().map(|half| (Key::of(half), 2048)).collect();
    w.put(Encoder::chunked(Key::of(chunks[5]), &list, FLAG_ROOT))
        .unwrap();
    w.finish().unwrap();

    let report = run(&vfs, &disk, 3, &disk_options()).unwrap();
    let root = report.root.unwrap();
    let handle = reader(&vfs);
    assert_eq!(
        handle
            .lookup(&Key::of(chunks[5]))
            .unwrap()
            .unwrap()
            .encoding,
        2
    );
    let whole = exported(&handle, &root);
    assert!(whole.0 == content && whole.2 == 0);

    // A chunk and a node of the manifest that become files after it.
    let mut w = writer(&vfs, 4).unwrap();
    let capture = handle.get(&root).unwrap();
    let top = asl_store::frame::parse_node(&capture).unwrap().1[0];
    w.put(file(chunks[9])).unwrap();
    w.put(file(&handle.get(&top).unwrap())).unwrap();
    w.commit().unwrap();
    let gone = [
        Key::of(chunks[3]),
        Key::of(chunks[5]),
        Key::of(halves[1]),
        Key::of(chunks[9]),
        top,
    ];
    w.tombstone(&gone).unwrap();
    for _ in 0..3 {
        let handle = reader(&vfs);
        for key in &gone {
            assert!(matches!(handle.get(key), Err(Error::NotFound(_))));
        }
        assert!(exported(&handle, &root) == whole);
        w.flush().unwrap();
    }
    w.finish().unwrap();
    assert!(exported(&reader(&vfs), &root) == whole);
    // The same disk again: nothing of it is missing from the second capture either.
    let second = run(&vfs, &disk, 5, &disk_options()).unwrap();
    assert_captured(&reader(&vfs), &second, &disk);
    assert!(exported(&reader(&vfs), &root) == whole);
}
