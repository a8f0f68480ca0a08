//! The service's own disk is full.

use std::time::Duration;

use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};

use super::fixture::{Fixture, random};
use crate::api::{ErrorKind, Precondition};

fn refused(fx: &Fixture) -> Option<String> {
    fx.engine.status().writes_refused
}

fn puts(fx: &Fixture) -> u64 {
    fx.stores.iter().map(|store| store.requests(Op::Put)).sum()
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_said_refuses_changes_keeps_reads_and_ends_by_itself() {
    let fx = Fixture::start(5).await;
    let data = random(300_000, 1);
    fx.put(b"before", &data).await.unwrap();
    assert_eq!(refused(&fx), None);
    fx.disk.set_capacity(Some(fx.disk.used_bytes() + 2000));
    let error = loop {
        if let Err(error) = fx.put(b"small", b"a few bytes").await {
            break error;
        }
    };
    // The second: the disk filled up between its block's issue and its release.
    assert!(matches!(error.kind, ErrorKind::InsufficientStorage | ErrorKind::OutcomeUnknown), "{error}");
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let why = refused(&fx).unwrap();
        assert!(why.contains("disk is full"), "{why}");
        let before = puts(&fx);
        assert_eq!(fx.put(b"large", &random(2 << 20, 2)).await.unwrap_err().kind, ErrorKind::InsufficientStorage);
        assert_eq!(fx.delete(b"before", Precondition::default(), None).await.unwrap_err().kind, ErrorKind::InsufficientStorage);
        assert_eq!(puts(&fx), before, "refused before anything was sent");
        assert_eq!(fx.read(b"before").await.unwrap(), data);
    }
    fx.disk.set_capacity(None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(refused(&fx), None);
    fx.put(b"after", &data).await.unwrap();
    let fx = fx.restart().await;
    assert_eq!(fx.read(b"before").await.unwrap(), data);
    assert_eq!(fx.read(b"after").await.unwrap(), data);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_under_a_commit_holds_it_back_and_ends_nothing() {
    let fx = Fixture::start(5).await;
    for store in &fx.stores {
        let late = Misbehaviour::Latency { fixed: Duration::from_secs(2), jitter: Duration::ZERO };
        store.set_faults(FaultPlan::from(Fault::always(late).on(&[Op::Put])));
    }
    let fill = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fx.disk.set_capacity(Some(fx.disk.used_bytes()));
        tokio::time::sleep(Duration::from_secs(9)).await;
        let during = refused(&fx);
        fx.disk.set_capacity(None);
        during
    };
    let (put, during) = tokio::join!(fx.put(b"key", b"value"), fill);
    assert!(during.unwrap().contains("disk is full"));
    put.unwrap();
    assert_eq!(fx.engine.status().state, "active");
    assert_eq!(fx.restart().await.read(b"key").await.unwrap(), b"value");
}

/// The ledger cannot say that a block settled while its disk is full. What it says once there is room ends the wait of its sequence too: a
/// checkpoint waits for that without end.
#[tokio::test(start_paused = true)]
async fn what_settles_while_the_disk_is_full_is_settled_when_there_is_room() {
    let fx = Fixture::start(5).await;
    fx.settle().await;
    // The quorum is there at once; the last shard comes when there is no room for a word about it.
    fx.stores[4].set_faults(FaultPlan::down());
    fx.put(b"key", b"value").await.unwrap();
    let shared = fx.engine.shared();
    let behind = || {
        let known = shared.ledger.snapshot().unwrap().settled_through().unwrap();
        (shared.settlement.settled_through(), known, shared.ledger.snapshot().unwrap().applied_seq().unwrap())
    };
    fx.disk.set_capacity(Some(fx.disk.used_bytes()));
    fx.stores[4].set_faults(FaultPlan::honest());
    tokio::time::sleep(Duration::from_mins(2)).await;
    let (_, known, applied) = behind();
    assert!(known < applied && refused(&fx).is_some(), "{known} of {applied}");
    fx.disk.set_capacity(None);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (settled, known, applied) = behind();
    assert_eq!((settled, known), (applied, applied));
    tokio::time::timeout(Duration::from_mins(1), fx.engine.checkpoint_log()).await.unwrap().unwrap();
}
