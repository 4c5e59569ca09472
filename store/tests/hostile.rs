//! Blocks and logs whose checksums are right and whose contents are not: what a
//! hostile disk may hold, or a newer program write.

mod common;

use asl_store::format::{self, block_trailer as bt, toc_entry as te};
use asl_store::vfs::fault::FaultVfs;
use asl_store::vfs::{Access, Vfs};
use asl_store::{Error, block};
use common::*;

/// A sealed block of two artifacts and its path.
fn sealed_block() -> (FaultVfs, String) {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    w.put(frame(&noise(1, 300))).unwrap();
    w.put(frame(&noise(2, 400))).unwrap();
    w.finish().unwrap();
    let mut paths = vfs.files().into_iter().map(|(path, _)| path);
    let path = paths.find(|path| path.ends_with(".blk")).unwrap();
    (vfs, path)
}

/// Changes the trailer of a block and makes digest and checksum right again.
fn with_trailer(raw: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut raw = raw.to_vec();
    let trailer_at = raw.len() - bt::LEN;
    change(&mut raw[trailer_at..]);
    let toc_len = bt::FRAME_COUNT.u32(&raw[trailer_at..]) as usize * te::LEN;
    let mut hasher = blake3::Hasher::new_derive_key(format::CONTEXT_BLOCK);
    hasher.update(&raw[..format::block_header::LEN]);
    hasher.update(&raw[trailer_at - toc_len..trailer_at + bt::DIGEST.offset]);
    let trailer = &mut raw[trailer_at..];
    bt::DIGEST.put(trailer, hasher.finalize().as_bytes());
    let crc = crc32c::crc32c(&trailer[..bt::CRC.offset]);
    bt::CRC.set(trailer, crc);
    raw
}

fn read(raw: &[u8]) -> asl_store::Result<block::Sealed> {
    let vfs = FaultVfs::new();
    vfs.write_file("block", raw).unwrap();
    block::read_sealed(&*vfs.open("block", Access::Read).unwrap(), "block")
}

#[test]
fn a_trailer_must_sum_up_its_artifacts() {
    let (vfs, path) = sealed_block();
    let raw = vfs.read_file(&path).unwrap();
    assert_eq!(
        read(&with_trailer(&raw, |_| ())).unwrap().artifact_bytes(),
        700
    );
    for bytes in [0u64, 699, 701, u64::MAX] {
        let error = read(&with_trailer(&raw, |t| bt::ARTIFACT_BYTES.set(t, bytes))).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
}
