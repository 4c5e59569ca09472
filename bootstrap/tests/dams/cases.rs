//! The cases: valid manifests, each following another valid one, and beside them one manifest for each rule that breaks this
//! rule and no other, properly signed wherever the rule is not about signatures.

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
    valid(&mut cases, &base);
    encoding(&mut cases, &base);
    alone(&mut cases, &base);
    genesis(&mut cases, &base);
    steps(&mut cases, &base);
    frozen(&mut cases, &base);
    revocations(&mut cases, &base);
    signatures(&mut cases, &base);
    rotations(&mut cases, &base);
    forks(&mut cases, &base);
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

fn valid(cases: &mut Cases, base: &Base) {
    let mut ok = |name: &str, after, what, made: &Made| cases.push(name, after, "ok", what, made);
    ok(
        "personal-genesis",
        None,
        "a personal domain begins",
        &base.personal,
    );
    ok(
        "personal-update",
        G,
        "a new label and one more host",
        &base.update,
    );
    ok(
        "personal-revoke",
        U,
        "a host's key is revoked",
        &base.revoke,
    );
    ok(
        "personal-freeze",
        G,
        "the root revokes itself; only the phrase goes on from here",
        &base.freeze,
    );
    ok(
        "personal-rotation",
        U,
        "the phrase takes over",
        &base.rotation,
    );
    let from_genesis = base.personal.follow(&["phrase 1"], recover);
    ok(
        "personal-recovery",
        U,
        "the phrase takes over from genesis and voids the update",
        &from_genesis,
    );
    let thawed = base.freeze.follow(&["phrase 1"], recover);
    ok(
        "personal-thaw",
        Some("personal-freeze"),
        "the phrase takes over where the root is revoked",
        &thawed,
    );
    let again = base.rotation.follow(&["phrase 2"], |raw| {
        raw.rotation += 1;
        raw.roots = keys(&["phrase 2"]);
        raw.next = commit(&["phrase 3"]);
    });
    ok(
        "personal-rotation-again",
        Some("personal-rotation"),
        "the second phrase takes over",
        &again,
    );
    let earlier = base.revoke.follow(&["root"], |raw| raw.revoked[0].2 = 10);
    ok(
        "personal-revoke-earlier",
        Some("personal-revoke"),
        "a revocation moves to an earlier position",
        &earlier,
    );
    ok(
        "group-genesis",
        None,
        "a group of three begins",
        &base.group,
    );
    ok(
        "group-update",
        Some("group-genesis"),
        "two of three change the policy",
        &base.group_lenient,
    );
    ok(
        "group-rotation",
        Some("group-genesis"),
        "two revealed keys and two roots bring in another",
        &base.group_rotation,
    );
    let lost = base
        .group_lenient
        .follow(&["ada 2", "ben 2"], group_recover);
    ok(
        "group-recovery",
        Some("group-update"),
        "two revealed keys alone, as the policy allows",
        &lost,
    );
    ok(
        "common-genesis",
        None,
        "a common domain begins",
        &base.common,
    );
    let label = base
        .common
        .follow(&["ada", "ben"], |raw| raw.label = b"library".to_vec());
    ok(
        "common-update",
        Some("common-genesis"),
        "a new label needs no witness",
        &label,
    );
    let policy = base
        .common
        .follow(&["ada", "ben"], |_| {})
        .ruled([0, 1, 2, 1, 1, 1]);
    ok(
        "common-policy",
        Some("common-genesis"),
        "two witnesses cosign a new policy",
        &policy.watched(&["watch", "clock"]),
    );
}

/// What is not the one encoding of a manifest.
fn encoding(cases: &mut Cases, base: &Base) {
    let made = &base.personal;
    let parts = made.raw.parts();
    let mut spoiled = |name: &str, expect, what, dam: Vec<u8>| {
        let made = Made {
            domain: domain_of(&dam),
            ..made.clone()
        };
        let signatures = made.signatures(&dam);
        cases.bytes(name, None, expect, what, &made, dam, signatures);
    };
    let with = |index: usize, part: &[u8]| -> Vec<u8> {
        let mut parts = parts.clone();
        parts[index] = part.to_vec();
        parts.concat()
    };
    spoiled("empty", "Dam/Magic", "nothing at all", vec![]);
    spoiled("magic", "Dam/Magic", "another magic", with(0, b"ASLDAM2\n"));
    spoiled("too-long", "Dam/TooLong", "a byte more than the ceiling", {
        let mut long = parts.concat();
        long.resize(65537, 0);
        long
    });
    spoiled(
        "critical",
        "Dam/Critical",
        "an unknown critical bit",
        with(1, &[4]),
    );
    spoiled(
        "critical-alien",
        "Dam/Critical",
        "an unknown critical bit before something else entirely",
        b"ASLDAM1\n\x04?".to_vec(),
    );
    spoiled(
        "truncated",
        "Dam/Encoding/Malformed",
        "the last byte is missing",
        {
            let mut short = parts.concat();
            short.pop();
            short
        },
    );
    spoiled(
        "trailing",
        "Dam/Encoding/Trailing",
        "a byte too many",
        [parts.concat(), vec![0]].concat(),
    );
    spoiled(
        "overlong-critical",
        "Dam/Encoding/NotCanonical",
        "an integer in more bytes than it needs",
        with(1, &[0x80, 0]),
    );
    spoiled(
        "overlong-version",
        "Dam/Encoding/NotCanonical",
        "an integer in more bytes than it needs",
        with(3, &[0x80, 0]),
    );
    spoiled(
        "overlong-list",
        "Dam/Encoding/NotCanonical",
        "a count in more bytes than it needs",
        {
            let mut roots = parts[8].clone();
            roots.splice(..1, [0x81, 0]);
            with(8, &roots)
        },
    );
    spoiled(
        "overlong-label",
        "Dam/Encoding/NotCanonical",
        "a length in more bytes than it needs",
        {
            let mut label = parts[19].clone();
            let len = label[0];
            label.splice(..1, [len | 0x80, 0]);
            with(19, &label)
        },
    );
    spoiled(
        "option",
        "Dam/Encoding/Malformed",
        "an option that is neither there nor not",
        with(5, &[2]),
    );
    spoiled(
        "label-utf8",
        "Dam/Encoding/Malformed",
        "a label that is no UTF-8",
        with(19, b"\x02\xc3\x28"),
    );
    spoiled(
        "huge-list",
        "Dam/Encoding/Malformed",
        "a list that claims 2^40 entries",
        with(10, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x20]),
    );
}

