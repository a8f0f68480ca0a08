//! What the ledger knows, one struct per table. Locations print nothing of themselves and have no `Serialize`.

use std::fmt;

use diaspore_block::codec::{Field, Reader};
use diaspore_block::geometry::Geometry;
use diaspore_block::id::{
    Attempt, BlockId, BucketId, Counter, Epoch, Hash32, IncarnationId, KeyVersion, PrincipalId, Seq, TenantId, Timestamp, VersionId,
};
use diaspore_block::manifest::{BlockKind, CodeId};
use diaspore_block::record::{
    Class, CondemnReason, Content, Encoding, LogCompacted, Placement, ProviderEvacuated, ProviderMode, RecordKind, SectionInfo,
};

/// Defines a struct whose encoding is its fields in order.
macro_rules! fields {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty,)* }) => {
        $(#[$meta])*
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }

        impl Field for $name {
            const MIN_LEN: usize = 0 $(+ <$ty as Field>::MIN_LEN)*;
            fn put(&self, out: &mut Vec<u8>) {
                $(Field::put(&self.$field, out);)*
            }
            fn take(reader: &mut Reader<'_>) -> diaspore_block::Result<Self> {
                Ok(Self { $($field: Field::take(reader)?,)* })
            }
        }
    };
}
pub(crate) use fields;

fields! {
    /// A tenant.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TenantEntry {
        /// Id.
        pub id: TenantId,
        /// Name, unique in the deployment.
        pub name: String,
        /// When it was created.
        pub created: Timestamp,
    }
}

fields! {
    /// A bucket and what it holds now.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct BucketEntry {
        /// Id.
        pub id: BucketId,
        /// Whose it is.
        pub tenant: TenantId,
        /// Name, unique in the tenant.
        pub name: String,
        /// Tenant key version new data is sealed under.
        pub key_version: KeyVersion,
        /// When it was created.
        pub created: Timestamp,
        /// Number of blobs.
        pub blobs: u64,
        /// Sum of their plain lengths in bytes.
        pub logical_bytes: u64,
    }
}

fields! {
    /// The current version of a blob.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct BlobEntry {
        /// Version id.
        pub version: VersionId,
        /// Plain length in bytes.
        pub size: u64,
        /// Media type as given.
        pub content_type: Option<String>,
        /// User metadata in order.
        pub metadata: Vec<(String, String)>,
        /// SHA-256 of the plain bytes, where it was asked for.
        pub sha256: Option<[u8; 32]>,
        /// Random validator of the version.
        pub etag: [u8; 16],
        /// How many losses its acknowledgement survives.
        pub class: Class,
        /// When it was accepted.
        pub modified: Timestamp,
        /// Commit block that carries its record.
        pub seq: Seq,
        /// Its chunks in order.
        pub content: Content,
    }
}

fields! {
    /// Where a chunk lies: a section of a block. A location: redacted, never serialised.
    #[derive(Clone, PartialEq, Eq)]
    pub struct ChunkPlace {
        /// Block that holds it.
        pub block: BlockId,
        /// Section of the block.
        pub section: u8,
        /// Offset in the section's plaintext, bytes.
        pub offset: u32,
        /// Stored (compressed) length in bytes.
        pub stored_len: u32,
        /// Plain length in bytes.
        pub plain_len: u32,
        /// How stored bytes become plain bytes.
        pub encoding: Encoding,
    }
}

fields! {
    /// What is known about a container block. A location: redacted, never serialised.
    #[derive(Clone, PartialEq, Eq)]
    pub struct BlockFacts {
        /// Id.
        pub id: BlockId,
        /// Kind of its manifest.
        pub kind: BlockKind,
        /// Incarnation that wrote it.
        pub incarnation: IncarnationId,
        /// Its counter among the blocks of its kind.
        pub counter: Counter,
        /// The attempt that counts.
        pub attempt: Attempt,
        /// Shards needed and made.
        pub geometry: Geometry,
        /// Code of the parity shards.
        pub code: CodeId,
        /// Payload length in bytes, padding excluded.
        pub payload_len: u32,
        /// Length of each shard's body in bytes.
        pub shard_len: u32,
        /// Merkle root over the shard roots.
        pub block_root: Hash32,
        /// Merkle root of each shard's cells.
        pub shard_roots: Vec<Hash32>,
        /// Hash of the signed manifest.
        pub manifest_hash: Hash32,
        /// Its sections in order.
        pub sections: Vec<SectionInfo>,
        /// Where its shards are, as far as they were acknowledged.
        pub placements: Vec<Placement>,
    }
}

