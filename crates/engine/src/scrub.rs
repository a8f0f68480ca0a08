//! Whether what is stored is still there and right: presence, sampled audits, deep scrubs, drills, and the account of all that.
//!
//! Nothing here decides that a shard is good because somebody says so, and nothing decides that a provider is bad because another says
//! so: bytes are held against the signed root of their own shard, one provider at a time. What is seen goes to the table of checks; what is
//! proven missing or wrong goes to the one queue of repairs (`settle`), together with what readers met.
//!
//! In the background one block after the other is asked for its headers, one random cell after the other is audited, and once in a while
//! one more set of k providers has its drill. All of it is slow on purpose, jittered, and under the budgets of the policy. A provider
//! that is silent for less than the hold-off causes no repair; after it, the blocks that it holds shards of join the queue.

mod census;
mod drill;
mod estimate;
mod presence;
mod sample;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diaspore_block::id::{BlockId, Seq, Timestamp};
use diaspore_block::record::ProviderMode;
use diaspore_ledger::{BlockEntry, BlockFacts, CheckEntry, LedgerError, Snapshot};
use diaspore_policy::ProviderId;
use diaspore_provider::HealthState;
use futures::StreamExt;
use futures::stream;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::{Error, ErrorKind};
use crate::layout;
use crate::modes;
use crate::namespace::{local, view};
use crate::shards::Depth;
use crate::shared::{Ground, Shared};
use crate::world::cpu;

pub use census::{Census, ProviderCensus};
pub use drill::{DrillReport, DrilledSet};
pub(crate) use presence::examine_some;
pub use verdict::Integrity;
pub(crate) use verdict::{Seen, noted, proven_lost, seen_whole};

/// Blocks asked for at once by a scrub that somebody waits for; whole shards take more memory.
const AT_ONCE: usize = 16;
const AT_ONCE_DEEP: usize = 2;
/// Blocks taken from the ledger at once.
const BATCH: usize = 256;
/// Blocks passed over at most by one background step.
const STEP_BLOCKS: usize = 2048;
/// Longest pause between two blocks of the background's walk.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Pause between counts of all blocks, and how many times longer than a count takes.
const CENSUS_PAUSE: Duration = Duration::from_secs(10);
const CENSUS_SHARE: u32 = 50;
/// Shards remembered that their providers do not give although they answer, and for how long one is that was not asked for again: its block
/// went, or its provider.
const MOST_STUBBORN: usize = 100_000;
const STUBBORN_FOR: Duration = Duration::from_hours(24);
/// How long a scrub waits for shards that are still on their way.
const SETTLE_PATIENCE: Duration = Duration::from_secs(20);
/// How long a scrub waits for the repair of what it found.
const REPAIR_PATIENCE: Duration = Duration::from_mins(10);

/// Random cells of one provider, since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sample {
    since: Timestamp,
    cells: u64,
    bad: u64,
}

/// What audits of one provider say, for people.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Audits {
    /// Account.
    pub provider: String,
    /// Random cells read and verified since `since_ms`.
    pub cells: u64,
    /// Of these: wrong or not there.
    pub bad: u64,
    /// Cells that the map places there.
    pub of: u64,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// With 95 % confidence at most this share of its cells is bad, in percent (Clopper and Pearson).
    pub at_most_bad_percent: f64,
}

/// A scrub that somebody asked for: under way or ended.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ScrubReport {
    /// Still at it.
    pub running: bool,
    /// Whether bodies are read, not only headers.
    pub deep: bool,
    /// When it began, in milliseconds since 1970; 0 if none ever did.
    pub started_ms: u64,
    /// When it ended; 0 while it is running.
    pub finished_ms: u64,
    /// Blocks asked for.
    pub blocks: u64,
    /// Shards seen as they should be.
    pub good: u64,
    /// Shards that their providers say they do not have.
    pub missing: u64,
    /// Shards of which other bytes were given.
    pub wrong: u64,
    /// Shards whose providers did not answer.
    pub silent: u64,
    /// Blocks that wait for repair still.
    pub repairs_left: u64,
    /// How the blocks are afterwards that were there when it began; absent while it is running.
    pub census: Option<Census>,
    /// Why it ended early, if it did.
    pub failed: Option<String>,
}

