//! `asl domain verify`: what is proven, by whom, since when.
//!
//! The judging is [`asl_bootstrap::verify`]'s; here it gets words.

use std::io::{self, Write};
use std::path::Path;

use asl_bootstrap::domain::{Class, Problem};
use asl_bootstrap::policy::Refusal;
use asl_bootstrap::verify::{self, Claim, Found, Report, Signing, Statement, Voucher, Wrong};
use asl_bootstrap::{ReceiptKind, meta};
use serde::Serialize;

use super::domain::{DomainObject, attest_command, done, exit_of_class, failed};
use super::domain_beside::{self, BesideObject};
use super::trust::{self, Pinned};
use crate::args::DomainVerify;
use crate::error::{Exit, Result, causes_of};
use crate::face::Face;
use crate::report::Outcome;
use crate::text;

/// Digits of a key or an artifact that people are shown.
const DIGITS: usize = 16;
/// Digits of a session that people are shown: what commands take.
const SESSION_DIGITS: usize = 8;

/// What was found.
#[derive(Debug, Serialize)]
struct Verified {
    ok: bool,
    exit: u8,
    #[serde(flatten)]
    domain: DomainObject,
    /// What this machine remembers of it; null where it was told nothing.
    trust: Option<Pinned>,
    proven: Vec<StatementObject>,
    findings: Vec<FindingObject>,
    /// The logs of the domain's other hosts.
    beside: Vec<BesideObject>,
    unsigned_captures: Vec<String>,
}

/// One thing that is proven.
#[derive(Debug, Serialize)]
struct StatementObject {
    #[serde(flatten)]
    claim: ClaimObject,
    by: Vec<VoucherObject>,
    since_position: u64,
}

/// What is proven, as scripts see it.
#[derive(Debug, Serialize)]
#[serde(tag = "claim", rename_all = "kebab-case")]
enum ClaimObject {
    Manifest {
        manifest: String,
        version: u64,
        rotation: u64,
        is_rotation: bool,
    },
    Records {
        first: u64,
        end: u64,
        witnesses_needed: usize,
    },
    Session {
        kind: String,
        session: String,
        root: String,
        end_position: u64,
        receipt: String,
        under_checkpoint_of: Option<u64>,
        checkpoint_position: Option<u64>,
        witnesses: Vec<String>,
    },
    Lineage {
        artifact: String,
    },
}

/// Who vouches.
#[derive(Debug, Serialize)]
struct VoucherObject {
    key_id: String,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Seconds since 1970, as a witness says.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_unix: Option<u64>,
    manifest_version: u64,
    log_position: u64,
}

/// What is not as it should be.
#[derive(Debug, Serialize)]
struct FindingObject {
    log_position: u64,
    class: Class,
    exit: u8,
    artifact: Option<String>,
    session: Option<String>,
    what: String,
}

impl From<&Voucher> for VoucherObject {
    fn from(voucher: &Voucher) -> Self {
        let (role, name, time_unix) = match &voucher.signing {
            Signing::Root => ("root", None, None),
            Signing::Principal => ("principal", None, None),
            Signing::Host => ("host", None, None),
            Signing::Checkpoint => ("checkpoint", None, None),
            Signing::Witness { name, time } => ("witness", Some(name.clone()), Some(*time)),
        };
        Self {
            key_id: voucher.key.to_string(),
            role,
            name,
            time_unix,
            manifest_version: voucher.version,
            log_position: voucher.record.0,
        }
    }
}

