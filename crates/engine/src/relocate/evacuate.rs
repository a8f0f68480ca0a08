//! Leaving a provider: everything it holds lies elsewhere, is deleted there, and the log certifies it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diaspore_block::id::{BlockId, PrincipalId};
use diaspore_block::record::{ProviderEvacuated, ProviderMode};
use diaspore_ledger::BlockEntry;
use diaspore_policy::{FailureDomain, Price, ProviderId};
use diaspore_provider::{Deadline, HealthState};
use futures::stream::{self, StreamExt};
use tokio::time::Instant;

use super::mover::{self, Placed, Stay, each_block, shard_at};
use crate::api::{Error, ErrorKind};
use crate::checkpoint;
use crate::coded::address_of;
use crate::collect::{self, Cost, LogNeeds};
use crate::commit::{CommitRequest, NewRecord};
use crate::keyring;
use crate::layout;
use crate::modes;
use crate::namespace::local;
use crate::shared::Shared;

/// Shards moved at once, and named by one record.
const AT_ONCE: usize = 3;
const PER_RECORD: usize = 32;
/// Times over the map: blocks that somebody worked on, or that were written meanwhile, come in the next.
const PASSES: usize = 5;
/// The same while repair works on some of what is left: its budget may allow a block in a minute.
const BUSY_PASSES: usize = 30;
/// Pause before another pass.
const PAUSE: Duration = Duration::from_secs(2);
/// Compacted logs made so that blocks of the log without another place may go: two that stand for them, and one more until which an
/// older one is remembered.
const COMPACTIONS: usize = 3;
/// Longest wait for one of them.
const COMPACTED_WITHIN: Duration = Duration::from_mins(10);
/// Longest wait for what is unsettled.
const SETTLES_WITHIN: Duration = Duration::from_mins(2);
/// Longest wait for a record.
const RECORD_DEADLINE: Duration = Duration::from_mins(2);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvacuateAsked {
    /// The operator's name of the account.
    pub provider: String,
    /// It is gone for good: it is not asked for anything, and what it may still hold is nobody's business.
    pub dead: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Refuse if it costs more, in micro-dollars.
    pub most: Option<u64>,
}

/// How leaving went.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Evacuated {
    /// The provider.
    pub provider: String,
    /// Blocks with a shard there when it began.
    pub blocks: u64,
    /// Bytes of those shards.
    pub bytes: u64,
    /// What moving them costs, by list prices.
    pub cost: Cost,
    /// Domains that take shards besides this one.
    pub domains: u64,
    /// Blocks with a shard on every one of those: they have to be written anew, narrower.
    pub crowded: u64,
    /// Of these, blocks that the log needs, which keep their layout until compacted logs stand for them.
    pub crowded_log: u64,
    /// Shards that lie elsewhere now.
    pub moved_shards: u64,
    /// Bytes of them.
    pub moved_bytes: u64,
    /// Blocks written anew.
    pub rewritten: u64,
    /// Blocks that still have a shard there.
    pub remaining: u64,
    /// Objects of this deployment that it still lists: claims, heads and keyring copies among them, which it keeps as long as it is configured.
    pub left: u64,
    /// Of these, claims, heads and keyring copies.
    pub control: u64,
    /// Objects there that are not this deployment's.
    pub foreign: u64,
    /// Whether it listed all that it has of this deployment: otherwise it may have more than `left`.
    pub reachable: bool,
    /// Why it must not be taken away although nothing of the map lies there: too few others are known to hold the keyring.
    #[serde(default)]
    pub keyring: Option<String>,
    /// Whether the log certifies that nothing of the map lies there any more.
    pub certified: bool,
}

/// What an errand came to so far. One that goes on in the incarnation that follows reports, and certifies, all of it.
#[derive(Debug, Default)]
pub(crate) struct SoFar(Mutex<Option<Evacuated>>);

