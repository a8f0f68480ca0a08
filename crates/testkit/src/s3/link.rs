//! The bandwidth that all connections of an endpoint share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Two one-way lanes, each free again at some instant.
#[derive(Debug, Default)]
pub(super) struct Link {
    up: Lane,
    down: Lane,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Lane(Mutex<Option<Instant>>);

impl Link {
    /// Towards the provider.
    pub(super) const fn up(&self) -> &Lane {
        &self.up
    }

    /// From the provider.
    pub(super) const fn down(&self) -> &Lane {
        &self.down
    }
}

impl Lane {
    /// Books `len` bytes at `rate` bytes per second; answers when the last of them is through.
    pub(super) fn book(&self, len: usize, rate: u64) -> Instant {
        let nanos = len as u128 * 1_000_000_000 / u128::from(rate.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = Instant::now();
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free.map_or(now, |free| free.max(now));
        let done = start.checked_add(cost).unwrap_or(start);
        *free = Some(done);
        done
    }
}
