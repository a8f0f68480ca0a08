//! Whether the blocks of a compacted log can be had, and whom that is asked of.

use diaspore_policy::ProviderId;
use diaspore_testkit::FaultPlan;
use tokio::time::Instant;

use super::*;
use crate::blob::tests::fixture::{Fixture, random};
use crate::checkpoint::reference_of;

/// Three of five make a block. Gives the root of a compacted log.
async fn compacted() -> (Fixture, BlockRef) {
    let fx = Fixture::start(5).await;
    fx.put(b"a", &random(3000, 1)).await.unwrap();
    fx.settle().await;
    fx.engine.checkpoint_log().await.unwrap();
    let view = fx.engine.shared().ledger.snapshot().unwrap();
    let root = view.compactions().unwrap().pop().unwrap().compacted.root;
    let reference = reference_of(&view.block(root).unwrap().unwrap().facts);
    (fx, reference)
}

#[tokio::test(start_paused = true)]
async fn any_k_shards_of_the_very_block_are_enough_and_fewer_are_not() {
    let (fx, of) = compacted().await;
    let (shared, none) = (fx.engine.shared(), BTreeSet::new());
    let asked = fx.gets();
    assert!(root(&shared, &of, &none).await.unwrap().covers.0 > 0);
    assert!(fx.gets() - asked <= 5, "whoever has as many as it needs asks nobody again");
    fx.stores[0].lose_everything();
    fx.stores[3].lose_everything();
    assert!(root(&shared, &of, &none).await.unwrap().covers.0 > 0);
    look(&shared, &of, &none).await.unwrap();
    let another = BlockRef { manifest_hash: diaspore_block::id::Hash32::from_bytes([1; 32]), ..of.clone() };
    assert!(!look(&shared, &another, &none).await.unwrap_err().may_come, "what stands there is another block");
    fx.stores[1].lose_everything();
    // Everybody says what it has: nothing is waited for, and nobody is asked twice.
    let (begun, asked) = (Instant::now(), fx.gets());
    let missing = root(&shared, &of, &none).await.unwrap_err();
    assert!(!missing.may_come && missing.why.contains("2 of the 3 shards"), "{missing:?}");
    assert_eq!((begun.elapsed().as_secs(), fx.gets() - asked), (0, 5));
    assert!(!look(&shared, &of, &none).await.unwrap_err().may_come);
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_may_have_what_is_missing_unless_it_is_lost() {
    let (fx, of) = compacted().await;
    let (shared, none) = (fx.engine.shared(), BTreeSet::new());
    fx.stores[0].lose_everything();
    fx.stores[1].lose_everything();
    fx.stores[2].set_faults(FaultPlan::down());
    let begun = Instant::now();
    assert!(fetch(&shared, &of, &none).await.unwrap_err().may_come);
    assert!(begun.elapsed() >= PAUSES.into_iter().sum::<Duration>(), "{:?}", begun.elapsed());
    let silent = shared.fleet.provider(&ProviderId::new("p2").unwrap()).unwrap().domain.clone();
    let begun = Instant::now();
    assert!(!fetch(&shared, &of, &BTreeSet::from([silent])).await.unwrap_err().may_come);
    assert!(begun.elapsed() < PAUSES[0], "{:?}", begun.elapsed());
    // With two silent and one that has it there may be enough, with one that is silent there is not.
    fx.stores[3].lose_everything();
    assert!(!fetch(&shared, &of, &none).await.unwrap_err().may_come);
    fx.stores[1].set_faults(FaultPlan::down());
    assert!(fetch(&shared, &of, &none).await.unwrap_err().may_come);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_meanwhile_is_asked_again() {
    let (fx, of) = compacted().await;
    let (shared, none) = (fx.engine.shared(), BTreeSet::new());
    fx.stores[0].lose_everything();
    fx.stores[1].lose_everything();
    fx.stores[2].set_faults(FaultPlan::down());
    let back = async {
        tokio::time::sleep(PAUSES[0]).await;
        fx.stores[2].set_faults(FaultPlan::honest());
    };
    let (found, ()) = futures::join!(root(&shared, &of, &none), back);
    assert!(found.unwrap().covers.0 > 0);
}
