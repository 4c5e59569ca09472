//! `asl domain draft member`, `mint`, `update` and `rotate`: cards, and drafts made of them.
//!
//! Crash: private keys and phrases are durable before the card or the draft that is made of them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use asl_bootstrap::dam::{Member, Revocation, WitnessMode};
use asl_bootstrap::draftfile::{self, CARD_LEN_MAX, Card, Founding, Turn};
use asl_bootstrap::govern::{self, Update};
use asl_bootstrap::keyfile::key_file_path;
use asl_bootstrap::note::{Kind as NoteKind, NoteKey};
use asl_bootstrap::{
    Domain, DraftFile, Error, KeyFile, Kind, MintError, Phrase, Policy, Role, Secret, Signer,
};
use asl_capture::inventory::SystemPaths;
use asl_store::{LogPosition, WriteOptions};
use serde::Serialize;

use super::domain;
use super::domain_draft::{DraftObject, beside, key_file, write};
use super::domain_govern::{passphrase, require, set};
use super::domain_phrase;
use crate::args::{DraftMember, DraftMint, DraftRotate, DraftUpdate, SeveralKind};
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, now, outside_store};
use crate::probe::{self, Allowed};
use crate::report::{Outcome, facts};
use crate::{secret, text};

/// A card that was made.
#[derive(Debug, Serialize)]
struct Made {
    card: String,
    root: String,
    key_file: String,
    recovery: Option<String>,
}

impl Outcome for Made {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let phrase = match &self.recovery {
            Some(file) => format!("{}; copy it to paper, then delete it", text::visible(file)),
            None => "none: you cannot take part in the next rotation".to_owned(),
        };
        facts(
            out,
            &[
                ("card", text::visible(&self.card).into_owned()),
                ("root", format!("{:.16}", self.root)),
                ("key file", text::visible(&self.key_file).into_owned()),
                ("phrase", phrase),
            ],
        )
    }
}

/// Makes a card, and the keys behind it.
pub fn member(face: &Face, args: &DraftMember) -> Result {
    let file = &args.passphrase_file;
    let no_choice = args.recovery_out.is_none() && !args.no_recovery;
    let action = "make a card";
    require(
        action,
        &[
            (file.is_none(), true, "--passphrase-file FILE"),
            (no_choice, true, "--recovery-out FILE or --no-recovery"),
        ],
    )?;
    let passphrase = passphrase(face, file, "the key file")?;
    for new in [Some(&args.output), args.recovery_out.as_ref()]
        .into_iter()
        .flatten()
    {
        if fs::symlink_metadata(new).is_ok() {
            return Err(CliError::new(format!("{} exists already", text::path(new)))
                .hint("name a new file: nothing is written over"));
        }
    }
    let there = fs::symlink_metadata(&args.key_file).is_ok();
    let mut keys = match there {
        true => key_file(&args.key_file, &passphrase)?,
        false => KeyFile::new(None),
    };
    if let Some(file) = &args.recovery_out {
        domain_phrase::check_place(face, file)?;
    }
    let mut random = secret::random(&face.report);
    let mut draw = || {
        Secret::generate(&mut random)
            .map_err(|error| CliError::new("the system has no random numbers").caused_by(&error))
    };
    let root = match &args.phrase_file {
        Some(file) => domain_phrase::given(file)?.secret(),
        None => draw()?,
    };
    let next = draw()?;
    if !keys.has_room(1) {
        return Err(CliError::new("the key file is full").hint("name another one with --key-file"));
    }
    keys.add(Role::Root, &root);
    let card = draftfile::card(&Signer::new(&root), &Signer::new(&next));
    if let Some(file) = &args.recovery_out {
        domain_phrase::write_of(file, "of a member", &Phrase::from_secret(&next))?;
    }
    let (vfs, name) = beside(&args.key_file)?;
    let kept = match there {
        true => keys.replace(&vfs, &name, &passphrase),
        false => keys.create(&vfs, &name, &passphrase),
    };
    kept.map_err(|error| domain::failed(action, &args.key_file, &error.into()))?;
    write(&args.output, card.text().as_bytes(), true)?;
    let recovery = args.recovery_out.as_ref();
    face.report.result(&Made {
        card: args.output.to_string_lossy().into_owned(),
        root: card.root.id().to_string(),
        key_file: args.key_file.to_string_lossy().into_owned(),
        recovery: recovery.map(|file| file.to_string_lossy().into_owned()),
    })?;
    Ok(Exit::Complete)
}

