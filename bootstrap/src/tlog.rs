//! The tree over a log's records that checkpoints sign: RFC 6962, SHA-256.
//!
//! Leaf `i` is log record `i`, every stored byte of it. One root commits to all
//! records and their order; an inclusion proof shows that a record is among
//! them, a consistency proof that a later tree only appended to an earlier one.
//! Hashes, tree shape and proofs are those of RFC 6962 section 2.1 (checked the
//! way RFC 9162 sections 2.1.3.2 and 2.1.4.2 describe), so any transparency log
//! software can check them.
//!
//! Invariants
//! - A [`Frontier`] has one hash for each bit set in its size, the largest
//!   subtree first, and no other; its root is the root of a tree of that size.
//! - Sizes are at most [`SIZE_MAX`], here and in what is decoded, so that other
//!   implementations, which count in signed integers, agree.
//! - A proof that [`verify_inclusion`] or [`verify_consistency`] accepts has
//!   exactly the length that its sizes ask for.
//!
//! Nothing here touches a file; a crash leaves nothing.

use std::fmt;
use std::ops::Range;

use sha2::{Digest, Sha256};

#[cfg(test)]
mod tests;

/// Bytes of a hash.
pub const HASH_LEN: usize = 32;
/// Leaves that a tree may have.
pub const SIZE_MAX: u64 = i64::MAX as u64;
/// Hashes that a proof in a tree of [`SIZE_MAX`] leaves may have.
pub const PROOF_LEN_MAX: usize = 64;

/// Hash of a leaf, of an inner node or of a whole tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeHash(pub [u8; HASH_LEN]);

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&asl_store::id::hex(&self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeHash({self})")
    }
}

/// Why a frontier or a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The tree would have more than [`SIZE_MAX`] leaves.
    #[error("a tree of {size} leaves is larger than any log")]
    TooLarge {
        /// The size that was asked for.
        size: u64,
    },
    /// Bytes that are no frontier.
    #[error("{len} bytes are not a frontier of {size} leaves")]
    Frontier {
        /// Leaves that the bytes claim; 0 where they are too short to say.
        size: u64,
        /// Bytes given.
        len: usize,
    },
    /// A leaf was asked for that the tree does not have.
    #[error("a tree of {size} leaves has no leaf {index}")]
    NoSuchLeaf {
        /// The leaf.
        index: u64,
        /// Size of the tree.
        size: u64,
    },
    /// The later tree is the smaller one.
    #[error("a tree of {new} leaves cannot continue one of {old}")]
    Shrunk {
        /// Size of the earlier tree.
        old: u64,
        /// Size of the later tree.
        new: u64,
    },
    /// Fewer leaves were given than the tree has.
    #[error("{given} leaves were given of a tree of {size}")]
    MissingLeaves {
        /// Leaves given.
        given: u64,
        /// Size of the tree.
        size: u64,
    },
    /// The proof has more or fewer hashes than its sizes ask for.
    #[error("the proof has {len} hashes, which is the wrong number")]
    ProofLength {
        /// Hashes in it.
        len: usize,
    },
    /// The proof does not lead to the root of the earlier tree.
    #[error("the proof does not lead to the root of the earlier tree")]
    OldRoot,
    /// The proof does not lead to the root.
    #[error("the proof does not lead to the root of the tree")]
    Root,
}

/// Hash of a record as a leaf.
pub fn leaf_hash(record: &[u8]) -> TreeHash {
    hash(&[&[0], record])
}

/// Hash of an inner node.
pub fn node_hash(left: &TreeHash, right: &TreeHash) -> TreeHash {
    hash(&[&[1], &left.0, &right.0])
}

/// Root of the tree without leaves.
pub fn empty_root() -> TreeHash {
    hash(&[])
}

/// Root of the tree over these leaf hashes.
///
/// The root at an earlier size is that of the first leaves.
pub fn root(leaves: &[TreeHash]) -> TreeHash {
    let mut frontier = Frontier::new();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

fn hash(parts: &[&[u8]]) -> TreeHash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    TreeHash(hasher.finalize().into())
}

/// All that is needed of a tree to append to it and to know its root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    /// Roots of the perfect subtrees, the largest (leftmost) first.
    nodes: Vec<TreeHash>,
}

impl Frontier {
    /// The frontier of the tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a record.
    pub fn push_record(&mut self, record: &[u8]) {
        self.push(leaf_hash(record));
    }

    /// Appends a leaf by its hash.
    ///
    /// # Panics
    /// After 2^63 leaves, more than anybody can append.
    pub fn push(&mut self, leaf: TreeHash) {
        let mut node = leaf;
        // Each trailing one of the size is a perfect subtree that this leaf fills up to the next.
        for _ in 0..self.size.trailing_ones() {
            let left = self.nodes.pop().expect("one node for each bit of the size");
            node = node_hash(&left, &node);
        }
        self.nodes.push(node);
        self.size = self
            .size
            .checked_add(1)
            .expect("nobody appends 2^63 leaves");
    }

