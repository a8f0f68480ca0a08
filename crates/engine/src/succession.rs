//! One process, many incarnations. The service supersedes itself: to write on with fewer domains when too many are down for its
//! layout, to return to the full layout when they are back (PROTOCOL rules 2 and 11), to take up a narrower one when accounts were
//! left for good, and to decide the end of the log once enough domains answer after a start that could not.
//!
//! A succession is a start like any other, over the same disk: claim, find the end, carry the tail over, decide. Reads of what
//! was released go on meanwhile; mutations are refused before anything is sealed; what was in flight has an unknown outcome,
//! which the same `Idempotency-Key` resolves afterwards.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use diaspore_policy::claim_quorum;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::api::{Error, ErrorKind};
use crate::config::{Fatal, Mode};
use crate::layout::{self, Layout};
use crate::prober;
use crate::reconcile;
use crate::shared::{Shared, Stage};

/// Pause between looks at the providers' health.
const TICK: Duration = Duration::from_secs(1);
/// The full layout is taken up again once it was possible for so long; for twice as long after each step down that follows the one before it
/// within [`CALM`].
const BEFORE_STEPPING_UP: Duration = Duration::from_secs(30);
/// Longest wait before the full layout is taken up again.
const LONGEST_BEFORE: Duration = Duration::from_hours(1);
/// A step down that comes later than this after the last one is the first of its kind. More than the longest wait.
const CALM: Duration = Duration::from_hours(3);
/// A layout that cannot be written is left after so long: shorter outages are waited out. After each successor that could not decide
/// the next one waits twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause once other domains answer than last time.
const PAUSE_WITH_NEWS: Duration = Duration::from_mins(1);
/// Longest pause while the same do: they hardly say more, and every try leaves a claim at every provider.
const PAUSE_WITHOUT: Duration = Duration::from_mins(30);
/// The predecessor's tasks end at their next point of waiting; this is for those that are inside the disk.
const TASKS_END: Duration = Duration::from_secs(10);

/// The incarnation that serves at present, and the task that replaces it.
#[derive(Debug)]
pub(crate) struct Succession {
    current: RwLock<Arc<Shared>>,
    keeper: Mutex<Option<AbortHandle>>,
}

/// Why a successor is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// The end of the log is not decided.
    Decide,
    /// Fewer domains answer than the layout needs, but enough for a narrower one.
    StepDown,
    /// Accounts were left for good: fewer domains than a block has shards, so that nothing could ever settle.
    Narrow,
    /// The full layout is possible again.
    StepUp,
}

impl Wish {
    fn patience(self, failed: u32, news: bool, before_stepping_up: Duration) -> Duration {
        let longest = if news { PAUSE_WITH_NEWS } else { PAUSE_WITHOUT };
        let pause = FIRST_PAUSE.saturating_mul(1 << failed.min(10)).min(longest);
        match self {
            Self::Decide | Self::StepDown | Self::Narrow => pause,
            Self::StepUp => before_stepping_up.max(pause),
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Decide => "the end of the log is being decided",
            Self::StepDown => "too few domains answer for the present layout; a narrower one is being taken up: try again in a few seconds",
            Self::Narrow => "accounts were taken out of use; a layout without them is being taken up: try again in a few seconds",
            Self::StepUp => "the full layout is being taken up again: try again in a few seconds",
        }
    }
}

/// How the layout held so far: providers that fail for seconds and behave for minutes must not make two incarnations every time.
#[derive(Debug)]
struct Steadiness {
    before_stepping_up: Duration,
    stepped_down: Option<Instant>,
}

impl Steadiness {
    fn new() -> Self {
        Self { before_stepping_up: BEFORE_STEPPING_UP, stepped_down: None }
    }

    fn step_down(&mut self, now: Instant) {
        let again = self.stepped_down.replace(now).is_some_and(|last| now.duration_since(last) < CALM);
        self.before_stepping_up = if again { self.before_stepping_up.saturating_mul(2).min(LONGEST_BEFORE) } else { BEFORE_STEPPING_UP };
    }
}

impl Succession {
    /// Begins with what the start of the process gave.
    pub(crate) fn begin(first: Arc<Shared>) -> Arc<Self> {
        let ground = first.ground.clone();
        let line = Arc::new(Self { current: RwLock::new(first), keeper: Mutex::new(None) });
        if ground.config.mode != Mode::ReadOnly {
            let keeper = tokio::spawn(keep(Arc::clone(&line))).abort_handle();
            ground.register(keeper.clone());
            *line.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        }
        line
    }

