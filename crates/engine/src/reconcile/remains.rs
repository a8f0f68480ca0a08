//! What is left of a log that cannot be followed from decision to decision any more.
//!
//! One verified header of any of its blocks tells which sequence an incarnation began with, since the index of a block in its incarnation
//! has no gaps. From there on every position has its writers: the newest incarnation that had begun by then, and below its decision also
//! those before it, of whose blocks it carried copies; those before it everywhere as long as nothing tells that it decided. Whether a block that is found continues the log is not concluded from this: its
//! manifest states the root of the log behind it, and that must be the one that the leaves before it give.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use diaspore_block::id::{Attempt, Counter, IncarnationId, Seq};
use diaspore_block::manifest::{BlockKind, Manifest};
use diaspore_block::record::Decision;
use diaspore_policy::{FailureDomain, ProviderId};
use futures::future::join_all;
use futures::stream::{self, Stream, StreamExt};

use super::chain::{decided_subject, decision_in, subject};
use super::position::{Care, Evidence, Found, Subject, Verdict};
use crate::api::Error;
use crate::claim::{ClaimBook, Rank};
use crate::collect::allowance::Allowance;
use crate::collect::inventory::{self, Index, Listed, short};
use crate::shards::{Depth, Place, survey};
use crate::shared::Ground;
use crate::world::cpu;

/// Counters tried beyond the last one of an incarnation whose name a listing shows.
const BEYOND: u64 = 1 << 12;
/// Blocks of one incarnation that are asked for their header among those listed first, and among the newest.
const GLIMPSES: usize = 64;

/// Names kept of one provider's listing: 64 MB. One that shows more gives no hints, and whoever rescues keeps the memory to do so.
const MOST_NAMES: usize = 4_000_000;
/// Headers asked for at once.
const AT_ONCE: usize = 16;
/// Positions looked at ahead.
const AHEAD: usize = 8;

/// One incarnation that left something.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) rank: Rank,
    pub(crate) subject: Subject,
    /// Sequence of its first block.
    pub(crate) first: Seq,
    /// From here on nothing older is part of the log: the place of its decision, or as far as its copies of older blocks may reach. None
    /// while nothing tells that it ever decided: then what it copied is as good as what was there before, and hides none of it.
    own_from: Option<Seq>,
    /// The decision, if it can be read.
    pub(crate) decision: Option<Decision>,
    /// Sequence of its last block of which anything is visible.
    pub(crate) last: Seq,
}

/// What stands at a position.
#[derive(Debug)]
pub(crate) enum Spot {
    /// A block that can be read, and whose it is.
    Found(Box<Found>, Rank),
    /// Nothing that can be read, and who did not say what they hold of it, of those that may have enough.
    Gap(BTreeSet<FailureDomain>),
}

/// Names of objects that listings show, by their first 8 bytes, with their lengths. A hint about where to look, no more.
#[derive(Debug, Default)]
pub(crate) struct Hints(Vec<(ProviderId, Vec<(u64, u64)>)>);

impl Hints {
    /// Lists every provider that answers.
    pub(crate) async fn gather(ground: &Ground) -> Self {
        Self::gather_up_to(ground, MOST_NAMES).await
    }

    /// The same, of `most` names at each provider.
    pub(super) async fn gather_up_to(ground: &Ground, most: usize) -> Self {
        let asked = ground.fleet.providers().iter().map(async |spec| {
            let (mut names, mut shown) = (Vec::new(), 0);
            let note = |_: &str, size, what| {
                if let Listed::Unexpected(name) = what {
                    shown += 1;
                    if shown <= most {
                        names.push((short(&name), size));
                    } else {
                        names = Vec::new();
                    }
                }
            };
            inventory::list(ground, &spec.id, &Index::none(), &Allowance::free(), note).await.ok()?;
            if shown > most {
                tracing::warn!(provider = %spec.id, shown, "it lists more than anybody wrote: its listing is no help");
                return None;
            }
            names.sort_unstable();
            Some((spec.id.clone(), names))
        });
        Self(join_all(asked).await.into_iter().flatten().collect())
    }

