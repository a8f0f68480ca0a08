//! One bulk block under construction.

use std::sync::Arc;

use diaspore_block::geometry::{max_payload, shard_len_for};
use diaspore_block::id::{BlockId, BucketId, ChunkId, TenantId};
use diaspore_block::limits::BULK_SEGMENT_LOG2;
use diaspore_block::record::{ChunkEntry, Encoding};
use diaspore_block::section::PayloadBuilder;
use diaspore_ledger::{BlockEntry, Snapshot};
use diaspore_provider::{HealthState, ProviderId};

use super::memory::{BlockMemory, Buffers};
use super::sealing;
use crate::api::{Error, ErrorKind};
use crate::namespace::local;
use crate::scatter::{BulkHandle, BulkSlot, open_bulk, scatter_bulk};
use crate::scrub;
use crate::shared::Shared;

/// Longest payload of a bulk block: with 3 data shards, objects of just under 4 MiB.
const MOST_PAYLOAD: usize = 12 << 20;
/// Budget is taken in steps, so that a slow upload holds what it sent and not a whole block.
const STEP_BYTES: usize = 2 << 20;

/// Chunks of one upload on their way into one block.
pub(crate) struct Packer {
    slot: BulkSlot,
    payload: PayloadBuilder,
    chunks: Vec<ChunkEntry>,
    /// What the block is made in, without the payload under construction.
    buffers: Buffers,
    memory: Arc<BlockMemory>,
}

impl Packer {
    /// Opens a block. Waits for memory while holding none.
    pub(crate) async fn open(shared: &Arc<Shared>, tenant: TenantId) -> Result<Self, Error> {
        let slot = open_bulk(shared)?;
        let most = max_payload(slot.geometry.k()).min(MOST_PAYLOAD);
        let memory = Arc::clone(&shared.data.blocks);
        let mut buffers = memory.take(slot.geometry, STEP_BYTES.min(most)).await?;
        // Room for padding, so that coding never moves the payload; untouched pages cost nothing.
        let shard_len = shard_len_for(most, slot.geometry.k()).map_err(sealing)?;
        let capacity = usize::try_from(shard_len).unwrap_or(most).saturating_mul(usize::from(slot.geometry.k()));
        let mut payload = PayloadBuilder::reusing(std::mem::take(&mut buffers.payload), most, capacity);
        let key_version = shared.keys.tenant(tenant).map_err(sealing)?.current;
        payload.begin(tenant, key_version, BULK_SEGMENT_LOG2).map_err(sealing)?;
        Ok(Self { slot, payload, chunks: Vec::new(), buffers, memory })
    }

    /// k, n and whether that is less than the policy wants.
    pub(super) fn geometry(&self) -> (u8, u8, bool) {
        (self.slot.geometry.k(), self.slot.geometry.n(), self.slot.shrunk)
    }

    /// Id of the block to be.
    pub(crate) fn block(&self) -> BlockId {
        self.slot.position.block
    }

    /// Whether nothing was put in.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Takes a chunk in; false when it does not fit any more or memory is short.
    pub(crate) fn put(&mut self, bucket: BucketId, id: ChunkId, encoding: Encoding, plain_len: u32, stored: &[u8]) -> Result<bool, Error> {
        let sealed = self.payload.len() + stored.len() + stored.len() / 1024;
        if stored.len() as u64 > self.payload.room() || !self.memory.afford(&mut self.buffers, sealed, STEP_BYTES) {
            // A chunk that does not fit an empty block would never fit.
            return if self.chunks.is_empty() { Err(Error::new(ErrorKind::Internal, "a chunk exceeds a block")) } else { Ok(false) };
        }
        let offset = self.payload.push(stored).map_err(sealing)?;
        let stored_len = u32::try_from(stored.len()).unwrap_or(u32::MAX);
        self.chunks.push(ChunkEntry { bucket, id, section: 0, offset, stored_len, plain_len, encoding });
        Ok(true)
    }

    /// Seals the block and sends it off.
    pub(crate) fn seal(self, shared: &Arc<Shared>) -> Result<BulkHandle, Error> {
        let Self { slot, payload, chunks, mut buffers, .. } = self;
        let sealed = payload.seal(&slot.position, &shared.keys, &mut shared.rng()).map_err(sealing)?;
        buffers.payload = sealed.bytes;
        scatter_bulk(shared, slot, buffers, sealed.sections, chunks)
    }
}

/// Whether a block that was settled can still be relied on for a class: more than k of its shards for a quorum, all of them for `full`, counting
/// out those that were seen to be gone or wrong and those that are being made again.
pub(super) fn is_sound(shared: &Shared, view: &Snapshot, block: &BlockEntry, full: bool) -> Result<bool, Error> {
    let geometry = block.facts.geometry;
    let check = view.check_of(block.facts.id).map_err(local)?;
    let seen = usize::from(geometry.n()).saturating_sub(scrub::proven_lost(check.as_ref()));
    let there = shared.settlement.stored_of(block.facts.id).map_or(seen, |stored| stored.min(seen));
    Ok(there >= usize::from(if full { geometry.n() } else { geometry.quorum() }))
}

/// Whether enough domains that hold a block answer now for it to be read with one more loss.
pub(super) fn is_reachable(shared: &Shared, block: &BlockEntry) -> bool {
    let answers = |provider: &str| {
        let health = ProviderId::new(provider).ok().and_then(|id| shared.fleet.health(&id));
        health.is_some_and(|health| health.state != HealthState::Down)
    };
    let up = block.facts.placements.iter().filter(|place| place.acked && answers(&place.provider)).count();
    up >= usize::from(block.facts.geometry.quorum())
}

#[cfg(test)]
mod tests {
    use diaspore_block::manifest::BlockKind;

    use super::*;
    use crate::blob::tests::fixture::{Fixture, random};
    use crate::scrub::{Seen, note};

    /// 3-of-5: a quorum needs four shards, `full` all five.
    #[tokio::test(start_paused = true)]
    async fn a_block_is_relied_on_for_what_is_left_of_it() {
        let fx = Fixture::start(5).await;
        fx.put(b"k", &random(3 << 20, 1)).await.unwrap();
        fx.settle().await;
        let shared = fx.engine.shared();
        let entry = shared.ledger.snapshot().unwrap().blocks(None, 100).unwrap();
        let entry = entry.into_iter().find(|entry| entry.facts.kind == BlockKind::Bulk).unwrap();
        let sound = |full| is_sound(&shared, &shared.ledger.snapshot().unwrap(), &entry, full).unwrap();
        assert!(sound(false) && sound(true));
        for (shard, left) in [(0, true), (3, false)] {
            let home = entry.facts.placements.iter().find(|place| place.shard == shard).unwrap();
            note(&shared, &entry.facts, &[(shard, ProviderId::new(&home.provider).unwrap(), Seen::Missing)], false);
            assert_eq!((sound(false), sound(true)), (left, false), "without shard {shard} as well");
        }
    }
}
