//! Drills: blocks rebuilt from one chosen set of k providers, and the result compared with what was signed.
//!
//! Reads use whichever shards come first, so a parity shard may rot, or have been coded wrongly, for years without anybody noticing; the day
//! that another provider is gone it is needed. A drill takes exactly k providers as if all others were gone, reads their shards of a
//! sampled block whole, makes every other shard from them and holds its root against the signed one. Over time every set of k has its
//! turn: which one is due follows from the calendar, so a restart forgets nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use diaspore_block::cell::{cell_hashes, shard_root};
use diaspore_block::decode::reconstruct;
use diaspore_block::id::{BlockId, Hash32};
use diaspore_block::log::{DRILL_REPORT, KeyName, sign_report};
use diaspore_block::record::DrillReported;
use diaspore_ledger::BlockEntry;
use diaspore_policy::ProviderId;
use sha2::{Digest, Sha256};

use super::verdict::Seen;
use crate::api::{Error, ErrorKind};
use crate::commit::{CommitRequest, NewRecord};
use crate::namespace::{local, view};
use crate::shards::{Depth, Look, look_known};
use crate::shared::Shared;
use crate::world::cpu;

/// Most sets of one drill.
const MAX_SETS: usize = 512;
/// Draws for a block that has shards at every provider of a set.
const DRAWS: usize = 256;

/// A drill and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct DrillReport {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// Shards that must rebuild a block: k.
    pub needed: u8,
    /// Sets of k providers that rebuilt, or failed to.
    pub sets: Vec<DrilledSet>,
    /// Sets of k providers that there are.
    pub sets_total: u64,
    /// Blocks that were rebuilt.
    pub blocks: u64,
    /// Blocks that were not, or with other bytes than were signed.
    pub failures: u64,
    /// The report as a signed note under the log's key.
    pub note: String,
}

/// One set of providers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DrilledSet {
    /// Who was read from, all others left aside.
    pub providers: Vec<String>,
    /// `rebuilt`, `no block` (none has shards at all of them), or what failed.
    pub outcome: String,
}

/// Number of sets of `k` among `n`.
fn sets_of(n: usize, k: usize) -> u64 {
    if k > n {
        return 0;
    }
    (0..k).fold(1_u64, |sets, i| sets.saturating_mul((n - i) as u64) / (i as u64 + 1))
}

/// Set number `index` of `k` among `n`, in lexicographic order.
fn set(n: usize, k: usize, mut index: u64) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(k);
    let mut next = 0;
    while chosen.len() < k && next < n {
        let with = sets_of(n - next - 1, k - chosen.len() - 1);
        if n - next < k - chosen.len() {
            break;
        }
        if index < with {
            chosen.push(next);
        } else {
            index -= with;
        }
        next += 1;
    }
    chosen
}

/// The number of the set that is due in the period that `now_ms` lies in.
pub(super) fn due(now_ms: u64, period_ms: u64) -> u64 {
    now_ms / period_ms.max(1)
}

/// Runs `count` sets from number `first` on, and reports into the log.
pub(crate) async fn run(shared: &Arc<Shared>, first: u64, count: usize) -> Result<DrillReport, Error> {
    shared.check_writable()?;
    let geometry =
        crate::layout::full(shared).ok_or_else(|| Error::new(ErrorKind::TooFewDomains, "too few failure domains for any block"))?;
    let providers: Vec<ProviderId> =
        shared.fleet.providers().iter().map(|spec| spec.id.clone()).filter(|id| shared.modes.takes_shards(id)).collect();
    let k = usize::from(geometry.k());
    let total = sets_of(providers.len(), k);
    let mut report = DrillReport { time_ms: shared.clock.now().0, needed: geometry.k(), sets_total: total, ..DrillReport::default() };
    for turn in 0..(count.min(MAX_SETS) as u64).min(total) {
        if *shared.closing.borrow() {
            return Err(Error::new(ErrorKind::NotAccepted, "the service is shutting down"));
        }
        let index = first.wrapping_add(turn) % total.max(1);
        let members: Vec<ProviderId> = set(providers.len(), k, index).into_iter().filter_map(|at| providers.get(at).cloned()).collect();
        let outcome = match find(shared, &members, geometry.k())? {
            None => "no block".to_owned(),
            Some(entry) => match Box::pin(rebuild(shared, &entry, &members)).await {
                Ok(()) => {
                    report.blocks += 1;
                    "rebuilt".to_owned()
                }
                Err(why) => {
                    report.failures += 1;
                    why
                }
            },
        };
        report.sets.push(DrilledSet { providers: members.iter().map(ToString::to_string).collect(), outcome });
    }
    finish(shared, &mut report).await?;
    Ok(report)
}

