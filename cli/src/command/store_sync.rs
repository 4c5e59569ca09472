//! `asl store sync`: what another copy of the store has comes over, checked.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use asl_capture::inventory::SystemPaths;
use asl_store::log::LogFiles;
use asl_store::sync::{Outcome as Became, Side, SyncOptions, SyncReport, SyncedInstance, sync};
use asl_store::vfs::Vfs;
use asl_store::vfs::real::RealVfs;
use asl_store::{Error as StoreError, StoreHandle};
use serde::Serialize;

use super::store_other::{self, Judged, Other};
use crate::args::{Expected, StoreSync};
use crate::error::{CliError, Exit, Result, causes_of};
use crate::face::{Face, context_at, home_of};
use crate::probe::{self, Allowed};
use crate::progress::Display;
use crate::report::Outcome;
use crate::signal;
use crate::text;

/// What came.
#[derive(Debug, Serialize)]
struct Synced {
    instances: Vec<InstanceObject>,
    /// With `--both`: what went the other way.
    back: Option<Vec<InstanceObject>>,
    /// Whether the logs of both stores are the same now.
    equal: bool,
    dry_run: bool,
    /// Whether every block that is here was read; with `--both`, of both. Not where only one store has some.
    verified: bool,
    /// Why it ended early.
    stopped: Option<&'static str>,
    /// Whether what is here was to be read.
    #[serde(skip)]
    asked: bool,
}

/// What became of one instance.
#[derive(Debug, Serialize)]
struct InstanceObject {
    store_id: String,
    position_before: Option<u64>,
    position_after: Option<u64>,
    blocks: u64,
    bytes: u64,
    shared_bytes: u64,
    healed_blocks: u64,
    /// These blocks, and caches that were healed: what was wrong with them.
    healed_files: Vec<HealedObject>,
    /// Blocks that were read where they are to be.
    verified_blocks: u64,
    verified_bytes: u64,
    outcome: &'static str,
    /// Records that are the same, where it forked.
    forked_at: Option<u64>,
    /// Where in this store the other history is kept.
    evidence: Option<String>,
    /// Why it was refused.
    error: Option<String>,
    damaged: Vec<DamagedObject>,
    #[serde(skip)]
    dry_run: bool,
    #[serde(skip)]
    exit: Exit,
}

/// A file that is not what its log says, and that no whole one came for.
#[derive(Debug, Serialize)]
struct DamagedObject {
    file: String,
    what: String,
    /// What is wrong with the file that it was to replace, and which is kept.
    also: Option<String>,
    /// Why it was not replaced although the other copy is whole.
    kept: Option<String>,
}

/// A file that was lost or damaged and is whole again.
#[derive(Debug, Serialize)]
struct HealedObject {
    file: String,
    what: String,
}

/// What is wrong with a file.
fn wrong(error: &StoreError) -> String {
    match error {
        StoreError::Damaged { what, offset, .. } => format!("byte {offset}: {what}"),
        error => causes_of(error).join(": "),
    }
}

