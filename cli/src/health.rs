//! What the kernel tells of a disk's health without asking the disk.
//!
//! Reading SMART attributes sends commands to the disk, which may be the last it
//! takes. What the kernel knows anyway is free: whether the device still answers, how
//! worn an eMMC says it is, which reads and writes it has reported as failed.
//!
//! The last comes from the kernel's log. SCSI's own counter, `ioerr_cnt`, counts every
//! command that a disk refused, and healthy disks refuse several while they are
//! being looked at for the first time.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use asl_capture::inventory::{BlockNode, SystemPaths};
use rustix::fs::OFlags;
use serde::Serialize;

/// How a disk seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing says so, nothing denies it.
    Unknown,
    /// The drive has no medium.
    Empty,
    /// It counts as used up.
    Worn,
    /// Reads or writes have failed.
    Failing,
    /// The kernel has given it up.
    Offline,
}

/// What is known of a disk's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// How it seems to be.
    pub verdict: Verdict,
    /// Reads and writes that failed since the disk appeared, as far as the kernel's log tells: it is finite, and of many
    /// errors at once it tells some. Unknown where the log may not be read.
    pub failed_requests: Option<u64>,
}

impl Health {
    /// Looks up what sysfs and the kernel's log say of the disk.
    pub fn of(node: &BlockNode, log: &KernelLog) -> Self {
        let read = |name: &str| node.attribute(name);
        Self::from_attributes(node.size_bytes(), log.failed_requests(&node.name), &read)
    }

    fn from_attributes(
        size_bytes: u64,
        failed_requests: Option<u64>,
        read: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        // SCSI and ATA: `running`; NVMe: `live`.
        let gone = ["offline", "transport-offline", "dead", "deleting"];
        let offline = read("device/state").is_some_and(|state| gone.contains(&state.as_str()));
        // eMMC 5.0: 1 normal, 2 and 3 most reserve blocks are used up.
        let spent = read("device/pre_eol_info")
            .and_then(|value| hex(&value))
            .is_some_and(|value| value >= 2);
        let verdict = if offline {
            Verdict::Offline
        } else if size_bytes == 0 {
            Verdict::Empty
        } else if failed_requests.is_some_and(|count| count > 0) {
            Verdict::Failing
        } else if spent {
            Verdict::Worn
        } else {
            Verdict::Unknown
        };
        Self {
            verdict,
            failed_requests,
        }
    }

    /// In words, where there is something to say.
    pub fn words(&self) -> Option<&'static str> {
        match self.verdict {
            Verdict::Unknown => None,
            Verdict::Empty => Some("no medium in the drive"),
            Verdict::Worn => Some("says that it is worn out"),
            Verdict::Failing => Some("has failed to read or write"),
            Verdict::Offline => Some("does not answer any more"),
        }
    }
}

/// The reads and writes that the kernel has reported as failed, by disk.
#[derive(Debug, Default)]
pub struct KernelLog {
    /// Nothing where the log may not be read.
    failed: Option<BTreeMap<String, u64>>,
}

impl KernelLog {
    /// Reads the running kernel's log as it is now, without waiting for more of it.
    pub fn read(system: &SystemPaths) -> Self {
        if !system.is_live() {
            return Self::default();
        }
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(system.dev.join("kmsg"));
        let Ok(mut log) = opened else {
            return Self::default();
        };
        let mut failed = BTreeMap::new();
        // One record a read; what does not fit is an error (Documentation/ABI/testing/dev-kmsg).
        let mut record = [0; 8192];
        loop {
            match log.read(&mut record) {
                Ok(0) => break,
                Ok(length) => note(&mut failed, &String::from_utf8_lossy(&record[..length])),
                Err(error) => match error.kind() {
                    // EPIPE: the record was overwritten before it could be read; the next read goes on behind it.
                    ErrorKind::BrokenPipe | ErrorKind::Interrupted | ErrorKind::InvalidInput => {}
                    _ => break,
                },
            }
        }
        Self {
            failed: Some(failed),
        }
    }

    fn failed_requests(&self, disk: &str) -> Option<u64> {
        let failed = self.failed.as_ref()?.iter();
        let of_disk =
            failed.filter(|(name, _)| *name == disk || head(name).as_deref() == Some(disk));
        Some(of_disk.map(|(_, count)| count).sum())
    }
}

/// Takes in a record: `6,1234,5678,-;message`, further lines being fields.
fn note(failed: &mut BTreeMap<String, u64>, record: &str) {
    let Some((_, text)) = record.split_once(';') else {
        return;
    };
    let message = text.lines().next().unwrap_or_default();
    // A new disk may have the name of one that is gone.
    if let Some((_, rest)) = message.split_once(" [")
        && let Some((name, rest)) = rest.split_once("] ")
        && rest.contains("-byte logical blocks")
    {
        failed.remove(name);
    }
    if let Some(rest) = message.strip_prefix("nvme ")
        && let Some((controller, rest)) = rest.split_once(": ")
        && rest.starts_with("pci function")
    {
        failed.retain(|name, _| path_of(name).is_none_or(|(_, of, _)| of != controller));
    }
    // A loop device begins anew with each file. A disk that says that it has nothing, and then something again, is the same disk.
    if message.starts_with("loop")
        && let Some((name, _)) = message.split_once(": detected capacity change from 0 to ")
    {
        failed.remove(name);
    }
    // blk_print_req_error in block/blk-mq.c; before Linux 5.16 there is a prefix, and not always an `op`.
    if let Some((what, rest)) = message.split_once(" error, dev ")
        && let Some((name, rest)) = rest.split_once(", sector ")
        && !what.ends_with("operation not supported")
        && !rest.contains(":(DISCARD)")
        && !rest.contains(":(WRITE_ZEROES)")
    {
        *failed.entry(name.to_owned()).or_insert(0) += 1;
    }
}

