//! Which blocks lack shards: those that are not settled yet, and those that were and lost some since.
//!
//! Every shard of a settled block is durable, and a sequence is settled when its commit block and every bulk block it names are
//! (PROTOCOL rule 3). It stays so: that a shard was lost later is no step back of the log, so nobody waits for a repair by sequence.
//! Both kinds wait in one register, the most endangered first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diaspore_block::id::{BlockId, Seq, Timestamp};
use diaspore_ledger::{BlockEntry, BlockFacts};
use diaspore_policy::ProviderId;
use tokio::time::Instant;

use crate::bell::{Bell, Listener};
use crate::scrub::Seen;

/// Blocks that may wait for repair at once; what is found beyond that is found again.
const MAX_REPAIRS: usize = 20_000;
/// Vain tries after which a repair is not expected to succeed soon: who failed it is passed over in the next one.
const SEVERAL: u32 = 3;
/// Longest time for which a block keeps away from a provider that took a rebuilt shard and did not show it.
const LONGEST_AVOIDED: Duration = Duration::from_hours(24);
/// Shards reported by readers that may wait for a look at the ledger.
const MAX_SUSPECTS: usize = 4096;

/// A block some of whose shards may be missing.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) facts: Arc<BlockFacts>,
    /// The sequence whose settlement waits for it; none while no commit block names it.
    pub(crate) seq: Option<Seq>,
    /// Whether that sequence was released and applied.
    pub(crate) applied: bool,
    /// Shards known durable, with their provider.
    pub(crate) stored: BTreeMap<u8, ProviderId>,
    /// Providers tried for a shard without a definite answer.
    pub(crate) tried: Vec<(u8, ProviderId)>,
    /// First PUT.
    pub(crate) since: Timestamp,
    /// When it was registered.
    begun: Instant,
    /// A task works on it.
    pub(crate) busy: bool,
    /// Not to be touched before.
    pub(crate) not_before: Option<Instant>,
    /// Failed repairs in a row.
    pub(crate) failures: u32,
    /// It was settled once and lost shards since.
    pub(crate) repair: bool,
    /// What was seen instead of the lost shards, where the record says that they lie.
    pub(crate) damage: BTreeMap<u8, (ProviderId, Seen)>,
    /// Providers that acknowledged a rebuilt shard and then did not show it.
    avoid: BTreeMap<ProviderId, Avoided>,
    journal: InJournal,
}

/// Whether the journal still has the block as it was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InJournal {
    Perhaps,
    No,
}

/// A provider that a block keeps away from. Not for good: where there is no other, the block would stay as it is.
#[derive(Debug, Clone, Copy)]
struct Avoided {
    until: Instant,
    times: u32,
}

impl Open {
    /// A block whose first PUT is about to leave.
    pub(crate) fn new(facts: Arc<BlockFacts>, seq: Option<Seq>, since: Timestamp) -> Self {
        Self {
            facts,
            seq,
            applied: false,
            stored: BTreeMap::new(),
            tried: Vec::new(),
            since,
            begun: Instant::now(),
            busy: true,
            not_before: None,
            failures: 0,
            repair: false,
            damage: BTreeMap::new(),
            avoid: BTreeMap::new(),
            journal: InJournal::Perhaps,
        }
    }

    /// A block of the ledger, with what its record says about its shards.
    pub(crate) fn known(facts: BlockFacts, seq: Seq, since: Timestamp) -> Self {
        let mut open = Self { applied: true, busy: false, ..Self::new(Arc::new(facts), Some(seq), since) };
        for placement in &open.facts.placements {
            let Ok(provider) = ProviderId::new(&placement.provider) else { continue };
            if placement.acked {
                open.stored.insert(placement.shard, provider);
            } else {
                open.tried.push((placement.shard, provider));
            }
        }
        open
    }

    /// Whether it lies on k + 1 domains: every shard has one of its own.
    pub(crate) fn has_quorum(&self) -> bool {
        self.stored.len() > usize::from(self.facts.geometry.k())
    }

    /// Whether this provider is passed over for now.
    pub(crate) fn avoids(&self, provider: &ProviderId, now: Instant) -> bool {
        self.avoid.get(provider).is_some_and(|avoided| avoided.until > now)
    }

    /// Whether the journal was asked for it and has it no more.
    pub(crate) fn is_unheld(&self) -> bool {
        self.journal == InJournal::No
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.stored.len() == usize::from(self.facts.geometry.n())
    }

