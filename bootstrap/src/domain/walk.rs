//! Folding the log: what its records of authority name is read and judged as far as it can be at that place; what depends on
//! later manifests (revocations, voided updates) or on the tree is judged at the end ([`judge`]).

mod judge;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use asl_store::id::Digest;
use asl_store::log::Record;
use asl_store::{Authority, AuthorityRecord, Key, LogPosition, StoreHandle, StoreId};

use super::finding::{Finding, Problem};
use super::{
    CLAIMS_MAX, CheckpointState, Cosigned, Domain, DomainError, LineageState, SessionEnd,
    session_end,
};
use crate::chain::{Candidate, Chain, ChainError, Node};
use crate::checkpoint::{Checkpoint, CheckpointError, Origin, SignedCheckpoint};
use crate::dam::{DAM_LEN_MAX, Dam, Roles};
use crate::error::Result;
use crate::id::{DomainId, KeyId};
use crate::key::PublicKey;
use crate::lineage::{Lineage, Op};
use crate::manifests::Manifests;
use crate::note::{NOTE_LEN_MAX, Note};
use crate::policy::{POLICY_LEN, Policy};
use crate::receipt::Receipt;
use crate::sign::{Context, Signature, signers};
use crate::tlog::{Frontier, TreeHash};
use crate::witness::Quorum;

/// No signature artifact is longer.
const SIGNATURE_LEN_MAX: usize = 256;

/// A checkpoint that a listed key signed.
struct CheckpointClaim {
    record: LogPosition,
    key: Key,
    size: u64,
    root: TreeHash,
    signers: Vec<KeyId>,
    cosigners: BTreeMap<KeyId, Cosigned>,
    note: Key,
    /// The manifest in force at the record.
    in_force: Key,
}

impl CheckpointClaim {
    fn counted(self, signers: Vec<KeyId>) -> CheckpointState {
        CheckpointState {
            record: self.record,
            key: self.key,
            size: self.size,
            root: self.root,
            signers,
            cosigners: self.cosigners,
            note: self.note,
            in_force: self.in_force,
        }
    }

    /// Adds what a later note has more.
    fn add(&mut self, note: Key, cosigners: BTreeMap<KeyId, Cosigned>) {
        for (key, cosigned) in cosigners {
            let known = self.cosigners.entry(key).or_insert(cosigned);
            known.time = known.time.max(cosigned.time);
            self.note = note;
        }
    }
}

/// A verified signature of a receipt.
struct ReceiptSignature {
    record: LogPosition,
    artifact: Key,
    signer: KeyId,
    in_force: Key,
}

struct ReceiptClaim {
    key: Key,
    receipt: Receipt,
    record: LogPosition,
    signatures: Vec<ReceiptSignature>,
}

struct Walk<'s> {
    store: &'s StoreHandle,
    store_id: StoreId,
    chain: Option<Chain>,
    manifests: BTreeMap<Key, LogPosition>,
    /// Records of manifests, each with the manifest it is about.
    bodies: BTreeMap<LogPosition, Key>,
    checkpoints: Vec<CheckpointClaim>,
    /// The first claim of each size and root: cosignatures that come later are added to it.
    checkpoint_at: HashMap<(u64, TreeHash), usize>,
    receipts: Vec<ReceiptClaim>,
    receipt_at: HashMap<Key, usize>,
    policies: Vec<(LogPosition, Key)>,
    lineage: Vec<LineageState>,
    ends: BTreeMap<LogPosition, SessionEnd>,
    findings: Vec<Finding>,
    failed: Option<DomainError>,
}

/// A log that was read once.
struct Folded<'s> {
    walk: Walk<'s>,
    tree: Frontier,
    head: Digest,
}

/// Reads the log with what is known of the domain before its first record.
fn fold(store: &StoreHandle, chain: Option<Chain>) -> Result<Folded<'_>> {
    let store_id = store.with_state(asl_store::state::State::store_id);
    let mut walk = Walk {
        store,
        store_id,
        chain,
        manifests: BTreeMap::new(),
        bodies: BTreeMap::new(),
        checkpoints: Vec::new(),
        checkpoint_at: HashMap::new(),
        receipts: Vec::new(),
        receipt_at: HashMap::new(),
        policies: Vec::new(),
        lineage: Vec::new(),
        ends: BTreeMap::new(),
        findings: Vec::new(),
        failed: None,
    };
    let mut tree = Frontier::new();
    let mut head = Digest([0; 32]);
    store.records(LogPosition(0), &mut |record, raw| {
        tree.push_record(raw);
        head = record.chain;
        walk.record(record);
        Ok(())
    })?;
    Ok(Folded { walk, tree, head })
}

