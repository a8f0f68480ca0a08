//! What is known about one position of one incarnation, and what may be concluded from it (PROTOCOL rule 8).

use std::collections::{BTreeMap, BTreeSet};

use diaspore_block::block::SignedBlock;
use diaspore_block::commit::CommitBody;
use diaspore_block::decode::decode;
use diaspore_block::id::{Attempt, Counter, Hash32, IncarnationId, Seq};
use diaspore_block::manifest::{BlockKind, MANIFEST_LEN, Manifest};
use diaspore_block::record::{Placement, Record};
use diaspore_block::shard::VerifiedCells;
use diaspore_ledger::{AppliedBlock, IssuedBlock, LogHead};
use diaspore_policy::{FailureDomain, ProviderId};
use futures::future::join_all;

use crate::api::{Error, ErrorKind};
use crate::coded::facts_of;
use crate::shards::{Depth, Place, Sighting, Survey, survey};
use crate::shared::Ground;
use crate::world::cpu;

/// An incarnation under judgement.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) incarnation: IncarnationId,
    /// Smallest k it may have used: what may be concluded from absence rests on it.
    pub(crate) k_floor: u8,
    /// The k it used as a rule: how many shards a replay asks for at first.
    pub(crate) usual_k: u8,
    pub(crate) window: u64,
    /// Domains that may hold its commit blocks, as its claim names them; all configured ones when the claim is not at hand.
    pub(crate) homes: Option<BTreeSet<FailureDomain>>,
}

impl Subject {
    /// Domains that may hold a shard and do not say: a home that is not configured any more does not answer either.
    fn silent<'a>(&'a self, ground: &Ground, survey: &'a Survey) -> BTreeSet<&'a FailureDomain> {
        let Some(homes) = &self.homes else { return survey.silent.iter().collect() };
        let known = ground.fleet.domains();
        homes.iter().filter(|home| survey.silent.contains(*home) || !known.contains(*home)).collect()
    }
}

/// A block of the log whose content is at hand.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) manifest: Manifest,
    roots: Vec<Hash32>,
    payload: Vec<u8>,
    /// Where its shards were seen.
    stored: Vec<(u8, ProviderId)>,
    /// Distinct domains among them.
    pub(crate) domains: usize,
    /// Asking ended before every domain had answered.
    pub(crate) partial: bool,
}

impl Found {
    pub(crate) fn seq(&self) -> Seq {
        self.manifest.log.seq
    }

    /// The records and chunks it carries.
    pub(crate) fn body(&self, ground: &Ground) -> Result<diaspore_block::commit::OpenedCommit, Error> {
        cpu(|| CommitBody::open(&self.manifest, &self.payload, &ground.keys)).map_err(|error| {
            let message = format!("commit block {} is authentic but does not open: {error}", self.seq());
            Error::caused(ErrorKind::RefusedState, message, error)
        })
    }

    /// Its records in order.
    pub(crate) fn records(&self, ground: &Ground) -> Result<Vec<Record>, Error> {
        Ok(self.body(ground)?.body.records().to_vec())
    }

    /// As the ledger takes it.
    pub(crate) fn applied(&self, ground: &Ground) -> Result<AppliedBlock, Error> {
        let opened = self.body(ground)?;
        let mut facts = facts_of(&self.manifest, &self.roots, opened.sections);
        let placement = |(shard, home): &(u8, ProviderId)| Placement { shard: *shard, provider: home.to_string(), acked: true };
        facts.placements = self.stored.iter().map(placement).collect();
        Ok(AppliedBlock {
            seq: self.seq(),
            facts,
            records: opened.body.records().to_vec(),
            chunks: opened.chunks.into_iter().map(|(_, entry)| entry).collect(),
            log: Some(LogHead { size: self.manifest.log.log_size, root: self.manifest.log.log_root }),
        })
    }

    pub(crate) fn from_journal(ground: &Ground, issued: &IssuedBlock) -> Option<Self> {
        let encoded: &[u8; MANIFEST_LEN] = issued.manifest.first_chunk()?;
        let manifest = Manifest::decode(encoded).ok()?;
        let signed = cpu(|| SignedBlock::from_issued(&manifest, issued.payload.to_vec(), &ground.keys.identity)).ok()?;
        let roots = signed.shard_roots().to_vec();
        Some(Self { manifest, roots, payload: issued.payload.to_vec(), stored: Vec::new(), domains: 0, partial: false })
    }

    fn from_shards(seen: &[Sighting], partial: bool) -> Option<Self> {
        let first = seen.first()?;
        let manifest = first.header.manifest().clone();
        let cells: Vec<VerifiedCells> = seen.iter().filter_map(|sighting| sighting.cells.clone()).collect();
        let payload = cpu(|| decode(&manifest, &cells, 0..manifest.payload_len)).ok()?;
        let mut found = Self {
            roots: first.header.shard_roots().to_vec(),
            manifest,
            payload: payload.to_vec(),
            stored: Vec::new(),
            domains: 0,
            partial,
        };
        found.place(seen);
        Some(found)
    }

