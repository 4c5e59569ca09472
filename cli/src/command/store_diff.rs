//! `asl store diff`: what another store has more or less than this one.

use std::io::{self, Write};

use asl_capture::damage::hits;
use asl_store::compare::{
    Content, Contents, Counted, InstanceComparison, Relation, Verdict, compare, compare_contents,
    missing_blocks,
};
use asl_store::{Damage, Error as StoreError, VerifyOptions, verify};
use serde::Serialize;

use super::captures::failed;
use super::store_other::{self, Other};
use super::store_verify::{DamageObject, numbered, objects, unnamed};
use crate::args::StoreDiff;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::progress::Display;
use crate::report::Outcome;
use crate::text;

/// How two stores stand to each other.
#[derive(Debug, Serialize)]
struct Difference {
    /// Whether they are the same: logs of copies, contents of others.
    equal: bool,
    verdict: &'static str,
    /// Whether they have an instance in common, so that logs could be compared.
    related: bool,
    same_content: bool,
    instances: Vec<InstanceObject>,
    here: ContentObject,
    there: ContentObject,
    both: CountObject,
    only_here: CountObject,
    only_there: CountObject,
    /// What is damaged in the other one.
    damage: Vec<DamageObject>,
    verified: bool,
}

/// One instance.
#[derive(Debug, Serialize)]
struct InstanceObject {
    store_id: String,
    relation: &'static str,
    position_here: Option<u64>,
    position_there: Option<u64>,
    /// Records that are the same, where it forked.
    forked_at: Option<u64>,
}

/// What a store shows.
#[derive(Debug, Serialize)]
struct ContentObject {
    content_root: String,
    artifacts: u64,
    artifact_bytes: u64,
}

/// Artifacts that one or both have.
#[derive(Debug, Serialize)]
struct CountObject {
    artifacts: u64,
    artifact_bytes: u64,
}

impl From<&InstanceComparison> for InstanceObject {
    fn from(of: &InstanceComparison) -> Self {
        let relation = match of.relation {
            Relation::Equal => "equal",
            Relation::Ahead { .. } => "ahead",
            Relation::Behind { .. } => "behind",
            Relation::OnlyHere => "only-here",
            Relation::OnlyThere => "only-there",
            Relation::Forked { .. } => "forked",
        };
        Self {
            store_id: of.store.to_string(),
            relation,
            position_here: of.ours.map(|head| head.position.0),
            position_there: of.theirs.map(|head| head.position.0),
            forked_at: match of.relation {
                Relation::Forked { at } => Some(at.0),
                _ => None,
            },
        }
    }
}

impl From<Content> for ContentObject {
    fn from(content: Content) -> Self {
        Self {
            content_root: content.root.to_string(),
            artifacts: content.artifacts,
            artifact_bytes: content.bytes,
        }
    }
}

impl From<Counted> for CountObject {
    fn from(counted: Counted) -> Self {
        Self {
            artifacts: counted.artifacts,
            artifact_bytes: counted.bytes,
        }
    }
}

impl CountObject {
    fn words(&self) -> String {
        format!(
            "{}, {}",
            text::count(self.artifacts, "artifact"),
            text::size(self.artifact_bytes)
        )
    }
}

impl InstanceObject {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let here = self.position_here.unwrap_or(0);
        let there = self.position_there.unwrap_or(0);
        let records = |count| text::count(count, "record");
        let words = match self.relation {
            "equal" => format!("the same, {}", records(here)),
            "ahead" => format!("{} more here", records(here.saturating_sub(there))),
            "behind" => format!("{} more there", records(there.saturating_sub(here))),
            "only-here" => format!("only here, {}", records(here)),
            "only-there" => format!("only there, {}", records(there)),
            _ => format!(
                "TWO HISTORIES after record {}: {here} here, {there} there",
                self.forked_at.unwrap_or(0)
            ),
        };
        writeln!(out, "{}", self.store_id)?;
        writeln!(out, "  {words}")
    }
}

