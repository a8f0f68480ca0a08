//! What may go and why, what a collection says about it beforehand, and what is written anew for whoever leaves an account.

use std::slice;

use super::*;

impl Fixture {
    fn map(&self) -> Snapshot {
        self.engine.shared().ledger.snapshot().unwrap()
    }

    fn decisions(&self) -> BTreeSet<Seq> {
        self.map().chain().unwrap().iter().map(|entry| entry.seq).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_log_needs_stays_and_all_else_has_a_reason_to_go() {
    let fx = Fixture::start(5).await;
    let any = fx.map().blocks(None, 1).unwrap().remove(0);
    let (kept, other) = (BlockId::from_bytes([1; 16]), BlockId::from_bytes([2; 16]));
    let needs = LogNeeds(checkpoint::Needed { blocks: BTreeSet::from([kept]), floor: Seq(5), decisions: BTreeSet::from([Seq(3), Seq(9)]) });
    let reason = |kind: BlockKind, seq: u64, id: BlockId| {
        let mut entry = any.clone();
        (entry.facts.kind, entry.facts.id, entry.seq) = (kind, id, Seq(seq));
        needs.reason(&entry)
    };
    for kind in [BlockKind::Commit, BlockKind::Decision] {
        let reasons = [1, 3, 4, 5, 6, 9].map(|seq| reason(kind, seq, kept));
        let covered = Some(CondemnReason::Covered);
        assert_eq!(reasons, [covered, None, covered, covered, None, None], "{kind:?}: what is decided there, or not covered, stays");
    }
    for seq in [3, 5, 6] {
        assert_eq!(reason(BlockKind::Bulk, seq, kept), Some(CondemnReason::Dead), "only blobs need it");
        assert_eq!(reason(BlockKind::Compacted, seq, kept), None);
        assert_eq!(reason(BlockKind::Compacted, seq, other), Some(CondemnReason::Outdated));
    }
}

/// Of the decisions that two compacted logs stand for, whoever leaves an account keeps the newest, a collection all of them.
#[tokio::test(start_paused = true)]
async fn an_account_that_is_left_keeps_the_newest_decision_below_the_floor() {
    let mut fx = Fixture::start(5).await;
    for _ in 0..2 {
        fx = fx.restart().await;
        fx.settle().await;
    }
    let least = |fx: &Fixture| LogNeeds::at_least(&fx.engine.shared()).unwrap().0;
    let before = fx.decisions();
    assert_eq!((before.len(), least(&fx).floor, &least(&fx).decisions), (3, Seq(0), &before), "nothing stands for them yet");
    for key in [b"a", b"b"] {
        fx.put(key, &random(3000, 1)).await.unwrap();
        fx.settle().await;
        fx.engine.checkpoint_log().await.unwrap();
    }
    let newest = *before.last().unwrap();
    assert!(least(&fx).floor >= newest);
    assert_eq!(least(&fx).decisions, BTreeSet::from([newest]));
    assert_eq!(LogNeeds::of_collection(&fx.engine.shared()).unwrap().0.decisions, before);
    fx = fx.restart().await;
    fx.settle().await;
    let after = fx.decisions();
    let above: BTreeSet<Seq> = after.iter().copied().filter(|seq| *seq >= newest).collect();
    assert_eq!((after.len(), above.len()), (4, 2));
    assert!(least(&fx).decisions.is_subset(&above) && least(&fx).decisions.contains(after.last().unwrap()));
}

/// Block by block from what the map says; the price of all of it, and then no more is moved than was said to be alive.
#[tokio::test(start_paused = true)]
async fn what_a_collection_will_do_is_said_before() {
    let fx = Fixture::start(5).await;
    let data = random(8 * MIB, 3);
    fx.put(b"part", &data).await.unwrap();
    fx.put(b"stays", &data[..5 * MIB]).await.unwrap();
    fx.put(b"dead", &random(2 * MIB, 4)).await.unwrap();
    fx.put(b"whole", &random(2 * MIB, 5)).await.unwrap();
    fx.settle().await;
    fx.gone(b"part").await;
    fx.gone(b"dead").await;
    fx.settle().await;
    let (view, bucket) = (fx.map(), fx.map().bucket(fx.caller().tenant, "bucket").unwrap().unwrap().id);
    let mut alive: BTreeMap<BlockId, u64> = BTreeMap::new();
    for key in [b"stays", b"whole"] {
        for chunk in view.blob(bucket, key).unwrap().unwrap().content.refs {
            let place = view.chunk(bucket, &chunk.id).unwrap().unwrap();
            *alive.entry(place.block).or_default() += u64::from(place.stored_len);
        }
    }
    let entries = view.blocks(None, 1000).unwrap();
    let objects: usize = entries.iter().map(|entry| entry.facts.placements.len()).sum();
    let mut expected = Collected::default();
    let price = Price::default();
    for entry in entries.iter().filter(|entry| entry.facts.kind == BlockKind::Bulk) {
        let held: u64 = entry.facts.sections.iter().map(|section| u64::from(section.plain_len)).sum();
        let live = alive.get(&entry.facts.id).copied().unwrap_or(0);
        expected.blocks += 1;
        expected.held_bytes += held;
        expected.live_bytes += live;
        expected.dead_blocks += u64::from(live == 0);
        expected.sparse_blocks += u64::from(live > 0 && live < held);
        if live > 0 && live < held {
            let block = Block { id: entry.facts.id, held, live, stored: 0, k: 3, n: 5 };
            expected.cost.add(&block.cost_of_emptying(&price));
        }
        if live < held {
            expected.cost.add(&Cost { reads: 5, deletes: 5, ..Cost::default() });
        }
    }
    assert!(
        expected.dead_blocks >= 1 && expected.sparse_blocks >= 1 && expected.blocks > expected.dead_blocks + expected.sparse_blocks,
        "{expected:?}"
    );
    expected.cost.writes += 5 * inventory::requests(objects as u64 / 5);
    let thorough = Asked { max_dead_permille: Some(0), ..NOW };
    assert_eq!(fx.collect(Asked { dry_run: true, ..thorough }).await, expected);
    // A bound is about what is dead of all that stays: wholly dead blocks go anyhow.
    let (mut all, mut dead) = (0, 0);
    for entry in entries.iter().filter(|entry| entry.facts.kind == BlockKind::Bulk) {
        if let Some(live) = alive.get(&entry.facts.id) {
            let held: u64 = entry.facts.sections.iter().map(|section| u64::from(section.plain_len)).sum();
            (all, dead) = (all + held, dead + held - live);
        }
    }
    assert!(all > dead && dead > 0 && dead * 1000 % all != 0);
    for (most, emptied) in [(dead * 1000 / all, expected.sparse_blocks.min(1)), (dead * 1000 / all + 1, 0)] {
        let asked = Asked { max_dead_permille: Some(most), dry_run: true, ..NOW };
        assert_eq!(fx.collect(asked).await.sparse_blocks, emptied, "{dead} of {all} are dead, {most} in a thousand may be");
    }
    let moving: u64 = entries
        .iter()
        .filter_map(|entry| {
            let held: u64 = entry.facts.sections.iter().map(|section| u64::from(section.plain_len)).sum();
            alive.get(&entry.facts.id).copied().filter(|live| entry.facts.kind == BlockKind::Bulk && *live < held)
        })
        .sum();
    let report = fx.collect(thorough).await;
    assert_eq!((report.moved_bytes, report.condemned_blocks), (moving, expected.dead_blocks + expected.sparse_blocks));
    assert_eq!((report.swept.blocks, report.failed_moves, report.inherited_blocks), (report.condemned_blocks, 0, 0));
    // Without an operator's bound nothing is emptied that is alive for the most part.
    let fresh = Fixture::start(5).await;
    fresh.put(b"part", &data).await.unwrap();
    fresh.put(b"stays", &data[..7 * MIB]).await.unwrap();
    fresh.settle().await;
    fresh.gone(b"part").await;
    fresh.settle().await;
    let report = fresh.collect(NOW).await;
    assert!(report.held_bytes > report.live_bytes && (report.sparse_blocks, report.moved_bytes) == (0, 0), "{report:?}");
}

/// Somebody waits to leave an account: what is written anew goes at once, and nothing else does.
#[tokio::test(start_paused = true)]
async fn what_is_written_anew_goes_without_a_grace_time_and_all_else_waits() {
    let fx = Fixture::start(5).await;
    let (goes, stays) = (random(2 * MIB, 6), random(2 * MIB, 7));
    fx.put(b"goes", &goes).await.unwrap();
    fx.put(b"stays", &stays).await.unwrap();
    fx.settle().await;
    fx.gone(b"goes").await;
    fx.settle().await;
    let report = fx.collect(Asked::default()).await;
    assert_eq!((report.condemned_blocks, report.swept.waiting), (1, 1));
    let shared = fx.engine.shared();
    let block = *fx.block_of(b"stays").first().unwrap();
    // One at a time, and whoever has to wait for long hears so.
    let turn = Arc::clone(&shared.collector.turn).lock_owned().await;
    let mut counts = Vec::new();
    let begun = Instant::now();
    let error = rewrite(&shared, slice::from_ref(&block), |count| counts.push(count)).await.unwrap_err();
    assert_eq!((error.kind, begun.elapsed().as_secs()), (ErrorKind::NotAccepted, RECORD_DEADLINE.as_secs()));
    drop(turn);
    rewrite(&shared, slice::from_ref(&block), |count| counts.push(count)).await.unwrap();
    assert_eq!(counts, [1]);
    assert!(fx.map().block(block).unwrap().is_none() && !fx.block_of(b"stays").contains(&block));
    assert_eq!(fx.map().all_condemned(None, 100).unwrap().len(), 1, "the grace time of the other one runs");
    let seq = fx.map().applied_seq().unwrap();
    rewrite(&shared, &[], |count| counts.push(count)).await.unwrap();
    assert_eq!((fx.map().applied_seq().unwrap(), counts.len()), (seq, 1), "nothing to do, nothing said in the log");
    fx.forget();
    assert!(fx.read(b"stays").await.unwrap() == stays);
}
