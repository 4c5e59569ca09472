//! Secrets in this process: kept out of core dumps, swap, recordings and standard output.
//!
//! What is encrypted on the disk is in the clear in memory while it is used. [`protect`] comes first in every command that touches
//! keys; what it cannot have is said with `-v`, for a rescue must not fail for want of a privilege.
//!
//! Invariants
//! - Nothing is drawn from the kernel's random numbers before they are random; whoever waits for that is told.
//! - Nothing that may be seen only once is shown while the session is recorded.

use std::io;
use std::path::Path;

use asl_bootstrap::Random;
use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall, munlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{CapabilitySet, capabilities};
use zeroize::Zeroizing;

use crate::command::domain;
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::prompt::Prompt;
use crate::report::Report;

/// Set by whatever records the terminal, so that what must not be recorded is not shown.
pub const RECORDING: &str = "ASL_RECORDING";

/// Whether the terminal's output is being recorded.
pub fn is_recorded() -> bool {
    std::env::var_os(RECORDING).is_some_and(|value| !value.is_empty())
}

/// Makes sure that memory with secrets in it reaches no core dump, no debugger of the same user and, where allowed, no swap.
/// Comes before the first secret is read or drawn.
pub fn protect(report: &Report) {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    for (what, done) in [
        ("core dumps", setrlimit(Resource::Core, none)),
        // A core dump that is piped to a program heeds no limit, but this (core(5)).
        (
            "looking into this program's memory",
            set_dumpable_behavior(DumpableBehavior::NotDumpable),
        ),
    ] {
        if let Err(errno) = done {
            report.detail(&format!("{what} could not be forbidden: {errno}"));
        }
    }
    if let Err(errno) = lock_memory() {
        report.detail(&format!(
            "memory could not be locked ({errno}): with swap, secrets may reach a disk"
        ));
    }
}

/// Locks every page as soon as it is used. Without the privilege it must not even be tried: a small limit would be met later, by an
/// allocation that then fails.
fn lock_memory() -> Result<(), Errno> {
    let privileged = capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
        || getrlimit(Resource::Memlock).current.is_none();
    if !privileged {
        return Err(Errno::PERM);
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
}

/// Lets memory be swapped again: there are no secrets in it any more, and hours of work to come.
pub fn relax() {
    // What was never locked cannot be unlocked, and need not be.
    let _ = munlockall();
}

/// The kernel's random numbers. Shortly after boot there may be none yet; whoever has to wait is told so, once.
pub fn random(report: &Report) -> impl Random + use<> {
    let report = *report;
    let mut told = false;
    move |bytes: &mut [u8]| {
        let ready = |bytes: &mut [u8]| getrandom(bytes, GetRandomFlags::NONBLOCK);
        fill(bytes, ready, &mut || {
            if !told {
                told = true;
                report
                    .note("waiting for the kernel's random numbers; typing and disk activity help");
            }
        })
    }
}

fn fill(
    bytes: &mut [u8],
    ready: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    waits: &mut dyn FnMut(),
) -> io::Result<()> {
    match ready(bytes) {
        Ok(filled) if filled == bytes.len() => return Ok(()),
        Err(Errno::AGAIN) => waits(),
        // Less than was asked for, or a kernel without getrandom(2): as if nothing had come.
        _ => {}
    }
    getrandom::fill(bytes).map_err(io::Error::from)
}

/// The passphrase that unlocks keys: the first line of the file that was named, or what is typed on the terminal.
///
/// # Errors
/// Exit 14 where no file was named and nobody can be asked; `locked` says what stays locked.
pub fn passphrase(face: &Face, file: Option<&Path>, locked: &str) -> Result<Zeroizing<String>> {
    if let Some(file) = file {
        return domain::passphrase(file);
    }
    match Prompt::open(face) {
        Some(prompt) => Ok(prompt.secret(&format!("passphrase of {locked}"))?),
        None => Err(
            CliError::new(format!("cannot unlock {locked} without a passphrase"))
                .exit(Exit::Input)
                .hint("add --passphrase-file FILE"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Style;
    use rustix::process::dumpable_behavior;

    #[test]
    fn this_process_leaves_no_core() {
        let report = Report::new(Style::Human, true, 0);
        protect(&report);
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        // Twice is as good as once.
        protect(&report);
    }

    #[test]
    fn whoever_waits_for_randomness_is_told() {
        let run = |ready: fn(&mut [u8]) -> Result<usize, Errno>| {
            let (mut told, mut bytes) = (0, [0; 32]);
            fill(&mut bytes, ready, &mut || told += 1).unwrap();
            (told, bytes)
        };
        let (told, bytes) = run(|bytes| {
            bytes.fill(7);
            Ok(bytes.len())
        });
        assert_eq!((told, bytes), (0, [7; 32]));
        let (told, bytes) = run(|_| Err(Errno::AGAIN));
        assert_eq!(told, 1);
        assert_ne!(bytes, [0; 32]);
        // Half an answer counts for nothing.
        let (told, bytes) = run(|bytes| {
            bytes[..4].fill(7);
            Ok(4)
        });
        assert_eq!(told, 0);
        assert_ne!(bytes[..4], [7; 4]);
        let (told, bytes) = run(|_| Err(Errno::NOSYS));
        assert_eq!(told, 0);
        assert_ne!(bytes, [0; 32]);
    }

    #[test]
    fn the_kernels_numbers_differ() {
        let mut random = random(&Report::new(Style::Human, true, 0));
        let (mut a, mut b) = ([0; 32], [0; 32]);
        random.fill(&mut a).unwrap();
        random.fill(&mut b).unwrap();
        assert_ne!(a, b);
    }
}
