//! `asl-capture disk`, `asl-capture finish`: a disk into the store.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use asl_capture::commit::SyncPolicy;
use asl_capture::device::{Geometry, NotASource, OpenError, OpenOptions, Opened, open_source};
use asl_capture::digests::ExtraDigests;
use asl_capture::disk::{DiskOptions, DiskReport, End, Tuning, capture_disk, close_unfinished};
use asl_capture::inventory::{SystemPaths, source_contains_path};
use asl_capture::map::{Domain, StateKind};
use asl_capture::mapfile::{self, Mapfile, Status};
use asl_capture::pass::{MinReadRate, PlanOptions, Stage};
use asl_capture::reader::{Clock, Control, EndReason, Limits};
use asl_capture::session::{self, Capture};
use asl_store::{StoreHandle, WriteOptions};
use rustix::fs::{Access, access};

use super::captures::{CaptureResult, failed, result_of};
use super::sign_off::{SignedOff, sign_off};
use super::{domain, export};
use crate::args::{CaptureDisk, CaptureFinish};
use crate::console;
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, now, outside_store};
use crate::progress::Display;
use crate::text;
use crate::{secret, signal, writable};

/// Chunk size in bytes; docs/DESIGN.md says why.
const CHUNK_BYTES: u32 = 256 << 10;
/// Threads that hash and compress.
const THREADS_MAX: usize = 8;

/// The machine's clock.
struct SystemClock(Instant);

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        // From a second on: 0 stands for "no read under way".
        self.0.elapsed() + Duration::from_secs(1)
    }
    fn unix_ns(&self) -> i64 {
        now()
    }
}

fn tool() -> String {
    format!("asl-capture {}", env!("CARGO_PKG_VERSION"))
}

fn threads() -> usize {
    std::thread::available_parallelism()
        .map_or(2, |n| n.get())
        .clamp(1, THREADS_MAX)
}

/// Reads a disk into the store.
pub fn run(face: &Face, args: &CaptureDisk) -> Result {
    let store_path = face.store_path()?;
    let system = SystemPaths::default();
    for path in [
        Some(store_path),
        args.map_out.as_deref(),
        args.image_out.as_deref(),
    ] {
        if let Some(path) = path
            && let Some(chain) = source_contains_path(&system, &args.source, path)
        {
            let path = text::path(path);
            return Err(CliError::new(format!(
                "{path} lies on the disk that is to be read: {chain}"
            ))
            .hint("use another disk, so that nothing is written to this one (see: asl disks)"));
        }
    }
    for file in [args.map_out.as_deref(), args.image_out.as_deref()]
        .into_iter()
        .flatten()
    {
        check_output(store_path, &args.source, file)?;
    }
    let Opened { source, warnings } = open_source(
        &args.source,
        &OpenOptions {
            sector_bytes: args.sector_size,
            ..OpenOptions::default()
        },
    )
    .map_err(|error| open_failed(&args.source, &error))?;
    for warning in warnings {
        face.report.warn(&warning.to_string());
    }
    let geometry = source.geometry();
    let plan = plan(args, &geometry)?;
    let stop = signal::catch_stop_requests()?;
    // A wrong passphrase is noticed now; the keys are needed at the end, and opened again then.
    let passphrase_file = args.passphrase_file.as_deref();
    let action = format!("capture {}", text::path(&args.source));
    let (path, writer, keys) = domain::writer_with_keys(face, &action, passphrase_file)?;
    writable::warn_if_retired(face, path, writer.handle());
    drop(keys);
    secret::relax();
    let lib_failed = |error: &asl_capture::Error| failed(&action, path, error);
    let (identity, handle) = (source.identity(), writer.handle());
    let resume = match (args.new, args.resume) {
        (true, _) => Ok(Vec::new()),
        (false, false) => session::unfinished_of(handle, identity, &geometry),
        (false, true) => {
            session::unfinished_of(handle, identity, &geometry).and_then(|mut found| {
                found.extend(session::retryable_of(handle, identity, &geometry)?);
                Ok(found)
            })
        }
    };
    let resume = resume
        .map_err(|error| lib_failed(&error))?
        .into_iter()
        .next();
    if args.resume && resume.is_none() {
        let complete = session::complete_of(handle, identity, &geometry)
            .map_err(|error| lib_failed(&error))?;
        return Err(nothing_to_resume(&args.source, path, complete.first()));
    }
    if let Some(capture) = &resume {
        announce_resume(face, capture);
    }
    let options = DiskOptions {
        label: args.label.as_ref().map(|label| label.0.clone()),
        compression: args.compression.0,
        chunk_bytes: CHUNK_BYTES,
        threads: threads(),
        plan,
        limits: Limits {
            timeout: args.timeout,
        },
        read_timeout: args.read_timeout,
        sync: sync_policy(),
        digests: ExtraDigests {
            sha256: args.sha256,
            md5: args.md5,
        },
        tool: tool(),
        tuning: Tuning::default(),
    };
    if let (true, Some(advice)) = (face.report.shows_progress(), console::advice()) {
        face.report.note(advice);
    }
    let store = writer.handle().clone();
    let display = Display::of_capture(&face.report, path, stop.clone());
    let clock = Arc::new(SystemClock(Instant::now()));
    let control = Arc::new(Control::with_flag(stop.flag()));
    let report = capture_disk(
        source.into(),
        writer,
        resume.as_ref(),
        &options,
        clock,
        control,
        &display,
    );
    display.clear();
    let report = report.map_err(|error| lib_failed(&error))?;
    let signed = sign_off(face, report.session, passphrase_file);
    let (signed, unsigned) = match signed {
        Ok(signed) => (signed, Ok(())),
        Err(error) => (None, Err(error)),
    };
    let beside = [
        args.map_out
            .as_deref()
            .map_or(Ok(()), |file| write_map(file, &store, &report)),
        args.image_out
            .as_deref()
            .map_or(Ok(()), |file| write_image(face, path, &report, file)),
        unsigned,
    ];
    let exit = conclude(face, path, &args.source, &report, signed)?;
    for error in beside.into_iter().filter_map(Result::err) {
        // The capture itself is safe in the store and has been reported.
        face.report.warn(&error.in_one_line());
        if exit == Exit::Complete {
            return Ok(Exit::Failed);
        }
    }
    Ok(exit)
}

