//! Garbage collection (docs/decisions/0013-garbage-collection.md): mark what the current blobs name, empty what is mostly dead, condemn what
//! holds nothing alive, delete what was condemned long enough ago, and say what else lies at the providers.
//!
//! `keep` is what must be left alone, `mark` what is alive, `choose` what is worth it, `heirs` what stands in for it, `empty` moves, `sweep`
//! deletes.

pub(crate) mod allowance;
mod choose;
mod empty;
mod heirs;
pub(crate) mod inventory;
mod keep;
mod mark;
mod orphans;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diaspore_block::id::{BlockId, Timestamp};
use diaspore_block::manifest::BlockKind;
use diaspore_block::record::{BlocksCondemned, CondemnReason};
use diaspore_ledger::{BlockEntry, Snapshot};
use diaspore_policy::{Price, ProviderId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::api::{Error, ErrorKind};
use crate::checkpoint;
use crate::commit::{CommitRequest, NewRecord};
use crate::namespace::local;
use crate::shared::Shared;
use crate::world::cpu;
use allowance::Allowance;
pub use choose::Cost;
pub(crate) use choose::mean;
use choose::{Block, Bounds};
pub(crate) use keep::{Keep, Lease, Pins};
use keep::{Marking, Nominated};
use mark::{Marks, Roots};
pub use orphans::Found;
pub(crate) use orphans::Listing;
pub use sweep::Swept;

/// From the end of one collection to the next in the background, however often the service starts in between.
const EVERY: Duration = Duration::from_hours(1);
/// Pause between looks at whether one is due.
const LOOK: Duration = Duration::from_mins(1);
/// How long a block stays condemned before it is deleted in the background.
const GRACE: Duration = Duration::from_hours(24);
/// Blocks condemned by one record: applying it removes their chunks' rows, and commits wait for that.
const PER_RECORD: usize = 64;
/// Longest wait for a record.
const RECORD_DEADLINE: Duration = Duration::from_mins(2);
/// Rows of the ledger taken at once.
const PAGE: usize = 1000;

/// What is asked of a collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Delete at once what is condemned, without a grace time and without a budget of requests.
    pub now: bool,
    /// Empty blocks until at most this share of bytes is dead, in a thousand, whatever it costs.
    pub max_dead_permille: Option<u64>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What a collection found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Collected {
    /// Blocks looked at: settled, not condemned, and not needed by the log itself.
    pub blocks: u64,
    /// Bytes of chunks in them, as stored.
    pub held_bytes: u64,
    /// Those of chunks that a blob or a running read names.
    pub live_bytes: u64,
    /// Blocks without a live chunk.
    pub dead_blocks: u64,
    /// Blocks worth emptying.
    pub sparse_blocks: u64,
    /// Buckets of which nothing is collected, since a list of chunks could not be read.
    pub unreadable_buckets: u64,
    /// What all this and the listings cost, with what earlier collections left to delete: an estimate from above, by list prices. Objects that
    /// are no part of the log cost a read and a deletion each besides; they are not known before.
    pub cost: Cost,
    /// Bytes of chunks that were moved to new blocks.
    pub moved_bytes: u64,
    /// The new blocks.
    pub new_blocks: u64,
    /// Blocks condemned.
    pub condemned_blocks: u64,
    /// Of those to delete or to empty, blocks that stay until all of what their chunks are read from by now was read back.
    pub inherited_blocks: u64,
    /// Groups of blocks that could not be emptied this time.
    pub failed_moves: u64,
    /// What became of condemned blocks.
    pub swept: Swept,
    /// What lies at each provider.
    pub providers: BTreeMap<String, Found>,
}

/// What is known about collections in this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CollectorState {
    /// Number of the one that runs.
    pub running: Option<u64>,
    /// Number of the last that ended.
    pub ended: Option<u64>,
    /// What it gave, or why it ended early.
    pub outcome: Option<Collected>,
    /// Why it ended early.
    pub error: Option<String>,
}

