//! Provider requests cost money: a token bucket of requests decides whether a block leaves at once or waits for company.

use std::time::Duration;

use diaspore_policy::RequestBudget;
use tokio::time::Instant;

/// Requests that may be spent now; refills at the sustained rate up to the burst.
#[derive(Debug)]
pub(crate) struct Bucket {
    budget: RequestBudget,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(budget: RequestBudget, now: Instant) -> Self {
        Self { budget, tokens: f64::from(budget.burst), at: now }
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(self.budget.sustained_per_second);
        self.tokens = (self.tokens + gained).min(f64::from(self.budget.burst));
        self.at = now;
    }

    /// How long until `requests` are within the budget, at most `longest`.
    pub(crate) fn wait(&mut self, requests: u8, now: Instant, longest: Duration) -> Duration {
        self.refill(now);
        let lacking = f64::from(requests) - self.tokens;
        if lacking <= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(lacking / f64::from(self.budget.sustained_per_second.max(1))).min(longest)
    }

    /// Spends them; the account may go into debt by one burst, since lingering is bounded.
    pub(crate) fn spend(&mut self, requests: u8, now: Instant) {
        self.refill(now);
        self.tokens = (self.tokens - f64::from(requests)).max(-f64::from(self.budget.burst));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn inside_the_budget_at_once_beyond_it_later() {
        let now = Instant::now();
        let longest = Duration::from_millis(250);
        let mut bucket = Bucket::new(RequestBudget { burst: 10, sustained_per_second: 10 }, now);
        assert_eq!(bucket.wait(5, now, longest), Duration::ZERO);
        bucket.spend(5, now);
        bucket.spend(5, now);
        assert_eq!(bucket.wait(1, now, longest), Duration::from_millis(100));
        assert_eq!(bucket.wait(5, now, longest), longest);
        let later = now + Duration::from_secs(1);
        assert_eq!(bucket.wait(10, later, longest), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn neither_savings_nor_debts_exceed_one_burst() {
        let now = Instant::now();
        let longest = Duration::from_mins(1);
        let mut bucket = Bucket::new(RequestBudget { burst: 10, sustained_per_second: 2 }, now);
        let later = now + Duration::from_hours(1);
        assert_eq!(bucket.wait(10, later, longest), Duration::ZERO);
        assert_eq!(bucket.wait(11, later, longest), Duration::from_millis(500), "an hour of rest saves one burst");
        bucket.spend(200, later);
        assert_eq!(bucket.wait(2, later, longest), Duration::from_secs(6), "ten owed and two wanted at two a second");
        assert_eq!(bucket.wait(2, later + Duration::from_secs(5), longest), Duration::from_secs(1));
        let mut stopped = Bucket::new(RequestBudget { burst: 0, sustained_per_second: 0 }, now);
        assert_eq!(stopped.wait(3, later, longest), Duration::from_secs(3), "no rate counts as one a second");
    }
}
