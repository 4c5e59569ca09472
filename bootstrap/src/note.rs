//! Signed notes (C2SP signed-note): a text, a blank line, signature lines.
//!
//! Invariants
//! - A [`Note`] has a text that ends in a newline and at least one signature
//!   line; what [`Note::parse`] accepts, [`Note`]'s `Display` writes again byte for byte.
//! - A signature counts only by a key that the caller knows, found by name and key
//!   hash; a signature by such a key that does not verify refuses the whole note.
//! - However often a key signs, it counts once.
//!
//! Stricter than the specification: no control characters at all, base64 in its
//! one canonical form, a ceiling on length and signatures. The latter holds what a
//! domain may ask for (64 witnesses) and the keys of its log.
//!
//! Nothing here touches a file; a crash leaves nothing.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::id::sha256;
use crate::key::{ALG_ED25519, KeyError, PublicKey, Signer};

#[cfg(test)]
mod tests;

/// Bytes that a note may have.
pub const NOTE_LEN_MAX: usize = 128 << 10;
/// Signature lines that a note may have. The specification asks for at least 16.
pub const SIGNATURES_MAX: usize = 72;
/// Latest time of a cosignature, in seconds since 1970.
pub const TIME_MAX: u64 = i64::MAX as u64;

/// What begins a signature line: an em dash and a space.
const PREFIX: &str = "\u{2014} ";

/// Why a note, a signature or a note key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Longer than [`NOTE_LEN_MAX`].
    #[error("the note has {len} bytes, more than {NOTE_LEN_MAX}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not UTF-8.
    #[error("the note is not UTF-8 text: byte {offset} is wrong")]
    NotText {
        /// The first bad byte.
        offset: usize,
    },
    /// A control character other than newline.
    #[error("the note has a control character at byte {offset}")]
    Control {
        /// Where.
        offset: usize,
    },
    /// Text that does not end in a newline.
    #[error("the note does not end in a newline")]
    Unfinished,
    /// No blank line parts text and signatures.
    #[error("the note has no blank line between text and signatures")]
    NoSeparator,
    /// No signature line.
    #[error("the note has no signature")]
    Unsigned,
    /// A line that is no signature line.
    #[error("signature line {number} of the note is malformed")]
    Line {
        /// Ordinal of the line, from 1.
        number: usize,
    },
    /// More than [`SIGNATURES_MAX`] signatures.
    #[error("the note has more than {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// A key name that is empty or has spaces, plus signs or control characters.
    #[error("the name of a note key is empty or has a blank, a plus sign or a control character")]
    Name,
    /// Text that is no note key.
    #[error("the text is not a note key of a known kind")]
    KeyText,
    /// The key hash in a note key's text is not that of name and key.
    #[error("the note key's hash does not belong to its name and key")]
    KeyHash,
    /// The public key itself is refused.
    #[error("the note key is refused")]
    Key(#[from] KeyError),
    /// A known key's signature is wrong.
    #[error("the signature of {signer} on the note is wrong")]
    Signature {
        /// Name and hash of the key.
        signer: KeyName,
    },
    /// No signature by any of the keys asked for.
    #[error("the note is not signed by any of the {known} keys expected")]
    NoKnownSignature {
        /// How many keys were asked for.
        known: usize,
    },
    /// A time that a cosignature cannot state.
    #[error("{time} is no time that a cosignature can state")]
    Time {
        /// Seconds since 1970.
        time: u64,
    },
}

/// What a note key's signatures mean: the type byte of signed-note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Ed25519 over the text (0x01).
    Plain,
    /// Ed25519 over time and text: C2SP tlog-cosignature, `cosignature/v1` (0x04).
    Cosignature,
}

impl Kind {
    /// The type byte.
    pub fn byte(self) -> u8 {
        match self {
            Kind::Plain => 1,
            Kind::Cosignature => 4,
        }
    }

    /// The kind of a type byte.
    pub fn of_byte(byte: u8) -> Option<Self> {
        [Kind::Plain, Kind::Cosignature]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

/// Name and key hash: what a signature line tells of its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    /// The name.
    pub name: String,
    /// The first four bytes of SHA-256 over name, newline, type byte and key.
    pub hash: [u8; 4],
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.name, asl_store::id::hex(&self.hash))
    }
}

/// A public key under the name that it signs notes with.
///
/// As text: `name+hash+base64(type byte ‖ key)`, what the Go library calls a
/// verifier key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    id: KeyName,
    kind: Kind,
    key: PublicKey,
}