impl From<&Statement> for StatementObject {
    fn from(statement: &Statement) -> Self {
        let claim = match &statement.claim {
            Claim::Manifest {
                dam,
                version,
                rotation,
                rotates,
            } => ClaimObject::Manifest {
                manifest: dam.to_string(),
                version: *version,
                rotation: *rotation,
                is_rotation: *rotates,
            },
            Claim::Records {
                size,
                witnesses_needed,
            } => ClaimObject::Records {
                first: 0,
                end: *size,
                witnesses_needed: *witnesses_needed,
            },
            Claim::Session {
                kind,
                session,
                root,
                end,
                receipt,
                under,
            } => ClaimObject::Session {
                kind: kind.to_string(),
                session: session.to_string(),
                root: root.to_string(),
                end_position: end.0,
                receipt: receipt.to_string(),
                under_checkpoint_of: under.as_ref().map(|under| under.size),
                checkpoint_position: under.as_ref().map(|under| under.record.0),
                witnesses: under
                    .as_ref()
                    .map_or(Vec::new(), |under| under.witnesses.clone()),
            },
            Claim::Lineage { artifact, .. } => ClaimObject::Lineage {
                artifact: artifact.to_string(),
            },
        };
        Self {
            claim,
            by: statement.vouchers.iter().map(VoucherObject::from).collect(),
            since_position: statement.since.0,
        }
    }
}

/// What is wrong, in words.
pub(super) fn words_of(found: &Found) -> String {
    FindingObject::from(found).what
}

impl From<&Found> for FindingObject {
    fn from(found: &Found) -> Self {
        let (mut artifact, mut about) = (None, None);
        let what = match &found.wrong {
            Wrong::Record(finding) => {
                artifact = Some(finding.artifact.to_string());
                causes_of(&finding.problem).join(": ")
            }
            Wrong::Fork(fork) => {
                artifact = Some(fork.theirs.to_string());
                format!(
                    "the manifest {} stands against it, and only one can be meant",
                    fork.ours
                )
            }
            Wrong::Blind => {
                "what this record names is not known, and may revoke any key".to_owned()
            }
            Wrong::Unsigned {
                kind,
                session,
                refusal,
            } => {
                about = Some(session.to_string());
                let words = format!("nobody signed the receipt of this {kind}");
                match refusal {
                    Some(refusal) => format!("{words}: {refusal}"),
                    None => words,
                }
            }
            Wrong::NoCheckpoint {
                session,
                count,
                refusal,
                ..
            } => {
                about = session.map(|session| session.to_string());
                match count {
                    1 => refusal.to_string(),
                    count => format!("{refusal}; {count} have none"),
                }
            }
        };
        Self {
            log_position: found.position.0,
            class: found.class,
            exit: exit_of_class(found.class).code(),
            artifact,
            session: about,
            what,
        }
    }
}

impl VoucherObject {
    /// `root 0123456789abcdef of manifest 0`, at most 80 columns with its indent.
    fn words(&self) -> String {
        let Self {
            key_id,
            role,
            name,
            time_unix,
            manifest_version,
            log_position,
        } = self;
        match (name, time_unix) {
            (Some(name), Some(time)) => {
                let time = i64::try_from(*time).unwrap_or(i64::MAX);
                let time = text::time(time.saturating_mul(1_000_000_000));
                let name = text::visible(name).into_owned();
                format!(
                    "witness {}, record {log_position}, {time}",
                    text::fit(&name, 28)
                )
            }
            _ => {
                let role = match *role {
                    "checkpoint" => "checkpoint key",
                    "host" => "host key",
                    role => role,
                };
                format!("{role} {key_id:.DIGITS$} of manifest {manifest_version}")
            }
        }
    }
}

