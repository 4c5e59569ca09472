//! Requests: how another host of a domain gets keys of its own, without any private key leaving the machine that drew it.
//!
//! ```text
//! asl host request 1
//! domain <domain id>
//! manifest <version> <artifact key of the manifest in force, 64 hexadecimal digits>
//! host <what people call the host>
//! key <role> ed25519 <64 hexadecimal digits: public key>        once for each key, in the order of key ids
//! signed <128 hexadecimal digits>                               once for each key, in the same order
//! ```
//!
//! Every principal signs the manifest that first lists it. So a request is a draft, without what both sides have: the manifest is
//! the one in force, followed by one that lists these keys as well, and everything in it comes from the request and from the
//! manifest that it answers to ([`Request::draft`]). The signatures are over that manifest, which the two machines
//! make independently of each other, and become its signatures in the log.
//!
//! Invariants
//! - A request has one form; what is read is written again and compared.
//! - Every byte counts: the manifest's nonce is the name of the request's artifact ([`Request::core`]: the lines before the
//!   signatures), so whoever changes a name or a role changes what was signed.
//! - A request asks for what a host needs, to sign receipts and checkpoints, and for nothing else ([`HostError::Roles`]).
//! - It is good for one manifest: if the domain has moved on, it is made again, with the same keys.
//! - Nothing in it is secret.
//!
//! Nothing here is written; a crash leaves nothing.

mod listed;

use std::fmt;
use std::str::FromStr;

use asl_store::Key;
use asl_store::id::{hex, unhex};

use crate::author::Draft;
use crate::chain::{Chain, Standing};
use crate::dam::{LABEL_MAX, Principal, Roles, is_plain};
use crate::error::Result;
use crate::id::{DomainId, KeyId, sha256};
use crate::key::{ALG_ED25519, KeyError, PublicKey, Signer};
use crate::sign::{Context, Signature, signing_input};

pub use listed::{Listed, listed, this_host};

/// Longest request, in bytes.
pub const REQUEST_LEN_MAX: usize = 4096;
/// Most keys that a request may name. A host needs two.
pub const REQUEST_KEYS_MAX: usize = 8;
/// What a host may be given, each with a key of its own.
pub const ROLES_OF_A_HOST: [Roles; 2] = [Roles::PRODUCE, Roles::CHECKPOINT];

const FIRST_LINE: &str = "asl host request 1";
const FINGERPRINT_LEN: usize = 10;
/// The alphabet of bech32 (BIP 173): no two of its characters are easily taken for each other.
const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// A request that is refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Longer than any request.
    #[error("{len} bytes are too many for a request: at most {REQUEST_LEN_MAX}")]
    TooLong {
        /// Length in bytes.
        len: u64,
    },
    /// Not a request, or not in its one form.
    #[error("this is no request of a host: line {line} is not as it should be")]
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// A key that is refused.
    #[error("a key of the request is refused")]
    Key(#[from] KeyError),
    /// A name that cannot be shown.
    #[error(
        "the name of a host has 1 to {LABEL_MAX} bytes, no control characters and no blanks at its ends"
    )]
    Name,
    /// For another domain.
    #[error("the request is for domain {found}, this is {expected}")]
    OtherDomain {
        /// This one.
        expected: DomainId,
        /// The request's.
        found: DomainId,
    },
    /// It answers to a manifest that is not known here.
    #[error("the request answers to manifest {version} ({manifest:.16}), which is not known here", manifest = manifest.to_string())]
    UnknownManifest {
        /// The version that it states.
        version: u64,
        /// The manifest.
        manifest: Key,
    },
    /// It answers to a manifest after which another one was signed.
    #[error("the request answers to manifest {version}, and manifest {head} is in force by now")]
    Overtaken {
        /// What it answers to.
        version: u64,
        /// The one in force.
        head: u64,
    },
    /// It answers to a manifest that lost: a second update, or one that a rotation voided.
    #[error("the request answers to a manifest {version} that is not the one in force here")]
    NotOnPath {
        /// Its version.
        version: u64,
    },
    /// A key that the manifest in force lists.
    #[error("the domain lists key {key} already")]
    Listed {
        /// The key.
        key: KeyId,
    },
    /// A revoked key.
    #[error("key {key} was revoked, and is never listed again")]
    Revoked {
        /// The key.
        key: KeyId,
    },
    /// More than a host gets.
    #[error(
        "the request asks for {roles} with key {key}; a host gets one key for produce and one for checkpoint"
    )]
    Roles {
        /// The key.
        key: KeyId,
        /// What it is to be for.
        roles: Roles,
    },
    /// Not signed by the key, or changed after it was.
    #[error("the request was changed, or whoever made it has not key {key}")]
    Possession {
        /// The key.
        key: KeyId,
    },
    /// Another request than the one that was looked at.
    #[error("the request has the fingerprint {found}, not {expected}")]
    Fingerprint {
        /// What the other screen shows.
        expected: Fingerprint,
        /// What this one has.
        found: Fingerprint,
    },
    /// The keys of this host are listed.
    #[error("the domain lists the keys of this host already")]
    Nothing,
}

