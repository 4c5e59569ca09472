//! Requests: their one form, what each changed byte does, and every reason to refuse one.

use super::*;
use crate::author::AuthorError;
use crate::chain::ChainError;
use crate::dam::{Dam, DamError, Kind, Member, Reason, Revocation, Witness, WitnessMode};
use crate::error::Error;
use crate::fixture::{CHECKPOINT, HOST, NEXT, ROOT, genesis, genesis_with, signer};
use crate::policy::Policy;
use asl_store::{LogPosition, StoreId};

const PRODUCE: u8 = 20;
const CHECKS: u8 = 21;

fn chain() -> Chain {
    genesis().found().unwrap()
}

/// A chain after one more update.
fn updated(chain: &Chain, nonce: u8, edit: impl FnOnce(&mut Dam, &mut Policy)) -> Chain {
    let mut next = chain.clone();
    let draft = Draft::update(chain, [nonce; 32], 7, edit).unwrap();
    let draft = draft.signed([&signer(ROOT)]);
    draft.continue_chain(&mut next).unwrap();
    next
}

fn asked_for(chain: &Chain, keys: &[(u8, Roles)]) -> Asked {
    let mut keys: Vec<Principal> = keys
        .iter()
        .map(|(n, roles)| Principal {
            key: signer(*n).public(),
            roles: *roles,
        })
        .collect();
    keys.sort_by_key(|principal| principal.key.id());
    Asked {
        domain: chain.domain(),
        version: chain.head().dam.version,
        manifest: chain.head_key(),
        name: "cellar".into(),
        keys,
    }
}

fn asked(chain: &Chain) -> Asked {
    asked_for(
        chain,
        &[(PRODUCE, Roles::PRODUCE), (CHECKS, Roles::CHECKPOINT)],
    )
}

/// Signs without a look at what is asked for, as somebody with another program would.
fn forged(asked: Asked, chain: &Chain) -> Request {
    let draft = Draft::update(
        chain,
        asked.artifact().0,
        chain.head().dam.created_hint,
        |dam, _| {
            dam.principals.extend(asked.keys.iter().cloned());
        },
    );
    let dam = draft.map_or(Vec::new(), |draft| draft.dam);
    let signers: Vec<Signer> = (1..=255).map(signer).collect();
    let signatures = asked.keys.iter().map(|principal| {
        let mut signers = signers.iter();
        let key = signers
            .find(|signer| signer.public() == principal.key)
            .unwrap();
        Signature::new(key, Context::Dam, &asked.domain, &dam).bytes
    });
    Request {
        signatures: signatures.collect(),
        asked,
    }
}

fn request(chain: &Chain) -> Request {
    let keys = [signer(PRODUCE), signer(CHECKS)];
    let signed = asked(chain).signed(chain, |id| keys.iter().find(|key| key.id() == *id));
    signed.unwrap()
}

fn refusal(request: &Request, chain: &Chain) -> HostError {
    match request.draft(chain).unwrap_err() {
        Error::Host(error) => error,
        error => panic!("{error:?}"),
    }
}

#[test]
fn the_bytes_are_the_documented_ones() {
    let request = request(&chain());
    let text = request.text();
    let keys = &request.asked.keys;
    let core = format!(
        "asl host request 1\ndomain {}\nmanifest 0 {}\nhost cellar\nkey {} ed25519 {}\nkey {} ed25519 {}\n",
        chain().domain(),
        chain().head_key(),
        keys[0].roles,
        hex(keys[0].key.bytes()),
        keys[1].roles,
        hex(keys[1].key.bytes()),
    );
    assert_eq!(request.asked.text(), core);
    assert!(text.starts_with(&core), "{text}");
    assert_eq!(text.lines().count(), 8);
    assert_eq!(Request::open(text.as_bytes()), Ok(request.clone()));
    assert_eq!(Asked::open(core.as_bytes()), Ok(request.asked.clone()));
    let digest = sha256(&[b"asl.host.v1\0", core.as_bytes()]);
    assert_eq!(request.asked.fingerprint().0, digest[..10]);
    assert!(text.len() < 1000, "a QR code takes it: {}", text.len());
}

