//! The ledger as the engine holds it: journal and view kept in step.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diaspore_block::codec::encode;
use diaspore_block::id::{BlockId, Seq};
use diaspore_block::key::LedgerKey;
use diaspore_block::record::Placement;
use rand::CryptoRng;

use crate::entry::{self, AppliedBlock, BaseStep, Entry, IssuedBlock, JournalEntry, ReleasedNote, Step};
use crate::error::{LedgerError, Result};
use crate::facts::CheckEntry;
use crate::identity::{self, SCHEMA};
use crate::journal::{Position, Stream, StreamKind, journal_secret};
use crate::medium::{Counters, Medium, MediumFile, MediumLock, Metered, OpenMode, StorageMetrics};
use crate::migrate;
use crate::secret::Secret;
use crate::snapshot::{Snapshot, decode, meta};
use crate::state::{Changes, State, Table};
use crate::transition;
use crate::view::{CACHE_BYTES, View};

mod upkeep;

const VIEW_NAME: &str = "view";
/// The view becomes durable at least every so many records; bounds replay after a crash.
const FLUSH_RECORDS: u64 = 8192;

/// How many bytes of a base count as one record towards the next flush: they are many small rows, written once.
const BASE_BYTES_PER_RECORD: usize = 8 << 10;

type Rng = Box<dyn CryptoRng + Send>;

/// What opening found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenReport {
    /// The view was missing, damaged or ahead of the journal, and was made anew.
    pub rebuilt: bool,
    /// Journal entries replayed into the view.
    pub replayed_entries: u64,
    /// Newest applied sequence.
    pub applied: Seq,
    /// Schema that the store had before this opening gave it the present one.
    pub migrated_from: Option<u32>,
}

/// Private state of one deployment. Cheap to clone; calls block (wrap them), reads run beside the writer.
///
/// After a failed sync every call is refused with [`LedgerError::SyncFailed`]: what the disk holds is unknown, the process must end.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    medium: Arc<dyn Medium>,
    /// How the medium was used.
    counters: Arc<Counters>,
    mode: OpenMode,
    journal: Arc<Secret>,
    /// Applied entries. Its lock is the writer's: whoever holds it may change the view.
    log: Mutex<Stream>,
    hold: Mutex<Stream>,
    rng: Mutex<Rng>,
    view: View,
    report: OpenReport,
    /// The log stream holds something the next sync must make durable, not only the next flush.
    log_urgent: AtomicBool,
    unflushed_records: AtomicU64,
    /// Sequence whose settling lets the oldest hold segment go; 0 when none is known.
    prune_waits_for: AtomicU64,
    broken: AtomicBool,
    /// The view missed an entry that the journal has: no further entry may be applied before the next opening.
    behind: AtomicBool,
    /// The disk had no room for the last thing that was to be written.
    full: AtomicBool,
    _lock: MediumLock,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("medium", &self.medium).field("report", &self.report).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing makes the view durable: the journal goes first, or the view stays as it was flushed.
        let broken = self.broken.load(Ordering::Acquire);
        if broken || self.mode == OpenMode::ReadOnly || sync_stream(&self.log).is_err() {
            self.view.abandon();
        }
    }
}

fn relock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn draw<const N: usize>(rng: &mut Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Changes one entry makes to the view, and how many records it stands for.
fn changes_of<'s>(state: &'s dyn State, step: Step<'_>) -> Result<(Changes<'s>, u64)> {
    let mut changes = Changes::new(state);
    let records = match step {
        Step::Applied(block) => {
            transition::apply(&mut changes, block)?;
            block.records.len() as u64
        }
        Step::Noted(note) => {
            transition::note(&mut changes, note)?;
            match note {
                JournalEntry::Base(BaseStep::Rows(plain)) => (plain.len() / BASE_BYTES_PER_RECORD) as u64,
                _ => 1,
            }
        }
    };
    Ok((changes, records))
}

