//! The state transition: what a commit block and a note change, as table cells. Pure: reads a [`State`], knows no store, clock or order
//! of files. Live, restart, recovery and the reference model run exactly this.

use diaspore_block::codec::{Field, encode};
use diaspore_block::id::{BlockId, BucketId, ChunkId, Seq, TenantId, Timestamp};
use diaspore_block::manifest::BlockKind;
use diaspore_block::record::{
    ApiKeyCreated, BlobDeleted, BlobPut, BucketCreated, BucketDeleted, BulkAdded, ChunkEntry, CommitReleased, CondemnReason, Decision,
    DrillReported, Idempotency, Move, Placement, Private, ProviderMode, Record, TenantCreated,
};

use crate::base;
use crate::entry::{AppliedBlock, JournalEntry};
use crate::error::{LedgerError, Result};
use crate::facts::{
    ApiKeyEntry, BlobEntry, BlockEntry, BlockFacts, BucketEntry, ChainEntry, ChunkPlace, CompactionEntry, CondemnedEntry, DrillEntry,
    IdempotencyEntry, MigrationEntry, ProviderEntry, TenantEntry, Totals,
};
use crate::merkle;
use crate::snapshot::{decode, joined, meta};
use crate::state::{Changes, Table};

mod copied;
mod kept;
use kept::Kept;

#[cfg(test)]
mod tests;

/// An idempotency key is remembered this long, counted in log time, in milliseconds.
const IDEMPOTENCY_MS: u64 = 24 * 60 * 60 * 1000;
/// Most expired idempotency keys removed with one block.
const EXPIRED_PER_BLOCK: usize = 256;

fn read<T: Field>(changes: &Changes<'_>, table: Table, key: &[u8]) -> Result<Option<T>> {
    changes.get(table, key)?.map(|bytes| decode(&bytes, table.name())).transpose()
}

fn write<T: Field>(changes: &mut Changes<'_>, table: Table, key: &[u8], value: &T) {
    changes.put(table, key, encode(value));
}

/// One commit block on its way into the tables.
struct Transition<'c, 's> {
    changes: &'c mut Changes<'s>,
    block: &'c AppliedBlock,
    totals: Totals,
    /// Record being applied.
    index: usize,
    time: Timestamp,
    /// Read when the first block is condemned.
    kept: Option<Kept>,
}

/// Everything `block` changes. Refusals leave `changes` to be thrown away.
pub(crate) fn apply(changes: &mut Changes<'_>, block: &AppliedBlock) -> Result<()> {
    if changes.has(Table::Meta, meta::INCOMPLETE)? {
        return Err(LedgerError::Invalid { what: "a block for a state that is not whole" });
    }
    let applied: Seq = read(changes, Table::Meta, meta::APPLIED)?.unwrap_or_default();
    if block.seq != applied.next() {
        return Err(LedgerError::OutOfOrder { expected: applied.next().get(), found: block.seq.get() });
    }
    let totals = read(changes, Table::Meta, meta::TOTALS)?.unwrap_or_default();
    let time = block.records.iter().map(|record| record.public().time).max().unwrap_or_default();
    let mut transition = Transition { changes, block, totals, index: 0, time, kept: None };
    transition.expire()?;
    transition.block_added(&block.facts, &block.chunks)?;
    for (index, record) in block.records.iter().enumerate() {
        transition.index = index;
        transition.record(record)?;
    }
    transition.log_grown()?;
    let Transition { totals, .. } = transition;
    write(changes, Table::Meta, meta::TOTALS, &totals);
    write(changes, Table::Meta, meta::APPLIED, &block.seq);
    Ok(())
}

