//! What a provider did in each of the last fifteen minutes.

use std::time::Duration;

use tokio::time::Instant;

/// Minutes that are remembered, the present one included.
pub const MINUTES: usize = 15;
const MINUTE: Duration = Duration::from_mins(1);

/// One minute of one provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Minute {
    /// Requests that ended, well or not.
    pub requests: u32,
    /// Of these: failed by the provider's fault.
    pub failures: u32,
    /// Bytes that failed verification above.
    pub lies: u32,
    /// Sampled shards that were held against the signed roots.
    pub audits: u32,
    /// Of these: wrong or not there.
    pub bad_audits: u32,
    /// How long the breaker was open.
    pub down: Duration,
    /// How much of the minute has passed.
    pub passed: Duration,
}

impl Minute {
    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
        self.lies = self.lies.saturating_add(other.lies);
        self.audits = self.audits.saturating_add(other.audits);
        self.bad_audits = self.bad_audits.saturating_add(other.bad_audits);
        self.down += other.down;
        self.passed += other.passed;
    }
}

/// The last [`MINUTES`] minutes.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Where time is counted up to.
    at: Instant,
    /// Newest last.
    minutes: [Minute; MINUTES],
}

impl Ring {
    pub(crate) fn new(now: Instant) -> Self {
        Self { at: now, minutes: [Minute::default(); MINUTES] }
    }

    /// Counts the time up to `now`, during which the breaker was open or not, and gives the present minute.
    pub(crate) fn pass(&mut self, now: Instant, down: bool) -> &mut Minute {
        let mut left = now.saturating_duration_since(self.at);
        self.at = now.max(self.at);
        // Longer ago than anything remembered: only the end of it counts.
        let span = MINUTE.saturating_mul(u32::try_from(MINUTES).unwrap_or(u32::MAX));
        left = left.min(span.saturating_mul(2));
        loop {
            let present = newest(&mut self.minutes);
            let step = left.min(MINUTE.saturating_sub(present.passed));
            present.passed += step;
            if down {
                present.down += step;
            }
            left -= step;
            if left.is_zero() {
                break;
            }
            self.minutes.rotate_left(1);
            *newest(&mut self.minutes) = Minute::default();
        }
        newest(&mut self.minutes)
    }

    /// Every minute, oldest first.
    pub(crate) fn minutes(&self) -> [Minute; MINUTES] {
        self.minutes
    }

    /// Their sum.
    pub(crate) fn sum(&self) -> Minute {
        self.minutes.iter().fold(Minute::default(), |mut sum, minute| {
            sum.add(minute);
            sum
        })
    }
}

fn newest(minutes: &mut [Minute; MINUTES]) -> &mut Minute {
    let [.., newest] = minutes;
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_and_counts_leave_after_fifteen_minutes() {
        let mut ring = Ring::new(Instant::now());
        ring.pass(Instant::now(), false).requests = 7;
        tokio::time::advance(Duration::from_secs(90)).await;
        ring.pass(Instant::now(), false).failures += 1;
        tokio::time::advance(Duration::from_secs(45)).await;
        ring.pass(Instant::now(), true);
        let sum = ring.sum();
        assert_eq!((sum.requests, sum.failures), (7, 1));
        assert_eq!((sum.passed.as_secs(), sum.down.as_secs()), (135, 45));
        assert_eq!(ring.minutes()[MINUTES - 3].requests, 7, "two minutes ago");
        tokio::time::advance(Duration::from_mins(13)).await;
        ring.pass(Instant::now(), false);
        assert_eq!(ring.sum().requests, 0, "forgotten");
        tokio::time::advance(Duration::from_hours(1)).await;
        ring.pass(Instant::now(), false);
        let sum = ring.sum();
        assert_eq!((sum.down, sum.failures), (Duration::ZERO, 0));
        assert!(sum.passed <= Duration::from_mins(15));
    }
}
