//! Death at every step of every operation: each story is told with the process dying one step later each time.

use diaspore_tests::sim::steps::{self, Story};

#[test]
fn whatever_step_it_dies_at_the_start_finds_all_or_nothing() {
    for story in Story::ALL {
        match steps::walk_blocking(story) {
            Ok(steps) => assert!(steps > 8, "{story:?} has {steps} steps: hardly anything was tried"),
            Err(violation) => panic!("{violation}"),
        }
    }
}
