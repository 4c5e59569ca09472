//! The command line of `asl domain`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use asl_bootstrap::DomainId;
use clap::{Args, Subcommand, ValueEnum};

use super::{
    DomainExport, DomainPolicy, DomainRecover, DomainRevoke, DomainRotate, DraftCommand,
    HostCommand,
};

/// What `asl domain` can do.
#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// Found a domain: draw its keys and let it vouch for the store
    Mint(DomainMint),
    /// Show the store's domain: id, keys, policy
    Show(DomainShow),
    /// Check every signature, and say what is proven, by whom, since when
    Verify(DomainVerify),
    /// Sign receipts for captures that have none
    Attest(DomainAttest),
    /// Make the key behind the recovery phrase the root; get a new phrase
    Rotate(DomainRotate),
    /// Take the domain back with the phrase alone: keys or passphrase are lost
    Recover(DomainRecover),
    /// Say from where on a key's signatures no longer count
    Revoke(DomainRevoke),
    /// Show the policy, or change its rules
    Policy(DomainPolicy),
    /// Write the public part of the domain to a file, for others
    Export(DomainExport),
    /// Give another machine of the domain keys of its own, through a file
    #[command(subcommand, arg_required_else_help = true)]
    Host(HostCommand),
    /// Let several people sign one manifest, through files
    #[command(subcommand, arg_required_else_help = true)]
    Draft(DraftCommand),
    /// Let others vouch that the log only ever grew, through files
    #[command(subcommand, arg_required_else_help = true)]
    Witness(WitnessCommand),
}

/// `asl domain verify`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain verify --store /mnt/usb/rescue

The log is read from its beginning, and every signature in it is checked. The
data itself is checked by: asl store verify
Exit: 0 everything counts, 10 something is missing or damaged, 11 something
was signed by nobody with the authority, 12 two histories, 13 against policy.")]
pub struct DomainVerify {
    /// Refuse any other domain than this one (exit 11)
    #[arg(long, value_name = "DOMAIN_ID")]
    pub expect: Option<DomainId>,
}

/// What `asl domain witness` can do.
#[derive(Debug, Subcommand)]
pub enum WitnessCommand {
    /// Make a witness: its key and its memory, in a directory of its own
    Init(WitnessInit),
    /// Write the question about the store's newest checkpoint
    Request(WitnessRequest),
    /// Answer a question, on the machine of the witness
    Sign(WitnessSign),
    /// Put the answer of a witness into the store
    Add(WitnessAdd),
}

/// `asl domain witness init`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain witness init /home/anna/witness --name anna \\
      --passphrase-file pass

The file witness.pub in it is for those who want their log watched:
  asl domain mint --witness witness.pub ...
Never copy the directory: two copies could sign two histories.")]
pub struct WitnessInit {
    /// The directory to make, on a disk that stays with the witness
    pub dir: PathBuf,

    /// Its name in signed notes: no blanks, no plus sign
    #[arg(long, value_name = "TEXT")]
    pub name: String,

    /// File whose first line is the passphrase for the private key
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// Allow a place that is gone at power-off
    #[arg(long)]
    pub ephemeral: bool,
}

/// `asl domain witness request`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain witness request -o question --log-out log.pub \\
      --store /mnt/usb/rescue

Take both files to the witness. log.pub is needed once, and again after the
domain's keys were changed.")]
pub struct WitnessRequest {
    /// Write the question to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Write the public line of the log to this file as well
    #[arg(long, value_name = "FILE")]
    pub log_out: Option<PathBuf>,

    /// Which witness is asked, where the domain has several
    #[arg(long, value_name = "NAME")]
    pub witness: Option<String>,

    /// The size that the witness says it has signed last
    #[arg(long, value_name = "N")]
    pub old: Option<u64>,
}

/// `asl domain witness sign`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain witness sign /home/anna/witness question --log log.pub \\
      --passphrase-file pass -o answer

