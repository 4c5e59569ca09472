//! Key files: round trips, wrong passphrases, damage, hostile work factors, power cuts.

use std::cell::Cell;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs};
use asl_store::vfs::real::RealVfs;

use super::*;

/// Low, so that tests are quick; what [`KeyFile::seal`] uses is tested once.
pub(crate) const QUICK: u8 = 4;
const PASSPHRASE: &str = "abandon-ability-able-about-above-absent";

thread_local! {
    static CHEAP: Cell<u32> = const { Cell::new(0) };
}

/// While one lives, key files that this thread seals take no time to open: for tests that write hundreds.
pub(crate) struct Cheap(());

impl Cheap {
    pub(crate) fn new() -> Self {
        CHEAP.set(CHEAP.get() + 1);
        Self(())
    }

    pub(super) fn is_on() -> bool {
        CHEAP.get() > 0
    }
}

impl Drop for Cheap {
    fn drop(&mut self) {
        CHEAP.set(CHEAP.get() - 1);
    }
}

fn domain() -> DomainId {
    DomainId::of_genesis(b"genesis")
}

fn secret(n: u8) -> Secret {
    Secret::from_seed(Zeroizing::new([n; 32]))
}

fn example() -> KeyFile {
    let mut file = KeyFile::new(Some(domain()));
    file.add(Role::Root, &secret(1));
    file.add(Role::Host, &secret(2));
    file.add(Role::Checkpoint, &secret(3));
    file
}

fn quick(text: &str) -> Vec<u8> {
    seal_text(text, PASSPHRASE, QUICK).unwrap()
}

fn open(bytes: &[u8]) -> Result<KeyFile, KeyFileError> {
    KeyFile::open(bytes, PASSPHRASE)
}

#[test]
fn keys_come_back_and_say_what_they_are_for() {
    let read = open(&quick(&example().text())).unwrap();
    assert_eq!(read.domain(), Some(domain()));
    let roles: Vec<_> = read.keys().iter().map(|key| key.role).collect();
    assert_eq!(roles, [Role::Root, Role::Host, Role::Checkpoint]);
    let host = read.signers(Role::Host).next().unwrap();
    assert_eq!(host.secret().seed(), &[2; 32]);
    assert_eq!(read.signer(&host.id()).unwrap().id(), host.id());
    assert!(read.signers(Role::Witness).next().is_none());
    read.require_domain(&domain()).unwrap();
    let other = DomainId::of_genesis(b"other");
    assert!(matches!(
        read.require_domain(&other),
        Err(KeyFileError::OtherDomain { found, .. }) if found == domain()
    ));

    let mut witness = KeyFile::new(None);
    witness.add(Role::Witness, &secret(9));
    let read = open(&quick(&witness.text())).unwrap();
    assert_eq!(read.domain(), None);
    assert!(matches!(
        read.require_domain(&domain()),
        Err(KeyFileError::Foreign)
    ));
}

#[test]
fn a_key_is_listed_once_for_a_purpose() {
    let mut file = example();
    file.add(Role::Root, &secret(1));
    assert_eq!(file.keys().len(), 3);
    file.add(Role::Witness, &secret(1));
    assert_eq!(file.keys().len(), 4);
    let id = Signer::new(&secret(1)).id();
    file.remove(&id);
    assert_eq!(file.keys().len(), 2);
}

/// What the header of a file says, line by line.
fn header(sealed: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(sealed);
    text.lines().take(2).map(str::to_owned).collect()
}

#[test]
fn files_are_written_with_the_pinned_work_factor() {
    let sealed = example().seal(PASSPHRASE).unwrap();
    let header = header(&sealed);
    assert_eq!(header[0], "age-encryption.org/v1");
    assert!(header[1].starts_with("-> scrypt "), "{}", header[1]);
    assert!(header[1].ends_with(" 16"), "{}", header[1]);
    assert_eq!(open(&sealed).unwrap().keys().len(), 3);
    assert!(matches!(
        example().seal(""),
        Err(KeyFileError::EmptyPassphrase)
    ));
}

#[test]
fn a_wrong_passphrase_is_told_from_damage() {
    let sealed = quick(&example().text());
    for wrong in ["", "abandon", "Abandon-ability-able-about-above-absent"] {
        let error = KeyFile::open(&sealed, wrong).unwrap_err();
        assert!(matches!(error, KeyFileError::WrongPassphrase), "{error:?}");
    }
}

