//! What is wrong with a manifest as the first of its chain, or as the one that follows another.

use super::*;

pub(super) fn genesis(cases: &mut Cases, base: &Base) {
    let made = &base.personal;
    let fixed = |edit: fn(&mut Raw)| {
        let mut made = made.but(edit);
        made.domain = domain_of(&made.raw.encode());
        made
    };
    let mut bad =
        |name: &str, expect, what, made: &Made| cases.push(name, None, expect, what, made);
    bad(
        "genesis-version",
        "GenesisVersion",
        "a first manifest with version 1",
        &fixed(|r| r.version = 1),
    );
    bad(
        "genesis-rotation",
        "GenesisRotation",
        "a first manifest with rotation 1",
        &fixed(|r| r.rotation = 1),
    );
    bad(
        "genesis-prev",
        "GenesisPrev",
        "a first manifest after another",
        &fixed(|r| r.prev = Some([1; 32])),
    );
    bad(
        "genesis-domain",
        "GenesisDomain",
        "a first manifest that names its domain",
        &fixed(|r| r.domain = Some([1; 32])),
    );
    bad(
        "genesis-revokes",
        "GenesisRevokes",
        "a first manifest that revokes",
        &fixed(|r| r.revoked = vec![([8; 32], STORE, 1, 0)]),
    );
    bad(
        "genesis-root",
        "RootPossession",
        "the root did not sign",
        &made.clone().signers(&["host", "checkpoints"]),
    );
    bad(
        "genesis-host",
        "PrincipalPossession",
        "the host did not sign",
        &made.clone().signers(&["root", "checkpoints"]),
    );
    bad(
        "genesis-one-root",
        "RootPossession",
        "one of three roots did not sign",
        &base.group.clone().signers(&["ada", "eve", "host"]),
    );

    let policy = |cases: &mut Cases, name: &str, expect, what, policy: Vec<u8>| {
        let made = made.but(|r| r.policy = blake3(&policy));
        let dam = made.raw.encode();
        let signatures = made.signatures(&dam);
        cases.bytes(name, None, expect, what, &made, dam, signatures);
        cases.0.last_mut().expect("just pushed").policy = policy;
    };
    policy(
        cases,
        "policy-magic",
        "Policy/Magic",
        "a policy with another magic",
        b"ASLPOL2\n\0\0\0\0\0\0".to_vec(),
    );
    policy(
        cases,
        "policy-short",
        "Policy/Length",
        "a policy of five rules",
        b"ASLPOL1\n\0\0\0\0\0".to_vec(),
    );
    policy(
        cases,
        "policy-long",
        "Policy/Length",
        "a policy of seven rules",
        b"ASLPOL1\n\0\0\0\0\0\0\0".to_vec(),
    );
    let rules = [
        ("foreign", "Policy/Value/Foreign", 3),
        ("unsigned-captures", "Policy/Value/UnsignedCaptures", 3),
        ("checkpoints", "Policy/Value/Checkpoints", 3),
        ("witnessed", "Policy/Value/Witnessed", 2),
        ("recovery", "Policy/Value/Recovery", 2),
        ("after-revocation", "Policy/Value/AfterRevocation", 2),
    ];
    for (at, (rule, expect, value)) in rules.into_iter().enumerate() {
        let mut bytes = PLAIN;
        bytes[at] = value;
        policy(
            cases,
            &format!("policy-{rule}"),
            expect,
            "a value that the rule does not have",
            support::policy(bytes),
        );
    }
    let unwatched = made.clone().ruled([0, 0, 0, 1, 0, 0]).but(|_| {});
    cases.push(
        "policy-unwatched",
        None,
        "Unsatisfiable/NoWitnesses",
        "a policy that wants witnesses where there are none",
        &unwatched,
    );
    let other = made.but(|r| r.policy = [0; 32]);
    cases.push(
        "policy-other",
        None,
        "OtherPolicy",
        "another policy than the manifest names",
        &other,
    );
}

pub(super) fn steps(cases: &mut Cases, base: &Base) {
    let update = &base.update;
    let mut bad =
        |name: &str, after, expect, what, made: &Made| cases.push(name, after, expect, what, made);
    bad("replay-head", U, "Replayed", "the head once more", update);
    bad(
        "replay-genesis",
        U,
        "Replayed",
        "the first manifest once more",
        &base.personal,
    );
    bad(
        "second-genesis",
        U,
        "SecondGenesis",
        "the first manifest of another domain",
        &base.group,
    );
    bad(
        "no-prev",
        G,
        "NoPrev",
        "an update that follows nothing",
        &update.but(|r| r.prev = None),
    );
    bad(
        "no-domain",
        G,
        "OtherDomain",
        "an update that names no domain",
        &update.but(|r| r.domain = None),
    );
    bad(
        "other-domain",
        G,
        "OtherDomain",
        "an update that names another domain",
        &update.but(|r| r.domain = Some([1; 32])),
    );
    let foreign = base.group.follow(&["ada", "ben"], |_| {});
    bad(
        "foreign",
        G,
        "OtherDomain",
        "another domain's update",
        &foreign,
    );
    bad(
        "unknown-prev",
        G,
        "UnknownPrev",
        "an update of something never seen",
        &update.but(|r| r.prev = Some([1; 32])),
    );
    bad(
        "reordered",
        G,
        "UnknownPrev",
        "the update after the next one",
        &base.revoke,
    );
    bad(
        "version-same",
        G,
        "VersionStep",
        "version 0 again",
        &update.but(|r| r.version = 0),
    );
    bad(
        "version-skip",
        G,
        "VersionStep",
        "version 2 after 0",
        &update.but(|r| r.version = 2),
    );
    bad(
        "version-last",
        G,
        "VersionStep",
        "the last version there is",
        &update.but(|r| r.version = u64::MAX),
    );
    bad(
        "rotation-skip",
        G,
        "RotationStep",
        "rotation 2 after 0",
        &update.but(|r| r.rotation = 2),
    );
    bad(
        "rotation-back",
        Some("personal-rotation"),
        "RotationStep",
        "rotation 0 after 1",
        &base.rotation.follow(&["phrase 1"], |r| r.rotation = 0),
    );
    let kind = update.but(|r| r.kind = 1);
    bad(
        "kind-changed",
        G,
        "KindChanged/Personal/Group",
        "a personal domain becomes a group",
        &kind,
    );
    let kind = base.rotation.but(|r| r.kind = 1);
    bad(
        "kind-changed-rotation",
        U,
        "KindChanged/Personal/Group",
        "a rotation makes a personal domain a group",
        &kind,
    );
}

