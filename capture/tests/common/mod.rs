//! A store on the fault file system and a simulated disk, with a clock that is
//! the disk's own.
#![allow(dead_code)]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use asl_capture::commit::SyncPolicy;
use asl_capture::device::fault::{FaultDevice, VirtualClock};
use asl_capture::digests::ExtraDigests;
use asl_capture::disk::{DiskOptions, DiskReport, Observer, Progress, Tuning, capture_disk};
use asl_capture::manifest::{CaptureDoc, Content, Manifest};
use asl_capture::map::{RangeState, RescueMap, StateKind};
use asl_capture::pass::PlanOptions;
use asl_capture::reader::{Clock, Control, Limits};
use asl_capture::session::{self, Capture};
use asl_store::vfs::fault::FaultVfs;
use asl_store::{
    Compression, Context, Key, Params, StoreHandle, StoreWriter, WriteOptions, create,
};

/// Time that passes by itself, a millisecond a look.
#[derive(Default)]
pub struct TickingClock(AtomicU64);

impl Clock for TickingClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn unix_ns(&self) -> i64 {
        1_700_000_000_000_000_000
    }
}

/// The time of a simulated disk, and the time in which threads wait for each other.
pub struct DiskClock(pub Arc<VirtualClock>);

impl Clock for DiskClock {
    fn monotonic(&self) -> Duration {
        self.0.now()
    }
    fn unix_ns(&self) -> i64 {
        1_700_000_000_000_000_000
    }
}

/// Real time.
pub struct WallClock(pub Instant);

impl Clock for WallClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
    fn unix_ns(&self) -> i64 {
        1_700_000_000_000_000_000
    }
}

/// Runs `work` and fails if that takes longer than a minute: for what might hang.
pub fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let done = work();
        let _ = send.send(());
        done
    });
    match receive.recv_timeout(Duration::from_secs(60)) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        // Done, or it panicked: then so does the join.
        _ => thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

pub struct Silent;

impl Observer for Silent {
    fn progress(&self, _: &Progress) {}
    fn resumed(&self, _: u64) {}
    fn finishing(&self) {}
}

/// Remembers what a capture said is durable, over all its runs.
#[derive(Default)]
pub struct Ledger {
    known: Mutex<Option<RescueMap>>,
    /// What the run under way found; never less than what was known to be durable.
    found: AtomicU64,
    pub lost: Mutex<Vec<String>>,
}

impl Observer for Ledger {
    fn progress(&self, progress: &Progress) {
        let found = self.found.load(Ordering::Relaxed);
        assert_eq!(progress.durable_bytes, self.durable_bytes().max(found));
    }
    fn resumed(&self, rescued_bytes: u64) {
        self.found.store(rescued_bytes, Ordering::Relaxed);
    }
    fn finishing(&self) {}
    fn synced(&self, map: &RescueMap) {
        let mut known = self.known.lock().unwrap();
        if let Some(before) = &*known {
            for run in before.runs_of(StateKind::Copied) {
                let now = map.run_at(run.start).unwrap();
                assert!(
                    now.state == RangeState::Copied && now.end() >= run.end(),
                    "{run:?} was durable before"
                );
            }
        }
        *known = Some(map.clone());
    }
    fn notes_lost(&self, what: &str) {
        self.lost.lock().unwrap().push(what.to_owned());
    }
}

impl Clone for Ledger {
    fn clone(&self) -> Self {
        Self {
            known: Mutex::new(self.known.lock().unwrap().clone()),
            found: AtomicU64::new(0),
            lost: Mutex::new(self.lost.lock().unwrap().clone()),
        }
    }
}

impl Ledger {
    /// Bytes of the source that were said to be safe.
    pub fn durable_bytes(&self) -> u64 {
        let known = self.known.lock().unwrap();
        known.as_ref().map_or(0, RescueMap::copied_bytes)
    }

