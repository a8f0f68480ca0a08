//! A request body on its way to the engine: bounded, paced, and honest about how it ended.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use diaspore_engine::api::{BodyError, Error, ErrorKind};
use futures::Stream;
use http_body::Body as _;

use crate::limits::Limits;
use crate::problem::Problem;
use crate::progress::Progress;

/// How a body ended, and how much came, for whoever answers.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    ending: AtomicU8,
    received: AtomicU64,
}

const RUNNING: u8 = 0;
const STALLED: u8 = 1;
const TOO_LONG: u8 = 2;

impl Fate {
    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether the body was cut because its sender stalled.
    pub(crate) fn stalled(&self) -> bool {
        self.ending.load(Ordering::Relaxed) == STALLED
    }

    /// The problem behind an engine error: an upload that the front cut is not the engine's "aborted".
    pub(crate) fn explain(&self, error: Error, limits: &Limits) -> Problem {
        match (error.kind, self.ending.load(Ordering::Relaxed)) {
            (ErrorKind::Aborted | ErrorKind::TooLarge, STALLED) => Problem::too_slow(),
            (ErrorKind::Aborted | ErrorKind::TooLarge, TOO_LONG) => Problem::too_large(limits.blob_bytes),
            _ => error.into(),
        }
    }
}

/// The stream of a request body. Frames go through as they came: no copy, no buffer.
#[derive(Debug)]
pub(crate) struct Upload {
    body: Body,
    progress: Progress,
    limit: u64,
    fate: Arc<Fate>,
    ended: bool,
}

impl Upload {
    /// Takes over `body`; `fate` tells afterwards what became of it.
    pub(crate) fn new(body: Body, limits: &Limits, fate: Arc<Fate>) -> Self {
        let progress = Progress::new(limits.stall_time, limits.stall_bytes);
        Self { body, progress, limit: limits.blob_bytes, fate, ended: false }
    }

    fn fail(&mut self, ending: u8, error: BodyError) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.ended = true;
        self.fate.ending.store(ending, Ordering::Relaxed);
        self.body = Body::empty();
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Upload {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.ended {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending => {
                    ready!(this.progress.poll_stalled(cx));
                    return this.fail(STALLED, BodyError::Aborted("the sender stalled".into()));
                }
                Poll::Ready(None) => this.ended = true,
                Poll::Ready(Some(Err(_))) => return this.fail(RUNNING, BodyError::Aborted("the connection broke".into())),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers carry nothing we take; digests are declared before the body.
                    let Ok(bytes) = frame.into_data() else { continue };
                    this.progress.moved(bytes.len() as u64);
                    if bytes.is_empty() {
                        continue;
                    }
                    let received = this.fate.received.fetch_add(bytes.len() as u64, Ordering::Relaxed).saturating_add(bytes.len() as u64);
                    if received > this.limit {
                        return this.fail(TOO_LONG, BodyError::TooLong { limit: this.limit });
                    }
                    return Poll::Ready(Some(Ok(bytes)));
                }
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use std::time::Duration;

    fn limits(blob_bytes: u64) -> Limits {
        Limits { blob_bytes, stall_time: Duration::from_secs(5), ..Limits::default() }
    }

    fn aborted() -> Error {
        Error::new(ErrorKind::Aborted, "aborted")
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_sender_is_cut_and_answered_408() {
        let fate = Arc::new(Fate::default());
        let body = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let mut upload = Upload::new(body, &limits(10), Arc::clone(&fate));
        assert!(matches!(upload.next().await, Some(Err(BodyError::Aborted(_)))));
        assert!(upload.next().await.is_none());
        assert_eq!(fate.explain(aborted(), &limits(10)).code(), "too_slow");
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_cut_at_the_limit() {
        let fate = Arc::new(Fate::default());
        let pieces = [&b"12345"[..], b"67890", b"1"].map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece)));
        let upload = Upload::new(Body::from_stream(futures::stream::iter(pieces)), &limits(10), Arc::clone(&fate));
        let taken: Vec<_> = upload.collect().await;
        assert_eq!(taken.len(), 3);
        assert!(matches!(taken[2], Err(BodyError::TooLong { limit: 10 })));
        assert_eq!(fate.explain(aborted(), &limits(10)).code(), "too_large");
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes_uncopied() {
        let piece = Bytes::from(vec![1_u8; 10]);
        let fate = Arc::new(Fate::default());
        let mut upload = Upload::new(Body::from(piece.clone()), &limits(10), Arc::clone(&fate));
        let got = upload.next().await.unwrap().unwrap();
        assert_eq!(got.as_ptr(), piece.as_ptr());
        assert!(upload.next().await.is_none());
        assert_eq!(fate.received(), 10);
        assert_eq!(fate.explain(aborted(), &limits(10)).code(), "aborted");
    }
}
