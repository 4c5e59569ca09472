//! Killed at random moments, a promotion goes on where it was.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::killing::killed_after;
use super::{asl_at, does, ends_whole, json, rescue, tree};

/// Runs what `promote` makes and kills it, each time after so long. Whoever looks meanwhile sees a sound store, and either all of a
/// capture or nothing.
pub(super) fn kill(
    promote: impl Fn() -> Command,
    target: &Path,
    moments: impl Iterator<Item = Duration>,
) {
    let mut killed = 0;
    for moment in moments {
        killed += usize::from(killed_after(&mut promote(), moment));
        let list = does(asl_at(target).arg("captures"));
        let listed = list["captures"].as_array().unwrap();
        assert!(
            listed.iter().all(|capture| capture["damage"].is_null()),
            "{list}"
        );
    }
    assert!(killed > 0, "no run was killed");
}

/// Covers K6, C6. Everyday 4 kills, with `ASL_TEST_ALL` 50.
#[test]
fn a_promotion_that_is_killed_goes_on_and_ends_whole() {
    let kills = if std::env::var_os("ASL_TEST_ALL").is_some() {
        50
    } else {
        4
    };
    let rescue = rescue(if kills > 10 { 512 << 20 } else { 96 << 20 });
    let before = tree(&rescue.store);
    // The personal domain first, so that every later run is the same command.
    let (code, minted) = json(&mut rescue.promote(&[
        "--as-new",
        "--name",
        "home",
        "--no-recovery",
        "--ephemeral",
        "--dry-run",
    ]));
    assert_eq!(code, 0, "{minted}");
    assert!(
        !rescue.path("root").join("domains").exists(),
        "a dry run writes nothing"
    );

    // How long a run takes that nobody kills tells when to kill.
    let began = Instant::now();
    let (code, first) =
        json(&mut rescue.promote(&["--as-new", "--name", "home", "--no-recovery", "--ephemeral"]));
    assert_eq!(code, 0, "{first}");
    let whole = began.elapsed();
    let personal = first["parent_domain"].as_str().unwrap().to_owned();
    std::fs::rename(rescue.path("root"), rescue.path("root.first")).unwrap();
    std::fs::rename(rescue.path("state"), rescue.path("state.first")).unwrap();

    // Again from an empty personal domain, killed.
    let target = rescue.path("root").join("personal");
    rescue.home(&target);
    let promote = || rescue.promotion(&rescue.store, &target, &rescue.domain);
    let mut random = blake3::Hasher::new().update(b"kills").finalize_xof();
    let moments = (0..kills).map(|_| {
        let mut byte = [0];
        random.fill(&mut byte);
        whole.mul_f64(f64::from(byte[0]) / 255.0)
    });
    kill(promote, &target, moments);
    let (code, last) = json(&mut promote());
    assert_eq!(code, 0, "{last}");
    ends_whole(&rescue, &target);
    assert_eq!(
        tree(&rescue.store),
        before,
        "the rescue store was only read"
    );

    // The second run writes nothing.
    let (files, state) = (tree(&target), tree(&rescue.path("state")));
    let (code, again) = json(&mut promote());
    assert_eq!(code, 0, "{again}");
    assert!(
        tree(&target) == files,
        "a second promotion changed the target"
    );
    assert!(
        tree(&rescue.path("state")) == state,
        "a second promotion changed the pins"
    );

    let first = rescue.path("root.first").join("domains").join(&personal);
    ends_whole(&rescue, &first);
}
