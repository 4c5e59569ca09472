//! `asl domain host request` and `add`: another machine gets keys of its own, and the domain lists them.
//!
//! Crash: see [`asl_bootstrap::govern`] and [`asl_bootstrap::host`]. A request that was cut off has left nothing, or keys that the same
//! command asks for again; an `add` that was cut off goes on with the same command.

use std::io::{self, Write};
use std::path::Path;

use asl_bootstrap::govern::{self, Ask, Held, Plan};
use asl_bootstrap::host::{Asked, REQUEST_LEN_MAX, is_name};
use asl_bootstrap::keyfile::key_file_path;
use asl_bootstrap::{
    Domain, DraftFile, Error, GovernError, HostError, HostRequest as Request, KeyFile, Role, Roles,
    Signer, beside, meta,
};
use asl_capture::inventory::SystemPaths;
use asl_store::StoreHandle;
use asl_store::vfs::{Access, Vfs, read_exact_at};
use serde::Serialize;
use zeroize::Zeroizing;

use super::domain;
use super::domain_draft::{self, DraftObject};
use super::domain_govern::{Desk, WithPhrase, no_passphrase, passphrase, require};
use crate::args::{Change, HostAdd, HostRequest};
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, outside_store};
use crate::probe::{self, Allowed, Refusal};
use crate::prompt::Prompt;
use crate::report::{Outcome, facts};
use crate::{secret, text};

const ASKS: &str = "ask for keys of this machine";
const ADDS: &str = "add the host";

/// What is asked for, as results show it.
#[derive(Debug, Serialize)]
struct Requested {
    request: String,
    domain_id: String,
    name: String,
    manifest_version: u64,
    keys: Vec<KeyObject>,
    fingerprint: String,
    key_file: String,
    /// Whether the keys were drawn now.
    drawn: bool,
    #[serde(skip)]
    grouped: String,
    #[serde(skip)]
    add: String,
    #[serde(skip)]
    sync: String,
}

#[derive(Debug, Serialize)]
struct KeyObject {
    key_id: String,
    roles: String,
}

fn keys_of(asked: &Asked) -> Vec<KeyObject> {
    let keys = asked.keys.iter();
    let object = keys.map(|principal| KeyObject {
        key_id: principal.key.id().to_string(),
        roles: principal.roles.to_string(),
    });
    object.collect()
}

impl Outcome for Requested {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let (first, second) = self.grouped.split_at(self.grouped.len().min(40));
        let mut lines = vec![
            ("request", text::visible(&self.request).into_owned()),
            ("host", text::visible(&self.name).into_owned()),
            ("domain", first.to_owned()),
            ("", second.to_owned()),
        ];
        for KeyObject { key_id, roles } in &self.keys {
            lines.push(("key", format!("{key_id:.16}  {roles}")));
        }
        lines.push(("kept in", "meta/keys/priv, encrypted".to_owned()));
        facts(out, &lines)?;
        writeln!(out, "\nfingerprint: {}\n", self.fingerprint)?;
        writeln!(out, "Take the request to the machine with the root. There:")?;
        writeln!(out, "  {}", self.add)?;
        writeln!(
            out,
            "and grant it only if that screen shows this fingerprint."
        )?;
        writeln!(out, "After that, here:")?;
        writeln!(out, "  {}", self.sync)
    }
}

