//! The medium starts wherever it is put, and what it greets with is true.
//!
//! Each test boots a machine: `scripts/test --qemu` runs them.

use std::{fs, path::Path, process::Command, time::Duration};

use asl_qemu::{Bus, Disk, Firmware, Kind, Machine, Medium, Plug, Result, Spread, host, story};

/// What a kernel reads of a disk in search of partition tables: one page if the first is found, a few more if none is.
const PARTITION_SCAN_BYTES: u64 = 64 << 10;
/// What it is together with the probing for file systems that a SystemRescue does.
const PROBING_BYTES: u64 = 1 << 20;

/// From the kernel's start to the prompt.
const PROMPT_SECONDS: f64 = 30.0;
/// From power on to the boot menu.
const BOOT: Duration = Duration::from_secs(120);

fn file_with(directory: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = directory.join(name);
    fs::write(&path, bytes).expect("the story's directory can be written");
    path
}

/// A disk with an ext4 file system in its only partition, as a laptop would have it.
fn partitioned(directory: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = directory.join(name);
    let mut image = Spread::new(1).bytes(64 << 20);
    // One MBR entry: type 0x83 from sector 2048 to the end.
    image[..512].fill(0);
    image[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0xf8, 1, 0]);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(&path, &image).expect("the story's directory can be written");
    host(
        Command::new("mke2fs")
            .args([
                "-q",
                "-F",
                "-t",
                "ext4",
                "-E",
                "offset=1048576",
                "-L",
                "laptop",
            ])
            .arg(&path)
            .arg("63M"),
        &[0],
    )?;
    Ok(path)
}

fn greets(name: &str, firmware: Firmware, plug: Plug) {
    story(name, |directory| {
        let dying = Disk::new("DYING001", partitioned(directory, "dying.img")?, Bus::Sata)
            .bad_sectors([40_000, 40_001, 131_071]);
        let empty = Disk::new(
            "EMPTY002",
            file_with(directory, "empty.img", &vec![0; 48 << 20]),
            Bus::Usb,
        );
        let medium = Medium::of_the_day()?;
        let mut machine = Machine::new(name, medium.clone())
            .firmware(firmware)
            .plug(plug)
            .disk(dying)
            .disk(empty)
            .start()?;
        let greeting = machine.log_in()?;
        let prompt_after = machine.up();

        for words in [
            "DYING001",
            "EMPTY002",
            "64.0 MiB",
            "48.0 MiB",
            "asl-capture disk",
            "mount ",
        ] {
            assert!(greeting.contains(words), "no {words:?} in:\n{greeting}");
        }
        // The medium is there once, what the system consists of is no disk, and nothing has failed yet.
        assert_eq!(greeting.matches("BOOT MEDIUM").count(), 1, "{greeting}");
        for words in ["/dev/loop", "FAILED", "failed"] {
            assert!(!greeting.contains(words), "{words:?} in:\n{greeting}");
        }
        let lines = greeting
            .rsplit("This machine's disks")
            .next()
            .unwrap_or_default();
        assert!(
            lines.lines().all(|line| line.chars().count() <= 80),
            "{greeting}"
        );

        let disks = machine.console.run("asl disks --json")?.ok()?;
        for words in ["DYING001", "EMPTY002"] {
            assert!(disks.contains(words), "{disks}");
        }
        // The kernel looked for partitions. On our medium nobody looked for more, and nobody wrote.
        let limit = match medium.kind {
            Kind::Ours => PARTITION_SCAN_BYTES,
            Kind::SystemRescue => PROBING_BYTES,
        };
        for serial in ["DYING001", "EMPTY002"] {
            let stats = machine.stats(serial)?;
            assert!(stats.read_bytes <= limit, "{serial}: {stats:?}");
            assert_eq!(
                (stats.written_bytes, stats.failed_reads),
                (0, 0),
                "{serial}"
            );
            eprintln!(
                "{name}: {serial}: {} KiB in {} reads",
                stats.read_bytes >> 10,
                stats.reads
            );
        }
        // Nothing of a disk is mounted, assembled or swapped to.
        let active = machine
            .console
            .run("grep -cE '^/dev/(sd|vd|nvme|md|dm|mapper)' /proc/mounts /proc/swaps")?;
        assert_eq!(active.status(1)?, "/proc/mounts:0\n/proc/swaps:0\n");

        let secure =
            "tail -c 1 /sys/firmware/efi/efivars/SecureBoot-* | hexdump -v -e '1/1 \"%u\"'";
        match firmware {
            Firmware::Bios => {
                machine.console.run("test ! -d /sys/firmware/efi")?.ok()?;
            }
            Firmware::Uefi | Firmware::UefiSecureBoot => {
                let on = machine.console.run(secure)?.ok()?;
                let expected = if firmware == Firmware::UefiSecureBoot {
                    "1"
                } else {
                    "0"
                };
                assert_eq!(on.trim(), expected, "Secure Boot");
            }
        }
        let kernel = machine.console.run("cut -d ' ' -f 1 /proc/uptime")?.ok()?;
        eprintln!(
            "{name}: prompt after {:.1} s; the kernel ran {} s then",
            prompt_after.as_secs_f64(),
            kernel.trim()
        );
        machine.power_off()
    });
}

