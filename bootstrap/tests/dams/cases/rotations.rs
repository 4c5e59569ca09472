//! What is wrong with a rotation of keys, and with two manifests that follow one.

use super::*;

pub(super) fn rotations(cases: &mut Cases, base: &Base) {
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

pub(super) fn forks(cases: &mut Cases, base: &Base) {
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
