//! The map against a vector with one state per byte.

use proptest::prelude::*;

use super::*;

const SIZE: u64 = 96;

fn state() -> impl Strategy<Value = RangeState> {
    prop_oneof![
        Just(RangeState::Untried),
        Just(RangeState::Copied),
        Just(RangeState::Untrimmed),
        Just(RangeState::Unscraped),
        (prop_oneof![Just(5), Just(61)], 1u32..3)
            .prop_map(|(errno, attempts)| RangeState::Unreadable { errno, attempts }),
    ]
}

#[derive(Debug, Clone)]
enum Change {
    Set(Range<u64>, RangeState),
    SetUncopied(Range<u64>, RangeState),
    Fold(Range<u64>, Outcome),
}

fn range() -> impl Strategy<Value = Range<u64>> {
    // Some are empty, some reach beyond the end.
    (0..SIZE + 4, 0u64..24).prop_map(|(start, len)| start..start + len)
}

fn change() -> impl Strategy<Value = Change> {
    let outcome = prop_oneof![
        Just(Outcome::Good),
        Just(Outcome::Bad { errno: 61 }),
        Just(Outcome::Bad { errno: 5 }),
    ];
    prop_oneof![
        4 => (range(), state()).prop_map(|(range, state)| Change::Set(range, state)),
        1 => (range(), state()).prop_map(|(range, state)| Change::SetUncopied(range, state)),
        2 => (0..SIZE, 1u64..12, outcome)
            .prop_map(|(start, len, outcome)| Change::Fold(start..start + len, outcome)),
    ]
}

const SECTOR: u32 = 4;

fn apply(map: &mut RescueMap, oracle: &mut [RangeState], change: &Change) {
    let size = oracle.len() as u64;
    let bytes = |range: &Range<u64>| range.start.min(size) as usize..range.end.min(size) as usize;
    match change {
        Change::Set(range, state) => {
            map.set(range.clone(), *state);
            oracle[bytes(range)].fill(*state);
        }
        Change::SetUncopied(range, state) => {
            map.set_uncopied(range.clone(), *state);
            for byte in &mut oracle[bytes(range)] {
                if *byte != RangeState::Copied {
                    *byte = *state;
                }
            }
        }
        Change::Fold(range, outcome) => {
            map.fold_read(range.clone(), *outcome, SECTOR);
            let bytes = &mut oracle[bytes(range)];
            match *outcome {
                Outcome::Good => bytes.fill(RangeState::Copied),
                Outcome::Bad { errno } if bytes.len() <= SECTOR as usize => {
                    let attempts = 1 + bytes
                        .iter()
                        .map(|byte| match byte {
                            RangeState::Unreadable { attempts, .. } => *attempts,
                            _ => 0,
                        })
                        .max()
                        .unwrap_or(0);
                    for byte in bytes {
                        if *byte != RangeState::Copied {
                            *byte = RangeState::Unreadable { errno, attempts };
                        }
                    }
                }
                Outcome::Bad { .. } => {
                    for byte in bytes {
                        if *byte == RangeState::Untried {
                            *byte = RangeState::Untrimmed;
                        }
                    }
                }
            }
        }
    }
}

fn oracle_runs(oracle: &[RangeState]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (offset, &state) in (0u64..).zip(oracle) {
        match runs.last_mut() {
            Some(run) if run.state == state => run.len += 1,
            _ => runs.push(Run {
                start: offset,
                len: 1,
                state,
            }),
        }
    }
    runs
}

