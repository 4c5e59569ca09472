//! The store that is promoted: anybody's, until it is proven.
//!
//! Invariants
//! - It is opened for reading only; nothing here writes to it.
//! - What is read of its log is one prefix, fixed when it was opened: each later reading is of the same bytes, or fails.
//! - Nothing that a cache of it says is believed: index segments have the digests that the log states.
//!
//! Nothing is written; a crash leaves nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use asl_store::id::Digest;
use asl_store::index::Problem;
use asl_store::log::{LogEnd, genesis};
use asl_store::segment::{segment_digest, segment_path};
use asl_store::vfs::{Access, Vfs};
use asl_store::{AuthorityRecord, Epoch, Key, LogPosition, StoreHandle, StoreId, format};

use super::PromoteError;
use crate::domain::{Class, Domain};
use crate::error::Result;
use crate::id::DomainId;
use crate::lineage::Contents;
use crate::mint::Done;
use crate::note::Note;
use crate::trust::{Head, LogPin, NOTES_MAX};
use crate::verify::{Report, verify};

/// A store that may be promoted.
pub struct Source {
    store: StoreHandle,
}

/// What one reading of a log tells.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The chain value after so many records.
    pub(super) chains: BTreeMap<LogPosition, Digest>,
    /// Every key that a deletion names.
    pub(super) removed: HashSet<Key>,
    /// Where the log was made again: the records before that.
    pub(super) epochs: Vec<(LogPosition, Epoch)>,
}

impl Scan {
    /// Whether the log passed through a point.
    pub(super) fn passes(&self, pin: &LogPin) -> bool {
        self.chains.get(&pin.position) == Some(&pin.chain)
    }
}

impl Source {
    /// Opens the instance at the top of a store, for reading. Give it a [`Vfs`] that follows no links, such as
    /// [`RealVfs`](asl_store::vfs::real::RealVfs).
    ///
    /// # Errors
    /// [`PromoteError::SourceLog`]; [`asl_store::Error`].
    pub fn open(vfs: Arc<dyn Vfs>) -> Result<Self> {
        Self::of(StoreHandle::open_one(vfs)?)
    }

    /// Opens every instance in a store's directory, the one at the top first. Each has a log of its own and is promoted by itself, in
    /// this order.
    ///
    /// # Errors
    /// As [`open`](Self::open), for any of them; [`PromoteError::SourceInstance`].
    pub fn open_all(vfs: Arc<dyn Vfs>) -> Result<Vec<Self>> {
        let store = StoreHandle::open(vfs)?;
        // Of one that could be opened only files are told of.
        let whole = |path: &str| {
            path.strip_prefix("instances/")
                .is_some_and(|id| !id.contains('/'))
        };
        let unopened = store.problems().into_iter().find(|of| whole(&of.path));
        if let Some(Problem { path, what }) = unopened {
            return Err(PromoteError::SourceInstance { path, what }.into());
        }
        store.instances().into_iter().map(Self::of).collect()
    }

    fn of(store: StoreHandle) -> Result<Self> {
        match store.log_end() {
            LogEnd::Clean => Ok(Self { store }),
            end => Err(PromoteError::SourceLog(end.clone()).into()),
        }
    }

    /// The store, open for reading.
    pub fn store(&self) -> &StoreHandle {
        &self.store
    }

    /// The log's end as it is read.
    pub fn head(&self) -> LogPin {
        self.store.with_state(|state| {
            let place = state.place();
            LogPin {
                store: state.store_id(),
                position: place.position,
                chain: place.chain,
            }
        })
    }

    pub(super) fn store_id(&self) -> StoreId {
        self.head().store
    }

    /// Reads the domain and judges everything in the log.
    ///
    /// # Errors
    /// [`PromoteError::NoDomain`], [`PromoteError::Source`], [`VerifyError`](crate::verify::VerifyError) where it is another domain.
    pub(super) fn judge(&self, finished: &[Done], expect: &DomainId) -> Result<Report> {
        if Domain::read(&self.store)?.is_none() {
            return Err(PromoteError::NoDomain.into());
        }
        let mut report = verify(&self.store, finished, Some(expect))?;
        let worst = report.class().filter(|class| *class > Class::Note);
        let Some(class) = worst else {
            return Ok(report);
        };
        let mut found = std::mem::take(&mut report.found);
        found.retain(|found| found.class > Class::Note);
        Err(PromoteError::Source { class, found }.into())
    }