    /// Root of the tree.
    pub fn root(&self) -> TreeHash {
        let mut nodes = self.nodes.iter().rev();
        match nodes.next() {
            Some(last) => nodes.fold(*last, |right, left| node_hash(left, &right)),
            None => empty_root(),
        }
    }

    /// The frontier as bytes: the size as 8 bytes, little-endian, then the hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_le_bytes().to_vec();
        for node in &self.nodes {
            bytes.extend_from_slice(&node.0);
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made.
    ///
    /// # Errors
    /// [`TreeError::Frontier`] for any other length, [`TreeError::TooLarge`].
    /// Whether the hashes are those of some log, only its records can tell.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TreeError> {
        let len = bytes.len();
        let Some((size, nodes)) = bytes.split_first_chunk::<8>() else {
            return Err(TreeError::Frontier { size: 0, len });
        };
        let size = u64::from_le_bytes(*size);
        if size > SIZE_MAX {
            return Err(TreeError::TooLarge { size });
        }
        let (nodes, rest) = nodes.as_chunks::<HASH_LEN>();
        if !rest.is_empty() || nodes.len() != size.count_ones() as usize {
            return Err(TreeError::Frontier { size, len });
        }
        let nodes = nodes.iter().copied().map(TreeHash).collect();
        Ok(Self { size, nodes })
    }
}

/// Makes one proof from the leaves, which it is given one by one in order.
///
/// It keeps a few hashes, not the leaves, so a log of any length can be read past
/// it.
#[derive(Debug, Clone)]
pub struct Prover {
    size: u64,
    next: u64,
    /// The subtrees whose roots are the proof, from left to right, each with its
    /// place in the proof.
    subtrees: Vec<(Range<u64>, usize)>,
    /// The first of `subtrees` that is not complete.
    current: usize,
    frontier: Frontier,
    proof: Vec<TreeHash>,
}

impl Prover {
    /// Proves that leaf `index` is in the tree of `size` leaves.
    ///
    /// # Errors
    /// [`TreeError::NoSuchLeaf`], [`TreeError::TooLarge`].
    pub fn inclusion(index: u64, size: u64) -> Result<Self, TreeError> {
        if index >= size {
            return Err(TreeError::NoSuchLeaf { index, size });
        }
        let mut path = Vec::new();
        let (mut low, mut high) = (0, size);
        // Down to the leaf, noting the sibling at each step; a proof starts at the leaf.
        while high - low > 1 {
            let middle = low + split(high - low);
            if index < middle {
                path.push(middle..high);
                high = middle;
            } else {
                path.push(low..middle);
                low = middle;
            }
        }
        path.reverse();
        Self::new(path, size)
    }

    /// Proves that the tree of `new` leaves begins with the tree of `old`.
    ///
    /// The proof is empty where either is empty or both are the same.
    ///
    /// # Errors
    /// [`TreeError::Shrunk`], [`TreeError::TooLarge`].
    pub fn consistency(old: u64, new: u64) -> Result<Self, TreeError> {
        if old > new {
            return Err(TreeError::Shrunk { old, new });
        }
        let mut path = Vec::new();
        let (mut low, mut high) = (0, new);
        // `old` cuts the subtree `low..high`, until it is the end of it.
        while old != 0 && old != high {
            let middle = low + split(high - low);
            if old <= middle {
                path.push(middle..high);
                high = middle;
            } else {
                path.push(low..middle);
                low = middle;
            }
        }
        // A subtree that begins the tree is the old tree itself, whose root the verifier has.
        if old != 0 && low != 0 {
            path.push(low..high);
        }
        path.reverse();
        Self::new(path, new)
    }

    fn new(path: Vec<Range<u64>>, size: u64) -> Result<Self, TreeError> {
        if size > SIZE_MAX {
            return Err(TreeError::TooLarge { size });
        }
        let proof = vec![empty_root(); path.len()];
        let mut subtrees: Vec<_> = path.into_iter().zip(0..).collect();
        subtrees.sort_by_key(|(range, _)| range.start);
        Ok(Self {
            size,
            next: 0,
            subtrees,
            current: 0,
            frontier: Frontier::new(),
            proof,
        })
    }

    /// Takes the hash of the next leaf. Leaves beyond the tree are ignored.
    pub fn push(&mut self, leaf: TreeHash) {
        if let Some((range, place)) = self.subtrees.get(self.current)
            && range.contains(&self.next)
        {
            self.frontier.push(leaf);
            if self.next + 1 == range.end {
                self.proof[*place] = std::mem::take(&mut self.frontier).root();
                self.current += 1;
            }
        }
        self.next = self.next.saturating_add(1);
    }

