//! `asl export`: a captured image to a file, a pipe or a disk.
//!
//! A file is written beside its name and renamed at the end, so what has the name is
//! whole; who stops the program removes it, only a kill leaves `NAME.asl-PID.part`. A disk is written only if nothing speaks
//! against it ([`crate::target`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use asl_capture::export::{
    DamagedRange, ExportOptions, ExportReport, Fill, export_to_file, export_to_stream,
};
use asl_capture::inventory::{DevNumber, SystemPaths};
use asl_capture::manifest::Manifest;
use asl_capture::session::{self, Capture};
use asl_store::StoreHandle;
use serde::Serialize;

use super::captures::{failed, find_among};
use crate::args::Export;
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, Reader, outside_store};
use crate::progress::Display;
use crate::report::Outcome;
use crate::signal;
use crate::target::{self, Source, Wish};
use crate::text;

/// Damaged places that are printed for people; all of them are in JSON.
const RUNS_SHOWN: usize = 8;

/// What was written.
#[derive(Debug, Serialize)]
struct Exported {
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    capture: String,
    dest: String,
    bytes: u64,
    unreadable_bytes: u64,
    untried_bytes: u64,
    damaged_bytes: u64,
    damaged: Vec<(u64, u64, String)>,
    image_blake3: Option<String>,
    /// Whether a disk is now a twin of the source: same UUIDs, volume groups and arrays.
    duplicates_ids: bool,
}

impl Outcome for Exported {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "wrote {} to {}",
            text::size(self.bytes),
            text::visible(&self.dest)
        )?;
        for (bytes, what) in [
            (self.unreadable_bytes, "were unreadable on the disk"),
            (self.untried_bytes, "were never read"),
            (self.damaged_bytes, "are damaged in the store"),
        ] {
            if bytes > 0 {
                writeln!(
                    out,
                    "  {} of it {what} and hold the fill",
                    text::size(bytes)
                )?;
            }
        }
        let runs = runs(&self.damaged);
        for (start, len, what) in runs.iter().take(RUNS_SHOWN) {
            let end = start + len - 1;
            writeln!(out, "  bytes {start} to {end}: {}", text::visible(what))?;
        }
        match runs.len().checked_sub(RUNS_SHOWN) {
            Some(more @ 1..) => writeln!(out, "  and {more} more (all of them: --json)"),
            _ => Ok(()),
        }
    }
}

/// Damaged places that follow each other, as one: start, length, and what is wrong with
/// the first of it.
fn runs(damaged: &[(u64, u64, String)]) -> Vec<(u64, u64, &str)> {
    let mut runs: Vec<(u64, u64, &str)> = Vec::new();
    for (start, len, what) in damaged {
        match runs.last_mut() {
            Some((first, run, _)) if *first + *run == *start => *run += len,
            _ => runs.push((*start, *len, what)),
        }
    }
    runs
}

fn outcome(
    capture: String,
    dest: String,
    report: ExportReport,
    image_blake3: Option<String>,
    duplicates_ids: bool,
) -> Exported {
    Exported {
        domain: None,
        capture,
        dest,
        bytes: report.bytes,
        unreadable_bytes: report.unreadable_bytes,
        untried_bytes: report.untried_bytes,
        damaged_bytes: report.damaged.iter().map(|damage| damage.len).sum(),
        damaged: report
            .damaged
            .into_iter()
            .map(|DamagedRange { offset, len, what }| (offset, len, what))
            .collect(),
        image_blake3,
        duplicates_ids,
    }
}

