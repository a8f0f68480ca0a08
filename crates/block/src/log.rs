//! The audit log: an RFC 6962 Merkle tree over public parts, with proofs, signed-note checkpoints and tiles.
//!
//! Hashes of complete subtrees are named by (level, index): level 0 are the leaves, node (l, i) covers the leaves
//! `i << l .. (i + 1) << l`. Whoever keeps them (the ledger) hands them in through a closure.

use sha2::{Digest, Sha256};

use crate::codec::{Field, Reader};
use crate::error::{BlockError, Result};
use crate::id::Hash32;

mod note;
mod proof;
pub mod tile;
pub use note::{Checkpoint, DRILL_REPORT, KeyName, claimed_signer, open_report, sign_report, verifier_key};
pub use proof::{ConsistencyProof, InclusionProof, consistency_proof, inclusion_proof, root_at};

#[cfg(test)]
mod tests;

/// RFC 6962 leaf hash: SHA-256(0x00 ‖ data).
pub fn leaf_hash(data: &[u8]) -> Hash32 {
    Hash32::from_bytes(Sha256::new().chain_update([0]).chain_update(data).finalize().into())
}

/// RFC 6962 node hash: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    let hash = Sha256::new().chain_update([1]).chain_update(left.as_bytes()).chain_update(right.as_bytes());
    Hash32::from_bytes(hash.finalize().into())
}

/// RFC 6962 root of the empty tree: SHA-256 of nothing.
pub fn empty_root() -> Hash32 {
    Hash32::from_bytes(Sha256::digest([]).into())
}

/// Root over leaf hashes, computed from all of them.
pub fn root_of(leaves: &[Hash32]) -> Hash32 {
    crate::cell::merkle_root(leaves)
}

/// The growing edge of the log: the roots of its complete subtrees, largest first. Enough to append and to sign.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogTree {
    size: u64,
    peaks: Vec<Hash32>,
}

/// A subtree that an append completed: (level, index, hash).
pub type CompleteNode = (u8, u64, Hash32);

impl LogTree {
    /// The empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The edge of a log of `size` leaves; `peaks` are the roots of its complete subtrees, largest first.
    pub fn from_peaks(size: u64, peaks: Vec<Hash32>) -> Result<Self> {
        if peaks.len() as u64 == u64::from(size.count_ones()) {
            Ok(Self { size, peaks })
        } else {
            Err(BlockError::Malformed { what: "edge of the log" })
        }
    }

    /// Leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, largest first.
    pub fn peaks(&self) -> &[Hash32] {
        &self.peaks
    }

    /// Appends a leaf hash; gives every node it completed, the leaf itself first.
    pub fn append(&mut self, leaf: Hash32) -> Vec<CompleteNode> {
        let mut done = vec![(0, self.size, leaf)];
        let mut node = leaf;
        let mut level = 0u8;
        // A set bit of the size is a peak of that level, waiting for its right half.
        while (self.size >> level) & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            node = node_hash(&left, &node);
            level += 1;
            done.push((level, self.size >> level, node));
        }
        self.peaks.push(node);
        self.size += 1;
        done
    }

    /// RFC 6962 root.
    pub fn root(&self) -> Hash32 {
        let mut peaks = self.peaks.iter().rev().copied();
        peaks.next().map_or_else(empty_root, |last| peaks.fold(last, |right, left| node_hash(&left, &right)))
    }
}

impl Field for LogTree {
    const MIN_LEN: usize = 8 + 4;
    fn put(&self, out: &mut Vec<u8>) {
        self.size.put(out);
        self.peaks.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        let size = reader.value()?;
        Self::from_peaks(size, reader.value()?).map_err(|_| reader.malformed())
    }
}
