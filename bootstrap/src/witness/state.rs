//! A witness and its memory.
//!
//! The memory is one text file, `state`:
//!
//! ```text
//! asl witness 1
//! key <note key>
//! log <checkpoint note in base64>      one per origin, sorted by it
//! sum <SHA-256 of everything before this line, in hexadecimal>
//! ```
//!
//! Beside it lie `lock`, `state.new` while the file is replaced, and `evidence/`
//! with what [`Fork`] describes: `fork-<SHA-256>.txt` proves that a log forked,
//! `doubt-<SHA-256>.txt` only that it did not show that it had not.
//!
//! Invariants
//! - A cosignature is made only after a `state` that has its checkpoint was
//!   written beside the old one, synced and renamed, and the directory synced.
//!   Also for a checkpoint that is in `state` already: a process that died may
//!   have left there what no medium has.
//! - A checkpoint in `state` gives way only to one that continues it.
//! - A memory that is missing, damaged or another witness's is never replaced by
//!   an empty one.
//! - One process at a time.
//!
//! Crash: `state` is the old or the new one. The new one without its cosignature
//! is harmless: asking again gives it.

use std::collections::BTreeMap;
use std::io;

use asl_store::id::hex;
use asl_store::vfs::{Access, Vfs, VfsLock, read_exact_at};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Request, WitnessError};
use crate::checkpoint::{Checkpoint, CheckpointError, Origin, SignedCheckpoint};
use crate::id::sha256;
use crate::key::{PublicKey, Signer};
use crate::note::{Kind, Note, NoteKey, SignatureLine};
use crate::tlog::{empty_root, verify_consistency};

/// Logs that a witness remembers.
pub const LOGS_MAX: usize = 4096;
/// Bytes that a state file may have.
const STATE_LEN_MAX: u64 = 16 << 20;
/// Files of evidence of either kind that are kept; more would let anybody who may ask fill the disk.
const EVIDENCE_MAX: usize = 64;
/// Signatures of a checkpoint that are remembered with it.
const REMEMBERED_SIGNATURES_MAX: usize = 8;

const STATE_HEAD: &str = "asl witness 1";
const EVIDENCE_HEAD: &str = "asl fork 1";

/// A witness, opened by this process alone.
pub struct Witness<'v> {
    vfs: &'v dyn Vfs,
    dir: String,
    key: NoteKey,
    logs: BTreeMap<Origin, Remembered>,
    _lock: Box<dyn VfsLock>,
}

/// The newest checkpoint of a log that was, or was about to be, cosigned.
#[derive(Clone)]
struct Remembered {
    checkpoint: Checkpoint,
    /// With signatures of the log only.
    note: Note,
}

/// Two checkpoints of one log of which one was cosigned and the other refused.
///
/// As a file: `asl fork 1`, `first <bytes>`, then both notes, of which the first
/// has that many bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The one that was cosigned.
    pub cosigned: Note,
    /// The one that was refused.
    pub refused: Note,
}

impl Fork {
    /// Reads a file of evidence; `None` where it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(EVIDENCE_HEAD.as_bytes())?;
        let rest = rest.strip_prefix(b"\nfirst ")?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let len: usize = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        let (cosigned, refused) = rest[end + 1..].split_at_checked(len)?;
        Some(Self {
            cosigned: Note::parse(cosigned).ok()?,
            refused: Note::parse(refused).ok()?,
        })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { cosigned, refused } = self;
        let cosigned = cosigned.to_string();
        let len = cosigned.len();
        format!("{EVIDENCE_HEAD}\nfirst {len}\n{cosigned}{refused}").into_bytes()
    }

    /// Whether the two alone prove that the log forked: both signed by one of
    /// `keys`, the same size, different roots. Else they are a reason to look at
    /// the log itself.
    ///
    /// # Errors
    /// [`CheckpointError`] where one of them is not a checkpoint of `origin` signed
    /// by one of `keys`: then they say nothing about it.
    pub fn is_proof(&self, origin: &Origin, keys: &[PublicKey]) -> Result<bool, CheckpointError> {
        let cosigned = SignedCheckpoint::of_note(self.cosigned.clone(), origin, keys)?;
        let refused = SignedCheckpoint::of_note(self.refused.clone(), origin, keys)?;
        let (cosigned, refused) = (cosigned.checkpoint(), refused.checkpoint());
        Ok(cosigned.size == refused.size && cosigned.root != refused.root)
    }
}

