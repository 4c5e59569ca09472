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

use asl_qemu::{
    Bus, Disk, FileSystem, Machine, Medium, Patient, Result, Running, Spread, Writes, host,
    program, story,
};

/// A disk that takes half a minute to read, so that there is a middle.
const PATIENT_BYTES: usize = 96 << 20;
const SLOW: u64 = 3 << 20;
const CAPTURE: Duration = Duration::from_secs(300);

fn patient(directory: &Path) -> PathBuf {
    let image = directory.join("patient.img");
    fs::write(&image, Spread::new(5).bytes(PATIENT_BYTES))
        .expect("the story's directory can be written");
    image
}

fn destination(directory: &Path, mib: u64) -> Result<PathBuf> {
    let image = directory.join("destination.img");
    FileSystem::Ext4.image(&image, mib)?;
    Ok(image)
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

/// Covers K4, K7.
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
                destination(directory, 256)?,
                Bus::Virtio,
            ))
            .start()?;
        machine.log_in()?;
        machine.mount("DEST0002")?;
        machine.console.run("asl store init $ASL_STORE")?.ok()?;

        let dying = machine.device("DYING001")?;
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
        let back = machine.device("DYING001")?;
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

/// Covers K4, K7.
#[test]
#[ignore = "boots a machine"]
fn the_power_fails_three_times() {
    let name = "trouble-power";
    story(name, |directory| {
        let image = patient(directory);
        let destination = destination(directory, 256)?;
        let mut read_bytes = 0;
        for round in 0..4 {
            let mut machine = Machine::new(name, Medium::of_the_day()?)
                .disk(Disk::new("DYING001", &image, Bus::Virtio).slow(SLOW))
                .disk(Disk::new("DEST0002", &destination, Bus::Virtio))
                .start()?;
            machine.log_in()?;
            machine.mount("DEST0002")?;
            if round == 0 {
                machine.console.run("asl store init $ASL_STORE")?.ok()?;
            }
            let dying = machine.device("DYING001")?;
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

/// Covers K4, K7.
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
                destination(directory, 256)?,
                Bus::Sata,
            ))
            .start()?;
        machine.log_in()?;
        machine.mount("DEST0002")?;
        machine.console.run("asl store init $ASL_STORE")?.ok()?;
        machine
            .console
            .run_within(
                "dd if=/dev/zero of=/mnt/asl/local/ballast bs=1M count=160 && sync",
                CAPTURE,
            )?
            .ok()?;
        let dying = machine.device("DYING001")?;
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

/// The destination's writes are kept in their order. Whatever moment the power fails at, and whatever part of what was
/// not flushed is lost with it: the store opens, and has at least what the capture had called safe by then.
///
/// Covers K4, K7.
#[test]
#[ignore = "boots a machine"]
fn what_was_called_safe_survives_a_cut_between_any_two_writes() {
    let name = "trouble-writes";
    story(name, |directory| {
        let patient = Patient::new(directory, 6, 64, 0)?;
        let image = destination(directory, 192)?;
        let fresh = directory.join("fresh.img");
        host(
            Command::new("cp")
                .arg("--sparse=always")
                .args([&image, &fresh]),
            &[0],
        )?;
        let log = directory.join("writes");
        let log_bytes = || fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mut machine = Machine::new(name, Medium::of_the_day()?)
            .disk(patient.disk(Bus::Virtio).slow(SLOW))
            .disk(Disk::new("DEST0002", &image, Bus::Virtio).logged(&log))
            .start()?;
        machine.log_in()?;
        machine.mount("DEST0002")?;
        machine.console.run("asl store init $ASL_STORE")?.ok()?;
        machine.console.run("sync")?.ok()?;
        let begun = log_bytes();

        // What was said to be safe, and how long the log was by the time that it was read here.
        let mut safe: Vec<(u64, u64)> = vec![(begun, 0)];
        let dying = machine.device(Patient::SERIAL)?;
        machine.console.start(&format!(
            "asl-capture disk {dying} --label patient --events --quiet"
        ))?;
        while safe.last().is_none_or(|(_, bytes)| *bytes < 40 << 20) {
            machine.console.expect("\"durable_bytes\":", CAPTURE)?;
            let number = machine.console.expect(",", CAPTURE)?;
            let bytes = number.trim_end_matches(',').parse().unwrap_or(0);
            safe.push((log_bytes(), bytes));
        }
        machine.cut_power()?;

        let writes = Writes::read(&log)?;
        let first = writes.within(begun);
        let mut chance = Spread::new(11);
        let mut cuts: Vec<usize> = (0..CUTS)
            .map(|nth| first + (writes.len() - first) * nth / CUTS)
            .collect();
        // The moments right before and after something was called safe.
        for (length, _) in safe.iter().skip(2).step_by(4) {
            let count = writes.within(*length);
            cuts.extend([count.saturating_sub(1).max(first), count]);
        }
        cuts.push(writes.len());
        cuts.sort_unstable();
        cuts.dedup();
        let asl = program("asl")?;
        let mut least = u64::MAX;
        for cut in cuts {
            let copy = directory.join("cut.img");
            host(
                Command::new("cp")
                    .arg("--sparse=always")
                    .args([&fresh, &copy]),
                &[0],
            )?;
            writes.replay(&copy, cut, &mut chance)?;
            let mut told = safe.iter().rev();
            let told = told.find(|(length, _)| writes.within(*length) <= cut);
            let told = told.map_or(0, |(_, bytes)| *bytes);
            let mounted = FileSystem::Ext4.mount_writable(&copy)?;
            let store = mounted.path().join("rescue");
            host(
                Command::new(&asl)
                    .args(["store", "verify", "--store"])
                    .arg(&store),
                &[0],
            )?;
            let kept = rescued(&asl, &store, &directory.join("out.img"), &patient)?;
            assert!(
                kept >= told,
                "cut {cut}: {kept} bytes, {told} had been called safe"
            );
            least = least.min(kept - told);
        }
        eprintln!(
            "{name}: {} writes, {} reports; never less than called safe, at least {} KiB more",
            writes.len() - first,
            safe.len(),
            least >> 10
        );
        Ok(())
    });
}

/// Moments at which the power fails, evenly over the capture.
const CUTS: usize = 12;

/// Bytes of the disk that an unfinished capture in this store has, all of them compared with the disk's.
fn rescued(asl: &Path, store: &Path, out: &Path, patient: &Patient) -> Result<u64> {
    let listed = host(
        Command::new(asl)
            .args(["captures", "--json", "--store"])
            .arg(store),
        &[0],
    )?;
    if !String::from_utf8_lossy(&listed).contains("\"patient\"") {
        return Ok(0);
    }
    // As if the disk were lost: then what there is becomes an image.
    host(
        Command::new(program("asl-capture")?)
            .args(["finish", "patient", "--store"])
            .arg(store),
        &[0, 3],
    )?;
    let _ = fs::remove_file(out);
    host(
        Command::new(asl)
            .args(["export", "patient"])
            .arg(out)
            .args(["--fill", "pattern:5a", "--quiet", "--store"])
            .arg(store),
        &[0, 3],
    )?;
    let got = fs::read(out).expect("it was just written");
    assert_eq!(got.len(), patient.bytes.len());
    let mut kept = 0;
    for (nth, (one, other)) in got.chunks(512).zip(patient.bytes.chunks(512)).enumerate() {
        if one == other {
            kept += one.len() as u64;
        } else {
            assert!(one.iter().all(|byte| *byte == 0x5a), "sector {nth}");
        }
    }
    Ok(kept)
}
