//! The disk as the ledger sees it: a flat set of named files that can be synced.
//!
//! Two implementations: a locked folder ([`FileMedium`]) and memory ([`MemoryMedium`]), which is a product feature (a ledger that
//! leaves nothing behind) and the simulation's disk: it can be copied, cut at its last sync, filled up and damaged.

mod file;
mod memory;
mod metered;

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;

pub use file::{FileMedium, create_folder};
pub use memory::MemoryMedium;
pub use metered::StorageMetrics;
pub(crate) use metered::{Counters, Metered};

use crate::error::Result;

/// Whether the ledger may change its medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Exclusive; creates what is missing.
    ReadWrite,
    /// Shared with other readers; nothing is written, a view that needs work is completed in memory.
    ReadOnly,
}

/// Keeps the medium reserved until it and every clone of it are dropped.
#[derive(Clone)]
pub struct MediumLock(#[expect(dead_code, reason = "held for its Drop only")] Arc<dyn Any + Send + Sync>);

impl MediumLock {
    pub(crate) fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Arc::new(guard))
    }
}

impl fmt::Debug for MediumLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MediumLock")
    }
}

/// A place for the ledger's files.
pub trait Medium: fmt::Debug + Send + Sync + 'static {
    /// Reserves the medium: exclusive for [`OpenMode::ReadWrite`], shared for [`OpenMode::ReadOnly`].
    /// Fails with [`crate::LedgerError::Locked`] at once when somebody holds it.
    fn lock(&self, mode: OpenMode) -> Result<MediumLock>;
    /// Names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file; `None` when it is missing and `create` is false.
    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn MediumFile>>>;
    /// Removes a file; a missing one is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name; a file that has it already is replaced in the same step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes creations, removals and new names durable.
    fn sync_names(&self) -> io::Result<()>;
}

impl Medium for Arc<dyn Medium> {
    fn lock(&self, mode: OpenMode) -> Result<MediumLock> {
        self.as_ref().lock(mode)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.as_ref().list()
    }
    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn MediumFile>>> {
        self.as_ref().open(name, create)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.as_ref().remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.as_ref().rename(from, to)
    }
    fn sync_names(&self) -> io::Result<()> {
        self.as_ref().sync_names()
    }
}

/// One open file of a [`Medium`].
pub trait MediumFile: fmt::Debug + Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True when the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `out` from `offset`; a short file is [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes all of `data` at `offset`, extending the file with zeros where needed.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Cuts or extends (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes everything written so far durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
}
