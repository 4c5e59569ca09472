//! The host's side of a story: directories, programs, damage to spread.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::error::{Error, Result};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A story's directory: below `ASL_QEMU_DIR`, or of the directory for temporary files.
pub(crate) fn story_directory(story: &str) -> Result<PathBuf> {
    let base = match env::var_os("ASL_QEMU_DIR") {
        Some(base) => PathBuf::from(base),
        None => env::temp_dir().join("asl-qemu"),
    };
    let directory = base.join(story);
    fs::create_dir_all(&directory).map_err(Error::host("cannot make", &directory))?;
    Ok(directory)
}

/// A fresh directory for a story's images and logs. It stays for whoever wants to
/// know why a story failed, and is emptied when that story runs again.
pub fn scratch(story: &str) -> Result<PathBuf> {
    let directory = story_directory(story)?;
    fs::remove_dir_all(&directory).map_err(Error::host("cannot empty", &directory))?;
    story_directory(story)
}

/// Tells a story in a fresh directory. What it needs and this host lacks is a reason
/// to skip it, said on standard error; with `ASL_QEMU_ALL=1` that is a failure too.
///
/// # Panics
/// If the story fails: this is the body of a test.
pub fn story(name: &str, tell: impl FnOnce(&Path) -> Result<()>) {
    let begun = Instant::now();
    let told = scratch(name).and_then(|directory| {
        tell(&directory)?;
        Ok(directory)
    });
    match told {
        Ok(directory) => {
            eprintln!("{name}: {:.0} s", begun.elapsed().as_secs_f64());
            // Logs stay, images are big.
            for file in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if file
                    .path()
                    .extension()
                    .is_none_or(|ending| ending != "log" && ending != "png")
                {
                    let _ = if file.path().is_dir() {
                        fs::remove_dir_all(file.path())
                    } else {
                        fs::remove_file(file.path())
                    };
                }
            }
        }
        Err(Error::Missing(reason)) if env::var_os("ASL_QEMU_ALL").is_none() => {
            eprintln!("{name}: skipped: {reason}");
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

/// Whether a program is on this host.
pub fn have_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
    // Where mke2fs and others live, which a user's PATH often lacks.
    directories.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories
        .iter()
        .any(|directory| directory.join(name).is_file())
}

/// The programs under test, as they run on the host: those that go onto the medium.
pub fn program(name: &str) -> Result<PathBuf> {
    let directory = match env::var_os("ASL_TEST_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => root().join("dist/x86_64"),
    };
    let path = directory.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Missing(format!(
        "there is no {}; scripts/build-static makes it",
        path.display()
    )))
}

/// Runs a program on the host and gives what it printed, if its exit code is one of these.
pub fn host(command: &mut Command, statuses: &[i32]) -> Result<Vec<u8>> {
    let shown = format!("{command:?}");
    let path = PathBuf::from(command.get_program());
    let path_variable = env::var("PATH").unwrap_or_default();
    let output = command
        .env("PATH", format!("{path_variable}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output()
        .map_err(Error::host("cannot run", path))?;
    if output
        .status
        .code()
        .is_some_and(|code| statuses.contains(&code))
    {
        return Ok(output.stdout);
    }
    Err(Error::Program {
        command: shown,
        status: output.status.to_string(),
        output: format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    })
}

/// Numbers that look random and are the same in every run.
#[derive(Debug, Clone)]
pub struct Spread(u64);

impl Spread {
    /// Numbers that depend on the seed only.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number. Source: Steele, Lea, Flood, "Fast splittable pseudorandom
    /// number generators" (SplitMix64).
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Bytes that do not compress.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    /// As many different sectors below `end` as asked for, in order: some alone, most
    /// in clusters, as a scratch leaves them.
    pub fn bad_sectors(&mut self, count: usize, end: u64) -> Vec<u64> {
        let mut bad = std::collections::BTreeSet::new();
        while bad.len() < count {
            let start = self.number() % end;
            let length = if self.number().is_multiple_of(3) {
                1
            } else {
                1 + self.number() % 16
            };
            for sector in start..(start + length).min(end) {
                if bad.len() < count {
                    bad.insert(sector);
                }
            }
        }
        bad.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_the_same_every_time_and_inside() {
        let bad = Spread::new(7).bad_sectors(200, 4096);
        assert_eq!(bad, Spread::new(7).bad_sectors(200, 4096));
        assert_ne!(bad, Spread::new(8).bad_sectors(200, 4096));
        assert_eq!(bad.len(), 200);
        assert!(bad.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(bad.last().is_some_and(|last| *last < 4096));
    }

    #[test]
    fn a_host_program_with_another_exit_code_is_an_error() {
        assert!(host(&mut Command::new("false"), &[1]).is_ok());
        let error = host(
            Command::new("sh").args(["-c", "echo why >&2; exit 4"]),
            &[0],
        )
        .unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}