    /// The proof.
    ///
    /// # Errors
    /// [`TreeError::MissingLeaves`].
    pub fn finish(self) -> Result<Vec<TreeHash>, TreeError> {
        if self.next < self.size {
            return Err(TreeError::MissingLeaves {
                given: self.next,
                size: self.size,
            });
        }
        Ok(self.proof)
    }

    fn over(mut self, leaves: &[TreeHash]) -> Result<Vec<TreeHash>, TreeError> {
        for leaf in leaves {
            self.push(*leaf);
        }
        self.finish()
    }
}

/// Leaves of the left subtree of `size` leaves, at least two: the largest power of
/// two below it.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// Proof that leaf `index` is in the tree over `leaves`.
///
/// # Errors
/// [`TreeError::NoSuchLeaf`].
pub fn inclusion_proof(leaves: &[TreeHash], index: u64) -> Result<Vec<TreeHash>, TreeError> {
    Prover::inclusion(index, leaves.len() as u64)?.over(leaves)
}

/// Proof that the tree over `leaves` begins with that over the first `old` of them.
///
/// # Errors
/// [`TreeError::Shrunk`].
pub fn consistency_proof(leaves: &[TreeHash], old: u64) -> Result<Vec<TreeHash>, TreeError> {
    Prover::consistency(old, leaves.len() as u64)?.over(leaves)
}

/// Checks that the record with hash `leaf` is number `index` of the tree of `size`
/// leaves with this root.
///
/// # Errors
/// [`TreeError::NoSuchLeaf`], [`TreeError::TooLarge`], [`TreeError::ProofLength`],
/// [`TreeError::Root`].
pub fn verify_inclusion(
    leaf: &TreeHash,
    index: u64,
    size: u64,
    root: &TreeHash,
    proof: &[TreeHash],
) -> Result<(), TreeError> {
    if size > SIZE_MAX {
        return Err(TreeError::TooLarge { size });
    }
    if index >= size {
        return Err(TreeError::NoSuchLeaf { index, size });
    }
    let wrong_length = TreeError::ProofLength { len: proof.len() };
    // The node on the path and the last node, each by its number on the level.
    let (mut node, mut last) = (index, size - 1);
    let mut found = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(wrong_length);
        }
        if node % 2 == 1 || node == last {
            found = node_hash(sibling, &found);
            // A last node without a sibling is its own parent.
            while node != 0 && node.is_multiple_of(2) {
                node >>= 1;
                last >>= 1;
            }
        } else {
            found = node_hash(&found, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    if found != *root {
        return Err(TreeError::Root);
    }
    Ok(())
}

/// Checks that the tree of `new` leaves with root `new_root` begins with the tree
/// of `old` leaves with root `old_root`.
///
/// # Errors
/// [`TreeError::Shrunk`], [`TreeError::TooLarge`], [`TreeError::ProofLength`],
/// [`TreeError::OldRoot`] where it is not the earlier tree that the proof begins
/// with, [`TreeError::Root`] where it does not lead to the later one.
pub fn verify_consistency(
    old: u64,
    old_root: &TreeHash,
    new: u64,
    new_root: &TreeHash,
    proof: &[TreeHash],
) -> Result<(), TreeError> {
    if new > SIZE_MAX {
        return Err(TreeError::TooLarge { size: new });
    }
    if old > new {
        return Err(TreeError::Shrunk { old, new });
    }
    let wrong_length = TreeError::ProofLength { len: proof.len() };
    if old == 0 || old == new {
        return match proof {
            [_, ..] => Err(wrong_length),
            [] if old == 0 && *old_root != empty_root() => Err(TreeError::OldRoot),
            [] if old == new && old_root != new_root => Err(TreeError::Root),
            // Of a tree that continues nothing, only the empty one's root is known.
            [] => Ok(()),
        };
    }
    // The last node of either tree, by its number on the level of the first hash.
    let up = (old - 1).trailing_ones();
    let (mut node, mut last) = ((old - 1) >> up, (new - 1) >> up);
    let (first, rest) = if old.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(wrong_length)?
    };
    let (mut found_old, mut found_new) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(wrong_length);
        }
        if node % 2 == 1 || node == last {
            found_old = node_hash(sibling, &found_old);
            found_new = node_hash(sibling, &found_new);
            while node != 0 && node.is_multiple_of(2) {
                node >>= 1;
                last >>= 1;
            }
        } else {
            found_new = node_hash(&found_new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    if found_old != *old_root {
        return Err(TreeError::OldRoot);
    }
    if found_new != *new_root {
        return Err(TreeError::Root);
    }
    Ok(())
}