#[test]
fn truncation_and_every_changed_byte_are_found() {
    let sealed = quick(&example().text());
    for cut in 0..sealed.len() {
        let error = open(&sealed[..cut]).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Damaged),
            "cut to {cut}: {error:?}"
        );
    }
    let mut longer = sealed.clone();
    longer.push(0);
    assert!(matches!(open(&longer), Err(KeyFileError::Damaged)));
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(open(&changed).is_err(), "byte {at}");
    }
    // Past the header it can be nothing but damage.
    for at in sealed.len() - 200..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        let error = open(&changed).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Damaged),
            "byte {at}: {error:?}"
        );
    }
}

#[test]
fn hostile_work_factors_are_refused_at_once() {
    let sealed = quick(&example().text());
    let text = |log_n: &str| {
        let at = sealed.iter().position(|b| *b == b'\n').unwrap() + 1;
        let end = at + sealed[at..].iter().position(|b| *b == b'\n').unwrap();
        let stanza = std::str::from_utf8(&sealed[at..end]).unwrap();
        let stanza = stanza.strip_suffix('4').unwrap();
        [
            &sealed[..at],
            stanza.as_bytes(),
            log_n.as_bytes(),
            &sealed[end..],
        ]
        .concat()
    };
    assert_eq!(open(&text("4")).unwrap().keys().len(), 3);
    for (log_n, asked) in [
        ("19", 19),
        ("20", 20),
        ("30", 30),
        ("63", 63),
        ("64", 64),
        ("255", 255),
    ] {
        let hostile = text(log_n);
        let start = Instant::now();
        let error = open(&hostile).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Work { asked: found } if found == asked),
            "{log_n}: {error:?}"
        );
        assert!(start.elapsed() < Duration::from_secs(2), "{log_n}");
    }
    for log_n in [
        "0",
        "00",
        "04",
        "+4",
        "-1",
        "256",
        "99999999999999999999",
        "",
    ] {
        let error = open(&text(log_n)).unwrap_err();
        assert!(
            matches!(
                error,
                KeyFileError::Damaged | KeyFileError::WrongPassphrase | KeyFileError::Work { .. }
            ),
            "{log_n}: {error:?}"
        );
    }
}

#[test]
fn foreign_files_are_named_as_such() {
    for bytes in [
        b"ASLDAM1\n".as_slice(),
        b"{}",
        b"age1",
        &[0; 300],
        b"-----BEGIN PGP MESSAGE-----",
    ] {
        assert!(
            matches!(open(bytes), Err(KeyFileError::NotAge)),
            "{bytes:?}"
        );
    }
    let newer = b"age-encryption.org/v9\n-> scrypt AAAA 4\nAAAA\n--- AAAA\n";
    let error = open(newer).unwrap_err();
    assert!(
        matches!(error, KeyFileError::NotAge | KeyFileError::Damaged),
        "{error:?}"
    );
    assert!(matches!(
        open(&vec![b'a'; KEY_FILE_LEN_MAX + 1]),
        Err(KeyFileError::TooLong { len: 65537 })
    ));
    // Sound and opened, with something else inside.
    for text in [
        "",
        "shopping list\n",
        "asl keys\n",
        "asl keys one\n",
        "\u{feff}asl keys 1\n",
    ] {
        let error = open(&quick(text)).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Foreign),
            "{text:?}: {error:?}"
        );
    }
    assert!(matches!(
        open(&quick("asl keys 2\nx\n")),
        Err(KeyFileError::Newer)
    ));
    let recipient = age::x25519::Identity::generate().to_public();
    let sealed = age::encrypt(&recipient, example().text().as_bytes()).unwrap();
    assert!(matches!(open(&sealed), Err(KeyFileError::NotPassphrase)));
}

