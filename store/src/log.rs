//! The log: an append-only, totally ordered sequence of records, the spine of truth.
//! Here are its files and how they are read; `append` writes them.
//!
//! Invariants
//! - Positions are dense over all files and never reused.
//! - Of each file but the last exactly those bytes count that its successor's header states.
//! - A record that does not continue the hash chain is never given out.
//!
//! Crash: the last file may end in a torn append, ignored: bytes that are no valid
//! record, followed by none but records of the same append (a disk may keep a later
//! sector and lose an earlier one). Bad bytes followed by a valid record that begins
//! an append are damage: [`LogEnd::Damaged`]; readers go on to that point and
//! writers stop. So they do where `log/current` remembers other records than there
//! are: [`LogEnd::Lost`].

mod append;

use crate::error::{Error, Result};
use crate::format::{self, log_header as lh, record_head as rh, record_tail as rt};
use crate::id::{Digest, LogPosition, StoreId};
use crate::vfs::{Access, Vfs, VfsFile};

pub use append::{FILE_LEN_USUAL, LogWriter, NewRecord, settle};

/// Directory of the log.
pub const LOG_DIR: &str = "log";
/// Stands for "no predecessor".
const NO_GENERATION: u32 = u32::MAX;

/// Name of a log file: its first position, and a count of the files that began
/// there before it and hold no valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogName {
    /// Position of its first record.
    pub first: u64,
    /// 0 but after a torn first record.
    pub generation: u32,
}

impl LogName {
    /// Its path under the store.
    pub fn path(&self) -> String {
        match self.generation {
            0 => format!("{LOG_DIR}/log-{:016x}.asl", self.first),
            generation => format!("{LOG_DIR}/log-{:016x}-{generation:04x}.asl", self.first),
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let body = name.strip_prefix("log-")?.strip_suffix(".asl")?;
        let (first, generation) = body.split_once('-').unwrap_or((body, "0"));
        let name = Self {
            first: u64::from_str_radix(first, 16).ok()?,
            generation: u32::from_str_radix(generation, 16).ok()?,
        };
        (name.path().rsplit('/').next() == Some(format!("log-{body}.asl").as_str())).then_some(name)
    }
}

/// What a log file's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHeader {
    /// The store.
    pub store_id: StoreId,
    /// Its own name.
    pub name: LogName,
    /// The file before it and how many of its bytes are valid.
    pub previous: Option<(LogName, u64)>,
    /// Chain value before its first record.
    pub chain: Digest,
    /// Random; makes the salt of its records unlike any other file's.
    pub nonce: [u8; 16],
    /// Unix time in nanoseconds; untrusted.
    pub created_unix_ns: i64,
}

impl LogHeader {
    fn encode(&self) -> [u8; lh::LEN] {
        let mut buf = [0; lh::LEN];
        lh::MAGIC.put(&mut buf, &format::LOG_MAGIC);
        lh::VERSION.set(&mut buf, format::FORMAT_VERSION);
        lh::STORE_ID.put(&mut buf, &self.store_id.0);
        lh::FIRST_POSITION.set(&mut buf, self.name.first);
        lh::GENERATION.set(&mut buf, self.name.generation);
        lh::PREV_CHAIN.put(&mut buf, &self.chain.0);
        let none = (
            LogName {
                first: 0,
                generation: NO_GENERATION,
            },
            0,
        );
        let (name, valid_len) = self.previous.unwrap_or(none);
        lh::PREV_FIRST_POSITION.set(&mut buf, name.first);
        lh::PREV_GENERATION.set(&mut buf, name.generation);
        lh::PREV_VALID_LEN.set(&mut buf, valid_len);
        lh::NONCE.put(&mut buf, &self.nonce);
        lh::CREATED.put(&mut buf, &self.created_unix_ns.to_le_bytes());
        let crc = crc32c::crc32c(&buf[..lh::CRC.offset]);
        lh::CRC.set(&mut buf, crc);
        buf
    }

