//! The Merkle log over the stored public parts (RFC 6962): hashes of complete subtrees are kept from 8 leaves up, smaller ones are made
//! from the leaves. That is a quarter of a node per leaf, and every question below costs O(log n) reads.

use std::ops::{Bound, ControlFlow};

use diaspore_block::id::Hash32;
use diaspore_block::log::{leaf_hash, node_hash};
use diaspore_block::record::PublicPart;

use crate::error::{LedgerError, Result};
use crate::snapshot::{decode, meta};
use crate::state::{Changes, State, Table};

/// Height of the smallest subtrees whose hashes are stored: 8 leaves.
const STORED_LEVEL: u8 = 3;
/// SHA-256 of nothing: the root of an empty tree.
const EMPTY_ROOT: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b,
    0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

fn node_key(level: u8, index: u64) -> [u8; 9] {
    let mut key = [level; 9];
    let (_, tail) = key.split_at_mut(1);
    tail.copy_from_slice(&index.to_be_bytes());
    key
}

/// Where hashes come from: a state, or a state with changes on top.
trait Hashes {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Encodings of the leaves of one block of at most 8, in order.
    fn leaf_run(&self, start: u64, end: u64) -> Result<Vec<Vec<u8>>>;
}

impl Hashes for &dyn State {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get(table, key)
    }

    fn leaf_run(&self, start: u64, end: u64) -> Result<Vec<Vec<u8>>> {
        let mut run = Vec::new();
        let last = end.to_be_bytes();
        self.walk(Table::Leaves, Bound::Included(&start.to_be_bytes()), &mut |key, value| {
            if key >= last.as_slice() {
                return Ok(ControlFlow::Break(()));
            }
            run.push(value.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(run)
    }
}

impl Hashes for &Changes<'_> {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get(table, key)
    }

    fn leaf_run(&self, start: u64, end: u64) -> Result<Vec<Vec<u8>>> {
        (start..end).map(|index| self.get(Table::Leaves, &index.to_be_bytes())?.ok_or_else(missing)).collect()
    }
}

fn missing() -> LedgerError {
    LedgerError::corrupt("a node of the Merkle log is missing")
}

/// RFC 6962 hash of the leaves `start..end`, where `start` is aligned as in a tree of `end` or more leaves.
fn range_hash(hashes: &impl Hashes, start: u64, end: u64) -> Result<Hash32> {
    let count = end - start;
    if count.is_power_of_two() && start % count == 0 {
        let level = u8::try_from(count.trailing_zeros()).unwrap_or(u8::MAX);
        return subtree(hashes, level, start / count);
    }
    if count <= 1 << STORED_LEVEL {
        let run = hashes.leaf_run(start, end)?;
        return if run.len() as u64 == count { Ok(fold_leaves(&run)) } else { Err(missing()) };
    }
    let split = largest_power_below(count);
    Ok(node_hash(&range_hash(hashes, start, start + split)?, &range_hash(hashes, start + split, end)?))
}

fn subtree(hashes: &impl Hashes, level: u8, index: u64) -> Result<Hash32> {
    if level >= STORED_LEVEL {
        let stored = hashes.value(Table::Nodes, &node_key(level, index))?.ok_or_else(missing)?;
        return decode(&stored, "nodes");
    }
    let run = hashes.leaf_run(index << level, (index + 1) << level)?;
    if run.len() == 1 << level { Ok(fold_leaves(&run)) } else { Err(missing()) }
}

fn fold_leaves(leaves: &[Vec<u8>]) -> Hash32 {
    match leaves {
        [] => Hash32::from_bytes(EMPTY_ROOT),
        [leaf] => leaf_hash(leaf),
        _ => {
            let split = usize::try_from(largest_power_below(leaves.len() as u64)).unwrap_or(1);
            let (left, right) = leaves.split_at(split);
            node_hash(&fold_leaves(left), &fold_leaves(right))
        }
    }
}

