//! Making one block whole: find shards that landed unnoticed, rebuild the missing ones from k verified ones, or from the journal where
//! too few are left of a block of the log that never was whole, check each against the signed root, and put it where it belongs or on a
//! domain that holds none.
//!
//! What scrubs and readers reported is looked at once more before anything is done: who lies sometimes is believed neither way. A shard
//! that is gone or wrong is made again in its own place, over the wrong object, if the provider is well; elsewhere if it is not. An object
//! that opens as a shard of another block is never overwritten: somebody else writes under our names. A repaired shard counts once its
//! header was read back.

use std::collections::BTreeSet;
use std::sync::Arc;

use diaspore_block::record::ProviderMode;
use diaspore_policy::ProviderId;
use diaspore_provider::Deadline;
use tokio::time::Instant;

use super::Open;
use super::source::Source;
use crate::coded::address_of;
use crate::layout;
use crate::scatter::{Plan, seats};
use crate::scrub::{self, Seen};
use crate::shards::{Depth, Look, look_known};
use crate::shared::{Meters, Shared};
use crate::world::cpu;

/// Vain tries after which a shard that has neither home nor spare may go to any domain that holds nothing of the block, or over a
/// shard that lies elsewhere too. Until then a forgotten request may yet land where it belongs.
const DESPERATE: u32 = 4;

/// What the providers showed.
struct Survey {
    missing: BTreeSet<u8>,
    /// Shards and who has them, more than one place for some.
    homes: Vec<(u8, ProviderId)>,
    /// Tried for a shard, and silent: bound to it until they answer.
    unanswered: Vec<(u8, ProviderId)>,
    /// Showed bytes that are no shard: may be overwritten.
    wrong: BTreeSet<ProviderId>,
    /// Showed a shard of another block.
    strangers: BTreeSet<ProviderId>,
    /// Said that it has none.
    free: BTreeSet<ProviderId>,
    /// Shows a shard that is counted elsewhere.
    surplus: BTreeSet<ProviderId>,
    /// Somebody did not answer.
    silent: bool,
}