    /// Further losses it survives when those who are silent count as gone; `None` if nothing can be done for it at present.
    fn losses(&self, silent: &impl Fn(&ProviderId) -> bool) -> Option<usize> {
        let there = self.stored.values().filter(|provider| !silent(provider)).count();
        there.checked_sub(usize::from(self.facts.geometry.k()))
    }

    /// How much later than others it is to be repaired with `gone` more shards lost: further losses that it survives, and those last that are
    /// lost already.
    fn repair_rank(&self, gone: usize) -> usize {
        self.stored.len().saturating_sub(gone).checked_sub(usize::from(self.facts.geometry.k())).unwrap_or(usize::MAX)
    }

    /// Bytes that its repair reads and writes.
    pub(crate) fn repair_bytes(&self) -> u64 {
        let shards = usize::from(self.facts.geometry.k()) + usize::from(self.facts.geometry.n()).saturating_sub(self.stored.len());
        u64::from(self.facts.shard_len) * shards as u64
    }
}

/// A shard that somebody missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub(crate) block: BlockId,
    pub(crate) shard: u8,
    pub(crate) provider: ProviderId,
    pub(crate) seen: Seen,
}

/// What waits for repair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Repairs {
    pub(crate) blocks: u64,
    /// Of these: tried several times since they were found, in vain so far.
    pub(crate) failed: u64,
    pub(crate) bytes: u64,
}

/// What the ledger knows to be unsettled and the register has no room for yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beyond {
    /// All of it belongs to this sequence or later ones.
    pub(crate) first: Seq,
    pub(crate) blocks: u64,
    /// Sealed payload bytes.
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<BlockId, Open>,
    /// Unsettled blocks by the sequence that waits for them.
    waiting: BTreeMap<Seq, BTreeSet<BlockId>>,
    released: Seq,
    beyond: Option<Beyond>,
    suspects: BTreeMap<(BlockId, u8), Suspect>,
    /// Named by a commit block when they were in here no longer: taken up again from the ledger once that block is applied.
    strayed: BTreeMap<BlockId, Seq>,
    /// Repaired blocks of which the map does not say yet where their shards are.
    untold: u64,
    /// Blocks with a shard that is being moved.
    moving: Arc<Mutex<BTreeSet<BlockId>>>,
}

impl State {
    fn moving(&self) -> MutexGuard<'_, BTreeSet<BlockId>> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps repair, and whoever else moves shards, away from a block until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    moving: Arc<Mutex<BTreeSet<BlockId>>>,
    block: BlockId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.block);
    }
}

/// What remains to be settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) blocks: u64,
    /// Sealed payload bytes.
    pub(crate) bytes: u64,
    pub(crate) oldest: Option<Timestamp>,
}

/// The register of unsettled blocks.
#[derive(Debug, Default)]
pub(crate) struct Settlement {
    state: Mutex<State>,
    changed: Bell,
}

