//! From the newest incarnation that decided back to what the ledger holds (PROTOCOL rules 7 and 10).

use std::collections::BTreeMap;

use diaspore_block::geometry::Geometry;
use diaspore_block::id::{Counter, Epoch, IncarnationId, Seq};
use diaspore_block::manifest::BlockKind;
use diaspore_block::record::{Decision, Private};
use diaspore_ledger::ChainEntry;
use diaspore_policy::FailureDomain;
use futures::future::join_all;

use super::loss::{ALL_LATER, missing};
use super::position::{Care, Evidence, Found, Subject, Verdict};
use crate::api::{Error, ErrorKind};
use crate::claim::{ClaimBook, Rank};
use crate::layout;
use crate::shared::Ground;

/// The largest window that a profile may ask for.
pub(super) const LARGEST_WINDOW: u64 = 64;

/// Where the ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) seq: Seq,
    pub(super) incarnation: IncarnationId,
    pub(super) counter: Counter,
}

/// A stretch of the log in one incarnation's blocks.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    pub(super) subject: Subject,
    /// First counter the ledger lacks.
    pub(super) from: Counter,
    /// Last sequence that counts; none for the incarnation that rules.
    pub(super) through: Option<Seq>,
    /// Sequence minus counter, the same for all its blocks.
    pub(super) base: u64,
    /// Its blocks below this sequence are copies of what this predecessor wrote.
    pub(super) carried: Option<(Rank, Seq)>,
}

/// The chain as far as it matters.
#[derive(Debug)]
pub(super) struct Chain {
    /// Oldest first; the last one is the ruling incarnation. Empty when nobody ever decided.
    pub(super) stretches: Vec<Stretch>,
    pub(super) ruling: Option<Rank>,
    pub(super) passed_over: Vec<IncarnationId>,
    /// Incarnations and the last of their sequences that counts, newest first.
    pub(super) ends: Vec<(IncarnationId, Seq)>,
    /// The highest sequence that must be there (PROTOCOL rule 8, C19): where the decision of who rules stands, which nobody makes before all
    /// it continues is there; and what blocks of passed-over incarnations say was acknowledged. Too few of their shards are left to read them,
    /// so they seem never to have decided; but they are witnesses.
    pub(super) marks: Seq,
    /// The last sequence behind which an operator gave everything up that earlier incarnations wrote.
    pub(super) given_up_above: Option<Seq>,
}

impl Chain {
    /// The last sequence of an incarnation that counts, if it is followed by another: as the decisions just read say, or those `known` here.
    pub(super) fn end_of(&self, incarnation: IncarnationId, known: &[ChainEntry]) -> Option<Seq> {
        let decided = self.ends.iter().find(|(at, _)| *at == incarnation).map(|(_, last)| *last);
        let of = |entry: &&ChainEntry| entry.predecessor.is_some_and(|(at, _)| at == incarnation);
        decided.or_else(|| known.iter().find(of).map(|entry| entry.last_valid))
    }
}

/// The first blocks of an incarnation that decided.
struct Start {
    /// Sequence of its first block.
    first: Seq,
    decision: Decision,
    /// Decisions of predecessors that it carried over: their own copies need not be readable any more.
    carried: BTreeMap<IncarnationId, Decision>,
}

impl Start {
    fn carried(&self) -> Option<(Rank, Seq)> {
        self.decision.predecessor.map(|(incarnation, epoch)| ((epoch, incarnation), self.decision.last_valid.next()))
    }
}

/// How an incarnation begins.
enum Beginning {
    Decided(Box<Start>),
    /// It never decided; the highest mark in what is left of its blocks.
    PassedOver(Seq),
    Undetermined(String),
}

/// Either the chain, or why it cannot be known now.
pub(super) type Outcome<T> = Result<Result<T, String>, Error>;

