//! Waiting out leases (PROTOCOL rule 6): whoever held the fence before our claim counted may release on its lease until that has
//! run out on its own clock.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::time::Instant;

use super::{ClaimBook, Rank};
use crate::shared::Ground;

/// Claims read at once.
const AT_ONCE: usize = 8;

/// The leases of predecessors, counted from the moment our claim counted.
///
/// Whose leases? An incarnation that never saw ours may have checked its fence just before ours counted, whenever it started: no
/// date in its claim bounds that. So every predecessor counts whose claim still stands at a provider, however old, with one bound:
/// an incarnation that decided had waited out everybody below it, and since then those see a higher claim at every check. A claim
/// that no domain of the quorum lists never counted, or was pruned by a later incarnation whose decision is settled: its lease is over too.
#[derive(Debug)]
pub(crate) struct Leases {
    counted: Instant,
    /// The newest incarnation known to have decided.
    decided: Option<Rank>,
    own: Rank,
    waited: BTreeSet<Rank>,
}

impl Leases {
    /// Call when the claim `own` has its quorum.
    pub(crate) fn from_now(own: Rank, decided: Option<Rank>) -> Self {
        Self { counted: Instant::now(), decided, own, waited: BTreeSet::new() }
    }

    /// Predecessors in the book that were not waited for yet.
    fn due(&self, book: &ClaimBook) -> Vec<Rank> {
        let ranks = book.ranks().into_iter();
        ranks
            .filter(|rank| *rank < self.own && self.decided.is_none_or(|decided| *rank >= decided) && !self.waited.contains(rank))
            .collect()
    }

    /// Whether the book names a predecessor that was not waited for: one that claimed while we did.
    pub(crate) fn is_due(&self, book: &ClaimBook) -> bool {
        !self.due(book).is_empty()
    }

    /// Waits for all predecessors in the book. Clocks may differ by 1 %.
    pub(crate) async fn wait(&mut self, ground: &Ground, book: &ClaimBook) {
        let due = self.due(book);
        if due.is_empty() {
            return;
        }
        let own = u64::from(ground.config.profile.lease_ms);
        let listed = due.iter().copied().filter(|rank| book.is_listed(*rank));
        let claims = stream::iter(listed).map(|rank| book.fetch(ground, rank)).buffered(AT_ONCE);
        let longest = claims.fold(own, async |longest, claim| longest.max(claim.map_or(0, |claim| claim.lease_ms))).await;
        self.waited.extend(due);
        tokio::time::sleep_until(self.counted + Duration::from_millis(longest + longest / 100 + 1)).await;
    }
}
