//! What waits for a block, when it leaves, and what becomes of what does not.

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

/// An issuing task beside that of a resting engine, which has nothing to do.
struct Desk {
    fx: Fixture,
    shared: Arc<Shared>,
    issuer: Issuer,
    queue: mpsc::Sender<Queued>,
    inbox: Inbox,
    closing: watch::Receiver<bool>,
    bucket: Bucket,
    issued: mpsc::Receiver<InFlight>,
}

impl Desk {
    /// With so many places for blocks in flight.
    async fn with(places: usize) -> Self {
        let fx = Fixture::start(5).await;
        fx.settle().await;
        // By then what the start wrote has its mark.
        tokio::time::sleep(Duration::from_mins(2)).await;
        let shared = fx.engine.shared();
        assert!(shared.audit.is_empty());
        Self::of(fx, shared, places)
    }

    fn of(fx: Fixture, shared: Arc<Shared>, places: usize) -> Self {
        let view = shared.ledger.snapshot().unwrap();
        // Far from the positions of the engine's own.
        let tip = Tip::behind(&view, Counter(1000)).unwrap();
        let (out, issued) = mpsc::channel(4);
        let notes = Arc::new(Notes::starting_at(view.applied_seq().unwrap()));
        let issuer = Issuer { shared: Arc::clone(&shared), tip, notes, window: Arc::new(Semaphore::new(places)), out };
        let (queue, inbox) = mpsc::channel(4);
        let closing = shared.closing.subscribe();
        let bucket = Bucket::new(diaspore_policy::RequestBudget { burst: 5, sustained_per_second: 10 }, Instant::now());
        Self { fx, shared, issuer, queue, inbox, closing, bucket, issued }
    }

    async fn step(&mut self, pending: &mut Pending) -> bool {
        self.issuer.step(&mut self.inbox, &mut self.closing, &mut self.bucket, pending).await
    }

    /// One that finds nothing to do.
    async fn rests(&mut self, pending: &mut Pending) -> bool {
        tokio::time::timeout(Duration::from_secs(1), self.step(pending)).await.is_err()
    }

    fn places(&self) -> usize {
        self.issuer.window.available_permits()
    }

    /// A place, for a block that leaves at once.
    fn place(&self, pending: &mut Pending) {
        pending.permit = Some(Arc::clone(&self.issuer.window).try_acquire_owned().unwrap());
        pending.leaves = Some(Instant::now());
    }

    fn position(&self) -> (Seq, Counter, u64) {
        (self.issuer.tip.seq, self.issuer.tip.counter, self.issuer.tip.log.size())
    }
}

fn in_an_hour() -> Instant {
    Instant::now() + Duration::from_hours(1)
}

fn refusal(answer: &mut Answer) -> ErrorKind {
    answer.try_recv().unwrap().unwrap_err().kind
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_is_refused_when_its_time_is_up() {
    let mut desk = Desk::with(0).await;
    let begun = Instant::now();
    let (first, mut answer) = waiting(10, 1, 0, begun + Duration::from_secs(3));
    let mut pending = pending(vec![first]);
    assert!(desk.step(&mut pending).await);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(3) && waited < Duration::from_millis(3010), "{waited:?}");
    assert!(desk.rests(&mut pending).await);
    assert_eq!(refusal(&mut answer), ErrorKind::NotAccepted);
    assert_eq!((pending.bytes, desk.issued.try_recv().is_err()), (0, true));
}

#[tokio::test(start_paused = true)]
async fn a_place_for_what_expired_meanwhile_is_given_back() {
    let mut desk = Desk::with(1).await;
    let mut pending = Pending::default();
    desk.place(&mut pending);
    assert_eq!(desk.places(), 0);
    assert!(desk.rests(&mut pending).await, "and wakes nobody");
    assert_eq!((desk.places(), pending.permit.is_none(), pending.leaves), (1, true, None));
}

