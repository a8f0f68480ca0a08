//! What lies at the providers and is no part of the log: leftovers of writes that came to nothing, PUTs that landed after the DELETE, and
//! what others put there.
//!
//! The names of a dead incarnation's blocks can be made again, counter by counter, and held against the listing. An object that is found
//! under one of them, whose header opens for exactly that place, is ours and dead. Everything else is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use diaspore_block::id::{Attempt, BlockId, Counter, Epoch, IncarnationId, Timestamp};
use diaspore_block::manifest::BlockKind;
use diaspore_block::name::ObjectName;
use diaspore_ledger::{ChainEntry, IncarnationNote, Snapshot};
use diaspore_policy::ProviderId;
use diaspore_provider::Deadline;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::allowance::Allowance;
use super::inventory::{self, Extent, Index, Listed};
use super::sweep::targets;
use crate::api::Error;
use crate::namespace::local;
use crate::shards::{Depth, Look, Place, look};
use crate::shared::Shared;
use crate::world::cpu;

/// Unexpected names looked into per provider and sweep. So many are only found folder by folder, and the next sweep begins in another one.
const MOST: usize = 100_000;
/// Counters tried between two points where others may run.
const STRIDE: u64 = 4096;
const PAGE: usize = 1000;
/// Dead incarnations whose places one sweep in the background makes again, half of them the newest and the others by lot: a service that
/// starts every day for years has thousands, and each costs two keyed hashes per place within reach and provider.
const PER_SWEEP: usize = 16;
/// The same when an operator waits.
const PER_SWEEP_NOW: usize = 256;

/// What was found at one provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Found {
    /// Whether it listed what it has.
    pub listed: bool,
    /// Whether that was all: else there is too much to count what lies outside our own folders.
    pub whole: bool,
    /// Objects of blocks that are part of the log.
    pub known: u64,
    /// Claims, heads and keyring copies.
    pub control: u64,
    /// Objects of writes that are under way, or that this incarnation left: its successor will know.
    pub pending: u64,
    /// Objects of this deployment that are part of nothing.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Orphans that were deleted; the others go when whoever wrote them was superseded a grace time ago.
    pub deleted: u64,
    /// Objects that are not this deployment's, or cannot be told to be. They are never touched.
    pub foreign: u64,
    /// Their bytes.
    pub foreign_bytes: u64,
}

/// Looks through every provider and deletes what is certainly dead and has been for `grace`.
pub(super) async fn sweep(shared: &Arc<Shared>, grace: Duration, allowance: &Allowance) -> Result<BTreeMap<String, Found>, Error> {
    let mut all = BTreeMap::new();
    let past = Past::of(shared)?.some(if grace.is_zero() { PER_SWEEP_NOW } else { PER_SWEEP }, &mut shared.rng());
    for provider in targets(shared)? {
        let (found, _) = Box::pin(at(shared, &provider, &past, (grace, allowance), |_| ())).await?;
        all.insert(provider.to_string(), found);
    }
    Ok(all)
}

/// What one provider lists, for whoever leaves it.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) control: u64,
    pub(crate) pending: u64,
    pub(crate) orphans: u64,
    pub(crate) foreign: u64,
    /// Blocks of the map with an object there. However many names a provider lists, they are not more than the map has.
    pub(crate) blocks: BTreeSet<BlockId>,
    /// Whether all that is ours was listed: else there is more of it than the numbers say.
    pub(crate) complete: bool,
}

/// Lists one provider, without a grace time for orphans.
pub(super) async fn listing(shared: &Arc<Shared>, provider: &ProviderId) -> Result<Option<Listing>, Error> {
    let mut blocks = BTreeSet::new();
    let allowance = Allowance::free();
    let known = |block| {
        blocks.insert(block);
    };
    let (found, complete) = Box::pin(at(shared, provider, &Past::of(shared)?, (Duration::ZERO, &allowance), known)).await?;
    let Found { listed, control, pending, orphans, deleted, foreign, .. } = found;
    Ok(listed.then_some(Listing { control, pending, orphans: orphans - deleted, foreign, blocks, complete }))
}

