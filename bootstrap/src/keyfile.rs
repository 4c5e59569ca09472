//! Private keys at rest: a file of stock `age`, encrypted to a passphrase.
//!
//! Whoever knows the passphrase gets the keys back with `age --decrypt` and no program of ours: the text inside has
//! one line for the domain and one for each key,
//!
//! ```text
//! asl keys 1
//! domain asl1…
//! key root ed25519 <key id, 64 hexadecimal digits> <seed, 64 hexadecimal digits>
//! ```
//!
//! Invariants
//! - The scrypt work factor is pinned at 2^16 (64 MiB), not measured: what a workstation finds quick may not fit in the memory of a
//!   rescue system. A file that asks for more than 2^18 is refused before any of it is done.
//! - Nothing is written in the clear: the text exists in wiped memory only.
//! - The text has one form; ids are recomputed from the seeds.
//!
//! Crash: a new file is complete and durable under another name before it takes its own. What stays behind under
//! `<name>.new` is encrypted, and replaced by the next writing.

use std::fmt;
use std::io::{self, Read, Write};

use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, armor::ArmoredReader, scrypt};
use asl_store::id::{hex, unhex};
use asl_store::vfs::{Access, Vfs, read_exact_at};
use zeroize::Zeroizing;

use crate::files::{self, FileError, Readers};
use crate::id::{DomainId, KeyId};
use crate::key::{Secret, Signer};

/// Directory of private keys, below a store's root; neither artifacts nor synced.
pub const PRIVATE_DIR: &str = "meta/keys/priv";
/// Work factor of files that are written, as a power of two: 64 MiB of memory.
pub const WORK_FACTOR: u8 = 16;
/// The highest work factor of files that are read: 256 MiB, the default of stock `age`.
pub const WORK_FACTOR_MAX: u8 = 18;
/// The longest key file in bytes.
pub const KEY_FILE_LEN_MAX: usize = 64 << 10;
/// Most keys in one file.
pub const KEYS_MAX: usize = 64;

const FIRST_LINE: &str = "asl keys 1\n";
const BINARY_INTRO: &[u8] = b"age-encryption.org/";
const V1_INTRO: &[u8] = b"age-encryption.org/v1\n";
const ARMOR_INTRO: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// Longest line: `key checkpoint ed25519`, two times 64 digits, blanks.
const LINE_LEN_MAX: usize = 160;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Signs authority manifests.
    Root,
    /// Signs what this host produces: receipts.
    Host,
    /// Signs checkpoints of the log.
    Checkpoint,
    /// Cosigns other people's checkpoints.
    Witness,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Root, Self::Host, Self::Checkpoint, Self::Witness];

    /// Its word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Host => "host",
            Self::Checkpoint => "checkpoint",
            Self::Witness => "witness",
        }
    }
}

/// A key file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The filesystem refused.
    #[error("cannot {action} {path}")]
    Io {
        /// The verb.
        action: &'static str,
        /// The file, relative to the store.
        path: String,
        /// The errno.
        source: io::Error,
    },
    /// There is one already, and it must not be overwritten.
    #[error("{path} exists already: a key file is never overwritten unasked")]
    Exists {
        /// The file, relative to the store.
        path: String,
    },
    /// Nothing is encrypted to nothing.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The encryption could not get its randomness or memory.
    #[error("the keys cannot be encrypted")]
    Encrypt(#[source] io::Error),
    /// Longer than any key file.
    #[error("{len} bytes are too many for a key file: at most {KEY_FILE_LEN_MAX}")]
    TooLong {
        /// Length in bytes.
        len: u64,
    },
    /// Not a file of `age` at all, or of a version of it that is not known.
    #[error("this is not an age file")]
    NotAge,
    /// Encrypted to somebody's key, so that no passphrase opens it.
    #[error("this age file is encrypted to a key, not to a passphrase")]
    NotPassphrase,
    /// Asks for more work than any file of ours.
    #[error(
        "the key file asks for 2^{asked} units of work where at most 2^{WORK_FACTOR_MAX} are done"
    )]
    Work {
        /// The work factor that it asks for, as a power of two.
        asked: u8,
    },
    /// The passphrase does not open it. Damage to the few bytes that hold the wrapped key looks the same.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// Cut off, changed or written over.
    #[error("the key file is damaged")]
    Damaged,
    /// Whole and opened, but with something else inside.
    #[error("the file was opened, but it does not hold keys of a domain")]
    Foreign,
    /// Whole and opened, written by a newer program.
    #[error("the key file is of a newer version than this program knows")]
    Newer,
    /// Whole and opened, but not in the form that this program writes.
    #[error("line {line} of the opened key file is not as it should be")]
    Malformed {
        /// The line, from 1.
        line: usize,
    },
    /// A key whose id is that of another seed.
    #[error("line {line} of the opened key file states another key id than its seed has")]
    KeyId {
        /// The line, from 1.
        line: usize,
    },
    /// The keys of another domain.
    #[error("the key file is of domain {found}, not of {expected}")]
    OtherDomain {
        /// The domain that was asked for.
        expected: DomainId,
        /// The domain whose keys these are.
        found: DomainId,
    },
}