/// The rules on a manifest alone.
fn alone(cases: &mut Cases, base: &Base) {
    let personal = |edit: fn(&mut Raw)| base.personal.but(edit);
    let group = |edit: fn(&mut Raw)| base.group.but(edit);
    let common = |edit: fn(&mut Raw)| base.common.but(edit);
    let update = |edit: fn(&mut Raw)| base.update.but(edit);
    let rows: Vec<(&str, &'static str, &'static str, Made)> = vec![
        (
            "kind",
            "Dam/Kind",
            "a kind that there is not",
            personal(|r| r.kind = 3),
        ),
        (
            "root-algorithm",
            "Dam/Key/Roots/Algorithm",
            "a root of an unknown algorithm",
            personal(|r| r.roots[0].0 = 2),
        ),
        (
            "root-point",
            "Dam/Key/Roots/NotAPoint",
            "a root that is no point",
            personal(|r| {
                r.roots[0].1 = {
                    let mut y = [0; 32];
                    y[0] = 2;
                    y
                }
            }),
        ),
        (
            "root-weak",
            "Dam/Key/Roots/Weak",
            "a root of low order",
            personal(|r| {
                r.roots[0].1 = {
                    let mut one = [0; 32];
                    one[0] = 1;
                    one
                }
            }),
        ),
        (
            "root-second-form",
            "Dam/Key/Roots/NonCanonical",
            "a root in a second encoding",
            personal(|r| {
                r.roots[0].1 = {
                    let mut one = [0; 32];
                    (one[0], one[31]) = (1, 0x80);
                    one
                }
            }),
        ),
        (
            "principal-algorithm",
            "Dam/Key/Principals/Algorithm",
            "a principal of an unknown algorithm",
            personal(|r| r.principals[0].0.0 = 0),
        ),
        (
            "witness-weak",
            "Dam/Key/Witnesses/Weak",
            "a witness of low order",
            group(|r| r.members[0].0.1 = [0; 32]),
        ),
        (
            "no-roots",
            "Dam/ListEmpty/Roots",
            "nobody speaks",
            personal(|r| r.roots.clear()),
        ),
        (
            "no-next",
            "Dam/ListEmpty/Next",
            "nothing to recover with",
            personal(|r| r.next.clear()),
        ),
        (
            "roots-many",
            "Dam/ListTooLong/Roots",
            "65 roots",
            personal(|r| {
                r.roots = (0..65).map(|i| pair(&format!("root {i}")).key()).collect();
                r.roots.sort_by_key(support::id)
            }),
        ),
        (
            "next-many",
            "Dam/ListTooLong/Next",
            "65 next keys",
            personal(|r| r.next = (0..65).map(|i| [i; 32]).collect()),
        ),
        (
            "principals-many",
            "Dam/ListTooLong/Principals",
            "65 principals",
            personal(|r| {
                r.principals = (0..65)
                    .map(|i| (pair(&format!("host {i}")).key(), 1))
                    .collect();
                r.principals.sort_by_key(|(key, _)| support::id(key))
            }),
        ),
        (
            "witnesses-many",
            "Dam/ListTooLong/Witnesses",
            "65 witnesses",
            common(|r| {
                r.members = (0..65)
                    .map(|i| (pair(&format!("witness {i}")).key(), format!("w{i}")))
                    .collect();
                r.members.sort_by_key(|(key, _)| support::id(key))
            }),
        ),
        (
            "revoked-many",
            "Dam/ListTooLong/Revoked",
            "65 revocations",
            update(|r| r.revoked = (0..65).map(|i| ([i; 32], STORE, 0, 0)).collect()),
        ),
        (
            "roots-order",
            "Dam/ListOrder/Roots",
            "roots out of order",
            group(|r| r.roots.reverse()),
        ),
        (
            "next-order",
            "Dam/ListOrder/Next",
            "next keys out of order",
            group(|r| r.next.reverse()),
        ),
        (
            "principals-order",
            "Dam/ListOrder/Principals",
            "principals out of order",
            personal(|r| r.principals.reverse()),
        ),
        (
            "witnesses-order",
            "Dam/ListOrder/Witnesses",
            "witnesses out of order",
            common(|r| r.members.reverse()),
        ),
        (
            "revoked-order",
            "Dam/ListOrder/Revoked",
            "revocations out of order",
            update(|r| r.revoked = vec![([9; 32], STORE, 0, 0), ([8; 32], STORE, 0, 0)]),
        ),
        (
            "roots-twice",
            "Dam/ListRepeats/Roots",
            "a root twice",
            group(|r| r.roots.insert(0, r.roots[0])),
        ),
        (
            "next-twice",
            "Dam/ListRepeats/Next",
            "a next key twice",
            group(|r| r.next.insert(0, r.next[0])),
        ),
        (
            "principals-twice",
            "Dam/ListRepeats/Principals",
            "a principal twice, with two roles",
            personal(|r| {
                let (key, _) = r.principals[0];
                r.principals.insert(0, (key, 16))
            }),
        ),
        (
            "witnesses-twice",
            "Dam/ListRepeats/Witnesses",
            "a witness twice, by two names",
            common(|r| {
                let (key, _) = r.members[0];
                r.members.insert(0, (key, "other".into()))
            }),
        ),
        (
            "revoked-twice",
            "Dam/ListRepeats/Revoked",
            "a key revoked twice in one store",
            update(|r| r.revoked = vec![([8; 32], STORE, 1, 0), ([8; 32], STORE, 2, 0)]),
        ),
        (
            "root-threshold-none",
            "Dam/Threshold/Roots",
            "a root threshold of zero",
            group(|r| r.root_threshold = 0),
        ),
        (
            "root-threshold-many",
            "Dam/Threshold/Roots",
            "a root threshold beyond the roots",
            group(|r| r.root_threshold = 4),
        ),
        (
            "next-threshold-none",
            "Dam/Threshold/Next",
            "a next threshold of zero",
            group(|r| r.next_threshold = 0),
        ),
        (
            "next-threshold-many",
            "Dam/Threshold/Next",
            "a next threshold beyond the next keys",
            group(|r| r.next_threshold = 4),
        ),
        (
            "witness-threshold-none",
            "Dam/Threshold/Witnesses",
            "a witness threshold of zero",
            common(|r| r.witness_threshold = 0),
        ),
        (
            "witness-threshold-many",
            "Dam/Threshold/Witnesses",
            "a witness threshold beyond the witnesses",
            common(|r| r.witness_threshold = 4),
        ),
        (
            "personal-roots",
            "Dam/PersonalThreshold/Roots",
            "a personal domain that two roots must sign for",
            personal(|r| {
                r.roots.push(pair("host").key());
                r.roots.sort_by_key(support::id);
                r.root_threshold = 2
            }),
        ),
        (
            "personal-next",
            "Dam/PersonalThreshold/Next",
            "a personal domain with two phrases",
            personal(|r| {
                r.next = commit(&["phrase 1", "phrase 2"]);
                r.next.sort();
                r.next_threshold = 2
            }),
        ),
        (
            "next-is-root",
            "Dam/NextListed",
            "the next key is the root",
            personal(|r| r.next = commit(&["root"])),
        ),
        (
            "next-is-principal",
            "Dam/NextListed",
            "the next key is the host's",
            personal(|r| r.next = commit(&["host"])),
        ),
        (
            "next-is-witness",
            "Dam/NextListed",
            "the next key is the witness's",
            group(|r| {
                r.next = commit(&["watch"]);
                r.next_threshold = 1
            }),
        ),
        (
            "roles-none",
            "Dam/RolesEmpty",
            "a principal without a role",
            personal(|r| r.principals[0].1 = 0),
        ),
        (
            "roles-unknown",
            "Dam/RolesUnknown",
            "a role that there is not",
            personal(|r| r.principals[0].1 = 33),
        ),
        (
            "checkpoint-produces",
            "Dam/CheckpointShared",
            "the checkpoint key signs receipts too",
            personal(|r| r.principals.iter_mut().for_each(|p| p.1 |= CHECKPOINT)),
        ),
        (
            "checkpoint-root",
            "Dam/CheckpointRoot",
            "the root signs checkpoints",
            personal(|r| r.principals = vec![(pair("root").key(), CHECKPOINT)]),
        ),
        (
            "witness-mode",
            "Dam/WitnessMode",
            "a witness mode that there is not",
            personal(|r| r.witness_mode = 3),
        ),
        (
            "witness-none-member",
            "Dam/WitnessNone",
            "no witnesses, but one",
            personal(|r| r.members = members(&["watch"])),
        ),
        (
            "witness-none-threshold",
            "Dam/WitnessNone",
            "no witnesses, but a threshold",
            personal(|r| r.witness_threshold = 1),
        ),
        (
            "witness-single",
            "Dam/WitnessSingle",
            "a single witness, but three",
            group(|r| {
                r.members = members(&["watch", "guard", "clock"]);
                r.members.sort_by_key(|(key, _)| support::id(key))
            }),
        ),
        (
            "common-single",
            "Dam/CommonUnwitnessed/Single",
            "a common domain with a single witness",
            common(|r| {
                r.witness_mode = 1;
                r.members.truncate(1);
                r.witness_threshold = 1
            }),
        ),
        (
            "common-none",
            "Dam/CommonUnwitnessed/None",
            "a common domain without witnesses",
            common(|r| {
                r.witness_mode = 0;
                r.members.clear();
                r.witness_threshold = 0
            }),
        ),
        (
            "witness-is-root",
            "Dam/WitnessListed",
            "a root watches itself",
            group(|r| r.members = members(&["ada"])),
        ),
        (
            "witness-is-principal",
            "Dam/WitnessListed",
            "a host watches itself",
            group(|r| r.members = members(&["host"])),
        ),
        (
            "witness-name-empty",
            "Dam/WitnessName",
            "a witness without a name",
            group(|r| r.members[0].1.clear()),
        ),
        (
            "witness-name-plus",
            "Dam/WitnessName",
            "a witness with a plus sign in its name",
            group(|r| r.members[0].1 = "a+b".into()),
        ),
        (
            "witness-name-blank",
            "Dam/WitnessName",
            "a witness with a blank in its name",
            group(|r| r.members[0].1 = "a b".into()),
        ),
        (
            "witness-name-long",
            "Dam/WitnessName",
            "a witness with a name of 65 bytes",
            group(|r| r.members[0].1 = "n".repeat(65)),
        ),
        (
            "witness-name-twice",
            "Dam/WitnessNameTwice",
            "two witnesses of one name",
            common(|r| r.members[1].1 = r.members[0].1.clone()),
        ),
        (
            "reason",
            "Dam/Reason",
            "a reason that there is not",
            update(|r| r.revoked = vec![([8; 32], STORE, 1, 4)]),
        ),
        (
            "label-long",
            "Dam/LabelTooLong",
            "a label of 65 bytes",
            personal(|r| r.label = vec![b'a'; 65]),
        ),
        (
            "label-escape",
            "Dam/LabelText",
            "a label that would recolour the terminal",
            personal(|r| r.label = b"\x1b[31mred".to_vec()),
        ),
        (
            "label-c1",
            "Dam/LabelText",
            "a label with an escape sequence in one character",
            personal(|r| r.label = "a\u{9b}31m".as_bytes().to_vec()),
        ),
        (
            "label-reversed",
            "Dam/LabelText",
            "a label that reads from right to left",
            personal(|r| r.label = "ab\u{202e}cd".as_bytes().to_vec()),
        ),
    ];
    for (name, expect, what, made) in rows {
        let after = (made.raw.version == 1).then_some("personal-genesis");
        cases.push(name, after, expect, what, &made);
    }
    let revoked_listed = base.update.but(|r| r.revoked.push(revoke("host")));
    cases.push(
        "principal-revoked",
        G,
        "Dam/PrincipalRevoked",
        "a host is revoked and still listed",
        &revoked_listed,
    );
    let watch = base
        .group
        .follow(&["ada", "ben"], |r| r.revoked.push(revoke("watch")));
    cases.push(
        "witness-revoked",
        Some("group-genesis"),
        "Dam/WitnessRevoked",
        "an update revokes the witness instead of dropping it",
        &watch,
    );
}

