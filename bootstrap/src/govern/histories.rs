//! Random histories of a store with an honest party, who uses this library, and a thief, who has the medium and copies of key
//! files and writes records as he likes.
//!
//! What is looked at is not how a chain judges (that is `tests/histories.rs`) but what becomes of the domain: no record of the
//! thief's changes who speaks for it, none changes anything once his keys were rotated away, and the phrase always takes it back.

use proptest::prelude::*;

use super::tests::*;
use super::*;
use crate::dam::{Reason, Revocation};
use crate::fixture::{publish, signer, writer};
use crate::policy::{Checkpoints, Policy};
use asl_store::vfs::fault::FaultVfs;

struct History {
    vfs: FaultVfs,
    phrase: Phrase,
    /// Key files that the thief has copied.
    stolen: Vec<KeyFile>,
    /// Whether he wrote anything since the last rotation.
    thief_wrote: bool,
    turn: u8,
}

impl History {
    fn seed(&mut self) -> u8 {
        self.turn += 1;
        self.turn + 100
    }

    fn keys(&self) -> KeyFile {
        keys_of(&self.vfs, &domain_of(&self.vfs).id())
    }

    fn update(&mut self, what: u8) {
        let domain = domain_of(&self.vfs);
        let mut how = Update::none(6);
        how.despite_rivals = true;
        match what % 3 {
            0 => how.label = Some(format!("label {}", self.turn)),
            1 => {
                how.policy = Some(Policy {
                    checkpoints: Checkpoints::ALL[usize::from(what / 3) % 3],
                    ..domain.chain.head().policy
                });
            }
            _ => {
                let role = [Role::Host, Role::Checkpoint][usize::from(what / 3) % 2];
                how.revoke = self
                    .keys()
                    .signers(role)
                    .map(|signer| Revocation {
                        key: signer.id(),
                        store: domain.store,
                        position: LogPosition(domain.tree.size()),
                        reason: Reason::Replaced,
                    })
                    .collect();
            }
        }
        let seed = self.seed();
        match update(&self.vfs, seed, &how) {
            Ok(_) | Err(Error::Govern(GovernError::Nothing)) => {}
            Err(error) => assert!(
                self.thief_wrote,
                "nobody is in the way of {how:?}: {error:?}"
            ),
        }
    }

    /// Rotates, or recovers without the key file; always from where the epoch began.
    fn rotate(&mut self, lost: bool) {
        let domain = domain_of(&self.vfs);
        let mut how = match lost {
            true => Rotation::recovery(7),
            false => Rotation::plain(7),
        };
        how.from = Some(domain.chain.epoch_key());
        how.despite_rivals = true;
        if lost {
            let path = key_file_path(&domain.id());
            self.vfs.write_file(&path, b"rubbish").unwrap();
        }
        let mut paper = None;
        let before = copy(&self.phrase);
        let seed = self.seed();
        rotate(&self.vfs, seed, Some(&before), &mut paper, &how)
            .unwrap_or_else(|error| panic!("the phrase does not do: {error:?}"));
        self.phrase = paper.expect("a rotation gives a phrase");
        self.thief_wrote = false;
    }

    /// A signer that the thief holds and the manifest in force obeys.
    fn obeyed(&self) -> bool {
        let domain = domain_of(&self.vfs);
        let head = &domain.chain.head().dam;
        let mut held = self.stolen.iter().flat_map(|keys| keys.keys());
        held.any(|key| head.is_root(&key.signer().id()) && !head.revokes(&key.signer().id()))
    }

