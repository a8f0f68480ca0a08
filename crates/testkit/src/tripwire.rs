//! Ends a simulated process at a numbered step: before or behind the n-th request at any provider, or the n-th sync of its disk.
//!
//! From that step on every request hangs and every sync is without effect, as far as what is left behind goes: the process is dead
//! and only has not been cleared away yet. Counting a run without a limit first tells how many steps there are, so that a test can
//! die at every single one.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

type LastWord = Box<dyn FnOnce() + Send>;

struct Inner {
    limit: AtomicU64,
    steps: AtomicU64,
    dead: AtomicBool,
    tripped: Notify,
    last_word: Mutex<Option<LastWord>>,
}

/// Counts steps and dies at one of them. Clones share the count.
#[derive(Clone)]
pub struct Tripwire(Arc<Inner>);

impl fmt::Debug for Tripwire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tripwire({} of {})", self.steps(), self.0.limit.load(Ordering::Acquire))
    }
}

impl Default for Tripwire {
    /// Counts, and never dies.
    fn default() -> Self {
        Self(Arc::new(Inner {
            limit: AtomicU64::new(u64::MAX),
            steps: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            tripped: Notify::new(),
            last_word: Mutex::new(None),
        }))
    }
}

impl Tripwire {
    /// Counts anew, lets `limit` steps pass and dies at the next; `last_word` runs at that moment, to keep what a crash leaves.
    pub fn arm(&self, limit: u64, last_word: impl FnOnce() + Send + 'static) {
        *self.last_word() = Some(Box::new(last_word));
        self.0.steps.store(0, Ordering::Release);
        self.0.limit.store(limit, Ordering::Release);
    }

    fn last_word(&self) -> MutexGuard<'_, Option<LastWord>> {
        self.0.last_word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one step; false when the process is dead, as of this step or since an earlier one.
    #[must_use]
    pub fn step(&self) -> bool {
        if self.is_dead() {
            return false;
        }
        if self.0.steps.fetch_add(1, Ordering::AcqRel) < self.0.limit.load(Ordering::Acquire) {
            return true;
        }
        self.0.dead.store(true, Ordering::Release);
        let last_word = self.last_word().take();
        if let Some(last_word) = last_word {
            last_word();
        }
        self.0.tripped.notify_one();
        false
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Acquire)
    }

    /// Whether the step has come.
    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Acquire)
    }

    /// Waits for it.
    pub async fn tripped(&self) {
        if !self.is_dead() {
            self.0.tripped.notified().await;
        }
    }
}
