//! The two paths of a promotion: what is there, and which path was meant where it is something else.
//!
//! Nothing is written; a crash leaves nothing.

use std::path::{Path, PathBuf};

use asl_bootstrap::keyfile::key_file_path;

use crate::args::Promote;
use crate::error::{CliError, Exit, Result};
use crate::root::{DOMAINS, Member, Root};
use crate::text;

/// Where the promotion goes.
pub(super) enum Target {
    /// Into the store of a domain that is there.
    Store(PathBuf),
    /// Into a domain that is to be founded below this root.
    New(PathBuf),
}

impl Target {
    /// What a path is, as a place to promote into.
    ///
    /// # Errors
    /// Where there is no domain, or it must be said which (exit 2).
    pub(super) fn find(into: &Path, args: &Promote) -> Result<Self> {
        let is_root = into.join(DOMAINS).is_dir();
        if !is_root {
            if let Some(root) = root_around(into) {
                return Err(CliError::usage(format!(
                    "{} is the inside of a root",
                    text::path(into)
                ))
                .hint(format!("name the root: --into {}", text::shell_path(&root))));
            }
            // A store is a root of one, unless it is to become one of several.
            let is_store = into.join("log").is_dir();
            return match (is_store, args.as_new) {
                (true, false) => Ok(Self::Store(into.to_owned())),
                (false, true) => Ok(Self::New(into.to_owned())),
                (true, true) => Err(CliError::usage(format!(
                    "{} is a store; a new domain gets a root of its own",
                    text::path(into)
                ))
                .hint("name a new directory: --into ROOT")),
                (false, false) => Err(CliError::new(format!(
                    "{} is neither a root with domains nor a store",
                    text::path(into)
                ))
                .hint("if you have no domain yet, found one there: add --as-new")),
            };
        }
        let root = Root::read(into)?;
        if let Some(wanted) = args.domain {
            let mut members = root.members.into_iter();
            return match members.find(|member| member.domain == wanted) {
                Some(member) if member.own => Ok(Self::Store(member.path)),
                Some(member) => Err(CliError::new(
                    "that domain is only read here: its keys are not in its store",
                )
                .exit(Exit::Policy)
                .hint(format!(
                    "bring its key file back: {}",
                    text::shell_path(&member.path.join(key_file_path(&member.domain)))
                ))),
                None => Err(CliError::usage("that domain is not below this root")
                    .hint(format!("see: ls {}", text::shell_path(&into.join(DOMAINS))))),
            };
        }
        let own: Vec<&Member> = root.members.iter().filter(|member| member.own).collect();
        match (&own[..], args.as_new) {
            // With --as-new: the same command once more, after it was cut off.
            ([only], _) => Ok(Self::Store(only.path.clone())),
            ([], true) => Ok(Self::New(into.to_owned())),
            ([], false) => Err(root.own().map(drop).err().map_or_else(
                || CliError::usage("there is no domain"),
                |error| error.hint("found one there: add --as-new"),
            )),
            ([first, ..], _) => Err(CliError::usage(
                "this root has several domains whose keys are here",
            )
            .hint(format!("say which: --domain {}", first.domain))),
        }
    }
}

/// The root whose directory of domains this is.
fn root_around(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let root = path.ends_with(DOMAINS).then(|| path.parent()).flatten()?;
    let has_some = Root::read(root).is_ok_and(|root| !root.members.is_empty());
    has_some.then(|| root.to_owned())
}

/// What is wrong with a rescue store's path where no store ever was.
pub(super) fn no_store(path: &Path) -> Option<CliError> {
    if path.join("blocks/sealed").is_dir() {
        return None;
    }
    let place = text::path(path);
    let domains = path.join(DOMAINS);
    let (what, look) = if domains.is_dir() {
        (
            format!("{place} holds several stores; they are promoted one by one"),
            domains,
        )
    } else {
        (
            format!("{place} is no rescue store: no log was found"),
            path.to_owned(),
        )
    };
    Some(CliError::new(what).hint(format!(
        "name the store itself; to find it: ls {}",
        text::shell_path(&look)
    )))
}
