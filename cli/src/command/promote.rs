//! `asl-promote`: a rescue store becomes part of a domain of one's own.
//!
//! The work is [`asl_bootstrap::promote`]'s. Here somebody types the id from paper, sees the plan, agrees, and only then unlocks keys.
//!
//! Order: both stores are opened for reading; the plan; the questions; the keys; the promotion; what this machine remembers; the rescue
//! store's own log, where that was asked for.
//!
//! With `--as-new` a plan is made, shown and agreed to as well, for a domain with nothing in it, and the rescue domain's keys are
//! opened, before anything is made: whatever can be refused without copying leaves nothing behind. Only then the domain is founded
//! (see `promote_found`), and the plan is made once more, for the store that there is now.
//!
//! Crash: the same command goes on, at whatever point it was cut off. A domain that was founded and got nothing yet is the one that it
//! goes into. The same holds where the second plan or the copying finds what the first plan could not: a source that changed in
//! between, a frame inside of a block that does not match its hash.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use asl_bootstrap::keyfile::key_file_path;
use asl_bootstrap::mint::Done;
use asl_bootstrap::promote::{
    Means, Plan, PromoteObserver, Promoted, Request, Retired, Source, Stage, Tally, examine,
    examine_new, retire,
};
use asl_bootstrap::{
    DomainId, Error, KeyFile, KeyFileError, Kind, LogSeen, Policy, Trust, lineage::Level,
    promote::PromoteError,
};
use asl_capture::Error as CaptureError;
use asl_capture::session::{self, SessionDoc};
use asl_store::vfs::real::RealVfs;
use asl_store::{Error as StoreError, SessionId, StoreHandle, WriteOptions};
use zeroize::Zeroizing;

use super::domain::{done, passphrase};
use super::promote_outcome::Outcome as Told;
use super::promote_plan::{self, Offer};
use super::promote_refusal::Sides;
use super::promote_target::{Target, no_store};
use crate::args::{LevelArg, Promote};
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::progress::Display;
use crate::prompt::Prompt;
use crate::signal::{StopRequest, catch_stop_requests};
use crate::state::State;
use crate::{secret, text, writable};

/// How often a passphrase may be typed.
const TRIES: u32 = 3;
/// Blocks in hand for each processor: each of them waits for its medium as long as it computes.
const BLOCKS_PER_PROCESSOR: usize = 2;
/// Blocks in hand at most.
const BLOCKS_MAX: usize = 4;

/// Promotes.
pub fn run(face: &Face, args: &Promote) -> Result {
    let (Some(rescue), Some(into)) = (&args.rescue_store, &args.into) else {
        return Err(CliError::usage("no rescue store was named").hint("see: asl-promote --help"));
    };
    let prompt = Prompt::open(face);
    let target = Target::find(into, args)?;
    if prompt.is_none() {
        complete(args, &target)?;
    }
    let rescue = RescueStore::open(face, rescue)?;
    let expect = match (&args.expect, &prompt) {
        (Some(expect), _) => *expect,
        (None, Some(prompt)) => ask_id(prompt)?,
        (None, None) => return Err(CliError::new("no id was given").exit(Exit::Input)),
    };
    let run = Run {
        face,
        args,
        prompt: prompt.as_ref(),
        rescue: &rescue,
        expect,
    };
    match target {
        Target::Store(path) => run.promote(&path),
        Target::New(root) => run.promote_into_new(&root),
    }
}

/// The flags that cannot be done without where nobody can be asked.
fn complete(args: &Promote, target: &Target) -> Result<()> {
    let mints = matches!(target, Target::New(_));
    let no_recovery_choice = args.recovery_out.is_none() && !args.no_recovery;
    let missing: Vec<&str> = [
        (args.expect.is_none(), "--expect DOMAIN_ID"),
        (
            args.passphrase_file.is_none() && !args.dry_run,
            "--passphrase-file FILE",
        ),
        (mints && !args.dry_run && args.name.is_none(), "--name TEXT"),
        (
            mints && !args.dry_run && no_recovery_choice,
            "--recovery-out FILE or --no-recovery",
        ),
        (
            args.retire_source && args.rescue_passphrase_file.is_none(),
            "--rescue-passphrase-file FILE",
        ),
        (!args.yes && !args.dry_run, "--yes"),
    ]
    .into_iter()
    .filter_map(|(missing, flag)| missing.then_some(flag))
    .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(CliError::new("flags are missing to promote")
        .exit(Exit::Input)
        .hint(format!("add {}", missing.join(", "))))
}