    /// Length of the object of this place at each provider that lists one.
    pub(crate) fn sizes(&self, ground: &Ground, place: Place) -> impl Iterator<Item = u64> {
        self.0.iter().filter_map(move |(provider, names)| {
            let key = short(&ground.names.shard(&place.at(provider.as_str())));
            let at = names.partition_point(|(name, _)| *name < key);
            names.get(at).filter(|(name, _)| *name == key).map(|(_, size)| *size)
        })
    }

    /// Objects that have the shape of our shards, at all providers together.
    pub(crate) fn objects(&self) -> u64 {
        self.0.iter().map(|(_, names)| names.len() as u64).sum()
    }

    /// Counters of an incarnation whose names are listed anywhere, from `from` on until a long stretch shows none.
    pub(crate) fn counters(&self, ground: &Ground, kind: BlockKind, incarnation: IncarnationId, from: u64) -> Vec<u64> {
        if self.0.iter().all(|(_, names)| names.is_empty()) {
            return Vec::new();
        }
        cpu(|| {
            let (mut found, mut counter, mut end) = (Vec::new(), from, from.saturating_add(BEYOND));
            while counter < end {
                let place = Place { kind, incarnation, counter: Counter(counter), attempt: Attempt(0) };
                if self.sizes(ground, place).next().is_some() {
                    found.push(counter);
                    end = counter.saturating_add(BEYOND);
                }
                counter += 1;
            }
            found
        })
    }
}

/// What is left.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// Oldest first.
    pub(crate) writers: Vec<Writer>,
    /// Incarnations with a claim and nothing else that is visible.
    pub(crate) empty: Vec<Rank>,
    /// The highest sequence that any header says was acknowledged.
    pub(crate) marks: Seq,
    /// What later decisions passed over or gave up.
    passed: BTreeSet<IncarnationId>,
}

impl Remains {
    /// Looks at every incarnation that `book` knows and those that decisions lead to, which it knows from then on, except `own`: from
    /// counter 0 and from where `covered` ends in each.
    pub(crate) async fn find(
        ground: &Ground,
        book: &ClaimBook,
        evidence: &Evidence,
        hints: &Hints,
        (own, covered): (Option<Rank>, Seq),
    ) -> Result<Self, Error> {
        let mut remains = Self::default();
        let mut looked: BTreeSet<Rank> = own.into_iter().collect();
        loop {
            let ranks: Vec<Rank> = book.ranks().into_iter().filter(|rank| looked.insert(*rank)).collect();
            if ranks.is_empty() {
                break;
            }
            for rank in ranks {
                let known = subject(ground, book, rank).await;
                let subject = match known {
                    Some(subject) => subject,
                    None => decided_subject(ground, book, rank).await,
                };
                match remains.writer(ground, evidence, hints, (rank, subject), covered).await? {
                    Some(writer) => {
                        // Claims are pruned, and those that stay name a limited number: the decisions lead on to all others.
                        if let Some((incarnation, epoch)) = writer.decision.as_ref().and_then(|decision| decision.predecessor) {
                            book.learn((epoch, incarnation));
                        }
                        remains.writers.push(writer);
                    }
                    None => remains.empty.push(rank),
                }
            }
        }
        remains.writers.sort_unstable_by_key(|writer| writer.rank);
        let Self { writers, passed, .. } = &mut remains;
        // What a later decision passed over never was part of the log, and decides nothing itself.
        for writer in writers.iter().rev() {
            if let Some(decision) = writer.decision.as_ref().filter(|_| !passed.contains(&writer.rank.1)) {
                passed.extend(decision.passed_over.iter().copied());
            }
        }
        writers.retain(|writer| !passed.contains(&writer.rank.1));
        Ok(remains)
    }