fn genesis(cases: &mut Cases, base: &Base) {
    let made = &base.personal;
    let fixed = |edit: fn(&mut Raw)| {
        let mut made = made.but(edit);
        made.domain = domain_of(&made.raw.encode());
        made
    };
    let mut bad =
        |name: &str, expect, what, made: &Made| cases.push(name, None, expect, what, made);
    bad(
        "genesis-version",
        "GenesisVersion",
        "a first manifest with version 1",
        &fixed(|r| r.version = 1),
    );
    bad(
        "genesis-rotation",
        "GenesisRotation",
        "a first manifest with rotation 1",
        &fixed(|r| r.rotation = 1),
    );
    bad(
        "genesis-prev",
        "GenesisPrev",
        "a first manifest after another",
        &fixed(|r| r.prev = Some([1; 32])),
    );
    bad(
        "genesis-domain",
        "GenesisDomain",
        "a first manifest that names its domain",
        &fixed(|r| r.domain = Some([1; 32])),
    );
    bad(
        "genesis-revokes",
        "GenesisRevokes",
        "a first manifest that revokes",
        &fixed(|r| r.revoked = vec![([8; 32], STORE, 1, 0)]),
    );
    bad(
        "genesis-root",
        "RootPossession",
        "the root did not sign",
        &made.clone().signers(&["host", "checkpoints"]),
    );
    bad(
        "genesis-host",
        "PrincipalPossession",
        "the host did not sign",
        &made.clone().signers(&["root", "checkpoints"]),
    );
    bad(
        "genesis-one-root",
        "RootPossession",
        "one of three roots did not sign",
        &base.group.clone().signers(&["ada", "eve", "host"]),
    );

    let policy = |cases: &mut Cases, name: &str, expect, what, policy: Vec<u8>| {
        let made = made.but(|r| r.policy = blake3(&policy));
        let dam = made.raw.encode();
        let signatures = made.signatures(&dam);
        cases.bytes(name, None, expect, what, &made, dam, signatures);
        cases.0.last_mut().expect("just pushed").policy = policy;
    };
    policy(
        cases,
        "policy-magic",
        "Policy/Magic",
        "a policy with another magic",
        b"ASLPOL2\n\0\0\0\0\0\0".to_vec(),
    );
    policy(
        cases,
        "policy-short",
        "Policy/Length",
        "a policy of five rules",
        b"ASLPOL1\n\0\0\0\0\0".to_vec(),
    );
    policy(
        cases,
        "policy-long",
        "Policy/Length",
        "a policy of seven rules",
        b"ASLPOL1\n\0\0\0\0\0\0\0".to_vec(),
    );
    let rules = [
        ("foreign", "Policy/Value/Foreign", 3),
        ("unsigned-captures", "Policy/Value/UnsignedCaptures", 3),
        ("checkpoints", "Policy/Value/Checkpoints", 3),
        ("witnessed", "Policy/Value/Witnessed", 2),
        ("recovery", "Policy/Value/Recovery", 2),
        ("after-revocation", "Policy/Value/AfterRevocation", 2),
    ];
    for (at, (rule, expect, value)) in rules.into_iter().enumerate() {
        let mut bytes = PLAIN;
        bytes[at] = value;
        policy(
            cases,
            &format!("policy-{rule}"),
            expect,
            "a value that the rule does not have",
            support::policy(bytes),
        );
    }
    let unwatched = made.clone().ruled([0, 0, 0, 1, 0, 0]).but(|_| {});
    cases.push(
        "policy-unwatched",
        None,
        "Unsatisfiable/NoWitnesses",
        "a policy that wants witnesses where there are none",
        &unwatched,
    );
    let other = made.but(|r| r.policy = [0; 32]);
    cases.push(
        "policy-other",
        None,
        "OtherPolicy",
        "another policy than the manifest names",
        &other,
    );
}