fn small_file(path: &Path) -> Result<String> {
    let failed = |error| CliError::of_io("read", path, &error);
    let file = File::open(path).map_err(failed)?;
    let mut content = String::new();
    let mut file = file.take(CARD_LEN_MAX as u64);
    file.read_to_string(&mut content).map_err(failed)?;
    Ok(content)
}

fn cards(paths: &[PathBuf]) -> Result<Vec<Card>> {
    let read = |path: &PathBuf| {
        Card::parse(&small_file(path)?).map_err(|error| {
            CliError::new(format!("cannot use the card {}", text::path(path)))
                .caused_by(&error)
                .exit(Exit::Authority)
                .hint("get it again from its member: asl domain draft member --help")
        })
    };
    paths.iter().map(read).collect()
}

/// The smallest number for which any two choices share somebody.
fn more_than_half(of: usize) -> u8 {
    u8::try_from(of / 2 + 1).unwrap_or(u8::MAX)
}

/// The witnesses whose public lines are in these files.
fn witness(paths: &[PathBuf], threshold: Option<u8>) -> Result<asl_bootstrap::dam::Witness> {
    let mut members = Vec::new();
    for path in paths {
        let line = small_file(path)?;
        let failed = || {
            CliError::new(format!(
                "{} is no public line of a witness",
                text::path(path)
            ))
            .exit(Exit::Authority)
            .hint("ask the witness for its file witness.pub")
        };
        let key = line.trim_end().parse::<NoteKey>();
        let key = key.map_err(|error| failed().caused_by(&error))?;
        if key.kind() != NoteKind::Cosignature {
            return Err(failed());
        }
        members.push(Member {
            key: key.key(),
            name: key.id().name.clone(),
        });
    }
    let mode = match members.len() {
        0 => return Ok(asl_bootstrap::dam::Witness::NONE),
        _ => WitnessMode::Quorum,
    };
    let threshold = threshold.unwrap_or(more_than_half(members.len()));
    Ok(asl_bootstrap::dam::Witness {
        mode,
        members,
        threshold,
    })
}

/// Drafts a domain.
pub fn mint(face: &Face, args: &DraftMint) -> Result {
    let action = "draft a domain";
    let file = &args.passphrase_file;
    require(action, &[(file.is_none(), true, "--passphrase-file FILE")])?;
    outside_store(face.store_path()?, &args.output)?;
    let allowed = Allowed {
        ephemeral: args.ephemeral,
        unmounted: true,
    };
    probe::survey(&SystemPaths::default(), face.store_path()?, allowed)?;
    let passphrase = passphrase(face, file, "the keys of this host")?;
    let kind = match args.kind {
        SeveralKind::Group => Kind::Group,
        SeveralKind::Common => Kind::Common,
    };
    let mut policy = Policy::default_of(kind);
    set(&mut policy, &args.set)?;
    let most = more_than_half(args.cards.len());
    let founding = Founding {
        label: args.name.clone(),
        kind,
        policy,
        root_threshold: args.root_threshold.unwrap_or(most),
        next_threshold: args.next_threshold.unwrap_or(most),
        witness: witness(&args.witness, args.witness_threshold)?,
        created_hint: now(),
    };
    let cards = cards(&args.cards)?;
    let (path, writer) = face.writer(WriteOptions::default())?;
    let failed = |error: &Error| domain::failed(action, path, error);
    let known = Domain::read(writer.handle()).map_err(|error| failed(&error))?;
    if let Some(domain) = known {
        let domain = domain.id();
        return Err(failed(&MintError::Exists { domain }.into()));
    }
    let mut random = secret::random(&face.report);
    let found = draftfile::found(&cards, &founding, &mut random);
    let (draft, keys) = found.map_err(|error| match error {
        Error::Author(_) => failed(&error).hint("see: asl domain draft mint --help"),
        error => failed(&error),
    })?;
    let place = key_file_path(&draft.domain());
    keys.create(&**writer.handle().vfs(), &place, &passphrase)
        .map_err(|error| failed(&error.into()))?;
    write(&args.output, &draft.to_bytes(), true)?;
    face.finish(path, writer)?;
    drafted(face, &args.output, &draft)
}

