//! Two machines of one domain, each with a store, a state directory and keys of its own: how the second one gets them, what
//! it proves with them, and who tries to get in that way.

#[path = "support/domains.rs"]
mod domains;
mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use domains::{does, init};
use serde_json::Value;
use support::{json, program};

const PASSPHRASE: &str = "correct horse battery staple";

struct Machine {
    room: PathBuf,
    name: &'static str,
}

impl Machine {
    fn new(room: &Path, name: &'static str) -> Self {
        let machine = Self {
            room: room.to_owned(),
            name,
        };
        std::fs::write(
            machine.file("pass"),
            format!("{PASSPHRASE} of the {name}\n"),
        )
        .unwrap();
        machine
    }

    /// A file of this machine's, outside its store.
    fn file(&self, name: &str) -> PathBuf {
        self.room.join(format!("{}.{name}", self.name))
    }

    fn store(&self) -> PathBuf {
        self.room.join(self.name)
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = program(name);
        command
            .current_dir(&self.room)
            .env("ASL_STORE", self.store())
            .env("ASL_STATE", self.file("state"))
            .args(arguments);
        command
    }

    /// Runs a command that must do.
    fn does(&self, name: &str, arguments: &[&str]) -> Value {
        does(&mut self.run(name, arguments))
    }

    /// Runs `asl` with arguments that are refused: the exit code, and what is said with the hint.
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = self.run("asl", arguments);
        let output = command.arg("--json").output().unwrap();
        let value: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
        let hint = value["hint"].as_str().unwrap_or_default();
        assert!(!hint.is_empty(), "{command:?}: {value}");
        let code = output.status.code().unwrap();
        assert_eq!(value["exit"], code, "{value}");
        (
            code,
            format!("{} {} {hint}", value["error"], value["causes"]),
        )
    }

    fn pass(&self) -> String {
        self.file("pass").to_str().unwrap().to_owned()
    }

    fn capture(&self, seed: &str, signed: bool) -> Value {
        let disk = self.file(&format!("{seed}.img"));
        let mut image = vec![0; 1 << 20];
        blake3::Hasher::new()
            .update(seed.as_bytes())
            .finalize_xof()
            .fill(&mut image);
        std::fs::write(&disk, image).unwrap();
        let mut command = self.run("asl-capture", &["disk"]);
        command.arg(&disk);
        if signed {
            command.args(["--passphrase-file", &self.pass()]);
        }
        let (code, value) = json(&mut command);
        assert_eq!(code, 0, "{command:?}: {value}");
        value
    }

    fn request(&self, out: &str) -> Value {
        let pass = self.pass();
        let arguments = [
            "domain",
            "host",
            "request",
            "--out",
            out,
            "--name",
            self.name,
            "--ephemeral",
            "--passphrase-file",
            &pass,
        ];
        self.does("asl", &arguments)
    }

    fn sync(&self, from: &Self) {
        self.does("asl", &["store", "sync", from.store().to_str().unwrap()]);
    }

    /// Takes a copy of a store that is expected to be of a domain.
    fn copy(&self, from: &Self, domain: &str) {
        let mut command = self.run("asl", &["store", "sync", "--ephemeral"]);
        does(command.arg(from.store()).args(["--expect", domain]));
    }

    fn keys(&self, domain: &str) -> PathBuf {
        self.store().join(format!("meta/keys/priv/{domain}.age"))
    }
}

/// A machine with a domain, and one that has a copy of the store, without keys.
fn two(room: &Path) -> (Machine, Machine, String) {
    let (attic, cellar) = (Machine::new(room, "attic"), Machine::new(room, "cellar"));
    init(&attic.store(), &["--block-size", "4M", "--ephemeral"]);
    let domain = mint(&attic, "home");
    attic.capture("first", true);
    cellar.copy(&attic, &domain);
    (attic, cellar, domain)
}

/// What lets a machine in.
fn add<'a>(file: &'a str, expect: &'a str, pass: &'a str) -> [&'a str; 9] {
    let [domain, host, add] = ["domain", "host", "add"];
    let secret = "--passphrase-file";
    [
        domain, host, add, file, "--expect", expect, "--yes", secret, pass,
    ]
}

