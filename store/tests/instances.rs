//! Several instances of a store in one directory: what is visible over all of them, what a writer of one of them does, and
//! what is left when it is cut off.

mod common;
#[path = "common/python.rs"]
mod python;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use asl_store::instances::instance_dir;
use asl_store::segment::IndexRecord;
use asl_store::vfs::Vfs;
use asl_store::vfs::fault::{CrashPolicy, FaultVfs};
use asl_store::{
    Compression, Context, Encoder, Frame, Home, Key, Put, SessionId, StoreHandle, StoreId,
    StoreWriter, VerifyOptions, create, format, verify,
};
use common::*;
use proptest::prelude::*;

/// Lays the instance at the top of `from` below `instances/` of `into`, as a sync would.
fn replicate(from: &FaultVfs, into: &FaultVfs) -> StoreId {
    let id = id_of(from);
    let dir = instance_dir(&id);
    for (path, _) in into.files() {
        if path.starts_with(&dir) {
            into.remove(&path).unwrap();
        }
    }
    for (path, _) in from.files() {
        if !path.starts_with("instances/") && !["lock", "ballast"].contains(&path.as_str()) {
            let bytes = from.read_file(&path).unwrap();
            into.write_file(&format!("{dir}/{path}"), &bytes).unwrap();
        }
    }
    id
}

fn id_of(vfs: &FaultVfs) -> StoreId {
    let one = StoreHandle::open_one(Arc::new(vfs.clone())).unwrap();
    one.with_state(|state| state.store_id())
}

fn store(seed: u8) -> FaultVfs {
    let vfs = FaultVfs::new();
    create(&vfs, &small_params(), &context(seed), &options()).unwrap();
    vfs
}

/// Bytes that are a part of something, not put by anybody.
fn part(bytes: &[u8]) -> Frame {
    let key = Key::of(bytes);
    Encoder::new(Compression::None).encode(key, bytes.to_vec().into(), 0)
}

/// Visible keys, and whether they are roots.
fn seen(handle: &StoreHandle) -> BTreeMap<Key, bool> {
    let mut seen = BTreeMap::new();
    let mut last = None;
    let mut each = |record: IndexRecord| {
        assert!(last < Some(record.key), "in key order, each once");
        last = Some(record.key);
        assert_eq!(handle.lookup(&record.key)?, Some(record));
        assert!(!handle.is_removed(&record.key)?);
        seen.insert(record.key, record.is_root());
        Ok(())
    };
    handle.for_each(&mut each).unwrap();
    seen
}

fn check_whole(vfs: &FaultVfs) {
    let options = VerifyOptions {
        threads: 1,
        ..VerifyOptions::default()
    };
    let report = verify(Arc::new(vfs.clone()), &options, &()).unwrap();
    assert_eq!(report.damage, [], "{:?}", report.notes);
}

/// Two stores with something of their own and something in common; the second lies in the first.
fn pair() -> (FaultVfs, FaultVfs) {
    let (a, b) = (store(1), store(2));
    for (vfs, from) in [(&a, 0), (&b, 20)] {
        let mut w = writer(vfs, 3 + from as u8).unwrap();
        w.begin_session(SessionId([from as u8; 16]), b"{}").unwrap();
        for n in from..from + 40 {
            w.put(frame(&noise(n, 300 + n as usize))).unwrap();
        }
        w.put(frame(&noise(1000 + from, 20_000))).unwrap();
        w.put(part(&noise(2000, 500))).unwrap();
        w.end_session(format::SESSION_FINISHED, None, b"{}")
            .unwrap();
        w.flush().unwrap();
        w.snapshot("one").unwrap();
        w.put(frame(&noise(3000 + from, 77))).unwrap();
        w.finish().unwrap();
    }
    replicate(&b, &a);
    (a, b)
}