/// What two people read to each other: 80 bits of SHA-256 over `"asl.host.v1\0"` and the request without its signatures, as 16 letters and
/// digits. To find another request with the same fingerprint takes 2^80 tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; FINGERPRINT_LEN]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self
            .0
            .iter()
            .fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
        for n in 0..16 {
            if n > 0 && n % 4 == 0 {
                f.write_str("-")?;
            }
            let digit = (bits >> (75 - 5 * n)) as usize & 31;
            write!(f, "{}", char::from(ALPHABET[digit]))?;
        }
        Ok(())
    }
}

/// Text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 16 letters and digits, such as qpzr-y9x8-gf2t-vdw0")]
pub struct NotFingerprint;

impl FromStr for Fingerprint {
    type Err = NotFingerprint;

    /// Reads a fingerprint as people write it: blanks, hyphens and capitals do not matter.
    fn from_str(text: &str) -> Result<Self, NotFingerprint> {
        let (mut bits, mut count) = (0u128, 0);
        for c in text
            .bytes()
            .filter(|c| !c.is_ascii_whitespace() && *c != b'-')
        {
            let c = c.to_ascii_lowercase();
            let digit = ALPHABET.iter().position(|known| *known == c);
            bits = bits << 5 | digit.ok_or(NotFingerprint)? as u128;
            count += 1;
            if count > 16 {
                return Err(NotFingerprint);
            }
        }
        if count != 16 {
            return Err(NotFingerprint);
        }
        let mut bytes = [0; FINGERPRINT_LEN];
        bytes.copy_from_slice(&bits.to_be_bytes()[16 - FINGERPRINT_LEN..]);
        Ok(Self(bytes))
    }
}

/// The lines of a request before its signatures: what is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The domain.
    pub domain: DomainId,
    /// Version of the manifest that it answers to.
    pub version: u64,
    /// That manifest.
    pub manifest: Key,
    /// What people call the host.
    pub name: String,
    /// The keys, in the order of their ids.
    pub keys: Vec<Principal>,
}

/// Whether a host may be called so: 1 to [`LABEL_MAX`] bytes, nothing that a terminal obeys, no blanks at the ends.
pub fn is_name(name: &str) -> bool {
    (1..=LABEL_MAX).contains(&name.len()) && name.chars().all(is_plain) && name.trim() == name
}

impl Asked {
    /// The lines, each with its end: the artifact by whose name the manifest's nonce goes.
    pub fn text(&self) -> String {
        let Self {
            domain,
            version,
            manifest,
            name,
            keys,
        } = self;
        let mut text =
            format!("{FIRST_LINE}\ndomain {domain}\nmanifest {version} {manifest}\nhost {name}\n");
        for Principal { key, roles } in keys {
            text.push_str(&format!("key {roles} ed25519 {}\n", hex(key.bytes())));
        }
        text
    }

    /// Name of the artifact, which is the nonce of the manifest that grants what is asked for.
    pub fn artifact(&self) -> Key {
        Key::of(self.text().as_bytes())
    }