fn mint(machine: &Machine, name: &str) -> String {
    let (pass, paper) = (machine.file("pass"), machine.file("paper"));
    domains::mint(machine.run("asl", &[]), name, &pass, Some(&paper))
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

/// Its keys are nowhere else, and what it signs is proven on the other machine.
#[test]
fn a_second_machine_signs_with_keys_of_its_own() {
    let room = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (attic, cellar, domain) = two(room.path());
    let (pass_a, pass_c) = (attic.pass(), cellar.pass());
    let attest = ["domain", "attest", "--passphrase-file", &pass_c];
    let (code, said) = cellar.refused(&attest);
    assert!(
        code == 1 && said.contains("asl domain host request"),
        "{code} {said}"
    );

    // It asks, twice, and asks for the same.
    let asked = cellar.request("cellar.host");
    let request = std::fs::read(room.path().join("cellar.host")).unwrap();
    assert_eq!(asked["drawn"], true);
    let again = cellar.request("cellar.host");
    assert_eq!(again["drawn"], false);
    assert_eq!(again["fingerprint"], asked["fingerprint"]);
    assert_eq!(
        std::fs::read(room.path().join("cellar.host")).unwrap(),
        request
    );
    std::fs::remove_file(room.path().join("cellar.host")).unwrap();
    cellar.request("cellar.host");
    assert_eq!(
        std::fs::read(room.path().join("cellar.host")).unwrap(),
        request
    );
    let keys = std::fs::metadata(cellar.keys(&domain)).unwrap();
    assert_eq!(keys.permissions().mode() & 0o777, 0o600);
    let sealed = std::fs::read(cellar.keys(&domain)).unwrap();
    assert_ne!(sealed, std::fs::read(attic.keys(&domain)).unwrap());

    // It is not listed yet, and is told so before thirty hours are spent.
    let (code, said) = cellar.refused(&attest);
    let yet = "not listed yet: sync with the machine that ran `asl domain host add`";
    assert!(code == 11 && said.contains(yet), "{code} {said}");
    let image = cellar.file("early.img");
    std::fs::write(&image, [7; 4096]).unwrap();
    let mut command = cellar.run("asl-capture", &["disk", "--passphrase-file", &pass_c]);
    let (code, value) = json(command.arg(&image));
    assert!(code == 11 && text(&value["hint"]).contains(yet), "{value}");
    let listed = cellar.does("asl", &["domain", "host", "list"]);
    assert!(listed["not_listed_yet"].is_string(), "{listed}");
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);

    // Granted only to who has seen the fingerprint.
    let fingerprint = text(&asked["fingerprint"]).to_owned();
    let add = [
        "domain",
        "host",
        "add",
        "cellar.host",
        "--passphrase-file",
        &pass_a,
        "--yes",
    ];
    let (code, said) = attic.refused(&add);
    assert!(code == 14 && said.contains("--expect"), "{code} {said}");
    let with = |expect: &str| [&add[..], &["--expect", expect]].concat().join("\n");
    let wrong = with("qqqq-qqqq-qqqq-qqqq");
    let (code, said) = attic.refused(&wrong.split('\n').collect::<Vec<_>>());
    assert!(code == 11 && said.contains(&fingerprint), "{code} {said}");
    let right = with(&fingerprint.to_uppercase().replace('-', ""));
    let right: Vec<&str> = right.split('\n').collect();
    let added = attic.does("asl", &right);
    assert_eq!(
        (&added["changed"], &added["version"]),
        (&Value::from(true), &Value::from(1))
    );
    assert_eq!(attic.does("asl", &right)["changed"], false);

    // From the next sync on it signs, with keys that are nowhere else.
    cellar.sync(&attic);
    let captured = cellar.capture("second", true);
    assert_eq!(captured["signed_off"]["signed"], true, "{captured}");
    attic.sync(&cellar);
    let proven = attic.does("asl", &["domain", "verify", "--expect", &domain]);
    assert_eq!(proven["ok"], true, "{proven}");
    let of = |roles: &str| {
        let mut keys = asked["keys"].as_array().unwrap().iter();
        text(&keys.find(|key| key["roles"] == roles).unwrap()["key_id"]).to_owned()
    };
    let beside = &proven["beside"][0];
    assert_eq!(proven["beside"].as_array().unwrap().len(), 1, "{proven}");
    assert_eq!(beside["checkpoint_by"][0]["key_id"], of("checkpoint"));
    assert_eq!(beside["receipts"][0]["key_id"], of("produce"));
    assert_eq!(beside["receipts"][0]["host"], "cellar");
    assert!(
        beside["checkpointed_position"].as_u64() > Some(0),
        "{beside}"
    );
    let mut names = Vec::new();
    for entry in std::fs::read_dir(attic.store().join("meta/keys/priv")).unwrap() {
        names.push(entry.unwrap().file_name().into_string().unwrap());
    }
    assert_eq!(names, [format!("{domain}.age")], "no key file came over");
    assert_eq!(std::fs::read(cellar.keys(&domain)).unwrap(), sealed);
    // There its own log is the one that is proven.
    let there = cellar.does("asl", &["domain", "verify", "--expect", &domain]);
    assert!(there["signed_receipts"] == 1, "{there}");
    let listed = cellar.does("asl", &["domain", "host", "list"]);
    assert!(listed["not_listed_yet"].is_null());
    let ours = |key: &&Value| key["this_host"] == true;
    let keys: Vec<&Value> = listed["keys"]
        .as_array()
        .unwrap()
        .iter()
        .filter(ours)
        .collect();
    assert!(
        keys.len() == 2 && keys.iter().all(|key| key["host"] == "cellar"),
        "{listed}"
    );

    // The end of it: what it signed counts, what it signs from now on does not.
    let remove = [
        "domain",
        "host",
        "remove",
        "cellar",
        "--passphrase-file",
        &pass_a,
        "--yes",
    ];
    assert_eq!(attic.does("asl", &remove)["version"], 2);
    let (code, said) = attic.refused(&remove);
    assert!(
        code == 2 && said.contains("asl domain host list"),
        "{code} {said}"
    );
    let proven = attic.does("asl", &["domain", "verify"]);
    assert_eq!(proven["beside"][0]["receipts"][0]["signed"], 1, "{proven}");
    cellar.capture("third", true);
    attic.sync(&cellar);
    let (code, proven) = json(&mut attic.run("asl", &["domain", "verify"]));
    assert_eq!((code, &proven["ok"]), (11, &Value::from(false)), "{proven}");
    assert_eq!(
        proven["beside"][0]["refused"][0]["host"], "cellar",
        "{proven}"
    );
    assert_eq!(proven["beside"][0]["receipts"][0]["signed"], 1, "{proven}");
    cellar.sync(&attic);
    let (code, said) = cellar.refused(&attest);
    assert!(
        code == 11 && said.contains("asl domain host request"),
        "{code} {said}"
    );
    let new = cellar.request("again.host");
    assert_ne!(new["keys"], asked["keys"]);
    for machine in [&attic, &cellar] {
        assert_eq!(machine.does("asl", &["store", "verify"])["ok"], true);
    }
}

