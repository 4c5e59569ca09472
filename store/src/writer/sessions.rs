//! Sessions of a writer: which of them the blocks that it makes belong to, and what the log says of their ends.
//!
//! An end is written twice: as a note in a block, then as a record, which alone counts. The note is for who has lost the log.

use super::StoreWriter;
use crate::epoch;
use crate::error::{Error, Result};
use crate::format;
use crate::id::{Key, SessionId};
use crate::state::{self, State};

impl StoreWriter {
    /// Begins or resumes a session: blocks from here on carry its id. `body` is
    /// opaque, at most [`format::SESSION_BODY_MAX`] bytes.
    pub fn begin_session(&mut self, session: SessionId, body: &[u8]) -> Result<()> {
        self.session_record(session, format::SESSION_BEGUN, None, body)?;
        self.session = session;
        Ok(())
    }

    /// Ends a session, for now or for good; `root` is the artifact that everything
    /// of it is reachable from. Commits first.
    pub fn end_session(&mut self, kind: u8, root: Option<Key>, body: &[u8]) -> Result<()> {
        let session = self.session;
        self.repeat_session(session, kind, root, body)?;
        self.session_record(session, kind, root, body)?;
        self.session = SessionId::ZERO;
        Ok(())
    }

    /// Writes down in a block how a session ends: who has only blocks can so tell it.
    fn repeat_session(
        &mut self,
        session: SessionId,
        kind: u8,
        root: Option<Key>,
        body: &[u8],
    ) -> Result<()> {
        // What room there is on a full disk belongs to the record.
        let room = self.packed.is_some() || !self.full;
        if !room || body.len() > format::SESSION_BODY_MAX as usize {
            return Ok(());
        }
        let record = state::session_record(session, kind, root, body);
        let position = self.handle.with_state(State::position);
        let note = epoch::session_note(position, &record);
        match self.note(format::NOTE_SESSION_RECORD, note) {
            // The record itself is what counts.
            Err(error) if error.is_full() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Blocks from here on carry no session's id, without a record that says so: the next writer may go on with it.
    pub fn leave_session(&mut self) {
        self.session = SessionId::ZERO;
    }

    fn session_record(
        &mut self,
        session: SessionId,
        kind: u8,
        root: Option<Key>,
        body: &[u8],
    ) -> Result<()> {
        if body.len() > format::SESSION_BODY_MAX as usize {
            let (len, max) = (body.len() as u64, format::SESSION_BODY_MAX.into());
            return Err(Error::TooLong {
                what: "a session's description",
                len,
                max,
            });
        }
        self.commit_with(|_| vec![state::session_record(session, kind, root, body)])
    }
}
