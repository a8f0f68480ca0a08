//! Settling and repair: every shard of every named block durable, and durable still. What scattering leaves, what scrubs and readers miss
//! is found or made anew here, from one queue, the most endangered block first.

mod heal;
mod open;
mod rate;
mod source;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use diaspore_block::id::Seq;
use diaspore_block::record::{Move, ShardsMoved};
use diaspore_ledger::LedgerError;
use diaspore_policy::ProviderId;
use diaspore_provider::HealthState;
use tokio::time::Instant;

use crate::api::{Error, ErrorKind};
use crate::commit::{CommitRequest, NewRecord};
use crate::config::Fatal;
use crate::modes;
use crate::namespace::local;
use crate::scatter::placements_of;
use crate::scrub::Seen;
use crate::shared::Shared;
use crate::world::cpu;

use open::Beyond;
pub(crate) use open::{Claim, Open, Settlement, Suspect};
use rate::Rate;

/// Pause between looks at what is due, when nothing happens.
const TICK: Duration = Duration::from_millis(500);
/// How often a full disk is looked at.
const ROOM: Duration = Duration::from_secs(1);
/// First and longest pause after a failed repair of a block.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Blocks repaired at once.
const WORKERS: usize = 3;
/// An upload that broke off leaves a block that nobody names; its entry is forgotten after this long.
const ORPHAN: Duration = Duration::from_mins(15);
/// Moved shards that one record names.
const MAX_MOVES: usize = 1000;

/// What waiting for settlement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct SettleReport {
    /// Blocks that still lack shards.
    pub unsettled_blocks: u64,
    /// Their sealed payload bytes.
    pub unsettled_bytes: u64,
    /// How long it was waited, in milliseconds.
    pub waited_ms: u64,
}

