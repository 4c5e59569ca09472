//! Random histories of one domain, with an honest party and an attacker who holds keys of it: roots, host, checkpoint and witness
//! keys, and the phrase only where a history says so.
//!
//! The rules are written here a second time ([`Oracle`]), over the manifests of `support` and over who truly signed what
//! instead of over signatures. A chain must accept exactly what the oracle allows, and end with the oracle's head. After every history the
//! honest party takes the domain back with the phrase, unless that was stolen; and the same records in another order are judged as the oracle
//! judges them in that order.

#[path = "support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use asl_bootstrap::chain::{Candidate, Chain};
use asl_bootstrap::pin::{Compared, Pin};
use proptest::prelude::*;
use support::{COSIGN_POLICY, DAM, RECEIPT, Raw, artifact, blake3, domain_of, pair};

type Id = [u8; 32];

/// A signature and what is true of it.
#[derive(Clone, Debug)]
struct Sig {
    by: String,
    claims: Id,
    context: u8,
    domain: Id,
    over: Vec<u8>,
    names: Id,
}

impl Sig {
    fn honest(by: &str, context: u8, domain: Id, over: &[u8]) -> Self {
        Self {
            by: by.to_owned(),
            claims: pair(by).id(),
            context,
            domain,
            over: over.to_vec(),
            names: blake3(over),
        }
    }

    fn artifact(&self) -> Vec<u8> {
        let context = support::CONTEXTS[usize::from(self.context) - 1];
        let signature = pair(&self.by).signature(context, self.domain, &self.over);
        artifact(self.context, self.names, self.claims, 1, &signature)
    }
}

/// What is offered to the chain.
#[derive(Clone, Debug)]
struct Offer {
    bytes: Vec<u8>,
    /// What the bytes say, if they are the one encoding of it.
    raw: Option<Raw>,
    rules: [u8; 6],
    sigs: Vec<Sig>,
}

#[derive(Clone)]
struct Known {
    raw: Raw,
    rules: [u8; 6],
}

/// The rules, once more.
struct Oracle {
    domain: Id,
    known: BTreeMap<Id, Known>,
    head: Id,
}

fn distinct<T: Ord>(items: impl IntoIterator<Item = T>) -> Option<BTreeSet<T>> {
    let mut set = BTreeSet::new();
    items
        .into_iter()
        .all(|item| set.insert(item))
        .then_some(set)
}

/// A manifest that is fine by itself; only what the histories make is looked at.
fn sound(raw: &Raw) -> Option<()> {
    let holds = |yes: bool| yes.then_some(());
    holds(raw.critical == 0 && *raw == raw.clone().sorted())?;
    let roots = distinct(raw.roots.iter().map(support::id))?;
    let principals = distinct(raw.principals.iter().map(|(key, _)| support::id(key)))?;
    let members = distinct(raw.members.iter().map(|(key, _)| support::id(key)))?;
    let next = distinct(raw.next.iter().copied())?;
    let revoked: BTreeSet<Id> = raw.revoked.iter().map(|r| r.0).collect();
    distinct(raw.revoked.iter().map(|r| (r.0, r.1)))?;
    let within = |threshold: u8, of: usize| (1..=of).contains(&usize::from(threshold));
    holds(within(raw.root_threshold, roots.len()) && within(raw.next_threshold, next.len()))?;
    holds(match (raw.kind, raw.witness_mode) {
        (0, 0) => raw.root_threshold == 1 && raw.next_threshold == 1,
        (1, 0 | 1) | (2, 2) => true,
        _ => false,
    })?;
    holds(match raw.witness_mode {
        0 => members.is_empty() && raw.witness_threshold == 0,
        1 => members.len() == 1 && raw.witness_threshold == 1,
        _ => within(raw.witness_threshold, members.len()),
    })?;
    holds(
        (raw.principals.iter())
            .all(|(key, role)| role & 2 == 0 || *role == 2 && !roots.contains(&support::id(key))),
    )?;
    holds(members.is_disjoint(&roots) && members.is_disjoint(&principals))?;
    holds(revoked.is_disjoint(&principals) && revoked.is_disjoint(&members))?;
    let open = (raw.roots.iter())
        .chain(raw.principals.iter().map(|(key, _)| key))
        .chain(raw.members.iter().map(|(key, _)| key));
    holds(!open.map(support::next).any(|digest| next.contains(&digest)))
}

