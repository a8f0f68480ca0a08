//! Request coalescing: readers who want the same bytes at the same time share one fetch.
//!
//! A unit is fetched and opened once, as long as anybody reads from it. Whichever reader is polled drives the fetch on, so one that takes no
//! bytes holds nobody up, and it ends with the last of them. Every reader holds its own lease and its own memory: a fetch may outlive
//! the reader who began it. Blocks never change, so a unit's bytes are right for whoever finds it named by the map.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use diaspore_block::id::BucketId;
use diaspore_ledger::BlockEntry;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared as SharedFuture};
use tokio::sync::oneshot;

use super::open::{Opening, decode, fetch_unit};
use super::unit::{Item, Unit};
use crate::api::{Error, ErrorKind};
use crate::shared::{Meters, Shared};

/// Units of fewer bytes are fetched by the readers' own tasks.
const SMALL_UNIT_BYTES: u64 = 256 << 10;

/// Blocks are sealed for one bucket's keys and chunk ids mean nothing outside it, so a unit is shared within a bucket only.
type Key = (BucketId, Arc<Unit>);
type Outcome = Result<Arc<Landing>, Arc<Error>>;

/// Units that somebody reads from now.
#[derive(Default)]
pub(crate) struct Fetches {
    units: DashMap<Key, Weak<Fetch>>,
}

impl std::fmt::Debug for Fetches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetches").field("units", &self.units.len()).finish()
    }
}

/// One unit on its way from the providers, held by everybody who reads from it.
struct Fetch {
    shared: Arc<Shared>,
    key: Key,
    /// Not polled itself: it keeps what came, for those who join late.
    outcome: SharedFuture<BoxFuture<'static, Outcome>>,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        // Another fetch may stand in its place by now.
        self.shared.data.fetches.units.remove_if(&self.key, |_, fetch| fetch.strong_count() == 0);
    }
}

/// A fetched unit, opened by whoever comes first to a segment; gone once one of its readers met bytes that do not open.
struct Landing {
    opening: Mutex<Option<Box<Opening>>>,
}

/// What a reader gets out of a fetch.
enum Taken {
    Stored(Vec<Bytes>),
    /// A segment does not open: this reader goes on alone with everything.
    Opening(Box<Opening>),
    /// Somebody else did.
    Nothing,
}

impl Fetch {
    fn begin(shared: &Arc<Shared>, block: &Arc<BlockEntry>, key: &Key) -> Arc<Self> {
        let (at, block, unit) = (Arc::clone(shared), Arc::clone(block), Arc::clone(&key.1));
        let outcome = async move {
            let opening = fetched(&at, block, unit).await.map_err(Arc::new)?;
            Ok(Arc::new(Landing { opening: Mutex::new(Some(Box::new(opening))) }))
        };
        Arc::new(Self { shared: Arc::clone(shared), key: key.clone(), outcome: outcome.boxed().shared() })
    }

    /// Whether somebody who comes now is served by it: it goes on, or came in whole.
    fn is_good(&self) -> bool {
        self.outcome.peek().is_none() || self.landing().is_some_and(|landing| !landing.is_gone())
    }

    /// What came, once it did.
    fn landing(&self) -> Option<&Landing> {
        self.outcome.peek()?.as_deref().ok()
    }

    /// The fetch of a unit that goes on, or a new one; and whether it is new.
    fn join(shared: &Arc<Shared>, block: &Arc<BlockEntry>, key: &Key) -> (Arc<Self>, bool) {
        let mut entry = match shared.data.fetches.units.entry(key.clone()) {
            Entry::Vacant(entry) => {
                let fetch = Self::begin(shared, block, key);
                entry.insert(Arc::downgrade(&fetch));
                return (fetch, true);
            }
            Entry::Occupied(entry) => entry,
        };
        let found = entry.get().upgrade();
        if let Some(fetch) = found.as_ref().filter(|fetch| fetch.is_good()) {
            return (Arc::clone(fetch), false);
        }
        let fetch = Self::begin(shared, block, key);
        entry.insert(Arc::downgrade(&fetch));
        // Who drops the last handle of a fetch comes by the map, which is locked until here.
        drop(entry);
        drop(found);
        (fetch, true)
    }
}

