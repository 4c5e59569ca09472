//! `asl domain witness`: questions to witnesses and their answers, through files.
//!
//! Crash: `init` leaves no private key, or all of it; the same command goes on. `sign` remembers before it answers, so asking
//! again gives the answer. `add` leaves no record, and adding again makes it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use asl_bootstrap::dam::{LIST_MAX, Member, Witness, WitnessMode};
use asl_bootstrap::note::{Kind, NOTE_LEN_MAX, NoteKey};
use asl_bootstrap::witness::{
    self, ExchangeError, Home, PUBLIC_PATH, REQUEST_LEN_MAX, WitnessError,
};
use asl_bootstrap::{Domain, Error, KeyFileError, MintError};
use asl_capture::inventory::SystemPaths;
use asl_store::WriteOptions;
use asl_store::vfs::real::RealVfs;
use serde::Serialize;

use super::domain::{failed, passphrase};
use crate::args::{WitnessAdd, WitnessInit, WitnessRequest, WitnessSign};
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, now, outside_store};
use crate::probe::{self, Allowed};
use crate::report::Outcome;
use crate::{secret, text};

/// Longest file with public lines that is read.
const PUBLIC_FILE_MAX: usize = 64 << 10;

/// The witnesses that a domain is to have, from the files with their public lines.
pub(super) fn members(files: &[PathBuf], threshold: Option<u8>) -> Result<Witness> {
    if files.len() > LIST_MAX {
        return Err(CliError::usage(format!(
            "a domain has at most {LIST_MAX} witnesses"
        )));
    }
    let members = files.iter().map(|file| {
        let keys = public_lines(file, Kind::Cosignature)?;
        let [key] = &keys[..] else {
            return Err(not_public(file, "it has more than one line")
                .hint("name one file for each witness"));
        };
        Ok(Member {
            key: key.key(),
            name: key.id().name.clone(),
        })
    });
    let members: Vec<Member> = members.collect::<Result<_>>()?;
    let count = u8::try_from(members.len()).expect("no more than LIST_MAX");
    Ok(match count {
        0 => Witness::NONE,
        _ => Witness {
            mode: match count {
                1 => WitnessMode::Single,
                _ => WitnessMode::Quorum,
            },
            members,
            threshold: threshold.unwrap_or(count / 2 + 1),
        },
    })
}

fn not_public(path: &Path, why: &str) -> CliError {
    CliError::usage(format!("{} is no public line: {why}", text::path(path)))
}

/// The note keys in a file, one a line.
fn public_lines(path: &Path, kind: Kind) -> Result<Vec<NoteKey>> {
    let bytes = read(path, "read the public line from", PUBLIC_FILE_MAX)?;
    let whose = match kind {
        Kind::Cosignature => "it is witness.pub in the directory of the witness",
        Kind::Plain => {
            "where the store is, it is written by: asl domain witness request --log-out FILE --store PATH"
        }
    };
    let refused = |why: &str| not_public(path, why).hint(whose);
    let text = String::from_utf8(bytes).map_err(|_| refused("it is not text"))?;
    let lines = text.lines().map(|line| match line.parse::<NoteKey>() {
        Ok(key) if key.kind() == kind => Ok(key),
        Ok(_) => Err(refused(match kind {
            Kind::Cosignature => "it is of a log, not of a witness",
            Kind::Plain => "it is of a witness, not of a log",
        })),
        Err(error) => Err(refused(&error.to_string())),
    });
    let keys = lines.collect::<Result<Vec<NoteKey>>>()?;
    match keys.is_empty() {
        true => Err(refused("it is empty")),
        false => Ok(keys),
    }
}