/// One collection at a time, and what is remembered between two.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    turn: Arc<tokio::sync::Mutex<()>>,
    rounds: AtomicU64,
    state: Mutex<CollectorState>,
    /// Condemned blocks that some provider still holds, and who was seen without a shard of them.
    clean: Mutex<BTreeMap<BlockId, BTreeSet<ProviderId>>>,
    /// Blocks condemned at a time that the clock has not reached, and when they were first met.
    ahead: Mutex<BTreeMap<BlockId, Timestamp>>,
    keyring_prefixes: Mutex<BTreeMap<ProviderId, BTreeSet<String>>>,
}

/// Blocks remembered between two sweeps: those that some provider still holds, and those condemned ahead of time.
const MOST_SEEN: usize = 100_000;

impl Collector {
    pub(crate) fn state(&self) -> CollectorState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn began(&self, number: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).running = Some(number);
    }

    fn ended(&self, number: u64, outcome: &Result<Collected, Error>) {
        let (outcome, error) = match outcome {
            Ok(collected) => (Some(collected.clone()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = CollectorState { running: None, ended: Some(number), outcome, error };
    }

    /// Remembers where the keyring's copies lie, which only whoever holds the master key can say.
    pub(crate) fn keyrings_below(&self, provider: &ProviderId, prefix: String) {
        self.keyring_prefixes.lock().unwrap_or_else(PoisonError::into_inner).entry(provider.clone()).or_default().insert(prefix);
    }

    fn keyring_prefixes(&self, provider: &ProviderId) -> BTreeSet<String> {
        self.keyring_prefixes.lock().unwrap_or_else(PoisonError::into_inner).get(provider).cloned().unwrap_or_default()
    }

    fn clean_at(&self, block: BlockId) -> BTreeSet<ProviderId> {
        self.clean.lock().unwrap_or_else(PoisonError::into_inner).get(&block).cloned().unwrap_or_default()
    }

    fn note_clean(&self, block: BlockId, provider: &ProviderId) {
        let mut clean = self.clean.lock().unwrap_or_else(PoisonError::into_inner);
        if clean.len() < MOST_SEEN || clean.contains_key(&block) {
            clean.entry(block).or_default().insert(provider.clone());
        }
    }

    fn forget_clean(&self, block: BlockId) {
        self.clean.lock().unwrap_or_else(PoisonError::into_inner).remove(&block);
    }

    fn condemned_ahead(&self, block: BlockId, now: Timestamp) -> Timestamp {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.len() >= MOST_SEEN && !ahead.contains_key(&block) {
            return now;
        }
        *ahead.entry(block).or_insert(now)
    }
}

/// Runs until the engine closes: a collection now and then.
pub(crate) async fn run(shared: Arc<Shared>) {
    while shared.rest(LOOK).await {
        if shared.recorder.since_collection(shared.clock.now()) >= EVERY
            && let Ok(mut begun) = begin(&shared, Asked::default())
        {
            let _ended = (&mut begun.outcome).await;
        }
    }
}

/// A collection in a task of its own: whoever asked for it may go away.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) number: u64,
    pub(crate) outcome: oneshot::Receiver<Result<Collected, Error>>,
}

/// Starts a collection.
///
/// # Errors
/// `NotAccepted` while one runs.
pub(crate) fn begin(shared: &Arc<Shared>, asked: Asked) -> Result<Begun, Error> {
    shared.check_writable()?;
    let turn = Arc::clone(&shared.collector.turn).try_lock_owned();
    let turn = turn.map_err(|_| Error::new(ErrorKind::NotAccepted, "a collection runs already; it has to end first"))?;
    let number = shared.collector.rounds.fetch_add(1, Ordering::Relaxed) + 1;
    shared.collector.began(number);
    let (done, outcome) = oneshot::channel();
    let task = Arc::clone(shared);
    shared.spawn(async move {
        let mut closing = task.closing.subscribe();
        let outcome = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => Err(Error::new(ErrorKind::NotAccepted, "the service is shutting down")),
            outcome = Box::pin(one(&task, asked)) => outcome,
        };
        if let Err(error) = &outcome {
            tracing::warn!(%error, "a collection ended early");
        }
        // One that failed is not tried again at once; one that was cut short by the end of the service is.
        if !asked.dry_run && !*task.closing.borrow() {
            task.recorder.collected(task.clock.now());
        }
        task.collector.ended(number, &outcome);
        drop(turn);
        if done.send(outcome).is_err() {
            tracing::debug!("nobody waits for the collection");
        }
    });
    Ok(Begun { number, outcome })
}

