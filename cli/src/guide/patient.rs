//! Disks as somebody sees them who must say which one is to be read.
//!
//! Nothing is read from any of them: what is on a disk is what blkid found when it appeared.

use asl_capture::inventory::{BlockNode, Contents, Disk, SystemPaths, usage_of};

use crate::health::Verdict;
use crate::machine::SurveyedDisk;
use crate::text;

/// A disk that may be the one to read.
#[derive(Debug, Clone)]
pub struct Patient {
    /// The disk.
    pub surveyed: SurveyedDisk,
    /// Why it cannot be read now, and what to do about that.
    pub unfit: Option<String>,
    /// What is on it that needs care, and what to do about it.
    pub advice: Vec<&'static str>,
}

impl Patient {
    /// Judges a disk.
    pub fn of(system: &SystemPaths, surveyed: SurveyedDisk) -> Self {
        Self {
            unfit: unfit(system, &surveyed),
            advice: advice(&surveyed.disk),
            surveyed,
        }
    }

    /// One line for a list: device, size, how it is attached, name; without much of a name where room is needed to say why it cannot
    /// be had.
    pub fn title(&self) -> String {
        let disk = &self.surveyed.disk;
        let name = disk.model.as_deref().or(disk.backing_file.as_deref());
        let name = text::visible(name.unwrap_or("")).into_owned();
        let columns = if self.unfit.is_some() { 8 } else { 36 };
        let line = format!(
            "{:<13} {:>10}  {:<6} {}",
            disk.path,
            text::size(disk.size_bytes),
            disk.transport.as_deref().unwrap_or("disk"),
            text::fit(&name, columns)
        );
        text::visible(line.trim_end()).into_owned()
    }

    /// What else is known of it: serial number, health, partitions.
    pub fn details(&self) -> Vec<String> {
        let disk = &self.surveyed.disk;
        let mut lines = Vec::new();
        if let Some(serial) = &disk.serial {
            lines.push(format!("serial number {}", text::visible(serial)));
        }
        if let Some(words) = self.surveyed.health.words() {
            lines.push(format!("it {words}"));
        }
        if let Some(count) = self
            .surveyed
            .health
            .failed_requests
            .filter(|count| *count > 0)
        {
            lines.push(format!(
                "{} since the start",
                text::count(count, "failed request")
            ));
        }
        lines.extend(contents_line(&disk.path, disk.size_bytes, &disk.contents));
        for partition in &disk.partitions {
            lines.extend(contents_line(
                &partition.path,
                partition.size_bytes,
                &partition.contents,
            ));
        }
        lines
    }
}

fn contents_line(path: &str, size_bytes: u64, contents: &Contents) -> Option<String> {
    let kind = contents.fs_type.as_deref()?;
    let label = contents
        .label
        .as_deref()
        .map_or(String::new(), |label| format!(" \"{label}\""));
    let line = format!("{path}: {kind}{label}, {}", text::size(size_bytes));
    Some(text::visible(&line).into_owned())
}

fn unfit(system: &SystemPaths, surveyed: &SurveyedDisk) -> Option<String> {
    match surveyed.health.verdict {
        Verdict::Empty => return Some("no medium in the drive".to_owned()),
        Verdict::Offline => {
            return Some("does not answer: check cable and power, then begin again".to_owned());
        }
        Verdict::Worn | Verdict::Failing | Verdict::Unknown => {}
    }
    if surveyed.boot_medium {
        return Some("this system was started from it".to_owned());
    }
    let node = BlockNode::by_name(system, &surveyed.disk.name)?;
    let usages = usage_of(system, &node);
    let writing = usages.iter().find(|usage| usage.may_write())?;
    if surveyed.system {
        return Some("this system runs from it: start a rescue system from a stick".to_owned());
    }
    let remedy = writing.remedy();
    Some(text::visible(&format!("in use; first: {remedy}")).into_owned())
}

/// Container and filesystem types, as blkid names them, and what somebody who captures one should know.
const CARE: [(&[&str], &str); 8] = [
    (
        &["crypto_LUKS"],
        "LUKS: it is captured encrypted, as it is. Keep its passphrase; without it nothing can be read later.",
    ),
    (
        &["BitLocker"],
        "BitLocker: it is captured encrypted, as it is. Find the 48-digit recovery key (Microsoft account, printout).",
    ),
    (
        &["LVM2_member", "LVM1_member"],
        "LVM: the volumes may continue on other disks. Capture each of those as well, and activate nothing here.",
    ),
    (
        &[
            "linux_raid_member",
            "isw_raid_member",
            "ddf_raid_member",
            "nvidia_raid_member",
            "promise_fasttrack_raid_member",
            "via_raid_member",
            "silicon_medley_raid_member",
            "jmicron_raid_member",
            "adaptec_raid_member",
            "highpoint_raid_member",
        ],
        "RAID member: the rest is on other disks. Capture each of those as well, and assemble or resync nothing here.",
    ),
    (
        &["zfs_member", "bcache", "btrfs", "bcachefs"],
        "It may span several disks. If so, capture each of them.",
    ),
    (
        &["ntfs"],
        "NTFS: Windows may be hibernated on it (fast startup is that, too). Capturing is right; never mount it writable.",
    ),
    (
        &["apfs"],
        "APFS: it may be encrypted (FileVault). Keep the password or the recovery key.",
    ),
    (
        &["ext3", "ext4", "xfs", "jbd"],
        "Its journal may hold the latest changes. Do not mount it, not even read-only: that would replay the journal.",
    ),
];

