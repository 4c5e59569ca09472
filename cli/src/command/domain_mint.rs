//! `asl domain mint`: by flags, and where there is somebody to ask, by questions (see the wizard).
//!
//! Crash: see [`asl_bootstrap::mint`]; the recovery phrase is durable, or on paper, before the keys are kept, so a domain that can
//! sign can be recovered. The same command goes on.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use asl_bootstrap::keyfile::key_file_path;
use asl_bootstrap::mint::{self, Begun, Plan, Request};
use asl_bootstrap::{Domain, DomainId, Error, Kind, MintError, Phrase, Policy};
use asl_capture::inventory::SystemPaths;
use asl_store::WriteOptions;
use serde::Serialize;
use zeroize::Zeroizing;

use super::domain::{DomainObject, failed, passphrase};
use super::{domain_phrase, domain_witness, wizard};
use crate::args::{DomainKind, DomainMint};
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, now};
use crate::probe::{self, Allowed, Refusal};
use crate::prompt::Prompt;
use crate::qr::{self, Drawing};
use crate::report::Outcome;
use crate::{secret, text};

/// Years in which a clock can be right, as Unix time in seconds: 2024 to 2099.
const PLAUSIBLE: std::ops::Range<i64> = 1_704_067_200..4_102_444_800;
/// Columns beside a QR code on a screen of 80.
const BESIDE_COLUMNS: usize = 41;

/// Where the recovery phrase goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Into a new file.
    File(PathBuf),
    /// It is on paper, and was asked back.
    Paper,
    /// Nowhere.
    None,
    /// Wherever it went before the mint was interrupted.
    Before,
}

/// What founds the domain.
pub(super) enum Found {
    /// Keys that are still to be drawn, or those of a mint that was interrupted.
    Draw(Request),
    /// Keys that were drawn already, for their phrase was shown.
    Drawn(Box<Plan>),
    /// The keys of a mint that was interrupted.
    Resume,
}

/// Everything that has to be known before anything is written.
pub(super) struct Order {
    pub(super) found: Found,
    pub(super) passphrase: Zeroizing<String>,
    pub(super) recovery: Recovery,
}

/// A domain that was founded.
#[derive(Debug, Serialize)]
struct Minted {
    #[serde(flatten)]
    domain: DomainObject,
    key_file: String,
    recovery: Option<String>,
    #[serde(skip)]
    words: String,
    /// How to go on with it, where that is another command.
    #[serde(skip)]
    promote: Option<String>,
    /// For a person at a terminal.
    #[serde(skip)]
    summary: Option<Summary>,
}

/// What a person sees at the end.
#[derive(Debug)]
struct Summary {
    /// Beside the code, or instead of it.
    lines: Vec<String>,
    /// None where the screen has no room for it.
    qr: Option<Vec<String>>,
}

impl Outcome for Minted {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.summary {
            None => {
                self.domain.show(out)?;
                writeln!(out, "private keys: {} (encrypted)", self.key_file)?;
            }
            Some(Summary { lines, qr: None }) => {
                for line in lines {
                    writeln!(out, "{line}")?;
                }
            }
            Some(Summary {
                lines,
                qr: Some(qr),
            }) => {
                // A row of margin above the first line; there are fewer lines than rows.
                let lines = std::iter::once("").chain(lines.iter().map(String::as_str));
                for (code, line) in qr.iter().zip(lines.chain(std::iter::repeat(""))) {
                    writeln!(out, "{}", format!("{code} {line}").trim_end())?;
                }
            }
        }
        writeln!(out, "recovery phrase: {}", self.words)?;
        match &self.promote {
            Some(command) => writeln!(out, "later, on your own machine: {command}"),
            None => Ok(()),
        }
    }
}

impl Summary {
    fn new(domain: &Domain, place: &str, rows: usize) -> Result<Self> {
        let drawing = Drawing::of_locale();
        let qr = qr::of_domain(&domain.id(), drawing)?;
        // Four lines follow it.
        let fits = qr.len() + 4 <= rows;
        let dam = &domain.chain.head().dam;
        let grouped = domain.id().grouped();
        let groups: Vec<&str> = grouped.split(' ').collect();
        let a_line = if fits { 4 } else { 8 };
        let id = groups
            .chunks(a_line)
            .map(|groups| format!("  {}", groups.join(" ")));
        let mut lines = vec!["The domain is founded. Its id:".to_owned(), String::new()];
        lines.extend(id);
        lines.push(String::new());
        let name = format!("name  {}", text::visible(&dam.label));
        lines.push(if fits {
            text::fit(&name, BESIDE_COLUMNS)
        } else {
            name
        });
        lines.push(format!("kind  {}, version {}", dam.kind, dam.version));
        lines.push("keys  meta/keys/priv, encrypted".to_owned());
        lines.push(String::new());
        if fits {
            lines.push("Scan the id, or copy it to paper: it".to_owned());
            lines.push("tells this domain from every other.".to_owned());
        } else {
            lines.push("Copy the id to paper: it tells this domain from every other.".to_owned());
            lines.push("On a terminal with UTF-8 or more rows, as a code to scan:".to_owned());
            lines.push(format!("    asl domain show --qr {place}"));
        }
        let qr = fits.then_some(qr);
        Ok(Self { lines, qr })
    }
}

