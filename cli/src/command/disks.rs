//! `asl disks`: which disk may be the dying one, which may take the rescue.
//!
//! A filesystem that is not mounted is named as a likely destination only where a disk has shown that it is the dying one: else
//! what is named, and then mounted, might be the patient.
//!
//! Only what the kernel and udev know already is asked for. Space is asked of file
//! systems that are mounted and writable, since one that is will answer from
//! memory.

use std::io::{self, Write};

use asl_capture::inventory::{Contents, Holder, Partition, SystemPaths};
use serde::Serialize;

use crate::error::{Exit, Result};
use crate::face::Face;
use crate::health::Verdict;
use crate::machine::{self, SurveyedDisk};
use crate::mountable::Mountable;
use crate::report::Outcome;
use crate::text;

/// The machine's disks.
#[derive(Debug, Serialize)]
struct Disks {
    disks: Vec<SurveyedDisk>,
}

/// A row of the table: 80 columns in all.
fn row(out: &mut dyn Write, name: &str, size: &str, what: &str, rest: &str) -> io::Result<()> {
    let line = format!(
        "{:<20} {:>10}  {:<14} {}",
        text::fit(&text::visible(name), 20),
        size,
        text::fit(&text::visible(what), 14),
        text::fit(&text::visible(rest), 32)
    );
    writeln!(out, "{}", line.trim_end())
}

impl Disks {
    /// The disks that have shown that they are dying.
    fn patients(&self) -> impl Iterator<Item = &SurveyedDisk> {
        let ails = |verdict| matches!(verdict, Verdict::Worn | Verdict::Failing | Verdict::Offline);
        let disks = self.disks.iter();
        disks.filter(move |listed| !listed.boot_medium && ails(listed.health.verdict))
    }

    /// Whether there are places that are not named because any disk may be the dying one.
    fn holds_back(&self) -> bool {
        let mut disks = self.disks.iter();
        let named = disks.any(|listed| !listed.destinations.is_empty());
        let mut disks = self.disks.iter().filter(|listed| !listed.boot_medium);
        !named
            && self.patients().next().is_none()
            && disks.any(|listed| !listed.mountable.is_empty())
    }
}

impl SurveyedDisk {
    fn show_mountable(&self, out: &mut dyn Write, patients: &[&Self]) -> io::Result<()> {
        if self.boot_medium {
            return Ok(());
        }
        let is_patients = |place: &&Mountable| {
            let mut patients = patients.iter();
            patients.any(|patient| place.is_also_on(&patient.disk))
        };
        for place in self.mountable.iter().filter(|place| !is_patients(place)) {
            let size = text::size(place.size_bytes);
            let path = text::visible(&place.path);
            writeln!(out, "  likely destination, once mounted: {path}, {size}")?;
        }
        Ok(())
    }
}

impl Outcome for Disks {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.disks.is_empty() {
            return writeln!(out, "no disks");
        }
        row(out, "DEVICE", "SIZE", "WHAT", "NAME AND USE")?;
        let patients: Vec<_> = self.patients().collect();
        for listed in &self.disks {
            listed.show(out)?;
            if !patients.is_empty() {
                listed.show_mountable(out, &patients)?;
            }
        }
        if self.disks.iter().all(|listed| listed.boot_medium) {
            writeln!(
                out,
                "no other disk: check cables and power, then look again"
            )?;
        }
        Ok(())
    }
}

impl Outcome for SurveyedDisk {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let disk = &self.disk;
        let mut what = disk.transport.clone().unwrap_or_else(|| "disk".to_owned());
        if disk.removable {
            what.push_str(", removable");
        } else if disk.rotational {
            what.push_str(", hdd");
        }
        let name = [disk.model.as_deref(), disk.backing_file.as_deref()];
        let name = name.into_iter().flatten().next().unwrap_or("");
        row(out, &disk.path, &text::size(disk.size_bytes), &what, name)?;
        let mut about = Vec::new();
        if let Some(serial) = &disk.serial {
            about.push(format!("serial {serial}"));
        }
        if self.boot_medium {
            about.push("BOOT MEDIUM".to_owned());
        }
        if let Some(words) = self.health.words() {
            about.push(words.to_uppercase());
        }
        if let Some(count) = self.health.failed_requests.filter(|count| *count > 0) {
            about.push(text::count(count, "failed request"));
        }
        for words in about {
            row(out, "", "", "", &words)?;
        }
        contents(out, &disk.contents, 1)?;
        partitions(out, &disk.partitions, 1)?;
        for place in &self.destinations {
            let free = text::size(place.available_bytes);
            let place = text::visible(&place.mount_point).into_owned();
            writeln!(out, "  likely destination: {place}, {free} free")?;
        }
        Ok(())
    }
}

