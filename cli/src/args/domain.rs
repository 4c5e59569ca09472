//! The command line of `asl domain`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What `asl domain` can do.
#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// Found a domain: draw its keys and let it vouch for the store
    Mint(DomainMint),
    /// Show the store's domain: id, keys, policy
    #[command(after_help = "Example:\n  asl domain show --store /mnt/usb/rescue")]
    Show,
    /// Check every manifest, signature, checkpoint and receipt
    #[command(after_help = "Example:
  asl domain verify --store /mnt/usb/rescue

Exit: 0 everything counts, 10 something is missing or damaged, 11 something
was signed by nobody with the authority, 12 two histories, 13 against policy.")]
    Verify,
    /// Sign receipts for captures that have none
    Attest(DomainAttest),
}

/// What sort of domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DomainKind {
    /// One person's
    Personal,
    /// Several people's
    Group,
    /// Everybody's
    Common,
}

/// `asl domain mint`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain mint --name attic --passphrase-file pass --recovery-out phrase \\
      --yes --store /mnt/usb/rescue

The private keys are kept in the store, encrypted: stock age opens the file.
The recovery phrase is written once; copy it to paper and delete the file. After
an interruption, the same command goes on with the same domain.")]
pub struct DomainMint {
    /// What you call the domain
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,

    /// What sort of domain
    #[arg(long, value_enum, default_value = "personal")]
    pub kind: DomainKind,

    /// File whose first line is the passphrase for the private keys
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// New file for the recovery phrase, on another disk than the store
    #[arg(long, value_name = "FILE", conflicts_with = "no_recovery")]
    pub recovery_out: Option<PathBuf>,

    /// Do without a recovery phrase: lost keys are lost for good
    #[arg(long)]
    pub no_recovery: bool,

    /// Allow a store that is gone at power-off, and its keys with it
    #[arg(long)]
    pub ephemeral: bool,

    /// Found it without asking
    #[arg(long)]
    pub yes: bool,
}

/// `asl domain attest`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain attest --passphrase-file pass --store /mnt/usb/rescue

A capture runs for hours, and no key stays unlocked that long; so its receipt
is signed afterwards. The log is signed as well, up to where it is now.")]
pub struct DomainAttest {
    /// File whose first line is the passphrase for the private keys
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}
