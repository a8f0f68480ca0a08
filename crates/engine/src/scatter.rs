//! Putting the shards of one block onto distinct failure domains.
//!
//! Every shard is its own request; k + 1 acknowledgements of one attempt on distinct domains are the quorum. A provider that
//! fails is passed over at once: its shard goes to a spare domain under that provider's own name, or back to the same provider
//! after a pause when there is none. A slow quorum is hedged the same way. After the quorum the rest gets a short grace; then
//! the buffers are dropped and the settler makes the missing shards anew.

mod bulk;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use diaspore_block::id::Seq;
use diaspore_block::record::{Placement, ProviderMode};
use diaspore_ledger::BlockFacts;
use diaspore_policy::ProviderId;
use diaspore_provider::{Deadline, ErrorKind as ProviderErrorKind, Health, HealthState, ProviderError};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::api::{Error, ErrorKind};
use crate::audit::Event;
use crate::coded::Coded;
use crate::layout;
use crate::modes::POOR_SCORE;
use crate::settle::Open;
use crate::shared::{Ground, Shared};

pub(crate) use bulk::{BulkHandle, BulkSlot, open_bulk, scatter_bulk};
pub(crate) use plan::{Plan, Seat};

/// A quorum that takes longer than this is helped along by spare domains.
const HEDGE_AFTER: Duration = Duration::from_secs(2);
/// Time for the shards beyond the quorum while their buffers are held.
const GRACE: Duration = Duration::from_secs(3);
/// A bulk block without a quorum by then has failed; nothing names it.
const BULK_GIVES_UP: Duration = Duration::from_secs(45);
/// First and longest pause before the same provider is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a block is for, which decides how long it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A commit block: never given up (PROTOCOL rule 1).
    Commit(Seq),
    /// A bulk block: given up after a while, as no record names it yet.
    Bulk,
}

/// Resolves at quorum.
#[derive(Debug)]
pub(crate) struct ScatterHandle(oneshot::Receiver<Result<Vec<Placement>, Error>>);

impl ScatterHandle {
    /// The placements at the moment of k + 1 acknowledgements.
    pub(crate) async fn quorum(&mut self) -> Result<Vec<Placement>, Error> {
        match (&mut self.0).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(ErrorKind::NotAccepted, "the engine closed before enough providers answered")),
        }
    }
}

/// Accounts that may hold shards of this block under the policy, with their present health. Commit blocks of an incarnation that
/// stepped down stay within the domains that its claim names.
pub(crate) fn seats(shared: &Shared, block: &BlockFacts) -> Vec<Seat> {
    let own_log = block.kind.has_records() && block.incarnation == shared.writer.incarnation;
    let own_layout = shared.layout.as_ref().filter(|_| own_log);
    // An account that is being emptied is better than none for a block that is wider than what is left.
    let crowded = layout::usable(shared).len() < usize::from(block.geometry.n());
    let admitted = shared.fleet.providers().iter().filter(|spec| shared.config.profile.admits(spec));
    admitted
        .filter(|spec| own_layout.is_none_or(|layout| layout.members.contains(&spec.domain)))
        .map(|spec| {
            let health = shared.fleet.health(&spec.id);
            let alive = health.as_ref().is_some_and(|health| health.state != HealthState::Down && health.takes_writes);
            // Draining, quarantined and dead accounts keep their place in the order, which homes follow from, and get nothing.
            let takes = shared.modes.takes_shards(&spec.id);
            let alive = alive && (takes || (crowded && shared.modes.of(&spec.id) == ProviderMode::Draining));
            let poor = |health: &Health| health.lying || health.score.is_some_and(|score| score < POOR_SCORE);
            let healthy = alive && takes && health.is_some_and(|health| !poor(&health));
            Seat { provider: spec.id.clone(), domain: spec.domain.clone(), weight: spec.weight, healthy, alive }
        })
        .filter(|seat| seat.weight > 0)
        .collect()
}

/// Starts to scatter a block. `budget` is held as long as its buffers are.
pub(crate) fn spawn(shared: &Arc<Shared>, coded: Arc<Coded>, purpose: Purpose, budget: Option<OwnedSemaphorePermit>) -> ScatterHandle {
    let (done, handle) = oneshot::channel();
    let facts = coded.facts();
    let seq = match purpose {
        Purpose::Commit(seq) => Some(seq),
        Purpose::Bulk => None,
    };
    let plan = Plan::draw(seats(shared, &facts), facts.geometry.n(), facts.id);
    shared.settlement.open(Open::new(Arc::clone(&facts), seq, shared.clock.now()));
    let Some(plan) = plan else {
        let few =
            Error::new(ErrorKind::TooFewDomains, format!("{} distinct failure domains are needed and not configured", facts.geometry.n()));
        shared.settlement.idle(facts.id, None, true);
        if done.send(Err(few)).is_err() {
            tracing::debug!("nobody waits for the block");
        }
        return ScatterHandle(handle);
    };
    let task = Task {
        shared: Arc::clone(shared),
        coded,
        plan,
        purpose,
        stored: BTreeMap::new(),
        failures: BTreeMap::new(),
        in_flight: BTreeSet::new(),
        quorum: Some(done),
        grace_ends: None,
        _budget: budget,
    };
    shared.spawn(task.run());
    ScatterHandle(handle)
}

