//! Typed reads on one state of the ledger.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use diaspore_block::codec::{Field, Reader};
use diaspore_block::id::{BlockId, BucketId, ChunkId, Hash32, PrincipalId, Seq, TenantId};
use diaspore_block::log::{ConsistencyProof, InclusionProof};
use diaspore_block::record::PublicPart;

use crate::error::{LedgerError, Result};
use crate::facts::{
    ApiKeyEntry, BlobEntry, BlockEntry, BucketEntry, ChainEntry, CheckEntry, ChunkPlace, CompactionEntry, CondemnedEntry, DrillEntry,
    IdempotencyEntry, IncarnationNote, KeyringCopy, MigrationEntry, ProviderEntry, TenantEntry, Totals,
};
use crate::listing::{self, ListPage, ListQuery};
use crate::merkle;
use crate::state::{State, Table};

/// Names in the table [`Table::Meta`].
pub(crate) mod meta {
    pub(crate) const APPLIED: &[u8] = b"applied";
    pub(crate) const LOG: &[u8] = b"log";
    pub(crate) const TOTALS: &[u8] = b"totals";
    pub(crate) const KEYRING: &[u8] = b"keyring";
    pub(crate) const POSITION: &[u8] = b"position";
    pub(crate) const NOTES: &[u8] = b"notes";
    /// Present while a base is being installed.
    pub(crate) const INCOMPLETE: &[u8] = b"incomplete";
    pub(crate) const DRILL: &[u8] = b"drill";
    pub(crate) const MIGRATIONS: &[u8] = b"migrations";
}

/// The bytes of a stored value as what they are.
pub(crate) fn decode<T: Field>(bytes: &[u8], what: &'static str) -> Result<T> {
    let mut reader = Reader::new(bytes, what);
    let value = T::take(&mut reader).map_err(|_| LedgerError::corrupt(format!("{what} does not decode")))?;
    reader.finish().map_err(|_| LedgerError::corrupt(format!("{what} does not decode")))?;
    Ok(value)
}

/// Two fixed-width or trailing parts of a key, joined.
pub(crate) fn joined(left: &[u8], right: &[u8]) -> Vec<u8> {
    [left, right].concat()
}

