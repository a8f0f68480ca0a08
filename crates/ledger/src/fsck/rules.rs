//! What tables say of each other, read from one state.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use diaspore_block::codec::{Field, encode};
use diaspore_block::id::{BlockId, BucketId, ChunkId, Hash32, Seq, TenantId};
use diaspore_block::log::{LogTree, leaf_hash};

use super::RuleReport;
use crate::error::Result;
use crate::facts::{BlobEntry, BlockEntry, BucketEntry, ChunkPlace, CondemnedEntry, IdempotencyEntry, TenantEntry, Totals};
use crate::merkle;
use crate::snapshot::{decode, joined, meta};
use crate::state::{State, Table};

/// A rule being looked at.
struct Rule(RuleReport);

impl Rule {
    fn new(rule: &str) -> Self {
        Self(RuleReport { rule: rule.to_owned(), ..RuleReport::default() })
    }

    fn holds(&mut self, holds: bool) {
        self.0.checked += 1;
        self.0.broken += u64::from(!holds);
    }
}

fn read<T: Field>(state: &dyn State, table: Table, key: &[u8]) -> Result<Option<T>> {
    state.get(table, key)?.map(|bytes| decode(&bytes, table.name())).transpose()
}

fn each<T: Field>(state: &dyn State, table: Table, visit: &mut dyn FnMut(&[u8], T) -> Result<()>) -> Result<()> {
    state.walk(table, Bound::Unbounded, &mut |key, value| {
        visit(key, decode(value, table.name())?)?;
        Ok(ControlFlow::Continue(()))
    })
}

/// Every rule but the journal's.
pub(super) fn check(state: &dyn State) -> Result<Vec<RuleReport>> {
    let mut counted = Totals::default();
    let mut rules = vec![names(state, &mut counted)?, blobs(state, &mut counted)?];
    rules.extend(blocks(state, &mut counted)?);
    rules.extend(chunks(state, &mut counted)?);
    rules.push(idempotency(state)?);
    rules.push(log(state)?);
    rules.push(totals(state, &counted)?);
    Ok(rules.into_iter().map(|rule| rule.0).collect())
}

