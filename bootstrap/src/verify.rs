//! What is proven about a store, by whom, since when; and what is not as it should be.
//!
//! [`verify`] reads the log once more from its first record ([`Domain::read`]): the first manifest gives the domain's id, each later
//! one must follow by the rules, each signature, checkpoint, cosignature and receipt is verified over the stored bytes. Then the
//! policy in force is held against what happened: captures and snapshots must have what it wants.
//!
//! Invariants
//! - A [`Statement`] is only what signatures that count say, and names every key with the manifest that lists it.
//! - What does not count is a [`Found`] with its [`Class`]; nothing is left out but what is history by the domain's own rules.
//! - Everything is about the log and the artifacts of authority. That the bytes of other artifacts are what their names say is
//!   for [`asl_store::verify`].
//!
//! Nothing is written; a crash leaves nothing.

use asl_store::id::SnapshotId;
use asl_store::{Key, LogPosition, SessionId, StoreHandle};

use crate::chain::{Fork, Node};
use crate::domain::{CheckpointState, Class, Domain, Finding};
use crate::error::Result;
use crate::id::{DomainId, KeyId};
use crate::lineage::Lineage;
use crate::manifests::Manifests;
use crate::mint::{Done, MintError};
use crate::policy::{Event, Refusal, Unsigned};
use crate::receipt::ReceiptKind;

/// A store that cannot be verified because it is not the one that was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Another domain, or none.
    #[error("the store is of {}, not of domain {expected}", .found.map_or("no domain".to_owned(), |id| format!("domain {id}")))]
    OtherDomain {
        /// The domain that was expected.
        expected: DomainId,
        /// The one found.
        found: Option<DomainId>,
    },
}

/// What a key signs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signing {
    /// A root, over a manifest.
    Root,
    /// A principal, to show that it holds the key that a manifest first lists.
    Principal,
    /// A host, over a receipt.
    Host,
    /// A checkpoint key.
    Checkpoint,
    /// A witness, over a checkpoint.
    Witness {
        /// Its name.
        name: String,
        /// When it says that it did, in seconds since 1970.
        time: u64,
    },
}

/// Somebody who vouches for a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voucher {
    /// The key.
    pub key: KeyId,
    /// As what it signed.
    pub signing: Signing,
    /// Version of the manifest that lists it.
    pub version: u64,
    /// The record that brought the signature.
    pub record: LogPosition,
}

/// The checkpoint that something is under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Under {
    /// Records that it covers.
    pub size: u64,
    /// Its record.
    pub record: LogPosition,
    /// Names of the witnesses that cosigned.
    pub witnesses: Vec<String>,
}

/// What is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The manifest is one of this domain and leads to the one in force.
    Manifest {
        /// Its artifact.
        dam: Key,
        /// Its version.
        version: u64,
        /// Its rotation count.
        rotation: u64,
        /// Whether it is a rotation: it reveals keys that the one before committed to.
        rotates: bool,
    },
    /// The log's records before this size are those that were signed.
    Records {
        /// How many.
        size: u64,
        /// Cosignatures that the manifest asks for; 0 where there are no witnesses.
        witnesses_needed: usize,
    },
    /// A session ended with this root.
    Session {
        /// What it was.
        kind: ReceiptKind,
        /// The session.
        session: SessionId,
        /// The root.
        root: Key,
        /// The record that ended it.
        end: LogPosition,
        /// The receipt.
        receipt: Key,
        /// The checkpoint that the receipt's record is under, if any.
        under: Option<Under>,
    },
    /// The roots signed a link to another domain.
    Lineage {
        /// Its artifact.
        artifact: Key,
        /// What it says; `None` if this program cannot read it.
        lineage: Option<Box<Lineage>>,
        /// Roots of the child that signed it too, ascending.
        child_signers: Vec<KeyId>,
        /// Whether these are as many as the child's manifest asks for.
        handed_over: bool,
    },
}

/// What is proven, by whom, since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What.
    pub claim: Claim,
    /// By whom: never nobody.
    pub vouchers: Vec<Voucher>,
    /// The record since which it is.
    pub since: LogPosition,
}