/// Whether so few shards of a block were seen when it was last looked at that nothing can rely on it.
pub(crate) fn is_known_lost(view: &Snapshot, block: &BlockEntry) -> Result<bool, Error> {
    let check = view.check_of(block.facts.id).map_err(local)?;
    Ok(verdict::judge(block, check.as_ref()).integrity == Integrity::Lost)
}

/// What is known about integrity besides the table of checks. Outlives an incarnation, not the process.
#[derive(Debug)]
pub(crate) struct Scrubbing {
    census: Mutex<Option<Arc<Census>>>,
    samples: Mutex<BTreeMap<ProviderId, Sample>>,
    job: watch::Sender<ScrubReport>,
    drill: Mutex<Option<DrillReport>>,
}

impl Default for Scrubbing {
    fn default() -> Self {
        Self {
            census: Mutex::default(),
            samples: Mutex::default(),
            job: watch::Sender::new(ScrubReport::default()),
            drill: Mutex::default(),
        }
    }
}

fn lock<T>(cell: &Mutex<T>) -> MutexGuard<'_, T> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scrubbing {
    /// The last count of all blocks, if there was one.
    pub(crate) fn census(&self) -> Option<Arc<Census>> {
        lock(&self.census).clone()
    }

    /// The scrub that runs or ran last.
    pub(crate) fn report(&self) -> ScrubReport {
        self.job.borrow().clone()
    }

    /// The last drill of this process, with its signed report.
    pub(crate) fn last_drill(&self) -> Option<DrillReport> {
        lock(&self.drill).clone()
    }

    fn sampled(&self, provider: &ProviderId, good: bool, now: Timestamp) {
        let mut samples = lock(&self.samples);
        let sample = samples.entry(provider.clone()).or_insert(Sample { since: now, ..Sample::default() });
        sample.cells += 1;
        sample.bad += u64::from(!good);
    }

    /// What audits say, per provider.
    pub(crate) fn audits(&self) -> Vec<Audits> {
        let census = self.census();
        let of =
            |provider: &ProviderId| census.as_ref().and_then(|census| census.providers.get(provider.as_str())).map_or(0, |row| row.cells);
        let samples = lock(&self.samples);
        let audits = samples.iter().map(|(provider, sample)| Audits {
            provider: provider.to_string(),
            cells: sample.cells,
            bad: sample.bad,
            of: of(provider),
            since_ms: sample.since.0,
            at_most_bad_percent: 100.0 * estimate::at_most_bad(sample.cells, sample.bad),
        });
        audits.collect()
    }
}

/// Counts all blocks, for `status` and whoever asks.
pub(crate) fn count(ground: &Ground) -> Result<Arc<Census>, LedgerError> {
    let census = Arc::new(cpu(|| Census::take(&ground.ledger.snapshot()?, ground.clock.now(), Seq(u64::MAX)))?);
    *lock(&ground.scrub.census) = Some(Arc::clone(&census));
    Ok(census)
}

/// Notes what was seen of single shards of a block. `bytes` says whether bodies were verified.
pub(crate) fn note(shared: &Shared, facts: &BlockFacts, seen: &[(u8, ProviderId, Seen)], bytes: bool) {
    let now = shared.clock.now();
    let noted = shared.ledger.snapshot().and_then(|view| {
        let before = view.check_of(facts.id)?;
        let verified = bytes.then_some(now);
        let n = facts.geometry.n();
        let fold = |check, (shard, _, seen): &(u8, ProviderId, Seen)| Some(verdict::noted(check, n, *shard, *seen, verified));
        let check = seen.iter().fold(before, fold).unwrap_or_default();
        shared.ledger.note_checks(&[(facts.id, check)])
    });
    if let Err(error) = noted {
        tracing::warn!(%error, "what was seen of a block could not be noted");
    }
}