/// Reads claims as judgement needs them.
pub(super) async fn subject(ground: &Ground, book: &ClaimBook, rank: Rank) -> Option<Subject> {
    if let Some(claim) = book.fetch(ground, rank).await {
        let named = |name: &String| {
            let spec = ground.fleet.providers().iter().find(|spec| spec.id.as_str() == name);
            spec.map_or_else(|| FailureDomain::new(name), |spec| spec.domain.clone())
        };
        return Some(Subject {
            incarnation: rank.1,
            k_floor: claim.k_floor,
            usual_k: claim.geometry.k(),
            window: u64::from(claim.window),
            homes: Some(claim.providers.iter().map(named).collect()),
        });
    }
    let notes = ground.ledger.snapshot().and_then(|view| view.incarnations()).ok()?;
    let note = notes.into_iter().find(|note| note.incarnation == rank.1)?;
    let window = u64::from(ground.config.profile.window);
    Some(Subject { incarnation: rank.1, k_floor: note.k_floor, usual_k: note.k_floor, window, homes: None })
}

/// The same for an incarnation below a decision, whose claim may have been pruned (PROTOCOL rule 5).
///
/// Such a subject is only replayed up to the end that the decision names: what cannot be read there is missing and never void, whatever
/// its claim said.
pub(super) async fn decided_subject(ground: &Ground, book: &ClaimBook, rank: Rank) -> Subject {
    let known = if book.is_listed(rank) { subject(ground, book, rank).await } else { None };
    known.unwrap_or_else(|| unknown_subject(ground, rank))
}

/// An incarnation of which nothing but its name is known. Its k floor is the smallest of the format and its window the largest, so that nothing
/// follows from silence.
fn unknown_subject(ground: &Ground, rank: Rank) -> Subject {
    let usual_k = layout::full(ground).map_or(1, Geometry::k);
    Subject { incarnation: rank.1, k_floor: 1, usual_k, window: LARGEST_WINDOW, homes: None }
}

/// Finds who rules, and the stretches between the ledger and the present.
pub(super) async fn find(ground: &Ground, book: &ClaimBook, evidence: &Evidence, own: Rank, local: Option<Local>) -> Outcome<Chain> {
    let mut chain =
        Chain { stretches: Vec::new(), ruling: None, passed_over: Vec::new(), ends: Vec::new(), marks: Seq(0), given_up_above: None };
    let mut first_stretch = None;
    for rank in book.ranks().into_iter().rev().filter(|rank| *rank != own) {
        let at_home = local.filter(|local| local.incarnation == rank.1);
        let subject = subject(ground, book, rank).await;
        ground.unjudged.check()?;
        let subject = match subject {
            Some(subject) => subject,
            None if book.is_listed(rank) => return Ok(Err(format!("the claim of incarnation {} cannot be read anywhere", rank.1))),
            // Others name it, and no provider that answers has it: a claim that never counted, as a rule.
            None => unknown_subject(ground, rank),
        };
        if let Some(local) = at_home {
            chain.ruling = Some(rank);
            // In the midst of what it carried over: the decision that says where the one before ended is not in the ledger yet.
            if !knows_decision(ground, rank.1)? {
                match beginning(ground, evidence, &subject).await? {
                    Beginning::Decided(start) => {
                        chain.marks = chain.marks.max(start.decision.last_valid.next());
                        let before = start.decision.predecessor;
                        chain.ends.extend(before.map(|(predecessor, _)| (predecessor, start.decision.last_valid)));
                    }
                    Beginning::PassedOver(_) => (),
                    Beginning::Undetermined(why) => return Ok(Err(why)),
                }
            }
            let base = local.seq.0.saturating_sub(local.counter.0);
            chain.stretches.push(Stretch { subject, from: local.counter.next(), through: None, base, carried: None });
            return Ok(Ok(chain));
        }
        match beginning(ground, evidence, &subject).await? {
            Beginning::Decided(start) => {
                chain.marks = chain.marks.max(start.decision.last_valid.next());
                chain.ruling = Some(rank);
                first_stretch = Some((subject, start));
                break;
            }
            Beginning::PassedOver(marks) => {
                chain.passed_over.push(rank.1);
                chain.marks = chain.marks.max(marks);
            }
            Beginning::Undetermined(why) => return Ok(Err(why)),
        }
    }
    let Some(newest) = first_stretch else {
        return match local {
            Some(local) => Err(refused(format!(
                "the ledger ends at sequence {} of incarnation {}, which no provider knows: wrong accounts, or the providers were rolled back",
                local.seq, local.incarnation
            ))),
            None => Ok(Ok(chain)),
        };
    };
    walk_back(ground, book, evidence, local, chain, newest).await
}

