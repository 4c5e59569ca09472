//! Command lines about captures: list, show, export.

use std::path::PathBuf;

use clap::Args;

use super::{FillArg, RangeArg};

/// `asl captures`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  asl captures --store /mnt/usb/rescue")]
pub struct Captures {}

/// `asl show`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  asl show 3f2a --store /mnt/usb/rescue")]
pub struct Show {
    /// Its id, the beginning of it, or its label
    pub capture: String,
}

/// `asl export`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  asl export 3f2a disk.img --sparse --store /mnt/usb/rescue
  asl export 3f2a - --store /mnt/usb/rescue | less -R
  asl export 3f2a /dev/sdX --to-serial 4F2A --store /mnt/usb/rescue

Exit code 3: written, but some of it was unreadable, never read or is damaged.")]
pub struct Export {
    /// The capture's id, the beginning of it, or its label
    pub capture: String,

    /// A file, - for standard output, or a disk (with --to-serial)
    pub dest: PathBuf,

    /// What stands where nothing was read: zero or pattern:HEX
    #[arg(long, value_name = "zero|pattern:HEX", default_value = "zero")]
    pub fill: FillArg,

    /// Leave zeros as holes in the file
    #[arg(long)]
    pub sparse: bool,

    /// Export only these bytes
    #[arg(long, value_name = "START:LEN")]
    pub range: Option<RangeArg>,

    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,

    /// Overwrite a disk: the last characters of its serial number
    #[arg(long, value_name = "TAIL")]
    pub to_serial: Option<String>,
}
