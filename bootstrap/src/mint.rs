//! Minting: a personal domain is founded in a store; and what its keys sign afterwards, receipts and checkpoints.
//!
//! Order of a mint, each step durable before the next:
//! 1. the manifest and its policy in `meta/tmp/mint-<domain id>.dam`; they say nothing without a record in the log
//! 2. the recovery phrase, by the caller, wherever the user wants it
//! 3. the key file
//! 4. the signed manifest as artifacts and, in the same append, the record that founds the domain
//! 5. a checkpoint of the log
//! 6. the files under `meta/`; the file of step 1 goes
//!
//! Crash: before step 3 is done nothing can ever be signed with the keys, and the next mint begins anew. From then on the mint is
//! [`Begun::Unfinished`]: [`Plan::resume`] goes on with the same domain.
//!
//! The store's writer lock is held throughout: whoever has a [`StoreWriter`] has it.

use asl_store::frame::{Compression, Encoder};
use asl_store::vfs::Vfs;
use asl_store::{Authority, Key, LogPosition, SessionId, StoreHandle, StoreWriter, format};

use crate::author::Draft;
use crate::checkpoint::SignedCheckpoint;
use crate::dam::{DAM_LEN_MAX, Dam, Kind, Principal, Roles, Witness};
use crate::domain::{CheckpointState, Domain};
use crate::error::Result;
use crate::files::{self, Readers};
use crate::id::{DomainId, KeyId};
use crate::key::{Random, Secret, Signer};
use crate::keyfile::{KeyFile, KeyFileError, Role, key_file_path};
use crate::meta::{self, Difference};
use crate::phrase::Phrase;
use crate::policy::{POLICY_LEN, Policy};
use crate::receipt::{Receipt, ReceiptKind};

/// Directory of unfinished mints.
pub const PENDING_DIR: &str = "meta/tmp";

/// What a domain cannot be minted, or signed for, with.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// A store has one domain.
    #[error("the store has a domain already: {domain}")]
    Exists {
        /// The domain.
        domain: DomainId,
    },
    /// Another mint has to be finished first.
    #[error("the mint of domain {domain} was interrupted and comes first")]
    Unfinished {
        /// The domain.
        domain: DomainId,
    },
    /// What an interrupted mint left is not what it wrote.
    #[error("{path} is not what an interrupted mint left there")]
    Pending {
        /// The file.
        path: String,
    },
    /// There is nothing to sign for.
    #[error("the store has no domain yet")]
    NoDomain,
    /// The key file has no key that the manifest in force lists for this.
    #[error("none of these keys is listed for this role: {role}")]
    NoKey {
        /// The role.
        role: Roles,
    },
    /// The keys are those of a host that was not listed yet.
    #[error("the keys of this host are not listed yet for this role: {role}")]
    NotListedYet {
        /// The role.
        role: Roles,
    },
    /// Some manifest could not be read, and what it revokes is not known.
    #[error("a manifest in the log cannot be read, so nothing is signed")]
    Blind,
    /// No randomness.
    #[error("no random numbers could be drawn")]
    Random(#[source] std::io::Error),
}

/// What the user chooses.
#[derive(Debug, Clone)]
pub struct Request {
    /// What people call the domain; at most [`LABEL_MAX`](crate::dam::LABEL_MAX) bytes.
    pub label: String,
    /// The policy to begin with.
    pub policy: Policy,
    /// Who watches, or [`Witness::NONE`]. Only a rotation changes it.
    pub witness: Witness,
    /// Unix time in nanoseconds, by whatever clock there is.
    pub created_hint: i64,
}

/// What a store has of a domain when a mint begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// Nothing, or only what can never be used.
    Nothing,
    /// Its keys, or more: the mint goes on.
    Unfinished(DomainId),
}

/// Where an unfinished mint keeps its manifest.
fn pending_path(domain: &DomainId) -> String {
    format!("{PENDING_DIR}/mint-{domain}.dam")
}

/// Looks for what an interrupted mint left.
///
/// # Errors
/// [`MintError::Exists`] where the store has a domain and nothing is left to do.
pub fn begun(writer: &StoreWriter) -> Result<Begun> {
    begun_in(writer.handle())
}

