//! Collections over a whole engine: real commit log, real ledger in memory, hostile stores in memory.

mod choices;
mod leftovers;
mod listings;
mod moves;

use std::collections::BTreeSet;

use bytes::Bytes;
use diaspore_block::id::{Seq, VersionId};
use diaspore_block::record::{BlobPut, ChunkRef, Content, Encoding};
use diaspore_testkit::{Fault, FaultPlan, HostileStore, Misbehaviour, Op};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::*;
use crate::api::Precondition;
use crate::api::{BodyStream, PutOptions};
use crate::blob::tests::fixture::{Fixture, body, random, whole};
use crate::commit::SmallChunk;

const MIB: usize = 1 << 20;
const NOW: Asked = Asked { now: true, max_dead_permille: None, dry_run: false };

impl Fixture {
    pub(super) async fn gone(&self, key: &[u8]) {
        self.delete(key, Precondition::None, None).await.unwrap();
    }

    async fn collect(&self, asked: Asked) -> Collected {
        collect(&self.engine.shared(), asked).await.unwrap()
    }

    fn deletes(&self) -> u64 {
        self.stores.iter().map(|store| store.requests(Op::Delete)).sum()
    }

    pub(super) fn block_of(&self, key: &[u8]) -> BTreeSet<BlockId> {
        let shared = self.engine.shared();
        let view = shared.ledger.snapshot().unwrap();
        let tenant = view.tenant_by_name("t").unwrap().unwrap().id;
        let bucket = view.bucket(tenant, "bucket").unwrap().unwrap().id;
        let blob = view.blob(bucket, key).unwrap().unwrap();
        blob.content.refs.iter().map(|chunk| view.chunk(bucket, &chunk.id).unwrap().unwrap().block).collect()
    }
}

/// A body whose pieces come when the test sends them.
fn piecemeal() -> (mpsc::UnboundedSender<Bytes>, BodyStream) {
    let (pieces, mut arriving) = mpsc::unbounded_channel::<Bytes>();
    let stream = futures::stream::poll_fn(move |cx| arriving.poll_recv(cx)).map(Ok);
    (pieces, Box::pin(stream))
}

#[tokio::test(start_paused = true)]
async fn what_no_blob_names_goes_and_the_rest_stays() {
    let fx = Fixture::start(5).await;
    let (stays, goes) = (random(9 * MIB, 1), random(30 * MIB, 2));
    fx.put(b"stays", &stays).await.unwrap();
    fx.settle().await;
    let alone = fx.stored_bytes();
    fx.put(b"goes", &goes).await.unwrap();
    fx.settle().await;
    fx.gone(b"goes").await;
    let dry = fx.collect(Asked { dry_run: true, ..NOW }).await;
    assert_eq!(fx.deletes(), 0, "a dry run touches nothing");
    let asked = |op: Op| fx.stores.iter().map(|store| store.requests(op)).sum::<u64>();
    let before = [Op::List, Op::Delete].map(asked);
    let report = fx.collect(NOW).await;
    let [lists, deletes] = [asked(Op::List) - before[0], asked(Op::Delete) - before[1]];
    assert!(lists > 0 && deletes > 0, "{lists} {deletes}");
    assert_eq!((report.cost.writes, report.cost.deletes), (lists, deletes), "the price was told before");
    assert_eq!((report.dead_blocks, report.cost), (dry.dead_blocks, dry.cost));
    assert!(report.dead_blocks >= 3 && report.condemned_blocks == report.dead_blocks, "{report:?}");
    assert_eq!(report.swept.blocks, report.dead_blocks);
    assert_eq!((report.swept.waiting, report.swept.failed.len(), report.swept.kept.len()), (0, 0, 0));
    let left = fx.stored_bytes();
    assert!(left < alone + alone / 20, "{left} bytes are stored, {alone} would do");
    fx.forget();
    assert_eq!(fx.read(b"stays").await.unwrap(), stays);
    let again = fx.collect(NOW).await;
    assert_eq!((again.dead_blocks, again.swept.blocks), (0, 0));
    fx.put(b"goes", &goes).await.unwrap();
    fx.forget();
    assert_eq!(fx.read(b"goes").await.unwrap(), goes, "put again after it went");
}

