use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::{HOURS_PER_YEAR, Model, binomial_loss, simulate};

fn close(left: f64, right: f64, relative: f64) -> bool {
    (left - right).abs() <= relative * right.abs()
}

fn model() -> Model {
    Model {
        providers: 5,
        blocks: 1000,
        years: 1.0,
        k: 3,
        n: 5,
        provider_losses_per_year: 0.0,
        shard_losses_per_year: 0.1,
        repair_hours: None,
        repairs_per_hour: None,
    }
}

#[test]
fn without_repair_the_chain_is_the_binomial() {
    // By hand: 2 shards, one suffices, each gone with p = 1/2: both are gone with 1/4.
    assert!(close(binomial_loss(2, 1, 0.5), 0.25, 1e-12));
    // 5 shards, 2 may go, p = 0.1: 10 p^3 q^2 + 5 p^4 q + p^5 = 0.0081 + 0.00045 + 0.00001.
    assert!(close(binomial_loss(5, 2, 0.1), 0.00856, 1e-12));
    for (k, n, rate, years) in [(1, 2, 0.3, 1.0), (3, 5, 0.1, 1.0), (3, 5, 0.01, 10.0), (10, 16, 0.05, 3.0), (4, 4, 0.2, 2.0)] {
        let chain = Model { k, n, shard_losses_per_year: rate, years, ..model() }.formula();
        let expected = binomial_loss(n, n - k, -(-rate * years).exp_m1());
        assert!(close(chain.loss_probability, expected, 1e-9), "{k} of {n}: {} {expected}", chain.loss_probability);
    }
}

#[test]
fn the_mean_time_to_loss_is_that_of_the_textbook_mirror() {
    // Two copies, failure rate a, repair rate b: (3a + b) / 2a^2.
    let (a, b) = (0.5, HOURS_PER_YEAR / 24.0);
    let mirror = Model { providers: 2, k: 1, n: 2, shard_losses_per_year: a, repair_hours: Some(24.0), ..model() };
    let formula = mirror.formula();
    assert!(close(formula.mean_years_to_loss, (3.0 * a + b) / (2.0 * a * a), 1e-12));
    // Where losses are rare and repair is quick the loss is a Poisson event of that mean.
    assert!(close(formula.loss_probability, -(-1.0 / formula.mean_years_to_loss).exp_m1(), 5e-3));
}

#[test]
fn tiny_probabilities_keep_their_digits() {
    let one = |years| Model { years, shard_losses_per_year: 1e-3, repair_hours: Some(24.0), ..model() }.formula();
    let (year, decade) = (one(1.0), one(10.0));
    assert!(year.loss_probability > 0.0 && year.loss_probability < 1e-12);
    assert!(close(decade.loss_probability, 10.0 * year.loss_probability, 0.02), "{} {}", decade.loss_probability, year.loss_probability);
    assert!(close(year.loss_probability, 1.0 / year.mean_years_to_loss, 0.02));
    assert!(close(decade.nines, year.nines, 0.01));
}

#[test]
fn nothing_fails_nothing_is_lost() {
    let still = Model { shard_losses_per_year: 0.0, ..model() };
    assert!(still.formula().loss_probability.abs() < f64::MIN_POSITIVE);
    assert!(still.formula().mean_years_to_loss.is_infinite());
    let run = simulate(&still, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
    assert_eq!(run, super::Simulated::default());
}

/// Independent losses make the number of lost blocks a binomial: five standard deviations around its mean.
#[test]
fn the_simulation_agrees_with_the_chain_where_both_are_exact() {
    let cases = [
        Model { blocks: 40_000, ..model() },
        Model { blocks: 20_000, providers: 20, shard_losses_per_year: 2.0, repair_hours: Some(200.0), years: 1.5, ..model() },
        Model { blocks: 10_000, providers: 9, k: 6, n: 9, shard_losses_per_year: 1.0, repair_hours: Some(500.0), years: 3.0, ..model() },
    ];
    for (seed, case) in (1..).zip(cases) {
        let expected = case.formula();
        let found = simulate(&case, &mut ChaCha20Rng::seed_from_u64(seed)).unwrap();
        let lost = f64::from(u32::try_from(found.lost_blocks).unwrap());
        let deviation = (expected.expected_lost_blocks * (1.0 - expected.loss_probability)).sqrt();
        assert!(lost > 50.0, "the case shows nothing: {lost}");
        assert!((lost - expected.expected_lost_blocks).abs() < 5.0 * deviation, "{lost} for {}", expected.expected_lost_blocks);
    }
}

/// Blocks that share providers are lost together, but not more often: the mean over many runs is the chain's.
#[test]
fn correlated_losses_keep_the_mean_and_come_in_heaps() {
    let case = Model {
        blocks: 200,
        providers: 8,
        provider_losses_per_year: 0.6,
        shard_losses_per_year: 0.0,
        repair_hours: Some(300.0),
        years: 5.0,
        ..model()
    };
    let runs = 400;
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let (mut lost, mut squares, mut events) = (0.0, 0.0, 0.0);
    for _ in 0..runs {
        let found = simulate(&case, &mut rng).unwrap();
        let blocks = f64::from(u32::try_from(found.lost_blocks).unwrap());
        lost += blocks;
        squares += blocks * blocks;
        events += f64::from(u32::try_from(found.loss_events).unwrap());
    }
    let (runs, expected) = (f64::from(runs), case.formula().expected_lost_blocks);
    let mean = lost / runs;
    let error = ((squares / runs - mean * mean) / runs).sqrt();
    assert!((mean - expected).abs() < 4.0 * error, "{mean} +- {error} for {expected}");
    assert!(lost > 2.0 * events, "one provider's end takes several blocks: {lost} in {events}");
}

#[test]
fn a_bound_on_repairs_costs_blocks() {
    let free = Model { blocks: 3000, providers: 10, provider_losses_per_year: 1.0, repair_hours: Some(24.0), years: 3.0, ..model() };
    let bound = Model { repairs_per_hour: Some(3.0), ..free };
    let lost = |model: &Model| simulate(model, &mut ChaCha20Rng::seed_from_u64(3)).unwrap().lost_blocks;
    assert!(lost(&bound) > 2 * lost(&free) + 20, "{} {}", lost(&bound), lost(&free));
}

#[test]
fn a_seed_repeats_its_run() {
    let case = Model { provider_losses_per_year: 0.5, repair_hours: Some(24.0), ..model() };
    let run = |seed| simulate(&case, &mut ChaCha20Rng::seed_from_u64(seed)).unwrap();
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn numbers_without_a_meaning_are_refused() {
    let wrong = [
        Model { k: 6, ..model() },
        Model { k: 0, ..model() },
        Model { n: 33, providers: 40, ..model() },
        Model { providers: 4, ..model() },
        Model { blocks: 0, ..model() },
        Model { years: f64::NAN, ..model() },
        Model { shard_losses_per_year: -1.0, ..model() },
        Model { repair_hours: Some(0.0), ..model() },
        Model { repairs_per_hour: Some(f64::INFINITY), ..model() },
    ];
    for model in wrong {
        assert!(model.check().is_err(), "{model:?}");
        assert!(simulate(&model, &mut ChaCha20Rng::seed_from_u64(1)).is_err());
    }
}
