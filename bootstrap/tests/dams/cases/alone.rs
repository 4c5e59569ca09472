//! What is wrong with a manifest by itself: its encoding, then the rules that look at nothing else.

use super::*;

/// What is not the one encoding of a manifest.
pub(super) fn encoding(cases: &mut Cases, base: &Base) {
    let made = &base.personal;
    let parts = made.raw.parts();
    let mut spoiled = |name: &str, expect, what, dam: Vec<u8>| {
        let made = Made {
            domain: domain_of(&dam),
            ..made.clone()
        };
        let signatures = made.signatures(&dam);
        cases.bytes(name, None, expect, what, &made, dam, signatures);
    };
    let with = |index: usize, part: &[u8]| -> Vec<u8> {
        let mut parts = parts.clone();
        parts[index] = part.to_vec();
        parts.concat()
    };
    spoiled("empty", "Dam/Magic", "nothing at all", vec![]);
    spoiled("magic", "Dam/Magic", "another magic", with(0, b"ASLDAM2\n"));
    spoiled("too-long", "Dam/TooLong", "a byte more than the ceiling", {
        let mut long = parts.concat();
        long.resize(65537, 0);
        long
    });
    spoiled(
        "critical",
        "Dam/Critical",
        "an unknown critical bit",
        with(1, &[4]),
    );
    spoiled(
        "critical-alien",
        "Dam/Critical",
        "an unknown critical bit before something else entirely",
        b"ASLDAM1\n\x04?".to_vec(),
    );
    spoiled(
        "truncated",
        "Dam/Encoding/Malformed",
        "the last byte is missing",
        {
            let mut short = parts.concat();
            short.pop();
            short
        },
    );
    spoiled(
        "trailing",
        "Dam/Encoding/Trailing",
        "a byte too many",
        [parts.concat(), vec![0]].concat(),
    );
    spoiled(
        "overlong-critical",
        "Dam/Encoding/NotCanonical",
        "an integer in more bytes than it needs",
        with(1, &[0x80, 0]),
    );
    spoiled(
        "overlong-version",
        "Dam/Encoding/NotCanonical",
        "an integer in more bytes than it needs",
        with(3, &[0x80, 0]),
    );
    spoiled(
        "overlong-list",
        "Dam/Encoding/NotCanonical",
        "a count in more bytes than it needs",
        {
            let mut roots = parts[8].clone();
            roots.splice(..1, [0x81, 0]);
            with(8, &roots)
        },
    );
    spoiled(
        "overlong-label",
        "Dam/Encoding/NotCanonical",
        "a length in more bytes than it needs",
        {
            let mut label = parts[19].clone();
            let len = label[0];
            label.splice(..1, [len | 0x80, 0]);
            with(19, &label)
        },
    );
    spoiled(
        "option",
        "Dam/Encoding/Malformed",
        "an option that is neither there nor not",
        with(5, &[2]),
    );
    spoiled(
        "label-utf8",
        "Dam/Encoding/Malformed",
        "a label that is no UTF-8",
        with(19, b"\x02\xc3\x28"),
    );
    spoiled(
        "huge-list",
        "Dam/Encoding/Malformed",
        "a list that claims 2^40 entries",
        with(10, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x20]),
    );
}

