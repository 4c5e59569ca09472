//! The log: every header, record and link between files, folded from position 0,
//! and `log/current` compared with it.

use std::collections::BTreeMap;

use super::{Run, describe, is_beyond, not_zero, snapshots};
use crate::authority::Authority;
use crate::block;
use crate::current::{self, HINT_PATH, Hint};
use crate::epoch::Epoch;
use crate::error::{Error, Result};
use crate::format::{
    self, Field, authority_payload, created_payload, current_hint, epoch_payload, home_payload,
    index_add_payload, index_record, lease_payload, log_header as lh, removed_payload,
    seal_payload, session_payload, snapshot_payload, tombstone_payload,
};
use crate::id::{BlockId, LogPosition};
use crate::index::read_file;
use crate::log::{LOG_DIR, LogEnd, LogFiles, LogHeader, LogName, LogPlace, Record};
use crate::rebuild;
use crate::segment::SegmentRef;
use crate::state::{Level0, State};
use crate::vfs::{Access, Vfs};

/// What the log says, as far as it can be read.
#[derive(Default)]
pub(super) struct LogView {
    /// Its end, or the last point that can be reached.
    pub(super) state: Option<State>,
    /// All index entries of all records up to there, oldest first; `None` if the log
    /// cannot be read from its beginning.
    pub(super) history: Option<Vec<(u64, Level0)>>,
    /// How many of the history's items are in segments.
    pub(super) in_segments: usize,
    /// Every segment that was ever logged, with the log position that it covers.
    pub(super) segments: BTreeMap<(u32, u32), (SegmentRef, u64)>,
}

/// Reads the whole log. An error only where nothing can be said about the store.
pub(super) fn check(run: &Run) -> Result<LogView> {
    // Before the log, so that a writer cannot outrun us with it.
    let hint = read_file(run.vfs, HINT_PATH);
    let named = headers(run);
    let files = match LogFiles::list(run.vfs) {
        Ok(files) => files,
        Err(error) if is_beyond(&error) => return Err(error),
        Err(Error::NotAStore) if !holds_blocks(run.vfs) && named == 0 => {
            return Err(Error::NotAStore);
        }
        Err(error) => {
            let what = match error {
                Error::NotAStore => "no log file with a valid header".to_owned(),
                error => describe(&error).1,
            };
            run.damaged(LOG_DIR, None, what);
            return Ok(LogView::default());
        }
    };
    if let Some((path, what)) = files.damage().filter(|(path, _)| !run.is_damaged(path)) {
        run.damaged(path, None, what);
    }
    left_behind(run, &files);

    let mut fold = Fold::new(run, &files, hint.as_deref().ok().and_then(Hint::decode));
    let mut end = None;
    if files.begins_at_zero() {
        let start = files.start();
        match files.read(run.vfs, start, current::END, &mut |record| {
            fold.see(&record)
        }) {
            Ok(read) => end = Some(read),
            Err(error) if is_beyond(&error) => return Err(error),
            Err(Error::LogDamaged { .. }) if fold.state.is_none() => {}
            Err(error) => {
                let (path, offset) = match &error {
                    Error::Io { path, .. } => (path.clone(), None),
                    _ => (fold.end.name.path(), Some(fold.end.offset)),
                };
                run.damaged(&path, offset, describe(&error).1);
            }
        }
    } else if files.damage().is_none() {
        let path = files.start().name.path();
        run.damaged(&path, 0, "the log does not begin as one does");
    }
    let mut intact = false;
    if let Some((place, end)) = end {
        intact = fold.finish(place, &end, files.damage());
    }
    check_hint(run, &hint, &fold, intact);
    run.count(|counts| {
        counts.records = fold.records;
        counts.log_files = files.headers().count() as u64;
    });
    let mut view = fold.into_view();
    // Behind damage, the state that a snapshot pinned may lead further.
    if !intact && let Ok(reached) = current::load(run.vfs) {
        let further = view.state.as_ref().map(State::position) < Some(reached.state.position());
        if further {
            view.history = None;
            view.state = Some(reached.state);
        }
    }
    Ok(view)
}

fn holds_blocks(vfs: &dyn Vfs) -> bool {
    [block::OPEN_DIR, block::SEALED_DIR]
        .iter()
        .any(|dir| vfs.list(dir).is_ok_and(|entries| !entries.is_empty()))
}

