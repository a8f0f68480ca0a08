//! When acknowledged data is missing for good: what would be lost is listed, and on the operator's word on that very list the log goes on
//! without it.
//!
//! The log is kept up to the last position to which it can be read without a hole. The decision behind it says that everything later, of
//! whoever wrote before it, is given up: providers that come back with more change nothing any more. The word is a token over the list, so
//! that what is accepted is what was seen; who hides something in between gets another list, and a refusal.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::pin::pin;

use diaspore_block::id::{Counter, IncarnationId, Seq};
use diaspore_block::log::LogTree;
use diaspore_block::record::Private;
use diaspore_policy::FailureDomain;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::chain::{Chain, Stretch, decision_in, refused};
use super::position::{Evidence, Found};
use super::remains::{Hints, Remains, Spot};
use super::tail::{End, hold_back};
use super::{Claimed, base, local_end};
use crate::api::{Error, ErrorKind};
use crate::claim::{ClaimBook, Rank};
use crate::commit::Tip;
use crate::config::AcceptLoss;
use crate::losses::UnreadableBlob;
use crate::namespace::local;
use crate::shared::Ground;

/// Blobs listed one by one; the rest is counted.
const LISTED: usize = 1000;
/// Longest account of it in the log, in characters.
const REASON: usize = 4096;
/// Stands for every later sequence in a list of what may be lost.
pub(super) const ALL_LATER: Seq = Seq(u64::MAX);

/// What is lost if the log goes on with what can be read of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Loss {
    /// What the operator repeats to accept exactly this.
    pub token: String,
    /// Last position of the log that is kept.
    pub kept_through: u64,
    /// Entries of the log that are kept.
    pub log_size: u64,
    /// Root of the log over them, hex.
    pub log_root: String,
    /// Last position that anything tells of.
    pub known_through: u64,
    /// Positions behind the end that nothing readable stands at: what was written there is not known. Ranges, both ends included.
    pub unknown: Vec<(u64, u64)>,
    /// Positions behind the end that can still be read: `recover --salvage` copies out what they say, the log does not keep it.
    pub readable: Vec<(u64, u64)>,
    /// Blobs that were put in the readable ones, the first of them.
    pub blobs: Vec<UnreadableBlob>,
    /// How many there are.
    pub blobs_total: u64,
    /// Their bytes.
    pub bytes_total: u64,
    /// Blobs that were deleted in the readable ones: they come back as far as their data is still there.
    pub deletions: u64,
    /// Incarnations of which something is given up.
    pub incarnations: Vec<String>,
    /// Failure domains that were not declared lost and do not answer, or do not say what they hold where something is missing.
    pub silent: Vec<String>,
    /// Failure domains that were declared lost.
    pub declared: Vec<String>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the log can be kept up to position {} of {}, {} blobs of {} bytes behind it are known by name",
            self.kept_through, self.known_through, self.blobs_total, self.bytes_total
        )
    }
}

impl std::error::Error for Loss {}

/// The mark of a refusal because acknowledged data is missing, which is the only kind that an operator's word may overcome.
#[derive(Debug)]
struct Missing;

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing was changed")
    }
}

impl std::error::Error for Missing {}

/// Such a refusal.
pub(super) fn missing(message: String) -> Error {
    Error::caused(ErrorKind::RefusedState, message, Missing)
}

/// Whether an error is one.
pub(super) fn is_missing(error: &Error) -> bool {
    error.source.as_ref().is_some_and(|source| source.is::<Missing>())
}

/// What is to be kept, and how it continues.
struct Plan {
    loss: Loss,
    remains: Remains,
    /// Who rules at the last position that is kept.
    ruling: Option<Rank>,
}

/// Lists what would be lost. With the operator's word on that list: the log up to its end. Otherwise the refusal, with the list.
pub(super) async fn resolve(ground: &Ground, claimed: &Claimed, evidence: &Evidence, refusal: Error) -> Result<(Chain, End), Error> {
    let plan = Box::pin(assess(ground, claimed, evidence)).await?;
    let token = plan.loss.token.clone();
    let Some(word) = &ground.config.accept_loss else {
        return Err(Error::caused(ErrorKind::RefusedState, refusal.message, plan.loss));
    };
    if !plan.loss.silent.is_empty() {
        let message = format!("{} do not answer: bring them back, or declare them lost as well", plan.loss.silent.join(", "));
        return Err(Error::caused(ErrorKind::RefusedState, message, plan.loss));
    }
    if word.token != token {
        let message = format!("what would be lost is not what was accepted: that was {}, this is {token}; nothing was changed", word.token);
        return Err(Error::caused(ErrorKind::RefusedState, message, plan.loss));
    }
    Box::pin(accept(ground, claimed, evidence, plan, word)).await
}