/// Both machines make the manifest, and it is the same; with a root's signature every reader takes it.
#[test]
fn the_signatures_are_those_that_the_chain_asks_for() {
    let mut chain = chain();
    let request = request(&chain);
    let draft = request.draft(&chain).unwrap();
    assert_eq!(draft.dam, request.asked.draft(&chain).unwrap().dam);
    let alone = draft.continue_chain(&mut chain.clone()).unwrap_err();
    assert!(
        matches!(alone, AuthorError::Chain(ChainError::RootThreshold(_))),
        "{alone:?}"
    );
    let signed = draft.signed([&signer(ROOT)]);
    signed.continue_chain(&mut chain).unwrap();
    let head = &chain.head().dam;
    assert!(head.has_role(&signer(PRODUCE).id(), Roles::PRODUCE));
    assert!(head.has_role(&signer(CHECKS).id(), Roles::CHECKPOINT));
    assert_eq!(head.principals.len(), 4);
    assert_eq!(head.nonce, request.asked.artifact().0);
    assert_eq!(request.asked.granted(&chain), Some(chain.head_key()));
    // The same keys ask for the same, byte for byte.
    assert_eq!(super::tests::request(&super::tests::chain()), request);
}

/// Whatever is changed is noticed: it cannot be read, or what it asks for was not signed.
#[test]
fn every_byte_counts() {
    let chain = chain();
    let text = request(&chain).text();
    let (mut unread, mut refused) = (0, 0);
    for at in 0..text.len() {
        for change in [1u8, 2, 4, 8, 16, 32] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= change;
            match Request::open(&bytes) {
                Err(_) => unread += 1,
                Ok(read) => {
                    assert!(read.draft(&chain).is_err(), "byte {at} ^ {change}");
                    refused += 1;
                }
            }
        }
    }
    assert!(unread > 1000 && refused > 500, "{unread} {refused}");
    for cut in 0..text.len() {
        assert!(
            Request::open(&text.as_bytes()[..cut]).is_err(),
            "cut to {cut}"
        );
    }
    for more in ["\n", " ", "x", "signed 00\n"] {
        assert!(
            Request::open(format!("{text}{more}").as_bytes()).is_err(),
            "{more:?}"
        );
    }
    assert!(Request::open(text.replace('\n', "\r\n").as_bytes()).is_err());
}

#[test]
fn there_is_one_form() {
    let chain = chain();
    let request = request(&chain);
    let text = request.text();
    let line = |changed: String| match Request::open(changed.as_bytes()) {
        Err(HostError::Line { line }) => line,
        other => panic!("{other:?}"),
    };
    assert_eq!(line(String::new()), 1);
    assert_eq!(line(text.replace("request 1", "request 2")), 1);
    assert_eq!(line(text.replace("domain asl1", "domain ASL1")), 2);
    let id = chain.domain();
    assert_eq!(line(text.replace(&id.to_string(), &id.grouped())), 2);
    assert_eq!(line(text.replace("manifest 0 ", "manifest 00 ")), 3);
    assert_eq!(line(text.replace("manifest 0 ", "manifest +0 ")), 3);
    assert_eq!(line(text.replace("host cellar\n", "")), 4);
    assert_eq!(line(text.replace(" ed25519 ", " rsa ")), 5);
    assert_eq!(line(text.replace("key produce", "key everything")), {
        1 + text
            .lines()
            .position(|line| line.starts_with("key produce"))
            .unwrap()
    });
    // Keys in another order, a key twice, none.
    let mut turned = request.clone();
    turned.asked.keys.reverse();
    assert_eq!(line(turned.text()), 6);
    let mut twice = request.clone();
    twice.asked.keys[1] = twice.asked.keys[0].clone();
    assert_eq!(line(twice.text()), 6);
    let mut none = request.clone();
    (none.asked.keys, none.signatures) = (Vec::new(), Vec::new());
    assert_eq!(line(none.text()), 5);
    let mut unsigned = request.clone();
    unsigned.signatures.pop();
    assert_eq!(line(unsigned.text()), 8);
    let mut name = request.clone();
    for bad in [
        "",
        " cellar",
        "cellar ",
        "a\u{1b}[2J",
        "a\u{202e}b",
        &"x".repeat(65),
    ] {
        name.asked.name = bad.into();
        assert!(Request::open(name.text().as_bytes()).is_err(), "{bad:?}");
        assert!(!is_name(bad), "{bad:?}");
    }
    let long = vec![b'x'; REQUEST_LEN_MAX + 1];
    assert_eq!(
        Request::open(&long),
        Err(HostError::TooLong {
            len: long.len() as u64
        })
    );
    // Eight keys are the most; a weak key is none.
    let many: Vec<(u8, Roles)> = (30..39).map(|n| (n, Roles::PRODUCE)).collect();
    let many = forged(asked_for(&chain, &many), &chain);
    assert_eq!(line(many.text()), 13);
    let weak = text.replace(
        &hex(request.asked.keys[0].key.bytes()),
        &format!("01{}", "00".repeat(31)),
    );
    assert_eq!(
        Request::open(weak.as_bytes()),
        Err(HostError::Key(KeyError::Weak))
    );
}