/// A random block with shards at every one of `members`.
fn find(shared: &Shared, members: &[ProviderId], k: u8) -> Result<Option<BlockEntry>, Error> {
    let view = view(shared)?;
    let mut rng = shared.rng();
    for _ in 0..DRAWS {
        let near = view.blocks(Some(BlockId::draw(&mut rng)), 8).map_err(local)?;
        let near = if near.is_empty() { view.blocks(None, 8).map_err(local)? } else { near };
        if near.is_empty() {
            return Ok(None);
        }
        for entry in near {
            let there: BTreeSet<&str> =
                entry.facts.placements.iter().filter(|place| place.acked).map(|place| place.provider.as_str()).collect();
            let fits = entry.settled && entry.facts.geometry.k() == k && members.iter().all(|member| there.contains(member.as_str()));
            if fits && view.condemned(entry.facts.id).map_err(local)?.is_none() {
                return Ok(Some(entry));
            }
        }
    }
    Ok(None)
}

/// Reads the members' shards whole, makes the others from them, compares every root.
async fn rebuild(shared: &Arc<Shared>, entry: &BlockEntry, members: &[ProviderId]) -> Result<(), String> {
    let facts = &entry.facts;
    let (mut cells, mut header) = (Vec::new(), None);
    for member in members {
        let shard = facts.placements.iter().find(|place| place.acked && place.provider == member.as_str()).map(|place| place.shard);
        let seen = match look_known(shared, facts, member, Depth::Whole).await {
            Look::Seen(seen) if seen.header.manifest().hash() == facts.manifest_hash && Some(seen.header.index()) == shard => {
                header = Some(seen.header);
                cells.extend(seen.cells);
                Seen::Good
            }
            Look::Seen(_) | Look::Wrong => Seen::Wrong,
            Look::Absent => Seen::Missing,
            Look::Silent => Seen::Silent,
        };
        if let Some(shard) = shard {
            super::observed(shared, entry, &[(shard, member.clone(), seen)], true);
        }
        if seen != Seen::Good {
            let what = if seen == Seen::Silent { "gave no answer" } else { "did not have its shard" };
            return Err(format!("{member} {what}"));
        }
    }
    let Some(header) = header else { return Err("nothing was read".to_owned()) };
    let manifest = header.manifest();
    for shard in 0..facts.geometry.n() {
        let root = cpu(|| {
            let body = reconstruct(manifest, &cells, shard, 0..manifest.shard_len)?;
            Ok::<Hash32, diaspore_block::BlockError>(shard_root(shard, manifest.shard_len, &cell_hashes(&body)))
        });
        match root {
            Ok(root) if facts.shard_roots.get(usize::from(shard)) == Some(&root) => (),
            Ok(_) => return Err(format!("shard {shard} made from these is not the one that was signed")),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// Signs the report and puts its sums into the log.
async fn finish(shared: &Arc<Shared>, report: &mut DrillReport) -> Result<(), Error> {
    let tried = report.sets.iter().filter(|set| set.outcome != "no block").count() as u64;
    let origin = KeyName::of(shared.deployment());
    let mut text = format!(
        "time {}\nneeded {}\nsets {tried} of {}\nblocks {}\nfailures {}\n",
        report.time_ms, report.needed, report.sets_total, report.blocks, report.failures
    );
    for set in &report.sets {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{}: {}", set.providers.join(" "), set.outcome);
    }
    report.note = sign_report(&origin, &shared.keys.identity, DRILL_REPORT, &text);
    let record = DrillReported {
        subsets: tried,
        subsets_total: report.sets_total,
        blocks: report.blocks,
        failures: report.failures,
        report: Hash32::from_bytes(Sha256::digest(report.note.as_bytes()).into()),
    };
    shared.committer.submit(CommitRequest::single(NewRecord::system(record), ()), shared.answer_by()).await?;
    if report.failures > 0 {
        tracing::warn!(failures = report.failures, "a drill found sets of providers that do not rebuild what they should");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_its_number() {
        for (n, k) in [(5, 3), (6, 2), (4, 4), (7, 1)] {
            let total = sets_of(n, k);
            let all: BTreeSet<Vec<usize>> = (0..total).map(|index| set(n, k, index)).collect();
            assert_eq!(all.len() as u64, total, "{n} choose {k}");
            assert!(all.iter().all(|set| set.len() == k && set.windows(2).all(|pair| pair[0] < pair[1]) && set[k - 1] < n));
        }
        assert_eq!((sets_of(5, 3), sets_of(20, 10), sets_of(3, 5)), (10, 184_756, 0));
        assert_eq!(due(25, 10), 2);
    }
}
