//! Manifests that several people sign: a draft as a file that is passed around, and the cards with which people join.
//!
//! ```text
//! a draft:  "ASLDRF1\n"
//!           the manifests that it follows, as in an export; none for a first manifest
//!           the manifest, as one of them, with the signatures so far
//!           nothing else
//! a card:   asl member 1
//!           root ed25519 <64 hexadecimal digits: public key>
//!           next <64 hexadecimal digits: next digest>
//! ```
//!
//! Who signs needs no store: the file has the whole chain, so that everybody sees against what the draft was made and what it would
//! change, and the id of the domain comes out of it.
//!
//! Invariants
//! - Nobody signs what every reader would refuse once all have signed ([`DraftFile::verdict`]).
//! - Nothing is secret in either file; signatures of a draft say nothing until a store has its record.
//! - The bytes that are signed never change: copies that were signed apart can be merged.
//!
//! Nothing here touches a file but [`admit`], which is one append to the log: a crash leaves it done or not begun, and the same
//! command goes on.

use asl_store::id::{hex, unhex};
use asl_store::{Key, StoreHandle, StoreWriter};

use crate::author::{AuthorError, Draft};
use crate::chain::{Chain, ChainError, Node, Standing};
use crate::dam::{DAM_LEN_MAX, Dam, DamError, Kind, Principal, Roles, Witness};
use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::export::{self, ExportError, Rest};
use crate::govern::change::{Drawn, anchor, nonce, settled, update};
use crate::govern::{self, Update};
use crate::id::{DomainId, KeyId, NextDigest};
use crate::key::{KeyError, PublicKey, Random, Signer};
use crate::keyfile::{KeyFile, Role};
use crate::mint::{self, Checkpointed, MintError};
use crate::policy::{Policy, PolicyError};
use crate::{GovernError, meta};

/// First bytes of a draft.
pub const DRAFT_MAGIC: &[u8; 8] = b"ASLDRF1\n";
/// Longest card, in bytes.
pub const CARD_LEN_MAX: usize = 1024;
const CARD_FIRST_LINE: &str = "asl member 1";

