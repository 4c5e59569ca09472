//! The domain authority manifest (DAM): who speaks for a domain, as one document that never changes.
//!
//! Invariants
//! - A [`Dam`] has one encoding. What decodes is re-encoded and compared, so no second artifact, under another name, says
//!   the same; `domain`, `prev` and every signature are over the bytes as stored.
//! - Bits of `critical` that this program does not know refuse the document before anything else in it is looked at: a
//!   reader that would skip a revocation must not go on.
//! - Each rule on a single document has its own [`DamError`]. What a document may change relative to the one before it, and
//!   who must sign it, is [`crate::chain`]'s.
//!
//! Nothing here looks at a signature.

mod error;
mod wire;

use std::collections::BTreeSet;
use std::fmt;

use asl_store::{Key, LogPosition, StoreId};

use self::wire::Wire;
use crate::codec;
use crate::id::{DomainId, KeyId, NextDigest};
use crate::key::PublicKey;

pub use self::error::DamError;

/// First bytes of a DAM artifact.
pub const DAM_MAGIC: &[u8; 8] = b"ASLDAM1\n";
/// Longest DAM artifact, in bytes.
pub const DAM_LEN_MAX: usize = 64 * 1024;
/// Most entries of any list in a DAM.
pub const LIST_MAX: usize = 64;
/// Longest label, in bytes of UTF-8.
pub const LABEL_MAX: usize = 64;
/// Longest name of a witness, in bytes of UTF-8.
pub const WITNESS_NAME_MAX: usize = 64;

macro_rules! byte_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $value:ident = $byte:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $value = $byte,)* }
        impl $name {
            fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($byte => Some(Self::$value),)* _ => None }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$value => $text,)* })
            }
        }
    };
}

byte_enum! {
    /// What sort of domain this is. Never changes.
    Kind {
        /// One person's: any one root speaks for it, and the phrase alone recovers it.
        Personal = 0 "personal",
        /// Several people's: roots speak at a threshold.
        Group = 1 "group",
        /// Everybody's: witnesses watch it, and it is read-only on hosts that are not its writers.
        Common = 2 "common",
    }
}
byte_enum! {
    /// Who else watches the log.
    WitnessMode {
        /// Nobody.
        None = 0 "none",
        /// One witness.
        Single = 1 "single",
        /// A number of several.
        Quorum = 2 "quorum",
    }
}
byte_enum! {
    /// Why a key was revoked. Says nothing about what counts; that is the policy's.
    Reason {
        /// Not said.
        Unspecified = 0 "unspecified",
        /// Somebody else may have it.
        Compromised = 1 "compromised",
        /// Nobody has it any more.
        Lost = 2 "lost",
        /// Another took its place.
        Replaced = 3 "replaced",
    }
}

/// What a principal may do: a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Roles(pub u16);

impl Roles {
    /// Signs receipts of captures, and writes into stores of a common domain.
    pub const PRODUCE: Self = Self(1);
    /// Signs checkpoints of the log, and nothing else.
    pub const CHECKPOINT: Self = Self(2);
    /// Publishes to other domains.
    pub const PUBLISH: Self = Self(4);
    /// Takes over from other domains.
    pub const FEDERATE: Self = Self(8);
    /// Signs audits.
    pub const AUDIT: Self = Self(16);

    const KNOWN: u16 = 31;

    /// Whether all bits of `roles` are set.
    pub fn contains(self, roles: Self) -> bool {
        self.0 & roles.0 == roles.0
    }
}

impl std::ops::BitOr for Roles {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::PRODUCE, "produce"),
            (Self::CHECKPOINT, "checkpoint"),
            (Self::PUBLISH, "publish"),
            (Self::FEDERATE, "federate"),
            (Self::AUDIT, "audit"),
        ];
        let names: Vec<&str> = names
            .iter()
            .filter(|(role, _)| self.contains(*role))
            .map(|(_, name)| *name)
            .collect();
        f.write_str(&names.join("+"))
    }
}

