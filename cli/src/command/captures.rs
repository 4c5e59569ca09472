//! `asl captures`, `asl show`: what was captured, and how much of it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use asl_capture::manifest::{ChildFlags, Content, Manifest, SourceDoc};
use asl_capture::session::{self, Capture, CaptureState};
use asl_store::StoreHandle;
use serde::Serialize;

use super::sign_off::SignedOff;
use crate::args::Show;
use crate::error::{CliError, Exit, Result, causes_of};
use crate::face::{Face, Reader};
use crate::report::{Outcome, facts};
use crate::text;

/// Unreadable ranges shown to people; scripts get all.
const SHOWN_RANGES: usize = 20;

/// The source as results show it.
#[derive(Debug, Clone, Serialize)]
pub struct SourceResult {
    path: String,
    model: Option<String>,
    serial: Option<String>,
    size_bytes: u64,
    logical_sector_bytes: u32,
    physical_sector_bytes: u32,
}

/// A capture as results show it.
#[derive(Debug, Clone, Serialize)]
pub struct CaptureResult {
    /// The domain that has it, where it was found in a root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Its id.
    pub capture: String,
    /// The user's words.
    pub label: Option<String>,
    /// What was read.
    pub source: SourceResult,
    /// Bytes read.
    pub rescued_bytes: u64,
    /// Bytes that the medium refused.
    pub unreadable_bytes: u64,
    /// Bytes never read.
    pub untried_bytes: u64,
    /// Zeros among the bytes read.
    pub zero_bytes: u64,
    /// Bytes that were not in the store before.
    pub new_bytes: u64,
    /// Bytes that these take.
    pub stored_bytes: u64,
    /// Reads of the source.
    pub reads: u64,
    /// Failed ones.
    pub read_errors: u64,
    /// Slow stretches.
    pub slow_reads: u64,
    /// Time spent.
    pub elapsed_seconds: f64,
    /// Whether every byte was read.
    pub complete: bool,
    /// Why it ended early.
    pub stopped: Option<String>,
    /// BLAKE3 of the image with unreadable bytes as zero.
    pub image_blake3: Option<String>,
    /// SHA-256 of the same.
    pub sha256: Option<String>,
    /// MD5 of the same.
    pub md5: Option<String>,
    /// When it began, in RFC 3339; as the clock was.
    pub started: String,
    /// What the medium refused: start, length, errno.
    pub unreadable: Vec<(u64, u64, i32)>,
    /// Why its manifest cannot be read whole, where it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    /// What became of its receipt, where this is the end of a run into a store with a domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_off: Option<SignedOff>,
    /// What to do next, where this is the end of a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The store that has it, for commands that are proposed.
    #[serde(skip)]
    pub place: Option<PathBuf>,
}

fn source_result(source: &SourceDoc) -> SourceResult {
    SourceResult {
        path: source.path.clone(),
        model: source.model.clone(),
        serial: source.serial.clone(),
        size_bytes: source.size_bytes,
        logical_sector_bytes: source.logical_sector_bytes,
        physical_sector_bytes: source.physical_sector_bytes,
    }
}

/// The result of a capture with a manifest.
pub fn result_of(
    doc: &asl_capture::manifest::CaptureDoc,
    unreadable: Vec<(u64, u64, i32)>,
) -> CaptureResult {
    CaptureResult {
        domain: None,
        capture: doc.session.clone(),
        label: doc.label.clone(),
        source: source_result(&doc.source),
        rescued_bytes: doc.rescued_bytes,
        unreadable_bytes: doc.unreadable_bytes,
        untried_bytes: doc.untried_bytes,
        zero_bytes: doc.zero_bytes,
        new_bytes: doc.new_bytes,
        stored_bytes: doc.stored_bytes,
        reads: doc.reads,
        read_errors: doc.read_errors,
        slow_reads: doc.slow_reads,
        elapsed_seconds: doc.elapsed_seconds,
        complete: doc.complete,
        stopped: doc.stopped.clone(),
        image_blake3: doc.image_blake3.clone(),
        sha256: doc.sha256.clone(),
        md5: doc.md5.clone(),
        started: text::time(doc.started_unix_ns),
        unreadable,
        damage: None,
        signed_off: None,
        hint: None,
        place: None,
    }
}

