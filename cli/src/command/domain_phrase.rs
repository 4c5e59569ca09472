//! Files with a recovery phrase: one line that names the domain, then the words.
//!
//! A phrase is never written over anything.
//!
//! Crash: a file that was written is durable, its name as well; one that was cut off says so by having no whole phrase.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use asl_bootstrap::{DomainId, Phrase, PhraseError};
use zeroize::Zeroizing;

use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::{probe, text};

const FIRST_LINE: &str = "# recovery phrase of domain ";
const FIRST_WORDS: &str = "# recovery phrase ";
/// Longest phrase file that is read.
const LEN_MAX: u64 = 4096;

/// What the directory of a store holds: a file put there may be taken for something else, or be removed.
const OF_STORES: [&str; 11] = [
    "ballast",
    "blocks",
    "copied",
    "evidence",
    "index",
    "instances",
    "lock",
    "log",
    "meta",
    "snapshots",
    "tmp",
];

/// What is to be said of a file for a phrase that lies in a store.
enum Beside {
    /// It is among what the store keeps there.
    Among(PathBuf),
    /// It is only beside that.
    Near(PathBuf),
}

fn beside(file: &Path) -> Option<Beside> {
    let mut near = None;
    for (store, below) in probe::stores_around(file) {
        let first = below.components().next();
        let known = |name: &&str| first.is_some_and(|first| first.as_os_str() == *name);
        if OF_STORES.iter().any(known) {
            return Some(Beside::Among(store));
        }
        near = near.or(Some(store));
    }
    near.map(Beside::Near)
}

/// Refuses a file for a phrase among what a store keeps, whichever store it is. Beside that, where it may be the only place that there is,
/// somebody is warned: then one disk has both the keys and what stands in for them.
pub(super) fn check_place(face: &Face, file: &Path) -> Result<()> {
    match beside(file) {
        None => Ok(()),
        Some(Beside::Near(store)) => {
            face.report.warn(&near(file, &store));
            Ok(())
        }
        Some(Beside::Among(store)) => Err(among(file, &store)),
    }
}

/// What is to be said to somebody who names such a file at a question; `Err` where it cannot be there.
pub(super) fn objection(file: &Path) -> Result<Option<String>> {
    match beside(file) {
        None => Ok(None),
        Some(Beside::Near(store)) => Ok(Some(near(file, &store))),
        Some(Beside::Among(store)) => Err(among(file, &store)),
    }
}

fn near(file: &Path, store: &Path) -> String {
    format!(
        "{} lies in the store {}: whoever gets that disk gets the words with it, and what breaks \
         it takes both. Copy them to paper, then delete the file",
        text::path(file),
        text::path(store)
    )
}

fn among(file: &Path, store: &Path) -> CliError {
    let error = CliError::usage(format!(
        "{} lies among the files of the store {}",
        text::path(file),
        text::path(store)
    ));
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    // Above a mountpoint there is another disk, on a rescue system one that forgets.
    let above = store
        .parent()
        .filter(|above| device(above) == device(store));
    match (above, file.file_name()) {
        (Some(above), Some(name)) => error.hint(format!(
            "name a file outside of it, best on another disk; on this one: --recovery-out {}",
            text::shell_path(&above.join(name))
        )),
        _ => error.hint("name a file on another disk: --recovery-out FILE"),
    }
}

/// Writes the phrase of a domain into a new file, durable when this returns.
pub(super) fn write(path: &Path, domain: &DomainId, phrase: &Phrase) -> Result<()> {
    write_of(path, &format!("of domain {domain}"), phrase)
}

/// As [`write`], of something else.
pub(super) fn write_of(path: &Path, whose: &str, phrase: &Phrase) -> Result<()> {
    let failed = |error| CliError::of_io("write the recovery phrase to", path, &error);
    let mut content = Zeroizing::new(String::with_capacity(512));
    content.push_str(&format!("{FIRST_WORDS}{whose}\n"));
    for (i, word) in phrase.words().enumerate() {
        content.push_str(word);
        content.push(if i % 6 == 5 { '\n' } else { ' ' });
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let parent = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    parent.sync_all().map_err(failed)
}

/// What a phrase file says: the domain, if it names one, and the words.
pub(super) struct Written {
    /// The domain that its first line names.
    pub(super) domain: Option<DomainId>,
    /// The phrase, or what is wrong with the words.
    pub(super) phrase: Result<Phrase, PhraseError>,
}

/// Reads a phrase file: as [`write`] makes it, or only words. Lines that begin with `#` are comments.
pub(super) fn read(path: &Path) -> Result<Written> {
    let failed = |error| CliError::of_io("read the recovery phrase from", path, &error);
    let mut content = Zeroizing::new(String::with_capacity(LEN_MAX as usize));
    let file = File::open(path).map_err(failed)?;
    let mut file = file.take(LEN_MAX);
    file.read_to_string(&mut content).map_err(failed)?;
    let first = content.lines().next();
    let domain = first.and_then(|line| line.strip_prefix(FIRST_LINE)?.parse().ok());
    let mut words = Zeroizing::new(String::with_capacity(content.len() + 1));
    for line in content.lines().filter(|line| !line.starts_with('#')) {
        words.push_str(line);
        words.push(' ');
    }
    Ok(Written {
        domain,
        phrase: Phrase::parse(&words),
    })
}

/// The phrase of a file that was named to be used.
pub(super) fn given(path: &Path) -> Result<Phrase> {
    read(path)?.phrase.map_err(|error| {
        let failed = CliError::new(format!("cannot use the phrase in {}", text::path(path)))
            .caused_by(&error)
            .exit(Exit::Input);
        match &error {
            PhraseError::Unknown { position, near } if !near.is_empty() => failed.hint(format!(
                "look at word {position} on the paper again; it may be: {}",
                near.join(", ")
            )),
            PhraseError::Unknown { position, .. } => {
                failed.hint(format!("look at word {position} on the paper again"))
            }
            PhraseError::Count { .. } => failed.hint("write all 24 words into the file, in order"),
            PhraseError::Checksum => failed.hint("compare every word with the paper, in order"),
        }
    })
}

/// Refuses a file that is there already.
pub(super) fn taken(path: &Path) -> CliError {
    CliError::new(format!("{} exists already", text::path(path)))
        .hint("name a new file: a recovery phrase is never written over anything")
}

/// Removes the phrase of a mint that was interrupted before any key was kept, as `stale` says of its domain: it recovers nothing.
/// Any other file stays, and is refused.
pub(super) fn clear_stale(path: &Path, stale: impl FnOnce(&DomainId) -> bool) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let domain = read(path).ok().and_then(|written| written.domain);
    if !domain.is_some_and(|domain| stale(&domain)) {
        return Err(taken(path));
    }
    let failed = |error| CliError::of_io("remove", path, &error);
    fs::remove_file(path).map_err(failed)
}

/// Makes sure that the file has the phrase of `domain` that `recovers` knows.
pub(super) fn check(
    path: &Path,
    domain: &DomainId,
    recovers: impl FnOnce(&Phrase) -> bool,
) -> Result<()> {
    match read(path)?.phrase {
        Ok(phrase) if recovers(&phrase) => Ok(()),
        _ => Err(CliError::new(format!(
            "{} does not have the recovery phrase of domain {domain}",
            text::path(path),
        ))
        .exit(Exit::Input)
        .hint("name the file of the interrupted command, or go on with --no-recovery")),
    }
}
