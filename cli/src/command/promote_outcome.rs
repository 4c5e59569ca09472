//! What a promotion did, in words and as an object.

use std::io::{self, Write};
use std::path::Path;

use asl_bootstrap::promote::{Action, InstancePlan, Plan, Progress, Promoted, Retired};
use asl_bootstrap::verify::Report;
use asl_store::SessionId;
use serde::Serialize;

use super::promote_plan::{
    DIGITS, DamageObject, InstanceObject, SHOWN, damaged, log_of, name_of, operation,
};
use crate::error::Exit;
use crate::report::Outcome as Shows;
use crate::root::DOMAINS;
use crate::text;

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