/// Looks at the header of every log file by itself; returns how many there are.
fn headers(run: &Run) -> u64 {
    let mut named = 0;
    for entry in run.vfs.list(LOG_DIR).unwrap_or_default() {
        let Some(name) = LogName::parse(&entry.name).filter(|_| !entry.metadata.is_dir) else {
            continue;
        };
        named += 1;
        run.expect(entry.metadata.len);
        run.advance(entry.metadata.len);
        let path = name.path();
        let mut buf = [0; lh::LEN];
        let file = run.vfs.open(&path, Access::Read);
        if let Err(error) = file.and_then(|file| file.read_at(0, &mut buf)) {
            run.damaged(&path, 0, format!("cannot be read: {error}"));
            continue;
        }
        match LogHeader::decode(&buf, &path) {
            Ok(header) if header.name != name => {
                run.damaged(&path, 0, "its header is that of another file");
            }
            Ok(_) => {
                if let Some(what) = not_zero(lh::FIELDS, &buf) {
                    run.damaged(&path, 0, format!("a header with {what}"));
                }
            }
            Err(error) if is_beyond(&error) => {}
            Err(_) if entry.metadata.len <= lh::LEN as u64 => {
                run.note(format!(
                    "{path}: its creation was cut short; it holds nothing"
                ));
            }
            Err(error) => run.damaged(&path, 0, describe(&error).1),
        }
    }
    named
}

/// Ends of files that the log has left behind.
fn left_behind(run: &Run, files: &LogFiles) {
    for (name, valid_len) in files.headers().filter_map(|header| header.previous) {
        let path = name.path();
        let len = run.vfs.metadata(&path).map_or(0, |metadata| metadata.len);
        if len > valid_len {
            let torn = len - valid_len;
            run.note(format!(
                "{path}: {torn} bytes of a torn append were left behind"
            ));
        }
    }
}

/// The log folded from its beginning, with what is compared on the way.
struct Fold<'a> {
    run: &'a Run<'a>,
    files: &'a LogFiles,
    /// The end of the last record.
    end: LogPlace,
    state: Option<State>,
    /// Whether every record so far could be applied.
    whole: bool,
    records: u64,
    history: Vec<(u64, Level0)>,
    covers: u64,
    segments: BTreeMap<(u32, u32), (SegmentRef, u64)>,
    /// The position that the hint names, and the places where the log stood there.
    hinted: Option<LogPosition>,
    places: Vec<LogPlace>,
}

impl<'a> Fold<'a> {
    fn new(run: &'a Run<'a>, files: &'a LogFiles, hint: Option<Hint>) -> Self {
        let mut fold = Self {
            run,
            files,
            end: files.start(),
            state: None,
            whole: true,
            records: 0,
            history: Vec::new(),
            covers: 0,
            segments: BTreeMap::new(),
            hinted: hint.map(|hint| hint.place.position),
            places: Vec::new(),
        };
        fold.stand(fold.end);
        fold
    }

    /// The log stands at `place`; remembered if that is where the hint says it stood.
    fn stand(&mut self, place: LogPlace) {
        if self.hinted == Some(place.position) {
            self.places.extend(self.places_of(place));
        }
    }

    /// Where a writer may have seen the log end that ends at `place`: there, or at the start
    /// of any file begun at this position. Of these only the last has a record, if it does.
    fn places_of(&self, place: LogPlace) -> Vec<LogPlace> {
        let begun = self
            .files
            .headers()
            .filter(|header| header.name.first == place.position.0);
        let begun = begun.map(|header| LogPlace {
            name: header.name,
            offset: format::log_header::LEN as u64,
            ..place
        });
        [place].into_iter().chain(begun).collect()
    }

