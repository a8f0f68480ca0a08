//! What a start refuses before it writes anything, and what must not keep it from deciding.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use diaspore_block::claim::Claim;
use diaspore_block::id::{Counter, Epoch, IncarnationId};
use diaspore_block::name::Names;
use futures::StreamExt;
use tokio::time::Instant;

use super::*;

/// Names of all objects, by store.
async fn objects(world: &World) -> Vec<BTreeSet<String>> {
    let mut found = Vec::new();
    for store in &world.stores {
        found.push(store.list(None).map(|meta| meta.unwrap().location.to_string()).collect().await);
    }
    found
}

async fn refused(world: &mut World, disk: &MemoryMedium) -> crate::api::Error {
    let refused = world.start(disk, Mode::Start).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::RefusedState, "{refused}");
    refused
}

fn hostile() -> Vec<HostileStore> {
    (0..6).map(|at| HostileStore::new(&format!("p{at}"), ChaCha12Rng::seed_from_u64(at))).collect()
}

/// A disk that is not mounted is as empty at the second try as at the first, and a start that is refused stops nobody who serves.
#[tokio::test(start_paused = true)]
async fn an_empty_disk_is_refused_again_and_again_and_harms_nobody() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let writer = world.start(&disk, Mode::Start).await.unwrap();
    fill(&writer, &world, 0..3).await;
    writer.settle_wait(Duration::from_mins(1)).await.unwrap();
    let (before, unmounted) = (objects(&world).await, MemoryMedium::new());
    for _ in 0..3 {
        let why = refused(&mut world, &unmounted).await;
        assert!(why.message.contains("recover"), "{why}");
    }
    assert_eq!(objects(&world).await, before, "no claim, nothing");
    tokio::time::sleep(Duration::from_mins(1)).await;
    fill(&writer, &world, 3..4).await;
    assert_eq!(count(&writer, &world).await, 4, "who serves goes on");
}

/// The very first start may be cut short at any step: the next one over the same disk needs nobody's permission.
#[tokio::test(start_paused = true)]
async fn a_first_start_that_was_cut_short_is_begun_again() {
    let slow = Misbehaviour::Latency { fixed: Duration::from_millis(50), jitter: Duration::ZERO };
    let mut undecided = 0;
    for steps in 0..40 {
        let (mut world, disk) = (World::new(), MemoryMedium::new());
        world.hostile = hostile();
        for store in &world.hostile {
            store.set_faults(FaultPlan::from(Fault::always(slow)));
        }
        match tokio::time::timeout(Duration::from_millis(20 * steps), world.start(&disk, Mode::Start)).await {
            Ok(started) => crash(started.unwrap()),
            Err(_) => undecided += usize::from(world.hostile.iter().any(|store| !store.objects().is_empty())),
        }
        let engine = world.start(&disk.crash(), Mode::Start).await.unwrap_or_else(|error| panic!("after {steps} steps: {error}"));
        fill(&engine, &world, 0..1).await;
    }
    assert!(undecided > 0, "some were cut behind the claim and before the end");
}

/// The data folder is the right one and the accounts are not: a mistyped prefix, or providers rolled back to nothing.
#[tokio::test(start_paused = true)]
async fn accounts_without_a_single_claim_are_not_these() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..3).await;
    engine.shutdown().await.unwrap();
    let right = std::mem::replace(&mut world.stores, (0..6).map(|_| Arc::new(InMemory::new())).collect());
    for mode in [Mode::Start, Mode::Recover { declare_lost: Vec::new() }] {
        let why = world.start(&disk.snapshot(), mode).await.unwrap_err();
        assert!(why.kind == ErrorKind::RefusedState && why.message.contains("wrong accounts"), "{why}");
    }
    assert!(objects(&world).await.iter().all(BTreeSet::is_empty), "nothing was written there");
    world.stores = right;
    let engine = world.start(&disk.snapshot(), Mode::Start).await.unwrap();
    assert_eq!(count(&engine, &world).await, 3);
}

/// A writer died while it placed its claim; a second one saw that claim, named it in its own, and never decided; then the only copy went.
#[tokio::test(start_paused = true)]
async fn a_claim_that_never_counted_and_is_gone_blocks_nobody() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..3).await;
    engine.shutdown().await.unwrap();
    let seen = (Epoch(2), IncarnationId::from_bytes([2; 16]));
    let claim = Claim { claims_seen: vec![seen], ..world.claim(3, IncarnationId::from_bytes([3; 16])) };
    world.place(&claim).await;
    let engine = world.start(&MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }).await.unwrap();
    assert_eq!(count(&engine, &world).await, 3, "{:?}", engine.status().state);
    assert_eq!(engine.status().epoch, 4);
}

/// One provider lists hundreds of objects where heads stand and takes its time over each.
#[tokio::test(start_paused = true)]
async fn a_provider_full_of_slow_junk_does_not_hold_up_a_start() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    world.hostile = hostile();
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..3).await;
    engine.shutdown().await.unwrap();
    let names = Names::new(&world.keys.name);
    for counter in 0..300 {
        let name = names.head("p0", IncarnationId::from_bytes([9; 16]), Counter(counter));
        world.hostile[0].tamper(name.as_str(), Some(Bytes::from_static(&[0; 400])));
    }
    let slow = Misbehaviour::Latency { fixed: Duration::from_secs(9), jitter: Duration::ZERO };
    world.hostile[0].set_faults(FaultPlan::from(Fault::always(slow).on(&[Op::Get])));
    let started = Instant::now();
    let engine = world.start(&disk.snapshot(), Mode::Start).await.unwrap();
    assert_eq!(count(&engine, &world).await, 3);
    assert!(started.elapsed() < Duration::from_mins(2), "{:?}", started.elapsed());
}

/// Rows of a compacted log were put in place, and the power went. Half of the blobs must not look like all of them.
#[tokio::test(start_paused = true)]
async fn half_of_a_log_is_not_served_to_who_only_reads() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let writer = world.start(&disk, Mode::Start).await.unwrap();
    fill(&writer, &world, 0..3).await;
    writer.settle_wait(Duration::from_mins(1)).await.unwrap();
    crash(writer);
    let disk = disk.snapshot();
    let reader = world.start(&disk, Mode::ReadOnly).await.unwrap();
    assert_eq!(count(&reader, &world).await, 3);
    let (seq, newest) = reader.ends_at().unwrap();
    assert!(seq.get() >= 4 && newest.unwrap() >= Timestamp(1_700_000_000_000), "{seq} {newest:?}");
    crash(reader);
    let disk = disk.snapshot();
    let ledger = Ledger::open(disk.clone(), &world.keys.ledger, OpenMode::ReadWrite, Box::new(StdRng::seed_from_u64(3))).unwrap();
    ledger.append(JournalEntry::Base(diaspore_ledger::BaseStep::Begin)).unwrap();
    ledger.sync().unwrap();
    drop(ledger);
    let reader = world.start(&disk, Mode::ReadOnly).await.unwrap();
    assert!(!reader.is_readable());
    assert!(reader.why_read_only().unwrap().contains("an installation of the log broke off"));
    assert!(reader.list_buckets(&world.caller()).await.is_err());
    crash(reader);
    let disk = disk.snapshot();
    let writer = world.start(&disk, Mode::Start).await.unwrap();
    assert_eq!(count(&writer, &world).await, 3, "whoever may write goes on with it");
}
