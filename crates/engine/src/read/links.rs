//! What is under way from each provider, and how fast it comes: which link a long read should wait for.
//!
//! Bandwidth is bytes that arrived per second in which anything was under way. It is measured over long transfers only: short
//! ones tell the latency.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diaspore_provider::ProviderId;
use tokio::time::Instant;

/// Transfers of fewer bytes are not looked at.
pub(crate) const LONG_BYTES: u64 = 256 << 10;
/// The older half of what was measured is forgotten after so many bytes.
const MEMORY_BYTES: f64 = 32_000_000.0;

#[derive(Debug, Clone, Copy)]
struct Link {
    /// Bytes asked for and not there yet.
    under_way: u64,
    arrived: f64,
    busy: Duration,
    /// Up to when `busy` is counted.
    at: Instant,
}

impl Link {
    fn count(&mut self, now: Instant) {
        if self.under_way > 0 {
            self.busy += now.saturating_duration_since(self.at);
        }
        self.at = now;
    }
}

/// The links to all providers.
#[derive(Debug, Default)]
pub(crate) struct Links {
    state: Mutex<BTreeMap<ProviderId, Link>>,
}

impl Links {
    fn state(&self) -> MutexGuard<'_, BTreeMap<ProviderId, Link>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `bytes` were asked for, until the guard is dropped. Short transfers are not noted.
    pub(crate) fn begin<'a>(&'a self, provider: &'a ProviderId, bytes: u64) -> Option<Transfer<'a>> {
        if bytes < LONG_BYTES {
            return None;
        }
        let now = Instant::now();
        let mut state = self.state();
        let link = state.entry(provider.clone()).or_insert(Link { under_way: 0, arrived: 0.0, busy: Duration::ZERO, at: now });
        link.count(now);
        link.under_way += bytes;
        Some(Transfer { links: self, provider, bytes, arrived: false })
    }

    /// When `bytes` asked for now would be there; zero as long as nothing is known.
    pub(crate) fn expected(&self, provider: &ProviderId, bytes: u64) -> Duration {
        let Some(link) = self.state().get(provider).copied() else { return Duration::ZERO };
        let wait = float(link.under_way + bytes) * link.busy.as_secs_f64() / link.arrived;
        Duration::try_from_secs_f64(wait).unwrap_or_default()
    }

    fn end(&self, transfer: &Transfer<'_>) {
        let mut state = self.state();
        let Some(link) = state.get_mut(transfer.provider) else { return };
        link.count(Instant::now());
        link.under_way = link.under_way.saturating_sub(transfer.bytes);
        if transfer.arrived {
            link.arrived += float(transfer.bytes);
        }
        if link.arrived > MEMORY_BYTES {
            link.arrived /= 2.0;
            link.busy /= 2;
        }
    }
}

/// Bytes under way.
#[derive(Debug)]
pub(crate) struct Transfer<'a> {
    links: &'a Links,
    provider: &'a ProviderId,
    bytes: u64,
    arrived: bool,
}

impl Transfer<'_> {
    /// All of them are there.
    pub(crate) fn arrived(mut self) {
        self.arrived = true;
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.links.end(self);
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
const fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_delays_what_comes_behind() {
        let (links, id) = (Links::default(), ProviderId::new("p").unwrap());
        assert_eq!(links.expected(&id, MB), Duration::ZERO);
        // Two megabytes side by side over a link of one per second; the idle time before and behind does not count.
        tokio::time::advance(Duration::from_secs(5)).await;
        let (one, two) = (links.begin(&id, MB).unwrap(), links.begin(&id, MB).unwrap());
        tokio::time::advance(Duration::from_secs(2)).await;
        one.arrived();
        two.arrived();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(links.expected(&id, MB).as_millis(), 1000);
        let third = links.begin(&id, 3 * MB);
        assert_eq!(links.expected(&id, MB).as_millis(), 4000);
        drop(third);
        assert_eq!(links.expected(&id, MB).as_millis(), 1000, "given up, so no longer under way");
        assert!(links.begin(&id, LONG_BYTES - 1).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_changed_is_soon_seen_as_it_is() {
        let (links, id) = (Links::default(), ProviderId::new("p").unwrap());
        let transfer = async |millis| {
            let transfer = links.begin(&id, 4 * MB).unwrap();
            tokio::time::advance(Duration::from_millis(millis)).await;
            transfer.arrived();
        };
        for _ in 0..20 {
            transfer(4).await;
        }
        for _ in 0..20 {
            transfer(400).await;
        }
        let expected = links.expected(&id, 4 * MB).as_millis();
        assert!((300..=400).contains(&expected), "{expected} ms");
    }
}
