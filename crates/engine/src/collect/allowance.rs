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