    fn see(&mut self, record: &Record) -> Result<()> {
        let before = self.end;
        let end = record.end();
        self.records += 1;
        self.stand(end);
        self.end = end;
        for what in oddities(record) {
            self.complain(record, what);
        }
        let Some(state) = &mut self.state else {
            match State::first(self.files.store_id(), end, record) {
                Ok(state) => self.state = Some(state),
                Err(error) => {
                    self.complain(record, describe(&error).1);
                    return Err(error);
                }
            }
            return Ok(());
        };
        if record.record_type == format::RECORD_CREATED {
            self.whole = false;
            self.complain(record, "a second record of a store's creation");
            return Ok(());
        }
        if let Some(what) = contradiction(state, record) {
            self.complain(record, what);
        }
        if record.record_type == format::RECORD_EPOCH
            && let Some(Epoch { from, remembered }) = Epoch::parse(&record.payload)
        {
            self.run.note(format!(
                "the log once had {remembered} records and was made again from record {from} on"
            ));
        }
        // The writer took down its place before or after it began another file.
        let places =
            (record.record_type == format::RECORD_SNAPSHOT).then(|| self.places_of(before));
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        if let Some(places) = places
            && self.whole
        {
            snapshots::check_state(self.run, state, &places, record);
        }
        match state.apply(record) {
            Ok(()) => {}
            Err(error @ Error::UnknownCritical { .. }) => return Err(error),
            Err(error) => {
                self.whole = false;
                self.complain(record, describe(&error).1);
                return Ok(());
            }
        }
        state.set_place(end);
        match record.record_type {
            format::RECORD_SEGMENTS => {
                let covers = format::segments_payload::COVERS.get(&record.payload);
                self.covers = self.covers.max(covers);
                for segment in state.segments() {
                    let id = (segment.shard, segment.number);
                    self.segments.entry(id).or_insert((segment, covers));
                }
            }
            format::RECORD_SNAPSHOT => {
                let snapshot = state.snapshots.last().cloned();
                if let Some(snapshot) = snapshot.filter(|_| self.whole) {
                    snapshots::check_renderings(self.run, state, &snapshot);
                }
            }
            _ => {
                let newest = state.level0.last();
                let newest = newest.filter(|(position, _)| *position == record.position.0);
                self.history.extend(newest.cloned());
            }
        }
        Ok(())
    }

    fn complain(&self, record: &Record, what: impl AsRef<str>) {
        let (name, offset) = record.place;
        let what = format!("record {}: {}", record.position, what.as_ref());
        self.run.damaged(&name.path(), offset, what);
    }

    /// The log was read up to `place`. Returns whether that is its end.
    fn finish(&mut self, place: LogPlace, end: &LogEnd, known: Option<&(String, String)>) -> bool {
        self.stand(place);
        self.end = place;
        if let Some(state) = &mut self.state {
            state.set_place(place);
        }
        let path = place.name.path();
        match end {
            LogEnd::Clean => true,
            LogEnd::Torn { ignored_bytes } => {
                let note = format!("{path}: it ends in {ignored_bytes} bytes of a torn append");
                self.run.note(note);
                true
            }
            LogEnd::Damaged { what } => {
                let told = known.is_some_and(|(path, why)| *what == format!("{path}: {why}"));
                if !told {
                    self.run.damaged(&path, place.offset, what);
                }
                false
            }
            LogEnd::Lost { .. } => false,
        }
    }

    fn into_view(self) -> LogView {
        let covers = self.covers;
        LogView {
            in_segments: self.history.partition_point(|(at, _)| *at < covers),
            history: self.state.is_some().then_some(self.history),
            state: self.state,
            segments: self.segments,
        }
    }
}

/// What is odd about a record by itself: bytes that ought to be zero, a wrong flag.
fn oddities(record: &Record) -> Vec<&'static str> {
    let payload = &record.payload[..];
    let mut found = Vec::new();
    let (fields, head): (&[Field], usize) = match record.record_type {
        format::RECORD_CREATED => (created_payload::FIELDS, created_payload::LEN),
        format::RECORD_LEASE => (lease_payload::FIELDS, lease_payload::LEN),
        format::RECORD_SEAL => (seal_payload::FIELDS, seal_payload::LEN),
        format::RECORD_INDEX_ADD => (index_add_payload::FIELDS, index_add_payload::LEN),
        format::RECORD_TOMBSTONE => (tombstone_payload::FIELDS, tombstone_payload::LEN),
        format::RECORD_SNAPSHOT => (snapshot_payload::FIELDS, snapshot_payload::LEN),
        format::RECORD_SESSION => (session_payload::FIELDS, session_payload::LEN),
        format::RECORD_HOME => (home_payload::FIELDS, home_payload::LEN),
        format::RECORD_REMOVED => (removed_payload::FIELDS, removed_payload::LEN),
        format::RECORD_EPOCH => (epoch_payload::FIELDS, epoch_payload::LEN),
        kind if Authority::of_type(kind).is_some() => {
            (authority_payload::FIELDS, authority_payload::LEN)
        }
        _ => (&[], 0),
    };
    if payload.len() >= head {
        found.extend(not_zero(fields, payload));
        if record.record_type == format::RECORD_INDEX_ADD {
            let records = payload[head..].chunks_exact(index_record::LEN);
            found.extend(records.filter_map(|raw| not_zero(index_record::FIELDS, raw)));
        }
    }
    let must = (format::RECORD_CREATED..=format::RECORD_SNAPSHOT).contains(&record.record_type)
        || record.record_type == format::RECORD_REMOVED
        || Authority::of_type(record.record_type).is_some_and(Authority::is_critical);
    if must && !record.critical {
        found.push("it is not marked critical, though who ignores it goes wrong");
    }
    found
}