/// A key that acts for the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The key.
    pub key: PublicKey,
    /// What it may do.
    pub roles: Roles,
}

/// A witness: somebody else's key, which cosigns checkpoints and nothing of the domain's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The key.
    pub key: PublicKey,
    /// Its name in signed notes: at most [`WITNESS_NAME_MAX`] bytes, without blanks and `+`.
    pub name: String,
}

/// The witnesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Whether there are any.
    pub mode: WitnessMode,
    /// Who they are, in the order of their key ids.
    pub members: Vec<Member>,
    /// How many of them must have cosigned; zero without witnesses.
    pub threshold: u8,
}

impl Witness {
    /// No witnesses.
    pub const NONE: Self = Self {
        mode: WitnessMode::None,
        members: Vec::new(),
        threshold: 0,
    };

    /// How many distinct members are among `keys`, and how many are needed.
    pub fn count<'a>(&self, keys: impl IntoIterator<Item = &'a KeyId>) -> (usize, usize) {
        let members: BTreeSet<KeyId> = self.members.iter().map(|m| m.key.id()).collect();
        let distinct: BTreeSet<&KeyId> = keys.into_iter().collect();
        let have = distinct
            .into_iter()
            .filter(|key| members.contains(key))
            .count();
        (have, usize::from(self.threshold))
    }
}

/// A key whose signatures no longer count, from a position of one store's log on. In stores that no entry names for the key, none
/// of its signatures count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revocation {
    /// The key.
    pub key: KeyId,
    /// The store instance.
    pub store: StoreId,
    /// The first record on which its signatures no longer count.
    pub position: LogPosition,
    /// Why.
    pub reason: Reason,
}

/// Where in a log the author of a DAM stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The store instance.
    pub store: StoreId,
    /// Records before it.
    pub position: LogPosition,
    /// The log's chain value there.
    pub chain: [u8; 32],
}

/// A domain authority manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dam {
    /// What sort of domain.
    pub kind: Kind,
    /// Counts manifests along the chain, from 0.
    pub version: u64,
    /// Counts rotations along the chain, from 0.
    pub rotation: u64,
    /// The manifest before this one; none at genesis.
    pub prev: Option<Key>,
    /// The domain; none at genesis, whose digest it is.
    pub domain: Option<DomainId>,
    /// Random: makes the ids of domains with equal keys differ.
    pub nonce: [u8; 32],
    /// Who speaks for the domain, in the order of key ids.
    pub roots: Vec<PublicKey>,
    /// How many roots must sign an ordinary update.
    pub root_threshold: u8,
    /// Commitments to the keys of the next rotation, ascending.
    pub next: Vec<NextDigest>,
    /// How many of them must be revealed and sign.
    pub next_threshold: u8,
    /// Who acts for the domain, in the order of key ids.
    pub principals: Vec<Principal>,
    /// Who watches.
    pub witness: Witness,
    /// Name of the policy artifact.
    pub policy: Key,
    /// Revoked keys, ascending by key and store.
    pub revoked: Vec<Revocation>,
    /// Where the author stood.
    pub anchor: Option<Anchor>,
    /// What people call the domain: at most [`LABEL_MAX`] bytes, nothing that a terminal obeys.
    pub label: String,
    /// When, in nanoseconds since 1970, by whatever clock the author had. Nothing depends on it.
    pub created_hint: i64,
}

/// Names the lists of a DAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// [`Dam::roots`].
    Roots,
    /// [`Dam::next`].
    Next,
    /// [`Dam::principals`].
    Principals,
    /// [`Witness::members`].
    Witnesses,
    /// [`Dam::revoked`].
    Revoked,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Roots => "roots",
            Self::Next => "next keys",
            Self::Principals => "principals",
            Self::Witnesses => "witnesses",
            Self::Revoked => "revoked keys",
        })
    }
}

