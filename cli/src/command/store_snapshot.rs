//! `asl store snapshot` and `asl store snapshots`.

use std::io::{self, Write};

use asl_bootstrap::mint;
use asl_bootstrap::policy::Event;
use asl_store::id::Digest;
use asl_store::state::SnapshotInfo;
use serde::Serialize;

use super::domain;
use crate::args::StoreSnapshot;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::Outcome;
use crate::text;

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

/// A snapshot that was made now.
#[derive(Debug, Serialize)]
struct Made {
    #[serde(flatten)]
    snapshot: Snapshot,
    /// Records under a signed checkpoint now, where one was made.
    checkpointed_position: Option<u64>,
}

impl Outcome for Made {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        self.snapshot.show(out)?;
        match self.checkpointed_position {
            Some(size) => writeln!(out, "the log is signed up to record {size}"),
            None => Ok(()),
        }
    }
}

/// Pins the store as it is now, and signs the log where the key is at hand.
pub fn create(face: &Face, args: &StoreSnapshot) -> Result {
    let file = args.passphrase_file.as_deref();
    let (path, mut writer, keys) = domain::writer_with_keys(face, "make a snapshot", file)?;
    let label = args.label.as_ref().map_or("", |label| &label.0);
    let id = writer
        .snapshot(label)
        .map_err(|error| CliError::of_store("make a snapshot", path, &error))?;
    let made = writer.handle().with_state(|state| {
        let mut snapshots = state.snapshots.iter();
        snapshots.find(|info| info.id() == id).map(Snapshot::from)
    });
    let signed = match &keys {
        Some(keys) => mint::checkpoint(&mut writer, keys)
            .map(|made| Some(made.size()))
            .map_err(|error| domain::failed("sign the log after the snapshot", path, &error)),
        None => {
            domain::warn_of_checkpoint(face, path, writer.handle(), Event::Snapshot);
            Ok(None)
        }
    };
    drop(keys);
    face.finish(path, writer)?;
    let (checkpointed_position, failed) = match signed {
        Ok(size) => (size, None),
        Err(error) => (None, Some(error)),
    };
    if let Some(snapshot) = made {
        face.report.result(&Made {
            snapshot,
            checkpointed_position,
        })?;
    }
    let Some(error) = failed else {
        return Ok(Exit::Complete);
    };
    // The snapshot itself was made and has been reported.
    face.report.warn(&error.in_one_line());
    face.report
        .note(&format!("to sign later: {}", domain::attest_command(path)));
    Ok(error.exit_code())
}

/// Lists the snapshots, oldest first.
pub fn list(face: &Face) -> Result {
    let (path, store) = face.reader()?;
    let snapshots = store.with_state(|state| state.snapshots.clone());
    let mut list = face.report.list("snapshots", "snapshot")?;
    for info in &snapshots {
        list.item(&Snapshot::from(info))?;
    }
    list.finish()?;
    if snapshots.is_empty() && face.report.is_human() {
        face.report.note(&format!(
            "there is none yet; make one: asl store snapshot --store {}",
            text::shell_path(path)
        ));
    }
    Ok(Exit::Complete)
}
