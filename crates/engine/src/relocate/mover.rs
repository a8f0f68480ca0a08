//! One shard from one provider to another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use diaspore_block::decode::reconstruct;
use diaspore_block::record::{Move, ShardsMoved};
use diaspore_block::shard::{ShardHeader, VerifiedCells};
use diaspore_ledger::{BlockEntry, BlockFacts};
use diaspore_policy::ProviderId;
use diaspore_provider::Deadline;
use tokio::time::Instant;

use crate::api::Error;
use crate::coded::address_of;
use crate::commit::{CommitRequest, NewRecord};
use crate::namespace::local;
use crate::scatter::{Plan, seats};
use crate::settle::Claim;
use crate::shards::{Depth, Look, Sighting, look_known};
use crate::shared::Shared;
use crate::world::cpu;

/// Longest wait for a record.
const RECORD_DEADLINE: Duration = Duration::from_mins(2);

/// Why a shard stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// The block is not whole, or somebody works on it: later.
    Busy,
    /// No domain that takes shards is without one of this block.
    NoPlace,
    /// Too few verified shards, or the new place did not take it.
    Failed,
}

/// A shard that lies at its new place, and what was there.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) facts: BlockFacts,
    pub(super) shard: u8,
    pub(super) from: ProviderId,
    pub(super) to: ProviderId,
    pub(super) bytes: u64,
    /// Keeps repair away until the log says where the shard lies.
    _claim: Claim,
}

/// What the new place shows before the shard is put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    /// The shard itself: an earlier run got so far.
    Itself,
    /// Another shard of the block that its own home shows as well, left by a hedge or by a repair while this account was away.
    Surplus,
}

/// The shard of a block that the map places at a provider.
pub(super) fn shard_at(facts: &BlockFacts, provider: &ProviderId) -> Option<u8> {
    facts.placements.iter().find(|place| place.provider == provider.as_str()).map(|place| place.shard)
}

/// Puts the shard that lies at `from` onto a domain without any of its block, `to` if given, and reads it back there. The map does not
/// know yet.
pub(super) async fn place(
    shared: &Arc<Shared>,
    entry: &BlockEntry,
    from: &ProviderId,
    to: Option<&ProviderId>,
    dead: bool,
) -> Result<Placed, Stay> {
    let facts = &entry.facts;
    let claim = shared.settlement.claim(facts.id).filter(|_| entry.settled).ok_or(Stay::Busy)?;
    is_kept(shared, facts)?;
    let shard = shard_at(facts, from).ok_or(Stay::Busy)?;
    let others: Vec<(u8, ProviderId)> = facts
        .placements
        .iter()
        .filter(|place| place.shard != shard)
        .filter_map(|place| Some((place.shard, ProviderId::new(&place.provider).ok()?)))
        .collect();
    let (to, there) = target(shared, facts, shard, from, &others, to).await.ok_or(Stay::NoPlace)?;
    if there == There::Itself {
        return done(shared, facts, (shard, from), to, claim).await;
    }
    let (header, body) = match whole(shared, facts, shard, from, dead).await {
        Some((header, cells)) => (header, cells.bytes().clone()),
        None => rebuilt(shared, facts, shard, &others).await.ok_or(Stay::Failed)?,
    };
    let name = shared.names.shard(&address_of(facts, to.as_str()));
    // Whatever the bytes are made of: they are held against the signed root of the shard here.
    let object = cpu(|| header.object_for(shard, body, to.as_str(), &name, &shared.keys.header, &mut shared.rng()));
    let object = object.map_err(|_| Stay::Failed)?.to_vec();
    let bytes = object.iter().map(|piece| piece.len() as u64).sum();
    is_kept(shared, facts)?;
    let put = match there {
        There::Surplus => shared.fleet.replace(&to, name.as_str(), object, Deadline::transfer(bytes)).await,
        There::Nothing | There::Itself => shared.fleet.put(&to, name.as_str(), object, Deadline::transfer(bytes)).await,
    };
    put.map_err(|_| Stay::Failed)?;
    done(shared, facts, (shard, from), to, claim).await
}

/// A block may be condemned while it is read. From then on nothing of it is put: who deletes its shards waits for the claims that were there
/// before, and for no later one.
fn is_kept(shared: &Shared, facts: &BlockFacts) -> Result<(), Stay> {
    let kept = shared.ledger.snapshot().and_then(|view| view.keeps(facts.id)).unwrap_or(false);
    if kept { Ok(()) } else { Err(Stay::Busy) }
}

/// Reads the new shard back, whole.
async fn done(shared: &Shared, facts: &BlockFacts, (shard, from): (u8, &ProviderId), to: ProviderId, claim: Claim) -> Result<Placed, Stay> {
    match whole(shared, facts, shard, &to, false).await {
        Some((header, _)) => {
            let bytes = header.object_len().unwrap_or_default() as u64;
            Ok(Placed { facts: facts.clone(), shard, from: from.clone(), to, bytes, _claim: claim })
        }
        None => Err(Stay::Failed),
    }
}