impl InstanceObject {
    fn of(one: SyncedInstance, args: &StoreSync) -> Self {
        let sound = match (one.damaged.is_empty(), args.accept_damaged) {
            (true, _) => Exit::Complete,
            (false, true) => Exit::Unreadable,
            (false, false) => Exit::Integrity,
        };
        let (outcome, exit) = match &one.outcome {
            Became::Equal => ("equal", sound),
            Became::Ahead => ("ahead", sound),
            Became::Taken if args.dry_run => ("would-take", sound),
            Became::Taken => ("taken", sound),
            Became::Stopped => ("stopped", Exit::Failed),
            Became::Forked { .. } => ("forked", Exit::Rollback),
            Became::RolledBack => ("rolled-back", Exit::Rollback),
            Became::Damaged => ("damaged", Exit::Integrity),
            Became::Refused { error, .. } => ("refused", exit_of(error)),
            Became::PassedOver => ("passed-over", Exit::Authority),
        };
        let (forked_at, evidence) = match &one.outcome {
            Became::Forked { at, evidence } => (Some(at.0), evidence.clone()),
            _ => (None, None),
        };
        let error = match &one.outcome {
            Became::Refused { side, error } => {
                let side = match side {
                    Side::Here => "here",
                    Side::There => "in the other store",
                };
                Some(format!("{side}, {}", causes_of(error).join(": ")))
            }
            _ => None,
        };
        let damaged = one.damaged.into_iter().map(|damaged| {
            let (error, here) = (wrong(&damaged.error), damaged.here.as_ref().map(wrong));
            let (what, also, kept) = match (damaged.side, here) {
                (Side::Here, Some(here)) => (here, None, Some(error)),
                (_, here) => (error, here, None),
            };
            DamagedObject {
                file: damaged.path,
                what,
                also,
                kept,
            }
        });
        let healed = one.healed_files.into_iter().map(|healed| HealedObject {
            file: healed.path,
            what: wrong(&healed.was),
        });
        Self {
            store_id: one.store.to_string(),
            position_before: one.before.map(|head| head.position.0),
            position_after: one.after.map(|head| head.position.0),
            blocks: one.blocks,
            bytes: one.bytes,
            shared_bytes: one.shared_bytes,
            healed_blocks: one.healed,
            healed_files: healed.collect(),
            verified_blocks: one.verified,
            verified_bytes: one.verified_bytes,
            outcome,
            forked_at,
            evidence,
            error,
            damaged: damaged.collect(),
            dry_run: args.dry_run,
            exit,
        }
    }

    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.store_id)?;
        let (before, after) = (
            self.position_before.unwrap_or(0),
            self.position_after.unwrap_or(0),
        );
        let records = || text::count(after.saturating_sub(before), "record");
        let blocks = text::count(self.blocks, "block");
        match self.outcome {
            "equal" => writeln!(out, "  the same in both, {}", text::count(after, "record"))?,
            "ahead" => writeln!(out, "  nothing there that is not here")?,
            "taken" => writeln!(
                out,
                "  brought {} ({after} now), {blocks}, {}",
                records(),
                text::size(self.bytes)
            )?,
            "would-take" => writeln!(
                out,
                "  would bring {}, {blocks}, {}",
                records(),
                text::size(self.bytes)
            )?,
            "stopped" => writeln!(
                out,
                "  interrupted; {blocks} brought, nothing of it counts yet"
            )?,
            "forked" => writeln!(
                out,
                "  TWO HISTORIES after record {}; nothing of it was taken",
                self.forked_at.unwrap_or(0)
            )?,
            "rolled-back" => writeln!(
                out,
                "  OLD: it is written here, and there is more of it there; not taken"
            )?,
            "damaged" => writeln!(
                out,
                "  DAMAGED there and not taken; what is whole ({blocks}) is here already"
            )?,
            "passed-over" => writeln!(out, "  of another domain; not taken")?,
            _ => writeln!(out, "  REFUSED")?,
        }
        if self.verified_blocks > 0 {
            let read = text::count(self.verified_blocks, "block");
            writeln!(out, "  read {read}, {}", text::size(self.verified_bytes))?;
        }
        let caches = (self.healed_files.len() as u64).saturating_sub(self.healed_blocks);
        for (count, what) in [(self.healed_blocks, "block"), (caches, "cache")] {
            if count > 0 {
                let healed = text::count(count, what);
                let became = match self.dry_run {
                    true => "would be whole again",
                    false if count == 1 => "is whole again",
                    false => "are whole again",
                };
                writeln!(out, "  {healed} that had been lost or damaged {became}")?;
            }
        }
        if self.shared_bytes > 0 {
            let shared = text::size(self.shared_bytes);
            writeln!(
                out,
                "  {shared} of it take no room: both have the same bytes"
            )?;
        }
        if let Some(evidence) = &self.evidence {
            writeln!(
                out,
                "  the other one is kept in {}",
                text::visible(evidence)
            )?;
        }
        if let Some(error) = &self.error {
            writeln!(out, "  {}", text::visible(error))?;
        }
        for damaged in &self.damaged {
            writeln!(out, "  DAMAGED {}", text::visible(&damaged.file))?;
            writeln!(out, "    {}", text::visible(&damaged.what))?;
            if let Some(also) = &damaged.also {
                writeln!(out, "    the other copy, too: {}", text::visible(also))?;
            }
            if let Some(kept) = &damaged.kept {
                writeln!(
                    out,
                    "    the other copy is whole and cannot take its place:"
                )?;
                writeln!(out, "    {}", text::visible(kept))?;
            }
        }
        Ok(())
    }
}