impl Landing {
    /// Without a wait: while a reader is at it, it is there.
    fn is_gone(&self) -> bool {
        self.opening.try_lock().is_ok_and(|opening| opening.is_none())
    }

    /// The stored bytes of one item, or all that is left when they do not open.
    fn take(&self, item: &Item) -> Result<Taken, Error> {
        let mut held = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(opening) = held.as_mut() else { return Ok(Taken::Nothing) };
        if let Some(stored) = opening.at_once(item)? {
            return Ok(Taken::Stored(stored));
        }
        Ok(held.take().map_or(Taken::Nothing, Taken::Opening))
    }
}

/// A long one by a task of its own, which goes on while the readers are slow to take bytes; it ends with the last of them.
async fn fetched(shared: &Arc<Shared>, block: Arc<BlockEntry>, unit: Arc<Unit>) -> Result<Opening, Error> {
    if unit.span.end - unit.span.start <= SMALL_UNIT_BYTES {
        return fetch_unit(shared, block, &unit).await;
    }
    let (mut done, opening) = oneshot::channel();
    let own = Arc::clone(shared);
    shared.spawn_read(async move {
        let opening = tokio::select! {
            biased;
            () = done.closed() => return,
            opening = fetch_unit(&own, block, &unit) => opening,
        };
        if done.send(opening).is_err() {
            tracing::trace!("the readers are gone");
        }
    });
    opening.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::DataUnavailable, "the service is shutting down")))
}

/// One reader's way through a unit.
pub(super) struct Reading {
    shared: Arc<Shared>,
    block: Arc<BlockEntry>,
    unit: Arc<Unit>,
    way: Way,
}

/// Beside others, or alone once something did not open.
enum Way {
    Joint(Arc<Fetch>),
    Own(Box<Opening>),
}

impl Reading {
    /// Waits for the bytes of a unit, beside whoever waits for them already.
    ///
    /// # Errors
    /// As the fetch. What failed for somebody who began earlier is tried once more.
    pub(super) async fn begin(shared: &Arc<Shared>, bucket: BucketId, block: Arc<BlockEntry>, unit: Arc<Unit>) -> Result<Self, Error> {
        let key = (bucket, Arc::clone(&unit));
        let mut tried = false;
        loop {
            let (fetch, is_new) = Fetch::join(shared, &block, &key);
            let outcome = fetch.outcome.clone().await;
            if !is_new && outcome.is_ok() {
                Meters::bump(&shared.meters.coalesced_reads);
            }
            match outcome {
                Ok(_) => return Ok(Self { shared: Arc::clone(shared), block, unit, way: Way::Joint(fetch) }),
                Err(error) if is_new || tried => return Err(told(&error)),
                Err(_) => tried = true,
            }
        }
    }

    /// The wanted bytes of one item of the unit, in pieces.
    ///
    /// # Errors
    /// When they do not open, and cannot be had otherwise.
    pub(super) async fn bytes(&mut self, item: &Item) -> Result<Vec<Bytes>, Error> {
        loop {
            let opening = match &mut self.way {
                Way::Own(opening) => return opening.bytes(item).await,
                Way::Joint(fetch) => match fetch.landing().map(|landing| landing.take(item)).transpose()? {
                    Some(Taken::Stored(stored)) => return decode(item, stored),
                    Some(Taken::Opening(opening)) => Some(opening),
                    Some(Taken::Nothing) | None => None,
                },
            };
            // Bytes that do not open are replaced by one reader for itself; who comes after it begins anew.
            let opening = match opening {
                Some(opening) => opening,
                None => Box::new(fetch_unit(&self.shared, Arc::clone(&self.block), &self.unit).await?),
            };
            self.way = Way::Own(opening);
        }
    }
}

/// The same error for each of several readers.
fn told(error: &Arc<Error>) -> Error {
    match error.source {
        None => Error::new(error.kind, error.message.clone()),
        Some(_) => Error::caused(error.kind, error.message.clone(), Cause(Arc::clone(error))),
    }
}

/// What caused an error that several readers were told.
#[derive(Debug)]
struct Cause(Arc<Error>);

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.source.as_ref().map_or(Ok(()), |source| source.fmt(f))
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().and_then(|source| source.source())
    }
}

#[cfg(test)]
mod tests;
