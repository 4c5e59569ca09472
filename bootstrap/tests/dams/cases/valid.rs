//! The valid manifests, which others follow.

use super::*;

pub(super) fn valid(cases: &mut Cases, base: &Base) {
    let mut ok = |name: &str, after, what, made: &Made| cases.push(name, after, "ok", what, made);
    ok(
        "personal-genesis",
        None,
        "a personal domain begins",
        &base.personal,
    );
    ok(
        "personal-update",
        G,
        "a new label and one more host",
        &base.update,
    );
    ok(
        "personal-revoke",
        U,
        "a host's key is revoked",
        &base.revoke,
    );
    ok(
        "personal-freeze",
        G,
        "the root revokes itself; only the phrase goes on from here",
        &base.freeze,
    );
    ok(
        "personal-rotation",
        U,
        "the phrase takes over",
        &base.rotation,
    );
    let from_genesis = base.personal.follow(&["phrase 1"], recover);
    ok(
        "personal-recovery",
        U,
        "the phrase takes over from genesis and voids the update",
        &from_genesis,
    );
    let thawed = base.freeze.follow(&["phrase 1"], recover);
    ok(
        "personal-thaw",
        Some("personal-freeze"),
        "the phrase takes over where the root is revoked",
        &thawed,
    );
    let again = base.rotation.follow(&["phrase 2"], |raw| {
        raw.rotation += 1;
        raw.roots = keys(&["phrase 2"]);
        raw.next = commit(&["phrase 3"]);
    });
    ok(
        "personal-rotation-again",
        Some("personal-rotation"),
        "the second phrase takes over",
        &again,
    );
    let earlier = base.revoke.follow(&["root"], |raw| raw.revoked[0].2 = 10);
    ok(
        "personal-revoke-earlier",
        Some("personal-revoke"),
        "a revocation moves to an earlier position",
        &earlier,
    );
    ok(
        "group-genesis",
        None,
        "a group of three begins",
        &base.group,
    );
    ok(
        "group-update",
        Some("group-genesis"),
        "two of three change the policy",
        &base.group_lenient,
    );
    ok(
        "group-rotation",
        Some("group-genesis"),
        "two revealed keys and two roots bring in another",
        &base.group_rotation,
    );
    let lost = base
        .group_lenient
        .follow(&["ada 2", "ben 2"], group_recover);
    ok(
        "group-recovery",
        Some("group-update"),
        "two revealed keys alone, as the policy allows",
        &lost,
    );
    ok(
        "common-genesis",
        None,
        "a common domain begins",
        &base.common,
    );
    let label = base
        .common
        .follow(&["ada", "ben"], |raw| raw.label = b"library".to_vec());
    ok(
        "common-update",
        Some("common-genesis"),
        "a new label needs no witness",
        &label,
    );
    let policy = base
        .common
        .follow(&["ada", "ben"], |_| {})
        .ruled([0, 1, 2, 1, 1, 1]);
    ok(
        "common-policy",
        Some("common-genesis"),
        "two witnesses cosign a new policy",
        &policy.watched(&["watch", "clock"]),
    );
}