    async fn writer(
        &mut self,
        ground: &Ground,
        evidence: &Evidence,
        hints: &Hints,
        (rank, subject): (Rank, Subject),
        covered: Seq,
    ) -> Result<Option<Writer>, Error> {
        let held = evidence.held.keys().filter(|(holder, _)| *holder == rank.1).map(|(_, counter)| counter.0);
        let near: BTreeSet<u64> = (0..=subject.window).chain(held).collect();
        let mut far = hints.counters(ground, BlockKind::Commit, rank.1, 0);
        let mut seen = glimpses(ground, evidence, rank.1, near.iter().copied()).await;
        if seen.is_empty() {
            seen = glimpses(ground, evidence, rank.1, far.iter().copied().take(GLIMPSES)).await;
        }
        let Some(first) = seen.first_key_value().map(|(counter, glimpse)| glimpse.seq.0.saturating_sub(*counter)) else { return Ok(None) };
        if covered.0 > first {
            far.extend(hints.counters(ground, BlockKind::Commit, rank.1, covered.0 - first));
        }
        // The newest headers speak of the most.
        let newest: BTreeSet<u64> = far.into_iter().filter(|counter| !near.contains(counter)).collect();
        seen.extend(glimpses(ground, evidence, rank.1, newest.into_iter().rev().take(GLIMPSES)).await);
        self.marks = seen.values().map(|glimpse| glimpse.acked).fold(self.marks, Ord::max);
        let last = seen.last_key_value().map_or(0, |(counter, _)| *counter);
        let decision = match decided_at(&seen) {
            Some(at) => match evidence.judge(ground, &subject, Counter(at), Care::Replay).await? {
                Verdict::Readable(found) => decision_in(ground, &found)?.map(|(_, decision)| decision),
                Verdict::Unacknowledged { .. } | Verdict::Undetermined { .. } => None,
            },
            None => None,
        };
        let own_from = own_from(&seen, (first, subject.window), decision.is_some());
        Ok(Some(Writer { rank, subject, first: Seq(first), own_from, decision, last: Seq(first + last) }))
    }

    /// The last sequence of which anything is left, or said to have been acknowledged.
    pub(crate) fn last(&self) -> Seq {
        self.writers.iter().map(|writer| writer.last).max().unwrap_or_default().max(self.marks)
    }

    /// Whether a state that `writer` left at `seq` may be part of the log, as far as anything that is left tells.
    pub(crate) fn admits(&self, writer: IncarnationId, seq: Seq) -> bool {
        let ranks = self.writers.iter().map(|known| known.rank).chain(self.empty.iter().copied());
        let rank = ranks.into_iter().find(|rank| rank.1 == writer);
        let contradicts = |other: &&Writer| match rank {
            Some(rank) => other.rank > rank && other.owns(seq),
            // Its claim is gone too.
            None => other.owns(seq) && other.last > seq,
        };
        !self.passed.contains(&writer) && !self.writers.iter().any(|other| contradicts(&other))
    }

    /// Who may have written the block at `seq`, newest first.
    fn candidates(&self, seq: Seq) -> impl Iterator<Item = &Writer> {
        let mut done = false;
        self.writers.iter().rev().filter(move |writer| writer.first <= seq).take_while(move |writer| {
            let take = !done;
            done |= writer.owns(seq);
            take
        })
    }

    /// What stands at each of these positions, in order.
    pub(crate) fn spots(
        &self,
        ground: &Ground,
        evidence: &Evidence,
        seqs: RangeInclusive<u64>,
    ) -> impl Stream<Item = (u64, Result<Spot, Error>)> {
        stream::iter(seqs).map(move |seq| async move { (seq, self.look(ground, evidence, Seq(seq), None).await) }).buffered(AHEAD)
    }