    /// What the screens of both machines show.
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = sha256(&[b"asl.host.v1\0", self.text().as_bytes()]);
        let mut bytes = [0; FINGERPRINT_LEN];
        bytes.copy_from_slice(&digest[..FINGERPRINT_LEN]);
        Fingerprint(bytes)
    }

    /// The manifest that grants what is asked for, unsigned. The same on every machine.
    ///
    /// # Errors
    /// [`HostError`] if the chain's head is another manifest than the one that this answers to;
    /// [`AuthorError`](crate::AuthorError) for what no manifest can say, such as too many principals.
    pub fn draft(&self, chain: &Chain) -> Result<Draft> {
        self.fits(chain)?;
        let head = &chain.head().dam;
        let draft = Draft::update(chain, self.artifact().0, head.created_hint, |dam, _| {
            dam.principals.extend(self.keys.iter().cloned());
        })?;
        Ok(draft)
    }

    /// The manifest that granted this, if it is one of those that lead to the head.
    pub fn granted(&self, chain: &Chain) -> Option<Key> {
        let (nonce, prev) = (self.artifact().0, Some(self.manifest));
        let mut path = chain.path();
        let granted = path.find(|node| node.dam.prev == prev && node.dam.nonce == nonce);
        granted.map(|node| node.key)
    }

    /// Everything that can be told without the signatures, what says most first.
    fn fits(&self, chain: &Chain) -> Result<(), HostError> {
        let (expected, found) = (chain.domain(), self.domain);
        if expected != found {
            return Err(HostError::OtherDomain { expected, found });
        }
        let (version, manifest) = (self.version, self.manifest);
        let node = chain.node(&manifest);
        let node = node.filter(|node| node.dam.version == version);
        let node = node.ok_or(HostError::UnknownManifest { version, manifest })?;
        let head = &chain.head().dam;
        for Principal { key, .. } in &self.keys {
            let key = key.id();
            let mut witnesses = head.witness.members.iter();
            if head.is_root(&key)
                || head.principal(&key).is_some()
                || witnesses.any(|member| member.key.id() == key)
            {
                return Err(HostError::Listed { key });
            }
            if head.revokes(&key) {
                return Err(HostError::Revoked { key });
            }
        }
        let mut given = Vec::new();
        for Principal { key, roles } in &self.keys {
            if !ROLES_OF_A_HOST.contains(roles) || given.contains(roles) {
                let (key, roles) = (key.id(), *roles);
                return Err(HostError::Roles { key, roles });
            }
            given.push(*roles);
        }
        match chain.standing(&node.key) {
            Some(Standing::OnPath) if node.key == chain.head_key() => Ok(()),
            Some(Standing::OnPath) => Err(HostError::Overtaken {
                version,
                head: head.version,
            }),
            _ => Err(HostError::NotOnPath { version }),
        }
    }

    /// Signs with the keys that are asked for.
    ///
    /// # Errors
    /// As [`Asked::draft`]; [`HostError::Possession`] where `signer` has not all of the keys.
    pub fn signed<'k>(
        self,
        chain: &Chain,
        signer: impl Fn(&KeyId) -> Option<&'k Signer>,
    ) -> Result<Request> {
        let draft = self.draft(chain)?;
        let mut signatures = Vec::new();
        for Principal { key, .. } in &self.keys {
            let key = key.id();
            let signer = signer(&key).ok_or(HostError::Possession { key })?;
            let signature = Signature::new(signer, Context::Dam, &self.domain, &draft.dam);
            signatures.push(signature.bytes);
        }
        Ok(Request {
            asked: self,
            signatures,
        })
    }

    /// Reads the lines; `rest` of the text is not theirs.
    fn parse<'t>(lines: &mut Lines<'t>) -> Result<Self, HostError> {
        if lines.next() != Some(FIRST_LINE) {
            return Err(lines.wrong());
        }
        let domain = lines.after("domain ").and_then(|id| id.parse().ok());
        let domain = domain.ok_or(lines.wrong())?;
        let manifest = lines.after("manifest ").and_then(|rest| {
            let (version, manifest) = rest.split_once(' ')?;
            Some((version.parse().ok()?, Key(unhex(manifest)?)))
        });
        let (version, manifest) = manifest.ok_or(lines.wrong())?;
        let name = lines.after("host ").ok_or(lines.wrong())?.to_owned();
        if !is_name(&name) {
            return Err(HostError::Name);
        }
        let mut keys: Vec<Principal> = Vec::new();
        while keys.is_empty() || lines.goes_on("key ") {
            let key = lines.after("key ").and_then(|rest| {
                let (roles, key) = rest.split_once(" ed25519 ")?;
                Some((roles_of(roles)?, unhex(key)?))
            });
            let (roles, key) = key.ok_or(lines.wrong())?;
            let key = PublicKey::load(ALG_ED25519, &key)?;
            let follows = |last: &Principal| last.key.id() < key.id();
            if keys.len() == REQUEST_KEYS_MAX || !keys.last().is_none_or(follows) {
                return Err(lines.wrong());
            }
            keys.push(Principal { key, roles });
        }
        Ok(Self {
            domain,
            version,
            manifest,
            name,
            keys,
        })
    }

    /// Reads an artifact of this form, and nothing else.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn open(bytes: &[u8]) -> Result<Self, HostError> {
        let text = text_of(bytes)?;
        let asked = Self::parse(&mut Lines::new(text))?;
        match asked.text() == text {
            true => Ok(asked),
            false => Err(differs(&asked.text(), text)),
        }
    }
}

