//! Start = reconcile (PROTOCOL rules 5 to 11): claim; wait out leases; list claims again; find the end of the log; carry the
//! tail over; decide; only then serve.

pub(crate) mod base;
mod chain;
mod copies;
mod decide;
pub(crate) mod loss;
pub(crate) mod position;
pub(crate) mod remains;
mod tail;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use diaspore_block::claim::Claim;
use diaspore_block::id::{Epoch, IncarnationId, Seq};
use diaspore_ledger::{ChainEntry, IncarnationNote, JournalEntry, LedgerError, Snapshot};
use diaspore_policy::{FailureDomain, claim_quorum};

use crate::api::{Error, ErrorKind};
use crate::claim::lease::Leases;
use crate::claim::{self, ClaimBook, Rank};
use crate::commit::Committer;
use crate::config::Mode;
use crate::fence::Fence;
use crate::layout::{self, Layout};
use crate::namespace::local;
use crate::settle;
use crate::shared::{Ground, Shared, Stage, StageCell, Writer};
use crate::world::cpu;
use chain::{Chain, Local, refused};
use position::Evidence;
use tail::End;

/// How far above every claim that is seen the claim of an accepting start stands.
const ACCEPTED_STEP: u64 = 1 << 32;

/// Why an engine that was started to read serves nothing: what is here would look like a small deployment.
const HALF: &str = "an installation of the log broke off, and half of it is here: start for writing, or run `storage distributed recover`";
const LOOKS: &str = "it was started read-only";

/// The engine, in whatever stage the evidence allows.
pub(crate) async fn start(ground: Ground) -> Result<Arc<Shared>, Error> {
    crate::modes::refresh(&ground);
    if ground.config.mode == Mode::ReadOnly {
        let half = ground.ledger.snapshot().and_then(|view| view.is_incomplete()).map_err(local)?;
        return Ok(idle(ground, if half { Stage::Undetermined(HALF.to_owned()) } else { Stage::ReadOnly(LOOKS.to_owned()) }));
    }
    let evidence = evidence(&ground)?;
    match claim_log(&ground, &evidence).await? {
        Ok(claimed) => run(ground, claimed, evidence).await,
        Err(why) => Ok(idle(ground, Stage::Undetermined(why))),
    }
}

/// An engine without a writer.
fn idle(ground: Ground, stage: Stage) -> Arc<Shared> {
    let writer = Writer { incarnation: IncarnationId::NIL, epoch: Epoch(0) };
    assemble(ground, (writer, None), Fence::none(), stage)
}

/// An engine that reads what its ledger knows, and whose ledger nobody claims anything for.
pub(crate) fn reader(ground: Ground, why: &str) -> Arc<Shared> {
    idle(ground, Stage::ReadOnly(why.to_owned()))
}

fn assemble(ground: Ground, writer: (Writer, Option<Layout>), fence: Fence, stage: Stage) -> Arc<Shared> {
    let stage = StageCell::new(stage);
    let limits = ground.config.limits;
    let committer = Committer::new(limits.queue_bytes, limits.commit_bytes, stage.clone());
    Arc::new(Shared::new(ground, writer, fence, committer, stage))
}

/// What the claim phase gave.
struct Claimed {
    rank: Rank,
    layout: Layout,
    acknowledged: BTreeSet<FailureDomain>,
    quorum: usize,
    book: ClaimBook,
    permitted: Permitted,
}

/// Whose log may be taken up.
///
/// An empty disk in front of a log is new, lost or not mounted, and only the operator knows which. So a plain start without a single block
/// on its disk goes on with what this disk began itself and with nothing else, however often it is tried.
#[derive(Debug)]
enum Permitted {
    Any,
    /// What these incarnations of this disk began.
    Own(BTreeSet<IncarnationId>),
}

impl Permitted {
    fn of(ground: &Ground, view: &Snapshot, evidence: &Evidence, notes: &[IncarnationNote]) -> Result<Self, LedgerError> {
        // An install that broke off had its permission, or a ledger to begin with.
        let blank = ground.config.mode == Mode::Start && view.applied_seq()? == Seq(0) && !view.is_incomplete()?;
        Ok(if blank && evidence.held.is_empty() && evidence.released.is_empty() {
            Self::Own(notes.iter().map(|note| note.incarnation).collect())
        } else {
            Self::Any
        })
    }

    /// Refuses what somebody else began.
    fn check(&self, found: impl IntoIterator<Item = IncarnationId>) -> Result<(), Error> {
        match self {
            Self::Own(own) if found.into_iter().any(|incarnation| !own.contains(&incarnation)) => Err(refused(
                "the local ledger is empty but the providers hold a log: run `storage distributed recover` to rebuild it, or restore the service's disk"
                    .to_owned(),
            )),
            Self::Any | Self::Own(_) => Ok(()),
        }
    }
}