impl Oracle {
    /// The rotation, or genesis, at or before a manifest.
    fn epoch(&self, mut at: Id) -> Id {
        loop {
            let here = &self.known[&at].raw;
            match here.prev {
                Some(prev) if self.known[&prev].raw.rotation == here.rotation => at = prev,
                _ => return at,
            }
        }
    }

    fn lineage(&self, mut at: Id) -> Vec<&Raw> {
        let mut line = Vec::new();
        loop {
            let here = &self.known[&at].raw;
            line.push(here);
            match here.prev {
                Some(prev) => at = prev,
                None => return line,
            }
        }
    }

    /// Who truly signed these bytes for this domain.
    fn signed(&self, offer: &Offer, context: u8) -> BTreeSet<Id> {
        (offer.sigs.iter())
            .filter(|s| s.context == context && s.domain == self.domain)
            .filter(|s| s.over == offer.bytes && s.names == blake3(&offer.bytes))
            .filter(|s| s.claims == pair(&s.by).id())
            .map(|s| s.claims)
            .collect()
    }

    /// Whether it may follow what it names.
    fn follows(&self, offer: &Offer) -> Option<()> {
        let holds = |yes: bool| yes.then_some(());
        let raw = offer.raw.as_ref()?;
        sound(raw)?;
        holds(raw.policy == blake3(&support::policy(offer.rules)))?;
        holds(
            offer
                .rules
                .iter()
                .zip([2, 2, 2, 1, 1, 1])
                .all(|(value, most)| *value <= most),
        )?;
        holds(offer.rules[3] == 0 || raw.witness_mode != 0)?;
        holds(raw.domain == Some(self.domain) && !self.known.contains_key(&blake3(&offer.bytes)))?;
        let before = self.known.get(&raw.prev?)?;
        let (was, rules) = (&before.raw, before.rules);
        holds(raw.version == was.version + 1 && raw.kind == was.kind)?;
        holds(was.revoked.iter().all(|old| {
            (raw.revoked.iter()).any(|new| (new.0, new.1) == (old.0, old.1) && new.2 <= old.2)
        }))?;

        let signed = self.signed(offer, DAM);
        let banned: BTreeSet<Id> = was.revoked.iter().map(|r| r.0).collect();
        let count = |keys: BTreeSet<Id>| {
            keys.iter()
                .filter(|k| signed.contains(*k) && !banned.contains(*k))
                .count()
        };
        let ids = |keys: &[support::RawKey]| keys.iter().map(support::id).collect::<BTreeSet<_>>();
        let listed: BTreeSet<Id> = was
            .principals
            .iter()
            .map(|(key, _)| support::id(key))
            .collect();
        holds((raw.principals.iter()).all(|(key, _)| {
            listed.contains(&support::id(key)) || signed.contains(&support::id(key))
        }))?;

        let old_roots = count(ids(&was.roots)) >= usize::from(was.root_threshold);
        if raw.rotation == was.rotation {
            let fixed = |r: &Raw| {
                let witness = (r.witness_mode, r.members.clone(), r.witness_threshold);
                let next = (r.next.clone(), r.next_threshold);
                (r.roots.clone(), r.root_threshold, next, witness)
            };
            holds(fixed(raw) == fixed(was) && old_roots)?;
            if raw.kind == 2 && raw.policy != was.policy {
                let cosigned = self.signed(offer, COSIGN_POLICY);
                let witnesses =
                    (was.members.iter()).filter(|(k, _)| cosigned.contains(&support::id(k)));
                holds(witnesses.count() >= usize::from(was.witness_threshold))?;
            }
            return Some(());
        }
        holds(raw.rotation == was.rotation + 1)?;
        let dead: BTreeSet<Id> = raw.revoked.iter().map(|r| r.0).collect();
        holds(dead.is_disjoint(&ids(&raw.roots)))?;
        let revealed = (raw.roots.iter()).filter(|key| was.next.contains(&support::next(key)));
        holds(count(revealed.map(support::id).collect()) >= usize::from(was.next_threshold))?;
        holds(count(ids(&raw.roots)) >= usize::from(raw.root_threshold))?;
        holds(raw.kind == 0 || rules[4] == 0 || old_roots)?;
        let line = self.lineage(raw.prev?);
        holds(raw.next.iter().all(|digest| {
            line.iter().all(|r| {
                !r.next.contains(digest) && !r.roots.iter().any(|key| support::next(key) == *digest)
            })
        }))
    }

