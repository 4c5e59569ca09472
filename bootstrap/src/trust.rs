//! What a workstation remembers of the domains that it trusts: outside every store, so that no store can take it back.
//!
//! ```text
//! trust/<domain id>.trust               one domain, readable by its owner only
//! evidence/fork-<store id>-<sha256>.txt  two histories where there must be one; see [`Evidence`]
//! lock                                   held while a pin is moved
//! ```
//!
//! A file of trust is text, at most 64 KiB, in one form only:
//!
//! ```text
//! asl trust 1
//! domain <domain id>
//! name <text>                                        where one was given
//! manifest <rotation> <version> <head> <epoch>        once one was seen
//! log <store id> <position> <chain>                   0 to 256, ascending by store id
//! sum <SHA-256 of everything before this line, in hexadecimal>
//! ```
//!
//! Invariants
//! - A domain is trusted only because somebody said so: nothing but [`Trust::add`] makes a file.
//! - A pin only moves forward: a manifest's by [`Pin::check`], a log's to a position whose log has the pinned chain value at the
//!   pinned position.
//! - A file that is damaged is an error, never an empty memory.
//! - Evidence is never overwritten.
//!
//! Crash: a file is old or new, whole. A pin that did not get to the medium is behind, which forgets at most what the last command
//! saw; the next one moves it again.

mod evidence;
mod text;

use std::io;

use asl_store::id::Digest;
use asl_store::vfs::{Vfs, VfsLock};
use asl_store::{LogPosition, StoreHandle, StoreId};

use crate::chain::Chain;
use crate::dam::is_plain;
use crate::error::Result;
use crate::files::{self, FileError, Readers};
use crate::id::DomainId;
use crate::pin::{Compared, Pin};
use crate::words::{count, were};

pub use evidence::{EVIDENCE_MAX, Evidence, Head, NOTES_MAX};

/// Longest name of a domain, in bytes of UTF-8.
pub const NAME_LEN_MAX: usize = 64;
/// Logs of one domain that are remembered.
pub const LOGS_MAX: usize = 256;
/// Bytes that a file of trust may have.
const FILE_LEN_MAX: usize = 64 << 10;
/// Where the files of trust lie.
const DIR: &str = "trust";
const LOCK: &str = "lock";
const SUFFIX: &str = ".trust";

/// A memory that cannot be used, or a pin that cannot move.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file that is not the one form of what it says.
    #[error("{path} is damaged (line {line})")]
    Damaged {
        /// The file, below the directory of the memory.
        path: String,
        /// The first line that is wrong, from 1.
        line: usize,
    },
    /// A name that a domain cannot have here.
    #[error(
        "a name has 1 to {NAME_LEN_MAX} bytes, none of them invisible, and no blanks at its ends"
    )]
    Name,
    /// Another process is changing the memory.
    #[error("another program is just writing down what it trusts")]
    Busy,
    /// A domain that nobody said to trust.
    #[error("domain {domain} was not added to what is trusted here")]
    NotTrusted {
        /// The domain.
        domain: DomainId,
    },
    /// As many logs of the domain are remembered as can be.
    #[error("more than {LOGS_MAX} logs of one domain cannot be remembered")]
    TooManyLogs,
    /// The manifests end before the one that was seen, or go another way.
    #[error("{}", of_manifest(.found))]
    Manifest {
        /// What was seen.
        pinned: Box<Pin>,
        /// How the chain compares.
        found: Compared,
    },
    /// A log that ends before what was seen of it, or goes another way.
    #[error("{}", of_log(.pinned, .found))]
    Log {
        /// What was seen.
        pinned: LogPin,
        /// How the log compares.
        found: LogCompared,
    },
}

fn of_manifest(found: &Compared) -> String {
    match found {
        Compared::Rollback { version } => format!(
            "the store's manifests end with version {version}, and a later one was seen before"
        ),
        Compared::Fork { theirs } => {
            format!("manifest {theirs} stands where another one was seen before")
        }
        _ => "the manifests are not those of the pinned domain".to_owned(),
    }
}

