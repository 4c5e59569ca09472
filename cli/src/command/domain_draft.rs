//! `asl domain draft show`, `sign`, `merge` and `admit`: what is done with a draft once there is one.
//!
//! Crash: a draft file is replaced as a whole; admitting is one append to the log, and the same command goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use asl_bootstrap::draftfile::{self, Verdict};
use asl_bootstrap::export::EXPORT_LEN_MAX;
use asl_bootstrap::govern::Held;
use asl_bootstrap::policy::Rule;
use asl_bootstrap::{Dam, DraftError, DraftFile, Error, GovernError, KeyFile, KeyId};
use asl_store::WriteOptions;
use asl_store::vfs::real::RealVfs;
use serde::Serialize;

use super::domain::{self, DomainObject};
use super::domain_govern::{no_passphrase, passphrase, require};
use crate::args::{DraftAdmit, DraftMerge, DraftShow, DraftSign};
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::{Outcome, facts};
use crate::text;

/// A draft, as results show it.
#[derive(Debug, Serialize)]
pub(super) struct DraftObject {
    file: String,
    domain_id: String,
    name: String,
    kind: String,
    version: u64,
    rotation: u64,
    changes: Vec<String>,
    signed: Vec<String>,
    complete: bool,
    missing: Option<String>,
    #[serde(skip)]
    grouped: String,
}

impl DraftObject {
    pub(super) fn of(file: &Path, draft: &DraftFile) -> Self {
        let dam = draft.dam();
        let (complete, missing) = match draft.verdict() {
            Verdict::Complete => (true, None),
            Verdict::Unsigned(error) | Verdict::Refused(error) => (false, Some(error.to_string())),
        };
        Self {
            file: file.to_string_lossy().into_owned(),
            domain_id: draft.domain().to_string(),
            grouped: draft.domain().grouped(),
            name: dam.label.clone(),
            kind: dam.kind.to_string(),
            version: dam.version,
            rotation: dam.rotation,
            changes: changes(draft),
            signed: draft.signed_by().iter().map(KeyId::to_string).collect(),
            complete,
            missing,
        }
    }
}

impl Outcome for DraftObject {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let (first, second) = self.grouped.split_at(self.grouped.len().min(40));
        let mut lines = vec![
            ("domain", first.to_owned()),
            ("", second.to_owned()),
            ("name", text::visible(&self.name).into_owned()),
            (
                "kind",
                format!(
                    "{}, version {}, rotation {}",
                    self.kind, self.version, self.rotation
                ),
            ),
        ];
        for change in &self.changes {
            lines.push(("says", text::visible(change).into_owned()));
        }
        for key in &self.signed {
            lines.push(("signed", format!("{key:.16}")));
        }
        facts(out, &lines)?;
        match &self.missing {
            None => writeln!(out, "all who must have signed"),
            Some(missing) => writeln!(out, "not complete: {}", text::visible(missing)),
        }
    }
}

/// What a draft says that the manifest before it does not, a line each.
fn changes(draft: &DraftFile) -> Vec<String> {
    let dam = draft.dam();
    let before = draft.before();
    let old = before.map(|node| &node.dam);
    let mut lines = Vec::new();
    let thresholds = |dam: &Dam| (dam.root_threshold, dam.next_threshold);
    if old.map(thresholds) != Some(thresholds(dam)) {
        lines.push(format!(
            "{} of {} roots sign a change, {} of {} phrases a rotation",
            dam.root_threshold,
            dam.roots.len(),
            dam.next_threshold,
            dam.next.len()
        ));
    }
    let listed = |dam: Option<&Dam>| {
        let mut keys: Vec<(String, KeyId)> = Vec::new();
        if let Some(dam) = dam {
            keys.extend(dam.roots.iter().map(|root| ("root".to_owned(), root.id())));
            let principals = dam.principals.iter();
            keys.extend(principals.map(|p| (p.roles.to_string(), p.key.id())));
            let members = dam.witness.members.iter();
            keys.extend(members.map(|m| (format!("witness {}", m.name), m.key.id())));
        }
        keys
    };
    let (had, has) = (listed(old), listed(Some(dam)));
    let line = |sign: &str, (what, key): &(String, KeyId)| {
        format!("{sign} {what} {:.16}", key.to_string())
    };
    lines.extend(
        had.iter()
            .filter(|key| !has.contains(key))
            .map(|key| line("-", key)),
    );
    lines.extend(
        has.iter()
            .filter(|key| !had.contains(key))
            .map(|key| line("+", key)),
    );
    for revoked in &dam.revoked {
        if !old.is_some_and(|old| old.revoked.contains(revoked)) {
            lines.push(format!(
                "revoked: {:.16} from record {} of store {:.8} ({})",
                revoked.key.to_string(),
                revoked.position,
                revoked.store.to_string(),
                revoked.reason
            ));
        }
    }
    for rule in Rule::ALL {
        let value = draft.policy().value(*rule);
        if before.is_none_or(|before| before.policy.value(*rule) != value) {
            lines.push(format!("{rule}: {value}"));
        }
    }
    if let Some(old) = old
        && old.label != dam.label
    {
        lines.push(format!("name: {}, before: {}", dam.label, old.label));
    }
    lines
}