/// Like [`begun`], for a store that is open for reading: what is found may change until it is opened for writing.
///
/// # Errors
/// As [`begun`].
pub fn begun_in(store: &StoreHandle) -> Result<Begun> {
    let vfs = &**store.vfs();
    let pending = pending(vfs)?;
    if let Some(found) = Domain::read(store)? {
        let domain = found.id();
        return match pending.contains(&domain) {
            true => Ok(Begun::Unfinished(domain)),
            false => Err(MintError::Exists { domain }.into()),
        };
    }
    for domain in pending {
        if vfs.metadata(&key_file_path(&domain)).is_ok() {
            return Ok(Begun::Unfinished(domain));
        }
    }
    Ok(Begun::Nothing)
}

/// Domains whose mint was begun here. Those without a key file can be forgotten.
///
/// # Errors
/// [`FileError`](crate::FileError).
pub fn pending(vfs: &dyn Vfs) -> Result<Vec<DomainId>> {
    let names = files::names(vfs, PENDING_DIR)?;
    let id = |name: &String| {
        let id = name.strip_prefix("mint-")?.strip_suffix(".dam")?;
        id.parse().ok()
    };
    Ok(names.iter().filter_map(id).collect())
}

/// A domain that is ready to be founded.
pub struct Plan {
    draft: Draft,
    keys: KeyFile,
    next: Option<Secret>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("domain", &self.domain())
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// Draws the keys of a personal domain. Nothing is written.
    ///
    /// # Errors
    /// [`MintError::Random`]; [`AuthorError`](crate::AuthorError) for a label or policy that no manifest has.
    pub fn draw(random: &mut dyn Random, request: &Request) -> Result<Self> {
        let mut secret = || Secret::generate(random).map_err(MintError::Random);
        let [root, next, host, checkpoint] = [secret()?, secret()?, secret()?, secret()?];
        let mut nonce = [0; 32];
        random.fill(&mut nonce).map_err(MintError::Random)?;
        let public = |secret: &Secret| Signer::new(secret).public();
        let dam = Dam {
            kind: Kind::Personal,
            version: 0,
            rotation: 0,
            prev: None,
            domain: None,
            nonce,
            roots: vec![public(&root)],
            root_threshold: 1,
            next: vec![public(&next).next_digest()],
            next_threshold: 1,
            principals: vec![
                Principal {
                    key: public(&host),
                    roles: Roles::PRODUCE,
                },
                Principal {
                    key: public(&checkpoint),
                    roles: Roles::CHECKPOINT,
                },
            ],
            witness: request.witness.clone(),
            policy: Key::ZERO,
            revoked: Vec::new(),
            anchor: None,
            label: request.label.clone(),
            created_hint: request.created_hint,
        };
        let draft = Draft::genesis(dam, &request.policy)?;
        let mut keys = KeyFile::new(Some(draft.domain()));
        keys.add(Role::Root, &root);
        keys.add(Role::Host, &host);
        keys.add(Role::Checkpoint, &checkpoint);
        Self::signed(draft, keys, Some(next))
    }

    /// Goes on with a mint that was interrupted.
    ///
    /// # Errors
    /// [`KeyFileError`], a wrong passphrase above all; [`MintError::Pending`].
    pub fn resume(writer: &StoreWriter, domain: &DomainId, passphrase: &str) -> Result<Self> {
        let vfs = &**writer.handle().vfs();
        let path = pending_path(domain);
        let damaged = || MintError::Pending { path: path.clone() };
        let bytes = files::read(vfs, &path, POLICY_LEN + DAM_LEN_MAX)?.ok_or_else(damaged)?;
        let (policy, dam) = bytes.split_at_checked(POLICY_LEN).ok_or_else(damaged)?;
        if DomainId::of_genesis(dam) != *domain {
            return Err(damaged().into());
        }
        let draft = Draft::genesis(Dam::decode(dam)?, &Policy::decode(policy)?)?;
        if draft.domain() != *domain {
            return Err(damaged().into());
        }
        let keys = KeyFile::load(vfs, &key_file_path(domain), passphrase)?;
        keys.require_domain(domain)?;
        Self::signed(draft, keys, None)
    }

    fn signed(draft: Draft, keys: KeyFile, next: Option<Secret>) -> Result<Self> {
        let draft = draft.signed(keys.keys().iter().map(|entry| entry.signer()));
        // By the rules of every reader: what they would refuse must not be founded.
        draft.found()?;
        Ok(Self { draft, keys, next })
    }

    /// The domain.
    pub fn domain(&self) -> DomainId {
        self.draft.domain()
    }

