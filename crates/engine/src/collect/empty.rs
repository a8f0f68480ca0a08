//! Emptying blocks that are mostly dead: their live chunks are written again as they are stored, into new blocks of the same tenant.
//!
//! Nothing is decompressed or compressed; the bytes are opened under the old section's key and sealed under the tenant's present one. The
//! record of a new block moves the places of its chunks, so it waits until k + 1 domains gave their shards back. A block counts as empty only
//! when every new block that took something of it has all n shards and each of them was read back whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diaspore_block::id::{BlockId, BucketId, ChunkId, PrincipalId, Seq, TenantId};
use diaspore_block::record::BulkAdded;
use diaspore_ledger::{BlockEntry, BlockFacts, ChunkPlace};
use diaspore_policy::ProviderId;
use diaspore_provider::Deadline;
use futures::future::join_all;
use tokio::time::Instant;

use super::keep::Pins;
use super::mark::{Roots, is_unreadable, prefix};
use crate::api::{Caller, Class, Error, ErrorKind};
use crate::commit::CommitRequest;
use crate::namespace::local;
use crate::read;
use crate::scatter::BulkHandle;
use crate::scrub::{self, Seen};
use crate::shards::{Depth, Place, survey};
use crate::shared::Shared;
use crate::upload::{Packer, bulk_record};
use crate::world::cpu;

/// Blocks emptied together, so that the last new one of a group is well filled.
const GROUP: usize = 32;
/// Chunks read at once: about 8 MiB.
const AT_ONCE: usize = 32;
/// Longest wait for all n shards of the new blocks. Later they are complete as well, but what they replace stays until the next collection.
const SETTLES_WITHIN: Duration = Duration::from_mins(5);
/// Longest wait for the record of the new blocks.
const RECORD_DEADLINE: Duration = Duration::from_mins(2);
/// Pause before a new block is looked at once more that did not show enough: shards beyond the quorum may be on their way.
const ON_THEIR_WAY: Duration = Duration::from_secs(5);
/// Pause between looks whether the ledger knows that the new blocks settled.
const LOOK: Duration = Duration::from_millis(20);

/// A live chunk and where it lies now.
#[derive(Debug, Clone)]
struct Survivor {
    bucket: BucketId,
    id: ChunkId,
    place: ChunkPlace,
}

/// Blocks to be emptied together, with what lives in them.
#[derive(Debug, Default)]
pub(super) struct Move {
    blocks: BTreeSet<BlockId>,
    survivors: BTreeMap<TenantId, Vec<Survivor>>,
}

/// What became of one group.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) emptied: Vec<BlockId>,
    pub(super) bytes: u64,
    pub(super) new_blocks: u64,
}