#[test]
fn a_reader_sees_what_every_instance_has() {
    let (a, b) = pair();
    let handle = reader(&a).unwrap();
    assert_eq!(handle.problems(), []);
    let all = seen(&handle);
    let roots = (0..60)
        .map(|n| noise(n, 300 + n as usize))
        .chain([1000, 1020].map(|n| noise(n, 20_000)))
        .chain([3000, 3020].map(|n| noise(n, 77)));
    let mut expected: BTreeMap<Key, bool> = roots.map(|bytes| (Key::of(&bytes), true)).collect();
    expected.insert(Key::of(&noise(2000, 500)), false);
    assert_eq!(all, expected);
    for key in all.keys() {
        assert_eq!(Key::of(&handle.get(key).unwrap()), *key);
        let location = handle.locate(key).unwrap();
        assert_eq!(Key::of(&handle.read(&location).unwrap()), *key);
        let record = handle.lookup(key).unwrap().unwrap();
        let (instance, _) = handle.birthplace(record.block).unwrap();
        let path = handle.path_of(record.block);
        assert!(a.read_file(&path).is_ok(), "{path}");
        assert_eq!(path.starts_with("instances/"), instance == id_of(&b));
    }
    let sessions: Vec<_> = handle.sessions().iter().map(|one| one.session()).collect();
    assert_eq!(sessions, [SessionId([0; 16]), SessionId([20; 16])]);
    let mut blocks = 0;
    handle.for_each_block(&mut |id, info| {
        blocks += 1;
        assert_eq!(handle.block(id).as_ref(), Some(info));
        handle
            .notes::<asl_store::Error>(id, &mut |_, _| Ok(()))
            .unwrap();
    });
    assert!(blocks > 4);
    // Each by itself has its own only.
    let ones = handle.instances();
    assert_eq!(seen(&ones[0]).len() + seen(&ones[1]).len(), all.len() + 21);
    // A look into the past is one at the own instance.
    let then = handle.at("one", None).unwrap();
    assert_eq!(seen(&then).len(), 42);
    check_whole(&a);
}

#[test]
fn parts_lie_wherever_they_are_but_what_is_put_is_put_here() {
    let (a, _) = pair();
    let mut w = writer(&a, 9).unwrap();
    // Only the other instance has it.
    let bytes = noise(50, 350);
    assert_eq!(w.put(part(&bytes)).unwrap(), Put::Duplicate);
    let Put::Stored(_) = w.put(frame(&bytes)).unwrap() else {
        panic!("a root that only another instance says is put");
    };
    w.commit().unwrap();
    let own = w.handle().lookup(&Key::of(&bytes)).unwrap().unwrap();
    let (instance, _) = w.handle().birthplace(own.block).unwrap();
    assert_eq!(instance, id_of(&a));
    // A list whose parts lie in both.
    let parts = [noise(0, 300), noise(58, 358)];
    let list: Vec<(Key, u64)> = parts
        .iter()
        .map(|part| (Key::of(part), part.len() as u64))
        .collect();
    let whole = parts.concat();
    w.put(Encoder::chunked(Key::of(&whole), &list, format::FLAG_ROOT))
        .unwrap();
    w.finish().unwrap();
    assert_eq!(reader(&a).unwrap().get(&Key::of(&whole)).unwrap(), whole);
    check_whole(&a);
    // What another instance's log says is not for this one to say again.
    let mut w = writer(&a, 10).unwrap();
    let foreign = w.handle().lookup(&Key::of(&noise(59, 359))).unwrap();
    assert!(w.index_add(&[foreign.unwrap()]).is_err());
    w.finish().unwrap();
}

/// Damage is told with the path that leads to it, whichever instance it is in, and a reader goes on with the rest.
#[test]
fn damage_of_an_instance_is_told_with_its_path() {
    let (a, b) = pair();
    let prefix = format!("{}/", instance_dir(&id_of(&b)));
    for (path, len) in a.files() {
        let Some(rest) = path.strip_prefix(&prefix) else {
            continue;
        };
        if rest.ends_with(".asl") || rest.ends_with(".blk") || rest.ends_with(".idx") {
            let broken = a.fork();
            broken.flip_byte(&path, len / 2).unwrap();
            let options = VerifyOptions::default();
            let report = verify(Arc::new(broken.clone()), &options, &()).unwrap();
            let told = report.damage.iter().any(|damage| damage.file == path);
            assert!(told, "{path}: {:?}", report.damage);
            let elsewhere = |file: &str| !file.starts_with(&prefix);
            assert!(!report.damage.iter().any(|damage| elsewhere(&damage.file)));
            let own = seen(&reader(&broken).unwrap().instances()[0]);
            assert_eq!(own.len(), 43);
        }
    }
}

