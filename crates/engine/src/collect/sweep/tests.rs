//! When a condemned block may be deleted, and whom that is asked of.

use diaspore_block::id::{Seq, Timestamp};
use diaspore_block::record::CondemnReason;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};

use super::*;
use crate::api::Precondition;
use crate::blob::tests::fixture::{Fixture, random};
use crate::collect::{Asked, Collected, collect};

const HOUR: Duration = Duration::from_hours(1);

impl Fixture {
    /// So many blobs of a block each, deleted; their blocks are condemned and lie where they lay.
    async fn condemned(&self, blobs: u64) -> Collected {
        for index in 0..blobs {
            self.put(format!("{index}").as_bytes(), &random(1_500_000, 90 + index)).await.unwrap();
        }
        self.settle().await;
        for index in 0..blobs {
            self.delete(format!("{index}").as_bytes(), Precondition::None, None).await.unwrap();
        }
        self.settle().await;
        let report = collect(&self.engine.shared(), Asked::default()).await.unwrap();
        assert_eq!((report.condemned_blocks, report.swept.blocks, report.swept.waiting), (blobs, 0, blobs), "the grace time runs");
        report
    }

    fn on_record(&self) -> Vec<CondemnedEntry> {
        self.engine.shared().ledger.snapshot().unwrap().all_condemned(None, 1000).unwrap()
    }

    async fn swept(&self, grace: Duration) -> Swept {
        sweep(&self.engine.shared(), grace, None, &Allowance::free()).await.unwrap()
    }
}

#[test]
fn who_failed_often_in_a_row_is_out() {
    let (strikes, one, other) = (Strikes::default(), ProviderId::new("one").unwrap(), ProviderId::new("other").unwrap());
    for _ in 0..OUT - 1 {
        strikes.note(&one, true);
    }
    assert!(!strikes.is_out(&one));
    strikes.note(&one, false);
    for _ in 0..OUT - 1 {
        strikes.note(&one, true);
    }
    assert!(!strikes.is_out(&one), "it answered in between");
    strikes.note(&one, true);
    assert!(strikes.is_out(&one) && !strikes.is_out(&other));
}

#[tokio::test(start_paused = true)]
async fn a_block_goes_when_its_grace_time_is_over_and_nobody_needs_or_moves_it() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let condemned = |ago: Duration, seq: u64| CondemnedEntry {
        block: BlockId::from_bytes([7; 16]),
        seq: Seq(seq),
        time: Timestamp(shared.clock.now().0 - u64::try_from(ago.as_millis()).unwrap()),
        reason: CondemnReason::Dead,
    };
    let due = |ago| is_due(&shared, &condemned(ago, 1), HOUR);
    assert!(!due(Duration::ZERO) && !due(Duration::from_millis(3_599_999)) && due(HOUR) && due(2 * HOUR));
    assert!(is_due(&shared, &condemned(Duration::ZERO, 1), Duration::ZERO), "without a grace time it goes at once");
    // A read that began before it was condemned.
    let reading = shared.keep.lease(Seq(5));
    assert!(is_due(&shared, &condemned(HOUR, 5), HOUR) && !is_due(&shared, &condemned(HOUR, 6), HOUR));
    drop(reading);
    assert!(is_due(&shared, &condemned(HOUR, 6), HOUR));
    let moving = shared.settlement.claim(BlockId::from_bytes([7; 16])).unwrap();
    assert!(!due(2 * HOUR));
    drop(moving);
    assert!(due(2 * HOUR));
}

#[tokio::test(start_paused = true)]
async fn what_is_swept_is_counted_in_blocks_and_bytes_and_only_what_was_asked_for_goes() {
    let fx = Fixture::start(5).await;
    fx.condemned(3).await;
    let before = fx.stored_bytes();
    let all = fx.on_record();
    assert_eq!(fx.swept(HOUR).await, Swept { waiting: 3, ..Swept::default() });
    let only = BTreeSet::from([all[1].block]);
    let shared = fx.engine.shared();
    let view = shared.ledger.snapshot().unwrap();
    let expected: Vec<u64> = all.iter().map(|entry| stored_bytes(&view.block(entry.block).unwrap().unwrap())).collect();
    let swept = sweep(&shared, Duration::ZERO, Some(&only), &Allowance::free()).await.unwrap();
    assert_eq!(swept, Swept { blocks: 1, bytes: expected[1], ..Swept::default() });
    assert_eq!(fx.on_record().len(), 2, "the others are nobody's errand");
    let swept = fx.swept(Duration::ZERO).await;
    assert_eq!((swept.blocks, swept.bytes, swept.waiting), (2, expected[0] + expected[2], 0));
    assert!(fx.on_record().is_empty());
    // A record more or less beside it.
    let freed = before - fx.stored_bytes();
    assert!(freed <= expected.iter().sum::<u64>() && freed + 200_000 > expected.iter().sum::<u64>(), "{freed}");
}