/// Everything a note of the journal changes.
pub(crate) fn note(changes: &mut Changes<'_>, note: &JournalEntry) -> Result<()> {
    match note {
        JournalEntry::Settled { block, placements } => {
            let mut totals: Totals = read(changes, Table::Meta, meta::TOTALS)?.unwrap_or_default();
            place(changes, &mut totals, *block, placements)?;
            write(changes, Table::Meta, meta::TOTALS, &totals);
        }
        JournalEntry::Chain(incarnation) => {
            let number: u64 = read(changes, Table::Meta, meta::NOTES)?.unwrap_or_default();
            write(changes, Table::Incarnations, &number.to_be_bytes(), incarnation);
            write(changes, Table::Meta, meta::NOTES, &(number + 1));
        }
        JournalEntry::Keyring(copy) => write(changes, Table::Meta, meta::KEYRING, copy),
        JournalEntry::Migrated { from, to } => migrated(changes, *from, *to, None)?,
        JournalEntry::Base(step) => base::step(changes, step)?,
        JournalEntry::Copied(block) => copied::take(changes, block)?,
        JournalEntry::Block(_) | JournalEntry::Released(_) | JournalEntry::Dropped { .. } => {
            return Err(LedgerError::corrupt("the log stream has a foreign entry"));
        }
    }
    Ok(())
}

/// Lists a change of schema once, with the record of it as soon as there is one.
fn migrated(changes: &mut Changes<'_>, from: u32, to: u32, recorded: Option<(Seq, Timestamp)>) -> Result<()> {
    let mut known: Vec<MigrationEntry> = read(changes, Table::Meta, meta::MIGRATIONS)?.unwrap_or_default();
    match known.iter_mut().find(|entry| (entry.from, entry.to, entry.recorded) == (from, to, None)) {
        Some(entry) => entry.recorded = recorded,
        None => known.push(MigrationEntry { from, to, recorded }),
    }
    write(changes, Table::Meta, meta::MIGRATIONS, &known);
    Ok(())
}

/// Merges acknowledged placements into a block; a block is settled once all n shards are acknowledged, and stays so.
fn place(changes: &mut Changes<'_>, totals: &mut Totals, id: BlockId, placements: &[Placement]) -> Result<()> {
    let Some(mut entry) = read::<BlockEntry>(changes, Table::Blocks, id.as_bytes())? else {
        // A note about a block that never became part of the log (its record was not released): nothing to keep.
        return Ok(());
    };
    merge(&mut entry.facts, placements);
    if !entry.settled && is_settled(&entry.facts) {
        settle(changes, totals, &mut entry);
    }
    write(changes, Table::Blocks, id.as_bytes(), &entry);
    Ok(())
}

/// Nobody waits for the block's shards any more.
fn settle(changes: &mut Changes<'_>, totals: &mut Totals, entry: &mut BlockEntry) {
    entry.settled = true;
    totals.unsettled_blocks = totals.unsettled_blocks.saturating_sub(1);
    totals.unsettled_bytes = totals.unsettled_bytes.saturating_sub(u64::from(entry.facts.payload_len));
    changes.remove(Table::Unsettled, &joined(&entry.seq.get().to_be_bytes(), entry.facts.id.as_bytes()));
}

/// Bytes of all shards of a block, headers and leaf lists left out.
fn shard_bytes(facts: &BlockFacts) -> u64 {
    u64::from(facts.shard_len) * u64::from(facts.geometry.n())
}

/// A block as its record describes it.
fn facts_of(added: &BulkAdded, kind: BlockKind) -> BlockFacts {
    BlockFacts {
        id: added.block,
        kind,
        incarnation: added.incarnation,
        counter: added.counter,
        attempt: added.attempt,
        geometry: added.geometry,
        code: added.code,
        payload_len: added.payload_len,
        shard_len: added.shard_len,
        block_root: added.block_root,
        shard_roots: added.shard_roots.clone(),
        manifest_hash: added.manifest_hash,
        sections: added.sections.clone(),
        placements: added.placements.clone(),
    }
}

/// What is acknowledged stays so unless a newer acknowledgement names another provider.
fn merge(facts: &mut BlockFacts, placements: &[Placement]) {
    for new in placements {
        match facts.placements.iter_mut().find(|old| old.shard == new.shard) {
            Some(old) if new.acked || !old.acked => old.clone_from(new),
            Some(_) => {}
            None => facts.placements.push(new.clone()),
        }
    }
    facts.placements.sort_by_key(|placement| placement.shard);
}

