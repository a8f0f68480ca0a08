//! Beginning from a compacted log: for a disk that lost its ledger, or one that stands below what the providers keep of the log.
//!
//! A head says where to look; whether what it covers is part of the log is asked of the decisions, as for a disk that stands there
//! (PROTOCOL rule 12). Only then is it installed, the newest first, and the start goes on as if the disk had been rolled back to it.

use std::collections::BTreeSet;

use bytes::Bytes;
use diaspore_block::claim::Head;
use diaspore_block::compacted::{CompactedRoot, each_row};
use diaspore_block::id::{Hash32, IncarnationId, Seq};
use diaspore_block::log::{LogTree, empty_root, leaf_hash};
use diaspore_ledger::{BaseStep, ChainEntry, JournalEntry, LedgerError, LogHead};
use diaspore_policy::FailureDomain;
use futures::stream::{self, StreamExt};

use super::chain::{self, Chain, Local, Outcome, refused};
use super::loss::ALL_LATER;
use super::position::Evidence;
use super::{Claimed, declared_lost, local_end};
use crate::api::{Error, ErrorKind};
use crate::checkpoint::heads::{self, Announced};
use crate::checkpoint::read::{self, Missing};
use crate::layout;
use crate::namespace::local;
use crate::shared::Ground;
use crate::world::cpu;

/// Parts fetched ahead.
const AHEAD: usize = 2;
/// Parts looked for at once.
const LOOKS: usize = 16;
/// The table of leaves, as compacted logs number it.
const LEAVES: u8 = 10;

/// What heads witness: the writer of each, and what it had acknowledged.
#[derive(Debug)]
pub(super) struct Witnesses {
    marks: Vec<(IncarnationId, Seq)>,
    /// So many domains are silent that all who hold a head may be among them.
    hidden: bool,
}

impl Witnesses {
    /// The highest sequence that must be part of the log. What a writer acknowledged counts up to where a later decision ends it.
    pub(super) fn highest(&self, chain: &Chain, known: &[ChainEntry]) -> Seq {
        // What an operator gave up is gone, whoever wrote it and whatever shows it later.
        let open = known.iter().filter(|entry| entry.may_have_lost.last() == Some(&ALL_LATER)).map(|entry| entry.last_valid);
        let given_up = open.chain(chain.given_up_above).max();
        let of_ruling = |writer: &IncarnationId| chain.ruling.is_some_and(|ruling| ruling.1 == *writer);
        let end_of = |writer: &IncarnationId| chain.end_of(*writer, known).or_else(|| given_up.filter(|_| !of_ruling(writer)));
        let marks = self.marks.iter().map(|(writer, acked)| end_of(writer).map_or(*acked, |end| end.min(*acked)));
        marks.max().unwrap_or(Seq(0))
    }

    /// What is missing may lie in a compacted log whose heads nobody shows: that is no reason to refuse for good.
    pub(super) fn weigh<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        match outcome {
            Err(error) if self.hidden && error.kind == ErrorKind::RefusedState => {
                Ok(Err(format!("{}; too many domains are silent to know whether there is a compacted log", error.message)))
            }
            outcome => outcome,
        }
    }
}

/// Installs the newest compacted log that covers more than the ledger holds, if there is one that can be read.
pub(super) async fn catch_up(ground: &Ground, claimed: &Claimed, evidence: &Evidence) -> Outcome<Witnesses> {
    let announced = heads::find(ground).await;
    ground.unjudged.check()?;
    // A head that counts stands at f + 1 domains or more.
    let hidden = announced.silent.difference(&evidence.lost).count() > layout::full(ground).map_or(0, |full| usize::from(full.f()));
    let marks = announced.heads.iter().map(|head| (head.root.incarnation, head.acked_through)).collect();
    let witnesses = Witnesses { marks, hidden };
    let (incomplete, have) = standing(ground)?;
    let candidates: Vec<&Head> = announced.heads.iter().filter(|head| incomplete || head.covers > have).collect();
    if candidates.is_empty() && !incomplete {
        return Ok(Ok(witnesses));
    }
    claimed.permitted.check(candidates.iter().map(|head| head.root.incarnation))?;
    for head in candidates {
        match try_one(ground, claimed, evidence, head).await? {
            Tried::Installed => return Ok(Ok(witnesses)),
            Tried::Undetermined(why) => return Ok(Err(why)),
            Tried::Useless(why) => {
                tracing::warn!(covers = head.covers.0, %why, "a compacted log is passed over");
            }
        }
    }
    if standing(ground)?.0 {
        if witnesses.hidden {
            return Ok(Err("an installation broke off, and too many domains are silent to find a compacted log again".to_owned()));
        }
        // Whatever was begun with is gone. The log may be there from its first record on.
        tracing::warn!("no compacted log can be installed: the log is read from its beginning");
        begin_anew(ground)?;
    }
    Ok(Ok(witnesses))
}

