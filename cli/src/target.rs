//! The disk that an export is to overwrite: which one it is, and everything that speaks against it.
//!
//! Here people overwrite the patient, so a disk is only taken if the user knows the end of its serial number, and whatever they
//! know, never one that
//! - was captured into the store, in whole or in part, or has such a disk beneath it;
//! - is in use in any way, on any partition, at any height;
//! - holds the store, the running system, or what that was started from;
//! - is too small, or refuses writes.
//!
//! Only what the kernel and udev know already is asked for; nothing is opened, nothing is written.

use std::collections::BTreeSet;
use std::path::Path;

use asl_capture::inventory::{
    BlockNode, Contents, DevNumber, Disk, SystemPaths, backing_disks_of, devices_beneath, identify,
    list_disks, usage_of,
};

use crate::error::{CliError, Result};
use crate::machine::{SurveyedDisk, boot_labels, has_label};
use crate::text;

/// Characters of a serial number that the user must know.
pub const TAIL_MIN: usize = 4;
/// Parts of a disk that are named when it is described.
const PARTS_SHOWN: usize = 4;

/// What tells a disk apart from all others, as a capture remembers its source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// Serial number; that of a partition ends with `-part` and its number.
    pub serial: Option<String>,
    /// World wide name, likewise.
    pub wwn: Option<String>,
    /// The image file.
    pub backing_file: Option<String>,
}

/// What is to be written where.
pub struct Wish<'a> {
    /// The device, as the user named it.
    pub dest: &'a Path,
    /// The end of its serial number, as far as the user gave one.
    pub tail: Option<&'a str>,
    /// The store that is read.
    pub store: &'a Path,
    /// What was captured into it.
    pub sources: &'a [Source],
    /// Bytes to write.
    pub bytes: u64,
}

/// Finds out which device that is, and whether it may be overwritten.
///
/// # Errors
/// What speaks against it; each says which disk it is.
pub fn judge(system: &SystemPaths, wish: &Wish) -> Result<DevNumber> {
    let shown = text::path(wish.dest);
    let node = BlockNode::by_path(system, wish.dest)
        .ok_or_else(|| CliError::new(format!("cannot find out what disk {shown} is")))?;
    let disk = node.disk();
    let listed = list_disks(system)
        .into_iter()
        .find(|listed| listed.name == disk.name);
    let what = match &listed {
        Some(listed) => format!("{shown} is {}", describe(listed)),
        None => format!("{shown} is {}", text::size(disk.size_bytes())),
    };
    let refused = |why: &str| CliError::new(format!("{shown} {why}; it is not overwritten"));
    let another = format!("write to another disk (see: asl disks); {what}");

    if was_captured(system, &disk, wish.sources) {
        return Err(refused("was captured into this store").hint(another));
    }
    let started = listed.is_some_and(|listed| {
        let labels = boot_labels(system);
        has_label(&listed, &labels) || SurveyedDisk::of(system, listed).boot_medium
    });
    if started {
        return Err(refused("is what this system was started from").hint(another));
    }
    let beneath = |path| {
        let mut disks = backing_disks_of(system, path).into_iter();
        disks.any(|of| of.number == disk.number)
    };
    if beneath(wish.store) {
        return Err(refused("holds the store").hint(another));
    }
    if beneath(Path::new("/")) {
        return Err(refused("holds the running system").hint(another));
    }
    if let Some(usage) = usage_of(system, &disk).first() {
        return Err(CliError::new(format!("{shown} is in use: {usage}")).hint(usage.remedy()));
    }
    if node.flag("ro") || disk.flag("ro") {
        return Err(
            refused("is write-protected").hint("look for a switch on it, or use another disk")
        );
    }
    let size = node.size_bytes();
    if size < wish.bytes {
        return Err(CliError::new(format!(
            "{shown} has {}, the image {}",
            text::size(size),
            text::size(wish.bytes)
        ))
        .hint("use a disk at least as large"));
    }
    // That of the disk, also for a partition: that is what stands on its label.
    let Some(serial) = identify(system, &disk, &disk.path()).serial else {
        return Err(CliError::new(format!(
            "{shown} has no serial number, so it cannot be told from others"
        ))
        .hint("export to a file, then copy that"));
    };
    let tail = wish.tail.filter(|tail| tail.chars().count() >= TAIL_MIN);
    let Some(tail) = tail else {
        return Err(
            CliError::usage(format!("everything on {shown} would be lost")).hint(format!(
                "{what}. If that is the one, add --to-serial with at least the last {TAIL_MIN} \
                 characters of its serial number, which stands on its label (and in: asl disks)"
            )),
        );
    };
    if !serial.ends_with(tail) {
        return Err(CliError::new(format!(
            "the serial number of {shown} does not end with {}",
            text::visible(tail)
        ))
        .hint(format!("this may be the wrong disk: {what}")));
    }
    Ok(node.number)
}