impl Dam {
    /// Reads a DAM artifact and checks every rule on it alone.
    ///
    /// # Errors
    /// [`DamError`]: the first rule it breaks.
    pub fn decode(bytes: &[u8]) -> Result<Self, DamError> {
        if bytes.len() > DAM_LEN_MAX {
            return Err(DamError::TooLong { len: bytes.len() });
        }
        let body = bytes.strip_prefix(DAM_MAGIC).ok_or(DamError::Magic)?;
        // First, because after an unknown bit nothing else need look as it does now.
        if let Ok((bits, _)) = postcard::take_from_bytes::<u32>(body)
            && bits != 0
        {
            return Err(DamError::Critical { bits });
        }
        let wire: Wire = codec::decode(bytes).map_err(DamError::Encoding)?;
        let dam = wire.into_dam()?;
        dam.validate()?;
        Ok(dam)
    }

    /// The artifact.
    ///
    /// # Errors
    /// [`DamError`]: the first rule that it would break.
    pub fn encode(&self) -> Result<Vec<u8>, DamError> {
        self.validate()?;
        codec::encode(&Wire::from(self)).map_err(DamError::Encoding)
    }

    /// Puts the lists into their order. For authors; a decoded DAM is in order.
    pub fn sort(&mut self) {
        self.roots.sort_by_key(PublicKey::id);
        self.next.sort();
        self.principals.sort_by_key(|p| p.key.id());
        self.witness.members.sort_by_key(|m| m.key.id());
        self.revoked.sort();
    }

    /// Whether the key is among the roots.
    pub fn is_root(&self, key: &KeyId) -> bool {
        self.roots.iter().any(|root| root.id() == *key)
    }

    /// The principal with this key.
    pub fn principal(&self, key: &KeyId) -> Option<&Principal> {
        self.principals.iter().find(|p| p.key.id() == *key)
    }

    /// Whether the key is listed as a principal with all of `roles`.
    pub fn has_role(&self, key: &KeyId, roles: Roles) -> bool {
        self.principal(key).is_some_and(|p| p.roles.contains(roles))
    }

    /// Whether any revocation names the key.
    pub fn revokes(&self, key: &KeyId) -> bool {
        self.revoked.iter().any(|r| r.key == *key)
    }

    /// Revokes a key in one store: takes it off the principals, and keeps the earlier position if there is one already. For
    /// authors.
    pub fn revoke(&mut self, revocation: Revocation) {
        self.principals.retain(|p| p.key.id() != revocation.key);
        let same = |r: &&mut Revocation| r.key == revocation.key && r.store == revocation.store;
        match self.revoked.iter_mut().find(same) {
            Some(known) if known.position <= revocation.position => {}
            Some(known) => *known = revocation,
            None => self.revoked.push(revocation),
        }
    }

    /// Every rule on a DAM alone, but for its encoding.
    fn validate(&self) -> Result<(), DamError> {
        let root_ids: Vec<KeyId> = self.roots.iter().map(PublicKey::id).collect();
        let principal_ids: Vec<KeyId> = self.principals.iter().map(|p| p.key.id()).collect();
        let member_ids: Vec<KeyId> = self.witness.members.iter().map(|m| m.key.id()).collect();
        ascending(List::Roots, &root_ids)?;
        ascending(List::Next, &self.next)?;
        ascending(List::Principals, &principal_ids)?;
        ascending(List::Witnesses, &member_ids)?;
        let revoked: Vec<_> = self.revoked.iter().map(|r| (r.key, r.store)).collect();
        ascending(List::Revoked, &revoked)?;

        self.check_threshold(List::Roots, self.root_threshold, self.roots.len())?;
        self.check_threshold(List::Next, self.next_threshold, self.next.len())?;
        self.check_witness(&member_ids)?;

        for (principal, id) in self.principals.iter().zip(&principal_ids) {
            self.check_principal(principal, *id, &root_ids)?;
        }
        for id in &member_ids {
            if root_ids.contains(id) || principal_ids.contains(id) {
                return Err(DamError::WitnessListed { key: *id });
            }
            if self.revokes(id) {
                return Err(DamError::WitnessRevoked { key: *id });
            }
        }
        let open = (self.roots.iter())
            .chain(self.principals.iter().map(|p| &p.key))
            .chain(self.witness.members.iter().map(|m| &m.key));
        for key in open {
            if self.next.contains(&key.next_digest()) {
                return Err(DamError::NextListed { key: key.id() });
            }
        }

        if self.label.len() > LABEL_MAX {
            return Err(DamError::LabelTooLong {
                len: self.label.len(),
            });
        }
        if let Some(character) = self.label.chars().find(|c| !is_plain(*c)) {
            return Err(DamError::LabelText { character });
        }
        Ok(())
    }

