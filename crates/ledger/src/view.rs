//! redb as the ledger's view: one write transaction per applied entry, values authenticated, reads on snapshots.
//!
//! Every commit is non-durable until [`View::flush`]; the journal position travels in the same transaction as the state it led to, so
//! whatever a power loss leaves is a whole number of entries, and the journal has the rest.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Builder, Database, Durability, ReadOnlyTable, ReadableTableMetadata, TableDefinition};

use crate::error::{LedgerError, Result};
use crate::medium::{MediumFile, OpenMode};
use crate::secret::{Secret, VIEW_MAC};
use crate::state::{Changes, State, Table, Visit};
use crate::vault::{Unusable, Vault};

/// Plain pages that are kept in memory unless told otherwise, in bytes.
pub(crate) const CACHE_BYTES: usize = 64 << 20;
const MAC_LEN: usize = 16;

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// redb trusts its pages; a damaged one may trip an assertion. That is damage, not a bug of the caller: report it as such.
fn contain<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(LedgerError::corrupt("the view's pages")))
}

fn fault(error: impl Into<redb::Error>) -> LedgerError {
    match error.into() {
        redb::Error::Io(error) => error.into(),
        redb::Error::Corrupted(_) => LedgerError::corrupt("the view's pages"),
        other => LedgerError::Io(io::Error::other(other)),
    }
}

/// The database, its file and the newest snapshot of it.
pub(crate) struct View {
    /// Present until the view is dropped.
    db: Option<Database>,
    vault: Vault,
    mode: OpenMode,
    values: Arc<Secret>,
    latest: RwLock<Arc<Frozen>>,
    /// The most that was counted so far.
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("vault", &self.vault).finish_non_exhaustive()
    }
}

/// One state of all tables; later commits do not change it.
pub(crate) struct Frozen {
    tables: Vec<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    values: Arc<Secret>,
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Frozen")
    }
}

