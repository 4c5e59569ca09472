//! Notes, checkpoints and proofs between our code and that of the Go checksum
//! database, which others wrote: `golang.org/x/mod/sumdb/note` and `tlog`.
//!
//! Every day our code reads what Go made, kept in `tests/fixtures/notes/`. With
//! `ASL_TEST_ALL` Go also checks what our code makes, and makes the vectors again.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use asl_bootstrap::checkpoint::{Checkpoint, Origin, SignedCheckpoint, log_key};
use asl_bootstrap::note::{Kind, Note, NoteKey};
use asl_bootstrap::tlog::{
    TreeHash, consistency_proof, inclusion_proof, leaf_hash, root, verify_consistency,
    verify_inclusion,
};
use asl_bootstrap::witness::{Quorum, Request, Witness, add_response};
use asl_bootstrap::{DomainId, Secret, Signer};
use asl_store::StoreId;
use asl_store::vfs::fault::FaultVfs;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// As the Go program has them; the names are its own.
#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Vectors {
    records: Vec<String>,
    roots: Vec<String>,
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
    notes: Vec<NoteVector>,
    requests: Vec<RequestVector>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Inclusion {
    index: u64,
    size: u64,
    /// Go writes no hashes as null.
    proof: Option<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Consistency {
    old: u64,
    new: u64,
    proof: Option<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct NoteVector {
    note: String,
    keys: Vec<String>,
    signers: Option<Vec<String>>,
    times: Option<Vec<u64>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RequestVector {
    body: String,
    key: String,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn fixture() -> PathBuf {
    repository().join("tests/fixtures/notes/vectors.json")
}

fn signer(seed: u8) -> Signer {
    Signer::new(&Secret::from_seed(Zeroizing::new([seed; 32])))
}

fn origin() -> Origin {
    Origin {
        domain: DomainId::of_genesis(b"fixture"),
        store: "000102030405060708090a0b0c0d0e0f".parse().unwrap(),
    }
}

fn hash(text: &str) -> TreeHash {
    TreeHash(BASE64.decode(text).unwrap().try_into().unwrap())
}

fn hashes(proof: &Option<Vec<String>>) -> Vec<TreeHash> {
    proof.iter().flatten().map(|text| hash(text)).collect()
}

fn texts(proof: &[TreeHash]) -> Option<Vec<String>> {
    Some(proof.iter().map(|hash| BASE64.encode(hash.0)).collect())
}

/// What our code says of all of it.
fn check(vectors: &Vectors) {
    let leaves: Vec<TreeHash> = vectors
        .records
        .iter()
        .map(|record| leaf_hash(record.as_bytes()))
        .collect();
    let roots: Vec<TreeHash> = vectors.roots.iter().map(|root| hash(root)).collect();
    for (size, expected) in (1..).zip(&roots) {
        assert_eq!(root(&leaves[..size]), *expected, "root at {size}");
    }
    for Inclusion { index, size, proof } in &vectors.inclusion {
        let (at, end) = (*index as usize, *size as usize);
        let proof = hashes(proof);
        assert_eq!(inclusion_proof(&leaves[..end], *index), Ok(proof.clone()));
        let found = verify_inclusion(&leaves[at], *index, *size, &roots[end - 1], &proof);
        assert_eq!(found, Ok(()), "record {index} of {size}");
    }
    for Consistency { old, new, proof } in &vectors.consistency {
        let (start, end) = (*old as usize, *new as usize);
        let proof = hashes(proof);
        assert_eq!(consistency_proof(&leaves[..end], *old), Ok(proof.clone()));
        let found = verify_consistency(*old, &roots[start - 1], *new, &roots[end - 1], &proof);
        assert_eq!(found, Ok(()), "tree {old} in {new}");
    }
    for vector in &vectors.notes {
        check_note(vector);
    }
    for vector in &vectors.requests {
        let body = BASE64.decode(&vector.body).unwrap();
        let request = Request::parse(&body).unwrap();
        assert_eq!(request.to_string().as_bytes(), body);
        let key: NoteKey = vector.key.parse().unwrap();
        let signed = SignedCheckpoint::of_note(request.note, &origin(), &[key.key()]).unwrap();
        let (old, new) = (request.old, signed.checkpoint().size);
        assert_eq!(signed.checkpoint().root, roots[new as usize - 1]);
        let old_root = root(&leaves[..old as usize]);
        let new_root = &signed.checkpoint().root;
        let found = verify_consistency(old, &old_root, new, new_root, &request.proof);
        assert_eq!(found, Ok(()), "request {old} to {new}");
    }
}

fn check_note(vector: &NoteVector) {
    let bytes = BASE64.decode(&vector.note).unwrap();
    let shown = String::from_utf8_lossy(&bytes);
    let keys: Vec<NoteKey> = vector.keys.iter().map(|key| key.parse().unwrap()).collect();
    let found = Note::parse(&bytes).and_then(|note| {
        assert_eq!(note.to_string().as_bytes(), bytes);
        note.verify(&keys).map(|signed| {
            let name = |signed: &asl_bootstrap::note::Signed| signed.key.id().to_string();
            let names: Vec<String> = signed.iter().map(name).collect();
            let times = signed.iter().map(|signed| signed.time.unwrap_or(0));
            (names, times.collect::<Vec<u64>>())
        })
    });
    match (&vector.signers, found) {
        (Some(signers), Ok((names, times))) => {
            assert_eq!(*signers, names, "{shown}");
            assert_eq!(*vector.times.as_ref().unwrap(), times, "{shown}");
        }
        (None, Err(_)) => {}
        (expected, found) => panic!("{expected:?} expected, found {found:?}: {shown}"),
    }
}

#[test]
fn we_agree_with_what_go_made() {
    let vectors: Vectors = serde_json::from_slice(&fs::read(fixture()).unwrap()).unwrap();
    assert_eq!(vectors.records.len(), 21);
    assert!(vectors.inclusion.len() > 50 && vectors.consistency.len() > 50);
    let refused = vectors.notes.iter().filter(|note| note.signers.is_none());
    assert_eq!(refused.count(), 6);
    assert!(vectors.notes.len() > 20 && vectors.requests.len() > 2);
    check(&vectors);
    // What has the form of a checkpoint is one of ours, cosigned by a quorum of two.
    let witnesses = [("witness.example/1", signer(2)), ("zeuge-№2", signer(3))];
    let members = witnesses.iter().map(|(name, key)| (*name, key.public()));
    let quorum = Quorum::new(members, 2).unwrap();
    let mut met = 0;
    for vector in vectors.notes.iter().filter(|note| note.signers.is_some()) {
        let bytes = BASE64.decode(&vector.note).unwrap();
        let opened = SignedCheckpoint::open(&bytes, &origin(), &[signer(1).public()]);
        if let Ok(opened) = opened {
            met += usize::from(quorum.tally(&opened).unwrap().is_met());
        }
    }
    assert_eq!(met, 5);
}

/// A log of ours, with every proof in it, notes of all kinds, and a witness's dealings.
fn our_vectors() -> Vectors {
    const SIZE: usize = 40;
    let records: Vec<String> = (0..SIZE).map(|i| format!("record {i}").repeat(i)).collect();
    let leaves: Vec<TreeHash> = records
        .iter()
        .map(|record| leaf_hash(record.as_bytes()))
        .collect();
    let mut vectors = Vectors {
        records,
        roots: (1..=SIZE)
            .map(|size| BASE64.encode(root(&leaves[..size]).0))
            .collect(),
        ..Vectors::default()
    };
    for size in 1..=SIZE as u64 {
        let tree = &leaves[..size as usize];
        for index in 0..size {
            let proof = texts(&inclusion_proof(tree, index).unwrap());
            vectors.inclusion.push(Inclusion { index, size, proof });
        }
        for old in 1..=size {
            let proof = texts(&consistency_proof(tree, old).unwrap());
            let new = size;
            vectors.consistency.push(Consistency { old, new, proof });
        }
    }
    let origin = Origin {
        domain: DomainId::of_genesis(b"another"),
        store: StoreId([0x5a; 16]),
    };
    let (log, first, second) = (signer(7), signer(8), signer(9));
    let log_name = log_key(&origin.domain, log.public());
    let members = [
        ("first", first.public()),
        ("second/witness", second.public()),
    ];
    let quorum = Quorum::new(members, 2).unwrap();
    let vfs = FaultVfs::new();
    let mut witnesses = [
        Witness::create(&vfs, "first", "first", first.public()).unwrap(),
        Witness::create(&vfs, "second", "second/witness", second.public()).unwrap(),
    ];
    let note = |note: &Note, keys: &[&NoteKey], signed: &[(&NoteKey, u64)]| NoteVector {
        note: BASE64.encode(note.to_string()),
        keys: keys.iter().map(ToString::to_string).collect(),
        signers: Some(signed.iter().map(|(key, _)| key.id().to_string()).collect()),
        times: Some(signed.iter().map(|(_, time)| *time).collect()),
    };
    let [one, two] = quorum.members() else {
        unreachable!("it has two members");
    };
    let mut old = 0;
    for size in [1, 2, 5, 8, 21, 32, 40] {
        let tree = &leaves[..size as usize];
        let checkpoint = Checkpoint {
            origin,
            size,
            root: root(tree),
        };
        let mut signed = checkpoint.sign(&log).unwrap();
        vectors
            .notes
            .push(note(signed.note(), &[&log_name, one], &[(&log_name, 0)]));
        let request = Request {
            old,
            proof: consistency_proof(tree, old).unwrap(),
            note: signed.note().clone(),
        };
        let body = request.to_string();
        vectors.requests.push(RequestVector {
            body: BASE64.encode(&body),
            key: log_name.to_string(),
        });
        for (witness, key) in witnesses.iter_mut().zip([&first, &second]) {
            let mut keys_of = |_: &Origin| vec![log.public()];
            let time = 1_700_000_000 + size;
            let line = witness.cosign(body.as_bytes(), &mut keys_of, key, time);
            let response = line.unwrap().to_string();
            signed = add_response(signed, response.as_bytes(), quorum.members()).unwrap();
        }
        assert!(quorum.tally(&signed).unwrap().is_met());
        let time = 1_700_000_000 + size;
        let all = [(&log_name, 0), (one, time), (two, time)];
        vectors
            .notes
            .push(note(signed.note(), &[&log_name, one, two], &all));
        vectors.notes.push(note(signed.note(), &[two], &all[2..]));
        old = size;
    }
    let strange = "\n\nÜber — all\n\n";
    let signed = Note::sign(strange, "näme/…", &log).unwrap();
    let key = NoteKey::new("näme/…", Kind::Plain, log.public()).unwrap();
    vectors.notes.push(note(&signed, &[&key], &[(&key, 0)]));
    // What both must refuse.
    let good = signed.to_string();
    for bad in [
        good.replace("all", "alL"),
        good.replace("näme", "name"),
        good.trim_end().to_owned(),
        good.replace("— näme/… ", "—näme/… "),
        good.replace("Über", "\u{1}ber"),
    ] {
        vectors.notes.push(NoteVector {
            note: BASE64.encode(bad),
            keys: vec![key.to_string()],
            signers: None,
            times: None,
        });
    }
    vectors
}

#[test]
fn we_agree_with_ourselves_about_what_go_is_asked() {
    let mut vectors = our_vectors();
    // Of another origin than the fixture's.
    vectors.requests.clear();
    check(&vectors);
}

/// Whether Go is to be asked, too.
fn all() -> bool {
    std::env::var_os("ASL_TEST_ALL").is_some()
}

/// Builds the Go program.
fn build(dir: &Path) -> PathBuf {
    const LIBRARY: &str = "/usr/share/gocode";
    let needed = "this test needs Go and its module library, on Debian the packages golang-go and \
        golang-golang-x-mod-dev; scripts/setup --all installs them";
    let library = Path::new(LIBRARY).join("src/golang.org/x/mod/sumdb/tlog");
    assert!(
        library.is_dir(),
        "{} is missing: {needed}",
        library.display()
    );
    let program = dir.join("interop");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(repository().join("bootstrap/tests/go/interop.go"))
        .env("GO111MODULE", "off")
        .env("GOPATH", LIBRARY)
        .env("GOFLAGS", "")
        .env("GOTOOLCHAIN", "local")
        .env("GOCACHE", dir.join("cache"))
        .output()
        .unwrap_or_else(|error| panic!("cannot run go: {error}; {needed}"));
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "go build: {said}");
    program
}

#[test]
fn go_agrees_with_what_we_make() {
    if !all() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path());
    let ask = |vectors: &Vectors| {
        let mut child = Command::new(&program)
            .arg("check")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = serde_json::to_vec(vectors).unwrap();
        // It may stop reading at the first fault.
        let _ = child.stdin.take().unwrap().write_all(&input);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let (agrees, said) = ask(&our_vectors());
    assert!(agrees, "{said}");
    let expected =
        "checked 40 roots, 820 inclusion proofs, 820 consistency proofs, 27 notes, 7 requests\n";
    assert_eq!(said, expected);

    // That it can disagree: one wrong thing of each kind.
    let spoils: [fn(&mut Vectors); 6] = [
        |v| v.records[3].push('!'),
        |v| v.roots.swap(3, 4),
        |v| v.inclusion[800].index ^= 1,
        |v| v.consistency[800].old ^= 1,
        |v| v.notes[1].times = Some(vec![0, 1, 1]),
        |v| v.requests[3].body = v.requests[2].body.replacen('o', "O", 1),
    ];
    for (spoil, number) in spoils.into_iter().zip(0..) {
        let mut vectors = our_vectors();
        spoil(&mut vectors);
        let (agrees, said) = ask(&vectors);
        assert!(!agrees, "fault {number}: {said}");
    }
}

#[test]
fn go_makes_the_committed_vectors_again() {
    if !all() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(build(dir.path()))
        .arg("make")
        .output()
        .unwrap();
    assert!(output.status.success());
    let made = String::from_utf8(output.stdout).unwrap();
    assert!(
        made == fs::read_to_string(fixture()).unwrap(),
        "the vectors are not what the program makes"
    );
}
