//! Who gives what to whom.

use diaspore_block::id::PrincipalId;
use diaspore_block::record::ProviderMode;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};

use super::*;
use crate::blob::tests::fixture::{Fixture, random};

/// Six accounts with everything, and a seventh that was away while it was written.
async fn uneven() -> (Fixture, Arc<Shared>, ProviderId) {
    let fx = Fixture::start(7).await;
    let (shared, away) = (fx.engine.shared(), ProviderId::new("p6").unwrap());
    let set = async |mode| crate::modes::set(&shared, PrincipalId::NIL, &away, mode, "a test").await.unwrap();
    set(ProviderMode::Draining).await;
    for index in 0..20 {
        fx.put(&[b'a' + index], &random(3000, u64::from(index))).await.unwrap();
    }
    fx.settle().await;
    assert!(plan(&shared, &census(&shared).unwrap()).unwrap().iter().all(|transfer| transfer.to != away), "it takes none");
    set(ProviderMode::Active).await;
    fx.settle().await;
    (fx, shared, away)
}

#[tokio::test(start_paused = true)]
async fn whoever_lacks_most_gets_its_share_from_those_who_have_more_than_theirs() {
    let (_fx, shared, away) = uneven().await;
    let before = census(&shared).unwrap();
    let have = |id: &ProviderId| before.get(id).copied().unwrap_or(0);
    let share = before.values().sum::<u64>() / 7;
    let transfers = plan(&shared, &before).unwrap();
    let to_away = transfers.iter().filter(|transfer| transfer.to == away).count() as u64;
    assert!(to_away > 0 && to_away <= share - have(&away), "{to_away} of {}", share - have(&away));
    let view = shared.ledger.snapshot().unwrap();
    let mut blocks = BTreeSet::new();
    let mut given: BTreeMap<&ProviderId, u64> = BTreeMap::new();
    for transfer in &transfers {
        let facts = view.block(transfer.block).unwrap().unwrap().facts;
        assert!(mover::shard_at(&facts, &transfer.from).is_some() && mover::shard_at(&facts, &transfer.to).is_none());
        assert!(blocks.insert(transfer.block), "one shard of a block at a time");
        assert_eq!(transfer.bytes, u64::from(facts.shard_len));
        *given.entry(&transfer.from).or_default() += 1;
    }
    for (from, given) in given {
        assert!(have(from) - given >= share, "{from} keeps its own");
    }
    // Everybody asked for one shard: read there, written here, looked at and read back, and deleted there.
    let cost = price(&shared, &transfers[0]);
    let bytes = transfers[0].bytes;
    assert_eq!((cost.writes, cost.reads, cost.deletes, cost.bytes_read, cost.bytes_written), (1, 3, 1, 2 * bytes, bytes));
    // What somebody works on stays.
    let claim = shared.settlement.claim(transfers[0].block).unwrap();
    assert!(plan(&shared, &before).unwrap().iter().all(|transfer| transfer.block != transfers[0].block));
    drop(claim);
    assert!(plan(&shared, &BTreeMap::new()).unwrap().is_empty(), "where nobody has anything nobody lacks anything");
}

#[tokio::test(start_paused = true)]
async fn what_a_new_place_does_not_take_stays_and_is_counted() {
    let (fx, shared, away) = uneven().await;
    let before = census(&shared).unwrap();
    fx.stores[6].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Full).on(&[Op::Put])));
    let dry = rebalance(&shared, true).await.unwrap();
    assert_eq!((dry.planned > 0, dry.moved, dry.failed, dry.bytes), (true, 0, 0, 0));
    assert_eq!(dry.before, before.iter().map(|(id, count)| (id.to_string(), *count)).collect());
    assert_eq!((dry.cost.writes, dry.cost.deletes), (dry.planned, dry.planned));
    let in_vain = rebalance(&shared, false).await.unwrap();
    assert_eq!(in_vain.moved + in_vain.failed, in_vain.planned);
    assert!(in_vain.failed > 0 && census(&shared).unwrap().get(&away) == before.get(&away));
    fx.stores[6].set_faults(FaultPlan::honest());
    tokio::time::sleep(std::time::Duration::from_mins(30)).await;
    let done = rebalance(&shared, false).await.unwrap();
    assert_eq!((done.moved, done.failed), (done.planned, 0));
    assert!(done.bytes > 0 && census(&shared).unwrap().get(&away) > before.get(&away));
}
