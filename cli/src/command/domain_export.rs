//! `asl domain export` and `asl domain show --from`: the public part of a domain in a file.
//!
//! Crash: the file is complete and durable under another name before it takes its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use asl_bootstrap::export::{self, EXPORT_LEN_MAX, Export, ExportError};
use asl_bootstrap::{Domain, MintError};
use serde::Serialize;

use super::domain::failed;
use crate::args::DomainExport;
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, outside_store};
use crate::qr::{self, Drawing};
use crate::report::{Outcome, facts};
use crate::text;

/// The public part of a domain.
#[derive(Debug, Serialize)]
struct Public {
    domain_id: String,
    name: String,
    kind: String,
    version: u64,
    rotation: u64,
    manifest: String,
    roots: Vec<String>,
    principals: Vec<(String, String)>,
    revoked: Vec<String>,
    witnesses: Vec<String>,
    store_id: String,
    checkpointed_position: Option<u64>,
    checkpoint_cosigners: usize,
    forks: usize,
    file: String,
    #[serde(skip)]
    grouped: String,
    #[serde(skip)]
    qr: Vec<String>,
}

impl Public {
    fn of(export: &Export, file: &Path) -> Self {
        let head = export.chain.head();
        let dam = &head.dam;
        let checkpoint = export.checkpoint.as_ref();
        let principals = dam.principals.iter();
        let principals = principals.map(|p| (p.key.id().to_string(), p.roles.to_string()));
        let witnesses = dam.witness.members.iter().map(|member| member.name.clone());
        Self {
            domain_id: export.id().to_string(),
            grouped: export.id().grouped(),
            name: dam.label.clone(),
            kind: dam.kind.to_string(),
            version: dam.version,
            rotation: dam.rotation,
            manifest: head.key.to_string(),
            roots: dam.roots.iter().map(|root| root.id().to_string()).collect(),
            principals: principals.collect(),
            revoked: dam.revoked.iter().map(|of| of.key.to_string()).collect(),
            witnesses: witnesses.collect(),
            store_id: export.store.to_string(),
            checkpointed_position: checkpoint.map(|found| found.checkpoint.size),
            checkpoint_cosigners: checkpoint.map_or(0, |found| found.cosigners.len()),
            forks: export.forks().len(),
            file: file.to_string_lossy().into_owned(),
            qr: Vec::new(),
        }
    }
}

impl Outcome for Public {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let (first, second) = self.grouped.split_at(self.grouped.len().min(40));
        let log = match self.checkpointed_position {
            Some(size) => {
                let were = if size == 1 { "was" } else { "were" };
                let signed = format!("{} {were} signed", text::count(size, "record"));
                let have = self.checkpoint_cosigners;
                match self.witnesses.len() {
                    0 => signed,
                    1 => format!("{signed}, and cosigned by {have} of 1 witness"),
                    all => format!("{signed}, and cosigned by {have} of {all} witnesses"),
                }
            }
            None => "no checkpoint by a key that is listed now".to_owned(),
        };
        let mut lines = vec![
            ("domain", first.to_owned()),
            ("", second.to_owned()),
            ("name", text::visible(&self.name).into_owned()),
            ("kind", format!("{}, version {}", self.kind, self.version)),
            ("log", log),
        ];
        for root in &self.roots {
            lines.push(("root", format!("{root:.16}")));
        }
        for (key, roles) in &self.principals {
            lines.push(("key", format!("{key:.16}  {roles}")));
        }
        for key in &self.revoked {
            lines.push(("revoked", format!("{key:.16}")));
        }
        if self.forks > 0 {
            lines.push(("forks", format!("{} not settled", self.forks)));
        }
        lines.push(("file", text::visible(&self.file).into_owned()));
        facts(out, &lines)?;
        self.qr.iter().try_for_each(|line| writeln!(out, "{line}"))
    }
}

fn exit(export: &Export) -> Exit {
    match export.forks().is_empty() {
        true => Exit::Complete,
        false => Exit::Rollback,
    }
}

/// Writes the file.
pub fn run(face: &Face, args: &DomainExport) -> Result {
    outside_store(face.store_path()?, &args.file)?;
    if fs::symlink_metadata(&args.file).is_ok() {
        return Err(
            CliError::new(format!("{} exists already", text::path(&args.file)))
                .hint("name a new file, or remove that one"),
        );
    }
    let (path, store) = face.reader()?;
    let action = "export the domain";
    let domain = Domain::read(&store)
        .and_then(|found| found.ok_or_else(|| MintError::NoDomain.into()))
        .and_then(|domain| match domain.is_blind() {
            true => Err(MintError::Blind.into()),
            false => Ok(domain),
        })
        .map_err(|error| failed(action, path, &error))?;
    let made = export::export(&store, &domain);
    let bytes = made.map_err(|error| failed(action, path, &error))?;
    // What is given away has to be what somebody else will find in it.
    let read = Export::open(&bytes, Some(&domain.id()));
    let read = read.map_err(|error| failed(action, path, &error.into()))?;
    write(&args.file, &bytes).map_err(|error| CliError::of_new_file(&args.file, &error))?;
    face.report.result(&Public::of(&read, &args.file))?;
    Ok(exit(&read))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).open(new)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(new, path));
    if let Err(error) = written {
        let _ = fs::remove_file(new);
        return Err(error);
    }
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads a file, judges it and shows what it says.
pub fn show(face: &Face, path: &Path, qr: bool) -> Result {
    let failed = |error| CliError::of_io("read", path, &error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let mut file = file.take(EXPORT_LEN_MAX as u64 + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    let export = Export::open(&bytes, None).map_err(|error| {
        let exit = match &error {
            ExportError::Manifest { .. }
            | ExportError::Checkpoint(_)
            | ExportError::OtherDomain { .. } => Exit::Authority,
            _ => Exit::Integrity,
        };
        CliError::new(format!("cannot believe {}", text::path(path)))
            .caused_by(&error)
            .exit(exit)
            .hint("get the file again: asl domain export FILE, where the store is")
    })?;
    let mut public = Public::of(&export, path);
    if qr {
        public.qr = qr::of_domain(&export.id(), Drawing::of_locale())?;
    }
    face.report.result(&public)?;
    Ok(exit(&export))
}
