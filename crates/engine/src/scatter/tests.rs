//! One block on its way to its providers.

mod seats;
mod sending;

use diaspore_block::block;
use diaspore_testkit::{Fault, FaultPlan, HostileStore, Misbehaviour, Op};

use super::*;
use crate::blob::tests::fixture::Fixture;

/// A provider failed, its shard was on its way to a spare domain when the others made the quorum: the note named that shard twice, which
/// no record may, and whatever was to be committed with it was refused. Found by leaving a dead provider.
#[test]
fn a_shard_that_was_tried_twice_has_one_place() {
    let places = |list: &[(u8, &str)]| list.iter().map(|(shard, home)| (*shard, (*home).to_owned())).collect::<Vec<_>>();
    let all = placements_of(&places(&[(0, "a"), (2, "c")]), &places(&[(0, "a"), (1, "b"), (1, "d"), (2, "c"), (3, "e")]));
    let shown: Vec<(u8, &str, bool)> = all.iter().map(|place| (place.shard, place.provider.as_str(), place.acked)).collect();
    assert_eq!(shown, [(0, "a", true), (1, "b", false), (2, "c", true), (3, "e", false)]);
}

/// Its home failed and a spare took it: an older name of the home sorts before the spare's, and the acknowledgement would be forgotten.
#[test]
fn where_a_shard_is_durable_comes_before_where_it_was_tried() {
    let places = |list: &[(u8, &str)]| list.iter().map(|(shard, home)| (*shard, (*home).to_owned())).collect::<Vec<_>>();
    let all = placements_of(&places(&[(0, "b")]), &places(&[(0, "a"), (0, "b"), (1, "b")]));
    assert_eq!(all, [Placement { shard: 0, provider: "b".to_owned(), acked: true }]);
}

/// Its home was slow, a spare was asked too, and both failed: the home first, the spare for good. The home was back at once and nobody asked
/// it any more, as only the last to fail was tried again; with a third domain down the log stood still although k + 1 answered.
#[tokio::test(start_paused = true)]
async fn a_shard_is_tried_again_wherever_it_was_tried() {
    let fx = Fixture::start(6).await;
    let shared = fx.engine.shared();
    let slot = open_bulk(&shared).unwrap();
    let log = diaspore_block::manifest::LogState { epoch: slot.epoch, k_floor: slot.geometry.k(), ..Default::default() };
    let signed = block::encode(vec![1; 1000], slot.geometry, [7; 32]).unwrap().sign(slot.position, 0, log, &shared.keys.identity);
    let coded = Arc::new(Coded::new(signed, Vec::new()));
    let facts = coded.facts();
    let homes = Plan::draw(seats(&shared, &facts), facts.geometry.n(), facts.id).unwrap().homes();
    let store = |id: &ProviderId| fx.stores.iter().find(|store| store.name() == id.as_str()).unwrap();
    let home = |of: u8| store(&homes.iter().find(|(shard, _)| *shard == of).unwrap().1);
    let spare = fx.stores.iter().find(|store| homes.iter().all(|(_, home)| home.as_str() != store.name())).unwrap();
    let fails_after = |store: &HostileStore, millis: u64| {
        let slow = Misbehaviour::Latency { fixed: Duration::from_millis(millis), jitter: Duration::ZERO };
        let plan = FaultPlan::from(Fault::always(slow).on(&[Op::Put])).with(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put]));
        store.set_faults(plan);
    };
    fails_after(home(0), 3000);
    fails_after(home(1), 2500);
    fails_after(spare, 1500);
    let mut handle = spawn(&shared, coded, Purpose::Bulk, None);
    tokio::time::sleep(Duration::from_millis(3200)).await;
    home(0).set_faults(FaultPlan::honest());
    let placements = handle.quorum().await.unwrap();
    let acked: Vec<u8> = placements.iter().filter(|place| place.acked).map(|place| place.shard).collect();
    assert_eq!(acked, [0, 2, 3, 4]);
}