/// Repair makes another instance's caches again and appends nothing to its log.
#[test]
fn repair_mends_caches_of_every_instance() {
    let (a, b) = pair();
    let prefix = format!("{}/", instance_dir(&id_of(&b)));
    let before: Vec<_> = a.files();
    let mut gone = Vec::new();
    for (path, _) in &before {
        let cache = ["bloom.bin", "current", "state.bin", "manifest.yaml"];
        if path.starts_with(&prefix) && cache.iter().any(|name| path.ends_with(name)) {
            gone.push((path.clone(), a.read_file(path).unwrap()));
            a.remove(path).unwrap();
        }
    }
    assert!(gone.len() > 5);
    let repair_options = asl_store::RepairOptions {
        write: options(),
        ..Default::default()
    };
    asl_store::repair(Arc::new(a.clone()), context(30), &repair_options).unwrap();
    for (path, bytes) in gone {
        assert_eq!(a.read_file(&path).ok(), Some(bytes), "{path}");
    }
    let theirs = |files: Vec<(String, u64)>| {
        let theirs = files
            .into_iter()
            .filter(|(path, _)| path.starts_with(&prefix));
        theirs.collect::<Vec<_>>()
    };
    assert_eq!(theirs(a.files()), theirs(before));
    check_whole(&a);
}

fn home(name: &str) -> Option<Home> {
    Some(Home::new(name).unwrap())
}

/// A writer of the store in `vfs` as it is opened at a place.
fn writer_at(vfs: &FaultVfs, seed: u8, place: &str) -> asl_store::Result<StoreWriter> {
    let context = Context {
        home: home(place),
        ..context(seed)
    };
    StoreWriter::open(Arc::new(vfs.clone()), context, options())
}

fn own_id(w: &StoreWriter) -> StoreId {
    w.handle().with_state(|state| state.store_id())
}

fn key(n: u64) -> Key {
    Key::of(&noise(n, 300))
}

fn put(w: &mut StoreWriter, n: u64) {
    w.put(frame(&noise(n, 300))).unwrap();
}

/// The same by the engine that users have.
fn meet(from: &FaultVfs, into: &FaultVfs, place: &str) {
    let (into, from): (Arc<dyn Vfs>, Arc<dyn Vfs>) =
        (Arc::new(into.clone()), Arc::new(from.clone()));
    let context = Context {
        home: home(place),
        ..context(99)
    };
    let options = asl_store::sync::SyncOptions::default();
    asl_store::sync::sync(&into, &from, &context, &options, &()).unwrap();
}

/// Copies every instance of `from` into `into`: what is longer there, and what is not here.
fn sync(from: &FaultVfs, into: &FaultVfs) {
    let ours = reader(into).unwrap().instances();
    let top = id_of(into);
    for theirs in reader(from).unwrap().instances() {
        let (id, position) = theirs.with_state(|state| (state.store_id(), state.position()));
        let here = ours
            .iter()
            .find(|one| one.with_state(|state| state.store_id() == id));
        if here.is_some_and(|here| here.with_state(|state| state.position()) >= position) {
            continue;
        }
        let place = |of: StoreId, top: StoreId| match of == top {
            true => String::new(),
            false => format!("{}/", instance_dir(&of)),
        };
        let (to, source) = (place(id, top), place(id, id_of(from)));
        for (path, _) in from.files() {
            let Some(name) = path.strip_prefix(&source) else {
                continue;
            };
            let first = name.split('/').next().unwrap();
            if ["log", "blocks", "index", "snapshots"].contains(&first) {
                let bytes = from.read_file(&path).unwrap();
                into.write_file(&format!("{to}{name}"), &bytes).unwrap();
            }
        }
    }
}

