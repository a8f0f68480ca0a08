//! Limits and constants of format version 1, in one place. Units are bytes unless the name says otherwise.

/// Version of the manifest that this crate writes and the newest it reads; the same holds for the versions below. Each structure
/// counts for itself, and a value keeps the version it was read with: leaves and signatures are over bytes that must come again.
pub const MANIFEST_VERSION: u8 = 1;
/// Version of a record's public part.
pub const PUBLIC_VERSION: u8 = 1;
/// Version of a record's private part.
pub const PRIVATE_VERSION: u8 = 1;
/// Version of a commit body.
pub const COMMIT_VERSION: u8 = 1;
/// Version of a compacted log's root and of the rows in its parts.
pub const COMPACTED_VERSION: u8 = 1;
/// Version of claims and heads.
pub const CLAIM_VERSION: u8 = 1;
/// Version of the keyring's encoding.
pub const KEYRING_VERSION: u8 = 1;
/// Longest shard object: header, body and sealed leaf list together.
pub const MAX_SHARD_OBJECT: usize = 4 << 20;
/// Shortest shard object; smaller ones are padded up to it.
pub const MIN_SHARD_OBJECT: usize = 4096;
/// Length of the sealed header in front of every shard.
pub const HEADER_LEN: usize = 2048;
/// log2 of the cell length.
pub const CELL_LOG2: u8 = 16;
/// Length of a cell, the leaf of the signed Merkle tree.
pub const CELL_LEN: usize = 1 << CELL_LOG2;
/// Coding and rebuilding run over columns of this many bytes per shard.
pub const COLUMN_LEN: usize = 256 << 10;
/// Most shards of a block.
pub const MAX_SHARDS: u8 = 32;
/// log2 of the segment length in bulk sections.
pub const BULK_SEGMENT_LOG2: u8 = 16;
/// log2 of the segment length in commit sections: a small read moves little.
pub const COMMIT_SEGMENT_LOG2: u8 = 13;
/// Shortest and longest segment, log2.
pub const SEGMENT_LOG2_RANGE: std::ops::RangeInclusive<u8> = 9..=16;
/// Most sections of a block, the service's own included.
pub const MAX_SECTIONS: usize = 255;
/// Most records of a commit block.
pub const MAX_RECORDS: usize = 65_536;
/// Longest encoded private part.
pub const MAX_PRIVATE: usize = 1 << 20;
/// Longest name of an object.
pub const MAX_NAME: usize = 64;
/// Longest id of a provider.
pub const MAX_PROVIDER_ID: usize = 255;
/// Longest blob key.
pub const MAX_BLOB_KEY: usize = 1024;
/// Most references in one content list before it moves into chunks of its own.
pub const MAX_INLINE_REFS: usize = 512;
/// Most references in one chunk of a content list.
pub const MAX_LIST_REFS: usize = 4096;
/// Most levels of lists above a blob's data.
pub const MAX_DEPTH: u8 = 3;
/// Longest sealed keyring, before sealing.
pub const MAX_KEYRING: usize = 4 << 20;
/// Keyrings are padded to a multiple of this.
pub const KEYRING_GRAIN: usize = 4096;
/// Length of every claim before sealing: its size tells nothing about providers and predecessors.
pub const MAX_CLAIM: usize = 32 << 10;
/// Length of every head before sealing.
pub const HEAD_LEN: usize = 4 << 10;
/// Most predecessors and providers a claim names.
pub const MAX_CLAIM_NAMES: usize = 1024;
/// Plain length of a compression frame.
pub const FRAME_LEN: usize = 64 << 10;
/// Longest chunk, plain.
pub const MAX_CHUNK: usize = 4 << 20;
/// Most plain bytes in a part of a compacted log: sealed they fit a block of any geometry.
pub const MAX_PART: usize = 4_000_000;
