//! What a provider's answers say about it: latency, errors, lies, and whether to ask it at all.
//!
//! The breaker follows the usual three states. Closed: requests pass. After [`BreakerOptions::failures`] failures in a row it opens
//! and requests are refused at once. When the cool-down is over one request (or [`crate::Fleet::probe`]) passes, half-open: its
//! success closes the breaker, its failure opens it again for twice as long, up to [`BreakerOptions::longest_pause`].
//!
//! A lie does not open the breaker: a provider that flips one shard may hold the k-th good one of another block. It makes the
//! provider suspect for [`BreakerOptions::lie_memory`], so that it is read last and gets few new shards.
//!
//! Whether it takes writes is kept apart from whether it answers, in `health/writes.rs`.

mod ring;
mod score;
mod writes;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use ring::Ring;
pub use ring::{MINUTES, Minute};
use writes::Writes;

use crate::error::Operation;

/// When to stop asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row that open the breaker.
    pub failures: u32,
    /// First cool-down.
    pub first_pause: Duration,
    /// Longest cool-down; with a prober at this pace a provider that came back is seen within it.
    pub longest_pause: Duration,
    /// How long one lie makes a provider suspect.
    pub lie_memory: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            failures: 3,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
            lie_memory: Duration::from_mins(10),
        }
    }
}

/// Verdict in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HealthState {
    /// Answers.
    Healthy,
    /// Failed lately, lied lately, or refuses writes: use it last.
    Suspect,
    /// The breaker is open or half-open: place nothing, ask nothing but a probe.
    Down,
}

/// Health of one provider, by value.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Verdict.
    pub state: HealthState,
    /// Moving average of the time to the first byte of reads and to the answer of small requests; zero before the first answer.
    pub latency_ewma: Duration,
    /// Moving standard deviation of the same.
    pub latency_deviation: Duration,
    /// Moving share of requests that failed, 0.0 to 1.0.
    pub error_rate: f64,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// Time until the breaker admits a request; `None` while it is closed.
    pub retry_in: Option<Duration>,
    /// How long the breaker has been open without a good answer; `None` while it is closed.
    pub down_for: Option<Duration>,
    /// Time since it last answered or failed; `None` before the first time. Requests that nobody waited for do not count.
    pub idle: Option<Duration>,
    /// 0 to 100 over the last fifteen minutes; `None` while nothing is known. The formula is in `health/score.rs`.
    pub score: Option<u8>,
    /// Lied within [`BreakerOptions::lie_memory`].
    pub lying: bool,
    /// Whether new objects may be sent there: PUTs did not fail lately, or one has succeeded since.
    pub takes_writes: bool,
    /// Time until one PUT is let through as a trial; `None` while it takes writes.
    pub write_retry_in: Option<Duration>,
    /// It takes no writes, and has said that it has no room.
    pub full: bool,
    /// What it last failed or lied about.
    pub last_trouble: Option<String>,
}

impl Health {
    /// After this long without an answer a second source is worth asking: mean plus four deviations, within 20 ms to 2 s;
    /// 250 ms before the first measurement.
    pub fn hedge_after(&self) -> Duration {
        if self.latency_ewma.is_zero() {
            return Duration::from_millis(250);
        }
        (self.latency_ewma + self.latency_deviation * 4).clamp(Duration::from_millis(20), Duration::from_secs(2))
    }

    /// Placement weight scaled by health: nothing when it is down or takes no writes, a tenth when suspect.
    pub fn scale_weight(&self, weight: u32) -> u32 {
        match self.state {
            HealthState::Down => 0,
            _ if !self.takes_writes => 0,
            HealthState::Suspect => weight.div_ceil(10),
            HealthState::Healthy => weight,
        }
    }
}

/// Weight of a new latency sample (as TCP's round-trip estimate) and of a new outcome.
const LATENCY_GAIN: f64 = 0.125;
const ERROR_GAIN: f64 = 0.1;
/// How long a single failure keeps a provider suspect if nothing is asked of it meanwhile.
const TROUBLE_MEMORY: Duration = Duration::from_secs(30);

