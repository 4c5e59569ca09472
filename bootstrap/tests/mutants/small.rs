//! Policies, receipts, signatures.

use asl_bootstrap::codec::CodecError;
use asl_bootstrap::key::KeyError;
use asl_bootstrap::policy::{Policy, PolicyError};
use asl_bootstrap::receipt::{Receipt, ReceiptKind};
use asl_bootstrap::sign::{Context, SignError, Signature};
use asl_bootstrap::{DomainId, PublicKey};
use asl_store::id::Digest;
use asl_store::{Key, LogPosition, SessionId, StoreId};

use crate::mutate::{Rng, mutate};
use crate::support::{Pair, RECEIPT, artifact, blake3, pair};
use crate::{Tally, budget, variants};

variants!(
    CODEC,
    codec,
    CodecError {
        TooLong,
        Tag,
        Malformed,
        Trailing,
        NotCanonical,
    }
);
variants!(
    POLICY,
    policy,
    PolicyError {
        Magic,
        Length,
        Value
    }
);
variants!(
    SIGN,
    sign,
    SignError {
        Codec,
        UnknownContext,
        Context,
        Body,
        Signer,
        Key
    }
);
variants!(
    KEY,
    key,
    KeyError {
        Algorithm,
        NotAPoint,
        NonCanonical,
        Weak,
        Signature
    }
);

fn public(pair: &Pair) -> PublicKey {
    PublicKey::load(1, &pair.key().1).unwrap()
}

fn receipt(rng: &mut Rng) -> Receipt {
    Receipt {
        kind: *rng.pick(&[
            ReceiptKind::Capture,
            ReceiptKind::Sync,
            ReceiptKind::Promotion,
        ]),
        store: StoreId(rng.bytes()),
        subject: Key(rng.bytes()),
        session: SessionId(rng.bytes()),
        position: LogPosition(crate::mutate::interesting(rng)),
        chain: Digest(rng.bytes()),
    }
}

#[test]
fn policies() {
    let mut rng = Rng::new(1);
    let mut tally = Tally::new("policy");
    for _ in 0..budget(10_000) {
        let rules: [u8; 6] = std::array::from_fn(|_| rng.below(2) as u8);
        let seed = crate::support::policy(rules);
        let bytes = mutate(&mut rng, &seed, b"ASLPOL1\n\0\x01\x02\x03");
        match Policy::decode(&bytes) {
            Ok(found) => {
                assert_eq!(found.encode(), bytes);
                assert_eq!(found.key().0, blake3(&bytes));
                tally.accepted();
            }
            Err(error) => tally.refused(&[policy(&error)]),
        }
    }
    tally.finish(POLICY, &[]);
}

#[test]
fn receipts() {
    let mut rng = Rng::new(2);
    let mut tally = Tally::new("receipt");
    let domain = DomainId([7; 32]);
    let host = pair("host");
    let mut other = receipt(&mut rng).encode();
    for _ in 0..budget(3_000) {
        let seed = receipt(&mut rng).encode();
        let signed = Signature::decode(&host.sign(RECEIPT, domain.0, &seed)).unwrap();
        assert_eq!(
            signed.verify(Context::Receipt, &domain, &seed, &public(&host)),
            Ok(())
        );
        let bytes = mutate(&mut rng, &seed, &other);
        match Receipt::decode(&bytes) {
            Ok(receipt) => {
                assert_eq!(receipt.encode(), bytes);
                tally.accepted();
            }
            Err(error) => tally.refused(&[codec(&error)]),
        }
        let counts = signed.verify(Context::Receipt, &domain, &bytes, &public(&host));
        assert_eq!(counts.is_ok(), bytes == seed);
        other = seed;
    }
    tally.finish(CODEC, &[]);
}

#[test]
fn signatures() {
    let mut rng = Rng::new(3);
    let mut tally = Tally::new("signature");
    let domain = DomainId([7; 32]);
    let (host, stranger) = (pair("host"), pair("mallory"));
    let mut other = host.sign(RECEIPT, [8; 32], b"other");
    for _ in 0..budget(3_000) {
        let body = receipt(&mut rng).encode();
        let seed = host.sign(RECEIPT, domain.0, &body);
        let bytes = match rng.below(3) {
            0 => mutate(&mut rng, &seed, &other),
            _ => edited(&mut rng, &seed, &body, domain, &host, &stranger),
        };
        let judged = Signature::decode(&bytes).and_then(|signature| {
            assert_eq!(signature.encode(), bytes);
            signature.verify(Context::Receipt, &domain, &body, &public(&host))
        });
        match judged {
            // ed25519 as it is verified here has one signature for a key and a message.
            Ok(()) => {
                assert_eq!(bytes, seed);
                tally.accepted();
            }
            Err(error) => match &error {
                SignError::Codec(inner) => tally.refused(&[sign(&error), codec(inner)]),
                SignError::Key(inner) => tally.refused(&[sign(&error), key(inner)]),
                _ => tally.refused(&[sign(&error)]),
            },
        }
        other = seed;
    }
    let all: Vec<&'static str> = [SIGN, CODEC, KEY].concat();
    tally.finish(
        &all,
        &[
            // All fields have a fixed length, so nothing is left over below the ceiling and nothing is overlong.
            "CodecError::Trailing",
            "CodecError::NotCanonical",
            // Keys come from a manifest, not from a signature.
            "KeyError::NotAPoint",
            "KeyError::NonCanonical",
            "KeyError::Weak",
        ],
    );
}

/// A signature artifact with one field that is another, most of them signed for what they say.
fn edited(
    rng: &mut Rng,
    seed: &[u8],
    body: &[u8],
    domain: DomainId,
    host: &Pair,
    stranger: &Pair,
) -> Vec<u8> {
    let signature = host.signature("receipt", domain.0, body);
    match rng.below(9) {
        0 => host.sign(1 + rng.below(4) as u8, domain.0, body),
        1 => artifact(rng.next() as u8, blake3(body), host.id(), 1, &signature),
        2 => host.sign(RECEIPT, domain.0, &body[..rng.below(body.len())]),
        3 => host.sign(RECEIPT, rng.bytes(), body),
        4 => stranger.sign(RECEIPT, domain.0, body),
        // The stranger's signature under the host's name, and the other way round.
        5 => {
            let forged = stranger.signature("receipt", domain.0, body);
            artifact(RECEIPT, blake3(body), host.id(), 1, &forged)
        }
        6 => artifact(RECEIPT, blake3(body), stranger.id(), 1, &signature),
        7 => artifact(
            RECEIPT,
            blake3(body),
            host.id(),
            rng.next() as u8,
            &signature,
        ),
        _ => {
            // The scalar plus the group order, or a sign bit: signatures that lax verifiers take.
            let mut bytes = seed.to_vec();
            let at = bytes.len() - 1 - rng.below(64);
            bytes[at] = bytes[at].wrapping_add(1 << rng.below(8));
            bytes
        }
    }
}
