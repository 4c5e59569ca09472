//! Several instances of a store in one directory: what is visible over all of them, what a writer of one of them does, and
//! what is left when it is cut off.

mod common;
mod sweep;

use std::collections::BTreeMap;
use std::sync::Arc;

use asl_store::instances::instance_dir;
use asl_store::segment::IndexRecord;
use asl_store::vfs::Vfs;
use asl_store::vfs::fault::FaultVfs;
use asl_store::{
    Compression, Encoder, Frame, Key, Put, SessionId, StoreHandle, StoreId, VerifyOptions, create,
    format, verify,
};
use common::*;

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
