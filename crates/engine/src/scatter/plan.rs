//! Which shard goes to which provider.
//!
//! A provider that was tried for one shard stays bound to it for this attempt, since a request that seemed to fail may have
//! landed and the name says nothing about the shard's index. So shards and domains of one attempt never mix.

use diaspore_policy::{Candidate, FailureDomain, ProviderId, place};
use rand::CryptoRng;

/// One account as placement sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) provider: ProviderId,
    pub(crate) domain: FailureDomain,
    /// Share of draws under the policy; 0 = never.
    pub(crate) weight: u32,
    /// Whether requests to it are expected to succeed now.
    pub(crate) healthy: bool,
}

/// The binding of one attempt's shards to providers.
#[derive(Debug)]
pub(crate) struct Plan {
    seats: Vec<Seat>,
    /// Per seat: the shard it was tried for.
    bound: Vec<Option<u8>>,
}

impl Plan {
    /// Draws `n` seats of distinct domains, healthy ones first; `None` when there are not that many domains.
    pub(crate) fn draw(seats: Vec<Seat>, n: u8, rng: &mut impl CryptoRng) -> Option<Self> {
        let wanted = usize::from(n);
        let mut order = draw_distinct(&seats, wanted, rng, |seat| seat.healthy);
        let taken: Vec<FailureDomain> = order.iter().filter_map(|&at| seats.get(at)).map(|seat| seat.domain.clone()).collect();
        let missing = wanted.saturating_sub(order.len());
        order.extend(draw_distinct(&seats, missing, rng, |seat| !seat.healthy && !taken.contains(&seat.domain)));
        if order.len() < wanted {
            return None;
        }
        let mut bound = vec![None; seats.len()];
        for (shard, at) in (0..n).zip(order) {
            if let Some(slot) = bound.get_mut(at) {
                *slot = Some(shard);
            }
        }
        Some(Self { seats, bound })
    }

    /// A plan that continues what other attempts to place the same block left: `homes` are providers known to be bound.
    pub(crate) fn resume(seats: Vec<Seat>, homes: &[(u8, ProviderId)]) -> Self {
        let bound = seats.iter().map(|seat| homes.iter().find(|(_, home)| *home == seat.provider).map(|(shard, _)| *shard)).collect();
        Self { seats, bound }
    }

    /// All bindings made so far, in seat order.
    pub(crate) fn homes(&self) -> Vec<(u8, ProviderId)> {
        let bound = |(seat, shard): (&Seat, &Option<u8>)| shard.map(|shard| (shard, seat.provider.clone()));
        self.seats.iter().zip(&self.bound).filter_map(bound).collect()
    }

    /// Binds a healthy provider of a domain that no shard uses, or `None` when there is none.
    pub(crate) fn spare(&mut self, shard: u8, rng: &mut impl CryptoRng) -> Option<ProviderId> {
        let used: Vec<FailureDomain> =
            self.seats.iter().zip(&self.bound).filter(|(_, bound)| bound.is_some()).map(|(seat, _)| seat.domain.clone()).collect();
        let at = draw_distinct(&self.seats, 1, rng, |seat| seat.healthy && !used.contains(&seat.domain)).first().copied()?;
        *self.bound.get_mut(at)? = Some(shard);
        self.seats.get(at).map(|seat| seat.provider.clone())
    }

    /// Takes over what is known about health by now; seats and bindings stay.
    pub(crate) fn refresh(&mut self, now: &[Seat]) {
        for seat in &mut self.seats {
            seat.healthy = now.iter().any(|other| other.provider == seat.provider && other.healthy);
        }
    }

    /// The failure domain of a provider.
    pub(crate) fn domain(&self, provider: &ProviderId) -> Option<&FailureDomain> {
        self.seats.iter().find(|seat| seat.provider == *provider).map(|seat| &seat.domain)
    }
}

/// Up to `count` seats of distinct domains among those that `admit`.
fn draw_distinct(seats: &[Seat], count: usize, rng: &mut impl CryptoRng, admit: impl Fn(&Seat) -> bool) -> Vec<usize> {
    let candidates: Vec<Candidate> =
        seats.iter().map(|seat| Candidate { domain: seat.domain.clone(), weight: if admit(seat) { seat.weight } else { 0 } }).collect();
    let mut domains: Vec<&FailureDomain> = candidates.iter().filter(|c| c.weight > 0).map(|c| &c.domain).collect();
    domains.sort();
    domains.dedup();
    place(&candidates, count.min(domains.len()), rng).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn seats(health: &[bool]) -> Vec<Seat> {
        let seat = |(at, &healthy): (usize, &bool)| Seat {
            provider: ProviderId::new(&format!("p{at}")).unwrap(),
            domain: FailureDomain::new(&format!("d{at}")),
            weight: 1,
            healthy,
        };
        health.iter().enumerate().map(seat).collect()
    }

    #[test]
    fn the_sick_are_drawn_last_and_spares_never_share_a_domain() {
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..50 {
            let mut plan = Plan::draw(seats(&[true, false, true, true, true, true]), 5, &mut rng).unwrap();
            assert!(plan.homes().iter().all(|(_, provider)| provider.as_str() != "p1"), "five healthy ones are enough");
            assert!(plan.spare(0, &mut rng).is_none(), "the only free domain is down");
        }
        let mut plan = Plan::draw(seats(&[true, true, true, true]), 3, &mut rng).unwrap();
        let spare = plan.spare(2, &mut rng).unwrap();
        assert_eq!(plan.homes().iter().filter(|(shard, _)| *shard == 2).count(), 2);
        assert!(plan.homes().contains(&(2, spare)));
        assert!(plan.spare(1, &mut rng).is_none());
        assert!(Plan::draw(seats(&[true, true]), 3, &mut rng).is_none());
    }
}
