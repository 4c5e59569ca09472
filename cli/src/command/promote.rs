//! `asl-promote`: a rescue store becomes part of a domain of one's own.
//!
//! The work is [`asl_bootstrap::promote`]'s. Here somebody types the id from paper, sees the plan, agrees, and only then unlocks keys.
//!
//! Order: both stores are opened for reading; the plan; the questions; a new domain, if there is to be one; the keys; the promotion;
//! what this machine remembers; the rescue store's own log, where that was asked for.
//!
//! Crash: the same command goes on, at whatever point it was cut off. A new domain lies in `domains/.minting` until it is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use asl_bootstrap::keyfile::key_file_path;
use asl_bootstrap::mint::Done;
use asl_bootstrap::promote::{
    Means, Plan, PromoteObserver, Promoted, Request, Retired, Source, Stage, Tally, examine, retire,
};
use asl_bootstrap::verify::Report;
use asl_bootstrap::{
    Domain, DomainId, Error, KeyFile, KeyFileError, LogSeen, Trust, lineage::Level,
    promote::PromoteError,
};
use asl_capture::inventory::SystemPaths;
use asl_capture::session::{self, SessionDoc};
use asl_store::vfs::real::RealVfs;
use asl_store::{Error as StoreError, SessionId, StoreHandle, WriteOptions};
use zeroize::Zeroizing;

use super::domain::{done, passphrase};
use super::promote_outcome::Outcome as Told;
use super::promote_plan::Offer;
use super::promote_refusal::Sides;
use super::promote_target::{Target, no_store};
use super::store_init::MadeDirs;
use super::{domain_mint, store_init, wizard};
use crate::args::{DomainMint, LevelArg, Promote, StoreInit};
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::probe::{self, Allowed};
use crate::progress::Display;
use crate::prompt::Prompt;
use crate::root::DOMAINS;
use crate::signal::{StopRequest, catch_stop_requests};
use crate::state::State;
use crate::{secret, text, writable};

/// Where a new domain lies until it has a name.
const MINTING: &str = ".minting";
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
        Target::Store(path) => run.promote(&path, None),
        Target::New(root) if args.dry_run => run.preview(&root),
        Target::New(root) => {
            run.prove()?;
            if let Some(prompt) = &prompt {
                prompt.say(&format!(
                    "It is that domain. You have none of your own below {} yet: one is founded \
                     first, with keys of its own. What would be promoted is shown after that.",
                    text::path(&root)
                ));
            }
            let (path, passphrase) = run.found(&root)?;
            run.promote(&path, Some(passphrase))
        }
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
struct RescueStore {
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
struct Run<'r> {
    face: &'r Face,
    args: &'r Promote,
    prompt: Option<&'r Prompt>,
    rescue: &'r RescueStore,
    expect: DomainId,
}

