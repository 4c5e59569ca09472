//! What a change says: the manifest that a rotation or an update asks for, and the keys that are drawn for it.
//!
//! Nothing is written here.

use asl_store::Key;

use super::{GovernError, Plan};
use crate::author::{AuthorError, Draft};
use crate::chain::{Chain, Standing};
use crate::dam::{Anchor, Dam, Kind, Principal, Revocation, Roles, Witness};
use crate::domain::Domain;
use crate::error::Result;
use crate::id::KeyId;
use crate::key::{Random, Secret, Signer};
use crate::keyfile::{KeyFile, Role};
use crate::mint::MintError;
use crate::phrase::Phrase;
use crate::policy::Policy;

/// What becomes of the keys that sign receipts and checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// They stay.
    Keep,
    /// This host gets new ones; those of the key file leave.
    Fresh,
    /// This host gets new ones, and no other key signs receipts or checkpoints any more.
    Only,
}

/// What a rotation does besides taking the revealed key as root and committing to another.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The manifest of the current epoch to go on from: updates after it are voided. The head, where none is named.
    pub from: Option<Key>,
    /// Host and checkpoint keys.
    pub hosts: Hosts,
    /// Keys to revoke. One of this host is replaced.
    pub revoke: Vec<Revocation>,
    /// Other witnesses.
    pub witness: Option<Witness>,
    /// To go on although the log has a second rotation of one epoch, which nothing settles.
    pub despite_rivals: bool,
    /// Unix time in nanoseconds, by whatever clock there is.
    pub created_hint: i64,
}

impl Rotation {
    /// A rotation that changes nothing else.
    pub fn plain(created_hint: i64) -> Self {
        Self {
            from: None,
            hosts: Hosts::Keep,
            revoke: Vec::new(),
            witness: None,
            despite_rivals: false,
            created_hint,
        }
    }

    /// The recovery of a domain whose key file is lost: this host is its only one.
    pub fn recovery(created_hint: i64) -> Self {
        Self {
            hosts: Hosts::Only,
            ..Self::plain(created_hint)
        }
    }
}

/// What an update changes.
#[derive(Debug, Clone)]
pub struct Update {
    /// Another label.
    pub label: Option<String>,
    /// Another policy.
    pub policy: Option<Policy>,
    /// Keys to revoke. One of this host is replaced.
    pub revoke: Vec<Revocation>,
    /// Principals that are listed anew, or with other roles. A new one has to sign: [`Draft::signed`].
    pub list: Vec<Principal>,
    /// Keys to draw into the key file and to list.
    pub draw: Vec<(Role, Roles)>,
    /// Principals that are no longer listed; what they signed still counts.
    pub unlist: Vec<KeyId>,
    /// To go on although the log has a second rotation of one epoch, which nothing settles.
    pub despite_rivals: bool,
    /// Unix time in nanoseconds, by whatever clock there is.
    pub created_hint: i64,
}

impl Update {
    /// An update that changes nothing.
    pub fn none(created_hint: i64) -> Self {
        Self {
            label: None,
            policy: None,
            revoke: Vec::new(),
            list: Vec::new(),
            draw: Vec::new(),
            unlist: Vec::new(),
            despite_rivals: false,
            created_hint,
        }
    }
}

/// Keys drawn for a manifest.
pub(crate) struct Drawn(Vec<(Role, Secret)>);

impl Drawn {
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn draw(
        &mut self,
        role: Role,
        random: &mut dyn Random,
    ) -> Result<Signer, MintError> {
        let secret = Secret::generate(random).map_err(MintError::Random)?;
        let signer = Signer::new(&secret);
        self.0.push((role, secret));
        Ok(signer)
    }

    /// Adds them to a key file.
    pub(crate) fn join(self, keys: &mut KeyFile) -> Result<Vec<(Role, KeyId)>, GovernError> {
        if !keys.has_room(self.0.len()) {
            return Err(GovernError::KeyFileFull);
        }
        let mut ids = Vec::new();
        for (role, secret) in &self.0 {
            keys.add(*role, secret);
            ids.push((*role, Signer::new(secret).id()));
        }
        Ok(ids)
    }
}

