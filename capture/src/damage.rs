//! Which captures, and where in them, damaged artifacts are missed.
//!
//! A damaged block names its artifacts; what they were part of is found from the
//! other end, by walking each capture's manifest. A node that cannot be read
//! hits all that it covers.

use std::collections::HashMap;
use std::ops::Range;

use asl_store::{Key, SessionId, StoreHandle};

use crate::error::Result;
use crate::manifest::{
    CaptureDoc, ChildFlags, Content, FAN_OUT, Slot, decode_inner, decode_leaf, leaf_span,
};
use crate::session;

/// A range of a capture's image that cannot be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Which damage; as numbered by the caller.
    pub damage: usize,
    /// The capture.
    pub capture: SessionId,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// Where the artifacts of `damaged` are used; the values number the damage. Artifacts of which
/// the store knows nothing any more are put down to the damage `unnamed`: a block that lost
/// its contents, names and all. Hits are merged, by capture and then by place.
pub fn hits(
    store: &StoreHandle,
    damaged: &HashMap<Key, usize>,
    unnamed: Option<usize>,
) -> Result<Vec<Hit>> {
    if damaged.is_empty() && unnamed.is_none() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for capture in session::list(store)? {
        let Some(root) = capture.root else { continue };
        let mut walk = Walk {
            store,
            damaged,
            unnamed,
            capture: capture.session,
            chunk_bytes: capture.begun.chunk_bytes,
            hits: Vec::new(),
        };
        let image = 0..capture.begun.source.size_bytes;
        match walk.damage_of(&root) {
            Some(damage) => walk.hit(damage, image),
            None => {
                // What is not damaged and cannot be read is gone for a reason that is
                // listed with the file that is missing.
                if let Ok(raw) = store.get(&root)
                    && let Ok((doc, top)) = CaptureDoc::decode(&raw)
                {
                    walk.node(&top, doc.levels, image);
                }
            }
        }
        all.append(&mut walk.hits);
    }
    Ok(all)
}

struct Walk<'a> {
    store: &'a StoreHandle,
    damaged: &'a HashMap<Key, usize>,
    unnamed: Option<usize>,
    capture: SessionId,
    chunk_bytes: u32,
    hits: Vec<Hit>,
}

impl Walk<'_> {
    fn hit(&mut self, damage: usize, range: Range<u64>) {
        match self.hits.last_mut() {
            Some(last) if last.damage == damage && last.start + last.len == range.start => {
                last.len += range.end - range.start;
            }
            _ => self.hits.push(Hit {
                damage,
                capture: self.capture,
                start: range.start,
                len: range.end - range.start,
            }),
        }
    }

    fn damage_of(&self, key: &Key) -> Option<usize> {
        let missing = || {
            let unnamed = self.unnamed?;
            matches!(self.store.lookup_part(key), Ok(None)).then_some(unnamed)
        };
        self.damaged.get(key).copied().or_else(missing)
    }

    fn node(&mut self, key: &Key, level: u32, image: Range<u64>) {
        if let Some(damage) = self.damage_of(key) {
            return self.hit(damage, image);
        }
        let Ok(raw) = self.store.get_part(key) else {
            return;
        };
        let len = image.end - image.start;
        if level == 0 {
            let slots = decode_leaf(&raw, self.chunk_bytes, len).unwrap_or_default();
            for (at, slot) in (0..).zip(&slots) {
                self.slot(
                    slot,
                    image.start + at * u64::from(self.chunk_bytes),
                    image.end,
                );
            }
            return;
        }
        let span = leaf_span(self.chunk_bytes) * FAN_OUT.pow(level - 1);
        let children = decode_inner(&raw, level, span, len).unwrap_or_default();
        for (at, (key, flags)) in (0..).zip(&children) {
            let start = image.start + at * span;
            if !flags.has(ChildFlags::ALL_ZERO) {
                self.node(key, level - 1, start..(start + span).min(image.end));
            }
        }
    }

    fn slot(&mut self, slot: &Slot, start: u64, end: u64) {
        match slot {
            Slot::Zero => {}
            Slot::Whole(key) => {
                if let Some(damage) = self.damage_of(key) {
                    let chunk_end = (start + u64::from(self.chunk_bytes)).min(end);
                    self.hit(damage, start..chunk_end);
                }
            }
            Slot::Fragments(fragments) => {
                for fragment in fragments {
                    if let Content::Data(key) = fragment.content
                        && let Some(damage) = self.damage_of(&key)
                    {
                        let from = start + u64::from(fragment.offset);
                        self.hit(damage, from..from + u64::from(fragment.len));
                    }
                }
            }
        }
    }
}
