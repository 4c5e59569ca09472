//! The manifest of a change that is under way: `meta/tmp/govern-<domain id>.dam`, the policy, a code, then the DAM, unsigned.
//!
//! The code is BLAKE3, keyed with what only a root of that manifest can derive, over policy and DAM. Without it, whoever has
//! the medium could put there what the root would then sign.
//!
//! Crash: see [`super`]; the file is whole or not there.

use asl_store::vfs::Vfs;
use zeroize::Zeroizing;

use crate::author::Draft;
use crate::dam::{DAM_LEN_MAX, Dam};
use crate::domain::Domain;
use crate::error::Result;
use crate::files::{self, Readers};
use crate::id::DomainId;
use crate::key::Signer;
use crate::keyfile::{KeyFile, Role};
use crate::mint::PENDING_DIR;
use crate::phrase::Phrase;
use crate::policy::POLICY_LEN;

/// What the key of the code is derived for (BLAKE3, mode `derive_key`).
const PURPOSE: &str = "asl 2026 manifest of a change under way, by its root";
const CODE_LEN: usize = 32;

pub(super) fn path(domain: &DomainId) -> String {
    format!("{PENDING_DIR}/govern-{domain}.dam")
}

fn code(root: &Signer, policy: &[u8], dam: &[u8]) -> blake3::Hash {
    let secret = root.secret();
    let key = Zeroizing::new(blake3::derive_key(PURPOSE, secret.seed()));
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(policy).update(dam);
    hasher.finalize()
}

pub(super) fn keep(vfs: &dyn Vfs, draft: &Draft, root: &Signer) -> Result<()> {
    let code = code(root, &draft.policy, &draft.dam);
    let bytes = [draft.policy.as_slice(), code.as_bytes(), &draft.dam].concat();
    let path = path(&draft.domain());
    Ok(files::replace(vfs, &path, Readers::All, &bytes)?)
}

/// What is there, if one of `roots` made it.
fn read<'k>(
    vfs: &dyn Vfs,
    domain: &DomainId,
    roots: impl IntoIterator<Item = &'k Signer>,
) -> Result<Option<(Draft, Dam)>> {
    let most = POLICY_LEN + CODE_LEN + DAM_LEN_MAX;
    let Some(bytes) = files::read(vfs, &path(domain), most)? else {
        return Ok(None);
    };
    let Some((policy, rest)) = bytes.split_at_checked(POLICY_LEN) else {
        return Ok(None);
    };
    let Some((found, dam)) = rest.split_first_chunk::<CODE_LEN>() else {
        return Ok(None);
    };
    let Ok(said) = Dam::decode(dam) else {
        return Ok(None);
    };
    // `blake3::Hash` compares in constant time.
    let mut roots = roots.into_iter();
    let ours = |root: &Signer| {
        said.is_root(&root.id()) && code(root, policy, dam) == blake3::Hash::from_bytes(*found)
    };
    if said.domain != Some(*domain) || !roots.any(ours) {
        return Ok(None);
    }
    let draft = Draft::stored(dam.to_vec(), policy.to_vec(), Vec::new())?;
    Ok(Some((draft, said)))
}

pub(super) fn find(vfs: &dyn Vfs, domain: &DomainId, keys: &KeyFile) -> Result<Option<Draft>> {
    let found = read(vfs, domain, keys.signers(Role::Root))?;
    Ok(found.map(|(draft, _)| draft))
}

pub(super) fn forget(vfs: &dyn Vfs, domain: &DomainId) -> Result<()> {
    files::remove(vfs, &path(domain))?;
    files::sync_dir(vfs, PENDING_DIR)?;
    Ok(())
}

/// Whether `next` is a phrase that an interrupted rotation by `phrase` drew: it can be given to
/// [`Plan::rotate`](super::Plan::rotate) instead of drawing another one. Not one that any manifest commits to.
///
/// # Errors
/// [`FileError`](crate::FileError).
pub fn was_drawn(vfs: &dyn Vfs, domain: &Domain, phrase: &Phrase, next: &Phrase) -> Result<bool> {
    let root = Signer::new(&phrase.secret());
    let digest = Signer::new(&next.secret()).public().next_digest();
    let Some((_, said)) = read(vfs, &domain.id(), [&root])? else {
        return Ok(false);
    };
    let chain = &domain.chain;
    let spent = domain.manifests.keys().filter_map(|key| chain.node(key));
    let spent = spent
        .into_iter()
        .any(|node| node.dam.next.contains(&digest));
    Ok(said.next.contains(&digest) && !spent)
}