impl StatementObject {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let what = match &self.claim {
            ClaimObject::Manifest {
                version,
                is_rotation,
                manifest,
                ..
            } => {
                let what = match (version, is_rotation) {
                    (0, _) => "founds the domain",
                    (_, true) => "rotates to new roots",
                    (_, false) => "updates the one before",
                };
                format!("manifest {version} ({manifest:.DIGITS$}) {what}")
            }
            ClaimObject::Records { end, .. } => match end {
                0 | 1 => "record 0 is as it was signed".to_owned(),
                end => format!("records 0 to {} are as they were signed", end - 1),
            },
            ClaimObject::Session {
                kind,
                session,
                root,
                end_position,
                ..
            } => format!(
                "{kind} {session:.SESSION_DIGITS$} ended at record {end_position}, root \
                 {root:.DIGITS$}"
            ),
            ClaimObject::Lineage { artifact } => {
                format!("a link to another domain was signed ({artifact:.DIGITS$})")
            }
        };
        writeln!(out, "{:>8}  {what}", self.since_position)?;
        for voucher in &self.by {
            writeln!(out, "{:>8}  by {}", "", voucher.words())?;
        }
        match &self.claim {
            ClaimObject::Records {
                witnesses_needed: need @ 1..,
                ..
            } => {
                let have = self.by.iter().filter(|by| by.role == "witness").count();
                writeln!(out, "{:>8}  cosigned by {have}, {need} needed", "")
            }
            ClaimObject::Session {
                under_checkpoint_of: Some(size),
                witnesses,
                ..
            } => {
                let witnesses = match witnesses.len() {
                    0 => String::new(),
                    1 => ", cosigned by 1 witness".to_owned(),
                    count => format!(", cosigned by {count} witnesses"),
                };
                writeln!(
                    out,
                    "{:>8}  under the checkpoint of {}{witnesses}",
                    "",
                    text::count(*size, "record")
                )
            }
            ClaimObject::Session { .. } => {
                writeln!(out, "{:>8}  under no checkpoint yet", "")
            }
            _ => Ok(()),
        }
    }
}

impl Outcome for Verified {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        self.domain.show(out)?;
        if let Some(pinned) = &self.trust {
            pinned.show(out)?;
        }
        writeln!(out, "\nproven, since record")?;
        // A smaller checkpoint says nothing that the largest does not.
        let size = |statement: &StatementObject| match statement.claim {
            ClaimObject::Records { end, .. } => Some(end),
            _ => None,
        };
        let largest = self.proven.iter().filter_map(size).max();
        let mut smaller = 0;
        for statement in &self.proven {
            if size(statement).is_some_and(|size| Some(size) < largest) {
                smaller += 1;
                continue;
            }
            statement.show(out)?;
        }
        if smaller > 0 {
            let checkpoints = text::count(smaller, "smaller checkpoint");
            writeln!(out, "{:>8}  and {checkpoints} of the same log", "")?;
        }
        if !self.findings.is_empty() {
            writeln!(out, "\nnot as it should be, at record")?;
        }
        for finding in &self.findings {
            let FindingObject {
                log_position,
                class,
                artifact,
                session,
                what,
                ..
            } = finding;
            let class = match class {
                Class::Note => "note",
                Class::Policy => "POLICY",
                Class::Authority => "AUTHORITY",
                Class::Fork => "ROLLBACK OR FORK",
                Class::Integrity => "INTEGRITY",
            };
            let about = match (artifact, session) {
                (Some(artifact), _) => format!(", artifact {artifact:.DIGITS$}"),
                (None, Some(session)) => format!(", capture {session:.SESSION_DIGITS$}"),
                (None, None) => String::new(),
            };
            writeln!(out, "{log_position:>8}  {class}{about}")?;
            for line in crate::wrap::wrap(&text::visible(what), 70).lines() {
                writeln!(out, "{:>8}  {}", "", line.trim_start())?;
            }
        }
        if !self.beside.is_empty() {
            writeln!(out, "\nbeside it, the logs of other hosts")?;
        }
        for other in &self.beside {
            other.show(out)?;
        }
        writeln!(out)?;
        if self.trust.as_ref().is_some_and(|pinned| !pinned.is_ok()) {
            writeln!(out, "NOT the newest that was seen of this domain")?;
        }
        let others = self.beside.iter().all(|other| other.class().is_none());
        let counts = others && self.findings.iter().all(|found| found.class == Class::Note);
        match (counts, self.findings.len()) {
            (true, 0) => writeln!(out, "everything that was signed counts"),
            (true, _) => writeln!(out, "nothing counts that should not"),
            (false, _) => writeln!(out, "NOT everything counts"),
        }
    }
}