    /// Whether it becomes the head. What may follow but does not is remembered.
    fn take(&mut self, offer: &Offer) -> bool {
        if self.follows(offer).is_none() {
            return false;
        }
        let raw = offer.raw.clone().expect("it follows");
        let (key, prev) = (blake3(&offer.bytes), raw.prev.expect("it follows"));
        let rotates = raw.rotation != self.known[&prev].raw.rotation;
        let here = self.epoch(prev);
        // What goes on from a rotation that lost is not remembered at all.
        let mut at = Some(self.head);
        let mut epochs = BTreeSet::new();
        while let Some(step) = at {
            epochs.insert(self.epoch(step));
            at = self.known[&step].raw.prev;
        }
        if !epochs.contains(&here) {
            return false;
        }
        let rules = offer.rules;
        let leads = here == self.epoch(self.head) && (rotates || prev == self.head);
        self.known.insert(key, Known { raw, rules });
        if leads {
            self.head = key;
        }
        leads
    }
}

/// The history: what is known, who holds what.
struct History {
    oracle: Oracle,
    chain: Chain,
    /// Names of the keys that the attacker holds.
    stolen: Vec<String>,
    /// What was ever offered, for replays.
    offers: Vec<Offer>,
    drawn: u32,
}

const STORE: [u8; 16] = [3; 16];

/// The roots of an epoch; those of the next one are behind the phrases.
fn roots(kind: u8, rotation: u64) -> Vec<String> {
    let many = if kind == 0 { 1 } else { 3 };
    (0..many).map(|i| format!("root {rotation}.{i}")).collect()
}

fn keys(names: &[String]) -> Vec<support::RawKey> {
    names.iter().map(|name| pair(name).key()).collect()
}

fn commits(names: &[String]) -> Vec<Id> {
    names.iter().map(|name| pair(name).next()).collect()
}

impl History {
    fn begin(kind: u8, guarded: bool) -> Self {
        let threshold = if kind == 0 { 1 } else { 2 };
        let rules = [0, 1, 0, 0, u8::from(guarded), 0];
        let witnesses = [0, 1, 3][usize::from(kind)];
        let raw = Raw {
            critical: 0,
            kind,
            version: 0,
            rotation: 0,
            prev: None,
            domain: None,
            nonce: [kind; 32],
            roots: keys(&roots(kind, 0)),
            root_threshold: threshold,
            next: commits(&roots(kind, 1)),
            next_threshold: threshold,
            principals: vec![(pair("host 0").key(), 1), (pair("checkpoint 0").key(), 2)],
            witness_mode: kind,
            members: (0..witnesses)
                .map(|i| (pair(&format!("witness {i}")).key(), format!("w{i}")))
                .collect(),
            witness_threshold: [0, 1, 2][usize::from(kind)],
            policy: blake3(&support::policy(rules)),
            revoked: vec![],
            anchor: None,
            label: vec![],
            created_hint: 0,
        }
        .sorted();
        let bytes = raw.encode();
        let domain = domain_of(&bytes);
        let mut signers = roots(kind, 0);
        signers.extend(["host 0".to_owned(), "checkpoint 0".to_owned()]);
        let sigs = (signers.iter())
            .map(|by| Sig::honest(by, DAM, domain, &bytes))
            .collect();
        let offer = Offer {
            bytes,
            raw: Some(raw.clone()),
            rules,
            sigs,
        };
        let chain = with(&offer, Chain::genesis).expect("a good genesis");
        let head = blake3(&offer.bytes);
        Self {
            oracle: Oracle {
                domain,
                known: BTreeMap::from([(head, Known { raw, rules })]),
                head,
            },
            chain,
            stolen: vec!["mallory".into()],
            offers: vec![offer],
            drawn: 0,
        }
    }

    fn head(&self) -> &Known {
        &self.oracle.known[&self.oracle.head]
    }

    fn kind(&self) -> u8 {
        self.head().raw.kind
    }

    /// Something known, mostly the head.
    fn pick(&self, choice: u8) -> Known {
        if choice < 128 {
            return self.head().clone();
        }
        let known: Vec<&Known> = self.oracle.known.values().collect();
        known[usize::from(choice) % known.len()].clone()
    }

