//! Signatures: separate artifacts over the stored bytes of another.
//!
//! What is signed is not the body but
//! `"asl.sig.v1\0" ‖ u8 length of context ‖ context ‖ domain id ‖ u64 length of body ‖ body`,
//! so that a signature given for one purpose, domain or artifact is none for another. Further signatures can be added
//! without changing the name of what they sign.
//!
//! Invariants
//! - A signature counts for the key that verifies it, by the id recomputed from that key: the id that a signature
//!   states only says where to look. A threshold counts keys, never signatures.
//! - Verification is over the bytes as stored, never over a document encoded again.

use std::collections::BTreeSet;

use asl_store::Key;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, Document};
use crate::id::{DomainId, KeyId};
use crate::key::{KeyError, PublicKey, Signer};

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Context {
    /// A domain authority manifest.
    Dam,
    /// A receipt.
    Receipt,
    /// A lineage record.
    Lineage,
    /// A witness's agreement to a change of policy.
    CosignPolicy,
}

impl Context {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Dam, Self::Receipt, Self::Lineage, Self::CosignPolicy];

    /// Its text in the signed bytes.
    pub fn text(self) -> &'static str {
        match self {
            Self::Dam => "dam",
            Self::Receipt => "receipt",
            Self::Lineage => "lineage",
            Self::CosignPolicy => "cosign-policy",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Dam => 1,
            Self::Receipt => 2,
            Self::Lineage => 3,
            Self::CosignPolicy => 4,
        }
    }
}

/// A signature that does not count, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Not a signature artifact in its one form.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A purpose that this program does not know.
    #[error("signature context {0} is not known to this program")]
    UnknownContext(u8),
    /// Given for another purpose.
    #[error("the signature is for {found}, not for {expected}", found = found.text(), expected = expected.text())]
    Context {
        /// What it should be for.
        expected: Context,
        /// What it says it is for.
        found: Context,
    },
    /// Of another artifact.
    #[error("the signature is of artifact {found}")]
    Body {
        /// The artifact that it names.
        found: Key,
    },
    /// By another key.
    #[error("the signature is by key {found}")]
    Signer {
        /// The key that it names.
        found: KeyId,
    },
    /// The algorithm is unknown, or the signature does not verify.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The bytes that are signed for `body`, an artifact as stored.
pub fn signing_input(context: Context, domain: &DomainId, body: &[u8]) -> Vec<u8> {
    let text = context.text().as_bytes();
    let mut input = Vec::with_capacity(12 + text.len() + 40 + body.len());
    input.extend_from_slice(b"asl.sig.v1\0");
    input.push(u8::try_from(text.len()).expect("context names are short"));
    input.extend_from_slice(text);
    input.extend_from_slice(&domain.0);
    input.extend_from_slice(&(body.len() as u64).to_le_bytes());
    input.extend_from_slice(body);
    input
}

/// A signature as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What it is for.
    pub context: Context,
    /// The artifact that is signed.
    pub body: Key,
    /// The key that is said to have signed.
    pub signer: KeyId,
    /// Algorithm byte of that key.
    pub alg: u8,
    /// The signature proper.
    pub bytes: [u8; 64],
}

/// The wire form. The signature's two halves are two fields because serde knows arrays up to 32.
#[derive(Serialize, Deserialize)]
struct Wire {
    context: u8,
    body: [u8; 32],
    signer: KeyId,
    alg: u8,
    r: [u8; 32],
    s: [u8; 32],
}

impl Document for Wire {
    const TAG: [u8; codec::TAG_LEN] = *b"ASLSIG1\n";
    const WHAT: &'static str = "a signature";
    const LEN_MAX: usize = codec::TAG_LEN + 1 + 32 + 32 + 1 + 64;
}

impl Signature {
    /// First bytes of a signature artifact.
    pub const TAG: [u8; codec::TAG_LEN] = Wire::TAG;
    /// Length of every signature artifact.
    pub const LEN: usize = Wire::LEN_MAX;