/// Reads a draft file.
pub(super) fn read(path: &Path) -> Result<DraftFile> {
    let failed = |error| CliError::of_io("read", path, &error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let mut file = file.take(EXPORT_LEN_MAX as u64 + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    DraftFile::open(&bytes).map_err(|error| {
        CliError::new(format!("cannot read the draft {}", text::path(path)))
            .caused_by(&error)
            .exit(Exit::Integrity)
            .hint("get the file again from whoever sent it")
    })
}

/// Writes a file as a whole; with `new`, only where there is none.
pub(super) fn write(path: &Path, bytes: &[u8], new: bool) -> Result<()> {
    if new && fs::symlink_metadata(path).is_ok() {
        return Err(
            CliError::new(format!("{} exists already", text::path(path)))
                .hint("name a new file, or remove that one"),
        );
    }
    let mut other = path.as_os_str().to_owned();
    other.push(".new");
    let other = Path::new(&other);
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(other)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(other, path)?;
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    };
    written().map_err(|error| CliError::of_new_file(path, &error))
}

/// Opens a key file at any place.
pub(super) fn key_file(path: &Path, passphrase: &str) -> Result<KeyFile> {
    let (vfs, name) = beside(path)?;
    KeyFile::load(&vfs, &name, passphrase).map_err(|error| {
        domain::failed(
            &format!("open the key file {}", text::path(path)),
            path,
            &error.into(),
        )
    })
}

/// The directory of a file, and its name there.
pub(super) fn beside(path: &Path) -> Result<(RealVfs, String)> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    let vfs = RealVfs::open(dir).map_err(|error| CliError::of_io("open", dir, &error))?;
    let name = path.file_name().and_then(|name| name.to_str());
    match name {
        Some(name) => Ok((vfs, name.to_owned())),
        None => Err(
            CliError::usage(format!("{} names no file", text::path(path)))
                .hint("name a file, in plain letters"),
        ),
    }
}

/// Shows a draft.
pub fn show(face: &Face, args: &DraftShow) -> Result {
    let draft = read(&args.draft)?;
    face.report.result(&DraftObject::of(&args.draft, &draft))?;
    match draft.verdict() {
        Verdict::Refused(_) => Ok(Exit::Authority),
        _ => Ok(Exit::Complete),
    }
}

fn refused(action: &str, path: &Path, error: &DraftError) -> CliError {
    let place = text::shell_path(path);
    CliError::new(format!("cannot {action} {}", text::path(path)))
        .caused_by(error)
        .exit(Exit::Authority)
        .hint(format!("see what it says: asl domain draft show {place}"))
}

/// Adds signatures.
pub fn sign(face: &Face, args: &DraftSign) -> Result {
    let file = &args.passphrase_file;
    require(
        "sign the draft",
        &[
            (no_passphrase(face, file), true, "--passphrase-file FILE"),
            (!args.yes, false, "--yes"),
        ],
    )?;
    let mut draft = read(&args.draft)?;
    let passphrase = passphrase(face, file, "your key file")?;
    let keys = key_file(&args.key_file, &passphrase)?;
    let signed = draft
        .sign(&keys)
        .map_err(|error| refused("sign", &args.draft, &error))?;
    if signed.is_empty() {
        face.report.note("these keys have signed it before");
    } else {
        write(&args.draft, &draft.to_bytes(), false)?;
    }
    face.report.result(&DraftObject::of(&args.draft, &draft))?;
    Ok(Exit::Complete)
}

/// Puts copies together.
pub fn merge(face: &Face, args: &DraftMerge) -> Result {
    let mut draft = read(&args.draft)?;
    for copy in &args.copies {
        let other = read(copy)?;
        draft
            .merge(&other)
            .map_err(|error| refused("merge", copy, &error))?;
    }
    write(&args.draft, &draft.to_bytes(), false)?;
    face.report.result(&DraftObject::of(&args.draft, &draft))?;
    Ok(Exit::Complete)
}

/// Puts a draft into force.
pub fn admit(face: &Face, args: &DraftAdmit) -> Result {
    require("admit the draft", &[(!args.yes, false, "--yes")])?;
    let draft = read(&args.draft)?;
    let passphrase = match &args.passphrase_file {
        Some(_) => Some(passphrase(face, &args.passphrase_file, "the keys")?),
        None => None,
    };
    let (path, mut writer) = face.writer(WriteOptions::default())?;
    let action = format!("admit {}", text::path(&args.draft));
    let failed = |error: &Error| match error {
        Error::Draft(error) => refused("admit", &args.draft, error),
        Error::Govern(GovernError::Overtaken) => CliError::new(format!("cannot {action}"))
            .caused_by(error)
            .exit(Exit::Rollback)
            .hint("make the draft again, from the store as it is now"),
        error => domain::failed(&action, path, error),
    };
    let mut keys = None;
    if let Some(passphrase) = &passphrase {
        let vfs = &**writer.handle().vfs();
        match Held::look(vfs, &draft.domain(), passphrase) {
            Held::Open(held) => keys = Some(held),
            Held::Missing => face
                .report
                .note("there is no key file here: the log is not signed"),
            Held::Closed(error) => return Err(failed(&error.into())),
        }
    }
    let admitted = draftfile::admit(&mut writer, &draft, keys.as_ref());
    let admitted = admitted.map_err(|error| failed(&error))?;
    face.finish(path, writer)?;
    if admitted.already {
        face.report.note("it was in force before");
    }
    face.report.result(&DomainObject::from(&admitted.domain))?;
    Ok(Exit::Complete)
}
