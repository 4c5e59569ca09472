//! Notes against everything that is not one.

use zeroize::Zeroizing;

use super::*;
use crate::key::Secret;

fn signer(seed: u8) -> Signer {
    Signer::new(&Secret::from_seed(Zeroizing::new([seed; 32])))
}

const TEXT: &str = "a text\n\nof three lines\n";

fn key(name: &str, seed: u8) -> NoteKey {
    NoteKey::new(name, Kind::Plain, signer(seed).public()).unwrap()
}

fn witness(name: &str, seed: u8) -> NoteKey {
    NoteKey::new(name, Kind::Cosignature, signer(seed).public()).unwrap()
}

fn note() -> Note {
    Note::sign(TEXT, "example.org/log", &signer(1)).unwrap()
}

/// The example of the signed-note specification's Go library: published keys and notes.
#[test]
fn verifies_what_go_published() {
    // From the documentation of golang.org/x/mod/sumdb/note.
    let peter = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let enoch = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
    let note = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\
        \n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n\
        — EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";
    let keys: Vec<NoteKey> = [peter, enoch].map(|key| key.parse().unwrap()).into();
    for (key, text) in keys.iter().zip([peter, enoch]) {
        assert_eq!(key.to_string(), text);
    }
    let note = Note::parse(note.as_bytes()).unwrap();
    let signed = note.verify(&keys).unwrap();
    let names: Vec<_> = signed
        .iter()
        .map(|signed| &signed.key.id().name[..])
        .collect();
    assert_eq!(names, ["PeterNeumann", "EnochRoot"]);
}

#[test]
fn a_note_comes_back_and_verifies() {
    let note = note();
    let text = note.to_string();
    assert!(text.starts_with("a text\n\nof three lines\n\n\u{2014} example.org/log "));
    assert_eq!(Note::parse(text.as_bytes()), Ok(note.clone()));
    let keys = [key("other", 2), key("example.org/log", 1)];
    let signed = note.verify(&keys).unwrap();
    assert_eq!(signed.len(), 1);
    assert_eq!(signed[0].key, &keys[1]);
    assert_eq!(signed[0].time, None);
}

#[test]
fn every_flipped_or_missing_byte_is_refused() {
    let keys = [key("example.org/log", 1)];
    let accepts = |bytes: &[u8]| Note::parse(bytes).is_ok_and(|note| note.verify(&keys).is_ok());
    let good = note().to_string().into_bytes();
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
        assert!(!accepts(&good[..at]), "cut at {at}");
        for extra in [b'\n', b' ', b'A', b'=', 0] {
            let mut bytes = good.clone();
            bytes.insert(at, extra);
            assert!(!accepts(&bytes), "{extra} before byte {at}");
        }
    }
}