/// What is not as it should be.
#[derive(Debug)]
pub enum Wrong {
    /// Something in the log that does not count.
    Record(Finding),
    /// Two manifests of which only one can be meant, and no rotation settled which.
    Fork(Fork),
    /// From here on a revocation may be hidden.
    Blind,
    /// A finished session whose receipt nobody signed.
    Unsigned {
        /// What it was.
        kind: ReceiptKind,
        /// The session.
        session: SessionId,
        /// Why that is refused; none where it is only to be said.
        refusal: Option<Refusal>,
    },
    /// The policy wants a checkpoint after this.
    NoCheckpoint {
        /// The newest capture of those that have none.
        session: Option<SessionId>,
        /// The newest snapshot of those that have none.
        snapshot: Option<SnapshotId>,
        /// How many have none.
        count: usize,
        /// The rule.
        refusal: Refusal,
    },
}

/// Something that is not as it should be, and how bad that is.
#[derive(Debug)]
pub struct Found {
    /// The record that it is about.
    pub position: LogPosition,
    /// How bad.
    pub class: Class,
    /// What.
    pub wrong: Wrong,
}

/// What a store's log proves.
#[derive(Debug)]
pub struct Report {
    /// The domain as the log has it.
    pub domain: Domain,
    /// What is proven: manifests, records, sessions, each in the order of the log.
    pub proven: Vec<Statement>,
    /// What is not as it should be, in the order of the log.
    pub found: Vec<Found>,
}

impl Report {
    /// The worst of what was found; none or [`Class::Note`] where nothing counts that should not.
    pub fn class(&self) -> Option<Class> {
        self.found.iter().map(|found| found.class).max()
    }

    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.class().is_none_or(|class| class == Class::Note)
    }
}

/// Reads everything and judges it. `finished` are the sessions that should have a receipt, as the library that ran them knows them;
/// with `expected`, no other domain will do.
///
/// # Errors
/// [`VerifyError`]; [`MintError::NoDomain`]; [`DomainError`](crate::DomainError) where the first manifest cannot be used;
/// [`asl_store::Error`] where the log itself cannot be read.
pub fn verify(
    store: &StoreHandle,
    finished: &[Done],
    expected: Option<&DomainId>,
) -> Result<Report> {
    judge(Domain::read(store)?, store, finished, expected)
}

/// The same for an instance that does not lie alone; see [`Domain::read_among`].
///
/// # Errors
/// As [`verify`].
pub fn verify_among(
    store: &StoreHandle,
    manifests: &Manifests,
    finished: &[Done],
    expected: &DomainId,
) -> Result<Report> {
    let found = Domain::read_among(store, manifests)?;
    judge(found, store, finished, Some(expected))
}

fn judge(
    found: Option<Domain>,
    store: &StoreHandle,
    finished: &[Done],
    expected: Option<&DomainId>,
) -> Result<Report> {
    if let Some(expected) = expected {
        let found = found.as_ref().map(Domain::id);
        if found != Some(*expected) {
            let expected = *expected;
            return Err(VerifyError::OtherDomain { expected, found }.into());
        }
    }
    let mut domain = found.ok_or(MintError::NoDomain)?;
    let mut proven = manifests(&domain);
    proven.extend(
        domain
            .checkpoints
            .iter()
            .map(|state| records(&domain, state)),
    );
    proven.extend(sessions(&domain));
    proven.extend(lineage(&domain));
    let mut found = unsigned(&domain, finished);
    found.extend(unchecked(&domain, store, finished));
    found.extend(unsettled(&domain));
    found.extend(domain.blind.map(|position| Found {
        position,
        class: Class::Authority,
        wrong: Wrong::Blind,
    }));
    let classes: Vec<Class> = domain
        .findings
        .iter()
        .map(|finding| domain.class_of(finding))
        .collect();
    let findings = std::mem::take(&mut domain.findings);
    found.extend(
        findings
            .into_iter()
            .zip(classes)
            .map(|(finding, class)| Found {
                position: finding.position,
                class,
                wrong: Wrong::Record(finding),
            }),
    );
    found.sort_by_key(|found| found.position);
    Ok(Report {
        domain,
        proven,
        found,
    })
}

