//! `asl domain show` and `attest`, and what the verbs of `asl domain` share.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use asl_bootstrap::domain::Class;
use asl_bootstrap::keyfile::key_file_path;
use asl_bootstrap::mint::{Attested, Done};
use asl_bootstrap::policy::Event;
use asl_bootstrap::witness::ExchangeError;
use asl_bootstrap::{
    ChainError, Domain, DomainError, Error, KeyFile, KeyFileError, MintError, ReceiptKind, attest,
    mint,
};
use asl_capture::session::{self, CaptureState};
use asl_store::{StoreHandle, StoreWriter, WriteOptions};
use serde::Serialize;
use zeroize::Zeroizing;

use super::captures;
use super::trust::{self, Pinned};
use crate::args::{DomainAttest, DomainShow};
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::qr::{self, Drawing};
use crate::report::{Outcome, facts};
use crate::{secret, text, writable};

/// Longest passphrase file that is read.
const PASSPHRASE_FILE_MAX: u64 = 4096;

/// A refusal of the domain's library as the face tells it; `action` completes "cannot …".
pub(crate) fn failed(action: &str, store: &Path, error: &Error) -> CliError {
    let place = text::shell_path(store);
    if let Error::Store(error) = error {
        return CliError::of_store(action, store, error);
    }
    let of = CliError::new(format!("cannot {action}"))
        .caused_by(error)
        .exit(exit_of(error));
    match error {
        Error::Mint(MintError::Exists { .. }) => {
            of.hint(format!("see it: asl domain show --store {place}"))
        }
        Error::Mint(MintError::NoDomain) => of.hint(format!(
            "found one: asl domain mint --store {place}"
        )),
        Error::KeyFile(KeyFileError::WrongPassphrase) => of.hint(
            "mind the keyboard layout and the end of the line; only the first line of the file counts",
        ),
        Error::KeyFile(KeyFileError::Io { path, source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            of.hint(format!(
                "bring {path} back into the store; if it is lost: asl domain recover --help; for \
                 keys of this machine's own: asl domain host request --help"
            ))
        }
        Error::Mint(MintError::NotListedYet { .. }) => of.hint(format!(
            "not listed yet: sync with the machine that ran `asl domain host add`: asl store sync \
             OTHER --store {place}"
        )),
        Error::Mint(MintError::NoKey { .. }) => of.hint(format!(
            "see whose keys are listed: asl domain host list --store {place}; for new ones: asl \
             domain host request --help"
        )),
        Error::Domain(_) | Error::Mint(MintError::Blind) => of.hint(format!(
            "list what is damaged: asl store verify --store {place}"
        )),
        _ => of.hint_of(error, store),
    }
}

fn exit_of(error: &Error) -> Exit {
    match error {
        Error::Domain(DomainError::Genesis { source, .. }) => exit_of_class(source.class()),
        Error::Mint(MintError::Blind | MintError::Pending { .. })
        | Error::KeyFile(KeyFileError::Damaged) => Exit::Integrity,
        Error::Chain(ChainError::UpdateFork { .. } | ChainError::RotationFork { .. }) => {
            Exit::Rollback
        }
        Error::Refused(_) => Exit::Policy,
        Error::Verify(_) => Exit::Authority,
        Error::Exchange(ExchangeError::RolledBack { .. }) => Exit::Rollback,
        Error::KeyFile(KeyFileError::EmptyPassphrase) => Exit::Input,
        Error::KeyFile(
            KeyFileError::WrongPassphrase
            | KeyFileError::OtherDomain { .. }
            | KeyFileError::Foreign,
        )
        | Error::Mint(MintError::NoKey { .. } | MintError::NotListedYet { .. })
        | Error::Exchange(ExchangeError::Stranger | ExchangeError::OtherCheckpoint { .. })
        | Error::Chain(_)
        | Error::Sign(_) => Exit::Authority,
        Error::Dam(_) | Error::Author(_) => Exit::Usage,
        _ => Exit::Failed,
    }
}

pub(super) fn exit_of_class(class: Class) -> Exit {
    match class {
        Class::Note => Exit::Complete,
        Class::Policy => Exit::Policy,
        Class::Authority => Exit::Authority,
        Class::Fork => Exit::Rollback,
        Class::Integrity => Exit::Integrity,
    }
}

/// Reads the first line of a passphrase file.
pub(crate) fn passphrase(path: &Path) -> Result<Zeroizing<String>> {
    let failed = |error| CliError::of_io("read the passphrase from", path, &error);
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSPHRASE_FILE_MAX as usize));
    let file = File::open(path).map_err(failed)?;
    let mut file = file.take(PASSPHRASE_FILE_MAX);
    file.read_to_end(&mut bytes).map_err(failed)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(CliError::new(format!(
            "{} does not begin with a line of text",
            text::path(path)
        ))
        .exit(Exit::Input)
        .hint("put the passphrase into its first line")),
    }
}

