//! The whole rescue: a dying disk, a destination, and afterwards on the host every
//! byte that the disk still gave.
//!
//! Each test boots a machine: `scripts/test --qemu` runs them.

use std::{fs, path::Path, process::Command, time::Duration};

use asl_qemu::{Bus, Disk, Error, Machine, Medium, Result, Spread, host, program, story};

const SECTOR: usize = 512;
const PATIENT_BYTES: usize = 64 << 20;
const BAD_SECTORS: usize = 200;
/// Translated, a capture with 200 bad sectors takes about a minute.
const CAPTURE: Duration = Duration::from_secs(600);

/// The device that has this serial number.
fn device(machine: &mut asl_qemu::Running, serial: &str) -> Result<String> {
    let found = machine
        .console
        .run(&format!(
            "readlink -f $(ls -d /dev/disk/by-id/*{serial}* | grep -v -e -part | head -n 1)"
        ))?
        .ok()?;
    Ok(found.trim().to_owned())
}

/// Bad sectors as ranges of bytes: what a report lists.
fn ranges(bad: &[u64]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for start in bad.iter().map(|sector| sector * SECTOR as u64) {
        match ranges.last_mut() {
            Some((from, length)) if *from + *length == start => *length += SECTOR as u64,
            _ => ranges.push((start, SECTOR as u64)),
        }
    }
    ranges
}

fn rescue(name: &str, bus: Bus) {
    story(name, |directory| {
        // A third of it empty, as disks are.
        let mut spread = Spread::new(bus as u64 + 1);
        let mut patient = spread.bytes(PATIENT_BYTES);
        patient[PATIENT_BYTES / 3..PATIENT_BYTES * 2 / 3].fill(0);
        let bad = spread.bad_sectors(BAD_SECTORS, (PATIENT_BYTES / SECTOR) as u64);
        let patient_image = directory.join("patient.img");
        fs::write(&patient_image, &patient).expect("the story's directory can be written");
        let destination_image = directory.join("destination.img");
        host(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4", "-L", "rescue"])
                .arg(&destination_image)
                .arg("256M"),
            &[0],
        )?;

        let mut machine = Machine::new(name, Medium::of_the_day()?)
            .disk(Disk::new("DYING001", patient_image, bus).bad_sectors(bad.iter().copied()))
            .disk(Disk::new("DEST0002", &destination_image, Bus::Virtio))
            .start()?;
        let greeting = machine.log_in()?;
        assert!(greeting.contains("DYING001"), "{greeting}");
        let dying = device(&mut machine, "DYING001")?;
        let destination = device(&mut machine, "DEST0002")?;
        let console = &mut machine.console;
        console
            .run(&format!("mount {destination} /mnt/asl/local"))?
            .ok()?;
        console
            .run("export ASL_STORE=/mnt/asl/local/rescue")?
            .ok()?;
        console.run("asl store init $ASL_STORE")?.ok()?;
        // Exit code 3: finished, some bytes are unreadable.
        let captured = console
            .run_within(
                &format!("asl-capture disk {dying} --label patient"),
                CAPTURE,
            )?
            .status(3)?;
        assert!(captured.contains("100.0 KiB"), "{captured}");
        console.run_within("asl store verify", CAPTURE)?.ok()?;
        assert_eq!(machine.stats("DYING001")?.written_bytes, 0);
        machine.console.run("umount /mnt/asl/local")?.ok()?;
        machine.power_off()?;

        bring_home(directory, &destination_image, &patient, &bad)
    });
}

/// On the host, as a workstation would get it: the unreadable list is exact, and every other byte is the disk's.
fn bring_home(directory: &Path, destination: &Path, patient: &[u8], bad: &[u64]) -> Result<()> {
    let asl = program("asl")?;
    host(
        Command::new("debugfs")
            .arg("-R")
            .arg(format!("rdump /rescue {}", directory.display()))
            .arg(destination),
        &[0],
    )?;
    let store = directory.join("rescue");
    let shown = host(
        Command::new(&asl)
            .args(["show", "patient", "--json", "--store"])
            .arg(&store),
        &[0, 3],
    )?;
    let shown: serde_json::Value =
        serde_json::from_slice(&shown).map_err(|error| Error::Refused {
            order: "asl show".to_owned(),
            answer: error.to_string(),
        })?;
    let listed: Vec<(u64, u64)> = shown["unreadable"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|range| {
            // Start, length, the kernel's error number.
            let number = |at: usize| range[at].as_u64().unwrap_or(u64::MAX);
            (number(0), number(1))
        })
        .collect();
    assert_eq!(listed, ranges(bad), "{shown}");

    let image = directory.join("home.img");
    host(
        Command::new(&asl)
            .args(["export", "patient"])
            .arg(&image)
            .args(["--fill", "pattern:5a", "--store"])
            .arg(&store),
        &[3],
    )?;
    let home = fs::read(&image).map_err(|source| Error::Host {
        what: "cannot read",
        path: image.clone(),
        source,
    })?;
    let mut expected = patient.to_vec();
    for (start, length) in ranges(bad) {
        expected[start as usize..(start + length) as usize].fill(0x5a);
    }
    assert_eq!(home.len(), expected.len());
    let differ = home
        .chunks(SECTOR)
        .zip(expected.chunks(SECTOR))
        .position(|(one, other)| one != other);
    assert_eq!(differ, None, "the first sector that differs");
    Ok(())
}

/// Covers K2, K3, K4.
#[test]
#[ignore = "boots a machine"]
fn of_a_virtio_disk() {
    rescue("rescue-virtio", Bus::Virtio);
}

/// Covers K2, K3, K4.
#[test]
#[ignore = "boots a machine"]
fn of_a_scsi_disk() {
    rescue("rescue-scsi", Bus::Scsi);
}

/// Covers K2, K3, K4.
#[test]
#[ignore = "boots a machine"]
fn of_an_nvme_disk() {
    rescue("rescue-nvme", Bus::Nvme);
}

/// Covers K2, K3, K4.
#[test]
#[ignore = "boots a machine"]
fn of_a_usb_disk() {
    rescue("rescue-usb", Bus::Usb);
}
