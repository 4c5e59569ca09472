//! `asl trust`: which domains this machine trusts; and what it remembers of them, held against a store.

use std::io::{self, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use asl_bootstrap::note::Note;
use asl_bootstrap::trust::{Entry, Evidence, Head};
use asl_bootstrap::{
    Compared, Domain, DomainId, Error, LogCompared, LogPin, LogSeen, Trust, TrustError, Trusted,
};
use asl_store::StoreHandle;
use serde::Serialize;

use super::domain::failed;
use crate::args::{TrustAdd, TrustRemove};
use crate::error::{CliError, Exit, Result, causes_of};
use crate::face::Face;
use crate::report::Outcome;
use crate::state::State;
use crate::text;

/// How often, and how long after each other, it is tried to move a pin that another program is moving.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);

/// What was added or removed.
#[derive(Debug, Serialize)]
struct Changed {
    domain_id: String,
    /// Whether it is trusted now, or was before it was removed.
    trusted: bool,
    changed: bool,
    #[serde(skip)]
    words: String,
}

impl Outcome for Changed {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.words)
    }
}

/// One remembered domain.
#[derive(Debug, Serialize)]
struct Remembered {
    domain_id: String,
    name: Option<String>,
    manifest: Option<ManifestObject>,
    logs: Vec<LogObject>,
    /// Why its file cannot be read.
    damaged: Option<String>,
    #[serde(skip)]
    grouped: String,
}

#[derive(Debug, Serialize)]
struct ManifestObject {
    version: u64,
    rotation: u64,
    manifest: String,
    epoch: String,
}

#[derive(Debug, Serialize)]
struct LogObject {
    store_id: String,
    log_position: u64,
    chain_hash: String,
}

#[derive(Debug, Serialize)]
struct List {
    domains: Vec<Remembered>,
}

impl From<Entry> for Remembered {
    fn from(entry: Entry) -> Self {
        let mut object = Self {
            domain_id: entry.domain.to_string(),
            grouped: entry.domain.grouped(),
            name: None,
            manifest: None,
            logs: Vec::new(),
            damaged: None,
        };
        match entry.trusted {
            Ok(trusted) => {
                object.name = trusted.name;
                object.manifest = trusted.manifest.map(|pin| ManifestObject {
                    version: pin.version,
                    rotation: pin.rotation,
                    manifest: pin.head.to_string(),
                    epoch: pin.epoch.to_string(),
                });
                let logs = trusted.logs.iter().map(|log| LogObject {
                    store_id: log.store.to_string(),
                    log_position: log.position.0,
                    chain_hash: log.chain.to_string(),
                });
                object.logs = logs.collect();
            }
            Err(error) => object.damaged = Some(causes_of(&error).join(": ")),
        }
        object
    }
}

impl Outcome for List {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.domains.is_empty() {
            return writeln!(
                out,
                "no domain is trusted here; to add one: asl trust add DOMAIN_ID"
            );
        }
        for domain in &self.domains {
            writeln!(out, "{}", domain.grouped)?;
            if let Some(name) = &domain.name {
                writeln!(out, "  name      {}", text::visible(name))?;
            }
            if let Some(damaged) = &domain.damaged {
                writeln!(out, "  DAMAGED   {}", text::visible(damaged))?;
                continue;
            }
            match &domain.manifest {
                Some(pin) => writeln!(out, "  manifest  version {}", pin.version)?,
                None => writeln!(out, "  manifest  none was seen yet")?,
            }
            for log in &domain.logs {
                let records = text::count(log.log_position, "record");
                writeln!(out, "  log       {}, {records}", log.store_id)?;
            }
        }
        Ok(())
    }
}

