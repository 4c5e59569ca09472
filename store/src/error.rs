//! What can go wrong in a store, with what the face needs to advise a user.

use std::io;

use crate::id::{Key, LogPosition};

/// Result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the store. Damaged frames found by `verify` are results, not errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filesystem refused an operation.
    #[error("cannot {action} {path}")]
    Io {
        /// The verb: `open`, `write`, `sync`, …
        action: &'static str,
        /// The file, relative to the store.
        path: String,
        /// The errno.
        source: io::Error,
    },
    /// The destination has no room left.
    #[error("the destination is full: cannot write {path}")]
    Full {
        /// The file, relative to the store.
        path: String,
        /// Bytes that were still to be written, where known.
        needed_bytes: u64,
        /// The errno (ENOSPC or EDQUOT).
        source: io::Error,
    },
    /// There is no store at this path.
    #[error("there is no store here: no log was found")]
    NotAStore,
    /// `init` found a store.
    #[error("there is a store here already")]
    AlreadyAStore,
    /// `init` found something else.
    #[error("the directory is not empty: it holds {found}")]
    NotEmpty {
        /// A name found in it.
        found: String,
    },
    /// A parameter is out of range.
    #[error("{parameter} must be {expected}")]
    Parameter {
        /// Its name.
        parameter: &'static str,
        /// The range, in words.
        expected: &'static str,
    },
    /// Written by a newer version of the format.
    #[error("{path} is of format version {version}; this program knows versions up to {known}", known = crate::format::FORMAT_VERSION)]
    NewerFormat {
        /// The file.
        path: String,
        /// Its version.
        version: u16,
    },
    /// Written with a feature that this program does not know: a flag that changes
    /// the meaning of what follows.
    #[error("{path} needs a feature that this program does not know (flags {flags:#x})")]
    UnknownFlags {
        /// The file.
        path: String,
        /// All flags of the structure.
        flags: u32,
    },
    /// The log holds a critical record of an unknown type.
    #[error(
        "log record {position} is of type {record_type}, which this program does not know and must not skip"
    )]
    UnknownCritical {
        /// Its position.
        position: LogPosition,
        /// Its type.
        record_type: u16,
    },
    /// Another process writes this store.
    #[error("another process is writing this store{holder}")]
    Locked {
        /// `: process 123 …`, or empty.
        holder: String,
    },
    /// A file is not what it must be.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// Where.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// The log is damaged before its end; nothing may be written after it.
    #[error("the log is damaged: {what}")]
    LogDamaged {
        /// What was found, and where.
        what: String,
    },
    /// The log lacks records that it once had, or has others in their place. Only
    /// a repair that accepts the loss lets anybody write again.
    #[error("the log holds {found} records, but {remembered} were there once")]
    LogTailLost {
        /// Records in it now.
        found: LogPosition,
        /// Records that `log/current` remembers.
        remembered: LogPosition,
    },
    /// The log is damaged before its end: only a repair that accepts what is lost of it lets anybody write again.
    #[error(
        "the log is damaged: {what}; {readable} records can be read, and {unnamed_blocks} sealed \
         blocks ({unnamed_bytes} bytes) are named only behind the damage"
    )]
    LogBroken {
        /// What is damaged.
        what: String,
        /// Records before the damage; readers show the store as it was then.
        readable: LogPosition,
        /// Sealed blocks that the readable records do not name.
        unnamed_blocks: u64,
        /// Bytes of them.
        unnamed_bytes: u64,
    },
    /// No artifact of this name is visible.
    #[error("no artifact {0}")]
    NotFound(Key),
    /// No snapshot, or no session, of this name.
    #[error("no snapshot {0}")]
    NoSnapshot(String),
    /// A position that does not exist or lies before the snapshot.
    #[error("log position {position} is not between {from} and {to}")]
    NoPosition {
        /// What was asked for.
        position: LogPosition,
        /// The snapshot's position.
        from: LogPosition,
        /// The end of the log.
        to: LogPosition,
    },
    /// Bytes that cannot be stored as asked.
    #[error("{what} is {len} bytes long; at most {max} are possible")]
    TooLong {
        /// Of what.
        what: &'static str,
        /// How long.
        len: u64,
        /// The ceiling.
        max: u64,
    },
    /// The writer met an error that it cannot go on after.
    #[error("this writer failed earlier and takes no more writes")]
    Poisoned,
}

impl Error {
    /// Wraps an errno with what was attempted; a full destination becomes [`Error::Full`].
    pub fn io(action: &'static str, path: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full {
                path,
                needed_bytes: 0,
                source,
            },
            _ => Error::Io {
                action,
                path,
                source,
            },
        }
    }

    /// A structure with a flag that must not be ignored.
    pub fn unknown_flags(path: &str, flags: u32) -> Self {
        Error::UnknownFlags {
            path: path.to_owned(),
            flags,
        }
    }

    /// The same error, its file named from the top of a directory: `prefix`, which ends with a slash, leads from there to
    /// where it was met.
    pub(crate) fn below(mut self, prefix: &str) -> Self {
        if let Self::Io { path, .. }
        | Self::Full { path, .. }
        | Self::NewerFormat { path, .. }
        | Self::UnknownFlags { path, .. }
        | Self::Damaged { path, .. } = &mut self
        {
            path.insert_str(0, prefix);
        }
        self
    }

    /// A damage report.
    pub fn damaged(path: &str, offset: u64, what: impl Into<String>) -> Self {
        Error::Damaged {
            path: path.to_owned(),
            offset,
            what: what.into(),
        }
    }

    /// Whether the destination's lack of room is the cause.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. })
    }
}
