//! How the stored blocks are, counted from what was last seen of each.

use std::collections::BTreeMap;

use diaspore_block::id::{Seq, Timestamp};
use diaspore_block::limits::CELL_LEN;
use diaspore_ledger::{LedgerError, Snapshot};

use super::verdict::{Integrity, Seen, Verdict, judge, shard_of};

/// Blocks taken from the ledger at once.
const BATCH: usize = 1000;

/// Blocks by integrity. Condemned blocks hold nothing alive and are not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Census {
    /// When it was taken, in milliseconds since 1970.
    pub as_of_ms: u64,
    /// Blocks counted.
    pub blocks: u64,
    /// Every shard was there when it was last asked for.
    pub verified: u64,
    /// Nothing bad was seen, and not every shard was looked at yet.
    pub unverified: u64,
    /// Lack shards, and survive at least one more loss.
    pub degraded: u64,
    /// Can still be rebuilt, but not after one more loss.
    pub at_risk: u64,
    /// Fewer than k shards are left.
    pub lost: u64,
    /// Blocks by the further losses that they survive.
    pub by_losses: BTreeMap<u8, u64>,
    /// Shards that the map names.
    pub shards: u64,
    /// Of these: bytes of the body were held against the signed root.
    pub shards_verified: u64,
    /// When the shard whose bytes were verified longest ago was; absent while one never was.
    pub oldest_verified_ms: Option<u64>,
    /// When the block that was asked for longest ago was; absent while one never was.
    pub oldest_checked_ms: Option<u64>,
    /// The same per provider.
    pub providers: BTreeMap<String, ProviderCensus>,
}

/// Shards of one provider by what was last seen of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ProviderCensus {
    /// Shards that the map places there.
    pub shards: u64,
    /// Cells in them.
    pub cells: u64,
    /// There when last asked for.
    pub good: u64,
    /// Nobody looked yet.
    pub never: u64,
    /// It says that it has none.
    pub missing: u64,
    /// It gives other bytes.
    pub wrong: u64,
    /// It did not answer.
    pub silent: u64,
    /// Bytes were held against the signed root.
    pub verified: u64,
    /// When the one verified longest ago was; absent while one never was.
    pub oldest_verified_ms: Option<u64>,
}

/// The oldest of many times, unknown as soon as one is.
#[derive(Debug, Default, Clone, Copy)]
struct Oldest {
    never: bool,
    at: Option<Timestamp>,
}

impl Oldest {
    fn note(&mut self, at: Option<Timestamp>) {
        match at {
            None => self.never = true,
            Some(at) => self.at = Some(self.at.map_or(at, |oldest| oldest.min(at))),
        }
    }

    fn ms(self) -> Option<u64> {
        self.at.filter(|_| !self.never).map(|at| at.0)
    }
}

impl Census {
    /// Counts every block of `view` that the log brought up to `through`.
    pub(crate) fn take(view: &Snapshot, now: Timestamp, through: Seq) -> Result<Self, LedgerError> {
        let mut census = Self { as_of_ms: now.0, ..Self::default() };
        let (mut verified, mut checked) = (Oldest::default(), Oldest::default());
        let mut oldest: BTreeMap<String, Oldest> = BTreeMap::new();
        let mut after = None;
        loop {
            let batch = view.blocks(after, BATCH)?;
            let Some(last) = batch.last() else { break };
            after = Some(last.facts.id);
            for entry in &batch {
                if entry.seq > through || view.condemned(entry.facts.id)?.is_some() {
                    continue;
                }
                let check = view.check_of(entry.facts.id)?;
                census.count(judge(entry, check.as_ref()));
                checked.note(check.as_ref().map(|check| check.checked).filter(|at| at.0 > 0));
                for place in entry.facts.placements.iter().filter(|place| place.acked) {
                    let shard = shard_of(check.as_ref(), place.shard);
                    census.shards += 1;
                    census.shards_verified += u64::from(shard.verified.is_some());
                    verified.note(shard.verified);
                    oldest.entry(place.provider.clone()).or_default().note(shard.verified);
                    let row = census.providers.entry(place.provider.clone()).or_default();
                    row.shards += 1;
                    row.cells += u64::from(entry.facts.shard_len).div_ceil(CELL_LEN as u64);
                    row.verified += u64::from(shard.verified.is_some());
                    *match Seen::from_u8(shard.state) {
                        Seen::Never => &mut row.never,
                        Seen::Good => &mut row.good,
                        Seen::Missing => &mut row.missing,
                        Seen::Wrong => &mut row.wrong,
                        Seen::Silent => &mut row.silent,
                    } += 1;
                }
            }
        }
        (census.oldest_verified_ms, census.oldest_checked_ms) = (verified.ms(), checked.ms());
        for (provider, oldest) in oldest {
            if let Some(row) = census.providers.get_mut(&provider) {
                row.oldest_verified_ms = oldest.ms();
            }
        }
        Ok(census)
    }

    fn count(&mut self, Verdict { integrity, losses }: Verdict) {
        self.blocks += 1;
        *match integrity {
            Integrity::Unverified => &mut self.unverified,
            Integrity::Verified => &mut self.verified,
            Integrity::Degraded => &mut self.degraded,
            Integrity::AtRisk => &mut self.at_risk,
            Integrity::Lost => &mut self.lost,
        } += 1;
        // A lost block survives nothing and is no block that merely survives no more.
        if integrity != Integrity::Lost {
            *self.by_losses.entry(losses).or_default() += 1;
        }
    }

    /// Whether there is something, all of it was looked at, and nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.blocks > 0 && self.verified == self.blocks
    }
}