/// Trusts a domain.
pub fn add(face: &Face, args: &TrustAdd) -> Result {
    let state = State::create()?;
    let trust = Trust::new(&state.vfs);
    let added = trust.add(&args.domain_id, args.name.as_deref());
    let added = added.map_err(|error| state.failed("trust that domain", &error))?;
    let how = match added {
        true => "trusted from now on:",
        false => "trusted already:",
    };
    face.report.result(&Changed {
        domain_id: args.domain_id.to_string(),
        trusted: true,
        changed: added,
        words: format!("{how}\n{}", args.domain_id.grouped()),
    })?;
    Ok(Exit::Complete)
}

/// Forgets a domain.
pub fn remove(face: &Face, args: &TrustRemove) -> Result {
    let unknown = || {
        CliError::new("that domain is not trusted here").hint("list what there is: asl trust list")
    };
    let state = State::existing()?.ok_or_else(unknown)?;
    let removed = Trust::new(&state.vfs).remove(&args.domain_id);
    if !removed.map_err(|error| state.failed("forget that domain", &error))? {
        return Err(unknown());
    }
    face.report.result(&Changed {
        domain_id: args.domain_id.to_string(),
        trusted: false,
        changed: true,
        words: format!("forgotten:\n{}", args.domain_id.grouped()),
    })?;
    Ok(Exit::Complete)
}

/// Lists the domains.
pub fn list(face: &Face) -> Result {
    let entries = match State::existing()? {
        Some(state) => Trust::new(&state.vfs)
            .list()
            .map_err(|error| state.failed("list what is trusted", &error))?,
        None => Vec::new(),
    };
    let damaged = entries.iter().any(|entry| entry.trusted.is_err());
    face.report.result(&List {
        domains: entries.into_iter().map(Remembered::from).collect(),
    })?;
    Ok(match damaged {
        true => Exit::Integrity,
        false => Exit::Complete,
    })
}

/// A store's domain held against what this machine remembers of it.
#[derive(Debug, Serialize)]
pub(super) struct Pinned {
    name: Option<String>,
    manifest: &'static str,
    log: &'static str,
    /// What is wrong with it.
    error: Option<String>,
    /// The file in which both histories are kept.
    evidence: Option<String>,
    #[serde(skip)]
    words: String,
    #[serde(skip)]
    seen: Option<LogSeen>,
}

impl Pinned {
    /// Whether the store is the one that was seen, or goes on from it.
    pub(super) fn is_ok(&self) -> bool {
        self.error.is_none()
    }

    /// Writes it under the facts of the domain.
    pub(super) fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "trust     {}", self.words)
    }
}

/// Compares the domain of a store with what is remembered; `None` where nobody said to trust it.
///
/// A rollback or a fork is told as a warning; evidence of a fork is kept.
pub(super) fn compare(
    face: &Face,
    path: &Path,
    store: &StoreHandle,
    domain: &Domain,
) -> Result<Option<Pinned>> {
    let Some(state) = State::existing()? else {
        return Ok(None);
    };
    let trust = Trust::new(&state.vfs);
    let known = trust.get(&domain.id());
    let known = known.map_err(|error| state.failed("read what is remembered", &error))?;
    let Some(known) = known else { return Ok(None) };
    let seen = LogSeen::read(store, known.log(&domain.store))
        .map_err(|error| failed("read the log", path, &error))?;
    let mut pinned = judged(&known, domain, seen);
    if let Some(error) = &pinned.error {
        if let Some(LogCompared::Fork { .. }) = seen.check(known.log(&domain.store)) {
            let evidence = evidence(&known, domain, store, seen);
            match evidence.map(|evidence| trust.keep(&evidence)) {
                Some(Ok(Some(file))) => {
                    pinned.evidence = Some(state.path.join(file).display().to_string());
                }
                Some(Err(error)) => face.report.warn(&format!(
                    "the evidence of it could not be kept in {}: {}",
                    text::path(&state.path),
                    causes_of(&error).join(": ")
                )),
                _ => {}
            }
        }
        face.report.warn(error);
        if let Some(file) = &pinned.evidence {
            face.report
                .note(&format!("both histories are kept in {file}"));
        }
        face.report.note(
            "hint: this copy is not the newest, or somebody changed it. Write nothing to it, and \
             find the copy that was seen last",
        );
    }
    Ok(Some(pinned))
}

