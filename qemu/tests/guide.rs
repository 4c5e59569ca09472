//! docs/GUIDE.md, done as it says: its commands are typed on the medium and at home, and the screen shows what the
//! guide shows.
//!
//! Each test boots a machine: `scripts/test --qemu` runs them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use asl_qemu::{
    Bus, Console, Disk, Error, FileSystem, Firmware, Machine, Medium, Patient, Plug, Result,
    Running, export_and_compare, host, mint, program, story,
};

const LONG: Duration = Duration::from_secs(1200);

/// A command of the guide, and the lines that the guide shows below it.
#[derive(Debug)]
struct Step {
    /// Whether it is typed on the medium, at a prompt that ends in `#`, or at home at `$`.
    on_medium: bool,
    command: String,
    shown: Vec<String>,
}

/// The steps in the guide's blocks that begin with this line.
fn steps(beginning: &str) -> Vec<Step> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/GUIDE.md");
    let guide = fs::read_to_string(guide).expect("the guide is in the repository");
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in guide.lines() {
        if line.starts_with("```") {
            inside = line == beginning;
        } else if inside {
            let prompt = line
                .split_once(' ')
                .filter(|(sign, _)| ["#", "$"].contains(sign));
            match (prompt, steps.last_mut()) {
                (Some((sign, command)), _) => steps.push(Step {
                    on_medium: sign == "#",
                    command: command.to_owned(),
                    shown: Vec::new(),
                }),
                (None, Some(step)) if !line.is_empty() => step.shown.push(line.to_owned()),
                _ => {}
            }
        }
    }
    steps
}

