//! The command line of the verbs that change a domain.

use std::path::PathBuf;
use std::str::FromStr;

use asl_bootstrap::KeyId;
use asl_bootstrap::dam::Reason;
use asl_bootstrap::policy::Rule;
use asl_store::{LogPosition, StoreId};
use clap::{Args, Subcommand, ValueEnum};

use super::KeyPrefix;

/// Flags of every change.
#[derive(Debug, Args)]
pub struct Change {
    /// File whose first line is the passphrase for the private keys
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// Go on although the log shows a second rotation, which nothing undoes
    #[arg(long)]
    pub despite_fork: bool,

    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Flags of what takes one phrase and gives another.
#[derive(Debug, Args)]
pub struct Phrases {
    /// File with the recovery phrase; it is used up by this
    #[arg(long, value_name = "FILE")]
    pub phrase_file: Option<PathBuf>,

    /// New file for the new phrase, on another disk than the store
    #[arg(long, value_name = "FILE", conflicts_with = "no_recovery")]
    pub recovery_out: Option<PathBuf>,

    /// Do without a new phrase: no rotation and no recovery any more
    #[arg(long)]
    pub no_recovery: bool,

    /// Go on from this version: void every change that was made after it
    #[arg(long, value_name = "VERSION")]
    pub from_version: Option<u64>,
}

/// `asl domain rotate`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain rotate --phrase-file paper --passphrase-file pass \\
      --recovery-out phrase --yes --store /mnt/usb/rescue

The key behind the phrase becomes the root, the old root leaves, and a new
phrase takes the place of the old one. If a thief has signed changes, void them:
look for the last good version with asl domain verify, and add --from-version.
After an interruption, the same command goes on.")]
pub struct DomainRotate {
    /// Flags of phrases
    #[command(flatten)]
    pub phrases: Phrases,

    /// Give this host a new host key and a new checkpoint key as well
    #[arg(long)]
    pub fresh_keys: bool,

    /// Flags of every change
    #[command(flatten)]
    pub change: Change,
}

/// `asl domain recover`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain recover --phrase-file paper --passphrase-file newpass \\
      --recovery-out phrase --yes --store /mnt/usb/rescue

For when the key file or its passphrase is lost. The phrase alone is enough; the
passphrase is that of the new key file. An old key file is kept under another
name. If somebody else may have the old keys, say from where on nothing that
they signed counts: --revoke-from 1200")]
pub struct DomainRecover {
    /// Flags of phrases
    #[command(flatten)]
    pub phrases: Phrases,

    /// Revoke the old keys, from this log position (of a store) on
    #[arg(
        long,
        value_name = "[STORE_ID:]POSITION",
        conflicts_with = "keep_others"
    )]
    pub revoke_from: Vec<Place>,

    /// Why, for --revoke-from
    #[arg(long, value_enum, default_value = "lost")]
    pub reason: ReasonArg,

    /// Let the keys of other hosts go on signing
    #[arg(long)]
    pub keep_others: bool,

    /// Allow a store that is gone at power-off, and its keys with it
    #[arg(long)]
    pub ephemeral: bool,

    /// Flags of every change
    #[command(flatten)]
    pub change: Change,
}

/// `asl domain revoke`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain revoke 3f2a9c01 --reason compromised --from 1200 \\
      --passphrase-file pass --yes --store /mnt/usb/rescue

What the key signed before that log position still counts. In a store for which
no position is given, nothing that it signed counts. A key of this host is
replaced by a new one. A root cannot be revoked: see asl domain rotate")]
pub struct DomainRevoke {
    /// The key's id, or its first digits
    #[arg(value_name = "KEY_ID")]
    pub key: KeyPrefix,

    /// From this log position on; without it, from now on
    #[arg(long, value_name = "[STORE_ID:]POSITION")]
    pub from: Vec<Place>,

    /// Why
    #[arg(long, value_enum, default_value = "unspecified")]
    pub reason: ReasonArg,

    /// Flags of every change
    #[command(flatten)]
    pub change: Change,
}

/// `asl domain policy`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  asl domain policy --store /mnt/usb/rescue
  asl domain policy --set checkpoints=at-capture --passphrase-file pass \\
      --yes --store /mnt/usb/rescue")]
