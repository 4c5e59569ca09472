//! What can go wrong between a story and its machine.

use std::{io, path::PathBuf, time::Duration};

/// Why a story cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that the story needs is not on this machine: a reason to skip it.
    #[error("skipped: {0}")]
    Missing(String),
    /// A file or process of the host.
    #[error("{what} {path}")]
    Host {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A program on the host failed.
    #[error("{command}: {status}\n{output}")]
    Program {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it printed on both streams.
        output: String,
    },
    /// Something did not show up on the console in time.
    #[error("waited {waited:?} for {wanted:?}; the console's last lines:\n{last}")]
    Timeout {
        /// What was waited for.
        wanted: String,
        /// How long.
        waited: Duration,
        /// The end of what the console showed.
        last: String,
    },
    /// The machine ended while something was expected of it.
    #[error("the machine ended while waiting for {wanted:?}; its last lines:\n{last}")]
    Ended {
        /// What was waited for.
        wanted: String,
        /// The end of what the console showed, or what QEMU said.
        last: String,
    },
    /// A command in the guest ended with another exit code than it should.
    #[error("{command}: exit code {status}\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit code.
        status: i32,
        /// What it printed.
        output: String,
    },
    /// QEMU refused an order.
    #[error("QEMU refuses {order}: {answer}")]
    Refused {
        /// The order's name.
        order: String,
        /// QEMU's answer.
        answer: String,
    },
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn host(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Host { what, path, source }
    }
}
