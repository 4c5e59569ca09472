//! The cases: valid manifests, each following another valid one, and beside them one manifest for each rule that breaks this
//! rule and no other, properly signed wherever the rule is not about signatures.

mod alone;
mod rotations;
mod signatures;
mod steps;
mod valid;

use crate::support::{
    self, COSIGN_POLICY, DAM, Pair, RECEIPT, Raw, artifact, blake3, domain_of, pair,
};

const PRODUCE: u16 = 1;
const CHECKPOINT: u16 = 2;
const PUBLISH: u16 = 4;
/// The policy of the personal domain.
const PLAIN: [u8; 6] = [0, 1, 0, 0, 0, 0];
/// Of the group: rotations need the roots.
const GUARDED: [u8; 6] = [1, 1, 1, 0, 1, 0];
/// Of the group, later: they do not.
const LENIENT: [u8; 6] = [1, 1, 1, 0, 0, 0];
/// Of the common domain: checkpoints need witnesses.
const WATCHED: [u8; 6] = [0, 2, 2, 1, 1, 1];
const STORE: [u8; 16] = [0x5a; 16];

/// One manifest and what must come of it.
pub struct Case {
    pub name: String,
    /// The valid case that it is offered after.
    pub after: Option<&'static str>,
    /// `ok`, or the path of the error's variants.
    pub expect: &'static str,
    pub what: &'static str,
    pub dam: Vec<u8>,
    pub policy: Vec<u8>,
    pub signatures: Vec<Vec<u8>>,
}

/// A manifest under construction.
#[derive(Clone)]
struct Made {
    raw: Raw,
    rules: [u8; 6],
    domain: [u8; 32],
    signers: Vec<Pair>,
    witnesses: Vec<Pair>,
}

impl Made {
    fn genesis(raw: Raw, rules: [u8; 6], signers: &[&str]) -> Self {
        let raw = Raw {
            policy: blake3(&support::policy(rules)),
            ..raw
        }
        .sorted();
        Self {
            domain: domain_of(&raw.encode()),
            raw,
            rules,
            signers: signers.iter().map(|name| pair(name)).collect(),
            witnesses: Vec::new(),
        }
    }

    fn follow(&self, signers: &[&str], edit: impl FnOnce(&mut Raw)) -> Self {
        let mut raw = self.raw.follow(self.domain);
        edit(&mut raw);
        Self {
            raw: raw.sorted(),
            signers: signers.iter().map(|name| pair(name)).collect(),
            witnesses: Vec::new(),
            ..self.clone()
        }
    }

    fn ruled(mut self, rules: [u8; 6]) -> Self {
        self.rules = rules;
        self.raw.policy = blake3(&support::policy(rules));
        self
    }

    fn watched(mut self, witnesses: &[&str]) -> Self {
        self.witnesses = witnesses.iter().map(|name| pair(name)).collect();
        self
    }

    fn signers(mut self, signers: &[&str]) -> Self {
        self.signers = signers.iter().map(|name| pair(name)).collect();
        self
    }

    /// With one thing changed, lists left as they are then, signed again by the same. A changed genesis founds another domain.
    fn but(&self, edit: impl FnOnce(&mut Raw)) -> Self {
        let mut made = self.clone();
        edit(&mut made.raw);
        if made.raw.version == 0 {
            made.domain = domain_of(&made.raw.encode());
        }
        made
    }

    fn signatures(&self, dam: &[u8]) -> Vec<Vec<u8>> {
        let by = |context: u8, pairs: &[Pair]| -> Vec<Vec<u8>> {
            (pairs.iter())
                .map(|pair| pair.sign(context, self.domain, dam))
                .collect()
        };
        [by(DAM, &self.signers), by(COSIGN_POLICY, &self.witnesses)].concat()
    }
}

pub struct Cases(pub Vec<Case>);

impl Cases {
    fn push(
        &mut self,
        name: &str,
        after: Option<&'static str>,
        expect: &'static str,
        what: &'static str,
        made: &Made,
    ) {
        let dam = made.raw.encode();
        let signatures = made.signatures(&dam);
        self.bytes(name, after, expect, what, made, dam, signatures);
    }

    #[expect(clippy::too_many_arguments, reason = "a row of a table")]
    fn bytes(
        &mut self,
        name: &str,
        after: Option<&'static str>,
        expect: &'static str,
        what: &'static str,
        made: &Made,
        dam: Vec<u8>,
        signatures: Vec<Vec<u8>>,
    ) {
        self.0.push(Case {
            name: name.to_owned(),
            after,
            expect,
            what,
            dam,
            policy: support::policy(made.rules),
            signatures,
        });
    }
}

fn keys(names: &[&str]) -> Vec<support::RawKey> {
    names.iter().map(|name| pair(name).key()).collect()
}