/// Whether an install broke off, and what the ledger has applied.
fn standing(ground: &Ground) -> Result<(bool, Seq), Error> {
    let view = ground.ledger.snapshot().map_err(local)?;
    Ok((view.is_incomplete().map_err(local)?, view.applied_seq().map_err(local)?))
}

enum Tried {
    Installed,
    /// It cannot be known now whether it is part of the log.
    Undetermined(String),
    /// It is not, or it cannot be read.
    Useless(String),
}

impl From<Missing> for Tried {
    fn from(missing: Missing) -> Self {
        if missing.may_come {
            let why = missing.why;
            return Self::Undetermined(format!(
                "a compacted log cannot be read now: {why}; bring silent domains back, or declare lost ones with recover"
            ));
        }
        Self::Useless(missing.why)
    }
}

async fn try_one(ground: &Ground, claimed: &Claimed, evidence: &Evidence, head: &Head) -> Result<Tried, Error> {
    let root = match read::root(ground, &head.root, &evidence.lost).await {
        Ok(root) if root.covers == head.covers => root,
        Ok(_) => return Ok(Tried::Useless("its head names another root".to_owned())),
        Err(missing) => return Ok(missing.into()),
    };
    ground.unjudged.check()?;
    let end = Local { seq: root.covers, incarnation: root.incarnation, counter: root.counter };
    match chain::find(ground, &claimed.book, evidence, claimed.rank, Some(end)).await {
        Ok(Ok(_)) => (),
        Ok(Err(why)) => return Ok(Tried::Undetermined(why)),
        Err(error) if error.kind == ErrorKind::RefusedState => {
            ground.unjudged.check()?;
            return Ok(Tried::Useless(error.message));
        }
        Err(error) => return Err(error),
    }
    if let Err(missing) = replaceable(ground, &root, &evidence.lost).await? {
        return Ok(missing.into());
    }
    Ok(install_root(ground, &root, &evidence.lost).await?.map_or_else(Tried::from, |()| Tried::Installed))
}

/// Whether what a root lists may take the place of what the disk holds, which goes with the first step of an installation: it continues
/// that, and all of it is there.
async fn replaceable(ground: &Ground, root: &CompactedRoot, lost: &BTreeSet<FailureDomain>) -> Result<Result<(), Missing>, Error> {
    let Some(have) = local_end(ground)? else { return Ok(Ok(())) };
    if let Err(missing) = continues(ground, root, have, lost).await? {
        return Ok(Err(missing));
    }
    let looks: Vec<_> = root.parts.iter().map(|part| read::look(ground, &part.block, lost)).collect();
    let mut looks = std::pin::pin!(stream::iter(looks).buffered(LOOKS));
    while let Some(look) = looks.next().await {
        if let Err(missing) = look {
            return Ok(Err(missing));
        }
    }
    Ok(Ok(()))
}

/// Installs what a root lists in place of what the ledger holds; why not, when that cannot be had.
async fn install_root(ground: &Ground, root: &CompactedRoot, lost: &BTreeSet<FailureDomain>) -> Result<Result<(), Missing>, Error> {
    tracing::info!(covers = root.covers.0, parts = root.parts.len(), "installing a compacted log");
    install(ground, BaseStep::Begin)?;
    let parts = stream::iter(0..root.parts.len()).map(|at| part_at(ground, root, at, lost));
    let mut parts = std::pin::pin!(parts.buffered(AHEAD));
    while let Some(part) = parts.next().await {
        match part {
            Ok(plain) => {
                if let Some(why) = unless_damaged(ground, BaseStep::Rows(Bytes::from(plain)))? {
                    return Ok(Err(Missing { why, may_come: false }));
                }
            }
            Err(missing) => return Ok(Err(missing)),
        }
    }
    let log = LogHead { size: root.log_size, root: root.log_root };
    if let Some(why) = unless_damaged(ground, BaseStep::End { covers: root.covers, log })? {
        return Ok(Err(Missing { why, may_come: false }));
    }
    cpu(|| ground.ledger.sync().and_then(|()| ground.ledger.flush_view())).map_err(local)?;
    Ok(Ok(()))
}

/// What [`install_newest`] came to.
#[derive(Debug)]
pub(crate) struct Newest {
    /// What heads witness as acknowledged.
    pub(crate) marks: Seq,
    /// Why a newer one than was installed cannot be read now, if domains that do not answer may have what is missing of it.
    pub(crate) hidden: Option<String>,
}

