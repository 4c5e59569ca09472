//! Little memory, and places where a rescue must not go.
//!
//! Each test boots a machine: `scripts/test --qemu` runs them.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    process::Command,
    time::Duration,
};

use asl_qemu::{Bus, Disk, Machine, Medium, Spread, host, story};

const CAPTURE: Duration = Duration::from_secs(1200);

/// Covers K3, K7.
#[test]
#[ignore = "boots a machine"]
fn a_rescue_does_not_go_onto_the_patient_nor_where_nothing_can_be_written() {
    let name = "small-places";
    story(name, |directory| {
        let patient = directory.join("patient.img");
        let readonly = directory.join("readonly.img");
        for image in [&patient, &readonly] {
            host(
                Command::new("mke2fs")
                    .args(["-q", "-t", "ext4"])
                    .arg(image)
                    .arg("160M"),
                &[0],
            )?;
        }
        let mut machine = Machine::new(name, Medium::of_the_day()?)
            .disk(Disk::new("DYING001", &patient, Bus::Scsi))
            .disk(Disk::new("DEST0002", &readonly, Bus::Virtio).read_only())
            .start()?;
        machine.log_in()?;
        let console = &mut machine.console;
        console
            .run("mount /dev/disk/by-id/*DYING001 /mnt/asl/local")?
            .ok()?;
        console.run("asl store init /mnt/asl/local/rescue")?.ok()?;
        let refused = console
            .run(
                "asl-capture disk /dev/disk/by-id/*DYING001 --store /mnt/asl/local/rescue --quiet",
            )?
            .status(1)?;
        assert!(
            refused.contains("error:") && refused.contains("hint:"),
            "{refused}"
        );
        // Which place is home is known here, too, although no udev probes: a copy is told from what it was copied from.
        console
            .run("cp -a /mnt/asl/local/rescue /mnt/asl/local/copy")?
            .ok()?;
        let told = console
            .run("echo words > /tmp/words; asl put /tmp/words --store /mnt/asl/local/copy")?
            .ok()?;
        assert!(told.contains("is a copy"), "{told}");
        console.run("umount /mnt/asl/local")?.ok()?;

        console
            .run("mount -o ro /dev/disk/by-id/*DEST0002 /mnt/asl/local")?
            .ok()?;
        let refused = console
            .run("asl store init /mnt/asl/local/rescue")?
            .status(1)?;
        assert!(refused.to_lowercase().contains("read-only"), "{refused}");
        console.run("umount /mnt/asl/local")?.ok()?;

        // Nothing is mounted there now: it would all go into memory.
        let refused = console
            .run("asl store init /mnt/asl/local/rescue")?
            .status(1)?;
        assert!(
            refused.contains("mount /dev/DISK /mnt/asl/local (asl"),
            "{refused}"
        );
        machine.power_off()
    });
}

/// Nothing but a serial line of 80 by 24, and no disk but the medium's own.
///
/// Covers K2, K7.
#[test]
#[ignore = "boots a machine"]
fn no_disks_no_screen_no_colours() {
    let name = "small-bare";
    story(name, |_| {
        let mut machine = Machine::new(name, Medium::ours()?).headless().start()?;
        let greeting = machine.log_in()?;
        assert!(
            greeting.contains("no other disk: check cables"),
            "{greeting}"
        );
        assert_eq!(greeting.matches("BOOT MEDIUM").count(), 1, "{greeting}");
        assert!(!greeting.contains("/dev/loop"), "{greeting}");
        let shown = greeting.rsplit("This machine's disks").next();
        for line in shown.unwrap_or_default().lines() {
            assert!(line.is_ascii() && line.len() <= 80, "{line:?}");
        }
        let log = machine.directory().join("serial.log");
        let bytes = || fs::read(&log).expect("the harness keeps it");
        let before = bytes().len();
        let console = &mut machine.console;
        let size = console.run("stty size")?.ok()?;
        assert_eq!(size.trim(), "24 80");
        for command in [
            "NO_COLOR=1 asl disks",
            "NO_COLOR=1 asl --help",
            "NO_COLOR=1 asl-capture disk --help",
        ] {
            let shown = console.run(command)?.ok()?;
            for line in shown.lines() {
                assert!(line.is_ascii() && line.len() <= 80, "{command}: {line:?}");
            }
        }
        // Not as the harness shows it, but byte for byte as it came over the line.
        let raw = bytes().split_off(before);
        assert!(!raw.contains(&0x1b), "{}", String::from_utf8_lossy(&raw));
        // Nowhere to go, and it says so.
        let refused = console.run("asl store init /mnt/asl/local/rescue")?;
        assert!(refused.status(1)?.contains("nothing is mounted on"));
        machine.power_off()
    });
}

/// 16 GiB through a machine with 512 MiB, most of it in use by the system itself.
///
/// Covers K4, K7.
#[test]
#[ignore = "boots a machine"]
fn a_big_disk_and_little_memory() {
    let name = "small-memory";
    story(name, |directory| {
        const SIZE: u64 = 16 << 30;
        let image = directory.join("patient.img");
        let sparse = || -> std::io::Result<()> {
            let mut file = File::create(&image)?;
            file.set_len(SIZE)?;
            let mut spread = Spread::new(9);
            // A MiB in every GiB: enough to be met, little enough to be stored.
            for place in 0..16 {
                file.seek(SeekFrom::Start(
                    (place << 30) + (spread.number() % 1000) * 4096,
                ))?;
                file.write_all(&spread.bytes(1 << 20))?;
            }
            Ok(())
        };
        sparse().expect("the story's directory can be written");
        let destination = directory.join("destination.img");
        host(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4"])
                .arg(&destination)
                .arg("512M"),
            &[0],
        )?;
        let mut machine = Machine::new(name, Medium::of_the_day()?)
            .disk(Disk::new("DYING001", &image, Bus::Virtio))
            .disk(Disk::new("DEST0002", &destination, Bus::Virtio))
            .start()?;
        machine.log_in()?;
        let console = &mut machine.console;
        console
            .run("mount /dev/disk/by-id/*DEST0002 /mnt/asl/local")?
            .ok()?;
        console.run("asl store init /mnt/asl/local/rescue")?.ok()?;
        let captured = console
            .run_within(
                "asl-capture disk /dev/disk/by-id/*DYING001 --store /mnt/asl/local/rescue --quiet",
                CAPTURE,
            )?
            .ok()?;
        assert!(captured.contains("every byte was read"), "{captured}");
        let killed = console
            .run("dmesg | grep -c -i -E 'out of memory|oom-kill'")?
            .status(1)?;
        assert_eq!(killed.trim(), "0");
        let machine_took = machine.up();
        eprintln!("{name}: {} s", machine_took.as_secs());
        fs::remove_file(&image).expect("it is there");
        machine.power_off()
    });
}