    pub(crate) fn decode(buf: &[u8; lh::LEN], path: &str) -> Result<Self> {
        if lh::MAGIC.of(buf) != format::LOG_MAGIC
            || lh::CRC.u32(buf) != crc32c::crc32c(&buf[..lh::CRC.offset])
        {
            return Err(Error::damaged(path, 0, "not a valid log header"));
        }
        let version = lh::VERSION.u16(buf);
        if version > format::FORMAT_VERSION {
            return Err(Error::NewerFormat {
                path: path.to_owned(),
                version,
            });
        }
        let flags = lh::FLAGS.u32(buf);
        if flags != 0 {
            return Err(Error::unknown_flags(path, flags));
        }
        let previous = LogName {
            first: lh::PREV_FIRST_POSITION.get(buf),
            generation: lh::PREV_GENERATION.u32(buf),
        };
        Ok(Self {
            store_id: StoreId(lh::STORE_ID.array(buf)),
            name: LogName {
                first: lh::FIRST_POSITION.get(buf),
                generation: lh::GENERATION.u32(buf),
            },
            previous: (previous.generation != NO_GENERATION)
                .then(|| (previous, lh::PREV_VALID_LEN.get(buf))),
            chain: Digest(lh::PREV_CHAIN.array(buf)),
            nonce: lh::NONCE.array(buf),
            created_unix_ns: lh::CREATED.get(buf) as i64,
        })
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its ordinal.
    pub position: LogPosition,
    /// `format::RECORD_*`.
    pub record_type: u16,
    /// Whether a reader that does not know the type must stop.
    pub critical: bool,
    /// Unix time in nanoseconds; untrusted.
    pub time_unix_ns: i64,
    /// The payload without its padding.
    pub payload: Vec<u8>,
    /// Chain value after it.
    pub chain: Digest,
    /// The file it stands in and its offset there.
    pub place: (LogName, u64),
}

impl Record {
    /// Where the record ends.
    pub(crate) fn end(&self) -> LogPlace {
        let padded = format::padded(self.payload.len() as u64);
        LogPlace {
            name: self.place.0,
            offset: self.place.1 + rh::LEN as u64 + padded + rt::LEN as u64,
            position: LogPosition(self.position.0 + 1),
            chain: self.chain,
        }
    }
}

/// A place in the log from which reading can go on: everything before is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlace {
    /// The file.
    pub name: LogName,
    /// Offset in it.
    pub offset: u64,
    /// Position of the next record.
    pub position: LogPosition,
    /// Chain value before it.
    pub chain: Digest,
}

/// How the log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEnd {
    /// With a whole record (or none).
    Clean,
    /// With bytes that a crash tore; nothing acknowledged is among them.
    Torn {
        /// How many.
        ignored_bytes: u64,
    },
    /// In damage: valid records follow that cannot be reached.
    Damaged {
        /// What and where.
        what: String,
    },
    /// Whole as far as it can be seen, but `log/current` remembers records that are
    /// not in it: they are lost, or others stand in their place.
    Lost {
        /// Records that the log once had.
        remembered: LogPosition,
    },
}

/// A log file: what its header says and the salt of its records.
#[derive(Debug, Clone, Copy)]
struct LogFile {
    header: LogHeader,
    /// The header's checksum as it stands on disk: reserved bytes count in it.
    salt: u32,
    /// Its length when it was listed.
    len: u64,
}

/// The log files of a store in their order.
pub struct LogFiles {
    /// Oldest first.
    files: Vec<LogFile>,
    /// Files that hold nothing: creations that a crash tore.
    pub abandoned: Vec<String>,
    /// A file that is missing, damaged or of another history: its path, and what is wrong.
    damage: Option<(String, String)>,
}

impl LogFiles {
    /// Lists and orders the log files. [`Error::NotAStore`] where there is none.
    pub fn list(vfs: &dyn Vfs) -> Result<Self> {
        Self::list_among(vfs, &|_| true)
    }