/// One collection from beginning to end.
pub(crate) async fn collect(shared: &Arc<Shared>, asked: Asked) -> Result<Collected, Error> {
    let begun = begin(shared, asked)?;
    begun.outcome.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::NotAccepted, "the service is shutting down")))
}

async fn one(shared: &Arc<Shared>, asked: Asked) -> Result<Collected, Error> {
    // Pins that end from here on count until the nominations are made.
    let marking = shared.keep.begin_marking();
    let roots = Roots::take(shared).await?;
    let marks = mark::mark(shared, &roots).await?;
    let bounds = Bounds { most_dead_permille: asked.max_dead_permille, ..Bounds::default() };
    let mut choice = cpu(|| Choice::of(shared, &roots.view, &marks, bounds))?;
    if asked.dry_run {
        return Ok(choice.report);
    }
    let chosen = choice.dead.values().flatten().chain(&choice.sparse).copied().collect();
    let (goes, stay) = Box::pin(heirs::provided_for(shared, &roots.view, Some(&marks), chosen)).await?;
    choice.report.inherited_blocks = stay;
    choice.retain(&goes);
    let dead = choice.dead.values().flatten().copied();
    let mut nominated = cpu(|| nominate(&marking, &roots.view, dead.chain(choice.sparse.iter().copied())))?;
    drop(marking);
    for (reason, blocks) in std::mem::take(&mut choice.dead) {
        for some in blocks.chunks(PER_RECORD) {
            choice.report.condemned_blocks += condemn(shared, nominated.split(&some.iter().copied().collect()), reason).await?;
        }
    }
    let free: BTreeSet<BlockId> = nominated.blocks().iter().copied().collect();
    let sparse: Vec<BlockId> = choice.sparse.iter().copied().filter(|block| free.contains(block)).collect();
    for group in empty::plan(shared, &roots, &sparse).await? {
        match Box::pin(empty::carry_out(shared, group)).await {
            Ok(moved) => {
                choice.report.moved_bytes += moved.bytes;
                choice.report.new_blocks += moved.new_blocks;
                let emptied = nominated.split(&moved.emptied.into_iter().collect());
                choice.report.condemned_blocks += condemn(shared, emptied, CondemnReason::Rewritten).await?;
            }
            Err(error) => {
                tracing::warn!(%error, "blocks could not be emptied; they stay");
                choice.report.failed_moves += 1;
                if error.kind == ErrorKind::TooFewDomains {
                    break;
                }
            }
        }
    }
    drop((nominated, roots));
    let (grace, allowance) =
        if asked.now { (Duration::ZERO, Allowance::free()) } else { (GRACE, Allowance::of(shared.config.profile.requests)) };
    choice.report.swept = sweep::sweep(shared, grace, None, &allowance).await?;
    choice.report.providers = orphans::sweep(shared, grace, &allowance).await?;
    let report = choice.report;
    let (condemned, erased, moved) = (report.condemned_blocks, report.swept.blocks, report.moved_bytes);
    tracing::info!(condemned, erased, moved, freed = report.swept.bytes, "collected");
    Ok(report)
}

