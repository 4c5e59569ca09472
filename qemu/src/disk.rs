//! Disks for a machine: on any bus, with sectors that cannot be read, slow, or gone.
//!
//! Bad sectors come from QEMU's blkdebug filter, which fails every request that
//! touches one: as a real disk does, a big read over one bad sector fails whole.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// How a disk is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk: what clouds have.
    Virtio,
    /// SCSI behind a virtio host adapter: `/dev/sdX` with real sense codes.
    Scsi,
    /// SATA.
    Sata,
    /// NVMe.
    Nvme,
    /// USB mass storage.
    Usb,
    /// USB attached SCSI, as newer USB disks speak it. It is not pulled and plugged in stories.
    Uas,
}

/// `ENODATA`, which QEMU's SCSI disks report as an unrecovered read error.
const ENODATA: i32 = 61;

/// A disk that is going to be plugged in.
#[derive(Debug, Clone)]
pub struct Disk {
    pub(crate) serial: String,
    pub(crate) image: PathBuf,
    pub(crate) bus: Bus,
    bad: BTreeSet<u64>,
    read_bytes_per_second: Option<u64>,
    read_only: bool,
    log: Option<PathBuf>,
    name: Option<(String, String)>,
}

/// What a machine did with a disk, as QEMU counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockStats {
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Read requests, those that failed too.
    pub reads: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Read requests that failed.
    pub failed_reads: u64,
}

impl Disk {
    /// A disk with this image's bytes; its serial number is also its name to
    /// [`crate::Running`].
    pub fn new(serial: &str, image: impl Into<PathBuf>, bus: Bus) -> Self {
        Self {
            serial: serial.to_owned(),
            image: image.into(),
            bus,
            bad: BTreeSet::new(),
            read_bytes_per_second: None,
            read_only: false,
            log: None,
            name: None,
        }
    }

    /// What it calls itself, on SATA and UAS: vendor and product.
    #[must_use]
    pub fn named(mut self, vendor: &str, product: &str) -> Self {
        self.name = Some((vendor.to_owned(), product.to_owned()));
        self
    }

    /// These sectors of 512 bytes cannot be read.
    #[must_use]
    pub fn bad_sectors(mut self, sectors: impl IntoIterator<Item = u64>) -> Self {
        self.bad.extend(sectors);
        self
    }

    /// No faster than this.
    #[must_use]
    pub fn slow(mut self, bytes_per_second: u64) -> Self {
        self.read_bytes_per_second = Some(bytes_per_second);
        self
    }

    /// Cannot be written.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Keeps every write and flush in this file, for [`crate::Writes`].
    #[must_use]
    pub fn logged(mut self, log: impl Into<PathBuf>) -> Self {
        self.log = Some(log.into());
        self
    }

    /// The rules for blkdebug. One sector a rule: it knows no ranges.
    fn rules(&self) -> String {
        let mut rules = String::new();
        for sector in &self.bad {
            // Writing into a string cannot fail.
            let _ = write!(
                rules,
                "[inject-error]\nevent = \"none\"\niotype = \"read\"\nsector = \"{sector}\"\nerrno = \"{ENODATA}\"\nonce = \"off\"\n\n"
            );
        }
        rules
    }

    /// QEMU's arguments for what lies behind the device; `self.serial` names its top.
    pub(crate) fn backend(&self, directory: &Path) -> Result<Vec<String>> {
        let name = &self.serial;
        let mut nodes = vec![json!({
            "driver": "file", "node-name": format!("{name}-file"), "filename": self.image,
            "read-only": self.read_only, "discard": "unmap",
        })];
        let mut below = format!("{name}-file");
        let mut objects = Vec::new();
        if !self.bad.is_empty() {
            let rules = directory.join(format!("{name}.rules"));
            fs::write(&rules, self.rules()).map_err(Error::host("cannot write", &rules))?;
            nodes.push(json!({
                "driver": "blkdebug", "node-name": format!("{name}-debug"), "image": below,
                "config": rules, "read-only": self.read_only,
            }));
            below = format!("{name}-debug");
        }
        if let Some(log) = &self.log {
            fs::write(log, []).map_err(Error::host("cannot write", log))?;
            nodes.push(json!({
                "driver": "blklogwrites", "node-name": format!("{name}-logged"), "file": below,
                "log": {"driver": "file", "filename": log}, "log-sector-size": 512,
            }));
            below = format!("{name}-logged");
        }
        if let Some(rate) = self.read_bytes_per_second {
            objects.push(json!({"qom-type": "throttle-group", "id": format!("{name}-limit"), "limits": {"bps-read": rate}}));
            nodes.push(json!({
                "driver": "throttle", "node-name": format!("{name}-slow"), "throttle-group": format!("{name}-limit"),
                "file": below, "read-only": self.read_only,
            }));
            below = format!("{name}-slow");
        }
        nodes.push(json!({
            "driver": "raw", "node-name": name, "file": below, "read-only": self.read_only,
        }));
        let mut arguments = Vec::new();
        for object in objects {
            arguments.extend(["-object".to_owned(), object.to_string()]);
        }
        for node in nodes {
            arguments.extend(["-blockdev".to_owned(), node.to_string()]);
        }
        Ok(arguments)
    }

