//! Upkeep of what is stored: compacted logs, blocks that go, shards that move, providers that are left.

use super::blocks::BulkAdded;
use crate::codec::{fields, tags};
use crate::id::{BlockId, Counter, Hash32, IncarnationId, Seq, TenantId};
use crate::limits::{MAX_PROVIDER_ID, MAX_SHARDS};

tags! {
    /// Why a block may go.
    pub enum CondemnReason {
        /// No blob names anything in it.
        Dead = 1,
        /// What was alive in it was stored again elsewhere.
        Rewritten = 2,
        /// A commit block whose records the older kept compacted log covers.
        Covered = 3,
        /// It belongs to a compacted log that is not kept any more.
        Outdated = 4,
    }
}

fields! {
    /// Blocks hold nothing alive and may be deleted once this record is released.
    pub struct BlocksCondemned {
        /// Which.
        pub blocks: Vec<BlockId>,
        /// Why.
        pub reason: CondemnReason,
    }
}
fields! {
    /// Condemned blocks of which no provider shows a shard any more.
    pub struct BlocksErased {
        /// Which.
        pub blocks: Vec<BlockId>,
    }
}
fields! {
    /// One shard at its new place.
    pub struct Move {
        /// Of which block.
        pub block: BlockId,
        /// Index of the shard.
        pub shard: u8,
        /// Account that acknowledged it.
        pub provider: String,
    }
}
fields! {
    /// Shards lie at other providers now: after repair, evacuation or rebalancing.
    pub struct ShardsMoved {
        /// Each at its new place.
        pub moves: Vec<Move>,
    }
}
fields! {
    /// Blocks of a compacted log are durable and part of the location map.
    pub struct PartsAdded {
        /// Each with one section of the service and no chunks.
        pub parts: Vec<BulkAdded>,
    }
}
fields! {
    /// A compacted log is whole and settled.
    pub struct LogCompacted {
        /// It stands for every record up to here.
        pub covers: Seq,
        /// Writer of the commit block at that position.
        pub incarnation: IncarnationId,
        /// That block's index in its incarnation.
        pub counter: Counter,
        /// Leaves of the log at that position.
        pub log_size: u64,
        /// Root of the log at that position.
        pub log_root: Hash32,
        /// The block that lists the parts.
        pub root: BlockId,
        /// The parts, older ones that still hold included.
        pub parts: Vec<BlockId>,
    }
}

tags! {
    /// How a provider is to be used.
    #[derive(Default)]
    pub enum ProviderMode {
        /// For everything.
        #[default]
        Active = 0,
        /// Read from, nothing new, being emptied.
        Draining = 1,
        /// Caught lying: read last, nothing new.
        Quarantined = 2,
        /// Gone: not asked at all.
        Dead = 3,
    }
}

fields! {
    /// How a provider is to be used from here on.
    pub struct ProviderStateSet {
        /// The operator's name of the account.
        pub provider: String,
        /// How.
        pub mode: ProviderMode,
        /// Why, and on whose word.
        pub reason: String,
    }
}
fields! {
    /// A provider was left: the certificate.
    pub struct ProviderEvacuated {
        /// The operator's name of the account.
        pub provider: String,
        /// Blocks that had a shard there.
        pub blocks: u64,
        /// Shards that were copied or rebuilt elsewhere.
        pub shards: u64,
        /// Their bytes.
        pub bytes: u64,
        /// Objects of this deployment that could not be deleted there; 0 only after it listed none.
        pub left: u64,
        /// Whether it listed all that it has: otherwise nothing is known about what it keeps.
        pub reachable: bool,
    }
}
fields! {
    /// Blocks were rebuilt from chosen providers to see that they can be.
    pub struct DrillReported {
        /// Sets of k providers that were tried.
        pub subsets: u64,
        /// Sets there are.
        pub subsets_total: u64,
        /// Blocks rebuilt.
        pub blocks: u64,
        /// Rebuilds that failed or gave other bytes.
        pub failures: u64,
        /// SHA-256 of the report that was signed.
        pub report: Hash32,
    }
}
fields! {
    /// The local store has another schema.
    pub struct SchemaMigrated {
        /// Before.
        pub from: u32,
        /// Now.
        pub to: u32,
        /// What was done.
        pub what: String,
    }
}
fields! {
    /// The local store was copied to a backup.
    pub struct BackupExported {
        /// Its state: the last sequence in it.
        pub seq: Seq,
        /// Bytes of the sealed copy.
        pub bytes: u64,
    }
}

impl ShardsMoved {
    /// Whether shards and providers are within the limits.
    pub(super) fn is_plausible(&self) -> bool {
        self.moves.iter().all(|moved| moved.shard < MAX_SHARDS && (1..=MAX_PROVIDER_ID).contains(&moved.provider.len()))
    }
}

impl PartsAdded {
    /// Whether every part is a block of the service without chunks.
    pub(super) fn is_plausible(&self) -> bool {
        let own = |part: &BulkAdded| part.sections.iter().all(|section| section.tenant == TenantId::SYSTEM);
        self.parts.iter().all(|part| part.is_plausible() && part.chunks.is_empty() && own(part))
    }
}

impl LogCompacted {
    /// Whether it covers something, and its root is no part.
    pub(super) fn is_plausible(&self) -> bool {
        self.covers > Seq(0) && self.log_size > 0 && !self.parts.contains(&self.root)
    }
}