/// A store that was cloned and gone on with in two places is two instances; nothing of either is lost when they meet.
#[test]
fn a_clone_that_is_gone_on_with_elsewhere_is_another_instance() {
    let first = store(1);
    let mut w = writer_at(&first, 2, "here").unwrap();
    assert_eq!(w.recovery().born, None);
    put(&mut w, 1);
    put(&mut w, 2);
    w.finish().unwrap();
    let second = first.fork();
    let mut w = writer_at(&first, 3, "here").unwrap();
    assert_eq!((w.recovery().born, own_id(&w)), (None, id_of(&first)));
    put(&mut w, 3);
    w.finish().unwrap();

    let before = StoreHandle::open_one(Arc::new(second.clone()))
        .unwrap()
        .state();
    let mut w = writer_at(&second, 4, "there").unwrap();
    assert_eq!(w.recovery().born, Some(id_of(&first)));
    let born = own_id(&w);
    assert_ne!(born, id_of(&first));
    assert_eq!(w.params(), small_params());
    put(&mut w, 4);
    put(&mut w, 2);
    w.tombstone(&[key(1)]).unwrap();
    w.snapshot("there").unwrap();
    w.finish().unwrap();
    // Not a byte of the old log was added to.
    let after = StoreHandle::open_one(Arc::new(second.clone()))
        .unwrap()
        .state();
    assert_eq!(after, before);
    // The next writer goes on with it, wherever a reader looks first.
    let w = writer_at(&second, 5, "there").unwrap();
    assert_eq!((w.recovery().born, own_id(&w)), (None, born));
    w.finish().unwrap();
    let handle = StoreHandle::open_at_home(Arc::new(second.clone()), home("there").as_ref());
    let handle = handle.unwrap();
    assert_eq!(handle.with_state(|state| state.store_id()), born);
    assert_eq!(
        handle.at("there", None).unwrap().lookup(&key(1)).unwrap(),
        None
    );
    assert_eq!(seen(&handle), seen(&reader(&second).unwrap()));

    sync(&first, &second);
    sync(&second, &first);
    let expected: BTreeMap<Key, bool> = [2, 3, 4].map(|n| (key(n), true)).into();
    for vfs in [&first, &second] {
        assert_eq!(seen(&reader(vfs).unwrap()), expected);
        assert!(reader(vfs).unwrap().is_removed(&key(1)).unwrap());
        check_whole(vfs);
    }
}

/// A home that is not known is not checked, and the first that is known is kept.
#[test]
fn the_first_known_home_is_kept() {
    let vfs = store(1);
    writer(&vfs, 2).unwrap().finish().unwrap();
    assert_eq!(
        reader(&vfs)
            .unwrap()
            .with_state(|state| state.home().cloned()),
        None
    );
    writer_at(&vfs, 3, "here").unwrap().finish().unwrap();
    let records = reader(&vfs).unwrap().with_state(|state| state.position());
    writer_at(&vfs, 4, "here").unwrap().finish().unwrap();
    writer(&vfs, 5).unwrap().finish().unwrap();
    let handle = reader(&vfs).unwrap();
    assert_eq!(
        handle.with_state(|state| (state.home().cloned(), state.position())),
        (home("here"), records)
    );
    assert_eq!(handle.instances().len(), 1);
    // From a snapshot it is known as well.
    let mut w = writer(&vfs, 6).unwrap();
    w.snapshot("").unwrap();
    w.finish().unwrap();
    let w = writer_at(&vfs, 7, "elsewhere").unwrap();
    assert!(w.recovery().born.is_some());
    w.finish().unwrap();
    // A store that is made where its home is known says so at once.
    let fresh = FaultVfs::new();
    let at = Context {
        home: home("here"),
        ..context(9)
    };
    create(&fresh, &small_params(), &at, &options()).unwrap();
    assert_eq!(
        reader(&fresh)
            .unwrap()
            .with_state(|state| state.home().cloned()),
        home("here")
    );
    check_whole(&vfs);
}

/// A store with two instances, and what each is called: (first, second), synced, with 1 to 4 put at the first place.
fn two_places() -> (FaultVfs, FaultVfs) {
    let first = store(1);
    let mut w = writer_at(&first, 2, "here").unwrap();
    for n in 1..5 {
        put(&mut w, n);
    }
    w.finish().unwrap();
    let second = first.fork();
    (first, second)
}

