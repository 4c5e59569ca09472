//! A root: a directory with `domains/<domain id>/`, each a store of that domain, and one view over all of them.
//!
//! Every kind of domain has the same layout; what a store is called says whose it is, and its first manifest must say the same.
//! The domain whose private keys are here is this user's own, and the only one that is written through a root; the others are
//! foreign, and read.
//!
//! Nothing is written; a crash leaves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use asl_bootstrap::DomainId;
use asl_bootstrap::keyfile::key_file_path;
use asl_store::vfs::real::RealVfs;
use asl_store::{Authority, AuthorityRecord, Error as StoreError, LogPosition, StoreHandle};

use crate::error::{CliError, Exit, Result};
use crate::text;

/// The directory below a root that holds the domains.
pub const DOMAINS: &str = "domains";
/// Domains that one root may have: each is opened by every command.
const DOMAINS_MAX: usize = 256;

/// A store of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The domain.
    pub domain: DomainId,
    /// Its store.
    pub path: PathBuf,
    /// Whether its private keys are here.
    pub own: bool,
}

/// What a root holds.
#[derive(Debug, Default)]
pub struct Root {
    /// Its domains: those with keys first, then by id.
    pub members: Vec<Member>,
    /// Names below `domains` that are none, for a warning.
    pub strangers: Vec<String>,
}

impl Root {
    /// Lists the domains of a root. No store is opened.
    ///
    /// # Errors
    /// Where there is no root, or it has too many domains.
    pub fn read(path: &Path) -> Result<Self> {
        let dir = path.join(DOMAINS);
        let entries = fs::read_dir(&dir).map_err(|error| {
            let failed = CliError::of_io("open the root at", path, &error);
            match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                    failed.hint(format!(
                        "a root holds the directory {DOMAINS}; a single store is named with \
                         --store {}",
                        text::shell_path(path)
                    ))
                }
                _ => failed,
            }
        })?;
        let mut root = Self::default();
        for entry in entries {
            let entry = entry.map_err(|error| CliError::of_io("list", &dir, &error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            // A link might lead anywhere, also to another domain of the same root.
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let domain = name
                .parse()
                .ok()
                .filter(|id: &DomainId| id.to_string() == name);
            let Some(domain) = domain.filter(|_| is_dir) else {
                root.strangers.push(name);
                continue;
            };
            let path = entry.path();
            let own = path.join(key_file_path(&domain)).is_file();
            root.members.push(Member { domain, path, own });
        }
        if root.members.len() > DOMAINS_MAX {
            return Err(CliError::new(format!(
                "{} has {} domains; {DOMAINS_MAX} can be seen together",
                text::path(path),
                root.members.len()
            ))
            .hint("name one store: --store PATH"));
        }
        root.members
            .sort_by_key(|member| (!member.own, member.domain));
        root.strangers.sort();
        Ok(root)
    }

    /// The one domain that commands write to.
    ///
    /// # Errors
    /// Where the keys of none, or of several, are here (exit 2).
    pub fn own(&self) -> Result<&Member> {
        let own: Vec<&Member> = self.members.iter().filter(|member| member.own).collect();
        match own[..] {
            [only] => Ok(only),
            [] => Err(CliError::usage(
                "this root has no domain whose keys are here, so nothing in it can be changed",
            )
            .hint(match self.members.first() {
                Some(member) => format!(
                    "name the store that is meant: --store {}",
                    text::shell_path(&member.path)
                ),
                None => "it has no domain at all".to_owned(),
            })),
            _ => Err(
                CliError::usage("this root has several domains whose keys are here").hint(format!(
                    "name the store that is meant: --store {}",
                    text::shell_path(&own[0].path)
                )),
            ),
        }
    }
}