/// A request: what is asked for, and a signature by each key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub asked: Asked,
    /// Signatures over the manifest that grants it, in the order of the keys.
    signatures: Vec<[u8; 64]>,
}

impl Request {
    /// The file.
    pub fn text(&self) -> String {
        let mut text = self.asked.text();
        for signature in &self.signatures {
            text.push_str(&format!("signed {}\n", hex(signature)));
        }
        text
    }

    /// Reads a file. Whether what it asks for can be granted is [`draft`](Self::draft)'s to say.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn open(bytes: &[u8]) -> Result<Self, HostError> {
        let text = text_of(bytes)?;
        let mut lines = Lines::new(text);
        let asked = Asked::parse(&mut lines)?;
        let mut signatures = Vec::new();
        for _ in &asked.keys {
            let signature = lines.after("signed ").and_then(unhex::<64>);
            signatures.push(signature.ok_or(lines.wrong())?);
        }
        let request = Self { asked, signatures };
        match request.text() == text {
            true => Ok(request),
            false => Err(differs(&request.text(), text)),
        }
    }

    /// The manifest that grants what is asked for, signed by the new keys; a root's signature is what it lacks.
    ///
    /// # Errors
    /// As [`Asked::draft`]; [`HostError::Possession`].
    pub fn draft(&self, chain: &Chain) -> Result<Draft> {
        let mut draft = self.asked.draft(chain)?;
        let domain = &self.asked.domain;
        let input = signing_input(Context::Dam, domain, &draft.dam);
        for (Principal { key, .. }, bytes) in self.asked.keys.iter().zip(&self.signatures) {
            let proven = key.verify(&input, bytes);
            proven.map_err(|_| HostError::Possession { key: key.id() })?;
            let signature = Signature {
                context: Context::Dam,
                body: Key::of(&draft.dam),
                signer: key.id(),
                alg: key.alg(),
                bytes: *bytes,
            };
            draft.signatures.push(signature.encode());
        }
        Ok(draft)
    }

    /// Makes sure that this is the request that somebody looked at.
    ///
    /// # Errors
    /// [`HostError::Fingerprint`].
    pub fn require(&self, expected: &Fingerprint) -> Result<(), HostError> {
        let found = self.asked.fingerprint();
        match found == *expected {
            true => Ok(()),
            false => Err(HostError::Fingerprint {
                expected: *expected,
                found,
            }),
        }
    }
}

/// Lines that are numbered and taken one after the other.
struct Lines<'t> {
    left: std::str::Lines<'t>,
    taken: usize,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            left: text.lines(),
            taken: 0,
        }
    }

    fn next(&mut self) -> Option<&'t str> {
        self.taken += 1;
        self.left.next()
    }

    /// Takes a line; what follows `prefix` in it.
    fn after(&mut self, prefix: &str) -> Option<&'t str> {
        self.next()?.strip_prefix(prefix)
    }

    /// Whether the next line begins so.
    fn goes_on(&self, prefix: &str) -> bool {
        let next = self.left.clone().next();
        next.is_some_and(|line| line.starts_with(prefix))
    }

    /// The line that was taken last.
    fn wrong(&self) -> HostError {
        HostError::Line { line: self.taken }
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, HostError> {
    if bytes.len() > REQUEST_LEN_MAX {
        let len = bytes.len() as u64;
        return Err(HostError::TooLong { len });
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        HostError::Line { line }
    })
}

/// The first line in which what was read is not what would be written.
fn differs(written: &str, text: &str) -> HostError {
    let pairs = written.split('\n').zip(text.split('\n')).zip(1..);
    let mut differ = pairs.filter(|((ours, theirs), _)| ours != theirs);
    let after = written.split('\n').count().min(text.split('\n').count());
    let line = differ.next().map_or(after, |(_, line)| line);
    HostError::Line { line }
}

/// Roles as [`Roles`] are shown.
fn roles_of(text: &str) -> Option<Roles> {
    let all = [
        Roles::PRODUCE,
        Roles::CHECKPOINT,
        Roles::PUBLISH,
        Roles::FEDERATE,
        Roles::AUDIT,
    ];
    let mut roles = Roles(0);
    for word in text.split('+') {
        roles = roles | *all.iter().find(|role| role.to_string() == word)?;
    }
    (roles.to_string() == text).then_some(roles)
}

#[cfg(test)]
mod tests;
