//! Where a missing shard may go when its own place is taken, and when it is written off.

use super::*;

/// Shard 0 lies at the spare, and so the home that is free belongs to a shard that has its place. Of a block that was settled any shard may go
/// there. Of one that never was, a forgotten request may yet land there: not before several vain tries with everybody answering, and not
/// where it was tried for another.
#[tokio::test(start_paused = true)]
async fn the_home_of_another_shard_is_the_last_resort_of_a_block_that_never_was_whole() {
    let one = One::held(7).await;
    let (home, gone, [spare, silent]) = (&one.homes[0], &one.homes[1], [&one.free[0], &one.free[1]]);
    let moved = one.object(0, spare).await;
    one.show(spare, Some(moved));
    one.show(home, None);
    let mut base = one.without(&[1]);
    base.stored.insert(0, spare.clone());
    one.shared.settlement.open(base.clone());
    let ever = std::time::Duration::from_hours(1);
    for at in [gone, silent] {
        one.shared.settlement.avoid(one.id(), at, ever);
    }
    let base = one.shared.settlement.get(one.id()).unwrap();
    let tried = |shard: u8, at: &ProviderId| vec![(shard, at.clone())];
    // Settled once, vain tries, who was tried for what, whether somebody is silent.
    let cases = [
        (true, 0, Vec::new(), false, true),
        (true, 0, tried(3, home), false, true),
        (true, 0, tried(3, home), true, true),
        (false, 0, Vec::new(), false, false),
        (false, DESPERATE - 1, Vec::new(), false, false),
        (false, DESPERATE, Vec::new(), false, true),
        (false, DESPERATE, tried(1, home), false, true),
        (false, DESPERATE, tried(3, home), false, false),
        (false, DESPERATE, Vec::new(), true, false),
    ];
    for (number, (repair, failures, tried, is_silent, goes)) in cases.into_iter().enumerate() {
        one.show(home, None);
        let faults = Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Get, Op::Head]);
        one.store(silent).set_faults(if is_silent { FaultPlan::from(faults) } else { FaultPlan::honest() });
        let mut open = base.clone();
        (open.repair, open.failures, open.tried) = (repair, failures, tried);
        let (outcome, _) = one.heal(&open).await;
        let expected = if goes { Ok(()) } else { Err("no home of a missing shard answers".to_owned()) };
        assert_eq!(outcome, expected, "case {number}");
        assert_eq!((one.stored(1).as_ref(), one.shows(home).is_some()), (goes.then_some(home), goes), "case {number}");
    }
}

/// There are as many accounts as shards, and one shows a shard that lies elsewhere too.
#[tokio::test(start_paused = true)]
async fn a_shard_too_many_is_overwritten_after_several_vain_tries_only() {
    let one = One::held(5).await;
    let (place, surplus) = (&one.homes[1], one.object(0, &one.homes[1]).await);
    let mut open = one.without(&[1]);
    open.repair = false;
    for failures in [0, DESPERATE - 1] {
        one.show(place, Some(surplus.clone()));
        open.failures = failures;
        one.heal(&open).await.0.unwrap_err();
        assert_eq!((one.shows(place).as_ref(), one.stored(1)), (Some(&surplus), None));
    }
    open.failures = DESPERATE;
    one.heal(&open).await.0.unwrap();
    assert_eq!(one.stored(1).as_ref(), Some(place));
    assert_ne!(one.shows(place), Some(surplus));
}

/// Somebody else writes under our names: that is for people to look into. Bytes that are nothing give way.
#[tokio::test(start_paused = true)]
async fn a_shard_of_another_block_is_never_overwritten() {
    let one = One::held(5).await;
    let (place, foreign) = (&one.homes[2], one.foreign(2, &one.homes[2]));
    let mut open = one.without(&[2]);
    open.failures = DESPERATE;
    for repair in [true, false] {
        open.repair = repair;
        one.show(place, Some(foreign.clone()));
        assert_eq!(one.heal(&open).await, (Err("no home of a missing shard answers".to_owned()), 0));
        assert_eq!(one.shows(place).as_ref(), Some(&foreign));
    }
    let junk = Bytes::from(vec![7; 5000]);
    one.show(place, Some(junk.clone()));
    one.heal(&open).await.0.unwrap();
    assert_ne!(one.shows(place), Some(junk));
}

/// A block that is wider than what is left of the accounts would never settle. Nothing is written off that another account could take, and
/// nothing of a block that would not survive it.
#[tokio::test(start_paused = true)]
async fn a_shard_for_which_there_is_no_domain_any_more_is_lost_with_a_dead_account() {
    let one = One::held(5).await;
    let mut open = one.without(&[3]);
    open.repair = false;
    let homes = |open: &Open| open.stored.iter().map(|(shard, home)| (*shard, home.clone())).collect::<Vec<_>>();
    let written_off = |open: &Open| {
        one.shared.settlement.open(open.clone());
        write_off(&one.shared, open, &homes(open));
        one.stored(3)
    };
    assert_eq!(written_off(&open), None, "every account is used");
    let set = async |mode| modes::set(&one.shared, PrincipalId::NIL, &one.homes[3], mode, "a test").await.unwrap();
    set(ProviderMode::Draining).await;
    assert_eq!(written_off(&open), None, "it is there yet");
    set(ProviderMode::Dead).await;
    assert_eq!(written_off(&open), Some(one.homes[3].clone()));
    open.repair = true;
    assert_eq!(written_off(&open), None, "it settled before");
    open.repair = false;
    let mut few = open.clone();
    few.stored.remove(&4);
    assert_eq!(written_off(&few), None, "three are no quorum");
    // Two shards and one dead account.
    let mut two = open;
    two.stored.insert(4, one.homes[3].clone());
    assert_eq!(written_off(&two), None, "the dead one has a shard in its name already");
}
