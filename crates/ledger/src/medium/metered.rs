//! Every access to the medium passes here and is counted. Relaxed counters: they inform, nothing is decided by them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Medium, MediumFile, MediumLock, OpenMode};
use crate::error::Result;

/// What was done to the medium since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct StorageMetrics {
    /// Reads of a file.
    pub reads: u64,
    /// Writes to a file.
    pub writes: u64,
    /// Files removed.
    pub deletes: u64,
    /// Times that files or names were made durable.
    pub flushes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Accesses of any kind that failed.
    pub errors: u64,
    /// Pages of the view found in memory.
    pub cache_hits: u64,
    /// Pages of the view that had to be read from the medium.
    pub cache_misses: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    deletes: AtomicU64,
    flushes: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    /// What was counted; nothing is known about caches here.
    pub(crate) fn metrics(&self) -> StorageMetrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StorageMetrics {
            reads: load(&self.reads),
            writes: load(&self.writes),
            deletes: load(&self.deletes),
            flushes: load(&self.flushes),
            read_bytes: load(&self.read_bytes),
            written_bytes: load(&self.written_bytes),
            errors: load(&self.errors),
            ..StorageMetrics::default()
        }
    }

    fn count<T>(&self, of: &AtomicU64, outcome: io::Result<T>) -> io::Result<T> {
        of.fetch_add(1, Ordering::Relaxed);
        self.judge(outcome)
    }

    fn judge<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        self.errors.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
        outcome
    }
}

/// A medium whose use is counted.
#[derive(Debug)]
pub(crate) struct Metered<M> {
    medium: M,
    counters: Arc<Counters>,
}

impl<M: Medium> Metered<M> {
    pub(crate) fn new(medium: M) -> (Self, Arc<Counters>) {
        let counters = Arc::<Counters>::default();
        (Self { medium, counters: Arc::clone(&counters) }, counters)
    }
}

impl<M: Medium> Medium for Metered<M> {
    fn lock(&self, mode: OpenMode) -> Result<MediumLock> {
        self.medium.lock(mode)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.counters.judge(self.medium.list())
    }
    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn MediumFile>>> {
        let opened = self.counters.judge(self.medium.open(name, create))?;
        Ok(opened.map(|file| Arc::new(MeteredFile { file, counters: Arc::clone(&self.counters) }) as _))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.counters.count(&self.counters.deletes, self.medium.remove(name))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.counters.judge(self.medium.rename(from, to))
    }
    fn sync_names(&self) -> io::Result<()> {
        self.counters.count(&self.counters.flushes, self.medium.sync_names())
    }
}

#[derive(Debug)]
struct MeteredFile {
    file: Arc<dyn MediumFile>,
    counters: Arc<Counters>,
}

impl MediumFile for MeteredFile {
    fn len(&self) -> io::Result<u64> {
        self.counters.judge(self.file.len())
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.file.read_at(offset, out) {
            // Where a file ends is a question, not a failure: the view asks it of its holes.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.counters.reads.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
            outcome => {
                let read = if outcome.is_ok() { out.len() as u64 } else { 0 };
                self.counters.read_bytes.fetch_add(read, Ordering::Relaxed);
                self.counters.count(&self.counters.reads, outcome)
            }
        }
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let outcome = self.file.write_at(offset, data);
        let written = if outcome.is_ok() { data.len() as u64 } else { 0 };
        self.counters.written_bytes.fetch_add(written, Ordering::Relaxed);
        self.counters.count(&self.counters.writes, outcome)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.counters.judge(self.file.set_len(len))
    }
    fn sync(&self) -> io::Result<()> {
        self.counters.count(&self.counters.flushes, self.file.sync())
    }
}