    /// The device, as QEMU's `device_add` takes it. `port` is a free PCIe
    /// or SATA port, for what needs one.
    pub(crate) fn device(&self, bus: Bus, port: &str) -> Value {
        let serial = self.serial.as_str();
        let id = format!("disk-{serial}");
        let mut device = match bus {
            Bus::Virtio => {
                json!({"driver": "virtio-blk-pci", "id": id, "drive": serial, "serial": serial, "bus": port})
            }
            Bus::Scsi => {
                json!({"driver": "scsi-hd", "id": id, "drive": serial, "serial": serial, "bus": "scsi.0"})
            }
            Bus::Sata => {
                json!({"driver": "ide-hd", "id": id, "drive": serial, "serial": serial, "bus": port})
            }
            Bus::Nvme => {
                json!({"driver": "nvme", "id": id, "drive": serial, "serial": serial, "bus": port})
            }
            Bus::Usb => {
                json!({"driver": "usb-storage", "id": id, "drive": serial, "serial": serial, "bus": "usb.0"})
            }
            Bus::Uas => {
                let bus = format!("{}.0", self.bridge());
                json!({"driver": "scsi-hd", "id": id, "drive": serial, "serial": serial, "bus": bus})
            }
        };
        match (bus, &self.name) {
            (Bus::Sata, Some((vendor, product))) => {
                device["model"] = format!("{vendor} {product}").into();
            }
            (Bus::Uas, Some((vendor, product))) => {
                device["vendor"] = vendor.as_str().into();
                device["product"] = product.as_str().into();
            }
            _ => {}
        }
        device
    }

    /// What stands between a disk's own bus and the machine's, if anything does.
    pub(crate) fn bridge_device(&self) -> Option<Value> {
        let device = json!({"driver": "usb-uas", "id": self.bridge(), "bus": "usb.0"});
        (self.bus == Bus::Uas).then_some(device)
    }

    fn bridge(&self) -> String {
        format!("bridge-{}", self.serial)
    }
}

impl BlockStats {
    /// From an element of the answer to `query-blockstats`.
    pub(crate) fn from_answer(answer: &Value) -> Self {
        let number = |name: &str| answer["stats"][name].as_u64().unwrap_or(0);
        Self {
            read_bytes: number("rd_bytes"),
            reads: number("rd_operations") + number("failed_rd_operations"),
            written_bytes: number("wr_bytes"),
            failed_reads: number("failed_rd_operations"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_sector_is_a_rule_and_a_slow_disk_a_limit() {
        let directory = std::env::temp_dir();
        let disk = Disk::new("asl-test-d1", "/nowhere/d.img", Bus::Usb).bad_sectors([7, 3]);
        let rules = disk.rules();
        assert_eq!(rules.matches("[inject-error]").count(), 2);
        assert!(rules.contains("sector = \"3\""));
        let slow = disk.slow(1000).backend(&directory).unwrap().join(" ");
        for part in [
            "throttle-group",
            "blkdebug",
            "\"image\":\"asl-test-d1-file\"",
            "\"file\":\"asl-test-d1-slow\"",
        ] {
            assert!(slow.contains(part), "{part} in {slow}");
        }
        fs::remove_file(directory.join("asl-test-d1.rules")).unwrap();
        let plain = Disk::new("asl-test-d2", "/nowhere/d.img", Bus::Scsi);
        assert!(
            !plain
                .backend(&directory)
                .unwrap()
                .join(" ")
                .contains("blkdebug")
        );
    }
}