/// Everything that follows from what answers now. The ledger gets the newest compacted log that is part of it, and nothing else.
async fn assess(ground: &Ground, claimed: &Claimed, evidence: &Evidence) -> Result<Plan, Error> {
    let hints = Hints::gather(ground).await;
    let announced = crate::checkpoint::heads::find(ground).await;
    let remains = Remains::find(ground, &claimed.book, evidence, &hints, (Some(claimed.rank), announced.covers())).await?;
    ground.unjudged.check()?;
    let newest = base::install_newest(ground, &announced, |root| remains.admits(root.incarnation, root.covers)).await?;
    if let Some(why) = newest.hidden {
        let message = format!("a compacted log cannot be read now: {why}; bring silent domains back, or declare them lost");
        return Err(Error::new(ErrorKind::DataUnavailable, message));
    }
    let mut walk = Walk::begin(ground, claimed)?;
    walk.through(ground, evidence, &claimed.book, (&remains, newest.marks)).await?;
    let Walk { mut loss, ruling, blobs, tree, mut silent, .. } = walk;
    // Whoever took no claim is silent, and whoever took it and did not say what it holds of what is missing.
    let missing = ground.fleet.domains().into_iter().filter(|domain| !claimed.acknowledged.contains(domain));
    let (declared, unexplained): (Vec<_>, Vec<_>) = missing.partition(|domain| evidence.lost.contains(domain));
    silent.extend(unexplained);
    loss.declared = declared.iter().map(ToString::to_string).collect();
    loss.silent = silent.iter().map(ToString::to_string).collect();
    (loss.log_size, loss.log_root) = (tree.size(), tree.root().to_string());
    let given_up = remains.writers.iter().filter(|writer| writer.last.0 > loss.kept_through);
    loss.incarnations = given_up.map(|writer| writer.rank.1.to_string()).collect();
    loss.token = token(ground, &loss, blobs);
    Ok(Plan { loss, remains, ruling })
}

/// The positions one after the other.
struct Walk {
    loss: Loss,
    tree: LogTree,
    ruling: Option<Rank>,
    /// Whether the end of what is kept was passed.
    ended: bool,
    /// Who did not say what they hold where something is missing.
    silent: BTreeSet<FailureDomain>,
    /// Over all blobs, listed or not.
    blobs: Sha256,
}

impl Walk {
    fn begin(ground: &Ground, claimed: &Claimed) -> Result<Self, Error> {
        let tip = Tip::behind(&ground.ledger.snapshot().map_err(local)?, Counter(0))?;
        let have = local_end(ground)?;
        let ruling = have.map(|have| rank_of(&claimed.book, have.incarnation, have.seq)).transpose()?;
        let loss = Loss { kept_through: tip.seq.0 - 1, ..Loss::default() };
        Ok(Self { loss, tree: tip.log, ruling, ended: false, silent: BTreeSet::new(), blobs: Sha256::new() })
    }

    /// Up to the last position that anything tells of.
    async fn through(
        &mut self,
        ground: &Ground,
        evidence: &Evidence,
        book: &ClaimBook,
        (remains, marks): (&Remains, Seq),
    ) -> Result<(), Error> {
        let kept = self.loss.kept_through;
        self.loss.known_through = remains.last().max(marks).0.max(kept);
        let mut spots = pin!(remains.spots(ground, evidence, kept + 1..=self.loss.known_through));
        while let Some((seq, spot)) = spots.next().await {
            ground.unjudged.check()?;
            let spot = spot?;
            let next = if self.ended { None } else { next(ground, evidence, remains, &self.tree, (Seq(seq), &spot)).await? };
            match (next, spot) {
                (Some(next), _) => self.keep(ground, book, next)?,
                (None, Spot::Found(found, _)) => self.leave(ground, &found)?,
                (None, Spot::Gap(waiting)) => {
                    self.ended = true;
                    self.silent.extend(waiting);
                    note(&mut self.loss.unknown, seq);
                }
            }
        }
        Ok(())
    }

