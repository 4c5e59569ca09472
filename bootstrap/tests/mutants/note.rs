//! Notes, checkpoints, cosignatures, note keys, questions to witnesses.

use asl_bootstrap::checkpoint::{Checkpoint, CheckpointError, Origin, SignedCheckpoint};
use asl_bootstrap::key::KeyError;
use asl_bootstrap::note::{Kind, Note, NoteError, NoteKey, SignatureLine};
use asl_bootstrap::tlog::{TreeHash, empty_root};
use asl_bootstrap::witness::{Quorum, Request, RequestError, add_response};
use asl_bootstrap::{DomainId, PublicKey, Secret, Signer};
use asl_store::StoreId;
use ed25519_dalek::Signer as _;
use zeroize::Zeroizing;

use crate::mutate::{Rng, interesting, mutate, mutate_text};
use crate::support::{Pair, pair};
use crate::{Tally, budget, variants};

variants!(
    NOTE,
    note_error,
    NoteError {
        TooLong,
        NotText,
        Control,
        Unfinished,
        NoSeparator,
        Unsigned,
        Line,
        TooManySignatures,
        Name,
        KeyText,
        KeyHash,
        Key,
        Signature,
        NoKnownSignature,
        Time,
    }
);
variants!(
    CHECKPOINT,
    checkpoint_error,
    CheckpointError {
        Note,
        Lines,
        Origin,
        Size,
        Root,
        EmptyRoot,
        ForeignOrigin,
    }
);
variants!(
    REQUEST,
    request_error,
    RequestError {
        TooLong,
        NoSeparator,
        OldSize,
        Hash,
        TooManyHashes,
        Note,
    }
);
variants!(
    KEY,
    key_error,
    KeyError {
        Algorithm,
        NotAPoint,
        NonCanonical,
        Weak,
        Signature
    }
);

fn path(error: &CheckpointError) -> Vec<&'static str> {
    match error {
        CheckpointError::Note(inner) => vec![checkpoint_error(error), note_error(inner)],
        _ => vec![checkpoint_error(error)],
    }
}

fn signer(pair: &Pair) -> Signer {
    Signer::new(&Secret::from_seed(Zeroizing::new(pair.0.to_bytes())))
}

fn public(pair: &Pair) -> PublicKey {
    signer(pair).public()
}

fn origin() -> Origin {
    Origin {
        domain: DomainId([7; 32]),
        store: StoreId([8; 16]),
    }
}

/// A cosignature, made without the crate, which gives none without a witness's memory.
fn cosignature(text: &str, name: &str, by: &Pair, time: u64) -> SignatureLine {
    let key = NoteKey::new(name, Kind::Cosignature, public(by)).unwrap();
    let message = format!("cosignature/v1\ntime {time}\n{text}");
    let mut signature = time.to_be_bytes().to_vec();
    signature.extend(by.0.sign(message.as_bytes()).to_bytes());
    SignatureLine {
        key: key.id().clone(),
        signature,
    }
}

struct World {
    log: Pair,
    clock: Pair,
    watch: Pair,
    quorum: Quorum,
}

impl World {
    fn new() -> Self {
        let [log, clock, watch] = ["checkpoints", "clock", "watch"].map(pair);
        let members = [("clock", public(&clock)), ("watch", public(&watch))];
        Self {
            quorum: Quorum::new(members, 2).unwrap(),
            log,
            clock,
            watch,
        }
    }

    fn checkpoint(&self, rng: &mut Rng) -> Checkpoint {
        let size = interesting(rng) >> 1;
        Checkpoint {
            origin: origin(),
            size,
            root: match size {
                0 => empty_root(),
                _ => TreeHash(rng.bytes()),
            },
        }
    }

    /// Signed by the log, cosigned by both.
    fn note(&self, checkpoint: &Checkpoint) -> Note {
        let signed = checkpoint.sign(&signer(&self.log)).unwrap();
        let text = checkpoint.to_string();
        let note = signed.note().clone();
        let note = note
            .with(cosignature(&text, "clock", &self.clock, 5))
            .unwrap();
        note.with(cosignature(&text, "watch", &self.watch, 6))
            .unwrap()
    }

