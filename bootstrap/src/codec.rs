//! Strict encoding of the artifacts of authority: eight bytes of tag, then postcard, in exactly one form.
//!
//! postcard alone is not canonical: it accepts overlong numbers and bytes after the end, so that one meaning has many
//! encodings, and a signature or an id is of one encoding. Here bytes decode only if they carry the tag, keep below the ceiling,
//! leave nothing over and encode to themselves again.
//!
//! Rules for a [`Document`]: no maps, no floats, no elements of no size (five bytes could claim 2^28 of them), lists that the
//! type's own checks cap. Unknown variants of an enum are malformed.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the tag that opens every document.
pub const TAG_LEN: usize = 8;
/// Ceiling of every document's length, unless it sets a lower one.
pub const DOCUMENT_LEN_MAX: usize = 64 << 10;

/// A kind of document.
pub trait Document: Serialize + DeserializeOwned {
    /// First bytes of the artifact.
    const TAG: [u8; TAG_LEN];
    /// What it is called in messages, with its article: `a signature`.
    const WHAT: &'static str;
    /// Ceiling of the artifact's length in bytes.
    const LEN_MAX: usize = DOCUMENT_LEN_MAX;
}

/// Bytes that are not the one encoding of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Longer than such a document may be.
    #[error("{len} bytes are too many for {what}: at most {max}")]
    TooLong {
        /// What was expected.
        what: &'static str,
        /// Length found in bytes.
        len: usize,
        /// The ceiling in bytes.
        max: usize,
    },
    /// Does not begin with the tag.
    #[error("this is not {what}")]
    Tag {
        /// What was expected.
        what: &'static str,
    },
    /// Ends early, or holds a value that no field can have.
    #[error("{what} cannot be decoded: it is cut off or holds an impossible value")]
    Malformed {
        /// What was expected.
        what: &'static str,
    },
    /// Whole, with more behind it.
    #[error("{what} has {bytes} bytes too many at its end")]
    Trailing {
        /// What was expected.
        what: &'static str,
        /// Bytes left over.
        bytes: usize,
    },
    /// Another writing of something that has a shorter one.
    #[error("{what} is not in its one canonical encoding")]
    NotCanonical {
        /// What was expected.
        what: &'static str,
    },
}

/// Encodes a document.
///
/// # Errors
/// [`CodecError::TooLong`]; [`CodecError::Malformed`] where the value has no encoding.
pub fn encode<D: Document>(document: &D) -> Result<Vec<u8>, CodecError> {
    let bytes = postcard::to_extend(document, D::TAG.to_vec())
        .map_err(|_| CodecError::Malformed { what: D::WHAT })?;
    check_len::<D>(&bytes)?;
    Ok(bytes)
}

/// Decodes what [`encode`] wrote, and nothing else.
///
/// # Errors
/// [`CodecError`], each way of failing with its own variant.
pub fn decode<D: Document>(bytes: &[u8]) -> Result<D, CodecError> {
    check_len::<D>(bytes)?;
    let body = bytes
        .strip_prefix(&D::TAG)
        .ok_or(CodecError::Tag { what: D::WHAT })?;
    let (document, rest) = postcard::take_from_bytes::<D>(body)
        .map_err(|_| CodecError::Malformed { what: D::WHAT })?;
    if !rest.is_empty() {
        return Err(CodecError::Trailing {
            what: D::WHAT,
            bytes: rest.len(),
        });
    }
    if encode(&document)? != bytes {
        return Err(CodecError::NotCanonical { what: D::WHAT });
    }
    Ok(document)
}

fn check_len<D: Document>(bytes: &[u8]) -> Result<(), CodecError> {
    if bytes.len() > D::LEN_MAX {
        return Err(CodecError::TooLong {
            what: D::WHAT,
            len: bytes.len(),
            max: D::LEN_MAX,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Example {
        number: u64,
        maybe: Option<u32>,
        list: Vec<u8>,
    }
    impl Document for Example {
        const TAG: [u8; 8] = *b"EXAMPLE\n";
        const WHAT: &'static str = "an example";
        const LEN_MAX: usize = 64;
    }
    const WHAT: &str = Example::WHAT;

    fn example() -> Example {
        Example {
            number: 5,
            maybe: Some(300),
            list: vec![1, 2, 3],
        }
    }

    #[test]
    fn comes_back() {
        let bytes = encode(&example()).unwrap();
        assert_eq!(bytes, b"EXAMPLE\n\x05\x01\xac\x02\x03\x01\x02\x03");
        assert_eq!(decode::<Example>(&bytes), Ok(example()));
    }

    #[test]
    fn each_foreign_form_has_its_own_error() {
        let bytes = encode(&example()).unwrap();
        let fails = |bytes: &[u8]| decode::<Example>(bytes).unwrap_err();
        for cut in 0..bytes.len() {
            let expected = if cut < 8 {
                CodecError::Tag { what: WHAT }
            } else {
                CodecError::Malformed { what: WHAT }
            };
            assert_eq!(fails(&bytes[..cut]), expected, "cut to {cut}");
        }
        let mut more = bytes.clone();
        more.extend([0, 0]);
        assert_eq!(
            fails(&more),
            CodecError::Trailing {
                what: WHAT,
                bytes: 2
            }
        );
        // 5 as two bytes of varint.
        let overlong = b"EXAMPLE\n\x85\x00\x01\xac\x02\x03\x01\x02\x03";
        assert_eq!(fails(overlong), CodecError::NotCanonical { what: WHAT });
        let bad_option = b"EXAMPLE\n\x05\x02\xac\x02\x03\x01\x02\x03";
        assert_eq!(fails(bad_option), CodecError::Malformed { what: WHAT });
        // A list that claims 2^63 bytes fails for want of them, without room being made.
        let huge = b"EXAMPLE\n\x05\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f";
        assert_eq!(fails(huge), CodecError::Malformed { what: WHAT });
        assert_eq!(
            fails(&[b'E'; 65]),
            CodecError::TooLong {
                what: WHAT,
                len: 65,
                max: 64
            }
        );
    }

    #[test]
    fn nothing_is_written_that_would_not_be_read() {
        let long = Example {
            list: vec![0; 60],
            ..example()
        };
        assert!(matches!(encode(&long), Err(CodecError::TooLong { .. })));
    }
}
