//! The log: an append-only, totally ordered sequence of records, the spine of truth.
//!
//! Invariants
//! - Positions are dense over all files and never reused.
//! - A record is durable before anything that depends on it is acknowledged.
//! - A log file is never cut or rewritten. After a torn tail, or a failed write or
//!   sync, the next record goes to a new file, whose header says how much of
//!   its predecessor is valid.
//! - A header is durable before the first record follows it, so a short file
//!   without a valid header holds nothing.
//!
//! Crash: the last file may end in a torn append, ignored: bytes that are no valid
//! record, followed by none but records of the same append (a disk may keep a later
//! sector and lose an earlier one). Bad bytes followed by a valid record that begins
//! an append are damage: [`LogEnd::Damaged`]; readers go on to that point and
//! writers stop. So they do where `log/current` remembers other records than there
//! are: [`LogEnd::Lost`].

use crate::error::{Error, Result};
use crate::format::{self, log_header as lh, record_head as rh, record_tail as rt};
use crate::id::{Digest, LogPosition, StoreId};
use crate::vfs::{Access, Vfs, VfsFile};

/// Directory of the log.
pub const LOG_DIR: &str = "log";
/// At this length, in bytes, a new file is usually begun.
pub const FILE_LEN_USUAL: u64 = 64 << 20;
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
            let Some(name) = LogName::parse(&entry.name) else {
                continue;
            };
            let path = name.path();
            let file = vfs
                .open(&path, Access::Read)
                .map_err(Error::io("open", &path))?;
            let mut buf = [0; lh::LEN];
            let got = file
                .read_at(0, &mut buf)
                .map_err(Error::io("read", &path))?;
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
    each: &mut dyn FnMut(Record) -> Result<()>,
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
        let Some(found) = reader.record_at(place.offset)? else {
            return reader.after_bad(place.offset);
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
        each(record)?;
    }
    Ok(LogEnd::Clean)
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
            self.window.resize(fill, 0);
            let got = self
                .file
                .read_at(at, &mut self.window)
                .map_err(Error::io("read", self.path))?;
            self.window.truncate(got);
            self.start = at;
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

    /// Starts the log of a new store; its first record must be `RECORD_CREATED`.
    pub fn create(
        vfs: &dyn Vfs,
        store_id: StoreId,
        nonce: [u8; 16],
        now_unix_ns: i64,
    ) -> Result<Self> {
        let name = LogName {
            first: 0,
            generation: 0,
        };
        let chain = genesis(&store_id);
        let place = LogPlace {
            name,
            offset: 0,
            position: LogPosition(0),
            chain,
        };
        let mut writer = Self {
            store_id,
            file: None,
            salt: 0,
            place,
            file_len: FILE_LEN_USUAL,
            undecided: false,
        };
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
        // Higher than any there is: of files that begin at one position the last one counts,
        // and of those that a crash abandoned any may be gone.
        let entries = vfs.list(LOG_DIR).map_err(Error::io("list", LOG_DIR))?;
        let generations = entries
            .iter()
            .filter_map(|entry| LogName::parse(&entry.name))
            .filter(|name| name.first == old.position.0)
            .map(|name| name.generation + 1);
        let name = LogName {
            first: old.position.0,
            generation: generations.max().unwrap_or(0),
        };
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
