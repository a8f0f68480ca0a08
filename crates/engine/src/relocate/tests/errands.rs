//! One errand at a time: when it may begin, what is said about it, and what becomes of it when the engine ends.

use super::*;
use crate::shared::Stage;

#[test]
fn an_errand_has_a_name_while_it_runs_and_an_outcome_afterwards() {
    let relocations = Relocations::default();
    assert_eq!(relocations.begin(&leave("p2")), Some(1));
    let running = RelocationState { running: Some(1), errand: Some("evacuate p2".to_owned()), ..RelocationState::default() };
    assert_eq!(relocations.state(), running);
    assert_eq!(relocations.begin(&Errand::Rebalance { dry_run: true }), None, "one at a time");
    assert_eq!(relocations.state(), running);
    relocations.end(1, &Err(Error::new(ErrorKind::NotAccepted, "no room")));
    let ended = RelocationState { ended: Some(1), error: Some("no room".to_owned()), ..RelocationState::default() };
    assert_eq!(relocations.state(), ended);
    assert_eq!(relocations.begin(&Errand::Rebalance { dry_run: true }), Some(2));
    assert_eq!(relocations.state(), RelocationState { running: Some(2), errand: Some("rebalance".to_owned()), ..ended });
    let outcome = Relocated::Evacuated(Evacuated::default());
    relocations.end(2, &Ok(outcome.clone()));
    assert_eq!(relocations.state(), RelocationState { ended: Some(2), outcome: Some(outcome), ..RelocationState::default() });
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_takes_nothing_new_begins_no_errand() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    shared.stage.refuse_new_work();
    assert_eq!(begin(&shared, leave("p2")).unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(shared.relocations.state(), RelocationState::default());
}

/// An engine that closes says so; one that makes way for a successor hands it over, and whoever asked goes on waiting.
#[tokio::test(start_paused = true)]
async fn an_errand_ends_with_the_service_and_outlives_an_incarnation() {
    for closes in [true, false] {
        let (fx, _) = Fixture::filled(7).await;
        let shared = fx.engine.shared();
        let late = Misbehaviour::Latency { fixed: Duration::from_secs(5), jitter: Duration::ZERO };
        fx.stores.iter().for_each(|store| store.set_faults(FaultPlan::from(Fault::always(late))));
        let mut begun = begin(&shared, leave("p2")).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(begin(&shared, leave("p3")).unwrap_err().kind, ErrorKind::NotAccepted);
        let suspended = || shared.relocations.suspended.lock().unwrap().as_ref().map(|job| (job.number, job.errand.clone()));
        if closes {
            shared.close();
            assert_eq!(begun.outcome.await.unwrap().unwrap_err().kind, ErrorKind::NotAccepted);
            let state = shared.relocations.state();
            assert_eq!((state.running, state.ended, state.error.as_deref()), (None, Some(1), Some("the service is shutting down")));
            assert_eq!(suspended(), None);
        } else {
            shared.step_aside("a test");
            assert!(matches!(shared.stage.get(), Stage::ReadOnly(_)));
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(begun.outcome.try_recv().is_err());
            assert_eq!((suspended(), shared.relocations.state().running), (Some((1, leave("p2"))), Some(1)));
        }
    }
}
