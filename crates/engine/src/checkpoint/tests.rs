//! Compacted logs over a whole engine in memory: what they are needed for, when one is due, and what announces them.

use bytes::Bytes;
use diaspore_block::name::Names;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
use sha2::{Digest, Sha256};

use super::*;
use crate::blob::tests::fixture::{Fixture, random};

/// Nothing can be put.
fn full() -> FaultPlan {
    FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put]))
}

impl Fixture {
    /// One more blob, settled, and a compacted log over it.
    async fn compacted(&self, key: &[u8]) -> CheckpointReport {
        self.put(key, &random(3000, u64::from(key[0]))).await.unwrap();
        self.settle().await;
        self.engine.checkpoint_log().await.unwrap()
    }

    /// Names of the heads at one provider.
    fn heads(&self, at: usize) -> Vec<String> {
        let prefix = Names::new(&self.keys.name).head_prefix(self.stores[at].name());
        self.stores[at].objects().into_iter().map(|(path, _)| path).filter(|path| path.starts_with(&prefix)).collect()
    }

    /// Name of the newest head at one provider.
    fn newest_head(&self, at: usize) -> String {
        let view = self.view();
        let root = view.block(view.compactions().unwrap().pop().unwrap().compacted.root).unwrap().unwrap().facts;
        Names::new(&self.keys.name).head(self.stores[at].name(), root.incarnation, root.counter).as_str().to_owned()
    }

    fn view(&self) -> Snapshot {
        self.engine.shared().ledger.snapshot().unwrap()
    }

    fn last(&self) -> LastCheckpoint {
        status(&self.engine.shared(), &self.view()).unwrap().last.unwrap()
    }

    fn floor(&self) -> Seq {
        needed(&self.engine.shared()).unwrap().floor
    }
}