    /// Notes where shards of this very block were seen.
    fn place(&mut self, seen: &[Sighting]) {
        let hash = self.manifest.hash();
        let own = || seen.iter().filter(|sighting| sighting.header.manifest().hash() == hash);
        self.stored = own().map(|sighting| (sighting.header.index(), sighting.provider.clone())).collect();
        self.stored.dedup_by_key(|(shard, _)| *shard);
        self.domains = own().map(|sighting| sighting.domain.clone()).collect::<BTreeSet<_>>().len();
    }

    /// Asks every domain, so that `domains` is what rule 10 wants to know.
    pub(crate) async fn count_domains(&mut self, ground: &Ground) {
        if self.partial {
            let at = self.manifest.position;
            let place = Place { kind: at.kind, incarnation: at.incarnation, counter: at.counter, attempt: at.attempt };
            let survey = survey(ground, place, Depth::Header, None).await;
            self.place(&survey.seen);
            self.partial = false;
        }
    }
}

/// What rule 8 says about a position.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Its content is at hand.
    Readable(Box<Found>),
    /// Provably never acknowledged.
    Unacknowledged {
        /// Verified shards seen nevertheless.
        visible: bool,
        /// Provable only on the operator's word that domains are lost.
        on_word: bool,
        /// Highest mark among what was seen.
        acked_through: Seq,
        /// Configured domains that were not declared lost and did not say what they hold, if it could be enough.
        silent: BTreeSet<FailureDomain>,
    },
    /// Neither; what would help.
    Undetermined {
        /// Verified shards seen.
        visible: bool,
        /// For the operator.
        why: String,
        /// As above.
        silent: BTreeSet<FailureDomain>,
    },
}

/// The evidence to judge by.
#[derive(Debug)]
pub(crate) struct Evidence {
    /// Domains the operator declared lost.
    pub(crate) lost: BTreeSet<FailureDomain>,
    /// Issued blocks that the journal still holds, as far as they may matter.
    pub(crate) held: BTreeMap<(IncarnationId, Counter), Vec<IssuedBlock>>,
    /// The highest sequence that the journal says was released, by incarnation.
    pub(crate) released: BTreeMap<IncarnationId, Seq>,
}

/// How thoroughly to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// k shards of attempt 0 are enough.
    Replay,
    /// Every domain is asked.
    Tail,
}

impl Evidence {
    /// Nothing but what providers show.
    pub(crate) const fn nothing() -> Self {
        Self { lost: BTreeSet::new(), held: BTreeMap::new(), released: BTreeMap::new() }
    }

    /// Judges one position.
    pub(crate) async fn judge(&self, ground: &Ground, subject: &Subject, counter: Counter, care: Care) -> Result<Verdict, Error> {
        let mut journal = self
            .held
            .get(&(subject.incarnation, counter))
            .and_then(|attempts| attempts.iter().find_map(|issued| Found::from_journal(ground, issued)));
        if care == Care::Replay
            && let Some(mut found) = journal.take()
        {
            found.partial = true;
            return Ok(Verdict::Readable(Box::new(found)));
        }
        let mut doubts = Vec::new();
        let (mut visible, mut provable, mut provable_on_word) = (false, true, true);
        let mut acked_through = Seq(0);
        let (configured, mut waiting) = (ground.fleet.domains(), BTreeSet::new());
        // Who is silent keeps nobody waiting four times. A replay finds nearly everything under the first attempt.
        let (first, others) = Attempt::all().partition::<Vec<_>, _>(|attempt| care == Care::Tail || *attempt == Attempt(0));
        for attempts in [first, others] {
            let surveys = join_all(attempts.into_iter().map(async |attempt| (attempt, ask(ground, subject, counter, attempt, care).await)));
            for (attempt, survey) in surveys.await {
                // What cannot be judged is not absent: nothing may be concluded from the rest.
                ground.unjudged.check()?;
                single_block(&survey, counter)?;
                let k = k_of(subject, &survey);
                if survey.shards().len() >= usize::from(k)
                    && let Some(found) = Found::from_shards(&survey.seen, survey.partial)
                {
                    return Ok(Verdict::Readable(Box::new(found)));
                }
                if let Some(found) = &mut journal
                    && found.manifest.position.attempt == attempt
                {
                    found.place(&survey.seen);
                }
                for sighting in &survey.seen {
                    visible = true;
                    acked_through = acked_through.max(sighting.header.manifest().log.acked_through);
                }
                let silent = subject.silent(ground, &survey);
                let unexplained = || silent.iter().copied().filter(|domain| !self.lost.contains(*domain));
                let counted =
                    Count { seen: survey.domains().len(), silent: silent.len(), unexplained: unexplained().count(), k: usize::from(k) };
                if counted.may_be_readable() {
                    waiting.extend(unexplained().filter(|domain| configured.contains(*domain)).cloned());
                }
                provable &= counted.is_unacknowledged();
                provable_on_word &= counted.is_unacknowledged_on_word(!self.lost.is_empty());
                if !counted.is_unacknowledged() {
                    let names: Vec<&str> = silent.iter().map(|domain| domain.as_str()).collect();
                    doubts.push(format!("{} shards visible, {} domains silent ({})", counted.seen, counted.silent, names.join(", ")));
                }
            }
        }
        if let Some(found) = journal {
            return Ok(Verdict::Readable(Box::new(found)));
        }
        if provable || provable_on_word {
            return Ok(Verdict::Unacknowledged { visible, on_word: !provable, acked_through, silent: waiting });
        }
        let why = format!(
            "block {counter} of incarnation {} may have been acknowledged: {}; bring a silent domain back, or declare lost ones with recover",
            subject.incarnation,
            doubts.first().map_or("", String::as_str)
        );
        Ok(Verdict::Undetermined { visible, why, silent: waiting })
    }
}

