//! What becomes of a block whose chunks moved, when not all went well with the block that they moved to.

use diaspore_block::id::PrincipalId;

use super::*;
use crate::api::Caller;
use crate::scrub::proven_lost;

const THOROUGH: Asked = Asked { max_dead_permille: Some(50), ..NOW };

impl Fixture {
    /// A blob that shares its ends with a longer one that is gone: what it reads, and the blocks that should be emptied.
    async fn half_dead(&self) -> (Vec<u8>, BTreeSet<BlockId>) {
        let data = random(24 * MIB, 11);
        self.put(b"whole", &data).await.unwrap();
        self.settle().await;
        let ends: Vec<u8> = [&data[..2 * MIB], &data[22 * MIB..]].concat();
        self.put(b"ends", &ends).await.unwrap();
        self.settle().await;
        self.gone(b"whole").await;
        self.settle().await;
        (ends, self.block_of(b"ends"))
    }

    fn kept(&self, blocks: &BTreeSet<BlockId>) -> BTreeSet<BlockId> {
        let view = self.engine.shared().ledger.snapshot().unwrap();
        blocks.iter().copied().filter(|block| view.keeps(*block).unwrap()).collect()
    }

    fn acknowledge_and_drop(&self, stores: &[usize], late: Duration) {
        let late = Misbehaviour::Latency { fixed: late, jitter: Duration::ZERO };
        for store in stores {
            let lies = Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Put]);
            self.stores[*store].set_faults(FaultPlan::from(lies).with(Fault::always(late).on(&[Op::Put])));
        }
    }

    fn take_no_shards(&self, store: usize) {
        self.stores[store].set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put])));
    }

    async fn mend(&self) {
        for store in &self.stores {
            store.set_faults(FaultPlan::honest());
        }
        // Until the scores forget what was.
        tokio::time::sleep(Duration::from_mins(30)).await;
    }
}

/// One account takes no shards while blocks are emptied: what they were emptied into never gets its last one. Hours later it still does not.
#[tokio::test(start_paused = true)]
async fn a_block_that_was_emptied_in_vain_stays_until_its_heir_is_whole() {
    let fx = Fixture::start(5).await;
    let (ends, before) = fx.half_dead().await;
    fx.take_no_shards(0);
    let report = fx.collect(THOROUGH).await;
    assert!(report.failed_moves > 0 && report.moved_bytes == 0, "{report:?}");
    let emptied = &before - &fx.block_of(b"ends");
    assert!(!emptied.is_empty(), "it is read from new blocks already");
    for _ in 0..3 {
        let report = fx.collect(NOW).await;
        assert!(report.dead_blocks >= emptied.len() as u64, "{report:?}");
        assert!(report.inherited_blocks >= emptied.len() as u64, "{report:?}");
        assert_eq!(fx.kept(&emptied), emptied, "four shards of five are no reason to drop five");
    }
    fx.mend().await;
    fx.settle().await;
    fx.collect(NOW).await;
    assert!(fx.kept(&emptied).is_empty(), "now they go");
    fx.forget();
    assert!(fx.read(b"ends").await.unwrap() == ends);
}

/// Three failures where two are provided for, but none of them when the blob was written: what it is read from must not come to hang on
/// accounts that acknowledge and drop.
#[tokio::test(start_paused = true)]
async fn chunks_do_not_move_to_a_block_that_its_providers_do_not_give_back() {
    let fx = Fixture::start(5).await;
    let (ends, before) = fx.half_dead().await;
    fx.take_no_shards(0);
    fx.acknowledge_and_drop(&[1, 2], Duration::ZERO);
    let report = fx.collect(THOROUGH).await;
    assert!(report.failed_moves > 0 && report.new_blocks == 0, "{report:?}");
    assert_eq!(fx.block_of(b"ends"), before, "it is read from where it was");
    let objects =
        || fx.stores.iter().map(|store| store.objects().iter().filter(|(path, _)| path.find('/') == Some(2)).count()).sum::<usize>();
    let stored = objects();
    for _ in 0..3 {
        let report = fx.collect(THOROUGH).await;
        assert!(report.failed_moves == 1 && report.new_blocks == 0, "{report:?}");
        assert!(report.providers.values().all(|found| found.pending == 0), "what was not given back is taken back: {report:?}");
    }
    assert_eq!(objects(), stored, "an account that gives nothing back makes no garbage at the others");
    assert_eq!(fx.kept(&before), before);
    fx.forget();
    assert!(fx.read(b"ends").await.unwrap() == ends);
}

/// The last shard of the new block was acknowledged and dropped: reading back finds that, has it repaired, and later collections know.
#[tokio::test(start_paused = true)]
async fn what_reading_back_misses_is_repaired_before_the_old_block_goes() {
    let fx = Fixture::start(5).await;
    let (ends, before) = fx.half_dead().await;
    fx.acknowledge_and_drop(&[4], Duration::from_millis(300));
    let report = fx.collect(THOROUGH).await;
    assert!(report.failed_moves > 0 && report.moved_bytes == 0, "{report:?}");
    let shared = fx.engine.shared();
    let now = fx.block_of(b"ends");
    let (emptied, new) = (&before - &now, &now - &before);
    assert!(!emptied.is_empty());
    let lost = |block: &BlockId| proven_lost(shared.ledger.snapshot().unwrap().check_of(*block).unwrap().as_ref());
    assert!(new.iter().any(|block| lost(block) == 1 && !shared.settlement.is_calm(*block)));
    fx.collect(NOW).await;
    assert_eq!(fx.kept(&emptied), emptied);
    for store in &fx.stores {
        store.set_faults(FaultPlan::honest());
    }
    // Of what was seen nothing is left after a crash: it is read back once more.
    let fx = fx.restart().await;
    fx.settle().await;
    for _ in 0..2 {
        fx.collect(NOW).await;
        tokio::time::sleep(Duration::from_mins(30)).await;
    }
    assert!(fx.kept(&emptied).is_empty(), "now they go");
    for store in &fx.stores[..2] {
        store.set_faults(FaultPlan::down());
    }
    fx.forget();
    assert!(fx.read(b"ends").await.unwrap() == ends);
}

/// Of two tenants nothing moves together. When providers do not give back what they take it will be no better with the second; a shard that one
/// of them dropped says nothing about the next block.
#[tokio::test(start_paused = true)]
async fn a_collection_goes_on_after_one_failure_and_not_when_too_few_give_back() {
    for (droppers, failed) in [(&[3, 4][..], 1), (&[4], 2)] {
        let fx = Fixture::start(5).await;
        let other = Caller { tenant: fx.engine.create_tenant("u").await.unwrap().id, principal: PrincipalId::NIL };
        fx.engine.create_bucket(&other, "bucket").await.unwrap();
        let data = random(4 * MIB, 11);
        for caller in [fx.caller(), other] {
            for (key, bytes) in [(b"whole", &data[..]), (b"part!", &data[..2 * MIB])] {
                fx.engine.put_blob(&caller, "bucket", key, PutOptions::default(), body(bytes)).await.unwrap();
            }
            fx.settle().await;
            fx.engine.delete_blob(&caller, "bucket", b"whole", Precondition::None, None).await.unwrap();
        }
        fx.settle().await;
        fx.acknowledge_and_drop(droppers, Duration::ZERO);
        let report = fx.collect(Asked { max_dead_permille: Some(0), ..NOW }).await;
        assert_eq!((report.failed_moves, report.moved_bytes), (failed, 0), "{report:?}");
        let before = fx.block_of(b"part!");
        assert_eq!(fx.kept(&before), before);
    }
}
