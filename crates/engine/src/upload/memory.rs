//! Memory of bulk blocks: bounded, and used again.
//!
//! Fresh memory costs more than most of what is done to it, because the kernel zeroes every page. So a block's two buffers, with
//! the permits that pay for them, are kept for the next block when its last shard is gone. What is kept stays counted, and gives
//! way as soon as anybody needs its permits. Only coded bytes are kept: a payload that was never sealed is wiped and freed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use diaspore_block::geometry::Geometry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::{Error, ErrorKind};

/// Blocks whose memory is kept while nobody uses it: more would save little more time, and downloads cannot use it.
const KEPT_BLOCKS: usize = 2;

/// The byte budget of all uploads, and the memory between two blocks.
#[derive(Debug)]
pub(crate) struct BlockMemory {
    /// One permit per byte of block buffers.
    budget: Arc<Semaphore>,
    all: usize,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    kept: Vec<Buffers>,
    /// Who waits for permits; while anybody does, nothing is kept.
    waiting: usize,
}

/// What one block is made in.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Holds the sealed payload, or whatever an earlier block left.
    pub(crate) payload: Vec<u8>,
    /// Holds the parity shards, or whatever an earlier block left.
    pub(crate) parity: Vec<u8>,
    geometry: Geometry,
    /// Payload bytes that the permits allow, parity paid.
    granted: usize,
    permits: OwnedSemaphorePermit,
}

impl BlockMemory {
    /// A budget of so many bytes.
    pub(crate) fn new(all: usize) -> Self {
        Self { budget: Arc::new(Semaphore::new(all)), all, shelf: Mutex::default() }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Buffers for a block of this geometry with at least `first` payload bytes paid. Waits for memory; the caller holds none.
    pub(crate) async fn take(&self, geometry: Geometry, first: usize) -> Result<Buffers, Error> {
        let fresh = |permits| Buffers { payload: Vec::new(), parity: Vec::new(), geometry, granted: first, permits };
        let wanted = self.price(geometry, first);
        let (cleared, line) = {
            let mut shelf = self.shelf();
            let fits = |(_, kept): &(usize, &Buffers)| kept.geometry == geometry && kept.granted >= first;
            let longest = shelf.kept.iter().enumerate().filter(fits).max_by_key(|(_, kept)| kept.granted).map(|(at, _)| at);
            if let Some(at) = longest {
                return Ok(shelf.kept.swap_remove(at));
            }
            if let Ok(permits) = Arc::clone(&self.budget).try_acquire_many_owned(wanted) {
                return Ok(fresh(permits));
            }
            shelf.waiting += 1;
            (std::mem::take(&mut shelf.kept), Line(self))
        };
        drop(cleared);
        let permits = Arc::clone(&self.budget).acquire_many_owned(wanted).await;
        drop(line);
        permits.map(fresh).map_err(|_| Error::new(ErrorKind::NotAccepted, "the service is shutting down; nothing was accepted"))
    }

    /// Pays for `payload` bytes in all. Never waits: a block that waited while it holds memory could wait for itself.
    pub(crate) fn afford(&self, buffers: &mut Buffers, payload: usize, step: usize) -> bool {
        while payload > buffers.granted {
            let wanted = self.price(buffers.geometry, step);
            let more = || Arc::clone(&self.budget).try_acquire_many_owned(wanted).ok();
            let Some(permits) = more().or_else(|| {
                let cleared = std::mem::take(&mut self.shelf().kept);
                drop(cleared);
                more()
            }) else {
                return false;
            };
            buffers.permits.merge(permits);
            buffers.granted += step;
        }
        true
    }

    /// The finished buffers as bytes; they come back when the last of those is dropped.
    pub(crate) fn share(self: &Arc<Self>, buffers: Buffers) -> (Bytes, Bytes) {
        let lent = Arc::new(Lent { buffers: Some(buffers), memory: Arc::clone(self) });
        (Bytes::from_owner(Payload(Arc::clone(&lent))), Bytes::from_owner(Parity(lent)))
    }

    fn give_back(&self, buffers: Buffers) {
        let mut shelf = self.shelf();
        if shelf.waiting == 0 && shelf.kept.len() < KEPT_BLOCKS {
            shelf.kept.push(buffers);
            return;
        }
        drop(shelf);
        drop(buffers);
    }

    /// Permits for payload bytes and the parity made of them, at most all there are.
    fn price(&self, geometry: Geometry, payload: usize) -> u32 {
        let (k, n) = (usize::from(geometry.k()), usize::from(geometry.n()));
        u32::try_from((payload * n).div_ceil(k).min(self.all)).unwrap_or(u32::MAX)
    }
}

/// A place among those who wait.
struct Line<'a>(&'a BlockMemory);

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.0.shelf().waiting -= 1;
    }
}