/// The same, and has repaired what is proven lost.
pub(crate) fn observed(shared: &Shared, entry: &BlockEntry, seen: &[(u8, ProviderId, Seen)], bytes: bool) {
    // It may have gone while it was looked at.
    if !shared.ledger.snapshot().and_then(|view| view.keeps(entry.facts.id)).unwrap_or(false) {
        return;
    }
    note(shared, &entry.facts, seen, bytes);
    let lost: Vec<_> = seen.iter().filter(|(.., seen)| matches!(seen, Seen::Missing | Seen::Wrong)).cloned().collect();
    if !lost.is_empty() {
        shared.settlement.file(entry, &lost);
    }
}

/// Notes a batch of examined blocks and files what they lack.
fn examined(shared: &Shared, batch: &[presence::Examined]) -> Result<(), LedgerError> {
    let view = shared.ledger.snapshot()?;
    let mut rows: Vec<(BlockId, CheckEntry)> = Vec::with_capacity(batch.len());
    let mut damaged = Vec::new();
    for examined in batch {
        let id = examined.entry.facts.id;
        // A collection may have been faster than the look.
        if !view.keeps(id)? {
            continue;
        }
        rows.push((id, examined.check(view.check_of(id)?)));
        let lost = examined.lost();
        if !lost.is_empty() {
            damaged.push((&examined.entry, lost));
        }
    }
    cpu(|| shared.ledger.note_checks(&rows))?;
    for (entry, lost) in damaged {
        shared.settlement.file(entry, &lost);
    }
    Ok(())
}

/// Starts a scrub of everything unless one runs; gives the report so far.
pub(crate) fn start(shared: &Arc<Shared>, deep: bool) -> Result<ScrubReport, Error> {
    shared.check_writable()?;
    let mut begun = false;
    let now = shared.clock.now().0;
    shared.scrub.job.send_if_modified(|report| {
        begun = !report.running;
        if begun {
            *report = ScrubReport { running: true, deep, started_ms: now, ..ScrubReport::default() };
        }
        begun
    });
    if begun {
        let task = Arc::clone(shared);
        shared.spawn(async move {
            let mut closing = task.closing.subscribe();
            let outcome = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => Err(ended_with_its_writer()),
                outcome = Box::pin(everything(&task, deep)) => outcome,
            };
            let now = task.clock.now().0;
            task.scrub.job.send_modify(|report| {
                report.running = false;
                report.finished_ms = now;
                match outcome {
                    Ok(census) => report.census = Some(census),
                    Err(error) => report.failed = Some(error.message),
                }
            });
        });
    }
    Ok(shared.scrub.report())
}

/// Waits until the scrub that runs has ended, at most for `limit`; gives the report as it is then.
pub(crate) async fn wait(shared: &Arc<Shared>, limit: Duration) -> ScrubReport {
    let mut job = shared.scrub.job.subscribe();
    let ended = tokio::time::timeout(limit, job.wait_for(|report| !report.running)).await;
    drop(ended);
    shared.scrub.report()
}

/// Examines every block that is there now, waits for the repair of what was found, counts. Newer blocks, those with the records of the
/// repairs among them, are another scrub's business.
async fn everything(shared: &Arc<Shared>, deep: bool) -> Result<Census, Error> {
    let depth = if deep { Depth::Whole } else { Depth::Header };
    let through = view(shared)?.applied_seq().map_err(local)?;
    // What is still on its way would be missed for nothing.
    let _settled = tokio::time::timeout(SETTLE_PATIENCE, shared.settlement.wait_through(through)).await;
    pass(shared, depth).await?;
    shared.settlement.hurry();
    let end = Instant::now() + REPAIR_PATIENCE;
    let mut changes = shared.settlement.subscribe();
    loop {
        let repairs = shared.settlement.repairs();
        shared.scrub.job.send_modify(|report| report.repairs_left = repairs.blocks);
        if repairs.blocks == repairs.failed {
            break;
        }
        if tokio::time::timeout_at(end, changes.changed()).await.is_err() {
            break;
        }
    }
    cpu(|| count(shared)).map_err(local)?;
    cpu(|| Census::take(&view(shared)?, shared.clock.now(), through).map_err(local))
}

