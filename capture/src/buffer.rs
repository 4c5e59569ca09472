//! A bounded pool of equal, aligned, reusable buffers: what a reader fills, and
//! what hashing, compressing and writing hold on to until they are done.
//!
//! Invariants
//! - At most `count_max` buffers exist, so the pool bounds the memory of the
//!   pipeline: whoever reads ahead waits in [`BufferPool::get`].
//! - Every buffer starts at a multiple of 4096 and is faulted in once, when it is
//!   first made. It is never zeroed again: a buffer holds whatever its last
//!   user left in it.
//!
//! Buffers are memory only; a crash leaves nothing of them.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::sys::AlignedBytes;

/// A handle on a pool; clones share the pool.
#[derive(Clone)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

struct Shared {
    buffer_bytes: usize,
    count_max: usize,
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    free: Vec<AlignedBytes>,
    out: usize,
}

impl BufferPool {
    /// A pool of at most `count_max` buffers of `buffer_bytes` each. Memory is
    /// taken when a buffer is first asked for.
    ///
    /// # Panics
    /// When either is 0.
    pub fn new(buffer_bytes: usize, count_max: usize) -> Self {
        assert!(buffer_bytes > 0, "a buffer has at least one byte");
        assert!(count_max > 0, "a pool has at least one buffer");
        Self {
            shared: Arc::new(Shared {
                buffer_bytes,
                count_max,
                state: Mutex::new(State {
                    free: Vec::new(),
                    out: 0,
                }),
                returned: Condvar::new(),
            }),
        }
    }

    /// A buffer of full length with unspecified contents; waits while all
    /// `count_max` are out.
    pub fn get(&self) -> Buffer {
        let mut state = self.shared.lock();
        while state.out == self.shared.count_max {
            state = self
                .shared
                .returned
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.take(state)
    }

    /// A buffer as [`get`](Self::get) gives it, or `None` while all are out.
    pub fn try_get(&self) -> Option<Buffer> {
        let state = self.shared.lock();
        (state.out < self.shared.count_max).then(|| self.take(state))
    }

    /// Size of every buffer of this pool, in bytes.
    pub fn buffer_bytes(&self) -> usize {
        self.shared.buffer_bytes
    }

    /// How many buffers may be out at once.
    pub fn count_max(&self) -> usize {
        self.shared.count_max
    }

    /// How many buffers are out now.
    pub fn out(&self) -> usize {
        self.shared.lock().out
    }

    fn take(&self, mut state: MutexGuard<'_, State>) -> Buffer {
        state.out += 1;
        let reused = state.free.pop();
        // Faulting in a new buffer takes a while: not under the lock.
        drop(state);
        let bytes = reused.unwrap_or_else(|| AlignedBytes::new(self.shared.buffer_bytes));
        Buffer {
            len: bytes.len(),
            bytes: Some(bytes),
            pool: Arc::clone(&self.shared),
        }
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("buffer_bytes", &self.shared.buffer_bytes)
            .field("count_max", &self.shared.count_max)
            .field("out", &self.out())
            .finish()
    }
}

impl Shared {
    /// No code panics while it holds this lock in a half-changed state, so a
    /// poisoned lock is as good as a clean one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer on loan from a [`BufferPool`]; dropping it gives it back. Derefs to
/// its first [`len`](Self::set_len) bytes. `Bytes::from_owner`
/// shares it.
pub struct Buffer {
    /// `None` only while being dropped.
    bytes: Option<AlignedBytes>,
    len: usize,
    pool: Arc<Shared>,
}

impl Buffer {
    /// Shows the first `len` bytes only, or more again: the bytes beyond the
    /// length are kept as they are.
    ///
    /// # Panics
    /// When `len` is beyond the [`capacity`](Self::capacity).
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len <= self.capacity(),
            "length {len} is beyond the buffer's {} bytes",
            self.capacity()
        );
        self.len = len;
    }

    /// Size of the buffer whatever its length, in bytes.
    pub fn capacity(&self) -> usize {
        self.pool.buffer_bytes
    }
}

const HELD: &str = "a buffer has its bytes until it is dropped";

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes.as_ref().expect(HELD)[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes.as_mut().expect(HELD)[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.out -= 1;
        state.free.extend(self.bytes.take());
        drop(state);
        self.pool.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn buffers_are_aligned_and_full_length() {
        let pool = BufferPool::new(10_000, 2);
        let buffer = pool.get();
        assert_eq!(buffer.len(), 10_000);
        assert_eq!(buffer.as_ptr() as usize % 4096, 0);
    }

    #[test]
    fn a_returned_buffer_comes_back_as_it_was_left() {
        let pool = BufferPool::new(4096, 1);
        let mut buffer = pool.get();
        buffer.fill(7);
        buffer.set_len(10);
        let address = buffer.as_ptr();
        drop(buffer);
        let buffer = pool.get();
        assert_eq!(buffer.as_ptr(), address);
        assert_eq!(buffer.len(), 4096, "the length is reset");
        assert!(buffer.iter().all(|&b| b == 7), "the bytes are not zeroed");
    }

    #[test]
    fn try_get_stops_at_the_limit() {
        let pool = BufferPool::new(512, 2);
        let first = pool.try_get();
        let second = pool.try_get();
        assert!(first.is_some() && second.is_some());
        assert!(pool.try_get().is_none());
        assert_eq!(pool.out(), 2);
        drop(first);
        assert!(pool.try_get().is_some());
    }

    #[test]
    fn a_shared_buffer_returns_with_its_last_owner() {
        let pool = BufferPool::new(512, 1);
        let one = asl_store::Bytes::from_owner(pool.get());
        let two = one.slice(100..200);
        drop(one);
        assert!(pool.try_get().is_none());
        drop(two);
        assert!(pool.try_get().is_some());
    }

    #[test]
    fn get_waits_for_a_return_from_another_thread() {
        let pool = BufferPool::new(512, 1);
        let held = pool.get();
        let (send, receive) = mpsc::channel();
        let waiting = {
            let pool = pool.clone();
            thread::spawn(move || {
                let buffer = pool.get();
                send.send(buffer.len()).unwrap();
            })
        };
        assert!(receive.recv_timeout(Duration::from_millis(50)).is_err());
        drop(held);
        assert_eq!(receive.recv_timeout(Duration::from_secs(10)), Ok(512));
        waiting.join().unwrap();
    }

    #[test]
    fn a_buffer_outlives_its_pool() {
        let pool = BufferPool::new(512, 1);
        let mut buffer = pool.get();
        drop(pool);
        buffer[0] = 1;
        assert_eq!(buffer[0], 1);
    }

    #[test]
    #[should_panic(expected = "beyond the buffer")]
    fn a_length_beyond_the_buffer_panics() {
        BufferPool::new(512, 1).get().set_len(513);
    }
}
