//! The instances of a store that lie in one directory.
//!
//! A log has one home, a store may have many writers: each writes an instance of its own, which is whole by itself. One lies at
//! the top of the directory, the others below `instances/`, each under its store id, with the same inside; `lock`, `ballast` and
//! `meta/` are at the top only ([`Sub`]).
//!
//! Invariants
//! - What lies below `instances/` under a name that is not the store id of the log in it is no instance, and is told of.
//! - A directory without a log is none yet: whoever began it was cut short.
//! - An instance whose log cannot be read is left out and told of; one that this program must not judge is an error.
//!
//! Nothing is written here.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::current::{self, Current};
use crate::error::{Error, Result};
use crate::id::{Key, LogPosition, StoreId};
use crate::index::{Index, Problem};
use crate::log::{LogEnd, LogFiles, Record};
use crate::rebuild;
use crate::state::{Level0, State};
use crate::store::View;
use crate::vfs::Vfs;
use crate::vfs::sub::Sub;

/// Directory of the instances that do not lie at the top.
pub const INSTANCES_DIR: &str = "instances";
/// Most instances of one directory that are looked at, that at the top not counted.
pub const INSTANCES_MAX: usize = 4096;

/// File that a sync makes in each instance that it brings: nobody writes that one here, wherever the other directory is.
/// Between two directories on one filesystem nothing else tells a copy from the instance that is written.
pub const COPIED_PATH: &str = "copied";

/// Whether a sync brought the instance that has these files.
pub fn is_copied(vfs: &dyn Vfs) -> bool {
    vfs.metadata(COPIED_PATH).is_ok()
}

/// Directory of an instance that does not lie at the top.
pub fn instance_dir(id: &StoreId) -> String {
    format!("{INSTANCES_DIR}/{id}")
}

/// The instance that a name below [`INSTANCES_DIR`] stands for: exactly 32 lower-case hexadecimal digits.
pub fn parse_name(name: &str) -> Option<StoreId> {
    let id: StoreId = name.parse().ok()?;
    (id.to_string() == name).then_some(id)
}

/// What lies below [`INSTANCES_DIR`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Instances, ascending.
    pub ids: Vec<StoreId>,
    /// Directories named like instances that hold no log.
    pub unfinished: Vec<StoreId>,
    /// What is none, and why.
    pub problems: Vec<Problem>,
}

/// Lists the instances of a store directory but the one at the top.
///
/// # Errors
/// [`Error::Io`] where the directory cannot be listed, [`Error::NewerFormat`] and [`Error::UnknownFlags`] for an instance that
/// this program cannot judge.
pub fn list(top: &Arc<dyn Vfs>) -> Result<Listed> {
    let mut listed = Listed::default();
    let entries = match top.list(INSTANCES_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listed),
        Err(error) => return Err(Error::io("list", INSTANCES_DIR)(error)),
    };
    for entry in entries {
        let mut problem = |what: String| {
            let path = format!("{INSTANCES_DIR}/{}", entry.name);
            listed.problems.push(Problem { path, what });
        };
        let Some(id) = parse_name(&entry.name).filter(|_| entry.metadata.is_dir) else {
            problem("not the directory of an instance".to_owned());
            continue;
        };
        if listed.ids.len() == INSTANCES_MAX {
            problem(format!("there are more than {INSTANCES_MAX} instances"));
            break;
        }
        match LogFiles::list(&*files_of(top, &id)?) {
            Ok(files) if files.store_id() == id => listed.ids.push(id),
            Ok(files) => problem(format!("its log is that of {}", files.store_id())),
            Err(Error::NotAStore) => listed.unfinished.push(id),
            Err(error) if is_beyond(&error) => return Err(error),
            Err(error) => problem(error.to_string()),
        }
    }
    Ok(listed)
}

/// The files of an instance that does not lie at the top.
pub fn files_of(top: &Arc<dyn Vfs>, id: &StoreId) -> Result<Arc<dyn Vfs>> {
    let dir = instance_dir(id);
    match Sub::new(top.clone(), &dir) {
        Ok(sub) => Ok(Arc::new(sub)),
        Err(error) => Err(Error::io("open", dir)(error)),
    }
}

