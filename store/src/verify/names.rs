//! Names in the store's directories that belong to nothing.

use super::Run;
use crate::block;
use crate::id::{BlockId, Digest};
use crate::log::LogName;

/// What filesystems and desktops put into a root directory.
const NOT_OURS: [&str; 3] = ["lost+found", "System Volume Information", "$RECYCLE.BIN"];

/// Notes every name that no page of the format gives.
pub(super) fn check(run: &Run) {
    each(run, "", |name, is_dir| match name {
        "blocks" | "index" | "log" | "snapshots" | "tmp" => is_dir,
        "lock" | "ballast" => !is_dir && run.prefix.is_empty(),
        "instances" | "evidence" => is_dir && run.prefix.is_empty(),
        name => name.starts_with('.') || NOT_OURS.contains(&name),
    });
    each(run, "blocks", |name, is_dir| {
        is_dir && matches!(name, "open" | "sealed")
    });
    // Blocks themselves are told of where they are looked for.
    each(run, block::SEALED_DIR, |name, is_dir| {
        is_dir && is_hex(name, 2)
    });
    each(run, "log", |name, is_dir| {
        !is_dir && (name == "current" || LogName::parse(name).is_some())
    });
    let shards = each(run, "index", |name, is_dir| {
        is_dir
            && name
                .strip_prefix("shard-")
                .is_some_and(|shard| is_hex(shard, 3))
    });
    for shard in shards {
        each(run, &format!("index/{shard}"), |name, is_dir| {
            !is_dir && (name == "bloom.bin" || segment_number(name).is_some())
        });
    }
    let snapshots = each(run, "snapshots", |name, is_dir| {
        let ordinal = name.strip_prefix("snapshot-");
        is_dir && ordinal.is_some_and(|ordinal| ordinal.bytes().all(|c| c.is_ascii_digit()))
    });
    for snapshot in snapshots {
        each(run, &format!("snapshots/{snapshot}"), |name, is_dir| {
            let known = [
                "state.bin",
                "manifest.yaml",
                "pinned-segments.txt",
                "pinned-blocks.txt",
            ];
            !is_dir && known.contains(&name)
        });
    }
}

/// Lists `dir`, notes what is not `ours`, and returns the names that are.
fn each(run: &Run, dir: &str, ours: impl Fn(&str, bool) -> bool) -> Vec<String> {
    let entries = match run.vfs.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            run.damaged(dir, None, format!("cannot be listed: {error}"));
            return Vec::new();
        }
    };
    let (known, unknown): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|entry| ours(&entry.name, entry.metadata.is_dir));
    let slash = if dir.is_empty() { "" } else { "/" };
    for entry in unknown {
        run.note(format!("{dir}{slash}{} is not part of a store", entry.name));
    }
    known.into_iter().map(|entry| entry.name).collect()
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// The number of a segment by its file name.
pub(super) fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("segment-")?.strip_suffix(".idx")?;
    let digits = number.len() >= 4 && number.bytes().all(|c| c.is_ascii_digit());
    digits.then(|| number.parse().ok()).flatten()
}

/// The digest that a sealed block's file name gives, if it lies in its own directory.
pub(super) fn sealed_digest(dir: &str, name: &str) -> Option<Digest> {
    let digest: Digest = name.strip_suffix(".blk")?.parse().ok()?;
    (block::sealed_path(&digest) == format!("{}/{dir}/{name}", block::SEALED_DIR)).then_some(digest)
}

/// The id that an open block's file name gives.
pub(super) fn open_id(name: &str) -> Option<BlockId> {
    let hex = name.strip_prefix("blk_")?.strip_suffix(".tmp")?;
    let id = BlockId(u64::from_str_radix(hex, 16).ok()?);
    (block::open_path(id) == format!("{}/{name}", block::OPEN_DIR)).then_some(id)
}
