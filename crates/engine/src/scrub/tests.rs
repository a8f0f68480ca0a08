//! Every kind of damage is found and healed, on the paused clock over hostile stores.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use diaspore_block::manifest::BlockKind;
use diaspore_block::record::ProviderMode;
use diaspore_ledger::BlockEntry;
use diaspore_policy::ProviderId;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};

use super::*;
use crate::blob::tests::fixture::{Fixture, random};
use crate::coded::address_of;
use crate::shards::{Look, Place, look};

fn id(name: &str) -> ProviderId {
    ProviderId::new(name).unwrap()
}

fn entries(fx: &Fixture) -> Vec<BlockEntry> {
    fx.engine.shared().ledger.snapshot().unwrap().blocks(None, 1000).unwrap()
}

fn bulk(fx: &Fixture) -> BlockEntry {
    entries(fx).into_iter().find(|entry| entry.facts.kind == BlockKind::Bulk).unwrap()
}

/// Where the shard of a block lies: index of the store and path.
fn place(fx: &Fixture, entry: &BlockEntry, shard: u8) -> (usize, String) {
    let home = entry.facts.placements.iter().find(|place| place.shard == shard && place.acked).unwrap();
    (store_of(fx, &home.provider), path(fx, entry, &home.provider))
}

fn store_of(fx: &Fixture, provider: &str) -> usize {
    fx.stores.iter().position(|store| store.name() == provider).unwrap()
}

fn path(fx: &Fixture, entry: &BlockEntry, provider: &str) -> String {
    fx.engine.shared().names.shard(&address_of(&entry.facts, provider)).as_str().to_owned()
}

/// A deployment with a bulk block and some commit blocks, all settled.
async fn stored(providers: usize) -> Fixture {
    let fx = Fixture::start(providers).await;
    fx.put(b"big", &random(3 << 20, 1)).await.unwrap();
    fx.put(b"small", &random(2000, 2)).await.unwrap();
    fx.settle().await;
    fx
}

async fn scrub(fx: &Fixture, deep: bool) -> ScrubReport {
    fx.engine.scrub(deep).unwrap();
    let report = fx.engine.scrub_wait(Duration::from_hours(1)).await;
    assert!(!report.running && report.failed.is_none(), "{report:?}");
    report
}

