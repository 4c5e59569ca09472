//! Captures as the store's log knows them: begun, paused, finished.
//!
//! A session record says what is captured; blocks carry the session's id, and
//! the notes in them are all that a resume needs.

use std::collections::HashSet;
use std::io::ErrorKind;

use asl_store::{BlockId, Key, SessionId, StoreHandle, StoreId, format};
use serde::{Deserialize, Serialize};

use crate::device::{Geometry, Identity, SECTOR_BYTES_MAX};
use crate::error::{Error, Result};
use crate::journal::{self, Counters, Entry};
use crate::manifest::{CaptureDoc, SourceDoc};
use crate::map::{Outcome, RangeState, RescueMap};

/// Body of a session's first record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionDoc {
    /// `asl-session-1`.
    pub format: String,
    /// `disk`.
    pub kind: String,
    /// The user's words.
    pub label: Option<String>,
    /// The source.
    pub source: SourceDoc,
    /// Chunk size in bytes.
    pub chunk_bytes: u32,
    /// Unix time in nanoseconds; untrusted.
    pub started_unix_ns: i64,
    /// Program and version.
    pub tool: String,
}

/// `format` of a [`SessionDoc`].
pub const SESSION_FORMAT: &str = "asl-session-1";

/// How far a capture has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureState {
    /// Running, or cut off without a manifest.
    Begun,
    /// Stopped early, or told to leave something out, with a manifest of what was read.
    Paused,
    /// Nothing is left that was never tried.
    Finished,
    /// Given up.
    Abandoned,
}

/// A capture in a store.
#[derive(Debug, Clone)]
pub struct Capture {
    /// Its id.
    pub session: SessionId,
    /// How far it has come.
    pub state: CaptureState,
    /// What it was begun as.
    pub begun: SessionDoc,
    /// How it went, once there is a manifest.
    pub doc: Option<CaptureDoc>,
    /// Root artifact of the newest manifest.
    pub root: Option<Key>,
}

impl Capture {
    /// Whether it is still under way.
    pub fn is_unfinished(&self) -> bool {
        matches!(self.state, CaptureState::Begun | CaptureState::Paused)
    }

    /// Whether there is something that was never tried: what is under way, and what was closed early.
    pub fn has_more(&self) -> bool {
        let untried = self.doc.as_ref().is_some_and(|doc| doc.untried_bytes > 0);
        self.is_unfinished() || self.state == CaptureState::Finished && untried
    }
}

/// What a source's kernel and size say, in the form that is kept.
pub fn source_doc(identity: &Identity, geometry: &Geometry) -> SourceDoc {
    SourceDoc {
        path: identity.path.clone(),
        model: identity.model.clone(),
        serial: identity.serial.clone(),
        wwn: identity.wwn.clone(),
        firmware: identity.firmware.clone(),
        transport: identity.transport.clone(),
        backing_file: identity.backing_file.clone(),
        size_bytes: geometry.size_bytes,
        logical_sector_bytes: geometry.logical_sector_bytes,
        physical_sector_bytes: geometry.physical_sector_bytes,
    }
}

/// All captures, oldest first; those whose root was removed are left out.
pub fn list(store: &StoreHandle) -> Result<Vec<Capture>> {
    let sessions = store.sessions();
    let mut captures = Vec::new();
    for session in sessions {
        let Ok(begun) = serde_json::from_slice::<SessionDoc>(&session.begun) else {
            continue;
        };
        if begun.format != SESSION_FORMAT {
            continue;
        }
        let root = session.root_key();
        if let Some(root) = &root
            && store.is_removed(root)?
        {
            continue;
        }
        captures.push(Capture {
            session: session.session(),
            state: match session.kind {
                format::SESSION_PAUSED => CaptureState::Paused,
                format::SESSION_FINISHED => CaptureState::Finished,
                format::SESSION_ABANDONED => CaptureState::Abandoned,
                _ => CaptureState::Begun,
            },
            begun,
            doc: serde_json::from_slice(&session.body).ok(),
            root,
        });
    }
    if store.instances().len() > 1 {
        // Logs of several writers have no order between them but by their clocks.
        captures.sort_by_key(|capture| capture.begun.started_unix_ns);
    }
    Ok(captures)
}

/// The capture of an id, a unique prefix of one, or a label.
pub fn find(store: &StoreHandle, name: &str) -> Result<Capture> {
    let captures = list(store)?;
    let exact = captures
        .iter()
        .position(|capture| capture.session.to_string() == name);
    if let Some(at) = exact {
        return Ok(captures[at].clone());
    }
    let labelled = |capture: &&Capture| capture.begun.label.as_deref() == Some(name);
    let mut fits: Vec<&Capture> = captures.iter().filter(labelled).collect();
    if fits.is_empty() && name.len() >= 4 {
        let prefixed = |capture: &&Capture| capture.session.to_string().starts_with(name);
        fits = captures.iter().filter(prefixed).collect();
    }
    match fits[..] {
        [] => Err(Error::NoCapture(name.to_owned())),
        [only] => Ok(only.clone()),
        _ => Err(Error::Ambiguous {
            name: name.to_owned(),
            count: fits.len(),
        }),
    }
}