struct Done {
    shard: u8,
    provider: ProviderId,
    outcome: Result<(), ProviderError>,
}

struct Task {
    shared: Arc<Shared>,
    coded: Arc<Coded>,
    plan: Plan,
    purpose: Purpose,
    /// Acknowledged shards and where.
    stored: BTreeMap<u8, ProviderId>,
    /// Failed requests per provider.
    failures: BTreeMap<ProviderId, u32>,
    /// Requests, or pauses before one.
    in_flight: BTreeSet<(u8, ProviderId)>,
    quorum: Option<oneshot::Sender<Result<Vec<Placement>, Error>>>,
    grace_ends: Option<Instant>,
    _budget: Option<OwnedSemaphorePermit>,
}

type Puts = FuturesUnordered<BoxFuture<'static, Done>>;

impl Task {
    async fn run(mut self) {
        let block = self.coded.facts().id;
        let mut closing = self.shared.closing.subscribe();
        let mut puts: Puts = FuturesUnordered::new();
        for (shard, provider) in self.plan.homes() {
            self.put(&mut puts, shard, provider, Duration::ZERO);
        }
        let started = Instant::now();
        let mut hedge_at = Some(started + HEDGE_AFTER);
        let gives_up = (self.purpose == Purpose::Bulk).then(|| started + BULK_GIVES_UP);
        while !self.is_complete() {
            let wake = if self.quorum.is_some() { [hedge_at, gives_up].into_iter().flatten().min() } else { self.grace_ends };
            tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => break,
                done = puts.next(), if !puts.is_empty() => if let Some(done) = done {
                    self.take(done, &mut puts);
                },
                () = sleep_until(wake), if wake.is_some() => {
                    let now = Instant::now();
                    if self.quorum.is_none() {
                        break;
                    }
                    if gives_up.is_some_and(|at| at <= now) {
                        self.fail();
                        break;
                    }
                    hedge_at = Some(now + HEDGE_AFTER);
                    self.hedge(&mut puts);
                },
            }
            if self.quorum.is_none() && puts.is_empty() {
                break;
            }
        }
        let missing = !self.is_complete();
        self.shared.settlement.idle(block, missing.then(|| Instant::now() + PAUSES.0), missing);
    }

    fn is_complete(&self) -> bool {
        self.stored.len() == usize::from(self.coded.facts().geometry.n())
    }

    /// Queues one PUT after a pause.
    fn put(&mut self, puts: &mut Puts, shard: u8, provider: ProviderId, pause: Duration) {
        let facts = self.coded.facts();
        self.shared.settlement.tried(facts.id, shard, &provider);
        self.in_flight.insert((shard, provider.clone()));
        let (shared, coded) = (Arc::clone(&self.shared), Arc::clone(&self.coded));
        puts.push(Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let outcome = put_shard(&shared, &coded, shard, &provider).await;
            Done { shard, provider, outcome }
        }));
    }

    fn take(&mut self, done: Done, puts: &mut Puts) {
        let Done { shard, provider, outcome } = done;
        self.in_flight.remove(&(shard, provider.clone()));
        let facts = self.coded.facts();
        match outcome {
            Ok(()) => {
                self.shared.settlement.stored(facts.id, shard, &provider);
                self.stored.entry(shard).or_insert(provider);
                self.check_quorum();
            }
            Err(error) => {
                self.shared.audit.note(Event::ProviderFault { provider: provider.to_string(), what: format!("put: {:?}", error.kind) });
                if !self.stored.contains_key(&shard) {
                    self.replace(shard, provider, &error, puts);
                }
            }
        }
    }

    /// A shard whose provider failed: a spare domain at once, else one that it was tried at, after a pause, unless the settler may do it.
    fn replace(&mut self, shard: u8, provider: ProviderId, error: &ProviderError, puts: &mut Puts) {
        let failures = self.failures.entry(provider).or_default();
        *failures = failures.saturating_add(1);
        self.plan.refresh(&seats(&self.shared, &self.coded.facts()));
        if let Some(spare) = self.plan.spare(shard) {
            self.put(puts, shard, spare, Duration::ZERO);
            return;
        }
        let others = self.in_flight.iter().any(|(other, _)| *other == shard);
        // Past the quorum nobody waits for this shard: free the buffers, the settler makes it anew.
        if others || self.quorum.is_none() {
            return;
        }
        // Whoever failed last may be down for long, and another that the shard was tried at be back.
        let Some((provider, _)) = self.tried_before(shard) else { return };
        let failures = self.failures_of(&provider);
        let hopeless = matches!(error.kind, ProviderErrorKind::AlreadyExists | ProviderErrorKind::Invalid);
        let pause = if hopeless { PAUSES.1 } else { PAUSES.0.saturating_mul(1 << failures.min(6)).min(PAUSES.1) };
        self.put(puts, shard, provider, pause);
    }

    /// Who to ask again for a shard among those bound to it that nothing is on its way to, and whether it answers: who does first, then who
    /// failed least.
    fn tried_before(&self, shard: u8) -> Option<(ProviderId, bool)> {
        let bound = self.plan.bound_to(shard).filter(|(provider, _)| !self.in_flight.contains(&(shard, provider.clone())));
        bound.min_by_key(|(provider, alive)| (!alive, self.failures_of(provider)))
    }

    fn failures_of(&self, provider: &ProviderId) -> u32 {
        self.failures.get(provider).copied().unwrap_or_default()
    }

    /// Sends shards that are still on their way to spare domains too; without one, to a provider that failed before and answers again.
    fn hedge(&mut self, puts: &mut Puts) {
        self.plan.refresh(&seats(&self.shared, &self.coded.facts()));
        for shard in 0..self.coded.facts().geometry.n() {
            if self.stored.contains_key(&shard) {
                continue;
            }
            let answers = |(provider, alive)| Some(provider).filter(|_| alive);
            if let Some(other) = self.plan.spare(shard).or_else(|| self.tried_before(shard).and_then(answers)) {
                self.put(puts, shard, other, Duration::ZERO);
            }
        }
    }

    /// Acknowledgements count per attempt, distinct shards on distinct domains (PROTOCOL rules 2 and 4).
    fn check_quorum(&mut self) {
        let facts = self.coded.facts();
        let domains: BTreeSet<_> = self.stored.values().filter_map(|provider| self.plan.domain(provider)).collect();
        if domains.len() <= usize::from(facts.geometry.k()) {
            return;
        }
        let Some(quorum) = self.quorum.take() else { return };
        self.grace_ends = Some(Instant::now() + GRACE);
        let named = |homes: Vec<(u8, ProviderId)>| homes.into_iter().map(|(shard, home)| (shard, home.to_string())).collect::<Vec<_>>();
        let stored = named(self.stored.iter().map(|(shard, home)| (*shard, home.clone())).collect());
        let placements = placements_of(&stored, &named(self.plan.homes()));
        if quorum.send(Ok(placements)).is_err() {
            tracing::debug!("nobody waits for the quorum any more");
        }
    }

    fn fail(&mut self) {
        let Some(quorum) = self.quorum.take() else { return };
        let facts = self.coded.facts();
        let error = Error::new(
            ErrorKind::NotAccepted,
            format!(
                "not accepted: {} of {} shards found a provider in time; {} are needed",
                self.stored.len(),
                facts.geometry.n(),
                facts.geometry.k() + 1
            ),
        );
        if quorum.send(Err(error)).is_err() {
            tracing::debug!("nobody waits for the block any more");
        }
    }
}