fn exit_of(error: &StoreError) -> Exit {
    match error {
        StoreError::LogDamaged { .. }
        | StoreError::LogTailLost { .. }
        | StoreError::Damaged { .. }
        | StoreError::NotAStore => Exit::Integrity,
        _ => Exit::Failed,
    }
}

impl Synced {
    fn all(&self) -> impl Iterator<Item = &InstanceObject> {
        self.instances.iter().chain(self.back.iter().flatten())
    }

    /// What is known of the files.
    fn state(&self) -> &'static str {
        let whole = self.all().all(|one| one.damaged.is_empty());
        match (whole, self.verified, self.back.is_some()) {
            (false, ..) => ", but not every file is whole",
            (true, true, false) => "; every block here was read",
            (true, true, true) => "; every block of both was read",
            (true, false, _) => "",
        }
    }

    /// The worst of all instances.
    fn exit(&self) -> Exit {
        let worst = [
            Exit::Rollback,
            Exit::Integrity,
            Exit::Authority,
            Exit::Failed,
            Exit::Unreadable,
        ];
        let is = |exit: &Exit| self.all().any(|one| one.exit == *exit);
        match worst.into_iter().find(is) {
            Some(exit) => exit,
            None if self.stopped.is_some() => Exit::Failed,
            None => Exit::Complete,
        }
    }
}

impl Outcome for Synced {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        for one in &self.instances {
            one.show(out)?;
        }
        if let Some(back) = &self.back {
            writeln!(out, "the other way:")?;
            for one in back {
                one.show(out)?;
            }
        }
        match (self.stopped.is_some(), self.equal, self.dry_run) {
            (true, _, _) => writeln!(out, "interrupted"),
            (_, true, false) => writeln!(out, "both have the same records now{}", self.state()),
            (_, true, true) => writeln!(out, "then both would have the same records"),
            (_, false, _) if self.asked => writeln!(
                out,
                "the two are not equal; no more was read than is said here"
            ),
            (_, false, _) => writeln!(out, "the two are not equal"),
        }
    }
}

/// Brings over what OTHER has.
pub fn run(face: &Face, args: &StoreSync) -> Result {
    let path = face.store_path()?;
    let other = store_other::open(path, &args.other)?;
    let there = store_other::judge(face, other.path, &other.store)?;
    let here = look(path)?;
    check_expected(args, &other, &there)?;
    match &here {
        Some(store) => check_related(face, args, (path, store), (&other, &there))?,
        None => check_mirror(face, args, path, &there)?,
    }
    let taken = store_other::of_domain(face, &other, there.domain);
    let into: Arc<dyn Vfs> = match (&here, args.dry_run) {
        (None, true) => {
            let size = other.store.with_state(|state| {
                let blocks = state.blocks.values().map(|block| block.file_len);
                blocks.fold(0, u64::saturating_add)
            });
            return Err(CliError::usage(format!(
                "{} holds no store yet, so everything would come: {} and what else is there",
                text::path(path),
                text::size(size)
            ))
            .hint("make the mirror: the same command without --dry-run"));
        }
        (None, false) => Arc::new(
            RealVfs::create(path)
                .map_err(|error| CliError::of_io("make the directory", path, &error))?,
        ),
        // The top of the directory; what the store is opened at may be one instance in it.
        (Some(_), _) => face.store_files()?.1,
    };
    let stop = signal::catch_stop_requests()?;
    let display = Display::of_capture(&face.report, path, stop.clone());
    let options = SyncOptions {
        threads: std::thread::available_parallelism().map_or(2, usize::from),
        dry_run: args.dry_run,
        verify: args.verify,
        accept_damaged: args.accept_damaged,
        only: Some(taken),
    };
    let bring = |into: &Arc<dyn Vfs>, from: &Arc<dyn Vfs>, options: &SyncOptions, to: &Path| {
        let brought = sync(into, from, &context_at(to)?, options, &display);
        brought.map_err(|error| {
            let action = format!("bring over what is new to {}", text::path(to));
            interrupted(
                CliError::of_store(&action, to, &error),
                &error,
                (path, to),
                args,
            )
        })
    };
    let brought = bring(&into, &other.vfs, &options, path)?;
    let goes_on = args.both && here.is_some() && !brought.stopped;
    let back = match goes_on {
        true => {
            let options = SyncOptions {
                only: None,
                ..options
            };
            Some(bring(&other.vfs, &into, &options, other.path)?)
        }
        false => None,
    };
    display.clear();
    let synced = result(args, brought, back);
    face.report.result(&synced)?;
    if face.report.is_human() {
        advise(face, args, path, (&there, &synced));
    }
    Ok(synced.exit())
}

