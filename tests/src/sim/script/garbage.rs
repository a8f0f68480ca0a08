//! Collections in the middle of everything, providers that are left, and the demand that in the end nothing lies anywhere that nobody needs.

use std::collections::BTreeSet;
use std::time::Duration;

use diaspore_block::record::ProviderMode;
use diaspore_engine::api::{Caller, Error};
use diaspore_engine::{CollectAsked, Collected, Errand, EvacuateAsked, Evacuated, Relocated};
use diaspore_testkit::{FaultPlan, HostileStore};
use rand::RngExt;

use super::{Scenario, Script};
use crate::sim::deployment::broken;
use crate::sim::model::Violation;

/// Virtual time in which a collection or a move has to end, whatever providers do.
const BOUND: Duration = Duration::from_hours(2);
/// Wait for a checkpoint that others may hold up.
const PATIENCE: Duration = Duration::from_mins(2);
/// Until an account that was away is counted on again, and what hung on it has settled.
const WELL_AGAIN: Duration = Duration::from_mins(2);
/// Everything that is dead goes, at once.
const THOROUGH: CollectAsked = CollectAsked { now: true, max_dead_permille: Some(0), dry_run: false };

impl Script {
    /// A collection: alone, or beside clients that put, delete and read, and may take the process down with them.
    pub(super) async fn collect(&mut self, caller: &Caller) -> Result<(), Violation> {
        let asked = match self.rng.random_range(0..5) {
            0 => CollectAsked::default(),
            1 => CollectAsked { dry_run: true, ..THOROUGH },
            2 => CollectAsked { max_dead_permille: None, ..THOROUGH },
            _ => THOROUGH,
        };
        let engine = self.engine()?;
        if self.rng.random_range(0..3) == 0 {
            // Commit blocks that two of these stand for may go too. It waits for what is not settled, which may take until the faults end.
            let made = tokio::time::timeout(PATIENCE, engine.checkpoint_log()).await;
            self.note(match &made {
                Ok(Ok(report)) => format!("checkpoint -> covers {}", report.covers),
                Ok(Err(error)) => format!("checkpoint -> {:?}", error.kind),
                Err(_) => "checkpoint -> waits".to_owned(),
            });
            if let Ok(Err(error)) = made {
                self.busy_or_calm(&error)?;
            }
        }
        if self.rng.random_range(0..2) == 0 {
            let begun = engine.begin_collecting(asked).is_ok();
            self.note(format!("collection beside others: {begun}"));
            return Box::pin(self.batch(caller)).await;
        }
        let outcome = tokio::time::timeout(BOUND, engine.collect(asked)).await;
        let outcome = outcome.map_err(|_| Violation("a collection did not end".into()))?;
        self.note(match &outcome {
            Ok(done) => format!(
                "collection -> {} of {} blocks dead, {} moved, {} erased, {} wait",
                done.dead_blocks, done.blocks, done.new_blocks, done.swept.blocks, done.swept.waiting
            ),
            Err(error) => format!("collection -> {:?}", error.kind),
        });
        outcome.map_or_else(|error| self.busy_or_calm(&error), |_| Ok(()))
    }

    /// A provider is left, also where no other domain is free; the process may die in the middle. Then that account is gone, and more with it.
    /// In the end it is taken up again and given its share.
    pub(super) async fn leave(&mut self, caller: &Caller) -> Result<(), Violation> {
        if self.report.scenario != Scenario::Crashes {
            return Ok(());
        }
        let index = self.rng.random_range(0..self.world.stores.len());
        let Some(store) = self.world.stores.get(index).cloned() else { return Ok(()) };
        let dead = self.rng.random_range(0..3) == 0;
        if self.rng.random_range(0..3) == 0 {
            let patience = Duration::from_millis(self.rng.random_range(1..30_000));
            if Box::pin(self.evacuate(index, dead, patience)).await? {
                let fate = self.fate();
                self.die(fate);
                Box::pin(self.revive()).await?;
            }
        }
        if Box::pin(self.evacuate(index, dead, BOUND)).await? {
            return Err(Violation("leaving a provider did not end".into()));
        }
        self.read_everything(caller, false).await?;
        if self.rng.random_range(0..2) == 0 {
            Box::pin(self.bereave(&store)).await?;
        }
        let engine = self.engine()?;
        engine.set_provider_mode(caller, store.name(), ProviderMode::Active, "simulated").await.map_err(broken)?;
        tokio::time::sleep(WELL_AGAIN).await;
        let spread = tokio::time::timeout(BOUND, engine.relocate(Errand::Rebalance { dry_run: false })).await;
        match spread.map_err(|_| Violation("spreading did not end".into()))? {
            Ok(Relocated::Rebalanced(done)) => self.note(format!("spread: {} of {} moved", done.moved, done.planned)),
            Ok(other) => return Err(Violation(format!("another answer: {other:?}"))),
            Err(error) => self.busy_or_calm(&error)?,
        }
        self.read_everything(caller, false).await
    }

