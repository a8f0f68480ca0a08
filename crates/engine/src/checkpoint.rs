//! Checkpoints of the log (PROTOCOL rule 12): the ledger's state at one sequence as a compacted log at the providers, so that a recovery
//! need not read every record ever written, and commit blocks below it may go.
//!
//! `write` makes one, in the order that makes it safe; `heads` announces it, finds announcements and removes old ones; `read`
//! fetches roots and parts. Installing one is part of a start: `reconcile::base`.

pub(crate) mod heads;
pub(crate) mod read;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diaspore_block::compacted::{BlockRef, CompactedRoot};
use diaspore_block::id::{BlockId, Seq};
use diaspore_ledger::{BlockFacts, CompactionEntry, LedgerError, Snapshot};
use diaspore_policy::ProviderId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::api::{CheckpointStatus, Error, ErrorKind, LastCheckpoint};
use crate::layout;
use crate::namespace::{local, view};
use crate::shared::Shared;

/// Pause between looks at whether one is due.
const TICK: Duration = Duration::from_secs(5);
/// First and longest pause after one that failed.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(10));
/// Pause between looks at whether every provider has the heads.
const HEADS_EVERY: Duration = Duration::from_mins(5);
/// A log that grew by less than this share of itself since the last one needs no new one: what is written stays in proportion to what
/// was logged.
const SHARE: u64 = 4;

/// What one checkpoint came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CheckpointReport {
    /// The sequence it covers.
    pub covers: u64,
    /// Leaves of the log there.
    pub log_size: u64,
    /// Rows of the state.
    pub rows: u64,
    /// Parts it consists of.
    pub parts: u64,
    /// Parts that were written; the others had not changed.
    pub written: u64,
    /// Sealed payload bytes written, the root included.
    pub bytes: u64,
    /// Providers that hold its head.
    pub heads: u64,
}

/// How the checkpoints that were asked for go.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CheckpointState {
    /// Number of the one that is under way, since the start of the service.
    pub running: Option<u64>,
    /// Number of the last one that ended.
    pub ended: Option<u64>,
    /// What it came to, unless it failed.
    pub outcome: Option<CheckpointReport>,
    /// Why it failed.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    /// What was asked for and what came of it.
    asked: CheckpointState,
    /// Blocks of one that is not finished.
    unfinished: BTreeSet<BlockId>,
    /// The last root that was written or read, with its block.
    last: Option<(BlockId, Arc<CompactedRoot>)>,
    /// By what they cover: providers that are known to hold the head.
    announced: BTreeMap<Seq, BTreeSet<ProviderId>>,
}

/// What this engine knows about its compacted logs.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// One at a time.
    turn: Semaphore,
    state: Mutex<State>,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), state: Mutex::default() }
    }
}