impl NoteKey {
    /// Names a key.
    ///
    /// # Errors
    /// [`NoteError::Name`].
    pub fn new(name: &str, kind: Kind, key: PublicKey) -> Result<Self, NoteError> {
        if !valid_name(name) {
            return Err(NoteError::Name);
        }
        let digest = sha256(&[name.as_bytes(), b"\n", &[kind.byte()], key.bytes()]);
        let hash = [digest[0], digest[1], digest[2], digest[3]];
        let name = name.to_owned();
        let id = KeyName { name, hash };
        Ok(Self { id, kind, key })
    }

    /// Name and hash.
    pub fn id(&self) -> &KeyName {
        &self.id
    }

    /// What its signatures mean.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Whether `signature` (what follows the hash in a signature line) is one over
    /// `text`; the time that it states, for a cosignature.
    fn check(&self, text: &str, signature: &[u8]) -> Option<Option<u64>> {
        let (time, signature) = match self.kind {
            Kind::Plain => (None, signature),
            Kind::Cosignature => {
                let (time, signature) = signature.split_first_chunk::<8>()?;
                (Some(u64::from_be_bytes(*time)), signature)
            }
        };
        if time.is_some_and(|time| time > TIME_MAX) {
            return None;
        }
        let signature = signature.try_into().ok()?;
        let message = message(text, time);
        self.key.verify(message.as_bytes(), signature).ok()?;
        Some(time)
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.kind.byte()][..], self.key.bytes()].concat();
        write!(f, "{}+{}", self.id, BASE64.encode(key))
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::KeyText);
        };
        let key = BASE64.decode(key).map_err(|_| NoteError::KeyText)?;
        let Some((byte, key)) = key.split_first() else {
            return Err(NoteError::KeyText);
        };
        let kind = Kind::of_byte(*byte).ok_or(NoteError::KeyText)?;
        let key = key.try_into().map_err(|_| NoteError::KeyText)?;
        let found = Self::new(name, kind, PublicKey::load(ALG_ED25519, key)?)?;
        if asl_store::id::hex(&found.id.hash) != hash {
            return Err(NoteError::KeyHash);
        }
        Ok(found)
    }
}

/// What a key signs: the text, or for a cosignature the time and the text.
fn message(text: &str, time: Option<u64>) -> String {
    match time {
        None => text.to_owned(),
        Some(time) => format!("cosignature/v1\ntime {time}\n{text}"),
    }
}

fn valid_name(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    !name.is_empty() && !name.contains(bad)
}

/// A signature line, verified or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    /// The key that is said to have signed.
    pub key: KeyName,
    /// What follows the key hash: for Ed25519 the 64 bytes of the signature, for a
    /// cosignature the time as 8 bytes, big-endian, before them.
    pub signature: Vec<u8>,
}

impl SignatureLine {
    /// Signs `text` as key `name`.
    ///
    /// # Errors
    /// [`NoteError::Name`].
    pub fn sign(text: &str, name: &str, signer: &Signer) -> Result<Self, NoteError> {
        Self::make(text, name, signer, None)
    }

    /// Cosigns `text`, stating the time, in seconds since 1970.
    ///
    /// What such a line promises (C2SP tlog-cosignature) only [`crate::witness`]
    /// keeps: that is who calls this.
    ///
    /// # Errors
    /// [`NoteError::Name`], [`NoteError::Time`].
    pub(crate) fn cosign(
        text: &str,
        name: &str,
        signer: &Signer,
        time: u64,
    ) -> Result<Self, NoteError> {
        if time > TIME_MAX {
            return Err(NoteError::Time { time });
        }
        Self::make(text, name, signer, Some(time))
    }

    fn make(text: &str, name: &str, signer: &Signer, time: Option<u64>) -> Result<Self, NoteError> {
        let kind = match time {
            None => Kind::Plain,
            Some(_) => Kind::Cosignature,
        };
        let key = NoteKey::new(name, kind, signer.public())?.id;
        let mut signature = time.map_or(Vec::new(), |time| time.to_be_bytes().to_vec());
        signature.extend(signer.sign_bytes(message(text, time).as_bytes()));
        Ok(Self { key, signature })
    }

    /// Reads signature lines, each ended by a newline.
    ///
    /// # Errors
    /// [`NoteError`]: the rules for text, no line, too many, or a malformed one.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, NoteError> {
        Self::parse_text(valid_text(bytes)?)
    }

    fn parse_text(text: &str) -> Result<Vec<Self>, NoteError> {
        if text.is_empty() {
            return Err(NoteError::Unsigned);
        }
        let Some(text) = text.strip_suffix('\n') else {
            return Err(NoteError::Unfinished);
        };
        let mut lines = Vec::new();
        for (line, number) in text.split('\n').zip(1..) {
            if number > SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            lines.push(Self::parse_line(line).ok_or(NoteError::Line { number })?);
        }
        Ok(lines)
    }

    fn parse_line(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_prefix(PREFIX)?.split_once(' ')?;
        if !valid_name(name) {
            return None;
        }
        let signature = BASE64.decode(signature).ok()?;
        let (hash, signature) = signature.split_first_chunk::<4>()?;
        if signature.is_empty() {
            return None;
        }
        let name = name.to_owned();
        let key = KeyName { name, hash: *hash };
        let signature = signature.to_vec();
        Some(Self { key, signature })
    }
}