/// The k that counts for what was seen of an attempt.
fn k_of(subject: &Subject, survey: &Survey) -> u8 {
    survey.seen.first().map_or(subject.k_floor, |seen| seen.header.manifest().geometry.k())
}

/// What there is of one attempt: of a replay as much as it needs, when that is enough.
async fn ask(ground: &Ground, subject: &Subject, counter: Counter, attempt: Attempt, care: Care) -> Survey {
    let place = Place { kind: BlockKind::Commit, incarnation: subject.incarnation, counter, attempt };
    let enough = (care == Care::Replay).then_some(subject.usual_k);
    let first = survey(ground, place, Depth::Whole, enough).await;
    if first.partial && first.shards().len() < usize::from(k_of(subject, &first)) {
        return survey(ground, place, Depth::Whole, None).await;
    }
    first
}

/// One attempt in numbers.
#[derive(Debug, Clone, Copy)]
struct Count {
    /// v.
    seen: usize,
    /// u.
    silent: usize,
    /// u without the domains declared lost.
    unexplained: usize,
    k: usize,
}

impl Count {
    /// Rule B: even if every silent domain holds a shard and one more hides its own, k + 1 were never acknowledged.
    fn is_unacknowledged(self) -> bool {
        self.seen + self.silent < self.k
    }

    /// Whether whoever is silent, without having been declared lost, may hold what is missing to read it.
    fn may_be_readable(self) -> bool {
        self.seen + self.unexplained >= self.k
    }

    /// With domains declared lost: v + max(u, 1) <= k.
    fn is_unacknowledged_on_word(self, declared: bool) -> bool {
        declared && self.seen + self.unexplained.max(1) <= self.k
    }
}

/// Two authentic blocks under one name are two writers of one incarnation (PROTOCOL rule 13).
fn single_block(survey: &Survey, counter: Counter) -> Result<(), Error> {
    let hashes: BTreeSet<Hash32> = survey.seen.iter().map(|sighting| sighting.header.manifest().hash()).collect();
    if hashes.len() <= 1 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::RefusedState,
        format!(
            "fork: two different signed blocks stand at counter {counter}: two copies of one running process wrote; stop both and ask for help"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_b_and_the_declared_rule() {
        let count = |seen, silent, unexplained| Count { seen, silent, unexplained, k: 3 };
        assert!(count(0, 2, 2).is_unacknowledged(), "0 + 2 + 1 <= 3");
        assert!(!count(1, 2, 2).is_unacknowledged(), "1 + 2 + 1 > 3: C1");
        assert!(count(2, 0, 0).is_unacknowledged());
        assert!(!count(3, 0, 0).is_unacknowledged());
        assert!(!count(1, 2, 0).is_unacknowledged_on_word(false), "nobody declared anything");
        assert!(count(1, 2, 0).is_unacknowledged_on_word(true));
        assert!(count(2, 2, 0).is_unacknowledged_on_word(true), "2 + 1 <= 3");
        assert!(!count(3, 2, 0).is_unacknowledged_on_word(true));
        // Who was declared lost brings nothing.
        assert!(count(1, 2, 2).may_be_readable() && count(0, 3, 3).may_be_readable() && count(3, 0, 0).may_be_readable());
        assert!(!count(1, 1, 1).may_be_readable() && !count(1, 2, 1).may_be_readable() && !count(0, 6, 0).may_be_readable());
    }
}
