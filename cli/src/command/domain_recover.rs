//! `asl domain recover`: a rotation by the phrase alone, with new keys for this host.
//!
//! Crash: as `asl domain rotate`.

use asl_bootstrap::Roles;
use asl_bootstrap::dam::Revocation;
use asl_bootstrap::govern::{Hosts, Rotation};
use asl_capture::inventory::SystemPaths;
use asl_store::Key;

use super::domain_govern::Desk;
use super::domain_rotate::Turn;
use crate::args::DomainRecover;
use crate::error::Result;
use crate::face::{Face, now};
use crate::probe::{self, Allowed};

/// Takes the domain back.
pub fn run(face: &Face, args: &DomainRecover) -> Result {
    let turn = Turn {
        action: "recover the domain",
        phrases: &args.phrases,
        change: &args.change,
        lost: true,
    };
    let allowed = Allowed {
        ephemeral: args.ephemeral,
        unmounted: true,
    };
    turn.run(face, |desk, from| {
        probe::survey(&SystemPaths::default(), desk.path, allowed)?;
        Ok(Rotation {
            hosts: match args.keep_others {
                true => Hosts::Fresh,
                false => Hosts::Only,
            },
            revoke: revoked(desk, from, args),
            ..Rotation::recovery(now())
        })
    })
}

/// The old keys that signed receipts and checkpoints, each from the places on that were given.
fn revoked(desk: &Desk<'_>, from: Option<Key>, args: &DomainRecover) -> Vec<Revocation> {
    let mut revoked = Vec::new();
    let chain = &desk.domain.chain;
    let from = from.and_then(|from| chain.node(&from));
    let listed = [Some(chain.head()), from];
    let listed = listed.into_iter().flatten();
    for principal in listed.flat_map(|node| &node.dam.principals) {
        let signs = [Roles::PRODUCE, Roles::CHECKPOINT];
        if !signs.iter().any(|role| principal.roles.contains(*role)) {
            continue;
        }
        revoked.extend(args.revoke_from.iter().map(|place| Revocation {
            key: principal.key.id(),
            store: place.store.unwrap_or(desk.domain.store),
            position: place.position,
            reason: args.reason.into(),
        }));
    }
    revoked
}