pub(super) fn read(store: &StoreHandle, among: Option<&Manifests>) -> Result<Option<Domain>> {
    let mut folded = fold(store, None)?;
    if let Some(error) = folded.walk.failed {
        return Err(error.into());
    }
    if let Some(manifests) = among {
        match &mut folded.walk.chain {
            Some(chain) => {
                manifests.tell(chain);
                folded.walk.told();
            }
            None => {
                if let Some(chain) = manifests.chain() {
                    folded = fold(store, Some(chain))?;
                }
            }
        }
    }
    let Folded { walk, tree, head } = folded;
    if walk.chain.is_none() {
        return Ok(None);
    }
    let roots = roots(store, &walk.checkpoints, &tree)?;
    Ok(walk.judge(tree, head, &roots))
}

/// The roots of the tree at the sizes that checkpoints state.
fn roots(
    store: &StoreHandle,
    checkpoints: &[CheckpointClaim],
    whole: &Frontier,
) -> Result<HashMap<u64, TreeHash>> {
    let mut wanted: BTreeSet<u64> = checkpoints.iter().map(|claim| claim.size).collect();
    let mut roots = HashMap::new();
    for size in [0, whole.size()] {
        if wanted.remove(&size) {
            let tree = if size == 0 { &Frontier::new() } else { whole };
            roots.insert(size, tree.root());
        }
    }
    if wanted.is_empty() {
        return Ok(roots);
    }
    let mut tree = Frontier::new();
    store.records(LogPosition(0), &mut |_, raw| {
        tree.push_record(raw);
        if wanted.contains(&tree.size()) {
            roots.insert(tree.size(), tree.root());
        }
        Ok(())
    })?;
    Ok(roots)
}

/// An artifact that a record names, hidden or not; never more than `max` bytes, whatever a hostile store holds.
fn fetch(store: &StoreHandle, key: &Key, max: usize) -> Result<Vec<u8>, Problem> {
    let found = store.lookup_part(key).map_err(Problem::Unreadable)?;
    let len = found.ok_or(Problem::Missing)?.raw_len;
    let max = max as u64;
    if len > max {
        return Err(Problem::TooLong { len, max });
    }
    store.get_part(key).map_err(Problem::Unreadable)
}

