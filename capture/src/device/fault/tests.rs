//! The simulated disk behaves as the plan says.

use std::sync::mpsc;
use std::thread;

use super::*;
use crate::buffer::{Buffer, BufferPool};

const MIB: u64 = 1 << 20;
const ENODATA: i32 = 61;

fn buffer(len: usize) -> Buffer {
    BufferPool::new(len, 1).get()
}

fn read(disk: &FaultDevice, sector: u64, count: usize) -> Result<Vec<u8>, ReadFailure> {
    let mut buf = buffer(count * 512);
    disk.read_at(sector * 512, &mut buf)?;
    Ok(buf.to_vec())
}

fn one(range: Range<u64>) -> Vec<Range<u64>> {
    vec![range]
}

fn unreadable(errno: i32) -> Result<Vec<u8>, ReadFailure> {
    Err(ReadFailure::Unreadable { errno })
}

#[test]
fn contents_depend_on_seed_and_place_only() {
    let disk = FaultDevice::builder(64 * MIB).seed(7).build();
    let whole = read(&disk, 100, 8).unwrap();
    for sector in 0..8 {
        let one = read(&disk, 100 + sector, 1).unwrap();
        assert_eq!(one[..], whole[sector as usize * 512..][..512]);
    }
    let mut odd = [0; 1000];
    disk.content(100 * 512 + 77, &mut odd);
    assert_eq!(odd[..], whole[77..1077]);
    let four_k = FaultDevice::builder(64 * MIB)
        .seed(7)
        .sectors(4096, 4096)
        .build();
    let mut same = buffer(4096);
    four_k.read_at(96 * 512, &mut same).unwrap();
    assert_eq!(read(&disk, 96, 8).unwrap(), same[..]);
    let other = FaultDevice::builder(64 * MIB).seed(8).build();
    assert_ne!(read(&other, 100, 8).unwrap(), whole);
    assert_ne!(read(&disk, 108, 8).unwrap(), whole);
}

#[test]
fn zeros_and_given_contents() {
    let disk = FaultDevice::builder(MIB)
        .zeros(512..1024)
        .zeros(1536..1540)
        .build();
    let head = read(&disk, 0, 4).unwrap();
    assert!(head[512..1024].iter().all(|&b| b == 0));
    assert!(head[1536..1540].iter().all(|&b| b == 0));
    assert!(head[..512].iter().any(|&b| b != 0));
    assert!(head[1540..].iter().any(|&b| b != 0));

    let bytes: Vec<u8> = (0..1300u32).map(|i| i as u8).collect();
    let disk = FaultDevice::holding(bytes.clone()).build();
    assert_eq!(disk.geometry().size_bytes, 1300);
    let mut tail = buffer(276);
    disk.read_at(1024, &mut tail).unwrap();
    assert_eq!(tail[..], bytes[1024..]);
}

#[test]
fn a_read_over_a_bad_sector_fails_whole() {
    let disk = FaultDevice::builder(MIB)
        .bad(10..12)
        .bad_with(20..21, ENODATA)
        .build();
    assert!(read(&disk, 0, 10).is_ok());
    assert_eq!(read(&disk, 0, 11), unreadable(5));
    assert_eq!(read(&disk, 11, 1), unreadable(5));
    assert_eq!(read(&disk, 12, 9), unreadable(ENODATA));
    assert_eq!(read(&disk, 0, 128), unreadable(5), "the first one's errno");
    assert!(read(&disk, 21, 100).is_ok());
    assert_eq!(disk.bad_sectors(), [10..12, 20..21]);
}

#[test]
fn a_fault_is_as_wide_as_the_physical_sector() {
    let disk = FaultDevice::builder(MIB)
        .sectors(512, 4096)
        .bad(9..10)
        .build();
    assert!(read(&disk, 7, 1).is_ok());
    assert_eq!(read(&disk, 8, 1), unreadable(5));
    assert_eq!(read(&disk, 15, 1), unreadable(5));
    assert!(read(&disk, 16, 1).is_ok());
    assert_eq!(disk.bad_sectors(), one(8..16));
}

#[test]
fn weak_sectors_fail_so_many_times_and_then_read() {
    let disk = FaultDevice::builder(MIB).weak(5..7, 2, ENODATA).build();
    // Each of the two sectors needs its own two failures.
    for _ in 0..4 {
        assert_eq!(read(&disk, 0, 16), unreadable(ENODATA));
    }
    let bytes = read(&disk, 0, 16).unwrap();
    let mut expected = vec![0; 16 * 512];
    disk.content(0, &mut expected);
    assert_eq!(bytes, expected);
    assert_eq!(disk.bad_sectors(), [] as [Range<u64>; 0]);
}

#[test]
fn gone_after_some_reads_until_it_comes_back() {
    let disk = FaultDevice::builder(MIB).bad(0..1).gone_after(2).build();
    assert!(read(&disk, 1, 1).is_ok());
    assert_eq!(read(&disk, 0, 1), unreadable(5));
    assert!(disk.alive());
    let gone = Err(ReadFailure::Gone { errno: 0 });
    assert_eq!(read(&disk, 0, 1), gone, "gone comes before bad");
    assert_eq!(read(&disk, 1, 1), gone);
    assert!(!disk.alive());
    disk.come_back();
    let again = disk.reopened("/dev/other");
    assert_eq!(again.identity().path, "/dev/other");
    assert_eq!(again.identity().serial, disk.identity().serial);
    assert!(read(&again, 1, 1).is_ok());
    assert_eq!(
        disk.total_reads(),
        5,
        "the counts are the disk's, not the handle's"
    );
    again.vanish_after(1);
    assert!(read(&disk, 1, 1).is_ok());
    assert_eq!(read(&disk, 1, 1), gone);
}