fn judged(known: &Trusted, domain: &Domain, seen: LogSeen) -> Pinned {
    let manifest = known.manifest.map(|pin| pin.check(&domain.chain));
    // It was read for this very pin.
    let log = seen
        .check(known.log(&domain.store))
        .unwrap_or(LogCompared::New);
    let error = known.check(&domain.chain, &seen).err();
    let error = error.map(|error| causes_of(&error).join(": "));
    let words = match (&error, manifest, log) {
        (Some(_), _, _) => "NOT as it was last seen".to_owned(),
        (None, Some(Compared::Superseded { .. }), _) => {
            "A ROTATION VOIDED the manifest that was last seen".to_owned()
        }
        (None, None, LogCompared::New) => "trusted; not seen before".to_owned(),
        (None, _, LogCompared::New) => "trusted; this store was not seen before".to_owned(),
        (None, Some(Compared::Same) | None, LogCompared::Same) => "as it was last seen".to_owned(),
        (None, _, LogCompared::Ahead { records }) => format!(
            "goes on from where it was last seen: {}",
            text::count(records, "record")
        ),
        (None, _, _) => "goes on from where it was last seen".to_owned(),
    };
    Pinned {
        name: known.name.clone(),
        manifest: match manifest {
            None => "new",
            Some(Compared::Same) => "same",
            Some(Compared::Ahead { .. }) => "ahead",
            Some(Compared::Superseded { .. }) => "superseded",
            Some(Compared::Rollback { .. }) => "rollback",
            Some(Compared::Fork { .. } | Compared::OtherDomain) => "fork",
        },
        log: match log {
            LogCompared::New => "new",
            LogCompared::Same => "same",
            LogCompared::Ahead { .. } => "ahead",
            LogCompared::Rollback { .. } => "rollback",
            LogCompared::Fork { .. } => "fork",
        },
        error,
        evidence: None,
        words,
        seen: Some(seen),
    }
}

/// Both histories of a log that forked.
fn evidence(
    known: &Trusted,
    domain: &Domain,
    store: &StoreHandle,
    seen: LogSeen,
) -> Option<Evidence> {
    let pin = *known.log(&domain.store)?;
    let (position, chain) = seen.at?;
    let note = domain.newest_checkpoint().and_then(|state| {
        let bytes = store.get_part(&state.note).ok()?;
        Note::parse(&bytes).ok()
    });
    Some(Evidence {
        domain: domain.id(),
        seen: Head {
            log: pin,
            notes: Vec::new(),
        },
        found: Head {
            log: LogPin {
                store: domain.store,
                position,
                chain,
            },
            notes: note.into_iter().collect(),
        },
    })
}

/// Moves the pins of a domain that is trusted to what was just seen and judged. It is only told if that cannot be.
pub(super) fn move_on(face: &Face, store: &StoreHandle, domain: &Domain, pinned: &Pinned) {
    let Some(mut seen) = pinned.seen else { return };
    let mut moved = || -> Result<()> {
        let state = State::create()?;
        let trust = Trust::new(&state.vfs);
        for left in (0..TRIES).rev() {
            match trust.pin(&domain.chain, &[seen]) {
                Ok(_) => break,
                Err(Error::Trust(TrustError::Busy)) if left > 0 => {
                    sleep(BETWEEN);
                    let id: DomainId = domain.id();
                    let known = trust.get(&id).ok().flatten();
                    let pin = known.as_ref().and_then(|known| known.log(&domain.store));
                    seen = LogSeen::read(store, pin)
                        .map_err(|error| state.failed("read the log", &error))?;
                }
                Err(error) => return Err(state.failed("remember how far it was seen", &error)),
            }
        }
        Ok(())
    };
    if let Err(error) = moved() {
        face.report.warn(&State::not_remembered(&error));
    }
}