/// The manifests from the first to the one in force.
fn manifests(domain: &Domain) -> Vec<Statement> {
    let mut statements: Vec<Statement> = Vec::new();
    let mut before: Option<&Node> = None;
    for node in domain.chain.path() {
        let Some(since) = record_of(domain, &node.key) else {
            // Another instance's log proves it.
            before = Some(node);
            continue;
        };
        let voucher = |key: &KeyId| {
            let is_root = |node: &&Node| node.dam.roots.iter().any(|root| root.id() == *key);
            let signing = match [Some(node), before]
                .into_iter()
                .flatten()
                .any(|node| is_root(&node))
            {
                true => Signing::Root,
                false => Signing::Principal,
            };
            Voucher {
                key: *key,
                signing,
                version: node.dam.version,
                record: since,
            }
        };
        let mut vouchers: Vec<Voucher> = node.signers.iter().map(voucher).collect();
        vouchers.sort_by_key(|by| (by.signing != Signing::Root, by.key));
        statements.push(Statement {
            claim: Claim::Manifest {
                dam: node.key,
                version: node.dam.version,
                rotation: node.dam.rotation,
                rotates: before.is_some_and(|before| before.dam.rotation != node.dam.rotation),
            },
            vouchers,
            since,
        });
        before = Some(node);
    }
    statements
}

/// The record of this log that brought a manifest.
fn record_of(domain: &Domain, dam: &Key) -> Option<LogPosition> {
    domain.manifests.get(dam).copied()
}

/// What a checkpoint proves.
fn records(domain: &Domain, state: &CheckpointState) -> Statement {
    let dam = manifest(domain, &state.in_force);
    let signed = state.signers.iter().map(|key| Voucher {
        key: *key,
        signing: Signing::Checkpoint,
        version: dam.dam.version,
        record: state.record,
    });
    let cosigned = state.cosigners.iter().map(|(key, cosigned)| Voucher {
        key: *key,
        signing: Signing::Witness {
            name: name_of(dam, key),
            time: cosigned.time,
        },
        version: dam.dam.version,
        record: cosigned.record,
    });
    Statement {
        claim: Claim::Records {
            size: state.size,
            witnesses_needed: usize::from(dam.dam.witness.threshold),
        },
        vouchers: signed.chain(cosigned).collect(),
        since: state.record,
    }
}

fn manifest<'d>(domain: &'d Domain, key: &Key) -> &'d Node {
    let node = domain.chain.node(key);
    node.expect("a manifest that was in force is in the chain")
}

fn name_of(node: &Node, witness: &KeyId) -> String {
    let mut members = node.dam.witness.members.iter();
    let member = members.find(|member| member.key.id() == *witness);
    member.map_or_else(String::new, |member| member.name.clone())
}

/// What signed receipts prove.
fn sessions(domain: &Domain) -> impl Iterator<Item = Statement> {
    let signed = domain.receipts.iter();
    let signed = signed.filter(|state| !state.signers.is_empty());
    signed.map(move |state| {
        let vouchers: Vec<Voucher> = (state.signers.iter())
            .map(|(key, signed)| Voucher {
                key: *key,
                signing: Signing::Host,
                version: manifest(domain, &signed.in_force).dam.version,
                record: signed.record,
            })
            .collect();
        let since = vouchers.iter().map(|voucher| voucher.record).min();
        let since = since.unwrap_or(state.record);
        let receipt = &state.receipt;
        Statement {
            claim: Claim::Session {
                kind: receipt.kind,
                session: receipt.session,
                root: receipt.subject,
                end: receipt.position,
                receipt: state.key,
                under: under(domain, since),
            },
            vouchers,
            since,
        }
    })
}

/// The first counting checkpoint over a record that has its witnesses, or else the first.
fn under(domain: &Domain, record: LogPosition) -> Option<Under> {
    let over: Vec<&CheckpointState> = (domain.checkpoints.iter())
        .filter(|state| state.size > record.0)
        .collect();
    let enough = |state: &&&CheckpointState| {
        let witness = &manifest(domain, &state.in_force).dam.witness;
        let (have, need) = witness.count(state.cosigners.keys());
        have >= need
    };
    let best = over.iter().find(enough).or(over.first())?;
    let node = manifest(domain, &best.in_force);
    Some(Under {
        size: best.size,
        record: best.record,
        witnesses: best
            .cosigners
            .keys()
            .map(|key| name_of(node, key))
            .collect(),
    })
}