/// One try at a block of the map. The error is for the log; what was achieved is in the settlement register already. `moved` becomes the bytes that it read and
/// wrote if it came so far.
pub(crate) async fn heal(shared: &Arc<Shared>, open: &Open, moved: &mut u64) -> Result<(), String> {
    let facts = &open.facts;
    let Survey { missing, homes, unanswered, mut wrong, strangers, mut free, surplus, silent } = Box::pin(survey(shared, open)).await;
    if missing.is_empty() {
        return Ok(());
    }
    // Homes follow from the domains that there are: a block that a narrower layout wrote has other homes now, all of them taken perhaps.
    let desperate = !silent && open.failures >= DESPERATE;
    let mut bound: Vec<(u8, ProviderId)> = homes.iter().chain(&unanswered).cloned().collect();
    if desperate {
        bound.retain(|(_, provider)| !surplus.contains(provider));
        free.extend(surplus.iter().cloned());
        wrong.extend(surplus);
    }
    let mut seats = seats(shared, facts);
    let now = Instant::now();
    for seat in seats.iter_mut().filter(|seat| open.avoids(&seat.provider, now) || strangers.contains(&seat.provider)) {
        (seat.healthy, seat.alive) = (false, false);
    }
    let mut plan = Plan::resume(seats, facts.geometry.n(), facts.id, &bound);
    let mut targets = Vec::new();
    for shard in missing {
        let own = open.damage.get(&shard).map(|(provider, _)| provider);
        // Of a block that was settled every shard has its place, so a domain that shows none may take any.
        let tried = |provider: &ProviderId| open.tried.iter().any(|(other, home)| home == provider && *other != shard);
        let admits = |provider: &ProviderId| free.contains(provider) && (open.repair || !tried(provider));
        let anywhere = |plan: &mut Plan| if open.repair || desperate { plan.any(shard, admits) } else { None };
        let in_place = |plan: &mut Plan| own.and_then(|own| plan.take(shard, own, true));
        let target = in_place(&mut plan).or_else(|| plan.spare(shard)).or_else(|| anywhere(&mut plan));
        let target = target.or_else(|| own.and_then(|own| plan.take(shard, own, false)));
        targets.extend(target.map(|provider| (shard, provider)));
    }
    if targets.is_empty() {
        if !silent {
            write_off(shared, open, &homes);
        }
        return Err("no home of a missing shard answers".to_owned());
    }
    let (k, there) = (usize::from(facts.geometry.k()), homes.iter().map(|(shard, _)| *shard).collect::<BTreeSet<u8>>().len());
    let source = if there < k {
        Err(format!("{there} of {k} shards are left"))
    } else {
        *moved = open.repair_bytes();
        Source::read(shared, &homes, open).await
    };
    let source = source.or_else(|why| Source::held(shared, open).ok_or(why))?;
    // Who does not take a shard holds up none of the others.
    let mut failed = None;
    for (shard, provider) in targets {
        let over = wrong.contains(&provider);
        if let Err(why) = put_rebuilt(shared, &source, (shard, &provider, over), open).await {
            failed.get_or_insert(why);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Of a block that is wider than what is left, written while an account went, the shards for which there is no domain any more are counted
/// as lost with the dead ones: it is as if they had been there. The block settles, since nothing else ever could make it, and counts as
/// degraded until another account takes them.
fn write_off(shared: &Shared, open: &Open, homes: &[(u8, ProviderId)]) {
    let facts = &open.facts;
    let n = usize::from(facts.geometry.n());
    // What is written off is no acknowledgement: k + 1 shards must be there for it to be anything but a loss.
    let placed: BTreeSet<u8> = homes.iter().map(|(shard, _)| *shard).collect();
    if open.repair || layout::usable(shared).len() >= n || placed.len() <= usize::from(facts.geometry.k()) {
        return;
    }
    let domain_of = |provider: &ProviderId| shared.fleet.provider(provider).map(|spec| spec.domain.clone());
    let mut used: BTreeSet<_> = homes.iter().filter_map(|(_, home)| domain_of(home)).collect();
    let mut missing = (0..facts.geometry.n()).filter(|shard| !placed.contains(shard));
    for spec in shared.fleet.providers() {
        let dead = shared.modes.of(&spec.id) == ProviderMode::Dead && shared.config.profile.admits(spec) && spec.weight > 0;
        if !dead || !used.insert(spec.domain.clone()) {
            continue;
        }
        let Some(shard) = missing.next() else { return };
        tracing::warn!(block = %facts.id, shard, "no domain is left for a shard: it counts as lost with a dead account");
        shared.settlement.stored(facts.id, shard, &spec.id);
    }
}

/// Looks at every provider that is not known to hold a shard. A PUT whose answer was lost may have landed, wherever it was tried: the
/// header says which shard it was. Where bytes were wrong, all of them are read again.
async fn survey(shared: &Arc<Shared>, open: &Open) -> Survey {
    let facts = &open.facts;
    let mut survey = Survey {
        missing: (0..facts.geometry.n()).filter(|shard| !open.stored.contains_key(shard)).collect(),
        homes: open.stored.iter().map(|(shard, home)| (*shard, home.clone())).collect(),
        unanswered: Vec::new(),
        wrong: BTreeSet::new(),
        strangers: BTreeSet::new(),
        free: BTreeSet::new(),
        surplus: BTreeSet::new(),
        silent: false,
    };
    for spec in shared.fleet.providers() {
        if survey.homes.iter().any(|(_, home)| *home == spec.id) {
            continue;
        }
        let damaged = open.damage.iter().find(|(_, (provider, _))| *provider == spec.id).map(|(shard, (_, seen))| (*shard, *seen));
        let depth = if damaged.is_some_and(|(_, seen)| seen == Seen::Wrong) { Depth::Whole } else { Depth::Header };
        let seen = match look_known(shared, facts, &spec.id, depth).await {
            Look::Seen(seen) if seen.header.manifest().hash() == facts.manifest_hash => {
                let shard = seen.header.index();
                survey.homes.push((shard, spec.id.clone()));
                if survey.missing.remove(&shard) {
                    shared.settlement.stored(facts.id, shard, &spec.id);
                    scrub::note(shared, facts, &[(shard, spec.id.clone(), Seen::Good)], depth == Depth::Whole);
                } else {
                    survey.surplus.insert(spec.id.clone());
                }
                continue;
            }
            Look::Seen(_) => {
                survey.strangers.insert(spec.id.clone());
                Seen::Wrong
            }
            Look::Absent => {
                survey.free.insert(spec.id.clone());
                Seen::Missing
            }
            Look::Wrong => {
                survey.wrong.insert(spec.id.clone());
                Seen::Wrong
            }
            Look::Silent => {
                survey.silent |= shared.modes.of(&spec.id) != ProviderMode::Dead;
                // Whatever it was tried for, it is bound to; see scatter::plan.
                survey.unanswered.extend(open.tried.iter().find(|(_, home)| *home == spec.id).cloned());
                Seen::Silent
            }
        };
        if let Some((shard, _)) = damaged {
            scrub::note(shared, facts, &[(shard, spec.id.clone(), seen)], false);
        }
    }
    survey
}

/// Makes a shard, puts it, and reads its header back.
async fn put_rebuilt(
    shared: &Shared,
    source: &Source,
    (shard, provider, over): (u8, &ProviderId, bool),
    open: &Open,
) -> Result<(), String> {
    let facts = &open.facts;
    // A block may be condemned while it is read: nothing of it must be put once its shards may be deleted.
    if shared.ledger.snapshot().and_then(|view| view.keeps(facts.id)).is_ok_and(|keeps| !keeps) {
        shared.settlement.forget(&[facts.id]);
        return Err("nothing in it has to be kept".to_owned());
    }
    let name = shared.names.shard(&address_of(facts, provider.as_str()));
    let object = cpu(|| source.object(shared, shard, provider, &name)).map_err(|error| error.to_string())?;
    let bytes = object.iter().map(|piece| piece.len() as u64).sum();
    shared.settlement.tried(facts.id, shard, provider);
    let deadline = Deadline::transfer(bytes);
    let put = if over {
        shared.fleet.replace(provider, name.as_str(), object, deadline).await
    } else {
        shared.fleet.put(provider, name.as_str(), object, deadline).await
    };
    put.map_err(|error| error.to_string())?;
    if open.repair {
        match look_known(shared, facts, provider, Depth::Header).await {
            Look::Seen(seen) if seen.header.manifest().hash() == facts.manifest_hash && seen.header.index() == shard => {
                // What was verified was verified where it lay before.
                let has_moved = !facts.placements.iter().any(|place| place.shard == shard && place.provider == provider.as_str());
                let seen = [Seen::Missing, Seen::Good].map(|seen| (shard, provider.clone(), seen));
                scrub::note(shared, facts, seen.get(usize::from(!has_moved)..).unwrap_or_default(), false);
            }
            Look::Silent => return Err(format!("{provider} took a shard and does not answer now")),
            Look::Seen(_) | Look::Absent | Look::Wrong => {
                shared.settlement.avoid(facts.id, provider, shared.hold_off());
                return Err(format!("{provider} took a shard and does not have it"));
            }
        }
        Meters::bump(&shared.meters.repaired_shards);
        Meters::add(&shared.meters.repaired_bytes, bytes);
    }
    shared.settlement.stored(facts.id, shard, provider);
    Ok(())
}

#[cfg(test)]
mod tests;
