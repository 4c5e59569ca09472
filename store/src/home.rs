//! Where an instance is written: its home.
//!
//! A log may be written in one place only. A store that was cloned, or laid back from a backup, is in another place: there
//! its log is history, and who writes begins an instance of their own beside it. So a clone that was gone on with in two
//! places is two instances, and nothing is lost when they meet.
//!
//! A home is a name that the face gives: as a rule the UUID of the filesystem and, after a slash, what tells the directory from a copy
//! of it there. Where none is known (a network filesystem, a RAM disk) nothing is checked: who writes goes on with the instance at
//! the top. A name without a slash stands for every directory of its filesystem: stores of before have such homes.
//!
//! Invariants
//! - The newest home that a log records counts. One without any gets the first that is known.
//! - An instance that is not at home is never written to: no recovery, no record, no salvage.
//! - An instance is written at the top or below `instances/`, and always there.
//!
//! Order of writes at a birth: the directories of the new instance, durable; its log file, durable; one append with its
//! creation and its home. Crash: before that append is whole there is no instance, but for a creation alone, an instance
//! that has nothing and no home and that nobody writes; the next opening begins another one under a fresh id.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::current::{self, Current, Hint};
use crate::epoch;
use crate::error::{Error, Result};
use crate::format::{self, home_payload as hp};
use crate::id::StoreId;
use crate::index::Problem;
use crate::init;
use crate::instances::{self, INSTANCES_DIR, Instance, instance_dir};
use crate::log::{self, LogWriter, NewRecord};
use crate::params::Params;
use crate::state;
use crate::vfs::Vfs;
use crate::writer::Context;

/// The name of the place that an instance is written in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Home(String);

impl Home {
    /// A home of this name; `None` for an empty one, or one of more than [`format::HOME_MAX`] bytes.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let fits = (1..=format::HOME_MAX as usize).contains(&name.len());
        fits.then_some(Self(name))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both may be names of one place: they are the same, or one of them names the filesystem only.
    pub fn may_be(&self, other: &Self) -> bool {
        let names = |whole: &Self, of: &Self| {
            let rest = of.0.strip_prefix(&whole.0);
            !whole.0.contains('/') && rest.is_some_and(|rest| rest.starts_with('/'))
        };
        self == other || names(self, other) || names(other, self)
    }

    /// Reads the payload of a record; `None` where it is malformed.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let name = payload.get(hp::LEN..)?;
        if name.len() != hp::BYTES.u32(payload) as usize {
            return None;
        }
        Self::new(std::str::from_utf8(name).ok()?)
    }

    /// The record that says it. Who does not know it only fails to notice a clone.
    pub fn record(&self) -> NewRecord {
        let mut payload = vec![0; hp::LEN];
        hp::BYTES.set(&mut payload, self.0.len() as u32);
        payload.extend_from_slice(self.0.as_bytes());
        NewRecord {
            record_type: format::RECORD_HOME,
            critical: false,
            payload,
        }
    }
}

impl TryFrom<String> for Home {
    type Error = NotAHome;
    fn try_from(name: String) -> Result<Self, NotAHome> {
        Self::new(name).ok_or(NotAHome)
    }
}

impl From<Home> for String {
    fn from(home: Home) -> Self {
        home.0
    }
}

/// Text that is too long or too short to be a [`Home`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 1 to {} bytes", format::HOME_MAX)]
pub struct NotAHome;

/// Whether who is at `home` may write the instance: it is its home, or nobody knows better.
pub(crate) fn is_at_home(recorded: Option<&Home>, home: Option<&Home>) -> bool {
    match (recorded, home) {
        (Some(recorded), Some(home)) => recorded.may_be(home),
        _ => true,
    }
}

/// Whether the instance with these files is written by who is at `home`: not if a sync brought it, be it from a directory on the same
/// filesystem.
pub(crate) fn is_written(vfs: &dyn Vfs, recorded: Option<&Home>, home: Option<&Home>) -> bool {
    is_at_home(recorded, home) && !instances::is_copied(vfs)
}

/// The number of the instance among `others` that is written at `home`, one with just this home before one that names less; where no home
/// is known, of the first that no sync brought.
pub(crate) fn find(others: &[Arc<Instance>], home: Option<&Home>) -> Option<usize> {
    let written = |at: &dyn Fn(&Home) -> bool| {
        let is = |other: &Arc<Instance>| {
            let at_home = home.is_none() || other.view().state.home().is_some_and(at);
            at_home && !instances::is_copied(&*other.vfs)
        };
        others.iter().position(is)
    };
    let same = written(&|recorded| home == Some(recorded));
    same.or_else(|| written(&|recorded| home.is_some_and(|home| recorded.may_be(home))))
}

/// Where a writer writes.
pub(crate) struct Quarters {
    /// The files of its instance.
    pub(crate) vfs: Arc<dyn Vfs>,
    /// What leads to them from the top: empty, or with a slash at its end.
    pub(crate) prefix: String,
    /// Its log, read to the end.
    pub(crate) current: Current,
    /// The other instances, by their ids.
    pub(crate) others: Vec<Arc<Instance>>,
    /// What could not be opened.
    pub(crate) unopened: Vec<Problem>,
    /// The instance at the top, if the own one was begun just now.
    pub(crate) born: Option<StoreId>,
}

