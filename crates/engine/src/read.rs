//! From a range of a blob to its bytes: chunks, blocks, shards, and back, in order, a few blocks ahead.
//!
//! Every byte that leaves here was verified: by segment tag, or by cells held against a signed root and then by segment tag.

pub(crate) mod coalesce;
mod fetch;
pub(crate) mod links;
mod open;
pub(crate) mod pace;
mod plan;
mod rebuild;
mod unit;
pub(crate) mod walk;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use diaspore_block::id::{BlockId, BucketId, ChunkId};
use diaspore_block::record::{ChunkRef, Content, Encoding};
use diaspore_ledger::{BlockEntry, ChunkPlace, Snapshot};
use futures::future::{Either, ready};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;

use crate::api::{BlobStream, Error, ErrorKind};
use crate::collect::Lease;
use crate::namespace::{local, view};
use crate::shared::{Meters, Shared};
use coalesce::Reading;
use open::{damaged, fetch_unit};
use unit::{FIRST_UNIT_BYTES, Item, UNIT_BYTES, Unit};
use walk::{Piece, Step, Walker};

/// Most units fetched beyond the one that is being sent. Of whole blocks, three are in memory at once with the default bound in bytes.
const AHEAD: usize = 5;
/// Reads up to this many bytes leave their chunks in the memory tier; longer ones would only push others out.
const CACHED_READ_BYTES: u64 = 1 << 20;

/// Bytes `range` of a blob. What can fail before the first byte fails here. `lease` was taken before the blob was looked up.
///
/// # Errors
/// `DataUnavailable` when too few providers answer, `IntegrityViolation` when what they hold cannot be right.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    bucket: BucketId,
    content: &Content,
    range: Range<u64>,
    lease: Lease,
) -> Result<BlobStream, Error> {
    lease.reads(bucket, content);
    let planner = Planner {
        shared: Arc::clone(shared),
        bucket,
        keep: range.end - range.start <= CACHED_READ_BYTES,
        left: range.end - range.start,
        walker: Walker::new(content, range),
        gathering: None,
        next: None,
        first: true,
        block: None,
    };
    let jobs = stream::try_unfold(planner, |mut planner| async move {
        let job = Box::pin(planner.job()).await?;
        Ok::<_, Error>(job.map(|job| (job, planner)))
    });
    let pieces = jobs.map(|job| async { Box::pin(job?.run()).await }).buffered(AHEAD + 1).map_ok(Done::into_stream).try_flatten();
    // The lease ends with the stream: units are fetched long after the last of them was planned.
    let watcher = (Arc::clone(shared), lease);
    let mut pieces = Box::pin(pieces.scan(false, move |failed, piece| {
        let (shared, _lease) = &watcher;
        let end = *failed;
        *failed = piece.is_err();
        if !end && piece.as_ref().is_err_and(|error| error.kind == ErrorKind::DataUnavailable) {
            Meters::bump(&shared.meters.failed_reads);
        }
        ready((!end).then_some(piece))
    }));
    match pieces.next().await {
        None => Ok(Box::pin(stream::empty())),
        Some(Err(error)) => Err(error),
        Some(Ok(first)) => Ok(Box::pin(stream::once(ready(Ok(first))).chain(pieces))),
    }
}

/// Turns the walk over the chunk list into jobs.
struct Planner {
    shared: Arc<Shared>,
    bucket: BucketId,
    walker: Walker,
    /// Bytes not promised by any job yet.
    left: u64,
    /// Whether chunks go into the memory tier.
    keep: bool,
    gathering: Option<Unit>,
    /// What came behind a unit that was closed by it.
    next: Option<Next>,
    first: bool,
    /// The block of the last unit, which is often that of the next.
    block: Option<Arc<BlockEntry>>,
}

enum Next {
    Held(Bytes),
    Item(BlockId, u8, Item),
}