impl From<FileError> for KeyFileError {
    fn from(error: FileError) -> Self {
        Self::Io {
            action: error.action,
            path: error.path,
            source: error.source,
        }
    }
}

/// One private key and what it is for.
pub struct KeyEntry {
    /// What it is for.
    pub role: Role,
    signer: Signer,
}

impl KeyEntry {
    /// The key pair.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }
}

/// Private keys in memory; the seeds are wiped when dropped.
pub struct KeyFile {
    domain: Option<DomainId>,
    keys: Vec<KeyEntry>,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(|key| (key.role, key.signer.id()));
        f.debug_struct("KeyFile")
            .field("domain", &self.domain)
            .field("keys", &keys.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Where the key file of a domain lies, below the store's root.
pub fn key_file_path(domain: &DomainId) -> String {
    format!("{PRIVATE_DIR}/{domain}.age")
}

impl KeyFile {
    /// No keys yet. A witness serves many domains: its file names none.
    pub fn new(domain: Option<DomainId>) -> Self {
        Self {
            domain,
            keys: Vec::new(),
        }
    }

    /// The domain whose keys these are.
    pub fn domain(&self) -> Option<DomainId> {
        self.domain
    }

    /// The keys, in the order of the file.
    pub fn keys(&self) -> &[KeyEntry] {
        &self.keys
    }

    /// Adds a key unless it is there for this purpose already.
    ///
    /// # Panics
    /// Beyond [`KEYS_MAX`] keys: a domain has a handful.
    pub fn add(&mut self, role: Role, secret: &Secret) {
        assert!(
            self.keys.len() < KEYS_MAX,
            "a key file has at most {KEYS_MAX} keys"
        );
        let signer = Signer::new(secret);
        if !self.has(role, &signer.id()) {
            self.keys.push(KeyEntry { role, signer });
        }
    }

    /// Whether `more` keys can be added.
    pub fn has_room(&self, more: usize) -> bool {
        self.keys.len() + more <= KEYS_MAX
    }

    /// Takes out every key of an id.
    pub fn remove(&mut self, id: &KeyId) {
        self.keys.retain(|key| key.signer.id() != *id);
    }

    /// The key pairs for a purpose.
    pub fn signers(&self, role: Role) -> impl Iterator<Item = &Signer> {
        let of_role = self.keys.iter().filter(move |key| key.role == role);
        of_role.map(|key| &key.signer)
    }

    /// The key pair of an id, whatever it is for.
    pub fn signer(&self, id: &KeyId) -> Option<&Signer> {
        let mut signers = self.keys.iter().map(|key| &key.signer);
        signers.find(|signer| signer.id() == *id)
    }

    fn has(&self, role: Role, id: &KeyId) -> bool {
        self.signers(role).any(|signer| signer.id() == *id)
    }

    /// Makes sure that these are the keys of `expected`.
    ///
    /// # Errors
    /// [`KeyFileError::OtherDomain`]; [`KeyFileError::Foreign`] for the file of a witness.
    pub fn require_domain(&self, expected: &DomainId) -> Result<(), KeyFileError> {
        match self.domain {
            Some(found) if found == *expected => Ok(()),
            Some(found) => Err(KeyFileError::OtherDomain {
                expected: *expected,
                found,
            }),
            None => Err(KeyFileError::Foreign),
        }
    }

    /// The text of the file.
    fn text(&self) -> Zeroizing<String> {
        // With room for all of it, so that it never moves and leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(LINE_LEN_MAX * (2 + self.keys.len())));
        text.push_str(FIRST_LINE);
        text.push_str("domain ");
        match &self.domain {
            Some(domain) => text.push_str(&domain.to_string()),
            None => text.push('-'),
        }
        text.push('\n');
        for KeyEntry { role, signer } in &self.keys {
            text.push_str("key ");
            text.push_str(role.word());
            text.push_str(" ed25519 ");
            text.push_str(&signer.id().to_string());
            text.push(' ');
            text.push_str(&Zeroizing::new(hex(signer.secret().seed())));
            text.push('\n');
        }
        text
    }

    /// Reads what [`KeyFile::text`] wrote, and nothing else.
    fn parse(text: &str) -> Result<Self, KeyFileError> {
        let Some(rest) = text.strip_prefix(FIRST_LINE) else {
            let newer = text.strip_prefix("asl keys ").is_some_and(|rest| {
                rest.split('\n')
                    .next()
                    .is_some_and(|version| version.parse::<u32>().is_ok())
            });
            return Err(match newer {
                true => KeyFileError::Newer,
                false => KeyFileError::Foreign,
            });
        };
        let malformed = |line| KeyFileError::Malformed { line };
        let mut lines = rest.split_inclusive('\n').zip(2..);
        let domain = lines
            .next()
            .and_then(|(line, _)| line.strip_prefix("domain ")?.strip_suffix('\n'))
            .ok_or(malformed(2))?;
        let mut file = Self::new(match domain {
            "-" => None,
            id => Some(id.parse().map_err(|_| malformed(2))?),
        });
        for (line, at) in lines {
            if file.keys.len() == KEYS_MAX {
                return Err(malformed(at));
            }
            let (role, id, secret) = parse_key(line).ok_or(malformed(at))?;
            if Signer::new(&secret).id() != id {
                return Err(KeyFileError::KeyId { line: at });
            }
            if file.has(role, &id) {
                return Err(malformed(at));
            }
            file.add(role, &secret);
        }
        let written = file.text();
        if *written != *text {
            let pairs = written.split('\n').zip(text.split('\n')).zip(1..);
            let differs = pairs.filter(|((ours, theirs), _)| ours != theirs);
            return Err(malformed(differs.map(|(_, line)| line).next().unwrap_or(1)));
        }
        Ok(file)
    }

    /// Encrypts the keys.
    ///
    /// # Errors
    /// [`KeyFileError::EmptyPassphrase`], [`KeyFileError::Encrypt`].
    pub fn seal(&self, passphrase: &str) -> Result<Vec<u8>, KeyFileError> {
        seal_text(&self.text(), passphrase, work_factor())
    }

    /// Opens what [`KeyFile::seal`] or stock `age --passphrase` wrote, in binary or armored form.
    ///
    /// # Errors
    /// [`KeyFileError`]: a wrong passphrase, a damaged file and a foreign one are told apart.
    pub fn open(bytes: &[u8], passphrase: &str) -> Result<Self, KeyFileError> {
        let plain = open_text(bytes, passphrase)?;
        let text = std::str::from_utf8(&plain).map_err(|_| KeyFileError::Foreign)?;
        Self::parse(text)
    }

    /// Encrypts the keys and writes them as a new file, durable when this returns.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] where there is one: the keys in it may be the only ones.
    pub fn create(&self, vfs: &dyn Vfs, path: &str, passphrase: &str) -> Result<(), KeyFileError> {
        match vfs.metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("look for", path)(error)),
            Ok(_) => {
                return Err(KeyFileError::Exists {
                    path: path.to_owned(),
                });
            }
        }
        self.replace(vfs, path, passphrase)
    }

