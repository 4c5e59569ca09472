//! What is wrong with the signatures beside a manifest: whose they are, what they cover, how many there are.

use super::*;

pub(super) fn signatures(cases: &mut Cases, base: &Base) {
    let made = &base.update;
    let dam = made.raw.encode();
    let (root, laptop) = (pair("root"), pair("laptop"));
    let by_laptop = laptop.sign(DAM, made.domain, &dam);
    let good = root.signature("dam", made.domain, &dam);
    let of = |context: u8, body: [u8; 32], signer: [u8; 32], alg: u8, signature: &[u8]| {
        vec![
            artifact(context, body, signer, alg, signature),
            by_laptop.clone(),
        ]
    };
    let (body, signer) = (blake3(&dam), root.id());
    let genesis = base.personal.raw.encode();
    let mut flipped = good;
    flipped[40] ^= 1;
    let fine = || of(DAM, body, signer, 1, &good);
    let rows: Vec<(&str, &'static str, &'static str, Vec<Vec<u8>>)> = vec![
        (
            "unsigned",
            "RootThreshold",
            "no root signed",
            vec![by_laptop.clone()],
        ),
        (
            "new-host-unsigned",
            "PrincipalPossession",
            "the new host did not sign",
            vec![fine()[0].clone()],
        ),
        (
            "signature-flipped",
            "RootThreshold/Invalid/Signature",
            "one bit of the signature",
            of(DAM, body, signer, 1, &flipped),
        ),
        (
            "signature-body",
            "RootThreshold/OtherBody",
            "a signature over the first manifest",
            vec![root.sign(DAM, made.domain, &genesis), by_laptop.clone()],
        ),
        (
            "signature-moved",
            "RootThreshold/Invalid/Signature",
            "a signature over the first manifest that names this one",
            of(
                DAM,
                body,
                signer,
                1,
                &root.signature("dam", made.domain, &genesis),
            ),
        ),
        (
            "signature-domain",
            "RootThreshold/Invalid/Signature",
            "a signature for another domain",
            of(DAM, body, signer, 1, &root.signature("dam", [1; 32], &dam)),
        ),
        (
            "signature-receipt",
            "RootThreshold/OtherContext/Receipt",
            "a signature made for a receipt",
            of(
                RECEIPT,
                body,
                signer,
                1,
                &root.signature("receipt", made.domain, &dam),
            ),
        ),
        (
            "signature-relabelled",
            "RootThreshold/Invalid/Signature",
            "a signature made for a receipt, relabelled",
            of(
                DAM,
                body,
                signer,
                1,
                &root.signature("receipt", made.domain, &dam),
            ),
        ),
        (
            "signature-cosign",
            "RootThreshold",
            "a signature made for a change of policy",
            of(
                COSIGN_POLICY,
                body,
                signer,
                1,
                &root.signature("cosign-policy", made.domain, &dam),
            ),
        ),
        (
            "signature-untagged",
            "RootThreshold/Invalid/Signature",
            "a signature over the bare bytes",
            of(DAM, body, signer, 1, &{
                use ed25519_dalek::Signer as _;
                root.0.sign(&dam).to_bytes()
            }),
        ),
        (
            "signature-unlisted",
            "RootThreshold/Unlisted",
            "a signature by an unlisted key",
            vec![
                pair("mallory").sign(DAM, made.domain, &dam),
                by_laptop.clone(),
            ],
        ),
        (
            "signature-claimed",
            "RootThreshold/Invalid/Signature",
            "an unlisted key's signature that claims to be the root's",
            of(
                DAM,
                body,
                signer,
                1,
                &pair("mallory").signature("dam", made.domain, &dam),
            ),
        ),
        (
            "signature-phrase",
            "RootThreshold/Unlisted",
            "the next key signs an update",
            vec![
                pair("phrase 1").sign(DAM, made.domain, &dam),
                by_laptop.clone(),
            ],
        ),
        (
            "signature-host",
            "RootThreshold",
            "a host signs in place of the root",
            vec![pair("host").sign(DAM, made.domain, &dam), by_laptop.clone()],
        ),
        (
            "signature-algorithm",
            "RootThreshold/Invalid/Algorithm",
            "a signature of an unknown algorithm",
            of(DAM, body, signer, 2, &good),
        ),
        (
            "signature-context",
            "RootThreshold/Malformed/UnknownContext",
            "a signature for a purpose that there is not",
            of(9, body, signer, 1, &good),
        ),
        (
            "signature-short",
            "RootThreshold/Malformed/Codec",
            "a signature without its last byte",
            of(DAM, body, signer, 1, &good[..63]),
        ),
        (
            "signature-long",
            "RootThreshold/Malformed/Codec/TooLong",
            "a signature with a byte more",
            of(DAM, body, signer, 1, &[good.as_slice(), &[0]].concat()),
        ),
        (
            "signatures-many",
            "TooManySignatures",
            "256 signatures",
            vec![fine()[0].clone(); 256],
        ),
    ];
    for (name, expect, what, signatures) in rows {
        cases.bytes(name, G, expect, what, made, dam.clone(), signatures);
    }
    for (name, what, edit) in [
        (
            "nonce-changed",
            "another nonce under the same signatures",
            (|r| r.nonce[0] ^= 1) as fn(&mut Raw),
        ),
        (
            "anchor-changed",
            "another anchor under the same signatures",
            |r| r.anchor = None,
        ),
        (
            "label-changed",
            "another label under the same signatures",
            |r| r.label[0] ^= 1,
        ),
        (
            "time-changed",
            "another time under the same signatures",
            |r| r.created_hint += 1,
        ),
    ] {
        let spoiled = made.but(edit).raw.encode();
        let renamed = [&root, &laptop].map(|pair| {
            artifact(
                DAM,
                blake3(&spoiled),
                pair.id(),
                1,
                &pair.signature("dam", made.domain, &dam),
            )
        });
        cases.bytes(
            name,
            G,
            "RootThreshold/Invalid/Signature",
            what,
            made,
            spoiled,
            renamed.to_vec(),
        );
    }

    let group = Some("group-genesis");
    let stuffed = base.group_lenient.clone().signers(&["ada", "ada", "ada"]);
    cases.push(
        "stuffed",
        group,
        "RootThreshold/Repeated",
        "one root signs three times",
        &stuffed,
    );
    let one = base.group_lenient.clone().signers(&["ada", "host"]);
    cases.push(
        "group-one",
        group,
        "RootThreshold",
        "one root of the two needed",
        &one,
    );

    let policy = base
        .common
        .follow(&["ada", "ben"], |_| {})
        .ruled([0, 1, 2, 1, 1, 1]);
    let common = Some("common-genesis");
    cases.push(
        "common-policy-alone",
        common,
        "PolicyCosign",
        "roots change the policy without witnesses",
        &policy,
    );
    cases.push(
        "common-policy-one",
        common,
        "PolicyCosign",
        "one witness of two cosigns the policy",
        &policy.clone().watched(&["guard"]),
    );
    cases.push(
        "common-policy-stuffed",
        common,
        "PolicyCosign/Repeated",
        "one witness cosigns twice",
        &policy.clone().watched(&["guard", "guard"]),
    );
    cases.push(
        "common-policy-roots",
        common,
        "PolicyCosign",
        "roots cosign in the place of witnesses",
        &policy.clone().watched(&["ada", "ben"]),
    );
    let plain = policy.signers(&["ada", "ben", "guard", "watch"]);
    cases.push(
        "common-policy-context",
        common,
        "PolicyCosign",
        "witnesses sign the manifest, not its change of policy",
        &plain,
    );
}