    fn open(&self, bytes: &[u8]) -> Result<SignedCheckpoint, CheckpointError> {
        SignedCheckpoint::open(bytes, &origin(), &[public(&self.log)])
    }
}

/// Whatever is done to a signed note, only what was signed is read from it.
#[test]
fn checkpoints() {
    let mut rng = Rng::new(20);
    let mut tally = Tally::new("checkpoint");
    let world = World::new();
    let mut other = world.note(&world.checkpoint(&mut rng)).to_string();
    for _ in 0..budget(2_500) {
        let checkpoint = world.checkpoint(&mut rng);
        let seed = world.note(&checkpoint).to_string();
        let bytes = match rng.below(4) {
            0 => mutate(&mut rng, seed.as_bytes(), other.as_bytes()),
            1 => mutate_text(&mut rng, &seed, &other).into_bytes(),
            2 => resigned(&mut rng, &world, &checkpoint, &other).into_bytes(),
            _ => lines(&mut rng, &seed, &checkpoint, &other).into_bytes(),
        };
        if let Ok(note) = Note::parse(&bytes) {
            assert_eq!(note.to_string().as_bytes(), bytes);
        }
        match world.open(&bytes) {
            Ok(signed) => {
                let read = signed.checkpoint();
                assert_eq!(Checkpoint::parse(signed.note().text()).as_ref(), Ok(read));
                assert_eq!(read.to_string(), signed.note().text());
                // It was signed: it is this one, the other one, or one that `resigned` had signed.
                let text = read.to_string();
                let message = signed.note().signatures().iter();
                assert!(message.clone().any(|line| {
                    let raw: Result<[u8; 64], _> = line.signature.as_slice().try_into();
                    raw.is_ok_and(|raw| public(&world.log).verify(text.as_bytes(), &raw).is_ok())
                }));
                match world.quorum.tally(&signed) {
                    Ok(tally) => {
                        for cosigner in &tally.cosigners {
                            let by = if cosigner.name == "clock" {
                                &world.clock
                            } else {
                                &world.watch
                            };
                            let line = cosignature(&text, &cosigner.name, by, cosigner.time);
                            assert!(signed.note().signatures().contains(&line));
                        }
                        assert!(tally.cosigners.len() <= 2);
                    }
                    Err(error) => assert!(matches!(error, NoteError::Signature { .. })),
                }
                tally.accepted();
            }
            Err(error) => tally.refused(&path(&error)),
        }
        other = seed;
    }
    let long = "x".repeat(asl_bootstrap::note::NOTE_LEN_MAX + 1);
    tally.refused(&path(&world.open(long.as_bytes()).unwrap_err()));
    tally.finish(
        &[NOTE, CHECKPOINT].concat(),
        &[
            // Of note keys and of signing, see `note_keys`.
            "NoteError::Name",
            "NoteError::KeyText",
            "NoteError::KeyHash",
            "NoteError::Key",
            "NoteError::Time",
        ],
    );
}

/// Another text, signed by the log's own key: what a log that does not keep to the format could sign.
fn resigned(rng: &mut Rng, world: &World, checkpoint: &Checkpoint, other: &str) -> String {
    let text = checkpoint.to_string();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match rng.below(8) {
        0 => {
            lines[1] = [
                "-1",
                "01",
                "1e3",
                "+5",
                "9223372036854775808",
                "",
                "18446744073709551616",
            ][rng.below(7)]
            .to_owned()
        }
        1 => lines[1] = interesting(rng).to_string(),
        2 => lines[0] = lines[0].to_uppercase(),
        3 => {
            lines[0] = Origin {
                store: StoreId(rng.bytes()),
                ..origin()
            }
            .to_string()
        }
        4 => lines[1] = "0".to_owned(),
        5 => lines.push("extension".to_owned()),
        6 => drop(lines[2].pop()),
        _ => return mutate_text(rng, &text, other),
    }
    let text = lines.join("\n") + "\n";
    let name = checkpoint.origin.domain.to_string();
    match Note::sign(&text, &name, &signer(&world.log)) {
        Ok(note) => note.to_string(),
        Err(_) => text,
    }
}

