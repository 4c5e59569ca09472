//! Fields taken one after the other from bytes, little-endian; `None` once there are
//! not enough left.

use asl_store::Key;

/// What is left to take.
pub struct Fields<'a> {
    /// The bytes.
    pub rest: &'a [u8],
}

impl Fields<'_> {
    /// So many bytes as they are.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A key.
    pub fn key(&mut self) -> Option<Key> {
        self.array().map(Key)
    }
}
