//! What tells a block device apart, from sysfs and, where sysfs is silent, from
//! udev's database.
//!
//! sysfs comes first everywhere: it is there on every kernel, udev's database is
//! not, and an identity that depended on which of them runs would make a
//! capture refuse to go on with its own disk.

use std::fs;
use std::path::Path;

use super::sysfs::text;
use super::{BlockNode, SystemPaths, UdevRecord};
use crate::device::Identity;

/// Identifies `node`, named `path` by the user.
///
/// A partition has its disk's serial number and world wide name with `-part`
/// and its number appended, so that two partitions differ. A device mapper or md
/// device has its UUID for a serial number.
pub fn identify(system: &SystemPaths, node: &BlockNode, path: &str) -> Identity {
    let disk = node.disk();
    let udev = UdevRecord::read(system, disk.number);
    let suffixed = |value: String| match node.partition() {
        Some(number) => format!("{value}-part{number}"),
        None => value,
    };
    Identity {
        path: path.to_owned(),
        model: model(&disk, &udev),
        serial: serial(&disk, &udev)
            .map(suffixed)
            .or_else(|| partition_uuid(system, node))
            .or_else(|| partition_of_a_loop(node)),
        wwn: wwn(&disk, &udev).map(suffixed),
        firmware: first(
            &disk,
            &["device/firmware_rev", "device/rev", "device/fwrev"],
        )
        .or_else(|| udev.get("ID_REVISION")),
        transport: transport(&disk, &udev),
        backing_file: disk
            .loop_file()
            .map(|file| file.to_string_lossy().into_owned()),
    }
}

fn first(disk: &BlockNode, attributes: &[&str]) -> Option<String> {
    attributes.iter().find_map(|name| disk.attribute(name))
}

fn model(disk: &BlockNode, udev: &UdevRecord) -> Option<String> {
    first(disk, &["device/model", "device/name"])
        .or_else(|| disk.mapper_name())
        .or_else(|| udev.text("ID_MODEL"))
}

fn serial(disk: &BlockNode, udev: &UdevRecord) -> Option<String> {
    first(disk, &["device/serial", "serial"])
        .or_else(|| unit_serial(&disk.bytes("device/vpd_pg80")?))
        .or_else(|| usb_serial(disk))
        .or_else(|| udev.get("ID_SERIAL_SHORT"))
        .or_else(|| first(disk, &["dm/uuid", "md/uuid"]))
        .or_else(|| udev.get("MD_UUID"))
}

fn wwn(disk: &BlockNode, udev: &UdevRecord) -> Option<String> {
    first(disk, &["wwid", "device/wwid"])
        .or_else(|| udev.get("ID_WWN_WITH_EXTENSION"))
        .or_else(|| udev.get("ID_WWN"))
}

/// A partition of a disk without a serial number still has its table's.
fn partition_uuid(system: &SystemPaths, node: &BlockNode) -> Option<String> {
    node.partition()?;
    let udev = || UdevRecord::read(system, node.number).get("ID_PART_ENTRY_UUID");
    node.uevent("PARTUUID").or_else(udev)
}

/// The backing file names the disk, so the number alone names the partition.
fn partition_of_a_loop(node: &BlockNode) -> Option<String> {
    let number = node.partition()?;
    node.disk().loop_file()?;
    Some(format!("part{number}"))
}

/// The Unit Serial Number page of SCSI (SPC-6, 7.7.18): four bytes of header of
/// which the last two are the length, then ASCII. libata makes one up for ATA disks.
fn unit_serial(page: &[u8]) -> Option<String> {
    let header: [u8; 4] = page.get(..4)?.try_into().ok()?;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let serial = &page[4..page.len().min(4 + len)];
    let printable = serial
        .iter()
        .all(|byte| (b' '..=b'~').contains(byte) || *byte == 0);
    let text = String::from_utf8_lossy(serial);
    let text = text.trim_matches(|c: char| c == ' ' || c == '\0');
    (header[1] == 0x80 && printable && !text.is_empty()).then(|| text.to_owned())
}

/// The serial number of the USB device that the disk hangs on.
fn usb_serial(disk: &BlockNode) -> Option<String> {
    let usb = disk
        .directory()
        .ancestors()
        .find(|directory| directory.join("idVendor").exists())?;
    text(&usb.join("serial"))
}

fn transport(disk: &BlockNode, udev: &UdevRecord) -> Option<String> {
    let name = &disk.name;
    let by_name = [
        ("nvme", "nvme"),
        ("mmcblk", "mmc"),
        ("loop", "loop"),
        ("dm-", "dm"),
        ("md", "md"),
        ("nbd", "nbd"),
    ];
    if let Some((_, transport)) = by_name.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        return Some((*transport).to_owned());
    }
    // The nearest bus decides: an ATA disk in a USB case is a USB disk.
    let mut buses = disk.directory().ancestors().filter_map(bus);
    buses
        .next()
        .map(str::to_owned)
        .or_else(|| udev.get("ID_BUS"))
}

fn bus(directory: &Path) -> Option<&'static str> {
    let name = directory.file_name()?.to_str()?;
    let numbered = |prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if numbered("usb") {
        Some("usb")
    } else if numbered("ata") {
        Some("ata")
    } else if numbered("virtio") {
        // A virtio host adapter carries SCSI disks.
        let subsystem = fs::read_dir(directory).ok()?.flatten();
        let mut names = subsystem.map(|entry| entry.file_name());
        let scsi = names.any(|name| name.to_string_lossy().starts_with("host"));
        Some(if scsi { "scsi" } else { "virtio" })
    } else if numbered("host") {
        // SCSI, unless the host adapter hangs on one of the above.
        let above = directory.ancestors().skip(1);
        let carrier = above.filter_map(bus).find(|bus| *bus != "scsi");
        Some(carrier.filter(|bus| *bus != "virtio").unwrap_or("scsi"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_serial_number_page() {
        assert_eq!(
            unit_serial(b"\x00\x80\x00\x08  WD-AB1").as_deref(),
            Some("WD-AB1")
        );
        assert_eq!(
            unit_serial(b"\x00\x80\x00\x04WXYZrest").as_deref(),
            Some("WXYZ"),
            "the length counts"
        );
        assert_eq!(unit_serial(b"\x00\x80\x00\x08    "), None);
        assert_eq!(unit_serial(b"\x00\x83\x00\x04WXYZ"), None, "another page");
        assert_eq!(unit_serial(b"\x00\x80\x00\x02\x01\xff"), None);
        assert_eq!(unit_serial(b"\x00\x80"), None);
    }
}
