//! An export says what the store's log says, and nothing that nobody signed.

use crate::author::Draft;
use crate::domain::Domain;
use crate::fixture::{
    CHECKPOINT, HOST, NEXT, ROOT, capture, fresh, genesis, publish, put, reader, signer, writer,
};
use asl_store::Authority;

use super::*;

/// A domain with an update, a fork of it, a rotation and checkpoints before and after.
fn store() -> (asl_store::vfs::fault::FaultVfs, Domain) {
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    publish(&mut w, &genesis());
    let sign = |w: &mut asl_store::StoreWriter| {
        w.commit().unwrap();
        let domain = Domain::read(w.handle()).unwrap().unwrap();
        let note = domain.head_checkpoint().sign(&signer(CHECKPOINT)).unwrap();
        let key = put(w, &note.to_bytes());
        w.authority(Authority::Checkpoint, &[key]).unwrap();
    };
    sign(&mut w);
    let chain = Domain::read(w.handle()).unwrap().unwrap().chain;
    for label in ["one", "two"] {
        let draft = Draft::update(&chain, [0xa1; 32], 6, |dam, _| dam.label = label.into());
        publish(&mut w, &draft.unwrap().signed([&signer(ROOT)]));
    }
    let mut chain = Domain::read(w.handle()).unwrap().unwrap().chain;
    let head = chain.head_key();
    let draft = Draft::rotation(&chain, head, [0xa2; 32], 7, |dam, _| {
        dam.roots = vec![signer(NEXT).public()];
        dam.next = vec![signer(70).public().next_digest()];
    });
    let draft = draft.unwrap().signed([&signer(NEXT)]);
    draft.continue_chain(&mut chain).unwrap();
    publish(&mut w, &draft);
    capture(&mut w, 50);
    sign(&mut w);
    capture(&mut w, 51);
    w.finish().unwrap();
    let domain = Domain::read(&reader(&vfs)).unwrap().unwrap();
    (vfs, domain)
}

#[test]
fn an_export_says_what_the_log_says() {
    let (vfs, domain) = store();
    let bytes = export(&reader(&vfs), &domain).unwrap();
    let read = Export::open(&bytes, Some(&domain.id())).unwrap();
    assert_eq!(read.chain.head_key(), domain.chain.head_key());
    assert_eq!(read.chain.head().dam.rotation, 1);
    assert_eq!(read.forks(), domain.chain.forks());
    assert_eq!(read.store, domain.store);
    for key in domain.manifests.keys() {
        assert_eq!(read.chain.standing(key), domain.chain.standing(key));
    }
    let last = domain.checkpoints.last().unwrap();
    let found = read.checkpoint.unwrap();
    assert_eq!(found.checkpoint.size, last.size);
    assert_eq!(found.checkpoint.root, last.root);
    assert_eq!(found.signers, [signer(CHECKPOINT).id()]);
    let other = DomainId([7; 32]);
    let error = Export::open(&bytes, Some(&other)).unwrap_err();
    assert!(matches!(error, ExportError::OtherDomain { .. }));
    // No secret of the domain is in it.
    for n in [ROOT, NEXT, HOST, CHECKPOINT] {
        let secret = signer(n).secret();
        let seed = secret.seed();
        assert!(!bytes.windows(seed.len()).any(|window| window == seed));
    }
}

/// Whatever byte is changed, no other domain, head or checkpoint comes out of it.
#[test]
fn a_changed_export_is_refused_or_says_the_same() {
    let (vfs, domain) = store();
    let bytes = export(&reader(&vfs), &domain).unwrap();
    for cut in [0, 7, 8, 30, bytes.len() - 1] {
        assert!(Export::open(&bytes[..cut], None).is_err(), "cut to {cut}");
    }
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        match Export::open(&changed, Some(&domain.id())) {
            Err(_) => refused += 1,
            // A signature that is not needed, or the evidence of a fork.
            Ok(read) => {
                assert_eq!(read.chain.head_key(), domain.chain.head_key(), "byte {at}");
                assert!(read.checkpoint.is_some());
            }
        }
    }
    assert!(refused * 7 * 2 > bytes.len(), "only {refused} were refused");
}

/// The cosignatures come after the checkpoint, in records of their own; the export has them.
#[test]
fn an_export_has_the_cosignatures() {
    use crate::fixture::{checkpoint, domain, genesis_with, witnesses};
    use crate::note::SignatureLine;
    let vfs = fresh();
    let mut w = writer(&vfs, 2);
    publish(
        &mut w,
        &genesis_with(|dam, policy| {
            dam.witness = witnesses(&[21, 22, 23], 2);
            policy.witnessed = crate::policy::Witnessed::Required;
        }),
    );
    checkpoint(&mut w, CHECKPOINT);
    for n in [21, 22] {
        let before = domain(&w);
        let bare = export(w.handle(), &before).unwrap();
        let bare = Export::open(&bare, Some(&before.id())).unwrap();
        assert!(bare.checkpoint.is_none(), "too few cosigned");
        let text = before.unwitnessed[0].note;
        let text = crate::note::Note::parse(&w.handle().get_part(&text).unwrap()).unwrap();
        let name = format!("w{n}");
        let line = SignatureLine::cosign(text.text(), &name, &signer(n), 7).unwrap();
        crate::witness::record(&mut w, &before, line.to_string().as_bytes()).unwrap();
    }
    let after = domain(&w);
    let bytes = export(w.handle(), &after).unwrap();
    let found = Export::open(&bytes, Some(&after.id())).unwrap().checkpoint;
    let mut expected = vec![signer(21).id(), signer(22).id()];
    expected.sort();
    assert_eq!(found.unwrap().cosigners, expected);
}