impl Outcome for Difference {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        for one in &self.instances {
            one.show(out)?;
        }
        writeln!(out, "both        {}", self.both.words())?;
        writeln!(out, "only here   {}", self.only_here.words())?;
        writeln!(out, "only there  {}", self.only_there.words())?;
        for damage in &self.damage {
            damage.show(out)?;
        }
        if !self.damage.is_empty() {
            let damage = text::count(self.damage.len() as u64, "damage");
            writeln!(out, "{damage} found in the other one")?;
        }
        writeln!(
            out,
            "{}",
            match self.verdict {
                "equal" => "equal",
                "ahead" => "this one is ahead: it has everything of the other one",
                "behind" => "this one is behind: the other one has everything of it",
                "diverged" => "diverged: each has what the other lacks",
                "forked" => "FORKED: one log has two histories",
                _ if self.equal => "stores without a common log that hold the same",
                _ => "stores without a common log, and not the same in them",
            }
        )
    }
}

/// Compares the store with another.
pub fn run(face: &Face, args: &StoreDiff) -> Result {
    let (path, store) = face.reader()?;
    let other = store_other::open(path, &args.other)?;
    let action = format!("compare the store with {}", text::path(other.path));
    let refused = |error: &StoreError| CliError::of_store(&action, path, error);
    let comparison = compare(&store, &other.store).map_err(|error| refused(&error))?;
    let contents = compare_contents(&store, &other.store).map_err(|error| refused(&error))?;
    let damage = damage(face, args, &other)?;
    let related = comparison.is_related();
    let (verdict, exit) = match comparison.verdict {
        _ if !related => ("unrelated", Exit::Failed),
        Verdict::Equal => ("equal", Exit::Complete),
        Verdict::Ahead => ("ahead", Exit::Failed),
        Verdict::Behind => ("behind", Exit::Failed),
        Verdict::Diverged => ("diverged", Exit::Failed),
        Verdict::Forked => ("forked", Exit::Rollback),
    };
    let same_content = contents.ours.root == contents.theirs.root;
    let equal = match related {
        true => comparison.verdict == Verdict::Equal,
        false => same_content,
    };
    let exit = match exit {
        Exit::Rollback => Exit::Rollback,
        _ if damage.iter().any(|damage| !damage.cache) => Exit::Integrity,
        _ if equal => Exit::Complete,
        exit => exit,
    };
    let Contents {
        ours,
        theirs,
        both,
        only_here,
        only_there,
    } = contents;
    face.report.result(&Difference {
        equal,
        verdict,
        related,
        same_content,
        instances: match related {
            true => comparison.instances.iter().map(Into::into).collect(),
            false => Vec::new(),
        },
        here: ours.into(),
        there: theirs.into(),
        both: both.into(),
        only_here: only_here.into(),
        only_there: only_there.into(),
        damage,
        verified: args.verify,
    })?;
    if related && face.report.is_human() {
        let (here, there) = (text::shell_path(path), text::shell_path(other.path));
        match exit {
            Exit::Failed => face.report.note(&format!(
                "to make both equal: asl store sync {there} --both --store {here}"
            )),
            // Everything that the other one names is named here.
            Exit::Integrity if matches!(verdict, "equal" | "ahead") => {
                face.report.note(&format!(
                    "to heal it from this one: asl store sync {here} --verify --store {there}"
                ));
            }
            _ => {}
        }
    }
    Ok(exit)
}

/// What is damaged in the other store, and which captures that hits.
fn damage(face: &Face, args: &StoreDiff, other: &Other<'_>) -> Result<Vec<DamageObject>> {
    let action = format!("look for damage in {}", text::path(other.path));
    let refused = |error: &StoreError| CliError::of_store(&action, other.path, error);
    let damage: Vec<Damage> = if args.verify {
        let options = VerifyOptions {
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            ..VerifyOptions::default()
        };
        let display = Display::new(&face.report);
        let report = verify(other.vfs.clone(), &options, &display);
        display.clear();
        report.map_err(|error| refused(&error))?.damage
    } else {
        missing_blocks(&other.store).map_err(|error| refused(&error))?
    };
    let hits = hits(&other.store, &numbered(&damage), unnamed(&damage))
        .map_err(|error| failed(&action, other.path, &error))?;
    Ok(objects(damage, hits))
}
