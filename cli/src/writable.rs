//! Stores into which this host does not write.

use std::path::Path;

use asl_bootstrap::{Error, readonly};
use asl_store::StoreHandle;

use crate::command::domain::failed;
use crate::error::{CliError, Result};

/// Refuses to write into the store of a common domain on a host that is none of its writers (exit 13). `action` completes "cannot …".
pub fn require(action: &str, path: &Path, store: &StoreHandle) -> Result<()> {
    readonly::require_writable(store).map_err(|error| match error {
        Error::Store(error) => CliError::of_store(action, path, &error),
        error => failed(action, path, &error)
            .hint("write into a store of your own: asl store init PATH; what is there can be read"),
    })
}
