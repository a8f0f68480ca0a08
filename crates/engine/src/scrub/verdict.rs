//! What was last seen of a block, and what that says about it.

use std::collections::BTreeSet;

use diaspore_block::id::Timestamp;
use diaspore_ledger::{BlockEntry, CheckEntry, ShardCheck};

/// What was last seen of one shard. The numbers are kept in the ledger's table of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Seen {
    /// Nobody looked yet.
    #[default]
    Never,
    /// Its signed header opened, or bytes of it fitted the signed root.
    Good,
    /// The provider says that it has none.
    Missing,
    /// The provider gives bytes that are not the shard.
    Wrong,
    /// The provider does not answer.
    Silent,
}

impl Seen {
    /// As the ledger keeps it.
    pub(crate) const fn to_u8(self) -> u8 {
        match self {
            Self::Never => 0,
            Self::Good => 1,
            Self::Missing => 2,
            Self::Wrong => 3,
            Self::Silent => 4,
        }
    }

    /// What the ledger kept; numbers of a newer version say nothing to this one.
    pub(crate) const fn from_u8(state: u8) -> Self {
        match state {
            1 => Self::Good,
            2 => Self::Missing,
            3 => Self::Wrong,
            4 => Self::Silent,
            _ => Self::Never,
        }
    }
}

/// Integrity of a block, from what was last seen of its shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Integrity {
    /// Nothing bad was seen, and not every shard was looked at yet.
    Unverified,
    /// Every shard was there when it was last asked for.
    Verified,
    /// Lacks shards, and survives at least one more loss.
    Degraded,
    /// Can still be rebuilt, but not after one more loss.
    AtRisk,
    /// Fewer than k shards are left.
    Lost,
}

/// A block's verdict and how many more of its shards may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) integrity: Integrity,
    /// Further losses survived, if what nobody looked at is there.
    pub(crate) losses: u8,
}

/// The check of one shard, if anything is known.
pub(crate) fn shard_of(check: Option<&CheckEntry>, shard: u8) -> ShardCheck {
    check.and_then(|check| check.shards.get(usize::from(shard)).copied()).unwrap_or_default()
}

/// Shards that are gone or wrong, as far as anybody looked.
pub(crate) fn proven_lost(check: Option<&CheckEntry>) -> usize {
    let lost = |row: &&ShardCheck| matches!(Seen::from_u8(row.state), Seen::Missing | Seen::Wrong);
    check.map_or(0, |check| check.shards.iter().filter(lost).count())
}

/// Shards that were verified where they lie, whole or by a random cell, with nothing worse seen since.
pub(crate) fn seen_whole(check: Option<&CheckEntry>) -> BTreeSet<u8> {
    let whole = |row: &ShardCheck| Seen::from_u8(row.state) == Seen::Good && row.verified.is_some();
    let rows = check.into_iter().flat_map(|check| (0_u8..).zip(&check.shards));
    rows.filter(|(_, row)| whole(row)).map(|(shard, _)| shard).collect()
}

/// Judges a block. A shard that no provider ever acknowledged counts as missing.
pub(crate) fn judge(entry: &BlockEntry, check: Option<&CheckEntry>) -> Verdict {
    let facts = &entry.facts;
    let (k, n) = (facts.geometry.k(), facts.geometry.n());
    let acked: BTreeSet<u8> = facts.placements.iter().filter(|place| place.acked).map(|place| place.shard).collect();
    let (mut good, mut never, mut silent) = (0_u8, 0_u8, 0_u8);
    for shard in 0..n {
        match Seen::from_u8(shard_of(check, shard).state) {
            Seen::Good => good += 1,
            Seen::Never if acked.contains(&shard) => never += 1,
            Seen::Silent => silent += 1,
            Seen::Never | Seen::Missing | Seen::Wrong => (),
        }
    }
    let there = good + never;
    let losses = there.saturating_sub(k);
    let integrity = if there + silent < k {
        Integrity::Lost
    } else if there <= k {
        Integrity::AtRisk
    } else if there < n {
        Integrity::Degraded
    } else if never > 0 {
        Integrity::Unverified
    } else {
        Integrity::Verified
    };
    Verdict { integrity, losses }
}

