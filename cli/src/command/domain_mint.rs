//! `asl domain mint`, by flags alone.
//!
//! Crash: see [`asl_bootstrap::mint`]; the recovery phrase is durable before the keys are kept, so a domain that can sign can be
//! recovered. The same command goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use asl_bootstrap::keyfile::key_file_path;
use asl_bootstrap::mint::{self, Begun, Plan, Request};
use asl_bootstrap::{DomainId, Error, Kind, Phrase, Policy};
use asl_capture::inventory::SystemPaths;
use asl_store::{StoreWriter, WriteOptions};
use serde::Serialize;
use zeroize::Zeroizing;

use super::domain::{DomainObject, failed, passphrase};
use crate::args::{DomainKind, DomainMint};
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, now};
use crate::probe::{self, Allowed};
use crate::report::Outcome;
use crate::text;

/// A domain that was founded.
#[derive(Debug, Serialize)]
struct Minted {
    #[serde(flatten)]
    domain: DomainObject,
    key_file: String,
    recovery: Option<String>,
}

impl Outcome for Minted {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        self.domain.show(out)?;
        writeln!(out, "private keys: {} (encrypted)", self.key_file)?;
        match &self.recovery {
            Some(file) => {
                let file = text::visible(file);
                writeln!(
                    out,
                    "recovery phrase: {file}; copy it to paper, then delete it"
                )
            }
            None => writeln!(out, "no recovery phrase: lost keys are lost for good"),
        }
    }
}

/// Founds the domain, or goes on with one whose mint was interrupted.
pub fn run(face: &Face, args: &DomainMint) -> Result {
    let (name, passphrase_file) = complete(args)?;
    if args.kind != DomainKind::Personal {
        return Err(CliError::usage("only personal domains can be minted")
            .hint("leave --kind out, or say --kind personal"));
    }
    let allowed = Allowed {
        ephemeral: args.ephemeral,
        unmounted: true,
    };
    probe::survey(&SystemPaths::default(), face.store_path()?, allowed)?;
    let passphrase = passphrase(passphrase_file)?;
    let (path, mut writer) = face.writer(WriteOptions::default())?;
    let failed = |error: &Error| failed("mint a domain", path, error);
    let begun = mint::begun(&writer).map_err(|error| failed(&error))?;
    let plan = match begun {
        Begun::Unfinished(domain) => {
            face.report.note(&format!(
                "going on with domain {domain}, whose mint was interrupted"
            ));
            let plan = Plan::resume(&writer, &domain, &passphrase);
            let plan = plan.map_err(|error| failed(&error))?;
            if let Some(file) = &args.recovery_out {
                check_phrase(file, &plan)?;
            }
            plan
        }
        Begun::Nothing => {
            let request = Request {
                label: name.to_owned(),
                policy: Policy::default_of(Kind::Personal),
                created_hint: now(),
            };
            let random = &mut |bytes: &mut [u8]| getrandom::fill(bytes).map_err(io::Error::from);
            let plan = Plan::draw(random, &request).map_err(|error| failed(&error))?;
            if let Some(file) = &args.recovery_out {
                clear_stale_phrase(file, &writer)?;
            }
            plan.prepare(&writer).map_err(|error| failed(&error))?;
            if let (Some(file), Some(phrase)) = (&args.recovery_out, plan.phrase()) {
                write_phrase(file, &plan.domain(), &phrase)?;
            }
            plan.keep_keys(&writer, &passphrase)
                .map_err(|error| failed(&error.into()))?;
            plan
        }
    };
    let minted = plan.found(&mut writer).map_err(|error| failed(&error))?;
    face.finish(path, writer)?;
    let recovery = args.recovery_out.as_ref();
    face.report.result(&Minted {
        domain: DomainObject::from(&minted.domain),
        key_file: key_file_path(&plan.domain()),
        recovery: recovery.map(|file| file.to_string_lossy().into_owned()),
    })?;
    Ok(Exit::Complete)
}

/// The flags that cannot be done without.
fn complete(args: &DomainMint) -> Result<(&str, &Path)> {
    let no_recovery_choice = args.recovery_out.is_none() && !args.no_recovery;
    let missing: Vec<&str> = [
        (args.name.is_none(), "--name TEXT"),
        (args.passphrase_file.is_none(), "--passphrase-file FILE"),
        (no_recovery_choice, "--recovery-out FILE or --no-recovery"),
        (!args.yes, "--yes"),
    ]
    .into_iter()
    .filter_map(|(missing, flag)| missing.then_some(flag))
    .collect();
    match (&args.name, &args.passphrase_file) {
        (Some(name), Some(file)) if missing.is_empty() => Ok((name, file)),
        _ => {
            let secret = args.passphrase_file.is_none() || no_recovery_choice;
            let exit = if secret { Exit::Input } else { Exit::Usage };
            Err(CliError::new("flags are missing to mint a domain")
                .exit(exit)
                .hint(format!("add {}", missing.join(", "))))
        }
    }
}

const FIRST_LINE: &str = "# recovery phrase of domain ";

fn write_phrase(path: &Path, domain: &DomainId, phrase: &Phrase) -> Result<()> {
    let failed = |error| CliError::of_io("write the recovery phrase to", path, &error);
    let mut content = Zeroizing::new(String::with_capacity(512));
    content.push_str(&format!("{FIRST_LINE}{domain}\n"));
    for (i, word) in phrase.words().enumerate() {
        content.push_str(word);
        content.push(if i % 6 == 5 { '\n' } else { ' ' });
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let parent = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    parent.sync_all().map_err(failed)
}

/// Removes the phrase of a mint that was interrupted before any key was kept: it recovers nothing. Any other file stays.
fn clear_stale_phrase(path: &Path, writer: &StoreWriter) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let written = fs::read_to_string(path).map(Zeroizing::new);
    let domain = written.ok().and_then(|written| {
        let line = written.lines().next()?;
        line.strip_prefix(FIRST_LINE)?.parse::<DomainId>().ok()
    });
    let pending = mint::pending(&**writer.handle().vfs());
    let stale = match (domain, pending) {
        (Some(domain), Ok(pending)) => pending.contains(&domain),
        _ => false,
    };
    if !stale {
        return Err(
            CliError::new(format!("{} exists already", text::path(path)))
                .hint("name a new file: a recovery phrase is never written over anything"),
        );
    }
    let failed = |error| CliError::of_io("remove", path, &error);
    fs::remove_file(path).map_err(failed)
}

/// Makes sure that the file has the phrase of the domain whose mint goes on.
fn check_phrase(path: &Path, plan: &Plan) -> Result<()> {
    let failed = |error| CliError::of_io("read the recovery phrase from", path, &error);
    let content = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let words = content.split_once('\n').map_or("", |(_, words)| words);
    match Phrase::parse(words) {
        Ok(phrase) if plan.is_recovered_by(&phrase) => Ok(()),
        _ => Err(CliError::new(format!(
            "{} does not have the recovery phrase of domain {}",
            text::path(path),
            plan.domain()
        ))
        .exit(Exit::Input)
        .hint("name the file of the interrupted mint, or go on with --no-recovery")),
    }
}
