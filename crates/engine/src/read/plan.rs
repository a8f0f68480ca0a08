//! Where the bytes of a block lie: pure arithmetic from payload to shards, cells and objects.

use std::ops::Range;

use diaspore_block::limits::{CELL_LEN, HEADER_LEN};

/// Bytes of one data shard's body that a read wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardRange {
    pub(crate) shard: u8,
    /// Within the shard's body, not empty.
    pub(crate) body: Range<u64>,
}

/// The data-shard ranges that hold payload bytes `payload`, in payload order: data shard i is bytes `[i*S, (i+1)*S)`.
pub(crate) fn shard_ranges(payload: &Range<u64>, shard_len: u64) -> Vec<ShardRange> {
    let mut ranges = Vec::new();
    let mut at = payload.start;
    while at < payload.end && shard_len > 0 {
        let shard = at / shard_len;
        let end = payload.end.min((shard + 1) * shard_len);
        let base = shard * shard_len;
        ranges.push(ShardRange { shard: u8::try_from(shard).unwrap_or(u8::MAX), body: at - base..end - base });
        at = end;
    }
    ranges
}

/// The whole cells of a shard that cover `body`: what can be checked against signed leaves.
pub(crate) fn cell_cover(body: &Range<u64>, shard_len: u64) -> Range<u64> {
    let cell = CELL_LEN as u64;
    body.start / cell * cell..body.end.next_multiple_of(cell).min(shard_len)
}

/// Where body bytes lie in the shard object; the sealed leaf list behind them comes along when they reach the body's end.
pub(crate) fn object_range(body: &Range<u64>, shard_len: u64, leaves_len: u64) -> Range<u64> {
    let header = HEADER_LEN as u64;
    let end = if body.end >= shard_len { shard_len + leaves_len } else { body.end };
    header + body.start..header + end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_inside_a_shard_is_one_range_and_an_edge_makes_two() {
        assert_eq!(shard_ranges(&(10..20), 100), [ShardRange { shard: 0, body: 10..20 }]);
        assert_eq!(
            shard_ranges(&(90..210), 100),
            [ShardRange { shard: 0, body: 90..100 }, ShardRange { shard: 1, body: 0..100 }, ShardRange { shard: 2, body: 0..10 }]
        );
        assert_eq!(shard_ranges(&(100..200), 100), [ShardRange { shard: 1, body: 0..100 }]);
        assert_eq!(shard_ranges(&(5..5), 100), []);
    }

    #[test]
    fn cells_cover_and_stay_inside() {
        assert_eq!(cell_cover(&(1..2), 200_000), 0..65_536);
        assert_eq!(cell_cover(&(65_536..131_072), 200_000), 65_536..131_072);
        assert_eq!(cell_cover(&(131_071..199_999), 200_000), 65_536..200_000);
        assert_eq!(cell_cover(&(0..100), 100), 0..100);
    }

    #[test]
    fn leaves_ride_along_at_the_end_only() {
        assert_eq!(object_range(&(0..10), 100, 50), 2048..2058);
        assert_eq!(object_range(&(90..100), 100, 50), 2138..2198);
    }
}
