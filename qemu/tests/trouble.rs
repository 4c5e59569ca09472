//! What goes wrong in the middle of a capture: power, cables, space. Each time the same
//! command goes on where it stopped.
//!
//! Each test boots a machine: `scripts/test --qemu` runs them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use asl_qemu::{Bus, Disk, Machine, Medium, Result, Running, Spread, host, story};

/// A disk that takes half a minute to read, so that there is a middle.
const PATIENT_BYTES: usize = 96 << 20;
const SLOW: u64 = 3 << 20;
const CAPTURE: Duration = Duration::from_secs(300);
const STORE: &str = "/mnt/asl/local/rescue";

fn patient(directory: &Path) -> PathBuf {
    let image = directory.join("patient.img");
    fs::write(&image, Spread::new(5).bytes(PATIENT_BYTES))
        .expect("the story's directory can be written");
    image
}

fn destination(directory: &Path, size: &str) -> Result<PathBuf> {
    let image = directory.join("destination.img");
    host(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-L", "rescue"])
            .arg(&image)
            .arg(size),
        &[0],
    )?;
    Ok(image)
}

/// The device that has this serial number now.
fn device(machine: &mut Running, serial: &str) -> Result<String> {
    let find = format!("ls -d /dev/disk/by-id/*{serial}* | grep -v -e -part | head -n 1");
    let found = machine
        .console
        .run(&format!("for i in $(seq 60); do d=$({find}); [ -z \"$d\" ] || break; sleep 1; done 2>/dev/null; readlink -f $d"))?
        .ok()?;
    Ok(found.trim().to_owned())
}

fn mount(machine: &mut Running) -> Result<()> {
    let destination = device(machine, "DEST0002")?;
    machine
        .console
        .run(&format!("mount {destination} /mnt/asl/local"))?
        .ok()?;
    machine
        .console
        .run(&format!("export ASL_STORE={STORE}"))?
        .ok()?;
    Ok(())
}

/// The finished capture's image is the disk, byte for byte.
fn whole(machine: &mut Running, image: &Path) -> Result<()> {
    let expected = host(Command::new("sha256sum").arg(image), &[0])?;
    let expected = String::from_utf8_lossy(&expected).into_owned();
    let expected = expected.split_whitespace().next().unwrap_or_default();
    let got = machine
        .console
        .run_within("asl export patient - | sha256sum", CAPTURE)?
        .ok()?;
    assert!(got.contains(expected), "{got}, not {expected}");
    Ok(())
}

/// Covers K4.
#[test]
#[ignore = "boots a machine"]
fn a_cable_comes_off_and_goes_into_another_port() {
    let name = "trouble-cable";
    story(name, |directory| {
        let image = patient(directory);
        let mut machine = Machine::new(name, Medium::of_the_day()?)
            .disk(Disk::new("DYING001", &image, Bus::Usb).slow(SLOW))
            .disk(Disk::new(
                "DEST0002",
                destination(directory, "256M")?,
                Bus::Virtio,
            ))
            .start()?;
        machine.log_in()?;
        mount(&mut machine)?;
        machine.console.run("asl store init $ASL_STORE")?.ok()?;

        let dying = device(&mut machine, "DYING001")?;
        let end = machine
            .console
            .start(&format!("asl-capture disk {dying} --label patient --quiet"))?;
        thread::sleep(Duration::from_secs(12));
        machine.unplug("DYING001")?;
        let stopped = machine
            .console
            .finish(&end, Duration::from_secs(60))?
            .status(1)?;
        for words in ["the disk is gone", "asl-capture disk", "unreadable  0 B"] {
            assert!(stopped.contains(words), "{stopped}");
        }
        let captures = machine.console.run("asl captures --json")?.ok()?;
        assert!(captures.contains("\"unreadable_bytes\":0"), "{captures}");

        machine.plug("DYING001", Bus::Scsi)?;
        let back = device(&mut machine, "DYING001")?;
        machine
            .console
            .run_within(
                &format!("asl-capture disk {back} --resume --quiet"),
                CAPTURE,
            )?
            .ok()?;
        whole(&mut machine, &image)?;
        machine.power_off()
    });
}

#[test]
#[ignore = "boots a machine"]
fn the_power_fails_three_times() {
    let name = "trouble-power";
    story(name, |directory| {
        let image = patient(directory);
        let destination = destination(directory, "256M")?;
        let mut read_bytes = 0;
        for round in 0..4 {
            let mut machine = Machine::new(name, Medium::of_the_day()?)
                .disk(Disk::new("DYING001", &image, Bus::Virtio).slow(SLOW))
                .disk(Disk::new("DEST0002", &destination, Bus::Virtio))
                .start()?;
            machine.log_in()?;
            mount(&mut machine)?;
            if round == 0 {
                machine.console.run("asl store init $ASL_STORE")?.ok()?;
            }
            let dying = device(&mut machine, "DYING001")?;
            let before = machine.stats("DYING001")?.read_bytes;
            let end = machine
                .console
                .start(&format!("asl-capture disk {dying} --label patient --quiet"))?;
            if round < 3 {
                thread::sleep(Duration::from_secs(7));
                read_bytes += machine.stats("DYING001")?.read_bytes - before;
                machine.cut_power()?;
                continue;
            }
            machine.console.finish(&end, CAPTURE)?.ok()?;
            read_bytes += machine.stats("DYING001")?.read_bytes - before;
            whole(&mut machine, &image)?;
            machine.power_off()?;
        }
        // What a cut may cost: what was read in the last second or two before it, and reading who the disk is again.
        let again = read_bytes.saturating_sub(PATIENT_BYTES as u64);
        eprintln!(
            "{name}: {} KiB were read a second time in three cuts",
            again >> 10
        );
        assert!(again <= 3 * 4 * SLOW, "{again} bytes were read again");
        Ok(())
    });
}

#[test]
#[ignore = "boots a machine"]
fn the_destination_is_full() {
    let name = "trouble-full";
    story(name, |directory| {
        let image = patient(directory);
        let mut machine = Machine::new(name, Medium::of_the_day()?)
            .disk(Disk::new("DYING001", &image, Bus::Nvme))
            .disk(Disk::new(
                "DEST0002",
                destination(directory, "256M")?,
                Bus::Sata,
            ))
            .start()?;
        machine.log_in()?;
        mount(&mut machine)?;
        machine.console.run("asl store init $ASL_STORE")?.ok()?;
        machine
            .console
            .run_within(
                "dd if=/dev/zero of=/mnt/asl/local/ballast bs=1M count=160 && sync",
                CAPTURE,
            )?
            .ok()?;
        let dying = device(&mut machine, "DYING001")?;
        let stopped = machine
            .console
            .run_within(
                &format!("asl-capture disk {dying} --label patient --quiet"),
                CAPTURE,
            )?
            .status(1)?;
        for words in ["the destination is full", "MiB are safe", "needed"] {
            assert!(stopped.contains(words), "{stopped}");
        }
        machine.console.run("rm /mnt/asl/local/ballast")?.ok()?;
        machine
            .console
            .run_within(
                &format!("asl-capture disk {dying} --resume --quiet"),
                CAPTURE,
            )?
            .ok()?;
        whole(&mut machine, &image)?;
        machine.power_off()
    });
}