    /// One position more. Who rules is what the log says: the last one that decided in it. Whose copy of it was found tells nothing, as that
    /// one's decision may be lost, or never have been made.
    fn keep(&mut self, ground: &Ground, book: &ClaimBook, next: Next) -> Result<(), Error> {
        let seq = next.found.seq();
        if let Some((decided, _)) = decision_in(ground, &next.found)? {
            self.ruling = Some(rank_of(book, decided, seq)?);
        }
        (self.tree, self.loss.kept_through) = (next.tree, seq.0);
        Ok(())
    }

    /// A position behind the end that can be read.
    fn leave(&mut self, ground: &Ground, found: &Found) -> Result<(), Error> {
        let seq = found.seq().0;
        self.ended = true;
        note(&mut self.loss.readable, seq);
        for record in found.records(ground)? {
            match record.private() {
                Private::BlobPut(put) => {
                    self.blobs.update(put.version.as_bytes());
                    self.loss.blobs_total += 1;
                    self.loss.bytes_total = self.loss.bytes_total.saturating_add(put.size);
                    if self.loss.blobs.len() < LISTED {
                        self.loss.blobs.push(UnreadableBlob {
                            version: put.version.to_string(),
                            bucket: put.bucket.to_string(),
                            tenant: record.tenant().to_string(),
                            size: put.size,
                            seq,
                        });
                    }
                }
                Private::BlobDeleted(deleted) => {
                    self.blobs.update(deleted.version.as_bytes());
                    self.loss.deletions += 1;
                }
                _ => (),
            }
        }
        Ok(())
    }
}

/// A block that continues the log, and the log behind it.
struct Next {
    found: Box<Found>,
    tree: LogTree,
}

/// What continues the log at a position: what was found there, or what an older incarnation left in the same place.
async fn next(
    ground: &Ground,
    evidence: &Evidence,
    remains: &Remains,
    tree: &LogTree,
    (seq, spot): (Seq, &Spot),
) -> Result<Option<Next>, Error> {
    let mut older;
    let mut spot = spot;
    while let Spot::Found(found, writer) = spot {
        if let Some(tree) = continued(ground, tree, found)? {
            return Ok(Some(Next { found: found.clone(), tree }));
        }
        older = remains.look(ground, evidence, seq, Some(*writer)).await?;
        spot = &older;
    }
    Ok(None)
}

/// The log behind this block, if it is the one that the block states.
fn continued(ground: &Ground, tree: &LogTree, found: &Found) -> Result<Option<LogTree>, Error> {
    let mut longer = tree.clone();
    for leaf in found.body(ground)?.body.leaves() {
        longer.append(leaf);
    }
    let stated = (found.manifest.log.log_size, found.manifest.log.log_root);
    Ok(Some(longer).filter(|longer| (longer.size(), longer.root()) == stated))
}

/// The rank of who rules at a position that is kept.
fn rank_of(book: &ClaimBook, ruling: IncarnationId, seq: Seq) -> Result<Rank, Error> {
    let rank = book.ranks().into_iter().find(|(_, incarnation)| *incarnation == ruling);
    rank.ok_or_else(|| refused(format!("what stands at sequence {seq} is of incarnation {ruling}, which no provider knows")))
}

/// Adds a position behind all others to ranges, both ends included.
pub(crate) fn note(ranges: &mut Vec<(u64, u64)>, seq: u64) {
    match ranges.last_mut() {
        Some((_, end)) if *end + 1 == seq => *end = seq,
        _ => ranges.push((seq, seq)),
    }
}

