//! Deleting what is condemned: every shard at every provider, then a look that nothing is shown any more, then a record of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diaspore_block::id::BlockId;
use diaspore_block::record::{BlocksErased, ProviderMode};
use diaspore_ledger::{BlockEntry, CondemnedEntry};
use diaspore_policy::ProviderId;
use diaspore_provider::Deadline;
use futures::stream::{self, StreamExt};
use tokio::time::Instant;

use super::allowance::Allowance;
use crate::api::Error;
use crate::coded::address_of;
use crate::commit::{CommitRequest, NewRecord};
use crate::namespace::local;
use crate::shared::Shared;

/// Condemned blocks taken from the ledger at once, and erased by one record.
const BATCH: usize = 256;
/// Blocks deleted at once.
const AT_ONCE: usize = 4;
/// Failures in a row after which a provider is not asked for the rest of a batch.
const OUT: u32 = 8;
/// Longest wait for a record.
const RECORD_DEADLINE: Duration = Duration::from_mins(2);

/// What sweeping did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Swept {
    /// Blocks of which no provider shows a shard any more.
    pub blocks: u64,
    /// Bytes of their shards at all providers together.
    pub bytes: u64,
    /// Condemned blocks that stay for now: their grace time runs, a reader that began before still reads, or a provider does not answer.
    pub waiting: u64,
    /// Deletions that a provider did not answer or refused, by provider.
    pub failed: BTreeMap<String, u64>,
    /// Objects that a provider still shows although it said that it deleted them, by provider.
    pub kept: BTreeMap<String, u64>,
}

/// Deletes condemned blocks that have been so for `grace`: of `only` these, if given.
pub(super) async fn sweep(
    shared: &Arc<Shared>,
    grace: Duration,
    only: Option<&BTreeSet<BlockId>>,
    allowance: &Allowance,
) -> Result<Swept, Error> {
    let mut swept = Swept::default();
    let mut after = None;
    loop {
        // The applied ledger: what is condemned here was released (PROTOCOL rule 12).
        let view = shared.ledger.snapshot().map_err(local)?;
        let batch = view.all_condemned(after, BATCH).map_err(local)?;
        let Some(last) = batch.last() else { return Ok(swept) };
        after = Some(last.block);
        let providers = targets(shared)?;
        let strikes = Strikes::default();
        let mut due = Vec::new();
        for condemned in batch.into_iter().filter(|condemned| only.is_none_or(|only| only.contains(&condemned.block))) {
            match view.block(condemned.block).map_err(local)? {
                Some(entry) if is_due(shared, &condemned, grace) => due.push(entry),
                _ => swept.waiting += 1,
            }
        }
        let mut outcomes = stream::iter(due).map(|entry| erase(shared, entry, &providers, (&strikes, allowance))).buffered(AT_ONCE);
        let mut erased = Vec::new();
        while let Some((entry, outcome)) = outcomes.next().await {
            let Some(trouble) = outcome else {
                swept.waiting += 1;
                continue;
            };
            if trouble.is_empty() {
                swept.blocks += 1;
                swept.bytes += stored_bytes(&entry);
                erased.push(entry.facts.id);
                shared.collector.forget_clean(entry.facts.id);
                continue;
            }
            swept.waiting += 1;
            for (provider, what) in trouble {
                let counts = if what == Trouble::Kept { &mut swept.kept } else { &mut swept.failed };
                *counts.entry(provider.to_string()).or_default() += 1;
            }
        }
        drop(outcomes);
        if !erased.is_empty() {
            let record = NewRecord::system(BlocksErased { blocks: erased });
            shared.committer.submit(CommitRequest::single(record, ()), Instant::now() + RECORD_DEADLINE).await?;
        }
    }
}

/// Bytes of a block's shards, objects whole.
pub(super) fn stored_bytes(entry: &BlockEntry) -> u64 {
    let object = diaspore_block::geometry::object_len(entry.facts.shard_len).unwrap_or(entry.facts.shard_len as usize);
    object as u64 * u64::from(entry.facts.geometry.n())
}

