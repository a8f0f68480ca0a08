//! Group commit (PROTOCOL rules 1 to 4): waiting records and the small chunks they name become one commit block; at most W
//! blocks are in flight; acknowledgements leave in sequence order.
//!
//! Two tasks. `issue` gives out sequence and counter without gaps, seals, appends to the journal while the shards are on
//! their way. `release` takes the blocks in that order: quorum, journal flushed, fence, ledger, answer. A block once issued is
//! never given up; what cannot be issued is refused before anything is sealed.

mod budget;
mod build;
mod issue;
mod release;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use diaspore_block::id::{BlockId, BucketId, ChunkId, PrincipalId, Seq, SubjectId, TenantId};
use diaspore_block::record::{Class as RecordClass, Encoding, Outcome, Private, ServiceStopped};
use diaspore_ledger::LedgerError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::api::{Class, Error, ErrorKind};
use crate::shared::{Shared, StageCell};

pub(crate) use budget::Bucket;
#[cfg(test)]
pub(crate) use build::build_attempt;
pub(crate) use build::{Built, Draft, Tip, body_of, build};
pub(crate) use issue::Issuer;
pub(crate) use release::{Notes, Releaser};

/// Longest time a request waits for a free place among the W blocks in flight.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that may wait at once, besides the bound in bytes.
const MAX_QUEUED: usize = 16_384;

/// A record to be committed; time and blind are added when its block is made.
#[derive(Debug)]
pub(crate) struct NewRecord {
    pub(crate) tenant: TenantId,
    pub(crate) principal: PrincipalId,
    pub(crate) subject: SubjectId,
    pub(crate) class: RecordClass,
    pub(crate) outcome: Outcome,
    pub(crate) private: Private,
}

impl NewRecord {
    /// A record of the service itself.
    pub(crate) fn system(private: impl Into<Private>) -> Self {
        Self {
            tenant: TenantId::SYSTEM,
            principal: PrincipalId::NIL,
            subject: SubjectId::NIL,
            class: RecordClass::Quorum,
            outcome: Outcome::Done,
            private: private.into(),
        }
    }

    /// In a tenant's section: for whatever names that tenant's data.
    pub(crate) fn within(mut self, tenant: TenantId) -> Self {
        self.tenant = tenant;
        self
    }

    pub(crate) fn about(mut self, subject: impl Into<SubjectId>) -> Self {
        self.subject = subject.into();
        self
    }

    pub(crate) fn by(mut self, principal: PrincipalId) -> Self {
        self.principal = principal;
        self
    }
}

/// Whether somebody asked for it, unlike the bookkeeping of upkeep: were that lost, providers would show the same again.
const fn is_asked_for(private: &Private) -> bool {
    !matches!(
        private,
        Private::ShardsMoved(_)
            | Private::BlocksCondemned(_)
            | Private::BlocksErased(_)
            | Private::PartsAdded(_)
            | Private::LogCompacted(_)
            | Private::DrillReported(_)
    )
}

/// A chunk that rides in the commit block itself.
#[derive(Debug, Clone)]
pub(crate) struct SmallChunk {
    pub(crate) tenant: TenantId,
    pub(crate) bucket: BucketId,
    pub(crate) id: ChunkId,
    pub(crate) encoding: Encoding,
    pub(crate) plain_len: u32,
    /// Bytes as stored: compressed where `encoding` says so.
    pub(crate) stored: Bytes,
}

/// Records that become visible together, with what they need.
pub(crate) struct CommitRequest {
    pub(crate) records: Vec<NewRecord>,
    pub(crate) chunks: Vec<SmallChunk>,
    /// What the answer waits for.
    pub(crate) class: Class,
    /// Bulk blocks that the records name; all at quorum already.
    pub(crate) bulk: Vec<BlockId>,
    /// Dropped when the outcome is applied: key locks, byte permits.
    pub(crate) hold: Box<dyn Any + Send>,
}

impl fmt::Debug for CommitRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitRequest").field("records", &self.records.len()).field("chunks", &self.chunks.len()).finish_non_exhaustive()
    }
}

impl CommitRequest {
    /// One record without chunks at the default class.
    pub(crate) fn single(record: NewRecord, hold: impl Any + Send) -> Self {
        Self { records: vec![record], chunks: Vec::new(), class: Class::Quorum, bulk: Vec::new(), hold: Box::new(hold) }
    }

    /// Bytes it takes in a block, by estimate from above.
    fn cost(&self) -> usize {
        let records: usize = self.records.iter().map(|record| record.private.encoded_len() + 256).sum();
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.stored.len() + 128).sum();
        records + chunks
    }
}

/// A mutation that is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) seq: Seq,
    /// k and n of the commit block.
    pub(crate) geometry: (u8, u8),
}

