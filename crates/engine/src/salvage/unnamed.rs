//! Bulk blocks that the providers list and that no readable record names: their chunks are there, and what they are of is not known.

use diaspore_block::id::{Attempt, Counter};
use diaspore_block::manifest::BlockKind;

use super::Salvaged;
use crate::api::Error;
use crate::claim::ClaimBook;
use crate::namespace::local;
use crate::reconcile::remains::Hints;
use crate::shards::Place;
use crate::shared::Ground;

const PAGE: usize = 1000;

/// Counts them. By what listings say: nothing of them is read, since nothing could be done with it.
pub(super) async fn count(ground: &Ground, book: &ClaimBook, hints: &Hints, salvaged: &mut Salvaged) -> Result<(), Error> {
    let view = ground.ledger.snapshot().map_err(local)?;
    let mut known = std::collections::BTreeSet::new();
    let (mut after, mut explained) = (None, 0_u64);
    loop {
        let batch = view.blocks(after, PAGE).map_err(local)?;
        let Some(last) = batch.last() else { break };
        after = Some(last.facts.id);
        for entry in &batch {
            explained += hints.sizes(ground, Place::of(&entry.facts)).count() as u64;
            if entry.facts.kind == BlockKind::Bulk {
                known.insert((entry.facts.incarnation, entry.facts.counter));
            }
        }
        tokio::task::yield_now().await;
    }
    let k = crate::layout::full(ground).map_or(1, diaspore_block::geometry::Geometry::k);
    for (_, incarnation) in book.ranks() {
        for counter in hints.counters(ground, BlockKind::Bulk, incarnation, 0) {
            if known.contains(&(incarnation, Counter(counter))) {
                continue;
            }
            let place = Place { kind: BlockKind::Bulk, incarnation, counter: Counter(counter), attempt: Attempt(0) };
            let (mut shards, mut bytes) = (0_u64, 0_u64);
            for size in hints.sizes(ground, place) {
                shards += 1;
                bytes = bytes.saturating_add(size);
            }
            salvaged.unnamed_blocks += 1;
            salvaged.unnamed_rebuildable += u64::from(shards >= u64::from(k));
            salvaged.unnamed_bytes = salvaged.unnamed_bytes.saturating_add(bytes);
            explained += shards;
        }
        tokio::task::yield_now().await;
    }
    salvaged.unexplained_objects = hints.objects().saturating_sub(explained);
    Ok(())
}