fn is_settled(facts: &BlockFacts) -> bool {
    (0..facts.geometry.n()).all(|shard| facts.placements.iter().any(|placement| placement.shard == shard && placement.acked))
}

impl Transition<'_, '_> {
    fn refused(&self, what: &'static str) -> LedgerError {
        LedgerError::Refused { seq: self.block.seq.get(), index: self.index, what }
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        self.totals.count_record(record.public().kind.to_u8());
        let (tenant, time) = (record.tenant(), record.public().time);
        match record.private() {
            Private::TenantCreated(created) => self.tenant_created(created, time),
            Private::BucketCreated(created) => self.bucket_created(created, tenant, time),
            Private::BucketDeleted(deleted) => self.bucket_deleted(deleted),
            Private::BlobPut(put) => self.blob_put(put, time),
            Private::BlobDeleted(deleted) => self.blob_deleted(deleted, time),
            Private::BulkAdded(added) => self.bulk_added(added),
            Private::CommitReleased(released) => self.commit_released(released),
            Private::Decision(decision) => {
                self.decided(decision);
                Ok(())
            }
            Private::ApiKeyCreated(created) => self.api_key_created(created, time),
            Private::ApiKeyRevoked(revoked) => {
                let key = revoked.id.as_bytes();
                let mut entry: ApiKeyEntry =
                    read(self.changes, Table::ApiKeys, key)?.ok_or_else(|| self.refused("it revokes an unknown API key"))?;
                entry.revoked.get_or_insert(time);
                write(self.changes, Table::ApiKeys, key, &entry);
                Ok(())
            }
            Private::BlocksCondemned(condemned) => condemned.blocks.iter().try_for_each(|block| self.condemned(*block, condemned.reason)),
            Private::BlocksErased(erased) => erased.blocks.iter().try_for_each(|block| self.erased(*block)),
            Private::ShardsMoved(moved) => moved.moves.iter().try_for_each(|moved| self.moved(moved)),
            Private::PartsAdded(added) => {
                added.parts.iter().try_for_each(|part| self.block_added(&facts_of(part, BlockKind::Compacted), &part.chunks))
            }
            Private::LogCompacted(compacted) => {
                kept::remember(self.changes, &CompactionEntry { seq: self.block.seq, time, compacted: compacted.clone() })
            }
            Private::ProviderStateSet(set) => self.provider(&set.provider, |entry| {
                (entry.mode, entry.since) = (set.mode, time);
                entry.reason.clone_from(&set.reason);
            }),
            Private::ProviderEvacuated(left) => self.provider(&left.provider, |entry| entry.evacuated = Some((time, left.clone()))),
            Private::DrillReported(drill) => {
                let DrillReported { subsets, subsets_total, blocks, failures, .. } = *drill;
                write(self.changes, Table::Meta, meta::DRILL, &DrillEntry { time, subsets, subsets_total, blocks, failures });
                Ok(())
            }
            Private::SchemaMigrated(change) => migrated(self.changes, change.from, change.to, Some((self.block.seq, time))),
            // Facts of the audit log only.
            Private::BackupExported(_)
            | Private::MayHaveLost(_)
            | Private::KeyringChanged(_)
            | Private::ProviderConfigured(_)
            | Private::PolicySet(_)
            | Private::BlobRead(_)
            | Private::AccessDenied(_)
            | Private::IntegrityFault(_)
            | Private::ProviderFault(_)
            | Private::AuditDropped(_)
            | Private::AuditExported(_)
            | Private::ServiceStarted(_)
            | Private::ServiceStopped(_) => Ok(()),
        }
    }

    fn tenant_created(&mut self, created: &TenantCreated, time: Timestamp) -> Result<()> {
        let id = created.tenant.as_bytes();
        if self.changes.has(Table::Tenants, id)? || self.changes.has(Table::TenantNames, created.name.as_bytes())? {
            return Err(self.refused("it creates a tenant that exists"));
        }
        write(self.changes, Table::TenantNames, created.name.as_bytes(), &created.tenant);
        let entry = TenantEntry { id: created.tenant, name: created.name.clone(), created: time };
        write(self.changes, Table::Tenants, id, &entry);
        self.totals.tenants += 1;
        Ok(())
    }

