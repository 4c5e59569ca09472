//! What can go wrong with a domain: each module states its own refusals, this enum carries them all.

use crate::codec::CodecError;
use crate::id::DomainIdError;
use crate::key::KeyError;
use crate::sign::SignError;

/// Result of a domain operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. The variants only carry the refusals of the modules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Text that is no domain id.
    #[error(transparent)]
    DomainId(#[from] DomainIdError),
    /// A public key or a signature that is refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Bytes that are not the one encoding of a document.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A signature that does not count.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] asl_store::Error),
}
