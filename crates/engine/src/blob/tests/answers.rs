//! Everybody gets an answer: whatever providers do, a change is answered within its deadline, and what the answer says holds.

use std::time::Duration;

use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
use tokio::time::Instant;

use super::fixture::{Fixture, random};
use crate::api::{Class, Error, ErrorKind, Idempotency, Precondition, PutOptions};

/// The default, and a moment for what is done beside waiting.
const DEADLINE: Duration = Duration::from_millis(30_100);

async fn in_time<T: std::fmt::Debug>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let start = Instant::now();
    let outcome = request.await;
    assert!(start.elapsed() <= DEADLINE, "{outcome:?} after {:?}", start.elapsed());
    outcome
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Error {
    let error = outcome.unwrap_err();
    let kinds = [ErrorKind::NotAccepted, ErrorKind::TooFewDomains, ErrorKind::OutcomeUnknown];
    assert!(kinds.contains(&error.kind), "{error:?}");
    error
}

fn with_token(byte: u8) -> PutOptions {
    PutOptions { idempotency: Some(Idempotency { key_hash: [byte; 32], request_hash: [1; 32] }), ..PutOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_finds_no_quorum_is_answered_in_time() {
    let frozen = FaultPlan::from(Fault::always(Misbehaviour::Freeze).on(&[Op::Put]));
    for plan in [FaultPlan::down(), frozen] {
        let fx = Fixture::start(5).await;
        let (small, large) = (random(5000, 1), random(20 << 20, 2));
        fx.put(b"there", &small).await.unwrap();
        fx.settle().await;
        for store in &fx.stores[..2] {
            store.set_faults(plan.clone());
        }
        // The first may be on its way before anybody knows; then the same name, another one, one that fills blocks, and a delete.
        let unknown = refused(in_time(fx.put_with(b"k", &small, with_token(1))).await);
        assert_eq!(unknown.kind, ErrorKind::OutcomeUnknown, "{unknown}");
        assert!(unknown.message.contains("same Idempotency-Key"));
        refused(in_time(fx.put(b"k", &small)).await);
        refused(in_time(fx.put(b"other", &small)).await);
        refused(in_time(fx.put(b"large", &large)).await);
        refused(in_time(fx.delete(b"there", Precondition::None, None)).await);
        assert_eq!(in_time(fx.put_with(b"k", &small, with_token(1))).await.unwrap_err().kind, ErrorKind::IdempotencyInFlight);
        assert_eq!(fx.read(b"there").await.unwrap(), small, "reads go on");

        for store in &fx.stores {
            store.set_faults(FaultPlan::honest());
        }
        // Frozen requests take their own time to be given up.
        tokio::time::sleep(Duration::from_mins(2)).await;
        let known = in_time(fx.put_with(b"k", &small, with_token(1))).await.unwrap();
        assert!(known.replayed, "what was unknown came to be, and a retry finds it");
        in_time(fx.put(b"large", &large)).await.unwrap();
        assert!(fx.read(b"large").await.unwrap() == large);
    }
}

#[tokio::test(start_paused = true)]
async fn with_providers_down_a_body_is_refused_before_it_is_read() {
    let fx = Fixture::start(5).await;
    for store in &fx.stores[..2] {
        store.set_faults(FaultPlan::down());
    }
    refused(fx.put(b"k", b"until the breakers have opened").await);
    let unread = futures::stream::poll_fn(|_| panic!("the body was asked for"));
    let error = in_time(fx.put_stream(b"k", PutOptions::default(), Box::pin(unread))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooFewDomains);
    assert!(error.message.contains("3 of 5") && error.message.contains("k + 1 = 4"), "{error}");
    // Nothing but a probe asks those that are down: they are found again without any request of a client.
    for store in &fx.stores {
        store.set_faults(FaultPlan::honest());
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fx.engine.status().healthy_domains, 5);
    in_time(fx.put(b"k", b"again")).await.unwrap();
}

/// Over their quota, or with a key that may only read, accounts answer everything and take nothing: as good as down for whoever writes, and
/// for nobody else. One alone stops nobody.
#[tokio::test(start_paused = true)]
async fn accounts_that_refuse_writes_count_as_gone_for_writes_and_for_nothing_else() {
    for what in [Misbehaviour::Full, Misbehaviour::Denied, Misbehaviour::ErrorBefore] {
        let fx = Fixture::start(5).await;
        let large = random(20 << 20, 4);
        fx.put(b"there", &large).await.unwrap();
        fx.settle().await;
        let refuses = FaultPlan::from(Fault::always(what).on(&[Op::Put]));
        let states = || fx.engine.status().providers.iter().map(|provider| provider.state.clone()).collect::<Vec<_>>();
        fx.stores[0].set_faults(refuses.clone());
        for _ in 0..10 {
            in_time(fx.put(b"k", b"with four of five")).await.unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(states(), ["read-only", "healthy", "healthy", "healthy", "healthy"]);
        fx.stores[1].set_faults(refuses);
        refused(fx.put(b"k", b"until it has refused a few").await);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let unread = futures::stream::poll_fn(|_| panic!("the body was asked for"));
        let error = in_time(fx.put_stream(b"k", PutOptions::default(), Box::pin(unread))).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooFewDomains);
        assert!(error.message.contains("3 of 5 failure domains answer and take writes") && error.message.contains("k + 1 = 4"), "{error}");
        assert_eq!(states()[..3], ["read-only", "read-only", "healthy"]);
        fx.forget();
        let read = fx.stores.iter().map(|store| store.requests(Op::Get)).collect::<Vec<_>>();
        assert!(fx.read(b"there").await.unwrap() == large);
        assert!((0..2).any(|at| fx.stores[at].requests(Op::Get) > read[at]), "they are read as before");
        // Whether they take writes again is tried in the background, and leaves nothing behind.
        for store in &fx.stores {
            store.set_faults(FaultPlan::honest());
        }
        tokio::time::sleep(Duration::from_secs(32)).await;
        assert_eq!(states(), ["healthy"; 5]);
        assert!(fx.stores.iter().all(|store| store.objects().iter().all(|(name, _)| !name.contains("probe/"))));
        in_time(fx.put(b"k", b"again")).await.unwrap();
        fx.settle().await;
    }
}

/// A retry of a request whose first answer was "not yet at full" said "stored" at once.
#[tokio::test(start_paused = true)]
async fn a_full_answer_is_not_given_early_to_a_retry() {
    let fx = Fixture::start(5).await;
    let full = |token| PutOptions { class: Some(Class::Full), ..with_token(token) };
    fx.stores[4].set_faults(FaultPlan::down());
    let large = random(20 << 20, 3);
    for (token, data) in [(1, &b"small"[..]), (2, &large)] {
        assert_eq!(refused(in_time(fx.put_with(b"k", data, full(token))).await).kind, ErrorKind::OutcomeUnknown);
        assert_eq!(fx.read(b"k").await.unwrap(), data, "released at quorum, and visible");
        assert_eq!(refused(in_time(fx.put_with(b"k", data, full(token))).await).kind, ErrorKind::OutcomeUnknown);
    }
    fx.stores[4].set_faults(FaultPlan::honest());
    let known = fx.put_with(b"k", &large, full(2)).await.unwrap();
    assert!(known.replayed);
    assert_eq!(fx.engine.status().unsettled_blocks, 0);
}
