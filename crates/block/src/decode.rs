//! Decoding: payload ranges and missing shards out of verified cells, column by column.

use std::ops::Range;

use bytes::Bytes;

use crate::erasure;
use crate::error::{BlockError, Result};
use crate::geometry::Geometry;
use crate::id::Hash32;
use crate::manifest::Manifest;
use crate::shard::VerifiedCells;

/// Which bytes of which data shards hold a payload range: `(shard, from..to)`, in payload order.
pub fn shard_ranges(manifest: &Manifest, payload: Range<u32>) -> Result<Vec<(u8, Range<u32>)>> {
    payload_ranges(manifest.payload_len, manifest.shard_len, payload)
}

/// [`shard_ranges`] for a caller that holds only the lengths (a record instead of a manifest).
pub fn payload_ranges(payload_len: u32, shard_len: u32, payload: Range<u32>) -> Result<Vec<(u8, Range<u32>)>> {
    if payload.start > payload.end || payload.end > payload_len || shard_len == 0 {
        return Err(BlockError::Invalid { what: "payload range" });
    }
    let mut ranges = Vec::new();
    let mut at = payload.start;
    while at < payload.end {
        let shard = u8::try_from(at / shard_len).map_err(|_| BlockError::Invalid { what: "payload range" })?;
        let from = at % shard_len;
        let len = (shard_len - from).min(payload.end - at);
        ranges.push((shard, from..from + len));
        at += len;
    }
    Ok(ranges)
}

/// The bytes `payload` of a block's payload, out of verified cells of its shards.
///
/// A data shard that is there is copied, one that is missing is rebuilt from any k shards that cover the same bytes.
/// A range inside one present shard is a slice, without a copy.
pub fn decode(manifest: &Manifest, present: &[VerifiedCells], payload: Range<u32>) -> Result<Bytes> {
    let mut parts = Vec::new();
    for (shard, range) in shard_ranges(manifest, payload)? {
        parts.push(reconstruct(manifest, present, shard, range)?);
    }
    if parts.len() == 1 {
        return Ok(parts.pop().unwrap_or_default());
    }
    let mut out = Vec::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        out.extend_from_slice(&part);
    }
    Ok(out.into())
}

/// The bytes `range` of shard `wanted`, data or parity: as they are where they are there, else rebuilt from any k shards
/// of this block that cover them.
pub fn reconstruct(manifest: &Manifest, present: &[VerifiedCells], wanted: u8, range: Range<u32>) -> Result<Bytes> {
    rebuild_range(manifest.geometry, manifest.shard_len, &manifest.block_root, present, wanted, range)
}

/// [`reconstruct`] for a caller that knows the block from its record instead of its manifest.
pub fn rebuild_range(
    geometry: Geometry,
    shard_len: u32,
    block_root: &Hash32,
    present: &[VerifiedCells],
    wanted: u8,
    range: Range<u32>,
) -> Result<Bytes> {
    if wanted >= geometry.n() || range.start > range.end || range.end > shard_len {
        return Err(BlockError::Invalid { what: "shard range" });
    }
    let ours = present.iter().filter(|cells| cells.block_root == *block_root && cells.shard < geometry.n());
    let mut sources: Vec<(u8, Bytes)> = Vec::with_capacity(usize::from(geometry.k()));
    for cells in ours {
        let Some(bytes) = cells.slice(range.start, range.end) else { continue };
        if cells.shard == wanted {
            return Ok(bytes);
        }
        if sources.len() < usize::from(geometry.k()) && sources.iter().all(|(shard, _)| *shard != cells.shard) {
            sources.push((cells.shard, bytes));
        }
    }
    if sources.len() < usize::from(geometry.k()) {
        let have = u8::try_from(sources.len()).unwrap_or(u8::MAX);
        return Err(BlockError::TooFewShards { need: geometry.k(), have });
    }
    let slices: Vec<(u8, &[u8])> = sources.iter().map(|(shard, bytes)| (*shard, bytes.as_ref())).collect();
    erasure::rebuild(geometry, &slices, wanted).map(Bytes::from)
}