/// Looks through one provider. The flag says whether all that is ours was listed.
async fn at(
    shared: &Arc<Shared>,
    provider: &ProviderId,
    past: &Past,
    (grace, allowance): (Duration, &Allowance),
    mut known: impl FnMut(BlockId),
) -> Result<(Found, bool), Error> {
    let mut found = Found::default();
    let mut unexpected: BTreeMap<u64, (ObjectName, u64)> = BTreeMap::new();
    let mut more = 0;
    let index = Index::of(shared, &shared.ledger.snapshot().map_err(local)?, provider).await?;
    let extent = inventory::list(shared, provider, &index, allowance, |_, size, what| match what {
        Listed::Control => found.control += 1,
        Listed::Foreign => {
            found.foreign += 1;
            found.foreign_bytes += size;
        }
        Listed::Block(block) => {
            found.known += 1;
            known(block);
        }
        // A provider may list names without end.
        Listed::Unexpected(name) if unexpected.len() < MOST => drop(unexpected.insert(inventory::short(&name), (name, size))),
        Listed::Unexpected(_) => more += 1,
    })
    .await;
    let Ok(extent) = extent else { return Ok((found, false)) };
    (found.listed, found.whole) = (true, extent == Extent::Everything && more == 0);
    let complete = extent != Extent::Part && more == 0;
    drop(index);
    let view = shared.ledger.snapshot().map_err(local)?;
    if !unexpected.is_empty() {
        // Whatever the listing showed that is part of the log by now is in the newer state.
        let newer = Index::of(shared, &view, provider).await?;
        unexpected.retain(|_, (name, _)| match newer.block(name) {
            Some(block) => {
                found.known += 1;
                known(block);
                false
            }
            None => true,
        });
        let places = identify(shared, &view, provider, past, &mut unexpected).await?;
        for (place, name, size) in places {
            let Some(since) = past.dead.get(&place.incarnation) else {
                found.pending += 1;
                continue;
            };
            allowance.take(2).await;
            if !is_ours(shared, provider, place).await {
                unexpected.insert(inventory::short(&name), (name, size));
                continue;
            }
            found.orphans += 1;
            found.orphan_bytes += size;
            let old = u128::from(shared.clock.now().0.saturating_sub(since.0)) >= grace.as_millis();
            if old && shared.fleet.delete(provider, name.as_str(), Deadline::control()).await.is_ok() {
                found.deleted += 1;
            }
        }
    }
    found.foreign += unexpected.len() as u64;
    found.foreign_bytes += unexpected.values().map(|(_, size)| size).sum::<u64>();
    Ok((found, complete))
}

/// The incarnations that this deployment ever had.
struct Past {
    /// Newest first, as far as that is known.
    all: Vec<IncarnationId>,
    /// Those that can bring nothing into the log any more: all below ours, once everything up to our decision is settled. Before that, what
    /// they left may still be needed to read what was carried over. And since when: the first start of a later one that this disk knows of.
    dead: BTreeMap<IncarnationId, Timestamp>,
    /// How many counters beyond the last that is known of an incarnation are tried.
    reach: u64,
}

