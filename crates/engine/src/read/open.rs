//! From the parts of a block to plain chunk bytes: segments are opened in order, where they stand, and one whose tag fails is
//! fetched again from verified cells.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use diaspore_block::manifest::BlockPosition;
use diaspore_block::record::{Encoding, SectionInfo};
use diaspore_block::seal::{Opener, Span, TAG_LEN};
use diaspore_block::section::{open_section, section_span};
use diaspore_block::{BlockError, compress};
use diaspore_ledger::BlockEntry;
use diaspore_provider::ProviderId;

use super::fetch::{BlockReader, Part};
use super::plan::ShardRange;
use super::unit::{Item, Unit};
use crate::api::{Error, ErrorKind};
use crate::shared::Shared;
use crate::world::cpu;

/// The bytes of one unit, opened segment by segment as they are asked for: they go out while the processor still has them at hand.
pub(super) struct Opening {
    reader: BlockReader,
    run: Run,
}

/// Fetches everything a unit needs.
pub(super) async fn fetch_unit(shared: &Arc<Shared>, block: Arc<BlockEntry>, unit: &Unit) -> Result<Opening, Error> {
    let section = block.facts.sections.get(usize::from(unit.section)).cloned().ok_or_else(damaged)?;
    let (payload, span) = section_range(&section, &unit.span)?;
    let opener = section_opener(shared, &block, unit.section, &section)?;
    let reader = BlockReader::new(shared, block);
    let parts = reader.payload(&payload).await?;
    reader.forget();
    Ok(Opening { reader, run: Run::new(opener, section.seg_log2, &span, parts) })
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

/// What is left of one part, in the memory it came in.
struct Place {
    range: ShardRange,
    bytes: BytesMut,
    /// Who gave the bytes, unless they were checked.
    source: Option<ProviderId>,
}

impl Place {
    /// Takes the first bytes out, as many of `most` as there are.
    fn take(&mut self, most: usize) -> BytesMut {
        let taken = self.bytes.split_to(most.min(self.bytes.len()));
        self.range.body.start += taken.len() as u64;
        taken
    }
}

/// Segments on their way from sealed to open: whole ones of a section, in order, without gaps.
struct Run {
    opener: Opener,
    seg_log2: u8,
    /// Index of the first in the section.
    first: u32,
    /// What is not open yet.
    places: VecDeque<Place>,
    segments: Vec<Bytes>,
}

impl Run {
    fn new(opener: Opener, seg_log2: u8, span: &Span, parts: Vec<Part>) -> Self {
        // A copy only where somebody else holds the memory: short answers that share a read buffer.
        let own = |bytes: Bytes| bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        let places = parts.into_iter().map(|Part { range, bytes, source }| Place { range, bytes: own(bytes), source });
        Self { opener, seg_log2, first: span.first_segment, places: places.collect(), segments: Vec::new() }
    }

    /// Opens the next segments until `count` are open or none is left. The error is the length of the one that fails; its bytes may
    /// be gone.
    fn open(&mut self, count: usize) -> Result<(), usize> {
        let stride = (1_usize << self.seg_log2) + TAG_LEN;
        while self.segments.len() < count {
            let left: usize = self.places.iter().map(|place| place.bytes.len()).sum();
            let len = stride.min(left);
            if len == 0 {
                return Ok(());
            }
            let opened = self.open_next(len).ok_or(len)?;
            self.segments.push(opened);
        }
        Ok(())
    }

    fn open_next(&mut self, len: usize) -> Option<Bytes> {
        let index = self.first.checked_add(u32::try_from(self.segments.len()).ok()?)?;
        while self.places.front().is_some_and(|place| place.bytes.is_empty()) {
            self.places.pop_front();
        }
        let front = self.places.front_mut()?;
        if let Some(sealed) = front.bytes.get_mut(..len) {
            let plain = self.opener.open_segment_in_place(index, sealed).ok()?;
            let mut opened = front.take(len);
            opened.truncate(plain);
            return Some(opened.freeze());
        }
        let mut sealed = Vec::with_capacity(len);
        for place in &self.places {
            let most = place.bytes.len().min(len - sealed.len());
            sealed.extend_from_slice(place.bytes.get(..most)?);
        }
        let plain = self.opener.open_segment_in_place(index, &mut sealed).ok()?;
        let mut left = len;
        for place in &mut self.places {
            left -= place.take(left).len();
        }
        sealed.truncate(plain);
        Some(sealed.into())
    }

    /// Places that hold some of the next `len` bytes and were not checked, with what is left of their shards.
    fn doubtful(&self, len: usize) -> Vec<(usize, ShardRange, ProviderId)> {
        let mut before = 0;
        let mut found = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            if let Some(source) = place.source.clone().filter(|_| before < len && !place.bytes.is_empty()) {
                found.push((index, place.range.clone(), source));
            }
            before += place.bytes.len();
        }
        found
    }

    /// Puts proven bytes where doubtful ones stand; whether they differ.
    fn replace(&mut self, index: usize, proven: Bytes) -> bool {
        let Some(place) = self.places.get_mut(index).filter(|place| place.bytes.len() == proven.len()) else { return false };
        place.source = None;
        let differ = place.bytes != proven;
        place.bytes = proven.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        differ
    }
}

