//! What waits for a block, when it leaves, and what becomes of what does not.

mod blocks;

use diaspore_block::id::{Counter, IncarnationId, TenantId};
use diaspore_block::record::ServiceStopped;
use tokio::sync::oneshot;

use super::super::{CommitRequest, Committed, NewRecord};
use super::*;
use crate::api::ErrorKind;
use crate::blob::tests::fixture::Fixture;

type Answer = oneshot::Receiver<Result<Committed, Error>>;

fn waiting(cost: usize, records: usize, tenant: u8, expires: Instant) -> (Queued, Answer) {
    let (answer, outcome) = oneshot::channel();
    let record = || {
        let stopped = ServiceStopped { incarnation: IncarnationId::from_bytes([1; 16]), reason: String::new() };
        NewRecord::system(stopped).within(TenantId::from_bytes([tenant; 16]))
    };
    let request = CommitRequest { records: (0..records).map(|_| record()).collect(), ..CommitRequest::single(record(), ()) };
    let room = Arc::new(Semaphore::new(0)).try_acquire_many_owned(0).unwrap();
    (Queued { request, cost, answer, expires, _room: room }, outcome)
}

fn in_an_hour() -> Instant {
    Instant::now() + Duration::from_hours(1)
}

fn refusal(answer: &mut Answer) -> ErrorKind {
    answer.try_recv().unwrap().unwrap_err().kind
}

fn pending(queue: Vec<Queued>) -> Pending {
    let mut pending = Pending::default();
    for queued in queue {
        pending.push(queued);
    }
    pending
}

/// How many requests each block takes, of `limit` bytes.
fn batches(queue: Vec<Queued>, limit: usize) -> Vec<usize> {
    let mut pending = pending(queue);
    let mut sizes = Vec::new();
    while !pending.requests.is_empty() {
        sizes.push(pending.take_batch(limit).len());
    }
    assert_eq!(pending.bytes, 0);
    sizes
}

#[tokio::test(start_paused = true)]
async fn a_block_takes_what_fits_in_order_and_one_request_at_least() {
    let later = Instant::now() + Duration::from_secs(1);
    let of = |costs: &[(usize, usize)]| costs.iter().map(|(cost, records)| waiting(*cost, *records, 0, later).0).collect::<Vec<_>>();
    assert_eq!(batches(of(&[(40, 1), (60, 1), (1, 1)]), 100), [2, 1]);
    assert_eq!(batches(of(&[(400, 1), (60, 1), (41, 1)]), 100), [1, 1, 1], "one that is too large goes alone");
    let half = MAX_RECORDS / 2;
    assert_eq!(batches(of(&[(1, half - 1), (1, 1), (1, 1)]), 100), [2, 1], "half of all records leave room for notes");
    let tenants = |count: usize| (0..count).map(|tenant| waiting(1, 1, u8::try_from(tenant).unwrap(), later).0).collect::<Vec<_>>();
    assert_eq!(batches(tenants(SECTION_MARGIN + 1), 1 << 20), [SECTION_MARGIN, 1], "a section per tenant");
}

#[tokio::test(start_paused = true)]
async fn what_expires_is_refused_and_what_does_not_stays() {
    let now = Instant::now();
    let (first, mut refused) = waiting(30, 1, 0, now);
    let (second, mut stays) = waiting(50, 1, 0, now + Duration::from_millis(1));
    let mut pending = pending(vec![first, second]);
    pending.reject_expired(now);
    assert_eq!(refused.try_recv().unwrap().unwrap_err().kind, ErrorKind::NotAccepted);
    assert!(stays.try_recv().is_err(), "it has a millisecond left");
    assert_eq!((pending.bytes, pending.requests.len()), (50, 1));
}

#[tokio::test(start_paused = true)]
async fn the_task_wakes_for_the_first_of_its_moments_and_never_for_one_that_is_past() {
    let now = Instant::now();
    let at = |millis| now + Duration::from_millis(millis);
    let mut pending = pending(vec![waiting(1, 1, 0, at(30)).0]);
    assert_eq!(pending.wake(now), Some(at(30)));
    pending.audit_due = Some(at(20));
    assert_eq!(pending.wake(now), Some(at(20)));
    pending.leaves = Some(at(10));
    assert_eq!(pending.wake(now), Some(at(10)));
    pending.leaves = None;
    assert_eq!(pending.wake(at(20)), Some(at(30)), "audit events that are due wait for a place");
}

