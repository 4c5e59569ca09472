//! Blocks of another store that were brought and checked, and wait for their records.
//!
//! Whoever takes over many blocks wants to know that all of them are whole before one of them counts. So the files come first, and
//! are nothing but files until [`StoreWriter::import_staged`].
//!
//! Order of writes, of each block
//! 1. `tmp/ingest/<digest>.new`, sharing the bytes of the other store's file or holding a copy of them; synced
//! 2. that file is read back: the digest, the hash of every frame, the key of every artifact
//! 3. `tmp/staged/<digest>.blk`, its name
//!
//! Crash: what waits is checked again, and not brought again, by whoever stages it next. It stays until then, or until
//! [`unstage`].

use crate::block::{self, Sealed};
use crate::error::{Error, Result};
use crate::id::Digest;
use crate::store::StoreHandle;
use crate::vfs::{Access, Vfs, VfsFile};

use super::{bring, check};

/// Directory of what waits.
const STAGED_DIR: &str = "tmp/staged";

fn staged_path(digest: &Digest) -> String {
    format!("{STAGED_DIR}/{digest}.blk")
}

/// Brings the sealed block `digest`, whose file is `path` in `from`, to where it waits in `into`, unless it is there already, and
/// checks it wholly. `parts` is a store that has the parts of artifacts in it that are lists of parts: where their bytes are
/// read does not matter, as they are known by their keys. Returns whether the filesystem shares the bytes of the two files.
///
/// Several blocks may be staged at once.
///
/// # Errors
/// [`Error::Damaged`], which names `path`, if the file is not that block to the last byte, or if a key is not that of its
/// bytes; [`Error::Io`] and [`Error::Full`]. Then the block does not wait.
pub fn stage(
    into: &dyn Vfs,
    from: &dyn Vfs,
    path: &str,
    digest: Digest,
    parts: &StoreHandle,
    threads: usize,
) -> Result<bool> {
    into.create_dir(STAGED_DIR)
        .map_err(Error::io("create", STAGED_DIR))?;
    if let Some((file, place)) = waiting(into, &digest) {
        file.settle().map_err(Error::io("sync", &place))?;
        if check(&*file, path, digest, parts, threads).is_ok() {
            return Ok(false);
        }
        drop(file);
        into.remove(&place).map_err(Error::io("remove", &place))?;
    }
    let ingest = format!("tmp/ingest/{digest}.new");
    let _ = into.remove(&ingest);
    let staged = (|| {
        let source = from
            .open(path, Access::Read)
            .map_err(Error::io("open", path))?;
        let file = into
            .create_exclusive(&ingest)
            .map_err(Error::io("create", &ingest))?;
        let shared = bring(&*source, path, &*file, &ingest)?;
        file.sync().map_err(Error::io("sync", &ingest))?;
        check(&*file, path, digest, parts, threads)?;
        into.rename(&ingest, &staged_path(&digest))
            .map_err(Error::io("rename", &ingest))?;
        Ok(shared)
    })();
    if staged.is_err() {
        let _ = into.remove(&ingest);
    }
    staged
}

/// The file of a block that waits, or that was given its place and never came to its record.
fn waiting(into: &dyn Vfs, digest: &Digest) -> Option<(Box<dyn VfsFile>, String)> {
    [staged_path(digest), block::sealed_path(digest)]
        .into_iter()
        .find_map(|place| Some((into.open(&place, Access::Read).ok()?, place)))
}

/// Checks the block `digest`, whose file is `path` in `from`, where it lies: one that is not to be brought whole.
///
/// # Errors
/// Those of [`stage`].
pub fn check_there(from: &dyn Vfs, path: &str, digest: Digest, parts: &StoreHandle) -> Result<()> {
    let file = from
        .open(path, Access::Read)
        .map_err(Error::io("open", path))?;
    check(&*file, path, digest, parts, 1).map(drop)
}

/// Removes every block that waits.
///
/// # Errors
/// [`Error::Io`].
pub fn unstage(into: &dyn Vfs) -> Result<()> {
    let Ok(entries) = into.list(STAGED_DIR) else {
        return Ok(());
    };
    for entry in entries {
        let path = format!("{STAGED_DIR}/{}", entry.name);
        into.remove(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

/// Gives a block that waits its place. It was checked since this process began.
pub(super) fn publish(into: &dyn Vfs, digest: &Digest) -> Result<Sealed> {
    let (staged, sealed) = (staged_path(digest), block::sealed_path(digest));
    if into.metadata(&staged).is_ok() {
        block::publish(into, &staged, digest)?;
    } else {
        for dir in [block::SEALED_DIR, &sealed[..block::SEALED_DIR.len() + 3]] {
            into.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
    }
    let file = into
        .open(&sealed, Access::Read)
        .map_err(Error::io("open", &sealed))?;
    let found = block::read_sealed(&*file, &sealed)?;
    if found.digest != *digest {
        return Err(Error::damaged(
            &sealed,
            0,
            "another block than its name says",
        ));
    }
    Ok(found)
}