fn read(face: &Face) -> Result<(&Path, StoreHandle, Domain)> {
    let (path, store) = face.reader()?;
    let action = "read the store's domain";
    let domain = Domain::read(&store)
        .and_then(|found| found.ok_or_else(|| MintError::NoDomain.into()))
        .map_err(|error| failed(action, path, &error))?;
    Ok((path, store, domain))
}

/// The domain as results show it.
#[derive(Debug, Serialize)]
pub(super) struct DomainObject {
    domain_id: String,
    name: String,
    kind: String,
    version: u64,
    rotation: u64,
    store_id: String,
    manifest: String,
    roots: Vec<String>,
    principals: Vec<PrincipalObject>,
    witnesses: usize,
    revoked: Vec<String>,
    log_position: u64,
    checkpointed_position: u64,
    signed_receipts: usize,
    /// The domain that it was given up for; null where it was not.
    retired: Option<RetiredObject>,
    #[serde(skip)]
    grouped: String,
}

#[derive(Debug, Serialize)]
struct RetiredObject {
    domain_id: String,
    /// The record that says so.
    log_position: u64,
    time: String,
}

#[derive(Debug, Serialize)]
struct PrincipalObject {
    key_id: String,
    roles: String,
}

impl From<&Domain> for DomainObject {
    fn from(domain: &Domain) -> Self {
        let head = domain.chain.head();
        let dam = &head.dam;
        let principals = dam.principals.iter().map(|principal| PrincipalObject {
            key_id: principal.key.id().to_string(),
            roles: principal.roles.to_string(),
        });
        let signed = |state: &&_| {
            let state: &asl_bootstrap::domain::ReceiptState = state;
            !state.signers.is_empty()
        };
        // A key is revoked in each log of the domain on its own.
        let revoked: BTreeSet<String> = dam.revoked.iter().map(|of| of.key.to_string()).collect();
        Self {
            domain_id: domain.id().to_string(),
            grouped: domain.id().grouped(),
            name: dam.label.clone(),
            kind: dam.kind.to_string(),
            version: dam.version,
            rotation: dam.rotation,
            store_id: domain.store.to_string(),
            manifest: head.key.to_string(),
            roots: dam.roots.iter().map(|key| key.id().to_string()).collect(),
            principals: principals.collect(),
            witnesses: dam.witness.members.len(),
            revoked: revoked.into_iter().collect(),
            log_position: domain.tree.size(),
            checkpointed_position: domain.covered(),
            signed_receipts: domain.receipts.iter().filter(signed).count(),
            retired: domain.retirement().map(|(state, link)| RetiredObject {
                domain_id: link.parent.to_string(),
                log_position: state.record.0,
                time: text::time(state.time_unix_ns),
            }),
        }
    }
}

impl Outcome for DomainObject {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let (first, second) = self.grouped.split_at(self.grouped.len().min(40));
        let mut lines = vec![
            ("domain", first.to_owned()),
            ("", second.to_owned()),
            ("name", text::visible(&self.name).into_owned()),
            ("kind", format!("{}, version {}", self.kind, self.version)),
            (
                "log",
                format!(
                    "{} of {} records under a signed checkpoint",
                    self.checkpointed_position, self.log_position
                ),
            ),
            ("receipts", format!("{} signed", self.signed_receipts)),
        ];
        if let Some(retired) = &self.retired {
            let RetiredObject {
                domain_id,
                log_position,
                time,
            } = retired;
            let words = format!("{time}, by record {log_position}: given up for the domain");
            lines.extend([("RETIRED", words), ("", domain_id.clone())]);
        }
        for root in &self.roots {
            lines.push(("root", format!("{root:.16}")));
        }
        for PrincipalObject { key_id, roles } in &self.principals {
            lines.push(("key", format!("{key_id:.16}  {roles}")));
        }
        for key in &self.revoked {
            lines.push(("revoked", format!("{key:.16}")));
        }
        facts(out, &lines)
    }
}

/// The domain with its id as a code.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    domain: DomainObject,
    /// What this machine remembers of it; null where it was told nothing.
    trust: Option<Pinned>,
    #[serde(skip)]
    qr: Vec<String>,
}