    /// Encrypts the keys and writes them in place of a file that may be there: one or the other is whole at any moment.
    ///
    /// # Errors
    /// [`KeyFileError`]: the old file is untouched then.
    pub fn replace(&self, vfs: &dyn Vfs, path: &str, passphrase: &str) -> Result<(), KeyFileError> {
        let sealed = self.seal(passphrase)?;
        write_private(vfs, path, &sealed)
    }

    /// Reads and opens a key file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load(vfs: &dyn Vfs, path: &str, passphrase: &str) -> Result<Self, KeyFileError> {
        let file = vfs
            .open(path, Access::Read)
            .map_err(io_error("open", path))?;
        let len = file.len().map_err(io_error("read", path))?;
        if len > KEY_FILE_LEN_MAX as u64 {
            return Err(KeyFileError::TooLong { len });
        }
        let mut bytes = vec![0; len as usize];
        read_exact_at(&*file, 0, &mut bytes).map_err(io_error("read", path))?;
        Self::open(&bytes, passphrase)
    }
}

fn parse_key(line: &str) -> Option<(Role, KeyId, Secret)> {
    let mut words = line.strip_prefix("key ")?.strip_suffix('\n')?.split(' ');
    let role = words.next()?;
    let role = Role::ALL.into_iter().find(|known| known.word() == role)?;
    if words.next() != Some("ed25519") {
        return None;
    }
    let id = words.next()?.parse().ok()?;
    let seed = Zeroizing::new(unhex(words.next()?)?);
    words
        .next()
        .is_none()
        .then(|| (role, id, Secret::from_seed(seed)))
}

