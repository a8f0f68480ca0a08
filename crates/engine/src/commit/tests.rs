//! The door to the log: what is refused before anything happened, and who waits for how long.

use super::*;
use crate::shared::Stage;

const SECOND: Duration = Duration::from_secs(1);

fn request() -> CommitRequest {
    let stopped = ServiceStopped { incarnation: diaspore_block::id::IncarnationId::from_bytes([1; 16]), reason: String::new() };
    CommitRequest::single(NewRecord::system(stopped), ())
}

/// A door behind which nobody works, for so many bytes that wait and so many in one block.
fn door(queue_bytes: usize, commit_bytes: usize) -> (Arc<Committer>, Inbox) {
    let committer = Committer::new(queue_bytes, commit_bytes, StageCell::new(Stage::Active));
    let inbox = committer.take_inbox().unwrap();
    assert!(committer.take_inbox().is_none(), "one task drains it");
    (Arc::new(committer), inbox)
}

#[tokio::test(start_paused = true)]
async fn what_fits_neither_a_block_nor_the_queue_is_refused_at_once() {
    let cost = request().cost();
    let later = Instant::now() + SECOND * 60;
    for (queue, block) in [(cost - 1, cost), (cost, cost - 1)] {
        let (committer, mut inbox) = door(queue, block);
        assert_eq!(committer.submit(request(), later).await.unwrap_err().kind, ErrorKind::TooLarge);
        assert!(inbox.try_recv().is_err());
    }
    let (committer, mut inbox) = door(cost, cost);
    let answered = async {
        let queued = inbox.recv().await.unwrap();
        assert_eq!((queued.cost, queued.expires), (cost, Instant::now() + PATIENCE));
        queued.answer.send(Ok(Committed { seq: Seq(5), geometry: (3, 5) })).unwrap();
    };
    let (committed, ()) = futures::join!(committer.submit(request(), later), answered);
    assert_eq!(committed.unwrap(), Committed { seq: Seq(5), geometry: (3, 5) });
}

#[tokio::test(start_paused = true)]
async fn the_cost_of_a_request_is_no_less_than_what_it_takes_in_a_block() {
    let mut large = request();
    let chunk = SmallChunk {
        tenant: TenantId::from_bytes([1; 16]),
        bucket: BucketId::from_bytes([2; 16]),
        id: ChunkId::from_bytes([3; 32]),
        encoding: Encoding::Raw,
        plain_len: 1000,
        stored: Bytes::from(vec![0; 1000]),
    };
    let one = request().cost();
    assert!(one >= 256);
    large.chunks = vec![chunk.clone(), chunk];
    assert_eq!(large.cost(), one + 2 * 1128);
    large.records.extend(request().records);
    assert_eq!(large.cost(), 2 * one + 2 * 1128);
}

/// Nothing happened to it, and it may come again.
#[tokio::test(start_paused = true)]
async fn without_room_in_the_queue_a_request_waits_as_long_as_it_may_and_is_refused_for_certain() {
    let cost = request().cost();
    let (committer, mut inbox) = door(cost, cost);
    let hold = {
        let committer = Arc::clone(&committer);
        tokio::spawn(async move { committer.submit(request(), Instant::now() + SECOND * 60).await })
    };
    let first = inbox.recv().await.unwrap();
    for (by, waits) in [(SECOND * 60, PATIENCE), (SECOND * 3, SECOND * 3)] {
        let begun = Instant::now();
        let error = committer.submit(request(), begun + by).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotAccepted);
        assert!(begun.elapsed() >= waits && begun.elapsed() < waits + SECOND / 10, "{:?}", begun.elapsed());
    }
    assert!(inbox.try_recv().is_err());
    // The first is with the task, and goes without an answer: it may be in the log.
    drop(first);
    assert_eq!(hold.await.unwrap().unwrap_err().kind, ErrorKind::OutcomeUnknown);
    let begun = Instant::now();
    let (late, _taken) = futures::join!(committer.submit(request(), begun + SECOND), inbox.recv());
    assert_eq!(late.unwrap_err().kind, ErrorKind::OutcomeUnknown, "it was taken, and not answered in time");
    assert!(begun.elapsed() >= SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_door_that_is_closed_says_why() {
    let later = Instant::now() + SECOND * 60;
    let (committer, inbox) = door(1 << 20, 1 << 20);
    drop(inbox);
    let error = committer.submit(request(), later).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotAccepted);
    assert!(error.message.contains("shutting down"), "{}", error.message);
    committer.stage.set(Stage::ReadOnly("a test".to_owned()));
    assert_eq!(committer.enqueue(request(), later).await.unwrap_err().kind, ErrorKind::ReadOnly);
    let (committer, mut inbox) = door(1 << 20, 1 << 20);
    committer.stage.set(Stage::ReadOnly("a test".to_owned()));
    assert_eq!(committer.submit(request(), later).await.unwrap_err().kind, ErrorKind::ReadOnly);
    assert!(inbox.try_recv().is_err(), "nothing new");
}

/// Upkeep's own bookkeeping needs no mark behind it: were it lost, providers would show the same again.
#[test]
fn what_somebody_asked_for_is_told_from_upkeep() {
    use diaspore_block::record::{AuditDropped, ShardsMoved};
    assert!(is_asked_for(&AuditDropped { count: 1 }.into()) && is_asked_for(&request().records[0].private));
    assert!(!is_asked_for(&ShardsMoved { moves: Vec::new() }.into()));
}
