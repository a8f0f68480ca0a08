//! How long somebody who asks for a change is kept waiting: one deadline for the whole request.
//!
//! It counts from the last byte that the sender gave us, and only while the sender waits for us: a slow but moving upload is never
//! cut by it (the front has a limit of its own for senders that stall), and one that is held up in the middle, because memory or
//! providers are short, gets its answer as soon as one that was taken in whole.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::time::Instant;

use crate::api::{BodyError, BodyStream, Error, ErrorKind};

/// Who waits for whom.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// We wait for the sender's next bytes.
    Sender,
    /// The sender has waited for us since then.
    Ours(Instant),
}

#[derive(Debug, Clone)]
struct TurnCell(Arc<Mutex<Turn>>);

impl TurnCell {
    fn get(&self) -> Turn {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, turn: Turn) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = turn;
    }
}

/// A body that notes whose turn it is.
struct Watched {
    body: BodyStream,
    turn: TurnCell,
}

impl Stream for Watched {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.body.poll_next_unpin(cx);
        match (&polled, self.turn.get()) {
            (Poll::Pending, _) => self.turn.set(Turn::Sender),
            // The end was there already when we came to look: the last byte counts.
            (Poll::Ready(None), Turn::Ours(_)) => (),
            (Poll::Ready(_), _) => self.turn.set(Turn::Ours(Instant::now())),
        }
        polled
    }
}

/// Takes a body in with `take`. Gives what `take` made of it, and the instant by which the request has to be answered.
///
/// # Errors
/// Those of `take`; `NotAccepted` when the sender was kept waiting for `patience`.
pub(crate) async fn receive<T, F>(patience: Duration, body: BodyStream, take: impl FnOnce(BodyStream) -> F) -> Result<(T, Instant), Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let turn = TurnCell(Arc::new(Mutex::new(Turn::Ours(Instant::now()))));
    let mut taking = pin!(take(Box::pin(Watched { body, turn: turn.clone() })));
    let mut alarm = pin!(tokio::time::sleep(patience));
    poll_fn(|cx| {
        let taken = taking.as_mut().poll(cx);
        let since = match turn.get() {
            Turn::Ours(since) => since,
            Turn::Sender if taken.is_pending() => return Poll::Pending,
            Turn::Sender => Instant::now(),
        };
        let by = since + patience;
        if let Poll::Ready(outcome) = taken {
            return Poll::Ready(outcome.map(|taken| (taken, by)));
        }
        if alarm.deadline() != by {
            alarm.as_mut().reset(by);
        }
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Err(held_up(patience)))
    })
    .await
}

fn held_up(patience: Duration) -> Error {
    let message = format!(
        "not accepted: providers or memory could not keep up with the upload for {} s; nothing became visible, send it again later",
        patience.as_secs()
    );
    Error::new(ErrorKind::NotAccepted, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn piece(after: u64) -> Result<Bytes, BodyError> {
        tokio::time::sleep(Duration::from_secs(after)).await;
        Ok(Bytes::from_static(b"x"))
    }

    /// Takes every piece and works on each for so many seconds.
    async fn work(mut body: BodyStream, seconds: u64) -> Result<usize, Error> {
        let mut pieces = 0;
        while let Some(piece) = body.next().await {
            drop(piece);
            pieces += 1;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
        Ok(pieces)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_sender_uses_up_nothing() {
        let slow = stream::iter([100, 200, 300]).then(piece);
        let start = Instant::now();
        let (pieces, by) = receive(PATIENCE, Box::pin(slow), |body| work(body, 29)).await.unwrap();
        assert_eq!((pieces, start.elapsed().as_secs()), (3, 687));
        // 29 s after the last byte, 1 s is left.
        assert_eq!((by - Instant::now()).as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_held_up_in_the_middle_is_answered() {
        let endless = stream::iter(std::iter::repeat_with(|| 1)).then(piece);
        let start = Instant::now();
        let refused = receive(PATIENCE, Box::pin(endless), |body| work(body, 3600)).await.unwrap_err();
        assert_eq!((refused.kind, start.elapsed().as_secs()), (ErrorKind::NotAccepted, 31));
    }

    #[tokio::test(start_paused = true)]
    async fn work_after_the_last_byte_counts_from_that_byte() {
        let body = stream::iter([5]).then(piece);
        let start = Instant::now();
        let held = async |mut body: BodyStream| {
            while let Some(piece) = body.next().await {
                drop(piece);
            }
            std::future::pending::<Result<(), Error>>().await
        };
        let refused = receive(PATIENCE, Box::pin(body), held).await.unwrap_err();
        assert_eq!((refused.kind, start.elapsed().as_secs()), (ErrorKind::NotAccepted, 35));
    }
}
