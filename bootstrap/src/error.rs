//! What can go wrong with a domain: each module states its own refusals, this enum carries them all.

use crate::author::AuthorError;
use crate::chain::ChainError;
use crate::checkpoint::CheckpointError;
use crate::codec::CodecError;
use crate::dam::DamError;
use crate::domain::DomainError;
use crate::draftfile::{CardError, DraftError};
use crate::export::ExportError;
use crate::files::FileError;
use crate::govern::GovernError;
use crate::host::HostError;
use crate::id::DomainIdError;
use crate::key::KeyError;
use crate::keyfile::KeyFileError;
use crate::lineage::LineageError;
use crate::mint::MintError;
use crate::note::NoteError;
use crate::phrase::PhraseError;
use crate::policy::{PolicyError, Refusal};
use crate::promote::PromoteError;
use crate::sign::SignError;
use crate::tlog::TreeError;
use crate::trust::TrustError;
use crate::verify::VerifyError;
use crate::witness::{ExchangeError, QuorumError, WitnessError};

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
    /// A key file that cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A recovery phrase that was mistyped.
    #[error(transparent)]
    Phrase(#[from] PhraseError),
    /// A signature that does not count.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A manifest that breaks a rule on a manifest alone.
    #[error(transparent)]
    Dam(#[from] DamError),
    /// A manifest that does not follow.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A manifest that cannot be made.
    #[error(transparent)]
    Author(#[from] AuthorError),
    /// A store whose first manifest cannot be used.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// Bytes that are no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Refused by the domain's policy.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A file beside the store's own.
    #[error(transparent)]
    File(#[from] FileError),
    /// A domain that cannot be minted or signed for.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// A link to another domain that is none.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// A promotion that is refused.
    #[error(transparent)]
    Promote(#[from] PromoteError),
    /// A domain that cannot be changed so.
    #[error(transparent)]
    Govern(#[from] GovernError),
    /// A request of another host that is refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A draft that nobody should sign, or that is not signed.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// A card of a member that cannot be used.
    #[error(transparent)]
    Card(#[from] CardError),
    /// A file that is no export.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] asl_store::Error),
    /// A note or its signatures.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A tree or a proof.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A quorum that there cannot be.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// A witness that refuses.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// Nothing to ask a witness, or an answer that is none.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// A store that is not of the domain expected.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A memory of what is trusted that cannot be used, or that a store contradicts.
    #[error(transparent)]
    Trust(#[from] TrustError),
}
