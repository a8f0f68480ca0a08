//! What lies at the providers beside the blocks of the map: told apart by whose it is, and deleted only when it is certainly dead.

use super::*;
use crate::collect::heirs::provided_for;
use crate::collect::mark::is_unreadable;
use crate::scrub::{self, Seen};

impl Fixture {
    /// What one account shows, without touching what has not been dead for a `grace` time.
    async fn at_account(&self, at: &str, grace: Duration) -> Found {
        orphans::sweep(&self.engine.shared(), grace, &Allowance::free()).await.unwrap()[at].clone()
    }

    /// Shards of a block that was erased, which land once more: at p0 its own, at p1 that of p0 under the name of p1's. Gives their paths and
    /// the length of each.
    async fn landed_late(&self) -> ([String; 2], u64) {
        self.put(b"goes", &random(2 * MIB, 13)).await.unwrap();
        self.settle().await;
        let before: Vec<_> = self.stores.iter().map(HostileStore::objects).collect();
        self.gone(b"goes").await;
        self.settle().await;
        assert_eq!(self.collect(NOW).await.swept.blocks, 1);
        let removed = |at: usize| before[at].iter().find(|(path, _)| self.stores[at].peek(path).is_none()).unwrap().clone();
        let ((own, bytes), (other, _)) = (removed(0), removed(1));
        self.stores[0].tamper(&own, Some(bytes.clone()));
        self.stores[1].tamper(&other, Some(bytes.clone()));
        ([own, other], bytes.len() as u64)
    }
}

#[tokio::test(start_paused = true)]
async fn every_object_is_counted_once_as_what_it_is() {
    let fx = Fixture::start(5).await;
    fx.put(b"a", &random(3000, 1)).await.unwrap();
    fx.settle().await;
    let blocks = fx.engine.shared().ledger.snapshot().unwrap().blocks(None, 100).unwrap().len() as u64;
    let all = fx.stores[1].objects().len() as u64;
    let found = fx.at_account("p1", Duration::ZERO).await;
    assert_eq!(found, Found { listed: true, whole: true, known: blocks, control: all - blocks, ..Found::default() });
    assert!(found.control > 0);
    // Somebody's letter, and noise under a name like ours.
    fx.stores[1].tamper("letter.txt", Some(Bytes::from_static(b"hello")));
    fx.stores[1].tamper("ab/cdef0123456789abcdef0123456789abcdef01", Some(random(4096, 15).into()));
    assert_eq!(fx.at_account("p1", Duration::ZERO).await, Found { foreign: 2, foreign_bytes: 4101, ..found.clone() });
    assert_eq!(fx.at_account("p0", Duration::ZERO).await.foreign, 0);
    let listing = listed(&fx.engine.shared(), &ProviderId::new("p1").unwrap()).await.unwrap().unwrap();
    assert_eq!((listing.control, listing.foreign, listing.orphans, listing.pending), (found.control, 2, 0, 0));
    assert!(listing.complete && listing.blocks.len() as u64 == blocks);
    fx.stores[1].set_faults(FaultPlan::down());
    assert_eq!(fx.at_account("p1", Duration::ZERO).await, Found::default());
    assert!(listed(&fx.engine.shared(), &ProviderId::new("p1").unwrap()).await.unwrap().is_none());
}

/// A listing takes a while; what is written meanwhile is in it, and not in the state that it began with.
#[tokio::test(start_paused = true)]
async fn what_became_part_of_the_log_during_a_listing_is_known() {
    let fx = Fixture::start(5).await;
    fx.put(b"a", &random(3000, 1)).await.unwrap();
    fx.settle().await;
    let late = Misbehaviour::Latency { fixed: Duration::from_secs(2), jitter: Duration::ZERO };
    fx.stores[0].set_faults(FaultPlan::from(Fault::always(late).on(&[Op::List])));
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fx.put(b"b", &random(2 * MIB, 2)).await.unwrap();
    };
    let (found, ()) = futures::join!(fx.at_account("p0", Duration::ZERO), meanwhile);
    let names = fx.stores[0].objects().iter().filter(|(path, _)| path.find('/') == Some(2)).count() as u64;
    assert_eq!((found.known, found.pending, found.orphans, found.foreign), (names, 0, 0, 0));
    assert_eq!(names, fx.engine.shared().ledger.snapshot().unwrap().blocks(None, 100).unwrap().len() as u64);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_incarnation_left_goes_a_grace_time_after_it_was_superseded() {
    let fx = Fixture::start(5).await;
    let ([own, other], bytes) = fx.landed_late().await;
    let grace = Duration::from_hours(6);
    let found = fx.at_account("p0", Duration::ZERO).await;
    assert_eq!((found.pending, found.orphans, found.foreign), (1, 0, 0), "who wrote it still writes");
    tokio::time::sleep(Duration::from_hours(48)).await;
    let mut fx = fx.restart().await;
    fx.settle().await;
    for hours in [0, 3, 2] {
        tokio::time::sleep(Duration::from_hours(hours)).await;
        // Starting again makes it no younger.
        fx = fx.restart().await;
        fx.settle().await;
        let found = fx.at_account("p0", grace).await;
        assert_eq!((found.pending, found.orphans, found.orphan_bytes, found.deleted), (0, 1, bytes, 0));
        assert!(found.listed && found.whole && fx.stores[0].peek(&own).is_some());
    }
    // A copy that is not sealed for its place is somebody else's work.
    let found = fx.at_account("p1", grace).await;
    assert_eq!((found.orphans, found.foreign, found.foreign_bytes), (0, 1, bytes));
    tokio::time::sleep(Duration::from_hours(2)).await;
    fx.stores[0].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Denied).on(&[Op::Delete])));
    let found = fx.at_account("p0", grace).await;
    assert_eq!((found.orphans, found.deleted), (1, 0), "it was not taken back");
    fx.stores[0].set_faults(FaultPlan::honest());
    let found = fx.at_account("p0", grace).await;
    assert_eq!((found.orphans, found.orphan_bytes, found.deleted), (1, bytes, 1));
    assert!(fx.stores[0].peek(&own).is_none() && fx.stores[1].peek(&other).is_some());
    assert_eq!(fx.at_account("p0", grace).await.orphans, 0);
}

