//! An S3 provider over loopback sockets.
//!
//! ```text
//! s3.rs        configuration, the handle, counters
//! listen.rs    accept loop, connections, going down and coming back on the same port
//! service.rs   one request: course of faults, signature
//! route.rs     from method, path and query to an action
//! operation.rs the operations
//! multipart.rs uploads in parts
//! upload.rs    request bodies into an incoming object
//! answer.rs    answers, XML, errors
//! body.rs      answer bodies: large reads, pacing, tampering
//! link.rs      the bandwidth all connections share
//! shelf.rs     objects in folders or in memory
//! listing.rs   ListObjectsV2
//! signature.rs AWS Signature Version 4
//! ```
//!
//! Spoken, path style: buckets are made and probed; objects put, got, probed, copied, deleted singly or in batches, and
//! uploaded in parts; `ListObjectsV2`; with `If-Match`, `If-None-Match` (atomic on PUT) and single ranges. Everything
//! else is answered with 501. User metadata and content types are not kept. Signatures are checked as in the AWS
//! documentation ("Authenticating Requests: Using the Authorization Header"), without the clock: an emulator has none,
//! so old requests are not refused.

mod answer;
mod body;
mod link;
mod listen;
mod listing;
mod multipart;
mod operation;
mod route;
mod service;
mod shelf;
mod signature;
mod upload;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use crate::fault::{FaultPlan, Op};
use listen::Listening;
use service::Endpoint;
use shelf::Shelf;

/// What an emulator could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// The port could not be had.
    #[error("cannot listen on 127.0.0.1:{port}: {source}; choose another port, or 0 for any")]
    Listen {
        /// The port asked for.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The folder could not be read or written.
    #[error("the emulator's folder cannot be used: {source}; check that it exists and can be written")]
    Folder {
        /// Why.
        #[from]
        source: io::Error,
    },
    /// A bucket name that S3 does not allow.
    #[error("`{name}` is no bucket name; use 3 to 63 of a-z, 0-9, `-` and `.`, starting with a letter or digit")]
    BucketName {
        /// The name.
        name: String,
    },
}

/// Access key and secret a client must sign with. The secret does not appear in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AccessKey {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What to start. Build with [`EmulatorConfig::folder`] or [`EmulatorConfig::memory`].
#[derive(Clone, Debug)]
pub struct EmulatorConfig {
    folder: Option<PathBuf>,
    buckets: Vec<String>,
    key: Option<AccessKey>,
    port: u16,
    seed: u64,
    admin: bool,
}

impl EmulatorConfig {
    /// Objects are files below `folder/<bucket>/`, which is made if it is missing; what is already there is served.
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), buckets: Vec::new(), key: None, port: 0, seed: 0, admin: false }
    }

    /// Objects live in memory and are gone with the last handle.
    pub fn memory() -> Self {
        Self { folder: None, ..Self::folder("") }
    }

    /// Makes the bucket at start.
    #[must_use]
    pub fn with_bucket(mut self, name: impl Into<String>) -> Self {
        self.buckets.push(name.into());
        self
    }

    /// Only requests signed with this key are served. Without it everything is.
    #[must_use]
    pub fn with_credentials(mut self, access_key: &str, secret_key: &str) -> Self {
        self.key = Some(AccessKey { id: access_key.to_owned(), secret: secret_key.to_owned() });
        self
    }

    /// Listens on this port of 127.0.0.1; 0 (the default) takes any.
    #[must_use]
    pub const fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Seed of all the dice its faults throw. Default 0.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Serves `/_emulator/faults` (GET, PUT a plan's text, DELETE), `/_emulator/counters` (GET) and
    /// `/_emulator/snapshot` (POST) to anybody on this machine.
    #[must_use]
    pub const fn with_admin(mut self, admin: bool) -> Self {
        self.admin = admin;
        self
    }

    /// Starts listening. Must be called inside a tokio runtime, which then serves the requests.
    pub async fn start(self) -> Result<EmulatorHandle, EmulatorError> {
        let shelf = match &self.folder {
            Some(folder) => Shelf::folder(folder)?,
            None => Shelf::memory(),
        };
        for bucket in &self.buckets {
            if !shelf::is_bucket_name(bucket) {
                return Err(EmulatorError::BucketName { name: bucket.clone() });
            }
            shelf.create_bucket(bucket)?;
        }
        let endpoint = Arc::new(Endpoint::new(shelf, self.key, ChaCha12Rng::seed_from_u64(self.seed), self.admin));
        let listening = Listening::start(Arc::clone(&endpoint), self.port)?;
        // One turn of the scheduler, so that the accept loop is running when the caller connects.
        tokio::task::yield_now().await;
        Ok(EmulatorHandle { endpoint, listening: Arc::new(listening), folder: self.folder.map(Arc::from) })
    }
}

