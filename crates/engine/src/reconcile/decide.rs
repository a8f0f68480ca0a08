//! Carrying the tail over and deciding (PROTOCOL rule 10): each block at quorum under the new incarnation's names, then one
//! decision block, then the fence; nothing is served before.

use std::sync::Arc;
use std::time::Duration;

use diaspore_block::commit::CommitBody;
use diaspore_block::geometry::Geometry;
use diaspore_block::id::{Counter, IncarnationId, Seq};
use diaspore_block::manifest::BlockKind;
use diaspore_block::record::{Decision, MayHaveLost, Private, SchemaMigrated, ServiceStarted};
use diaspore_ledger::{AppliedBlock, JournalEntry};
use tokio::sync::{Semaphore, mpsc};

use super::chain::{Chain, refused};
use super::position::Evidence;
use super::tail::End;
use crate::api::{Error, ErrorKind};
use crate::commit::{Built, Draft, Issuer, NewRecord, Notes, Releaser, Tip, body_of, build};
use crate::config::Fatal;
use crate::layout;
use crate::namespace::local;
use crate::scatter::{self, Purpose};
use crate::settle;
use crate::shared::{Shared, Stage};
use crate::world::cpu;

/// Longest wait for the quorum of one block while starting.
const QUORUM_DEADLINE: Duration = Duration::from_mins(2);

