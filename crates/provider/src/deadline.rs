//! How long a request may take, in total and without progress.

use std::time::Duration;

/// Limits of one request. Waiting for a free slot of our own concurrency limit has the same total on top and is never blamed on the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// From the start of the request to its last byte.
    pub total: Duration,
    /// Reads only: longest time until the response starts, and longest window in which less than [`Deadline::MIN_PROGRESS`] bytes arrive.
    pub stall: Duration,
}

/// Bytes per second below which a transfer is not worth waiting for.
const SLOWEST_RATE: u64 = 128 * 1024;

impl Deadline {
    /// Bytes that must arrive per stall window (or the rest of the body, if less): a body dripping byte by byte is cut like a frozen one.
    pub const MIN_PROGRESS: u64 = 16 * 1024;

    /// Both limits given.
    pub const fn new(total: Duration, stall: Duration) -> Self {
        Self { total, stall }
    }

    /// For requests without a payload (head, list, delete, claims): 10 s in total, 3 s without progress.
    pub const fn control() -> Self {
        Self::new(Duration::from_secs(10), Duration::from_secs(3))
    }

    /// For moving so many bytes: 10 s plus the time they take at 128 KiB/s, 3 s without progress.
    pub const fn transfer(bytes: u64) -> Self {
        Self::new(Duration::from_millis(10_000 + bytes.saturating_mul(1000) / SLOWEST_RATE), Duration::from_secs(3))
    }

    /// The same with both limits multiplied, for a second, more patient try.
    #[must_use]
    pub const fn times(self, factor: u32) -> Self {
        Self::new(self.total.saturating_mul(factor), self.stall.saturating_mul(factor))
    }
}
