//! Signing keys: Ed25519, strictly.
//!
//! Invariants
//! - A [`PublicKey`] decompressed to a point, compresses back to the same bytes and has no low order. Decoders accept
//!   encodings of which several mean one key, and a key of low order verifies messages nobody signed.
//! - A signature counts only by `verify_strict`: one rule for every verifier.
//! - A [`Secret`] is wiped when dropped and cannot be printed, compared or serialised.

use std::fmt;

use asl_store::id::hex;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::id::{KeyId, NextDigest, sha256};

/// The only signature algorithm so far: Ed25519 (RFC 8032), verified strictly.
pub const ALG_ED25519: u8 = 1;

/// A source of uniformly random bytes, such as `getrandom(2)`; it must not return before it is seeded.
pub trait Random {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// What the source of randomness reported; there is no fallback.
    fn fill(&mut self, bytes: &mut [u8]) -> std::io::Result<()>;
}

impl<F: FnMut(&mut [u8]) -> std::io::Result<()>> Random for F {
    fn fill(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        self(bytes)
    }
}

/// A key or signature that is refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// An algorithm that this program does not know.
    #[error("signature algorithm {0} is not known to this program")]
    Algorithm(u8),
    /// 32 bytes that are no point of the curve.
    #[error("the public key is no point of the curve")]
    NotAPoint,
    /// A second way of writing some key.
    #[error("the public key is not in its one canonical encoding")]
    NonCanonical,
    /// A key of low order, under which nearly any signature verifies.
    #[error("the public key is weak: it has low order")]
    Weak,
    /// The signature is not one of this key over these bytes.
    #[error("the signature is not by this key over these bytes")]
    Signature,
}

/// A public key that passed every check.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    verifying: VerifyingKey,
}

impl PublicKey {
    /// Takes a key from outside.
    ///
    /// # Errors
    /// [`KeyError`]: an unknown algorithm, no point, not canonical, or weak.
    pub fn load(alg: u8, bytes: &[u8; 32]) -> Result<Self, KeyError> {
        if alg != ALG_ED25519 {
            return Err(KeyError::Algorithm(alg));
        }
        let verifying = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        if verifying.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::NonCanonical);
        }
        if verifying.is_weak() {
            return Err(KeyError::Weak);
        }
        Ok(Self { verifying })
    }

    /// Byte that names the algorithm.
    pub fn alg(&self) -> u8 {
        ALG_ED25519
    }

    /// The 32 bytes of the key.
    pub fn bytes(&self) -> &[u8; 32] {
        self.verifying.as_bytes()
    }

    /// Name of the key.
    pub fn id(&self) -> KeyId {
        KeyId(sha256(&[b"asl.key.v1\0", &[self.alg()], self.bytes()]))
    }

    /// The commitment by which a manifest announces this key before anyone sees it.
    pub fn next_digest(&self) -> NextDigest {
        NextDigest(sha256(&[b"asl.next.v1\0", &[self.alg()], self.bytes()]))
    }

    /// Checks a signature over exactly `message`.
    ///
    /// # Errors
    /// [`KeyError::Signature`]. Signatures with a point of low order or a scalar out of range never verify.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), KeyError> {
        self.verifying
            .verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|_| KeyError::Signature)
    }
}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl std::hash::Hash for PublicKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey(ed25519 {})", hex(self.bytes()))
    }
}