/// Asks for keys of this machine's own.
pub fn request(face: &Face, args: &HostRequest) -> Result {
    let file = &args.passphrase_file;
    require(
        ASKS,
        &[(no_passphrase(face, file), true, "--passphrase-file FILE")],
    )?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    if !is_name(&name) {
        return Err(CliError::usage(HostError::Name.to_string())
            .hint("say what this machine is to be called: --name TEXT"));
    }
    let place = face.store_path()?;
    outside_store(place, &args.out)?;
    check_place(place, args.ephemeral)?;
    let before = there_already(&args.out)?;
    let passphrase = passphrase_of_this_host(face, args)?;

    let desk = Desk::open(face, ASKS)?;
    let id = desk.domain.id();
    let vfs = desk.writer.handle().vfs().clone();
    let mut keys = match Held::look(&*vfs, &id, &passphrase) {
        Held::Open(keys) => keys,
        Held::Missing => KeyFile::new(Some(id)),
        Held::Closed(error) => return Err(desk.failed(&error.into())),
    };
    let mut random = secret::random(&face.report);
    let asked = govern::ask(&desk.domain, &mut keys, &mut random, &name);
    let Ask { request, drew } = asked.map_err(|error| match &error {
        Error::Host(error) => refused(ASKS, error, desk.path, &args.out),
        error => desk.failed(error),
    })?;
    if before.is_some_and(|before| before.asked.keys != request.asked.keys) {
        return Err(exists(&args.out));
    }
    if drew {
        let kept = keys.replace(&*vfs, &key_file_path(&id), &passphrase);
        kept.map_err(|error| desk.failed(&error.into()))?;
    } else {
        face.report
            .note("these keys were drawn before, and are asked for again");
    }
    let host = keys.signers(Role::Host).map(Signer::id).last();
    let made = meta::materialise(&*vfs, desk.writer.handle(), &desk.domain, host);
    made.map_err(|error| desk.failed(&error))?;
    domain_draft::write(&args.out, request.text().as_bytes(), false)?;
    let path = desk.path;
    face.finish(path, desk.writer)?;
    let asked = &request.asked;
    face.report.result(&Requested {
        request: args.out.to_string_lossy().into_owned(),
        domain_id: id.to_string(),
        grouped: id.grouped(),
        name: asked.name.clone(),
        manifest_version: asked.version,
        keys: keys_of(asked),
        fingerprint: asked.fingerprint().to_string(),
        key_file: key_file_path(&id),
        drawn: drew,
        add: format!(
            "asl domain host add {} --store PATH",
            text::shell_path(&args.out)
        ),
        sync: format!("asl store sync OTHER --store {}", text::shell_path(path)),
    })?;
    Ok(Exit::Complete)
}

/// What the system calls this machine.
fn host_name() -> Result<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    match is_name(&name) {
        true => Ok(name),
        false => Err(CliError::usage("this machine has no name").hint("say one: add --name TEXT")),
    }
}

/// Refuses places that forget: the keys would be gone at power-off.
fn check_place(path: &Path, ephemeral: bool) -> Result<()> {
    let allowed = Allowed {
        ephemeral,
        unmounted: true,
    };
    match probe::survey(&SystemPaths::default(), path, allowed) {
        Ok(_) | Err(Refusal::NoRoom { .. }) => Ok(()),
        Err(refusal) => Err(CliError::from(refusal).instead("no keys can be kept there")),
    }
}

fn exists(path: &Path) -> CliError {
    CliError::new(format!("{} exists already", text::path(path)))
        .hint("name a new file, or remove that one")
}

/// The request that lies where one is to be written. Anything else is not written over.
fn there_already(path: &Path) -> Result<Option<Request>> {
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(None);
    }
    match read(path) {
        Ok(request) => Ok(Some(request)),
        Err(_) => Err(exists(path)),
    }
}

/// The passphrase for this machine's keys; typed twice if there are none yet.
fn passphrase_of_this_host(face: &Face, args: &HostRequest) -> Result<Zeroizing<String>> {
    let file = &args.passphrase_file;
    let (_, store) = face.reader()?;
    let mut domains = std::iter::once(store.clone()).chain(store.instances());
    let id = domains.find_map(|store| Some(Domain::read(&store).ok()??.id()));
    let has_keys = id.is_some_and(|id| store.vfs().metadata(&key_file_path(&id)).is_ok());
    match (file, Prompt::open(face)) {
        (None, Some(prompt)) if !has_keys => {
            secret::protect(&face.report);
            Ok(prompt.new_secret("passphrase for this machine's keys", "the same again")?)
        }
        _ => passphrase(face, file, "this machine's keys"),
    }
}

/// Reads a request: a plain file, and no more of it than any request has.
fn read(path: &Path) -> Result<Request> {
    let failed = |error: &io::Error| {
        let of = CliError::of_io("read the request", path, error);
        match error.raw_os_error() {
            // Not the system's refusal but ours: a link, a FIFO, a device, a directory.
            None => of.hint("a request is a plain file; copy it into one, and name that"),
            Some(_) => of,
        }
    };
    let (vfs, name) = domain_draft::beside(path)?;
    let file = vfs
        .open(&name, Access::Read)
        .map_err(|error| failed(&error))?;
    let len = file.len().map_err(|error| failed(&error))?;
    let bad = |error: &HostError| {
        CliError::new(format!("cannot read the request {}", text::path(path)))
            .caused_by(error)
            .exit(Exit::Integrity)
            .hint("get it again from the machine that made it: asl domain host request --out FILE")
    };
    if len > REQUEST_LEN_MAX as u64 {
        return Err(bad(&HostError::TooLong { len }));
    }
    let mut bytes = vec![0; len as usize];
    read_exact_at(&*file, 0, &mut bytes).map_err(|error| failed(&error))?;
    Request::open(&bytes).map_err(|error| bad(&error))
}

