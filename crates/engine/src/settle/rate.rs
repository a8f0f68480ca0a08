//! Bytes per second that repair may move.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that fills by the second and may be overdrawn once: a repair is one piece.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Rate {
    /// Holds at most one second's worth.
    pub(super) fn new(bytes_per_second: u64, now: Instant) -> Self {
        let per_second = float(bytes_per_second.max(1));
        Self { per_second, left: per_second, at: now }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.per_second);
        self.at = now;
    }

    /// Whether anything is left.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.left > 0.0
    }

    /// Takes `bytes` out, on credit if need be.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.left -= float(bytes);
    }

    /// When there is room again; `None` if there is.
    pub(super) fn wait(&self) -> Option<Duration> {
        (self.left <= 0.0).then(|| Duration::try_from_secs_f64((1.0 - self.left) / self.per_second).unwrap_or(Duration::from_hours(1)))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a budget in bytes")]
const fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_overdrawn_is_waited_for() {
        let mut rate = Rate::new(1000, Instant::now());
        assert!(rate.has_room(Instant::now()));
        rate.spend(5000);
        assert!(!rate.has_room(Instant::now()));
        let wait = rate.wait().unwrap();
        assert!((Duration::from_secs(4)..Duration::from_millis(4100)).contains(&wait), "{wait:?}");
        tokio::time::advance(wait).await;
        assert!(rate.has_room(Instant::now()) && rate.wait().is_none());
        tokio::time::advance(Duration::from_hours(1)).await;
        assert!(rate.has_room(Instant::now()));
        rate.spend(1000);
        assert!(!rate.has_room(Instant::now()), "an idle hour saves up one second's worth");
    }
}
