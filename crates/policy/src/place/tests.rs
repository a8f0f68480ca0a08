use std::collections::BTreeSet;

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;

fn candidates(weights: &[(&str, u32)]) -> Vec<Candidate> {
    weights.iter().map(|(domain, weight)| Candidate { domain: FailureDomain::new(domain), weight: *weight }).collect()
}

fn equal(count: usize) -> Vec<Candidate> {
    (0..count).map(|i| Candidate { domain: FailureDomain::new(&format!("d{i}")), weight: 100 }).collect()
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// Sum of (observed - expected)^2 / expected.
fn chi_squared(observed: &[u32], expected: f64) -> f64 {
    observed.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
}

#[test]
fn one_shard_per_domain() {
    let accounts = candidates(&[("a", 1), ("a", 1000), ("b", 5), ("c", 7), ("c", 7), ("d", 1)]);
    let mut rng = rng(1);
    for _ in 0..500 {
        let chosen = place(&accounts, 4, &mut rng).unwrap();
        let domains: BTreeSet<&str> = chosen.iter().map(|i| accounts[*i].domain.as_str()).collect();
        assert_eq!(domains.len(), 4);
    }
}

/// All 56 sets of 5 out of 8 domains come up equally often (55 degrees of freedom: 0.1 % of fair draws exceed 93.2).
#[test]
fn every_set_of_domains_is_equally_likely() {
    let (accounts, mut rng) = (equal(8), rng(2));
    let mut sets = std::collections::BTreeMap::<BTreeSet<usize>, u32>::new();
    let rounds = 28_000_u32;
    for _ in 0..rounds {
        *sets.entry(place(&accounts, 5, &mut rng).unwrap().into_iter().collect()).or_default() += 1;
    }
    assert_eq!(sets.len(), 56);
    let counts: Vec<u32> = sets.into_values().collect();
    let statistic = chi_squared(&counts, f64::from(rounds) / 56.0);
    assert!(statistic < 93.2, "chi-squared {statistic}");
}

/// Each domain is as likely to hold shard 0 as any other place (4 degrees of freedom: 0.1 % exceed 18.5).
#[test]
fn every_position_is_equally_likely() {
    let (accounts, mut rng) = (equal(5), rng(3));
    let mut positions = [[0_u32; 5]; 5];
    for _ in 0..10_000 {
        for (shard, index) in place(&accounts, 5, &mut rng).unwrap().into_iter().enumerate() {
            positions[shard][index] += 1;
        }
    }
    for counts in positions {
        let statistic = chi_squared(&counts, 2000.0);
        assert!(statistic < 18.5, "chi-squared {statistic} of {counts:?}");
    }
}

#[test]
fn weights_are_shares_of_the_first_draw() {
    let accounts = candidates(&[("a", 10), ("b", 20), ("c", 70)]);
    let mut rng = rng(4);
    let mut first = [0_u32; 3];
    for _ in 0..10_000 {
        first[place(&accounts, 1, &mut rng).unwrap()[0]] += 1;
    }
    // Three standard deviations of a binomial share.
    assert!(first[0].abs_diff(1000) < 90 && first[1].abs_diff(2000) < 120 && first[2].abs_diff(7000) < 138, "{first:?}");
}

#[test]
fn weight_zero_is_never_chosen_and_too_few_domains_are_refused() {
    let accounts = candidates(&[("a", 0), ("b", 1), ("c", 1), ("c", 1)]);
    let mut rng = rng(5);
    for _ in 0..200 {
        assert!(!place(&accounts, 2, &mut rng).unwrap().contains(&0));
    }
    assert_eq!(place(&accounts, 3, &mut rng), Err(TooFewDomains { wanted: 3, domains: 2 }));
    assert_eq!(place(&[], 1, &mut rng), Err(TooFewDomains { wanted: 1, domains: 0 }));
    assert_eq!(place(&[], 0, &mut rng), Ok(vec![]));
}

#[test]
fn the_largest_weights_do_not_overflow() {
    let accounts: Vec<Candidate> = equal(32).into_iter().map(|c| Candidate { weight: u32::MAX, ..c }).collect();
    assert_eq!(place(&accounts, 32, &mut rng(6)).unwrap().into_iter().collect::<BTreeSet<_>>().len(), 32);
}

#[test]
fn the_same_generator_gives_the_same_placement() {
    let accounts = equal(20);
    assert_eq!(place(&accounts, 8, &mut rng(7)), place(&accounts, 8, &mut rng(7)));
    assert_ne!(place(&accounts, 8, &mut rng(7)), place(&accounts, 8, &mut rng(8)));
}
