//! The accept loop. `axum::serve` sets no timer on request heads and no bound on connections, so we bring our own.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use diaspore_engine::Engine;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tower::Service;

use crate::limits::Limits;
use crate::observe::Traffic;
use crate::router::{Peer, ServerOptions, build};
use crate::socket::Socket;

/// Pause after an accept failed for want of descriptors or memory: trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// hyper's own number of header fields; asking for exactly that keeps its parser off the heap.
const HYPER_HEADERS: usize = 100;
/// hyper refuses smaller read buffers.
const HYPER_BUFFER_BYTES: usize = 8192;

/// Why the front ended other than by request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The listening socket is unusable.
    #[error("the listening socket failed; start again, and look for another process on the port")]
    Listener(#[source] io::Error),
}

/// Serves the API on `listener` until `shutdown` resolves, then lets running requests end within `Limits::shutdown_time`.
///
/// # Errors
/// [`ServerError::Listener`] when the socket itself is unusable. Failures of single connections end only those.
pub async fn serve(
    engine: Engine,
    listener: TcpListener,
    options: ServerOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServerError> {
    listener.local_addr().map_err(ServerError::Listener)?;
    let limits = options.limits.clone();
    let (router, traffic) = build(engine, options);
    let front = Front { router, traffic, builder: protocol(&limits), limits, graceful: GracefulShutdown::new() };
    let slots = Arc::new(Semaphore::new(front.limits.connections));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &slots) => accepted,
            Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Some((stream, peer, slot)) => front.spawn(&mut connections, stream, peer, slot),
            None => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    let (graceful, time) = (front.graceful, front.limits.shutdown_time);
    if tokio::time::timeout(time, graceful.shutdown()).await.is_err() {
        tracing::warn!(open = connections.len(), "requests were cut at the end of the shutdown time");
    }
    connections.shutdown().await;
    Ok(())
}

/// A connection with its slot: beyond the limit nothing is accepted, so a flood waits in the kernel's queue. `None` after a failure.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, slot)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

/// HTTP/1.1 with a timer on request heads, which also ends idle connections.
fn protocol(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head_time).max_buf_size(limits.buffer_bytes.max(HYPER_BUFFER_BYTES));
    if limits.headers != HYPER_HEADERS {
        builder.max_headers(limits.headers);
    }
    builder
}

struct Front {
    router: Router,
    traffic: Arc<Traffic>,
    builder: http1::Builder,
    limits: Limits,
    graceful: GracefulShutdown,
}

impl Front {
    fn spawn(&self, connections: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        // Answers are whole when they are written; waiting to fill a segment only adds latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            let answer = router.clone().call(request);
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        });
        let socket = TokioIo::new(Socket::new(stream, &self.limits));
        let connection = self.graceful.watch(self.builder.serve_connection(socket, service));
        let open = Open::new(Arc::clone(&self.traffic), slot);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(open);
        });
    }
}

/// Counts a connection while it is open.
struct Open {
    traffic: Arc<Traffic>,
    _slot: OwnedSemaphorePermit,
}

impl Open {
    fn new(traffic: Arc<Traffic>, slot: OwnedSemaphorePermit) -> Self {
        traffic.connections.fetch_add(1, Ordering::Relaxed);
        traffic.connections_total.fetch_add(1, Ordering::Relaxed);
        Self { traffic, _slot: slot }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.traffic.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