/// The rescue domain's id, typed whole: whoever is shown one can only say yes.
fn ask_id(prompt: &Prompt) -> Result<DomainId> {
    prompt.say(
        "Which domain is it? Type its id from paper, or scan its code: asl1 and 58 more \
         characters, with or without blanks. What the store says of itself proves nothing, so it \
         is not shown here.",
    );
    Ok(prompt.input_that("id", "", |typed| {
        typed.parse::<DomainId>().map_err(|error| error.to_string())
    })?)
}

/// The store that is promoted.
pub(super) struct RescueStore {
    path: PathBuf,
    vfs: Arc<RealVfs>,
    source: Source,
}

impl RescueStore {
    fn open(face: &Face, path: &Path) -> Result<Self> {
        let vfs = Arc::new(
            RealVfs::open(path)
                .map_err(|error| CliError::of_io("open the rescue store at", path, &error))?,
        );
        let source = Source::open(vfs.clone()).map_err(|error| {
            if let Error::Store(StoreError::NotAStore) = error
                && let Some(refused) = no_store(path)
            {
                return refused;
            }
            let sides = Sides {
                rescue: path,
                target: path,
            };
            sides.refused(face, &error)
        })?;
        Ok(Self {
            path: path.to_owned(),
            vfs,
            source,
        })
    }

    /// The finished captures of each instance.
    fn finished(&self) -> Result<Vec<Vec<Done>>> {
        let instances = self.source.instances().iter();
        instances.map(|one| done(&self.path, one.store())).collect()
    }
}

/// One promotion.
pub(super) struct Run<'r> {
    pub(super) face: &'r Face,
    pub(super) args: &'r Promote,
    pub(super) prompt: Option<&'r Prompt>,
    rescue: &'r RescueStore,
    expect: DomainId,
}