impl SoFar {
    /// Begins with what was done before, if anything was.
    fn begin(&self, report: Evacuated) -> Evacuated {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let report = match noted.take() {
            None => report,
            // What was there when it began, and what became of that; the rest is as it is now.
            Some(Evacuated { blocks, bytes, cost, crowded, moved_shards, moved_bytes, rewritten, .. }) => {
                Evacuated { blocks, bytes, cost, crowded, moved_shards, moved_bytes, rewritten, ..report }
            }
        };
        *noted = Some(report.clone());
        report
    }

    fn note(&self, report: &Evacuated) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
    }
}

/// Leaves a provider. Goes on where an earlier run ended.
pub(crate) async fn evacuate(shared: &Arc<Shared>, asked: &EvacuateAsked, so_far: &SoFar) -> Result<Evacuated, Error> {
    let unknown = || Error::new(ErrorKind::Invalid, format!("no provider is called {}; storage providers list names them", asked.provider));
    let provider = ProviderId::new(&asked.provider).map_err(|_| unknown())?;
    let spec = shared.fleet.provider(&provider).cloned().ok_or_else(unknown)?;
    let report = plan(shared, &provider, &spec.domain, asked.dead)?;
    affordable(&report.cost, asked.most)?;
    if asked.dry_run {
        return Ok(report);
    }
    let mut report = so_far.begin(report);
    let (mode, reason) = if asked.dead { (ProviderMode::Dead, "gone for good") } else { (ProviderMode::Draining, "being emptied") };
    if shared.modes.of(&provider) != mode {
        modes::set(shared, PrincipalId::NIL, &provider, mode, reason).await?;
    }
    shared.settlement.hurry();
    let _all = shared.settlement.wait_all(SETTLES_WITHIN).await;
    // Passes in a row that changed nothing.
    let (mut vain, mut compactions) = (0, 0);
    loop {
        let before = report.remaining;
        let (crowded, busy) = Box::pin(one_pass(shared, &provider, asked.dead, (&mut report, so_far))).await?;
        if !crowded.is_empty() {
            let count = |written| {
                report.rewritten += written;
                so_far.note(&report);
            };
            Box::pin(collect::rewrite(shared, &crowded, count)).await?;
        }
        report.remaining = remaining(shared, &provider)?;
        if report.remaining == 0 {
            break;
        }
        vain = if report.remaining < before { 0 } else { vain + 1 };
        // In a layout that is about to be superseded it would be in vain.
        let lasting = shared.layout.as_ref().is_some_and(|layout| !layout.is_too_wide(shared));
        if report.crowded_log > 0 && lasting && compactions < COMPACTIONS {
            (vain, compactions) = (0, compactions + 1);
            let made = tokio::time::timeout(COMPACTED_WITHIN, Box::pin(checkpoint::make(shared))).await;
            if !matches!(made, Ok(Ok(_))) {
                tracing::info!(%provider, ?made, "blocks of the log stay: no compacted log could be made to stand for them");
                break;
            }
        } else if (lasting && report.remaining == report.crowded_log) || vain >= if busy > 0 { BUSY_PASSES } else { PASSES } {
            // What repair works on goes as fast as repair may.
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Box::pin(certify(shared, &provider, asked.dead, report)).await
}

/// Refuses a price above the bound.
fn affordable(cost: &Cost, most: Option<u64>) -> Result<(), Error> {
    match most.filter(|most| cost.microdollars > *most) {
        None => Ok(()),
        Some(most) => Err(Error::new(
            ErrorKind::Invalid,
            format!("it costs up to {} USD by list prices, more than the {} allowed; nothing was done", usd(cost.microdollars), usd(most)),
        )),
    }
}

/// Micro-dollars as dollars, exactly.
fn usd(micro: u64) -> String {
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

/// What lies there, what moving it costs, and whether there is room for it.
fn plan(shared: &Shared, provider: &ProviderId, domain: &FailureDomain, dead: bool) -> Result<Evacuated, Error> {
    let mut domains = layout::healthy(shared);
    domains.remove(domain);
    let mut report = Evacuated { provider: provider.to_string(), domains: domains.len() as u64, ..Evacuated::default() };
    let own = shared.fleet.provider(provider).map(|spec| spec.price.clone()).unwrap_or_default();
    let prices: Vec<&Price> = shared.fleet.providers().iter().filter(|spec| spec.id != *provider).map(|spec| &spec.price).collect();
    let others = collect::mean(&prices);
    let silent = dead || shared.fleet.health(provider).is_some_and(|health| health.state == HealthState::Down);
    let needs = LogNeeds::at_least(shared)?;
    for entry in at(shared, provider)? {
        let facts = &entry.facts;
        let bytes = diaspore_block::geometry::object_len(facts.shard_len).unwrap_or_default() as u64;
        report.blocks += 1;
        report.bytes += bytes;
        if usize::from(facts.geometry.n()) > domains.len() {
            report.crowded += 1;
            report.crowded_log += u64::from(needs.reason(&entry).is_none());
        }
        let k = u64::from(facts.geometry.k());
        let read = if silent {
            Cost { reads: k, bytes_read: k * bytes, ..Cost::default() }.priced(&others)
        } else {
            Cost { reads: 1, deletes: 1, bytes_read: bytes, ..Cost::default() }.priced(&own)
        };
        report.cost.add(&read);
        report.cost.add(&Cost { writes: 1, reads: 2, bytes_read: bytes, bytes_written: bytes, ..Cost::default() }.priced(&others));
    }
    report.remaining = report.blocks;
    report.keyring = keyring::too_few_without(shared, provider);
    Ok(report)
}

/// Blocks with a shard at the provider, as the map says or will say.
fn remaining(shared: &Shared, provider: &ProviderId) -> Result<u64, Error> {
    Ok(at(shared, provider)?.len() as u64 + shared.settlement.underway_at(provider))
}

/// Blocks with a shard at the provider, as the map says.
fn at(shared: &Shared, provider: &ProviderId) -> Result<Vec<BlockEntry>, Error> {
    let mut found = Vec::new();
    each_block(shared, |entry| {
        if shard_at(&entry.facts, provider).is_some() {
            found.push(entry);
        }
    })?;
    Ok(found)
}

/// What ties a block without another place to where it is.
#[derive(Debug, Clone, Copy)]
enum Tie {
    /// Data that a narrower block can hold as well.
    Data,
    /// The log needs this very block, and there will be no domain for it.
    Log,
    /// Somebody works on it, or a domain is down.
    Passing,
}

/// Moves what can be moved. Gives the blocks for which no domain is free and that the log does not need, and how many blocks others worked on.
async fn one_pass(
    shared: &Arc<Shared>,
    provider: &ProviderId,
    dead: bool,
    (report, so_far): (&mut Evacuated, &SoFar),
) -> Result<(Vec<BlockId>, u64), Error> {
    let keep_old = if dead { BTreeSet::from([provider.clone()]) } else { BTreeSet::new() };
    let blocks: Vec<BlockId> = at(shared, provider)?.into_iter().map(|entry| entry.facts.id).collect();
    let (mut crowded, mut busy) = (Vec::new(), 0);
    let mut placed: Vec<Placed> = Vec::new();
    let (needs, usable) = (LogNeeds::at_least(shared)?, layout::usable(shared).len());
    report.crowded_log = 0;
    let mut moves = stream::iter(blocks)
        .map(async |block| {
            let entry = shared.ledger.snapshot().and_then(|view| view.block(block)).map_err(local)?;
            let Some(entry) = entry else { return Ok((block, Tie::Passing, Err(Stay::Busy))) };
            let outcome = Box::pin(mover::place(shared, &entry, provider, None, dead)).await;
            let tie = match needs.reason(&entry) {
                Some(_) => Tie::Data,
                None if usize::from(entry.facts.geometry.n()) > usable => Tie::Log,
                None => Tie::Passing,
            };
            Ok::<_, Error>((block, tie, outcome))
        })
        .buffered(AT_ONCE);
    while let Some(outcome) = moves.next().await {
        match outcome? {
            (_, _, Ok(one)) => {
                report.moved_shards += 1;
                report.moved_bytes += one.bytes;
                placed.push(one);
            }
            (block, Tie::Data, Err(Stay::NoPlace)) => crowded.push(block),
            (_, Tie::Log, Err(Stay::NoPlace)) => report.crowded_log += 1,
            (_, _, Err(Stay::Busy)) => busy += 1,
            (_, _, Err(_)) => (),
        }
        if placed.len() >= PER_RECORD {
            mover::record(shared, std::mem::take(&mut placed), &keep_old).await?;
            so_far.note(report);
        }
    }
    drop(moves);
    mover::record(shared, placed, &keep_old).await?;
    so_far.note(report);
    // A block that is only crowded because a domain is down for now keeps its layout.
    let narrow = layout::of_bulk_blocks(shared)?;
    let view = shared.ledger.snapshot().map_err(local)?;
    let wider = |block: &BlockId| view.block(*block).is_ok_and(|entry| entry.is_some_and(|entry| entry.facts.geometry.n() > narrow.n));
    crowded.retain(wider);
    Ok((crowded, busy))
}

/// Deletes what is still listed there, and says in the log what was left.
async fn certify(shared: &Arc<Shared>, provider: &ProviderId, dead: bool, mut report: Evacuated) -> Result<Evacuated, Error> {
    if !dead {
        clean(shared, provider, &mut report).await?;
    }
    report.remaining = remaining(shared, provider)?;
    report.keyring = keyring::too_few_without(shared, provider);
    report.certified = report.remaining == 0 && report.keyring.is_none();
    if !report.certified {
        return Ok(report);
    }
    let certificate = ProviderEvacuated {
        provider: provider.to_string(),
        blocks: report.blocks,
        shards: report.moved_shards,
        bytes: report.moved_bytes,
        left: report.left,
        reachable: report.reachable,
    };
    let request = CommitRequest::single(NewRecord::system(certificate), ());
    shared.committer.submit(request, Instant::now() + RECORD_DEADLINE).await?;
    tracing::info!(%provider, shards = report.moved_shards, left = report.left, reachable = report.reachable, "a provider was left");
    Ok(report)
}

/// Twice: what the first listing shows of blocks that lie elsewhere is deleted, the second says what is left.
async fn clean(shared: &Arc<Shared>, provider: &ProviderId, report: &mut Evacuated) -> Result<(), Error> {
    for last in [false, true] {
        let Some(listed) = collect::listed(shared, provider).await? else {
            report.reachable = false;
            return Ok(());
        };
        // Of what it did not list nothing is known, as if it had not answered.
        report.reachable = listed.complete;
        report.left = listed.control + listed.orphans + listed.pending + listed.blocks.len() as u64;
        (report.control, report.foreign) = (listed.control, listed.foreign);
        if last || listed.blocks.is_empty() {
            return Ok(());
        }
        let view = shared.ledger.snapshot().map_err(local)?;
        for block in listed.blocks {
            let Some(entry) = view.block(block).map_err(local)? else { continue };
            // Only what the map places elsewhere: an unsettled block's shard may be all there is of it.
            if entry.settled && shard_at(&entry.facts, provider).is_none() {
                let name = shared.names.shard(&address_of(&entry.facts, provider.as_str()));
                if let Err(error) = shared.fleet.delete(provider, name.as_str(), Deadline::control()).await {
                    tracing::debug!(%error, "a shard stays at a provider that is being left");
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    mod passes;

    use super::*;

    #[test]
    fn a_price_above_the_bound_is_refused() {
        let cost = Cost { microdollars: 2_500_001, ..Cost::default() };
        affordable(&cost, None).unwrap();
        affordable(&cost, Some(2_500_001)).unwrap();
        let refused = affordable(&cost, Some(2_500_000)).unwrap_err().message;
        assert!(refused.contains("up to 2.500001 USD") && refused.contains("the 2.500000 allowed; nothing was done"), "{refused}");
    }
}
