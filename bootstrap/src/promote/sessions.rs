//! Captures that become captures of the target, and by which id.
//!
//! A capture keeps its id. It gets another one, which depends on the log that it ended in, where its own is taken: by a capture that did
//! not come from this source, which a stranger's store must not be able to replace, or in a second history.

use asl_store::{Key, LogPosition, SessionId, SessionRecord, StoreHandle, format};

use super::error::PromoteError;
use super::source::Source;
use super::{Means, Request};
use crate::domain::Domain;
use crate::error::Result;
use crate::lineage::{Level, Lineage, Op, SESSIONS_MAX};
use crate::mint::Done;

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

/// The captures that were asked for.
pub(super) fn finished(request: &Request<'_>) -> Result<Vec<Done>, PromoteError> {
    let Some(wanted) = request.captures else {
        return Ok(request.finished.to_vec());
    };
    let of = |session: &SessionId| {
        let mut finished = request.finished.iter();
        let found = finished.find(|done| done.session == *session).copied();
        found.ok_or(PromoteError::NoSession(*session))
    };
    wanted.iter().map(of).collect()
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

/// Those that the target does not have yet, ascending by their ids there.
pub(super) fn new(
    source: &Source,
    target: &StoreHandle,
    parent: &Domain,
    child: &Domain,
    op: Op,
    request: &Request<'_>,
) -> Result<Vec<Takeover>> {
    if request.level == Level::Bytes {
        return Ok(Vec::new());
    }
    let store = source.head().store;
    let ours = |session: &SessionId| {
        parent.links().any(|(_, link)| {
            link.op == op
                && link.child == child.id()
                && link.store == store
                && link.sessions.contains(session)
        })
    };
    let mut new = Vec::new();
    for done in finished(request)? {
        let (end, ids) = candidates(child, &done).ok_or(PromoteError::NoSession(done.session))?;
        let known = |session: SessionId| {
            target.with_state(|state| {
                let found = state.session(session)?;
                let finished = found.kind == format::SESSION_FINISHED;
                Some(finished && found.root_key() == Some(done.root))
            })
        };
        if ids.iter().any(|id| known(*id) == Some(true)) {
            continue;
        }
        let [own, derived] = ids;
        let here = match known(own) {
            None if op == Op::Adopt => own,
            Some(_) if op == Op::Adopt && ours(&own) => own,
            _ => derived,
        };
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
    new.dedup_by_key(|takeover| takeover.here);
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
    source: &Source,
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

/// Sessions of the source that did not end, promotions into it left out.
pub(super) fn unfinished(source: &Source) -> Vec<SessionId> {
    source.store().with_state(|state| {
        let open = state.sessions.iter().filter(|session| {
            matches!(session.kind, format::SESSION_BEGUN | format::SESSION_PAUSED)
                && !session.begun.starts_with(FORMAT.as_bytes())
        });
        open.map(|session| session.session()).collect()
    })
}

/// What the session of a promotion says of itself.
pub(super) fn description(link: &Lineage) -> Vec<u8> {
    format!(
        "{FORMAT},\"child\":\"{}\",\"store\":\"{}\",\"position\":{},\"chain\":\"{}\",\
         \"operation\":\"{}\",\"level\":\"{}\"}}",
        link.child, link.store, link.position, link.chain, link.op, link.level
    )
    .into_bytes()
}
