//! What the register keeps, and what settling makes of blocks in trouble.

use std::collections::BTreeSet;
use std::time::Duration;

use diaspore_block::manifest::BlockKind;
use diaspore_ledger::BlockEntry;
use diaspore_policy::ProviderId;
use diaspore_testkit::{Fault, FaultPlan, HostileStore, Misbehaviour, Op};
use futures::StreamExt;
use tokio::time::Instant;

use super::open::Settlement;
use super::*;
use crate::api::{Class, PutOptions};
use crate::blob::tests::fixture::{Fixture, body, random};
use crate::coded::address_of;

const MIB: usize = 1 << 20;

fn refuses(op: Op) -> FaultPlan {
    FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[op]))
}

fn entries(fx: &Fixture) -> Vec<BlockEntry> {
    fx.engine.shared().ledger.snapshot().unwrap().blocks(None, 1000).unwrap()
}

fn bulk(fx: &Fixture) -> BlockEntry {
    entries(fx).into_iter().find(|entry| entry.facts.kind == BlockKind::Bulk).unwrap()
}

async fn scrub(fx: &Fixture) {
    fx.engine.scrub(false).unwrap();
    let report = fx.engine.scrub_wait(Duration::from_hours(1)).await;
    assert!(!report.running && report.failed.is_none(), "{report:?}");
}

/// Deletes the shard that the map says lies at a store; its path.
fn lose(fx: &Fixture, entry: &BlockEntry, store: usize) -> String {
    let name = fx.stores[store].name();
    assert!(entry.facts.placements.iter().any(|place| place.acked && place.provider == name));
    let path = fx.engine.shared().names.shard(&address_of(&entry.facts, name)).as_str().to_owned();
    fx.stores[store].tamper(&path, None);
    path
}

/// A body may take longer than anybody remembers the first of its blocks: whoever asked for all shards has them all the same when it is answered.
#[tokio::test(start_paused = true)]
async fn an_upload_that_takes_an_hour_is_settled_as_any_other() {
    let fx = Fixture::start(5).await;
    fx.stores[4].set_faults(refuses(Op::Put));
    let slowly = body(&random(13 * MIB, 1)).chain(futures::stream::once(async {
        tokio::time::sleep(Duration::from_hours(1)).await;
        Ok(bytes::Bytes::from_static(b"the end"))
    }));
    let well_again = async {
        tokio::time::sleep(Duration::from_mins(59)).await;
        fx.stores[4].set_faults(FaultPlan::honest());
    };
    let options = PutOptions { class: Some(Class::Full), ..PutOptions::default() };
    let (put, ()) = futures::join!(fx.put_stream(b"slow", options, Box::pin(slowly)), well_again);
    put.unwrap();
    let blocks: Vec<BlockEntry> = entries(&fx).into_iter().filter(|entry| entry.facts.kind == BlockKind::Bulk).collect();
    assert!(!blocks.is_empty());
    for entry in &blocks {
        let path = fx.engine.shared().names.shard(&address_of(&entry.facts, fx.stores[4].name()));
        assert!(fx.stores[4].peek(path.as_str()).is_some(), "`full` was answered");
    }
    fx.settle().await;
    assert!(entries(&fx).iter().all(|entry| entry.settled), "and the map knows");
}

#[tokio::test(start_paused = true)]
async fn a_block_named_after_it_was_forgotten_is_waited_for() {
    let fx = Fixture::start(5).await;
    fx.put(b"any", &random(3 * MIB, 1)).await.unwrap();
    let facts = Arc::new(bulk(&fx).facts);
    let register = Settlement::default();
    register.open(Open::new(Arc::clone(&facts), None, diaspore_block::id::Timestamp(0)));
    register.idle(facts.id, None, true);
    register.forget_orphans(Duration::from_mins(15));
    assert!(register.get(facts.id).is_some(), "it is not old enough");
    tokio::time::sleep(Duration::from_mins(15)).await;
    register.forget_orphans(Duration::from_mins(15));
    assert!(register.get(facts.id).is_none());
    register.name_in(&[facts.id], Seq(7));
    assert_eq!(register.take_strayed(), [], "the ledger does not know it yet");
    register.released(Seq(7));
    assert_eq!(register.settled_through(), Seq(6));
    assert_eq!(register.take_strayed(), [facts.id]);
    assert_eq!(register.take_strayed(), []);
    register.forget(&[facts.id]);
    assert_eq!(register.settled_through(), Seq(7));
}

