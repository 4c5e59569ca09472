//! Filters: which keys a segment certainly does not hold, without reading it.
//!
//! A split block bloom filter as Apache Parquet specifies it (256-bit blocks,
//! eight salted bits a key), here over the first 16 bytes of keys, which are
//! hashes already. One file a shard holds the filters of all its segments.
//!
//! A filter is a cache: where it is missing, damaged or of other segments it is
//! built again from them.

use crate::format::{self, filter_entry as fe, filter_header as fh};
use crate::id::{Digest, Key};
use crate::segment::{SegmentRef, shard_dir};

const SALTS: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];
/// Bits for each key: about one false answer in 1500.
const BITS_PER_KEY: u64 = 16;

/// Path of a shard's filter file.
pub fn filter_path(shard: u32) -> String {
    format!("{}/bloom.bin", shard_dir(shard))
}

/// A filter over one segment's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    blocks: Vec<[u32; 8]>,
}

impl Filter {
    /// An empty filter with room for `keys` keys.
    pub fn new(keys: u64) -> Self {
        let blocks = (keys * BITS_PER_KEY).div_ceil(256).max(1);
        Self {
            blocks: vec![[0; 8]; blocks as usize],
        }
    }

    /// Adds a key.
    pub fn insert(&mut self, key: &Key) {
        let (block, mask) = self.place(key);
        for (word, bit) in self.blocks[block].iter_mut().zip(mask) {
            *word |= bit;
        }
    }

    /// `false`: the key was never added.
    pub fn may_contain(&self, key: &Key) -> bool {
        let (block, mask) = self.place(key);
        self.blocks[block]
            .iter()
            .zip(mask)
            .all(|(word, bit)| word & bit != 0)
    }

    fn place(&self, key: &Key) -> (usize, [u32; 8]) {
        // The shard's bits lead the key, so its tail is what differs evenly.
        let half =
            |at: usize| u64::from_le_bytes(key.0[at..at + 8].try_into().expect("eight bytes"));
        let block = ((u128::from(half(16)) * self.blocks.len() as u128) >> 64) as usize;
        let low = half(24) as u32;
        (block, SALTS.map(|salt| 1 << (low.wrapping_mul(salt) >> 27)))
    }
}

/// The bytes of a filter file.
pub fn encode(shard: u32, filters: &[(SegmentRef, &Filter)]) -> Vec<u8> {
    let mut buf = vec![0; fh::LEN + filters.len() * fe::LEN];
    for (at, (segment, filter)) in filters.iter().enumerate() {
        let entry = &mut buf[fh::LEN + at * fe::LEN..][..fe::LEN];
        fe::NUMBER.set(entry, segment.number);
        fe::BLOCKS.set(entry, filter.blocks.len() as u32);
        fe::DIGEST.put(entry, &segment.digest.0);
    }
    for (_, filter) in filters {
        buf.extend(
            filter
                .blocks
                .iter()
                .flatten()
                .flat_map(|word| word.to_le_bytes()),
        );
    }
    fh::MAGIC.put(&mut buf, &format::FILTER_MAGIC);
    fh::VERSION.set(&mut buf, format::FORMAT_VERSION);
    fh::KIND.set(&mut buf, format::FILTER_SPLIT_BLOCK);
    fh::SHARD.set(&mut buf, shard);
    fh::COUNT.set(&mut buf, filters.len() as u32);
    let body_crc = crc32c::crc32c(&buf[fh::LEN..]);
    fh::BODY_CRC.set(&mut buf, body_crc);
    let crc = crc32c::crc32c(&buf[..fh::CRC.offset]);
    fh::CRC.set(&mut buf, crc);
    buf
}

/// Reads a filter file: each segment's number, digest and filter. `None` where
/// anything about it is off.
pub fn decode(shard: u32, buf: &[u8]) -> Option<Vec<(u32, Digest, Filter)>> {
    if buf.len() < fh::LEN
        || fh::MAGIC.of(buf) != format::FILTER_MAGIC
        || fh::CRC.u32(buf) != crc32c::crc32c(&buf[..fh::CRC.offset])
        || fh::BODY_CRC.u32(buf) != crc32c::crc32c(&buf[fh::LEN..])
        || fh::VERSION.u16(buf) > format::FORMAT_VERSION
        || fh::KIND.u16(buf) != format::FILTER_SPLIT_BLOCK
        || fh::SHARD.u32(buf) != shard
    {
        return None;
    }
    let count = fh::COUNT.u32(buf) as usize;
    let mut bits = buf.get(fh::LEN + count.checked_mul(fe::LEN)?..)?;
    let entries = &buf[fh::LEN..buf.len() - bits.len()];
    let mut filters = Vec::new();
    for entry in entries.chunks_exact(fe::LEN) {
        let blocks = fe::BLOCKS.u32(entry) as usize;
        let (own, rest) = bits.split_at_checked(blocks.checked_mul(32)?)?;
        bits = rest;
        let mut filter = Filter {
            blocks: vec![[0; 8]; blocks],
        };
        if blocks == 0 {
            return None;
        }
        for (word, raw) in filter.blocks.iter_mut().flatten().zip(own.chunks_exact(4)) {
            *word = u32::from_le_bytes(raw.try_into().expect("four bytes"));
        }
        filters.push((
            fe::NUMBER.u32(entry),
            Digest(fe::DIGEST.array(entry)),
            filter,
        ));
    }
    bits.is_empty().then_some(filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Key {
        Key::of(&n.to_le_bytes())
    }

    #[test]
    fn no_key_is_denied_and_few_others_are_let_through() {
        let mut filter = Filter::new(20_000);
        (0..20_000).for_each(|n| filter.insert(&key(n)));
        assert!((0..20_000).all(|n| filter.may_contain(&key(n))));
        let wrong = (20_000..220_000)
            .filter(|n| filter.may_contain(&key(*n)))
            .count();
        assert!(wrong < 400, "{wrong} of 200000 let through");
    }

    #[test]
    fn files_round_trip_and_damage_is_noticed() {
        let mut filter = Filter::new(100);
        (0..100).for_each(|n| filter.insert(&key(n)));
        let segment = SegmentRef {
            shard: 3,
            number: 9,
            entries: 100,
            digest: Digest([8; 32]),
        };
        let bytes = encode(3, &[(segment, &filter)]);
        assert_eq!(decode(3, &bytes), Some(vec![(9, segment.digest, filter)]));
        assert_eq!(decode(2, &bytes), None);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert_eq!(decode(3, &flipped), None, "byte {at}");
            assert_eq!(decode(3, &bytes[..at]), None);
        }
    }
}
