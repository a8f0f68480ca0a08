//! What a compacted log is made of, and what it waits for.

use diaspore_block::record::ProviderMode;
use diaspore_policy::ProviderId;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};

use super::*;
use crate::blob::tests::fixture::{Fixture, random};
use crate::checkpoint;

async fn compacted(providers: usize) -> Fixture {
    let fx = Fixture::start(providers).await;
    fx.put(b"a", &random(3000, 1)).await.unwrap();
    fx.settle().await;
    fx.engine.checkpoint_log().await.unwrap();
    fx
}

/// The root of the newest compacted log, as a part is referred to.
fn newest(shared: &Shared) -> (Snapshot, BlockRef) {
    let view = shared.ledger.snapshot().unwrap();
    let root = view.compactions().unwrap().pop().unwrap().compacted.root;
    let reference = reference_of(&view.block(root).unwrap().unwrap().facts);
    (view, reference)
}

/// A part that is referred to once more ties the next compacted log to where it lies. That is no tie as long as its shards can move away.
#[tokio::test(start_paused = true)]
async fn a_part_stays_unless_it_lies_at_an_account_that_is_left_and_could_not_move() {
    for mode in [ProviderMode::Draining, ProviderMode::Dead, ProviderMode::Quarantined] {
        for providers in [5, 6] {
            let fx = compacted(providers).await;
            let shared = fx.engine.shared();
            let (view, part) = newest(&shared);
            let unknown = BlockRef { block: BlockId::from_bytes([9; 16]), ..part.clone() };
            assert!(stays(&shared, &view, &part) && !stays(&shared, &view, &unknown));
            let homes = view.block(part.block).unwrap().unwrap().facts.placements;
            let home = ProviderId::new(&homes[0].provider).unwrap();
            crate::modes::set(&shared, diaspore_block::id::PrincipalId::NIL, &home, mode, "a test").await.unwrap();
            assert_eq!(stays(&shared, &view, &part), mode == ProviderMode::Quarantined || providers == 6, "{mode:?} of {providers}");
        }
    }
    // As few domains, and the account that is left has none of it.
    let fx = compacted(6).await;
    let shared = fx.engine.shared();
    let (view, part) = newest(&shared);
    let homes = view.block(part.block).unwrap().unwrap().facts.placements;
    let stranger = shared.fleet.providers().iter().find(|spec| homes.iter().all(|home| home.provider != spec.id.as_str())).unwrap();
    let set =
        async |id: &ProviderId, mode| crate::modes::set(&shared, diaspore_block::id::PrincipalId::NIL, id, mode, "a test").await.unwrap();
    set(&stranger.id, ProviderMode::Draining).await;
    assert!(stays(&shared, &view, &part));
    set(&ProviderId::new(&homes[0].provider).unwrap(), ProviderMode::Quarantined).await;
    assert!(stays(&shared, &view, &part), "four are left for five shards, and none of them is at an account that is left");
}

#[tokio::test(start_paused = true)]
async fn the_last_root_is_remembered_and_read_once_otherwise() {
    let fx = compacted(5).await;
    let shared = fx.engine.shared();
    let frozen = shared.ledger.snapshot().unwrap();
    let gets = fx.gets();
    let remembered = previous(&shared, &frozen).await.unwrap().unwrap();
    assert_eq!(fx.gets(), gets, "nobody is asked");
    // After a start, or when it is of another one.
    let another = Some((BlockId::from_bytes([9; 16]), Arc::new(CompactedRoot { covers: Seq(1), ..(*remembered).clone() })));
    for last in [None, another] {
        shared.checkpoints.state().last = last;
        let read = previous(&shared, &frozen).await.unwrap().unwrap();
        assert_eq!((read.covers, &read.parts), (remembered.covers, &remembered.parts));
    }
    assert!(fx.gets() > gets);
    fx.stores.iter().take(3).for_each(diaspore_testkit::HostileStore::lose_everything);
    assert!(previous(&shared, &frozen).await.unwrap().is_none(), "everything is written anew");
}

/// A collection that runs beside it must not take what it has written for leftovers.
#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_is_needed_and_signed_once() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let signed = || shared.meters.signatures.load(Ordering::Relaxed);
    let before = signed();
    let mut sent = scatter(&shared, b"a part").unwrap();
    assert_eq!(signed(), before + 1);
    assert!(checkpoint::needed(&shared).unwrap().blocks.contains(&sent.reference.block));
    assert!(sent.handle.quorum().await.unwrap().len() >= 4);
    let again = scatter(&shared, b"a part").unwrap();
    assert_ne!((again.reference.block, again.reference.counter), (sent.reference.block, sent.reference.counter));
    assert_ne!(again.reference.manifest_hash, sent.reference.manifest_hash);
    assert_eq!(read::fetch(&shared, &sent.reference, &BTreeSet::new()).await.unwrap(), b"a part");
}

