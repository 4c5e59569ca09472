//! Hundreds of thousands of documents that are nearly right: each began as a validly signed one.
//!
//! What every target asserts of every mutant: nothing panics; what decodes encodes to the same bytes; a mutant does not count with
//! the signatures of its original; and one whose fields were changed and which was signed anew by every key there is counts
//! only if an oracle, written here from the format's description, allows the step.
//!
//! Everyday runs are short and the same each time. `ASL_TEST_ALL=1` runs each target twenty times as long,
//! `ASL_TEST_TIMES=N` so many times; `ASL_TEST_SEED=N` begins elsewhere. `--nocapture` shows executions and which refusals were reached.
//!
//! *Coverage.* A refusal that no mutant reaches is one that no test of a stranger's bytes reaches: each target lists the variants
//! of its errors exhaustively (a new one does not compile), names those that bytes cannot cause, and fails if another was not reached.
//!
//! Lines of the parsers that an everyday run executes, measured once with `-C instrument-coverage` and `llvm-cov`: what follows a manifest
//! (`chain/judge.rs`) 99 %, requests all, `codec.rs` 97 %, `checkpoint.rs` 94 %, `note.rs` 90 %, `dam.rs` 83 %, `witness/quorum.rs`
//! 83 %, `sign.rs` 74 %, `keyfile.rs` 61 %. What is left writes documents, or names and displays things.

#[path = "../dams/cases/mod.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod cases;
mod dam;
mod keyfile;
mod mutate;
mod note;
mod small;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;

/// What became of the mutants of one target.
pub(crate) struct Tally {
    name: &'static str,
    executions: u64,
    accepted: u64,
    refused: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            executions: 0,
            accepted: 0,
            refused: BTreeMap::new(),
        }
    }

    pub(crate) fn accepted(&mut self) {
        self.executions += 1;
        self.accepted += 1;
    }

    /// Counts an error by the names of its variants, outermost first.
    pub(crate) fn refused(&mut self, path: &[&'static str]) {
        self.executions += 1;
        for name in path {
            *self.refused.entry(name).or_default() += 1;
        }
    }

    /// Whether to go on: there is a least number of executions, and more of them, within reason, while a refusal was not
    /// reached. So neither luck nor another set of seeds decides whether the target passes.
    pub(crate) fn goes_on(
        &self,
        least: u64,
        all: &[&'static str],
        unreachable: &[&'static str],
    ) -> bool {
        let missed = |name: &&&str| !self.has(name) && !unreachable.contains(*name);
        self.executions < least || self.executions < least * 20 && all.iter().any(|n| missed(&n))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.refused.contains_key(name)
    }

    /// Prints the counts, and fails unless each of `all` that is not among `unreachable` was reached, and none of those.
    pub(crate) fn finish(self, all: &[&'static str], unreachable: &[&'static str]) {
        let Self {
            name,
            executions,
            accepted,
            refused,
        } = self;
        println!(
            "{name}: {executions} executions, {accepted} accepted, {} of {} refusals reached",
            refused.len(),
            all.len()
        );
        for (refusal, count) in &refused {
            println!("  {refusal} {count}");
        }
        let reached = |name: &&&str| refused.contains_key(**name);
        let excused = |name: &&&str| unreachable.contains(*name);
        let missed: Vec<_> = all.iter().filter(|n| !reached(n) && !excused(n)).collect();
        assert!(missed.is_empty(), "{name}: no mutant reached {missed:?}");
        let wrongly: Vec<_> = unreachable.iter().filter(|n| reached(n)).collect();
        assert!(wrongly.is_empty(), "{name}: reached after all: {wrongly:?}");
        assert!(
            accepted > 0,
            "{name}: nothing was accepted, so nothing was nearly right"
        );
    }
}

/// How often a target that costs about a tenth of a millisecond is run.
pub(crate) fn budget(everyday: u64) -> u64 {
    let asked = std::env::var("ASL_TEST_TIMES").ok();
    let times = match asked.and_then(|times| times.parse::<u64>().ok()) {
        Some(times) => times,
        None if std::env::var_os("ASL_TEST_ALL").is_some() => 20,
        None => 1,
    };
    everyday * times
}

/// All variants of an error enum, and the name of an error's: exhaustive, so that a new variant does not go unnoticed.
macro_rules! variants {
    ($all:ident, $name:ident, $error:ty { $($variant:ident),* $(,)? }) => {
        const $all: &[&str] = &[$(concat!(stringify!($error), "::", stringify!($variant))),*];
        fn $name(error: &$error) -> &'static str {
            type E = $error;
            match error {
                $(E::$variant { .. } => concat!(stringify!($error), "::", stringify!($variant)),)*
            }
        }
    };
}
pub(crate) use variants;
