//! Objects in memory: the pieces as they came from the socket, never copied.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use super::{Meta, View};

/// Pieces below this length are copied, lest a few bytes keep a large receive buffer alive.
const COPY_BELOW: usize = 16 * 1024;

type Pieces = Arc<[Bytes]>;
type Buckets = BTreeMap<String, BTreeMap<String, (Meta, Pieces)>>;

#[derive(Debug, Default)]
struct State {
    buckets: Buckets,
    snapshot: Buckets,
    tags: u64,
}

impl State {
    const fn view(&self, view: View) -> &Buckets {
        match view {
            View::Now => &self.buckets,
            View::Snapshot => &self.snapshot,
        }
    }
}

/// All buckets in memory.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<State>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn create_bucket(&self, bucket: &str) -> bool {
        let mut state = self.lock();
        let new = !state.buckets.contains_key(bucket);
        state.buckets.entry(bucket.to_owned()).or_default();
        new
    }

    pub(super) fn has_bucket(&self, bucket: &str) -> bool {
        self.lock().buckets.contains_key(bucket)
    }

    pub(super) fn buckets(&self) -> Vec<String> {
        self.lock().buckets.keys().cloned().collect()
    }

    pub(super) fn publish(&self, bucket: &str, key: &str, pieces: Vec<Bytes>, modified: SystemTime) -> Meta {
        let pieces: Pieces =
            pieces.into_iter().map(|piece| if piece.len() < COPY_BELOW { Bytes::copy_from_slice(&piece) } else { piece }).collect();
        let mut state = self.lock();
        state.tags += 1;
        let meta = Meta { len: pieces.iter().map(|piece| piece.len() as u64).sum(), modified, tag: format!("\"{:016x}-1\"", state.tags) };
        state.buckets.entry(bucket.to_owned()).or_default().insert(key.to_owned(), (meta.clone(), pieces));
        meta
    }

    pub(super) fn remove(&self, bucket: &str, key: &str) {
        if let Some(objects) = self.lock().buckets.get_mut(bucket) {
            objects.remove(key);
        }
    }

    pub(super) fn find(&self, view: View, bucket: &str, key: &str) -> Option<(Meta, Pieces)> {
        self.lock().view(view).get(bucket)?.get(key).cloned()
    }

    pub(super) fn list(&self, view: View, bucket: &str, prefix: &str) -> Vec<(String, Meta)> {
        let state = self.lock();
        let objects = state.view(view).get(bucket);
        objects
            .into_iter()
            .flat_map(|objects| objects.range(prefix.to_owned()..))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (meta, _))| (key.clone(), meta.clone()))
            .collect()
    }

    pub(super) fn take_snapshot(&self) {
        let mut state = self.lock();
        state.snapshot = state.buckets.clone();
    }

    pub(super) fn roll_back(&self) {
        let mut state = self.lock();
        let mut old = state.snapshot.clone();
        for bucket in state.buckets.keys() {
            old.entry(bucket.clone()).or_default();
        }
        state.buckets = old;
    }

    pub(super) fn lose_everything(&self) {
        self.lock().buckets.values_mut().for_each(BTreeMap::clear);
    }
}

/// The `len` bytes from `start` on, as slices of the pieces.
pub(super) fn cut(pieces: &[Bytes], start: u64, len: u64) -> VecDeque<Bytes> {
    let mut skip = start;
    let mut left = len;
    let mut taken = VecDeque::new();
    for piece in pieces {
        let size = piece.len() as u64;
        if skip >= size {
            skip -= size;
            continue;
        }
        if left == 0 {
            break;
        }
        let take = left.min(size - skip);
        // Both are below the piece's length, which is a usize.
        let from = usize::try_from(skip).unwrap_or(piece.len());
        let upto = usize::try_from(skip + take).unwrap_or(piece.len());
        taken.push_back(piece.slice(from..upto));
        skip = 0;
        left -= take;
    }
    taken
}
