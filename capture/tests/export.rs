//! Getting images back, against an oracle: whole, in parts, sparse, streamed, from
//! stores that are damaged.

mod common;

use std::fs::File;
use std::io::{Read, Seek};
use std::ops::Range;

use asl_capture::device::fault::FaultDevice;
use asl_capture::disk::DiskOptions;
use asl_capture::export::{
    ExportObserver, ExportOptions, ExportReport, Fill, export_to_file, export_to_stream,
};
use asl_capture::manifest::Manifest;
use asl_capture::map::Domain;
use asl_capture::pass::PlanOptions;
use asl_store::{Compression, StoreHandle};
use common::*;
use proptest::prelude::*;

struct Quiet;

impl ExportObserver for Quiet {
    fn progress(&self, done_bytes: u64, total_bytes: u64) {
        assert!(done_bytes <= total_bytes);
    }
}

const PATTERN: &[u8] = b"\xBA\xDD\xA7\x0A\x01";

/// Ways to export; the destination of a sparse one is empty.
#[derive(Debug, Clone, Copy)]
enum Way {
    File { sparse: bool, threads: usize },
    Stream,
}

const WAYS: [Way; 4] = [
    Way::File {
        sparse: false,
        threads: 1,
    },
    Way::File {
        sparse: false,
        threads: 3,
    },
    Way::File {
        sparse: true,
        threads: 2,
    },
    Way::Stream,
];

fn export(
    store: &StoreHandle,
    manifest: &Manifest,
    range: Range<u64>,
    fill: Fill,
    way: Way,
) -> asl_capture::Result<(Vec<u8>, ExportReport)> {
    let mut options = ExportOptions {
        fill,
        sparse: false,
        range: range.clone(),
        threads: 1,
    };
    match way {
        Way::Stream => {
            let mut out = Vec::new();
            let report = export_to_stream(store, manifest, &mut out, &options, &Quiet)?;
            Ok((out, report))
        }
        Way::File { sparse, threads } => {
            options.sparse = sparse;
            options.threads = threads;
            let mut file = tempfile::tempfile().unwrap();
            if !sparse {
                // What was there before must not shine through.
                std::io::copy(
                    &mut std::io::repeat(0x77).take(range.end - range.start),
                    &mut file,
                )
                .unwrap();
            }
            file.set_len(range.end - range.start).unwrap();
            let report = export_to_file(store, manifest, &file, &options, &Quiet)?;
            Ok((contents(file), report))
        }
    }
}

fn contents(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// What an image is to be: its bytes, and where there are none.
struct Oracle {
    bytes: Vec<u8>,
    unreadable: Vec<Range<u64>>,
    untried: Vec<Range<u64>>,
}

fn overlap(holes: &[Range<u64>], range: &Range<u64>) -> u64 {
    let clipped = holes.iter().map(|hole| {
        hole.end
            .min(range.end)
            .saturating_sub(hole.start.max(range.start))
    });
    clipped.sum()
}

impl Oracle {
    fn filled(&self, fill: &Fill) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for hole in self.unreadable.iter().chain(&self.untried) {
            paint(&mut bytes, hole.clone(), fill);
        }
        bytes
    }
}

fn paint(bytes: &mut [u8], hole: Range<u64>, fill: &Fill) {
    for at in hole {
        bytes[at as usize] = match fill {
            Fill::Zero => 0,
            Fill::Pattern(pattern) => pattern[at as usize % pattern.len()],
        };
    }
}

#[derive(Debug, Clone)]
struct Setup {
    size: u64,
    seed: u64,
    chunk_bytes: u32,
    cluster_chunks: u64,
    sectors: (u32, u32),
    bad: Vec<(u64, u64)>,
    zeros: Vec<(u64, u64)>,
    domain: Option<(u64, u64)>,
    gone_after: Option<u64>,
    threads: usize,
    raw: bool,
}