/// Claims the log: write-once object on every provider, q acknowledgements, leases waited out, claims listed again.
async fn claim_log(ground: &Ground, evidence: &Evidence) -> Result<Result<Claimed, String>, Error> {
    let view = ground.ledger.snapshot().map_err(local)?;
    let book = ClaimBook::default();
    let notes = view.incarnations().map_err(local)?;
    for note in &notes {
        book.learn((note.epoch, note.incarnation));
    }
    for entry in view.chain().map_err(local)? {
        if let Some((incarnation, epoch)) = entry.predecessor {
            book.learn((epoch, incarnation));
        }
    }
    let applied = view.applied_seq().map_err(local)?;
    let permitted = Permitted::of(ground, &view, evidence, &notes).map_err(local)?;
    // Domains declared lost are no part of the provider set any more.
    let quorum = claim_quorum(ground.fleet.domains().difference(&evidence.lost).count());
    let before = book.survey(ground, None).await;
    ground.unjudged.check()?;
    if before.answered.len() < quorum {
        return Ok(Err(before.too_few("listed their claims", quorum)));
    }
    // Before anything is written here or there: a claim stops whoever serves this log at present, and nothing may come of a refused start.
    permitted.check(before.ranks.iter().map(|(_, incarnation)| *incarnation))?;
    if applied > Seq(0) && before.ranks.is_empty() {
        return Err(refused(format!(
            "the ledger ends at sequence {applied}, and no provider holds a claim of this deployment: wrong accounts, or the providers were rolled back"
        )));
    }
    // Who lists may refuse every write; this process may know that already, or learn it from the claim itself.
    let mut answering: BTreeSet<FailureDomain> = before.answered.difference(&layout::read_only(ground)).cloned().collect();
    let mut again = false;
    let (claim, layout, acknowledged) = loop {
        let (claim, layout) = draft_claim(ground, &book, &answering, quorum)?;
        let acknowledged = claim::place(ground, &claim).await;
        if acknowledged.len() < quorum {
            return Ok(Err(claim::too_few("took the claim", acknowledged.len(), quorum)));
        }
        // A layout that those who took it do not serve would never decide: once more, for them alone. Who flaps gets no third claim; the
        // next start looks again.
        let narrower = Layout::choose(ground, &acknowledged, quorum)?;
        let served = layout.is_served_by(&acknowledged) || !narrower.is_served_by(&acknowledged);
        if again || served || acknowledged.is_superset(&answering) {
            break (claim, layout, acknowledged);
        }
        book.keep(claim);
        (answering, again) = (acknowledged, true);
    };
    let mut leases = Leases::from_now(claim.rank(), newest_decided(&view.chain().map_err(local)?, &book));
    loop {
        leases.wait(ground, &book).await;
        let after = book.survey(ground, Some(&acknowledged)).await;
        ground.unjudged.check()?;
        if let Some(higher) = after.ranks.iter().filter(|rank| **rank > claim.rank()).max() {
            return Err(refused(format!(
                "another writer is starting at the same time (epoch {}, incarnation {}): it wins; make sure that only one service uses these providers",
                higher.0, higher.1
            )));
        }
        if after.answered.len() < quorum {
            return Ok(Err(after.too_few("listed their claims again", quorum)));
        }
        // Whoever claimed below us while we claimed may hold a lease as well.
        if !leases.is_due(&book) {
            break;
        }
    }
    let rank = claim.rank();
    book.keep(claim);
    Ok(Ok(Claimed { rank, layout, acknowledged, quorum, book, permitted }))
}

/// The claim of a new incarnation and the layout that it names, noted on the disk.
fn draft_claim(ground: &Ground, book: &ClaimBook, answering: &BTreeSet<FailureDomain>, quorum: usize) -> Result<(Claim, Layout), Error> {
    let layout = Layout::choose(ground, answering, quorum)?;
    if !layout.full {
        let (k, n) = (layout.geometry.k(), layout.geometry.n());
        tracing::warn!(k, n, "too few domains answer for the full layout: commit blocks are written narrower");
    }
    let epoch = book.ranks().last().map_or(Epoch(1), |(epoch, _)| epoch.next());
    // Whoever gives up what is hidden must stand above whatever claims are hidden with it.
    let epoch = if ground.config.accept_loss.is_some() { Epoch(epoch.0.saturating_add(ACCEPTED_STEP)) } else { epoch };
    let incarnation = IncarnationId::draw(&mut ground.rng());
    let profile = &ground.config.profile;
    let claim = Claim {
        deployment: ground.deployment(),
        epoch,
        incarnation,
        started: ground.clock.now(),
        lease_ms: u64::from(profile.lease_ms),
        claim_quorum: u8::try_from(quorum).unwrap_or(u8::MAX),
        claims_seen: book.newest(),
        providers: members(ground, &layout),
        geometry: layout.geometry,
        k_floor: layout.geometry.k(),
        window: u32::from(profile.window),
    };
    let note = IncarnationNote { incarnation, epoch, started: claim.started, k_floor: claim.k_floor };
    cpu(|| ground.ledger.append(JournalEntry::Chain(note)).and_then(|()| ground.ledger.sync())).map_err(local)?;
    Ok((claim, layout))
}

