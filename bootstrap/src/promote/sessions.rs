//! Captures that become captures of the target, and by which id.
//!
//! A capture keeps its id. It gets another one, which depends on the log that it ended in, where its own is taken: by a capture that did
//! not come from this source, which a stranger's store must not be able to replace, or in a second history.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use asl_store::state::SessionInfo;
use asl_store::{Key, LogPosition, SessionId, SessionRecord, StoreHandle, StoreId, format};

use super::error::PromoteError;
use super::plan::Onto;
use super::source::{Instance, Source};
use super::{Means, Request};
use crate::domain::Domain;
use crate::error::Result;
use crate::id::DomainId;
use crate::lineage::{Level, Lineage, Op, SESSIONS_MAX};
use crate::mint::Done;
use crate::trust::LogPin;

/// What BLAKE3's `derive_key` is given for the id of a capture whose own is taken.
const CONTEXT_SESSION: &str = "asl 2026 session of another history";
/// How the description of a promotion begins: what it says is for people, the lineage counts.
const FORMAT: &str = "{\"format\":\"asl-promotion-1\"";

/// A capture of the source that becomes one of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takeover {
    /// Its id in the source.
    pub session: SessionId,
    /// Its id in the target.
    pub here: SessionId,
    /// Its root.
    pub root: Key,
    /// The record of the source's log that ended it.
    pub end: LogPosition,
}

/// The finished captures of each instance that were asked for. One whose root another instance removed is none any more.
pub(super) fn finished(source: &Source, request: &Request<'_>) -> Result<Vec<Vec<Done>>> {
    let mut finished = Vec::new();
    for nth in 0..source.instances().len() {
        let mut of = request.finished.get(nth).cloned().unwrap_or_default();
        let mut failed = Ok(());
        of.retain(|done| match source.store().is_removed(&done.root) {
            Ok(removed) => !removed,
            Err(error) => {
                failed = Err(error);
                true
            }
        });
        failed?;
        finished.push(of);
    }
    let Some(wanted) = request.captures else {
        return Ok(finished);
    };
    let has = |session: &&SessionId| finished.iter().flatten().any(|of| of.session == **session);
    if let Some(unknown) = wanted.iter().find(|session| !has(session)) {
        return Err(PromoteError::NoSession(*unknown).into());
    }
    for of in &mut finished {
        of.retain(|done| wanted.contains(&done.session));
    }
    Ok(finished)
}

/// The ids that a finished capture of the source may have in a target, its own first.
fn candidates(child: &Domain, done: &Done) -> Option<(LogPosition, [SessionId; 2])> {
    let mut ends = child.ends.iter().rev();
    let (position, end) =
        ends.find(|(_, end)| end.finished && end.session == done.session && end.root == done.root)?;
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_SESSION);
    hasher.update(&done.session.0).update(&end.chain.0);
    let derived = hasher.finalize().as_bytes()[..16]
        .try_into()
        .expect("half of 32 bytes");
    Some((*position, [done.session, SessionId(derived)]))
}

/// What becomes a capture of the target, by its id there: as what is taken over from one instance is not there yet when the next one
/// is looked at.
pub(super) type Coming = BTreeMap<[u8; 16], Key>;

/// Those captures of an instance that the target does not have yet, ascending by their ids there.
pub(super) fn new(
    head: &LogPin,
    onto: Option<Onto<'_>>,
    child: &Domain,
    (op, level): (Op, Level),
    finished: &[Done],
    coming: &mut Coming,
) -> Result<Vec<Takeover>> {
    if level == Level::Bytes {
        return Ok(Vec::new());
    }
    let ours = |session: &SessionId| {
        let mut links = onto.iter().flat_map(|onto| onto.parent.links());
        links.any(|(_, link)| {
            link.op == op
                && link.child == child.id()
                && link.store == head.store
                && link.sessions.contains(session)
        })
    };
    let mut new: Vec<Takeover> = Vec::new();
    for done in finished {
        let (end, ids) = candidates(child, done).ok_or(PromoteError::NoSession(done.session))?;
        let known = |session: SessionId| {
            if let Some(root) = coming.get(&session.0) {
                return Some(*root == done.root);
            }
            onto?.target.with_state(|state| {
                let found = state.session(session)?;
                let finished = found.kind == format::SESSION_FINISHED;
                Some(finished && found.root_key() == Some(done.root))
            })
        };
        if ids.iter().any(|id| known(*id) == Some(true)) {
            continue;
        }
        let [own, derived] = ids;
        let is_coming = coming.contains_key(&own.0);
        let here = match known(own) {
            None if op == Op::Adopt => own,
            Some(_) if op == Op::Adopt && ours(&own) && !is_coming => own,
            _ => derived,
        };
        coming.insert(here.0, done.root);
        new.push(Takeover {
            session: done.session,
            here,
            root: done.root,
            end,
        });
    }
    if new.len() > SESSIONS_MAX {
        let count = new.len();
        return Err(PromoteError::TooManySessions { count }.into());
    }
    new.sort_by_key(|takeover| takeover.here.0);
    Ok(new)
}