#[test]
fn the_text_has_one_form() {
    let good = example().text().to_string();
    let lines: Vec<&str> = good.split_inclusive('\n').collect();
    let malformed = |text: String, at: usize| {
        let error = open(&quick(&text)).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Malformed { line } if line == at),
            "{text}: {error:?}"
        );
    };
    malformed(lines[0].to_owned(), 2);
    malformed(good.replace("domain ", "Domain "), 2);
    malformed(good.replace("domain asl1", "domain asl2"), 2);
    malformed(good.replace(&domain().to_string(), &domain().grouped()), 2);
    malformed(
        good.replace(&domain().to_string(), &domain().to_string().to_uppercase()),
        2,
    );
    malformed(good.replace("key host", "key admin"), 4);
    malformed(good.replacen("ed25519", "ed448", 1), 3);
    malformed(good.replacen("key root ", "key  root ", 1), 3);
    malformed(good.replacen('\n', "\r\n", 3).replacen("\r\n", "\n", 2), 3);
    malformed(good.trim_end().to_owned(), 5);
    malformed(format!("{good}\n"), 6);
    malformed(format!("{good}{}", lines[2]), 6);
    malformed(good.replace(&"02".repeat(32), &"0".repeat(63)), 4);
    malformed(
        good.replace(&"03".repeat(32), &format!("{} ", "03".repeat(32))),
        5,
    );
    let id = Signer::new(&secret(2)).id().to_string();
    malformed(good.replace(&id, &id.to_uppercase()), 4);
    let many: String = (0..=KEYS_MAX as u8)
        .map(|n| {
            let id = Signer::new(&secret(n)).id();
            format!("key root ed25519 {id} {}\n", hex(&[n; 32]))
        })
        .collect();
    malformed(format!("{}{}{many}", lines[0], lines[1]), 3 + KEYS_MAX);

    let other = Signer::new(&secret(7)).id().to_string();
    let error = open(&quick(&good.replace(&id, &other))).unwrap_err();
    assert!(
        matches!(error, KeyFileError::KeyId { line: 4 }),
        "{error:?}"
    );
}

/// A new file is private from its first moment, and never takes the place of another.
#[test]
fn files_are_private_and_never_overwritten_unasked() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let vfs = RealVfs::open(dir.path()).unwrap();
    let path = key_file_path(&domain());
    example().create(&vfs, &path, PASSPHRASE).unwrap();
    let mode = std::fs::metadata(dir.path().join(&path))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = example().create(&vfs, &path, "another").unwrap_err();
    assert!(matches!(error, KeyFileError::Exists { .. }), "{error:?}");
    assert_eq!(
        KeyFile::load(&vfs, &path, PASSPHRASE).unwrap().keys().len(),
        3
    );

    let mut more = example();
    more.add(Role::Root, &secret(4));
    more.replace(&vfs, &path, "another").unwrap();
    assert_eq!(
        KeyFile::load(&vfs, &path, "another").unwrap().keys().len(),
        4
    );
    assert!(matches!(
        KeyFile::load(&vfs, &path, PASSPHRASE),
        Err(KeyFileError::WrongPassphrase)
    ));
    let names = std::fs::read_dir(dir.path().join(PRIVATE_DIR)).unwrap();
    assert_eq!(names.count(), 1, "nothing stays beside it");

    std::fs::remove_file(dir.path().join(&path)).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.path().join(&path)).unwrap();
    let error = KeyFile::load(&vfs, &path, PASSPHRASE).unwrap_err();
    assert!(
        matches!(error, KeyFileError::Io { action: "open", .. }),
        "{error:?}"
    );
    let error = example().create(&vfs, &path, PASSPHRASE).unwrap_err();
    assert!(!matches!(error, KeyFileError::WrongPassphrase), "{error:?}");
}

/// Power is cut before every operation of a writing, and every operation fails once: at any moment there is the old
/// file or the new one, whole, and nothing is acknowledged that does not last.
#[test]
fn a_file_is_there_whole_or_not_at_all() {
    let path = key_file_path(&domain());
    let old = quick(&example().text());
    let mut more = example();
    more.add(Role::Root, &secret(4));
    let new = quick(&more.text());
    for had in [false, true] {
        let begun = FaultVfs::new();
        if had {
            write_private(&begun, &path, &old).unwrap();
        }
        let whole = |vfs: &FaultVfs| match vfs.read_file(&path) {
            Ok(bytes) if bytes == old => 1,
            Ok(bytes) if bytes == new => 2,
            Ok(bytes) => panic!("{} bytes of neither", bytes.len()),
            Err(_) => 0,
        };
        let mut n = 0;
        loop {
            let vfs = begun.fork();
            let first = vfs.ops();
            vfs.crash_at(first + n);
            let done = write_private(&vfs, &path, &new).is_ok();
            for policy in [
                CrashPolicy::LoseUnsynced,
                CrashPolicy::KeepAll,
                CrashPolicy::Torn { seed: n },
                CrashPolicy::Reorder { seed: n },
            ] {
                let after = vfs.power_cut(policy);
                let found = whole(&after);
                assert!(
                    found == 2 || !done && found == i32::from(had),
                    "operation {n}: {found}"
                );
                write_private(&after, &path, &new).unwrap();
                assert_eq!(whole(&after), 2);
            }
            if done {
                break;
            }
            n += 1;
        }
        assert!(n >= 5, "only {n} operations");
        for failing in 0..n {
            let vfs = begun.fork();
            vfs.fail_op(vfs.ops() + failing, 28, FailMode::Once);
            let done = write_private(&vfs, &path, &new);
            let found = whole(&vfs);
            assert!(
                found == 2 || done.is_err() && found == i32::from(had),
                "{failing}: {found}"
            );
        }
    }
}