fn steps(cases: &mut Cases, base: &Base) {
    let update = &base.update;
    let mut bad =
        |name: &str, after, expect, what, made: &Made| cases.push(name, after, expect, what, made);
    bad("replay-head", U, "Replayed", "the head once more", update);
    bad(
        "replay-genesis",
        U,
        "Replayed",
        "the first manifest once more",
        &base.personal,
    );
    bad(
        "second-genesis",
        U,
        "SecondGenesis",
        "the first manifest of another domain",
        &base.group,
    );
    bad(
        "no-prev",
        G,
        "NoPrev",
        "an update that follows nothing",
        &update.but(|r| r.prev = None),
    );
    bad(
        "no-domain",
        G,
        "OtherDomain",
        "an update that names no domain",
        &update.but(|r| r.domain = None),
    );
    bad(
        "other-domain",
        G,
        "OtherDomain",
        "an update that names another domain",
        &update.but(|r| r.domain = Some([1; 32])),
    );
    let foreign = base.group.follow(&["ada", "ben"], |_| {});
    bad(
        "foreign",
        G,
        "OtherDomain",
        "another domain's update",
        &foreign,
    );
    bad(
        "unknown-prev",
        G,
        "UnknownPrev",
        "an update of something never seen",
        &update.but(|r| r.prev = Some([1; 32])),
    );
    bad(
        "reordered",
        G,
        "UnknownPrev",
        "the update after the next one",
        &base.revoke,
    );
    bad(
        "version-same",
        G,
        "VersionStep",
        "version 0 again",
        &update.but(|r| r.version = 0),
    );
    bad(
        "version-skip",
        G,
        "VersionStep",
        "version 2 after 0",
        &update.but(|r| r.version = 2),
    );
    bad(
        "version-last",
        G,
        "VersionStep",
        "the last version there is",
        &update.but(|r| r.version = u64::MAX),
    );
    bad(
        "rotation-skip",
        G,
        "RotationStep",
        "rotation 2 after 0",
        &update.but(|r| r.rotation = 2),
    );
    bad(
        "rotation-back",
        Some("personal-rotation"),
        "RotationStep",
        "rotation 0 after 1",
        &base.rotation.follow(&["phrase 1"], |r| r.rotation = 0),
    );
    let kind = update.but(|r| r.kind = 1);
    bad(
        "kind-changed",
        G,
        "KindChanged/Personal/Group",
        "a personal domain becomes a group",
        &kind,
    );
    let kind = base.rotation.but(|r| r.kind = 1);
    bad(
        "kind-changed-rotation",
        U,
        "KindChanged/Personal/Group",
        "a rotation makes a personal domain a group",
        &kind,
    );
}

