//! Receipts: a statement that a session ended with this root at this place of a log.
//!
//! A capture runs for days and no key stays unlocked that long, so a receipt is an artifact of its own that anybody may
//! write; it says something only once a key with the role `produce` has signed it
//! ([`Context::Receipt`](crate::sign::Context::Receipt)).
//!
//! Invariants
//! - The same session, ended at the same record, has the same receipt: to make it again gives the same artifact, and
//!   signatures made at different times are of one body.
//! - `position` and `chain` name a record *and all that is before it*: a receipt is of no other log, even one that says the
//!   same of the session.
//!
//! Nothing here touches a file; a crash leaves nothing.

use std::fmt;

use asl_store::id::Digest;
use asl_store::{Key, LogPosition, SessionId, StoreId};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, Document};
use crate::id::DomainId;
use crate::key::Signer;
use crate::sign::{Context, Signature};

/// What sort of session it was. The order is that of the wire form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReceiptKind {
    /// A disk or a tree was read.
    Capture,
    /// Another instance's log was taken over.
    Sync,
    /// A rescue store was promoted.
    Promotion,
}

impl fmt::Display for ReceiptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Capture => "capture",
            Self::Sync => "sync",
            Self::Promotion => "promotion",
        })
    }
}

/// A receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// What was done.
    pub kind: ReceiptKind,
    /// The store instance whose log the record is in.
    pub store: StoreId,
    /// The artifact that everything of the session is reachable from.
    pub subject: Key,
    /// The session.
    pub session: SessionId,
    /// The record that ended the session.
    pub position: LogPosition,
    /// The log's chain value after that record.
    pub chain: Digest,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    kind: ReceiptKind,
    store: [u8; 16],
    subject: [u8; 32],
    session: [u8; 16],
    position: u64,
    chain: [u8; 32],
}

impl Document for Wire {
    const TAG: [u8; codec::TAG_LEN] = *b"ASLRCP1\n";
    const WHAT: &'static str = "a receipt";
    const LEN_MAX: usize = Receipt::LEN_MAX;
}

impl Receipt {
    /// First bytes of a receipt artifact.
    pub const TAG: [u8; codec::TAG_LEN] = Wire::TAG;
    /// The longest receipt artifact in bytes: ten for a position at its longest.
    pub const LEN_MAX: usize = codec::TAG_LEN + 1 + 16 + 32 + 16 + 10 + 32;

    /// The artifact.
    pub fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            kind: self.kind,
            store: self.store.0,
            subject: self.subject.0,
            session: self.session.0,
            position: self.position.0,
            chain: self.chain.0,
        };
        codec::encode(&wire).expect("no receipt is longer than the longest")
    }

    /// Reads an artifact.
    ///
    /// # Errors
    /// [`CodecError`]; a kind that this program does not know is [`CodecError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let wire: Wire = codec::decode(bytes)?;
        Ok(Self {
            kind: wire.kind,
            store: StoreId(wire.store),
            subject: Key(wire.subject),
            session: SessionId(wire.session),
            position: LogPosition(wire.position),
            chain: Digest(wire.chain),
        })
    }

    /// Name of the artifact.
    pub fn key(&self) -> Key {
        Key::of(&self.encode())
    }

    /// A signature of it for `domain`.
    pub fn sign(&self, signer: &Signer, domain: &DomainId) -> Signature {
        Signature::new(signer, Context::Receipt, domain, &self.encode())
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::key::Secret;
    use crate::sign::SignError;

    fn example() -> Receipt {
        Receipt {
            kind: ReceiptKind::Sync,
            store: StoreId([1; 16]),
            subject: Key([2; 32]),
            session: SessionId([3; 16]),
            position: LogPosition(300),
            chain: Digest([4; 32]),
        }
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        let expected = [
            b"ASLRCP1\n\x01".as_slice(),
            &[1; 16],
            &[2; 32],
            &[3; 16],
            &[0xac, 0x02],
            &[4; 32],
        ]
        .concat();
        assert_eq!(example().encode(), expected);
        assert_eq!(Receipt::decode(&expected), Ok(example()));
        let longest = Receipt {
            position: LogPosition(u64::MAX),
            ..example()
        };
        assert_eq!(longest.encode().len(), Receipt::LEN_MAX);
        assert_eq!(Receipt::decode(&longest.encode()), Ok(longest));
    }

    #[test]
    fn no_other_bytes_are_a_receipt() {
        let bytes = example().encode();
        for cut in 0..bytes.len() {
            assert!(Receipt::decode(&bytes[..cut]).is_err(), "cut to {cut}");
        }
        let mut more = bytes.clone();
        more.push(0);
        assert!(matches!(
            Receipt::decode(&more),
            Err(CodecError::Trailing { bytes: 1, .. })
        ));
        let mut kind = bytes.clone();
        kind[8] = 3;
        assert!(matches!(
            Receipt::decode(&kind),
            Err(CodecError::Malformed { .. })
        ));
        // 300 as three bytes of varint.
        let mut overlong = bytes[..73].to_vec();
        overlong.extend([0xac, 0x82, 0x00]);
        overlong.extend([4; 32]);
        assert!(matches!(
            Receipt::decode(&overlong),
            Err(CodecError::NotCanonical { .. })
        ));
    }

    #[test]
    fn a_signature_is_of_one_receipt_in_one_domain() {
        let signer = Signer::new(&Secret::from_seed(Zeroizing::new([7; 32])));
        let domain = DomainId([8; 32]);
        let signature = example().sign(&signer, &domain);
        let verify = |receipt: &Receipt, domain: &DomainId| {
            let key = signer.public();
            signature.verify(Context::Receipt, domain, &receipt.encode(), &key)
        };
        assert_eq!(verify(&example(), &domain), Ok(()));
        let moved = Receipt {
            position: LogPosition(301),
            ..example()
        };
        assert!(matches!(
            verify(&moved, &domain),
            Err(SignError::Body { .. })
        ));
        assert!(matches!(
            verify(&example(), &DomainId([9; 32])),
            Err(SignError::Key(_))
        ));
    }
}