/// Who waits for an answer.
pub(crate) struct Waiter {
    pub(crate) class: Class,
    pub(crate) answer: oneshot::Sender<Result<Committed, Error>>,
    pub(crate) hold: Box<dyn Any + Send>,
}

/// A request in the queue.
pub(crate) struct Queued {
    pub(crate) request: CommitRequest,
    pub(crate) cost: usize,
    pub(crate) answer: oneshot::Sender<Result<Committed, Error>>,
    pub(crate) expires: Instant,
    /// Its share of the queue's byte bound.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// The receiving end, until the issuing task takes it.
pub(crate) type Inbox = mpsc::Receiver<Queued>;

/// The door to the log.
pub(crate) struct Committer {
    queue: mpsc::Sender<Queued>,
    inbox: Mutex<Option<Inbox>>,
    room: Arc<Semaphore>,
    queue_bytes: usize,
    commit_bytes: usize,
    stage: StageCell,
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer").field("room", &self.room.available_permits()).finish_non_exhaustive()
    }
}

impl Committer {
    pub(crate) fn new(queue_bytes: usize, commit_bytes: usize, stage: StageCell) -> Self {
        let (queue, inbox) = mpsc::channel(MAX_QUEUED);
        Self { queue, inbox: Mutex::new(Some(inbox)), room: Arc::new(Semaphore::new(queue_bytes)), queue_bytes, commit_bytes, stage }
    }

    /// Hands the queue to the one task that drains it.
    pub(crate) fn take_inbox(&self) -> Option<Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Commits, and answers until `by`. `NotAccepted` (or the stage's refusal) means that nothing happened; `OutcomeUnknown` that
    /// it may yet.
    pub(crate) async fn submit(&self, request: CommitRequest, by: Instant) -> Result<Committed, Error> {
        self.stage.check_writable()?;
        self.enqueue(request, by).await
    }

    /// The same past the stage check: for the engine's own last record.
    async fn enqueue(&self, request: CommitRequest, by: Instant) -> Result<Committed, Error> {
        let expires = by.min(Instant::now() + PATIENCE);
        let cost = request.cost();
        if cost > self.commit_bytes || cost > self.queue_bytes {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("a commit of {cost} bytes exceeds the limit of {} bytes", self.commit_bytes),
            ));
        }
        let permits = u32::try_from(cost).unwrap_or(u32::MAX);
        let room = tokio::time::timeout_at(expires, Arc::clone(&self.room).acquire_many_owned(permits)).await;
        let Ok(Ok(room)) = room else { return Err(window_full()) };
        let (answer, outcome) = oneshot::channel();
        let queued = Queued { request, cost, answer, expires, _room: room };
        match tokio::time::timeout_at(expires, self.queue.send(queued)).await {
            Ok(Ok(())) => (),
            Ok(Err(_)) => return Err(self.stage.check_writable().err().unwrap_or_else(closed)),
            Err(_) => return Err(window_full()),
        }
        match tokio::time::timeout_at(by, outcome).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(unknown()),
        }
    }
}

/// The refusal of rule 4.
pub(crate) fn window_full() -> Error {
    Error::new(ErrorKind::NotAccepted, "not accepted: too many commit blocks wait for their providers; nothing happened, try again later")
}

fn closed() -> Error {
    Error::new(ErrorKind::NotAccepted, "the service is shutting down; nothing was accepted")
}

/// The honest answer when a block was issued and its fate is open.
pub(crate) fn unknown() -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "accepted, but the outcome is not known yet: ask again with the same Idempotency-Key")
}

/// Notes the stop, which also waits for everything before it, and ends the tasks.
pub(crate) async fn shutdown(shared: &Arc<Shared>) -> Result<(), Error> {
    if shared.stage.check_writable().is_err() {
        shared.close();
        return Ok(());
    }
    shared.stage.refuse_new_work();
    let stopped = ServiceStopped { incarnation: shared.writer.incarnation, reason: "shutdown".to_owned() };
    let record = NewRecord::system(stopped).about(shared.writer.incarnation);
    let outcome = shared.committer.enqueue(CommitRequest::single(record, ()), shared.answer_by()).await;
    shared.close();
    let _ended = shared.wait_tasks(PATIENCE).await;
    match crate::world::cpu(|| shared.ledger.flush_view()) {
        // The journal has all of it; the next start makes the view.
        Ok(()) | Err(LedgerError::Full) => {}
        Err(error) => return Err(crate::namespace::local(error)),
    }
    if let Err(error) = outcome {
        // The log needs no word of the stop: the next start finds its end as after a crash.
        tracing::warn!(%error, "stopped without a record of it");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