/// The entry with one shard's verdict changed. Bytes that were verified leave their time, whatever is seen later.
pub(crate) fn noted(check: Option<CheckEntry>, n: u8, shard: u8, seen: Seen, verified: Option<Timestamp>) -> CheckEntry {
    let mut check = check.unwrap_or_default();
    check.shards.resize(usize::from(n), ShardCheck::default());
    if let Some(row) = check.shards.get_mut(usize::from(shard)) {
        row.state = seen.to_u8();
        row.verified = match seen {
            Seen::Good => verified.or(row.verified),
            Seen::Missing | Seen::Wrong => None,
            Seen::Never | Seen::Silent => row.verified,
        };
    }
    check
}

#[cfg(test)]
pub(crate) mod tests {
    use diaspore_block::geometry::Geometry;
    use diaspore_block::id::{Attempt, BlockId, Counter, Hash32, IncarnationId, Seq};
    use diaspore_block::manifest::{BlockKind, CodeId};
    use diaspore_block::record::Placement;
    use diaspore_ledger::BlockFacts;

    use super::*;

    /// A 3-of-5 block on providers a to e.
    pub(crate) fn entry(number: u8, acked: u8) -> BlockEntry {
        let place = |shard: u8| Placement { shard, provider: char::from(b'a' + shard).to_string(), acked: shard < acked };
        let facts = BlockFacts {
            id: BlockId::from_bytes([number; 16]),
            kind: BlockKind::Bulk,
            incarnation: IncarnationId::from_bytes([1; 16]),
            counter: Counter(number.into()),
            attempt: Attempt(0),
            geometry: Geometry::new(3, 5).unwrap(),
            code: CodeId::ReedSolomonVandermonde,
            payload_len: 100_000,
            shard_len: 33_334,
            block_root: Hash32::ZERO,
            shard_roots: vec![Hash32::ZERO; 5],
            manifest_hash: Hash32::ZERO,
            sections: Vec::new(),
            placements: (0..5).map(place).collect(),
        };
        BlockEntry { seq: Seq(1), time: Timestamp(0), settled: acked == 5, facts }
    }

    fn check(states: [Seen; 5]) -> CheckEntry {
        let shards = states.iter().map(|seen| ShardCheck { state: seen.to_u8(), verified: None }).collect();
        CheckEntry { checked: Timestamp(1), shards }
    }

    #[test]
    fn a_block_is_only_as_good_as_what_was_seen() {
        use Seen::{Good, Missing, Never, Silent, Wrong};
        let of = |states| {
            let verdict = judge(&entry(1, 5), Some(&check(states)));
            (verdict.integrity, verdict.losses)
        };
        assert_eq!(judge(&entry(1, 5), None), Verdict { integrity: Integrity::Unverified, losses: 2 });
        assert_eq!(judge(&entry(1, 4), None).integrity, Integrity::Degraded, "no provider ever took the fifth");
        assert_eq!(of([Good; 5]), (Integrity::Verified, 2));
        assert_eq!(of([Good, Good, Good, Good, Never]), (Integrity::Unverified, 2));
        assert_eq!(of([Good, Good, Good, Good, Missing]), (Integrity::Degraded, 1));
        assert_eq!(of([Good, Good, Good, Silent, Wrong]), (Integrity::AtRisk, 0));
        assert_eq!(of([Good, Silent, Silent, Missing, Missing]), (Integrity::AtRisk, 0), "silence is no loss");
        assert_eq!(of([Good, Good, Wrong, Missing, Missing]), (Integrity::Lost, 0));
    }

    #[test]
    fn the_time_of_verified_bytes_outlives_a_header_and_not_a_loss() {
        let at = |check: &CheckEntry| shard_of(Some(check), 2).verified;
        let check = noted(None, 5, 2, Seen::Good, Some(Timestamp(9)));
        let check = noted(Some(check), 5, 2, Seen::Good, None);
        assert_eq!(at(&check), Some(Timestamp(9)));
        let check = noted(Some(check), 5, 2, Seen::Silent, None);
        assert_eq!(at(&check), Some(Timestamp(9)));
        let check = noted(Some(check), 5, 2, Seen::Missing, None);
        assert_eq!((at(&check), check.shards.len()), (None, 5));
    }

    #[test]
    fn numbers_of_a_newer_version_count_as_nothing_seen() {
        for seen in [Seen::Never, Seen::Good, Seen::Missing, Seen::Wrong, Seen::Silent] {
            assert_eq!(Seen::from_u8(seen.to_u8()), seen);
        }
        assert_eq!(Seen::from_u8(77), Seen::Never);
    }
}