/// Writes blocks anew in the present layout and condemns them, for what they lack is a free domain. Then they are deleted,
/// without a grace time, since somebody waits to leave a provider. `count` hears how many were written anew, as soon as they are.
///
/// # Errors
/// `NotAccepted` while a collection runs for long.
pub(crate) async fn rewrite(shared: &Arc<Shared>, blocks: &[BlockId], mut count: impl FnMut(u64) + Send) -> Result<(), Error> {
    let turn = tokio::time::timeout(RECORD_DEADLINE, Arc::clone(&shared.collector.turn).lock_owned()).await;
    let _turn = turn.map_err(|_| Error::new(ErrorKind::NotAccepted, "a collection runs; it has to end first"))?;
    let marking = shared.keep.begin_marking();
    let roots = Roots::take(shared).await?;
    let (goes, _) = Box::pin(heirs::provided_for(shared, &roots.view, None, blocks.to_vec())).await?;
    let mut nominated = cpu(|| nominate(&marking, &roots.view, goes.into_iter()))?;
    drop(marking);
    let free = nominated.blocks().to_vec();
    for group in empty::plan(shared, &roots, &free).await? {
        match Box::pin(empty::carry_out(shared, group)).await {
            Ok(moved) => {
                count(condemn(shared, nominated.split(&moved.emptied.into_iter().collect()), CondemnReason::Rewritten).await?);
            }
            Err(error) => {
                tracing::warn!(%error, "blocks could not be written anew; they stay");
                if error.kind == ErrorKind::TooFewDomains {
                    break;
                }
            }
        }
    }
    drop((nominated, roots));
    let rewritten = blocks.iter().copied().collect();
    sweep::sweep(shared, Duration::ZERO, Some(&rewritten), &Allowance::free()).await.map(|_| ())
}

/// What a provider lists, sorted by what the map says; `None` if it does not answer. Orphans that are certainly dead are deleted.
pub(crate) async fn listed(shared: &Arc<Shared>, provider: &ProviderId) -> Result<Option<Listing>, Error> {
    orphans::listing(shared, provider).await
}

/// Nominates what nobody keeps. Whoever keeps a block relies on its chunks, and a second upload of the same bytes may have made another
/// block the one they are read from, which nobody keeps by name.
fn nominate(marking: &Marking, view: &Snapshot, blocks: impl Iterator<Item = BlockId>) -> Result<Nominated, Error> {
    let mut relied_on = BTreeSet::new();
    for block in marking.kept().unwrap_or_default() {
        relied_on.append(&mut heirs::read_from(view, block)?);
    }
    Ok(marking.nominate(blocks.filter(|block| !relied_on.contains(block))))
}

/// Writes the record. The nominations live until it is applied, whatever becomes of whoever asked for it.
async fn condemn(shared: &Arc<Shared>, nominated: Nominated, reason: CondemnReason) -> Result<u64, Error> {
    let blocks = nominated.blocks().to_vec();
    let count = blocks.len() as u64;
    if count == 0 {
        return Ok(0);
    }
    let request = CommitRequest::single(NewRecord::system(BlocksCondemned { blocks, reason }), nominated);
    shared.committer.submit(request, Instant::now() + RECORD_DEADLINE).await?;
    Ok(count)
}

/// What marking leads to.
#[derive(Debug, Default)]
struct Choice {
    dead: BTreeMap<CondemnReason, Vec<BlockId>>,
    sparse: Vec<BlockId>,
    report: Collected,
}

impl Choice {
    /// Leaves out all others. The report counts them still.
    fn retain(&mut self, goes: &BTreeSet<BlockId>) {
        let chosen = self.dead.values_mut().chain([&mut self.sparse]);
        chosen.for_each(|blocks| blocks.retain(|block| goes.contains(block)));
    }

