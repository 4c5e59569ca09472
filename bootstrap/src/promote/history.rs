//! Whether a source goes on from what is known of it, and from where.
//!
//! Known are the target's lineages of the same store, and what the workstation remembers. Each is a point: a position, and the chain
//! value there. A source's log passes through some of them, and the furthest of these is where the promotion goes on. A point that
//! it does not pass through, though it is of the same history, says that the log was taken back, or has forked.
//!
//! Lineages that lead to one another by their `prev` are one history. What is remembered is of the first.
//!
//! A log that lost records and was made again ([`Epoch`](asl_store::Epoch)) is another one from there on. That may be all that was
//! left of an honest store, or what somebody wants to pass for it: it takes a user who knows. Once a lineage lies behind the epoch
//! it is settled, and points that lay in what was lost count no more.
//!
//! Nothing is written; a crash leaves nothing.

use std::collections::{BTreeMap, BTreeSet};

use asl_store::{Key, LogPosition};

use super::PromoteError;
use super::source::{Instance, Scan};
use crate::domain::Domain;
use crate::error::Result;
use crate::lineage::{Lineage, Op};
use crate::trust::{Evidence, Head, LogPin};

/// A point that a log passed through.
struct Known {
    pin: LogPin,
    /// The lineage that says so, and the first one of its history; none for what is only remembered.
    lineage: Option<(Key, Key)>,
}

/// How a source stands to what is known of it.
#[derive(Debug)]
pub(super) struct Standing {
    /// What it is to the target.
    pub(super) op: Op,
    /// The lineage that it goes on from.
    pub(super) prev: Option<(Key, Lineage)>,
    /// Whether something was known of it, and it goes on from there.
    pub(super) continues: bool,
    /// What reading the log told.
    pub(super) scan: Scan,
}

/// Finds out; `target` is none where the domain is still to be founded. With `fork`, another history is one of its own; with
/// `accept_rebuilt`, one that was made again after a loss is the same.
pub(super) fn standing(
    source: &Instance,
    child: &Domain,
    target: Option<&Domain>,
    remembered: Option<&LogPin>,
    (fork, accept_rebuilt): (bool, bool),
) -> Result<Standing> {
    let head = source.head();
    let links: BTreeMap<Key, &Lineage> = target
        .into_iter()
        .flat_map(Domain::links)
        .filter(|(_, link)| link.op != Op::Retire)
        .filter(|(_, link)| link.child == child.id() && link.store == head.store)
        .map(|(state, link)| (state.key, link))
        .collect();
    let mut known: Vec<Known> = links
        .iter()
        .map(|(key, link)| Known {
            pin: pin_of(link),
            lineage: Some((*key, first_of(&links, *key))),
        })
        .collect();
    let remembered = remembered.filter(|pin| pin.store == head.store);
    known.extend(remembered.map(|pin| Known {
        pin: *pin,
        lineage: None,
    }));
    let wanted: BTreeSet<LogPosition> = known.iter().map(|known| known.pin.position).collect();
    let scan = source.scan(&wanted)?;
    let passes = |known: &Known| scan.passes(&known.pin);

    // Of several at one place the one that no other goes on from.
    let is_last = |key: &Key| {
        let place = |link: &Lineage| (link.position, link.chain);
        let mut others = links.values();
        !others.any(|other| other.prev == Some(*key) && place(other) == place(links[key]))
    };
    let passed = known.iter().filter(|known| passes(known));
    let last = passed
        .clone()
        .filter_map(|known| known.lineage)
        .max_by_key(|(key, _)| (links[key].position, is_last(key)));
    let prev = last.map(|(key, _)| (key, links[&key].clone()));
    let settled = prev
        .as_ref()
        .map_or(LogPosition(0), |(_, link)| link.position);
    let is_accepted = |at: &LogPosition| accept_rebuilt || *at < settled;
    if let Some((_, epoch)) = scan.epochs.iter().find(|(at, _)| !is_accepted(at)) {
        return Err(PromoteError::Rebuilt {
            store: head.store,
            epoch: *epoch,
        }
        .into());
    }
    // Of what was known before an epoch, and not of what was taken over since.
    let is_lost = |known: &Known| {
        let mut epochs = scan.epochs.iter();
        epochs.any(|(at, epoch)| {
            let since = match known.lineage {
                Some((key, _)) => history_of(&links, key)
                    .any(|link| link.position > *at && scan.passes(&pin_of(link))),
                // What is remembered was moved when the epoch was accepted.
                None => !accept_rebuilt,
            };
            epoch.from < known.pin.position && !since
        })
    };
    let op = prev.as_ref().map_or(Op::Adopt, |(_, link)| link.op);
    let same_history = |known: &Known| match (op, known.lineage) {
        (Op::Fork, Some((_, first))) => last.is_some_and(|(_, ours)| ours == first),
        (Op::Fork, None) => false,
        (_, Some((key, _))) => links[&key].op == Op::Adopt,
        (_, None) => true,
    };
    let off: Vec<&Known> = known
        .iter()
        .filter(|known| !passes(known) && same_history(known) && !is_lost(known))
        .collect();
    if off.is_empty() {
        let continues = passed.count() > 0;
        return Ok(Standing {
            op,
            prev,
            continues,
            scan,
        });
    }
    if fork {
        return Ok(Standing {
            op: Op::Fork,
            prev: None,
            continues: false,
            scan,
        });
    }
    let forked = off
        .iter()
        .filter(|known| known.pin.position <= head.position)
        .max_by_key(|known| known.pin.position);
    let furthest = off.iter().map(|known| known.pin.position).max();
    Err(match forked {
        Some(known) => PromoteError::Forked {
            evidence: Box::new(Evidence {
                domain: child.id(),
                seen: Head {
                    log: known.pin,
                    notes: Vec::new(),
                },
                found: source.evidence(child),
            }),
        },
        None => PromoteError::RolledBack {
            store: head.store,
            found: head.position,
            known: furthest.unwrap_or(head.position),
        },
    }
    .into())
}

fn pin_of(link: &Lineage) -> LogPin {
    LogPin {
        store: link.store,
        position: link.position,
        chain: link.chain,
    }
}

/// The lineages that `key` goes on from, itself first. A chain that does not end, which nobody can make, ends somewhere.
fn history_of<'l>(
    links: &'l BTreeMap<Key, &'l Lineage>,
    key: Key,
) -> impl Iterator<Item = &'l Lineage> {
    keys_of(links, key).map(|key| links[&key])
}

fn keys_of<'l>(links: &'l BTreeMap<Key, &'l Lineage>, key: Key) -> impl Iterator<Item = Key> {
    let prev = |key: &Key| links[key].prev.filter(|prev| links.contains_key(prev));
    let known = links.contains_key(&key).then_some(key);
    std::iter::successors(known, prev).take(links.len())
}

/// The first lineage of the history that `key` is of.
fn first_of(links: &BTreeMap<Key, &Lineage>, key: Key) -> Key {
    keys_of(links, key).last().unwrap_or(key)
}