impl View {
    /// Opens what is there; `Err(Unusable)` inside means that it has to be made anew.
    pub(crate) fn open(
        file: Option<Arc<dyn MediumFile>>,
        ledger: &Secret,
        mode: OpenMode,
        cache: usize,
    ) -> Result<std::result::Result<Self, Unusable>> {
        let (vault, secret) = match Vault::open(file, ledger, mode)? {
            Ok(opened) => opened,
            Err(unusable) => return Ok(Err(unusable)),
        };
        match Self::build(vault, &secret, mode, cache) {
            Ok(view) => Ok(Ok(view)),
            Err(LedgerError::Corrupt { .. }) => Ok(Err(Unusable::Damaged)),
            // A truncated file shows as a read beyond its end.
            Err(LedgerError::Io(error))
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::Other) =>
            {
                Ok(Err(Unusable::Damaged))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes an empty view in `file`.
    pub(crate) fn create(file: Arc<dyn MediumFile>, ledger: &Secret, salt: &[u8; 24], mode: OpenMode, cache: usize) -> Result<Self> {
        let vault = Vault::create(file, ledger, salt, mode)?;
        let secret = ledger.child(VIEW_MAC.key, salt);
        Self::build(vault, &secret, mode, cache)
    }

    fn build(vault: Vault, secret: &Secret, mode: OpenMode, cache: usize) -> Result<Self> {
        let values = Arc::new(secret.child(VIEW_MAC.value, &[]));
        contain(|| {
            let db = Builder::new().set_cache_size(cache).create_with_backend(vault.clone()).map_err(fault)?;
            let mut transaction = db.begin_write().map_err(fault)?;
            transaction.set_durability(Durability::None).map_err(fault)?;
            for table in Table::ALL {
                drop(transaction.open_table(definition(table)).map_err(fault)?);
            }
            transaction.commit().map_err(fault)?;
            let latest = RwLock::new(Arc::new(Frozen::take(&db, &values)?));
            Ok(Self { db: Some(db), vault, mode, values, latest, cache_hits: AtomicU64::new(0), cache_misses: AtomicU64::new(0) })
        })
    }

    /// The newest state.
    pub(crate) fn frozen(&self) -> Arc<Frozen> {
        Arc::clone(&self.latest.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes out what waits in memory for room on the disk; [`LedgerError::Full`] while there is none.
    pub(crate) fn find_room(&self) -> Result<()> {
        if self.drain()? { Ok(()) } else { Err(LedgerError::Full) }
    }

    fn drain(&self) -> Result<bool> {
        self.vault.drain().map_err(|error| self.judge(error.into()))
    }

    /// Makes `changes` visible, all or nothing; durable at the next [`Self::flush`].
    pub(crate) fn write(&self, changes: Changes<'_>) -> Result<()> {
        self.find_room()?;
        let cleared = changes.cleared().to_vec();
        let cells = changes.into_cells();
        contain(|| {
            let mut transaction = self.db()?.begin_write().map_err(fault)?;
            transaction.set_durability(Durability::None).map_err(fault)?;
            for table in cleared {
                transaction.delete_table(definition(table)).map_err(fault)?;
                drop(transaction.open_table(definition(table)).map_err(fault)?);
            }
            let mut cells = cells.into_iter().peekable();
            while let Some(((table, _), _)) = cells.peek() {
                let table = *table;
                let mut open = transaction.open_table(definition(table)).map_err(fault)?;
                while let Some(((_, key), cell)) = cells.next_if(|((at, _), _)| *at == table) {
                    let Some(value) = cell else {
                        drop(open.remove(key.as_slice()).map_err(fault)?);
                        continue;
                    };
                    let mut stored = Vec::with_capacity(MAC_LEN + value.len());
                    stored.extend_from_slice(&self.values.value_mac(table as u8, &key, &value));
                    stored.extend_from_slice(&value);
                    drop(open.insert(key.as_slice(), stored.as_slice()).map_err(fault)?);
                }
            }
            transaction.commit().map_err(fault)
        })
        .map_err(|error| self.judge(error))?;
        self.refresh()
    }

    fn refresh(&self) -> Result<()> {
        let frozen = Arc::new(contain(|| Frozen::take(self.db()?, &self.values))?);
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = frozen;
        Ok(())
    }

    /// Pages that were found in memory, and pages that were not. Neither ever falls.
    pub(crate) fn cache_use(&self) -> (u64, u64) {
        use redb::ReadableDatabase;
        let stats = self.db.as_ref().and_then(|db| contain(|| Ok(db.cache_stats())).ok());
        // redb reads its counters one after the other, and a page that is found meanwhile makes a difference of them negative.
        let sane = |count: u64| if count > u64::MAX / 2 { 0 } else { count };
        let (hits, misses) = stats.map_or((0, 0), |stats| {
            (stats.read_hits() + stats.write_hits(), sane(stats.read_misses()).saturating_add(sane(stats.write_misses())))
        });
        (self.cache_hits.fetch_max(hits, Ordering::Relaxed).max(hits), self.cache_misses.fetch_max(misses, Ordering::Relaxed).max(misses))
    }

    /// Makes every commit so far durable.
    pub(crate) fn flush(&self) -> Result<()> {
        if self.mode == OpenMode::ReadOnly {
            return Ok(());
        }
        if !self.drain()? {
            return Err(LedgerError::Full);
        }
        contain(|| {
            let mut transaction = self.db()?.begin_write().map_err(fault)?;
            transaction.set_durability(Durability::Immediate).map_err(fault)?;
            // Without it an opening after a crash walks the whole file: 16.7 s at a million records.
            transaction.set_quick_repair(true);
            transaction.commit().map_err(fault)
        })
        .map_err(|error| self.judge(error))?;
        if self.drain()? { self.refresh() } else { Err(LedgerError::Full) }
    }

    /// Gives free pages back to the disk. Nobody may hold a snapshot.
    pub(crate) fn compact(&mut self) -> Result<()> {
        let nothing = Frozen { tables: Vec::new(), values: Arc::clone(&self.values) };
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(nothing);
        let db = self.db.as_mut().ok_or_else(|| LedgerError::corrupt("the view is closed"))?;
        let compacted = contain(|| {
            // Each round moves what it can; redb says when there is nothing more to gain.
            while db.compact().map_err(fault)? {}
            Ok(())
        });
        self.refresh()?;
        compacted.map_err(|error| self.judge(error))
    }

    fn db(&self) -> Result<&Database> {
        self.db.as_ref().ok_or_else(|| LedgerError::corrupt("the view is closed"))
    }

    /// Stores a value whose MAC is another's.
    #[cfg(test)]
    pub(crate) fn write_unauthentic(&self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        let mut transaction = self.db()?.begin_write().map_err(fault)?;
        transaction.set_durability(Durability::None).map_err(fault)?;
        let mut open = transaction.open_table(definition(table)).map_err(fault)?;
        drop(open.insert(key, [&[0; MAC_LEN], value].concat().as_slice()).map_err(fault)?);
        drop(open);
        transaction.commit().map_err(fault)?;
        self.refresh()
    }

    /// Lets nothing more become durable: the next opening sees the last flush, or rebuilds.
    pub(crate) fn abandon(&self) {
        self.vault.abandon();
    }

    fn judge(&self, error: LedgerError) -> LedgerError {
        if self.vault.sync_failed() { LedgerError::SyncFailed } else { error }
    }

    /// Makes the next opening rebuild the view.
    pub(crate) fn mark_damaged(&self) -> Result<()> {
        Ok(self.vault.mark_damaged()?)
    }

    /// Reads every value and checks its MAC. Slow.
    pub(crate) fn check(&self) -> Result<()> {
        let frozen = self.frozen();
        for table in Table::ALL {
            let mut valid = 0;
            // MACs speak for what is there, the count for what is not.
            if frozen.examine(table, &mut |authentic| valid += u64::from(authentic))? != valid {
                return Err(LedgerError::corrupt(format!("the view's table of {} has lost entries", table.name())));
            }
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        // redb commits once more when it is closed. On damaged pages it may panic instead: then the view is rebuilt next time.
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err()
            && let Err(error) = self.vault.mark_damaged()
        {
            tracing::warn!(%error, "could not mark the damaged view");
        }
    }
}

impl Frozen {
    fn take(db: &Database, values: &Arc<Secret>) -> Result<Self> {
        use redb::ReadableDatabase;
        let transaction = db.begin_read().map_err(fault)?;
        let mut tables = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            tables.push(transaction.open_table(definition(table)).map_err(fault)?);
        }
        Ok(Self { tables, values: Arc::clone(values) })
    }

    fn table(&self, table: Table) -> Result<&ReadOnlyTable<&'static [u8], &'static [u8]>> {
        self.tables.get(table as usize).ok_or_else(|| LedgerError::corrupt(table.name()))
    }

    /// Entries of a table, as the store counts them: read from its root.
    pub(crate) fn rows(&self, table: Table) -> Result<u64> {
        contain(|| self.table(table)?.len().map_err(fault))
    }

    /// Says of every entry of a table whether it authenticates; gives the number of entries that the table claims to have.
    pub(crate) fn examine(&self, table: Table, visit: &mut dyn FnMut(bool)) -> Result<u64> {
        contain(|| {
            for entry in self.table(table)?.range::<&[u8]>(..).map_err(fault)? {
                let (key, stored) = entry.map_err(fault)?;
                visit(self.checked(table, key.value(), stored.value()).is_ok());
            }
            self.table(table)?.len().map_err(fault)
        })
    }

    /// The value without its MAC, once that fits.
    fn checked<'a>(&self, table: Table, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8]> {
        match stored.split_at_checked(MAC_LEN) {
            Some((mac, value)) if mac == self.values.value_mac(table as u8, key, value) => Ok(value),
            _ => Err(LedgerError::corrupt(format!("an entry of the view's table of {}", table.name()))),
        }
    }
}

impl State for Frozen {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        contain(|| match self.table(table)?.get(key).map_err(fault)? {
            Some(stored) => Ok(Some(self.checked(table, key, stored.value())?.to_vec())),
            None => Ok(None),
        })
    }

    fn walk(&self, table: Table, start: Bound<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        contain(|| {
            let range = self.table(table)?.range::<&[u8]>((start, Bound::Unbounded)).map_err(fault)?;
            for entry in range {
                let (key, stored) = entry.map_err(fault)?;
                let value = self.checked(table, key.value(), stored.value())?;
                if visit(key.value(), value)?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}
