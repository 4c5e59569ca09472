//! Appending to the log: the next record, and the next file.
//!
//! Invariants
//! - A record is durable before anything that depends on it is acknowledged.
//! - A log file is never cut or rewritten. After a torn tail, or a failed write or
//!   sync, the next record goes to a new file, whose header says how much of
//!   its predecessor is valid.
//! - A header is durable, as is its name, before the first record follows it, so a short
//!   file without a valid header holds nothing.
//! - A file's name is higher than that of any there was at its position, counted or not.
//!
//! Crash: a torn append is left behind in its file. A file that was begun without a record
//! may lose its name yet; whoever resumes there is told so ([`LogWriter::is_undecided`]).

use super::{LOG_DIR, LogEnd, LogFiles, LogHeader, LogName, LogPlace, Record, genesis, next_chain};
use crate::error::{Error, Result};
use crate::format::{self, log_header as lh, record_head as rh, record_tail as rt};
use crate::id::{LogPosition, StoreId};
use crate::vfs::{Access, Vfs, VfsFile};

/// At this length, in bytes, a new file is usually begun.
pub const FILE_LEN_USUAL: u64 = 64 << 20;

/// Makes durable what is there of the log, and lets the next reads find nothing
/// else. A writer does this before it reads the log that it will go on with: the last
/// record may be one whose sync failed, or was never made.
pub fn settle(vfs: &dyn Vfs) -> Result<()> {
    let entries = vfs.list(LOG_DIR).map_err(Error::io("list", LOG_DIR))?;
    for name in entries
        .iter()
        .filter(|entry| !entry.metadata.is_dir)
        .filter_map(|entry| LogName::parse(&entry.name))
    {
        let path = name.path();
        vfs.open(&path, Access::Read)
            .map_err(Error::io("open", &path))?
            .settle()
            .map_err(Error::io("sync", &path))?;
    }
    Ok(())
}

/// A record to be appended.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// `format::RECORD_*`.
    pub record_type: u16,
    /// Whether a reader that does not know the type must stop.
    pub critical: bool,
    /// At most [`format::RECORD_PAYLOAD_MAX`] bytes.
    pub payload: Vec<u8>,
}

/// Appends to the log.
pub struct LogWriter {
    store_id: StoreId,
    file: Option<Box<dyn VfsFile>>,
    salt: u32,
    place: LogPlace,
    file_len: u64,
    undecided: bool,
}

impl LogWriter {
    /// Goes on where reading ended, in files that were [settled](settle) before; a torn
    /// tail is left behind in its file. A file is followed by another from the length
    /// `file_len` on, in bytes.
    pub fn resume(
        vfs: &dyn Vfs,
        files: &LogFiles,
        place: LogPlace,
        end: &LogEnd,
        file_len: u64,
    ) -> Result<Self> {
        match end {
            LogEnd::Damaged { what } => return Err(Error::LogDamaged { what: what.clone() }),
            LogEnd::Lost { remembered } => {
                return Err(Error::LogTailLost {
                    found: place.position,
                    remembered: *remembered,
                });
            }
            LogEnd::Clean | LogEnd::Torn { .. } => {}
        }
        let last = files.files.last().expect("a listed log has a file");
        let mut writer = Self {
            store_id: files.store_id(),
            file: None,
            salt: last.salt,
            place,
            file_len,
            undecided: false,
        };
        match last.header.previous {
            // Whoever began this file did not come to write a record: its name may
            // not be durable, so nothing may rest on it. If records were tried, it is.
            Some((name, offset))
                if place.position.0 == last.header.name.first && last.len <= lh::LEN as u64 =>
            {
                writer.place = LogPlace {
                    name,
                    offset,
                    ..place
                };
                writer.undecided = true;
            }
            _ if *end == LogEnd::Clean => {
                let path = place.name.path();
                let file = vfs
                    .open(&path, Access::Write)
                    .map_err(Error::io("open", &path))?;
                writer.file = Some(file);
            }
            _ => {}
        }
        Ok(writer)
    }

    /// Goes on at `place` with a file of its own, whatever other files follow there: with them the log remains what it was, without
    /// them it is whole up to here.
    pub(crate) fn branch(
        vfs: &dyn Vfs,
        store_id: StoreId,
        place: LogPlace,
        nonce: [u8; 16],
        now_unix_ns: i64,
    ) -> Result<()> {
        Self::without_file(store_id, place).rotate(vfs, nonce, now_unix_ns)
    }

    fn without_file(store_id: StoreId, place: LogPlace) -> Self {
        Self {
            store_id,
            file: None,
            salt: 0,
            place,
            file_len: FILE_LEN_USUAL,
            undecided: false,
        }
    }

    /// Starts the log of a store; its first record must be `RECORD_CREATED`.
    pub fn create(
        vfs: &dyn Vfs,
        store_id: StoreId,
        nonce: [u8; 16],
        now_unix_ns: i64,
    ) -> Result<Self> {
        let name = unused(vfs, LogPosition(0))?;
        let chain = genesis(&store_id);
        let place = LogPlace {
            name,
            offset: 0,
            position: LogPosition(0),
            chain,
        };
        let mut writer = Self::without_file(store_id, place);
        writer.begin_file(
            vfs,
            LogHeader {
                store_id,
                name,
                previous: None,
                chain,
                nonce,
                created_unix_ns: now_unix_ns,
            },
        )?;
        Ok(writer)
    }

