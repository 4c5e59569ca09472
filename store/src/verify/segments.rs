//! Index segments and filters, each file by itself: what the log pins, what the layout
//! demands, and that no filter denies what its segment holds.

use std::collections::{BTreeMap, HashSet};

use super::log::LogView;
use super::{Run, describe, names, not_zero};
use crate::error::{Error, Result};
use crate::filter::{self, Filter, filter_path};
use crate::format::{
    self, PAGE_LEN, PAGE_RECORDS, index_record as ir, page_foot as pf, segment_header as sh,
};
use crate::id::{Digest, Key};
use crate::index::read_file;
use crate::log::LogFiles;
use crate::segment::{IndexRecord, Segment, SegmentRef, bucket, segment_path, shard_dir};
use crate::state::State;
use crate::vfs::{Access, Vfs, read_exact_at};

/// The segments in force that are as they must be: shard and number.
pub(super) type Whole = HashSet<(u32, u32)>;

/// Looks at every segment file that the log names or that lies in a shard's
/// directory, and at every filter.
pub(super) fn check(run: &Run, log: &LogView, state: &State) -> Whole {
    let in_force: BTreeMap<(u32, u32), SegmentRef> = state
        .segments()
        .into_iter()
        .map(|segment| ((segment.shard, segment.number), segment))
        .collect();
    let pinned: HashSet<(u32, u32)> = state
        .snapshots
        .iter()
        .flat_map(|snapshot| snapshot.segments.iter().copied())
        .collect();
    let mut wanted = in_force.clone();
    for id in &pinned {
        if let Some((segment, _)) = log.segments.get(id) {
            wanted.insert(*id, *segment);
        }
    }
    let mut whole = Whole::new();
    for (id, segment) in &wanted {
        let path = segment_path(segment.shard, segment.number);
        let covers = log.segments.get(id).map(|(_, covers)| *covers);
        let checked = check_one(run, &path, state, segment, covers);
        run.count(|counts| counts.segments += 1);
        match checked {
            Ok(()) => {
                if in_force.contains_key(id) {
                    whole.insert(*id);
                }
            }
            Err(error) if is_missing(&error) && !in_force.contains_key(id) => run.note(format!(
                "{path} is missing; a snapshot pins it, but log and blocks say the same"
            )),
            // A writer may have merged it away since the log was read.
            Err(error) if is_missing(&error) && is_retired(run.vfs, state, segment) => {}
            Err(error) => {
                let (offset, what) = describe(&error);
                run.damaged(&path, offset, what);
            }
        }
    }
    for shard in 0..state.params().shards {
        for entry in run.vfs.list(&shard_dir(shard)).unwrap_or_default() {
            let number = names::segment_number(&entry.name);
            if let Some(number) = number.filter(|number| !wanted.contains_key(&(shard, *number))) {
                let path = segment_path(shard, number);
                run.note(format!(
                    "{path} is not in use; the log does not name it or has retired it"
                ));
            }
        }
        check_filters(run, state, shard, &whole);
    }
    whole
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// Whether the log, read again from where it was, no longer names the segment.
fn is_retired(vfs: &dyn Vfs, state: &State, segment: &SegmentRef) -> bool {
    let mut later = state.clone();
    let read = LogFiles::list(vfs).and_then(|files| {
        files.read(vfs, state.place(), crate::current::END, &mut |record| {
            later.apply(&record)
        })
    });
    let of_shard = later.segments_of(segment.shard);
    read.is_ok() && of_shard.iter().all(|other| other.number != segment.number)
}

/// Reads a segment file, front to back.
fn check_one(
    run: &Run,
    path: &str,
    state: &State,
    segment: &SegmentRef,
    covers: Option<u64>,
) -> Result<()> {
    let file = run
        .vfs
        .open(path, Access::Read)
        .map_err(Error::io("open", path))?;
    // Header and table. What is taken for granted about them is looked at below.
    let opened = Segment::open(run.vfs, state.store_id(), segment)?;
    let len = file.len().map_err(Error::io("read", path))?;
    run.expect(len);
    let mut header = [0; sh::LEN];
    read_exact_at(&*file, 0, &mut header).map_err(Error::io("read", path))?;
    let damaged = |what: &str| Err(Error::damaged(path, 0, what));
    if let Some(what) = not_zero(sh::FIELDS, &header) {
        return damaged(&format!("a header with {what}"));
    }
    let shards = state.params().shards;
    let pages_offset = sh::PAGES_OFFSET.get(&header);
    let table_end = (sh::LEN + opened.counts().len() * 4) as u64;
    if sh::SHARDS.u32(&header) != shards
        || covers.is_some_and(|covers| covers != sh::COVERS.get(&header))
        || pages_offset < table_end
        || !pages_offset.is_multiple_of(PAGE_LEN as u64)
    {
        return damaged("a header that disagrees with the log or with itself");
    }
    let pages = segment.entries.div_ceil(PAGE_RECORDS as u64);
    if len != pages_offset + pages * PAGE_LEN as u64 {
        return damaged("a length that its header does not give");
    }

    let mut hasher = blake3::Hasher::new_derive_key(format::CONTEXT_SEGMENT);
    let mut content = Content {
        path,
        shards,
        segment,
        last: None,
        counts: vec![0; opened.counts().len()],
    };
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let wanted = (len - at).min(buf.len() as u64) as usize;
        read_exact_at(&*file, at, &mut buf[..wanted]).map_err(Error::io("read", path))?;
        run.advance(wanted as u64);
        hasher.update(&buf[..wanted]);
        for page in buf[..wanted].chunks_exact(PAGE_LEN) {
            if at >= pages_offset {
                content.page(page, (at - pages_offset) / PAGE_LEN as u64, at)?;
            } else {
                let filler = table_end.saturating_sub(at).min(PAGE_LEN as u64) as usize;
                if page[filler..].iter().any(|byte| *byte != 0) {
                    let at = at + filler as u64;
                    return Err(Error::damaged(path, at, "padding that is not zero"));
                }
            }
            at += PAGE_LEN as u64;
        }
    }
    for index in 1..content.counts.len() {
        content.counts[index] += content.counts[index - 1];
    }
    if content.counts != opened.counts() {
        let at = sh::LEN as u64;
        return Err(Error::damaged(
            path,
            at,
            "a table that does not count its records",
        ));
    }
    if hasher.finalize().as_bytes() != &segment.digest.0 {
        return damaged("not the segment whose digest is in the log");
    }
    Ok(())
}