fields! {
    /// A block in the view. A location: redacted, never serialised.
    #[derive(Clone, PartialEq, Eq)]
    pub struct BlockEntry {
        /// Commit-block sequence that brought it (its own for a commit block).
        pub seq: Seq,
        /// Time of that commit block.
        pub time: Timestamp,
        /// All n shards are durable.
        pub settled: bool,
        /// What it is.
        pub facts: BlockFacts,
    }
}

macro_rules! redacted {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    )*};
}
redacted!(ChunkPlace, BlockFacts, BlockEntry, CompactionEntry, CheckEntry);

fields! {
    /// Final outcome of a request that came with an `Idempotency-Key`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct IdempotencyEntry {
        /// What must not differ between retries.
        pub request_hash: [u8; 32],
        /// Commit block that carries the record.
        pub seq: Seq,
        /// When it was accepted.
        pub time: Timestamp,
        /// Bucket of the blob.
        pub bucket: BucketId,
        /// Key of the blob.
        pub key: Vec<u8>,
        /// The version put or deleted.
        pub version: VersionId,
        /// True for a delete.
        pub deleted: bool,
        /// The entry a put made, as its first answer showed it.
        pub blob: Option<BlobEntry>,
    }
}

fields! {
    /// An API key: its verifier, never its secret.
    #[derive(Clone, PartialEq, Eq)]
    pub struct ApiKeyEntry {
        /// Id, part of the token.
        pub id: PrincipalId,
        /// Whose namespace it opens.
        pub tenant: TenantId,
        /// Operator's name for it.
        pub name: String,
        /// Keyed hash of the secret.
        pub verifier: [u8; 32],
        /// What it may do.
        pub scopes: Vec<String>,
        /// End of its life.
        pub expires: Option<Timestamp>,
        /// When it was created.
        pub created: Timestamp,
        /// When it was revoked.
        pub revoked: Option<Timestamp>,
    }
}
redacted!(ApiKeyEntry);

fields! {
    /// A decision of the log: where one incarnation took over from another (PROTOCOL rule 10).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ChainEntry {
        /// Sequence of the decision block.
        pub seq: Seq,
        /// The incarnation that exists since.
        pub incarnation: IncarnationId,
        /// Its predecessor and that one's epoch.
        pub predecessor: Option<(IncarnationId, Epoch)>,
        /// Last valid sequence of the predecessor.
        pub last_valid: Seq,
        /// Sequences whose acknowledged data may be lost by the operator's declaration.
        pub may_have_lost: Vec<Seq>,
        /// Domains the operator declared lost.
        pub lost_declared: Vec<String>,
    }
}

fields! {
    /// A block that may be deleted: nothing alive is in it, and the record that says so was released.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CondemnedEntry {
        /// Which.
        pub block: BlockId,
        /// Sequence of the condemning record.
        pub seq: Seq,
        /// Its time.
        pub time: Timestamp,
        /// Why.
        pub reason: CondemnReason,
    }
}

fields! {
    /// A compacted log that is whole and settled.
    #[derive(Clone, PartialEq, Eq)]
    pub struct CompactionEntry {
        /// Sequence of the record that says so.
        pub seq: Seq,
        /// Its time.
        pub time: Timestamp,
        /// What it covers, its root and its parts.
        pub compacted: LogCompacted,
    }
}

fields! {
    /// How a provider is to be used, as last said in the log.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ProviderEntry {
        /// The operator's name of the account.
        pub provider: String,
        /// How.
        pub mode: ProviderMode,
        /// Since when.
        pub since: Timestamp,
        /// Why.
        pub reason: String,
        /// The certificate of its last evacuation and when it was issued.
        pub evacuated: Option<(Timestamp, ProviderEvacuated)>,
    }
}

