//! What a log names beside its blocks: index segments and state files. They can be made anew, but whole ones come over, too.
//!
//! Each is pinned in the log by a digest of the whole file. One that our log names already is taken for whole if it opens; with
//! [`SyncOptions::verify`] all of it is read.
//!
//! Order of writes, of each file
//! 1. `tmp/ingest/…new`, sharing the bytes of the other store's file or holding a copy of them; synced
//! 2. that file is read back: its digest
//! 3. its name, durable: by one rename, over the damaged file where there is one
//!
//! Crash: as for blocks. Readers do without a segment that is damaged, and so slower.

use std::collections::HashSet;

use super::blocks::{
    Brought, DamagedFile, Failed, HealedFile, INGEST_DIR, Progress, copy, has_vanished, still_there,
};
use super::survey::{Source, Standing};
use super::{Plan, Side, SyncOptions};
use crate::current;
use crate::error::{Error, Result};
use crate::format;
use crate::id::Digest;
use crate::index::replace_file;
use crate::init::ensure_dirs;
use crate::instances::Instance;
use crate::segment::{Segment, SegmentRef, segment_path, shard_dir};
use crate::snapshot;
use crate::vfs::{Access, Vfs, VfsFile};

/// Bytes that are hashed at once.
const HASH_BYTES: usize = 1 << 20;

