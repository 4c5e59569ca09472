//! Another store beside the one that was named: opened, and judged before anything of it counts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use asl_bootstrap::domain::Class;
use asl_bootstrap::{Domain, DomainId, verify};
use asl_store::log::LogEnd;
use asl_store::state::State;
use asl_store::vfs::Vfs;
use asl_store::vfs::real::RealVfs;
use asl_store::{StoreHandle, StoreId};

use super::domain::{done, exit_of_class, failed};
use super::trust::{self, Pinned};
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::text;

/// The other store.
pub(super) struct Other<'a> {
    /// Its path as the user named it.
    pub(super) path: &'a Path,
    /// Its files.
    pub(super) vfs: Arc<dyn Vfs>,
    /// What it shows.
    pub(super) store: StoreHandle,
}

/// Opens the store at `path`, which must not be, hold or lie in the one at `ours`.
pub(super) fn open<'a>(ours: &Path, path: &'a Path) -> Result<Other<'a>> {
    if let (Ok(here), Ok(there)) = (fs::canonicalize(ours), fs::canonicalize(path))
        && (here.starts_with(&there) || there.starts_with(&here))
    {
        let (here, there) = (text::path(ours), text::path(path));
        return Err(CliError::usage(match ours == path {
            true => format!("{there} is the store itself"),
            false => format!("{there} and {here} are one store, or one lies in the other"),
        })
        .hint("name another copy of the store, in a directory of its own"));
    }
    let vfs: Arc<dyn Vfs> = match RealVfs::open(path) {
        Ok(vfs) => Arc::new(vfs),
        Err(error) => {
            let failed = CliError::of_io("open the other store at", path, &error);
            return Err(match error.kind() {
                std::io::ErrorKind::NotFound => {
                    failed.hint("check the path, and that the disk is mounted that holds it")
                }
                _ => failed,
            });
        }
    };
    let store = StoreHandle::open(vfs.clone()).map_err(|error| {
        CliError::of_store(
            &format!("open the other store {}", text::path(path)),
            path,
            &error,
        )
    })?;
    Ok(Other { path, vfs, store })
}

/// The ids of a store's instances.
pub(super) fn ids(store: &StoreHandle) -> BTreeSet<StoreId> {
    let instances = store.instances().into_iter();
    instances
        .map(|one| one.with_state(State::store_id))
        .collect()
}

/// The domain that a store says it is of. Nothing is judged.
pub(super) fn domain_of(path: &Path, store: &StoreHandle) -> Result<Option<DomainId>> {
    let domain = Domain::read(store).map_err(|error| {
        let action = format!("read the domain of {}", text::path(path));
        failed(&action, path, &error)
    })?;
    Ok(domain.map(|domain| domain.id()))
}

/// What was found of a store's authority.
pub(super) struct Judged {
    /// Its domain; none for a store without one.
    pub(super) domain: Option<DomainId>,
    /// Whether somebody told this machine to trust it.
    pub(super) trusted: bool,
}

/// Judges the authority of a store: what does not verify, or is an older copy than was seen, is refused.
pub(super) fn judge(face: &Face, path: &Path, store: &StoreHandle) -> Result<Judged> {
    let place = text::shell_path(path);
    let name = text::path(path);
    if let LogEnd::Damaged { .. } | LogEnd::Lost { .. } = store.log_end() {
        return Err(CliError::new(format!("the log of {name} is not whole"))
            .exit(Exit::Integrity)
            .hint(format!(
                "mend it there first: asl store repair --store {place}"
            )));
    }
    let Some(domain) = domain_of(path, store)? else {
        return Ok(Judged {
            domain: None,
            trusted: false,
        });
    };
    let action = format!("verify the domain of {name}");
    let report = verify::verify(store, &done(path, store)?, None)
        .map_err(|error| failed(&action, path, &error))?;
    if let Some(class) = report.class().filter(|class| *class != Class::Note) {
        let what = match class {
            Class::Policy | Class::Note => "something in it is against its domain's policy",
            Class::Authority => "something in it was signed by nobody with the authority",
            Class::Fork => "its domain has two histories, or is an older copy",
            Class::Integrity => "something that its domain rests on is damaged",
        };
        return Err(CliError::new(format!("{name} does not verify: {what}"))
            .exit(exit_of_class(class))
            .hint(format!("see what: asl domain verify --store {place}")));
    }
    let pinned = trust::compare(face, path, store, &report.domain)?;
    if pinned.as_ref().is_some_and(|pinned| !pinned.is_ok()) {
        let what = format!("{name} is not as it was last seen");
        return Err(CliError::new(what)
            .exit(Exit::Rollback)
            .hint("find the copy that was seen last, and bring it over from there"));
    }
    Ok(Judged {
        domain: Some(domain),
        trusted: pinned.as_ref().is_some_and(Pinned::is_ok),
    })
}

/// The instances of a store that are of `domain`, or of none: any other one is told of.
pub(super) fn of_domain(
    face: &Face,
    other: &Other<'_>,
    domain: Option<DomainId>,
) -> BTreeSet<StoreId> {
    let mut instances = other.store.instances().into_iter();
    let top = instances.next().map(|one| one.with_state(State::store_id));
    let mut taken: BTreeSet<StoreId> = top.into_iter().collect();
    for one in instances {
        let id = one.with_state(State::store_id);
        match Domain::read(&one).map(|found| found.map(|found| found.id())) {
            Ok(found) if found.is_none() || found == domain => {
                taken.insert(id);
            }
            Ok(_) => face.report.warn(&format!(
                "instance {id} is of another domain and is not taken"
            )),
            Err(error) => face.report.warn(&format!(
                "instance {id} is not taken: {}",
                crate::error::causes_of(&error).join(": ")
            )),
        }
    }
    taken
}
