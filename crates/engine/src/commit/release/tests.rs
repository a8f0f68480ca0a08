//! Who is told what when, and the notes that ride in later blocks.

use diaspore_block::geometry::Geometry;
use diaspore_block::id::{Attempt, Counter, Hash32, IncarnationId, Timestamp};
use diaspore_block::record::ServiceStopped;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
use tokio::sync::{Semaphore, oneshot};

use super::*;
use crate::api::ErrorKind;
use crate::blob::tests::fixture::Fixture;
use crate::commit::{Draft, NewRecord, Tip, build};
use crate::scatter::{self, Purpose};
use crate::settle::Open;
use crate::shared::Stage;

type Answer = oneshot::Receiver<Result<Committed, Error>>;

fn note(seq: u64) -> CommitReleased {
    CommitReleased { seq: Seq(seq), attempt: Attempt(0), manifest_hash: Hash32::ZERO, placements: Vec::new() }
}

fn seqs(notes: &Notes) -> Vec<u64> {
    notes.take().iter().map(|note| note.seq.0).collect()
}

#[test]
fn notes_ride_in_order_and_the_oldest_are_dropped() {
    let notes = Notes::starting_at(Seq(4));
    assert_eq!((notes.released(), notes.take().len()), (Seq(4), 0));
    let most = MAX_NOTES as u64;
    for seq in 5..=5 + most {
        notes.release(note(seq));
    }
    assert_eq!(notes.released(), Seq(5 + most));
    let taken = notes.take();
    assert_eq!((taken.len(), taken[0].seq, seqs(&notes)), (MAX_NOTES, Seq(6), Vec::new()));
    // What comes back stands before what came meanwhile.
    notes.release(note(6 + most));
    notes.put_back(taken);
    assert_eq!(seqs(&notes), (7..=6 + most).collect::<Vec<_>>());
    notes.release(note(900));
    notes.put_back([note(800), note(801)].into());
    assert_eq!(seqs(&notes), [800, 801, 900]);
}

fn releaser(shared: &Arc<Shared>) -> Releaser {
    Releaser { shared: Arc::clone(shared), notes: Arc::default(), blocks: mpsc::channel(1).1 }
}

/// What a request holds until its outcome is applied. Knows whether it was answered before it was let go.
struct Locks {
    answer: Option<Answer>,
    freed: std::sync::mpsc::Sender<(Answer, bool)>,
}

impl Drop for Locks {
    fn drop(&mut self) {
        let mut answer = self.answer.take().unwrap();
        let is_late = answer.try_recv().is_ok();
        drop(self.freed.send((answer, is_late)));
    }
}

fn waiter(class: Class) -> (Waiter, std::sync::mpsc::Receiver<(Answer, bool)>) {
    let (answer, outcome) = oneshot::channel();
    let (freed, locks) = std::sync::mpsc::channel();
    (Waiter { class, answer, hold: Box::new(Locks { answer: Some(outcome), freed }) }, locks)
}

/// One that holds nothing.
fn caller() -> (Waiter, Answer) {
    let (answer, outcome) = oneshot::channel();
    (Waiter { class: Class::Quorum, answer, hold: Box::new(()) }, outcome)
}

/// Whoever is answered may ask again at once, and must not meet its own locks; who waits for all shards holds up nobody meanwhile.
#[tokio::test(start_paused = true)]
async fn locks_are_free_before_the_answer_leaves_and_all_shards_are_waited_for_without_them() {
    let fx = Fixture::start(5).await;
    fx.settle().await;
    let shared = fx.engine.shared();
    let facts = shared.ledger.snapshot().unwrap().blocks(None, 1).unwrap()[0].facts.clone();
    let (block, facts) = (facts.id, Arc::new(facts));
    let unsettled = || shared.settlement.open(Open::new(Arc::clone(&facts), Some(Seq(1000)), Timestamp(0)));
    let releaser = releaser(&shared);
    let committed = Committed { seq: Seq(1000), geometry: (3, 5) };
    unsettled();
    let (quorum, locks) = waiter(Class::Quorum);
    releaser.answer(quorum, committed);
    let (mut answer, is_late) = locks.try_recv().unwrap();
    assert!(!is_late);
    assert_eq!(answer.try_recv().unwrap().unwrap(), committed);
    let (full, locks) = waiter(Class::Full);
    releaser.answer(full, committed);
    let (mut answer, _) = locks.try_recv().unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(answer.try_recv().is_err());
    shared.settlement.forget(&[block]);
    assert_eq!(answer.await.unwrap().unwrap(), committed);
    unsettled();
    let (full, locks) = waiter(Class::Full);
    releaser.answer(full, committed);
    tokio::task::yield_now().await;
    shared.close();
    let (answer, _) = locks.try_recv().unwrap();
    assert_eq!(answer.await.unwrap().unwrap_err().kind, ErrorKind::OutcomeUnknown);
}

