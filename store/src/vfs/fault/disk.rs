//! The tree in memory, twice: as a running process sees it, and as the medium
//! holds it.
//!
//! Invariants
//! - A file's medium content is `base` with the `Synced` changes of its log
//!   applied in order; its seen content has the `Pending` ones as well, and the
//!   `Lost` ones as long as the page cache holds them.
//! - A directory's medium content is `durable`; `pending` holds, in the order
//!   of the calls, what leads from there to `live`.
//! - Directories are only ever created, so a directory is known by its path.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::super::path::{check_dir, invalid, split};
use super::super::{DirEntry, Metadata};

/// Identity of a file, apart from its names.
pub(super) type InodeId = u64;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(InodeId),
}

/// The names in a directory.
pub(super) type Names = BTreeMap<String, Node>;

#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    /// What a process sees.
    pub(super) live: Names,
    /// What the medium holds.
    pub(super) durable: Names,
}

/// A name in its directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) dir: String,
    pub(super) name: String,
}

/// A change of names.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Create { at: Key, node: Node },
    Rename { from: Key, to: Key, inode: InodeId },
    Remove { at: Key },
}

impl NameChange {
    /// The name whose directory must be synced for the change to be durable,
    /// and the other name that it touches.
    pub(super) fn keys(&self) -> (&Key, Option<&Key>) {
        match self {
            NameChange::Create { at, .. } | NameChange::Remove { at } => (at, None),
            NameChange::Rename { from, to, .. } => (to, Some(from)),
        }
    }

    /// Whether both touch one name, so that the later needs the earlier.
    pub(super) fn depends_on(&self, earlier: &NameChange) -> bool {
        let (a, b) = self.keys();
        let (c, d) = earlier.keys();
        a == c || Some(a) == d || b == Some(c) || (b.is_some() && b == d)
    }

    /// Applies the change to one view of the directories.
    pub(super) fn apply(&self, dirs: &mut impl DirNames) {
        match self {
            NameChange::Create { at, node } => {
                dirs.names(&at.dir).insert(at.name.clone(), *node);
            }
            NameChange::Rename { from, to, inode } => {
                dirs.names(&from.dir).remove(&from.name);
                let node = Node::File(*inode);
                dirs.names(&to.dir).insert(to.name.clone(), node);
            }
            NameChange::Remove { at } => {
                dirs.names(&at.dir).remove(&at.name);
            }
        }
    }
}

/// One of the two views of every directory.
pub(super) trait DirNames {
    fn names(&mut self, dir: &str) -> &mut Names;
}

struct Live<'a>(&'a mut BTreeMap<String, Directory>);
struct Durable<'a>(&'a mut BTreeMap<String, Directory>);

impl DirNames for Live<'_> {
    fn names(&mut self, dir: &str) -> &mut Names {
        &mut self.0.entry(dir.to_owned()).or_default().live
    }
}

impl DirNames for Durable<'_> {
    fn names(&mut self, dir: &str) -> &mut Names {
        &mut self.0.entry(dir.to_owned()).or_default().durable
    }
}

/// A change of names that the medium does not hold yet.
#[derive(Debug, Clone)]
pub(super) struct PendingName {
    pub(super) change: NameChange,
    /// A sync of its directory failed: another one will succeed and mean
    /// nothing.
    lost: bool,
}

/// A change of a file's content.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { offset: u64, data: Arc<[u8]> },
    Truncate { len: u64 },
}

impl Change {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write { offset, data } => overwrite(bytes, *offset, data),
            Change::Truncate { len } => bytes.resize(*len as usize, 0),
        }
    }
}

/// Writes `data` at `offset`, filling a gap before it with zeros.
pub(super) fn overwrite(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = offset as usize;
    let end = start + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(data);
}

/// Whether the medium holds a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not synced yet.
    Pending,
    /// Synced; kept in the log only because a lost change precedes it.
    Synced,
    /// A sync failed on it: clean in the page cache, absent on the medium.
    Lost,
}

/// A file.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    /// Its present name, or its last one.
    pub(super) path: String,
    pub(super) live: Arc<Vec<u8>>,
    pub(super) base: Arc<Vec<u8>>,
    pub(super) log: Vec<(Change, Standing)>,
    linked: bool,
    handles: usize,
}