    /// Signs `body`, an artifact as stored, for `domain`.
    pub fn new(signer: &Signer, context: Context, domain: &DomainId, body: &[u8]) -> Self {
        Self {
            context,
            body: Key::of(body),
            signer: signer.id(),
            alg: signer.public().alg(),
            bytes: signer.sign_bytes(&signing_input(context, domain, body)),
        }
    }

    /// The artifact.
    pub fn encode(&self) -> Vec<u8> {
        let (r, s) = self.bytes.split_at(32);
        let wire = Wire {
            context: self.context.code(),
            body: self.body.0,
            signer: self.signer,
            alg: self.alg,
            r: r.try_into().expect("half of 64"),
            s: s.try_into().expect("half of 64"),
        };
        codec::encode(&wire).expect("all fields are of fixed length")
    }

    /// Reads an artifact.
    ///
    /// # Errors
    /// [`SignError::Codec`], [`SignError::UnknownContext`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignError> {
        let wire: Wire = codec::decode(bytes)?;
        let context = Context::ALL
            .into_iter()
            .find(|context| context.code() == wire.context)
            .ok_or(SignError::UnknownContext(wire.context))?;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&wire.r);
        signature[32..].copy_from_slice(&wire.s);
        Ok(Self {
            context,
            body: Key(wire.body),
            signer: wire.signer,
            alg: wire.alg,
            bytes: signature,
        })
    }

    /// Checks that `key` signed `body`, an artifact as stored, for this purpose in `domain`.
    ///
    /// # Errors
    /// [`SignError`]: what does not agree, the cheapest comparison first.
    pub fn verify(
        &self,
        context: Context,
        domain: &DomainId,
        body: &[u8],
        key: &PublicKey,
    ) -> Result<(), SignError> {
        if self.context != context {
            return Err(SignError::Context {
                expected: context,
                found: self.context,
            });
        }
        if self.alg != key.alg() {
            return Err(KeyError::Algorithm(self.alg).into());
        }
        if self.signer != key.id() {
            return Err(SignError::Signer { found: self.signer });
        }
        if self.body != Key::of(body) {
            return Err(SignError::Body { found: self.body });
        }
        key.verify(&signing_input(context, domain, body), &self.bytes)?;
        Ok(())
    }
}

