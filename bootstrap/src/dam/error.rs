//! What a single manifest is refused for.

use super::{DAM_LEN_MAX, LABEL_MAX, LIST_MAX, List, WitnessMode};
use crate::codec::CodecError;
use crate::id::KeyId;
use crate::key::KeyError;

/// The rule that a single manifest breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DamError {
    /// The first bytes are others.
    #[error("not a DAM: it does not begin with ASLDAM1")]
    Magic,
    /// More bytes than a DAM has.
    #[error("a DAM has at most {DAM_LEN_MAX} bytes, this has {len}")]
    TooLong {
        /// Bytes found.
        len: usize,
    },
    /// Made by a newer program, with something that must not be overlooked.
    #[error("the DAM needs features that this program does not know (bits {bits:#x})")]
    Critical {
        /// All bits.
        bits: u32,
    },
    /// Not the one encoding of a DAM.
    #[error("the DAM is malformed")]
    Encoding(#[source] CodecError),
    /// No such kind.
    #[error("{0} is no kind of domain")]
    Kind(u8),
    /// A list with too many entries.
    #[error("the DAM lists {len} {list}, more than {LIST_MAX}")]
    ListTooLong {
        /// The list.
        list: List,
        /// Entries found.
        len: usize,
    },
    /// A list that must not be empty.
    #[error("the DAM lists no {list}")]
    ListEmpty {
        /// The list.
        list: List,
    },
    /// A list that is not in order.
    #[error("the DAM's {list} are not in order")]
    ListOrder {
        /// The list.
        list: List,
    },
    /// The same entry twice.
    #[error("the DAM's {list} repeat an entry")]
    ListRepeats {
        /// The list.
        list: List,
    },
    /// A key that is refused.
    #[error("number {index} of the DAM's {list} is refused")]
    Key {
        /// The list.
        list: List,
        /// Which entry, from 0.
        index: usize,
        /// Why.
        source: KeyError,
    },
    /// A threshold that cannot be met, or is met by nothing.
    #[error("the threshold over the DAM's {list} is {threshold}, not within 1 to {of}")]
    Threshold {
        /// The list that it counts.
        list: List,
        /// What it says.
        threshold: u8,
        /// Entries of the list.
        of: usize,
    },
    /// A personal domain that one root, or one phrase, does not speak for.
    #[error("a personal domain's threshold over its {list} is 1, not {threshold}")]
    PersonalThreshold {
        /// The list that it counts.
        list: List,
        /// What it says.
        threshold: u8,
    },
    /// A next key that is listed in the open already.
    #[error("the DAM commits to a next key that it lists in the open: {key}")]
    NextListed {
        /// The key.
        key: KeyId,
    },
    /// A principal that may do nothing.
    #[error("principal {key} has no role")]
    RolesEmpty {
        /// The principal.
        key: KeyId,
    },
    /// Roles that this program does not know.
    #[error("principal {key} has roles that this program does not know (bits {roles:#x})")]
    RolesUnknown {
        /// The principal.
        key: KeyId,
        /// All bits.
        roles: u16,
    },
    /// A checkpoint key with another role: it signs other people's text format and must not sign ours.
    #[error("principal {key} signs checkpoints and must have no other role")]
    CheckpointShared {
        /// The principal.
        key: KeyId,
    },
    /// A checkpoint key that is a root.
    #[error("root {key} must not sign checkpoints")]
    CheckpointRoot {
        /// The root.
        key: KeyId,
    },
    /// A principal that is revoked.
    #[error("principal {key} is revoked")]
    PrincipalRevoked {
        /// The principal.
        key: KeyId,
    },
    /// No such mode.
    #[error("{0} is no way of being witnessed")]
    WitnessMode(u8),
    /// Witnesses, or a threshold, where there are none.
    #[error(
        "the DAM says that it has no witnesses, but lists {members} with threshold {threshold}"
    )]
    WitnessNone {
        /// Members found.
        members: usize,
        /// Threshold found.
        threshold: u8,
    },
    /// Not exactly one.
    #[error("the DAM says that it has a single witness, but lists {members}")]
    WitnessSingle {
        /// Members found.
        members: usize,
    },
    /// A common domain without a quorum.
    #[error("a common domain is watched by a quorum of witnesses, not by {mode}")]
    CommonUnwitnessed {
        /// The mode found.
        mode: WitnessMode,
    },
    /// A witness that acts for the domain it should watch.
    #[error("witness {key} is a root or principal of the domain")]
    WitnessListed {
        /// The key.
        key: KeyId,
    },
    /// A witness that is revoked: an ordinary update could thereby drop it.
    #[error("witness {key} is revoked; a rotation takes it off the list first")]
    WitnessRevoked {
        /// The key.
        key: KeyId,
    },
    /// A name that signed notes cannot carry.
    #[error(
        "the name of witness {key} is empty, too long or not plain text without blanks and plus signs"
    )]
    WitnessName {
        /// The witness.
        key: KeyId,
    },
    /// Two witnesses of one name.
    #[error("two witnesses have the name of witness {key}")]
    WitnessNameTwice {
        /// The second of them.
        key: KeyId,
    },
    /// No such reason.
    #[error("{0} is no reason for a revocation")]
    Reason(u8),
    /// A label that is too long.
    #[error("the label has {len} bytes, more than {LABEL_MAX}")]
    LabelTooLong {
        /// Bytes found.
        len: usize,
    },
    /// A label that a terminal would obey, or that would look like another.
    #[error("the label holds the control character {character:?}")]
    LabelText {
        /// The first such character.
        character: char,
    },
}
