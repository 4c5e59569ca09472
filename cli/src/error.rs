//! Errors as people and scripts see them: what failed, why, what to do next,
//! and the exit code.
//!
//! An error is printed once: `error:` says what could not be done, each
//! `caused by:` one link of the chain, `hint:` the next command to type. With
//! `--json` the same goes to standard output as one object.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use asl_store::Error as StoreError;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::text;

/// What a program's end says to a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Complete = 0,
    /// Something could not be done; usually it can be tried again.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Finished, but some data is unreadable or damaged.
    Unreadable = 3,
    /// The store is not what it was written as.
    Integrity = 10,
    /// A domain's authority does not cover it.
    Authority = 11,
    /// An older or a second history was offered.
    Rollback = 12,
    /// A policy forbids it.
    Policy = 13,
    /// A question is open and nobody may be asked.
    Input = 14,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// A failure with everything that is to be said about it.
#[derive(Debug)]
pub struct CliError {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    exit: Exit,
    /// Whoever reads standard output has gone, or has the error already.
    pub(crate) silent: bool,
}

/// The error as `--json` gives it.
#[derive(Debug, Serialize)]
pub struct ErrorObject<'a> {
    /// What could not be done.
    pub error: &'a str,
    /// Why, outermost first.
    pub causes: &'a [String],
    /// What to do next, or null.
    pub hint: Option<&'a str>,
    /// The exit code.
    pub exit: u8,
}

/// Result of a command.
pub type Result<T = Exit, E = CliError> = std::result::Result<T, E>;

/// What an error and its sources say, each once.
pub fn causes_of(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut link = Some(error);
    while let Some(error) = link {
        let cause = error.to_string();
        // Some libraries repeat their source's words in their own.
        if causes.last() != Some(&cause) {
            causes.push(cause);
        }
        link = error.source();
    }
    causes
}

