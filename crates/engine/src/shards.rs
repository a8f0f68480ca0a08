//! Looking at what one provider has under a name: seen and verified, not there, wrong, or no answer (PROTOCOL rule 8).

use std::collections::BTreeSet;
use std::ops::Range;

use diaspore_block::geometry::object_len;
use diaspore_block::limits::{HEADER_LEN, MAX_SHARD_OBJECT};
use diaspore_block::name::ShardAddress;
use diaspore_block::shard::{ShardHeader, VerifiedCells};
use diaspore_ledger::BlockFacts;
use diaspore_policy::{FailureDomain, ProviderId};
use diaspore_provider::{Deadline, ErrorKind as ProviderErrorKind};
use futures::stream::{FuturesUnordered, StreamExt};

use crate::audit::Event;
use crate::shared::{Ground, Meters};

/// A shard that was verified, whole or its header only.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    pub(crate) provider: ProviderId,
    pub(crate) domain: FailureDomain,
    pub(crate) header: ShardHeader,
    /// Present when the whole object was read.
    pub(crate) cells: Option<VerifiedCells>,
}

/// What a provider showed.
#[derive(Debug, Clone)]
pub(crate) enum Look {
    /// A verified shard.
    Seen(Box<Sighting>),
    /// An answer without a shard: it says that there is none.
    Absent,
    /// An answer with bytes that are no shard of this deployment under this name.
    Wrong,
    /// No answer, or one that this build cannot judge: see [`crate::unjudged`].
    Silent,
}

/// How much of an object to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The sealed header: proves that the provider knows of the shard.
    Header,
    /// Everything, each cell checked.
    Whole,
}

/// Where shards of one attempt are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) kind: diaspore_block::manifest::BlockKind,
    pub(crate) incarnation: diaspore_block::id::IncarnationId,
    pub(crate) counter: diaspore_block::id::Counter,
    pub(crate) attempt: diaspore_block::id::Attempt,
}

impl Place {
    /// Where the shards of a known block are.
    pub(crate) fn of(facts: &BlockFacts) -> Self {
        Self { kind: facts.kind, incarnation: facts.incarnation, counter: facts.counter, attempt: facts.attempt }
    }

    pub(crate) fn at<'a>(&self, provider: &'a str) -> ShardAddress<'a> {
        ShardAddress { provider, kind: self.kind, incarnation: self.incarnation, counter: self.counter, attempt: self.attempt }
    }
}

/// Asks one provider.
pub(crate) async fn look(ground: &Ground, place: Place, provider: &ProviderId, depth: Depth) -> Look {
    let address = place.at(provider.as_str());
    let name = ground.names.shard(&address);
    let (range, max): (Option<Range<u64>>, u64) = match depth {
        Depth::Header => (Some(0..HEADER_LEN as u64), HEADER_LEN as u64),
        Depth::Whole => (None, MAX_SHARD_OBJECT as u64),
    };
    let total = ground.config.probe_deadline;
    let deadline = Deadline::new(Deadline::transfer(max).total.min(total.saturating_mul(3)), total);
    let bytes = match ground.fleet.get(provider, name.as_str(), range, max, deadline).await {
        Ok(bytes) => bytes,
        Err(error) => {
            return match error.kind {
                ProviderErrorKind::NotFound => Look::Absent,
                // It answers, with something that cannot be the shard.
                ProviderErrorKind::TooLong => {
                    wrong(ground, provider, "an object of the wrong length");
                    Look::Wrong
                }
                // An answer cut short may be the network's doing: taken for absence at several domains at once, it would void what
                // was acknowledged (found by the simulation).
                _ => Look::Silent,
            };
        }
    };
    let (key, public, deployment) = (&ground.keys.header, ground.keys.identity.public(), ground.deployment());
    let opened = match depth {
        Depth::Header => ShardHeader::open(key, &public, deployment, &address, &name, &bytes).map(|header| (header, None)),
        Depth::Whole => {
            VerifiedCells::open_object(key, &public, deployment, &address, &name, &bytes).map(|(header, cells)| (header, Some(cells)))
        }
    };
    match (opened, ground.fleet.provider(provider)) {
        (Ok((header, cells)), Some(spec)) => {
            Look::Seen(Box::new(Sighting { provider: provider.clone(), domain: spec.domain.clone(), header, cells }))
        }
        (Err(error), _) if ground.unjudged.are_wrong("a shard", error.clone()) => {
            wrong(ground, provider, "a shard that does not verify");
            Look::Wrong
        }
        (Err(_), _) | (Ok(_), None) => Look::Silent,
    }
}