/// What the medium refused: start, length, errno.
fn unreadable_of(
    store: &StoreHandle,
    root: &asl_store::Key,
) -> asl_capture::Result<Vec<(u64, u64, i32)>> {
    let manifest = Manifest::open(store, root)?;
    let mut unreadable: Vec<(u64, u64, i32)> = Vec::new();
    let wanted = |flags: ChildFlags| flags.has(ChildFlags::UNREADABLE);
    let image = 0..manifest.doc.source.size_bytes;
    manifest.walk_where(store, image, &wanted, &mut |extent| {
        if let Content::Unreadable(errno) = extent.content {
            match unreadable.last_mut() {
                Some((start, len, last)) if *start + *len == extent.offset && *last == errno => {
                    *len += extent.len
                }
                _ => unreadable.push((extent.offset, extent.len, errno)),
            }
        }
        Ok(())
    })?;
    Ok(unreadable)
}

/// The result of any capture in the store: from its manifest, or from its notes
/// where it was cut off before it had one.
pub fn result(store: &StoreHandle, capture: &Capture) -> asl_capture::Result<CaptureResult> {
    if let (Some(doc), Some(root)) = (&capture.doc, &capture.root) {
        return Ok(match unreadable_of(store, root) {
            Ok(unreadable) => result_of(doc, unreadable),
            // The log remembers what the capture was, whatever became of the blocks.
            Err(error) => CaptureResult {
                damage: Some(causes_of(&error).join(": ")),
                ..result_of(doc, Vec::new())
            },
        });
    }
    let (map, counters) = session::known(store, capture)?;
    let (rescued, refused) = (map.copied_bytes(), map.unreadable_bytes());
    Ok(CaptureResult {
        domain: None,
        capture: capture.session.to_string(),
        label: capture.begun.label.clone(),
        source: source_result(&capture.begun.source),
        rescued_bytes: rescued,
        unreadable_bytes: refused,
        untried_bytes: map.size() - rescued - refused,
        zero_bytes: 0,
        new_bytes: counters.new_bytes,
        stored_bytes: counters.stored_bytes,
        reads: counters.reads,
        read_errors: counters.read_errors,
        slow_reads: counters.slow_reads,
        elapsed_seconds: counters.elapsed_ns as f64 / 1e9,
        complete: false,
        stopped: Some("interrupted".to_owned()),
        image_blake3: None,
        sha256: None,
        md5: None,
        started: text::time(capture.begun.started_unix_ns),
        unreadable: map
            .unreadable_runs()
            .map(|run| (run.start, run.len, run.errno))
            .collect(),
        damage: None,
        signed_off: None,
        hint: None,
        place: None,
    })
}

impl CaptureResult {
    /// What became of it, in a few words.
    pub fn verdict(&self) -> String {
        if self.damage.is_some() {
            return "DAMAGED in the store".to_owned();
        }
        match (&self.stopped, self.complete, self.unreadable_bytes) {
            (Some(why), ..) => format!(
                "stopped ({why}), {} not read yet",
                text::size(self.untried_bytes)
            ),
            (None, true, _) => "every byte was read".to_owned(),
            (None, false, bad) => format!(
                "finished, {} unreadable in {}",
                text::size(bad),
                text::count(self.unreadable.len() as u64, "place")
            ),
        }
    }

    /// The same in 23 columns, for a list.
    fn brief(&self) -> String {
        let settled = self.damage.is_some() || self.complete;
        match (self.untried_bytes, self.unreadable_bytes) {
            (left @ 1.., _) if !settled => format!("{} not read yet", text::size(left)),
            (_, bad @ 1..) if !settled => format!("{} unreadable", text::size(bad)),
            _ => self.verdict(),
        }
    }

    fn name(&self) -> String {
        let words = self
            .label
            .as_deref()
            .or(self.source.model.as_deref())
            .unwrap_or(&self.source.path);
        text::visible(words).into_owned()
    }
}

