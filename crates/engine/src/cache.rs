//! The memory tier: decoded chunks of hot small reads and chunk lists, bounded in bytes.

use std::hash::{BuildHasherDefault, DefaultHasher};

use bytes::Bytes;
use diaspore_block::id::{BucketId, ChunkId};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

/// Bookkeeping of one entry beside its bytes.
const ENTRY_BYTES: u64 = 128;

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

    /// Keeps a whole plain chunk; the bytes are copied when they are a small part of a larger buffer.
    pub(crate) fn put(&self, bucket: BucketId, id: ChunkId, chunk: &Bytes) {
        self.chunks.insert((bucket, id), Bytes::copy_from_slice(chunk));
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
            cache.put(bucket, ChunkId::from_bytes([n; 32]), &Bytes::from(vec![n; 10_000]));
            assert!(cache.chunks.weight() <= 1 << 20);
        }
        let held = (0..=255).filter(|&n| cache.get(bucket, ChunkId::from_bytes([n; 32])).is_some()).count();
        assert!((50..=105).contains(&held), "{held}");
        assert!(cache.get(BucketId::from_bytes([2; 16]), ChunkId::from_bytes([255; 32])).is_none());
    }
}