/// A domain that was founded just now.
pub(super) struct Now {
    /// What there is to tell.
    minted: Minted,
    /// Its id.
    pub(super) domain: DomainId,
    /// What unlocks its keys.
    pub(super) passphrase: Zeroizing<String>,
}

impl Now {
    /// Tells a person at a terminal; there is more to come, which the command that founded it does by itself.
    pub(super) fn tell(mut self, face: &Face) -> Result<Self> {
        self.minted.promote = None;
        face.report.result(&self.minted)?;
        Ok(self)
    }
}

/// Founds the domain, or goes on with one whose mint was interrupted, and tells about it.
pub fn run(face: &Face, args: &DomainMint) -> Result {
    let now = found(face, args)?;
    face.report.result(&now.minted)?;
    Ok(Exit::Complete)
}

/// Founds the domain, or goes on with one whose mint was interrupted.
pub(super) fn found(face: &Face, args: &DomainMint) -> Result<Now> {
    let prompt = Prompt::open(face);
    if prompt.is_none() {
        complete(args)?;
    }
    if args.kind.is_some_and(|kind| kind != DomainKind::Personal) {
        return Err(
            CliError::usage("several people's domain cannot be minted by one of them").hint(
                "each of its roots signs with a key of their own; see: asl domain draft --help",
            ),
        );
    }
    secret::protect(&face.report);
    check_place(face, args)?;
    let order = match &prompt {
        Some(prompt) => wizard::ask(face, args, prompt)?,
        None => by_flags(face, args)?,
    };
    let drawn = match (&order.found, &order.recovery) {
        (Found::Drawn(plan), Recovery::Paper) => Some(plan.domain()),
        _ => None,
    };
    let done = carry_out(face, args, order, prompt.as_ref());
    if let (Err(_), Some(prompt), Some(domain)) = (&done, &prompt, drawn) {
        prompt.say(words_on_paper(face, &domain));
    }
    done
}

/// Refuses places that forget; for a domain, unlike a store, there is room anywhere.
pub(super) fn check_place(face: &Face, args: &DomainMint) -> Result<()> {
    let allowed = Allowed {
        ephemeral: args.ephemeral,
        unmounted: true,
    };
    match probe::survey(&SystemPaths::default(), face.store_path()?, allowed) {
        Ok(_) | Err(Refusal::NoRoom { .. }) => Ok(()),
        Err(refusal) => Err(CliError::from(refusal).instead("no domain can be minted there")),
    }
}

/// What became of the words that somebody just wrote down, after minting failed.
fn words_on_paper(face: &Face, domain: &DomainId) -> &'static str {
    let kept = face
        .store_path()
        .map(|path| path.join(key_file_path(domain)));
    if kept.is_ok_and(|path| path.exists()) {
        "Keep the words that you wrote down: the mint goes on with them."
    } else {
        "Cross out the words that you wrote down: they belong to nothing."
    }
}

/// What the flags say; all of them are there.
fn by_flags(face: &Face, args: &DomainMint) -> Result<Order> {
    let (name, passphrase_file) = complete(args)?;
    let name = wizard::check_name(name).map_err(CliError::usage)?;
    let passphrase = passphrase(passphrase_file)?;
    if let Some(file) = &args.recovery_out {
        domain_phrase::check_place(face, file)?;
    }
    let clock = now();
    if args.time.is_none() && is_absurd(clock) {
        face.report.warn(&format!(
            "the clock says {}, and so will the domain; to say otherwise, add --time",
            text::time(clock)
        ));
    }
    Ok(Order {
        found: Found::Draw(request(
            args,
            &name,
            args.time.map_or(clock, |time| time.unix_ns),
        )?),
        passphrase,
        recovery: match &args.recovery_out {
            Some(file) => Recovery::File(file.clone()),
            None => Recovery::None,
        },
    })
}

pub(super) fn request(args: &DomainMint, name: &str, created_hint: i64) -> Result<Request> {
    Ok(Request {
        label: name.to_owned(),
        policy: Policy::default_of(Kind::Personal),
        witness: domain_witness::members(&args.witnesses, args.witness_threshold)?,
        created_hint,
    })
}

