//! Making a checkpoint, one part at a time with one more on its way: freeze, write, wait until all of it and all that it covers is
//! settled, say so in the log, wait until that is settled, announce.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use diaspore_block::block;
use diaspore_block::compacted::{self, BlockRef, CompactedRoot, PartInfo, RowKey};
use diaspore_block::geometry::Geometry;
use diaspore_block::id::{Attempt, BlockId, Counter, Hash32, Seq};
use diaspore_block::manifest::{BlockKind, BlockPosition, LogState};
use diaspore_block::record::{BulkAdded, LogCompacted, PartsAdded, Private};
use diaspore_ledger::Snapshot;

use super::{CheckpointReport, heads, read, reference_of};
use crate::api::{Class, Error, ErrorKind};
use crate::coded::{Coded, added};
use crate::commit::{CommitRequest, NewRecord};
use crate::layout;
use crate::namespace::{local, view};
use crate::scatter::{self, Purpose, ScatterHandle};
use crate::shared::{Meters, Shared};
use crate::world::cpu;

/// Parts that one record brings into the map.
const PARTS_PER_RECORD: usize = 16;
/// Pause between looks at what the ledger knows to be settled.
const LOOK: Duration = Duration::from_millis(200);

/// A block that was coded and is on its way.
struct Sent {
    added: BulkAdded,
    reference: BlockRef,
    handle: ScatterHandle,
}

/// Parts on their way into the map.
struct Writer<'s> {
    shared: &'s Arc<Shared>,
    sent: Option<Sent>,
    /// At quorum, not yet named by a record.
    waiting: Vec<BulkAdded>,
    /// Sequence of the last record that named some.
    named: Seq,
    written: u64,
    bytes: u64,
}

pub(super) async fn write(shared: &Arc<Shared>) -> Result<CheckpointReport, Error> {
    shared.check_writable()?;
    let frozen = view(shared)?;
    let covers = frozen.applied_seq().map_err(local)?;
    let last = frozen
        .commit_block(covers)
        .map_err(local)?
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the newest commit block has no entry"))?;
    let log_size = frozen.log_size().map_err(local)?;
    let log_root = frozen.log_root(log_size).map_err(local)?;
    let before = previous(shared, &frozen).await?;

    let mut writer = Writer { shared, sent: None, waiting: Vec::new(), named: Seq(0), written: 0, bytes: 0 };
    let parts = writer.parts(&frozen, before.as_deref()).await?;
    drop(frozen);
    let rows = parts.iter().map(|part| u64::from(part.rows)).sum();
    let root = CompactedRoot {
        covers,
        incarnation: last.facts.incarnation,
        counter: last.facts.counter,
        log_size,
        log_root,
        acked_through: view(shared)?.applied_seq().map_err(local)?,
        parts,
    };
    let plain = root.to_bytes().map_err(|error| Error::caused(ErrorKind::Internal, "the compacted log does not fit its root", error))?;
    let root_block = writer.send(&plain).await?;
    let named = writer.finish().await?;
    // Everything it covers, and every block of it, on all its domains: only then may it be called whole (C15, C16).
    settled(shared, named.max(covers)).await?;
    if read::fetch(shared, &root_block, &BTreeSet::new()).await.map_err(|missing| Error::new(ErrorKind::NotAccepted, missing.why))? != plain
    {
        return Err(Error::new(ErrorKind::IntegrityViolation, "the root of the compacted log reads otherwise than it was written"));
    }
    let compacted = LogCompacted {
        covers,
        incarnation: root.incarnation,
        counter: root.counter,
        log_size,
        log_root,
        root: root_block.block,
        parts: root.parts.iter().map(|part| part.block.block).collect(),
    };
    let said = submit(shared, compacted, Vec::new()).await?;
    settled(shared, said).await?;
    let parts = root.parts.len() as u64;
    shared.checkpoints.state().last = Some((root_block.block, Arc::new(root)));
    let heads = heads::announce(shared).await?;
    Ok(CheckpointReport { covers: covers.0, log_size, rows, parts, written: writer.written, bytes: writer.bytes, heads })
}

/// The newest compacted log before this one, if it can be read: its boundaries are kept, and what did not change.
async fn previous(shared: &Arc<Shared>, frozen: &Snapshot) -> Result<Option<Arc<CompactedRoot>>, Error> {
    let Some(newest) = frozen.compactions().map_err(local)?.pop() else { return Ok(None) };
    let id = newest.compacted.root;
    if let Some((_, root)) = shared.checkpoints.state().last.as_ref().filter(|(block, _)| *block == id) {
        return Ok(Some(Arc::clone(root)));
    }
    let Some(entry) = frozen.block(id).map_err(local)? else { return Ok(None) };
    match read::root(shared, &reference_of(&entry.facts), &BTreeSet::new()).await {
        Ok(root) => Ok(Some(Arc::new(root))),
        Err(missing) => {
            tracing::info!(why = missing.why, "the last compacted log cannot be read: everything is written anew");
            Ok(None)
        }
    }
}