/// Captures that a lineage lists and the target does not have: an append was cut off.
pub(super) fn cut_off(
    target: &StoreHandle,
    child: &Domain,
    finished: &[Done],
    link: &Lineage,
) -> Vec<Takeover> {
    let mut missing = Vec::new();
    for here in &link.sessions {
        let there = target.with_state(|state| {
            let found = state.session(*here)?;
            Some(found.kind == format::SESSION_FINISHED)
        });
        if there == Some(true) {
            continue;
        }
        for done in finished {
            let Some((end, ids)) = candidates(child, done) else {
                continue;
            };
            if ids.contains(here) {
                missing.push(Takeover {
                    session: done.session,
                    here: *here,
                    root: done.root,
                    end,
                });
                break;
            }
        }
    }
    missing
}

/// The records of a capture for the target's log.
pub(super) fn records(
    source: &Instance,
    takeover: &Takeover,
    means: &Means<'_>,
) -> Vec<SessionRecord> {
    let bodies = source.store().with_state(|state| {
        let found = state.session(takeover.session)?;
        Some((found.begun.clone(), found.body.clone()))
    });
    let Some((mut begun, body)) = bodies else {
        return Vec::new();
    };
    if takeover.here != takeover.session
        && let Some(relabel) = means.relabel
    {
        begun = relabel(&begun);
    }
    let record = |kind, root, body| SessionRecord {
        session: takeover.here,
        kind,
        root,
        body,
    };
    vec![
        record(format::SESSION_BEGUN, None, begun),
        record(format::SESSION_FINISHED, Some(takeover.root), body),
    ]
}

/// Sessions that did not end in any instance, promotions into the source left out; of each instance those that it has and none before
/// it.
pub(super) fn unfinished(source: &Source) -> Vec<Vec<SessionId>> {
    let is_open = |kind| matches!(kind, format::SESSION_BEGUN | format::SESSION_PAUSED);
    let all = source.store().sessions().into_iter();
    let mut open: BTreeSet<[u8; 16]> = all
        .filter(|session| is_open(session.kind) && !is_promotion(session))
        .map(|session| session.id)
        .collect();
    let of = |instance: &Instance| {
        instance.store().with_state(|state| {
            let sessions = state.sessions.iter();
            let mine = sessions.filter(|session| open.remove(&session.id));
            mine.map(SessionInfo::session).collect()
        })
    };
    source.instances().iter().map(of).collect()
}

fn is_promotion(session: &SessionInfo) -> bool {
    session.begun.starts_with(FORMAT.as_bytes())
}

/// Promotions of the same instances that were begun and did not come to their end.
pub(super) fn cut_off_promotions(
    source: &Source,
    child: &DomainId,
    target: &StoreHandle,
) -> HashSet<[u8; 16]> {
    let instances = source.instances().iter();
    let begin: Vec<String> = instances
        .map(|instance| of_store(child, &instance.head().store))
        .collect();
    let same = |begun: &[u8]| {
        begin
            .iter()
            .any(|begin| begun.starts_with(begin.as_bytes()))
    };
    target.with_state(|state| {
        let sessions = state.sessions.iter();
        let open = sessions
            .filter(|session| session.kind == format::SESSION_BEGUN && same(&session.begun));
        open.map(|session| session.id).collect()
    })
}

/// How the description of a promotion of an instance begins.
fn of_store(child: &DomainId, store: &StoreId) -> String {
    format!("{FORMAT},\"child\":\"{child}\",\"store\":\"{store}\"")
}

/// What the session of a promotion says of itself.
pub(super) fn description(link: &Lineage) -> Vec<u8> {
    format!(
        "{},\"position\":{},\"chain\":\"{}\",\"operation\":\"{}\",\"level\":\"{}\"}}",
        of_store(&link.child, &link.store),
        link.position,
        link.chain,
        link.op,
        link.level
    )
    .into_bytes()
}