/// Whether an error means that this program cannot judge the store at all.
pub(crate) fn is_beyond(error: &Error) -> bool {
    matches!(
        error,
        Error::NewerFormat { .. } | Error::UnknownFlags { .. } | Error::UnknownCritical { .. }
    )
}

/// One instance, opened.
pub(crate) struct Instance {
    pub(crate) vfs: Arc<dyn Vfs>,
    /// What leads from the top to its files: empty, or `instances/<id>/`.
    pub(crate) prefix: String,
    pub(crate) view: RwLock<View>,
    pub(crate) end: LogEnd,
    /// Keys that removals name and that a later record of this log shows without a block of its own, with the position of
    /// the last such record. `None` until somebody needs it: that takes reading the log.
    shown_again: Mutex<Option<HashMap<Key, u64>>>,
}

impl Instance {
    pub(crate) fn of_state(
        vfs: Arc<dyn Vfs>,
        prefix: String,
        state: State,
        end: LogEnd,
    ) -> Result<Self> {
        let index = Index::load(&*vfs, &state)?;
        Ok(Self {
            vfs,
            prefix,
            view: RwLock::new(View { state, index }),
            end,
            shown_again: Mutex::default(),
        })
    }

    /// The position of the last record that shows `key` without a block of its own, if `removed`, the keys that removals name
    /// with the highest position of each, has it and the record is not below that.
    pub(crate) fn shown_again(
        &self,
        state: &State,
        key: &Key,
        removed: impl FnOnce() -> HashMap<Key, u64>,
    ) -> Result<Option<u64>> {
        let again = &mut *self.lock_again();
        let again = match again {
            Some(again) => again,
            None => again.insert(self.read_again(state, &removed())?),
        };
        Ok(again.get(key).copied())
    }

    /// What a writer has added to the log meanwhile.
    pub(crate) fn note_again(&self, entries: &Level0, position: u64) {
        if let (Some(again), Level0::Adds(_)) = (&mut *self.lock_again(), entries) {
            again.extend(rebuild::logged(entries).map(|entry| (entry.key, position)));
        }
    }

    fn lock_again(&self) -> MutexGuard<'_, Option<HashMap<Key, u64>>> {
        let lock = self.shown_again.lock();
        lock.unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn read_again(&self, state: &State, removed: &HashMap<Key, u64>) -> Result<HashMap<Key, u64>> {
        let mut again = HashMap::new();
        let end = state.position();
        let from = removed.values().copied().min().unwrap_or(end.0);
        if from >= end.0 {
            return Ok(again);
        }
        let failed = |error: Error| error.below(&self.prefix);
        let files = LogFiles::list(&*self.vfs).map_err(failed)?;
        let mut each = |record: Record| {
            let at = record.position.0;
            let Some(entries) = Level0::of_record(&record) else {
                return Ok(());
            };
            for entry in rebuild::logged(&entries).filter(|entry| !entry.is_tombstone()) {
                if removed
                    .get(&entry.key)
                    .is_some_and(|removed| at >= *removed)
                {
                    again.insert(entry.key, at);
                }
            }
            Ok(())
        };
        let place = files.place_before(LogPosition(from));
        let (place, _) = files
            .read(&*self.vfs, place, end, &mut each)
            .map_err(failed)?;
        match place.position == end {
            true => Ok(again),
            false => Err(Error::LogDamaged {
                what: format!(
                    "{}log can be read up to record {} only",
                    self.prefix, place.position
                ),
            }),
        }
    }

    pub(crate) fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Opens the instance whose files these are.
    pub(crate) fn open(vfs: Arc<dyn Vfs>, prefix: String) -> Result<Self> {
        let Current { state, end, .. } = current::load(&*vfs)?;
        Self::of_state(vfs, prefix, state, end)
    }
}