    /// Bytes that no later run may read: copied, or known to be bad.
    pub fn settled(&self) -> Vec<Range<u64>> {
        let known = self.known.lock().unwrap();
        let runs = known.iter().flat_map(|map| map.runs());
        let settled = runs
            .filter(|run| matches!(run.state.kind(), StateKind::Copied | StateKind::Unreadable));
        settled.map(|run| run.range()).collect()
    }

    /// Asserts that no read of `disk` since `mark` touched what was durable then.
    pub fn assert_not_read_again(settled: &[Range<u64>], disk: &FaultDevice, mark: usize) {
        for read in &disk.log()[mark..] {
            let at = settled.partition_point(|range| range.end <= read.offset);
            assert!(
                settled
                    .get(at)
                    .is_none_or(|range| range.start >= read.offset + read.len),
                "{read:?} touches {:?}, which was durable",
                settled[at]
            );
        }
    }
}

pub fn context(seed: u8) -> Context {
    Context {
        owner: asl_store::Owner {
            boot_id: [3; 16],
            pid: 7,
            start_time: 9,
        },
        holder: "the test".into(),
        seed: [seed; 32],
        home: None,
        now: Arc::new(|| 1_700_000_000_000_000_000),
    }
}

#[allow(clippy::needless_update, reason = "the store may get further bounds")]
pub fn write_options() -> WriteOptions {
    WriteOptions {
        ballast_bytes: 64 << 10,
        flush_entries: 100,
        flush_blocks: 16,
        ..WriteOptions::default()
    }
}

pub fn fresh() -> FaultVfs {
    fresh_with(256 << 10, 128 << 10)
}

/// A store with blocks of this size and this small threshold, in bytes.
pub fn fresh_with(block_size: u64, small_threshold: u64) -> FaultVfs {
    let vfs = FaultVfs::new();
    let params = Params {
        shards: 4,
        block_size,
        large_size: block_size.max(small_threshold),
        small_threshold,
        packed_max: 4096,
    };
    create(&vfs, &params, &context(1), &write_options()).unwrap();
    vfs
}

/// Whether the long sweeps were asked for.
pub fn all() -> bool {
    std::env::var_os("ASL_TEST_ALL").is_some()
}

pub fn writer(vfs: &FaultVfs, seed: u8) -> asl_store::Result<StoreWriter> {
    StoreWriter::open(Arc::new(vfs.clone()), context(seed), write_options())
}

pub fn reader(vfs: &FaultVfs) -> StoreHandle {
    StoreHandle::open(Arc::new(vfs.clone())).unwrap()
}

pub fn disk_options() -> DiskOptions {
    DiskOptions {
        label: None,
        compression: Compression::Auto,
        chunk_bytes: 4096,
        threads: 0,
        plan: PlanOptions {
            cluster_bytes: 64 << 10,
            piece_bytes: 4096,
            ..PlanOptions::new(512)
        },
        limits: Limits::default(),
        read_timeout: None,
        sync: SyncPolicy {
            bytes: 64 << 10,
            interval: Duration::from_secs(1),
        },
        digests: ExtraDigests::default(),
        tool: "test 0".into(),
        tuning: Tuning::default(),
    }
}

/// One run over `disk`, from the newest unfinished capture of it or anew.
pub fn run(
    vfs: &FaultVfs,
    disk: &FaultDevice,
    seed: u8,
    options: &DiskOptions,
) -> asl_capture::Result<DiskReport> {
    watched_run(writer(vfs, seed)?, disk, options, &Silent)
}

/// [`run`] with an observer.
pub fn watched_run(
    writer: StoreWriter,
    disk: &FaultDevice,
    options: &DiskOptions,
    observer: &dyn Observer,
) -> asl_capture::Result<DiskReport> {
    let clock = Arc::new(TickingClock::default());
    run_with(writer, disk, options, observer, clock, Arc::default())
}

/// [`run`] with everything.
pub fn run_with(
    writer: StoreWriter,
    disk: &FaultDevice,
    options: &DiskOptions,
    observer: &dyn Observer,
    clock: Arc<dyn Clock>,
    control: Arc<Control>,
) -> asl_capture::Result<DiskReport> {
    let source = Arc::new(disk.reopened("/dev/test"));
    let resume = unfinished(writer.handle(), disk);
    capture_disk(
        source,
        writer,
        resume.as_ref(),
        options,
        clock,
        control,
        observer,
    )
}