pub struct DomainPolicy {
    /// Change a rule; without it, the policy is shown
    #[arg(long, value_name = "RULE=VALUE")]
    pub set: Vec<Setting>,

    /// Change what the domain is called as well
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,

    /// Flags of every change
    #[command(flatten)]
    pub change: Change,
}

/// `asl domain export`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain export attic.asldomain --store /mnt/usb/rescue

The file has every manifest and policy with its signatures, and the newest
checkpoint. It has no secret: give it to anybody who is to know the domain.")]
pub struct DomainExport {
    /// The file to write
    pub file: PathBuf,
}

/// A place in the log of some store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The store; the one that is open, if none is named.
    pub store: Option<StoreId>,
    /// The position.
    pub position: LogPosition,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (store, position) = match text.rsplit_once(':') {
            Some((store, position)) => {
                let id = store.parse::<StoreId>();
                let id = id.map_err(|_| format!("`{store}` is not a store id"))?;
                (Some(id), position)
            }
            None => (None, text),
        };
        let position = position.parse().map(LogPosition);
        let position = position.map_err(|_| "a log position is a number".to_owned())?;
        Ok(Self { store, position })
    }
}

/// A rule and what it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The rule.
    pub rule: Rule,
    /// One of its values.
    pub value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rule, value) = text
            .split_once('=')
            .ok_or_else(|| "a rule and a value have `=` between them".to_owned())?;
        let rule: Rule = rule.parse().map_err(|error| format!("{error}"))?;
        asl_bootstrap::Policy::default_of(asl_bootstrap::Kind::Personal)
            .set(rule, value)
            .map_err(|error| error.to_string())?;
        let value = value.to_owned();
        Ok(Self { rule, value })
    }
}

/// Why a key is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReasonArg {
    /// Not said
    Unspecified,
    /// Somebody else may have it
    Compromised,
    /// Nobody has it any more
    Lost,
    /// Another took its place
    Replaced,
}

impl From<ReasonArg> for Reason {
    fn from(reason: ReasonArg) -> Self {
        match reason {
            ReasonArg::Unspecified => Self::Unspecified,
            ReasonArg::Compromised => Self::Compromised,
            ReasonArg::Lost => Self::Lost,
            ReasonArg::Replaced => Self::Replaced,
        }
    }
}

/// What `asl domain draft` can do.
#[derive(Debug, Subcommand)]
pub enum DraftCommand {
    /// Make a card: the key with which you become one of several roots
    Member(DraftMember),
    /// Draft a domain of several people, from their cards
    Mint(DraftMint),
    /// Draft a change of policy, name or keys
    Update(DraftUpdate),
    /// Draft a rotation, from the cards of those who will be the roots
    Rotate(DraftRotate),
    /// Say what a draft would do, and who has signed
    Show(DraftShow),
    /// Sign a draft with your own key file
    Sign(DraftSign),
    /// Put the signatures of two copies of a draft together
    Merge(DraftMerge),
    /// Put a draft that all have signed into force
    Admit(DraftAdmit),
}

/// `asl domain draft member`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  asl domain draft member -o anna.card --key-file anna.age \\
      --passphrase-file pass --recovery-out paper
For a rotation, with the phrase that is to be revealed:
  asl domain draft member -o anna2.card --key-file anna.age \\
      --passphrase-file pass --phrase-file paper --recovery-out paper2")]
pub struct DraftMember {
    /// The card to write; it has no secret
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// Your key file: made, or added to
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,

    /// File whose first line is the passphrase of your key file
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// File with the phrase that is revealed by this
    #[arg(long, value_name = "FILE")]
    pub phrase_file: Option<PathBuf>,

    /// New file for the new phrase
    #[arg(long, value_name = "FILE", conflicts_with = "no_recovery")]
    pub recovery_out: Option<PathBuf>,

    /// Do without a phrase: you cannot take part in the next rotation
    #[arg(long)]
    pub no_recovery: bool,
}

/// `asl domain draft mint`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain draft mint anna.card ben.card carl.card --name club \\
      -o club.draft --passphrase-file pass --store /mnt/usb/shared

