//! Which chunks are live: those that a current blob or a running read names.
//!
//! One bucket at a time, since chunks are never shared between buckets. What is remembered of a chunk is the first eight bytes of its id: a keyed
//! hash, so that nobody outside can make two of them meet, and where two do, garbage stays. When the ids of a bucket exceed the bound, the
//! upper half of the range of ids waits for another walk over the same blobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use diaspore_block::id::{BlockId, BucketId, ChunkId};
use diaspore_block::record::Content;
use diaspore_ledger::{ListItem, ListQuery, Snapshot};

use super::keep::Root;
use crate::api::{Error, ErrorKind};
use crate::namespace::local;
use crate::read;
use crate::read::walk::{Step, Walker};
use crate::shared::Shared;
use crate::world::cpu;

/// Ids remembered at once: 64 MiB, the chunks of about 2 TiB.
const MOST_IDS: usize = 8 << 20;
/// Pause before asking again what a read that just begins is about to read.
const LOOKUP: Duration = Duration::from_millis(1);
/// Rows of a table taken at once.
const PAGE: usize = 1000;

/// What marking found.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Stored bytes of live chunks by the block they are read from; blocks without any are not in it.
    live: BTreeMap<BlockId, u64>,
    /// Buckets with a blob whose chunk list could not be read: all their chunks count as live.
    pub(crate) unreadable: BTreeSet<BucketId>,
}

impl Marks {
    /// Stored bytes of live chunks in a block.
    pub(crate) fn live_bytes(&self, block: BlockId) -> u64 {
        self.live.get(&block).copied().unwrap_or(0)
    }
}

/// Everything that must stay readable: the current blobs at `view`, and what running reads read.
#[derive(Debug)]
pub(crate) struct Roots {
    pub(crate) view: Snapshot,
    reads: Vec<Root>,
}

impl Roots {
    /// The state now. A read that is just looking its blob up is waited for: it has been given a state at most as new.
    pub(crate) async fn take(shared: &Shared) -> Result<Self, Error> {
        let view = shared.ledger.snapshot().map_err(local)?;
        loop {
            if let Some(reads) = shared.keep.roots() {
                return Ok(Self { view, reads });
            }
            tokio::time::sleep(LOOKUP).await;
        }
    }

    /// All buckets that are named or read.
    fn buckets(&self) -> Result<BTreeSet<BucketId>, Error> {
        let mut found: BTreeSet<BucketId> = self.reads.iter().map(|(bucket, _)| *bucket).collect();
        let mut last_tenant = None;
        loop {
            let tenants = self.view.tenants(last_tenant, PAGE).map_err(local)?;
            let Some(last) = tenants.last() else { return Ok(found) };
            last_tenant = Some(last.id);
            for tenant in tenants {
                let mut last_bucket: Option<String> = None;
                loop {
                    let buckets = self.view.buckets(tenant.id, "", last_bucket.as_deref(), PAGE).map_err(local)?;
                    let Some(last) = buckets.last() else { break };
                    last_bucket = Some(last.name.clone());
                    found.extend(buckets.iter().map(|bucket| bucket.id));
                }
            }
        }
    }

    /// Shows every chunk, lists among them, that the bucket's blobs and reads name, some of them often.
    pub(super) async fn each_chunk(
        &self,
        shared: &Arc<Shared>,
        bucket: BucketId,
        mut visit: impl FnMut(&ChunkId) + Send,
    ) -> Result<(), Error> {
        for (_, content) in self.reads.iter().filter(|(of, _)| *of == bucket) {
            walk(shared, bucket, content, &mut visit).await?;
        }
        let mut after: Option<Vec<u8>> = None;
        loop {
            let query = ListQuery { prefix: b"", delimiter: b"", start_after: after.as_deref(), limit: PAGE };
            let page = cpu(|| self.view.list(bucket, &query)).map_err(local)?;
            for item in page.items {
                let ListItem::Blob { entry, .. } = item else { continue };
                walk(shared, bucket, &entry.content, &mut visit).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
            check_open(shared)?;
            tokio::task::yield_now().await;
        }
    }
}

/// Shows every chunk of one content.
async fn walk(shared: &Arc<Shared>, bucket: BucketId, content: &Content, visit: &mut (impl FnMut(&ChunkId) + Send)) -> Result<(), Error> {
    if content.depth == 0 {
        content.refs.iter().for_each(|chunk| visit(&chunk.id));
        return Ok(());
    }
    let mut walker = Walker::new(content, 0..u64::MAX);
    loop {
        match walker.step() {
            Step::End => return Ok(()),
            Step::Chunk(piece) => visit(&piece.id),
            Step::List(list) => {
                visit(&list.id);
                let refs = read::load_list(shared, bucket, list.id).await?;
                walker.enter(&list, refs)?;
                check_open(shared)?;
            }
        }
    }
}

fn check_open(shared: &Shared) -> Result<(), Error> {
    if *shared.closing.borrow() {
        return Err(Error::new(ErrorKind::NotAccepted, "the service is shutting down"));
    }
    Ok(())
}

/// Whether a list of chunks cannot be read at present, so that everything in its bucket has to count as live.
pub(super) fn is_unreadable(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::DataUnavailable | ErrorKind::IntegrityViolation)
}