impl Writer<'_> {
    /// All parts of the state, those that did not change since `before` by reference.
    async fn parts(&mut self, frozen: &Snapshot, before: Option<&CompactedRoot>) -> Result<Vec<PartInfo>, Error> {
        let known = before.map_or(&[][..], |root| root.parts.as_slice());
        let cuts: Vec<(RowKey, u32)> = known.iter().map(|part| (part.first.clone(), part.plain_len)).collect();
        let (mut parts, mut first) = (Vec::new(), RowKey::default());
        loop {
            self.shared.check_writable()?;
            let ahead = cuts.get(cuts.partition_point(|(cut, _)| *cut <= first)..).unwrap_or_default();
            let (part, content) = cpu(|| {
                let part = frozen.base_part(&first, ahead)?;
                let content = compacted::content_of(&part.plain);
                Ok((part, content))
            })
            .map_err(local)?;
            let unchanged = known.iter().find(|old| old.content == content && stays(self.shared, frozen, &old.block));
            let info = match unchanged {
                Some(old) => PartInfo { first, ..old.clone() },
                None => self.part(first, part.rows, &part.plain, content).await?,
            };
            parts.push(info);
            let Some(end) = part.end else { return Ok(parts) };
            first = end;
        }
    }

    async fn part(&mut self, first: RowKey, rows: u32, plain: &[u8], content: Hash32) -> Result<PartInfo, Error> {
        let (encoding, stored) = cpu(|| compacted::pack(plain)).map_err(coding)?;
        let block = self.send(&stored).await?;
        Ok(PartInfo { first, rows, plain_len: u32::try_from(plain.len()).unwrap_or(u32::MAX), encoding, content, block })
    }

    /// Sends one block on its way once the one before it has its quorum.
    async fn send(&mut self, plain: &[u8]) -> Result<BlockRef, Error> {
        let sent = scatter(self.shared, plain)?;
        self.written += 1;
        self.bytes += u64::from(sent.added.payload_len);
        let reference = sent.reference.clone();
        if let Some(before) = self.sent.replace(sent) {
            self.arrived(before).await?;
        }
        Ok(reference)
    }

    /// Waits for the quorum of a block and names it in the log, a few at a time: what no record names nobody makes whole.
    async fn arrived(&mut self, mut sent: Sent) -> Result<(), Error> {
        sent.added.placements = sent.handle.quorum().await?;
        self.waiting.push(sent.added);
        if self.waiting.len() >= PARTS_PER_RECORD { self.name().await } else { Ok(()) }
    }

    async fn name(&mut self) -> Result<(), Error> {
        let parts = std::mem::take(&mut self.waiting);
        if parts.is_empty() {
            return Ok(());
        }
        let bulk: Vec<BlockId> = parts.iter().map(|part| part.block).collect();
        self.named = submit(self.shared, PartsAdded { parts }, bulk).await?;
        Ok(())
    }

    /// Everything that was sent is named in the log; the sequence of the last record that did.
    async fn finish(&mut self) -> Result<Seq, Error> {
        if let Some(sent) = self.sent.take() {
            self.arrived(sent).await?;
        }
        self.name().await?;
        Ok(self.named)
    }
}

/// Whether a part may stay where it is. One with a shard at an account that is being left or gone, and with more shards than there are
/// domains without it, is written anew: it would tie every later compacted log to that account.
fn stays(shared: &Shared, frozen: &Snapshot, part: &BlockRef) -> bool {
    let fits = || usize::from(part.geometry.n()) <= layout::usable(shared).len();
    let entry = frozen.block(part.block).ok().flatten();
    entry.is_some_and(|entry| fits() || !entry.facts.placements.iter().any(|place| shared.modes.is_left(&place.provider)))
}

/// Seals, codes and scatters one block of a compacted log.
fn scatter(shared: &Arc<Shared>, plain: &[u8]) -> Result<Sent, Error> {
    let plan = layout::of_bulk_blocks(shared)?;
    let geometry = Geometry::new(plan.k, plan.n).map_err(|error| Error::caused(ErrorKind::Internal, "geometry out of range", error))?;
    let position = BlockPosition {
        deployment: shared.deployment(),
        block: BlockId::draw(&mut shared.rng()),
        kind: BlockKind::Compacted,
        incarnation: shared.writer.incarnation,
        counter: Counter(shared.bulk_counter.fetch_add(1, Ordering::Relaxed)),
        attempt: Attempt(0),
    };
    let mut blind = [0; 32];
    shared.entropy.draw(&mut blind);
    let log = LogState { epoch: shared.writer.epoch, k_floor: geometry.k(), ..LogState::default() };
    let (signed, sections) = cpu(|| {
        let sealed = compacted::seal(plain, &position, geometry.k(), &shared.keys, &mut shared.rng())?;
        Ok((block::encode(sealed.bytes, geometry, blind)?.sign(position, 0, log, &shared.keys.identity), sealed.sections))
    })
    .map_err(coding)?;
    Meters::bump(&shared.meters.signatures);
    let reference = BlockRef::of(signed.manifest());
    let coded = Arc::new(Coded::new(signed, sections));
    let facts = coded.facts();
    shared.checkpoints.state().unfinished.insert(facts.id);
    let added = added(&facts, Vec::new());
    let handle = scatter::spawn(shared, coded, Purpose::Bulk, None);
    Ok(Sent { added, reference, handle })
}

fn coding(error: diaspore_block::BlockError) -> Error {
    Error::caused(ErrorKind::Internal, "a block of the compacted log could not be made", error)
}

/// Commits one record of the service; its sequence.
async fn submit(shared: &Arc<Shared>, private: impl Into<Private>, bulk: Vec<BlockId>) -> Result<Seq, Error> {
    let records = vec![NewRecord::system(private)];
    let request = CommitRequest { records, chunks: Vec::new(), class: Class::Quorum, bulk, hold: Box::new(()) };
    Ok(shared.committer.submit(request, shared.answer_by()).await?.seq)
}

/// Waits until everything up to `seq` is settled, also by the ledger's account.
async fn settled(shared: &Shared, seq: Seq) -> Result<(), Error> {
    shared.settlement.hurry();
    shared.settlement.wait_through(seq).await;
    while view(shared)?.settled_through().map_err(local)? < seq {
        tokio::time::sleep(LOOK).await;
        shared.check_writable()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
