//! The Merkle log over the stored public parts (RFC 6962; trees and proofs are the block crate's). Hashes of complete subtrees are kept
//! from 8 leaves up, smaller ones are made from the leaves: a quarter of a node per leaf, and every question costs O(log n) reads.

use std::ops::{Bound, ControlFlow};

use diaspore_block::codec::encode;
use diaspore_block::id::Hash32;
use diaspore_block::log::{self, ConsistencyProof, InclusionProof, LogTree, leaf_hash};
use diaspore_block::record::PublicPart;

use crate::error::{LedgerError, Result};
use crate::snapshot::{decode, meta};
use crate::state::{Changes, State, Table};

/// Height of the smallest subtrees whose hashes are stored: 8 leaves.
const STORED_LEVEL: u8 = 3;

fn node_key(level: u8, index: u64) -> [u8; 9] {
    let mut key = [level; 9];
    let (_, tail) = key.split_at_mut(1);
    tail.copy_from_slice(&index.to_be_bytes());
    key
}

/// Where the hash of a subtree is stored; none for one that is made from its leaves.
pub(crate) fn stored_key(level: u8, index: u64) -> Option<[u8; 9]> {
    (level >= STORED_LEVEL).then(|| node_key(level, index))
}

fn missing() -> LedgerError {
    LedgerError::corrupt("a node of the Merkle log is missing")
}

/// Appends leaves with the hashes of every stored subtree they complete; gives the grown tree.
pub(crate) fn append<'r>(changes: &mut Changes<'_>, leaves: impl Iterator<Item = &'r PublicPart>) -> Result<LogTree> {
    append_bytes(changes, leaves.map(PublicPart::encode))
}

/// The same for leaves as they stand.
pub(crate) fn append_bytes(changes: &mut Changes<'_>, leaves: impl Iterator<Item = impl AsRef<[u8]>>) -> Result<LogTree> {
    let mut tree = edge(changes)?;
    for leaf in leaves {
        let leaf = leaf.as_ref();
        changes.put(Table::Leaves, &tree.size().to_be_bytes(), leaf.to_vec());
        for (level, index, hash) in tree.append(leaf_hash(leaf)) {
            if let Some(key) = stored_key(level, index) {
                changes.put(Table::Nodes, &key, hash.as_bytes().to_vec());
            }
        }
    }
    changes.put(Table::Meta, meta::LOG, encode(&tree));
    Ok(tree)
}

/// The growing edge of the log, changes included.
pub(crate) fn edge(changes: &Changes<'_>) -> Result<LogTree> {
    changes.get(Table::Meta, meta::LOG)?.map_or(Ok(LogTree::new()), |bytes| decode(&bytes, "log edge"))
}

/// Number of leaves.
pub(crate) fn size(state: &dyn State) -> Result<u64> {
    let tree: Option<LogTree> = state.get(Table::Meta, meta::LOG)?.map(|bytes| decode(&bytes, "log edge")).transpose()?;
    Ok(tree.map_or(0, |tree| tree.size()))
}

fn check_size(state: &dyn State, wanted: u64) -> Result<()> {
    if wanted <= size(state)? { Ok(()) } else { Err(LedgerError::Invalid { what: "leaf or size outside the log" }) }
}

/// Hash of the complete subtree `index` of height `level`, which must lie within the log.
fn subtree(state: &dyn State, level: u8, index: u64) -> Result<Hash32> {
    if level >= STORED_LEVEL {
        return decode(&state.get(Table::Nodes, &node_key(level, index))?.ok_or_else(missing)?, "nodes");
    }
    let (start, end) = (index << level, ((index + 1) << level).to_be_bytes());
    let mut leaves = Vec::with_capacity(1 << level);
    state.walk(Table::Leaves, Bound::Included(&start.to_be_bytes()), &mut |key, value| {
        if key >= end.as_slice() {
            return Ok(ControlFlow::Break(()));
        }
        leaves.push(leaf_hash(value));
        Ok(ControlFlow::Continue(()))
    })?;
    if leaves.len() == 1 << level { Ok(log::root_of(&leaves)) } else { Err(missing()) }
}

pub(crate) fn node(state: &dyn State, level: u8, index: u64) -> Result<Hash32> {
    let end = index.checked_add(1).and_then(|next| next.checked_mul(1u64.checked_shl(u32::from(level))?));
    check_size(state, end.unwrap_or(u64::MAX))?;
    subtree(state, level, index)
}

pub(crate) fn root(state: &dyn State, size: u64) -> Result<Hash32> {
    check_size(state, size)?;
    log::root_at(size, |level, index| subtree(state, level, index))
}

pub(crate) fn inclusion(state: &dyn State, index: u64, size: u64) -> Result<InclusionProof> {
    check_size(state, size)?;
    log::inclusion_proof(index, size, |level, index| subtree(state, level, index))
}

pub(crate) fn consistency(state: &dyn State, old: u64, new: u64) -> Result<ConsistencyProof> {
    check_size(state, new)?;
    log::consistency_proof(old, new, |level, index| subtree(state, level, index))
}

#[cfg(test)]
mod tests;
