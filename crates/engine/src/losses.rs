//! What was acknowledged and cannot be read back now: the account that a recovery gives.
//!
//! Every provider is asked for the sealed header of its shard of every block: n small requests per block, at most 12 MiB of data
//! each. A block that shows fewer than k shards cannot be rebuilt, and a blob with a chunk in such a block cannot be read whole.
//! Whether shards that are there hold the right bytes shows when they are read.

use std::collections::BTreeSet;
use std::sync::Arc;

use diaspore_block::id::{BlockId, BucketId, ChunkId};
use diaspore_block::record::Content;
use diaspore_ledger::{BlockEntry, LedgerError, ListItem, ListQuery, Snapshot};
use futures::stream::{self, StreamExt};

use crate::api::Error;
use crate::namespace::{local, view};
use crate::read;
use crate::read::walk::{Step, Walker};
use crate::scrub::{Seen, noted};
use crate::shards::{Depth, Place, survey};
use crate::shared::Shared;
use crate::world::cpu;

/// Blocks taken from the ledger at once.
const BATCH: usize = 1000;
/// Blocks that are asked for at once.
const ASKED_AT_ONCE: usize = 32;
/// Items of a listing taken at once.
const PAGE: usize = 1000;

/// Acknowledged data that cannot be read now.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Losses {
    /// Blocks in the ledger, all of which providers were asked for.
    pub blocks: u64,
    /// Blocks of which too few shards can be had.
    pub lost_blocks: Vec<LostBlock>,
    /// Blobs with data in them.
    pub unreadable: Vec<UnreadableBlob>,
}

/// A block of which fewer than k shards can be had.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LostBlock {
    /// Id of the block, uuid text.
    pub block: String,
    /// Shards that providers showed.
    pub shards: u8,
    /// Shards that rebuild it: k.
    pub needed: u8,
    /// Whether all n shards had been durable.
    pub settled: bool,
}

/// The current version of a blob that cannot be read whole. By ids: names are for those who may read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UnreadableBlob {
    /// Id of the version, uuid text.
    pub version: String,
    /// Id of its bucket, uuid text.
    pub bucket: String,
    /// Id of its tenant, uuid text.
    pub tenant: String,
    /// Plain length in bytes.
    pub size: u64,
    /// Sequence of the commit block that acknowledged it.
    pub seq: u64,
}

/// Takes stock.
pub(crate) async fn find(shared: &Arc<Shared>) -> Result<Losses, Error> {
    shared.check_readable()?;
    let _everything = shared.keep.hold_everything();
    let view = view(shared)?;
    let mut losses = Losses::default();
    let mut lost = BTreeSet::new();
    let mut after = None;
    loop {
        let batch = view.blocks(after, BATCH).map_err(local)?;
        let Some(last) = batch.last() else { break };
        after = Some(last.facts.id);
        losses.blocks += batch.len() as u64;
        let mut counts = stream::iter(batch).map(|entry| count(shared, entry)).buffered(ASKED_AT_ONCE);
        while let Some((entry, shown, silent)) = counts.next().await {
            let needed = entry.facts.geometry.k();
            let shards = u8::try_from(shown.len()).unwrap_or(u8::MAX);
            if shards < needed {
                remember(shared, &entry, &shown, silent)?;
                lost.insert(entry.facts.id);
                losses.lost_blocks.push(LostBlock { block: entry.facts.id.to_string(), shards, needed, settled: entry.settled });
            }
        }
    }
    if !lost.is_empty() {
        losses.unreadable = blobs_in(shared, &view, &lost).await?;
    }
    Ok(losses)
}