    fn successor(&mut self, before: &Known, edit: impl FnOnce(&mut Raw)) -> Raw {
        self.drawn += 1;
        let mut raw = before.raw.follow(self.oracle.domain);
        raw.nonce[..4].copy_from_slice(&self.drawn.to_le_bytes());
        edit(&mut raw);
        raw
    }

    fn offer(&mut self, raw: Raw, rules: [u8; 6], signers: &[String]) -> Offer {
        let bytes = raw.encode();
        let sigs = (signers.iter())
            .map(|by| Sig::honest(by, DAM, self.oracle.domain, &bytes))
            .collect();
        Offer {
            bytes,
            raw: Some(raw),
            rules,
            sigs,
        }
    }

    /// Offers it to both, which must agree.
    fn put(&mut self, what: &str, offer: Offer) -> bool {
        let pin = Pin::of(&self.chain);
        let allowed = self.oracle.take(&offer);
        let result = with(&offer, |candidate| self.chain.extend(candidate));
        assert_eq!(result.is_ok(), allowed, "{what}: {result:?}");
        assert_eq!(self.chain.head_key().0, self.oracle.head, "{what}");
        let compared = pin.check(&self.chain);
        match (allowed, compared) {
            (false, Compared::Same)
            | (true, Compared::Ahead { versions: 1 } | Compared::Superseded { .. }) => {}
            other => panic!("{what}: the pin says {other:?}"),
        }
        self.offers.push(offer);
        allowed
    }

    fn honest_update(&mut self, change: u8) {
        let before = self.head().clone();
        let mut rules = before.rules;
        let mut signers = roots(self.kind(), before.raw.rotation);
        if change % 4 == 1 {
            rules[1] = change % 3;
        }
        let host = format!("host {}", change % 5);
        let raw = self.successor(&before, |raw| match change % 4 {
            0 => raw.label = vec![b'a' + change % 26],
            2 => {
                raw.principals.push((pair(&host).key(), 1));
                signers.push(host);
            }
            3 => {
                raw.principals.retain(|(key, _)| *key != pair(&host).key());
                raw.revoked
                    .push((pair(&host).id(), STORE, change.into(), 1));
            }
            _ => {}
        });
        let raw = Raw {
            policy: blake3(&support::policy(rules)),
            ..raw
        };
        let mut offer = self.offer(raw.sorted(), rules, &signers);
        for i in 0..3 {
            let witness = format!("witness {i}");
            offer.sigs.push(Sig::honest(
                &witness,
                COSIGN_POLICY,
                self.oracle.domain,
                &offer.bytes,
            ));
        }
        self.put("an honest update", offer);
    }

    /// The honest party rotates with the phrase: from the head, or from where the epoch began.
    fn honest_rotation(&mut self, from_start: bool) -> bool {
        let start = self.oracle.epoch(self.oracle.head);
        let before = if from_start {
            self.oracle.known[&start].clone()
        } else {
            self.head().clone()
        };
        let (kind, turn) = (self.kind(), before.raw.rotation + 1);
        let raw = self.successor(&before, |raw| {
            raw.rotation = turn;
            raw.roots = keys(&roots(kind, turn));
            raw.next = commits(&roots(kind, turn + 1));
        });
        let signers = [roots(kind, turn), roots(kind, turn - 1)].concat();
        let offer = self.offer(raw.sorted(), before.rules, &signers);
        self.put("an honest rotation", offer)
    }

    /// The honest party recovers with the phrase on another machine: new principals, and the old ones revoked.
    fn honest_recovery(&mut self) -> bool {
        let start = self.oracle.epoch(self.oracle.head);
        let before = self.oracle.known[&start].clone();
        let (kind, turn) = (self.kind(), before.raw.rotation + 1);
        let fresh = [format!("host of {turn}"), format!("checkpoint of {turn}")];
        let raw = self.successor(&before, |raw| {
            raw.rotation = turn;
            raw.roots = keys(&roots(kind, turn));
            raw.next = commits(&roots(kind, turn + 1));
            let old = std::mem::take(&mut raw.principals);
            for (key, _) in old {
                raw.revoked.push((support::id(&key), STORE, 5, 1));
            }
            raw.principals = vec![(pair(&fresh[0]).key(), 1), (pair(&fresh[1]).key(), 2)];
        });
        let signers = [roots(kind, turn), roots(kind, turn - 1), fresh.to_vec()].concat();
        let offer = self.offer(raw.sorted(), before.rules, &signers);
        self.put("an honest recovery", offer)
    }

