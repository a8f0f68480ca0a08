//! Deadlines, bounds and the breaker against a store that misbehaves, under a paused clock.

use super::rogue::{Mood, Rogue};
use super::*;

const BLOB: &[u8] = &[9; 50_000];
const LEN: u64 = 50_000;

/// A fleet over a rogue that holds `ab/one` and then turns.
async fn turned(mood: Mood) -> (Fleet, ProviderId, Arc<Rogue>) {
    let rogue = Rogue::new(Mood::Good);
    let (fleet, p) = one(Arc::clone(&rogue) as Arc<dyn ObjectStore>);
    fleet.put(&p, "ab/one", vec![Bytes::from_static(BLOB)], QUICK).await.unwrap();
    rogue.set(mood);
    (fleet, p, rogue)
}

async fn failing_get(mood: Mood, max_len: u64) -> (ErrorKind, u64) {
    let (fleet, p, _) = turned(mood).await;
    let started = Instant::now();
    let error = fleet.get(&p, "ab/one", None, max_len, QUICK).await.unwrap_err();
    assert!(!error.to_string().contains("ab/one") && !error.to_string().contains("secret"), "{error}");
    assert_eq!(fleet.counters(&p).unwrap().errors, 1);
    (error.kind, started.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn hanging_frozen_and_dripping_reads_are_cut_by_the_stall_limit() {
    // Every piece of the drip arrives in time: only the bytes per window give it away.
    for mood in [Mood::Hang, Mood::FreezeBody, Mood::Drip] {
        assert_eq!(failing_get(mood, LEN).await, (ErrorKind::Timeout, QUICK.stall.as_secs()), "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lengths_that_do_not_match_are_refused() {
    assert_eq!(failing_get(Mood::Truncate, LEN).await.0, ErrorKind::BadResponse);
    assert_eq!(failing_get(Mood::Inflate(1), LEN + 1).await.0, ErrorKind::BadResponse);
    assert_eq!(failing_get(Mood::Inflate(1 << 40), LEN).await.0, ErrorKind::TooLong);
    assert_eq!(failing_get(Mood::Fail, LEN).await.0, ErrorKind::Unavailable);
    let (fleet, p, _) = turned(Mood::Endless).await;
    let error = fleet.get(&p, "ab/one", Some(0..1500), 1500, QUICK).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadResponse, "an endless body is cut at the first piece past its bound");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_write_ends_at_the_total() {
    let (fleet, p, _) = turned(Mood::Hang).await;
    let started = Instant::now();
    let error = fleet.put(&p, "ab/two", vec![Bytes::from_static(BLOB)], QUICK).await.unwrap_err();
    assert_eq!((error.kind, started.elapsed()), (ErrorKind::Timeout, QUICK.total));
    assert!(error.effect_unknown() && error.is_retryable());
}

/// A create-only PUT whose answer was lost finds its own object when it is retried; seen on real S3 endpoints.
#[tokio::test]
async fn a_create_that_landed_before_its_error_succeeds_when_retried() {
    let rogue = Rogue::new(Mood::FailAfterWrite);
    let (fleet, p) = creating(Arc::clone(&rogue) as Arc<dyn ObjectStore>);
    let payload = || vec![Bytes::from_static(b"head"), Bytes::from_static(BLOB)];
    assert_eq!(fleet.put(&p, "ab/new", payload(), QUICK).await.unwrap_err().kind, ErrorKind::Unavailable);
    rogue.set(Mood::Good);
    fleet.put(&p, "ab/new", payload(), QUICK).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_half_opens_and_closes() {
    let (fleet, p, rogue) = turned(Mood::Fail).await;
    let exists = async || fleet.exists(&p, "ab/one", QUICK).await.map_err(|error| error.kind);
    for _ in 0..3 {
        assert_eq!(exists().await, Err(ErrorKind::Unavailable));
    }
    let asked = rogue.requests();
    assert_eq!(fleet.health(&p).unwrap().state, HealthState::Down);
    assert!(fleet.healthy_domains().is_empty());
    assert_eq!(exists().await, Err(ErrorKind::CircuitOpen));
    assert_eq!(rogue.requests(), asked, "nothing is sent while it is open");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(exists().await, Err(ErrorKind::Unavailable), "half-open: one request passes");
    assert_eq!(fleet.health(&p).unwrap().retry_in, Some(Duration::from_secs(2)));
    rogue.set(Mood::Good);
    assert_eq!(exists().await, Err(ErrorKind::CircuitOpen));
    assert_eq!(fleet.probe(&p, QUICK).await.unwrap().state, HealthState::Healthy, "a probe passes an open breaker");
    assert_eq!(exists().await, Ok(Some(LEN)));
}

#[tokio::test(start_paused = true)]
async fn bytes_in_flight_are_bounded() {
    let rogue = Rogue::new(Mood::Hang);
    let options = FleetOptions { bytes_in_flight: 100_000, ..FleetOptions::default() };
    let fleet = Fleet::from_stores(vec![(ProviderSpec::memory(id("p")), Arc::clone(&rogue) as Arc<dyn ObjectStore>)], options);
    let p = id("p");
    let puts = ["ab/1", "ab/2", "ab/3"].map(|name| fleet.put(&p, name, vec![Bytes::from_static(&[0; 45_000])], QUICK));
    let watch = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rogue.requests()
    };
    let (_, in_flight) = tokio::join!(futures::future::join_all(puts), watch);
    assert_eq!(in_flight, 2, "two of 45 000 bytes fit into 100 000");
}
