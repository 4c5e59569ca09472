//! The source's log as artifacts of the target: what the lineage says of it can be checked when the source is gone.
//!
//! One thread reads the log, checking its chain; the other stores what comes. If the chain does not end where it ended when the source was
//! opened, the source was changed, and there is no promotion.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use asl_store::frame::Compression;
use asl_store::{Error, Hint, Key, StoreHandle, StoreWriter, put_reader};

use super::error::PromoteError;
use super::source::Instance;
use crate::error::Result;
use crate::lineage::{LOGS_MAX, LineageError};

/// Bytes that are handed over at once.
const PIECE: usize = 1 << 20;

enum Piece {
    /// What follows is of the next file.
    File,
    Bytes(Vec<u8>),
}

/// Stores the log files as far as they count; their keys in order. Not committed.
pub(super) fn keep(source: &Instance, writer: &mut StoreWriter) -> Result<Vec<Key>> {
    let (send, receive) = sync_channel(4);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || read(source.store(), send));
        let stored = store(receive, writer);
        // What keeps the log from being read comes first: of a part of it nothing is to be said.
        let read = reading.join();
        read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(PromoteError::Changed)?;
        stored
    })
}

/// `Ok` also where nobody listens any more.
fn read(log: &StoreHandle, send: SyncSender<Piece>) -> Result<(), Error> {
    let mut now = None;
    let mut piece = Vec::with_capacity(PIECE);
    let mut deaf = false;
    let read = log.log_bytes(&mut |name, bytes| {
        let mut hand = |piece| match send.send(piece) {
            Ok(()) => Ok(()),
            Err(_) => {
                deaf = true;
                // Any error ends the reading.
                Err(Error::Poisoned)
            }
        };
        if now != Some(*name) {
            now = Some(*name);
            hand(Piece::Bytes(std::mem::take(&mut piece)))?;
            hand(Piece::File)?;
        }
        piece.extend_from_slice(bytes);
        if piece.len() >= PIECE {
            hand(Piece::Bytes(std::mem::take(&mut piece)))?;
        }
        Ok(())
    });
    if deaf {
        return Ok(());
    }
    read?;
    let _ = send.send(Piece::Bytes(piece));
    Ok(())
}

fn store(receive: Receiver<Piece>, writer: &mut StoreWriter) -> Result<Vec<Key>> {
    let mut files = Files {
        receive,
        bytes: Vec::new(),
        at: 0,
        next: false,
    };
    let mut keys = Vec::new();
    while files.begin() {
        let stored = put_reader(writer, &mut files, Hint::Stream, None, Compression::Auto)?;
        keys.push(stored.key);
        if keys.len() > LOGS_MAX {
            let count = keys.len();
            return Err(LineageError::Logs { count }.into());
        }
    }
    Ok(keys)
}

/// Gives one file after the other.
struct Files {
    receive: Receiver<Piece>,
    bytes: Vec<u8>,
    at: usize,
    /// The next file has begun.
    next: bool,
}

impl Files {
    /// Whether there is another file: from here on it is read.
    fn begin(&mut self) -> bool {
        while !self.next {
            match self.receive.recv() {
                Ok(Piece::File) => self.next = true,
                Ok(Piece::Bytes(_)) => {}
                Err(_) => return false,
            }
        }
        self.next = false;
        true
    }
}

impl Read for Files {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.bytes.len() {
            if self.next {
                return Ok(0);
            }
            match self.receive.recv() {
                Ok(Piece::Bytes(bytes)) => (self.bytes, self.at) = (bytes, 0),
                Ok(Piece::File) => self.next = true,
                Err(_) => return Ok(0),
            }
        }
        let rest = &self.bytes[self.at..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        Ok(len)
    }
}