fn result(args: &StoreSync, brought: SyncReport, back: Option<SyncReport>) -> Synced {
    let last = back.as_ref().unwrap_or(&brought);
    let (equal, stopped) = (last.equal, brought.stopped || last.stopped);
    let objects = |report: SyncReport| {
        let of = |one| InstanceObject::of(one, args);
        report.instances.into_iter().map(of).collect()
    };
    Synced {
        back: back.map(objects),
        instances: objects(brought),
        equal,
        dry_run: args.dry_run,
        verified: args.verify && !stopped && equal,
        asked: args.verify,
        stopped: stopped.then_some("interrupted"),
    }
}

/// Opens the store that was named, if there is one.
fn look(path: &Path) -> Result<Option<StoreHandle>> {
    let vfs: Arc<dyn Vfs> = match RealVfs::open(path) {
        Ok(vfs) => Arc::new(vfs),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(CliError::of_io("open the store at", path, &error)),
    };
    let opened = match LogFiles::list(&*vfs) {
        Err(StoreError::NotAStore) => None,
        _ => Some(StoreHandle::open_at_home(vfs, home_of(path).as_ref())),
    };
    match opened {
        None | Some(Err(StoreError::NotAStore)) => Ok(None),
        Some(Ok(store)) => Ok(Some(store)),
        Some(Err(error)) => {
            let action = format!("open the store {}", text::path(path));
            Err(CliError::of_store(&action, path, &error))
        }
    }
}

/// Whether the other store is of the domain that `--expect` names.
fn check_expected(args: &StoreSync, other: &Other<'_>, there: &Judged) -> Result<()> {
    let name = text::path(other.path);
    let what = match (args.expect, there.domain) {
        (None, _) | (Some(Expected::NoDomain), None) => return Ok(()),
        (Some(Expected::Domain(expected)), Some(found)) if expected == found => return Ok(()),
        (Some(Expected::Domain(_)), Some(_)) => format!("{name} is of another domain"),
        (Some(Expected::Domain(_)), None) => format!("{name} is of no domain"),
        (Some(Expected::NoDomain), Some(_)) => format!("{name} is of a domain"),
    };
    Err(CliError::new(what).exit(Exit::Authority).hint(
        "check the id on paper, or on the screen of the machine where the domain was founded, \
         and the path",
    ))
}