fn names(state: &dyn State, counted: &mut Totals) -> Result<Rule> {
    let mut rule = Rule::new("every name leads to its tenant or bucket, and back");
    each(state, Table::Tenants, &mut |key, tenant: TenantEntry| {
        counted.tenants += 1;
        let named: Option<TenantId> = read(state, Table::TenantNames, tenant.name.as_bytes())?;
        rule.holds(named == Some(tenant.id) && key == tenant.id.as_bytes());
        Ok(())
    })?;
    each(state, Table::TenantNames, &mut |_, tenant: TenantId| {
        rule.holds(state.get(Table::Tenants, tenant.as_bytes())?.is_some());
        Ok(())
    })?;
    each(state, Table::Buckets, &mut |key, bucket: BucketEntry| {
        counted.buckets += 1;
        let back = state.get(Table::BucketIds, bucket.id.as_bytes())?;
        rule.holds(back.as_deref() == Some(key) && key == joined(bucket.tenant.as_bytes(), bucket.name.as_bytes()));
        Ok(())
    })?;
    state.walk(Table::BucketIds, Bound::Unbounded, &mut |_, row| {
        rule.holds(state.get(Table::Buckets, row)?.is_some());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(rule)
}

/// Blobs lie in order of their buckets, so one bucket's sums are known before the next begins.
fn blobs(state: &dyn State, counted: &mut Totals) -> Result<Rule> {
    let mut rule = Rule::new("every blob's bucket exists, its chunks have a place, and buckets count what they hold");
    let mut held: BTreeMap<[u8; 16], (u64, u64)> = BTreeMap::new();
    each(state, Table::Blobs, &mut |key, blob: BlobEntry| {
        counted.blobs += 1;
        counted.logical_bytes += blob.size;
        let bucket = key.first_chunk::<16>().copied().unwrap_or_default();
        let sums = held.entry(bucket).or_default();
        *sums = (sums.0 + 1, sums.1 + blob.size);
        for chunk in &blob.content.refs {
            rule.holds(state.get(Table::Chunks, &joined(&bucket, chunk.id.as_bytes()))?.is_some());
        }
        Ok(())
    })?;
    each(state, Table::Buckets, &mut |_, bucket: BucketEntry| {
        let sums = held.remove(bucket.id.as_bytes()).unwrap_or_default();
        rule.holds(sums == (bucket.blobs, bucket.logical_bytes));
        Ok(())
    })?;
    for _ in held.values() {
        rule.holds(false);
    }
    Ok(rule)
}

fn blocks(state: &dyn State, counted: &mut Totals) -> Result<[Rule; 3]> {
    let mut waiting = Rule::new("every block that is not settled waits in the index, and nothing else does");
    let mut commits = Rule::new("every commit block is found by its sequence, and nothing else is");
    let mut condemned = Rule::new("every condemned, listed or checked block exists, and a condemned one waits for nothing");
    let (mut unsettled, mut by_seq) = (0, 0);
    each(state, Table::Blocks, &mut |key, block: BlockEntry| {
        let id = block.facts.id;
        let bytes = u64::from(block.facts.shard_len) * u64::from(block.facts.geometry.n());
        counted.sealed_bytes += u64::from(block.facts.payload_len);
        counted.stored_bytes += bytes;
        let indexed = state.get(Table::Unsettled, &joined(&block.seq.get().to_be_bytes(), id.as_bytes()))?;
        waiting.holds(indexed.is_some() != block.settled && key == id.as_bytes());
        if !block.settled {
            unsettled += 1;
            counted.unsettled_blocks += 1;
            counted.unsettled_bytes += u64::from(block.facts.payload_len);
        }
        if block.facts.kind.has_records() {
            counted.commit_blocks += 1;
            by_seq += 1;
            let found: Option<BlockId> = read(state, Table::Commits, &block.seq.get().to_be_bytes())?;
            commits.holds(found == Some(id));
        } else {
            counted.bulk_blocks += 1;
        }
        if state.get(Table::Condemned, id.as_bytes())?.is_some() {
            counted.condemned_blocks += 1;
            counted.condemned_bytes += bytes;
            condemned.holds(block.settled);
        }
        Ok(())
    })?;
    waiting.holds(count(state, Table::Unsettled)? == unsettled);
    commits.holds(count(state, Table::Commits)? == by_seq);
    each(state, Table::Condemned, &mut |_, entry: CondemnedEntry| {
        condemned.holds(state.get(Table::Blocks, entry.block.as_bytes())?.is_some());
        Ok(())
    })?;
    for table in [Table::Contents, Table::Checks] {
        state.walk(table, Bound::Unbounded, &mut |block, _| {
            condemned.holds(state.get(Table::Blocks, block)?.is_some());
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok([waiting, commits, condemned])
}

fn chunks(state: &dyn State, counted: &mut Totals) -> Result<[Rule; 2]> {
    let mut exists = Rule::new("every chunk's block exists and is not condemned");
    let mut listed = Rule::new("every chunk is listed by the block that it is read from");
    each(state, Table::Chunks, &mut |_, place: ChunkPlace| {
        counted.chunks += 1;
        counted.unique_bytes += u64::from(place.plain_len);
        counted.compressed_bytes += u64::from(place.stored_len);
        let block: Option<BlockEntry> = read(state, Table::Blocks, place.block.as_bytes())?;
        let has_section = block.is_some_and(|block| usize::from(place.section) < block.facts.sections.len());
        exists.holds(has_section && state.get(Table::Condemned, place.block.as_bytes())?.is_none());
        Ok(())
    })?;
    let mut pointing = 0;
    each(state, Table::Contents, &mut |block, contents: Vec<(BucketId, ChunkId)>| {
        for key in contents.iter().collect::<BTreeSet<_>>().into_iter().map(encode) {
            let place: Option<ChunkPlace> = read(state, Table::Chunks, &key)?;
            pointing += u64::from(place.is_some_and(|place| place.block.as_bytes() == block));
        }
        Ok(())
    })?;
    listed.0.checked = counted.chunks;
    listed.0.broken = counted.chunks.abs_diff(pointing);
    Ok([exists, listed])
}

fn count(state: &dyn State, table: Table) -> Result<u64> {
    let mut found = 0;
    state.walk(table, Bound::Unbounded, &mut |_, _| {
        found += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

fn idempotency(state: &dyn State) -> Result<Rule> {
    let mut rule = Rule::new("every remembered request will be forgotten in time");
    each(state, Table::Idempotency, &mut |hash, entry: IdempotencyEntry| {
        let by_time = joined(&entry.time.get().to_be_bytes(), hash);
        rule.holds(state.get(Table::IdempotencyByTime, &by_time)?.is_some());
        Ok(())
    })?;
    Ok(rule)
}

/// The leaves make the nodes and the edge; leaves are numbered without gaps.
fn log(state: &dyn State) -> Result<Rule> {
    let mut rule = Rule::new("the log's nodes, edge and root follow from its leaves");
    let mut tree = LogTree::new();
    let mut nodes = 0;
    state.walk(Table::Leaves, Bound::Unbounded, &mut |key, leaf| {
        rule.holds(key == tree.size().to_be_bytes());
        for (level, index, hash) in tree.append(leaf_hash(leaf)) {
            if let Some(key) = merkle::stored_key(level, index) {
                nodes += 1;
                rule.holds(state.get(Table::Nodes, &key)?.as_deref() == Some(hash.as_bytes()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    rule.holds(count(state, Table::Nodes)? == nodes);
    let edge: LogTree = read(state, Table::Meta, meta::LOG)?.unwrap_or_default();
    rule.holds(edge == tree);
    Ok(rule)
}

fn totals(state: &dyn State, counted: &Totals) -> Result<Rule> {
    let mut rule = Rule::new("totals are the sums of what is counted");
    let kept: Totals = read(state, Table::Meta, meta::TOTALS)?.unwrap_or_default();
    // What only ever grows has no table to be counted from.
    let counted = Totals { accepted_bytes: kept.accepted_bytes, records: kept.records.clone(), ..counted.clone() };
    let pairs = [
        (kept.tenants, counted.tenants),
        (kept.buckets, counted.buckets),
        (kept.blobs, counted.blobs),
        (kept.logical_bytes, counted.logical_bytes),
        (kept.chunks, counted.chunks),
        (kept.unique_bytes, counted.unique_bytes),
        (kept.compressed_bytes, counted.compressed_bytes),
        (kept.sealed_bytes, counted.sealed_bytes),
        (kept.stored_bytes, counted.stored_bytes),
        (kept.bulk_blocks, counted.bulk_blocks),
        (kept.commit_blocks, counted.commit_blocks),
        (kept.unsettled_blocks, counted.unsettled_blocks),
        (kept.unsettled_bytes, counted.unsettled_bytes),
        (kept.condemned_blocks, counted.condemned_blocks),
        (kept.condemned_bytes, counted.condemned_bytes),
    ];
    for (kept, counted) in pairs {
        rule.holds(kept == counted);
    }
    // A sum that somebody adds later and nobody counts is found here.
    rule.holds(kept == counted || pairs.iter().any(|(kept, counted)| kept != counted));
    let leaves: LogTree = read(state, Table::Meta, meta::LOG)?.unwrap_or_default();
    rule.holds(kept.records.iter().map(|(_, count)| count).sum::<u64>() == leaves.size());
    Ok(rule)
}

/// The journal leads to the view's log, and reaches at least as far.
pub(super) fn follows_from_journal(state: &dyn State, told: Option<(u64, Hash32)>, journal: Seq) -> Result<RuleReport> {
    let mut rule = Rule::new("the view's log is the journal's");
    let applied: Seq = read(state, Table::Meta, meta::APPLIED)?.unwrap_or_default();
    let size = merkle::size(state)?;
    let own = if applied == Seq(0) { None } else { Some((size, merkle::root(state, size)?)) };
    rule.holds(applied <= journal);
    rule.holds(own == told);
    Ok(rule.0)
}
