//! Who may decide about a name: conditional requests on one key are decided one after the other, each on the state that the
//! one before left behind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use diaspore_block::id::BucketId;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{Instant, timeout_at};

use crate::api::{Error, ErrorKind};

fn taken() -> Error {
    let message = "not accepted: an earlier change of the same name has no known outcome yet; try again later";
    Error::new(ErrorKind::NotAccepted, message)
}

type Name = (BucketId, Vec<u8>);

#[derive(Default)]
struct Held {
    keys: BTreeMap<Name, Arc<AsyncMutex<()>>>,
    buckets: BTreeMap<BucketId, Arc<RwLock<()>>>,
}

/// Locks by bucket and key. Entries live only while somebody holds or awaits them; waiters are served in order.
#[derive(Default, Clone)]
pub(crate) struct KeyLocks {
    held: Arc<Mutex<Held>>,
}

impl fmt::Debug for KeyLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLocks")
    }
}

impl KeyLocks {
    /// Waits for the key; the bucket cannot be deleted meanwhile. Hold the guard until the outcome is applied.
    ///
    /// # Errors
    /// `NotAccepted` when an earlier change keeps it past `by`: one whose outcome is not known holds it until it is.
    pub(crate) async fn lock(&self, bucket: BucketId, key: &[u8], by: Instant) -> Result<KeyGuard, Error> {
        timeout_at(by, self.lock_key(bucket, key)).await.map_err(|_| taken())
    }

    async fn lock_key(&self, bucket: BucketId, key: &[u8]) -> KeyGuard {
        let shared = self.bucket_lock(bucket).read_owned().await;
        let name = (bucket, key.to_vec());
        let mutex = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(held.keys.entry(name.clone()).or_default())
        };
        let mut guard = KeyGuard { locks: self.clone(), name, key: None, bucket: Some(shared) };
        guard.key = Some(mutex.lock_owned().await);
        guard
    }

    /// Waits until nobody works on any key of the bucket, and keeps others away.
    ///
    /// # Errors
    /// As [`KeyLocks::lock`].
    pub(crate) async fn lock_bucket(&self, bucket: BucketId, by: Instant) -> Result<BucketGuard, Error> {
        let exclusive = timeout_at(by, self.bucket_lock(bucket).write_owned()).await.map_err(|_| taken())?;
        Ok(BucketGuard { locks: self.clone(), bucket, exclusive: Some(exclusive) })
    }

    fn bucket_lock(&self, bucket: BucketId) -> Arc<RwLock<()>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(held.buckets.entry(bucket).or_default())
    }

    fn forget_bucket(&self, bucket: BucketId) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.buckets.get(&bucket).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            held.buckets.remove(&bucket);
        }
    }
}

/// The right to decide about one key.
#[derive(Debug)]
pub(crate) struct KeyGuard {
    locks: KeyLocks,
    name: Name,
    key: Option<OwnedMutexGuard<()>>,
    bucket: Option<OwnedRwLockReadGuard<()>>,
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        drop(self.key.take());
        drop(self.bucket.take());
        {
            let mut held = self.locks.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.keys.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
                held.keys.remove(&self.name);
            }
        }
        self.locks.forget_bucket(self.name.0);
    }
}

/// The right to decide about a whole bucket.
#[derive(Debug)]
pub(crate) struct BucketGuard {
    locks: KeyLocks,
    bucket: BucketId,
    exclusive: Option<OwnedRwLockWriteGuard<()>>,
}

impl Drop for BucketGuard {
    fn drop(&mut self) {
        drop(self.exclusive.take());
        self.locks.forget_bucket(self.bucket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_key_one_holder_and_nothing_stays_behind() {
        let locks = KeyLocks::default();
        let bucket = BucketId::from_bytes([1; 16]);
        let by = || Instant::now() + std::time::Duration::from_secs(1);
        let first = locks.lock(bucket, b"a", by()).await.unwrap();
        let other = locks.lock(bucket, b"b", by()).await.unwrap();
        assert_eq!(locks.lock(bucket, b"a", by()).await.unwrap_err().kind, ErrorKind::NotAccepted, "the key is held");
        assert_eq!(locks.lock_bucket(bucket, by()).await.unwrap_err().kind, ErrorKind::NotAccepted, "keys are held");
        drop((first, other));
        drop(locks.lock_bucket(bucket, by()).await.unwrap());
        let held = locks.held.lock().unwrap();
        assert!(held.keys.is_empty() && held.buckets.is_empty());
    }
}