impl Past {
    fn of(shared: &Shared) -> Result<Self, Error> {
        let view = shared.ledger.snapshot().map_err(local)?;
        let chain = view.chain().map_err(local)?;
        let own = (shared.writer.epoch, shared.writer.incarnation);
        let decided = chain.iter().rev().find(|entry| entry.incarnation == own.1).map(|entry| entry.seq);
        let is_settled = decided.is_some_and(|decision| shared.settlement.settled_through() >= decision);
        let claimed = shared.fence.book().ranks().into_iter().filter(|rank| *rank <= own);
        let notes = view.incarnations().map_err(local)?;
        let noted = notes.iter().map(|note| (note.epoch, note.incarnation));
        let before = |entry: ChainEntry| [Some((Epoch(0), entry.incarnation)), entry.predecessor.map(|(before, epoch)| (epoch, before))];
        let ruled = chain.into_iter().flat_map(before).flatten();
        let mut epochs: BTreeMap<IncarnationId, Epoch> = BTreeMap::new();
        for (epoch, incarnation) in claimed.chain(noted).chain(ruled).chain([own]) {
            let known = epochs.entry(incarnation).or_insert(epoch);
            *known = epoch.max(*known);
        }
        let now = shared.clock.now();
        let dead = epochs.iter().filter(|(incarnation, _)| is_settled && **incarnation != own.1);
        let dead = dead.map(|(incarnation, epoch)| (*incarnation, superseded(&notes, (*epoch, *incarnation), now))).collect();
        let mut all: Vec<IncarnationId> = epochs.keys().copied().collect();
        all.sort_by_key(|incarnation| std::cmp::Reverse(epochs.get(incarnation).copied()));
        Ok(Self { all, dead, reach: shared.config.orphan_reach })
    }

    /// At most `most` of them: half the newest, half by lot.
    fn some(mut self, most: usize, rng: &mut impl Rng) -> Self {
        if self.all.len() > most {
            let (newest, older) = self.all.split_at(most / 2);
            self.all = newest.iter().chain(older.sample(rng, most - newest.len())).copied().collect();
        }
        self
    }
}

/// When an incarnation was superseded, as far as this disk knows: `now` at the latest. A start under a wrong clock tells nothing.
fn superseded(notes: &[IncarnationNote], (epoch, incarnation): (Epoch, IncarnationId), now: Timestamp) -> Timestamp {
    let began = notes.iter().find(|note| note.incarnation == incarnation).map_or(Timestamp(0), |note| note.started);
    let later = notes.iter().filter(|note| note.epoch > epoch).map(|note| note.started);
    later.filter(|started| (began..=now).contains(started)).min().unwrap_or(now)
}

/// Finds the places that the unexpected names stand for, and takes those names out.
async fn identify(
    shared: &Shared,
    view: &Snapshot,
    provider: &ProviderId,
    past: &Past,
    unexpected: &mut BTreeMap<u64, (ObjectName, u64)>,
) -> Result<Vec<(Place, ObjectName, u64)>, Error> {
    let mut last: BTreeMap<(IncarnationId, u8), u64> = BTreeMap::new();
    let mut after = None;
    loop {
        let batch = view.blocks(after, PAGE).map_err(local)?;
        let Some(newest) = batch.last() else { break };
        after = Some(newest.facts.id);
        for entry in &batch {
            let highest = last.entry((entry.facts.incarnation, entry.facts.kind.name_class())).or_default();
            *highest = (*highest).max(entry.facts.counter.0);
        }
    }
    let mut places = Vec::new();
    for incarnation in &past.all {
        for kind in [BlockKind::Bulk, BlockKind::Commit] {
            let mut end = last.get(&(*incarnation, kind.name_class())).map_or(0, |highest| highest + 1).saturating_add(past.reach);
            let mut from = 0;
            while from < end && !unexpected.is_empty() {
                let to = end.min(from + STRIDE);
                cpu(|| {
                    for counter in from..to {
                        let place = Place { kind, incarnation: *incarnation, counter: Counter(counter), attempt: Attempt(0) };
                        let address = place.at(provider.as_str());
                        let short = shared.names.shard_short(&address);
                        let met = unexpected.get(&short).is_some_and(|(listed, _)| *listed == shared.names.shard(&address));
                        if met && let Some((name, size)) = unexpected.remove(&short) {
                            places.push((place, name, size));
                            end = end.max(counter.saturating_add(past.reach));
                        }
                    }
                });
                from = to;
                tokio::task::yield_now().await;
            }
        }
    }
    Ok(places)
}

/// Whether the object is a shard of this deployment for exactly this place.
async fn is_ours(shared: &Shared, provider: &ProviderId, place: Place) -> bool {
    matches!(look(shared, place, provider, Depth::Header).await, Look::Seen(_))
}

#[cfg(test)]
mod tests;
