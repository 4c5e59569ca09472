//! Salvage: a sealed block from what a dead writer left under `blocks/open`.
//!
//! Invariants
//! - Every whole frame is kept, wherever damage lies between them.
//! - Nothing is believed that the medium does not hold: the dead writer may have
//!   written without a sync, or synced in vain.
//!
//! Crash: the next opening finds the file under `open/` again, or its finished successor
//! as well, and salvages what it finds.

use crate::block::{
    BlockHeader, BlockWriter, Entry, OPEN_DIR, Sealed, next_magic, open_path, publish, read_sealed,
    read_stored, whole_frames,
};
use crate::error::{Error, Result};
use crate::format::{self, block_header as bh};
use crate::frame::{Frame, FrameInfo, FrameSalt};
use crate::id::{SessionId, StoreId};
use crate::vfs::{Access, Vfs, VfsFile, read_exact_at};

/// What [`salvage`] made of an open block.
#[derive(Debug)]
pub enum Salvage {
    /// Complete and durable; the caller logs it.
    Sealed(Sealed),
    /// It held no whole frame and was removed.
    Empty,
    /// It is not of this store, or of a kind that is not known; left where it is.
    Foreign(Error),
}

/// Makes a sealed block of what a dead writer left under `blocks/open`: keeps every
/// whole frame. `fresh` gives the header of a new block, needed only where damage lies between
/// whole frames, or over the header, and they are copied into a file of their own.
pub fn salvage(
    vfs: &dyn Vfs,
    path: &str,
    store_id: StoreId,
    fresh: &mut dyn FnMut() -> Result<BlockHeader>,
) -> Result<Salvage> {
    let file = vfs
        .open(path, Access::Write)
        .map_err(Error::io("open", path))?;
    file.settle().map_err(Error::io("sync", path))?;
    let len = file.len().map_err(Error::io("read", path))?;
    let mut header_bytes = [0; bh::LEN];
    if len < bh::LEN as u64 {
        drop(file);
        return remove_empty(vfs, path);
    }
    read_exact_at(&*file, 0, &mut header_bytes).map_err(Error::io("read", path))?;
    let intact = bh::MAGIC.of(&header_bytes) == format::BLOCK_MAGIC
        && bh::CRC.u32(&header_bytes) == crc32c::crc32c(&header_bytes[..bh::CRC.offset]);
    if !intact {
        return without_header(vfs, file, path, len, fresh);
    }
    let header = match BlockHeader::decode(&header_bytes, path) {
        Ok(header) if header.store_id == store_id => header,
        Ok(_) => {
            return Ok(Salvage::Foreign(Error::damaged(
                path,
                0,
                "a block of another store",
            )));
        }
        Err(error) => return Ok(Salvage::Foreign(error)),
    };
    let salt = FrameSalt::of_block(&header_bytes);
    let (found, clean) = whole_frames(&*file, path, len, &salt)?;
    if let Ok(sealed) = read_sealed(&*file, path)
        && sealed.entries == found
    {
        vfs.sync_dir(OPEN_DIR)
            .map_err(Error::io("sync", OPEN_DIR))?;
        let _ = publish(vfs, path, &sealed.digest);
        return Ok(Salvage::Sealed(sealed));
    }
    let Some(last) = found.last() else {
        drop(file);
        return remove_empty(vfs, path);
    };
    let end = u64::from(last.offset) + last.info.space();
    let used: u64 = found.iter().map(|entry| entry.info.space()).sum();
    if clean && end == bh::LEN as u64 + used && len >= end {
        let mut writer = BlockWriter::resume(file, path, (header, header_bytes), found);
        return writer.seal(vfs, true).map(Salvage::Sealed);
    }
    let header = BlockHeader {
        id: fresh()?.id,
        ..header
    };
    move_frames(vfs, file, path, header, &found)
}

/// Salvages a file whose header did not reach the medium, or has gone bad since. Its frames
/// still vouch for themselves; when it was begun, and for whom, is not known.
fn without_header(
    vfs: &dyn Vfs,
    file: Box<dyn VfsFile>,
    path: &str,
    len: u64,
    fresh: &mut dyn FnMut() -> Result<BlockHeader>,
) -> Result<Salvage> {
    let found = match salt_of_frames(&*file, path, len)? {
        Some(salt) => whole_frames(&*file, path, len, &salt)?.0,
        None => Vec::new(),
    };
    if found.is_empty() {
        drop(file);
        return remove_empty(vfs, path);
    }
    let fresh = fresh()?;
    let mut artifacts = found.iter().filter(|entry| entry.info.is_artifact());
    let large = match (artifacts.next(), artifacts.next()) {
        (Some(only), None) => {
            only.info.encoding != format::ENCODING_CHUNKED
                && only.info.raw_len >= fresh.small_threshold
        }
        _ => false,
    };
    let header = BlockHeader {
        class: if large {
            format::CLASS_LARGE
        } else {
            format::CLASS_PACKED
        },
        session: SessionId::ZERO,
        base_position: 0,
        ..fresh
    };
    move_frames(vfs, file, path, header, &found)
}

/// Seals a copy of the frames, then removes the file.
fn move_frames(
    vfs: &dyn Vfs,
    file: Box<dyn VfsFile>,
    path: &str,
    header: BlockHeader,
    found: &[Entry],
) -> Result<Salvage> {
    let sealed = copy_frames(vfs, (&*file, path), header, found)?;
    drop(file);
    vfs.remove(path).map_err(Error::io("remove", path))?;
    vfs.sync_dir(OPEN_DIR)
        .map_err(Error::io("sync", OPEN_DIR))?;
    Ok(Salvage::Sealed(sealed))
}

/// Copies frames of a block file, each checked, into a new block and seals it as salvaged.
pub fn copy_frames(
    vfs: &dyn Vfs,
    (file, path): (&dyn VfsFile, &str),
    header: BlockHeader,
    entries: &[Entry],
) -> Result<Sealed> {
    /// Frames held in memory between two syncs.
    const PENDING_MAX: u64 = 64 << 20;
    let mut writer = BlockWriter::create(vfs, header)?;
    let mut copy = || {
        for entry in entries {
            let stored = read_stored(file, path, entry)?;
            writer.append(Frame {
                info: entry.info,
                stored: stored.into(),
            })?;
            if writer.pending_bytes() > PENDING_MAX {
                writer.sync(vfs)?;
            }
        }
        writer.seal(vfs, true)
    };
    copy().inspect_err(|_| {
        // Half a copy only takes room; the original is still there.
        let _ = vfs.remove(&open_path(header.id));
    })
}

fn remove_empty(vfs: &dyn Vfs, path: &str) -> Result<Salvage> {
    vfs.remove(path).map_err(Error::io("remove", path))?;
    Ok(Salvage::Empty)
}

/// The salt of the first frame header in the file that is valid by itself.
pub(crate) fn salt_of_frames(
    file: &dyn VfsFile,
    path: &str,
    len: u64,
) -> Result<Option<FrameSalt>> {
    use format::frame_header as fh;
    let mut at = bh::LEN as u64;
    let mut header = [0; fh::LEN];
    while let Some(offset) = next_magic(file, path, at, len)? {
        if offset + fh::LEN as u64 > len {
            break;
        }
        read_exact_at(file, offset, &mut header).map_err(Error::io("read", path))?;
        let salt = FrameSalt::of_frame(&header);
        if FrameInfo::from_header(&header, &salt).is_some() {
            return Ok(Some(salt));
        }
        at = offset + format::ALIGNMENT as u64;
    }
    Ok(None)
}