/// Opens a store of a root, and makes sure that it is of the domain whose name it has.
///
/// # Errors
/// [`StoreError`] as ever, and where the log founds no domain or another one.
pub fn open(member: &Member) -> Result<StoreHandle> {
    let action = format!("open the store {}", text::path(&member.path));
    let vfs = RealVfs::open(&member.path)
        .map_err(|error| CliError::of_io("open the store at", &member.path, &error))?;
    let failed = |error: &StoreError| CliError::of_store(&action, &member.path, error);
    let store = StoreHandle::open(Arc::new(vfs)).map_err(|error| failed(&error))?;
    let found = founder(&store).map_err(|error| failed(&error))?;
    if found == Some(member.domain) {
        return Ok(store);
    }
    let place = text::path(&member.path);
    Err(CliError::new(match found {
        Some(other) => format!("{place} is a store of another domain, {other}"),
        None => format!("{place} is a store without a domain"),
    })
    .exit(Exit::Authority)
    .hint("a root names each store by its domain; move it out of the root"))
}

/// The domain that the first manifest in the log founds: as much of the log is read as comes before it.
fn founder(store: &StoreHandle) -> Result<Option<DomainId>, StoreError> {
    let mut genesis = None;
    let read = store.records(LogPosition(0), &mut |record, _| {
        match AuthorityRecord::of_record(record) {
            Some(found) if found.kind == Authority::Dam => {
                genesis = found.keys.first().copied();
                // An error ends the reading; what counts is in `genesis`.
                Err(StoreError::Poisoned)
            }
            _ => Ok(()),
        }
    });
    match genesis {
        Some(key) => Ok(Some(DomainId::of_genesis(&store.get_part(&key)?))),
        None => read.map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> DomainId {
        DomainId([n; 32])
    }

    fn root_with(own: &[u8], foreign: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for n in own.iter().chain(foreign) {
            let store = dir.path().join(DOMAINS).join(id(*n).to_string());
            fs::create_dir_all(store.join("meta/keys/priv")).unwrap();
            if own.contains(n) {
                fs::write(store.join(key_file_path(&id(*n))), "x").unwrap();
            }
        }
        dir
    }

    /// Covers L1: names below `domains` are domain ids in their one form, and nothing else is a domain.
    #[test]
    fn a_root_is_made_of_domains() {
        let dir = root_with(&[9], &[1, 5]);
        let domains = dir.path().join(DOMAINS);
        fs::create_dir(domains.join(id(7).to_string().to_uppercase())).unwrap();
        fs::create_dir(domains.join("attic")).unwrap();
        fs::create_dir(domains.join(".minting")).unwrap();
        fs::write(domains.join(id(6).to_string()), "a file").unwrap();
        let link = domains.join(id(8).to_string());
        std::os::unix::fs::symlink(domains.join(id(9).to_string()), link).unwrap();
        let root = Root::read(dir.path()).unwrap();
        let members: Vec<_> = (root.members.iter())
            .map(|member| (member.domain, member.own))
            .collect();
        assert_eq!(members, [(id(9), true), (id(1), false), (id(5), false)]);
        assert_eq!(root.strangers.len(), 4, "{:?}", root.strangers);
        assert_eq!(root.own().unwrap().domain, id(9));
        let refused = open(&root.members[0]).map(drop).unwrap_err();
        assert!(
            refused.render().contains("no store"),
            "{}",
            refused.render()
        );
    }

    #[test]
    fn who_has_no_keys_or_several_has_to_name_a_store() {
        for (own, foreign, words) in [
            (&[][..], &[1, 2][..], "no domain whose keys are here"),
            (&[3, 1], &[2], "several domains"),
        ] {
            let dir = root_with(own, foreign);
            let error = Root::read(dir.path()).unwrap().own().unwrap_err();
            assert_eq!(error.exit_code(), Exit::Usage);
            let said = error.render();
            let store = format!("domains/{}", id(1));
            assert!(said.contains(words) && said.contains(&store), "{said}");
        }
        let bare = tempfile::tempdir().unwrap();
        let error = Root::read(bare.path()).unwrap_err().render();
        assert!(error.contains("--store"), "{error}");
    }
}