/// [`look`] at a shard of a known block. An object that was cut short at rest cannot answer for what it lost, and says so in as many ways
/// as there are providers; its length does not lie about that. For repair only: the end of the log is not decided by it.
pub(crate) async fn look_known(ground: &Ground, facts: &BlockFacts, provider: &ProviderId, depth: Depth) -> Look {
    let place = Place::of(facts);
    match look(ground, place, provider, depth).await {
        Look::Silent => match stated(ground, facts, provider).await {
            Stated::Wrong => Look::Wrong,
            Stated::Absent => Look::Absent,
            Stated::Nothing => Look::Silent,
        },
        other => other,
    }
}

/// What a provider says about an object that it did not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stated {
    /// It is of another length than the shard.
    Wrong,
    /// There is none.
    Absent,
    /// No answer, or none that helps.
    Nothing,
}

/// Asks for the length of an object that could not be read.
pub(crate) async fn stated(ground: &Ground, facts: &BlockFacts, provider: &ProviderId) -> Stated {
    let name = ground.names.shard(&Place::of(facts).at(provider.as_str()));
    let Ok(length) = object_len(facts.shard_len) else { return Stated::Nothing };
    match ground.fleet.exists(provider, name.as_str(), Deadline::control()).await {
        Ok(Some(stored)) if stored != length as u64 => {
            wrong(ground, provider, "an object of the wrong length");
            Stated::Wrong
        }
        Ok(None) => Stated::Absent,
        Ok(Some(_)) | Err(_) => Stated::Nothing,
    }
}

/// Bytes of a provider were proven wrong: counted, said in the log, held against it.
pub(crate) fn wrong(ground: &Ground, provider: &ProviderId, what: &str) {
    Meters::bump(&ground.meters.integrity_faults);
    ground.fleet.report_lie(provider, what);
    ground.audit.note(Event::IntegrityFault { provider: provider.to_string(), what: what.to_owned() });
}

/// What all providers showed for one attempt.
#[derive(Debug, Default, Clone)]
pub(crate) struct Survey {
    pub(crate) seen: Vec<Sighting>,
    /// Domains that did not answer.
    pub(crate) silent: BTreeSet<FailureDomain>,
    /// True when asking stopped early since enough was seen.
    pub(crate) partial: bool,
}

impl Survey {
    /// Distinct domains showing a verified shard of distinct index: v of rule 8.
    pub(crate) fn domains(&self) -> BTreeSet<FailureDomain> {
        self.seen.iter().map(|sighting| sighting.domain.clone()).collect()
    }

    /// Distinct shards seen.
    pub(crate) fn shards(&self) -> BTreeSet<u8> {
        self.seen.iter().map(|sighting| sighting.header.index()).collect()
    }
}

/// Asks every provider, or until `enough` distinct shards were seen.
pub(crate) async fn survey(ground: &Ground, place: Place, depth: Depth, enough: Option<u8>) -> Survey {
    let asked = ground.fleet.providers().iter().map(async |spec| (spec, look(ground, place, &spec.id, depth).await));
    let mut answers: FuturesUnordered<_> = asked.collect();
    let mut survey = Survey::default();
    while let Some((spec, answer)) = answers.next().await {
        match answer {
            Look::Seen(sighting) => survey.seen.push(*sighting),
            Look::Absent | Look::Wrong => (),
            Look::Silent => drop(survey.silent.insert(spec.domain.clone())),
        }
        if enough.is_some_and(|enough| survey.shards().len() >= usize::from(enough)) {
            survey.partial = !answers.is_empty();
            break;
        }
    }
    survey.seen.sort_by(|a, b| (a.header.index(), &a.provider).cmp(&(b.header.index(), &b.provider)));
    survey
}
