//! The BLAKE3 digest of an image whose chunks are hashed in any order.
//!
//! BLAKE3 is a tree over 1024-byte leaves. A chunk whose size is a power of two
//! and whose offset is a multiple of it is a subtree, so its chaining value can
//! be computed alone and merged later (BLAKE3 paper, section 2.1).

use blake3::hazmat::{self, HasherExt, Mode};

/// Chaining value of a subtree.
pub type ChainingValue = [u8; 32];

/// The chaining value of `bytes` that stand at `offset` of a longer image.
/// `offset` is a multiple of a power of two that is at least `bytes.len()` and at
/// least 1024.
pub fn subtree(offset: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset).update(bytes);
    hasher.finalize_non_root()
}

/// The chaining value of `len` zero bytes at `offset`.
pub fn zero_subtree(offset: u64, len: u64) -> ChainingValue {
    static ZEROS: [u8; 65_536] = [0; 65_536];
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    let mut left = len;
    while left > 0 {
        let part = left.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..part as usize]);
        left -= part;
    }
    hasher.finalize_non_root()
}

/// Merges the chaining values of consecutive parts of `part_bytes` each (a power
/// of two of at least 1024; the last part may be shorter) into that of their whole
/// of `len` bytes.
pub fn merge(parts: &[ChainingValue], part_bytes: u64, len: u64) -> ChainingValue {
    debug_assert_eq!(parts.len() as u64, len.div_ceil(part_bytes));
    if parts.len() == 1 {
        return parts[0];
    }
    let (left, right) = halves(parts, part_bytes, len);
    hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// The digest of an image of more than one part; see [`merge`].
pub fn root(parts: &[ChainingValue], part_bytes: u64, len: u64) -> blake3::Hash {
    let (left, right) = halves(parts, part_bytes, len);
    hazmat::merge_subtrees_root(&left, &right, Mode::Hash)
}

fn halves(parts: &[ChainingValue], part_bytes: u64, len: u64) -> (ChainingValue, ChainingValue) {
    let left_len = hazmat::left_subtree_len(len);
    let (left, right) = parts.split_at((left_len / part_bytes) as usize);
    (
        merge(left, part_bytes, left_len),
        merge(right, part_bytes, len - left_len),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_any_grouping_give_the_digest() {
        let mut image = vec![0; 300_000];
        blake3::Hasher::new().finalize_xof().fill(&mut image);
        image[70_000..140_000].fill(0);
        for len in [1025, 2048, 4096, 4097, 100_000, 131_072, 131_073, 300_000] {
            for part in [1024usize, 4096, 16_384] {
                if len <= part {
                    continue;
                }
                let image = &image[..len];
                let parts: Vec<_> = image
                    .chunks(part)
                    .enumerate()
                    .map(|(n, bytes)| subtree((n * part) as u64, bytes))
                    .collect();
                assert_eq!(root(&parts, part as u64, len as u64), blake3::hash(image));
                // And through an inner level of four parts each.
                let outer = part * 4;
                if len > outer {
                    let groups: Vec<_> = parts
                        .chunks(4)
                        .enumerate()
                        .map(|(n, group)| {
                            merge(group, part as u64, (len - n * outer).min(outer) as u64)
                        })
                        .collect();
                    assert_eq!(root(&groups, outer as u64, len as u64), blake3::hash(image));
                }
            }
        }
        assert_eq!(
            zero_subtree(131_072, 65_536),
            subtree(131_072, &vec![0; 65_536])
        );
        assert_eq!(
            zero_subtree(131_072, 70_000),
            subtree(131_072, &vec![0; 70_000])
        );
    }
}
