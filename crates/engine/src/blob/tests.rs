//! The data path over a whole engine: real commit log, real ledger in memory, hostile stores in memory.

mod answers;
mod disk;
pub(crate) mod fixture;
pub(crate) mod one_block;

use std::collections::BTreeSet;
use std::time::Duration;

use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::api::{BodyError, ByteRange};
use fixture::{Fixture, compressible, random, whole};

const MIB: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn every_size_reads_back() {
    let fx = Fixture::start(5).await;
    for (index, len) in [0, 1, 4095, 64 * 1024, MIB, MIB + 1, 30 * MIB].into_iter().enumerate() {
        for data in [random(len, index as u64), compressible(len)] {
            let put = fx.put(b"size", &data).await.unwrap();
            assert_eq!(put.blob.size, len as u64);
            assert_eq!(fx.read(b"size").await.unwrap(), data, "{len} bytes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ranges_equal_slices() {
    let fx = Fixture::start(5).await;
    for data in [random(14 * MIB, 1), compressible(6 * MIB)] {
        fx.put(b"r", &data).await.unwrap();
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..40 {
            let first = rng.next_u64() % data.len() as u64;
            let len = 1 + rng.next_u64() % if rng.next_u32() % 4 == 0 { 5 * MIB as u64 } else { 100_000 };
            let last = (first + len - 1).min(data.len() as u64 - 1);
            let got = fx.range(b"r", ByteRange::From { first, last: Some(last) }).await.unwrap();
            let (from, to) = (usize::try_from(first).unwrap(), usize::try_from(last).unwrap());
            assert!(got == data[from..=to], "{first}..={last}");
        }
        let got = fx.range(b"r", ByteRange::Suffix { length: 70_000 }).await.unwrap();
        assert!(got == data[data.len() - 70_000..]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_range_of_a_healthy_block_costs_one_request() {
    let fx = Fixture::start(5).await;
    let data = random(10 * MIB, 3);
    fx.put(b"r", &data).await.unwrap();
    fx.settle().await;
    let mut single = 0;
    for at in 0..20 {
        let before = fx.gets();
        let first = at * 500_000;
        fx.range(b"r", ByteRange::From { first, last: Some(first + 65_535) }).await.unwrap();
        let cost = fx.gets() - before;
        assert!((1..=2).contains(&cost), "{cost} requests");
        single += u64::from(cost == 1);
    }
    assert!(single >= 16, "only {single} of 20 ranges took one request");
}

#[tokio::test(start_paused = true)]
async fn any_single_provider_may_misbehave() {
    let faults = [
        Fault::always(Misbehaviour::Down),
        Fault::always(Misbehaviour::Flip { bits: 3 }).on(&[Op::Get]),
        Fault::always(Misbehaviour::Freeze),
        Fault::always(Misbehaviour::Swap).on(&[Op::Get]),
        Fault::always(Misbehaviour::Truncate).on(&[Op::Get]),
        Fault::always(Misbehaviour::EndlessBody).on(&[Op::Get]),
    ];
    for fault in faults {
        let fx = Fixture::start(5).await;
        let large = random(9 * MIB, 4);
        let small = random(5000, 5);
        fx.put(b"large", &large).await.unwrap();
        fx.put(b"small", &small).await.unwrap();
        fx.settle().await;
        for sick in 0..5 {
            fx.stores[sick].set_faults(FaultPlan::from(fault));
            fx.forget();
            assert!(fx.read(b"large").await.unwrap() == large, "provider {sick}, {fault:?}");
            assert!(fx.read(b"small").await.unwrap() == small, "provider {sick}, {fault:?}");
            let range = fx.range(b"large", ByteRange::From { first: 4_000_000, last: Some(4_100_000) }).await.unwrap();
            assert!(range == large[4_000_000..=4_100_000]);
            fx.stores[sick].set_faults(FaultPlan::honest());
            // Until breakers and pace have forgiven it.
            tokio::time::advance(Duration::from_secs(700)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_k_subset_reads_and_fewer_refuse() {
    let fx = Fixture::start(5).await;
    let data = random(5 * MIB, 6);
    fx.put(b"b", &data).await.unwrap();
    fx.settle().await;
    for mask in 0_u32..32 {
        for (index, store) in fx.stores.iter().enumerate() {
            store.set_faults(if mask & (1 << index) == 0 { FaultPlan::down() } else { FaultPlan::honest() });
        }
        fx.forget();
        let read = fx.read(b"b").await;
        if mask.count_ones() >= 3 {
            assert!(read.unwrap() == data, "{mask:05b}");
        } else {
            assert_eq!(read.unwrap_err().kind, ErrorKind::DataUnavailable, "{mask:05b}");
        }
        tokio::time::advance(Duration::from_mins(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_shard_costs_k_requests_whoever_asks() {
    let fx = Fixture::start(5).await;
    let data = random(40 * MIB, 16);
    fx.put(b"b", &data).await.unwrap();
    fx.settle().await;
    fx.stores[0].set_faults(FaultPlan::down());
    fx.stores[3].set_faults(FaultPlan::down());
    fx.forget();
    // Until the two are known to be down.
    assert!(fx.read(b"b").await.unwrap() == data);
    let before = fx.gets();
    assert!(fx.read(b"b").await.unwrap() == data);
    let whole = fx.gets() - before;
    // Four blocks; the read begins with a short piece of the first, which is a shard or three.
    assert!(whole <= 4 * 3 + 3, "{whole} requests for the whole blob");
    fx.forget();
    let run = async || {
        let before = fx.gets();
        for first in (0..1_000_000).step_by(70_000) {
            let range = ByteRange::From { first, last: Some(first + 9_999) };
            let from = usize::try_from(first).unwrap();
            assert!(fx.range(b"b", range).await.unwrap() == data[from..from + 10_000]);
        }
        fx.gets() - before
    };
    let (first, second) = (run().await, run().await);
    assert!(first == second || first == second + 3, "each leaf list is asked for once: {first}, then {second} requests");
    assert!(second == 15 || second == 45, "one request for each of 15 ranges, or k when their shard is lost: {second}");
}

/// With exactly k good shards nothing may be lost on the way.
#[tokio::test(start_paused = true)]
async fn k_good_shards_are_enough_whichever_two_are_wrong() {
    let fx = Fixture::start(5).await;
    let data: Vec<Vec<u8>> = (0..4).map(|at| random(3 * MIB / 2, 100 + at)).collect();
    for (key, data) in (b'a'..).zip(&data) {
        fx.put(&[key], data).await.unwrap();
    }
    fx.settle().await;
    let slow =
        |ms| Fault::always(Misbehaviour::Latency { fixed: Duration::from_millis(ms), jitter: Duration::from_millis(ms) }).on(&[Op::Get]);
    for (short, wrong) in (0..5).flat_map(|one| (0..5).map(move |two| (one, two))).filter(|(one, two)| one != two) {
        for (at, store) in (1..).zip(&fx.stores) {
            store.set_faults(FaultPlan::from(slow(at)));
        }
        fx.stores[short].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Truncate).on(&[Op::Get])));
        fx.stores[wrong].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Flip { bits: 64 }).on(&[Op::Get])));
        for (key, data) in (b'a'..).zip(&data) {
            fx.forget();
            assert!(fx.read(&[key]).await.unwrap() == *data, "{short} short, {wrong} wrong");
        }
        tokio::time::advance(Duration::from_secs(700)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_provider_that_gave_wrong_bytes_is_named_and_no_other() {
    let fx = Fixture::start(5).await;
    let data = random(30 * MIB, 17);
    fx.put(b"b", &data).await.unwrap();
    fx.settle().await;
    for sick in 0..5 {
        fx.stores[sick].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Flip { bits: 3 }).on(&[Op::Get])));
        fx.forget();
        let before = fx.stores[sick].requests(Op::Get);
        assert!(fx.read(b"b").await.unwrap() == data, "provider {sick}");
        let asked = fx.stores[sick].requests(Op::Get) > before;
        assert_eq!(fx.liars(), if asked { vec![sick] } else { vec![] });
        fx.stores[sick].set_faults(FaultPlan::honest());
        tokio::time::advance(Duration::from_secs(700)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_is_read_around() {
    let fx = Fixture::start(5).await;
    let data = random(60 * MIB, 18);
    fx.put(b"b", &data).await.unwrap();
    fx.settle().await;
    for (index, store) in fx.stores.iter().enumerate() {
        // Not so slow that it would count as late.
        let bytes_per_s = if index == 2 { 40_000_000 } else { 400_000_000 };
        store.set_faults(FaultPlan::from(Fault::always(Misbehaviour::Bandwidth { bytes_per_s })));
    }
    assert!(fx.read(b"b").await.unwrap() == data);
    let before = fx.stores[2].requests(Op::Get);
    assert!(fx.read(b"b").await.unwrap() == data);
    let asked = fx.stores[2].requests(Op::Get) - before;
    assert!(asked <= 1, "the slow provider was asked {asked} times, beyond the short beginning of the read");
}

#[tokio::test(start_paused = true)]
async fn two_dead_and_one_frozen_cost_no_wrong_byte() {
    let fx = Fixture::start(6).await;
    let data = compressible(20 * MIB);
    fx.put(b"b", &data).await.unwrap();
    fx.settle().await;
    fx.stores[0].set_faults(FaultPlan::down());
    fx.stores[1].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Flip { bits: 1 }).on(&[Op::Get])));
    fx.forget();
    assert!(fx.read(b"b").await.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn equal_content_is_stored_once() {
    let fx = Fixture::start(5).await;
    let data = random(8 * MIB, 7);
    fx.put(b"one", &data).await.unwrap();
    fx.settle().await;
    let before = fx.stored_bytes();
    fx.put(b"two", &data).await.unwrap();
    fx.settle().await;
    let grown = fx.stored_bytes() - before;
    assert!(grown < 200_000, "a copy of 8 MiB took {grown} bytes");
    assert_eq!(fx.read(b"two").await.unwrap(), data);
    let mut edited = data.clone();
    edited.splice(3 * MIB..3 * MIB, *b"edit");
    fx.put(b"three", &edited).await.unwrap();
    fx.settle().await;
    let grown = fx.stored_bytes() - before;
    assert!(grown < 4_000_000, "an edited copy of 8 MiB took {grown} bytes");
    assert!(fx.read(b"three").await.unwrap() == edited);
}

#[tokio::test(start_paused = true)]
async fn an_overwrite_is_seen_whole() {
    let fx = Fixture::start(5).await;
    let (old, new) = (random(2 * MIB, 8), random(3 * MIB, 9));
    let first = fx.put(b"k", &old).await.unwrap();
    let reading = fx.open(b"k", None).await.unwrap();
    let second = fx.put(b"k", &new).await.unwrap();
    assert_ne!(first.blob.version, second.blob.version);
    assert_ne!(first.blob.etag, second.blob.etag);
    assert!(whole(reading.body).await.unwrap() == old, "a read that began before keeps its version");
    assert!(fx.read(b"k").await.unwrap() == new);
    let pinned = GetOptions { version: Some(first.blob.version), ..GetOptions::default() };
    assert_eq!(fx.engine_get(b"k", &pinned).await.unwrap_err().kind, ErrorKind::UnknownVersion);
}

#[tokio::test(start_paused = true)]
async fn a_broken_upload_leaves_nothing_visible() {
    let fx = Fixture::start(5).await;
    let data = random(20 * MIB, 10);
    let pieces = data.chunks(MIB).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece)));
    let broken = pieces.chain([Err(BodyError::Aborted("reset".into()))]);
    let refused = fx.put_stream(b"k", PutOptions::default(), Box::pin(futures::stream::iter(broken.collect::<Vec<_>>()))).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Aborted);
    assert_eq!(fx.read(b"k").await.unwrap_err().kind, ErrorKind::UnknownKey);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = fx.stored_bytes();
    fx.put(b"k", &data).await.unwrap();
    fx.settle().await;
    // What the broken upload left behind is recorded and found again.
    assert!(fx.stored_bytes() - before < 20_000_000, "the blocks of the broken upload were not recorded");
    assert!(fx.read(b"k").await.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn declared_lengths_and_digests_are_checked() {
    use sha2::{Digest, Sha256};
    let fx = Fixture::start(5).await;
    let data = random(100_000, 11);
    let digest = <[u8; 32]>::from(Sha256::digest(&data));
    let with = |length, sha256| PutOptions { length, sha256, ..PutOptions::default() };
    for wrong in [with(Some(99_999), None), with(Some(100_001), None), with(None, Some([0; 32]))] {
        assert_eq!(fx.put_with(b"k", &data, wrong).await.unwrap_err().kind, ErrorKind::DigestMismatch);
    }
    assert_eq!(fx.read(b"k").await.unwrap_err().kind, ErrorKind::UnknownKey);
    let put = fx.put_with(b"k", &data, with(Some(100_000), Some(digest))).await.unwrap();
    assert_eq!(put.blob.sha256, Some(digest));
    let wanted = PutOptions { want_sha256: true, ..PutOptions::default() };
    assert_eq!(fx.put_with(b"k", &data, wanted).await.unwrap().blob.sha256, Some(digest));
    assert_eq!(fx.put(b"k", &data).await.unwrap().blob.sha256, None);
}

#[tokio::test(start_paused = true)]
async fn retries_with_a_token_have_one_outcome() {
    let fx = Fixture::start(5).await;
    let (data, other) = (random(2 * MIB, 12), random(2 * MIB, 13));
    let token = |request| Some(Idempotency { key_hash: [1; 32], request_hash: [request; 32] });
    let with = |request| PutOptions { idempotency: token(request), ..PutOptions::default() };
    let first = fx.put_with(b"k", &data, with(1)).await.unwrap();
    assert!(!first.replayed);
    let again = fx.put_with(b"k", &data, with(1)).await.unwrap();
    assert!(again.replayed);
    assert_eq!((again.blob.version, again.seq), (first.blob.version, first.seq));
    assert_eq!(fx.put_with(b"k", &other, with(1)).await.unwrap_err().kind, ErrorKind::IdempotencyMismatch);
    assert_eq!(fx.put_with(b"k", &data, with(2)).await.unwrap_err().kind, ErrorKind::IdempotencyMismatch);

    let (sender, slow) = futures::channel::mpsc::unbounded();
    let pending = fx.put_stream(
        b"k2",
        PutOptions { idempotency: Some(Idempotency { key_hash: [2; 32], request_hash: [1; 32] }), ..PutOptions::default() },
        Box::pin(slow),
    );
    let mut pending = Box::pin(pending);
    assert!(futures::poll!(&mut pending).is_pending());
    let second = PutOptions { idempotency: Some(Idempotency { key_hash: [2; 32], request_hash: [1; 32] }), ..PutOptions::default() };
    assert_eq!(fx.put_with(b"k2", b"x", second).await.unwrap_err().kind, ErrorKind::IdempotencyInFlight);
    sender.unbounded_send(Ok(bytes::Bytes::from_static(b"x"))).unwrap();
    drop(sender);
    pending.await.unwrap();

    let gone = |hash| Some(Idempotency { key_hash: [3; 32], request_hash: [hash; 32] });
    let seq = fx.delete(b"k", Precondition::None, gone(1)).await.unwrap();
    assert_eq!(fx.delete(b"k", Precondition::None, gone(1)).await.unwrap(), seq);
    assert_eq!(fx.delete(b"k", Precondition::None, gone(2)).await.unwrap_err().kind, ErrorKind::IdempotencyMismatch);
    assert_eq!(fx.delete(b"k", Precondition::None, None).await.unwrap_err().kind, ErrorKind::UnknownKey);
}

#[tokio::test(start_paused = true)]
async fn conditions_are_decided_one_after_the_other() {
    let fx = Fixture::start(5).await;
    let create = || PutOptions { precondition: Precondition::Absent, ..PutOptions::default() };
    let bodies: Vec<[u8; 1]> = (0..8).map(|n| [n]).collect();
    let racers = bodies.iter().map(|body| fx.put_with(b"k", body, create()));
    let outcomes = futures::future::join_all(racers).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(|error| error.kind == ErrorKind::PreconditionFailed));
    let etag = fx.head(b"k").await.unwrap().etag;
    let matching = PutOptions { precondition: Precondition::Match(vec![etag]), ..PutOptions::default() };
    fx.put_with(b"k", b"new", matching.clone()).await.unwrap();
    assert_eq!(fx.put_with(b"k", b"newer", matching).await.unwrap_err().kind, ErrorKind::PreconditionFailed);
    assert_eq!(fx.delete(b"k", Precondition::Match(vec![etag]), None).await.unwrap_err().kind, ErrorKind::PreconditionFailed);
    fx.delete(b"k", Precondition::Exists, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn keys_are_bytes_and_listings_are_ordered() {
    let fx = Fixture::start(5).await;
    let keys: Vec<&[u8]> = vec![b"../../etc/passwd", b"a/1", b"a/2", b"a\xff\xfe", "n\u{e9}".as_bytes(), "ne\u{301}".as_bytes()];
    for key in &keys {
        fx.put(key, key).await.unwrap();
    }
    for key in &keys {
        assert_eq!(fx.read(key).await.unwrap(), *key);
    }
    let listed = fx.list(&ListOptions { limit: 1000, ..ListOptions::default() }).await.unwrap();
    let sorted: BTreeSet<Vec<u8>> = keys.iter().map(|key| key.to_vec()).collect();
    assert_eq!(listed.blobs.iter().map(|blob| blob.key.clone()).collect::<Vec<_>>(), sorted.into_iter().collect::<Vec<_>>());
    let folded = fx.list(&ListOptions { limit: 1000, delimiter: Some(b"/".to_vec()), ..ListOptions::default() }).await.unwrap();
    assert_eq!(folded.common_prefixes, [b"../".to_vec(), b"a/".to_vec()]);
    for bad in [vec![], vec![b'a'; 1025], b"a\0b".to_vec()] {
        assert_eq!(fx.put(&bad, b"x").await.unwrap_err().kind, ErrorKind::Invalid);
    }
    assert_eq!(fx.read(b"absent").await.unwrap_err().kind, ErrorKind::UnknownKey);
    assert_eq!(fx.list(&ListOptions::default()).await.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_chunked_body_may_come_in_any_pieces() {
    let fx = Fixture::start(5).await;
    let data = random(3 * MIB + 17, 14);
    let first = fx.put(b"one", &data).await.unwrap();
    let pieces: Vec<_> = data.chunks(1001).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
    let second = fx.put_stream(b"two", PutOptions::default(), Box::pin(futures::stream::iter(pieces))).await.unwrap();
    assert_eq!(first.blob.size, second.blob.size);
    assert!(fx.read(b"two").await.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn a_full_answer_means_that_every_shard_is_stored() {
    // Long enough that blocks are recorded in batches before the blob itself.
    let fx = Fixture::start(5).await;
    let data = random(210 * MIB, 15);
    let full = || PutOptions { class: Some(Class::Full), ..PutOptions::default() };
    fx.put_with(b"long", &data, full()).await.unwrap();
    assert_eq!(fx.engine.status().unsettled_blocks, 0);
    fx.settle().await;
    fx.put_with(b"copy", &data, full()).await.unwrap();
    let tail = fx.range(b"copy", ByteRange::Suffix { length: 3 * MIB as u64 }).await.unwrap();
    assert!(tail == data[data.len() - 3 * MIB..]);
}
