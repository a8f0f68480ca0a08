//! Claims come and go (docs/protocol.md, rule 5): one per start, the old ones removed, and nobody is fooled by what stands among them.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use diaspore_engine::config::Mode;
use diaspore_testkit::{Fault, FaultPlan, HostileStore, Misbehaviour, Op};
use diaspore_tests::sim::{Deployment, DiskFate};

use crate::traces::{deployment, deployment_under, engine, get, on_paused_clock, put};

/// Claims that are never removed.
const KEPT: usize = 64;

/// Names of the claims at a provider: they stand below 16 hex digits, shards below 2.
fn claims(store: &HostileStore) -> BTreeSet<String> {
    let listed = |path: &String| path.split_once('/').is_some_and(|(folder, _)| folder.len() == 16);
    store.objects().into_iter().map(|(path, _)| path).filter(listed).collect()
}

/// Waits, on the paused clock, until no provider holds more claims than stay.
async fn pruned(world: &Deployment) {
    for _ in 0..1000 {
        if world.stores.iter().all(|store| claims(store).len() <= KEPT) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{:?} claims are left", world.stores.iter().map(|store| claims(store).len()).collect::<Vec<_>>());
}

/// A crash loop leaves a bounded number of claims, every start of it works, and what was written in the beginning is there at
/// its end, with the disk and with nothing but the providers.
#[test]
fn two_hundred_starts_leave_few_claims() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(1).await;
        put(&engine(&world), &caller, "first", "first").await.unwrap();
        for start in 1..200 {
            world.crash(DiskFate::Kept);
            world.start(false).await.unwrap();
            assert_eq!(engine(&world).status().state, "active", "start {start}");
            if start == 100 {
                put(&engine(&world), &caller, "middle", "middle").await.unwrap();
            }
            pruned(&world).await;
        }
        let most = world.stores.iter().map(|store| store.requests(Op::Delete)).max().unwrap();
        assert_eq!(most, 200 - KEPT as u64, "each is deleted once, and nothing else is");
        world.crash(DiskFate::Lost);
        world.start(false).await.unwrap();
        for key in ["first", "middle"] {
            assert_eq!(get(&engine(&world), &caller, key).await.unwrap(), key.as_bytes());
        }
    });
}

/// Accounts that take one write and refuse the next: a start claims again for those that took its claim when the layout it named cannot be
/// served by them.
#[test]
fn a_start_claims_again_for_those_who_took_its_claim() {
    on_paused_clock(async {
        let (mut world, caller) = deployment_under("low-overhead", 3).await;
        put(&engine(&world), &caller, "key", "text").await.unwrap();
        engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
        let mut most = 0;
        for start in 0..60 {
            world.crash(DiskFate::Kept);
            let before: Vec<_> = world.stores.iter().map(claims).collect();
            for store in &world.stores {
                store.set_faults(FaultPlan::from(Fault::chance(Misbehaviour::Full, 0.4).on(&[Op::Put])));
            }
            world.start(false).await.unwrap();
            let new = world.stores.iter().zip(&before).map(|(store, before)| claims(store).difference(before).count()).max().unwrap();
            assert!(new <= 2, "start {start} claimed {new} times");
            most = most.max(new);
            world.heal();
            pruned(&world).await;
        }
        assert_eq!(most, 2, "some start claimed again");
        world.crash(DiskFate::Kept);
        world.start(false).await.unwrap();
        assert_eq!(get(&engine(&world), &caller, "key").await.unwrap(), b"text");
    });
}

/// The paused writer of trace C10 wakes up after so many successors that its own claim is gone: higher ones stand, so it stops.
#[test]
fn a_writer_whose_claim_was_removed_is_fenced_all_the_same() {
    on_paused_clock(async {
        let (world, caller) = deployment(2).await;
        let old = engine(&world);
        old.settle_wait(Duration::from_mins(1)).await.unwrap();
        let before: Vec<BTreeSet<String>> = world.stores.iter().map(claims).collect();
        let mut disk = world.copy_disk();
        for _ in 0..KEPT {
            world.start_on(&disk, Mode::Start).await.unwrap().abort();
            disk = disk.crash();
        }
        let newest = world.start_on(&disk, Mode::Start).await.unwrap();
        pruned(&world).await;
        for (store, before) in world.stores.iter().zip(before) {
            assert!(claims(store).is_disjoint(&before), "the claim of the old writer is gone");
        }
        put(&old, &caller, "key", "from the past").await.expect_err("it is fenced");
        assert_eq!(old.status().state, "stopped");
        put(&newest, &caller, "key", "now").await.unwrap();
    });
}

/// Whoever fills the claims of a provider with junk makes it one that does not answer; the others decide, and with too few of
/// them the message says what to do.
#[test]
fn a_provider_full_of_junk_counts_as_silent() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(3).await;
        put(&engine(&world), &caller, "key", "key").await.unwrap();
        let stuff = |store: &HostileStore| {
            let claim = claims(store).pop_first().unwrap();
            let (folder, _) = claim.split_once('/').unwrap();
            for junk in 0..10_001 {
                store.tamper(&format!("{folder}/{junk:040x}"), Some(Bytes::new()));
            }
        };
        stuff(&world.stores[0]);
        world.crash(DiskFate::Kept);
        world.start(false).await.unwrap();
        assert_eq!(engine(&world).status().state, "active");
        assert_eq!(get(&engine(&world), &caller, "key").await.unwrap(), b"key");
        // The claim quorum of six domains is four.
        stuff(&world.stores[1]);
        stuff(&world.stores[2]);
        world.crash(DiskFate::Kept);
        world.start(false).await.unwrap();
        let why = engine(&world).why_read_only().unwrap();
        assert!(why.contains("only 3 failure domains") && why.contains("cloud-1 below") && why.contains("newest 1000"), "{why}");
    });
}
