//! What the verbs that change a domain have in common: the desk at which it is done, what an interrupted change left, the
//! result, and what refusals mean.
//!
//! Crash: see [`asl_bootstrap::govern`]. The same command goes on.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use asl_bootstrap::govern::{self, Governed, Held, Plan, Resumed};
use asl_bootstrap::keyfile::key_file_path;
use asl_bootstrap::{
    AuthorError, ChainError, Domain, Error, GovernError, KeyFile, KeyFileError, MintError, Policy,
};
use asl_store::{StoreWriter, WriteOptions};
use serde::Serialize;
use zeroize::Zeroizing;

use super::domain::{self, DomainObject};
use crate::args::{Change, Setting};
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::prompt::Prompt;
use crate::report::Outcome;
use crate::{secret, text};

/// Everything that a change needs but keys.
pub(super) struct Desk<'f> {
    face: &'f Face,
    /// Completes "cannot …".
    action: &'static str,
    pub(super) path: &'f Path,
    pub(super) writer: StoreWriter,
    pub(super) domain: Domain,
}

/// A domain that was changed.
#[derive(Debug, Serialize)]
pub(super) struct Changed {
    #[serde(flatten)]
    domain: DomainObject,
    changed: bool,
    key_file: String,
    /// Keys that are no longer in the key file.
    left: Vec<String>,
    recovery: Option<String>,
    kept_key_file: Option<String>,
    #[serde(skip)]
    rotated: bool,
}

impl Outcome for Changed {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        self.domain.show(out)?;
        writeln!(out, "private keys: {} (encrypted)", self.key_file)?;
        if let Some(kept) = &self.kept_key_file {
            writeln!(out, "the key file that was not opened: {kept}")?;
        }
        match &self.recovery {
            Some(file) => {
                let file = text::visible(file);
                writeln!(out, "new recovery phrase: {file}")?;
                writeln!(
                    out,
                    "copy it to paper, then delete it; the old one is used up"
                )
            }
            None if self.rotated => {
                writeln!(out, "no recovery phrase: lost keys are lost for good")
            }
            None => Ok(()),
        }
    }
}

/// What comes with a rotation.
#[derive(Debug, Default)]
pub(super) struct WithPhrase<'a> {
    pub(super) recovery_out: Option<&'a Path>,
    pub(super) kept_key_file: Option<String>,
    pub(super) rotated: bool,
}

/// Whether a passphrase is missing that nobody can be asked for.
pub(super) fn no_passphrase(face: &Face, file: &Option<PathBuf>) -> bool {
    file.is_none() && Prompt::open(face).is_none()
}

/// The passphrase that unlocks `locked`, from a file or typed.
pub(super) fn passphrase(
    face: &Face,
    file: &Option<PathBuf>,
    locked: &str,
) -> Result<Zeroizing<String>> {
    secret::protect(&face.report);
    secret::passphrase(face, file.as_deref(), locked)
}

/// Says which flags are missing, if any are. The flag tells whether nobody but the user can answer.
pub(super) fn require(action: &str, flags: &[(bool, bool, &str)]) -> Result<()> {
    let missing: Vec<&str> = flags
        .iter()
        .filter_map(|(missing, _, flag)| missing.then_some(*flag))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let secret = flags.iter().any(|(missing, secret, _)| *missing && *secret);
    let exit = if secret { Exit::Input } else { Exit::Usage };
    Err(CliError::new(format!("flags are missing to {action}"))
        .exit(exit)
        .hint(format!("add {}", missing.join(", "))))
}

/// Sets rules of a policy as the command line says.
pub(super) fn set(policy: &mut Policy, settings: &[Setting]) -> Result<()> {
    for setting in settings {
        let set = policy.set(setting.rule, &setting.value);
        set.map_err(|error| CliError::usage(error.to_string()))?;
    }
    Ok(())
}

impl<'f> Desk<'f> {
    /// Asks for what every change by a root wants, then opens the store.
    pub(super) fn for_change(
        face: &'f Face,
        action: &'static str,
        change: &Change,
    ) -> Result<(Self, Zeroizing<String>)> {
        let file = &change.passphrase_file;
        require(
            action,
            &[
                (no_passphrase(face, file), true, "--passphrase-file FILE"),
                (!change.yes, false, "--yes"),
            ],
        )?;
        let passphrase = passphrase(face, file, "the keys")?;
        Ok((Self::open(face, action)?, passphrase))
    }

    /// Opens the store for a change of its domain.
    pub(super) fn open(face: &'f Face, action: &'static str) -> Result<Self> {
        let (path, mut writer) = face.writer(WriteOptions::default())?;
        let domain =
            govern::read(&mut writer).map_err(|error| domain::failed(action, path, &error))?;
        Ok(Self {
            face,
            action,
            path,
            writer,
            domain,
        })
    }

