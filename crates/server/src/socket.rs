//! The socket as hyper sees it: writes have a pace to keep, and closing lets the peer read our last answer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::limits::Limits;
use crate::progress::Progress;

/// A TCP stream with a write stall limit and a lingering close.
///
/// Without the linger, an answer sent before the request body was read to its end (401, 412, 413) would be lost: closing a socket
/// with unread bytes makes the kernel send a reset, which discards what the peer has not read yet.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    writes: Progress,
    linger: Linger,
}

#[derive(Debug)]
struct Linger {
    time: std::time::Duration,
    bytes_left: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, limits: &Limits) -> Self {
        Self {
            stream,
            writes: Progress::new(limits.stall_time, limits.stall_bytes),
            linger: Linger { time: limits.linger_time, bytes_left: limits.linger_bytes, timer: None },
        }
    }

    /// Counts a finished write, or turns a stalled one into an error.
    fn judge(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Ok(written)) => {
                self.writes.moved(written as u64);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.writes.poll_stalled(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, outcome)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.judge(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.timer.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let time = this.linger.time;
        let timer = this.linger.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        let mut scratch = [0_u8; 4096];
        loop {
            if timer.as_mut().poll(cx).is_ready() || this.linger.bytes_left == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => return Poll::Ready(Ok(())),
                Ok(()) => this.linger.bytes_left = this.linger.bytes_left.saturating_sub(buffer.filled().len() as u64),
                Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