/// The next block of a resting engine, in the journal and on its way.
fn issued(shared: &Arc<Shared>, geometry: Geometry, waiters: Vec<Waiter>, window: &Arc<Semaphore>) -> (InFlight, Seq) {
    let mut tip = Tip::behind(&shared.ledger.snapshot().unwrap(), Counter(1000)).unwrap();
    let seq = tip.seq;
    let stopped = ServiceStopped { incarnation: IncarnationId::from_bytes([1; 16]), reason: String::new() };
    let draft = Draft::of(shared, geometry, vec![NewRecord::system(stopped)], Vec::new(), &Notes::starting_at(Seq(0))).unwrap();
    let built = build(shared, shared.writer, &mut tip, draft).unwrap();
    shared.ledger.append(built.journal_entry()).unwrap();
    let (facts, handle) = (built.facts(), scatter::spawn(shared, built.coded(), Purpose::Commit(seq), None));
    (InFlight::new(built, facts, handle, waiters, Arc::clone(window).try_acquire_owned().unwrap()), seq)
}

async fn resting() -> (Fixture, Arc<Shared>) {
    let fx = Fixture::start(5).await;
    fx.settle().await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    let shared = fx.engine.shared();
    (fx, shared)
}

#[tokio::test(start_paused = true)]
async fn a_block_at_its_quorum_is_applied_noted_and_answered() {
    let (_fx, shared) = resting().await;
    let (releaser, window) = (releaser(&shared), Arc::new(Semaphore::new(1)));
    let (waiter, locks) = waiter(Class::Quorum);
    let (block, seq) = issued(&shared, Geometry::new(3, 5).unwrap(), vec![waiter], &window);
    let hash = block.facts.manifest_hash;
    releaser.release(block).await;
    assert_eq!(shared.ledger.snapshot().unwrap().applied_seq().unwrap(), seq);
    assert_eq!((releaser.notes.released(), window.available_permits()), (seq, 1));
    let notes = releaser.notes.take();
    assert_eq!((notes.len(), notes[0].seq, notes[0].manifest_hash), (1, seq, hash));
    assert!(notes[0].placements.iter().filter(|place| place.acked).count() > 3);
    let (mut answer, _) = locks.try_recv().unwrap();
    assert_eq!(answer.try_recv().unwrap().unwrap(), Committed { seq, geometry: (3, 5) });
    shared.settlement.wait_through(seq).await;
}

/// The disk fills up after the block was issued. It is at its providers and will be in the log: nobody is told anything before it is.
#[tokio::test(start_paused = true)]
async fn a_block_that_the_full_disk_cannot_take_is_released_when_there_is_room() {
    let (fx, shared) = resting().await;
    let (releaser, window) = (releaser(&shared), Arc::new(Semaphore::new(1)));
    let (waiter, locks) = waiter(Class::Quorum);
    let (block, seq) = issued(&shared, Geometry::new(3, 5).unwrap(), vec![waiter], &window);
    fx.disk.set_capacity(Some(fx.disk.used_bytes()));
    let room = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let told = locks.try_recv().is_ok();
        fx.disk.set_capacity(None);
        told
    };
    let ((), told) = futures::join!(releaser.release(block), room);
    assert!(!told);
    assert_eq!(shared.ledger.snapshot().unwrap().applied_seq().unwrap(), seq);
    let (mut answer, _) = locks.try_recv().unwrap();
    assert_eq!(answer.try_recv().unwrap().unwrap().seq, seq);
    assert_eq!(shared.stage.get(), Stage::Active);
}

/// A commit block tries for ever. Where one was given up all the same nothing behind it may be released.
#[tokio::test(start_paused = true)]
async fn behind_a_block_that_was_given_up_nothing_is_released() {
    let (_fx, shared) = resting().await;
    let (releaser, window) = (releaser(&shared), Arc::new(Semaphore::new(1)));
    let before = shared.ledger.snapshot().unwrap().applied_seq().unwrap();
    let (waiter, mut answer) = caller();
    let (block, seq) = issued(&shared, Geometry::new(3, 6).unwrap(), vec![waiter], &window);
    releaser.release(block).await;
    assert_eq!(answer.try_recv().unwrap().unwrap_err().kind, ErrorKind::OutcomeUnknown);
    let Stage::Stopped(why) = shared.stage.get() else { panic!("{:?}", shared.stage.get()) };
    assert!(why.contains(&format!("sequence {seq} was given up")), "{why}");
    assert_eq!((shared.ledger.snapshot().unwrap().applied_seq().unwrap(), releaser.notes.released()), (before, Seq(0)));
}

/// A closing engine is no such case: the next start decides what became of it.
#[tokio::test(start_paused = true)]
async fn what_is_in_flight_when_the_engine_closes_has_an_unknown_outcome() {
    let (fx, shared) = resting().await;
    let late = Misbehaviour::Latency { fixed: Duration::from_secs(5), jitter: Duration::ZERO };
    fx.stores.iter().for_each(|store| store.set_faults(FaultPlan::from(Fault::always(late).on(&[Op::Put]))));
    let (releaser, window) = (releaser(&shared), Arc::new(Semaphore::new(1)));
    let (waiter, mut answer) = caller();
    let (block, _) = issued(&shared, Geometry::new(3, 5).unwrap(), vec![waiter], &window);
    let close = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        shared.close();
    };
    futures::join!(releaser.release(block), close);
    assert_eq!(answer.try_recv().unwrap().unwrap_err().kind, ErrorKind::OutcomeUnknown);
    assert_eq!(shared.stage.get(), Stage::Closed);
}
