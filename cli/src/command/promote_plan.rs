//! What a promotion would do, did, or refused to do, in words and as objects.

use std::io::{self, Write};
use std::path::Path;

use asl_bootstrap::lineage::Op;
use asl_bootstrap::promote::{
    Action, DamagedBlock, InstancePlan, Plan, Progress, PromoteError, Promoted, Retired, Source,
};
use asl_bootstrap::verify::{Report, VerifyError};
use asl_bootstrap::{Compared, Domain, Error, Trust};
use asl_capture::session;
use asl_store::{SessionId, StoreHandle};
use serde::Serialize;

use super::domain::{exit_of_class, failed};
use crate::args::Promote;
use crate::error::{CliError, Exit};
use crate::face::Face;
use crate::report::{Outcome as Shows, facts};
use crate::root::DOMAINS;
use crate::state::State;
use crate::text;

/// Captures and damaged blocks that people are shown.
const SHOWN: usize = 12;
/// Things wrong with a log that people are shown.
const FOUND_SHOWN: usize = 5;
/// Digits of a capture's id that people are shown: what commands take.
const DIGITS: usize = 8;

/// The two stores, for what is said of them.
pub(super) struct Sides<'s> {
    pub(super) rescue: &'s Path,
    pub(super) target: &'s Path,
}

impl Sides<'_> {
    /// A refusal as the face tells it: what is wrong, with which store, and what to do.
    pub(super) fn refused(&self, face: &Face, error: &Error) -> CliError {
        let rescue = text::shell_path(self.rescue);
        let target = text::shell_path(self.target);
        let action = "promote the rescue store";
        let Error::Promote(refused) = error else {
            return match error {
                // The id that the store has is not told: who asks for the right one would only copy it.
                Error::Verify(VerifyError::OtherDomain { .. }) => CliError::new(
                    "cannot promote the rescue store: it is not of the domain that was named",
                )
                .exit(Exit::Authority)
                .hint("compare the id with your paper; if it is right, this is another store"),
                Error::Refused(_) => failed(action, self.target, error).hint(format!(
                    "keep its bytes only: --level bytes; or change the rule: asl domain policy \
                     --set foreign=semantics --store {target}"
                )),
                _ => failed(action, self.target, error),
            };
        };
        let of = CliError::new(format!("cannot {action}"))
            .caused_by(refused)
            .exit(match (refused.class(), refused) {
                (Some(class), _) => exit_of_class(class),
                (None, PromoteError::NoSession(_)) => Exit::Usage,
                (None, _) => Exit::Failed,
            });
        match refused {
            PromoteError::SourceLog(_) => of.hint(format!("asl store repair --store {rescue}")),
            PromoteError::SourceInstance { .. } => of.hint(format!(
                "see what is wrong with it: asl store verify --store {rescue}"
            )),
            PromoteError::NoDomain => of.hint(format!(
                "if it is yours, found one in it: asl domain mint --store {rescue}"
            )),
            PromoteError::Source { store, found, .. } => {
                let log = format!("{:.DIGITS$}", store.to_string());
                for found in found.iter().take(FOUND_SHOWN) {
                    face.report.warn(&format!(
                        "log {log}, record {}: {}",
                        found.position,
                        super::domain_verify::words_of(found)
                    ));
                }
                of.hint(format!("see all: asl domain verify --store {rescue}"))
            }
            PromoteError::TargetNoDomain => of.hint(format!(
                "found one: asl domain mint --store {target}; or in a new root: --as-new"
            )),
            PromoteError::Target { .. } => {
                of.hint(format!("see: asl domain verify --store {target}"))
            }
            PromoteError::SameDomain(_) => of.hint(format!(
                "two stores of one domain are synced: asl store sync {rescue} --store {target}"
            )),
            PromoteError::Manifest { .. } => of.hint(
                "this copy is older than one that was seen, or was changed; find the newer one",
            ),
            PromoteError::RolledBack { .. } => of.hint(format!(
                "this copy is older than one that was seen, or was changed; find the newer one, \
                 or bring what that has: asl store sync OTHER --store {rescue}"
            )),
            PromoteError::Rebuilt { .. } => of.hint(
                "if you know that it was repaired so (asl store repair --accept-lost-records), \
                 add --accept-rebuilt; if not, look for another copy first",
            ),
            PromoteError::Forked { evidence } => {
                let kept = State::create().and_then(|state| {
                    let kept = Trust::new(&state.vfs).keep(evidence);
                    let kept = kept.map_err(|error| state.failed("keep the evidence", &error))?;
                    Ok(kept.map(|file| state.path.join(file)))
                });
                match kept {
                    Ok(Some(file)) => face
                        .report
                        .note(&format!("both histories are kept in {}", text::path(&file))),
                    Ok(None) => {}
                    Err(error) => face.report.warn(&error.in_one_line()),
                }
                of.hint(
                    "two copies of one store went on apart, or somebody rewrote this one; to bring \
                     it in apart from the other: --fork",
                )
            }
            PromoteError::Damaged { blocks } => {
                for line in damage(&blocks.iter().collect::<Vec<_>>()) {
                    face.report.warn(&line);
                }
                of.hint("bring what is whole: --accept-damaged (exit 3 then)")
            }
            PromoteError::Index(_) => of.hint(format!(
                "make it again from the blocks: asl store repair --rebuild-index --store {rescue}"
            )),
            PromoteError::Incomplete { .. } => {
                of.hint("bring what is whole: --accept-damaged (exit 3 then)")
            }
            PromoteError::Changed(_) => {
                of.hint("stop whatever writes into the rescue store, then repeat the command")
            }
            PromoteError::TargetChanged | PromoteError::Stopped => of.hint("repeat the command"),
            PromoteError::TooManySessions { .. } => {
                of.hint("name some of them: --captures LIST; then the others")
            }
            PromoteError::NoSession(_) => {
                of.hint(format!("list them: asl captures --store {rescue}"))
            }
            PromoteError::Roots { .. } | PromoteError::ChildRoots { .. } => {
                of.hint("several people speak for that domain; one of them alone cannot promote")
            }
        }
    }
}