/// Short enough to repeat, and another one for every other list.
fn token(ground: &Ground, loss: &Loss, blobs: Sha256) -> String {
    let mut hash = Sha256::new();
    hash.update(b"diaspore/v1/accepted loss\0");
    hash.update(ground.deployment().as_bytes());
    for number in [loss.kept_through, loss.log_size, loss.known_through, loss.blobs_total, loss.deletions] {
        hash.update(number.to_be_bytes());
    }
    for ranges in [&loss.unknown, &loss.readable] {
        hash.update((ranges.len() as u64).to_be_bytes());
        for (from, to) in ranges {
            hash.update(from.to_be_bytes());
            hash.update(to.to_be_bytes());
        }
    }
    hash.update(&loss.log_root);
    for texts in [&loss.incarnations, &loss.silent, &loss.declared] {
        hash.update((texts.len() as u64).to_be_bytes());
        for text in texts {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
    }
    hash.update(blobs.finalize());
    let digest: [u8; 32] = hash.finalize().into();
    let groups = digest.chunks(2).take(4).map(|pair| pair.iter().fold(0_u16, |value, byte| value << 8 | u16::from(*byte)));
    groups.map(|group| format!("{group:04x}")).collect::<Vec<_>>().join("-")
}

/// Applies what is kept but the last window, which the decision carries over as far as it must.
async fn accept(ground: &Ground, claimed: &Claimed, evidence: &Evidence, plan: Plan, word: &AcceptLoss) -> Result<(Chain, End), Error> {
    let Plan { loss, remains, ruling } = plan;
    let changed =
        || refused("what can be read changed meanwhile; nothing was decided: run recover again, and look at the list again".to_owned());
    let tip = Tip::behind(&ground.ledger.snapshot().map_err(local)?, Counter(0))?;
    let (mut pending, mut tree) = (VecDeque::new(), tip.log);
    let window = u64::from(ground.config.profile.window);
    let mut decided: BTreeSet<IncarnationId> = local_end(ground)?.into_iter().map(|have| have.incarnation).collect();
    let mut spots = pin!(remains.spots(ground, evidence, tip.seq.0..=loss.kept_through));
    while let Some((seq, spot)) = spots.next().await {
        let next = next(ground, evidence, &remains, &tree, (Seq(seq), &spot?)).await?.ok_or_else(changed)?;
        decided.extend(decision_in(ground, &next.found)?.map(|(incarnation, _)| incarnation));
        tree = next.tree;
        hold_back(ground, &mut pending, *next.found, window)?;
    }
    if tree.root().to_string() != loss.log_root {
        return Err(changed());
    }
    tracing::warn!(kept_through = loss.kept_through, known_through = loss.known_through, "the log goes on without what is missing");
    let last = Seq(loss.kept_through);
    let mut stretches = Vec::new();
    let mut next_counter = Counter(0);
    if let Some(writer) = ruling.and_then(|ruling| remains.writers.iter().find(|writer| writer.rank == ruling)) {
        let (subject, base) = (writer.subject.clone(), writer.first.0);
        next_counter = Counter((last.0 + 1).saturating_sub(base));
        stretches.push(Stretch { subject, from: next_counter, through: None, base, carried: None });
    }
    let above = claimed.book.ranks().into_iter().filter(|rank| *rank != claimed.rank && ruling.is_none_or(|ruling| *rank > ruling));
    let chain = Chain {
        stretches,
        ruling,
        passed_over: above.map(|rank| rank.1).collect(),
        ends: ruling.map(|ruling| (ruling.1, last)).into_iter().collect(),
        marks: Seq(0),
        given_up_above: Some(last),
    };
    let pending = Vec::from(pending);
    // Found in copies alone that are no part of the chain of decisions: whoever reads the log later would not look there.
    let adrift = pending.iter().find(|found| !decided.contains(&found.manifest.position.incarnation)).map(Found::seq);
    let (may_have_lost, reason) = (vec![last.next(), ALL_LATER], Some(reason(&loss, word)));
    Ok((chain, End { pending, adrift, may_have_lost, reason, last, next_counter }))
}

/// The account of it that the log keeps.
fn reason(loss: &Loss, word: &AcceptLoss) -> String {
    let ranges = |ranges: &[(u64, u64)]| {
        let texts: Vec<String> =
            ranges.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}..{to}") }).collect();
        if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
    };
    let text = format!(
        "accepted by {} as {}: the log is kept up to sequence {} ({} entries, root {}); known through {}; unknown: {}; readable and not kept: {}, \
         with {} blobs of {} bytes put and {} deleted; incarnations: {}; declared lost: {}",
        word.by,
        loss.token,
        loss.kept_through,
        loss.log_size,
        loss.log_root,
        loss.known_through,
        ranges(&loss.unknown),
        ranges(&loss.readable),
        loss.blobs_total,
        loss.bytes_total,
        loss.deletions,
        loss.incarnations.join(", "),
        loss.declared.join(", ")
    );
    text.chars().take(REASON).collect()
}

#[cfg(test)]
mod tests;
