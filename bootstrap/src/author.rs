//! Making manifests: a draft from the state of a chain, signatures by whoever must sign, and a check by the same rules that
//! every reader applies, so that nothing is handed out that would be refused.
//!
//! The nonce and the time are the caller's; a draft of the same inputs is the same bytes.

use asl_store::Key;

use crate::chain::{Candidate, Chain, ChainError, Step};
use crate::dam::{Dam, DamError};
use crate::id::DomainId;
use crate::key::Signer;
use crate::policy::Policy;
use crate::sign::{Context, Signature};

/// What a chain cannot be continued with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    /// The manifest would break a rule on a manifest alone.
    #[error(transparent)]
    Dam(#[from] DamError),
    /// The manifest would be refused by every reader.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A rotation of something that is no manifest of the current epoch.
    #[error("no rotation can go on from {0}")]
    NotRotatable(Key),
}

/// A manifest that is complete but for signatures. Several people may sign one in turn: the bytes do not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    domain: DomainId,
    /// The DAM artifact.
    pub dam: Vec<u8>,
    /// The policy artifact.
    pub policy: Vec<u8>,
    /// The signature artifacts so far.
    pub signatures: Vec<Vec<u8>>,
}

impl Draft {
    /// The first manifest of a domain. `version`, `rotation`, `prev`, `domain` and `policy` of `dam` are set here, and its lists put in order.
    ///
    /// # Errors
    /// [`AuthorError::Dam`].
    pub fn genesis(dam: Dam, policy: &Policy) -> Result<Self, AuthorError> {
        let dam = Dam {
            version: 0,
            rotation: 0,
            prev: None,
            domain: None,
            ..dam
        };
        Self::finish(None, dam, policy)
    }

    /// An update of the head. `edit` changes what an update may change; `nonce` is random, `created_hint` the time in
    /// nanoseconds since 1970.
    ///
    /// # Errors
    /// [`AuthorError::Dam`].
    pub fn update(
        chain: &Chain,
        nonce: [u8; 32],
        created_hint: i64,
        edit: impl FnOnce(&mut Dam, &mut Policy),
    ) -> Result<Self, AuthorError> {
        Self::after(chain, chain.head_key(), 0, nonce, created_hint, edit)
    }

    /// A rotation that goes on from `from`, the head or another manifest of the current epoch: updates after it are voided. `edit`
    /// must set the roots, among them the revealed keys, and new next keys; it starts from what `from` says.
    ///
    /// # Errors
    /// [`AuthorError::NotRotatable`], [`AuthorError::Dam`].
    pub fn rotation(
        chain: &Chain,
        from: Key,
        nonce: [u8; 32],
        created_hint: i64,
        edit: impl FnOnce(&mut Dam, &mut Policy),
    ) -> Result<Self, AuthorError> {
        Self::after(chain, from, 1, nonce, created_hint, edit)
    }

    /// A manifest as somebody made it, with the signatures that it has so far.
    ///
    /// # Errors
    /// [`AuthorError::Dam`].
    pub fn stored(
        dam: Vec<u8>,
        policy: Vec<u8>,
        signatures: Vec<Vec<u8>>,
    ) -> Result<Self, AuthorError> {
        let domain = Dam::decode(&dam)?.domain;
        Ok(Self {
            domain: domain.unwrap_or_else(|| DomainId::of_genesis(&dam)),
            dam,
            policy,
            signatures,
        })
    }

    fn after(
        chain: &Chain,
        from: Key,
        rotations: u64,
        nonce: [u8; 32],
        created_hint: i64,
        edit: impl FnOnce(&mut Dam, &mut Policy),
    ) -> Result<Self, AuthorError> {
        let parent = (chain.node(&from))
            .filter(|node| node.epoch == chain.epoch_key())
            .ok_or(AuthorError::NotRotatable(from))?;
        let mut dam = parent.dam.clone();
        let mut policy = parent.policy;
        dam.anchor = None;
        edit(&mut dam, &mut policy);
        let dam = Dam {
            version: parent.dam.version.saturating_add(1),
            rotation: parent.dam.rotation.saturating_add(rotations),
            prev: Some(from),
            domain: Some(chain.domain()),
            nonce,
            created_hint,
            ..dam
        };
        Self::finish(Some(chain.domain()), dam, &policy)
    }

    fn finish(
        domain: Option<DomainId>,
        mut dam: Dam,
        policy: &Policy,
    ) -> Result<Self, AuthorError> {
        dam.policy = policy.key();
        dam.sort();
        let dam = dam.encode()?;
        Ok(Self {
            domain: domain.unwrap_or_else(|| DomainId::of_genesis(&dam)),
            dam,
            policy: policy.encode(),
            signatures: Vec::new(),
        })
    }

    /// The domain that the manifest founds or belongs to.
    pub fn domain(&self) -> DomainId {
        self.domain
    }

    /// Signs the manifest.
    #[must_use]
    pub fn signed<'a>(mut self, signers: impl IntoIterator<Item = &'a Signer>) -> Self {
        for signer in signers {
            self.sign(Context::Dam, signer);
        }
        self
    }

    /// Signs, as witnesses of a common domain, the change of its policy.
    #[must_use]
    pub fn cosigned<'a>(mut self, witnesses: impl IntoIterator<Item = &'a Signer>) -> Self {
        for witness in witnesses {
            self.sign(Context::CosignPolicy, witness);
        }
        self
    }

    fn sign(&mut self, context: Context, signer: &Signer) {
        let signature = Signature::new(signer, context, &self.domain, &self.dam);
        self.signatures.push(signature.encode());
    }

    /// What a chain takes.
    pub fn candidate(&self) -> Candidate<'_> {
        Candidate {
            dam: &self.dam,
            policy: &self.policy,
            signatures: self.signatures.iter().map(Vec::as_slice).collect(),
        }
    }

    /// Founds a chain with it.
    ///
    /// # Errors
    /// The rule by which every reader would refuse it, missing signatures included.
    pub fn found(&self) -> Result<Chain, AuthorError> {
        Ok(Chain::genesis(&self.candidate())?)
    }

    /// Continues `chain` with it.
    ///
    /// # Errors
    /// The rule by which every reader would refuse it, missing signatures included.
    pub fn continue_chain(&self, chain: &mut Chain) -> Result<Step, AuthorError> {
        Ok(chain.extend(&self.candidate())?)
    }
}
