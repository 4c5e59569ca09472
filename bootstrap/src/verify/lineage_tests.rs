//! What a report says of links to other domains.

use asl_store::id::Digest;
use asl_store::vfs::fault::FaultVfs;
use asl_store::{Authority, Key, LogPosition, StoreId, StoreWriter};

use super::*;
use crate::domain::Problem;
use crate::fixture::*;
use crate::lineage::{self, Checks, Level, Lineage, Op};
use crate::tlog::empty_root;

/// A store with a domain, opened.
fn founded() -> (FaultVfs, StoreWriter) {
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    publish(&mut w, &genesis());
    (vfs, w)
}

fn report(writer: &StoreWriter) -> Report {
    verify(writer.handle(), &[], None).unwrap()
}

/// A link of the domain of this log to another.
fn link(of: &Domain, op: Op, child: DomainId, child_head: Key) -> Lineage {
    let (parent, child) = match op {
        Op::Retire => (child, of.id()),
        _ => (of.id(), child),
    };
    let none = op == Op::Retire;
    Lineage {
        op,
        level: Level::Semantics,
        parent,
        parent_head: of.chain.head_key(),
        child,
        child_genesis: child_head,
        child_head,
        store: StoreId([8; 16]),
        position: LogPosition(9),
        chain: Digest([7; 32]),
        manifest_root: empty_root(),
        artifacts: 0,
        bytes: 0,
        missing: 0,
        checks: Checks::ALL,
        log: if none { vec![] } else { vec![Key([6; 32])] },
        sessions: vec![],
        prev: none.then_some(Key([5; 32])),
        tool: "a test".into(),
    }
}

fn log_link(w: &mut StoreWriter, link: &Lineage, signatures: &[(u8, DomainId)]) -> Key {
    let body = link.encode().unwrap();
    let mut keys = vec![put(w, &body)];
    for (key, domain) in signatures {
        let signature = lineage::sign(&signer(*key), domain, &body);
        keys.push(put(w, &signature.encode()));
    }
    w.authority(Authority::Lineage, &keys).unwrap();
    keys[0]
}

#[test]
fn a_link_says_who_took_over_whom_and_whether_both_agreed() {
    const CHILD: u8 = 50;
    let (_vfs, mut w) = founded();
    let home = domain(&w);
    // The child is another domain with roots of its own.
    let draft = genesis_with(|dam, _| dam.roots = vec![signer(CHILD).public()]);
    let child = draft.domain();
    assert_ne!(child, home.id());
    let adopted = link(&home, Op::Adopt, child, Key::of(&draft.dam));

    // The child's root says nothing here without the domain's own.
    log_link(&mut w, &adopted, &[(CHILD, child)]);
    let alone = report(&w);
    assert_eq!(alone.found.len(), 1);
    assert_eq!(alone.class(), Some(Class::Authority));
    assert_eq!(alone.domain.lineage, []);

    let key = log_link(&mut w, &adopted, &[(ROOT, home.id()), (CHILD, child)]);
    let one_sided = report(&w);
    assert!(!one_sided.domain.is_blind());
    let state = &one_sided.domain.lineage[0];
    assert_eq!(state.lineage.as_ref(), Some(&adopted));
    assert_eq!(state.signers, [signer(ROOT).id()]);
    // Whose roots they are is not known without the child's manifest.
    assert_eq!(
        (state.child_signers.as_slice(), state.handed_over),
        (&[][..], false)
    );

    put(&mut w, &draft.dam);
    // A signature for the wrong domain is none.
    log_link(&mut w, &adopted, &[(ROOT, home.id()), (CHILD, home.id())]);
    let wrong = &domain(&w).lineage;
    // The record before it is judged anew, now that the manifest is here.
    assert_eq!(wrong[0].child_signers, [signer(CHILD).id()]);
    assert!(wrong[0].handed_over);
    assert_eq!(wrong.len(), 1, "the same link twice is one");
    let last = report(&w);
    let Claim::Lineage {
        artifact,
        lineage,
        handed_over,
        ..
    } = &last.proven.last().unwrap().claim
    else {
        panic!("{:?}", last.proven);
    };
    assert_eq!((artifact, *handed_over), (&key, true));
    assert_eq!(lineage.as_deref(), Some(&adopted));
    assert_eq!(last.domain.retired_to(), None);
}

/// The child's signature may come later, in a record of its own.
#[test]
fn a_handover_can_be_signed_later() {
    const CHILD: u8 = 50;
    let (_vfs, mut w) = founded();
    let home = domain(&w).id();
    let draft = genesis_with(|dam, _| dam.roots = vec![signer(CHILD).public()]);
    put(&mut w, &draft.dam);
    let adopted = link(&domain(&w), Op::Adopt, draft.domain(), Key::of(&draft.dam));
    log_link(&mut w, &adopted, &[(ROOT, home)]);
    assert!(!domain(&w).lineage[0].handed_over);
    log_link(&mut w, &adopted, &[(ROOT, home), (CHILD, draft.domain())]);
    let domain = domain(&w);
    assert_eq!(domain.lineage.len(), 1);
    assert!(domain.lineage[0].handed_over);
}

#[test]
fn a_link_stands_in_the_log_of_the_side_that_made_it() {
    let (_vfs, mut w) = founded();
    let home = domain(&w);
    let other = DomainId([9; 32]);
    for op in [Op::Adopt, Op::Fork, Op::Retire] {
        let mut turned = link(&home, op, other, Key([1; 32]));
        std::mem::swap(&mut turned.parent, &mut turned.child);
        log_link(&mut w, &turned, &[(ROOT, home.id())]);
    }
    let turned = report(&w);
    assert_eq!(turned.found.len(), 3);
    for found in &turned.found {
        assert_eq!(found.class, Class::Authority);
        let Wrong::Record(finding) = &found.wrong else {
            panic!("{found:?}");
        };
        assert!(matches!(finding.problem, Problem::LineageHome));
    }
    assert!(turned.domain.lineage.is_empty() && !turned.domain.is_blind());

    let retired = link(&home, Op::Retire, other, home.chain.head_key());
    log_link(&mut w, &retired, &[(ROOT, home.id())]);
    let domain = domain(&w);
    let record = domain.lineage[0].record;
    assert_eq!(domain.retired_to(), Some((other, record)));
    assert!(domain.lineage[0].handed_over);
}
