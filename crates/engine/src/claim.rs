//! Claims (PROTOCOL rule 5): one write-once object per incarnation on every provider, enumerated by LIST, never overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use diaspore_block::claim::Claim;
use diaspore_block::id::{Epoch, IncarnationId};
use diaspore_block::limits::MAX_CLAIM;
use diaspore_block::name::ObjectName;
use diaspore_policy::{FailureDomain, ProviderId};
use diaspore_provider::Deadline;
use futures::future::join_all;

use crate::shared::Ground;

/// Sealing adds less than this to a claim.
const SEAL_MARGIN: usize = 4096;
/// Claims listed at one provider at most; more means that somebody fills the prefix.
const MAX_LISTED: usize = 10_000;
/// Predecessors named in a claim, newest first: all names follow from a few claims.
const MAX_SEEN: usize = 256;

/// What decides between two claims; the higher wins.
pub(crate) type Rank = (Epoch, IncarnationId);

/// Claims that were opened, and names that are known without opening.
#[derive(Debug, Default)]
pub(crate) struct ClaimBook {
    claims: Mutex<BTreeMap<Rank, Option<Claim>>>,
}

/// What a round of asking gave.
#[derive(Debug, Default)]
pub(crate) struct ClaimSurvey {
    /// Domains all of whose providers listed their claims, each of which could be opened.
    pub(crate) answered: BTreeSet<FailureDomain>,
    /// Ranks seen in this round.
    pub(crate) ranks: BTreeSet<Rank>,
}

impl ClaimBook {
    fn book(&self) -> std::sync::MutexGuard<'_, BTreeMap<Rank, Option<Claim>>> {
        self.claims.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
        book.insert(claim.rank(), Some(claim));
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
        self.book().get(&rank).cloned().flatten()
    }

    /// The claim of a rank, fetched from any provider that has it.
    pub(crate) async fn fetch(&self, ground: &Ground, rank: Rank) -> Option<Claim> {
        if let Some(claim) = self.get(rank) {
            return Some(claim);
        }
        for spec in ground.fleet.providers() {
            let name = ground.names.claim(spec.id.as_str(), rank.1, rank.0);
            if let Some(claim) = open(ground, &spec.id, &name).await.filter(|claim| claim.rank() == rank) {
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
        let answers = join_all(asked.map(async |spec| (spec.domain.clone(), self.list_one(ground, &spec.id).await))).await;
        let mut survey = ClaimSurvey::default();
        let mut failed = BTreeSet::new();
        for (domain, ranks) in answers {
            match ranks {
                Some(ranks) => {
                    survey.ranks.extend(ranks);
                    survey.answered.insert(domain);
                }
                None => drop(failed.insert(domain)),
            }
        }
        // What the others told may name everything a failed one lists, so that its spoiled copies need not be read.
        let mut answered = std::mem::take(&mut survey.answered);
        answered.retain(|domain| !failed.contains(domain));
        for domain in failed {
            let members = ground.fleet.providers().iter().filter(|spec| spec.domain == domain);
            let again = join_all(members.map(async |spec| self.list_one(ground, &spec.id).await)).await;
            if let Some(ranks) = again.into_iter().collect::<Option<Vec<_>>>() {
                survey.ranks.extend(ranks.into_iter().flatten());
                answered.insert(domain);
            }
        }
        survey.answered = answered;
        survey
    }

    async fn list_one(&self, ground: &Ground, provider: &ProviderId) -> Option<Vec<Rank>> {
        let prefix = ground.names.claim_prefix(provider.as_str());
        let deadline = Deadline::new(ground.config.probe_deadline, ground.config.probe_deadline);
        let listed = ground.fleet.list(provider, &prefix, MAX_LISTED, deadline).await.ok()?;
        if listed.len() >= MAX_LISTED {
            return None;
        }
        let mut found = Vec::new();
        let mut paths: BTreeSet<String> = listed.into_iter().map(|(path, _)| path).collect();
        loop {
            // Names follow from ranks, so whatever is known need not be read.
            for rank in self.ranks() {
                if paths.remove(ground.names.claim(provider.as_str(), rank.1, rank.0).as_str()) {
                    found.push(rank);
                }
            }
            let Some(path) = paths.pop_last() else { return Some(found) };
            let name = ObjectName::parse(&path).ok()?;
            let claim = open(ground, provider, &name).await?;
            found.push(claim.rank());
            self.keep(claim);
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