/// The pages of a segment as they are read.
struct Content<'a> {
    path: &'a str,
    shards: u32,
    segment: &'a SegmentRef,
    last: Option<Key>,
    /// Records in each bucket, one place further on.
    counts: Vec<u32>,
}

impl Content<'_> {
    fn page(&mut self, page: &[u8], number: u64, at: u64) -> Result<()> {
        let damaged = |what: &str| Err(Error::damaged(self.path, at, what));
        let (body, foot) = page.split_at(PAGE_RECORDS * ir::LEN);
        if pf::CRC.u32(foot) != crc32c::crc32c(&page[..body.len() + pf::CRC.offset]) {
            return damaged("a page whose checksum does not match");
        }
        let before = number * PAGE_RECORDS as u64;
        let held = (self.segment.entries - before).min(PAGE_RECORDS as u64) as usize;
        if u64::from(pf::PAGE.u32(foot)) != number || pf::COUNT.u32(foot) as usize != held {
            return damaged("a page of another number or count");
        }
        let (records, rest) = body.split_at(held * ir::LEN);
        if not_zero(pf::FIELDS, foot).is_some() || rest.iter().any(|byte| *byte != 0) {
            return damaged("unused bytes of a page that are not zero");
        }
        let bits = (self.counts.len() - 1).trailing_zeros();
        for raw in records.chunks_exact(ir::LEN) {
            if let Some(what) = not_zero(ir::FIELDS, raw) {
                return damaged(&format!("a record with {what}"));
            }
            let key = IndexRecord::decode(raw).key;
            if self.last >= Some(key) || key.shard(self.shards) != self.segment.shard {
                return damaged("keys that do not rise, or of another shard");
            }
            self.last = Some(key);
            self.counts[bucket(&key, self.shards, bits) + 1] += 1;
        }
        Ok(())
    }
}

/// Compares a shard's filters with its segments, of which `whole` can be trusted.
fn check_filters(run: &Run, state: &State, shard: u32, whole: &Whole) {
    let path = filter_path(shard);
    let segments = state.segments_of(shard);
    let bytes = match read_file(run.vfs, &path) {
        Ok(bytes) => bytes,
        Err(error) if is_missing(&error) => {
            if !segments.is_empty() {
                run.note(format!("{path} is missing; the next writer makes it again"));
            }
            return;
        }
        Err(error) => {
            run.stale(&path, None, describe(&error).1);
            return;
        }
    };
    run.expect(bytes.len() as u64);
    run.advance(bytes.len() as u64);
    let Some(filters) = filter::decode(shard, &bytes) else {
        run.stale(&path, 0, "not a valid filter of its shard");
        return;
    };
    for segment in &segments {
        let own = |(number, digest, _): &&(u32, Digest, Filter)| {
            (*number, *digest) == (segment.number, segment.digest)
        };
        let Some((_, _, filter)) = filters.iter().find(own) else {
            let number = segment.number;
            run.note(format!(
                "{path} has no filter for segment {number}; the next writer adds it"
            ));
            continue;
        };
        if !whole.contains(&(shard, segment.number)) {
            continue;
        }
        let denied = Segment::open(run.vfs, state.store_id(), segment).is_ok_and(|segment| {
            let mut records = segment.iter();
            records.any(|record| record.is_ok_and(|record| !filter.may_contain(&record.key)))
        });
        if denied {
            run.stale(&path, 0, "it denies a key that its segment holds");
        }
    }
}
