//! The task that gives out positions: it alone knows the tip of the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use diaspore_block::id::{BlockId, Seq};
use diaspore_block::limits::{MAX_RECORDS, MAX_SECTIONS};
use diaspore_ledger::LedgerError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::budget::Bucket;
use super::release::{InFlight, Notes};
use super::{Draft, Inbox, NewRecord, Queued, Tip, Waiter, build, is_asked_for, window_full};
use crate::api::Error;
use crate::audit;
use crate::config::Fatal;
use crate::layout;
use crate::namespace::disk_full;
use crate::scatter::{self, Purpose};
use crate::shared::{Meters, Shared, commit_buffer_bytes};
use crate::world::cpu;

/// Audit events that join one block at most.
const MAX_EVENTS: usize = 256;
/// What the engine's own records add to a block, by estimate from above.
const NOTES_BYTES: usize = 256 << 10;
/// Longest wait for buffers before the queue is looked at again.
const BUFFER_WAIT: Duration = Duration::from_secs(1);
/// So long after the last thing that somebody asked for, a block of notes alone follows. The newest block is the one that no other speaks of: should it be lost
/// together with the disk, nothing would say that it was acknowledged.
const MARK_AFTER: Duration = Duration::from_secs(5);
/// A block takes no further request once so many sections could be open.
const SECTION_MARGIN: usize = MAX_SECTIONS - 8;

/// Gives out sequence and counter, seals, journals, scatters.
pub(crate) struct Issuer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tip: Tip,
    pub(crate) notes: Arc<Notes>,
    /// One permit per commit block in flight: W.
    pub(crate) window: Arc<Semaphore>,
    pub(crate) out: mpsc::Sender<InFlight>,
}

/// What waits for the next block.
#[derive(Default)]
struct Pending {
    requests: VecDeque<Queued>,
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
    /// When the block leaves, once there is a place for it.
    leaves: Option<Instant>,
    /// When audit events that wait alone make a block of their own.
    audit_due: Option<Instant>,
    /// When the newest block with something that was asked for gets one behind it that says that it was acknowledged; none once one does.
    mark_due: Option<Instant>,
    /// That newest block.
    unmarked: Seq,
}

impl Issuer {
    /// Runs until the engine closes.
    pub(crate) async fn run(mut self, mut inbox: Inbox) {
        let mut closing = self.shared.closing.subscribe();
        let mut bucket = Bucket::new(self.shared.config.profile.requests, Instant::now());
        let mut pending = Pending::default();
        loop {
            let closed = *closing.borrow();
            if closed || !self.step(&mut inbox, &mut closing, &mut bucket, &mut pending).await {
                break;
            }
        }
        inbox.close();
        for queued in pending.requests {
            refuse(queued, &self.shared);
        }
        while let Ok(queued) = inbox.try_recv() {
            refuse(queued, &self.shared);
        }
    }

    /// Waits for one event and acts on it; false when there is nothing more to do.
    async fn step(&mut self, inbox: &mut Inbox, closing: &mut watch::Receiver<bool>, bucket: &mut Bucket, pending: &mut Pending) -> bool {
        let limit = self.shared.config.limits.commit_bytes;
        let now = Instant::now();
        pending.reject_expired(now);
        let has_mark = self.has_mark(pending, now);
        let ready = !pending.requests.is_empty() || pending.audit_due.is_some_and(|due| due <= now) || has_mark;
        if !ready {
            // What a place was taken for has expired meanwhile.
            (pending.permit, pending.leaves) = (None, None);
        }
        let wake = pending.wake(now);
        tokio::select! {
            biased;
            _ = closing.changed() => return !*closing.borrow(),
            request = inbox.recv(), if pending.bytes < limit => match request {
                Some(request) => pending.push(request),
                None => return false,
            },
            permit = Arc::clone(&self.window).acquire_owned(), if ready && pending.permit.is_none() => {
                let Ok(permit) = permit else { return false };
                pending.permit = Some(permit);
                let linger = Duration::from_millis(u64::from(self.shared.config.profile.linger_ms));
                pending.leaves = Some(Instant::now() + bucket.wait(self.width(), Instant::now(), linger));
                // Whoever was woken by the same event gets in before the block leaves.
                tokio::task::yield_now().await;
            }
            () = self.shared.audit.arrived(), if pending.audit_due.is_none() => {
                pending.audit_due = Some(Instant::now() + audit::MAX_DELAY);
            }
            () = sleep_until(wake), if wake.is_some() => {}
        }
        let due = pending.leaves.is_some_and(|leaves| leaves <= Instant::now()) || pending.bytes >= limit;
        if pending.permit.is_some() && ready && due {
            while pending.bytes < limit
                && let Ok(request) = inbox.try_recv()
            {
                pending.push(request);
            }
            pending.reject_expired(Instant::now());
            bucket.spend(self.width(), Instant::now());
            return self.issue(pending, has_mark).await;
        }
        true
    }

