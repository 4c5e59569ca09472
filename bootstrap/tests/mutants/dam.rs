//! Manifests: bytes of a valid one changed blindly, and fields changed knowingly and signed anew.

use std::collections::{BTreeMap, BTreeSet};

use asl_bootstrap::chain::{Candidate, Chain, ChainError};
use asl_bootstrap::codec::CodecError;
use asl_bootstrap::dam::{Dam, DamError};
use asl_store::Key;

use crate::cases::{self, Case};
use crate::mutate::{Rng, interesting, mutate};
use crate::support::{
    COSIGN_POLICY, DAM, Pair, Raw, RawKey, artifact, blake3, domain_of, id, next, pair,
};
use crate::{Tally, budget, variants};

variants!(
    DAM_ERRORS,
    dam_error,
    DamError {
        Magic,
        TooLong,
        Critical,
        Encoding,
        Kind,
        ListTooLong,
        ListEmpty,
        ListOrder,
        ListRepeats,
        Key,
        Threshold,
        PersonalThreshold,
        NextListed,
        RolesEmpty,
        RolesUnknown,
        CheckpointShared,
        CheckpointRoot,
        PrincipalRevoked,
        WitnessMode,
        WitnessNone,
        WitnessSingle,
        CommonUnwitnessed,
        WitnessListed,
        WitnessRevoked,
        WitnessName,
        WitnessNameTwice,
        Reason,
        LabelTooLong,
        LabelText,
    }
);
variants!(
    CHAIN_ERRORS,
    chain_error,
    ChainError {
        Dam,
        Policy,
        OtherPolicy,
        Unsatisfiable,
        TooManySignatures,
        GenesisVersion,
        GenesisRotation,
        GenesisPrev,
        GenesisDomain,
        GenesisRevokes,
        RootPossession,
        PrincipalPossession,
        Replayed,
        SecondGenesis,
        NoPrev,
        OtherDomain,
        UnknownPrev,
        VersionStep,
        RotationStep,
        KindChanged,
        RootsChanged,
        RootThresholdChanged,
        NextChanged,
        NextThresholdChanged,
        WitnessChanged,
        RevocationDropped,
        RevocationLater,
        RevokedListed,
        RootThreshold,
        RevokedRoot,
        PolicyCosign,
        Unrevealed,
        NewRootThreshold,
        RecoveryNeedsRoots,
        NextReused,
        UpdateFork,
        RotationFork,
        Void,
        OnRival,
        TooManyUpdates,
    }
);
variants!(
    CODEC_ERRORS,
    codec_error,
    CodecError {
        TooLong,
        Tag,
        Malformed,
        Trailing,
        NotCanonical,
    }
);

/// What fields that were changed and signed anew cannot cause.
const UNREACHABLE: &[&str] = &[
    // Takes a thousand updates, see tests/authority.rs.
    "ChainError::TooManyUpdates",
    // The encoder of these tests writes the magic and needs no byte too many; `bytes` reaches them.
    "DamError::Magic",
    "CodecError::TooLong",
    "CodecError::Tag",
    "CodecError::Trailing",
    "CodecError::NotCanonical",
];

/// Everybody whose key the cases use, and some more.
const NAMES: &[&str] = &[
    "ada",
    "ada 2",
    "ada 3",
    "ben",
    "ben 2",
    "ben 3",
    "checkpoints",
    "clock",
    "dan",
    "dan 3",
    "eve",
    "eve 2",
    "guard",
    "host",
    "laptop",
    "mallory",
    "phrase 1",
    "phrase 2",
    "phrase 3",
    "root",
    "tablet",
    "watch",
    "fresh 1",
    "fresh 2",
    "fresh 3",
    "fresh 4",
];

fn path(error: &ChainError) -> Vec<&'static str> {
    let mut path = vec![chain_error(error)];
    if let ChainError::Dam(inner) = error {
        path.push(dam_error(inner));
        if let DamError::Encoding(inner) = inner {
            path.push(codec_error(inner));
        }
    }
    path
}

