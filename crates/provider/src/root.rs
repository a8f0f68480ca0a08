//! The root folder of a local provider, watched: a disk that is gone must not look like an empty one.
//!
//! The store beneath makes missing folders on the way to a file. Where the root itself is missing (moved away, or its disk unmounted)
//! that would begin a second, empty collection, on the wrong disk; and every read would be told "no such object", which is a statement
//! about the log. So the root is compared by device and inode with what was there first, before and after it is used.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use diaspore_policy::{Dialect, ProviderSpec};

use crate::error::{ErrorKind, Operation};
use crate::member::Failure;

/// A folder and which one it was.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    folder: Arc<PathBuf>,
    /// Device and inode, once it was seen.
    known: Arc<OnceLock<(u64, u64)>>,
}

impl Root {
    /// The root of an account that lives in a folder.
    pub(crate) fn of(spec: &ProviderSpec) -> Option<Self> {
        let folder = spec.folder.clone().filter(|_| spec.dialect == Dialect::Local)?;
        let known = Arc::new(identity(&folder).map_or_else(OnceLock::new, OnceLock::from));
        Some(Self { known, folder: Arc::new(folder) })
    }

    /// Fails unless the folder is there and the same as when it was first seen. A file system that hangs is one that does not answer.
    pub(crate) async fn check(&self, patience: Duration) -> Result<(), Failure> {
        let folder = Arc::clone(&self.folder);
        let looking = tokio::task::spawn_blocking(move || identity(&folder));
        let Ok(seen) = tokio::time::timeout(patience, looking).await else {
            return Err((ErrorKind::Timeout, format!("the file system did not answer within {patience:?}")));
        };
        match seen.ok().flatten() {
            None => Err((ErrorKind::Unavailable, "the folder is gone: put it back, or mount the disk it is on".to_owned())),
            Some(seen) if *self.known.get_or_init(|| seen) == seen => Ok(()),
            Some(_) => {
                let detail = "the folder is another one than before: mount the disk it is on, or start again if this is wanted";
                Err((ErrorKind::Unavailable, detail.to_owned()))
            }
        }
    }
}

/// Whether the root has to be looked at after a request too: what was found there speaks for itself, what was not found or was written
/// may have been so in another folder.
pub(crate) fn tells_nothing<T>(operation: Operation, done: &Result<T, Failure>) -> bool {
    match done {
        Ok(_) => !matches!(operation, Operation::Get | Operation::Head),
        Err((kind, _)) => *kind == ErrorKind::NotFound,
    }
}

fn identity(folder: &PathBuf) -> Option<(u64, u64)> {
    std::fs::metadata(folder).ok().filter(std::fs::Metadata::is_dir).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use diaspore_policy::ProviderId;

    use super::*;
    use crate::{BreakerOptions, Credentials, Deadline, Fleet, FleetOptions, HealthState};

    #[tokio::test]
    async fn a_folder_that_is_missing_at_the_start_is_down_until_it_comes() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        let id = ProviderId::new("p").unwrap();
        let spec = ProviderSpec::local(id.clone(), root.clone());
        let fleet = Fleet::connect(&[spec], &Credentials::new(), FleetOptions::default()).unwrap();
        let now = Deadline::control();
        let put = async || fleet.put(&id, "ab/one", vec![Bytes::from_static(b"shard")], now).await;
        let refused = put().await.unwrap_err();
        assert!(refused.to_string().contains("mount the disk it is on"), "{refused}");
        assert!(!root.exists());
        std::fs::create_dir(&root).unwrap();
        put().await.unwrap();
        assert_eq!(fleet.list(&id, "", 10, now).await.unwrap(), [("ab/one".to_owned(), 5)]);
        assert!(root.join("ab/one").is_file());
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_is_down_and_never_made_anew() {
        let place = tempfile::tempdir().unwrap();
        let (root, away) = (place.path().join("root"), place.path().join("away"));
        std::fs::create_dir(&root).unwrap();
        let id = ProviderId::new("p").unwrap();
        let options = FleetOptions { breaker: BreakerOptions { failures: 100, ..BreakerOptions::default() }, ..FleetOptions::default() };
        let fleet = Fleet::connect(&[ProviderSpec::local(id.clone(), root.clone())], &Credentials::new(), options).unwrap();
        let now = Deadline::control();
        let put = async |name: &str| fleet.put(&id, name, vec![Bytes::from_static(b"shard")], now).await;
        let silent = async || {
            let asked = [
                fleet.get(&id, "ab/one", None, 5, now).await.map(drop),
                fleet.exists(&id, "ab/one", now).await.map(drop),
                fleet.list(&id, "ab", 10, now).await.map(drop),
                fleet.delete(&id, "ab/one", now).await,
                put("ab/two").await,
            ];
            asked.iter().all(|answer| answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Unavailable))
        };
        put("ab/one").await.unwrap();

        std::fs::rename(&root, &away).unwrap();
        assert!(silent().await, "gone");
        assert!(!root.exists(), "nothing was made in its place");
        // What an unmounted disk leaves: an empty folder of the same name.
        std::fs::create_dir(&root).unwrap();
        assert!(silent().await, "another folder");
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        assert!(fleet.probe(&id, now).await.is_err());
        std::fs::remove_dir(&root).unwrap();

        std::fs::rename(&away, &root).unwrap();
        assert_eq!(fleet.probe(&id, now).await.unwrap().state, HealthState::Healthy);
        assert_eq!(fleet.get(&id, "ab/one", None, 5, now).await.unwrap(), "shard");
        put("ab/two").await.unwrap();
        assert_eq!(fleet.list(&id, "ab", 10, now).await.unwrap().len(), 2);
    }
}
