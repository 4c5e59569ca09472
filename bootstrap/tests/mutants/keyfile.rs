//! Key files: the encrypted file changed, and the text inside changed and encrypted again.
//!
//! The work factor is low, so that thousands can be opened; what depends on it is refused before any work is done.

use std::io::Write as _;

use age::secrecy::SecretString;
use age::{Encryptor, scrypt};
use asl_bootstrap::keyfile::{KeyFile, KeyFileError};
use asl_bootstrap::{DomainId, KeyId, Role};
use asl_store::id::hex;

use crate::mutate::{Rng, mutate, mutate_text};
use crate::support::{Pair, pair};
use crate::{Tally, budget, variants};

variants!(
    ERRORS,
    key_file_error,
    KeyFileError {
        Io,
        Exists,
        EmptyPassphrase,
        Encrypt,
        TooLong,
        NotAge,
        NotPassphrase,
        Work,
        WrongPassphrase,
        Damaged,
        Foreign,
        Newer,
        Malformed,
        KeyId,
        OtherDomain,
    }
);

const PASSPHRASE: &str = "abandon-ability-able";

/// What comes from the disk or from whoever asks, not from the bytes.
const NOT_OF_BYTES: &[&str] = &[
    "KeyFileError::Io",
    "KeyFileError::Exists",
    "KeyFileError::EmptyPassphrase",
    "KeyFileError::Encrypt",
    "KeyFileError::OtherDomain",
];

fn seal(text: &[u8], work_factor: u8) -> Vec<u8> {
    let mut recipient = scrypt::Recipient::new(SecretString::from(PASSPHRASE));
    recipient.set_work_factor(work_factor);
    wrap(text, &recipient)
}

fn wrap(text: &[u8], recipient: &dyn age::Recipient) -> Vec<u8> {
    let encryptor = Encryptor::with_recipients(std::iter::once(recipient)).unwrap();
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).unwrap();
    writer.write_all(text).unwrap();
    writer.finish().unwrap();
    sealed
}

fn line(role: &str, key: &Pair) -> String {
    let (id, seed) = (hex(&key.id()), hex(&key.0.to_bytes()));
    format!("key {role} ed25519 {id} {seed}\n")
}

fn text(domain: Option<DomainId>) -> String {
    let domain = domain.map_or("-".to_owned(), |id| id.to_string());
    let keys = [
        ("root", "root"),
        ("host", "laptop"),
        ("checkpoint", "checkpoints"),
    ];
    let lines: String = keys
        .iter()
        .map(|(role, name)| line(role, &pair(name)))
        .collect();
    format!("asl keys 1\ndomain {domain}\n{lines}")
}

fn ids(file: &KeyFile) -> Vec<(Role, KeyId)> {
    file.keys()
        .iter()
        .map(|key| (key.role, key.signer().id()))
        .collect()
}

/// The work that a file asks for, as far as it can be read.
fn work_factor(bytes: &[u8]) -> Option<u8> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().find(|line| line.starts_with("-> scrypt "))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Nobody who changes the file without the passphrase gets other keys out of it.
#[test]
fn files() {
    let mut rng = Rng::new(30);
    let mut tally = Tally::new("key file");
    let domain = Some(DomainId([7; 32]));
    let seed = seal(text(domain).as_bytes(), 2);
    let other = seal(text(None).as_bytes(), 3);
    let stranger = wrap(
        text(domain).as_bytes(),
        &age::x25519::Identity::generate().to_public(),
    );
    let expected = ids(&KeyFile::open(&seed, PASSPHRASE).unwrap());
    for _ in 0..budget(800) {
        let bytes = match rng.below(24) {
            0 => stranger.clone(),
            1 => {
                let asked = *rng.pick(&["19", "20", "63", "64", "255"]);
                let text = seed.iter().position(|byte| *byte == b'\n').unwrap() + 1;
                let end = text + seed[text..].iter().position(|byte| *byte == b'\n').unwrap();
                [&seed[..end - 1], asked.as_bytes(), &seed[end..]].concat()
            }
            2 => seed.clone(),
            3 => seed[..rng.below(seed.len())].to_vec(),
            4 if rng.one_in(8) => [seed.clone(), vec![0; 64 << 10]].concat(),
            _ => mutate(&mut rng, &seed, &other),
        };
        // Only work that was asked for by chance is left out: it would be done.
        if work_factor(&bytes).is_some_and(|asked| (9..=18).contains(&asked)) {
            continue;
        }
        let passphrase = if rng.one_in(20) {
            "another"
        } else {
            PASSPHRASE
        };
        match KeyFile::open(&bytes, passphrase) {
            Ok(file) => {
                assert_eq!(ids(&file), expected);
                assert_eq!(file.domain(), domain);
                assert_eq!(passphrase, PASSPHRASE);
                tally.accepted();
            }
            Err(error) => tally.refused(&[key_file_error(&error)]),
        }
    }
    let of_text = ["Foreign", "Newer", "Malformed", "KeyId"].map(|name| {
        let full = ERRORS
            .iter()
            .find(|error| error.ends_with(&format!("::{name}")));
        *full.unwrap()
    });
    tally.finish(ERRORS, &[NOT_OF_BYTES, &of_text].concat());
}

/// Whoever has the passphrase can write anything into the file: what is read from it is still what its seeds say.
#[test]
fn texts() {
    let mut rng = Rng::new(31);
    let mut tally = Tally::new("key file, text sealed anew");
    let other = text(None) + &line("witness", &pair("watch"));
    for _ in 0..budget(400) {
        let seed = text(rng.one_in(2).then(|| DomainId(rng.bytes())));
        let bytes = match rng.below(8) {
            0 => mutate(&mut rng, seed.as_bytes(), other.as_bytes()),
            1 => seed
                .replacen("keys 1", &format!("keys {}", rng.below(4)), 1)
                .into_bytes(),
            2 => {
                // A seed under the id of another.
                let (one, two) = (line("host", &pair("ada")), line("host", &pair("ben")));
                let (head, _) = one.rsplit_once(' ').unwrap();
                let (_, seed_of_two) = two.rsplit_once(' ').unwrap();
                format!("{seed}{head} {seed_of_two}").into_bytes()
            }
            3 => seed.clone().into_bytes(),
            4 => seed.to_uppercase().into_bytes(),
            5 => format!(
                "{seed}{}",
                line("host", &pair("host")).repeat(1 + rng.below(70))
            )
            .into_bytes(),
            _ => mutate_text(&mut rng, &seed, &other).into_bytes(),
        };
        match KeyFile::open(&seal(&bytes, 1), PASSPHRASE) {
            Ok(file) => {
                let read = String::from_utf8(bytes).unwrap();
                for (role, id) in ids(&file) {
                    let stated = format!("key {} ed25519 {id} ", role.word());
                    assert_eq!(read.matches(&stated).count(), 1, "{role:?}");
                }
                assert_eq!(read.lines().count(), 2 + file.keys().len());
                tally.accepted();
            }
            Err(error) => tally.refused(&[key_file_error(&error)]),
        }
    }
    let of_file = [
        "TooLong",
        "NotAge",
        "NotPassphrase",
        "Work",
        "WrongPassphrase",
        "Damaged",
    ]
    .map(|name| {
        let full = ERRORS
            .iter()
            .find(|error| error.ends_with(&format!("::{name}")));
        *full.unwrap()
    });
    tally.finish(ERRORS, &[NOT_OF_BYTES, &of_file].concat());
}