fn position_of(state: &dyn State) -> Result<Option<Position>> {
    let Some(bytes) = state.get(Table::Meta, meta::POSITION)? else { return Ok(None) };
    let ((segment, offset), (ordinal, id)): ((u64, u64), (u64, [u8; 16])) = decode(&bytes, "journal position")?;
    Ok(Some(Position { segment, id, offset, ordinal }))
}

impl Ledger {
    /// Locks the medium, checks key and schema, and brings the view up to the journal's end, rebuilding it where it must.
    ///
    /// `rng` draws salts: the operating system's generator, or a seeded one in simulation. Read-only writes nothing; what the view lacks is
    /// then completed in memory.
    pub fn open(medium: impl Medium, key: &LedgerKey, mode: OpenMode, rng: Box<dyn CryptoRng + Send>) -> Result<Self> {
        Self::open_with_cache(medium, key, mode, rng, CACHE_BYTES)
    }

    /// The same with at most `cache` bytes of the view's pages in memory instead of 64 MiB.
    pub fn open_with_cache(
        medium: impl Medium,
        key: &LedgerKey,
        mode: OpenMode,
        rng: Box<dyn CryptoRng + Send>,
        cache: usize,
    ) -> Result<Self> {
        let lock = medium.lock(mode)?;
        Self::open_under(lock, medium, key, mode, rng, cache)
    }

    /// The same for whoever holds the medium already.
    pub(crate) fn open_under(
        lock: MediumLock,
        medium: impl Medium,
        key: &LedgerKey,
        mode: OpenMode,
        rng: Box<dyn CryptoRng + Send>,
        cache: usize,
    ) -> Result<Self> {
        let (medium, counters) = Metered::new(medium);
        let medium: Arc<dyn Medium> = Arc::new(medium);
        let mut rng = rng;
        let root = Secret::of(key);
        let schema = identity::check(medium.as_ref(), &root, mode, &draw(&mut rng))?;
        let older = schema.filter(|schema| *schema < SCHEMA && mode == OpenMode::ReadWrite);
        if let Some(from) = older {
            migrate::keep_copy(medium.as_ref(), from)?;
        }
        let journal = Arc::new(journal_secret(&root));
        let log = Stream::open(StreamKind::Log, Arc::clone(&medium), Arc::clone(&journal), mode)?;
        let hold = Stream::open(StreamKind::Hold, Arc::clone(&medium), Arc::clone(&journal), mode)?;
        let (view, mut report) = open_view(&medium, &root, (mode, cache), &log, &mut rng)?;
        if let Some(from) = older {
            view.flush()?;
            identity::raise(medium.as_ref(), &root, &draw(&mut rng))?;
            report.migrated_from = Some(from);
            tracing::info!(from, to = SCHEMA, "the ledger has a new schema");
        }
        let inner = Inner {
            medium,
            counters,
            mode,
            journal,
            log: Mutex::new(log),
            hold: Mutex::new(hold),
            rng: Mutex::new(rng),
            view,
            report,
            log_urgent: AtomicBool::new(false),
            unflushed_records: AtomicU64::new(0),
            prune_waits_for: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            behind: AtomicBool::new(false),
            full: AtomicBool::new(false),
            _lock: lock,
        };
        let ledger = Self(Arc::new(inner));
        ledger.note_migrations()?;
        Ok(ledger)
    }

    /// What opening found and did.
    pub fn report(&self) -> OpenReport {
        self.0.report
    }

    /// How the medium was used since it was opened.
    pub fn metrics(&self) -> StorageMetrics {
        let (cache_hits, cache_misses) = self.0.view.cache_use();
        StorageMetrics { cache_hits, cache_misses, ..self.0.counters.metrics() }
    }

    #[cfg(test)]
    pub(crate) fn view(&self) -> &View {
        &self.0.view
    }

    fn usable(&self) -> Result<()> {
        if self.0.broken.load(Ordering::Acquire) { Err(LedgerError::SyncFailed) } else { Ok(()) }
    }

    fn writable(&self) -> Result<()> {
        self.usable()?;
        if self.0.mode == OpenMode::ReadOnly { Err(LedgerError::ReadOnly) } else { Ok(()) }
    }

