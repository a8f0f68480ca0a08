//! Looks around once a second: asks providers that are down whether they are back and those that were not heard for a while whether they
//! still answer, and takes the counters' growth down. Nothing else would find a provider again: an open breaker keeps requests away, and
//! with too few healthy domains new writes are refused before anything is sent. Nothing else would miss one that nobody reads from, or
//! one that freezes while every read of it is hedged: a request that nobody waited for blames nobody. And nothing else would find out that an
//! account takes writes again which had refused them: nothing is placed there meanwhile.
//!
//! A provider that stops answering is down within [`IDLE`] and three rounds of [`PAUSE`] and [`PATIENCE`]: 19 s.

use std::sync::Arc;
use std::time::Duration;

use diaspore_policy::ProviderId;
use diaspore_provider::{Deadline, Health, HealthState};
use futures::future::join_all;

use crate::shared::{Ground, Shared};

/// Pause between rounds; a round that finds everybody well and heard sends nothing.
const PAUSE: Duration = Duration::from_secs(1);
/// Who has neither answered nor failed for so long is asked.
const IDLE: Duration = Duration::from_secs(10);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs until the engine closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    while shared.rest(PAUSE).await {
        crate::status::last_day(&shared);
        round(&shared).await;
    }
}

/// Asks every provider once that is down, failed last, or was not heard for a while; and tries a write at those that answer and refused
/// them, when their pause is over or they are just back.
pub(crate) async fn round(ground: &Ground) {
    let healths = ground.fleet.providers().iter().filter_map(|spec| Some((spec.id.clone(), ground.fleet.health(&spec.id)?)));
    let doubtful = |health: &Health| {
        let down = health.state == HealthState::Down;
        down || health.consecutive_failures > 0 || health.idle.is_none_or(|idle| idle >= IDLE)
    };
    let asked: Vec<(ProviderId, Health)> = healths.filter(|(_, health)| doubtful(health)).collect();
    let answers = join_all(asked.iter().map(|(id, _)| ground.fleet.probe(id, Deadline::new(PATIENCE, PATIENCE)))).await;
    for ((provider, before), answer) in asked.iter().zip(answers) {
        if answer.is_ok() && before.state == HealthState::Down {
            tracing::info!(%provider, "a provider is back");
        }
    }
    let was_down = |id: &ProviderId| asked.iter().any(|(other, before)| other == id && before.state == HealthState::Down);
    let shut = ground.fleet.providers().iter().map(|spec| &spec.id).filter(|id| {
        let health = ground.fleet.health(id).filter(|health| health.state != HealthState::Down);
        health.and_then(|health| health.write_retry_in).is_some_and(|wait| wait.is_zero() || was_down(id))
    });
    for refused in
        join_all(shut.map(|id| ground.fleet.try_write(id, Deadline::new(PATIENCE, PATIENCE)))).await.into_iter().filter_map(Result::err)
    {
        tracing::debug!(error = %refused, "an account still takes no writes");
    }
}

#[cfg(test)]
mod tests {
    use diaspore_testkit::{Fault, FaultPlan, Misbehaviour};

    use super::*;
    use crate::blob::tests::fixture::Fixture;

    /// Nobody reads or writes: the prober alone has to see it.
    #[tokio::test(start_paused = true)]
    async fn a_provider_that_nobody_uses_is_found_dead_and_found_again() {
        for fault in [Misbehaviour::Down, Misbehaviour::Freeze, Misbehaviour::ErrorBefore, Misbehaviour::Denied] {
            let fx = Fixture::start(5).await;
            tokio::time::sleep(Duration::from_mins(2)).await;
            let fleet = fx.engine.shared().fleet.clone();
            let id = ProviderId::new(fx.stores[2].name()).unwrap();
            assert_eq!(fleet.health(&id).unwrap().state, HealthState::Healthy);
            fx.stores[2].set_faults(FaultPlan::from(Fault::always(fault)));
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(fleet.health(&id).unwrap().state, HealthState::Down, "{fault:?} is seen in 20 s");
            fx.stores[2].set_faults(FaultPlan::honest());
            tokio::time::sleep(Duration::from_secs(4)).await;
            assert_eq!(fleet.health(&id).unwrap().state, HealthState::Healthy, "{fault:?} has ended");
        }
    }
}
