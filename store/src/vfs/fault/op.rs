//! Operations on a [`FaultVfs`](super::FaultVfs), as they are counted, traced
//! and shown to a hook.

use std::fmt;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpKind {
    /// A file was created, by `create_exclusive` or because `lock` missed it.
    Create,
    /// A directory was created; one that exists already is no operation.
    CreateDir,
    /// Bytes were written; a write of no bytes is no operation.
    Write,
    /// A file was cut or extended.
    Truncate,
    /// A file was renamed.
    Rename,
    /// A file was removed.
    Remove,
    /// A file was synced.
    Sync,
    /// A directory was synced.
    SyncDir,
    /// An existing file was opened.
    Open,
    /// Bytes were read.
    Read,
    /// A directory was listed.
    List,
    /// A name's or an open file's kind or length was asked for.
    Metadata,
    /// A lock was asked for.
    Lock,
}

impl OpKind {
    /// Whether the operation changes the file system or its durable state.
    /// The others are counted only after
    /// [`set_count_reads`](super::FaultVfs::set_count_reads).
    pub fn mutates(self) -> bool {
        use OpKind::*;
        match self {
            Create | CreateDir | Write | Truncate | Rename | Remove | Sync | SyncDir => true,
            Open | Read | List | Metadata | Lock => false,
        }
    }
}

/// One counted operation. An operation that is refused for a reason of its own
/// (no such file, read-only) is not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Running number, from 0.
    pub number: u64,
    /// What it does.
    pub kind: OpKind,
    /// The file or directory; for an open file its present name, or its last
    /// one. For a rename the old name.
    pub path: String,
    /// The new name, for a rename.
    pub to: Option<String>,
    /// First byte of a read or a write; 0 elsewhere.
    pub offset: u64,
    /// Bytes asked for of a read or a write; the new length of a truncate.
    pub len: u64,
    /// The error that it ended with; always `None` when shown to a hook.
    pub errno: Option<i32>,
}

impl Op {
    pub(super) fn new(kind: OpKind, path: impl Into<String>) -> Op {
        Op {
            number: 0,
            kind,
            path: path.into(),
            to: None,
            offset: 0,
            len: 0,
            errno: None,
        }
    }

    pub(super) fn span(mut self, offset: u64, len: u64) -> Op {
        self.offset = offset;
        self.len = len;
        self
    }

    pub(super) fn to(mut self, path: &str) -> Op {
        self.to = Some(path.to_owned());
        self
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.number, self.kind, self.path)?;
        match self.kind {
            OpKind::Write | OpKind::Read => write!(f, " {}+{}", self.offset, self.len)?,
            OpKind::Truncate => write!(f, " {}", self.len)?,
            _ => {}
        }
        if let Some(to) = &self.to {
            write!(f, " -> {to:?}")?;
        }
        match self.errno {
            Some(errno) => write!(f, " (errno {errno})"),
            None => Ok(()),
        }
    }
}

/// How long an injected failure lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailMode {
    /// Only that operation fails.
    Once,
    /// That operation and every counted one after it fail.
    Sticky,
}
