use std::ops::Range;
use std::time::Duration;

use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
use futures::future::join_all;

use super::*;
use crate::api::{ByteRange, ErrorKind};
use crate::blob::tests::fixture::{Fixture, random, whole};

/// Five providers with a blob, all of them at 5 ms.
async fn far(blob: &[u8]) -> Fixture {
    let fx = Fixture::start(5).await;
    fx.put(b"b", blob).await.unwrap();
    fx.settle().await;
    all(&fx, Misbehaviour::Latency { fixed: Duration::from_millis(5), jitter: Duration::ZERO });
    fx.forget();
    fx
}

fn all(fx: &Fixture, what: Misbehaviour) {
    for store in &fx.stores {
        store.set_faults(FaultPlan::from(Fault::always(what).on(&[Op::Get])));
    }
}

fn coalesced(fx: &Fixture) -> u64 {
    fx.engine.status().coalesced_reads
}

/// Requests that one reader alone sends.
async fn alone(fx: &Fixture, blob: &[u8]) -> u64 {
    let before = fx.gets();
    assert!(fx.read(b"b").await.unwrap() == blob);
    fx.forget();
    fx.gets() - before
}

#[tokio::test(start_paused = true)]
async fn readers_of_the_same_bytes_send_the_requests_of_one() {
    // Of long ones as many as there is memory for.
    for (len, readers) in [(2_000, 16), (100_000, 16), (700_000, 16), (3 << 20, 8), (20 << 20, 2)] {
        let blob = random(len, 1);
        let fx = far(&blob).await;
        let (once, before) = (alone(&fx, &blob).await, fx.gets());
        assert_eq!(coalesced(&fx), 0);
        let read = join_all((0..readers).map(|_| fx.read(b"b"))).await;
        assert!(read.into_iter().all(|read| read.unwrap() == blob), "{len}");
        assert_eq!(fx.gets() - before, once, "{len}");
        assert!(coalesced(&fx) >= readers - 1, "{len}");
        assert!(fx.engine.shared().data.fetches.units.is_empty(), "nothing is kept for nobody");
    }
}

#[tokio::test(start_paused = true)]
async fn other_ranges_are_other_fetches() {
    let blob = random(700_000, 2);
    let fx = far(&blob).await;
    let ranges = [0..300_000, 200_000..500_000, 0..300_000];
    let range = |range: &Range<usize>| ByteRange::From { first: range.start as u64, last: Some(range.end as u64 - 1) };
    let read = join_all(ranges.iter().map(|wanted| fx.range(b"b", range(wanted)))).await;
    for (wanted, read) in ranges.into_iter().zip(read) {
        assert!(read.unwrap() == blob[wanted]);
    }
    assert!(coalesced(&fx) >= 1);
    assert!(fx.engine.shared().data.fetches.units.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_began_may_stop_or_leave() {
    for (len, leaves) in [(100_000, false), (100_000, true), (3 << 20, false), (3 << 20, true)] {
        let blob = random(len, 3);
        let fx = far(&blob).await;
        let (once, before) = (alone(&fx, &blob).await, fx.gets());
        let mut first = Some(Box::pin(fx.open(b"b", None)));
        assert!(first.as_mut().unwrap().as_mut().now_or_never().is_none(), "it is under way");
        let mut second = Box::pin(fx.read(b"b"));
        assert!(second.as_mut().now_or_never().is_none(), "beside the first");
        if leaves {
            first = None;
        }
        let read = tokio::time::timeout(Duration::from_secs(1), second).await.expect("the first one is not waited for");
        assert!(read.unwrap() == blob);
        assert!(coalesced(&fx) >= 1);
        assert_eq!(fx.gets() - before, once, "{len} {leaves}");
        if let Some(first) = first {
            fx.forget();
            assert!(whole(first.await.unwrap().body).await.unwrap() == blob, "it goes on where it stood");
        }
        assert!(fx.engine.shared().data.fetches.units.is_empty());
    }
}

/// Bytes that do not open come from one reader's fetch; the provider is found out, and everybody gets the right ones.
#[tokio::test(start_paused = true)]
async fn wrong_bytes_reach_none_of_them() {
    for len in [100_000, 3 << 20] {
        let (blob, mut caught) = (random(len, 4), 0);
        for liar in 0..5 {
            let fx = far(&blob).await;
            fx.stores[liar].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Flip { bits: 3 }).on(&[Op::Get])));
            for _ in 0..4 {
                fx.forget();
                let read = join_all((0..6).map(|_| fx.read(b"b"))).await;
                assert!(read.into_iter().all(|read| read.unwrap() == blob), "{len} {liar}");
            }
            assert!(coalesced(&fx) > 0);
            caught += fx.liars().len();
            assert!(fx.liars().into_iter().all(|found| found == liar), "{len} {liar}");
            assert!(fx.engine.shared().data.fetches.units.is_empty());
        }
        assert!(caught > 0, "{len}");
    }
}

/// Who joins late is not told of a failure that began before it asked without a try of its own, which it shares as well.
#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_by_those_who_joined() {
    let blob = random(100_000, 5);
    let slow = FaultPlan::from(Fault::always(Misbehaviour::Latency { fixed: Duration::from_millis(5), jitter: Duration::ZERO }));
    let failing = |requests| slow.clone().with(Fault::next(Misbehaviour::ErrorBefore, requests).on(&[Op::Get]));
    let fx = far(&blob).await;
    let sent = |fx: &Fixture| fx.stores.iter().map(|store| store.requests(Op::Get)).collect::<Vec<_>>();
    let before = sent(&fx);
    fx.stores.iter().for_each(|store| store.set_faults(failing(u64::MAX)));
    assert_eq!(fx.read(b"b").await.unwrap_err().kind, ErrorKind::DataUnavailable);
    let once: Vec<u64> = sent(&fx).iter().zip(before).map(|(now, before)| now - before).collect();

    // As many requests fail as one fetch sends.
    let fx = far(&blob).await;
    fx.stores.iter().zip(&once).for_each(|(store, requests)| store.set_faults(failing(*requests)));
    let before = fx.gets();
    let read = join_all((0..8).map(|_| fx.read(b"b"))).await;
    assert_eq!(read.iter().filter(|read| read.as_ref().is_err_and(|error| error.kind == ErrorKind::DataUnavailable)).count(), 1);
    assert_eq!(read.iter().filter(|read| read.as_ref().is_ok_and(|read| *read == blob)).count(), 7);
    assert!(fx.gets() - before <= 2 * once.iter().sum::<u64>(), "two fetches for eight readers");
    assert_eq!(coalesced(&fx), 6);
    assert!(fx.engine.shared().data.fetches.units.is_empty());
}

#[test]
fn everybody_is_told_the_same() {
    let plain = told(&Arc::new(Error::new(ErrorKind::DataUnavailable, "too few")));
    assert!(plain.kind == ErrorKind::DataUnavailable && plain.message == "too few" && plain.source.is_none());
    let cause = std::io::Error::other("the line is cut");
    let caused = told(&Arc::new(Error::caused(ErrorKind::IntegrityViolation, "damaged", cause)));
    assert!(caused.kind == ErrorKind::IntegrityViolation && caused.message == "damaged");
    assert_eq!(caused.source.unwrap().to_string(), "the line is cut");
}
