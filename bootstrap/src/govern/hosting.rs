//! Another host of the domain: keys of its own, and the manifest that lists them.
//!
//! Order on the machine that asks, each step durable before the next:
//! 1. the key file, with keys that nobody lists yet
//! 2. the request, by the caller, wherever the user wants it
//!
//! Crash: nothing, or a key file. Asking again draws no other keys: the same keys, name and manifest in force give the same
//! request, byte for byte. What was asked for is in nobody's log before it is granted.
//!
//! Granting is an update like any other, in the order of [`super`]; the request's artifact comes in the same append as
//! the manifest. The file of step 1 there has no signatures, so an update that was interrupted before its record
//! is made again from the request: it is the same manifest.

use asl_store::StoreWriter;

use super::Plan;
use super::change::{Drawn, OF_A_HOST, own, settled};
use crate::dam::Principal;
use crate::domain::Domain;
use crate::error::Result;
use crate::host::{Asked, HostError, Request};
use crate::key::Random;
use crate::keyfile::KeyFile;
use crate::mint;

/// What a host asks for.
#[derive(Debug)]
pub struct Ask {
    /// What to give to whoever has the root.
    pub request: Request,
    /// Whether keys were drawn: the key file must be kept before the request is given away.
    pub drew: bool,
}

/// Asks for what this host lacks to sign receipts and checkpoints: with the keys of `keys` that nobody lists yet, or with new
/// ones, which are added to it. A key that was revoked is not asked for again.
///
/// # Errors
/// [`HostError::Nothing`]; [`HostError::Name`]; [`GovernError`](super::GovernError) where the log has two histories, or the key file is
/// full; [`KeyFileError::OtherDomain`](crate::KeyFileError).
pub fn ask(
    domain: &Domain,
    keys: &mut KeyFile,
    random: &mut dyn Random,
    name: &str,
) -> Result<Ask> {
    keys.require_domain(&domain.id())?;
    if !crate::host::is_name(name) {
        return Err(HostError::Name.into());
    }
    let chain = &domain.chain;
    settled(chain, false, false)?;
    let head = chain.head();
    let (mut wanted, mut drawn, mut drew) = (Vec::new(), Drawn::none(), false);
    for (role, roles) in OF_A_HOST {
        if own(&head.dam, keys, role, roles).next().is_some() {
            continue;
        }
        let mut had = keys.signers(role).map(|signer| signer.public());
        let kept = had.find(|key| !head.dam.revokes(&key.id()));
        let key = match kept {
            Some(key) => key,
            None => {
                drew = true;
                drawn.draw(role, random)?.public()
            }
        };
        wanted.push(Principal { key, roles });
    }
    if wanted.is_empty() {
        return Err(HostError::Nothing.into());
    }
    wanted.sort_by_key(|principal| principal.key.id());
    drawn.join(keys)?;
    let asked = Asked {
        domain: domain.id(),
        version: head.dam.version,
        manifest: head.key,
        name: name.to_owned(),
        keys: wanted,
    };
    let keys = &*keys;
    let request = asked.signed(chain, |id| keys.signer(id))?;
    Ok(Ask { request, drew })
}

/// Puts what a request asks for into the store, for a manifest that others sign as a draft.
///
/// # Errors
/// [`asl_store::Error`].
pub fn enclose(writer: &mut StoreWriter, request: &Request) -> Result<()> {
    mint::put(writer, request.asked.text().as_bytes())?;
    writer.commit()?;
    Ok(())
}

impl Plan {
    /// Plans the update that grants a request. Nothing is written.
    ///
    /// # Errors
    /// [`HostError`]; [`GovernError`](super::GovernError); [`AuthorError`](crate::AuthorError) for what every reader would refuse, missing
    /// signatures of roots included.
    pub fn grant(
        domain: &Domain,
        keys: KeyFile,
        request: &Request,
        despite_rivals: bool,
    ) -> Result<Self> {
        keys.require_domain(&domain.id())?;
        let draft = request.draft(&domain.chain)?;
        settled(&domain.chain, false, despite_rivals)?;
        let plan = Self::signed(&domain.chain, draft, keys, None);
        let mut plan = plan.map_err(|refused| refused.1)?;
        plan.enclosed = Some(request.asked.text().into_bytes());
        Ok(plan)
    }
}

#[cfg(test)]
mod tests;