/// Each provider request of a block is one of the budget's: beyond it a block waits for company, at most for the linger.
#[tokio::test(start_paused = true)]
async fn a_block_spends_a_request_for_each_shard_and_lingers_beyond_the_budget() {
    let desk = Desk::with(1).await;
    let mut ground = desk.shared.ground.clone();
    ground.config.profile.linger_ms = 250;
    let stage = crate::shared::StageCell::new(crate::shared::Stage::Active);
    let committer = crate::commit::Committer::new(1, 1, stage.clone());
    let parts = (desk.shared.writer, desk.shared.layout.clone());
    let shared = Arc::new(Shared::new(ground, parts, crate::fence::Fence::none(), committer, stage));
    let mut desk = Desk::of(desk.fx, shared, 3);
    let send = |desk: &Desk| desk.queue.try_send(waiting(10, 1, 0, in_an_hour()).0).is_ok();
    assert!(send(&desk));
    let (mut pending, begun) = (Pending::default(), Instant::now());
    while desk.issued.try_recv().is_err() {
        assert!(desk.step(&mut pending).await);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "five requests were left");
    let longest = Duration::from_hours(1);
    assert_eq!(desk.bucket.wait(2, Instant::now(), longest), Duration::from_millis(200));
    assert!(send(&desk));
    while desk.issued.try_recv().is_err() {
        assert!(desk.step(&mut pending).await);
    }
    let lingered = begun.elapsed();
    assert!(lingered >= Duration::from_millis(250) && lingered < Duration::from_millis(260), "{lingered:?}");
}

/// Blocks with a slow provider bound what may follow by the bytes that they really hold.
#[tokio::test(start_paused = true)]
async fn a_block_holds_room_for_its_shards_until_they_are_sent_and_no_more() {
    let mut desk = Desk::with(1).await;
    let slow = diaspore_testkit::Misbehaviour::Latency { fixed: Duration::from_secs(5), jitter: Duration::ZERO };
    for store in &desk.fx.stores {
        store.set_faults(diaspore_testkit::FaultPlan::from(diaspore_testkit::Fault::always(slow)));
    }
    let room = Arc::clone(&desk.shared.commit_buffers);
    let all = room.available_permits();
    let mut pending = pending(vec![waiting(10, 1, 0, in_an_hour()).0]);
    desk.place(&mut pending);
    let (from, leaves) = (desk.position(), Meters::read(&desk.shared.meters.leaves));
    assert!(desk.step(&mut pending).await || desk.step(&mut pending).await);
    let _block = desk.issued.try_recv().unwrap_or_else(|_| panic!("it left"));
    let (seq, counter, size) = desk.position();
    assert_eq!((seq, counter, size), (from.0.next(), Counter(from.1.0 + 1), from.2 + 1));
    assert_eq!(Meters::read(&desk.shared.meters.leaves), leaves + 1);
    let held = all - room.available_permits();
    assert!(held > 5 * 100 && held < 5 * 2000, "{held}");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(room.available_permits(), all);
}

#[tokio::test(start_paused = true)]
async fn without_room_for_its_shards_a_block_waits_and_keeps_its_place() {
    let mut desk = Desk::with(1).await;
    let room = Arc::clone(&desk.shared.commit_buffers);
    let all = room.available_permits();
    let taken = Arc::clone(&room).try_acquire_many_owned(u32::try_from(all).unwrap()).unwrap();
    let (first, mut answer) = waiting(10, 1, 0, in_an_hour());
    let mut pending = pending(vec![first]);
    desk.place(&mut pending);
    let begun = Instant::now();
    assert!(desk.issuer.issue(&mut pending, false).await);
    assert!(begun.elapsed() >= BUFFER_WAIT && begun.elapsed() < BUFFER_WAIT * 2);
    assert_eq!((desk.places(), pending.leaves, pending.requests.len()), (0, Some(Instant::now()), 1));
    assert!(answer.try_recv().is_err() && desk.issued.try_recv().is_err());
    drop(taken);
    assert!(desk.issuer.issue(&mut pending, false).await);
    assert!(pending.requests.is_empty() && desk.issued.try_recv().is_ok());
}