    fn bucket_created(&mut self, created: &BucketCreated, tenant: TenantId, time: Timestamp) -> Result<()> {
        let key = joined(tenant.as_bytes(), created.name.as_bytes());
        if self.changes.has(Table::Buckets, &key)? || self.changes.has(Table::BucketIds, created.bucket.as_bytes())? {
            return Err(self.refused("it creates a bucket that exists"));
        }
        if !self.changes.has(Table::Tenants, tenant.as_bytes())? {
            return Err(self.refused("it creates a bucket of an unknown tenant"));
        }
        let entry = BucketEntry {
            id: created.bucket,
            tenant,
            name: created.name.clone(),
            key_version: created.key_version,
            created: time,
            blobs: 0,
            logical_bytes: 0,
        };
        write(self.changes, Table::Buckets, &key, &entry);
        self.changes.put(Table::BucketIds, created.bucket.as_bytes(), key);
        self.totals.buckets += 1;
        Ok(())
    }

    /// Row key and row of the bucket a record names.
    fn bucket(&self, id: BucketId) -> Result<(Vec<u8>, BucketEntry)> {
        let key = self.changes.get(Table::BucketIds, id.as_bytes())?.ok_or_else(|| self.refused("it names an unknown bucket"))?;
        let entry = read(self.changes, Table::Buckets, &key)?.ok_or_else(|| LedgerError::corrupt("a bucket without its row"))?;
        Ok((key, entry))
    }

    fn bucket_deleted(&mut self, deleted: &BucketDeleted) -> Result<()> {
        let (key, _) = self.bucket(deleted.bucket)?;
        if self.changes.has_prefix(Table::Blobs, deleted.bucket.as_bytes())? {
            return Err(self.refused("it deletes a bucket that is not empty"));
        }
        self.changes.remove(Table::Buckets, &key);
        self.changes.remove(Table::BucketIds, deleted.bucket.as_bytes());
        self.totals.buckets = self.totals.buckets.saturating_sub(1);
        Ok(())
    }

    fn blob_put(&mut self, put: &BlobPut, time: Timestamp) -> Result<()> {
        let (row_key, mut row) = self.bucket(put.bucket)?;
        for chunk in &put.content.refs {
            if !self.changes.has(Table::Chunks, &joined(put.bucket.as_bytes(), chunk.id.as_bytes()))? {
                return Err(self.refused("it names a chunk that no block holds"));
            }
        }
        let key = joined(put.bucket.as_bytes(), &put.key);
        if let Some(old) = read::<BlobEntry>(self.changes, Table::Blobs, &key)? {
            self.forget(&mut row, &old);
        }
        let entry = BlobEntry {
            version: put.version,
            size: put.size,
            content_type: put.content_type.clone(),
            metadata: put.metadata.clone(),
            sha256: put.sha256,
            etag: put.etag,
            class: put.class,
            modified: time,
            seq: self.block.seq,
            content: put.content.clone(),
        };
        write(self.changes, Table::Blobs, &key, &entry);
        row.blobs += 1;
        row.logical_bytes = row.logical_bytes.saturating_add(put.size);
        write(self.changes, Table::Buckets, &row_key, &row);
        self.totals.blobs += 1;
        self.totals.logical_bytes = self.totals.logical_bytes.saturating_add(put.size);
        self.totals.accepted_bytes = self.totals.accepted_bytes.saturating_add(put.size);
        self.remember(put.idempotency.as_ref(), |idempotency, seq| IdempotencyEntry {
            request_hash: idempotency.request_hash,
            seq,
            time,
            bucket: put.bucket,
            key: put.key.clone(),
            version: put.version,
            deleted: false,
            blob: Some(entry),
        });
        Ok(())
    }

