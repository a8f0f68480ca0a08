//! Events that are not mutations: reads, denials, faults. They wait in a bounded queue, are counted together while they wait,
//! and join the next commit block, within a minute. What does not fit is counted and said.

mod export;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use diaspore_block::id::{BucketId, PrincipalId, TenantId, VersionId};
use diaspore_block::record::{AccessDenied, AuditDropped, AuditExported, BlobRead, IntegrityFault, Outcome, Private, ProviderFault};
use tokio::sync::Notify;

use crate::commit::NewRecord;

pub use export::AuditLine;
pub(crate) use export::{checkpoint, export};

/// Different events that may wait at once.
const MAX_WAITING: usize = 4096;
/// Longest time an event waits for company.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(50);

/// Something worth a line in the log. Equal events that wait together become one line with a count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// Somebody read a version.
    BlobRead { tenant: TenantId, principal: PrincipalId, bucket: BucketId, key: Vec<u8>, version: VersionId },
    /// Somebody was turned away; in a few words, without names.
    AccessDenied { tenant: TenantId, principal: PrincipalId, what: String },
    /// A provider did not do what was asked.
    ProviderFault { provider: String, what: String },
    /// A provider's bytes failed verification.
    IntegrityFault { provider: String, what: String },
    /// Somebody took a copy of these leaves.
    Exported { principal: PrincipalId, from: u64, to: u64 },
}

impl Event {
    /// One record for `count` equal events.
    fn into_record(self, count: u64) -> NewRecord {
        match self {
            Self::BlobRead { tenant, principal, bucket, key, version } => {
                let read = BlobRead { bucket, key, version, count, bytes: 0 };
                NewRecord { tenant, ..NewRecord::system(read).about(version).by(principal) }
            }
            Self::AccessDenied { tenant, principal, what } => {
                let denied = NewRecord::system(AccessDenied { what, count }).by(principal);
                NewRecord { tenant, outcome: Outcome::Denied, ..denied }
            }
            Self::ProviderFault { provider, what } => {
                NewRecord { outcome: Outcome::Failed, ..NewRecord::system(ProviderFault { provider, what, count }) }
            }
            Self::IntegrityFault { provider, what } => {
                let fault = IntegrityFault { provider, what, block: None, count };
                NewRecord { outcome: Outcome::Failed, ..NewRecord::system(fault) }
            }
            Self::Exported { principal, from, to } => NewRecord::system(AuditExported { from, to }).by(principal),
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    events: BTreeMap<Event, u64>,
    dropped: u64,
}

/// Events on their way into the log.
#[derive(Debug, Default)]
pub(crate) struct AuditQueue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

impl AuditQueue {
    /// Notes an event. Never waits, never fails: under flood it counts.
    pub(crate) fn note(&self, event: Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let full = waiting.events.len() >= MAX_WAITING;
        match waiting.events.get_mut(&event) {
            Some(count) => *count = count.saturating_add(1),
            None if full => waiting.dropped = waiting.dropped.saturating_add(1),
            None => {
                waiting.events.insert(event, 1);
            }
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Resolves once something waits.
    pub(crate) async fn arrived(&self) {
        while self.is_empty() {
            self.arrived.notified().await;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.events.is_empty() && waiting.dropped == 0
    }

    /// Takes up to `limit` different events, oldest order not kept. Whoever does not log them gives them back or up.
    pub(crate) fn take(&self, limit: usize) -> Taken {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Taken { events: Vec::new(), dropped: std::mem::take(&mut waiting.dropped) };
        while taken.events.len() < limit
            && let Some(event) = waiting.events.pop_first()
        {
            taken.events.push(event);
        }
        taken
    }

    /// Lets events wait for the next block.
    pub(crate) fn put_back(&self, taken: Taken) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.dropped = waiting.dropped.saturating_add(taken.dropped);
        for (event, count) in taken.events {
            if waiting.events.len() >= MAX_WAITING && !waiting.events.contains_key(&event) {
                waiting.dropped = waiting.dropped.saturating_add(count);
            } else {
                let waits = waiting.events.entry(event).or_default();
                *waits = waits.saturating_add(count);
            }
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Counts events as dropped: no block could be made with them.
    pub(crate) fn give_up(&self, taken: &Taken) {
        let lost = taken.events.iter().fold(taken.dropped, |sum, (_, count)| sum.saturating_add(*count));
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.dropped = waiting.dropped.saturating_add(lost);
        drop(waiting);
        self.arrived.notify_one();
    }
}

/// Events on their way from the queue into a block.
#[derive(Debug)]
pub(crate) struct Taken {
    events: Vec<(Event, u64)>,
    dropped: u64,
}

impl Taken {
    /// One record for all equal events, and one for what had no room.
    pub(crate) fn records(&self) -> impl Iterator<Item = NewRecord> {
        let dropped = (self.dropped > 0).then(|| NewRecord::system(Private::from(AuditDropped { count: self.dropped })));
        dropped.into_iter().chain(self.events.iter().map(|(event, count)| event.clone().into_record(*count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(number: u64) -> Event {
        Event::ProviderFault { provider: number.to_string(), what: "test".to_owned() }
    }

    #[test]
    fn events_that_make_no_block_come_back_or_are_counted() {
        let queue = AuditQueue::default();
        for number in [1, 1, 2, 3] {
            queue.note(fault(number));
        }
        let taken = queue.take(2);
        assert_eq!(taken.events, [(fault(1), 2), (fault(2), 1)]);
        queue.note(fault(1));
        queue.put_back(taken);
        let taken = queue.take(9);
        assert_eq!(taken.events, [(fault(1), 3), (fault(2), 1), (fault(3), 1)]);
        assert!(queue.is_empty());
        queue.give_up(&taken);
        let again = queue.take(9);
        assert_eq!((again.events.len(), again.dropped), (0, 5));
        assert_eq!(again.records().count(), 1);
        // A queue that filled up meanwhile counts what has no room.
        for number in 0..MAX_WAITING as u64 {
            queue.note(fault(10 + number));
        }
        queue.put_back(taken);
        assert_eq!(queue.take(0).dropped, 5);
    }
}