#[test]
fn a_removal_hides_only_what_its_writer_had_seen() {
    let (first, second) = two_places();
    // Seen and removed there; meanwhile put again here, and shown again here.
    let mut w = writer_at(&second, 3, "there").unwrap();
    w.tombstone(&[key(1), key(2), key(3)]).unwrap();
    for n in 1..4 {
        assert!(w.handle().is_removed(&key(n)).unwrap());
        assert_eq!(w.handle().lookup(&key(n)).unwrap(), None);
        assert!(w.handle().lookup_part(&key(n)).unwrap().is_some());
    }
    w.finish().unwrap();
    let mut w = writer_at(&first, 4, "here").unwrap();
    w.put_anew(frame(&noise(1, 300))).unwrap();
    w.commit().unwrap();
    let record = w.handle().lookup(&key(2)).unwrap().unwrap();
    w.tombstone(&[key(2)]).unwrap();
    w.index_add(&[record]).unwrap();
    w.flush().unwrap();
    w.finish().unwrap();
    sync(&first, &second);
    sync(&second, &first);
    let expected: BTreeMap<Key, bool> = [1, 2, 4].map(|n| (key(n), true)).into();
    for vfs in [&first, &second] {
        assert_eq!(seen(&reader(vfs).unwrap()), expected);
        check_whole(vfs);
    }
    // What is hidden by another instance is not there for who puts it: it is written, and visible from then on.
    let mut w = writer_at(&first, 5, "here").unwrap();
    assert!(!w.has(&key(3), 0));
    let Put::Stored(_) = w.put(frame(&noise(3, 300))).unwrap() else {
        panic!("a removed artifact is put again");
    };
    w.commit().unwrap();
    assert!(w.handle().lookup(&key(3)).unwrap().is_some());
    // A removal of what is known by now, made there, hides all of it.
    w.finish().unwrap();
    sync(&first, &second);
    let mut w = writer_at(&second, 6, "there").unwrap();
    w.tombstone(&[key(1), key(2), key(3)]).unwrap();
    w.snapshot("").unwrap();
    w.finish().unwrap();
    sync(&second, &first);
    for vfs in [&first, &second] {
        let handle = reader(vfs).unwrap();
        assert_eq!(seen(&handle), [(key(4), true)].into());
        assert!(handle.is_removed(&key(2)).unwrap());
        check_whole(vfs);
    }
    // A writer that shows a key again sees it at once, though others have removed it.
    let mut w = writer_at(&first, 7, "here").unwrap();
    let hidden = w.handle().lookup_part(&key(2)).unwrap().unwrap();
    assert_eq!(w.handle().lookup(&key(2)).unwrap(), None);
    w.index_add(&[hidden]).unwrap();
    assert!(w.handle().lookup(&key(2)).unwrap().is_some());
    w.finish().unwrap();
    assert!(reader(&first).unwrap().lookup(&key(2)).unwrap().is_some());
    check_whole(&first);
}

/// The very first record that a removal did not see counts.
#[test]
fn what_is_said_right_after_a_removal_stays() {
    let (first, second) = two_places();
    let mut w = writer_at(&first, 3, "here").unwrap();
    put(&mut w, 5);
    w.commit().unwrap();
    sync(&first, &second);
    let seen_there = w.handle().with_state(|state| state.position());
    let mut other = writer_at(&second, 4, "there").unwrap();
    other.tombstone(&[key(5)]).unwrap();
    other.finish().unwrap();
    w.put_anew(frame(&noise(5, 300))).unwrap();
    w.commit().unwrap();
    let block = w.handle().lookup(&key(5)).unwrap().unwrap().block;
    let said = w.handle().block(block).unwrap().position;
    assert_eq!(said, seen_there.0);
    w.finish().unwrap();
    assert!(reader(&second).unwrap().is_removed(&key(5)).unwrap());
    sync(&first, &second);
    sync(&second, &first);
    for vfs in [&first, &second] {
        assert!(reader(vfs).unwrap().lookup(&key(5)).unwrap().is_some());
        check_whole(vfs);
    }
}

/// A deletion of what another instance shows survives a log that lost its end, told from the note in the block.
#[test]
fn removals_are_told_from_blocks() {
    let (_, second) = two_places();
    let mut w = writer_at(&second, 3, "there").unwrap();
    put(&mut w, 9);
    w.commit().unwrap();
    let before = second.files();
    w.tombstone(&[key(1)]).unwrap();
    let id = own_id(&w);
    w.finish().unwrap();
    // The log as it was before, the block that repeats the removal is there.
    let log = format!("{}/log/log-{:016x}.asl", instance_dir(&id), 0);
    let len = before.iter().find(|(path, _)| *path == log).unwrap().1;
    let mut bytes = second.read_file(&log).unwrap();
    bytes.truncate(len as usize);
    second.write_file(&log, &bytes).unwrap();
    second
        .remove(&format!("{}/log/current", instance_dir(&id)))
        .unwrap();
    assert!(reader(&second).unwrap().lookup(&key(1)).unwrap().is_some());
    let w = writer_at(&second, 4, "there").unwrap();
    assert_eq!(w.recovery().relogged_blocks, 1);
    assert!(w.handle().is_removed(&key(1)).unwrap());
    w.finish().unwrap();
    assert!(reader(&second).unwrap().is_removed(&key(1)).unwrap());
    check_whole(&second);
}