#[test]
fn it_is_for_one_domain_and_one_manifest() {
    let chain = chain();
    let request = request(&chain);
    let other = genesis_with(|dam, _| dam.nonce = [1; 32]).found().unwrap();
    assert_eq!(
        refusal(&request, &other),
        HostError::OtherDomain {
            expected: other.domain(),
            found: chain.domain()
        }
    );
    // Named for the other domain, its signatures say nothing.
    let mut renamed = request.clone();
    renamed.asked.domain = other.domain();
    renamed.asked.manifest = other.head_key();
    assert!(matches!(
        refusal(&renamed, &other),
        HostError::Possession { .. }
    ));

    let newer = updated(&chain, 1, |dam, _| dam.label = "newer".into());
    assert_eq!(
        refusal(&request, &newer),
        HostError::Overtaken {
            version: 0,
            head: 1
        }
    );
    let ahead = super::tests::request(&newer);
    assert!(matches!(
        refusal(&ahead, &chain),
        HostError::UnknownManifest { version: 1, .. }
    ));
    // A second update of the same manifest, which lost here.
    let theirs = updated(&chain, 2, |dam, _| dam.label = "theirs".into());
    let lost = super::tests::request(&theirs);
    let mut both = newer.clone();
    let second = Draft::update(&chain, [2; 32], 7, |dam, _| dam.label = "theirs".into()).unwrap();
    assert!(
        second
            .signed([&signer(ROOT)])
            .continue_chain(&mut both)
            .is_err()
    );
    assert!(matches!(
        refusal(&lost, &newer),
        HostError::UnknownManifest { .. }
    ));
    assert_eq!(refusal(&lost, &both), HostError::NotOnPath { version: 1 });
    // A true manifest with another version.
    let mut version = request.clone();
    version.asked.version = 1;
    assert!(matches!(
        refusal(&version, &chain),
        HostError::UnknownManifest { version: 1, .. }
    ));
}

