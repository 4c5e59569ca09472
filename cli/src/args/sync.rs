//! The command line of `asl store sync` and `asl store diff`.

use std::path::PathBuf;
use std::str::FromStr;

use asl_bootstrap::DomainId;
use clap::Args;

/// The domain that another store must be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// None at all.
    NoDomain,
    /// This one.
    Domain(DomainId),
}

impl FromStr for Expected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::NoDomain),
            id => id
                .parse()
                .map(Self::Domain)
                .map_err(|error| format!("{error}; for a store without a domain: none")),
        }
    }
}

/// `asl store sync`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  asl store sync /mnt/stick/rescue --store /mnt/usb/rescue
  asl store sync /mnt/stick/rescue --verify --store /mnt/usb/rescue
  asl store sync /mnt/stick/rescue --store /mnt/new/mirror --expect none

Both must be of the same domain, or copies of one store. OTHER is only read;
what comes from it is checked to the last byte before it counts. What is here
already is only looked at for its length; with --verify it is read, too, and
what is damaged gives way to a whole copy, or stays where there is none. Where
nothing is at PATH, it becomes a mirror of OTHER; --expect says of which domain
OTHER must be. Interrupted, the same command goes on.
Exit: 0 everything came, 1 interrupted, 3 came without what is damaged there,
10 something is damaged and did not come whole, 11 not of the same domain,
12 one log has two histories, or this store is an old copy.")]
pub struct StoreSync {
    /// The other store's directory
    pub other: PathBuf,

    /// Bring over the other way, too: then both have everything
    #[arg(long)]
    pub both: bool,

    /// Read every byte here, too, and heal what is damaged; with --both, in both
    #[arg(long)]
    pub verify: bool,

    /// Say what would come; change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Refuse any other domain than this one; none: a store without one
    #[arg(long, value_name = "DOMAIN_ID")]
    pub expect: Option<Expected>,

    /// Take what is whole although files are damaged there
    #[arg(long)]
    pub accept_damaged: bool,

    /// Allow a mirror that is gone at power-off (tmpfs, overlay)
    #[arg(long)]
    pub ephemeral: bool,

    /// Allow a mirror on a mountpoint on which nothing is mounted
    #[arg(long)]
    pub unmounted_ok: bool,
}

/// `asl store diff`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl store diff /mnt/stick/rescue --store /mnt/usb/rescue

Copies of one store are compared record by record, others by what they hold.
Nothing is changed in either. For damage in this store: asl store verify
Exit: 0 equal, 1 different, 10 OTHER is damaged, 12 one log has two histories.")]
pub struct StoreDiff {
    /// The other store's directory
    pub other: PathBuf,

    /// Read every byte of OTHER, and of it alone, to find what is damaged there
    #[arg(long)]
    pub verify: bool,
}