#[test]
fn gone_at_a_sector_and_fatal_at_another() {
    let disk = FaultDevice::builder(MIB)
        .gone_at(9..10)
        .gone_errno(19)
        .fatal_at(3..4, 12)
        .build();
    assert_eq!(read(&disk, 3, 1), Err(ReadFailure::Fatal { errno: 12 }));
    assert_eq!(read(&disk, 8, 4), Err(ReadFailure::Gone { errno: 19 }));
    assert_eq!(read(&disk, 0, 1), Err(ReadFailure::Gone { errno: 19 }));
    disk.come_back();
    assert!(read(&disk, 0, 1).is_ok());
    assert_eq!(read(&disk, 9, 1), Err(ReadFailure::Gone { errno: 19 }));
}

#[test]
fn misaligned_reads_are_fatal_and_not_counted() {
    let disk = FaultDevice::builder(MIB).build();
    let mut buf = buffer(8192);
    for (offset, len) in [(1, 512), (0, 100), (MIB - 512, 1024), (u64::MAX, 512)] {
        let outcome = disk.read_at(offset, &mut buf[..len]);
        assert_eq!(
            outcome,
            Err(ReadFailure::Fatal { errno: 22 }),
            "{offset} {len}"
        );
    }
    assert_eq!(
        disk.read_at(0, &mut buf[512..1024]),
        Err(ReadFailure::Fatal { errno: 22 }),
        "memory is aligned to 4096"
    );
    assert_eq!(disk.total_reads(), 0);
    let lenient = FaultDevice::builder(MIB).any_memory().build();
    assert_eq!(lenient.read_at(0, &mut buf[512..1024]), Ok(()));
}

#[test]
fn latency_is_virtual_and_adds_up() {
    let clock = VirtualClock::new();
    let disk = FaultDevice::builder(MIB)
        .clock(Arc::clone(&clock))
        .read_latency(Duration::from_millis(1))
        .read_rate(512 * 1000)
        .error_latency(Duration::from_secs(3))
        .slow(100..110, Duration::from_millis(200))
        .bad(50..51)
        .build();
    let mut before = Duration::ZERO;
    let mut took = || {
        let now = clock.now();
        let took = now - std::mem::replace(&mut before, now);
        took.as_millis()
    };
    assert!(read(&disk, 0, 10).is_ok());
    assert_eq!(took(), 11);
    assert!(read(&disk, 50, 1).is_err());
    assert_eq!(took(), 3001);
    assert!(read(&disk, 108, 4).is_ok());
    assert_eq!(took(), 1 + 4 + 400);
}

#[test]
fn the_log_counts_reads_by_sector() {
    let disk = FaultDevice::builder(MIB).bad(4..5).build();
    assert!(read(&disk, 0, 8).is_err());
    assert!(read(&disk, 0, 4).is_ok());
    let mark = disk.log_len();
    assert!(read(&disk, 5, 3).is_ok());
    assert!(read(&disk, 3, 1).is_ok());
    assert_eq!(disk.total_reads(), 4);
    assert_eq!(disk.reads_of(3), 3);
    assert_eq!(disk.successes_of(3), 2);
    assert_eq!(disk.reads_of(4), 1);
    assert_eq!(disk.successes_of(4), 0);
    assert_eq!(disk.delivered_again(), one(3..4));
    assert_eq!(disk.delivered_again_since(mark), one(3..4));
    assert_eq!(
        disk.log()[0],
        ReadRecord {
            offset: 0,
            len: 4096,
            outcome: Err(ReadFailure::Unreadable { errno: 5 })
        }
    );
}

#[test]
fn a_stalled_read_hangs_until_released() {
    let disk = FaultDevice::builder(MIB).stall(40..41).build();
    assert!(read(&disk, 0, 40).is_ok());
    let (send, receive) = mpsc::channel();
    let reader = {
        let disk = disk.clone();
        thread::spawn(move || send.send(read(&disk, 32, 16).is_ok()).unwrap())
    };
    while disk.stalled() == 0 {
        thread::yield_now();
    }
    assert!(receive.recv_timeout(Duration::from_millis(20)).is_err());
    disk.release_stalls();
    assert_eq!(receive.recv_timeout(Duration::from_secs(10)), Ok(true));
    reader.join().unwrap();
}

#[test]
fn a_huge_disk_costs_nothing() {
    let disk = FaultDevice::builder(16 << 40)
        .bad(1 << 30..(1 << 30) + 8)
        .build();
    assert!(read(&disk, (1 << 30) - 8, 8).is_ok());
    assert!(read(&disk, 1 << 30, 8).is_err());
}

#[test]
fn several_threads_read_one_disk() {
    let disk = FaultDevice::builder(MIB).bad(1000..1001).build();
    thread::scope(|scope| {
        for part in 0..4 {
            let disk = &disk;
            scope.spawn(move || {
                for sector in part * 512..(part + 1) * 512 {
                    assert_eq!(read(disk, sector, 1).is_ok(), sector != 1000);
                }
            });
        }
    });
    assert_eq!(disk.total_reads(), 2048);
    assert_eq!(disk.delivered_again(), [] as [Range<u64>; 0]);
}