/// Covers K1, K2, K7.
#[test]
#[ignore = "boots a machine"]
fn from_a_cd_with_a_bios() {
    greets("boot-bios-cd", Firmware::Bios, Plug::Cd);
}

/// Covers K1, K2, K7.
#[test]
#[ignore = "boots a machine"]
fn from_a_stick_with_a_bios() {
    greets("boot-bios-usb", Firmware::Bios, Plug::Usb);
}

/// Covers K1, K2, K7.
#[test]
#[ignore = "boots a machine"]
fn from_a_cd_with_uefi() {
    greets("boot-uefi-cd", Firmware::Uefi, Plug::Cd);
}

/// Covers K1, K2, K7.
#[test]
#[ignore = "boots a machine"]
fn from_a_stick_with_uefi() {
    greets("boot-uefi-usb", Firmware::Uefi, Plug::Usb);
}

/// Covers K1, K2, K7.
#[test]
#[ignore = "boots a machine"]
fn from_a_cd_with_secure_boot() {
    greets("boot-secure-cd", Firmware::UefiSecureBoot, Plug::Cd);
}

/// Covers K1, K2, K7.
#[test]
#[ignore = "boots a machine"]
fn from_a_stick_with_secure_boot() {
    greets("boot-secure-usb", Firmware::UefiSecureBoot, Plug::Usb);
}

/// The medium is where it is looked for last, after seconds in which the disk on USB could have been it. That disk is read once all
/// the same.
///
/// Covers K1, K2, K7.
#[test]
#[ignore = "boots a machine"]
fn from_a_disk_with_a_bios() {
    greets("boot-bios-disk", Firmware::Bios, Plug::Disk);
}

/// A stick of another build has the same label, and is looked at before the disk that this machine is started from. What lies on it
/// is not taken: its drivers are for another kernel.
///
/// Covers K2, K7.
#[test]
#[ignore = "boots a machine"]
fn beside_a_medium_of_another_build() {
    let name = "boot-two-media";
    story(name, |directory| {
        let tree = directory.join("tree/sysresccd/x86_64");
        fs::create_dir_all(&tree).expect("the story's directory can be written");
        file_with(&tree, "airootfs.sfs", b"of another build");
        let other = directory.join("other.iso");
        host(
            Command::new("xorriso")
                .args(["-as", "mkisofs", "-quiet", "-volid", "RESCUEASL", "-o"])
                .args([&other, &directory.join("tree")]),
            &[0],
        )?;
        let mut machine = Machine::new(name, Medium::ours()?)
            .plug(Plug::Disk)
            .disk(Disk::new("OTHER002", other, Bus::Usb))
            .start()?;
        machine.log_in()?;
        let console = &mut machine.console;
        let passed = console.run("dmesg | grep 'is another medium'")?.ok()?;
        assert_eq!(passed.lines().count(), 1, "{passed}");
        let disks = console.run("asl disks --json")?.ok()?;
        let disks: serde_json::Value = serde_json::from_str(&disks).expect("it is JSON");
        let disks = disks["disks"].as_array().expect("a list");
        let medium: Vec<_> = disks
            .iter()
            .filter(|disk| disk["boot_medium"] == true)
            .collect();
        assert!(
            medium.len() == 1 && medium[0]["serial"] != "OTHER002",
            "{disks:#?}"
        );
        machine.power_off()
    });
}