impl Opening {
    /// The wanted bytes of one item, in pieces.
    ///
    /// # Errors
    /// When they do not open, and cannot be had otherwise.
    pub(super) async fn bytes(&mut self, item: &Item) -> Result<Vec<Bytes>, Error> {
        let range = self.range(item)?;
        self.open(self.segments(&range)).await?;
        decode(item, self.stored(range)?)
    }

    /// The stored bytes of one item, or nothing when a segment does not open: then only [`Self::bytes`] helps.
    pub(super) fn at_once(&mut self, item: &Item) -> Result<Option<Vec<Bytes>>, Error> {
        let range = self.range(item)?;
        if self.run.open(self.segments(&range)).is_err() {
            return Ok(None);
        }
        self.stored(range).map(Some)
    }

    /// Where an item's stored bytes lie behind the first segment of the run.
    fn range(&self, item: &Item) -> Result<Range<usize>, Error> {
        let base = u64::from(self.run.first) << self.run.seg_log2;
        let start = bound(item.stored.start.checked_sub(base).ok_or_else(damaged)?)?;
        Ok(start..bound(item.stored.end.checked_sub(base).ok_or_else(damaged)?)?)
    }

    /// Segments that have to be open for `range`.
    fn segments(&self, range: &Range<usize>) -> usize {
        range.end.div_ceil(1 << self.run.seg_log2)
    }

    /// Opens segments until `count` are open; those that fail are fetched again from verified cells.
    async fn open(&mut self, count: usize) -> Result<(), Error> {
        let mut accused: Vec<(u8, ProviderId)> = Vec::new();
        loop {
            let done = self.run.segments.len();
            let outcome = self.run.open(count);
            // Bytes that did not open were wrong if those in their place do; otherwise the fault is not the provider's.
            if self.run.segments.len() > done {
                for (shard, provider) in accused.drain(..) {
                    self.reader.lied(shard, &provider, "shard bytes that fail their segment tags");
                }
            }
            let Err(broken) = outcome else { return Ok(()) };
            let doubtful = self.run.doubtful(broken);
            if doubtful.is_empty() {
                return Err(damaged());
            }
            for (index, range, source) in doubtful {
                let proven = self.reader.proven(&range).await?;
                if self.run.replace(index, proven.bytes) {
                    accused.push((range.shard, source));
                }
            }
            self.reader.forget();
        }
    }

    /// Bytes `range` of what is open.
    fn stored(&self, range: Range<usize>) -> Result<Vec<Bytes>, Error> {
        let log2 = self.run.seg_log2;
        let mut at = range.start;
        let mut pieces = Vec::new();
        while at < range.end {
            let start = at >> log2 << log2;
            let segment = self.run.segments.get(at >> log2).ok_or_else(damaged)?;
            let until = (range.end - start).min(1 << log2);
            if until > segment.len() {
                return Err(damaged());
            }
            pieces.push(segment.slice(at - start..until));
            at = start + until;
        }
        Ok(pieces)
    }
}

/// What a reader wants of an item's stored bytes.
pub(super) fn decode(item: &Item, stored: Vec<Bytes>) -> Result<Vec<Bytes>, Error> {
    if item.encoding == Encoding::Raw {
        return Ok(stored);
    }
    let wanted = bound(item.wanted.start)?..bound(item.wanted.end)?;
    let plain_len = bound(u64::from(item.plain_len))?;
    let joined = match stored.as_slice() {
        [one] => one.clone(),
        several => Bytes::from(several.concat()),
    };
    let plain = on_cpu(plain_len, || compress::decompress_range(&joined, plain_len, wanted)).map_err(|error| wrong(&error))?;
    Ok(vec![Bytes::from(plain)])
}

fn bound(at: u64) -> Result<usize, Error> {
    usize::try_from(at).map_err(|_| damaged())
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
