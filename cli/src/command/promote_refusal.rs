//! Why a promotion was refused, and what to do about it.

use std::path::Path;

use asl_bootstrap::promote::PromoteError;
use asl_bootstrap::verify::VerifyError;
use asl_bootstrap::{Error, Trust};

use super::domain::{exit_of_class, failed};
use super::promote_plan::{DIGITS, damage};
use crate::error::{CliError, Exit};
use crate::face::Face;
use crate::state::State;
use crate::text;

/// Things wrong with a log that people are shown.
const FOUND_SHOWN: usize = 5;

/// Whether two paths lead to one directory.
fn is_one(one: &Path, other: &Path) -> bool {
    let (one, other) = (one.canonicalize(), other.canonicalize());
    one.is_ok_and(|one| other.is_ok_and(|other| one == other))
}

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
            PromoteError::SameDomain(_) if is_one(self.rescue, self.target) => {
                of.hint("that is the rescue store itself; name the other one: --into ROOT")
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
                    let action =
                        || format!("keep the evidence of it in {}", text::path(&state.path));
                    let kept = kept.map_err(|error| state.failed(&action(), &error))?;
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