fn frozen(cases: &mut Cases, base: &Base) {
    let all = ["ada", "ben", "eve", "mallory"];
    let group = |edit: fn(&mut Raw)| base.group.follow(&all, edit);
    let after = Some("group-genesis");
    let mut bad =
        |name: &str, expect, what, made: &Made| cases.push(name, after, expect, what, made);
    bad(
        "roots-added",
        "RootsChanged",
        "an update adds a root",
        &group(|r| r.roots.push(pair("mallory").key())),
    );
    bad(
        "roots-dropped",
        "RootsChanged",
        "an update drops a root",
        &group(|r| r.roots.retain(|k| *k != pair("eve").key())),
    );
    bad(
        "root-threshold-lowered",
        "RootThresholdChanged",
        "an update lowers the root threshold",
        &group(|r| r.root_threshold = 1),
    );
    bad(
        "next-swapped",
        "NextChanged",
        "an update swaps a next key",
        &group(|r| r.next[0] = pair("mallory").next()),
    );
    bad(
        "next-threshold-lowered",
        "NextThresholdChanged",
        "an update lowers the next threshold",
        &group(|r| r.next_threshold = 1),
    );
    bad(
        "witness-dropped",
        "WitnessChanged",
        "an update drops the witness",
        &group(|r| {
            r.witness_mode = 0;
            r.members.clear();
            r.witness_threshold = 0
        }),
    );
    bad(
        "witness-swapped",
        "WitnessChanged",
        "an update swaps the witness",
        &group(|r| r.members = members(&["mallory"])),
    );
    bad(
        "witness-renamed",
        "WitnessChanged",
        "an update renames the witness",
        &group(|r| r.members[0].1 = "other".into()),
    );
    bad(
        "witness-mode-changed",
        "WitnessChanged",
        "an update makes the single witness a quorum of one",
        &group(|r| r.witness_mode = 2),
    );
    let lowered = base.common.follow(&all, |r| r.witness_threshold = 1);
    cases.push(
        "witness-threshold-lowered",
        Some("common-genesis"),
        "WitnessChanged",
        "an update lowers the witness threshold",
        &lowered,
    );
}

