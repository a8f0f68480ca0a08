//! Claims (PROTOCOL rule 5): one write-once object per incarnation on every provider, enumerated by LIST, never overwritten.
//!
//! [`lease`] waits for what predecessors may still release, [`prune`] forgets those that nobody asks for any more.

pub(crate) mod lease;
pub(crate) mod prune;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use diaspore_block::claim::Claim;
use diaspore_block::id::{Epoch, IncarnationId};
use diaspore_block::limits::MAX_CLAIM;
use diaspore_block::name::ObjectName;
use diaspore_policy::{FailureDomain, ProviderId};
use diaspore_provider::Deadline;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::shared::Ground;

/// Sealing adds less than this to a claim.
const SEAL_MARGIN: usize = 4096;
/// Claims listed at one provider at most. Old ones are pruned, so more means that somebody fills the prefix, or that this many
/// starts in a row did not live until their decision was settled.
const MAX_LISTED: usize = 10_000;
/// Predecessors named in a claim, newest first: all names follow from a few claims.
const MAX_SEEN: usize = 256;

/// What decides between two claims; the higher wins.
pub(crate) type Rank = (Epoch, IncarnationId);

/// What is known about one incarnation's claim.
#[derive(Debug, Default)]
struct Entry {
    /// Present once it was opened.
    claim: Option<Claim>,
    /// Some provider listed it: it was neither only heard of nor pruned.
    listed: bool,
}

/// Claims that were opened, and names that are known without opening.
#[derive(Debug, Default)]
pub(crate) struct ClaimBook {
    entries: Mutex<BTreeMap<Rank, Entry>>,
}

/// What a round of asking gave.
#[derive(Debug, Default)]
pub(crate) struct ClaimSurvey {
    /// Domains all of whose providers listed their claims, each of which could be opened.
    pub(crate) answered: BTreeSet<FailureDomain>,
    /// Ranks seen in this round.
    pub(crate) ranks: BTreeSet<Rank>,
    /// Providers that list more than anybody reads, with the prefix.
    crowded: BTreeMap<ProviderId, String>,
}

impl ClaimSurvey {
    /// Why fewer than `quorum` domains count, for the operator.
    pub(crate) fn too_few(&self, did: &str, quorum: usize) -> String {
        let why = too_few(did, self.answered.len(), quorum);
        if self.crowded.is_empty() {
            return why;
        }
        let places: Vec<String> = self.crowded.iter().map(|(provider, prefix)| format!("{provider} below {prefix}")).collect();
        format!(
            "{why}; {MAX_LISTED} or more objects stand among the claims at {}: delete all there but the newest 1000 by the provider's own date, \
             and find out who wrote them or why so many starts in a row ended early",
            places.join(", ")
        )
    }
}

/// Why a step that needs `quorum` domains stops here.
pub(crate) fn too_few(did: &str, count: usize, quorum: usize) -> String {
    format!("only {count} failure domains {did}, {quorum} are needed; bring more providers back and start again")
}

/// What one provider says it has.
enum Listing {
    Claims(Vec<Rank>),
    /// More than anybody reads, below this prefix.
    Crowded(String),
    /// No answer, or something among the claims that cannot be opened.
    Unusable,
}

impl ClaimBook {
    fn book(&self) -> std::sync::MutexGuard<'_, BTreeMap<Rank, Entry>> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Knows of an incarnation without having its claim.
    pub(crate) fn learn(&self, rank: Rank) {
        self.book().entry(rank).or_default();
    }

    /// Keeps an opened claim and the predecessors it names.
    pub(crate) fn keep(&self, claim: Claim) {
        let mut book = self.book();
        for rank in &claim.claims_seen {
            book.entry(*rank).or_default();
        }
        let rank = claim.rank();
        book.entry(rank).or_default().claim = Some(claim);
    }

    /// Notes that a provider listed it.
    fn note_listed(&self, rank: Rank) {
        self.book().entry(rank).or_default().listed = true;
    }

    /// Whether any provider listed it so far.
    pub(crate) fn is_listed(&self, rank: Rank) -> bool {
        self.book().get(&rank).is_some_and(|entry| entry.listed)
    }

    /// Every incarnation known, oldest first.
    pub(crate) fn ranks(&self) -> Vec<Rank> {
        self.book().keys().copied().collect()
    }

    /// The newest ranks, as a new claim names them.
    pub(crate) fn newest(&self) -> Vec<Rank> {
        let mut ranks: Vec<Rank> = self.book().keys().rev().take(MAX_SEEN).copied().collect();
        ranks.sort_unstable();
        ranks
    }

    pub(crate) fn get(&self, rank: Rank) -> Option<Claim> {
        self.book().get(&rank).and_then(|entry| entry.claim.clone())
    }

