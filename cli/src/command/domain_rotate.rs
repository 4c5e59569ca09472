//! `asl domain rotate`, and what it has in common with `recover`.
//!
//! Crash: see [`asl_bootstrap::govern`]; the new phrase is durable before anything is signed. The same command goes on.

use asl_bootstrap::govern::{self, Held, Hosts, Plan, Resumed, Rotation};
use asl_bootstrap::{KeyFile, Phrase};
use asl_store::Key;

use super::domain_govern::{Desk, WithPhrase, no_passphrase, passphrase, require};
use super::domain_phrase;
use crate::args::{Change, DomainRotate, Phrases};
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, now};
use crate::{secret, text};

/// A rotation as the flags describe it.
pub(super) struct Turn<'a> {
    pub(super) action: &'static str,
    pub(super) phrases: &'a Phrases,
    pub(super) change: &'a Change,
    /// Whether the key file may be missing, or closed for good.
    pub(super) lost: bool,
}

/// Rotates.
pub fn run(face: &Face, args: &DomainRotate) -> Result {
    let turn = Turn {
        action: "rotate the domain's root",
        phrases: &args.phrases,
        change: &args.change,
        lost: false,
    };
    turn.run(face, |_, _| {
        Ok(Rotation {
            hosts: match args.fresh_keys {
                true => Hosts::Fresh,
                false => Hosts::Keep,
            },
            ..Rotation::plain(now())
        })
    })
}

impl Turn<'_> {
    fn require_flags(&self, face: &Face) -> Result<()> {
        let Phrases {
            phrase_file,
            recovery_out,
            no_recovery,
            ..
        } = self.phrases;
        let no_choice = recovery_out.is_none() && !no_recovery;
        // A new one would have to be typed twice: that of a new key file is taken from a file only.
        let no_passphrase = match self.lost {
            true => self.change.passphrase_file.is_none(),
            false => no_passphrase(face, &self.change.passphrase_file),
        };
        let others = no_passphrase || no_choice || !self.change.yes;
        // A rerun after an interruption can do without the phrase, so it is not missed alone.
        let no_phrase = others && phrase_file.is_none();
        require(
            self.action,
            &[
                (no_phrase, true, "--phrase-file FILE"),
                (no_passphrase, true, "--passphrase-file FILE"),
                (no_choice, true, "--recovery-out FILE or --no-recovery"),
                (!self.change.yes, false, "--yes"),
            ],
        )
    }

    /// Goes on with a rotation, or makes one; `how` says what else it does, of the manifest that it goes on from where that is not
    /// the head.
    pub(super) fn run(
        self,
        face: &Face,
        how: impl FnOnce(&Desk<'_>, Option<Key>) -> Result<Rotation>,
    ) -> Result {
        self.require_flags(face)?;
        let passphrase = passphrase(face, &self.change.passphrase_file, "the keys")?;
        let given = match &self.phrases.phrase_file {
            Some(file) => Some(domain_phrase::given(file)?),
            None => None,
        };
        let recovery_out = self.phrases.recovery_out.as_deref();
        if let Some(file) = recovery_out {
            domain_phrase::check_place(face, file)?;
        }
        let mut desk = Desk::open(face, self.action)?;
        let id = desk.domain.id();
        let (mut keys, mut closed) = (None, false);
        if self.lost {
            match Held::look(&**desk.writer.handle().vfs(), &id, &passphrase) {
                Held::Open(found) => keys = Some(found),
                Held::Missing => {}
                Held::Closed(_) => closed = true,
            }
        } else {
            keys = Some(desk.unlock(&passphrase)?);
        }
        let mut keys = keys.unwrap_or_else(|| KeyFile::new(Some(id)));
        let mut with = WithPhrase {
            recovery_out,
            rotated: true,
            ..WithPhrase::default()
        };
        match desk.resume(keys)? {
            Resumed::Change(plan) if plan.rotates(&desk.domain) => {
                if let Some(file) = recovery_out {
                    domain_phrase::check(file, &id, |phrase| plan.is_recovered_by(phrase))?;
                }
                let governed = desk.commit(*plan, &passphrase)?;
                return desk.finish(Some(governed), with);
            }
            Resumed::Change(plan) => {
                desk.domain = desk.commit(*plan, &passphrase)?.domain;
                keys = desk.unlock(&passphrase)?;
            }
            Resumed::Nothing(again) => keys = again,
        }

        let phrase = given.ok_or_else(|| {
            CliError::new(format!("flags are missing to {}", self.action))
                .exit(Exit::Input)
                .hint("add --phrase-file FILE")
        })?;
        let from = self.from(&desk)?;
        let how = Rotation {
            from,
            despite_rivals: self.change.despite_fork,
            ..how(&desk, from)?
        };
        let drawn = self.drawn_before(&desk, &phrase)?;
        let written = drawn.is_some();
        let next = drawn.map(|phrase| phrase.secret());
        let mut random = secret::random(&face.report);
        let plan = Plan::rotate(&desk.domain, keys, &phrase, next, &mut random, &how);
        let plan = plan.map_err(|error| desk.failed(&error))?;
        if !plan.voids().is_empty() {
            let voided = text::count(plan.voids().len() as u64, "change");
            face.report.note(&format!("this voids {voided}"));
        }
        plan.prepare(&desk.writer)
            .map_err(|error| desk.failed(&error))?;
        if let (Some(file), Some(phrase), false) = (recovery_out, plan.phrase(), written) {
            domain_phrase::write(file, &id, &phrase)?;
        }
        let kept = match closed {
            true => plan.keep_keys_beside(&desk.writer, &passphrase).map(Some),
            false => plan.keep_keys(&desk.writer, &passphrase).map(|()| None),
        };
        with.kept_key_file = kept.map_err(|error| desk.failed(&error.into()))?;
        let governed = desk.commit(plan, &passphrase)?;
        desk.finish(Some(governed), with)
    }

    /// The manifest of the version that is to be gone on from.
    fn from(&self, desk: &Desk<'_>) -> Result<Option<Key>> {
        let Some(version) = self.phrases.from_version else {
            return Ok(None);
        };
        let chain = &desk.domain.chain;
        let mut path = chain.path();
        match path.find(|node| node.dam.version == version && node.epoch == chain.epoch_key()) {
            Some(node) => Ok(Some(node.key)),
            None => {
                let (first, last) = (
                    chain
                        .node(&chain.epoch_key())
                        .map_or(0, |node| node.dam.version),
                    chain.head().dam.version,
                );
                Err(
                    CliError::usage(format!("no rotation can go on from version {version}")).hint(
                        format!("name one from {first} to {last}: those since the last rotation"),
                    ),
                )
            }
        }
    }

    /// The phrase in the file for the new one, if a rotation that was interrupted drew it. Any other file is refused.
    fn drawn_before(&self, desk: &Desk<'_>, phrase: &Phrase) -> Result<Option<Phrase>> {
        let Some(file) = &self.phrases.recovery_out else {
            return Ok(None);
        };
        if std::fs::symlink_metadata(file).is_err() {
            return Ok(None);
        }
        let vfs = &**desk.writer.handle().vfs();
        let Ok(next) = domain_phrase::read(file)?.phrase else {
            return Err(domain_phrase::taken(file));
        };
        let drawn = govern::was_drawn(vfs, &desk.domain, phrase, &next);
        match drawn.map_err(|error| desk.failed(&error))? {
            true => Ok(Some(next)),
            false => Err(domain_phrase::taken(file)),
        }
    }
}
