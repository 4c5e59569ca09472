//! The lineage, and what comes after it: steps 10 and 11.
//!
//! Crash: before the lineage's record nothing is promoted. After it everything that is missing can be told from the log ([`Tail`]), and
//! the same promotion makes up for it.

use asl_store::{Authority, Key, LogPosition, SessionRecord, StoreHandle, StoreWriter, format};

use super::Means;
use super::error::PromoteError;
use super::plan::{InstancePlan, Plan, open_target};
use super::sessions::{self, Takeover};
use super::source::{Instance, Source};
use crate::attest::can_sign;
use crate::dam::Dam;
use crate::domain::{Domain, LineageState};
use crate::error::Result;
use crate::id::DomainId;
use crate::key::Signer;
use crate::keyfile::{KeyFile, Role};
use crate::lineage::{self, Lineage};
use crate::meta;
use crate::mint::{self, Checkpointed, Done};
use crate::receipt::ReceiptKind;

/// Bytes of descriptions that one append takes.
const APPEND_MAX: usize = 4 << 20;

/// What is missing after a lineage.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Captures whose records an append lost.
    pub(super) sessions: Vec<Takeover>,
    /// The promotion's own session goes on.
    pub(super) unended: bool,
    pub(super) snapshot: bool,
    /// Sessions without a receipt that counts.
    pub(super) receipts: Vec<Done>,
    pub(super) checkpoint: bool,
}

impl Tail {
    pub(super) fn of(
        target: &StoreHandle,
        parent: &Domain,
        child: &Domain,
        finished: &[Done],
        state: &LineageState,
        link: &Lineage,
    ) -> Self {
        let own = link.session();
        let unended = target.with_state(|state| {
            let found = state.session(own);
            found.is_none_or(|found| found.kind != format::SESSION_FINISHED)
        });
        let mut receipts = done(target, link);
        let mut last = state.record;
        receipts.retain(|done| {
            let receipt = parent.receipt(done.session, done.root);
            let signed = receipt.filter(|receipt| !receipt.signers.is_empty());
            last = last.max(signed.map_or(LogPosition(0), |receipt| receipt.record));
            signed.is_none()
        });
        let covered = parent.newest_checkpoint().map_or(0, |newest| newest.size);
        Self {
            sessions: sessions::cut_off(target, child, finished, link),
            unended,
            snapshot: target.with_state(|of| {
                let newest = of.snapshots.last();
                newest.is_none_or(|newest| newest.position < state.record.0)
            }),
            receipts,
            checkpoint: covered <= last.0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
            && !self.unended
            && !self.snapshot
            && self.receipts.is_empty()
            && !self.checkpoint
    }
}

/// Sessions that a promotion should have receipts for, as far as they are there.
fn done(target: &StoreHandle, link: &Lineage) -> Vec<Done> {
    let ids = link.sessions.iter().copied().chain([link.session()]);
    target.with_state(|state| {
        ids.filter_map(|session| {
            let found = state.session(session)?;
            Some(Done {
                kind: ReceiptKind::Promotion,
                session,
                root: found
                    .root_key()
                    .filter(|_| found.kind == format::SESSION_FINISHED)?,
            })
        })
        .collect()
    })
}

/// The roots that sign for a domain, if the keys at hand are enough of them.
pub(super) fn roots<'k>(
    dam: &Dam,
    domain: &DomainId,
    keys: &'k KeyFile,
) -> Result<Vec<&'k Signer>, (usize, usize)> {
    let signers = keys.signers(Role::Root);
    let roots: Vec<&Signer> = signers.filter(|signer| dam.is_root(&signer.id())).collect();
    let need = usize::from(dam.root_threshold);
    match keys.domain() == Some(*domain) && roots.len() >= need {
        true => Ok(roots),
        false => Err((roots.len(), need)),
    }
}

/// Looks whether the keys can sign everything that is to be signed, before anything is written.
pub(super) fn check_keys(plan: &Plan, parent: &Domain, means: &Means<'_>) -> Result<()> {
    can_sign(parent, means.keys)?;
    let head = &parent.chain.head().dam;
    roots(head, &parent.id(), means.keys)
        .map_err(|(have, need)| PromoteError::Roots { have, need })?;
    means
        .child_keys
        .map_or(Ok(()), |keys| plan.check_child_keys(keys))
}

impl Plan {
    /// Looks whether the source's keys can hand it over.
    ///
    /// # Errors
    /// [`KeyFileError::OtherDomain`](crate::KeyFileError::OtherDomain), [`PromoteError::ChildRoots`].
    pub fn check_child_keys(&self, keys: &KeyFile) -> Result<()> {
        let child = self.child();
        keys.require_domain(&child.id())?;
        roots(&child.chain.head().dam, &child.id(), keys)
            .map_err(|(have, need)| PromoteError::ChildRoots { have, need })?;
        Ok(())
    }
}