fn setups() -> impl Strategy<Value = Setup> {
    let sizes = prop_oneof![
        1u64..5000,
        1u64..400_000,
        (1u64..100).prop_map(|n| n * 4096),
        Just(1 << 20),
        (0u64..3).prop_map(|n| (1 << 20) - 1 + n),
    ];
    let chunks = prop_oneof![Just(10), Just(12), Just(14), Just(16)];
    let sectors = prop_oneof![
        Just((512, 512)),
        Just((512, 4096)),
        Just((4096, 4096)),
        Just((512, 1024)),
    ];
    let ranges = |max| prop::collection::vec((any::<u64>(), 1u64..max), 0..6);
    let more = (
        prop::option::weighted(0.2, (any::<u64>(), 1u64..200_000)),
        prop::option::weighted(0.2, 1u64..60),
        0usize..3,
        any::<bool>(),
    );
    (
        sizes,
        any::<u64>(),
        chunks,
        0u32..4,
        sectors,
        ranges(20_000),
        ranges(90_000),
        more,
    )
        .prop_map(
            |(
                size,
                seed,
                chunk,
                cluster,
                sectors,
                bad,
                zeros,
                (domain, gone_after, threads, raw),
            )| {
                Setup {
                    size,
                    seed,
                    chunk_bytes: 1 << chunk,
                    cluster_chunks: 1 << cluster,
                    sectors,
                    bad,
                    zeros,
                    domain,
                    gone_after,
                    threads,
                    raw,
                }
            },
        )
}

impl Setup {
    fn range(&self, (at, len): (u64, u64)) -> Range<u64> {
        let start = at % self.size;
        start..(start + len).min(self.size)
    }

    fn disk(&self) -> FaultDevice {
        let (logical, physical) = self.sectors;
        let mut disk = FaultDevice::builder(self.size)
            .seed(self.seed)
            .sectors(logical, physical);
        for zeros in &self.zeros {
            disk = disk.zeros(self.range(*zeros));
        }
        let sector = u64::from(logical);
        for bad in &self.bad {
            let range = self.range(*bad);
            disk = disk.bad(range.start / sector..range.end.div_ceil(sector));
        }
        disk.build()
    }

    fn options(&self) -> DiskOptions {
        let mut options = DiskOptions {
            chunk_bytes: self.chunk_bytes,
            threads: self.threads,
            compression: if self.raw {
                Compression::None
            } else {
                Compression::Auto
            },
            plan: PlanOptions {
                cluster_bytes: u64::from(self.chunk_bytes) * self.cluster_chunks,
                piece_bytes: 4096,
                ..PlanOptions::new(self.sectors.1)
            },
            ..disk_options()
        };
        options.plan.cluster_bytes = options.plan.cluster_bytes.max(4096);
        let domain = self
            .domain
            .map(|range| Domain::from_ranges([self.range(range)]));
        options.plan.domain = domain;
        options
    }

    /// Captures, in one or two runs, and says what is to come out.
    fn capture(&self) -> (StoreHandle, Manifest, Oracle) {
        let disk = self.disk();
        let vfs = fresh();
        let options = self.options();
        if let Some(reads) = self.gone_after {
            disk.vanish_after(reads);
            run(&vfs, &disk, 2, &options).unwrap();
            disk.come_back();
        }
        let report = run(&vfs, &disk, 3, &options).unwrap();
        let sector = u64::from(self.sectors.0);
        let mut unreadable: Vec<Range<u64>> = Vec::new();
        let mut untried: Vec<_> = std::iter::once(0..self.size).collect();
        let domain = options
            .plan
            .domain
            .unwrap_or_else(|| Domain::whole(self.size));
        let physical = u64::from(self.sectors.1);
        for wanted in domain.aligned(physical, self.size).ranges() {
            let last = untried.pop().unwrap();
            untried.extend([last.start..wanted.start, wanted.end..last.end]);
            for bad in disk.bad_sectors() {
                let bad = bad.start * sector..(bad.end * sector).min(self.size);
                let clipped = bad.start.max(wanted.start)..bad.end.min(wanted.end);
                if !clipped.is_empty() {
                    unreadable.push(clipped);
                }
            }
        }
        let store = reader(&vfs);
        let manifest = Manifest::open(&store, &report.root.unwrap()).unwrap();
        let oracle = Oracle {
            bytes: content(&disk),
            unreadable,
            untried,
        };
        let whole = 0..self.size;
        assert_eq!(
            report.doc.unreadable_bytes,
            overlap(&oracle.unreadable, &whole)
        );
        assert_eq!(report.doc.untried_bytes, overlap(&oracle.untried, &whole));
        if report.doc.untried_bytes == 0 {
            let digest = blake3::hash(&oracle.filled(&Fill::Zero)).to_hex();
            assert_eq!(report.doc.image_blake3.as_deref(), Some(digest.as_str()));
        }
        (store, manifest, oracle)
    }
}

