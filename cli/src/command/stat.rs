//! `asl stat`: where and how one artifact is stored.

use std::io::{self, Write};

use asl_store::format::FLAG_NODE;
use asl_store::id::Digest;
use serde::Serialize;

use super::{find_among, in_one, ls};
use crate::args::Stat;
use crate::error::{Exit, Result};
use crate::face::Face;
use crate::report::{Outcome, facts};
use crate::text;

/// An artifact and its place.
#[derive(Debug, Serialize)]
struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    key: String,
    size_bytes: u64,
    stored_bytes: u32,
    encoding: &'static str,
    root: bool,
    node: bool,
    instance: Option<String>,
    block_id: u64,
    block_digest: Option<String>,
    offset_bytes: u32,
}

impl Outcome for Place {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let kind = match (self.root, self.node) {
            (true, false) => "put by itself",
            (true, true) => "the root of a tree",
            (false, true) => "a node of a tree",
            (false, false) => "a part of others",
        };
        let size = text::size(self.size_bytes);
        let stored = text::size(self.stored_bytes.into());
        let place = format!("block {} at byte {}", self.block_id, self.offset_bytes);
        let digest = self.block_digest.as_deref().unwrap_or("unknown");
        if let Some(domain) = &self.domain {
            writeln!(out, "domain  {domain}")?;
        }
        facts(
            out,
            &[
                ("key", self.key.clone()),
                ("size", format!("{size} ({} bytes)", self.size_bytes)),
                ("stored", format!("{stored} as {}", self.encoding)),
                ("kind", kind.to_owned()),
                ("place", place),
                ("block", digest.to_owned()),
            ],
        )
    }
}

/// Tells where one artifact is.
pub fn run(face: &Face, args: &Stat) -> Result {
    let readers = in_one(face, args.at.as_ref())?;
    let (reader, record) = find_among(&readers, &args.key)?;
    let store = &reader.store;
    let digest = store.block(record.block).map(|block| block.digest);
    // An entry that leads to a block has one; what remains is for a damaged index.
    let (instance, block_id) = match store.birthplace(record.block) {
        Some((instance, id)) => (Some(instance.to_string()), id.0),
        None => (None, record.block.0),
    };
    face.report.result(&Place {
        domain: reader.domain_text(),
        key: record.key.to_string(),
        size_bytes: record.raw_len,
        stored_bytes: record.stored_len,
        encoding: ls::encoding(&record),
        root: record.is_root(),
        node: record.flags & FLAG_NODE != 0,
        instance,
        block_id,
        block_digest: digest.map(|digest| Digest(digest).to_string()),
        offset_bytes: record.offset,
    })?;
    Ok(Exit::Complete)
}