/// A file of the user's; longer ones are cut off, and then no longer parse.
fn read(path: &Path, action: &str, max: usize) -> Result<Vec<u8>> {
    let failed = |error| CliError::of_io(action, path, &error);
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut file = file.take(max as u64 + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Writes a file for the user, never into the store.
fn write(face: &Face, path: &Path, bytes: &[u8]) -> Result<()> {
    if let Ok(store) = face.store_path() {
        outside_store(store, path)?;
    }
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| CliError::of_new_file(path, &error))
}

/// A refusal of a witness; `action` completes "cannot …".
fn refused(action: &str, dir: &Path, error: &Error) -> CliError {
    let place = text::shell_path(dir);
    let of = |exit: Exit| {
        CliError::new(format!("cannot {action}"))
            .caused_by(error)
            .exit(exit)
    };
    let evidence = |kept: &Option<String>| match kept {
        Some(file) => format!(
            "two histories of this log were signed; keep both: {}",
            text::shell_path(&dir.join(file))
        ),
        None => "the question may be an old one; ask the log's owner for a new one".to_owned(),
    };
    match error {
        Error::KeyFile(KeyFileError::Exists { .. }) => of(Exit::Failed).hint(format!(
            "there is a witness; its public line is in {}",
            text::shell_path(&dir.join(PUBLIC_PATH))
        )),
        Error::KeyFile(KeyFileError::WrongPassphrase) => of(Exit::Authority)
            .hint("mind the keyboard layout; only the first line of the file counts"),
        Error::KeyFile(KeyFileError::Damaged) => of(Exit::Integrity),
        Error::Note(_) => of(Exit::Usage).hint("give it another name"),
        Error::KeyFile(KeyFileError::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            of(Exit::Failed).hint(format!(
                "make a witness: asl domain witness init {place} --name NAME --passphrase-file FILE"
            ))
        }
        Error::Witness(error) => match error {
            WitnessError::NoState { .. } | WitnessError::Damaged { .. } => of(Exit::Integrity)
                .hint("a witness that forgot signs nothing; make another in a new directory"),
            WitnessError::Forked { evidence: kept, .. }
            | WitnessError::Inconsistent { evidence: kept, .. } => {
                of(Exit::Rollback).hint(evidence(kept))
            }
            WitnessError::Stale { size, cosigned, .. } if size < cosigned => of(Exit::Rollback)
                .hint(format!(
                    "the log is shorter than what was signed ({}): it was rolled back, or the \
                     question is an old one",
                    text::count(*cosigned, "record")
                )),
            WitnessError::Stale { cosigned, .. } => of(Exit::Failed).hint(format!(
                "ask again, from there: asl domain witness request --old {cosigned} -o FILE --store \
                 PATH"
            )),
            WitnessError::UnknownLog { .. } => of(Exit::Authority).hint(
                "compare the domain id with its owner, then trust its public line: --log FILE",
            ),
            WitnessError::OtherWitness { .. }
            | WitnessError::WrongKey
            | WitnessError::Checkpoint(_)
            | WitnessError::NotALog { .. } => of(Exit::Authority),
            _ => of(Exit::Failed),
        },
        _ => of(Exit::Failed),
    }
}

/// A witness that was made.
#[derive(Debug, Serialize)]
struct Made {
    witness: String,
    public_file: String,
}

impl Outcome for Made {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", text::visible(&self.witness))?;
        writeln!(
            out,
            "give this line to whoever wants to be watched: {}",
            text::visible(&self.public_file)
        )
    }
}

/// Makes a witness.
pub fn init(face: &Face, args: &WitnessInit) -> Result {
    let allowed = Allowed {
        ephemeral: args.ephemeral,
        unmounted: false,
    };
    let action = format!("make a witness in {}", text::path(&args.dir));
    probe::survey(&SystemPaths::default(), &args.dir, allowed).map_err(|refusal| {
        let error = CliError::new(format!("cannot {action}")).caused_by(&refusal);
        match refusal.hint() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })?;
    let Some(file) = &args.passphrase_file else {
        return Err(CliError::new("a witness needs a passphrase for its key")
            .exit(Exit::Input)
            .hint("add --passphrase-file FILE"));
    };
    secret::protect(&face.report);
    let passphrase = passphrase(file)?;
    let vfs = RealVfs::create(&args.dir)
        .map_err(|error| CliError::of_io("make the directory", &args.dir, &error))?;
    let mut random = secret::random(&face.report);
    let key = Home::create(&vfs, &args.name, &mut random, &passphrase)
        .map_err(|error| refused(&action, &args.dir, &error))?;
    let public = args.dir.join(PUBLIC_PATH);
    face.report.result(&Made {
        witness: key.to_string(),
        public_file: public.to_string_lossy().into_owned(),
    })?;
    Ok(Exit::Complete)
}