/// What a refused request means, and what to do about it.
fn refused(action: &str, error: &HostError, store: &Path, file: &Path) -> CliError {
    let place = text::shell_path(store);
    let of = CliError::new(format!("cannot {action}")).caused_by(error);
    let again = "on the machine that asks: asl store sync OTHER, then the same asl domain host \
                 request again; it asks for the same keys";
    match error {
        HostError::OtherDomain { .. } => of.exit(Exit::Authority).hint(format!(
            "see which domain this is: asl domain show --store {place}"
        )),
        HostError::UnknownManifest { .. } => of.exit(Exit::Rollback).hint(format!(
            "bring what that machine knows: asl store sync OTHER --store {place}, then repeat; \
             or make the request again there, after a sync with this store"
        )),
        HostError::Overtaken { .. } => of.exit(Exit::Rollback).hint(again),
        HostError::NotOnPath { .. } => of.exit(Exit::Rollback).hint(format!(
            "look at both: asl domain verify --store {place}; then, {again}"
        )),
        HostError::Listed { .. } => of.exit(Exit::Authority).hint(format!(
            "see whose it is: asl domain host list --store {place}"
        )),
        HostError::Revoked { .. } => of.exit(Exit::Authority).hint(
            "on the machine that asks: asl store sync OTHER, then asl domain host request; it \
             draws new keys then",
        ),
        HostError::Roles { .. } => of
            .exit(Exit::Policy)
            .hint("grant nothing; a request that asl made asks for no more"),
        HostError::Possession { .. } => of
            .exit(Exit::Authority)
            .hint("get it again from the machine that made it: asl domain host request --out FILE"),
        HostError::Fingerprint { .. } => of.exit(Exit::Authority).hint(format!(
            "compare again; if they differ, somebody has changed {}: grant nothing",
            text::path(file)
        )),
        HostError::Nothing => of.exit(Exit::Usage).hint(format!(
            "see: asl domain host list --store {place}; to sign: asl domain attest --store {place}"
        )),
        HostError::Name => of.exit(Exit::Usage).hint("add --name TEXT"),
        HostError::TooLong { .. } | HostError::Line { .. } | HostError::Key(_) => {
            of.exit(Exit::Integrity)
        }
    }
}

/// Lets another machine sign.
pub fn add(face: &Face, args: &HostAdd) -> Result {
    let prompt = Prompt::open(face);
    let (change, alone) = (&args.change, args.draft.is_none());
    let file = &change.passphrase_file;
    // Nobody has looked at what `--yes` grants, unless they say what they have seen.
    let unseen = args.expect.is_none() && (prompt.is_none() || change.yes);
    require(
        ADDS,
        &[
            (unseen, true, "--expect FINGERPRINT"),
            (
                alone && no_passphrase(face, file),
                true,
                "--passphrase-file FILE",
            ),
            (prompt.is_none() && !change.yes, false, "--yes"),
        ],
    )?;
    let path = face.store_path()?;
    if let Some(draft) = &args.draft {
        outside_store(path, draft)?;
    }
    let request = read(&args.request)?;
    let refuse = |error: &HostError| refused(ADDS, error, path, &args.request);
    if let Some(expected) = &args.expect {
        request.require(expected).map_err(|error| refuse(&error))?;
    }
    look(face, &request, change, &refuse)?;
    let words = grants(&request.asked);
    match &prompt {
        Some(prompt) => {
            for line in &words {
                prompt.say(line);
            }
            let question = match args.expect {
                None => "Does the other machine show this fingerprint?",
                Some(_) => "Let it sign?",
            };
            if !change.yes && !prompt.confirm(question, false)? {
                return Err(CliError::new("nothing was granted")
                    .exit(Exit::Authority)
                    .hint("get the request again, by a way that nobody can change it on"));
            }
        }
        None => words.iter().for_each(|line| face.report.note(line)),
    }
    if let Some(draft) = &args.draft {
        return add_draft(face, args, draft, &request);
    }
    let passphrase = passphrase(face, file, "the keys")?;
    let mut desk = Desk::open(face, ADDS)?;
    require_one_history(path, desk.writer.handle(), &desk.domain, change)?;
    let keys = desk.settle(&passphrase)?;
    if request.asked.granted(&desk.domain.chain).is_some() {
        face.report.note("this request was granted before");
        return desk.finish(None, WithPhrase::default());
    }
    let plan = Plan::grant(&desk.domain, keys, &request, change.despite_fork);
    let plan = plan.map_err(|error| match &error {
        Error::Host(error) => refuse(error),
        error => desk.failed(error),
    })?;
    desk.keep(&plan, &passphrase)?;
    let governed = desk.commit(plan, &passphrase)?;
    face.report
        .note("the other machine signs once it knows of this; there: asl store sync OTHER");
    desk.finish(Some(governed), WithPhrase::default())
}