fn candidate<'a>(dam: &'a [u8], policy: &'a [u8], signatures: &'a [Vec<u8>]) -> Candidate<'a> {
    Candidate {
        dam,
        policy,
        signatures: signatures.iter().map(Vec::as_slice).collect(),
    }
}

/// The valid cases, and the chain that each leads to.
fn valid() -> Vec<(Case, Chain)> {
    let mut found: Vec<(Case, Chain)> = Vec::new();
    for case in cases::all().0 {
        if case.expect != "ok" {
            continue;
        }
        let candidate = candidate(&case.dam, &case.policy, &case.signatures);
        let chain = match case.after {
            None => Chain::genesis(&candidate).unwrap(),
            Some(after) => {
                let before = found.iter().find(|(case, _)| case.name == after);
                let mut chain = before.unwrap().1.clone();
                chain.extend(&candidate).unwrap();
                chain
            }
        };
        found.push((case, chain));
    }
    found
}

#[test]
fn bytes() {
    let mut rng = Rng::new(10);
    let mut tally = Tally::new("dam, bytes");
    let seeds = valid();
    for _ in 0..budget(4_000) {
        let (case, _) = rng.pick(&seeds);
        let (other, _) = rng.pick(&seeds);
        let bytes = match rng.below(400) {
            0 => [case.dam.clone(), vec![0; 64 << 10]].concat(),
            _ => mutate(&mut rng, &case.dam, &other.dam),
        };
        let decoded = Dam::decode(&bytes);
        if let Ok(dam) = &decoded {
            assert_eq!(dam.encode().as_ref(), Ok(&bytes));
        }
        if bytes != case.dam {
            // Signatures are over bytes: no other manifest has the original's.
            let taken = candidate(&bytes, &case.policy, &case.signatures);
            let offered = match case.after {
                None => Chain::genesis(&taken).map(drop),
                Some(after) => {
                    let chain = seeds.iter().find(|(case, _)| case.name == after);
                    let mut chain = chain.unwrap().1.clone();
                    chain.extend(&taken).map(drop)
                }
            };
            assert!(offered.is_err(), "{}: {bytes:02x?}", case.name);
        }
        match decoded {
            Ok(_) => tally.accepted(),
            Err(error) => match &error {
                DamError::Encoding(inner) => {
                    tally.refused(&[dam_error(&error), codec_error(inner)])
                }
                _ => tally.refused(&[dam_error(&error)]),
            },
        }
    }
    // Which rules on a manifest alone blind changes reach is chance; `fields` reaches all of them on purpose.
    let by_chance = DAM_ERRORS.iter().filter(|name| !tally.has(name)).copied();
    // These are looked for before the encoding.
    let unreachable: Vec<&'static str> = by_chance
        .chain(["CodecError::TooLong", "CodecError::Tag"])
        .collect();
    for always in [
        "DamError::Magic",
        "DamError::TooLong",
        "DamError::Critical",
        "DamError::Encoding",
    ] {
        assert!(!unreachable.contains(&always), "{always}");
    }
    tally.finish(&[DAM_ERRORS, CODEC_ERRORS].concat(), &unreachable);
}