    /// The incarnation that serves.
    pub(crate) fn current(&self) -> Arc<Shared> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// No successor from here on; one that is under way ends as in a crash.
    pub(crate) fn end(&self) {
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
    }
}

/// Runs until the engine is closed or has stopped for good.
async fn keep(line: Arc<Succession>) {
    let mut wished: Option<(Wish, Instant)> = None;
    let mut failed = 0;
    let mut asked = BTreeSet::new();
    let mut steadiness = Steadiness::new();
    loop {
        tokio::time::sleep(TICK).await;
        let current = line.current();
        if matches!(current.stage.get(), Stage::Closed | Stage::Stopped(_)) {
            return;
        }
        if *current.closing.borrow() || current.layout.is_none() {
            // It has no prober of its own.
            prober::round(&current).await;
        }
        let Some(wish) = wish(&current) else {
            wished = None;
            continue;
        };
        let since = match wished {
            Some((before, since)) if before == wish => since,
            _ => Instant::now(),
        };
        wished = Some((wish, since));
        let up = layout::healthy(&current);
        if since.elapsed() < wish.patience(failed, up != asked, steadiness.before_stepping_up) {
            continue;
        }
        (wished, asked) = (None, up);
        failed = match succeed(&line, &current, wish).await {
            Ok(true) => {
                if wish == Wish::StepDown {
                    steadiness.step_down(Instant::now());
                }
                0
            }
            Ok(false) => failed.saturating_add(1),
            Err(fatal) => {
                current.stop(fatal);
                return;
            }
        };
    }
}

fn wish(current: &Shared) -> Option<Wish> {
    let up = layout::healthy(current);
    let quorum = claim_quorum(current.fleet.domains().len());
    let possible = Layout::choose(current, &up, quorum).ok().filter(|layout| layout.is_served_by(&up))?;
    let Some(layout) = &current.layout else { return Some(Wish::Decide) };
    match current.stage.get() {
        Stage::Active if !layout.is_served_by(&up) => Some(Wish::StepDown),
        Stage::Active if layout.is_too_wide(current) && !possible.is_too_wide(current) => Some(Wish::Narrow),
        Stage::Active if possible.full && possible.geometry.n() > layout.geometry.n() => Some(Wish::StepUp),
        // A succession that failed has left it so.
        Stage::ReadOnly(_) if *current.closing.borrow() => Some(Wish::Decide),
        _ => None,
    }
}

/// Puts a successor in place; false when it could not decide, so that another is needed.
async fn succeed(line: &Succession, current: &Arc<Shared>, wish: Wish) -> Result<bool, Fatal> {
    tracing::info!(?wish, epoch = current.writer.epoch.0, "the service supersedes itself");
    if current.layout.is_some() {
        current.step_aside(wish.reason());
        if !current.wait_tasks(TASKS_END).await {
            return Ok(false);
        }
        crate::world::cpu(|| current.ledger.sync()).map_err(|error| Fatal::JournalSync(error.to_string()))?;
    }
    let mut ground = current.ground.clone();
    if current.layout.is_some() {
        // The operator's word was on one list, once.
        ground.config.accept_loss = None;
    }
    match Box::pin(reconcile::start(ground)).await {
        Ok(next) => {
            let decided = next.layout.is_some();
            if decided || current.layout.is_none() {
                *line.current.write().unwrap_or_else(PoisonError::into_inner) = next;
            }
            Ok(decided)
        }
        Err(error) => refused(error),
    }
}

fn refused(error: Error) -> Result<bool, Fatal> {
    match error.kind {
        ErrorKind::RefusedState => Err(Fatal::Refused(error.message)),
        ErrorKind::LocalStore => Err(Fatal::Ledger(error.message)),
        _ => {
            tracing::warn!(%error, "no successor yet");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_flaps_waits_longer_for_the_full_layout_and_who_was_calm_does_not() {
        let (mut now, mut steadiness) = (Instant::now(), Steadiness::new());
        let mut waits = Vec::new();
        for _ in 0..10 {
            steadiness.step_down(now);
            waits.push(steadiness.before_stepping_up.as_secs());
            now += steadiness.before_stepping_up + Duration::from_mins(1);
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        steadiness.step_down(now + CALM);
        assert_eq!(steadiness.before_stepping_up, BEFORE_STEPPING_UP);
        assert_eq!(Wish::StepUp.patience(0, true, LONGEST_BEFORE), LONGEST_BEFORE);
        assert_eq!(Wish::StepDown.patience(0, true, LONGEST_BEFORE), FIRST_PAUSE);
    }
}
