//! Looks around once a second: asks providers that are down whether they are back, and takes the counters' growth down. Nothing else would
//! find a provider again: an open breaker keeps requests away, and with too few healthy domains new writes are refused before anything
//! is sent.

use std::sync::Arc;
use std::time::Duration;

use diaspore_policy::ProviderId;
use diaspore_provider::{Deadline, HealthState};
use futures::future::join_all;

use crate::shared::{Ground, Shared};

/// Pause between rounds; a round that finds nobody down sends nothing.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs until the engine closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    loop {
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        crate::status::last_day(&shared);
        round(&shared).await;
    }
}

/// Asks every provider that is down once.
pub(crate) async fn round(ground: &Ground) {
    let is_down = |id: &ProviderId| ground.fleet.health(id).is_some_and(|health| health.state == HealthState::Down);
    let down: Vec<ProviderId> = ground.fleet.providers().iter().map(|spec| spec.id.clone()).filter(is_down).collect();
    let answers = join_all(down.iter().map(|id| ground.fleet.probe(id, Deadline::new(PATIENCE, PATIENCE)))).await;
    for (provider, answer) in down.iter().zip(answers) {
        if answer.is_ok() {
            tracing::info!(%provider, "a provider is back");
        }
    }
}