/// Installs the newest of the announced compacted logs above what the ledger holds that can be read whole and that `admits` lets pass, asking no decision. For
/// a log whose decisions are gone.
///
/// What the disk holds stays unless all of what takes its place was seen. Should that go all the same while it is read, the installation
/// stays broken off: an empty state would look like a log of which nothing is left.
pub(crate) async fn install_newest(
    ground: &Ground,
    announced: &Announced,
    admits: impl Fn(&CompactedRoot) -> bool,
) -> Result<Newest, Error> {
    let lost = declared_lost(ground)?;
    let held = local_end(ground)?.is_some();
    let mut begun = false;
    let mut hidden = None;
    for head in &announced.heads {
        if !standing(ground)?.0 && head.covers <= standing(ground)?.1 {
            break;
        }
        let missing = match read::root(ground, &head.root, &lost).await {
            Ok(root) if root.covers == head.covers && admits(&root) => match replaceable(ground, &root, &lost).await? {
                Ok(()) => {
                    begun = true;
                    match install_root(ground, &root, &lost).await? {
                        Ok(()) => break,
                        Err(missing) => missing,
                    }
                }
                Err(missing) => missing,
            },
            Ok(_) => Missing { why: "it is no part of what is left of the log".to_owned(), may_come: false },
            Err(missing) => missing,
        };
        tracing::warn!(covers = head.covers.0, why = missing.why, "a compacted log is passed over");
        if missing.may_come {
            hidden.get_or_insert(missing.why);
        }
    }
    if begun && standing(ground)?.0 {
        if held {
            let message = "a compacted log could not be read to its end while it took the place of what this disk held: run recover again";
            return Err(Error::new(ErrorKind::DataUnavailable, message.to_owned()));
        }
        begin_anew(ground)?;
    }
    Ok(Newest { marks: announced.heads.iter().map(|head| head.acked_through).max().unwrap_or_default(), hidden })
}

/// An empty state, for a log that is read from its first record on.
fn begin_anew(ground: &Ground) -> Result<(), Error> {
    install(ground, BaseStep::Begin)?;
    install(ground, BaseStep::End { covers: Seq(0), log: LogHead { size: 0, root: empty_root() } })
}

async fn part_at(ground: &Ground, root: &CompactedRoot, at: usize, lost: &BTreeSet<FailureDomain>) -> Result<Vec<u8>, Missing> {
    let part = root.parts.get(at).ok_or_else(|| Missing { why: "a part is not in the root".to_owned(), may_come: false })?;
    read::part(ground, part, root.end_of(at), lost).await
}

fn install(ground: &Ground, step: BaseStep) -> Result<(), Error> {
    cpu(|| ground.ledger.append(JournalEntry::Base(step))).map_err(local)
}

/// The same; what says that the compacted log itself is wrong is given back.
fn unless_damaged(ground: &Ground, step: BaseStep) -> Result<Option<String>, Error> {
    match cpu(|| ground.ledger.append(JournalEntry::Base(step))) {
        Ok(()) => Ok(None),
        Err(error @ (LedgerError::Corrupt { .. } | LedgerError::Refused { .. })) => Ok(Some(error.to_string())),
        Err(error) => Err(local(error)),
    }
}

/// Whether the compacted log continues what this disk applied, by the leaves alone: nothing here is touched before that is known.
async fn continues(
    ground: &Ground,
    root: &CompactedRoot,
    have: Local,
    lost: &BTreeSet<FailureDomain>,
) -> Result<Result<(), Missing>, Error> {
    let view = ground.ledger.snapshot().map_err(local)?;
    let size = view.log_size().map_err(local)?;
    let ours = view.log_root(size).map_err(local)?;
    let mut tree = LogTree::new();
    for (at, part) in root.parts.iter().enumerate() {
        let holds_leaves = part.first.table <= LEAVES && root.end_of(at).is_none_or(|end| end.table >= LEAVES);
        if !holds_leaves || tree.size() >= size {
            continue;
        }
        let plain = match read::part(ground, part, root.end_of(at), lost).await {
            Ok(plain) => plain,
            Err(missing) => return Ok(Err(missing)),
        };
        let rows = each_row::<diaspore_block::BlockError>(&plain, |row| {
            if row.table == LEAVES && tree.size() < size {
                tree.append(leaf_hash(row.value));
            }
            Ok(())
        });
        if let Err(error) = rows {
            return Ok(Err(Missing { why: error.to_string(), may_come: false }));
        }
    }
    if (tree.size(), tree.root()) == (size, ours) {
        return Ok(Ok(()));
    }
    Err(fork(have, root, ours))
}

fn fork(have: Local, root: &CompactedRoot, ours: Hash32) -> Error {
    refused(format!(
        "fork: the compacted log up to sequence {} does not continue what this disk holds up to sequence {} of incarnation {} (root {ours}); \
         two machines acknowledged different histories. Keep this disk, stop both, and compare before anything else is written",
        root.covers, have.seq, have.incarnation
    ))
}

#[cfg(test)]
mod tests;
