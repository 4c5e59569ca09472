//! `asl store snapshot` and `asl store snapshots`.

use std::io::{self, Write};

use asl_store::WriteOptions;
use asl_store::id::Digest;
use asl_store::state::SnapshotInfo;
use serde::Serialize;

use crate::args::StoreSnapshot;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::Outcome;
use crate::text;
use crate::writable;

/// A snapshot.
#[derive(Debug, Serialize)]
struct Snapshot {
    snapshot_id: String,
    ordinal: u64,
    label: Option<String>,
    log_position: u64,
    time_unix_ns: i64,
    #[serde(skip)]
    digest: Digest,
}

impl From<&SnapshotInfo> for Snapshot {
    fn from(info: &SnapshotInfo) -> Self {
        Self {
            snapshot_id: info.id().to_string(),
            ordinal: info.ordinal,
            label: (!info.label.is_empty()).then(|| info.label.clone()),
            log_position: info.position,
            time_unix_ns: info.time_unix_ns,
            digest: Digest(info.digest),
        }
    }
}

impl Outcome for Snapshot {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let label = self.label.as_deref().unwrap_or_default();
        let line = format!(
            "{:>5}  {}  at {:>7}  {:.16}  {}",
            self.ordinal,
            text::time(self.time_unix_ns),
            self.log_position,
            self.digest.to_string(),
            text::fit(&text::visible(label), 21)
        );
        writeln!(out, "{}", line.trim_end())
    }
}

/// Pins the store as it is now.
pub fn create(face: &Face, args: &StoreSnapshot) -> Result {
    let (path, mut writer) = face.writer(WriteOptions::default())?;
    writable::require("make a snapshot", path, writer.handle())?;
    let label = args.label.as_ref().map_or("", |label| &label.0);
    let id = writer
        .snapshot(label)
        .map_err(|error| CliError::of_store("make a snapshot", path, &error))?;
    let made = writer.handle().with_state(|state| {
        let mut snapshots = state.snapshots.iter();
        snapshots.find(|info| info.id() == id).map(Snapshot::from)
    });
    face.finish(path, writer)?;
    if let Some(made) = made {
        face.report.result(&made)?;
    }
    Ok(Exit::Complete)
}

/// Lists the snapshots, oldest first.
pub fn list(face: &Face) -> Result {
    let (_, store) = face.reader()?;
    let snapshots = store.with_state(|state| state.snapshots.clone());
    let mut list = face.report.list("snapshots", "snapshot")?;
    for info in &snapshots {
        list.item(&Snapshot::from(info))?;
    }
    list.finish()?;
    if snapshots.is_empty() && face.report.is_human() {
        face.report
            .note("there is none yet; make one: asl store snapshot");
    }
    Ok(Exit::Complete)
}
