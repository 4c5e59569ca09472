//! The tree against the recursive definitions of RFC 6962.

use proptest::prelude::*;

use super::*;

/// Section 2.1, MTH.
fn naive_root(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(naive_split(leaves.len()));
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

/// Section 2.1.1, PATH.
fn naive_path(index: usize, leaves: &[TreeHash]) -> Vec<TreeHash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(naive_split(leaves.len()));
    let (mut path, sibling) = if index < left.len() {
        (naive_path(index, left), naive_root(right))
    } else {
        (naive_path(index - left.len(), right), naive_root(left))
    };
    path.push(sibling);
    path
}

/// Section 2.1.2, SUBPROOF.
fn naive_subproof(old: usize, leaves: &[TreeHash], known: bool) -> Vec<TreeHash> {
    if old == leaves.len() {
        return if known {
            Vec::new()
        } else {
            vec![naive_root(leaves)]
        };
    }
    let (left, right) = leaves.split_at(naive_split(leaves.len()));
    let (mut proof, sibling) = if old <= left.len() {
        (naive_subproof(old, left, known), naive_root(right))
    } else {
        let proof = naive_subproof(old - left.len(), right, false);
        (proof, naive_root(left))
    };
    proof.push(sibling);
    proof
}

fn naive_split(size: usize) -> usize {
    let mut split = 1;
    while split * 2 < size {
        split *= 2;
    }
    split
}

fn leaves(size: u64) -> Vec<TreeHash> {
    (0..size).map(|i| leaf_hash(&i.to_le_bytes())).collect()
}

#[test]
fn agrees_with_the_definition_at_every_size_and_place() {
    let all = leaves(70);
    let mut frontier = Frontier::new();
    for new in 0..=all.len() {
        let tree = &all[..new];
        let new_root = naive_root(tree);
        assert_eq!(root(tree), new_root);
        assert_eq!(frontier.root(), new_root);
        assert_eq!(frontier.size(), new as u64);
        assert_eq!(
            Frontier::from_bytes(&frontier.to_bytes()),
            Ok(frontier.clone())
        );
        for (index, leaf) in tree.iter().enumerate() {
            let proof = inclusion_proof(tree, index as u64).unwrap();
            assert_eq!(proof, naive_path(index, tree), "{index} in {new}");
            verify_inclusion(leaf, index as u64, new as u64, &new_root, &proof).unwrap();
        }
        for old in 0..=new {
            let proof = consistency_proof(tree, old as u64).unwrap();
            if old > 0 {
                assert_eq!(proof, naive_subproof(old, tree, true), "{old} to {new}");
            } else {
                assert!(proof.is_empty());
            }
            let old_root = naive_root(&tree[..old]);
            verify_consistency(old as u64, &old_root, new as u64, &new_root, &proof).unwrap();
        }
        if let Some(leaf) = all.get(new) {
            frontier.push(*leaf);
        }
    }
}