/// One state of the ledger: later applies do not change it. Cheap to take and to clone; drop it soon, it keeps old pages alive.
#[derive(Clone)]
pub struct Snapshot(Arc<dyn State + Send + Sync>);

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot {
    pub(crate) fn new(state: Arc<dyn State + Send + Sync>) -> Self {
        Self(state)
    }

    pub(crate) fn state(&self) -> Arc<dyn State + Send + Sync> {
        Arc::clone(&self.0)
    }

    fn entry<T: Field>(&self, table: Table, key: &[u8]) -> Result<Option<T>> {
        self.0.get(table, key)?.map(|bytes| decode(&bytes, table.name())).transpose()
    }

    fn entries<T: Field>(&self, table: Table, prefix: &[u8], start: Bound<&[u8]>, limit: usize) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let start = if start == Bound::Unbounded { Bound::Included(prefix) } else { start };
        self.0.walk(table, start, &mut |key, value| {
            if !key.starts_with(prefix) || found.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            found.push(decode(value, table.name())?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Sequence of the newest applied commit block; 0 in an empty ledger.
    pub fn applied_seq(&self) -> Result<Seq> {
        Ok(self.entry(Table::Meta, meta::APPLIED)?.unwrap_or_default())
    }

    /// A tenant by id.
    pub fn tenant(&self, id: TenantId) -> Result<Option<TenantEntry>> {
        self.entry(Table::Tenants, id.as_bytes())
    }

    /// A tenant by name.
    pub fn tenant_by_name(&self, name: &str) -> Result<Option<TenantEntry>> {
        match self.entry::<TenantId>(Table::TenantNames, name.as_bytes())? {
            Some(id) => self.tenant(id),
            None => Ok(None),
        }
    }

    /// Up to `limit` tenants after `after`, in id order.
    pub fn tenants(&self, after: Option<TenantId>, limit: usize) -> Result<Vec<TenantEntry>> {
        let start = after.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes().as_slice()));
        self.entries(Table::Tenants, &[], start, limit)
    }

    /// A bucket by name.
    pub fn bucket(&self, tenant: TenantId, name: &str) -> Result<Option<BucketEntry>> {
        self.entry(Table::Buckets, &joined(tenant.as_bytes(), name.as_bytes()))
    }

    /// A bucket by id.
    pub fn bucket_by_id(&self, id: BucketId) -> Result<Option<BucketEntry>> {
        match self.0.get(Table::BucketIds, id.as_bytes())? {
            Some(key) => self.entry(Table::Buckets, &key),
            None => Ok(None),
        }
    }

    /// Up to `limit` buckets of a tenant whose name begins with `prefix`, after the name `after`, in name order.
    pub fn buckets(&self, tenant: TenantId, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<BucketEntry>> {
        let prefix = joined(tenant.as_bytes(), prefix.as_bytes());
        let after = after.map(|name| joined(tenant.as_bytes(), name.as_bytes())).filter(|after| *after >= prefix);
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.entries(Table::Buckets, &prefix, start, limit)
    }

    /// The current version of a blob.
    pub fn blob(&self, bucket: BucketId, key: &[u8]) -> Result<Option<BlobEntry>> {
        self.entry(Table::Blobs, &joined(bucket.as_bytes(), key))
    }

    /// One page of a bucket's keys in byte order, folded at the delimiter; folded ranges are skipped, not read.
    pub fn list(&self, bucket: BucketId, query: &ListQuery<'_>) -> Result<ListPage> {
        listing::list(self.0.as_ref(), bucket, query)
    }

    /// Where a chunk of a bucket lies.
    pub fn chunk(&self, bucket: BucketId, id: &ChunkId) -> Result<Option<ChunkPlace>> {
        self.entry(Table::Chunks, &joined(bucket.as_bytes(), id.as_bytes()))
    }

    /// Up to `limit` chunks of a bucket with their places, in id order, after `after`.
    pub fn chunks(&self, bucket: BucketId, after: Option<&ChunkId>, limit: usize) -> Result<Vec<(ChunkId, ChunkPlace)>> {
        let prefix = bucket.as_bytes();
        let last = after.map(|id| joined(prefix, id.as_bytes()));
        let start = last.as_deref().map_or(Bound::Included(prefix.as_slice()), Bound::Excluded);
        let mut found = Vec::new();
        self.0.walk(Table::Chunks, start, &mut |key, value| {
            let Some(id) = key.strip_prefix(prefix.as_slice()).filter(|_| found.len() < limit) else { return Ok(ControlFlow::Break(())) };
            let id = id.try_into().map_err(|_| LedgerError::corrupt("the id of a chunk"))?;
            found.push((ChunkId::from_bytes(id), decode(value, Table::Chunks.name())?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// What is known about a block.
    pub fn block(&self, id: BlockId) -> Result<Option<BlockEntry>> {
        self.entry(Table::Blocks, id.as_bytes())
    }

    /// The commit block with this sequence.
    pub fn commit_block(&self, seq: Seq) -> Result<Option<BlockEntry>> {
        match self.entry::<BlockId>(Table::Commits, &seq.get().to_be_bytes())? {
            Some(id) => self.block(id),
            None => Ok(None),
        }
    }

    /// Up to `limit` blocks, in id order, after `after`: for scrubbing and reports.
    pub fn blocks(&self, after: Option<BlockId>, limit: usize) -> Result<Vec<BlockEntry>> {
        let start = after.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes().as_slice()));
        self.entries(Table::Blocks, &[], start, limit)
    }

    /// The chunks that a block brought, whether or not they are still read from it.
    pub fn contents(&self, block: BlockId) -> Result<Vec<(BucketId, ChunkId)>> {
        Ok(self.entry(Table::Contents, block.as_bytes())?.unwrap_or_default())
    }

    /// Whether a block is part of what must be kept: known, and not condemned.
    pub fn keeps(&self, block: BlockId) -> Result<bool> {
        Ok(self.condemned(block)?.is_none() && self.block(block)?.is_some())
    }

    /// When and why a block was condemned; `None` while it is part of what must be kept.
    pub fn condemned(&self, block: BlockId) -> Result<Option<CondemnedEntry>> {
        self.entry(Table::Condemned, block.as_bytes())
    }

    /// Up to `limit` condemned blocks that are not erased, in id order, after `after`.
    pub fn all_condemned(&self, after: Option<BlockId>, limit: usize) -> Result<Vec<CondemnedEntry>> {
        let start = after.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes().as_slice()));
        self.entries(Table::Condemned, &[], start, limit)
    }

    /// The newest compacted logs, at most three, by what they cover, oldest first.
    pub fn compactions(&self) -> Result<Vec<CompactionEntry>> {
        self.entries(Table::Compactions, &[], Bound::Unbounded, usize::MAX)
    }

    /// The two newest compacted logs whose records lie at or below `settled`, newest first: what a recovery begins with. Commit
    /// blocks at or below what the second covers are not needed by it; without a second all are.
    pub fn kept_compactions(&self, settled: Seq) -> Result<Vec<CompactionEntry>> {
        Ok(self.compactions()?.into_iter().rev().filter(|entry| entry.seq <= settled).take(2).collect())
    }

    /// How a provider is to be used; `None` if the log never said anything about it.
    pub fn provider(&self, name: &str) -> Result<Option<ProviderEntry>> {
        self.entry(Table::Providers, name.as_bytes())
    }

    /// Every provider that the log said something about, in name order.
    pub fn providers(&self) -> Result<Vec<ProviderEntry>> {
        self.entries(Table::Providers, &[], Bound::Unbounded, usize::MAX)
    }

    /// The last drill.
    pub fn last_drill(&self) -> Result<Option<DrillEntry>> {
        self.entry(Table::Meta, meta::DRILL)
    }

    /// What was last seen of a block's shards; `None` if nothing was, or since the view was made anew.
    pub fn check_of(&self, block: BlockId) -> Result<Option<CheckEntry>> {
        self.entry(Table::Checks, block.as_bytes())
    }

    /// Visits chunks in order of bucket and chunk id, from those of `bucket` on (from the first when `None`): bucket, chunk, place.
    /// The visitor says whether to go on.
    pub fn walk_chunks(
        &self,
        bucket: Option<BucketId>,
        visit: &mut dyn FnMut(BucketId, ChunkId, ChunkPlace) -> ControlFlow<()>,
    ) -> Result<()> {
        let start = bucket.map(|bucket| bucket.as_bytes().to_vec()).unwrap_or_default();
        self.0.walk(Table::Chunks, Bound::Included(&start), &mut |key, value| {
            let (bucket, chunk): (BucketId, ChunkId) = decode(key, "key of a chunk")?;
            Ok(visit(bucket, chunk, decode(value, Table::Chunks.name())?))
        })
    }

    /// Up to `limit` blocks that are not settled, oldest first.
    pub fn unsettled(&self, limit: usize) -> Result<Vec<BlockEntry>> {
        let ids: Vec<BlockId> = self.entries(Table::Unsettled, &[], Bound::Unbounded, limit)?;
        ids.into_iter().map(|id| self.block(id)?.ok_or_else(|| LedgerError::corrupt("an unsettled block has no entry"))).collect()
    }

    /// The last sequence below which every commit block and every bulk block it brought is settled.
    pub fn settled_through(&self) -> Result<Seq> {
        let mut oldest = None;
        self.0.walk(Table::Unsettled, Bound::Unbounded, &mut |key, _| {
            oldest = key.first_chunk::<8>().map(|seq| u64::from_be_bytes(*seq));
            Ok(ControlFlow::Break(()))
        })?;
        match oldest {
            Some(seq) => Ok(Seq(seq.saturating_sub(1))),
            None => self.applied_seq(),
        }
    }

    /// The final outcome of a request with this idempotency key hash, while it is remembered (24 hours of log time).
    pub fn idempotency(&self, key_hash: &[u8; 32]) -> Result<Option<IdempotencyEntry>> {
        self.entry(Table::Idempotency, key_hash)
    }

    /// An API key by id.
    pub fn api_key(&self, id: PrincipalId) -> Result<Option<ApiKeyEntry>> {
        self.entry(Table::ApiKeys, id.as_bytes())
    }

    /// Up to `limit` API keys after `after`, in id order, revoked ones included.
    pub fn api_keys(&self, after: Option<PrincipalId>, limit: usize) -> Result<Vec<ApiKeyEntry>> {
        let start = after.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes().as_slice()));
        self.entries(Table::ApiKeys, &[], start, limit)
    }

    /// Sums over the whole state.
    pub fn totals(&self) -> Result<Totals> {
        Ok(self.entry(Table::Meta, meta::TOTALS)?.unwrap_or_default())
    }

    /// Every decision of the log, oldest first.
    pub fn chain(&self) -> Result<Vec<ChainEntry>> {
        self.entries(Table::Chain, &[], Bound::Unbounded, usize::MAX)
    }

    /// Every incarnation this ledger noted, oldest first.
    pub fn incarnations(&self) -> Result<Vec<IncarnationNote>> {
        self.entries(Table::Incarnations, &[], Bound::Unbounded, usize::MAX)
    }

    /// Every change of this store's schema, oldest first.
    pub fn migrations(&self) -> Result<Vec<MigrationEntry>> {
        Ok(self.entry(Table::Meta, meta::MIGRATIONS)?.unwrap_or_default())
    }

    /// The newest sealed keyring kept here.
    pub fn keyring(&self) -> Result<Option<KeyringCopy>> {
        self.entry(Table::Meta, meta::KEYRING)
    }

    /// Leaves in the Merkle log.
    pub fn log_size(&self) -> Result<u64> {
        merkle::size(self.0.as_ref())
    }

    /// RFC 6962 root over the first `size` leaves.
    pub fn log_root(&self, size: u64) -> Result<Hash32> {
        merkle::root(self.0.as_ref(), size)
    }

    /// Audit path of leaf `index` in the tree of `size` leaves (RFC 6962 section 2.1.1).
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<InclusionProof> {
        merkle::inclusion(self.0.as_ref(), index, size)
    }

    /// Proof that the tree of `new` leaves extends the one of `old` leaves (RFC 6962 section 2.1.2).
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<ConsistencyProof> {
        merkle::consistency(self.0.as_ref(), old, new)
    }

    /// Hash of the complete subtree `index` of height `level`: leaves `index << level ..` (for tiles).
    pub fn log_node(&self, level: u8, index: u64) -> Result<Hash32> {
        merkle::node(self.0.as_ref(), level, index)
    }

    /// Up to `limit` public parts from leaf `from` on, in order.
    pub fn leaves(&self, from: u64, limit: usize) -> Result<Vec<PublicPart>> {
        self.entries(Table::Leaves, &[], Bound::Included(&from.to_be_bytes()), limit)
    }
}
