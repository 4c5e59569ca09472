//! What there is on both sides: the log of one instance there, read once and verified, and how far we have it.
//!
//! Invariants
//! - Of the other store's log nothing is believed but records that continue the chain from position 0.
//! - What was read is remembered in so little that memory does not grow with the log: its state, and every mebibyte
//!   the chain value ([`Source::pieces`]), so that what is read again later is known to be the same.
//!
//! Nothing is written here.

use std::collections::HashSet;

use crate::compare::{Head, LogView, parting};
use crate::current::{self, END, Hint};
use crate::error::{Error, Result};
use crate::format::{self, log_header as lh, snapshot_payload as pp};
use crate::home::Home;
use crate::id::{Digest, LogPosition, StoreId};
use crate::log::{LogEnd, LogFiles, LogHeader, LogName, LogPlace, Record, genesis};
use crate::segment::SegmentRef;
use crate::state::State;
use crate::vfs::{Access, Vfs, read_exact_at};

/// Bytes of log after which the chain value is remembered.
const PIECE_BYTES: u64 = 1 << 20;

/// One instance's log in our store.
pub(super) struct Target {
    pub(super) files: LogFiles,
    pub(super) end: LogPlace,
    /// The newest record that says where this instance is written, if any does.
    pub(super) home: Option<Home>,
}

impl Target {
    /// Reads our log of an instance; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::LogDamaged`] where it is damaged before its end.
    pub(super) fn read(vfs: &dyn Vfs, id: StoreId) -> Result<Option<Self>> {
        let files = match LogFiles::list(vfs) {
            Ok(files) => files,
            Err(Error::NotAStore) => return Ok(None),
            Err(error) => return Err(error),
        };
        if files.store_id() != id || !files.begins_at_zero() {
            return Err(Error::LogDamaged {
                what: format!("it is not that of {id} from its beginning"),
            });
        }
        let mut home = None;
        let (end, how) = files.read(vfs, files.start(), END, &mut |record| {
            if record.record_type == format::RECORD_HOME {
                home = Home::parse(&record.payload);
            }
            Ok(())
        })?;
        match how {
            LogEnd::Damaged { what } => Err(Error::LogDamaged { what }),
            // A creation that was cut short, by its writer or by a sync.
            _ if end.position.0 == 0 => Ok(None),
            _ => Ok(Some(Self { files, end, home })),
        }
    }

    pub(super) fn head(&self, id: StoreId) -> Head {
        Head::new(id, &self.end)
    }

    fn view<'a>(&'a self, vfs: &'a dyn Vfs) -> LogView<'a> {
        LogView {
            vfs,
            files: &self.files,
            end: self.end,
        }
    }
}

/// A log file as it is to be written here.
pub(super) struct SourceFile {
    pub(super) name: LogName,
    /// Its header as it stands there.
    pub(super) header: [u8; lh::LEN],
    /// Where its first record is.
    pub(super) start: LogPlace,
    /// Places about a mebibyte apart, the last one the end of the file's valid part.
    pub(super) pieces: Vec<LogPlace>,
}

/// How our log of an instance stands to the other store's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// We have none.
    New,
    /// The same records.
    Equal,
    /// We have more.
    Ahead,
    /// They have more.
    Behind,
    /// Two histories.
    Forked {
        /// Records that are the same.
        at: LogPosition,
    },
}

/// One instance's log in the other store, read to its end.
pub(super) struct Source {
    pub(super) files: LogFiles,
    pub(super) state: State,
    pub(super) written: Vec<SourceFile>,
    pub(super) standing: Standing,
    /// Segments in force where our log ends: they are here already.
    pub(super) known_segments: HashSet<(u32, u32)>,
    /// Snapshots whose state file would be exactly what the log says.
    pub(super) vouched_states: Vec<Vouched>,
}

/// A state file that the log pins and that says what the log says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vouched {
    pub(super) ordinal: u64,
    pub(super) digest: Digest,
    /// Position of the snapshot's record.
    pub(super) position: u64,
}