impl<'v> Witness<'v> {
    /// Makes a witness without memory in directory `dir` of `vfs` (`""` for the
    /// root), which is created where it is missing; its parent must exist.
    ///
    /// # Errors
    /// [`WitnessError::Exists`], [`WitnessError::Busy`], `Note`, `Io`. After `Io`, make
    /// it in another directory: a name whose sync failed may be gone after a
    /// power cut although later syncs succeed, and the memory with it.
    pub fn create(
        vfs: &'v dyn Vfs,
        dir: &str,
        name: &str,
        key: PublicKey,
    ) -> Result<Self, WitnessError> {
        let key = NoteKey::new(name, Kind::Cosignature, key)?;
        if !dir.is_empty() {
            vfs.create_dir(dir)
                .map_err(WitnessError::io("create", dir))?;
            let parent = dir.rsplit_once('/').map_or("", |(parent, _)| parent);
            vfs.sync_dir(parent)
                .map_err(WitnessError::io("sync", parent))?;
        }
        let witness = Self {
            vfs,
            dir: dir.to_owned(),
            key,
            logs: BTreeMap::new(),
            _lock: lock(vfs, dir)?,
        };
        let path = witness.path("state");
        match vfs.metadata(&path) {
            Ok(_) => return Err(WitnessError::Exists { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(WitnessError::io("read", &path)(error)),
        }
        witness.write(&witness.logs)?;
        Ok(witness)
    }

    /// Opens the witness in directory `dir`.
    ///
    /// # Errors
    /// [`WitnessError::NoState`], `Damaged`, `OtherWitness`, `Busy`, `Note`, `Io`.
    pub fn open(
        vfs: &'v dyn Vfs,
        dir: &str,
        name: &str,
        key: PublicKey,
    ) -> Result<Self, WitnessError> {
        let expected = NoteKey::new(name, Kind::Cosignature, key)?;
        let witness = Self::load(vfs, dir, key)?;
        match witness.key == expected {
            true => Ok(witness),
            false => Err(WitnessError::OtherWitness {
                expected: expected.to_string(),
                found: witness.key.to_string(),
            }),
        }
    }

    /// Opens the witness in directory `dir` under the name that its memory has.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn load(vfs: &'v dyn Vfs, dir: &str, key: PublicKey) -> Result<Self, WitnessError> {
        let path = join(dir, "state");
        // Before the lock, which would leave a file where there is no witness.
        vfs.metadata(&path).map_err(no_state(&path))?;
        let lock = lock(vfs, dir)?;
        let file = vfs.open(&path, Access::Read).map_err(no_state(&path))?;
        let len = file.len().map_err(WitnessError::io("read", &path))?;
        if len > STATE_LEN_MAX {
            return Err(WitnessError::Damaged { path, line: 1 });
        }
        let mut bytes = vec![0; len as usize];
        read_exact_at(&*file, 0, &mut bytes).map_err(WitnessError::io("read", &path))?;
        let (found, logs) = decode(&bytes).map_err(|line| WitnessError::Damaged { path, line })?;
        if found.key() != key || found.kind() != Kind::Cosignature {
            let name = &found.id().name;
            return Err(WitnessError::OtherWitness {
                expected: NoteKey::new(name, Kind::Cosignature, key)?.to_string(),
                found: found.to_string(),
            });
        }
        Ok(Self {
            vfs,
            dir: dir.to_owned(),
            key: found,
            logs,
            _lock: lock,
        })
    }

    /// Name and key under which it cosigns.
    pub fn key(&self) -> &NoteKey {
        &self.key
    }

    /// The newest checkpoints that it may have cosigned, by origin.
    pub fn latest(&self) -> impl Iterator<Item = &Checkpoint> {
        self.logs.values().map(|log| &log.checkpoint)
    }

    /// Answers a request: the signature line to hand back.
    ///
    /// `keys_of` gives the checkpoint keys that the witness trusts for a log, none
    /// for a log that it does not know. `time` is in seconds since 1970.
    ///
    /// # Errors
    /// [`WitnessError`]. After `Io` too no cosignature exists, and the witness can
    /// be asked again.
    pub fn cosign(
        &mut self,
        request: &[u8],
        keys_of: &mut dyn FnMut(&Origin) -> Vec<PublicKey>,
        signer: &Signer,
        time: u64,
    ) -> Result<SignatureLine, WitnessError> {
        if signer.public() != self.key.key() {
            return Err(WitnessError::WrongKey);
        }
        let Request { old, proof, note } = Request::parse(request)?;
        let origin = Checkpoint::parse(note.text())?.origin;
        let keys = keys_of(&origin);
        if keys.is_empty() {
            let origin = Box::new(origin);
            return Err(WitnessError::UnknownLog { origin });
        }
        let signed = SignedCheckpoint::of_note(note, &origin, &keys)?;
        let checkpoint = *signed.checkpoint();
        let known = self.logs.get(&origin);
        if known.is_none() && self.logs.len() == LOGS_MAX {
            return Err(WitnessError::TooManyLogs);
        }
        let (cosigned, root) = match known {
            Some(known) => (known.checkpoint.size, known.checkpoint.root),
            None => (0, empty_root()),
        };
        let size = checkpoint.size;
        // First of all, whatever the request says of itself: two trees of one size need no proof.
        if let Some(known) = known
            && size == cosigned
            && checkpoint.root != root
        {
            let evidence = self.keep_evidence("fork", known, signed.note());
            return Err(WitnessError::Forked { size, evidence });
        }
        if old != cosigned {
            return Err(WitnessError::Stale {
                size,
                old,
                cosigned,
            });
        }
        if let Err(source) = verify_consistency(old, &root, size, &checkpoint.root, &proof) {
            // A checkpoint that is smaller or comes without a proof is only a useless question.
            let evidence = match known {
                Some(known) if size > cosigned => self.keep_evidence("doubt", known, signed.note()),
                _ => None,
            };
            return Err(WitnessError::Inconsistent {
                size,
                cosigned,
                evidence,
                source,
            });
        }
        let line = SignatureLine::cosign(signed.note().text(), &self.key.id().name, signer, time)?;
        let note = remembered_note(&signed);
        let mut logs = self.logs.clone();
        logs.insert(origin, Remembered { checkpoint, note });
        self.write(&logs)?;
        self.logs = logs;
        Ok(line)
    }

    /// Writes the memory so that it survives whatever happens next.
    fn write(&self, logs: &BTreeMap<Origin, Remembered>) -> Result<(), WitnessError> {
        self.replace(&self.path("state"), &encode(&self.key, logs))
    }

    /// Keeps two checkpoints that do not go together; the path, or `None` where
    /// there is enough evidence already or no room for it. The refusal is what
    /// matters, so a failure here is none of the request.
    fn keep_evidence(&self, kind: &str, cosigned: &Remembered, refused: &Note) -> Option<String> {
        let fork = Fork {
            cosigned: cosigned.note.clone(),
            refused: refused.clone(),
        };
        let bytes = fork.to_bytes();
        let name = format!("{kind}-{}.txt", hex(&sha256(&[&bytes])));
        let dir = self.path("evidence");
        let path = join(&dir, &name);
        self.vfs.create_dir(&dir).ok()?;
        self.vfs.sync_dir(&self.dir).ok()?;
        let mut kept = self.vfs.list(&dir).ok()?;
        // Doubts are cheap to cause; they must not keep out proofs.
        kept.retain(|entry| entry.name.starts_with(kind));
        let known = kept.iter().any(|entry| entry.name == name);
        if !known && kept.len() >= EVIDENCE_MAX {
            return None;
        }
        self.replace(&path, &bytes).ok()?;
        Some(path)
    }

    /// Replaces a file, durably.
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), WitnessError> {
        let scratch = format!("{path}.new");
        match self.vfs.remove(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(WitnessError::io("remove", &scratch)(error));
            }
            _ => {}
        }
        let file = self.vfs.create_exclusive(&scratch);
        let file = file.map_err(WitnessError::io("create", &scratch))?;
        file.write_at(0, &[bytes])
            .map_err(WitnessError::io("write", &scratch))?;
        file.sync().map_err(WitnessError::io("sync", &scratch))?;
        drop(file);
        self.vfs
            .rename(&scratch, path)
            .map_err(WitnessError::io("rename", &scratch))?;
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        self.vfs
            .sync_dir(dir)
            .map_err(WitnessError::io("sync", dir))
    }

    fn path(&self, name: &str) -> String {
        join(&self.dir, name)
    }
}