    fn of(shared: &Shared, view: &Snapshot, marks: &Marks, bounds: Bounds) -> Result<Self, Error> {
        let mut choice = Self::default();
        choice.report.unreadable_buckets = marks.unreadable.len() as u64;
        let log = LogNeeds::of_collection(shared)?;
        let prices: Vec<&Price> = shared.fleet.providers().iter().map(|spec| &spec.price).collect();
        let price = choose::mean(&prices);
        let providers = prices.len() as u64;
        let (mut candidates, mut stays, mut objects) = (Vec::new(), (0_u64, 0_u64), 0_u64);
        let mut after = None;
        loop {
            let batch = view.blocks(after, PAGE).map_err(local)?;
            let Some(last) = batch.last() else { break };
            after = Some(last.facts.id);
            for entry in batch {
                let id = entry.facts.id;
                let busy = !entry.settled || !shared.settlement.is_calm(id);
                objects += entry.facts.placements.len() as u64;
                if view.condemned(id).map_err(local)?.is_some() {
                    choice.report.cost.add(&going(providers).priced(&price));
                    continue;
                }
                if busy {
                    continue;
                }
                let Some(reason) = log.reason(&entry) else { continue };
                let block = measured(&entry, marks);
                choice.report.blocks += 1;
                choice.report.held_bytes += block.held;
                choice.report.live_bytes += block.live;
                if block.live == 0 {
                    choice.report.dead_blocks += 1;
                    choice.report.cost.add(&going(providers).priced(&price));
                    choice.dead.entry(reason).or_default().push(id);
                    continue;
                }
                stays.0 += block.held;
                stays.1 += block.held - block.live;
                if block.live < block.held {
                    candidates.push(block);
                }
            }
        }
        for block in choose::sparse(candidates, stays, bounds, &price) {
            choice.report.sparse_blocks += 1;
            choice.report.cost.add(&block.cost_of_emptying(&price));
            choice.report.cost.add(&going(providers).priced(&price));
            choice.sparse.push(block.id);
        }
        let listings = providers * inventory::requests(objects.div_ceil(providers.max(1)));
        choice.report.cost.add(&choose::Cost { writes: listings, ..Cost::default() }.priced(&price));
        Ok(choice)
    }
}

/// Deleting a block everywhere, and looking.
fn going(providers: u64) -> choose::Cost {
    Cost { reads: providers, deletes: providers, ..Cost::default() }
}

fn measured(entry: &BlockEntry, marks: &Marks) -> Block {
    let facts = &entry.facts;
    // Of a commit block the records go as well.
    let held = match facts.kind {
        BlockKind::Bulk => facts.sections.iter().map(|section| u64::from(section.plain_len)).sum(),
        _ => u64::from(facts.payload_len),
    };
    let live = marks.live_bytes(facts.id).min(held);
    Block { id: facts.id, held, live, stored: sweep::stored_bytes(entry), k: facts.geometry.k(), n: facts.geometry.n() }
}

/// What the log itself needs, beside all blobs: commit blocks that a start or a recovery would replay, and the compacted logs that it keeps.
pub(crate) struct LogNeeds(checkpoint::Needed);

impl LogNeeds {
    /// As a collection sees it: every decision stays. They are small, and as long as they are there a log whose commit blocks are full of small
    /// blobs can be followed from its beginning.
    fn of_collection(shared: &Shared) -> Result<Self, Error> {
        checkpoint::needed(shared).map(Self)
    }

    /// The least, when an account is left and there is no other place: of the decisions that compacted logs stand for, the newest says in
    /// which incarnation the older of them stands, and no walk back from the present goes further.
    pub(crate) fn at_least(shared: &Shared) -> Result<Self, Error> {
        let mut needed = checkpoint::needed(shared)?;
        if let Some(newest) = needed.decisions.range(..=needed.floor).next_back().copied() {
            needed.decisions = needed.decisions.split_off(&newest);
        }
        Ok(Self(needed))
    }

    /// Why a block may go once nothing alive is in it; `None` if the log needs it.
    pub(crate) fn reason(&self, entry: &BlockEntry) -> Option<CondemnReason> {
        match entry.facts.kind {
            BlockKind::Bulk => Some(CondemnReason::Dead),
            // A decision says who rules, and a start without a compacted log looks for it, also where it was carried over.
            BlockKind::Commit | BlockKind::Decision if self.0.decisions.contains(&entry.seq) => None,
            BlockKind::Commit | BlockKind::Decision => (entry.seq <= self.0.floor).then_some(CondemnReason::Covered),
            BlockKind::Compacted => (!self.0.blocks.contains(&entry.facts.id)).then_some(CondemnReason::Outdated),
        }
    }
}