/// Exports a capture.
pub fn run(face: &Face, args: &Export) -> Result {
    let readers = face.readers()?;
    let name = text::visible(&args.capture).into_owned();
    let (reader, capture) = find_among(&readers, &args.capture)
        .map_err(|(path, error)| failed(&format!("export {name}"), &path, &error))?;
    let (path, store) = (&*reader.path, &reader.store);
    let lib_failed = |error: &asl_capture::Error| failed(&format!("export {name}"), path, error);
    let (id, manifest) = manifest_of(store, &capture).map_err(|error| lib_failed(&error))?;
    let size = manifest.doc.source.size_bytes;
    let range = match args.range {
        None => 0..size,
        Some(range) => range.start..range.start + range.len,
    };
    let whole = range == (0..size);
    let mut options = ExportOptions {
        fill: args.fill.0.clone(),
        sparse: args.sparse,
        range,
        threads: threads(),
    };
    let display = Display::new(&face.report);
    let (report, dest) = if args.dest == Path::new("-") {
        if io::stdout().is_terminal() {
            return Err(CliError::usage("standard output is a terminal")
                .hint("send it to a file or a program: ... | COMMAND"));
        }
        let mut out = io::stdout().lock();
        let report =
            export_to_stream(store, &manifest, &mut out, &options, &display).map_err(|error| {
                match &error {
                    // A reader that had enough is no failure.
                    asl_capture::Error::Destination { source, .. } => CliError::of_stdout(source),
                    error => lib_failed(error),
                }
            })?;
        (report, "-".to_owned())
    } else if is_block_device(&args.dest) {
        let disk = open_disk(
            args,
            path,
            &readers,
            options.range.end - options.range.start,
        )?;
        // Whatever the disk held before would show through holes.
        options.sparse = false;
        let report = export_to_file(store, &manifest, &disk, &options, &display)
            .map_err(|error| lib_failed(&error))?;
        disk.sync_all()
            .map_err(|error| CliError::of_io("sync", &args.dest, &error))?;
        (report, args.dest.display().to_string())
    } else {
        for reader in &readers {
            outside_store(&reader.path, &args.dest)?;
            not_captured(&reader.store, &args.dest)?;
        }
        not_a_missing_disk(&args.dest)?;
        let report = to_file(
            store,
            &manifest,
            &args.dest,
            &options,
            args.force,
            &display,
            &lib_failed,
        )?;
        (report, args.dest.display().to_string())
    };
    display.clear();
    let digest = manifest
        .doc
        .image_blake3
        .clone()
        .filter(|_| whole && options.fill == Fill::Zero && report.damaged.is_empty());
    let to_disk = is_block_device(&args.dest);
    let mut exported = outcome(id, dest, report, digest, to_disk);
    exported.domain = reader.domain_text();
    let partial = exported.unreadable_bytes + exported.untried_bytes + exported.damaged_bytes > 0;
    if args.dest != Path::new("-") {
        face.report.result(&exported)?;
        if to_disk {
            warn_of_twins(face, &args.dest);
        }
    } else if exported.damaged_bytes > 0 {
        face.report.warn(&format!(
            "{} are damaged in the store and hold the fill",
            text::size(exported.damaged_bytes)
        ));
    }
    Ok(if partial {
        Exit::Unreadable
    } else {
        Exit::Complete
    })
}

fn threads() -> usize {
    std::thread::available_parallelism()
        .map_or(2, |n| n.get())
        .clamp(1, 8)
}

fn open(store: &StoreHandle, name: &str) -> asl_capture::Result<(String, Manifest)> {
    manifest_of(store, &session::find(store, name)?)
}

fn manifest_of(store: &StoreHandle, capture: &Capture) -> asl_capture::Result<(String, Manifest)> {
    let id = capture.session.to_string();
    match &capture.root {
        Some(root) => Ok((id, Manifest::open(store, root)?)),
        None => Err(asl_capture::Error::Unfinished(id)),
    }
}

fn is_block_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Writes a whole image to a file that does not exist yet.
pub fn to_new_file(face: &Face, store_path: &Path, capture: &str, dest: &Path) -> Result<()> {
    let (_, store) = face.reader()?;
    let lib_failed = |error: &asl_capture::Error| failed("write the image", store_path, error);
    let (_, manifest) = open(&store, capture).map_err(|error| lib_failed(&error))?;
    let range = 0..manifest.doc.source.size_bytes;
    let options = ExportOptions {
        fill: Fill::Zero,
        sparse: true,
        range,
        threads: threads(),
    };
    let display = Display::new(&face.report);
    to_file(
        &store,
        &manifest,
        dest,
        &options,
        true,
        &display,
        &lib_failed,
    )?;
    display.clear();
    Ok(())
}

fn to_file(
    store: &StoreHandle,
    manifest: &Manifest,
    dest: &Path,
    options: &ExportOptions,
    force: bool,
    display: &Display<'_>,
    lib_failed: &dyn Fn(&asl_capture::Error) -> CliError,
) -> Result<ExportReport> {
    match fs::symlink_metadata(dest) {
        Ok(metadata) if metadata.is_dir() => {
            return Err(
                CliError::usage(format!("{} is a directory", text::path(dest)))
                    .hint("name a file in it"),
            );
        }
        Ok(metadata) if !metadata.is_file() => {
            return Err(
                CliError::usage(format!("{} is not a regular file", text::path(dest)))
                    .hint("to write to a pipe, use -"),
            );
        }
        Ok(_) if !force => {
            return Err(CliError::new(format!("{} exists", text::path(dest)))
                .hint("choose another name, or replace it: --force"));
        }
        _ => {}
    }
    let part = part_path(dest)?;
    let to = Part { dest, path: &part };
    let watch = signal::remove_when_stopped(&part);
    let written = to.write(store, manifest, options, display, lib_failed);
    let report = written.inspect_err(|_| {
        // Half an image under another name helps nobody.
        let _ = fs::remove_file(&part);
    })?;
    drop(watch);
    fs::rename(&part, dest).map_err(|error| CliError::of_new_file(dest, &error))?;
    Ok(report)
}

fn part_path(dest: &Path) -> Result<PathBuf> {
    let name = dest
        .file_name()
        .ok_or_else(|| CliError::usage(format!("{} is no file name", text::path(dest))))?;
    let mut part = name.to_os_string();
    part.push(format!(".asl-{}.part", std::process::id()));
    Ok(dest.with_file_name(part))
}

/// The file that is to get a name when it is whole, under the one it has until then.
struct Part<'a> {
    dest: &'a Path,
    path: &'a Path,
}

