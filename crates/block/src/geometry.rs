//! Geometry (k, n) and the size classes of shard objects.

use std::fmt;

use crate::codec::{Field, Reader};
use crate::error::{BlockError, Result};
use crate::limits::{CELL_LEN, HEADER_LEN, MAX_SHARD_OBJECT, MAX_SHARDS, MIN_SHARD_OBJECT};
use crate::seal::{PREFIX_LEN, TAG_LEN};

/// Any `k` of `n` shards rebuild a block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Geometry {
    k: u8,
    n: u8,
}

impl Geometry {
    /// Checked: `1 <= k < n <= 32`.
    pub const fn new(k: u8, n: u8) -> Result<Self> {
        if k >= 1 && k < n && n <= MAX_SHARDS {
            Ok(Self { k, n })
        } else {
            Err(BlockError::Invalid { what: "geometry (1 <= k < n <= 32)" })
        }
    }

    /// Shards needed to rebuild; also the number of data shards.
    pub const fn k(self) -> u8 {
        self.k
    }

    /// Shards in all.
    pub const fn n(self) -> u8 {
        self.n
    }

    /// Shards that may be lost.
    pub const fn f(self) -> u8 {
        self.n - self.k
    }

    /// Acknowledgements that make a quorum: k + 1.
    pub const fn quorum(self) -> u8 {
        self.k + 1
    }
}

impl fmt::Debug for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Geometry({self})")
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-of-{}", self.k, self.n)
    }
}

impl Field for Geometry {
    const MIN_LEN: usize = 2;
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.k, self.n]);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        let [k, n] = reader.array()?;
        Self::new(k, n).map_err(|_| reader.malformed())
    }
}

/// PADME (Nikitin et al., PURBs, 2019): the next length with few significant bits; at most 12 % more, O(log log) leak.
pub(crate) fn padme(len: usize) -> usize {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let significant = exponent.ilog2() + 1;
    len.next_multiple_of(1 << exponent.saturating_sub(significant))
}

/// Cells of a shard of this length.
pub const fn cell_count(shard_len: u32) -> u32 {
    shard_len.div_ceil(1 << crate::limits::CELL_LOG2)
}

const fn object_len_without_padding(shard_len: usize) -> usize {
    HEADER_LEN + shard_len + PREFIX_LEN + TAG_LEN + shard_len.div_ceil(CELL_LEN) * 32
}

/// Length of the shard object (header, body, sealed leaf list) around a shard of this length: a PADME class.
pub fn object_len(shard_len: u32) -> Result<usize> {
    let len = padme(object_len_without_padding(shard_len as usize)).max(MIN_SHARD_OBJECT);
    if shard_len == 0 || len > MAX_SHARD_OBJECT {
        return Err(BlockError::Invalid { what: "shard length" });
    }
    Ok(len)
}

/// Length S of each shard for a payload: as long as the size class of the object allows.
pub fn shard_len_for(payload_len: usize, k: u8) -> Result<u32> {
    let invalid = BlockError::Invalid { what: "payload length" };
    if payload_len == 0 || k == 0 || payload_len > max_payload(k) {
        return Err(invalid);
    }
    let least = payload_len.div_ceil(usize::from(k));
    let object = padme(object_len_without_padding(least)).max(MIN_SHARD_OBJECT);
    u32::try_from(longest_shard_in(object)).map_err(|_| invalid)
}

/// The longest shard whose object fits `object` bytes.
const fn longest_shard_in(object: usize) -> usize {
    let room = object - HEADER_LEN - PREFIX_LEN - TAG_LEN;
    // Every full cell takes its bytes and its leaf; the rest, if it is longer than a leaf, is one short cell more.
    let full = room / (CELL_LEN + 32);
    let rest = room % (CELL_LEN + 32);
    full * CELL_LEN + rest.saturating_sub(32)
}

/// The longest payload of a block with `k` data shards.
pub const fn max_payload(k: u8) -> usize {
    longest_shard_in(MAX_SHARD_OBJECT) * k as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_objects_have_padme_sizes_and_hold_the_payload() {
        for k in [1u8, 2, 3, 6, 31] {
            for payload in (1..max_payload(k)).step_by(9973).chain([max_payload(k)]) {
                let shard = shard_len_for(payload, k).unwrap();
                assert!(shard as usize * usize::from(k) >= payload);
                let object = object_len(shard).unwrap();
                assert_eq!(padme(object), object, "payload {payload}");
                assert!((MIN_SHARD_OBJECT..=MAX_SHARD_OBJECT).contains(&object));
                // What the leaf list is padded with stays below one leaf and its cell's first byte.
                assert!(object - object_len_without_padding(shard as usize) <= 32, "payload {payload}");
            }
            assert!(shard_len_for(max_payload(k) + 1, k).is_err());
            assert!(shard_len_for(0, k).is_err());
        }
        assert_eq!(object_len(u32::try_from(longest_shard_in(MAX_SHARD_OBJECT)).unwrap()).unwrap(), MAX_SHARD_OBJECT);
    }

    #[test]
    fn geometry_is_checked() {
        assert_eq!(Geometry::new(3, 5).unwrap().quorum(), 4);
        for (k, n) in [(0, 2), (2, 2), (3, 2), (4, 33)] {
            assert!(Geometry::new(k, n).is_err());
        }
    }
}