#[test]
fn has_the_hashes_of_the_standard() {
    // From RFC 6962's empty tree, and the leaf hash of the empty string.
    assert_eq!(
        empty_root().to_string(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    assert_eq!(
        leaf_hash(b"").to_string(),
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    );
}

#[test]
fn a_record_that_looks_like_an_inner_node_is_none() {
    let two = leaves(2);
    let forged = [&two[0].0[..], &two[1].0].concat();
    assert_ne!(leaf_hash(&forged), root(&two));
}

#[test]
fn refuses_proofs_of_the_wrong_length() {
    let all = leaves(13);
    let new_root = root(&all);
    for index in 0..13 {
        let proof = inclusion_proof(&all, index).unwrap();
        let check = |proof: &[TreeHash]| {
            verify_inclusion(&all[index as usize], index, 13, &new_root, proof)
        };
        for keep in 0..proof.len() {
            let len = keep;
            assert_eq!(check(&proof[..keep]), Err(TreeError::ProofLength { len }));
        }
        let mut longer = proof.clone();
        longer.push(new_root);
        let len = longer.len();
        assert_eq!(check(&longer), Err(TreeError::ProofLength { len }));
        longer.resize(100_000, new_root);
        assert!(check(&longer).is_err());
    }
    for old in 0..=13 {
        let proof = consistency_proof(&all, old).unwrap();
        let old_root = root(&all[..old as usize]);
        let check = |proof: &[TreeHash]| verify_consistency(old, &old_root, 13, &new_root, proof);
        for keep in 0..proof.len() {
            let len = keep;
            assert_eq!(
                check(&proof[..keep]),
                Err(TreeError::ProofLength { len }),
                "{old}"
            );
        }
        let mut longer = proof.clone();
        longer.push(new_root);
        let len = longer.len();
        assert_eq!(check(&longer), Err(TreeError::ProofLength { len }), "{old}");
    }
}

#[test]
fn refuses_sizes_and_places_that_cannot_be() {
    let hash = empty_root();
    let huge = u64::MAX;
    let too_large = Err(TreeError::TooLarge { size: huge });
    assert_eq!(verify_inclusion(&hash, 0, huge, &hash, &[]), too_large);
    assert_eq!(verify_consistency(1, &hash, huge, &hash, &[]), too_large);
    assert_eq!(verify_consistency(huge, &hash, huge, &hash, &[]), too_large);
    assert_eq!(
        Prover::inclusion(0, huge).unwrap_err(),
        TreeError::TooLarge { size: huge }
    );
    assert_eq!(
        Prover::consistency(1, huge).unwrap_err(),
        TreeError::TooLarge { size: huge }
    );
    // The largest size that there may be needs no more memory than any other.
    let long = vec![hash; PROOF_LEN_MAX];
    for index in [0, 1, SIZE_MAX / 2, SIZE_MAX - 1] {
        let found = verify_inclusion(&hash, index, SIZE_MAX, &hash, &long);
        assert!(matches!(
            found,
            Err(TreeError::Root | TreeError::ProofLength { .. })
        ));
        let prover = Prover::inclusion(index, SIZE_MAX).unwrap();
        assert!(prover.proof.len() <= PROOF_LEN_MAX);
        let missing = TreeError::MissingLeaves {
            given: 0,
            size: SIZE_MAX,
        };
        assert_eq!(prover.finish(), Err(missing));
        let prover = Prover::consistency(index, SIZE_MAX).unwrap();
        assert!(prover.proof.len() <= PROOF_LEN_MAX);
    }
    let no_leaf = |index, size| Err(TreeError::NoSuchLeaf { index, size });
    assert_eq!(verify_inclusion(&hash, 0, 0, &hash, &[]), no_leaf(0, 0));
    assert_eq!(verify_inclusion(&hash, 5, 5, &hash, &[]), no_leaf(5, 5));
    assert_eq!(
        inclusion_proof(&[], 0),
        Err(TreeError::NoSuchLeaf { index: 0, size: 0 })
    );
    let shrunk = TreeError::Shrunk { old: 2, new: 1 };
    assert_eq!(verify_consistency(2, &hash, 1, &hash, &[]), Err(shrunk));
    assert_eq!(consistency_proof(&[hash], 2), Err(shrunk));
}

#[test]
fn the_empty_tree_begins_every_tree_and_has_one_root() {
    let all = leaves(3);
    let new_root = root(&all);
    assert_eq!(
        verify_consistency(0, &empty_root(), 3, &new_root, &[]),
        Ok(())
    );
    let other = verify_consistency(0, &new_root, 3, &new_root, &[]);
    assert_eq!(other, Err(TreeError::OldRoot));
    let extra = verify_consistency(0, &empty_root(), 3, &new_root, &[new_root]);
    assert_eq!(extra, Err(TreeError::ProofLength { len: 1 }));
    assert_eq!(
        verify_consistency(0, &empty_root(), 0, &new_root, &[]),
        Err(TreeError::Root)
    );
}

#[test]
fn refuses_bytes_that_are_no_frontier() {
    let mut frontier = Frontier::new();
    for leaf in leaves(11) {
        frontier.push(leaf);
    }
    let bytes = frontier.to_bytes();
    assert_eq!(bytes.len(), 8 + 3 * HASH_LEN);
    for keep in 0..bytes.len() {
        assert!(Frontier::from_bytes(&bytes[..keep]).is_err(), "{keep}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(Frontier::from_bytes(&longer).is_err());
    let mut other = bytes.clone();
    other[0] ^= 0x10;
    let error = TreeError::Frontier {
        size: 27,
        len: bytes.len(),
    };
    assert_eq!(Frontier::from_bytes(&other), Err(error));
    let huge = [&u64::MAX.to_le_bytes()[..], &[0; 64 * HASH_LEN]].concat();
    let size = u64::MAX;
    assert_eq!(
        Frontier::from_bytes(&huge),
        Err(TreeError::TooLarge { size })
    );
}

proptest! {
    #[test]
    fn any_tree_agrees_with_the_definition(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..300),
        old in any::<prop::sample::Index>(),
        index in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let all: Vec<_> = records.iter().map(|record| leaf_hash(record)).collect();
        let size = all.len() as u64;
        let mut frontier = Frontier::new();
        for record in &records {
            frontier = Frontier::from_bytes(&frontier.to_bytes()).unwrap();
            frontier.push_record(record);
        }
        let new_root = naive_root(&all);
        prop_assert_eq!(frontier.root(), new_root);

        let index = index.index(records.len());
        let mut proof = inclusion_proof(&all, index as u64).unwrap();
        prop_assert_eq!(&proof, &naive_path(index, &all));
        let leaf = all[index];
        prop_assert_eq!(verify_inclusion(&leaf, index as u64, size, &new_root, &proof), Ok(()));
        let mut wrong_leaf = leaf;
        wrong_leaf.0[0] ^= 1 << bit;
        let found = verify_inclusion(&wrong_leaf, index as u64, size, &new_root, &proof);
        prop_assert_eq!(found, Err(TreeError::Root));
        for other in (0..records.len()).filter(|other| all[*other] != leaf) {
            let found = verify_inclusion(&leaf, other as u64, size, &new_root, &proof);
            prop_assert!(found.is_err());
        }
        if !proof.is_empty() {
            let at = flip.index(proof.len() * HASH_LEN);
            proof[at / HASH_LEN].0[at % HASH_LEN] ^= 1 << bit;
            let found = verify_inclusion(&leaf, index as u64, size, &new_root, &proof);
            prop_assert_eq!(found, Err(TreeError::Root));
        }

        let old = old.index(records.len() + 1);
        let old_root = naive_root(&all[..old]);
        let mut proof = consistency_proof(&all, old as u64).unwrap();
        prop_assert_eq!(
            verify_consistency(old as u64, &old_root, size, &new_root, &proof), Ok(()));
        if !proof.is_empty() {
            prop_assert_eq!(&proof, &naive_subproof(old, &all, true));
            let at = flip.index(proof.len() * HASH_LEN);
            proof[at / HASH_LEN].0[at % HASH_LEN] ^= 1 << bit;
            let found = verify_consistency(old as u64, &old_root, size, &new_root, &proof);
            prop_assert!(matches!(found, Err(TreeError::OldRoot | TreeError::Root)));
        }
    }

    #[test]
    fn no_proof_joins_trees_of_different_records(
        size in 2_u64..200,
        old in any::<prop::sample::Index>(),
        changed in any::<prop::sample::Index>(),
    ) {
        let all = leaves(size);
        let old = 1 + old.index(all.len() - 1);
        let mut other = all.clone();
        other[changed.index(old)] = leaf_hash(b"another");
        let old_root = root(&all[..old]);
        for proof in [&all, &other].map(|leaves| consistency_proof(leaves, old as u64).unwrap()) {
            let found = verify_consistency(old as u64, &old_root, size, &root(&other), &proof);
            prop_assert!(found.is_err());
        }
    }
}