/// Every block but the present one is damaged, and nothing comes of it: a block that survives less is taken on all the same.
#[tokio::test(start_paused = true)]
async fn repairs_in_vain_give_way_to_a_more_endangered_block() {
    let fx = Fixture::start(5).await;
    for seed in 0..3 {
        fx.put(&[b'a' + seed], &random(3 * MIB, u64::from(seed))).await.unwrap();
    }
    fx.settle().await;
    let blocks: Vec<BlockEntry> = entries(&fx).into_iter().filter(|entry| entry.settled).take(3).collect();
    let lost = |entry: &BlockEntry, count: usize| -> Vec<(u8, ProviderId, Seen)> {
        let gone = entry.facts.placements.iter().take(count);
        gone.map(|place| (place.shard, ProviderId::new(&place.provider).unwrap(), Seen::Missing)).collect()
    };
    let [first, second, third] = blocks.as_slice() else { panic!() };
    let register = Settlement::default();
    assert!(register.file_within(1, first, &lost(first, 1)));
    assert!(!register.file_within(1, second, &lost(second, 2)), "who was tried too little keeps the place");
    for _ in 0..3 {
        register.idle(first.facts.id, None, true);
    }
    assert!(!register.file_within(1, second, &lost(second, 1)), "it survives as much");
    assert!(!register.file_within(1, second, &lost(second, 3)), "nothing can be done for it");
    assert!(register.file_within(1, second, &lost(second, 2)));
    assert!(register.get(first.facts.id).is_none());
    for _ in 0..3 {
        register.idle(second.facts.id, None, true);
    }
    assert!(!register.file_within(1, third, &lost(third, 2)));
    assert!(register.file_within(2, third, &lost(third, 1)), "there is room");
}

/// Without a budget for repairs only what cannot wait is done, and that not for ever: each vain try reads k shards.
#[tokio::test(start_paused = true)]
async fn what_fails_again_and_again_waits_for_the_budget() {
    let fx = Fixture::start(5).await;
    fx.put(b"any", &random(3 * MIB, 1)).await.unwrap();
    fx.settle().await;
    let entry = bulk(&fx);
    let gone = |count: usize| -> Vec<(u8, ProviderId, Seen)> {
        let gone = entry.facts.placements.iter().take(count);
        gone.map(|place| (place.shard, ProviderId::new(&place.provider).unwrap(), Seen::Missing)).collect()
    };
    let due = |register: &Settlement, room| register.next_due(Instant::now(), |_| false, room).is_some();
    let register = Settlement::default();
    register.file(&entry, &gone(1));
    assert!(!due(&register, false), "it survives another loss");
    assert!(due(&register, true) && !due(&register, true), "one at a time");
    register.idle(entry.facts.id, None, true);
    register.file(&entry, &gone(2));
    for _ in 0..2 {
        assert!(due(&register, false));
        register.idle(entry.facts.id, None, true);
    }
    assert!(!due(&register, false), "it failed three times");
    assert!(due(&register, true));
}

/// Two accounts lost their shards and one of them takes no new one: the other gets its shard.
#[tokio::test(start_paused = true)]
async fn who_takes_no_shard_holds_up_no_other() {
    for (refusing, well) in [(0, 3), (3, 0)] {
        let fx = Fixture::start(5).await;
        fx.put(b"any", &random(3 * MIB, 1)).await.unwrap();
        fx.settle().await;
        let entry = bulk(&fx);
        fx.stores[refusing].set_faults(refuses(Op::Put));
        let (_, path) = (lose(&fx, &entry, refusing), lose(&fx, &entry, well));
        scrub(&fx).await;
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert!(fx.stores[well].peek(&path).is_some(), "{well} is well");
    }
}

/// There are as many accounts as shards. One takes a shard that is made anew, and loses it again: it is asked again later, and not at once.
#[tokio::test(start_paused = true)]
async fn who_dropped_a_shard_once_is_tried_again_where_there_is_no_other() {
    let fx = Fixture::start(5).await;
    fx.put(b"any", &random(3 * MIB, 1)).await.unwrap();
    fx.settle().await;
    let entry = bulk(&fx);
    let path = lose(&fx, &entry, 2);
    fx.stores[2].set_faults(FaultPlan::from(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Put])));
    scrub(&fx).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let puts = fx.stores[2].requests(Op::Put);
    fx.stores[2].set_faults(FaultPlan::honest());
    let hold_off = fx.engine.shared().hold_off();
    tokio::time::sleep(hold_off / 2).await;
    assert!(fx.stores[2].peek(&path).is_none() && fx.stores[2].requests(Op::Put) == puts, "it is passed over");
    tokio::time::sleep(hold_off).await;
    assert!(fx.stores[2].peek(&path).is_some());
}

/// Until a block of the log has all its shards, the disk counts as a copy: more domains may lose it than its class promises.
#[tokio::test(start_paused = true)]
async fn what_too_few_hold_of_an_unsettled_block_is_made_from_the_journal() {
    let fx = Fixture::start(6).await;
    let data = random(2000, 1);
    for store in &fx.stores[4..] {
        store.set_faults(refuses(Op::Put));
    }
    fx.put(b"small", &data).await.unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    let view = fx.engine.shared().ledger.snapshot().unwrap();
    let unsettled = view.unsettled(100).unwrap();
    assert!(!unsettled.is_empty(), "the blocks have four of five shards");
    for store in &fx.stores[..2] {
        store.lose_everything();
    }
    for store in &fx.stores[4..] {
        store.set_faults(FaultPlan::honest());
    }
    tokio::time::sleep(Duration::from_mins(5)).await;
    fx.settle().await;
    fx.forget();
    assert!(fx.read(b"small").await.unwrap() == data);
    for entry in &unsettled {
        let shown: BTreeSet<&str> = fx
            .stores
            .iter()
            .filter(|store| {
                let path = fx.engine.shared().names.shard(&address_of(&entry.facts, store.name()));
                store.peek(path.as_str()).is_some()
            })
            .map(HostileStore::name)
            .collect();
        assert!(shown.len() >= usize::from(entry.facts.geometry.k()), "{shown:?}");
    }
}
