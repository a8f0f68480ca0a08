//! Fetching the blocks of compacted logs: any k verified shards of the very block that a head or a root names.

use std::collections::BTreeSet;
use std::time::Duration;

use diaspore_block::compacted::{self, BlockRef, CompactedRoot, PartInfo, RowKey};
use diaspore_block::decode::decode;
use diaspore_block::manifest::BlockKind;
use diaspore_block::shard::VerifiedCells;
use diaspore_policy::FailureDomain;

use crate::shards::{Depth, Place, Sighting, Survey, survey};
use crate::shared::Ground;
use crate::world::cpu;

/// Pauses between tries while domains are silent that may have what is missing.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(15)];

/// Why a block cannot be had.
#[derive(Debug)]
pub(crate) struct Missing {
    /// For the operator.
    pub(crate) why: String,
    /// Domains that do not answer may have enough of it.
    pub(crate) may_come: bool,
}

impl Missing {
    fn spoilt(of: &BlockRef, error: &diaspore_block::BlockError) -> Self {
        Self { why: format!("block {}: {error}", of.block), may_come: false }
    }
}

/// Shards of the very block, at least k of them. Who is silent is asked again a few times, unless it is `lost`.
async fn shards(ground: &Ground, of: &BlockRef, depth: Depth, lost: &BTreeSet<FailureDomain>) -> Result<Vec<Sighting>, Missing> {
    let place = Place { kind: BlockKind::Compacted, incarnation: of.incarnation, counter: of.counter, attempt: of.attempt };
    let needed = of.geometry.k();
    let own = |survey: &Survey| {
        survey.seen.iter().filter(|sighting| sighting.header.manifest().hash() == of.manifest_hash).cloned().collect::<Vec<_>>()
    };
    let mut pauses = PAUSES.into_iter();
    loop {
        let mut seen = survey(ground, place, depth, Some(needed)).await;
        let mut found = own(&seen);
        if found.len() < usize::from(needed) && seen.partial {
            seen = survey(ground, place, depth, None).await;
            found = own(&seen);
        }
        if found.len() >= usize::from(needed) {
            return Ok(found);
        }
        let may_come = found.len() + seen.silent.difference(lost).count() >= usize::from(needed);
        let Some(pause) = pauses.next().filter(|_| may_come) else {
            let why = format!("{} of the {needed} shards that block {} needs can be had", found.len(), of.block);
            return Err(Missing { why, may_come });
        };
        tokio::time::sleep(pause).await;
    }
}

/// The plaintext of a block.
pub(crate) async fn fetch(ground: &Ground, of: &BlockRef, lost: &BTreeSet<FailureDomain>) -> Result<Vec<u8>, Missing> {
    let shards = shards(ground, of, Depth::Whole, lost).await?;
    let Some(manifest) = shards.first().map(|sighting| sighting.header.manifest().clone()) else {
        return Err(Missing { why: format!("no shard of block {} can be had", of.block), may_come: false });
    };
    let cells: Vec<VerifiedCells> = shards.into_iter().filter_map(|sighting| sighting.cells).collect();
    let opened = cpu(|| {
        let payload = decode(&manifest, &cells, 0..manifest.payload_len)?;
        compacted::open(&manifest, &payload, &ground.keys)
    });
    opened.map_err(|error| Missing::spoilt(of, &error))
}

/// Whether k of its shards are there, by their headers.
pub(crate) async fn look(ground: &Ground, of: &BlockRef, lost: &BTreeSet<FailureDomain>) -> Result<(), Missing> {
    shards(ground, of, Depth::Header, lost).await.map(drop)
}

/// The root that a head or a record names.
pub(crate) async fn root(ground: &Ground, of: &BlockRef, lost: &BTreeSet<FailureDomain>) -> Result<CompactedRoot, Missing> {
    let plain = fetch(ground, of, lost).await?;
    CompactedRoot::from_bytes(&plain).map_err(|error| Missing::spoilt(of, &error))
}

/// The rows of one part, checked; `end` is where the next one begins.
pub(crate) async fn part(
    ground: &Ground,
    part: &PartInfo,
    end: Option<&RowKey>,
    lost: &BTreeSet<FailureDomain>,
) -> Result<Vec<u8>, Missing> {
    let stored = fetch(ground, &part.block, lost).await?;
    cpu(|| part.unpack(stored, end)).map_err(|error| Missing::spoilt(&part.block, &error))
}

#[cfg(test)]
mod tests;