    fn blob_deleted(&mut self, deleted: &BlobDeleted, time: Timestamp) -> Result<()> {
        let (row_key, mut row) = self.bucket(deleted.bucket)?;
        let key = joined(deleted.bucket.as_bytes(), &deleted.key);
        let old = read::<BlobEntry>(self.changes, Table::Blobs, &key)?
            .filter(|entry| entry.version == deleted.version)
            .ok_or_else(|| self.refused("it deletes a version that is not current"))?;
        self.forget(&mut row, &old);
        self.changes.remove(Table::Blobs, &key);
        write(self.changes, Table::Buckets, &row_key, &row);
        self.remember(deleted.idempotency.as_ref(), |idempotency, seq| IdempotencyEntry {
            request_hash: idempotency.request_hash,
            seq,
            time,
            bucket: deleted.bucket,
            key: deleted.key.clone(),
            version: deleted.version,
            deleted: true,
            blob: None,
        });
        Ok(())
    }

    fn forget(&mut self, row: &mut BucketEntry, old: &BlobEntry) {
        row.blobs = row.blobs.saturating_sub(1);
        row.logical_bytes = row.logical_bytes.saturating_sub(old.size);
        self.totals.blobs = self.totals.blobs.saturating_sub(1);
        self.totals.logical_bytes = self.totals.logical_bytes.saturating_sub(old.size);
    }

    fn remember(&mut self, idempotency: Option<&Idempotency>, entry: impl FnOnce(&Idempotency, Seq) -> IdempotencyEntry) {
        let Some(idempotency) = idempotency else { return };
        let entry = entry(idempotency, self.block.seq);
        let by_time = joined(&entry.time.get().to_be_bytes(), &idempotency.key_hash);
        write(self.changes, Table::Idempotency, &idempotency.key_hash, &entry);
        self.changes.put(Table::IdempotencyByTime, &by_time, Vec::new());
    }

    /// Removes idempotency keys of which the log's own time says that their day is over.
    fn expire(&mut self) -> Result<()> {
        let horizon = self.time.get().saturating_sub(IDEMPOTENCY_MS).to_be_bytes();
        for by_time in self.changes.base_keys_below(Table::IdempotencyByTime, &horizon, EXPIRED_PER_BLOCK)? {
            let (time, hash) = by_time.split_at_checked(8).ok_or_else(|| LedgerError::corrupt("an idempotency key"))?;
            let entry: Option<IdempotencyEntry> = read(self.changes, Table::Idempotency, hash)?;
            // The same key may have been used again since: then its newer line removes it.
            if entry.is_some_and(|entry| entry.time.get().to_be_bytes() == time) {
                self.changes.remove(Table::Idempotency, hash);
            }
            self.changes.remove(Table::IdempotencyByTime, &by_time);
        }
        Ok(())
    }

    fn bulk_added(&mut self, added: &BulkAdded) -> Result<()> {
        self.block_added(&facts_of(added, BlockKind::Bulk), &added.chunks)
    }

    fn block_added(&mut self, facts: &BlockFacts, chunks: &[ChunkEntry]) -> Result<()> {
        if self.changes.has(Table::Blocks, facts.id.as_bytes())? {
            return Err(self.refused("it brings a block that exists"));
        }
        for chunk in chunks {
            self.chunk_added(facts, chunk)?;
        }
        self.block_listed(facts, chunks);
        Ok(())
    }

    /// The rows of a block, but for those of its chunks.
    fn block_listed(&mut self, facts: &BlockFacts, chunks: &[ChunkEntry]) {
        if !chunks.is_empty() {
            let contents: Vec<(BucketId, ChunkId)> = chunks.iter().map(|chunk| (chunk.bucket, chunk.id)).collect();
            write(self.changes, Table::Contents, facts.id.as_bytes(), &contents);
        }
        let settled = is_settled(facts);
        if !settled {
            self.totals.unsettled_blocks += 1;
            self.totals.unsettled_bytes += u64::from(facts.payload_len);
            let key = joined(&self.block.seq.get().to_be_bytes(), facts.id.as_bytes());
            write(self.changes, Table::Unsettled, &key, &facts.id);
        }
        if facts.kind.has_records() {
            self.totals.commit_blocks += 1;
            write(self.changes, Table::Commits, &self.block.seq.get().to_be_bytes(), &facts.id);
        } else {
            self.totals.bulk_blocks += 1;
        }
        self.totals.sealed_bytes += u64::from(facts.payload_len);
        self.totals.stored_bytes += shard_bytes(facts);
        let entry = BlockEntry { seq: self.block.seq, time: self.time, settled, facts: facts.clone() };
        write(self.changes, Table::Blocks, facts.id.as_bytes(), &entry);
    }