/// A healthy domain that takes shards and shows none of this block, or this very shard; else one whose shard of it is one too many.
async fn target(
    shared: &Shared,
    facts: &BlockFacts,
    shard: u8,
    from: &ProviderId,
    others: &[(u8, ProviderId)],
    wanted: Option<&ProviderId>,
) -> Option<(ProviderId, There)> {
    let mut tried: BTreeSet<ProviderId> = BTreeSet::from([from.clone()]);
    let mut surplus = None;
    loop {
        let mut plan = Plan::resume(seats(shared, facts), facts.geometry.n(), facts.id, others);
        let Some(to) = plan.any(shard, |provider| !tried.contains(provider) && wanted.is_none_or(|wanted| provider == wanted)) else {
            return surplus.map(|to| (to, There::Surplus));
        };
        match shown(shared, facts, &to).await {
            Ok(None) => return Some((to, There::Nothing)),
            Ok(Some(index)) if index == shard => return Some((to, There::Itself)),
            Ok(Some(index)) if surplus.is_none() => {
                // Overwritten only if the place that the map knows for it shows it now.
                let home = others.iter().find(|(other, home)| *other == index && *home != to);
                if let Some((_, home)) = home
                    && shown(shared, facts, home).await == Ok(Some(index))
                {
                    surplus = Some(to.clone());
                }
            }
            // Something wrong, or no answer.
            Ok(Some(_)) | Err(()) => (),
        }
        tried.insert(to);
    }
}

/// Which shard of the block a provider shows.
async fn shown(shared: &Shared, facts: &BlockFacts, provider: &ProviderId) -> Result<Option<u8>, ()> {
    match look_known(shared, facts, provider, Depth::Header).await {
        Look::Absent => Ok(None),
        Look::Seen(seen) if seen.header.manifest().hash() == facts.manifest_hash => Ok(Some(seen.header.index())),
        Look::Seen(_) | Look::Wrong | Look::Silent => Err(()),
    }
}

/// One shard with every cell checked; none from a provider that is not asked.
async fn whole(shared: &Shared, facts: &BlockFacts, shard: u8, provider: &ProviderId, dead: bool) -> Option<(ShardHeader, VerifiedCells)> {
    if dead {
        return None;
    }
    match look_known(shared, facts, provider, Depth::Whole).await {
        Look::Seen(seen) if seen.header.manifest().hash() == facts.manifest_hash && seen.header.index() == shard => {
            let Sighting { header, cells, .. } = *seen;
            cells.map(|cells| (header, cells))
        }
        _ => None,
    }
}

/// The shard from k others.
async fn rebuilt(shared: &Shared, facts: &BlockFacts, shard: u8, others: &[(u8, ProviderId)]) -> Option<(ShardHeader, bytes::Bytes)> {
    let k = usize::from(facts.geometry.k());
    let (mut header, mut cells) = (None, Vec::with_capacity(k));
    for (other, provider) in others {
        if cells.len() == k {
            break;
        }
        if let Some((seen, found)) = whole(shared, facts, *other, provider, false).await {
            header = Some(seen);
            cells.push(found);
        }
    }
    let header = header.filter(|_| cells.len() == k)?;
    let body = cpu(|| reconstruct(header.manifest(), &cells, shard, 0..facts.shard_len)).ok()?;
    Some((header, body))
}

/// Says in the log where the shards lie now; when that is released, deletes them where they were. Gives how many could not be deleted.
pub(super) async fn record(shared: &Arc<Shared>, placed: Vec<Placed>, keep_old: &BTreeSet<ProviderId>) -> Result<u64, Error> {
    if placed.is_empty() {
        return Ok(0);
    }
    let moves = placed.iter().map(|one| Move { block: one.facts.id, shard: one.shard, provider: one.to.to_string() }).collect();
    let request = CommitRequest::single(NewRecord::system(ShardsMoved { moves }), ());
    shared.committer.submit(request, Instant::now() + RECORD_DEADLINE).await?;
    let old = placed.iter().filter(|one| !keep_old.contains(&one.from));
    let gone = futures::future::join_all(old.map(async |one| {
        let name = shared.names.shard(&address_of(&one.facts, one.from.as_str()));
        shared.fleet.delete(&one.from, name.as_str(), Deadline::control()).await.is_ok()
    }))
    .await;
    Ok(gone.iter().filter(|gone| !**gone).count() as u64)
}

/// Shards per provider, of blocks that are kept.
pub(super) fn census(shared: &Shared) -> Result<BTreeMap<ProviderId, u64>, Error> {
    let mut counts: BTreeMap<ProviderId, u64> = BTreeMap::new();
    each_block(shared, |entry| {
        for place in &entry.facts.placements {
            if let Ok(provider) = ProviderId::new(&place.provider) {
                *counts.entry(provider).or_default() += 1;
            }
        }
    })?;
    Ok(counts)
}

/// Shows every block that is not condemned.
pub(super) fn each_block(shared: &Shared, mut visit: impl FnMut(BlockEntry)) -> Result<(), Error> {
    let view = shared.ledger.snapshot().map_err(local)?;
    let mut after = None;
    loop {
        let batch = view.blocks(after, 1000).map_err(local)?;
        let Some(last) = batch.last() else { return Ok(()) };
        after = Some(last.facts.id);
        for entry in batch {
            if view.condemned(entry.facts.id).map_err(local)?.is_none() {
                visit(entry);
            }
        }
    }
}