fn of_log(pinned: &LogPin, found: &LogCompared) -> String {
    let LogPin {
        store, position, ..
    } = pinned;
    match found {
        LogCompared::Rollback { position: end } => {
            format!(
                "the log of store {store} has {}, and {position} {} seen before",
                count(end.0, "record"),
                were(position.0)
            )
        }
        _ if position.0 == 1 => {
            format!(
                "the first record of the log of store {store} is not the one that was seen before"
            )
        }
        _ => format!(
            "the first {position} records of the log of store {store} are not those that were \
             seen before"
        ),
    }
}

/// How far a log was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPin {
    /// The store instance.
    pub store: StoreId,
    /// Records that were seen.
    pub position: LogPosition,
    /// The log's chain value after them.
    pub chain: Digest,
}

/// A log as it is now, as far as a pin asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSeen {
    /// All of it.
    pub head: LogPin,
    /// The pinned position, and the log's chain value there; none where nothing is pinned, or the log ends before.
    pub at: Option<(LogPosition, Digest)>,
}

/// A log compared with its pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogCompared {
    /// Nothing is remembered of it.
    New,
    /// It ends where it was seen to end.
    Same,
    /// It goes on from there.
    Ahead {
        /// Records since.
        records: u64,
    },
    /// It ends before.
    Rollback {
        /// Its end.
        position: LogPosition,
    },
    /// It has other records.
    Fork {
        /// Its chain value at the pinned position.
        theirs: Digest,
    },
}

impl LogSeen {
    /// Reads the log of the store as `store` shows it. `pinned` is what is remembered of that log.
    ///
    /// # Errors
    /// [`asl_store::Error`] where the log cannot be read.
    pub fn read(store: &StoreHandle, pinned: Option<&LogPin>) -> Result<Self> {
        let (id, place) = store.with_state(|state| (state.store_id(), state.place()));
        let head = LogPin {
            store: id,
            position: place.position,
            chain: place.chain,
        };
        let mut at = None;
        if let Some(position) = pinned.map(|pin| pin.position)
            && position <= head.position
        {
            let mut chain = asl_store::log::genesis(&id);
            store.records(LogPosition(0), &mut |record, _| {
                if record.position < position {
                    chain = record.chain;
                }
                Ok(())
            })?;
            at = Some((position, chain));
        }
        Ok(Self { head, at })
    }

    /// Compares the log with what is remembered of it; `None` where it was read for another pin, and has to be read again.
    pub fn check(&self, pinned: Option<&LogPin>) -> Option<LogCompared> {
        let Some(pin) = pinned else {
            return Some(LogCompared::New);
        };
        if pin.store != self.head.store {
            return None;
        }
        if self.head.position < pin.position {
            return Some(LogCompared::Rollback {
                position: self.head.position,
            });
        }
        let (at, chain) = self.at?;
        if at != pin.position {
            return None;
        }
        Some(if chain != pin.chain {
            LogCompared::Fork { theirs: chain }
        } else if self.head.position == pin.position {
            LogCompared::Same
        } else {
            LogCompared::Ahead {
                records: self.head.position.0 - pin.position.0,
            }
        })
    }
}

/// A domain that somebody said to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// The domain.
    pub domain: DomainId,
    /// What its user calls it.
    pub name: Option<String>,
    /// The newest manifest that was seen.
    pub manifest: Option<Pin>,
    /// How far its logs were seen, ascending by store.
    pub logs: Vec<LogPin>,
}

/// A file of the memory.
#[derive(Debug)]
pub struct Entry {
    /// The domain that its name says.
    pub domain: DomainId,
    /// What it says, or how it is damaged.
    pub trusted: Result<Trusted, TrustError>,
}

/// What [`Trust::pin`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// How the chain compares with what was remembered; none where nothing was.
    pub manifest: Option<Compared>,
    /// Logs that were new or longer.
    pub logs: usize,
    /// Whether anything had to be written.
    pub written: bool,
}

impl Trusted {
    /// What is remembered of a store's log.
    pub fn log(&self, store: &StoreId) -> Option<&LogPin> {
        self.logs.iter().find(|pin| pin.store == *store)
    }

    /// Compares a chain and a log with what is remembered.
    ///
    /// # Errors
    /// [`TrustError::Manifest`], [`TrustError::Log`] where either was rolled back or goes another way; [`TrustError::Busy`] where
    /// the log was read for another pin.
    pub fn check(&self, chain: &Chain, log: &LogSeen) -> Result<(), TrustError> {
        self.check_manifest(chain)?;
        self.check_log(log)?;
        Ok(())
    }