#[test]
fn each_malformation_has_its_error() {
    let parse = |text: &str| Note::parse(text.as_bytes()).unwrap_err();
    let line = note().signatures()[0].to_string();
    assert_eq!(parse(""), NoteError::Unfinished);
    assert_eq!(parse("text"), NoteError::Unfinished);
    assert_eq!(parse("text\n"), NoteError::NoSeparator);
    assert_eq!(parse(&line), NoteError::NoSeparator);
    assert_eq!(parse("text\n\n"), NoteError::Unsigned);
    assert_eq!(parse(&format!("text\n\n{line}\n\n")), NoteError::Unsigned);
    assert_eq!(
        parse("text\n\nno signature\n"),
        NoteError::Line { number: 1 }
    );
    let second = format!("text\n\n{line}- {}", &line[4..]);
    assert_eq!(parse(&second), NoteError::Line { number: 2 });
    assert_eq!(
        parse(&format!("te\txt\n\n{line}")),
        NoteError::Control { offset: 2 }
    );
    assert_eq!(
        parse(&format!("te\rxt\n\n{line}")),
        NoteError::Control { offset: 2 }
    );
    // The one-character form of the terminal's escape sequence introducer.
    assert_eq!(
        parse(&format!("te\u{9b}xt\n\n{line}")),
        NoteError::Control { offset: 2 }
    );
    let bytes = [b"te\xff".as_slice(), b"xt\n\n", line.as_bytes()].concat();
    assert_eq!(Note::parse(&bytes), Err(NoteError::NotText { offset: 2 }));
    let long = "x".repeat(NOTE_LEN_MAX + 1);
    let len = long.len();
    assert_eq!(parse(&long), NoteError::TooLong { len });
    let many = format!("text\n\n{}", line.repeat(SIGNATURES_MAX + 1));
    assert_eq!(parse(&many), NoteError::TooManySignatures);
    let most = format!("text\n\n{}", line.repeat(SIGNATURES_MAX));
    assert!(Note::parse(most.as_bytes()).is_ok());
    for bad in [
        "\u{2014} name",
        "\u{2014} name ",
        "\u{2014}  AAAAAAAA",
        "\u{2014} na+me AAAAAAAA",
        "\u{2014} na\u{a0}me AAAAAAAA",
        "\u{2014} name AAAA",
        "\u{2014} name AAAAAA==",
        "\u{2014} name AAAAAAE",
        "\u{2014} name AAAAAAF=",
        "\u{2014} name AAAAAAA= ",
        "\u{2014}name AAAAAAA=",
        "",
    ] {
        let text = format!("text\n\n\u{2014} name AAAAAAA=\n{bad}\n\u{2014} name AAAAAAA=\n");
        let found = Note::parse(text.as_bytes());
        let by_blank = bad
            .is_empty()
            .then(|| Note::parse(text.as_bytes()).unwrap());
        match by_blank {
            // A blank line only moves what was signed into the text.
            Some(note) => assert_eq!(note.text(), "text\n\n\u{2014} name AAAAAAA=\n"),
            None => assert_eq!(found, Err(NoteError::Line { number: 2 }), "{bad:?}"),
        }
    }
}

#[test]
fn only_known_keys_count_and_each_once() {
    let note = note();
    let unknown = NoteError::NoKnownSignature { known: 1 };
    // Another name, another key, another kind of signature, no key at all.
    assert_eq!(
        note.verify(&[key("example.org/lof", 1)]),
        Err(unknown.clone())
    );
    assert_eq!(
        note.verify(&[key("example.org/log", 2)]),
        Err(unknown.clone())
    );
    assert_eq!(note.verify(&[witness("example.org/log", 1)]), Err(unknown));
    assert_eq!(
        note.verify(&[]),
        Err(NoteError::NoKnownSignature { known: 0 })
    );

    let line = note.signatures()[0].to_string();
    let thrice = format!("{note}{line}{line}");
    let thrice = Note::parse(thrice.as_bytes()).unwrap();
    let keys = [key("example.org/log", 1), key("example.org/two", 2)];
    assert_eq!(thrice.verify(&keys).unwrap().len(), 1);
    // A wrong signature of a known key is not covered by a right one, in whatever order.
    let other = Note::sign("another text\n", "example.org/log", &signer(1)).unwrap();
    let wrong = other.signatures()[0].to_string();
    for lines in [[&line, &wrong], [&wrong, &line]] {
        let both = format!("{TEXT}\n{}{}", lines[0], lines[1]);
        let both = Note::parse(both.as_bytes()).unwrap();
        let signer = keys[0].id().clone();
        assert_eq!(both.verify(&keys), Err(NoteError::Signature { signer }));
    }
    // Unless nobody knows the key.
    let two = note.with(other.signatures()[0].clone()).unwrap();
    assert_eq!(two.signatures().len(), 1, "one line for each key");
    assert!(two.verify(&keys[1..]).is_err());
}

