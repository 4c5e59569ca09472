//! Memory for many short-lived byte strings of different lengths: they are packed into
//! large slabs, and a slab is used again once the last string in it is dropped.
//!
//! A compressed frame lives until it is durable. An allocator that gave its memory back
//! in between would have the kernel clear the same pages again and again: a tenth
//! of the time that a capture takes.
//!
//! Memory only; a crash leaves nothing of it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Holds eight chunks that do not quite compress.
const SLAB_BYTES: usize = 2 << 20;

/// Slabs that are or were in use; as many as there ever were strings alive to fill.
#[derive(Default)]
pub struct Slabs {
    /// What is left of the slab that is being filled.
    open: Option<BytesMut>,
    /// What is left at the end of full slabs, the oldest first.
    full: VecDeque<BytesMut>,
}

impl Slabs {
    /// A copy of `bytes` in a slab, or on its own if a slab is too small for it.
    pub fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() > SLAB_BYTES {
            return Bytes::copy_from_slice(bytes);
        }
        let open = match self.open.take() {
            Some(open) if open.capacity() >= bytes.len() => open,
            full => self.next(full),
        };
        let open = self.open.insert(open);
        open.extend_from_slice(bytes);
        open.split().freeze()
    }

    fn next(&mut self, full: Option<BytesMut>) -> BytesMut {
        self.full.extend(full);
        let oldest = self.full.front_mut();
        if oldest.is_some_and(|slab| slab.try_reclaim(SLAB_BYTES)) {
            return self.full.pop_front().unwrap_or_default();
        }
        BytesMut::with_capacity(SLAB_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_what_was_copied_and_slabs_come_back() {
        let mut slabs = Slabs::default();
        let mut alive = VecDeque::new();
        let mut places = std::collections::BTreeSet::new();
        for at in 0..2000usize {
            let string = vec![at as u8; at * 7919 % 250_000];
            let copy = slabs.copy(&string);
            places.insert(copy.as_ptr() as usize / SLAB_BYTES);
            alive.push_back((string, copy));
            if alive.len() > 40 {
                let (string, copy) = alive.pop_front().unwrap();
                assert_eq!(string, copy);
            }
        }
        // Some 40 strings of 125 kB on average are 5 MB; all 2000 would be 250 MB.
        assert!(slabs.full.len() < 8, "{} slabs", slabs.full.len());
        assert!(places.len() < 20, "{} places", places.len());
    }

    #[test]
    fn what_no_slab_can_hold_is_on_its_own() {
        let mut slabs = Slabs::default();
        let long = vec![7; SLAB_BYTES + 1];
        assert_eq!(slabs.copy(&long), long);
        assert_eq!(slabs.copy(&long[1..]), long[1..]);
        assert!(slabs.copy(&[]).is_empty());
        assert!(slabs.full.is_empty());
    }
}
