//! Heirs: blocks that chunks of another one are read from by now, since it was emptied into them or since the same bytes were stored again.
//!
//! What moves a chunk's place is a record, and a record needs no more than acknowledgements. Until all shards of an heir were read back, the
//! older block may be all that there is of those chunks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diaspore_block::id::BlockId;
use diaspore_ledger::Snapshot;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::empty::read_back;
use super::mark::Marks;
use crate::api::{Error, ErrorKind};
use crate::namespace::local;
use crate::scrub::proven_lost;
use crate::shared::Shared;
use crate::world::cpu;

/// Longest time for reading heirs back in one collection; those that are not reached count as not whole. Which ones come first is drawn, so
/// that whoever drips holds up the same ones only once.
const READS_FOR: Duration = Duration::from_mins(5);

/// Those of `blocks` that have no heirs, or whose heirs all have their shards, and the number of the others. An heir without a live chunk
/// inherits nothing; without `marks` every chunk counts as live.
pub(super) async fn provided_for(
    shared: &Shared,
    view: &Snapshot,
    marks: Option<&Marks>,
    mut blocks: Vec<BlockId>,
) -> Result<(BTreeSet<BlockId>, u64), Error> {
    let mut whole: BTreeMap<BlockId, bool> = BTreeMap::new();
    let (mut provided, mut waiting) = (BTreeSet::new(), 0_u64);
    let until = Instant::now() + READS_FOR;
    blocks.shuffle(&mut shared.rng());
    for block in blocks {
        let mut all = true;
        for heir in cpu(|| heirs_of(view, marks, block))? {
            let known = whole.get(&heir).copied();
            let is_whole = match known {
                Some(known) => known,
                None => Instant::now() < until && is_whole(shared, heir).await?,
            };
            whole.insert(heir, is_whole);
            all &= is_whole;
        }
        if all {
            provided.insert(block);
        } else {
            waiting += 1;
        }
        if *shared.closing.borrow() {
            return Err(Error::new(ErrorKind::NotAccepted, "the service is shutting down"));
        }
        tokio::task::yield_now().await;
    }
    if waiting > 0 {
        tracing::info!(waiting, "blocks stay until what their chunks are read from now was read back");
    }
    Ok((provided, waiting))
}

fn heirs_of(view: &Snapshot, marks: Option<&Marks>, block: BlockId) -> Result<BTreeSet<BlockId>, Error> {
    let mut heirs = read_from(view, block)?;
    heirs.remove(&block);
    heirs.retain(|heir| marks.is_none_or(|marks| marks.live_bytes(*heir) > 0));
    Ok(heirs)
}

/// Blocks that the chunks of one are read from by now: each chunk is read from the block that brought it last.
pub(super) fn read_from(view: &Snapshot, block: BlockId) -> Result<BTreeSet<BlockId>, Error> {
    let mut places = BTreeSet::new();
    for (bucket, id) in view.contents(block).map_err(local)? {
        places.extend(view.chunk(bucket, &id).map_err(local)?.map(|place| place.block));
    }
    Ok(places)
}

/// Whether nothing of a block is missing, and all of it was read back at least once: now, if never before.
async fn is_whole(shared: &Shared, block: BlockId) -> Result<bool, Error> {
    let view = shared.ledger.snapshot().map_err(local)?;
    let Some(entry) = view.block(block).map_err(local)?.filter(|entry| entry.settled) else { return Ok(false) };
    let lost = proven_lost(view.check_of(block).map_err(local)?.as_ref()) > 0;
    if lost || !shared.settlement.is_calm(block) || !view.keeps(block).map_err(local)? {
        return Ok(false);
    }
    Ok(read_back(shared, &entry).await.is_ok())
}