/// What was found of a lost block, as scrubs keep it: nothing new relies on it from here on.
fn remember(shared: &Shared, entry: &BlockEntry, shown: &BTreeSet<u8>, silent: bool) -> Result<(), Error> {
    let n = entry.facts.geometry.n();
    let mut check = view(shared)?.check_of(entry.facts.id).map_err(local)?.unwrap_or_default();
    check.checked = shared.clock.now();
    for shard in 0..n {
        let seen = match (shown.contains(&shard), silent) {
            (true, _) => Seen::Good,
            (false, true) => Seen::Silent,
            (false, false) => Seen::Missing,
        };
        check = noted(Some(check), n, shard, seen, None);
    }
    match cpu(|| shared.ledger.note_checks(&[(entry.facts.id, check)])) {
        Ok(()) | Err(LedgerError::ReadOnly) => Ok(()),
        Err(error) => Err(local(error)),
    }
}

/// Distinct shards of this very block that providers show, and whether any domain kept silent.
pub(crate) async fn count(shared: &Shared, entry: BlockEntry) -> (BlockEntry, BTreeSet<u8>, bool) {
    let facts = &entry.facts;
    let survey = survey(shared, Place::of(facts), Depth::Header, None).await;
    let (seen, silent) = (survey.seen, !survey.silent.is_empty());
    let own = seen.iter().filter(|sighting| sighting.header.manifest().hash() == facts.manifest_hash);
    let shards: BTreeSet<u8> = own.map(|sighting| sighting.header.index()).collect();
    (entry, shards, silent)
}

/// Current versions with a chunk in one of these blocks.
async fn blobs_in(shared: &Arc<Shared>, view: &Snapshot, lost: &BTreeSet<BlockId>) -> Result<Vec<UnreadableBlob>, Error> {
    let mut found = Vec::new();
    let mut tenants = view.tenants(None, PAGE).map_err(local)?;
    while let Some(last) = tenants.last().map(|tenant| tenant.id) {
        for tenant in &tenants {
            let mut buckets = view.buckets(tenant.id, "", None, PAGE).map_err(local)?;
            while let Some(last) = buckets.last().map(|bucket| bucket.name.clone()) {
                for bucket in &buckets {
                    Box::pin(blobs_of(shared, view, lost, (tenant.id.to_string(), bucket.id), &mut found)).await?;
                }
                buckets = view.buckets(tenant.id, "", Some(&last), PAGE).map_err(local)?;
            }
        }
        tenants = view.tenants(Some(last), PAGE).map_err(local)?;
    }
    Ok(found)
}

async fn blobs_of(
    shared: &Arc<Shared>,
    view: &Snapshot,
    lost: &BTreeSet<BlockId>,
    (tenant, bucket): (String, BucketId),
    found: &mut Vec<UnreadableBlob>,
) -> Result<(), Error> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let query = ListQuery { prefix: b"", delimiter: b"", start_after: after.as_deref(), limit: PAGE };
        let page = view.list(bucket, &query).map_err(local)?;
        for item in page.items {
            let ListItem::Blob { entry, .. } = item else { continue };
            if !is_readable(shared, view, lost, bucket, (&entry.content, entry.size)).await? {
                found.push(UnreadableBlob {
                    version: entry.version.to_string(),
                    bucket: bucket.to_string(),
                    tenant: tenant.clone(),
                    size: entry.size,
                    seq: entry.seq.0,
                });
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Whether none of the blob's chunks lies in a lost block.
async fn is_readable(
    shared: &Arc<Shared>,
    view: &Snapshot,
    lost: &BTreeSet<BlockId>,
    bucket: BucketId,
    (content, size): (&Content, u64),
) -> Result<bool, Error> {
    let stands = |id: &ChunkId| -> Result<bool, Error> {
        let place = view.chunk(bucket, id).map_err(local)?;
        Ok(place.is_some_and(|place| !lost.contains(&place.block)))
    };
    let mut walker = Walker::new(content, 0..size);
    loop {
        match walker.step() {
            Step::End => return Ok(true),
            Step::Chunk(piece) => {
                if !stands(&piece.id)? {
                    return Ok(false);
                }
            }
            Step::List(list) => {
                if !stands(&list.id)? {
                    return Ok(false);
                }
                let Ok(refs) = read::load_list(shared, bucket, list.id).await else { return Ok(false) };
                walker.enter(&list, refs)?;
            }
        }
    }
}
