//! The life of a domain after its mint: rotations, recovery from the phrase, revocations, updates of policy, label and
//! principals.
//!
//! Order of a change, each step durable before the next:
//! 1. the manifest and its policy in `meta/tmp/govern-<domain id>.dam`; unsigned, so they say nothing
//! 2. of a rotation, the new recovery phrase, by the caller, wherever the user wants it
//! 3. the key file, with what it had and what the manifest lists anew; one that could not be opened is kept beside it
//! 4. the signed manifest as artifacts and, in the same append, its record
//! 5. the key file without the keys that left
//! 6. a checkpoint of the log
//! 7. the files under `meta/`; the file of step 1 goes
//!
//! Crash: before step 4 the manifest before is in force, with its keys and its phrase. Nothing that a lost key could have signed is
//! anywhere, and a signed rotation is nowhere before its phrase is safe. Once the key file can sign the manifest of step 1 (from
//! step 3 on, and before it where no new key is needed), [`Plan::resume`] goes on with that manifest and needs the passphrase only.
//! Otherwise the change begins anew; a phrase that was written for it can be taken again ([`was_drawn`]).
//!
//! The file of step 1 is the only one under `meta/` that is ever an input, and whoever has the medium can write there. It is
//! therefore believed only with a code that a root of the manifest has made ([`pending`]): else somebody could have a root sign
//! what nobody asked for.
//!
//! The store's writer lock is held throughout: whoever has a [`StoreWriter`] has it.

pub(crate) mod change;
mod hosting;
mod pending;

use std::collections::BTreeSet;
use std::io;

use asl_store::vfs::Vfs;
use asl_store::{Authority, Key, LogPosition, StoreWriter};

use crate::author::Draft;
use crate::chain::{Chain, Standing, Step};
use crate::dam::{Dam, Kind, Roles};
use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::id::{DomainId, KeyId};
use crate::key::{Secret, Signer};
use crate::keyfile::{KeyFile, KeyFileError, PRIVATE_DIR, Role, key_file_path};
use crate::meta::{self, Difference};
use crate::mint::{self, Checkpointed, MintError};
use crate::phrase::Phrase;

pub use change::{Hosts, Rotation, Update};
pub use hosting::{Ask, ask, enclose};
pub use pending::was_drawn;

/// A change that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum GovernError {
    /// Two histories were signed, and it is for people to say what that means.
    #[error("the log has two manifests of which only one can be meant: {ours} and {theirs}")]
    Forked {
        /// The one that is in force.
        ours: Key,
        /// The other one.
        theirs: Key,
        /// Whether a rotation settles it.
        settles: bool,
    },
    /// A phrase that the manifest does not commit to.
    #[error("{}", match spent {
        true => "this recovery phrase was used up by an earlier rotation",
        false => "this is not the recovery phrase of this domain",
    })]
    Phrase {
        /// Whether it was one of this domain.
        spent: bool,
    },
    /// A root is not revoked: it speaks until another takes its place.
    #[error("{key} is a root, and only a rotation takes a root away")]
    Root {
        /// The root.
        key: KeyId,
    },
    /// A key that is no principal.
    #[error("the manifest in force does not list {key}")]
    NotListed {
        /// The key.
        key: KeyId,
    },
    /// The manifest in force says all that already.
    #[error("nothing would change")]
    Nothing,
    /// More than one person's.
    #[error("a {kind} domain is rotated by several people")]
    Several {
        /// Its kind.
        kind: Kind,
    },
    /// More keys than a key file takes.
    #[error("the key file is full")]
    KeyFileFull,
    /// What was planned does not follow what is in the log now.
    #[error("the domain was changed meanwhile")]
    Overtaken,
}

/// The key file of a domain, as it is found.
#[derive(Debug)]
pub enum Held {
    /// It was opened.
    Open(KeyFile),
    /// There is none.
    Missing,
    /// It cannot be opened: with this passphrase, or at all.
    Closed(KeyFileError),
}