Then each of them: asl domain draft sign club.draft --key-file FILE
At last, here:     asl domain draft admit club.draft
A common domain is watched by witnesses and written by its own hosts only.")]
pub struct DraftMint {
    /// The cards of all members
    #[arg(value_name = "CARD", required = true)]
    pub cards: Vec<PathBuf>,

    /// What you call the domain
    #[arg(long, value_name = "TEXT")]
    pub name: String,

    /// What sort of domain
    #[arg(long, value_enum, default_value = "group")]
    pub kind: SeveralKind,

    /// How many members sign a change; without it, more than half
    #[arg(long, value_name = "N")]
    pub root_threshold: Option<u8>,

    /// How many phrases a rotation needs; without it, more than half
    #[arg(long, value_name = "N")]
    pub next_threshold: Option<u8>,

    /// Public line of a witness, as a file; once for each
    #[arg(long, value_name = "FILE")]
    pub witness: Vec<PathBuf>,

    /// How many witnesses must have cosigned
    #[arg(long, value_name = "N", requires = "witness")]
    pub witness_threshold: Option<u8>,

    /// A rule of the policy, where it is not to be the usual one
    #[arg(long, value_name = "RULE=VALUE")]
    pub set: Vec<Setting>,

    /// The draft to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// File whose first line is the passphrase for the keys of this host
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// Allow a store that is gone at power-off, and its keys with it
    #[arg(long)]
    pub ephemeral: bool,
}

/// What sort of domain several people have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SeveralKind {
    /// Several people's
    Group,
    /// Everybody's
    Common,
}

/// `asl domain draft update`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain draft update --set checkpoints=at-capture -o policy.draft \\
      --store /mnt/usb/shared")]
pub struct DraftUpdate {
    /// Change a rule
    #[arg(long, value_name = "RULE=VALUE")]
    pub set: Vec<Setting>,

    /// Change what the domain is called
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,

    /// Revoke this key, from now on; a key of this host is not replaced
    #[arg(long, value_name = "KEY_ID")]
    pub revoke: Vec<KeyId>,

    /// Why, for --revoke
    #[arg(long, value_enum, default_value = "unspecified")]
    pub reason: ReasonArg,

    /// The draft to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// Go on although the log shows a second rotation, which nothing undoes
    #[arg(long)]
    pub despite_fork: bool,
}

/// `asl domain draft rotate`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain draft rotate anna2.card ben2.card carl2.card -o turn.draft \\
      --store /mnt/usb/shared

Enough of the cards must have been made with a phrase: asl domain draft member")]
pub struct DraftRotate {
    /// The cards of all who will be roots
    #[arg(value_name = "CARD", required = true)]
    pub cards: Vec<PathBuf>,

    /// How many members sign a change from then on
    #[arg(long, value_name = "N")]
    pub root_threshold: Option<u8>,

    /// How many phrases the rotation after this one needs
    #[arg(long, value_name = "N")]
    pub next_threshold: Option<u8>,

    /// The draft to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// Go on although the log shows a second rotation, which nothing undoes
    #[arg(long)]
    pub despite_fork: bool,
}

/// `asl domain draft show`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  asl domain draft show club.draft")]
pub struct DraftShow {
    /// The draft
    pub draft: PathBuf,
}

/// `asl domain draft sign`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain draft sign club.draft --key-file anna.age \\
      --passphrase-file pass --yes

Look first: asl domain draft show club.draft")]
pub struct DraftSign {
    /// The draft; your signatures are added to it
    pub draft: PathBuf,

    /// Your key file, or that of a witness
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,

    /// File whose first line is the passphrase of your key file
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// Sign without asking
    #[arg(long)]
    pub yes: bool,
}

/// `asl domain draft merge`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  asl domain draft merge club.draft from-ben.draft")]
pub struct DraftMerge {
    /// The draft to add to
    pub draft: PathBuf,

    /// The copies to take signatures from
    #[arg(value_name = "COPY", required = true)]
    pub copies: Vec<PathBuf>,
}

/// `asl domain draft admit`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  asl domain draft admit club.draft --passphrase-file pass --yes \\
      --store /mnt/usb/shared")]
pub struct DraftAdmit {
    /// The draft
    pub draft: PathBuf,

    /// File whose first line is the passphrase for the keys of this host;
    /// without it, the log is not signed now
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// Put it into force without asking
    #[arg(long)]
    pub yes: bool,
}
