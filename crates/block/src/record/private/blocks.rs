//! Blocks: what lies in them, and where their shards are.

use crate::cell::block_root;
use crate::codec::{fields, tags};
use crate::geometry::{Geometry, shard_len_for};
use crate::id::{Attempt, BlockId, BucketId, ChunkId, Counter, Hash32, IncarnationId, KeyVersion, Seq, TenantId};
use crate::limits::{FRAME_LEN, MAX_CHUNK, MAX_PROVIDER_ID, MAX_SECTIONS, MAX_SHARDS, SEGMENT_LOG2_RANGE};
use crate::manifest::CodeId;
use crate::seal::{PREFIX_LEN, sealed_len};

tags! {
    /// How a chunk's stored bytes are made from its plain bytes.
    pub enum Encoding {
        /// They are the plain bytes.
        Raw = 0,
        /// zstd frames of 64 KiB behind an offset table (module `compress`).
        ZstdFramed = 1,
    }
}

fields! {
    /// Where a chunk lies in its block.
    pub struct ChunkEntry {
        /// The bucket it may be shared in.
        pub bucket: BucketId,
        /// Its id.
        pub id: ChunkId,
        /// Index of its section in the block.
        pub section: u8,
        /// Offset of its stored bytes in the section's plaintext.
        pub offset: u32,
        /// Length of its stored bytes.
        pub stored_len: u32,
        /// Length of its plain bytes.
        pub plain_len: u32,
        /// How the one becomes the other.
        pub encoding: Encoding,
    }
}
fields! {
    /// Where a section lies in its block's payload and what opens it.
    pub struct SectionInfo {
        /// Whose key.
        pub tenant: TenantId,
        /// Which generation of it.
        pub key_version: KeyVersion,
        /// Offset of its sealed form in the payload.
        pub offset: u32,
        /// Length of its plaintext.
        pub plain_len: u32,
        /// log2 of its segment length.
        pub seg_log2: u8,
        /// Salt and commitment of its sealed form, so that one ranged request reads a segment.
        pub prefix: [u8; PREFIX_LEN],
    }
}

impl SectionInfo {
    /// Length of the sealed form in bytes.
    pub fn sealed_len(&self) -> u64 {
        sealed_len(u64::from(self.plain_len), self.seg_log2.clamp(*SEGMENT_LOG2_RANGE.start(), *SEGMENT_LOG2_RANGE.end()))
    }
}

fields! {
    /// Where one shard lies.
    pub struct Placement {
        /// Index of the shard.
        pub shard: u8,
        /// The operator's name of the provider account.
        pub provider: String,
        /// Whether the provider acknowledged it.
        pub acked: bool,
    }
}
fields! {
    /// A bulk block reached its class and may be named.
    pub struct BulkAdded {
        /// Which block.
        pub block: BlockId,
        /// Whose counter.
        pub incarnation: IncarnationId,
        /// Its index among the incarnation's bulk blocks.
        pub counter: Counter,
        /// Which coding.
        pub attempt: Attempt,
        /// Shards.
        pub geometry: Geometry,
        /// Code of the parity shards.
        pub code: CodeId,
        /// Bytes of the payload.
        pub payload_len: u32,
        /// Bytes of each shard.
        pub shard_len: u32,
        /// Root over the shard roots.
        pub block_root: Hash32,
        /// Root of every shard.
        pub shard_roots: Vec<Hash32>,
        /// Hash of the manifest.
        pub manifest_hash: Hash32,
        /// Where the shards are.
        pub placements: Vec<Placement>,
        /// Sections of the payload.
        pub sections: Vec<SectionInfo>,
        /// Chunks in them.
        pub chunks: Vec<ChunkEntry>,
    }
}
fields! {
    /// An earlier commit block was released, and where its shards are.
    pub struct CommitReleased {
        /// Its position.
        pub seq: Seq,
        /// The attempt that counted.
        pub attempt: Attempt,
        /// Hash of its manifest.
        pub manifest_hash: Hash32,
        /// Where the shards are.
        pub placements: Vec<Placement>,
    }
}

impl BulkAdded {
    /// Whether all its numbers fit each other; what follows from others must be what follows.
    pub(super) fn is_plausible(&self) -> bool {
        let mut end = 0;
        let tiled = self.sections.iter().all(|section| {
            let in_order = u64::from(section.offset) == end && section.is_within(self.payload_len);
            end += section.sealed_len();
            in_order
        });
        tiled
            && end == u64::from(self.payload_len)
            && self.sections.len() <= MAX_SECTIONS
            && self.attempt.0 < Attempt::COUNT
            && shard_len_for(self.payload_len as usize, self.geometry.k()) == Ok(self.shard_len)
            && self.shard_roots.len() == usize::from(self.geometry.n())
            && self.block_root == block_root(&self.shard_roots)
            && is_one_home_each(&self.placements, self.geometry.n())
            && self.chunks.iter().all(|chunk| chunk.is_within(&self.sections))
    }
}

impl CommitReleased {
    /// Whether its numbers are within the limits.
    pub(super) fn is_plausible(&self) -> bool {
        self.attempt.0 < Attempt::COUNT && is_one_home_each(&self.placements, MAX_SHARDS)
    }
}

/// Whether every placement names another of `n` shards, at a provider that has a name.
fn is_one_home_each(placements: &[Placement], n: u8) -> bool {
    let mut seen = 0u32;
    placements.iter().all(|placement| {
        let bit = 1u32.checked_shl(u32::from(placement.shard)).unwrap_or(0);
        let fresh = placement.shard < n && seen & bit == 0;
        seen |= bit;
        fresh && (1..=MAX_PROVIDER_ID).contains(&placement.provider.len())
    })
}

impl SectionInfo {
    /// Whether the section lies inside a payload of this length.
    pub(crate) fn is_within(&self, payload_len: u32) -> bool {
        SEGMENT_LOG2_RANGE.contains(&self.seg_log2) && u64::from(self.offset) + self.sealed_len() <= u64::from(payload_len)
    }
}

impl ChunkEntry {
    /// Whether its lengths fit each other.
    pub(crate) fn is_plausible(&self) -> bool {
        let stored_fits = match self.encoding {
            Encoding::Raw => self.stored_len == self.plain_len,
            // One offset per frame, and the frames behind them.
            Encoding::ZstdFramed => u64::from(self.stored_len) >= 4 * (self.plain_len as usize).div_ceil(FRAME_LEN) as u64,
        };
        stored_fits && self.plain_len as usize <= MAX_CHUNK
    }

    /// Whether the chunk lies inside its section.
    pub(crate) fn is_within(&self, sections: &[SectionInfo]) -> bool {
        self.is_plausible()
            && sections
                .get(usize::from(self.section))
                .is_some_and(|section| u64::from(self.offset) + u64::from(self.stored_len) <= u64::from(section.plain_len))
    }
}