#[test]
fn only_a_list_that_cannot_be_had_now_keeps_its_bucket() {
    let of = |kind| is_unreadable(&Error::new(kind, "a list"));
    assert!(of(ErrorKind::DataUnavailable) && of(ErrorKind::IntegrityViolation));
    for kind in [ErrorKind::NotAccepted, ErrorKind::Internal, ErrorKind::LocalStore, ErrorKind::Invalid, ErrorKind::TooFewDomains] {
        assert!(!of(kind), "{kind:?}");
    }
}

/// The same bytes were stored twice at once, so that one block is read from and the other waits for it. Each single reason to doubt the heir is
/// enough for the other to stay.
#[tokio::test(start_paused = true)]
async fn a_block_stays_for_any_reason_to_doubt_what_its_chunks_are_read_from() {
    let fx = Fixture::start(5).await;
    let data = random(2 * MIB, 5);
    let (one, two) = futures::join!(fx.put(b"one", &data), fx.put(b"two", &data));
    assert!(one.is_ok() && two.is_ok());
    fx.settle().await;
    let shared = fx.engine.shared();
    let view = || shared.ledger.snapshot().unwrap();
    let bulk: Vec<_> = view().blocks(None, 100).unwrap().into_iter().filter(|entry| entry.facts.kind == BlockKind::Bulk).collect();
    let read_from = fx.block_of(b"one");
    let (heirs, older): (Vec<_>, Vec<_>) = bulk.into_iter().partition(|entry| read_from.contains(&entry.facts.id));
    let ([heir], [older]) = (heirs.as_slice(), older.as_slice()) else { panic!("{} {}", heirs.len(), older.len()) };
    let at_first = view();
    let stays = async |marks: Option<&Marks>| {
        let (goes, stay) = provided_for(&shared, &at_first, marks, vec![older.facts.id]).await.unwrap();
        assert_eq!(goes.len() as u64 + stay, 1);
        stay == 1
    };
    assert!(!stays(None).await);
    let home = &heir.facts.placements[2];
    let provider = ProviderId::new(&home.provider).unwrap();
    let seen = |seen| scrub::note(&shared, &heir.facts, &[(home.shard, provider.clone(), seen)], false);
    seen(Seen::Missing);
    assert!(shared.settlement.is_calm(heir.facts.id) && stays(None).await, "a shard was missing when it was last looked at");
    assert!(!stays(Some(&Marks::default())).await, "nothing alive is read from it");
    seen(Seen::Good);
    assert!(!stays(None).await);
    let claim = shared.settlement.claim(heir.facts.id).unwrap();
    assert_eq!(stays(None).await, !shared.settlement.is_calm(heir.facts.id));
    drop(claim);
    shared.settlement.file(heir, &[(home.shard, provider.clone(), Seen::Missing)]);
    assert!(!shared.settlement.is_calm(heir.facts.id) && stays(None).await, "a repair is under way");
    while !shared.settlement.is_calm(heir.facts.id) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(!stays(None).await);
    let record = NewRecord::system(BlocksCondemned { blocks: vec![heir.facts.id], reason: CondemnReason::Dead });
    shared.committer.submit(CommitRequest::single(record, ()), shared.answer_by()).await.unwrap();
    assert!(!view().keeps(heir.facts.id).unwrap() && stays(None).await, "it goes itself");
}

