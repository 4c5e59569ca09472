//! Two histories where there must be one, kept so that somebody can look at them later.
//!
//! A file has one form:
//!
//! ```text
//! asl log fork 1
//! domain <domain id>
//! store <store id>
//! seen <position> <chain>                 what was remembered of the log
//! seen note <checkpoint note in base64>     0 to 8
//! found <position> <chain>                what stands there now, at that position or at the log's end
//! found note <checkpoint note in base64>    0 to 8
//! ```
//!
//! Two checkpoints that one key signed over one size with different roots prove the fork to anybody; chain values
//! alone only to whoever has both logs.

use asl_store::StoreId;
use asl_store::id::hex;
use asl_store::vfs::Vfs;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::LogPin;
use crate::error::Result;
use crate::files::{self, Readers};
use crate::id::{DomainId, sha256};
use crate::note::Note;

/// Files of evidence that are kept: without a limit, whoever shows us forks could fill the disk.
pub const EVIDENCE_MAX: usize = 1024;
/// Checkpoint notes of one history that are kept.
pub const NOTES_MAX: usize = 8;

const DIR: &str = "evidence";

/// One of the two histories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How far.
    pub log: LogPin,
    /// Its newest checkpoints, newest first. No more than [`NOTES_MAX`] are kept.
    pub notes: Vec<Note>,
}

/// Two histories of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The domain.
    pub domain: DomainId,
    /// What was remembered.
    pub seen: Head,
    /// What was found.
    pub found: Head,
}

impl Evidence {
    /// The store instance whose log it is.
    pub fn store(&self) -> StoreId {
        self.seen.log.store
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!(
            "asl log fork 1\ndomain {}\nstore {}\n",
            self.domain,
            self.store()
        );
        for (word, head) in [("seen", &self.seen), ("found", &self.found)] {
            let LogPin {
                position, chain, ..
            } = head.log;
            text.push_str(&format!("{word} {position} {chain}\n"));
            for note in head.notes.iter().take(NOTES_MAX) {
                let note = BASE64.encode(note.to_string());
                text.push_str(&format!("{word} note {note}\n"));
            }
        }
        text.into_bytes()
    }

    /// Where it is kept.
    fn path(&self, bytes: &[u8]) -> String {
        let digest = hex(&sha256(&[bytes]));
        format!("{DIR}/fork-{}-{digest}.txt", self.store())
    }
}

/// Keeps evidence; the caller holds the lock.
pub(super) fn keep(vfs: &dyn Vfs, evidence: &Evidence) -> Result<Option<String>> {
    let bytes = evidence.to_bytes();
    let path = evidence.path(&bytes);
    // Whatever has the name stays, even if somebody changed it.
    if files::read(vfs, &path, 0)?.is_some() {
        return Ok(Some(path));
    }
    let is_evidence = |name: &String| name.starts_with("fork-") && name.ends_with(".txt");
    let kept = files::names(vfs, DIR)?;
    if kept.iter().filter(|name| is_evidence(name)).count() >= EVIDENCE_MAX {
        return Ok(None);
    }
    files::replace(vfs, &path, Readers::Owner, &bytes)?;
    Ok(Some(path))
}