fn check_exports(setup: &Setup, parts: &[(u64, u64)]) {
    let (store, manifest, oracle) = setup.capture();
    let fills = [Fill::Zero, Fill::Pattern(PATTERN.to_vec())];
    let mut ranges = vec![0..setup.size, setup.size..setup.size];
    ranges.extend(parts.iter().map(|part| setup.range(*part)));
    for fill in &fills {
        let image = oracle.filled(fill);
        for (number, range) in ranges.iter().enumerate() {
            for way in WAYS.into_iter().skip(if number == 0 { 0 } else { 2 }) {
                let (bytes, report) =
                    export(&store, &manifest, range.clone(), fill.clone(), way).unwrap();
                let expected = &image[range.start as usize..range.end as usize];
                assert!(bytes == expected, "{way:?} of {range:?} differs");
                assert_eq!(report.bytes, range.end - range.start);
                assert_eq!(report.unreadable_bytes, overlap(&oracle.unreadable, range));
                assert_eq!(report.untried_bytes, overlap(&oracle.untried, range));
                assert_eq!(report.damaged, []);
            }
        }
    }
    let beyond = export(
        &store,
        &manifest,
        0..setup.size + 1,
        Fill::Zero,
        Way::Stream,
    );
    assert!(matches!(beyond, Err(asl_capture::Error::Range { .. })));
}

fn cases(everyday: u32) -> ProptestConfig {
    ProptestConfig {
        cases: if all() { everyday * 50 } else { everyday },
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(40))]

    /// Covers K4: what comes out is what was read, whatever the sizes of sectors,
    /// chunks, clusters and disk.
    #[test]
    fn every_way_of_export_agrees_with_the_disk(
        setup in setups(),
        parts in prop::collection::vec((any::<u64>(), 0u64..100_000), 3),
    ) {
        check_exports(&setup, &parts);
    }
}

/// A capture with every kind of content, in a store of several blocks.
fn mixed() -> (asl_store::vfs::fault::FaultVfs, FaultDevice) {
    let disk = FaultDevice::builder((3 << 20) + 700)
        .seed(77)
        .zeros(200_000..900_000)
        .bad(200..203)
        .bad(1900..1901)
        .bad(5000..5002)
        .build();
    let vfs = fresh_with(128 << 10, 64 << 10);
    let mut options = disk_options();
    options.chunk_bytes = 1024;
    run(&vfs, &disk, 2, &options).unwrap();
    (vfs, disk)
}

/// Covers K4: damage anywhere in the store costs what lies there and is named; wrong
/// bytes never come out.
#[test]
fn a_damaged_store_gives_right_bytes_or_says_where_not() {
    let (vfs, disk) = mixed();
    let capture = asl_capture::session::list(&reader(&vfs)).unwrap().remove(0);
    let root = capture.root.unwrap();
    let holes: Vec<Range<u64>> = disk
        .bad_sectors()
        .iter()
        .map(|bad| bad.start * 512..bad.end * 512)
        .collect();
    let oracle = Oracle {
        bytes: content(&disk),
        unreadable: holes,
        untried: Vec::new(),
    };
    let size = oracle.bytes.len() as u64;
    let (mut opened, mut damaged, mut nodes) = (0, 0, 0);
    for (path, len) in vfs.files() {
        if !path.starts_with("blocks/") {
            continue;
        }
        let step = if all() { 4_001 } else { 16_411 };
        for at in (len % step..len).step_by(step as usize).chain([len - 5]) {
            let vfs = vfs.fork();
            vfs.flip_byte(&path, at).unwrap();
            let Ok(store) = StoreHandle::open(std::sync::Arc::new(vfs)) else {
                continue;
            };
            let Ok(manifest) = Manifest::open(&store, &root) else {
                continue;
            };
            opened += 1;
            for way in [Way::Stream, WAYS[(at % 3) as usize]] {
                let range = if at % 2 == 0 {
                    0..size
                } else {
                    1000..size - 1000
                };
                let fill = Fill::Pattern(PATTERN.to_vec());
                let (bytes, report) =
                    export(&store, &manifest, range.clone(), fill.clone(), way).unwrap();
                let mut expected = oracle.filled(&fill);
                for lost in &report.damaged {
                    assert!(lost.len > 0 && lost.offset >= range.start);
                    assert!(lost.offset + lost.len <= range.end);
                    paint(&mut expected, lost.offset..lost.offset + lost.len, &fill);
                    nodes += u64::from(lost.len > 1024);
                }
                let expected = &expected[range.start as usize..range.end as usize];
                assert!(bytes == expected, "{path} at {at}");
                damaged += report.damaged.len();
            }
        }
    }
    assert!(
        opened > 50 && damaged > 20 && nodes > 0,
        "{opened} {damaged} {nodes}"
    );
}