/// What was taken along for the block has to be said by a later one.
#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_for_certain_and_loses_no_note() {
    let mut desk = Desk::with(1).await;
    let note = diaspore_block::record::CommitReleased {
        seq: Seq(1),
        attempt: diaspore_block::id::Attempt(0),
        manifest_hash: diaspore_block::id::Hash32::ZERO,
        placements: Vec::new(),
    };
    desk.issuer.notes.put_back([note.clone()].into());
    desk.shared.audit.note(audit::Event::ProviderFault { provider: "p0".to_owned(), what: "a test".to_owned() });
    desk.fx.disk.set_capacity(Some(desk.fx.disk.used_bytes()));
    let (first, mut answer) = waiting(10, 1, 0, in_an_hour());
    let mut pending = pending(vec![first]);
    desk.place(&mut pending);
    let before = desk.position();
    assert!(desk.issuer.issue(&mut pending, false).await, "it goes on when there is room");
    assert_eq!(refusal(&mut answer), ErrorKind::InsufficientStorage);
    assert_eq!((desk.position(), desk.places(), desk.issued.try_recv().is_err()), (before, 1, true));
    assert_eq!(desk.issuer.notes.take(), [note]);
    assert_eq!(desk.shared.audit.take(10).records().count(), 1);
    // From then on it is refused before anything is taken.
    let (second, mut answer) = waiting(10, 1, 0, in_an_hour());
    pending.push(second);
    desk.place(&mut pending);
    pending.audit_due = Some(Instant::now());
    assert!(desk.issuer.issue(&mut pending, false).await);
    assert_eq!(refusal(&mut answer), ErrorKind::InsufficientStorage);
    assert_eq!((pending.audit_due, desk.places()), (Some(Instant::now() + Duration::from_secs(5)), 1));
}

#[tokio::test(start_paused = true)]
async fn with_too_few_domains_nothing_is_sealed_and_everybody_is_told_so() {
    let mut desk = Desk::with(1).await;
    for at in [0, 1] {
        desk.fx.stores[at].set_faults(diaspore_testkit::FaultPlan::down());
        let id = diaspore_policy::ProviderId::new(&format!("p{at}")).unwrap();
        while desk.shared.fleet.health(&id).unwrap().state != diaspore_provider::HealthState::Down {
            let _none = desk.shared.fleet.exists(&id, "x", diaspore_provider::Deadline::control()).await;
        }
    }
    let (first, mut one) = waiting(10, 1, 0, in_an_hour());
    let (second, mut other) = waiting(10, 1, 0, in_an_hour());
    let mut pending = pending(vec![first, second]);
    desk.place(&mut pending);
    let before = desk.position();
    assert!(desk.issuer.issue(&mut pending, false).await);
    for answer in [&mut one, &mut other] {
        let error = answer.try_recv().unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooFewDomains);
        assert!(error.message.contains("3 of 5 failure domains"), "{}", error.message);
    }
    assert_eq!((desk.position(), desk.places()), (before, 1));
    assert_eq!((pending.bytes, pending.audit_due), (0, None));
}

/// One of those that were to share a block fits none: all of them are refused, and the log goes on behind.
#[tokio::test(start_paused = true)]
async fn what_fits_no_block_is_refused_for_certain_and_takes_no_position() {
    let mut desk = Desk::with(2).await;
    desk.shared.audit.note(audit::Event::ProviderFault { provider: "p0".to_owned(), what: "a test".to_owned() });
    let (first, mut one) = waiting(10, 1, 0, in_an_hour());
    let (unknown, mut other) = waiting(10, 1, 7, in_an_hour());
    let mut pending = pending(vec![first, unknown]);
    desk.place(&mut pending);
    let before = desk.position();
    assert!(desk.issuer.issue(&mut pending, false).await);
    assert_eq!([refusal(&mut one), refusal(&mut other)], [ErrorKind::NotAccepted; 2]);
    assert_eq!((desk.position(), desk.places()), (before, 2));
    let said = desk.shared.audit.take(10);
    assert!(format!("{said:?}").contains("dropped: 1"), "{said:?}");
    // Its kind of place, without it.
    pending.push(waiting(10, 1, 0, in_an_hour()).0);
    desk.place(&mut pending);
    assert!(desk.issuer.issue(&mut pending, false).await);
    assert_eq!(desk.position().0, before.0.next());
    assert_eq!(desk.places(), 1, "it is in flight");
}

#[tokio::test(start_paused = true)]
async fn with_nothing_to_say_no_block_leaves() {
    let mut desk = Desk::with(1).await;
    let mut pending = Pending { audit_due: Some(Instant::now()), ..Pending::default() };
    desk.place(&mut pending);
    assert!(desk.issuer.issue(&mut pending, false).await);
    assert_eq!((pending.audit_due, pending.leaves, desk.places(), desk.issued.try_recv().is_err()), (None, None, 1, true));
    // A mark is something.
    desk.place(&mut pending);
    assert!(desk.issuer.issue(&mut pending, true).await);
    assert!(desk.issued.try_recv().is_ok());
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
