//! Erasure coding: systematic Reed-Solomon over GF(2^8), polynomial 0x11d, with the matrix `reed-solomon-erasure` builds
//! (docs/format.md, "Code"). Two engines give the same bytes (docs/decisions/0001).

use crate::error::{BlockError, Result};
use crate::geometry::Geometry;
use crate::limits::COLUMN_LEN;

pub mod coder;
use coder::{DefaultCoder, ShardCoder};

/// Computes the parity shards of `data` (k equal shards, each `shard_len` bytes) into one buffer, one after the other.
pub fn parity(geometry: Geometry, data: &[&[u8]], shard_len: usize) -> Result<Vec<u8>> {
    parity_with::<DefaultCoder>(geometry, data, shard_len)
}

/// The parity shards with a named engine.
pub fn parity_with<C: ShardCoder>(geometry: Geometry, data: &[&[u8]], shard_len: usize) -> Result<Vec<u8>> {
    let mut parity = vec![0; shard_len * usize::from(geometry.f())];
    parity_into::<C>(geometry, data, &mut parity, |_, _| ())?;
    Ok(parity)
}

/// The parity shards into memory of the caller, n - k times as long as a shard. Shows each column of each shard to `seen`, by the
/// shard's index and in order, right after it was coded; columns are [`COLUMN_LEN`] bytes but for the last.
pub fn parity_into<C: ShardCoder>(geometry: Geometry, data: &[&[u8]], parity: &mut [u8], mut seen: impl FnMut(usize, &[u8])) -> Result<()> {
    let engine = BlockError::Engine { what: "erasure coder" };
    let shard_len = data.first().map_or(0, |shard| shard.len());
    let fits = data.len() == usize::from(geometry.k()) && parity.len() == shard_len * usize::from(geometry.f());
    if !fits || data.iter().any(|shard| shard.len() != shard_len) || shard_len == 0 {
        return Err(engine);
    }
    let coder = C::new(geometry)?;
    let mut rows: Vec<_> = parity.chunks_mut(shard_len).map(|row| row.chunks_mut(COLUMN_LEN)).collect();
    for start in (0..shard_len).step_by(COLUMN_LEN) {
        let end = shard_len.min(start + COLUMN_LEN);
        let from: Vec<&[u8]> = data.iter().filter_map(|shard| shard.get(start..end)).collect();
        let mut to: Vec<&mut [u8]> = rows.iter_mut().filter_map(Iterator::next).collect();
        coder.encode(&from, &mut to)?;
        from.into_iter().chain(to.into_iter().map(|column| &*column)).enumerate().for_each(|(index, column)| seen(index, column));
    }
    Ok(())
}

/// Rebuilds shard `wanted` from exactly `k` others, given as (index, bytes) of equal length.
pub fn rebuild(geometry: Geometry, present: &[(u8, &[u8])], wanted: u8) -> Result<Vec<u8>> {
    rebuild_with::<DefaultCoder>(geometry, present, wanted)
}

/// Rebuilds a shard with a named engine.
pub fn rebuild_with<C: ShardCoder>(geometry: Geometry, present: &[(u8, &[u8])], wanted: u8) -> Result<Vec<u8>> {
    let engine = BlockError::Engine { what: "erasure coder" };
    let len = present.first().map_or(0, |(_, bytes)| bytes.len());
    if present.len() != usize::from(geometry.k()) || wanted >= geometry.n() || present.iter().any(|(_, b)| b.len() != len) {
        return Err(engine);
    }
    let coder = C::new(geometry)?;
    let indexes: Vec<u8> = present.iter().map(|(index, _)| *index).collect();
    let plan = coder.plan(&indexes, wanted)?;
    let mut out = vec![0; len];
    for (column, to) in out.chunks_mut(COLUMN_LEN).enumerate() {
        let start = column * COLUMN_LEN;
        let slices: Vec<(u8, &[u8])> =
            present.iter().filter_map(|(index, bytes)| Some((*index, bytes.get(start..start + to.len())?))).collect();
        coder.rebuild(&plan, &slices, wanted, to)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
