//! A regular file as a source: a disk image made by somebody else.
//!
//! Reads are buffered: the file lies on a disk that is not the patient. The size
//! is the one at opening; a file that becomes shorter is [`ReadFailure::Gone`]
//! from there on, since nothing is known about bytes that were cut off. Holes of
//! a sparse file are reported by [`Source::next_data`], so that they need not be
//! read.
//!
//! The file is never written; where the system allows, not even its access time
//! changes.

use std::fs;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Advice, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::failure::{END_OF_FILE, MISUSE, classify};
use super::open::{
    NotASource, OpenError, OpenOptions, SECTOR_BYTES_MIN, Warning, judge_uses, open_failure,
    partial_sector, sector_bytes,
};
use super::{Geometry, Identity, ReadFailure, Source, len_now};
use crate::inventory::usage_of_file;

/// An image file, open for reading.
#[derive(Debug)]
pub struct ImageFile {
    file: OwnedFd,
    geometry: Geometry,
    identity: Identity,
}

impl ImageFile {
    /// Opens the regular file at `path`; symbolic links are followed.
    ///
    /// Errors: [`OpenError::NotASource`] for any other type of file, found
    /// without opening it (a named pipe would block); [`OpenError::Empty`] for a
    /// size of 0; [`OpenError::SectorSize`]; [`OpenError::InUse`] when a loop device
    /// over the file is mounted read-write.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<(Self, Vec<Warning>), OpenError> {
        let before = rustix::fs::stat(path).map_err(|errno| open_failure(path, errno))?;
        regular(path, &before)?;
        let file = open_quietly(path).map_err(|errno| open_failure(path, errno))?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| OpenError::Io {
            path: path.to_owned(),
            action: "examine",
            source: errno.into(),
        })?;
        regular(path, &stat)?;
        let size_bytes = size_of(&stat);
        if size_bytes == 0 {
            return Err(OpenError::Empty {
                path: path.to_owned(),
            });
        }
        let sector = sector_bytes(path, options.sector_bytes, SECTOR_BYTES_MIN)?;
        // Advice only: reading works without it.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        let backing_file = fs::canonicalize(path).map_err(|source| OpenError::Io {
            path: path.to_owned(),
            action: "resolve",
            source,
        })?;
        let mut warnings = judge_uses(path, usage_of_file(&options.system, &backing_file))?;
        let image = Self {
            file,
            geometry: Geometry {
                size_bytes,
                logical_sector_bytes: sector,
                physical_sector_bytes: sector,
            },
            identity: Identity {
                path: path.to_string_lossy().into_owned(),
                transport: Some("file".to_owned()),
                backing_file: Some(backing_file.to_string_lossy().into_owned()),
                ..Identity::default()
            },
        };
        warnings.extend(partial_sector(size_bytes, sector));
        Ok((image, warnings))
    }

    /// Whether the file can still be examined and is no shorter than it was.
    pub fn alive(&self) -> bool {
        len_now(self.file.as_fd(), Path::new("")).is_ok_and(|len| len >= self.geometry.size_bytes)
    }

    fn outwards(&self, data: Range<u64>, from: u64) -> Range<u64> {
        let sector = u64::from(self.geometry.logical_sector_bytes);
        let start = (data.start / sector * sector).max(from);
        let end = data.end.div_ceil(sector).saturating_mul(sector);
        start..end.min(self.geometry.size_bytes)
    }
}

impl Source for ImageFile {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadFailure> {
        let size = self.geometry.size_bytes;
        if offset > size || buf.len() as u64 > size - offset {
            return Err(MISUSE);
        }
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pread(&self.file, &mut buf[done..], offset + done as u64) {
                Ok(0) => return Err(END_OF_FILE),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(errno) if self.alive() => return Err(classify(errno)),
                Err(errno) => {
                    return Err(ReadFailure::Gone {
                        errno: errno.raw_os_error(),
                    });
                }
            }
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Option<Range<u64>> {
        let size = self.geometry.size_bytes;
        if offset >= size {
            return None;
        }
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) if start < size => start,
            // Beyond what was the end: the file has grown, the rest of ours is a hole.
            Ok(_) => return None,
            // A hole up to the end, unless the end has come nearer: then reading must say so.
            Err(Errno::NXIO) if self.alive() => return None,
            Err(_) => return Some(offset..size),
        };
        let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start)).unwrap_or(size);
        Some(self.outwards(start..end, offset))
    }
}

fn regular(path: &Path, stat: &rustix::fs::Stat) -> Result<(), OpenError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        kind => Err(OpenError::NotASource {
            path: path.to_owned(),
            kind: NotASource::from_type(kind),
        }),
    }
}

