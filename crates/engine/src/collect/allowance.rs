//! How fast upkeep may spend provider requests: the policy's budget in the background, nothing to wait for when an operator asked.

use tokio::sync::Mutex;
use tokio::time::Instant;

use diaspore_policy::RequestBudget;

use crate::commit::Bucket;

/// Longest single wait for requests, so that a task notices that the engine closes.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(5);

/// Requests of one collection or move.
#[derive(Debug)]
pub(crate) struct Allowance(Option<Mutex<Bucket>>);

impl Allowance {
    /// As the policy says.
    pub(crate) fn of(budget: RequestBudget) -> Self {
        Self(Some(Mutex::new(Bucket::new(budget, Instant::now()))))
    }

    /// Without bound.
    pub(crate) fn free() -> Self {
        Self(None)
    }

    /// Waits until so many requests may be sent.
    pub(crate) async fn take(&self, requests: usize) {
        let Some(bucket) = &self.0 else { return };
        let requests = u8::try_from(requests).unwrap_or(u8::MAX);
        let mut bucket = bucket.lock().await;
        let wait = bucket.wait(requests, Instant::now(), LONGEST);
        tokio::time::sleep(wait).await;
        bucket.spend(requests, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_their_budget_a_few_seconds_at_a_time() {
        let waits = async |allowance: Allowance| {
            let mut waits = Vec::new();
            for requests in [10, 3, 0, 1, 1000, 1] {
                let begun = Instant::now();
                allowance.take(requests).await;
                waits.push(begun.elapsed());
            }
            waits
        };
        let seconds = [0, 3, 0, 1, 5, 5].map(Duration::from_secs);
        assert_eq!(
            waits(Allowance::of(RequestBudget { sustained_per_second: 1, burst: 10 })).await,
            seconds,
            "never longer than it takes to notice an end"
        );
        assert_eq!(waits(Allowance::free()).await, [Duration::ZERO; 6]);
    }
}
