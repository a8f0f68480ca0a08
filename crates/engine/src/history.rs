//! What happened lately: counts per quarter of an hour that outlive a restart.
//!
//! Counters start at zero with the process; "the last 24 hours" must not. So the growth of the counters is added up in short spans of
//! wall time. The engine keeps them in memory and hands them out; whoever starts it keeps them on disk and gives them back. They hold
//! counts, and when garbage was last collected; lost, that is due an hour later.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diaspore_block::id::Timestamp;

/// Length of a span.
const SPAN_MS: u64 = 15 * 60 * 1000;
/// What is kept: two days.
const KEPT_MS: u64 = 2 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Counts of one span, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Milliseconds in which the service ran: what rates are to be divided by.
    pub running_ms: u64,
    /// Puts.
    pub puts: u64,
    /// Reads.
    pub gets: u64,
    /// Deletes.
    pub deletes: u64,
    /// Merkle leaves and signatures made.
    pub proofs: u64,
    /// Reads that needed another shard than the first choice.
    pub failovers: u64,
    /// Reads that failed because too few shards could be had.
    pub failed_reads: u64,
    /// Requests sent to providers.
    pub provider_requests: u64,
}

impl Counts {
    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            running_ms: with(self.running_ms, other.running_ms),
            puts: with(self.puts, other.puts),
            gets: with(self.gets, other.gets),
            deletes: with(self.deletes, other.deletes),
            proofs: with(self.proofs, other.proofs),
            failovers: with(self.failovers, other.failovers),
            failed_reads: with(self.failed_reads, other.failed_reads),
            provider_requests: with(self.provider_requests, other.provider_requests),
        }
    }
}

/// Counts by the start of their span, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct History {
    spans: BTreeMap<u64, Counts>,
    /// When the last collection of garbage ended, in milliseconds since the Unix epoch; before the first, when it was first asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collected_ms: Option<u64>,
}

impl History {
    fn add(&mut self, now: Timestamp, grown: Counts) {
        let start = now.0 - now.0 % SPAN_MS;
        let span = self.spans.entry(start).or_default();
        *span = span.zip(grown, u64::saturating_add);
        // Spans of the future were noted before the clock was set back; they would never leave otherwise.
        self.spans.retain(|at, _| (start.saturating_sub(KEPT_MS)..=start).contains(at));
    }

    /// The last 24 hours, and up to a quarter of an hour more.
    fn last_day(&self, now: Timestamp) -> Counts {
        let since = now.0.saturating_sub(DAY_MS + SPAN_MS);
        self.spans.range(since.saturating_add(1)..).fold(Counts::default(), |sum, (_, span)| sum.zip(*span, u64::saturating_add))
    }
}

/// Turns counters since the start into a history.
#[derive(Debug)]
pub(crate) struct Recorder(Mutex<(History, Counts)>);

impl Recorder {
    /// Goes on from what was kept.
    pub(crate) fn new(kept: History) -> Self {
        Self(Mutex::new((kept, Counts::default())))
    }

    fn state(&self) -> MutexGuard<'_, (History, Counts)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the counters say now. Gives the last 24 hours.
    pub(crate) fn note(&self, now: Timestamp, since_start: Counts) -> Counts {
        let mut state = self.state();
        let (history, last) = &mut *state;
        history.add(now, since_start.zip(*last, u64::saturating_sub));
        *last = since_start.zip(*last, u64::max);
        history.last_day(now)
    }

    /// Notes that a collection of garbage ended.
    pub(crate) fn collected(&self, now: Timestamp) {
        self.state().0.collected_ms = Some(now.0);
    }

    /// Time since the last collection of garbage, restarts included. Begins when it is first asked for, and anew when the clock was set
    /// back behind it.
    pub(crate) fn since_collection(&self, now: Timestamp) -> Duration {
        let mut state = self.state();
        let last = state.0.collected_ms.filter(|last| *last <= now.0).unwrap_or(now.0);
        state.0.collected_ms = Some(last);
        Duration::from_millis(now.0 - last)
    }

    pub(crate) fn history(&self) -> History {
        self.state().0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;

    fn at(minutes: u64) -> Timestamp {
        Timestamp(START + minutes * 60_000)
    }

    fn counts(minutes: u64, puts: u64) -> Counts {
        Counts { running_ms: minutes * 60_000, puts, ..Counts::default() }
    }

    #[test]
    fn growth_counts_once_and_leaves_after_a_day() {
        let recorder = Recorder::new(History::default());
        // Five puts at once, two an hour later: a day after them, and no more than a span beyond, they are gone.
        for minute in 0..=26 * 60 {
            let day = recorder.note(at(minute), counts(minute, if minute < 60 { 5 } else { 7 }));
            let wanted: &[u64] = match minute {
                0..60 => &[5],
                60..=1440 => &[7],
                1441..1455 => &[7, 2],
                1455..=1500 => &[2],
                1501..1515 => &[2, 0],
                _ => &[0],
            };
            assert!(wanted.contains(&day.puts), "{minute}: {day:?}");
            assert!(day.running_ms <= DAY_MS + SPAN_MS && (minute < 1440 || day.running_ms >= DAY_MS), "{minute}: {day:?}");
        }
    }

    #[test]
    fn a_restart_goes_on_and_time_between_does_not_count_as_running() {
        let before = Recorder::new(History::default());
        before.note(at(0), counts(0, 0));
        before.note(at(60), counts(60, 9));
        // Ten hours later.
        let after = Recorder::new(before.history());
        assert_eq!(after.note(at(660), counts(0, 0)), counts(60, 9));
        assert_eq!(after.note(at(670), counts(10, 1)), counts(70, 10));
    }

    #[test]
    fn a_collection_is_counted_from_over_restarts() {
        let mut recorder = Recorder::new(History::default());
        for minute in 0..50 {
            // A restart every ten minutes.
            if minute % 10 == 9 {
                recorder = Recorder::new(recorder.history());
            }
            assert_eq!(recorder.since_collection(at(minute)), Duration::from_mins(minute));
        }
        recorder.collected(at(50));
        assert_eq!(recorder.since_collection(at(57)), Duration::from_mins(7));
        assert_eq!(recorder.since_collection(at(20)), Duration::ZERO, "the clock was set back");
        assert_eq!(recorder.since_collection(at(30)), Duration::from_mins(10));
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_the_clock_does() {
        let recorder = Recorder::new(History::default());
        for hour in 0..1000 {
            recorder.note(at(hour * 60), counts(hour * 60, hour));
        }
        assert_eq!(recorder.history().spans.len(), 49);
        assert_eq!(recorder.note(at(0), counts(60_000, 1000)).puts, 1, "set back, the clock starts anew");
        assert_eq!(recorder.history().spans.len(), 1);
    }
}