    /// The honest party revokes what the head lists, and lists another host.
    fn honest_revocation(&mut self, position: u8) {
        let before = self.head().clone();
        let mut signers = roots(self.kind(), before.raw.rotation);
        let host = format!("host after {}", self.drawn);
        let Some((old, _)) = before.raw.principals.first().copied() else {
            return;
        };
        let raw = self.successor(&before, |raw| {
            raw.principals.retain(|(key, _)| *key != old);
            raw.principals.push((pair(&host).key(), 1));
            raw.revoked
                .push((support::id(&old), STORE, position.into(), 1));
        });
        signers.push(host);
        let offer = self.offer(raw.sorted(), before.rules, &signers);
        self.put("an honest revocation", offer);
    }

    /// A key of the domain; a phrase only where it may be one.
    fn steal(&mut self, choice: u8, leaks: bool) {
        let turn = self.head().raw.rotation;
        let all = roots(self.kind(), turn + u64::from(leaks && choice >= 128));
        let name = match choice % 6 {
            0 => "host 0".to_owned(),
            1 => "witness 0".to_owned(),
            2 => "checkpoint 0".to_owned(),
            _ => all[usize::from(choice) / 6 % all.len()].clone(),
        };
        self.stolen.push(name);
    }

    /// The same records in another order, before somebody who sees only those.
    fn reordered(&self, mut seed: u64) -> Self {
        let first = &self.offers[0];
        let guarded = first.rules[4] != 0;
        let mut other = Self::begin(self.kind(), guarded);
        let mut rest: Vec<&Offer> = self.offers[1..].iter().collect();
        while !rest.is_empty() {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let next = rest.swap_remove((seed >> 33) as usize % rest.len());
            other.put("a record in another order", next.clone());
        }
        other
    }

    /// One attempt, signed with everything that the attacker holds.
    fn attack(&mut self, how: u8, choice: u8, detail: u8) {
        let before = self.pick(choice);
        let (kind, now) = (self.kind(), before.raw.rotation);
        let stolen = self.stolen.clone();
        let mallory = pair("mallory");
        let mut rules = before.rules;
        if how % 20 == 4 {
            rules[usize::from(detail) % 6] ^= 1;
        }
        let mut raw = self.successor(&before, |raw| match how % 20 {
            // Takes the roots over: as a rotation, as an update, adding to the revealed ones.
            0 => {
                raw.rotation += 1;
                raw.roots = vec![mallory.key()];
                raw.root_threshold = 1;
                raw.next = vec![pair("mallory's next").next()];
                raw.next_threshold = 1;
            }
            1 => raw.roots.push(mallory.key()),
            2 => {
                raw.rotation += 1;
                raw.roots = keys(&stolen);
                raw.root_threshold = 1;
                raw.next = vec![pair(&format!("mallory's {detail}")).next()];
                raw.next_threshold = 1;
            }
            // With the keys of this epoch, which the one before committed to, if `before` is old enough.
            3 => {
                raw.rotation += 1;
                raw.roots = keys(&roots(kind, now + 1));
                raw.next = commits(&roots(9, now + 20));
            }
            5 => raw.next[0] = mallory.next(),
            6 => raw.next_threshold = raw.next_threshold.wrapping_add(detail % 3).wrapping_sub(1),
            7 => {
                raw.witness_mode = 0;
                raw.members.clear();
                raw.witness_threshold = 0;
            }
            8 => raw.witness_threshold = raw.witness_threshold.saturating_sub(detail % 3),
            9 => raw.root_threshold = 1,
            10 => raw.kind = detail % 3,
            11 => {
                raw.version = raw
                    .version
                    .wrapping_add(u64::from(detail % 3))
                    .wrapping_sub(1)
            }
            12 => raw.rotation = raw.rotation.wrapping_add(u64::from(detail % 4)),
            13 => raw.domain = Some([detail; 32]),
            14 => drop(raw.revoked.pop()),
            // Bans the next roots, the current ones, a witness.
            15 => {
                let name = match detail % 3 {
                    0 => roots(kind, now + 1)[0].clone(),
                    1 => roots(kind, now)[0].clone(),
                    _ => "witness 0".to_owned(),
                };
                raw.revoked.push((pair(&name).id(), STORE, 0, 1));
            }
            16 => raw.prev = Some(blake3(&[detail])),
            17 => raw.principals.push((mallory.key(), 1)),
            _ => raw.label = vec![b'm'],
        });
        raw.policy = blake3(&support::policy(rules));
        let mut offer = self.offer(raw.sorted(), rules, &stolen);
        match detail % 12 {
            // Stuffs: the same key again, and in other words.
            0 => {
                offer.sigs = offer
                    .sigs
                    .iter()
                    .flat_map(|s| [s.clone(), s.clone(), s.clone()])
                    .collect()
            }
            // Claims to be a root.
            1 => {
                let root = pair(&roots(kind, now)[0]).id();
                let forged = offer.sigs[0].clone();
                offer.sigs.push(Sig {
                    claims: root,
                    ..forged
                });
            }
            // Moves signatures that the honest party gave for something else.
            2 => {
                let names = blake3(&offer.bytes);
                for earlier in &self.offers {
                    let moved = earlier.sigs.iter().map(|s| Sig { names, ..s.clone() });
                    offer.sigs.extend(moved);
                }
                offer.sigs.truncate(200);
            }
            3 => offer.sigs.iter_mut().for_each(|s| s.domain = [1; 32]),
            4 => offer.sigs.iter_mut().for_each(|s| s.context = RECEIPT),
            5 => offer
                .sigs
                .iter_mut()
                .for_each(|s| s.context = COSIGN_POLICY),
            // Another form of the same manifest, signed as such.
            6 => self.reform(&mut offer, |bytes| bytes.push(0)),
            7 => self.reform(&mut offer, |bytes| drop(bytes.splice(8..9, [0x80, 0]))),
            8 => self.reform(&mut offer, |bytes| bytes.truncate(bytes.len() - 1)),
            // Another policy than named.
            9 => offer.rules[0] = (offer.rules[0] + 1) % 3,
            _ => {}
        }
        self.put("an attack", offer);
    }

