//! This machine's own memory, outside every store: what is trusted, and how far it was seen.
//!
//! It lies in `$ASL_STATE` if that is set, else in `asl` below `$XDG_STATE_HOME`, else in `~/.local/state/asl`; for root without a
//! home in `/var/lib/asl` (XDG Base Directory Specification 0.8).

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use asl_bootstrap::{Error, FileError, TrustError};
use asl_store::vfs::real::RealVfs;

use crate::error::{CliError, Exit, Result};
use crate::text;

/// Names the directory.
pub const PLACE: &str = "ASL_STATE";

/// The memory's directory.
pub struct State {
    /// Where it is.
    pub path: PathBuf,
    /// Its files.
    pub vfs: RealVfs,
}

/// Where the memory is, or would be; `None` where there is no place for it.
fn place(of: &dyn Fn(&str) -> Option<OsString>, is_root: bool) -> Option<PathBuf> {
    let path = |name| Some(PathBuf::from(of(name).filter(|value| !value.is_empty())?));
    // The specification says of relative paths that they are to be ignored.
    let absolute = |name| path(name).filter(|path| path.is_absolute());
    path(PLACE)
        .or_else(|| Some(absolute("XDG_STATE_HOME")?.join("asl")))
        .or_else(|| Some(absolute("HOME")?.join(".local/state/asl")))
        .or_else(|| is_root.then(|| PathBuf::from("/var/lib/asl")))
}

fn here() -> Option<PathBuf> {
    let is_root = rustix::process::geteuid().is_root();
    place(&|name| std::env::var_os(name), is_root)
}

impl State {
    /// The memory, if there is one.
    ///
    /// # Errors
    /// Where there is one that cannot be opened.
    pub fn existing() -> Result<Option<Self>> {
        let Some(path) = here() else { return Ok(None) };
        match RealVfs::open(&path) {
            Ok(vfs) => Ok(Some(Self { path, vfs })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CliError::of_io("open", &path, &error)),
        }
    }

    /// The memory, made where there is none: for its owner only.
    ///
    /// # Errors
    /// Where there is no place for it, or it cannot be made there.
    pub fn create() -> Result<Self> {
        let path = here().ok_or_else(|| {
            CliError::new("there is no place to remember what is trusted")
                .hint("name one that outlives this session: export ASL_STATE=DIR")
        })?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        // Also the name is durable before anything in it is relied on.
        match made.and_then(|()| RealVfs::create(&path)) {
            Ok(vfs) => Ok(Self { path, vfs }),
            Err(error) => Err(CliError::of_io("make", &path, &error)),
        }
    }

    /// What is to be said where something that was seen could not be remembered: nobody notices until it is missed.
    pub fn not_remembered(error: &CliError) -> String {
        let (place, other) = match here() {
            Some(path) => (
                format!("in {}", text::path(&path)),
                "Let that directory be written to, or name another one: export ASL_STATE=DIR",
            ),
            None => (
                "on this machine".to_owned(),
                "Name a directory for it that outlives this session: export ASL_STATE=DIR",
            ),
        };
        format!(
            "how far this domain was seen is not remembered {place}: {}. Next time an older copy of \
             it, or one that was changed, is not noticed. {other}; then repeat the command",
            error.in_one_line()
        )
    }

    /// A refusal of the memory as the face tells it; `action` completes "cannot …".
    pub fn failed(&self, action: &str, error: &Error) -> CliError {
        let of = CliError::new(format!("cannot {action}"))
            .caused_by(error)
            .exit(exit_of(error));
        match error {
            Error::Trust(TrustError::Damaged { .. }) => of.hint(format!(
                "nothing protects from older copies of that domain until it is mended: bring the \
                 file in {} back from a copy, or begin again: asl trust remove DOMAIN_ID",
                text::shell_path(&self.path)
            )),
            Error::Trust(TrustError::Busy) => of.hint("repeat the command"),
            Error::File(FileError { .. }) => of.hint_of(error, &self.path),
            _ => of,
        }
    }
}

fn exit_of(error: &Error) -> Exit {
    match error {
        Error::Trust(TrustError::Damaged { .. }) => Exit::Integrity,
        Error::Trust(TrustError::Manifest { .. } | TrustError::Log { .. }) => Exit::Rollback,
        Error::Trust(TrustError::NotTrusted { .. }) => Exit::Authority,
        Error::Trust(TrustError::Name) => Exit::Usage,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_the_one_that_was_named_first() {
        let all = [
            (PLACE, "/a"),
            ("XDG_STATE_HOME", "/b"),
            ("HOME", "/home/anna"),
        ];
        let with = |all: &[(&str, &str)], is_root| {
            let of = |name: &str| {
                let found = all.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            place(&of, is_root)
        };
        let is = |path: &str| Some(PathBuf::from(path));
        assert_eq!(with(&all, true), is("/a"));
        assert_eq!(with(&all[1..], true), is("/b/asl"));
        assert_eq!(with(&all[2..], true), is("/home/anna/.local/state/asl"));
        assert_eq!(with(&[], true), is("/var/lib/asl"));
        assert_eq!(with(&[], false), None);
        // Empty is as good as not set, and a relative base directory counts for nothing.
        let odd = [(PLACE, ""), ("XDG_STATE_HOME", "b"), ("HOME", "/h")];
        assert_eq!(with(&odd, false), is("/h/.local/state/asl"));
        assert_eq!(with(&[(PLACE, "near")], false), is("near"));
    }
}