impl fmt::Display for SignatureLine {
    /// The line with its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = [&self.key.hash[..], &self.signature].concat();
        let signature = BASE64.encode(signature);
        writeln!(f, "{PREFIX}{} {signature}", self.key.name)
    }
}

/// A text with signatures, of which nothing is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

/// A key that has signed a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<'k> {
    /// The key.
    pub key: &'k NoteKey,
    /// The latest time that it states, in seconds since 1970; `None` for
    /// [`Kind::Plain`].
    pub time: Option<u64>,
}

impl Note {
    /// Signs a text.
    ///
    /// # Errors
    /// [`NoteError`]: the rules for text, or [`NoteError::Name`].
    pub fn sign(text: &str, name: &str, signer: &Signer) -> Result<Self, NoteError> {
        valid_text(text.as_bytes())?;
        if !text.ends_with('\n') {
            return Err(NoteError::Unfinished);
        }
        let line = SignatureLine::sign(text, name, signer)?;
        let note = Self {
            text: text.to_owned(),
            signatures: vec![line],
        };
        note.checked()
    }

    /// Reads a note.
    ///
    /// # Errors
    /// [`NoteError`] for everything that is not exactly a note. No signature is
    /// looked at; see [`verify`](Self::verify).
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        let note = valid_text(bytes)?;
        if !note.ends_with('\n') {
            return Err(NoteError::Unfinished);
        }
        let split = note.rfind("\n\n").ok_or(NoteError::NoSeparator)?;
        let signatures = SignatureLine::parse_text(&note[split + 2..])?;
        let text = note[..=split].to_owned();
        Ok(Self { text, signatures })
    }

    /// The text that is signed, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, none of them verified.
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// Adds a signature line in place of all others by the same key.
    ///
    /// # Errors
    /// [`NoteError::TooManySignatures`], [`NoteError::TooLong`].
    pub fn with(mut self, line: SignatureLine) -> Result<Self, NoteError> {
        self.signatures.retain(|known| known.key != line.key);
        self.signatures.push(line);
        self.checked()
    }

    /// The same note with those signatures only that `keep` wants; `None` where it
    /// wants none.
    pub fn with_only(mut self, keep: impl FnMut(&SignatureLine) -> bool) -> Option<Self> {
        self.signatures.retain(keep);
        (!self.signatures.is_empty()).then_some(self)
    }

    fn checked(self) -> Result<Self, NoteError> {
        if self.signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        let len = self.to_string().len();
        if len > NOTE_LEN_MAX {
            return Err(NoteError::TooLong { len });
        }
        Ok(self)
    }

    /// Which of the known keys have signed, each once, in the order of `known`.
    ///
    /// # Errors
    /// [`NoteError::Signature`] where a line names a known key and is wrong,
    /// [`NoteError::NoKnownSignature`].
    pub fn verify<'k>(&self, known: &'k [NoteKey]) -> Result<Vec<Signed<'k>>, NoteError> {
        let mut times = vec![None; known.len()];
        for line in &self.signatures {
            let mut named = false;
            let mut right = false;
            // Key hashes are short: two known keys may share one, and then one of them must have signed.
            for (key, latest) in known.iter().zip(&mut times) {
                if key.id != line.key {
                    continue;
                }
                named = true;
                if let Some(time) = key.check(&self.text, &line.signature) {
                    right = true;
                    *latest = (*latest).max(Some(time));
                }
            }
            if named && !right {
                let signer = line.key.clone();
                return Err(NoteError::Signature { signer });
            }
        }
        let signed: Vec<_> = known
            .iter()
            .zip(times)
            .filter_map(|(key, time)| time.map(|time| Signed { key, time }))
            .collect();
        if signed.is_empty() {
            let known = known.len();
            return Err(NoteError::NoKnownSignature { known });
        }
        Ok(signed)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| line.fmt(f))
    }
}

/// The bytes as text of a note or a part of one.
fn valid_text(bytes: &[u8]) -> Result<&str, NoteError> {
    let len = bytes.len();
    if len > NOTE_LEN_MAX {
        return Err(NoteError::TooLong { len });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| NoteError::NotText {
        offset: error.valid_up_to(),
    })?;
    match text.find(|c: char| c.is_control() && c != '\n') {
        Some(offset) => Err(NoteError::Control { offset }),
        None => Ok(text),
    }
}