impl Run<'_> {
    fn sides<'s>(&'s self, target: &'s Path) -> Sides<'s> {
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
        let Some(names) = &self.args.captures else {
            return Ok(None);
        };
        let store = self.rescue.source.store();
        let find = |name: &String| {
            let found = session::find(store, name);
            found.map(|capture| capture.session).map_err(|error| {
                super::captures::failed("promote that capture", &self.rescue.path, &error)
            })
        };
        names.iter().map(find).collect::<Result<_>>().map(Some)
    }

    fn plan(&self, path: &Path, target: &StoreHandle) -> Result<Plan> {
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
        examine(&self.rescue.source, target, trusted.as_ref(), &request)
            .map_err(|error| self.sides(path).refused(self.face, &error))
    }

    /// Proves the rescue store before a domain is founded for it.
    fn prove(&self) -> Result<Vec<Report>> {
        let finished = self.rescue.finished()?;
        let reports = self.rescue.source.judge(&finished, &self.expect);
        reports.map_err(|error| self.sides(Path::new("ROOT")).refused(self.face, &error))
    }

    /// What would be done where a domain would be founded first.
    fn preview(&self, root: &Path) -> Result {
        let reports = self.prove()?;
        self.face.report.result(&Told::of_new(root, &reports))?;
        Ok(Exit::Complete)
    }

    /// Founds a domain below the root; its store, and what unlocks its keys.
    fn found(&self, root: &Path) -> Result<(PathBuf, Zeroizing<String>)> {
        let domains = root.join(DOMAINS);
        let path = domains.join(MINTING);
        let quiet = self.face.at(&path);
        let begun = path.join("log").is_dir();
        if !begun {
            // Refused before a directory is made: the place may be inside of the rescue store.
            let allowed = Allowed {
                ephemeral: self.args.ephemeral,
                unmounted: false,
            };
            probe::survey(&SystemPaths::default(), &path, allowed)?;
        }
        let made = MadeDirs::before(&domains);
        let _alone = self.found_alone(root, &domains)?;
        if !begun {
            store_init::make(
                &quiet,
                &StoreInit {
                    path: path.clone(),
                    shards: None,
                    block_size: None,
                    small_threshold: None,
                    max_packed: None,
                    ephemeral: self.args.ephemeral,
                    unmounted_ok: false,
                },
            )
            .inspect_err(|_| made.remove())?;
        }
        let vfs = RealVfs::open(&path).map_err(|error| CliError::of_io("open", &path, &error))?;
        let known = StoreHandle::open(Arc::new(vfs))
            .map_err(|error| CliError::of_store("open the new domain's store", &path, &error))?;
        let known =
            Domain::read(&known).map_err(|error| self.sides(&path).refused(self.face, &error))?;
        let (domain, passphrase) = match known {
            // It was founded, and cut off before it got its name.
            Some(domain) => {
                let id = domain.id();
                (id, self.unlock(&path, &id, None)?.1)
            }
            None => {
                let now = domain_mint::found(&quiet, &self.mint(&domains))?;
                let now = match self.prompt {
                    Some(_) => now.tell(self.face)?,
                    None => now,
                };
                (now.domain, now.passphrase)
            }
        };
        let named = domains.join(domain.to_string());
        let rename = || -> std::io::Result<()> {
            fs::rename(&path, &named)?;
            fs::File::open(&domains)?.sync_all()
        };
        rename().map_err(|error| CliError::of_io("name", &named, &error))?;
        if let Some(prompt) = self.prompt {
            prompt.writes_begin();
        }
        Ok((named, passphrase))
    }

    /// Makes `domains`, and keeps others from founding a domain there until the lock is dropped.
    fn found_alone(&self, root: &Path, domains: &Path) -> Result<fs::File> {
        let made = RealVfs::create(domains).and_then(|_| fs::File::open(domains));
        let lock = made.map_err(|error| CliError::of_io("make", domains, &error))?;
        let again = "repeat the command when that is done: it goes into the domain that is there";
        // A filesystem that cannot lock directories (NFS) must do without.
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(CliError::new(format!(
                "somebody else founds a domain below {} just now",
                text::path(root)
            ))
            .hint(again));
        }
        match Target::find(root, self.args)? {
            Target::New(_) => Ok(lock),
            Target::Store(_) => Err(CliError::new(format!(
                "somebody else founded a domain below {} meanwhile",
                text::path(root)
            ))
            .hint(again)),
        }
    }

    /// The mint that the flags describe, of a domain whose store goes below `domains`.
    fn mint(&self, domains: &Path) -> DomainMint {
        DomainMint {
            name: self.args.name.clone(),
            kind: Some(crate::args::DomainKind::Personal),
            passphrase_file: self.args.passphrase_file.clone(),
            recovery_out: self.args.recovery_out.clone(),
            no_recovery: self.args.no_recovery,
            time: None,
            witnesses: Vec::new(),
            witness_threshold: None,
            ephemeral: self.args.ephemeral,
            yes: self.args.yes,
            place: Some(domains.to_owned()),
            proposed_name: Some(own_name()),
        }
    }

    fn promote(&self, path: &Path, known: Option<Zeroizing<String>>) -> Result {
        let face = self.face.at(path);
        let (_, target) = face.reader()?;
        let plan = self.plan(path, &target)?;
        let offer = Offer::new(&plan, &self.rescue.source, &target, path, self.args);
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
        if let Some(prompt) = self.prompt {
            for line in offer.lines() {
                prompt.say(&line);
            }
            if !self.args.yes && !prompt.confirm("Promote it?", true)? {
                prompt.say("Nothing was promoted.");
                return Ok(Exit::Failed);
            }
        }
        secret::protect(&face.report);
        let keys = match known {
            Some(passphrase) => self.load(path, &plan.parent, &passphrase)?,
            None => {
                let file = self.args.passphrase_file.as_deref();
                self.unlock(path, &plan.parent, file)?.0
            }
        };
        let child_keys = self.child_keys(&plan)?;
        self.carry_out(&face, path, &plan, &keys, child_keys.as_ref())
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
            self.face.report.warn(&error.in_one_line());
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
        if let Some(file) = &self.args.rescue_passphrase_file {
            let passphrase = passphrase(file)?;
            return self.load(path, &id, &passphrase).map(Some);
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
                Ok(keys) => return Ok(Some(keys)),
                Err(KeyFileError::WrongPassphrase) if left > 0 => {
                    prompt.say("That is wrong. Once more, or Enter to do without.");
                }
                Err(error) => return Err(self.sides(path).refused(self.face, &error.into())),
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
    fn unlock(
        &self,
        path: &Path,
        id: &DomainId,
        file: Option<&Path>,
    ) -> Result<(KeyFile, Zeroizing<String>)> {
        let file = file.or(self.args.passphrase_file.as_deref());
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

/// What somebody would call a domain of their own: as they log in, unless that is everybody's name.
fn own_name() -> String {
    let names = ["SUDO_USER", "USER", "LOGNAME"].into_iter();
    let mut names = names.filter_map(|name| std::env::var(name).ok());
    let is_own = |name: &String| name != "root" && wizard::check_name(name).is_ok();
    names.find(is_own).unwrap_or_else(|| "personal".to_owned())
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
