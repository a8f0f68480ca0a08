//! How long a provider may take before another shard is asked as well.
//!
//! Each provider has a smoothed answer time per size class, in the manner of TCP's retransmission timer (RFC 6298): mean plus
//! four mean deviations. Beyond it the read asks elsewhere, within a budget of 5 % extra requests, and avoids the provider for
//! a while that doubles with every strike. An error needs no budget: it fails over at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use diaspore_provider::ProviderId;
use tokio::time::Instant;

/// No answer is called late before this: below it lies the noise of a busy machine.
const LEAST_PATIENCE: Duration = Duration::from_millis(30);
/// What is granted before a provider has answered once: this plus a rate of 16 MB/s.
const FIRST_PATIENCE: Duration = Duration::from_millis(60);
const FIRST_BYTES_PER_MS: u64 = 16_000;
/// Ends the growth of patience with a provider that gets slower and slower.
const MOST_PATIENCE: Duration = Duration::from_secs(5);
/// Avoidance after the first strike; doubles up to `LONGEST_AVOIDANCE`.
const FIRST_AVOIDANCE: Duration = Duration::from_millis(500);
const LONGEST_AVOIDANCE: Duration = Duration::from_secs(15);
/// One extra request per this many plain ones (5 %), and how many may be saved up: some slow answers at once after a quiet hour.
const PLAIN_PER_EXTRA: u32 = 20;
const SAVED_EXTRA: u32 = 64;

const CLASSES: usize = 3;

fn class_of(bytes: u64) -> usize {
    match bytes {
        0..=0x2_0000 => 0,
        0x2_0001..=0x10_0000 => 1,
        _ => 2,
    }
}

#[derive(Debug, Clone, Copy)]
struct Timer {
    mean: Duration,
    deviation: Duration,
}

#[derive(Debug, Clone, Default)]
struct Track {
    timers: [Option<Timer>; CLASSES],
    strikes: u32,
    avoided_until: Option<Instant>,
}

#[derive(Debug)]
struct State {
    tracks: BTreeMap<ProviderId, Track>,
    /// In twentieths of a request.
    credit: u32,
    plain: u64,
    extra: u64,
}

/// Answer times of all providers and the hedging budget.
#[derive(Debug)]
pub(crate) struct Pace {
    state: Mutex<State>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { state: Mutex::new(State { tracks: BTreeMap::new(), credit: SAVED_EXTRA * PLAIN_PER_EXTRA, plain: 0, extra: 0 }) }
    }
}

impl Pace {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long an answer of `bytes` may take before it counts as late.
    pub(crate) fn patience(&self, provider: &ProviderId, bytes: u64) -> Duration {
        let known = self.with(|state| state.tracks.get(provider).and_then(|track| track.timers.get(class_of(bytes)).copied().flatten()));
        match known {
            Some(timer) => (timer.mean + timer.deviation * 4).clamp(LEAST_PATIENCE, MOST_PATIENCE),
            None => FIRST_PATIENCE + Duration::from_millis(bytes / FIRST_BYTES_PER_MS),
        }
    }

    /// Counts a request that is about to be sent: it earns a twentieth of an extra one.
    pub(crate) fn sent(&self) {
        self.with(|state| {
            state.plain += 1;
            state.credit = (state.credit + 1).min(SAVED_EXTRA * PLAIN_PER_EXTRA);
        });
    }

    /// Takes so many extra requests from the budget, all or none. Slowness alone costs: an error fails over without asking here.
    pub(crate) fn take_hedge(&self, requests: u32) -> bool {
        self.with(|state| match state.credit.checked_sub(requests.saturating_mul(PLAIN_PER_EXTRA)) {
            Some(rest) => {
                state.credit = rest;
                state.extra += u64::from(requests);
                true
            }
            None => false,
        })
    }

    /// Requests sent, and extra ones that slowness was granted.
    pub(crate) fn requests(&self) -> (u64, u64) {
        self.with(|state| (state.plain, state.extra))
    }

    /// Notes a good answer.
    pub(crate) fn answered(&self, provider: &ProviderId, bytes: u64, took: Duration) {
        self.with(|state| {
            let track = state.tracks.entry(provider.clone()).or_default();
            track.strikes = 0;
            track.avoided_until = None;
            if let Some(timer) = track.timers.get_mut(class_of(bytes)) {
                *timer = Some(match *timer {
                    None => Timer { mean: took, deviation: took / 2 },
                    Some(Timer { mean, deviation }) => {
                        Timer { mean: (mean * 7 + took) / 8, deviation: (deviation * 3 + took.abs_diff(mean)) / 4 }
                    }
                });
            }
        });
    }

    /// Notes a late, failed or wrong answer: the provider is asked last for a while.
    pub(crate) fn strike(&self, provider: &ProviderId, now: Instant) {
        self.with(|state| {
            let track = state.tracks.entry(provider.clone()).or_default();
            // Strikes of requests that were under way together count once.
            if track.avoided_until.is_none_or(|until| until <= now) {
                let span = FIRST_AVOIDANCE.saturating_mul(1 << track.strikes.min(8)).min(LONGEST_AVOIDANCE);
                track.strikes += 1;
                track.avoided_until = Some(now + span);
            }
        });
    }

    /// Whether the provider struck out lately.
    pub(crate) fn is_avoided(&self, provider: &ProviderId, now: Instant) -> bool {
        self.with(|state| state.tracks.get(provider).and_then(|track| track.avoided_until).is_some_and(|until| until > now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> ProviderId {
        ProviderId::new("p").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn patience_follows_what_was_seen() {
        let pace = Pace::default();
        assert_eq!(pace.patience(&provider(), 65_536), Duration::from_millis(64));
        for _ in 0..50 {
            pace.answered(&provider(), 65_536, Duration::from_millis(2));
        }
        assert_eq!(pace.patience(&provider(), 65_536), LEAST_PATIENCE);
        for _ in 0..50 {
            pace.answered(&provider(), 65_536, Duration::from_millis(200));
        }
        let patience = pace.patience(&provider(), 65_536);
        assert!((Duration::from_millis(190)..Duration::from_millis(260)).contains(&patience), "{patience:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn strikes_double_and_an_answer_clears_them() {
        let (pace, id) = (Pace::default(), provider());
        pace.strike(&id, Instant::now());
        pace.strike(&id, Instant::now());
        assert!(pace.is_avoided(&id, Instant::now()));
        tokio::time::advance(FIRST_AVOIDANCE).await;
        assert!(!pace.is_avoided(&id, Instant::now()));
        pace.strike(&id, Instant::now());
        tokio::time::advance(FIRST_AVOIDANCE).await;
        assert!(pace.is_avoided(&id, Instant::now()));
        pace.answered(&id, 10, Duration::from_millis(1));
        assert!(!pace.is_avoided(&id, Instant::now()));
    }

    #[tokio::test]
    async fn hedges_stay_at_five_percent() {
        let pace = Pace::default();
        let burst = (0..100).filter(|_| pace.take_hedge(1)).count();
        assert_eq!(burst, SAVED_EXTRA as usize);
        // What is granted counts by the request: rebuilding from three others is three.
        for requests in [1, 3] {
            let before = pace.requests();
            for _ in 0..6000 {
                pace.sent();
                pace.take_hedge(requests);
            }
            let (plain, extra) = (pace.requests().0 - before.0, pace.requests().1 - before.1);
            assert_eq!((plain, extra), (6000, 300));
        }
    }
}
