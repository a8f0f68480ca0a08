//! The audit log: an RFC 6962 Merkle tree over public parts.

use sha2::{Digest, Sha256};

use crate::id::Hash32;

/// RFC 6962 leaf hash: SHA-256(0x00 ‖ data).
pub fn leaf_hash(data: &[u8]) -> Hash32 {
    Hash32::from_bytes(Sha256::new().chain_update([0]).chain_update(data).finalize().into())
}

/// RFC 6962 node hash: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    let hash = Sha256::new().chain_update([1]).chain_update(left.as_bytes()).chain_update(right.as_bytes());
    Hash32::from_bytes(hash.finalize().into())
}