    fn check_threshold(&self, list: List, threshold: u8, of: usize) -> Result<(), DamError> {
        if of == 0 {
            return Err(DamError::ListEmpty { list });
        }
        if threshold == 0 || usize::from(threshold) > of {
            return Err(DamError::Threshold {
                list,
                threshold,
                of,
            });
        }
        if self.kind == Kind::Personal && threshold != 1 {
            return Err(DamError::PersonalThreshold { list, threshold });
        }
        Ok(())
    }

    fn check_principal(
        &self,
        principal: &Principal,
        key: KeyId,
        roots: &[KeyId],
    ) -> Result<(), DamError> {
        let roles = principal.roles;
        if roles.0 & !Roles::KNOWN != 0 {
            return Err(DamError::RolesUnknown {
                key,
                roles: roles.0,
            });
        }
        if roles.0 == 0 {
            return Err(DamError::RolesEmpty { key });
        }
        if roles.contains(Roles::CHECKPOINT) {
            if roles != Roles::CHECKPOINT {
                return Err(DamError::CheckpointShared { key });
            }
            if roots.contains(&key) {
                return Err(DamError::CheckpointRoot { key });
            }
        }
        if self.revokes(&key) {
            return Err(DamError::PrincipalRevoked { key });
        }
        Ok(())
    }

    fn check_witness(&self, ids: &[KeyId]) -> Result<(), DamError> {
        let Witness {
            mode,
            members,
            threshold,
        } = &self.witness;
        if self.kind == Kind::Common && *mode != WitnessMode::Quorum {
            return Err(DamError::CommonUnwitnessed { mode: *mode });
        }
        match mode {
            WitnessMode::None => {
                if !members.is_empty() || *threshold != 0 {
                    return Err(DamError::WitnessNone {
                        members: members.len(),
                        threshold: *threshold,
                    });
                }
                return Ok(());
            }
            WitnessMode::Single if members.len() != 1 => {
                return Err(DamError::WitnessSingle {
                    members: members.len(),
                });
            }
            WitnessMode::Single | WitnessMode::Quorum => {}
        }
        if *threshold == 0 || usize::from(*threshold) > members.len() {
            return Err(DamError::Threshold {
                list: List::Witnesses,
                threshold: *threshold,
                of: members.len(),
            });
        }
        let mut names = BTreeSet::new();
        for (member, key) in members.iter().zip(ids) {
            let name = &member.name;
            let sendable = |c: char| is_plain(c) && !c.is_whitespace() && c != '+';
            if name.is_empty() || name.len() > WITNESS_NAME_MAX || !name.chars().all(sendable) {
                return Err(DamError::WitnessName { key: *key });
            }
            if !names.insert(name) {
                return Err(DamError::WitnessNameTwice { key: *key });
            }
        }
        Ok(())
    }
}

/// Whether a character may stand in a label: no control character, and none of the invisible ones that reorder or hide text.
pub fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn ascending<T: Ord>(list: List, entries: &[T]) -> Result<(), DamError> {
    if entries.len() > LIST_MAX {
        return Err(DamError::ListTooLong {
            list,
            len: entries.len(),
        });
    }
    if entries.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(DamError::ListRepeats { list });
    }
    if !entries.is_sorted() {
        return Err(DamError::ListOrder { list });
    }
    Ok(())
}