#[tokio::test(start_paused = true)]
async fn behind_the_newest_write_one_block_says_that_it_was_acknowledged() {
    let fx = Fixture::start(5).await;
    let newest = || fx.engine.shared().ledger.snapshot().unwrap().applied_seq().unwrap();
    fx.put(b"key", b"value").await.unwrap();
    let written = newest();
    tokio::time::sleep(MARK_AFTER.saturating_sub(Duration::from_millis(10))).await;
    assert_eq!(newest(), written, "whatever comes by now would say it as well");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(newest(), written.next());
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(newest(), written.next(), "nobody has to speak of a block of notes");
}

#[tokio::test(start_paused = true)]
async fn a_mark_waits_until_there_is_an_acknowledgement_to_tell_of() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let issuer = |released| {
        let tip = Tip::behind(&shared.ledger.snapshot().unwrap(), Counter(0)).unwrap();
        let notes = Arc::new(Notes::starting_at(released));
        Issuer { shared: Arc::clone(&shared), tip, notes, window: Arc::new(Semaphore::new(0)), out: mpsc::channel(1).0 }
    };
    let now = Instant::now();
    let mut pending = Pending { mark_due: Some(now), unmarked: Seq(4), ..Pending::default() };
    assert!(!issuer(Seq(3)).has_mark(&mut pending, now));
    assert_eq!(pending.mark_due, Some(now + MARK_AFTER), "and is not asked for without end");
    assert!(issuer(Seq(4)).has_mark(&mut pending, now + MARK_AFTER));
    pending.issued(false, Seq(6), Seq(3));
    assert!(pending.mark_due.is_some(), "audit events alone left before the acknowledgement");
    pending.issued(false, Seq(7), Seq(4));
    assert_eq!(pending.mark_due, None);
}

/// One is pending, the other still in the queue.
#[tokio::test(start_paused = true)]
async fn whoever_has_no_place_yet_when_the_engine_closes_is_refused_for_certain() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let tip = Tip::behind(&shared.ledger.snapshot().unwrap(), Counter(0)).unwrap();
    let (out, _in_flight) = mpsc::channel(1);
    let issuer = Issuer { shared: Arc::clone(&shared), tip, notes: Arc::default(), window: Arc::new(Semaphore::new(0)), out };
    let (queue, inbox) = mpsc::channel(2);
    let later = Instant::now() + Duration::from_hours(1);
    let (first, pending) = waiting(shared.config.limits.commit_bytes, 1, 0, later);
    let (second, queued) = waiting(1, 1, 0, later);
    let close = async {
        assert!(queue.send(first).await.is_ok() && queue.send(second).await.is_ok());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(queue.capacity(), 1, "the second waits outside");
        shared.close();
    };
    futures::join!(issuer.run(inbox), close);
    for answer in [pending, queued] {
        assert_eq!(answer.await.unwrap().unwrap_err().kind, ErrorKind::NotAccepted);
    }
}

/// The queue is full and somebody waits for room in it. When the engine closes it must not get in any more: nobody would answer.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_room_in_the_queue_when_the_engine_closes_does_not_get_in() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let tip = Tip::behind(&shared.ledger.snapshot().unwrap(), Counter(0)).unwrap();
    let (out, _in_flight) = mpsc::channel(1);
    let issuer = Issuer { shared: Arc::clone(&shared), tip, notes: Arc::default(), window: Arc::new(Semaphore::new(0)), out };
    let (queue, inbox) = mpsc::channel(1);
    // The first takes all of the bytes that may be pending.
    let (first, one) = waiting(shared.config.limits.commit_bytes, 1, 0, in_an_hour());
    let (second, two) = waiting(1, 1, 0, in_an_hour());
    let (third, _three) = waiting(1, 1, 0, in_an_hour());
    let close = async {
        assert!(queue.send(first).await.is_ok() && queue.send(second).await.is_ok());
        let waits = queue.send(third);
        let closes = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            shared.close();
        };
        futures::join!(waits, closes).0
    };
    let ((), third) = futures::join!(issuer.run(inbox), close);
    assert!(third.is_err(), "it is told at once");
    for answer in [one, two] {
        assert_eq!(answer.await.unwrap().unwrap_err().kind, ErrorKind::NotAccepted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_everybody_in_its_own_words() {
    let (batch, answers): (Vec<_>, Vec<_>) = (0..3).map(|_| waiting(1, 1, 0, Instant::now())).unzip();
    answer_all(batch, &Error::new(ErrorKind::TooFewDomains, "bring back two"));
    for answer in answers {
        let error = answer.await.unwrap().unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::TooFewDomains, "bring back two"));
    }
}
