//! What a promotion would do, in words and as objects.

use std::io::{self, Write};
use std::path::Path;

use asl_bootstrap::lineage::Op;
use asl_bootstrap::promote::{Action, DamagedBlock, InstancePlan, Plan, Progress, Source};
use asl_bootstrap::verify::Report;
use asl_bootstrap::{Compared, Domain};
use asl_capture::session;
use asl_store::StoreHandle;
use serde::Serialize;

use crate::args::Promote;
use crate::error::Exit;
use crate::report::{Outcome as Shows, filled, sentence};
use crate::text;

/// Captures and damaged blocks that people are shown.
pub(super) const SHOWN: usize = 12;
/// Columns of a path: as many as a line has beside the name of a fact.
const PLACE_COLUMNS: usize = 72;
/// Digits of a capture's id that people are shown: what commands take.
pub(super) const DIGITS: usize = 8;

/// Damaged blocks and what they cost, a line each.
pub(super) fn damage(blocks: &[&DamagedBlock]) -> Vec<String> {
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
pub(super) struct DamageObject {
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
pub(super) struct InstanceObject {
    pub(super) store_id: String,
    log_position: u64,
    checkpointed_position: u64,
    operation: String,
    /// Whether nothing is, or was, to be done with it.
    already: bool,
    /// What says that it was taken over, once it was.
    pub(super) lineage: Option<String>,
}

impl InstanceObject {
    pub(super) fn of_report(report: &Report) -> Self {
        Self {
            store_id: report.domain.store.to_string(),
            log_position: report.domain.tree.size(),
            checkpointed_position: report.domain.covered(),
            operation: Op::Adopt.to_string(),
            already: false,
            lineage: None,
        }
    }

    pub(super) fn of_plan(plan: &InstancePlan) -> Self {
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
    pub(super) fn words(&self) -> String {
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
    /// Null where it is still to be founded.
    parent_domain: Option<String>,
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
    pub(super) fn new(plan: &Plan, source: &Source, into: String, args: &Promote) -> Self {
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
            parent_domain: plan.parent.map(|parent| parent.to_string()),
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
            facts: words(plan, into, args),
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
pub(super) fn damaged(plan: &Plan) -> impl Iterator<Item = &DamagedBlock> {
    plan.instances.iter().flat_map(|plan| &plan.damaged)
}

/// What the rescue store will be: a second history as soon as one of its logs is.
pub(super) fn operation(plan: &Plan) -> Op {
    let forks = plan.instances.iter().any(|plan| plan.op == Op::Fork);
    if forks { Op::Fork } else { Op::Adopt }
}

fn level_of(args: &Promote) -> &'static str {
    match args.level {
        crate::args::LevelArg::Bytes => "bytes",
        crate::args::LevelArg::Semantics => "semantics",
    }
}

pub(super) fn name_of(domain: &Domain) -> String {
    let label = &domain.chain.head().dam.label;
    text::fit(&text::visible(label), 40)
}

pub(super) fn log_of(report: &Report) -> String {
    format!(
        "{}, the first {} under a signed checkpoint",
        text::count(report.domain.tree.size(), "record"),
        report.domain.covered()
    )
}

/// A domain's store as the plan names it.
pub(super) fn place_of(target: &StoreHandle, path: &Path) -> String {
    let domain = Domain::read(target).ok().flatten();
    let name = domain.map_or_else(String::new, |domain| format!("\"{}\", ", name_of(&domain)));
    format!("{name}{}", text::fit(&text::path(path), PLACE_COLUMNS))
}

fn words(plan: &Plan, into: String, args: &Promote) -> Vec<(&'static str, String)> {
    let child = plan.child();
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
        ("into", into),
    ]);
    facts.extend(plan.parent.map(|parent| ("", parent.to_string())));
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
        filled(out, &self.facts)?;
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
            let words = format!(
                "stays behind: capture {session:.DIGITS$}, not read to its end; its bytes come, by \
                 key only"
            );
            sentence(out, &words)?;
        }
        if let Some(more @ 1..) = self.unfinished.len().checked_sub(SHOWN) {
            writeln!(out, "  and {more} more (all of them: --dry-run --json)")?;
        }
        for line in &self.lines_of_damage {
            sentence(out, &text::visible(&format!("DAMAGED: {line}")))?;
        }
        if self.already {
            writeln!(out, "all of it was promoted before")?;
        }
        Ok(())
    }
}