/// One domain lacks a shard of what it covers, or of itself: it is not called whole, and nothing announces it.
#[tokio::test(start_paused = true)]
async fn nothing_is_said_in_the_log_before_all_of_it_is_settled() {
    for late in [false, true] {
        let fx = Fixture::start(5).await;
        let shared = fx.engine.shared();
        let down = || fx.stores[4].set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put])));
        if !late {
            down();
        }
        let put = fx.put(b"a", &random(3000, 1)).await.unwrap();
        if late {
            fx.settle().await;
            down();
        }
        let number = fx.engine.begin_checkpoint().unwrap();
        tokio::time::sleep(Duration::from_mins(1)).await;
        let view = shared.ledger.snapshot().unwrap();
        assert_eq!((view.compactions().unwrap().len(), fx.engine.checkpoint_state().running), (0, Some(number)));
        assert!(view.applied_seq().unwrap() > put.seq, "its parts are named by a record");
        fx.stores[4].set_faults(FaultPlan::honest());
        while fx.engine.checkpoint_state().ended != Some(number) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let view = shared.ledger.snapshot().unwrap();
        let said = view.compactions().unwrap().pop().unwrap();
        assert!(said.compacted.covers >= put.seq && view.settled_through().unwrap() >= said.seq);
        assert_eq!(fx.engine.checkpoint_state().outcome.unwrap().heads, 5);
    }
}

/// What a recovery finds is what the ledger says, and the ledger is told a little later. Whoever may not write any more does not wait for it.
#[tokio::test(start_paused = true)]
async fn what_is_waited_for_is_settled_by_the_ledgers_account() {
    let fx = Fixture::start(5).await;
    fx.settle().await;
    let shared = fx.engine.shared();
    let through = || shared.ledger.snapshot().unwrap().settled_through().unwrap();
    settled(&shared, through()).await.unwrap();
    // Nothing is known to be open up to there.
    let next = Seq(shared.ledger.snapshot().unwrap().applied_seq().unwrap().0 + 1);
    let waiting = settled(&shared, next);
    tokio::pin!(waiting);
    for _ in 0..5 {
        assert!(futures::poll!(&mut waiting).is_pending());
        tokio::time::sleep(LOOK).await;
    }
    assert!(through() < next);
    fx.put(b"a", &random(3000, 1)).await.unwrap();
    waiting.await.unwrap();
    assert!(through() >= next);
    let waiting = settled(&shared, Seq(u64::MAX));
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    shared.stage.refuse_new_work();
    assert_eq!(waiting.await.unwrap_err().kind, ErrorKind::ReadOnly);
}

#[tokio::test(start_paused = true)]
async fn a_root_says_what_it_covers_and_its_parts_hold_all_of_it() {
    let fx = Fixture::start(5).await;
    let (shared, none) = (fx.engine.shared(), BTreeSet::new());
    for key in [b"a", b"b"] {
        fx.put(key, &random(3000, key[0].into())).await.unwrap();
    }
    fx.settle().await;
    let frozen = shared.ledger.snapshot().unwrap();
    let (covers, log_size) = (frozen.applied_seq().unwrap(), frozen.log_size().unwrap());
    let report = fx.engine.checkpoint_log().await.unwrap();
    let (view, reference) = newest(&shared);
    let said = view.compactions().unwrap().pop().unwrap();
    let root = read::root(&shared, &reference, &none).await.unwrap();
    let last = frozen.commit_block(covers).unwrap().unwrap().facts;
    assert_eq!((root.covers, root.incarnation, root.counter), (covers, last.incarnation, last.counter));
    assert_eq!((root.log_size, root.log_root), (log_size, frozen.log_root(log_size).unwrap()));
    assert!((covers..said.seq).contains(&root.acked_through), "{:?}", root.acked_through);
    let told = &said.compacted;
    assert_eq!((told.covers, told.incarnation, told.counter), (root.covers, root.incarnation, root.counter));
    assert_eq!((told.log_size, told.log_root), (root.log_size, root.log_root));
    assert_eq!(told.parts, root.parts.iter().map(|part| part.block.block).collect::<Vec<_>>());
    assert_eq!((report.covers, report.log_size, report.heads), (covers.0, log_size, 5));
    assert_eq!(report.rows, root.parts.iter().map(|part| u64::from(part.rows)).sum::<u64>());
    let ends = root.parts.iter().skip(1).map(|part| Some(&part.first)).chain([None]);
    for (part, end) in root.parts.iter().zip(ends) {
        assert_eq!(read::part(&shared, part, end, &none).await.unwrap().len(), part.plain_len as usize);
    }
    // It is remembered for the next one, and settled by the ledger's account before anybody hears of it.
    assert_eq!(shared.checkpoints.state().last.as_ref().map(|(block, last)| (*block, last.covers)), Some((reference.block, covers)));
    assert!(view.settled_through().unwrap() >= said.seq);
}

/// What stands behind the rows of a block follows from its blind: providers must not find two blocks alike by it, nor know it beforehand.
#[tokio::test(start_paused = true)]
async fn every_block_of_a_compacted_log_has_a_blind_of_its_own() {
    let fx = compacted(5).await;
    let shared = fx.engine.shared();
    let mut blinds = std::collections::BTreeSet::from([[0; 32]]);
    let blocks = shared.ledger.snapshot().unwrap().blocks(None, 1000).unwrap();
    let compacted: Vec<_> = blocks.into_iter().filter(|entry| entry.facts.kind == BlockKind::Compacted).collect();
    assert!(compacted.len() >= 2, "a part and the root");
    for entry in compacted {
        let home = ProviderId::new(&entry.facts.placements[0].provider).unwrap();
        let seen = crate::shards::look_known(&shared, &entry.facts, &home, crate::shards::Depth::Header).await;
        let crate::shards::Look::Seen(seen) = seen else { panic!("it is there") };
        assert!(blinds.insert(seen.header.manifest().blind));
    }
}