/// Bytes and seconds that a power cut may cost.
fn sync_policy() -> SyncPolicy {
    SyncPolicy {
        bytes: 32 << 20,
        interval: Duration::from_secs(1),
    }
}

fn open_failed(path: &Path, error: &OpenError) -> CliError {
    let failed = CliError::new(format!("cannot read {}", text::path(path))).caused_by(error);
    let remedies = error.remedies();
    match error {
        _ if remedies.iter().any(|remedy| remedy == "umount /") => {
            failed.hint("the system runs from it; start a rescue system from a USB stick")
        }
        _ if !remedies.is_empty() => failed.hint(remedies.join(" && ")),
        OpenError::NotFound { .. } => failed.hint("see which disks there are: asl disks"),
        OpenError::Denied { .. } => failed.hint("run it as root, for example with sudo"),
        OpenError::NotASource {
            kind: NotASource::Directory,
            ..
        } => failed.hint(format!(
            "name the disk; this is on: findmnt -no SOURCE -T {}",
            text::shell_path(path)
        )),
        OpenError::Empty { .. } => {
            failed.hint("if a medium is in the drive, take it out, put it in again and wait")
        }
        OpenError::NoDevice { .. } => {
            failed.hint("check cable and power, then look for it: asl disks")
        }
        OpenError::SectorSize { .. } => failed
            .exit(Exit::Usage)
            .hint("leave --sector-size out to use what the disk says"),
        _ => failed.hint("name a disk, a partition or an image file; see: asl disks"),
    }
}

fn plan(args: &CaptureDisk, geometry: &Geometry) -> Result<PlanOptions> {
    let mut plan = PlanOptions::new(geometry.physical_sector_bytes);
    plan.retries = args.retries;
    plan.max_bad_reads = args.max_bad_reads;
    if let Some(passes) = &args.passes {
        plan.passes = *passes;
    }
    if let Some(rate) = args.min_read_rate {
        plan.min_read_rate = match rate.0 {
            0 => MinReadRate::Off,
            rate => MinReadRate::BytesPerSecond(rate),
        };
    }
    if let Some(range) = args.range {
        let end = range.start + range.len;
        if end > geometry.size_bytes {
            return Err(CliError::usage(format!(
                "the range ends at {end}, the source at {}",
                geometry.size_bytes
            )));
        }
        plan.domain = Some(Domain::from_ranges(std::iter::once(range.start..end)));
    }
    if let Some(file) = &args.domain {
        let text = fs::read(file).map_err(|error| CliError::of_io("read", file, &error))?;
        let map = Mapfile::parse(&text)
            .and_then(|map| map.into_map(geometry.size_bytes))
            .map_err(|error| {
                CliError::usage(format!("cannot use the map {}", text::path(file)))
                    .caused_by(&error)
            })?;
        plan.domain = Some(Domain::from_ranges(
            map.runs_of(StateKind::Copied).map(|run| run.range()),
        ));
    }
    Ok(plan)
}

