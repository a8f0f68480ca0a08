//! Giving every provider its share, above all one that was added: shards move from whoever has most beyond its share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use diaspore_block::id::BlockId;
use diaspore_policy::ProviderId;
use futures::stream::{self, StreamExt};

use super::mover::{self, Placed, census, each_block};
use crate::api::Error;
use crate::collect::Cost;
use crate::namespace::local;
use crate::shared::Shared;

/// Shards moved at once, and named by one record.
const AT_ONCE: usize = 3;
const PER_RECORD: usize = 32;

/// What spreading came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rebalanced {
    /// Shards per provider before.
    pub before: BTreeMap<String, u64>,
    /// Shards to be moved.
    pub planned: u64,
    /// What moving them costs, by list prices.
    pub cost: Cost,
    /// Shards moved.
    pub moved: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Shards that stay: their new place did not take them.
    pub failed: u64,
}

/// A shard on its way to whoever lacks most.
struct Transfer {
    block: BlockId,
    from: ProviderId,
    to: ProviderId,
    bytes: u64,
}

/// Spreads the shards.
pub(crate) async fn rebalance(shared: &Arc<Shared>, dry_run: bool) -> Result<Rebalanced, Error> {
    let counts = census(shared)?;
    let transfers = plan(shared, &counts)?;
    let mut report = Rebalanced {
        before: counts.iter().map(|(provider, count)| (provider.to_string(), *count)).collect(),
        planned: transfers.len() as u64,
        ..Rebalanced::default()
    };
    for transfer in &transfers {
        report.cost.add(&price(shared, transfer));
    }
    if dry_run {
        return Ok(report);
    }
    let mut moves = stream::iter(transfers)
        .map(async |transfer| {
            let entry = shared.ledger.snapshot().and_then(|view| view.block(transfer.block)).map_err(local)?;
            let Some(entry) = entry else { return Ok(None) };
            Ok::<_, Error>(Box::pin(mover::place(shared, &entry, &transfer.from, Some(&transfer.to), false)).await.ok())
        })
        .buffered(AT_ONCE);
    let mut placed: Vec<Placed> = Vec::new();
    while let Some(outcome) = moves.next().await {
        match outcome? {
            Some(one) => {
                report.moved += 1;
                report.bytes += one.bytes;
                placed.push(one);
            }
            None => report.failed += 1,
        }
        if placed.len() >= PER_RECORD {
            mover::record(shared, std::mem::take(&mut placed), &BTreeSet::new()).await?;
        }
    }
    drop(moves);
    mover::record(shared, placed, &BTreeSet::new()).await?;
    Ok(report)
}

fn price(shared: &Shared, transfer: &Transfer) -> Cost {
    let of = |id: &ProviderId| shared.fleet.provider(id).map(|spec| spec.price.clone()).unwrap_or_default();
    let mut cost = Cost { reads: 1, deletes: 1, bytes_read: transfer.bytes, ..Cost::default() }.priced(&of(&transfer.from));
    // It is read back at its new place.
    cost.add(
        &Cost { writes: 1, reads: 2, bytes_read: transfer.bytes, bytes_written: transfer.bytes, ..Cost::default() }
            .priced(&of(&transfer.to)),
    );
    cost
}

/// Which shards go where: from the fullest beyond its share to the emptiest below it, as the weights say.
fn plan(shared: &Shared, counts: &BTreeMap<ProviderId, u64>) -> Result<Vec<Transfer>, Error> {
    let usable = |id: &ProviderId| shared.modes.takes_shards(id);
    let weights: BTreeMap<ProviderId, u64> = shared
        .fleet
        .providers()
        .iter()
        .filter(|spec| usable(&spec.id) && shared.config.profile.admits(spec))
        .map(|spec| (spec.id.clone(), u64::from(spec.weight)))
        .collect();
    let total: u64 = counts.iter().filter(|(id, _)| weights.contains_key(*id)).map(|(_, count)| *count).sum();
    let all: u64 = weights.values().sum::<u64>().max(1);
    let share = |weight: u64| u64::try_from(u128::from(total) * u128::from(weight) / u128::from(all)).unwrap_or(u64::MAX);
    let have = |id: &ProviderId| counts.get(id).copied().unwrap_or(0);
    let mut surplus: BTreeMap<ProviderId, u64> =
        weights.iter().map(|(id, weight)| (id.clone(), have(id).saturating_sub(share(*weight)))).collect();
    let mut lacking: BTreeMap<ProviderId, u64> =
        weights.iter().map(|(id, weight)| (id.clone(), share(*weight).saturating_sub(have(id)))).collect();
    let domain = |id: &ProviderId| shared.fleet.provider(id).map(|spec| spec.domain.clone());
    let mut transfers = Vec::new();
    each_block(shared, |entry| {
        if !entry.settled || !shared.settlement.is_calm(entry.facts.id) {
            return;
        }
        let homes: Vec<ProviderId> = entry.facts.placements.iter().filter_map(|place| ProviderId::new(&place.provider).ok()).collect();
        let taken: BTreeSet<_> = homes.iter().filter_map(domain).collect();
        let to = lacking.iter().filter(|(id, lack)| **lack > 0 && domain(id).is_some_and(|domain| !taken.contains(&domain)));
        let Some(to) = to.max_by_key(|(_, lack)| **lack).map(|(id, _)| id.clone()) else { return };
        let from = homes.into_iter().filter(|id| surplus.get(id).is_some_and(|surplus| *surplus > 0));
        let Some(from) = from.max_by_key(|id| surplus.get(id).copied()) else { return };
        for (counts, id) in [(&mut lacking, &to), (&mut surplus, &from)] {
            if let Some(count) = counts.get_mut(id) {
                *count -= 1;
            }
        }
        transfers.push(Transfer { block: entry.facts.id, from, to, bytes: u64::from(entry.facts.shard_len) });
    })?;
    Ok(transfers)
}

#[cfg(test)]
mod tests;
