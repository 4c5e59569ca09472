//! The command line of `asl trust`.

use asl_bootstrap::DomainId;
use clap::{Args, Subcommand};

/// What `asl trust` can do.
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Remember a domain from now on
    Add(TrustAdd),
    /// Forget a domain, and how far it was seen
    Remove(TrustRemove),
    /// List what is remembered
    #[command(after_help = "Example:\n  asl trust list")]
    List,
}

/// `asl trust add`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl trust add asl1qpzry9x8gf2tv... --name 'the attic'

Type the id from paper, or from the screen of the machine where the domain was
founded: a store could show any id. From then on asl domain verify remembers how
far the domain and its logs were seen, and an older copy, or one with another
history, is told (exit 12). The memory is this machine's own: in $ASL_STATE, or
~/.local/state/asl.")]
pub struct TrustAdd {
    /// The domain's id, all of it
    pub domain_id: DomainId,

    /// What you call it, up to 64 bytes
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
}

/// `asl trust remove`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl trust remove asl1qpzry9x8gf2tv...

With the pins goes the protection from older copies of its stores.")]
pub struct TrustRemove {
    /// The domain's id, all of it
    pub domain_id: DomainId,
}
