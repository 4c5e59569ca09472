//! What lies beside the system on the medium: modules, settings, boot entries; whole and
//! damaged.
//!
//! Each test boots a machine: `scripts/test --qemu` runs them.

use std::{fs, path::Path, process::Command};

use asl_qemu::{Firmware, Machine, Medium, Result, Running, host, story};

fn boot(name: &str, medium: Medium, firmware: Firmware) -> Result<(Running, String)> {
    let mut machine = Machine::new(name, medium).firmware(firmware).start()?;
    let greeting = machine.log_in()?;
    Ok((machine, greeting))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the story's directory can be written");
}

/// The tools are there, and the directories that a module shares with the system are the system's.
fn tools_are_in(machine: &mut Running) -> Result<()> {
    let modes = machine
        .console
        .run("stat -c '%a %u %n' / /usr /usr/local /usr/local/bin /usr/share /etc /var/lib /mnt")?
        .ok()?;
    for line in modes.lines() {
        assert!(line.starts_with("755 0 "), "{modes}");
    }
    for command in [
        "command -v asl",
        "asl --version",
        "asl-capture --version",
        "test -d /mnt/asl/remote",
        "test -d /var/lib/asl",
    ] {
        machine.console.run(command)?.ok()?;
    }
    Ok(())
}

fn customized(name: &str, firmware: Firmware) {
    story(name, |directory| {
        let medium = Medium::ours()?.customized(&directory.join("customized.iso"))?;
        let (mut machine, greeting) = boot(name, medium, firmware)?;
        assert!(greeting.contains("runs from memory"), "{greeting}");
        machine.console.run("grep -w nomdlvm /proc/cmdline")?.ok()?;
        tools_are_in(&mut machine)?;
        machine.power_off()
    });
}

/// Covers K1, K2, K7.
#[test]
#[ignore = "boots a machine"]
fn the_added_boot_entry_is_the_default_of_a_bios() {
    customized("overlay-bios", Firmware::Bios);
}

/// Covers K1, K2, K7.
#[test]
#[ignore = "boots a machine"]
fn the_added_boot_entry_is_the_default_of_uefi() {
    customized("overlay-uefi", Firmware::Uefi);
}

/// Covers K1, K2, K7.
#[test]
#[ignore = "boots a machine"]
fn a_second_module_lies_beside_ours() {
    story("overlay-second", |directory| {
        let tree = directory.join("tree/usr/local/share");
        fs::create_dir_all(&tree).expect("the story's directory can be written");
        write(&tree.join("second"), "here\n");
        let module = directory.join("zz-second.srm");
        host(
            Command::new("mksquashfs")
                .arg(directory.join("tree"))
                .arg(&module)
                .args(["-all-root", "-no-progress", "-quiet"]),
            &[0],
        )?;
        // Settings of one's own, read after all others: leave the medium where it is.
        let settings = directory.join("900-mine.yaml");
        write(&settings, "---\nglobal:\n    copytoram: false\n");
        let medium = Medium::ours()?.altered(
            &directory.join("second.iso"),
            &[
                (&module, "/sysresccd/zz-second.srm"),
                (&settings, "/sysrescue.d/900-mine.yaml"),
            ],
        )?;
        let (mut machine, greeting) = boot("overlay-second", medium, Firmware::Bios)?;
        assert!(!greeting.contains("runs from memory"), "{greeting}");
        machine
            .console
            .run("grep -q '^/dev/sr0 /run/archiso/bootmnt iso9660 ro' /proc/mounts")?
            .ok()?;
        assert_eq!(
            machine.console.run("cat /usr/local/share/second")?.ok()?,
            "here\n"
        );
        tools_are_in(&mut machine)?;
        machine.power_off()
    });
}

/// Covers K2, K7.
#[test]
#[ignore = "boots a machine"]
fn a_damaged_module_is_left_out_and_named() {
    story("overlay-damaged", |directory| {
        let ours = Medium::ours()?;
        let module = directory.join("asl.srm");
        host(
            Command::new("xorriso")
                .args(["-osirrox", "on", "-indev"])
                .arg(&ours.path)
                .args(["-extract", "/sysresccd/asl.srm"])
                .arg(&module),
            &[0],
        )?;
        let mut bytes = fs::read(&module).expect("xorriso wrote it");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&module, bytes).expect("the story's directory can be written");
        let medium = ours.altered(
            &directory.join("damaged.iso"),
            &[(&module, "/sysresccd/asl.srm")],
        )?;
        let (mut machine, greeting) = boot("overlay-damaged", medium, Firmware::Bios)?;
        assert!(
            greeting.contains("asl.srm on the medium is damaged and was left out"),
            "{greeting}"
        );
        machine.console.run("command -v asl")?.status(1)?;
        machine.power_off()
    });
}
