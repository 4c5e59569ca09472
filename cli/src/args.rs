//! Every command line type and every help text; nothing that acts.
//!
//! Help is read by tired people on an 80-column console: each command says in one
//! line what it does, and ends with an example that can be typed.

mod asl;
mod capture;
mod domain;
mod govern;
mod host;
mod image;
mod promote;
mod sync;
mod trust;
mod value;

use std::path::PathBuf;

use clap::Args;

pub use self::asl::{
    Asl, AslCommand, Completions, Disks, Get, Ls, Man, Program, Put, PutHint, Rm, Stat,
    StoreCommand, StoreInit, StoreLog, StoreRepair, StoreSnapshot, StoreVerify,
};
pub use self::capture::{AslCapture, CaptureCommand, CaptureDisk, CaptureFinish};
pub use self::domain::{
    DomainAttest, DomainCommand, DomainKind, DomainMint, DomainShow, DomainVerify, Moment,
    WitnessAdd, WitnessCommand, WitnessInit, WitnessRequest, WitnessSign,
};
pub use self::govern::{
    Change, DomainExport, DomainPolicy, DomainRecover, DomainRevoke, DomainRotate, DraftAdmit,
    DraftCommand, DraftMember, DraftMerge, DraftMint, DraftRotate, DraftShow, DraftSign,
    DraftUpdate, Phrases, Place, ReasonArg, Setting, SeveralKind,
};
pub use self::host::{HostAdd, HostCommand, HostList, HostRemove, HostRequest};
pub use self::image::{Captures, Export, Show};
pub use self::promote::{AslPromote, LevelArg, Promote, PromoteCommand, PromoteStatus};
pub use self::sync::{Expected, StoreDiff, StoreSync};
pub use self::trust::{TrustAdd, TrustCommand, TrustRemove};
pub use self::value::{At, CompressionArg, FillArg, KeyPrefix, Label, RangeArg, Size};

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The store's directory (or set ASL_STORE)
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        help_heading = "Options of every command",
        display_order = 900
    )]
    pub store: Option<PathBuf>,

    /// Read all domains below ROOT/domains as one (or set ASL_ROOT)
    #[arg(
        long,
        global = true,
        value_name = "ROOT",
        conflicts_with = "store",
        help_heading = "Options of every command",
        display_order = 901
    )]
    pub root: Option<PathBuf>,

    /// Print the result as one JSON object
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        display_order = 902
    )]
    pub json: bool,

    /// Print JSON events, one a line, the result last
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        display_order = 903
    )]
    pub events: bool,

    /// Never ask; fail where a question is open (exit 14)
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        display_order = 904
    )]
    pub no_input: bool,

    /// No notes and no progress, only results, warnings and errors
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        display_order = 905
    )]
    pub quiet: bool,

    /// Say more
    #[arg(
        short,
        global = true,
        action = clap::ArgAction::Count,
        help_heading = "Options of every command",
        display_order = 906
    )]
    pub verbose: u8,
}
