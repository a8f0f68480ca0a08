//! Inclusion and consistency proofs, as RFC 6962 section 2.1 defines them and RFC 9162 section 2.1 verifies them.

use crate::codec::fields;
use crate::error::{BlockError, Result};
use crate::id::Hash32;
use crate::log::{empty_root, node_hash};

const MISSING: BlockError = BlockError::Invalid { what: "leaf or size outside the log" };

/// Root of the leaves `start..end`, out of complete subtrees.
fn range_root<E: From<BlockError>>(
    start: u64,
    end: u64,
    node: &mut impl FnMut(u8, u64) -> std::result::Result<Hash32, E>,
) -> std::result::Result<Hash32, E> {
    let len = end - start;
    if len == 0 {
        return Ok(empty_root());
    }
    if len.is_power_of_two() {
        let level = len.trailing_zeros();
        return node(u8::try_from(level).map_err(|_| MISSING)?, start >> level);
    }
    let split = start + largest_power_below(len);
    let (left, right) = (range_root(start, split, node)?, range_root(split, end, node)?);
    Ok(node_hash(&left, &right))
}

/// The largest power of two below `len`, which must be at least 2.
const fn largest_power_below(len: u64) -> u64 {
    1 << (len - 1).ilog2()
}

/// Root of the first `size` leaves; `node` gives complete subtrees by (level, index).
pub fn root_at<E: From<BlockError>>(
    size: u64,
    mut node: impl FnMut(u8, u64) -> std::result::Result<Hash32, E>,
) -> std::result::Result<Hash32, E> {
    range_root(0, size, &mut node)
}

fields! {
    /// Shows that a leaf is in a log of `size` leaves.
    pub struct InclusionProof {
        /// Index of the leaf.
        pub index: u64,
        /// Leaves of the log.
        pub size: u64,
        /// Siblings, leaf side first.
        pub path: Vec<Hash32>,
    }
}
fields! {
    /// Shows that a log of `new_size` leaves extends one of `old_size`.
    pub struct ConsistencyProof {
        /// Leaves of the older log.
        pub old_size: u64,
        /// Leaves of the newer log.
        pub new_size: u64,
        /// Hashes as RFC 6962 orders them.
        pub path: Vec<Hash32>,
    }
}

/// Makes the proof that leaf `index` is in the first `size` leaves.
pub fn inclusion_proof<E: From<BlockError>>(
    index: u64,
    size: u64,
    mut node: impl FnMut(u8, u64) -> std::result::Result<Hash32, E>,
) -> std::result::Result<InclusionProof, E> {
    if index >= size {
        return Err(MISSING.into());
    }
    let mut path = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let split = start + largest_power_below(end - start);
        if index < split {
            path.push(range_root(split, end, &mut node)?);
            end = split;
        } else {
            path.push(range_root(start, split, &mut node)?);
            start = split;
        }
    }
    path.reverse();
    Ok(InclusionProof { index, size, path })
}

/// Makes the proof that the first `new_size` leaves extend the first `old_size`.
pub fn consistency_proof<E: From<BlockError>>(
    old_size: u64,
    new_size: u64,
    mut node: impl FnMut(u8, u64) -> std::result::Result<Hash32, E>,
) -> std::result::Result<ConsistencyProof, E> {
    if old_size > new_size {
        return Err(MISSING.into());
    }
    if old_size == 0 {
        return Ok(ConsistencyProof { old_size, new_size, path: Vec::new() });
    }
    let mut path = Vec::new();
    let (mut start, mut end) = (0, new_size);
    // Follow the old log's edge down; a subtree it fills exactly needs no hash of its own if it starts at the left.
    while end != old_size {
        let split = start + largest_power_below(end - start);
        if old_size <= split {
            path.push(range_root(split, end, &mut node)?);
            end = split;
        } else {
            path.push(range_root(start, split, &mut node)?);
            start = split;
        }
    }
    if start > 0 {
        path.push(range_root(start, end, &mut node)?);
    }
    path.reverse();
    Ok(ConsistencyProof { old_size, new_size, path })
}

impl InclusionProof {
    /// Checks the proof for a leaf hash against a root.
    pub fn verify(&self, leaf: &Hash32, root: &Hash32) -> Result<()> {
        const WHAT: BlockError = BlockError::Contradiction { what: "inclusion proof" };
        if self.index >= self.size {
            return Err(WHAT);
        }
        let (mut node, mut last) = (self.index, self.size - 1);
        let mut hash = *leaf;
        for sibling in &self.path {
            if last == 0 {
                return Err(WHAT);
            }
            if node & 1 == 1 || node == last {
                hash = node_hash(sibling, &hash);
                while node & 1 == 0 && node != 0 {
                    node >>= 1;
                    last >>= 1;
                }
            } else {
                hash = node_hash(&hash, sibling);
            }
            node >>= 1;
            last >>= 1;
        }
        if last == 0 && hash == *root { Ok(()) } else { Err(WHAT) }
    }
}

impl ConsistencyProof {
    /// Checks the proof against both roots.
    pub fn verify(&self, old_root: &Hash32, new_root: &Hash32) -> Result<()> {
        const WHAT: BlockError = BlockError::Contradiction { what: "consistency proof" };
        let (old, new) = (self.old_size, self.new_size);
        if old > new || (old == 0 && *old_root != empty_root()) {
            return Err(WHAT);
        }
        // Every log extends the empty one: there is nothing to show.
        if old == 0 && new > 0 {
            return if self.path.is_empty() { Ok(()) } else { Err(WHAT) };
        }
        if old == new {
            return if self.path.is_empty() && old_root == new_root { Ok(()) } else { Err(WHAT) };
        }
        let mut path = self.path.iter();
        let mut first = *if old.is_power_of_two() { old_root } else { path.next().ok_or(WHAT)? };
        let mut second = first;
        let shift = (old - 1).trailing_ones();
        let (mut node, mut last) = ((old - 1) >> shift, (new - 1) >> shift);
        for sibling in path {
            if last == 0 {
                return Err(WHAT);
            }
            if node & 1 == 1 || node == last {
                first = node_hash(sibling, &first);
                second = node_hash(sibling, &second);
                while node & 1 == 0 && node != 0 {
                    node >>= 1;
                    last >>= 1;
                }
            } else {
                second = node_hash(&second, sibling);
            }
            node >>= 1;
            last >>= 1;
        }
        if last == 0 && first == *old_root && second == *new_root { Ok(()) } else { Err(WHAT) }
    }
}