/// Outcome of one request as far as health goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered; with the latency when the request measures one.
    Good(Option<Duration>),
    /// It answered that the name is taken, without having looked at whether it would take the object.
    Taken,
    /// It failed, and this is how.
    Failed(String),
    /// It answered that it has no room.
    Full(String),
    /// Nobody waited for the answer.
    Abandoned,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    heard_at: Option<Instant>,
    down_since: Option<Instant>,
    mean: f64,
    variance: f64,
    measured: bool,
    error_rate: f64,
    failures: u32,
    failed_at: Option<Instant>,
    open_until: Option<Instant>,
    pause: Duration,
    half_open: bool,
    lied_at: Option<Instant>,
    writes: Writes,
    last_trouble: Option<String>,
    retired: bool,
}

/// What an outcome changed for everybody else.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The breaker opened.
    pub(crate) down: bool,
    /// From here on nothing new is sent there, or is again.
    pub(crate) takes_writes: Option<bool>,
}

/// Health of one provider, live.
#[derive(Debug)]
pub(crate) struct Monitor {
    options: BreakerOptions,
    state: Mutex<State>,
}

impl Monitor {
    pub(crate) fn new(options: BreakerOptions) -> Self {
        Self { options, state: Mutex::new(State::new(Instant::now())) }
    }

    /// Whether a request may be sent now. `forced` probes pass an open breaker. An admitted request must report through [`Monitor::settle`].
    pub(crate) fn admit(&self, operation: Operation, forced: bool) -> bool {
        let mut state = self.lock();
        let (now, puts) = (Instant::now(), operation == Operation::Put);
        let trial = state.open_until.is_some() && !forced;
        let early = trial && (state.half_open || state.open_until.is_some_and(|until| now < until));
        if state.retired || early || (puts && !forced && !state.writes.admits(now)) {
            return false;
        }
        state.half_open |= trial;
        if puts {
            state.writes.sent();
        }
        true
    }

    /// Takes in an outcome and says what it changed.
    pub(crate) fn settle(&self, operation: Operation, outcome: Outcome) -> Turn {
        let mut state = self.lock();
        let now = Instant::now();
        let minute = state.pass(now);
        if outcome != Outcome::Abandoned {
            minute.requests = minute.requests.saturating_add(1);
            minute.failures = minute.failures.saturating_add(u32::from(matches!(outcome, Outcome::Failed(_))));
            state.heard_at = Some(now);
        }
        let mut turn = Turn::default();
        if operation == Operation::Put {
            turn.takes_writes = state.wrote(now, &outcome, self.options);
        }
        match outcome {
            Outcome::Good(latency) => state.good(latency),
            Outcome::Taken => state.good(None),
            Outcome::Failed(why) => turn.down = state.failed(why, self.options),
            Outcome::Full(why) => {
                state.last_trouble = Some(why);
                state.half_open = false;
            }
            Outcome::Abandoned => state.half_open = false,
        }
        turn
    }

    pub(crate) fn lied(&self, what: &str) {
        let mut state = self.lock();
        let now = Instant::now();
        let minute = state.pass(now);
        minute.lies = minute.lies.saturating_add(1);
        state.lied_at = Some(now);
        state.last_trouble = Some(what.to_owned());
    }

    /// Asks nothing of it any more, probes included, until told otherwise.
    pub(crate) fn retire(&self, retired: bool) {
        let mut state = self.lock();
        let now = Instant::now();
        state.pass(now);
        if retired && !state.retired {
            state.down_since.get_or_insert(now);
        }
        if !retired && state.retired && state.open_until.is_none() {
            state.down_since = None;
        }
        state.retired = retired;
    }

    /// A sampled shard was held against its signed root.
    pub(crate) fn audited(&self, good: bool) {
        let mut state = self.lock();
        let minute = state.pass(Instant::now());
        minute.audits = minute.audits.saturating_add(1);
        minute.bad_audits = minute.bad_audits.saturating_add(u32::from(!good));
    }

    /// The last fifteen minutes, oldest first.
    pub(crate) fn minutes(&self) -> [Minute; MINUTES] {
        let mut state = self.lock();
        state.pass(Instant::now());
        state.ring.minutes()
    }