/// Cut off at any write while an instance is born and its first artifact put: nothing of the old one changes, and the next
/// writer goes on with one instance at home.
#[test]
fn a_birth_can_be_cut_off_anywhere() {
    let (first, _) = two_places();
    let work = |vfs: &FaultVfs, seed: u8| -> asl_store::Result<()> {
        let mut w = writer_at(vfs, seed, "there")?;
        w.put(frame(&noise(7, 300)))?;
        w.commit()?;
        w.finish()?;
        Ok(())
    };
    let whole = first.fork();
    let start = whole.ops();
    work(&whole, 3).unwrap();
    let steps = whole.ops() - start;
    let old = StoreHandle::open_one(Arc::new(first.clone()))
        .unwrap()
        .state();
    for at in (1..=steps).filter(|at| sweep::all() || at % 3 == 0) {
        for policy in [
            CrashPolicy::KeepAll,
            CrashPolicy::LoseUnsynced,
            CrashPolicy::Torn { seed: at },
            CrashPolicy::Reorder { seed: at },
        ] {
            let vfs = first.fork();
            vfs.crash_at(vfs.ops() + at);
            let done = work(&vfs, 3).is_ok() && !vfs.crashed();
            let vfs = vfs.power_cut(policy);
            let handle = reader(&vfs).unwrap();
            assert_eq!(handle.problems(), [], "cut at {at}");
            for n in 1..5 {
                assert!(handle.lookup(&key(n)).unwrap().is_some(), "cut at {at}");
            }
            assert!(!done || handle.lookup(&key(7)).unwrap().is_some());
            let options = VerifyOptions::default();
            let report = verify(Arc::new(vfs.clone()), &options, &()).unwrap();
            assert!(report.only_caches(), "cut at {at}: {:?}", report.damage);
            work(&vfs, 4).unwrap();
            let handle = reader(&vfs).unwrap();
            let one = StoreHandle::open_one(Arc::new(vfs.clone())).unwrap();
            assert_eq!(one.state(), old, "cut at {at}");
            assert!(handle.lookup(&key(7)).unwrap().is_some());
            let ones = handle.instances();
            let at_home = ones
                .iter()
                .filter(|one| one.with_state(|state| state.home().cloned()) == home("there"));
            assert_eq!(at_home.count(), 1, "cut at {at}");
            check_whole(&vfs);
        }
    }
}

/// Cut off at any write while a key of another instance is removed: it is removed or not, and whoever opens it next makes up
/// its mind; asked again, it is removed.
#[test]
fn a_removal_can_be_cut_off_anywhere() {
    let (_, second) = two_places();
    writer_at(&second, 3, "there").unwrap().finish().unwrap();
    let work = |vfs: &FaultVfs, seed: u8| -> asl_store::Result<()> {
        let mut w = writer_at(vfs, seed, "there")?;
        w.put(frame(&noise(7, 300)))?;
        w.tombstone(&[key(1), key(7)])?;
        w.finish()?;
        Ok(())
    };
    let whole = second.fork();
    let start = whole.ops();
    work(&whole, 4).unwrap();
    let steps = whole.ops() - start;
    for at in (1..=steps).filter(|at| sweep::all() || at % 2 == 0) {
        for policy in [
            CrashPolicy::KeepAll,
            CrashPolicy::LoseUnsynced,
            CrashPolicy::Torn { seed: at },
            CrashPolicy::Reorder { seed: at },
        ] {
            let vfs = second.fork();
            vfs.crash_at(vfs.ops() + at);
            let done = work(&vfs, 4).is_ok() && !vfs.crashed();
            let vfs = vfs.power_cut(policy);
            let shown = reader(&vfs).unwrap().lookup(&key(1)).unwrap().is_some();
            assert!(!done || !shown, "cut at {at}");
            let w = writer_at(&vfs, 5, "there").unwrap();
            let mended = w.handle().lookup(&key(1)).unwrap().is_some();
            assert!(shown || !mended, "cut at {at}: it is back");
            w.finish().unwrap();
            work(&vfs, 6).unwrap();
            let handle = reader(&vfs).unwrap();
            assert!(handle.is_removed(&key(1)).unwrap() && handle.is_removed(&key(7)).unwrap());
            assert_eq!(seen(&handle).len(), 3);
            check_whole(&vfs);
        }
    }
}