/// Finds the instance that is written here, or begins it, and reads its log. The lock must be held.
pub(crate) fn quarters(
    top: &Arc<dyn Vfs>,
    context: &Context,
    random: &mut blake3::OutputReader,
) -> Result<Quarters> {
    log::settle(&**top)?;
    let primary = current::load(&**top);
    let (mut others, mut unopened) = instances::open_others(top)?;
    let home = context.home.as_ref();
    let here = match &primary {
        Ok(current) => is_written(&**top, current.state.home(), home),
        Err(_) => false,
    };
    let known = find(&others, home);
    let (primary, born) = match (primary, known) {
        (Ok(current), _) if here => {
            init::ensure_dirs(&**top)?;
            return Ok(Quarters {
                vfs: top.clone(),
                prefix: String::new(),
                current,
                others,
                unopened,
                born: None,
            });
        }
        // What this program must not judge it must not pass over either.
        (Err(error), _) if instances::is_beyond(&error) => return Err(error),
        (primary @ Ok(_), Some(_)) => (primary, None),
        // Without a home nobody knows that it was not this one.
        (Err(error), _) if home.is_none() => return Err(error),
        (primary, Some(_)) => (primary, None),
        (Ok(current), None) => {
            let params = *current.state.params();
            let id = give_birth(top, &params, home, context, random)?;
            let of = current.state.store_id();
            (Ok(current), Some((id, of)))
        }
        (Err(error), None) => return Err(error),
    };
    let id = match (known, born) {
        (Some(at), _) => others.remove(at).view().state.store_id(),
        (None, Some((id, _))) => id,
        (None, None) => unreachable!("an instance is found or begun above"),
    };
    let vfs = instances::files_of(top, &id)?;
    init::ensure_dirs(&*vfs)?;
    log::settle(&*vfs)?;
    let current = current::load(&*vfs)?;
    match primary {
        Ok(Current { state, end, .. }) => {
            let primary = Instance::of_state(top.clone(), String::new(), state, end)?;
            others.push(Arc::new(primary));
            others.sort_by_key(|other| other.view().state.store_id());
        }
        Err(error) => unopened.push(Problem {
            path: log::LOG_DIR.to_owned(),
            what: error.to_string(),
        }),
    }
    Ok(Quarters {
        vfs,
        prefix: format!("{}/", instance_dir(&id)),
        current,
        others,
        unopened,
        born: born.map(|(_, of)| of),
    })
}

/// Makes the log of the instance that is written here, if it is damaged, one that lacks records; see [`epoch::cut`]. The lock
/// must be held.
pub(crate) fn cut(
    top: &Arc<dyn Vfs>,
    context: &Context,
    random: &mut blake3::OutputReader,
) -> Result<Option<String>> {
    let home = context.home.as_ref();
    let here = match current::load(&**top) {
        Ok(current) => is_written(&**top, current.state.home(), home),
        // Where it is written was told by its log alone.
        Err(Error::LogDamaged { .. } | Error::NotAStore) => !instances::is_copied(&**top),
        Err(error) => return Err(error),
    };
    if here {
        return epoch::cut(&**top, context, random);
    }
    let (others, _) = instances::open_others(top)?;
    let Some(at) = find(&others, home) else {
        return Ok(None);
    };
    let id = others[at].view().state.store_id();
    let vfs = instances::files_of(top, &id)?;
    let evidence = epoch::cut(&*vfs, context, random)?;
    Ok(evidence.map(|path| format!("{}/{path}", instance_dir(&id))))
}

/// Begins an instance below `instances/` for who is at `home`, with the parameters of another. The lock must be held.
pub(crate) fn give_birth(
    top: &Arc<dyn Vfs>,
    params: &Params,
    home: Option<&Home>,
    context: &Context,
    random: &mut blake3::OutputReader,
) -> Result<StoreId> {
    let id = StoreId(init::draw(random));
    let dir = instance_dir(&id);
    for (dir, parent) in [(INSTANCES_DIR, ""), (&dir, INSTANCES_DIR)] {
        top.create_dir(dir).map_err(Error::io("create", dir))?;
        top.sync_dir(parent).map_err(Error::io("sync", parent))?;
    }
    let vfs = instances::files_of(top, &id)?;
    init::ensure_dirs(&*vfs)?;
    let now = (context.now)();
    let mut log = LogWriter::create(&*vfs, id, init::draw(random), now)?;
    let mut records = vec![state::created_record(params, &id)];
    records.extend(home.map(Home::record));
    log.append(&*vfs, records, &mut || init::draw(random), now)?;
    let place = log.place();
    // A cache, and there may be no room left for it.
    let _ = Hint { place, snapshot: 0 }.write(&*vfs);
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_filesystem_stands_for_its_directories() {
        let home = |name: &str| Home::new(name).unwrap();
        for (one, other, expected) in [
            ("a", "a", true),
            ("a", "a/7", true),
            ("a/7", "a/7", true),
            ("a/7", "a/8", false),
            ("a", "b/7", false),
            ("a", "ab/7", false),
            ("a", "ab", false),
            ("a/7", "a/7/8", false),
        ] {
            assert_eq!(home(one).may_be(&home(other)), expected, "{one}, {other}");
            assert_eq!(home(other).may_be(&home(one)), expected, "{other}, {one}");
        }
    }

    #[test]
    fn a_home_has_one_form() {
        let longest = "x".repeat(format::HOME_MAX as usize);
        for name in ["1", "8d5b-11", "\u{e9}", &longest] {
            let home = Home::new(name).unwrap();
            let payload = home.record().payload;
            assert_eq!(Home::parse(&payload), Some(home), "{name}");
            assert_eq!(Home::parse(&payload[..payload.len() - 1]), None);
        }
        assert_eq!(Home::new(""), None);
        assert_eq!(Home::new(longest + "x"), None);
        let mut payload = Home::new("ab").unwrap().record().payload;
        payload[8] = 0xff;
        assert_eq!(Home::parse(&payload), None, "not text");
    }
}
