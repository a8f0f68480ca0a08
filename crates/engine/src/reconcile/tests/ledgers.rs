//! What a disk holds that does not fit into memory, and what it has no room for.

use std::time::Duration;

use diaspore_block::id::Seq;

use super::*;
use crate::audit::Event;

fn refuse_puts(store: &HostileStore) {
    store.set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put])));
}

/// A disk with a hundred blocks that one provider did not take, and the world it belongs to.
async fn unsettled() -> (World, MemoryMedium) {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    world.hostile = (0..6).map(|at| HostileStore::new(&format!("p{at}"), ChaCha12Rng::seed_from_u64(at))).collect();
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    refuse_puts(&world.hostile[5]);
    fill(&engine, &world, 0..100).await;
    crash(engine);
    (world, disk.snapshot())
}

/// More than the register takes: what does not fit is unsettled all the same, and has its turn.
#[tokio::test(start_paused = true)]
async fn more_unsettled_blocks_than_fit_are_not_called_settled_and_have_their_turn() {
    let (mut world, disk) = unsettled().await;
    world.open_blocks = 8;
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    let through = || engine.shared().ledger.snapshot().unwrap().settled_through().unwrap();
    assert!(engine.shared().settlement.settled_through() <= through());
    let report = engine.settle_wait(Duration::from_secs(5)).await.unwrap();
    assert!(report.unsettled_blocks >= 100, "{report:?}");
    assert!(engine.status().unsettled_blocks >= 100 && engine.status().recovery_point_seq <= through().0);
    world.hostile[5].set_faults(FaultPlan::honest());
    let waiting = Duration::from_mins(30);
    let made = tokio::time::timeout(waiting, engine.checkpoint_log()).await.expect("a checkpoint ends").unwrap();
    assert!(made.covers > 100);
    assert_eq!(engine.settle_wait(waiting).await.unwrap().unsettled_blocks, 0);
    assert!(through() >= Seq(100) && engine.shared().settlement.settled_through() <= through());
}

/// What a start keeps of a journal that could not be cut is a window, however long it grew.
#[tokio::test(start_paused = true)]
async fn a_start_does_not_take_the_whole_journal_into_memory() {
    let (world, disk) = unsettled().await;
    let rng = Box::new(StdRng::seed_from_u64(5));
    let ledger = Ledger::open(disk.clone(), &world.keys.ledger, OpenMode::ReadWrite, rng).unwrap();
    let mut blocks = 0;
    ledger.scan_hold(&mut |entry| blocks += u64::from(matches!(entry, JournalEntry::Block(_)))).unwrap();
    drop(ledger);
    assert!(blocks > 100, "nothing could be cut");
    let mut world = world;
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    let evidence = super::super::evidence(&engine.shared()).unwrap();
    let applied = engine.shared().ledger.snapshot().unwrap().applied_seq().unwrap().0;
    let oldest = evidence.held.values().flatten().map(|issued| issued.seq.0).min();
    assert_eq!(oldest, Some(applied + 1 - super::super::chain::LARGEST_WINDOW), "no more, and no less");
    assert!(evidence.held.len() <= 70 && evidence.released.values().any(|seq| *seq > Seq(100)), "{}", evidence.held.len());
    assert_eq!(count(&engine, &world).await, 100);
}

/// A block that the disk has no room for leaves nothing behind but refused requests: what the log was to say besides, it says later.
#[tokio::test(start_paused = true)]
async fn what_a_full_disk_refuses_is_logged_later() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..1).await;
    engine.settle_wait(Duration::from_mins(1)).await.unwrap();
    let records = |kind| engine.shared().ledger.snapshot().unwrap().totals().unwrap().records_of(kind);
    let releases = records(RecordKind::CommitReleased);
    for _ in 0..3 {
        engine.shared().audit.note(Event::ProviderFault { provider: "p0".to_owned(), what: "test".to_owned() });
    }
    disk.set_capacity(Some(disk.used_bytes()));
    let refused = engine.create_bucket(&world.caller(), "no-room").await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InsufficientStorage, "{refused}");
    disk.set_capacity(None);
    // Room is looked for every few seconds.
    tokio::time::sleep(Duration::from_secs(10)).await;
    fill(&engine, &world, 1..2).await;
    assert_eq!((records(RecordKind::ProviderFault), records(RecordKind::AuditDropped)), (1, 0));
    assert!(records(RecordKind::CommitReleased) > releases);
}
