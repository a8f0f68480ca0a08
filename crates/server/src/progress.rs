//! Minimum progress of a peer: the meter behind slow senders and slow readers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Measures how long a peer keeps us waiting per `bytes` moved. Only the time between "pending" and the next byte counts.
#[derive(Debug)]
pub(crate) struct Progress {
    time: Duration,
    bytes: u64,
    moved: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Progress {
    /// A meter that calls a peer stalled after `time` of waiting with fewer than `bytes` moved.
    pub(crate) fn new(time: Duration, bytes: u64) -> Self {
        Self { time, bytes: bytes.max(1), moved: 0, waited: Duration::ZERO, waiting_since: None, timer: None }
    }

    /// The peer moved `bytes`.
    pub(crate) fn moved(&mut self, bytes: u64) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        self.moved = self.moved.saturating_add(bytes);
        if self.moved >= self.bytes {
            self.moved = 0;
            self.waited = Duration::ZERO;
        }
    }

    /// The peer keeps us waiting: ready once it has stalled. Registers the waker otherwise.
    pub(crate) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let deadline = since + self.time.saturating_sub(self.waited);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_stalls_after_the_time() {
        let mut meter = Progress::new(Duration::from_secs(5), 100);
        let start = Instant::now();
        poll_fn(|cx| meter.poll_stalled(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dripping_peer_stalls_although_it_moves() {
        let mut meter = Progress::new(Duration::from_secs(5), 100);
        let start = Instant::now();
        loop {
            tokio::select! {
                () = poll_fn(|cx| meter.poll_stalled(cx)) => break,
                () = tokio::time::sleep(Duration::from_secs(1)) => meter.moved(1),
            }
        }
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn enough_bytes_open_a_new_window() {
        let mut meter = Progress::new(Duration::from_secs(5), 100);
        let start = Instant::now();
        for _ in 0..10 {
            tokio::select! {
                () = poll_fn(|cx| meter.poll_stalled(cx)) => panic!("cut a peer that keeps the pace"),
                () = tokio::time::sleep(Duration::from_secs(4)) => meter.moved(100),
            }
        }
        poll_fn(|cx| meter.poll_stalled(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 45);
    }

    #[tokio::test(start_paused = true)]
    async fn time_we_do_not_wait_for_the_peer_is_free() {
        let mut meter = Progress::new(Duration::from_secs(5), 100);
        meter.moved(1);
        tokio::time::sleep(Duration::from_mins(1)).await;
        let start = Instant::now();
        poll_fn(|cx| meter.poll_stalled(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}
