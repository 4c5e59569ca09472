//! Blocks and logs whose checksums are right and whose contents are not: what a
//! hostile disk may hold, or a newer program write.

mod common;

use asl_store::format::{
    self, Field, block_header as bh, block_trailer as bt, created_payload as cp, log_header as lh,
    record_head as rh, record_tail as rt, toc_entry as te,
};
use asl_store::log::LogEnd;
use asl_store::vfs::fault::FaultVfs;
use asl_store::vfs::{Access, Vfs};
use asl_store::{Error, Key, block};
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

/// Changes the header of a block and makes all checksums right again but for those
/// of frames, which only reading them looks at.
fn with_header(raw: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut raw = raw.to_vec();
    change(&mut raw);
    let crc = crc32c::crc32c(&raw[..bh::CRC.offset]);
    bh::CRC.set(&mut raw, crc);
    with_trailer(&raw, |_| ())
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

/// A log of one file with these changes to its header and records, all checksums and
/// the chain right. `change` gets each structure by name.
fn rewritten(raw: &[u8], change: &dyn Fn(&str, &mut [u8])) -> Vec<u8> {
    let mut out = raw[..lh::LEN].to_vec();
    change("log_header", &mut out);
    let crc = crc32c::crc32c(&out[..lh::CRC.offset]);
    lh::CRC.set(&mut out, crc);
    let mut chain = lh::PREV_CHAIN.array::<32>(&out);
    let mut at = lh::LEN;
    while at < raw.len() {
        let payload_len = rh::PAYLOAD_LEN.u32(&raw[at..]) as usize;
        let body_len = rh::LEN + payload_len.next_multiple_of(8);
        let mut body = raw[at..at + body_len].to_vec();
        rh::SALT.set(&mut body, crc);
        change("record_head", &mut body[..rh::LEN]);
        if rh::TYPE.u16(&body) == format::RECORD_CREATED {
            change("created_payload", &mut body[rh::LEN..]);
        }
        let mut hasher = blake3::Hasher::new_derive_key(format::CONTEXT_CHAIN);
        chain = *hasher.update(&chain).update(&body).finalize().as_bytes();
        let mut tail = [0; rt::LEN];
        rt::CHAIN.put(&mut tail, &chain);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&body), &chain);
        rt::CRC.set(&mut tail, crc);
        out.extend(body);
        out.extend(tail);
        at += body_len + rt::LEN;
    }
    out
}

const LOG: &str = "log/log-0000000000000000.asl";

/// The store with such a log and without its hint.
fn with_log(vfs: &FaultVfs, change: &dyn Fn(&str, &mut [u8])) -> FaultVfs {
    let changed = vfs.fork();
    let raw = vfs.read_file(LOG).unwrap();
    changed.write_file(LOG, &rewritten(&raw, change)).unwrap();
    changed.remove_file("log/current").unwrap();
    changed
}

fn set(field: Field, buf: &mut [u8], value: u64) {
    field.set(buf, value);
}

/// A flag that this version does not know may change the meaning of everything after it.
#[test]
fn unknown_flags_are_refused() {
    let (vfs, path) = sealed_block();
    let wanted = Key::of(&noise(1, 300));
    assert!(
        reader(&with_log(&vfs, &|_, _| ()))
            .unwrap()
            .get(&wanted)
            .is_ok()
    );
    for bit in 0..32 {
        for (structure, field) in [("log_header", lh::FLAGS), ("created_payload", cp::FLAGS)] {
            let changed = with_log(&vfs, &|name, buf| {
                if name == structure {
                    set(field, buf, 1 << bit);
                }
            });
            let error = reader(&changed).err();
            assert!(
                matches!(error, Some(Error::UnknownFlags { .. })),
                "{structure}: {error:?}"
            );
        }
        let salvaged = 1 << bit == format::TRAILER_SALVAGED;
        let raw = vfs.read_file(&path).unwrap();
        let read = read(&with_trailer(&raw, |t| set(bt::FLAGS, t, 1 << bit)));
        match read {
            Ok(sealed) => assert!(salvaged && sealed.salvaged),
            Err(error) => assert!(!salvaged && matches!(error, Error::UnknownFlags { .. })),
        }
        let read = self::read(&with_header(&raw, |h| set(bh::FLAGS, h, 1 << bit)));
        assert!(matches!(read, Err(Error::UnknownFlags { .. })));
        // Not even by a reader that knows the place of a frame from elsewhere.
        let opened = reader(&vfs).unwrap();
        let changed = with_header(&raw, |h| set(bh::FLAGS, h, 1 << bit));
        vfs.write_file(&path, &changed).unwrap();
        let got = opened.get(&wanted);
        assert!(matches!(got, Err(Error::UnknownFlags { .. })));
        vfs.write_file(&path, &raw).unwrap();
    }
    for bit in 0..16 {
        // Of a lease: a record that exists in every store.
        let changed = with_log(&vfs, &|name, buf| {
            if name == "record_head" && rh::TYPE.u16(buf) == format::RECORD_LEASE {
                let known = rh::FLAGS.get(buf);
                set(rh::FLAGS, buf, known | 1 << bit);
            }
        });
        let opened = reader(&changed);
        if 1 << bit == format::RECORD_CRITICAL || 1 << bit == format::RECORD_CONTINUES {
            opened.unwrap().get(&wanted).unwrap();
        } else {
            let error = opened.err();
            assert!(
                matches!(error, Some(Error::UnknownFlags { .. })),
                "{error:?}"
            );
        }
    }
}