    /// Whether it is time for a mark, and there is something to be said by it.
    fn has_mark(&self, pending: &mut Pending, now: Instant) -> bool {
        let is_due = pending.mark_due.is_some_and(|due| due <= now);
        if is_due && self.notes.released() < pending.unmarked {
            pending.mark_due = Some(now + MARK_AFTER);
            return false;
        }
        is_due
    }

    fn width(&self) -> u8 {
        self.shared.layout.as_ref().map_or(1, |layout| layout.geometry.n())
    }

    /// Makes one block of what waits and sends it on its way.
    async fn issue(&mut self, pending: &mut Pending, has_mark: bool) -> bool {
        let Some(permit) = pending.permit.take() else { return true };
        pending.leaves = None;
        if pending.requests.is_empty() && self.shared.audit.is_empty() && !has_mark {
            pending.audit_due = None;
            return true;
        }
        // Blocks past their quorum may still hold buffers for a slow provider: they bound what may follow. Who waits here has no
        // position yet, so that what expires meanwhile is refused for certain.
        let Ok(buffers) = tokio::time::timeout(BUFFER_WAIT, self.buffers(pending.bytes)).await else {
            (pending.permit, pending.leaves) = (Some(permit), Some(Instant::now()));
            return true;
        };
        pending.reject_expired(Instant::now());
        let batch = pending.take_batch(self.shared.config.limits.commit_bytes);
        // Whatever becomes of this block, the next mark is not due at once.
        pending.mark_due = pending.mark_due.map(|_| Instant::now() + MARK_AFTER);
        let geometry = match self.shared.check_room().and_then(|()| layout::of_commit_blocks(&self.shared)) {
            Ok(geometry) => geometry,
            Err(refusal) => {
                // Before sealing, so this is definite.
                answer_all(batch, &refusal);
                pending.audit_due = pending.audit_due.map(|_| Instant::now() + Duration::from_secs(5));
                return true;
            }
        };
        pending.audit_due = None;
        let (mut records, mut chunks, mut bulk, mut waiters) = (Vec::new(), Vec::new(), Vec::<BlockId>::new(), Vec::new());
        let mut is_asked = false;
        for Queued { request, answer, .. } in batch {
            is_asked |= request.records.iter().any(|record| is_asked_for(&record.private));
            records.extend(request.records);
            chunks.extend(request.chunks);
            bulk.extend(request.bulk);
            waiters.push(Waiter { class: request.class, answer, hold: request.hold });
        }
        let (notes, events) = (self.notes.take(), self.shared.audit.take(MAX_EVENTS));
        records.extend(notes.iter().cloned().map(NewRecord::system));
        records.extend(events.records());
        let mut tip = self.tip.clone();
        let made = cpu(|| {
            let draft = Draft::of(&self.shared, geometry, records, chunks, &self.notes)?;
            let acked_through = draft.acked_through;
            Ok((build(&self.shared, self.shared.writer, &mut tip, draft)?, acked_through))
        });
        let (built, acked_through) = match made {
            Ok(made) => made,
            Err(error) => {
                // It may be one of them that fits no block.
                self.shared.audit.give_up(&events);
                fail_waiters(waiters, &error);
                return true;
            }
        };
        let buffers = buffers.map(|buffers| trimmed(buffers, built.coded_len()));
        // From here on the position is taken: whatever happens, this block is finished or the engine stops.
        if let Err(error) = cpu(|| self.shared.ledger.append(built.journal_entry())) {
            self.notes.put_back(notes);
            self.shared.audit.put_back(events);
            return self.journal_refused(&error, waiters);
        }
        self.tip = tip;
        pending.issued(is_asked, built.seq, acked_through);
        Meters::add(&self.shared.meters.leaves, built.record_count());
        Meters::bump(&self.shared.meters.signatures);
        let facts = built.facts();
        self.shared.settlement.name_in(&bulk, built.seq);
        let handle = scatter::spawn(&self.shared, built.coded(), Purpose::Commit(built.seq), buffers);
        if let Err(error) = cpu(|| self.shared.ledger.sync()) {
            self.shared.stop(Fatal::JournalSync(error.to_string()));
            return false;
        }
        let in_flight = InFlight::new(built, facts, handle, waiters, permit);
        self.out.send(in_flight).await.is_ok()
    }

