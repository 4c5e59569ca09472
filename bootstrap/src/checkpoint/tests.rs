//! Checkpoints against everything that is not one of this log.

use zeroize::Zeroizing;

use super::*;
use crate::key::Secret;
use crate::tlog::leaf_hash;

fn signer(seed: u8) -> Signer {
    Signer::new(&Secret::from_seed(Zeroizing::new([seed; 32])))
}

fn origin() -> Origin {
    Origin {
        domain: DomainId::of_genesis(b"genesis"),
        store: StoreId([0xab; 16]),
    }
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        origin: origin(),
        size: 17,
        root: leaf_hash(b"root"),
    }
}

#[test]
fn the_text_is_as_specified_and_comes_back() {
    let text = checkpoint().to_string();
    let expected = format!(
        "{}/{}\n17\n{}\n",
        DomainId::of_genesis(b"genesis"),
        "ab".repeat(16),
        BASE64.encode(leaf_hash(b"root").0)
    );
    assert_eq!(text, expected);
    assert_eq!(Checkpoint::parse(&text), Ok(checkpoint()));
}

#[test]
fn a_signed_checkpoint_opens_by_the_right_key_only() {
    let signed = checkpoint().sign(&signer(1)).unwrap();
    let bytes = signed.to_bytes();
    let key = |seed| signer(seed).public();
    let opened = SignedCheckpoint::open(&bytes, &origin(), &[key(2), key(1)]).unwrap();
    assert_eq!(opened, signed);
    assert_eq!(opened.signers(), [key(1)]);
    let unknown = |known| Err(NoteError::NoKnownSignature { known }.into());
    assert_eq!(
        SignedCheckpoint::open(&bytes, &origin(), &[key(2)]),
        unknown(1)
    );
    assert_eq!(SignedCheckpoint::open(&bytes, &origin(), &[]), unknown(0));
    // Under another name than the domain's the right key does not count.
    let renamed = Note::sign(&checkpoint().to_string(), "name", &signer(1)).unwrap();
    assert_eq!(
        SignedCheckpoint::of_note(renamed, &origin(), &[key(1)]),
        unknown(1)
    );
    // Told twice, it still is one key.
    let opened = SignedCheckpoint::open(&bytes, &origin(), &[key(1), key(1)]).unwrap();
    assert_eq!(opened.signers(), [key(1)]);
}

#[test]
fn a_checkpoint_of_another_log_is_refused() {
    let bytes = checkpoint().sign(&signer(1)).unwrap().to_bytes();
    let keys = [signer(1).public()];
    let other_domain = Origin {
        domain: DomainId::of_genesis(b"another"),
        ..origin()
    };
    let other_store = Origin {
        store: StoreId([1; 16]),
        ..origin()
    };
    for expected in [other_domain, other_store] {
        let refused = CheckpointError::ForeignOrigin {
            expected: Box::new(expected),
            found: Box::new(origin()),
        };
        assert_eq!(
            SignedCheckpoint::open(&bytes, &expected, &keys),
            Err(refused)
        );
    }
}

#[test]
fn every_flipped_or_missing_byte_is_refused() {
    let keys = [signer(1).public()];
    let good = checkpoint().sign(&signer(1)).unwrap().to_bytes();
    let accepts = |bytes: &[u8]| SignedCheckpoint::open(bytes, &origin(), &keys).is_ok();
    assert!(accepts(&good));
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(!accepts(&bytes), "bit {bit} of byte {at}");
        }
        let mut bytes = good.clone();
        bytes.remove(at);
        assert!(!accepts(&bytes), "without byte {at}");
    }
}

#[test]
fn each_malformation_has_its_error() {
    let text = checkpoint().to_string();
    let lines: Vec<&str> = text.lines().collect();
    let with = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line;
        Checkpoint::parse(&(lines.join("\n") + "\n")).unwrap_err()
    };
    for size in [
        "",
        "-1",
        "+1",
        "017",
        "00",
        "1 ",
        "1e3",
        "0x10",
        "١",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999999999",
    ] {
        assert_eq!(with(1, size), CheckpointError::Size, "{size}");
    }
    let root = lines[2];
    for bad in [
        "",
        "AAAA",
        &root[1..],
        &format!("{root}A"),
        &root.replace('=', ""),
    ] {
        assert_eq!(with(2, bad), CheckpointError::Root, "{bad}");
    }
    // Bits that no byte holds: another text for the same root.
    let at = root.len() - 2;
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let last = alphabet.find(&root[at..=at]).unwrap();
    let stray = format!("{}{}=", &root[..at], &alphabet[last + 1..last + 2]);
    assert_eq!(with(2, &stray), CheckpointError::Root);
    let id = checkpoint().origin.domain;
    let store = checkpoint().origin.store;
    for bad in [
        String::new(),
        id.to_string(),
        format!("{id}{store}"),
        format!("{id}/"),
        format!("/{store}"),
        format!("{id}/{store}/"),
        format!("{}/{store}", id.grouped()),
        format!("{}/{store}", id.to_string().to_uppercase()),
        format!("{id}/{}", store.to_string().to_uppercase()),
        format!(" {id}/{store}"),
    ] {
        assert_eq!(with(0, &bad), CheckpointError::Origin, "{bad}");
    }
    let parse = |text: &str| Checkpoint::parse(text).unwrap_err();
    assert_eq!(parse(""), CheckpointError::Lines { found: 0 });
    assert_eq!(
        parse(&lines.join("\n")),
        CheckpointError::Lines { found: 3 }
    );
    assert_eq!(
        parse(&format!("{text}extension\n")),
        CheckpointError::Lines { found: 4 }
    );
    assert_eq!(
        parse(&format!("{text}\n")),
        CheckpointError::Lines { found: 4 }
    );
    assert_eq!(parse(&text.replace('\n', "\r\n")), CheckpointError::Origin);
}

#[test]
fn an_empty_log_has_one_root() {
    let empty = Checkpoint {
        size: 0,
        root: empty_root(),
        ..checkpoint()
    };
    let bytes = empty.sign(&signer(1)).unwrap().to_bytes();
    let opened = SignedCheckpoint::open(&bytes, &origin(), &[signer(1).public()]).unwrap();
    assert_eq!(*opened.checkpoint(), empty);
    let wrong = Checkpoint {
        size: 0,
        ..checkpoint()
    };
    assert_eq!(wrong.sign(&signer(1)), Err(CheckpointError::EmptyRoot));
    let huge = Checkpoint {
        size: u64::MAX,
        ..checkpoint()
    };
    assert_eq!(huge.sign(&signer(1)), Err(CheckpointError::Size));
}