fn knows_decision(ground: &Ground, incarnation: IncarnationId) -> Result<bool, Error> {
    let known = ground.ledger.snapshot().and_then(|view| view.chain()).map_err(crate::namespace::local)?;
    Ok(known.iter().any(|entry| entry.incarnation == incarnation))
}

/// Keeps in mind what a decision says about everything later.
fn note_given_up(chain: &mut Chain, decision: &Decision) {
    if decision.may_have_lost.last() == Some(&ALL_LATER) {
        chain.given_up_above = chain.given_up_above.max(Some(decision.last_valid));
    }
}

fn not_on_chain(local: Local) -> Error {
    refused(format!(
        "fork: what stands at sequence {} of incarnation {} is no part of the log that was decided later; two machines acknowledged different \
         histories, or an operator gave that one up. Keep this disk, and compare before anything else is written",
        local.seq, local.incarnation
    ))
}

async fn walk_back(
    ground: &Ground,
    book: &ClaimBook,
    evidence: &Evidence,
    local: Option<Local>,
    mut chain: Chain,
    newest: (Subject, Box<Start>),
) -> Outcome<Chain> {
    let have = local.map_or(Seq(0), |local| local.seq);
    let (mut subject, start) = newest;
    let mut copies = start.carried();
    let Start { mut first, mut decision, mut carried } = *start;
    let mut through = None;
    // Whose `decision` is.
    let mut writer = chain.ruling;
    loop {
        let from = Counter(have.0.saturating_add(1).saturating_sub(first.0));
        chain.stretches.insert(0, Stretch { subject, from, through, base: first.0, carried: copies });
        // Back to the writer of the block before `first`.
        subject = loop {
            let Some((predecessor, epoch)) = decision.predecessor else {
                note_given_up(&mut chain, &decision);
                if let Some(local) = local {
                    return Err(not_on_chain(local));
                }
                if first.0 > have.0 + 1 {
                    return Err(missing(format!("the log begins at sequence {first}: the beginning is missing")));
                }
                return Ok(Ok(chain));
            };
            chain.ends.push((predecessor, decision.last_valid));
            note_given_up(&mut chain, &decision);
            if let Some(local) = local.filter(|local| local.incarnation == predecessor) {
                return Ok(Ok(join_local(ground, book, chain, local, first, (epoch, decision.last_valid)).await?));
            }
            // Whoever wrote before that ended before it, so this needs none of the older decisions, which may have gone with an account.
            if let Some(local) = local.filter(|local| local.seq > decision.last_valid) {
                return Err(not_on_chain(local));
            }
            let complete = first.0 <= have.0 + 1;
            let last_valid = decision.last_valid;
            // A decision that was carried over need not be readable where it was first written. Its word on where its predecessor
            // ends counts even when the ledger has all blocks before it.
            let start = match carried.remove(&predecessor) {
                Some(earlier) => Start { first: first_of(&earlier), decision: earlier, carried: std::mem::take(&mut carried) },
                // A disk that stands in none of the incarnations on the way stands beside the log: followed to its beginning to be sure.
                None if complete && local.is_none() => return Ok(Ok(chain)),
                None => match Box::pin(beginning_of(ground, book, evidence, (epoch, predecessor))).await? {
                    Beginning::Decided(start) => *start,
                    Beginning::PassedOver(_) => match copied_decision(ground, book, evidence, (writer, &decision), predecessor).await? {
                        Some(earlier) => Start { first: first_of(&earlier), decision: earlier, carried: BTreeMap::new() },
                        None => {
                            return Err(missing(format!(
                                "acknowledged data is missing: incarnation {predecessor} wrote up to sequence {last_valid} and its first blocks are gone"
                            )));
                        }
                    },
                    Beginning::Undetermined(why) => return Ok(Err(why)),
                },
            };
            let (begins, next_copies) = (start.first, start.carried());
            (decision, carried, writer) = (start.decision, start.carried, Some((epoch, predecessor)));
            // Whatever stands at `first` and behind it is there in the successor's blocks.
            if begins < first && !complete {
                let next = decided_subject(ground, book, (epoch, predecessor)).await;
                ground.unjudged.check()?;
                through = Some(Seq(first.0.saturating_sub(1)));
                (first, copies) = (begins, next_copies);
                break next;
            }
        };
    }
}

