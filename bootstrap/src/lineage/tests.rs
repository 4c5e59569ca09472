//! Links between domains: one encoding, and each refusal.

use super::*;
use crate::fixture::signer;
use crate::tlog::{empty_root, leaf_hash, node_hash};

fn example() -> Lineage {
    Lineage {
        op: Op::Fork,
        level: Level::Semantics,
        parent: DomainId([1; 32]),
        parent_head: Key([2; 32]),
        child: DomainId([3; 32]),
        child_genesis: Key([4; 32]),
        child_head: Key([5; 32]),
        store: StoreId([6; 16]),
        position: LogPosition(300),
        chain: Digest([7; 32]),
        manifest_root: TreeHash([8; 32]),
        artifacts: 9,
        bytes: 128,
        missing: 1,
        checks: Checks::LOG.and(Checks::CLOSURE),
        log: vec![Key([10; 32])],
        sessions: vec![SessionId([11; 16]), SessionId([12; 16])],
        prev: Some(Key([13; 32])),
        tool: "asl 1".into(),
    }
}

fn retirement() -> Lineage {
    Lineage {
        op: Op::Retire,
        log: vec![],
        sessions: vec![],
        ..example()
    }
}

#[test]
fn the_bytes_are_the_documented_ones() {
    let expected = [
        b"ASLLIN1\n\x01\x01".as_slice(),
        &[1; 32],
        &[2; 32],
        &[3; 32],
        &[4; 32],
        &[5; 32],
        &[6; 16],
        &[0xac, 0x02],
        &[7; 32],
        &[8; 32],
        &[9, 0x80, 0x01, 1, 33, 1],
        &[10; 32],
        &[2],
        &[11; 16],
        &[12; 16],
        &[1],
        &[13; 32],
        b"\x05asl 1",
    ]
    .concat();
    assert_eq!(example().encode().unwrap(), expected);
    assert_eq!(Lineage::decode(&expected), Ok(example()));
    assert_eq!(
        Lineage::decode(&retirement().encode().unwrap()),
        Ok(retirement())
    );
    let long = Lineage {
        position: LogPosition(u64::MAX),
        artifacts: u64::MAX,
        bytes: u64::MAX,
        missing: u64::MAX,
        log: vec![Key([1; 32]); LOGS_MAX],
        sessions: (0..SESSIONS_MAX as u128)
            .map(|n| SessionId(n.to_be_bytes()))
            .collect(),
        tool: "x".repeat(TOOL_MAX),
        ..example()
    };
    let bytes = long.encode().unwrap();
    // The bits that are known take one byte of a number that could have five.
    assert_eq!(bytes.len(), Lineage::LEN_MAX - 4);
    assert_eq!(Lineage::decode(&bytes), Ok(long));
}

#[test]
fn each_rule_has_its_refusal() {
    type E = LineageError;
    let refused = |lineage: &Lineage, edit: &dyn Fn(&mut Lineage)| {
        let mut lineage = lineage.clone();
        edit(&mut lineage);
        lineage.encode().unwrap_err()
    };
    let of = |edit: &dyn Fn(&mut Lineage)| refused(&example(), edit);
    assert_eq!(of(&|l| l.parent = l.child), E::SameDomain);
    assert_eq!(of(&|l| l.log.clear()), E::Logs { count: 0 });
    let many = vec![Key([1; 32]); 1025];
    assert_eq!(of(&|l| l.log = many.clone()), E::Logs { count: 1025 });
    assert_eq!(of(&|l| l.level = Level::Bytes), E::Sessions { count: 2 });
    let many: Vec<SessionId> = (0..4097u128).map(|n| SessionId(n.to_be_bytes())).collect();
    assert_eq!(
        of(&|l| l.sessions = many.clone()),
        E::Sessions { count: 4097 }
    );
    assert_eq!(of(&|l| l.sessions.reverse()), E::Order);
    assert_eq!(of(&|l| l.sessions[1] = l.sessions[0]), E::Order);
    assert_eq!(of(&|l| l.checks.0 = 64), E::Checks(64));
    assert_eq!(of(&|l| l.missing = 10), E::Missing);
    assert_eq!(of(&|l| l.tool = "x".repeat(65)), E::Tool);
    assert_eq!(of(&|l| l.tool = "\u{1b}[2J".into()), E::Tool);
    let of = |edit: &dyn Fn(&mut Lineage)| refused(&retirement(), edit);
    assert_eq!(of(&|l| l.log = example().log), E::Logs { count: 1 });
    assert_eq!(
        of(&|l| l.sessions = example().sessions),
        E::Sessions { count: 2 }
    );
    assert_eq!(of(&|l| l.prev = None), E::NoSuccessor);
}

