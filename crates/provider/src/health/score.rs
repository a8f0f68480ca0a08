//! One number for how well an account served lately.
//!
//! `score = 100 · A · (1 - E)² · L · T` over the last fifteen minutes, rounded:
//!
//! - `A`, availability: the share of that time in which the breaker was closed.
//! - `E`, errors: failed requests over all requests. Squared, since a failed request costs the caller a second one.
//! - `L`, latency: 1 up to 250 ms of smoothed answer time, then 250 ms over it, at least 0.25.
//! - `T`, truth: halved by every lie, times the share of sampled audits that were right.
//!
//! Nothing asked yet is no score: an account that was never heard is not a good one.

use std::time::Duration;

use super::ring::Minute;

/// Smoothed answer time that costs nothing.
const GOOD_LATENCY: Duration = Duration::from_millis(250);
/// The most that slowness alone takes away.
const LEAST_LATENCY: f64 = 0.25;
/// Lies beyond which there is nothing left to halve.
const MOST_LIES: u32 = 16;

/// 0 to 100; `None` while nothing is known.
pub(crate) fn score(sum: &Minute, latency: Duration) -> Option<u8> {
    if sum.requests == 0 && sum.audits == 0 && sum.down.is_zero() {
        return None;
    }
    let share = |part: f64, of: f64| if of > 0.0 { (part / of).clamp(0.0, 1.0) } else { 0.0 };
    let available = 1.0 - share(sum.down.as_secs_f64(), sum.passed.as_secs_f64());
    let well = 1.0 - share(sum.failures.into(), sum.requests.into());
    let quick = if latency <= GOOD_LATENCY { 1.0 } else { (GOOD_LATENCY.as_secs_f64() / latency.as_secs_f64()).max(LEAST_LATENCY) };
    let lies = i32::try_from(sum.lies.min(MOST_LIES)).unwrap_or_default();
    let true_ = 0.5_f64.powi(lies) * (1.0 - share(sum.bad_audits.into(), sum.audits.into()));
    let total = (100.0 * available * well * well * quick * true_).round();
    // In range by construction; the comparison keeps the cast honest.
    (0..=100_u8).rev().find(|score| f64::from(*score) <= total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute() -> Minute {
        Minute { requests: 100, passed: Duration::from_mins(15), ..Minute::default() }
    }

    #[test]
    fn each_term_counts_as_the_formula_says() {
        let quick = Duration::from_millis(20);
        assert_eq!(score(&Minute::default(), quick), None, "never heard");
        assert_eq!(score(&minute(), quick), Some(100));
        assert_eq!(score(&Minute { failures: 10, ..minute() }, quick), Some(81));
        assert_eq!(score(&Minute { lies: 2, ..minute() }, quick), Some(25));
        assert_eq!(score(&Minute { lies: 1000, ..minute() }, quick), Some(0));
        assert_eq!(score(&Minute { audits: 4, bad_audits: 1, ..minute() }, quick), Some(75));
        assert_eq!(score(&Minute { down: Duration::from_mins(9), ..minute() }, quick), Some(40));
        assert_eq!(score(&minute(), Duration::from_millis(500)), Some(50));
        assert_eq!(score(&minute(), Duration::from_mins(1)), Some(25));
    }
}