    /// Whether it did not end in time. If it ended, nothing is left there.
    async fn evacuate(&mut self, index: usize, dead: bool, patience: Duration) -> Result<bool, Violation> {
        let provider = self.world.stores.get(index).map(|store| store.name().to_owned()).unwrap_or_default();
        let asked = EvacuateAsked { provider, dead, dry_run: false, most: None };
        // What the process does at a start.
        if let Err(error) = self.world.spread_keyring().await {
            return self.busy_or_calm(&error).map(|()| false);
        }
        match tokio::time::timeout(patience, self.engine()?.relocate(Errand::Evacuate(asked))).await {
            Ok(Ok(Relocated::Evacuated(done))) => {
                let Evacuated { domains, crowded, moved_shards, rewritten, remaining, .. } = done;
                self.note(format!(
                    "left {index}: {crowded} crowded on {domains} domains, {moved_shards} moved, {rewritten} anew, {remaining} remain"
                ));
                if done.remaining > 0 && std::mem::take(&mut self.set_back) {
                    let engine = self.engine()?;
                    engine.scrub(true).map_err(broken)?;
                    let looked = engine.scrub_wait(BOUND).await;
                    self.note(format!("looked where shards are: {} were not where the disk believed", looked.missing + looked.wrong));
                    return Box::pin(self.evacuate(index, dead, patience)).await;
                }
                if !done.certified {
                    return Err(Violation(format!("a provider cannot be left: {done:?}")));
                }
            }
            Ok(Ok(other)) => return Err(Violation(format!("another answer: {other:?}"))),
            Ok(Err(error)) => self.busy_or_calm(&error)?,
            Err(_) => {
                self.note(format!("leaving {index} is cut short after {patience:?}"));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The account that was left is gone, the newest compacted log perhaps as well, and the process dies.
    async fn bereave(&mut self, left: &HostileStore) -> Result<(), Violation> {
        if self.rng.random_range(0..2) == 0 {
            let before = self.heads();
            let made = tokio::time::timeout(BOUND, self.engine()?.checkpoint_log()).await.map_err(broken)?;
            made.map_err(|error| Violation(format!("no checkpoint with all providers well: {error}")))?;
            for (store, path) in self.heads().difference(&before) {
                if let Some(store) = self.world.stores.get(*store) {
                    store.tamper(path, None);
                }
            }
            self.note("the newest compacted log is announced nowhere");
        }
        left.lose_everything();
        left.set_faults(FaultPlan::down());
        let fate = self.fate();
        self.die(fate);
        Box::pin(self.revive()).await?;
        left.set_faults(FaultPlan::honest());
        Ok(())
    }

    /// Announcements of compacted logs at all providers.
    fn heads(&self) -> BTreeSet<(usize, String)> {
        let names = self.world.names();
        let at = |(index, store): (usize, &HostileStore)| {
            let prefix = names.head_prefix(store.name());
            let paths = store.objects().into_iter().map(|(path, _)| path).filter(move |path| path.starts_with(&prefix));
            paths.map(move |path| (index, path)).collect::<Vec<_>>()
        };
        self.world.stores.iter().enumerate().flat_map(at).collect()
    }

    /// One that runs already is a reason in any scenario.
    fn busy_or_calm(&self, error: &Error) -> Result<(), Violation> {
        let busy = error.message.contains("already") || error.message.contains("has to end first");
        if busy { Ok(()) } else { self.expect_calm(error) }
    }

    /// With all providers well: nothing condemned is left, nothing lies anywhere that is part of nothing.
    pub(super) async fn expect_tidy(&mut self) -> Result<(), Violation> {
        let spread = self.world.spread_keyring().await;
        spread.map_err(|error| Violation(format!("the keyring is not spread with all providers well: {error}")))?;
        for _ in 0..2 {
            let made = tokio::time::timeout(BOUND, self.engine()?.checkpoint_log()).await.map_err(broken)?;
            made.map_err(|error| Violation(format!("no checkpoint with all providers well: {error}")))?;
        }
        // The first empties and deletes, the last finds nothing left to do; in between the log may have grown by what they did.
        for _ in 0..3 {
            let done = tokio::time::timeout(BOUND, self.engine()?.collect(THOROUGH)).await.map_err(broken)?;
            let done = done.map_err(|error| Violation(format!("no collection with all providers well: {error}")))?;
            let orphans: u64 = done.providers.values().map(|found| found.orphans).sum();
            let work = done.dead_blocks + done.sparse_blocks + done.swept.waiting + done.swept.blocks + orphans;
            let (dead, sparse, moved, orphans) = (done.dead_blocks, done.sparse_blocks, done.new_blocks, orphans);
            let (erased, waiting) = (done.swept.blocks, done.swept.waiting);
            self.note(format!("tidy: of {} blocks {dead} dead, {sparse} sparse, {moved} new, {erased} erased, {waiting} wait, {orphans} orphans; {} of {} bytes", done.blocks, done.live_bytes, done.held_bytes));
            if work == 0 {
                return self.expect_nothing_else(&done);
            }
        }
        Err(Violation("dead blocks stay with all providers well".into()))
    }

    fn expect_nothing_else(&self, done: &Collected) -> Result<(), Violation> {
        if done.failed_moves + done.unreadable_buckets > 0 {
            return Err(Violation(format!("not all could be collected with all providers well: {done:?}")));
        }
        // What a liar damaged may lie under a name that stands for nothing, and does not open: that stays, as a stranger's would.
        let strangers = self.report.scenario == Scenario::OneLiar;
        for (provider, found) in &done.providers {
            let foreign = found.foreign > 0 && !strangers;
            if !found.listed || !found.whole || found.pending > 0 || foreign {
                return Err(Violation(format!("something lies at {provider} that nobody needs: {found:?}")));
            }
        }
        Ok(())
    }
}