impl Walk<'_> {
    fn record(&mut self, record: &Record) {
        if self.failed.is_some() {
            return;
        }
        if let Some(end) = session_end(record) {
            self.ends.insert(record.position, end);
        }
        let Some(AuthorityRecord { kind, keys }) = AuthorityRecord::of_record(record) else {
            return;
        };
        let (position, body) = (record.position, keys[0]);
        let judged = match kind {
            Authority::Dam => self.dam(position, &keys),
            Authority::Checkpoint | Authority::Witness => self.checkpoint(position, kind, body),
            Authority::Receipt => self.receipt(position, &keys),
            Authority::Policy => self.policy(position, body),
            Authority::Lineage => self.lineage(record, &keys),
        };
        if let Err(problem) = judged {
            self.find(position, kind, body, problem);
        }
    }

    fn find(&mut self, position: LogPosition, about: Authority, artifact: Key, problem: Problem) {
        self.findings.push(Finding {
            position,
            about,
            artifact,
            problem,
        });
    }

    fn dam(&mut self, position: LogPosition, keys: &[Key]) -> Result<(), Problem> {
        let key = keys[0];
        self.bodies.insert(position, key);
        let known = |chain: &Chain| chain.node(&key).is_some();
        if self.chain.as_ref().is_some_and(known) {
            // A record that was logged again from blocks.
            return Ok(());
        }
        let taken = self.take_dam(position, keys);
        match (taken, &self.chain) {
            (Ok(()), _) => {
                self.manifests.insert(key, position);
                // It may have been refused before for want of signatures that came later.
                let about =
                    |finding: &Finding| finding.about == Authority::Dam && finding.artifact == key;
                self.findings.retain(|finding| !about(finding));
                Ok(())
            }
            (Err(source), None) => {
                self.failed = Some(DomainError::Genesis {
                    position,
                    dam: key,
                    source: Box::new(source),
                });
                Ok(())
            }
            (Err(Problem::Manifest(ChainError::Replayed { .. })), _) => Ok(()),
            (Err(problem), Some(chain)) => {
                if known(chain) {
                    self.manifests.insert(key, position);
                }
                Err(problem)
            }
        }
    }

    /// What this log could not place, because only another one has what it continues.
    fn told(&mut self) {
        let Some(chain) = &self.chain else {
            return;
        };
        for (position, key) in &self.bodies {
            if chain.node(key).is_none() || self.manifests.contains_key(key) {
                continue;
            }
            self.manifests.insert(*key, *position);
            self.findings.retain(|finding| {
                let unplaced = matches!(
                    finding.problem,
                    Problem::Manifest(ChainError::UnknownPrev { .. })
                );
                !(unplaced && finding.about == Authority::Dam && finding.artifact == *key)
            });
        }
    }

    fn take_dam(&mut self, position: LogPosition, keys: &[Key]) -> Result<(), Problem> {
        let bytes = fetch(self.store, &keys[0], DAM_LEN_MAX)?;
        let dam = Dam::decode(&bytes).map_err(|refusal| Problem::Manifest(refusal.into()))?;
        let policy = fetch(self.store, &dam.policy, POLICY_LEN)?;
        let mut signatures = Vec::new();
        for key in &keys[1..] {
            match fetch(self.store, key, SIGNATURE_LEN_MAX) {
                Ok(signature) => signatures.push(signature),
                // The others may be enough.
                Err(problem) => self.find(position, Authority::Dam, *key, problem),
            }
        }
        let candidate = Candidate {
            dam: &bytes,
            policy: &policy,
            signatures: signatures.iter().map(Vec::as_slice).collect(),
        };
        match &mut self.chain {
            Some(chain) => {
                chain.extend(&candidate).map_err(Problem::Manifest)?;
            }
            None => self.chain = Some(Chain::genesis(&candidate).map_err(Problem::Manifest)?),
        }
        Ok(())
    }

    fn checkpoint(
        &mut self,
        record: LogPosition,
        about: Authority,
        key: Key,
    ) -> Result<(), Problem> {
        let chain = self.chain.as_ref().ok_or(Problem::BeforeDomain)?;
        if self.checkpoints.len() >= CLAIMS_MAX {
            return Err(Problem::TooMany);
        }
        let bytes = fetch(self.store, &key, NOTE_LEN_MAX)?;
        let refused = Problem::Checkpoint;
        let note = Note::parse(&bytes).map_err(|error| refused(error.into()))?;
        let stated = Checkpoint::parse(note.text()).map_err(refused)?;
        let (size, root) = (stated.size, stated.root);
        // A cosignature takes days to come. It is judged by the manifest under which the checkpoint was signed, as if it had been
        // there from the beginning.
        let first = match about {
            Authority::Witness => self.checkpoint_at.get(&(size, root)).copied(),
            _ => None,
        };
        let first = first.filter(|at| {
            let node = chain.node(&self.checkpoints[*at].in_force);
            node.is_some_and(|node| self.opened(chain, node, note.clone()).is_ok())
        });
        let node = match first {
            Some(at) => chain.node(&self.checkpoints[at].in_force),
            None => None,
        };
        let node = node.unwrap_or(chain.head());
        let signed = self.opened(chain, node, note).map_err(refused)?;
        if size > record.0 {
            return Err(Problem::CheckpointSize { size });
        }
        let (cosigners, wrong) = cosigners(&node.dam, &signed, record);
        let mut signers: Vec<KeyId> = signed.signers().iter().map(PublicKey::id).collect();
        signers.sort();
        let in_force = node.key;
        match first {
            Some(at) => self.checkpoints[at].add(key, cosigners),
            None => {
                let at = self.checkpoints.len();
                self.checkpoint_at.entry((size, root)).or_insert(at);
                self.checkpoints.push(CheckpointClaim {
                    record,
                    key,
                    size,
                    root,
                    signers,
                    cosigners,
                    note: key,
                    in_force,
                });
            }
        }
        match wrong {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }

    /// A checkpoint of this log that a key signed which a manifest lists for it.
    fn opened(
        &self,
        chain: &Chain,
        node: &Node,
        note: Note,
    ) -> Result<SignedCheckpoint, CheckpointError> {
        let origin = Origin {
            domain: chain.domain(),
            store: self.store_id,
        };
        SignedCheckpoint::of_note(note, &origin, &keys_with(&node.dam, Roles::CHECKPOINT))
    }

    fn policy(&mut self, record: LogPosition, key: Key) -> Result<(), Problem> {
        if self.policies.len() >= CLAIMS_MAX {
            return Err(Problem::TooMany);
        }
        let bytes = fetch(self.store, &key, POLICY_LEN)?;
        Policy::decode(&bytes).map_err(Problem::Policy)?;
        // A manifest that names it may follow.
        self.policies.push((record, key));
        Ok(())
    }

    /// A link to another domain: who signed it can be told even if this program cannot read it.
    fn lineage(&mut self, record: &Record, keys: &[Key]) -> Result<(), Problem> {
        let chain = self.chain.as_ref().ok_or(Problem::BeforeDomain)?;
        let head = chain.head();
        let body = fetch(self.store, &keys[0], Lineage::LEN_MAX)?;
        let (mut signatures, mut lost) = (Vec::new(), None);
        for key in &keys[1..] {
            match fetch(self.store, key, SIGNATURE_LEN_MAX) {
                Ok(bytes) => signatures.extend(Signature::decode(&bytes)),
                Err(problem) => lost = Some(problem),
            }
        }
        let roots = head.dam.roots.iter();
        let domain = chain.domain();
        let signed = signers(Context::Lineage, &domain, &body, &signatures, roots);
        let (have, need) = (signed.len(), usize::from(head.dam.root_threshold));
        if have < need {
            return Err(lost.unwrap_or(Problem::LineageSigners { have, need }));
        }
        let (lineage, problem) = match Lineage::decode(&body) {
            Ok(lineage) if lineage.home() == domain => (Some(lineage), None),
            Ok(_) => return Err(Problem::LineageHome),
            Err(error) => (None, Some(Problem::LineageUnknown(error))),
        };
        let child = lineage.as_ref().map(|lineage| {
            // Of a retirement the log's own roots are the child's.
            match lineage.op {
                Op::Retire => (signed.iter().copied().collect(), true),
                Op::Adopt | Op::Fork => child_signers(self.store, lineage, &body, &signatures),
            }
        });
        let (child_signers, handed_over) = child.unwrap_or_default();
        let known = self
            .lineage
            .iter()
            .position(|state| state.key == keys[0] && state.lineage.is_some());
        if let Some(at) = known {
            // Signatures may come later.
            let state = &mut self.lineage[at];
            state.signers.extend(signed);
            state.signers.sort();
            state.signers.dedup();
            state.child_signers.extend(child_signers);
            state.child_signers.sort();
            state.child_signers.dedup();
            state.handed_over |= handed_over;
            return Ok(());
        }
        if self.lineage.len() >= CLAIMS_MAX {
            return Err(problem.unwrap_or(Problem::TooMany));
        }
        self.lineage.push(LineageState {
            record: record.position,
            time_unix_ns: record.time_unix_ns,
            key: keys[0],
            signers: signed.into_iter().collect(),
            in_force: head.key,
            lineage,
            child_signers,
            handed_over,
        });
        problem.map_or(Ok(()), Err)
    }

    fn receipt(&mut self, record: LogPosition, keys: &[Key]) -> Result<(), Problem> {
        let key = keys[0];
        let bytes = fetch(self.store, &key, Receipt::LEN_MAX)?;
        let at = match self.receipt_at.get(&key) {
            Some(at) => *at,
            None => {
                if self.receipts.len() >= CLAIMS_MAX {
                    return Err(Problem::TooMany);
                }
                let receipt = self.agrees(&bytes)?;
                self.receipts.push(ReceiptClaim {
                    key,
                    receipt,
                    record,
                    signatures: Vec::new(),
                });
                self.receipt_at.insert(key, self.receipts.len() - 1);
                self.receipts.len() - 1
            }
        };
        for artifact in &keys[1..] {
            match self.receipt_signature(&bytes, artifact) {
                Ok((signer, in_force)) => {
                    let signatures = &mut self.receipts[at].signatures;
                    if signatures.len() < CLAIMS_MAX
                        && signatures.iter().all(|known| known.artifact != *artifact)
                    {
                        signatures.push(ReceiptSignature {
                            record,
                            artifact: *artifact,
                            signer,
                            in_force,
                        });
                    }
                }
                Err(problem) => self.find(record, Authority::Receipt, *artifact, problem),
            }
        }
        Ok(())
    }

    /// Reads a receipt and compares it with the log so far.
    fn agrees(&self, bytes: &[u8]) -> Result<Receipt, Problem> {
        let receipt = Receipt::decode(bytes).map_err(Problem::Receipt)?;
        let position = receipt.position;
        if receipt.store != self.store_id {
            let found = receipt.store;
            return Err(Problem::ReceiptStore { found });
        }
        let end = self
            .ends
            .get(&position)
            .ok_or(Problem::ReceiptPosition { position })?;
        if end.session != receipt.session || end.root != receipt.subject || !end.finished {
            return Err(Problem::ReceiptSubject { position });
        }
        if end.chain != receipt.chain {
            return Err(Problem::ReceiptChain { position });
        }
        Ok(receipt)
    }

    /// Who signed a receipt, and by which manifest.
    fn receipt_signature(&self, receipt: &[u8], artifact: &Key) -> Result<(KeyId, Key), Problem> {
        let chain = self.chain.as_ref().ok_or(Problem::BeforeDomain)?;
        let bytes = fetch(self.store, artifact, SIGNATURE_LEN_MAX)?;
        let signature = Signature::decode(&bytes).map_err(Problem::Signature)?;
        let head = chain.head();
        let key = keys_with(&head.dam, Roles::PRODUCE)
            .into_iter()
            .find(|key| key.id() == signature.signer)
            .ok_or(Problem::Unlisted {
                key: signature.signer,
            })?;
        signature
            .verify(Context::Receipt, &chain.domain(), receipt, &key)
            .map_err(Problem::Signature)?;
        Ok((key.id(), head.key))
    }
}