/// Whether a clock cannot be right: before this program was written, or its battery gone.
pub(super) fn is_absurd(unix_ns: i64) -> bool {
    !PLAUSIBLE.contains(&unix_ns.div_euclid(1_000_000_000))
}

fn carry_out(face: &Face, args: &DomainMint, order: Order, prompt: Option<&Prompt>) -> Result<Now> {
    let Order {
        found,
        passphrase,
        recovery,
    } = order;
    let mut random = secret::random(&face.report);
    // The store's own writer draws as well, and would wait in silence.
    asl_bootstrap::Random::fill(&mut random, &mut [0]).map_err(|error| {
        failed(
            "mint a domain",
            Path::new(""),
            &MintError::Random(error).into(),
        )
    })?;
    let (path, mut writer) = face.writer(WriteOptions::default())?;
    let failed = |error: &Error| failed("mint a domain", path, error);
    let begun = mint::begun(&writer).map_err(|error| failed(&error))?;
    let (plan, is_new) = match (begun, found) {
        (Begun::Nothing, Found::Drawn(plan)) => (*plan, true),
        (Begun::Nothing, Found::Draw(request)) => {
            let plan = Plan::draw(&mut random, &request);
            (plan.map_err(|error| failed(&error))?, true)
        }
        (Begun::Nothing, Found::Resume) => {
            return Err(CliError::new("the mint that was to go on is gone").hint("begin it again"));
        }
        // Somebody else began it, after this one had looked.
        (Begun::Unfinished(domain), Found::Drawn(_)) => {
            return Err(failed(&MintError::Unfinished { domain }.into()));
        }
        (Begun::Unfinished(domain), Found::Draw(_) | Found::Resume) => {
            if prompt.is_none() {
                face.report.note(&format!(
                    "going on with domain {domain}, whose mint was interrupted"
                ));
            }
            let plan = Plan::resume(&writer, &domain, &passphrase);
            (plan.map_err(|error| failed(&error))?, false)
        }
    };
    match &args.recovery_out {
        Some(file) if !is_new => {
            let recovers = |phrase: &Phrase| plan.is_recovered_by(phrase);
            domain_phrase::check(file, &plan.domain(), recovers)?;
        }
        _ => {}
    }
    if is_new {
        if let Recovery::File(file) = &recovery {
            let pending = mint::pending(&**writer.handle().vfs());
            let pending = pending.map_err(|error| failed(&error))?;
            domain_phrase::clear_stale(file, |domain| pending.contains(domain))?;
        }
        plan.prepare(&writer).map_err(|error| failed(&error))?;
        if let (Recovery::File(file), Some(phrase)) = (&recovery, plan.phrase()) {
            domain_phrase::write(file, &plan.domain(), &phrase)?;
        }
        plan.keep_keys(&writer, &passphrase)
            .map_err(|error| failed(&error.into()))?;
    }
    let minted = plan.found(&mut writer).map_err(|error| failed(&error))?;
    face.finish(path, writer)?;
    let summary = match prompt {
        Some(prompt) => {
            // Where it will be: the place is that of a root's domains.
            let place = match args.place.as_deref().and_then(Path::parent) {
                Some(root) => format!("--root {}", text::shell_path(root)),
                None => format!("--store {}", text::shell_path(path)),
            };
            Some(Summary::new(&minted.domain, &place, prompt.size().1)?)
        }
        None => None,
    };
    let file = match &recovery {
        Recovery::File(file) => Some(file.to_string_lossy().into_owned()),
        _ => None,
    };
    let minted = Minted {
        domain: DomainObject::from(&minted.domain),
        key_file: key_file_path(&plan.domain()),
        words: match &recovery {
            Recovery::File(file) => {
                format!("{}; copy it to paper, then delete it", text::path(file))
            }
            Recovery::Paper => "on your paper; keep it away from this disk".to_owned(),
            Recovery::None => "none: lost keys are lost for good".to_owned(),
            Recovery::Before => "where it went before the interruption".to_owned(),
        },
        recovery: file,
        promote: Some(format!(
            "asl-promote {} --into ROOT --expect {}",
            text::shell_path(path),
            plan.domain()
        )),
        summary,
    };
    Ok(Now {
        minted,
        domain: plan.domain(),
        passphrase,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_cannot_be_right_are_known() {
        let seconds = |unix: i64| unix * 1_000_000_000;
        for (unix, absurd) in [
            (0, true),
            (-1, true),
            (1_704_067_199, true),
            (1_704_067_200, false),
            (1_795_271_400, false),
            (4_102_444_799, false),
            (4_102_444_800, true),
        ] {
            assert_eq!(is_absurd(seconds(unix)), absurd, "{unix}");
        }
        assert!(is_absurd(i64::MIN) && is_absurd(i64::MAX));
    }
}