/// Which of `keys` signed `body`: the set to hold against a threshold. Signatures that do not verify, that are by other
/// keys or that come twice add nothing; neither does a key that is listed twice.
pub fn signers<'a>(
    context: Context,
    domain: &DomainId,
    body: &[u8],
    signatures: &[Signature],
    keys: impl IntoIterator<Item = &'a PublicKey>,
) -> BTreeSet<KeyId> {
    keys.into_iter()
        .filter(|key| {
            signatures
                .iter()
                .any(|signature| signature.verify(context, domain, body, key).is_ok())
        })
        .map(PublicKey::id)
        .collect()
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::key::Secret;

    const BODY: &[u8] = b"ASLTEST\nbody";

    fn signer(n: u8) -> Signer {
        Signer::new(&Secret::from_seed(Zeroizing::new([n; 32])))
    }

    fn domain() -> DomainId {
        DomainId::of_genesis(b"genesis")
    }

    #[test]
    fn the_signed_bytes_are_the_documented_ones() {
        let input = signing_input(Context::CosignPolicy, &DomainId([0xdd; 32]), b"xyz");
        let expected = [
            b"asl.sig.v1\0\x0dcosign-policy".as_slice(),
            &[0xdd; 32],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            b"xyz",
        ]
        .concat();
        assert_eq!(input, expected);
    }

    #[test]
    fn an_artifact_comes_back_and_verifies() {
        let signature = Signature::new(&signer(1), Context::Dam, &domain(), BODY);
        let bytes = signature.encode();
        assert_eq!(bytes.len(), 138);
        assert_eq!(&bytes[..8], &Signature::TAG);
        let read = Signature::decode(&bytes).unwrap();
        assert_eq!(read, signature);
        let key = signer(1).public();
        assert_eq!(read.verify(Context::Dam, &domain(), BODY, &key), Ok(()));
    }

    #[test]
    fn a_signature_is_good_for_one_purpose_domain_body_and_key() {
        let good = Signature::new(&signer(1), Context::Dam, &domain(), BODY);
        let key = signer(1).public();
        let forged = Err(SignError::Key(KeyError::Signature));

        // What the artifact states, it states openly.
        assert_eq!(
            good.verify(Context::Receipt, &domain(), BODY, &key),
            Err(SignError::Context {
                expected: Context::Receipt,
                found: Context::Dam
            })
        );
        assert_eq!(
            good.verify(Context::Dam, &domain(), b"other", &key),
            Err(SignError::Body {
                found: Key::of(BODY)
            })
        );
        assert_eq!(
            good.verify(Context::Dam, &domain(), BODY, &signer(2).public()),
            Err(SignError::Signer { found: key.id() })
        );

        // Changing the statement does not change what was signed.
        for context in Context::ALL {
            let other = Signature {
                context,
                ..good.clone()
            };
            let expected = if context == Context::Dam {
                Ok(())
            } else {
                forged
            };
            assert_eq!(other.verify(context, &domain(), BODY, &key), expected);
        }
        let other = Signature {
            body: Key::of(b"other"),
            ..good.clone()
        };
        assert_eq!(
            other.verify(Context::Dam, &domain(), b"other", &key),
            forged
        );
        let other = Signature {
            signer: signer(2).id(),
            ..good.clone()
        };
        assert_eq!(
            other.verify(Context::Dam, &domain(), BODY, &signer(2).public()),
            forged
        );
        let elsewhere = DomainId::of_genesis(b"other");
        assert_eq!(good.verify(Context::Dam, &elsewhere, BODY, &key), forged);
        let other = Signature {
            alg: 2,
            ..good.clone()
        };
        assert_eq!(
            other.verify(Context::Dam, &domain(), BODY, &key),
            Err(SignError::Key(KeyError::Algorithm(2)))
        );
        for i in 0..64 {
            let mut other = good.clone();
            other.bytes[i] ^= 1;
            assert_eq!(
                other.verify(Context::Dam, &domain(), BODY, &key),
                forged,
                "byte {i}"
            );
        }
    }

    #[test]
    fn foreign_forms_are_refused() {
        let bytes = Signature::new(&signer(1), Context::Dam, &domain(), BODY).encode();
        for cut in 0..bytes.len() {
            assert!(Signature::decode(&bytes[..cut]).is_err(), "cut to {cut}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(
            Signature::decode(&longer),
            Err(SignError::Codec(CodecError::TooLong { .. }))
        ));
        for context in [0, 5, 255] {
            let mut strange = bytes.clone();
            strange[8] = context;
            assert_eq!(
                Signature::decode(&strange),
                Err(SignError::UnknownContext(context))
            );
        }
        let mut tag = bytes.clone();
        tag[6] = b'2';
        assert!(matches!(
            Signature::decode(&tag),
            Err(SignError::Codec(CodecError::Tag { .. }))
        ));
    }

    #[test]
    fn a_threshold_counts_keys() {
        let sign = |n| Signature::new(&signer(n), Context::Dam, &domain(), BODY);
        let keys = [signer(1).public(), signer(2).public(), signer(2).public()];
        let count = |signatures: &[Signature]| {
            signers(Context::Dam, &domain(), BODY, signatures, &keys).len()
        };
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[sign(1), sign(1), sign(1)]), 1);
        assert_eq!(count(&[sign(3), sign(4)]), 0, "keys that are not listed");
        assert_eq!(count(&[sign(2)]), 1, "a key that is listed twice");
        assert_eq!(count(&[sign(1), sign(2), sign(3)]), 2);
        // One good signature under the name of another key.
        let renamed = Signature {
            signer: signer(2).id(),
            ..sign(1)
        };
        assert_eq!(count(&[sign(1), renamed]), 1);
    }
}
