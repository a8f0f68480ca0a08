//! From the parts of a block to plain chunk bytes: segments are opened in order, and one whose tag fails is fetched again
//! from verified cells.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use diaspore_block::manifest::BlockPosition;
use diaspore_block::record::{Encoding, SectionInfo};
use diaspore_block::seal::{Opener, Span, TAG_LEN};
use diaspore_block::section::{open_section, section_span};
use diaspore_block::{BlockError, compress};
use diaspore_ledger::BlockEntry;

use super::fetch::{BlockReader, Part};
use super::unit::{Item, Unit};
use crate::api::{Error, ErrorKind};
use crate::shared::Shared;
use crate::world::cpu;

/// Opened bytes of one unit, and what is to be made of them.
#[derive(Debug)]
pub(super) struct Opened {
    /// Plaintext of whole segments.
    plain: Bytes,
    /// Offset of `plain` in the section's plaintext.
    base: u64,
}

/// Fetches and opens everything a unit needs.
pub(super) async fn fetch_unit(shared: &Arc<Shared>, block: Arc<BlockEntry>, unit: &Unit) -> Result<Opened, Error> {
    let section = block.facts.sections.get(usize::from(unit.section)).cloned().ok_or_else(damaged)?;
    let (payload, span) = section_range(&section, &unit.span)?;
    let opener = section_opener(shared, &block, unit.section, &section)?;
    let reader = BlockReader::new(shared, block);
    let mut parts = reader.payload(&payload).await?;
    let base = u64::from(span.first_segment) << section.seg_log2;
    let stride = (1_usize << section.seg_log2) + TAG_LEN;
    let mut run = Run { opener, stride, span, plain: Vec::with_capacity(length(&payload)), done: 0 };
    while let Err(at) = on_cpu(length(&payload), || run.open(&parts)) {
        let broken = run.segment(at, &parts);
        let mut progress = false;
        for (index, part) in touched(&parts, &broken) {
            if !part.verified {
                let proven = reader.proven(&part).await?;
                progress = true;
                if let Some(slot) = parts.get_mut(index) {
                    *slot = proven;
                }
            }
        }
        if !progress {
            return Err(damaged());
        }
    }
    Ok(Opened { plain: Bytes::from(run.plain), base })
}

/// Payload bytes and span of a plaintext range of a section.
fn section_range(section: &SectionInfo, plain: &Range<u64>) -> Result<(Range<u64>, Span), Error> {
    let bound = |at: u64| u32::try_from(at).map_err(|_| damaged());
    section_span(section, bound(plain.start)?..bound(plain.end)?).map_err(|error| wrong(&error))
}

fn section_opener(shared: &Shared, block: &BlockEntry, index: u8, section: &SectionInfo) -> Result<Opener, Error> {
    let facts = &block.facts;
    let at = BlockPosition {
        deployment: shared.deployment(),
        block: facts.id,
        kind: facts.kind,
        incarnation: facts.incarnation,
        counter: facts.counter,
        attempt: facts.attempt,
    };
    open_section(&at, index, section, &shared.keys).map_err(|error| wrong(&error))
}

struct Run {
    opener: Opener,
    stride: usize,
    span: Span,
    plain: Vec<u8>,
    /// Segments opened.
    done: usize,
}

impl Run {
    /// Opens the segments that are not open yet. The error is the place of the first that fails.
    fn open(&mut self, parts: &[Part]) -> Result<(), usize> {
        let total: usize = parts.iter().map(|part| part.bytes.len()).sum();
        let mut across = Vec::new();
        while self.done * self.stride < total {
            let sealed = self.segment(self.done, parts);
            let bytes = gather(parts, &sealed, &mut across);
            let index = u32::try_from(self.done).ok().and_then(|done| self.span.first_segment.checked_add(done)).ok_or(self.done)?;
            self.opener.open_segment(index, bytes, &mut self.plain).map_err(|_| self.done)?;
            self.done += 1;
        }
        Ok(())
    }

    /// Where segment `at` of the run lies in the joined parts.
    fn segment(&self, at: usize, parts: &[Part]) -> Range<usize> {
        let total: usize = parts.iter().map(|part| part.bytes.len()).sum();
        at * self.stride..((at + 1) * self.stride).min(total)
    }
}

/// Bytes `range` of the joined parts: a slice where one part holds them, else a copy in `across`.
fn gather<'a>(parts: &'a [Part], range: &Range<usize>, across: &'a mut Vec<u8>) -> &'a [u8] {
    across.clear();
    let mut start = 0;
    for part in parts {
        let end = start + part.bytes.len();
        let from = range.start.max(start);
        let to = range.end.min(end);
        if from < to {
            let piece = part.bytes.get(from - start..to - start).unwrap_or_default();
            if piece.len() == range.end - range.start {
                return piece;
            }
            across.extend_from_slice(piece);
        }
        start = end;
    }
    across
}

/// The parts that hold any of `range` of the joined parts.
fn touched(parts: &[Part], range: &Range<usize>) -> Vec<(usize, Part)> {
    let mut start = 0;
    let mut found = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let end = start + part.bytes.len();
        if range.start < end && start < range.end {
            found.push((index, part.clone()));
        }
        start = end;
    }
    found
}

impl Opened {
    /// The wanted bytes of one item.
    pub(super) fn bytes(&self, item: &Item) -> Result<Bytes, Error> {
        let stored = self.stored(item)?;
        if item.encoding == Encoding::Raw {
            return Ok(stored);
        }
        let wanted = bound(item.wanted.start)?..bound(item.wanted.end)?;
        let plain_len = bound(u64::from(item.plain_len))?;
        let plain = on_cpu(plain_len, || compress::decompress_range(&stored, plain_len, wanted)).map_err(|error| wrong(&error))?;
        Ok(Bytes::from(plain))
    }

    fn stored(&self, item: &Item) -> Result<Bytes, Error> {
        let start = bound(item.stored.start.checked_sub(self.base).ok_or_else(damaged)?)?;
        let end = bound(item.stored.end.checked_sub(self.base).ok_or_else(damaged)?)?;
        if start > end || end > self.plain.len() {
            return Err(damaged());
        }
        Ok(self.plain.slice(start..end))
    }
}

fn bound(at: u64) -> Result<usize, Error> {
    usize::try_from(at).map_err(|_| damaged())
}

fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

fn on_cpu<R>(bytes: usize, work: impl FnOnce() -> R) -> R {
    if bytes > 128 * 1024 { cpu(work) } else { work() }
}

pub(super) fn damaged() -> Error {
    Error::new(ErrorKind::IntegrityViolation, "the stored data does not fit its record; no correct bytes can be given")
}

fn wrong(error: &BlockError) -> Error {
    match error {
        BlockError::KeyMissing { .. } => {
            Error::caused(ErrorKind::IntegrityViolation, "the key of this data is not in the keyring", error.clone())
        }
        _ => Error::caused(
            ErrorKind::IntegrityViolation,
            "the stored data does not fit its record; no correct bytes can be given",
            error.clone(),
        ),
    }
}