    /// A refusal, with what to do about it.
    pub(super) fn failed(&self, error: &Error) -> CliError {
        let place = text::shell_path(self.path);
        let of = CliError::new(format!("cannot {}", self.action)).caused_by(error);
        match error {
            Error::Govern(GovernError::Forked { settles: true, .. }) => {
                of.exit(Exit::Rollback).hint(format!(
                    "look at both: asl domain verify --store {place}; a rotation settles it: asl domain rotate --help"
                ))
            }
            Error::Govern(GovernError::Forked { settles: false, .. }) => {
                of.exit(Exit::Rollback).hint(format!(
                    "look at both: asl domain verify --store {place}; if the first is yours, repeat with --despite-fork"
                ))
            }
            Error::Govern(GovernError::Phrase { spent: true }) => of
                .exit(Exit::Authority)
                .hint("use the phrase that the last rotation gave; each is good for one"),
            Error::Govern(GovernError::Phrase { spent: false }) => {
                of.exit(Exit::Authority).hint(format!(
                    "compare the domain id on the paper with: asl domain show --store {place}"
                ))
            }
            Error::Govern(GovernError::Root { .. }) => of
                .exit(Exit::Authority)
                .hint("see: asl domain rotate --help"),
            Error::Govern(GovernError::Several { .. })
            | Error::Author(AuthorError::Chain(ChainError::RootThreshold(_))) => of
                .exit(Exit::Authority)
                .hint("let the others sign a draft: asl domain draft --help"),
            Error::Author(AuthorError::Chain(_)) => of.exit(Exit::Authority),
            Error::Govern(GovernError::NotListed { .. }) => of
                .exit(Exit::Usage)
                .hint(format!("list the keys: asl domain show --store {place}")),
            Error::Mint(MintError::NoKey { .. }) => of.exit(Exit::Authority).hint(
                "do it on the machine with the root, or with the phrase: asl domain recover --help",
            ),
            _ => domain::failed(self.action, self.path, error),
        }
    }

    /// The keys of the domain.
    pub(super) fn unlock(&self, passphrase: &str) -> Result<KeyFile> {
        let id = self.domain.id();
        let vfs = &**self.writer.handle().vfs();
        match Held::look(vfs, &id, passphrase) {
            Held::Open(keys) => Ok(keys),
            Held::Closed(KeyFileError::WrongPassphrase) => {
                Err(self.failed(&KeyFileError::WrongPassphrase.into()))
            }
            Held::Closed(error) => Err(self.failed(&error.into()).hint(
                "with the recovery phrase, the domain can be taken back: asl domain recover --help",
            )),
            Held::Missing => Err(CliError::new(format!("cannot {}", self.action))
                .exit(Exit::Authority)
                .caused_by(&NoKeyFile(key_file_path(&id)))
                .hint(
                    "do it on the machine with the root, or with the phrase: asl domain recover --help",
                )),
        }
    }

    /// What an interrupted change left, or the keys again.
    pub(super) fn resume(&self, keys: KeyFile) -> Result<Resumed> {
        let resumed = Plan::resume(&self.writer, &self.domain, keys);
        let resumed = resumed.map_err(|error| self.failed(&error))?;
        if let Resumed::Change(_) = resumed {
            self.face
                .report
                .note("going on with a change that was interrupted");
        }
        Ok(resumed)
    }

    /// Steps 1 and 3 of an update.
    pub(super) fn keep(&self, plan: &Plan, passphrase: &str) -> Result<()> {
        let kept = plan.prepare(&self.writer);
        kept.map_err(|error| self.failed(&error))?;
        let kept = plan.keep_keys(&self.writer, passphrase);
        kept.map_err(|error| self.failed(&error.into()))
    }

    /// Steps 4 to 7.
    pub(super) fn commit(&mut self, plan: Plan, passphrase: &str) -> Result<Governed> {
        let governed = plan.commit(&mut self.writer, passphrase);
        governed.map_err(|error| self.failed(&error))
    }

    /// Goes on with what was interrupted; the keys, and the domain as it is then.
    pub(super) fn settle(&mut self, passphrase: &str) -> Result<KeyFile> {
        let keys = self.unlock(passphrase)?;
        match self.resume(keys)? {
            Resumed::Nothing(keys) => Ok(keys),
            Resumed::Change(plan) => {
                self.domain = self.commit(*plan, passphrase)?.domain;
                self.unlock(passphrase)
            }
        }
    }

    /// Ends writing and tells what the domain is now.
    pub(super) fn finish(self, governed: Option<Governed>, with: WithPhrase<'_>) -> Result {
        self.face.finish(self.path, self.writer)?;
        let changed = governed.is_some();
        let (domain, left) = match governed {
            Some(governed) => (governed.domain, governed.left),
            None => (self.domain, Vec::new()),
        };
        let recovery = with.recovery_out;
        self.face.report.result(&Changed {
            changed,
            key_file: key_file_path(&domain.id()),
            domain: DomainObject::from(&domain),
            left: left.iter().map(ToString::to_string).collect(),
            recovery: recovery.map(|file| file.to_string_lossy().into_owned()),
            kept_key_file: with.kept_key_file,
            rotated: with.rotated,
        })?;
        Ok(Exit::Complete)
    }

    /// Makes an update, unless it would change nothing.
    pub(super) fn update(
        mut self,
        passphrase: &Zeroizing<String>,
        how: impl FnOnce(&Self) -> Result<govern::Update>,
    ) -> Result {
        let keys = self.settle(passphrase)?;
        let how = how(&self)?;
        let mut random = secret::random(&self.face.report);
        match Plan::update(&self.domain, keys, &mut random, &how) {
            Ok(plan) => {
                self.keep(&plan, passphrase)?;
                let governed = self.commit(plan, passphrase)?;
                self.finish(Some(governed), WithPhrase::default())
            }
            Err(Error::Govern(GovernError::Nothing)) => {
                let note = "nothing to change: the manifest in force says so already";
                self.face.report.note(note);
                self.finish(None, WithPhrase::default())
            }
            Err(error) => Err(self.failed(&error)),
        }
    }
}

/// The key file is not in the store.
#[derive(Debug, thiserror::Error)]
#[error("the private keys are not in this store: there is no {0}")]
struct NoKeyFile(String);