    /// Reads the log once.
    pub(super) fn scan(&self, wanted: &BTreeSet<LogPosition>) -> Result<Scan> {
        let mut scan = Scan::default();
        if wanted.contains(&LogPosition(0)) {
            scan.chains
                .insert(LogPosition(0), genesis(&self.store_id()));
        }
        self.store.records(LogPosition(0), &mut |record, _| {
            let after = LogPosition(record.position.0 + 1);
            if wanted.contains(&after) {
                scan.chains.insert(after, record.chain);
            }
            if record.record_type == format::RECORD_TOMBSTONE {
                scan.removed.extend(removed(&record.payload));
            }
            if record.record_type == format::RECORD_EPOCH {
                let epoch = Epoch::parse(&record.payload);
                scan.epochs
                    .extend(epoch.map(|epoch| (record.position, epoch)));
            }
            Ok(())
        })?;
        Ok(scan)
    }

    /// Whether the log has nothing since `position` but what speaks of authority.
    pub(super) fn says_only_authority_since(&self, position: LogPosition) -> Result<bool> {
        let mut named: HashSet<Key> = HashSet::new();
        let mut sealed = Vec::new();
        let mut only = true;
        self.store.records(position, &mut |record, _| {
            if let Some(record) = AuthorityRecord::of_record(record) {
                named.extend(record.keys);
            }
            match record.record_type {
                format::RECORD_SEAL => sealed.push(record.position.0),
                format::RECORD_SESSION | format::RECORD_TOMBSTONE | format::RECORD_INDEX_ADD => {
                    only = false;
                }
                _ => {}
            }
            Ok(())
        })?;
        if !only {
            return Ok(false);
        }
        let blocks = self.store.with_state(|state| {
            let since = |info: &&asl_store::state::BlockInfo| sealed.contains(&info.position);
            let infos = state.blocks.values().filter(since);
            infos.map(|info| Digest(info.digest)).collect::<Vec<_>>()
        });
        let vfs = &**self.store.vfs();
        for digest in blocks {
            let path = asl_store::block::sealed_path(&digest);
            let Ok(file) = vfs.open(&path, Access::Read) else {
                return Ok(false);
            };
            let Ok(block) = asl_store::block::read_sealed(&*file, &path) else {
                return Ok(false);
            };
            let mut artifacts = block
                .entries
                .iter()
                .filter(|entry| entry.info.is_artifact());
            if !artifacts.all(|entry| named.contains(&entry.info.key)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Compares the index segments with the digests that the log states.
    pub(super) fn check_index(&self) -> Result<(), PromoteError> {
        let segments = self.store.with_state(|state| state.segments());
        for segment in segments {
            let path = segment_path(segment.shard, segment.number);
            let read = self
                .store
                .vfs()
                .open(&path, Access::Read)
                .map_err(asl_store::Error::io("open", &path))
                .and_then(|file| segment_digest(&*file, &path));
            match read {
                Ok(digest) if digest == segment.digest => {}
                Ok(_) => {
                    let what = "not the segment that the log names";
                    let error = asl_store::Error::damaged(&path, 0, what);
                    return Err(PromoteError::Index(error));
                }
                Err(error) => return Err(PromoteError::Index(error)),
            }
        }
        Ok(())
    }

    /// What the store shows.
    pub(super) fn contents(&self) -> Result<Contents> {
        let mut contents = Contents::default();
        self.store.for_each(&mut |record| {
            contents.push(&record.key, record.raw_len);
            Ok(())
        })?;
        Ok(contents)
    }

    /// The log's end with its newest checkpoints, as evidence.
    pub(super) fn evidence(&self, domain: &Domain) -> Head {
        let mut notes = Vec::new();
        for state in domain.checkpoints.iter().rev().take(NOTES_MAX) {
            let bytes = self.store.get_part(&state.note).ok();
            notes.extend(bytes.and_then(|bytes| Note::parse(&bytes).ok()));
        }
        Head {
            log: self.head(),
            notes,
        }
    }
}

/// The keys of a deletion.
fn removed(payload: &[u8]) -> impl Iterator<Item = Key> + '_ {
    let keys = payload.get(format::tombstone_payload::LEN..).unwrap_or(&[]);
    keys.chunks_exact(32)
        .map(|key| Key(key.try_into().expect("chunks of 32 bytes")))
}