    /// The claim of a rank, fetched from any provider that has it.
    pub(crate) async fn fetch(&self, ground: &Ground, rank: Rank) -> Option<Claim> {
        if let Some(claim) = self.get(rank) {
            return Some(claim);
        }
        let asked = ground.fleet.providers().iter().map(async |spec| {
            let name = ground.names.claim(spec.id.as_str(), rank.1, rank.0);
            open(ground, &spec.id, &name).await.filter(|claim| claim.rank() == rank)
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        while let Some(answer) = answers.next().await {
            if let Some(claim) = answer {
                self.keep(claim.clone());
                return Some(claim);
            }
        }
        None
    }

    /// Lists the claims at the providers of `domains` (all when `None`). A listed object that cannot be opened makes its domain
    /// one that did not answer: it may be hiding a claim behind it.
    pub(crate) async fn survey(&self, ground: &Ground, domains: Option<&BTreeSet<FailureDomain>>) -> ClaimSurvey {
        let asked = ground.fleet.providers().iter().filter(|spec| domains.is_none_or(|wanted| wanted.contains(&spec.domain)));
        let asked = asked.map(async |spec| ((spec.id.clone(), spec.domain.clone()), self.list_one(ground, &spec.id).await));
        let answers = join_all(asked).await;
        let mut survey = ClaimSurvey::default();
        let mut failed = BTreeSet::new();
        for ((provider, domain), listing) in answers {
            match listing {
                Listing::Claims(ranks) => {
                    survey.ranks.extend(ranks);
                    survey.answered.insert(domain);
                }
                Listing::Crowded(prefix) => {
                    survey.crowded.insert(provider, prefix);
                    failed.insert(domain);
                }
                Listing::Unusable => drop(failed.insert(domain)),
            }
        }
        // What the others told may name everything a failed one lists, so that its spoiled copies need not be read.
        survey.answered.retain(|domain| !failed.contains(domain));
        for domain in failed {
            let members = ground.fleet.providers().iter().filter(|spec| spec.domain == domain);
            if members.clone().any(|spec| survey.crowded.contains_key(&spec.id)) {
                continue;
            }
            let mut listed = Vec::new();
            for listing in join_all(members.map(async |spec| self.list_one(ground, &spec.id).await)).await {
                listed.push(match listing {
                    Listing::Claims(ranks) => Some(ranks),
                    Listing::Crowded(_) | Listing::Unusable => None,
                });
            }
            if let Some(ranks) = listed.into_iter().collect::<Option<Vec<_>>>() {
                survey.ranks.extend(ranks.into_iter().flatten());
                survey.answered.insert(domain);
            }
        }
        survey
    }

    async fn list_one(&self, ground: &Ground, provider: &ProviderId) -> Listing {
        let prefix = ground.names.claim_prefix(provider.as_str());
        let deadline = Deadline::new(ground.config.probe_deadline, ground.config.probe_deadline);
        let Ok(listed) = ground.fleet.list(provider, &prefix, MAX_LISTED, deadline).await else { return Listing::Unusable };
        if listed.len() >= MAX_LISTED {
            return Listing::Crowded(prefix);
        }
        let mut found = Vec::new();
        let mut paths: BTreeSet<String> = listed.into_iter().map(|(path, _)| path).collect();
        loop {
            // Names follow from ranks, so whatever is known need not be read. The newest are there, the oldest were pruned.
            for rank in self.ranks().into_iter().rev() {
                if paths.is_empty() {
                    break;
                }
                if paths.remove(ground.names.claim(provider.as_str(), rank.1, rank.0).as_str()) {
                    self.note_listed(rank);
                    found.push(rank);
                }
            }
            let Some(path) = paths.pop_last() else { return Listing::Claims(found) };
            let Ok(name) = ObjectName::parse(&path) else { return Listing::Unusable };
            let Some(claim) = open(ground, provider, &name).await else { return Listing::Unusable };
            let rank = claim.rank();
            self.keep(claim);
            self.note_listed(rank);
            found.push(rank);
        }
    }
}

/// Reads and opens one claim.
async fn open(ground: &Ground, provider: &ProviderId, name: &ObjectName) -> Option<Claim> {
    let max = (MAX_CLAIM + SEAL_MARGIN) as u64;
    let deadline = Deadline::new(ground.config.probe_deadline, ground.config.probe_deadline);
    let sealed = ground.fleet.get(provider, name.as_str(), None, max, deadline).await.ok()?;
    let place = (provider.as_str(), name);
    let opened = Claim::open(&ground.keys.head, &ground.keys.identity.public(), ground.deployment(), place, &sealed);
    match opened {
        Ok(claim) => Some(claim),
        Err(error) => {
            if ground.unjudged.are_wrong("a claim", error) {
                ground.fleet.report_lie(provider, "a claim that does not open");
            }
            None
        }
    }
}

/// Puts our claim on every provider. Gives the domains that acknowledged it.
pub(crate) async fn place(ground: &Ground, claim: &Claim) -> BTreeSet<FailureDomain> {
    let puts = ground.fleet.providers().iter().map(async |spec| {
        let name = ground.names.claim(spec.id.as_str(), claim.incarnation, claim.epoch);
        let place = (spec.id.as_str(), &name);
        let sealed = claim.seal(&ground.keys.head, &ground.keys.identity, place, &mut ground.rng());
        let put = match sealed {
            Ok(sealed) => ground.fleet.put(&spec.id, name.as_str(), vec![sealed.into()], Deadline::control()).await.is_ok(),
            Err(error) => {
                tracing::error!(%error, "the claim could not be sealed");
                false
            }
        };
        (spec.domain.clone(), put)
    });
    let outcomes = join_all(puts).await;
    let failed: BTreeSet<FailureDomain> = outcomes.iter().filter(|(_, put)| !put).map(|(domain, _)| domain.clone()).collect();
    outcomes.into_iter().map(|(domain, _)| domain).filter(|domain| !failed.contains(domain)).collect()
}
