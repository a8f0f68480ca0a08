//! One shard from one account to another: where it may go, what is asked of whom, and when it counts.

use std::collections::BTreeSet;

use bytes::Bytes;
use diaspore_ledger::BlockEntry;

use super::*;
use crate::blob::tests::one_block::One;
use crate::relocate::mover::{Placed, Stay, place, record, shard_at};

impl One {
    async fn move_from(&self, from: &ProviderId) -> Result<Placed, Stay> {
        place(&self.shared, &self.entry, from, None, false).await
    }

    fn now(&self) -> BlockEntry {
        self.shared.ledger.snapshot().unwrap().block(self.entry.facts.id).unwrap().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_counts_at_its_new_place_when_the_log_says_so_and_then_the_old_one_goes() {
    let one = One::at(7).await;
    let from = &one.homes[3];
    let placed = one.move_from(from).await.unwrap();
    assert_eq!((placed.shard, &placed.from, placed.facts.id), (3, from, one.entry.facts.id));
    assert!(one.free.contains(&placed.to));
    let (old, new) = (one.shows(from).unwrap(), one.shows(&placed.to).unwrap());
    assert_eq!((placed.bytes, old.len()), (new.len() as u64, new.len()));
    assert_eq!(shard_at(&one.now().facts, from), Some(3), "the map does not know yet");
    assert!(one.shared.settlement.claim(one.entry.facts.id).is_none(), "and nobody repairs it");
    let to = placed.to.clone();
    assert_eq!(record(&one.shared, vec![placed], &BTreeSet::new()).await.unwrap(), 0);
    assert_eq!((shard_at(&one.now().facts, from), shard_at(&one.now().facts, &to)), (None, Some(3)));
    assert!(one.shows(from).is_none() && one.shows(&to).is_some());
    assert!(one.shared.settlement.claim(one.entry.facts.id).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_nobodys_business_stays_and_what_cannot_be_deleted_is_counted() {
    let one = One::at(7).await;
    let seq = || one.shared.ledger.snapshot().unwrap().applied_seq().unwrap();
    let before = seq();
    assert_eq!(record(&one.shared, Vec::new(), &BTreeSet::new()).await.unwrap(), 0);
    assert_eq!(seq(), before, "nothing moved is no record");
    // The account is gone for good: it is not asked to delete anything.
    let gone = &one.homes[0].clone();
    let placed = one.move_from(gone).await.unwrap();
    let deletes = one.asked(Op::Delete);
    assert_eq!(record(&one.shared, vec![placed], &BTreeSet::from([gone.clone()])).await.unwrap(), 0);
    assert!(one.shows(gone).is_some() && one.asked(Op::Delete) == deletes);
    let one = One { entry: one.now(), ..one };
    let keeps = &one.homes[1];
    one.store(keeps).set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Delete])));
    let placed = one.move_from(keeps).await.unwrap();
    assert_eq!(record(&one.shared, vec![placed], &BTreeSet::from([gone.clone()])).await.unwrap(), 1);
    assert_eq!(shard_at(&one.now().facts, keeps), None);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_not_whole_or_worked_on_is_left_alone() {
    let one = One::at(7).await;
    let asked = one.asked(Op::Get);
    let unsettled = BlockEntry { settled: false, ..one.entry.clone() };
    assert_eq!(place(&one.shared, &unsettled, &one.homes[0], None, false).await.unwrap_err(), Stay::Busy);
    let claim = one.shared.settlement.claim(one.entry.facts.id).unwrap();
    assert_eq!(one.move_from(&one.homes[0]).await.unwrap_err(), Stay::Busy);
    drop(claim);
    assert_eq!(one.move_from(&one.free[0]).await.unwrap_err(), Stay::Busy, "it has no shard of it");
    assert_eq!(one.asked(Op::Get), asked);
    assert!(one.move_from(&one.homes[0]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_shard_goes_to_a_domain_that_has_none_of_the_block() {
    let full = One::at(5).await;
    assert_eq!(full.move_from(&full.homes[0]).await.unwrap_err(), Stay::NoPlace);
    let one = One::at(8).await;
    for wanted in &one.free {
        let placed = place(&one.shared, &one.entry, &one.homes[2], Some(wanted), false).await.unwrap();
        assert_eq!(&placed.to, wanted);
        drop(placed);
        one.show(wanted, None);
    }
    let taken = place(&one.shared, &one.entry, &one.homes[2], Some(&one.homes[1]), false).await;
    assert_eq!(taken.unwrap_err(), Stay::NoPlace);
}

/// Each place with a shard too many costs a look at that shard's home: one such place is enough.
#[tokio::test(start_paused = true)]
async fn with_one_place_to_overwrite_no_other_is_examined() {
    let one = One::at(7).await;
    for (shard, wanted) in [3, 4].into_iter().zip(&one.free) {
        drop(place(&one.shared, &one.entry, &one.homes[shard], Some(wanted), false).await.unwrap());
    }
    let asked = |shard: usize| one.store(&one.homes[shard]).requests(Op::Get);
    let before = [asked(3), asked(4)];
    drop(one.move_from(&one.homes[0]).await.unwrap());
    assert_eq!(asked(3) + asked(4), before[0] + before[1] + 1);
}

/// An earlier run got as far as the new place, and ended before the log said so.
#[tokio::test(start_paused = true)]
async fn a_shard_that_is_there_already_is_not_put_again() {
    let one = One::at(7).await;
    let first = one.move_from(&one.homes[1]).await.unwrap();
    let (to, puts) = (first.to.clone(), one.asked(Op::Put));
    drop(first);
    let second = one.move_from(&one.homes[1]).await.unwrap();
    assert_eq!((&second.to, second.shard, one.asked(Op::Put)), (&to, 1, puts));
    // What lies there is read back whole: a spoilt one is no place.
    drop(second);
    let mut spoilt = one.shows(&to).unwrap().to_vec();
    *spoilt.last_mut().unwrap() ^= 1;
    one.show(&to, Some(spoilt.into()));
    assert_eq!(one.move_from(&one.homes[1]).await.unwrap_err(), Stay::Failed);
}

#[tokio::test(start_paused = true)]
async fn who_shows_something_else_or_nothing_gets_none() {
    let one = One::at(7).await;
    let first = one.move_from(&one.homes[0]).await.unwrap().to;
    let other = one.free.iter().find(|id| **id != first).unwrap();
    let junk = Bytes::from(vec![7; 5000]);
    one.show(&first, Some(junk.clone()));
    let placed = one.move_from(&one.homes[0]).await.unwrap();
    assert_eq!((&placed.to, one.shows(&first)), (other, Some(junk)), "it is not overwritten");
    drop(placed);
    one.show(other, None);
    one.store(other).set_faults(FaultPlan::down());
    assert_eq!(one.move_from(&one.homes[0]).await.unwrap_err(), Stay::NoPlace);
}

/// Another shard of the block lies at the only free place. It gives way if its own home shows it too, and not if it may be the last one.
#[tokio::test(start_paused = true)]
async fn a_shard_too_many_gives_way_only_if_its_home_shows_it_now() {
    let one = One::at(6).await;
    let free = &one.free[0];
    drop(one.move_from(&one.homes[3]).await.unwrap());
    let surplus = one.shows(free).unwrap();
    let placed = one.move_from(&one.homes[0]).await.unwrap();
    assert_eq!((&placed.to, placed.shard), (free, 0));
    let put = one.shows(free).unwrap();
    assert_ne!(put, surplus);
    drop(placed);
    let at_home = one.shows(&one.homes[0]).unwrap();
    for (shown, faults) in [(None, FaultPlan::honest()), (Some(at_home.clone()), FaultPlan::down())] {
        one.show(&one.homes[0], shown);
        one.store(&one.homes[0]).set_faults(faults);
        assert_eq!(one.move_from(&one.homes[1]).await.unwrap_err(), Stay::NoPlace);
        assert_eq!(one.shows(free).unwrap(), put);
    }
    one.store(&one.homes[0]).set_faults(FaultPlan::honest());
    // A free place comes before one that has something.
    let two = One::at(7).await;
    drop(place(&two.shared, &two.entry, &two.homes[1], Some(&two.free[0]), false).await.unwrap());
    assert_eq!(two.move_from(&two.homes[0]).await.unwrap().to, two.free[1]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_its_account_does_not_give_is_made_from_k_others() {
    let one = One::at(7).await;
    let from = &one.homes[2];
    let asked = one.store(from).requests(Op::Get);
    let placed = place(&one.shared, &one.entry, from, None, true).await.unwrap();
    assert_eq!(one.store(from).requests(Op::Get), asked, "who is gone is not asked");
    let to = placed.to.clone();
    record(&one.shared, vec![placed], &BTreeSet::new()).await.unwrap();
    for home in [0, 1] {
        one.store(&one.homes[home]).set_faults(FaultPlan::down());
    }
    one.fx.forget();
    assert!(one.fx.read(b"one").await.unwrap() == random(2 * MIB, 1), "any three of it make the block, the new one at {to} among them");

    let one = One::at(7).await;
    let from = &one.homes[2];
    one.store(from).set_faults(FaultPlan::from(Fault::always(Misbehaviour::Flip { bits: 3 }).on(&[Op::Get])));
    drop(one.move_from(from).await.unwrap());
    assert_eq!(one.fx.liars().len(), 1);
    // Two others are too few.
    let one = One::at(7).await;
    one.show(&one.homes[0], None);
    drop(place(&one.shared, &one.entry, &one.homes[2], None, true).await.unwrap());
    one.free.iter().for_each(|free| one.show(free, None));
    one.show(&one.homes[1], None);
    assert_eq!(place(&one.shared, &one.entry, &one.homes[2], None, true).await.unwrap_err(), Stay::Failed);
    assert!(one.free.iter().all(|free| one.shows(free).is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_new_place_that_acknowledges_and_drops_is_none() {
    let one = One::at(6).await;
    one.store(&one.free[0]).set_faults(FaultPlan::from(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Put])));
    assert_eq!(one.move_from(&one.homes[0]).await.unwrap_err(), Stay::Failed);
    one.store(&one.free[0]).set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put])));
    assert_eq!(one.move_from(&one.homes[0]).await.unwrap_err(), Stay::Failed);
    assert!(one.shared.settlement.claim(one.entry.facts.id).is_some(), "nothing holds it up");
}

#[tokio::test(start_paused = true)]
async fn only_what_is_kept_counts_at_an_account() {
    let one = One::at(7).await;
    let of = |at: &ProviderId| census(&one.shared).unwrap().get(at).copied().unwrap_or(0);
    let all = || census(&one.shared).unwrap().values().sum::<u64>();
    let blocks = one.shared.ledger.snapshot().unwrap().blocks(None, 1000).unwrap();
    assert_eq!(all(), blocks.iter().map(|entry| entry.facts.placements.len() as u64).sum::<u64>());
    assert_eq!(of(&one.homes[0]), blocks.iter().filter(|entry| shard_at(&entry.facts, &one.homes[0]).is_some()).count() as u64);
    let before = of(&one.homes[0]);
    one.fx.delete(b"one", Precondition::None, None).await.unwrap();
    one.fx.settle().await;
    let after_delete = of(&one.homes[0]);
    assert!(after_delete >= before);
    // Condemned, and there for another day.
    let report = collect::collect(&one.shared, collect::Asked::default()).await.unwrap();
    assert_eq!((report.condemned_blocks, report.swept.blocks), (1, 0));
    let condemning = one.shared.ledger.snapshot().unwrap().blocks(None, 1000).unwrap();
    let kept = condemning.iter().filter(|entry| entry.facts.id != one.entry.facts.id);
    assert_eq!(all(), kept.map(|entry| entry.facts.placements.len() as u64).sum::<u64>());
}