/// A question.
#[derive(Debug, Serialize)]
struct Question {
    domain_id: String,
    witness: String,
    old: u64,
    size: u64,
    file: Option<String>,
    question: String,
}

impl Outcome for Question {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.file {
            None => write!(out, "{}", self.question),
            Some(file) => writeln!(
                out,
                "question to witness {} about {}, of which it knows {}: {}",
                text::visible(&self.witness),
                text::count(self.size, "record"),
                self.old,
                text::visible(file)
            ),
        }
    }
}

/// Writes the question about the newest checkpoint.
pub fn request(face: &Face, args: &WitnessRequest) -> Result {
    let (path, store) = face.reader()?;
    let action = "ask a witness";
    let failed = |error: &Error| failed(action, path, error);
    let domain = Domain::read(&store)
        .and_then(|found| found.ok_or_else(|| MintError::NoDomain.into()))
        .map_err(|error| failed(&error))?;
    let newest = domain
        .newest_checkpoint()
        .ok_or_else(|| failed(&ExchangeError::NoCheckpoint.into()))?;
    let in_force = domain.chain.node(&newest.in_force);
    let dam = &in_force.unwrap_or(domain.chain.head()).dam;
    let (name, last) = asked(&domain, &witness::members_of(dam), args)?;
    let old = args.old.unwrap_or(last);
    let request = witness::request(&store, &domain, old).map_err(|error| failed(&error))?;
    if let Some(file) = &args.log_out {
        let keys = witness::checkpoint_keys(dam);
        let lines = keys.iter().map(|key| {
            let line = asl_bootstrap::checkpoint::log_key(&domain.id(), *key);
            format!("{line}\n")
        });
        write(face, file, lines.collect::<String>().as_bytes())?;
    }
    let question = request.to_string();
    if let Some(file) = &args.output {
        write(face, file, question.as_bytes())?;
    }
    face.report.result(&Question {
        domain_id: domain.id().to_string(),
        witness: name,
        old,
        size: newest.size,
        file: args
            .output
            .as_ref()
            .map(|file| file.to_string_lossy().into_owned()),
        question,
    })?;
    Ok(Exit::Complete)
}

/// Who is asked, and what it cosigned last as far as the log knows.
fn asked(domain: &Domain, members: &[NoteKey], args: &WitnessRequest) -> Result<(String, u64)> {
    let mut names: Vec<&str> = members.iter().map(|key| key.id().name.as_str()).collect();
    names.sort_unstable();
    let found = match (&args.witness, members) {
        (_, []) => {
            return Err(CliError::new("the domain has no witnesses").hint(
                "witnesses are named when a domain is minted (asl domain mint --witness FILE), or by \
                 a rotation",
            ));
        }
        (None, [only]) => Some(only),
        (None, _) => {
            return Err(CliError::usage("the domain has several witnesses")
                .hint(format!("add --witness {}", names.join(" or --witness "))));
        }
        (Some(wanted), _) => members.iter().find(|key| key.id().name == *wanted),
    };
    let Some(key) = found else {
        return Err(CliError::usage("the domain has no witness of that name")
            .hint(format!("add --witness {}", names.join(" or --witness "))));
    };
    let last = witness::last_cosigned(domain, &key.key().id());
    Ok((key.id().name.clone(), last))
}