fn ended_with_its_writer() -> Error {
    Error::new(ErrorKind::NotAccepted, "the scrub ended with the writer that ran it; start it again")
}

async fn pass(shared: &Arc<Shared>, depth: Depth) -> Result<(), Error> {
    let at_once = if depth == Depth::Whole { AT_ONCE_DEEP } else { AT_ONCE };
    let mut after = None;
    loop {
        let view = view(shared)?;
        let batch = view.blocks(after, BATCH).map_err(local)?;
        let Some(last) = batch.last() else { return Ok(()) };
        after = Some(last.facts.id);
        let mut alive = Vec::with_capacity(batch.len());
        for entry in batch {
            if view.condemned(entry.facts.id).map_err(local)?.is_none() {
                alive.push(entry);
            }
        }
        drop(view);
        let looks = stream::iter(alive).map(|entry| presence::examine(shared, entry, depth));
        let seen: Vec<presence::Examined> = looks.buffered(at_once).collect().await;
        cpu(|| examined(shared, &seen)).map_err(local)?;
        shared.scrub.job.send_modify(|report| {
            report.blocks += seen.len() as u64;
            for (.., seen) in seen.iter().flat_map(|examined| &examined.shards) {
                match seen {
                    Seen::Good => report.good += 1,
                    Seen::Missing => report.missing += 1,
                    Seen::Wrong => report.wrong += 1,
                    Seen::Silent | Seen::Never => report.silent += 1,
                }
            }
        });
    }
}

/// The background.
struct Watchman {
    shared: Arc<Shared>,
    /// Where the walk over the blocks is.
    after: Option<BlockId>,
    /// Where the walk over the blocks of each silent provider is.
    absent: BTreeMap<ProviderId, Option<BlockId>>,
    /// Where the walk over those of a provider that is back is.
    back: Option<BlockId>,
    /// Shards that a provider which answers otherwise does not give, since when, and when each is asked for again.
    stubborn: BTreeMap<(BlockId, u8), (Instant, Instant)>,
    /// Bytes that audits of a provider may still fetch.
    allowance: BTreeMap<ProviderId, f64>,
    turn: usize,
    next_walk: Instant,
    next_audit: Option<Instant>,
    next_census: Instant,
}

/// Runs until the engine closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    let now = Instant::now();
    let mut watchman = Watchman::new(shared);
    loop {
        let wake = watchman.next_audit.into_iter().chain([watchman.next_walk, watchman.next_census]).min();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep_until(wake.unwrap_or(now)) => {}
        }
        let step = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            step = Box::pin(watchman.step()) => step,
        };
        if let Err(error) = step {
            tracing::warn!(%error, "a step of the background scrub failed");
        }
    }
}

/// Pause between two audits of any provider.
fn audit_pause(shared: &Shared) -> Option<Duration> {
    let per_hour = u64::from(shared.config.profile.upkeep.audits_per_hour).saturating_mul(shared.fleet.providers().len() as u64);
    (per_hour > 0).then(|| Duration::from_hours(1) / u32::try_from(per_hour).unwrap_or(u32::MAX))
}

