//! Manifests and signatures written from docs/FORMAT.md a second time, by hand and without the crate's encoders, so that a test
//! can make what an author would refuse to make, and so that both have to agree.
#![allow(dead_code, reason = "each test uses its part")]

use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};

pub const DAM: u8 = 1;
pub const RECEIPT: u8 = 2;
pub const LINEAGE: u8 = 3;
pub const COSIGN_POLICY: u8 = 4;
/// The names of the contexts, in the order of their bytes in a signature artifact, from 1.
pub const CONTEXTS: [&str; 4] = ["dam", "receipt", "lineage", "cosign-policy"];

pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(parts.concat()).into()
}

pub fn blake3(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

pub fn domain_of(genesis: &[u8]) -> [u8; 32] {
    sha256(&[b"asl.domain.v1\0", genesis])
}

/// A key pair that is always the same for a name.
pub fn pair(name: &str) -> Pair {
    let seed = sha256(&[b"a key for tests only: ", name.as_bytes()]);
    Pair(SigningKey::from_bytes(&seed))
}

#[derive(Clone)]
pub struct Pair(pub SigningKey);

pub type RawKey = (u8, [u8; 32]);

impl Pair {
    pub fn key(&self) -> RawKey {
        (1, self.0.verifying_key().to_bytes())
    }
    pub fn id(&self) -> [u8; 32] {
        id(&self.key())
    }
    pub fn next(&self) -> [u8; 32] {
        next(&self.key())
    }
    pub fn sign(&self, context: u8, domain: [u8; 32], body: &[u8]) -> Vec<u8> {
        let signature = self.signature(CONTEXTS[usize::from(context) - 1], domain, body);
        artifact(context, blake3(body), self.id(), 1, &signature)
    }
    pub fn signature(&self, context: &str, domain: [u8; 32], body: &[u8]) -> [u8; 64] {
        let mut input = b"asl.sig.v1\0".to_vec();
        input.push(context.len() as u8);
        input.extend(context.as_bytes());
        input.extend(domain);
        input.extend((body.len() as u64).to_le_bytes());
        input.extend(body);
        self.0.sign(&input).to_bytes()
    }
}

pub fn id(key: &RawKey) -> [u8; 32] {
    sha256(&[b"asl.key.v1\0", &[key.0], &key.1])
}

pub fn next(key: &RawKey) -> [u8; 32] {
    sha256(&[b"asl.next.v1\0", &[key.0], &key.1])
}

pub fn artifact(
    context: u8,
    body: [u8; 32],
    signer: [u8; 32],
    alg: u8,
    signature: &[u8],
) -> Vec<u8> {
    let mut bytes = b"ASLSIG1\n".to_vec();
    bytes.push(context);
    bytes.extend(body);
    bytes.extend(signer);
    bytes.push(alg);
    bytes.extend(signature);
    bytes
}

/// A policy artifact of these six bytes.
pub fn policy(rules: [u8; 6]) -> Vec<u8> {
    [b"ASLPOL1\n".as_slice(), &rules].concat()
}

/// A manifest in which everything can be wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    pub critical: u32,
    pub kind: u8,
    pub version: u64,
    pub rotation: u64,
    pub prev: Option<[u8; 32]>,
    pub domain: Option<[u8; 32]>,
    pub nonce: [u8; 32],
    pub roots: Vec<RawKey>,
    pub root_threshold: u8,
    pub next: Vec<[u8; 32]>,
    pub next_threshold: u8,
    pub principals: Vec<(RawKey, u16)>,
    pub witness_mode: u8,
    pub members: Vec<(RawKey, String)>,
    pub witness_threshold: u8,
    pub policy: [u8; 32],
    pub revoked: Vec<Revoked>,
    pub anchor: Option<([u8; 16], u64, [u8; 32])>,
    pub label: Vec<u8>,
    pub created_hint: i64,
}

/// Key, store, position, reason.
pub type Revoked = ([u8; 32], [u8; 16], u64, u8);

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn optional(out: &mut Vec<u8>, value: &Option<[u8; 32]>) {
    out.push(u8::from(value.is_some()));
    out.extend(value.iter().flatten());
}

impl Raw {
    pub fn encode(&self) -> Vec<u8> {
        self.parts().concat()
    }

    /// The encoding field by field: the magic, then each in order.
    pub fn parts(&self) -> Vec<Vec<u8>> {
        let mut parts = vec![b"ASLDAM1\n".to_vec()];
        let mut field = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut part = Vec::new();
            write(&mut part);
            parts.push(part);
        };
        field(&|p| varint(p, self.critical.into()));
        field(&|p| p.push(self.kind));
        field(&|p| varint(p, self.version));
        field(&|p| varint(p, self.rotation));
        field(&|p| optional(p, &self.prev));
        field(&|p| optional(p, &self.domain));
        field(&|p| p.extend(self.nonce));
        field(&|p| {
            varint(p, self.roots.len() as u64);
            for (alg, pk) in &self.roots {
                p.push(*alg);
                p.extend(pk);
            }
        });
        field(&|p| p.push(self.root_threshold));
        field(&|p| {
            varint(p, self.next.len() as u64);
            p.extend(self.next.iter().flatten());
        });
        field(&|p| p.push(self.next_threshold));
        field(&|p| {
            varint(p, self.principals.len() as u64);
            for ((alg, pk), roles) in &self.principals {
                p.push(*alg);
                p.extend(pk);
                varint(p, (*roles).into());
            }
        });
        field(&|p| p.push(self.witness_mode));
        field(&|p| {
            varint(p, self.members.len() as u64);
            for ((alg, pk), name) in &self.members {
                p.push(*alg);
                p.extend(pk);
                varint(p, name.len() as u64);
                p.extend(name.as_bytes());
            }
        });
        field(&|p| p.push(self.witness_threshold));
        field(&|p| p.extend(self.policy));
        field(&|p| {
            varint(p, self.revoked.len() as u64);
            for (key, store, position, reason) in &self.revoked {
                p.extend(key);
                p.extend(store);
                varint(p, *position);
                p.push(*reason);
            }
        });
        field(&|p| {
            p.push(u8::from(self.anchor.is_some()));
            if let Some((store, position, chain)) = &self.anchor {
                p.extend(store);
                varint(p, *position);
                p.extend(chain);
            }
        });
        field(&|p| {
            varint(p, self.label.len() as u64);
            p.extend(&self.label);
        });
        field(&|p| {
            let zigzag = (self.created_hint << 1) ^ (self.created_hint >> 63);
            varint(p, zigzag as u64);
        });
        parts
    }

    /// Puts the lists into their order.
    pub fn sorted(mut self) -> Self {
        self.roots.sort_by_key(id);
        self.next.sort();
        self.principals.sort_by_key(|(key, _)| id(key));
        self.members.sort_by_key(|(key, _)| id(key));
        self.revoked.sort();
        self
    }

    /// What a manifest after this one begins as.
    pub fn follow(&self, domain: [u8; 32]) -> Self {
        Self {
            version: self.version + 1,
            prev: Some(blake3(&self.encode())),
            domain: Some(domain),
            nonce: sha256(&[b"nonce after", &self.encode()]),
            ..self.clone()
        }
    }
}
