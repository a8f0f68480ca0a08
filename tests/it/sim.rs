//! Bounded simulation for every test run; `cargo run -p diaspore-tests --example sim -- SEED` replays one.

use diaspore_tests::sim;

/// Seeds that run every time. Long campaigns: `just sims FROM TO`.
const SEEDS: std::ops::Range<u64> = 0..120;
const STEPS: usize = 40;

#[test]
fn seeds_hold() {
    let mut acknowledged = 0;
    for seed in SEEDS {
        match sim::run_blocking(seed, STEPS) {
            Ok(report) => acknowledged += report.acknowledged,
            Err(violation) => panic!("{violation}"),
        }
    }
    assert!(acknowledged > SEEDS.end, "the script hardly wrote anything: {acknowledged}");
}

#[test]
fn a_seed_replays_request_by_request() {
    for seed in 0..4 {
        let (one, two) = (sim::run_blocking(seed, STEPS).unwrap(), sim::run_blocking(seed, STEPS).unwrap());
        assert_eq!(one.lines, two.lines, "seed {seed}");
        assert_eq!(one.trace, two.trace, "seed {seed}");
    }
}