/// Whether the two stores are of one domain, or copies of one.
fn check_related(
    face: &Face,
    args: &StoreSync,
    (path, store): (&Path, &StoreHandle),
    (other, there): (&Other<'_>, &Judged),
) -> Result<()> {
    let here = store_other::domain_of(path, store)?;
    let common = store_other::ids(store)
        .intersection(&store_other::ids(&other.store))
        .next()
        .is_some();
    let related = match (here, there.domain) {
        (Some(here), Some(there)) => here == there,
        _ => common,
    };
    if !related {
        let (ours, theirs) = (text::path(path), text::path(other.path));
        let refused = CliError::new(format!(
            "{theirs} is neither of the same domain as {ours} nor a copy of it"
        ))
        .exit(Exit::Authority);
        if here.is_none() && store.with_state(|state| state.blocks.is_empty()) {
            let expected = there.domain.map_or("none", |_| "DOMAIN_ID");
            return Err(refused.hint(format!(
                "a mirror begins where no store is yet: asl store sync {} --store NEW --expect \
                 {expected}",
                text::shell_path(other.path)
            )));
        }
        return Err(refused.hint(format!(
            "stores of different domains are not mixed; to see what they share: asl store diff {} \
             --store {}",
            text::shell_path(other.path),
            text::shell_path(path)
        )));
    }
    if args.both {
        // The other way round ours is what must be judged.
        store_other::judge(face, path, store)?;
    }
    Ok(())
}

/// Whether the place may become a mirror of the other store.
fn check_mirror(face: &Face, args: &StoreSync, path: &Path, there: &Judged) -> Result<()> {
    if args.expect.is_none() && !there.trusted {
        let hint = match there.domain {
            Some(_) => {
                "add --expect DOMAIN_ID, from paper or from the screen of the machine where \
                 the domain was founded"
            }
            None => "add --expect none",
        };
        return Err(CliError::new(format!(
            "{} holds no store yet; what is to be mirrored must be named",
            text::path(path)
        ))
        .exit(Exit::Authority)
        .hint(hint));
    }
    let allowed = Allowed {
        ephemeral: args.ephemeral,
        unmounted: args.unmounted_ok,
    };
    let destination = probe::survey(&SystemPaths::default(), path, allowed)?;
    for warning in destination.warnings() {
        face.report.warn(&warning);
    }
    Ok(())
}

/// A failure half way: what came stays.
fn interrupted(
    failed: CliError,
    error: &StoreError,
    (path, full): (&Path, &Path),
    args: &StoreSync,
) -> CliError {
    match error {
        StoreError::Full { .. } => failed.hint(format!(
            "what came is kept; make room (see: df -h {}) and repeat: {}",
            text::shell_path(full),
            again(path, args)
        )),
        _ => failed,
    }
}

/// The command that goes on.
fn again(path: &Path, args: &StoreSync) -> String {
    let (path, other) = (text::shell_path(path), text::shell_path(&args.other));
    let mut command = format!("asl store sync {other}");
    for (is_given, flag) in [
        (args.verify, " --verify"),
        (args.both, " --both"),
        (args.ephemeral, " --ephemeral"),
        (args.unmounted_ok, " --unmounted-ok"),
    ] {
        if is_given {
            command += flag;
        }
    }
    // A mirror that was begun has no log yet, so it must be said again of what.
    match args.expect {
        Some(Expected::NoDomain) => command += " --expect none",
        Some(Expected::Domain(id)) => command += &format!(" --expect {id}"),
        None => {}
    }
    format!("{command} --store {path}")
}

/// What to do next, by the worst that happened.
fn advise(face: &Face, args: &StoreSync, path: &Path, (there, synced): (&Judged, &Synced)) {
    let other = text::shell_path(&args.other);
    let place = text::shell_path(path);
    let has = |outcome: &str| synced.all().any(|one| one.outcome == outcome);
    let damaged = || synced.all().flat_map(|one| &one.damaged);
    let is_block = |file: &DamagedObject| file.file.starts_with("blocks/");
    let words = if has("forked") {
        "hint: it was written to in two places. Write to neither, and decide which one counts; what \
         the other has is read there: asl captures --store "
            .to_owned()
            + &other
    } else if has("rolled-back") {
        let expected = there.domain.map_or("none", |_| "DOMAIN_ID");
        format!(
            "hint: this store is an older copy of itself. Write nothing to it; the longer one is the \
             truth. Bring that into a new place: asl store sync {other} --store NEW --expect {expected}"
        )
    } else if has("damaged") {
        format!(
            "hint: see what is hit: asl store verify --store {other}; from another copy that \
             is whole the rest comes, or without it: {} --accept-damaged",
            again(path, args)
        )
    } else if has("refused") {
        format!("hint: see what is wrong: asl store verify --store {other}")
    } else if synced.stopped.is_some() {
        format!("to go on: {}", again(path, args))
    } else if damaged().any(|file| file.kept.is_some()) {
        format!(
            "hint: a whole copy cannot take the name of what is damaged here. Look at that file and \
             its directory, move away what is in the way, and repeat: {}",
            again(path, args)
        )
    } else if damaged().next().is_some() && !damaged().any(is_block) {
        format!(
            "hint: only caches are damaged, in both; to make those here anew: asl store repair \
             --store {place}"
        )
    } else if damaged().next().is_some() && !args.accept_damaged {
        format!(
            "hint: it is damaged in both, and stays as it is. A third copy may have it whole: asl \
             store sync ANOTHER --verify --store {place}"
        )
    } else if !synced.equal && !args.dry_run && !args.both {
        format!(
            "to bring over the other way, too: {} --both",
            again(path, args)
        )
    } else {
        return;
    };
    face.report.note(&words);
}
