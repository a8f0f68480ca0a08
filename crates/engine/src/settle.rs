//! Settling: every shard of every named block durable. Scattering does most of it; what it leaves is found or made anew here.

mod heal;
mod open;

use std::sync::Arc;
use std::time::Duration;

use diaspore_block::id::{Seq, Timestamp};
use tokio::time::Instant;

use crate::api::{Error, ErrorKind};
use crate::config::Fatal;
use crate::namespace::local;
use crate::scatter::placements_of;
use crate::shared::Shared;
use crate::world::cpu;

pub(crate) use open::{Open, Settlement};

/// Pause between looks at what is due, when nothing happens.
const TICK: Duration = Duration::from_millis(500);
/// How often the ledger's view is made durable.
const FLUSH: Duration = Duration::from_secs(5);
/// First and longest pause after a failed repair of a block.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Blocks repaired at once.
const WORKERS: usize = 3;
/// An upload that broke off leaves a block that nobody names; its entry is forgotten after this long.
const ORPHAN_MS: u64 = 15 * 60 * 1000;
/// Unsettled blocks taken from the ledger at start.
const MAX_OPEN: usize = 100_000;

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

/// Registers what the ledger knows to be unsettled: called once, when the log is decided.
pub(crate) fn adopt(shared: &Shared) -> Result<(), Error> {
    let view = shared.ledger.snapshot().map_err(local)?;
    for entry in view.unsettled(MAX_OPEN).map_err(local)? {
        if shared.settlement.get(entry.facts.id).is_none() {
            shared.settlement.open(Open::known(entry.facts, entry.seq, entry.time));
        }
    }
    shared.settlement.released(view.applied_seq().map_err(local)?);
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
    let healed = Box::pin(heal::heal(shared, &block)).await;
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
    loop {
        if let Err(error) = note_settled(&shared) {
            shared.stop(Fatal::Ledger(error.to_string()));
            return;
        }
        let orphans_before = Timestamp(shared.clock.now().0.saturating_sub(ORPHAN_MS));
        shared.settlement.forget_orphans(orphans_before);
        while repairs.len() < WORKERS
            && let Some(open) = shared.settlement.next_due(Instant::now())
        {
            repairs.push(repair(&shared, open));
        }
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            Some(()) = futures::StreamExt::next(&mut repairs), if !repairs.is_empty() => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// The background task that makes the ledger's view durable every few seconds, so that a start replays little.
pub(crate) async fn keep_flushed(shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    loop {
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(FLUSH) => {}
        }
        match cpu(|| shared.ledger.flush_view()) {
            Ok(()) | Err(diaspore_ledger::LedgerError::Full) => (),
            Err(error) => {
                shared.stop(Fatal::JournalSync(error.to_string()));
                return;
            }
        }
    }
}

/// Tells the ledger where the shards of blocks that became complete are.
fn note_settled(shared: &Shared) -> Result<(), diaspore_ledger::LedgerError> {
    for open in shared.settlement.take_settled() {
        let stored: Vec<(u8, String)> = open.stored.iter().map(|(shard, home)| (*shard, home.to_string())).collect();
        cpu(|| shared.ledger.update_placement(open.facts.id, placements_of(&stored, &[])))?;
    }
    Ok(())
}

async fn repair(shared: &Arc<Shared>, open: Open) {
    let block = open.facts.id;
    let failures = open.failures;
    let pause = match Box::pin(heal::heal(shared, &open)).await {
        Ok(()) => None,
        Err(why) => {
            tracing::debug!(%why, "a block stays unsettled for now");
            Some(PAUSES.0.saturating_mul(1 << failures.min(6)).min(PAUSES.1))
        }
    };
    shared.settlement.idle(block, pause.map(|pause| Instant::now() + pause), pause.is_some());
}
