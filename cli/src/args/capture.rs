//! The command line of `asl-capture`.

use std::path::PathBuf;
use std::time::Duration;

use asl_capture::pass::PassSelection;
use clap::{Args, Parser, Subcommand};

use super::{CompressionArg, Global, Label, RangeArg, Size};

/// Read failing disks into a store
///
/// Nothing is ever written to the disk that is read. Interrupt it whenever you
/// must: the same command goes on where it stopped.
#[derive(Debug, Parser)]
#[command(
    name = "asl-capture",
    version,
    max_term_width = 80,
    infer_long_args = false,
    after_help = "Example:
  asl-capture disk /dev/sdX --store /mnt/usb/rescue"
)]
pub struct AslCapture {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<CaptureCommand>,
}

/// What `asl-capture` can do.
#[derive(Debug, Subcommand)]
pub enum CaptureCommand {
    /// Read a disk or an image into the store
    Disk(Box<CaptureDisk>),
    /// Close a capture whose disk will not come back
    Finish(CaptureFinish),
}

/// `asl-capture disk`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  asl-capture disk /dev/sdX --store /mnt/usb/rescue
  asl-capture disk /dev/sdX --label \"Anna's laptop\"
  asl-capture disk /dev/sdX --resume --retries 3
  asl-capture disk disk.img --new

Stop it with Ctrl-C whenever you must: what was read is kept, and the same
command goes on. So it does after a power cut, or when the disk comes back.

Exit codes: 0 every byte was read; 3 finished, some bytes are unreadable;
1 stopped early: the same command goes on.")]
pub struct CaptureDisk {
    /// The disk, partition or image file to read
    pub source: PathBuf,

    /// Your words for it, to find it by
    #[arg(long, value_name = "TEXT")]
    pub label: Option<Label>,

    /// Logical sector size, where the disk lies about it
    #[arg(long, value_name = "BYTES")]
    pub sector_size: Option<u32>,

    /// Try unreadable sectors again this often
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,

    /// Passes to make, e.g. copy1,copy2,trim [default: all]
    #[arg(long, value_name = "LIST")]
    pub passes: Option<PassSelection>,

    /// Leave for later what reads slower than this a second; 0: nothing
    #[arg(long, value_name = "SIZE")]
    pub min_read_rate: Option<Size>,

    /// Stop after this long without a good read, e.g. 30m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,

    /// Stop if one read takes longer than this, e.g. 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub read_timeout: Option<Duration>,

    /// Stop after this many failed reads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_bad_reads: Option<u64>,

    /// Read only these bytes
    #[arg(long, value_name = "START:LEN")]
    pub range: Option<RangeArg>,

    /// Read only what this ddrescue map calls rescued
    #[arg(long, value_name = "MAPFILE", conflicts_with = "range")]
    pub domain: Option<PathBuf>,

    /// Go on with a capture of this disk, even a finished one, or fail
    #[arg(long, conflicts_with = "new")]
    pub resume: bool,

    /// Begin anew even if there is an unfinished capture
    #[arg(long)]
    pub new: bool,

    /// Write the image to this file as well, when reading ends
    #[arg(long, value_name = "FILE")]
    pub image_out: Option<PathBuf>,

    /// Write a ddrescue map to this file when reading ends
    #[arg(long, value_name = "FILE")]
    pub map_out: Option<PathBuf>,

    /// Compute the image's SHA-256 as well
    #[arg(long)]
    pub sha256: bool,

    /// Compute the image's MD5 as well
    #[arg(long)]
    pub md5: bool,

    /// zstd level, auto or none
    #[arg(long, value_name = "LEVEL|auto|none", default_value = "auto")]
    pub compression: CompressionArg,

    /// Sign at the end, with the passphrase in this file's first line
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// `asl-capture finish`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl-capture finish 3f2a --store /mnt/usb/rescue

What was read stays; the rest is recorded as never tried. Should the disk come
back after all, asl-capture disk goes on with it.")]
pub struct CaptureFinish {
    /// Its id, the beginning of it, or its label
    pub capture: String,
}
