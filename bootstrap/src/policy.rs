//! The policy of a domain: six rules with a few values each, and no language.
//!
//! Invariants
//! - A policy is 14 bytes: [`POLICY_MAGIC`] and one byte for each rule. Any other length or value is refused.
//! - Every rule is enforced by one function here (or, for `recovery`, by [`crate::chain`]), which tells the caller
//!   which rule it was that refused.
//! - Where a rule has an order from lax to strict, its values are in that order.

use asl_store::Key;

use crate::dam::{Dam, Kind, Roles, Witness, WitnessMode};
use crate::id::KeyId;

/// First bytes of a policy artifact.
pub const POLICY_MAGIC: &[u8; 8] = b"ASLPOL1\n";
/// Length of a policy artifact.
pub const POLICY_LEN: usize = POLICY_MAGIC.len() + 6;

/// What is not a policy, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The first bytes are others.
    #[error("not a policy: it does not begin with ASLPOL1")]
    Magic,
    /// Bytes are missing, or too many.
    #[error("a policy has {POLICY_LEN} bytes, this has {len}")]
    Length {
        /// Bytes found.
        len: usize,
    },
    /// A value that the rule does not have.
    #[error("the policy's rule {rule} has no value {value}")]
    Value {
        /// The rule.
        rule: Rule,
        /// The byte found.
        value: u8,
    },
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Names the rules of a policy.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $($(#[$doc])* $name,)* }
        impl Rule {
            /// Every rule, in the order of the artifact.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
        impl std::fmt::Display for Rule {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}
rules! {
    /// [`Policy::foreign`].
    Foreign = "foreign",
    /// [`Policy::unsigned_captures`].
    UnsignedCaptures = "unsigned-captures",
    /// [`Policy::checkpoints`].
    Checkpoints = "checkpoints",
    /// [`Policy::witnessed`].
    Witnessed = "witnessed",
    /// [`Policy::recovery`].
    Recovery = "recovery",
    /// [`Policy::after_revocation`].
    AfterRevocation = "after-revocation",
}

/// Text that names no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rules of a policy are {}", Rule::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
pub struct UnknownRule;

impl std::str::FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(text: &str) -> Result<Self, UnknownRule> {
        let mut all = Self::ALL.iter();
        all.find(|rule| rule.to_string() == text)
            .copied()
            .ok_or(UnknownRule)
    }
}

macro_rules! values {
    ($(#[$doc:meta])* $name:ident, $rule:ident { $($(#[$vdoc:meta])* $value:ident = $byte:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $value = $byte,)* }
        impl $name {
            /// Every value, in order.
            pub const ALL: &[Self] = &[$(Self::$value,)*];

            fn from_byte(value: u8) -> Result<Self, PolicyError> {
                match value {
                    $($byte => Ok(Self::$value),)*
                    value => Err(PolicyError::Value { rule: Rule::$rule, value }),
                }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$value => $text,)* })
            }
        }
        impl std::str::FromStr for $name {
            type Err = UnknownValue;
            fn from_str(text: &str) -> Result<Self, UnknownValue> {
                match text {
                    $($text => Ok(Self::$value),)*
                    _ => Err(UnknownValue { rule: Rule::$rule, values: &[$($text),*] }),
                }
            }
        }
    };
}

/// Text that names no value of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rule {rule} is one of {}", values.join(", "))]
pub struct UnknownValue {
    /// The rule.
    pub rule: Rule,
    /// What it can be.
    pub values: &'static [&'static str],
}