    pub(crate) fn health(&self) -> Health {
        let mut state = self.lock();
        let now = Instant::now();
        state.pass(now);
        let within = |at: Option<Instant>, memory: Duration| at.is_some_and(|at| now.duration_since(at) < memory);
        let lying = within(state.lied_at, self.options.lie_memory);
        let takes_writes = state.writes.is_open();
        let troubled = state.failures > 0 && within(state.failed_at, TROUBLE_MEMORY);
        Health {
            state: match state.open_until {
                _ if state.retired => HealthState::Down,
                Some(_) => HealthState::Down,
                None if lying || !takes_writes || troubled => HealthState::Suspect,
                None => HealthState::Healthy,
            },
            latency_ewma: seconds(state.mean),
            latency_deviation: seconds(state.variance.sqrt()),
            error_rate: state.error_rate,
            consecutive_failures: state.failures,
            retry_in: state.open_until.map(|until| until.saturating_duration_since(now)),
            down_for: state.down_since.map(|since| now.saturating_duration_since(since)),
            idle: state.heard_at.map(|at| now.saturating_duration_since(at)),
            score: score::score(&state.ring.sum(), seconds(state.mean)),
            lying,
            takes_writes,
            write_retry_in: state.writes.retry_in(now),
            full: state.writes.is_full(),
            last_trouble: state.last_trouble.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain numbers: a panic elsewhere cannot have left it half-written in a way that matters.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            ring: Ring::new(now),
            heard_at: None,
            down_since: None,
            mean: 0.0,
            variance: 0.0,
            measured: false,
            error_rate: 0.0,
            failures: 0,
            failed_at: None,
            open_until: None,
            pause: Duration::ZERO,
            half_open: false,
            lied_at: None,
            writes: Writes::default(),
            last_trouble: None,
            retired: false,
        }
    }

    /// Counts the time that passed under the present state of the breaker; gives the present minute.
    fn pass(&mut self, now: Instant) -> &mut Minute {
        let down = self.open_until.is_some() || self.retired;
        self.ring.pass(now, down)
    }

    /// Takes in how a PUT ended; says whether writes are taken from here on, where that changed.
    fn wrote(&mut self, now: Instant, outcome: &Outcome, options: BreakerOptions) -> Option<bool> {
        match outcome {
            Outcome::Good(_) => self.writes.succeeded().then_some(true),
            Outcome::Failed(_) => self.writes.failed(now, false, options).then_some(false),
            Outcome::Full(_) => self.writes.failed(now, true, options).then_some(false),
            Outcome::Taken | Outcome::Abandoned => {
                self.writes.abandoned();
                None
            }
        }
    }

    fn good(&mut self, latency: Option<Duration>) {
        self.failures = 0;
        self.open_until = None;
        self.down_since = None;
        self.half_open = false;
        self.pause = Duration::ZERO;
        self.error_rate *= 1.0 - ERROR_GAIN;
        let Some(sample) = latency.map(|latency| latency.as_secs_f64()) else { return };
        if self.measured {
            let distance = sample - self.mean;
            self.mean += LATENCY_GAIN * distance;
            self.variance = (1.0 - LATENCY_GAIN) * (self.variance + LATENCY_GAIN * distance * distance);
        } else {
            (self.mean, self.variance, self.measured) = (sample, (sample / 2.0).powi(2), true);
        }
    }

    fn failed(&mut self, why: String, options: BreakerOptions) -> bool {
        let now = Instant::now();
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(now);
        self.error_rate += ERROR_GAIN * (1.0 - self.error_rate);
        self.last_trouble = Some(why);
        let was_open = self.open_until.is_some_and(|until| now < until);
        if was_open || (self.failures < options.failures && !self.half_open && self.open_until.is_none()) {
            // A late answer to a request sent before the breaker opened prolongs nothing.
            self.half_open = false;
            return false;
        }
        self.pause = if self.pause.is_zero() { options.first_pause } else { (self.pause * 2).min(options.longest_pause) };
        self.open_until = Some(now + self.pause);
        self.down_since.get_or_insert(now);
        self.half_open = false;
        true
    }
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