/// A file that is no draft, or none to be signed.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// The first bytes are others.
    #[error("this is no draft: it does not begin with ASLDRF1")]
    Magic,
    /// It is malformed, or what it follows is no chain.
    #[error("the draft cannot be read")]
    Parts(#[from] ExportError),
    /// The manifest breaks a rule on a manifest alone.
    #[error("the draft's manifest is refused")]
    Dam(#[from] DamError),
    /// The policy is none.
    #[error("the draft's policy is refused")]
    Policy(#[from] PolicyError),
    /// No signature could make it count.
    #[error("nobody should sign this: every reader would refuse it")]
    Refused(#[source] ChainError),
    /// None of the keys has anything to sign.
    #[error("none of these keys is asked to sign this")]
    NotAsked,
    /// Another draft.
    #[error("these are drafts of different manifests")]
    Different,
    /// Signatures are missing.
    #[error("the draft is not signed by all who must")]
    Incomplete(#[source] ChainError),
    /// The store has another domain, or none.
    #[error("the draft is for domain {draft}, the store has {}", .store.map_or("none".to_owned(), |id| id.to_string()))]
    OtherDomain {
        /// The draft's.
        draft: DomainId,
        /// The store's.
        store: Option<DomainId>,
    },
}

/// A card that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// Not three lines as they should be.
    #[error("this is no card of a member: line {line} is not as it should be")]
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// A key that is refused.
    #[error("the card's key is refused")]
    Key(#[from] KeyError),
}

/// What somebody gives away to become one of several roots: the public key, and the commitment to the one after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// The root.
    pub root: PublicKey,
    /// The next key, behind a recovery phrase.
    pub next: NextDigest,
}

impl Card {
    /// The file.
    pub fn text(&self) -> String {
        let (root, next) = (hex(self.root.bytes()), hex(&self.next.0));
        format!("{CARD_FIRST_LINE}\nroot ed25519 {root}\nnext {next}\n")
    }

    /// Reads a card.
    ///
    /// # Errors
    /// [`CardError`].
    pub fn parse(text: &str) -> Result<Self, CardError> {
        let mut lines = text.lines();
        let mut line = || lines.next().unwrap_or_default();
        if line() != CARD_FIRST_LINE {
            return Err(CardError::Line { line: 1 });
        }
        let root = line().strip_prefix("root ed25519 ").and_then(unhex::<32>);
        let root = root.ok_or(CardError::Line { line: 2 })?;
        let next = line().strip_prefix("next ").and_then(unhex::<32>);
        let next = NextDigest(next.ok_or(CardError::Line { line: 3 })?);
        let root = PublicKey::load(crate::key::ALG_ED25519, &root)?;
        let card = Self { root, next };
        match card.text() == text {
            true => Ok(card),
            false => Err(CardError::Line { line: 4 }),
        }
    }
}

/// Whether a draft can be put into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All who must have signed.
    Complete,
    /// Signatures are missing; the rule that asks for them.
    Unsigned(ChainError),
    /// No signature helps.
    Refused(ChainError),
}

impl Verdict {
    fn of(error: AuthorError) -> Self {
        let error = match error {
            AuthorError::Chain(error) => error,
            AuthorError::Dam(error) => return Self::Refused(error.into()),
            AuthorError::NotRotatable(prev) => {
                return Self::Refused(ChainError::UnknownPrev { prev });
            }
        };
        match error {
            ChainError::RootPossession { .. }
            | ChainError::PrincipalPossession { .. }
            | ChainError::RootThreshold(_)
            | ChainError::PolicyCosign(_)
            | ChainError::Unrevealed(_)
            | ChainError::NewRootThreshold(_)
            | ChainError::RecoveryNeedsRoots(_) => Self::Unsigned(error),
            error => Self::Refused(error),
        }
    }
}

/// A draft with the chain that it follows.
#[derive(Debug, Clone)]
pub struct DraftFile {
    /// The manifests before, as the file has them, with their number.
    before: Vec<u8>,
    chain: Option<Chain>,
    draft: Draft,
    dam: Dam,
    policy: Policy,
}

impl DraftFile {
    /// The draft of a first manifest.
    ///
    /// # Errors
    /// [`DraftError`].
    pub fn founding(draft: Draft) -> Result<Self, DraftError> {
        Self::new(0u32.to_le_bytes().to_vec(), None, draft)
    }

    /// The draft of a manifest that follows those of a store.
    ///
    /// # Errors
    /// [`DraftError`]; [`asl_store::Error`] where a manifest cannot be read.
    pub fn following(store: &StoreHandle, domain: &Domain, draft: Draft) -> Result<Self> {
        let mut before = Vec::new();
        export::push_manifests(&mut before, store, domain)?;
        Ok(Self::new(before, Some(domain.chain.clone()), draft)?)
    }

    fn new(before: Vec<u8>, chain: Option<Chain>, draft: Draft) -> Result<Self, DraftError> {
        let dam = Dam::decode(&draft.dam)?;
        let policy = Policy::decode(&draft.policy)?;
        Ok(Self {
            before,
            chain,
            draft,
            dam,
            policy,
        })
    }

    /// Reads a draft. What it follows is judged; whether it can follow is [`verdict`](Self::verdict)'s to say.
    ///
    /// # Errors
    /// [`DraftError`].
    pub fn open(bytes: &[u8]) -> Result<Self, DraftError> {
        if bytes.len() > export::EXPORT_LEN_MAX {
            return Err(ExportError::TooLong { len: bytes.len() }.into());
        }
        let rest = bytes.strip_prefix(DRAFT_MAGIC).ok_or(DraftError::Magic)?;
        let mut left = Rest(rest);
        let chain = export::replay(&mut left)?;
        let before = rest[..rest.len() - left.0.len()].to_vec();
        let candidate = left.manifest()?;
        left.end()?;
        if candidate.dam.len() > DAM_LEN_MAX {
            return Err(DamError::TooLong {
                len: candidate.dam.len(),
            }
            .into());
        }
        let signatures = candidate.signatures.iter().map(|bytes| bytes.to_vec());
        let draft = Draft::stored(
            candidate.dam.to_vec(),
            candidate.policy.to_vec(),
            signatures.collect(),
        );
        match draft {
            Ok(draft) => Self::new(before, chain, draft),
            Err(AuthorError::Dam(error)) => Err(error.into()),
            Err(AuthorError::Chain(error)) => Err(DraftError::Refused(error)),
            Err(AuthorError::NotRotatable(prev)) => {
                Err(DraftError::Refused(ChainError::UnknownPrev { prev }))
            }
        }
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = DRAFT_MAGIC.to_vec();
        file.extend_from_slice(&self.before);
        let Draft {
            dam, signatures, ..
        } = &self.draft;
        export::push_manifest(&mut file, dam, &self.policy, signatures);
        file
    }

    /// The domain that it founds or changes.
    pub fn domain(&self) -> DomainId {
        self.draft.domain()
    }

    /// What it says.
    pub fn dam(&self) -> &Dam {
        &self.dam
    }

    /// The policy that it names.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The manifest that it follows; `None` for a first one.
    pub fn before(&self) -> Option<&Node> {
        let chain = self.chain.as_ref()?;
        chain.node(&self.dam.prev?)
    }

    /// Keys whose signatures are in it, as the signatures say.
    pub fn signed_by(&self) -> Vec<KeyId> {
        let signatures = self.draft.signatures.iter();
        let signers = signatures.filter_map(|bytes| crate::Signature::decode(bytes).ok());
        signers.map(|signature| signature.signer).collect()
    }

    /// Whether it can be put into force.
    pub fn verdict(&self) -> Verdict {
        let judged = match &self.chain {
            None => self.draft.found().map(drop),
            Some(chain) => self.draft.continue_chain(&mut chain.clone()).map(drop),
        };
        match judged {
            Ok(()) => Verdict::Complete,
            Err(error) => Verdict::of(error),
        }
    }

    /// Signs with those of `keys` that have something to say: roots, principals that are listed anew, and, where the policy of a common
    /// domain changes, its witnesses. Tells who signed now.
    ///
    /// # Errors
    /// [`DraftError::Refused`], [`DraftError::NotAsked`].
    pub fn sign(&mut self, keys: &KeyFile) -> Result<Vec<KeyId>, DraftError> {
        if let Verdict::Refused(error) = self.verdict() {
            return Err(DraftError::Refused(error));
        }
        let before = self.before().map(|node| node.dam.clone());
        let was = |of: &dyn Fn(&Dam) -> bool| before.as_ref().is_some_and(of);
        let cosigns = self.dam.kind == Kind::Common && was(&|dam| dam.policy != self.dam.policy);
        let (mut asked, mut signed) = (false, Vec::new());
        let known = self.signed_by();
        let mut draft = self.draft.clone();
        for entry in keys.keys() {
            let (signer, id) = (entry.signer(), entry.signer().id());
            let root = self.dam.is_root(&id) || was(&|dam| dam.is_root(&id));
            let new =
                self.dam.principal(&id).is_some() && !was(&|dam| dam.principal(&id).is_some());
            let members = self.dam.witness.members.iter();
            let witness = cosigns && members.into_iter().any(|member| member.key.id() == id);
            asked |= root || new || witness;
            if known.contains(&id) || signed.contains(&id) {
                continue;
            }
            if root || new {
                draft = draft.signed([signer]);
                signed.push(id);
            } else if witness {
                draft = draft.cosigned([signer]);
                signed.push(id);
            }
        }
        if !asked {
            return Err(DraftError::NotAsked);
        }
        self.draft = draft;
        Ok(signed)
    }

    /// Takes the signatures of a copy that was signed apart.
    ///
    /// # Errors
    /// [`DraftError::Different`].
    pub fn merge(&mut self, other: &Self) -> Result<(), DraftError> {
        if self.draft.dam != other.draft.dam || self.draft.policy != other.draft.policy {
            return Err(DraftError::Different);
        }
        for signature in &other.draft.signatures {
            if !self.draft.signatures.contains(signature) {
                self.draft.signatures.push(signature.clone());
            }
        }
        Ok(())
    }
}

/// What a domain of several roots begins with.
#[derive(Debug, Clone)]
pub struct Founding {
    /// What people call it.
    pub label: String,
    /// [`Kind::Group`] or [`Kind::Common`].
    pub kind: Kind,
    /// The policy to begin with.
    pub policy: Policy,
    /// How many of the members sign an update.
    pub root_threshold: u8,
    /// How many of their phrases a rotation needs.
    pub next_threshold: u8,
    /// Who watches.
    pub witness: Witness,
    /// Unix time in nanoseconds, by whatever clock there is.
    pub created_hint: i64,
}

/// The draft of a domain whose roots are the members', and the keys of the host that will write its first store: the key file, which
/// must be kept before the draft is given away.
///
/// # Errors
/// [`AuthorError`] for what no manifest can say; [`MintError::Random`].
pub fn found(
    cards: &[Card],
    how: &Founding,
    random: &mut dyn Random,
) -> Result<(DraftFile, KeyFile)> {
    let mut drawn = Drawn::none();
    let host = drawn.draw(Role::Host, random)?.public();
    let checkpoint = drawn.draw(Role::Checkpoint, random)?.public();
    let principal = |key, roles| Principal { key, roles };
    let dam = Dam {
        kind: how.kind,
        version: 0,
        rotation: 0,
        prev: None,
        domain: None,
        nonce: nonce(random)?,
        roots: cards.iter().map(|card| card.root).collect(),
        root_threshold: how.root_threshold,
        next: cards.iter().map(|card| card.next).collect(),
        next_threshold: how.next_threshold,
        principals: vec![
            principal(host, Roles::PRODUCE),
            principal(checkpoint, Roles::CHECKPOINT),
        ],
        witness: how.witness.clone(),
        policy: Key::ZERO,
        revoked: Vec::new(),
        anchor: None,
        label: how.label.clone(),
        created_hint: how.created_hint,
    };
    let draft = Draft::genesis(dam, &how.policy)?;
    let mut keys = KeyFile::new(Some(draft.domain()));
    drawn.join(&mut keys)?;
    let mut file = DraftFile::founding(draft)?;
    file.sign(&keys)?;
    Ok((file, keys))
}

/// What a rotation by several people does.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Another threshold of roots; as before, where none is named.
    pub root_threshold: Option<u8>,
    /// Another threshold of phrases.
    pub next_threshold: Option<u8>,
    /// Other witnesses.
    pub witness: Option<Witness>,
    /// To go on although the log has a second rotation of one epoch, which nothing settles.
    pub despite_rivals: bool,
    /// Unix time in nanoseconds, by whatever clock there is.
    pub created_hint: i64,
}

/// The draft of a rotation after which the members are the roots. Those who reveal a key have it on their cards; others join with
/// a new one.
///
/// # Errors
/// [`GovernError::Forked`]; [`AuthorError`] for what no manifest can say.
pub fn rotate(
    store: &StoreHandle,
    domain: &Domain,
    cards: &[Card],
    random: &mut dyn Random,
    how: &Turn,
) -> Result<DraftFile> {
    let chain = &domain.chain;
    settled(chain, true, how.despite_rivals)?;
    let anchor = anchor(domain);
    let nonce = nonce(random)?;
    let head = chain.head_key();
    let draft = Draft::rotation(chain, head, nonce, how.created_hint, |dam, _| {
        dam.roots = cards.iter().map(|card| card.root).collect();
        dam.next = cards.iter().map(|card| card.next).collect();
        dam.root_threshold = how.root_threshold.unwrap_or(dam.root_threshold);
        dam.next_threshold = how.next_threshold.unwrap_or(dam.next_threshold);
        if let Some(witness) = &how.witness {
            dam.witness = witness.clone();
        }
        dam.anchor = Some(anchor);
    })?;
    DraftFile::following(store, domain, draft)
}

/// The draft of an update, signed with what `keys` can, and the keys with those that were drawn for it: the key file, which must be
/// kept before the draft is given away, if [`KeyFile::keys`] grew.
///
/// # Errors
/// As [`Plan::update`](crate::govern::Plan::update), but for missing signatures.
pub fn change(
    store: &StoreHandle,
    domain: &Domain,
    mut keys: KeyFile,
    random: &mut dyn Random,
    how: &Update,
) -> Result<(DraftFile, KeyFile)> {
    let (draft, drawn) = update(domain, &keys, random, how)?;
    drawn.join(&mut keys)?;
    let mut file = DraftFile::following(store, domain, draft)?;
    match file.sign(&keys) {
        Ok(_) | Err(DraftError::NotAsked) => Ok((file, keys)),
        Err(error) => Err(error.into()),
    }
}

/// A draft that was put into force.
#[derive(Debug)]
pub struct Admitted {
    /// As the log has it now.
    pub domain: Domain,
    /// Whether it was in force before.
    pub already: bool,
    /// The checkpoint over it, by a key that is listed; `None` without one.
    pub checkpoint: Option<Checkpointed>,
}

/// Puts a draft into force in a store: one record. `keys` are this host's, if they are at hand: they sign a checkpoint.
///
/// # Errors
/// [`DraftError::Incomplete`], [`DraftError::OtherDomain`]; [`GovernError::Overtaken`] where the store's log has other manifests
/// than the draft was made after; whatever the store or the filesystem refuses.
pub fn admit(
    writer: &mut StoreWriter,
    file: &DraftFile,
    keys: Option<&KeyFile>,
) -> Result<Admitted> {
    match file.verdict() {
        Verdict::Complete => {}
        Verdict::Unsigned(error) => return Err(DraftError::Incomplete(error).into()),
        Verdict::Refused(error) => return Err(DraftError::Refused(error).into()),
    }
    writer.commit()?;
    let known = match Domain::read(writer.handle())? {
        Some(domain) if domain.is_blind() => return Err(MintError::Blind.into()),
        known => known,
    };
    let manifest = Key::of(&file.draft.dam);
    let other = |store| DraftError::OtherDomain {
        draft: file.domain(),
        store,
    };
    let already = match &known {
        Some(domain) if domain.id() != file.domain() => {
            return Err(other(Some(domain.id())).into());
        }
        None if file.dam.prev.is_some() => return Err(other(None).into()),
        Some(domain) if domain.chain.standing(&manifest) == Some(Standing::OnPath) => true,
        Some(domain) => {
            let mut trial = domain.chain.clone();
            let follows = file.draft.continue_chain(&mut trial);
            follows.map_err(|_| GovernError::Overtaken)?;
            false
        }
        None => false,
    };
    if !already {
        govern::record(writer, &file.draft)?;
    }
    let checkpoint = match keys.map(|keys| mint::checkpoint(writer, keys)) {
        Some(Ok(made)) => Some(made),
        None | Some(Err(Error::Mint(MintError::NoKey { .. } | MintError::NotListedYet { .. }))) => {
            None
        }
        Some(Err(error)) => return Err(error),
    };
    let domain = govern::read(writer)?;
    let host = keys.and_then(|keys| govern::host_of(&domain, keys));
    let handle = writer.handle();
    meta::materialise(&**handle.vfs(), handle, &domain, host)?;
    Ok(Admitted {
        domain,
        already,
        checkpoint,
    })
}

/// The card of somebody whose key is behind `root` and whose next one is behind `next`.
pub fn card(root: &Signer, next: &Signer) -> Card {
    Card {
        root: root.public(),
        next: next.public().next_digest(),
    }
}

#[cfg(test)]
mod tests;
