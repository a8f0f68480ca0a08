//! Answer bodies: large reads straight from the file, paced and tampered with as the course says.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::service::Endpoint;
use crate::fault::{Course, Tamper, flips};

/// Bytes per read of a file: few system calls, and still inside the caches.
const READ_LEN: usize = 256 * 1024;
/// Bytes per step of a throttled body: fine enough for a smooth rate.
const PACED_LEN: usize = 16 * 1024;
/// Length an endless body claims to have.
pub(super) const ENDLESS_LEN: u64 = 1 << 50;

/// Where the bytes come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A file positioned at the first byte.
    File(File),
    /// Pieces in memory, already cut to the range.
    Memory(VecDeque<Bytes>),
}

impl From<Bytes> for Source {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(VecDeque::from([bytes]))
    }
}

/// What is still to go wrong with a body.
#[derive(Debug)]
enum Trouble {
    None,
    /// Changed bits, nearest first.
    Flips(VecDeque<(u64, u8)>),
    /// Silence from this offset on.
    Silence(u64),
    /// Reset at this offset.
    Cut(u64),
    /// Filler after the content.
    Endless,
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct AnswerBody {
    source: Source,
    /// Bytes sent so far.
    at: u64,
    /// Bytes to send in all.
    len: u64,
    trouble: Trouble,
    throttle: Option<u64>,
    drip: Option<(u32, Duration)>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Told when the connection is to be reset.
    doomed: Arc<AtomicBool>,
    /// Counts what is sent and holds the link; none for the emulator's own answers.
    endpoint: Option<Arc<Endpoint>>,
}

impl AnswerBody {
    /// A body of the emulator's own: an XML document or nothing.
    pub(super) fn plain(bytes: Bytes) -> Self {
        Self {
            at: 0,
            len: bytes.len() as u64,
            source: Source::from(bytes),
            trouble: Trouble::None,
            throttle: None,
            drip: None,
            pause: None,
            doomed: Arc::new(AtomicBool::new(false)),
            endpoint: None,
        }
    }

    /// `len` bytes of an object, on the course given.
    pub(super) fn object(source: Source, len: u64, course: &Course, endpoint: Arc<Endpoint>, doomed: Arc<AtomicBool>) -> Self {
        let mut shown = len;
        let trouble = match course.body {
            None => Trouble::None,
            Some(Tamper::Truncate(part)) => {
                shown = Tamper::cut(part, len);
                Trouble::None
            }
            Some(Tamper::Flip { bits, seed }) => Trouble::Flips(flips(bits, seed, len).into()),
            Some(Tamper::Freeze(part)) => Trouble::Silence(Tamper::cut(part, len)),
            Some(Tamper::Reset(part)) => Trouble::Cut(Tamper::cut(part, len)),
            Some(Tamper::Endless) => {
                shown = ENDLESS_LEN;
                Trouble::Endless
            }
        };
        Self {
            source,
            at: 0,
            len: shown,
            trouble,
            throttle: course.throttle,
            drip: course.drip,
            pause: None,
            doomed,
            endpoint: Some(endpoint),
        }
    }

    /// Bytes the answer claims to carry.
    pub(super) const fn claimed_len(&self) -> u64 {
        self.len
    }

    /// How many bytes the next step may carry.
    fn step_len(&self) -> usize {
        let mut step = READ_LEN;
        if self.throttle.is_some() {
            step = step.min(PACED_LEN);
        }
        if let Some((bytes, _)) = self.drip {
            step = step.min(usize::try_from(bytes).unwrap_or(READ_LEN));
        }
        let mut left = self.len - self.at;
        if let Trouble::Silence(end) | Trouble::Cut(end) = self.trouble {
            left = left.min(end.saturating_sub(self.at));
        }
        step.min(usize::try_from(left).unwrap_or(step))
    }

    /// The next bytes, at most `step`.
    fn take(&mut self, step: usize) -> io::Result<Bytes> {
        let piece = match &mut self.source {
            Source::File(file) => {
                let mut buffer = Vec::with_capacity(step);
                file.take(step as u64).read_to_end(&mut buffer)?;
                Bytes::from(buffer)
            }
            Source::Memory(pieces) => pieces.front_mut().map_or_else(Bytes::new, |front| front.split_to(step.min(front.len()))),
        };
        if let Source::Memory(pieces) = &mut self.source
            && pieces.front().is_some_and(Bytes::is_empty)
        {
            pieces.pop_front();
        }
        if piece.is_empty() && matches!(self.trouble, Trouble::Endless) {
            return Ok(Bytes::from(vec![0x5a; step]));
        }
        if piece.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(self.flipped(piece))
    }

    fn flipped(&mut self, piece: Bytes) -> Bytes {
        let Trouble::Flips(places) = &mut self.trouble else {
            return piece;
        };
        let end = self.at + piece.len() as u64;
        if places.front().is_none_or(|(offset, _)| *offset >= end) {
            return piece;
        }
        let mut changed = BytesMut::from(piece.as_ref());
        while let Some((offset, mask)) = places.pop_front_if(|(offset, _)| *offset < end) {
            let place = usize::try_from(offset - self.at).ok();
            if let Some(byte) = place.and_then(|place| changed.get_mut(place)) {
                *byte ^= mask;
            }
        }
        changed.freeze()
    }

    /// Arms the pause that follows `len` bytes.
    fn pace(&mut self, len: usize) {
        let mut until: Option<Instant> = None;
        if let (Some(rate), Some(endpoint)) = (self.throttle, &self.endpoint) {
            until = Some(endpoint.link().down().book(len, rate));
        }
        if let Some((_, every)) = self.drip {
            until = until.max(Instant::now().checked_add(every));
        }
        self.pause = until.map(|until| Box::pin(tokio::time::sleep_until(until)));
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        if self.at >= self.len {
            return Poll::Ready(None);
        }
        let step = self.step_len();
        if step == 0 {
            if matches!(self.trouble, Trouble::Silence(_)) {
                // Nobody will wake this: only the end of the connection ends it.
                return Poll::Pending;
            }
            self.doomed.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionReset))));
        }
        let piece = match self.take(step) {
            Ok(piece) => piece,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        self.at += piece.len() as u64;
        if let Some(endpoint) = &self.endpoint {
            endpoint.sent(piece.len());
        }
        self.pace(piece.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.len
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len - self.at)
    }
}