#[tokio::test(start_paused = true)]
async fn an_upload_in_flight_keeps_what_it_found() {
    let fx = Fixture::start(5).await;
    let data = random(24 * MIB, 3);
    fx.put(b"first", &data).await.unwrap();
    fx.settle().await;
    let (pieces, stream) = piecemeal();
    let upload = fx.put_stream(b"second", PutOptions::default(), stream);
    tokio::pin!(upload);
    for piece in data[..20 * MIB].chunks(MIB) {
        pieces.send(Bytes::copy_from_slice(piece)).unwrap();
    }
    assert!(futures::poll!(&mut upload).is_pending());
    // Most of the body was found to be stored already; the blob that stored it goes.
    fx.gone(b"first").await;
    fx.collect(NOW).await;
    pieces.send(Bytes::copy_from_slice(&data[20 * MIB..])).unwrap();
    drop(pieces);
    upload.await.unwrap();
    fx.forget();
    assert!(fx.read(b"second").await.unwrap() == data);
    fx.settle().await;
    fx.collect(NOW).await;
    fx.forget();
    assert!(fx.read(b"second").await.unwrap() == data, "its own blocks and those it found are named by it now");
}

/// Three uploads of the same bytes: one relies on a block, another that saw nothing of it yet commits later and so becomes the place that
/// the chunks are read from, and goes. What the first relies on are the chunks, wherever they are read from.
#[tokio::test(start_paused = true)]
async fn an_upload_in_flight_keeps_its_chunks_where_they_are_read_now() {
    let fx = Fixture::start(5).await;
    let data = random(24 * MIB, 3);
    let feed = |pieces: &mpsc::UnboundedSender<Bytes>, part: &[u8]| {
        for piece in part.chunks(MIB) {
            pieces.send(Bytes::copy_from_slice(piece)).unwrap();
        }
    };
    let (twin_pieces, stream) = piecemeal();
    let twin = fx.put_stream(b"twin", PutOptions::default(), stream);
    tokio::pin!(twin);
    feed(&twin_pieces, &data[..20 * MIB]);
    assert!(futures::poll!(&mut twin).is_pending());
    fx.put(b"first", &data).await.unwrap();
    fx.settle().await;
    let before = fx.block_of(b"first");
    let (pieces, stream) = piecemeal();
    let upload = fx.put_stream(b"relies", PutOptions::default(), stream);
    tokio::pin!(upload);
    feed(&pieces, &data[..20 * MIB]);
    assert!(futures::poll!(&mut upload).is_pending());
    feed(&twin_pieces, &data[20 * MIB..]);
    drop(twin_pieces);
    twin.await.unwrap();
    fx.settle().await;
    assert!(!fx.block_of(b"first").is_subset(&before), "its chunks are read from the twin's blocks now");
    fx.gone(b"twin").await;
    fx.gone(b"first").await;
    fx.collect(NOW).await;
    feed(&pieces, &data[20 * MIB..]);
    drop(pieces);
    upload.await.unwrap();
    fx.forget();
    assert!(fx.read(b"relies").await.unwrap() == data);
}

/// What was deleted between a look and its account is not missed.
#[tokio::test(start_paused = true)]
async fn what_went_while_it_was_looked_at_is_not_repaired() {
    let fx = Fixture::start(5).await;
    fx.put(b"goes", &random(9 * MIB, 12)).await.unwrap();
    fx.settle().await;
    let shared = fx.engine.shared();
    let blocks = fx.block_of(b"goes");
    let entries: Vec<_> = blocks.iter().map(|block| shared.ledger.snapshot().unwrap().block(*block).unwrap().unwrap()).collect();
    fx.gone(b"goes").await;
    assert_eq!(fx.collect(NOW).await.swept.blocks, blocks.len() as u64);
    for entry in entries {
        let provider = ProviderId::new(&entry.facts.placements[0].provider).unwrap();
        let lost = [(entry.facts.placements[0].shard, provider, crate::scrub::Seen::Missing)];
        crate::scrub::observed(&shared, &entry, &lost, false);
        assert!(shared.ledger.snapshot().unwrap().check_of(entry.facts.id).unwrap().is_none());
        // Even if it had been filed in between.
        shared.settlement.file(&entry, &lost);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(shared.settlement.repairs().blocks, 0);
}

/// A clock that was a year ahead for a moment does not keep garbage for a year.
#[tokio::test(start_paused = true)]
async fn what_was_condemned_ahead_of_time_goes_a_grace_time_after_it_is_seen() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let now = shared.clock.now();
    let block = BlockId::from_bytes([7; 16]);
    assert_eq!(shared.collector.condemned_ahead(block, now), now);
    tokio::time::sleep(GRACE).await;
    let condemned =
        diaspore_ledger::CondemnedEntry { block, seq: Seq(1), time: Timestamp(now.0 + 365 * 86_400_000), reason: CondemnReason::Dead };
    assert!(sweep::is_due(&shared, &condemned, GRACE));
    let later = diaspore_ledger::CondemnedEntry { block: BlockId::from_bytes([8; 16]), ..condemned };
    assert!(!sweep::is_due(&shared, &later, GRACE), "met for the first time");
}

