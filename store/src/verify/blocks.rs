//! Blocks: those that the log names, and those that lie beside them.

use std::collections::{BTreeSet, HashSet};

use super::frames::{Buffers, Frames};
use super::{Run, describe, index, names, not_zero};
use crate::block::{self, Sealed};
use crate::error::{Error, Result};
use crate::format::{self, block_header as bh, block_trailer as bt, toc_entry as te};
use crate::frame::FrameSalt;
use crate::id::{BlockId, Digest, Key, StoreId};
use crate::rebuild;
use crate::state::{BlockInfo, State};
use crate::store::StoreHandle;
use crate::vfs::{Access, VfsFile, read_exact_at};

/// A block file to look at.
pub(super) struct Job {
    path: String,
    len: u64,
    /// What its name says.
    digest: Digest,
    /// What the log says; `None` if it does not name the block.
    logged: Option<(BlockId, BlockInfo)>,
    store_id: Option<StoreId>,
}

/// Finds every block: those of `state`, and others that lie in `blocks/sealed`. What
/// is missing altogether is a job without a file.
pub(super) fn find(run: &Run, state: Option<&State>) -> Vec<Job> {
    let store_id = state.map(State::store_id);
    let mut jobs = Vec::new();
    let mut named = HashSet::new();
    let mut open = BTreeSet::new();
    for (id, info) in state.iter().flat_map(|state| &state.blocks) {
        let (id, digest) = (BlockId(*id), Digest(info.digest));
        named.insert(digest);
        let sealed = block::sealed_path(&digest);
        let under_open = block::open_path(id);
        // A rename that a power cut undid.
        let moved = run.vfs.metadata(&sealed).is_err() && run.vfs.metadata(&under_open).is_ok();
        if moved {
            open.insert(id);
            run.note(format!(
                "{under_open} is sealed; the next writer moves it to {sealed}"
            ));
        }
        jobs.push(Job {
            path: if moved { under_open } else { sealed },
            len: info.file_len,
            digest,
            logged: Some((id, *info)),
            store_id,
        });
    }
    for dir in run.vfs.list(block::SEALED_DIR).unwrap_or_default() {
        let parent = format!("{}/{}", block::SEALED_DIR, dir.name);
        let entries = match run.vfs.list(&parent) {
            Ok(entries) => entries,
            Err(error) => {
                if dir.metadata.is_dir {
                    run.damaged(&parent, None, format!("cannot be listed: {error}"));
                }
                continue;
            }
        };
        for entry in entries {
            let path = format!("{parent}/{}", entry.name);
            match names::sealed_digest(&dir.name, &entry.name) {
                Some(digest) if named.contains(&digest) => {}
                Some(digest) => {
                    if state.is_some() {
                        run.note(format!(
                            "{path} is sealed, but the log does not name it; the next writer logs it"
                        ));
                    }
                    jobs.push(Job {
                        path,
                        len: entry.metadata.len,
                        digest,
                        logged: None,
                        store_id,
                    });
                }
                None => run.note(format!("{path} is not part of a store")),
            }
        }
    }
    for entry in run.vfs.list(block::OPEN_DIR).unwrap_or_default() {
        let path = format!("{}/{}", block::OPEN_DIR, entry.name);
        match names::open_id(&entry.name) {
            Some(id) if open.contains(&id) => {}
            Some(_) => run.note(format!(
                "{path} is open: somebody writes it, or died; the next writer salvages it"
            )),
            None => run.note(format!("{path} is not part of a store")),
        }
    }
    for job in &jobs {
        run.expect(job.expected(run.options.quick));
    }
    jobs
}

impl Job {
    fn expected(&self, quick: bool) -> u64 {
        if !quick {
            return self.len;
        }
        let frames = self
            .logged
            .map_or(0, |(_, info)| u64::from(info.frame_count));
        (bh::LEN + bt::LEN) as u64 + frames * te::LEN as u64
    }
}

