//! Small files that are whole under their names or not there.
//!
//! Crash: a file is complete and durable as `<name>.new` before it takes its name, and its directory is synced after. What stays
//! behind under the other name is replaced by the next writing.

use std::io;

use asl_store::vfs::{Access, Vfs, VfsFile, read_exact_at};

/// The filesystem refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct FileError {
    /// The verb.
    pub action: &'static str,
    /// The file, relative to the store.
    pub path: String,
    /// The errno.
    pub source: io::Error,
}

fn refused(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |source| FileError {
        action,
        path,
        source,
    }
}

/// Who may read a file, where the filesystem knows owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner.
    Owner,
    /// Anybody.
    All,
}

/// Writes a file in place of one that may be there.
pub(crate) fn replace(
    vfs: &dyn Vfs,
    path: &str,
    readers: Readers,
    bytes: &[u8],
) -> Result<(), FileError> {
    let parent = parent(path);
    make_dirs(vfs, parent)?;
    let new = format!("{path}.new");
    remove(vfs, &new)?;
    let file: Box<dyn VfsFile> = match readers {
        Readers::Owner => vfs.create_private(&new),
        Readers::All => vfs.create_exclusive(&new),
    }
    .map_err(refused("create", &new))?;
    let written = file
        .write_at(0, &[bytes])
        .map_err(refused("write", &new))
        .and_then(|()| file.sync().map_err(refused("sync", &new)))
        .and_then(|()| vfs.rename(&new, path).map_err(refused("rename", &new)));
    drop(file);
    if written.is_err() {
        let _ = vfs.remove(&new);
    }
    written?;
    vfs.sync_dir(parent).map_err(refused("sync", parent))
}

/// Reads a whole file; `None` where there is none. Of a file longer than `max`, the first `max + 1` bytes.
pub(crate) fn read(vfs: &dyn Vfs, path: &str, max: usize) -> Result<Option<Vec<u8>>, FileError> {
    let file = match vfs.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused("open", path)(error)),
    };
    let len = file.len().map_err(refused("read", path))?;
    let mut bytes = vec![0; len.min(max as u64 + 1) as usize];
    read_exact_at(&*file, 0, &mut bytes).map_err(refused("read", path))?;
    Ok(Some(bytes))
}

/// Removes a file that may be there. Not durable by itself.
pub(crate) fn remove(vfs: &dyn Vfs, path: &str) -> Result<(), FileError> {
    match vfs.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(refused("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Names of the files in a directory; none where there is no directory.
pub(crate) fn names(vfs: &dyn Vfs, dir: &str) -> Result<Vec<String>, FileError> {
    match vfs.list(dir) {
        Ok(entries) => {
            let files = entries.into_iter().filter(|entry| !entry.metadata.is_dir);
            Ok(files.map(|entry| entry.name).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(refused("list", dir)(error)),
    }
}

/// Makes removals in a directory durable.
pub(crate) fn sync_dir(vfs: &dyn Vfs, dir: &str) -> Result<(), FileError> {
    vfs.sync_dir(dir).map_err(refused("sync", dir))
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Makes a directory and those above it, each durable.
fn make_dirs(vfs: &dyn Vfs, dir: &str) -> Result<(), FileError> {
    let ends = dir.match_indices('/').map(|(at, _)| at);
    for end in ends.chain([dir.len()]).filter(|end| *end > 0) {
        let dir = &dir[..end];
        if vfs.metadata(dir).is_ok_and(|found| found.is_dir) {
            continue;
        }
        vfs.create_dir(dir).map_err(refused("create", dir))?;
        let parent = parent(dir);
        vfs.sync_dir(parent).map_err(refused("sync", parent))?;
    }
    Ok(())
}