impl Run<'_> {
    pub(super) fn sides<'s>(&'s self, target: &'s Path) -> Sides<'s> {
        Sides {
            rescue: &self.rescue.path,
            target,
        }
    }

    /// What the user called the target.
    fn into<'s>(&'s self, path: &'s Path) -> &'s Path {
        self.args.into.as_deref().unwrap_or(path)
    }

    /// What is remembered of the rescue domain.
    fn state(&self) -> Result<Option<State>> {
        State::existing()
    }

    /// The captures that were asked for.
    fn captures(&self) -> Result<Option<Vec<SessionId>>> {
        let names = &self.args.captures;
        if names.is_empty() {
            return Ok(None);
        }
        let store = self.rescue.source.store();
        let find = |name: &str| session::find(store, name).map(|capture| capture.session);
        let mut found = Vec::new();
        for name in names {
            match find(name) {
                Err(CaptureError::NoCapture(_)) if name.contains(',') => {
                    for part in name.split(',') {
                        found.push(find(part).map_err(|error| self.unfound(&error))?);
                    }
                }
                capture => found.push(capture.map_err(|error| self.unfound(&error))?),
            }
        }
        Ok(Some(found))
    }

    fn unfound(&self, error: &CaptureError) -> CliError {
        super::captures::failed("promote that capture", &self.rescue.path, error)
    }

    /// What would be done with the store at `path`; with no store, in a domain that is to be founded there.
    fn plan(&self, path: &Path, target: Option<&StoreHandle>) -> Result<Plan> {
        let finished = self.rescue.finished()?;
        let captures = self.captures()?;
        let state = self.state()?;
        let trusted = match &state {
            Some(state) => Trust::new(&state.vfs)
                .get(&self.expect)
                .map_err(|error| state.failed("read what is remembered", &error))?,
            None => None,
        };
        let tool = concat!("asl ", env!("CARGO_PKG_VERSION"));
        let request = Request {
            expect: self.expect,
            level: match self.args.level {
                LevelArg::Bytes => Level::Bytes,
                LevelArg::Semantics => Level::Semantics,
            },
            fork: self.args.fork,
            accept_rebuilt: self.args.accept_rebuilt,
            accept_damaged: self.args.accept_damaged,
            finished: &finished,
            captures: captures.as_deref(),
            tool,
        };
        let source = &self.rescue.source;
        match target {
            Some(target) => examine(source, target, trusted.as_ref(), &request),
            None => {
                let policy = Policy::default_of(Kind::Personal);
                examine_new(source, &policy, trusted.as_ref(), &request)
            }
        }
        .map_err(|error| self.sides(path).refused(self.face, &error))
    }

    /// Promotes into a domain that is founded below the root, after everything that can be refused before.
    fn promote_into_new(&self, root: &Path) -> Result {
        let place = self.survey(root)?;
        let mut plan = self.plan(root, None)?;
        plan.available_bytes = Some(place.available_bytes);
        let into = format!("a new domain below {}", text::path(root));
        let offer = Offer::new(&plan, &self.rescue.source, into, self.args);
        if self.args.dry_run {
            self.face.report.result(&offer)?;
            return Ok(offer.exit());
        }
        self.check_flags()?;
        if !self.agreed(&offer)? {
            return Ok(Exit::Failed);
        }
        secret::protect(&self.face.report);
        let child_keys = self.child_keys(&plan)?;
        if let Some(prompt) = self.prompt {
            prompt.say(&format!(
                "You have no domain of your own below {} yet: one is founded first, with keys of \
                 its own.",
                text::path(root)
            ));
        }
        let founded = self.found(root)?;
        let path = founded.path;
        let go_on = || {
            let face = self.face.at(&path);
            let (_, target) = face.reader()?;
            let plan = self.plan(&path, Some(&target))?;
            let keys = self.load(&path, &parent_of(&plan)?, &founded.passphrase)?;
            self.carry_out(&face, &path, &plan, &keys, child_keys.as_ref())
        };
        go_on().inspect_err(|_| {
            self.face.report.note(&format!(
                "the new domain below {} stays: the same command goes into it",
                text::path(root)
            ));
        })
    }

    fn promote(&self, path: &Path) -> Result {
        let face = self.face.at(path);
        let (_, target) = face.reader()?;
        let plan = self.plan(path, Some(&target))?;
        let into = promote_plan::place_of(&target, self.into(path));
        let offer = Offer::new(&plan, &self.rescue.source, into, self.args);
        if self.args.dry_run {
            face.report.result(&offer)?;
            return Ok(offer.exit());
        }
        if plan.is_done() && !self.args.retire_source {
            self.remember(&plan);
            face.report
                .result(&Told::of_nothing(&plan, self.into(path)))?;
            return Ok(Exit::Complete);
        }
        if !self.agreed(&offer)? {
            return Ok(Exit::Failed);
        }
        secret::protect(&face.report);
        let keys = self.unlock(path, &parent_of(&plan)?)?.0;
        let child_keys = self.child_keys(&plan)?;
        self.carry_out(&face, path, &plan, &keys, child_keys.as_ref())
    }

    /// Whether whoever is there, if anybody, agrees to what is shown.
    fn agreed(&self, offer: &Offer) -> Result<bool> {
        let Some(prompt) = self.prompt else {
            return Ok(true);
        };
        for line in offer.lines() {
            prompt.say(&line);
        }
        let agreed = self.args.yes || prompt.confirm("Promote it?", true)?;
        if !agreed {
            prompt.say("Nothing was promoted.");
        }
        Ok(agreed)
    }

    fn carry_out(
        &self,
        face: &Face,
        path: &Path,
        plan: &Plan,
        keys: &KeyFile,
        child_keys: Option<&KeyFile>,
    ) -> Result {
        let sides = self.sides(path);
        let stop = catch_stop_requests()?;
        let (_, mut writer) = face.writer(WriteOptions::default())?;
        writable::require("promote", path, writer.handle())?;
        let display = Display::new(&face.report);
        let observer = Watcher {
            display: &display,
            stop: &stop,
        };
        let relabel = |begun: &[u8]| relabelled(begun);
        let means = Means {
            keys,
            child_keys,
            relabel: Some(&relabel),
            threads: available_parallelism()
                .map_or(BLOCKS_MAX, |n| n.get().saturating_mul(BLOCKS_PER_PROCESSOR))
                .min(BLOCKS_MAX),
            observer: &observer,
        };
        let promoted = plan.execute(&self.rescue.source, &mut writer, &means);
        display.clear();
        let promoted = match promoted {
            Ok(promoted) => promoted,
            Err(Error::Promote(PromoteError::Stopped)) => {
                face.finish(path, writer)?;
                face.report.result(&Told::of_stop(plan, self.into(path)))?;
                return Ok(Exit::Failed);
            }
            Err(error) => {
                let error = sides.refused(face, &error);
                // What came over is kept for the next time, as far as that goes.
                let _ = writer.finish();
                return Err(error);
            }
        };
        face.finish(path, writer)?;
        self.remember(plan);
        let retired = match (self.args.retire_source, child_keys) {
            (true, Some(keys)) => Some(self.retire(keys, &promoted)?),
            _ => None,
        };
        let told = Told::of(plan, &promoted, self.into(path), retired);
        face.report.result(&told)?;
        for line in told.advice(&self.rescue.path) {
            face.report.note(&line);
        }
        Ok(told.exit())
    }

    /// Remembers on this machine how far the rescue domain was seen: its id was typed by somebody who knows it.
    fn remember(&self, plan: &Plan) {
        let remember = || -> Result<()> {
            let instances = plan.instances.iter().zip(self.rescue.source.instances());
            // Another history moves no pin.
            let pinned: Vec<_> = instances
                .filter(|(plan, _)| plan.seen().is_some())
                .collect();
            if pinned.is_empty() {
                return Ok(());
            }
            let state = State::create()?;
            let trust = Trust::new(&state.vfs);
            let failed = |error: Error| state.failed("remember how far it was seen", &error);
            trust.add(&self.expect, None).map_err(failed)?;
            // Only whoever has the log knows what it was at the place that is remembered.
            let known = trust.get(&self.expect).map_err(failed)?;
            let mut seen = Vec::new();
            for (plan, instance) in pinned {
                let pin = known.as_ref().and_then(|known| known.log(&plan.head.store));
                seen.push(LogSeen::read(instance.store(), pin).map_err(failed)?);
            }
            let chain = &plan.child().chain;
            match self.args.accept_rebuilt {
                true => trust.pin_rebuilt(chain, &seen),
                false => trust.pin(chain, &seen),
            }
            .map_err(failed)?;
            Ok(())
        };
        if let Err(error) = remember() {
            self.face.report.warn(&State::not_remembered(&error));
        }
    }

    /// Writes into the rescue store, because its owner asked for it.
    fn retire(&self, keys: &KeyFile, promoted: &Promoted) -> Result<Retired> {
        let path = &self.rescue.path;
        let refused = |error: &asl_store::Error| {
            CliError::of_store(
                "write into the rescue store that it was given up",
                path,
                error,
            )
        };
        let face = self.face.at(path);
        let (_, mut writer) = face.writer(WriteOptions::default())?;
        let retired = retire(&mut writer, keys, &promoted.links)
            .map_err(|error| self.sides(path).refused(self.face, &error))?;
        writer.finish().map_err(|error| refused(&error))?;
        Ok(retired)
    }

    /// The rescue domain's keys, if they are at hand.
    fn child_keys(&self, plan: &Plan) -> Result<Option<KeyFile>> {
        let (path, id) = (&self.rescue.path, plan.child_domain());
        let refused = |error: &Error| self.sides(path).refused(self.face, error);
        if let Some(file) = &self.args.rescue_passphrase_file {
            let passphrase = passphrase(file)?;
            let keys = self.load(path, &id, &passphrase)?;
            plan.check_child_keys(&keys)
                .map_err(|error| refused(&error))?;
            return Ok(Some(keys));
        }
        let Some(prompt) = self.prompt else {
            return Ok(None);
        };
        if !path.join(key_file_path(&id)).is_file() {
            return Ok(None);
        }
        prompt.say(
            "With the passphrase of the rescue domain, both sides sign. Without it, press Enter: \
             then yours alone says that it took the store over.",
        );
        for left in (0..TRIES).rev() {
            let question = "passphrase of the rescue domain, or Enter";
            let Some(typed) = prompt.secret_if_any(question)? else {
                break;
            };
            match KeyFile::load(&*self.rescue.vfs, &key_file_path(&id), &typed) {
                Ok(keys) => {
                    plan.check_child_keys(&keys)
                        .map_err(|error| refused(&error))?;
                    return Ok(Some(keys));
                }
                Err(KeyFileError::WrongPassphrase) if left > 0 => {
                    prompt.say("That is wrong. Once more, or Enter to do without.");
                }
                Err(error) => return Err(refused(&error.into())),
            }
        }
        match self.args.retire_source {
            true => Err(
                CliError::new("the rescue store cannot be given up without its own keys")
                    .exit(Exit::Authority)
                    .hint("leave --retire-source out; the rescue store may be kept as it is"),
            ),
            false => Ok(None),
        }
    }

    fn load(&self, path: &Path, id: &DomainId, passphrase: &str) -> Result<KeyFile> {
        let vfs = RealVfs::open(path).map_err(|error| CliError::of_io("open", path, &error))?;
        KeyFile::load(&vfs, &key_file_path(id), passphrase)
            .map_err(|error| self.sides(path).refused(self.face, &error.into()))
    }

    /// The keys of a domain of one's own: from a file once, on a terminal three times.
    pub(super) fn unlock(
        &self,
        path: &Path,
        id: &DomainId,
    ) -> Result<(KeyFile, Zeroizing<String>)> {
        let file = self.args.passphrase_file.as_deref();
        let (Some(prompt), None) = (self.prompt, file) else {
            let typed = secret::passphrase(self.face, file, "your domain's keys")?;
            return Ok((self.load(path, id, &typed)?, typed));
        };
        let vfs = RealVfs::open(path).map_err(|error| CliError::of_io("open", path, &error))?;
        for left in (0..TRIES).rev() {
            let typed = prompt.secret("passphrase of your domain")?;
            match KeyFile::load(&vfs, &key_file_path(id), &typed) {
                Ok(keys) => return Ok((keys, typed)),
                Err(KeyFileError::WrongPassphrase) if left > 0 => {
                    prompt.say("The passphrase is wrong. Mind the keyboard's layout.");
                }
                Err(error) => return Err(self.sides(path).refused(self.face, &error.into())),
            }
        }
        Err(self
            .sides(path)
            .refused(self.face, &KeyFileError::WrongPassphrase.into()))
    }
}