/// Buffers whose bytes are on their way.
#[derive(Debug)]
struct Lent {
    buffers: Option<Buffers>,
    memory: Arc<BlockMemory>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(buffers) = self.buffers.take() {
            self.memory.give_back(buffers);
        }
    }
}

struct Payload(Arc<Lent>);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.buffers.as_ref().map_or(&[], |buffers| &buffers.payload)
    }
}

struct Parity(Arc<Lent>);

impl AsRef<[u8]> for Parity {
    fn as_ref(&self) -> &[u8] {
        self.0.buffers.as_ref().map_or(&[], |buffers| &buffers.parity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const MIB: usize = 1 << 20;

    fn geometry() -> Geometry {
        Geometry::new(3, 5).unwrap()
    }

    /// Buffers as a block leaves them: 3 MiB and 2 MiB.
    async fn filled(memory: &BlockMemory) -> Buffers {
        let mut buffers = memory.take(geometry(), 3 * MIB).await.unwrap();
        buffers.payload.resize(3 * MIB, 1);
        buffers.parity.resize(2 * MIB, 2);
        buffers
    }

    #[tokio::test]
    async fn buffers_come_back_with_the_last_piece_and_stay_counted() {
        let memory = Arc::new(BlockMemory::new(20 * MIB));
        let buffers = filled(&memory).await;
        let at = buffers.payload.as_ptr();
        let (payload, parity) = memory.share(buffers);
        assert_eq!((payload.len(), parity.len()), (3 * MIB, 2 * MIB));
        let piece = payload.slice(MIB..2 * MIB);
        drop((payload, parity));
        assert!(memory.shelf().kept.is_empty(), "a piece is still on its way");
        drop(piece);
        assert_eq!(memory.budget.available_permits(), 15 * MIB, "what is kept is paid for");
        let again = memory.take(geometry(), 2 * MIB).await.unwrap();
        assert_eq!(again.payload.as_ptr(), at);
        let other = memory.take(Geometry::new(2, 4).unwrap(), MIB).await.unwrap();
        assert!(other.payload.is_empty());
    }

    #[tokio::test]
    async fn what_is_kept_gives_way_to_whoever_needs_its_permits() {
        let memory = Arc::new(BlockMemory::new(10 * MIB));
        let mut open = memory.take(geometry(), 3 * MIB).await.unwrap();
        let kept = filled(&memory).await;
        drop(memory.share(kept));
        assert!(memory.afford(&mut open, 6 * MIB, 3 * MIB));
        assert!(memory.shelf().kept.is_empty());
        assert!(!memory.afford(&mut open, 7 * MIB, 3 * MIB), "all is taken");
        drop(open);
        let kept = filled(&memory).await;
        drop(memory.share(kept));
        assert!(memory.take(geometry(), 6 * MIB).now_or_never().is_some(), "shorter buffers give way");
    }

    #[tokio::test]
    async fn nothing_is_kept_while_somebody_waits() {
        let memory = Arc::new(BlockMemory::new(5 * MIB));
        let lent = memory.share(filled(&memory).await);
        let mut waiting = Box::pin(memory.take(geometry(), 3 * MIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(lent);
        assert!(waiting.as_mut().now_or_never().is_some());
        assert_eq!(memory.shelf().waiting, 0);
    }
}