#[tokio::test(start_paused = true)]
async fn trouble_is_told_apart_and_who_was_seen_clean_is_not_asked_again() {
    let fx = Fixture::start(5).await;
    fx.condemned(2).await;
    fx.stores[0].set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Delete])));
    fx.stores[1].set_faults(FaultPlan::from(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Delete])));
    fx.stores[2].set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Get, Op::Head])));
    let swept = fx.swept(Duration::ZERO).await;
    let of = |counts: &BTreeMap<String, u64>| counts.iter().map(|(id, count)| (id.clone(), *count)).collect::<Vec<_>>();
    assert_eq!((swept.blocks, swept.bytes, swept.waiting), (0, 0, 2));
    assert_eq!(of(&swept.failed), [("p0".to_owned(), 2), ("p2".to_owned(), 2)], "it may still be there");
    assert_eq!(of(&swept.kept), [("p1".to_owned(), 2)]);
    fx.stores.iter().for_each(|store| store.set_faults(FaultPlan::honest()));
    let asked = |at: usize| fx.stores[at].requests(Op::Delete);
    let before = [asked(2), asked(3), asked(4)];
    let swept = fx.swept(Duration::ZERO).await;
    assert_eq!((swept.blocks, swept.waiting, swept.failed.len(), swept.kept.len()), (2, 0, 0, 0));
    assert_eq!([asked(2) - before[0], asked(3) - before[1], asked(4) - before[2]], [2, 0, 0]);
    assert!(fx.on_record().is_empty());
}

/// Of a batch, that is: the next one tries again.
#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_asked_a_few_times_and_not_for_the_rest_of_a_batch() {
    let fx = Fixture::start(5).await;
    let blobs = 3 * u64::from(OUT);
    fx.condemned(blobs).await;
    fx.stores[0].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Denied).on(&[Op::Delete])));
    let before = fx.stores[0].requests(Op::Delete);
    let swept = fx.swept(Duration::ZERO).await;
    assert_eq!((swept.waiting, swept.failed["p0"]), (blobs, blobs));
    let asked = fx.stores[0].requests(Op::Delete) - before;
    assert!(asked > 0 && asked < blobs, "{asked} of {blobs}");
    fx.stores[0].set_faults(FaultPlan::honest());
    // Until it is trusted again.
    tokio::time::sleep(HOUR).await;
    assert_eq!(fx.swept(Duration::ZERO).await.blocks, blobs);
}

#[tokio::test(start_paused = true)]
async fn who_is_declared_dead_is_not_asked_and_holds_nothing_up() {
    let fx = Fixture::start(6).await;
    fx.condemned(1).await;
    let shared = fx.engine.shared();
    let set = async |id: &str, mode| {
        let id = ProviderId::new(id).unwrap();
        crate::modes::set(&shared, diaspore_block::id::PrincipalId::NIL, &id, mode, "a test").await.unwrap();
    };
    fx.stores[5].set_faults(FaultPlan::down());
    assert_eq!(fx.swept(Duration::ZERO).await.failed.keys().collect::<Vec<_>>(), ["p5"]);
    set("p4", ProviderMode::Draining).await;
    assert_eq!(targets(&shared).unwrap().len(), 6, "who is left has something still");
    set("p5", ProviderMode::Dead).await;
    assert_eq!(targets(&shared).unwrap().iter().map(ProviderId::as_str).collect::<Vec<_>>(), ["p0", "p1", "p2", "p3", "p4"]);
    assert_eq!(fx.swept(Duration::ZERO).await.blocks, 1);
}

/// In the background, deleting keeps to the requests that the policy allows.
#[tokio::test(start_paused = true)]
async fn deleting_is_spread_over_time_unless_somebody_waits_for_it() {
    let fx = Fixture::start(5).await;
    fx.condemned(6).await;
    let shared = fx.engine.shared();
    let slow = diaspore_policy::RequestBudget { sustained_per_second: 1, burst: 10 };
    let begun = Instant::now();
    let swept = sweep(&shared, Duration::ZERO, None, &Allowance::of(slow)).await.unwrap();
    assert_eq!(swept.blocks, 6);
    // A deletion and a look at five providers for each of six blocks, less what was saved up.
    assert!(begun.elapsed() >= Duration::from_secs(20), "{:?}", begun.elapsed());
}