fn nothing_to_resume(source: &Path, store: &Path, complete: Option<&Capture>) -> CliError {
    let (source, store) = (text::path(source), text::shell_path(store));
    let Some(capture) = complete else {
        return CliError::new(format!(
            "the store has no capture of {source} to go on with"
        ))
        .hint(format!(
            "leave out --resume to begin one, or see: asl captures --store {store}"
        ));
    };
    let id = &capture.session.to_string()[..8];
    CliError::new(format!(
        "nothing is left to read: capture {id} has every byte of {source}"
    ))
    .hint(format!(
        "get it back: asl export {id} FILE --sparse --store {store}; to read the disk anew: --new"
    ))
}

/// Refuses, before hours of reading, a file that could not be written after them.
fn check_output(store: &Path, source: &Path, file: &Path) -> Result<()> {
    let shown = text::path(file);
    outside_store(store, file)?;
    if file.is_dir() {
        return Err(CliError::usage(format!("{shown} is a directory")).hint("name a file in it"));
    }
    if let (Ok(source), Ok(file)) = (fs::canonicalize(source), fs::canonicalize(file))
        && source == file
    {
        return Err(CliError::usage(format!(
            "{shown} is what is to be read; it would be overwritten"
        ))
        .hint("choose another name"));
    }
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    access(dir, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|errno| CliError::of_new_file(file, &errno.into()))
}

fn announce_resume(face: &Face, capture: &Capture) {
    let id = capture.session.to_string();
    let label = capture
        .begun
        .label
        .as_deref()
        .map(|label| format!(" ({})", text::visible(label)));
    face.report.note(&format!(
        "resuming capture {}{}",
        &id[..8],
        label.unwrap_or_default()
    ));
}

fn write_map(file: &Path, store: &StoreHandle, report: &DiskReport) -> Result<()> {
    let failed = |error: &asl_capture::Error| {
        CliError::new(format!("cannot write the map {}", text::path(file))).caused_by(error)
    };
    let capture =
        session::find(store, &report.session.to_string()).map_err(|error| failed(&error))?;
    let (map, _) = session::known(store, &capture).map_err(|error| failed(&error))?;
    let stage = if report.end.stopped().is_none() {
        Stage::Done
    } else {
        Stage::Copy { pass: 1 }
    };
    let text = mapfile::render(
        &map,
        Status::of(stage, 0),
        &[&format!(
            "Made by {} from capture {}",
            tool(),
            report.session
        )],
    );
    fs::write(file, text).map_err(|error| CliError::of_new_file(file, &error))
}

fn write_image(face: &Face, path: &Path, report: &DiskReport, file: &Path) -> Result<()> {
    if report.root.is_none() {
        return Err(
            CliError::new("no image was written: reading ended too early for one")
                .hint("see: asl-capture finish --help"),
        );
    }
    export::to_new_file(face, path, &report.session.to_string(), file)
}

/// Prints the result and what to do next; the exit code of the run.
fn conclude(
    face: &Face,
    path: &Path,
    source: &Path,
    report: &DiskReport,
    signed: Option<SignedOff>,
) -> Result {
    if let End::Reading(EndReason::Fatal { offset, errno }) = report.end {
        let why = std::io::Error::from_raw_os_error(errno);
        return Err(CliError::new(format!(
            "cannot read {} at byte {offset}",
            text::path(source)
        ))
        .caused_by(&why)
        .hint(format!(
            "{} are safe; the same command goes on",
            text::size(report.doc.rescued_bytes)
        )));
    }
    let mut result = result_of(&report.doc, unreadable_of(report));
    result.place = Some(path.to_owned());
    result.stopped = report.end.stopped().map(str::to_owned);
    let (mut words, bad_news) = next_step(&result, path, source, report.end);
    if signed
        .as_ref()
        .is_some_and(|signed| signed.receipt.is_some() && !signed.signed)
    {
        words.push(format!(
            "to sign its receipt: {}",
            domain::attest_command(path)
        ));
    }
    result.signed_off = signed;
    result.hint = Some(words.join("; "));
    let exit = exit_of(&result);
    match face.report.result(&result) {
        // Whoever read the result had enough of it: that changes nothing about the capture.
        Err(error) if error.silent => {}
        printed => printed?,
    }
    for words in words.iter().filter(|_| face.report.is_human()) {
        if bad_news {
            face.report.warn(words);
        } else {
            face.report.note(words);
        }
    }
    Ok(exit)
}

fn unreadable_of(report: &DiskReport) -> Vec<(u64, u64, i32)> {
    let runs = report.unreadable.iter();
    runs.map(|run| (run.start, run.len, run.errno)).collect()
}