#[test]
fn cosignatures_state_their_time_and_the_latest_is_told() {
    let keys = [witness("w", 3)];
    let line = |time| SignatureLine::cosign(TEXT, "w", &signer(3), time).unwrap();
    let verify = |lines: &[SignatureLine]| {
        let lines: String = lines.iter().map(ToString::to_string).collect();
        let note = Note::parse(format!("{TEXT}\n{lines}").as_bytes()).unwrap();
        let signed = note.verify(&keys)?;
        assert_eq!(signed.len(), 1);
        Ok(signed[0].time)
    };
    assert_eq!(verify(&[line(0)]), Ok(Some(0)));
    assert_eq!(verify(&[line(TIME_MAX)]), Ok(Some(TIME_MAX)));
    assert_eq!(verify(&[line(9), line(7)]), Ok(Some(9)));
    let time = TIME_MAX + 1;
    let found = SignatureLine::cosign(TEXT, "w", &signer(3), time);
    assert_eq!(found, Err(NoteError::Time { time }));
    let signer_name = keys[0].id().clone();
    let refused = Err(NoteError::Signature {
        signer: signer_name,
    });
    // The time is part of what is signed; one that cannot be stated is refused though signed.
    let mut other_time = line(7);
    other_time.signature[7] ^= 1;
    assert_eq!(verify(&[other_time]), refused);
    let mut impossible = line(7);
    let message = message(TEXT, Some(u64::MAX));
    impossible.signature = u64::MAX.to_be_bytes().to_vec();
    impossible
        .signature
        .extend(signer(3).sign_bytes(message.as_bytes()));
    assert_eq!(verify(&[impossible]), refused);
    for len in [1, 7, 8, 63, 64, 71, 73] {
        let mut other_len = line(7);
        other_len.signature.resize(len, 0);
        assert_eq!(verify(&[other_len]), refused, "{len}");
    }
    // A plain signature over the same bytes is no cosignature.
    let plain = Note::sign(&super::message(TEXT, Some(7)), "w", &signer(3)).unwrap();
    assert!(plain.verify(&keys).is_err());
}

#[test]
fn key_hashes_that_collide_confuse_nobody() {
    // Two known keys with one name and one hash: as if somebody had searched for the second.
    let first = key("n", 1);
    let mut second = key("n", 2);
    second.id.hash = first.id.hash;
    let by_first = Note::sign(TEXT, "n", &signer(1)).unwrap();
    for keys in [
        [first.clone(), second.clone()],
        [second.clone(), first.clone()],
    ] {
        let signed = by_first.verify(&keys).unwrap();
        assert_eq!(signed.len(), 1);
        assert_eq!(signed[0].key.key(), signer(1).public());
    }
    assert!(by_first.verify(&[second]).is_err());
}

#[test]
fn refuses_to_make_what_it_would_not_read() {
    let sign = |text: &str, name: &str| Note::sign(text, name, &signer(1)).unwrap_err();
    assert_eq!(sign("text", "n"), NoteError::Unfinished);
    assert_eq!(sign("", "n"), NoteError::Unfinished);
    assert_eq!(sign("te\u{1b}xt\n", "n"), NoteError::Control { offset: 2 });
    for name in ["", "a b", "a+b", "a\nb", "a\u{2003}b", "a\u{1b}"] {
        assert_eq!(sign("text\n", name), NoteError::Name, "{name:?}");
    }
    let long = format!("{}\n", "x".repeat(NOTE_LEN_MAX - 20));
    assert!(matches!(sign(&long, "n"), NoteError::TooLong { .. }));
    let mut note = note();
    for number in 1..SIGNATURES_MAX {
        let name = format!("w{number}");
        note = note
            .with(SignatureLine::sign(TEXT, &name, &signer(1)).unwrap())
            .unwrap();
    }
    let one_more = SignatureLine::sign(TEXT, "w", &signer(1)).unwrap();
    assert_eq!(note.with(one_more), Err(NoteError::TooManySignatures));
}

#[test]
fn refuses_texts_that_are_no_key() {
    let good = key("example.org/log", 1).to_string();
    assert_eq!(good.parse(), Ok(key("example.org/log", 1)));
    let parse = |text: &str| text.parse::<NoteKey>().unwrap_err();
    for bad in [
        "",
        "n",
        "n+00000000",
        "n+00000000+",
        "n+00000000+!",
        "n+00000000+AQ==",
    ] {
        assert_eq!(parse(bad), NoteError::KeyText, "{bad}");
    }
    let (head, _) = good.rsplit_once('+').unwrap();
    // A type that is not ours, then a weak key: the identity.
    let mut bytes = [0; 33];
    bytes[0] = 2;
    assert_eq!(
        parse(&format!("{head}+{}", BASE64.encode(bytes))),
        NoteError::KeyText
    );
    bytes[..2].copy_from_slice(&[1, 1]);
    let weak = format!("{head}+{}", BASE64.encode(bytes));
    assert_eq!(parse(&weak), NoteError::Key(KeyError::Weak));
    assert_eq!(parse(&good.replace("log", "lof")), NoteError::KeyHash);
    let upper = good.replace(head, &head.to_uppercase());
    assert!(matches!(parse(&upper), NoteError::KeyHash));
}