impl Outcome for CaptureResult {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let source = &self.source;
        let disk = [
            Some(source.path.as_str()),
            source.model.as_deref(),
            source.serial.as_deref(),
        ];
        let disk: Vec<_> = disk
            .into_iter()
            .flatten()
            .map(|part| text::visible(part).into_owned())
            .collect();
        let domain = self.domain.iter();
        let mut lines: Vec<(&str, String)> = domain.map(|id| ("domain", id.clone())).collect();
        lines.extend([
            ("capture", self.capture.clone()),
            (
                "label",
                self.label
                    .as_deref()
                    .map_or("-".into(), |label| text::visible(label).into_owned()),
            ),
            ("source", disk.join(", ")),
            (
                "size",
                format!(
                    "{} ({} bytes)",
                    text::size(source.size_bytes),
                    source.size_bytes
                ),
            ),
            ("begun", self.started.clone()),
            ("result", self.verdict()),
        ]);
        if let Some(damage) = &self.damage {
            lines.push(("damage", damage.clone()));
        }
        lines.extend([
            (
                "rescued",
                format!(
                    "{} ({} bytes)",
                    text::size(self.rescued_bytes),
                    self.rescued_bytes
                ),
            ),
            (
                "unreadable",
                format!(
                    "{} ({} bytes)",
                    text::size(self.unreadable_bytes),
                    self.unreadable_bytes
                ),
            ),
            (
                "stored",
                format!(
                    "{} new, in {}",
                    text::size(self.new_bytes),
                    text::size(self.stored_bytes)
                ),
            ),
            (
                "reads",
                format!("{}, {} failed", self.reads, self.read_errors),
            ),
        ]);
        for (name, digest) in [
            ("blake3", &self.image_blake3),
            ("sha256", &self.sha256),
            ("md5", &self.md5),
        ] {
            if let Some(digest) = digest {
                lines.push((name, digest.clone()));
            }
        }
        facts(out, &lines)?;
        for (start, len, errno) in self.unreadable.iter().take(SHOWN_RANGES) {
            writeln!(
                out,
                "  bytes {start} to {}: {}",
                start + len - 1,
                text::read_error(*errno)
            )?;
        }
        match self.unreadable.len().checked_sub(SHOWN_RANGES) {
            Some(more @ 1..) => {
                let place = self.place.as_deref().map(text::shell_path);
                let place = place.map_or_else(String::new, |place| format!(" --store {place}"));
                let capture = &self.capture[..8];
                writeln!(out, "  and {more} more: asl show {capture} --json{place}")
            }
            _ => Ok(()),
        }
    }
}

/// A line of the list.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    it: CaptureResult,
    /// The first of its domain.
    #[serde(skip)]
    first: bool,
}

impl Outcome for Line {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { it, first } = self;
        if let (Some(domain), true) = (&it.domain, first) {
            writeln!(out, "domain {domain}")?;
        }
        writeln!(
            out,
            "{}  {:10}  {:>10}  {:20}  {}",
            &it.capture[..8],
            it.started.get(..10).unwrap_or_default(),
            text::size(it.source.size_bytes),
            text::fit(&it.name(), 20),
            text::fit(&it.brief(), 23)
        )
    }
}

/// A capture error as the face tells it.
pub fn failed(action: &str, path: &Path, error: &asl_capture::Error) -> CliError {
    use asl_capture::Error as E;
    let store = text::shell_path(path);
    let of = || CliError::new(format!("cannot {action}")).caused_by(error);
    match error {
        E::Store(error) => CliError::of_store(action, path, error),
        E::NoCapture(_) => of().hint(format!("list what there is: asl captures --store {store}")),
        E::Ambiguous { .. } => of().hint(format!("use its id: asl captures --store {store}")),
        E::Unfinished(id) => of().hint(format!(
            "go on with it: asl-capture disk SOURCE --store {store}; or, if the disk is lost: asl-capture finish {} --store {store}",
            &id[..id.len().min(8)]
        )),
        E::OtherSource { .. } => of().hint("connect the disk that was captured, or begin anew with --new"),
        E::Manifest(_) | E::Notes { .. } => of()
            .exit(Exit::Integrity)
            .hint(format!("see what is damaged: asl store verify --store {store}")),
        E::Range { .. } => of().exit(Exit::Usage).hint(format!("see its size: asl show CAPTURE --store {store}")),
        _ => of(),
    }
}

