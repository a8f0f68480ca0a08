//! Whether an account takes writes, which is another question than whether it answers: over its quota, with its disk full, or with a key
//! that may only read, it gives whatever was asked of it and refuses every PUT.
//!
//! [`BreakerOptions::failures`] failed PUTs in a row, or one that says "no room", shut the gate, and nothing but a PUT that succeeds opens it
//! again. As with the breaker, one trial is let through when a pause is over, and each that fails doubles the next pause. A small trial may
//! fit where a shard does not; so the pauses go on from where they were until the gate has been open for [`CALM`].

use std::time::Duration;

use tokio::time::Instant;

use super::BreakerOptions;

/// After so long without a failed PUT the next pause is a first one.
const CALM: Duration = Duration::from_mins(5);

#[derive(Debug, Default)]
pub(super) struct Writes {
    failures: u32,
    failed_at: Option<Instant>,
    /// Until when no PUT is sent; the gate stays shut until one succeeds.
    shut_until: Option<Instant>,
    pause: Duration,
    trying: bool,
    full: bool,
}

impl Writes {
    pub(super) fn is_open(&self) -> bool {
        self.shut_until.is_none()
    }

    /// Whether it last said that it has no room.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Time until a trial is let through; `None` while all are.
    pub(super) fn retry_in(&self, now: Instant) -> Option<Duration> {
        self.shut_until.map(|until| until.saturating_duration_since(now))
    }

    pub(super) fn admits(&self, now: Instant) -> bool {
        self.shut_until.is_none_or(|until| !self.trying && now >= until)
    }

    /// A PUT is on its way: behind a gate that is shut it is the trial.
    pub(super) fn sent(&mut self) {
        self.trying = !self.is_open();
    }

    /// A PUT ended without a word about the next one.
    pub(super) fn abandoned(&mut self) {
        self.trying = false;
    }

    /// A PUT succeeded; true when that opened the gate.
    pub(super) fn succeeded(&mut self) -> bool {
        (self.failures, self.trying, self.full) = (0, false, false);
        self.shut_until.take().is_some()
    }

    /// A PUT failed, `full` for want of room; true when that shut the gate.
    pub(super) fn failed(&mut self, now: Instant, full: bool, options: BreakerOptions) -> bool {
        let calm = self.failed_at.replace(now).is_none_or(|last| now.duration_since(last) >= CALM);
        self.failures = self.failures.saturating_add(1);
        self.full = full;
        let was_open = self.is_open();
        let due = if was_open { full || self.failures >= options.failures } else { self.shut_until.is_some_and(|until| now >= until) };
        self.trying = false;
        if due {
            let longer = if calm { Duration::ZERO } else { self.pause * 2 };
            self.pause = longer.clamp(options.first_pause, options.longest_pause);
            self.shut_until = Some(now + self.pause);
        }
        was_open && due
    }
}
