//! Looking at every shard of a block where the map says that it lies.
//!
//! The sealed header proves that the provider has the object's front and cannot be made up; a listing proves nothing and is not asked.
//! Whether the body behind it is right only reading it tells: `sample` reads some of it all the time, a deep scrub all of it.

use diaspore_block::id::Timestamp;
use diaspore_ledger::{BlockEntry, CheckEntry};
use diaspore_policy::ProviderId;
use futures::future::join_all;

use super::verdict::{Seen, noted};
use crate::shards::{Depth, Look, look_known};
use crate::shared::Shared;

/// What one look at a block found.
#[derive(Debug, Clone)]
pub(crate) struct Examined {
    pub(crate) entry: BlockEntry,
    /// Per shard that the map places somewhere.
    pub(crate) shards: Vec<(u8, ProviderId, Seen)>,
    /// When, and whether bodies were read.
    pub(crate) at: Timestamp,
    pub(crate) depth: Depth,
}

/// Asks every provider that should hold a shard of the block.
pub(crate) async fn examine(shared: &Shared, entry: BlockEntry, depth: Depth) -> Examined {
    examine_some(shared, entry, depth, |_| true).await
}

/// Asks for some shards of the block only.
pub(crate) async fn examine_some(shared: &Shared, entry: BlockEntry, depth: Depth, of: impl Fn(u8) -> bool) -> Examined {
    let facts = &entry.facts;
    let homes = facts.placements.iter().filter(|place| place.acked && of(place.shard));
    let homes: Vec<(u8, ProviderId)> = homes.filter_map(|place| Some((place.shard, ProviderId::new(&place.provider).ok()?))).collect();
    let looks = homes.into_iter().map(async |(shard, provider)| {
        let seen = match look_known(shared, facts, &provider, depth).await {
            Look::Seen(seen) if seen.header.manifest().hash() != facts.manifest_hash => Seen::Wrong,
            // Another shard of the block: the one that should be here is not.
            Look::Seen(seen) if seen.header.index() != shard => Seen::Missing,
            Look::Seen(_) => Seen::Good,
            Look::Absent => Seen::Missing,
            Look::Wrong => Seen::Wrong,
            Look::Silent => Seen::Silent,
        };
        (shard, provider, seen)
    });
    let shards = join_all(looks).await;
    Examined { entry, shards, at: shared.clock.now(), depth }
}

impl Examined {
    /// The block's row in the table of checks, from what it was before.
    pub(crate) fn check(&self, before: Option<CheckEntry>) -> CheckEntry {
        let n = self.entry.facts.geometry.n();
        let verified = (self.depth == Depth::Whole).then_some(self.at);
        let seen = |check, (shard, _, seen): &(u8, ProviderId, Seen)| Some(noted(check, n, *shard, *seen, verified));
        let mut check = self.shards.iter().fold(before, seen).unwrap_or_default();
        check.checked = self.at;
        check
    }

    /// Shards that are provably not where the map says.
    pub(crate) fn lost(&self) -> Vec<(u8, ProviderId, Seen)> {
        self.shards.iter().filter(|(.., seen)| matches!(seen, Seen::Missing | Seen::Wrong)).cloned().collect()
    }
}
