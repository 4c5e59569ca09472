//! `asl-promote status`: what was promoted, when, from which domain, up to where.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use asl_bootstrap::domain::LineageState;
use asl_bootstrap::lineage::{Lineage, Op};
use asl_bootstrap::promote::status;
use asl_bootstrap::{Domain, DomainId, MintError, Trust};
use asl_store::StoreHandle;
use asl_store::vfs::real::RealVfs;
use serde::Serialize;

use super::domain::failed;
use crate::args::PromoteStatus;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::report::{Outcome, filled};
use crate::root::{self, DOMAINS, Root};
use crate::state::State;
use crate::text;

/// What was promoted.
#[derive(Debug, Serialize)]
struct Status {
    lineage: Vec<Link>,
}

/// One promotion.
#[derive(Debug, Serialize)]
struct Link {
    domain: String,
    operation: String,
    parent_domain: String,
    child_domain: String,
    /// What the child is called here, where somebody called it something.
    child_name: Option<String>,
    store_id: String,
    log_position: u64,
    chain_hash: String,
    time: String,
    level: String,
    handed_over: bool,
    signers: Vec<String>,
    artifacts: u64,
    bytes: u64,
    missing: u64,
    captures: Vec<String>,
    record: u64,
    lineage: String,
}

impl Link {
    fn new(of: &Domain, state: &LineageState, link: &Lineage) -> Self {
        let child_name = name_of(&link.child);
        Self {
            domain: of.id().to_string(),
            operation: link.op.to_string(),
            parent_domain: link.parent.to_string(),
            child_domain: link.child.to_string(),
            child_name,
            store_id: link.store.to_string(),
            log_position: link.position.0,
            chain_hash: link.chain.to_string(),
            time: text::time(state.time_unix_ns),
            level: link.level.to_string(),
            handed_over: state.handed_over,
            signers: state.signers.iter().map(ToString::to_string).collect(),
            artifacts: link.artifacts,
            bytes: link.bytes,
            missing: link.missing,
            captures: link.sessions.iter().map(ToString::to_string).collect(),
            record: state.record.0,
            lineage: state.key.to_string(),
        }
    }
}

/// What this machine calls a domain.
fn name_of(domain: &DomainId) -> Option<String> {
    let state = State::existing().ok().flatten()?;
    Trust::new(&state.vfs).get(domain).ok().flatten()?.name
}

impl Outcome for Status {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.lineage.is_empty() {
            return writeln!(out, "nothing was promoted here yet");
        }
        for (nth, link) in self.lineage.iter().enumerate() {
            if nth > 0 {
                writeln!(out)?;
            }
            let (what, whose) = match link.operation.as_str() {
                "retire" => ("given up for", &link.parent_domain),
                "fork" => ("second history of", &link.child_domain),
                _ if link.handed_over => ("handed over by", &link.child_domain),
                _ => ("adopted from", &link.child_domain),
            };
            writeln!(out, "{}  {what}", link.time)?;
            writeln!(out, "  {whose}")?;
            if let Some(name) = &link.child_name {
                writeln!(out, "  called {}", text::fit(&text::visible(name), 71))?;
            }
            let records = text::count(link.log_position, "record");
            let mut lines = vec![
                ("  into", link.domain.clone()),
                ("  store", format!("{}, {records}", link.store_id)),
                (
                    "  has",
                    format!(
                        "{}, {}, {}",
                        text::count(link.captures.len() as u64, "capture"),
                        text::count(link.artifacts, "artifact"),
                        text::size(link.bytes)
                    ),
                ),
            ];
            if link.level == "bytes" {
                lines.push(("  level", "bytes only".to_owned()));
            }
            if link.missing > 0 {
                lines.push(("  MISSING", text::count(link.missing, "artifact")));
            }
            if link.operation == "retire" {
                lines.truncate(2);
                lines.remove(0);
            }
            filled(out, &lines)?;
        }
        Ok(())
    }
}

/// An option of a promotion stands beside `status`.
pub fn not_with(option: &str, args: &PromoteStatus) -> CliError {
    CliError::usage(format!(
        "{option} belongs to a promotion; status only looks at one"
    ))
    .hint(format!(
        "type: asl-promote status {}",
        text::shell_path(&args.into)
    ))
}

/// Lists the links of every domain below a root, or of one store.
pub fn run(face: &Face, args: &PromoteStatus) -> Result {
    let mut stores: Vec<(PathBuf, StoreHandle)> = Vec::new();
    if args.into.join(DOMAINS).is_dir() {
        for member in Root::read(&args.into)?.members {
            match root::open(&member) {
                Ok(store) => stores.push((member.path, store)),
                Err(error) => face.report.warn(&error.in_one_line()),
            }
        }
    } else {
        stores.push((args.into.clone(), open(&args.into)?));
    }
    let mut lineage = Vec::new();
    for (path, store) in &stores {
        let read = |of: &StoreHandle| {
            let domain = Domain::read(of);
            domain.map_err(|error| failed("read the store's domain", path, &error))
        };
        let (mut has_domain, mut told) = (false, HashSet::new());
        // What one log says another one may say again.
        for instance in store.members() {
            let Some(domain) = read(&instance)? else {
                continue;
            };
            has_domain = true;
            let links = status(&domain).into_iter();
            let new = links.filter(|(state, _)| told.insert(state.key));
            lineage.extend(new.map(|(state, link)| Link::new(&domain, state, link)));
        }
        if !has_domain {
            let error = MintError::NoDomain.into();
            return Err(failed("read the store's domain", path, &error));
        }
    }
    // A child's own word that it was given up belongs to its own store.
    lineage.sort_by_key(|link| (link.operation == Op::Retire.to_string(), link.time.clone()));
    face.report.result(&Status { lineage })?;
    Ok(Exit::Complete)
}

fn open(path: &Path) -> Result<StoreHandle> {
    let vfs =
        RealVfs::open(path).map_err(|error| CliError::of_io("open the store at", path, &error))?;
    StoreHandle::open(Arc::new(vfs)).map_err(|error| {
        CliError::of_store(
            &format!("open the store {}", text::path(path)),
            path,
            &error,
        )
    })
}
