//! Sockets: the accept loop, the connections, and the port that stays ours while the provider is down.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::EmulatorError;
use super::service::Endpoint;

/// Accepted connections that wait to be taken.
const BACKLOG: u32 = 1024;
/// How long a client may take over a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Largest buffer of a connection; reads grow up to it, so large bodies cost few system calls.
const BUFFER_LEN: usize = 1 << 20;

/// Where the accept loop finds its listener.
type Slot = Arc<Mutex<Option<TcpListener>>>;

/// What is running now.
#[derive(Debug)]
enum Phase {
    /// Listening; the tokens end it gently and at once. Emptying the slot closes the listener on the spot.
    Up { slot: Slot, gentle: CancellationToken, hard: CancellationToken, tasks: TaskTracker },
    /// Not listening. The bound socket keeps the port from everybody else, and connections are refused.
    Down { reserved: Option<TcpSocket> },
}

/// The port of one endpoint and everything that is served on it.
#[derive(Debug)]
pub(super) struct Listening {
    endpoint: Arc<Endpoint>,
    address: SocketAddr,
    runtime: Handle,
    phase: Mutex<Phase>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Phase::Up { gentle, hard, .. } = &*self.lock() {
            gentle.cancel();
            hard.cancel();
        }
    }
}

fn close(slot: &Slot) {
    drop(slot.lock().unwrap_or_else(PoisonError::into_inner).take());
}

impl Listening {
    pub(super) fn start(endpoint: Arc<Endpoint>, port: u16) -> Result<Self, EmulatorError> {
        let failed = |source| EmulatorError::Listen { port, source };
        let socket = bind(port).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let runtime = Handle::try_current().map_err(|error| failed(io::Error::other(error)))?;
        let listening = Self { endpoint, address, runtime, phase: Mutex::new(Phase::Down { reserved: Some(socket) }) };
        listening.resume()?;
        Ok(listening)
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens again; nothing happens while it does.
    pub(super) fn resume(&self) -> Result<(), EmulatorError> {
        let mut phase = self.lock();
        let Phase::Down { reserved } = &mut *phase else {
            return Ok(());
        };
        let port = self.address.port();
        let failed = |source| EmulatorError::Listen { port, source };
        let socket = reserved.take().map_or_else(|| bind(port), Ok).map_err(failed)?;
        let _context = self.runtime.enter();
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        let slot = Arc::new(Mutex::new(Some(listener)));
        let gentle = CancellationToken::new();
        let hard = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn_on(accept(Arc::clone(&slot), Arc::clone(&self.endpoint), tasks.clone(), gentle.clone(), hard.clone()), &self.runtime);
        *phase = Phase::Up { slot, gentle, hard, tasks };
        Ok(())
    }

    /// Stops listening and cuts every connection.
    pub(super) fn kill(&self) {
        let mut phase = self.lock();
        if let Phase::Up { slot, gentle, hard, .. } = &*phase {
            close(slot);
            gentle.cancel();
            hard.cancel();
            *phase = self.reserve();
        }
    }

    /// Stops listening and waits until the requests under way are done.
    pub(super) async fn stop(&self) {
        let tasks = {
            let mut phase = self.lock();
            let Phase::Up { slot, gentle, tasks, .. } = &*phase else {
                return;
            };
            close(slot);
            gentle.cancel();
            let tasks = tasks.clone();
            *phase = self.reserve();
            tasks
        };
        tasks.close();
        tasks.wait().await;
    }

    /// Down, with the port kept where the system lets us; otherwise it is asked for again on return.
    fn reserve(&self) -> Phase {
        Phase::Down { reserved: bind(self.address.port()).ok() }
    }
}

fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

async fn accept(slot: Slot, endpoint: Arc<Endpoint>, tasks: TaskTracker, gentle: CancellationToken, hard: CancellationToken) {
    loop {
        let next = poll_fn(|cx| match &*slot.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(listener) => listener.poll_accept(cx).map(Some),
            None => Poll::Ready(None),
        });
        let accepted = tokio::select! {
            () = gentle.cancelled() => return,
            accepted = next => accepted,
        };
        match accepted {
            None => return,
            Some(Ok((stream, _))) => {
                let connection = serve(stream, Arc::clone(&endpoint), gentle.clone(), hard.clone());
                tasks.spawn(connection);
            }
            // Out of descriptors, or the client was gone already: neither ends the endpoint.
            Some(Err(error)) => {
                tracing::warn!(%error, "emulator could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, endpoint: Arc<Endpoint>, gentle: CancellationToken, hard: CancellationToken) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let doomed = Arc::new(AtomicBool::new(false));
    let wire = Wire { stream, doomed: Arc::clone(&doomed) };
    let service = service_fn(move |request| {
        let endpoint = Arc::clone(&endpoint);
        let doomed = Arc::clone(&doomed);
        async move {
            let answered = endpoint.answer(request, Arc::clone(&doomed)).await;
            if answered.is_err() {
                doomed.store(true, Ordering::Relaxed);
            }
            answered
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_LEN)
        .serve_connection(TokioIo::new(wire), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        () = hard.cancelled() => return,
        ended = connection.as_mut() => ended,
        () = gentle.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                () = hard.cancelled() => return,
                ended = connection => ended,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "emulated connection ended early");
    }
}

/// A socket that is reset instead of closed once it is doomed.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    doomed: Arc<AtomicBool>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Relaxed)
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "emulated reset became a close");
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A shutdown would send the orderly end that a reset must not have.
        if self.doomed.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