/// Every block shows n distinct shards, each whole, on n distinct providers.
async fn assert_whole(fx: &Fixture) {
    let shared = fx.engine.shared();
    for entry in entries(fx) {
        let mut shown = BTreeSet::new();
        for spec in shared.fleet.providers() {
            if let Look::Seen(seen) = look(&shared, Place::of(&entry.facts), &spec.id, Depth::Whole).await {
                assert_eq!(seen.header.manifest().hash(), entry.facts.manifest_hash);
                shown.insert(seen.header.index());
            }
        }
        assert_eq!(shown.len(), usize::from(entry.facts.geometry.n()), "{}", entry.facts.id);
        let homes: BTreeSet<&str> = entry.facts.placements.iter().map(|place| place.provider.as_str()).collect();
        assert_eq!(homes.len(), usize::from(entry.facts.geometry.n()), "one shard per domain");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_or_unseen_state_is_never_called_whole() {
    let fx = Fixture::start(5).await;
    assert!(Census::default().blocks == 0 && !Census::default().is_whole());
    fx.put(b"k", &random(100_000, 3)).await.unwrap();
    fx.settle().await;
    let census = count(&fx.engine.shared()).unwrap();
    assert!(census.blocks > 0 && census.unverified == census.blocks && !census.is_whole(), "{census:?}");
    assert_eq!((census.oldest_checked_ms, census.oldest_verified_ms), (None, None));
    let census = scrub(&fx, false).await.census.unwrap();
    assert!(census.is_whole() && census.oldest_checked_ms.is_some(), "{census:?}");
    assert_eq!((census.oldest_verified_ms, census.shards_verified), (None, 0), "headers prove no body");
    let census = scrub(&fx, true).await.census.unwrap();
    assert!(census.oldest_verified_ms.is_some() && census.shards_verified == census.shards, "{census:?}");
}

/// What was done to a stored object, and whether a look at its header finds it.
type Damage = (&'static str, fn(&Bytes) -> Option<Bytes>, bool);

fn flipped(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 4;
    bytes.into()
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_damage_at_rest_is_found_and_healed() {
    let damages: [Damage; 7] = [
        ("deleted", |_| None, true),
        ("flipped header", |bytes| Some(flipped(bytes, 100)), true),
        ("flipped body", |bytes| Some(flipped(bytes, 70_000)), false),
        ("flipped leaf list", |bytes| Some(flipped(bytes, bytes.len() - 1)), false),
        ("cut in half", |bytes| Some(bytes.slice(..bytes.len() / 2)), false),
        ("cut within its header", |bytes| Some(bytes.slice(..100)), true),
        ("emptied", |_| Some(Bytes::new()), true),
    ];
    for (name, damage, shallow) in damages {
        for shard in [0, 4] {
            let fx = stored(5).await;
            let entry = bulk(&fx);
            let (store, path) = place(&fx, &entry, shard);
            fx.stores[store].tamper(&path, damage(&fx.stores[store].peek(&path).unwrap()));
            let report = scrub(&fx, !shallow).await;
            assert_eq!(report.missing + report.wrong, 1, "{name}: {report:?}");
            let census = report.census.unwrap();
            assert!(census.is_whole() && report.repairs_left == 0, "{name}: {census:?}");
            assert_whole(&fx).await;
            assert_eq!(place(&fx, &bulk(&fx), shard), (store, path), "{name}: five providers, so in its own place");
        }
    }
}

/// The natural repair: whoever still has the bytes puts them again.
#[tokio::test(start_paused = true)]
async fn what_is_put_again_does_not_rely_on_a_lost_block() {
    let fx = stored(5).await;
    let entry = bulk(&fx);
    for shard in [0, 2, 4] {
        let (store, path) = place(&fx, &entry, shard);
        fx.stores[store].tamper(&path, None);
    }
    assert_eq!(scrub(&fx, false).await.census.unwrap().lost, 1);
    fx.forget();
    assert!(fx.read(b"big").await.is_err());
    fx.put(b"again", &random(3 << 20, 1)).await.unwrap();
    fx.forget();
    assert!(fx.read(b"again").await.unwrap() == random(3 << 20, 1));
    assert!(fx.read(b"big").await.unwrap() == random(3 << 20, 1), "its chunks are read from the new block");
}

#[tokio::test(start_paused = true)]
async fn a_shard_of_another_block_is_found_and_replaced() {
    let fx = stored(5).await;
    fx.put(b"other", &random(3 << 20, 9)).await.unwrap();
    fx.settle().await;
    let blocks: Vec<BlockEntry> = entries(&fx).into_iter().filter(|entry| entry.facts.kind == BlockKind::Bulk).collect();
    assert!(blocks.len() > 1);
    let (store, one) = place(&fx, &blocks[0], 1);
    let other = path(&fx, &blocks[1], fx.stores[store].name());
    fx.stores[store].tamper(&one, fx.stores[store].peek(&other));
    let report = scrub(&fx, false).await;
    assert_eq!(report.wrong, 1, "its header opens under its own name only");
    assert!(report.census.unwrap().is_whole());
    assert_whole(&fx).await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_rolled_back_gets_its_shards_again() {
    let fx = Fixture::start(5).await;
    fx.put(b"old", &random(3 << 20, 1)).await.unwrap();
    fx.settle().await;
    fx.stores[2].take_snapshot();
    fx.put(b"new", &random(5 << 20, 2)).await.unwrap();
    fx.settle().await;
    fx.stores[2].roll_back();
    let report = scrub(&fx, false).await;
    assert!(report.missing > 0 && report.census.as_ref().unwrap().is_whole(), "{report:?}");
    assert_whole(&fx).await;
}

#[tokio::test(start_paused = true)]
async fn with_a_spare_domain_a_liars_shards_move_and_the_log_says_where() {
    let fx = stored(6).await;
    let entry = bulk(&fx);
    let (store, _) = place(&fx, &entry, 2);
    let flip = Fault::always(Misbehaviour::Flip { bits: 40 }).on(&[Op::Get]);
    fx.stores[store].set_faults(FaultPlan::from(flip));
    let report = scrub(&fx, true).await;
    assert!(report.wrong > 0);
    let census = report.census.unwrap();
    assert!(census.is_whole(), "{census:?}");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let moved = bulk(&fx);
    assert!(moved.facts.placements.iter().all(|place| place.provider != fx.stores[store].name()), "the map knows the new places");
    let view = fx.engine.shared().ledger.snapshot().unwrap();
    assert!(view.totals().unwrap().records_of(diaspore_block::record::RecordKind::ShardsMoved) > 0);
    let state = view.provider(fx.stores[store].name()).unwrap().unwrap();
    assert_eq!(state.mode, ProviderMode::Quarantined, "caught again and again, and five others are left");
    // What the liar says counts for nothing: the data is read without it, and the others are not accused.
    assert_eq!(fx.read(b"big").await.unwrap(), random(3 << 20, 1));
    assert!(fx.liars().iter().all(|liar| *liar == store), "{:?}", fx.liars());
}

#[tokio::test(start_paused = true)]
async fn where_none_is_to_spare_a_liar_is_not_put_into_quarantine() {
    let fx = stored(5).await;
    fx.stores[1].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Flip { bits: 40 }).on(&[Op::Get])));
    let report = scrub(&fx, true).await;
    let census = report.census.unwrap();
    assert!(census.lost == 0 && census.at_risk == 0 && census.degraded > 0, "{census:?}");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(fx.engine.shared().modes.of(&id("p1")), ProviderMode::Active);
    fx.stores[1].set_faults(FaultPlan::honest());
    assert!(scrub(&fx, true).await.census.unwrap().is_whole(), "it lied about shards that it had");
    assert_whole(&fx).await;
}

/// Two hundred, and then nothing is there: a repair counts when it was read back.
#[tokio::test(start_paused = true)]
async fn who_acknowledges_a_repair_and_drops_it_is_passed_over() {
    let fx = stored(6).await;
    let entry = bulk(&fx);
    let (store, path) = place(&fx, &entry, 1);
    fx.stores[store].tamper(&path, None);
    fx.stores[store].set_faults(FaultPlan::from(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Put])));
    assert!(scrub(&fx, false).await.census.unwrap().is_whole());
    // A scrub that has nothing left to wait for leaves a map that says where the shard is now (simulation, seed 4462).
    let home = bulk(&fx).facts.placements.into_iter().find(|place| place.shard == 1).unwrap().provider;
    assert_ne!(home, fx.stores[store].name());
    assert_eq!(scrub(&fx, true).await.missing, 0);
    assert_whole(&fx).await;
}