impl Part<'_> {
    fn write(
        &self,
        store: &StoreHandle,
        manifest: &Manifest,
        options: &ExportOptions,
        display: &Display<'_>,
        lib_failed: &dyn Fn(&asl_capture::Error) -> CliError,
    ) -> Result<ExportReport> {
        let of_io = |error: &io::Error| CliError::of_new_file(self.dest, error);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(self.path)
            .map_err(|error| of_io(&error))?;
        file.set_len(options.range.end.saturating_sub(options.range.start))
            .map_err(|error| of_io(&error))?;
        let report =
            export_to_file(store, manifest, &file, options, display).map_err(
                |error| match &error {
                    asl_capture::Error::Destination { source, .. } => of_io(source),
                    error => lib_failed(error),
                },
            )?;
        file.sync_all().map_err(|error| of_io(&error))?;
        Ok(report)
    }
}

/// Refuses a file from which something in the store was captured: an export is no
/// reason to lose the original.
fn not_captured(store: &StoreHandle, dest: &Path) -> Result<()> {
    let Ok(file) = fs::canonicalize(dest) else {
        return Ok(());
    };
    let captures = session::list(store)
        .map_err(|error| CliError::new("cannot read the captures").caused_by(&error))?;
    let is_source = |source: &str| Path::new(source) == file;
    let mut files = captures
        .iter()
        .filter_map(|capture| capture.begun.source.backing_file.as_deref());
    if files.any(is_source) {
        return Err(CliError::new(format!(
            "{} was captured into this store; it is not overwritten",
            text::path(dest)
        ))
        .hint("choose another name"));
    }
    Ok(())
}

/// Opens a disk to be overwritten, after every check that can be made.
fn open_disk(args: &Export, store_path: &Path, readers: &[Reader], bytes: u64) -> Result<File> {
    let mut captures = Vec::new();
    for reader in readers {
        let listed = session::list(&reader.store)
            .map_err(|error| CliError::new("cannot read the captures").caused_by(&error))?;
        captures.extend(listed);
    }
    let sources: Vec<Source> = (captures.into_iter())
        .map(|capture| Source {
            serial: capture.begun.source.serial,
            wwn: capture.begun.source.wwn,
            backing_file: capture.begun.source.backing_file,
        })
        .collect();
    let judged = target::judge(
        &SystemPaths::default(),
        &Wish {
            dest: &args.dest,
            tail: args.to_serial.as_deref(),
            store: store_path,
            sources: &sources,
            bytes,
        },
    )?;
    let flags = rustix::fs::OFlags::EXCL.bits() as i32;
    let mut disk = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(&args.dest)
        .map_err(|error| CliError::of_io("open", &args.dest, &error))?;
    let shown = text::path(&args.dest);
    // The name may have come to mean another device since.
    let opened = disk
        .metadata()
        .map_err(|error| CliError::of_io("look at", &args.dest, &error))?;
    if DevNumber::from_raw(opened.rdev()) != judged {
        return Err(CliError::new(format!(
            "{shown} is not the disk any more that it was a moment ago"
        ))
        .hint("look again: asl disks"));
    }
    let size = io::Seek::seek(&mut disk, io::SeekFrom::End(0))
        .map_err(|error| CliError::of_io("measure", &args.dest, &error))?;
    if size < bytes {
        return Err(CliError::new(format!(
            "{shown} has {}, the image {}",
            text::size(size),
            text::size(bytes)
        ))
        .hint("use a disk at least as large"));
    }
    Ok(disk)
}

/// What nobody expects of a copy: everything that tells filesystems, volume groups and arrays apart is in it as well.
fn warn_of_twins(face: &Face, dest: &Path) {
    let disk = text::shell_path(dest);
    face.report.warn(&format!(
        "{} now has the same filesystem UUIDs, LVM volume groups and md arrays as the original. \
         Never have both in one machine at a time: it may mount, assemble or write to the wrong one",
        text::path(dest)
    ));
    let words = [
        "If they cannot be kept apart, change the COPY, with the original unplugged:".to_owned(),
        format!("  LVM    vgimportclone {disk}"),
        "  ext4   tune2fs -U random PARTITION".to_owned(),
        "  xfs    xfs_admin -U generate PARTITION".to_owned(),
        "  btrfs  btrfstune -u PARTITION".to_owned(),
        format!("  GPT    sgdisk -G {disk}"),
        "Never run these on the original. Of an md array, use one of the two only.".to_owned(),
    ];
    for line in words {
        face.report.note(&line);
    }
}

/// Refuses the name of a disk that is not there: in its place, a file would fill the memory.
fn not_a_missing_disk(dest: &Path) -> Result<()> {
    let in_dev = dest.parent() == Some(Path::new("/dev"));
    if in_dev && fs::symlink_metadata(dest).is_err() {
        return Err(
            CliError::usage(format!("there is no disk {}", text::path(dest)))
                .hint("list the disks: asl disks"),
        );
    }
    Ok(())
}
