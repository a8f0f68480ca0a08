//! The master key is replaced in the middle of everything, and in the end one key alone opens anything.

use std::time::Duration;

use diaspore_engine::api::ErrorKind;
use rand::RngExt;

use super::{Scenario, Script};
use crate::sim::deployment::{DiskFate, broken};
use crate::sim::model::Violation;

/// Virtual time in which a change of the key has to end, whatever providers do.
const BOUND: Duration = Duration::from_hours(1);
/// A request of an earlier change that is still under way lands within this.
const LATE: Duration = Duration::from_mins(1);

impl Script {
    /// Another master key, or the end of a change that was cut off; the process may die in the middle. It always ends with it.
    pub(super) async fn rotate(&mut self) -> Result<(), Violation> {
        if self.report.scenario == Scenario::Outages {
            tokio::time::sleep(LATE).await;
        }
        let cut = self.rng.random_range(0..2) == 0;
        let patience = if cut { Duration::from_millis(self.rng.random_range(1..600)) } else { BOUND };
        match tokio::time::timeout(patience, self.world.rotate()).await {
            Ok(Ok(())) => self.note(format!("another master key, unfinished {}", self.world.is_key_change_unfinished())),
            Ok(Err(error)) => {
                self.note(format!("another master key -> {:?}", error.kind));
                // Who is away, a liar that is not asked any more among them, may hold what is looked for under a former key.
                if error.kind != ErrorKind::DataUnavailable {
                    self.expect_calm(&error)?;
                }
            }
            Err(_) if cut => self.note(format!("another master key: cut off after {patience:?}")),
            Err(_) => return Err(Violation("a change of the master key did not end".into())),
        }
        let fate = self.fate();
        self.die(fate);
        Box::pin(self.revive()).await
    }

    /// What a start could not do for the keys needs a reason in this scenario.
    pub(super) fn expect_tended(&mut self) -> Result<(), Violation> {
        let Some(error) = self.world.untended.take() else { return Ok(()) };
        self.note(format!("the start left the keys untended: {:?}", error.kind));
        // Who is away may hold what is looked for under a former key; the next start looks again.
        if error.kind == ErrorKind::DataUnavailable { Ok(()) } else { self.expect_calm(&error) }
    }

    /// With all providers well: the change of the key that was begun ends, and then the former keys open nothing anywhere.
    pub(super) async fn expect_one_key(&mut self) -> Result<(), Violation> {
        if self.world.is_key_change_unfinished() {
            let changed = tokio::time::timeout(BOUND, self.world.rotate()).await.map_err(broken)?;
            changed.map_err(|error| Violation(format!("the master key cannot be replaced with all providers well: {error}")))?;
            self.die(DiskFate::Kept);
            Box::pin(self.revive()).await?;
        }
        // A liar may have hidden old copies, or been rolled back to them.
        let liar = (self.report.scenario == Scenario::OneLiar).then_some(self.liar);
        self.world.expect_one_key(liar).await
    }
}