    /// A chunk that is stored again is read from its newest place: whoever stored it again had a reason.
    fn chunk_added(&mut self, facts: &BlockFacts, chunk: &ChunkEntry) -> Result<()> {
        if usize::from(chunk.section) >= facts.sections.len() {
            return Err(self.refused("it places a chunk in a section its block does not have"));
        }
        let key = joined(chunk.bucket.as_bytes(), chunk.id.as_bytes());
        if !self.changes.has(Table::Chunks, &key)? {
            self.totals.chunks += 1;
            self.totals.unique_bytes += u64::from(chunk.plain_len);
            self.totals.compressed_bytes += u64::from(chunk.stored_len);
        }
        let place = ChunkPlace {
            block: facts.id,
            section: chunk.section,
            offset: chunk.offset,
            stored_len: chunk.stored_len,
            plain_len: chunk.plain_len,
            encoding: chunk.encoding,
        };
        write(self.changes, Table::Chunks, &key, &place);
        Ok(())
    }

    /// The block holds nothing alive from here on: chunks that are still read from it are forgotten, and nobody waits for its shards.
    fn condemned(&mut self, id: BlockId, reason: CondemnReason) -> Result<()> {
        let Some(mut block) = read::<BlockEntry>(self.changes, Table::Blocks, id.as_bytes())? else { return Ok(()) };
        if self.changes.has(Table::Condemned, id.as_bytes())? || self.kept()?.keeps(&block) {
            return Ok(());
        }
        let contents: Vec<(BucketId, ChunkId)> = read(self.changes, Table::Contents, id.as_bytes())?.unwrap_or_default();
        for (bucket, chunk) in contents {
            let key = joined(bucket.as_bytes(), chunk.as_bytes());
            // A chunk that was stored again is read from there.
            if let Some(place) = read::<ChunkPlace>(self.changes, Table::Chunks, &key)?.filter(|place| place.block == id) {
                self.totals.chunks = self.totals.chunks.saturating_sub(1);
                self.totals.unique_bytes = self.totals.unique_bytes.saturating_sub(u64::from(place.plain_len));
                self.totals.compressed_bytes = self.totals.compressed_bytes.saturating_sub(u64::from(place.stored_len));
                self.changes.remove(Table::Chunks, &key);
            }
        }
        if !block.settled {
            settle(self.changes, &mut self.totals, &mut block);
            write(self.changes, Table::Blocks, id.as_bytes(), &block);
        }
        self.totals.condemned_blocks += 1;
        self.totals.condemned_bytes += shard_bytes(&block.facts);
        let entry = CondemnedEntry { block: id, seq: self.block.seq, time: self.time, reason };
        write(self.changes, Table::Condemned, id.as_bytes(), &entry);
        Ok(())
    }

    /// What the compacted logs keep that were known before this block.
    fn kept(&mut self) -> Result<&Kept> {
        match &mut self.kept {
            Some(kept) => Ok(kept),
            none => Ok(none.insert(Kept::in_state(self.changes)?)),
        }
    }