fn commit(names: &[&str]) -> Vec<[u8; 32]> {
    names.iter().map(|name| pair(name).next()).collect()
}

/// A revocation from record 40 on, for being compromised.
fn revoke(name: &str) -> support::Revoked {
    (pair(name).id(), STORE, 40, 1)
}

fn members(names: &[&str]) -> Vec<(support::RawKey, String)> {
    (names.iter())
        .map(|name| (pair(name).key(), format!("{name}.example")))
        .collect()
}

fn personal() -> Made {
    let raw = Raw {
        critical: 0,
        kind: 0,
        version: 0,
        rotation: 0,
        prev: None,
        domain: None,
        nonce: [7; 32],
        roots: keys(&["root"]),
        root_threshold: 1,
        next: commit(&["phrase 1"]),
        next_threshold: 1,
        principals: vec![
            (pair("host").key(), PRODUCE),
            (pair("checkpoints").key(), CHECKPOINT),
        ],
        witness_mode: 0,
        members: vec![],
        witness_threshold: 0,
        policy: [0; 32],
        revoked: vec![],
        anchor: Some((STORE, 3, [0xc4; 32])),
        label: "Großmutters Rechner".as_bytes().to_vec(),
        created_hint: 1_763_000_000_000_000_000,
    };
    Made::genesis(raw, PLAIN, &["root", "host", "checkpoints"])
}

fn group() -> Made {
    let base = personal().raw;
    let raw = Raw {
        kind: 1,
        nonce: [8; 32],
        roots: keys(&["ada", "ben", "eve"]),
        root_threshold: 2,
        next: commit(&["ada 2", "ben 2", "eve 2"]),
        next_threshold: 2,
        principals: vec![(pair("host").key(), PRODUCE | PUBLISH)],
        witness_mode: 1,
        members: members(&["watch"]),
        witness_threshold: 1,
        anchor: None,
        label: vec![],
        created_hint: -1,
        ..base
    };
    Made::genesis(raw, GUARDED, &["ada", "ben", "eve", "host"])
}

fn common() -> Made {
    let base = group().raw;
    let raw = Raw {
        kind: 2,
        nonce: [9; 32],
        witness_mode: 2,
        members: members(&["watch", "guard", "clock"]),
        witness_threshold: 2,
        ..base
    };
    Made::genesis(raw, WATCHED, &["ada", "ben", "eve", "host"])
}

/// All cases; a case follows the one that it names as `after`.
pub fn all() -> Cases {
    let mut cases = Cases(Vec::new());
    let base = Base::new();
    valid::valid(&mut cases, &base);
    alone::encoding(&mut cases, &base);
    alone::alone(&mut cases, &base);
    steps::genesis(&mut cases, &base);
    steps::steps(&mut cases, &base);
    steps::frozen(&mut cases, &base);
    steps::revocations(&mut cases, &base);
    signatures::signatures(&mut cases, &base);
    rotations::rotations(&mut cases, &base);
    rotations::forks(&mut cases, &base);
    cases
}

/// The valid ones that others start from.
struct Base {
    personal: Made,
    update: Made,
    revoke: Made,
    freeze: Made,
    rotation: Made,
    group: Made,
    group_lenient: Made,
    group_rotation: Made,
    common: Made,
}

const G: Option<&str> = Some("personal-genesis");
const U: Option<&str> = Some("personal-update");

/// What a rotation to `phrase 1` changes.
fn recover(raw: &mut Raw) {
    raw.rotation += 1;
    raw.roots = keys(&["phrase 1"]);
    raw.next = commit(&["phrase 2"]);
}

fn group_recover(raw: &mut Raw) {
    raw.rotation += 1;
    raw.roots = keys(&["ada 2", "ben 2", "dan"]);
    raw.next = commit(&["ada 3", "ben 3", "dan 3"]);
}

impl Base {
    fn new() -> Self {
        let personal = personal();
        let update = personal.follow(&["root", "laptop"], |raw| {
            raw.label = b"attic".to_vec();
            raw.principals.push((pair("laptop").key(), PRODUCE));
        });
        let revoke = update.follow(&["root"], |raw| {
            raw.principals.retain(|(key, _)| *key != pair("host").key());
            raw.revoked.push(revoke("host"));
        });
        let freeze = personal.follow(&["root"], |raw| raw.revoked.push(self::revoke("root")));
        let rotation = update.follow(&["phrase 1"], recover);
        let group = group();
        let group_lenient = group.follow(&["ada", "eve"], |_| {}).ruled(LENIENT);
        let group_rotation = group.follow(&["ada 2", "ben 2", "ada", "ben"], group_recover);
        Self {
            personal,
            update,
            revoke,
            freeze,
            rotation,
            group,
            group_lenient,
            group_rotation,
            common: common(),
        }
    }
}
