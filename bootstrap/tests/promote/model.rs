//! Random histories of a source and a target, promoted at random moments: the target shows what it had and what the source showed
//! whenever it was promoted, and nothing else. So too where the source is written in two places that meet now and then.

use std::collections::{BTreeMap, BTreeSet};

use asl_bootstrap::carry::carry;
use asl_store::{Key, SessionId, format};
use proptest::prelude::*;

use crate::several::{at, meet};
use crate::world::*;

const PLACES: [&str; 2] = ["stick", "disk"];

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Remove(u8),
    Capture(u8, u8),
    Commit,
    Promote,
    /// Something of the target's own.
    Ours(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..16u8;
    prop_oneof![
        4 => number.clone().prop_map(Step::Put),
        3 => number.clone().prop_map(Step::Remove),
        2 => (0..4u8, number.clone()).prop_map(|(id, of)| Step::Capture(id, of)),
        1 => Just(Step::Commit),
        3 => Just(Step::Promote),
        1 => number.prop_map(Step::Ours),
    ]
}

fn bytes(n: u8) -> Vec<u8> {
    noise(5000 + u64::from(n), 700)
}

/// The artifacts of the histories that a store shows.
fn shown(vfs: &asl_store::vfs::fault::FaultVfs) -> BTreeSet<u8> {
    let contents = contents(vfs);
    let here = |n: &u8| contents.contains_key(&Key::of(&bytes(*n)));
    (0..16).filter(here).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("ASL_TEST_ALL").is_some() { 600 } else { 24 }, ..ProptestConfig::default() })]

    #[test]
    fn the_target_shows_the_union(steps in prop::collection::vec(step(), 1..25)) {
        let (child, home) = (founded(RESCUE), founded(HOME));
        let mut union: BTreeSet<u8> = BTreeSet::new();
        let mut there: BTreeSet<u8> = BTreeSet::new();
        let mut taken: BTreeMap<SessionId, Key> = BTreeMap::new();
        let mut ended: BTreeMap<SessionId, Key> = BTreeMap::new();
        for (at, step) in steps.iter().chain([&Step::Promote]).enumerate() {
            let seed = 150 + at as u8;
            match step {
                Step::Put(n) => {
                    let mut w = writer(&child, seed);
                    put(&mut w, &bytes(*n), format::FLAG_ROOT);
                    w.finish().unwrap();
                    there.insert(*n);
                }
                Step::Remove(n) => {
                    let mut w = writer(&child, seed);
                    w.tombstone(&[Key::of(&bytes(*n))]).unwrap();
                    w.finish().unwrap();
                    there.remove(n);
                }
                Step::Capture(id, of) => {
                    let mut w = writer(&child, seed);
                    let parts = [bytes(*of), bytes((*of + 1) % 16), noise(9000 + at as u64, 500)];
                    let (session, root) = capture(&mut w, 60 + id, &parts);
                    w.finish().unwrap();
                    ended.insert(session, root);
                    there.extend([*of, (*of + 1) % 16]);
                }
                Step::Commit => {
                    let mut w = writer(&child, seed);
                    attest(&mut w, RESCUE);
                    w.finish().unwrap();
                }
                Step::Promote => {
                    promote(&child, &home, &PLAIN).unwrap();
                    union.extend(&there);
                    taken.extend(ended.clone());
                }
                Step::Ours(n) => {
                    let mut w = writer(&home, seed);
                    put(&mut w, &bytes(*n), format::FLAG_ROOT);
                    w.finish().unwrap();
                    union.insert(*n);
                }
            }
            prop_assert_eq!(shown(&child), there.clone());
            prop_assert_eq!(shown(&home), union.clone(), "after step {}", at);
        }
        prop_assert_eq!(captures(&home), taken);
        verified(&home);
    }
}

#[derive(Debug, Clone)]
enum Act {
    Put(u8),
    Remove(u8),
    Capture(u8),
    /// What the other place has comes here.
    Meet,
    /// Both meet, and this one's directory is promoted.
    Promote,
}

fn act() -> impl Strategy<Value = (usize, Act)> {
    let number = 0..8u8;
    let act = prop_oneof![
        4 => number.clone().prop_map(Act::Put),
        4 => number.clone().prop_map(Act::Remove),
        1 => number.prop_map(Act::Capture),
        2 => Just(Act::Meet),
        2 => Just(Act::Promote),
    ];
    (0..2usize, act)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("ASL_TEST_ALL").is_some() { 600 } else { 24 }, ..ProptestConfig::default() })]

    #[test]
    fn the_target_shows_what_two_places_show(acts in prop::collection::vec(act(), 1..25)) {
        let home = founded(HOME);
        let first = founded(RESCUE);
        at(&first, 120, PLACES[0]).finish().unwrap();
        let places = [first.fork(), first];
        let mut union: BTreeSet<u8> = BTreeSet::new();
        for (step, (place, act)) in acts.iter().chain([&(0, Act::Promote)]).enumerate() {
            let (here, name) = (&places[*place], PLACES[*place]);
            let write = |change: &mut dyn FnMut(&mut asl_store::StoreWriter)| {
                let mut w = at(here, 130 + step as u8, name);
                carry(&mut w).unwrap();
                change(&mut w);
                w.finish().unwrap();
            };
            match act {
                Act::Put(n) => write(&mut |w| {
                    put(w, &bytes(*n), format::FLAG_ROOT);
                }),
                Act::Remove(n) => write(&mut |w| {
                    w.tombstone(&[Key::of(&bytes(*n))]).unwrap();
                }),
                Act::Capture(n) => write(&mut |w| {
                    let parts = [bytes(*n), noise(9000 + step as u64, 500)];
                    capture(w, 60 + step as u8, &parts);
                }),
                Act::Meet => meet(here, &places[1 - *place], name),
                Act::Promote => {
                    meet(here, &places[1 - *place], name);
                    meet(&places[1 - *place], here, PLACES[1 - *place]);
                    promote(here, &home, &PLAIN).unwrap();
                    union.extend(shown(here));
                    prop_assert_eq!(shown(&home), union.clone(), "after step {}", step);
                    prop_assert!(plan(&places[1 - *place], &home, &PLAIN).unwrap().is_done());
                }
            }
        }
        let ended = finished_of_each(&source(&places[0]).unwrap());
        let ended: BTreeMap<SessionId, Key> =
            ended.into_iter().flatten().map(|done| (done.session, done.root)).collect();
        prop_assert_eq!(captures(&home), ended);
        verified(&home);
    }
}