    fn check_manifest(&self, chain: &Chain) -> Result<Option<Compared>, TrustError> {
        let Some(pinned) = self.manifest else {
            return match chain.domain() == self.domain {
                true => Ok(None),
                false => Err(TrustError::NotTrusted {
                    domain: chain.domain(),
                }),
            };
        };
        match pinned.check(chain) {
            found @ (Compared::Same | Compared::Ahead { .. } | Compared::Superseded { .. }) => {
                Ok(Some(found))
            }
            Compared::OtherDomain => Err(TrustError::NotTrusted {
                domain: chain.domain(),
            }),
            found => {
                let pinned = Box::new(pinned);
                Err(TrustError::Manifest { pinned, found })
            }
        }
    }

    fn check_log(&self, log: &LogSeen) -> Result<LogCompared, TrustError> {
        let pinned = self.log(&log.head.store);
        let found = log.check(pinned).ok_or(TrustError::Busy)?;
        match (found, pinned) {
            (LogCompared::Rollback { .. } | LogCompared::Fork { .. }, Some(pinned)) => {
                let pinned = *pinned;
                Err(TrustError::Log { pinned, found })
            }
            _ => Ok(found),
        }
    }
}

/// The memory: a directory that the face chose.
pub struct Trust<'v> {
    vfs: &'v dyn Vfs,
}

impl<'v> Trust<'v> {
    /// The memory at the root of `vfs`. Nothing is read or written yet.
    pub fn new(vfs: &'v dyn Vfs) -> Self {
        Self { vfs }
    }

