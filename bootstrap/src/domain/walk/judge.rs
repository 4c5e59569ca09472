//! What had to wait for the end of the log: which signatures count once every revocation and every rotation is known, and
//! which checkpoints state a root that the tree had.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use asl_store::id::Digest;
use asl_store::{Authority, Key, LogPosition};

use super::super::finding::{Finding, Problem};
use super::super::{CheckpointState, Domain, ReceiptState, Signed};
use super::{CheckpointClaim, ReceiptSignature, Walk};
use crate::chain::{Chain, Node, Standing};
use crate::id::KeyId;
use crate::policy::Refusal;
use crate::tlog::{Frontier, TreeHash};

/// What became of the checkpoints.
#[derive(Default)]
struct Checkpoints {
    counting: Vec<CheckpointState>,
    unwitnessed: Vec<CheckpointState>,
    /// Size of the largest that counts.
    covered: u64,
}

impl Walk<'_> {
    /// Judges what had to wait for the end of the log.
    pub(super) fn judge(
        mut self,
        tree: Frontier,
        head: Digest,
        roots: &HashMap<u64, TreeHash>,
    ) -> Option<Domain> {
        let chain = self.chain.take()?;
        let Checkpoints {
            counting,
            unwitnessed,
            covered,
        } = self.judge_checkpoints(&chain, roots);
        let receipts = self.judge_receipts(&chain, covered);
        self.judge_policies(&chain);
        let blind = self.blind(&chain);
        let mut findings = self.findings;
        findings.sort_by_key(|finding| finding.position);
        Some(Domain {
            store: self.store_id,
            chain,
            manifests: self.manifests,
            tree,
            head,
            checkpoints: counting,
            unwitnessed,
            receipts,
            ends: self.ends,
            lineage: self.lineage,
            findings,
            blind,
        })
    }

    /// The first record that may hide a revocation. A signature that is lost hides nothing if its manifest counts without it.
    fn blind(&self, chain: &Chain) -> Option<LogPosition> {
        let hides = |finding: &&Finding| match finding.about {
            Authority::Dam => {
                let body = self.bodies.get(&finding.position);
                finding.problem.is_unread() && body.is_some_and(|body| chain.node(body).is_none())
            }
            Authority::Lineage => finding.problem.is_unread(),
            _ => false,
        };
        let findings = self.findings.iter().filter(hides);
        findings.map(|finding| finding.position).min()
    }

    fn judge_policies(&mut self, chain: &Chain) {
        let nodes = self.manifests.keys().filter_map(|key| chain.node(key));
        let named: BTreeSet<Key> = nodes.map(|node| node.dam.policy).collect();
        for (record, key) in std::mem::take(&mut self.policies) {
            if !named.contains(&key) {
                self.find(record, Authority::Policy, key, Problem::PolicyUnnamed);
            }
        }
    }

    fn judge_checkpoints(&mut self, chain: &Chain, roots: &HashMap<u64, TreeHash>) -> Checkpoints {
        let mut claims = std::mem::take(&mut self.checkpoints);
        // What a checkpoint covers is more than itself: the largest come first, so that a counting one makes earlier
        // ones by keys revoked since count too.
        claims.sort_by_key(|claim| std::cmp::Reverse((claim.size, claim.record)));
        let mut judged = Checkpoints::default();
        for claim in claims {
            match self.judge_checkpoint(chain, roots, &claim, judged.covered) {
                Ok((signers, None)) => {
                    judged.covered = judged.covered.max(claim.size);
                    judged.counting.push(claim.counted(signers));
                }
                Ok((signers, Some(refusal))) => {
                    // Where a witnessed one covers as much, nothing is wanting; else the largest stands for all.
                    if judged.unwitnessed.is_empty() && judged.covered < claim.size {
                        let problem = Problem::Refused(refusal);
                        self.find(claim.record, Authority::Checkpoint, claim.key, problem);
                    }
                    judged.unwitnessed.push(claim.counted(signers));
                }
                Err(problem) => {
                    self.find(claim.record, Authority::Checkpoint, claim.key, problem);
                }
            }
        }
        judged.counting.sort_by_key(|state| state.record);
        judged.unwitnessed.sort_by_key(|state| state.record);
        judged
    }

    /// Whose signatures count, and what the policy holds against the checkpoint for want of witnesses.
    fn judge_checkpoint(
        &self,
        chain: &Chain,
        roots: &HashMap<u64, TreeHash>,
        claim: &CheckpointClaim,
        covered: u64,
    ) -> Result<(Vec<KeyId>, Option<Refusal>), Problem> {
        let (size, found) = (claim.size, claim.root);
        match roots.get(&size) {
            Some(root) if *root == found => {}
            Some(root) => {
                let expected = *root;
                return Err(Problem::CheckpointRoot {
                    size,
                    expected,
                    found,
                });
            }
            None => return Err(Problem::CheckpointSize { size }),
        }
        let node = on_path(chain, claim.in_force)?;
        let covered = covered > claim.record.0;
        let (mut signers, mut refused) = (Vec::new(), None);
        for key in &claim.signers {
            match chain.signature_counts(key, self.store_id, claim.record, covered) {
                Ok(()) => signers.push(*key),
                Err(refusal) => refused = Some(refusal),
            }
        }
        match refused {
            Some(refusal) if signers.is_empty() => return Err(Problem::Refused(refusal)),
            _ => {}
        }
        let policy = &chain.head().policy;
        let accepted = policy.accept_checkpoint(&node.dam.witness, claim.cosigners.keys());
        Ok((signers, accepted.err()))
    }

    fn judge_receipts(&mut self, chain: &Chain, covered: u64) -> Vec<ReceiptState> {
        let mut states = Vec::new();
        for claim in std::mem::take(&mut self.receipts) {
            let mut signers = BTreeMap::new();
            for signature in claim.signatures {
                let ReceiptSignature {
                    record,
                    signer,
                    in_force,
                    ..
                } = signature;
                let counts = on_path(chain, in_force).and_then(|_| {
                    let covered = covered > record.0;
                    chain
                        .signature_counts(&signer, self.store_id, record, covered)
                        .map_err(Problem::Refused)
                });
                match counts {
                    Ok(()) => {
                        signers.entry(signer).or_insert(Signed { record, in_force });
                    }
                    Err(problem) => {
                        self.find(record, Authority::Receipt, signature.artifact, problem);
                    }
                }
            }
            states.push(ReceiptState {
                key: claim.key,
                receipt: claim.receipt,
                signers,
                record: claim.record,
            });
        }
        states
    }
}

fn on_path(chain: &Chain, dam: Key) -> Result<&Node, Problem> {
    let on_path = chain.standing(&dam) == Some(Standing::OnPath);
    let node = chain.node(&dam).filter(|_| on_path);
    node.ok_or(Problem::VoidManifest { dam })
}