/// Secrets are in no text that a program prints by accident.
#[test]
fn debug_and_errors_show_no_secret() {
    struct Bare<T>(std::marker::PhantomData<T>);
    trait Unprintable {
        const PRINTABLE: bool = false;
    }
    impl<T> Unprintable for Bare<T> {}
    impl<T: fmt::Debug> Bare<T> {
        const PRINTABLE: bool = true;
    }
    const {
        assert!(Bare::<u8>::PRINTABLE, "the check itself works");
        assert!(!Bare::<Secret>::PRINTABLE);
        assert!(!Bare::<crate::Phrase>::PRINTABLE);
    }

    let seed = hex(&[2; 32]);
    let file = example();
    assert!(file.text().contains(&seed));
    for shown in [
        format!("{file:?}"),
        format!("{file:#?}"),
        format!("{:?}", Signer::new(&secret(2))),
    ] {
        assert!(!shown.contains(&seed) && !shown.contains("2, 2"), "{shown}");
        assert!(!shown.contains("0202"), "{shown}");
    }
    let broken = file.text().replace("key host", "key admin");
    let error = open(&quick(&broken)).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("02020"), "{error:?}");
    let sealed = quick(&file.text());
    assert!(!sealed.windows(32).any(|w| w == [2; 32]));
    assert!(!sealed.windows(64).any(|w| w == seed.as_bytes()));
}

/// Runs stock `age` on a terminal of its own, as it asks nobody else for passphrases. `None` where it is not installed.
fn stock_age(args: &str, answers: &str) -> Option<()> {
    let there = Command::new("age").arg("--version").output().is_ok();
    let terminal = Command::new("script").arg("--version").output().is_ok();
    if !there || !terminal {
        eprintln!("skipped: needs the programs age and script");
        return None;
    }
    let mut child = Command::new("script")
        .args(["-qec", &format!("age {args}"), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(answers.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}");
    Some(())
}

/// What we write, stock `age` decrypts to the documented text.
#[test]
fn stock_age_opens_our_files() {
    let dir = tempfile::tempdir().unwrap();
    let (sealed, plain) = (dir.path().join("keys.age"), dir.path().join("keys.txt"));
    std::fs::write(&sealed, example().seal(PASSPHRASE).unwrap()).unwrap();
    let args = format!(
        "--decrypt --output {} {}",
        plain.display(),
        sealed.display()
    );
    if stock_age(&args, &format!("{PASSPHRASE}\n")).is_some() {
        assert_eq!(std::fs::read_to_string(&plain).unwrap(), *example().text());
    }
}

/// Files made by stock `age` 1.1.1: `age --passphrase`, binary and with `--armor`, at its own work factor of 18, by
/// `tests/fixtures/stock.gen.sh`.
#[test]
fn files_of_stock_age_are_read() {
    for made in [
        include_bytes!("../../tests/fixtures/stock.age").as_slice(),
        include_bytes!("../../tests/fixtures/stock-armored.age"),
    ] {
        let read = open(made).unwrap();
        assert_eq!(*read.text(), *example().text());
    }
    let plain = include_str!("../../tests/fixtures/stock.txt");
    assert_eq!(*example().text(), plain);
    let armored = include_bytes!("../../tests/fixtures/stock-armored.age");
    for cut in [40, 100, armored.len() - 30] {
        let error = open(&armored[..cut]).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Damaged),
            "cut to {cut}: {error:?}"
        );
    }
    let mut more = armored.to_vec();
    more.extend(b"more\n");
    assert!(matches!(open(&more), Err(KeyFileError::Damaged)));
}