/// Publishes the decision and brings the ledger up to it. Gives the tip behind it.
pub(super) async fn decide(shared: &Arc<Shared>, evidence: &Evidence, chain: &Chain, mut end: End) -> Result<Tip, Error> {
    let geometry = layout::of_commit_blocks(shared)?;
    let weak = first_weak(shared, &mut end).await;
    shared.unjudged.check()?;
    let carried = end.pending.split_off(weak);
    let mut tip = Tip::behind(&shared.ledger.snapshot().map_err(local)?, Counter(0))?;
    for found in &end.pending {
        for leaf in found.body(shared)?.body.leaves() {
            tip.log.append(leaf);
        }
        tip.seq = found.seq().next();
    }
    let mut applied: Vec<AppliedBlock> = end.pending.iter().map(|found| found.applied(shared)).collect::<Result<_, _>>()?;
    let acked = Seq(tip.seq.0.saturating_sub(1));
    let mut names = Vec::new();
    for found in &carried {
        names.push((found.seq(), tip.counter));
        let draft = draft(shared, BlockKind::Commit, found.body(shared)?.body, geometry, acked);
        let built = cpu(|| build(shared, shared.writer, &mut tip, draft))?;
        if tip.log.root() != found.manifest.log.log_root {
            return Err(refused(format!("fork: sequence {} does not continue the log that leads up to it", found.seq())));
        }
        applied.push(publish(shared, built).await?);
    }
    let decision = decision(shared, chain, &end, &tip, names, evidence);
    let lost = end.may_have_lost.clone();
    let mut records = vec![NewRecord::system(decision).about(shared.writer.incarnation)];
    if !lost.is_empty() {
        let reason = end.reason.clone().unwrap_or_else(|| "the operator declared failure domains lost".to_owned());
        records.push(NewRecord::system(MayHaveLost { seqs: lost, reason }));
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let started = ServiceStarted { incarnation: shared.writer.incarnation, version };
    records.push(NewRecord::system(started).about(shared.writer.incarnation));
    records.extend(migrations(shared)?);
    let body = body_of(shared, records, Vec::new())?;
    // What is carried over counts with this block and not before: if it cannot be read, nobody was told that any of it was acknowledged.
    let draft = draft(shared, BlockKind::Decision, body, geometry, acked);
    let built = cpu(|| build(shared, shared.writer, &mut tip, draft))?;
    applied.push(publish(shared, built).await?);
    let held = tokio::time::timeout(QUORUM_DEADLINE, shared.fence.hold(shared)).await;
    let held = held.map_err(|_| {
        Error::new(
            ErrorKind::TooFewDomains,
            "too few failure domains listed their claims in time: bring more providers back and start again",
        )
    })?;
    if let Err(higher) = held {
        shared.stop(Fatal::Superseded(higher.clone()));
        return Err(refused(format!("another writer took over while this one started: {higher}")));
    }
    for block in applied {
        cpu(|| shared.ledger.apply(&block)).map_err(local)?;
        shared.settlement.released(block.seq);
    }
    let ruling = chain.stretches.last().map_or(0, |stretch| stretch.base);
    drop_rest(shared, evidence, chain, carried.first().map_or(end.next_counter, |found| Counter(found.seq().0.saturating_sub(ruling))))?;
    Ok(tip)
}

/// Changes of this disk's schema that the log does not speak of yet.
fn migrations(shared: &Shared) -> Result<Vec<NewRecord>, Error> {
    let known = shared.ledger.snapshot().and_then(|view| view.migrations()).map_err(local)?;
    let unsaid = known.into_iter().filter(|entry| entry.recorded.is_none());
    Ok(unsaid
        .map(|entry| {
            let what = "the view was made anew from the journal; the files as they were are kept beside it".to_owned();
            NewRecord::system(SchemaMigrated { from: entry.from, to: entry.to, what })
        })
        .collect())
}

/// Index of the first block of the tail that is not seen on k + 1 domains, or adrift: it and all behind it are carried over.
async fn first_weak(shared: &Shared, end: &mut End) -> usize {
    for (index, found) in end.pending.iter_mut().enumerate() {
        if end.adrift.is_some_and(|adrift| found.seq() >= adrift) {
            return index;
        }
        found.count_domains(shared).await;
        if found.domains <= usize::from(found.manifest.geometry.k()) {
            return index;
        }
    }
    end.pending.len()
}

fn draft(shared: &Shared, kind: BlockKind, body: CommitBody, geometry: Geometry, acked_through: Seq) -> Draft {
    Draft { kind, body, geometry, acked_through, settled_through: shared.settlement.settled_through() }
}

/// One block at quorum, journal flushed.
async fn publish(shared: &Arc<Shared>, built: Built) -> Result<AppliedBlock, Error> {
    cpu(|| shared.ledger.append(built.journal_entry())).map_err(local)?;
    let mut handle = scatter::spawn(shared, built.coded(), Purpose::Commit(built.seq), None);
    cpu(|| shared.ledger.sync()).map_err(local)?;
    match tokio::time::timeout(QUORUM_DEADLINE, handle.quorum()).await {
        Ok(placements) => Ok(built.into_applied(placements?)),
        Err(_) => Err(Error::new(
            ErrorKind::TooFewDomains,
            format!("sequence {} did not reach k + 1 failure domains in time: bring more providers back and start again", built.seq),
        )),
    }
}

fn decision(shared: &Shared, chain: &Chain, end: &End, tip: &Tip, carried: Vec<(Seq, Counter)>, evidence: &Evidence) -> Private {
    Private::Decision(Decision {
        predecessor: chain.ruling.map(|(epoch, incarnation)| (incarnation, epoch)),
        last_valid: Seq(tip.seq.0.saturating_sub(1)),
        log_size: tip.log.size(),
        log_root: tip.log.root(),
        carried,
        passed_over: chain.passed_over.iter().copied().filter(|other| *other != shared.writer.incarnation).collect(),
        lost_declared: evidence.lost.iter().map(ToString::to_string).collect(),
        may_have_lost: end.may_have_lost.clone(),
    })
}

/// The journal forgets blocks that are no part of the log, or that now stand under our names.
fn drop_rest(shared: &Shared, evidence: &Evidence, chain: &Chain, ruling_from: Counter) -> Result<(), Error> {
    let mut gone: Vec<(IncarnationId, Counter)> = chain.passed_over.iter().map(|incarnation| (*incarnation, Counter(0))).collect();
    gone.extend(chain.ruling.map(|(_, incarnation)| (incarnation, ruling_from)));
    for (incarnation, from) in gone {
        if evidence.held.keys().any(|(holder, counter)| *holder == incarnation && *counter >= from) {
            cpu(|| shared.ledger.append(JournalEntry::Dropped { incarnation, from })).map_err(local)?;
        }
    }
    Ok(())
}

/// Starts the tasks that make an engine.
pub(super) fn serve(shared: &Arc<Shared>, tip: Tip) -> Result<(), Error> {
    let inbox = shared.committer.take_inbox().ok_or_else(|| Error::new(ErrorKind::Internal, "the engine was started twice"))?;
    let window = usize::from(shared.config.profile.window);
    let notes = Arc::new(Notes::starting_at(Seq(tip.seq.0.saturating_sub(1))));
    shared.spawn(crate::claim::prune::run(Arc::clone(shared), Seq(tip.seq.0.saturating_sub(1))));
    let (out, blocks) = mpsc::channel(window);
    let issuer = Issuer { shared: Arc::clone(shared), tip, notes: Arc::clone(&notes), window: Arc::new(Semaphore::new(window)), out };
    let releaser = Releaser { shared: Arc::clone(shared), notes, blocks };
    shared.spawn(issuer.run(inbox));
    shared.spawn(releaser.run());
    shared.spawn(settle::run(Arc::clone(shared)));
    shared.spawn(settle::keep_flushed(Arc::clone(shared)));
    shared.spawn(crate::checkpoint::run(Arc::clone(shared)));
    shared.spawn(crate::prober::run(Arc::clone(shared)));
    shared.spawn(crate::collect::run(Arc::clone(shared)));
    crate::modes::refresh(shared);
    shared.spawn(crate::scrub::run(Arc::clone(shared)));
    shared.stage.set(Stage::Active);
    crate::relocate::resume(shared);
    Ok(())
}

#[cfg(test)]
mod tests;
