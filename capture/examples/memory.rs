//! Peak memory of a capture and of all that is done with it, measured.
//!
//! ```text
//! cargo run --release --example memory -p asl-capture -- unique|chunks [--size MIB] [--threads N]
//!     [--directory DIR] [--store DIR] [--phase NAME]...
//! ```
//!
//! - `unique`: 16 GiB of which no two chunks are equal, every other one incompressible.
//! - `chunks`: ten million chunks of 4 KiB that differ in a few bytes, so that the index and
//!   the manifest are what is large.
//!
//! The source is made up as it is read. One process with the programs' allocator, bounds and
//! threads captures it into a store on disk, opens that, verifies it, exports the image to
//! `/dev/null`, captures the unchanged source again, is interrupted in a third capture, and
//! resumes that. Each phase says on stderr how long it took and the most memory that was resident
//! meanwhile (`VmHWM`, reset in between; see proc(5)). The result is one line of JSON on stdout,
//! `peak_bytes` the greatest of all. The store is made in `/var/tmp` or `--directory` and removed
//! at the end, also after a failure. One that `--store` names stays, so that single phases can be
//! measured on it, each in a process of its own.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use asl_capture::commit::SyncPolicy;
use asl_capture::device::{Geometry, Identity, ReadFailure, Source};
use asl_capture::digests::ExtraDigests;
use asl_capture::disk::{DiskOptions, DiskReport, Observer, Progress, Tuning, capture_disk};
use asl_capture::export::{ExportObserver, ExportOptions, Fill, export_to_file};
use asl_capture::manifest::Manifest;
use asl_capture::pass::PlanOptions;
use asl_capture::reader::{Clock, Control, Limits};
use asl_capture::session;
use asl_store::vfs::real::RealVfs;
use asl_store::{
    Compression, Context, Owner, Params, StoreHandle, StoreWriter, VerifyOptions, WriteOptions,
    create, verify,
};

/// What the programs use: how much memory stays with a process is up to its allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;

const USAGE: &str = "usage: memory unique|chunks [--size MIB] [--threads N] [--directory DIR] [--store DIR] \
                     [--phase NAME]...";

fn main() -> Result {
    let arguments = Arguments::parse()?;
    let scratch = match &arguments.store {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("asl-memory.")
                .tempdir_in(&arguments.directory)?,
        ),
    };
    let store = scratch.as_ref().map(|scratch| scratch.path().to_owned());
    let store = store.or(arguments.store).expect("one of both is there");
    let measured = Bench::new(arguments.source, store, arguments.threads)
        .and_then(|bench| bench.run(&arguments.phases));
    scratch.map_or(Ok(()), tempfile::TempDir::close)?;
    println!("{}", measured?);
    Ok(())
}

struct Arguments {
    source: Synthetic,
    directory: PathBuf,
    store: Option<PathBuf>,
    threads: usize,
    phases: Vec<&'static (&'static str, Work)>,
}

impl Arguments {
    fn parse() -> Result<Self> {
        let mut arguments = std::env::args().skip(1);
        let what = match arguments.next().as_deref() {
            Some("unique") => What::Unique,
            Some("chunks") => What::Chunks,
            _ => return Err(USAGE.into()),
        };
        let mut size_bytes = what.usual_bytes();
        let mut directory = PathBuf::from("/var/tmp");
        let mut store = None;
        let mut threads = threads();
        let mut phases = Vec::new();
        while let Some(option) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match &option[..] {
                "--size" => size_bytes = value.parse::<u64>()? * MIB,
                "--directory" => directory = value.into(),
                "--threads" => threads = value.parse()?,
                "--store" => store = Some(value.into()),
                "--phase" => {
                    let known = PHASES.iter().find(|(name, _)| *name == value);
                    phases.push(known.ok_or("no phase of this name")?);
                }
                _ => return Err(USAGE.into()),
            }
        }
        if phases.is_empty() {
            phases.extend(PHASES);
        }
        Ok(Self {
            source: Synthetic::new(what, size_bytes),
            directory,
            store,
            threads,
            phases,
        })
    }
}

// ---- the source ----

#[derive(Clone, Copy)]
enum What {
    Unique,
    Chunks,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Unique => "unique",
            What::Chunks => "chunks",
        }
    }

    fn usual_bytes(self) -> u64 {
        match self {
            What::Unique => 16 << 30,
            What::Chunks => 10_000_000 * PAGE as u64,
        }
    }

    fn chunk_bytes(self) -> u32 {
        match self {
            What::Unique => 256 << 10,
            What::Chunks => PAGE as u32,
        }
    }
}

/// A disk whose bytes follow from their offsets.
struct Synthetic {
    what: What,
    geometry: Geometry,
    identity: Identity,
}

