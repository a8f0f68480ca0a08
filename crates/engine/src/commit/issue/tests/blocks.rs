//! The task at its desk: one step, one block.

use diaspore_testkit::{Fault, FaultPlan, Misbehaviour};

use super::*;
use crate::commit::Committer;
use crate::fence::Fence;
use crate::shared::{Stage, StageCell};

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

    /// The same in an engine whose blocks wait for company.
    async fn lingering(places: usize) -> Self {
        let Self { fx, shared, .. } = Self::with(0).await;
        let mut ground = shared.ground.clone();
        ground.config.profile.linger_ms = 250;
        let stage = StageCell::new(Stage::Active);
        let committer = Committer::new(1, 1, stage.clone());
        let shared = Arc::new(Shared::new(ground, (shared.writer, shared.layout.clone()), Fence::none(), committer, stage));
        Self::of(fx, shared, places)
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
    let mut desk = Desk::lingering(3).await;
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
    let slow = Misbehaviour::Latency { fixed: Duration::from_secs(5), jitter: Duration::ZERO };
    for store in &desk.fx.stores {
        store.set_faults(FaultPlan::from(Fault::always(slow)));
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
    (pending.audit_due, pending.mark_due) = (Some(Instant::now()), Some(Instant::now()));
    assert!(desk.issuer.issue(&mut pending, false).await);
    assert_eq!(refusal(&mut answer), ErrorKind::InsufficientStorage);
    assert_eq!(pending.mark_due, Some(Instant::now() + MARK_AFTER), "nor is a mark tried again at once");
    assert_eq!((pending.audit_due, desk.places()), (Some(Instant::now() + Duration::from_secs(5)), 1));
}

#[tokio::test(start_paused = true)]
async fn with_too_few_domains_nothing_is_sealed_and_everybody_is_told_so() {
    let mut desk = Desk::with(1).await;
    for at in [0, 1] {
        desk.fx.stores[at].set_faults(FaultPlan::down());
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

/// What is in the queue when a block leaves joins it, and one that is full waits for no company.
#[tokio::test(start_paused = true)]
async fn a_block_leaves_with_all_that_waits_and_at_once_when_it_is_full() {
    let mut desk = Desk::lingering(3).await;
    desk.bucket.spend(5, Instant::now());
    for _ in 0..3 {
        assert!(desk.queue.try_send(waiting(10, 1, 0, in_an_hour()).0).is_ok());
    }
    let (mut pending, from) = (Pending::default(), desk.position());
    desk.place(&mut pending);
    while desk.issued.try_recv().is_err() {
        assert!(desk.step(&mut pending).await);
    }
    assert_eq!((desk.position().0, desk.position().2), (from.0.next(), from.2 + 3), "one block of three");
    let (begun, limit) = (Instant::now(), desk.shared.config.limits.commit_bytes);
    pending.push(waiting(limit, 1, 0, in_an_hour()).0);
    while desk.issued.try_recv().is_err() {
        assert!(desk.step(&mut pending).await);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// Whoever waits for all shards of a sequence waits for the blocks of data that it names too; and a later block has to say that it was
/// acknowledged, if somebody asked for it.
#[tokio::test(start_paused = true)]
async fn an_issued_block_is_waited_for_with_the_blocks_that_it_names() {
    let mut desk = Desk::with(2).await;
    let facts = Arc::new(desk.shared.ledger.snapshot().unwrap().blocks(None, 1).unwrap()[0].facts.clone());
    let named = facts.id;
    desk.shared.settlement.open(crate::settle::Open::new(facts, None, desk.shared.clock.now()));
    let (mut request, _answer) = waiting(10, 1, 0, in_an_hour());
    request.request.bulk = vec![named];
    let signatures = Meters::read(&desk.shared.meters.signatures);
    let mut pending = pending(vec![request]);
    desk.place(&mut pending);
    assert!(desk.issuer.issue(&mut pending, false).await);
    let seq = Seq(desk.position().0.0 - 1);
    assert_eq!(desk.shared.settlement.get(named).unwrap().seq, Some(seq));
    assert_eq!((pending.unmarked, pending.mark_due), (seq, Some(Instant::now() + MARK_AFTER)));
    assert_eq!(Meters::read(&desk.shared.meters.signatures), signatures + 1);
    assert!(pending.permit.is_none() && pending.leaves.is_none());
}

/// Never more than there is at all, or the block would wait for ever; and never less than the notes of the engine itself take.
#[tokio::test(start_paused = true)]
async fn room_is_asked_for_by_what_a_block_takes_at_most() {
    let desk = Desk::with(1).await;
    let asked = async |plain| desk.issuer.buffers(plain).await.unwrap().num_permits();
    let of = |plain: usize| plain * 5 / 3 + plain * 5 / 3 / 8;
    let (none, some) = (asked(0).await, asked(60_000).await);
    assert_eq!((none, some), (of(NOTES_BYTES), of(NOTES_BYTES + 60_000)));
    let limit = desk.shared.config.limits.commit_bytes;
    assert_eq!(asked(usize::MAX).await, of(limit + NOTES_BYTES).min(desk.shared.commit_buffers.available_permits()));
    desk.shared.commit_buffers.close();
    assert!(desk.issuer.buffers(0).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_its_engine_and_with_its_queue() {
    let mut desk = Desk::with(1).await;
    desk.shared.close();
    assert!(!desk.step(&mut Pending::default()).await);
    let mut desk = Desk::with(1).await;
    desk.queue = mpsc::channel(1).0;
    assert!(!desk.step(&mut Pending::default()).await);
}