/// Sorts what lives in `blocks` by tenant, into groups. Walks once over the blobs of the buckets concerned; of a bucket with a list that
/// cannot be read everything lives.
pub(super) async fn plan(shared: &Arc<Shared>, roots: &Roots, blocks: &[BlockId]) -> Result<Vec<Move>, Error> {
    let mut residents: BTreeMap<BucketId, Vec<Survivor>> = BTreeMap::new();
    for block in blocks {
        // Two uploads that met in one commit block may both have brought a chunk: it moves once.
        let contents: BTreeSet<(BucketId, ChunkId)> = roots.view.contents(*block).map_err(local)?.into_iter().collect();
        for (bucket, id) in contents {
            let place = roots.view.chunk(bucket, &id).map_err(local)?.filter(|place| place.block == *block);
            residents.entry(bucket).or_default().extend(place.map(|place| Survivor { bucket, id, place }));
        }
    }
    let mut alive: BTreeMap<BlockId, Vec<Survivor>> = BTreeMap::new();
    for (bucket, found) in residents {
        let mut named: BTreeMap<u64, bool> = found.iter().map(|survivor| (prefix(&survivor.id), false)).collect();
        let mark = |id: &ChunkId| {
            if let Some(live) = named.get_mut(&prefix(id)) {
                *live = true;
            }
        };
        let unreadable = match Box::pin(roots.each_chunk(shared, bucket, mark)).await {
            Ok(()) => false,
            Err(error) if is_unreadable(&error) => true,
            Err(error) => return Err(error),
        };
        for survivor in found.into_iter().filter(|survivor| unreadable || named.get(&prefix(&survivor.id)) == Some(&true)) {
            alive.entry(survivor.place.block).or_default().push(survivor);
        }
    }
    let mut moves: Vec<Move> = Vec::new();
    let mut open: BTreeMap<TenantId, Move> = BTreeMap::new();
    for block in blocks {
        let Some(entry) = roots.view.block(*block).map_err(local)? else { continue };
        let mut survivors: BTreeMap<TenantId, Vec<Survivor>> = BTreeMap::new();
        for survivor in alive.remove(block).unwrap_or_default() {
            let section = entry.facts.sections.get(usize::from(survivor.place.section));
            let tenant =
                section.map(|section| section.tenant).ok_or_else(|| Error::new(ErrorKind::IntegrityViolation, "a chunk in no section"))?;
            survivors.entry(tenant).or_default().push(survivor);
        }
        let tenant = survivors.keys().next().copied().unwrap_or(TenantId::SYSTEM);
        if survivors.len() > 1 {
            // A block of several tenants goes alone: it is empty when all of them have moved out.
            moves.push(Move { blocks: BTreeSet::from([*block]), survivors });
            continue;
        }
        let group = open.entry(tenant).or_default();
        group.blocks.insert(*block);
        group.survivors.entry(tenant).or_default().extend(survivors.into_values().flatten());
        if group.blocks.len() >= GROUP {
            moves.extend(open.remove(&tenant));
        }
    }
    moves.extend(open.into_values());
    Ok(moves)
}

/// Carries one group out.
///
/// # Errors
/// When something of it could not be read, stored, settled or read back: none of its blocks may be condemned then. `TooFewDomains` when
/// providers take shards and do not give them back, or do not take them: it will be no better with the next group.
pub(super) async fn carry_out(shared: &Arc<Shared>, group: Move) -> Result<Moved, Error> {
    let mut moved = Moved { emptied: group.blocks.into_iter().collect(), ..Moved::default() };
    for (tenant, mut survivors) in group.survivors {
        let mut writer = Writer { shared: Arc::clone(shared), tenant, open: None, sent: Vec::new(), pins: shared.keep.pins() };
        survivors.sort_by_key(|survivor| (survivor.place.block, survivor.place.section, survivor.place.offset));
        let mut failed = Ok(());
        for run in survivors.chunk_by(|a, b| (a.place.block, a.place.section) == (b.place.block, b.place.section)) {
            match move_out(shared, run, &mut writer).await {
                Ok(bytes) => moved.bytes += bytes,
                Err(error) => failed = Err(error),
            }
            if failed.is_err() {
                break;
            }
        }
        // What was written and given back becomes part of the log, whatever failed.
        let written = writer.finish().await;
        failed?;
        for (entry, shown) in &written? {
            moved.new_blocks += 1;
            scrub::note(shared, &entry.facts, &at_home(&entry.facts, shown), true);
            read_back(shared, entry).await?;
        }
    }
    Ok(moved)
}

/// What was shown from where the map says that it lies by now. What stands elsewhere as well is no proof of that.
fn at_home(facts: &BlockFacts, shown: &Shown) -> Vec<(u8, ProviderId, Seen)> {
    let is_home =
        |shard: u8, provider: &ProviderId| facts.placements.iter().any(|place| place.shard == shard && place.provider == provider.as_str());
    let known = shown.iter().filter(|(shard, provider)| is_home(**shard, provider));
    known.map(|(shard, provider)| (*shard, provider.clone(), Seen::Good)).collect()
}