fn join(dir: &str, name: &str) -> String {
    let slash = if dir.is_empty() { "" } else { "/" };
    format!("{dir}{slash}{name}")
}

fn lock(vfs: &dyn Vfs, dir: &str) -> Result<Box<dyn VfsLock>, WitnessError> {
    let path = join(dir, "lock");
    let lock = vfs.lock(&path).map_err(WitnessError::io("lock", &path))?;
    lock.ok_or(WitnessError::Busy)
}

fn no_state(path: &str) -> impl FnOnce(io::Error) -> WitnessError {
    let path = path.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::NotFound => WitnessError::NoState { path },
        _ => WitnessError::io("open", &path)(error),
    }
}

/// The checkpoint with what makes it evidence: its log's signatures.
fn remembered_note(signed: &SignedCheckpoint) -> Note {
    let by_log =
        |key: &PublicKey| crate::checkpoint::log_key(&signed.checkpoint().origin.domain, *key);
    let keys: Vec<NoteKey> = signed.signers().iter().map(by_log).collect();
    let mut kept = 0;
    let keep = |line: &SignatureLine| {
        let keep = kept < REMEMBERED_SIGNATURES_MAX && keys.iter().any(|key| *key.id() == line.key);
        kept += usize::from(keep);
        keep
    };
    let note = signed.note().clone().with_only(keep);
    note.expect("a signed checkpoint has a signature of its log")
}

