//! The end of a capture: its receipt, signed where the key is at hand, and a checkpoint over it.
//!
//! A capture runs for thirty hours and no key stays unlocked for it. The passphrase is read and the keys are opened when it has
//! ended, and dropped with this.
//!
//! Crash, or a store that another program took meanwhile: the capture is whole in the store, and `asl domain attest` does the rest.

use std::path::Path;

use asl_bootstrap::attest::{self, Received};
use asl_bootstrap::mint::{self, Attested, Done};
use asl_bootstrap::policy::Event;
use asl_bootstrap::{Domain, Error};
use asl_store::{SessionId, StoreHandle};
use serde::Serialize;

use super::domain;
use crate::error::Result;
use crate::face::{Face, home_of};

/// What became of a capture's receipt.
#[derive(Debug, Clone, Serialize)]
pub struct SignedOff {
    /// The receipt artifact; none where the capture is not finished.
    pub receipt: Option<String>,
    /// Whether it is signed.
    pub signed: bool,
    /// Records under a signed checkpoint, where one was made.
    pub checkpointed_position: Option<u64>,
}

/// Makes the receipt of a session, and signs it and the log where a passphrase is given. `None` where the store has no domain.
///
/// # Errors
/// What was asked for could not be done; the capture itself is safe.
pub(super) fn sign_off(
    face: &Face,
    session: SessionId,
    passphrase_file: Option<&Path>,
) -> Result<Option<SignedOff>> {
    let action = "make the receipt of the capture";
    let (path, vfs) = face.store_files()?;
    let of_store = |error: asl_store::Error| domain::failed(action, path, &error.into());
    let store = StoreHandle::open_at_home(vfs, home_of(path).as_ref()).map_err(of_store)?;
    let failed = |error: &Error| domain::failed(action, path, error);
    let mut sessions = domain::done(path, &store)?;
    sessions.retain(|done: &Done| done.session == session);
    if passphrase_file.is_none() {
        let found = Domain::read(&store).map_err(|error| failed(&error))?;
        if found.is_none() || sessions.is_empty() {
            return Ok(None);
        }
    }
    drop(store);
    let (path, mut writer, keys) = domain::writer_with_keys(face, action, passphrase_file)?;
    let signed_off = match &keys {
        Some(keys) => {
            let attested = mint::attest(&mut writer, keys, &sessions);
            let attested = attested.map_err(|error| failed(&error))?;
            let receipt = attested.iter().find_map(|attested| match attested {
                Attested::Signed { receipt, .. } | Attested::Already { receipt } => Some(*receipt),
                Attested::NotInLog => None,
            });
            let made = mint::checkpoint(&mut writer, keys).map_err(|error| failed(&error))?;
            SignedOff {
                receipt: receipt.map(|key| key.to_string()),
                signed: receipt.is_some(),
                checkpointed_position: Some(made.size()),
            }
        }
        None => {
            let received = attest::receive(&mut writer, &sessions);
            let received = received.map_err(|error| failed(&error))?;
            let receipt = received.iter().find_map(|received| match received {
                Received::Made { receipt } | Received::Already { receipt } => Some(*receipt),
                Received::NotInLog => None,
            });
            if receipt.is_some() {
                domain::warn_of_checkpoint(face, path, writer.handle(), Event::CaptureEnd);
            }
            SignedOff {
                receipt: receipt.map(|key| key.to_string()),
                signed: false,
                checkpointed_position: None,
            }
        }
    };
    drop(keys);
    face.finish(path, writer)?;
    Ok(Some(signed_off))
}