    /// The private keys, the one of the recovery phrase not among them.
    pub fn keys(&self) -> &KeyFile {
        &self.keys
    }

    /// The recovery phrase. Only a fresh plan has it; it is nowhere else.
    pub fn phrase(&self) -> Option<Phrase> {
        self.next.as_ref().map(Phrase::from_secret)
    }

    /// Whether a phrase is the one that recovers this domain.
    pub fn is_recovered_by(&self, phrase: &Phrase) -> bool {
        let digest = Signer::new(&phrase.secret()).public().next_digest();
        Dam::decode(&self.draft.dam).is_ok_and(|dam| dam.next.contains(&digest))
    }

    /// Step 1: keeps the manifest, in place of those that can never be used.
    ///
    /// # Errors
    /// [`MintError::Unfinished`] and [`MintError::Exists`]; [`FileError`](crate::FileError).
    pub fn prepare(&self, writer: &StoreWriter) -> Result<()> {
        match begun(writer)? {
            Begun::Nothing => {}
            Begun::Unfinished(domain) => return Err(MintError::Unfinished { domain }.into()),
        }
        let vfs = &**writer.handle().vfs();
        for domain in pending(vfs)? {
            files::remove(vfs, &pending_path(&domain))?;
        }
        let bytes = [self.draft.policy.as_slice(), &self.draft.dam].concat();
        let path = pending_path(&self.domain());
        files::replace(vfs, &path, Readers::All, &bytes)?;
        Ok(())
    }

    /// Step 3: keeps the keys. What recovers them must be safe before: from here on the domain is the one that will be.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn keep_keys(&self, writer: &StoreWriter, passphrase: &str) -> Result<(), KeyFileError> {
        let vfs = &**writer.handle().vfs();
        self.keys
            .create(vfs, &key_file_path(&self.domain()), passphrase)
    }

    /// Steps 4 to 6, those that an interrupted mint did already left out.
    ///
    /// # Errors
    /// [`MintError::Exists`] where another domain was minted meanwhile; whatever the store or the filesystem refuses.
    pub fn found(&self, writer: &mut StoreWriter) -> Result<Minted> {
        let domain = self.domain();
        match Domain::read(writer.handle())? {
            Some(found) if found.id() == domain => {}
            Some(found) => {
                let domain = found.id();
                return Err(MintError::Exists { domain }.into());
            }
            None => {
                put(writer, &self.draft.policy)?;
                let mut keys = vec![put(writer, &self.draft.dam)?];
                for signature in &self.draft.signatures {
                    keys.push(put(writer, signature)?);
                }
                writer.authority(Authority::Dam, &keys)?;
            }
        }
        let checkpoint = checkpoint(writer, &self.keys)?;
        let found = Domain::read(writer.handle())?.ok_or(MintError::NoDomain)?;
        let host = self.keys.signers(Role::Host).next().map(Signer::id);
        let handle = writer.handle();
        let vfs = &**handle.vfs();
        let differences = meta::materialise(vfs, handle, &found, host)?;
        files::remove(vfs, &pending_path(&domain))?;
        files::sync_dir(vfs, PENDING_DIR)?;
        Ok(Minted {
            domain: found,
            checkpoint,
            differences,
        })
    }
}

/// A domain that was founded.
#[derive(Debug)]
pub struct Minted {
    /// As the log has it.
    pub domain: Domain,
    /// Its first checkpoint.
    pub checkpoint: Checkpointed,
    /// Files under `meta/` that had to be made.
    pub differences: Vec<Difference>,
}

/// A checkpoint that covers the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checkpointed {
    /// Made now: the artifact and its record.
    Made {
        /// The artifact.
        key: Key,
        /// Records that it covers.
        size: u64,
        /// Its record.
        record: LogPosition,
    },
    /// Nothing was appended since this one.
    Current(CheckpointState),
}

impl Checkpointed {
    /// Records that it covers.
    pub fn size(&self) -> u64 {
        match self {
            Self::Made { size, .. } => *size,
            Self::Current(state) => state.size,
        }
    }
}