/// A destination that takes no more ends the export, whatever the threads were doing.
#[test]
fn a_destination_that_fails_ends_the_export() {
    struct Narrow(u64);
    impl std::io::Write for Narrow {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            let len = (buf.len() as u64).min(self.0);
            self.0 -= len;
            Ok(len as usize)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (vfs, disk) = mixed();
    let store = reader(&vfs);
    let root = asl_capture::session::list(&store).unwrap()[0].root.unwrap();
    let manifest = Manifest::open(&store, &root).unwrap();
    let size = content(&disk).len() as u64;
    let mut options = ExportOptions {
        fill: Fill::Zero,
        sparse: false,
        range: 0..size,
        threads: 3,
    };
    for room in [0, 1, size / 2, size - 1] {
        let ended = export_to_stream(&store, &manifest, &mut Narrow(room), &options, &Quiet);
        assert!(matches!(ended, Err(asl_capture::Error::Destination { .. })));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, b"").unwrap();
    for threads in [1, 3] {
        options.threads = threads;
        // Open for reading only: the first write fails.
        let file = File::open(&path).unwrap();
        let ended = export_to_file(&store, &manifest, &file, &options, &Quiet);
        assert!(
            matches!(ended, Err(asl_capture::Error::Destination { .. })),
            "{ended:?}"
        );
    }
}

/// Covers K4: whatever is left of a block, the capture that it hits stays known, and every
/// range that cannot be got back is put down to some damage.
#[test]
fn a_capture_is_named_whatever_is_left_of_a_block() {
    struct Unseen;
    impl asl_store::VerifyObserver for Unseen {
        fn progress(&self, _: u64, _: u64) {}
    }
    let (vfs, disk) = mixed();
    let size = content(&disk).len() as u64;
    let mut lost = 0;
    for (path, len) in vfs.files() {
        if !path.starts_with("blocks/sealed") {
            continue;
        }
        for at in [Some(0), Some(len / 2), Some(len - 5), None] {
            let vfs = std::sync::Arc::new(vfs.fork());
            match at {
                Some(at) => vfs.flip_byte(&path, at).unwrap(),
                None => vfs.remove_file(&path).unwrap(),
            }
            let options = asl_store::VerifyOptions::default();
            let report = asl_store::verify(vfs.clone(), &options, &Unseen).unwrap();
            assert!(!report.ok());
            let damaged = (0..).zip(&report.damage);
            let named = damaged
                .clone()
                .flat_map(|(number, damage)| damage.keys.iter().map(move |key| (*key, number)))
                .collect();
            let unnamed = report
                .damage
                .iter()
                .position(|damage| damage.keys.is_empty());
            let store = StoreHandle::open(vfs).unwrap();
            let hits = asl_capture::damage::hits(&store, &named, unnamed).unwrap();
            let captures = asl_capture::session::list(&store).unwrap();
            assert_eq!(captures.len(), 1, "{path} {at:?}");
            let missing: Vec<Range<u64>> = match Manifest::open(&store, &captures[0].root.unwrap())
            {
                Err(_) => std::iter::once(0..size).collect(),
                Ok(manifest) => {
                    let (_, report) =
                        export(&store, &manifest, 0..size, Fill::Zero, Way::Stream).unwrap();
                    let damaged = report.damaged.iter();
                    damaged
                        .map(|range| range.offset..range.offset + range.len)
                        .collect()
                }
            };
            for missing in missing {
                lost += 1;
                let mut at = missing.start;
                while let Some(hit) = hits
                    .iter()
                    .find(|hit| (hit.start..hit.start + hit.len).contains(&at))
                {
                    assert_eq!(hit.capture, captures[0].session);
                    at = hit.start + hit.len;
                    if at >= missing.end {
                        break;
                    }
                }
                assert!(at >= missing.end, "{path} {missing:?} is in nobody's list");
            }
        }
    }
    assert!(lost > 20, "{lost}");
}