impl Held {
    /// Looks for the keys of `domain` in its store.
    pub fn look(vfs: &dyn Vfs, domain: &DomainId, passphrase: &str) -> Self {
        let keys = KeyFile::load(vfs, &key_file_path(domain), passphrase)
            .and_then(|keys| keys.require_domain(domain).map(|()| keys));
        match keys {
            Ok(keys) => Self::Open(keys),
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::Missing
            }
            Err(error) => Self::Closed(error),
        }
    }
}

/// The domain that is to be changed, with everything in the log committed.
///
/// # Errors
/// [`MintError::NoDomain`]; [`MintError::Blind`] where a manifest cannot be read, so that it is not known what is in force.
pub fn read(writer: &mut StoreWriter) -> Result<Domain> {
    writer.commit()?;
    let domain = Domain::read(writer.handle())?.ok_or(MintError::NoDomain)?;
    if domain.is_blind() {
        return Err(MintError::Blind.into());
    }
    Ok(domain)
}

/// What an interrupted change left.
#[derive(Debug)]
pub enum Resumed {
    /// The change, to be gone on with. The caller need not write its phrase: that was done.
    Change(Box<Plan>),
    /// Nothing that could be used; the keys again.
    Nothing(KeyFile),
}

/// A change that is ready to be made.
pub struct Plan {
    domain: DomainId,
    draft: Draft,
    dam: Dam,
    keys: KeyFile,
    /// The root whose code says that the file of step 1 is ours.
    author: KeyId,
    next: Option<Secret>,
    /// What the manifest does to the chain; `None` if the log has it already.
    step: Option<Step>,
    drawn: Vec<(Role, KeyId)>,
    /// An artifact that goes into the store with the manifest: the request that it grants.
    enclosed: Option<Vec<u8>>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("domain", &self.domain)
            .field("manifest", &self.manifest())
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

/// A change that was made.
#[derive(Debug)]
pub struct Governed {
    /// As the log has it now.
    pub domain: Domain,
    /// The checkpoint over it; `None` where the key file has no checkpoint key that is listed.
    pub checkpoint: Option<Checkpointed>,
    /// Keys that are no longer in the key file.
    pub left: Vec<KeyId>,
    /// Files under `meta/` that had to be made.
    pub differences: Vec<Difference>,
}

impl Plan {
    /// Signs a draft with `keys` and sees that it follows. The keys come back where it does not.
    fn signed(
        chain: &Chain,
        draft: Draft,
        keys: KeyFile,
        next: Option<Secret>,
    ) -> Result<Self, Box<(KeyFile, Error)>> {
        match try_sign(chain, draft, &keys) {
            Ok((draft, dam, author, step)) => Ok(Self {
                domain: chain.domain(),
                draft,
                dam,
                keys,
                author,
                next,
                step,
                drawn: Vec::new(),
                enclosed: None,
            }),
            Err(error) => Err(Box::new((keys, error))),
        }
    }

    /// Goes on with a change that was interrupted, if the keys can.
    ///
    /// # Errors
    /// [`KeyFileError::OtherDomain`]; [`FileError`](crate::FileError).
    pub fn resume(writer: &StoreWriter, domain: &Domain, keys: KeyFile) -> Result<Resumed> {
        keys.require_domain(&domain.id())?;
        let vfs = &**writer.handle().vfs();
        let Some(draft) = pending::find(vfs, &domain.id(), &keys)? else {
            return Ok(Resumed::Nothing(keys));
        };
        Ok(match Self::signed(&domain.chain, draft, keys, None) {
            Ok(plan) => Resumed::Change(Box::new(plan)),
            // Something else was signed since.
            Err(refused) => Resumed::Nothing(refused.0),
        })
    }

    /// The domain.
    pub fn domain(&self) -> DomainId {
        self.domain
    }

    /// Name of the manifest that changes it.
    pub fn manifest(&self) -> Key {
        Key::of(&self.draft.dam)
    }

    /// What the manifest says.
    pub fn dam(&self) -> &Dam {
        &self.dam
    }