/// The capture of this name, and the first store that has it.
pub(super) fn find_among<'r>(
    readers: &'r [Reader],
    name: &str,
) -> Result<(&'r Reader, Capture), (PathBuf, asl_capture::Error)> {
    let mut found: Vec<(&Reader, Capture)> = Vec::new();
    let mut missing = None;
    for reader in readers {
        match session::find(&reader.store, name) {
            Ok(capture)
                if found
                    .iter()
                    .all(|(_, known)| known.session != capture.session) =>
            {
                found.push((reader, capture));
            }
            Ok(_) => {}
            Err(error @ asl_capture::Error::NoCapture(_)) => {
                missing.get_or_insert((reader.path.clone(), error));
            }
            Err(error) => return Err((reader.path.clone(), error)),
        }
    }
    match (found.len(), missing) {
        (0, Some(missing)) => Err(missing),
        (0, None) => Err((
            PathBuf::from("PATH"),
            asl_capture::Error::NoCapture(name.to_owned()),
        )),
        (1, _) => Ok(found.swap_remove(0)),
        (count, _) => {
            let name = name.to_owned();
            Err((
                found[0].0.path.clone(),
                asl_capture::Error::Ambiguous { name, count },
            ))
        }
    }
}

/// Lists the captures of the store. Of a root, domain after domain; what several have is listed once.
pub fn list(face: &Face) -> Result {
    let readers = face.readers()?;
    let mut list = face.report.list("captures", "capture")?;
    let mut damaged = Vec::new();
    let mut listed = BTreeSet::new();
    for reader in &readers {
        let failed = |error: &asl_capture::Error| failed("list the captures", &reader.path, error);
        let captures = match session::list(&reader.store) {
            Ok(captures) => captures,
            Err(error) => return Err(list.fail(failed(&error))),
        };
        let mut first = true;
        for capture in captures
            .iter()
            .filter(|capture| capture.state != CaptureState::Abandoned)
            .filter(|capture| listed.insert((capture.session, capture.root)))
        {
            match result(&reader.store, capture) {
                Ok(mut it) => {
                    if it.damage.is_some() {
                        damaged.push(reader);
                    }
                    it.domain = reader.domain_text();
                    let first = std::mem::take(&mut first);
                    list.item(&Line { it, first })?
                }
                Err(error) => return Err(list.fail(failed(&error))),
            }
        }
    }
    if list.count() == 0 {
        // Of a root without keys none can be made.
        face.report.note(&match face.store_path() {
            Ok(store) => format!(
                "no captures yet; make one: asl-capture disk /dev/DISK --store {}",
                text::shell_path(store)
            ),
            Err(_) => "no captures yet".to_owned(),
        });
    }
    list.finish()?;
    damaged.dedup_by_key(|reader| &reader.path);
    for reader in &damaged {
        told(face, &reader.path, &reader.store, Exit::Unreadable);
    }
    Ok(match damaged[..] {
        [] => Exit::Complete,
        _ => Exit::Unreadable,
    })
}

/// Says where to look when something is damaged.
fn told(face: &Face, path: &Path, store: &StoreHandle, exit: Exit) -> Exit {
    // Where files are missing, that was said when the store was opened.
    if exit == Exit::Unreadable && store.problems().is_empty() {
        let store = text::shell_path(path);
        face.report.note(&format!(
            "what is damaged, and where: asl store verify --store {store}"
        ));
    }
    exit
}

/// Shows one capture.
pub fn show(face: &Face, args: &Show) -> Result {
    let readers = face.readers()?;
    let action = || format!("show {}", text::visible(&args.capture));
    let (reader, capture) = find_among(&readers, &args.capture)
        .map_err(|(path, error)| failed(&action(), &path, &error))?;
    let mut result =
        result(&reader.store, &capture).map_err(|error| failed(&action(), &reader.path, &error))?;
    result.domain = reader.domain_text();
    result.place = Some(reader.path.clone());
    let exit = match result.damage {
        Some(_) => Exit::Unreadable,
        None => Exit::Complete,
    };
    face.report.result(&result)?;
    Ok(told(face, &reader.path, &reader.store, exit))
}
