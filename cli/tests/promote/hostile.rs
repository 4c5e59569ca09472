//! A rescue store is hostile until proven: what somebody does to it, and what the promotion says. Each time the target, and what the
//! workstation remembers, stay as they were to the last byte.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Rescue, asl_at, copy, does, init, json, program, rescue, succeeds, tree};

/// A rescue store, and an empty personal domain in `root`.
fn with_target(foreign: Option<&str>) -> Rescue {
    let rescue = rescue(12 << 20);
    let root = rescue.path("root");
    rescue.home(&root);
    if let Some(value) = foreign {
        let mut policy = asl_at(&root);
        policy.args(["domain", "policy", "--yes", "--set"]);
        policy.arg(format!("foreign={value}"));
        does(policy.arg("--passphrase-file").arg(rescue.path("pass")));
    }
    rescue
}

/// The block files of a store, the largest first.
fn blocks(store: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(store.join("blocks/sealed")).into_iter();
    let files = files
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().is_file());
    let mut files: Vec<_> = files
        .map(|entry| (entry.metadata().unwrap().len(), entry.into_path()))
        .collect();
    files.sort();
    files.into_iter().rev().map(|(_, path)| path).collect()
}

fn log_file(store: &Path) -> PathBuf {
    store.join("log/log-0000000000000000.asl")
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// What a store holds: all its files but the one that says who writes, and when they were last written does not matter.
fn untouched(dir: &Path) -> std::collections::BTreeMap<PathBuf, blake3::Hash> {
    let files = tree(dir).into_iter();
    let files = files.filter(|(path, _)| path.file_name().is_none_or(|name| name != "lock"));
    files.map(|(path, (digest, _))| (path, digest)).collect()
}

/// The promotion ends with `exit`, says why and what to do, and has changed nothing.
fn refuses(rescue: &Rescue, mut command: Command, exit: i32) -> serde_json::Value {
    let before = (untouched(&rescue.path("root")), tree(&rescue.path("state")));
    let (code, error) = json(&mut command);
    assert_eq!(code, exit, "{error}");
    assert_eq!(error["exit"], exit, "{error}");
    assert!(
        error["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
        "{error}"
    );
    assert_eq!(
        untouched(&rescue.path("root")),
        before.0,
        "the target was changed: {error}"
    );
    assert!(
        tree(&rescue.path("state")) == before.1,
        "the pins were changed: {error}"
    );
    error
}

#[test]
fn what_is_damaged_or_put_in_its_place_is_refused() {
    type Harm = fn(&Path);
    let harms: &[(&str, Harm)] = &[
        ("two blocks swapped", |store| {
            let files = blocks(store);
            let aside = store.join("aside");
            fs::rename(&files[0], &aside).unwrap();
            fs::rename(&files[1], &files[0]).unwrap();
            fs::rename(&aside, &files[1]).unwrap();
        }),
        ("a bit of a block flipped", |store| {
            let file = &blocks(store)[0];
            flip(file, fs::metadata(file).unwrap().len() / 2);
        }),
        ("a block cut short", |store| {
            let file = fs::OpenOptions::new()
                .write(true)
                .open(&blocks(store)[0])
                .unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        }),
        ("a block missing", |store| {
            fs::remove_file(&blocks(store)[0]).unwrap()
        }),
        ("a link in place of a block", |store| {
            let file = &blocks(store)[0];
            let aside = store.join("aside");
            fs::rename(file, &aside).unwrap();
            symlink(&aside, file).unwrap();
        }),
        ("a link that leads to itself", |store| {
            let file = &blocks(store)[0];
            fs::remove_file(file).unwrap();
            symlink(file, file).unwrap();
        }),
        ("a FIFO in place of a block", |store| {
            let file = &blocks(store)[0];
            fs::remove_file(file).unwrap();
            assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
            assert!(fs::metadata(file).unwrap().file_type().is_fifo());
        }),
        ("a device in place of a block", |store| {
            let file = &blocks(store)[0];
            fs::remove_file(file).unwrap();
            assert!(
                Command::new("mknod")
                    .arg(file)
                    .args(["c", "1", "5"])
                    .status()
                    .unwrap()
                    .success()
            );
        }),
        ("a directory in place of a block", |store| {
            let file = &blocks(store)[0];
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        }),
        ("the blocks elsewhere, by a link", |store| {
            fs::rename(store.join("blocks"), store.join("aside")).unwrap();
            symlink("aside", store.join("blocks")).unwrap();
        }),
        ("a log that is a link", |store| {
            fs::rename(store.join("log"), store.join("aside")).unwrap();
            symlink("aside", store.join("log")).unwrap();
        }),
        ("the instances elsewhere, by a link", |store| {
            fs::create_dir(store.join("aside")).unwrap();
            symlink("aside", store.join("instances")).unwrap();
        }),
        ("the log of an instance that is a FIFO", |store| {
            let instance = store.join("instances").join("ab".repeat(16));
            fs::create_dir_all(instance.join("log")).unwrap();
            copy(&store.join("blocks"), &instance.join("blocks"));
            fifo(&instance.join("log/log-0000000000000000.asl"));
        }),
        ("itself under another name among the instances", |store| {
            let instance = store.join("instances").join("ab".repeat(16));
            fs::create_dir_all(&instance).unwrap();
            for name in ["log", "blocks", "index"] {
                copy(&store.join(name), &instance.join(name));
            }
        }),
        ("itself among the instances", |store| {
            let log = fs::read(log_file(store)).unwrap();
            let id: String = log[16..32]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let instance = store.join("instances").join(id);
            fs::create_dir_all(&instance).unwrap();
            for name in ["log", "blocks", "index"] {
                copy(&store.join(name), &instance.join(name));
            }
        }),
        ("a record of the log flipped", |store| {
            flip(&log_file(store), 200)
        }),
        ("a torn tail", |store| {
            let mut bytes = fs::read(log_file(store)).unwrap();
            bytes.truncate(bytes.len() - 1);
            fs::write(log_file(store), bytes).unwrap();
        }),
        ("a block of a sparse terabyte", |store| {
            let file = fs::OpenOptions::new()
                .write(true)
                .open(&blocks(store)[0])
                .unwrap();
            file.set_len(1 << 40).unwrap();
        }),
    ];
    let rescue = with_target(None);
    let whole = rescue.path("whole");
    copy(&rescue.store, &whole);
    for (what, harm) in harms {
        fs::remove_dir_all(&rescue.store).unwrap();
        copy(&whole, &rescue.store);
        harm(&rescue.store);
        eprintln!("{what}");
        let error = refuses(&rescue, rescue.promote(&[]), 10);
        let text = error.to_string();
        assert!(!text.contains("panicked"), "{what}: {text}");
        // Nor is a domain founded for it, unless every byte must be read to find it out.
        if *what != "a bit of a block flipped" {
            founds_nothing(&rescue, as_new(&rescue), 10);
        }
    }
    // And what was harmed last, mended, is taken.
    fs::remove_dir_all(&rescue.store).unwrap();
    copy(&whole, &rescue.store);
    succeeds(&mut rescue.promote(&[]));
}

/// Where a domain is to be founded for what is promoted.
fn fresh(rescue: &Rescue) -> PathBuf {
    rescue.path("fresh")
}

fn as_new(rescue: &Rescue) -> Command {
    let mut command = rescue.promotion(&rescue.store, &fresh(rescue), &rescue.domain);
    command.args(AS_NEW);
    command
}

/// The promotion is refused before a domain is founded for it: nothing is there that was not.
fn founds_nothing(rescue: &Rescue, command: Command, exit: i32) -> serde_json::Value {
    let error = refuses(rescue, command, exit);
    assert!(!fresh(rescue).exists(), "{error}");
    error
}

/// Whatever can be found out without copying is, before a domain is founded.
#[test]
fn no_domain_is_founded_for_what_is_refused() {
    let rescue = with_target(None);
    let early = rescue.path("early");
    copy(&rescue.store, &early);
    let file = rescue.path("words");
    fs::write(&file, "more").unwrap();
    does(asl_at(&rescue.store).arg("put").arg(&file));
    succeeds(&mut rescue.promote(&[]));

    // Put back to what it was before this machine saw it last; and gone another way since.
    let late = rescue.path("late");
    fs::rename(&rescue.store, &late).unwrap();
    copy(&early, &rescue.store);
    founds_nothing(&rescue, as_new(&rescue), 12);
    for words in ["other words", "and more", "and more again"] {
        fs::write(&file, words).unwrap();
        does(asl_at(&rescue.store).arg("put").arg(&file));
    }
    let (code, error) = json(&mut as_new(&rescue));
    assert_eq!(code, 12, "{error}");
    assert!(!fresh(&rescue).exists(), "{error}");
    fs::remove_dir_all(&rescue.store).unwrap();
    fs::rename(&late, &rescue.store).unwrap();

    // Another id, a capture that is not there, a store without a domain, one that was cut off.
    let shown = does(asl_at(&rescue.path("root")).args(["domain", "show"]));
    let other = shown["domain_id"].as_str().unwrap();
    let mut promotion = rescue.promotion(&rescue.store, &fresh(&rescue), other);
    promotion.args(AS_NEW);
    founds_nothing(&rescue, promotion, 11);
    let mut promotion = as_new(&rescue);
    promotion.args(["--captures", "none"]);
    founds_nothing(&rescue, promotion, 1);
    let bare = rescue.path("bare");
    init(&bare, &[]);
    let mut promotion = rescue.promotion(&bare, &fresh(&rescue), &rescue.domain);
    promotion.args(AS_NEW);
    founds_nothing(&rescue, promotion, 11);

    // The rescue domain's keys do not open; the new one's passphrase is not there; its phrase has no place.
    let wrong = rescue.path("wrong");
    fs::write(&wrong, "not this one").unwrap();
    for more in [&[][..], &["--retire-source"]] {
        let mut promotion = as_new(&rescue);
        promotion.arg("--rescue-passphrase-file").arg(&wrong);
        founds_nothing(&rescue, promotion, 11);
        let mut promotion = as_new(&rescue);
        let missing = rescue.path("missing");
        promotion.arg("--rescue-passphrase-file").arg(missing);
        promotion.args(more);
        let (code, _) = json(&mut promotion);
        assert_eq!(code, 1);
        assert!(!fresh(&rescue).exists());
    }
    let phrase = rescue.store.join("meta/phrase");
    for taken in [&phrase, &file] {
        let mut promotion = rescue.promotion(&rescue.store, &fresh(&rescue), &rescue.domain);
        promotion.args(["--as-new", "--name", "home", "--ephemeral"]);
        promotion.arg("--recovery-out").arg(taken);
        let exit = if taken == &file { 1 } else { 2 };
        founds_nothing(&rescue, promotion, exit);
    }
    assert!(!phrase.exists());

    // A dry run says all of it, and makes nothing.
    let mut promotion = as_new(&rescue);
    let (code, offer) = json(promotion.arg("--dry-run"));
    assert_eq!(code, 0, "{offer}");
    assert!(!fresh(&rescue).exists());
    let promoted = does(&mut as_new(&rescue));
    assert_eq!(offer["copy_blocks"], promoted["copied_blocks"], "{offer}");
    for same in ["artifacts", "bytes", "child_domain", "store_id"] {
        assert_eq!(offer[same], promoted[same], "{same}: {offer}");
    }
    assert!(offer["copy_bytes"].as_u64() > Some(1 << 20), "{offer}");
    assert_eq!(offer["captures"].as_array().unwrap().len(), 1, "{offer}");
}

/// What can only be found by reading everything leaves a domain with nothing in it, which the same command goes into once that is
/// mended.
#[test]
fn a_domain_that_got_nothing_is_the_one_that_it_goes_into() {
    let rescue = rescue(12 << 20);
    let whole = rescue.path("whole");
    copy(&rescue.store, &whole);
    let file = &blocks(&rescue.store)[0];
    flip(file, fs::metadata(file).unwrap().len() / 2);
    let output = as_new(&rescue).output().unwrap();
    assert_eq!(output.status.code(), Some(10), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("the same command goes into it"), "{told}");
    let founded = || {
        let names = fs::read_dir(fresh(&rescue).join("domains")).unwrap();
        names
            .map(|entry| entry.unwrap().file_name())
            .collect::<Vec<_>>()
    };
    let first = founded();
    assert_eq!(first.len(), 1, "{first:?}");
    fs::remove_dir_all(&rescue.store).unwrap();
    copy(&whole, &rescue.store);
    does(&mut as_new(&rescue));
    assert_eq!(founded(), first);
}

fn fifo(at: &Path) {
    assert!(Command::new("mkfifo").arg(at).status().unwrap().success());
}

/// What is neither a file nor a directory is not there for a store: it is not followed, waited for or taken over.
#[test]
fn links_and_fifos_among_the_instances_are_passed_over() {
    let rescue = with_target(None);
    let instances = rescue.store.join("instances");
    fs::create_dir(&instances).unwrap();
    symlink("..", instances.join("ab".repeat(16))).unwrap();
    fifo(&instances.join("cd".repeat(16)));
    let (code, promoted) = json(&mut rescue.promote(&[]));
    assert_eq!(code, 0, "{promoted}");
    assert_eq!(
        promoted["instances"].as_array().unwrap().len(),
        1,
        "{promoted}"
    );
}

#[test]
fn who_it_is_not_is_refused() {
    let rescue = with_target(None);
    // Another domain than expected: that of the target, which is a well-formed id.
    let root = rescue.path("root");
    let shown = does(asl_at(&root).args(["domain", "show"]));
    let other = shown["domain_id"].as_str().unwrap();
    let promotion = rescue.promotion(&rescue.store, &root, other);
    let error = refuses(&rescue, promotion, 11);
    assert!(
        !error.to_string().contains(&rescue.domain),
        "the id that was not typed is not shown: {error}"
    );

    // No id at all, and nobody to ask.
    let mut command = program("asl-promote");
    command
        .env("ASL_STATE", rescue.path("state"))
        .arg(&rescue.store)
        .arg("--into")
        .arg(rescue.path("root"))
        .args(["--yes", "--no-input"]);
    let error = refuses(&rescue, command, 14);
    assert!(error.to_string().contains("--expect"), "{error}");

    // The wrong passphrase.
    fs::write(rescue.path("pass"), "not this one").unwrap();
    refuses(&rescue, rescue.promote(&[]), 11);
    fs::write(rescue.path("pass"), super::PASSPHRASE).unwrap();

    // A store without a domain.
    let bare = rescue.path("bare");
    init(&bare, &[]);
    let promotion = rescue.promotion(&bare, &root, &rescue.domain);
    refuses(&rescue, promotion, 11);
}

/// Covers C5.
#[test]
fn the_targets_policy_decides_what_is_let_in() {
    let rescue = with_target(Some("quarantine"));
    refuses(&rescue, rescue.promote(&[]), 13);
    refuses(&rescue, rescue.promote(&["--level", "bytes"]), 13);

    let rescue = with_target(Some("bytes"));
    refuses(&rescue, rescue.promote(&[]), 13);
    let taken = does(&mut rescue.promote(&["--level", "bytes"]));
    let root = rescue.path("root");
    // The bytes are there and found by their key; no capture is claimed.
    let listed = does(asl_at(&root).arg("captures"));
    assert_eq!(listed["captures"], serde_json::json!([]), "{taken}");
    let ours = does(asl_at(&root).args(["ls", "--all"]));
    let theirs = does(asl_at(&rescue.store).args(["ls", "--all"]));
    let keys = |list: &serde_json::Value| -> std::collections::BTreeSet<String> {
        let list = list["artifacts"].as_array().unwrap().iter();
        list.map(|line| line["key"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(keys(&ours).is_superset(&keys(&theirs)));
}

#[test]
fn a_source_that_was_put_back_or_goes_another_way_is_refused() {
    let rescue = with_target(None);
    let early = rescue.path("early");
    copy(&rescue.store, &early);
    let put = |store: &Path, words: &str| {
        let file = rescue.path("words");
        fs::write(&file, words).unwrap();
        does(asl_at(store).arg("put").arg(&file));
        let attest = ["domain", "attest", "--passphrase-file"];
        does(asl_at(store).args(attest).arg(rescue.path("pass")));
    };
    put(&rescue.store, "one history");
    succeeds(&mut rescue.promote(&[]));

    // Put back to what it was before.
    let late = rescue.path("late");
    fs::rename(&rescue.store, &late).unwrap();
    copy(&early, &rescue.store);
    refuses(&rescue, rescue.promote(&[]), 12);

    // Grown another way, by somebody who has the same log.
    put(&rescue.store, "another history");
    put(&rescue.store, "and longer");
    let before = tree(&rescue.path("root"));
    let (code, error) = json(&mut rescue.promote(&[]));
    assert_eq!(code, 12, "{error}");
    assert!(
        tree(&rescue.path("root")) == before,
        "the target was changed"
    );
    let evidence = rescue.path("state").join("evidence");
    assert_eq!(
        fs::read_dir(&evidence).unwrap().count(),
        1,
        "both heads are kept"
    );
}

/// The target's files are its own: whoever holds another name of the rescue store's files cannot write into them.
#[test]
fn no_file_of_the_target_is_one_of_the_source() {
    let rescue = with_target(None);
    let file = &blocks(&rescue.store)[0];
    fs::hard_link(file, rescue.path("another name")).unwrap();
    succeeds(&mut rescue.promote(&[]));
    let theirs: Vec<_> = blocks(&rescue.store)
        .iter()
        .map(|path| fs::metadata(path).unwrap().ino())
        .collect();
    for path in blocks(&rescue.path("root")) {
        let ours = fs::metadata(path).unwrap();
        assert_eq!(ours.nlink(), 1);
        assert!(!theirs.contains(&ours.ino()));
    }
}

/// All names below a directory.
fn names(dir: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter();
    entries.map(|entry| entry.unwrap().into_path()).collect()
}

const AS_NEW: [&str; 5] = ["--as-new", "--name", "home", "--no-recovery", "--ephemeral"];

/// A new domain's place is refused before anything is made there: nothing of it is left in the rescue store, and a store into which one
/// was to be put by mistake is no root afterwards.
#[test]
fn a_new_domain_inside_of_a_store_leaves_nothing_there() {
    let rescue = with_target(None);
    let link = rescue.path("link");
    symlink(rescue.store.join("tmp"), &link).unwrap();
    let before = names(&rescue.store);
    for into in [
        "usb/blocks",
        "usb/tmp/new",
        "usb/domains/x",
        "link",
        "link/x",
    ] {
        let mut promotion = rescue.promotion(&rescue.store, &rescue.path(into), &rescue.domain);
        promotion.args(AS_NEW);
        let error = refuses(&rescue, promotion, 1);
        assert!(
            error.to_string().contains("lies in another store"),
            "{error}"
        );
        assert_eq!(names(&rescue.store), before, "{into}: {error}");
    }
    succeeds(&mut rescue.promote(&[]));
}

/// The paths that somebody mistakes for another one: what is said leads on.
#[test]
fn a_wrong_path_is_told_from_a_wrong_store() {
    let rescue = rescue(1 << 20);
    let root = rescue.path("root");
    succeeds(rescue.promote(&[]).args(AS_NEW));
    let hint = |from: &Path, into: &Path, exit: i32| {
        let error = refuses(&rescue, rescue.promotion(from, into, &rescue.domain), exit);
        error["hint"].as_str().unwrap().to_owned()
    };
    let domains = root.join("domains");
    // The mountpoint instead of the store on it, and a root.
    let found = hint(rescue.room.path(), &root, 1);
    assert!(
        found.contains(&format!("ls {}", rescue.room.path().display())),
        "{found}"
    );
    let found = hint(&root, &root, 1);
    assert!(
        found.contains(&format!("ls {}", domains.display())),
        "{found}"
    );
    // The same store twice: there is nothing to sync.
    let found = hint(&rescue.store, &rescue.store, 11);
    assert!(found.contains("--into ROOT"), "{found}");
    // One step too far, with and without a new domain.
    let found = hint(&rescue.store, &domains, 2);
    assert!(
        found.ends_with(&format!("--into {}", root.display())),
        "{found}"
    );
    let mut promotion = rescue.promotion(&rescue.store, &domains, &rescue.domain);
    promotion.args(AS_NEW);
    refuses(&rescue, promotion, 2);
}

/// Of two that would found a domain in one place at once, one does; the other one is told so, and finds it the next time.
#[test]
fn one_domain_is_founded_by_two_at_once() {
    let rescue = rescue(1 << 20);
    let domains = rescue.path("root/domains");
    fs::create_dir_all(&domains).unwrap();
    let lock = fs::File::open(&domains).unwrap();
    lock.lock().unwrap();
    let mut promotion = rescue.promote(&[]);
    promotion.args(AS_NEW);
    let error = refuses(&rescue, promotion, 1);
    assert!(
        error.to_string().contains("somebody else founds"),
        "{error}"
    );
    assert_eq!(names(&domains).len(), 1);
    drop(lock);

    let spawn = || {
        let mut promotion = rescue.promote(&[]);
        promotion.args(AS_NEW).arg("--json").arg("--quiet");
        promotion.stdout(Stdio::piped()).stderr(Stdio::piped());
        promotion.spawn().unwrap()
    };
    let both = [spawn(), spawn()].map(|child| child.wait_with_output().unwrap());
    assert!(both.iter().any(|one| one.status.success()), "{both:?}");
    succeeds(rescue.promote(&[]).args(AS_NEW));
    let founded: Vec<_> = fs::read_dir(&domains).unwrap().collect();
    assert_eq!(founded.len(), 1, "{founded:?}");
}
