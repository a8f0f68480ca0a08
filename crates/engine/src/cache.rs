//! The memory tier: decoded chunks of hot small reads, chunk lists, and the leaf lists of shards, each bounded in bytes.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use bytes::Bytes;
use diaspore_block::id::{BlockId, BucketId, ChunkId};
use diaspore_block::shard::LeafList;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

/// Bookkeeping of one entry beside its bytes.
const ENTRY_BYTES: u64 = 128;
/// Bound of all leaf lists: those of some 1900 shards of 4 MiB.
const LEAF_BYTES: u64 = 4 << 20;

type Key = (BucketId, ChunkId);
/// Without random keys, so that a simulation replays; nobody chooses chunk ids, they are keyed hashes.
type Hasher = BuildHasherDefault<DefaultHasher>;

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<Key, Bytes> for Weight {
    fn weight(&self, _: &Key, chunk: &Bytes) -> u64 {
        ENTRY_BYTES + chunk.len() as u64
    }
}

/// Plain chunks by bucket and id. Only verified bytes enter.
pub(crate) struct ChunkCache {
    chunks: Cache<Key, Bytes, Weight, Hasher>,
}

impl std::fmt::Debug for ChunkCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkCache").field("bytes", &self.chunks.weight()).finish_non_exhaustive()
    }
}

impl ChunkCache {
    /// A cache that holds at most `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { chunks: Cache::with((bytes >> 14).max(16), bytes as u64, Weight, Hasher::default(), DefaultLifecycle::default()) }
    }

    /// The whole plain chunk, if held.
    pub(crate) fn get(&self, bucket: BucketId, id: ChunkId) -> Option<Bytes> {
        self.chunks.get(&(bucket, id))
    }

    /// Whether the chunk is held; asking does not make it hotter.
    pub(crate) fn holds(&self, bucket: BucketId, id: ChunkId) -> bool {
        self.chunks.peek(&(bucket, id)).is_some()
    }

    /// Keeps a copy of a whole plain chunk, given as its pieces: they are small parts of larger buffers.
    pub(crate) fn put(&self, bucket: BucketId, id: ChunkId, pieces: &[Bytes]) {
        self.chunks.insert((bucket, id), Bytes::from(pieces.concat()));
    }
}

#[derive(Debug, Clone)]
struct LeafWeight;

impl Weighter<(BlockId, u8), Arc<LeafList>> for LeafWeight {
    fn weight(&self, _: &(BlockId, u8), leaves: &Arc<LeafList>) -> u64 {
        ENTRY_BYTES + 32 * u64::from(leaves.cell_count())
    }
}

/// Leaf lists by block and shard, so that a run of reads from a block that lost a shard fetches each list once. A list was held
/// against the shard's signed root, so it does not matter who gave it.
pub(crate) struct LeafCache {
    lists: Cache<(BlockId, u8), Arc<LeafList>, LeafWeight, Hasher>,
}

impl std::fmt::Debug for LeafCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeafCache").field("bytes", &self.lists.weight()).finish_non_exhaustive()
    }
}

impl Default for LeafCache {
    fn default() -> Self {
        Self { lists: Cache::with(1024, LEAF_BYTES, LeafWeight, Hasher::default(), DefaultLifecycle::default()) }
    }
}

impl LeafCache {
    /// The leaf list of a shard, if held.
    pub(crate) fn get(&self, block: BlockId, shard: u8) -> Option<Arc<LeafList>> {
        self.lists.get(&(block, shard))
    }

    /// Keeps a verified list.
    pub(crate) fn put(&self, block: BlockId, shard: u8, leaves: &Arc<LeafList>) {
        self.lists.insert((block, shard), Arc::clone(leaves));
    }

    #[cfg(test)]
    pub(crate) fn clear(&self) {
        self.lists.clear();
    }
}

#[cfg(test)]
impl ChunkCache {
    pub(crate) fn clear(&self) {
        self.chunks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_stays_below_the_bound() {
        let cache = ChunkCache::new(1 << 20);
        let bucket = BucketId::from_bytes([1; 16]);
        for n in 0..=255 {
            cache.put(bucket, ChunkId::from_bytes([n; 32]), &[Bytes::from(vec![n; 4000]), Bytes::from(vec![n; 6000])]);
            assert!(cache.chunks.weight() <= 1 << 20);
        }
        let held = (0..=255).filter(|&n| cache.get(bucket, ChunkId::from_bytes([n; 32])).is_some()).count();
        assert!((50..=105).contains(&held), "{held}");
        assert!(cache.get(BucketId::from_bytes([2; 16]), ChunkId::from_bytes([255; 32])).is_none());
    }
}