/// Signs the log as it is, unless nothing came after the last checkpoint.
///
/// # Errors
/// [`MintError::NoDomain`], [`MintError::Blind`], [`MintError::NoKey`], [`MintError::NotListedYet`]; whatever the store refuses.
pub fn checkpoint(writer: &mut StoreWriter, keys: &KeyFile) -> Result<Checkpointed> {
    writer.commit()?;
    let domain = open(writer, keys)?;
    if let Some(last) = domain.newest_checkpoint()
        && last.record.0 + 1 == domain.tree.size()
    {
        return Ok(Checkpointed::Current(last.clone()));
    }
    let signer = listed(&domain, keys, Role::Checkpoint, Roles::CHECKPOINT)?;
    let checkpoint = domain.head_checkpoint();
    let signed: SignedCheckpoint = checkpoint.sign(signer)?;
    let key = put(writer, &signed.to_bytes())?;
    let record = writer.authority(Authority::Checkpoint, &[key])?;
    Ok(Checkpointed::Made {
        key,
        size: checkpoint.size,
        record,
    })
}

/// A session that should have a receipt, as its own library knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// What it was.
    pub kind: ReceiptKind,
    /// The session.
    pub session: SessionId,
    /// The root that it ended with.
    pub root: Key,
}

/// What became of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attested {
    /// Its receipt was signed now.
    Signed {
        /// The receipt artifact.
        receipt: Key,
        /// By this key.
        signer: KeyId,
    },
    /// It had a signed receipt.
    Already {
        /// The receipt artifact.
        receipt: Key,
    },
    /// The log has no such end of the session.
    NotInLog,
}

/// Signs receipts for those of `sessions` that have none that counts, one answer each.
///
/// # Errors
/// As [`checkpoint`]. Receipts signed before the error stay.
pub fn attest(
    writer: &mut StoreWriter,
    keys: &KeyFile,
    sessions: &[Done],
) -> Result<Vec<Attested>> {
    writer.commit()?;
    let domain = open(writer, keys)?;
    let signer = listed(&domain, keys, Role::Host, Roles::PRODUCE)?;
    let mut attested = Vec::new();
    for done in sessions {
        let known = domain.receipt(done.session, done.root);
        if let Some(state) = known.filter(|state| !state.signers.is_empty()) {
            attested.push(Attested::Already { receipt: state.key });
            continue;
        }
        let Some(receipt) = domain.receipt_of(done.kind, done.session, done.root) else {
            attested.push(Attested::NotInLog);
            continue;
        };
        attested.push(sign_receipt(writer, signer, &domain.id(), &receipt)?);
    }
    Ok(attested)
}

fn sign_receipt(
    writer: &mut StoreWriter,
    signer: &Signer,
    domain: &DomainId,
    receipt: &Receipt,
) -> Result<Attested> {
    let body = put(writer, &receipt.encode())?;
    let signature = put(writer, &receipt.sign(signer, domain).encode())?;
    writer.authority(Authority::Receipt, &[body, signature])?;
    Ok(Attested::Signed {
        receipt: body,
        signer: signer.id(),
    })
}

/// The domain that is signed for: that of the keys, with nothing hidden.
pub(crate) fn open(writer: &StoreWriter, keys: &KeyFile) -> Result<Domain> {
    let domain = Domain::read(writer.handle())?.ok_or(MintError::NoDomain)?;
    keys.require_domain(&domain.id())?;
    if domain.is_blind() {
        return Err(MintError::Blind.into());
    }
    Ok(domain)
}

/// A key for a purpose that the manifest in force lists for it.
pub(crate) fn listed<'k>(
    domain: &Domain,
    keys: &'k KeyFile,
    of: Role,
    role: Roles,
) -> Result<&'k Signer, MintError> {
    let chain = &domain.chain;
    let dam = &chain.head().dam;
    let mut signers = keys.signers(of);
    if let Some(signer) = signers.find(|signer| dam.has_role(&signer.id(), role)) {
        return Ok(signer);
    }
    let was_listed = |id: &KeyId| {
        let mut path = chain.path();
        dam.revokes(id) || path.any(|node| node.dam.principal(id).is_some())
    };
    let mut asked = keys.signers(of).map(Signer::id);
    Err(match asked.any(|id| !was_listed(&id)) {
        true => MintError::NotListedYet { role },
        false => MintError::NoKey { role },
    })
}

pub(crate) fn put(writer: &mut StoreWriter, bytes: &[u8]) -> Result<Key> {
    let key = Key::of(bytes);
    let mut encoder = Encoder::new(Compression::None);
    writer.put(encoder.encode(key, bytes.to_vec().into(), format::FLAG_ROOT))?;
    Ok(key)
}

#[cfg(test)]
mod tests;
