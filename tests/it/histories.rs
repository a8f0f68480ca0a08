//! Recorded histories of concurrent clients, with crashes among them, are linearizable key by key.

use diaspore_tests::sim::history::{self, Recorded};

#[test]
fn concurrent_histories_are_linearizable_per_key() {
    let mut sum = Recorded::default();
    for seed in 0..60 {
        match history::record_blocking(seed) {
            Ok(recorded) => {
                sum.told += recorded.told;
                sum.untold += recorded.untold;
                sum.crashes += recorded.crashes;
            }
            Err(violation) => panic!("{violation}"),
        }
    }
    assert!(sum.told > 3000 && sum.untold > 100, "the histories are too tame: {sum:?}");
}
