//! A witness that loses power, or whose disk fails, at every operation.
//!
//! The property: whatever happens, all cosignatures that ever left the witness are
//! of trees that continue each other. The log is the adversary: after each
//! cut it offers a fork first, then the honest continuation.

use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs, OpKind};

use super::tests::{ask, checkpoint, key, leaves, request};
use super::*;
use crate::checkpoint::Checkpoint;
use crate::tlog::{TreeHash, root};

/// The two histories that the log tells, which part at record 5.
fn histories() -> [Vec<TreeHash>; 2] {
    [leaves(40, 5, 0), leaves(40, 5, 1)]
}

/// A witness's life: everything that it ever gave a cosignature for.
#[derive(Default, Clone)]
struct Given {
    checkpoints: Vec<Checkpoint>,
    /// How often the witness could not be made; each time it is tried elsewhere.
    places: u32,
}

impl Given {
    fn dir(&self) -> String {
        format!("w{}", self.places)
    }

    /// Fails where two of the trees cannot be of one log.
    fn check(&self, what: &str) {
        let histories = histories();
        let fits = |history: &Vec<TreeHash>| {
            let begins = |given: &Checkpoint| root(&history[..given.size as usize]) == given.root;
            self.checkpoints.iter().all(begins)
        };
        assert!(
            histories.iter().any(fits),
            "{what}: cosigned {:?}",
            self.checkpoints
        );
        let sizes: Vec<u64> = self.checkpoints.iter().map(|given| given.size).collect();
        assert!(sizes.is_sorted(), "{what}: cosigned sizes {sizes:?}");
    }
}

/// Asks for a checkpoint of `size` from history `which`, with the best proof there is.
fn try_ask(witness: &mut Witness, which: usize, size: usize, given: &mut Given) -> bool {
    let history = &histories()[which][..size];
    let old = witness.latest().next().map_or(0, |latest| latest.size);
    let asked = request(old, history);
    let cosigned = ask(witness, &asked).is_ok();
    if cosigned {
        given.checkpoints.push(*checkpoint(history).checkpoint());
    }
    cosigned
}

/// One life of the witness, until something fails: open it (or make it), then
/// have two checkpoints of one history cosigned.
fn live(vfs: &FaultVfs, which: usize, sizes: &[usize], given: &mut Given) {
    let opened = match Witness::open(vfs, &given.dir(), "w1", key()) {
        // Who has never given a cosignature may begin; after that, nobody may.
        Err(WitnessError::NoState { .. }) if given.checkpoints.is_empty() => {
            let made = Witness::create(vfs, &given.dir(), "w1", key());
            given.places += u32::from(made.is_err() && !vfs.crashed());
            made
        }
        other => other,
    };
    let Ok(mut witness) = opened else {
        let failed = vfs.trace().iter().any(|op| op.errno.is_some());
        assert!(vfs.crashed() || failed, "a witness was lost");
        return;
    };
    for size in sizes {
        try_ask(&mut witness, which, *size, given);
    }
}

fn policies() -> Vec<CrashPolicy> {
    let mut policies = vec![CrashPolicy::KeepAll, CrashPolicy::LoseUnsynced];
    for seed in 0..4 {
        policies.push(CrashPolicy::Torn { seed });
        policies.push(CrashPolicy::Reorder { seed });
    }
    policies
}

/// After a cut: the fork is offered, then the honest log, then the power goes once
/// more with everything unsynced lost and the fork is offered again.
fn aftermath(vfs: &FaultVfs, mut given: Given, what: &str) {
    live(vfs, 1, &[9, 12], &mut given);
    given.check(what);
    live(vfs, 0, &[9, 12, 20], &mut given);
    given.check(what);
    let vfs = vfs.power_cut(CrashPolicy::LoseUnsynced);
    live(&vfs, 1, &[12, 20, 30], &mut given);
    live(&vfs, 0, &[20, 30], &mut given);
    given.check(what);
    assert!(
        given.checkpoints.len() >= 2,
        "{what}: a witness that never answers proves nothing"
    );
}

#[test]
fn no_crash_at_any_operation_makes_it_cosign_a_fork() {
    let dry = FaultVfs::new();
    live(&dry, 0, &[6, 9], &mut Given::default());
    live(&dry, 0, &[12], &mut Given::default());
    let ops = dry.ops();
    assert!(ops > 20, "only {ops} operations");
    let mut gave_before = 0;
    for at in 0..=ops {
        for seed in 0..2 {
            for policy in policies() {
                let what = format!("crash at {at}, seed {seed}, {policy:?}");
                let vfs = FaultVfs::new();
                vfs.set_seed(seed);
                vfs.crash_at(at);
                let mut given = Given::default();
                live(&vfs, 0, &[6, 9], &mut given);
                if !vfs.crashed() {
                    live(&vfs, 0, &[12], &mut given);
                }
                gave_before += given.checkpoints.len();
                aftermath(&vfs.power_cut(policy), given, &what);
            }
        }
    }
    assert!(gave_before > 0);
}

#[test]
fn no_failed_operation_makes_it_cosign_a_fork() {
    let dry = FaultVfs::new();
    live(&dry, 0, &[6, 9], &mut Given::default());
    for at in 0..dry.ops() {
        for mode in [FailMode::Once, FailMode::Sticky] {
            for errno in [5, 28, 30] {
                for policy in policies() {
                    let what = format!("{errno} at {at}, {mode:?}, {policy:?}");
                    let vfs = FaultVfs::new();
                    vfs.set_seed(at);
                    vfs.fail_op(at, errno, mode);
                    let mut given = Given::default();
                    live(&vfs, 0, &[6, 9], &mut given);
                    // The same process goes on with the other history.
                    live(&vfs, 1, &[9, 12], &mut given);
                    given.check(&what);
                    aftermath(&vfs.power_cut(policy), given, &what);
                }
            }
        }
    }
}

/// A process died between renaming the memory and syncing its name: the next one
/// reads there what a power cut takes back. Asked for just that
/// checkpoint, it must write before it answers.
#[test]
fn what_it_reads_is_not_yet_durable() {
    let vfs = FaultVfs::new();
    let mut given = Given::default();
    live(&vfs, 0, &[6], &mut given);
    let mut witness = Witness::open(&vfs, &given.dir(), "w1", key()).unwrap();
    let last_sync = |vfs: &FaultVfs| {
        let syncs = vfs
            .trace()
            .into_iter()
            .filter(|op| op.kind == OpKind::SyncDir);
        syncs.map(|op| op.number).max().unwrap()
    };
    // How far from the start of an answer its last sync is.
    let start = vfs.ops();
    assert!(try_ask(&mut witness, 0, 9, &mut given));
    let offset = last_sync(&vfs) - start;
    vfs.crash_at(vfs.ops() + offset);
    assert!(!try_ask(&mut witness, 0, 12, &mut given));
    assert!(vfs.crashed());
    drop(witness);

    let vfs = vfs.power_cut(CrashPolicy::KeepAll);
    let mut witness = Witness::open(&vfs, &given.dir(), "w1", key()).unwrap();
    assert_eq!(witness.latest().next().unwrap().size, 12, "it was renamed");
    assert!(try_ask(&mut witness, 0, 12, &mut given));
    drop(witness);

    let vfs = vfs.power_cut(CrashPolicy::LoseUnsynced);
    let mut witness = Witness::open(&vfs, &given.dir(), "w1", key()).unwrap();
    assert_eq!(witness.latest().next().unwrap().size, 12);
    assert!(!try_ask(&mut witness, 1, 12, &mut given));
    assert!(!try_ask(&mut witness, 1, 14, &mut given));
    given.check("after all");
}
