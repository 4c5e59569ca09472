//! What a snapshot looks like to people: renderings of its log record and state.
//!
//! They are written once, never parsed, and `verify` renders them again and
//! compares. The truth is the record in the log.

use std::fmt::Write;

use crate::id::{BlockId, Digest};
use crate::segment::segment_path;
use crate::state::{SnapshotInfo, State};

/// Text between quotes, safe in YAML and on a terminal.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes everything")
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// File names and texts of a snapshot's renderings, from the state that holds it
/// (at its own record or later).
pub fn render(state: &State, info: &SnapshotInfo) -> [(&'static str, String); 3] {
    let pinned = |position: u64| position < info.position;
    let blocks: Vec<_> = state
        .blocks
        .iter()
        .filter(|(_, block)| pinned(block.position))
        .collect();
    let mut manifest = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(manifest, "{name}: {value}").expect("a String takes everything")
    };
    line("snapshot", info.id().to_string());
    line("store", state.store_id().to_string());
    line("label", quoted(&info.label));
    line("log_position", info.position.to_string());
    line("state_blake3", Digest(info.state_digest).to_string());
    line("time_unix_ns", info.time_unix_ns.to_string());
    line("blocks", blocks.len().to_string());
    line(
        "block_bytes",
        blocks
            .iter()
            .map(|(_, block)| block.file_len)
            .sum::<u64>()
            .to_string(),
    );
    line(
        "artifact_bytes",
        blocks
            .iter()
            .map(|(_, block)| block.artifact_bytes)
            .sum::<u64>()
            .to_string(),
    );
    line("segments", info.segments.len().to_string());
    let segments = info
        .segments
        .iter()
        .fold(String::new(), |mut text, (shard, number)| {
            writeln!(text, "{}", segment_path(*shard, *number)).expect("a String takes everything");
            text
        });
    let blocks = blocks.iter().fold(String::new(), |mut text, (id, block)| {
        let (id, digest) = (BlockId(**id), Digest(block.digest));
        writeln!(text, "{id} {digest} {}", block.file_len).expect("a String takes everything");
        text
    });
    [
        ("manifest.yaml", manifest),
        ("pinned-segments.txt", segments),
        ("pinned-blocks.txt", blocks),
    ]
}