/// A running emulator. Clones control the same one; it is killed when the last is dropped.
#[derive(Clone, Debug)]
pub struct EmulatorHandle {
    endpoint: Arc<Endpoint>,
    listening: Arc<Listening>,
    folder: Option<Arc<Path>>,
}

impl EmulatorHandle {
    /// Where it listens, or listened before it went down.
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// The same as a URL, without a trailing slash: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The folder behind it; `None` in memory.
    pub fn objects_folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Requests and bytes so far.
    pub fn counters(&self) -> Counters {
        self.endpoint.counters()
    }

    /// Puts another plan in force from the next request on. A plan that [`FaultPlan::is_down`] stops listening and cuts
    /// all connections; any other plan listens again on the same port.
    pub fn set_faults(&self, plan: FaultPlan) -> Result<(), EmulatorError> {
        let down = plan.is_down();
        self.endpoint.set_faults(plan);
        if down {
            self.listening.kill();
            Ok(())
        } else {
            self.listening.resume()
        }
    }

    /// The plan in force, with what is left of its countdowns.
    pub fn faults(&self) -> FaultPlan {
        self.endpoint.faults()
    }

    /// Remembers the present state for roll-backs, replacing the snapshot before. Costs one hard link per object.
    pub fn take_snapshot(&self) -> Result<(), EmulatorError> {
        Ok(self.endpoint.shelf().take_snapshot()?)
    }

    /// The provider itself goes back to the last snapshot (empty buckets if none was taken).
    pub fn roll_back(&self) -> Result<(), EmulatorError> {
        Ok(self.endpoint.shelf().roll_back()?)
    }

    /// Loses every object; buckets and the snapshot stay.
    pub fn lose_everything(&self) -> Result<(), EmulatorError> {
        Ok(self.endpoint.shelf().lose_everything()?)
    }

    /// Number and bytes of the objects stored now, over all buckets.
    pub fn stored(&self) -> Result<(u64, u64), EmulatorError> {
        Ok(self.endpoint.shelf().stored()?)
    }

    /// Stops as a pulled plug: no more listening, every connection cut. The port stays reserved.
    pub fn kill(&self) {
        self.listening.kill();
    }

    /// Listens again on the same port after [`EmulatorHandle::kill`] or a stop; does nothing while it listens.
    pub fn resume(&self) -> Result<(), EmulatorError> {
        self.listening.resume()
    }

    /// Stops listening, lets requests under way finish, and returns when all connections are closed. Frozen requests
    /// never finish: [`EmulatorHandle::kill`] ends them.
    pub async fn stop(&self) {
        self.listening.stop().await;
    }
}

/// Requests and bytes of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// PUT requests, parts and copies included.
    pub puts: u64,
    /// GET requests of objects.
    pub gets: u64,
    /// HEAD requests of objects.
    pub heads: u64,
    /// DELETE requests, batches counted once.
    pub deletes: u64,
    /// Listings.
    pub lists: u64,
    /// Bucket operations and whatever was not understood.
    pub others: u64,
    /// Answers with a status of 400 and above, and requests cut or frozen by a fault.
    pub errors: u64,
    /// Object bytes received.
    pub bytes_in: u64,
    /// Object bytes sent.
    pub bytes_out: u64,
}

impl Counters {
    /// All requests.
    pub const fn requests(&self) -> u64 {
        self.puts + self.gets + self.heads + self.deletes + self.lists + self.others
    }
}

#[derive(Debug, Default)]
struct Tally {
    requests: [AtomicU64; Op::ALL.len()],
    errors: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Tally {
    fn request(&self, op: Op) {
        if let Some(count) = self.requests.get(op as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn read(&self) -> Counters {
        let count = |op: Op| self.requests.get(op as usize).map_or(0, |count| count.load(Ordering::Relaxed));
        Counters {
            puts: count(Op::Put),
            gets: count(Op::Get),
            heads: count(Op::Head),
            deletes: count(Op::Delete),
            lists: count(Op::List),
            others: count(Op::Other),
            errors: self.errors.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
