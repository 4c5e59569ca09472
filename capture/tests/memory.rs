//! Memory does not grow with what is captured. At full size `examples/memory.rs` measures it.

mod common;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use asl_capture::commit::SyncPolicy;
use asl_capture::device::{Geometry, Identity, ReadFailure, Source};
use asl_capture::disk::{DiskOptions, capture_disk};
use asl_capture::export::{ExportObserver, ExportOptions, Fill, export_to_stream};
use asl_capture::manifest::Manifest;
use asl_capture::session;
use asl_store::vfs::real::RealVfs;
use asl_store::{
    Error, Params, StoreHandle, StoreWriter, VerifyOptions, WriteOptions, create, verify,
};

use common::{Silent, WallClock, context, disk_options};

/// Pages that differ in eight bytes.
struct Pages {
    geometry: Geometry,
    identity: Identity,
}

impl Source for Pages {
    fn geometry(&self) -> Geometry {
        self.geometry
    }
    fn identity(&self) -> &Identity {
        &self.identity
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadFailure> {
        for (number, page) in (offset / 4096 + 1..).zip(buf.chunks_mut(4096)) {
            page.fill(b'.');
            page[..8].copy_from_slice(&number.to_le_bytes());
        }
        Ok(())
    }
}

impl ExportObserver for Silent {
    fn progress(&self, _: u64, _: u64) {}
}

/// Most memory that is resident in this process while `work` runs, in KiB. Memory that was
/// freed before and is still resident counts, too.
fn peak_kib(work: impl FnOnce()) -> u64 {
    // Where a kernel cannot begin anew, what was needed before hides what is needed now.
    let _ = fs::write("/proc/self/clear_refs", "5");
    work();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.unwrap().parse().unwrap()
}

/// A store for a disk of so many chunks.
struct Work {
    dir: tempfile::TempDir,
    source: Arc<Pages>,
}

const BOUNDS: WriteOptions = WriteOptions {
    ballast_bytes: 0,
    flush_entries: 4096,
    flush_blocks: 256,
    log_file_len: 64 << 20,
};

impl Work {
    fn new(chunks: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let params = Params {
            shards: 4,
            packed_max: 2048,
            ..Params::default()
        };
        let vfs = RealVfs::open(dir.path()).unwrap();
        create(&vfs, &params, &context(1), &BOUNDS).unwrap();
        let source = Arc::new(Pages {
            geometry: Geometry {
                size_bytes: chunks * 4096,
                logical_sector_bytes: 512,
                physical_sector_bytes: 512,
            },
            identity: Identity::default(),
        });
        Self { dir, source }
    }

    fn vfs(&self) -> Arc<RealVfs> {
        Arc::new(RealVfs::open(self.dir.path()).unwrap())
    }

    fn capture(&self, seed: u8) {
        let writer = StoreWriter::open(self.vfs(), context(seed), BOUNDS).unwrap();
        let options = DiskOptions {
            sync: SyncPolicy {
                bytes: 1 << 20,
                interval: Duration::from_secs(3600),
            },
            ..disk_options()
        };
        let clock = Arc::new(WallClock(Instant::now()));
        let (source, control) = (self.source.clone(), Arc::default());
        let report = capture_disk(source, writer, None, &options, clock, control, &Silent);
        assert!(report.unwrap().doc.complete);
    }

    fn fold(&self) {
        let store = StoreHandle::open(self.vfs()).unwrap();
        let mut entries = 0;
        for capture in session::list(&store).unwrap() {
            let mut each = |_| {
                entries += 1;
                Ok(())
            };
            session::fold(&store, capture.session, &mut each).unwrap();
            for block in session::blocks_of(&store, capture.session).unwrap() {
                let mut each = |_, note: Vec<u8>| {
                    assert!(note.len() < 2 << 20, "a note of {} bytes", note.len());
                    Ok(())
                };
                store.notes::<Error>(block, &mut each).unwrap();
            }
        }
        assert!(entries > 2 * self.source.geometry.size_bytes / 4096);
    }

    fn verify(&self) {
        let options = VerifyOptions {
            index_memory_bytes: 1 << 20,
            ..VerifyOptions::default()
        };
        let report = verify(self.vfs(), &options, &()).unwrap();
        assert!(report.ok(), "{:?}", report.damage);
    }

    fn export(&self) {
        let store = StoreHandle::open(self.vfs()).unwrap();
        let captures = session::list(&store).unwrap();
        let manifest = Manifest::open(&store, &captures[0].root.unwrap()).unwrap();
        let options = ExportOptions {
            fill: Fill::Zero,
            sparse: false,
            range: 0..self.source.geometry.size_bytes,
            threads: 1,
        };
        let mut sink = std::io::sink();
        let report = export_to_stream(&store, &manifest, &mut sink, &options, &Silent).unwrap();
        assert!(report.damaged.is_empty());
    }
}

/// As little as 86 bytes kept for each chunk would be 8 MiB more.
#[test]
fn memory_does_not_grow_with_the_number_of_chunks() {
    let (few, many) = (Work::new(32_768), Work::new(131_072));
    type Phase<'a> = (&'a str, &'a dyn Fn(&Work));
    let phases: [Phase; 5] = [
        ("capture", &|work| work.capture(2)),
        ("capture again", &|work| work.capture(3)),
        ("fold", &Work::fold),
        ("export", &Work::export),
        ("verify", &Work::verify),
    ];
    for (name, work) in phases {
        let before = peak_kib(|| {});
        let (few, many) = (peak_kib(|| work(&few)), peak_kib(|| work(&many)));
        eprintln!("{name}: {before} KiB, {few} KiB, {many} KiB");
        assert!(many < few + (8 << 10), "{name}: {few} KiB, then {many} KiB");
    }
}
