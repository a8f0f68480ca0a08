//! Fetching the blocks of compacted logs: any k verified shards of the very block that a head or a root names.

use diaspore_block::compacted::{self, BlockRef, CompactedRoot, PartInfo, RowKey};
use diaspore_block::decode::decode;
use diaspore_block::manifest::BlockKind;
use diaspore_block::shard::VerifiedCells;

use crate::shards::{Depth, Place, survey};
use crate::shared::Ground;
use crate::world::cpu;

/// The plaintext of a block, or why it cannot be had.
pub(crate) async fn fetch(ground: &Ground, of: &BlockRef) -> Result<Vec<u8>, String> {
    let place = Place { kind: BlockKind::Compacted, incarnation: of.incarnation, counter: of.counter, attempt: of.attempt };
    let needed = of.geometry.k();
    let mut seen = survey(ground, place, Depth::Whole, Some(needed)).await;
    let own = |survey: &crate::shards::Survey| {
        survey.seen.iter().filter(|sighting| sighting.header.manifest().hash() == of.manifest_hash).cloned().collect::<Vec<_>>()
    };
    let mut shards = own(&seen);
    if shards.len() < usize::from(needed) && seen.partial {
        seen = survey(ground, place, Depth::Whole, None).await;
        shards = own(&seen);
    }
    let Some(manifest) = shards.first().map(|sighting| sighting.header.manifest().clone()) else {
        return Err(format!("no shard of block {} can be had", of.block));
    };
    let cells: Vec<VerifiedCells> = shards.into_iter().filter_map(|sighting| sighting.cells).collect();
    let opened = cpu(|| {
        let payload = decode(&manifest, &cells, 0..manifest.payload_len)?;
        compacted::open(&manifest, &payload, &ground.keys)
    });
    opened.map_err(|error| format!("block {}: {error}", of.block))
}

/// The root that a head or a record names.
pub(crate) async fn root(ground: &Ground, of: &BlockRef) -> Result<CompactedRoot, String> {
    let plain = fetch(ground, of).await?;
    CompactedRoot::from_bytes(&plain).map_err(|error| format!("block {}: {error}", of.block))
}

/// The rows of one part, checked; `end` is where the next one begins.
pub(crate) async fn part(ground: &Ground, part: &PartInfo, end: Option<&RowKey>) -> Result<Vec<u8>, String> {
    let stored = fetch(ground, &part.block).await?;
    cpu(|| part.unpack(stored, end)).map_err(|error| format!("block {}: {error}", part.block.block))
}