impl Inode {
    /// A file whose whole content the medium holds.
    pub(super) fn durable(path: String, bytes: Vec<u8>) -> Inode {
        let bytes = Arc::new(bytes);
        Inode {
            path,
            live: Arc::clone(&bytes),
            base: bytes,
            log: Vec::new(),
            linked: true,
            handles: 0,
        }
    }

    fn in_use(&self) -> bool {
        self.linked || self.handles > 0
    }

    fn record(&mut self, change: Change) {
        change.apply(Arc::make_mut(&mut self.live));
        self.log.push((change, Standing::Pending));
    }

    fn synced(&mut self) {
        for (_, standing) in &mut self.log {
            if *standing == Standing::Pending {
                *standing = Standing::Synced;
            }
        }
        let settled = self.log.iter().take_while(|(_, s)| *s == Standing::Synced);
        let settled = settled.count();
        for (change, _) in self.log.drain(..settled) {
            change.apply(Arc::make_mut(&mut self.base));
        }
    }

    fn sync_failed(&mut self) {
        for (_, standing) in &mut self.log {
            if *standing == Standing::Pending {
                *standing = Standing::Lost;
            }
        }
    }

    /// Forgets clean pages. Returns how much room the file took before and takes after.
    fn forget_clean(&mut self) -> (u64, u64) {
        let room = |file: &Self| {
            if file.in_use() {
                file.live.len() as u64
            } else {
                0
            }
        };
        let old = room(self);
        self.live = Arc::new(self.content(|s| s == Standing::Pending));
        self.log.retain(|(_, s)| *s != Standing::Lost);
        (old, room(self))
    }

    /// The medium's content with those other changes applied that `keep` names.
    pub(super) fn content(&self, keep: impl Fn(Standing) -> bool) -> Vec<u8> {
        let mut bytes = self.base.as_ref().clone();
        for (change, standing) in &self.log {
            if *standing == Standing::Synced || keep(*standing) {
                change.apply(&mut bytes);
            }
        }
        bytes
    }
}

/// The properties of a file system that tests may choose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) capacity: u64,
    pub(super) max_file_len: u64,
    pub(super) read_only: bool,
    pub(super) fs_type: u64,
    pub(super) seed: u64,
}

/// The whole file system.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) settings: Settings,
    pub(super) dirs: BTreeMap<String, Directory>,
    pub(super) pending: Vec<PendingName>,
    pub(super) inodes: BTreeMap<InodeId, Inode>,
    pub(super) next_inode: InodeId,
    /// Bytes in files that have a name or are open.
    pub(super) used: u64,
}

/// How much of a write reaches the file, and what the caller is told.
pub(super) struct WriteLimit {
    pub(super) bytes: u64,
    pub(super) error: Option<Errno>,
}

impl Disk {
    pub(super) fn new(settings: Settings) -> Disk {
        Disk {
            settings,
            dirs: BTreeMap::from([(String::new(), Directory::default())]),
            pending: Vec::new(),
            inodes: BTreeMap::new(),
            next_inode: 1,
            used: 0,
        }
    }

    pub(super) fn available(&self) -> u64 {
        self.settings.capacity.saturating_sub(self.used)
    }

    /// What a name stands for, as `stat(2)` would find it.
    pub(super) fn lookup(&self, path: &str) -> io::Result<Node> {
        if path.is_empty() {
            return Ok(Node::Dir);
        }
        let key = self.key(path)?;
        let names = &self.dirs[&key.dir].live;
        Ok(*names.get(&key.name).ok_or(Errno::NOENT)?)
    }

    /// Splits a path and requires the directory that would hold it.
    pub(super) fn key(&self, path: &str) -> io::Result<Key> {
        let (dir, name) = split(path)?;
        self.require_dir(dir)?;
        Ok(Key {
            dir: dir.to_owned(),
            name: name.to_owned(),
        })
    }