values! {
    /// How far what comes from another domain is let in.
    Foreign, Foreign {
        /// Kept apart; nobody sees it as ours.
        Quarantine = 0 "quarantine",
        /// Bytes are stored and found by key; their captures, receipts and claims mean nothing here.
        Bytes = 1 "bytes",
        /// Captures and claims are taken over.
        Semantics = 2 "semantics",
    }
}
values! {
    /// What a capture counts whose receipt nobody signed.
    UnsignedCaptures, UnsignedCaptures {
        /// It is fine.
        Allow = 0 "allow",
        /// It is fine but said.
        Report = 1 "report",
        /// It is a finding that fails verification and promotion.
        Refuse = 2 "refuse",
    }
}
values! {
    /// When the log must carry a signed checkpoint.
    Checkpoints, Checkpoints {
        /// Never.
        Optional = 0 "optional",
        /// At each snapshot.
        AtSnapshot = 1 "at-snapshot",
        /// At each snapshot and at the end of each capture.
        AtCapture = 2 "at-capture",
    }
}
values! {
    /// Whether a checkpoint counts without the witnesses.
    Witnessed, Witnessed {
        /// It does.
        Optional = 0 "optional",
        /// Only with the cosignatures that the DAM's witness threshold asks for.
        Required = 1 "required",
    }
}
values! {
    /// Whether a rotation of a group or common domain needs its current roots too.
    Recovery, Recovery {
        /// The revealed next keys are enough, so roots may be lost.
        WithoutRoots = 0 "without-roots",
        /// The current roots must sign at their threshold as well, so stolen next keys are not enough.
        NeedsRoots = 1 "needs-roots",
    }
}
values! {
    /// What signatures of a revoked key still count.
    AfterRevocation, AfterRevocation {
        /// Those on records before the position that the revocation names.
        KeepBeforePosition = 0 "keep-before-position",
        /// Of those, only the ones that a counting checkpoint covers: whoever has the key could otherwise have put records
        /// before the position into a copy of the log.
        KeepOnlyCheckpointed = 1 "keep-only-checkpointed",
    }
}

/// A refusal by policy: the rule and what it saw.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More is asked of something foreign than the policy lets in.
    #[error(
        "the policy's rule {} lets foreign material in as {allowed}, not as {asked}",
        Rule::Foreign
    )]
    Foreign {
        /// What was asked.
        asked: Foreign,
        /// What the policy allows.
        allowed: Foreign,
    },
    /// A capture without a signed receipt.
    #[error(
        "the policy's rule {} refuses a capture whose receipt is unsigned",
        Rule::UnsignedCaptures
    )]
    UnsignedCapture,
    /// A snapshot or capture without a checkpoint over it.
    #[error(
        "the policy's rule {} wants a checkpoint after {event}",
        Rule::Checkpoints
    )]
    NoCheckpoint {
        /// What has none.
        event: Event,
    },
    /// A checkpoint that too few witnesses cosigned.
    #[error(
        "the policy's rule {} wants {need} cosignatures on a checkpoint; {have} count",
        Rule::Witnessed
    )]
    NotWitnessed {
        /// Distinct listed witnesses.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// A signature by a revoked key on a record that came too late, or in a store that the revocation does not name.
    #[error(
        "key {key} was revoked before this record (rule {})",
        Rule::AfterRevocation
    )]
    Revoked {
        /// The key.
        key: KeyId,
    },
    /// A signature by a key revoked later, on a record that no checkpoint covers.
    #[error(
        "key {key} is revoked, and no checkpoint covers this earlier record of it (rule {})",
        Rule::AfterRevocation
    )]
    RevokedUncovered {
        /// The key.
        key: KeyId,
    },
    /// The policy wants witnesses where the DAM lists none.
    #[error(
        "the policy's rule {} wants witnesses and the domain has none",
        Rule::Witnessed
    )]
    NoWitnesses,
    /// A host that is no writer of a common domain.
    #[error("this host is no writer of the common domain, which is read-only here")]
    ReadOnly,
}

/// What a checkpoint may be due after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A snapshot was made.
    Snapshot,
    /// A capture ended.
    CaptureEnd,
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Snapshot => "a snapshot",
            Self::CaptureEnd => "the end of a capture",
        })
    }
}

/// How an unsigned capture is to be treated where it is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unsigned {
    /// Nothing need be said.
    Fine,
    /// Say it, and go on.
    Report,
}

/// The six rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// How far foreign material is let in.
    pub foreign: Foreign,
    /// What a capture without a signed receipt counts.
    pub unsigned_captures: UnsignedCaptures,
    /// When checkpoints are due.
    pub checkpoints: Checkpoints,
    /// Whether checkpoints need witnesses.
    pub witnessed: Witnessed,
    /// What a rotation needs besides the revealed keys.
    pub recovery: Recovery,
    /// What revoked keys leave behind.
    pub after_revocation: AfterRevocation,
}

