//! Domains: who vouches for what a store holds.
//!
//! A domain is named by the digest of its first authority manifest (DAM) and therefore needs nobody to
//! register it. Its keys sign later manifests, checkpoints of the log and receipts; its policy says what is
//! believed. Everything that counts is an artifact named by a critical record of the store's log; nothing
//! under `meta/` decides what counts.
//!
//! This library knows no terminal, no clock, no environment and no chance: time, randomness and passphrases
//! come in as arguments. (The `age` crate draws the salt and the nonce of an encrypted file itself.)
//!
//! Secrets are zeroized when dropped and have neither `Debug`, `Display` nor `Serialize`.

pub mod attest;
pub mod author;
pub mod beside;
pub mod carry;
pub mod chain;
pub mod checkpoint;
pub mod codec;
pub mod dam;
pub mod domain;
pub mod draftfile;
pub mod export;
pub mod govern;
pub mod host;
pub mod id;
pub mod key;
pub mod keyfile;
pub mod lineage;
pub mod manifests;
pub mod meta;
pub mod mint;
pub mod note;
pub mod phrase;
pub mod pin;
pub mod policy;
pub mod promote;
pub mod readonly;
pub mod receipt;
pub mod sign;
pub mod tlog;
pub mod trust;
pub mod verify;
pub mod witness;

mod error;
mod files;
#[cfg(test)]
mod fixture;
mod words;

pub use author::{AuthorError, Draft};
pub use chain::{Candidate, Chain, ChainError, Standing, Step};
pub use codec::{CodecError, Document};
pub use dam::{Dam, DamError, Kind, Roles};
pub use domain::{Domain, DomainError};
pub use draftfile::{Card, CardError, DraftError, DraftFile};
pub use error::{Error, Result};
pub use export::{Export, ExportError};
pub use files::FileError;
pub use govern::GovernError;
pub use host::{Fingerprint, HostError, Request as HostRequest};
pub use id::{DomainId, DomainIdError, KeyId, NextDigest};
pub use key::{KeyError, PublicKey, Random, Secret, Signer};
pub use keyfile::{KeyFile, KeyFileError, Role};
pub use lineage::{Lineage, LineageError};
pub use mint::MintError;
pub use phrase::{Phrase, PhraseError};
pub use pin::{Compared, Pin};
pub use policy::{Policy, PolicyError, Refusal};
pub use promote::PromoteError;
pub use receipt::{Receipt, ReceiptKind};
pub use sign::{Context, SignError, Signature};
pub use trust::{LogCompared, LogPin, LogSeen, Trust, TrustError, Trusted};
