//! Against a fabricated `/sys`, `/proc`, `/dev` and `/run`.

use std::os::unix::fs::symlink;

use super::*;

/// A system of a test's own making: sysfs, procfs, device nodes (as plain
/// files) and udev's database below a temporary directory.
struct Fake {
    root: tempfile::TempDir,
    system: SystemPaths,
}

impl Fake {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let system = SystemPaths::below(root.path());
        let fake = Self { root, system };
        for directory in [
            "sys/block",
            "sys/class/block",
            "sys/dev/block",
            "dev/mapper",
        ] {
            fs::create_dir_all(fake.at(directory)).unwrap();
        }
        fake
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn directory(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    /// A whole device whose sysfs directory is `devices/WHERE/block/NAME`.
    fn disk(&self, place: &str, name: &str, number: &str, sectors: u64) -> String {
        let directory = format!("sys/devices/{place}/block/{name}");
        self.node(&directory, name, number, sectors);
        symlink(self.at(&directory), self.at(&format!("sys/block/{name}"))).unwrap();
        if self
            .at(&format!("sys/devices/{place}"))
            .join("model")
            .exists()
        {
            symlink("../..", self.at(&directory).join("device")).unwrap();
        }
        directory
    }

    fn partition(&self, disk: &str, name: &str, number: &str, index: u32, sectors: u64) {
        let directory = format!("{disk}/{name}");
        self.node(&directory, name, number, sectors);
        self.file(&format!("{directory}/partition"), format!("{index}\n"));
        self.file(&format!("{directory}/start"), "2048\n");
    }

    fn mapper(&self, name: &str, number: &str, called: &str, uuid: &str, slaves: &[&str]) {
        let directory = self.disk("virtual", name, number, 1000);
        self.file(&format!("{directory}/dm/name"), called);
        self.file(&format!("{directory}/dm/uuid"), uuid);
        symlink(
            format!("../{name}"),
            self.at(&format!("dev/mapper/{called}")),
        )
        .unwrap();
        self.stack(name, slaves);
    }

    fn stack(&self, holder: &str, slaves: &[&str]) {
        let class =
            |name: &str| fs::canonicalize(self.at(&format!("sys/class/block/{name}"))).unwrap();
        for slave in slaves {
            symlink(class(slave), class(holder).join("slaves").join(slave)).unwrap();
            symlink(class(holder), class(slave).join("holders").join(holder)).unwrap();
        }
    }

    fn loop_device(&self, name: &str, number: &str, file: &str) -> String {
        let directory = self.disk("virtual", name, number, 4000);
        self.file(
            &format!("{directory}/loop/backing_file"),
            format!("{file}\n"),
        );
        directory
    }

    fn node(&self, directory: &str, name: &str, number: &str, sectors: u64) {
        self.directory(&format!("{directory}/holders"));
        self.directory(&format!("{directory}/slaves"));
        self.file(&format!("{directory}/dev"), format!("{number}\n"));
        self.file(&format!("{directory}/size"), format!("{sectors}\n"));
        self.file(&format!("{directory}/uevent"), format!("DEVNAME={name}\n"));
        let target = self.at(directory);
        symlink(&target, self.at(&format!("sys/class/block/{name}"))).unwrap();
        symlink(&target, self.at(&format!("sys/dev/block/{number}"))).unwrap();
        self.file(&format!("dev/{name}"), "");
    }

    fn mounts(&self, lines: &[&str]) {
        self.file("proc/self/mountinfo", lines.join("\n") + "\n");
    }

    fn udev(&self, number: &str, properties: &str) {
        self.file(&format!("run/udev/data/b{number}"), properties);
    }

    fn find(&self, name: &str) -> BlockNode {
        BlockNode::by_name(&self.system, name).unwrap()
    }

    fn uses(&self, name: &str) -> Vec<String> {
        let uses = usage_of(&self.system, &self.find(name));
        uses.iter().map(Usage::to_string).collect()
    }

    fn contains(&self, source: &str, path: &str) -> Option<String> {
        source_contains_path(&self.system, Path::new(source), Path::new(path))
            .map(|containment| containment.to_string())
    }

    fn backing(&self, path: &str) -> Vec<String> {
        let disks = backing_disks_of(&self.system, Path::new(path));
        disks.into_iter().map(|node| node.name).collect()
    }

    fn unmounted(&self, path: &str) -> Option<PathBuf> {
        unmounted_mountpoint(&self.system, Path::new(path))
    }
}

const ATA: &str = "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0";
const USB: &str = "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0";
const ROOT: &str = "27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw";

/// sda1 is the root; sda2 holds LUKS and in it LVM with `home` and `data`.
fn laptop() -> Fake {
    let fake = Fake::new();
    fake.file(&format!("sys/devices/{ATA}/model"), "Dying Disk 1TB  \n");
    let sda = fake.disk(ATA, "sda", "8:0", 100_000);
    fake.partition(&sda, "sda1", "8:1", 1, 10_000);
    fake.partition(&sda, "sda2", "8:2", 2, 80_000);
    fake.mapper("dm-0", "253:0", "crypt", "CRYPT-LUKS2-aa-crypt", &["sda2"]);
    fake.mapper("dm-1", "253:1", "vg-home", "LVM-abc", &["dm-0"]);
    fake.mapper("dm-2", "253:2", "vg-data", "LVM-def", &["dm-0"]);
    fake.mounts(&[ROOT]);
    fake
}

#[test]
fn an_ata_disk_is_identified_from_sysfs() {
    let fake = laptop();
    let device = format!("sys/devices/{ATA}");
    fake.file(&format!("{device}/rev"), "80.00A80");
    fake.file(&format!("{device}/wwid"), "naa.50014ee2b\n");
    fake.file(
        &format!("{device}/vpd_pg80"),
        b"\x00\x80\x00\x0c  WD-WCC4E123",
    );
    let identity = identify(&fake.system, &fake.find("sda"), "/dev/sda");
    assert_eq!(
        identity,
        crate::device::Identity {
            path: "/dev/sda".to_owned(),
            model: Some("Dying Disk 1TB".to_owned()),
            serial: Some("WD-WCC4E12".to_owned()),
            wwn: Some("naa.50014ee2b".to_owned()),
            firmware: Some("80.00A80".to_owned()),
            transport: Some("ata".to_owned()),
            backing_file: None,
        }
    );
    let serial_of = |name: &str| identify(&fake.system, &fake.find(name), name).serial;
    assert_eq!(serial_of("sda1").as_deref(), Some("WD-WCC4E12-part1"));
    assert_eq!(serial_of("sda2").as_deref(), Some("WD-WCC4E12-part2"));
    assert_eq!(serial_of("dm-1").as_deref(), Some("LVM-abc"));
}

#[test]
fn udev_fills_what_sysfs_does_not_say() {
    let fake = laptop();
    fake.udev(
        "8:0",
        "E:ID_SERIAL_SHORT=S123\nE:ID_WWN=0x5001\nE:ID_REVISION=1.0\n",
    );
    let identity = identify(&fake.system, &fake.find("sda2"), "x");
    assert_eq!(identity.serial.as_deref(), Some("S123-part2"));
    assert_eq!(identity.wwn.as_deref(), Some("0x5001-part2"));
    assert_eq!(identity.firmware.as_deref(), Some("1.0"));
}

#[test]
fn other_buses_are_recognised() {
    let fake = Fake::new();
    fake.file(&format!("sys/devices/{USB}/model"), "Stick");
    fake.file(
        "sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/idVendor",
        "1234",
    );
    fake.file(
        "sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/serial",
        "USB-77\n",
    );
    fake.disk(USB, "sdb", "8:16", 1000);
    fake.disk("pci0000:00/0000:00:02.0/virtio1", "vda", "254:0", 1000);
    fake.file(
        "sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/serial",
        "virt\n",
    );
    fake.file(
        "sys/devices/pci0000:00/virtio2/host3/target3:0:0/3:0:0:0/model",
        "QEMU",
    );
    fake.disk(
        "pci0000:00/virtio2/host3/target3:0:0/3:0:0:0",
        "sdc",
        "8:32",
        1000,
    );
    fake.disk("pci0000:00/nvme/nvme0", "nvme0n1", "259:0", 1000);
    fake.file(
        "sys/devices/pci0000:00/nvme/nvme0/block/nvme0n1/wwid",
        "eui.0025",
    );
    let loop0 = fake.loop_device("loop0", "7:0", "/images/a disk.img");
    fake.partition(&loop0, "loop0p1", "259:9", 1, 100);
    let of = |name: &str| identify(&fake.system, &fake.find(name), name);
    assert_eq!(of("sdb").transport.as_deref(), Some("usb"));
    assert_eq!(of("sdb").serial.as_deref(), Some("USB-77"));
    assert_eq!(of("vda").transport.as_deref(), Some("virtio"));
    assert_eq!(of("vda").serial.as_deref(), Some("virt"));
    assert_eq!(of("sdc").transport.as_deref(), Some("scsi"));
    assert_eq!(of("nvme0n1").transport.as_deref(), Some("nvme"));
    assert_eq!(of("nvme0n1").wwn.as_deref(), Some("eui.0025"));
    assert_eq!(of("loop0").transport.as_deref(), Some("loop"));
    assert_eq!(
        of("loop0").backing_file.as_deref(),
        Some("/images/a disk.img")
    );
    assert_ne!(of("loop0p1"), of("loop0"));
    assert_eq!(of("loop0p1").serial.as_deref(), Some("part1"));
}

#[test]
fn mounts_of_partitions_and_holders_are_uses_of_the_disk() {
    let fake = laptop();
    fake.mounts(&[
        ROOT,
        r"30 27 253:1 / /home\040of\040all rw - xfs /dev/mapper/vg-home rw",
        "31 27 253:2 / /data ro - ext4 /dev/mapper/vg-data ro",
        "32 27 0:40 / /proc rw - proc proc rw",
    ]);
    let home = "is mounted read-write on /home of all (xfs)";
    let data = "is mounted read-only on /data (ext4)";
    let below = "(on /dev/mapper/crypt on /dev/sda2 on /dev/sda)";
    assert_eq!(
        fake.uses("sda"),
        [
            "/dev/sda1 is mounted read-write on / (ext4)".to_owned(),
            format!("/dev/mapper/vg-home {below} {home}"),
            format!("/dev/mapper/vg-data {below} {data}"),
        ]
    );
    assert_eq!(fake.uses("sda2").len(), 2, "not the other partition's");
    assert_eq!(fake.uses("dm-2"), [format!("/dev/mapper/vg-data {data}")]);
    let uses = usage_of(&fake.system, &fake.find("sda2"));
    assert_eq!(uses[0].remedy(), "umount '/home of all'");
    assert!(uses[0].may_write() && !uses[1].may_write());
}

#[test]
fn a_read_only_mount_of_a_writable_filesystem_may_write() {
    let fake = laptop();
    fake.mounts(&["30 27 8:1 / /mnt ro,relatime - ext4 /dev/sda1 rw"]);
    assert!(usage_of(&fake.system, &fake.find("sda"))[0].may_write());
    let mount = describe_mount(&fake.system, Path::new("/mnt")).unwrap();
    assert!(mount.read_only && !mount.filesystem_read_only);
}

#[test]
fn swap_and_idle_holders_are_uses() {
    let fake = laptop();
    fake.mounts(&[]);
    fake.file(
        "proc/swaps",
        "Filename Type Size Used Priority\n/dev/dm-1 partition 1 0 -2\n/swapfile file 1 0 -3\n",
    );
    let below = "(on /dev/mapper/crypt on /dev/sda2 on /dev/sda)";
    assert_eq!(
        fake.uses("sda"),
        [
            format!("/dev/mapper/vg-home {below} is in use as swap"),
            "/dev/mapper/crypt (on /dev/sda2 on /dev/sda) is part of /dev/mapper/vg-data".into(),
        ]
    );
    let uses = usage_of(&fake.system, &fake.find("sda"));
    assert_eq!(uses[0].remedy(), "swapoff /dev/mapper/vg-home");
    assert!(!uses[1].may_write());
}

#[test]
fn a_partition_is_used_by_what_holds_the_whole_disk() {
    let fake = laptop();
    fake.mapper("dm-5", "253:5", "mpatha", "mpath-1", &["sda"]);
    fake.mounts(&["30 27 253:5 / /san rw - ext4 /dev/mapper/mpatha rw"]);
    let uses = fake.uses("sda1");
    assert_eq!(uses.len(), 1);
    assert!(
        uses[0].ends_with("is mounted read-write on /san (ext4)"),
        "{uses:?}"
    );
}

#[test]
fn every_device_of_a_btrfs_is_mounted() {
    let fake = laptop();
    fake.disk("pci/ata2", "sdb", "8:16", 1000);
    fake.directory("sys/fs/btrfs/uuid-1/devices/sdb");
    fake.directory("sys/fs/btrfs/uuid-1/devices/sda1");
    fake.mounts(&["30 27 0:44 /@ /srv rw - btrfs /dev/sdb rw,subvol=/@"]);
    assert_eq!(fake.uses("sda").len(), 3, "the mount and two idle volumes");
    assert!(fake.uses("sda")[0].contains("mounted read-write on /srv (btrfs)"));
    assert_eq!(fake.backing("/srv/store"), ["sda", "sdb"]);
    assert!(fake.contains("/dev/sda", "/srv/store").is_some());
}

#[test]
fn an_imported_zfs_pool_is_a_use() {
    let fake = laptop();
    fake.udev("8:1", "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\n");
    fake.mounts(&[]);
    assert!(!fake.uses("sda1").iter().any(|line| line.contains("ZFS")));
    fake.directory("proc/spl/kstat/zfs/tank");
    assert_eq!(
        fake.uses("sda1"),
        ["/dev/sda1 belongs to the imported ZFS pool tank"]
    );
    fake.mounts(&["30 27 0:50 / /tank/x rw - zfs tank/x rw"]);
    assert_eq!(
        fake.uses("sda1"),
        ["/dev/sda1 is mounted read-write on /tank/x (zfs)"]
    );
    assert_eq!(fake.backing("/tank/x/store"), ["sda"]);
}

#[test]
fn an_image_is_used_by_the_loop_device_over_it() {
    let fake = laptop();
    fake.file("images/a.img", "x");
    fake.loop_device("loop0", "7:0", "/images/a.img");
    fake.mounts(&[ROOT, "30 27 7:0 / /mnt rw - ext4 /dev/loop0 rw"]);
    let uses = usage_of_file(&fake.system, Path::new("/images/a.img"));
    assert_eq!(uses.len(), 1);
    assert_eq!(
        uses[0].to_string(),
        "/dev/loop0 is mounted read-write on /mnt (ext4)"
    );
    assert_eq!(usage_of_file(&fake.system, Path::new("/images/b.img")), []);
}

#[test]
fn mountinfo_is_decoded_and_the_topmost_mount_wins() {
    let fake = Fake::new();
    fake.directory("mnt/my disk");
    fake.mounts(&[
        ROOT,
        r"30 27 8:17 / /mnt/my\040disk rw,nosuid shared:1 master:2 - vfat /dev/sdb1 rw,uid=0",
        r"31 27 0:60 / /mnt/my\040disk ro - fuse.sshfs me@host:/a\134b rw,user_id=0",
        "garbage",
    ]);
    let mount = describe_mount(&fake.system, Path::new("/mnt/my disk/new/store")).unwrap();
    assert_eq!(mount.id, 31);
    assert_eq!(mount.mount_point, Path::new("/mnt/my disk"));
    assert_eq!(mount.fs_type, "fuse.sshfs");
    assert_eq!(mount.source, r"me@host:/a\b");
    assert!(mount.read_only && !mount.filesystem_read_only);
    let other = describe_mount(&fake.system, Path::new("/mnt/my")).unwrap();
    assert_eq!(other.mount_point, Path::new("/"), "whole components only");
    assert_eq!(mounts(&fake.system).len(), 3);
}

#[test]
fn the_store_on_the_source_is_found_through_luks_and_lvm() {
    let fake = laptop();
    fake.mounts(&[ROOT, "30 27 253:2 / /data rw - ext4 /dev/mapper/vg-data rw"]);
    let chain = "/data/store on /dev/mapper/vg-data on /dev/mapper/crypt on /dev/sda2 on /dev/sda";
    assert_eq!(
        fake.contains("/dev/sda", "/data/store").as_deref(),
        Some(chain)
    );
    assert!(fake.contains("/dev/sda2", "/data/store").is_some());
    assert!(fake.contains("/dev/mapper/crypt", "/data/store").is_some());
    assert!(fake.contains("/dev/dm-2", "/data/store").is_some());
    assert_eq!(fake.contains("/dev/sda1", "/data/store"), None);
    assert_eq!(fake.contains("/dev/mapper/vg-home", "/data/store"), None);
    assert_eq!(fake.backing("/data/store"), ["sda"]);
}

#[test]
fn the_store_on_a_raid_is_on_each_member() {
    let fake = laptop();
    let sdb = fake.disk("pci/ata2", "sdb", "8:16", 1000);
    fake.partition(&sdb, "sdb1", "8:17", 1, 900);
    fake.disk("virtual", "md0", "9:0", 900);
    fake.stack("md0", &["sda1", "sdb1"]);
    fake.mounts(&["27 1 9:0 / / rw - ext4 /dev/md0 rw"]);
    assert_eq!(fake.backing("/store"), ["sda", "sdb"]);
    assert_eq!(
        fake.contains("/dev/sdb", "/store").as_deref(),
        Some("/store on /dev/md0 on /dev/sdb1 on /dev/sdb")
    );
    assert!(fake.uses("sdb")[0].starts_with("/dev/md0 (on /dev/sdb1 on /dev/sdb) is mounted"));
}

#[test]
fn loops_and_image_files_are_seen_through() {
    let fake = laptop();
    fake.file("images/a.img", "x");
    fake.file("images/b.img", "x");
    let loop0 = fake.loop_device("loop0", "7:0", "/images/a.img");
    fake.partition(&loop0, "loop0p1", "259:1", 1, 100);
    fake.partition(&loop0, "loop0p2", "259:2", 2, 100);
    fake.loop_device("loop1", "7:1", "/images/a.img");
    fake.loop_device("loop2", "7:2", "/images/b.img");
    fake.mounts(&[ROOT, "30 27 259:1 / /mnt/x rw - ext4 /dev/loop0p1 rw"]);
    let whole = "/mnt/x/store on /dev/loop0p1 on /dev/loop0";
    let file = format!("{whole} on /images/a.img");
    assert_eq!(
        fake.contains("/dev/loop0", "/mnt/x/store").as_deref(),
        Some(whole)
    );
    assert_eq!(
        fake.contains("/images/a.img", "/mnt/x/store"),
        Some(file.clone())
    );
    assert_eq!(
        fake.contains("/dev/loop1", "/mnt/x/store"),
        Some(file.clone())
    );
    assert_eq!(
        fake.contains("/dev/sda", "/mnt/x/store"),
        Some(format!("{file} on /dev/sda1 on /dev/sda"))
    );
    assert_eq!(fake.contains("/dev/loop0p2", "/mnt/x/store"), None);
    assert_eq!(fake.contains("/dev/loop2", "/mnt/x/store"), None);
    assert_eq!(fake.contains("/images/b.img", "/mnt/x/store"), None);
    assert_eq!(fake.contains("/images/a.img", "/images/store"), None);
    assert_eq!(fake.backing("/mnt/x/store"), ["sda"]);
}

#[test]
fn memory_and_network_have_no_disks_and_overlays_their_upper_one() {
    let fake = laptop();
    fake.mounts(&[
        ROOT,
        "30 27 0:50 / /run rw - tmpfs tmpfs rw",
        "31 27 0:51 / /nfs rw - nfs4 server:/export rw",
        "32 27 0:52 / /live rw - overlay overlay rw,lowerdir=/l,upperdir=/up,workdir=/w",
    ]);
    assert_eq!(fake.backing("/run/store"), [] as [&str; 0]);
    assert_eq!(fake.backing("/nfs/store"), [] as [&str; 0]);
    assert_eq!(fake.backing("/live/store"), ["sda"]);
    assert_eq!(fake.contains("/dev/sda", "/run/x"), None);
}

#[test]
fn disks_are_listed_with_everything_known() {
    let fake = laptop();
    let sda = format!("sys/devices/{ATA}/block/sda");
    fake.file(&format!("{sda}/queue/logical_block_size"), "512");
    fake.file(&format!("{sda}/queue/physical_block_size"), "4096");
    fake.file(&format!("{sda}/queue/rotational"), "1");
    fake.directory("dev/disk/by-id");
    symlink("../../sda", fake.at("dev/disk/by-id/wwn-0x5001")).unwrap();
    symlink("../../sda", fake.at("dev/disk/by-id/ata-Dying")).unwrap();
    symlink("../../sda1", fake.at("dev/disk/by-id/ata-Dying-part1")).unwrap();
    fake.udev("8:2", "E:ID_FS_TYPE=crypto_LUKS\nE:ID_FS_UUID=aa\n");
    fake.udev(
        "253:2",
        "E:ID_FS_TYPE=ext4\nE:ID_FS_LABEL_ENC=My\\x20Data\n",
    );
    let card = fake.disk("pci/usb1/1-1/host9", "sdb", "8:16", 0);
    fake.file(&format!("{card}/removable"), "1");
    fake.disk("virtual", "zram0", "252:0", 1000);
    fake.disk("virtual", "loop7", "7:7", 0);
    fake.loop_device("loop0", "7:0", "/images/a.img");
    fake.mounts(&[ROOT, "30 27 253:2 / /data ro - ext4 /dev/mapper/vg-data rw"]);

    let disks = list_disks(&fake.system);
    let names: Vec<_> = disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(names, ["loop0", "sda", "sdb"]);
    let sda = &disks[1];
    assert_eq!(
        sda.by_id,
        ["/dev/disk/by-id/ata-Dying", "/dev/disk/by-id/wwn-0x5001"]
    );
    assert_eq!(sda.size_bytes, 51_200_000);
    assert_eq!(
        (sda.logical_sector_bytes, sda.physical_sector_bytes),
        (512, 4096)
    );
    assert!(sda.rotational && !sda.removable && sda.in_use());
    assert_eq!(sda.partitions[0].start_bytes, 1 << 20);
    assert_eq!(sda.partitions[0].contents.mounts[0].mount_point, "/");
    let luks = &sda.partitions[1].contents;
    assert_eq!(luks.fs_type.as_deref(), Some("crypto_LUKS"));
    let crypt = &luks.holders[0];
    assert_eq!(crypt.kind.as_deref(), Some("crypt"));
    assert_eq!(crypt.path, "/dev/mapper/crypt");
    let volumes = &crypt.contents.holders;
    assert_eq!(volumes[0].path, "/dev/mapper/vg-home");
    assert!(!volumes[0].contents.in_use());
    assert_eq!(volumes[1].contents.label.as_deref(), Some("My Data"));
    assert_eq!(
        volumes[1].contents.mounts,
        [Mounted {
            mount_point: "/data".to_owned(),
            fs_type: "ext4".to_owned(),
            read_only: true
        }]
    );
    assert!(disks[2].removable && disks[2].size_bytes == 0 && !disks[2].in_use());
    let json = serde_json::to_value(sda).unwrap();
    assert_eq!(json["partitions"][1]["holders"][0]["kind"], "crypt");
    assert_eq!(json["partitions"][1]["size_bytes"], 40_960_000);
}

#[test]
fn a_place_for_mounts_without_one_is_found() {
    let fake = Fake::new();
    fake.directory("mnt/usb");
    fake.directory("media/me/STICK");
    fake.directory("home/me");
    fake.mounts(&[ROOT, "28 27 0:30 / /run rw - tmpfs tmpfs rw"]);
    let place = |path: &str| {
        fake.unmounted(path)
            .map(|place| place.display().to_string())
    };
    assert_eq!(place("/mnt").as_deref(), Some("/mnt"));
    assert_eq!(place("/mnt/usb").as_deref(), Some("/mnt/usb"));
    assert_eq!(place("/mnt/usb/store").as_deref(), Some("/mnt/usb"));
    assert_eq!(place("/mnt/typo/store").as_deref(), Some("/mnt/typo"));
    assert_eq!(
        place("/media/me/STICK/store").as_deref(),
        Some("/media/me/STICK")
    );
    assert_eq!(place("/run/media/me/X").as_deref(), Some("/run/media/me/X"));
    assert_eq!(place("/home/me/store"), None);
    assert_eq!(place("/mntx/store"), None);
    assert_eq!(place("/"), None);
}

#[test]
fn a_mount_at_or_below_the_place_is_fine() {
    let fake = Fake::new();
    fake.directory("mnt/usb/store");
    fake.mounts(&[ROOT, "30 27 8:17 / /mnt/usb rw - ext4 /dev/sdb1 rw"]);
    assert_eq!(fake.unmounted("/mnt/usb"), None);
    assert_eq!(fake.unmounted("/mnt/usb/store/deep"), None);
    assert_eq!(fake.unmounted("/mnt/other"), Some("/mnt/other".into()));
    let local = "/mnt/asl/local";
    assert_eq!(fake.unmounted("/mnt/asl/local/store"), Some(local.into()));
    assert_eq!(fake.unmounted(local), Some(local.into()));
    assert_eq!(fake.unmounted("/mnt/asl/other"), Some("/mnt/asl".into()));
    fake.mounts(&[ROOT, "30 27 8:17 / /mnt rw - ext4 /dev/sdb1 rw"]);
    assert_eq!(fake.unmounted("/mnt"), None);
    assert_eq!(
        fake.unmounted("/mnt/store"),
        None,
        "the disk is on /mnt itself"
    );
}

#[test]
fn fstab_names_places_for_mounts() {
    let fake = Fake::new();
    fake.directory("srv/backup disk/store");
    fake.file(
        "etc/fstab",
        "# /dev/x /home ext4\nUUID=1 / ext4 defaults 0 1\n\
         UUID=2\t/srv/backup\\040disk ext4 noauto 0 2\nUUID=3 none swap sw 0 0\n",
    );
    fake.mounts(&[ROOT]);
    let expected = PathBuf::from("/srv/backup disk");
    assert_eq!(
        fake.unmounted("/srv/backup disk/store"),
        Some(expected.clone())
    );
    assert_eq!(fake.unmounted("/srv/backup disk/new"), Some(expected));
    assert_eq!(fake.unmounted("/srv/other"), None);
    assert_eq!(fake.unmounted("/home/x"), None, "a comment");
    fake.mounts(&[
        ROOT,
        r"30 27 8:17 / /srv/backup\040disk rw - ext4 /dev/sdb1 rw",
    ]);
    assert_eq!(fake.unmounted("/srv/backup disk/store"), None);
}

#[test]
fn paths_settle_through_links_and_what_is_missing() {
    let fake = Fake::new();
    fake.directory("mnt/usb");
    symlink("../mnt/usb", fake.at("sys/link")).unwrap();
    let settle = |path: &str| fake.system.settle(Path::new(path));
    assert_eq!(settle("/sys/link/a/b"), Path::new("/mnt/usb/a/b"));
    assert_eq!(settle("/sys/link/a/../c"), Path::new("/mnt/usb/c"));
    assert_eq!(settle("/nowhere"), Path::new("/nowhere"));
}

#[test]
fn the_running_system_answers() {
    let system = SystemPaths::default();
    let mount = describe_mount(&system, Path::new("/")).unwrap();
    assert_eq!(mount.mount_point, Path::new("/"));
    let proc = describe_mount(&system, Path::new("/proc/self/mountinfo")).unwrap();
    assert_eq!(proc.fs_type, "proc");
    // Whatever the disks are: listing them does not fail.
    for disk in list_disks(&system) {
        assert!(!disk.name.is_empty());
    }
}

#[test]
fn a_filesystem_has_the_uuid_that_udev_or_its_links_know() {
    let fake = Fake::new();
    fake.disk("a", "sda", "8:0", 100);
    fake.disk("b", "sdb", "8:16", 100);
    fake.disk("c", "sdc", "8:32", 100);
    for name in ["sda", "sdb", "sdc"] {
        fake.file(&format!("dev/{name}"), "");
    }
    fake.file("run/udev/data/b8:0", "E:ID_FS_UUID=aaaa-1\n");
    fake.directory("dev/disk/by-uuid");
    symlink(fake.at("dev/sdb"), fake.at("dev/disk/by-uuid/bbbb-2")).unwrap();
    fake.mounts(&[
        "20 1 8:0 / / rw - ext4 /dev/sda rw",
        "30 20 8:16 / /srv rw - fuseblk /dev/sdb rw",
        "40 20 8:32 / /plain rw - vfat /dev/sdc rw",
        "50 20 0:44 / /net rw - fuse.sshfs host:/x rw",
        "60 20 0:45 / /run rw - tmpfs tmpfs rw",
        "70 20 0:46 /@ /pool rw - btrfs /dev/sdb rw,subvol=/@",
    ]);
    let uuid = |path: &str| filesystem_uuid(&fake.system, Path::new(path));
    assert_eq!(uuid("/home/x").as_deref(), Some("aaaa-1"));
    assert_eq!(uuid("/srv/store").as_deref(), Some("bbbb-2"));
    assert_eq!(uuid("/pool/store").as_deref(), Some("bbbb-2"));
    for nowhere in ["/net/x", "/run/x"] {
        assert_eq!(uuid(nowhere), None, "{nowhere}");
    }
    // What is not there has no inode, and of some filesystems no directory has one that lasts.
    let place = |path: &str| place(&fake.system, Path::new(path));
    assert_eq!(place("/home/x").as_deref(), Some("aaaa-1"));
    assert_eq!(place("/srv").as_deref(), Some("bbbb-2"));
    if let Ok(found) = fs::metadata("/home") {
        let inode = std::os::unix::fs::MetadataExt::ino(&found);
        assert_eq!(place("/home").unwrap(), format!("aaaa-1/{inode}"));
    }
}
