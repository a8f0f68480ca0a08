//! Is the ledger what it should be? Every value of every table, every entry of the journal, the Merkle log from its leaves, and what the
//! tables say of each other. Counts only: a report names no blob, no block and no provider.
//!
//! The journal is the truth and the view follows from it. So damage of the view costs nothing but the time to make it anew, and the report
//! says which of the two is damaged.

use std::sync::Arc;

use diaspore_block::compacted::each_row;
use diaspore_block::error::BlockError;
use diaspore_block::id::{Hash32, Seq};
use diaspore_block::log::{LogTree, leaf_hash};
use diaspore_block::record::Record;
use serde::{Deserialize, Serialize};

use crate::entry::{self, BaseStep, Entry, JournalEntry};
use crate::error::{LedgerError, Result};
use crate::journal::{self, StreamKind};
use crate::medium::Medium;
use crate::secret::Secret;
use crate::snapshot::Snapshot;
use crate::state::{State, Table};
use crate::view::Frozen;

mod rules;

#[cfg(test)]
mod tests;

/// What a look at the whole ledger found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntegrityReport {
    /// Schema of the store.
    pub schema: u32,
    /// Newest applied sequence of the view.
    pub applied: u64,
    /// The two streams of the journal.
    pub streams: Vec<StreamReport>,
    /// The tables of the view; empty when there is no view to read.
    pub tables: Vec<TableReport>,
    /// What must hold between tables.
    pub rules: Vec<RuleReport>,
    /// Leaves of the log.
    pub log_size: u64,
    /// Its root, in hex, made anew from the journal's records.
    pub log_root: String,
    /// Signed log heads in the journal that the records were held against.
    pub heads_checked: u64,
    /// Heads that do not follow from the records.
    pub heads_wrong: u64,
    /// Changes of the store's schema.
    pub migrations: Vec<MigrationReport>,
    /// Why the view could not be read at all; none when it could.
    pub view_unusable: Option<String>,
    /// The installing of a compacted log broke off: nothing is damaged, and nothing is there until a start or a recovery goes on with it.
    #[serde(default)]
    pub interrupted: bool,
    /// The store is of an older schema, whole as far as its journal tells: the next start for writing brings it up, after a copy. Its
    /// view was not looked at.
    #[serde(default)]
    pub awaits_migration: bool,
}

/// One stream of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReport {
    /// `log` or `hold`.
    pub name: String,
    /// Segment files.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries that open and decode.
    pub valid: u64,
    /// Segments with an entry that does not, or whose place in the sequence is wrong: what lies behind the first damage is not counted.
    pub corrupted: u64,
    /// Bytes behind the last entry: a group that was never synced. No damage.
    pub torn_bytes: u64,
}

/// One table of the view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    /// Name.
    pub name: String,
    /// Entries found or claimed, whichever is more.
    pub total: u64,
    /// Entries that authenticate.
    pub valid: u64,
    /// Entries that do not, or are missing.
    pub corrupted: u64,
}

/// One rule between tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// What must hold.
    pub rule: String,
    /// How often it was looked at.
    pub checked: u64,
    /// How often it did not hold.
    pub broken: u64,
}

/// A change of the store's schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationReport {
    /// Before.
    pub from: u32,
    /// Since.
    pub to: u32,
    /// Sequence of the record in the log; none until there is one.
    pub recorded_in: Option<u64>,
}

impl IntegrityReport {
    /// Nothing is wrong with the journal: the view can be made anew from it.
    pub fn journal_is_sound(&self) -> bool {
        self.heads_wrong == 0 && self.streams.iter().all(|stream| stream.corrupted == 0)
    }

    /// Nothing is wrong with the view, as far as there is one.
    pub fn view_is_sound(&self) -> bool {
        self.view_unusable.is_none()
            && self.tables.iter().all(|table| table.corrupted == 0)
            && self.rules.iter().all(|rule| rule.broken == 0)
    }

    /// Nothing is wrong at all.
    pub fn is_sound(&self) -> bool {
        self.journal_is_sound() && self.view_is_sound()
    }
}

/// What the journal's records come to.
struct Told {
    tree: LogTree,
    applied: Seq,
    /// Root at the view's sequence, once that was reached.
    root_of_view: Option<(u64, Hash32)>,
}

