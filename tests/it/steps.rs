//! Death at every step of every operation: each story is told with the process dying one step later each time.

use diaspore_tests::sim::steps::{self, Story};

fn tell(stories: &[Story]) {
    for story in stories {
        match steps::walk_blocking(*story) {
            Ok(steps) => assert!(steps > 8, "{story:?} has {steps} steps: hardly anything was tried"),
            Err(violation) => panic!("{violation}"),
        }
    }
}

#[test]
fn whatever_step_a_change_dies_at_the_start_finds_all_or_nothing() {
    tell(&[Story::SmallPut, Story::LargePut, Story::Overwrite, Story::Delete]);
}

#[test]
fn whatever_step_a_start_or_a_stop_dies_at_the_next_start_works() {
    tell(&[Story::Start, Story::Recovery, Story::Shutdown]);
}

#[test]
fn whatever_step_upkeep_dies_at_nothing_alive_is_lost() {
    tell(&[Story::Collect, Story::Compact, Story::Repair]);
}

#[test]
fn whatever_step_a_checkpoint_dies_at_a_recovery_begins_from_what_counts() {
    tell(&[Story::Checkpoint]);
}

#[test]
fn whatever_step_a_change_of_the_master_key_dies_at_one_key_opens_all_and_in_the_end_only_the_new_one() {
    tell(&[Story::Rotate]);
}

#[test]
fn whatever_step_the_leaving_of_an_account_dies_at_the_same_command_ends_it() {
    tell(&[Story::Leave]);
}