    /// Whether it is a rotation.
    pub fn rotates(&self, domain: &Domain) -> bool {
        let before = self.dam.prev.and_then(|prev| domain.chain.node(&prev));
        before.is_some_and(|before| before.dam.rotation != self.dam.rotation)
    }

    /// Updates that it voids, oldest first.
    pub fn voids(&self) -> &[Key] {
        match &self.step {
            Some(Step::Rotated { voided }) => voided,
            _ => &[],
        }
    }

    /// Keys that were drawn for it, the one of the recovery phrase not among them.
    pub fn drawn(&self) -> &[(Role, KeyId)] {
        &self.drawn
    }

    /// The new recovery phrase of a rotation that was planned now. It is nowhere else.
    pub fn phrase(&self) -> Option<Phrase> {
        self.next.as_ref().map(Phrase::from_secret)
    }

    /// Whether a phrase is the one that recovers the domain once this is done.
    pub fn is_recovered_by(&self, phrase: &Phrase) -> bool {
        let digest = Signer::new(&phrase.secret()).public().next_digest();
        self.dam.next.contains(&digest)
    }

    /// Step 1: keeps the manifest, in place of one that was not gone on with.
    ///
    /// # Errors
    /// [`FileError`](crate::FileError).
    pub fn prepare(&self, writer: &StoreWriter) -> Result<()> {
        let author = self.keys.signer(&self.author);
        let author = author.ok_or(MintError::NoKey { role: Roles(0) })?;
        pending::keep(&**writer.handle().vfs(), &self.draft, author)
    }

    /// Step 3: keeps the keys, in place of the file that they came from. The new phrase must be safe before.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn keep_keys(&self, writer: &StoreWriter, passphrase: &str) -> Result<(), KeyFileError> {
        let vfs = &**writer.handle().vfs();
        self.keys
            .replace(vfs, &key_file_path(&self.domain), passphrase)
    }

    /// As [`keep_keys`](Self::keep_keys), where a key file is there that could not be opened: it gets another name first, which is
    /// returned.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn keep_keys_beside(
        &self,
        writer: &StoreWriter,
        passphrase: &str,
    ) -> Result<String, KeyFileError> {
        let vfs = &**writer.handle().vfs();
        let path = key_file_path(&self.domain);
        let kept = free_name(vfs, &self.domain)?;
        let failed = |action, path: &str, source| KeyFileError::Io {
            action,
            path: path.to_owned(),
            source,
        };
        vfs.rename(&path, &kept)
            .map_err(|error| failed("rename", &path, error))?;
        vfs.sync_dir(PRIVATE_DIR)
            .map_err(|error| failed("sync", PRIVATE_DIR, error))?;
        self.keys.create(vfs, &path, passphrase)?;
        Ok(kept)
    }

    /// Steps 4 to 7, those that an interrupted change did already left out.
    ///
    /// # Errors
    /// [`GovernError::Overtaken`]; whatever the store or the filesystem refuses.
    pub fn commit(mut self, writer: &mut StoreWriter, passphrase: &str) -> Result<Governed> {
        let manifest = self.manifest();
        let before = read(writer)?;
        if before.chain.standing(&manifest) != Some(Standing::OnPath) {
            let mut trial = before.chain.clone();
            let follows = self.draft.continue_chain(&mut trial);
            follows.map_err(|_| GovernError::Overtaken)?;
            if let Some(bytes) = &self.enclosed {
                mint::put(writer, bytes)?;
            }
            record(writer, &self.draft)?;
        }
        let domain = read(writer)?;
        let left = departed(&domain.chain, &self.keys);
        if !left.is_empty() {
            for key in &left {
                self.keys.remove(key);
            }
            self.keep_keys(writer, passphrase)?;
        }
        let checkpoint = match mint::checkpoint(writer, &self.keys) {
            Ok(made) => Some(made),
            Err(Error::Mint(MintError::NoKey { .. } | MintError::NotListedYet { .. })) => None,
            Err(error) => return Err(error),
        };
        let domain = match checkpoint {
            Some(_) => read(writer)?,
            None => domain,
        };
        let host = host_of(&domain, &self.keys);
        let handle = writer.handle();
        let vfs = &**handle.vfs();
        let differences = meta::materialise(vfs, handle, &domain, host)?;
        pending::forget(vfs, &self.domain)?;
        Ok(Governed {
            domain,
            checkpoint,
            left,
            differences,
        })
    }
}