fn partitions(out: &mut dyn Write, of: &[Partition], depth: usize) -> io::Result<()> {
    for partition in of {
        below(
            out,
            depth,
            &partition.path,
            partition.size_bytes,
            None,
            &partition.contents,
        )?;
    }
    Ok(())
}

fn below(
    out: &mut dyn Write,
    depth: usize,
    path: &str,
    size_bytes: u64,
    kind: Option<&str>,
    of: &Contents,
) -> io::Result<()> {
    let name = path.strip_prefix("/dev/").unwrap_or(path);
    let name = format!("{:1$}{name}", "", 2 * depth);
    let what = of.fs_type.as_deref().or(kind).unwrap_or("");
    let label = of
        .label
        .as_deref()
        .map_or(String::new(), |label| format!("\"{label}\""));
    row(out, &name, &text::size(size_bytes), what, &label)?;
    contents(out, of, depth + 1)
}

fn contents(out: &mut dyn Write, of: &Contents, depth: usize) -> io::Result<()> {
    for mount in &of.mounts {
        let mode = if mount.read_only {
            "mounted ro"
        } else {
            "MOUNTED rw"
        };
        row(out, "", "", mode, &mount.mount_point)?;
    }
    if of.swap {
        row(out, "", "", "IN USE", "as swap")?;
    }
    for Holder {
        path,
        size_bytes,
        kind,
        contents,
        partitions: parts,
        ..
    } in &of.holders
    {
        below(out, depth, path, *size_bytes, kind.as_deref(), contents)?;
        partitions(out, parts, depth + 1)?;
    }
    Ok(())
}

/// Lists the disks.
pub fn run(face: &Face) -> Result {
    let disks = Disks {
        disks: machine::survey(&SystemPaths::default()),
    };
    face.report.result(&disks)?;
    if face.report.is_human() {
        if disks.holds_back() {
            face.report.note(
                "which disk is the dying one is not known, so none is named as a destination",
            );
        }
        face.report
            .note("health is unknown where nothing is said; to ask: smartctl -H DEVICE");
    }
    Ok(Exit::Complete)
}

#[cfg(test)]
mod tests {
    use asl_capture::inventory::{Disk, Mounted};

    use super::*;
    use crate::health::Health;
    use crate::machine::Place;
    use crate::mountable::mountable;

    fn disk() -> Disk {
        let mounted = |mount_point: &str| Mounted {
            mount_point: mount_point.to_owned(),
            fs_type: "ext4".to_owned(),
            read_only: false,
        };
        let inner = Contents {
            fs_type: Some("ext4".to_owned()),
            label: Some("evil \u{1b}[2J name".to_owned()),
            mounts: vec![mounted("/run/media/somebody/with/a/very/long/path/indeed")],
            ..Contents::default()
        };
        let luks = Contents {
            fs_type: Some("crypto_LUKS".to_owned()),
            holders: vec![Holder {
                name: "dm-0".to_owned(),
                path: "/dev/mapper/luks-0123456789".to_owned(),
                kind: Some("crypt".to_owned()),
                size_bytes: 1 << 40,
                contents: inner,
                partitions: Vec::new(),
            }],
            ..Contents::default()
        };
        Disk {
            name: "sda".to_owned(),
            path: "/dev/sda".to_owned(),
            by_id: Vec::new(),
            model: Some("A disk with quite a long model name indeed".to_owned()),
            serial: Some("SERIAL".to_owned()),
            wwn: None,
            firmware: None,
            transport: Some("usb".to_owned()),
            backing_file: None,
            size_bytes: 1 << 40,
            logical_sector_bytes: 512,
            physical_sector_bytes: 4096,
            rotational: true,
            removable: true,
            read_only: false,
            contents: Contents::default(),
            partitions: vec![Partition {
                name: "sda1".to_owned(),
                path: "/dev/sda1".to_owned(),
                number: 1,
                start_bytes: 1 << 20,
                size_bytes: 1 << 40,
                contents: luks,
            }],
        }
    }