impl Outcome for Shown {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        self.domain.show(out)?;
        if let Some(pinned) = &self.trust {
            pinned.show(out)?;
        }
        for line in &self.qr {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

/// Shows the domain.
pub fn show(face: &Face, args: &DomainShow) -> Result {
    let (path, store, domain) = read(face)?;
    let trust = trust::compare(face, path, &store, &domain)?;
    let is_seen = trust.as_ref().is_none_or(Pinned::is_ok);
    let qr = match args.qr {
        true => qr::of_domain(&domain.id(), Drawing::of_locale())?,
        false => Vec::new(),
    };
    face.report.result(&Shown {
        domain: DomainObject::from(&domain),
        trust,
        qr,
    })?;
    Ok(match is_seen {
        true => Exit::Complete,
        false => Exit::Rollback,
    })
}

/// Finished captures, as sessions that should have a receipt.
pub(super) fn done(path: &Path, store: &StoreHandle) -> Result<Vec<Done>> {
    let captures = session::list(store)
        .map_err(|error| captures::failed("list the captures", path, &error))?;
    let finished = captures.iter().filter_map(|capture| {
        let root = capture.root?;
        (capture.state == CaptureState::Finished).then_some(Done {
            kind: ReceiptKind::Capture,
            session: capture.session,
            root,
        })
    });
    Ok(finished.collect())
}

/// What was signed.
#[derive(Debug, Serialize)]
struct AttestObject {
    signed: Vec<String>,
    already_signed: usize,
    checkpointed_position: u64,
}

impl Outcome for AttestObject {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        for receipt in &self.signed {
            writeln!(out, "signed receipt {receipt:.16}")?;
        }
        let receipts = text::count(self.signed.len() as u64, "receipt");
        writeln!(
            out,
            "{receipts} signed, {} signed before; the log is signed up to record {}",
            self.already_signed, self.checkpointed_position
        )
    }
}

/// The store opened for writing, and the domain's keys where a passphrase is given: all is known to be right before anything is
/// written.
pub(super) fn writer_with_keys<'f>(
    face: &'f Face,
    action: &str,
    passphrase_file: Option<&Path>,
) -> Result<(&'f Path, StoreWriter, Option<KeyFile>)> {
    let Some(file) = passphrase_file else {
        let (path, writer) = face.writer(WriteOptions::default())?;
        writable::require(action, path, writer.handle())?;
        return Ok((path, writer, None));
    };
    secret::protect(&face.report);
    let passphrase = passphrase(file)?;
    let (path, writer, keys) = unlocked_writer(face, action, &passphrase)?;
    Ok((path, writer, Some(keys)))
}

/// The store opened for writing, and the keys of its domain, known to sign receipts and checkpoints.
fn unlocked_writer<'f>(
    face: &'f Face,
    action: &str,
    passphrase: &str,
) -> Result<(&'f Path, StoreWriter, KeyFile)> {
    let (path, writer) = face.writer(WriteOptions::default())?;
    writable::require(action, path, writer.handle())?;
    let unlock = |store: &StoreHandle| -> Result<KeyFile, Error> {
        let domain = Domain::read(store)?.ok_or(MintError::NoDomain)?;
        let keys = KeyFile::load(&**store.vfs(), &key_file_path(&domain.id()), passphrase)?;
        attest::can_sign(&domain, &keys)?;
        Ok(keys)
    };
    let keys = unlock(writer.handle()).map_err(|error| failed(action, path, &error))?;
    Ok((path, writer, keys))
}

/// The command that signs later what could not be signed now.
pub(super) fn attest_command(path: &Path) -> String {
    let place = text::shell_path(path);
    format!("asl domain attest --passphrase-file FILE --store {place}")
}

/// Says what to do where the domain's policy wants a checkpoint and no key was at hand. Nothing was asked for, so trouble with the
/// domain is for `asl domain verify`.
pub(super) fn warn_of_checkpoint(face: &Face, path: &Path, store: &StoreHandle, event: Event) {
    if let Ok(Some(domain)) = Domain::read(store)
        && domain.chain.head().policy.checkpoint_due(event)
    {
        face.report.warn(&format!(
            "the domain's policy wants a signed checkpoint after {event}; to sign: {}",
            attest_command(path)
        ));
    }
}

/// Signs what has no counting signature.
pub fn attest(face: &Face, args: &DomainAttest) -> Result {
    secret::protect(&face.report);
    let passphrase = secret::passphrase(face, args.passphrase_file.as_deref(), "the keys")?;
    let action = "sign receipts";
    let (path, mut writer, keys) = unlocked_writer(face, action, &passphrase)?;
    let failed = |error: &Error| failed(action, path, error);
    let sessions = done(path, writer.handle())?;
    let attested = mint::attest(&mut writer, &keys, &sessions).map_err(|error| failed(&error))?;
    let made = mint::checkpoint(&mut writer, &keys).map_err(|error| failed(&error))?;
    face.finish(path, writer)?;
    let mut object = AttestObject {
        signed: Vec::new(),
        already_signed: 0,
        checkpointed_position: made.size(),
    };
    for outcome in attested {
        match outcome {
            Attested::Signed { receipt, .. } => object.signed.push(receipt.to_string()),
            Attested::Already { .. } => object.already_signed += 1,
            Attested::NotInLog => {}
        }
    }
    face.report.result(&object)?;
    Ok(Exit::Complete)
}