impl Policy {
    /// What a new domain of this kind begins with, unless its maker says otherwise.
    pub fn default_of(kind: Kind) -> Self {
        Self {
            // In a personal domain nothing comes in but what its own root signed for: a second lock only hinders.
            foreign: match kind {
                Kind::Personal => Foreign::Semantics,
                Kind::Group | Kind::Common => Foreign::Quarantine,
            },
            unsigned_captures: match kind {
                Kind::Personal => UnsignedCaptures::Report,
                Kind::Group => UnsignedCaptures::Report,
                Kind::Common => UnsignedCaptures::Refuse,
            },
            checkpoints: match kind {
                Kind::Personal => Checkpoints::Optional,
                Kind::Group | Kind::Common => Checkpoints::AtSnapshot,
            },
            witnessed: match kind {
                Kind::Personal | Kind::Group => Witnessed::Optional,
                Kind::Common => Witnessed::Required,
            },
            recovery: match kind {
                Kind::Personal => Recovery::WithoutRoots,
                Kind::Group | Kind::Common => Recovery::NeedsRoots,
            },
            after_revocation: match kind {
                Kind::Personal | Kind::Group => AfterRevocation::KeepBeforePosition,
                Kind::Common => AfterRevocation::KeepOnlyCheckpointed,
            },
        }
    }

    /// The value of a rule, as [`set`](Self::set) takes it.
    pub fn value(&self, rule: Rule) -> String {
        match rule {
            Rule::Foreign => self.foreign.to_string(),
            Rule::UnsignedCaptures => self.unsigned_captures.to_string(),
            Rule::Checkpoints => self.checkpoints.to_string(),
            Rule::Witnessed => self.witnessed.to_string(),
            Rule::Recovery => self.recovery.to_string(),
            Rule::AfterRevocation => self.after_revocation.to_string(),
        }
    }

    /// Changes a rule.
    ///
    /// # Errors
    /// [`UnknownValue`], which lists what the rule can be.
    pub fn set(&mut self, rule: Rule, value: &str) -> Result<(), UnknownValue> {
        match rule {
            Rule::Foreign => self.foreign = value.parse()?,
            Rule::UnsignedCaptures => self.unsigned_captures = value.parse()?,
            Rule::Checkpoints => self.checkpoints = value.parse()?,
            Rule::Witnessed => self.witnessed = value.parse()?,
            Rule::Recovery => self.recovery = value.parse()?,
            Rule::AfterRevocation => self.after_revocation = value.parse()?,
        }
        Ok(())
    }

    /// Reads a policy artifact.
    ///
    /// # Errors
    /// [`PolicyError`], telling the rule.
    pub fn decode(bytes: &[u8]) -> Result<Self, PolicyError> {
        let body = bytes.strip_prefix(POLICY_MAGIC).ok_or(PolicyError::Magic)?;
        let &[foreign, unsigned, checkpoints, witnessed, recovery, revoked] = body else {
            return Err(PolicyError::Length { len: bytes.len() });
        };
        Ok(Self {
            foreign: Foreign::from_byte(foreign)?,
            unsigned_captures: UnsignedCaptures::from_byte(unsigned)?,
            checkpoints: Checkpoints::from_byte(checkpoints)?,
            witnessed: Witnessed::from_byte(witnessed)?,
            recovery: Recovery::from_byte(recovery)?,
            after_revocation: AfterRevocation::from_byte(revoked)?,
        })
    }

