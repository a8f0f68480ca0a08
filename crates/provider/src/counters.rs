//! What was asked of a provider, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{ErrorKind, Operation};

/// Requests, bytes and failures of one provider since start, by value. Requests that never left the process are in `refused` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// PUT requests sent.
    pub puts: u64,
    /// GET requests sent.
    pub gets: u64,
    /// HEAD requests sent.
    pub heads: u64,
    /// LIST requests sent (a listing counts once, however many pages).
    pub lists: u64,
    /// DELETE requests sent.
    pub deletes: u64,
    /// Payload bytes offered by PUT.
    pub bytes_up: u64,
    /// Payload bytes received by GET.
    pub bytes_down: u64,
    /// Requests that failed by the provider's fault (missing objects and taken names do not count).
    pub errors: u64,
    /// Of these: deadlines passed.
    pub timeouts: u64,
    /// Of these: refused for credentials or permissions.
    pub denied: u64,
    /// Answers that failed verification above.
    pub lies: u64,
    /// Requests refused here: breaker open or no free slot.
    pub refused: u64,
    /// Times the breaker opened.
    pub breaker_opened: u64,
}

impl Counters {
    /// All requests sent.
    pub fn requests(&self) -> u64 {
        self.puts + self.gets + self.heads + self.lists + self.deletes
    }

    /// Requests billed as writes: PUT and LIST.
    pub fn writes(&self) -> u64 {
        self.puts + self.lists
    }

    /// Requests billed as reads: GET and HEAD.
    pub fn reads(&self) -> u64 {
        self.gets + self.heads
    }
}

/// The live counters. Each is exact; a snapshot is not a consistent cut of all.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    puts: AtomicU64,
    gets: AtomicU64,
    heads: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    errors: AtomicU64,
    timeouts: AtomicU64,
    denied: AtomicU64,
    lies: AtomicU64,
    refused: AtomicU64,
    breaker_opened: AtomicU64,
}

fn bump(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Tally {
    pub(crate) fn sent(&self, operation: Operation, bytes_up: u64) {
        let counter = match operation {
            Operation::Put => &self.puts,
            Operation::Get => &self.gets,
            Operation::Head => &self.heads,
            Operation::List => &self.lists,
            Operation::Delete => &self.deletes,
        };
        bump(counter, 1);
        bump(&self.bytes_up, bytes_up);
    }

    pub(crate) fn received(&self, bytes: u64) {
        bump(&self.bytes_down, bytes);
    }

    pub(crate) fn failed(&self, kind: ErrorKind) {
        bump(&self.errors, 1);
        match kind {
            ErrorKind::Timeout => bump(&self.timeouts, 1),
            ErrorKind::Denied => bump(&self.denied, 1),
            _ => {}
        }
    }

    pub(crate) fn lied(&self) {
        bump(&self.lies, 1);
    }

    pub(crate) fn refused(&self) {
        bump(&self.refused, 1);
    }

    pub(crate) fn opened(&self) {
        bump(&self.breaker_opened, 1);
    }

    pub(crate) fn snapshot(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            puts: read(&self.puts),
            gets: read(&self.gets),
            heads: read(&self.heads),
            lists: read(&self.lists),
            deletes: read(&self.deletes),
            bytes_up: read(&self.bytes_up),
            bytes_down: read(&self.bytes_down),
            errors: read(&self.errors),
            timeouts: read(&self.timeouts),
            denied: read(&self.denied),
            lies: read(&self.lies),
            refused: read(&self.refused),
            breaker_opened: read(&self.breaker_opened),
        }
    }
}
