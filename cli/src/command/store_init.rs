//! `asl store init`: any mounted path becomes a store.
//!
//! Crash: before the first log record there is no store, and the same command
//! makes one. After it there is one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use asl_capture::inventory::SystemPaths;
use asl_store::vfs::real::RealVfs;
use asl_store::{Error as StoreError, Params, WriteOptions};
use serde::Serialize;

use crate::args::StoreInit;
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, context_at};
use crate::probe::{self, Allowed, Destination};
use crate::report::{Outcome, facts};
use crate::text;

/// A fresh store.
#[derive(Debug, Serialize)]
pub(super) struct Created {
    store_id: String,
    path: String,
    #[serde(flatten)]
    destination: Destination,
    params: ParamsObject,
    warnings: Vec<String>,
    #[serde(skip)]
    next: String,
}

/// A store's parameters.
#[derive(Debug, Serialize)]
pub(super) struct ParamsObject {
    pub(super) shards: u32,
    block_size_bytes: u64,
    large_size_bytes: u64,
    small_threshold_bytes: u64,
    max_packed: u32,
}

impl From<&Params> for ParamsObject {
    fn from(params: &Params) -> Self {
        Self {
            shards: params.shards,
            block_size_bytes: params.block_size,
            large_size_bytes: params.large_size,
            small_threshold_bytes: params.small_threshold,
            max_packed: params.packed_max,
        }
    }
}

impl Outcome for Created {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "made a store at {}", text::visible(&self.path))?;
        facts(out, &self.destination.facts())?;
        writeln!(out, "next: {}", self.next)
    }
}

/// Makes the store, and tells about it.
pub fn run(face: &Face, args: &StoreInit) -> Result {
    face.report.result(&make(face, args)?)?;
    Ok(Exit::Complete)
}

/// Makes the store; warnings are told.
pub(super) fn make(face: &Face, args: &StoreInit) -> Result<Created> {
    let params = params(args);
    let refused = |error: &StoreError| {
        let action = format!("make a store at {}", text::path(&args.path));
        CliError::of_store(&action, &args.path, error)
    };
    params.validate().map_err(|error| refused(&error))?;
    let system = SystemPaths::default();
    let allowed = Allowed {
        ephemeral: args.ephemeral,
        unmounted: args.unmounted_ok,
    };
    // A store that is there already is the most useful thing to hear of.
    if args.path.is_dir() {
        let vfs = RealVfs::open(&args.path)
            .map_err(|error| CliError::of_io("open the directory", &args.path, &error))?;
        asl_store::check_vacant(&vfs).map_err(|error| refused(&error))?;
    }
    let destination = probe::survey(&system, &args.path, allowed)?;
    let made = MadeDirs::before(&args.path);
    let store = || {
        let vfs = RealVfs::create(&args.path)
            .map_err(|error| CliError::of_io("make the directory", &args.path, &error))?;
        let tried = probe::try_out(&vfs, &args.path, destination);
        let destination = tried.inspect_err(|_| probe::remove_scratch(&vfs))?;
        let options = WriteOptions::default();
        let store_id = asl_store::create(&vfs, &params, &context_at(&args.path)?, &options)
            .map_err(|error| refused(&error))?;
        Ok((store_id, destination))
    };
    let (store_id, destination) = store().inspect_err(|_: &CliError| made.remove())?;
    let warnings = destination.warnings();
    for warning in &warnings {
        face.report.warn(warning);
    }
    let place = text::shell_path(&args.path);
    Ok(Created {
        store_id: store_id.to_string(),
        path: args.path.to_string_lossy().into_owned(),
        warnings,
        params: ParamsObject::from(&params),
        next: format!("asl-capture disk /dev/DISK --store {place}"),
        destination,
    })
}

fn params(args: &StoreInit) -> Params {
    let standard = Params::default();
    let small_threshold = args
        .small_threshold
        .map_or(standard.small_threshold, |size| size.0);
    Params {
        shards: args.shards.unwrap_or(standard.shards),
        block_size: args.block_size.map_or(standard.block_size, |size| size.0),
        large_size: standard.large_size.max(small_threshold),
        small_threshold,
        packed_max: args.max_packed.unwrap_or(standard.packed_max),
    }
}

/// Directories that `init` is about to make, to take back if it fails.
pub(super) struct MadeDirs(Vec<PathBuf>);

impl MadeDirs {
    /// What is missing of `path` now.
    pub(super) fn before(path: &Path) -> Self {
        let path = Path::new(".").join(path);
        let inside = [path.join("tmp/scratch"), path.join("tmp")];
        let above = path.ancestors().map(Path::to_path_buf);
        let missing = inside.into_iter().chain(above);
        Self(missing.take_while(|dir| !dir.exists()).collect())
    }

    /// Takes back what is empty.
    pub(super) fn remove(&self) {
        for dir in &self.0 {
            // One that is not empty stays: it holds something that is not ours.
            let _ = std::fs::remove_dir(dir);
        }
    }
}
