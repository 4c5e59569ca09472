//! The whole road of a rescue: a dying disk, a destination, a domain minted in the night, and afterwards at home, in a
//! domain of one's own, every byte that the disk still gave.
//!
//! Each test boots a machine: `scripts/test --qemu` runs them.

use std::{fs, time::Duration};

use asl_qemu::{
    Bus, Disk, FileSystem, Machine, Medium, Patient, export_and_compare, extract, mint, promote,
    story,
};

const PATIENT_MIB: usize = 64;
const BAD_SECTORS: usize = 200;
/// Translated, on a busy host. A capture with 200 bad sectors takes about a minute on a quiet one.
const LONG: Duration = Duration::from_secs(1200);

fn rescue(name: &str, bus: Bus, destination: FileSystem) {
    story(name, |directory| {
        let patient = Patient::new(directory, bus as u64 + 1, PATIENT_MIB, BAD_SECTORS)?;
        let image = directory.join("destination.img");
        destination.image(&image, 256)?;

        let mut machine = Machine::new(name, Medium::of_the_day()?)
            .disk(patient.disk(bus))
            .disk(Disk::new("DEST0002", &image, Bus::Usb))
            .start()?;
        let greeting = machine.log_in()?;
        assert!(greeting.contains(Patient::SERIAL), "{greeting}");
        let dying = machine.device(Patient::SERIAL)?;
        machine.mount("DEST0002")?;
        let console = &mut machine.console;
        console
            .run_within("asl store init $ASL_STORE", LONG)?
            .ok()?;
        // Exit code 3: finished, some bytes are unreadable.
        let capture = format!("asl-capture disk {dying} --label patient");
        let captured = console.run_within(&capture, LONG)?.status(3)?;
        assert!(captured.contains("100.0 KiB"), "{captured}");
        // Now the kernel has seen what is wrong with it; before, nobody had asked.
        let disks = console.run("asl disks")?.ok()?;
        let kernel = console.run("dmesg | tail -n 20")?.ok()?;
        assert!(
            disks.contains("HAS FAILED TO READ OR WRITE"),
            "{disks}\n{kernel}"
        );
        assert!(!greeting.contains("HAS FAILED"), "{greeting}");
        let verified = console.run_within("asl store verify", LONG)?.ok()?;
        assert!(!verified.contains('\u{2026}'), "{verified}");
        let minted = mint(console)?;
        console.run_within("asl domain verify", LONG)?.ok()?;
        assert_eq!(machine.stats(Patient::SERIAL)?.written_bytes, 0);
        machine.console.run("umount /mnt/asl/local")?.ok()?;
        machine.power_off()?;

        let mounted = destination.mount(&image)?;
        let store = mounted.path().join("rescue");
        export_and_compare(directory, "--store", &store, &patient)?;
        extract(directory, &store, &patient)?;
        let root = promote(directory, &store, &minted)?;
        drop(mounted);
        fs::remove_file(&image).expect("the story's directory can be written");
        export_and_compare(directory, "--root", &root, &patient)?;
        let members = fs::read_dir(root.join("domains")).expect("a root has domains");
        let member = members.flatten().map(|entry| entry.path());
        let mut member = member.filter(|path| path.join("blocks").is_dir());
        extract(directory, &member.next().expect("a store"), &patient)
    });
}

/// Covers K2, K3, K4, K5, K6, K7.
#[test]
#[ignore = "boots a machine"]
fn of_a_virtio_disk_onto_ext4() {
    rescue("rescue-virtio", Bus::Virtio, FileSystem::Ext4);
}

/// Covers K2, K3, K4, K5, K6, K7.
#[test]
#[ignore = "boots a machine"]
fn of_a_scsi_disk_onto_exfat() {
    rescue("rescue-scsi", Bus::Scsi, FileSystem::Exfat);
}

/// Covers K2, K3, K4, K5, K6, K7.
#[test]
#[ignore = "boots a machine"]
fn of_an_nvme_disk_onto_ntfs() {
    rescue("rescue-nvme", Bus::Nvme, FileSystem::Ntfs);
}

/// Covers K2, K3, K4, K5, K6, K7.
#[test]
#[ignore = "boots a machine"]
fn of_a_usb_disk_onto_btrfs() {
    rescue("rescue-usb", Bus::Usb, FileSystem::Btrfs);
}