impl Synthetic {
    fn new(what: What, size_bytes: u64) -> Self {
        let text = |text: &str| Some(text.to_owned());
        Self {
            what,
            geometry: Geometry {
                size_bytes,
                logical_sector_bytes: 512,
                physical_sector_bytes: 4096,
            },
            identity: Identity {
                path: "/dev/synthetic".to_owned(),
                model: text("synthetic"),
                serial: text(what.name()),
                ..Identity::default()
            },
        }
    }
}

impl Source for Synthetic {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::result::Result<(), ReadFailure> {
        assert!(offset.is_multiple_of(PAGE as u64), "reads are aligned");
        for (number, page) in (offset / PAGE as u64..).zip(buf.chunks_mut(PAGE)) {
            match self.what {
                What::Unique => {
                    let chunk = number * PAGE as u64 / u64::from(self.what.chunk_bytes());
                    // Two bits of each byte are left: a quarter of the size.
                    let mask = if chunk.is_multiple_of(2) {
                        !0
                    } else {
                        0x0303_0303_0303_0303
                    };
                    let first = number * (PAGE / 8) as u64;
                    for (at, word) in (first..).zip(page.chunks_mut(8)) {
                        word.copy_from_slice(&(mix(at) & mask).to_le_bytes()[..word.len()]);
                    }
                }
                What::Chunks => {
                    page.fill(b'.');
                    let len = page.len().min(8);
                    page[..len].copy_from_slice(&mix(number).to_le_bytes()[..len]);
                }
            }
        }
        Ok(())
    }
}

/// A number for each number, no two alike (SplitMix64: Steele, Lea, Flood, OOPSLA 2014).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

// ---- what the face gives ----

struct WallClock(Instant);

impl Clock for WallClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed() + Duration::from_secs(1)
    }
    fn unix_ns(&self) -> i64 {
        0
    }
}

/// Asks for a stop once so many bytes were rescued; `None` for never.
struct StopAt {
    bytes: Option<u64>,
    stop: Arc<AtomicBool>,
}

impl Observer for StopAt {
    fn progress(&self, progress: &Progress) {
        if self
            .bytes
            .is_some_and(|bytes| progress.rescued_bytes >= bytes)
        {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn resumed(&self, _: u64) {}
    fn finishing(&self) {}
}

struct Silent;

impl ExportObserver for Silent {
    fn progress(&self, _: u64, _: u64) {}
}

/// Seeds must differ from writer to writer: session ids derive from them.
fn context() -> Context {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_nanos());
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&now.to_le_bytes());
    Context {
        owner: Owner {
            pid: std::process::id(),
            ..Owner::default()
        },
        holder: "the measurement".to_owned(),
        seed,
        home: None,
        now: Arc::new(|| 0),
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().min(8))
}

// ---- the phases ----

type Work = fn(&Bench) -> Result;

/// In the order in which they can be run on an empty store.
const PHASES: &[(&str, Work)] = &[
    ("capture", Bench::capture_first),
    ("open", Bench::open_only),
    ("verify", Bench::verify),
    ("export", Bench::export),
    ("again", Bench::capture_again),
    ("interrupt", Bench::interrupt),
    ("resume", Bench::resume),
];

struct Bench {
    what: What,
    source: Arc<Synthetic>,
    threads: usize,
    store: PathBuf,
    vfs: Arc<RealVfs>,
    phases: Vec<Phase>,
}

struct Phase {
    name: &'static str,
    peak_bytes: u64,
    seconds: f64,
    store_bytes: u64,
}

impl Bench {
    fn new(source: Synthetic, store: PathBuf, threads: usize) -> Result<Self> {
        fs::create_dir_all(&store)?;
        let vfs = Arc::new(RealVfs::open(&store)?);
        if fs::read_dir(&store)?.next().is_none() {
            create(
                &*vfs,
                &Params::default(),
                &context(),
                &WriteOptions::default(),
            )?;
        }
        Ok(Self {
            what: source.what,
            source: Arc::new(source),
            threads,
            store,
            vfs,
            phases: Vec::new(),
        })
    }