    /// Remembers what a failure means for the calls that follow.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(LedgerError::SyncFailed) => self.0.broken.store(true, Ordering::Release),
            Err(LedgerError::Full) => self.0.full.store(true, Ordering::Release),
            _ => {}
        }
        result
    }

    /// True from the moment at which the disk had no room until [`Self::find_room`] finds some.
    pub fn is_full(&self) -> bool {
        self.0.full.load(Ordering::Acquire)
    }

    /// Looks whether a disk that was full takes writes again: what waits in memory goes out first, then both streams of the journal must
    /// take a megabyte. Nothing of it stays. Costs nothing while the disk is not full.
    pub fn find_room(&self) -> Result<bool> {
        if !self.is_full() {
            return Ok(true);
        }
        self.writable()?;
        match self.noted(self.look_for_room()) {
            Ok(()) => {
                self.0.full.store(false, Ordering::Release);
                Ok(true)
            }
            Err(LedgerError::Full) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn look_for_room(&self) -> Result<()> {
        for stream in [&self.0.log, &self.0.hold] {
            let mut stream = relock(stream);
            stream.find_room(relock(&self.0.rng).as_mut())?;
        }
        // The writer's lock, as for every change of the view.
        let _log = relock(&self.0.log);
        self.0.view.find_room()
    }

    /// The newest state, for any number of reads that agree with each other.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.usable()?;
        Ok(Snapshot::new(self.0.view.frozen()))
    }

    /// Notes something in the journal; durable after [`Self::sync`]. Notes that concern the view change it at once.
    #[expect(clippy::needless_pass_by_value, reason = "an entry is noted once: the caller hands it over")]
    pub fn append(&self, entry: JournalEntry) -> Result<()> {
        self.writable()?;
        let held = matches!(entry, JournalEntry::Block(_) | JournalEntry::Released(_) | JournalEntry::Dropped { .. });
        if held {
            let plain = entry.encode();
            let mut stream = relock(&self.0.hold);
            let appended = stream.append(&plain, relock(&self.0.rng).as_mut());
            return self.noted(appended.map(drop));
        }
        let plain = entry.encode();
        let advanced = self.advance(&plain, Step::Noted(&entry));
        if !matches!(entry, JournalEntry::Settled { .. }) {
            // Behind the entry: a sync in between would take the mark and find nothing to make durable.
            self.0.log_urgent.store(true, Ordering::Release);
        }
        advanced
    }

    /// Makes everything appended so far durable: one sync for all entries since the last.
    pub fn sync(&self) -> Result<()> {
        self.writable()?;
        self.noted(sync_stream(&self.0.hold))?;
        if self.0.log_urgent.swap(false, Ordering::AcqRel) {
            self.noted(sync_stream(&self.0.log))?;
        }
        Ok(())
    }

    /// The one state transition: everything a commit block says becomes visible at once. A block that was applied already changes nothing;
    /// any other than the next one is refused with [`LedgerError::OutOfOrder`], a contradicting one with [`LedgerError::Refused`].
    ///
    /// Apply only what is released or decided: the ledger never goes back.
    pub fn apply(&self, block: &AppliedBlock) -> Result<()> {
        self.writable()?;
        let applied = self.snapshot()?.applied_seq()?;
        if block.seq <= applied {
            return Ok(());
        }
        self.advance(&entry::encode_applied(block), Step::Applied(block))
    }

    /// Records where a block's shards are now; the block is settled once all n are acknowledged.
    pub fn update_placement(&self, block: BlockId, placements: Vec<Placement>) -> Result<()> {
        self.append(JournalEntry::Settled { block, placements })
    }

    /// Notes what was seen of blocks' shards. Not journalled: durable with the view's next flush, and gone when the view is made anew.
    /// Blocks that the map does not know are left out.
    pub fn note_checks(&self, seen: &[(BlockId, CheckEntry)]) -> Result<()> {
        self.writable()?;
        let log = relock(&self.0.log);
        let frozen = self.0.view.frozen();
        let mut changes = Changes::new(frozen.as_ref());
        for (block, check) in seen {
            if changes.has(Table::Blocks, block.as_bytes())? {
                changes.put(Table::Checks, block.as_bytes(), encode(check));
            }
        }
        let written = self.noted(self.0.view.write(changes));
        drop(log);
        written
    }

    /// Journal first, view second, under the writer's lock. A transition that is refused leaves both untouched.
    fn advance(&self, plain: &[u8], step: Step<'_>) -> Result<()> {
        let mut log = relock(&self.0.log);
        if self.0.behind.load(Ordering::Acquire) {
            return Err(LedgerError::corrupt("the view lacks what the journal has: start again"));
        }
        let frozen = self.0.view.frozen();
        if let Step::Applied(block) = step
            && block.seq <= Snapshot::new(Arc::clone(&frozen) as _).applied_seq()?
        {
            return Ok(());
        }
        let (changes, records) = changes_of(frozen.as_ref(), step)?;
        // What the view could not take must not get into the journal.
        self.noted(self.0.view.find_room())?;
        let appended = log.append(plain, relock(&self.0.rng).as_mut());
        let position = self.noted(appended)?;
        let mut changes = changes;
        put_position(&mut changes, &position);
        let written = self.noted(self.0.view.write(changes));
        if written.is_err() {
            self.0.behind.store(true, Ordering::Release);
        }
        written?;
        drop(log);
        if self.0.unflushed_records.fetch_add(records, Ordering::AcqRel) + records >= FLUSH_RECORDS {
            // The entry is applied and journalled; a flush that finds the disk full is the next caller's news.
            match self.flush_view() {
                Ok(()) | Err(LedgerError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the view durable as it is, and drops held blocks that need no copy here any more. Call it every few seconds.
    pub fn flush_view(&self) -> Result<()> {
        self.writable()?;
        // Whatever the view says must be in the journal first. Most of that sync runs without the writer's lock.
        self.noted(sync_stream(&self.0.log))?;
        let mut log = relock(&self.0.log);
        if let Some(pending) = log.begin_sync() {
            let through = self.noted(pending.run())?;
            log.end_sync(through);
        }
        self.noted(self.0.view.flush())?;
        drop(log);
        self.0.unflushed_records.store(0, Ordering::Release);
        self.noted(self.prune())
    }

    /// Shows what the journal's hold says, in order, one entry at a time: blocks, marks, and what was dropped of what came before. What reconcile
    /// starts from; it may be more than fits into memory.
    pub fn scan_hold(&self, visit: &mut dyn FnMut(JournalEntry)) -> Result<()> {
        self.usable()?;
        let stream = relock(&self.0.hold);
        for number in stream.numbers().to_vec() {
            stream.read(number, None, &mut |plain, _| {
                match entry::decode(plain)? {
                    Entry::Noted(note) => visit(note),
                    Entry::Applied(_) => return Err(LedgerError::corrupt("the hold stream has a foreign entry")),
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> Vec<JournalEntry> {
        let mut found: Vec<JournalEntry> = Vec::new();
        self.scan_hold(&mut |entry| found.push(entry)).unwrap();
        found
    }

    /// Removes the oldest hold segments while every block in them is applied and settled, or dropped.
    fn prune(&self) -> Result<()> {
        let state = self.snapshot()?;
        let applied = state.applied_seq()?;
        // An applied commit block without an entry was settled, covered by a compacted log and erased.
        let is_done = |seq: Seq| Ok::<_, LedgerError>(state.commit_block(seq)?.map_or(seq <= applied, |entry| entry.settled));
        let waiting_for = Seq(self.0.prune_waits_for.load(Ordering::Acquire));
        if waiting_for > Seq(0) && !is_done(waiting_for)? {
            return Ok(());
        }
        let mut stream = relock(&self.0.hold);
        while let Some(oldest) = stream.numbers().first().copied()
            && stream.numbers().len() > 1
            && !stream.is_tail(oldest)
        {
            let mut needed = Seq(0);
            stream.read(oldest, None, &mut |plain, _| {
                if let Entry::Noted(JournalEntry::Block(IssuedBlock { seq, .. }) | JournalEntry::Released(ReleasedNote { seq, .. })) =
                    entry::decode(plain)?
                    && !is_done(seq)?
                {
                    needed = seq;
                }
                Ok(())
            })?;
            self.0.prune_waits_for.store(needed.get(), Ordering::Release);
            if needed > Seq(0) {
                break;
            }
            stream.remove_oldest()?;
        }
        Ok(())
    }
}

/// Syncs a stream without its lock, so that entries queue up for the next sync meanwhile.
fn sync_stream(stream: &Mutex<Stream>) -> Result<()> {
    let Some(pending) = relock(stream).begin_sync() else { return Ok(()) };
    let through = pending.run()?;
    relock(stream).end_sync(through);
    Ok(())
}

fn put_position(changes: &mut Changes<'_>, position: &Position) {
    let value = encode(&((position.segment, position.offset), (position.ordinal, position.id)));
    changes.put(Table::Meta, meta::POSITION, value);
}

/// A file that is nowhere: read-only openings without a view keep theirs in memory.
fn nowhere() -> Result<Arc<dyn MediumFile>> {
    crate::medium::MemoryMedium::new().open(VIEW_NAME, true)?.ok_or_else(|| LedgerError::corrupt("memory"))
}

fn open_view(
    medium: &Arc<dyn Medium>,
    root: &Secret,
    (mode, cache): (OpenMode, usize),
    log: &Stream,
    rng: &mut Rng,
) -> Result<(View, OpenReport)> {
    let existing = View::open(medium.open(VIEW_NAME, false)?, root, mode, cache)?;
    if let Ok(view) = existing {
        match catch_up(&view, log) {
            Ok(Some(report)) => return Ok((view, report)),
            // Ahead of the journal, or damaged where it mattered: the journal is the truth.
            Ok(None) => {}
            Err(LedgerError::Corrupt { what }) => tracing::warn!(what, "the ledger's view is damaged and will be rebuilt"),
            Err(error) => return Err(error),
        }
        drop(view);
    }
    let file = match mode {
        OpenMode::ReadWrite => medium.open(VIEW_NAME, true)?.ok_or_else(|| LedgerError::corrupt("the view's file"))?,
        OpenMode::ReadOnly => nowhere()?,
    };
    let view = View::create(file, root, &draw(rng), mode, cache)?;
    let replayed = replay(&view, log, None)?;
    let applied = Snapshot::new(view.frozen()).applied_seq()?;
    Ok((view, OpenReport { rebuilt: true, replayed_entries: replayed, applied, migrated_from: None }))
}

/// Replays what the journal has beyond the view; none when the view does not fit the journal.
fn catch_up(view: &View, log: &Stream) -> Result<Option<OpenReport>> {
    let frozen = view.frozen();
    let position = position_of(frozen.as_ref())?;
    if position.is_some_and(|position| !log.holds(&position)) {
        return Ok(None);
    }
    let replayed_entries = replay(view, log, position.as_ref())?;
    let applied = Snapshot::new(view.frozen()).applied_seq()?;
    Ok(Some(OpenReport { rebuilt: false, replayed_entries, applied, migrated_from: None }))
}

fn replay(view: &View, log: &Stream, from: Option<&Position>) -> Result<u64> {
    let (mut entries, mut unflushed) = (0, 0);
    for number in log.numbers().iter().copied().filter(|number| from.is_none_or(|from| *number >= from.segment)) {
        let start = from.filter(|from| from.segment == number);
        log.read(number, start, &mut |plain, position| {
            let frozen = view.frozen();
            let (mut changes, records) = changes_of(frozen.as_ref(), entry::decode(plain)?.step())?;
            put_position(&mut changes, &position);
            view.write(changes)?;
            entries += 1;
            unflushed += records;
            if unflushed >= FLUSH_RECORDS {
                unflushed = 0;
                view.flush()?;
            }
            Ok(())
        })?;
    }
    // The rest becomes durable with the next flush: opening does not wait for the disk.
    Ok(entries)
}

#[cfg(test)]
mod tests;
