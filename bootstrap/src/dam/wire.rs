//! A manifest as its bytes have it, and back. Numbers that name something are looked up here; keys are loaded here.

use asl_store::{Key, LogPosition, StoreId};
use serde::{Deserialize, Serialize};

use super::{
    Anchor, DAM_LEN_MAX, DAM_MAGIC, Dam, DamError, Kind, LIST_MAX, List, Member, Principal, Reason,
    Revocation, Roles, Witness, WitnessMode,
};
use crate::codec::{self, Document};
use crate::id::{DomainId, KeyId, NextDigest};
use crate::key::PublicKey;

/// A DAM as postcard writes it. Enumerations are bytes here, so that each bad value is told apart from a malformed document.
#[derive(Serialize, Deserialize)]
pub(super) struct Wire {
    critical: u32,
    kind: u8,
    version: u64,
    rotation: u64,
    prev: Option<[u8; 32]>,
    domain: Option<[u8; 32]>,
    nonce: [u8; 32],
    roots: Vec<WireKey>,
    root_threshold: u8,
    next: Vec<[u8; 32]>,
    next_threshold: u8,
    principals: Vec<WirePrincipal>,
    witness: WireWitness,
    policy: [u8; 32],
    revoked: Vec<WireRevocation>,
    anchor: Option<WireAnchor>,
    label: String,
    created_hint: i64,
}

impl Document for Wire {
    const TAG: [u8; codec::TAG_LEN] = *DAM_MAGIC;
    const WHAT: &'static str = "a DAM";
    const LEN_MAX: usize = DAM_LEN_MAX;
}

#[derive(Serialize, Deserialize)]
struct WireKey {
    alg: u8,
    pk: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct WirePrincipal {
    key: WireKey,
    roles: u16,
}

#[derive(Serialize, Deserialize)]
struct WireWitness {
    mode: u8,
    members: Vec<WireMember>,
    threshold: u8,
}

#[derive(Serialize, Deserialize)]
struct WireMember {
    key: WireKey,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct WireRevocation {
    key: [u8; 32],
    store: [u8; 16],
    position: u64,
    reason: u8,
}

#[derive(Serialize, Deserialize)]
struct WireAnchor {
    store: [u8; 16],
    position: u64,
    chain: [u8; 32],
}

impl From<&PublicKey> for WireKey {
    fn from(key: &PublicKey) -> Self {
        Self {
            alg: key.alg(),
            pk: *key.bytes(),
        }
    }
}

impl From<&Dam> for Wire {
    fn from(dam: &Dam) -> Self {
        Self {
            critical: 0,
            kind: dam.kind as u8,
            version: dam.version,
            rotation: dam.rotation,
            prev: dam.prev.map(|key| key.0),
            domain: dam.domain.map(|id| id.0),
            nonce: dam.nonce,
            roots: dam.roots.iter().map(WireKey::from).collect(),
            root_threshold: dam.root_threshold,
            next: dam.next.iter().map(|digest| digest.0).collect(),
            next_threshold: dam.next_threshold,
            principals: (dam.principals.iter())
                .map(|p| WirePrincipal {
                    key: (&p.key).into(),
                    roles: p.roles.0,
                })
                .collect(),
            witness: WireWitness {
                mode: dam.witness.mode as u8,
                members: (dam.witness.members.iter())
                    .map(|m| WireMember {
                        key: (&m.key).into(),
                        name: m.name.clone(),
                    })
                    .collect(),
                threshold: dam.witness.threshold,
            },
            policy: dam.policy.0,
            revoked: (dam.revoked.iter())
                .map(|r| WireRevocation {
                    key: r.key.0,
                    store: r.store.0,
                    position: r.position.0,
                    reason: r.reason as u8,
                })
                .collect(),
            anchor: dam.anchor.map(|a| WireAnchor {
                store: a.store.0,
                position: a.position.0,
                chain: a.chain,
            }),
            label: dam.label.clone(),
            created_hint: dam.created_hint,
        }
    }
}

fn load(list: List, index: usize, key: &WireKey) -> Result<PublicKey, DamError> {
    PublicKey::load(key.alg, &key.pk).map_err(|source| DamError::Key {
        list,
        index,
        source,
    })
}

impl Wire {
    pub(super) fn into_dam(self) -> Result<Dam, DamError> {
        // Before any key is loaded: a point costs more than a byte.
        for (list, len) in [
            (List::Roots, self.roots.len()),
            (List::Next, self.next.len()),
            (List::Principals, self.principals.len()),
            (List::Witnesses, self.witness.members.len()),
            (List::Revoked, self.revoked.len()),
        ] {
            if len > LIST_MAX {
                return Err(DamError::ListTooLong { list, len });
            }
        }
        let roots = (self.roots.iter().enumerate())
            .map(|(i, key)| load(List::Roots, i, key))
            .collect::<Result<_, _>>()?;
        let principals = (self.principals.iter().enumerate())
            .map(|(i, p)| {
                Ok(Principal {
                    key: load(List::Principals, i, &p.key)?,
                    roles: Roles(p.roles),
                })
            })
            .collect::<Result<_, DamError>>()?;
        let members = (self.witness.members.into_iter().enumerate())
            .map(|(i, m)| {
                Ok(Member {
                    key: load(List::Witnesses, i, &m.key)?,
                    name: m.name,
                })
            })
            .collect::<Result<_, DamError>>()?;
        let revoked = (self.revoked.iter())
            .map(|r| {
                Ok(Revocation {
                    key: KeyId(r.key),
                    store: StoreId(r.store),
                    position: LogPosition(r.position),
                    reason: Reason::from_byte(r.reason).ok_or(DamError::Reason(r.reason))?,
                })
            })
            .collect::<Result<_, DamError>>()?;
        Ok(Dam {
            kind: Kind::from_byte(self.kind).ok_or(DamError::Kind(self.kind))?,
            version: self.version,
            rotation: self.rotation,
            prev: self.prev.map(Key),
            domain: self.domain.map(DomainId),
            nonce: self.nonce,
            roots,
            root_threshold: self.root_threshold,
            next: self.next.into_iter().map(NextDigest).collect(),
            next_threshold: self.next_threshold,
            principals,
            witness: Witness {
                mode: WitnessMode::from_byte(self.witness.mode)
                    .ok_or(DamError::WitnessMode(self.witness.mode))?,
                members,
                threshold: self.witness.threshold,
            },
            policy: Key(self.policy),
            revoked,
            anchor: self.anchor.map(|a| Anchor {
                store: StoreId(a.store),
                position: LogPosition(a.position),
                chain: a.chain,
            }),
            label: self.label,
            created_hint: self.created_hint,
        })
    }
}