/// Refuses what can be refused before anybody is asked for anything. What depends on the newest manifest is seen again when the
/// store is open for writing, and has what other instances say.
fn look(
    face: &Face,
    request: &Request,
    change: &Change,
    refuse: &dyn Fn(&HostError) -> CliError,
) -> Result<()> {
    let (path, store) = face.reader()?;
    let domain = Domain::read(&store).map_err(|error| domain::failed(ADDS, path, &error))?;
    let Some(domain) = domain.filter(|domain| request.asked.granted(&domain.chain).is_none())
    else {
        return Ok(());
    };
    require_one_history(path, &store, &domain, change)?;
    match request.draft(&domain.chain) {
        Err(Error::Host(HostError::UnknownManifest { .. })) if has_others(&store) => Ok(()),
        Err(Error::Host(error)) => Err(refuse(&error)),
        Err(error) => Err(domain::failed(ADDS, path, &error)),
        Ok(_) => Ok(()),
    }
}

fn has_others(store: &StoreHandle) -> bool {
    store.instances().len() > 1
}

/// What somebody agrees to, a line each.
fn grants(asked: &Asked) -> Vec<String> {
    let mut lines = vec![format!(
        "The machine \"{}\" asks to sign for this domain:",
        text::visible(&asked.name)
    )];
    for principal in &asked.keys {
        let may = match principal.roles {
            Roles::PRODUCE => "it may sign receipts of what it captures",
            Roles::CHECKPOINT => "it may sign the log that it writes",
            _ => "more than a host may have",
        };
        let key = principal.key.id().to_string();
        lines.push(format!("  {may}: key {key:.16}"));
    }
    lines.push("It can change nothing about the domain itself.".to_owned());
    lines.push(format!("fingerprint: {}", asked.fingerprint()));
    lines
}

/// Refuses to add to one of two histories that other instances show.
fn require_one_history(
    path: &Path,
    store: &StoreHandle,
    domain: &Domain,
    change: &Change,
) -> Result<()> {
    match beside::fork(store, domain) {
        Some((ours, theirs)) if !change.despite_fork => {
            let forked = GovernError::Forked {
                ours,
                theirs,
                settles: true,
            };
            let place = text::shell_path(path);
            Err(CliError::new(format!("cannot {ADDS}"))
                .caused_by(&forked)
                .exit(Exit::Rollback)
                .hint(format!(
                    "look at both: asl domain verify --store {place}; a rotation settles it: asl \
                     domain rotate --help"
                )))
        }
        _ => Ok(()),
    }
}

/// Writes the manifest that grants a request as a draft, for roots that sign together.
fn add_draft(face: &Face, args: &HostAdd, file: &Path, request: &Request) -> Result {
    let mut desk = Desk::open(face, ADDS)?;
    require_one_history(desk.path, desk.writer.handle(), &desk.domain, &args.change)?;
    let draft = request
        .draft(&desk.domain.chain)
        .and_then(|draft| DraftFile::following(desk.writer.handle(), &desk.domain, draft));
    let draft = draft.map_err(|error| match &error {
        Error::Host(error) => refused(ADDS, error, desk.path, &args.request),
        error => desk.failed(error),
    })?;
    let enclosed = govern::enclose(&mut desk.writer, request);
    enclosed.map_err(|error| desk.failed(&error))?;
    domain_draft::write(file, &draft.to_bytes(), true)?;
    face.finish(desk.path, desk.writer)?;
    face.report.result(&DraftObject::of(file, &draft))?;
    Ok(Exit::Complete)
}