pub(crate) fn nonce(random: &mut dyn Random) -> Result<[u8; 32], MintError> {
    let mut nonce = [0; 32];
    random.fill(&mut nonce).map_err(MintError::Random)?;
    Ok(nonce)
}

/// Refuses to add to a history of which there are two.
pub(crate) fn settled(chain: &Chain, rotates: bool, despite_rivals: bool) -> Result<()> {
    for fork in chain.forks() {
        let settles = chain.standing(&fork.theirs) != Some(Standing::RivalRotation);
        let allowed = if settles { rotates } else { despite_rivals };
        if !allowed {
            return Err(GovernError::Forked {
                ours: fork.ours,
                theirs: fork.theirs,
                settles,
            }
            .into());
        }
    }
    Ok(())
}

/// Where the author of a manifest stands.
pub(crate) fn anchor(domain: &Domain) -> Anchor {
    Anchor {
        store: domain.store,
        position: asl_store::LogPosition(domain.tree.size()),
        chain: domain.head.0,
    }
}

/// The roles that the key file's keys of one kind have in a manifest.
pub(super) fn own<'a>(
    dam: &'a Dam,
    keys: &'a KeyFile,
    role: Role,
    bit: Roles,
) -> impl Iterator<Item = &'a Principal> {
    dam.principals.iter().filter(move |principal| {
        let id = principal.key.id();
        principal.roles.contains(bit) && keys.signers(role).any(|signer| signer.id() == id)
    })
}

/// A host's two keys, and the least that each may do.
pub(super) const OF_A_HOST: [(Role, Roles); 2] = [
    (Role::Host, Roles::PRODUCE),
    (Role::Checkpoint, Roles::CHECKPOINT),
];

/// Revokes, and gives this host another key for each kind of which it lost the last.
fn revoke(
    dam: &mut Dam,
    revocations: &[Revocation],
    keys: &KeyFile,
    random: &mut dyn Random,
    drawn: &mut Drawn,
) -> Result<(), MintError> {
    let had = OF_A_HOST.map(|(role, bit)| own(dam, keys, role, bit).next().cloned());
    for revocation in revocations {
        dam.revoke(*revocation);
    }
    for ((role, bit), had) in OF_A_HOST.into_iter().zip(had) {
        if let Some(had) = had
            && own(dam, keys, role, bit).next().is_none()
        {
            let key = drawn.draw(role, random)?.public();
            dam.principals.push(Principal {
                key,
                roles: had.roles,
            });
        }
    }
    Ok(())
}

/// Draws host and checkpoint keys in place of others.
fn renew(
    dam: &mut Dam,
    hosts: Hosts,
    keys: &KeyFile,
    random: &mut dyn Random,
    drawn: &mut Drawn,
) -> Result<(), MintError> {
    if hosts == Hosts::Keep {
        return Ok(());
    }
    for (role, bit) in OF_A_HOST {
        let roles = own(dam, keys, role, bit)
            .next()
            .map_or(bit, |own| own.roles);
        let ours: Vec<KeyId> = own(dam, keys, role, bit).map(|own| own.key.id()).collect();
        dam.principals.retain(|principal| {
            let all = hosts == Hosts::Only && principal.roles.contains(bit);
            !all && !ours.contains(&principal.key.id())
        });
        let key = drawn.draw(role, random)?.public();
        dam.principals.push(Principal { key, roles });
    }
    Ok(())
}

/// The manifest of an update, unsigned, and the keys that were drawn for it.
pub(crate) fn update(
    domain: &Domain,
    keys: &KeyFile,
    random: &mut dyn Random,
    how: &Update,
) -> Result<(Draft, Drawn)> {
    let chain = &domain.chain;
    settled(chain, false, how.despite_rivals)?;
    let head = chain.head();
    let (mut dam, mut drawn) = (head.dam.clone(), Drawn::none());
    let mut policy = head.policy;
    if let Some(label) = &how.label {
        dam.label.clone_from(label);
    }
    if let Some(new) = how.policy {
        policy = new;
    }
    for revocation in &how.revoke {
        if dam.is_root(&revocation.key) {
            let key = revocation.key;
            return Err(GovernError::Root { key }.into());
        }
    }
    revoke(&mut dam, &how.revoke, keys, random, &mut drawn)?;
    for key in &how.unlist {
        if dam.principal(key).is_none() {
            return Err(GovernError::NotListed { key: *key }.into());
        }
        dam.principals.retain(|known| known.key.id() != *key);
    }
    for principal in &how.list {
        let id = principal.key.id();
        dam.principals.retain(|known| known.key.id() != id);
        dam.principals.push(principal.clone());
    }
    for (role, roles) in &how.draw {
        let key = drawn.draw(*role, random)?.public();
        dam.principals.push(Principal { key, roles: *roles });
    }
    dam.sort();
    if dam == head.dam && policy == head.policy {
        return Err(GovernError::Nothing.into());
    }
    dam.anchor = Some(anchor(domain));
    let nonce = nonce(random)?;
    let draft = Draft::update(chain, nonce, how.created_hint, |edited, rules| {
        *edited = dam;
        *rules = policy;
    })?;
    Ok((draft, drawn))
}