/// What comes through the door is refused, with an exit code and a hint for each, and the domain stays as it was.
#[test]
fn who_tries_to_get_in_is_refused() {
    let room = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (attic, cellar, domain) = two(room.path());
    let pass_a = attic.pass();
    let asked = cellar.request("cellar.host");
    let good = std::fs::read_to_string(room.path().join("cellar.host")).unwrap();
    let refused = |file: &str, expect: &str| attic.refused(&add(file, expect, &pass_a));
    let fingerprint = text(&asked["fingerprint"]).to_owned();
    let write = |name: &str, bytes: &[u8]| std::fs::write(room.path().join(name), bytes).unwrap();
    let before = attic.does("asl", &["store", "state"]);

    // No plain file, or none of that size. A FIFO that nobody writes to must not hang.
    let fifo = room.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    symlink(room.path().join("cellar.host"), room.path().join("link")).unwrap();
    std::fs::create_dir(room.path().join("directory")).unwrap();
    for name in ["fifo", "link", "directory"] {
        let (code, said) = refused(name, &fingerprint);
        assert!(
            code == 1 && said.contains("plain file"),
            "{name}: {code} {said}"
        );
    }
    let huge = std::fs::File::create(room.path().join("huge")).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert!(huge.metadata().unwrap().blocks() < 100, "a sparse file");
    write("long", &[good.as_bytes(), &[b'\n'; 5000]].concat());
    write("empty", b"");
    write("cut", &good.as_bytes()[..good.len() - 1]);
    write(
        "upper",
        good.replace("host cellar", "host  cellar").as_bytes(),
    );
    for name in ["huge", "long", "empty", "cut", "upper"] {
        let (code, said) = refused(name, &fingerprint);
        assert!(
            code == 10 && said.contains("asl domain host request"),
            "{name}: {code} {said}"
        );
    }

    // Changed on the way: the fingerprint tells; where that was swapped as well, the signatures do.
    write(
        "named",
        good.replace("host cellar", "host castle").as_bytes(),
    );
    let (code, said) = refused("named", &fingerprint);
    assert!(
        code == 11 && said.contains("has the fingerprint"),
        "{code} {said}"
    );
    let theirs = said.split("has the fingerprint ").nth(1).unwrap()[..19].to_owned();
    let (code, said) = refused("named", &theirs);
    assert!(code == 11 && said.contains("was changed"), "{code} {said}");
    let more = good.replace("key produce", "key produce+federate");
    write("more", more.as_bytes());
    let (_, said) = refused("more", &fingerprint);
    let theirs = said.split("has the fingerprint ").nth(1).unwrap()[..19].to_owned();
    let (code, said) = refused("more", &theirs);
    assert!(
        code == 13 && said.contains("produce+federate"),
        "{code} {said}"
    );

    // For another domain.
    let other = Machine::new(room.path(), "other");
    init(&other.store(), &["--ephemeral"]);
    mint(&other, "another");
    let pass = other.pass();
    let (code, said) = other.refused(&add("cellar.host", &fingerprint, &pass));
    assert!(code == 11 && said.contains(&domain), "{code} {said}");

    assert_eq!(
        attic.does("asl", &["store", "state"]),
        before,
        "nothing was written"
    );

    // The domain moves on meanwhile: a request for what was, and one for what is not known here.
    let name = |label: &str| {
        let arguments = [
            "domain",
            "policy",
            "--name",
            label,
            "--yes",
            "--passphrase-file",
            &pass_a,
        ];
        attic.does("asl", &arguments);
    };
    let old = std::fs::read(room.path().join("cellar.host")).unwrap();
    name("house");
    let (code, said) = refused("cellar.host", &fingerprint);
    assert!(
        code == 12 && said.contains("asl store sync"),
        "{code} {said}"
    );
    cellar.sync(&attic);
    let newer = cellar.request("cellar.host");
    assert_eq!(newer["keys"], asked["keys"], "the same keys");
    assert_eq!(newer["manifest_version"], 1);
    let pass_c = cellar.pass();
    let expect = text(&newer["fingerprint"]).to_owned();
    let (code, _) = refused("cellar.host", &fingerprint);
    assert_eq!(code, 11, "not what was looked at before");
    // Not without the root.
    let (code, said) = cellar.refused(&add("cellar.host", &expect, &pass_c));
    assert!(
        code == 11 && said.contains("machine with the root"),
        "{code} {said}"
    );
    let granted = attic.does("asl", &add("cellar.host", &expect, &pass_a));
    assert_eq!(granted["version"], 2);
    // The same keys under the request of before.
    write("old", &old);
    let (code, said) = refused("old", &fingerprint);
    assert!(
        code == 11 && said.contains("asl domain host list"),
        "{code} {said}"
    );

    // A manifest that this machine does not have: made there, after a sync that it has not had.
    let loft = Machine::new(room.path(), "loft");
    loft.copy(&attic, &domain);
    let unknown = loft.request("loft.host");
    let text_of = std::fs::read_to_string(room.path().join("loft.host")).unwrap();
    let line = text_of
        .lines()
        .find(|line| line.starts_with("manifest "))
        .unwrap();
    write(
        "unknown",
        text_of
            .replace(line, &format!("manifest 3 {}", "5".repeat(64)))
            .as_bytes(),
    );
    let (_, said) = refused("unknown", text(&unknown["fingerprint"]));
    let theirs = said.split("has the fingerprint ").nth(1).unwrap()[..19].to_owned();
    let (code, said) = refused("unknown", &theirs);
    assert!(
        code == 12 && said.contains("not known here"),
        "{code} {said}"
    );

    // A file of somebody's is not written over, nor a request into a store.
    write("mine", b"a letter");
    let request = |out: &str| {
        let pass = loft.pass();
        let arguments = [
            "domain",
            "host",
            "request",
            "--out",
            out,
            "--ephemeral",
            "--passphrase-file",
            &pass,
        ];
        loft.refused(&arguments)
    };
    assert_eq!(request("mine").0, 1);
    assert_eq!(request("cellar.host").0, 1, "another machine's request");
    assert_eq!(request("loft/file").0, 2);
    assert_eq!(
        std::fs::read(room.path().join("mine")).unwrap(),
        b"a letter"
    );
}