/// A line without what differs from disk to disk: numbers, ids, units, plurals, the width of columns.
fn skeleton(line: &str) -> String {
    let word = |word: &str| {
        let bare = word.trim_end_matches([',', ';', ':', ')']);
        let rest = &word[bare.len()..];
        let unit = ["B", "KiB", "MiB", "GiB", "TiB", "s", "min", "h"].contains(&bare);
        let number = bare.contains(|c: char| c.is_ascii_digit()) && !bare.starts_with('/');
        match (unit, number) {
            (true, _) => format!("unit{rest}"),
            (_, true) => format!("0{rest}"),
            // One block, several blocks.
            _ => format!("{}{rest}", bare.trim_end_matches('s')),
        }
    };
    line.split_whitespace()
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Every line that the guide shows was shown, in that order.
fn compare(step: &Step, output: &str) {
    let mut lines = output.lines();
    for expected in &step.shown {
        let wanted = skeleton(expected);
        assert!(
            lines.any(|line| skeleton(line) == wanted),
            "after {:?} the guide shows\n  {expected}\nand the screen does not:\n{output}",
            step.command
        );
    }
}

/// Types the answer to a question for a passphrase.
fn with_passphrase(console: &mut Console, command: &str, passphrase: &str) -> Result<String> {
    let end = console.start(command)?;
    console.expect("passphrase", LONG)?;
    console.send(&format!("{passphrase}\r"))?;
    console.finish(&end, LONG)?.ok()
}

/// Covers K2, K3, K4, K5, K6, K7.
#[test]
#[ignore = "boots a machine"]
fn the_guide_leads_from_the_stick_to_the_workstation() {
    let name = "guide";
    story(name, |directory| {
        let steps = steps("```console");
        assert!(steps.len() >= 12, "{steps:#?}");
        let patient = Patient {
            label: "laptop",
            ..Patient::new(directory, 41, 64, 40)?
        };
        let image = directory.join("destination.img");
        FileSystem::Exfat.disk_image(&image, 64 << 10)?;
        let mut machine = Machine::new(name, Medium::of_the_day()?)
            .disk(patient.disk(Bus::Sata).named("ST1000LM024", "HN-M101MBB"))
            .disk(Disk::new("WXK1E32V", &image, Bus::Uas).named("WD", "Elements"))
            .start()?;
        let mut greeting = machine.log_in()?;
        let mut minted = None;
        for step in steps.iter().filter(|step| step.on_medium) {
            let command = step.command.as_str();
            let console = &mut machine.console;
            let output = match command {
                // What the login shows by itself.
                "asl disks" => std::mem::take(&mut greeting) + &console.run(command)?.ok()?,
                "asl domain mint" => {
                    minted = Some(mint(console)?);
                    continue;
                }
                "asl domain attest" => {
                    let passphrase = minted.as_ref().map(|minted| minted.passphrase.clone());
                    with_passphrase(console, command, &passphrase.unwrap_or_default())?
                }
                "poweroff" => continue,
                _ => {
                    // Finished, with some bytes that nobody can read.
                    let status = if command.starts_with("asl-capture") {
                        3
                    } else {
                        0
                    };
                    console.run_within(command, LONG)?.status(status)?
                }
            };
            if env::var_os("ASL_GUIDE_PRINT").is_some() {
                eprintln!("# {command}\n{output}");
                continue;
            }
            compare(step, &output);
        }
        machine.power_off()?;

        let minted =
            minted.ok_or_else(|| Error::Missing("the guide mints no domain".to_owned()))?;
        let mounted = FileSystem::Exfat.mount_partition(&image)?;
        let at_home = |path: &str| -> PathBuf { directory.join(path) };
        let passphrase = at_home("passphrase");
        fs::write(&passphrase, "a passphrase of one's own\n").expect("it can be written");
        let programs = program("asl")?;
        let programs = programs.parent().unwrap_or(Path::new("/")).to_owned();
        for step in steps.iter().filter(|step| !step.on_medium) {
            // Building, writing a stick and mounting: other tests do those.
            if step.command.starts_with("sudo ") || step.command.starts_with("scripts/") {
                continue;
            }
            let mut command = step
                .command
                .replace("/mnt/usb", &mounted.path().display().to_string())
                .replace("~/asl", &at_home("root").display().to_string());
            if command.starts_with("asl-promote") && command.contains("--into") {
                // What a person types when asked.
                command += &format!(
                    " --yes --no-recovery --expect {} --passphrase-file {}",
                    minted.domain_id,
                    passphrase.display()
                );
            }
            let output = host(
                Command::new("sh")
                    .args([
                        "-c",
                        &format!("PATH={}:$PATH; {command} 2>&1", programs.display()),
                    ])
                    .current_dir(directory)
                    .env("ASL_STATE", at_home("home.state")),
                if command.starts_with("asl export") {
                    &[3]
                } else {
                    &[0]
                },
            )?;
            let output = String::from_utf8_lossy(&output).into_owned();
            if env::var_os("ASL_GUIDE_PRINT").is_some() {
                eprintln!("$ {command}\n{output}");
                continue;
            }
            compare(step, &output);
        }
        export_and_compare(directory, "--root", &at_home("root"), &patient)
    });
}

/// The medium's own stick has room for a rescue, and goes on starting machines.
///
/// Covers K2, K3, K4, K7.
#[test]
#[ignore = "boots a machine"]
fn the_rest_of_the_stick_takes_the_rescue() {
    let name = "one-stick";
    story(name, |directory| {
        let steps = steps("```console one stick");
        assert_eq!(steps.len(), 3, "{steps:#?}");
        let patient = Patient::new(directory, 43, 64, 0)?;
        let stick = Medium::ours()?.on_a_stick(&directory.join("stick.img"), 1500)?;
        let start = |firmware| -> Result<Running> {
            let machine = Machine::new(name, stick.clone())
                .firmware(firmware)
                .plug(Plug::Usb)
                .disk(patient.disk(Bus::Sata));
            let mut machine = machine.start()?;
            machine.log_in()?;
            machine
                .console
                .run("export ASL_STORE=/mnt/asl/local/rescue")?
                .ok()?;
            Ok(machine)
        };
        let mut machine = start(Firmware::Bios)?;
        let console = &mut machine.console;
        for step in &steps {
            console.run_within(&step.command, LONG)?.ok()?;
        }
        let disks = console.run("asl disks")?.ok()?;
        let stick_at = disks.find("/dev/sdb").expect("there is one");
        assert!(disks[stick_at..].contains("BOOT MEDIUM"), "{disks}");
        console.run("asl store init $ASL_STORE")?.ok()?;
        console
            .run_within("asl-capture disk /dev/sda --label patient --quiet", LONG)?
            .ok()?;
        console.run("umount /mnt/asl/local")?.ok()?;
        machine.power_off()?;

        // By the other firmware, which reads the partition table.
        let mut machine = start(Firmware::Uefi)?;
        let console = &mut machine.console;
        let mount = &steps.last().expect("there are three").command;
        console.run(mount)?.ok()?;
        console.run_within("asl store verify", LONG)?.ok()?;
        let got = console
            .run_within("asl export patient - | sha256sum", LONG)?
            .ok()?;
        let expected = host(Command::new("sha256sum").arg(&patient.image), &[0])?;
        let expected = String::from_utf8_lossy(&expected);
        let expected = expected.split_whitespace().next().unwrap_or_default();
        assert!(got.contains(expected), "{got}, not {expected}");
        console.run("umount /mnt/asl/local")?.ok()?;
        machine.power_off()
    });
}

#[test]
fn lines_are_compared_by_what_does_not_change() {
    assert_eq!(
        skeleton("/dev/sda    931.5 GiB  ata, hdd"),
        skeleton("/dev/sda     64.0 MiB  ata, hdd")
    );
    assert_ne!(
        skeleton("/dev/sda 1.0 GiB ata"),
        skeleton("/dev/sdb 1.0 GiB ata")
    );
    assert_ne!(
        skeleton("every byte was read"),
        skeleton("every byte was written")
    );
}
