//! One bulk block under construction.

use std::sync::Arc;

use diaspore_block::geometry::{max_payload, shard_len_for};
use diaspore_block::id::{BucketId, ChunkId, TenantId};
use diaspore_block::limits::BULK_SEGMENT_LOG2;
use diaspore_block::record::{ChunkEntry, Encoding};
use diaspore_block::section::PayloadBuilder;
use diaspore_ledger::BlockEntry;
use diaspore_provider::{HealthState, ProviderId};
use tokio::sync::OwnedSemaphorePermit;

use super::sealing;
use crate::api::{Error, ErrorKind};
use crate::scatter::{BulkHandle, BulkSlot, open_bulk, scatter_bulk};
use crate::shared::Shared;

/// Longest payload of a bulk block: with 3 data shards, objects of just under 4 MiB.
const MOST_PAYLOAD: usize = 12 << 20;
/// Budget is taken in steps, so that a slow upload holds what it sent and not a whole block.
const STEP_BYTES: usize = 2 << 20;

/// Chunks of one upload on their way into one block.
pub(super) struct Packer {
    slot: BulkSlot,
    payload: PayloadBuilder,
    chunks: Vec<ChunkEntry>,
    /// Payload bytes that the permits allow, parity paid.
    granted: usize,
    budget: OwnedSemaphorePermit,
    shared: Arc<Shared>,
}

impl Packer {
    /// Opens a block. Waits for memory while holding none.
    pub(super) async fn open(shared: &Arc<Shared>, tenant: TenantId) -> Result<Self, Error> {
        let slot = open_bulk(shared)?;
        let most = max_payload(slot.geometry.k()).min(MOST_PAYLOAD);
        let first = STEP_BYTES.min(most);
        let permits = permits(&slot, first, shared.config.limits.upload_bytes);
        let closed = |_| Error::new(ErrorKind::NotAccepted, "the service is shutting down; nothing was accepted");
        let budget = Arc::clone(&shared.upload_bytes).acquire_many_owned(permits).await.map_err(closed)?;
        // Room for padding, so that coding never moves the payload; untouched pages cost nothing.
        let shard_len = shard_len_for(most, slot.geometry.k()).map_err(sealing)?;
        let capacity = usize::try_from(shard_len).unwrap_or(most).saturating_mul(usize::from(slot.geometry.k()));
        let mut payload = PayloadBuilder::new(most, capacity);
        let key_version = shared.keys.tenant(tenant).map_err(sealing)?.current;
        payload.begin(tenant, key_version, BULK_SEGMENT_LOG2).map_err(sealing)?;
        Ok(Self { slot, payload, chunks: Vec::new(), granted: first, budget, shared: Arc::clone(shared) })
    }

    /// k, n and whether that is less than the policy wants.
    pub(super) fn geometry(&self) -> (u8, u8, bool) {
        (self.slot.geometry.k(), self.slot.geometry.n(), self.slot.shrunk)
    }

    /// Whether nothing was put in.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Takes a chunk in; false when it does not fit any more or memory is short.
    pub(super) fn put(&mut self, bucket: BucketId, id: ChunkId, encoding: Encoding, plain_len: u32, stored: &[u8]) -> Result<bool, Error> {
        if stored.len() as u64 > self.payload.room() || !self.afford(stored.len()) {
            // A chunk that does not fit an empty block would never fit.
            return if self.chunks.is_empty() { Err(Error::new(ErrorKind::Internal, "a chunk exceeds a block")) } else { Ok(false) };
        }
        let offset = self.payload.push(stored).map_err(sealing)?;
        let stored_len = u32::try_from(stored.len()).unwrap_or(u32::MAX);
        self.chunks.push(ChunkEntry { bucket, id, section: 0, offset, stored_len, plain_len, encoding });
        Ok(true)
    }

    /// Makes sure that the budget covers `more` bytes. Never waits: a block that waited while it holds memory could wait for itself.
    fn afford(&mut self, more: usize) -> bool {
        while self.payload.len() + more + more / 1024 > self.granted {
            let permits = permits(&self.slot, STEP_BYTES, self.shared.config.limits.upload_bytes);
            let Ok(permit) = Arc::clone(&self.shared.upload_bytes).try_acquire_many_owned(permits) else { return false };
            self.budget.merge(permit);
            self.granted += STEP_BYTES;
        }
        true
    }

    /// Seals the block and sends it off.
    pub(super) fn seal(self, shared: &Arc<Shared>) -> Result<BulkHandle, Error> {
        let Self { slot, payload, chunks, budget, .. } = self;
        let sealed = payload.seal(&slot.position, &shared.keys, &mut shared.rng()).map_err(sealing)?;
        scatter_bulk(shared, slot, sealed.bytes, sealed.sections, chunks, budget)
    }
}

/// Permits for payload bytes and the parity made of them, at most all there are.
fn permits(slot: &BulkSlot, payload: usize, all: usize) -> u32 {
    let (k, n) = (usize::from(slot.geometry.k()), usize::from(slot.geometry.n()));
    u32::try_from((payload * n).div_ceil(k).min(all)).unwrap_or(u32::MAX)
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
