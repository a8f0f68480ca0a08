//! The private state of a Diaspore service: what it knows, where things lie, and the log that proves it.
//!
//! The ledger is a **journal** and a **view**. The journal is sealed, append-only and small; one sync makes a whole group of entries
//! durable. The view is an ordered store that answers reads from snapshots; it is flushed lazily, authenticated value by value, and can be
//! deleted at any time: opening rebuilds it by replaying the journal through the same [`Ledger::apply`] that runs live and in recovery.
//! The journal adds content, its end proves nothing (PROTOCOL rule 9); the providers decide, the engine reconciles.
//!
//! Nothing is readable at rest: journal entries are sealed, the view is encrypted in sectors, file names carry numbers only. Locations
//! leave this crate as values without `Serialize` whose `Debug` shows nothing (`docs/ARCHITECTURE.md`, invariant 3).
//!
//! ```
//! use diaspore_block::key::LedgerKey;
//! use diaspore_ledger::{Ledger, MemoryMedium, OpenMode};
//! # use rand::SeedableRng;
//! # fn main() -> Result<(), diaspore_ledger::LedgerError> {
//! let rng = Box::new(rand::rngs::StdRng::seed_from_u64(1)); // the operating system's generator in earnest
//! let ledger = Ledger::open(MemoryMedium::new(), &LedgerKey::from_bytes([1; 32]), OpenMode::ReadWrite, rng)?;
//! assert_eq!(ledger.snapshot()?.log_size()?, 0);
//! # Ok(())
//! # }
//! ```

mod backup;
mod base;
mod entry;
mod error;
mod facts;
#[cfg(test)]
mod fixture;
mod fsck;
mod identity;
mod journal;
mod ledger;
mod listing;
mod medium;
mod merkle;
mod migrate;
mod secret;
mod snapshot;
mod state;
mod transition;
mod vault;
mod view;
mod xts;

pub use backup::{BackupHead, Exporter};
pub use base::BasePart;
pub use entry::{AppliedBlock, BaseStep, IssuedBlock, JournalEntry, LogHead, ReleasedNote};
pub use error::{LedgerError, Result};
pub use facts::{
    ApiKeyEntry, BlobEntry, BlockEntry, BlockFacts, BucketEntry, ChainEntry, CheckEntry, ChunkPlace, CompactionEntry, CondemnedEntry,
    DrillEntry, IdempotencyEntry, IncarnationNote, KeyringCopy, MigrationEntry, ProviderEntry, ShardCheck, TenantEntry, Totals,
};
pub use fsck::{IntegrityReport, MigrationReport, RuleReport, StreamReport, TableReport};
pub use identity::SCHEMA;
pub use ledger::{Ledger, OpenReport};
pub use listing::{ListItem, ListPage, ListQuery, MAX_LIST_ITEMS};
pub use medium::{FileMedium, Medium, MediumFile, MediumLock, MemoryMedium, OpenMode, StorageMetrics, create_folder};
pub use snapshot::Snapshot;
