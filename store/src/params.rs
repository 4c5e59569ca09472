//! What a store was created with. None of it changes what a key resolves to.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::{self, created_payload as cp};
use crate::id::StoreId;

/// Parameters of a store, fixed at its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// Shards of the index; a power of two up to 4096.
    pub shards: u32,
    /// Fill threshold of a packed block, in bytes.
    pub block_size: u64,
    /// Fill threshold of a large block, in bytes: a longer artifact becomes a chunk list.
    pub large_size: u64,
    /// `T_small` in bytes: artifacts of this length and above get a block of their own.
    pub small_threshold: u64,
    /// Most artifacts in one packed block.
    pub packed_max: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            shards: 16,
            block_size: 128 << 20,
            large_size: 64 << 20,
            small_threshold: 4 << 20,
            packed_max: 65_536,
        }
    }
}

impl Params {
    /// Refuses values that the format or the memory bound does not allow.
    pub fn validate(&self) -> Result<()> {
        let no = |parameter, expected| {
            Err(Error::Parameter {
                parameter,
                expected,
            })
        };
        if !self.shards.is_power_of_two() || self.shards > format::SHARDS_MAX {
            return no("shards", "a power of two from 1 to 4096");
        }
        if !(64 << 10..=1 << 30).contains(&self.block_size) {
            return no("block size", "from 64 KiB to 1 GiB");
        }
        if !(4 << 10..=256 << 20).contains(&self.small_threshold) {
            return no("small threshold", "from 4 KiB to 256 MiB");
        }
        if self.large_size < self.small_threshold || self.large_size > 1 << 30 {
            return no("large size", "from the small threshold to 1 GiB");
        }
        if self.packed_max == 0 || self.packed_max > 1 << 20 {
            return no("most packed artifacts", "from 1 to 1048576");
        }
        Ok(())
    }

    /// Payload of the first log record.
    pub fn encode(&self, store_id: &StoreId) -> Vec<u8> {
        let mut buf = vec![0; cp::LEN];
        cp::VERSION.set(&mut buf, format::FORMAT_VERSION);
        cp::KEY_ALGORITHM.set(&mut buf, format::KEY_ALGORITHM_BLAKE3);
        cp::SHARDS.set(&mut buf, self.shards);
        cp::BLOCK_SIZE.set(&mut buf, self.block_size);
        cp::LARGE_SIZE.set(&mut buf, self.large_size);
        cp::SMALL_THRESHOLD.set(&mut buf, self.small_threshold);
        cp::PACKED_MAX.set(&mut buf, self.packed_max);
        cp::STORE_ID.put(&mut buf, &store_id.0);
        buf
    }

    /// Reads the payload of the first log record.
    pub fn decode(buf: &[u8], store_id: &StoreId) -> Result<Self> {
        let damaged = |what: &str| Error::LogDamaged {
            what: format!("the first record has {what}"),
        };
        if buf.len() != cp::LEN || cp::STORE_ID.of(buf) != store_id.0 {
            return Err(damaged("another length or store id"));
        }
        let version = cp::VERSION.u16(buf);
        if version > format::FORMAT_VERSION {
            return Err(Error::NewerFormat {
                path: "log".to_owned(),
                version,
            });
        }
        let flags = cp::FLAGS.u32(buf);
        if flags != 0 {
            return Err(Error::unknown_flags("log", flags));
        }
        if cp::KEY_ALGORITHM.u8(buf) != format::KEY_ALGORITHM_BLAKE3 {
            return Err(damaged("an unknown key algorithm"));
        }
        let params = Self {
            shards: cp::SHARDS.u32(buf),
            block_size: cp::BLOCK_SIZE.get(buf),
            large_size: cp::LARGE_SIZE.get(buf),
            small_threshold: cp::SMALL_THRESHOLD.get(buf),
            packed_max: cp::PACKED_MAX.u32(buf),
        };
        params.validate()?;
        Ok(params)
    }
}