/// Blocks of a long upload are in the log before any blob names them.
#[tokio::test(start_paused = true)]
async fn an_upload_in_flight_keeps_its_own_blocks() {
    let fx = Fixture::start(5).await;
    let data = random(230 * MIB, 4);
    let (pieces, stream) = piecemeal();
    let upload = fx.put_stream(b"long", PutOptions::default(), stream);
    tokio::pin!(upload);
    for piece in data[..225 * MIB].chunks(MIB) {
        pieces.send(Bytes::copy_from_slice(piece)).unwrap();
    }
    for _ in 0..2000 {
        assert!(futures::poll!(&mut upload).is_pending());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let recorded = fx.engine.shared().ledger.snapshot().unwrap().totals().unwrap().bulk_blocks;
    assert!(recorded >= 16, "{recorded}");
    let report = fx.collect(NOW).await;
    assert!(report.dead_blocks >= 16 && report.condemned_blocks == 0, "{report:?}");
    pieces.send(Bytes::copy_from_slice(&data[225 * MIB..])).unwrap();
    drop(pieces);
    upload.await.unwrap();
    fx.forget();
    assert!(fx.read(b"long").await.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn a_running_read_ends_well_although_its_blob_is_gone() {
    let fx = Fixture::start(5).await;
    let data = random(60 * MIB, 5);
    fx.put(b"read", &data).await.unwrap();
    fx.settle().await;
    fx.forget();
    let mut stream = fx.open(b"read", None).await.unwrap().body;
    let first = stream.next().await.unwrap().unwrap();
    fx.gone(b"read").await;
    let report = fx.collect(NOW).await;
    assert_eq!(report.condemned_blocks, 0, "what it reads is alive");
    let rest = whole(stream).await.unwrap();
    assert!([first.as_ref(), &rest].concat() == data);
    let report = fx.collect(NOW).await;
    assert!(report.swept.blocks >= 5, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_began_before_holds_condemned_blocks() {
    let fx = Fixture::start(5).await;
    fx.put(b"goes", &random(9 * MIB, 6)).await.unwrap();
    fx.put(b"other", &random(MIB / 2, 7)).await.unwrap();
    fx.settle().await;
    fx.gone(b"goes").await;
    let reading = fx.open(b"other", None).await.unwrap();
    let report = fx.collect(NOW).await;
    assert!(report.condemned_blocks > 0);
    assert_eq!((report.swept.blocks, report.swept.waiting), (0, report.condemned_blocks), "it may have found a place in one of them");
    assert_eq!(fx.deletes(), 0);
    drop(reading);
    let after = fx.open(b"other", None).await.unwrap();
    assert_eq!(fx.collect(NOW).await.swept.blocks, report.condemned_blocks, "who came later cannot");
    drop(after);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_before_the_record_is_released() {
    let fx = Fixture::start(5).await;
    fx.put(b"goes", &random(9 * MIB, 8)).await.unwrap();
    fx.settle().await;
    fx.gone(b"goes").await;
    fx.settle().await;
    for store in &fx.stores[..2] {
        store.set_faults(FaultPlan::from(Fault::always(Misbehaviour::Freeze).on(&[Op::Put])));
    }
    let shared = fx.engine.shared();
    let collecting = collect(&shared, NOW);
    tokio::pin!(collecting);
    for _ in 0..200 {
        assert!(futures::poll!(&mut collecting).is_pending());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(fx.deletes(), 0, "three of five hold the record: it may yet be void");
    let block = *shared
        .ledger
        .snapshot()
        .unwrap()
        .blocks(None, 100)
        .unwrap()
        .iter()
        .find(|e| e.facts.kind == BlockKind::Bulk)
        .map(|e| &e.facts.id)
        .unwrap();
    assert!(shared.keep.is_nominated(block));
    for store in &fx.stores {
        store.set_faults(FaultPlan::honest());
    }
    collecting.await.unwrap();
    assert!(fx.deletes() > 0);
    assert!(!shared.keep.is_nominated(block));
}

#[tokio::test(start_paused = true)]
async fn what_is_condemned_is_never_found_again() {
    let fx = Fixture::start(5).await;
    let data = random(9 * MIB, 9);
    fx.put(b"one", &data).await.unwrap();
    fx.settle().await;
    let before = fx.block_of(b"one");
    fx.gone(b"one").await;
    // Condemned, and the grace time runs.
    let report = fx.collect(Asked::default()).await;
    assert_eq!((report.condemned_blocks, report.swept.blocks), (before.len() as u64, 0));
    fx.put(b"two", &data).await.unwrap();
    assert!(before.is_disjoint(&fx.block_of(b"two")), "it was stored again");
    fx.settle().await;
    let report = fx.collect(NOW).await;
    assert_eq!(report.swept.blocks, before.len() as u64);
    fx.forget();
    assert!(fx.read(b"two").await.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_down_or_keeps_objects_holds_the_block() {
    let fx = Fixture::start(5).await;
    fx.put(b"goes", &random(9 * MIB, 10)).await.unwrap();
    fx.settle().await;
    fx.gone(b"goes").await;
    fx.settle().await;
    fx.stores[0].set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Delete])));
    fx.stores[1].set_faults(FaultPlan::from(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Delete])));
    let report = fx.collect(NOW).await;
    assert_eq!(report.swept.blocks, 0);
    assert_eq!(report.swept.failed.keys().collect::<Vec<_>>(), ["p0"]);
    assert_eq!(report.swept.kept.keys().collect::<Vec<_>>(), ["p1"]);
    let asked = || fx.stores[2].requests(Op::Delete);
    let before = asked();
    assert_eq!(fx.collect(NOW).await.swept.blocks, 0);
    assert_eq!(asked(), before, "who showed nothing any more is not asked again");
    for store in &fx.stores {
        store.set_faults(FaultPlan::honest());
    }
    assert_eq!(fx.collect(NOW).await.swept.blocks, report.condemned_blocks);
}

/// Some of a batch are deleted long after they were found to be due.
#[tokio::test(start_paused = true)]
async fn a_block_that_somebody_works_on_when_its_turn_comes_is_not_deleted() {
    let fx = Fixture::start(5).await;
    fx.put(b"goes", &random(72 * MIB, 10)).await.unwrap();
    fx.settle().await;
    fx.gone(b"goes").await;
    fx.settle().await;
    let late = Misbehaviour::Latency { fixed: Duration::from_secs(5), jitter: Duration::ZERO };
    for store in &fx.stores {
        store.set_faults(FaultPlan::from(Fault::always(late).on(&[Op::Delete])));
    }
    let shared = fx.engine.shared();
    let collecting = begin(&shared, NOW).unwrap();
    let condemned = || shared.ledger.snapshot().unwrap().all_condemned(None, 100).unwrap();
    while condemned().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let condemned = condemned();
    assert!(condemned.len() > 4, "more than are deleted at once");
    let claim = shared.settlement.claim(condemned.last().unwrap().block).unwrap();
    let swept = collecting.outcome.await.unwrap().unwrap().swept;
    assert_eq!((swept.blocks, swept.waiting), (condemned.len() as u64 - 1, 1));
    drop(claim);
    assert_eq!(fx.collect(NOW).await.swept.blocks, 1);
}

/// Of every block most goes: what stays takes as little as if only it had ever been stored.
#[tokio::test(start_paused = true)]
async fn after_emptying_the_providers_hold_what_a_fresh_store_would() {
    let fx = Fixture::start(5).await;
    let fresh = Fixture::start(5).await;
    let mut left = Vec::new();
    for index in 0..6_u8 {
        let data = random(24 * MIB, 100 + u64::from(index));
        // Pieces of each of its blocks, found to be stored already.
        let picked = [&data[..2 * MIB], &data[10 * MIB..12 * MIB], &data[20 * MIB..22 * MIB]].concat();
        fx.put(format!("{index}").as_bytes(), &data).await.unwrap();
        fx.put(format!("{index} picked").as_bytes(), &picked).await.unwrap();
        fresh.put(format!("{index} picked").as_bytes(), &picked).await.unwrap();
        left.push(picked);
    }
    fx.settle().await;
    fresh.settle().await;
    for index in 0..6_u8 {
        fx.gone(format!("{index}").as_bytes()).await;
    }
    fx.settle().await;
    let report = fx.collect(Asked { max_dead_permille: Some(50), ..NOW }).await;
    assert!(report.sparse_blocks > 6 && report.failed_moves == 0, "{report:?}");
    for (index, data) in left.iter().enumerate() {
        fx.forget();
        assert!(fx.read(format!("{index} picked").as_bytes()).await.unwrap() == *data);
    }
    let (now, ideal) = (fx.stored_bytes(), fresh.stored_bytes());
    assert!(now * 100 <= ideal * 105, "{now} bytes are stored, a fresh store has {ideal}: {report:?}");
    let again = fx.collect(Asked { max_dead_permille: Some(50), ..NOW }).await;
    assert!((again.held_bytes - again.live_bytes) * 20 <= again.held_bytes, "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sparse_block_is_emptied_and_what_lived_in_it_reads_on() {
    let fx = Fixture::start(5).await;
    let data = random(24 * MIB, 11);
    fx.put(b"whole", &data).await.unwrap();
    fx.settle().await;
    // The same chunks but for the middle: the second blob shares the beginning and the end of the first.
    let ends: Vec<u8> = [&data[..2 * MIB], &random(MIB, 12), &data[22 * MIB..]].concat();
    fx.put(b"ends", &ends).await.unwrap();
    fx.settle().await;
    let before = fx.block_of(b"ends");
    fx.gone(b"whole").await;
    fx.forget();
    let mut reading = fx.open(b"ends", None).await.unwrap().body;
    let first = reading.next().await.unwrap().unwrap();
    let report = fx.collect(Asked { max_dead_permille: Some(50), ..NOW }).await;
    assert!(report.sparse_blocks >= 1 && report.new_blocks >= 1 && report.failed_moves == 0, "{report:?}");
    assert_eq!(report.swept.blocks, 0, "a reader that began before may still ask the old blocks");
    let rest = whole(reading).await.unwrap();
    assert!([first.as_ref(), &rest].concat() == ends);
    assert!(fx.collect(NOW).await.swept.blocks >= 1);
    assert!(!fx.block_of(b"ends").is_superset(&before));
    fx.forget();
    assert!(fx.read(b"ends").await.unwrap() == ends);
    assert_eq!(body(&ends).count().await, ends.len().div_ceil(300_000));
}

/// Foreign objects are counted and stay; what a PUT that lands late brings back after its block was erased goes, once another incarnation rules.
#[tokio::test(start_paused = true)]
async fn orphans_go_and_foreign_objects_stay() {
    let fx = Fixture::start(5).await;
    fx.put(b"goes", &random(9 * MIB, 13)).await.unwrap();
    fx.put(b"stays", &random(9 * MIB, 14)).await.unwrap();
    fx.settle().await;
    let before: Vec<_> = fx.stores.iter().map(HostileStore::objects).collect();
    fx.gone(b"goes").await;
    let report = fx.collect(NOW).await;
    assert!(report.swept.blocks > 0);
    let after: Vec<_> = fx.stores.iter().map(HostileStore::objects).collect();
    let removed = |at: usize| before[at].iter().find(|object| !after[at].contains(object)).unwrap().clone();
    // It lands after all; beside it somebody's letter, a copy of one of our shards under another of our names, and noise under a name like ours.
    let (late, bytes) = removed(0);
    fx.stores[0].tamper(&late, Some(bytes.clone()));
    let strangers = ["letter.txt", "ab/cdef0123456789abcdef0123456789abcdef01", &removed(1).0.clone()];
    for (path, bytes) in strangers.iter().zip([Bytes::from_static(b"hello"), bytes.clone(), random(4096, 15).into()]) {
        fx.stores[1].tamper(path, Some(bytes));
    }
    let report = fx.collect(NOW).await;
    let [p0, p1] = ["p0", "p1"].map(|name| report.providers[name].clone());
    assert_eq!((p0.orphans, p0.pending), (0, 1), "its incarnation still writes");
    assert_eq!((p1.orphans, p1.foreign), (0, 2), "{p1:?}");
    let fx = fx.restart().await;
    fx.settle().await;
    // Without an operator's word it stays until whoever wrote it was superseded a grace time ago, restarts or not.
    let report = fx.collect(Asked::default()).await;
    assert_eq!((report.providers["p0"].orphans, report.providers["p0"].deleted), (1, 0));
    assert!(fx.stores[0].peek(&late).is_some());
    let mut fx = fx;
    for _ in 0..5 {
        tokio::time::sleep(GRACE / 4).await;
        fx = fx.restart().await;
        fx.settle().await;
    }
    let report = fx.collect(Asked::default()).await;
    assert_eq!(report.providers["p1"].deleted, 0);
    assert_eq!(report.providers["p1"].foreign, 3);
    assert!(fx.stores[0].peek(&late).is_none());
    for path in strangers {
        assert!(fx.stores[1].peek(path).is_some(), "never touched");
    }
    for found in fx.collect(NOW).await.providers.values() {
        assert!(found.listed && found.whole && found.orphans == 0 && found.known > 0 && found.control > 0, "{found:?}");
    }
    assert_eq!(fx.read(b"stays").await.unwrap(), random(9 * MIB, 14));
}

/// More than a listing takes at once, at an account that is too slow to list every folder in the time there is. Orphans in the last folders go
/// as well, a few collections later; and leaving the account does not say how much is left there.
#[tokio::test(start_paused = true)]
async fn what_one_listing_did_not_reach_is_listed_by_another() {
    let fx = Fixture::start(6).await;
    fx.put(b"goes", &random(40 * MIB, 16)).await.unwrap();
    fx.settle().await;
    let before = fx.stores[0].objects();
    fx.gone(b"goes").await;
    fx.collect(NOW).await;
    let fx = fx.restart().await;
    fx.settle().await;
    let after = fx.stores[0].objects();
    let mut late: Vec<_> = before.into_iter().filter(|object| !after.contains(object)).collect();
    late.retain(|(path, _)| path.as_str() >= "60");
    assert!(!late.is_empty(), "a listing reaches 90 folders");
    for (path, bytes) in &late {
        fx.stores[0].tamper(path, Some(bytes.clone()));
    }
    for number in 0..50_000 {
        fx.stores[0].tamper(&format!("00/{number}"), Some(Bytes::new()));
    }
    let slow = Misbehaviour::Latency { fixed: Duration::from_secs(20), jitter: Duration::ZERO };
    fx.stores[0].set_faults(FaultPlan::from(Fault::always(slow).on(&[Op::List])));
    let left = || late.iter().filter(|(path, _)| fx.stores[0].peek(path).is_some()).count();
    let mut rounds = 0;
    while left() > 0 && rounds < 24 {
        let found = fx.collect(NOW).await.providers["p0"].clone();
        assert!(found.listed && !found.whole && found.control > 0, "{found:?}");
        rounds += 1;
    }
    assert_eq!(left(), 0, "after {rounds} collections");
    let listing = listed(&fx.engine.shared(), &ProviderId::new("p0").unwrap()).await.unwrap().unwrap();
    assert!(!listing.complete);
}

/// An account may list one object under many names that begin like it. They stand for one block.
#[tokio::test(start_paused = true)]
async fn who_lists_names_that_begin_alike_lists_one_block() {
    let fx = Fixture::start(5).await;
    let known = fx.stores[0].objects().into_iter().find(|(path, _)| path.find('/') == Some(2)).unwrap().0;
    for number in 0..1000 {
        let alike = format!("{}{number:08x}", &known[..known.len() - 8]);
        fx.stores[0].tamper(&alike, Some(Bytes::new()));
    }
    let listing = listed(&fx.engine.shared(), &ProviderId::new("p0").unwrap()).await.unwrap().unwrap();
    let blocks = fx.engine.shared().ledger.snapshot().unwrap().blocks(None, 1000).unwrap().len();
    assert!(listing.complete && listing.blocks.len() <= blocks, "{} of {blocks}", listing.blocks.len());
}

/// Commit blocks go as well once two compacted logs stand for their records, and what lives in them has moved; a recovery from nothing begins
/// with the compacted log.
#[tokio::test(start_paused = true)]
async fn commit_blocks_go_when_two_compacted_logs_stand_for_them() {
    let fx = Fixture::start(5).await;
    let fresh = Fixture::start(5).await;
    let blob = |index: u64| random(900_000, 500 + index);
    for index in 0..40 {
        fx.put(format!("{index}").as_bytes(), &blob(index)).await.unwrap();
        if index % 8 == 0 {
            fresh.put(format!("{index}").as_bytes(), &blob(index)).await.unwrap();
        }
    }
    for index in (0..40).filter(|index| index % 8 != 0) {
        fx.gone(format!("{index}").as_bytes()).await;
    }
    let before = fx.stored_bytes();
    let thorough = Asked { max_dead_permille: Some(50), ..NOW };
    let report = fx.collect(thorough).await;
    assert_eq!(report.condemned_blocks, 0, "a replay needs them: {report:?}");
    for round in [&fx, &fresh, &fx, &fresh, &fx, &fresh] {
        round.settle().await;
        round.engine.checkpoint_log().await.unwrap();
    }
    for _ in 0..2 {
        fx.collect(thorough).await;
        fresh.collect(thorough).await;
    }
    let (now, ideal) = (fx.stored_bytes(), fresh.stored_bytes());
    assert!(now < before / 4 && now * 100 <= ideal * 105, "{now} bytes are stored, {before} before, a fresh store has {ideal}");
    let fx = fx.recover().await;
    for index in 0..40 {
        let read = fx.read(format!("{index}").as_bytes()).await;
        match read {
            Ok(data) => assert!(index % 8 == 0 && data == blob(index), "{index} came back"),
            Err(error) => assert!(index % 8 != 0 && error.kind == ErrorKind::UnknownKey, "{index}: {error}"),
        }
    }
}

/// The collection's state is older than the end of the checkpoint: by that state alone its blocks belong to nothing.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_ends_while_a_collection_marks_is_kept() {
    let fx = Fixture::start(5).await;
    for index in 0..10_u64 {
        fx.put(format!("{index}").as_bytes(), &random(3000, index)).await.unwrap();
    }
    fx.settle().await;
    let slow = Misbehaviour::Latency { fixed: Duration::from_millis(50), jitter: Duration::ZERO };
    for store in &fx.stores {
        store.set_faults(FaultPlan::from(Fault::always(slow)));
    }
    let shared = fx.engine.shared();
    let number = fx.engine.begin_checkpoint().unwrap();
    let parts = || {
        let view = shared.ledger.snapshot().unwrap();
        let blocks = view.blocks(None, 1000).unwrap();
        let parts: Vec<BlockId> =
            blocks.iter().filter(|entry| entry.facts.kind == BlockKind::Compacted && entry.settled).map(|entry| entry.facts.id).collect();
        (parts, view.compactions().unwrap().len())
    };
    while parts().0.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(parts().1, 0, "not ended yet");
    // Marking waits for a read that is just looking its blob up.
    let lease = shared.keep.lease(Seq(u64::MAX));
    let collecting = begin(&shared, NOW).unwrap();
    tokio::task::yield_now().await;
    while fx.engine.checkpoint_state().ended != Some(number) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(parts().1, 1);
    drop(lease);
    let report = collecting.outcome.await.unwrap().unwrap();
    assert_eq!(report.condemned_blocks, 0, "{report:?}");
}

/// A blob of 1 TiB, as far as the ledger can tell: its one chunk stands for two levels of lists. It goes with one record; while it is there and its
/// lists cannot be read, nothing of its bucket is collected.
#[tokio::test(start_paused = true)]
async fn deleting_a_tebibyte_is_one_record_and_an_unreadable_list_keeps_its_bucket() {
    let fx = Fixture::start(5).await;
    fx.put(b"small", &random(3000, 40)).await.unwrap();
    fx.put(b"dead", &random(9 * MIB, 41)).await.unwrap();
    fx.settle().await;
    fx.gone(b"dead").await;
    let shared = fx.engine.shared();
    let view = || shared.ledger.snapshot().unwrap();
    let tenant = view().tenant_by_name("t").unwrap().unwrap().id;
    let bucket = view().bucket(tenant, "bucket").unwrap().unwrap().id;
    let small = view().blob(bucket, b"small").unwrap().unwrap();
    let size = 1_u64 << 40;
    let put = BlobPut {
        bucket,
        key: b"huge".to_vec(),
        version: VersionId::from_bytes([9; 16]),
        size,
        content_type: None,
        metadata: Vec::new(),
        sha256: None,
        etag: [9; 16],
        class: diaspore_block::record::Class::Quorum,
        content: Content { depth: 2, refs: vec![ChunkRef { id: small.content.refs[0].id, len: size }] },
        idempotency: None,
    };
    let record = NewRecord::system(diaspore_block::record::Private::BlobPut(put)).within(tenant);
    shared.committer.submit(CommitRequest::single(record, ()), shared.answer_by()).await.unwrap();
    let report = fx.collect(NOW).await;
    assert_eq!((report.unreadable_buckets, report.condemned_blocks), (1, 0), "{report:?}");
    // A block that has to be emptied all the same, with everything in it that may be alive.
    let dead: Vec<BlockId> = view()
        .blocks(None, 100)
        .unwrap()
        .iter()
        .map(|entry| &entry.facts)
        .filter(|facts| facts.kind == BlockKind::Bulk)
        .map(|facts| facts.id)
        .collect();
    let mut rewritten = 0;
    rewrite(&shared, &dead, |count| rewritten += count).await.unwrap();
    assert_eq!(rewritten, dead.len() as u64);
    fx.settle().await;
    let cost = || (fx.stores.iter().map(|store| store.requests(Op::Put)).sum::<u64>(), view().log_size().unwrap());
    let mut costs = Vec::new();
    for key in [b"huge".as_slice(), b"small"] {
        let before = cost();
        fx.gone(key).await;
        fx.settle().await;
        let after = cost();
        costs.push((after.0 - before.0, after.1 - before.1));
    }
    assert_eq!(costs[0], costs[1], "requests and entries of the log, whatever the size");
    assert_eq!(costs[0].0, 5, "one commit block");
    assert!(fx.collect(NOW).await.swept.blocks >= 1);
}

/// Two uploads of one content that met in a commit block left its chunk there twice; moving it took both along, and again with every collection.
/// Found by the simulation (one liar, seed 405).
#[tokio::test(start_paused = true)]
async fn a_chunk_that_lies_twice_in_a_block_moves_once() {
    let fx = Fixture::start(5).await;
    let data = random(100_000, 70);
    let (one, two) = futures::join!(fx.put(b"one", &data), fx.put(b"two", &data));
    assert_eq!(one.unwrap().seq, two.unwrap().seq, "they met");
    for _ in 0..3 {
        fx.settle().await;
        fx.engine.checkpoint_log().await.unwrap();
    }
    let thorough = Asked { max_dead_permille: Some(0), ..NOW };
    assert_eq!(fx.collect(thorough).await.moved_bytes, data.len() as u64);
    let again = fx.collect(thorough).await;
    assert_eq!((again.sparse_blocks, again.moved_bytes, again.held_bytes), (0, 0, again.live_bytes), "{again:?}");
    fx.forget();
    assert!(fx.read(b"one").await.unwrap() == data && fx.read(b"two").await.unwrap() == data);
}

/// The list of a long blob is as alive as the chunks that it names, and goes wherever they go: here both lie in blocks that are emptied.
#[tokio::test(start_paused = true)]
async fn a_list_of_chunks_lives_and_moves_like_what_it_names() {
    let fx = Fixture::start(5).await;
    let data = random(3000, 42);
    fx.put(b"piece", &data).await.unwrap();
    let shared = fx.engine.shared();
    let view = || shared.ledger.snapshot().unwrap();
    let tenant = view().tenant_by_name("t").unwrap().unwrap().id;
    let bucket = view().bucket(tenant, "bucket").unwrap().unwrap().id;
    let encoded = Content::encode_list(&view().blob(bucket, b"piece").unwrap().unwrap().content.refs);
    let id = shared.keys.tenant(tenant).unwrap().dedup.bucket(&bucket).chunk_id(&encoded);
    let put = BlobPut {
        bucket,
        key: b"long".to_vec(),
        version: VersionId::from_bytes([9; 16]),
        size: data.len() as u64,
        content_type: None,
        metadata: Vec::new(),
        sha256: None,
        etag: [9; 16],
        class: diaspore_block::record::Class::Quorum,
        content: Content { depth: 1, refs: vec![ChunkRef { id, len: data.len() as u64 }] },
        idempotency: None,
    };
    let plain_len = u32::try_from(encoded.len()).unwrap();
    let list = SmallChunk { tenant, bucket, id, encoding: Encoding::Raw, plain_len, stored: encoded.into() };
    let record = NewRecord::system(diaspore_block::record::Private::BlobPut(put)).within(tenant);
    let request = CommitRequest { chunks: vec![list], ..CommitRequest::single(record, ()) };
    shared.committer.submit(request, shared.answer_by()).await.unwrap();
    fx.gone(b"piece").await;
    for _ in 0..3 {
        fx.settle().await;
        fx.engine.checkpoint_log().await.unwrap();
    }
    let before = view().chunk(bucket, &id).unwrap().unwrap().block;
    let moved = fx.collect(Asked { max_dead_permille: Some(0), ..NOW }).await;
    assert!(moved.moved_bytes > data.len() as u64, "{moved:?}");
    assert_ne!(view().chunk(bucket, &id).unwrap().unwrap().block, before);
    fx.collect(NOW).await;
    fx.forget();
    assert_eq!(fx.read(b"long").await.unwrap(), data);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_restarted_every_quarter_of_an_hour_still_collects() {
    let mut fx = Fixture::start(5).await;
    let mut collected = Vec::new();
    for quarter in 0..12 {
        tokio::time::sleep(Duration::from_mins(15)).await;
        if fx.engine.collector().ended.is_some() {
            collected.push(quarter);
        }
        fx = fx.restart().await;
    }
    assert!((2..=3).contains(&collected.len()), "once an hour in three hours: {collected:?}");
}