pub(super) fn frozen(cases: &mut Cases, base: &Base) {
    let all = ["ada", "ben", "eve", "mallory"];
    let group = |edit: fn(&mut Raw)| base.group.follow(&all, edit);
    let after = Some("group-genesis");
    let mut bad =
        |name: &str, expect, what, made: &Made| cases.push(name, after, expect, what, made);
    bad(
        "roots-added",
        "RootsChanged",
        "an update adds a root",
        &group(|r| r.roots.push(pair("mallory").key())),
    );
    bad(
        "roots-dropped",
        "RootsChanged",
        "an update drops a root",
        &group(|r| r.roots.retain(|k| *k != pair("eve").key())),
    );
    bad(
        "root-threshold-lowered",
        "RootThresholdChanged",
        "an update lowers the root threshold",
        &group(|r| r.root_threshold = 1),
    );
    bad(
        "next-swapped",
        "NextChanged",
        "an update swaps a next key",
        &group(|r| r.next[0] = pair("mallory").next()),
    );
    bad(
        "next-threshold-lowered",
        "NextThresholdChanged",
        "an update lowers the next threshold",
        &group(|r| r.next_threshold = 1),
    );
    bad(
        "witness-dropped",
        "WitnessChanged",
        "an update drops the witness",
        &group(|r| {
            r.witness_mode = 0;
            r.members.clear();
            r.witness_threshold = 0
        }),
    );
    bad(
        "witness-swapped",
        "WitnessChanged",
        "an update swaps the witness",
        &group(|r| r.members = members(&["mallory"])),
    );
    bad(
        "witness-renamed",
        "WitnessChanged",
        "an update renames the witness",
        &group(|r| r.members[0].1 = "other".into()),
    );
    bad(
        "witness-mode-changed",
        "WitnessChanged",
        "an update makes the single witness a quorum of one",
        &group(|r| r.witness_mode = 2),
    );
    let lowered = base.common.follow(&all, |r| r.witness_threshold = 1);
    cases.push(
        "witness-threshold-lowered",
        Some("common-genesis"),
        "WitnessChanged",
        "an update lowers the witness threshold",
        &lowered,
    );
}

pub(super) fn revocations(cases: &mut Cases, base: &Base) {
    let after = Some("personal-revoke");
    let on = |edit: fn(&mut Raw)| base.revoke.follow(&["root", "host"], edit);
    let mut bad =
        |name: &str, after, expect, what, made: &Made| cases.push(name, after, expect, what, made);
    bad(
        "revocation-dropped",
        after,
        "RevocationDropped",
        "a revocation is taken back",
        &on(|r| r.revoked.clear()),
    );
    bad(
        "revocation-other-store",
        after,
        "RevocationDropped",
        "a revocation is moved to another store",
        &on(|r| r.revoked[0].1 = [1; 16]),
    );
    bad(
        "revocation-later",
        after,
        "RevocationLater",
        "a revocation is moved to a later position",
        &on(|r| r.revoked[0].2 = 41),
    );
    let dropped = base.revoke.follow(&["phrase 1"], |r| {
        recover(r);
        r.revoked.clear()
    });
    bad(
        "revocation-dropped-rotation",
        after,
        "RevocationDropped",
        "a rotation takes a revocation back",
        &dropped,
    );
    let relisted = on(|r| r.principals.push((pair("host").key(), PRODUCE)));
    bad(
        "revoked-again-listed",
        after,
        "Dam/PrincipalRevoked",
        "a revoked host is listed again",
        &relisted,
    );
    let kept = base.freeze.follow(&["phrase 1", "root"], |r| {
        recover(r);
        r.roots.push(pair("root").key())
    });
    bad(
        "revoked-root-kept",
        Some("personal-freeze"),
        "RevokedListed",
        "a rotation keeps the revoked root",
        &kept,
    );
    let frozen = base.freeze.follow(&["root"], |_| {});
    bad(
        "revoked-root-signs",
        Some("personal-freeze"),
        "RevokedRoot",
        "the revoked root goes on",
        &frozen,
    );
}
