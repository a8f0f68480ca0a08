//! Compression of chunks: zstd frames of 64 KiB of plain bytes behind an offset table, where a probe says it pays.
//!
//! Stored form: one big-endian `u32` per frame, the offset of its end counted from the first frame, then the frames.
//! The number of frames follows from the plain length, which the chunk's entry holds.

use std::cell::RefCell;
use std::ops::Range;

use zstd::bulk::Compressor;

use crate::error::{BlockError, Result};
use crate::limits::{FRAME_LEN, MAX_CHUNK};

const LEVEL: i32 = 1;
const SAMPLE_LEN: usize = 4 << 10;
const SAMPLES: usize = 3;
/// After so many chunks of a stream in a row that did not pay, one sample decides whether the others are looked at.
const MISSES: u32 = 8;
const WHAT: &str = "compressed chunk";

thread_local! {
    /// Making a context costs more than probing a chunk with it: every thread keeps one.
    static ZSTD: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// Runs `work` with this thread's context.
fn with_zstd<T>(work: impl FnOnce(&mut Compressor<'static>) -> Result<T>) -> Result<T> {
    ZSTD.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Compressor::new(LEVEL).ok();
        }
        kept.as_mut().map_or(Err(BlockError::Engine { what: "zstd" }), work)
    })
}

/// Whether the chunks of one stream are worth compressing, by samples of 4 KiB: at least an eighth saved. A stream that never was
/// gets a shorter look.
#[derive(Debug, Default)]
pub struct Probe {
    misses: u32,
}

impl Probe {
    fn pays(&mut self, zstd: &mut Compressor<'_>, plain: &[u8]) -> bool {
        let step = plain.len().saturating_sub(SAMPLE_LEN) / (SAMPLES - 1);
        let spread: Vec<&[u8]> = (0..SAMPLES).filter_map(|i| plain.get(i * step..i * step + SAMPLE_LEN)).collect();
        let samples = if plain.len() <= SAMPLES * SAMPLE_LEN { vec![plain] } else { spread };
        let hopeless = self.misses >= MISSES && !saves(zstd, samples.get(samples.len() / 2..=samples.len() / 2).unwrap_or_default());
        let pays = !hopeless && saves(zstd, &samples);
        self.misses = if pays { 0 } else { self.misses.saturating_add(1) };
        pays
    }
}

/// Whether compressing takes an eighth off the samples together.
fn saves(zstd: &mut Compressor<'_>, samples: &[&[u8]]) -> bool {
    let whole: usize = samples.iter().map(|sample| sample.len()).sum();
    let stored = samples.iter().map(|sample| zstd.compress(sample).map_or(usize::MAX, |out| out.len()));
    stored.fold(0, usize::saturating_add) < whole - whole / 8
}

/// The stored form of a chunk, or nothing if raw bytes serve better (less than a sixteenth saved).
pub fn compress(plain: &[u8], probe: &mut Probe) -> Result<Option<Vec<u8>>> {
    if plain.is_empty() || plain.len() > MAX_CHUNK {
        return Ok(None);
    }
    with_zstd(|zstd| if probe.pays(zstd, plain) { pack(zstd, plain) } else { Ok(None) })
}

fn pack(zstd: &mut Compressor<'_>, plain: &[u8]) -> Result<Option<Vec<u8>>> {
    let frames = plain.len().div_ceil(FRAME_LEN);
    let most = plain.len() - plain.len() / 16;
    let mut ends = Vec::with_capacity(frames);
    let mut body = Vec::with_capacity(plain.len() / 2);
    for frame in plain.chunks(FRAME_LEN) {
        body.extend_from_slice(&zstd.compress(frame).map_err(|_| BlockError::Engine { what: "zstd" })?);
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
        // The decompressor would go on into a second frame, and one chunk would have many stored forms.
        if zstd::zstd_safe::find_frame_compressed_size(bytes) != Ok(bytes.len()) {
            return Err(malformed);
        }
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

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn compress(plain: &[u8]) -> Result<Option<Vec<u8>>> {
        super::compress(plain, &mut Probe::default())
    }

    #[test]
    fn random_bytes_stay_raw() {
        assert_eq!(compress(&noise(100_000)).unwrap(), None);
    }

    #[test]
    fn a_stream_that_did_not_pay_is_still_looked_at() {
        let (mut probe, noise, text) = (Probe::default(), noise(100_000), text(100_000));
        let stays_raw = |plain: &[u8], probe: &mut Probe| super::compress(plain, probe).unwrap().is_none();
        // Two samples of three pay.
        let mixed = [&text[..], &noise, &text].concat();
        assert!(!stays_raw(&mixed, &mut probe));
        for _ in 0..=MISSES {
            assert!(stays_raw(&noise, &mut probe));
        }
        assert!(stays_raw(&mixed, &mut probe), "the middle decides");
        assert!(!stays_raw(&text, &mut probe));
        assert!(!stays_raw(&mixed, &mut probe), "one that pays brings the full look back");
        assert_eq!(probe.misses, 0);
    }

    #[test]
    fn a_frame_in_two_pieces_is_refused() {
        let plain = text(1000);
        let pieces = [&plain[..500], &plain[500..]].map(|piece| zstd::bulk::compress(piece, LEVEL).unwrap());
        let stored = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
        assert_eq!(decompress(&stored(&zstd::bulk::compress(&plain, LEVEL).unwrap()), 1000).unwrap(), plain);
        assert!(decompress(&stored(&pieces.concat()), 1000).is_err());
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
