//! Blocks that this disk has as they were first written, and that a later writer wrote again.
//!
//! Two disks in turn, or one that was set back and later set forth again: the last blocks that this one has applied were carried over by who
//! started without it. Their first copies are no part of the log any more, and that writer's collections delete them; what it wrote is what
//! a recovery looks for, and what this one's collections would take for orphans if its map did not have them.

use diaspore_block::id::{Counter, Seq};
use diaspore_ledger::JournalEntry;

use super::chain::{Stretch, refused};
use super::position::{Care, Evidence, Verdict};
use crate::api::Error;
use crate::namespace::local;
use crate::shared::Ground;
use crate::world::cpu;

/// Puts the copies of the oldest stretch into the map, for every sequence that the ledger has from an earlier writer.
///
/// A copy that cannot be read is left out: the first one stands in for it, here and in a recovery.
///
/// # Errors
/// `RefusedState` when a copy does not say what this disk applied: a fork.
pub(super) async fn take(ground: &Ground, evidence: &Evidence, stretch: &Stretch, have: Seq) -> Result<(), Error> {
    if stretch.carried.is_none() {
        return Ok(());
    }
    let mut taken = 0_u64;
    for seq in stretch.base..=have.0 {
        let view = ground.ledger.snapshot().map_err(local)?;
        let known = view.commit_block(Seq(seq)).map_err(local)?;
        if known.is_none_or(|known| known.facts.incarnation == stretch.subject.incarnation) {
            continue;
        }
        let counter = Counter(seq - stretch.base);
        let Verdict::Readable(copy) = evidence.judge(ground, &stretch.subject, counter, Care::Replay).await? else { continue };
        let log = &copy.manifest.log;
        let same = log.log_size <= view.log_size().map_err(local)? && cpu(|| view.log_root(log.log_size)).map_err(local)? == log.log_root;
        if !same {
            return Err(refused(format!(
                "fork: what a later writer carried over as sequence {seq} is not what this disk released; two machines acknowledged different \
                 histories. Keep this disk, stop both, and compare before anything else is written"
            )));
        }
        let copy = Box::new(copy.applied(ground)?);
        cpu(|| ground.ledger.append(JournalEntry::Copied(copy))).map_err(local)?;
        taken += 1;
    }
    if taken > 0 {
        cpu(|| ground.ledger.sync()).map_err(local)?;
        tracing::info!(taken, "blocks that a later writer wrote again are read from there");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
