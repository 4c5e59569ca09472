//! The writes that a machine sent to a disk, in order, and what a power cut between any two of them leaves of it.
//!
//! QEMU's blklogwrites filter keeps them in the format of the kernel's dm-log-writes: a sector with a header, then one
//! sector for each entry, followed by what was written. Source: Linux, Documentation/admin-guide/device-mapper/log-writes.rst;
//! QEMU, block/blklogwrites.c.
//!
//! A disk may keep what it has not been told to flush in any order, or not at all: up to the last flush everything is
//! there, of what came after it any part.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
};

use crate::{
    error::{Error, Result},
    host::Spread,
};

/// "jsfwssh" as a number, the header's first.
const MAGIC: u64 = 0x006a_7366_7773_6872;
/// Flags of an entry.
const FLUSH: u64 = 1;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;

/// Something that was asked of the disk.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where on the disk, in bytes.
    at: u64,
    bytes: u64,
    flags: u64,
    /// Where in the log what was written is.
    data: u64,
    /// Where in the log the entry begins.
    logged: u64,
}

/// A log of writes.
#[derive(Debug)]
pub struct Writes {
    log: File,
    entries: Vec<Entry>,
}

impl Writes {
    /// Reads a log as far as it goes: the machine may have been switched off while it wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = || Error::host("cannot read", path);
        let log = File::open(path).map_err(failed())?;
        let length = log.metadata().map_err(failed())?.len();
        let mut reader = BufReader::new(&log);
        let mut header = [0; 32];
        reader.read_exact(&mut header).map_err(failed())?;
        // Magic, version, number of entries (which lags behind), and in 32 bits the sector size.
        let sector = number(&header, 3) & u64::from(u32::MAX);
        if number(&header, 0) != MAGIC || sector == 0 {
            return Err(Error::Refused {
                order: format!("read {}", path.display()),
                answer: "it is no log of writes".to_owned(),
            });
        }
        let mut entries = Vec::new();
        let mut at = sector;
        while at + sector <= length {
            reader.seek(SeekFrom::Start(at)).map_err(failed())?;
            let mut entry = [0; 32];
            reader.read_exact(&mut entry).map_err(failed())?;
            let flags = number(&entry, 2);
            // In sectors of the log's size.
            let bytes = number(&entry, 1).saturating_mul(sector);
            let data = at + sector;
            let written = if flags & DISCARD == 0 { bytes } else { 0 };
            let empty = bytes == 0 && flags & (FLUSH | FUA | MARK) == 0;
            let end = data.saturating_add(written);
            if empty || end > length {
                break;
            }
            entries.push(Entry {
                at: number(&entry, 0).saturating_mul(sector),
                bytes,
                flags,
                data,
                logged: at,
            });
            at = end;
        }
        Ok(Self { log, entries })
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries lie wholly in the first so many bytes of the log: at least those that were acknowledged
    /// when the log was that long.
    pub fn within(&self, log_bytes: u64) -> usize {
        self.entries
            .partition_point(|entry| entry.data <= log_bytes && entry.logged < log_bytes)
    }

    /// How many of the first `count` entries are there after a cut, whatever happens: those up to the last flush.
    pub fn flushed(&self, count: usize) -> usize {
        let flush = |entry: &Entry| entry.flags & FLUSH != 0;
        let entries = &self.entries[..count.min(self.entries.len())];
        entries.iter().rposition(flush).map_or(0, |nth| nth + 1)
    }

    /// Writes to `image` what a cut after the first `count` entries leaves: what came before the last flush, and of the
    /// rest what chance keeps, but always what was written through (FUA).
    pub fn replay(&self, image: &Path, count: usize, chance: &mut Spread) -> Result<()> {
        let failed = || Error::host("cannot write", image);
        let file = File::options().write(true).open(image).map_err(failed())?;
        let flushed = self.flushed(count);
        for (nth, entry) in self.entries.iter().take(count).enumerate() {
            let lost =
                nth >= flushed && entry.flags & FUA == 0 && chance.number().is_multiple_of(2);
            if lost || entry.flags & DISCARD != 0 || entry.bytes == 0 {
                continue;
            }
            let length = usize::try_from(entry.bytes).unwrap_or(usize::MAX);
            let mut data = vec![0; length];
            self.log
                .read_exact_at(&mut data, entry.data)
                .map_err(failed())?;
            file.write_all_at(&data, entry.at).map_err(failed())?;
        }
        Ok(())
    }
}

/// The `nth` number of 64 bits.
fn number(bytes: &[u8], nth: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[8 * nth..8 * nth + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, sectors: u64, flags: u64, fill: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [at, sectors, flags, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.resize(512, 0);
        bytes.resize(512 + 512 * sectors as usize, fill);
        bytes
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_is_up_to_chance() {
        let directory = tempfile();
        let log = directory.join("log");
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&1u64.to_le_bytes());
        bytes.extend_from_slice(&99u64.to_le_bytes());
        bytes.extend_from_slice(&512u32.to_le_bytes());
        bytes.resize(512, 0);
        bytes.extend(entry(0, 1, 0, 1));
        let acknowledged = bytes.len() as u64;
        bytes.extend(entry(0, 0, FLUSH, 0));
        for sector in 1..9 {
            bytes.extend(entry(sector, 1, 0, 2));
        }
        bytes.extend(entry(9, 1, FUA, 3));
        // Cut off in the middle of an entry.
        bytes.extend(&entry(10, 1, 0, 4)[..700]);
        std::fs::write(&log, bytes).unwrap();

        let writes = Writes::read(&log).unwrap();
        assert_eq!(
            (writes.len(), writes.flushed(11), writes.flushed(1)),
            (11, 2, 0)
        );
        assert_eq!(writes.within(acknowledged), 1);
        let image = directory.join("image");
        let sectors = |count: usize, seed: u64| -> Vec<u8> {
            std::fs::write(&image, vec![0; 11 * 512]).unwrap();
            writes
                .replay(&image, count, &mut Spread::new(seed))
                .unwrap();
            let bytes = std::fs::read(&image).unwrap();
            bytes.chunks(512).map(|sector| sector[0]).collect()
        };
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..8 {
            let left = sectors(11, seed);
            assert_eq!((left[0], left[9], left[10]), (1, 3, 0));
            seen.insert(left);
        }
        assert!(seen.len() > 4, "{seen:?}");
        assert_eq!(sectors(2, 1), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn tempfile() -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("asl-writes-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }
}
