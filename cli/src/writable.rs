//! Stores into which this host does not write, or writes to little use.

use std::path::Path;

use asl_bootstrap::{Domain, Error, readonly};
use asl_store::StoreHandle;

use crate::command::domain::failed;
use crate::error::{CliError, Result};
use crate::face::Face;
use crate::text;

/// Refuses to write into the store of a common domain on a host that is none of its writers (exit 13). `action` completes "cannot …".
pub fn require(action: &str, path: &Path, store: &StoreHandle) -> Result<()> {
    readonly::require_writable(store).map_err(|error| match error {
        Error::Store(error) => CliError::of_store(action, path, &error),
        error => failed(action, path, &error)
            .hint("write into a store of your own: asl store init PATH; what is there can be read"),
    })
}

/// Says that a store was given up for another domain, where what is written now goes nowhere by itself. It is no reason to refuse: a disk
/// that is dying is read into whatever store there is. What else is wrong with the domain is for `asl domain verify`.
pub fn warn_if_retired(face: &Face, path: &Path, store: &StoreHandle) {
    let Ok(Some(domain)) = Domain::read(store) else {
        return;
    };
    if let Some((to, _)) = domain.retired_to() {
        face.report.warn(&format!(
            "{} was given up for the domain {to}; what is written now does not get there by \
             itself: promote it once more, asl-promote {} --into ROOT",
            text::path(path),
            text::shell_path(path)
        ));
    }
}