/// The visible roots as the Python reader sees them; it must find no damage.
fn roots_by_extract(vfs: &FaultVfs) -> BTreeMap<String, u64> {
    let dir = tempfile::tempdir().unwrap();
    for (path, _) in vfs.files() {
        let to = dir.path().join(&path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, vfs.read_file(&path).unwrap()).unwrap();
    }
    for verb in ["verify", "list"] {
        let output = python::extract(dir.path(), &[verb]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{verb}: {errors}");
    }
    let output = python::extract(dir.path(), &["artifacts"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let pairs = lines.lines().map(|line| line.split_once(' ').unwrap());
    pairs
        .map(|(key, len)| (key.to_owned(), len.parse().unwrap()))
        .collect()
}

fn roots_of(vfs: &FaultVfs) -> BTreeMap<String, u64> {
    let handle = reader(vfs).unwrap();
    let roots = seen(&handle).into_iter().filter(|(_, root)| *root);
    let len = |key: &Key| handle.lookup(key).unwrap().unwrap().raw_len;
    roots.map(|(key, _)| (key.to_string(), len(&key))).collect()
}

/// The reader that was written from the page alone sees the same, removals and all.
#[test]
fn extract_py_sees_what_every_instance_has() {
    let (a, _) = pair();
    assert_eq!(roots_by_extract(&a), roots_of(&a));
    let mut w = writer(&a, 9).unwrap();
    let parts = [noise(0, 300), noise(58, 358)];
    let list = parts.iter().map(|part| (Key::of(part), part.len() as u64));
    let list: Vec<(Key, u64)> = list.collect();
    let whole = Key::of(&parts.concat());
    w.put(Encoder::chunked(whole, &list, format::FLAG_ROOT))
        .unwrap();
    w.tombstone(&[list[0].0, list[1].0, Key::of(&noise(30, 330))])
        .unwrap();
    w.put(frame(&noise(30, 330))).unwrap();
    w.finish().unwrap();
    let roots = roots_of(&a);
    assert!(roots.contains_key(&whole.to_string()) && !roots.contains_key(&list[1].0.to_string()));
    assert_eq!(roots_by_extract(&a), roots);

    let (first, second) = two_places();
    let mut w = writer_at(&second, 3, "there").unwrap();
    w.tombstone(&[key(1), key(2), key(3)]).unwrap();
    w.finish().unwrap();
    let mut w = writer_at(&first, 4, "here").unwrap();
    w.put_anew(frame(&noise(1, 300))).unwrap();
    w.commit().unwrap();
    let record = w.handle().lookup(&key(2)).unwrap().unwrap();
    w.index_add(&[record]).unwrap();
    w.finish().unwrap();
    sync(&first, &second);
    assert_eq!(roots_of(&second).len(), 3);
    assert_eq!(roots_by_extract(&second), roots_of(&second));
}

// ---- any sequence of calls at several places ----

/// One call at one of three places. Artifacts are numbers.
#[derive(Debug, Clone)]
enum Call {
    Put(usize, u64),
    Part(usize, u64),
    Rm(usize, u64),
    Show(usize, u64),
    Flush(usize),
    Snapshot(usize),
    /// Takes over into the first what the second has.
    Sync(usize, usize),
}

fn call() -> impl Strategy<Value = Call> {
    let (place, n) = (|| 0usize..3, || 0u64..8);
    prop_oneof![
        5 => (place(), n()).prop_map(|(place, n)| Call::Put(place, n)),
        1 => (place(), n()).prop_map(|(place, n)| Call::Part(place, n)),
        4 => (place(), n()).prop_map(|(place, n)| Call::Rm(place, n)),
        1 => (place(), n()).prop_map(|(place, n)| Call::Show(place, n)),
        1 => place().prop_map(Call::Flush),
        1 => place().prop_map(Call::Snapshot),
        5 => (place(), place()).prop_map(|(into, from)| Call::Sync(into, from)),
    ]
}

/// An observed-remove set as the books have it: each time that something is put it is a thing of its own, told from others by a
/// tag; a removal is of the tags that were there. Whoever meets another takes over what that one knows.
#[derive(Debug, Clone, Default)]
struct Replica {
    /// What was put, where, and which time.
    put: BTreeSet<(u64, usize, u32)>,
    removed: BTreeSet<(u64, usize, u32)>,
}

impl Replica {
    fn live(&self) -> BTreeSet<(u64, usize, u32)> {
        self.put.difference(&self.removed).copied().collect()
    }

    fn keys(&self) -> BTreeSet<Key> {
        self.live().iter().map(|(n, _, _)| key(*n)).collect()
    }

    fn shows_here(&self, n: u64, place: usize) -> bool {
        self.live().iter().any(|tag| (tag.0, tag.1) == (n, place))
    }
}

const PLACES: [&str; 3] = ["one", "two", "three"];

fn run(calls: &[Call]) {
    let first = store(1);
    writer_at(&first, 2, PLACES[0]).unwrap().finish().unwrap();
    let stores = [first.clone(), first.fork(), first.fork()];
    let mut replicas: [Replica; 3] = Default::default();
    let (mut tag, mut seed) = (0u32, 10u8);
    for (step, call) in calls.iter().enumerate() {
        seed = seed.wrapping_add(1);
        tag += 1;
        let at = match call {
            Call::Sync(into, from) => {
                if into != from {
                    meet(&stores[*from], &stores[*into], PLACES[*into]);
                    let theirs = replicas[*from].clone();
                    replicas[*into].put.extend(theirs.put);
                    replicas[*into].removed.extend(theirs.removed);
                }
                *into
            }
            Call::Put(at, _) | Call::Part(at, _) | Call::Rm(at, _) | Call::Show(at, _) => *at,
            Call::Flush(at) | Call::Snapshot(at) => *at,
        };
        if !matches!(call, Call::Sync(..)) {
            let mut w = writer_at(&stores[at], seed, PLACES[at]).unwrap();
            let replica = &mut replicas[at];
            match call {
                Call::Put(_, n) => {
                    put(&mut w, *n);
                    w.commit().unwrap();
                    // What is shown here already is not put again.
                    if !replica.shows_here(*n, at) {
                        replica.put.insert((*n, at, tag));
                    }
                }
                Call::Part(_, n) => {
                    w.put(part(&noise(*n, 300))).unwrap();
                    w.commit().unwrap();
                    if !replica.live().iter().any(|tag| tag.0 == *n) {
                        replica.put.insert((*n, at, tag));
                    }
                }
                Call::Rm(_, n) => {
                    w.tombstone(&[key(*n)]).unwrap();
                    let gone = replica.live().into_iter().filter(|tag| tag.0 == *n);
                    let gone: Vec<_> = gone.collect();
                    replica.removed.extend(gone);
                }
                Call::Show(_, n) => {
                    let own = w.handle().instances().remove(0);
                    if let Some(record) = own.lookup_part(&key(*n)).unwrap() {
                        w.index_add(&[record]).unwrap();
                        replica.put.insert((*n, at, tag));
                    }
                }
                Call::Flush(_) => w.flush().unwrap(),
                Call::Snapshot(_) => drop(w.snapshot("").unwrap()),
                Call::Sync(..) => unreachable!("needs no writer"),
            }
            let seen: BTreeSet<Key> = seen(w.handle()).into_keys().collect();
            assert_eq!(
                seen,
                replicas[at].keys(),
                "step {step}, {call:?}, as the writer has it"
            );
            w.finish().unwrap();
        }
        let handle = reader(&stores[at]).unwrap();
        let seen: BTreeSet<Key> = seen(&handle).into_keys().collect();
        assert_eq!(seen, replicas[at].keys(), "step {step}, {call:?}");
        for n in 0..8 {
            let known = replicas[at].put.iter().any(|tag| tag.0 == n);
            let gone = known && !seen.contains(&key(n));
            assert!(
                !gone || handle.is_removed(&key(n)).unwrap(),
                "step {step}: {n}"
            );
        }
        check_whole(&stores[at]);
    }
    // Everybody meets everybody, and all see the same.
    for _ in 0..2 {
        for into in 0..3 {
            for from in 0..3 {
                if into != from {
                    meet(&stores[from], &stores[into], PLACES[into]);
                }
            }
        }
    }
    let all: Vec<_> = stores
        .iter()
        .map(|vfs| seen(&reader(vfs).unwrap()))
        .collect();
    assert_eq!(all[0], all[1]);
    assert_eq!(all[1], all[2]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if sweep::all() { 512 } else { 24 },
        ..ProptestConfig::default()
    })]

    /// Three places, any order of putting, removing, showing again and meeting: what each sees is what an observed-remove set
    /// has, nothing is damaged, and when all have met they agree.
    #[test]
    fn instances_are_an_observed_remove_set(calls in prop::collection::vec(call(), 1..30)) {
        run(&calls);
    }
}
