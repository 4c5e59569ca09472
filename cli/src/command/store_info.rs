//! `asl store info` and `asl store state`.

use std::io::{self, Write};
use std::path::Path;

use asl_store::StoreHandle;
use asl_store::block::OPEN_DIR;
use asl_store::format::{CLASS_LARGE, FORMAT_VERSION};
use asl_store::log::LogEnd;
use serde::Serialize;

use super::store_init::ParamsObject;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::{Outcome, facts};
use crate::text;

/// What `info` tells.
#[derive(Debug, Serialize)]
struct Info {
    store_id: String,
    /// Of this store in this directory, each with a log of its own; the other numbers are of the one named above.
    instances: usize,
    path: String,
    format_version: u16,
    log_position: u64,
    log_end: &'static str,
    snapshots: usize,
    sessions: usize,
    blocks: usize,
    large_blocks: usize,
    block_bytes: u64,
    open_blocks: usize,
    open_block_bytes: u64,
    artifacts: u64,
    artifact_bytes: u64,
    index_segments: usize,
    total_bytes: u64,
    available_bytes: u64,
    read_only: bool,
    params: ParamsObject,
}

impl Info {
    fn of(path: &Path, store: &StoreHandle) -> Result<Self> {
        let failed = |source| CliError::of_io("look at the store", path, &source);
        let stat = store.vfs().statfs().map_err(failed)?;
        let open = store.vfs().list(OPEN_DIR).map_err(failed)?;
        let instances = store.instances().len();
        Ok(store.with_state(|state| {
            let blocks = || state.blocks.values();
            Self {
                store_id: state.store_id().to_string(),
                instances,
                path: path.to_string_lossy().into_owned(),
                format_version: FORMAT_VERSION,
                log_position: state.position().0,
                log_end: match store.log_end() {
                    LogEnd::Clean => "clean",
                    LogEnd::Torn { .. } => "torn",
                    LogEnd::Damaged { .. } => "damaged",
                    LogEnd::Lost { .. } => "lost records",
                },
                snapshots: state.snapshots.len(),
                sessions: state.sessions.len(),
                blocks: state.blocks.len(),
                large_blocks: blocks().filter(|block| block.class == CLASS_LARGE).count(),
                block_bytes: blocks().map(|block| block.file_len).sum(),
                open_blocks: open.len(),
                open_block_bytes: open.iter().map(|entry| entry.metadata.len).sum(),
                artifacts: blocks().map(|block| u64::from(block.artifact_count)).sum(),
                artifact_bytes: blocks().map(|block| block.artifact_bytes).sum(),
                index_segments: state.segments().len(),
                total_bytes: stat.total_bytes,
                available_bytes: stat.available_bytes,
                read_only: stat.read_only,
                params: ParamsObject::from(state.params()),
            }
        }))
    }
}

impl Outcome for Info {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let read_only = if self.read_only {
            ", mounted read-only"
        } else {
            ""
        };
        let mut lines = vec![
            ("store", self.store_id.clone()),
            ("path", text::visible(&self.path).into_owned()),
            (
                "artifacts",
                format!("{}, {}", self.artifacts, text::size(self.artifact_bytes)),
            ),
            (
                "blocks",
                format!(
                    "{}, {}; {} of them large",
                    self.blocks,
                    text::size(self.block_bytes),
                    self.large_blocks,
                ),
            ),
        ];
        if self.instances > 1 {
            let others = text::count(self.instances as u64 - 1, "more instance");
            lines.insert(1, ("beside it", format!("{others}, written elsewhere")));
        }
        if self.open_blocks > 0 {
            lines.push((
                "open blocks",
                format!(
                    "{}, {}: being written, or left by an interruption",
                    self.open_blocks,
                    text::size(self.open_block_bytes)
                ),
            ));
        }
        lines.extend([
            (
                "log",
                format!(
                    "{}, {} end",
                    text::count(self.log_position, "record"),
                    self.log_end
                ),
            ),
            ("captures", format!("{}", self.sessions)),
            ("snapshots", format!("{}", self.snapshots)),
            (
                "index",
                format!(
                    "{} in {}",
                    text::count(self.index_segments as u64, "segment"),
                    text::count(self.params.shards.into(), "shard"),
                ),
            ),
            (
                "space",
                format!(
                    "{} free of {}{read_only}",
                    text::size(self.available_bytes),
                    text::size(self.total_bytes),
                ),
            ),
        ]);
        facts(out, &lines)
    }
}

/// Tells sizes, counts and parameters.
pub fn info(face: &Face) -> Result {
    let (path, store) = face.reader()?;
    face.report.result(&Info::of(path, &store)?)?;
    Ok(Exit::Complete)
}

/// What `state` tells: enough to say whether two stores are the same.
#[derive(Debug, Serialize)]
struct State {
    snapshot_id: Option<String>,
    log_position: u64,
    chain_hash: String,
}

impl Outcome for State {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let snapshot = self.snapshot_id.as_deref().unwrap_or("none");
        writeln!(out, "snapshot\n  {snapshot}")?;
        writeln!(out, "log position  {}", self.log_position)?;
        writeln!(out, "chain hash    {}", self.chain_hash)
    }
}

/// Tells the state's names.
pub fn state(face: &Face) -> Result {
    let (_, store) = face.reader()?;
    let state = store.with_state(|state| State {
        snapshot_id: state.snapshots.last().map(|last| last.id().to_string()),
        log_position: state.position().0,
        chain_hash: state.place().chain.to_string(),
    });
    face.report.result(&state)?;
    Ok(Exit::Complete)
}