impl Planner {
    /// The next job, or `None` at the end of the range.
    async fn job(&mut self) -> Result<Option<Job>, Error> {
        loop {
            match self.next.take() {
                Some(Next::Held(bytes)) => return Ok(Some(Job::Held(bytes))),
                Some(Next::Item(block, section, item)) => self.gathering = Some(Unit::new(block, section, item)),
                None => (),
            }
            match self.walker.step() {
                Step::End => {
                    if self.left > 0 {
                        return Err(damaged());
                    }
                    return self.close().await;
                }
                Step::List(list) => {
                    let refs = load_list(&self.shared, self.bucket, list.id).await?;
                    self.walker.enter(&list, refs)?;
                }
                Step::Chunk(piece) => {
                    self.left = self.left.checked_sub(piece.wanted.end - piece.wanted.start).ok_or_else(damaged)?;
                    self.next = self.place(&piece)?;
                    if self.next.is_some()
                        && let Some(job) = self.close().await?
                    {
                        return Ok(Some(job));
                    }
                }
            }
        }
    }

    /// Finds a piece: in memory, beside those already gathered (then there is nothing left to do), or elsewhere.
    fn place(&mut self, piece: &Piece) -> Result<Option<Next>, Error> {
        if let Some(chunk) = self.shared.data.cache.get(self.bucket, piece.id) {
            return Ok(Some(Next::Held(slice(&chunk, &piece.wanted)?)));
        }
        let place = view(&self.shared)?.chunk(self.bucket, &piece.id).map_err(local)?.ok_or_else(damaged)?;
        if u64::from(place.plain_len) != piece.len {
            return Err(damaged());
        }
        let item = Item::new(piece, &place);
        let most = if self.first { FIRST_UNIT_BYTES } else { UNIT_BYTES };
        let rest = match &mut self.gathering {
            Some(unit) => unit.add(place.block, place.section, item, most),
            None => Some(item),
        };
        Ok(rest.map(|item| Next::Item(place.block, place.section, item)))
    }

    /// Makes a job of what was gathered, if anything; waits for its memory. The order of waiting is the order of the blob, so
    /// that the piece a caller waits for never waits behind a later one.
    async fn close(&mut self) -> Result<Option<Job>, Error> {
        let Some(unit) = self.gathering.take() else { return Ok(None) };
        self.first = false;
        let block = match &self.block {
            Some(block) if block.facts.id == unit.block && block.settled => Arc::clone(block),
            _ => Arc::new(view(&self.shared)?.block(unit.block).map_err(local)?.ok_or_else(damaged)?),
        };
        self.block = Some(Arc::clone(&block));
        let permit = memory(&self.shared, &unit).await?;
        let job = UnitJob { shared: Arc::clone(&self.shared), bucket: self.bucket, block, unit: Arc::new(unit), permit, keep: self.keep };
        Ok(Some(Job::Unit(job)))
    }
}

/// Permits for the bytes of a unit, which are opened where they arrive, and for what comes with them: the rest of cells at its edges,
/// shards it is rebuilt from.
async fn memory(shared: &Shared, unit: &Unit) -> Result<OwnedSemaphorePermit, Error> {
    let span = unit.span.end - unit.span.start;
    let bytes = usize::try_from(span + span / 8).unwrap_or(usize::MAX).clamp(1, shared.config.limits.read_bytes);
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    let closed = |_| Error::new(ErrorKind::DataUnavailable, "the service is shutting down");
    Arc::clone(&shared.read_bytes).acquire_many_owned(permits).await.map_err(closed)
}

enum Job {
    Held(Bytes),
    Unit(UnitJob),
}

struct UnitJob {
    shared: Arc<Shared>,
    bucket: BucketId,
    block: Arc<BlockEntry>,
    unit: Arc<Unit>,
    permit: OwnedSemaphorePermit,
    keep: bool,
}

enum Done {
    Held(Bytes),
    Unit(UnitJob, Reading),
}

impl Job {
    async fn run(self) -> Result<Done, Error> {
        let job = match self {
            Self::Held(bytes) => return Ok(Done::Held(bytes)),
            Self::Unit(job) => job,
        };
        let reading = Reading::begin(&job.shared, job.bucket, Arc::clone(&job.block), Arc::clone(&job.unit)).await?;
        Ok(Done::Unit(job, reading))
    }
}