/// A private key: the 32-byte seed of RFC 8032, wiped when dropped.
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// Draws a new one.
    ///
    /// # Errors
    /// What the source of randomness reported.
    pub fn generate(random: &mut dyn Random) -> std::io::Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        random.fill(seed.as_mut())?;
        Ok(Self(seed))
    }

    /// Takes a seed that is in wiped memory already.
    pub fn from_seed(seed: Zeroizing<[u8; 32]>) -> Self {
        Self(seed)
    }

    /// The seed, for writing it into a key file or a recovery phrase and nowhere else.
    pub fn seed(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A private key ready to sign, with its public key.
pub struct Signer {
    signing: SigningKey,
    public: PublicKey,
}

impl Signer {
    /// Makes the key pair of a seed.
    pub fn new(secret: &Secret) -> Self {
        let signing = SigningKey::from_bytes(secret.seed());
        let public = PublicKey {
            verifying: signing.verifying_key(),
        };
        Self { signing, public }
    }

    /// Draws a new key pair.
    ///
    /// # Errors
    /// What the source of randomness reported.
    pub fn generate(random: &mut dyn Random) -> std::io::Result<Self> {
        Secret::generate(random).map(|secret| Self::new(&secret))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Name of the public half.
    pub fn id(&self) -> KeyId {
        self.public.id()
    }

    /// The seed again, for a key file or a recovery phrase.
    pub fn secret(&self) -> Secret {
        Secret(Zeroizing::new(self.signing.to_bytes()))
    }

    /// Signs exactly `message`. What a domain signs goes through [`crate::sign`], which says in the message what it is for.
    pub fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex<const N: usize>(text: &str) -> [u8; N] {
        asl_store::id::unhex(text).expect("hex of a test")
    }

    /// RFC 8032, 7.1, test 2.
    #[test]
    fn signs_as_the_rfc_does() {
        let secret = Secret::from_seed(Zeroizing::new(unhex(
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        )));
        let signer = Signer::new(&secret);
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(hex(signer.public().bytes()), public);
        let signature = signer.sign_bytes(&[0x72]);
        assert_eq!(
            hex(&signature),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        let loaded = PublicKey::load(ALG_ED25519, &unhex(public)).unwrap();
        assert_eq!(loaded, signer.public());
        assert_eq!(loaded.verify(&[0x72], &signature), Ok(()));
        assert_eq!(loaded.verify(&[0x73], &signature), Err(KeyError::Signature));
        assert_eq!(signer.secret().seed(), secret.seed());
    }

    #[test]
    fn names_commit_to_purpose_and_algorithm() {
        let key = Signer::new(&Secret::from_seed(Zeroizing::new([7; 32]))).public();
        assert_ne!(key.id().0, key.next_digest().0);
        let by_hand = sha256(&[&[b"asl.key.v1\0".as_slice(), &[1], key.bytes()].concat()]);
        assert_eq!(key.id().0, by_hand);
        let by_hand = sha256(&[&[b"asl.next.v1\0".as_slice(), &[1], key.bytes()].concat()]);
        assert_eq!(key.next_digest().0, by_hand);
    }

    #[test]
    fn each_bad_key_has_its_own_error() {
        let good = *Signer::new(&Secret::from_seed(Zeroizing::new([7; 32])))
            .public()
            .bytes();
        for alg in [0, 2, 255] {
            assert_eq!(PublicKey::load(alg, &good), Err(KeyError::Algorithm(alg)));
        }
        // y = 2 has no x on the curve.
        let mut two = [0; 32];
        two[0] = 2;
        assert_eq!(PublicKey::load(1, &two), Err(KeyError::NotAPoint));
        // The eight points of low order, in their canonical encodings.
        for weak in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        ] {
            assert_eq!(
                PublicKey::load(1, &unhex(weak)),
                Err(KeyError::Weak),
                "{weak}"
            );
        }
    }

    /// Every y in p..2^255 with either sign, and "minus zero" for x: whatever decodes at all is refused as non-canonical.
    #[test]
    fn no_key_has_a_second_encoding() {
        let mut refused = 0;
        for low in 0xed..=0xffu8 {
            for top in [0x7f, 0xff] {
                let mut bytes = [0xff; 32];
                bytes[0] = low;
                bytes[31] = top;
                match PublicKey::load(1, &bytes) {
                    Err(KeyError::NonCanonical) => refused += 1,
                    Err(KeyError::NotAPoint) => {}
                    other => panic!("{low:02x}: {other:?}"),
                }
            }
        }
        for minus_zero in [
            "0100000000000000000000000000000000000000000000000000000000000080",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ] {
            let loaded = PublicKey::load(1, &unhex(minus_zero));
            assert_eq!(loaded, Err(KeyError::NonCanonical), "{minus_zero}");
            refused += 1;
        }
        assert!(refused > 20, "only {refused} encodings reached the check");
    }

    /// S + l instead of S is the same equation but other bytes.
    #[test]
    fn a_signature_has_one_form() {
        let signer = Signer::new(&Secret::from_seed(Zeroizing::new([9; 32])));
        let mut signature = signer.sign_bytes(b"message");
        assert_eq!(signer.public().verify(b"message", &signature), Ok(()));
        let order: [u8; 32] =
            unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0;
        for (s, l) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*s) + u16::from(l) + carry;
            *s = sum as u8;
            carry = sum >> 8;
        }
        assert_eq!(
            signer.public().verify(b"message", &signature),
            Err(KeyError::Signature)
        );
    }

    #[test]
    fn generation_reports_a_source_that_fails() {
        let mut broken = |_: &mut [u8]| Err(std::io::Error::from_raw_os_error(38));
        assert!(Signer::generate(&mut broken).is_err());
        let mut counted = |bytes: &mut [u8]| {
            bytes.fill(3);
            Ok(())
        };
        assert_eq!(
            Signer::generate(&mut counted).unwrap().secret().seed(),
            &[3; 32]
        );
    }
}