/// Brings the index segments that their log names now and the state files of its snapshots, where they are not here. Where our log is
/// not to be `taken` further, only those that it names are healed. With [`SyncOptions::dry_run`] it is only looked. Ends early where
/// somebody stopped the sync.
pub(super) fn bring_caches(
    plan: &Plan,
    source: &Source,
    taken: bool,
    options: &SyncOptions,
    progress: &Progress,
    brought: &mut Brought,
) -> Result<()> {
    let in_force = in_force(plan, source);
    for segment in source.state.segments() {
        if progress.is_stopped() {
            return Ok(());
        }
        let known = in_force.contains(&(segment.shard, segment.number));
        if !known && (!taken || options.dry_run) {
            continue;
        }
        let Err(was) = check_segment(plan, source, &segment, known && !options.verify) else {
            continue;
        };
        if has_vanished(&*plan.into, &was) {
            return Err(was);
        }
        let was = known.then_some(was);
        let (path, dir) = (
            segment_path(segment.shard, segment.number),
            shard_dir(segment.shard),
        );
        let pinned = (format::CONTEXT_SEGMENT, segment.digest);
        match bring_pinned(plan, &path, &["index", &dir], pinned, options.dry_run) {
            Ok((len, shared)) => {
                brought.add(len, shared);
                brought
                    .healed_files
                    .extend(was.map(|was| HealedFile { path, was }));
            }
            Err(failed) => {
                let (side, error) = side_of(plan, failed, known)?;
                brought.damaged.push(DamagedFile {
                    path,
                    side,
                    error,
                    here: was,
                });
            }
        }
    }
    let before = plan.before.map_or(0, |head| head.position.0);
    for state in &source.vouched_states {
        if progress.is_stopped() {
            return Ok(());
        }
        let known = state.position < before;
        if !known && (!taken || options.dry_run) {
            continue;
        }
        let path = current::state_path(state.ordinal);
        let dir = current::snapshot_dir(state.ordinal);
        let pinned = (format::CONTEXT_STATE, state.digest);
        let was = match known {
            true if !options.verify && plan.into.metadata(&path).is_ok() => continue,
            true => match check_pinned(&*plan.into, &path, pinned) {
                Ok(_) => continue,
                Err(error) if has_vanished(&*plan.into, &error) => return Err(error),
                Err(error) => Some(error),
            },
            false => None,
        };
        match bring_pinned(plan, &path, &["snapshots", &dir], pinned, options.dry_run) {
            Ok((len, shared)) => {
                brought.add(len, shared);
                brought
                    .healed_files
                    .extend(was.map(|was| HealedFile { path, was }));
            }
            // Without it the log is read from its beginning: told of only where all of ours was to be read.
            Err(failed) => {
                let (side, error) = side_of(plan, failed, known)?;
                if let Some(was) = was.filter(|_| options.verify) {
                    brought.damaged.push(DamagedFile {
                        path,
                        side,
                        error,
                        here: Some(was),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Which side it is that keeps one file from being whole; an error where it is more than the one file.
fn side_of(plan: &Plan, failed: Failed, known: bool) -> Result<(Side, Error)> {
    match failed {
        Failed::Theirs(error) if still_there(&*plan.from) => Ok((Side::There, error)),
        Failed::Name(error) if known && !has_vanished(&*plan.into, &error) => {
            Ok((Side::Here, error))
        }
        Failed::Theirs(error) | Failed::Ours(error) | Failed::Name(error) => Err(error),
    }
}

/// The segments that our log names at its end, of which the file must be what theirs is.
fn in_force(plan: &Plan, source: &Source) -> HashSet<(u32, u32)> {
    let theirs = || source.state.segments().into_iter();
    let named = |segment: SegmentRef| (segment.shard, segment.number);
    match source.standing {
        // Some of theirs may be merged into others here.
        Standing::Ahead => match current::load(&*plan.into) {
            Ok(ours) => {
                let ours = ours.state.segments();
                let both = theirs().filter(|segment| ours.contains(segment));
                both.map(named).collect()
            }
            Err(_) => HashSet::new(),
        },
        _ => source.known_segments.clone(),
    }
}

/// What snapshots look like to people, and the filters of the index: made here, as nobody could tell whether theirs are right.
pub(super) fn make_caches(plan: &Plan, instance: &Instance) -> Result<()> {
    let known = plan.before.map_or(0, |head| head.position.0);
    let into = &*plan.into;
    let mut view = instance
        .view
        .write()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let view = &mut *view;
    for info in &view.state.snapshots {
        if info.position < known {
            continue;
        }
        let dir = current::snapshot_dir(info.ordinal);
        into.create_dir(&dir).map_err(Error::io("create", &dir))?;
        for (name, text) in snapshot::render(&view.state, info) {
            replace_file(into, &format!("{dir}/{name}"), text.as_bytes())?;
        }
    }
    into.sync_dir("snapshots")
        .map_err(Error::io("sync", "snapshots"))?;
    for shard in 0..view.state.params().shards {
        view.index.refresh_filters(into, shard)?;
    }
    Ok(())
}

/// Whether a segment is here already: named by our log before (then `opening` it may be enough), or left whole by an earlier sync.
fn check_segment(plan: &Plan, source: &Source, segment: &SegmentRef, opening: bool) -> Result<()> {
    let opened = Segment::open(&*plan.into, source.state.store_id(), segment)?;
    if opening || opened.digest()? == segment.digest {
        return Ok(());
    }
    let path = segment_path(segment.shard, segment.number);
    Err(not_pinned(&path))
}

fn not_pinned(path: &str) -> Error {
    Error::damaged(path, 0, "not the file that the log pins")
}

/// Whether a file is the one that the log pins; its length.
fn check_pinned(vfs: &dyn Vfs, path: &str, (context, digest): (&str, Digest)) -> Result<u64> {
    let file = vfs
        .open(path, Access::Read)
        .map_err(Error::io("open", path))?;
    match digest_of(&*file, path, context)? {
        (found, len) if found == digest => Ok(len),
        _ => Err(not_pinned(path)),
    }
}

/// Steps 1 to 3 for a file that the log pins by its digest. `dirs` are those that it lies in, parents first. With `dry_run` theirs is
/// only read.
fn bring_pinned(
    plan: &Plan,
    path: &str,
    dirs: &[&str],
    (context, digest): (&str, Digest),
    dry_run: bool,
) -> Result<(u64, bool), Failed> {
    if dry_run {
        let len = check_pinned(&*plan.from, path, (context, digest)).map_err(Failed::Theirs)?;
        return Ok((len, false));
    }
    let into = &*plan.into;
    ensure_dirs(into).map_err(Failed::Ours)?;
    let name = |action, path: &str| {
        let path = path.to_owned();
        move |error| Failed::name(Error::io(action, path)(error))
    };
    let ingest = format!("{INGEST_DIR}/{digest}.new");
    let done = (|| {
        let source = plan
            .from
            .open(path, Access::Read)
            .map_err(|error| Failed::Theirs(Error::io("open", path)(error)))?;
        let (file, shared) = copy(&*source, path, into, &ingest)?;
        let (found, len) = digest_of(&*file, &ingest, context).map_err(Failed::Ours)?;
        if found != digest {
            return Err(Failed::Theirs(not_pinned(path)));
        }
        let mut parent = "";
        for dir in dirs {
            into.create_dir(dir).map_err(name("create", dir))?;
            into.sync_dir(parent).map_err(name("sync", parent))?;
            parent = dir;
        }
        into.rename(&ingest, path)
            .map_err(name("rename", &ingest))?;
        into.sync_dir(parent).map_err(name("sync", parent))?;
        Ok((len, shared))
    })();
    if done.is_err() {
        let _ = into.remove(&ingest);
    }
    done
}

fn digest_of(file: &dyn VfsFile, path: &str, context: &str) -> Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    let mut buf = vec![0; HASH_BYTES];
    let len = file.len().map_err(Error::io("read", path))?;
    if len > format::FILE_LEN_MAX {
        let what = "longer than any file of a store";
        return Err(Error::damaged(path, len, what));
    }
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).map_or(HASH_BYTES, |rest| rest.min(HASH_BYTES));
        let got = file
            .read_at(at, &mut buf[..want])
            .map_err(Error::io("read", path))?;
        if got == 0 {
            break;
        }
        hasher.update(&buf[..got]);
        at += got as u64;
    }
    Ok((Digest(*hasher.finalize().as_bytes()), at))
}
