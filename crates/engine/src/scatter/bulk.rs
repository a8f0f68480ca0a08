//! Bulk blocks: chunks of one upload, coded and scattered before any record names them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use diaspore_block::block;
use diaspore_block::geometry::Geometry;
use diaspore_block::id::{Attempt, BlockId, Counter, Epoch, Seq};
use diaspore_block::manifest::{BlockKind, BlockPosition, LogState};
use diaspore_block::record::{BulkAdded, ChunkEntry, SectionInfo};

use super::{Purpose, ScatterHandle, spawn};
use crate::api::{Error, ErrorKind};
use crate::coded::{Coded, added};
use crate::layout;
use crate::shards::Place;
use crate::shared::{Meters, Shared};
use crate::upload::Buffers;
use crate::world::cpu;

/// The position of a bulk block that is being filled. Bulk counters may have gaps: only commit blocks are counted by probing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BulkSlot {
    /// What its sections are sealed under.
    pub(crate) position: BlockPosition,
    pub(crate) epoch: Epoch,
    pub(crate) geometry: Geometry,
    /// Fewer domains answer than the policy wants: narrower, with the same losses survived.
    pub(crate) shrunk: bool,
}

/// Takes the next position with the geometry that the healthy domains allow.
pub(crate) fn open_bulk(shared: &Shared) -> Result<BulkSlot, Error> {
    shared.check_writable()?;
    let plan = layout::of_bulk_blocks(shared)?;
    let geometry = Geometry::new(plan.k, plan.n).map_err(|error| Error::caused(ErrorKind::Internal, "geometry out of range", error))?;
    let position = BlockPosition {
        deployment: shared.deployment(),
        block: BlockId::draw(&mut shared.rng()),
        kind: BlockKind::Bulk,
        incarnation: shared.writer.incarnation,
        counter: Counter(shared.bulk_counter.fetch_add(1, Ordering::Relaxed)),
        attempt: Attempt(0),
    };
    Ok(BulkSlot { position, epoch: shared.writer.epoch, geometry, shrunk: plan.is_shrunk() })
}

/// A bulk block on its way.
#[derive(Debug)]
pub(crate) struct BulkHandle {
    added: Option<BulkAdded>,
    handle: ScatterHandle,
}

impl BulkHandle {
    /// Which block it is, and where its shards go. Known until the quorum is asked for.
    pub(crate) fn place(&self) -> Option<(BlockId, Place)> {
        let BulkAdded { block, incarnation, counter, attempt, .. } = *self.added.as_ref()?;
        Some((block, Place { kind: BlockKind::Bulk, incarnation, counter, attempt }))
    }

    /// The record that may name the block, once k + 1 domains hold it. Ask once.
    pub(crate) async fn quorum(&mut self) -> Result<BulkAdded, Error> {
        let placements = self.handle.quorum().await?;
        let mut added = self.added.take().ok_or_else(|| Error::new(ErrorKind::Internal, "the block was taken already"))?;
        added.placements = placements;
        Ok(added)
    }
}

/// Codes, signs and scatters a sealed payload, which `buffers` hold; they go back when the last shard's bytes are dropped.
pub(crate) fn scatter_bulk(
    shared: &Arc<Shared>,
    slot: BulkSlot,
    mut buffers: Buffers,
    sections: Vec<SectionInfo>,
    chunks: Vec<ChunkEntry>,
) -> Result<BulkHandle, Error> {
    let mut blind = [0; 32];
    shared.entropy.draw(&mut blind);
    let log = LogState { epoch: slot.epoch, seq: Seq(0), k_floor: slot.geometry.k(), ..LogState::default() };
    let signed = cpu(|| {
        let (payload, parity) = (std::mem::take(&mut buffers.payload), std::mem::take(&mut buffers.parity));
        let coded = block::encode_into(payload, parity, slot.geometry, blind, |payload, parity| {
            (buffers.payload, buffers.parity) = (payload, parity);
            shared.data.blocks.share(buffers)
        })?;
        Ok(coded.sign(slot.position, 0, log, &shared.keys.identity))
    })
    .map_err(|error: diaspore_block::BlockError| Error::caused(ErrorKind::Internal, "the block could not be coded", error))?;
    Meters::bump(&shared.meters.signatures);
    let coded = Arc::new(Coded::new(signed, sections));
    let facts = coded.facts();
    let added = added(&facts, chunks);
    let handle = spawn(shared, coded, Purpose::Bulk, None);
    Ok(BulkHandle { added: Some(added), handle })
}