/// The fields of a manifest.
fn raw_of(bytes: &[u8]) -> Raw {
    let dam = Dam::decode(bytes).unwrap();
    let key = |key: &asl_bootstrap::PublicKey| (key.alg(), *key.bytes());
    Raw {
        critical: 0,
        kind: dam.kind as u8,
        version: dam.version,
        rotation: dam.rotation,
        prev: dam.prev.map(|key| key.0),
        domain: dam.domain.map(|id| id.0),
        nonce: dam.nonce,
        roots: dam.roots.iter().map(key).collect(),
        root_threshold: dam.root_threshold,
        next: dam.next.iter().map(|digest| digest.0).collect(),
        next_threshold: dam.next_threshold,
        principals: (dam.principals.iter())
            .map(|principal| (key(&principal.key), principal.roles.0))
            .collect(),
        witness_mode: dam.witness.mode as u8,
        members: (dam.witness.members.iter())
            .map(|member| (key(&member.key), member.name.clone()))
            .collect(),
        witness_threshold: dam.witness.threshold,
        policy: dam.policy.0,
        revoked: (dam.revoked.iter())
            .map(|of| (of.key.0, of.store.0, of.position.0, of.reason as u8))
            .collect(),
        anchor: (dam.anchor).map(|anchor| (anchor.store.0, anchor.position.0, anchor.chain)),
        label: dam.label.into_bytes(),
        created_hint: dam.created_hint,
    }
}

struct World {
    chain: Chain,
    domain: [u8; 32],
    /// Manifests that somebody may go on from.
    known: Vec<Raw>,
}

struct Ring {
    pairs: Vec<Pair>,
    by_id: BTreeMap<[u8; 32], Pair>,
    by_next: BTreeMap<[u8; 32], Pair>,
}

impl Ring {
    fn new() -> Self {
        let pairs: Vec<Pair> = NAMES.iter().map(|name| pair(name)).collect();
        let by = |of: &dyn Fn(&Pair) -> [u8; 32]| {
            pairs.iter().map(|pair| (of(pair), pair.clone())).collect()
        };
        Self {
            by_id: by(&Pair::id),
            by_next: by(&Pair::next),
            pairs,
        }
    }
}

/// Points of low order, one encoding that is not canonical, and bytes that are no point.
fn bad_key(rng: &mut Rng) -> RawKey {
    let mut bytes = [0; 32];
    match rng.below(4) {
        0 => bytes[0] = 1,
        1 => {
            bytes = [0xff; 32];
            bytes[31] = 0x7f;
        }
        2 => bytes[0] = 2,
        _ => return (rng.next() as u8, pair("root").key().1),
    }
    (1, bytes)
}

fn revocation(rng: &mut Rng, ring: &Ring, raw: &Raw) -> ([u8; 32], [u8; 16], u64, u8) {
    let listed: Vec<[u8; 32]> = (raw.roots.iter())
        .chain(raw.principals.iter().map(|(key, _)| key))
        .chain(raw.members.iter().map(|(key, _)| key))
        .map(id)
        .collect();
    let key = match rng.below(3) {
        0 => rng.pick(&ring.pairs).id(),
        1 => rng.bytes(),
        _ => *rng.pick(&listed),
    };
    let reason = if rng.one_in(8) { rng.next() as u8 } else { 1 };
    (key, [rng.below(2) as u8; 16], rng.below(5) as u64, reason)
}

/// Rotates to the revealed keys, or to some others.
fn rotate(rng: &mut Rng, ring: &Ring, raw: &mut Raw) {
    raw.rotation += 1;
    let revealed = raw
        .next
        .iter()
        .filter_map(|digest| ring.by_next.get(digest));
    raw.roots = revealed.map(Pair::key).collect();
    if rng.one_in(6) {
        raw.roots.pop();
    }
    if rng.one_in(4) || raw.roots.is_empty() {
        raw.roots.push(rng.pick(&ring.pairs).key());
    }
    raw.roots.dedup();
    if raw.kind != 0 && rng.one_in(4) {
        // Nobody here has this key, and all are asked to sign.
        raw.roots.push(pair("nobody").key());
        raw.root_threshold = raw.roots.len() as u8;
    }
    if !rng.one_in(6) {
        raw.next = (0..raw.next.len())
            .map(|n| pair(&format!("next {n} {}", rng.below(9))).next())
            .collect();
    }
    if rng.one_in(6) {
        raw.next.push(rng.pick(&ring.pairs).next());
    }
    raw.root_threshold = raw.root_threshold.min(raw.roots.len() as u8);
    raw.next_threshold = raw.next_threshold.min(raw.next.len() as u8);
}