/// Opens the instances below [`INSTANCES_DIR`], in the order of their ids, and tells what could not be opened.
pub(crate) fn open_others(top: &Arc<dyn Vfs>) -> Result<(Vec<Arc<Instance>>, Vec<Problem>)> {
    let Listed {
        ids, mut problems, ..
    } = list(top)?;
    let mut opened = Vec::new();
    for id in ids {
        let prefix = format!("{}/", instance_dir(&id));
        match Instance::open(files_of(top, &id)?, prefix) {
            Ok(instance) => opened.push(Arc::new(instance)),
            // A creation that was cut short.
            Err(Error::NotAStore) => {}
            Err(error) if is_beyond(&error) => return Err(error),
            Err(error) => problems.push(Problem {
                path: instance_dir(&id),
                what: error.to_string(),
            }),
        }
    }
    Ok((opened, problems))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::fault::FaultVfs;
    use crate::{Context, Owner, Params, StoreHandle, WriteOptions, create};

    fn made(vfs: &dyn Vfs, seed: u8) -> StoreId {
        let context = Context {
            owner: Owner::default(),
            holder: String::new(),
            seed: [seed; 32],
            home: None,
            now: Arc::new(|| 0),
        };
        create(vfs, &Params::default(), &context, &WriteOptions::default()).unwrap()
    }

    /// A store, and another that lies in it under the name that `name` makes of its id.
    fn two(name: impl Fn(StoreId) -> String) -> (Arc<dyn Vfs>, FaultVfs, StoreId) {
        let vfs = FaultVfs::new();
        made(&vfs, 1);
        let elsewhere = FaultVfs::new();
        let id = made(&elsewhere, 2);
        for (path, _) in elsewhere.files() {
            let to = format!("{INSTANCES_DIR}/{}/{path}", name(id));
            vfs.write_file(&to, &elsewhere.read_file(&path).unwrap())
                .unwrap();
        }
        (Arc::new(vfs.clone()), vfs, id)
    }

    #[test]
    fn names_are_exactly_the_ids() {
        let id = StoreId([0xab; 16]);
        assert_eq!(parse_name(&id.to_string()), Some(id));
        let upper = id.to_string().to_uppercase();
        for bad in ["", "ab", &upper, "g0", &format!("{id}0"), &"+".repeat(32)] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_instance_is_what_its_log_says() {
        let (top, _, id) = two(|id| id.to_string());
        let listed = list(&top).unwrap();
        assert_eq!((listed.ids, listed.problems), (vec![id], vec![]));
        let handle = StoreHandle::open(top.clone()).unwrap();
        let ids = handle.instances().into_iter();
        let ids: Vec<StoreId> = ids
            .map(|one| one.with_state(|state| state.store_id()))
            .collect();
        assert_eq!((ids.len(), ids[1]), (2, id));
        assert_eq!(StoreHandle::open_one(top).unwrap().instances().len(), 1);
    }

    #[test]
    fn what_is_no_instance_is_told_of() {
        let (top, _, _) = two(|_| "ab".repeat(16));
        let listed = list(&top).unwrap();
        assert_eq!(listed.ids, []);
        assert!(listed.problems[0].what.contains("log is that of"));
        let (top, vfs, id) = two(|id| id.to_string().to_uppercase());
        vfs.write_file(&format!("{}/log/x", instance_dir(&id)), b"")
            .unwrap();
        let listed = list(&top).unwrap();
        assert_eq!((listed.ids, listed.unfinished), (vec![], vec![id]));
        assert_eq!(listed.problems.len(), 1);
        assert_eq!(StoreHandle::open(top).unwrap().problems().len(), 1);
    }

    #[test]
    fn an_instance_that_cannot_be_read_is_left_out_and_told_of() {
        let (top, vfs, id) = two(|id| id.to_string());
        let log = format!("{}/log/log-{:016x}.asl", instance_dir(&id), 0);
        let mut bytes = vfs.read_file(&log).unwrap();
        bytes[9] ^= 1;
        vfs.write_file(&log, &bytes).unwrap();
        let handle = StoreHandle::open(top).unwrap();
        assert_eq!(handle.instances().len(), 1);
        assert_eq!(handle.problems().len(), 1);
    }
}