    /// Where the next record goes.
    pub fn place(&self) -> LogPlace {
        self.place
    }

    /// Whether a power cut may still change which records count: without the last file,
    /// whose name may not last, those would that a writer which failed left behind in
    /// another one. An append settles it.
    pub fn is_undecided(&self) -> bool {
        self.undecided
    }

    /// Appends records with one write and makes them durable; returns them as they
    /// will be read. After an error none of them counts, whatever reached the
    /// disk: the next append begins a new file that leaves them behind.
    pub fn append(
        &mut self,
        vfs: &dyn Vfs,
        records: Vec<NewRecord>,
        nonce: &mut dyn FnMut() -> [u8; 16],
        now_unix_ns: i64,
    ) -> Result<Vec<Record>> {
        if self.file.is_none() || self.place.offset >= self.file_len {
            self.rotate(vfs, nonce(), now_unix_ns)?;
        }
        let mut buf = Vec::new();
        let mut place = self.place;
        let mut done = Vec::with_capacity(records.len());
        for (at, new) in records.into_iter().enumerate() {
            if new.payload.len() > format::RECORD_PAYLOAD_MAX as usize {
                return Err(Error::TooLong {
                    what: "a log record",
                    len: new.payload.len() as u64,
                    max: format::RECORD_PAYLOAD_MAX.into(),
                });
            }
            let start = buf.len();
            let mut head = [0; rh::LEN];
            rh::MAGIC.put(&mut head, &format::RECORD_MAGIC);
            rh::TYPE.set(&mut head, new.record_type);
            let critical = u16::from(new.critical) * format::RECORD_CRITICAL;
            let continues = u16::from(at > 0) * format::RECORD_CONTINUES;
            rh::FLAGS.set(&mut head, critical | continues);
            rh::POSITION.set(&mut head, place.position.0);
            rh::PAYLOAD_LEN.set(&mut head, new.payload.len() as u32);
            rh::SALT.set(&mut head, self.salt);
            rh::TIME.put(&mut head, &now_unix_ns.to_le_bytes());
            buf.extend_from_slice(&head);
            buf.extend_from_slice(&new.payload);
            buf.resize(buf.len().next_multiple_of(format::ALIGNMENT), 0);
            let chain = next_chain(&place.chain, &buf[start..]);
            let mut tail = [0; rt::LEN];
            rt::CHAIN.put(&mut tail, &chain.0);
            let crc = crc32c::crc32c_append(crc32c::crc32c(&buf[start..]), &chain.0);
            rt::CRC.set(&mut tail, crc);
            buf.extend_from_slice(&tail);
            done.push(Record {
                position: place.position,
                record_type: new.record_type,
                critical: new.critical,
                time_unix_ns: now_unix_ns,
                payload: new.payload,
                chain,
                place: (place.name, place.offset),
            });
            place.offset += (buf.len() - start) as u64;
            place.position.0 += 1;
            place.chain = chain;
        }
        let path = self.place.name.path();
        let file = self
            .file
            .take()
            .expect("rotated above where it was missing");
        file.write_at(self.place.offset, &[&buf])
            .map_err(Error::io("write", &path))?;
        file.sync().map_err(Error::io("sync", &path))?;
        self.file = Some(file);
        self.place = place;
        Ok(done)
    }

    fn rotate(&mut self, vfs: &dyn Vfs, nonce: [u8; 16], now_unix_ns: i64) -> Result<()> {
        let old = self.place;
        let name = unused(vfs, old.position)?;
        self.begin_file(
            vfs,
            LogHeader {
                store_id: self.store_id,
                name,
                previous: Some((old.name, old.offset)),
                chain: old.chain,
                nonce,
                created_unix_ns: now_unix_ns,
            },
        )
    }

    fn begin_file(&mut self, vfs: &dyn Vfs, header: LogHeader) -> Result<()> {
        let path = header.name.path();
        let bytes = header.encode();
        self.file = None;
        let file = vfs
            .create_exclusive(&path)
            .map_err(Error::io("create", &path))?;
        file.write_at(0, &[&bytes])
            .map_err(Error::io("write", &path))?;
        file.sync().map_err(Error::io("sync", &path))?;
        vfs.sync_dir(LOG_DIR).map_err(Error::io("sync", LOG_DIR))?;
        self.salt = lh::CRC.u32(&bytes);
        self.place.name = header.name;
        self.place.offset = lh::LEN as u64;
        self.file = Some(file);
        self.undecided = false;
        Ok(())
    }
}

/// A name for a file that begins at `first`: higher than any there is, because of files that begin at one position the last one
/// counts, and of those that a crash abandoned any may be gone.
fn unused(vfs: &dyn Vfs, first: LogPosition) -> Result<LogName> {
    let entries = vfs.list(LOG_DIR).map_err(Error::io("list", LOG_DIR))?;
    let generations = entries
        .iter()
        .filter_map(|entry| LogName::parse(&entry.name))
        .filter(|name| name.first == first.0)
        .map(|name| name.generation + 1);
    Ok(LogName {
        first: first.0,
        generation: generations.max().unwrap_or(0),
    })
}