/// One field that is another.
fn edit(rng: &mut Rng, ring: &Ring, raw: &mut Raw, known: &[Raw]) {
    let someone = rng.pick(&ring.pairs).clone();
    match rng.below(34) {
        0 => raw.critical = interesting(rng) as u32,
        1 => raw.kind = rng.below(4) as u8,
        2 => raw.version = interesting(rng),
        3 => raw.rotation = interesting(rng),
        4 => raw.prev = rng.one_in(2).then(|| rng.bytes()),
        5 => raw.domain = rng.one_in(2).then(|| rng.bytes()),
        6 => raw.prev = Some(blake3(&rng.pick(known).encode())),
        7 => raw.roots.push(someone.key()),
        8 => drop(raw.roots.pop()),
        9 => raw.root_threshold = rng.below(4) as u8,
        10 => raw.next.push(someone.next()),
        11 => drop(raw.next.pop()),
        12 => raw.next_threshold = rng.below(4) as u8,
        13 => raw.principals.push((someone.key(), 1 << rng.below(5))),
        14 => raw
            .principals
            .push((someone.key(), *rng.pick(&[0, 3, 6, 10, 18, 31, 32, 0x8001]))),
        15 => drop(raw.principals.pop()),
        16 => raw.witness_mode = rng.below(4) as u8,
        17 => raw
            .members
            .push((someone.key(), format!("w{}", rng.below(3)))),
        18 => drop(raw.members.pop()),
        19 => {
            let names = ["", "a b", "a+b", "\u{1b}", "guard", "clock", "w\u{e9}"];
            let first = raw.members.first().map(|(_, name)| name.clone());
            if let Some((_, name)) = raw.members.last_mut() {
                *name = match (first, rng.one_in(2)) {
                    (Some(first), true) => first,
                    _ => (*rng.pick(&names)).to_owned(),
                };
            }
        }
        20 => raw.witness_threshold = rng.below(4) as u8,
        21 => raw.policy = rng.bytes(),
        22 | 23 => {
            let revoked = revocation(rng, ring, raw);
            raw.revoked.push(revoked);
        }
        24 => drop(raw.revoked.pop()),
        25 => {
            if let Some((_, _, position, _)) = raw.revoked.last_mut() {
                *position = interesting(rng);
            }
        }
        26 => {
            raw.anchor = rng
                .one_in(2)
                .then(|| (rng.bytes(), interesting(rng), rng.bytes()))
        }
        27 => raw.label = rng.bytes::<12>().to_vec(),
        28 => {
            let labels = ["\u{1b}[2J", "\u{202e}x", "a\nb", "caf\u{e9}", "\u{9b}"];
            raw.label = rng.pick(&labels).as_bytes().to_vec();
        }
        29 => raw.label = vec![b'x'; *rng.pick(&[64, 65, 70_000])],
        30 => raw.created_hint = interesting(rng) as i64,
        31 => {
            let bad = bad_key(rng);
            match rng.below(3) {
                0 => raw.roots.push(bad),
                1 => raw.principals.push((bad, 1)),
                _ => raw.members.push((bad, "bad".to_owned())),
            }
        }
        32 => {
            let many = 60 + rng.below(8);
            raw.revoked = (0..many).map(|n| ([n as u8; 32], [0; 16], 0, 0)).collect();
        }
        _ => {
            // The same entry twice, or two in the wrong order.
            let twice = rng.one_in(2);
            match (rng.below(3), raw.next.len(), raw.principals.len()) {
                (0, _, 1..) if twice => raw.principals.push(raw.principals[0]),
                (0, _, 2..) => raw.principals.swap(0, 1),
                (1, 1.., _) if twice => raw.next.push(raw.next[0]),
                _ => raw.roots.reverse(),
            }
        }
    }
}