/// Somebody with our memory wrote another block under the name: it is evidence, and none of ours to delete.
#[tokio::test(start_paused = true)]
async fn a_block_of_another_writer_under_our_name_is_left_alone() {
    let fx = stored(6).await;
    let shared = fx.engine.shared();
    let entry = bulk(&fx);
    let (store, path) = place(&fx, &entry, 3);
    let stranger = stranger_at(&shared, &entry, fx.stores[store].name());
    fx.stores[store].tamper(&path, Some(stranger.clone()));
    let report = scrub(&fx, false).await;
    assert_eq!(report.wrong, 1);
    assert!(report.census.unwrap().is_whole());
    assert_eq!(fx.stores[store].peek(&path), Some(stranger));
}

/// Shard 3 of a block with other content at the position of `entry`, as it would lie at `provider`.
fn stranger_at(shared: &Shared, entry: &BlockEntry, provider: &str) -> Bytes {
    let facts = &entry.facts;
    let position = diaspore_block::manifest::BlockPosition {
        deployment: shared.deployment(),
        block: BlockId::draw(&mut shared.rng()),
        kind: facts.kind,
        incarnation: facts.incarnation,
        counter: facts.counter,
        attempt: facts.attempt,
    };
    let coded = diaspore_block::block::encode(random(100_000, 77), facts.geometry, [3; 32]).unwrap();
    let signed = coded.sign(position, 0, diaspore_block::manifest::LogState::default(), &shared.keys.identity);
    let name = shared.names.shard(&address_of(facts, provider));
    let pieces = signed.object(3, provider, &name, &shared.keys.header, &mut shared.rng()).unwrap();
    pieces.to_vec().concat().into()
}

