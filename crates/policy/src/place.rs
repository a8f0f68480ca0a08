//! Where the shards of a block go: a weighted random draw over distinct failure domains.
//!
//! Random, so that no provider can foresee or steer which blocks it holds together with whom; weighted, so that a nearly full,
//! dear or slow account gets less. The generator is the caller's: the operating system's in service, a seeded one in simulation.

use rand::CryptoRng;

use crate::account::FailureDomain;

/// One account a shard could go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The account's failure domain; one block uses a domain at most once.
    pub domain: FailureDomain,
    /// Relative share of draws. 0 = never.
    pub weight: u32,
}

/// Fewer distinct domains with a positive weight than shards to place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot place {wanted} shards: only {domains} distinct failure domains have a positive weight; add providers or raise a weight")]
pub struct TooFewDomains {
    /// Shards to place.
    pub wanted: usize,
    /// Distinct usable domains.
    pub domains: usize,
}

/// Draws `n` candidates of pairwise distinct domains; returns their indexes, shard 0 first.
///
/// Successive sampling: each draw picks a remaining candidate with probability weight / remaining weight, then strikes out its
/// whole domain. The order is random too, so data and parity shards spread alike. Time O(n * candidates).
pub fn place(candidates: &[Candidate], n: usize, rng: &mut impl CryptoRng) -> Result<Vec<usize>, TooFewDomains> {
    let mut remaining: Vec<(usize, &Candidate)> = candidates.iter().enumerate().filter(|(_, c)| c.weight > 0).collect();
    let mut chosen = Vec::with_capacity(n);
    while chosen.len() < n {
        let total: u64 = remaining.iter().map(|(_, c)| u64::from(c.weight)).sum();
        if total == 0 {
            return Err(TooFewDomains { wanted: n, domains: chosen.len() });
        }
        let mut ticket = below(total, rng);
        let drawn = remaining.iter().find(|(_, candidate)| {
            let weight = u64::from(candidate.weight);
            let hit = ticket < weight;
            ticket = ticket.saturating_sub(weight);
            hit
        });
        let Some(&(index, candidate)) = drawn else {
            return Err(TooFewDomains { wanted: n, domains: chosen.len() });
        };
        chosen.push(index);
        remaining.retain(|(_, other)| other.domain != candidate.domain);
    }
    Ok(chosen)
}

/// Uniform in `0..bound` without modulo bias: draws above the largest multiple of `bound` are thrown away. `bound` > 0.
fn below(bound: u64, rng: &mut impl CryptoRng) -> u64 {
    let limit = u64::MAX - u64::MAX % bound;
    loop {
        let draw = rng.next_u64();
        if draw < limit {
            return draw % bound;
        }
    }
}

#[cfg(test)]
mod tests;