/// What a record says that cannot follow from the records before it.
fn contradiction(state: &State, record: &Record) -> Option<String> {
    let payload = &record.payload[..];
    match record.record_type {
        format::RECORD_LEASE if payload.len() == lease_payload::LEN => {
            let first = lease_payload::FIRST_ID.get(payload);
            (first < state.next_block).then(|| format!("it leases block {} again", BlockId(first)))
        }
        format::RECORD_SEAL if payload.len() == seal_payload::LEN => {
            let id = BlockId(seal_payload::BLOCK_ID.get(payload));
            if state.block(id).is_some() {
                return Some(format!("it seals block {id} again"));
            }
            (id.0 == 0 || id.0 >= state.next_block)
                .then(|| format!("it seals block {id}, which was never leased"))
        }
        format::RECORD_TOMBSTONE if payload.len() >= tombstone_payload::LEN => {
            let id = BlockId(tombstone_payload::BLOCK_ID.get(payload));
            (id.0 != 0 && state.block(id).is_none())
                .then(|| format!("it names block {id}, which is not sealed"))
        }
        format::RECORD_INDEX_ADD if payload.len() >= index_add_payload::LEN => {
            let entries = Level0::Adds(payload[index_add_payload::LEN..].to_vec());
            let known = |id: BlockId| id.0 == 0 || state.block(id).is_some();
            let lost = rebuild::logged(&entries).find(|entry| !known(entry.block));
            lost.map(|entry| format!("it points into block {}, which is not sealed", entry.block))
        }
        format::RECORD_SNAPSHOT if payload.len() >= snapshot_payload::LEN => {
            let ordinal = snapshot_payload::ORDINAL.get(payload);
            let next = state.snapshots.last().map_or(1, |last| last.ordinal + 1);
            (ordinal != next).then(|| format!("snapshot {ordinal} where {next} comes next"))
        }
        format::RECORD_EPOCH => match Epoch::parse(payload) {
            Some(epoch) if epoch.from <= record.position && epoch.remembered >= epoch.from => None,
            _ => Some("an epoch that cannot be".to_owned()),
        },
        format::RECORD_SESSION if payload.len() >= session_payload::LEN => {
            let known = format::SESSION_BEGUN..=format::SESSION_ABANDONED;
            let kind = session_payload::KIND.u8(payload);
            (!known.contains(&kind)).then(|| format!("an unknown kind of session record, {kind}"))
        }
        _ => None,
    }
}

/// Compares `log/current`, as it was before, with the log that was read.
fn check_hint(run: &Run, raw: &Result<Vec<u8>>, fold: &Fold, intact: bool) {
    let raw = match raw {
        Ok(raw) => raw,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            run.note(format!(
                "{HINT_PATH} is missing; the next writer makes it again"
            ));
            return;
        }
        Err(error) => {
            run.stale(HINT_PATH, None, describe(error).1);
            return;
        }
    };
    let Some(hint) = Hint::decode(raw) else {
        run.stale(HINT_PATH, 0, "not a valid hint");
        return;
    };
    if let Some(what) = not_zero(current_hint::FIELDS, raw) {
        run.stale(HINT_PATH, 0, format!("it has {what}"));
    }
    let remembered = hint.place.position;
    if remembered > fold.end.position {
        // A log that is damaged before its end has been told of already.
        if intact {
            let path = fold.end.name.path();
            let what = format!(
                "the log ends at record {}, but {HINT_PATH} remembers {remembered}: \
                 records at its end are lost",
                fold.end.position
            );
            run.damaged(&path, fold.end.offset, what);
        }
        return;
    }
    if !fold.whole || fold.state.is_none() {
        return;
    }
    if fold
        .places
        .iter()
        .all(|place| place.chain != hint.place.chain)
    {
        let what = format!("it remembers other records before record {remembered} than there are");
        run.damaged(HINT_PATH, None, what);
    } else if !fold.places.contains(&hint.place) {
        let what = format!("record {remembered} does not begin where it says");
        run.stale(HINT_PATH, None, what);
    }
    let snapshots = fold.state.iter().flat_map(|state| &state.snapshots);
    let then = snapshots.filter(|snapshot| snapshot.position < remembered.0);
    if then.map(|snapshot| snapshot.ordinal).max().unwrap_or(0) != hint.snapshot {
        run.stale(HINT_PATH, None, "it names another snapshot than the newest");
    }
}