pub fn unfinished(store: &StoreHandle, disk: &FaultDevice) -> Option<Capture> {
    use asl_capture::device::Source;
    session::unfinished_of(store, disk.identity(), &disk.geometry())
        .unwrap()
        .into_iter()
        .next()
}

/// What a perfect disk would hold.
pub fn content(disk: &FaultDevice) -> Vec<u8> {
    use asl_capture::device::Source;
    let mut bytes = vec![0; disk.geometry().size_bytes as usize];
    disk.content(0, &mut bytes);
    bytes
}

/// Reads a capture back: the image with `0xEE` where nothing is, and the
/// unreadable and untried ranges, merged.
pub struct Image {
    pub bytes: Vec<u8>,
    pub unreadable: Vec<(u64, u64, i32)>,
    pub untried: Vec<(u64, u64)>,
}

pub fn image(store: &StoreHandle, root: &Key) -> Image {
    let manifest = Manifest::open(store, root).unwrap();
    let size = manifest.doc.source.size_bytes;
    let mut image = Image {
        bytes: vec![0xEE; size as usize],
        unreadable: Vec::new(),
        untried: Vec::new(),
    };
    let mut end = 0;
    manifest
        .walk(store, 0..size, &mut |extent| {
            assert_eq!(extent.offset, end, "extents cover the image");
            end += extent.len;
            let range = extent.offset as usize..end as usize;
            match extent.content {
                Content::Zero => image.bytes[range].fill(0),
                Content::Data(key) => image.bytes[range].copy_from_slice(&store.get_part(&key)?),
                Content::Unreadable(errno) => match image.unreadable.last_mut() {
                    Some((start, len, last))
                        if *start + *len == extent.offset && *last == errno =>
                    {
                        *len += extent.len
                    }
                    _ => image.unreadable.push((extent.offset, extent.len, errno)),
                },
                Content::Untried => match image.untried.last_mut() {
                    Some((start, len)) if *start + *len == extent.offset => *len += extent.len,
                    _ => image.untried.push((extent.offset, extent.len)),
                },
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(end, size);
    image
}

/// Asserts that a finished capture holds exactly what the disk gives.
pub fn assert_captured(store: &StoreHandle, report: &DiskReport, disk: &FaultDevice) {
    let root = report.root.expect("a finished capture has a root");
    assert_image(store, &root, &report.doc, disk);
}

/// Asserts that the manifest of `root` is finished and holds exactly what the disk gives.
pub fn assert_image(store: &StoreHandle, root: &Key, doc: &CaptureDoc, disk: &FaultDevice) {
    let image = image(store, root);
    let mut expected = content(disk);
    let sector = u64::from(doc.source.logical_sector_bytes);
    let size = doc.source.size_bytes;
    let bad: Vec<(u64, u64)> = disk
        .bad_sectors()
        .iter()
        .map(|r| {
            (
                r.start * sector,
                (r.end * sector).min(size) - r.start * sector,
            )
        })
        .collect();
    for (start, len) in &bad {
        expected[*start as usize..(*start + *len) as usize].fill(0xEE);
    }
    assert!(image.untried.is_empty(), "untried: {:?}", image.untried);
    let got: Vec<(u64, u64)> = image
        .unreadable
        .iter()
        .map(|(start, len, _)| (*start, *len))
        .collect();
    assert_eq!(got, bad);
    assert!(
        image.bytes == expected,
        "first difference at {:?}",
        image.bytes.iter().zip(&expected).position(|(a, b)| a != b)
    );
    for (start, len) in &bad {
        expected[*start as usize..(*start + *len) as usize].fill(0);
    }
    assert_eq!(
        doc.image_blake3.as_deref(),
        Some(blake3::hash(&expected).to_hex().as_str())
    );
}
