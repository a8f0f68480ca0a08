//! Moving shards between providers: leaving one, and giving a new one its share (docs/decisions/0013-garbage-collection.md).
//!
//! A shard is at its new place, and read back there, before the log says so; the old one is deleted only when that record was released. A
//! crash at any step leaves a shard too many at most, which the next run finds: all it goes by is the map and what the providers show.

mod evacuate;
mod mover;
mod rebalance;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::api::{Error, ErrorKind};
use crate::shared::{Shared, Stage};

pub use evacuate::{EvacuateAsked, Evacuated};
pub(crate) use evacuate::{SoFar, evacuate};
pub use rebalance::Rebalanced;
pub(crate) use rebalance::rebalance;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// Leave a provider.
    Evacuate(EvacuateAsked),
    /// Give every provider its share of what is stored.
    Rebalance {
        /// Only say what would move.
        dry_run: bool,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum Relocated {
    /// A provider was left, or as much of it as could be.
    Evacuated(Evacuated),
    /// Shards were spread anew.
    Rebalanced(Rebalanced),
}

/// What is known about moves in this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RelocationState {
    /// Number of the one that runs.
    pub running: Option<u64>,
    /// What it does: `evacuate NAME` or `rebalance`.
    #[serde(default)]
    pub errand: Option<String>,
    /// Number of the last that ended.
    pub ended: Option<u64>,
    /// What came of it.
    pub outcome: Option<Relocated>,
    /// Why it ended early.
    pub error: Option<String>,
}

/// One move of many shards at a time.
#[derive(Debug, Default)]
pub(crate) struct Relocations {
    state: Mutex<(u64, RelocationState)>,
    /// What an incarnation left to its successor.
    suspended: Mutex<Option<Job>>,
}

/// An errand on its way.
#[derive(Debug)]
struct Job {
    number: u64,
    errand: Errand,
    /// What leaving came to before the service superseded itself.
    so_far: SoFar,
    done: oneshot::Sender<Result<Relocated, Error>>,
}

impl Relocations {
    pub(crate) fn state(&self) -> RelocationState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    fn begin(&self, errand: &Errand) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.1.running.is_some() {
            return None;
        }
        state.0 += 1;
        let number = state.0;
        state.1.running = Some(number);
        state.1.errand = Some(match errand {
            Errand::Evacuate(asked) => format!("evacuate {}", asked.provider),
            Errand::Rebalance { .. } => "rebalance".to_owned(),
        });
        Some(number)
    }

    fn end(&self, number: u64, outcome: &Result<Relocated, Error>) {
        let (outcome, error) = match outcome {
            Ok(outcome) => (Some(outcome.clone()), None),
            Err(error) => (None, Some(error.message.clone())),
        };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 =
            RelocationState { ended: Some(number), outcome, error, ..RelocationState::default() };
    }
}

/// A move in a task of its own: whoever asked for it may go away.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) number: u64,
    pub(crate) outcome: oneshot::Receiver<Result<Relocated, Error>>,
}

/// Starts an errand.
///
/// # Errors
/// `NotAccepted` while one runs.
pub(crate) fn begin(shared: &Arc<Shared>, errand: Errand) -> Result<Begun, Error> {
    shared.check_writable()?;
    let number = shared.relocations.begin(&errand);
    let number = number.ok_or_else(|| Error::new(ErrorKind::NotAccepted, "shards are being moved already; that has to end first"))?;
    let (done, outcome) = oneshot::channel();
    carry_out(shared, Job { number, errand, so_far: SoFar::default(), done });
    Ok(Begun { number, outcome })
}

/// Goes on with what the incarnation before this one was busy with: leaving an account may itself be why it was superseded.
pub(crate) fn resume(shared: &Arc<Shared>) {
    let job = shared.relocations.suspended.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(job) = job {
        carry_out(shared, job);
    }
}

fn carry_out(shared: &Arc<Shared>, job: Job) {
    let task = Arc::clone(shared);
    shared.spawn(async move {
        let mut closing = task.closing.subscribe();
        let work = async {
            match &job.errand {
                Errand::Evacuate(asked) => Box::pin(evacuate(&task, asked, &job.so_far)).await.map(Relocated::Evacuated),
                Errand::Rebalance { dry_run } => Box::pin(rebalance(&task, *dry_run)).await.map(Relocated::Rebalanced),
            }
        };
        let outcome = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => None,
            outcome = work => Some(outcome),
        };
        // All that was achieved is in the log: a successor in this process goes on from there.
        if outcome.is_none() && matches!(task.stage.get(), Stage::ReadOnly(_)) {
            *task.relocations.suspended.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
            return;
        }
        let outcome = outcome.unwrap_or_else(|| Err(Error::new(ErrorKind::NotAccepted, "the service is shutting down")));
        if let Err(error) = &outcome {
            tracing::warn!(%error, "shards could not all be moved");
        }
        task.relocations.end(job.number, &outcome);
        if job.done.send(outcome).is_err() {
            tracing::debug!("nobody waits for the move");
        }
    });
}

/// Runs an errand to its end.
pub(crate) async fn run(shared: &Arc<Shared>, errand: Errand) -> Result<Relocated, Error> {
    let begun = begin(shared, errand)?;
    begun.outcome.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::NotAccepted, "the service is shutting down")))
}