    fn attack(&mut self, how: u8, detail: u8) {
        let before = domain_of(&self.vfs);
        let obeyed = self.obeyed();
        let chain = &before.chain;
        let thief = signer(200);
        let head = chain.head_key();
        let path: Vec<Key> = chain.path().map(|node| node.key).collect();
        let some = path[usize::from(detail) % path.len()];
        let epochs = chain.head().dam.rotation + 1;
        let era = chain.epoch(u64::from(detail) % epochs).unwrap();
        // What a chain refuses to draft, he drafts on one that ends there.
        let ends_with = |key: Key| {
            let mut old = None;
            let mut records: Vec<_> = before
                .manifests
                .iter()
                .map(|(key, at)| (*at, *key))
                .collect();
            records.sort();
            let store = crate::fixture::reader(&self.vfs);
            for (_, step) in records {
                let node = chain.node(&step).unwrap();
                let dam = store.get_part(&step).unwrap();
                let mut draft = Draft::stored(dam, node.policy.encode(), Vec::new()).unwrap();
                draft.signatures = signatures_of(&store, &before, &step);
                match &mut old {
                    None => old = Some(draft.found().unwrap()),
                    Some(chain) => drop(draft.continue_chain(chain)),
                }
                if step == key {
                    break;
                }
            }
            old.unwrap()
        };
        let stolen: Vec<&Signer> = (self.stolen.iter().flat_map(KeyFile::keys))
            .map(|entry| entry.signer())
            .collect();
        let roots: Vec<_> = (self.stolen.iter())
            .flat_map(|keys| keys.signers(Role::Root))
            .map(Signer::public)
            .collect();
        let draft = match how % 7 {
            0 => Draft::update(chain, [detail; 32], 6, |dam, _| dam.label = "thief".into()),
            1 => Draft::rotation(chain, head, [detail; 32], 6, |dam, _| {
                dam.roots = vec![thief.public()];
                dam.next = vec![signer(201).public().next_digest()];
            }),
            2 => Draft::update(chain, [detail; 32], 6, |dam, _| {
                let all: Vec<_> = dam.principals.iter().map(|p| p.key.id()).collect();
                let root = dam.roots[0].id();
                for key in all.into_iter().chain([root]) {
                    dam.revoke(Revocation {
                        key,
                        store: before.store,
                        position: LogPosition(0),
                        reason: Reason::Compromised,
                    });
                }
            }),
            // Another rotation of an epoch, with the root that it committed to, if he has it.
            3 => Draft::rotation(&ends_with(era), era, [detail; 32], 6, |dam, _| {
                dam.roots.extend(&roots);
                dam.roots.push(thief.public());
                dam.roots.sort();
                dam.roots.dedup();
                dam.next = vec![signer(detail).public().next_digest()];
            }),
            // A second update of something older.
            4 => Draft::update(&ends_with(some), [detail; 32], 6, |dam, _| {
                dam.label = format!("fork {detail}");
            }),
            // Who speaks, by an update.
            5 => Draft::update(chain, [detail; 32], 6, |dam, _| {
                dam.roots.push(thief.public());
                dam.next = vec![signer(201).public().next_digest()];
            }),
            _ => {
                // Says again what was said.
                let store = crate::fixture::reader(&self.vfs);
                let dam = store.get_part(&some).unwrap();
                let policy = chain.node(&some).unwrap().policy.encode();
                Draft::stored(dam, policy, signatures_of(&store, &before, &some))
            }
        };
        if how % 5 == 4 {
            let planted = Draft::update(chain, [9; 32], 6, |dam, _| dam.label = "planted".into());
            pending::keep(&self.vfs, &planted.unwrap(), &thief).unwrap();
        }
        let Ok(draft) = draft else { return };
        let thrice = [stolen.as_slice(), &[&thief], stolen.as_slice(), &[&thief]].concat();
        let draft = draft.signed(thrice);
        let seed = self.seed();
        let mut w = writer(&self.vfs, seed);
        publish(&mut w, &draft);
        w.finish().unwrap();
        self.thief_wrote = true;

        let after = domain_of(&self.vfs);
        let (was, is) = (&chain.head().dam, &after.chain.head().dam);
        assert_eq!(
            (was.rotation, &was.roots),
            (is.rotation, &is.roots),
            "attack {how}"
        );
        assert_eq!((&was.next, was.kind), (&is.next, is.kind), "attack {how}");
        let changed = after.chain.head_key() != head;
        assert!(obeyed || !changed, "attack {how} by somebody with no say");
        assert!(
            !changed || matches!(how % 7, 0 | 2 | 4),
            "attack {how} changed the domain"
        );
    }
}

/// The signature artifacts of the record that brought a manifest.
fn signatures_of(store: &asl_store::StoreHandle, domain: &Domain, key: &Key) -> Vec<Vec<u8>> {
    let at = domain.manifests[key];
    let mut keys = Vec::new();
    let each = &mut |record: &asl_store::log::Record, _: &[u8]| {
        if record.position == at {
            keys = asl_store::AuthorityRecord::of_record(record).unwrap().keys;
        }
        Ok(())
    };
    store.records(at, each).unwrap();
    keys[1..]
        .iter()
        .map(|key| store.get_part(key).unwrap())
        .collect()
}

fn cases() -> u32 {
    match std::env::var_os("ASL_TEST_ALL") {
        Some(_) => 400,
        None => 30,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn the_phrase_takes_the_domain_back_from_whoever_has_the_medium(
        steps in prop::collection::vec(any::<(u8, u8, u8)>(), 1..12),
    ) {
        let (vfs, _, phrase) = minted_once();
        let mut history = History { vfs, phrase, stolen: Vec::new(), thief_wrote: false, turn: 0 };
        for (what, a, b) in steps {
            match what % 10 {
                0..=2 => history.update(a),
                3 => history.rotate(a % 2 == 0),
                4 | 5 => history.stolen.push(history.keys()),
                _ => history.attack(a, b),
            }
        }
        history.rotate(true);
        let domain = domain_of(&history.vfs);
        let dam = domain.chain.head().dam.clone();
        let ours = history.keys();
        prop_assert_eq!(dam.principals.len(), 2);
        for key in dam.roots.iter().chain(dam.principals.iter().map(|p| &p.key)) {
            prop_assert!(ours.signer(&key.id()).is_some());
            prop_assert!(history.stolen.iter().all(|keys| keys.signer(&key.id()).is_none()));
        }
        for how in 0..7 {
            history.attack(how, 3);
        }
        prop_assert_eq!(domain_of(&history.vfs).chain.head_key(), domain.chain.head_key());
        let mut last = Update::none(9);
        last.label = Some("ours".into());
        last.despite_rivals = true;
        let governed = update(&history.vfs, 250, &last);
        prop_assert!(governed.is_ok(), "{:?}", governed.err());
        let domain = domain_of(&history.vfs);
        prop_assert_eq!(domain.chain.head().dam.label.as_str(), "ours");
    }
}