/// Signs the lineage and logs it with the captures: from then on the promotion is.
pub(super) fn commit(
    plan: &InstancePlan,
    source: &Instance,
    writer: &mut StoreWriter,
    means: &Means<'_>,
    link: &Lineage,
) -> Result<Key> {
    let parent = open_target(writer.handle())?;
    let body = link.encode()?;
    // Who reads the link wants to know whose roots the child's are.
    for key in [&link.child_genesis, &link.child_head] {
        if writer.handle().lookup(key)?.is_none() {
            let bytes = source.store().get_part(key)?;
            mint::put(writer, &bytes)?;
        }
    }
    let mut keys = vec![mint::put(writer, &body)?];
    let mut sign = |signers: Vec<&Signer>, domain: &DomainId| -> Result<()> {
        for signer in signers {
            let signature = lineage::sign(signer, domain, &body).encode();
            keys.push(mint::put(writer, &signature)?);
        }
        Ok(())
    };
    let head = &parent.chain.head().dam;
    let signers = roots(head, &parent.id(), means.keys)
        .map_err(|(have, need)| PromoteError::Roots { have, need })?;
    sign(signers, &parent.id())?;
    if let Some(child_keys) = means.child_keys {
        let child = &plan.child.domain;
        let signers = roots(&child.chain.head().dam, &child.id(), child_keys)
            .map_err(|(have, need)| PromoteError::ChildRoots { have, need })?;
        sign(signers, &child.id())?;
    }
    let mut records: Vec<SessionRecord> = Vec::new();
    for takeover in &plan.sessions {
        records.extend(sessions::records(source, takeover, means));
    }
    records.push(ended(link, keys[0]));
    let mut batches = batches(records).into_iter();
    let first = batches.next().unwrap_or_default();
    writer.authority_with(Authority::Lineage, &keys, &first)?;
    for batch in batches {
        writer.sessions(&batch)?;
    }
    writer.leave_session();
    Ok(keys[0])
}

/// The record that ends a promotion's session.
fn ended(link: &Lineage, key: Key) -> SessionRecord {
    SessionRecord {
        session: link.session(),
        kind: format::SESSION_FINISHED,
        root: Some(key),
        body: sessions::description(link),
    }
}

fn batches(records: Vec<SessionRecord>) -> Vec<Vec<SessionRecord>> {
    let mut batches: Vec<Vec<SessionRecord>> = Vec::new();
    let mut len = APPEND_MAX;
    for record in records {
        len += record.body.len();
        if len >= APPEND_MAX {
            len = record.body.len();
            batches.push(Vec::new());
        }
        if let Some(last) = batches.last_mut() {
            last.push(record);
        }
    }
    batches
}

/// Everything after the lineages that is not there yet. `links` are those of the plan's instances, in their order; none for one that has
/// nothing.
pub(super) fn finish(
    plan: &Plan,
    source: &Source,
    writer: &mut StoreWriter,
    means: &Means<'_>,
    links: &[Option<Key>],
) -> Result<Domain> {
    let parent = open_target(writer.handle())?;
    let mut records: Vec<SessionRecord> = Vec::new();
    let mut snapshot = false;
    let mut linked = Vec::new();
    for ((plan, instance), key) in plan.instances.iter().zip(source.instances()).zip(links) {
        let Some(key) = key else {
            continue;
        };
        let found = parent.links().find(|(state, _)| state.key == *key);
        let (state, link) = found.ok_or(PromoteError::TargetChanged)?;
        let child = &plan.child.domain;
        let tail = Tail::of(writer.handle(), &parent, child, &plan.finished, state, link);
        for takeover in &tail.sessions {
            records.extend(sessions::records(instance, takeover, means));
        }
        if tail.unended {
            records.push(ended(link, *key));
        }
        snapshot |= tail.snapshot;
        linked.push(link);
    }
    for batch in batches(records) {
        writer.sessions(&batch)?;
    }
    if snapshot {
        writer.snapshot(&format!("promoted {:.24}", plan.child_domain().to_string()))?;
    }
    let of_all: Vec<Done> = (linked.iter())
        .flat_map(|link| done(writer.handle(), link))
        .collect();
    mint::attest(writer, means.keys, &of_all)?;
    let made = mint::checkpoint(writer, means.keys)?;
    let domain = open_target(writer.handle())?;
    if let Checkpointed::Made { .. } = made {
        let host = means.keys.signers(Role::Host).next().map(Signer::id);
        let handle = writer.handle();
        meta::materialise(&**handle.vfs(), handle, &domain, host)?;
    }
    Ok(domain)
}