/// Providers that may hold anything: all but those declared dead.
pub(super) fn targets(shared: &Shared) -> Result<Vec<ProviderId>, Error> {
    let said = shared.ledger.snapshot().and_then(|view| view.providers()).map_err(local)?;
    let dead: BTreeSet<String> = said.into_iter().filter(|entry| entry.mode == ProviderMode::Dead).map(|entry| entry.provider).collect();
    let all = shared.fleet.providers().iter().map(|spec| spec.id.clone());
    Ok(all.filter(|id| !dead.contains(id.as_str())).collect())
}

/// Whether nobody can need it any more.
pub(super) fn is_due(shared: &Shared, condemned: &CondemnedEntry, grace: Duration) -> bool {
    let now = shared.clock.now();
    // A clock that was ahead when the record was written: from then on that it is seen.
    let since = if condemned.time > now { shared.collector.condemned_ahead(condemned.block, now) } else { condemned.time };
    let age = now.0.saturating_sub(since.0);
    let over = u128::from(age) >= grace.as_millis();
    // A repair or a move that is under way would bring shards back.
    over && shared.keep.is_past(condemned.seq) && !shared.settlement.is_worked_on(condemned.block)
}

/// What keeps a block from being erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// No answer, or a refusal.
    Failed,
    /// Still shown.
    Kept,
}

/// Failures of each provider in a row. Who failed often is not asked for the rest of a batch: it holds those blocks anyway.
#[derive(Debug, Default)]
struct Strikes(Mutex<BTreeMap<ProviderId, u32>>);

impl Strikes {
    fn is_out(&self, provider: &ProviderId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(provider).is_some_and(|strikes| *strikes >= OUT)
    }

    fn note(&self, provider: &ProviderId, failed: bool) {
        let mut strikes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = strikes.entry(provider.clone()).or_default();
        *count = if failed { count.saturating_add(1) } else { 0 };
    }
}

/// Deletes one block everywhere, at all providers at once, and looks. A provider that was seen clean of it is not asked again. `None` while
/// somebody puts shards of it, who began before it was condemned: what is seen clean now need not be afterwards.
async fn erase(
    shared: &Shared,
    entry: BlockEntry,
    providers: &[ProviderId],
    (strikes, allowance): (&Strikes, &Allowance),
) -> (BlockEntry, Option<Vec<(ProviderId, Trouble)>>) {
    let facts = &entry.facts;
    let clean = shared.collector.clean_at(facts.id);
    let left: Vec<&ProviderId> = providers.iter().filter(|provider| !clean.contains(*provider)).collect();
    allowance.take(left.len().saturating_mul(2)).await;
    if shared.settlement.is_worked_on(facts.id) {
        return (entry, None);
    }
    let asked = left.into_iter().map(async |provider| {
        if strikes.is_out(provider) {
            return (provider, Err(Trouble::Failed));
        }
        let name = shared.names.shard(&address_of(facts, provider.as_str()));
        let outcome = remove(shared, provider, name.as_str()).await;
        strikes.note(provider, outcome == Err(Trouble::Failed));
        if outcome.is_ok() {
            shared.collector.note_clean(facts.id, provider);
        }
        (provider, outcome)
    });
    let answers = futures::future::join_all(asked).await;
    let trouble = answers.into_iter().filter_map(|(provider, outcome)| outcome.err().map(|what| (provider.clone(), what))).collect();
    (entry, Some(trouble))
}

/// One object: deleted, and not shown any more.
async fn remove(shared: &Shared, provider: &ProviderId, name: &str) -> Result<(), Trouble> {
    shared.fleet.delete(provider, name, Deadline::control()).await.map_err(|_| Trouble::Failed)?;
    match shared.fleet.exists(provider, name, Deadline::control()).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(Trouble::Kept),
        Err(_) => Err(Trouble::Failed),
    }
}

#[cfg(test)]
mod tests;