/// Reserved bytes are for additions that an older reader may ignore; the salt of a
/// log's records is that of the header with them.
#[test]
fn reserved_bytes_are_ignored() {
    let (vfs, path) = sealed_block();
    let changed = with_log(&vfs, &|name, buf| match name {
        "log_header" => lh::RESERVED.put(buf, &[7; lh::RESERVED.len]),
        "created_payload" => cp::RESERVED.put(buf, &[7; cp::RESERVED.len]),
        _ => {}
    });
    let key = Key::of(&noise(1, 300));
    assert!(reader(&changed).unwrap().get(&key).is_ok());
    // A writer goes on in that file.
    let mut w = writer(&changed, 3).unwrap();
    w.put(frame(&noise(9, 300))).unwrap();
    w.finish().unwrap();
    assert!(
        reader(&changed)
            .unwrap()
            .get(&Key::of(&noise(9, 300)))
            .is_ok()
    );

    let raw = vfs.read_file(&path).unwrap();
    read(&with_trailer(&raw, |t| {
        bt::RESERVED.put(t, &[7; bt::RESERVED.len])
    }))
    .unwrap();
    read(&with_header(&raw, |h| {
        bh::RESERVED.put(h, &[7; bh::RESERVED.len])
    }))
    .unwrap();
}

/// Two histories of one store, or of two, in one directory: the log leads to one of
/// them, and nobody may write before that is settled.
#[test]
fn files_that_the_log_does_not_lead_to_are_damage() {
    let (vfs, _) = sealed_block();
    vfs.remove_file("log/current").unwrap();
    // A second beginning becomes the newest file: what is passed over is the store.
    let mut header = vfs.read_file(LOG).unwrap()[..lh::LEN].to_vec();
    set(lh::GENERATION, &mut header, 1);
    let crc = crc32c::crc32c(&header[..lh::CRC.offset]);
    lh::CRC.set(&mut header, crc);
    let twice = vfs.fork();
    let second = "log/log-0000000000000000-0001.asl";
    twice.write_file(second, &header).unwrap();
    let error = writer(&twice, 3).err();
    assert!(matches!(error, Some(Error::LogDamaged { .. })), "{error:?}");

    // A later file that another one passes over.
    let mut w = writer(&vfs, 3).unwrap();
    w.put(frame(&noise(3, 300))).unwrap();
    w.finish().unwrap();
    vfs.remove_file("log/current").unwrap();
    let raw = vfs.read_file(LOG).unwrap();
    let file = |first: u64, generation: u32, store: u8| {
        let mut header = raw[..lh::LEN].to_vec();
        set(lh::FIRST_POSITION, &mut header, first);
        set(lh::GENERATION, &mut header, generation.into());
        set(lh::PREV_GENERATION, &mut header, 0);
        let (valid_len, chain) = place_of(&raw, first);
        set(lh::PREV_VALID_LEN, &mut header, valid_len);
        lh::PREV_CHAIN.put(&mut header, &chain);
        header[lh::STORE_ID.offset] ^= store;
        let crc = crc32c::crc32c(&header[..lh::CRC.offset]);
        lh::CRC.set(&mut header, crc);
        header
    };
    let end = |extra: &[(u32, u8, usize)]| {
        let vfs = vfs.fork();
        let first = records(&raw) as u64;
        for (generation, store, len) in extra {
            let mut bytes = file(first, *generation, *store);
            bytes.resize(bytes.len() + len, 0);
            let name = match generation {
                0 => format!("log/log-{first:016x}.asl"),
                _ => format!("log/log-{first:016x}-{generation:04x}.asl"),
            };
            vfs.write_file(&name, &bytes).unwrap();
        }
        let end = reader(&vfs).map(|handle| {
            assert!(handle.get(&Key::of(&noise(3, 300))).is_ok());
            handle.log_end().clone()
        });
        let opened = writer(&vfs, 4).map(drop);
        (end.unwrap(), opened)
    };
    let (clean, opened) = end(&[(0, 0, 0), (1, 0, 0)]);
    assert_eq!(clean, LogEnd::Clean);
    opened.unwrap();
    for files in [
        [(0, 0, 1), (1, 0, 0)],
        [(0, 0, 800), (1, 0, 0)],
        [(0, 1, 0), (1, 0, 0)],
        [(0, 0, 0), (1, 1, 0)],
    ] {
        let (found, opened) = end(&files);
        assert!(
            matches!(found, LogEnd::Damaged { .. }),
            "{files:?}: {found:?}"
        );
        assert!(matches!(opened, Err(Error::LogDamaged { .. })));
    }
}

/// Number of records in a log file.
fn records(raw: &[u8]) -> usize {
    let mut at = lh::LEN;
    let mut count = 0;
    while at < raw.len() {
        at += rh::LEN + rh::PAYLOAD_LEN.u32(&raw[at..]).next_multiple_of(8) as usize + rt::LEN;
        count += 1;
    }
    count
}

/// Offset and chain before the record at `position` of a log of one file.
fn place_of(raw: &[u8], position: u64) -> (u64, [u8; 32]) {
    let mut at = lh::LEN;
    let mut chain = lh::PREV_CHAIN.array(raw);
    for _ in 0..position {
        at += rh::LEN + rh::PAYLOAD_LEN.u32(&raw[at..]).next_multiple_of(8) as usize + rt::LEN;
        chain = rt::CHAIN.array(&raw[at - rt::LEN..]);
    }
    (at as u64, chain)
}
