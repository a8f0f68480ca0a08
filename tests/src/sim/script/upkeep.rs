//! Damage at rest, scrubs, and the demand that everything becomes whole again.

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;

use super::{Scenario, Script};
use crate::sim::deployment::broken;
use crate::sim::model::Violation;

/// Virtual time in which everything has to be whole again once the faults have ended.
const BOUND: Duration = Duration::from_mins(30);

impl Script {
    /// The liar's folder is lost, rolled back or damaged. The others keep what they have.
    pub(super) fn wreck(&mut self) {
        if self.report.scenario != Scenario::OneLiar {
            return;
        }
        let Some(store) = self.world.stores.get(self.liar) else { return };
        let what = match self.rng.random_range(0..6) {
            0 => {
                store.take_snapshot();
                "snapshot taken"
            }
            1 => {
                store.roll_back();
                "rolled back"
            }
            2 => {
                store.lose_everything();
                "lost everything"
            }
            kind => {
                let objects = store.objects();
                if objects.is_empty() {
                    return;
                }
                for _ in 0..3 {
                    let (one, two) = (self.rng.random_range(0..objects.len()), self.rng.random_range(0..objects.len()));
                    let (Some((path, bytes)), Some((_, other))) = (objects.get(one), objects.get(two)) else { continue };
                    let at = self.rng.random_range(0..bytes.len().max(1));
                    let damaged = match kind {
                        3 => {
                            let mut flipped = bytes.to_vec();
                            if let Some(byte) = flipped.get_mut(at) {
                                *byte ^= 1;
                            }
                            Bytes::from(flipped)
                        }
                        4 => bytes.slice(..at),
                        _ => other.clone(),
                    };
                    store.tamper(path, Some(damaged));
                }
                "three objects damaged"
            }
        };
        self.note(format!("provider {}: {what}", self.liar));
    }

    /// An operator's scrub in the middle of everything. Whatever it finds, it must end.
    pub(super) async fn scrub(&mut self) -> Result<(), Violation> {
        let deep = self.rng.random_range(0..2) == 0;
        let engine = self.engine()?;
        if let Err(error) = engine.scrub(deep) {
            self.note(format!("scrub -> {:?}", error.kind));
            return Ok(());
        }
        let report = engine.scrub_wait(BOUND).await;
        let lost = report.census.as_ref().map_or(0, |census| census.lost);
        self.note(format!("scrub deep {deep} -> {} missing, {} wrong, {} left", report.missing, report.wrong, report.repairs_left));
        if report.running {
            return Err(Violation("a scrub did not end".into()));
        }
        // One provider may be gone or lie: k others are left of everything.
        if lost > 0 && self.report.scenario != Scenario::Outages {
            return Err(Violation(format!("{lost} blocks are called lost")));
        }
        Ok(())
    }

    /// Full redundancy in bounded time; a second look then finds every byte of every shard as it was signed.
    pub(super) async fn expect_whole(&mut self) -> Result<(), Violation> {
        for round in 0..2 {
            let engine = self.engine()?;
            engine.scrub(true).map_err(broken)?;
            let report = engine.scrub_wait(BOUND).await;
            let Some(census) = &report.census else {
                return Err(Violation(format!("a scrub with all providers well gave no count: {report:?}")));
            };
            let found = report.missing + report.wrong + report.silent;
            self.note(format!("deep scrub -> {} of {} blocks whole, {found} shards were not there", census.verified, census.blocks));
            let clean = round == 0 || (found == 0 && census.shards_verified == census.shards);
            if !census.is_whole() || !clean {
                return Err(Violation(format!("not whole with all providers well: {report:?}")));
            }
        }
        Ok(())
    }
}