/// The prompt is there within 30 s of the kernel's start, in 512 MiB, translated.
///
/// Covers K2, K7.
#[test]
#[ignore = "boots a machine"]
fn the_prompt_is_quick() {
    story("boot-time", |_| {
        let mut machine = Machine::new("boot-time", Medium::ours()?)
            .memory_mib(512)
            .start()?;
        machine.console.expect("asl rescue medium", BOOT)?;
        let firmware = machine.processor_time()?;
        machine.log_in()?;
        // A busy host gives a machine less than a whole processor: then what counts is the processor time it took.
        let processor = (machine.processor_time()? - firmware).as_secs_f64();
        let uptime = machine.console.run("cut -d ' ' -f 1 /proc/uptime")?.ok()?;
        let seconds: f64 = uptime.trim().parse().unwrap_or(f64::MAX);
        let free = machine
            .console
            .run("awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo")?
            .ok()?;
        eprintln!(
            "boot-time: {seconds} s after the kernel's start, {processor:.1} s of processor time with the boot menu; {} MiB are free",
            free.trim()
        );
        assert!(
            seconds.min(processor) <= PROMPT_SECONDS,
            "{seconds} s, {processor} s"
        );
        machine.power_off()
    });
}

/// Covers K1, K2, K7.
#[test]
#[ignore = "boots a machine"]
fn network_keyboard_and_the_ways_out_are_there() {
    let name = "boot-network";
    story(name, |directory| {
        let mut machine = Machine::new(name, Medium::ours()?).network().start()?;
        machine.log_in()?;
        let console = &mut machine.console;
        let address = "for i in $(seq 60); do ip -4 address show dev eth0 | grep -q 10.0.2.15 && break; sleep 1; done; ip -4 address";
        let addresses = console.run_within(address, Duration::from_secs(90))?.ok()?;
        assert!(addresses.contains("inet 10.0.2.15/24"), "{addresses}");
        assert!(
            console
                .run("ip route")?
                .ok()?
                .contains("default via 10.0.2.2")
        );
        assert!(
            console
                .run("cat /etc/resolv.conf")?
                .ok()?
                .contains("nameserver 10.0.2.3")
        );
        for layout in ["de", "fr", "us"] {
            console.run(&format!("setkmap {layout}"))?.ok()?;
        }
        console.run("setkmap nonsense")?.status(1)?;
        for program in [
            "ssh -V",
            "sshfs -V",
            "mount.nfs -V",
            "mount.cifs -V",
            "ntfs-3g --help",
            "cryptsetup --version",
            "mdadm --version",
            "lvm version",
            "smartctl --version",
            "nvme version",
            "ddrescue --version",
            "mkfs.exfat -V",
            "xfs_repair -V",
            "btrfs --version",
        ] {
            let ran = console.run(program)?;
            assert!(
                !ran.output.contains("not found") && !ran.output.contains("shared lib"),
                "{program}: {}",
                ran.output
            );
        }
        for module in [
            "uas",
            "vmd",
            "megaraid_sas",
            "mpt3sas",
            "aacraid",
            "hpsa",
            "smartpqi",
            "mvsas",
            "3w-9xxx",
            "arcmsr",
            "ahci",
            "nvme",
            "sdhci_pci",
            "sdhci_acpi",
            "mmc_block",
            "xfs",
            "btrfs",
            "exfat",
            "udf",
            "nfsv4",
            "cifs",
            "dm_crypt",
            "dm_thin_pool",
            "raid456",
            "e1000e",
            "igb",
            "r8169",
            "tg3",
            "r8152",
            "ax88179_178a",
        ] {
            console.run(&format!("modprobe {module}"))?.ok()?;
        }
        machine.screenshot(&directory.join("greeting.png"))?;
        machine.power_off()
    });
}