#[test]
fn keys_that_are_known_are_not_listed_again() {
    let chain = chain();
    for n in [ROOT, HOST, CHECKPOINT] {
        let again = forged(asked_for(&chain, &[(n, Roles::PRODUCE)]), &chain);
        let key = signer(n).id();
        assert_eq!(refusal(&again, &chain), HostError::Listed { key }, "{n}");
    }
    let watched = genesis_with(|dam, _| {
        dam.witness = Witness {
            mode: WitnessMode::Single,
            members: vec![Member {
                key: signer(40).public(),
                name: "w".into(),
            }],
            threshold: 1,
        }
    });
    let watched = watched.found().unwrap();
    let witness = forged(asked_for(&watched, &[(40, Roles::PRODUCE)]), &watched);
    assert_eq!(
        refusal(&witness, &watched),
        HostError::Listed {
            key: signer(40).id()
        }
    );
    let revoked = updated(&chain, 1, |dam, _| {
        dam.revoke(Revocation {
            key: signer(PRODUCE).id(),
            store: StoreId([1; 16]),
            position: LogPosition(3),
            reason: Reason::Lost,
        });
    });
    let back = forged(asked(&revoked), &revoked);
    assert_eq!(
        refusal(&back, &revoked),
        HostError::Revoked {
            key: signer(PRODUCE).id()
        }
    );

    // Two requests with one key: the first that is granted has it.
    let (first, mut second) = (request(&chain), asked(&chain));
    second.name = "attic".into();
    let second = forged(second, &chain);
    let mut after = chain.clone();
    let granted = first.draft(&chain).unwrap().signed([&signer(ROOT)]);
    granted.continue_chain(&mut after).unwrap();
    assert!(matches!(refusal(&second, &after), HostError::Listed { .. }));
    assert_eq!(second.asked.granted(&after), None);
    // The next key, committed to and not yet revealed, is refused by the rules on a manifest.
    let next = forged(asked_for(&chain, &[(NEXT, Roles::PRODUCE)]), &chain);
    assert!(matches!(
        next.draft(&chain),
        Err(Error::Author(AuthorError::Dam(DamError::NextListed { .. })))
    ));
}

#[test]
fn a_host_gets_what_a_host_needs() {
    let chain = chain();
    for roles in [
        Roles::FEDERATE,
        Roles::AUDIT,
        Roles::PUBLISH,
        Roles::PRODUCE | Roles::FEDERATE,
        Roles::PRODUCE | Roles::AUDIT,
        Roles::PRODUCE | Roles::CHECKPOINT,
    ] {
        let more = forged(asked_for(&chain, &[(PRODUCE, roles)]), &chain);
        let key = signer(PRODUCE).id();
        assert_eq!(refusal(&more, &chain), HostError::Roles { key, roles });
        assert_eq!(Request::open(more.text().as_bytes()), Ok(more));
    }
    let two = asked_for(
        &chain,
        &[(PRODUCE, Roles::PRODUCE), (CHECKS, Roles::PRODUCE)],
    );
    assert!(matches!(
        refusal(&forged(two, &chain), &chain),
        HostError::Roles { .. }
    ));
    for one in [(PRODUCE, Roles::PRODUCE), (CHECKS, Roles::CHECKPOINT)] {
        let one = forged(asked_for(&chain, &[one]), &chain);
        assert!(one.draft(&chain).is_ok());
    }
    assert_eq!(chain.head().dam.kind, Kind::Personal);
}

#[test]
fn who_has_not_the_key_proves_nothing() {
    let chain = chain();
    let mut stolen = request(&chain);
    let key = stolen.asked.keys[1].key.id();
    stolen.signatures[1] = stolen.signatures[0];
    assert_eq!(refusal(&stolen, &chain), HostError::Possession { key });
    let only = [signer(PRODUCE)];
    let signed = asked(&chain).signed(&chain, |id| only.iter().find(|key| key.id() == *id));
    assert!(matches!(
        signed,
        Err(Error::Host(HostError::Possession { .. }))
    ));
}

#[test]
fn fingerprints_are_read_as_people_write_them() {
    let request = request(&chain());
    let fingerprint = request.asked.fingerprint();
    let text = fingerprint.to_string();
    assert_eq!(text.len(), 19);
    for written in [
        text.clone(),
        text.to_uppercase(),
        text.replace('-', ""),
        text.replace('-', " "),
    ] {
        assert_eq!(written.parse(), Ok(fingerprint), "{written}");
    }
    for wrong in [
        "",
        "qpzr",
        &text[1..],
        &format!("{text}q"),
        &text.replace('-', "_"),
    ] {
        assert_eq!(wrong.parse::<Fingerprint>(), Err(NotFingerprint), "{wrong}");
    }
    assert_eq!(request.require(&fingerprint), Ok(()));
    let mut other = request.clone();
    other.asked.name = "attic".into();
    assert!(matches!(
        other.require(&fingerprint),
        Err(HostError::Fingerprint { .. })
    ));
}