/// Looks at every block; `index` names artifacts of those that cannot tell themselves.
pub(super) fn check(
    run: &Run,
    jobs: &[Job],
    index: &index::Findings,
    handle: Option<&StoreHandle>,
) {
    run.count(|counts| counts.blocks = jobs.len() as u64);
    run.spread(jobs, |buffers, job| {
        let copies = Copies {
            handle,
            block: job.logged.map(|(id, _)| id),
        };
        if let Err(error) = check_one(run, buffers, job, &copies) {
            run.skip(job.expected(run.options.quick));
            let (offset, what) = describe(&error);
            let mut keys = keys_of(run, job, index);
            keys.retain(|key| copies.is_hit(key, None));
            run.hit(&job.path, offset, what, keys);
        }
    });
}

/// Tells a copy that readers use from one that is no longer needed.
pub(super) struct Copies<'a> {
    handle: Option<&'a StoreHandle>,
    /// The block that is looked at, if the log names it.
    block: Option<BlockId>,
}

impl Copies<'_> {
    /// Whether readers who ask for `key` come to this block, or find it nowhere; with
    /// an `offset`, whether they come to just that frame.
    pub(super) fn is_hit(&self, key: &Key, offset: Option<u32>) -> bool {
        let found = self.handle.map(|handle| handle.lookup_part(key));
        match found {
            Some(Ok(Some(record))) => {
                Some(record.block) == self.block
                    && offset.is_none_or(|offset| offset == record.offset)
            }
            _ => true,
        }
    }
}

/// An error is damage of the block as a whole; the rest is reported on the way.
fn check_one(run: &Run, buffers: &mut Buffers, job: &Job, copies: &Copies) -> Result<()> {
    let path = &job.path[..];
    let file = run
        .vfs
        .open(path, Access::Read)
        .map_err(Error::io("open", path))?;
    let len = file.len().map_err(Error::io("read", path))?;
    if len != job.len {
        let what = format!("{len} bytes long, the log says {}", job.len);
        return Err(Error::damaged(path, len.min(job.len), what));
    }
    let sealed = block::read_sealed(&*file, path)?;
    if sealed.digest != job.digest {
        return Err(Error::damaged(path, 0, "not the block that its name says"));
    }
    let salt = check_ends(run, &*file, path, &sealed)?;
    for what in disagreements(job, &sealed) {
        run.damaged(path, None, what);
    }
    for entry in &sealed.entries {
        if let Some(what) = entry.impossible() {
            run.damaged(path, u64::from(entry.offset), what);
        }
    }
    if let Some(what) = mixed(&sealed) {
        run.warn(format!("{path}: {what}"));
    }
    let artifacts = sealed
        .entries
        .iter()
        .filter(|entry| entry.info.is_artifact());
    let artifacts = artifacts.count() as u64;
    run.count(|counts| counts.artifacts += artifacts);
    let toc = (sealed.entries.len() * te::LEN) as u64;
    run.advance((bh::LEN + bt::LEN) as u64 + toc);
    if !run.options.quick {
        let frames = Frames {
            run,
            file: &*file,
            path,
            copies,
            salt,
            end: len - toc - bt::LEN as u64,
        };
        frames.check(buffers, &sealed.entries);
        run.count(|counts| counts.frames += sealed.entries.len() as u64);
    }
    Ok(())
}

/// What no digest vouches for in header and trailer; returns the frames' salt.
fn check_ends(run: &Run, file: &dyn VfsFile, path: &str, sealed: &Sealed) -> Result<FrameSalt> {
    let read =
        |at: u64, buf: &mut [u8]| read_exact_at(file, at, buf).map_err(Error::io("read", path));
    let mut header = [0; bh::LEN];
    read(0, &mut header)?;
    if let Some(what) = not_zero(bh::FIELDS, &header) {
        run.damaged(path, 0, format!("a header with {what}"));
    }
    let class = bh::CLASS.u8(&header);
    if class != format::CLASS_PACKED && class != format::CLASS_LARGE {
        run.damaged(path, 0, format!("a header with an unknown class, {class}"));
    }
    let trailer_at = sealed.file_len - bt::LEN as u64;
    let mut trailer = [0; bt::LEN];
    read(trailer_at, &mut trailer)?;
    if let Some(what) = not_zero(bt::FIELDS, &trailer) {
        run.damaged(path, trailer_at, format!("a trailer with {what}"));
    }
    Ok(FrameSalt::of_block(&header))
}