fn revocations(cases: &mut Cases, base: &Base) {
    let after = Some("personal-revoke");
    let on = |edit: fn(&mut Raw)| base.revoke.follow(&["root", "host"], edit);
    let mut bad =
        |name: &str, after, expect, what, made: &Made| cases.push(name, after, expect, what, made);
    bad(
        "revocation-dropped",
        after,
        "RevocationDropped",
        "a revocation is taken back",
        &on(|r| r.revoked.clear()),
    );
    bad(
        "revocation-other-store",
        after,
        "RevocationDropped",
        "a revocation is moved to another store",
        &on(|r| r.revoked[0].1 = [1; 16]),
    );
    bad(
        "revocation-later",
        after,
        "RevocationLater",
        "a revocation is moved to a later position",
        &on(|r| r.revoked[0].2 = 41),
    );
    let dropped = base.revoke.follow(&["phrase 1"], |r| {
        recover(r);
        r.revoked.clear()
    });
    bad(
        "revocation-dropped-rotation",
        after,
        "RevocationDropped",
        "a rotation takes a revocation back",
        &dropped,
    );
    let relisted = on(|r| r.principals.push((pair("host").key(), PRODUCE)));
    bad(
        "revoked-again-listed",
        after,
        "Dam/PrincipalRevoked",
        "a revoked host is listed again",
        &relisted,
    );
    let kept = base.freeze.follow(&["phrase 1", "root"], |r| {
        recover(r);
        r.roots.push(pair("root").key())
    });
    bad(
        "revoked-root-kept",
        Some("personal-freeze"),
        "RevokedListed",
        "a rotation keeps the revoked root",
        &kept,
    );
    let frozen = base.freeze.follow(&["root"], |_| {});
    bad(
        "revoked-root-signs",
        Some("personal-freeze"),
        "RevokedRoot",
        "the revoked root goes on",
        &frozen,
    );
}