fn size_of(stat: &rustix::fs::Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Opens for reading without touching the access time where the owner or root
/// asks; never blocks on a pipe that took the file's place.
fn open_quietly(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions as FileOptions};
    use std::io::{Seek, SeekFrom as StdSeekFrom, Write};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;

    fn image(dir: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
        let path = dir.path().join("image");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn open(path: &Path) -> ImageFile {
        ImageFile::open(path, &OpenOptions::default()).unwrap().0
    }

    #[test]
    fn reads_everything_up_to_an_odd_end() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..1700u32).map(|i| (i % 251) as u8).collect();
        let path = image(&dir, &bytes);
        let (file, warnings) = ImageFile::open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(file.geometry().size_bytes, 1700);
        assert_eq!(file.geometry().logical_sector_bytes, 512);
        assert_eq!(
            warnings,
            [Warning::PartialSector {
                size_bytes: 1700,
                sector_bytes: 512,
                tail_bytes: 164
            }]
        );
        let mut buf = vec![0; 1700];
        file.read_at(0, &mut buf).unwrap();
        assert_eq!(buf, bytes);
        let mut tail = vec![0; 164];
        file.read_at(1536, &mut tail).unwrap();
        assert_eq!(tail, bytes[1536..]);
        assert_eq!(file.read_at(1536, &mut [0; 165]), Err(MISUSE));
        assert_eq!(file.read_at(u64::MAX, &mut [0; 1]), Err(MISUSE));
    }

    #[test]
    fn identity_is_the_canonical_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(&dir, b"x");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = open(&link);
        let identity = file.identity();
        assert_eq!(identity.path, link.to_str().unwrap());
        assert_eq!(identity.transport.as_deref(), Some("file"));
        let canonical = fs::canonicalize(&path).unwrap();
        assert_eq!(identity.backing_file.as_deref(), canonical.to_str());
        assert_eq!(identity.serial, None);
    }

    #[test]
    fn sector_size_can_be_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(&dir, &[1; 8192]);
        let with = |bytes| OpenOptions {
            sector_bytes: Some(bytes),
            ..OpenOptions::default()
        };
        let (file, warnings) = ImageFile::open(&path, &with(2048)).unwrap();
        assert_eq!(file.geometry().logical_sector_bytes, 2048);
        assert_eq!(file.geometry().physical_sector_bytes, 2048);
        assert_eq!(warnings, []);
        for wrong in [0, 256, 520, 131_072] {
            let error = ImageFile::open(&path, &with(wrong)).unwrap_err();
            assert!(
                matches!(error, OpenError::SectorSize { requested_bytes, .. } if requested_bytes == wrong),
                "{error}"
            );
        }
    }

    #[test]
    fn only_regular_files_are_images() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| match ImageFile::open(path, &OpenOptions::default()) {
            Err(OpenError::NotASource { kind, .. }) => kind,
            other => panic!("{other:?}"),
        };
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RUSR).unwrap();
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(refused(&fifo), NotASource::Fifo);
        assert_eq!(refused(dir.path()), NotASource::Directory);
        assert_eq!(refused(&socket), NotASource::Socket);
        assert_eq!(refused(Path::new("/dev/null")), NotASource::CharacterDevice);
    }

    #[test]
    fn missing_and_empty_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let error = ImageFile::open(&missing, &OpenOptions::default()).unwrap_err();
        assert!(matches!(&error, OpenError::NotFound { path } if *path == missing));
        let empty = image(&dir, b"");
        let error = ImageFile::open(&empty, &OpenOptions::default()).unwrap_err();
        assert!(matches!(error, OpenError::Empty { .. }));
    }

    #[test]
    fn a_shrinking_file_is_gone_and_no_hole() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(&dir, &[3; 8192]);
        let file = open(&path);
        assert!(file.alive());
        let shorter = FileOptions::new().write(true).open(&path).unwrap();
        shorter.set_len(4096).unwrap();
        assert!(!file.alive());
        let mut buf = vec![0; 4096];
        assert_eq!(file.read_at(0, &mut buf), Ok(()));
        let cut_off = file.read_at(4096, &mut buf);
        assert_eq!(cut_off, Err(ReadFailure::Gone { errno: 0 }));
        let straddling = file.read_at(2048, &mut buf);
        assert_eq!(straddling, Err(ReadFailure::Gone { errno: 0 }));
        assert_eq!(file.next_data(4096), Some(4096..8192));
    }

    #[test]
    fn holes_are_skipped_and_rounded_outwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        let mut sparse = File::create(&path).unwrap();
        sparse.set_len(1 << 20).unwrap();
        sparse.seek(StdSeekFrom::Start(262_144)).unwrap();
        sparse.write_all(&[9; 4096]).unwrap();
        sparse.sync_all().unwrap();
        let file = open(&path);
        if file.next_data(0) == Some(0..1 << 20) {
            println!("skipped: this filesystem reports no holes");
            return;
        }
        let data = file.next_data(0).unwrap();
        assert!(data.start <= 262_144 && data.start > 0, "{data:?}");
        assert!(data.end >= 266_240 && data.end < 1 << 20, "{data:?}");
        assert_eq!(file.next_data(data.end), None);
        assert_eq!(file.next_data(1 << 20), None);

        let large = OpenOptions {
            sector_bytes: Some(65536),
            ..OpenOptions::default()
        };
        let file = ImageFile::open(&path, &large).unwrap().0;
        assert_eq!(file.next_data(0), Some(262_144..327_680));
    }

    #[test]
    fn a_dense_file_is_one_range() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(&dir, &[1; 5000]);
        let file = open(&path);
        assert_eq!(file.next_data(0), Some(0..5000));
        assert_eq!(file.next_data(512), Some(512..5000));
        assert_eq!(file.next_data(5000), None);
    }
}
