//! Making one block whole: find shards that landed unnoticed, rebuild the missing ones from k verified ones, check each
//! against the signed root, and put it on a domain that holds none.

use std::collections::BTreeSet;
use std::sync::Arc;

use diaspore_block::decode::reconstruct;
use diaspore_block::shard::{ShardHeader, VerifiedCells};
use diaspore_policy::ProviderId;
use diaspore_provider::Deadline;

use super::Open;
use crate::coded::address_of;
use crate::scatter::{Plan, seats};
use crate::shards::{Depth, Look, Place, look};
use crate::shared::Shared;
use crate::world::cpu;

/// One try. The error is for the log; what was achieved is in the settlement register already.
pub(crate) async fn heal(shared: &Arc<Shared>, open: &Open) -> Result<(), String> {
    let facts = &open.facts;
    let place = Place { kind: facts.kind, incarnation: facts.incarnation, counter: facts.counter, attempt: facts.attempt };
    let mut missing: BTreeSet<u8> = (0..facts.geometry.n()).filter(|shard| !open.stored.contains_key(shard)).collect();
    let mut homes: Vec<(u8, ProviderId)> = open.stored.iter().map(|(shard, home)| (*shard, home.clone())).collect();
    let mut unanswered: Vec<(u8, ProviderId)> = Vec::new();
    // A PUT whose answer was lost may have landed, wherever it was tried: the header says which shard it was.
    for spec in shared.fleet.providers() {
        if homes.iter().any(|(_, home)| *home == spec.id) {
            continue;
        }
        match look(shared, place, &spec.id, Depth::Header).await {
            Look::Seen(seen) if seen.header.manifest().hash() == facts.manifest_hash => {
                let shard = seen.header.index();
                homes.push((shard, spec.id.clone()));
                if missing.remove(&shard) {
                    shared.settlement.stored(facts.id, shard, &spec.id);
                }
            }
            Look::Seen(_) | Look::Absent | Look::Wrong => (),
            Look::Silent => {
                // Whatever it was tried for, it is bound to; see scatter::plan.
                let tried = open.tried.iter().find(|(_, home)| *home == spec.id);
                unanswered.extend(tried.cloned());
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let bound: Vec<(u8, ProviderId)> = homes.iter().chain(&unanswered).cloned().collect();
    let mut plan = Plan::resume(seats(shared, facts), facts.geometry.n(), facts.id, &bound);
    let mut targets = Vec::new();
    for shard in missing {
        let target = plan.spare(shard);
        targets.extend(target.map(|provider| (shard, provider)));
    }
    if targets.is_empty() {
        return Err("no home of a missing shard answers".to_owned());
    }
    let (header, cells) = read_enough(shared, place, &homes, facts).await?;
    for (shard, provider) in targets {
        put_rebuilt(shared, &header, &cells, shard, &provider, facts).await?;
    }
    let left = usize::from(facts.geometry.n()).saturating_sub(homes.len());
    tracing::debug!(left, "repaired a block");
    Ok(())
}

/// Any k verified shards and the signed header that goes with them.
async fn read_enough(
    shared: &Shared,
    place: Place,
    homes: &[(u8, ProviderId)],
    facts: &diaspore_ledger::BlockFacts,
) -> Result<(ShardHeader, Vec<VerifiedCells>), String> {
    let mut header = None;
    let mut cells: Vec<VerifiedCells> = Vec::new();
    for (_, provider) in homes {
        if cells.len() >= usize::from(facts.geometry.k()) {
            break;
        }
        if let Look::Seen(seen) = look(shared, place, provider, Depth::Whole).await
            && seen.header.manifest().hash() == facts.manifest_hash
            && let Some(found) = seen.cells
            && cells.iter().all(|other| other.shard() != found.shard())
        {
            header = Some(seen.header);
            cells.push(found);
        }
    }
    match header {
        Some(header) if cells.len() >= usize::from(facts.geometry.k()) => Ok((header, cells)),
        _ => Err(format!("{} of {} shards could be read", cells.len(), facts.geometry.k())),
    }
}

async fn put_rebuilt(
    shared: &Shared,
    header: &ShardHeader,
    cells: &[VerifiedCells],
    shard: u8,
    provider: &ProviderId,
    facts: &diaspore_ledger::BlockFacts,
) -> Result<(), String> {
    let name = shared.names.shard(&address_of(facts, provider.as_str()));
    let manifest = header.manifest();
    let object = cpu(|| {
        let body = reconstruct(manifest, cells, shard, 0..manifest.shard_len)?;
        header.object_for(shard, body, provider.as_str(), &name, &shared.keys.header, &mut shared.rng())
    })
    .map_err(|error| error.to_string())?;
    let bytes = object.iter().map(|piece| piece.len() as u64).sum();
    shared.settlement.tried(facts.id, shard, provider);
    shared.fleet.put(provider, name.as_str(), object.to_vec(), Deadline::transfer(bytes)).await.map_err(|error| error.to_string())?;
    shared.settlement.stored(facts.id, shard, provider);
    Ok(())
}