impl CliError {
    /// A failure (exit 1).
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            exit: Exit::Failed,
            silent: false,
        }
    }

    /// A command line that makes no sense (exit 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(message).exit(Exit::Usage)
    }

    /// Sets what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the exit code.
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Says otherwise what could not be done; why, and what to do, stays.
    pub fn instead(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Sets what to do about the first refusal of an operating system among `error` and its sources, at or near `place`.
    pub fn hint_of(self, error: &(dyn StdError + 'static), place: &Path) -> Self {
        let mut link = Some(error);
        while let Some(error) = link {
            if let Some(refused) = error.downcast_ref::<io::Error>() {
                return match hint_of_io(refused, place) {
                    Some(hint) => self.hint(hint),
                    None => self,
                };
            }
            link = error.source();
        }
        self
    }

    /// Appends `error` and its sources to the chain.
    pub fn caused_by(mut self, error: &(dyn StdError + 'static)) -> Self {
        self.causes.extend(causes_of(error));
        self
    }

    /// Writing the result failed. A reader that had enough (`asl ls | head`) is no failure.
    pub fn of_stdout(error: &io::Error) -> Self {
        let failed = Self::new("cannot write to standard output").caused_by(error);
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self {
                silent: true,
                ..failed.exit(Exit::Complete)
            }
        } else {
            failed
        }
    }

    /// The file system refused something outside the store; `action` completes "cannot …".
    pub fn of_io(action: &str, path: &Path, error: &io::Error) -> Self {
        let failed = Self::new(format!("cannot {action} {}", text::path(path))).caused_by(error);
        match hint_of_io(error, path) {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    }

    /// A file that was to be written for the user could not be.
    pub fn of_new_file(path: &Path, error: &io::Error) -> Self {
        let failed = Self::of_io("write", path, error);
        match path.parent() {
            Some(dir) if Errno::from_io_error(error) == Some(Errno::NOENT) => failed.hint(format!(
                "make the directory first: mkdir -p {}",
                text::shell_path(dir)
            )),
            _ => failed,
        }
    }

    /// The store at `store` refused something; `action` completes "cannot …".
    pub fn of_store(action: &str, store: &Path, error: &StoreError) -> Self {
        let failed = Self::new(format!("cannot {action}")).caused_by(error);
        let exit = match error {
            StoreError::Parameter { .. } => Exit::Usage,
            StoreError::Damaged { .. }
            | StoreError::LogDamaged { .. }
            | StoreError::LogTailLost { .. }
            | StoreError::LogBroken { .. } => Exit::Integrity,
            StoreError::NotAStore if has_blocks(store) => Exit::Integrity,
            error if is_planted(error) => Exit::Integrity,
            _ => Exit::Failed,
        };
        match hint_of_store(error, store) {
            Some(hint) => failed.hint(hint).exit(exit),
            None => failed.exit(exit),
        }
    }

    /// The exit code.
    pub fn exit_code(&self) -> Exit {
        self.exit
    }

    /// The error as one object.
    pub fn object(&self) -> ErrorObject<'_> {
        ErrorObject {
            error: &self.message,
            causes: &self.causes,
            hint: self.hint.as_deref(),
            exit: self.exit.code(),
        }
    }

    /// The error without its hint, for a warning.
    pub fn in_one_line(&self) -> String {
        let mut line = self.message.clone();
        for cause in &self.causes {
            line.push_str(": ");
            line.push_str(cause);
        }
        line
    }

    /// The error as lines for a terminal.
    pub fn render(&self) -> String {
        let mut lines = format!("error: {}\n", text::visible(&self.message));
        for cause in &self.causes {
            lines.push_str(&format!("  caused by: {}\n", text::visible(cause)));
        }
        if let Some(hint) = &self.hint {
            lines.push_str(&format!("hint: {}\n", text::visible(hint)));
        }
        lines
    }
}

/// Whether something lies in the store that no store has: a link, a FIFO, a device in place of a file.
fn is_planted(error: &StoreError) -> bool {
    // The kernel's own refusals have a number; this one is ours.
    matches!(error, StoreError::Io { source, .. }
        if source.kind() == io::ErrorKind::InvalidInput && source.raw_os_error().is_none())
}

/// What to do about a refusal of the file system that holds `path`.
fn hint_of_io(error: &io::Error, path: &Path) -> Option<String> {
    let place = text::shell_path(path);
    let hint = match Errno::from_io_error(error)? {
        Errno::ACCESS | Errno::PERM => "run it as root, for example with sudo".to_owned(),
        Errno::ROFS => format!(
            "the file system is mounted read-only; if its disk is healthy: mount -o remount,rw \
             \"$(findmnt -no TARGET -T {place})\""
        ),
        Errno::NOSPC | Errno::DQUOT => format!("make room there (see: df -h {place}), then repeat"),
        Errno::FBIG => hint_of_size(getrlimit(Resource::Fsize).current.is_some()),
        Errno::IO | Errno::REMOTEIO => {
            "that disk itself reports errors (see: dmesg | tail); use another one".to_owned()
        }
        Errno::NODEV | Errno::NXIO | Errno::STALE | Errno::NOTCONN => {
            "that disk or server has gone; connect it again, mount it, then repeat".to_owned()
        }
        Errno::MFILE | Errno::NFILE => {
            "too many files are open; raise the limit with: ulimit -n 4096".to_owned()
        }
        _ => return None,
    };
    Some(hint)
}

/// What to do about a file that got too long; `limited` if this process may not write
/// files of any length.
fn hint_of_size(limited: bool) -> String {
    if limited {
        "a limit on the size of files is in the way; to lift it: ulimit -f unlimited".to_owned()
    } else {
        "that file system takes no file of this size (FAT32: 4 GiB); use one that does, for \
         example exFAT or ext4"
            .to_owned()
    }
}

/// Whether there are blocks, so that a store without its log is a damaged one.
fn has_blocks(store: &Path) -> bool {
    let sealed = std::fs::read_dir(store.join("blocks/sealed"));
    sealed.is_ok_and(|mut shards| shards.next().is_some())
}

fn hint_of_store(error: &StoreError, store: &Path) -> Option<String> {
    let place = text::shell_path(store);
    let hint = match error {
        error if is_planted(error) => {
            "a store holds plain files and directories only; somebody put that there: use another \
             copy of the store, or put the file back that was there"
                .to_owned()
        }
        StoreError::Io { source, .. } => return hint_of_io(source, store),
        StoreError::Full { .. } => format!(
            "what was reported as saved is safe; make room (see: df -h {place}) or use a store \
             on another disk, then repeat"
        ),
        StoreError::NotAStore | StoreError::NotEmpty { .. } if has_blocks(store) => format!(
            "there was a store: its blocks are here, the log that says what is in them is gone. \
             Delete nothing, and copy the directory log back from wherever there is a copy. If \
             there is none, make it again from the blocks: asl store repair \
             --accept-lost-records --store {place}"
        ),
        StoreError::NotAStore => {
            format!("check the path, or make a store there: asl store init {place}")
        }
        StoreError::AlreadyAStore => format!("use it as it is: asl store info --store {place}"),
        StoreError::NotEmpty { .. } => {
            let below = text::shell_path(&store.join("rescue"));
            format!("a store gets a directory of its own: asl store init {below}")
        }
        StoreError::Parameter { .. } => "see: asl store init --help".to_owned(),
        StoreError::NewerFormat { .. }
        | StoreError::UnknownFlags { .. }
        | StoreError::UnknownCritical { .. } => format!(
            "nothing was changed; use a newer asl than {}",
            env!("CARGO_PKG_VERSION")
        ),
        StoreError::Locked { .. } => format!(
            "wait until it is done, or use a second store; reading works meanwhile: \
             asl captures --store {place}"
        ),
        StoreError::Damaged { .. } => {
            format!("list everything that is damaged: asl store verify --store {place}")
        }
        StoreError::LogDamaged { .. } => {
            format!(
                "what comes before can still be read; to write again: asl store repair --store {place}"
            )
        }
        StoreError::LogTailLost { .. } => format!(
            "if no better copy of the store exists, go on with what is left: \
             asl store repair --accept-lost-records --store {place}"
        ),
        StoreError::LogBroken { .. } => format!(
            "if no better copy of the store exists, make the log again from what is left of it and from the blocks: \
             asl store repair --accept-lost-records --store {place}"
        ),
        StoreError::NotFound(_) => format!("list what there is: asl ls --store {place}"),
        StoreError::NoSnapshot(_) | StoreError::NoPosition { .. } => {
            format!("list the snapshots: asl store snapshots --store {place}")
        }
        StoreError::Poisoned => {
            "repeat the command: what was reported as saved is safe, the rest is recovered"
                .to_owned()
        }
        _ => return None,
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use asl_store::LogPosition;

    fn errno(errno: Errno) -> io::Error {
        io::Error::from(errno)
    }

    #[test]
    fn the_chain_is_printed_once_and_then_one_hint() {
        let error = StoreError::Full {
            path: "blocks/open/blk_01.tmp".into(),
            needed_bytes: 0,
            source: errno(Errno::NOSPC),
        };
        let error = CliError::of_store("store x", Path::new("/mnt/a b"), &error);
        assert_eq!(
            error.render(),
            "error: cannot store x\n  \
             caused by: the destination is full: cannot write blocks/open/blk_01.tmp\n  \
             caused by: No space left on device (os error 28)\n\
             hint: what was reported as saved is safe; make room (see: df -h '/mnt/a b') or use a \
             store on another disk, then repeat\n"
        );
        assert_eq!(error.exit_code(), Exit::Failed);
    }

    #[test]
    fn every_store_error_that_a_user_can_act_on_has_a_hint() {
        let place = Path::new("/mnt/usb");
        let damaged = StoreError::damaged("blocks/x", 7, "what");
        for (error, exit, command) in [
            (StoreError::NotAStore, 1, "asl store init /mnt/usb"),
            (StoreError::AlreadyAStore, 1, "asl store info"),
            (
                StoreError::NotEmpty { found: "a".into() },
                1,
                "asl store init /mnt/usb/rescue",
            ),
            (
                StoreError::Locked {
                    holder: String::new(),
                },
                1,
                "asl captures",
            ),
            (damaged, 10, "asl store verify --store /mnt/usb"),
            (
                StoreError::LogDamaged { what: "x".into() },
                10,
                "asl store repair --store /mnt/usb",
            ),
            (StoreError::NoSnapshot("7".into()), 1, "asl store snapshots"),
            (StoreError::NotFound(asl_store::Key::ZERO), 1, "asl ls"),
            (
                StoreError::NewerFormat {
                    path: "log".into(),
                    version: 9,
                },
                1,
                "newer asl",
            ),
            (
                StoreError::Parameter {
                    parameter: "shards",
                    expected: "x",
                },
                2,
                "--help",
            ),
            (StoreError::Poisoned, 1, "repeat"),
            (
                StoreError::LogTailLost {
                    found: LogPosition(1),
                    remembered: LogPosition(2),
                },
                10,
                "--accept-lost-records --store /mnt/usb",
            ),
            (
                StoreError::LogBroken {
                    what: "x".into(),
                    readable: LogPosition(1),
                    unnamed_blocks: 1,
                    unnamed_bytes: 1,
                },
                10,
                "--accept-lost-records --store /mnt/usb",
            ),
            (
                StoreError::UnknownFlags {
                    path: "log".into(),
                    flags: 8,
                },
                1,
                "newer asl",
            ),
            (
                StoreError::io("write", "x")(errno(Errno::ROFS)),
                1,
                "remount,rw",
            ),
            (StoreError::io("write", "x")(errno(Errno::FBIG)), 1, "FAT32"),
            (
                StoreError::io("write", "x")(errno(Errno::DQUOT)),
                1,
                "make room",
            ),
        ] {
            let error = CliError::of_store("do it", place, &error);
            let object = error.object();
            assert_eq!(object.exit, exit, "{object:?}");
            assert!(
                object.hint.is_some_and(|hint| hint.contains(command)),
                "{object:?}"
            );
        }
    }

    #[test]
    fn a_limit_of_ours_and_one_of_the_file_system_have_different_hints() {
        assert!(hint_of_size(true).contains("ulimit -f"));
        assert!(hint_of_size(false).contains("FAT32"));
    }

    #[test]
    fn a_reader_that_had_enough_is_no_failure() {
        let gone = CliError::of_stdout(&errno(Errno::PIPE));
        assert!(gone.silent && gone.exit_code() == Exit::Complete);
        let full = CliError::of_stdout(&errno(Errno::NOSPC));
        assert!(!full.silent && full.exit_code() == Exit::Failed);
    }

    #[test]
    fn escapes_in_an_error_do_not_reach_the_terminal() {
        let error = CliError::new("no capture \u{1b}]0;owned\u{7}");
        assert!(!error.render().contains('\u{1b}'));
    }
}