impl Source {
    /// Reads the log of instance `id` in the other store and compares it with ours.
    ///
    /// # Errors
    /// [`Error::LogDamaged`] and [`Error::LogTailLost`] if it is not whole; [`Error::UnknownCritical`] and its like if it needs a
    /// newer program.
    pub(super) fn read(
        vfs: &dyn Vfs,
        id: StoreId,
        ours: Option<(&dyn Vfs, &Target)>,
    ) -> Result<Self> {
        // A writer may be at work there: it appends, and begins new files.
        match Self::read_once(vfs, id, ours) {
            Err(Error::LogDamaged { .. } | Error::LogTailLost { .. }) => {
                Self::read_once(vfs, id, ours)
            }
            read => read,
        }
    }

    fn read_once(vfs: &dyn Vfs, id: StoreId, ours: Option<(&dyn Vfs, &Target)>) -> Result<Self> {
        let hint = Hint::read(vfs).filter(|hint| hint.place.position.0 > 0);
        let files = LogFiles::list(vfs)?;
        if files.store_id() != id || !files.begins_at_zero() {
            return Err(Error::LogDamaged {
                what: format!("it is not that of {id} from its beginning"),
            });
        }
        let ends = [
            ours.map(|(_, ours)| ours.end.position),
            hint.map(|hint| hint.place.position),
        ];
        let mut fold = Fold {
            id,
            places: Places::of(files.start()),
            state: None,
            ends,
            chains: [
                (ends[0] == Some(LogPosition(0))).then(|| genesis(&id)),
                None,
            ],
            known_segments: HashSet::new(),
            vouched_states: Vec::new(),
        };
        let (end, how) = files.read(vfs, files.start(), END, &mut |record| fold.see(&record))?;
        let lost = |remembered| Error::LogTailLost {
            found: end.position,
            remembered,
        };
        match how {
            LogEnd::Damaged { what } => return Err(Error::LogDamaged { what }),
            LogEnd::Lost { remembered } => return Err(lost(remembered)),
            LogEnd::Clean | LogEnd::Torn { .. } => {}
        }
        if let Some(hint) = hint
            && fold.chains[1] != Some(hint.place.chain)
        {
            return Err(lost(hint.place.position));
        }
        let Some(mut state) = fold.state else {
            return Err(Error::NotAStore);
        };
        // The last record's end, not a file that was begun behind it and may yet vanish.
        state.set_place(fold.places.last);
        let written = fold.places.files(vfs, &files)?;
        let view = LogView {
            vfs,
            files: &files,
            end: state.place(),
        };
        let standing = match ours {
            None => Standing::New,
            Some((our_vfs, ours)) => {
                let our_view = ours.view(our_vfs);
                let common = ours.end.position.min(view.end.position);
                let theirs = match fold.chains[0] {
                    Some(chain) => chain,
                    None => view.end.chain,
                };
                if our_view.chain_at(common)? != theirs {
                    let at = parting(&our_view, &view, common)?;
                    Standing::Forked { at }
                } else if ours.end.position > view.end.position {
                    Standing::Ahead
                } else if ours.end.position < view.end.position {
                    Standing::Behind
                } else {
                    Standing::Equal
                }
            }
        };
        Ok(Self {
            state,
            written,
            standing,
            known_segments: fold.known_segments,
            vouched_states: fold.vouched_states,
            files,
        })
    }

    pub(super) fn head(&self) -> Head {
        Head::new(self.state.store_id(), &self.state.place())
    }
}

/// The log being read.
struct Fold {
    id: StoreId,
    places: Places,
    state: Option<State>,
    /// Where our log ends, and where the hint says that theirs does.
    ends: [Option<LogPosition>; 2],
    /// Their chain values there.
    chains: [Option<Digest>; 2],
    known_segments: HashSet<(u32, u32)>,
    vouched_states: Vec<Vouched>,
}

