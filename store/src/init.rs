//! Creating a store, and what every opening for writing needs: the lock, the ballast.
//!
//! Invariants
//! - The first log record makes a directory a store; it is written last.
//! - Every directory is durable before anything in it is.
//! - The ballast is whole or absent, and never what keeps a store from opening.
//!
//! Crash: without the first record there is no store, and creation can be begun again.

use crate::block;
use crate::current::{self, Hint};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::id::StoreId;
use crate::index;
use crate::log::{self, LogWriter};
use crate::params::Params;
use crate::state;
use crate::vfs::{Access, Vfs, VfsLock};
use crate::writer::{Context, WriteOptions};

/// Path of the lock file.
pub const LOCK_PATH: &str = "lock";
/// Path of the ballast.
pub const BALLAST_PATH: &str = "ballast";
/// Directories of a store, parents first.
const DIRS: [&str; 10] = [
    "blocks",
    block::OPEN_DIR,
    block::SEALED_DIR,
    "index",
    "log",
    "snapshots",
    "tmp",
    "tmp/ingest",
    "tmp/scratch",
    "tmp/pty",
];
/// What a fresh filesystem may already hold beside a store.
const FOREIGN_NAMES: [&str; 7] = [
    "lost+found",
    "System Volume Information",
    "$RECYCLE.BIN",
    ".Trashes",
    ".fseventsd",
    ".Spotlight-V100",
    ".Trash-0",
];

/// Refuses a directory that holds a store already, or anything else but what a
/// fresh filesystem may hold. Writes nothing.
pub fn check_vacant(vfs: &dyn Vfs) -> Result<()> {
    let present = vfs.list("").map_err(Error::io("list", "the directory"))?;
    match current::load(vfs) {
        Ok(_) | Err(Error::LogDamaged { .. }) => return Err(Error::AlreadyAStore),
        Err(Error::NotAStore) => {}
        Err(error) => return Err(error),
    }
    for entry in &present {
        if !is_usual(&entry.name) {
            return Err(Error::NotEmpty {
                found: entry.name.clone(),
            });
        }
    }
    for dir in [block::OPEN_DIR, block::SEALED_DIR] {
        match vfs.list(dir) {
            Ok(entries) => {
                if let Some(entry) = entries.first() {
                    return Err(Error::NotEmpty {
                        found: format!("{dir}/{}", entry.name),
                    });
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("list", dir)(error)),
        }
    }
    Ok(())
}

/// Whether a name at the top is one that a store or a fresh filesystem has.
pub(crate) fn is_usual(name: &str) -> bool {
    let ours = DIRS.contains(&name) || [LOCK_PATH, BALLAST_PATH].contains(&name);
    ours || FOREIGN_NAMES.contains(&name) || name.starts_with(".Trash-")
}

/// Makes directories again that are missing: whoever copied the store may have left
/// out what is empty.
pub(crate) fn ensure_dirs(vfs: &dyn Vfs) -> Result<()> {
    for dir in DIRS {
        if vfs.metadata(dir).is_err() {
            vfs.create_dir(dir).map_err(Error::io("create", dir))?;
            let parent = dir.rsplit_once('/').map_or("", |(parent, _)| parent);
            vfs.sync_dir(parent).map_err(Error::io("sync", parent))?;
        }
    }
    Ok(())
}

/// Creates a store in an empty or absent directory tree.
pub fn create(
    vfs: &dyn Vfs,
    params: &Params,
    context: &Context,
    options: &WriteOptions,
) -> Result<StoreId> {
    params.validate()?;
    if vfs.metadata(log::LOG_DIR).is_ok_and(|log| log.is_dir) {
        log::settle(vfs)?;
    }
    check_vacant(vfs)?;
    for dir in DIRS {
        vfs.create_dir(dir).map_err(Error::io("create", dir))?;
    }
    for dir in ["", "blocks", "tmp"] {
        vfs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    }
    let _lock = take_lock(vfs, context)?;
    // An earlier creation that never got its first record leaves a log file without one.
    for entry in vfs.list("log").map_err(Error::io("list", "log"))? {
        let path = format!("log/{}", entry.name);
        vfs.remove(&path).map_err(Error::io("remove", path))?;
    }
    let mut random = random_of(&context.seed);
    let store_id = StoreId(draw(&mut random));
    ensure_ballast(vfs, options.ballast_bytes);
    let now = (context.now)();
    let mut log = LogWriter::create(vfs, store_id, draw(&mut random), now)?;
    let mut records = vec![state::created_record(params, &store_id)];
    records.extend(context.home.as_ref().map(Home::record));
    log.append(vfs, records, &mut || draw(&mut random), now)?;
    Hint {
        place: log.place(),
        snapshot: 0,
    }
    .write(vfs)?;
    Ok(store_id)
}

pub(crate) fn random_of(seed: &[u8; 32]) -> blake3::OutputReader {
    blake3::Hasher::new_keyed(seed)
        .update(b"asl writer")
        .finalize_xof()
}

pub(crate) fn draw(random: &mut blake3::OutputReader) -> [u8; 16] {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    bytes
}

pub(crate) fn take_lock(vfs: &dyn Vfs, context: &Context) -> Result<Box<dyn VfsLock>> {
    let lock = vfs.lock(LOCK_PATH).map_err(Error::io("lock", LOCK_PATH))?;
    let Some(lock) = lock else {
        let text = index::read_file(vfs, LOCK_PATH).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        let holder = if text.is_empty() {
            text
        } else {
            format!(": {text}")
        };
        return Err(Error::Locked { holder });
    };
    // For people only, so a full disk must not keep anybody out.
    if let Ok(file) = vfs.open(LOCK_PATH, Access::Write) {
        let _ = file
            .truncate(0)
            .and_then(|()| file.write_at(0, &[context.holder.as_bytes(), b"\n"]));
    }
    Ok(lock)
}

/// Makes the ballast where it is missing or short and plenty of room is left. Returns
/// whether there is one to give up, whatever its length.
pub(crate) fn ensure_ballast(vfs: &dyn Vfs, bytes: u64) -> bool {
    let present = vfs.metadata(BALLAST_PATH).map(|metadata| metadata.len);
    if present.as_ref().is_ok_and(|len| *len >= bytes) {
        return true;
    }
    let roomy = vfs
        .statfs()
        .is_ok_and(|stat| stat.available_bytes >= bytes.saturating_mul(4));
    if bytes == 0 || !roomy {
        return present.is_ok();
    }
    if make_ballast(vfs, bytes).is_ok() {
        return true;
    }
    // Half a ballast is no reserve; it only takes room.
    let _ = vfs.remove(BALLAST_PATH);
    vfs.metadata(BALLAST_PATH).is_ok()
}

fn make_ballast(vfs: &dyn Vfs, bytes: u64) -> std::io::Result<()> {
    if vfs.metadata(BALLAST_PATH).is_ok() {
        vfs.remove(BALLAST_PATH)?;
    }
    let file = vfs.create_exclusive(BALLAST_PATH)?;
    // Noise, so that a compressing filesystem keeps the room as well.
    let mut noise = blake3::Hasher::new().update(b"asl ballast").finalize_xof();
    let mut chunk = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        noise.fill(&mut chunk);
        let len = (bytes - at).min(chunk.len() as u64) as usize;
        file.write_at(at, &[&chunk[..len]])?;
        at += len as u64;
    }
    file.sync()?;
    vfs.sync_dir("")
}
