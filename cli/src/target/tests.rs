//! Against a fabricated machine: a disk with the running system, a stick, the patient.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

/// sysfs, procfs, udev's database and device nodes (plain files) below a directory.
struct Machine {
    root: tempfile::TempDir,
    system: SystemPaths,
}

const PATIENT: &str = "WD-WCC4N0PATIENT";
const SPARE: &str = "S3Z9NB0SPARE4F2A";

impl Machine {
    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn node(&self, directory: &str, name: &str, number: &str, sectors: u64) {
        for below in ["holders", "slaves"] {
            fs::create_dir_all(self.at(&format!("{directory}/{below}"))).unwrap();
        }
        self.file(&format!("{directory}/dev"), number);
        self.file(&format!("{directory}/size"), &sectors.to_string());
        for link in ["sys/class/block/", "sys/dev/block/"] {
            let link = match link.contains("class") {
                true => format!("{link}{name}"),
                false => format!("{link}{number}"),
            };
            symlink(self.at(directory), self.at(&link)).unwrap();
        }
        self.file(&format!("dev/{name}"), "");
    }

    /// A disk of 1 GiB with one partition.
    fn disk(&self, name: &str, major: u32, serial: Option<&str>) {
        let directory = format!("sys/devices/{name}/block/{name}");
        self.node(&directory, name, &format!("{major}:0"), 2 << 20);
        symlink(self.at(&directory), self.at(&format!("sys/block/{name}"))).unwrap();
        if let Some(serial) = serial {
            self.file(&format!("{directory}/serial"), serial);
            self.file(&format!("{directory}/wwid"), &format!("naa.{serial}"));
        }
        self.file(
            &format!("{directory}/device/model"),
            &format!("Model {name}"),
        );
        let part = format!("{directory}/{name}1");
        self.node(&part, &format!("{name}1"), &format!("{major}:1"), 2 << 19);
        self.file(&format!("{part}/partition"), "1");
        let udev = "E:ID_FS_TYPE=ntfs\nE:ID_FS_LABEL=Windows\n";
        self.file(&format!("run/udev/data/b{major}:1"), udev);
    }

    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let system = SystemPaths::below(root.path());
        let machine = Self { root, system };
        for directory in [
            "sys/block",
            "sys/class/block",
            "sys/dev/block",
            "dev/mapper",
        ] {
            fs::create_dir_all(machine.at(directory)).unwrap();
        }
        machine.disk("sda", 8, Some("ROOTDISK"));
        machine.disk("sdb", 9, Some("STOREDISK"));
        machine.disk("sdc", 10, Some(PATIENT));
        machine.disk("sdd", 11, Some(SPARE));
        machine.disk("sde", 12, None);
        machine.file("mnt/usb/store/x", "");
        machine.mounts(&[]);
        machine
    }

    fn mounts(&self, more: &[&str]) {
        let known = [
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
            "2 1 9:1 / /mnt/usb rw - ext4 /dev/sdb1 rw",
        ];
        let lines = [&known[..], more].concat().join("\n") + "\n";
        self.file("proc/self/mountinfo", &lines);
    }

    fn judge(&self, dest: &str, tail: Option<&str>, sources: &[Source], bytes: u64) -> String {
        let wish = Wish {
            dest: Path::new(dest),
            tail,
            store: Path::new("/mnt/usb/store"),
            sources,
            bytes,
        };
        match judge(&self.system, &wish) {
            Ok(number) => number.to_string(),
            Err(error) => error.render(),
        }
    }

    /// With everything right but what is asked about.
    fn onto(&self, dest: &str, sources: &[Source]) -> String {
        self.judge(dest, Some(SPARE), sources, 1 << 30)
    }
}

fn serial(serial: &str) -> Source {
    Source {
        serial: Some(serial.to_owned()),
        ..Source::default()
    }
}

fn wwn(wwn: &str) -> Source {
    Source {
        wwn: Some(wwn.to_owned()),
        ..Source::default()
    }
}

#[test]
fn a_disk_whose_serial_is_known_is_taken() {
    let machine = Machine::new();
    let patient = [serial(PATIENT), wwn("naa.else"), Source::default()];
    assert_eq!(machine.onto("/dev/sdd", &patient), "11:0");
    assert_eq!(machine.judge("/dev/sdd", Some("4F2A"), &patient, 1), "11:0");
    // A partition goes by the serial number of its disk.
    assert_eq!(machine.judge("/dev/sdd1", Some("4F2A"), &[], 1), "11:1");
}

#[test]
fn without_the_end_of_its_serial_it_is_shown_and_refused() {
    let machine = Machine::new();
    for tail in [None, Some(""), Some("F2A")] {
        let said = machine.judge("/dev/sdd", tail, &[], 1);
        assert!(said.contains("would be lost"), "{said}");
        let what = "\"Model sdd\" of 1.0 GiB, with sdd1 ntfs \"Windows\"";
        assert!(
            said.contains(what) && said.contains("--to-serial"),
            "{said}"
        );
        assert!(!said.contains("4F2A"), "it is for them to read: {said}");
    }
    for tail in ["4f2a", "4F2A ", "XXXX", "S3Z9NB0SPARE", "xS3Z9NB0SPARE4F2A"] {
        let said = machine.judge("/dev/sdd", Some(tail), &[], 1);
        assert!(said.contains("does not end with"), "{tail}: {said}");
    }
    let said = machine.judge("/dev/sde", Some("4F2A"), &[], 1);
    assert!(said.contains("no serial number"), "{said}");
    let said = machine.judge("/dev/sdz", Some("4F2A"), &[], 1);
    assert!(said.contains("cannot find out"), "{said}");
}

