//! Names of domains and keys: SHA-256 over a tag and what is named, so that other people's tools can recompute them.
//!
//! A domain id is written as bech32m (BIP 350) with the prefix `asl`: 62 characters with a checksum that finds
//! every mistyped character or two; in hexadecimal it would have none, so it is never shown that way.

use std::fmt;
use std::str::FromStr;

use asl_store::id::{hex, unhex};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Human-readable part of a domain id in text.
const HRP: Hrp = Hrp::parse_unchecked("asl");
/// Characters of a domain id without grouping: `asl`, `1`, 52 of data, 6 of checksum.
const TEXT_LEN: usize = 62;
/// The longest text that is looked at: grouped, with room for stray blanks.
const TEXT_LEN_MAX: usize = 160;

/// SHA-256 over several parts one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Name of a domain: SHA-256 of `"asl.domain.v1\0"` and the stored bytes of its genesis DAM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DomainId(pub [u8; 32]);

/// Text that is not a domain id, and in what way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DomainIdError {
    /// Another number of characters.
    #[error("a domain id has {TEXT_LEN} characters, this has {found}")]
    Length {
        /// Characters found, without blanks and hyphens.
        found: usize,
    },
    /// Not beginning with `asl1`.
    #[error("a domain id begins with asl1")]
    Prefix,
    /// Capitals and small letters in one id: a copying error by the rules of bech32.
    #[error("the domain id mixes capitals and small letters")]
    MixedCase,
    /// A character that bech32 does not use: `1`, `b`, `i`, `o` or something stranger.
    #[error("character {position} of the domain id is never part of one")]
    Character {
        /// Ordinal of the character, from 1, without blanks and hyphens.
        position: usize,
    },
    /// Every character is possible, but at least one is wrong.
    #[error("the checksum of the domain id is wrong: at least one character was mistyped")]
    Checksum,
}

impl DomainId {
    /// The id of the domain that `genesis`, the DAM artifact as stored, founds.
    pub fn of_genesis(genesis: &[u8]) -> Self {
        Self(sha256(&[b"asl.domain.v1\0", genesis]))
    }

    /// The text in groups of four, for people: `asl1 qqqq …`.
    pub fn grouped(&self) -> String {
        let text = self.to_string();
        let mut grouped = String::with_capacity(text.len() + text.len() / 4);
        for (i, c) in text.chars().enumerate() {
            if i > 0 && i % 4 == 0 {
                grouped.push(' ');
            }
            grouped.push(c);
        }
        grouped
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            bech32::encode::<Bech32m>(HRP, &self.0).expect("32 bytes are within bech32m's length");
        f.write_str(&text)
    }
}

impl fmt::Debug for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DomainId({self})")
    }
}

impl FromStr for DomainId {
    type Err = DomainIdError;

    /// Reads a domain id as people write it: blanks and hyphens are ignored, one case throughout.
    fn from_str(text: &str) -> Result<Self, DomainIdError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(DomainIdError::Length {
                found: text.chars().count(),
            });
        }
        let text: String = text
            .chars()
            .filter(|c| !c.is_ascii_whitespace() && *c != '-')
            .collect();
        if !text
            .get(..4)
            .is_some_and(|head| head.eq_ignore_ascii_case("asl1"))
        {
            return Err(DomainIdError::Prefix);
        }
        let found = text.chars().count();
        if found != TEXT_LEN {
            return Err(DomainIdError::Length { found });
        }
        let upper = text.bytes().any(|b| b.is_ascii_uppercase());
        if upper && text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(DomainIdError::MixedCase);
        }
        let allowed = |c: char| "qpzry9x8gf2tvdw0s3jn54khce6mua7l".contains(c.to_ascii_lowercase());
        if let Some(i) = text.chars().skip(4).position(|c| !allowed(c)) {
            return Err(DomainIdError::Character { position: i + 5 });
        }
        let checked =
            CheckedHrpstring::new::<Bech32m>(&text).map_err(|_| DomainIdError::Checksum)?;
        let bytes: Vec<u8> = checked.byte_iter().collect();
        let id = Self(bytes.try_into().map_err(|_| DomainIdError::Checksum)?);
        // 52 characters hold 260 bits: the last four must be zero, or two texts would name one domain.
        if id.to_string() != text.to_ascii_lowercase() {
            return Err(DomainIdError::Checksum);
        }
        Ok(id)
    }
}