/// Judges everything, and says what is proven.
pub fn run(face: &Face, args: &DomainVerify) -> Result {
    let (path, store) = face.reader()?;
    let mut finished = done(path, &store)?;
    domain_beside::leave_to_others(&store, &mut finished)
        .map_err(|error| failed("verify the store's domain", path, &error))?;
    let report = verify::verify(&store, &finished, args.expect.as_ref())
        .map_err(|error| failed("verify the store's domain", path, &error))?;
    let differences = meta::compare(&**store.vfs(), &store, &report.domain, None)
        .map_err(|error| failed("compare meta/ with the log", path, &error))?;
    for difference in &differences {
        if difference.found == meta::Found::Foreign {
            face.report.warn(&format!(
                "{} is not as the log says; nothing reads it, and the next command that writes makes \
                 it again",
                difference.path
            ));
        }
    }
    let trust = trust::compare(face, path, &store, &report.domain)?;
    let is_seen = trust.as_ref().is_none_or(Pinned::is_ok);
    // What nobody with the authority wrote must not become what is expected of the next copy.
    let counts = report.class().is_none_or(|class| class <= Class::Policy);
    if let (true, true, Some(pinned)) = (is_seen, counts, &trust) {
        trust::move_on(face, &store, &report.domain, pinned);
    }
    let beside = domain_beside::of(&store, &report.domain);
    let of_fork = beside.iter().any(BesideObject::is_forked);
    let of_others = beside.iter().filter_map(BesideObject::class).max();
    let worst = report.class().max(of_others);
    let exit = match worst.map_or(Exit::Complete, exit_of_class) {
        exit if is_seen || exit == Exit::Integrity => exit,
        _ => Exit::Rollback,
    };
    let unsigned = report.found.iter().filter_map(|found| match &found.wrong {
        Wrong::Unsigned {
            kind: ReceiptKind::Capture,
            session,
            ..
        } => Some(session.to_string()),
        _ => None,
    });
    face.report.result(&Verified {
        ok: report.is_ok() && is_seen && of_others.is_none(),
        exit: exit.code(),
        domain: DomainObject::from(&report.domain),
        trust,
        proven: report.proven.iter().map(StatementObject::from).collect(),
        findings: report.found.iter().map(FindingObject::from).collect(),
        beside,
        unsigned_captures: unsigned.collect(),
    })?;
    if let (true, Some(words)) = (face.report.is_human(), next(path, &report)) {
        face.report.note(&words);
    }
    if of_fork {
        face.report.note(
            "the domain was changed on two machines at once: decide which one is right, and there: \
             asl domain rotate --help. Hosts that the other one let in ask again.",
        );
    }
    Ok(exit)
}

/// What to do next, by the worst that was found.
fn next(path: &Path, report: &Report) -> Option<String> {
    let place = text::shell_path(path);
    let worst = report.found.iter().max_by_key(|found| found.class)?;
    let attest = || format!("to sign: {}", attest_command(path));
    Some(match (&worst.wrong, worst.class) {
        (Wrong::Unsigned { .. } | Wrong::NoCheckpoint { .. }, _) => attest(),
        (Wrong::Record(finding), _) if is_unwitnessed(&finding.problem) => {
            format!("to ask a witness: asl domain witness request -o FILE --store {place}")
        }
        // Somebody revoked it on purpose.
        (Wrong::Record(finding), _) if is_revoked(&finding.problem) => attest(),
        (_, Class::Integrity) => {
            format!("to see what is damaged: asl store verify --store {place}")
        }
        (_, Class::Fork | Class::Authority) => {
            "hint: change nothing in this store, and compare it with another copy".to_owned()
        }
        (_, Class::Policy | Class::Note) => return None,
    })
}

fn is_revoked(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::Refused(Refusal::Revoked { .. } | Refusal::RevokedUncovered { .. })
    )
}

fn is_unwitnessed(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::Refused(Refusal::NotWitnessed { .. } | Refusal::NoWitnesses)
    )
}
