//! Reading a body nobody vouches for: bounded in bytes and in time.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::{Instant, timeout_at};

use crate::deadline::Deadline;
use crate::error::{ErrorKind, classify};

/// Collects exactly `expected` bytes (as the response announced them; already checked against the caller's bound).
///
/// Cut when the total deadline `until` passes, when a stall window brings too little, when the body ends early or does not end.
/// One piece is passed through without a copy; several are gathered in one buffer of the announced length.
pub(crate) async fn collect(
    mut pieces: BoxStream<'static, object_store::Result<Bytes>>,
    expected: u64,
    until: Instant,
    deadline: Deadline,
) -> Result<Bytes, (ErrorKind, String)> {
    let mut gathered = Gathered::default();
    let mut window = Window::new(deadline);
    loop {
        let limit = until.min(window.end);
        let piece = match timeout_at(limit, pieces.next()).await {
            Err(_) => return Err((ErrorKind::Timeout, late(gathered.len(), expected, limit < until))),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(classify(&error)),
            Ok(Some(Ok(piece))) => piece,
        };
        window.received(piece.len() as u64, deadline);
        if gathered.len() + piece.len() as u64 > expected {
            return Err((ErrorKind::BadResponse, format!("the body went past its announced {expected} bytes")));
        }
        gathered.add(piece, expected);
        if gathered.len() == expected {
            // Whatever an endless body would send next is never asked for.
            break;
        }
    }
    if gathered.len() < expected {
        return Err((ErrorKind::BadResponse, format!("the body ended after {} of {expected} bytes", gathered.len())));
    }
    Ok(gathered.finish())
}

fn late(received: u64, expected: u64, stalled: bool) -> String {
    let why = if stalled { "the transfer stalled" } else { "the deadline passed" };
    format!("{why} after {received} of {expected} bytes")
}

/// A moving deadline that only enough bytes push on.
struct Window {
    end: Instant,
    bytes: u64,
}

impl Window {
    fn new(deadline: Deadline) -> Self {
        Self { end: Instant::now() + deadline.stall, bytes: 0 }
    }

    fn received(&mut self, bytes: u64, deadline: Deadline) {
        self.bytes += bytes;
        if self.bytes >= Deadline::MIN_PROGRESS {
            *self = Self::new(deadline);
        }
    }
}

/// Pieces on their way to one buffer.
#[derive(Default)]
enum Gathered {
    #[default]
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Gathered {
    fn len(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::One(bytes) => bytes.len() as u64,
            Self::Many(buffer) => buffer.len() as u64,
        }
    }

    fn add(&mut self, piece: Bytes, expected: u64) {
        *self = match std::mem::take(self) {
            Self::Nothing => Self::One(piece),
            Self::One(first) => {
                let mut buffer = BytesMut::with_capacity(usize::try_from(expected).unwrap_or(0).max(first.len() + piece.len()));
                buffer.extend_from_slice(&first);
                buffer.extend_from_slice(&piece);
                Self::Many(buffer)
            }
            Self::Many(mut buffer) => {
                buffer.extend_from_slice(&piece);
                Self::Many(buffer)
            }
        };
    }

    fn finish(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(buffer) => buffer.freeze(),
        }
    }
}
