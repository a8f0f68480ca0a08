//! The fault atlas (docs/fault-atlas.md): what must be survived is survived, what must be reported is reported.

use std::collections::BTreeMap;

use diaspore_tests::sim::atlas::{self, Case};

#[test]
fn every_combination_of_faults_comes_out_as_the_numbers_say() {
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::new();
    for case in Case::all() {
        let expected = case.expected();
        match atlas::play_blocking(case) {
            Ok(outcome) if outcome == expected => *seen.entry(format!("{outcome:?}")).or_insert(0) += 1,
            Ok(outcome) => wrong.push(format!("{case}: {outcome:?}, expected {expected:?}")),
            Err(violation) => wrong.push(format!("{case}: {violation}, expected {expected:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(seen.len(), 7, "every outcome occurs: {seen:?}");
}
