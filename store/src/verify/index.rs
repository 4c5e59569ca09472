//! The index compared with log and blocks, key by key: the newest entry of each, and
//! that every other one is, or was, true as well.
//!
//! Keys are taken in as many parts as the memory allows; the tables of contents are
//! read once for each part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter::Peekable;

use super::Run;
use super::log::LogView;
use super::segments::Whole;
use crate::error::Result;
use crate::format;
use crate::id::{BlockId, Key};
use crate::rebuild::{self, KeyRange, Ordered};
use crate::segment::{IndexRecord, Segment, SegmentRef, segment_path, shard_dir};
use crate::state::State;

/// Keys that one report of a wrong shard names at most.
const KEYS_MAX: usize = 4096;

/// What the others want to know of the index.
#[derive(Default)]
pub(super) struct Findings {
    /// Visible roots that have parts: tree nodes and chunk lists.
    pub(super) roots: Vec<IndexRecord>,
    /// What the index knows of blocks whose table of contents cannot be read.
    pub(super) lost: HashMap<BlockId, Vec<Key>>,
}

/// Compares segments, of which `whole` can be trusted, with what the log and the
/// blocks say. An error only for blocks of a newer format.
pub(super) fn check(run: &Run, log: &LogView, state: &State, whole: &Whole) -> Result<Findings> {
    let mut findings = Findings::default();
    let Some(history) = &log.history else {
        run.note("the index was not compared with the blocks: the log cannot be read whole");
        return Ok(findings);
    };
    let entries = rebuild::count(state, history);
    let parts = KeyRange::parts(entries, run.options.index_memory_bytes);
    let mut wrong = BTreeMap::new();
    for range in KeyRange::split(parts) {
        let mut unreadable = BTreeSet::new();
        let expected = rebuild::gather(run.vfs, state, history, range, &mut |id, _| {
            unreadable.insert(id);
        })?;
        for shard in range.shards(state.params().shards) {
            let of_shard = |key: &Key| key.shard(state.params().shards) == shard;
            let from =
                expected.partition_point(|(e, _)| e.key.shard(state.params().shards) < shard);
            let to = expected[from..].partition_point(|(entry, _)| of_shard(&entry.key));
            let mut compare = Compare {
                run,
                in_segments: log.in_segments,
                expected: &expected[from..from + to],
                unreadable: &unreadable,
                findings: &mut findings,
                wrong: wrong.entry(shard).or_default(),
            };
            compare.shard(state, shard, range, whole);
        }
    }
    for (shard, wrong) in wrong {
        wrong.report(run, shard);
    }
    Ok(findings)
}

/// What is wrong with a shard.
#[derive(Default)]
struct Wrong {
    count: u64,
    first: Option<(Option<String>, String)>,
    keys: Vec<Key>,
}

impl Wrong {
    fn add(&mut self, key: &Key, segment: Option<&SegmentRef>, what: &str) {
        self.count += 1;
        let path = segment.map(|segment| segment_path(segment.shard, segment.number));
        self.first
            .get_or_insert_with(|| (path, format!("{what} {key}")));
        if self.keys.len() < KEYS_MAX {
            self.keys.push(*key);
        }
    }

    fn report(self, run: &Run, shard: u32) {
        let Some((path, first)) = self.first else {
            return;
        };
        let what = match self.count {
            1 => first,
            count => format!("{first}, and {} keys more", count - 1),
        };
        run.hit(
            &path.unwrap_or_else(|| shard_dir(shard)),
            None,
            what,
            self.keys,
        );
    }
}

/// One shard, one range of keys.
struct Compare<'a> {
    run: &'a Run<'a>,
    /// Items of the history below this are in segments.
    in_segments: usize,
    /// What log and blocks say.
    expected: &'a [Ordered],
    unreadable: &'a BTreeSet<BlockId>,
    findings: &'a mut Findings,
    wrong: &'a mut Wrong,
}

type Source<'a> = Peekable<Box<dyn Iterator<Item = IndexRecord> + 'a>>;