/// Who is asked to sign, and how it goes.
fn sign(
    rng: &mut Rng,
    ring: &Ring,
    raw: &Raw,
    parent: Option<&Raw>,
    domain: [u8; 32],
) -> Vec<Vec<u8>> {
    let bytes = raw.encode();
    let listed = |raw: &Raw| -> Vec<[u8; 32]> {
        let principals = raw.principals.iter().map(|(key, _)| key);
        raw.roots.iter().chain(principals).map(id).collect()
    };
    let mut ids = listed(raw);
    ids.extend(parent.map(listed).unwrap_or_default());
    let mut signers: Vec<&Pair> = ids.iter().filter_map(|id| ring.by_id.get(id)).collect();
    // One is away.
    if rng.one_in(5) && !signers.is_empty() {
        let away = signers[rng.below(signers.len())].id();
        signers.retain(|pair| pair.id() != away);
    }
    let mut signatures: Vec<Vec<u8>> = signers
        .iter()
        .map(|pair| pair.sign(DAM, domain, &bytes))
        .collect();
    let witnesses = raw.members.iter().map(|(key, _)| id(key));
    let context = if rng.one_in(6) { DAM } else { COSIGN_POLICY };
    for witness in witnesses.filter_map(|id| ring.by_id.get(&id)) {
        if !rng.one_in(3) {
            signatures.push(witness.sign(context, domain, &bytes));
        }
    }
    // Somebody else under a listed name, a signature of another domain, one repeated, noise, too many.
    if let Some(first) = signatures.first().cloned() {
        match rng.below(24) {
            0 => {
                let forged = pair("mallory").signature("dam", domain, &bytes);
                signatures[0] = artifact(DAM, blake3(&bytes), ids[0], 1, &forged);
            }
            1 => {
                signatures[0] = signers
                    .first()
                    .map_or(first, |pair| pair.sign(DAM, [1; 32], &bytes))
            }
            2 => signatures.extend([first.clone(), first]),
            3 => signatures[0] = mutate(rng, &first, &bytes),
            4 => signatures = vec![first; 256],
            _ => {}
        }
    }
    signatures
}

/// Whose signatures are right, by context.
fn signed(
    raw: &Raw,
    signatures: &[Vec<u8>],
    domain: [u8; 32],
    ring: &Ring,
) -> [BTreeSet<[u8; 32]>; 2] {
    let bytes = raw.encode();
    [DAM, COSIGN_POLICY].map(|context| {
        let right = |pair: &&Pair| signatures.contains(&pair.sign(context, domain, &bytes));
        ring.pairs.iter().filter(right).map(Pair::id).collect()
    })
}

/// Whether the format's description allows `child` after `parent`: written from it, without the crate.
fn may_follow(
    parent: &Raw,
    child: &Raw,
    [dam, cosigned]: &[BTreeSet<[u8; 32]>; 2],
    needs_roots: bool,
) -> bool {
    let revoked = |raw: &Raw, key: &[u8; 32]| raw.revoked.iter().any(|entry| entry.0 == *key);
    let count = |keys: &[RawKey]| {
        let ids: BTreeSet<[u8; 32]> = keys.iter().map(id).collect();
        let counts = |key: &&[u8; 32]| dam.contains(*key) && !revoked(parent, key);
        ids.iter().filter(counts).count()
    };
    let grown = parent.revoked.iter().all(|old| {
        let mut entries = child.revoked.iter();
        entries.any(|new| (new.0, new.1) == (old.0, old.1) && new.2 <= old.2)
    });
    let listed = |key: &RawKey| parent.principals.iter().any(|(known, _)| known == key);
    let mut fresh = child.principals.iter().filter(|(key, _)| !listed(key));
    let possessed = fresh.all(|(key, _)| dam.contains(&id(key)));
    let common = child.kind == parent.kind
        && Some(child.version) == parent.version.checked_add(1)
        && child.prev == Some(blake3(&parent.encode()))
        && child.critical == 0
        && grown
        && possessed;
    if child.rotation == parent.rotation {
        let watched = child.kind != 2 || child.policy == parent.policy || {
            let members = child
                .members
                .iter()
                .filter(|(key, _)| cosigned.contains(&id(key)));
            members.count() >= usize::from(child.witness_threshold)
        };
        let frozen = |raw: &Raw| {
            let Raw {
                roots,
                root_threshold,
                next,
                next_threshold,
                ..
            } = raw.clone();
            let Raw {
                witness_mode,
                members,
                witness_threshold,
                ..
            } = raw.clone();
            (
                roots,
                root_threshold,
                next,
                next_threshold,
                witness_mode,
                members,
                witness_threshold,
            )
        };
        return common
            && frozen(parent) == frozen(child)
            && count(&parent.roots) >= usize::from(parent.root_threshold)
            && watched;
    }
    let revealed: Vec<RawKey> = (child.roots.iter())
        .filter(|key| parent.next.contains(&next(key)))
        .copied()
        .collect();
    common
        && child.rotation == parent.rotation + 1
        && count(&revealed) >= usize::from(parent.next_threshold)
        && count(&child.roots) >= usize::from(child.root_threshold)
        && child.roots.iter().all(|key| !revoked(child, &id(key)))
        && child
            .next
            .iter()
            .all(|digest| !parent.next.contains(digest))
        && (parent.kind == 0
            || !needs_roots
            || count(&parent.roots) >= usize::from(parent.root_threshold))
}