/// Puts a signed manifest into the log.
pub(crate) fn record(writer: &mut StoreWriter, draft: &Draft) -> Result<LogPosition> {
    mint::put(writer, &draft.policy)?;
    let mut keys = vec![mint::put(writer, &draft.dam)?];
    for signature in &draft.signatures {
        keys.push(mint::put(writer, signature)?);
    }
    Ok(writer.authority(Authority::Dam, &keys)?)
}

/// Signs with the keys that must, and sees that it follows, unless it did already.
fn try_sign(
    chain: &Chain,
    draft: Draft,
    keys: &KeyFile,
) -> Result<(Draft, Dam, KeyId, Option<Step>)> {
    let dam = Dam::decode(&draft.dam)?;
    let mut roots = keys.signers(Role::Root).map(Signer::id);
    let author = roots.find(|id| dam.is_root(id));
    let author = author.ok_or(MintError::NoKey { role: Roles(0) })?;
    if chain.standing(&Key::of(&draft.dam)) == Some(Standing::OnPath) {
        return Ok((draft, dam, author, None));
    }
    let draft = sign(chain, draft, &dam, keys);
    let step = draft.continue_chain(&mut chain.clone())?;
    Ok((draft, dam, author, Some(step)))
}

/// Signs with the roots of the manifest and of the one before it, and with the principals that it lists anew. No other key has a
/// say, and a checkpoint key least of all: it signs other people's text format.
pub(crate) fn sign(chain: &Chain, draft: Draft, dam: &Dam, keys: &KeyFile) -> Draft {
    let before = dam.prev.and_then(|prev| chain.node(&prev));
    let has_a_say = |id: &KeyId| {
        let was_root = before.is_some_and(|before| before.dam.is_root(id));
        let was_principal = before.is_some_and(|before| before.dam.principal(id).is_some());
        was_root || dam.is_root(id) || dam.principal(id).is_some() && !was_principal
    };
    let mut signers: Vec<&Signer> = Vec::new();
    for entry in keys.keys() {
        let signer = entry.signer();
        let twice = signers.iter().any(|known| known.id() == signer.id());
        if has_a_say(&signer.id()) && !twice {
            signers.push(signer);
        }
    }
    draft.signed(signers)
}

/// Keys of the file that the domain once listed and no longer does. A key that is not listed yet stays.
fn departed(chain: &Chain, keys: &KeyFile) -> Vec<KeyId> {
    let head = &chain.head().dam;
    let lists = |dam: &Dam, id: &KeyId| dam.is_root(id) || dam.principal(id).is_some();
    let left: BTreeSet<KeyId> = keys
        .keys()
        .iter()
        .filter(|entry| entry.role != Role::Witness)
        .map(|entry| entry.signer().id())
        .filter(|id| !lists(head, id) && chain.path().any(|node| lists(&node.dam, id)))
        .collect();
    left.into_iter().collect()
}

/// The key by which this host signs receipts.
pub(crate) fn host_of(domain: &Domain, keys: &KeyFile) -> Option<KeyId> {
    let dam = &domain.chain.head().dam;
    let mut hosts = keys.signers(Role::Host).map(Signer::id);
    hosts.find(|id| dam.has_role(id, Roles::PRODUCE))
}

/// A name beside the key file of a domain that nothing has.
fn free_name(vfs: &dyn Vfs, domain: &DomainId) -> Result<String, KeyFileError> {
    let mut n = 1u64;
    loop {
        let path = format!("{PRIVATE_DIR}/{domain}.unopened-{n}.age");
        match vfs.metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path),
            Err(source) => {
                let action = "look for";
                return Err(KeyFileError::Io {
                    action,
                    path,
                    source,
                });
            }
            Ok(_) => n += 1,
        }
    }
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