/// How sure it is that a source is the one a capture was begun from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sameness {
    /// Size and serial number or world wide name agree.
    Certain,
    /// Nothing says otherwise, but the source has no serial: its fingerprint decides.
    Likely,
    /// It is another one; why.
    Other(String),
}

/// Compares a source with what a capture remembers. The path never decides.
pub fn same_source(doc: &SourceDoc, identity: &Identity, geometry: &Geometry) -> Sameness {
    if doc.size_bytes != geometry.size_bytes {
        let why = format!(
            "it has {} bytes, the captured one {}",
            geometry.size_bytes, doc.size_bytes
        );
        return Sameness::Other(why);
    }
    for (name, then, now) in [
        ("serial", &doc.serial, &identity.serial),
        ("WWN", &doc.wwn, &identity.wwn),
    ] {
        match (then, now) {
            (Some(then), Some(now)) if then != now => {
                return Sameness::Other(format!(
                    "its {name} is {now}, the captured one's is {then}"
                ));
            }
            (Some(_), Some(_)) => return Sameness::Certain,
            _ => {}
        }
    }
    Sameness::Likely
}

/// Captures of a source with something left that was never tried, newest first: also those that were closed because the source was
/// lost, for it may come back.
pub fn unfinished_of(
    store: &StoreHandle,
    identity: &Identity,
    geometry: &Geometry,
) -> Result<Vec<Capture>> {
    captures_of(store, identity, geometry, Capture::has_more)
}

/// Finished captures of a source in which the medium refused something, newest first:
/// reading can go on with retries, and nothing that was read is read again.
pub fn retryable_of(
    store: &StoreHandle,
    identity: &Identity,
    geometry: &Geometry,
) -> Result<Vec<Capture>> {
    captures_of(store, identity, geometry, |capture| {
        let doc = capture.doc.as_ref();
        capture.state == CaptureState::Finished && doc.is_some_and(|doc| !doc.complete)
    })
}

/// Captures of a source of which every byte was read, newest first: nothing is left
/// to go on with.
pub fn complete_of(
    store: &StoreHandle,
    identity: &Identity,
    geometry: &Geometry,
) -> Result<Vec<Capture>> {
    captures_of(store, identity, geometry, |capture| {
        capture.doc.as_ref().is_some_and(|doc| doc.complete)
    })
}

fn captures_of(
    store: &StoreHandle,
    identity: &Identity,
    geometry: &Geometry,
    wanted: impl Fn(&Capture) -> bool,
) -> Result<Vec<Capture>> {
    let mut captures = list(store)?;
    captures.reverse();
    captures.retain(|capture| {
        let plausible = match same_source(&capture.begun.source, identity, geometry) {
            Sameness::Certain => true,
            // Without a serial the place must agree as well, or every stick of a size is alike.
            Sameness::Likely => capture.begun.source.backing_file == identity.backing_file,
            Sameness::Other(_) => false,
        };
        wanted(capture) && plausible
    });
    Ok(captures)
}

/// Blocks of a session, in the order they were written.
///
/// Where a capture was gone on with in another instance of the store, that instance's blocks come after those that it
/// continues: notes are numbered through, and who begins with the lower number came first.
pub fn blocks_of(store: &StoreHandle, session: SessionId) -> Result<Vec<BlockId>> {
    let mut of_instances: Vec<(StoreId, Vec<BlockId>)> = Vec::new();
    let mut found = Vec::new();
    store.for_each_block(&mut |id, info| {
        if info.session == session.0 {
            found.push(id);
        }
    });
    for id in found {
        let Some((instance, _)) = store.birthplace(id) else {
            continue;
        };
        match of_instances.last_mut() {
            Some((last, blocks)) if *last == instance => blocks.push(id),
            _ => of_instances.push((instance, vec![id])),
        }
    }
    if of_instances.len() > 1 {
        let mut keyed = Vec::with_capacity(of_instances.len());
        for (instance, blocks) in of_instances {
            keyed.push((first_number(store, session, &blocks)?, instance, blocks));
        }
        keyed.sort();
        return Ok(keyed
            .into_iter()
            .flat_map(|(_, _, blocks)| blocks)
            .collect());
    }
    Ok(of_instances
        .pop()
        .map_or_else(Vec::new, |(_, blocks)| blocks))
}

/// The number of the first note of a session in these blocks; the highest there is if they have none.
fn first_number(store: &StoreHandle, session: SessionId, blocks: &[BlockId]) -> Result<u64> {
    for block in blocks {
        let mut first = None;
        map_notes(store, session, *block, &mut |sequence, _| {
            first = first.or(Some(sequence));
            Ok(())
        })?;
        if let Some(first) = first {
            return Ok(first);
        }
    }
    Ok(u64::MAX)
}

/// What a fold over a session's notes came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folded {
    /// The number that the next note gets.
    pub next: u64,
    /// Blocks whose notes could not all be read, and why. What only they told counts
    /// as never read: a rescue goes on without it.
    pub lost: Vec<String>,
}