/// One PUT of one shard.
pub(crate) async fn put_shard(ground: &Ground, coded: &Coded, shard: u8, provider: &ProviderId) -> Result<(), ProviderError> {
    let object = coded.object(ground, shard, provider).map_err(|error| ProviderError {
        provider: provider.clone(),
        operation: diaspore_provider::Operation::Put,
        kind: ProviderErrorKind::Invalid,
        detail: error.to_string(),
    })?;
    let bytes = object.1.iter().map(|piece| piece.len() as u64).sum();
    ground.fleet.put(provider, object.0.as_str(), object.1, Deadline::transfer(bytes)).await
}

/// Placements as the log keeps them, one for each shard: where it is durable, or else a provider that may hold it. Of several that were tried
/// for a shard one is named, since whoever looks for the shard asks everybody.
pub(crate) fn placements_of(stored: &[(u8, String)], tried: &[(u8, String)]) -> Vec<Placement> {
    let acked = stored.iter().map(|(shard, provider)| Placement { shard: *shard, provider: provider.clone(), acked: true });
    let open = tried
        .iter()
        .filter(|(shard, provider)| !stored.iter().any(|(other, home)| other == shard || home == provider))
        .map(|(shard, provider)| Placement { shard: *shard, provider: provider.clone(), acked: false });
    let mut all: Vec<Placement> = acked.chain(open).collect();
    all.sort_by(|a, b| (a.shard, &a.provider).cmp(&(b.shard, &b.provider)));
    all.dedup_by_key(|place| place.shard);
    all
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests;