    /// A condemned block that no provider shows any more. What is not condemned stays in the map whatever a record says.
    fn erased(&mut self, id: BlockId) -> Result<()> {
        if !self.changes.has(Table::Condemned, id.as_bytes())? {
            return Ok(());
        }
        let Some(block) = read::<BlockEntry>(self.changes, Table::Blocks, id.as_bytes())? else { return Ok(()) };
        let bytes = shard_bytes(&block.facts);
        let totals = &mut self.totals;
        totals.condemned_blocks = totals.condemned_blocks.saturating_sub(1);
        totals.condemned_bytes = totals.condemned_bytes.saturating_sub(bytes);
        totals.stored_bytes = totals.stored_bytes.saturating_sub(bytes);
        totals.sealed_bytes = totals.sealed_bytes.saturating_sub(u64::from(block.facts.payload_len));
        if block.facts.kind.has_records() {
            totals.commit_blocks = totals.commit_blocks.saturating_sub(1);
            self.changes.remove(Table::Commits, &block.seq.get().to_be_bytes());
        } else {
            totals.bulk_blocks = totals.bulk_blocks.saturating_sub(1);
        }
        for table in [Table::Blocks, Table::Condemned, Table::Contents, Table::Checks] {
            self.changes.remove(table, id.as_bytes());
        }
        Ok(())
    }

    fn moved(&mut self, moved: &Move) -> Result<()> {
        let placement = Placement { shard: moved.shard, provider: moved.provider.clone(), acked: true };
        place(self.changes, &mut self.totals, moved.block, &[placement])
    }

    fn provider(&mut self, name: &str, change: impl FnOnce(&mut ProviderEntry)) -> Result<()> {
        let known: Option<ProviderEntry> = read(self.changes, Table::Providers, name.as_bytes())?;
        let mut entry = known.unwrap_or_else(|| ProviderEntry {
            provider: name.to_owned(),
            mode: ProviderMode::Active,
            since: Timestamp::default(),
            reason: String::new(),
            evacuated: None,
        });
        change(&mut entry);
        write(self.changes, Table::Providers, name.as_bytes(), &entry);
        Ok(())
    }

    fn commit_released(&mut self, released: &CommitReleased) -> Result<()> {
        let id: BlockId = read(self.changes, Table::Commits, &released.seq.get().to_be_bytes())?
            .ok_or_else(|| self.refused("it releases a commit block that is not applied"))?;
        // A record list that was carried over may speak of the block as it was written before, under other names: where that one
        // lay says nothing about the copy that is part of the log.
        let known: Option<BlockEntry> = read(self.changes, Table::Blocks, id.as_bytes())?;
        let Some(known) = known.filter(|known| known.facts.manifest_hash == released.manifest_hash) else { return Ok(()) };
        // It speaks of the moment of the release: a shard that was moved before this was written stays where it went.
        let is_placed = |shard| known.facts.placements.iter().any(|placement| placement.shard == shard && placement.acked);
        let news: Vec<Placement> = released.placements.iter().filter(|placement| !is_placed(placement.shard)).cloned().collect();
        place(self.changes, &mut self.totals, id, &news)
    }

    fn decided(&mut self, decision: &Decision) {
        let entry = ChainEntry {
            seq: self.block.seq,
            incarnation: self.block.facts.incarnation,
            predecessor: decision.predecessor,
            last_valid: decision.last_valid,
            may_have_lost: decision.may_have_lost.clone(),
            lost_declared: decision.lost_declared.clone(),
        };
        write(self.changes, Table::Chain, &self.block.seq.get().to_be_bytes(), &entry);
    }

    fn api_key_created(&mut self, created: &ApiKeyCreated, time: Timestamp) -> Result<()> {
        if self.changes.has(Table::ApiKeys, created.id.as_bytes())? {
            return Err(self.refused("it creates an API key that exists"));
        }
        let entry = ApiKeyEntry {
            id: created.id,
            tenant: created.tenant,
            name: created.name.clone(),
            verifier: created.verifier,
            scopes: created.scopes.clone(),
            expires: created.expires,
            created: time,
            revoked: None,
        };
        write(self.changes, Table::ApiKeys, created.id.as_bytes(), &entry);
        Ok(())
    }

    /// Appends the public parts to the Merkle log and compares with what the signed manifest states.
    fn log_grown(&mut self) -> Result<()> {
        let tree = merkle::append(self.changes, self.block.records.iter().map(Record::public))?;
        if self.block.log.is_some_and(|stated| stated.size != tree.size() || stated.root != tree.root()) {
            return Err(self.refused("its manifest states another log"));
        }
        Ok(())
    }
}