/// An answer.
#[derive(Debug, Serialize)]
struct Answer {
    witness: String,
    domain_id: String,
    store_id: String,
    size: u64,
    file: Option<String>,
    answer: String,
}

impl Outcome for Answer {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.file {
            None => write!(out, "{}", self.answer),
            Some(file) => {
                let (domain, file) = (&self.domain_id, text::visible(file));
                writeln!(
                    out,
                    "cosigned {} of domain",
                    text::count(self.size, "record")
                )?;
                writeln!(out, "  {domain}")?;
                writeln!(out, "answer: {file}")
            }
        }
    }
}

/// Answers a question.
pub fn sign(face: &Face, args: &WitnessSign) -> Result {
    let action = format!("answer {}", text::path(&args.question));
    let failed = |error: &Error| refused(&action, &args.dir, error);
    let request = read(&args.question, "read the question", REQUEST_LEN_MAX)?;
    let logs = match &args.log {
        Some(file) => public_lines(file, Kind::Plain)?,
        None => Vec::new(),
    };
    let (origin, size) = witness::origin_of(&request).map_err(|error| failed(&error.into()))?;
    secret::protect(&face.report);
    let file = args.passphrase_file.as_deref();
    let passphrase = secret::passphrase(face, file, "the key of the witness")?;
    let vfs = RealVfs::open(&args.dir)
        .map_err(|error| CliError::of_io("open the witness in", &args.dir, &error))?;
    let mut home = Home::open(&vfs, &passphrase).map_err(|error| failed(&error))?;
    for key in &logs {
        if !home.logs().contains(key) {
            face.report.note(&format!("trusting the log {key}"));
        }
        home.trust(key).map_err(|error| failed(&error))?;
    }
    let time = u64::try_from(now() / 1_000_000_000).unwrap_or(0);
    let line = home
        .cosign(&request, time)
        .map_err(|error| failed(&error.into()))?;
    let answer = line.to_string();
    if let Some(file) = &args.output {
        write(face, file, answer.as_bytes())?;
    }
    face.report.result(&Answer {
        witness: home.key().to_string(),
        domain_id: origin.domain.to_string(),
        store_id: origin.store.to_string(),
        size,
        file: args
            .output
            .as_ref()
            .map(|file| file.to_string_lossy().into_owned()),
        answer,
    })?;
    Ok(Exit::Complete)
}

/// What an answer brought.
#[derive(Debug, Serialize)]
struct Added {
    witnesses: Vec<String>,
    size: u64,
    note: String,
    log_position: Option<u64>,
}

impl Outcome for Added {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let names = text::visible(&self.witnesses.join(", ")).into_owned();
        match self.log_position {
            Some(position) => writeln!(
                out,
                "{} cosigned by {names}, record {position}",
                match self.size {
                    1 => "1 record is".to_owned(),
                    size => format!("{size} records are"),
                }
            ),
            None => writeln!(
                out,
                "{names} had cosigned {} before",
                match self.size {
                    1 => "this 1 record".to_owned(),
                    size => format!("these {size} records"),
                }
            ),
        }
    }
}

/// Puts an answer into the store.
pub fn add(face: &Face, args: &WitnessAdd) -> Result {
    let answer = read(&args.answer, "read the answer", NOTE_LEN_MAX)?;
    let (path, mut writer) = face.writer(WriteOptions::default())?;
    let failed = |error: &Error| failed("add the answer of a witness", path, error);
    let domain = Domain::read(writer.handle())
        .and_then(|found| found.ok_or_else(|| MintError::NoDomain.into()))
        .map_err(|error| failed(&error))?;
    let recorded =
        witness::record(&mut writer, &domain, &answer).map_err(|error| failed(&error))?;
    face.finish(path, writer)?;
    face.report.result(&Added {
        witnesses: recorded.names,
        size: recorded.size,
        note: recorded.note.to_string(),
        log_position: recorded.record.map(|position| position.0),
    })?;
    Ok(Exit::Complete)
}