    pub(super) fn require_dir(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        if self.dirs.contains_key(dir) {
            return Ok(());
        }
        // It is missing, or a file stands where a directory is needed.
        let (parent, name) = split(dir)?;
        self.require_dir(parent)?;
        match self.dirs[parent].live.get(name) {
            Some(_) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    pub(super) fn require_file(&self, path: &str) -> io::Result<InodeId> {
        match self.lookup(path)? {
            Node::File(inode) => Ok(inode),
            Node::Dir => Err(invalid(format!(
                "{path} is a directory, not a regular file"
            ))),
        }
    }

    pub(super) fn require_writable(&self) -> io::Result<()> {
        if self.settings.read_only {
            Err(Errno::ROFS.into())
        } else {
            Ok(())
        }
    }

    /// An open file's inode; it stays as long as the file is open.
    pub(super) fn inode(&self, inode: InodeId) -> io::Result<&Inode> {
        Ok(self.inodes.get(&inode).ok_or(Errno::STALE)?)
    }

    fn inode_mut(&mut self, inode: InodeId) -> io::Result<&mut Inode> {
        Ok(self.inodes.get_mut(&inode).ok_or(Errno::STALE)?)
    }

    fn metadata_of(&self, node: Node) -> Metadata {
        match node {
            Node::Dir => Metadata {
                is_dir: true,
                len: 0,
            },
            Node::File(inode) => Metadata {
                is_dir: false,
                len: self.inodes[&inode].live.len() as u64,
            },
        }
    }

    pub(super) fn metadata(&self, path: &str) -> io::Result<Metadata> {
        Ok(self.metadata_of(self.lookup(path)?))
    }

    pub(super) fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.require_dir(dir)?;
        let entry = |(name, node): (&String, &Node)| DirEntry {
            name: name.clone(),
            metadata: self.metadata_of(*node),
        };
        Ok(self.dirs[dir].live.iter().map(entry).collect())
    }

    /// Makes a change of names visible; the medium learns of it later.
    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut Live(&mut self.dirs));
        self.pending.push(PendingName {
            change,
            lost: false,
        });
    }

    pub(super) fn check_create(&self, path: &str) -> io::Result<()> {
        let key = self.key(path)?;
        if self.dirs[&key.dir].live.contains_key(&key.name) {
            return Err(Errno::EXIST.into());
        }
        self.require_writable()
    }

    pub(super) fn create(&mut self, path: &str) -> io::Result<InodeId> {
        self.check_create(path)?;
        let inode = self.next_inode;
        self.next_inode += 1;
        let file = Inode::durable(path.to_owned(), Vec::new());
        self.inodes.insert(inode, file);
        let at = self.key(path)?;
        let node = Node::File(inode);
        self.change_name(NameChange::Create { at, node });
        Ok(inode)
    }

    pub(super) fn create_dir(&mut self, path: &str) -> io::Result<()> {
        self.check_create(path)?;
        let at = self.key(path)?;
        self.dirs.insert(path.to_owned(), Directory::default());
        let node = Node::Dir;
        self.change_name(NameChange::Create { at, node });
        Ok(())
    }

    pub(super) fn check_rename(&self, from: &str, to: &str) -> io::Result<()> {
        let from_key = self.key(from)?;
        let to_key = self.key(to)?;
        self.require_file(from)?;
        self.require_writable()?;
        // Linux looks for this before it looks at the kinds.
        if Path::new(&from_key.dir).starts_with(to) {
            return Err(Errno::NOTEMPTY.into());
        }
        match self.dirs[&to_key.dir].live.get(&to_key.name) {
            Some(Node::Dir) => Err(Errno::ISDIR.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.check_rename(from, to)?;
        if from == to {
            return Ok(());
        }
        let inode = self.require_file(from)?;
        let replaced = self.require_file(to).ok();
        let (from, to_key) = (self.key(from)?, self.key(to)?);
        self.change_name(NameChange::Rename {
            from,
            to: to_key,
            inode,
        });
        self.inode_mut(inode)?.path = to.to_owned();
        if let Some(replaced) = replaced {
            self.unlink(replaced);
        }
        Ok(())
    }

    pub(super) fn check_remove(&self, path: &str) -> io::Result<()> {
        let node = self.lookup(path)?;
        self.require_writable()?;
        match node {
            Node::Dir => Err(Errno::ISDIR.into()),
            Node::File(_) => Ok(()),
        }
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        self.check_remove(path)?;
        let inode = self.require_file(path)?;
        let at = self.key(path)?;
        self.change_name(NameChange::Remove { at });
        self.unlink(inode);
        Ok(())
    }

    /// The file has no name any more; its bytes are free once it is closed.
    fn unlink(&mut self, inode: InodeId) {
        if let Some(file) = self.inodes.get_mut(&inode) {
            file.linked = false;
            if !file.in_use() {
                self.used -= file.live.len() as u64;
            }
        }
    }

    pub(super) fn opened(&mut self, inode: InodeId) -> io::Result<()> {
        self.inode_mut(inode)?.handles += 1;
        Ok(())
    }

    pub(super) fn closed(&mut self, inode: InodeId) {
        if let Some(file) = self.inodes.get_mut(&inode) {
            file.handles -= 1;
            if !file.in_use() {
                self.used -= file.live.len() as u64;
            }
        }
    }

    /// How far a write of `len` bytes can get.
    pub(super) fn write_limit(
        &self,
        inode: InodeId,
        offset: u64,
        len: u64,
    ) -> io::Result<WriteLimit> {
        let end = offset.checked_add(len).ok_or(Errno::INVAL)?;
        let room = self.inode(inode)?.live.len() as u64 + self.available();
        let (limit, errno) = if self.settings.max_file_len <= room {
            (self.settings.max_file_len, Errno::FBIG)
        } else {
            (room, Errno::NOSPC)
        };
        Ok(if end <= limit {
            WriteLimit {
                bytes: len,
                error: None,
            }
        } else {
            WriteLimit {
                bytes: limit.saturating_sub(offset),
                error: Some(errno),
            }
        })
    }

    /// Writes what [`write_limit`](Self::write_limit) allows.
    pub(super) fn write(&mut self, inode: InodeId, offset: u64, data: &[u8]) -> io::Result<()> {
        let WriteLimit { bytes, error } = self.write_limit(inode, offset, data.len() as u64)?;
        if bytes > 0 {
            let data = Arc::from(&data[..bytes as usize]);
            self.change_content(inode, Change::Write { offset, data })?;
        }
        error.map_or(Ok(()), |errno| Err(errno.into()))
    }

    pub(super) fn truncate(&mut self, inode: InodeId, len: u64) -> io::Result<()> {
        let old = self.inode(inode)?.live.len() as u64;
        if len > self.settings.max_file_len {
            return Err(Errno::FBIG.into());
        }
        if len.saturating_sub(old) > self.available() {
            return Err(Errno::NOSPC.into());
        }
        self.change_content(inode, Change::Truncate { len })
    }

    fn change_content(&mut self, inode: InodeId, change: Change) -> io::Result<()> {
        let file = self.inode_mut(inode)?;
        let old = file.live.len() as u64;
        file.record(change);
        let new = file.live.len() as u64;
        self.used = self.used - old + new;
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: InodeId) -> io::Result<()> {
        self.inode_mut(inode)?.synced();
        Ok(())
    }

    pub(super) fn sync_failed(&mut self, inode: InodeId) -> io::Result<()> {
        self.inode_mut(inode)?.sync_failed();
        Ok(())
    }

    /// Makes durable what has its new name in `dir`, and what that depends on.
    ///
    /// A rename out of `dir` is settled by its target's directory alone: a
    /// caller who syncs only the old one has no right to the new name.
    pub(super) fn sync_dir(&mut self, dir: &str) {
        self.commit_names(|p| !p.lost && p.change.keys().0.dir == dir);
        self.reap();
    }

    pub(super) fn sync_dir_failed(&mut self, dir: &str) {
        for name in &mut self.pending {
            name.lost |= name.change.keys().0.dir == dir;
        }
    }

    fn commit_names(&mut self, wanted: impl Fn(&PendingName) -> bool) {
        let mut commit: Vec<bool> = self.pending.iter().map(wanted).collect();
        for later in (0..commit.len()).rev() {
            let (earlier, this) = commit.split_at_mut(later);
            if this[0] {
                let change = &self.pending[later].change;
                for (commit, name) in earlier.iter_mut().zip(&self.pending) {
                    *commit |= change.depends_on(&name.change);
                }
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for (name, commit) in pending.into_iter().zip(commit) {
            if commit {
                name.change.apply(&mut Durable(&mut self.dirs));
            } else {
                self.pending.push(name);
            }
        }
    }

    /// Forgets files that no process and no power cut can find again.
    fn reap(&mut self) {
        let mut found: BTreeSet<InodeId> = BTreeSet::new();
        let names = self.dirs.values().flat_map(|dir| dir.durable.values());
        let created = self.pending.iter().map(|p| match &p.change {
            NameChange::Create { node, .. } => *node,
            NameChange::Rename { inode, .. } => Node::File(*inode),
            NameChange::Remove { .. } => Node::Dir,
        });
        for node in names.copied().chain(created) {
            if let Node::File(inode) = node {
                found.insert(inode);
            }
        }
        self.inodes
            .retain(|inode, file| file.in_use() || found.contains(inode));
    }

    /// The same disk after every process on it ended: nothing is open.
    pub(super) fn without_processes(&self) -> Disk {
        let mut disk = self.clone();
        for file in disk.inodes.values_mut() {
            let was_in_use = file.in_use();
            file.handles = 0;
            if was_in_use && !file.in_use() {
                disk.used -= file.live.len() as u64;
            }
        }
        disk.reap();
        disk
    }

    /// Forgets clean pages: what a failed sync lost is seen to be lost.
    pub(super) fn drop_caches(&mut self) {
        for file in self.inodes.values_mut() {
            let (old, new) = file.forget_clean();
            self.used = self.used - old + new;
        }
    }

    /// The same for one file.
    pub(super) fn forget_clean(&mut self, inode: InodeId) -> io::Result<()> {
        let file = self.inode_mut(inode)?;
        let (old, new) = file.forget_clean();
        self.used = self.used - old + new;
        Ok(())
    }

    /// Puts a file there as if it had always been there, whatever the
    /// capacity; missing directories as well.
    pub(super) fn plant(&mut self, path: &str, bytes: Vec<u8>) -> io::Result<()> {
        let (dir, _) = split(path)?;
        for (at, _) in dir.match_indices('/').chain([(dir.len(), "")]) {
            self.plant_dir(&dir[..at])?;
        }
        let inode = match self.require_file(path) {
            Ok(inode) => inode,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let inode = self.next_inode;
                self.next_inode += 1;
                let file = Inode::durable(path.to_owned(), Vec::new());
                self.inodes.insert(inode, file);
                let at = self.key(path)?;
                let node = Node::File(inode);
                self.change_name(NameChange::Create { at, node });
                inode
            }
            Err(e) => return Err(e),
        };
        self.settle_name(path)?;
        let file = self.inode_mut(inode)?;
        let old = file.live.len() as u64;
        let new = bytes.len() as u64;
        file.live = Arc::new(bytes);
        file.base = Arc::clone(&file.live);
        file.log.clear();
        self.used = self.used - old + new;
        Ok(())
    }

    fn plant_dir(&mut self, dir: &str) -> io::Result<()> {
        if dir.is_empty() {
            return Ok(());
        }
        match self.lookup(dir) {
            Ok(Node::Dir) => {}
            Ok(Node::File(_)) => return Err(Errno::NOTDIR.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let at = self.key(dir)?;
                self.dirs.insert(dir.to_owned(), Directory::default());
                let node = Node::Dir;
                self.change_name(NameChange::Create { at, node });
            }
            Err(e) => return Err(e),
        }
        self.settle_name(dir)
    }

    /// Takes a name away as if it had never been there.
    pub(super) fn uproot(&mut self, path: &str) -> io::Result<()> {
        let inode = self.require_file(path)?;
        let at = self.key(path)?;
        self.change_name(NameChange::Remove { at });
        self.settle_name(path)?;
        self.unlink(inode);
        self.reap();
        Ok(())
    }

    fn settle_name(&mut self, path: &str) -> io::Result<()> {
        let key = self.key(path)?;
        self.commit_names(|p| p.change.keys().0 == &key || p.change.keys().1 == Some(&key));
        Ok(())
    }
}