    /// Every domain that is trusted, by id. A damaged file is told as such, and hides no other.
    ///
    /// # Errors
    /// [`FileError`] where a file cannot be looked at.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for name in files::names(self.vfs, DIR)? {
            let id = name.strip_suffix(SUFFIX);
            let Some(domain) = id.and_then(|id| id.parse::<DomainId>().ok()) else {
                continue;
            };
            // People may write an id in several ways; a file has one.
            if path_of(&domain) != format!("{DIR}/{name}") {
                continue;
            }
            let bytes = files::read(self.vfs, &path_of(&domain), FILE_LEN_MAX)?;
            let Some(bytes) = bytes else { continue };
            let trusted = decode(&domain, &bytes);
            entries.push(Entry { domain, trusted });
        }
        entries.sort_by_key(|entry| entry.domain);
        Ok(entries)
    }

    /// What is remembered of a domain; `None` where it is not trusted.
    ///
    /// # Errors
    /// [`TrustError::Damaged`], [`FileError`].
    pub fn get(&self, domain: &DomainId) -> Result<Option<Trusted>> {
        let bytes = files::read(self.vfs, &path_of(domain), FILE_LEN_MAX)?;
        Ok(bytes.map(|bytes| decode(domain, &bytes)).transpose()?)
    }

    /// Trusts a domain from now on, durable when this returns; `true` if it was not trusted before. With a name, one that is trusted
    /// already gets it; its pins stay.
    ///
    /// # Errors
    /// [`TrustError::Name`], [`TrustError::Busy`], [`TrustError::Damaged`], [`FileError`].
    pub fn add(&self, domain: &DomainId, name: Option<&str>) -> Result<bool> {
        if !name.is_none_or(is_name) {
            return Err(TrustError::Name.into());
        }
        let _lock = self.lock()?;
        let known = self.get(domain)?;
        let is_new = known.is_none();
        let mut trusted = known.clone().unwrap_or(Trusted {
            domain: *domain,
            name: None,
            manifest: None,
            logs: Vec::new(),
        });
        if let Some(name) = name {
            trusted.name = Some(name.to_owned());
        }
        if known.as_ref() != Some(&trusted) {
            self.write(&trusted)?;
        }
        Ok(is_new)
    }

    /// Forgets a domain with all that was pinned, also one whose file is damaged; `false` where it was not trusted.
    ///
    /// # Errors
    /// [`TrustError::Busy`], [`FileError`].
    pub fn remove(&self, domain: &DomainId) -> Result<bool> {
        let _lock = self.lock()?;
        let path = path_of(domain);
        if files::read(self.vfs, &path, 0)?.is_none() {
            return Ok(false);
        }
        files::remove(self.vfs, &path)?;
        files::remove(self.vfs, &format!("{path}.new"))?;
        files::sync_dir(self.vfs, DIR)?;
        Ok(true)
    }

    /// Moves the pins of a domain that is trusted forward to what was seen and judged; durable when this returns. If anything
    /// compares badly, nothing moves. Of logs that are new when [`LOGS_MAX`] are remembered, none does either.
    ///
    /// # Errors
    /// [`TrustError`]; after [`TrustError::Busy`] read the logs and try again. [`FileError`].
    pub fn pin(&self, chain: &Chain, logs: &[LogSeen]) -> Result<Moved> {
        self.move_pins(chain, logs, false)
    }

    /// Like [`pin`](Self::pin) for logs that lost records and were made again, which somebody accepted: what was remembered of these logs is
    /// replaced, however they compare.
    ///
    /// # Errors
    /// Those of [`pin`](Self::pin), but none about a log.
    pub fn pin_rebuilt(&self, chain: &Chain, logs: &[LogSeen]) -> Result<Moved> {
        self.move_pins(chain, logs, true)
    }

    fn move_pins(&self, chain: &Chain, logs: &[LogSeen], rebuilt: bool) -> Result<Moved> {
        let domain = chain.domain();
        let _lock = self.lock()?;
        let known = self.get(&domain)?;
        let known = known.ok_or(TrustError::NotTrusted { domain })?;
        let mut moved = Moved {
            manifest: known.check_manifest(chain)?,
            logs: 0,
            written: false,
        };
        let mut trusted = known.clone();
        trusted.manifest = Some(Pin::of(chain));
        for seen in logs {
            let found = trusted.check_log(seen);
            if matches!(found, Ok(LogCompared::Same)) {
                continue;
            }
            if !rebuilt {
                found?;
            }
            moved.logs += 1;
            match trusted
                .logs
                .binary_search_by_key(&seen.head.store, |pin| pin.store)
            {
                Ok(at) => trusted.logs[at] = seen.head,
                Err(_) if trusted.logs.len() == LOGS_MAX => {
                    return Err(TrustError::TooManyLogs.into());
                }
                Err(at) => trusted.logs.insert(at, seen.head),
            }
        }
        if trusted != known {
            self.write(&trusted)?;
            moved.written = true;
        }
        Ok(moved)
    }

    /// Keeps evidence of two histories; the path, or `None` where [`EVIDENCE_MAX`] files are kept already. The same evidence is kept
    /// once.
    ///
    /// # Errors
    /// [`TrustError::Busy`], [`FileError`].
    pub fn keep(&self, evidence: &Evidence) -> Result<Option<String>> {
        let _lock = self.lock()?;
        evidence::keep(self.vfs, evidence)
    }

    fn write(&self, trusted: &Trusted) -> Result<(), FileError> {
        let bytes = text::encode(trusted);
        files::replace(self.vfs, &path_of(&trusted.domain), Readers::Owner, &bytes)
    }

    fn lock(&self) -> Result<Box<dyn VfsLock>> {
        let refused = |source: io::Error| FileError {
            action: "lock",
            path: LOCK.to_owned(),
            source,
        };
        let lock = self.vfs.lock(LOCK).map_err(refused)?;
        Ok(lock.ok_or(TrustError::Busy)?)
    }
}

/// Where the file of a domain lies.
fn path_of(domain: &DomainId) -> String {
    format!("{DIR}/{domain}{SUFFIX}")
}

/// Whether a domain can be called so.
fn is_name(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len()) && name.chars().all(is_plain) && name.trim() == name
}

/// Reads the file of `domain`.
fn decode(domain: &DomainId, bytes: &[u8]) -> Result<Trusted, TrustError> {
    let damaged = |line| TrustError::Damaged {
        path: path_of(domain),
        line,
    };
    let trusted = text::decode(bytes).map_err(damaged)?;
    // The file of another domain under this one's name.
    match trusted.domain == *domain {
        true => Ok(trusted),
        false => Err(damaged(2)),
    }
}

#[cfg(test)]
mod tests;