fields! {
    /// The last drill.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct DrillEntry {
        /// When it was reported.
        pub time: Timestamp,
        /// Sets of k providers that were tried.
        pub subsets: u64,
        /// Sets there are.
        pub subsets_total: u64,
        /// Blocks rebuilt.
        pub blocks: u64,
        /// Rebuilds that failed or gave other bytes.
        pub failures: u64,
    }
}

fields! {
    /// What was last seen of a block's shards. Not part of the log's state.
    #[derive(Clone, PartialEq, Eq, Default)]
    pub struct CheckEntry {
        /// When all its shards were last asked for.
        pub checked: Timestamp,
        /// Per shard, by index.
        pub shards: Vec<ShardCheck>,
    }
}

fields! {
    /// What was last seen of one shard.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct ShardCheck {
        /// The verdict, in the engine's own numbers; 0 when nothing is known.
        pub state: u8,
        /// When bytes of it were last verified against the signed root.
        pub verified: Option<Timestamp>,
    }
}

fields! {
    /// A change of this store's schema.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct MigrationEntry {
        /// Schema before.
        pub from: u32,
        /// Schema since.
        pub to: u32,
        /// Sequence and time of the record that says so in the log; none until it is released.
        pub recorded: Option<(Seq, Timestamp)>,
    }
}

fields! {
    /// What this writer noted about one of its own incarnations before acting on it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct IncarnationNote {
        /// The incarnation.
        pub incarnation: IncarnationId,
        /// Epoch of its claim.
        pub epoch: Epoch,
        /// When it started.
        pub started: Timestamp,
        /// Smallest k its commit blocks may have.
        pub k_floor: u8,
    }
}

fields! {
    /// The sealed keyring as kept on the disk.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct KeyringCopy {
        /// Version of the keyring.
        pub version: u64,
        /// The sealed object, opened by the master key only.
        pub sealed: Vec<u8>,
    }
}

fields! {
    /// Sums over the whole state, maintained with every record.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Totals {
        /// Tenants.
        pub tenants: u64,
        /// Buckets.
        pub buckets: u64,
        /// Current blobs.
        pub blobs: u64,
        /// Sum of the plain lengths of current blobs, bytes.
        pub logical_bytes: u64,
        /// Sum of the plain lengths of all puts ever, bytes.
        pub accepted_bytes: u64,
        /// Distinct chunks.
        pub chunks: u64,
        /// Sum of their plain lengths, bytes.
        pub unique_bytes: u64,
        /// Sum of their stored lengths, bytes.
        pub compressed_bytes: u64,
        /// Sum of the payload lengths of all blocks that are not erased, bytes.
        pub sealed_bytes: u64,
        /// Sum of the lengths of all their shards (n per block), bytes.
        pub stored_bytes: u64,
        /// Bulk blocks, and blocks of compacted logs.
        pub bulk_blocks: u64,
        /// Commit blocks, decisions included.
        pub commit_blocks: u64,
        /// Blocks that are not settled.
        pub unsettled_blocks: u64,
        /// Sum of their payload lengths, bytes.
        pub unsettled_bytes: u64,
        /// Condemned blocks that are not erased.
        pub condemned_blocks: u64,
        /// Sum of the lengths of their shards, bytes.
        pub condemned_bytes: u64,
        /// Records by kind byte.
        pub records: Vec<(u8, u64)>,
    }
}

impl Totals {
    /// Number of records of one kind.
    pub fn records_of(&self, kind: RecordKind) -> u64 {
        let kind = kind.to_u8();
        self.records.iter().find(|(at, _)| *at == kind).map_or(0, |(_, count)| *count)
    }

    pub(crate) fn count_record(&mut self, kind: u8) {
        match self.records.binary_search_by_key(&kind, |(at, _)| *at) {
            Ok(index) => {
                if let Some((_, count)) = self.records.get_mut(index) {
                    *count += 1;
                }
            }
            Err(index) => self.records.insert(index, (kind, 1)),
        }
    }
}