/// What is to be known of what is on a disk, each once, in the order found.
fn advice(disk: &Disk) -> Vec<&'static str> {
    let parts = disk.partitions.iter().map(|partition| &partition.contents);
    let mut all: Vec<&'static str> = Vec::new();
    for contents in std::iter::once(&disk.contents).chain(parts) {
        let Some(kind) = contents.fs_type.as_deref() else {
            continue;
        };
        let known = CARE.iter().find(|(kinds, _)| kinds.contains(&kind));
        if let Some((_, words)) = known
            && !all.contains(words)
        {
            all.push(words);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use asl_capture::inventory::Partition;

    use super::*;
    use crate::health::Health;

    pub(crate) fn disk(kinds: &[&str]) -> SurveyedDisk {
        let partitions = kinds.iter().zip(1..).map(|(kind, number)| Partition {
            name: format!("sda{number}"),
            path: format!("/dev/sda{number}"),
            number,
            start_bytes: 0,
            size_bytes: 1 << 30,
            contents: Contents {
                fs_type: Some((*kind).to_owned()),
                label: Some("evil \u{1b}[2J".to_owned()),
                ..Contents::default()
            },
        });
        SurveyedDisk {
            disk: Disk {
                name: "sda".to_owned(),
                path: "/dev/sda".to_owned(),
                by_id: Vec::new(),
                model: Some("Model \u{1b}]0;x\u{7}".to_owned()),
                serial: Some("S1".to_owned()),
                wwn: None,
                firmware: None,
                transport: Some("ata".to_owned()),
                backing_file: None,
                size_bytes: 1 << 40,
                logical_sector_bytes: 512,
                physical_sector_bytes: 4096,
                rotational: true,
                removable: false,
                read_only: false,
                contents: Contents::default(),
                partitions: partitions.collect(),
            },
            health: Health {
                verdict: Verdict::Unknown,
                failed_requests: Some(2),
            },
            boot_medium: false,
            system: false,
            in_use: false,
            destinations: Vec::new(),
            mountable: Vec::new(),
        }
    }

    fn judged(surveyed: SurveyedDisk) -> Patient {
        Patient::of(&SystemPaths::below("/nonexistent"), surveyed)
    }

    #[test]
    fn what_needs_care_is_told_once_each() {
        let kinds = [
            "ntfs",
            "crypto_LUKS",
            "vfat",
            "ntfs",
            "BitLocker",
            "LVM2_member",
            "linux_raid_member",
        ];
        let patient = judged(disk(&kinds));
        let first: Vec<&str> = patient
            .advice
            .iter()
            .map(|words| words.split(':').next().unwrap())
            .collect();
        assert_eq!(first, ["NTFS", "LUKS", "BitLocker", "LVM", "RAID member"]);
        assert!(judged(disk(&["vfat", "swap"])).advice.is_empty());
    }

    #[test]
    fn names_from_a_disk_cannot_move_the_cursor() {
        let patient = judged(disk(&["ntfs"]));
        let lines = [vec![patient.title()], patient.details()]
            .concat()
            .join("\n");
        assert!(
            !lines.contains('\u{1b}') && !lines.contains('\u{7}'),
            "{lines}"
        );
        assert!(
            lines.contains("/dev/sda1: ntfs") && lines.contains("serial number S1"),
            "{lines}"
        );
        assert!(lines.contains("2 failed requests"), "{lines}");
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        assert_eq!(judged(disk(&[])).unfit, None);
        let mut empty = disk(&[]);
        empty.health.verdict = Verdict::Empty;
        assert!(judged(empty).unfit.unwrap().contains("no medium"));
        let mut gone = disk(&[]);
        gone.health.verdict = Verdict::Offline;
        assert!(judged(gone).unfit.unwrap().contains("cable"));
        let mut boot = disk(&[]);
        boot.boot_medium = true;
        assert!(judged(boot).unfit.unwrap().contains("started from"));
    }
}