#[test]
fn what_was_captured_is_never_overwritten() {
    let machine = Machine::new();
    let part = format!("{PATIENT}-part3");
    for source in [
        serial(PATIENT),
        serial(&part),
        wwn(&format!("naa.{PATIENT}")),
        wwn(&format!("naa.{part}")),
    ] {
        let sources = [Source::default(), source];
        for dest in ["/dev/sdc", "/dev/sdc1"] {
            for tail in [None, Some("IENT")] {
                let said = machine.judge(dest, tail, &sources, 1);
                assert!(said.contains("was captured into this store"), "{said}");
            }
        }
        assert_eq!(machine.onto("/dev/sdd", &sources), "11:0");
    }
    // A partition that is known by its own id only.
    machine.file(
        "sys/devices/sde/block/sde/sde1/uevent",
        "PARTUUID=1234-5678\n",
    );
    let said = machine.judge("/dev/sde", Some("5678"), &[serial("1234-5678")], 1);
    assert!(said.contains("was captured into this store"), "{said}");
    // Something made of the patient.
    machine.node("sys/devices/virtual/block/dm-0", "dm-0", "253:0", 1 << 20);
    let dm = machine.at("sys/devices/virtual/block/dm-0");
    symlink(&dm, machine.at("sys/block/dm-0")).unwrap();
    machine.file("sys/devices/virtual/block/dm-0/dm/uuid", "LVM-4F2A");
    symlink(
        machine.at("sys/devices/sdc/block/sdc/sdc1"),
        dm.join("slaves/sdc1"),
    )
    .unwrap();
    let said = machine.judge("/dev/dm-0", Some("4F2A"), &[serial(PATIENT)], 1);
    assert!(said.contains("was captured into this store"), "{said}");
    assert_eq!(machine.judge("/dev/dm-0", Some("4F2A"), &[], 1), "253:0");
    // And a volume of the same group is another one.
    let other = [serial("LVM-9999"), serial("part1")];
    assert_eq!(machine.judge("/dev/dm-0", Some("4F2A"), &other, 1), "253:0");
}

#[test]
fn the_store_the_system_and_what_it_was_started_from_are_spared() {
    let machine = Machine::new();
    for (dest, why) in [
        ("/dev/sda", "holds the running system"),
        ("/dev/sda1", "holds the running system"),
        ("/dev/sdb", "holds the store"),
    ] {
        let said = machine.judge(dest, Some("DISK"), &[], 1);
        assert!(said.contains(why), "{said}");
    }
    // The stick, while it is mounted and when it is not any more.
    machine.mounts(&["3 1 11:1 / /run/archiso/bootmnt ro - iso9660 /dev/sdd1 ro"]);
    let said = machine.onto("/dev/sdd", &[]);
    assert!(said.contains("was started from"), "{said}");
    machine.mounts(&[]);
    for cmdline in [
        "archisobasedir=sysresccd archisolabel=Windows copytoram",
        "BOOT_IMAGE=/x root=live:CDLABEL=Windows rd.live.ram=1",
        "root=LABEL=Windows ro",
        "img_dev=/dev/disk/by-label/Windows",
    ] {
        machine.file("proc/cmdline", cmdline);
        let said = machine.onto("/dev/sdd", &[]);
        assert!(said.contains("was started from"), "{cmdline}: {said}");
    }
    machine.file("proc/cmdline", "archisolabel=RESCUE1100 label=Windows x");
    assert_eq!(machine.onto("/dev/sdd", &[]), "11:0");
}

#[test]
fn what_is_used_small_or_write_protected_is_refused() {
    let machine = Machine::new();
    machine.mounts(&["3 1 11:1 / /mnt/other ro - ntfs3 /dev/sdd1 ro"]);
    for dest in ["/dev/sdd", "/dev/sdd1"] {
        let said = machine.onto(dest, &[]);
        assert!(said.contains("is in use"), "{said}");
        assert!(said.contains("hint: umount /mnt/other"), "{said}");
    }
    machine.mounts(&[]);
    machine.file(
        "proc/swaps",
        "Filename Type Size Used Priority\n/dev/sdd1 partition 1 0 -2\n",
    );
    assert!(machine.onto("/dev/sdd", &[]).contains("as swap"));
    machine.file("proc/swaps", "");
    let said = machine.judge("/dev/sdd", Some("4F2A"), &[], (1 << 30) + 1);
    assert!(said.contains("has 1.0 GiB, the image"), "{said}");
    machine.file("sys/devices/sdd/block/sdd/ro", "1");
    assert!(machine.onto("/dev/sdd", &[]).contains("write-protected"));
}