#[test]
fn one_is_due_when_the_log_grew_by_the_bound_and_by_a_quarter_of_itself() {
    assert_eq!(due_in(0, 0, 1 << 40), None, "never by itself");
    assert_eq!((due_in(100, 0, 0), due_in(100, 0, 40), due_in(100, 0, 100), due_in(100, 0, 1000)), (Some(100), Some(60), Some(0), Some(0)));
    assert_eq!((due_in(100, 400, 99), due_in(100, 400, 100)), (Some(1), Some(0)), "a quarter is the bound itself");
    assert_eq!((due_in(100, 1000, 100), due_in(100, 1000, 249), due_in(100, 1000, 250)), (Some(150), Some(1), Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_grew_enough_is_compacted_without_being_asked() {
    let fx = Fixture::compacting_after(5, 30).await;
    let shared = fx.engine.shared();
    for key in b'a'..b'd' {
        fx.put(&[key], &random(3000, u64::from(key))).await.unwrap();
    }
    let before = status(&shared, &fx.view()).unwrap();
    assert_eq!((before.grown, before.last.is_some()), (fx.view().log_size().unwrap(), false));
    assert_eq!(before.due_in, Some(30 - before.grown));
    tokio::time::sleep(TICK * 3).await;
    assert!(fx.view().compactions().unwrap().is_empty(), "not yet");
    while fx.view().log_size().unwrap() < 30 {
        fx.put(b"more", &random(3000, fx.view().log_size().unwrap())).await.unwrap();
    }
    tokio::time::sleep(TICK * 3).await;
    assert_eq!(fx.view().compactions().unwrap().len(), 1);
    let after = status(&shared, &fx.view()).unwrap();
    let last = after.last.unwrap();
    assert_eq!(after.grown, fx.view().log_size().unwrap() - last.log_size);
    assert!(last.counts && last.heads.len() == 5, "{last:?}");
    // Whoever may not write has none due.
    shared.stage.refuse_new_work();
    assert!(!is_due(&shared).unwrap());
}

/// After ten seconds, then after twice as long each time, and not later than every ten minutes; after a success from the beginning.
#[tokio::test(start_paused = true)]
async fn one_that_failed_is_tried_again_ever_later() {
    let fx = Fixture::compacting_after(5, 1).await;
    let shared = fx.engine.shared();
    fx.put(b"a", &random(3000, 1)).await.unwrap();
    // What was written just now is not given back: none can be called whole.
    let forget = |new: bool| {
        for store in &fx.stores[..3] {
            store.take_snapshot();
            store.set_faults(if new { FaultPlan::from(Fault::always(Misbehaviour::RollBack).on(&[Op::Get])) } else { FaultPlan::honest() });
        }
    };
    let written = || shared.bulk_counter.load(std::sync::atomic::Ordering::Relaxed);
    // Seconds between the beginnings of the next few.
    let pauses = async |count: usize| {
        let (mut known, mut begun) = (written(), Vec::new());
        let until = Instant::now() + Duration::from_hours(2);
        while begun.len() <= count {
            assert!(Instant::now() < until, "{} were begun", begun.len());
            tokio::time::sleep(Duration::from_secs(1)).await;
            if written() != known {
                known = written();
                begun.push(Instant::now());
            }
        }
        begun.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect::<Vec<_>>()
    };
    forget(true);
    for (pause, least) in pauses(8).await.into_iter().zip([10, 20, 40, 80, 160, 320, 600, 600]) {
        assert!((least..least + 12).contains(&pause), "{pause} of {least}");
    }
    assert!(fx.view().compactions().unwrap().is_empty());
    forget(false);
    tokio::time::sleep(Duration::from_secs(612)).await;
    assert!(!fx.view().compactions().unwrap().is_empty(), "the next try has nothing against it");
    forget(true);
    for key in b'a'..b'u' {
        fx.put(&[key], &random(3000, key.into())).await.unwrap();
    }
    for (pause, least) in pauses(2).await.into_iter().zip([10, 20]) {
        assert!((least..least + 12).contains(&pause), "{pause} of {least} after a success");
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_are_asked_for_are_numbered_and_say_how_they_went() {
    let fx = Fixture::start(5).await;
    fx.put(b"a", &random(3000, 1)).await.unwrap();
    let ended = async |number| {
        while fx.engine.checkpoint_state().ended != Some(number) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!((fx.engine.begin_checkpoint().unwrap(), fx.engine.begin_checkpoint().unwrap()), (1, 1), "one at a time");
    assert_eq!(fx.engine.checkpoint_state(), CheckpointState { running: Some(1), ..CheckpointState::default() });
    ended(1).await;
    let state = fx.engine.checkpoint_state();
    let first = state.outcome.unwrap();
    assert_eq!((state.running, state.error, first.covers), (None, None, fx.last().covers));
    assert_eq!((first.log_size, first.heads), (fx.last().log_size, 5));
    let view = fx.view();
    let compacted = view.compactions().unwrap().pop().unwrap().compacted;
    let bytes = |id: &BlockId| u64::from(view.block(*id).unwrap().unwrap().facts.payload_len);
    assert_eq!(first.bytes, compacted.parts.iter().chain([&compacted.root]).map(bytes).sum::<u64>());
    assert_eq!((first.parts, first.written), (compacted.parts.len() as u64, first.parts + 1), "the root and every part");
    assert!(first.rows > 10);
    // The second cannot be made whole and is given up with the engine.
    fx.stores.iter().for_each(|store| store.set_faults(full()));
    assert_eq!(fx.engine.begin_checkpoint().unwrap(), 2);
    let shared = fx.engine.shared();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!shared.checkpoints.state().unfinished.is_empty());
    shared.step_aside("a test");
    ended(2).await;
    let state = fx.engine.checkpoint_state();
    assert!(state.running.is_none() && state.outcome.is_none() && state.error.unwrap().contains("shutting down"));
    assert!(shared.checkpoints.state().unfinished.is_empty(), "nobody goes on with them");
    assert_eq!(fx.engine.begin_checkpoint().unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(fx.engine.checkpoint_state().running, None);
}

/// A compacted log stands for commit blocks only if the next older one does as well, and both are announced widely enough that one of those who
/// hold the head is neither gone nor lying.
#[tokio::test(start_paused = true)]
async fn commit_blocks_are_needed_until_two_compacted_logs_count() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let first = fx.compacted(b"a").await;
    assert_eq!((fx.floor(), fx.last().counts), (Seq(0), true), "one is not enough");
    fx.compacted(b"b").await;
    assert_eq!(fx.floor(), Seq(first.covers));
    let (newest, counted) = (Seq(fx.last().covers), |seq: Seq| shared.checkpoints.state().announced[&seq].len());
    assert_eq!((counted(newest), counted(Seq(first.covers))), (5, 5));
    // f is 2: two holders may both be gone or lying, three may not.
    let told = |seq: Seq, count: usize| {
        let ids = shared.fleet.providers().iter().take(count).map(|spec| spec.id.clone()).collect();
        shared.checkpoints.state().announced.insert(seq, ids);
    };
    for seq in [newest, Seq(first.covers)] {
        told(seq, 2);
        assert_eq!((fx.floor(), fx.last().counts), (Seq(0), seq != newest));
        told(seq, 3);
        assert_eq!((fx.floor(), fx.last().counts), (Seq(first.covers), true));
    }
    // Parts and roots of all of them, what one under way has written, and every decision.
    let unfinished = BlockId::from_bytes([9; 16]);
    shared.checkpoints.state().unfinished.insert(unfinished);
    let needed = needed(&shared).unwrap();
    let known =
        fx.view().compactions().unwrap().into_iter().flat_map(|entry| entry.compacted.parts.into_iter().chain([entry.compacted.root]));
    assert_eq!(needed.blocks, known.chain([unfinished]).collect());
    assert_eq!(needed.decisions, fx.view().chain().unwrap().iter().map(|entry| entry.seq).collect());
    assert!(!needed.decisions.is_empty());
}

/// The record of the newest one is in the log and not on all its domains: a recovery may not find it.
#[tokio::test(start_paused = true)]
async fn one_whose_record_is_not_settled_does_not_count() {
    let fx = Fixture::start(5).await;
    fx.compacted(b"a").await;
    let second = fx.compacted(b"b").await;
    let floor = fx.floor();
    let late = Misbehaviour::Latency { fixed: Duration::from_secs(3), jitter: Duration::ZERO };
    fx.stores[4].set_faults(FaultPlan::from(Fault::always(late).on(&[Op::Put])));
    let making = fx.engine.begin_checkpoint().unwrap();
    while fx.view().compactions().unwrap().len() < 3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let third = fx.last();
    assert!(!third.counts && third.covers > second.covers && fx.engine.checkpoint_state().running.is_some(), "{third:?}");
    assert_eq!(fx.floor(), floor);
    // Not even if everybody had its head already.
    let shared = fx.engine.shared();
    let all = shared.fleet.providers().iter().map(|spec| spec.id.clone()).collect();
    shared.checkpoints.state().announced.insert(Seq(third.covers), all);
    assert!(!fx.last().counts);
    while fx.engine.checkpoint_state().ended != Some(making) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(fx.last().counts);
    assert_eq!(fx.floor(), Seq(second.covers));
}

#[tokio::test(start_paused = true)]
async fn every_provider_gets_the_heads_and_whoever_lost_one_gets_it_again() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    fx.compacted(b"a").await;
    assert_eq!((0..5).map(|at| fx.heads(at).len()).collect::<Vec<_>>(), [1; 5]);
    fx.compacted(b"b").await;
    assert_eq!((0..5).map(|at| fx.heads(at).len()).collect::<Vec<_>>(), [2; 5]);
    let newest: Vec<String> = (0..5).map(|at| fx.newest_head(at)).collect();
    fx.stores[1].tamper(&newest[1], None);
    assert_eq!(heads::announce(&shared).await.unwrap(), 5);
    assert!(fx.stores[1].peek(&newest[1]).is_some());
    // Who does not take it does not hold it.
    fx.stores[2].tamper(&newest[2], None);
    fx.stores[2].set_faults(full());
    assert_eq!(heads::announce(&shared).await.unwrap(), 4);
    assert_eq!(fx.last().heads, ["p0", "p1", "p3", "p4"]);
    assert!(fx.last().counts);
    fx.stores[2].set_faults(FaultPlan::honest());
    // Nor does one that shows something else in its place, which is never overwritten.
    let junk = Bytes::from_static(&[7; 300]);
    fx.stores[3].tamper(&newest[3], Some(junk.clone()));
    assert_eq!(heads::announce(&shared).await.unwrap(), 4);
    assert_eq!((fx.stores[3].peek(&newest[3]), fx.liars()), (Some(junk), vec![3]));
    assert_eq!(fx.last().heads, ["p0", "p1", "p2", "p4"]);
}

/// Every five minutes, that is, and not with every look at whether a checkpoint is due.
#[tokio::test(start_paused = true)]
async fn a_head_that_is_lost_is_put_back_within_five_minutes() {
    let fx = Fixture::start(5).await;
    fx.compacted(b"a").await;
    let newest = fx.newest_head(0);
    let hash = Sha256::digest(&newest);
    let asked = || fx.stores[0].trace().iter().filter(|event| event.op == Op::Get && hash.starts_with(&event.path_hash)).count();
    tokio::time::sleep(HEADS_EVERY).await;
    fx.stores[0].tamper(&newest, None);
    let before = asked();
    tokio::time::sleep(HEADS_EVERY).await;
    assert!(fx.stores[0].peek(&newest).is_some());
    let looks = asked() - before;
    assert!((1..=2).contains(&looks), "{looks}");
}

#[tokio::test(start_paused = true)]
async fn an_old_head_goes_only_when_both_that_follow_count() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    fx.compacted(b"a").await;
    let oldest: Vec<(String, Bytes)> = (0..5).map(|at| (fx.newest_head(at), fx.stores[at].peek(&fx.newest_head(at)).unwrap())).collect();
    fx.compacted(b"b").await;
    fx.compacted(b"c").await;
    assert_eq!((0..5).map(|at| fx.heads(at).len()).collect::<Vec<_>>(), [2; 5]);
    assert!((0..5).all(|at| fx.stores[at].peek(&oldest[at].0).is_none()));
    // It lands once more, late; and three of five lose the newest, and take nothing.
    for (store, (path, bytes)) in fx.stores.iter().zip(&oldest) {
        store.tamper(path, Some(bytes.clone()));
    }
    for at in 0..3 {
        fx.stores[at].tamper(&fx.newest_head(at), None);
        fx.stores[at].set_faults(full());
    }
    assert_eq!(heads::announce(&shared).await.unwrap(), 2);
    assert_eq!((0..5).map(|at| fx.heads(at).len()).collect::<Vec<_>>(), [2, 2, 2, 3, 3], "a recovery may need it");
    fx.stores.iter().for_each(|store| store.set_faults(FaultPlan::honest()));
    assert_eq!(heads::announce(&shared).await.unwrap(), 5);
    assert_eq!((0..5).map(|at| fx.heads(at).len()).collect::<Vec<_>>(), [2; 5]);
    assert!((0..5).all(|at| fx.stores[at].peek(&oldest[at].0).is_none()));
}

#[tokio::test(start_paused = true)]
async fn heads_are_found_newest_first_with_the_highest_mark_that_any_of_them_bears() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    assert_eq!(heads::find(&shared).await.covers(), Seq(0));
    let (first, second) = (fx.compacted(b"a").await, fx.compacted(b"b").await);
    let found = heads::find(&shared).await;
    assert_eq!(found.heads.iter().map(|head| head.covers.0).collect::<Vec<_>>(), [second.covers, first.covers]);
    assert_eq!((found.covers(), found.silent.len()), (Seq(second.covers), 0));
    let before = found.heads[0].acked_through;
    // Put again later, where it was lost: it says more. One domain lacks something, so that less is settled than acknowledged.
    fx.stores[4].set_faults(full());
    fx.put(b"c", &random(3000, 9)).await.unwrap();
    fx.put(b"d", &random(3000, 10)).await.unwrap();
    fx.stores[3].tamper(&fx.newest_head(3), None);
    assert_eq!(heads::announce(&shared).await.unwrap(), 5);
    let (applied, settled) = (fx.view().applied_seq().unwrap(), shared.settlement.settled_through());
    assert!(before < applied && settled < applied);
    let found = heads::find(&shared).await;
    assert_eq!((found.heads.len(), found.heads[0].acked_through), (2, applied), "the same one, whatever it says");
    fx.stores[1].set_faults(FaultPlan::down());
    fx.stores[2].tamper(&fx.newest_head(2), Some(Bytes::from_static(&[7; 300])));
    let found = heads::find(&shared).await;
    let silent: Vec<&str> = found.silent.iter().map(diaspore_policy::FailureDomain::as_str).collect();
    assert_eq!((found.heads.len(), silent.len()), (2, 2), "one does not answer, the other shows something else: {silent:?}");
    assert_eq!(fx.liars(), [2]);
}
