//! What a simulated disk holds: bytes from a seed, or given ones, with zeros
//! wherever told.

use std::ops::Range;
use std::sync::Arc;

use super::plan::RangeMap;

/// Contents come in units of this size whatever the disk's sector sizes are, so
/// that disks of the same seed hold the same bytes.
const UNIT_BYTES: u64 = 512;

pub(super) struct Content {
    origin: Origin,
    zeros: RangeMap<()>,
}

enum Origin {
    Seed(u64),
    Given(Arc<[u8]>),
}

impl Content {
    pub(super) fn seeded(seed: u64) -> Self {
        Self {
            origin: Origin::Seed(seed),
            zeros: RangeMap::default(),
        }
    }

    pub(super) fn given(bytes: Arc<[u8]>) -> Self {
        Self {
            origin: Origin::Given(bytes),
            zeros: RangeMap::default(),
        }
    }

    /// Has no effect on given contents.
    pub(super) fn reseed(&mut self, seed: u64) {
        if let Origin::Seed(old) = &mut self.origin {
            *old = seed;
        }
    }

    pub(super) fn clear(&mut self, bytes: Range<u64>) {
        self.zeros.insert(bytes, ());
    }

    /// Fills `buf` from `offset`; the caller stays within the disk.
    pub(super) fn fill(&self, offset: u64, buf: &mut [u8]) {
        match &self.origin {
            Origin::Given(bytes) => {
                let start = offset as usize;
                buf.copy_from_slice(&bytes[start..start + buf.len()]);
            }
            Origin::Seed(seed) => fill_seeded(*seed, offset, buf),
        }
        let end = offset + buf.len() as u64;
        for (zeros, ()) in self.zeros.overlapping(&(offset..end)) {
            buf[(zeros.start - offset) as usize..(zeros.end - offset) as usize].fill(0);
        }
    }
}

fn fill_seeded(seed: u64, offset: u64, buf: &mut [u8]) {
    let mut at = offset;
    let mut rest = buf;
    while !rest.is_empty() {
        let unit = at / UNIT_BYTES;
        let skip = (at % UNIT_BYTES) as usize;
        let len = rest.len().min(UNIT_BYTES as usize - skip);
        let (now, later) = rest.split_at_mut(len);
        if now.len() == UNIT_BYTES as usize {
            fill_unit(seed, unit, now);
        } else {
            let mut whole = [0; UNIT_BYTES as usize];
            fill_unit(seed, unit, &mut whole);
            now.copy_from_slice(&whole[skip..skip + len]);
        }
        at += len as u64;
        rest = later;
    }
}

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014),
/// started anew for every unit.
fn fill_unit(seed: u64, unit: u64, out: &mut [u8]) {
    let mut state = mix(seed ^ mix(unit.wrapping_add(1)));
    for word in out.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&mix(state).to_le_bytes());
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