/// Largest power of two below `count`, which is at least 2.
fn largest_power_below(count: u64) -> u64 {
    1 << (u64::BITS - 1 - count.saturating_sub(1).max(1).leading_zeros())
}

/// Appends leaves and the hashes of every stored subtree they complete; gives the new size.
pub(crate) fn append<'r>(changes: &mut Changes<'_>, size: u64, leaves: impl Iterator<Item = &'r PublicPart>) -> Result<u64> {
    let mut size = size;
    for leaf in leaves {
        changes.put(Table::Leaves, &size.to_be_bytes(), leaf.encode().to_vec());
        size += 1;
        for level in STORED_LEVEL..=u8::try_from(size.trailing_zeros()).unwrap_or(u8::MAX) {
            let index = (size >> level) - 1;
            let hash = if level == STORED_LEVEL {
                fold_leaves(&(&*changes).leaf_run(index << level, size)?)
            } else {
                let (left, right) = (subtree(&&*changes, level - 1, 2 * index)?, subtree(&&*changes, level - 1, 2 * index + 1)?);
                node_hash(&left, &right)
            };
            changes.put(Table::Nodes, &node_key(level, index), hash.as_bytes().to_vec());
        }
    }
    changes.put(Table::Meta, meta::LOG_SIZE, size.to_be_bytes().to_vec());
    Ok(size)
}

/// Root over `size` leaves, changes included.
pub(crate) fn root_with(changes: &Changes<'_>, size: u64) -> Result<Hash32> {
    if size == 0 { Ok(Hash32::from_bytes(EMPTY_ROOT)) } else { range_hash(&changes, 0, size) }
}

/// Number of leaves.
pub(crate) fn size(state: &dyn State) -> Result<u64> {
    state.get(Table::Meta, meta::LOG_SIZE)?.map_or(Ok(0), |bytes| decode(&bytes, "log size"))
}

fn check_size(state: &dyn State, wanted: u64) -> Result<()> {
    if wanted <= size(state)? { Ok(()) } else { Err(LedgerError::Invalid { what: "the log has fewer leaves than that" }) }
}

pub(crate) fn root(state: &dyn State, size: u64) -> Result<Hash32> {
    check_size(state, size)?;
    if size == 0 { Ok(Hash32::from_bytes(EMPTY_ROOT)) } else { range_hash(&state, 0, size) }
}

pub(crate) fn node(state: &dyn State, level: u8, index: u64) -> Result<Hash32> {
    let end = index.checked_add(1).and_then(|next| next.checked_shl(u32::from(level))).filter(|end| end >> level == index + 1);
    check_size(state, end.unwrap_or(u64::MAX))?;
    subtree(&state, level, index)
}

pub(crate) fn inclusion(state: &dyn State, index: u64, size: u64) -> Result<Vec<Hash32>> {
    check_size(state, size)?;
    if index >= size {
        return Err(LedgerError::Invalid { what: "the leaf lies beyond the tree" });
    }
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = start + largest_power_below(end - start);
        if index < middle {
            path.push(range_hash(&state, middle, end)?);
            end = middle;
        } else {
            path.push(range_hash(&state, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

pub(crate) fn consistency(state: &dyn State, old: u64, new: u64) -> Result<Vec<Hash32>> {
    check_size(state, new)?;
    if old > new {
        return Err(LedgerError::Invalid { what: "the old tree is larger than the new one" });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let (mut start, mut end) = (0, new);
    let mut whole = true;
    let mut path = Vec::new();
    while end != old {
        let middle = start + largest_power_below(end - start);
        if old <= middle {
            path.push(range_hash(&state, middle, end)?);
            end = middle;
        } else {
            path.push(range_hash(&state, start, middle)?);
            start = middle;
            whole = false;
        }
    }
    if !whole {
        path.push(range_hash(&state, start, end)?);
    }
    path.reverse();
    Ok(path)
}

#[cfg(test)]
mod tests;
