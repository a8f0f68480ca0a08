//! Compression of chunks: zstd frames of 64 KiB of plain bytes behind an offset table, where a probe says it pays.
//!
//! Stored form: one big-endian `u32` per frame, the offset of its end counted from the first frame, then the frames.
//! The number of frames follows from the plain length, which the chunk's entry holds.

use std::ops::Range;

use crate::error::{BlockError, Result};
use crate::limits::{FRAME_LEN, MAX_CHUNK};

const LEVEL: i32 = 1;
const SAMPLE_LEN: usize = 4 << 10;
const SAMPLES: usize = 3;
const WHAT: &str = "compressed chunk";

/// Whether three samples of 4 KiB say that compression pays: at least an eighth saved.
pub fn probe(plain: &[u8]) -> bool {
    let Ok(mut zstd) = zstd::bulk::Compressor::new(LEVEL) else { return false };
    let mut pays = |bytes: &[u8]| zstd.compress(bytes).map_or(usize::MAX, |out| out.len());
    if plain.len() <= SAMPLES * SAMPLE_LEN {
        return pays(plain) < plain.len() - plain.len() / 8;
    }
    let step = (plain.len() - SAMPLE_LEN) / (SAMPLES - 1);
    let samples = (0..SAMPLES).filter_map(|i| plain.get(i * step..i * step + SAMPLE_LEN));
    let stored = samples.map(&mut pays).fold(0usize, usize::saturating_add);
    stored < SAMPLES * (SAMPLE_LEN - SAMPLE_LEN / 8)
}

/// The stored form of a chunk, or nothing if raw bytes serve better (less than a sixteenth saved).
pub fn compress(plain: &[u8]) -> Result<Option<Vec<u8>>> {
    let engine = |_| BlockError::Engine { what: "zstd" };
    if plain.is_empty() || plain.len() > MAX_CHUNK || !probe(plain) {
        return Ok(None);
    }
    let frames = plain.len().div_ceil(FRAME_LEN);
    let most = plain.len() - plain.len() / 16;
    let mut zstd = zstd::bulk::Compressor::new(LEVEL).map_err(engine)?;
    let mut ends = Vec::with_capacity(frames);
    let mut body = Vec::with_capacity(plain.len() / 2);
    for frame in plain.chunks(FRAME_LEN) {
        body.extend_from_slice(&zstd.compress(frame).map_err(engine)?);
        if body.len() + frames * 4 > most {
            return Ok(None);
        }
        ends.push(crate::codec::length(body.len()));
    }
    let mut stored = Vec::with_capacity(frames * 4 + body.len());
    for end in ends {
        stored.extend_from_slice(&end.to_be_bytes());
    }
    stored.append(&mut body);
    Ok(Some(stored))
}

/// All plain bytes of a stored chunk.
pub fn decompress(stored: &[u8], plain_len: usize) -> Result<Vec<u8>> {
    decompress_range(stored, plain_len, 0..plain_len)
}

/// A range of the plain bytes; unpacks the frames it touches and no others.
pub fn decompress_range(stored: &[u8], plain_len: usize, range: Range<usize>) -> Result<Vec<u8>> {
    let malformed = BlockError::Malformed { what: WHAT };
    if range.start > range.end || range.end > plain_len || plain_len > MAX_CHUNK {
        return Err(BlockError::Invalid { what: "range of a chunk" });
    }
    let frames = plain_len.div_ceil(FRAME_LEN);
    let (table, body) = stored.split_at_checked(frames * 4).ok_or(malformed.clone())?;
    let ends = table.as_chunks::<4>().0;
    if ends.last().map_or(0, |end| u32::from_be_bytes(*end) as usize) != body.len() {
        return Err(malformed);
    }
    let (first, after) = (range.start / FRAME_LEN, range.end.div_ceil(FRAME_LEN));
    let mut out = Vec::with_capacity((after.saturating_sub(first)) * FRAME_LEN);
    let mut zstd = zstd::bulk::Decompressor::new().map_err(|_| BlockError::Engine { what: "zstd" })?;
    let end_of = |frame: usize| ends.get(frame).map(|end| u32::from_be_bytes(*end) as usize);
    for frame in first..after {
        let start = if frame == 0 { Some(0) } else { end_of(frame - 1) };
        let bytes = start.zip(end_of(frame)).and_then(|(start, end)| body.get(start..end)).ok_or(malformed.clone())?;
        let expected = (plain_len - frame * FRAME_LEN).min(FRAME_LEN);
        let plain = zstd.decompress(bytes, expected).map_err(|_| malformed.clone())?;
        if plain.len() != expected {
            return Err(malformed);
        }
        out.extend_from_slice(&plain);
    }
    out.truncate(range.end - first * FRAME_LEN);
    out.drain(..range.start - first * FRAME_LEN);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|i| b"the quick brown fox jumps "[(i / 3) % 26]).collect()
    }

    #[test]
    fn random_bytes_stay_raw() {
        let mut bytes = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        assert_eq!(compress(&bytes).unwrap(), None);
    }

    proptest! {
        #[test]
        fn ranges_equal_slices(len in 1usize..300_000, a in 0usize..300_000, b in 0usize..300_000) {
            let plain = text(len);
            let stored = compress(&plain).unwrap();
            prop_assume!(stored.is_some());
            let stored = stored.unwrap();
            let (a, b) = (a % (len + 1), b % (len + 1));
            let range = a.min(b)..a.max(b);
            prop_assert_eq!(decompress_range(&stored, len, range.clone()).unwrap(), &plain[range]);
            prop_assert_eq!(decompress(&stored, len).unwrap(), plain);
        }

        #[test]
        fn altered_or_cut_bytes_never_panic(len in 1usize..200_000, cut in 1usize..64, flip in any::<usize>(), bit in 0u8..8) {
            let plain = text(len);
            if let Some(mut stored) = compress(&plain).unwrap() {
                prop_assert!(decompress(&stored[..stored.len().saturating_sub(cut)], len).is_err());
                prop_assert!(decompress(&[stored.as_slice(), &[0]].concat(), len).is_err());
                let at = flip % stored.len();
                stored[at] ^= 1 << bit;
                let _outcome = decompress(&stored, len);
            }
        }
    }
}
