//! Content-defined chunking: where a byte stream is cut depends on its content and on the bucket's key.
//!
//! `MinCDC` (by Orson Peters, the `mothcdc` crate) puts a boundary after the four bytes with the smallest keyed hash between
//! [`MIN_CHUNK_BYTES`] and [`MAX_CHUNK_BYTES`]. The choice and its figures are in docs/decisions/0004-chunking.md. A boundary in
//! another place costs deduplication, never correctness: a chunk is named by its own bytes.

use mothcdc::mincdc::{Cdc, MinCdcHash4};

/// Algorithm id as the decision record and `docs/format.md` name it: `MinCDC`, hash window of 4, keyed, 128..384 KiB.
pub(crate) const CHUNKER_ID: u8 = 1;
/// No chunk but the last of a stream is shorter.
pub(crate) const MIN_CHUNK_BYTES: usize = 128 * 1024;
/// No chunk is longer.
pub(crate) const MAX_CHUNK_BYTES: usize = 384 * 1024;
/// Bytes gathered before cutting: larger means fewer tail moves, smaller means less memory per upload.
pub(crate) const WINDOW_BYTES: usize = 2 * 1024 * 1024;

/// Cuts one stream. Feed it with [`Chunker::push`] until full, then take chunks with [`Chunker::cut`].
pub(crate) struct Chunker {
    cdc: MinCdcHash4,
    window: Vec<u8>,
    start: usize,
    ended: bool,
}

impl std::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunker").field("id", &CHUNKER_ID).field("held_bytes", &self.held()).finish_non_exhaustive()
    }
}

impl Chunker {
    /// A chunker under a secret of the bucket: without it, boundaries cannot be matched against known content.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let mut words = key.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or_default();
        Self { cdc: MinCdcHash4::with_params(word() | 1, word()), window: Vec::new(), start: 0, ended: false }
    }

    /// Bytes held and not yet cut.
    pub(crate) fn held(&self) -> usize {
        self.window.len() - self.start
    }

    /// True when no more bytes are taken before some are cut.
    pub(crate) fn is_full(&self) -> bool {
        self.held() >= WINDOW_BYTES
    }

    /// Takes as much of `piece` as fits and returns how many bytes that was.
    pub(crate) fn push(&mut self, piece: &[u8]) -> usize {
        if self.start > 0 {
            self.window.drain(..self.start);
            self.start = 0;
        }
        let taken = piece.len().min(WINDOW_BYTES.saturating_sub(self.window.len()));
        let (now, _) = piece.split_at(taken);
        self.window.extend_from_slice(now);
        taken
    }

    /// Tells the chunker that no byte follows, so that the rest can be cut.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// The next chunk, or `None` when more bytes are needed (before [`Chunker::end`]) or nothing is left.
    pub(crate) fn cut(&mut self) -> Option<&[u8]> {
        let held = self.window.get(self.start..)?;
        if held.is_empty() || (!self.ended && held.len() <= MAX_CHUNK_BYTES) {
            return None;
        }
        let len = self.boundary(held);
        let chunk = self.start..self.start + len;
        self.start = chunk.end;
        self.window.get(chunk)
    }

    fn boundary(&self, held: &[u8]) -> usize {
        if held.len() <= MIN_CHUNK_BYTES {
            return held.len();
        }
        let first = MIN_CHUNK_BYTES - self.cdc.window_size();
        let last = held.len().min(MAX_CHUNK_BYTES);
        // The crate's answer is clamped: a defect in its vector code may cost deduplication but not a bound of ours.
        let search = held.get(first..last).unwrap_or(held);
        (first + self.cdc.best_splitpoint(search)).clamp(MIN_CHUNK_BYTES, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use std::collections::HashSet;

    fn random(len: usize, seed: u64) -> Vec<u8> {
        let mut out = vec![0; len];
        StdRng::seed_from_u64(seed).fill_bytes(&mut out);
        out
    }

    fn chunks(data: &[u8], key: u8, piece: usize) -> Vec<Vec<u8>> {
        let mut chunker = Chunker::new(&[key; 32]);
        let mut out = Vec::new();
        for mut part in data.chunks(piece) {
            while !part.is_empty() {
                let taken = chunker.push(part);
                part = &part[taken..];
                if chunker.is_full() {
                    while let Some(chunk) = chunker.cut() {
                        out.push(chunk.to_vec());
                    }
                }
            }
        }
        chunker.end();
        while let Some(chunk) = chunker.cut() {
            out.push(chunk.to_vec());
        }
        assert_eq!(chunker.held(), 0);
        out
    }

    #[test]
    fn chunks_join_to_the_stream_and_keep_their_bounds() {
        for len in [0, 1, MIN_CHUNK_BYTES, MAX_CHUNK_BYTES, MAX_CHUNK_BYTES + 1, WINDOW_BYTES, 9_000_001] {
            let data = random(len, len as u64);
            let cut = chunks(&data, 7, 65_537);
            assert_eq!(cut.concat(), data);
            assert!(cut.iter().all(|c| !c.is_empty() && c.len() <= MAX_CHUNK_BYTES));
            assert!(cut.iter().rev().skip(1).all(|c| c.len() >= MIN_CHUNK_BYTES));
        }
    }

    #[test]
    fn boundaries_do_not_depend_on_how_the_bytes_arrive() {
        let data = random(8 << 20, 3);
        let whole = chunks(&data, 1, data.len());
        assert_eq!(whole, chunks(&data, 1, 1_000));
        assert_eq!(whole, chunks(&data, 1, 700_000));
    }

    #[test]
    fn an_insertion_moves_only_the_boundaries_near_it() {
        let data = random(16 << 20, 4);
        let mut edited = data.clone();
        edited.splice(8_000_000..8_000_000, *b"inserted");
        let known: HashSet<_> = chunks(&data, 9, 1 << 20).into_iter().collect();
        let fresh = chunks(&edited, 9, 1 << 20).into_iter().filter(|c| !known.contains(c)).count();
        assert!((1..=4).contains(&fresh), "{fresh} chunks changed");
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let data = random(16 << 20, 5);
        let one: HashSet<_> = chunks(&data, 1, 1 << 20).into_iter().collect();
        let same = chunks(&data, 2, 1 << 20).into_iter().filter(|c| one.contains(c)).count();
        assert!(same <= 1, "{same} chunks are cut alike under two keys");
    }
}
