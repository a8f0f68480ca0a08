use super::*;

fn monitor() -> Monitor {
    Monitor::new(BreakerOptions::default())
}

fn fail(monitor: &Monitor) -> bool {
    monitor.settle(Outcome::Failed("reset".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn latency_follows_the_samples_and_sets_the_hedge() {
    let monitor = monitor();
    assert_eq!(monitor.health().hedge_after(), Duration::from_millis(250), "nothing measured yet");
    for _ in 0..200 {
        monitor.settle(Outcome::Good(Some(Duration::from_millis(40))));
    }
    let health = monitor.health();
    assert!(health.latency_ewma.abs_diff(Duration::from_millis(40)) < Duration::from_millis(1), "{health:?}");
    assert!(health.latency_deviation < Duration::from_millis(1) && health.hedge_after() < Duration::from_millis(45), "{health:?}");
    for sample in [20, 200, 20, 200, 20, 200] {
        monitor.settle(Outcome::Good(Some(Duration::from_millis(sample))));
    }
    assert!(monitor.health().hedge_after() > Duration::from_millis(200), "an unsteady provider gets more patience");
}

#[tokio::test(start_paused = true)]
async fn pauses_double_up_to_their_limit() {
    let monitor = monitor();
    assert!(!fail(&monitor) && !fail(&monitor) && fail(&monitor), "the third failure opens the breaker");
    assert!(!fail(&monitor), "late answers to earlier requests prolong nothing");
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let pause = monitor.health().retry_in.unwrap();
        pauses.push(pause.as_secs());
        assert!(!monitor.admit(false));
        tokio::time::advance(pause).await;
        assert!(monitor.admit(false), "one request is the trial");
        assert!(!monitor.admit(false), "and only one");
        assert!(fail(&monitor));
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_trial_nobody_waits_for_frees_its_place() {
    let monitor = monitor();
    for _ in 0..3 {
        fail(&monitor);
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(monitor.admit(false));
    monitor.settle(Outcome::Abandoned);
    assert!(monitor.admit(false));
    monitor.settle(Outcome::Good(None));
    assert_eq!(monitor.health().state, HealthState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn lies_and_full_disks_are_remembered_for_a_while() {
    let monitor = monitor();
    monitor.lied("wrong cell");
    monitor.settle(Outcome::Good(None));
    let health = monitor.health();
    assert_eq!((health.state, health.lying, health.scale_weight(100)), (HealthState::Suspect, true, 10));
    tokio::time::advance(Duration::from_mins(10)).await;
    assert_eq!(monitor.health().scale_weight(100), 100);
    monitor.settle(Outcome::Full("no room".to_owned()));
    let health = monitor.health();
    assert_eq!((health.full, health.scale_weight(100), health.retry_in), (true, 0, None), "still readable, nothing new");
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(monitor.health().state, HealthState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn how_long_it_is_down_and_when_it_was_last_heard() {
    let monitor = monitor();
    let health = monitor.health();
    assert_eq!((health.idle, health.score, health.down_for), (None, None, None), "never heard is not healthy for long");
    for _ in 0..3 {
        fail(&monitor);
    }
    tokio::time::advance(Duration::from_mins(2)).await;
    assert!(monitor.admit(false));
    monitor.settle(Outcome::Abandoned);
    let health = monitor.health();
    assert_eq!(health.down_for, Some(Duration::from_mins(2)), "from the first opening on");
    assert_eq!(health.idle, Some(Duration::from_mins(2)), "a request that nobody waited for is no news");
    assert_eq!(health.score, Some(0));
    monitor.settle(Outcome::Good(None));
    let health = monitor.health();
    assert_eq!((health.down_for, health.idle), (None, Some(Duration::ZERO)));
    tokio::time::advance(Duration::from_mins(16)).await;
    monitor.settle(Outcome::Good(None));
    assert_eq!(monitor.health().score, Some(100), "fifteen minutes later nothing of it is left");
    monitor.lied("cells");
    monitor.audited(true);
    assert_eq!(monitor.health().score, Some(50));
    let newest = monitor.minutes()[MINUTES - 1];
    assert_eq!((newest.lies, newest.audits, newest.bad_audits), (1, 1, 0));
}