impl Checkpoints {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks that compacted logs need, and how far down the log is needed besides: what a collector must leave alone.
#[derive(Debug)]
pub(crate) struct Needed {
    /// Roots and parts that are kept, or that a checkpoint under way has written.
    pub(crate) blocks: BTreeSet<BlockId>,
    /// Commit blocks at or below may go if nothing alive is in them, decisions excepted; 0 while two generations do not count.
    pub(crate) floor: Seq,
    /// Sequences with a decision: one that was carried over lies in a commit block like any other.
    pub(crate) decisions: BTreeSet<Seq>,
}

/// What the compacted logs need at present. They count once their record is settled and their heads were acknowledged by f + 1 domains: one
/// of those is neither gone nor lying.
///
/// What is unfinished is read first: a checkpoint that ends in between is in the state that is taken then. Whoever holds this against an older state
/// would take a checkpoint that has ended since for one that nobody keeps.
pub(crate) fn needed(shared: &Shared) -> Result<Needed, Error> {
    let mut blocks = shared.checkpoints.state().unfinished.clone();
    let view = shared.ledger.snapshot().map_err(local)?;
    blocks.extend(
        view.compactions().map_err(local)?.into_iter().flat_map(|entry| entry.compacted.parts.into_iter().chain([entry.compacted.root])),
    );
    let kept = view.kept_compactions(shared.settlement.settled_through()).map_err(local)?;
    let counting = kept.iter().filter(|entry| is_announced(shared, entry.compacted.covers)).count();
    let floor = kept.get(1).filter(|_| counting == 2).map_or(Seq(0), |entry| entry.compacted.covers);
    let decisions = view.chain().map_err(local)?.into_iter().map(|entry| entry.seq).collect();
    Ok(Needed { blocks, floor, decisions })
}

/// Whether f + 1 failure domains acknowledged the head.
fn is_announced(shared: &Shared, covers: Seq) -> bool {
    let state = shared.checkpoints.state();
    let holders = state.announced.get(&covers).into_iter().flatten();
    let domains: BTreeSet<_> = holders.filter_map(|id| Some(&shared.fleet.provider(id)?.domain)).collect();
    layout::full(shared).is_some_and(|geometry| domains.len() > usize::from(geometry.f()))
}

/// Makes one now. Waits until everything that it covers is settled, and the checkpoint itself.
///
/// # Errors
/// `ReadOnly`, `TooFewDomains`, `NotAccepted` as for any write; `NotAccepted` when the engine closes meanwhile.
pub(crate) async fn make(shared: &Arc<Shared>) -> Result<CheckpointReport, Error> {
    let closed = |_| Error::new(ErrorKind::NotAccepted, "the service is shutting down");
    let _turn = shared.checkpoints.turn.acquire().await.map_err(closed)?;
    let mut closing = shared.closing.subscribe();
    let outcome = tokio::select! {
        biased;
        _ = closing.wait_for(|closing| *closing) => Err(Error::new(ErrorKind::NotAccepted, "the service is shutting down")),
        outcome = Box::pin(write::write(shared)) => outcome,
    };
    shared.checkpoints.state().unfinished.clear();
    if let Ok(report) = &outcome {
        let CheckpointReport { covers, rows, parts, written, bytes, .. } = report;
        tracing::info!(covers, rows, parts, written, bytes, "the log is compacted");
    }
    outcome
}

/// Begins one that goes on by itself; gives its number, or that of the one that is under way already.
pub(crate) fn begin(shared: &Arc<Shared>) -> Result<u64, Error> {
    shared.check_writable()?;
    let mut state = shared.checkpoints.state();
    if let Some(number) = state.asked.running {
        return Ok(number);
    }
    let number = state.asked.ended.map_or(1, |ended| ended + 1);
    state.asked.running = Some(number);
    drop(state);
    let owner = Arc::clone(shared);
    shared.spawn(async move {
        let made = make(&owner).await;
        let mut state = owner.checkpoints.state();
        let (outcome, error) = made.map_or_else(|error| (None, Some(error.message)), |report| (Some(report), None));
        state.asked = CheckpointState { running: None, ended: Some(number), outcome, error };
    });
    Ok(number)
}

/// How those that were asked for go.
pub(crate) fn state(shared: &Shared) -> CheckpointState {
    shared.checkpoints.state().asked.clone()
}

/// The background task: makes one when the log has grown enough, and sees to it that every provider has the heads.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    let (mut pause, mut not_before) = (PAUSES.0, Instant::now());
    let mut heads_due = Instant::now();
    loop {
        // At once when it starts: what was lost meanwhile took its heads along.
        if Instant::now() >= heads_due {
            heads_due = Instant::now() + HEADS_EVERY;
            tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => return,
                told = heads::announce(&shared) => if let Err(error) = told {
                    tracing::debug!(%error, "heads were not put everywhere");
                },
            }
        }
        if !shared.rest(TICK).await {
            return;
        }
        let now = Instant::now();
        if now >= not_before && is_due(&shared).unwrap_or(false) {
            match make(&shared).await {
                Ok(_) => pause = PAUSES.0,
                Err(error) => {
                    tracing::info!(%error, "the log is not compacted yet");
                    (not_before, pause) = (Instant::now() + pause, pause.saturating_mul(2).min(PAUSES.1));
                }
            }
        }
    }
}

/// Whether the log has grown enough since the last one.
fn is_due(shared: &Shared) -> Result<bool, Error> {
    Ok(shared.check_writable().is_ok() && status(shared, &view(shared)?).map_err(local)?.due_in == Some(0))
}

/// The newest one, and how far the next is.
pub(crate) fn status(shared: &Shared, view: &Snapshot) -> Result<CheckpointStatus, LedgerError> {
    let last = view.compactions()?.pop();
    let before = last.as_ref().map_or(0, |entry| entry.compacted.log_size);
    let grown = view.log_size()?.saturating_sub(before);
    let least = shared.config.checkpoint_after;
    let last = last.map(|CompactionEntry { seq, time, compacted }| {
        let covers = compacted.covers;
        let holders = shared.checkpoints.state().announced.get(&covers).cloned().unwrap_or_default();
        LastCheckpoint {
            covers: covers.0,
            log_size: compacted.log_size,
            age_ms: shared.clock.now().0.saturating_sub(time.0),
            heads: holders.iter().map(ToString::to_string).collect(),
            counts: seq <= shared.settlement.settled_through() && is_announced(shared, covers),
        }
    });
    Ok(CheckpointStatus { last, grown, due_in: due_in(least, before, grown) })
}

/// How far off the next one is, in entries of the log: at least `least` behind the last one, and a share of what the log had `before`. `None` for never.
fn due_in(least: u64, before: u64, grown: u64) -> Option<u64> {
    (least > 0).then(|| least.max(before / SHARE).saturating_sub(grown))
}

/// What a block of the map is known by.
pub(crate) fn reference_of(facts: &BlockFacts) -> BlockRef {
    BlockRef {
        block: facts.id,
        incarnation: facts.incarnation,
        counter: facts.counter,
        attempt: facts.attempt,
        geometry: facts.geometry,
        manifest_hash: facts.manifest_hash,
    }
}
