//! `asl domain revoke`: from where on a key's signatures no longer count.
//!
//! Crash: see [`asl_bootstrap::govern`]. The same command goes on.

use std::collections::BTreeSet;

use asl_bootstrap::KeyId;
use asl_bootstrap::dam::Revocation;
use asl_bootstrap::govern::Update;
use asl_store::LogPosition;

use super::domain_govern::Desk;
use crate::args::{DomainRevoke, KeyPrefix, Place};
use crate::error::{CliError, Result};
use crate::face::{Face, now};
use crate::text;

const ACTION: &str = "revoke the key";

/// Revokes one key.
pub fn run(face: &Face, args: &DomainRevoke) -> Result {
    let (desk, passphrase) = Desk::for_change(face, ACTION, &args.change)?;
    desk.update(&passphrase, |desk| {
        let key = find(desk, &args.key)?;
        let now_here = Place {
            store: None,
            position: LogPosition(desk.domain.tree.size()),
        };
        let head = &desk.domain.chain.head().dam;
        let places = match &args.from[..] {
            // Again from a later place would say nothing.
            [] if head.revokes(&key) => &[],
            [] => &[now_here][..],
            places => places,
        };
        let revocations = places.iter().map(|place| Revocation {
            key,
            store: place.store.unwrap_or(desk.domain.store),
            position: place.position,
            reason: args.reason.into(),
        });
        Ok(Update {
            revoke: revocations.collect(),
            despite_rivals: args.change.despite_fork,
            ..Update::none(now())
        })
    })
}

/// The key that an id, or the beginning of one, means: any that the domain ever listed, or a whole id.
fn find(desk: &Desk<'_>, wanted: &KeyPrefix) -> Result<KeyId> {
    if let Ok(key) = wanted.0.parse() {
        return Ok(key);
    }
    let mut found = BTreeSet::new();
    for node in desk.domain.chain.path() {
        let principals = node.dam.principals.iter().map(|principal| principal.key);
        for key in node.dam.roots.iter().copied().chain(principals) {
            if key.id().to_string().starts_with(&wanted.0) {
                found.insert(key.id());
            }
        }
    }
    let place = text::shell_path(desk.path);
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(
            CliError::usage(format!("no key of the domain begins with {}", wanted.0))
                .hint(format!("list the keys: asl domain show --store {place}")),
        ),
        (Some(_), Some(_)) => Err(
            CliError::usage(format!("several keys begin with {}", wanted.0)).hint(format!(
                "give more digits; see: asl domain show --store {place}"
            )),
        ),
    }
}
