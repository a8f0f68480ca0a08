//! Reading the log forward to its end, and saying where that is (PROTOCOL rules 7, 8, 9).

use std::collections::VecDeque;

use diaspore_block::id::{Counter, Seq};
use diaspore_ledger::LedgerError;
use futures::stream::{self, StreamExt};

use super::chain::{Chain, Outcome, Stretch, older_copy, refused};
use super::copies;
use super::loss::missing;
use super::position::{Care, Evidence, Found, Verdict};
use crate::api::Error;
use crate::claim::ClaimBook;
use crate::namespace::local;
use crate::shared::Ground;
use crate::world::cpu;

/// Blocks fetched ahead while old stretches are replayed.
const AHEAD: usize = 8;

/// The end of the log.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Blocks of the valid log that the ledger has not applied, oldest first: at most a window of them.
    pub(super) pending: Vec<Found>,
    /// From here on they are carried over whoever holds them: they were read in copies that no decision leads to.
    pub(super) adrift: Option<Seq>,
    /// Sequences void only because domains were declared lost.
    pub(super) may_have_lost: Vec<Seq>,
    /// The account of it for the log, when it was accepted rather than concluded.
    pub(super) reason: Option<String>,
    /// Last valid sequence.
    pub(super) last: Seq,
    /// First counter of the ruling incarnation beyond it.
    pub(super) next_counter: Counter,
}

/// Replays what the ledger lacks and finds the end. Released blocks are applied as they come; the last window waits for the
/// decision. `witnessed` is what heads say was acknowledged: an end below it is refused (C19), and one below what blocks say.
pub(super) async fn read(
    ground: &Ground,
    book: &ClaimBook,
    evidence: &Evidence,
    chain: &Chain,
    (have, witnessed): (Seq, Seq),
) -> Outcome<End> {
    let mut marks = witnessed.max(chain.marks);
    if let Some(oldest) = chain.stretches.first() {
        copies::take(ground, evidence, oldest, have).await?;
    }
    let Some((ruling, older)) = chain.stretches.split_last() else {
        check_marks(marks, have)?;
        return Ok(Ok(End { last: have, ..End::default() }));
    };
    for stretch in older {
        replay_closed(ground, book, evidence, stretch, &mut marks).await?;
    }
    let (mut pending, next) = match replay_open(ground, book, evidence, ruling, &mut marks).await? {
        Ok(read) => read,
        Err(why) => return Ok(Err(why)),
    };
    let mut end = match find_end(ground, evidence, ruling, next, &mut pending, &mut marks).await? {
        Ok(end) => end,
        Err(why) => return Ok(Err(why)),
    };
    end.last = pending.back().map_or_else(|| Seq(applied(ground).map_or(0, |seq| seq.0)).max(have), Found::seq);
    check_marks(marks, end.last)?;
    end.pending = pending.into();
    Ok(Ok(end))
}

/// What blocks and heads witness as acknowledged must be there.
fn check_marks(marks: Seq, last: Seq) -> Result<(), Error> {
    if marks <= last {
        return Ok(());
    }
    Err(missing(format!(
        "acknowledged data is missing: blocks or heads say that everything up to sequence {marks} was acknowledged, but the log can be read only up to {last}; \
         bring more providers back, or restore the service's disk; if domains are lost for good, run recover and declare them lost"
    )))
}

fn applied(ground: &Ground) -> Result<Seq, Error> {
    ground.ledger.snapshot().and_then(|view| view.applied_seq()).map_err(local)
}

/// A stretch whose end was decided: every block must be there.
async fn replay_closed(ground: &Ground, book: &ClaimBook, evidence: &Evidence, stretch: &Stretch, marks: &mut Seq) -> Result<(), Error> {
    let Some(through) = stretch.through else { return Ok(()) };
    let last = through.0.saturating_sub(stretch.base);
    let verdicts = stream::iter(stretch.from.0..=last)
        .map(|counter| evidence.judge(ground, &stretch.subject, Counter(counter), Care::Replay))
        .buffered(AHEAD);
    futures::pin_mut!(verdicts);
    let mut counter = stretch.from;
    while let Some(verdict) = verdicts.next().await {
        let seq = stretch.base.saturating_add(counter.0);
        match or_older_copy(ground, book, evidence, stretch, counter, verdict?).await? {
            Verdict::Readable(found) => {
                *marks = (*marks).max(found.manifest.log.acked_through);
                apply(ground, &found)?;
            }
            Verdict::Unacknowledged { .. } => {
                return Err(missing(format!(
                    "acknowledged data is missing: sequence {seq} lies inside the decided log and too few shards of it are left"
                )));
            }
            Verdict::Undetermined { why, .. } => {
                return Err(missing(format!("sequence {seq} of the decided log cannot be read: {why}")));
            }
        }
        counter = counter.next();
    }
    Ok(())
}