/// The parts of an NVMe path's name: subsystem, controller and namespace of `nvme0c1n1` are `nvme0`, `nvme1` and `n1`. A disk
/// without such paths, `nvme0n1`, is one of its controller.
fn path_of(name: &str) -> Option<(&str, String, &str)> {
    let numbers = name.strip_prefix("nvme")?;
    let at = name.len()
        - numbers
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .len();
    let (subsystem, rest) = name.split_at(at);
    match rest.strip_prefix('c') {
        None => Some((subsystem, subsystem.to_owned(), rest)),
        Some(rest) => {
            let namespace = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            let controller = &rest[..rest.len() - namespace.len()];
            Some((subsystem, format!("nvme{controller}"), namespace))
        }
    }
}

/// The disk that a path leads to.
fn head(name: &str) -> Option<String> {
    let (subsystem, _, namespace) = path_of(name)?;
    Some(format!("{subsystem}{namespace}"))
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.trim().strip_prefix("0x")?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(size_bytes: u64, attributes: &[(&str, &str)]) -> Health {
        counted(size_bytes, None, attributes)
    }

    fn counted(size_bytes: u64, failed: Option<u64>, attributes: &[(&str, &str)]) -> Health {
        let read = |name: &str| {
            let mut attributes = attributes.iter();
            attributes
                .find(|(of, _)| *of == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Health::from_attributes(size_bytes, failed, &read)
    }

    #[test]
    fn only_what_sysfs_says_is_said() {
        assert_eq!(health(1, &[]).verdict, Verdict::Unknown);
        assert_eq!(health(1, &[]).words(), None);
        assert_eq!(health(0, &[]).verdict, Verdict::Empty);
        assert_eq!(
            health(1, &[("device/state", "running")]).verdict,
            Verdict::Unknown
        );
        assert_eq!(
            health(0, &[("device/state", "offline")]).verdict,
            Verdict::Offline
        );
        assert_eq!(
            health(1, &[("device/pre_eol_info", "0x03")]).verdict,
            Verdict::Worn
        );
        assert_eq!(
            health(1, &[("device/pre_eol_info", "0x01")]).verdict,
            Verdict::Unknown
        );
        // Commands that a disk does not know are no damage.
        let refusing = health(1, &[("device/ioerr_cnt", "0x1f")]);
        assert_eq!((refusing.words(), refusing.failed_requests), (None, None));
        assert_eq!(counted(1, Some(0), &[]).verdict, Verdict::Unknown);
        assert_eq!(counted(1, Some(2), &[]).verdict, Verdict::Failing);
        assert_eq!(counted(0, Some(2), &[]).verdict, Verdict::Empty);
    }

    #[test]
    fn failed_reads_are_those_that_the_kernel_reported() {
        let mut failed = BTreeMap::new();
        for message in [
            "critical medium error, dev sdb, sector 40000 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2",
            "blk_update_request: I/O error, dev sdb, sector 8 op 0x0:(READ)",
            "I/O error, dev vda, sector 17 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 2\n SUBSYSTEM=block",
            "operation not supported error, dev sdc, sector 0 op 0x9:(WRITE_ZEROES) flags 0x0",
            "critical target error, dev sdc, sector 0 op 0x3:(DISCARD) flags 0x0 phys_seg 1",
            "Buffer I/O error on dev sdb, logical block 1, async page read",
            "critical medium error, dev nvme0n1, sector 8 op 0x0:(READ) flags 0x0",
            "critical medium error, dev nvme2c0n1, sector 8 op 0x0:(READ) flags 0x4000800",
            "critical medium error, dev nvme2c3n1, sector 8 op 0x0:(READ) flags 0x4000800",
            "critical medium error, dev nvme1n1, sector 8 op 0x0:(READ) flags 0x0",
            "critical medium error, dev nvme0c1n1, sector 8 op 0x0:(READ) flags 0x0",
            "sd 2:0:0:0: [sdd] 131072 512-byte logical blocks: (67.1 MB/64.0 MiB)",
            "nvme nvme1: pci function 0000:03:00.0",
        ] {
            note(&mut failed, &format!("3,1,1000,-;{message}\n"));
        }
        note(&mut failed, "no record at all");
        let found: Vec<_> = failed
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        let nvme = [("nvme0n1", 1), ("nvme2c0n1", 1), ("nvme2c3n1", 1)];
        assert_eq!(found, [&nvme[..], &[("sdb", 2), ("vda", 1)]].concat());
        // Another disk took the name.
        note(
            &mut failed,
            "6,2,2000,-;sd 3:0:0:0: [sdb] 9 512-byte logical blocks: (4.6 kB/4.5 KiB)\n",
        );
        for (name, left) in [("loop7", None), ("sde", Some(&1))] {
            note(
                &mut failed,
                &format!("3,1,1,-;I/O error, dev {name}, sector 8 op 0x0:(READ)\n"),
            );
            note(
                &mut failed,
                &format!("6,2,2,-;{name}: detected capacity change from 0 to 6291456\n"),
            );
            assert_eq!(failed.get(name), left, "{name}");
        }
        let log = KernelLog {
            failed: Some(failed),
        };
        assert_eq!(log.failed_requests("sdb"), Some(0));
        assert_eq!(log.failed_requests("vda"), Some(1));
        // However many paths lead to it.
        assert_eq!(log.failed_requests("nvme2n1"), Some(2));
        assert_eq!(KernelLog::default().failed_requests("vda"), None);
    }
}