fn signatures(cases: &mut Cases, base: &Base) {
    let made = &base.update;
    let dam = made.raw.encode();
    let (root, laptop) = (pair("root"), pair("laptop"));
    let by_laptop = laptop.sign(DAM, made.domain, &dam);
    let good = root.signature("dam", made.domain, &dam);
    let of = |context: u8, body: [u8; 32], signer: [u8; 32], alg: u8, signature: &[u8]| {
        vec![
            artifact(context, body, signer, alg, signature),
            by_laptop.clone(),
        ]
    };
    let (body, signer) = (blake3(&dam), root.id());
    let genesis = base.personal.raw.encode();
    let mut flipped = good;
    flipped[40] ^= 1;
    let fine = || of(DAM, body, signer, 1, &good);
    let rows: Vec<(&str, &'static str, &'static str, Vec<Vec<u8>>)> = vec![
        (
            "unsigned",
            "RootThreshold",
            "no root signed",
            vec![by_laptop.clone()],
        ),
        (
            "new-host-unsigned",
            "PrincipalPossession",
            "the new host did not sign",
            vec![fine()[0].clone()],
        ),
        (
            "signature-flipped",
            "RootThreshold/Invalid/Signature",
            "one bit of the signature",
            of(DAM, body, signer, 1, &flipped),
        ),
        (
            "signature-body",
            "RootThreshold/OtherBody",
            "a signature over the first manifest",
            vec![root.sign(DAM, made.domain, &genesis), by_laptop.clone()],
        ),
        (
            "signature-moved",
            "RootThreshold/Invalid/Signature",
            "a signature over the first manifest that names this one",
            of(
                DAM,
                body,
                signer,
                1,
                &root.signature("dam", made.domain, &genesis),
            ),
        ),
        (
            "signature-domain",
            "RootThreshold/Invalid/Signature",
            "a signature for another domain",
            of(DAM, body, signer, 1, &root.signature("dam", [1; 32], &dam)),
        ),
        (
            "signature-receipt",
            "RootThreshold/OtherContext/Receipt",
            "a signature made for a receipt",
            of(
                RECEIPT,
                body,
                signer,
                1,
                &root.signature("receipt", made.domain, &dam),
            ),
        ),
        (
            "signature-relabelled",
            "RootThreshold/Invalid/Signature",
            "a signature made for a receipt, relabelled",
            of(
                DAM,
                body,
                signer,
                1,
                &root.signature("receipt", made.domain, &dam),
            ),
        ),
        (
            "signature-cosign",
            "RootThreshold",
            "a signature made for a change of policy",
            of(
                COSIGN_POLICY,
                body,
                signer,
                1,
                &root.signature("cosign-policy", made.domain, &dam),
            ),
        ),
        (
            "signature-untagged",
            "RootThreshold/Invalid/Signature",
            "a signature over the bare bytes",
            of(DAM, body, signer, 1, &{
                use ed25519_dalek::Signer as _;
                root.0.sign(&dam).to_bytes()
            }),
        ),
        (
            "signature-unlisted",
            "RootThreshold/Unlisted",
            "a signature by an unlisted key",
            vec![
                pair("mallory").sign(DAM, made.domain, &dam),
                by_laptop.clone(),
            ],
        ),
        (
            "signature-claimed",
            "RootThreshold/Invalid/Signature",
            "an unlisted key's signature that claims to be the root's",
            of(
                DAM,
                body,
                signer,
                1,
                &pair("mallory").signature("dam", made.domain, &dam),
            ),
        ),
        (
            "signature-phrase",
            "RootThreshold/Unlisted",
            "the next key signs an update",
            vec![
                pair("phrase 1").sign(DAM, made.domain, &dam),
                by_laptop.clone(),
            ],
        ),
        (
            "signature-host",
            "RootThreshold",
            "a host signs in place of the root",
            vec![pair("host").sign(DAM, made.domain, &dam), by_laptop.clone()],
        ),
        (
            "signature-algorithm",
            "RootThreshold/Invalid/Algorithm",
            "a signature of an unknown algorithm",
            of(DAM, body, signer, 2, &good),
        ),
        (
            "signature-context",
            "RootThreshold/Malformed/UnknownContext",
            "a signature for a purpose that there is not",
            of(9, body, signer, 1, &good),
        ),
        (
            "signature-short",
            "RootThreshold/Malformed/Codec",
            "a signature without its last byte",
            of(DAM, body, signer, 1, &good[..63]),
        ),
        (
            "signature-long",
            "RootThreshold/Malformed/Codec/TooLong",
            "a signature with a byte more",
            of(DAM, body, signer, 1, &[good.as_slice(), &[0]].concat()),
        ),
        (
            "signatures-many",
            "TooManySignatures",
            "256 signatures",
            vec![fine()[0].clone(); 256],
        ),
    ];
    for (name, expect, what, signatures) in rows {
        cases.bytes(name, G, expect, what, made, dam.clone(), signatures);
    }
    for (name, what, edit) in [
        (
            "nonce-changed",
            "another nonce under the same signatures",
            (|r| r.nonce[0] ^= 1) as fn(&mut Raw),
        ),
        (
            "anchor-changed",
            "another anchor under the same signatures",
            |r| r.anchor = None,
        ),
        (
            "label-changed",
            "another label under the same signatures",
            |r| r.label[0] ^= 1,
        ),
        (
            "time-changed",
            "another time under the same signatures",
            |r| r.created_hint += 1,
        ),
    ] {
        let spoiled = made.but(edit).raw.encode();
        let renamed = [&root, &laptop].map(|pair| {
            artifact(
                DAM,
                blake3(&spoiled),
                pair.id(),
                1,
                &pair.signature("dam", made.domain, &dam),
            )
        });
        cases.bytes(
            name,
            G,
            "RootThreshold/Invalid/Signature",
            what,
            made,
            spoiled,
            renamed.to_vec(),
        );
    }

    let group = Some("group-genesis");
    let stuffed = base.group_lenient.clone().signers(&["ada", "ada", "ada"]);
    cases.push(
        "stuffed",
        group,
        "RootThreshold/Repeated",
        "one root signs three times",
        &stuffed,
    );
    let one = base.group_lenient.clone().signers(&["ada", "host"]);
    cases.push(
        "group-one",
        group,
        "RootThreshold",
        "one root of the two needed",
        &one,
    );

    let policy = base
        .common
        .follow(&["ada", "ben"], |_| {})
        .ruled([0, 1, 2, 1, 1, 1]);
    let common = Some("common-genesis");
    cases.push(
        "common-policy-alone",
        common,
        "PolicyCosign",
        "roots change the policy without witnesses",
        &policy,
    );
    cases.push(
        "common-policy-one",
        common,
        "PolicyCosign",
        "one witness of two cosigns the policy",
        &policy.clone().watched(&["guard"]),
    );
    cases.push(
        "common-policy-stuffed",
        common,
        "PolicyCosign/Repeated",
        "one witness cosigns twice",
        &policy.clone().watched(&["guard", "guard"]),
    );
    cases.push(
        "common-policy-roots",
        common,
        "PolicyCosign",
        "roots cosign in the place of witnesses",
        &policy.clone().watched(&["ada", "ben"]),
    );
    let plain = policy.signers(&["ada", "ben", "guard", "watch"]);
    cases.push(
        "common-policy-context",
        common,
        "PolicyCosign",
        "witnesses sign the manifest, not its change of policy",
        &plain,
    );
}