impl Compare<'_> {
    fn shard(&mut self, state: &State, shard: u32, range: KeyRange, whole: &Whole) {
        let mut refs = state.segments_of(shard);
        refs.reverse();
        let judge = refs
            .iter()
            .all(|segment| whole.contains(&(segment.shard, segment.number)));
        let opened: Vec<(SegmentRef, Segment)> = refs
            .iter()
            .filter(|segment| whole.contains(&(segment.shard, segment.number)))
            .filter_map(|segment| {
                let opened = Segment::open(self.run.vfs, state.store_id(), segment).ok()?;
                Some((*segment, opened))
            })
            .collect();
        let mut sources: Vec<Source> = opened
            .iter()
            .map(|(_, segment)| {
                let records = segment.iter().filter_map(Result::ok);
                let records = records.filter(move |record| range.contains(&record.key));
                (Box::new(records) as Box<dyn Iterator<Item = IndexRecord>>).peekable()
            })
            .collect();
        let mut expected = self.expected;
        loop {
            let of_sources = sources.iter_mut().filter_map(|source| source.peek());
            let of_sources = of_sources.map(|record| record.key).min();
            let next = expected.first().map(|(entry, _)| entry.key);
            let Some(key) = [of_sources, next].into_iter().flatten().min() else {
                break;
            };
            let (run, rest) = expected.split_at(expected.partition_point(|(e, _)| e.key == key));
            expected = rest;
            // Newest first, as lookups go.
            let mut told: Vec<(usize, IndexRecord)> = Vec::new();
            for (at, source) in sources.iter_mut().enumerate() {
                told.extend(
                    source
                        .next_if(|record| record.key == key)
                        .map(|record| (at, record)),
                );
            }
            self.run
                .count(|counts| counts.index_records += told.len() as u64);
            self.key(&key, run, &told, judge, &opened);
        }
    }

    fn key(
        &mut self,
        key: &Key,
        run: &[Ordered],
        told: &[(usize, IndexRecord)],
        judge: bool,
        opened: &[(SegmentRef, Segment)],
    ) {
        let fold = |entries: &[Ordered]| {
            let entries = entries.iter().map(|(entry, _)| *entry);
            entries.reduce(rebuild::newer)
        };
        let unreadable = |record: &IndexRecord| self.unreadable.contains(&record.block);
        for (_, record) in told.iter().filter(|(_, record)| unreadable(record)) {
            let keys = self.findings.lost.entry(record.block).or_default();
            if keys.last() != Some(key) {
                keys.push(*key);
            }
        }
        let newest = fold(run).or(told.first().map(|(_, record)| *record));
        let has_parts = |record: &IndexRecord| {
            record.flags & format::FLAG_NODE != 0 || record.encoding == format::ENCODING_CHUNKED
        };
        let roots = newest.filter(|r| !r.is_tombstone() && r.is_root() && has_parts(r));
        self.findings.roots.extend(roots);

        let (covered, _) =
            run.split_at(run.partition_point(|(_, at)| (*at as usize) < self.in_segments));
        for (at, record) in told {
            let true_once = covered.iter().any(|(entry, _)| entry == record);
            if !record.is_tombstone() && !true_once && !unreadable(record) {
                let segment = opened.get(*at).map(|(segment, _)| segment);
                self.wrong.add(
                    key,
                    segment,
                    "an entry that no block and no record gives, of key",
                );
                return;
            }
        }
        // Nobody knows which of its keys an unreadable block has.
        if !judge || told.iter().any(|(_, record)| unreadable(record)) {
            return;
        }
        let visible = |record: Option<IndexRecord>| record.filter(|r| !r.is_tombstone());
        let placed = |record: &IndexRecord| record.has_place().then(|| record.revealed());
        let expected = fold(covered);
        let first = told.first().map(|(_, record)| *record);
        let place = told.iter().find_map(|(_, record)| placed(record));
        let segment = told.first().and_then(|(at, _)| opened.get(*at));
        let segment = segment.map(|(segment, _)| segment);
        match (visible(expected), visible(first)) {
            (Some(_), None) => self.wrong.add(key, segment, "no visible entry of key"),
            (None, Some(_)) => self
                .wrong
                .add(key, segment, "a visible entry of the hidden key"),
            (Some(expected), Some(first)) if expected != first => {
                self.wrong.add(key, segment, "not the newest entry of key");
            }
            _ if expected.as_ref().and_then(placed) != place => {
                self.wrong
                    .add(key, segment, "not the place of the hidden key");
            }
            _ => {}
        }
    }
}