macro_rules! digest_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
        impl FromStr for $name {
            type Err = asl_store::id::NotHex;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                unhex(text).map(Self).ok_or(asl_store::id::NotHex(64))
            }
        }
    };
}

digest_name! {
    /// Name of a public key: SHA-256 of `"asl.key.v1\0"`, the algorithm byte and the key, 64 hexadecimal digits in text.
    /// Always recomputed from the key, never taken from whoever presents it.
    KeyId
}
digest_name! {
    /// Commitment to a key that is not shown yet: SHA-256 of `"asl.next.v1\0"`, the algorithm byte and the key. Another tag
    /// than a key id's, so that an id which is shown somewhere reveals no commitment.
    NextDigest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> DomainId {
        DomainId::of_genesis(b"genesis")
    }

    #[test]
    fn text_comes_back_in_any_usual_writing() {
        let id = example();
        let text = id.to_string();
        assert_eq!(text.len(), TEXT_LEN);
        assert!(text.starts_with("asl1"), "{text}");
        for written in [
            text.clone(),
            text.to_uppercase(),
            id.grouped(),
            id.grouped().replace(' ', "-"),
            format!("  {}\n", id.grouped()),
        ] {
            assert_eq!(written.parse(), Ok(id), "{written}");
        }
        assert_eq!(id.grouped().split(' ').count(), 16);
    }

    #[test]
    fn ids_are_what_sha256sum_says() {
        // printf 'asl.domain.v1\0genesis' | sha256sum
        assert_eq!(
            hex(&example().0),
            "3b80081f200f351f72149db3aa712435a6e211163fbad9995b7398c102e58109"
        );
    }

    #[test]
    fn every_single_mistyped_character_is_found() {
        let text = example().to_string();
        for i in 4..text.len() {
            for c in "qpzry9x8gf2tvdw0s3jn54khce6mua7l".chars() {
                let mut wrong: Vec<char> = text.chars().collect();
                if wrong[i] == c {
                    continue;
                }
                wrong[i] = c;
                let wrong: String = wrong.into_iter().collect();
                assert_eq!(
                    wrong.parse::<DomainId>(),
                    Err(DomainIdError::Checksum),
                    "{wrong}"
                );
            }
        }
    }

    #[test]
    fn each_way_of_being_no_id_has_its_own_error() {
        let text = example().to_string();
        let parse = |text: &str| text.parse::<DomainId>().unwrap_err();
        assert_eq!(parse(""), DomainIdError::Prefix);
        assert_eq!(parse(&"é".repeat(40)), DomainIdError::Prefix);
        assert_eq!(parse(&text.replace("asl1", "age1")), DomainIdError::Prefix);
        assert_eq!(parse(&text[..61]), DomainIdError::Length { found: 61 });
        assert_eq!(parse(&text.repeat(9)), DomainIdError::Length { found: 558 });
        assert_eq!(
            parse(&text.replace("asl1", "ASL1")),
            DomainIdError::MixedCase
        );
        assert_eq!(
            parse(&format!("asl1b{}", &text[5..])),
            DomainIdError::Character { position: 5 }
        );
        assert_eq!(
            parse(&format!("{}é", &text[..61])),
            DomainIdError::Character { position: 62 }
        );
    }

    #[test]
    fn another_checksum_or_stray_padding_bits_name_nothing() {
        let bech32 = bech32::encode::<bech32::Bech32>(HRP, &example().0).unwrap();
        assert_eq!(bech32.parse::<DomainId>(), Err(DomainIdError::Checksum));

        use bech32::{ByteIterExt, Fe32, Fe32IterExt};
        let mut digits: Vec<Fe32> = example().0.iter().copied().bytes_to_fes().collect();
        let last = digits.last_mut().unwrap();
        *last = Fe32::try_from(last.to_u8() | 1).unwrap();
        let padded: String = digits
            .into_iter()
            .with_checksum::<Bech32m>(&HRP)
            .chars()
            .collect();
        assert_eq!(padded.len(), TEXT_LEN);
        assert_eq!(padded.parse::<DomainId>(), Err(DomainIdError::Checksum));
    }
}