/// The pinned one. Tests that write many files may lower it for themselves ([`tests::Cheap`]).
fn work_factor() -> u8 {
    #[cfg(test)]
    if tests::Cheap::is_on() {
        return tests::QUICK;
    }
    WORK_FACTOR
}

fn seal_text(text: &str, passphrase: &str, work_factor: u8) -> Result<Vec<u8>, KeyFileError> {
    if passphrase.is_empty() {
        return Err(KeyFileError::EmptyPassphrase);
    }
    let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase));
    recipient.set_work_factor(work_factor);
    let encryptor = Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
        .map_err(|error| KeyFileError::Encrypt(io::Error::other(error)))?;
    let mut sealed = Vec::new();
    let mut writer = encryptor
        .wrap_output(&mut sealed)
        .map_err(KeyFileError::Encrypt)?;
    writer
        .write_all(text.as_bytes())
        .map_err(KeyFileError::Encrypt)?;
    writer.finish().map_err(KeyFileError::Encrypt)?;
    Ok(sealed)
}

fn open_text(bytes: &[u8], passphrase: &str) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    if bytes.len() > KEY_FILE_LEN_MAX {
        let len = bytes.len() as u64;
        return Err(KeyFileError::TooLong { len });
    }
    // A beginning of the beginning is what a write that was cut off leaves.
    let begins = |intro: &[u8]| intro.starts_with(bytes) || bytes.starts_with(intro);
    if !begins(BINARY_INTRO) && !begins(ARMOR_INTRO) {
        return Err(KeyFileError::NotAge);
    }
    let decryptor = match Decryptor::new(ArmoredReader::new(bytes)) {
        // Also said of a header of version 1 that does not parse, and of one whose end is missing.
        Err(DecryptError::UnknownFormat)
            if !bytes.starts_with(ARMOR_INTRO) && !begins(V1_INTRO) =>
        {
            return Err(KeyFileError::NotAge);
        }
        other => other.map_err(refused)?,
    };
    if !decryptor.is_scrypt() {
        return Err(KeyFileError::NotPassphrase);
    }
    let mut identity = scrypt::Identity::new(SecretString::from(passphrase));
    identity.set_max_work_factor(WORK_FACTOR_MAX);
    let mut reader = decryptor
        .decrypt(std::iter::once(&identity as &dyn age::Identity))
        .map_err(refused)?;
    // No longer than the file: it never has to move.
    let mut plain = Zeroizing::new(Vec::with_capacity(bytes.len() + 1));
    reader
        .read_to_end(&mut plain)
        .map_err(|_| KeyFileError::Damaged)?;
    Ok(plain)
}

fn refused(error: DecryptError) -> KeyFileError {
    match error {
        DecryptError::ExcessiveWork { required, .. } => KeyFileError::Work { asked: required },
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => {
            KeyFileError::WrongPassphrase
        }
        DecryptError::NoMatchingKeys => KeyFileError::NotPassphrase,
        // An invalid header or seal of it, an end too early, and whatever age may add.
        _ => KeyFileError::Damaged,
    }
}

fn io_error(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> KeyFileError + use<> {
    let path = path.to_owned();
    move |source| KeyFileError::Io {
        action,
        path,
        source,
    }
}

/// Writes a file that only its owner may read, where the filesystem knows owners: complete and durable before it has
/// its name.
fn write_private(vfs: &dyn Vfs, path: &str, bytes: &[u8]) -> Result<(), KeyFileError> {
    Ok(files::replace(vfs, path, Readers::Owner, bytes)?)
}

#[cfg(test)]
pub(crate) mod tests;