/// Calls `each` for every journal entry of a session in order, each note once.
///
/// A power cut may keep a note and lose an artifact that it names, if neither was
/// synced. Such an entry is left out, so what is folded is what can be read back.
pub fn fold(
    store: &StoreHandle,
    session: SessionId,
    each: &mut dyn FnMut(Entry) -> Result<()>,
) -> Result<Folded> {
    let mut folded = Folded::default();
    let mut seen = HashSet::new();
    for block in blocks_of(store, session)? {
        let info = store.block(block);
        let doubtful = info.is_some_and(|info| info.origin == format::ORIGIN_SALVAGED);
        let mut one = |sequence, entries| {
            // An evacuated block that was not removed in time holds it a second time.
            if !seen.insert(sequence) {
                return Ok(());
            }
            folded.next = folded.next.max(sequence + 1);
            for entry in entries {
                let lost = doubtful
                    && match &entry {
                        Entry::Chunk { key, .. }
                        | Entry::Piece { key, .. }
                        | Entry::LeafDone { key, .. } => store.lookup(key)?.is_none(),
                        _ => false,
                    };
                if !lost {
                    each(entry)?;
                }
            }
            Ok(())
        };
        let damage = map_notes(store, session, block, &mut one)?;
        folded.lost.extend(damage);
    }
    Ok(folded)
}

/// Why going through a block's notes ended early.
enum Ended {
    /// The block cannot be read on.
    Read(asl_store::Error),
    /// Whoever was given a note has failed.
    Fold(Error),
}

impl From<asl_store::Error> for Ended {
    fn from(error: asl_store::Error) -> Self {
        Self::Read(error)
    }
}

/// Calls `each` for the map notes of one block: number and entries. Returns what is wrong with
/// the block.
fn map_notes(
    store: &StoreHandle,
    session: SessionId,
    block: BlockId,
    each: &mut dyn FnMut(u64, Vec<Entry>) -> Result<()>,
) -> Result<Option<String>> {
    let mut damage = None;
    let read = store.notes(block, &mut |note_type, note| {
        if note_type == format::NOTE_MAP {
            match journal::parse(&note) {
                Some((of, sequence, entries)) if of == session => {
                    each(sequence, entries).map_err(Ended::Fold)?;
                }
                _ => {
                    damage = Some(format!(
                        "block {block} holds a note that is none of {session}"
                    ))
                }
            }
        }
        Ok(())
    });
    match read {
        Ok(()) => {}
        Err(Ended::Fold(error)) => return Err(error),
        Err(Ended::Read(error @ asl_store::Error::Io { .. })) if !is_missing(&error) => {
            return Err(error.into());
        }
        Err(Ended::Read(error)) => damage = Some(error.to_string()),
    }
    Ok(damage)
}

fn is_missing(error: &asl_store::Error) -> bool {
    matches!(error, asl_store::Error::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// What the first bytes of a capture's source were: offset, length, BLAKE3.
pub fn fingerprint(
    store: &StoreHandle,
    session: SessionId,
) -> Result<Option<(u64, u32, [u8; 32])>> {
    for block in blocks_of(store, session)? {
        let mut found = None;
        map_notes(store, session, block, &mut |_, entries| {
            let fingerprint = |entry: &Entry| match *entry {
                Entry::Fingerprint {
                    offset,
                    len,
                    digest,
                } if len <= SECTOR_BYTES_MAX => Some((offset, len, digest)),
                _ => None,
            };
            found = found.or_else(|| entries.iter().find_map(fingerprint));
            Ok(())
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// What a session's durable notes say: the map, and the totals so far. For a
/// capture that was cut off before it had a manifest.
pub fn known(store: &StoreHandle, capture: &Capture) -> Result<(RescueMap, Counters)> {
    let doc = &capture.begun;
    let mut map = RescueMap::new(doc.source.size_bytes);
    let mut counters = Counters::default();
    fold(store, capture.session, &mut |entry| {
        fold_entry(
            &mut map,
            &entry,
            doc.chunk_bytes,
            doc.source.physical_sector_bytes,
        );
        if let Entry::Counters(now) = entry {
            counters = now;
        }
        Ok(())
    })?;
    Ok((map, counters))
}

/// Folds what one entry says about the source's bytes.
pub fn fold_entry(map: &mut RescueMap, entry: &Entry, chunk_bytes: u32, sector_bytes: u32) {
    let chunk_bytes = u64::from(chunk_bytes);
    match *entry {
        Entry::Chunk { index, .. } => map.set(
            index * chunk_bytes..(index + 1) * chunk_bytes,
            RangeState::Copied,
        ),
        Entry::ZeroChunks { first, count, .. } => {
            map.set(
                first * chunk_bytes..(first + u64::from(count)) * chunk_bytes,
                RangeState::Copied,
            );
        }
        Entry::Piece { offset, len, .. } | Entry::ZeroPiece { offset, len, .. } => {
            map.set(offset..offset + u64::from(len), RangeState::Copied);
        }
        Entry::Failure {
            offset, len, errno, ..
        } => map.fold_read(offset..offset + len, Outcome::Bad { errno }, sector_bytes),
        Entry::LeafDone { .. } | Entry::Counters(_) | Entry::Fingerprint { .. } => {}
    }
}