    fn reform(&self, offer: &mut Offer, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut offer.bytes);
        offer.raw = None;
        for sig in &mut offer.sigs {
            *sig = Sig::honest(&sig.by, DAM, self.oracle.domain, &offer.bytes);
        }
    }
}

fn with<T>(offer: &Offer, take: impl FnOnce(&Candidate<'_>) -> T) -> T {
    let signatures: Vec<Vec<u8>> = offer.sigs.iter().map(Sig::artifact).collect();
    take(&Candidate {
        dam: &offer.bytes,
        policy: &support::policy(offer.rules),
        signatures: signatures.iter().map(Vec::as_slice).collect(),
    })
}

fn cases() -> u32 {
    match std::env::var_os("ASL_TEST_ALL") {
        Some(_) => 6000,
        None => 256,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_and_the_phrase_recovers(
        kind in 0u8..3,
        guarded: bool,
        leaks in prop::bool::weighted(0.2),
        order: u64,
        steps in prop::collection::vec(any::<(u8, u8, u8, u8)>(), 1..24),
    ) {
        let mut history = History::begin(kind, guarded);
        for (what, a, b, c) in steps {
            match what % 16 {
                0..=2 => history.honest_update(a),
                3 => match a % 3 {
                    0 => drop(history.honest_recovery()),
                    1 => history.honest_revocation(b),
                    _ => drop(history.honest_rotation(a < 128)),
                },
                4..=6 => history.steal(a, leaks),
                7 => {
                    let again = history.offers[usize::from(a) % history.offers.len()].clone();
                    history.put("a replay", again);
                }
                _ => history.attack(a, b, c),
            }
        }
        history.reordered(order);
        if leaks {
            return Ok(());
        }
        let back = match order % 2 {
            0 => history.honest_rotation(true),
            _ => history.honest_recovery(),
        };
        prop_assert!(back, "the phrase did not recover the domain");
        let before = history.oracle.head;
        history.honest_update(0);
        prop_assert_ne!(before, history.oracle.head, "the new root does not speak");
        let rotation = history.head().raw.rotation;
        let current = roots(kind, rotation);
        prop_assert!(!history.stolen.iter().any(|name| current.contains(name)));
        for how in 0..20 {
            let detail = 11;
            let before = history.oracle.head;
            history.attack(how, 0, detail);
            prop_assert_eq!(before, history.oracle.head, "the attacker still speaks");
        }
    }
}
