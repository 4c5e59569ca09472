//! Whether this host may write into a store: anybody may, unless the store's domain is a common one, which only the hosts that
//! its manifest lists write into.
//!
//! This holds an honest program back, nobody else: whoever has the medium can write to it, and gains records that nobody's key
//! has signed. Which host this is, is therefore asked without unlocking a key: `meta/host/host-id` names it, and a key file
//! is there.
//!
//! Nothing is written; a crash leaves nothing.

use asl_store::vfs::Vfs;
use asl_store::{Authority, AuthorityRecord, Key, LogPosition, StoreHandle};

use crate::dam::{DAM_LEN_MAX, Dam, Kind};
use crate::domain::Domain;
use crate::error::Result;
use crate::files;
use crate::id::{DomainId, KeyId};
use crate::keyfile::key_file_path;
use crate::meta::HOST_PATH;
use crate::policy::may_write;

/// Longest host id file: 64 digits and a newline.
const HOST_LEN_MAX: usize = 65;

/// Refuses a store that is read-only on this host. A domain whose first manifest cannot be read holds nobody back: what is rescued comes
/// first.
///
/// # Errors
/// [`Refusal::ReadOnly`](crate::Refusal::ReadOnly); [`asl_store::Error`] where the log cannot be read.
pub fn require_writable(store: &StoreHandle) -> Result<()> {
    if kind(store)? != Some(Kind::Common) {
        return Ok(());
    }
    let Some(domain) = Domain::read(store)? else {
        return Ok(());
    };
    let host = host(&**store.vfs(), &domain.id())?;
    Ok(may_write(&domain.chain.head().dam, host.as_ref())?)
}

/// The kind of the store's domain. It never changes, so that the first manifest tells.
fn kind(store: &StoreHandle) -> Result<Option<Kind>> {
    let mut first: Option<Key> = None;
    let read = store.records(LogPosition(0), &mut |record, _| {
        if let Some(record) = AuthorityRecord::of_record(record)
            && record.kind == Authority::Dam
        {
            first = Some(record.keys[0]);
            // Any error ends the reading.
            return Err(asl_store::Error::NotFound(record.keys[0]));
        }
        Ok(())
    });
    let Some(key) = first else {
        read?;
        return Ok(None);
    };
    let small = |len| len <= DAM_LEN_MAX as u64;
    if !matches!(store.lookup_part(&key), Ok(Some(found)) if small(found.raw_len)) {
        return Ok(None);
    }
    let dam = store.get_part(&key).ok();
    Ok(dam.and_then(|bytes| Dam::decode(&bytes).ok().map(|dam| dam.kind)))
}

/// The key of this host, as far as it says so.
pub(crate) fn host(vfs: &dyn Vfs, domain: &DomainId) -> Result<Option<KeyId>> {
    let Some(bytes) = files::read(vfs, HOST_PATH, HOST_LEN_MAX)? else {
        return Ok(None);
    };
    let has_keys = vfs.metadata(&key_file_path(domain)).is_ok();
    let id = std::str::from_utf8(&bytes).ok();
    let id = id.and_then(|text| text.strip_suffix('\n')?.parse().ok());
    Ok(id.filter(|_| has_keys))
}