impl Told {
    /// A base takes the place of what came before. At its end: whether its leaves give the log that it states.
    fn base(&mut self, step: &BaseStep, view: Option<Seq>) -> Result<Option<bool>> {
        match step {
            BaseStep::Begin => *self = Self { tree: LogTree::new(), applied: Seq(0), root_of_view: None },
            BaseStep::Rows(plain) => {
                let rows = each_row::<BlockError>(plain, |row| {
                    if row.table == Table::Leaves as u8 {
                        self.tree.append(leaf_hash(row.value));
                    }
                    Ok(())
                });
                rows.map_err(|_| LedgerError::corrupt("the rows of a base do not decode"))?;
            }
            BaseStep::End { covers, log } => {
                self.applied = *covers;
                if view == Some(*covers) {
                    self.root_of_view = Some((self.tree.size(), self.tree.root()));
                }
                return Ok(Some(log.size == self.tree.size() && log.root == self.tree.root()));
            }
        }
        Ok(None)
    }
}

/// Looks at everything. `view` is the state to hold against the journal, or why there is none; entries that the journal has beyond it are
/// no damage.
pub(crate) fn examine(
    medium: &dyn Medium,
    journal: &Secret,
    schema: u32,
    view: std::result::Result<&Arc<Frozen>, String>,
) -> Result<IntegrityReport> {
    let mut report = IntegrityReport { schema, ..IntegrityReport::default() };
    let applied = match &view {
        Ok(frozen) => contained(&mut report, || Snapshot::new(Arc::clone(frozen) as _).applied_seq()),
        Err(_) => None,
    };
    report.applied = applied.unwrap_or_default().get();
    let mut told = Told { tree: LogTree::new(), applied: Seq(0), root_of_view: None };
    let (mut heads, mut wrong) = (0, 0);
    let log = journal::examine(StreamKind::Log, medium, journal, &mut |plain| {
        let entry = entry::decode(plain)?;
        if let Entry::Noted(JournalEntry::Base(step)) = &entry {
            let sound = told.base(step, applied)?;
            heads += u64::from(sound.is_some());
            wrong += u64::from(sound == Some(false));
        }
        if let Entry::Applied(block) = &entry {
            block.records.iter().map(Record::public).for_each(|leaf| drop(told.tree.append(leaf.leaf())));
            told.applied = block.seq;
            if let Some(head) = block.log {
                heads += 1;
                wrong += u64::from(head.size != told.tree.size() || head.root != told.tree.root());
            }
            if applied == Some(block.seq) {
                told.root_of_view = Some((told.tree.size(), told.tree.root()));
            }
        }
        Ok(())
    })?;
    let hold = journal::examine(StreamKind::Hold, medium, journal, &mut |plain| entry::decode(plain).map(drop))?;
    report.streams = vec![log, hold];
    (report.heads_checked, report.heads_wrong) = (heads, wrong);
    (report.log_size, report.log_root) = (told.tree.size(), told.tree.root().to_string());
    match view {
        Ok(frozen) => look_at_view(&mut report, frozen, &told),
        Err(why) => report.view_unusable = Some(why),
    }
    Ok(report)
}

/// A view that trips while it is read is damaged, not a reason to give no report.
fn contained<T>(report: &mut IntegrityReport, run: impl FnOnce() -> Result<T>) -> Option<T> {
    run().map_err(|error| report.view_unusable = Some(error.to_string())).ok()
}

fn look_at_view(report: &mut IntegrityReport, frozen: &Arc<Frozen>, told: &Told) {
    for table in Table::ALL {
        let mut counted = TableReport { name: table.name().to_owned(), ..TableReport::default() };
        let mut found = 0;
        let claimed = frozen.examine(table, &mut |authentic| {
            found += 1;
            counted.valid += u64::from(authentic);
        });
        counted.total = found.max(*claimed.as_ref().unwrap_or(&0));
        counted.corrupted = counted.total - counted.valid;
        if claimed.is_err() && counted.corrupted == 0 {
            // The pages end in damage before the table says how many entries it has.
            (counted.total, counted.corrupted) = (counted.total + 1, 1);
        }
        report.tables.push(counted);
    }
    // Rules over tables that do not read would only say the same again.
    if report.tables.iter().any(|table| table.corrupted > 0) {
        return;
    }
    let state: &dyn State = frozen.as_ref();
    let incomplete = contained(report, || Snapshot::new(Arc::clone(frozen) as _).is_incomplete());
    if incomplete == Some(true) {
        // Half of the rows are there, and sums are those of the whole.
        report.interrupted = true;
        return;
    }
    let checked = contained(report, || {
        let mut rules = rules::check(state)?;
        rules.push(rules::follows_from_journal(state, told.root_of_view, told.applied)?);
        Ok(rules)
    });
    report.rules = checked.unwrap_or_default();
    let migrations = contained(report, || Snapshot::new(Arc::clone(frozen) as _).migrations());
    report.migrations = migrations
        .into_iter()
        .flatten()
        .map(|entry| MigrationReport { from: entry.from, to: entry.to, recorded_in: entry.recorded.map(|(seq, _)| seq.get()) })
        .collect();
}
