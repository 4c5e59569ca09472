//! Everything that an artifact refers to, by the one structure that stores know: tree nodes name their children.
//!
//! Memory grows with the nodes, not with what hangs on them; nothing is followed twice, and not deeper than nodes nest.
//!
//! Nothing is written; a crash leaves nothing.

use std::collections::HashSet;

use asl_store::frame::parse_node;
use asl_store::segment::IndexRecord;
use asl_store::{Key, StoreHandle, format};

use crate::error::Result;

/// Goes through what hangs on roots.
#[derive(Default)]
pub(super) struct Closure {
    nodes: HashSet<Key>,
}

impl Closure {
    /// Calls `each` for `root` and everything below it, with its entry or none where it is not stored. Nodes that were met before
    /// are left out.
    pub(super) fn walk(
        &mut self,
        store: &StoreHandle,
        root: Key,
        each: &mut dyn FnMut(&Key, Option<&IndexRecord>),
    ) -> Result<()> {
        let mut level = vec![root];
        let mut first = true;
        for _ in 0..=format::TREE_DEPTH_MAX {
            let mut below = Vec::new();
            for node in std::mem::take(&mut level) {
                let children = match first {
                    true => vec![node],
                    false => match self.children(store, &node) {
                        Some(children) => children,
                        None => {
                            each(&node, None);
                            continue;
                        }
                    },
                };
                for child in children {
                    let record = store.lookup_part(&child)?;
                    each(&child, record.as_ref());
                    let is_node =
                        record.is_some_and(|record| record.flags & format::FLAG_NODE != 0);
                    if is_node && self.nodes.insert(child) {
                        below.push(child);
                    }
                }
            }
            first = false;
            level = below;
            if level.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// `None` where the node cannot be read: what hangs on it is lost.
    fn children(&self, store: &StoreHandle, node: &Key) -> Option<Vec<Key>> {
        let raw = store.get_node(node).ok()?;
        let (_, children, _) = parse_node(&raw).ok()?;
        Some(children)
    }
}