    /// Lists and orders the log files that are `wanted`, as if there were no others.
    pub(crate) fn list_among(vfs: &dyn Vfs, wanted: &dyn Fn(&LogName) -> bool) -> Result<Self> {
        let entries = match vfs.list(LOG_DIR) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(Error::NotAStore);
            }
            Err(error) => return Err(Error::io("list", LOG_DIR)(error)),
        };
        let mut headers = Vec::new();
        let mut abandoned = Vec::new();
        let mut damage = None;
        for entry in entries.iter().filter(|entry| !entry.metadata.is_dir) {
            let Some(name) = LogName::parse(&entry.name).filter(wanted) else {
                continue;
            };
            let path = name.path();
            let file = vfs
                .open(&path, Access::Read)
                .map_err(Error::io("open", &path))?;
            let mut buf = [0; lh::LEN];
            let got = match file.read_at(0, &mut buf) {
                Ok(got) => got,
                Err(error) => {
                    damage = Some((path, format!("its header cannot be read: {error}")));
                    continue;
                }
            };
            match LogHeader::decode(&buf, &path) {
                Ok(header) if header.name == name => headers.push(LogFile {
                    header,
                    salt: lh::CRC.u32(&buf),
                    len: entry.metadata.len,
                }),
                Ok(_) => damage = Some((path, "its header is that of another file".to_owned())),
                Err(error @ (Error::NewerFormat { .. } | Error::UnknownFlags { .. })) => {
                    return Err(error);
                }
                _ if entry.metadata.len <= lh::LEN as u64 && got <= lh::LEN => abandoned.push(path),
                _ => damage = Some((path, "its header is not valid".to_owned())),
            }
        }
        headers.sort_by_key(|file: &LogFile| file.header.name);
        let Some(mut last) = headers.pop() else {
            return match damage {
                Some((path, what)) => Err(Error::LogDamaged {
                    what: format!("{path}: {what}"),
                }),
                None => Err(Error::NotAStore),
            };
        };
        // Follow the predecessors back.
        let mut files = vec![last];
        let mut passed_over = Vec::new();
        while let Some((previous, _)) = last.header.previous {
            let known = headers
                .iter()
                .rposition(|file| file.header.name == previous);
            let Some(at) = known else {
                let what = format!("the file before {} is missing", last.header.name.path());
                damage.get_or_insert((previous.path(), what));
                break;
            };
            last = headers[at];
            passed_over.extend(headers.drain(at..).skip(1));
            files.push(last);
        }
        files.reverse();
        if files[0].header.previous.is_none() {
            passed_over.append(&mut headers);
        }
        let store_id = files[0].header.store_id;
        for file in files.iter().chain(&passed_over) {
            if file.header.store_id != store_id {
                let what = "it belongs to another store".to_owned();
                damage.get_or_insert((file.header.name.path(), what));
            }
        }
        for file in passed_over {
            let path = file.header.name.path();
            // It was begun by a writer that could not make sure of its header, and never
            // written to. If it was, the store was written to twice from one state.
            if file.len <= lh::LEN as u64 {
                abandoned.push(path);
            } else {
                let what = "it holds records that the log does not lead to: a second history";
                damage.get_or_insert((path, what.to_owned()));
            }
        }
        Ok(Self {
            files,
            abandoned,
            damage,
        })
    }

    /// The store that the log belongs to.
    pub fn store_id(&self) -> StoreId {
        self.files[0].header.store_id
    }

    /// What the headers of the files say, oldest first.
    pub(crate) fn headers(&self) -> impl DoubleEndedIterator<Item = &LogHeader> {
        self.files.iter().map(|file| &file.header)
    }

    /// The header of one of the files as it is stored, if it is still the one that was listed.
    pub(crate) fn raw_header(&self, vfs: &dyn Vfs, name: &LogName) -> Result<[u8; lh::LEN]> {
        let path = name.path();
        let mut buf = [0; lh::LEN];
        let file = vfs
            .open(&path, Access::Read)
            .map_err(Error::io("open", &path))?;
        crate::vfs::read_exact_at(&*file, 0, &mut buf).map_err(Error::io("read", &path))?;
        LogHeader::decode(&buf, &path)?;
        let listed = self.files.iter().find(|file| file.header.name == *name);
        match listed {
            Some(listed) if listed.salt == lh::CRC.u32(&buf) => Ok(buf),
            _ => Err(Error::damaged(&path, 0, "another header than a moment ago")),
        }
    }

    /// The name of the last file.
    pub(crate) fn last_name(&self) -> LogName {
        let last = self.files.last().expect("a listed log has a file");
        last.header.name
    }

    /// A file that is missing or unusable between or after these, and why.
    pub(crate) fn damage(&self) -> Option<&(String, String)> {
        self.damage.as_ref()
    }

    /// Where the log begins.
    pub fn start(&self) -> LogPlace {
        let first = &self.files[0].header;
        LogPlace {
            name: first.name,
            offset: lh::LEN as u64,
            position: LogPosition(first.name.first),
            chain: first.chain,
        }
    }

    /// The beginning of the last file that does not begin behind `position`: from there reading comes to it.
    pub(crate) fn place_before(&self, position: LogPosition) -> LogPlace {
        let mut headers = self.headers().rev();
        let header = headers.find(|header| header.name.first <= position.0);
        header.map_or(self.start(), |header| LogPlace {
            name: header.name,
            offset: lh::LEN as u64,
            position: LogPosition(header.name.first),
            chain: header.chain,
        })
    }

    /// Whether the log can be read from position 0.
    pub fn begins_at_zero(&self) -> bool {
        let first = &self.files[0].header;
        first.previous.is_none() && first.name.first == 0 && first.chain == genesis(&first.store_id)
    }

    /// Calls `each` for every record from `from` on and before position `until`;
    /// returns where that ends and how. An error of `each` ends it.
    pub fn read(
        &self,
        vfs: &dyn Vfs,
        from: LogPlace,
        until: LogPosition,
        each: &mut dyn FnMut(Record) -> Result<()>,
    ) -> Result<(LogPlace, LogEnd)> {
        self.read_raw(vfs, from, until, &mut |record, _| each(record))
    }

    /// Like [`read`](Self::read), and gives each record's bytes as they are stored, too.
    pub fn read_raw(
        &self,
        vfs: &dyn Vfs,
        from: LogPlace,
        until: LogPosition,
        each: &mut dyn FnMut(Record, &[u8]) -> Result<()>,
    ) -> Result<(LogPlace, LogEnd)> {
        let Some(start) = self
            .files
            .iter()
            .position(|file| file.header.name == from.name)
        else {
            return Err(Error::LogDamaged {
                what: format!("{} is missing", from.name.path()),
            });
        };
        let mut place = from;
        let mut end = LogEnd::Clean;
        for (at, LogFile { header, salt, .. }) in self.files.iter().enumerate().skip(start) {
            if at > start {
                place.name = header.name;
                place.offset = lh::LEN as u64;
            }
            let next = self.files.get(at + 1).map(|file| &file.header);
            let limit = next
                .and_then(|next| next.previous)
                .map(|(_, valid_len)| valid_len);
            end = read_file(vfs, (header, *salt), limit, &mut place, until, each)?;
            if place.position >= until {
                return Ok((place, LogEnd::Clean));
            }
            if let Some(next) = next {
                if let LogEnd::Damaged { .. } = end {
                    return Ok((place, end));
                }
                let whole = end == LogEnd::Clean && Some(place.offset) == limit;
                if !whole || place.position.0 != next.name.first || place.chain != next.chain {
                    let what = format!(
                        "{} ends at record {} where {} expects {}",
                        header.name.path(),
                        place.position,
                        next.name.path(),
                        next.name.first
                    );
                    return Ok((place, LogEnd::Damaged { what }));
                }
            }
        }
        if let Some((path, what)) = &self.damage {
            let what = format!("{path}: {what}");
            end = LogEnd::Damaged { what };
        }
        Ok((place, end))
    }
}

