//! The command line of `asl`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{
    At, Captures, DomainCommand, Export, Global, KeyPrefix, Label, Show, Size, StoreDiff,
    StoreSync, TrustCommand,
};

/// Keep what a failing disk still gives, and get it back
///
/// A store is a directory on any mounted disk. asl makes it, checks it and gets
/// data out of it; asl-capture reads failing disks into it.
#[derive(Debug, Parser)]
#[command(
    name = "asl",
    version,
    max_term_width = 80,
    infer_long_args = false,
    after_help = "A rescue, start to end:
  asl disks
  asl store init /mnt/usb/rescue
  asl-capture disk /dev/sdX --store /mnt/usb/rescue
  asl captures --store /mnt/usb/rescue
  asl export CAPTURE disk.img --store /mnt/usb/rescue"
)]
pub struct Asl {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<AslCommand>,
}

/// What `asl` can do.
#[derive(Debug, Subcommand)]
pub enum AslCommand {
    /// Make a store, look at it, check it
    #[command(subcommand, arg_required_else_help = true)]
    Store(StoreCommand),
    /// Store a file and print its key
    Put(Put),
    /// Get a stored file back by its key
    Get(Get),
    /// List what was put into the store
    Ls(Ls),
    /// Say where and how one artifact is stored
    Stat(Stat),
    /// Hide artifacts; snapshots still have them
    Rm(Rm),
    /// List the captures: which disks, how much of each
    Captures(Captures),
    /// Show one capture in full, with what could not be read
    Show(Show),
    /// Write a captured image to a file, a pipe or a disk
    Export(Export),
    /// Found a domain that vouches for the store; check who does
    #[command(subcommand, arg_required_else_help = true)]
    Domain(DomainCommand),
    /// Remember which domains are trusted, and how far they were seen
    #[command(subcommand, arg_required_else_help = true)]
    Trust(TrustCommand),
    /// List the machine's disks without touching any of them
    Disks(Disks),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write the manual pages into a directory
    Man(Man),
}

/// What `asl store` can do.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Make a store at any mounted path
    Init(StoreInit),
    /// Show sizes, counts and parameters
    #[command(after_help = "Example:\n  asl store info --store /mnt/usb/rescue")]
    Info,
    /// Show which state the store is in: snapshot, log position, chain hash
    #[command(after_help = "Example:\n  asl store state --store /mnt/usb/rescue --json")]
    State,
    /// Read every byte and check it
    Verify(StoreVerify),
    /// Make again what can be made again: caches, index, interrupted blocks
    Repair(StoreRepair),
    /// Pin the store as it is now, to read it so later
    Snapshot(StoreSnapshot),
    /// List the snapshots
    #[command(after_help = "Example:\n  asl store snapshots --store /mnt/usb/rescue")]
    Snapshots,
    /// List the log's records, oldest first
    Log(StoreLog),
    /// Bring over what another copy of the store has and this one lacks
    Sync(StoreSync),
    /// Say what another store has more or less than this one
    Diff(StoreDiff),
}

/// `asl store init`
#[derive(Debug, Args)]
#[command(after_help = "Mount the disk first; then:
  asl store init /mnt/usb/rescue

PATH is made if it is missing. It must be empty, so give the store a directory
of its own. Nothing outside of it is changed.")]
pub struct StoreInit {
    /// The directory to make the store in
    pub path: PathBuf,

    /// Parts of the index, a power of two up to 4096 [default: 16]
    #[arg(long, value_name = "N")]
    pub shards: Option<u32>,

    /// Size at which a block of small artifacts is full [default: 128M]
    #[arg(long, value_name = "SIZE")]
    pub block_size: Option<Size>,

    /// Artifacts of this size get a block of their own [default: 4M]
    #[arg(long, value_name = "SIZE")]
    pub small_threshold: Option<Size>,

    /// Artifacts in one block, at most [default: 65536]
    #[arg(long, value_name = "N")]
    pub max_packed: Option<u32>,

    /// Allow a place that is gone at power-off (tmpfs, overlay)
    #[arg(long)]
    pub ephemeral: bool,

    /// Allow a mountpoint on which nothing is mounted
    #[arg(long)]
    pub unmounted_ok: bool,
}

/// `asl store verify`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl store verify --store /mnt/usb/rescue