impl Fold {
    fn see(&mut self, record: &Record) -> Result<()> {
        let before = self.places.last;
        let end = record.end();
        match &mut self.state {
            Some(state) => {
                if record.record_type == format::RECORD_SNAPSHOT {
                    self.vouched_states.extend(vouch(state, before, record));
                }
                state.apply(record)?;
            }
            None => self.state = Some(State::first(self.id, before, record)?),
        }
        for (at, chain) in self.ends.iter().zip(&mut self.chains) {
            if *at == Some(end.position) {
                *chain = Some(record.chain);
            }
        }
        if self.ends[0] == Some(end.position)
            && let Some(state) = &self.state
        {
            let named = |segment: SegmentRef| (segment.shard, segment.number);
            self.known_segments = state.segments().into_iter().map(named).collect();
        }
        self.places.see(record);
        Ok(())
    }
}

/// Whether the state that a snapshot's `record` pins is the one before it. Its writer saw the end of the log in the file that
/// ended there, or in that of the record.
fn vouch(state: &mut State, before: LogPlace, record: &Record) -> Option<Vouched> {
    if record.payload.len() < pp::LEN {
        return None;
    }
    let digest = Digest(pp::STATE_DIGEST.array(&record.payload));
    let (name, offset) = record.place;
    let places = [
        before,
        LogPlace {
            name,
            offset,
            ..before
        },
    ];
    let kept = state.place();
    let same = places.into_iter().any(|place| {
        state.set_place(place);
        current::state_digest(&current::encode_state(state)) == digest
    });
    state.set_place(kept);
    same.then(|| Vouched {
        ordinal: pp::ORDINAL.get(&record.payload),
        digest,
        position: record.position.0,
    })
}

/// Where records begin and end.
struct Places {
    /// The end of the last record.
    last: LogPlace,
    /// Of each file that has records: its name, and the ends of its pieces.
    files: Vec<(LogName, Vec<LogPlace>)>,
    /// Where the last piece begins.
    piece: u64,
}

impl Places {
    fn of(start: LogPlace) -> Self {
        Self {
            last: start,
            files: Vec::new(),
            piece: start.offset,
        }
    }

    fn see(&mut self, record: &Record) {
        let (name, offset) = record.place;
        self.last = record.end();
        match self.files.last_mut() {
            Some((of, pieces)) if *of == name => match pieces.last_mut() {
                Some(last) if last.offset - self.piece < PIECE_BYTES => *last = self.last,
                _ => {
                    self.piece = offset;
                    pieces.push(self.last);
                }
            },
            _ => {
                self.piece = offset;
                self.files.push((name, vec![self.last]));
            }
        }
    }

    /// The files as they are to be written: all up to the one with the last record, those without records between them too.
    fn files(self, vfs: &dyn Vfs, files: &LogFiles) -> Result<Vec<SourceFile>> {
        let mut with_records = self.files.into_iter().peekable();
        let mut written = Vec::new();
        for header in files.headers() {
            let Some((next, _)) = with_records.peek() else {
                break;
            };
            let has_records = *next == header.name;
            let start = LogPlace {
                name: header.name,
                offset: lh::LEN as u64,
                position: LogPosition(header.name.first),
                chain: header.chain,
            };
            let pieces = has_records.then(|| with_records.next()).flatten();
            written.push(SourceFile {
                name: header.name,
                header: raw_header(vfs, header)?,
                start,
                pieces: pieces.map(|(_, pieces)| pieces).unwrap_or_default(),
            });
        }
        Ok(written)
    }
}

/// A log file's header as it stands on disk: the one that was listed.
fn raw_header(vfs: &dyn Vfs, listed: &LogHeader) -> Result<[u8; lh::LEN]> {
    let path = listed.name.path();
    let mut raw = [0; lh::LEN];
    let file = vfs
        .open(&path, Access::Read)
        .map_err(Error::io("open", &path))?;
    read_exact_at(&*file, 0, &mut raw).map_err(Error::io("read", &path))?;
    if LogHeader::decode(&raw, &path)? != *listed {
        return Err(changed());
    }
    if let Some(what) = crate::verify::not_zero(lh::FIELDS, &raw) {
        return Err(Error::damaged(&path, 0, what));
    }
    Ok(raw)
}

/// A log that is not any more what it was a moment ago.
pub(super) fn changed() -> Error {
    Error::LogDamaged {
        what: "it changed while it was read".into(),
    }
}