The first time, compare the domain id with what its owner tells you. A log that
does not continue what was signed before is refused (exit 12), and both
checkpoints are kept under evidence/ in the directory of the witness.")]
pub struct WitnessSign {
    /// The directory of the witness
    pub dir: PathBuf,

    /// The question
    pub question: PathBuf,

    /// File with the public line of a log to trust from now on
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,

    /// File whose first line is the passphrase for the private key
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// Write the answer to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `asl domain witness add`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain witness add answer --store /mnt/usb/rescue")]
pub struct WitnessAdd {
    /// The answer
    pub answer: PathBuf,
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

/// A moment in UTC: `2026-11-21T14:30:00Z` (RFC 3339), also with a blank in the middle, without seconds or without a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Unix time in nanoseconds.
    pub unix_ns: i64,
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let whole = match text.len() {
            10 => format!("{text} 00:00:00"),
            16 => format!("{text}:00"),
            _ => text.to_owned(),
        };
        let moment = humantime::parse_rfc3339_weak(&whole).ok();
        let since = moment.and_then(|moment| moment.duration_since(UNIX_EPOCH).ok());
        let unix_ns = since.and_then(|since| i64::try_from(since.as_nanos()).ok());
        match unix_ns {
            Some(unix_ns) => Ok(Self { unix_ns }),
            None => Err("not a date and time in UTC, such as 2026-11-21T14:30:00Z".to_owned()),
        }
    }
}

/// `asl domain show`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  asl domain show --qr --store /mnt/usb/rescue
  asl domain show --from attic.asldomain")]
pub struct DomainShow {
    /// Show what `asl domain export` wrote, instead of a store's domain
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// Draw the domain's id as a QR code as well
    #[arg(long)]
    pub qr: bool,
}

/// `asl domain mint`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain mint --store /mnt/usb/rescue
  asl domain mint --name attic --passphrase-file pass --recovery-out phrase \\
      --yes --store /mnt/usb/rescue

On a terminal, what no flag says is asked, and nothing is written before the
last answer. The private keys are kept in the store, encrypted: stock age opens
the file. The recovery phrase is written once; copy it to paper and delete the file. After
an interruption, the same command goes on with the same domain.")]
pub struct DomainMint {
    /// What you call the domain
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,

    /// What sort of domain [default: personal]
    #[arg(long, value_enum)]
    pub kind: Option<DomainKind>,

    /// File whose first line is the passphrase for the private keys
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// New file for the recovery phrase, on another disk than the store
    #[arg(long, value_name = "FILE", conflicts_with = "no_recovery")]
    pub recovery_out: Option<PathBuf>,

    /// Do without a recovery phrase: lost keys are lost for good
    #[arg(long)]
    pub no_recovery: bool,

    /// The time now, in UTC, where the clock is wrong
    #[arg(long, value_name = "RFC3339")]
    pub time: Option<Moment>,

    /// File with a witness's public line; once for each witness
    #[arg(long = "witness", value_name = "FILE")]
    pub witnesses: Vec<PathBuf>,

    /// How many of the witnesses must agree [default: more than half]
    #[arg(long, value_name = "N", requires = "witnesses")]
    pub witness_threshold: Option<u8>,

    /// Allow a store that is gone at power-off, and its keys with it
    #[arg(long)]
    pub ephemeral: bool,

    /// Found it without asking
    #[arg(long)]
    pub yes: bool,

    /// For a store that gets its place, named as the domain, once it is founded: the directory of that
    #[arg(skip)]
    pub place: Option<PathBuf>,

    /// A name to propose
    #[arg(skip)]
    pub proposed_name: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        for text in [
            "2026-11-21T14:30:00Z",
            "2026-11-21 14:30:00",
            " 2026-11-21 14:30 ",
            "2026-11-21T14:30",
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.unix_ns, 1_795_271_400_000_000_000, "{text}");
        }
        let day: Moment = "2026-11-21".parse().unwrap();
        assert_eq!(day.unix_ns, 1_795_219_200_000_000_000);
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "21.11.2026",
            "1969-12-31",
            "14:30",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
