//! The rules by which one manifest may follow another: what may change, and who must have signed.
//!
//! A candidate is judged against the manifest that it names as `prev`, whether that one leads to the head or not:
//! [`Chain::extend`] then decides what a valid one means. So evidence of a fork is never made by somebody without keys.
//!
//! Signatures that do not verify are not counted and do not refuse: whoever relays a record could otherwise spoil it by adding
//! one. Keys are counted by the id that is recomputed from the listed key.

use std::collections::{BTreeMap, BTreeSet};

use asl_store::Key;

use super::{Candidate, Chain, ChainError, Node, SIGNATURES_MAX, Shortfall, Uncounted};
use crate::dam::{Dam, Kind};
use crate::id::{DomainId, KeyId, NextDigest};
use crate::key::PublicKey;
use crate::policy::Policy;
use crate::sign::{Context, Signature};

/// Judges a first manifest.
pub(super) fn genesis(candidate: &Candidate<'_>) -> Result<(DomainId, Node), ChainError> {
    let (dam, policy) = read(candidate)?;
    if dam.version != 0 {
        return Err(ChainError::GenesisVersion {
            version: dam.version,
        });
    }
    if dam.rotation != 0 {
        return Err(ChainError::GenesisRotation {
            rotation: dam.rotation,
        });
    }
    if dam.prev.is_some() {
        return Err(ChainError::GenesisPrev);
    }
    if dam.domain.is_some() {
        return Err(ChainError::GenesisDomain);
    }
    if !dam.revoked.is_empty() {
        return Err(ChainError::GenesisRevokes);
    }
    let domain = DomainId::of_genesis(candidate.dam);
    let key = Key::of(candidate.dam);
    let signed = Signed::over(candidate, key, &domain, keyring(&[&dam]));
    for root in &dam.roots {
        if !signed.dam.contains(&root.id()) {
            return Err(ChainError::RootPossession { key: root.id() });
        }
    }
    signed.possession(&dam, None)?;
    Ok((
        domain,
        Node {
            key,
            policy,
            signers: signed.signers(),
            epoch: key,
            dam,
        },
    ))
}

/// Judges a manifest that follows another of `chain`.
pub(super) fn successor(chain: &Chain, candidate: &Candidate<'_>) -> Result<Node, ChainError> {
    let key = Key::of(candidate.dam);
    if let Some(known) = chain.node(&key) {
        return Err(ChainError::Replayed {
            version: known.dam.version,
        });
    }
    let (dam, policy) = read(candidate)?;
    let Some(prev) = dam.prev else {
        return Err(if dam.domain.is_none() {
            ChainError::SecondGenesis
        } else {
            ChainError::NoPrev
        });
    };
    if dam.domain != Some(chain.domain()) {
        return Err(ChainError::OtherDomain { found: dam.domain });
    }
    let parent = chain.node(&prev).ok_or(ChainError::UnknownPrev { prev })?;
    let before = &parent.dam;
    if before.version.checked_add(1) != Some(dam.version) {
        return Err(ChainError::VersionStep {
            expected: before.version.saturating_add(1),
            found: dam.version,
        });
    }
    let rotates = before.rotation.checked_add(1) == Some(dam.rotation);
    if !rotates && dam.rotation != before.rotation {
        return Err(ChainError::RotationStep {
            before: before.rotation,
            found: dam.rotation,
        });
    }
    if dam.kind != before.kind {
        return Err(ChainError::KindChanged {
            before: before.kind,
            found: dam.kind,
        });
    }
    revocations(before, &dam)?;

    let signed = Signed::over(candidate, key, &chain.domain(), keyring(&[before, &dam]));
    if rotates {
        rotation(chain, parent, &dam, &signed)?;
    } else {
        update(parent, &dam, &signed)?;
    }
    signed.possession(&dam, Some(before))?;
    Ok(Node {
        key,
        policy,
        signers: signed.signers(),
        epoch: if rotates { key } else { parent.epoch },
        dam,
    })
}