/// Whether it may be a domain's first.
fn may_begin(raw: &Raw, [dam, _]: &[BTreeSet<[u8; 32]>; 2]) -> bool {
    let principals = raw.principals.iter().map(|(key, _)| key);
    (raw.version, raw.rotation) == (0, 0)
        && raw.prev.is_none()
        && raw.domain.is_none()
        && raw.revoked.is_empty()
        && raw
            .roots
            .iter()
            .chain(principals)
            .all(|key| dam.contains(&id(key)))
}

/// Policies that may be named, by their names.
fn policies() -> BTreeMap<[u8; 32], Vec<u8>> {
    let mut policies = BTreeMap::new();
    for n in 0..64_u8 {
        let rules = std::array::from_fn(|rule| (n >> rule) & 1);
        let bytes = crate::support::policy(rules);
        policies.insert(blake3(&bytes), bytes);
    }
    for (case, _) in valid() {
        policies.insert(blake3(&case.policy), case.policy);
    }
    policies
}

#[test]
fn fields() {
    let mut rng = Rng::new(11);
    let mut tally = Tally::new("dam, fields signed anew");
    let (ring, policies, seeds) = (Ring::new(), policies(), valid());
    let names: Vec<[u8; 32]> = policies.keys().copied().collect();
    let begun: Vec<&Case> = (seeds.iter().map(|(case, _)| case))
        .filter(|case| case.after.is_none())
        .collect();
    let all: Vec<&'static str> = [CHAIN_ERRORS, DAM_ERRORS, CODEC_ERRORS].concat();
    while tally.goes_on(budget(2_500), &all, UNREACHABLE) {
        if rng.one_in(4) {
            let case = *rng.pick(&begun);
            first(&mut rng, &ring, &policies, case, &mut tally);
            continue;
        }
        let (_, chain) = rng.pick(&seeds);
        let mut world = World {
            domain: chain.domain().0,
            known: (chain.path())
                .map(|node| raw_of(&node.dam.encode().unwrap()))
                .collect(),
            chain: chain.clone(),
        };
        for _ in 0..1 + rng.below(4) {
            step(&mut rng, &ring, &policies, &names, &mut world, &mut tally);
        }
    }
    tally.finish(&all, UNREACHABLE);
}