    /// What stands at `seq`, of anybody or of those `below` a rank.
    pub(crate) async fn look(&self, ground: &Ground, evidence: &Evidence, seq: Seq, below: Option<Rank>) -> Result<Spot, Error> {
        let mut waiting = BTreeSet::new();
        for writer in self.candidates(seq).filter(|writer| below.is_none_or(|below| writer.rank < below)) {
            let counter = Counter(seq.0 - writer.first.0);
            match evidence.judge(ground, &writer.subject, counter, Care::Replay).await? {
                Verdict::Readable(found) if found.seq() == seq => return Ok(Spot::Found(found, writer.rank)),
                Verdict::Readable(_) => (),
                Verdict::Unacknowledged { silent, .. } | Verdict::Undetermined { silent, .. } => waiting.extend(silent),
            }
        }
        Ok(Spot::Gap(waiting))
    }
}

impl Writer {
    /// Whether nothing older is part of the log at `seq`.
    fn owns(&self, seq: Seq) -> bool {
        self.own_from.is_some_and(|from| seq >= from)
    }
}

/// What one verified header says of its block.
#[derive(Debug, Clone, Copy)]
struct Glimpse {
    seq: Seq,
    kind: BlockKind,
    /// What it says was acknowledged.
    acked: Seq,
}

impl Glimpse {
    fn of(manifest: &Manifest) -> Self {
        Self { seq: manifest.log.seq, kind: manifest.position.kind, acked: manifest.log.acked_through }
    }
}

/// Those of an incarnation's blocks of which anything can be seen.
async fn glimpses(
    ground: &Ground,
    evidence: &Evidence,
    incarnation: IncarnationId,
    counters: impl Iterator<Item = u64>,
) -> BTreeMap<u64, Glimpse> {
    let asked = counters.map(async |counter| Some((counter, glimpse(ground, evidence, incarnation, Counter(counter)).await?)));
    let asked: Vec<_> = asked.collect();
    stream::iter(asked).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

/// The first verified header of any attempt.
async fn glimpse(ground: &Ground, evidence: &Evidence, incarnation: IncarnationId, counter: Counter) -> Option<Glimpse> {
    if let Some(issued) = evidence.held.get(&(incarnation, counter)).and_then(|held| held.first())
        && let Some(found) = Found::from_journal(ground, issued)
    {
        return Some(Glimpse::of(&found.manifest));
    }
    // Nearly everything stands under the first attempt.
    let (first, others) = Attempt::all().partition::<Vec<_>, _>(|attempt| *attempt == Attempt(0));
    for attempts in [first, others] {
        let surveys = join_all(attempts.into_iter().map(async |attempt| {
            let place = Place { kind: BlockKind::Commit, incarnation, counter, attempt };
            survey(ground, place, Depth::Header, Some(1)).await
        }));
        let seen = surveys.await.into_iter().find_map(|survey| survey.seen.first().map(|seen| Glimpse::of(seen.header.manifest())));
        if seen.is_some() {
            return seen;
        }
    }
    None
}

/// The place of an incarnation's decision, by what is seen of its blocks.
fn decided_at(seen: &BTreeMap<u64, Glimpse>) -> Option<u64> {
    seen.iter().find(|(_, glimpse)| glimpse.kind == BlockKind::Decision).map(|(counter, _)| *counter)
}

/// From where on an incarnation owns the log that began with sequence `first`, if anything tells that it ever decided.
fn own_from(seen: &BTreeMap<u64, Glimpse>, (first, window): (u64, u64), is_decided: bool) -> Option<Seq> {
    // The first block that says that something of this incarnation's own was acknowledged.
    let served = seen.iter().find(|(_, glimpse)| glimpse.acked.0 >= first).map(|(counter, _)| *counter);
    // A window of copies at most comes before a decision, and none of them says that anything was acknowledged that was not before.
    let copies = served.map_or(window, |counter| counter.saturating_sub(1).min(window));
    let has_decided = is_decided || served.is_some() || seen.last_key_value().is_some_and(|(last, _)| *last > window);
    has_decided.then(|| Seq(first + decided_at(seen).unwrap_or(copies)))
}

#[cfg(test)]
mod tests;
