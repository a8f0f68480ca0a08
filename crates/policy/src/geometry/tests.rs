use super::*;
use proptest::prelude::*;

fn profile(r: u8, max: u8, min_k: u8) -> Profile {
    Profile { replication_factor: r, max_cloud_providers: max, min_k, ..Profile::default() }
}

fn plan(r: u8, max: u8, min_k: u8, configured: usize, healthy: usize) -> Result<(u8, u8), TooFew> {
    plan_geometry(&profile(r, max, min_k), configured, healthy).map(|plan| (plan.k, plan.n))
}

#[test]
fn the_arithmetic_of_the_design() {
    assert_eq!(plan(3, 5, 2, 5, 5), Ok((3, 5)), "the defaults: 3-of-5");
    assert_eq!(plan(3, 5, 2, 9, 9), Ok((3, 5)), "more providers than the cap");
    assert_eq!(plan(3, 5, 2, 9, 5), Ok((3, 5)), "four of nine down: still full");
    assert_eq!(plan(3, 5, 2, 5, 4), Ok((2, 4)), "one down: f stays 2, overhead rises");
    assert_eq!(plan(4, 6, 2, 6, 6), Ok((3, 6)), "half the clouds may go at 2.0x");
    assert_eq!(plan(2, 3, 2, 3, 3), Ok((2, 3)));
    assert!(plan(3, 5, 2, 5, 3).is_err(), "k' = 1 would put whole blocks on single providers");
    assert!(plan(2, 3, 2, 3, 2).is_err(), "2-of-3 with one down gives k' = 1");
    assert_eq!(plan(2, 3, 1, 3, 2), Ok((1, 2)), "unless the profile allows it");
    assert!(plan(3, 5, 2, 2, 2).is_err());
    assert!(plan(3, 5, 2, 0, 0).is_err());
}

#[test]
fn a_shrunk_plan_knows_its_full_size() {
    let plan = plan_geometry(&Profile::default(), 5, 4).unwrap();
    assert_eq!(plan, GeometryPlan { k: 2, n: 4, full_k: 3, full_n: 5 });
    assert!(plan.is_shrunk());
    assert_eq!((plan.losses_survived(), plan.quorum(), plan.overhead_permille()), (2, 3, 2000));
    assert!(plan.commit_possible(4) && !plan.commit_possible(3), "commit blocks keep 3-of-5 and need four");
    let full = plan_geometry(&Profile::default(), 5, 5).unwrap();
    assert!(!full.is_shrunk());
    assert_eq!(full.overhead_permille(), 1667);
}

#[test]
fn restart_needs_k_of_at_least_f_plus_one() {
    // PROTOCOL section 4, answer 1: 3-of-5 and 2-of-3 yes, 2-of-4 no.
    let survives = |k, n| GeometryPlan { k, n, full_k: k, full_n: n }.restart_survives_down();
    assert!(survives(3, 5) && survives(2, 3) && survives(4, 6));
    assert!(!survives(2, 4) && !survives(3, 6));
    let shrunk = GeometryPlan { k: 2, n: 4, full_k: 3, full_n: 5 };
    assert!(shrunk.restart_survives_down(), "commit blocks keep the full layout, so the k floor is the full k");
    assert_eq!(shrunk.restart_tolerates_down(), 2);
}

#[test]
fn claim_quorum_is_that_of_the_protocol() {
    assert_eq!([1, 2, 3, 4, 5, 6, 7].map(claim_quorum), [2, 2, 3, 3, 4, 4, 5]);
}

#[test]
fn a_refusal_shows_its_arithmetic_and_the_number_to_change() {
    let too_few_up = plan_geometry(&Profile::default(), 5, 3).unwrap_err();
    assert_eq!(
        too_few_up.to_string(),
        "too few providers: replication factor 3 means surviving f = 3 - 1 = 2 lost domains; \
         n = min(3 healthy of 5 configured, max 5) = 3, k = n - f = 3 - 2 = 1, but k must be at least min_k = 2; \
         4 domains are needed: bring back 1 of the domains that are down"
    );
    let too_few_configured = plan_geometry(&Profile::default(), 3, 3).unwrap_err().to_string();
    assert!(too_few_configured.ends_with("configure 1 more failure domain(s) or lower the replication factor"), "{too_few_configured}");
    let capped = plan_geometry(&profile(5, 5, 2), 9, 9).unwrap_err().to_string();
    assert!(capped.ends_with("raise max_cloud_providers to at least 6 or lower the replication factor"), "{capped}");
}

proptest! {
    /// Whatever the numbers: a plan keeps f and `min_k`, fits the format, needs no more domains than are healthy; a refusal is justified.
    #[test]
    fn plans_keep_their_promise(r in 2_u8..=16, max in 1_u8..=32, min_k in 1_u8..=31, configured in 0_usize..80, down in 0_usize..80) {
        let healthy = configured.saturating_sub(down);
        match plan_geometry(&profile(r, max, min_k), configured, healthy) {
            Ok(plan) => {
                prop_assert_eq!(plan.losses_survived(), r - 1);
                prop_assert!(plan.k >= min_k && plan.k < plan.n && plan.n <= plan.full_n && plan.n <= max);
                prop_assert!(usize::from(plan.n) <= healthy.min(MAX_SHARDS));
                prop_assert_eq!(plan.is_shrunk(), healthy < configured.min(max.into()));
            }
            Err(refusal) => prop_assert!(healthy.min(max.into()) < refusal.needed_domains()),
        }
    }

    /// Two claims acknowledged by a quorum each meet in at least two domains (one may lie), from three domains on.
    #[test]
    fn claim_quorums_meet_in_an_honest_domain(domains in 3_usize..200) {
        let quorum = claim_quorum(domains);
        prop_assert!(quorum <= domains);
        prop_assert!(2 * quorum >= domains + 2);
        prop_assert!(2 * (quorum - 1) < domains + 2, "and no larger than needed");
    }
}
