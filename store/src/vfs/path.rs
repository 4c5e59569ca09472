//! What a path inside a [`Vfs`](super::Vfs) may look like.
//!
//! Both implementations ask here first, so that a path that one refuses is
//! never tried by the other, and no spelling leads above the root.

use std::io;

/// Refuses everything but plain components joined by single slashes. The empty
/// path, which names the root, is refused too.
fn check(path: &str) -> io::Result<()> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if path.split('/').all(plain) {
        Ok(())
    } else {
        Err(invalid(format!("{path:?} is not a plain relative path")))
    }
}

/// Checks a path that must name something below the root; returns the
/// directory that holds it (`""` for the root) and its last component.
pub(super) fn split(path: &str) -> io::Result<(&str, &str)> {
    check(path)?;
    Ok(path.rsplit_once('/').unwrap_or(("", path)))
}

/// Checks a path that names a directory, where `""` is the root.
pub(super) fn check_dir(path: &str) -> io::Result<()> {
    if path.is_empty() { Ok(()) } else { check(path) }
}

/// The error for a name that is there but is not what was asked for.
pub(super) fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_components_pass() {
        assert_eq!(split("a").unwrap(), ("", "a"));
        assert_eq!(split("a/b/c").unwrap(), ("a/b", "c"));
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0b",
        ] {
            let error = split(bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
            assert_eq!(check_dir(bad).is_ok(), bad.is_empty(), "{bad:?}");
        }
    }
}
