//! One instance of several, seen as a store of its own: the files below a directory of another [`Vfs`].
//!
//! What belongs to the directory of stores and not to one instance in it goes through to the top, under the same name there:
//! `lock`, `ballast`, `meta` and what is below it. Everything else is below the prefix.
//!
//! Invariants
//! - No path leads out of the prefix but for those names: each is checked before it is put behind the prefix.
//! - `""` is the prefix itself. Listed, it tells of the instance's own names only; synced, the names at the top are
//!   settled as well, as some of them are seen through it.
//!
//! It keeps nothing of its own, so a crash leaves what the files beneath it do.

use std::io;
use std::sync::Arc;

use super::{Access, DirEntry, FsStat, Metadata, Vfs, VfsFile, VfsLock, path};

/// What every instance shares with the one at the top.
const SHARED: [&str; 3] = ["lock", "ballast", "meta"];

/// A [`Vfs`] for what lies below a directory of another.
pub struct Sub {
    top: Arc<dyn Vfs>,
    prefix: String,
}

impl Sub {
    /// The files of `top` below the directory `prefix`, which need not exist yet.
    ///
    /// # Errors
    /// `InvalidInput` for a prefix that is no plain path.
    pub fn new(top: Arc<dyn Vfs>, prefix: impl Into<String>) -> io::Result<Self> {
        let prefix = prefix.into();
        path::split(&prefix)?;
        Ok(Self { top, prefix })
    }

    /// The files that this is a part of.
    pub fn top(&self) -> &Arc<dyn Vfs> {
        &self.top
    }

    /// Where something below the root is.
    fn place(&self, name: &str) -> io::Result<String> {
        path::split(name)?;
        let first = name.split('/').next().unwrap_or(name);
        Ok(match SHARED.contains(&first) {
            true => name.to_owned(),
            false => format!("{}/{name}", self.prefix),
        })
    }

    /// Where a directory is, which may be the root.
    fn dir(&self, dir: &str) -> io::Result<String> {
        match dir {
            "" => Ok(self.prefix.clone()),
            dir => self.place(dir),
        }
    }
}

impl Vfs for Sub {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn VfsFile>> {
        self.top.open(&self.place(path)?, access)
    }
    fn create_exclusive(&self, path: &str) -> io::Result<Box<dyn VfsFile>> {
        self.top.create_exclusive(&self.place(path)?)
    }
    fn create_private(&self, path: &str) -> io::Result<Box<dyn VfsFile>> {
        self.top.create_private(&self.place(path)?)
    }
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.top.create_dir(&self.place(path)?)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.top.rename(&self.place(from)?, &self.place(to)?)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.top.remove(&self.place(path)?)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.top.list(&self.dir(dir)?)
    }
    fn metadata(&self, path: &str) -> io::Result<Metadata> {
        self.top.metadata(&self.place(path)?)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.top.sync_dir(&self.dir(dir)?)?;
        match dir {
            "" => self.top.sync_dir(""),
            _ => Ok(()),
        }
    }
    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn VfsLock>>> {
        self.top.lock(&self.place(path)?)
    }
    fn statfs(&self) -> io::Result<FsStat> {
        self.top.statfs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::fault::FaultVfs;
    use crate::vfs::read_exact_at;

    fn sub(top: &FaultVfs) -> Sub {
        Sub::new(Arc::new(top.clone()), "instances/aa").unwrap()
    }

    fn write(vfs: &dyn Vfs, path: &str, bytes: &[u8]) {
        let file = vfs.create_exclusive(path).unwrap();
        file.write_at(0, &[bytes]).unwrap();
        file.sync().unwrap();
    }

    #[test]
    fn everything_is_below_the_prefix_but_what_is_shared() {
        let top = FaultVfs::new();
        for dir in ["instances", "instances/aa", "meta"] {
            top.create_dir(dir).unwrap();
        }
        let sub = sub(&top);
        sub.create_dir("log").unwrap();
        write(&sub, "log/x", b"below");
        write(&sub, "meta/y", b"shared");
        write(&sub, "ballast", b"too");
        write(&sub, "metal", b"below");
        sub.rename("log/x", "log/z").unwrap();
        let paths: Vec<String> = top.files().into_iter().map(|(path, _)| path).collect();
        assert_eq!(
            paths,
            [
                "ballast",
                "instances/aa/log/z",
                "instances/aa/metal",
                "meta/y"
            ]
        );
        let names = |dir: &str| {
            let entries = sub.list(dir).unwrap().into_iter();
            entries.map(|entry| entry.name).collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["log", "metal"]);
        assert_eq!(names("meta"), ["y"]);
        let mut got = [0; 5];
        let file = sub.open("log/z", Access::Read).unwrap();
        read_exact_at(&*file, 0, &mut got).unwrap();
        assert_eq!(&got, b"below");
        assert_eq!(sub.metadata("meta/y").unwrap().len, 6);
        let held = sub.lock("lock").unwrap();
        assert!(held.is_some() && top.lock("lock").unwrap().is_none());
        sub.remove("log/z").unwrap();
        assert!(top.open("instances/aa/log/z", Access::Read).is_err());
    }

    #[test]
    fn no_spelling_leads_out() {
        let top = FaultVfs::new();
        write(&top, "secret", b"x");
        let sub = sub(&top);
        for path in ["../secret", "meta/../secret", "/secret", "", ".", "log//x"] {
            assert!(sub.open(path, Access::Read).is_err(), "{path:?}");
            assert!(sub.metadata(path).is_err(), "{path:?}");
            assert!(sub.remove(path).is_err(), "{path:?}");
        }
        assert!(sub.list("..").is_err());
        for prefix in ["", "/", "..", "a/../b", "a/"] {
            let sub = Sub::new(Arc::new(top.clone()), prefix);
            assert!(sub.is_err(), "{prefix:?}");
        }
    }

    /// A name that goes through to the top is durable once the root was synced.
    #[test]
    fn a_sync_of_the_root_settles_both_directories() {
        let top = FaultVfs::new();
        for dir in ["instances", "instances/aa"] {
            top.create_dir(dir).unwrap();
        }
        top.sync_dir("").unwrap();
        top.sync_dir("instances").unwrap();
        let sub = sub(&top);
        write(&sub, "ballast", b"x");
        write(&sub, "own", b"x");
        sub.sync_dir("").unwrap();
        let after = top.power_cut(crate::vfs::fault::CrashPolicy::LoseUnsynced);
        let paths: Vec<String> = after.files().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["ballast", "instances/aa/own"]);
    }
}