/// Chunks of one section of one block. Gives their stored bytes.
async fn move_out(shared: &Arc<Shared>, run: &[Survivor], writer: &mut Writer) -> Result<u64, Error> {
    let Some(first) = run.first() else { return Ok(0) };
    let block = shared.ledger.snapshot().and_then(|view| view.block(first.place.block)).map_err(local)?;
    let block = Arc::new(block.ok_or_else(|| Error::new(ErrorKind::Internal, "a block vanished while it was being emptied"))?);
    let mut bytes = 0;
    // A few at a time: what is read stays in memory until it is in a block.
    for some in run.chunks(AT_ONCE) {
        let places: Vec<_> = some.iter().map(|survivor| (survivor.id, survivor.place.clone())).collect();
        for (survivor, stored) in some.iter().zip(read::stored(shared, &block, first.place.section, &places).await?) {
            bytes += stored.len() as u64;
            writer.put(survivor, &stored).await?;
        }
    }
    Ok(bytes)
}

/// New blocks of one tenant.
struct Writer {
    shared: Arc<Shared>,
    tenant: TenantId,
    open: Option<Packer>,
    sent: Vec<BulkHandle>,
    pins: Pins,
}

impl Writer {
    async fn put(&mut self, survivor: &Survivor, stored: &Bytes) -> Result<(), Error> {
        let place = &survivor.place;
        for _ in 0..2 {
            if let Some(packer) = &mut self.open
                && packer.put(survivor.bucket, survivor.id, place.encoding, place.plain_len, stored)?
            {
                return Ok(());
            }
            self.send()?;
            let packer = Packer::open(&self.shared, self.tenant).await?;
            self.pins.own(packer.block());
            self.open = Some(packer);
        }
        Err(Error::new(ErrorKind::NotAccepted, "there is no memory for another block now"))
    }

    fn send(&mut self) -> Result<(), Error> {
        let Some(packer) = self.open.take().filter(|packer| !packer.is_empty()) else { return Ok(()) };
        let handle = cpu(|| packer.seal(&self.shared))?;
        self.sent.push(handle);
        Ok(())
    }

    /// Waits until the blocks are in the log, with all their shards: those of which enough was given back, even if others failed.
    async fn finish(mut self) -> Result<Vec<(BlockEntry, Shown)>, Error> {
        self.send()?;
        let (mut added, mut shown, mut failed): (Vec<BulkAdded>, Vec<Shown>, _) = (Vec::new(), Vec::new(), Ok(()));
        for handle in &mut self.sent {
            match proven(&self.shared, handle).await {
                Ok((block, by)) => {
                    added.push(block);
                    shown.push(by);
                }
                Err(error) => failed = Err(error),
            }
        }
        if added.is_empty() {
            return failed.map(|()| Vec::new());
        }
        let shared = self.shared;
        let caller = Caller { tenant: self.tenant, principal: PrincipalId::NIL };
        let bulk: Vec<BlockId> = added.iter().map(|added| added.block).collect();
        let records = added.into_iter().map(|added| bulk_record(&caller, added)).collect();
        let request = CommitRequest { records, chunks: Vec::new(), class: Class::Quorum, bulk: bulk.clone(), hold: Box::new(self.pins) };
        let committed = shared.committer.submit(request, Instant::now() + RECORD_DEADLINE).await?;
        failed?;
        let settled = tokio::time::timeout(SETTLES_WITHIN, settled(&shared, committed.seq, &bulk)).await;
        let late = |_| Error::new(ErrorKind::TooFewDomains, "the blocks that chunks moved to did not get all their shards in time");
        Ok(settled.map_err(late)??.into_iter().zip(shown).collect())
    }
}

/// Shards that were given back whole, and by whom.
type Shown = BTreeMap<u8, ProviderId>;

