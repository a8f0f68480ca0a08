//! Who may hold shards of a block, and who is well enough to be given one.

use diaspore_block::id::IncarnationId;
use diaspore_block::manifest::BlockKind;
use diaspore_policy::ProviderSpec;
use diaspore_provider::{Fleet, FleetOptions};

use super::sending::One;
use super::*;
use crate::commit::Committer;
use crate::fence::Fence;
use crate::layout::Layout;
use crate::modes;
use crate::shared::{Stage, StageCell};

fn id(at: usize) -> ProviderId {
    ProviderId::new(&format!("p{at}")).unwrap()
}

/// The engine as it would be with another fleet and another layout.
fn instead(one: &One, fleet: impl Fn(ProviderSpec) -> ProviderSpec, layout: Option<Layout>) -> Shared {
    let mut ground = one.shared.ground.clone();
    let members = one.fx.stores.iter().zip(one.shared.fleet.providers());
    let members = members.map(|(store, spec)| (fleet(spec.clone()), Arc::new(store.clone()) as _));
    ground.fleet = Fleet::from_stores(members.collect(), FleetOptions::default());
    let stage = StageCell::new(Stage::Active);
    Shared::new(ground, (one.shared.writer, layout), Fence::none(), Committer::new(1, 1, stage.clone()), stage)
}

fn names(seats: &[Seat]) -> Vec<&str> {
    seats.iter().map(|seat| seat.provider.as_str()).collect()
}

fn state(shared: &Shared, facts: &BlockFacts, at: usize) -> (bool, bool) {
    seats(shared, facts).iter().find(|seat| seat.provider == id(at)).map(|seat| (seat.healthy, seat.alive)).unwrap()
}

/// Whoever starts next counts the silence of the claim's domains alone: a commit block that lay elsewhere could be missed.
#[tokio::test(start_paused = true)]
async fn commit_blocks_of_an_incarnation_stay_within_the_domains_that_its_claim_names_and_no_others() {
    let one = One::at(6).await;
    let claimed = one.shared.layout.clone().unwrap();
    let domain = |at: usize| one.shared.fleet.provider(&id(at)).unwrap().domain.clone();
    let members = claimed.members.iter().filter(|member| **member != domain(4)).cloned().collect();
    let narrow = instead(&one, |spec| spec, Some(Layout { members, ..claimed }));
    let data = BlockFacts::clone(&one.coded.facts());
    assert_eq!(data.incarnation, narrow.writer.incarnation);
    assert_eq!(seats(&narrow, &data).len(), 6, "data lies anywhere");
    for kind in [BlockKind::Commit, BlockKind::Decision] {
        let own = BlockFacts { kind, ..data.clone() };
        assert_eq!(names(&seats(&narrow, &own)), ["p0", "p1", "p2", "p3", "p5"]);
        let earlier = BlockFacts { incarnation: IncarnationId::from_bytes([9; 16]), ..own };
        assert_eq!(seats(&narrow, &earlier).len(), 6, "what an earlier one claimed is not known any more");
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_without_weight_or_outside_the_policy_has_no_seat() {
    let one = One::at(6).await;
    let weight = |spec: ProviderSpec| ProviderSpec { weight: if spec.id == id(1) { 0 } else { spec.weight }, ..spec };
    let without = instead(&one, weight, one.shared.layout.clone());
    assert_eq!(names(&seats(&without, &one.coded.facts())), ["p0", "p2", "p3", "p4", "p5"]);
    let vendor = |spec: ProviderSpec| ProviderSpec { vendor: if spec.id == id(2) { "excluded".to_owned() } else { spec.vendor }, ..spec };
    let mut excluded = instead(&one, vendor, one.shared.layout.clone());
    excluded.ground.config.profile.exclude_vendors = ["excluded".to_owned()].into();
    assert_eq!(names(&seats(&excluded, &one.coded.facts())), ["p0", "p1", "p3", "p4", "p5"]);
}

#[tokio::test(start_paused = true)]
async fn who_is_down_full_or_proven_to_lie_is_not_well_and_a_liar_still_answers() {
    let one = One::at(6).await;
    let facts = one.coded.facts();
    assert!((0..6).all(|at| state(&one.shared, &facts, at) == (true, true)));
    one.shared.fleet.report_lie(&id(0), "a test");
    assert_eq!(state(&one.shared, &facts, 0), (false, true));
    one.fx.stores[1].set_faults(FaultPlan::down());
    while one.shared.fleet.health(&id(1)).unwrap().state != HealthState::Down {
        let _none = one.shared.fleet.exists(&id(1), "x", Deadline::control()).await;
    }
    assert_eq!(state(&one.shared, &facts, 1), (false, false));
    one.fx.stores[2].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Full).on(&[Op::Put])));
    let full = one.shared.fleet.put(&id(2), "x", Vec::new(), Deadline::control()).await;
    assert_eq!(full.unwrap_err().kind, ProviderErrorKind::Full);
    assert_eq!(state(&one.shared, &facts, 2), (false, false));
    assert_eq!(state(&one.shared, &facts, 3), (true, true));
}

/// An account with a poor quarter of an hour behind it takes a shard that nobody better can.
#[tokio::test(start_paused = true)]
async fn a_poor_score_is_not_well_and_still_answers() {
    let one = One::at(6).await;
    let facts = one.coded.facts();
    let audited = |good| one.shared.fleet.report_audit(&id(3), good);
    [true, false, true, false].into_iter().for_each(audited);
    assert_eq!(one.shared.fleet.health(&id(3)).unwrap().score, Some(POOR_SCORE));
    assert_eq!(state(&one.shared, &facts, 3), (true, true));
    audited(false);
    assert_eq!(state(&one.shared, &facts, 3), (false, true));
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_being_emptied_takes_a_shard_only_where_there_is_no_other_place() {
    for (providers, crowded) in [(6, false), (5, true)] {
        let one = One::at(providers).await;
        let facts = one.coded.facts();
        let set = async |mode| modes::set(&one.shared, diaspore_block::id::PrincipalId::NIL, &id(1), mode, "a test").await.unwrap();
        set(ProviderMode::Draining).await;
        assert_eq!(state(&one.shared, &facts, 1), (false, crowded), "{providers}");
        set(ProviderMode::Quarantined).await;
        assert_eq!(state(&one.shared, &facts, 1), (false, false), "{providers}");
        assert_eq!(state(&one.shared, &facts, 2), (true, true), "{providers}");
        assert_eq!(seats(&one.shared, &facts).len(), providers, "homes follow from the order of all");
    }
}
