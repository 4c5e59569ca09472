//! Stores whose checksums, digests and chains are right and whose contents are not: what
//! a program with a mistake might write.
#![allow(dead_code)]

use std::sync::Arc;

use asl_store::format::{
    self, PAGE_LEN, block_header as bh, block_trailer as bt, current_hint as ch, log_header as lh,
    page_foot as pf, record_head as rh, record_tail as rt, seal_payload as sp, segment_added as sa,
    segment_header as sh, segments_payload as gp, toc_entry as te,
};
use asl_store::frame::{FrameInfo, FrameSalt, build_node};
use asl_store::id::Digest;
use asl_store::segment::segment_path;
use asl_store::vfs::fault::FaultVfs;
use asl_store::vfs::{Access, Vfs};
use asl_store::{
    Compression, Encoder, Frame, Key, SessionId, StoreWriter, VerifyOptions, VerifyReport, block,
    create, current, verify,
};

use crate::common::{context, frame, noise, options, small_params, writer};

const LOG: &str = "log/log-0000000000000000.asl";

/// A log record without what follows from its place.
#[derive(Debug, Clone)]
pub struct Rec {
    pub record_type: u16,
    pub flags: u16,
    pub time: u64,
    pub payload: Vec<u8>,
}

/// A store of one log file, open for changes.
pub struct Forge {
    pub vfs: FaultVfs,
    pub header: Vec<u8>,
    pub records: Vec<Rec>,
    hint: Vec<u8>,
}

/// A block in its parts.
pub struct Block {
    pub header: Vec<u8>,
    pub frames: Vec<(FrameInfo, Vec<u8>)>,
    /// What the table of contents says instead of the frames.
    pub toc: Option<Vec<FrameInfo>>,
    pub trailer_flags: u32,
    pub trailer_reserved: u8,
}

fn crc(bytes: &mut [u8], field: format::Field) {
    let crc = crc32c::crc32c(&bytes[..field.offset]);
    field.set(bytes, crc);
}