    #[test]
    fn the_table_fits_80_columns_and_has_no_escapes() {
        let disk = disk();
        let listed = SurveyedDisk {
            health: Health {
                verdict: Verdict::Offline,
                failed_requests: Some(3),
            },
            boot_medium: true,
            system: false,
            in_use: disk.in_use(),
            destinations: Vec::new(),
            mountable: Vec::new(),
            disk,
        };
        let shown = |disks| {
            let mut shown = Vec::new();
            Disks { disks }.show(&mut shown).unwrap();
            String::from_utf8(shown).unwrap()
        };
        let other = SurveyedDisk {
            boot_medium: false,
            ..listed.clone()
        };
        assert!(!shown(vec![listed.clone(), other]).contains("no other disk"));
        let shown = shown(vec![listed]);
        assert!(
            shown.lines().all(|line| line.chars().count() <= 80),
            "{shown}"
        );
        assert!(!shown.contains('\u{1b}'));
        for part in [
            "crypto_LUKS",
            "MOUNTED rw",
            "DOES NOT ANSWER",
            "BOOT MEDIUM",
            "SERIAL",
            "no other disk",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn a_place_to_mount_is_named_when_the_patient_is_known() {
        let listed = |name: &str, verdict| {
            let contents = Contents::default();
            let path = format!("/dev/{name}");
            let disk = Disk {
                name: name.to_owned(),
                partitions: Vec::new(),
                contents,
                path,
                ..disk()
            };
            SurveyedDisk {
                health: Health {
                    verdict,
                    failed_requests: None,
                },
                boot_medium: false,
                system: false,
                in_use: false,
                destinations: Vec::new(),
                mountable: mountable(&disk, verdict),
                disk,
            }
        };
        let shown = |disks: &Disks| {
            let mut shown = Vec::new();
            disks.show(&mut shown).unwrap();
            String::from_utf8(shown).unwrap()
        };
        let place = "  likely destination, once mounted: /dev/sdb, 1.0 TiB\n";
        let other = listed("sdb", Verdict::Unknown);
        let with = |patient: SurveyedDisk| Disks {
            disks: vec![patient, other.clone()],
        };
        for verdict in [Verdict::Failing, Verdict::Offline, Verdict::Worn] {
            let disks = with(listed("sda", verdict));
            assert!(shown(&disks).contains(place) && !disks.holds_back());
            assert_eq!(shown(&disks).matches("likely").count(), 1);
        }
        // Either may be the patient.
        for verdict in [Verdict::Unknown, Verdict::Empty] {
            let disks = with(listed("sda", verdict));
            assert!(!shown(&disks).contains("likely") && disks.holds_back());
        }
        // A worn stick that the system came from is no patient.
        let medium = SurveyedDisk {
            boot_medium: true,
            ..listed("sda", Verdict::Worn)
        };
        let disks = with(medium);
        assert!(!shown(&disks).contains("likely") && disks.holds_back());
        // What is mounted was mounted by somebody who knows.
        let mut disks = with(listed("sda", Verdict::Unknown));
        disks.disks[1].destinations.push(Place {
            mount_point: "/mnt".to_owned(),
            available_bytes: 1 << 40,
        });
        assert!(!disks.holds_back());
    }

    #[test]
    fn the_boot_medium_and_the_system_are_no_destination() {
        let system = SystemPaths::below("/nonexistent");
        let mut disk = disk();
        let contents = &mut disk.partitions[0].contents.holders[0].contents;
        contents.mounts[0].mount_point = "/run/archiso/bootmnt".to_owned();
        let listed = SurveyedDisk::of(&system, disk.clone());
        assert!(listed.boot_medium && listed.in_use && listed.destinations.is_empty());
        let contents = &mut disk.partitions[0].contents.holders[0].contents;
        contents.mounts[0].mount_point = "/".to_owned();
        let listed = SurveyedDisk::of(&system, disk);
        assert!(listed.system && !listed.boot_medium && listed.destinations.is_empty());
    }
}