/// 0 only if every byte was read; 3 if nothing more can be done without trying the
/// bad places again; 1 if the same command would go on.
fn exit_of(result: &CaptureResult) -> Exit {
    if result.complete {
        Exit::Complete
    } else if result.stopped.is_some() || result.untried_bytes > 0 {
        Exit::Failed
    } else {
        Exit::Unreadable
    }
}

/// What can be done now, and whether that is bad news.
fn next_step(result: &CaptureResult, store: &Path, source: &Path, end: End) -> (Vec<String>, bool) {
    let store = text::shell_path(store);
    let again = format!(
        "asl-capture disk {} --store {store}",
        text::shell_path(source)
    );
    let export = format!(
        "asl export {} FILE --sparse --store {store}",
        &result.capture[..8]
    );
    let safe = text::size(result.rescued_bytes);
    let left = text::size(result.untried_bytes);
    let words = match end {
        End::Reading(EndReason::Finished) => {
            let words = if result.complete {
                vec![format!("get it back: {export}")]
            } else if result.untried_bytes > 0 {
                vec![format!(
                    "{left} were left out as asked; to read them: {again} --resume"
                )]
            } else {
                vec![
                    format!("to try the bad sectors again: {again} --resume --retries 3"),
                    format!("to get it back: {export}"),
                ]
            };
            return (words, false);
        }
        End::Reading(EndReason::Gone) => format!(
            "the disk is gone: {safe} are safe, {left} were never read, nothing was marked bad. \
             Connect it again (its name may change), then: {again}"
        ),
        End::DestinationFull => {
            let ratio = result.stored_bytes as f64 / (result.rescued_bytes.max(1)) as f64;
            let needed = text::size((result.untried_bytes as f64 * ratio) as u64 + (64 << 20));
            format!(
                "the destination is full: {safe} are safe, {left} are left, about {needed} are \
                 needed. Free room there, then: {again}"
            )
        }
        End::Reading(EndReason::Interrupted) => {
            format!("stopped: {safe} are safe, {left} are left; to go on: {again}")
        }
        End::Reading(EndReason::Limit) => {
            format!("stopped at a limit: {safe} are safe, {left} are left; to go on: {again}")
        }
        End::Stuck => format!(
            "one read took too long: {safe} are safe, {left} are left; power-cycle the disk if you \
             can, then: {again}"
        ),
        End::Reading(EndReason::Fatal { errno, .. }) => {
            let why = std::io::Error::from_raw_os_error(errno);
            format!("the source refuses to be read ({why}): {safe} are safe; to go on: {again}")
        }
    };
    (vec![words], true)
}

/// Closes a capture whose disk will not come back.
pub fn finish(face: &Face, args: &CaptureFinish) -> Result {
    let (path, writer) = face.writer(WriteOptions::default())?;
    let action = format!("finish {}", text::visible(&args.capture));
    writable::require(&action, path, writer.handle())?;
    let lib_failed = |error: &asl_capture::Error| failed(&action, path, error);
    let capture =
        session::find(writer.handle(), &args.capture).map_err(|error| lib_failed(&error))?;
    if !capture.is_unfinished() {
        return Err(CliError::new(format!(
            "capture {} is finished already",
            text::visible(&args.capture)
        ))
        .hint(format!(
            "see: asl show {} --store {}",
            &capture.session.to_string()[..8],
            text::shell_path(path)
        )));
    }
    let geometry = &capture.begun.source;
    let options = DiskOptions {
        label: None,
        compression: asl_store::Compression::Auto,
        chunk_bytes: capture.begun.chunk_bytes,
        threads: 0,
        plan: PlanOptions::new(geometry.physical_sector_bytes),
        limits: Limits::default(),
        read_timeout: None,
        sync: sync_policy(),
        digests: ExtraDigests::default(),
        tool: tool(),
        tuning: Tuning::default(),
    };
    let clock = Arc::new(SystemClock(Instant::now()));
    let report = close_unfinished(
        writer,
        &capture,
        &options,
        clock,
        &Display::new(&face.report),
    )
    .map_err(|error| lib_failed(&error))?;
    let signed = sign_off(face, report.session, None);
    let mut result = result_of(&report.doc, unreadable_of(&report));
    result.place = Some(path.to_owned());
    let words = format!(
        "to get back what was read: asl export {} FILE --sparse --store {}",
        &result.capture[..8],
        text::shell_path(path)
    );
    result.hint = Some(words.clone());
    match signed {
        Ok(signed) => result.signed_off = signed,
        Err(error) => face.report.warn(&error.in_one_line()),
    }
    face.report.result(&result)?;
    if face.report.is_human() {
        face.report.note(&words);
    }
    Ok(if result.complete {
        Exit::Complete
    } else {
        Exit::Unreadable
    })
}
