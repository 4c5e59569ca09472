//! A file that a command writes for the user: whole under its name, or not there.
//!
//! Crash: a regular file is written beside its name and renamed at the end, so
//! what has the name is old or complete; a `.NAME.asl-PID.part` may stay behind.
//! Pipes and character devices are written as they are.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::{CliError, Result};
use crate::text;

/// Where bytes for the user go. Remembers why writing failed, because libraries
/// that write to it tell it in their own words.
pub struct Output {
    sink: Sink,
    failure: Option<io::Error>,
}

enum Sink {
    Stdout(io::Stdout),
    /// A pipe or a character device.
    Direct(File, PathBuf),
    /// A regular file: written under the second name, renamed to the first.
    Beside(File, PathBuf, PathBuf),
}

impl Output {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::of(Sink::Stdout(io::stdout()))
    }

    /// The file of this name; `-` is standard output. Block devices and directories
    /// are refused.
    pub fn create(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::stdout());
        }
        let failed = |error| CliError::of_io("write", path, &error);
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Err(CliError::usage(format!(
                "{} is a directory",
                text::path(path)
            ))
            .hint("name a file in it")),
            Ok(metadata) if metadata.file_type().is_block_device() => {
                Err(CliError::usage(format!("{} is a disk", text::path(path)))
                    .hint("name a file; only asl export writes to disks"))
            }
            Ok(metadata) if !metadata.is_file() => {
                let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
                Ok(Self::of(Sink::Direct(file, path.to_owned())))
            }
            _ => {
                // A link stays a link: what it points to is replaced.
                let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
                let name = target
                    .file_name()
                    .ok_or_else(|| CliError::usage(format!("{} is no file", text::path(path))))?;
                let part = format!(
                    ".{}.asl-{}.part",
                    name.to_string_lossy(),
                    std::process::id()
                );
                let part = target.with_file_name(part);
                let new = |error| CliError::of_new_file(path, &error);
                let file = File::create(&part).map_err(new)?;
                Ok(Self::of(Sink::Beside(file, target, part)))
            }
        }
    }

    fn of(sink: Sink) -> Self {
        Self {
            sink,
            failure: None,
        }
    }

    /// Makes the file durable and gives it its name.
    pub fn finish(mut self) -> Result<()> {
        let done = match &mut self.sink {
            Sink::Stdout(out) => out.flush(),
            Sink::Direct(file, _) => file.flush(),
            Sink::Beside(file, target, part) => file
                .sync_all()
                .and_then(|()| fs::rename(&part, &target))
                .and_then(|()| sync_parent(target)),
        };
        done.map_err(|error| {
            self.failure = Some(error);
            self.failed()
                .unwrap_or_else(|| CliError::new("cannot write"))
        })
    }

    /// Gives the file up; returns the error if writing to it is what failed.
    pub fn abandon(mut self) -> Option<CliError> {
        if let Sink::Beside(_, _, part) = &self.sink {
            let _ = fs::remove_file(part);
        }
        self.failed()
    }

    fn failed(&mut self) -> Option<CliError> {
        let error = self.failure.take()?;
        Some(match &self.sink {
            Sink::Stdout(_) => CliError::of_stdout(&error),
            Sink::Direct(_, path) | Sink::Beside(_, path, _) => {
                CliError::of_io("write", path, &error)
            }
        })
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = match &mut self.sink {
            Sink::Stdout(out) => out.write(buf),
            Sink::Direct(file, _) | Sink::Beside(file, _, _) => file.write(buf),
        };
        written.inspect_err(|error| self.remember(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = match &mut self.sink {
            Sink::Stdout(out) => out.flush(),
            Sink::Direct(file, _) | Sink::Beside(file, _, _) => file.flush(),
        };
        flushed.inspect_err(|error| self.remember(error))
    }
}

impl Output {
    fn remember(&mut self, error: &io::Error) {
        if error.kind() != io::ErrorKind::Interrupted {
            let copy = match error.raw_os_error() {
                Some(errno) => io::Error::from_raw_os_error(errno),
                None => io::Error::new(error.kind(), error.to_string()),
            };
            self.failure = Some(copy);
        }
    }
}

/// Makes a name durable, where directories can be synced.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match File::open(parent).and_then(|dir| dir.sync_all()) {
        // A directory that may be written but not read, or a file system without it.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_name_is_old_or_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old").unwrap();
        let mut output = Output::create(&path).unwrap();
        output.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mut output = Output::create(&path).unwrap();
        output.write_all(b"half").unwrap();
        assert!(output.abandon().is_none());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn devices_directories_and_links_stay_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Output::create(dir.path()).is_err());
        let mut null = Output::create(Path::new("/dev/null")).unwrap();
        null.write_all(b"x").unwrap();
        null.finish().unwrap();
        assert!(
            fs::metadata("/dev/null")
                .unwrap()
                .file_type()
                .is_char_device()
        );
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        fs::write(&target, "old").unwrap();
        symlink("target", &link).unwrap();
        let mut output = Output::create(&link).unwrap();
        output.write_all(b"new").unwrap();
        output.finish().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_full_destination_is_named() {
        let mut full = Output::create(Path::new("/dev/full")).unwrap();
        let failed = full.write_all(b"x").is_err();
        let error = full.abandon().unwrap();
        assert!(failed && error.object().error.contains("/dev/full"));
    }
}
