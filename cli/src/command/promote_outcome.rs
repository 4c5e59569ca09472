//! What a promotion did, in words and as an object.

use std::io::{self, Write};
use std::path::Path;

use asl_bootstrap::promote::{Action, InstancePlan, Plan, Progress, Promoted, Retired};
use asl_store::SessionId;
use serde::Serialize;

use super::promote_plan::{DIGITS, DamageObject, InstanceObject, SHOWN, damaged, operation};
use crate::error::Exit;
use crate::report::{Outcome as Shows, filled, sentence};
use crate::root::DOMAINS;
use crate::text;

/// Columns of the longest name before what was done.
const NAMES: usize = 6;

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
    words: Vec<(&'static str, String)>,
}

impl Outcome {
    fn about(plan: &Plan) -> Self {
        let here = plan.blocks(Action::Have);
        let first = &plan.instances[0];
        Self {
            child_domain: plan.child_domain().to_string(),
            parent_domain: plan.parent.map(|parent| parent.to_string()),
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
                (
                    "",
                    "It was promoted before, and has nothing new. Nothing was written.".to_owned(),
                ),
                (
                    "",
                    format!("see: asl-promote status {}", text::shell_path(into)),
                ),
            ],
            ..about
        }
    }

    /// Somebody stopped it.
    pub(super) fn of_stop(plan: &Plan, into: &Path) -> Self {
        Self {
            stopped: Some("interrupted"),
            words: vec![
                (
                    "",
                    format!(
                        "stopped: what came over so far is kept in {}",
                        text::path(into)
                    ),
                ),
                (
                    "",
                    "no capture was taken over yet; to go on, repeat the command".to_owned(),
                ),
            ],
            ..Self::about(plan)
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
        let first = match (due, captures.len()) {
            (false, _) => "It was promoted before; what was left to do is done.".to_owned(),
            (true, 0) => "Promoted. No capture came with it.".to_owned(),
            (true, count) => format!("Promoted, with {}.", text::count(count as u64, "capture")),
        };
        let came = format!(
            "{}, {}{}; {} one by one",
            text::count(moved.brought.blocks, "block"),
            text::size(moved.brought.bytes),
            match moved.shared_bytes {
                0 => String::new(),
                shared => format!(" ({} of it shared on disk)", text::size(shared)),
            },
            text::count(moved.repacked, "artifact"),
        );
        let had = text::count(about.here_blocks, "block");
        let had = format!("{had}, {}", text::size(about.here_bytes));
        let mut words = vec![("", first), ("came", came), ("had", had)];
        if promoted.links.len() > 1 {
            let count = text::count(promoted.links.len() as u64, "place");
            words.push(("from", format!("{count} where it was written")));
        }
        let signed = match handed_over {
            true => "by both domains: it was handed over",
            false => "by your domain alone: it was adopted",
        };
        words.push(("signed", signed.to_owned()));
        let incomplete = promoted.incomplete.iter();
        words.extend(lacks(
            missing,
            incomplete.map(|(session, lost)| (here(plan, session), *lost)),
        ));
        words.push(("", format!("see: asl captures {}", place_of(into))));
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
                "{rescue} says now that it was given up for your domain; keep it as long as you \
                 like"
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

/// What is said of what could not be brought: in all, and of each capture.
fn lacks(
    missing: u64,
    captures: impl Iterator<Item = (String, u64)>,
) -> Vec<(&'static str, String)> {
    let mut words = Vec::new();
    if missing > 0 {
        let are = if missing == 1 { "is" } else { "are" };
        let artifacts = text::count(missing, "artifact");
        words.push((
            "",
            format!("MISSING {artifacts} that {are} damaged in the rescue store"),
        ));
    }
    words.extend(captures.take(SHOWN).map(|(capture, lost)| {
        let artifacts = text::count(lost, "artifact");
        (
            "",
            format!("  capture {capture:.DIGITS$} lacks {artifacts}"),
        )
    }));
    words
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
        for (name, value) in &self.words {
            let value = text::visible(value).into_owned();
            match *name {
                "" => sentence(out, &value)?,
                // Each name gets as many columns as the longest.
                name => filled(out, &[(&format!("{name:NAMES$}"), value)])?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: Vec<(&'static str, String)>) -> String {
        let mut out = Vec::new();
        let outcome = Outcome {
            words,
            ..Outcome::default()
        };
        outcome.show(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_artifact_is_missing_and_two_are() {
        let of = |missing, lost| {
            let captures = std::iter::once(("0123456789".to_owned(), lost));
            shown(lacks(missing, captures))
        };
        assert_eq!(
            of(1, 1),
            "MISSING 1 artifact that is damaged in the rescue store\n  capture 01234567 lacks 1 \
             artifact\n"
        );
        assert_eq!(
            of(2, 3),
            "MISSING 2 artifacts that are damaged in the rescue store\n  capture 01234567 lacks 3 \
             artifacts\n"
        );
    }

    #[test]
    fn what_was_done_fits_80_columns() {
        let size = text::size(u64::MAX);
        let blocks = text::count(u64::MAX, "block");
        let shown = shown(vec![
            ("", "Promoted, with 3 captures.".to_owned()),
            (
                "came",
                format!("{blocks}, {size} ({size} of it shared on disk); {blocks} one by one"),
            ),
            ("had", format!("{blocks}, {size}")),
        ]);
        assert!(
            shown.lines().all(|line| line.chars().count() <= 80),
            "{shown}"
        );
        let came = shown
            .lines()
            .find(|line| line.starts_with("came    1"))
            .unwrap();
        let more = shown
            .lines()
            .skip_while(|line| *line != came)
            .nth(1)
            .unwrap();
        assert!(
            more.starts_with(&" ".repeat(8)) && !more[8..].starts_with(' '),
            "{shown}"
        );
    }
}