/// Many blocks may have one heir, and it may be slow to give: one collection reads it back once.
#[tokio::test(start_paused = true)]
async fn what_many_blocks_are_read_from_by_now_is_read_back_once() {
    let fx = Fixture::start(5).await;
    let data = random(2 * MIB, 5);
    let put = |key: &'static [u8]| fx.put(key, &data);
    let outcomes = futures::join!(put(b"one"), put(b"two"), put(b"three"));
    assert!(outcomes.0.is_ok() && outcomes.1.is_ok() && outcomes.2.is_ok());
    fx.settle().await;
    let shared = fx.engine.shared();
    let view = shared.ledger.snapshot().unwrap();
    let heirs = fx.block_of(b"one");
    let bulk = view.blocks(None, 100).unwrap().into_iter().filter(|entry| entry.facts.kind == BlockKind::Bulk);
    let older: Vec<BlockId> = bulk.map(|entry| entry.facts.id).filter(|id| !heirs.contains(id)).collect();
    assert_eq!((heirs.len(), older.len()), (1, 2));
    fx.stores[2].set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Get, Op::Head])));
    let gets = || fx.stores.iter().map(|store| store.requests(Op::Get)).collect::<Vec<_>>();
    let before = gets();
    assert_eq!(provided_for(&shared, &view, None, older.clone()).await.unwrap(), (BTreeSet::new(), 2));
    let asked: Vec<u64> = gets().iter().zip(&before).map(|(after, before)| after - before).collect();
    assert_eq!(asked, [1, 1, 2, 1, 1], "an error is no answer, and is tried once more");
    fx.stores[2].set_faults(FaultPlan::honest());
    assert_eq!(provided_for(&shared, &view, None, older.clone()).await.unwrap(), (older.iter().copied().collect(), 0));
    shared.step_aside("a test");
    assert_eq!(provided_for(&shared, &view, None, older).await.unwrap_err().kind, ErrorKind::NotAccepted);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_puts_no_collection_off() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let since = || shared.recorder.since_collection(shared.clock.now());
    tokio::time::sleep(Duration::from_mins(20)).await;
    let before = since();
    assert!(before > Duration::from_mins(10), "{before:?}");
    fx.collect(Asked { dry_run: true, ..NOW }).await;
    assert!(since() >= before);
    fx.collect(NOW).await;
    assert!(since() < Duration::from_mins(1));
    // One that is cut short by the end of the service does not count either.
    tokio::time::sleep(Duration::from_mins(20)).await;
    let late = Misbehaviour::Latency { fixed: Duration::from_secs(5), jitter: Duration::ZERO };
    fx.stores.iter().for_each(|store| store.set_faults(FaultPlan::from(Fault::always(late).on(&[Op::List]))));
    let begun = begin(&shared, NOW).unwrap();
    assert!(begin(&shared, NOW).is_err(), "one at a time");
    assert_eq!((shared.collector.state().running, begun.number), (Some(3), 3));
    tokio::time::sleep(Duration::from_secs(1)).await;
    shared.step_aside("a test");
    assert_eq!(begun.outcome.await.unwrap().unwrap_err().kind, ErrorKind::NotAccepted);
    assert!(since() >= Duration::from_mins(20));
    let state = shared.collector.state();
    assert!(state.running.is_none() && state.ended == Some(3) && state.outcome.is_none() && state.error.is_some());
    assert_eq!(begin(&shared, NOW).unwrap_err().kind, ErrorKind::ReadOnly);
}

/// A block that is repaired or moved just now is left to those who do that.
#[tokio::test(start_paused = true)]
async fn nothing_that_somebody_works_on_is_chosen() {
    let fx = Fixture::start(5).await;
    fx.put(b"goes", &random(2 * MIB, 5)).await.unwrap();
    fx.settle().await;
    let shared = fx.engine.shared();
    let block = *fx.block_of(b"goes").first().unwrap();
    fx.gone(b"goes").await;
    fx.settle().await;
    let dry = Asked { dry_run: true, ..NOW };
    let free = fx.collect(dry).await;
    assert_eq!((free.dead_blocks, free.condemned_blocks, free.cost.deletes), (1, 0, 5));
    let claim = shared.settlement.claim(block).unwrap();
    let busy = fx.collect(dry).await;
    assert_eq!((busy.dead_blocks, busy.blocks, busy.cost.deletes), (0, free.blocks - 1, 0));
    assert_eq!(free.held_bytes - busy.held_bytes, free.held_bytes - free.live_bytes);
    drop(claim);
    // What earlier collections left to delete is part of the price.
    let left = fx.collect(Asked::default()).await;
    assert_eq!((left.condemned_blocks, left.swept.waiting), (1, 1));
    let again = fx.collect(dry).await;
    assert_eq!((again.dead_blocks, again.blocks, again.cost.deletes), (0, free.blocks - 1, 5));
}

#[test]
fn a_long_listing_is_priced_page_by_page_and_folder_by_folder() {
    assert_eq!([0, 999, 1000, 49_999].map(inventory::requests), [1, 1, 2, 50]);
    // The pages that find out that there are too many, then a page that is not full for each folder and control prefix.
    assert_eq!([50_000, 1_000_000].map(inventory::requests), [51 + 50 + 259, 1001 + 50 + 259]);
}