/// The decision of `predecessor` among what `writer` carried over. Where the writer's own decision was read from a copy, its first blocks
/// were not looked at yet; and what they were made from may be gone, since it is no part of the log any more.
async fn copied_decision(
    ground: &Ground,
    book: &ClaimBook,
    evidence: &Evidence,
    (writer, decision): (Option<Rank>, &Decision),
    predecessor: IncarnationId,
) -> Result<Option<Decision>, Error> {
    let Some(writer) = writer else { return Ok(None) };
    let subject = decided_subject(ground, book, writer).await;
    for (_, counter) in &decision.carried {
        if let Verdict::Readable(found) = evidence.judge(ground, &subject, *counter, Care::Replay).await?
            && let Some((_, earlier)) = decision_in(ground, &found)?.filter(|(whose, _)| *whose == predecessor)
        {
            return Ok(Some(earlier));
        }
    }
    Ok(None)
}

async fn beginning_of(ground: &Ground, book: &ClaimBook, evidence: &Evidence, rank: Rank) -> Result<Beginning, Error> {
    let subject = decided_subject(ground, book, rank).await;
    ground.unjudged.check()?;
    beginning(ground, evidence, &subject).await
}

/// Sequence of the first block of an incarnation: what it carried over, or the decision itself.
fn first_of(decision: &Decision) -> Seq {
    decision.carried.iter().map(|(seq, _)| *seq).min().unwrap_or_else(|| decision.last_valid.next())
}

/// The walk back has reached the incarnation in which the ledger stands; `first` is where its successor's blocks begin.
async fn join_local(
    ground: &Ground,
    book: &ClaimBook,
    mut chain: Chain,
    local: Local,
    first: Seq,
    (epoch, last_valid): (Epoch, Seq),
) -> Result<Chain, Error> {
    if local.seq > last_valid {
        return Err(refused(format!(
            "fork: this disk released up to sequence {}, the log of incarnation {} was decided to end at {last_valid}; \
             two machines acknowledged different histories. Keep this disk, stop both, and compare before anything else is written",
            local.seq, local.incarnation
        )));
    }
    let end = Seq(first.0.saturating_sub(1));
    if local.seq < end {
        let subject = decided_subject(ground, book, (epoch, local.incarnation)).await;
        let base = local.seq.0.saturating_sub(local.counter.0);
        chain.stretches.insert(0, Stretch { subject, from: local.counter.next(), through: Some(end), base, carried: None });
    }
    Ok(chain)
}

/// The decision of `writer` among what the stretch's incarnation carried over.
async fn carried_decision(
    ground: &Ground,
    evidence: &Evidence,
    stretch: &Stretch,
    writer: IncarnationId,
) -> Result<Option<Decision>, Error> {
    let Some((_, below)) = stretch.carried else { return Ok(None) };
    for counter in 0..below.0.saturating_sub(stretch.base) {
        if let Verdict::Readable(found) = evidence.judge(ground, &stretch.subject, Counter(counter), Care::Replay).await?
            && let Some((_, decision)) = decision_in(ground, &found)?.filter(|(whose, _)| *whose == writer)
        {
            return Ok(Some(decision));
        }
    }
    Ok(None)
}