/// The providers that may hold commit blocks of this incarnation: all of them, unless it steps down.
fn members(ground: &Ground, layout: &Layout) -> Vec<String> {
    let specs = ground.fleet.providers().iter().filter(|spec| layout.members.contains(&spec.domain));
    specs.map(|spec| spec.id.to_string()).collect()
}

/// The newest incarnation whose decision this disk knows.
fn newest_decided(chain: &[ChainEntry], book: &ClaimBook) -> Option<Rank> {
    let newest = chain.iter().max_by_key(|entry| entry.seq)?;
    book.ranks().into_iter().find(|(_, incarnation)| *incarnation == newest.incarnation)
}

/// Finds the end, decides, and sets the engine going.
async fn run(ground: Ground, claimed: Claimed, evidence: Evidence) -> Result<Arc<Shared>, Error> {
    let (chain, end, have) = match Box::pin(whole_log(&ground, &claimed, &evidence)).await {
        Ok(Ok(_)) if ground.config.accept_loss.is_some() => {
            return Err(refused(
                "nothing is missing of the log any more, so nothing was given up: run recover without --accept-loss".to_owned(),
            ));
        }
        Ok(Ok(found)) => found,
        Ok(Err(why)) => return Ok(idle(ground, Stage::Undetermined(why))),
        Err(error) if loss::is_missing(&error) && matches!(ground.config.mode, Mode::Recover { .. }) => {
            let (chain, end) = loss::resolve(&ground, &claimed, &evidence, error).await?;
            (chain, end, local_end(&ground)?)
        }
        Err(error) => return Err(error),
    };
    check_forks(&ground, &evidence, &chain, &end)?;
    ground.unjudged.check()?;
    if let Err(few) = claimed.layout.check(&ground) {
        return too_few_to_decide(ground, &end, &few);
    }
    let writer = Writer { incarnation: claimed.rank.1, epoch: claimed.rank.0 };
    let lease = Duration::from_millis(u64::from(ground.config.profile.lease_ms));
    let fence = Fence::new(claimed.rank, claimed.acknowledged, claimed.quorum, lease, claimed.book);
    let shared = assemble(ground, (writer, Some(claimed.layout)), fence, Stage::Starting);
    let window = shared.config.profile.window;
    let raised = raise(&shared, have, u64::from(window)).await;
    let decided = match raised {
        Ok(()) => Box::pin(decide::decide(&shared, &evidence, &chain, end)).await,
        Err(error) => Err(error),
    };
    let tip = match decided {
        Ok(tip) => tip,
        Err(error) => {
            shared.close();
            return Err(error);
        }
    };
    settle::adopt(&shared).map_err(local)?;
    decide::serve(&shared, tip)?;
    Ok(shared)
}

/// From the newest compacted log, or from what the disk has, to the end; with where the ledger stood before anything was replayed.
async fn whole_log(ground: &Ground, claimed: &Claimed, evidence: &Evidence) -> chain::Outcome<(Chain, End, Option<Local>)> {
    let witnesses = match Box::pin(base::catch_up(ground, claimed, evidence)).await? {
        Ok(witnesses) => witnesses,
        Err(why) => return Ok(Err(why)),
    };
    let have = local_end(ground)?;
    let chain = match witnesses.weigh(chain::find(ground, &claimed.book, evidence, claimed.rank, have).await)? {
        Ok(chain) => chain,
        Err(why) => return Ok(Err(why)),
    };
    claimed.permitted.check(chain.ruling.map(|(_, incarnation)| incarnation))?;
    let witnessed = witnesses.highest(&chain, &ground.ledger.snapshot().and_then(|view| view.chain()).map_err(local)?);
    let from = (have.map_or(Seq(0), |local| local.seq), witnessed);
    let end = witnesses.weigh(tail::read(ground, &claimed.book, evidence, &chain, from).await)?;
    Ok(end.map(|end| (chain, end, have)))
}