/// What a block says of itself otherwise than its name and its record do.
fn disagreements(job: &Job, sealed: &Sealed) -> Vec<&'static str> {
    let header = &sealed.header;
    let mut found = Vec::new();
    let mut must = |holds: bool, what: &'static str| {
        if !holds {
            found.push(what);
        }
    };
    let Some((id, info)) = &job.logged else {
        must(
            job.store_id.is_none_or(|store| store == header.store_id),
            "a block of another store",
        );
        return found;
    };
    if info.origin != format::ORIGIN_IMPORTED {
        must(
            header.id == *id,
            "its header has another id than its record",
        );
        must(
            job.store_id == Some(header.store_id),
            "a block of another store",
        );
        // One that was found later may have seen more of the log than there is now.
        let found = matches!(
            info.origin,
            format::ORIGIN_SALVAGED | format::ORIGIN_RELOGGED
        );
        must(
            found || header.base_position <= info.position,
            "it was begun later than it was logged",
        );
    }
    let artifacts = sealed
        .entries
        .iter()
        .filter(|entry| entry.info.is_artifact());
    let counts = (sealed.entries.len(), artifacts.count());
    must(
        counts == (info.frame_count as usize, info.artifact_count as usize),
        "another number of frames than its record says",
    );
    must(
        sealed.artifact_bytes() == info.artifact_bytes,
        "other lengths of artifacts than its record says",
    );
    must(
        (header.class, header.session.0) == (info.class, info.session),
        "another class or session than its record says",
    );
    must(
        info.origin <= format::ORIGIN_IMPORTED,
        "its record gives an unknown origin",
    );
    must(
        !sealed.salvaged || info.origin != format::ORIGIN_WRITTEN,
        "it was salvaged, its record says that its writer sealed it",
    );
    found
}

/// Whether a block mixes small and large artifacts, against its class. Harmless, but
/// garbage collection reclaims such a block later than it could.
fn mixed(sealed: &Sealed) -> Option<String> {
    let artifacts = sealed
        .entries
        .iter()
        .filter(|entry| entry.info.is_artifact());
    let small = |entry: &&block::Entry| {
        entry.info.encoding == format::ENCODING_CHUNKED
            || entry.info.raw_len < sealed.header.small_threshold
    };
    let count = artifacts.clone().count();
    let few = artifacts.filter(small).count();
    match sealed.header.class {
        format::CLASS_PACKED if few < count => Some(format!(
            "{} large artifacts are packed with others",
            count - few
        )),
        format::CLASS_LARGE if (count, few) != (1, 0) => Some(format!(
            "a block for one large artifact holds {count}, {few} of them small"
        )),
        _ => None,
    }
}

/// The artifacts of a block that no reader opens, from whatever still names them.
fn keys_of(run: &Run, job: &Job, index: &index::Findings) -> Vec<Key> {
    let mut keys = BTreeSet::new();
    if let Some((id, _)) = &job.logged {
        keys.extend(index.lost.get(id).into_iter().flatten().copied());
    }
    if let Ok(file) = run.vfs.open(&job.path, Access::Read) {
        let frames = rebuild::scan_hard(&*file, &job.path).unwrap_or_default();
        let artifacts = frames.iter().filter(|entry| entry.info.is_artifact());
        keys.extend(artifacts.map(|entry| entry.info.key));
    }
    keys.into_iter().collect()
}
