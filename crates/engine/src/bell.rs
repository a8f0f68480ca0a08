//! A bell that wakes whoever listens, in the order in which they began to.
//!
//! A `tokio::sync::watch` wakes its receivers in an order that it draws, so that one seed of a simulation gave two traces.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Rings for all listeners.
#[derive(Debug, Default)]
pub(crate) struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rung: AtomicU64,
    notify: Notify,
}

/// Hears every ring since it last listened, as one.
#[derive(Debug)]
pub(crate) struct Listener {
    bell: Arc<Inner>,
    heard: u64,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.rung.fetch_add(1, Ordering::AcqRel);
        self.0.notify.notify_waiters();
    }

    /// A listener for rings from now on.
    pub(crate) fn listen(&self) -> Listener {
        Listener { bell: Arc::clone(&self.0), heard: self.0.rung.load(Ordering::Acquire) }
    }
}

impl Listener {
    /// Waits for a ring that was not heard yet.
    pub(crate) async fn changed(&mut self) {
        loop {
            // Listening begins before the look, so that no ring falls between.
            let next = self.bell.notify.notified();
            let rung = self.bell.rung.load(Ordering::Acquire);
            if rung != self.heard {
                self.heard = rung;
                return;
            }
            next.await;
        }
    }
}
