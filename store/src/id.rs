//! The store's names: newtypes that cannot be mistaken for one another.

use std::fmt;
use std::str::FromStr;

/// Writes bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes everything");
            text
        })
}

/// Reads exactly `N` bytes of hex, in either case.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| (c as char).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// Text that is not the hex form of the name it was read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {0} hexadecimal digits")]
pub struct NotHex(pub usize);

macro_rules! bytes_name {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);
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
            type Err = NotHex;
            fn from_str(text: &str) -> Result<Self, NotHex> {
                unhex(text).map(Self).ok_or(NotHex(2 * $len))
            }
        }
        impl $name {
            /// All bytes zero: stands for "none" on disk.
            pub const ZERO: Self = Self([0; $len]);
            /// Whether all bytes are zero.
            pub fn is_zero(&self) -> bool {
                *self == Self::ZERO
            }
        }
    };
}

bytes_name! {
    /// Name of an artifact: BLAKE3-256 of its bytes, as `b3sum` prints it.
    Key, 32
}
bytes_name! {
    /// Digest of a sealed block, an index segment, a state file or a log prefix.
    Digest, 32
}
bytes_name! {
    /// Random name of a store instance.
    StoreId, 16
}
bytes_name! {
    /// Random name of a client's session (a capture).
    SessionId, 16
}
bytes_name! {
    /// Random name of one opening for writing.
    WriterId, 16
}

impl Key {
    /// The key of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
    /// The shard that indexes this key, of `shards` (a power of two).
    pub fn shard(&self, shards: u32) -> u32 {
        let head = u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]);
        head.checked_shr(32 - shards.trailing_zeros()).unwrap_or(0)
    }
}

/// Token of a block within one store instance: from one monotonic sequence,
/// never reused, meaning nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u64);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Ordinal of a log record; as a bound, the number of records before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition(pub u64);

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Name of a snapshot: its ordinal orders, its digest commits to the log prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// Counts snapshots of this store from 1.
    pub ordinal: u64,
    /// Digest of the snapshot's log record.
    pub digest: Digest,
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}-{}", self.ordinal, self.digest)
    }
}

impl FromStr for SnapshotId {
    type Err = NotHex;
    fn from_str(text: &str) -> Result<Self, NotHex> {
        let (ordinal, digest) = text.split_once('-').ok_or(NotHex(64))?;
        Ok(Self {
            ordinal: ordinal.parse().map_err(|_| NotHex(64))?,
            digest: digest.parse()?,
        })
    }
}

/// Where an artifact's frame lies: `(block, offset, length)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The block.
    pub block: BlockId,
    /// Bytes from the start of the block file to the frame's header.
    pub offset: u32,
    /// Length of the artifact in bytes.
    pub len: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_other_lengths() {
        let key = Key::of(b"abc");
        assert_eq!(key.to_string().parse::<Key>(), Ok(key));
        assert_eq!("6437".parse::<Key>(), Err(NotHex(64)));
        assert_eq!("zz".repeat(32).parse::<Key>(), Err(NotHex(64)));
    }

    #[test]
    fn shards_are_the_leading_bits() {
        let mut key = Key([0xff; 32]);
        assert_eq!(key.shard(1), 0);
        assert_eq!(key.shard(16), 15);
        assert_eq!(key.shard(4096), 4095);
        key.0[0] = 0x10;
        assert_eq!(key.shard(16), 1);
    }

    #[test]
    fn snapshot_ids_round_trip() {
        let id = SnapshotId {
            ordinal: 7,
            digest: Digest([9; 32]),
        };
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