/// What stands at a position, in a predecessor's copy if need be.
async fn or_older_copy(
    ground: &Ground,
    book: &ClaimBook,
    evidence: &Evidence,
    stretch: &Stretch,
    counter: Counter,
    verdict: Verdict,
) -> Result<Verdict, Error> {
    if matches!(verdict, Verdict::Readable(_)) {
        return Ok(verdict);
    }
    let seq = Seq(stretch.base.saturating_add(counter.0));
    let older = Box::pin(older_copy(ground, book, evidence, stretch, seq)).await?;
    Ok(older.map_or(verdict, |found| Verdict::Readable(Box::new(found))))
}

/// The ruling incarnation, up to the first block that is not plainly readable. Holds a window of blocks back: a block is known to
/// be released once one a window later exists (PROTOCOL rule 1).
async fn replay_open(
    ground: &Ground,
    book: &ClaimBook,
    evidence: &Evidence,
    stretch: &Stretch,
    marks: &mut Seq,
) -> Outcome<(VecDeque<Found>, Counter)> {
    let verdicts = stream::iter(stretch.from.0..)
        .map(|counter| evidence.judge(ground, &stretch.subject, Counter(counter), Care::Replay))
        .buffered(AHEAD);
    futures::pin_mut!(verdicts);
    let mut pending = VecDeque::new();
    let mut counter = stretch.from;
    while let Some(verdict) = verdicts.next().await {
        let Verdict::Readable(found) = or_older_copy(ground, book, evidence, stretch, counter, verdict?).await? else { break };
        *marks = (*marks).max(found.manifest.log.acked_through);
        hold_back(ground, &mut pending, *found, stretch.subject.window)?;
        counter = counter.next();
    }
    Ok(Ok((pending, counter)))
}

pub(super) fn hold_back(ground: &Ground, pending: &mut VecDeque<Found>, found: Found, window: u64) -> Result<(), Error> {
    pending.push_back(found);
    while pending.len() as u64 > window
        && let Some(released) = pending.pop_front()
    {
        apply(ground, &released)?;
    }
    Ok(())
}

/// Applies a block that is known to be released; its log root must be the ledger's.
pub(super) fn apply(ground: &Ground, found: &Found) -> Result<(), Error> {
    let block = found.applied(ground)?;
    cpu(|| ground.ledger.apply(&block)).map_err(|error| match error {
        LedgerError::OutOfOrder { .. } | LedgerError::Refused { .. } => refused(format!(
            "fork: sequence {} at the providers does not continue what this disk holds ({error}); keep the disk, and recover into an empty folder to look at the providers' history",
            found.seq()
        )),
        other => local(other),
    })
}

/// Judges with care from `next` on, until a window of positions in a row shows nothing.
async fn find_end(
    ground: &Ground,
    evidence: &Evidence,
    stretch: &Stretch,
    next: Counter,
    pending: &mut VecDeque<Found>,
    marks: &mut Seq,
) -> Outcome<End> {
    let window = stretch.subject.window.max(1);
    let mut end: Option<Counter> = None;
    let mut found_end = End::default();
    let (mut counter, mut blank) = (next, 0);
    loop {
        let seq = Seq(stretch.base.saturating_add(counter.0));
        let visible = match evidence.judge(ground, &stretch.subject, counter, Care::Tail).await? {
            Verdict::Readable(found) => {
                *marks = (*marks).max(found.manifest.log.acked_through);
                if end.is_none() {
                    hold_back(ground, pending, *found, window)?;
                    counter = counter.next();
                    continue;
                }
                true
            }
            Verdict::Unacknowledged { visible, on_word, acked_through, .. } => {
                *marks = (*marks).max(acked_through);
                end.get_or_insert(counter);
                if on_word {
                    found_end.may_have_lost.push(seq);
                }
                visible
            }
            Verdict::Undetermined { visible, why, .. } => {
                if end.is_none() {
                    return Ok(Err(why));
                }
                visible
            }
        };
        let Some(first) = end else { continue };
        if visible && counter.0 >= first.0.saturating_add(window) {
            let gone = stretch.base.saturating_add(first.0);
            return Err(missing(format!(
                "acknowledged data is missing: sequence {gone} cannot be read, but sequence {seq}, a whole window later, exists; \
                 bring more providers back, or restore the service's disk"
            )));
        }
        blank = if visible { 0 } else { blank + 1 };
        if blank >= window {
            found_end.next_counter = first;
            return Ok(Ok(found_end));
        }
        counter = counter.next();
    }
}

#[cfg(test)]
mod tests;