/// A new block of which k + 1 shards were not only acknowledged: from its record on its chunks are read from it alone, and whoever
/// acknowledges what it drops must not be among those that it hangs on. One that is not proven is taken back.
async fn proven(shared: &Shared, handle: &mut BulkHandle) -> Result<(BulkAdded, Shown), Error> {
    let (block, place) = handle.place().ok_or_else(|| Error::new(ErrorKind::Internal, "the block was taken already"))?;
    let outcome = given_back(shared, handle, place).await;
    if outcome.is_err() {
        take_back(shared, block, place).await;
    }
    outcome
}

/// Deletes a block that no record names, nor ever will: it would lie there until the next start, and the next collection makes another.
async fn take_back(shared: &Shared, block: BlockId, place: Place) {
    let ended = async {
        while shared.settlement.is_worked_on(block) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let in_time = tokio::time::timeout(RECORD_DEADLINE, ended).await;
    tracing::debug!(in_time = in_time.is_ok(), "a block that was not given back is taken back");
    shared.settlement.forget(&[block]);
    let deletes = shared.fleet.providers().iter().map(async |spec| {
        let name = shared.names.shard(&place.at(spec.id.as_str()));
        shared.fleet.delete(&spec.id, name.as_str(), Deadline::control()).await
    });
    let kept = join_all(deletes).await.into_iter().filter(Result::is_err).count();
    if kept > 0 {
        tracing::debug!(kept, "providers did not answer; what they have goes after the next start");
    }
}

async fn given_back(shared: &Shared, handle: &mut BulkHandle, place: Place) -> Result<(BulkAdded, Shown), Error> {
    let added = handle.quorum().await?;
    let enough = added.geometry.k().saturating_add(1);
    for pause in [Duration::ZERO, ON_THEIR_WAY] {
        tokio::time::sleep(pause).await;
        let seen = survey(shared, place, Depth::Whole, Some(enough)).await.seen;
        let ours = seen.into_iter().filter(|seen| seen.header.manifest().hash() == added.manifest_hash);
        let shown: Shown = ours.map(|seen| (seen.header.index(), seen.provider)).collect();
        if shown.len() >= usize::from(enough) {
            return Ok((added, shown));
        }
    }
    Err(Error::new(ErrorKind::TooFewDomains, format!("fewer than {enough} shards of a new block could be read back")))
}

/// Waits until blocks have all their shards, also by the ledger's account, which says where they are.
async fn settled(shared: &Shared, seq: Seq, blocks: &[BlockId]) -> Result<Vec<BlockEntry>, Error> {
    shared.settlement.wait(seq).await;
    loop {
        let view = shared.ledger.snapshot().map_err(local)?;
        let entries = blocks.iter().map(|block| view.block(*block)).collect::<Result<Option<Vec<BlockEntry>>, _>>().map_err(local)?;
        if let Some(entries) = entries.filter(|entries| entries.iter().all(|entry| entry.settled)) {
            return Ok(entries);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Every shard of a settled block, whole, from where the map says that it lies, but for those at accounts that are being left or gone, and
/// those of which that is known already. What is seen is noted, and what is missing repaired.
pub(super) async fn read_back(shared: &Shared, entry: &BlockEntry) -> Result<(), Error> {
    let facts = &entry.facts;
    let known = shared.ledger.snapshot().and_then(|view| view.check_of(facts.id)).map_err(local)?;
    let known = scrub::seen_whole(known.as_ref());
    let stays = |provider: &str| !shared.modes.is_left(provider);
    let asked: BTreeSet<u8> = facts.placements.iter().filter(|place| stays(&place.provider)).map(|place| place.shard).collect();
    let asked: BTreeSet<u8> = asked.difference(&known).copied().collect();
    let seen = scrub::examine_some(shared, entry.clone(), Depth::Whole, |shard| asked.contains(&shard)).await.shards;
    let whole = seen.iter().filter(|(.., seen)| *seen == Seen::Good).count();
    scrub::observed(shared, entry, &seen, true);
    if whole < asked.len() {
        let text = format!("{} of {} shards of a new block could not be read back", asked.len() - whole, facts.geometry.n());
        return Err(Error::new(ErrorKind::DataUnavailable, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
