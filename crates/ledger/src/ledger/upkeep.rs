//! What is done to a ledger rather than with it: looking it over, throwing its view away, noting migrations.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use diaspore_block::key::LedgerKey;
use rand::CryptoRng;

use super::{Ledger, VIEW_NAME, position_of, relock};
use crate::backup::{self, BackupHead, Exporter, Source};
use crate::entry::JournalEntry;
use crate::error::{LedgerError, Result};
use crate::fsck::{self, IntegrityReport};
use crate::identity::{self, SCHEMA};
use crate::journal::journal_secret;
use crate::medium::{Medium, OpenMode};
use crate::migrate;
use crate::secret::Secret;
use crate::snapshot::Snapshot;
use crate::state::Table;
use crate::vault::Unusable;
use crate::view::{CACHE_BYTES, View};

impl Ledger {
    /// Notes changes of schema that left their copy here and no line in the journal: the note follows the new plate, so that an older
    /// program never meets it behind an old one.
    pub(super) fn note_migrations(&self) -> Result<()> {
        if self.0.mode == OpenMode::ReadOnly {
            return Ok(());
        }
        let known = self.snapshot()?.migrations()?;
        for from in migrate::copies(self.0.medium.as_ref())? {
            if !known.iter().any(|entry| entry.from == from) {
                self.append(JournalEntry::Migrated { from, to: SCHEMA })?;
                self.sync()?;
            }
        }
        Ok(())
    }

    /// Looks at everything, journal and view, beside the running writer. Writes nothing but the mark by which the next opening makes a view
    /// anew that was found damaged here.
    pub fn integrity(&self) -> Result<IntegrityReport> {
        self.usable()?;
        let report = fsck::examine(self.0.medium.as_ref(), &self.0.journal, SCHEMA, Ok(&self.0.view.frozen()))?;
        if !report.view_is_sound() {
            self.mark_view();
        }
        Ok(report)
    }

    /// The same for a ledger that nobody has open. Writes nothing, and reports damage that would keep [`Self::open`] from opening.
    pub fn examine(medium: impl Medium, key: &LedgerKey) -> Result<IntegrityReport> {
        let medium: Arc<dyn Medium> = Arc::new(medium);
        let _lock = medium.lock(OpenMode::ReadOnly)?;
        let root = Secret::of(key);
        let schema = identity::check(medium.as_ref(), &root, OpenMode::ReadOnly, &[0; 24])?.unwrap_or_default();
        let journal = journal_secret(&root);
        if (1..SCHEMA).contains(&schema) {
            let report = fsck::examine(medium.as_ref(), &journal, schema, Err(String::new()))?;
            return Ok(IntegrityReport { awaits_migration: true, view_unusable: None, ..report });
        }
        let view = View::open(medium.open(VIEW_NAME, false)?, &root, OpenMode::ReadOnly, CACHE_BYTES)?;
        let frozen = match &view {
            Ok(view) => Ok(view.frozen()),
            Err(Unusable::Missing) => Err("there is none".to_owned()),
            Err(Unusable::Damaged) => Err("its header or pages are damaged, or it has another schema".to_owned()),
        };
        fsck::examine(medium.as_ref(), &journal, schema, frozen.as_ref().map_err(Clone::clone))
    }

    /// Rows of every table of the view, by its name. Cheap: the store counts them.
    pub fn table_rows(&self) -> Result<BTreeMap<&'static str, u64>> {
        let frozen = self.0.view.frozen();
        Table::ALL.into_iter().map(|table| Ok((table.name(), frozen.rows(table)?))).collect()
    }

    /// Bytes of all files of the ledger.
    pub fn size_on_disk(&self) -> Result<u64> {
        total_bytes(self.0.medium.as_ref())
    }

    /// A sealed copy of the ledger as it is now, to be taken piece by piece while the writer goes on.
    pub fn exporter(&self) -> Result<Exporter> {
        self.usable()?;
        // The hold is listed after the log's end is fixed: like a crash, a copy may know more of what was issued than of what was applied.
        let frozen = self.0.view.frozen();
        let until = position_of(frozen.as_ref())?;
        let state = Snapshot::new(frozen);
        let log_size = state.log_size()?;
        let head = BackupHead { schema: SCHEMA, applied: state.applied_seq()?, log_size, log_root: state.log_root(log_size)? };
        let (log, hold) = (relock(&self.0.log).numbers().to_vec(), relock(&self.0.hold).numbers().to_vec());
        let (medium, journal) = (Arc::clone(&self.0.medium), Arc::clone(&self.0.journal));
        Ok(Exporter::new(Source { medium, journal, head, until, log, hold, ledger: self.clone() }))
    }

    pub(crate) fn with_rng<T>(&self, run: impl FnOnce(&mut (dyn CryptoRng + Send)) -> T) -> T {
        run(relock(&self.0.rng).as_mut())
    }

    /// Fills an empty medium from a backup and opens it once; on failure it is left empty.
    pub fn restore(medium: impl Medium, key: &LedgerKey, rng: Box<dyn CryptoRng + Send>, source: &mut dyn Read) -> Result<BackupHead> {
        backup::restore(&(Arc::new(medium) as Arc<dyn Medium>), key, rng, source)
    }

    /// Gives room back: free pages of the view, held blocks that are settled, and, if `old_copies`, what migrations left behind.
    /// Needs the ledger for itself. Bytes before and after.
    pub fn compact(medium: impl Medium, key: &LedgerKey, rng: Box<dyn CryptoRng + Send>, old_copies: bool) -> Result<(u64, u64)> {
        let medium: Arc<dyn Medium> = Arc::new(medium);
        let before = total_bytes(medium.as_ref())?;
        let mut ledger = Self::open(Arc::clone(&medium), key, OpenMode::ReadWrite, rng)?;
        ledger.flush_view()?;
        if let Some(inner) = Arc::get_mut(&mut ledger.0) {
            inner.view.compact()?;
        }
        if old_copies {
            for name in medium.list()?.iter().filter(|name| migrate::is_copy(name)) {
                medium.remove(name)?;
            }
            medium.sync_names().map_err(|_| LedgerError::SyncFailed)?;
        }
        drop(ledger);
        Ok((before, total_bytes(medium.as_ref())?))
    }

    /// Removes the view, so that the next opening makes it anew from the journal: the repair for a damaged view. Refused for an older
    /// schema: its view belongs into the copy that the migration makes.
    pub fn discard_view(medium: &impl Medium, key: &LedgerKey) -> Result<()> {
        let _lock = medium.lock(OpenMode::ReadWrite)?;
        let schema = identity::check(medium, &Secret::of(key), OpenMode::ReadOnly, &[0; 24])?;
        if let Some(found) = schema.filter(|schema| *schema < SCHEMA) {
            return Err(LedgerError::OlderSchema { found, present: SCHEMA });
        }
        medium.remove(VIEW_NAME)?;
        medium.sync_names().map_err(|_| LedgerError::SyncFailed)
    }

    /// Reads the whole view and checks every value. On damage the next opening rebuilds it from the journal.
    pub fn check(&self) -> Result<()> {
        self.usable()?;
        self.0.view.check().inspect_err(|_| self.mark_view())
    }

    fn mark_view(&self) {
        if let Err(error) = self.0.view.mark_damaged() {
            tracing::warn!(%error, "could not mark the damaged view");
        }
    }
}

fn total_bytes(medium: &dyn Medium) -> Result<u64> {
    let mut bytes = 0;
    for name in medium.list()? {
        bytes += medium.open(&name, false)?.map_or(Ok(0), |file| file.len())?;
    }
    Ok(bytes)
}
