//! The task that acknowledges: in sequence order, at quorum, with the journal flushed and the fence held (PROTOCOL rules 4, 6).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diaspore_block::id::Seq;
use diaspore_block::record::CommitReleased;
use diaspore_ledger::{BlockFacts, JournalEntry, Ledger, LedgerError, ReleasedNote};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::{Built, Committed, Waiter, unknown};
use crate::api::{Class, Error};
use crate::config::Fatal;
use crate::scatter::ScatterHandle;
use crate::shared::Shared;
use crate::world::cpu;

/// Notes about released blocks that wait to ride in a later one; older ones are dropped, since a probe finds shards as well.
const MAX_NOTES: usize = 256;

/// Pause between two tries while the disk is full.
const ROOM: Duration = Duration::from_secs(1);

/// What the releasing task tells the issuing one.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    released: AtomicU64,
    waiting: Mutex<VecDeque<CommitReleased>>,
}

impl Notes {
    pub(crate) fn starting_at(released: Seq) -> Self {
        Self { released: AtomicU64::new(released.0), waiting: Mutex::default() }
    }

    /// The last released sequence: `acked_through` of the next manifest.
    pub(crate) fn released(&self) -> Seq {
        Seq(self.released.load(Ordering::Acquire))
    }

    fn release(&self, note: CommitReleased) {
        self.released.store(note.seq.0, Ordering::Release);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == MAX_NOTES {
            waiting.pop_front();
        }
        waiting.push_back(note);
    }

    /// What was released since the last block.
    pub(crate) fn take(&self) -> VecDeque<CommitReleased> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets notes wait for the next block, those that came meanwhile behind them.
    pub(crate) fn put_back(&self, mut taken: VecDeque<CommitReleased>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        taken.append(&mut waiting);
        taken.drain(..taken.len().saturating_sub(MAX_NOTES));
        *waiting = taken;
    }
}

/// An issued block.
pub(crate) struct InFlight {
    built: Built,
    facts: Arc<BlockFacts>,
    handle: ScatterHandle,
    waiters: Vec<Waiter>,
    /// Its place in the window, given back at release.
    permit: OwnedSemaphorePermit,
}

impl InFlight {
    pub(crate) fn new(
        built: Built,
        facts: Arc<BlockFacts>,
        handle: ScatterHandle,
        waiters: Vec<Waiter>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { built, facts, handle, waiters, permit }
    }
}

/// Releases blocks in the order they were issued.
pub(crate) struct Releaser {
    pub(crate) shared: Arc<Shared>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) blocks: mpsc::Receiver<InFlight>,
}

impl Releaser {
    /// Runs until the engine closes. Blocks that were not released then have an unknown outcome; the next start decides it.
    pub(crate) async fn run(mut self) {
        let mut closing = self.shared.closing.subscribe();
        loop {
            let block = tokio::select! {
                biased;
                () = closed(&mut closing) => return,
                block = self.blocks.recv() => block,
            };
            let Some(block) = block else { return };
            tokio::select! {
                biased;
                () = closed(&mut closing) => return,
                () = self.release(block) => (),
            }
        }
    }

    async fn release(&self, mut block: InFlight) {
        let shared = &self.shared;
        let placements = match block.handle.quorum().await {
            Ok(placements) => placements,
            Err(error) => {
                // A commit block tries for ever, and only a closing engine ends it. Whatever else did, nothing behind it may be released.
                answer_unknown(block.waiters);
                if !*shared.closing.borrow() {
                    shared.stop(Fatal::Ledger(format!("sequence {} was given up: {error}", block.built.seq)));
                }
                return;
            }
        };
        if let Err(higher) = shared.fence.hold(shared).await {
            answer_unknown(block.waiters);
            shared.stop(Fatal::Superseded(higher));
            return;
        }
        let (seq, attempt) = (block.built.seq, block.facts.attempt);
        let released =
            JournalEntry::Released(ReleasedNote { seq, incarnation: block.facts.incarnation, attempt, placements: placements.clone() });
        let geometry = (block.facts.geometry.k(), block.facts.geometry.n());
        let note = CommitReleased { seq, attempt, manifest_hash: block.facts.manifest_hash, placements: placements.clone() };
        let applied = block.built.into_applied(placements);
        let written = match self.when_there_is_room(|ledger| ledger.append(released.clone())).await {
            Ok(()) => self.when_there_is_room(|ledger| ledger.apply(&applied)).await,
            failed => failed,
        };
        if let Err(error) = written {
            answer_unknown(block.waiters);
            if !matches!(error, LedgerError::Full) {
                shared.stop(Fatal::Ledger(error.to_string()));
            }
            return;
        }
        shared.settlement.released(seq);
        self.notes.release(note);
        for waiter in block.waiters {
            self.answer(waiter, Committed { seq, geometry });
        }
        drop(block.permit);
    }

    /// Tries until the disk takes it: the block is at its providers and will be in the log, and so what follows it waits as well.
    /// [`LedgerError::Full`] when the engine closes first.
    async fn when_there_is_room(&self, write: impl Fn(&Ledger) -> Result<(), LedgerError>) -> Result<(), LedgerError> {
        loop {
            match cpu(|| write(&self.shared.ledger)) {
                Err(LedgerError::Full) if self.shared.rest(ROOM).await => {}
                outcome => return outcome,
            }
        }
    }

    /// A `full` request waits for its own settlement beside the chain and holds nobody else (PROTOCOL rule 4).
    fn answer(&self, waiter: Waiter, committed: Committed) {
        let Waiter { class, answer, hold } = waiter;
        drop(hold);
        match class {
            Class::Quorum => send(answer, Ok(committed)),
            Class::Full => {
                let shared = Arc::clone(&self.shared);
                self.shared.spawn(async move {
                    let mut closing = shared.closing.subscribe();
                    let outcome = tokio::select! {
                        biased;
                        () = shared.settlement.wait(committed.seq) => Ok(committed),
                        _ = closing.wait_for(|closing| *closing) => Err(unknown()),
                    };
                    send(answer, outcome);
                });
            }
        }
    }
}

/// Resolves when the engine closes.
async fn closed(closing: &mut watch::Receiver<bool>) {
    drop(closing.wait_for(|closing| *closing).await);
}

fn answer_unknown(waiters: Vec<Waiter>) {
    for waiter in waiters {
        send(waiter.answer, Err(unknown()));
    }
}

fn send(answer: tokio::sync::oneshot::Sender<Result<Committed, Error>>, outcome: Result<Committed, Error>) {
    if answer.send(outcome).is_err() {
        tracing::debug!("the caller did not wait for its answer");
    }
}

#[cfg(test)]
mod tests;