impl Watchman {
    fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            next_walk: now + LONGEST_PAUSE,
            next_audit: audit_pause(&shared).map(|pause| now + LONGEST_PAUSE + pause),
            next_census: now,
            after: Some(BlockId::draw(&mut shared.rng())),
            absent: BTreeMap::new(),
            back: None,
            stubborn: BTreeMap::new(),
            allowance: BTreeMap::new(),
            turn: 0,
            shared,
        }
    }

    async fn step(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.next_census <= now {
            let census = count(&self.shared).map_err(local)?;
            self.next_census = Instant::now() + CENSUS_PAUSE.max(now.elapsed() * CENSUS_SHARE);
            self.absences(&census)?;
            self.returns(&census).await?;
            modes::quarantine(&self.shared).await;
            self.drill().await;
        }
        if self.next_walk <= now {
            self.next_walk = now + self.jittered(self.walk_pause());
            self.walk().await?;
        }
        if self.next_audit.is_some_and(|at| at <= now) {
            self.next_audit = audit_pause(&self.shared).map(|pause| now + self.jittered(pause));
            self.audit().await;
        }
        Ok(())
    }

    /// Half to one and a half times `pause`.
    fn jittered(&self, pause: Duration) -> Duration {
        let drawn = u32::try_from(self.shared.rng().next_u64() % 1000).unwrap_or_default();
        pause / 2 + pause / 1000 * drawn
    }

    fn walk_pause(&self) -> Duration {
        let hours = u64::from(self.shared.config.profile.upkeep.presence_hours);
        let blocks = self.shared.scrub.census().map_or(1, |census| census.blocks.max(1));
        let each = Duration::from_hours(hours) / u32::try_from(blocks).unwrap_or(u32::MAX);
        if hours == 0 { LONGEST_PAUSE } else { each.min(LONGEST_PAUSE) }
    }

    /// Asks for the headers of the next block that was not asked for lately.
    async fn walk(&mut self) -> Result<(), Error> {
        let period = u64::from(self.shared.config.profile.upkeep.presence_hours) * 3_600_000;
        if period == 0 {
            return Ok(());
        }
        let fresh = self.shared.clock.now().0.saturating_sub(period / 2);
        let view = view(&self.shared)?;
        let mut passed = 0;
        let due = 'found: loop {
            let batch = view.blocks(self.after, BATCH).map_err(local)?;
            if batch.is_empty() || passed > STEP_BLOCKS {
                self.after = self.after.filter(|_| !batch.is_empty());
                return Ok(());
            }
            for entry in batch {
                passed += 1;
                self.after = Some(entry.facts.id);
                // What was noted while the clock was ahead says nothing.
                let now = self.shared.clock.now();
                let check = view.check_of(entry.facts.id).map_err(local)?;
                let stale = check.is_none_or(|check| check.checked.0 <= fresh || check.checked > now);
                if stale && entry.settled && view.condemned(entry.facts.id).map_err(local)?.is_none() {
                    break 'found entry;
                }
            }
        };
        drop(view);
        let seen = presence::examine(&self.shared, due, Depth::Header).await;
        cpu(|| examined(&self.shared, &[seen])).map_err(local)
    }

    /// One random cell of the provider whose turn it is.
    async fn audit(&mut self) {
        let specs = self.shared.fleet.providers();
        let Some(provider) = specs.get(self.turn % specs.len().max(1)).map(|spec| spec.id.clone()) else { return };
        self.turn = self.turn.wrapping_add(1);
        let upkeep = self.shared.config.profile.upkeep;
        let dead = self.shared.modes.of(&provider) == ProviderMode::Dead;
        let most = float(upkeep.audit_bytes_per_hour);
        let left = self.allowance.entry(provider.clone()).or_insert(most);
        *left = (*left + most / f64::from(upkeep.audits_per_hour.max(1))).min(most);
        if dead || *left <= 0.0 {
            return;
        }
        let Some(cell) = sample::draw(&self.shared, &provider) else { return };
        let audited = sample::audit(&self.shared, &cell).await;
        if let Some(left) = self.allowance.get_mut(&provider) {
            *left -= float(audited.bytes);
        }
        if matches!(audited.seen, Seen::Good | Seen::Missing | Seen::Wrong) {
            let good = audited.seen == Seen::Good;
            self.shared.fleet.report_audit(&provider, good);
            self.shared.scrub.sampled(&provider, good, self.shared.clock.now());
            observed(&self.shared, &cell.entry, &[(cell.shard, provider, audited.seen)], true);
        }
    }

    /// Providers that were silent for longer than the hold-off: their blocks join the queue of repairs, if any other domain is free.
    fn absences(&mut self, census: &Census) -> Result<(), Error> {
        let hold_off = self.shared.hold_off();
        for spec in self.shared.fleet.providers() {
            let dead = self.shared.modes.of(&spec.id) == ProviderMode::Dead;
            let down_for = self.shared.fleet.health(&spec.id).and_then(|health| health.down_for);
            if !dead && down_for.is_none_or(|down_for| down_for < hold_off) {
                self.absent.remove(&spec.id);
                continue;
            }
            if census.providers.get(spec.id.as_str()).is_none_or(|row| row.shards == 0) {
                continue;
            }
            let after = self.absent.get(&spec.id).copied().flatten();
            let next = absent_from(&self.shared, &spec.id, after)?;
            self.absent.insert(spec.id.clone(), next);
        }
        Ok(())
    }

    /// Asks for shards again whose provider did not answer and does now. One that it still does not give, a hold-off later, is as good as
    /// lost: an archive tier gives lengths and no bytes. What waits for repair is not asked for.
    async fn returns(&mut self, census: &Census) -> Result<(), Error> {
        let now = Instant::now();
        self.stubborn.retain(|_, (_, next)| now.saturating_duration_since(*next) < STUBBORN_FOR);
        let up = |name: &str| {
            let health = ProviderId::new(name).ok().and_then(|id| self.shared.fleet.health(&id));
            health.is_some_and(|health| health.state != HealthState::Down)
        };
        if !census.providers.iter().any(|(name, row)| row.silent > 0 && up(name)) {
            return Ok(());
        }
        let hold_off = self.shared.hold_off();
        let view = view(&self.shared)?;
        let batch = view.blocks(self.back, STEP_BLOCKS).map_err(local)?;
        let mut due = Vec::new();
        let mut last = None;
        for entry in batch {
            if due.len() >= BATCH {
                break;
            }
            let id = entry.facts.id;
            last = Some(id);
            let check = view.check_of(id).map_err(local)?;
            let silent = |shard| Seen::from_u8(verdict::shard_of(check.as_ref(), shard).state) == Seen::Silent;
            let asked = |shard| self.stubborn.get(&(id, shard)).is_none_or(|(_, next)| *next <= now);
            let places = entry.facts.placements.iter();
            let back = places.filter(|place| place.acked && silent(place.shard) && up(&place.provider) && asked(place.shard));
            let shards: BTreeSet<u8> = back.map(|place| place.shard).collect();
            if !shards.is_empty() && self.shared.settlement.is_calm(id) && view.condemned(id).map_err(local)?.is_none() {
                due.push((entry, shards));
            }
        }
        drop(view);
        self.back = last;
        let looks = stream::iter(due)
            .map(|(entry, shards)| presence::examine_some(&self.shared, entry, Depth::Header, move |shard| shards.contains(&shard)));
        let seen: Vec<presence::Examined> = looks.buffered(AT_ONCE).collect().await;
        cpu(|| examined(&self.shared, &seen)).map_err(local)?;
        let healthy = layout::healthy(&self.shared);
        for look in seen {
            for (shard, provider, seen) in look.shards {
                let key = (look.entry.facts.id, shard);
                if seen != Seen::Silent {
                    self.stubborn.remove(&key);
                    continue;
                }
                if self.stubborn.len() >= MOST_STUBBORN && !self.stubborn.contains_key(&key) {
                    continue;
                }
                let (since, next) = self.stubborn.entry(key).or_insert((now, now));
                *next = now + hold_off.max(LONGEST_PAUSE);
                let used =
                    |domain| look.entry.facts.placements.iter().any(|place| home_domain(&self.shared, &place.provider) == Some(domain));
                let long = now.duration_since(*since) >= hold_off && healthy.iter().any(|domain| !used(domain));
                if long && self.shared.settlement.file(&look.entry, &[(shard, provider.clone(), Seen::Silent)]) {
                    self.shared.settlement.avoid(look.entry.facts.id, &provider, hold_off);
                    // From here on it is the repair's; one that comes to nothing begins with another hold-off.
                    self.stubborn.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// The drill that the calendar asks for, if it was not held yet.
    async fn drill(&self) {
        let shared = &self.shared;
        let period = u64::from(shared.config.profile.upkeep.drill_hours) * 3_600_000;
        let settled = shared.scrub.census().is_some_and(|census| census.blocks > 0);
        if period == 0 || !settled || shared.check_writable().is_err() {
            return;
        }
        let now = shared.clock.now().0;
        let last = shared.ledger.snapshot().and_then(|view| view.last_drill()).ok().flatten();
        let first = drill::due(now, period);
        // The first one waits for a whole period: there is little to drill in a young deployment.
        let born = shared.ledger.snapshot().and_then(|view| view.incarnations()).ok().and_then(|notes| Some(notes.first()?.started.0));
        let since = last.map(|last| last.time.0).or(born.map(|born| born.saturating_add(period))).unwrap_or(now);
        if drill::due(since.min(now.saturating_add(period)), period) >= first {
            return;
        }
        match Box::pin(drill::run(shared, first, 1)).await {
            Ok(report) => *lock(&shared.scrub.drill) = Some(report),
            Err(error) => tracing::warn!(%error, "a drill could not be held"),
        }
    }
}

/// Files the next blocks that have a shard at a provider that is gone; where the walk is to go on.
fn absent_from(shared: &Shared, provider: &ProviderId, after: Option<BlockId>) -> Result<Option<BlockId>, Error> {
    let view = view(shared)?;
    let batch = view.blocks(after, STEP_BLOCKS).map_err(local)?;
    let next = batch.last().map(|last| last.facts.id);
    let up = layout::healthy(shared);
    let mut rows = Vec::new();
    for entry in batch {
        let facts = &entry.facts;
        let Some(place) = facts.placements.iter().find(|place| place.acked && place.provider == provider.as_str()) else { continue };
        if view.condemned(facts.id).map_err(local)?.is_some() {
            continue;
        }
        let before = view.check_of(facts.id).map_err(local)?;
        if Seen::from_u8(verdict::shard_of(before.as_ref(), place.shard).state) != Seen::Silent {
            rows.push((facts.id, verdict::noted(before, facts.geometry.n(), place.shard, Seen::Silent, None)));
        }
        let used = |domain| facts.placements.iter().any(|place| home_domain(shared, &place.provider) == Some(domain));
        // Without a free domain nothing could be done but to ask in vain, again and again.
        if up.iter().any(|domain| !used(domain)) && !shared.settlement.file(&entry, &[(place.shard, provider.clone(), Seen::Silent)]) {
            // Full: from here on next time.
            cpu(|| shared.ledger.note_checks(&rows)).map_err(local)?;
            return Ok(after);
        }
    }
    cpu(|| shared.ledger.note_checks(&rows)).map_err(local)?;
    Ok(next)
}

fn home_domain<'a>(shared: &'a Shared, provider: &str) -> Option<&'a diaspore_policy::FailureDomain> {
    shared.fleet.providers().iter().find(|spec| spec.id.as_str() == provider).map(|spec| &spec.domain)
}

/// The drill that an operator asked for: every set of k, or as many as one drill takes, from the one on that is due.
pub(crate) async fn drill_now(shared: &Arc<Shared>) -> Result<DrillReport, Error> {
    let period = u64::from(shared.config.profile.upkeep.drill_hours.max(1)) * 3_600_000;
    let report = drill::run(shared, drill::due(shared.clock.now().0, period), usize::MAX).await?;
    *lock(&shared.scrub.drill) = Some(report.clone());
    Ok(report)
}

#[expect(clippy::cast_precision_loss, reason = "a budget in bytes")]
const fn float(bytes: u64) -> f64 {
    bytes as f64
}
