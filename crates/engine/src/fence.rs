//! The fence (PROTOCOL rule 6): nothing is released unless no higher claim was there after its acknowledgements, or a check that
//! began less than a lease ago, on a clock that runs through suspend, saw none.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use diaspore_policy::FailureDomain;

use crate::claim::{ClaimBook, Rank};
use crate::shared::Ground;

/// Pauses between checks that too few domains answered.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Our claim as the providers acknowledged it.
#[derive(Debug)]
pub(crate) struct Fence {
    rank: Rank,
    /// Domains that acknowledged it; a check asks q of these.
    acknowledged: BTreeSet<FailureDomain>,
    quorum: usize,
    lease: Duration,
    book: ClaimBook,
    /// Start of the last good check, in boot time.
    checked: Mutex<Option<Duration>>,
}

/// What one check found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// No higher claim on q domains.
    Held,
    /// A higher claim exists: stop for good.
    Lost(String),
    /// Fewer than q domains answered.
    Unknown,
}

impl Fence {
    pub(crate) fn new(rank: Rank, acknowledged: BTreeSet<FailureDomain>, quorum: usize, lease: Duration, book: ClaimBook) -> Self {
        Self { rank, acknowledged, quorum, lease, book, checked: Mutex::new(None) }
    }

    /// A fence that never holds: for engines that may not write.
    pub(crate) fn none() -> Self {
        Self::new(
            (diaspore_block::id::Epoch(0), diaspore_block::id::IncarnationId::NIL),
            BTreeSet::new(),
            usize::MAX,
            Duration::ZERO,
            ClaimBook::default(),
        )
    }

    /// The claims known to this writer.
    pub(crate) const fn book(&self) -> &ClaimBook {
        &self.book
    }

    /// Asks now.
    pub(crate) async fn check(&self, ground: &Ground) -> Check {
        let started = ground.clock.boot_time();
        let survey = self.book.survey(ground, Some(&self.acknowledged)).await;
        if let Some(higher) = survey.ranks.iter().filter(|rank| **rank > self.rank).max() {
            return Check::Lost(format!("epoch {} of incarnation {} is newer than our epoch {}", higher.0, higher.1, self.rank.0));
        }
        if let Err(newer) = ground.unjudged.check() {
            return Check::Lost(newer.message);
        }
        if survey.answered.len() < self.quorum {
            return Check::Unknown;
        }
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = started;
        Check::Held
    }

    /// Whether the lease holds at this moment.
    pub(crate) fn lease_holds(&self, ground: &Ground) -> bool {
        let checked = *self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        match (checked, ground.clock.boot_time()) {
            (Some(checked), Some(now)) => now.checked_sub(checked).is_some_and(|age| age < self.lease),
            _ => false,
        }
    }

    /// Call after the acknowledgements. Returns once the fence holds; the error says who took over. Waits as long as too few
    /// domains answer: the callers of what is to be released have deadlines of their own.
    pub(crate) async fn hold(&self, ground: &Ground) -> Result<(), String> {
        if self.lease_holds(ground) {
            return Ok(());
        }
        let mut pause = PAUSES.0;
        loop {
            match self.check(ground).await {
                Check::Held => return Ok(()),
                Check::Lost(why) => return Err(why),
                Check::Unknown => tokio::time::sleep(pause).await,
            }
            pause = pause.saturating_mul(2).min(PAUSES.1);
        }
    }
}