/// The last blocks that the disk had applied when the process started must have their quorum, whoever applied them.
async fn raise(shared: &Arc<Shared>, have: Option<Local>, window: u64) -> Result<(), Error> {
    let Some(last) = have.map(|local| local.seq.0) else { return Ok(()) };
    for seq in last.saturating_sub(window)..=last {
        settle::raise(shared, Seq(seq)).await?;
    }
    Ok(())
}

/// With fewer than k + 1 domains nothing can be decided. A recovery still gives what can be read: the operator asked for it, and
/// what it shows is readable from k domains now.
fn too_few_to_decide(ground: Ground, end: &End, few: &Error) -> Result<Arc<Shared>, Error> {
    if ground.config.mode == Mode::Start {
        return Ok(idle(ground, Stage::Undetermined(few.message.clone())));
    }
    for found in &end.pending {
        tail::apply(&ground, found)?;
    }
    cpu(|| ground.ledger.flush_view()).map_err(local)?;
    // With a decision the log would say so; without one nobody else does.
    let named = |seq: &Seq| if *seq == loss::ALL_LATER { "everything later".to_owned() } else { seq.to_string() };
    let lost: Vec<String> = end.may_have_lost.iter().map(named).collect();
    let lost =
        if lost.is_empty() { String::new() } else { format!("; acknowledged writes may have been lost at sequence {}", lost.join(", ")) };
    Ok(idle(ground, Stage::ReadOnly(format!("recovered without a decision: {}{lost}", few.message))))
}

fn local_end(ground: &Ground) -> Result<Option<Local>, Error> {
    let view = ground.ledger.snapshot().map_err(local)?;
    let seq = view.applied_seq().map_err(local)?;
    if seq == Seq(0) {
        return Ok(None);
    }
    let entry = view.commit_block(seq).map_err(local)?;
    let entry = entry.ok_or_else(|| local(LedgerError::Corrupt { what: format!("commit block {seq} has no entry") }))?;
    Ok(Some(Local { seq, incarnation: entry.facts.incarnation, counter: entry.facts.counter }))
}

/// Domains that the operator knows to be gone for good.
fn declared_lost(ground: &Ground) -> Result<BTreeSet<FailureDomain>, Error> {
    let lost: BTreeSet<FailureDomain> = match &ground.config.mode {
        Mode::Recover { declare_lost } => declare_lost.iter().map(|domain| FailureDomain::new(domain)).collect(),
        Mode::Start | Mode::ReadOnly => BTreeSet::new(),
    };
    let known = ground.fleet.domains();
    if let Some(stranger) = lost.iter().find(|domain| !known.contains(*domain)) {
        let names: Vec<&str> = known.iter().map(FailureDomain::as_str).collect();
        return Err(Error::new(ErrorKind::Invalid, format!("no failure domain is called {stranger}; configured are {}", names.join(", "))));
    }
    Ok(lost)
}

/// The journal adds content (PROTOCOL rule 9): of blocks that the ledger has not applied, and a window before them. A journal that could not be
/// cut for weeks holds far more than fits into memory.
fn evidence(ground: &Ground) -> Result<Evidence, Error> {
    let mut evidence = Evidence { lost: declared_lost(ground)?, held: BTreeMap::new(), released: BTreeMap::new() };
    let applied = ground.ledger.snapshot().and_then(|view| view.applied_seq()).map_err(local)?;
    let mut take = |entry| match entry {
        JournalEntry::Block(block) if block.seq.0.saturating_add(chain::LARGEST_WINDOW) > applied.0 => {
            evidence.held.entry((block.incarnation, block.counter)).or_default().push(block);
        }
        JournalEntry::Dropped { incarnation, from } => {
            evidence.held.retain(|(holder, counter), _| *holder != incarnation || *counter < from);
        }
        JournalEntry::Released(note) => {
            let highest = evidence.released.entry(note.incarnation).or_default();
            *highest = note.seq.max(*highest);
        }
        _ => {}
    };
    cpu(|| ground.ledger.scan_hold(&mut take)).map_err(local)?;
    Ok(evidence)
}

/// A released mark beyond the end of its incarnation's log is a fork; an end of the journal below it proves nothing.
fn check_forks(ground: &Ground, evidence: &Evidence, chain: &Chain, end: &End) -> Result<(), Error> {
    let known = ground.ledger.snapshot().and_then(|view| view.chain()).map_err(local)?;
    for (incarnation, released) in &evidence.released {
        let rules = chain.ruling.is_some_and(|ruling| ruling.1 == *incarnation);
        let last = if rules { Some(end.last) } else { chain.end_of(*incarnation, &known) };
        if last.is_none_or(|last| *released > last) {
            return Err(refused(format!(
                "fork: this disk acknowledged sequence {released} of incarnation {incarnation}, which the log does not contain; two machines acknowledged different histories, \
                 or acknowledged data is missing. Keep this disk, bring all providers back, and start again"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