impl Plan {
    /// Plans an update by keys that speak for the domain alone. Nothing is written.
    ///
    /// # Errors
    /// [`GovernError`]; [`AuthorError`](crate::AuthorError) for what every reader would refuse, missing signatures included.
    pub fn update(
        domain: &Domain,
        mut keys: KeyFile,
        random: &mut dyn Random,
        how: &Update,
    ) -> Result<Self> {
        keys.require_domain(&domain.id())?;
        let (draft, drawn) = update(domain, &keys, random, how)?;
        let drawn = drawn.join(&mut keys)?;
        let plan = Self::signed(&domain.chain, draft, keys, None);
        let mut plan = plan.map_err(|refused| refused.1)?;
        plan.drawn = drawn;
        Ok(plan)
    }

    /// Plans a rotation of a personal domain by its phrase. `keys` may be empty, where the key file is lost; `next` is a key that
    /// [`was_drawn`](super::was_drawn), where there is one. Nothing is written.
    ///
    /// # Errors
    /// [`GovernError`]; [`AuthorError`](crate::AuthorError) for what every reader would refuse.
    pub fn rotate(
        domain: &Domain,
        mut keys: KeyFile,
        phrase: &Phrase,
        next: Option<Secret>,
        random: &mut dyn Random,
        how: &Rotation,
    ) -> Result<Self> {
        keys.require_domain(&domain.id())?;
        let chain = &domain.chain;
        settled(chain, true, how.despite_rivals)?;
        let from = how.from.unwrap_or(chain.head_key());
        let parent = (chain.node(&from))
            .filter(|node| node.epoch == chain.epoch_key())
            .ok_or(AuthorError::NotRotatable(from))?;
        if parent.dam.kind != Kind::Personal {
            let kind = parent.dam.kind;
            return Err(GovernError::Several { kind }.into());
        }
        let mut drawn = Drawn::none();
        let root = Signer::new(&phrase.secret());
        reveals(chain, &parent.dam, &root)?;
        drawn.0.push((Role::Root, phrase.secret()));
        let next = match next {
            Some(next) => next,
            None => Secret::generate(random).map_err(MintError::Random)?,
        };

        let mut dam = parent.dam.clone();
        dam.roots = vec![root.public()];
        dam.next = vec![Signer::new(&next).public().next_digest()];
        if let Some(witness) = &how.witness {
            dam.witness = witness.clone();
        }
        renew(&mut dam, how.hosts, &keys, random, &mut drawn)?;
        revoke(&mut dam, &how.revoke, &keys, random, &mut drawn)?;
        dam.anchor = Some(anchor(domain));
        let nonce = nonce(random)?;
        let draft = Draft::rotation(chain, from, nonce, how.created_hint, |edited, _| {
            *edited = dam;
        })?;
        let drawn = drawn.join(&mut keys)?;
        let plan = Self::signed(chain, draft, keys, Some(next));
        let mut plan = plan.map_err(|refused| refused.1)?;
        plan.drawn = drawn;
        Ok(plan)
    }
}

/// Whether the key is one that the manifest commits to.
pub(crate) fn reveals(chain: &Chain, dam: &Dam, root: &Signer) -> Result<(), GovernError> {
    let digest = root.public().next_digest();
    if dam.next.contains(&digest) {
        return Ok(());
    }
    let spent = chain.path().any(|node| node.dam.next.contains(&digest));
    Err(GovernError::Phrase { spent })
}