fn drafted(face: &Face, path: &Path, draft: &DraftFile) -> Result {
    face.report.result(&DraftObject::of(path, draft))?;
    Ok(Exit::Complete)
}

fn read<'f>(face: &'f Face, action: &str) -> Result<(&'f Path, asl_store::StoreHandle, Domain)> {
    let (path, store) = face.reader()?;
    let domain = Domain::read(&store)
        .and_then(|found| found.ok_or_else(|| MintError::NoDomain.into()))
        .and_then(|domain| match domain.is_blind() {
            true => Err(MintError::Blind.into()),
            false => Ok(domain),
        })
        .map_err(|error| domain::failed(action, path, &error))?;
    Ok((path, store, domain))
}

/// Drafts an update.
pub fn update(face: &Face, args: &DraftUpdate) -> Result {
    let action = "draft an update";
    outside_store(face.store_path()?, &args.output)?;
    let (path, store, domain) = read(face, action)?;
    let mut policy = domain.chain.head().policy;
    set(&mut policy, &args.set)?;
    let revoked = args.revoke.iter().map(|key| Revocation {
        key: *key,
        store: domain.store,
        position: LogPosition(domain.tree.size()),
        reason: args.reason.into(),
    });
    let how = Update {
        label: args.name.clone(),
        policy: Some(policy),
        revoke: revoked.collect(),
        despite_rivals: args.despite_fork,
        ..Update::none(now())
    };
    let keys = KeyFile::new(Some(domain.id()));
    let mut random = secret::random(&face.report);
    let draft = draftfile::change(&store, &domain, keys, &mut random, &how);
    let (draft, _) = draft.map_err(|error| refused(action, path, &error))?;
    write(&args.output, &draft.to_bytes(), true)?;
    drafted(face, &args.output, &draft)
}

/// Drafts a rotation.
pub fn rotate(face: &Face, args: &DraftRotate) -> Result {
    let action = "draft a rotation";
    outside_store(face.store_path()?, &args.output)?;
    let cards = cards(&args.cards)?;
    let (path, store, domain) = read(face, action)?;
    let turn = Turn {
        root_threshold: args.root_threshold,
        next_threshold: args.next_threshold,
        witness: None,
        despite_rivals: args.despite_fork,
        created_hint: now(),
    };
    let mut random = secret::random(&face.report);
    let draft = draftfile::rotate(&store, &domain, &cards, &mut random, &turn);
    let draft = draft.map_err(|error| refused(action, path, &error))?;
    write(&args.output, &draft.to_bytes(), true)?;
    drafted(face, &args.output, &draft)
}

fn refused(action: &str, path: &Path, error: &Error) -> CliError {
    let place = text::shell_path(path);
    match error {
        Error::Govern(govern::GovernError::Forked { .. }) => {
            CliError::new(format!("cannot {action}"))
                .caused_by(error)
                .exit(Exit::Rollback)
                .hint(format!("look at both: asl domain verify --store {place}"))
        }
        Error::Govern(govern::GovernError::Root { .. }) => {
            CliError::new(format!("cannot {action}"))
                .caused_by(error)
                .exit(Exit::Authority)
                .hint("see: asl domain draft rotate --help")
        }
        error => domain::failed(action, path, error),
    }
}