fn encode(key: &NoteKey, logs: &BTreeMap<Origin, Remembered>) -> Vec<u8> {
    let mut text = format!("{STATE_HEAD}\nkey {key}\n");
    for log in logs.values() {
        let note = BASE64.encode(log.note.to_string());
        text.push_str(&format!("log {note}\n"));
    }
    let sum = hex(&sha256(&[text.as_bytes()]));
    text.push_str(&format!("sum {sum}\n"));
    text.into_bytes()
}

/// Key and logs of a state file, or the number of the first line that is wrong.
fn decode(bytes: &[u8]) -> Result<(NoteKey, BTreeMap<Origin, Remembered>), usize> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    })?;
    let lines: Vec<&str> = text.split('\n').collect();
    let [head, key, logs @ .., sum, ""] = &lines[..] else {
        return Err(lines.len());
    };
    let last = lines.len() - 1;
    // The sum first: what it does not cover is not looked at.
    let body = &text[..text.len() - sum.len() - 1];
    if **sum != format!("sum {}", hex(&sha256(&[body.as_bytes()]))) {
        return Err(last);
    }
    if *head != STATE_HEAD {
        return Err(1);
    }
    let key: NoteKey = key
        .strip_prefix("key ")
        .and_then(|key| key.parse().ok())
        .ok_or(2_usize)?;
    let mut found = BTreeMap::new();
    for (line, number) in logs.iter().zip(3..) {
        let log = decode_log(line).ok_or(number)?;
        if let Some((newest, _)) = found.last_key_value()
            && *newest >= log.checkpoint.origin
        {
            return Err(number);
        }
        found.insert(log.checkpoint.origin, log);
    }
    if found.len() > LOGS_MAX {
        return Err(last);
    }
    Ok((key, found))
}

fn decode_log(line: &str) -> Option<Remembered> {
    let note = BASE64.decode(line.strip_prefix("log ")?).ok()?;
    let note = Note::parse(&note).ok()?;
    let checkpoint = Checkpoint::parse(note.text()).ok()?;
    Some(Remembered { checkpoint, note })
}