/// Chain value before position 0.
pub fn genesis(store_id: &StoreId) -> Digest {
    Digest(blake3::derive_key(format::CONTEXT_GENESIS, &store_id.0))
}

fn read_file(
    vfs: &dyn Vfs,
    (header, salt): (&LogHeader, u32),
    limit: Option<u64>,
    place: &mut LogPlace,
    until: LogPosition,
    each: &mut dyn FnMut(Record, &[u8]) -> Result<()>,
) -> Result<LogEnd> {
    let path = header.name.path();
    let file = vfs
        .open(&path, Access::Read)
        .map_err(Error::io("open", &path))?;
    let len = file.len().map_err(Error::io("read", &path))?;
    let len = limit.map_or(len, |limit| limit.min(len));
    let mut reader = Reader {
        file: &*file,
        path: &path,
        len,
        salt,
        window: Vec::new(),
        start: 0,
    };
    while place.offset < len && place.position < until {
        let found = match reader.record_at(place.offset) {
            Ok(Some(found)) => found,
            Ok(None) => return reader.after_bad(place.offset).or_else(unreadable),
            Err(error) => return unreadable(error),
        };
        let chain = next_chain(&place.chain, &found.bytes[..found.bytes.len() - rt::LEN]);
        let tail = &found.bytes[found.bytes.len() - rt::LEN..];
        if found.position != place.position.0 || rt::CHAIN.of(tail) != chain.0 {
            let what = format!(
                "{path}: the record at byte {} does not continue the chain",
                place.offset
            );
            return Ok(LogEnd::Damaged { what });
        }
        let head = &found.bytes[..rh::LEN];
        let flags = rh::FLAGS.u16(head);
        if flags & !(format::RECORD_CRITICAL | format::RECORD_CONTINUES) != 0 {
            return Err(Error::unknown_flags(&path, flags.into()));
        }
        let record = Record {
            position: place.position,
            record_type: rh::TYPE.u16(head),
            critical: flags & format::RECORD_CRITICAL != 0,
            time_unix_ns: rh::TIME.get(head) as i64,
            payload: found.bytes[rh::LEN..rh::LEN + rh::PAYLOAD_LEN.u32(head) as usize].to_vec(),
            chain,
            place: (header.name, place.offset),
        };
        place.offset += found.bytes.len() as u64;
        place.position.0 += 1;
        place.chain = chain;
        each(record, &found.bytes)?;
    }
    Ok(LogEnd::Clean)
}