impl Done {
    /// The pieces in order; memory is given back behind the last.
    fn into_stream(self) -> impl futures::Stream<Item = Result<Bytes, Error>> + Send {
        let (job, reading) = match self {
            Self::Held(bytes) => return Either::Left(stream::once(ready(Ok(bytes)))),
            Self::Unit(job, reading) => (job, reading),
        };
        let pieces = stream::try_unfold((job, reading, 0), |(job, mut reading, at)| async move {
            let Some(item) = job.unit.items.get(at) else { return Ok(None) };
            let pieces = job.pieces(&mut reading, item).await?;
            Ok(Some((stream::iter(pieces.into_iter().map(Ok)), (job, reading, at + 1))))
        });
        Either::Right(pieces.try_flatten())
    }
}

impl UnitJob {
    async fn pieces(&self, reading: &mut Reading, item: &Item) -> Result<Vec<Bytes>, Error> {
        let pieces = Box::pin(reading.bytes(item)).await?;
        if self.keep && item.is_whole() && !self.shared.data.cache.holds(self.bucket, item.id) {
            self.shared.data.cache.put(self.bucket, item.id, &pieces);
        }
        debug_assert!(self.permit.num_permits() > 0, "a unit holds its memory");
        Ok(pieces)
    }
}

/// The references in a list chunk.
pub(crate) async fn load_list(shared: &Arc<Shared>, bucket: BucketId, id: ChunkId) -> Result<Vec<ChunkRef>, Error> {
    let chunk = match shared.data.cache.get(bucket, id) {
        Some(chunk) => chunk,
        None => load_chunk(shared, bucket, id).await?,
    };
    Content::decode_list(&chunk).map_err(|_| damaged())
}

async fn load_chunk(shared: &Arc<Shared>, bucket: BucketId, id: ChunkId) -> Result<Bytes, Error> {
    let snapshot: Snapshot = view(shared)?;
    let place = snapshot.chunk(bucket, &id).map_err(local)?.ok_or_else(damaged)?;
    let block = Arc::new(snapshot.block(place.block).map_err(local)?.ok_or_else(damaged)?);
    let len = u64::from(place.plain_len);
    let item = Item::new(&Piece { id, len, wanted: 0..len }, &place);
    let unit = Arc::new(Unit::new(place.block, place.section, item.clone()));
    let _memory = memory(shared, &unit).await?;
    let pieces = Reading::begin(shared, bucket, block, unit).await?.bytes(&item).await?;
    shared.data.cache.put(bucket, id, &pieces);
    Ok(Bytes::from(pieces.concat()))
}

/// Chunks of one section of a block as they are stored, verified, in the order of `places`.
///
/// # Errors
/// `DataUnavailable` when too few providers answer, `IntegrityViolation` when what they hold cannot be right.
pub(crate) async fn stored(
    shared: &Arc<Shared>,
    block: &Arc<BlockEntry>,
    section: u8,
    places: &[(ChunkId, ChunkPlace)],
) -> Result<Vec<Bytes>, Error> {
    let mut units: Vec<Unit> = Vec::new();
    for (id, place) in places {
        let len = u64::from(place.stored_len);
        // As if they were raw: what compression made of them stays as it is.
        let raw = ChunkPlace { encoding: Encoding::Raw, plain_len: place.stored_len, ..place.clone() };
        let item = Item::new(&Piece { id: *id, len, wanted: 0..len }, &raw);
        let rest = match units.last_mut() {
            Some(unit) => unit.add(place.block, section, item, UNIT_BYTES),
            None => Some(item),
        };
        units.extend(rest.map(|item| Unit::new(place.block, section, item)));
    }
    let mut found = Vec::with_capacity(places.len());
    for unit in units {
        let _memory = memory(shared, &unit).await?;
        let mut opening = fetch_unit(shared, Arc::clone(block), &unit).await?;
        for item in &unit.items {
            // Copied: a slice would keep the whole segment.
            found.push(Bytes::from(opening.bytes(item).await?.concat()));
        }
    }
    Ok(found)
}

fn slice(chunk: &Bytes, wanted: &Range<u64>) -> Result<Bytes, Error> {
    let start = usize::try_from(wanted.start).map_err(|_| damaged())?;
    let end = usize::try_from(wanted.end).map_err(|_| damaged())?;
    if end > chunk.len() {
        return Err(damaged());
    }
    Ok(chunk.slice(start..end))
}