/// Marks everything.
pub(crate) async fn mark(shared: &Arc<Shared>, roots: &Roots) -> Result<Marks, Error> {
    mark_within(shared, roots, MOST_IDS).await
}

/// The same, with at most `most` ids in memory.
async fn mark_within(shared: &Arc<Shared>, roots: &Roots, most: usize) -> Result<Marks, Error> {
    let mut marks = Marks::default();
    for bucket in roots.buckets()? {
        let mut from = 0;
        loop {
            let mut sieve = Sieve::new(from, most);
            match Box::pin(roots.each_chunk(shared, bucket, |id| sieve.insert(prefix(id)))).await {
                Ok(()) => sieve.close(),
                Err(error) if is_unreadable(&error) => {
                    tracing::warn!(%bucket, %error, "a blob's chunk list cannot be read: nothing of its bucket is collected this time");
                    marks.unreadable.insert(bucket);
                    sieve = Sieve::everything();
                }
                Err(error) => return Err(error),
            }
            count(shared, roots, bucket, &sieve, &mut marks).await?;
            match sieve.to.checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
    }
    Ok(marks)
}

/// Adds the live chunks of the sieve's range to the blocks they are read from.
async fn count(shared: &Shared, roots: &Roots, bucket: BucketId, sieve: &Sieve, marks: &mut Marks) -> Result<(), Error> {
    let mut after = sieve.first_id();
    loop {
        let rows = cpu(|| roots.view.chunks(bucket, after.as_ref(), PAGE)).map_err(local)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        after = Some(*last);
        for (id, place) in &rows {
            if prefix(id) > sieve.to {
                return Ok(());
            }
            if sieve.holds(prefix(id)) {
                let live = marks.live.entry(place.block).or_default();
                *live = live.saturating_add(u64::from(place.stored_len));
            }
        }
        check_open(shared)?;
        tokio::task::yield_now().await;
    }
}

/// What is remembered of a chunk's id.
pub(super) fn prefix(id: &ChunkId) -> u64 {
    id.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The marked ids of one range, in bounded memory.
#[derive(Debug)]
struct Sieve {
    from: u64,
    /// Last of the range: moves down when there are too many.
    to: u64,
    ids: Vec<u64>,
    most: usize,
    everything: bool,
}

impl Sieve {
    fn new(from: u64, most: usize) -> Self {
        Self { from, to: u64::MAX, ids: Vec::new(), most, everything: false }
    }

    fn everything() -> Self {
        Self { everything: true, ..Self::new(0, 0) }
    }

    fn insert(&mut self, id: u64) {
        if !(self.from..=self.to).contains(&id) {
            return;
        }
        if self.ids.len() >= self.most {
            self.close();
            // Many different ones are left: the upper half of the range comes later.
            while self.ids.len() > self.most / 4 * 3 && self.to > self.from {
                self.to = self.from + (self.to - self.from) / 2;
                self.ids.truncate(self.ids.partition_point(|id| *id <= self.to));
            }
            if id > self.to {
                return;
            }
        }
        self.ids.push(id);
    }

    /// Makes it ready to be asked.
    fn close(&mut self) {
        self.ids.sort_unstable();
        self.ids.dedup();
    }

    fn holds(&self, id: u64) -> bool {
        self.everything || self.ids.binary_search(&id).is_ok()
    }

    /// An id just below the range, to start after.
    fn first_id(&self) -> Option<ChunkId> {
        let below = self.from.checked_sub(1)?;
        let mut bytes = [0xff; 32];
        bytes.iter_mut().zip(below.to_be_bytes()).for_each(|(to, from)| *to = from);
        Some(ChunkId::from_bytes(bytes))
    }
}

#[cfg(test)]
mod tests;