/// Waits until nothing is unsettled, at most for `limit`.
pub(crate) async fn wait(shared: &Arc<Shared>, limit: Duration) -> Result<SettleReport, Error> {
    shared.check_readable()?;
    let started = Instant::now();
    shared.settlement.hurry();
    let done = shared.settlement.wait_all(limit).await;
    let backlog = shared.settlement.backlog();
    if !done {
        shared.settlement.explain();
    }
    tracing::info!(done, blocks = backlog.blocks, "waited for settlement");
    Ok(SettleReport {
        unsettled_blocks: backlog.blocks,
        unsettled_bytes: backlog.bytes,
        waited_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Registers what the ledger knows to be unsettled, the oldest first and as much as there is room for: called when the log is decided, and
/// again whenever half of that has settled.
pub(crate) fn adopt(shared: &Shared) -> Result<(), LedgerError> {
    cpu(|| adopt_oldest(shared))
}

fn adopt_oldest(shared: &Shared) -> Result<(), LedgerError> {
    let most = shared.config.limits.open_blocks;
    let view = shared.ledger.snapshot()?;
    let unsettled = view.unsettled(most)?;
    let beyond = match unsettled.last() {
        Some(last) if unsettled.len() >= most => {
            let (totals, bytes) = (view.totals()?, unsettled.iter().map(|entry| u64::from(entry.facts.payload_len)).sum());
            Some(Beyond {
                first: last.seq,
                blocks: totals.unsettled_blocks.saturating_sub(unsettled.len() as u64),
                bytes: totals.unsettled_bytes.saturating_sub(bytes),
            })
        }
        _ => None,
    };
    let mut opened = Vec::new();
    for entry in unsettled {
        if shared.settlement.get(entry.facts.id).is_none() {
            opened.push(entry.facts.id);
            shared.settlement.open(Open::known(entry.facts, entry.seq, entry.time));
        }
    }
    // What was condemned meanwhile was let go of before it stood here.
    let now = shared.ledger.snapshot()?;
    opened.retain(|block| !matches!(now.condemned(*block), Ok(None)));
    shared.settlement.forget(&opened);
    shared.settlement.set_beyond(beyond);
    shared.settlement.released(view.applied_seq()?);
    Ok(())
}

/// Puts a block of the ledger on k + 1 domains if it is not known to be there: a recovery that could not decide may have applied
/// the end of the log from k shards, and what is built on must not hang on one of them (PROTOCOL rule 10).
pub(crate) async fn raise(shared: &Arc<Shared>, seq: Seq) -> Result<(), Error> {
    let entry = shared.ledger.snapshot().and_then(|view| view.commit_block(seq)).map_err(local)?;
    let Some(block) = entry.map(|entry| Open::known(entry.facts, seq, entry.time)).filter(|block| !block.has_quorum()) else {
        return Ok(());
    };
    let (id, needed) = (block.facts.id, u32::from(block.facts.geometry.k()) + 1);
    shared.settlement.open(block.clone());
    let healed = Box::pin(heal::heal(shared, &block, &mut 0)).await;
    if shared.settlement.get(id).is_none_or(|block| block.has_quorum()) {
        return Ok(());
    }
    let why = healed.err().unwrap_or_else(|| "too few took a shard".to_owned());
    Err(Error::new(
        ErrorKind::TooFewDomains,
        format!(
            "sequence {seq} must lie on k + 1 = {needed} failure domains before anything is built on it: {why}; bring more providers back"
        ),
    ))
}

/// The background task: notes what settled, repairs what is due, keeps the view flushed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    let mut changes = shared.settlement.subscribe();
    let mut repairs = futures::stream::FuturesUnordered::new();
    let mut rate = Rate::new(shared.config.profile.upkeep.repair_bytes_per_s, Instant::now());
    let mut modes_at = Instant::now();
    loop {
        if modes_at <= Instant::now() {
            modes::refresh(&shared);
            modes_at = Instant::now() + TICK;
        }
        take_suspects(&shared);
        take_strayed(&shared);
        let noted = if shared.ledger.is_full() { Ok(()) } else { note_settled(&shared) };
        let noted = noted.and_then(|()| if shared.settlement.has_room(shared.config.limits.open_blocks) { adopt(&shared) } else { Ok(()) });
        if let Err(error) = noted {
            shared.stop(Fatal::Ledger(error.to_string()));
            return;
        }
        shared.settlement.forget_orphans(ORPHAN);
        let down = down(&shared);
        while repairs.len() < WORKERS
            && let Some(open) =
                shared.settlement.next_due(Instant::now(), |provider| down.contains(provider), rate.has_room(Instant::now()))
        {
            repairs.push(repair(&shared, open));
        }
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            Some(moved) = futures::StreamExt::next(&mut repairs), if !repairs.is_empty() => rate.spend(moved),
            () = changes.changed() => {}
            () = tokio::time::sleep(rate.wait().map_or(TICK, |wait| wait.min(TICK))) => {}
        }
    }
}

/// Providers that do not answer at present.
fn down(shared: &Shared) -> BTreeSet<ProviderId> {
    let ids = shared.fleet.providers().iter().map(|spec| spec.id.clone());
    ids.filter(|id| shared.fleet.health(id).is_none_or(|health| health.state == HealthState::Down)).collect()
}

/// Looks up what readers missed and registers it.
fn take_suspects(shared: &Shared) {
    let suspects = shared.settlement.take_suspects();
    if suspects.is_empty() {
        return;
    }
    let Ok(view) = shared.ledger.snapshot() else { return };
    for Suspect { block, shard, provider, seen } in suspects {
        if let (Ok(true), Ok(Some(entry))) = (view.keeps(block), view.block(block)) {
            shared.settlement.file(&entry, &[(shard, provider, seen)]);
        }
    }
}

/// Takes up blocks that were named when the register had forgotten them: whoever waits for their sequence waits for them.
fn take_strayed(shared: &Shared) {
    let strayed = shared.settlement.take_strayed();
    if strayed.is_empty() {
        return;
    }
    let Ok(view) = shared.ledger.snapshot() else { return };
    for block in strayed {
        match view.block(block) {
            Ok(Some(entry)) if !entry.settled && view.keeps(block).unwrap_or(true) => {
                shared.settlement.open(Open::known(entry.facts, entry.seq, entry.time));
            }
            _ => shared.settlement.forget(&[block]),
        }
    }
}

/// The background task that makes the ledger's view durable every few seconds, so that a start replays little, and notices when a full
/// disk has room again.
pub(crate) async fn keep_flushed(shared: Arc<Shared>) {
    let mut full = false;
    while shared.rest(if full { ROOM } else { shared.config.flush_every }).await {
        match cpu(|| shared.ledger.find_room().and_then(|found| if found { shared.ledger.flush_view() } else { Err(LedgerError::Full) })) {
            Ok(()) if full => tracing::info!("the disk has room again: changes are taken"),
            Ok(()) => (),
            Err(LedgerError::Full) if full => (),
            Err(LedgerError::Full) => tracing::error!("the disk is full: changes are refused until there is room, reads go on"),
            Err(error) => {
                shared.stop(Fatal::JournalSync(error.to_string()));
                return;
            }
        }
        full = shared.ledger.is_full();
    }
}

/// Tells the ledger where the shards of blocks that became complete are: of those that were settled before in the log, as the map of the
/// next recovery has to know it; a first settlement follows from the acknowledgements, which names alone find again.
fn note_settled(shared: &Arc<Shared>) -> Result<(), LedgerError> {
    let (mut moves, mut repaired) = (Vec::new(), 0);
    for open in shared.settlement.take_settled() {
        if open.repair {
            repaired += 1;
            let known = |shard: u8, home: &ProviderId| {
                let there = |place: &&diaspore_block::record::Placement| place.shard == shard && place.acked;
                open.facts.placements.iter().find(there).is_some_and(|place| place.provider == home.as_str())
            };
            let moved = open.stored.iter().filter(|(shard, home)| !known(**shard, home));
            moves.extend(moved.map(|(shard, home)| Move { block: open.facts.id, shard: *shard, provider: home.to_string() }));
            continue;
        }
        let stored: Vec<(u8, String)> = open.stored.iter().map(|(shard, home)| (*shard, home.to_string())).collect();
        match cpu(|| shared.ledger.update_placement(open.facts.id, placements_of(&stored, &[]))) {
            // It stays unsettled until there is room to say so.
            Err(LedgerError::Full) => shared.settlement.open(open),
            noted => noted?,
        }
    }
    if !moves.is_empty() {
        let task = Arc::clone(shared);
        shared.spawn(async move {
            report_moves(&task, moves).await;
            task.settlement.told(repaired);
        });
    } else if repaired > 0 {
        shared.settlement.told(repaired);
    }
    Ok(())
}

/// Puts moves into the log. What does not get there is missed at its old place by the next scrub and found at its new one.
async fn report_moves(shared: &Arc<Shared>, moves: Vec<Move>) {
    for moves in moves.chunks(MAX_MOVES) {
        let request = CommitRequest::single(NewRecord::system(ShardsMoved { moves: moves.to_vec() }), ());
        if let Err(error) = shared.committer.submit(request, shared.answer_by()).await {
            tracing::warn!(%error, moves = moves.len(), "repaired shards lie elsewhere than the log knows");
        }
    }
}

/// Whether the map says something else by now than when the block was filed: what was collected needs no shards, and what was moved is filed
/// anew with its present places.
fn is_outdated(shared: &Shared, open: &Open) -> bool {
    let Ok(view) = shared.ledger.snapshot() else { return false };
    let block = open.facts.id;
    let (Ok(keeps), Ok(entry)) = (view.keeps(block), view.block(block)) else { return false };
    match entry.filter(|_| keeps) {
        None => shared.settlement.forget(&[block]),
        Some(entry) if entry.facts.placements == open.facts.placements => return false,
        Some(entry) => {
            shared.settlement.forget(&[block]);
            let still = |(shard, (provider, seen)): (&u8, &(ProviderId, Seen))| (*shard, provider.clone(), *seen);
            let damage: Vec<_> = open.damage.iter().map(still).collect();
            shared.settlement.file(&entry, &damage);
        }
    }
    true
}

/// One try at one block. Gives the bytes that it moved.
async fn repair(shared: &Arc<Shared>, open: Open) -> u64 {
    let block = open.facts.id;
    if open.repair && is_outdated(shared, &open) {
        return 0;
    }
    let failures = open.failures;
    let mut moved = 0;
    let pause = match Box::pin(heal::heal(shared, &open, &mut moved)).await {
        Ok(()) => None,
        Err(why) => {
            tracing::debug!(%why, "a block stays unsettled for now");
            Some(PAUSES.0.saturating_mul(1 << failures.min(6)).min(PAUSES.1))
        }
    };
    shared.settlement.idle(block, pause.map(|pause| Instant::now() + pause), pause.is_some());
    moved
}

#[cfg(test)]
mod tests;