    /// Room for the coded form of a block of about so many plain bytes; none when the engine closes.
    async fn buffers(&self, plain: usize) -> Option<OwnedSemaphorePermit> {
        let plain = plain.min(self.shared.config.limits.commit_bytes).saturating_add(NOTES_BYTES);
        let layout = self.shared.layout.as_ref()?.geometry;
        let coded = plain.saturating_mul(usize::from(layout.n())) / usize::from(layout.k().max(1));
        // Size classes round up by at most an eighth.
        let bytes = coded.saturating_add(coded / 8).min(commit_buffer_bytes(&self.shared.config.limits));
        Arc::clone(&self.shared.commit_buffers).acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX)).await.ok()
    }

    fn journal_refused(&self, error: &LedgerError, waiters: Vec<Waiter>) -> bool {
        if matches!(error, LedgerError::Full) {
            fail_waiters(waiters, &disk_full());
            return true;
        }
        self.shared.stop(Fatal::JournalSync(error.to_string()));
        false
    }
}

/// Gives back what the block does not take.
fn trimmed(mut buffers: OwnedSemaphorePermit, bytes: usize) -> OwnedSemaphorePermit {
    let surplus = buffers.num_permits().saturating_sub(bytes);
    drop(buffers.split(surplus));
    buffers
}

impl Pending {
    fn push(&mut self, queued: Queued) {
        self.bytes = self.bytes.saturating_add(queued.cost);
        self.requests.push_back(queued);
    }

    fn reject_expired(&mut self, now: Instant) {
        while let Some(first) = self.requests.pop_front_if(|first| first.expires <= now) {
            self.bytes = self.bytes.saturating_sub(first.cost);
            answer(first, Err(window_full()));
        }
    }

    /// The next moment at which something is to be done without an event.
    fn wake(&self, now: Instant) -> Option<Instant> {
        let expiry = self.requests.front().map(|first| first.expires);
        // Once due, these wait for a place, not for time: a moment in the past would wake the task without end.
        let [audit, mark] = [self.audit_due, self.mark_due].map(|due| due.filter(|due| *due > now));
        [expiry, self.leaves, audit, mark].into_iter().flatten().min()
    }

    /// A block left. If somebody asked for what is in it, a later one has to say that it was acknowledged, as this one may of those before it.
    fn issued(&mut self, is_asked: bool, seq: Seq, acked_through: Seq) {
        if is_asked {
            (self.unmarked, self.mark_due) = (seq, Some(Instant::now() + MARK_AFTER));
        } else if acked_through >= self.unmarked {
            self.mark_due = None;
        }
    }

    /// As many requests, in order, as one block takes.
    fn take_batch(&mut self, limit: usize) -> Vec<Queued> {
        let (mut batch, mut bytes, mut records) = (Vec::new(), 0usize, 0usize);
        let mut tenants = std::collections::BTreeSet::new();
        while let Some(next) = self.requests.front() {
            let next_records = next.request.records.len();
            tenants.extend(next.request.records.iter().map(|record| record.tenant));
            let full =
                bytes.saturating_add(next.cost) > limit || records + next_records > MAX_RECORDS / 2 || tenants.len() > SECTION_MARGIN;
            if full && !batch.is_empty() {
                break;
            }
            let Some(next) = self.requests.pop_front() else { break };
            bytes = bytes.saturating_add(next.cost);
            records += next_records;
            self.bytes = self.bytes.saturating_sub(next.cost);
            batch.push(next);
        }
        batch
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

/// Sends an answer; nobody may be listening any more, which is their choice.
fn answer(queued: Queued, result: Result<super::Committed, Error>) {
    if queued.answer.send(result).is_err() {
        tracing::debug!("the caller did not wait for its answer");
    }
}

fn refuse(queued: Queued, shared: &Shared) {
    let refusal = shared.check_writable().err().unwrap_or_else(window_full);
    answer(queued, Err(refusal));
}

fn answer_all(batch: Vec<Queued>, refusal: &Error) {
    for queued in batch {
        answer(queued, Err(Error::new(refusal.kind, refusal.message.clone())));
    }
}

fn fail_waiters(waiters: Vec<Waiter>, error: &Error) {
    for waiter in waiters {
        if waiter.answer.send(Err(Error::new(error.kind, error.message.clone()))).is_err() {
            tracing::debug!("the caller did not wait for its answer");
        }
    }
}

#[cfg(test)]
mod tests;
