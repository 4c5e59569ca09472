//! Receipts that nobody has signed yet: made when a session ends and no key is at hand.
//!
//! A receipt without a signature proves nothing by itself. It is there so that what the session ended with, and where in the log, is
//! an artifact that anybody can find, and that a later [`attest`](crate::mint::attest) only has to sign.
//!
//! Order: the artifact, then in the same append the record that names it. Crash: no record, and [`receive`] makes it again; the
//! same session has the same receipt.

use asl_store::{Authority, Key, StoreWriter};

use crate::dam::Roles;
use crate::domain::Domain;
use crate::error::Result;
use crate::keyfile::{KeyFile, Role};
use crate::mint::{Done, MintError, listed, put};

/// Makes sure that these keys can sign receipts and checkpoints for the domain as it is now, so that whoever wants to sign in thirty
/// hours hears of a wrong file at once.
///
/// # Errors
/// [`KeyFileError::OtherDomain`](crate::KeyFileError), [`MintError::Blind`], [`MintError::NoKey`],
/// [`MintError::NotListedYet`].
pub fn can_sign(domain: &Domain, keys: &KeyFile) -> Result<()> {
    keys.require_domain(&domain.id())?;
    if domain.is_blind() {
        return Err(MintError::Blind.into());
    }
    listed(domain, keys, Role::Host, Roles::PRODUCE)?;
    listed(domain, keys, Role::Checkpoint, Roles::CHECKPOINT)?;
    Ok(())
}

/// What became of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Its receipt was made now.
    Made {
        /// The receipt artifact.
        receipt: Key,
    },
    /// It had one, signed or not.
    Already {
        /// The receipt artifact.
        receipt: Key,
    },
    /// The log has no such end of the session.
    NotInLog,
}

/// Makes unsigned receipts for those of `sessions` that have none, one answer each.
///
/// # Errors
/// [`MintError::NoDomain`]; whatever the store refuses. Receipts made before the error stay.
pub fn receive(writer: &mut StoreWriter, sessions: &[Done]) -> Result<Vec<Received>> {
    writer.commit()?;
    let domain = Domain::read(writer.handle())?.ok_or(MintError::NoDomain)?;
    let mut received = Vec::new();
    for done in sessions {
        if let Some(state) = domain.receipt(done.session, done.root) {
            received.push(Received::Already { receipt: state.key });
            continue;
        }
        let Some(receipt) = domain.receipt_of(done.kind, done.session, done.root) else {
            received.push(Received::NotInLog);
            continue;
        };
        let receipt = put(writer, &receipt.encode())?;
        writer.authority(Authority::Receipt, &[receipt])?;
        received.push(Received::Made { receipt });
    }
    Ok(received)
}
