//! What is reachable from visible roots: children of tree nodes are stored, parts of
//! chunk lists add up to the whole that its key names.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Mutex;

use super::{Damage, Run, describe, lock};
use crate::error::Error;
use crate::format;
use crate::frame;
use crate::id::Key;
use crate::segment::IndexRecord;
use crate::store::StoreHandle;

/// Follows `roots`, and the roots of sessions, to everything below them.
pub(super) fn check(run: &Run, handle: &StoreHandle, roots: Vec<IndexRecord>) {
    let walk = Walk {
        run,
        handle,
        seen: Mutex::default(),
        lists: Mutex::default(),
    };
    let mut frontier = Vec::new();
    walk.meet_all(roots, &mut frontier);
    let sessions: Vec<Key> = handle.with_state(|state| {
        let roots = state
            .sessions
            .iter()
            .filter_map(|session| session.root_key());
        roots.collect()
    });
    for root in sessions {
        // A session that was forgotten has a hidden root; it is nobody's any more.
        if let Ok(Some(record)) = handle.lookup(&root) {
            walk.meet_all(vec![record], &mut frontier);
        }
    }
    for _ in 0..=format::TREE_DEPTH_MAX {
        if frontier.is_empty() {
            break;
        }
        let below = Mutex::new(Vec::new());
        run.spread(&frontier, |_, record| {
            let mut met = Vec::new();
            walk.follow(record, &mut met);
            lock(&below).append(&mut met);
        });
        frontier = below.into_inner().unwrap_or_default();
    }
    for record in &frontier {
        walk.complain(record, "tree nodes nested too deeply", Vec::new());
    }
    let lists = walk.lists.into_inner().unwrap_or_default();
    run.expect(lists.iter().map(|record| record.raw_len).sum());
    run.spread(&lists, |_, record| {
        run.count(|counts| counts.trees += 1);
        Whole { run, handle }.check(record);
    });
}

struct Walk<'a> {
    run: &'a Run<'a>,
    handle: &'a StoreHandle,
    /// Nodes and chunk lists: few beside their parts.
    seen: Mutex<HashSet<Key>>,
    lists: Mutex<Vec<IndexRecord>>,
}

fn complain(run: &Run, handle: &StoreHandle, record: &IndexRecord, what: String, keys: Vec<Key>) {
    run.report_at(Damage {
        file: handle.path_of(record.block),
        offset: Some(u64::from(record.offset)),
        what,
        cache: false,
        keys,
    });
}

impl Walk<'_> {
    fn complain(&self, record: &IndexRecord, what: &str, keys: Vec<Key>) {
        complain(self.run, self.handle, record, what.to_owned(), keys);
    }

    /// Takes down what has parts and was not met before.
    fn meet_all(&self, records: Vec<IndexRecord>, frontier: &mut Vec<IndexRecord>) {
        for record in records {
            let node = record.flags & format::FLAG_NODE != 0;
            let list = record.encoding == format::ENCODING_CHUNKED;
            if (node || list) && lock(&self.seen).insert(record.key) {
                if list {
                    lock(&self.lists).push(record);
                }
                if node {
                    frontier.push(record);
                }
            }
        }
    }

    /// Looks whether the children of a node are stored.
    fn follow(&self, node: &IndexRecord, frontier: &mut Vec<IndexRecord>) {
        self.run.count(|counts| counts.trees += 1);
        // Whatever keeps it from being read was told of with its block.
        let Ok(raw) = self.handle.get_node(&node.key) else {
            return;
        };
        let Ok((_, children, _)) = frame::parse_node(&raw) else {
            return;
        };
        let mut missing = Vec::new();
        for child in children {
            match self.handle.lookup_part(&child) {
                Ok(Some(record)) => self.meet_all(vec![record], frontier),
                Ok(None) => missing.push(child),
                // A page of the index is damaged, which was told of too.
                Err(_) => {}
            }
        }
        if let Some(first) = missing.first() {
            let what = match missing.len() {
                1 => format!(
                    "tree node {} has a child that is not stored, {first}",
                    node.key
                ),
                count => format!(
                    "tree node {} has {count} children that are not stored, {first} first",
                    node.key
                ),
            };
            self.complain(node, &what, missing);
        }
    }
}

/// Puts a chunked artifact together and hashes it.
struct Whole<'a> {
    run: &'a Run<'a>,
    handle: &'a StoreHandle,
}

impl Whole<'_> {
    fn check(&self, record: &IndexRecord) {
        let mut sink = Sink {
            run: self.run,
            len: 0,
        };
        let Err(error) = self.handle.copy_record(record, &mut sink, 0) else {
            return;
        };
        self.run.skip(record.raw_len.saturating_sub(sink.len));
        let what = match &error {
            Error::NotFound(part) => format!("a part of it is not stored, {part}"),
            Error::Damaged { path, offset, what } => format!("{path} at byte {offset}: {what}"),
            error => describe(error).1,
        };
        let what = format!("artifact {} is not whole: {what}", record.key);
        complain(self.run, self.handle, record, what, vec![record.key]);
    }
}

/// Counts and forgets.
struct Sink<'a> {
    run: &'a Run<'a>,
    len: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.len += bytes.len() as u64;
        self.run.advance(bytes.len() as u64);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
