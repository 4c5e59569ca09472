//! Random histories of a source and a target, promoted at random moments: the target shows what it had and what the source showed
//! whenever it was promoted, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use asl_store::{Key, SessionId, format};
use proptest::prelude::*;

use crate::world::*;

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
