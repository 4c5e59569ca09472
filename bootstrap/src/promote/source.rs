//! The store that is promoted: anybody's, until it is proven.
//!
//! Its directory may hold several instances, because it went on in several places. Each has a log of its own and is taken over by a
//! lineage of its own. Who vouches for them is asked of all logs together, and what one of them removed is removed.
//!
//! Invariants
//! - It is opened for reading only; nothing here writes to it.
//! - What is read of a log is one prefix, fixed when it was opened: each later reading is of the same bytes, or fails.
//! - Nothing that a cache of it says is believed: index segments have the digests that the log states.
//! - Whatever lies among the instances and is none, or is not whole, refuses the store.
//!
//! Nothing is written; a crash leaves nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use asl_store::block::SEALED_DIR;
use asl_store::id::Digest;
use asl_store::index::Problem;
use asl_store::instances::{files_of, instance_dir, list};
use asl_store::log::{LogEnd, genesis};
use asl_store::removal::Removal;
use asl_store::segment::{segment_digest, segment_path};
use asl_store::vfs::{Access, Vfs};
use asl_store::{AuthorityRecord, Epoch, Key, LogPosition, StoreHandle, StoreId, format};

use super::PromoteError;
use super::error::of_end;
use crate::domain::{Class, Domain};
use crate::error::Result;
use crate::id::DomainId;
use crate::manifests::Manifests;
use crate::mint::Done;
use crate::note::Note;
use crate::trust::{Head, LogPin, NOTES_MAX};
use crate::verify::{Report, VerifyError, verify, verify_among};

/// A store that may be promoted.
pub struct Source {
    store: StoreHandle,
    instances: Vec<Instance>,
}

/// An instance of it.
pub struct Instance {
    store: StoreHandle,
}

/// What one reading of a log tells.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The chain value after so many records.
    pub(super) chains: BTreeMap<LogPosition, Digest>,
    /// Every key that a deletion names, here or in another instance.
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
    /// Opens a store for reading, with every instance in its directory. Give it a [`Vfs`] that follows no links, such as
    /// [`RealVfs`](asl_store::vfs::real::RealVfs).
    ///
    /// # Errors
    /// [`PromoteError::SourceLog`], [`PromoteError::SourceInstance`]; [`asl_store::Error`].
    pub fn open(vfs: Arc<dyn Vfs>) -> Result<Self> {
        let store = StoreHandle::open(vfs.clone())?;
        for id in list(&vfs)?.unfinished {
            // A birth that was cut short has a log before it has a block.
            let sealed = files_of(&vfs, &id)?.list(SEALED_DIR).unwrap_or_default();
            if !sealed.is_empty() {
                let path = instance_dir(&id);
                let what = "it has blocks and no log".to_owned();
                return Err(PromoteError::SourceInstance { path, what }.into());
            }
        }
        // Of one that could be opened only files are told of.
        let whole = |path: &str| {
            path.strip_prefix("instances/")
                .is_some_and(|id| !id.contains('/'))
        };
        let unopened = store.problems().into_iter().find(|of| whole(&of.path));
        if let Some(Problem { path, what }) = unopened {
            return Err(PromoteError::SourceInstance { path, what }.into());
        }
        let instances: Vec<Instance> = (store.members().into_iter())
            .map(|store| Instance { store })
            .collect();
        let mut ids = HashSet::new();
        for (nth, instance) in instances.iter().enumerate() {
            if !ids.insert(instance.store_id()) {
                let path = instance_dir(&instance.store_id());
                let what = "it has the id of the instance at the top".to_owned();
                return Err(PromoteError::SourceInstance { path, what }.into());
            }
            match (nth, instance.store.log_end()) {
                (_, LogEnd::Clean) => {}
                (0, end) => return Err(PromoteError::SourceLog(end.clone()).into()),
                (_, end) => {
                    let path = instance_dir(&instance.store_id());
                    let what = format!("its log {}", of_end(end));
                    return Err(PromoteError::SourceInstance { path, what }.into());
                }
            }
        }
        Ok(Self { store, instances })
    }

    /// What all instances show together.
    pub fn store(&self) -> &StoreHandle {
        &self.store
    }

    /// Its instances: the one at the top of the directory, then the others by their ids.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// Reads the domain and judges everything in the logs; a report for each instance. `finished` are the finished captures of each, in
    /// the same order.
    ///
    /// # Errors
    /// [`PromoteError::NoDomain`], [`PromoteError::Source`], [`VerifyError`] where any instance is of another domain.
    pub fn judge(&self, finished: &[Vec<Done>], expect: &DomainId) -> Result<Vec<Report>> {
        let manifests = match self.instances.len() {
            1 => None,
            _ => Some(Manifests::read(&self.store, *expect)?),
        };
        let mut reports = Vec::new();
        for (nth, instance) in self.instances.iter().enumerate() {
            let finished = finished.get(nth).map_or(&[][..], Vec::as_slice);
            let judged = instance.judge(manifests.as_ref(), finished, expect);
            match judged {
                Err(crate::Error::Verify(VerifyError::OtherDomain { found: None, .. }))
                    if !self.has_domain()? =>
                {
                    return Err(PromoteError::NoDomain.into());
                }
                judged => reports.push(judged?),
            }
        }
        Ok(reports)
    }

    /// Whether any log founds a domain, whichever.
    fn has_domain(&self) -> Result<bool> {
        for instance in &self.instances {
            if Domain::read(&instance.store)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Instance {
    /// What its own log shows. The other instances lend it parts.
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

    fn judge(
        &self,
        manifests: Option<&Manifests>,
        finished: &[Done],
        expect: &DomainId,
    ) -> Result<Report> {
        let mut report = match manifests {
            Some(manifests) => verify_among(&self.store, manifests, finished, expect)?,
            None => verify(&self.store, finished, Some(expect))?,
        };
        let worst = report.class().filter(|class| *class > Class::Note);
        let Some(class) = worst else {
            return Ok(report);
        };
        let mut found = std::mem::take(&mut report.found);
        found.retain(|found| found.class > Class::Note);
        let store = self.store_id();
        Err(PromoteError::Source {
            store,
            class,
            found,
        }
        .into())
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
            if let Some(removal) = Removal::of_record(record) {
                scan.removed.extend(removal.keys);
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

    /// Whether the log has nothing since `position` but what speaks of authority in `domain`.
    pub(super) fn says_only_authority_since(
        &self,
        position: LogPosition,
        domain: &Domain,
    ) -> Result<bool> {
        let mut named: HashSet<Key> = domain.chain.path().map(|node| node.dam.policy).collect();
        let mut sealed = Vec::new();
        let mut only = true;
        self.store.records(position, &mut |record, _| {
            if let Some(record) = AuthorityRecord::of_record(record) {
                named.extend(record.keys);
            }
            match record.record_type {
                format::RECORD_SEAL => sealed.push(record.position.0),
                format::RECORD_SESSION
                | format::RECORD_TOMBSTONE
                | format::RECORD_REMOVED
                | format::RECORD_EPOCH
                | format::RECORD_INDEX_ADD => only = false,
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