/// What a medium does not give back is damage like any other: what comes before counts, and nothing behind it can be told.
fn unreadable(error: Error) -> Result<LogEnd> {
    match error {
        Error::Io { path, source, .. } => Ok(LogEnd::Damaged {
            what: format!("{path} cannot be read: {source}"),
        }),
        other => Err(other),
    }
}

struct Found {
    position: u64,
    continues: bool,
    bytes: Vec<u8>,
}

/// Reads records of one file through a window.
struct Reader<'a> {
    file: &'a dyn VfsFile,
    path: &'a str,
    len: u64,
    salt: u32,
    window: Vec<u8>,
    start: u64,
}

impl Reader<'_> {
    /// `len` bytes at `at`, or fewer at the end.
    fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let want = len.min(self.len.saturating_sub(at) as usize);
        let end = self.start + self.window.len() as u64;
        if at < self.start || at + want as u64 > end {
            let fill = want
                .max(256 << 10)
                .min(self.len.saturating_sub(at) as usize);
            self.start = at;
            self.window.clear();
            self.window.resize(fill, 0);
            let mut read = self.file.read_at(at, &mut self.window);
            if read.is_err() && fill > want {
                // Only what is wanted need be readable.
                self.window.truncate(want);
                read = self.file.read_at(at, &mut self.window);
            }
            let got = read.inspect_err(|_| self.window.clear());
            self.window
                .truncate(got.map_err(Error::io("read", self.path))?);
        }
        let from = (at - self.start) as usize;
        let to = (from + want).min(self.window.len());
        Ok(&self.window[from..to])
    }

    fn record_at(&mut self, at: u64) -> Result<Option<Found>> {
        let salt = self.salt;
        let head = self.bytes(at, rh::LEN)?;
        if head.len() < rh::LEN
            || rh::MAGIC.of(head) != format::RECORD_MAGIC
            || rh::SALT.u32(head) != salt
        {
            return Ok(None);
        }
        let payload_len = rh::PAYLOAD_LEN.u32(head);
        if payload_len > format::RECORD_PAYLOAD_MAX {
            return Ok(None);
        }
        let position = rh::POSITION.get(head);
        let continues = rh::FLAGS.u16(head) & format::RECORD_CONTINUES != 0;
        let whole = rh::LEN + format::padded(payload_len.into()) as usize + rt::LEN;
        let bytes = self.bytes(at, whole)?;
        if bytes.len() < whole {
            return Ok(None);
        }
        let (body, tail) = bytes.split_at(whole - rt::LEN);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), rt::CHAIN.of(tail));
        let padding = &body[rh::LEN + payload_len as usize..];
        if rt::CRC.u32(tail) != crc
            || rt::PAD.get(tail) != 0
            || padding.iter().any(|byte| *byte != 0)
        {
            return Ok(None);
        }
        Ok(Some(Found {
            position,
            continues,
            bytes: bytes.to_vec(),
        }))
    }

    /// Tells a torn tail from damage: does a valid record after the bad one begin an
    /// append? What was acknowledged before it was whole then. Records that continue
    /// an append prove nothing: it may be the one that was torn.
    fn after_bad(&mut self, bad: u64) -> Result<LogEnd> {
        let mut at = bad + format::ALIGNMENT as u64;
        while at + (rh::LEN + rt::LEN) as u64 <= self.len {
            if self.bytes(at, 4)? == format::RECORD_MAGIC
                && self.record_at(at)?.is_some_and(|found| !found.continues)
            {
                let what = format!(
                    "{}: bytes {bad} to {at} are no valid record, and valid records follow",
                    self.path
                );
                return Ok(LogEnd::Damaged { what });
            }
            at += format::ALIGNMENT as u64;
        }
        Ok(LogEnd::Torn {
            ignored_bytes: self.len - bad,
        })
    }
}

fn next_chain(chain: &Digest, body: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(format::CONTEXT_CHAIN);
    Digest(*hasher.update(&chain.0).update(body).finalize().as_bytes())
}