    /// The whole measurement; its result as a line of JSON.
    fn run(mut self, phases: &[&'static (&'static str, Work)]) -> Result<String> {
        for (name, work) in phases {
            self.phase(name, *work)?;
        }
        Ok(self.json())
    }

    fn capture_first(&self) -> Result {
        let report = self.capture(false, None)?;
        expect(report.doc.complete, "the capture is complete")
    }

    fn capture_again(&self) -> Result {
        let report = self.capture(false, None)?;
        expect(report.doc.complete, "the second capture is complete")?;
        // Only notes are new: some 80 bytes a chunk.
        let chunks = self.source.geometry.size_bytes / u64::from(self.what.chunk_bytes());
        expect(
            report.doc.new_bytes < chunks * 96 + MIB,
            "nothing was stored twice",
        )
    }

    fn interrupt(&self) -> Result {
        let report = self.capture(false, Some(self.source.geometry.size_bytes / 4 * 3))?;
        expect(!report.doc.complete, "the third capture was interrupted")
    }

    fn resume(&self) -> Result {
        let report = self.capture(true, None)?;
        expect(report.doc.complete, "the resumed capture is complete")
    }

    fn phase(&mut self, name: &'static str, work: Work) -> Result {
        reset_peak()?;
        let began = Instant::now();
        let worked = work(self);
        let phase = Phase {
            name,
            peak_bytes: peak_bytes()?,
            seconds: began.elapsed().as_secs_f64(),
            store_bytes: tree_bytes(&self.store)?,
        };
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        eprintln!(
            "{name:>14}: peak {:4.0} MiB, {:6.1} s, store {:6.0} MiB",
            mib(phase.peak_bytes),
            phase.seconds,
            mib(phase.store_bytes)
        );
        self.phases.push(phase);
        worked
    }

    fn open_only(&self) -> Result {
        self.open().map(drop)
    }

    fn open(&self) -> Result<StoreHandle> {
        let store = StoreHandle::open(self.vfs.clone())?;
        expect(store.problems().is_empty(), "the index is whole")?;
        Ok(store)
    }

    fn capture(&self, resume: bool, stop_at: Option<u64>) -> Result<DiskReport> {
        let writer = StoreWriter::open(self.vfs.clone(), context(), WriteOptions::default())?;
        let (identity, geometry) = (&self.source.identity, self.source.geometry);
        let unfinished = session::unfinished_of(writer.handle(), identity, &geometry)?;
        expect(
            unfinished.len() == usize::from(resume),
            "one to resume, or none",
        )?;
        let options = DiskOptions {
            label: None,
            compression: Compression::Auto,
            chunk_bytes: self.what.chunk_bytes(),
            threads: self.threads,
            plan: PlanOptions::new(geometry.physical_sector_bytes),
            limits: Limits::default(),
            read_timeout: None,
            sync: SyncPolicy {
                bytes: 32 << 20,
                interval: Duration::from_secs(1),
            },
            digests: ExtraDigests::default(),
            tool: "memory".to_owned(),
            tuning: Tuning::default(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let observer = StopAt {
            bytes: stop_at,
            stop: stop.clone(),
        };
        Ok(capture_disk(
            self.source.clone(),
            writer,
            unfinished.first(),
            &options,
            Arc::new(WallClock(Instant::now())),
            Arc::new(Control::with_flag(stop)),
            &observer,
        )?)
    }

    fn verify(&self) -> Result {
        let options = VerifyOptions {
            threads: self.threads,
            ..VerifyOptions::default()
        };
        let report = verify(self.vfs.clone(), &options, &())?;
        let found: Vec<_> = report.damage.iter().map(|damage| &damage.what).collect();
        expect(report.ok(), &format!("no damage: {found:?}"))
    }

    fn export(&self) -> Result {
        let store = self.open()?;
        let captures = session::list(&store)?;
        let root = captures.first().and_then(|capture| capture.root);
        let manifest = Manifest::open(&store, &root.ok_or("no capture")?)?;
        let size = self.source.geometry.size_bytes;
        let options = ExportOptions {
            fill: Fill::Zero,
            sparse: false,
            range: 0..size,
            threads: self.threads,
        };
        let sink = OpenOptions::new().write(true).open("/dev/null")?;
        let report = export_to_file(&store, &manifest, &sink, &options, &Silent)?;
        expect(
            report.bytes == size && report.damaged.is_empty(),
            "all of the image",
        )
    }

    fn json(&self) -> String {
        let phases = self.phases.iter().map(|phase| {
            serde_json::json!({
                "name": phase.name,
                "peak_bytes": phase.peak_bytes,
                "seconds": (phase.seconds * 10.0).round() / 10.0,
                "store_bytes": phase.store_bytes,
            })
        });
        serde_json::json!({
            "what": self.what.name(),
            "source_bytes": self.source.geometry.size_bytes,
            "peak_bytes": self.phases.iter().map(|phase| phase.peak_bytes).max(),
            "phases": phases.collect::<Vec<_>>(),
        })
        .to_string()
    }
}

/// A measurement of something that went wrong would be worth nothing.
fn expect(holds: bool, what: &str) -> Result {
    match holds {
        true => Ok(()),
        false => Err(format!("expected: {what}").into()),
    }
}

/// Peak of this process's resident memory since it was last reset.
fn peak_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no VmHWM")?.parse::<u64>()? << 10)
}

/// Begins a new peak at what is resident now.
fn reset_peak() -> Result {
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}

/// Bytes of all files of a store, its ballast left out.
fn tree_bytes(path: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += match metadata.is_dir() {
            true => tree_bytes(&entry.path())?,
            false if entry.file_name() == "ballast" => 0,
            false => metadata.len(),
        };
    }
    Ok(sum)
}