fn check(map: &RescueMap, oracle: &[RangeState]) {
    let expected = oracle_runs(oracle);
    assert_eq!(map.runs().collect::<Vec<_>>(), expected);
    assert_eq!(map.run_count(), expected.len());
    let of = |kind| move |run: &&Run| run.state.kind() == kind;
    for kind in StateKind::ALL {
        let runs: Vec<Run> = expected.iter().filter(of(kind)).copied().collect();
        assert_eq!(map.runs_of(kind).collect::<Vec<_>>(), runs);
        assert_eq!(map.bytes_of(kind), runs.iter().map(|r| r.len).sum::<u64>());
        for at in 0..=SIZE + 2 {
            let next = runs.iter().find(|run| run.end() > at).copied();
            assert_eq!(map.next_run(kind, at), next, "next {kind:?} from {at}");
            let prev = runs.iter().rfind(|run| run.start < at).copied();
            assert_eq!(map.prev_run(kind, at), prev, "prev {kind:?} before {at}");
        }
    }
    for (offset, &state) in (0u64..).zip(oracle) {
        assert_eq!(map.state_at(offset), Some(state));
    }
    assert_eq!(map.state_at(map.size()), None);

    let bad = |state: &RangeState| state.kind() == StateKind::Unreadable;
    let mut areas = 0;
    let mut unreadable: Vec<UnreadableRun> = Vec::new();
    for (offset, state) in (0u64..).zip(oracle) {
        let before = (offset > 0).then(|| &oracle[offset as usize - 1]);
        areas += u64::from(bad(state) && !before.is_some_and(bad));
        if let RangeState::Unreadable { errno, .. } = *state {
            match unreadable.last_mut() {
                Some(run) if run.errno == errno && run.start + run.len == offset => run.len += 1,
                _ => unreadable.push(UnreadableRun {
                    start: offset,
                    len: 1,
                    errno,
                }),
            }
        }
    }
    assert_eq!(map.error_areas(), areas);
    assert_eq!(map.unreadable_runs().collect::<Vec<_>>(), unreadable);
    let settled = |state: &RangeState| bad(state) || *state == RangeState::Copied;
    assert_eq!(map.is_finished(), oracle.iter().all(settled));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn behaves_like_one_state_per_byte(changes in prop::collection::vec(change(), 1..60)) {
        let mut map = RescueMap::new(SIZE);
        let mut oracle = vec![RangeState::Untried; SIZE as usize];
        for change in &changes {
            apply(&mut map, &mut oracle, change);
            check(&map, &oracle);
        }
    }

    #[test]
    fn resizing_keeps_everything_but_untried(
        changes in prop::collection::vec(change(), 0..6),
        size in 0..SIZE * 2,
    ) {
        let mut map = RescueMap::new(SIZE);
        let mut oracle = vec![RangeState::Untried; SIZE as usize];
        for change in &changes {
            apply(&mut map, &mut oracle, change);
        }
        let dropped = oracle.get(size as usize..).unwrap_or_default();
        let fits = dropped.iter().all(|state| *state == RangeState::Untried);
        oracle.resize(size as usize, RangeState::Untried);
        match map.resized(size) {
            Some(map) => {
                prop_assert!(fits);
                prop_assert_eq!(map.size(), size);
                check(&map, &oracle);
            }
            None => prop_assert!(!fits),
        }
    }

    #[test]
    fn domain_is_the_union_of_its_ranges(
        ranges in prop::collection::vec(range(), 0..12),
        sector in 1u64..9,
    ) {
        let domain = Domain::from_ranges(ranges.clone());
        let aligned = domain.aligned(sector, SIZE);
        for offset in 0..SIZE + 30 {
            let inside = ranges.iter().any(|range| range.contains(&offset));
            prop_assert_eq!(domain.contains(offset), inside);
            let cell = offset / sector * sector..(offset / sector + 1) * sector;
            // A range that lies wholly beyond the end selects nothing.
            let touched = ranges
                .iter()
                .any(|range| range.start.max(cell.start) < range.end.min(cell.end).min(SIZE));
            prop_assert_eq!(aligned.contains(offset), touched && offset < SIZE);
            let next = domain.ranges().iter().find(|range| range.end > offset).cloned();
            prop_assert_eq!(domain.next(offset), next);
            let prev = domain.ranges().iter().rfind(|range| range.start < offset).cloned();
            prop_assert_eq!(domain.prev(offset), prev);
        }
        for pair in domain.ranges().windows(2) {
            prop_assert!(pair[0].end < pair[1].start);
        }
        prop_assert_eq!(
            domain.bytes(),
            (0..SIZE + 30).filter(|offset| domain.contains(*offset)).count() as u64
        );
    }
}

#[test]
fn an_empty_source_is_finished() {
    let map = RescueMap::new(0);
    assert!(map.is_finished());
    assert_eq!(map.runs().count(), 0);
    assert_eq!(map.state_at(0), None);
    assert_eq!(map.next_run(StateKind::Untried, 0), None);
}

#[test]
fn memory_follows_runs_not_bytes() {
    let mut map = RescueMap::new(u64::MAX);
    for sector in 0..1000u64 {
        let start = sector << 50;
        map.set(start..start + 512, RangeState::Copied);
    }
    assert_eq!(map.run_count(), 2000);
    map.set(0..u64::MAX, RangeState::Copied);
    assert_eq!(map.run_count(), 1);
    assert_eq!(map.copied_bytes(), u64::MAX);
}
