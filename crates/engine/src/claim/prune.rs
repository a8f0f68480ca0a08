//! Forgetting old claims (PROTOCOL rule 5): each start leaves one, and nobody would ever remove them.
//!
//! Whoever deletes one has a settled decision of its own and stands above all it deletes, and what it keeps is more than anybody asks
//! for: the highest claims fence older writers off, and recovery reads those between the present and the newest decision. What came before
//! is found by the decisions, each of which names its predecessor: below one nothing can be declared void, so that no claim is asked for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use diaspore_block::id::Seq;
use diaspore_policy::ProviderId;
use diaspore_provider::Deadline;
use futures::future::join_all;

use super::{Listing, Rank};
use crate::shared::Shared;

/// Newest claims that stay, ours among them.
const KEPT: usize = 64;
/// Most deleted at one provider per start: the next start goes on.
const MOST: usize = 1024;
/// Pause between two deletions at one provider: this is nobody's hurry.
const PAUSE: Duration = Duration::from_millis(20);
/// Deletions in a row that may fail before a provider is left alone until the next start.
const PATIENCE: usize = 3;

/// Runs once: waits until everything up to our decision at `decision` is settled, then deletes what is old.
pub(crate) async fn run(shared: Arc<Shared>, decision: Seq) {
    let mut closing = shared.closing.subscribe();
    tokio::select! {
        biased;
        _ = closing.wait_for(|closing| *closing) => {}
        () = prune(&shared, decision) => {}
    }
}

async fn prune(shared: &Shared, decision: Seq) {
    shared.settlement.wait_through(decision).await;
    if shared.fence.book().ranks().len() <= KEPT {
        return;
    }
    let book = shared.fence.book();
    let ids = shared.fleet.providers().iter().map(|spec| &spec.id);
    let listings = join_all(ids.map(async |id| (id, book.list_one(shared, id).await))).await;
    let listed: Vec<(&ProviderId, Vec<Rank>)> = listings
        .into_iter()
        .filter_map(|(id, listing)| match listing {
            Listing::Claims(ranks) => Some((id, ranks)),
            Listing::Crowded(_) | Listing::Unusable => None,
        })
        .collect();
    let own = (shared.writer.epoch, shared.writer.incarnation);
    let standing: BTreeSet<Rank> = listed.iter().flat_map(|(_, ranks)| ranks).copied().collect();
    let old = old_of(&standing, own);
    let deleted: usize = join_all(listed.into_iter().map(async |(id, ranks)| {
        let ranks: BTreeSet<Rank> = ranks.into_iter().filter(|rank| old.contains(rank)).collect();
        delete(shared, id, ranks).await
    }))
    .await
    .into_iter()
    .sum();
    if deleted > 0 {
        tracing::info!(deleted, "removed claims of old incarnations at the providers");
    }
}

/// Which of the standing claims may go: all but the newest, and never `own` or one above it.
fn old_of(standing: &BTreeSet<Rank>, own: Rank) -> BTreeSet<Rank> {
    standing.iter().rev().skip(KEPT).copied().filter(|rank| *rank < own).collect()
}

/// Deletes these claims at one provider, oldest first. Gives how many went.
async fn delete(shared: &Shared, provider: &ProviderId, ranks: BTreeSet<Rank>) -> usize {
    let (mut deleted, mut failures) = (0, 0);
    for (epoch, incarnation) in ranks.into_iter().take(MOST) {
        let name = shared.names.claim(provider.as_str(), incarnation, epoch);
        match shared.fleet.delete(provider, name.as_str(), Deadline::control()).await {
            Ok(()) => (deleted, failures) = (deleted + 1, 0),
            Err(error) => {
                tracing::debug!(%provider, %error, "an old claim stays");
                failures += 1;
                if failures >= PATIENCE {
                    break;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    deleted
}

#[cfg(test)]
mod tests {
    use diaspore_block::id::{Epoch, IncarnationId};

    use super::*;

    fn ranks(epochs: std::ops::Range<u64>) -> BTreeSet<Rank> {
        epochs.map(|epoch| (Epoch(epoch), IncarnationId::from_bytes([1; 16]))).collect()
    }

    #[test]
    fn the_newest_stay_and_nothing_from_our_own_on_goes() {
        let own = |epoch| (Epoch(epoch), IncarnationId::from_bytes([1; 16]));
        assert_eq!(old_of(&ranks(1..65), own(64)), BTreeSet::new());
        assert_eq!(old_of(&ranks(1..101), own(100)), ranks(1..37));
        // Somebody made up hundreds of higher claims: we are old, and those below us may go; we and what is above us never.
        assert_eq!(old_of(&ranks(1..501), own(100)), ranks(1..100));
    }
}
