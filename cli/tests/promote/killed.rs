//! Killed at random moments, a promotion goes on where it was.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{ends_whole, json, program, rescue, succeeds, tree};

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
    succeeds(
        program("asl")
            .args(["store", "init", "--quiet"])
            .arg(&target),
    );
    let (code, _) = json(
        program("asl")
            .env("ASL_STORE", &target)
            .args([
                "domain",
                "mint",
                "--name",
                "home",
                "--no-recovery",
                "--yes",
                "--ephemeral",
                "--passphrase-file",
            ])
            .arg(rescue.path("pass")),
    );
    assert_eq!(code, 0);
    let mut random = blake3::Hasher::new().update(b"kills").finalize_xof();
    let promote = || {
        let mut command = rescue.promote(&[]);
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut again = program("asl-promote");
        again.env("ASL_STATE", rescue.path("state"));
        again.args(args.into_iter().map(|arg| {
            if arg == rescue.path("root").as_os_str() {
                target.clone().into_os_string()
            } else {
                arg
            }
        }));
        command = again;
        command
    };
    let mut killed = 0;
    for _ in 0..kills {
        let mut byte = [0];
        random.fill(&mut byte);
        let mut child = promote()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + whole.mul_f64(f64::from(byte[0]) / 255.0);
        while Instant::now() < end && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = child.kill();
        killed += usize::from(child.wait().unwrap().code().is_none());
        // Whoever looks meanwhile sees a sound store, and either the whole capture or none.
        let (code, list) = json(program("asl").arg("captures").arg("--store").arg(&target));
        assert_eq!(code, 0, "{list}");
        let listed = list["captures"].as_array().unwrap();
        assert!(
            listed.iter().all(|capture| capture["damage"].is_null()),
            "{list}"
        );
    }
    assert!(killed > 0, "no run was killed");
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