fn read(candidate: &Candidate<'_>) -> Result<(Dam, Policy), ChainError> {
    let dam = Dam::decode(candidate.dam)?;
    let found = Key::of(candidate.policy);
    if found != dam.policy {
        return Err(ChainError::OtherPolicy {
            named: dam.policy,
            found,
        });
    }
    let policy = Policy::decode(candidate.policy)?;
    policy
        .satisfiable(&dam.witness)
        .map_err(ChainError::Unsatisfiable)?;
    if candidate.signatures.len() > SIGNATURES_MAX {
        return Err(ChainError::TooManySignatures {
            found: candidate.signatures.len(),
        });
    }
    Ok((dam, policy))
}

/// Revocations only grow, and what they name stays out.
fn revocations(before: &Dam, dam: &Dam) -> Result<(), ChainError> {
    for old in &before.revoked {
        let kept = (dam.revoked.iter()).find(|new| new.key == old.key && new.store == old.store);
        match kept {
            None => {
                return Err(ChainError::RevocationDropped {
                    key: old.key,
                    store: old.store,
                });
            }
            Some(new) if new.position > old.position => {
                return Err(ChainError::RevocationLater {
                    key: old.key,
                    store: old.store,
                    position: new.position,
                });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn update(parent: &Node, dam: &Dam, signed: &Signed) -> Result<(), ChainError> {
    let before = &parent.dam;
    if dam.roots != before.roots {
        return Err(ChainError::RootsChanged);
    }
    if dam.root_threshold != before.root_threshold {
        return Err(ChainError::RootThresholdChanged);
    }
    if dam.next != before.next {
        return Err(ChainError::NextChanged);
    }
    if dam.next_threshold != before.next_threshold {
        return Err(ChainError::NextThresholdChanged);
    }
    if dam.witness != before.witness {
        return Err(ChainError::WitnessChanged);
    }

    let need = usize::from(before.root_threshold);
    let (counting, revoked) = signed.by(&before.roots, before);
    if counting < need {
        return Err(match revoked.first() {
            Some(key) if counting + revoked.len() >= need => ChainError::RevokedRoot { key: *key },
            _ => ChainError::RootThreshold(signed.shortfall(counting, need)),
        });
    }
    if dam.kind == Kind::Common && dam.policy != before.policy {
        let (have, need) = before.witness.count(&signed.cosigned);
        if have < need {
            return Err(ChainError::PolicyCosign(signed.shortfall(have, need)));
        }
    }
    Ok(())
}

fn rotation(chain: &Chain, parent: &Node, dam: &Dam, signed: &Signed) -> Result<(), ChainError> {
    let before = &parent.dam;
    if let Some(root) = dam.roots.iter().find(|root| dam.revokes(&root.id())) {
        return Err(ChainError::RevokedListed { key: root.id() });
    }
    let revealed: Vec<PublicKey> = (dam.roots.iter())
        .filter(|root| before.next.contains(&root.next_digest()))
        .copied()
        .collect();
    let need = usize::from(before.next_threshold);
    let (have, _) = signed.by(&revealed, before);
    if have < need {
        return Err(ChainError::Unrevealed(signed.shortfall(have, need)));
    }
    let need = usize::from(dam.root_threshold);
    let (have, _) = signed.by(&dam.roots, before);
    if have < need {
        return Err(ChainError::NewRootThreshold(signed.shortfall(have, need)));
    }
    if parent.policy.rotation_needs_roots(before.kind) {
        let need = usize::from(before.root_threshold);
        let (have, _) = signed.by(&before.roots, before);
        if have < need {
            return Err(ChainError::RecoveryNeedsRoots(signed.shortfall(have, need)));
        }
    }
    let mut used: BTreeSet<NextDigest> = BTreeSet::new();
    for ancestor in chain.ancestors(parent) {
        used.extend(&ancestor.dam.next);
        used.extend(ancestor.dam.roots.iter().map(PublicKey::next_digest));
    }
    if dam.next.iter().any(|digest| used.contains(digest)) {
        return Err(ChainError::NextReused);
    }
    Ok(())
}

/// The keys that may have signed, by their recomputed ids.
fn keyring(dams: &[&Dam]) -> BTreeMap<KeyId, PublicKey> {
    let mut ring = BTreeMap::new();
    for dam in dams {
        let keys = (dam.roots.iter())
            .chain(dam.principals.iter().map(|p| &p.key))
            .chain(dam.witness.members.iter().map(|m| &m.key));
        ring.extend(keys.map(|key| (key.id(), *key)));
    }
    ring
}

/// The signatures over one candidate that verify.
struct Signed {
    /// For the manifest.
    dam: BTreeSet<KeyId>,
    /// For its change of policy.
    cosigned: BTreeSet<KeyId>,
    uncounted: Vec<Uncounted>,
}

impl Signed {
    fn over(
        candidate: &Candidate<'_>,
        key: Key,
        domain: &DomainId,
        ring: BTreeMap<KeyId, PublicKey>,
    ) -> Self {
        let mut signed = Self {
            dam: BTreeSet::new(),
            cosigned: BTreeSet::new(),
            uncounted: Vec::new(),
        };
        for (index, bytes) in candidate.signatures.iter().enumerate() {
            if let Err(why) = signed.take(index, bytes, candidate.dam, key, domain, &ring) {
                signed.uncounted.push(why);
            }
        }
        signed
    }

    fn take(
        &mut self,
        index: usize,
        bytes: &[u8],
        dam: &[u8],
        key: Key,
        domain: &DomainId,
        ring: &BTreeMap<KeyId, PublicKey>,
    ) -> Result<(), Uncounted> {
        let signature =
            Signature::decode(bytes).map_err(|source| Uncounted::Malformed { index, source })?;
        if signature.body != key {
            return Err(Uncounted::OtherBody {
                index,
                body: signature.body,
            });
        }
        let context = signature.context;
        let signers = match context {
            Context::Dam => &mut self.dam,
            Context::CosignPolicy => &mut self.cosigned,
            Context::Receipt | Context::Lineage => {
                return Err(Uncounted::OtherContext { index, context });
            }
        };
        let signer = signature.signer;
        let public = ring
            .get(&signer)
            .ok_or(Uncounted::Unlisted { index, signer })?;
        signature
            .verify(context, domain, dam, public)
            .map_err(|source| Uncounted::Invalid {
                index,
                signer,
                source,
            })?;
        if !signers.insert(public.id()) {
            return Err(Uncounted::Repeated { index, signer });
        }
        Ok(())
    }

    /// How many of `keys` signed the manifest and are not revoked by `before`, and who signed but is.
    fn by(&self, keys: &[PublicKey], before: &Dam) -> (usize, Vec<KeyId>) {
        let signed: BTreeSet<KeyId> = (keys.iter().map(PublicKey::id))
            .filter(|id| self.dam.contains(id))
            .collect();
        let (revoked, counting): (Vec<_>, Vec<_>) =
            signed.into_iter().partition(|id| before.revokes(id));
        (counting.len(), revoked)
    }

    /// Every principal that `before` does not list must have signed.
    fn possession(&self, dam: &Dam, before: Option<&Dam>) -> Result<(), ChainError> {
        for principal in &dam.principals {
            let key = principal.key.id();
            let known = before.is_some_and(|before| before.principal(&key).is_some());
            if !known && !self.dam.contains(&key) {
                return Err(ChainError::PrincipalPossession { key });
            }
        }
        Ok(())
    }

    fn shortfall(&self, have: usize, need: usize) -> Shortfall {
        Shortfall {
            have,
            need,
            uncounted: self.uncounted.clone(),
        }
    }

    fn signers(&self) -> BTreeSet<KeyId> {
        self.dam.union(&self.cosigned).copied().collect()
    }
}
