//! Cells and their Merkle tree: wrong bytes are found by cell, before anything is decoded.
//!
//! A cell's hash is unkeyed BLAKE3. The tree over them is RFC 6962's with SHA-256, its leaves bound to the cell's place
//! and length; a shard root binds the shard's index and length; the block root is the same tree over the shard roots.

use sha2::{Digest, Sha256};

use crate::id::Hash32;
use crate::limits::CELL_LEN;
use crate::log::{leaf_hash, node_hash};

/// BLAKE3 of every cell of a shard body.
pub fn cell_hashes(body: &[u8]) -> Vec<Hash32> {
    body.chunks(CELL_LEN).map(cell_hash).collect()
}

/// BLAKE3 of one cell.
pub fn cell_hash(cell: &[u8]) -> Hash32 {
    Hash32::from_bytes(*blake3::hash(cell).as_bytes())
}

/// Root of one shard: binds its index, its length and every cell.
pub fn shard_root(index: u8, shard_len: u32, cells: &[Hash32]) -> Hash32 {
    let leaves = cells.iter().enumerate().map(|(i, cell)| {
        let place = crate::codec::length(i).to_be_bytes();
        leaf_hash(&[b"diaspore/v1/cell\0".as_slice(), &place, cell.as_bytes()].concat())
    });
    let tree = merkle_root(&leaves.collect::<Vec<_>>());
    let hash = Sha256::new()
        .chain_update(b"diaspore/v1/shard\0")
        .chain_update([index])
        .chain_update(shard_len.to_be_bytes())
        .chain_update(tree.as_bytes());
    Hash32::from_bytes(hash.finalize().into())
}

/// Root of a block over its shard roots in order.
pub fn block_root(shard_roots: &[Hash32]) -> Hash32 {
    let leaves: Vec<Hash32> = shard_roots.iter().map(|root| leaf_hash(root.as_bytes())).collect();
    let hash = Sha256::new().chain_update(b"diaspore/v1/block\0").chain_update(merkle_root(&leaves).as_bytes());
    Hash32::from_bytes(hash.finalize().into())
}

/// RFC 6962 MTH over leaf hashes; SHA-256 of nothing for none.
pub(crate) fn merkle_root(leaves: &[Hash32]) -> Hash32 {
    match leaves {
        [] => Hash32::from_bytes(Sha256::digest([]).into()),
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&merkle_root(left), &merkle_root(right))
        }
    }
}