/// The witnesses of a manifest that cosigned, and what is wrong with a line that is said to be by one.
fn cosigners(
    dam: &Dam,
    signed: &SignedCheckpoint,
    record: LogPosition,
) -> (BTreeMap<KeyId, Cosigned>, Option<Problem>) {
    let members = dam.witness.members.iter();
    let members = members.map(|member| (member.name.as_str(), member.key));
    // A manifest without witnesses makes no quorum, and nobody to count.
    let Ok(quorum) = Quorum::new(members, usize::from(dam.witness.threshold)) else {
        return (BTreeMap::new(), None);
    };
    match quorum.tally(signed) {
        Ok(tally) => {
            let cosigners = tally.cosigners.iter().map(|cosigner| {
                let time = cosigner.time;
                (cosigner.key.id(), Cosigned { record, time })
            });
            (cosigners.collect(), None)
        }
        Err(error) => (BTreeMap::new(), Some(Problem::Cosignature(error))),
    }
}

/// Roots of the child that signed a link, by the manifest of it that the link names, and whether they are as many as it
/// asks for. Nobody, where that manifest is not here.
fn child_signers(
    store: &StoreHandle,
    lineage: &Lineage,
    body: &[u8],
    signatures: &[Signature],
) -> (Vec<KeyId>, bool) {
    let Ok(bytes) = fetch(store, &lineage.child_head, DAM_LEN_MAX) else {
        return Default::default();
    };
    let Ok(dam) = Dam::decode(&bytes) else {
        return Default::default();
    };
    let domain = dam.domain.unwrap_or_else(|| DomainId::of_genesis(&bytes));
    if domain != lineage.child {
        return Default::default();
    }
    let signed = signers(
        Context::Lineage,
        &domain,
        body,
        signatures,
        dam.roots.iter(),
    );
    let enough = signed.len() >= usize::from(dam.root_threshold);
    (signed.into_iter().collect(), enough)
}

/// The principals of a manifest that have a role.
fn keys_with(dam: &Dam, role: Roles) -> Vec<PublicKey> {
    let principals = dam.principals.iter();
    principals
        .filter(|principal| principal.roles.contains(role))
        .map(|principal| principal.key)
        .collect()
}