/// Two machines have the root, and each lets somebody in before they meet: two histories, told on both, which a rotation settles; who
/// was let in by the one that lost asks again.
#[test]
fn two_that_grant_at_once_are_told_and_settle_it() {
    let room = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (attic, cellar, domain) = two(room.path());
    let copy_of_attic = |name| {
        let machine = Machine::new(room.path(), name);
        machine.copy(&attic, &domain);
        machine
    };
    let (loft, barn) = (copy_of_attic("loft"), copy_of_attic("barn"));
    // As people did before there were requests.
    std::fs::create_dir_all(loft.store().join("meta/keys/priv")).unwrap();
    std::fs::copy(attic.keys(&domain), loft.keys(&domain)).unwrap();
    let pass = attic.pass();
    let asked = cellar.request("cellar.host");
    attic.does(
        "asl",
        &add("cellar.host", text(&asked["fingerprint"]), &pass),
    );
    let first = barn.request("barn.host");
    let for_barn = add("barn.host", text(&first["fingerprint"]), &pass);
    loft.does("asl", &for_barn);

    attic.sync(&loft);
    loft.sync(&attic);
    for machine in [&attic, &loft] {
        let (code, proven) = json(&mut machine.run("asl", &["domain", "verify"]));
        assert_eq!((code, &proven["ok"]), (12, &Value::from(false)), "{proven}");
        let mut others = proven["beside"].as_array().unwrap().iter();
        assert!(others.any(|other| other["history"] == "forked"), "{proven}");
        if machine.name == "attic" {
            let (code, said) = machine.refused(&for_barn);
            assert!(
                code == 12 && said.contains("asl domain rotate"),
                "{code} {said}"
            );
        }
    }

    let paper = attic.file("paper");
    let rotate = [
        "domain",
        "rotate",
        "--phrase-file",
        paper.to_str().unwrap(),
        "--no-recovery",
        "--yes",
        "--passphrase-file",
        &pass,
    ];
    assert_eq!(attic.does("asl", &rotate)["rotation"], 1);
    loft.sync(&attic);
    std::fs::write(loft.file("letter"), "a letter").unwrap();
    loft.does("asl", &["put", loft.file("letter").to_str().unwrap()]);
    let proven = loft.does("asl", &["domain", "verify"]);
    assert_eq!(
        proven["rotation"], 1,
        "the rotation and what it settled were taken over"
    );
    attic.sync(&loft);
    attic.does("asl", &["domain", "verify"]);

    barn.sync(&attic);
    let again = barn.request("barn.host");
    assert_eq!(again["keys"], first["keys"], "the same keys");
    attic.does("asl", &add("barn.host", text(&again["fingerprint"]), &pass));
    barn.sync(&attic);
    assert_eq!(barn.capture("late", true)["signed_off"]["signed"], true);
}