fn lineage(domain: &Domain) -> impl Iterator<Item = Statement> {
    domain.lineage.iter().map(move |state| Statement {
        claim: Claim::Lineage {
            artifact: state.key,
            lineage: state.lineage.clone().map(Box::new),
            child_signers: state.child_signers.clone(),
            handed_over: state.handed_over,
        },
        vouchers: (state.signers.iter())
            .map(|key| Voucher {
                key: *key,
                signing: Signing::Root,
                version: manifest(domain, &state.in_force).dam.version,
                record: state.record,
            })
            .collect(),
        since: state.record,
    })
}

/// The rule `unsigned-captures`, held against the sessions.
fn unsigned(domain: &Domain, finished: &[Done]) -> Vec<Found> {
    let mut found = Vec::new();
    for done in finished {
        let receipt = domain.receipt(done.session, done.root);
        if receipt.is_some_and(|state| !state.signers.is_empty()) {
            continue;
        }
        let (class, refusal) = match domain.chain.head().policy.unsigned_capture() {
            Ok(Unsigned::Fine) => continue,
            Ok(Unsigned::Report) => (Class::Note, None),
            Err(refusal) => (Class::Policy, Some(refusal)),
        };
        found.push(Found {
            position: end_of(domain, done).unwrap_or(LogPosition(0)),
            class,
            wrong: Wrong::Unsigned {
                kind: done.kind,
                session: done.session,
                refusal,
            },
        });
    }
    found
}

fn end_of(domain: &Domain, done: &Done) -> Option<LogPosition> {
    let receipt = domain.receipt_of(done.kind, done.session, done.root)?;
    Some(receipt.position)
}

/// The rule `checkpoints`, held against snapshots and ends of captures.
fn unchecked(domain: &Domain, store: &StoreHandle, finished: &[Done]) -> Vec<Found> {
    let policy = &domain.chain.head().policy;
    let covered = domain.covered();
    let wanting = |event, position: LogPosition| {
        let refused = policy.require_checkpoint(event, position.0 < covered);
        refused.err().map(|refusal| (position, refusal))
    };
    let snapshots = store.with_state(|state| state.snapshots.clone());
    let snapshots: Vec<_> = (snapshots.iter())
        .filter_map(|info| {
            let (position, refusal) = wanting(Event::Snapshot, LogPosition(info.position))?;
            Some((position, None, Some(info.id()), refusal))
        })
        .collect();
    let captures: Vec<_> = (finished.iter())
        .filter(|done| done.kind == ReceiptKind::Capture)
        .filter_map(|done| {
            let (position, refusal) = wanting(Event::CaptureEnd, end_of(domain, done)?)?;
            Some((position, Some(done.session), None, refusal))
        })
        .collect();
    let mut found = Vec::new();
    for events in [snapshots, captures] {
        let count = events.len();
        // One checkpoint mends them all, so the newest stands for the others.
        let newest = events.into_iter().max_by_key(|event| event.0);
        found.extend(newest.map(|(position, session, snapshot, refusal)| Found {
            position,
            class: Class::Policy,
            wrong: Wrong::NoCheckpoint {
                session,
                snapshot,
                count,
                refusal,
            },
        }));
    }
    found
}

/// Forks that nothing settled, unless a finding tells of them.
fn unsettled(domain: &Domain) -> Vec<Found> {
    let told = |fork: &Fork| {
        let mut findings = domain.findings.iter();
        findings.any(|finding| {
            finding.artifact == fork.theirs && domain.class_of(finding) == Class::Fork
        })
    };
    let forks = domain.chain.forks().into_iter();
    let untold = forks.filter(|fork| !told(fork));
    untold
        .map(|fork| Found {
            position: record_of(domain, &fork.ours).unwrap_or(LogPosition(0)),
            class: Class::Fork,
            wrong: Wrong::Fork(fork),
        })
        .collect()
}

#[cfg(test)]
mod lineage_tests;
#[cfg(test)]
mod tests;