/// What a reader refuses is not only what a writer refuses: the bytes are made by hand.
#[test]
fn no_other_bytes_are_a_lineage() {
    let bytes = example().encode().unwrap();
    for cut in 0..bytes.len() {
        assert!(Lineage::decode(&bytes[..cut]).is_err(), "cut to {cut}");
    }
    let mut more = bytes.clone();
    more.push(0);
    let found = Lineage::decode(&more).unwrap_err();
    assert!(matches!(
        found,
        LineageError::Codec(CodecError::Trailing { bytes: 1, .. })
    ));
    for (at, value) in [(8, 3), (9, 2)] {
        let mut unknown = bytes.clone();
        unknown[at] = value;
        let found = Lineage::decode(&unknown).unwrap_err();
        assert!(
            matches!(found, LineageError::Codec(CodecError::Malformed { .. })),
            "byte {at}"
        );
    }
    let same = [&bytes[..74], &bytes[10..42], &bytes[106..]].concat();
    assert_eq!(Lineage::decode(&same), Err(LineageError::SameDomain));
}

/// Whatever makes it another promotion makes it another session; what is only known at its end does not.
#[test]
fn a_promotion_is_named_by_what_it_begins_with() {
    let id = example().promote_id();
    let begun: [&dyn Fn(&mut Lineage); 9] = [
        &|l| l.parent.0[0] ^= 1,
        &|l| l.child.0[0] ^= 1,
        &|l| l.store.0[0] ^= 1,
        &|l| l.position.0 += 1,
        &|l| l.chain.0[0] ^= 1,
        &|l| l.manifest_root.0[0] ^= 1,
        &|l| l.op = Op::Adopt,
        &|l| l.level = Level::Bytes,
        &|l| l.prev = None,
    ];
    for (at, edit) in begun.iter().enumerate() {
        let mut other = example();
        edit(&mut other);
        assert_ne!(other.promote_id(), id, "change {at}");
    }
    let ended = Lineage {
        missing: 0,
        checks: Checks::ALL,
        log: vec![],
        sessions: vec![],
        tool: String::new(),
        ..example()
    };
    assert_eq!(ended.promote_id(), id);
    assert_eq!(example().session().0, id[..16]);
}

#[test]
fn contents_are_the_tree_of_the_documented_leaves() {
    let mut contents = Contents::default();
    assert_eq!(contents.root(), empty_root());
    contents.push(&Key([1; 32]), 5);
    contents.push(&Key([2; 32]), 258);
    let leaf = |key: u8, len: [u8; 8]| leaf_hash(&[[key; 32].as_slice(), &len].concat());
    let root = node_hash(
        &leaf(1, [5, 0, 0, 0, 0, 0, 0, 0]),
        &leaf(2, [2, 1, 0, 0, 0, 0, 0, 0]),
    );
    assert_eq!(contents.root(), root);
    assert_eq!((contents.artifacts(), contents.bytes()), (2, 263));
}

#[test]
fn a_signature_is_of_one_lineage_for_one_of_its_domains() {
    let body = example().encode().unwrap();
    let key = signer(7);
    let signature = sign(&key, &example().child, &body);
    let verify = |domain: &DomainId, body: &[u8]| {
        signature
            .verify(Context::Lineage, domain, body, &key.public())
            .is_ok()
    };
    assert!(verify(&example().child, &body));
    assert!(!verify(&example().parent, &body));
    let other = Lineage {
        missing: 2,
        ..example()
    };
    assert!(!verify(&example().child, &other.encode().unwrap()));
}