/// The block at `seq` as a predecessor of the stretch wrote it, when the copy that was carried over cannot be read: the record
/// lists are identical.
pub(super) async fn older_copy(
    ground: &Ground,
    book: &ClaimBook,
    evidence: &Evidence,
    stretch: &Stretch,
    seq: Seq,
) -> Result<Option<Found>, Error> {
    let mut carried = stretch.carried;
    while let Some((rank, _)) = carried.filter(|(_, below)| seq < *below) {
        let subject = decided_subject(ground, book, rank).await;
        let start = match beginning(ground, evidence, &subject).await? {
            Beginning::Decided(start) => *start,
            // Its own blocks may be no part of the log any more: the decision is then among what was carried over.
            Beginning::PassedOver(_) | Beginning::Undetermined(_) => match carried_decision(ground, evidence, stretch, rank.1).await? {
                Some(decision) => Start { first: first_of(&decision), decision, carried: BTreeMap::new() },
                None => return Ok(None),
            },
        };
        if let Some(counter) = seq.0.checked_sub(start.first.0)
            && let Verdict::Readable(found) = evidence.judge(ground, &subject, Counter(counter), Care::Tail).await?
        {
            tracing::info!(%seq, "the carried-over copy of a block cannot be read; its first copy stands in");
            return Ok(Some(*found));
        }
        carried = start.carried();
    }
    Ok(None)
}

/// Reads an incarnation's first blocks up to its decision: carried ones, then the decision itself. It exists from the moment its
/// decision is readable, whatever became of the copies before it, of which there are at most a window.
async fn beginning(ground: &Ground, evidence: &Evidence, subject: &Subject) -> Result<Beginning, Error> {
    let mut start = Reading { carried: BTreeMap::new(), gap: None, marks: Seq(0) };
    for counter in (0..=subject.window).map(Counter) {
        let verdict = evidence.judge(ground, subject, counter, Care::Replay).await?;
        let is_readable = matches!(verdict, Verdict::Readable(_));
        if let Some(decided) = start.take(ground, counter, verdict)? {
            return Ok(decided);
        }
        if is_readable {
            continue;
        }
        let rest = (counter.0 + 1..=subject.window).map(Counter);
        let verdicts = rest.map(async |counter| (counter, evidence.judge(ground, subject, counter, Care::Replay).await));
        for (counter, verdict) in join_all(verdicts).await {
            if let Some(decided) = start.take(ground, counter, verdict?)? {
                return Ok(decided);
            }
        }
        break;
    }
    Ok(start.gap.map_or(Beginning::PassedOver(start.marks), Beginning::Undetermined))
}

/// The first blocks of an incarnation as they are read, in order.
struct Reading {
    carried: BTreeMap<IncarnationId, Decision>,
    /// What keeps the absence of a decision from being certain.
    gap: Option<String>,
    /// Highest mark in what is left of its blocks.
    marks: Seq,
}

impl Reading {
    fn take(&mut self, ground: &Ground, counter: Counter, verdict: Verdict) -> Result<Option<Beginning>, Error> {
        match verdict {
            Verdict::Readable(found) if found.manifest.position.kind == BlockKind::Decision => {
                let Some((_, decision)) = decision_in(ground, &found)? else {
                    return Err(refused(format!("decision block {} carries no decision", found.seq())));
                };
                let first = Seq(found.seq().0.saturating_sub(counter.0));
                let carried = std::mem::take(&mut self.carried);
                return Ok(Some(Beginning::Decided(Box::new(Start { first, decision, carried }))));
            }
            Verdict::Readable(found) => {
                // What was written behind a decision that is lost says what was acknowledged on it.
                self.marks = self.marks.max(found.manifest.log.acked_through);
                self.carried.extend(decision_in(ground, &found)?);
            }
            Verdict::Unacknowledged { acked_through, .. } => self.marks = self.marks.max(acked_through),
            Verdict::Undetermined { why, .. } => drop(self.gap.get_or_insert(why)),
        }
        Ok(None)
    }
}

/// The decision among a block's records, and whose it is.
pub(super) fn decision_in(ground: &Ground, found: &Found) -> Result<Option<(IncarnationId, Decision)>, Error> {
    Ok(found.records(ground)?.into_iter().find_map(|record| {
        let writer = IncarnationId::from_bytes(*record.subject().as_bytes());
        match record.into_parts().2 {
            Private::Decision(decision) => Some((writer, decision)),
            _ => None,
        }
    }))
}

pub(super) fn refused(message: String) -> Error {
    Error::new(ErrorKind::RefusedState, message)
}
