use super::*;

fn monitor() -> Monitor {
    Monitor::new(BreakerOptions::default())
}

fn fail(monitor: &Monitor) -> bool {
    monitor.settle(Operation::Get, Outcome::Failed("reset".to_owned())).down
}

#[tokio::test(start_paused = true)]
async fn latency_follows_the_samples_and_sets_the_hedge() {
    let monitor = monitor();
    assert_eq!(monitor.health().hedge_after(), Duration::from_millis(250), "nothing measured yet");
    for _ in 0..200 {
        monitor.settle(Operation::Get, Outcome::Good(Some(Duration::from_millis(40))));
    }
    let health = monitor.health();
    assert!(health.latency_ewma.abs_diff(Duration::from_millis(40)) < Duration::from_millis(1), "{health:?}");
    assert!(health.latency_deviation < Duration::from_millis(1) && health.hedge_after() < Duration::from_millis(45), "{health:?}");
    for sample in [20, 200, 20, 200, 20, 200] {
        monitor.settle(Operation::Get, Outcome::Good(Some(Duration::from_millis(sample))));
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
        assert!(!monitor.admit(Operation::Get, false));
        tokio::time::advance(pause).await;
        assert!(monitor.admit(Operation::Get, false), "one request is the trial");
        assert!(!monitor.admit(Operation::Get, false), "and only one");
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
    assert!(monitor.admit(Operation::Get, false));
    monitor.settle(Operation::Get, Outcome::Abandoned);
    assert!(monitor.admit(Operation::Get, false));
    monitor.settle(Operation::Get, Outcome::Good(None));
    assert_eq!(monitor.health().state, HealthState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn lies_are_remembered_for_a_while_and_full_disks_until_they_take_something() {
    let monitor = monitor();
    monitor.lied("wrong cell");
    monitor.settle(Operation::Get, Outcome::Good(None));
    let health = monitor.health();
    assert_eq!((health.state, health.lying, health.scale_weight(100)), (HealthState::Suspect, true, 10));
    tokio::time::advance(Duration::from_mins(10)).await;
    assert_eq!(monitor.health().scale_weight(100), 100);
    monitor.settle(Operation::Put, Outcome::Full("no room".to_owned()));
    let health = monitor.health();
    assert_eq!((health.full, health.scale_weight(100), health.retry_in), (true, 0, None), "still readable, nothing new");
    tokio::time::advance(Duration::from_mins(1)).await;
    assert!(!monitor.health().takes_writes, "time alone makes no room");
    monitor.settle(Operation::Put, Outcome::Good(None));
    let health = monitor.health();
    assert_eq!((health.full, health.takes_writes, health.state), (false, true, HealthState::Healthy));
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
    assert!(monitor.admit(Operation::Get, false));
    monitor.settle(Operation::Get, Outcome::Abandoned);
    let health = monitor.health();
    assert_eq!(health.down_for, Some(Duration::from_mins(2)), "from the first opening on");
    assert_eq!(health.idle, Some(Duration::from_mins(2)), "a request that nobody waited for is no news");
    assert_eq!(health.score, Some(0));
    monitor.settle(Operation::Get, Outcome::Good(None));
    let health = monitor.health();
    assert_eq!((health.down_for, health.idle), (None, Some(Duration::ZERO)));
    tokio::time::advance(Duration::from_mins(16)).await;
    monitor.settle(Operation::Get, Outcome::Good(None));
    assert_eq!(monitor.health().score, Some(100), "fifteen minutes later nothing of it is left");
    monitor.lied("cells");
    monitor.audited(true);
    assert_eq!(monitor.health().score, Some(50));
    let newest = monitor.minutes()[MINUTES - 1];
    assert_eq!((newest.lies, newest.audits, newest.bad_audits), (1, 1, 0));
}

/// A key that may only read, a quota: every answer to a read said that all was well, so that nothing ever kept writes away.
#[tokio::test(start_paused = true)]
async fn who_answers_and_refuses_writes_is_read_and_not_written() {
    let monitor = monitor();
    let put = || {
        assert!(monitor.admit(Operation::Put, false));
        monitor.settle(Operation::Put, Outcome::Failed("403".to_owned())).takes_writes
    };
    let read = || {
        assert!(monitor.admit(Operation::Get, false));
        monitor.settle(Operation::Get, Outcome::Good(None))
    };
    for turn in [None, None, Some(false)] {
        assert!(monitor.health().takes_writes);
        assert_eq!(put(), turn);
        assert_eq!(read(), Turn::default());
    }
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let health = monitor.health();
        assert_eq!((health.state, health.takes_writes, health.full, health.retry_in), (HealthState::Suspect, false, false, None));
        assert_eq!(health.scale_weight(100), 0);
        let pause = health.write_retry_in.unwrap();
        pauses.push(pause.as_secs());
        assert!(!monitor.admit(Operation::Put, false));
        tokio::time::advance(pause).await;
        read();
        assert!(!monitor.health().takes_writes, "a pause that is over says nothing yet");
        assert_eq!(put(), None);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(monitor.admit(Operation::Put, false) && !monitor.admit(Operation::Put, false), "one request is the trial, and only one");
    monitor.settle(Operation::Put, Outcome::Taken);
    assert!(!monitor.health().takes_writes, "that the name is taken says nothing about room");
    assert!(monitor.admit(Operation::Put, false));
    assert_eq!(monitor.settle(Operation::Put, Outcome::Good(None)).takes_writes, Some(true));
    assert_eq!((monitor.health().state, monitor.health().write_retry_in), (HealthState::Healthy, None));

    // It took the trial and refuses what is larger: the pauses go on, until it has been well for a while.
    assert_eq!(monitor.settle(Operation::Put, Outcome::Full("no room".to_owned())).takes_writes, Some(false));
    assert_eq!(monitor.health().write_retry_in, Some(Duration::from_secs(30)));
    monitor.settle(Operation::Put, Outcome::Good(None));
    tokio::time::advance(Duration::from_mins(5)).await;
    monitor.settle(Operation::Put, Outcome::Full("no room".to_owned()));
    assert_eq!(monitor.health().write_retry_in, Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn writes_that_fail_now_and_then_stop_nothing() {
    let monitor = monitor();
    for _ in 0..10 {
        for _ in 0..2 {
            assert_eq!(monitor.settle(Operation::Put, Outcome::Failed("500".to_owned())), Turn::default());
        }
        monitor.settle(Operation::Put, Outcome::Good(None));
    }
    assert!(monitor.health().takes_writes);
    // A forced trial passes a gate that is shut, and a breaker that is open.
    for _ in 0..3 {
        monitor.settle(Operation::Put, Outcome::Failed("500".to_owned()));
    }
    assert_eq!(monitor.health().state, HealthState::Down);
    assert!(!monitor.admit(Operation::Put, false) && monitor.admit(Operation::Put, true));
}