/// Other signature lines: forged, of another checkpoint, repeated, too many, by nobody known.
fn lines(rng: &mut Rng, seed: &str, checkpoint: &Checkpoint, other: &str) -> String {
    let note = Note::parse(seed.as_bytes()).unwrap();
    let of_other = Note::parse(other.as_bytes()).unwrap();
    let text = note.text().to_owned();
    let mut kept: Vec<SignatureLine> = note.signatures().to_vec();
    match rng.below(8) {
        0 => kept[0] = of_other.signatures()[0].clone(),
        1 => kept[1] = of_other.signatures()[1].clone(),
        2 => kept[1] = cosignature(&text, "clock", &pair("mallory"), 9),
        3 => kept[1].signature = cosignature(&text, "clock", &pair("mallory"), 9).signature,
        4 => {
            let at = rng.below(8);
            kept[1].signature[at] ^= 1 << rng.below(8);
        }
        5 => drop(kept.remove(0)),
        6 => kept = vec![kept[0].clone(); 71 + rng.below(4)],
        _ => {
            let stranger = checkpoint.sign(&signer(&pair("mallory"))).unwrap();
            kept.insert(0, stranger.note().signatures()[0].clone());
        }
    }
    let lines: String = kept.iter().map(ToString::to_string).collect();
    format!("{text}\n{lines}")
}

/// Answers of witnesses: whatever comes, no cosignature is added that its witness did not give for this checkpoint.
#[test]
fn answers() {
    let mut rng = Rng::new(21);
    let mut tally = Tally::new("cosignature");
    let world = World::new();
    for _ in 0..budget(2_000) {
        let checkpoint = world.checkpoint(&mut rng);
        let text = checkpoint.to_string();
        let signed = checkpoint.sign(&signer(&world.log)).unwrap();
        let time = interesting(&mut rng);
        let line = cosignature(&text, "clock", &world.clock, time);
        let both = [line.clone(), cosignature(&text, "watch", &world.watch, 3)];
        let good: String = both.iter().map(ToString::to_string).collect();
        let answer = match rng.below(6) {
            3 => Vec::new(),
            4 => {
                let stranger = cosignature(&text, "clock", &pair("mallory"), 3);
                stranger.to_string().into_bytes()
            }
            0 => mutate(&mut rng, good.as_bytes(), text.as_bytes()),
            1 => mutate_text(&mut rng, &good, &text).into_bytes(),
            2 => good.clone().into_bytes(),
            _ => line.to_string().repeat(70 + rng.below(6)).into_bytes(),
        };
        match add_response(signed.clone(), &answer, world.quorum.members()) {
            Ok(cosigned) => {
                assert_eq!(cosigned.checkpoint(), &checkpoint);
                let added = &cosigned.note().signatures()[1..];
                assert!(!added.is_empty() && added.iter().all(|line| both.contains(line)));
                let counted = world.quorum.tally(&cosigned).unwrap();
                assert_eq!(counted.cosigners.len(), added.len());
                assert!(time <= i64::MAX as u64 || !added.contains(&line));
                tally.accepted();
            }
            Err(error) => tally.refused(&[note_error(&error)]),
        }
    }
    let long = "x".repeat(asl_bootstrap::note::NOTE_LEN_MAX + 1);
    let checkpoint = world.checkpoint(&mut rng);
    let signed = checkpoint.sign(&signer(&world.log)).unwrap();
    let error = add_response(signed, long.as_bytes(), world.quorum.members()).unwrap_err();
    tally.refused(&[note_error(&error)]);
    tally.finish(
        NOTE,
        &[
            // An answer is lines without a text.
            "NoteError::NoSeparator",
            // Of note keys and of signing, see `note_keys`.
            "NoteError::Name",
            "NoteError::KeyText",
            "NoteError::KeyHash",
            "NoteError::Key",
            "NoteError::Time",
        ],
    );
}

