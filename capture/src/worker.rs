//! What is done to read bytes before they are written, on as many threads as
//! there are: find zeros, hash twice (as an artifact, as a part of the image), look
//! the artifact up, compress what is new.

use asl_store::{Bytes, Compression, Encoder, Frame, Key, StoreHandle};

use crate::imagehash::{self, ChainingValue};
use crate::reader::Message;

/// A chunk or a part of one.
#[derive(Debug)]
pub struct Part {
    /// Where in the image.
    pub offset: u64,
    /// How much.
    pub len: u64,
    /// Subtree of the image's digest; only for whole chunks.
    pub cv: Option<ChainingValue>,
    /// What it holds.
    pub content: PartContent,
}

/// What a part holds.
#[derive(Debug)]
pub enum PartContent {
    /// Zeros.
    Zero,
    /// An artifact that the store has already.
    Known(Key),
    /// An artifact that the store did not have when it was asked.
    New(Frame),
}

/// A message with its parts worked out.
#[derive(Debug)]
pub struct Worked {
    /// The message; its bytes are in the parts now.
    pub message: Message,
    /// Its parts in order.
    pub parts: Vec<Part>,
}

/// Geometry that chunks follow.
#[derive(Debug, Clone, Copy)]
pub struct Chunking {
    /// Chunk size in bytes; a power of two of at least 1024.
    pub chunk_bytes: u32,
    /// Size of the image in bytes.
    pub size: u64,
}

impl Chunking {
    /// Length of the chunk that starts at `offset`.
    pub fn chunk_len(&self, offset: u64) -> u64 {
        (self.size - offset).min(self.chunk_bytes.into())
    }

    /// The part of the image's digest that a whole chunk is; the digest itself if
    /// the image is one chunk.
    pub fn cv(&self, offset: u64, bytes: &[u8]) -> ChainingValue {
        match self.size <= self.chunk_bytes.into() {
            true => *blake3::hash(bytes).as_bytes(),
            false => imagehash::subtree(offset, bytes),
        }
    }

    /// The same for a chunk of zeros.
    pub fn zero_cv(&self, offset: u64) -> ChainingValue {
        let len = self.chunk_len(offset);
        match self.size <= self.chunk_bytes.into() {
            true => *blake3::hash(&vec![0; len as usize]).as_bytes(),
            false => imagehash::zero_subtree(offset, len),
        }
    }
}

/// Works messages out; one per thread.
pub struct Worker {
    chunking: Chunking,
    store: StoreHandle,
    encoder: Encoder,
}

impl Worker {
    /// A worker that looks artifacts up in `store`.
    pub fn new(chunking: Chunking, store: StoreHandle, compression: Compression) -> Self {
        Self {
            chunking,
            store,
            encoder: Encoder::new(compression),
        }
    }

    /// Works one message out.
    pub fn work(&mut self, message: Message) -> Worked {
        let mut parts = Vec::new();
        let message = match message {
            Message::Data {
                offset,
                bytes,
                reads,
                latency,
            } => {
                self.split(offset, &bytes, &mut parts);
                Message::Data {
                    offset,
                    bytes: Vec::new().into(),
                    reads,
                    latency,
                }
            }
            Message::Hole { offset, len } => {
                let mut at = offset;
                while at < offset + len {
                    let chunk = self.chunking.chunk_len(at);
                    parts.push(Part {
                        offset: at,
                        len: chunk,
                        cv: Some(self.chunking.zero_cv(at)),
                        content: PartContent::Zero,
                    });
                    at += chunk;
                }
                message
            }
            other => other,
        };
        Worked { message, parts }
    }

    fn split(&mut self, offset: u64, bytes: &Bytes, parts: &mut Vec<Part>) {
        let chunk_bytes = u64::from(self.chunking.chunk_bytes);
        let mut at = 0;
        while at < bytes.len() {
            let start = offset + at as u64;
            let chunk_start = start - start % chunk_bytes;
            let chunk_end = chunk_start + self.chunking.chunk_len(chunk_start);
            let len = (chunk_end - start).min((bytes.len() - at) as u64);
            let part = bytes.slice(at..at + len as usize);
            let whole = start == chunk_start && start + len == chunk_end;
            let cv = whole.then(|| self.chunking.cv(start, &part));
            parts.push(Part {
                offset: start,
                len,
                cv,
                content: self.content(part),
            });
            at += len as usize;
        }
    }

    fn content(&mut self, bytes: Bytes) -> PartContent {
        if is_zero(&bytes) {
            return PartContent::Zero;
        }
        let key = Key::of(&bytes);
        match self.store.dedup_hit(&key) {
            Some(_) => PartContent::Known(key),
            None => PartContent::New(self.encoder.encode(key, bytes, 0)),
        }
    }
}

/// Whether all bytes are zero; looks no further than the first that is not.
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut blocks = bytes.chunks_exact(1024);
    blocks.all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
        && blocks.remainder().iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        let mut bytes = vec![0; 5000];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in 0..bytes.len() {
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "byte {at}");
            bytes[at] = 0;
        }
    }
}
