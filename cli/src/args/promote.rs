//! The command line of `asl-promote`.

use std::path::PathBuf;

use asl_bootstrap::DomainId;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::Global;

/// Make a rescue store part of a domain of your own, proven
///
/// The rescue store is anybody's until it is proven, and is only read: it may
/// be kept as it is.
#[derive(Debug, Parser)]
#[command(
    name = "asl-promote",
    version,
    max_term_width = 80,
    infer_long_args = false,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    override_usage = "asl-promote [OPTIONS] RESCUE --into ROOT\n       asl-promote status ROOT",
    after_help = "Examples:
  asl-promote /mnt/usb/rescue --into /home/anna/asl
  asl-promote /mnt/usb/rescue --into /home/anna/asl --as-new
  asl-promote /mnt/usb/rescue --into /home/anna/asl --dry-run
  asl-promote status /home/anna/asl

The id of the rescue domain is typed from paper, or from the screen of the
machine where it was founded: what the store says of itself proves nothing.
Stop it whenever you must: the same command goes on. Done once more, it does
nothing; when the rescue store has grown, it brings what is new.

Exit: 0 done, 3 done but something was damaged, 1 stopped early (repeat it),
10 damaged, 11 not that domain or no authority, 12 an older or a second
history, 13 against policy, 14 an answer is missing."
)]
pub struct AslPromote {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// Look at what was promoted.
    #[command(subcommand)]
    pub command: Option<PromoteCommand>,
    /// A promotion.
    #[command(flatten)]
    pub promote: Promote,
}

impl Promote {
    /// The first option of a promotion that was given, as it is typed: beside another command it means nothing.
    pub fn given(&self) -> Option<&'static str> {
        [
            (self.rescue_store.is_some(), "RESCUE"),
            (self.into.is_some(), "--into"),
            (self.expect.is_some(), "--expect"),
            (self.domain.is_some(), "--domain"),
            (self.as_new, "--as-new"),
            (self.dry_run, "--dry-run"),
            (self.yes, "--yes"),
            (self.passphrase_file.is_some(), "--passphrase-file"),
            (
                self.rescue_passphrase_file.is_some(),
                "--rescue-passphrase-file",
            ),
            (!self.captures.is_empty(), "--captures"),
            (self.accept_damaged, "--accept-damaged"),
            (self.accept_rebuilt, "--accept-rebuilt"),
            (self.fork, "--fork"),
            (self.retire_source, "--retire-source"),
        ]
        .into_iter()
        .find_map(|(given, option)| given.then_some(option))
    }
}

/// What else `asl-promote` can do.
#[derive(Debug, Subcommand)]
pub enum PromoteCommand {
    /// List what was promoted: when, from which domain, up to where
    Status(PromoteStatus),
}

/// `asl-promote status`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  asl-promote status /home/anna/asl")]
pub struct PromoteStatus {
    /// The root, or a single store
    pub into: PathBuf,
}

/// How far a rescue store is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelArg {
    /// Keep its bytes; its captures mean nothing here
    Bytes,
    /// Its captures become captures of the domain
    Semantics,
}

/// `asl-promote RESCUE --into ROOT`
#[derive(Debug, Args)]
pub struct Promote {
    /// The rescue store
    #[arg(required = true, value_name = "RESCUE")]
    pub rescue_store: Option<PathBuf>,

    /// The directory that holds your domains, or a store that has one
    #[arg(long, value_name = "ROOT", required = true)]
    pub into: Option<PathBuf>,

    /// The rescue domain's id, from paper; without it, it is asked for
    #[arg(long, value_name = "DOMAIN_ID")]
    pub expect: Option<DomainId>,

    /// Which of the domains below ROOT it goes into
    #[arg(long, value_name = "DOMAIN_ID", conflicts_with = "as_new")]
    pub domain: Option<DomainId>,

    /// Found a domain below ROOT first, for there is none yet
    #[arg(long)]
    pub as_new: bool,

    /// What you call the new domain
    #[arg(long, value_name = "TEXT", requires = "as_new")]
    pub name: Option<String>,

    /// New file for the new domain's recovery phrase
    #[arg(
        long,
        value_name = "FILE",
        requires = "as_new",
        conflicts_with = "no_recovery"
    )]
    pub recovery_out: Option<PathBuf>,

    /// Do without a recovery phrase for the new domain
    #[arg(long, requires = "as_new")]
    pub no_recovery: bool,

    /// Allow a new domain in a place that is gone at power-off
    #[arg(long, requires = "as_new")]
    pub ephemeral: bool,

    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Do it without asking
    #[arg(long)]
    pub yes: bool,

    /// File whose first line is the passphrase of your domain's keys
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// The same for the rescue domain's keys: then it hands itself over
    #[arg(long, value_name = "FILE")]
    pub rescue_passphrase_file: Option<PathBuf>,

    /// Only these captures: ids or labels, separated by commas
    ///
    /// The option may be repeated. What is as a whole the id or the label of a
    /// capture is that one, commas or not.
    #[arg(long, value_name = "LIST")]
    pub captures: Vec<String>,

    /// How far it is let in
    #[arg(long, value_enum, default_value = "semantics")]
    pub level: LevelArg,

    /// Go on although blocks are damaged: bring what is whole
    #[arg(long)]
    pub accept_damaged: bool,

    /// Take a store whose log lost records and was made again by a repair
    #[arg(long)]
    pub accept_rebuilt: bool,

    /// Bring a second history of a store in, apart from the first
    #[arg(long)]
    pub fork: bool,

    /// Say in the rescue store's own log that it was given up for yours
    #[arg(long, conflicts_with = "dry_run")]
    pub retire_source: bool,
}