impl Settlement {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        self.changed.ring();
    }

    /// Registers a block whose first PUT is about to leave, or one that the ledger does not call settled. No sequence waits for one that has
    /// all its shards: only the ledger is still to be told.
    pub(crate) fn open(&self, open: Open) {
        let mut state = self.state();
        if let Some(seq) = open.seq.filter(|_| !open.is_complete()) {
            state.waiting.entry(seq).or_default().insert(open.facts.id);
        }
        state.open.insert(open.facts.id, open);
        drop(state);
        self.announce();
    }

    /// Claims a block that nobody works on and that lacks nothing.
    pub(crate) fn claim(&self, block: BlockId) -> Option<Claim> {
        let state = self.state();
        let free = !state.open.contains_key(&block) && state.moving().insert(block);
        free.then(|| Claim { moving: Arc::clone(&state.moving), block })
    }

    /// Whether a block lacks nothing that is known of, and none of its shards is being moved.
    pub(crate) fn is_calm(&self, block: BlockId) -> bool {
        let state = self.state();
        !state.open.contains_key(&block) && !state.moving().contains(&block)
    }

    /// Whether somebody is putting shards of a block.
    pub(crate) fn is_worked_on(&self, block: BlockId) -> bool {
        let state = self.state();
        state.open.get(&block).is_some_and(|open| open.busy) || state.moving().contains(&block)
    }

    /// Blocks on their way into the log, a shard of which was put or tried at a provider.
    pub(crate) fn underway_at(&self, provider: &ProviderId) -> u64 {
        let there = |open: &&Open| {
            !open.applied && (open.stored.values().any(|home| home == provider) || open.tried.iter().any(|(_, home)| home == provider))
        };
        self.state().open.values().filter(there).count() as u64
    }

    /// Notes that a provider was tried for a shard.
    pub(crate) fn tried(&self, block: BlockId, shard: u8, provider: &ProviderId) {
        if let Some(open) = self.state().open.get_mut(&block)
            && !open.tried.iter().any(|(_, known)| known == provider)
        {
            open.tried.push((shard, provider.clone()));
        }
    }

    /// Notes a durable shard.
    pub(crate) fn stored(&self, block: BlockId, shard: u8, provider: &ProviderId) {
        let mut state = self.state();
        let Some(open) = state.open.get_mut(&block) else { return };
        open.stored.entry(shard).or_insert_with(|| provider.clone());
        if open.is_complete() {
            settle_seq(&mut state, block);
        }
        drop(state);
        self.announce();
    }

    /// Notes that readers met no shard, or a wrong one, where the map says that one lies. Never waits: beyond its bound it forgets.
    pub(crate) fn suspect(&self, suspect: Suspect) {
        let mut state = self.state();
        let full = state.suspects.len() >= MAX_SUSPECTS;
        let key = (suspect.block, suspect.shard);
        if !full || state.suspects.contains_key(&key) {
            state.suspects.insert(key, suspect);
        }
        drop(state);
        self.announce();
    }

    /// Takes out what readers reported.
    pub(crate) fn take_suspects(&self) -> Vec<Suspect> {
        std::mem::take(&mut self.state().suspects).into_values().collect()
    }

    /// Registers shards of a block that are not where its record says. False when too many blocks wait already, none of them in vain and less
    /// endangered.
    pub(crate) fn file(&self, entry: &BlockEntry, lost: &[(u8, ProviderId, Seen)]) -> bool {
        self.file_within(MAX_REPAIRS, entry, lost)
    }

    pub(super) fn file_within(&self, most: usize, entry: &BlockEntry, lost: &[(u8, ProviderId, Seen)]) -> bool {
        let mut state = self.state();
        let repairs = state.open.values().filter(|open| open.repair).count();
        let id = entry.facts.id;
        if !state.open.contains_key(&id) {
            let mut open = Open::known(entry.facts.clone(), entry.seq, entry.time);
            let spared = lost.iter().filter(|(shard, provider, _)| open.stored.get(shard) == Some(provider)).count();
            if repairs >= most && !state.makes_room_for(open.repair_rank(spared)) {
                return false;
            }
            open.repair = entry.settled;
            if !open.repair {
                state.waiting.entry(entry.seq).or_default().insert(id);
            }
            state.open.insert(id, open);
        }
        let Some(open) = state.open.get_mut(&id) else { return false };
        for (shard, provider, seen) in lost {
            if open.stored.get(shard) == Some(provider) {
                open.stored.remove(shard);
                open.damage.insert(*shard, (provider.clone(), *seen));
            }
        }
        if open.repair && open.is_complete() && !open.busy {
            // It lies elsewhere by now.
            state.open.remove(&id);
        }
        drop(state);
        self.announce();
        true
    }

    /// A shard that was counted on is not there.
    pub(crate) fn lost(&self, block: BlockId, shard: u8, provider: &ProviderId, seen: Seen) {
        if let Some(open) = self.state().open.get_mut(&block)
            && open.stored.get(&shard) == Some(provider)
        {
            open.stored.remove(&shard);
            open.damage.insert(shard, (provider.clone(), seen));
        }
    }

    /// A provider acknowledged a rebuilt shard of the block and does not show it: another one for `span`, and twice as long every time.
    pub(crate) fn avoid(&self, block: BlockId, provider: &ProviderId, span: Duration) {
        if let Some(open) = self.state().open.get_mut(&block) {
            let avoided = open.avoid.entry(provider.clone()).or_insert(Avoided { until: Instant::now(), times: 0 });
            avoided.until = Instant::now() + span.saturating_mul(1 << avoided.times.min(16)).min(LONGEST_AVOIDED);
            avoided.times = avoided.times.saturating_add(1);
        }
    }

    /// The journal does not have it: no need to ask again.
    pub(crate) fn unheld(&self, block: BlockId) {
        if let Some(open) = self.state().open.get_mut(&block) {
            open.journal = InJournal::No;
        }
    }

    /// Lets go of blocks that need not be kept any more.
    pub(crate) fn forget(&self, blocks: &[BlockId]) {
        let mut state = self.state();
        for block in blocks {
            state.open.remove(block);
            settle_seq(&mut state, *block);
        }
        drop(state);
        self.announce();
    }

    /// What waits for repair.
    pub(crate) fn repairs(&self) -> Repairs {
        let state = self.state();
        // A scrub that began before the map knows better would miss the shard at its old place.
        let mut repairs = Repairs { blocks: state.untold, ..Repairs::default() };
        for open in state.open.values().filter(|open| open.repair) {
            repairs.blocks += 1;
            repairs.failed += u64::from(open.failures >= SEVERAL && !open.busy);
            repairs.bytes = repairs.bytes.saturating_add(open.repair_bytes());
        }
        repairs
    }

    /// A commit block of sequence `seq`, about to be issued, names these blocks.
    pub(crate) fn name_in(&self, blocks: &[BlockId], seq: Seq) {
        let mut state = self.state();
        for block in blocks {
            let Some(open) = state.open.get_mut(block) else {
                // Settled long ago, or forgotten because its upload took so long: the ledger will tell.
                state.waiting.entry(seq).or_default().insert(*block);
                state.strayed.insert(*block, seq);
                continue;
            };
            // The first sequence that brings a block is the one whose application makes it known; later ones only wait for it.
            open.seq.get_or_insert(seq);
            if !open.is_complete() {
                state.waiting.entry(seq).or_default().insert(*block);
            }
        }
    }

    /// The task that wrote the block has ended; the settler may touch it from `not_before` on.
    pub(crate) fn idle(&self, block: BlockId, not_before: Option<Instant>, failed: bool) {
        if let Some(open) = self.state().open.get_mut(&block) {
            open.busy = false;
            open.not_before = not_before;
            open.failures = if failed { open.failures.saturating_add(1) } else { 0 };
        }
        self.announce();
    }

    /// The sequence was released and its records are in the ledger.
    pub(crate) fn released(&self, seq: Seq) {
        let mut state = self.state();
        state.released = state.released.max(seq);
        for open in state.open.values_mut().filter(|open| open.seq == Some(seq)) {
            open.applied = true;
        }
        drop(state);
        self.announce();
    }

    /// Takes out complete blocks whose records the ledger knows, for it to note where the shards are. Repaired ones count as waiting until
    /// [`Self::told`].
    pub(crate) fn take_settled(&self) -> Vec<Open> {
        let mut state = self.state();
        let done: Vec<BlockId> =
            state.open.iter().filter(|(_, open)| open.is_complete() && open.applied).map(|(block, _)| *block).collect();
        let taken: Vec<Open> = done.iter().filter_map(|block| state.open.remove(block)).collect();
        state.untold += taken.iter().filter(|open| open.repair).count() as u64;
        drop(state);
        if !taken.is_empty() {
            self.announce();
        }
        taken
    }

    /// The map says where the shards of so many repaired blocks are, or never will.
    pub(crate) fn told(&self, repaired: u64) {
        let mut state = self.state();
        state.untold = state.untold.saturating_sub(repaired);
        drop(state);
        self.announce();
    }

    /// Forgets blocks that no commit block named for so long: uploads that broke off. What is named later all the same is taken up again.
    pub(crate) fn forget_orphans(&self, age: Duration) {
        self.state().open.retain(|_, open| open.seq.is_some() || open.busy || open.begun.elapsed() < age);
    }

    /// Takes out blocks that were named without being in here, as far as the ledger knows them by now.
    pub(crate) fn take_strayed(&self) -> Vec<BlockId> {
        let mut state = self.state();
        let released = state.released;
        let known = state.strayed.extract_if(.., |_, seq| *seq <= released);
        known.map(|(block, _)| block).collect()
    }

    /// Marks busy and hands out one block that lacks shards and may be worked on now: the one that survives the fewest further losses
    /// first, shards at `silent` providers counted as gone, and those last of which too few are left. Without `room` only what cannot wait:
    /// blocks that never were whole, and those that survive none; but nothing that has failed several times, since every try reads k shards.
    pub(crate) fn next_due(&self, now: Instant, silent: impl Fn(&ProviderId) -> bool, room: bool) -> Option<Open> {
        let mut state = self.state();
        let due =
            |open: &Open| open.applied && !open.busy && !open.is_complete() && open.not_before.is_none_or(|not_before| not_before <= now);
        let moving = state.moving();
        let (losses, block) = state
            .open
            .values()
            .filter(|open| due(open) && !moving.contains(&open.facts.id))
            .map(|open| (open.losses(&silent), open))
            .filter(|(losses, open)| room || ((!open.repair || *losses == Some(0)) && open.failures < SEVERAL))
            .min_by_key(|(losses, open)| (losses.is_none(), *losses, open.seq, open.facts.id))
            .map(|(losses, open)| (losses, open.facts.id))?;
        drop(moving);
        let open = state.open.get_mut(&block)?;
        open.busy = true;
        tracing::trace!(?losses, "a block is repaired");
        Some(open.clone())
    }

    /// Notes what of the ledger's is not in here.
    pub(crate) fn set_beyond(&self, beyond: Option<Beyond>) {
        self.state().beyond = beyond;
        self.announce();
    }

    /// Whether there is more to be had from the ledger, and room for at least half as many as may be open.
    pub(crate) fn has_room(&self, most: usize) -> bool {
        let state = self.state();
        state.beyond.is_some() && state.open.values().filter(|open| !open.repair).count() < most / 2
    }

    /// The last sequence up to which everything is settled, of the released ones.
    pub(crate) fn settled_through(&self) -> Seq {
        let state = self.state();
        state.first_unsettled().map_or(state.released, |first| state.released.min(Seq(first.0.saturating_sub(1))))
    }

    /// Shards that a block is believed to have; `None` if nothing is known to be wrong with it.
    pub(crate) fn stored_of(&self, block: BlockId) -> Option<usize> {
        self.state().open.get(&block).map(|open| open.stored.len())
    }

    /// The entry of a block that is not settled.
    pub(crate) fn get(&self, block: BlockId) -> Option<Open> {
        self.state().open.get(&block).cloned()
    }

    /// Makes everything that waits after a failure due at once.
    pub(crate) fn hurry(&self) {
        for open in self.state().open.values_mut() {
            open.not_before = None;
        }
        self.announce();
    }

    pub(crate) fn backlog(&self) -> Backlog {
        let state = self.state();
        let (blocks, bytes) = state.beyond.map_or((0, 0), |beyond| (beyond.blocks, beyond.bytes));
        let mut backlog = Backlog { blocks, bytes, oldest: None };
        for open in state.open.values().filter(|open| open.seq.is_some() && !open.repair && !open.is_complete()) {
            backlog.blocks += 1;
            backlog.bytes = backlog.bytes.saturating_add(u64::from(open.facts.payload_len));
            backlog.oldest = Some(backlog.oldest.map_or(open.since, |oldest| oldest.min(open.since)));
        }
        backlog
    }

    /// Says in the log what is still open, for whoever waits in vain.
    pub(crate) fn explain(&self) {
        let state = self.state();
        for open in state.open.values().filter(|open| open.seq.is_some() && !open.is_complete()).take(20) {
            let (stored, applied, busy, failures) = (open.stored.len(), open.applied, open.busy, open.failures);
            tracing::info!(block = %open.facts.id, seq = ?open.seq, stored, applied, busy, failures, "not settled");
        }
    }

    /// Waits until every block that `seq` waits for is settled.
    pub(crate) async fn wait(&self, seq: Seq) {
        self.wait_until(|state| !state.waiting.contains_key(&seq)).await;
    }

    /// Waits until everything up to `seq` is settled.
    pub(crate) async fn wait_through(&self, seq: Seq) {
        self.wait_until(|state| state.first_unsettled().is_none_or(|first| first > seq)).await;
    }

    /// Waits until nothing is unsettled, at most for `limit`. True when nothing is.
    pub(crate) async fn wait_all(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.wait_until(|state| state.first_unsettled().is_none())).await.is_ok()
    }

    async fn wait_until(&self, done: impl Fn(&State) -> bool) {
        let mut changes = self.changed.listen();
        loop {
            if done(&self.state()) {
                return;
            }
            changes.changed().await;
        }
    }

    /// Resolves at the next change.
    pub(crate) fn subscribe(&self) -> Listener {
        self.changed.listen()
    }
}

impl State {
    /// Lets go of the repair that was tried in vain and can wait longest, if it can wait longer than `rank`: it is found again.
    fn makes_room_for(&mut self, rank: usize) -> bool {
        let in_vain = self.open.values().filter(|open| open.repair && !open.busy && open.failures >= SEVERAL);
        let last = in_vain.map(|open| (open.repair_rank(0), open.facts.id)).max();
        last.filter(|(last, _)| *last > rank).and_then(|(_, block)| self.open.remove(&block)).is_some()
    }

    fn first_unsettled(&self) -> Option<Seq> {
        self.waiting.keys().next().copied().into_iter().chain(self.beyond.map(|beyond| beyond.first)).min()
    }
}

fn settle_seq(state: &mut State, block: BlockId) {
    state.waiting.retain(|_, blocks| {
        blocks.remove(&block);
        !blocks.is_empty()
    });
}