/// The domain of a plan that was made for a store.
fn parent_of(plan: &Plan) -> Result<DomainId> {
    plan.parent
        .ok_or_else(|| CliError::new("the domain is not founded yet").hint("repeat the command"))
}

/// Tells how it gets on, and when somebody wants it to stop.
struct Watcher<'w> {
    display: &'w Display<'w>,
    stop: &'w StopRequest,
}

impl PromoteObserver for Watcher<'_> {
    fn progress(&self, stage: Stage, done: Tally, total: Tally) {
        let verb = match stage {
            Stage::Blocks => "copying",
            Stage::Log | Stage::Check => "checking",
            Stage::Commit => "signing",
        };
        self.display.amount(verb, done.bytes, total.bytes);
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_made()
    }
}

/// What a capture of a second history says of itself, so that it is told from the one of the first.
fn relabelled(begun: &[u8]) -> Vec<u8> {
    let Ok(mut doc) = serde_json::from_slice::<SessionDoc>(begun) else {
        return begun.to_vec();
    };
    let label = doc.label.as_deref().unwrap_or("no label");
    doc.label = Some(format!("{label} (another history)"));
    serde_json::to_vec(&doc).unwrap_or_else(|_| begun.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_capture_keeps_its_words() {
        assert_eq!(relabelled(b"{}"), b"{}");
        assert_eq!(relabelled(b"begun"), b"begun");
    }
}
