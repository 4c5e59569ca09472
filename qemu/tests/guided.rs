//! `asl` and nothing else, as the greeting says: led through a rescue by questions, to a disk that nobody has mounted.
//!
//! Each test boots a machine: `scripts/test --qemu` runs them.

use std::{fs, time::Duration};

use asl_qemu::{
    Bus, Disk, FileSystem, Machine, Medium, Patient, Result, Running, export_and_compare, story,
};

/// Translated, on a busy host.
const LONG: Duration = Duration::from_secs(1200);
/// Larger than what `asl` takes for too small to be meant.
const DESTINATION_MIB: u64 = 2 << 10;

/// Answers the guide's questions up to the plan, with Enter where that will do.
fn begin(machine: &mut Running) -> Result<String> {
    let console = &mut machine.console;
    let end = console.start("asl")?;
    console.expect("The disk (arrow", LONG)?;
    console.send("\r")?;
    console.expect("Read /dev/sda? [Y/n]", LONG)?;
    console.send("\r")?;
    console.expect("The place (arrow", LONG)?;
    console.send("\r")?;
    Ok(end)
}

/// The dying disk has failed while the kernel looked for partitions, so what greets knows which one it is, and names the other.
/// Nobody looks at that one before it is chosen.
///
/// Covers K2, K3, K4, K7.
#[test]
#[ignore = "boots a machine"]
fn a_rescue_led_by_questions_onto_a_disk_that_was_not_mounted() {
    let name = "guided";
    story(name, |directory| {
        let mut patient = Patient::new(directory, 77, 64, 20)?;
        patient.bad.retain(|sector| *sector != 0);
        patient.bad.insert(0, 0);
        let image = directory.join("destination.img");
        FileSystem::Ext4.disk_image(&image, DESTINATION_MIB)?;
        let mut machine = Machine::new(name, Medium::of_the_day()?)
            .disk(patient.disk(Bus::Sata))
            .disk(Disk::new("DEST0002", &image, Bus::Uas).named("WD", "Elements"))
            .start()?;
        let greeting = machine.log_in()?;
        for words in [
            "HAS FAILED TO READ OR WRITE",
            "  likely destination, once mounted: /dev/sdb1, 2.0 GiB",
        ] {
            assert!(greeting.contains(words), "no {words:?} in:\n{greeting}");
        }
        assert_eq!(
            greeting.matches("likely destination").count(),
            1,
            "{greeting}"
        );

        let before = machine.stats("DEST0002")?.read_bytes;
        let end = begin(&mut machine)?;
        let console = &mut machine.console;
        let told = console.expect("The name", LONG)?;
        for words in ["Looking at what is on /dev/sdb1", "It is ext4 \"rescue\"."] {
            assert!(told.contains(words), "no {words:?} in:\n{told}");
        }
        console.send("patient\r")?;
        let plan = console.expect("Begin?", LONG)?;
        assert!(
            plan.contains("$ mount /dev/sdb1 /mnt/asl/local/sdb1"),
            "{plan}"
        );
        // It was looked at, no more than that, and not written to.
        let stats = machine.stats("DEST0002")?;
        assert!(stats.read_bytes > before, "{stats:?}");
        assert_eq!(stats.written_bytes, 0, "{stats:?}");
        let console = &mut machine.console;
        console.send("\r")?;
        console.expect("Check it now?", LONG)?;
        console.send("\r")?;
        let checked = console.expect("Mint one now?", LONG)?;
        assert!(
            checked.contains("every byte is as it was written"),
            "{checked}"
        );
        console.send("n\r")?;
        // Finished, with some bytes that nobody can read.
        let ended = console.finish(&end, LONG)?.status(3)?;
        assert!(ended.contains("$ umount /mnt/asl/local/sdb1"), "{ended}");
        console.run("umount /mnt/asl/local/sdb1")?.ok()?;

        // Led once more, as after a power cut: the store that comes to light when the disk is mounted is the one that is used.
        let end = begin(&mut machine)?;
        let console = &mut machine.console;
        console.expect("The name", LONG)?;
        console.send("again\r")?;
        console.expect("Begin?", LONG)?;
        console.send("\r")?;
        let used = console.expect("There is a store already", LONG)?;
        assert!(!used.contains("$ asl store init"), "{used}");
        console.expect("Check it now?", LONG)?;
        console.send("n\r")?;
        console.expect("Mint one now?", LONG)?;
        console.send("n\r")?;
        console.finish(&end, LONG)?.status(3)?;
        assert_eq!(machine.stats(Patient::SERIAL)?.written_bytes, 0);
        machine.console.run("umount /mnt/asl/local/sdb1")?.ok()?;
        machine.power_off()?;

        let mounted = FileSystem::Ext4.mount_partition(&image)?;
        let store = mounted.path().join("asl-rescue");
        export_and_compare(directory, "--store", &store, &patient)?;
        drop(mounted);
        fs::remove_file(&image).expect("the story's directory can be written");
        Ok(())
    });
}