#[test]
fn note_keys() {
    let mut rng = Rng::new(22);
    let mut tally = Tally::new("note key");
    let world = World::new();
    let weak = {
        let mut bytes = [0; 32];
        bytes[0] = 1;
        bytes
    };
    let second = {
        let mut bytes = [0xff; 32];
        bytes[0] = 0xee;
        bytes[31] = 0x7f;
        bytes
    };
    for _ in 0..budget(4_000) {
        let keys = world.quorum.members();
        let (seed, other) = (rng.pick(keys).to_string(), rng.pick(keys).to_string());
        let text = match rng.below(4) {
            0 => String::from_utf8(mutate(&mut rng, seed.as_bytes(), other.as_bytes()))
                .unwrap_or_default(),
            1 => mutate_text(&mut rng, &seed, &other),
            // Named and hashed rightly, with another key or type.
            _ => {
                let name = *rng.pick(&["clock", "", "a b", "a\tb", "caf\u{e9}"]);
                let byte = *rng.pick(&[1, 4, 4, 2, 6, 0xff]);
                let key: [u8; 32] = match rng.below(4) {
                    0 => weak,
                    1 => second,
                    2 => rng.bytes(),
                    _ => *public(&world.clock).bytes(),
                };
                text_of(name, byte, &key)
            }
        };
        match text.parse::<NoteKey>() {
            Ok(key) => {
                assert_eq!(key.to_string(), text);
                tally.accepted();
            }
            Err(error) => match &error {
                NoteError::Key(inner) => tally.refused(&[note_error(&error), key_error(inner)]),
                _ => tally.refused(&[note_error(&error)]),
            },
        }
    }
    let of_notes: Vec<&'static str> = NOTE
        .iter()
        .filter(|name| !["Name", "KeyText", "KeyHash", "Key"].contains(&&name[11..]))
        .copied()
        .chain(["KeyError::Algorithm", "KeyError::Signature"])
        .collect();
    tally.finish(&[NOTE, KEY].concat(), &of_notes);
}

/// The text of a note key, by hand.
fn text_of(name: &str, byte: u8, key: &[u8; 32]) -> String {
    use base64::Engine as _;
    let digest = crate::support::sha256(&[name.as_bytes(), b"\n", &[byte], key]);
    let hash = asl_store::id::hex(&digest[..4]);
    let key = base64::engine::general_purpose::STANDARD.encode([&[byte][..], key].concat());
    format!("{name}+{hash}+{key}")
}

#[test]
fn requests() {
    let mut rng = Rng::new(23);
    let mut tally = Tally::new("request");
    let world = World::new();
    let mut other = String::from("old 3\n\n");
    for _ in 0..budget(2_500) {
        let note = world.note(&world.checkpoint(&mut rng));
        let hashes = *rng.pick(&[0, 1, 3, 62, 63, 64]);
        let request = Request {
            old: interesting(&mut rng) >> 1,
            proof: (0..hashes).map(|_| TreeHash(rng.bytes())).collect(),
            note,
        };
        let seed = request.to_string();
        let bytes = match rng.below(6) {
            0 | 1 => mutate(&mut rng, seed.as_bytes(), other.as_bytes()),
            2 | 3 => mutate_text(&mut rng, &seed, &other).into_bytes(),
            4 => seed.clone().into_bytes(),
            _ if rng.one_in(40) => "x"
                .repeat(asl_bootstrap::witness::REQUEST_LEN_MAX + 1)
                .into_bytes(),
            _ => mutate_text(
                &mut rng,
                seed.split('\n').next().unwrap_or_default(),
                &other,
            )
            .into_bytes(),
        };
        match Request::parse(&bytes) {
            Ok(request) => {
                assert_eq!(request.to_string().as_bytes(), bytes);
                assert!(request.proof.len() <= 63);
                tally.accepted();
            }
            Err(error) => tally.refused(&[request_error(&error)]),
        }
        other = seed;
    }
    tally.finish(REQUEST, &[]);
}