/// A changed first manifest: another domain's, if anybody's.
fn first(
    rng: &mut Rng,
    ring: &Ring,
    policies: &BTreeMap<[u8; 32], Vec<u8>>,
    case: &Case,
    tally: &mut Tally,
) {
    let mut raw = raw_of(&case.dam);
    match rng.below(12) {
        0 => raw.version = 1,
        1 => raw.rotation = 1,
        2 => raw.prev = Some(rng.bytes()),
        3 => raw.domain = Some(rng.bytes()),
        4 => raw.revoked = vec![([9; 32], [0; 16], 0, 0)],
        _ => {}
    }
    for _ in 0..rng.below(3) {
        let known = [raw.clone()];
        edit(rng, ring, &mut raw, &known);
    }
    if !rng.one_in(8) {
        raw = raw.sorted();
    }
    let bytes = raw.encode();
    let domain = domain_of(&bytes);
    let signatures = sign(rng, ring, &raw, None, domain);
    let policy = policies.get(&raw.policy).unwrap_or(&case.policy);
    match Chain::genesis(&candidate(&bytes, policy, &signatures)) {
        Ok(chain) => {
            assert_eq!(chain.domain().0, domain);
            assert!(
                may_begin(&raw, &signed(&raw, &signatures, domain, ring)),
                "{raw:?}"
            );
            tally.accepted();
        }
        Err(error) => tally.refused(&path(&error)),
    }
}

fn step(
    rng: &mut Rng,
    ring: &Ring,
    policies: &BTreeMap<[u8; 32], Vec<u8>>,
    names: &[[u8; 32]],
    world: &mut World,
    tally: &mut Tally,
) {
    let newest = world.known.len() - 1;
    let at = if rng.one_in(3) {
        rng.below(world.known.len())
    } else {
        newest
    };
    let parent = world.known[at].clone();
    let mut raw = match rng.below(24) {
        0 => parent.clone(),
        1 => Raw {
            prev: None,
            domain: None,
            ..parent.clone()
        },
        2 => Raw {
            prev: None,
            ..parent.follow(world.domain)
        },
        _ => parent.follow(world.domain),
    };
    raw.nonce = rng.bytes();
    if rng.one_in(20) {
        raw = parent.clone();
    }
    if rng.one_in(3) {
        rotate(rng, ring, &mut raw);
    }
    if rng.one_in(4) {
        raw.policy = *rng.pick(names);
    }
    for _ in 0..rng.below(3) {
        edit(rng, ring, &mut raw, &world.known);
    }
    if !rng.one_in(12) {
        raw = raw.sorted();
    }
    let bad = crate::support::policy([9, 0, 0, 0, 0, 0]);
    let policy = match (policies.get(&raw.policy), rng.below(30)) {
        (_, 0) => {
            raw.policy = blake3(&bad);
            &bad
        }
        (Some(policy), _) => policy,
        (None, _) => &policies[&names[0]],
    };
    let bytes = raw.encode();
    let signatures = sign(rng, ring, &raw, Some(&parent), world.domain);
    let before = world.chain.head_key();
    let result = world.chain.extend(&candidate(&bytes, policy, &signatures));
    let key = Key(blake3(&bytes));
    if let Some(prev) = raw.prev
        && world.chain.node(&key).is_some()
        && !world.known.contains(&raw)
    {
        // In force, or kept as evidence: either way it was judged to follow.
        let parent = world
            .known
            .iter()
            .find(|known| blake3(&known.encode()) == prev);
        let parent = parent.unwrap_or_else(|| panic!("follows nothing: {raw:?}"));
        let needs_roots = policies
            .get(&parent.policy)
            .is_some_and(|policy| policy[12] == 1);
        let signed = signed(&raw, &signatures, world.domain, ring);
        assert!(
            may_follow(parent, &raw, &signed, needs_roots),
            "{parent:?}\n{raw:?}"
        );
        world.known.push(raw);
    }
    match result {
        Ok(_) => {
            assert_eq!(world.chain.head_key(), key);
            tally.accepted();
        }
        Err(error) => {
            assert_eq!(
                world.chain.head_key(),
                before,
                "what is refused changes nothing"
            );
            tally.refused(&path(&error));
        }
    }
}