/// A provider that lies now and then is looked at twice before anything is written.
#[tokio::test(start_paused = true)]
async fn a_lie_that_passes_causes_no_repair() {
    let fx = stored(5).await;
    let before = fx.stores[3].requests(Op::Put);
    fx.stores[3].set_faults(FaultPlan::from(Fault::next(Misbehaviour::Flip { bits: 40 }, 1).on(&[Op::Get])));
    let report = scrub(&fx, true).await;
    assert_eq!(report.wrong, 1);
    assert!(report.census.unwrap().is_whole());
    assert_eq!(fx.stores[3].requests(Op::Put), before, "its shard was right");
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_causes_no_repair_and_a_long_one_does() {
    let fx = stored(6).await;
    let entry = bulk(&fx);
    let (store, _) = place(&fx, &entry, 0);
    let hold_off = u64::from(fx.engine.shared().config.profile.upkeep.hold_off_s);
    let puts = |fx: &Fixture| fx.stores.iter().map(|store| store.requests(Op::Put)).sum::<u64>();
    let before = puts(&fx);
    fx.stores[store].set_faults(FaultPlan::down());
    tokio::time::sleep(Duration::from_secs(hold_off - 60)).await;
    let repairs = || fx.engine.shared().settlement.repairs();
    assert_eq!(repairs().blocks, 0, "an outage within the hold-off");
    let moved = |fx: &Fixture| crate::shared::Meters::read(&fx.engine.shared().meters.repaired_shards);
    assert_eq!(moved(&fx), 0);
    fx.stores[store].set_faults(FaultPlan::honest());
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(moved(&fx), 0);
    fx.stores[store].set_faults(FaultPlan::down());
    tokio::time::sleep(Duration::from_secs(hold_off + 120)).await;
    assert!(moved(&fx) > 0 && puts(&fx) > before, "after it the blocks are made whole elsewhere");
    let census = count(&fx.engine.shared()).unwrap();
    assert!(bulk(&fx).facts.placements.iter().all(|place| place.provider != fx.stores[store].name()), "{census:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_provider_is_not_asked_and_its_shards_are_made_elsewhere() {
    let fx = stored(6).await;
    let dead = fx.stores[0].name().to_owned();
    fx.engine.set_provider_mode(&fx.caller(), &dead, ProviderMode::Dead, "its owner is gone").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let requests = |fx: &Fixture| Op::ALL.iter().map(|op| fx.stores[0].requests(*op)).sum::<u64>();
    let before = requests(&fx);
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(requests(&fx), before, "not even a probe");
    assert!(
        entries(&fx)
            .iter()
            .filter(|entry| entry.facts.kind == BlockKind::Bulk)
            .all(|entry| { entry.facts.placements.iter().all(|place| place.provider != dead) })
    );
    assert!(fx.engine.set_provider_mode(&fx.caller(), "nobody", ProviderMode::Dead, "").await.is_err());
}

/// Two shards to place and one domain to spare: one of them waits, and no domain gets both.
#[tokio::test(start_paused = true)]
async fn no_domain_gets_two_shards_however_many_are_missing() {
    let fx = stored(6).await;
    let entry = bulk(&fx);
    for shard in [0, 1] {
        let (store, _) = place(&fx, &entry, shard);
        let name = fx.stores[store].name().to_owned();
        fx.engine.set_provider_mode(&fx.caller(), &name, ProviderMode::Dead, "gone").await.unwrap();
    }
    tokio::time::sleep(Duration::from_mins(3)).await;
    let open = fx.engine.shared().settlement.get(entry.facts.id).unwrap();
    let homes: BTreeSet<&ProviderId> = open.stored.values().collect();
    assert_eq!((open.stored.len(), homes.len()), (4, 4), "{:?}", open.stored);
}

#[tokio::test(start_paused = true)]
async fn readers_report_what_they_miss() {
    let fx = stored(5).await;
    let entry = bulk(&fx);
    let (store, path) = place(&fx, &entry, 0);
    let whole = fx.stores[store].peek(&path).unwrap();
    fx.stores[store].tamper(&path, None);
    fx.forget();
    assert_eq!(fx.read(b"big").await.unwrap(), random(3 << 20, 1));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(fx.stores[store].peek(&path).map(|bytes| bytes.len()), Some(whole.len()), "made again without a scrub");
    assert_whole(&fx).await;
}

#[tokio::test(start_paused = true)]
async fn audits_find_rotten_bodies_that_nobody_reads() {
    let fx = stored(5).await;
    // Bodies of every bulk shard at one provider rot; headers stay.
    for (path, bytes) in fx.stores[4].objects() {
        if bytes.len() > 100_000 {
            let rotten: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| if at > 2048 { byte ^ 1 } else { *byte }).collect();
            fx.stores[4].tamper(&path, Some(rotten.into()));
        }
    }
    assert!(scrub(&fx, false).await.census.unwrap().is_whole(), "headers are right");
    tokio::time::sleep(Duration::from_hours(3)).await;
    let audits = fx.engine.shared().scrub.audits();
    let bad = audits.iter().find(|audit| audit.provider == "p4").unwrap();
    assert!(bad.bad > 0, "{audits:?}");
    assert!(audits.iter().filter(|audit| audit.provider != "p4").all(|audit| audit.bad == 0 && audit.cells > 50), "{audits:?}");
    assert!(audits.iter().all(|audit| audit.at_most_bad_percent < 100.0));
    assert_whole(&fx).await;
}

#[tokio::test(start_paused = true)]
async fn a_drill_finds_parity_that_no_read_touches() {
    let fx = stored(5).await;
    let report = fx.engine.drill().await.unwrap();
    assert_eq!((report.sets.len(), report.sets_total, report.failures, report.blocks), (10, 10, 0, 10), "{report:?}");
    let shared = fx.engine.shared();
    let origin = diaspore_block::log::KeyName::of(shared.deployment());
    let public = shared.keys.identity.public();
    diaspore_block::log::open_report(&report.note, &origin, &public, diaspore_block::log::DRILL_REPORT).unwrap();
    assert!(
        diaspore_block::log::open_report(
            &report.note.replace("failures 0", "failures 1"),
            &origin,
            &public,
            diaspore_block::log::DRILL_REPORT
        )
        .is_err()
    );
    assert!(diaspore_block::log::Checkpoint::open(&report.note, &public).is_err(), "a report is no checkpoint");
    for (path, bytes) in fx.stores[4].objects() {
        if bytes.len() > 2048 {
            let last = bytes.len() / 2;
            fx.stores[4].tamper(&path, Some(flipped(&bytes, last.max(2048))));
        }
    }
    let report = fx.engine.drill().await.unwrap();
    assert!(report.failures > 0 && report.sets.iter().all(|set| set.outcome == "rebuilt" || set.providers.contains(&"p4".to_owned())));
    let last = shared.ledger.snapshot().unwrap().last_drill().unwrap().unwrap();
    assert_eq!((last.subsets, last.failures), (10, report.failures));
    tokio::time::sleep(Duration::from_mins(5)).await;
    scrub(&fx, true).await;
    assert_whole(&fx).await;
}

/// As of an archive tier: it knows the length of everything, answers for what it has not, and gives no byte.
#[tokio::test(start_paused = true)]
async fn a_shard_that_is_never_given_is_made_again_elsewhere() {
    let fx = stored(6).await;
    let refuses = Fault::always(Misbehaviour::Truncate).on(&[Op::Get]);
    scrub(&fx, true).await;
    let at_p0 = |entry: &BlockEntry| entry.facts.placements.iter().find(|place| place.provider == "p0").map(|place| place.shard);
    let before: Vec<_> = entries(&fx).iter().filter_map(|entry| Some((entry.facts.id, at_p0(entry)?))).collect();
    let verified = |block: &BlockId, shard: &u8| {
        let check = fx.engine.shared().ledger.snapshot().unwrap().check_of(*block).unwrap();
        verdict::shard_of(check.as_ref(), *shard).verified
    };
    assert!(!before.is_empty() && before.iter().all(|(block, shard)| verified(block, shard).is_some()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let then = fx.engine.shared().clock.now();
    fx.stores[0].set_faults(FaultPlan::from(refuses));
    scrub(&fx, false).await;
    tokio::time::sleep(Duration::from_hours(2)).await;
    fx.settle().await;
    assert!(entries(&fx).iter().all(|entry| at_p0(entry).is_none()), "nothing is said to lie there");
    let since = |(block, shard): &(BlockId, u8)| verified(block, shard).is_none_or(|at| at > then);
    assert!(before.iter().all(since), "that it was whole there tells nothing of its new place");
    assert_whole(&fx).await;
}

/// What was remembered of such shards goes when they are handed over for repair, or with their blocks: there is room for so many.
#[tokio::test(start_paused = true)]
async fn shards_that_are_never_given_are_remembered_until_they_are_filed() {
    let fx = stored(6).await;
    let shared = fx.engine.shared();
    // Nothing more is written by itself.
    tokio::time::sleep(Duration::from_secs(10)).await;
    fx.settle().await;
    fx.stores[0].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Truncate).on(&[Op::Get])));
    let at_p0 = |entry: &BlockEntry| entry.facts.placements.iter().find(|place| place.provider == "p0").map(|place| place.shard);
    let mut silent = 0;
    for entry in entries(&fx) {
        if let Some(shard) = at_p0(&entry) {
            note(&shared, &entry.facts, &[(shard, id("p0"), Seen::Silent)], false);
            silent += 1;
        }
    }
    assert!(silent > 1);
    // Beside the service's own, and a moment before it.
    let mut watchman = Watchman::new(Arc::clone(&shared));
    watchman.stubborn.insert((BlockId::from_bytes([9; 16]), 0), (Instant::now(), Instant::now()));
    watchman.returns(&count(&shared).unwrap()).await.unwrap();
    assert_eq!(watchman.stubborn.len(), silent + 1);
    tokio::time::sleep(Duration::from_secs(shared.config.profile.upkeep.hold_off_s.into())).await;
    // The walk has come to its end, and begins anew.
    watchman.returns(&count(&shared).unwrap()).await.unwrap();
    watchman.returns(&count(&shared).unwrap()).await.unwrap();
    assert_eq!(watchman.stubborn.len(), 1, "all are filed, and one block is none of the map's");
    tokio::time::sleep(STUBBORN_FOR).await;
    fx.settle().await;
    assert!(entries(&fx).iter().all(|entry| at_p0(entry).is_none()));
    watchman.returns(&count(&shared).unwrap()).await.unwrap();
    assert_eq!(watchman.stubborn.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_moved_is_not_repaired_meanwhile() {
    let fx = stored(5).await;
    let settlement = crate::settle::Settlement::default();
    let entry = bulk(&fx);
    let claim = settlement.claim(entry.facts.id).unwrap();
    assert!(settlement.claim(entry.facts.id).is_none() && !settlement.is_calm(entry.facts.id));
    let place = &entry.facts.placements[0];
    assert!(settlement.file(&entry, &[(place.shard, id(&place.provider), Seen::Missing)]));
    assert!(settlement.next_due(Instant::now(), |_| false, true).is_none());
    drop(claim);
    assert!(settlement.claim(entry.facts.id).is_none(), "it lacks a shard");
    assert!(settlement.next_due(Instant::now(), |_| false, true).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_most_endangered_block_comes_first_and_the_cap_is_for_the_others() {
    let fx = stored(5).await;
    let blocks = entries(&fx);
    let silent = |_: &ProviderId| false;
    let lost = |entry: &BlockEntry, count: usize| -> Vec<(u8, ProviderId, Seen)> {
        entry.facts.placements.iter().take(count).map(|place| (place.shard, id(&place.provider), Seen::Missing)).collect()
    };
    let settlement = crate::settle::Settlement::default();
    for (entry, count) in blocks.iter().zip([1, 2, 1]) {
        assert!(settlement.file(entry, &lost(entry, count)));
    }
    let now = Instant::now();
    let urgent = settlement.next_due(now, silent, false).unwrap();
    assert_eq!(urgent.facts.id, blocks[1].facts.id, "it survives no further loss: the cap is not for it");
    assert!(settlement.next_due(now, silent, false).is_none(), "the others wait for their turn");
    // With a provider silent that holds shards of everything, they survive none either.
    let gone = id(&blocks[0].facts.placements[4].provider);
    assert!(settlement.next_due(now, |provider: &ProviderId| *provider == gone, false).is_some());
    assert!(settlement.next_due(now, silent, true).is_some());
    assert_eq!(settlement.backlog().blocks, 0, "a repair is nothing that settling waits for");
}

#[tokio::test(start_paused = true)]
async fn repair_keeps_to_its_rate() {
    let fx = stored(6).await;
    let shared = fx.engine.shared();
    let rate = shared.config.profile.upkeep.repair_bytes_per_s;
    let cost: u64 = entries(&fx).iter().map(|entry| u64::from(entry.facts.shard_len) * (u64::from(entry.facts.geometry.k()) + 1)).sum();
    fx.stores[5].lose_everything();
    let started = Instant::now();
    let report = scrub(&fx, false).await;
    let took = started.elapsed();
    assert!(report.census.unwrap().is_whole());
    assert!(took < Duration::from_secs(cost / rate + 30), "{took:?}");
}