/// Damaged blocks and what they cost, a line each.
fn damage(blocks: &[&DamagedBlock]) -> Vec<String> {
    let mut lines: Vec<String> = (blocks.iter().take(SHOWN))
        .map(|block| {
            let hit: Vec<String> = (block.captures.iter())
                .map(|session| format!("{:.DIGITS$}", session.to_string()))
                .collect();
            let hit = match hit.len() {
                0 => String::new(),
                1 => format!(": capture {}", hit[0]),
                _ => format!(": captures {}", hit.join(", ")),
            };
            let name = block.path.rsplit('/').next().unwrap_or(&block.path);
            format!("block {name:.16} is damaged ({}){hit}", block.what)
        })
        .collect();
    if let Some(more @ 1..) = blocks.len().checked_sub(SHOWN) {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// A damaged block, for scripts.
#[derive(Debug, Serialize)]
struct DamageObject {
    file: String,
    what: String,
    captures: Vec<String>,
}

impl From<&DamagedBlock> for DamageObject {
    fn from(block: &DamagedBlock) -> Self {
        Self {
            file: block.path.clone(),
            what: block.what.clone(),
            captures: block.captures.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A capture that would come.
#[derive(Debug, Serialize)]
struct CaptureObject {
    capture: String,
    /// Its id in the target, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    renamed: Option<String>,
    label: Option<String>,
    size_bytes: u64,
    complete: bool,
    #[serde(skip)]
    started: String,
}

/// An instance of the rescue store.
#[derive(Debug, Serialize)]
struct InstanceObject {
    store_id: String,
    log_position: u64,
    checkpointed_position: u64,
    operation: String,
    /// Whether nothing is, or was, to be done with it.
    already: bool,
    /// What says that it was taken over, once it was.
    lineage: Option<String>,
}

impl InstanceObject {
    fn of_report(report: &Report) -> Self {
        Self {
            store_id: report.domain.store.to_string(),
            log_position: report.domain.tree.size(),
            checkpointed_position: report.domain.covered(),
            operation: Op::Adopt.to_string(),
            already: false,
            lineage: None,
        }
    }

    fn of_plan(plan: &InstancePlan) -> Self {
        Self {
            operation: plan.op.to_string(),
            already: plan.progress.is_done(),
            lineage: match &plan.progress {
                Progress::Promoted { lineage } | Progress::Unfinished { lineage } => {
                    Some(lineage.to_string())
                }
                Progress::Due | Progress::Empty => None,
            },
            ..Self::of_report(&plan.child)
        }
    }

    /// For people, where there are several.
    fn words(&self) -> String {
        format!(
            "{:.DIGITS$}  {}, {} of them under a signed checkpoint",
            self.store_id,
            text::count(self.log_position, "record"),
            self.checkpointed_position
        )
    }
}

/// What would be done.
#[derive(Debug, Serialize)]
pub(super) struct Offer {
    dry_run: bool,
    /// Whether there is nothing to do.
    already: bool,
    child_domain: String,
    parent_domain: String,
    operation: String,
    level: String,
    /// Of the instance at the top of the rescue store.
    store_id: String,
    log_position: u64,
    /// All of them.
    instances: Vec<InstanceObject>,
    captures: Vec<CaptureObject>,
    unfinished: Vec<String>,
    copy_blocks: u64,
    copy_bytes: u64,
    here_blocks: u64,
    here_bytes: u64,
    artifacts: u64,
    bytes: u64,
    available_bytes: Option<u64>,
    damaged: Vec<DamageObject>,
    #[serde(skip)]
    facts: Vec<(&'static str, String)>,
    #[serde(skip)]
    lines_of_damage: Vec<String>,
}

impl Offer {
    pub(super) fn new(
        plan: &Plan,
        source: &Source,
        target: &StoreHandle,
        path: &Path,
        args: &Promote,
    ) -> Self {
        let mut captures = Vec::new();
        for (plan, instance) in plan.instances.iter().zip(source.instances()) {
            let listed = session::list(instance.store()).unwrap_or_default();
            captures.extend(plan.sessions.iter().map(|takeover| {
                let found = listed
                    .iter()
                    .find(|capture| capture.session == takeover.session);
                let renamed = takeover.here != takeover.session;
                CaptureObject {
                    capture: takeover.session.to_string(),
                    renamed: renamed.then(|| takeover.here.to_string()),
                    label: found.and_then(|capture| capture.begun.label.clone()),
                    size_bytes: found.map_or(0, |capture| capture.begun.source.size_bytes),
                    complete: found
                        .and_then(|capture| capture.doc.as_ref())
                        .is_some_and(|doc| doc.complete),
                    started: found.map_or_else(String::new, |capture| {
                        text::time(capture.begun.started_unix_ns)
                    }),
                }
            }));
        }
        let (copy, here) = (plan.to_move(), plan.blocks(Action::Have));
        let first = &plan.instances[0];
        let unfinished = plan.instances.iter().flat_map(|plan| &plan.unfinished);
        let damaged: Vec<&DamagedBlock> = damaged(plan).collect();
        Self {
            dry_run: args.dry_run,
            already: plan.is_done(),
            child_domain: plan.child_domain().to_string(),
            parent_domain: plan.parent.to_string(),
            operation: operation(plan).to_string(),
            level: level_of(args).to_owned(),
            store_id: first.head.store.to_string(),
            log_position: first.head.position.0,
            instances: plan.instances.iter().map(InstanceObject::of_plan).collect(),
            captures,
            unfinished: unfinished.map(ToString::to_string).collect(),
            copy_blocks: copy.blocks,
            copy_bytes: copy.bytes,
            here_blocks: here.blocks,
            here_bytes: here.bytes,
            artifacts: plan.contents.artifacts(),
            bytes: plan.contents.bytes(),
            available_bytes: plan.available_bytes,
            damaged: damaged.iter().copied().map(DamageObject::from).collect(),
            facts: words(plan, target, path, args),
            lines_of_damage: damage(&damaged),
        }
    }

    /// The plan for people, 80 columns wide.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut out = Vec::new();
        // A Vec takes everything.
        let _ = self.show(&mut out);
        let text = String::from_utf8_lossy(&out);
        text.lines().map(str::to_owned).collect()
    }

    /// A plan that leaves something out says so.
    pub(super) fn exit(&self) -> Exit {
        match self.damaged.is_empty() {
            true => Exit::Complete,
            false => Exit::Unreadable,
        }
    }
}

/// The damaged blocks of all instances.
fn damaged(plan: &Plan) -> impl Iterator<Item = &DamagedBlock> {
    plan.instances.iter().flat_map(|plan| &plan.damaged)
}

/// What the rescue store will be: a second history as soon as one of its logs is.
fn operation(plan: &Plan) -> Op {
    let forks = plan.instances.iter().any(|plan| plan.op == Op::Fork);
    if forks { Op::Fork } else { Op::Adopt }
}

fn level_of(args: &Promote) -> &'static str {
    match args.level {
        crate::args::LevelArg::Bytes => "bytes",
        crate::args::LevelArg::Semantics => "semantics",
    }
}

fn name_of(domain: &Domain) -> String {
    let label = &domain.chain.head().dam.label;
    text::fit(&text::visible(label), 40)
}

fn log_of(report: &Report) -> String {
    format!(
        "{}, the first {} under a signed checkpoint",
        text::count(report.domain.tree.size(), "record"),
        report.domain.covered()
    )
}

fn words(
    plan: &Plan,
    target: &StoreHandle,
    path: &Path,
    args: &Promote,
) -> Vec<(&'static str, String)> {
    let child = plan.child();
    let mine = Domain::read(target).ok().flatten();
    let mine = mine.map_or_else(String::new, |domain| format!("\"{}\", ", name_of(&domain)));
    let mut facts = vec![(
        "rescue",
        format!(
            "\"{}\", proven to be the domain that you named",
            name_of(child)
        ),
    )];
    match &plan.instances[..] {
        [only] => facts.push(("log", log_of(&only.child))),
        several => {
            let count = text::count(several.len() as u64, "place");
            facts.push((
                "logs",
                format!("it was written in {count}; each has its log:"),
            ));
            facts.extend(several.iter().map(|plan| {
                let mut words = InstanceObject::of_plan(plan).words();
                match (&plan.progress, plan.op) {
                    (progress, _) if progress.is_done() => words.push_str("; nothing new"),
                    (_, Op::Fork) => words.push_str("; A SECOND HISTORY"),
                    _ => {}
                }
                ("", words)
            }));
        }
    }
    facts.extend([
        (
            "seen",
            match plan.manifest {
                None => "not before, by this machine".to_owned(),
                Some(Compared::Superseded { .. }) => {
                    "before; since then A ROTATION VOIDED what was seen".to_owned()
                }
                Some(_) => "before; it goes on from there".to_owned(),
            },
        ),
        (
            "into",
            format!("{mine}{}", text::fit(&text::path(path), 60)),
        ),
    ]);
    if operation(plan) == Op::Fork {
        facts.push((
            "apart",
            "as a SECOND HISTORY of a store that you have already".to_owned(),
        ));
    }
    let copy = plan.to_move();
    let here = plan.blocks(Action::Have);
    facts.push((
        "copy",
        format!(
            "{}, {}; here already: {}, {}",
            text::count(copy.blocks, "block"),
            text::size(copy.bytes),
            text::count(here.blocks, "block"),
            text::size(here.bytes)
        ),
    ));
    if let Some(free) = plan.available_bytes {
        let tight = if free < copy.bytes {
            ", TOO LITTLE"
        } else {
            ""
        };
        facts.push(("room", format!("{} free there{tight}", text::size(free))));
    }
    facts.push((
        "means",
        match args.level {
            crate::args::LevelArg::Bytes => {
                "its bytes are kept; its captures mean nothing here".to_owned()
            }
            crate::args::LevelArg::Semantics => {
                "its captures become captures of your domain".to_owned()
            }
        },
    ));
    facts
}

impl Shows for Offer {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        facts(out, &self.facts)?;
        writeln!(out, "captures that come: {}", self.captures.len())?;
        for capture in self.captures.iter().take(SHOWN) {
            let label = capture.label.as_deref().unwrap_or("-");
            writeln!(
                out,
                "  {:.DIGITS$}  {:10}  {:>10}  {:20}  {}",
                capture.capture,
                capture.started.get(..10).unwrap_or_default(),
                text::size(capture.size_bytes),
                text::fit(&text::visible(label), 20),
                match capture.complete {
                    true => "every byte was read",
                    false => "not all was readable",
                }
            )?;
        }
        if let Some(more @ 1..) = self.captures.len().checked_sub(SHOWN) {
            writeln!(out, "  and {more} more (all of them: --dry-run --json)")?;
        }
        for session in self.unfinished.iter().take(SHOWN) {
            writeln!(
                out,
                "stays behind: capture {session:.DIGITS$}, not read to its end; its bytes come, by key only"
            )?;
        }
        for line in &self.lines_of_damage {
            writeln!(out, "DAMAGED: {line}")?;
        }
        if self.already {
            writeln!(out, "all of it was promoted before")?;
        }
        Ok(())
    }
}

/// What was done.
#[derive(Debug, Default, Serialize)]
pub(super) struct Outcome {
    /// Whether it is part of the target now.
    promoted: bool,
    /// Whether it was before, and nothing was written.
    already: bool,
    /// Why it ended early.
    stopped: Option<&'static str>,
    child_domain: String,
    parent_domain: Option<String>,
    /// Of the instance at the top of the rescue store.
    store_id: String,
    log_position: u64,
    /// All of them.
    instances: Vec<InstanceObject>,
    operation: Option<String>,
    level: Option<String>,
    /// Whether the rescue domain signed as well.
    handed_over: bool,
    lineage: Option<String>,
    /// Captures that came now, by their ids here.
    captures: Vec<String>,
    copied_blocks: u64,
    copied_bytes: u64,
    shared_bytes: u64,
    /// Artifacts that came one by one.
    repacked: u64,
    here_blocks: u64,
    here_bytes: u64,
    artifacts: u64,
    bytes: u64,
    /// Artifacts that could not be brought.
    missing: u64,
    /// Captures that lack something, and how many artifacts.
    incomplete: Vec<(String, u64)>,
    damaged: Vec<DamageObject>,
    /// Whether the rescue store says that it was given up.
    retired: bool,
    #[serde(skip)]
    words: Vec<String>,
}

impl Outcome {
    fn about(plan: &Plan) -> Self {
        let here = plan.blocks(Action::Have);
        let first = &plan.instances[0];
        Self {
            child_domain: plan.child_domain().to_string(),
            parent_domain: Some(plan.parent.to_string()),
            store_id: first.head.store.to_string(),
            log_position: first.head.position.0,
            instances: plan.instances.iter().map(InstanceObject::of_plan).collect(),
            operation: Some(operation(plan).to_string()),
            artifacts: plan.contents.artifacts(),
            bytes: plan.contents.bytes(),
            here_blocks: here.blocks,
            here_bytes: here.bytes,
            damaged: damaged(plan).map(DamageObject::from).collect(),
            ..Self::default()
        }
    }

    /// Nothing was to be done.
    pub(super) fn of_nothing(plan: &Plan, into: &Path) -> Self {
        let about = Self::about(plan);
        Self {
            promoted: true,
            already: true,
            lineage: about.instances[0].lineage.clone(),
            words: vec![
                "It was promoted before, and has nothing new. Nothing was written.".to_owned(),
                format!("see: asl-promote status {}", text::shell_path(into)),
            ],
            ..about
        }
    }

    /// Somebody stopped it.
    pub(super) fn of_stop(plan: &Plan, into: &Path) -> Self {
        Self {
            stopped: Some("interrupted"),
            words: vec![
                format!(
                    "stopped: what came over so far is kept in {}",
                    text::path(into)
                ),
                "no capture was taken over yet; to go on, repeat the command".to_owned(),
            ],
            ..Self::about(plan)
        }
    }

    /// What would be done with a new domain.
    pub(super) fn of_new(root: &Path, reports: &[Report]) -> Self {
        let instances: Vec<_> = reports.iter().map(InstanceObject::of_report).collect();
        let child = &reports[0].domain;
        let mut words = vec![format!(
            "rescue  \"{}\", proven to be the domain that you named",
            name_of(child)
        )];
        match reports {
            [only] => words.push(format!("log     {}", log_of(only))),
            _ => words.extend(
                instances
                    .iter()
                    .map(|one| format!("log     {}", one.words())),
            ),
        }
        words.push(format!("into    a new domain below {}", text::path(root)));
        Self {
            child_domain: child.id().to_string(),
            store_id: child.store.to_string(),
            log_position: child.tree.size(),
            instances,
            words,
            ..Self::default()
        }
    }

    /// It is done.
    pub(super) fn of(
        plan: &Plan,
        promoted: &Promoted,
        into: &Path,
        retired: Option<Retired>,
    ) -> Self {
        let moved = &promoted.moved;
        let is_due = |plan: &InstancePlan| plan.progress == Progress::Due;
        let due = plan.instances.iter().any(is_due);
        let sessions = plan.instances.iter().flat_map(|plan| &plan.sessions);
        let captures: Vec<String> = sessions.map(|takeover| takeover.here.to_string()).collect();
        let missing = promoted.links.iter().map(|link| link.lineage.missing).sum();
        let handed_over = promoted.links.iter().all(|link| link.handed_over);
        let mut about = Self::about(plan);
        for one in &mut about.instances {
            let mut links = promoted.links.iter();
            let link = links.find(|link| link.lineage.store.to_string() == one.store_id);
            one.lineage = link.map(|link| link.key.to_string());
        }
        let mut words = vec![match (due, captures.len()) {
            (false, _) => "It was promoted before; what was left to do is done.".to_owned(),
            (true, 0) => "Promoted. No capture came with it.".to_owned(),
            (true, count) => format!("Promoted, with {}.", text::count(count as u64, "capture")),
        }];
        words.push(format!(
            "came    {}, {}{}; {} one by one",
            text::count(moved.brought.blocks, "block"),
            text::size(moved.brought.bytes),
            match moved.shared_bytes {
                0 => String::new(),
                shared => format!(" ({} of it shared on disk)", text::size(shared)),
            },
            text::count(moved.repacked, "artifact"),
        ));
        words.push(format!(
            "had     {}, {}",
            text::count(about.here_blocks, "block"),
            text::size(about.here_bytes)
        ));
        if promoted.links.len() > 1 {
            let count = text::count(promoted.links.len() as u64, "place");
            words.push(format!("from    {count} where it was written"));
        }
        words.push(match handed_over {
            true => "signed  by both domains: it was handed over".to_owned(),
            false => "signed  by your domain alone: it was adopted".to_owned(),
        });
        if missing > 0 {
            words.push(format!(
                "MISSING {} that are damaged in the rescue store",
                text::count(missing, "artifact")
            ));
        }
        for (session, lost) in promoted.incomplete.iter().take(SHOWN) {
            words.push(format!(
                "  capture {:.DIGITS$} lacks {}",
                here(plan, session),
                text::count(*lost, "artifact")
            ));
        }
        words.push(format!("see: asl captures {}", place_of(into)));
        Self {
            promoted: true,
            already: !due,
            level: (promoted.links.first()).map(|link| link.lineage.level.to_string()),
            handed_over,
            lineage: promoted.links.first().map(|link| link.key.to_string()),
            captures,
            copied_blocks: moved.brought.blocks,
            copied_bytes: moved.brought.bytes,
            shared_bytes: moved.shared_bytes,
            repacked: moved.repacked,
            missing,
            incomplete: (promoted.incomplete.iter())
                .map(|(session, lost)| (here(plan, session), *lost))
                .collect(),
            retired: retired.is_some(),
            words,
            ..about
        }
    }

    /// What to do with the rescue store now.
    pub(super) fn advice(&self, rescue: &Path) -> Vec<String> {
        let rescue = text::path(rescue);
        match (self.exit(), self.retired) {
            (Exit::Unreadable, _) => vec![format!(
                "keep {rescue}: once more of it can be read, the same command brings it"
            )],
            (_, true) => vec![format!(
                "{rescue} says now that it was given up for your domain; keep it as long as you like"
            )],
            _ => vec![format!(
                "{rescue} was only read, and may be kept as it is; promote it again when it has more"
            )],
        }
    }

    /// Damaged data is not a success.
    pub(super) fn exit(&self) -> Exit {
        match self.missing > 0 || !self.incomplete.is_empty() {
            true => Exit::Unreadable,
            false => Exit::Complete,
        }
    }
}

/// How commands are told of the target.
fn place_of(into: &Path) -> String {
    let flag = match into.join(DOMAINS).is_dir() {
        true => "--root",
        false => "--store",
    };
    format!("{flag} {}", text::shell_path(into))
}

/// A capture's id in the target.
fn here(plan: &Plan, session: &SessionId) -> String {
    let mut sessions = plan.instances.iter().flat_map(|plan| &plan.sessions);
    let found = sessions.find(|takeover| takeover.session == *session);
    found.map_or(*session, |takeover| takeover.here).to_string()
}

impl Shows for Outcome {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in &self.words {
            writeln!(out, "{}", text::visible(line))?;
        }
        Ok(())
    }
}