/// A disk in words: `"Anna's Disk" of 931.5 GiB (usb), with sdb1 ntfs "Windows"`. The serial number is left out: somebody who
/// has to type it looks at the disk.
fn describe(disk: &Disk) -> String {
    let name = disk.model.as_deref().or(disk.backing_file.as_deref());
    let mut words = match name {
        Some(name) => format!("\"{}\" of ", text::visible(name)),
        None => "a disk of ".to_owned(),
    };
    words.push_str(&text::size(disk.size_bytes));
    if let Some(transport) = &disk.transport {
        words.push_str(&format!(" ({})", text::visible(transport)));
    }
    let mut parts: Vec<String> = (disk.partitions.iter())
        .map(|part| format!("{} {}", part.name, holds(&part.contents)))
        .collect();
    if parts.is_empty() && disk.contents.fs_type.is_some() {
        parts.push(holds(&disk.contents));
    }
    let more = parts.len().saturating_sub(PARTS_SHOWN);
    parts.truncate(PARTS_SHOWN);
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    if !parts.is_empty() {
        words.push_str(&format!(", with {}", parts.join(", ")));
    }
    words
}

fn holds(contents: &Contents) -> String {
    let fs_type = contents.fs_type.as_deref().unwrap_or("of unknown content");
    let fs_type = text::visible(fs_type);
    match &contents.label {
        Some(label) => format!("{fs_type} \"{}\"", text::visible(label)),
        None => fs_type.into_owned(),
    }
}

/// Whether a source is the disk, part of it, or beneath it; or it is part of a source.
fn was_captured(system: &SystemPaths, disk: &BlockNode, sources: &[Source]) -> bool {
    let mut nodes = devices_beneath(system, disk);
    nodes.extend(nodes.clone().iter().map(BlockNode::disk));
    nodes.extend(nodes.clone().iter().flat_map(BlockNode::partitions));
    let names: BTreeSet<(u8, String)> = (nodes.iter())
        .flat_map(|node| {
            let identity = identify(system, node, &node.path());
            names_of(&Source {
                serial: identity.serial,
                wwn: identity.wwn,
                backing_file: identity.backing_file,
            })
        })
        .collect();
    let mut captured = sources.iter().flat_map(names_of);
    captured.any(|name| names.contains(&name))
}

/// The names of a source, and of the disk that it is a partition of.
fn names_of(source: &Source) -> Vec<(u8, String)> {
    let all = [&source.serial, &source.wwn, &source.backing_file];
    let mut names = Vec::new();
    for (kind, name) in (0..).zip(all) {
        let Some(name) = name else { continue };
        names.push((kind, name.clone()));
        if let Some((disk, number)) = name.rsplit_once("-part")
            && kind < 2
            && !disk.is_empty()
            && number.parse::<u64>().is_ok()
        {
            names.push((kind, disk.to_owned()));
        }
    }
    // All partitions of loop devices are called so.
    names.retain(|(kind, name)| *kind == 2 || !is_loop_partition(name));
    names
}

fn is_loop_partition(name: &str) -> bool {
    let number = name.strip_prefix("part");
    number.is_some_and(|number| number.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests;