fn derive(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

impl Forge {
    pub fn of(vfs: &FaultVfs) -> Self {
        let vfs = vfs.fork();
        let raw = vfs.read_file(LOG).unwrap();
        let mut records = Vec::new();
        let mut at = lh::LEN;
        while at < raw.len() {
            let head = &raw[at..at + rh::LEN];
            let len = rh::PAYLOAD_LEN.u32(head) as usize;
            records.push(Rec {
                record_type: rh::TYPE.u16(head),
                flags: rh::FLAGS.u16(head),
                time: rh::TIME.get(head),
                payload: raw[at + rh::LEN..at + rh::LEN + len].to_vec(),
            });
            at += rh::LEN + len.next_multiple_of(8) + rt::LEN;
        }
        Self {
            header: raw[..lh::LEN].to_vec(),
            hint: vfs.read_file(current::HINT_PATH).unwrap(),
            records,
            vfs,
        }
    }

    /// Writes the log and a hint that fits it; returns the store.
    pub fn done(self) -> FaultVfs {
        self.done_with(|_| ())
    }

    /// The same, with another hint.
    pub fn done_with(mut self, hint: impl FnOnce(&mut [u8])) -> FaultVfs {
        crc(&mut self.header, lh::CRC);
        let mut raw = self.header.clone();
        let mut chain = derive(format::CONTEXT_GENESIS, &[lh::STORE_ID.of(&self.header)]);
        for (position, record) in self.records.iter().enumerate() {
            let mut body = vec![0; rh::LEN];
            rh::MAGIC.put(&mut body, &format::RECORD_MAGIC);
            rh::TYPE.set(&mut body, record.record_type);
            rh::FLAGS.set(&mut body, record.flags);
            rh::POSITION.set(&mut body, position as u64);
            rh::PAYLOAD_LEN.set(&mut body, record.payload.len() as u32);
            rh::SALT.set(&mut body, lh::CRC.u32(&self.header));
            rh::TIME.set(&mut body, record.time);
            body.extend(&record.payload);
            body.resize(body.len().next_multiple_of(8), 0);
            chain = derive(format::CONTEXT_CHAIN, &[&chain, &body]);
            let mut tail = [0; rt::LEN];
            rt::CHAIN.put(&mut tail, &chain);
            let sum = crc32c::crc32c_append(crc32c::crc32c(&body), &chain);
            rt::CRC.set(&mut tail, sum);
            raw.extend(body);
            raw.extend(tail);
        }
        self.vfs.write_file(LOG, &raw).unwrap();
        ch::POSITION.set(&mut self.hint, self.records.len() as u64);
        ch::VALID_LEN.set(&mut self.hint, raw.len() as u64);
        ch::CHAIN.put(&mut self.hint, &chain);
        hint(&mut self.hint);
        crc(&mut self.hint, ch::CRC);
        self.vfs.write_file(current::HINT_PATH, &self.hint).unwrap();
        self.vfs
    }

    /// The number of the `nth` record of a type.
    pub fn nth(&self, record_type: u16, nth: usize) -> usize {
        let of_type = |(_, record): &(usize, &Rec)| record.record_type == record_type;
        let mut found = self.records.iter().enumerate().filter(of_type);
        found.nth(nth).expect("the store has such a record").0
    }

    /// Changes the payload of the `nth` record of a type.
    pub fn payload(&mut self, record_type: u16, nth: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let at = self.nth(record_type, nth);
        change(&mut self.records[at].payload);
    }

    /// Changes the block of the `nth` seal record, which names the new one.
    pub fn block(&mut self, nth: usize, change: impl FnOnce(&mut Block)) {
        let at = self.nth(format::RECORD_SEAL, nth);
        let payload = &mut self.records[at].payload;
        let path = block::sealed_path(&Digest(sp::DIGEST.array(payload)));
        let raw = self.vfs.read_file(&path).unwrap();
        let file = self.vfs.open(&path, Access::Read).unwrap();
        let sealed = block::read_sealed(&*file, &path).unwrap();
        let frames = sealed.entries.iter().map(|entry| {
            let stored = block::read_stored(&*file, &path, entry).unwrap();
            (entry.info, stored)
        });
        let mut made = Block {
            header: raw[..bh::LEN].to_vec(),
            frames: frames.collect(),
            toc: None,
            trailer_flags: 0,
            trailer_reserved: 0,
        };
        change(&mut made);
        let (digest, raw) = made.encode();
        let artifacts: Vec<_> = made
            .infos()
            .into_iter()
            .filter(FrameInfo::is_artifact)
            .collect();
        sp::DIGEST.put(payload, &digest);
        sp::FILE_LEN.set(payload, raw.len() as u64);
        sp::FRAME_COUNT.set(payload, made.frames.len() as u32);
        sp::ARTIFACT_COUNT.set(payload, artifacts.len() as u32);
        let bytes: u64 = artifacts.iter().map(|info| info.raw_len).sum();
        sp::ARTIFACT_BYTES.set(payload, bytes);
        self.vfs.remove_file(&path).unwrap();
        self.vfs
            .write_file(&block::sealed_path(&Digest(digest)), &raw)
            .unwrap();
    }

    /// Changes the first segment that the first segments record adds, and mends its checksums.
    pub fn segment(&mut self, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let at = self.nth(format::RECORD_SEGMENTS, 0);
        let payload = &mut self.records[at].payload;
        let added = &mut payload[gp::LEN..gp::LEN + sa::LEN];
        let path = segment_path(sa::SHARD.u32(added), sa::NUMBER.u32(added));
        let mut raw = self.vfs.read_file(&path).unwrap();
        change(&mut raw);
        let table = ((1usize << sh::FANOUT_BITS.u32(&raw)) + 1) * 4;
        let sum = crc32c::crc32c(&raw[sh::LEN..sh::LEN + table]);
        sh::FANOUT_CRC.set(&mut raw, sum);
        crc(&mut raw[..sh::LEN], sh::CRC);
        let pages = (sh::PAGES_OFFSET.get(&raw) as usize).min(raw.len());
        for page in raw[pages..].chunks_exact_mut(PAGE_LEN) {
            let foot = PAGE_LEN - pf::LEN;
            let sum = crc32c::crc32c(&page[..foot + pf::CRC.offset]);
            pf::CRC.set(&mut page[foot..], sum);
        }
        sa::ENTRIES.set(added, sh::ENTRIES.get(&raw));
        sa::DIGEST.put(added, &derive(format::CONTEXT_SEGMENT, &[&raw]));
        self.vfs.write_file(&path, &raw).unwrap();
        path
    }
}

impl Block {
    fn infos(&self) -> Vec<FrameInfo> {
        let own = || self.frames.iter().map(|(info, _)| *info).collect();
        self.toc.clone().unwrap_or_else(own)
    }

    fn encode(&mut self) -> ([u8; 32], Vec<u8>) {
        crc(&mut self.header, bh::CRC);
        let salt = FrameSalt::of_block(self.header[..].try_into().unwrap());
        let mut raw = self.header.clone();
        let mut toc = Vec::new();
        for ((info, stored), listed) in self.frames.iter().zip(self.infos()) {
            toc.extend(listed.toc_entry(raw.len() as u32));
            raw.extend(info.header(&salt));
            raw.extend(stored);
            raw.resize(raw.len().next_multiple_of(8), 0);
        }
        let mut trailer = vec![0; bt::LEN];
        bt::MAGIC.put(&mut trailer, &format::TRAILER_MAGIC);
        bt::FRAME_COUNT.set(&mut trailer, self.frames.len() as u32);
        bt::FLAGS.set(&mut trailer, self.trailer_flags);
        bt::TOC_OFFSET.set(&mut trailer, raw.len() as u64);
        let len = raw.len() + toc.len() + bt::LEN;
        bt::FILE_LEN.set(&mut trailer, len as u64);
        let artifacts = self.infos().into_iter().filter(FrameInfo::is_artifact);
        let bytes: u64 = artifacts.map(|info| info.raw_len).sum();
        bt::ARTIFACT_BYTES.set(&mut trailer, bytes);
        let digest = derive(
            format::CONTEXT_BLOCK,
            &[&self.header, &toc, &trailer[..bt::DIGEST.offset]],
        );
        bt::DIGEST.put(&mut trailer, &digest);
        trailer[bt::RESERVED.offset + 3] = self.trailer_reserved;
        crc(&mut trailer, bt::CRC);
        assert_eq!(toc.len(), self.frames.len() * te::LEN);
        raw.extend(toc);
        raw.extend(trailer);
        (digest, raw)
    }
}

pub fn verified(vfs: &FaultVfs) -> VerifyReport {
    verify(Arc::new(vfs.clone()), &VerifyOptions::default(), &()).unwrap()
}

pub fn node(kind: u32, children: &[Key], flags: u16) -> Frame {
    let bytes = build_node(kind, children, b"body");
    let flags = flags | format::FLAG_NODE;
    Encoder::new(Compression::None).encode(Key::of(&bytes), bytes.into(), flags)
}

pub fn put_all(w: &mut StoreWriter, frames: Vec<Frame>) {
    for frame in frames {
        w.put(frame).unwrap();
    }
    w.commit().unwrap();
}

/// Bytes that compress.
pub fn soft(n: u64) -> Vec<u8> {
    noise(n, 50).repeat(20)
}

/// A store of one log file. Seals: 0 small artifacts (hard 0 to 5, soft 10), 1 a large one,
/// 2 two parts and their whole, 3 a tree, 4 how the session ended, 5 a tombstone, 6 after the segments.
pub fn small_store() -> FaultVfs {
    let vfs = FaultVfs::new();
    let params = asl_store::Params {
        shards: 1,
        ..small_params()
    };
    create(&vfs, &params, &context(1), &options()).unwrap();
    let mut w = writer(&vfs, 2).unwrap();
    let mut frames: Vec<_> = (0..6).map(|n| frame(&noise(n, 100))).collect();
    frames.push(frame(&soft(10)));
    put_all(&mut w, frames);
    put_all(&mut w, vec![frame(&noise(20, 17 << 10))]);
    w.begin_session(SessionId([4; 16]), b"{}").unwrap();
    let parts = [noise(30, 500), noise(31, 600)];
    let list: Vec<_> = parts.iter().map(|p| (Key::of(p), p.len() as u64)).collect();
    let whole = Key::of(&parts.concat());
    put_all(
        &mut w,
        vec![
            frame(&parts[0]),
            frame(&parts[1]),
            Encoder::chunked(whole, &list, format::FLAG_ROOT),
        ],
    );
    let leaf = node(1, &[Key::of(&noise(0, 100)), Key::of(&noise(1, 100))], 0);
    let root = node(3, &[leaf.info.key], format::FLAG_ROOT);
    let root_key = root.info.key;
    put_all(&mut w, vec![leaf, root]);
    w.end_session(format::SESSION_FINISHED, Some(root_key), b"{}")
        .unwrap();
    w.tombstone(&[Key::of(&noise(1, 100))]).unwrap();
    w.flush().unwrap();
    put_all(&mut w, vec![frame(&noise(40, 100))]);
    let entry = w.handle().lookup(&Key::of(&noise(2, 100))).unwrap();
    w.index_add(&[entry.unwrap()]).unwrap();
    w.finish().unwrap();
    vfs
}

/// Verify finds `what` in a file whose path contains `file`.
pub fn assert_found(vfs: &FaultVfs, file: &str, what: &str) {
    let report = verified(vfs);
    let found = report
        .damage
        .iter()
        .any(|damage| damage.file.contains(file) && damage.what.contains(what));
    assert!(found, "{file}: {what}: {:#?}", report.damage);
}