    /// The artifact.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = POLICY_MAGIC.to_vec();
        bytes.extend([
            self.foreign as u8,
            self.unsigned_captures as u8,
            self.checkpoints as u8,
            self.witnessed as u8,
            self.recovery as u8,
            self.after_revocation as u8,
        ]);
        bytes
    }

    /// Name of the artifact, as a DAM states it.
    pub fn key(&self) -> Key {
        Key::of(&self.encode())
    }

    /// Rule `foreign`: whether foreign material may be let in as far as `asked`.
    ///
    /// # Errors
    /// [`Refusal::Foreign`].
    pub fn admit_foreign(&self, asked: Foreign) -> Result<(), Refusal> {
        if asked > self.foreign {
            return Err(Refusal::Foreign {
                asked,
                allowed: self.foreign,
            });
        }
        Ok(())
    }

    /// Rule `unsigned-captures`: what to do about a finished capture without a counting signature on its receipt.
    ///
    /// # Errors
    /// [`Refusal::UnsignedCapture`].
    pub fn unsigned_capture(&self) -> Result<Unsigned, Refusal> {
        match self.unsigned_captures {
            UnsignedCaptures::Allow => Ok(Unsigned::Fine),
            UnsignedCaptures::Report => Ok(Unsigned::Report),
            UnsignedCaptures::Refuse => Err(Refusal::UnsignedCapture),
        }
    }

    /// Rule `checkpoints`: whether one is due after `event`.
    pub fn checkpoint_due(&self, event: Event) -> bool {
        self.checkpoints
            >= match event {
                Event::Snapshot => Checkpoints::AtSnapshot,
                Event::CaptureEnd => Checkpoints::AtCapture,
            }
    }

    /// Rule `checkpoints`, looked at afterwards: `covered` tells whether a counting checkpoint covers the event's record.
    ///
    /// # Errors
    /// [`Refusal::NoCheckpoint`].
    pub fn require_checkpoint(&self, event: Event, covered: bool) -> Result<(), Refusal> {
        if self.checkpoint_due(event) && !covered {
            return Err(Refusal::NoCheckpoint { event });
        }
        Ok(())
    }

    /// Rule `witnessed`: whether a checkpoint with verified cosignatures by `cosigners` counts. Keys that `witness` does not
    /// list, and repetitions, add nothing.
    ///
    /// # Errors
    /// [`Refusal::NotWitnessed`], [`Refusal::NoWitnesses`].
    pub fn accept_checkpoint<'a>(
        &self,
        witness: &Witness,
        cosigners: impl IntoIterator<Item = &'a KeyId>,
    ) -> Result<(), Refusal> {
        if self.witnessed == Witnessed::Optional {
            return Ok(());
        }
        self.satisfiable(witness)?;
        let (have, need) = witness.count(cosigners);
        if have < need {
            return Err(Refusal::NotWitnessed { have, need });
        }
        Ok(())
    }

    /// Whether these witnesses can ever satisfy the policy: a DAM with a policy that they cannot is refused.
    ///
    /// # Errors
    /// [`Refusal::NoWitnesses`].
    pub fn satisfiable(&self, witness: &Witness) -> Result<(), Refusal> {
        if self.witnessed == Witnessed::Required && witness.mode == WitnessMode::None {
            return Err(Refusal::NoWitnesses);
        }
        Ok(())
    }

    /// Rule `recovery`: whether a rotation of a domain of this kind needs the current roots besides the revealed keys. A personal
    /// domain never does: its phrase must always be enough.
    pub fn rotation_needs_roots(&self, kind: Kind) -> bool {
        kind != Kind::Personal && self.recovery == Recovery::NeedsRoots
    }

    /// Rule `after-revocation`: whether a signature on a record counts, given that its key is revoked by `dam` or is not.
    /// `store` and `position` are the record's; `covered` tells whether a counting checkpoint covers it.
    ///
    /// # Errors
    /// [`Refusal::Revoked`], [`Refusal::RevokedUncovered`].
    pub fn signature_counts(
        &self,
        dam: &Dam,
        key: &KeyId,
        store: asl_store::StoreId,
        position: asl_store::LogPosition,
        covered: bool,
    ) -> Result<(), Refusal> {
        if !dam.revokes(key) {
            return Ok(());
        }
        let before = dam
            .revoked
            .iter()
            .any(|r| r.key == *key && r.store == store && position < r.position);
        if !before {
            return Err(Refusal::Revoked { key: *key });
        }
        if self.after_revocation == AfterRevocation::KeepOnlyCheckpointed && !covered {
            return Err(Refusal::RevokedUncovered { key: *key });
        }
        Ok(())
    }
}

/// Whether the host with this key may write into a store of the domain. Personal and group domains take bytes from anybody who
/// has the medium; a common domain is read-only but for hosts that its DAM lists with [`Roles::PRODUCE`].
///
/// # Errors
/// [`Refusal::ReadOnly`].
pub fn may_write(dam: &Dam, host: Option<&KeyId>) -> Result<(), Refusal> {
    let listed = |host: &KeyId| dam.has_role(host, Roles::PRODUCE);
    if dam.kind == Kind::Common && !host.is_some_and(listed) {
        return Err(Refusal::ReadOnly);
    }
    Ok(())
}