/// The rules on a manifest alone.
pub(super) fn alone(cases: &mut Cases, base: &Base) {
    let personal = |edit: fn(&mut Raw)| base.personal.but(edit);
    let group = |edit: fn(&mut Raw)| base.group.but(edit);
    let common = |edit: fn(&mut Raw)| base.common.but(edit);
    let update = |edit: fn(&mut Raw)| base.update.but(edit);
    let rows: Vec<(&str, &'static str, &'static str, Made)> = vec![
        (
            "kind",
            "Dam/Kind",
            "a kind that there is not",
            personal(|r| r.kind = 3),
        ),
        (
            "root-algorithm",
            "Dam/Key/Roots/Algorithm",
            "a root of an unknown algorithm",
            personal(|r| r.roots[0].0 = 2),
        ),
        (
            "root-point",
            "Dam/Key/Roots/NotAPoint",
            "a root that is no point",
            personal(|r| {
                r.roots[0].1 = {
                    let mut y = [0; 32];
                    y[0] = 2;
                    y
                }
            }),
        ),
        (
            "root-weak",
            "Dam/Key/Roots/Weak",
            "a root of low order",
            personal(|r| {
                r.roots[0].1 = {
                    let mut one = [0; 32];
                    one[0] = 1;
                    one
                }
            }),
        ),
        (
            "root-second-form",
            "Dam/Key/Roots/NonCanonical",
            "a root in a second encoding",
            personal(|r| {
                r.roots[0].1 = {
                    let mut one = [0; 32];
                    (one[0], one[31]) = (1, 0x80);
                    one
                }
            }),
        ),
        (
            "principal-algorithm",
            "Dam/Key/Principals/Algorithm",
            "a principal of an unknown algorithm",
            personal(|r| r.principals[0].0.0 = 0),
        ),
        (
            "witness-weak",
            "Dam/Key/Witnesses/Weak",
            "a witness of low order",
            group(|r| r.members[0].0.1 = [0; 32]),
        ),
        (
            "no-roots",
            "Dam/ListEmpty/Roots",
            "nobody speaks",
            personal(|r| r.roots.clear()),
        ),
        (
            "no-next",
            "Dam/ListEmpty/Next",
            "nothing to recover with",
            personal(|r| r.next.clear()),
        ),
        (
            "roots-many",
            "Dam/ListTooLong/Roots",
            "65 roots",
            personal(|r| {
                r.roots = (0..65).map(|i| pair(&format!("root {i}")).key()).collect();
                r.roots.sort_by_key(support::id)
            }),
        ),
        (
            "next-many",
            "Dam/ListTooLong/Next",
            "65 next keys",
            personal(|r| r.next = (0..65).map(|i| [i; 32]).collect()),
        ),
        (
            "principals-many",
            "Dam/ListTooLong/Principals",
            "65 principals",
            personal(|r| {
                r.principals = (0..65)
                    .map(|i| (pair(&format!("host {i}")).key(), 1))
                    .collect();
                r.principals.sort_by_key(|(key, _)| support::id(key))
            }),
        ),
        (
            "witnesses-many",
            "Dam/ListTooLong/Witnesses",
            "65 witnesses",
            common(|r| {
                r.members = (0..65)
                    .map(|i| (pair(&format!("witness {i}")).key(), format!("w{i}")))
                    .collect();
                r.members.sort_by_key(|(key, _)| support::id(key))
            }),
        ),
        (
            "revoked-many",
            "Dam/ListTooLong/Revoked",
            "65 revocations",
            update(|r| r.revoked = (0..65).map(|i| ([i; 32], STORE, 0, 0)).collect()),
        ),
        (
            "roots-order",
            "Dam/ListOrder/Roots",
            "roots out of order",
            group(|r| r.roots.reverse()),
        ),
        (
            "next-order",
            "Dam/ListOrder/Next",
            "next keys out of order",
            group(|r| r.next.reverse()),
        ),
        (
            "principals-order",
            "Dam/ListOrder/Principals",
            "principals out of order",
            personal(|r| r.principals.reverse()),
        ),
        (
            "witnesses-order",
            "Dam/ListOrder/Witnesses",
            "witnesses out of order",
            common(|r| r.members.reverse()),
        ),
        (
            "revoked-order",
            "Dam/ListOrder/Revoked",
            "revocations out of order",
            update(|r| r.revoked = vec![([9; 32], STORE, 0, 0), ([8; 32], STORE, 0, 0)]),
        ),
        (
            "roots-twice",
            "Dam/ListRepeats/Roots",
            "a root twice",
            group(|r| r.roots.insert(0, r.roots[0])),
        ),
        (
            "next-twice",
            "Dam/ListRepeats/Next",
            "a next key twice",
            group(|r| r.next.insert(0, r.next[0])),
        ),
        (
            "principals-twice",
            "Dam/ListRepeats/Principals",
            "a principal twice, with two roles",
            personal(|r| {
                let (key, _) = r.principals[0];
                r.principals.insert(0, (key, 16))
            }),
        ),
        (
            "witnesses-twice",
            "Dam/ListRepeats/Witnesses",
            "a witness twice, by two names",
            common(|r| {
                let (key, _) = r.members[0];
                r.members.insert(0, (key, "other".into()))
            }),
        ),
        (
            "revoked-twice",
            "Dam/ListRepeats/Revoked",
            "a key revoked twice in one store",
            update(|r| r.revoked = vec![([8; 32], STORE, 1, 0), ([8; 32], STORE, 2, 0)]),
        ),
        (
            "root-threshold-none",
            "Dam/Threshold/Roots",
            "a root threshold of zero",
            group(|r| r.root_threshold = 0),
        ),
        (
            "root-threshold-many",
            "Dam/Threshold/Roots",
            "a root threshold beyond the roots",
            group(|r| r.root_threshold = 4),
        ),
        (
            "next-threshold-none",
            "Dam/Threshold/Next",
            "a next threshold of zero",
            group(|r| r.next_threshold = 0),
        ),
        (
            "next-threshold-many",
            "Dam/Threshold/Next",
            "a next threshold beyond the next keys",
            group(|r| r.next_threshold = 4),
        ),
        (
            "witness-threshold-none",
            "Dam/Threshold/Witnesses",
            "a witness threshold of zero",
            common(|r| r.witness_threshold = 0),
        ),
        (
            "witness-threshold-many",
            "Dam/Threshold/Witnesses",
            "a witness threshold beyond the witnesses",
            common(|r| r.witness_threshold = 4),
        ),
        (
            "personal-roots",
            "Dam/PersonalThreshold/Roots",
            "a personal domain that two roots must sign for",
            personal(|r| {
                r.roots.push(pair("host").key());
                r.roots.sort_by_key(support::id);
                r.root_threshold = 2
            }),
        ),
        (
            "personal-next",
            "Dam/PersonalThreshold/Next",
            "a personal domain with two phrases",
            personal(|r| {
                r.next = commit(&["phrase 1", "phrase 2"]);
                r.next.sort();
                r.next_threshold = 2
            }),
        ),
        (
            "next-is-root",
            "Dam/NextListed",
            "the next key is the root",
            personal(|r| r.next = commit(&["root"])),
        ),
        (
            "next-is-principal",
            "Dam/NextListed",
            "the next key is the host's",
            personal(|r| r.next = commit(&["host"])),
        ),
        (
            "next-is-witness",
            "Dam/NextListed",
            "the next key is the witness's",
            group(|r| {
                r.next = commit(&["watch"]);
                r.next_threshold = 1
            }),
        ),
        (
            "roles-none",
            "Dam/RolesEmpty",
            "a principal without a role",
            personal(|r| r.principals[0].1 = 0),
        ),
        (
            "roles-unknown",
            "Dam/RolesUnknown",
            "a role that there is not",
            personal(|r| r.principals[0].1 = 33),
        ),
        (
            "checkpoint-produces",
            "Dam/CheckpointShared",
            "the checkpoint key signs receipts too",
            personal(|r| r.principals.iter_mut().for_each(|p| p.1 |= CHECKPOINT)),
        ),
        (
            "checkpoint-root",
            "Dam/CheckpointRoot",
            "the root signs checkpoints",
            personal(|r| r.principals = vec![(pair("root").key(), CHECKPOINT)]),
        ),
        (
            "witness-mode",
            "Dam/WitnessMode",
            "a witness mode that there is not",
            personal(|r| r.witness_mode = 3),
        ),
        (
            "witness-none-member",
            "Dam/WitnessNone",
            "no witnesses, but one",
            personal(|r| r.members = members(&["watch"])),
        ),
        (
            "witness-none-threshold",
            "Dam/WitnessNone",
            "no witnesses, but a threshold",
            personal(|r| r.witness_threshold = 1),
        ),
        (
            "witness-single",
            "Dam/WitnessSingle",
            "a single witness, but three",
            group(|r| {
                r.members = members(&["watch", "guard", "clock"]);
                r.members.sort_by_key(|(key, _)| support::id(key))
            }),
        ),
        (
            "common-single",
            "Dam/CommonUnwitnessed/Single",
            "a common domain with a single witness",
            common(|r| {
                r.witness_mode = 1;
                r.members.truncate(1);
                r.witness_threshold = 1
            }),
        ),
        (
            "common-none",
            "Dam/CommonUnwitnessed/None",
            "a common domain without witnesses",
            common(|r| {
                r.witness_mode = 0;
                r.members.clear();
                r.witness_threshold = 0
            }),
        ),
        (
            "witness-is-root",
            "Dam/WitnessListed",
            "a root watches itself",
            group(|r| r.members = members(&["ada"])),
        ),
        (
            "witness-is-principal",
            "Dam/WitnessListed",
            "a host watches itself",
            group(|r| r.members = members(&["host"])),
        ),
        (
            "witness-name-empty",
            "Dam/WitnessName",
            "a witness without a name",
            group(|r| r.members[0].1.clear()),
        ),
        (
            "witness-name-plus",
            "Dam/WitnessName",
            "a witness with a plus sign in its name",
            group(|r| r.members[0].1 = "a+b".into()),
        ),
        (
            "witness-name-blank",
            "Dam/WitnessName",
            "a witness with a blank in its name",
            group(|r| r.members[0].1 = "a b".into()),
        ),
        (
            "witness-name-long",
            "Dam/WitnessName",
            "a witness with a name of 65 bytes",
            group(|r| r.members[0].1 = "n".repeat(65)),
        ),
        (
            "witness-name-twice",
            "Dam/WitnessNameTwice",
            "two witnesses of one name",
            common(|r| r.members[1].1 = r.members[0].1.clone()),
        ),
        (
            "reason",
            "Dam/Reason",
            "a reason that there is not",
            update(|r| r.revoked = vec![([8; 32], STORE, 1, 4)]),
        ),
        (
            "label-long",
            "Dam/LabelTooLong",
            "a label of 65 bytes",
            personal(|r| r.label = vec![b'a'; 65]),
        ),
        (
            "label-escape",
            "Dam/LabelText",
            "a label that would recolour the terminal",
            personal(|r| r.label = b"\x1b[31mred".to_vec()),
        ),
        (
            "label-c1",
            "Dam/LabelText",
            "a label with an escape sequence in one character",
            personal(|r| r.label = "a\u{9b}31m".as_bytes().to_vec()),
        ),
        (
            "label-reversed",
            "Dam/LabelText",
            "a label that reads from right to left",
            personal(|r| r.label = "ab\u{202e}cd".as_bytes().to_vec()),
        ),
    ];
    for (name, expect, what, made) in rows {
        let after = (made.raw.version == 1).then_some("personal-genesis");
        cases.push(name, after, expect, what, &made);
    }
    let revoked_listed = base.update.but(|r| r.revoked.push(revoke("host")));
    cases.push(
        "principal-revoked",
        G,
        "Dam/PrincipalRevoked",
        "a host is revoked and still listed",
        &revoked_listed,
    );
    let watch = base
        .group
        .follow(&["ada", "ben"], |r| r.revoked.push(revoke("watch")));
    cases.push(
        "witness-revoked",
        Some("group-genesis"),
        "Dam/WitnessRevoked",
        "an update revokes the witness instead of dropping it",
        &watch,
    );
}
