//! Sampled audits: one random cell of a random shard at a time, held against the signed root.
//!
//! A provider cannot tell an audit from a reader's range request, and does not know which cell is next, so the share of bad cells among
//! those drawn says something about all (`estimate`). A block is kept with the chance that its length has among the longest there can be,
//! so that every cell is as likely as any other; below a sixteenth of that length short blocks are favoured. Block ids are random and never leave the process: whichever of them the draw prefers, no provider can
//! know or choose.

use std::sync::Arc;

use bytes::Bytes;
use diaspore_block::id::BlockId;
use diaspore_block::limits::{CELL_LEN, HEADER_LEN, MAX_SHARD_OBJECT};
use diaspore_block::shard::{KnownShard, LeafList, VerifiedCells, leaf_list_len};
use diaspore_ledger::BlockEntry;
use diaspore_policy::ProviderId;
use diaspore_provider::{Deadline, ErrorKind as ProviderErrorKind};
use rand::Rng;

use super::verdict::Seen;
use crate::coded::address_of;
use crate::shards::{self, Stated};
use crate::shared::Shared;
use crate::world::cpu;

/// Blocks looked at for one draw: with only short blocks, most are passed over.
const DRAWS: usize = 128;
/// Blocks beside the drawn place of which one is taken, so that a gap between ids prefers nobody much.
const NEIGHBOURS: usize = 8;

/// One cell to be read.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) entry: BlockEntry,
    pub(crate) shard: u8,
    pub(crate) provider: ProviderId,
    pub(crate) index: u32,
}

/// What came of reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Audited {
    pub(crate) seen: Seen,
    /// Bytes asked for.
    pub(crate) bytes: u64,
}

/// Draws a cell among those that the map places at `provider`; `None` when none was met.
pub(crate) fn draw(shared: &Shared, provider: &ProviderId) -> Option<Cell> {
    let view = shared.ledger.snapshot().ok()?;
    let mut rng = shared.rng();
    for _ in 0..DRAWS {
        let near = view.blocks(Some(BlockId::draw(&mut rng)), NEIGHBOURS).ok()?;
        let near = if near.is_empty() { view.blocks(None, NEIGHBOURS).ok()? } else { near };
        let count = u64::try_from(near.len()).ok().filter(|count| *count > 0)?;
        let entry = near.into_iter().nth(usize::try_from(rng.next_u64() % count).ok()?)?;
        let length = u64::from(entry.facts.shard_len);
        if length == 0 || rng.next_u64() % MAX_SHARD_OBJECT as u64 >= length.max(MAX_SHARD_OBJECT as u64 / 16) {
            continue;
        }
        let place = entry.facts.placements.iter().find(|place| place.acked && place.provider == provider.as_str());
        let Some(shard) = place.map(|place| place.shard) else { continue };
        if view.condemned(entry.facts.id).ok()?.is_some() {
            continue;
        }
        let index = u32::try_from(rng.next_u64() % length.div_ceil(CELL_LEN as u64)).ok()?;
        return Some(Cell { entry, shard, provider: provider.clone(), index });
    }
    None
}

/// Reads the cell and what proves it.
pub(crate) async fn audit(shared: &Shared, cell: &Cell) -> Audited {
    let start = u64::from(cell.index) * CELL_LEN as u64;
    let length = u64::from(cell.entry.facts.shard_len).saturating_sub(start).min(CELL_LEN as u64);
    let mut bytes = length;
    let leaves = match leaves(shared, cell, &mut bytes).await {
        Ok(leaves) => leaves,
        Err(seen) => return Audited { seen, bytes },
    };
    let seen = match get(shared, cell, HEADER_LEN as u64 + start, length).await {
        Err(seen) => seen,
        Ok(body) if is_cell(&leaves, cell.index, &body) => Seen::Good,
        Ok(_) => {
            shards::wrong(shared, &cell.provider, "an audited cell that is not the signed one");
            Seen::Wrong
        }
    };
    Audited { seen, bytes }
}

fn is_cell(leaves: &LeafList, index: u32, body: &Bytes) -> bool {
    cpu(|| VerifiedCells::check(leaves, index, body.clone())).is_ok()
}

/// The shard's leaf list, from memory or from the provider; what it took is added to `bytes`.
async fn leaves(shared: &Shared, cell: &Cell, bytes: &mut u64) -> Result<Arc<LeafList>, Seen> {
    let facts = &cell.entry.facts;
    if let Some(leaves) = shared.data.leaves.get(facts.id, cell.shard) {
        return Ok(leaves);
    }
    let root = *facts.shard_roots.get(usize::from(cell.shard)).ok_or(Seen::Never)?;
    let length = leaf_list_len(facts.shard_len).map_err(|_| Seen::Never)? as u64;
    *bytes += length;
    let sealed = get(shared, cell, HEADER_LEN as u64 + u64::from(facts.shard_len), length).await?;
    let known =
        KnownShard { deployment: shared.deployment(), block_root: facts.block_root, shard: cell.shard, shard_len: facts.shard_len, root };
    let address = address_of(facts, cell.provider.as_str());
    let name = shared.names.shard(&address);
    match LeafList::open_known(&shared.keys.header, &known, &address, &name, &sealed) {
        Ok(leaves) => {
            let leaves = Arc::new(leaves);
            shared.data.leaves.put(facts.id, cell.shard, &leaves);
            Ok(leaves)
        }
        Err(error) if shared.unjudged.are_wrong("a leaf list", error.clone()) => {
            shards::wrong(shared, &cell.provider, "an audited leaf list that does not verify");
            Err(Seen::Wrong)
        }
        Err(_) => Err(Seen::Silent),
    }
}

async fn get(shared: &Shared, cell: &Cell, start: u64, length: u64) -> Result<Bytes, Seen> {
    let name = shared.names.shard(&address_of(&cell.entry.facts, cell.provider.as_str()));
    let asked = shared.fleet.get(&cell.provider, name.as_str(), Some(start..start + length), length, Deadline::transfer(length));
    let kind = match asked.await {
        Ok(bytes) => return Ok(bytes),
        Err(error) => error.kind,
    };
    if kind == ProviderErrorKind::NotFound {
        return Err(Seen::Missing);
    }
    Err(match shards::stated(shared, &cell.entry.facts, &cell.provider).await {
        Stated::Wrong => Seen::Wrong,
        Stated::Absent => Seen::Missing,
        Stated::Nothing => Seen::Silent,
    })
}