Nothing is changed. Each damage is listed with the captures that it hits.
Exit: 0 everything is as it was written, 10 something is not.")]
pub struct StoreVerify {
    /// Leave the data itself out; check what describes it
    #[arg(long)]
    pub quick: bool,
}

/// `asl store repair`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl store repair --store /mnt/usb/rescue

Data is never changed, and the log is only added to. After a crash no repair is
needed: the next command that writes recovers by itself.
Exit: 0 everything is in order now, 10 something could not be made again.")]
pub struct StoreRepair {
    /// Make the index from the blocks even if it looks sound
    #[arg(long)]
    pub rebuild_index: bool,

    /// Go on although the log lost records: make it again from the blocks
    #[arg(long)]
    pub accept_lost_records: bool,
}

/// `asl store snapshot`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl store snapshot --label 'before the cleanup' --store /mnt/usb/rescue
  asl ls --at 'before the cleanup' --store /mnt/usb/rescue

With the passphrase of the store's domain, the log is signed as well.")]
pub struct StoreSnapshot {
    /// Your words for it, to find it by
    #[arg(long, value_name = "TEXT")]
    pub label: Option<Label>,

    /// File whose first line is the passphrase of the domain's keys
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// `asl store log`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl store log --from 100 --limit 20 --store /mnt/usb/rescue")]
pub struct StoreLog {
    /// Begin at this position
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub from: u64,

    /// Stop after this many records
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// `asl put`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  asl put letter.odt --store /mnt/usb/rescue
  tar c Documents | asl put - --store /mnt/usb/rescue

The key is the BLAKE3 hash of the bytes, as b3sum prints it.")]
pub struct Put {
    /// The file, or - for standard input
    pub file: PathBuf,

    /// What kind of data it is; the store may decide otherwise
    #[arg(long, value_name = "KIND")]
    pub hint: Option<PutHint>,
}

/// What the user knows about data that is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PutHint {
    /// Share a block with others
    Small,
    /// A block of its own
    Large,
    /// Of unknown length, cut into chunks
    Stream,
}

/// `asl get`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  asl get 6437b3ac -o letter.odt --store /mnt/usb/rescue
  asl get 6437b3ac --at 3 --store /mnt/usb/rescue | less

The beginning of a key will do if no other key begins like it.")]
pub struct Get {
    /// The key, or the beginning of one
    pub key: KeyPrefix,

    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// As it was at a snapshot, or at a later log position
    #[arg(long, value_name = "SNAPSHOT[:POSITION]")]
    pub at: Option<At>,
}

/// `asl ls`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  asl ls --store /mnt/usb/rescue
  asl ls --at 3 --store /mnt/usb/rescue")]
pub struct Ls {
    /// Chunks and tree nodes too
    #[arg(long)]
    pub all: bool,

    /// As it was at a snapshot, or at a later log position
    #[arg(long, value_name = "SNAPSHOT[:POSITION]")]
    pub at: Option<At>,
}

/// `asl stat`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  asl stat 6437b3ac --store /mnt/usb/rescue")]
pub struct Stat {
    /// The key, or the beginning of one
    pub key: KeyPrefix,

    /// As it was at a snapshot, or at a later log position
    #[arg(long, value_name = "SNAPSHOT[:POSITION]")]
    pub at: Option<At>,
}

/// `asl rm`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl rm 6437b3ac --store /mnt/usb/rescue

Only the name is hidden. The bytes stay until nothing needs them any more:
captures and files that share them, and snapshots, keep them.")]
pub struct Rm {
    /// The keys, or their beginnings
    #[arg(required = true, value_name = "KEY")]
    pub keys: Vec<KeyPrefix>,
}

/// `asl disks`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl disks

Only what the kernel and udev know already is shown; no disk is read.")]
pub struct Disks {}

/// `asl completions`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(asl completions bash)
  asl completions zsh --program asl-capture > _asl-capture")]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,

    /// The program to complete
    #[arg(long, value_name = "NAME", default_value = "asl")]
    pub program: Program,
}

/// The programs of the toolkit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// The store and what is in it
    Asl,
    /// Disks into the store
    #[value(name = "asl-capture")]
    AslCapture,
    /// Rescue stores into a domain of one's own
    #[value(name = "asl-promote")]
    AslPromote,
}

/// `asl man`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  asl man /usr/local/share/man/man1")]
pub struct Man {
    /// The directory, made if it is missing
    pub dir: PathBuf,
}
