//! The command line of `asl domain host`.

use std::path::PathBuf;

use asl_bootstrap::Fingerprint;
use clap::{Args, Subcommand};

use super::{Change, ReasonArg};

/// What `asl domain host` can do.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Ask for keys of this machine's own, where somebody else has the root
    Request(HostRequest),
    /// Let another machine sign: list the keys that it asks for
    Add(HostAdd),
    /// List the keys that sign for the domain, and whose they are
    List(HostList),
    /// Revoke all keys of a host at once
    Remove(HostRemove),
}

/// `asl domain host request`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl store sync /mnt/usb/rescue --store /srv/rescue --expect DOMAIN_ID
  asl domain host request --out cellar.host --passphrase-file pass \\
      --store /srv/rescue

Keys for this machine are drawn and kept in its store, encrypted; the request
has no secret. Take it to the machine with the root: asl domain host add
The same command again asks for the same keys.")]
pub struct HostRequest {
    /// The request to write
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,

    /// What this machine is to be called [default: its host name]
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,

    /// File whose first line is the passphrase for this machine's keys
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// Allow a store that is gone at power-off, and its keys with it
    #[arg(long)]
    pub ephemeral: bool,
}

/// `asl domain host add`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  asl domain host add cellar.host --store /mnt/usb/rescue
  asl domain host add cellar.host --expect qpzr-y9x8-gf2t-vdw0 \\
      --passphrase-file pass --yes --store /mnt/usb/rescue

Both screens show a fingerprint of the request. If they differ, somebody has
changed it: grant nothing. Afterwards, on the other machine: asl store sync
A domain of several roots: --draft FILE, which they sign; see asl domain draft")]
pub struct HostAdd {
    /// The request
    pub request: PathBuf,

    /// The fingerprint that the other machine shows
    #[arg(long, value_name = "FINGERPRINT")]
    pub expect: Option<Fingerprint>,

    /// Write a draft for all roots to sign, instead of signing alone
    #[arg(long, value_name = "FILE")]
    pub draft: Option<PathBuf>,

    /// Flags of every change
    #[command(flatten)]
    pub change: Change,
}

/// `asl domain host list`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain host list --store /mnt/usb/rescue")]
pub struct HostList {}

/// `asl domain host remove`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain host remove cellar --reason lost --passphrase-file pass --yes \\
      --store /mnt/usb/rescue

Whatever its keys have signed in the logs that are here still counts, nothing
that they sign from now on. One key alone, or from another place on:
  asl domain revoke --help")]
pub struct HostRemove {
    /// Its name, or the first digits of one of its keys
    #[arg(value_name = "HOST")]
    pub host: String,

    /// Why
    #[arg(long, value_enum, default_value = "unspecified")]
    pub reason: ReasonArg,

    /// Flags of every change
    #[command(flatten)]
    pub change: Change,
}
