//! The directory of a witness: its memory, its key, and the logs that it trusts.
//!
//! ```text
//! state, state.new, lock, evidence/   the memory, see the sibling module `state`
//! witness.pub                         its note key, for those who want to be watched
//! witness.age                         its private key, a key file of no domain
//! logs                                note keys of the logs that it knows, one a line, sorted
//! ```
//!
//! Invariants
//! - The private key is written last: a directory without it is of nobody, and nothing was ever signed from it.
//! - A key whose memory is gone signs nothing.
//! - A log's key is trusted because the witness's owner said so, never because a question brought it.
//!
//! Crash: `create` leaves no private key and can be repeated, or all of it. `logs` is the old or the new one.

use asl_store::vfs::Vfs;

use super::{Witness, WitnessError};
use crate::checkpoint::Origin;
use crate::error::Result;
use crate::files::{self, Readers};
use crate::id::DomainId;
use crate::key::{PublicKey, Random, Secret, Signer};
use crate::keyfile::{KeyFile, KeyFileError, Role};
use crate::mint::MintError;
use crate::note::{Kind, NoteError, NoteKey, SignatureLine};

/// The private key.
pub const KEY_PATH: &str = "witness.age";
/// The public line.
pub const PUBLIC_PATH: &str = "witness.pub";
/// The logs that are known.
pub const LOGS_PATH: &str = "logs";
/// Keys of logs that are known at most.
pub const LOG_KEYS_MAX: usize = 4096;
const LOGS_LEN_MAX: usize = 1 << 20;

/// A witness with its private key, opened by this process alone.
pub struct Home<'v> {
    vfs: &'v dyn Vfs,
    witness: Witness<'v>,
    signer: Signer,
    logs: Vec<NoteKey>,
}

impl std::fmt::Debug for Home<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Home")
            .field("key", self.witness.key())
            .field("logs", &self.logs)
            .finish_non_exhaustive()
    }
}

impl<'v> Home<'v> {
    /// Makes a witness in the root of `vfs`; its public line.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] where there is one; [`WitnessError`], [`KeyFileError`], [`FileError`](crate::FileError),
    /// [`MintError::Random`].
    pub fn create(
        vfs: &'v dyn Vfs,
        name: &str,
        random: &mut dyn Random,
        passphrase: &str,
    ) -> Result<NoteKey> {
        if vfs.metadata(KEY_PATH).is_ok() {
            let path = KEY_PATH.to_owned();
            return Err(KeyFileError::Exists { path }.into());
        }
        let secret = Secret::generate(random).map_err(MintError::Random)?;
        let key = NoteKey::new(name, Kind::Cosignature, Signer::new(&secret).public())?;
        // The memory of a witness whose key never was.
        files::remove(vfs, "state")?;
        Witness::create(vfs, "", name, key.key())?;
        let line = format!("{key}\n");
        files::replace(vfs, PUBLIC_PATH, Readers::All, line.as_bytes())?;
        let mut keys = KeyFile::new(None);
        keys.add(Role::Witness, &secret);
        keys.create(vfs, KEY_PATH, passphrase)?;
        Ok(key)
    }

    /// Opens the witness in the root of `vfs`.
    ///
    /// # Errors
    /// [`KeyFileError`], a wrong passphrase above all; [`WitnessError`], a lost memory above all.
    pub fn open(vfs: &'v dyn Vfs, passphrase: &str) -> Result<Self> {
        let keys = KeyFile::load(vfs, KEY_PATH, passphrase)?;
        let secret = keys.signers(Role::Witness).next();
        let signer = Signer::new(&secret.ok_or(KeyFileError::Foreign)?.secret());
        let witness = Witness::load(vfs, "", signer.public())?;
        let logs = read_logs(vfs)?;
        Ok(Self {
            vfs,
            witness,
            signer,
            logs,
        })
    }

    /// Name and key under which it cosigns.
    pub fn key(&self) -> &NoteKey {
        self.witness.key()
    }

    /// The logs that it knows, by their keys.
    pub fn logs(&self) -> &[NoteKey] {
        &self.logs
    }

    /// Trusts one more key of a domain's logs, durable when this returns. That a log continues what was cosigned is still asked
    /// for, whichever key signed it.
    ///
    /// # Errors
    /// [`WitnessError::NotALog`], [`WitnessError::TooManyLogs`], [`FileError`](crate::FileError).
    pub fn trust(&mut self, key: &NoteKey) -> Result<()> {
        if domain_of(key).is_none() {
            let key = key.to_string();
            return Err(WitnessError::NotALog { key }.into());
        }
        if self.logs.contains(key) {
            return Ok(());
        }
        if self.logs.len() >= LOG_KEYS_MAX {
            return Err(WitnessError::TooManyLogs.into());
        }
        let mut logs = self.logs.clone();
        logs.push(key.clone());
        logs.sort_by_key(ToString::to_string);
        let lines: String = logs.iter().map(|key| format!("{key}\n")).collect();
        files::replace(self.vfs, LOGS_PATH, Readers::All, lines.as_bytes())?;
        self.logs = logs;
        Ok(())
    }

    /// Answers a question about a log that it knows; see [`Witness::cosign`].
    ///
    /// # Errors
    /// [`WitnessError`].
    pub fn cosign(&mut self, request: &[u8], time: u64) -> Result<SignatureLine, WitnessError> {
        let logs = &self.logs;
        let mut keys_of = |origin: &Origin| -> Vec<PublicKey> {
            let of_domain = |key: &&NoteKey| domain_of(key) == Some(origin.domain);
            logs.iter().filter(of_domain).map(NoteKey::key).collect()
        };
        self.witness
            .cosign(request, &mut keys_of, &self.signer, time)
    }
}

/// The domain whose checkpoints a key signs.
fn domain_of(key: &NoteKey) -> Option<DomainId> {
    let name = &key.id().name;
    let domain: DomainId = name.parse().ok()?;
    // People may write an id in several ways; a note has one.
    (key.kind() == Kind::Plain && domain.to_string() == *name).then_some(domain)
}

fn read_logs(vfs: &dyn Vfs) -> Result<Vec<NoteKey>> {
    let bytes = files::read(vfs, LOGS_PATH, LOGS_LEN_MAX)?.unwrap_or_default();
    let damaged = |line| WitnessError::Damaged {
        path: LOGS_PATH.to_owned(),
        line,
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged(1))?;
    let mut logs: Vec<NoteKey> = Vec::new();
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let key: Result<NoteKey, NoteError> = line.trim_end_matches('\n').parse();
        let key = key.map_err(|_| damaged(number))?;
        let whole = line == format!("{key}\n") && domain_of(&key).is_some();
        if !whole || number > LOG_KEYS_MAX {
            return Err(damaged(number).into());
        }
        logs.push(key);
    }
    Ok(logs)
}

/// Which log a request is about, and how many of its records. Nothing is verified.
///
/// # Errors
/// [`WitnessError`] where the request is malformed.
pub fn origin_of(request: &[u8]) -> Result<(Origin, u64), WitnessError> {
    let request = super::Request::parse(request)?;
    let checkpoint = crate::checkpoint::Checkpoint::parse(request.note.text())?;
    Ok((checkpoint.origin, checkpoint.size))
}