fn rotations(cases: &mut Cases, base: &Base) {
    let mut bad =
        |name: &str, after, expect, what, made: &Made| cases.push(name, after, expect, what, made);
    let stolen = base.update.follow(&["root"], |r| {
        recover(r);
        r.roots = keys(&["root"])
    });
    bad(
        "rotation-stolen",
        U,
        "Unrevealed",
        "the current root rotates to itself",
        &stolen,
    );
    let stolen = base.update.follow(&["root", "mallory"], |r| {
        recover(r);
        r.roots = keys(&["mallory"])
    });
    bad(
        "rotation-mallory",
        U,
        "Unrevealed",
        "the current root rotates to a key that was not committed to",
        &stolen,
    );
    let unsigned = base.rotation.clone().signers(&["root"]);
    bad(
        "rotation-unsigned",
        U,
        "Unrevealed/Unlisted",
        "the next key is revealed but did not sign",
        &unsigned.signers(&["root", "mallory"]),
    );
    let update = base
        .update
        .follow(&["root"], recover)
        .but(|r| r.rotation = 0);
    bad(
        "rotation-hidden",
        U,
        "RootsChanged",
        "new roots and next keys, called an update",
        &update,
    );
    let next = base.rotation.but(|r| r.next = commit(&["phrase 1"]));
    bad(
        "next-again",
        U,
        "Dam/NextListed",
        "the revealed key is the next one again",
        &next,
    );
    let second = base.rotation.follow(&["phrase 2"], |r| {
        r.rotation += 1;
        r.roots = keys(&["phrase 2"]);
        r.next = commit(&["phrase 1"]);
    });
    bad(
        "next-old",
        Some("personal-rotation"),
        "NextReused",
        "an earlier phrase is the next one again",
        &second,
    );
    let root = base.rotation.but(|r| r.next = commit(&["root"]));
    bad(
        "next-old-root",
        U,
        "NextReused",
        "the old root is the next key",
        &root,
    );
    let mut unproven = base
        .rotation
        .but(|r| r.principals.push((pair("tablet").key(), PRODUCE)));
    unproven.raw = unproven.raw.sorted();
    bad(
        "rotation-host-unsigned",
        U,
        "PrincipalPossession",
        "a rotation lists a host that did not sign",
        &unproven,
    );

    let group = Some("group-genesis");
    let made = &base.group_rotation;
    bad(
        "rotation-one",
        group,
        "Unrevealed",
        "one revealed key of two signed",
        &made.clone().signers(&["ada 2", "dan", "ada", "ben"]),
    );
    let thin = made.but(|r| r.root_threshold = 3);
    bad(
        "rotation-new-roots",
        group,
        "NewRootThreshold",
        "two of the three new roots needed signed",
        &thin,
    );
    bad(
        "rotation-no-roots",
        group,
        "RecoveryNeedsRoots",
        "no current root signed, and the policy wants them",
        &made.clone().signers(&["ada 2", "ben 2"]),
    );
    bad(
        "rotation-one-root",
        group,
        "RecoveryNeedsRoots",
        "one current root of two signed",
        &made.clone().signers(&["ada 2", "ben 2", "eve"]),
    );
    let kept = made.but(|r| r.next[0] = commit(&["eve 2"])[0]);
    let mut kept = kept;
    kept.raw = kept.raw.sorted();
    bad(
        "next-unrevealed-again",
        group,
        "NextReused",
        "a next key that was not revealed is committed to again",
        &kept,
    );
}

fn forks(cases: &mut Cases, base: &Base) {
    let mut bad =
        |name: &str, after, expect, what, made: &Made| cases.push(name, after, expect, what, made);
    let second = base
        .personal
        .follow(&["root"], |r| r.label = b"cellar".to_vec());
    bad(
        "fork-update",
        U,
        "UpdateFork",
        "a second update of the first manifest",
        &second,
    );
    bad(
        "fork-void",
        Some("personal-rotation"),
        "Void",
        "an update of what a rotation ended",
        &base.revoke,
    );
    let rival = base.personal.follow(&["phrase 1"], recover);
    bad(
        "fork-rotation",
        Some("personal-rotation"),
        "RotationFork",
        "a second rotation of the same epoch",
        &rival,
    );
    let stolen = base.update.follow(&["phrase 1"], |r| {
        recover(r);
        r.next = commit(&["mallory"]);
    });
    bad(
        "fork-rotation-again",
        Some("personal-rotation-again"),
        "RotationFork",
        "a stolen root, which was the phrase before, rotates its own past",
        &stolen,
    );
}
