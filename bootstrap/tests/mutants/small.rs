//! Policies, receipts, signatures, links between domains.

use asl_bootstrap::codec::CodecError;
use asl_bootstrap::key::KeyError;
use asl_bootstrap::lineage::{Checks, Level, Lineage, LineageError, Op};
use asl_bootstrap::policy::{Policy, PolicyError};
use asl_bootstrap::receipt::{Receipt, ReceiptKind};
use asl_bootstrap::sign::{Context, SignError, Signature};
use asl_bootstrap::tlog::TreeHash;
use asl_bootstrap::{DomainId, PublicKey};
use asl_store::id::Digest;
use asl_store::{Key, LogPosition, SessionId, StoreId};

use crate::mutate::{Rng, mutate};
use crate::support::{LINEAGE as LINEAGE_CONTEXT, Pair, RECEIPT, artifact, blake3, pair};
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
variants!(
    LINEAGE,
    lineage_error,
    LineageError {
        Codec,
        Logs,
        Sessions,
        Order,
        SameDomain,
        Checks,
        Missing,
        Tool,
        NoSuccessor
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

fn lineage(rng: &mut Rng) -> Lineage {
    let op = *rng.pick(&[Op::Adopt, Op::Fork, Op::Retire]);
    let level = *rng.pick(&[Level::Bytes, Level::Semantics]);
    let none = op == Op::Retire;
    let logs = if none { 0 } else { 1 + rng.below(3) };
    let sessions = match level {
        Level::Semantics if !none => rng.below(4),
        _ => 0,
    };
    let mut sessions: Vec<SessionId> = (0..sessions).map(|_| SessionId(rng.bytes())).collect();
    sessions.sort_by_key(|session| session.0);
    let artifacts = crate::mutate::interesting(rng);
    Lineage {
        op,
        level,
        parent: DomainId(rng.bytes()),
        parent_head: Key(rng.bytes()),
        child: DomainId(rng.bytes()),
        child_genesis: Key(rng.bytes()),
        child_head: Key(rng.bytes()),
        store: StoreId(rng.bytes()),
        position: LogPosition(crate::mutate::interesting(rng)),
        chain: Digest(rng.bytes()),
        manifest_root: TreeHash(rng.bytes()),
        artifacts,
        bytes: crate::mutate::interesting(rng),
        missing: artifacts >> rng.below(64),
        checks: Checks(rng.below(64) as u32),
        log: (0..logs).map(|_| Key(rng.bytes())).collect(),
        sessions,
        prev: (none || rng.one_in(2)).then(|| Key(rng.bytes())),
        tool: (*rng.pick(&["", "asl 1", "a program with a long name"])).to_owned(),
    }
}

/// The wire form with its rules broken: what no encoder of ours writes. `bytes` are those of the link.
fn broken(rng: &mut Rng, bytes: &[u8], link: &Lineage) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let prev = bytes.len() - link.tool.len() - 1 - if link.prev.is_some() { 33 } else { 1 };
    match rng.below(5) {
        // The child is the parent.
        0 => bytes.copy_within(10..42, 74),
        // Without the lineage before.
        1 if link.prev.is_some() => {
            bytes.drain(prev + 1..prev + 33);
            bytes[prev] = 0;
        }
        // The last session twice.
        2 if link.sessions.len() > 1 => bytes.copy_within(prev - 16..prev, prev - 32),
        // Another operation or level, with everything else as it was.
        3 => bytes[8] = rng.below(4) as u8,
        _ => bytes[9] = rng.below(3) as u8,
    }
    bytes
}

#[test]
fn lineages() {
    let mut rng = Rng::new(4);
    let mut tally = Tally::new("lineage");
    let domain = DomainId([7; 32]);
    let root = pair("root");
    let mut other = lineage(&mut rng).encode().unwrap();
    let unreachable = &[];
    let all: Vec<&'static str> = [LINEAGE, CODEC].concat();
    let least = budget(5_000);
    while tally.goes_on(least, &all, unreachable) {
        let link = lineage(&mut rng);
        let seed = link.encode().unwrap();
        assert_eq!(Lineage::decode(&seed).as_ref(), Ok(&link));
        let signed = Signature::decode(&root.sign(LINEAGE_CONTEXT, domain.0, &seed)).unwrap();
        let mut bytes = match rng.below(3) {
            0 => broken(&mut rng, &seed, &link),
            _ => mutate(&mut rng, &seed, &other),
        };
        if rng.one_in(500) {
            bytes.resize(Lineage::LEN_MAX + 1, 0);
        }
        match Lineage::decode(&bytes) {
            Ok(found) => {
                assert_eq!(found.encode().as_deref(), Ok(&*bytes));
                tally.accepted();
            }
            Err(error) => match &error {
                LineageError::Codec(inner) => {
                    tally.refused(&[lineage_error(&error), codec(inner)]);
                }
                _ => tally.refused(&[lineage_error(&error)]),
            },
        }
        let key = public(&root);
        let counts = signed.verify(Context::Lineage, &domain, &bytes, &key);
        assert_eq!(counts.is_ok(), bytes == seed);
        other = seed;
    }
    tally.finish(&all, unreachable);
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
